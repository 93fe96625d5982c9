/* The journal: shards of records on a segmented write-ahead log. The one header that doors include.
 *
 * A shard is an ordered log of records with dense 64-bit offsets. Batches (RecordBatch v2,
 * format/batch.h) are appended whole
 * and read whole. All calls here may be made on any loop of the journal's environment, never block,
 * and answer through a `done`
 * that runs once, on the loop named in it, never inside the call. Exceptions say so. */
#ifndef WEIR_JOURNAL_JOURNAL_H
#define WEIR_JOURNAL_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/metric.h"
#include "format/batch.h"

struct journal;
struct shard; /* a handle: see shard_open */
struct store;
struct dev;
struct rows;

/* ---- opening
 * ---------------------------------------------------------------------------------------------------------- */

/* Who says which epoch this node writes a group's log in. Locally a counter of starts stands here;
 * in a cluster, meta. */
struct jrn_assigner {
    /* Grants a new epoch for group, higher than any before; `start` is this start's durable
     * counter. Called at open, may block.
     * 0 is no epoch. */
    uint64_t (*grant_epoch)(struct jrn_assigner *a, uint64_t group, uint64_t start);
};
/* Grants `start` itself. Static. */
struct jrn_assigner *jrn_assigner_local(void);

enum { JRN_DEVICES_MAX = 15 };

/* One folder: a device, its rows, and a loop for its committer alone. */
struct jrn_device {
    struct dev *dev;
    struct rows *rows;
    struct loop *commit_loop;
};

/* What the journal runs on; all borrowed, and must outlive it (more: only journal_open). The first
 * folder is commit_loop, dev and rows; those of further devices are in more, in any order: which
 * number a folder has in the set is written in it. New empty folders get the next numbers. */
struct journal_env {
    struct loop **loops; /* home loops for groups */
    unsigned n_loops;
    struct loop *commit_loop; /* the committer's own; where the device's COMMIT queue blocks */
    struct pool *pool;        /* for what may block or compute long */
    struct pool *read_pool;   /* for cold reads: the two never share a queue */
    struct dev *dev;          /* journal/io/dev.h */
    struct rows *rows;        /* journal/io/rows.h */
    const struct jrn_device *more;
    unsigned n_more; /* below JRN_DEVICES_MAX */
    struct jrn_assigner *assigner;
    uint64_t seed; /* salts and the store's id on creation */
};

/* Sizes in bytes, times in ms. Zero means the default in brackets. */
struct journal_conf {
    uint64_t wal_budget;  /* live WAL past which the oldest extents are destaged [1 GiB] */
    uint32_t wal_extent;  /* power of two, 64 KiB or more [2 MiB] */
    uint64_t slab_first;  /* first slab, prewritten at creation [32 MiB] */
    uint64_t slab_max;    /* slabs grow up to this [1 GiB] */
    uint64_t space_max;   /* all slabs together; 0: what the file system gives */
    uint64_t space_floor; /* free bytes the file system keeps for the rows [256 MiB] */
    uint32_t direct_from; /* batches of so many bytes or more are written once, straight to their
                                 segment; UINT32_MAX: none are [found by trying the device] */
    uint64_t
        segment_bytes; /* a group's segment ends with the entry that brings it here [256 MiB] */
    uint32_t segment_entries; /* or once it has so many entries; 0: does not count [0] */
    uint32_t block_max;       /* a WAL block stops taking batches here [1 MiB] */
    uint32_t batch_max;       /* largest batch accepted [2 MiB; at most 3/4 of wal_extent] */
    uint64_t cache_bytes;     /* recent blocks kept for tail reads [64 MiB] */
    uint64_t
        read_cache_bytes; /* what was read from the devices lately, and ahead of readers [64 MiB] */
    uint64_t pending_max; /* bytes accepted but not yet durable [64 MiB] */
    uint64_t
        rewrite_gain; /* bytes that rewriting sealed segments must give back to be worth it while
                               space is not short; UINT64_MAX: nothing is [960 KiB] */
    uint64_t memory_bytes; /* what all MEMORY shards of a device may hold together [256 MiB] */
    /* A commit begins no sooner than so long after the one before it; 0: when that has ended. */
    uint32_t commit_delay_us;
    uint32_t idle_close_ms;   /* idle time after which a closing block is written [10] */
    uint32_t delete_grace_ms; /* between a deletion's record and the reuse of its space [10000] */
    uint32_t wal_age_ms; /* live WAL older than this is destaged, however little it is [600000] */
    uint32_t retention_check_ms; /* how often retention looks for what may go [30000] */
    uint32_t compact_check_ms;   /* how often dirty compacted shards are looked for [15000] */
    uint64_t compact_map_bytes;  /* memory for the keys of a round of log compaction [64 MiB] */
    /* Percent of what a device may use: where destage, rewriting and trimming become urgent [80],
     * producers are slowed down [90], and appends of class DATA refused [95; at most 98]. */
    uint32_t space_urgent, space_throttle, space_refuse;
    uint32_t unload_ms; /* a shard that nobody uses leaves memory after about this [2000] */
    /* Stored bytes that the scrub may read in a second (0: there is none), and the least time from
     * the begin of one of its cycles to the next. */
    uint64_t scrub_bytes_per_s, scrub_interval_ms;
    const uint64_t *accept_loss; /* groups (shard_group) whose lost ranges the operator accepts */
    unsigned n_accept_loss;
};

