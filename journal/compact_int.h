/* Between the parts of log compaction: the keeper's (compact.c), choosing shards and noting keys
 * (compact_plan.c), copying (compact_copy.c). */
#ifndef WEIR_JOURNAL_COMPACT_INT_H
#define WEIR_JOURNAL_COMPACT_INT_H

#include "format/batch.h"
#include "journal/compact.h"
#include "journal/keymap.h"
#include "journal/segwrite.h"

enum {
    COMPACT_SHARDS = 64,
    COMPACT_BODY_MAX = 256 << 20, /* of a batch's records; what is larger stays as it is */
    /* When to look at a shard again, beside a time in ms. */
    COMPACT_WHEN_SEALED = 0,
    COMPACT_FORGET = -1
};

/* One shard of a round. */
struct compact_shard {
    uint64_t id;
    bool gone;       /* keeper: deleted since */
    bool taken;      /* in this round, as what follows says */
    bool damaged;    /* part of it cannot be read: left as it is */
    int64_t wait_ms; /* not taken: look at it again then, or one of the above */
    int64_t lag_ms, delete_retention_ms;
    struct row_cleaned now; /* row C as it will be */
    uint64_t at;            /* runs that end at or below it are through */
    bool looked;            /* which comes next is known, or that none does: */
    bool through;           /* all are */
    uint64_t next_first;    /* the log's segment that the next one is in */
    /* of the piece */
    bool moved;        /* row C has changed */
    uint64_t from, to; /* what the new segment holds of it; from == to: nothing */
};

/* One run of a shard in segments, in offset order. */
struct compact_run {
    uint64_t base;
    struct row_run row;
};

/* A round: the pool's while work runs, else the keeper's. */
struct compact_round {
    struct work work;
    struct store *st;
    bool urgent;
    bool prepared; /* the shards are chosen, their keys known */
    bool over;     /* no piece follows */
    bool across;   /* of the next piece: space is short, it is of several segments of the log */
    int rc;
    int64_t time; /* wall clock at its beginning, ms */
    uint64_t group;
    struct compact_shard shards[COMPACT_SHARDS];
    unsigned n;
    struct keymap map;
    uint64_t segment; /* the number of a piece's new one */
    struct segwrite out;
};

/* Which shards the round takes, what their keys' latest offsets are. Pool. */
int compact_plan(struct compact_round *r) MUST_USE;
/* Makes the next piece. Afterwards out.row.n_extents > 0 if there is a new segment, and over says
 * whether the round is through. E_IO: writing failed. Pool. */
int compact_copy(struct compact_round *r) MUST_USE;

/* Which runs of a shard: those that lie in [from, below), where none lies across from. */
struct compact_want {
    uint64_t from, below;
    const uint64_t *first; /* only up to one that is not in this segment of the log; NULL: all */
    unsigned max;          /* so many; 0: all */
};
/* In offset order; free the list. Pool. */
int compact_runs(struct store *st, uint64_t shard, const struct compact_want *want,
                 struct compact_run **list, unsigned *n) MUST_USE;
/* The log's segment that a run is in: the first entry of that; 0: none, or the run's is gone. */
uint64_t compact_run_first(struct store *st, const struct compact_run *run);
/* Reads a run and pins its segment; the bytes begin at *mem in *buf. E_CORRUPT: cannot be read. */
int compact_run_read(struct store *st, const struct compact_run *run, struct segment **seg,
                     struct buf **buf, const uint8_t **mem) MUST_USE;
/* Whether the records of a batch are looked at: not a transaction's, nor the server's marks. */
bool compact_batch_opens(const struct batch_head *h);

#endif
