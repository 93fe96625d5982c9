/* Memory that lives as long as one request. Small ones come from a block inside the request;
 * the total is bounded. */
#ifndef WEIR_GATEWAYS_KAFKA_ARENA_H
#define WEIR_GATEWAYS_KAFKA_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum { KAFKA_ARENA_FIRST = 2048, KAFKA_ARENA_BLOCK = 16384 };

struct kafka_arena_block;

struct kafka_arena {
    uint8_t *at;
    uint8_t *end;
    struct kafka_arena_block *blocks;
    size_t used; /* in all blocks after the first */
    size_t max;
    _Alignas(16) uint8_t first[KAFKA_ARENA_FIRST];
};

/* Starts empty; at most max bytes beyond the first block. */
void kafka_arena_init(struct kafka_arena *a, size_t max);
/* Zeroed bytes, aligned to 16; NULL past the bound. */
void *kafka_arena_take(struct kafka_arena *a, size_t bytes);
/* Gives everything back. */
void kafka_arena_fini(struct kafka_arena *a);

#endif
