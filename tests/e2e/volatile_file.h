/* The data half of the volatile device: files whose writes live in memory until they are synced.
 *
 * A vfile stands for one inode of the backing folder. Writes go into 4 KiB pages in memory; a sync
 * moves those that it found when it began to the backing file. Reads see the newest bytes. A power
 * cut gives each page that no finished sync has covered its fate: kept, dropped, or torn (each
 * 512-byte sector the new or the old one).
 *
 * All calls return 0 or a count, or -errno. Any thread, except where it says otherwise. */
#ifndef WEIR_TESTS_E2E_VOLATILE_FILE_H
#define WEIR_TESTS_E2E_VOLATILE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/rng.h"

enum { VFILE_PAGE = 4096, VFILE_SECTOR = 512 };

struct vfile;

/* How long the disk takes for each sync; what is being synced can still be lost meanwhile. */
void vfile_set_delay(unsigned us);

/* Opens dir/path (flags: O_CREAT and O_EXCL count) and takes one use of its inode. */
int vfile_open(int dir, const char *path, int flags, mode_t mode, struct vfile **out);
void vfile_close(struct vfile *v);
/* A name of inode ino was removed: forgets it when nothing refers to it any more. */
void vfile_unlinked(ino_t ino);

int vfile_read(struct vfile *v, void *to, size_t bytes, uint64_t at);
int vfile_write(struct vfile *v, const void *from, size_t bytes, uint64_t at);
int vfile_truncate(struct vfile *v, uint64_t size);
int vfile_allocate(struct vfile *v, int mode, uint64_t at, uint64_t bytes);
int vfile_sync(struct vfile *v);
int vfile_stat(struct vfile *v, struct stat *st);
/* Puts the size that readers see into *st, when st->st_ino is one of ours. */
void vfile_fix_size(struct stat *st);

/* Writes back everything, as a clean unmount does. */
void vfile_sync_all(void);

struct vfile_cut {
    uint64_t kept, torn, dropped; /* pages */
};
/* Power goes: running syncs stop where they are and fail. */
void vfile_cut_begin(void);
/* Decides the fate of every unsynced page. No other call may be running. */
void vfile_cut_apply(struct rng *rng, struct vfile_cut *count);

#endif
