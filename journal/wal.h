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
#include "format/frame.h"
#include "format/super.h"
#include "journal/slab.h"

/* Where a group's log stood when an extent was left. */
struct wal_mark {
    uint64_t group, last_entry, last_hash;
    struct frame_segment segment; /* that the next entry is in */
};

/* A frame that ends a segment of its group: all that the segment has lies below end_lsn. */
struct wal_cut {
    uint64_t group, entry, end_lsn;
};

/* A group's open segment: one for each WAL extent. */
struct wal_direct {
    uint64_t group, segment;
};

struct wal_extent {
    uint64_t place;
    uint64_t incarnation, salt;
    uint64_t first_lsn;
    uint64_t end_lsn; /* LSN_OPEN while it is written */
    uint64_t seen_us; /* when the keeper first saw it; 0: not yet */
    unsigned pins;
    bool head_damaged; /* at the start: torn with its block, or rotten; told then */
    bool passed;       /* by the checkpoint: freed at the last unpin */
    struct wal_mark *marks;
    unsigned n_marks;
    struct wal_direct *direct; /* the open segments that its blocks have written to */
    unsigned n_direct;
    uint64_t direct_bytes;
    struct wal_cut *cuts; /* in LSN order */
    unsigned n_cuts;
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

/* The block at lsn (LSN_OPEN: one of the last extent) puts that many bytes into a group's open segment.
 * Any thread. */
void wal_direct(struct wal *w, uint64_t lsn, uint64_t group, uint64_t segment, uint64_t bytes);

/* A frame of the last extent ends a segment. Any thread. */
void wal_cut(struct wal *w, uint64_t group, uint64_t entry, uint64_t end_lsn);

/* Finds the extent that holds [lsn, lsn + bytes) and pins it. E_NOTFOUND: no longer (or not) live.
 * Any thread. */
int wal_pin(struct wal *w, uint64_t lsn, uint64_t bytes, struct wal_extent **out) MUST_USE;
void wal_unpin(struct wal *w, struct wal_extent *x);
/* File and position of an LSN in a pinned extent. */
struct dev_file *wal_at(struct wal *w, const struct wal_extent *x, uint64_t lsn, uint64_t *pos);

/* Bytes of blocks in a pinned extent, which will not become more; 0: it is still written. */
uint64_t wal_closed_bytes(struct wal *w, const struct wal_extent *x);

/* The extent that is written now. */
uint64_t wal_last_place(struct wal *w);

struct wal_live {
    uint64_t closed_bytes;  /* of closed extents */
    uint64_t closed_direct; /* what their blocks have put into open segments */
    uint64_t open_direct;   /* the same of the one that is written */
    unsigned n_extents;
    unsigned n_cuts; /* segments that end in it */
};
/* What is live now. */
struct wal_live wal_live(struct wal *w);
/* Whether a closed extent is older than age_us by the monotonic clock, counted from the first call
 * that saw it; *open_lsn: where the open extent begins if that is so old, else 0. */
bool wal_aged(struct wal *w, uint64_t now_us, uint64_t age_us, uint64_t *open_lsn);
/* The first `max` closed extents, oldest first; returns how many. Not pinned: for the one that
 * moves the checkpoint. */
unsigned wal_oldest(struct wal *w, struct wal_extent **out, unsigned max);
/* The checkpoint has moved to lsn: frees the extents that end at or before it, now or at their last
 * unpin. */
void wal_passed(struct wal *w, uint64_t lsn);
/* The place of an incarnation's first extent that ends past lsn; PLACE_NONE when it has none. */
uint64_t wal_place_after(struct wal *w, uint64_t incarnation, uint64_t lsn);

#endif