/* Opens or creates the stores, one per device: recovers, opens a new epoch, and is ready to serve.
 * Blocks; call before the loops run or on a loop of
 * its own thread. E_LOCKED is the device's to give. E_VERSION, E_CORRUPT, E_IO, and E_INVALID: a
 * device of the set is missing, given twice, or of another set; with a sentence in *e. */
int journal_open(struct journal **out, const struct journal_env *env,
                 const struct journal_conf *conf, struct err *e) MUST_USE;

struct journal_close {
    struct task task; /* ours */
    void (*fn)(struct journal_close *c);
    struct loop *loop;
    struct store *store;     /* ours */
    struct journal *journal; /* ours */
};
/* Refuses new work with E_CLOSED, finishes what is pending, writes the closing block, then runs
 * done and
 * frees the journal. All shard handles must have been given back, all waits ended or cancelled. */
void journal_close(struct journal *j, struct journal_close *done);

/* Bytes accepted but not yet durable, on all devices. Doors stop reading sockets while one device has
 * more than pending_max (journal_backlogged). Any thread, now. */
uint64_t journal_backlog(const struct journal *j);
bool journal_backlogged(const struct journal *j);

enum jrn_state { JRN_OK, JRN_FULL, JRN_FAILED };
/* FULL: appends answer E_NOSPACE for now. FAILED: a write or flush failed, appends answer E_DEVICE
 * until restart. The worst of all devices: each speaks only for its own shards. Any thread, now. */
enum jrn_state journal_state(const struct journal *j);

/* What was written since the start, in bytes: of batches that became durable, and to the devices, all
 * that surrounds the batches included. Any thread, now. */
struct journal_bytes {
    uint64_t accepted;
    uint64_t wal, direct, destage, rewrite;
};
void journal_bytes(const struct journal *j, struct journal_bytes *b);

/* One device, by its number in the set. Bytes; of its slabs, by state. */
struct jrn_device_info {
    enum jrn_state state;
    uint64_t limit;        /* what the device may use in all, slabs not made yet included */
    uint64_t total;        /* in slabs */
    uint64_t free;         /* of these, free */
    uint64_t wal;          /* extents of the live WAL, and those in hand for it */
    uint64_t segment_live; /* what can be read in sealed segments */
    uint64_t segment_dead; /* the rest of their extents */
    uint64_t grave;        /* extents of deleted segments whose grace has not ended */
    unsigned fullness;     /* used, in thousandths of limit */
    uint32_t throttle_us;  /* how long an append of class DATA is held; 0: not */
    uint64_t backlog;      /* bytes accepted but not yet durable */
};
unsigned journal_n_devices(const struct journal *j);
/* The kinds are as the device's keeper saw them last. Any thread, now. E_NOTFOUND. */
int journal_device_info(const struct journal *j, unsigned device,
                        struct jrn_device_info *info) MUST_USE;

/* Calls fn for each metric of this journal, device by device (journal/stats.c has them all); the same
 * are in the registry (base/metric.h: metrics_visit) while the journal is open. Any thread. */
