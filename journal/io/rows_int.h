/* What the stores behind rows.h share: reading a batch back, and the order of keys. */
#ifndef WEIR_JOURNAL_IO_ROWS_INT_H
#define WEIR_JOURNAL_IO_ROWS_INT_H

#include "journal/io/rows.h"

enum { ROWS_KEY_MAX_BYTES = 1024, ROWS_VALUE_MAX_BYTES = 2 << 20 };

enum rows_op { ROWS_PUT = 1, ROWS_DELETE = 2, ROWS_DELETE_RANGE = 3 };

/* One change, in place in its batch. */
struct rows_change {
    enum rows_op op;
    const uint8_t *key; /* DELETE_RANGE: the first key */
    size_t key_bytes;
    const uint8_t *value; /* PUT: the value; DELETE_RANGE: the first key that stays */
    size_t value_bytes;
};

/* Gives the change at *at (0 at first) and steps past it; false at the end. */
bool rows_batch_next(const struct rows_batch *b, size_t *at, struct rows_change *c);

/* The order of keys: bytes as unsigned, a prefix before what it begins. Below, at or above 0. */
int rows_compare(const void *a, size_t a_bytes, const void *b, size_t b_bytes);

#endif
