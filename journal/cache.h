/* The recent blocks of a group, as they were written: tail reads are slices of them. Bounded in
 * bytes, oldest out first. Home loop. */
#ifndef WEIR_JOURNAL_CACHE_H
#define WEIR_JOURNAL_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct cache_block {
    uint64_t lsn;
    struct buf *buf; /* len: the block's bytes */
};

struct cache {
    struct cache_block *list; /* a ring, in LSN order */
    uint32_t first, n, cap;
    uint64_t bytes, max_bytes;
};

/* Adds a block, newer than all before; takes a reference of its own. */
void cache_add(struct cache *c, uint64_t lsn, struct buf *buf);
/* The bytes at lsn: fills s (with a reference) and gives true when [lsn, lsn + bytes) is cached. */
bool cache_get(struct cache *c, uint64_t lsn, uint32_t bytes, struct slice *s);
/* Lets the oldest block go; there is one. */
void cache_drop(struct cache *c);
/* LSN of the oldest block; UINT64_MAX: there is none, or it is the only one. */
uint64_t cache_oldest(const struct cache *c);
void cache_free(struct cache *c);

#endif