void journal_stats_visit(struct journal *j, void (*fn)(void *ctx, const struct metric_view *v),
                         void *ctx);

/* This start's number, counted by device 0; epochs of its groups are at least this. Fits in 31 bits.
 * Any thread, now. */
uint64_t journal_start(const struct journal *j);

/* ---- the catalogue: shards and rows, changed together
 * ----------------------------------------------------------------- */

enum shard_kind {
    SHARD_SEGMENT = 0, /* on the log, in segments */
    SHARD_MEMORY = 1,  /* a bounded ring in memory: lost on restart; its offsets never go back */
    SHARD_ROCKSDB =
        2 /* a compacted segment shard with an index of its keys: shard_get, shard_scan */
};
enum shard_class {
    SHARD_CLASS_DATA = 0, /* what users append */
    SHARD_CLASS_INTERNAL =
        1 /* the server's own state: kept apart from data, and served from the reserve when full */
};

/* What of a shard is kept, in Kafka's terms (cleanup.policy, retention.ms, retention.bytes,
 * min.compaction.lag.ms, delete.retention.ms). Zeroed: everything, for ever. May be changed at any
 * time, on a shard with data too. */
enum shard_flag {
    SHARD_EXPIRES = 1,  /* batches whose largest timestamp is older than retention_ms may go */
    SHARD_LIMITED = 2,  /* the oldest may go while what is left holds retention_bytes */
    SHARD_COMPACTED = 4 /* superseded records of a key may go */
};
struct shard_policy {
    unsigned flags;       /* enum shard_flag */
    int64_t retention_ms; /* with EXPIRES; 0 or more */
    int64_t
        retention_bytes; /* with LIMITED, and the size of a MEMORY shard's ring [16 MiB]; 0 or more */
    int64_t min_compaction_lag_ms; /* with COMPACTED: younger records stay */
    int64_t delete_retention_ms;   /* with COMPACTED: how long a tombstone is kept */
};

enum jrn_change_op {
    JRN_SHARD_CREATE, /* shard, kind, class, policy */
    JRN_SHARD_DELETE, /* shard */
    JRN_SHARD_POLICY, /* shard, policy: from now on. E_NOTFOUND */
    JRN_ROW_PUT,      /* key, value */
    JRN_ROW_DELETE    /* key */
};

/* One change. Shard ids come from journal_shard_new, or are the caller's choice: device << 56 | serial,
 * serials 16 or above, each above all that were used on its device (E_EXISTS). Row keys
 * are the caller's, 1..1024 bytes, the
 * first byte names the owner ('T': topics, ...); values up to 1 MiB. */
struct jrn_change {
    enum jrn_change_op op;
    uint64_t shard;
    enum shard_kind kind;
    enum shard_class class;
    struct shard_policy policy;
    const void *key;
    uint32_t key_bytes;
    const void *value;
    uint32_t value_bytes;
};

struct jrn_update {
    struct task task; /* ours */
    void (*fn)(struct jrn_update *u);
    struct loop *loop;
    int rc;
    void *impl; /* ours */
};
/* Makes all n changes, or none, durably: one batch of the catalogue, or, over several devices, one of
 * device 0's with what the others are owed, which a restart makes good. Changes are copied. Updates
 * made on one loop happen in order. E_DEVICE where a device that it touches has failed, or device 0,
 * which keeps the rows; when one fails after the update is durable, the answer is 0 and its part
 * shows at the next start. A
 * deleted shard answers E_DELETED from then on; its space comes back after the grace, at once when
 * space is short. Works when the
 * device is full (it has a reserve). */
void journal_update(struct journal *j, const struct jrn_change *changes, unsigned n,
                    struct jrn_update *done);

/* Calls fn for each row whose key starts with prefix, in key order, until fn returns non-zero.
 * Blocks (reads RocksDB); for start
 * and tools, not for loops. Gives fn's last return, or an error. */
int journal_rows_scan(struct journal *j, const void *prefix, size_t prefix_bytes,
                      int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                                size_t value_bytes),
                      void *ctx) MUST_USE;

/* An id for a new shard, on the device with the most room for its class (INTERNAL: device 0); never
 * given before in this life. Ids must be created in the order in which they were given. Any
 * thread. */
uint64_t journal_shard_new(struct journal *j, enum shard_class class);

