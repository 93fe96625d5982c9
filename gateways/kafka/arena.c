#include "gateways/kafka/arena.h"

#include <stdlib.h>
#include <string.h>

struct kafka_arena_block {
    struct kafka_arena_block *next;
    _Alignas(16) uint8_t mem[];
};

void kafka_arena_init(struct kafka_arena *a, size_t max)
{
    a->at = a->first;
    a->end = a->first + sizeof a->first;
    a->blocks = NULL;
    a->used = 0;
    a->max = max;
}

static void *arena_grow(struct kafka_arena *a, size_t bytes)
{
    size_t room = bytes > KAFKA_ARENA_BLOCK / 4 ? bytes : KAFKA_ARENA_BLOCK;
    struct kafka_arena_block *b;

    if (bytes > a->max || a->used > a->max - bytes)
        return NULL;
    if (room > a->max - a->used)
        room = bytes;
    b = calloc(1, sizeof *b + room);
    if (!b)
        return NULL;
    b->next = a->blocks;
    a->blocks = b;
    a->used += room;
    if (room > bytes) {
        a->at = b->mem + bytes;
        a->end = b->mem + room;
    }
    return b->mem;
}

void *kafka_arena_take(struct kafka_arena *a, size_t bytes)
{
    size_t room = (bytes + 15) & ~(size_t)15;
    uint8_t *p = a->at;

    if (room < bytes)
        return NULL;
    if ((size_t)(a->end - a->at) < room)
        return arena_grow(a, room ? room : 16);
    a->at += room;
    /* Blocks come zeroed; the first one is used again by the next request. */
    if (p >= a->first && p < a->first + sizeof a->first)
        memset(p, 0, room);
    return p;
}

void kafka_arena_fini(struct kafka_arena *a)
{
    struct kafka_arena_block *b;

    while ((b = a->blocks)) {
        a->blocks = b->next;
        free(b);
    }
    kafka_arena_init(a, a->max);
}
