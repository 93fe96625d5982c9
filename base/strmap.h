/* A hash map from byte strings to pointers, for names. A zeroed struct is an empty map.
 *
 * Keys are copied and have explicit lengths: any bytes, the empty string too. Values are not
 * NULL. The order of iteration follows from the history alone. */
#ifndef WEIR_BASE_STRMAP_H
#define WEIR_BASE_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct strmap_entry;

struct strmap {
    struct strmap_entry **slots;
    size_t cap;   /* a power of two, or 0 */
    size_t count; /* keys held; callers may read it */
};

/* The value; NULL when the key is not there. */
void *strmap_get(const struct strmap *m, const char *key, size_t key_bytes);
/* Sets a key; returns the value it had, or NULL. */
void *strmap_put(struct strmap *m, const char *key, size_t key_bytes, void *value);
/* Removes a key; returns its value, or NULL. */
void *strmap_take(struct strmap *m, const char *key, size_t key_bytes);
/* Iterates: *pos begins at 0; false at the end. key, key_bytes and value may be NULL. *key is
 * the map's own copy, closed by a zero byte, good until that key is taken. Between two calls the
 * key last returned may be taken and values may be replaced; any other change makes the rest of
 * the walk undefined (never unsafe). */
bool strmap_next(const struct strmap *m, uint64_t *pos, const char **key, size_t *key_bytes,
                 void **value);
/* Frees the keys and the table (not the values); the map is empty again. */
void strmap_free(struct strmap *m);

#endif
