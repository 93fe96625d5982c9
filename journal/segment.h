/* Sealed segments on this node: the table of them, and reading. Any thread; the blocking calls on
 * pool threads only. */
#ifndef WEIR_JOURNAL_SEGMENT_H
#define WEIR_JOURNAL_SEGMENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"
#include "format/row.h"
#include "journal/slab.h"

struct segment {
    uint64_t id;
    struct row_segment row;
    bool open; /* its group's direct batches go into it, or went until it is sealed; no index yet */
    bool dropping;       /* keeper: its deletion is under way */
    bool fresh;          /* keeper: sealed, and retention has not looked into it since */
    int64_t look_ms;     /* keeper: wall clock at which retention looks into it; 0: it never did */
    uint64_t live;       /* bytes of runs that are not deleted or trimmed away; keeper */
    uint64_t settled;    /* keeper: a copy was made with so much alive; 0: it is none */
    uint64_t rewrite_us; /* keeper: rewriting it failed, and is not tried again before */
    unsigned pins;       /* under the table's lock, as what follows */
    bool dead;           /* deleted: its extents are freed at the last unpin */
    struct seg_index *index; /* when loaded */
    uint64_t index_used;
};

struct segments {
    struct slabs *slabs;
    struct dev *dev;
    pthread_mutex_t lock;
    struct hash by_id;
    unsigned n_indexes; /* loaded */
    uint64_t clock;
    bool ready;
};

void segments_init(struct segments *t, struct dev *dev, struct slabs *slabs);
void segments_fini(struct segments *t);

/* Adds a segment; harmless when it is there. */
struct segment *segments_add(struct segments *t, uint64_t id, const struct row_segment *row);
/* Takes it out of the table; its extents are given back at the last unpin (give_space) or stay
 * marked (not). */
void segments_remove(struct segments *t, uint64_t id, bool give_space);
/* A segment that is still being written to: of it only row.group, row.extents and row.data_bytes (the
 * end of what was written) mean something. */
void segments_open(struct segments *t, uint64_t id, uint64_t group);
/* Gives an open segment its extent of that number; those that are skipped have no place. */
void segments_extend(struct segments *t, uint64_t id, unsigned number, struct seg_extent x);
/* Something is written to it up to `end`. */
void segments_written(struct segments *t, uint64_t id, uint64_t end);
/* An open segment is about to be sealed, and can be read so: row's extents begin with those that it
 * has. It is sealed when open is no longer set. Or (unseal) it is not, after all, and keeps
 * n_extents. */
void segments_seal(struct segments *t, uint64_t id, const struct row_segment *row);
void segments_unseal(struct segments *t, uint64_t id, unsigned n_extents);
/* The same as segments_remove, if it is still open; nothing otherwise. */
void segments_remove_open(struct segments *t, uint64_t id);
/* NULL when there is none. */
struct segment *segment_pin(struct segments *t, uint64_t id);
void segment_unpin(struct segments *t, struct segment *s);

/* Where byte pos of a segment lies: in which extent, how far into its room, and the bytes from there
 * to its end. E_CORRUPT: nowhere. */
struct seg_place {
    struct seg_extent extent;
    uint64_t inside, room;
};
int segment_locate(struct segments *t, struct segment *s, uint64_t pos,
                   struct seg_place *out) MUST_USE;
/* Reads [pos, pos + bytes) of the segment's bytes. Blocks. *buf is new (one reference), the wanted
 * bytes begin at *at in it. */
int segment_read(struct segments *t, struct segment *s, uint64_t pos, uint64_t bytes,
                 struct buf **buf, uint32_t *at) MUST_USE;
/* The index of a pinned segment, valid until it is unpinned. Blocks. E_CORRUPT, E_IO. */
int segment_index(struct segments *t, struct segment *s, const struct seg_index **out) MUST_USE;
/* Makes the index anew from the data (when the stored one is damaged). Blocks; free with
 * seg_index_free. */
int segment_index_rebuild(struct segments *t, struct segment *s, struct seg_index *out) MUST_USE;
/* What rewriting may take together, and what it must be good for. */
struct segments_want {
    unsigned max;        /* segments */
    uint64_t max_bytes;  /* alive in them together; one alone may have more */
    uint64_t least_gain; /* bytes that it must give back, and half of the space, unless urgent */
    bool urgent;         /* any gain will do, and the log's cuts do not matter if need be */
    uint64_t now_us;     /* of the loop's clock */
};
/* Neighbours of one group, pieces of one segment of the log, that would lie in less space if they were
 * written anew, what gains most; or small ones, all there are of an ended segment or some of one
 * that goes on, that would be one; never one alone that a rewrite has made and in which nothing has
 * died since. Pinned; returns how many, 0: nothing is to be gained. Keeper. */
unsigned segments_wasteful(struct segments *t, struct segment **out,
                           const struct segments_want *want);
/* Bytes of its extents. */
uint64_t segment_space(const struct row_segment *row);

/* Collects runs, sparse entries and producers while batches pass in (shard, offset) order. */
struct seg_builder {
    struct seg_index index;
    uint32_t cap_runs, cap_sparse, cap_producers;
    uint32_t first_producer; /* of the present shard */
    bool cut;                /* the next batch begins a run */
    uint32_t n_finished;     /* runs */
    uint64_t pos;
    uint64_t n_batches, n_offsets;
    int64_t min_ts, max_ts;
};
struct batch_head;
/* One more batch of shard, which lies at pos already, behind a run's header of its own. */
void seg_builder_add_direct(struct seg_builder *b, uint64_t shard, const struct batch_head *h,
                            uint64_t pos, uint64_t xxh3);
/* One more batch of shard. Returns the byte of the data where it must be copied. */
uint64_t seg_builder_add(struct seg_builder *b, uint64_t shard, const struct batch_head *h);
/* Writes the headers of the runs from byte `start` of the segment on into the data, which begins
 * there, and fills in their hashes: of those that have come since the last call. */
void seg_builder_finish(struct seg_builder *b, uint64_t segment, uint64_t start, uint8_t *data);
void seg_builder_free(struct seg_builder *b);

#endif
