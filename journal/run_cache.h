/* The recent pieces of open segments, as they were written: reads of direct batches are slices of
 * them, also once the segment is sealed, for a byte of a segment does not change. Bounded in bytes,
 * least recently used out first. Any thread. */
#ifndef WEIR_JOURNAL_RUN_CACHE_H
#define WEIR_JOURNAL_RUN_CACHE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"

struct run_piece;

struct run_cache {
    pthread_mutex_t lock;
    struct hash segments; /* segment -> its pieces, by pos */
    struct run_piece *oldest, *newest;
    uint64_t bytes, max_bytes;
    bool ready;
};

void run_cache_init(struct run_cache *c, uint64_t max_bytes);
void run_cache_fini(struct run_cache *c);
/* Adds the bytes of a segment from pos on, behind all that is cached of it; takes a reference. */
void run_cache_add(struct run_cache *c, uint64_t segment, uint64_t pos, struct buf *buf,
                   uint32_t bytes);
/* Fills s (with a reference) and gives true when [pos, pos + bytes) is cached. */
bool run_cache_get(struct run_cache *c, uint64_t segment, uint64_t pos, uint64_t bytes,
                   struct slice *s);

#endif