/* The highest shard id ever used on device 0, at least 15. Any thread; exact only before serving and
 * when creations are serialised by the caller. */
uint64_t journal_max_shard(struct journal *j);

/* ---- shards
 * ----------------------------------------------------------------------------------------------------------- */

struct shard_open {
    struct task task; /* ours */
    void (*fn)(struct shard_open *o);
    struct loop *loop;
    int rc;
    struct shard *shard; /* one reference, when rc is 0 */
    struct store *store; /* ours */
    uint64_t id;         /* ours */
    void *impl;          /* ours */
};
/* Gives a handle on shard id; E_NOTFOUND. Handles are refcounted. A shard without handle, and with
 * nothing in the live WAL, leaves memory after a while: keep one only while it is used. */
void shard_open(struct journal *j, uint64_t id, struct shard_open *done);
/* A handle, now, if the shard is in memory; else NULL: open it. Any thread, cheap. */
struct shard *shard_in_memory(struct journal *j, uint64_t id);
/* Any thread. */
struct shard *shard_ref(struct shard *s);
/* NULL is allowed. */
void shard_unref(struct shard *s);

uint64_t shard_id(const struct shard *s);
/* device << 56 | the group's number there. */
uint64_t shard_group(const struct shard *s);
enum shard_kind shard_kind(const struct shard *s);
/* What it holds is lost when the server ends (kind MEMORY): after that the shard is empty, and begins
 * above every offset that it has given. */
bool shard_is_volatile(const struct shard *s);
/* The group's epoch, stamped into batches as leader epoch. */
int32_t shard_epoch(const struct shard *s);
/* The same of a shard that need not be in memory, where one epoch holds for all that it can be in;
 * -1 where groups differ. Any thread, now. */
int32_t journal_epoch(const struct journal *j, uint64_t shard);
/* First offset that is kept, and high watermark (one past the last offset that readers may see).
 * Any thread, now. */
uint64_t shard_start(const struct shard *s);
uint64_t shard_end(const struct shard *s);

/* What is kept of it, as last set. Any thread, now. */
void shard_policy(const struct shard *s, struct shard_policy *out);

/* How safe a batch must be before its producer is answered. */
enum ack { ACK_NONE, ACK_LEADER_MEMORY, ACK_QUORUM_MEMORY, ACK_LEADER_DURABLE, ACK_QUORUM_DURABLE };

enum { APPEND_ROOM = 24 }; /* words of 8 bytes */

struct append_done {
    struct task task; /* ours */
    void (*fn)(struct append_done *d);
    struct loop *loop;
    int rc;
    uint64_t base_offset;       /* when rc is 0 */
    int64_t append_time;        /* ms, when the batch was taken */
    bool duplicate;             /* the batch was there already; base_offset is the first one's */
    uint64_t room[APPEND_ROOM]; /* ours: what is known of the batch on its way */
};

/* Appends one batch.
 * batch  exactly one validated RecordBatch v2 (batch_validate): batch->mem[at .. at+bytes). Takes a
 * reference of its own on the buffer.
 *        The bytes are not changed; offset and epoch are stamped into the journal's copy.
 * ack    when done runs: NONE and the memory levels when the batch has its offset, the durable ones
 * when it is flushed. Until it is
 *        durable no reader sees it, whatever the level.
 * done   may be NULL; else it stays where it is, untouched, until its fn runs.
 * A MEMORY shard answers every level when the batch has its offset, and readers see it from then on.
 * Batches with a producer id are checked: the last five of each (shard, producer) are remembered,
 * also across restarts. A repeat gives
 * rc 0 and duplicate once its original is as safe as asked. E_SEQUENCE: a gap; E_DUPLICATE: a
 * repeat older than the five; E_PRODUCER_EPOCH.
 * E_NOSPACE, E_DEVICE, E_READONLY, E_DELETED, E_TOOBIG, E_CLOSED. */
void shard_append(struct shard *s, struct buf *batch, uint32_t at, uint32_t bytes, enum ack ack,
                  struct append_done *done);

