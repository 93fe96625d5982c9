#include "journal/rewrite.h"

#include <stdlib.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/catalogue.h"
#include "journal/compact.h"
#include "journal/segment_rows.h"
#include "journal/segwrite.h"
#include "journal/stats.h"

enum { REWRITE_SEGMENTS = 16, RETRY_US = 1000 * 1000 };
#define MEMORY_EXTENTS UINT64_C(2) /* that much is held in memory */

struct rewrite {
    struct store *st;
    bool running;
    struct segment *old[REWRITE_SEGMENTS]; /* pinned; neighbours of one group, oldest first */
    unsigned n;
    struct segment_alive *runs; /* what is alive in them, in (shard, offset) order */
    uint32_t n_runs;
    struct work work;
    struct segwrite out;
    int rc;
};

struct rewrite_update {
    struct catalogue_update u;
    struct rewrite *r;
};

struct rewrite *rewrite_new(struct store *st)
{
    struct rewrite *r = mem_new(sizeof *r);

    r->st = st;
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
    for (unsigned i = 0; i < r->n; i++)
        segment_unpin(&r->st->segments, r->old[i]);
    r->n = 0;
    free(r->runs);
    r->runs = NULL;
    r->n_runs = 0;
    segwrite_close(&r->out);
    r->running = false;
}

/* --- 2: the catalogue puts the new segment in the place of the old ones --- */

/* Only the rows of what was copied: a run that compaction has written anew has its row elsewhere. */
static void old_rows_delete(const struct rewrite *r, struct rows_batch *rows)
{
    uint8_t key[ROW_KEY_MAX];

    for (uint32_t i = 0; i < r->n_runs; i++)
        rows_batch_delete(rows, key,
                          row_key2(key, ROW_RUN, r->runs[i].run.shard, r->runs[i].run.base));
    for (unsigned i = 0; i < r->n; i++) {
        rows_batch_delete(rows, key, row_key(key, ROW_SEGMENT, r->old[i]->id));
        rows_batch_delete(rows, key, row_key(key, ROW_LIVE, r->old[i]->id));
    }
}

/* A run that was reaped while it was copied is brought back here, and reaped again once the update
 * is applied. */
static int swap_prepare(struct catalogue_update *u)
{
    struct rewrite *r = ((struct rewrite_update *)u)->r;
    struct segment *seg;

    old_rows_delete(r, &u->rows);
    if (r->out.row.n_extents == 0)
        return 0;
    segment_row_put(r->out.segment, &r->out.row, &u->rows);
    segment_run_rows(r->out.segment, &r->out.builder.index, &u->rows);
    /* Known before the rows name it: a reader may follow them at once. */
    seg = segwrite_enter(&r->out);
    seg->settled = seg->live;
    return 0;
}

/* The old ones stay; those that died meanwhile were not dropped while we had them. What is damaged is so
 * for as long as we live; space may come back. */
static void rewrite_failed(struct rewrite *r, int rc)
{
    uint64_t again = rc == E_CORRUPT ? UINT64_MAX : loop_now_us(r->st->keeper) + RETRY_US;

    LOG_AT_(rc == E_NOSPACE ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, "rewrite.failed",
            F_INT("segment", r->old[0]->id), F_ERR(rc));
    for (unsigned i = 0; i < r->n; i++) {
        r->old[i]->dropping = false;
        r->old[i]->rewrite_us = again;
        if (r->old[i]->live == 0)
            catalogue_drop_segment(r->st, r->old[i]->id);
    }
    rewrite_end(r);
}

static void swapped(struct catalogue_update *u)
{
    struct rewrite *r = ((struct rewrite_update *)u)->r;
    struct store *st = u->st;
    int rc = u->rc;

    free(u);
    if (rc < 0) {
        segwrite_refused(&r->out, rc);
        rewrite_failed(r, rc);
        return;
    }
    LOG_INFO("segment.rewritten", F_INT("first", r->old[0]->id), F_INT("segments", r->n),
             F_INT("into", r->out.segment), F_BYTES(r->out.row.data_bytes));
    metric_add(&st->stats->rewrites, 1);
    metric_add(&st->stats->rewrite_bytes, r->out.row.data_bytes);
    for (unsigned i = 0; i < r->n; i++) {
        r->old[i]->live = 0;
        catalogue_grave(st, r->old[i]->id);
    }
    catalogue_reap_late(st, &r->out.builder.index);
    rewrite_end(r);
    store_space_check(st);
}

