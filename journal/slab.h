/* Slabs: large prewritten files cut into extents (format/extent.h), and the allocator over them.
 *
 * Which extents are in use is not stored: it follows from the live WAL and the segments, and is
 * marked again at open. Space is grown
 * ahead of need, on a pool thread, by new files that are written, synced and named before their
 * first use, so that no append
 * ever meets an allocating write. */
#ifndef WEIR_JOURNAL_SLAB_H
#define WEIR_JOURNAL_SLAB_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "format/extent.h"
#include "journal/io/dev.h"

enum { SLABS_MAX = 4096 };

struct slab {
    struct dev_file *file;
    uint32_t number;
    uint32_t n_units; /* the header's unit included */
    uint32_t n_free;
    uint8_t *used; /* one byte a unit */
};

struct slabs {
    struct dev *dev;
    struct uuid store;
    uint64_t first_bytes, max_bytes; /* sizes of new files */
    uint64_t space_max, space_floor;
    uint32_t whole_units; /* of a WAL extent: such places are kept whole; 0 or 1: no matter */
    pthread_mutex_t lock; /* the list and the maps */
    struct slab *list;
    unsigned n;
    uint64_t total_units, free_units; /* under lock */
    bool locked_init;
};

/* The name of a slab's file, with what comes behind it (while it is made), and the way back: whether the
 * name is one. */
void slab_name(char *name, size_t bytes, uint32_t number, const char *tail);
bool slab_name_parse(const char *name, uint32_t *number);

/* Opens every slab file of the folder; E_CORRUPT when one is not of this store. Creates none. */
int slabs_open(struct slabs *s, struct dev *dev, const struct uuid *store, struct err *e) MUST_USE;
void slabs_close(struct slabs *s);

/* Makes one more slab file: written, synced, named. Blocks; one caller at a time. `at_least` bytes
 * must fit in it as one extent.
 * E_NOSPACE when a limit or the file system says no. */
int slabs_grow(struct slabs *s, uint64_t at_least, struct err *e) MUST_USE;

/* Takes an extent of 2^log2 bytes. E_NOSPACE. Any thread. */
int slabs_take(struct slabs *s, uint32_t log2, uint64_t *place) MUST_USE;
/* The same, from the slab that `near` lies in when it has one. */
int slabs_take_near(struct slabs *s, uint32_t log2, uint64_t near, uint64_t *place) MUST_USE;
/* A place in the slab with the most free space; PLACE_NONE: there is no slab. Any thread. */
uint64_t slabs_roomiest(struct slabs *s);
/* Gives it back. Any thread. */
void slabs_give(struct slabs *s, uint64_t place, uint32_t log2);
/* Marks an extent as used, at open; E_CORRUPT when it lies outside or is used already. */
int slabs_mark(struct slabs *s, uint64_t place, uint32_t log2) MUST_USE;

/* The file of a place; NULL when there is no such slab or the extent would lie outside. Any thread.
 * */
struct dev_file *slabs_file(struct slabs *s, uint64_t place, uint32_t log2);
/* True when at least `count` WAL extents could be taken now. Any thread. */
bool slabs_has_whole(struct slabs *s, unsigned count);
/* Bytes, now. Any thread. */
void slabs_space(struct slabs *s, uint64_t *total, uint64_t *free_bytes);

#endif
