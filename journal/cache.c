#include "journal/cache.h"

#include <stdlib.h>

static struct cache_block *at(struct cache *c, uint32_t i)
{
    return &c->list[(c->first + i) & (c->cap - 1)];
}

static void grow(struct cache *c)
{
    uint32_t cap = c->cap ? c->cap * 2 : 64;
    struct cache_block *list = mem_new(cap * sizeof *list);

    for (uint32_t i = 0; i < c->n; i++)
        list[i] = *at(c, i);
    free(c->list);
    c->list = list;
    c->first = 0;
    c->cap = cap;
}

void cache_drop(struct cache *c)
{
    struct cache_block *b = at(c, 0);

    c->bytes -= b->buf->cap;
    buf_unref(b->buf);
    c->first = (c->first + 1) & (c->cap - 1);
    c->n--;
}

uint64_t cache_oldest(const struct cache *c)
{
    return c->n > 1 ? c->list[c->first].lsn : UINT64_MAX;
}

void cache_add(struct cache *c, uint64_t lsn, struct buf *buf)
{
    if (c->n == c->cap)
        grow(c);
    c->n++;
    *at(c, c->n - 1) = (struct cache_block){ .lsn = lsn, .buf = buf_ref(buf) };
    c->bytes += buf->cap;
    while (c->n > 1 && c->bytes > c->max_bytes)
        cache_drop(c);
}

bool cache_get(struct cache *c, uint64_t lsn, uint32_t bytes, struct slice *s)
{
    uint32_t low = 0, high = c->n;
    struct cache_block *b;

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (at(c, mid)->lsn <= lsn)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0)
        return false;
    b = at(c, low - 1);
    if (lsn - b->lsn + bytes > b->buf->len)
        return false;
    *s =
        (struct slice){ .buf = buf_ref(b->buf), .mem = b->buf->mem + (lsn - b->lsn), .len = bytes };
    return true;
}

void cache_free(struct cache *c)
{
    while (c->n > 0)
        cache_drop(c);
    free(c->list);
    *c = (struct cache){ 0 };
}
