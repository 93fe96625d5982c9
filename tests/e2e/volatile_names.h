/* The names half of the volatile device: creations, renames and removals that a power cut may undo.
 *
 * Every change of a name happens at once in the backing folder and is remembered, in order, with
 * what is needed to take it back. Syncing a folder makes its changes, and all older ones, lasting
 * (as a file system's own journal does). A cut takes back a random suffix of what is left. Syncing
 * a file says nothing about its name: that is the strict reading of POSIX. A folder's own rename
 * lasts at once.
 *
 * Paths are relative to the backing folder. All calls return 0 or -errno. Any thread. */
#ifndef WEIR_TESTS_E2E_VOLATILE_NAMES_H
#define WEIR_TESTS_E2E_VOLATILE_NAMES_H

#include <stdbool.h>

#include "base/rng.h"

/* Where removed files wait, in the backing folder; not shown to anyone. */
#define NAMES_HIDDEN ".undo"

/* root: the backing folder. keep: names are never taken back. */
int names_open(int root, bool keep);
/* path was just created (a file, link or folder). */
void names_created(const char *path);
int names_unlink(const char *path);
int names_rmdir(const char *path, unsigned mode);
int names_rename(const char *from, const char *to);
/* The folder was synced; "" is the root. */
void names_sync(const char *folder);
/* Everything so far lasts. */
void names_sync_all(void);
/* Power goes. Gives how many changes were taken back, and of how many. */
unsigned names_cut(struct rng *rng, unsigned *of);

#endif
