#include "journal/index.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"

enum { INDEX_FIRST_CAP = 4 };

static void index_room(struct index *x)
{
    uint32_t n = index_count(x);

    if (x->end < x->cap)
        return;
    if (x->first > x->cap / 2) {
        memmove(x->list, x->list + x->first, n * sizeof *x->list);
        x->first = 0;
        x->end = n;
        return;
    }
    x->cap = x->cap ? x->cap * 2 : INDEX_FIRST_CAP;
    x->list = mem_grow(x->list, x->cap * sizeof *x->list);
}

void index_add(struct index *x, const struct index_entry *n)
{
    if (index_count(x) > 0) {
        const struct index_entry *last = index_at(x, index_count(x) - 1);

        ASSERT(n->lsn > last->lsn && n->base >= last->base + last->n_offsets);
    }
    index_room(x);
    x->list[x->end] = *n;
    if (n->direct) {
        x->list[x->end].direct = mem_new(sizeof *n->direct);
        *x->list[x->end].direct = *n->direct;
    }
    x->end++;
}

uint32_t index_find(const struct index *x, uint64_t offset)
{
    uint32_t low = 0, high = index_count(x);

    while (low < high) {
        uint32_t mid = (low + high) / 2;
        const struct index_entry *n = index_at(x, mid);

        if (n->base + n->n_offsets <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

uint32_t index_find_lsn(const struct index *x, uint64_t lsn)
{
    uint32_t low = 0, high = index_count(x);

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (index_at(x, mid)->lsn < lsn)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Gives memory back once the index is empty: an idle shard keeps nothing. */
static uint32_t drop(struct index *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        free(x->list[x->first + i].direct);
    x->first += n;
    if (x->first == x->end)
        index_free(x);
    return n;
}

uint32_t index_drop_lsn(struct index *x, uint64_t lsn)
{
    uint32_t n = 0;

    while (n < index_count(x) && index_at(x, n)->lsn < lsn)
        n++;
    return n ? drop(x, n) : 0;
}

uint32_t index_drop_offset(struct index *x, uint64_t offset)
{
    uint32_t n = 0;

    while (n < index_count(x) && index_at(x, n)->base + index_at(x, n)->n_offsets <= offset)
        n++;
    return n ? drop(x, n) : 0;
}

void index_free(struct index *x)
{
    for (uint32_t i = x->first; i < x->end; i++)
        free(x->list[i].direct);
    free(x->list);
    *x = (struct index){ 0 };
}
