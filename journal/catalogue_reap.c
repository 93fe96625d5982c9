/* Giving space back: what segments hold of trimmed and deleted shards, then the segments. */
#include "journal/catalogue.h"

#include <stdlib.h>

#include "base/logger.h"
#include "journal/io/rows_int.h"
#include "journal/keyindex.h"
#include "journal/live.h"
#include "journal/shard.h"
#include "journal/store.h"

#define REAP_AS_ROW (UINT64_MAX - 1)

struct reap {
    struct rows_work w;
    bool keyed; /* the shard has an index of keys, of which something goes */
    uint64_t shard, start;
    struct rows_batch rows;
    struct live_loss dead;
};

static int reap_run_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                        size_t value_bytes)
{
    struct reap *r = ctx;
    struct row_run run;
    uint64_t base;

    if (!row_key_of(key, key_bytes, ROW_RUN, r->shard, &base) || base >= r->start)
        return 1;
    if (row_run_read(&run, value, value_bytes) < 0)
        return E_CORRUPT;
    if (run.end <= r->start) {
        rows_batch_delete(&r->rows, key, key_bytes);
        live_lose(&r->dead, run.segment, run.bytes);
    }
    return 0;
}

struct reap_table {
    struct reap *r;
    enum row_table table;
};

static int reap_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct reap_table *t = ctx;

    if (!row_key_of(key, key_bytes, t->table, t->r->shard, NULL))
        return 1;
    rows_batch_delete(&t->r->rows, key, key_bytes);
    return 0;
}

/* Deletes a shard's rows of one table, one by one: a range's tombstone would cost every later scan. */
static int reap_all(struct reap *r, enum row_table table)
{
    struct reap_table t = { r, table };
    uint8_t key[ROW_KEY_MAX];
    int rc = rows_scan(r->w.st->rows, key, row_key(key, table, r->shard), false, reap_row, &t);

    return rc < 0 ? rc : 0;
}

/* What the shard's row says now: its start, or that there is no such shard any more. */
static int reap_start(struct reap *r)
{
    struct row_shard row;
    int rc = catalogue_shard_row(r->w.st, r->shard, &row);

    if (rc >= 0 || rc == E_NOTFOUND)
        r->start = rc < 0 ? UINT64_MAX : row.start;
    return rc == E_NOTFOUND ? 0 : rc;
}

static void reap_run(struct rows_work *w)
{
    struct reap *r = (struct reap *)w;
    bool late = r->start == REAP_AS_ROW; /* its names went when it was trimmed or deleted */
    uint8_t key[ROW_KEY_MAX];

    if (late && (w->rc = reap_start(r)) < 0)
        return;
    w->rc = rows_scan(w->st->rows, key, row_key(key, ROW_RUN, r->shard), false, reap_run_row, r);
    if (w->rc < 0)
        return;
    live_subtract(&r->dead, w->st, &r->rows);
    if (r->start == UINT64_MAX) {
        w->rc = reap_all(r, ROW_PRODUCER);
        if (w->rc >= 0)
            w->rc = reap_all(r, ROW_END);
        if (w->rc < 0)
            return;
    }
    w->rc = rows_write(w->st->rows, &r->rows, 0);
    r->keyed = !late && keyindex_is_there(w->st, r->shard);
}

struct drop_update {
    struct catalogue_update u;
    uint64_t segment;
};

void catalogue_grave(struct store *st, uint64_t segment)
{
    struct grave *g = mem_new(sizeof *g);

    g->segment = segment;
    g->due_us = loop_now_us(st->keeper) + (uint64_t)st->conf.delete_grace_ms * 1000;
    *st->graves_end = g;
    st->graves_end = &g->next;
}

static void segment_dropped(struct catalogue_update *u)
{
    struct drop_update *d = (struct drop_update *)u;
    struct store *st = u->st;

    if (u->rc >= 0) {
        catalogue_grave(st, d->segment);
        LOG_INFO("segment.deleted", F_INT("segment", d->segment));
        store_space_check(st);
    }
    free(d);
}

/* A segment with nothing alive in it goes: by a record first, then after the grace. */
static int drop_prepare(struct catalogue_update *u)
{
    struct drop_update *d = (struct drop_update *)u;
    struct segment *seg = segment_pin(&u->st->segments, d->segment);
    uint8_t key[ROW_KEY_MAX];
    bool dead = seg && seg->live == 0 && !seg->dropping;

    if (seg) {
        seg->dropping = true;
        segment_unpin(&u->st->segments, seg);
    }
    if (!dead)
        return E_NOTFOUND;
    rows_batch_delete(&u->rows, key, row_key(key, ROW_SEGMENT, d->segment));
    rows_batch_delete(&u->rows, key, row_key(key, ROW_LIVE, d->segment));
    return 0;
}

void catalogue_drop_segment(struct store *st, uint64_t segment)
{
    struct drop_update *d = mem_new(sizeof *d);

    d->segment = segment;
    d->u.prepare = drop_prepare;
    d->u.applied = segment_dropped;
    catalogue_submit(st->catalogue, &d->u);
}

static void reap_done(struct rows_work *w)
{
    struct reap *r = (struct reap *)w;

    if (w->rc >= 0)
        live_drop_empty(&r->dead, w->st);
    if (r->keyed)
        keyindex_sweep(w->st, r->shard, r->start);
    rows_batch_free(&r->rows);
    live_loss_free(&r->dead);
    free(r);
}

void catalogue_reap(struct store *st, uint64_t shard, uint64_t start)
{
    struct reap *r = mem_new(sizeof *r);

    r->shard = shard;
    r->start = start;
    r->w.run = reap_run;
    r->w.done = reap_done;
    store_rows_do(st, &r->w);
}

void catalogue_reap_late(struct store *st, const struct seg_index *x)
{
    uint64_t last = 0;

    for (uint32_t i = 0; i < x->n_runs; i++) {
        uint64_t id = x->runs[i].shard;
        struct shard *s;

        if (id == last)
            continue;
        last = id;
        if (id == SHARD_CATALOGUE)
            continue;
        s = shard_find(st, id);
        if (!s || atomic_load(&s->deleted) || atomic_load(&s->start) > x->runs[i].base)
            catalogue_reap(st, id, REAP_AS_ROW);
        shard_unref(s);
    }
}

void catalogue_bury(struct store *st, bool urgent)
{
    uint64_t now = loop_now_us(st->keeper);

    while (st->graves && (urgent || st->graves->due_us <= now)) {
        struct grave *g = st->graves;

        st->graves = g->next;
        if (!st->graves)
            st->graves_end = &st->graves;
        segments_remove(&st->segments, g->segment, true);
        free(g);
    }
    if (st->graves && !atomic_load(&st->closing))
        loop_timer_set(st->keeper, &st->grave_timer, st->graves->due_us - now);
}
