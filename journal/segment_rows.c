#include "journal/segment_rows.h"

#include <stdlib.h>

void segment_row_put(uint64_t segment, const struct row_segment *row, struct rows_batch *rows)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    rows_batch_put(rows, key, row_key(key, ROW_SEGMENT, segment), value,
                   row_segment_write(row, value));
}

void segment_run_rows(uint64_t segment, const struct seg_index *x, struct rows_batch *rows)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    uint64_t live = seg_index_live(x);

    for (uint32_t i = 0; i < x->n_runs; i++) {
        const struct seg_run *n = &x->runs[i];
        struct row_run r = { .segment = segment,
                             .end = n->end,
                             .pos = n->pos,
                             .bytes = n->bytes,
                             .xxh3 = n->xxh3,
                             .max_ts = n->max_ts,
                             .first_sparse = n->first_sparse,
                             .n_sparse = n->n_sparse,
                             .n_batches = n->n_batches };

        rows_batch_put(rows, key, row_key2(key, ROW_RUN, n->shard, n->base), value,
                       row_run_write(&r, value));
    }
    rows_batch_put(rows, key, row_key(key, ROW_LIVE, segment), value, row_u64_write(live, value));
}

/* 1: the rows place it there. */
static int run_holds(struct store *st, uint64_t segment, const struct seg_run *run)
{
    uint8_t key[ROW_KEY_MAX], *mem;
    struct row_run row;
    size_t bytes;
    int rc = rows_get(st->rows, key, row_key2(key, ROW_RUN, run->shard, run->base), &mem, &bytes);

    if (rc < 0)
        return rc == E_NOTFOUND ? 0 : rc;
    rc = row_run_read(&row, mem, bytes);
    free(mem);
    return rc < 0 ? E_CORRUPT : row.segment == segment;
}

static int by_shard_base(const void *a, const void *b)
{
    const struct seg_run *x = &((const struct segment_alive *)a)->run;
    const struct seg_run *y = &((const struct segment_alive *)b)->run;

    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return x->base < y->base ? -1 : x->base > y->base;
}

static int alive_of(struct store *st, struct segment *seg, struct segment_alive **list,
                    uint32_t *n_list)
{
    const struct seg_index *x;
    int rc = segment_index(&st->segments, seg, &x);

    if (rc >= 0)
        *list = mem_grow(*list, (*n_list + x->n_runs + 1) * sizeof **list);
    for (uint32_t k = 0; rc >= 0 && k < x->n_runs; k++) {
        rc = run_holds(st, seg->id, &x->runs[k]);
#ifdef WEIR_MUTANT_IDENTITY_OF_DEAD
        rc = rc < 0 ? rc : 1;
#endif
        if (rc > 0)
            (*list)[(*n_list)++] = (struct segment_alive){ seg, x->runs[k] };
    }
    return rc < 0 ? rc : 0;
}

int segment_alive_runs(struct store *st, struct segment *const *segments, unsigned n,
                       struct segment_alive **list, uint32_t *n_list)
{
    int rc = 0;

    *list = NULL;
    *n_list = 0;
    for (unsigned i = 0; rc >= 0 && i < n; i++)
        rc = alive_of(st, segments[i], list, n_list);
    if (rc >= 0 && *n_list > 0)
        qsort(*list, *n_list, sizeof **list, by_shard_base);
    return rc;
}
