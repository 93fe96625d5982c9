/* Rows: small keys and values beside the log, in byte order of the key. A view that can be rebuilt,
 * never the only copy.
 *
 * RocksDB stands behind it (rows_rocksdb.c), an ordered array in the simulator and in inspection
 * (rows_mem.c). There is no log of its
 * own: after a crash the rows are as some write left them, at or after the last flush, never half a
 * write. Each write names the LSN from
 * which the WAL must be replayed over it; it never goes back. Keys and values are at most 1 KiB and
 * 2 MiB. */
#ifndef WEIR_JOURNAL_IO_ROWS_H
#define WEIR_JOURNAL_IO_ROWS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct rows;

/* A set of changes that happen together. Zeroed is empty. */
struct rows_batch {
    uint8_t *mem; /* op u8, key_bytes u32le, key, value_bytes u32le, value ... */
    size_t bytes;
    size_t cap;
    unsigned n;
};
void rows_batch_put(struct rows_batch *b, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes);
void rows_batch_delete(struct rows_batch *b, const void *key, size_t key_bytes);
/* Deletes every key in [from, to). */
void rows_batch_delete_range(struct rows_batch *b, const void *from, size_t from_bytes,
                             const void *to, size_t to_bytes);
/* Adds all of `more`. */
void rows_batch_append(struct rows_batch *b, const struct rows_batch *more);
void rows_batch_free(struct rows_batch *b);

/* One row, borrowed until the next call on the cursor. */
struct rows_cursor;

struct rows_ops {
    int (*get)(struct rows *r, const void *key, size_t key_bytes, uint8_t **value,
               size_t *value_bytes);
    int (*write)(struct rows *r, const struct rows_batch *b, uint64_t replay_lsn);
    int (*flush)(struct rows *r);
    uint64_t (*replay_lsn)(struct rows *r);
    int (*scan)(struct rows *r, const void *from, size_t from_bytes, bool backwards,
                int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                          size_t value_bytes),
                void *ctx);
    int (*clear)(struct rows *r);
    void (*close)(struct rows *r);
};
struct rows {
    const struct rows_ops *ops;
    /* Stored rows have failed their checksum: E_CORRUPT was answered for that, and will be by the
     * next open, which takes the store for damaged. A clear mends it. Any thread. */
    atomic_bool damaged;
};

/* All may block and may be called on any thread; calls that change are serialised by the caller. */

/* 0 and a value to free(), E_NOTFOUND, E_IO, E_CORRUPT. */
static inline MUST_USE int rows_get(struct rows *r, const void *key, size_t key_bytes,
                                    uint8_t **value, size_t *value_bytes)
{
    return r->ops->get(r, key, key_bytes, value, value_bytes);
}
/* Applies b; replay_lsn: as above (0: leave it as it is). */
static inline MUST_USE int rows_write(struct rows *r, const struct rows_batch *b,
                                      uint64_t replay_lsn)
{
    return r->ops->write(r, b, replay_lsn);
}
/* All writes so far are durable when it returns 0. */
static inline MUST_USE int rows_flush(struct rows *r)
{
    return r->ops->flush(r);
}
/* The LSN of the last write that named one; 0 in a new or lost store. */
static inline uint64_t rows_replay_lsn(struct rows *r)
{
    return r->ops->replay_lsn(r);
}
/* Calls fn for each row from the first key >= from (backwards: from the last key <= from,
 * downwards) until it returns non-zero. Gives fn's
 * last return, or an error. fn must not write. */
static inline MUST_USE int rows_scan(struct rows *r, const void *from, size_t from_bytes,
                                     bool backwards,
                                     int (*fn)(void *ctx, const void *key, size_t key_bytes,
                                               const void *value, size_t value_bytes),
                                     void *ctx)
{
    return r->ops->scan(r, from, from_bytes, backwards, fn, ctx);
}
/* Removes everything; before a rebuild. */
static inline MUST_USE int rows_clear(struct rows *r)
{
    return r->ops->clear(r);
}
static inline void rows_close(struct rows *r)
{
    if (r)
        r->ops->close(r);
}

/* RocksDB in folder path, created when missing. A damaged one is moved aside to path.damaged-N
 * (WARN) and an empty one made. cache_bytes bounds
 * its block cache and memtables. read_only: opens beside a running server, writes nothing; missing
 * is E_NOTFOUND. */
int rows_rocksdb_open(struct rows **out, const char *path, uint64_t cache_bytes, bool read_only,
                      struct err *e) MUST_USE;

/* In memory, over base (may be NULL; borrowed; only read): an overlay whose changes stay in memory.
 * */
int rows_mem_open(struct rows **out, struct rows *base) MUST_USE;

#endif
