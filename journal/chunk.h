/* What was read from the device lately: chunks of segments and of the WAL, shared by all who read there,
 * refcounted, bounded in bytes, least recently used out first.
 *
 * A chunk that is being read is in the table already: who comes second waits for the first one's read.
 * What a chunk holds does not change, so each batch in it is checked once, by the first who takes it
 * (chunk_checked). Ids of segments and places in the WAL are never given twice in one life: what lies
 * here of a segment that has gone is merely unused. Kept apart from the recent blocks and pieces
 * (cache.h, run_cache.h), which a replay must not push out. Any thread unless said. */
#ifndef WEIR_JOURNAL_CHUNK_H
#define WEIR_JOURNAL_CHUNK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/loop.h"

struct store;
struct segment;
struct wal_extent;
struct chunk;

enum {
    CHUNK_BYTES = 1 << 20,       /* about as large is a chunk */
    CHUNK_AHEAD_BYTES = 2 << 20, /* so far ahead of a reader */
    CHUNK_EXTENT_MAX = 4 << 20,  /* larger extents of the WAL are not kept whole */
    CHUNK_ENDS = 1024
};

struct chunks {
    struct store *st;
    pthread_mutex_t lock;
    struct hash by_key;
    struct chunk *oldest, *newest;
    uint64_t bytes, max_bytes;
    uint64_t loading;                  /* bytes being read */
    _Atomic uint64_t ends[CHUNK_ENDS]; /* where reads have ended lately, hashed */
    bool ready;
};

/* Whole batches that lie in one piece: of a pinned segment, or all of a pinned extent of the WAL. */
struct chunk_place {
    struct segment *seg;
    struct wal_extent *extent; /* ended; pos is 0 */
    uint64_t pos;
    uint32_t bytes;
};

struct chunk_wait {
    struct chunk_wait *next;
    struct work *work; /* submitted to the read pool when the chunk has been read */
};

void chunks_init(struct chunks *t, struct store *st, uint64_t max_bytes);
/* Nothing is being read any more. */
void chunks_fini(struct chunks *t);

/* The chunk of a place, being read or not, with a reference; NULL: there is none. */
struct chunk *chunk_find(struct chunks *t, const struct chunk_place *p);
/* The same, and begins to read it when there is none; loop: any that outlives the journal. ahead: nobody
 * waits for it; NULL when enough is being read. */
struct chunk *chunk_read(struct chunks *t, const struct chunk_place *p, struct loop *loop,
                         bool ahead);
/* NULL is allowed. */
void chunk_unref(struct chunks *t, struct chunk *c);
/* Submits w->work once the chunk has been read, at once if it has. */
void chunk_wait(struct chunks *t, struct chunk *c, struct chunk_wait *w);
/* 1: it has been read; 0: not yet; else what reading it gave. */
int chunk_state(struct chunks *t, struct chunk *c);
/* Whether it holds place's bytes, from its first one on. */
bool chunk_is(const struct chunk *c, const struct chunk_place *p);
/* Of a chunk that has been read. */
struct buf *chunk_buf(struct chunk *c);
const uint8_t *chunk_mem(const struct chunk *c);

/* Whether somebody has said chunk_check of the batch at mem. */
bool chunk_checked(const struct chunk *c, const uint8_t *mem);
void chunk_check(struct chunk *c, const uint8_t *mem);

/* A read of the shard has ended before offset; whether one did lately. So who reads on is told from who
 * reads here and there, whoever they are; a lie costs a chunk. */
void chunks_read_to(struct chunks *t, uint64_t shard, uint64_t offset);
bool chunks_reads_on(const struct chunks *t, uint64_t shard, uint64_t offset);

#endif
