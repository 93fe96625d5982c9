/* Batches of row changes: the bytes that rows.h describes, written and read back. */
#include "journal/io/rows_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rd.h"

enum { BATCH_FIRST_CAP = 256, CHANGE_HEAD_BYTES = 1 + 4 + 4 };

static void rows_batch_reserve(struct rows_batch *b, size_t bytes)
{
    size_t cap = b->cap ? b->cap : BATCH_FIRST_CAP;

    while (cap - b->bytes < bytes)
        cap *= 2;
    if (cap == b->cap)
        return;
    b->mem = mem_grow(b->mem, cap);
    b->cap = cap;
}

static void rows_batch_add(struct rows_batch *b, enum rows_op op, const void *key, size_t key_bytes,
                           const void *value, size_t value_bytes)
{
    size_t need = CHANGE_HEAD_BYTES + key_bytes + value_bytes;
    struct wr w;

    ASSERT(key_bytes <= ROWS_KEY_MAX_BYTES);
    rows_batch_reserve(b, need);
    w = wr_of(b->mem + b->bytes, need);
    wr_u8(&w, (uint8_t)op);
    wr_u32le(&w, (uint32_t)key_bytes);
    wr_bytes(&w, key, key_bytes);
    wr_u32le(&w, (uint32_t)value_bytes);
    wr_bytes(&w, value, value_bytes);
    ASSERT(wr_ok(&w) && wr_used(&w) == need);
    b->bytes += need;
    b->n++;
}

void rows_batch_put(struct rows_batch *b, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    ASSERT(value_bytes <= ROWS_VALUE_MAX_BYTES);
    rows_batch_add(b, ROWS_PUT, key, key_bytes, value, value_bytes);
}

void rows_batch_delete(struct rows_batch *b, const void *key, size_t key_bytes)
{
    rows_batch_add(b, ROWS_DELETE, key, key_bytes, NULL, 0);
}

void rows_batch_delete_range(struct rows_batch *b, const void *from, size_t from_bytes,
                             const void *to, size_t to_bytes)
{
    ASSERT(to_bytes <= ROWS_KEY_MAX_BYTES);
    rows_batch_add(b, ROWS_DELETE_RANGE, from, from_bytes, to, to_bytes);
}

void rows_batch_append(struct rows_batch *b, const struct rows_batch *more)
{
    if (more->n == 0)
        return;
    rows_batch_reserve(b, more->bytes);
    memcpy(b->mem + b->bytes, more->mem, more->bytes);
    b->bytes += more->bytes;
    b->n += more->n;
}

void rows_batch_free(struct rows_batch *b)
{
    free(b->mem);
    *b = (struct rows_batch){ 0 };
}

bool rows_batch_next(const struct rows_batch *b, size_t *at, struct rows_change *c)
{
    struct rd r;

    if (*at == b->bytes)
        return false;
    ASSERT(*at < b->bytes);
    r = rd_of(b->mem + *at, b->bytes - *at);
    c->op = rd_u8(&r);
    c->key_bytes = rd_u32le(&r);
    c->key = rd_bytes(&r, c->key_bytes);
    c->value_bytes = rd_u32le(&r);
    c->value = rd_bytes(&r, c->value_bytes);
    /* A batch is made in this file and never leaves memory. */
    ASSERT(rd_ok(&r) && c->op >= ROWS_PUT && c->op <= ROWS_DELETE_RANGE);
    *at = b->bytes - rd_left(&r);
    return true;
}

int rows_compare(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    size_t n = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = n ? memcmp(a, b, n) : 0;

    if (order)
        return order;
    return (a_bytes > b_bytes) - (a_bytes < b_bytes);
}
