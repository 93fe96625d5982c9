/* Which offset is the latest of each key, for a round of log compaction: keys are known by 128 bits
 * of hash, and memory is bounded. One thread. */
#ifndef WEIR_JOURNAL_KEYMAP_H
#define WEIR_JOURNAL_KEYMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keymap_slot;

struct keymap {
    struct keymap_slot *slots;
    uint64_t cap; /* a power of two, or 0 */
    uint64_t n;   /* keys held */
    uint64_t max_bytes;
    uint64_t seed[2];
};

/* seed: random, so that nobody can make keys that collide. */
void keymap_init(struct keymap *m, uint64_t max_bytes, const uint64_t seed[2]);
void keymap_free(struct keymap *m);
/* True when n more keys fit into max_bytes for certain. An empty map always has room: a round must
 * come on by a batch at least. */
bool keymap_room(const struct keymap *m, uint64_t n);
/* The key was seen at offset; the highest stays. */
void keymap_put(struct keymap *m, uint64_t shard, const void *key, size_t bytes, uint64_t offset);
/* False when the key was never seen. */
bool keymap_get(const struct keymap *m, uint64_t shard, const void *key, size_t bytes,
                uint64_t *offset);

#endif
