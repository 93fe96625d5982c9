#include "base/strmap.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/hash.h"

struct strmap_entry {
    void *value;
    uint64_t hash;
    size_t key_bytes;
    char key[]; /* and a zero byte */
};

enum { CAP_MIN = 16 };

static uint64_t hash_bytes(const char *key, size_t bytes)
{
    uint64_t h = bytes, word;

    for (; bytes >= sizeof word; bytes -= sizeof word, key += sizeof word) {
        memcpy(&word, key, sizeof word);
        h = hash_mix(h ^ word);
    }
    word = 0;
    if (bytes)
        memcpy(&word, key, bytes);
    return hash_mix((h + 0x9e3779b97f4a7c15) ^ word);
}

static bool same_key(const struct strmap_entry *e, uint64_t hash, const char *key, size_t bytes)
{
    return e->hash == hash && e->key_bytes == bytes &&
           (bytes == 0 || memcmp(e->key, key, bytes) == 0);
}

/* Where the key is, or the free slot where it would go. The table is never full. */
static size_t find(const struct strmap *m, uint64_t hash, const char *key, size_t bytes)
{
    size_t at = hash & (m->cap - 1);

    while (m->slots[at] && !same_key(m->slots[at], hash, key, bytes))
        at = (at + 1) & (m->cap - 1);
    return at;
}

static void grow(struct strmap *m)
{
    struct strmap old = *m;

    m->cap = old.cap ? old.cap * 2 : CAP_MIN;
    m->slots = mem_new(m->cap * sizeof m->slots[0]);
    for (size_t i = 0; i < old.cap; i++) {
        struct strmap_entry *e = old.slots[i];

        if (e)
            m->slots[find(m, e->hash, e->key, e->key_bytes)] = e;
    }
    free(old.slots);
}

static struct strmap_entry *entry_new(uint64_t hash, const char *key, size_t bytes, void *value)
{
    struct strmap_entry *e = mem_new(sizeof *e + bytes + 1);

    e->value = value;
    e->hash = hash;
    e->key_bytes = bytes;
    if (bytes)
        memcpy(e->key, key, bytes);
    return e;
}

void *strmap_get(const struct strmap *m, const char *key, size_t key_bytes)
{
    const struct strmap_entry *e = NULL;

    if (m->cap)
        e = m->slots[find(m, hash_bytes(key, key_bytes), key, key_bytes)];
    return e ? e->value : NULL;
}

void *strmap_put(struct strmap *m, const char *key, size_t key_bytes, void *value)
{
    uint64_t hash = hash_bytes(key, key_bytes);
    struct strmap_entry *e = m->cap ? m->slots[find(m, hash, key, key_bytes)] : NULL;
    void *old;

    ASSERT(value);
    if (e) {
        old = e->value;
        e->value = value;
        return old;
    }
    e = entry_new(hash, key, key_bytes, value);
    if ((m->count + 1) * 4 > m->cap * 3)
        grow(m);
    m->slots[find(m, hash, key, key_bytes)] = e;
    m->count++;
    return NULL;
}

/* As in hash.c: keys behind the gap move back, so that no search stops early. */
static void close_gap(struct strmap *m, size_t at)
{
    size_t mask = m->cap - 1;

    for (size_t i = (at + 1) & mask; m->slots[i]; i = (i + 1) & mask) {
        if (((i - m->slots[i]->hash) & mask) < ((i - at) & mask))
            continue;
        m->slots[at] = m->slots[i];
        at = i;
    }
    m->slots[at] = NULL;
}

void *strmap_take(struct strmap *m, const char *key, size_t key_bytes)
{
    struct strmap_entry *e;
    size_t at;
    void *value;

    if (!m->cap)
        return NULL;
    at = find(m, hash_bytes(key, key_bytes), key, key_bytes);
    e = m->slots[at];
    if (!e)
        return NULL;
    value = e->value;
    close_gap(m, at);
    m->count--;
    free(e); /* key may point into it */
    return value;
}

/* Downward from a free slot, for the reason given at hash_next. */
bool strmap_next(const struct strmap *m, uint64_t *pos, const char **key, size_t *key_bytes,
                 void **value)
{
    uint64_t start, steps;

    if (m->count == 0)
        return false;
    if (*pos == 0) {
        for (start = 0; m->slots[start];)
            start++;
        *pos = (start + 1) << 32;
    }
    start = (*pos >> 32) - 1;
    for (steps = (*pos & UINT32_MAX) + 1; steps < m->cap; steps++) {
        const struct strmap_entry *e = m->slots[(start - steps) & (m->cap - 1)];

        if (!e)
            continue;
        *pos = (start + 1) << 32 | steps;
        if (key)
            *key = e->key;
        if (key_bytes)
            *key_bytes = e->key_bytes;
        if (value)
            *value = e->value;
        return true;
    }
    return false;
}

void strmap_free(struct strmap *m)
{
    for (size_t i = 0; i < m->cap; i++)
        free(m->slots[i]);
    free(m->slots);
    *m = (struct strmap){ 0 };
}
