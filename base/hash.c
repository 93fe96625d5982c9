#include "base/hash.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/err.h"

struct hash_slot {
    uint64_t key;
    void *value; /* NULL: free */
};

enum { CAP_MIN = 16 };

/* Where the key is, or the free slot where it would go. The table is never full. */
static size_t find(const struct hash *h, uint64_t key)
{
    size_t at = hash_mix(key) & (h->cap - 1);

    while (h->slots[at].value && h->slots[at].key != key)
        at = (at + 1) & (h->cap - 1);
    return at;
}

static void grow(struct hash *h)
{
    struct hash old = *h;

    h->cap = old.cap ? old.cap * 2 : CAP_MIN;
    h->slots = mem_new(h->cap * sizeof h->slots[0]);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].value)
            h->slots[find(h, old.slots[i].key)] = old.slots[i];
    free(old.slots);
}

void *hash_get(const struct hash *h, uint64_t key)
{
    return h->cap ? h->slots[find(h, key)].value : NULL;
}

void *hash_put(struct hash *h, uint64_t key, void *value)
{
    void *old;
    size_t at;

    ASSERT(value);
    if (h->cap) {
        at = find(h, key);
        old = h->slots[at].value;
        if (old) {
            h->slots[at].value = value;
            return old;
        }
    }
    if ((h->count + 1) * 4 > h->cap * 3)
        grow(h);
    h->slots[find(h, key)] = (struct hash_slot){ .key = key, .value = value };
    h->count++;
    return NULL;
}

/* Fills the gap at `at` from behind, so that no search stops early; instead of tombstones. */
static void close_gap(struct hash *h, size_t at)
{
    size_t mask = h->cap - 1;

    for (size_t i = (at + 1) & mask; h->slots[i].value; i = (i + 1) & mask) {
        size_t want = hash_mix(h->slots[i].key) & mask;

        /* A key may move back only as far as the slot it hashes to. */
        if (((i - want) & mask) < ((i - at) & mask))
            continue;
        h->slots[at] = h->slots[i];
        at = i;
    }
    h->slots[at].value = NULL;
}

void *hash_take(struct hash *h, uint64_t key)
{
    size_t at = h->cap ? find(h, key) : 0;
    void *value = h->cap ? h->slots[at].value : NULL;

    if (!value)
        return NULL;
    close_gap(h, at);
    h->count--;
    return value;
}

/* Walks downward from a free slot: taking a key moves only keys above it, up to the next free
 * slot, and those have been visited. *pos is the start + 1 in the high half, the steps taken in
 * the low half. */
bool hash_next(const struct hash *h, uint64_t *pos, uint64_t *key, void **value)
{
    uint64_t start, steps;

    if (h->count == 0)
        return false;
    if (*pos == 0) {
        for (start = 0; h->slots[start].value;)
            start++;
        *pos = (start + 1) << 32;
    }
    start = (*pos >> 32) - 1;
    for (steps = (*pos & UINT32_MAX) + 1; steps < h->cap; steps++) {
        const struct hash_slot *s = &h->slots[(start - steps) & (h->cap - 1)];

        if (!s->value)
            continue;
        *pos = (start + 1) << 32 | steps;
        if (key)
            *key = s->key;
        if (value)
            *value = s->value;
        return true;
    }
    return false;
}

void hash_free(struct hash *h)
{
    free(h->slots);
    *h = (struct hash){ 0 };
}