/* --- 1: copying what is alive, on a pool thread --- */

static int run_copy(struct rewrite *r, const struct segment_alive *n)
{
    struct buf *buf;
    uint32_t start;
    uint64_t at = 0, next = n->run.base;
    int rc = segment_read(&r->st->segments, n->from, n->run.pos, n->run.bytes, &buf, &start);

    if (rc < 0)
        return rc;
    /* The run's sum covers what no batch's CRC does, and bytes that belong elsewhere. */
    if (sum_xxh3(buf->mem + start, n->run.bytes, 0) != n->run.xxh3)
        rc = E_CORRUPT;
    while (rc >= 0 && at < n->run.bytes) {
        struct batch_head h;

        rc = batch_check_at(&h, buf->mem + start + at, n->run.bytes - at, next);
        if (rc < 0)
            break; /* a damaged segment is left as it is */
        segwrite_add(&r->out, n->run.shard, &h, buf->mem + start + at);
        at += h.bytes;
        next += (uint64_t)h.last_offset_delta + 1;
    }
    buf_unref(buf);
    return rc;
}

static void copy_run(struct work *w)
{
    struct rewrite *r = (struct rewrite *)((char *)w - offsetof(struct rewrite, work));
    uint64_t bytes = 0, most = MEMORY_EXTENTS << r->st->wal_log2;
    struct segwrite_origin of = { 0 };

    r->rc = segment_alive_runs(r->st, r->old, r->n, &r->runs, &r->n_runs);
    for (unsigned i = 0; i < r->n; i++)
        segwrite_origin_add(&of, &r->old[i]->row);
    for (uint32_t i = 0; i < r->n_runs; i++)
        bytes += r->runs[i].run.bytes + SEG_RUN_HEAD_BYTES;
    if (r->rc >= 0)
        r->rc = segwrite_open(&r->out, r->st, r->old[0]->row.group, r->out.segment,
                              bytes < most ? bytes : most);
    r->out.copy = r->out.in_pieces = true;
    for (uint32_t i = 0; r->rc >= 0 && i < r->n_runs; i++)
        r->rc = run_copy(r, &r->runs[i]);
    if (r->rc >= 0 && r->n_runs > 0)
        r->rc = segwrite_finish_of(&r->out, &of);
}

static void copy_done(struct work *w)
{
    struct rewrite *r = (struct rewrite *)((char *)w - offsetof(struct rewrite, work));
    struct rewrite_update *u;

    if (r->rc < 0) {
        if (r->rc == E_IO)
            store_fail(r->st, "rewrite.device", r->rc);
        segwrite_undo(&r->out);
        rewrite_failed(r, r->rc);
        return;
    }
    u = mem_new(sizeof *u);
    u->r = r;
    u->u.prepare = swap_prepare;
    u->u.applied = swapped;
    catalogue_submit(r->st->catalogue, &u->u);
}

void rewrite_consider(struct store *st, bool urgent)
{
    struct rewrite *r = st->rewrite;

    if (r->running || !compact_idle(st->compact) || atomic_load(&st->failed) ||
        atomic_load(&st->closing))
        return;
    r->n = segments_wasteful(&st->segments, r->old,
                             &(struct segments_want){ .max = REWRITE_SEGMENTS,
                                                      .max_bytes = MEMORY_EXTENTS << st->wal_log2,
                                                      .least_gain = st->conf.rewrite_gain,
                                                      .urgent = urgent,
                                                      .now_us = loop_now_us(st->keeper) });
    if (r->n == 0)
        return;
    for (unsigned i = 0; i < r->n; i++)
        r->old[i]->dropping = true;
    r->running = true;
    r->out = (struct segwrite){ .segment = store_new_segment(st) };
    r->work = (struct work){ .run = copy_run, .done = copy_done, .loop = st->keeper };
    pool_submit(st->env.pool, &r->work);
}
