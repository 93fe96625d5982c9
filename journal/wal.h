/* The WAL's extents that are live: from the checkpoint to the block now being written. Maps an LSN
 * to a place.
 *
 * Under one lock that is never held across I/O; readers pin the extent that they read. An extent
 * leaves when the
 * checkpoint has passed it and nobody pins it. */
#ifndef WEIR_JOURNAL_WAL_H
#define WEIR_JOURNAL_WAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "format/extent.h"
#include "format/super.h"
#include "journal/slab.h"

/* Where a group's log stood when an extent was left. */
struct wal_mark {
    uint64_t group, last_entry, last_hash;
};

struct wal_extent {
    uint64_t place;
    uint64_t incarnation, salt;
    uint64_t first_lsn;
    uint64_t end_lsn; /* LSN_OPEN while it is written */
    unsigned pins;
    bool head_damaged; /* at the start: torn with its block, or rotten; told then */
    bool passed;       /* by the checkpoint: freed at the last unpin */
    struct wal_mark *marks;
    unsigned n_marks;
};

struct wal {
    struct slabs *slabs;
    uint32_t log2;
    pthread_mutex_t lock;
    struct wal_extent **list; /* in LSN order */
    unsigned n, cap;
    bool ready;
};

void wal_init(struct wal *w, struct slabs *slabs, uint32_t log2);
void wal_fini(struct wal *w);

/* Bytes of blocks that an extent can hold. */
static inline uint64_t wal_room(const struct wal *w)
{
    return ((uint64_t)1 << w->log2) - PAGE_BYTES;
}

/* Adds the next extent. Any thread. */
void wal_add(struct wal *w, uint64_t place, uint64_t incarnation, uint64_t salt,
             uint64_t first_lsn);
/* The last extent ends here; takes over marks. Any thread. */
void wal_end(struct wal *w, uint64_t end_lsn, struct wal_mark *marks, unsigned n_marks);

/* Finds the extent that holds [lsn, lsn + bytes) and pins it. E_NOTFOUND: no longer (or not) live.
 * Any thread. */
int wal_pin(struct wal *w, uint64_t lsn, uint64_t bytes, struct wal_extent **out) MUST_USE;
void wal_unpin(struct wal *w, struct wal_extent *x);
/* File and position of an LSN in a pinned extent. */
struct dev_file *wal_at(struct wal *w, const struct wal_extent *x, uint64_t lsn, uint64_t *pos);

/* Live bytes in closed extents, and the number of live extents. */
void wal_live(struct wal *w, uint64_t *closed_bytes, unsigned *n_extents);
/* The first `max` closed extents, oldest first; returns how many. Not pinned: for the one that
 * moves the checkpoint. */
unsigned wal_oldest(struct wal *w, struct wal_extent **out, unsigned max);
/* The checkpoint has moved to lsn: frees the extents that end at or before it, now or at their last
 * unpin. */
void wal_passed(struct wal *w, uint64_t lsn);
/* The place of an incarnation's first extent that ends past lsn; PLACE_NONE when it has none. */
uint64_t wal_place_after(struct wal *w, uint64_t incarnation, uint64_t lsn);

#endif
