#include "journal/keymap.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/hash.h"
#include "format/sum.h"

enum { FIRST_CAP = 1024 };

struct keymap_slot {
    uint64_t hash[2];
    uint64_t offset; /* and 1: 0 is a free slot */
};

void keymap_init(struct keymap *m, uint64_t max_bytes, const uint64_t seed[2])
{
    *m = (struct keymap){ .max_bytes = max_bytes, .seed = { seed[0], seed[1] } };
}

void keymap_free(struct keymap *m)
{
    free(m->slots);
    *m = (struct keymap){ 0 };
}

/* At most three quarters of the slots are taken. */
static uint64_t cap_for(uint64_t n)
{
    uint64_t cap = FIRST_CAP;

    while (cap / 4 * 3 < n)
        cap *= 2;
    return cap;
}

bool keymap_room(const struct keymap *m, uint64_t n)
{
    return m->n == 0 || cap_for(m->n + n) * sizeof *m->slots <= m->max_bytes;
}

static struct keymap_slot *slot_of(const struct keymap *m, const uint64_t hash[2])
{
    uint64_t i = hash[0] & (m->cap - 1);

    while (m->slots[i].offset && (m->slots[i].hash[0] != hash[0] || m->slots[i].hash[1] != hash[1]))
        i = (i + 1) & (m->cap - 1);
    return &m->slots[i];
}

static void grow(struct keymap *m, uint64_t cap)
{
    struct keymap_slot *old = m->slots;
    uint64_t n = m->cap;

    m->slots = mem_new(cap * sizeof *m->slots);
    m->cap = cap;
    for (uint64_t i = 0; i < n; i++)
        if (old[i].offset)
            *slot_of(m, old[i].hash) = old[i];
    free(old);
}

static void hash_key(const struct keymap *m, uint64_t shard, const void *key, size_t bytes,
                     uint64_t hash[2])
{
    hash[0] = sum_xxh3(key, bytes, m->seed[0] ^ hash_mix(shard));
    hash[1] = sum_xxh3(key, bytes, m->seed[1] + hash_mix(shard));
}

void keymap_put(struct keymap *m, uint64_t shard, const void *key, size_t bytes, uint64_t offset)
{
    struct keymap_slot *s;
    uint64_t hash[2];

    if (cap_for(m->n + 1) > m->cap)
        grow(m, cap_for(m->n + 1));
    hash_key(m, shard, key, bytes, hash);
    s = slot_of(m, hash);
    m->n += s->offset == 0;
    if (s->offset < offset + 1)
        *s = (struct keymap_slot){ .hash = { hash[0], hash[1] }, .offset = offset + 1 };
}

bool keymap_get(const struct keymap *m, uint64_t shard, const void *key, size_t bytes,
                uint64_t *offset)
{
    const struct keymap_slot *s;
    uint64_t hash[2];

    if (m->cap == 0)
        return false;
    hash_key(m, shard, key, bytes, hash);
    s = slot_of(m, hash);
    *offset = s->offset - 1;
    return s->offset != 0;
}
