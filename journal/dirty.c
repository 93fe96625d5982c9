#include "journal/dirty.h"

#include <stdlib.h>

#include "base/buf.h"
#include "journal/core.h"

enum {
    LISTS = 1024, /* a WAL that is longer only has lists with shards of more than one extent */
    SLICE = 4     /* shards in one turn, at least; few, so that tests come by the seam */
};

static struct shard **list_of(struct dirty *d, uint64_t number)
{
    return &d->list[number % LISTS];
}

void dirty_add(struct dirty *d, struct shard *s)
{
    struct shard **at = &d->without;

    if (index_count(&s->index) > 0) {
        uint64_t number = index_at(&s->index, 0)->lsn >> d->log2;

        if (!d->list)
            d->list = mem_new(LISTS * sizeof(*d->list));
        if (number < d->from)
            d->from = number;
        at = list_of(d, number);
    }
    s->dirty_next = *at;
    *at = s;
}

/* The lists from the first on that may have entries below end_lsn: how many. */
static uint64_t lists_below(const struct dirty *d, uint64_t end_lsn)
{
    uint64_t end = (end_lsn >> d->log2) + 1;

    if (!d->list || (end_lsn != UINT64_MAX && end <= d->from))
        return 0;
    return end_lsn != UINT64_MAX && end - d->from < LISTS ? end - d->from : LISTS;
}

struct shard *dirty_following(const struct shard *s)
{
    struct shard *next = s->dirty_next;

    for (unsigned i = 0; next && i < 3; i++)
        __builtin_prefetch((const char *)next + (size_t)i * CACHE_LINE);
    return next;
}

static unsigned list_each(struct shard *s, void (*fn)(void *ctx, struct shard *s), void *ctx)
{
    unsigned n = 0;

    for (struct shard *next; s; s = next, n++) {
        next = dirty_following(s);
        fn(ctx, s);
    }
    return n;
}

bool dirty_some(struct dirty *d, struct dirty_walk *w, void (*fn)(void *ctx, struct shard *s),
                void *ctx)
{
    unsigned n = 0;

    if (!w->begun) {
        w->begun = true;
        w->list = d->from;
        w->end = d->from + lists_below(d, w->end_lsn);
        n = list_each(d->without, fn, ctx);
    }
    for (; n < SLICE && w->list < w->end; w->list++)
        n += list_each(*list_of(d, w->list), fn, ctx);
    return w->list < w->end;
}

struct shard *dirty_take(struct dirty *d, uint64_t end_lsn)
{
    uint64_t n = lists_below(d, end_lsn);
    struct shard *all = d->without;

    d->without = NULL;
    for (uint64_t i = 0; i < n; i++) {
        struct shard **at = list_of(d, d->from + i);

        while (*at) {
            struct shard *s = *at;

            *at = s->dirty_next;
            s->dirty_next = all;
            all = s;
        }
    }
    /* The last list may get some back, and has a place in what comes. */
    if (end_lsn >> d->log2 > d->from)
        d->from = end_lsn >> d->log2;
    return all;
}

void dirty_free(struct dirty *d)
{
    free(d->list);
    *d = (struct dirty){ .log2 = d->log2 };
}