struct read_done {
    struct task task; /* ours */
    void (*fn)(struct read_done *d);
    struct loop *loop;
    int rc;
    uint64_t from;      /* as asked */
    uint32_t max_bytes; /* as asked */
    bool at_least_one;  /* as asked: the first batch may be larger than max_bytes */
    struct slice *
        slices; /* n_slices whole batches or runs of them, in offset order; give back with read_done_release */
    unsigned n_slices;
    uint32_t bytes;      /* in all slices */
    uint64_t start;      /* of the shard, when read */
    uint64_t end;        /* high watermark, when read */
    uint64_t lost_until; /* E_LOST, and the loss was accepted: one past the range; else 0 */
    struct shard *shard; /* ours */
    void *impl;          /* ours */
};

/* Reads whole batches from the one that holds d->from on, up to d->max_bytes. Nothing past the high
 * watermark. Where `from` is the high
 * watermark: rc 0, no bytes. The same bytes for all readers at all times. The caller fills fn,
 * loop, from, max_bytes, at_least_one.
 * E_RANGE: below start or above end; E_LOST: this range is damaged; E_DELETED; E_IO. */
void shard_read(struct shard *s, struct read_done *d);
/* Gives the slices back. Any thread; harmless when there are none. */
void read_done_release(struct read_done *d);

struct shard_wait {
    struct task task; /* ours */
    void (*fn)(struct shard_wait *w);
    struct loop *loop;
    int rc; /* 0: there is data; E_CANCELLED, E_DELETED, E_CLOSED */
    uint64_t past;
    struct shard *shard;            /* ours */
    struct shard_wait *prev, *next; /* ours */
    int state;                      /* ours */
    struct task cancel;             /* ours */
};
/* Runs w->fn once when the high watermark is above `past` (at once if it is already), or when the
 * wait is cancelled or the shard
 * deleted. The handle must stay referenced until then. */
void shard_wait(struct shard *s, uint64_t past, struct shard_wait *w);
/* Ends a wait early; fn still runs exactly once. Call on w->loop only, and at most once, before fn
 * has run. */
void shard_wait_cancel(struct shard_wait *w);

enum { SHARD_TIME_MAX = -3 }; /* the record with the largest timestamp */

struct find_time {
    struct task task; /* ours */
    void (*fn)(struct find_time *f);
    struct loop *loop;
    int rc;
    int64_t time; /* as asked */
    bool found;
    uint64_t offset;     /* when found */
    int64_t timestamp;   /* of that record */
    struct shard *shard; /* ours */
    void *impl;          /* ours */
};
/* The first record (in offset order) whose timestamp is at or after f->time, whatever the order of
 * timestamps; with SHARD_TIME_MAX the first one with the largest timestamp. Only what is below the high
 * watermark. A batch is taken at its header's word that no record of it is later than that says. */
void shard_find_time(struct shard *s, struct find_time *f);

struct shard_trim {
    struct task task; /* ours */
    void (*fn)(struct shard_trim *t);
    struct loop *loop;
    int rc;
    uint64_t start;      /* asked, then the start that holds */
    struct shard *shard; /* ours */
    void *impl;          /* ours */
};
/* Moves the start of the shard up to t->start (capped at the high watermark), durably; lower than
 * the present start changes nothing. */
void shard_trim(struct shard *s, struct shard_trim *t);

/* ---- keys: shards of kind ROCKSDB
 * ----------------------------------------------------------------------------------------------- */

/* The latest record of a key. A record whose value is null deletes its key. */
struct shard_get {
    struct task task; /* ours */
    void (*fn)(struct shard_get *g);
    struct loop *loop;
    int rc;
    const void *key; /* as asked; borrowed until fn has run */
    uint32_t key_bytes;
    struct batch_record record; /* when rc is 0; until shard_get_release */
    void *mem;                  /* ours */
};
/* Sees everything below the high watermark at the time of the call; while the index is being made
 * (its rows were lost) the answer waits for it. E_NOTFOUND: no such key, its record is trimmed, or it
 * was deleted; E_UNSUPPORTED: another kind of shard; E_LOST: the record, or one that the index must be made
 * from, is damaged (when the loss was accepted, the one before it is the latest); E_DELETED, E_IO,
 * E_CLOSED. */
void shard_get(struct shard *s, struct shard_get *g);
/* Gives the record's bytes back. Any thread; harmless when there are none. */
void shard_get_release(struct shard_get *g);

