/* Between the parts of destage: the keeper's and the groups' (destage.c), and what runs on the pool
 * (destage_write.c). */
#ifndef WEIR_JOURNAL_DESTAGE_INT_H
#define WEIR_JOURNAL_DESTAGE_INT_H

#include "journal/destage.h"
#include "journal/dirty.h"
#include "journal/segwrite.h"

enum { ROUND_EXTENTS = 32 };

/* One run in the WAL, or a direct batch, that is to go into a segment. */
struct destage_entry {
    uint64_t shard;
    struct index_entry
        entry; /* its direct is not NULL where direct holds, and is not to be followed */
    struct index_direct direct;
    uint32_t piece; /* of its part */
};

struct lsn_range {
    uint64_t start, end;
};

struct lost_range {
    uint64_t shard, start, end;
};

/* What of a part lies between two ends of segments, or the ends of the round: one segment is written
 * of it, a piece of the log's (format/frame.h). */
struct destage_piece {
    uint64_t first_entry, last_entry;
    uint64_t segment_first;
    bool ends;        /* its segment */
    uint64_t end_lsn; /* its batches are below */
    /* made by the pool */
    uint32_t from, n; /* of the part's list */
    uint64_t segment;
    struct segwrite out;
    uint64_t open; /* the open segment of its direct batches; 0: none, or several */
    bool seals;    /* it becomes the piece's segment */
    bool in_table; /* as such, already */
};

/* One group's part of a round. */
struct destage_part {
    struct task task;
    struct dirty_walk walk; /* home; of its dirty shards, a slice a turn */
    struct shard *dropping; /* home; those still to be looked at */
    struct destage *d;
    struct jrn_group *group;
    struct destage_entry *list;
    uint32_t n, cap;
    struct rows_batch rows; /* ends and producers of its dirty shards */
    struct destage_piece *pieces;
    unsigned n_pieces;
    /* made by the pool */
    struct lost_range *lost;
    unsigned n_lost;
};

struct destage {
    struct store *st;
    bool running;
    uint64_t began_us;
    struct wal_extent *extents[ROUND_EXTENTS];
    unsigned n_extents;
    uint64_t end_lsn;
    struct destage_part *parts; /* one a group */
    unsigned waiting;
    struct work work;
    struct buf *wal[ROUND_EXTENTS];
    struct lsn_range *whole; /* blocks of an extent with direct batches, in order */
    unsigned n_whole;
    int rc;
    struct rows_work rows_work;
    struct super super; /* as it will be */
};

/* Reads the round's extents, checks each batch, and writes the pieces; d->rc says how it went. On failure
 * some may have been written. The `run` of d->work. */
void destage_write_run(struct work *w);

#endif
