/* What the journal's modules share: the journal itself, groups, shards and appends in flight.
 *
 * Homes: a group and its shards are touched on the group's loop; "keeper" is loops[0], where the
 * device's catalogue, destage,
 * checkpoint and space are looked after; "committer" is the commit loop. Fields say who may touch
 * them. */
#ifndef WEIR_JOURNAL_CORE_H
#define WEIR_JOURNAL_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/hash.h"
#include "base/rng.h"
#include "format/super.h"
#include "journal/cache.h"
#include "journal/chunk.h"
#include "journal/direct.h"
#include "journal/dirty.h"
#include "journal/index.h"
#include "journal/io/rows.h"
#include "journal/journal.h"
#include "journal/producer.h"
#include "journal/run_cache.h"
#include "journal/segment.h"
#include "journal/slab.h"
#include "journal/wal.h"

enum {
    GROUP_CATALOGUE = 0, /* holds SHARD_CATALOGUE alone */
    GROUP_INTERNAL = 1,  /* class INTERNAL */
    GROUP_DATA = 2,      /* and up: class DATA, by policy class and loop: see catalogue_group_for */
    SHARD_CATALOGUE = 1,
    SHARD_FIRST_USER = 16,
    POLICY_CLASSES =
        7, /* kept for ever; at most an hour, a day, a week, a month; longer; compacted */
    LSN_FIRST = PAGE_BYTES
};

/* A batch on its way: made by shard_append, ends when its done has been posted. Lies in done->room,
 * unless done is answered earlier than that, or missing. The committer does not look at the shard: its
 * lines would go from core to core. */
struct append {
    struct task task;
    struct append *next;
    struct shard *shard; /* a reference */
    struct jrn_group *group;
    uint64_t shard_id;
    struct buf *batch; /* a reference; NULL: a barrier, which is answered after all before it */
    uint32_t at, bytes;
    enum ack ack;
    struct append_done *done; /* NULL once answered */
    uint64_t base_offset;
    uint32_t n_offsets;
    int64_t max_ts;
    uint64_t due_us;   /* throttled until then; 0: not yet asked */
    uint64_t began_us; /* when it was accepted */
    uint64_t lsn;      /* committer: of its first byte in the WAL */
    bool duplicate;
    bool was_held;         /* counted so */
    bool direct;           /* batch is a run buffer now; the committer may still decide otherwise */
    uint64_t xxh3;         /* of its stored bytes, direct; else of its run's, in the first of one */
    uint64_t segment, pos; /* committer: where it lies; direct */
    bool on_heap;          /* not in done->room */
};
_Static_assert(sizeof(struct append) <= sizeof(((struct append_done *)0)->room), "it lies there");

/* One past the run that begins with first: inline ones of a shard that follow one another, or a direct one.
 * In the order of the frame. */
static inline struct append *append_run_end(const struct append *first)
{
    struct append *a = first->next;

    while (a && a->shard_id == first->shard_id && !a->direct && !first->direct)
        a = a->next;
    return a;
}

/* What one block made durable (or not) for one group. */
struct commit_result {
    struct task task;
    struct jrn_group *group;
    struct buf *block;    /* a reference */
    uint64_t lsn;         /* of the block */
    struct append *first; /* in the order of the frame, barriers last */
    int64_t append_time;
    int rc;
};

struct group_loss {
    uint64_t lsn, end_lsn, max_offsets;
    bool accepted, recorded;
};

struct jrn_group {
    struct store *st;
    uint64_t id;
    enum shard_class class;
    struct loop *loop;
    uint64_t epoch;
    /* committer */
    uint64_t last_entry, last_hash, durable_entry;
    struct frame_segment segment; /* that the next frame is in */
    bool restart;                 /* the next frame begins a new chain */
    bool cut;                     /* its last frame has ended a segment */
    uint64_t bytes_all;           /* of the batches in the block being made, direct ones too */
    struct append *in_block, **in_block_end;
    uint32_t n_in_block;
    uint64_t bytes_in_block;
    _Atomic(struct commit_result *) spare_result; /* the last one, for the next */
    /* home; in lines of its own */
    _Alignas(CACHE_LINE) struct append *staged, **staged_end;
    struct append *held, **held_end; /* waiting for space, before any check */
    struct loop_timer throttle;      /* the first held one may go */
    struct task flush;
    bool flush_posted;
    struct cache cache;
    struct direct_buffer direct; /* what is shared with the committer is under its lock */
    struct dirty
        dirty; /* shards with changes that rows do not have, or with entries in the index */
    struct group_loss *losses;
    unsigned n_losses;
    atomic_bool read_only; /* written home, read by any */
    bool used;             /* had a batch in this life; home */
    /* keeper */
    uint64_t destaged_lsn, destaged_entry, destaged_hash;
    struct frame_segment destaged_segment; /* that the entry after destaged_entry is in */
    int64_t least_retention_ms; /* of its shards that expire, at most this; INT64_MAX: none does */
    bool any_limited;           /* perhaps */
};

/* Each of many shards is out of every cache when its next batch comes: what an append looks at lies in
 * the first two cache lines, what destage does besides in the third. Aligned to CACHE_LINE. */

