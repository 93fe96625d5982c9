#include "journal/rewrite.h"

#include <stdlib.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/catalogue.h"
#include "journal/destage.h"
#include "journal/segwrite.h"

struct rewrite {
    struct journal *j;
    bool running;
    struct segment *old; /* pinned */
    struct work work;
    struct segwrite out;
    int rc;
};

struct rewrite_update {
    struct catalogue_update u;
    struct rewrite *r;
};

struct rewrite *rewrite_new(struct journal *j)
{
    struct rewrite *r = mem_new(sizeof *r);

    r->j = j;
    return r;
}

void rewrite_free(struct rewrite *r)
{
    free(r);
}

bool rewrite_idle(const struct rewrite *r)
{
    return !r->running;
}

static void rewrite_end(struct rewrite *r)
{
    segment_unpin(&r->j->segments, r->old);
    r->old = NULL;
    segwrite_close(&r->out);
    r->running = false;
}

/* --- 2: the catalogue puts the new segment in the place of the old one --- */

static void old_rows_delete(const struct segment *old, const struct seg_index *x,
                            struct rows_batch *rows)
{
    uint8_t key[ROW_KEY_MAX];

    for (uint32_t i = 0; i < x->n_runs; i++)
        rows_batch_delete(rows, key, row_key2(key, ROW_RUN, x->runs[i].shard, x->runs[i].base));
    rows_batch_delete(rows, key, row_key(key, ROW_SEGMENT, old->id));
    rows_batch_delete(rows, key, row_key(key, ROW_LIVE, old->id));
}

/* Only runs that still point at the old segment are taken along: a run that was reaped meanwhile is brought back here, and
 * reaped again once the update is applied. */
static int swap_prepare(struct catalogue_update *u)
{
    struct rewrite *r = ((struct rewrite_update *)u)->r;
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    struct segment *seg;

    old_rows_delete(r->old, &r->out.builder.index, &u->rows);
    if (r->out.row.n_extents == 0)
        return 0;
    rows_batch_put(&u->rows, key, row_key(key, ROW_SEGMENT, r->out.segment), value,
                   row_segment_write(&r->out.row, value));
    segment_run_rows(r->out.segment, &r->out.builder.index, &u->rows);
    /* Known before the rows name it: a reader may follow them at once. */
    seg = segments_add(&r->j->segments, r->out.segment, &r->out.row);
    seg->live = 0;
    for (uint32_t i = 0; i < r->out.builder.index.n_runs; i++)
        seg->live += r->out.builder.index.runs[i].bytes;
    return 0;
}

static void swapped(struct catalogue_update *u)
{
    struct rewrite *r = ((struct rewrite_update *)u)->r;
    struct journal *j = u->j;
    int rc = u->rc;

    free(u);
    if (rc < 0) {
        LOG_WARN("rewrite.failed", F_INT("segment", r->old->id), F_ERR(rc));
        rewrite_end(r);
        return;
    }
    LOG_INFO("segment.rewritten", F_INT("segment", r->old->id), F_INT("into", r->out.segment),
             F_BYTES(r->out.row.data_bytes));
    catalogue_grave(j, r->old->id);
    catalogue_reap_late(j, &r->out.builder.index);
    rewrite_end(r);
    journal_space_check(j);
}

/* --- 1: copying what is alive, on a pool thread --- */

static bool run_is_alive(struct rewrite *r, const struct seg_run *run)
{
    uint8_t key[ROW_KEY_MAX], *mem;
    struct row_run row;
    size_t bytes;
    bool alive;

    if (rows_get(r->j->rows, key, row_key2(key, ROW_RUN, run->shard, run->base), &mem, &bytes) < 0)
        return false;
    alive = row_run_read(&row, mem, bytes) >= 0 && row.segment == r->old->id;
    free(mem);
    return alive;
}

static int run_copy(struct rewrite *r, const struct seg_run *run)
{
    struct buf *buf;
    uint32_t start;
    uint64_t at = 0;
    int rc = segment_read(&r->j->segments, r->old, run->pos, run->bytes, &buf, &start);

    if (rc < 0)
        return rc;
    while (rc >= 0 && at < run->bytes) {
        struct batch_head h;

        rc = batch_check(&h, buf->mem + start + at, run->bytes - at);
        if (rc < 0)
            break; /* a damaged segment is left as it is */
        segwrite_add(&r->out, run->shard, &h, buf->mem + start + at);
        at += h.bytes;
    }
    buf_unref(buf);
    return rc;
}

static void copy_run(struct work *w)
{
    struct rewrite *r = (struct rewrite *)((char *)w - offsetof(struct rewrite, work));
    const struct seg_index *x;
    uint64_t segment = r->out.segment;

    r->rc = segment_index(&r->j->segments, r->old, &x);
    if (r->rc >= 0)
        r->rc = segwrite_open(&r->out, r->j, r->old->row.group, segment, r->old->row.data_bytes);
    for (uint32_t i = 0; r->rc >= 0 && i < x->n_runs; i++)
        if (run_is_alive(r, &x->runs[i]))
            r->rc = run_copy(r, &x->runs[i]);
    if (r->rc >= 0 && r->out.builder.n_batches > 0)
        r->rc = segwrite_finish(&r->out, r->old->row.first_entry, r->old->row.last_entry);
}

static void copy_done(struct work *w)
{
    struct rewrite *r = (struct rewrite *)((char *)w - offsetof(struct rewrite, work));
    struct rewrite_update *u;

    if (r->rc < 0) {
        LOG_WARN("rewrite.failed", F_INT("segment", r->old->id), F_ERR(r->rc));
        if (r->rc == E_IO)
            journal_fail(r->j, "rewrite.device", r->rc);
        segwrite_undo(&r->out);
        rewrite_end(r); /* it stays marked as being dropped: not tried again in this life */
        return;
    }
    u = mem_new(sizeof *u);
    u->r = r;
    u->u.prepare = swap_prepare;
    u->u.applied = swapped;
    catalogue_submit(r->j->catalogue, &u->u);
}

void rewrite_consider(struct journal *j)
{
    struct rewrite *r = j->rewrite;

    if (r->running || atomic_load(&j->failed) || atomic_load(&j->closing))
        return;
    r->old = segments_sparsest(&j->segments);
    if (!r->old)
        return;
    r->old->dropping = true;
    r->running = true;
    r->out = (struct segwrite){ .segment = j->start_no << 32 | ++j->segment_serial };
    r->work = (struct work){ .run = copy_run, .done = copy_done, .loop = j->keeper };
    pool_submit(j->env.pool, &r->work);
}