/* Records in the order of their keys' bytes (keys above 999 bytes: of the first 999, among those that
 * share them in no order). */
struct shard_scan {
    struct task task; /* ours */
    void (*fn)(struct shard_scan *c);
    struct loop *loop;
    int rc;
    const void *prefix; /* keys that begin so, 999 bytes at most; borrowed until fn has run */
    uint32_t prefix_bytes;
    const void *from; /* the first key, or `next` of a scan before; NULL: from the first on */
    uint32_t from_bytes;
    uint32_t limit;     /* records at most, 1 .. SHARD_SCAN_MAX */
    uint32_t max_bytes; /* no more records once keys and values take this; one is given always */
    /* when rc is 0; until shard_scan_release */
    struct batch_record *records;
    uint32_t n;
    const void *next; /* where a further scan goes on; NULL: there is no more */
    uint32_t next_bytes;
    void *mem; /* ours */
};
enum { SHARD_SCAN_MAX = 1000 };
/* As shard_get; E_INVALID for a limit or a prefix out of range. Each record is its key's latest at some time
 * during the call. There may be fewer records than limit, and none, with more to come. */
void shard_scan(struct shard *s, struct shard_scan *c);
void shard_scan_release(struct shard_scan *c);

/* ---- tables: rows derived from shards
 * ------------------------------------------------------------------------------------------- */

/* Rows that their owner derives from shards, not logged, kept with the offsets that they stand for.
 * They may be lost, or go back after a crash to what an earlier write left: always whole writes with
 * their offsets. The owner asks jrn_table_offset and makes the rest again. */
struct jrn_table;
enum { JRN_TABLE_NAME_MAX = 32, JRN_TABLE_KEY_MAX = 900, JRN_TABLE_VALUE_MAX = 1 << 20 };

/* A handle; the table needs no making. name: 1 .. JRN_TABLE_NAME_MAX bytes, the owner's. E_INVALID.
 * Never blocks. */
int jrn_table_open(struct jrn_table **out, struct journal *j, const char *name) MUST_USE;
/* Nothing of the handle may be under way. */
void jrn_table_close(struct jrn_table *t);

struct jrn_table_row {
    const void *key; /* 1 .. JRN_TABLE_KEY_MAX bytes */
    uint32_t key_bytes;
    const void *value; /* NULL: the row goes */
    uint32_t value_bytes;
};
struct jrn_table_done {
    struct task task; /* ours */
    void (*fn)(struct jrn_table_done *d);
    struct loop *loop;
    int rc;
    uint64_t offset; /* jrn_table_offset's answer */
    void *impl;      /* ours */
};
/* Makes all n changes and "all of shard below offset is in the table", or nothing. Rows are copied.
 * Writes made on one loop happen in order. E_INVALID, E_IO, E_CLOSED. */
void jrn_table_write(struct jrn_table *t, const struct jrn_table_row *rows, unsigned n,
                     uint64_t shard, uint64_t offset, struct jrn_table_done *done);
/* The offset of the last write for shard; 0: none, or lost. */
void jrn_table_offset(struct jrn_table *t, uint64_t shard, struct jrn_table_done *done);
/* Removes all rows and all offsets: first the offsets, so that a crash between leaves nothing that
 * stands for anything. */
void jrn_table_drop(struct jrn_table *t, struct jrn_table_done *done);

struct jrn_table_read {
    struct task task; /* ours */
    void (*fn)(struct jrn_table_read *r);
    struct loop *loop;
    int rc;
    /* when rc is 0; until jrn_table_read_release; in key order */
    struct jrn_table_row *rows;
    uint32_t n;
    bool more;  /* the limit was reached, and another row is there */
    void *impl; /* ours */
};
/* One row: E_NOTFOUND. The key is copied. */
void jrn_table_get(struct jrn_table *t, const void *key, uint32_t key_bytes,
                   struct jrn_table_read *r);
/* Up to limit rows whose key begins with prefix and is not before from (NULL: from the first on).
 * Both are copied. */
void jrn_table_scan(struct jrn_table *t, const void *prefix, uint32_t prefix_bytes,
                    const void *from, uint32_t from_bytes, uint32_t limit,
                    struct jrn_table_read *r);
void jrn_table_read_release(struct jrn_table_read *r);

#endif