struct shard {
    struct store *st;
    struct jrn_group *group;
    uint64_t id;
    atomic_ullong end;
    uint64_t next;            /* home; the offset that the next batch gets */
    uint64_t last_lsn;        /* home; of its last batch seen in the live WAL; 0: none */
    struct shard *dirty_next; /* home */
    atomic_uint refs;         /* the table holds one */
    uint8_t kind;             /* enum shard_kind */
    atomic_bool deleted;
    bool dirty; /* home */
    bool used;  /* under shards_lock; asked for since the last round of unloading */

    /* home */
    struct index index;
    struct producers producers;
    struct shard_wait *waits;

    uint64_t saved_end; /* as the last round of destage has taken it for rows, with the producers */
    uint64_t rows_end;  /* as rows have it for certain, with the producers; UINT64_MAX: not known */
    atomic_ullong start;
    struct memory *memory; /* of kind MEMORY: what it holds (memory.h) */
    struct keyindex *keys; /* of kind ROCKSDB (keyindex.h) */
    int64_t created;
    /* under shards_lock */
    struct shard_policy policy;
    bool policy_changed; /* since it was loaded: a row read before says less */
};

enum unload_state { UNLOAD_OFF, UNLOAD_RESTS, UNLOAD_MOVES };

enum space_state { SPACE_OK, SPACE_WAIT, SPACE_FULL };

/* Work that changes rows: one at a time, in order. Keeper. */
struct rows_work {
    struct work work;
    struct rows_work *next;
    void (*run)(struct rows_work *w);  /* pool thread */
    void (*done)(struct rows_work *w); /* keeper */
    struct store *st;
    int rc;
};

/* A deleted segment whose extents wait for the grace to end. */
struct grave {
    struct grave *next;
    uint64_t segment;
    uint64_t due_us;
};

/* What was written since the start, in bytes. Any thread. */
struct store_bytes {
    atomic_ullong accepted;                      /* of batches that became durable */
    atomic_ullong wal, direct, destage, rewrite; /* to the device, headers and padding included */
};

struct committer;
struct catalogue;
struct destage;
struct rewrite;
struct retention;
struct todo_update;
struct space;
struct scrub;
struct stats;
struct memory;
struct memories;
struct keyindex;
struct compact;

struct store {
    struct journal_env env;
    struct journal_conf conf;
    struct loop *keeper;
    struct dev *dev;
    struct rows *rows;
    struct dev_file *super_file;
    struct super super; /* keeper */
    uint32_t wal_log2;
    uint64_t start_no;
    struct slabs slabs;
    struct wal wal;
    struct segments segments;
    struct rng rng;            /* keeper */
    struct jrn_group **groups; /* fixed after open */
    unsigned n_groups;
    atomic_uint groups_used; /* that had a batch in this life */
    pthread_mutex_t shards_lock;
    struct hash shards; /* loaded ones, under shards_lock */
    struct hash
        loading; /* id -> struct open_work, under shards_lock: one load of a shard at a time */
    struct committer *committer;
    struct catalogue *catalogue;
    struct destage *destage;
    struct rewrite *rewrite;
    struct retention *retention;
    struct scrub *scrub;
    struct stats *stats;
    struct memories *memories;
    struct compact *compact;
    atomic_ullong backlog;
    struct run_cache runs; /* recent direct batches */
    struct chunks chunks;  /* what was read from the device */
    struct store_bytes bytes;
    uint32_t direct_from; /* batches of so many bytes go directly to segments; UINT32_MAX: none */
    atomic_bool no_holes; /* for certain: the rows have no table of holes, a load need not look */
    atomic_uint busy;     /* calls of doors that are not answered yet: a close waits for them */
    atomic_ullong max_shard;
    atomic_ullong segment_serial;
    atomic_bool failed; /* a write or flush failed: nothing more is acked */
    atomic_bool closing;
    atomic_int space;        /* enum space_state; written by the keeper */
    atomic_uint throttle_us; /* an append of class DATA is held so long; written by the keeper */
    /* Space is short: trims what policies let go. Called on the keeper, again and again. */
    void (*retention_urgent)(struct store *st);
    struct space *meter;
    /* keeper */
    struct rows_work *rows_first, **rows_end;
    bool rows_running;
    struct grave *graves, **graves_end;
    struct loop_timer grave_timer;
    struct loop_timer unload_timer;
    uint64_t unload_pos; /* where the hand is in shards */
    uint64_t unloads;
    atomic_int unload; /* enum unload_state */
    atomic_bool unload_again;
    struct shard *catalogue_shard;
    struct journal_close *close;
    struct loop_timer close_timer;
    struct todo_update *todo; /* what recovery has left, until store_begin */
};

/* --- journal.c --- */
/* The store behind a journal's device 0, and behind any. */
struct store *journal_store(const struct journal *j);
struct store *journal_store_at(const struct journal *j, unsigned device);

/* --- store.c --- */
/* A new number for a segment. Any thread. */
uint64_t store_new_segment(struct store *st);
struct jrn_group *store_group(struct store *st, uint64_t id);
/* Marks the device as failed (once, with an ERROR line). Any thread. */
void store_fail(struct store *st, const char *what, int rc);
/* Queues work on rows. Keeper. */
void store_rows_do(struct store *st, struct rows_work *w);
/* Looks at free space again; grows, holds or refuses. Keeper. (space.c) */
void store_space_check(struct store *st);
/* Posts a freshly allocated task that runs fn(st, arg) on the keeper. Any thread. */
void store_on_keeper(struct store *st, void (*fn)(struct store *st, void *arg), void *arg);

#endif
