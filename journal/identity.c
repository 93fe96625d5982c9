#include "journal/identity.h"

#include <endian.h>
#include <stdlib.h>

#include "format/batch.h"
#include "journal/catalogue.h"
#include "journal/core.h"
#include "journal/segment_rows.h"

struct identity_walk {
    struct store *st;
    struct identity x;
    struct sum128_state *sum;
    /* of the present shard */
    uint64_t shard, start, next;
    bool exists, begun;
};

static int by_entry(const void *a, const void *b)
{
    const struct row_segment *x = &(*(struct segment *const *)a)->row;
    const struct row_segment *y = &(*(struct segment *const *)b)->row;

    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->first_entry != y->first_entry)
        return x->first_entry < y->first_entry ? -1 : 1;
    return x->segment_first < y->segment_first ? -1 : x->segment_first > y->segment_first;
}

/* --- what is alive --- */

static int shard_begin(struct identity_walk *w, uint64_t shard)
{
    struct row_shard row;
    int rc = 0;

    w->shard = shard;
    w->start = w->next = 0;
    w->exists = w->begun = true;
    if (shard != SHARD_CATALOGUE)
        rc = catalogue_shard_row(w->st, shard, &row);
    if (rc == E_NOTFOUND)
        w->exists = false;
    else if (rc >= 0 && shard != SHARD_CATALOGUE)
        w->start = row.start;
    return rc == E_NOTFOUND ? 0 : rc;
}

/* A header alone is what compaction leaves of records that went: how many of those become one, and
 * which still name their producer, is a node's own affair. */
static void batch_add(struct identity_walk *w, uint64_t xxh3, uint64_t bytes)
{
    uint64_t pair[2] = { htole64(w->shard), htole64(xxh3) };

#ifndef WEIR_MUTANT_IDENTITY_OF_EMPTY
    if (bytes == BATCH_HEAD_BYTES)
        return;
#endif
    sum128_add(w->sum, pair, sizeof pair);
    w->x.n_batches++;
    w->x.bytes += bytes;
}

static int run_read(struct identity_walk *w, const struct segment_alive *n)
{
    struct buf *buf;
    uint32_t start;
    int rc = segment_read(&w->st->segments, n->from, n->run.pos, n->run.bytes, &buf, &start);

    if (rc < 0)
        return rc;
    for (uint64_t at = 0; rc >= 0 && at < n->run.bytes;) {
        const uint8_t *mem = buf->mem + start + at;
        struct batch_head h;

        rc = batch_check(&h, mem, n->run.bytes - at);
        if (rc < 0)
            break;
        if ((uint64_t)h.base_offset + (uint64_t)h.last_offset_delta + 1 > w->start)
            batch_add(w, sum_xxh3(mem, h.bytes, 0), h.bytes);
        at += h.bytes;
    }
    buf_unref(buf);
    return rc < 0 ? rc : 0;
}

/* Of a run of one batch the index knows the hash. */
static int run_add(struct identity_walk *w, const struct segment_alive *n)
{
    int rc = !w->begun || n->run.shard != w->shard ? shard_begin(w, n->run.shard) : 0;

    if (rc < 0 || !w->exists || n->run.end <= w->start)
        return rc;
    if (n->run.base < w->next)
        return E_CORRUPT; /* the same offsets twice */
    w->next = n->run.end;
#ifdef WEIR_MUTANT_IDENTITY_OF_RUNS
    if (n->run.n_batches > 1 << 30)
#else
    if (n->run.n_batches > 1)
#endif
        return run_read(w, n);
    batch_add(w, n->run.xxh3, n->run.bytes);
    return 0;
}

static int sum_pieces(struct store *st, struct segment *const *pieces, struct identity *x)
{
    struct identity_walk w = { .st = st, .x = *x, .sum = sum128_new() };
    struct segment_alive *runs;
    uint32_t n;
    int rc = segment_alive_runs(st, pieces, x->n_pieces, &runs, &n);

    for (uint32_t i = 0; rc >= 0 && i < n; i++)
        rc = run_add(&w, &runs[i]);
    w.x.sum = sum128_end(w.sum);
    *x = w.x;
    free(runs);
    return rc;
}

/* --- which pieces --- */

/* Every piece that belongs to a segment, pinned, by group and entry. */
static struct segment **pieces_pin(struct store *st, uint64_t group, size_t *n)
{
    struct segments *t = &st->segments;
    struct segment **list;
    uint64_t pos = 0;
    void *value;

    *n = 0;
    pthread_mutex_lock(&t->lock);
    list = mem_new((t->by_id.count + 1) * sizeof(*list));
    while (hash_next(&t->by_id, &pos, NULL, &value)) {
        struct segment *s = value;

        if (s->open || s->row.segment_first == 0 || (group != UINT64_MAX && s->row.group != group))
            continue;
        s->pins++;
        list[(*n)++] = s;
    }
    pthread_mutex_unlock(&t->lock);
    if (*n > 0)
        qsort(list, *n, sizeof(*list), by_entry);
    return list;
}

/* The segment that the first of the pieces is of. One that is of several brings them all in. */
static struct identity segment_of(struct store *st, struct segment *const *list, size_t n)
{
    const struct row_segment *first = &list[0]->row;
    const struct jrn_group *g = store_group(st, first->group);
    struct identity x = { .group = first->group, .first = first->segment_first };
    uint64_t last_first = first->segment_first;

    for (; x.n_pieces < n; x.n_pieces++) {
        const struct row_segment *row = &list[x.n_pieces]->row;

        if (row->group != x.group ||
            (row->segment_first != last_first && !(x.several && row->segment_first <= x.last)))
            break;
        if (row->segment_first > last_first)
            last_first = row->segment_first;
        x.several = x.several || (row->flags & SEG_SEVERAL);
        /* Pieces that compaction has made overlap those that it made them of. */
        if (row->last_entry >= x.last)
            x.ended = (row->flags & SEG_ENDS) || (x.ended && row->last_entry == x.last);
        if (row->last_entry > x.last)
            x.last = row->last_entry;
    }
    x.ended = x.ended || (g && g->destaged_segment.first > x.last);
    return x;
}

int identity_each(struct store *st, uint64_t group, uint64_t entry, bool sums,
                  int (*fn)(void *ctx, const struct identity *x), void *ctx)
{
    size_t n, i = 0;
    struct segment **list = pieces_pin(st, group, &n);
    int rc = 0;

    while (rc == 0 && i < n) {
        struct identity x = segment_of(st, list + i, n - i);
        bool wanted = entry == 0 || (entry >= x.first && entry <= x.last);

        if (wanted && sums)
            rc = sum_pieces(st, list + i, &x);
        if (wanted && rc >= 0)
            rc = fn(ctx, &x);
        i += x.n_pieces;
    }
    for (i = 0; i < n; i++)
        segment_unpin(&st->segments, list[i]);
    free(list);
    return rc;
}
