/* A hash map from u64 to pointers: open addressing, no tombstones. A zeroed struct is an empty map.
 *
 * Any key is allowed, values are not NULL. The order of iteration follows from the history
 * alone, so that a simulated run repeats. No defence against keys chosen by an enemy: use it for
 * numbers that we hand out. */
#ifndef WEIR_BASE_HASH_H
#define WEIR_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash_slot;

struct hash {
    struct hash_slot *slots;
    size_t cap;   /* a power of two, or 0 */
    size_t count; /* keys held; callers may read it */
};

/* The value; NULL when the key is not there. */
void *hash_get(const struct hash *h, uint64_t key);
/* Sets a key; returns the value it had, or NULL. */
void *hash_put(struct hash *h, uint64_t key, void *value);
/* Removes a key; returns its value, or NULL. */
void *hash_take(struct hash *h, uint64_t key);
/* Iterates: *pos begins at 0; false at the end. key and value may be NULL. Between two calls the
 * key last returned may be taken and values may be replaced; any other change makes the rest of
 * the walk undefined (never unsafe). */
bool hash_next(const struct hash *h, uint64_t *pos, uint64_t *key, void **value);
/* Frees the table (not the values); the map is empty again. */
void hash_free(struct hash *h);

/* Spreads the bits of a number over all 64; one to one. */
static inline uint64_t hash_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

#endif
