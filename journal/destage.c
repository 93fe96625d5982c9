#include "journal/destage_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/compact.h"
#include "journal/group.h"
#include "journal/retention.h"
#include "journal/segment_rows.h"
#include "journal/shard.h"
#include "journal/stats.h"

enum {
    ROUND_BYTES = 64 << 20, /* of WAL, which the round has in memory */
    DROP_SLICE = 8,         /* shards, in one turn of a loop; few, so that tests come by the seam */
    /* A round that begins takes this part of the budget. Over many shards each extent more makes runs
     * longer, and so the rows fewer, of which there is one for a run, and one for each shard. */
    ROUND_PART = 4
};

struct destage *destage_new(struct store *st)
{
    struct destage *d = mem_new(sizeof *d);

    d->st = st;
    return d;
}

void destage_free(struct destage *d)
{
    free(d);
}

bool destage_idle(const struct destage *d)
{
    return !d->running;
}

static const struct wal_mark *mark_of(const struct destage *d, uint64_t group)
{
    const struct wal_extent *last = d->extents[d->n_extents - 1];

    for (unsigned i = 0; i < last->n_marks; i++)
        if (last->marks[i].group == group)
            return &last->marks[i];
    return NULL;
}

/* --- the end of a round --- */

static void round_clean(struct destage *d)
{
    for (unsigned i = 0; i < ROUND_EXTENTS; i++) {
        buf_unref(d->wal[i]);
        d->wal[i] = NULL;
    }
    for (unsigned i = 0; d->parts && i < d->st->n_groups; i++) {
        struct destage_part *p = &d->parts[i];

        free(p->list);
        free(p->lost);
        rows_batch_free(&p->rows);
        for (unsigned k = 0; k < p->n_pieces; k++)
            segwrite_close(&p->pieces[k].out);
        free(p->pieces);
    }
    free(d->parts);
    free(d->whole);
    d->parts = NULL;
    d->whole = NULL;
    d->n_whole = 0;
    d->running = false;
}

static void round_failed(struct destage *d, const char *step, int rc)
{
    LOG_WARN("destage.failed", F_STR("step", step), F_ERR(rc));
    metric_add(&d->st->stats->destage_failed, 1);
    if (rc == E_IO || rc == E_DEVICE)
        store_fail(d->st, "destage.device", rc);
    round_clean(d);
}

/* --- 6: memory lets go, then the extents are free --- */

static void dropped_on_keeper(struct store *st, void *arg)
{
    struct destage *d = arg;

    if (--d->waiting > 0)
        return;
    /* Those in which nothing was alive, or that could not be sealed. */
    for (unsigned i = 0; i < d->extents[0]->n_direct; i++)
        segments_remove_open(&st->segments, d->extents[0]->direct[i].segment);
    wal_passed(&st->wal, d->end_lsn);
    LOG_DEBUG("destage.done", F_LSN(d->end_lsn));
    metric_add(&st->stats->destage_rounds, 1);
    metric_observe(&st->stats->destage_us, loop_now_us(st->keeper) - d->began_us);
    round_clean(d);
    store_space_check(st);
}

/* Lets go of entries below the checkpoint; a shard with nothing left to write is no longer dirty. One
 * whose entries a trim has taken since may still have an end and producers that rows do not know. */
static void shard_drop(struct destage_part *p, struct shard *s)
{
    index_drop_lsn(&s->index, p->d->end_lsn);
    s->rows_end = s->saved_end;
    if (index_count(&s->index) > 0 || s->next != atomic_load(&s->end) || s->saved_end != s->next) {
        dirty_add(&p->group->dirty, s);
        return;
    }
    s->dirty = false;
    shard_unref(s);
}

static void drop_some(struct task *t)
{
    struct destage_part *p = (struct destage_part *)t;

    for (unsigned n = 0; p->dropping && n < DROP_SLICE; n++) {
        struct shard *s = p->dropping;

        p->dropping = dirty_following(s);
        shard_drop(p, s);
    }
    if (p->dropping)
        loop_post(p->group->loop, &p->task);
    else
        store_on_keeper(p->d->st, dropped_on_keeper, p->d);
}

static void drop_home(struct task *t)
{
    struct destage_part *p = (struct destage_part *)t;

    p->dropping = dirty_take(&p->group->dirty, p->d->end_lsn);
    p->task.run = drop_some;
    drop_some(t);
}

/* What a checkpoint changes; the rest is read by the committer at any time. */
static void super_take(struct super *s, const struct super *from)
{
    s->generation = from->generation;
    s->ckpt_lsn = from->ckpt_lsn;
    s->catalogue_end = from->catalogue_end;
    s->n = from->n;
    memcpy(s->list, from->list, sizeof s->list);
}

static void checkpoint_done(struct rows_work *w)
{
    struct destage *d = (struct destage *)((char *)w - offsetof(struct destage, rows_work));
    struct store *st = d->st;

    if (w->rc < 0) {
        round_failed(d, "checkpoint", w->rc);
        return;
    }
    /* J3: the checkpoint only moves forward. */
    ASSERT(d->super.ckpt_lsn >= st->super.ckpt_lsn);
    super_take(&st->super, &d->super);
    for (unsigned i = 0; i < st->n_groups; i++) {
        const struct wal_mark *m = mark_of(d, st->groups[i]->id);

        if (st->groups[i]->destaged_lsn >= d->end_lsn)
            continue;
        st->groups[i]->destaged_lsn = d->end_lsn;
        if (m) {
            st->groups[i]->destaged_entry = m->last_entry;
            st->groups[i]->destaged_hash = m->last_hash;
            st->groups[i]->destaged_segment = m->segment;
        }
    }
    d->waiting = st->n_groups;
    for (unsigned i = 0; i < st->n_groups; i++) {
        d->parts[i].task.run = drop_home;
        loop_post(st->groups[i]->loop, &d->parts[i].task);
    }
}

/* --- 5: rows are flushed with the new replay LSN, the superblock names it --- */

/* The next generation, in the two copies that are its. */
static int super_store_next(struct dev *dev, struct dev_file *file, struct super *s, struct buf *b)
{
    unsigned first;
    int rc = 0;

    s->generation++;
    first = (unsigned)(s->generation % 2) * 2;
    super_write(s, b->mem);
    for (unsigned i = 0; rc >= 0 && i < 2; i++)
        rc = dev_write(dev, file, (uint64_t)(first + i) * SUPER_BYTES, b->mem, SUPER_BYTES);
    return rc < 0 ? rc : dev_sync(dev, file);
}

/* Two generations that say the same: rot in the newest copies must not bring back an older state,
 * which knows nothing of the present incarnation and would cut it off in silence. */
int super_store(struct dev *dev, struct dev_file *file, struct super *s)
{
    struct buf *b = buf_new_aligned(SUPER_BYTES);
    int rc = b ? super_store_next(dev, file, s, b) : E_NOMEM;

    if (rc >= 0)
        rc = super_store_next(dev, file, s, b);
    buf_unref(b);
    return rc;
}

static void checkpoint_run(struct rows_work *w)
{
    struct destage *d = (struct destage *)((char *)w - offsetof(struct destage, rows_work));
    struct rows_batch none = { 0 };
    /* Rows that a checkpoint left ahead of a superblock which then was not written, or was lost, stay
     * ahead. */
    uint64_t lsn = d->end_lsn > rows_replay_lsn(d->st->rows) ? d->end_lsn : 0;

    w->rc = 0;
#ifdef WEIR_MUTANT_ENDS_APART
    for (unsigned i = 0; w->rc >= 0 && i < d->st->n_groups; i++)
        w->rc = rows_write(d->st->rows, &d->parts[i].rows, 0);
#endif
    if (w->rc >= 0 && lsn > 0)
        w->rc = rows_write(d->st->rows, &none, lsn);
#ifdef WEIR_MUTANT_REPLAY_BACK
    if (w->rc >= 0 && d->super.generation % 3 == 0)
        w->rc = rows_write(d->st->rows, &none, LSN_FIRST);
#endif
    if (w->rc >= 0)
        w->rc = rows_flush(d->st->rows);
#ifdef WEIR_MUTANT_REUSE_EARLY
    return; /* the extents are free, and no durable checkpoint has passed them */
#endif
    if (w->rc >= 0)
        w->rc = super_store(d->st->dev, d->st->super_file, &d->super);
}

/* Incarnations that live WAL still belongs to, with the place where each now begins. */
static void super_prune(struct destage *d)
{
    struct super *s = &d->super;
    uint32_t n = 0;

    *s = d->st->super;
    s->ckpt_lsn = d->end_lsn;
#ifdef WEIR_MUTANT_CHECKPOINT_BACK
    if (s->generation % 3 == 0)
        s->ckpt_lsn = LSN_FIRST;
#endif
#ifdef WEIR_MUTANT_CHECKPOINT_AHEAD
    s->ckpt_lsn += PAGE_BYTES; /* a block that is not destaged */
#endif
    s->catalogue_end = atomic_load(&d->st->catalogue_shard->end);
    for (uint32_t i = 0; i < s->n; i++) {
        struct super_incarnation x = s->list[i];

        if (x.end_lsn <= d->end_lsn)
            continue;
        x.place = wal_place_after(&d->st->wal, x.incarnation, d->end_lsn);
        s->list[n++] = x;
    }
    s->n = n;
}

static void checkpoint(struct destage *d)
{
    super_prune(d);
    LOG_DEBUG("checkpoint.begin", F_LSN(d->end_lsn));
    d->rows_work = (struct rows_work){ .run = checkpoint_run, .done = checkpoint_done };
    store_rows_do(d->st, &d->rows_work);
}

/* --- 4: the catalogue records what was sealed --- */

struct seal_update {
    struct catalogue_update u;
    struct destage *d;
};

static void group_row(struct destage *d, struct jrn_group *g, struct rows_batch *rows)
{
    const struct wal_mark *m = mark_of(d, g->id);
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    struct row_group row = { .class = (uint8_t)g->class, .destaged_lsn = d->end_lsn };

    /* A round before the last crash may be recorded that went further: what it has sealed must not
     * be taken for live again. */
    if (!m || g->destaged_lsn >= d->end_lsn)
        return;
    row.last_entry = m->last_entry;
    row.last_hash = m->last_hash;
    row.segment = m->segment;
    rows_batch_put(rows, key, row_key(key, ROW_GROUP, g->id), value, row_group_write(&row, value));
}

/* What was found damaged: the holes, and the loss that keeps the group read-only. */
static void lost_rows(struct destage *d, struct destage_part *p, struct rows_batch *rows)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    struct row_loss loss = { .end_lsn = d->end_lsn };

    if (p->n_lost > 0)
        atomic_store(&d->st->no_holes, false);
    for (unsigned i = 0; i < p->n_lost; i++)
        rows_batch_put(rows, key, row_key2(key, ROW_HOLE, p->lost[i].shard, p->lost[i].start),
                       value, row_u64_write(p->lost[i].end, value));
    if (p->n_lost > 0)
        rows_batch_put(rows, key, row_key2(key, ROW_LOSS, p->group->id, d->extents[0]->first_lsn),
                       value, row_loss_write(&loss, value));
}

static void piece_rows(struct destage *d, struct destage_piece *n, struct rows_batch *rows)
{
    if (n->out.row.n_extents == 0)
        return;
    segment_row_put(n->segment, &n->out.row, rows);
    segment_run_rows(n->segment, &n->out.builder.index, rows);
    /* Known as sealed before the rows name it: a reader may follow them at once. */
    if (n->seals)
        segments_seal(&d->st->segments, n->segment, &n->out.row);
    n->in_table = n->seals;
}

static int seal_prepare(struct catalogue_update *u)
{
    struct destage *d = ((struct seal_update *)u)->d;

    for (unsigned i = 0; i < d->st->n_groups; i++) {
        struct destage_part *p = &d->parts[i];

        group_row(d, p->group, &u->rows);
        lost_rows(d, p, &u->rows);
        /* In one write with what says that the round's batches are destaged: who finds that does not
         * read them in the WAL any more, and must know from here where their shards end. */
#ifndef WEIR_MUTANT_ENDS_APART
        rows_batch_append(&u->rows, &p->rows);
#endif
        for (unsigned k = 0; k < p->n_pieces; k++)
            piece_rows(d, &p->pieces[k], &u->rows);
    }
    return 0;
}

static void piece_give_back(struct destage *d, struct destage_piece *n)
{
    if (n->in_table)
        segments_unseal(&d->st->segments, n->segment, n->out.n_open);
    n->in_table = false;
    segwrite_undo(&n->out);
}

static void give_back(struct destage *d)
{
    for (unsigned i = 0; i < d->st->n_groups; i++)
        for (unsigned k = 0; k < d->parts[i].n_pieces; k++)
            piece_give_back(d, &d->parts[i].pieces[k]);
}

/* What was written directly was there already. */
static uint64_t moved_bytes(const struct segwrite *out)
{
    const struct seg_index *x = &out->builder.index;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < x->n_runs; i++)
        if (x->runs[i].pos >= out->row.sorted_pos)
            bytes += x->runs[i].bytes;
    return bytes;
}

static void piece_sealed(struct destage *d, struct destage_piece *n)
{
    struct store *st = d->st;
    struct segment *seg;

    if (n->out.row.n_extents == 0)
        return;
    seg = segwrite_enter(&n->out);
    seg->open = false;
    retention_sealed(st, seg);
    metric_add(&st->stats->destage_bytes, moved_bytes(&n->out));
    LOG_INFO("segment.sealed", F_INT("segment", n->segment), F_INT("group", n->out.row.group),
             F_INT("batches", n->out.row.n_batches), F_BYTES(n->out.row.data_bytes));
}

static void sealed(struct catalogue_update *u)
{
    struct destage *d = ((struct seal_update *)u)->d;
    int rc = u->rc;

    free(u);
    if (rc < 0) {
        /* Whether the record is durable is unknown after a device failure: then the space stays
         * taken. */
        if (rc != E_DEVICE)
            give_back(d);
        round_failed(d, "seal", rc);
        return;
    }
    for (unsigned i = 0; i < d->st->n_groups; i++) {
        struct destage_part *p = &d->parts[i];

        if (p->n_lost > 0) {
            atomic_store(&p->group->read_only, true);
            LOG_ERROR("wal.rot", F_INT("group", p->group->id), F_LSN(d->extents[0]->first_lsn),
                      F_INT("ranges", p->n_lost));
        }
        for (unsigned k = 0; k < p->n_pieces; k++)
            piece_sealed(d, &p->pieces[k]);
    }
    for (unsigned i = 0; i < d->st->n_groups; i++)
        for (unsigned k = 0; k < d->parts[i].n_pieces; k++) {
            catalogue_reap_late(d->st, &d->parts[i].pieces[k].out.builder.index);
            compact_sealed(d->st, &d->parts[i].pieces[k].out.builder.index);
        }
    checkpoint(d);
}

static void seal(struct destage *d)
{
    struct seal_update *u = mem_new(sizeof *u);

    u->d = d;
    u->u.prepare = seal_prepare;
    u->u.applied = sealed;
    catalogue_submit(d->st->catalogue, &u->u);
}

/* --- 3: reading, checking, writing: destage_write.c --- */

static void pool_done(struct work *w)
{
    struct destage *d = (struct destage *)((char *)w - offsetof(struct destage, work));

    if (d->rc < 0) {
        give_back(d);
        round_failed(d, "write", d->rc);
        return;
    }
    seal(d);
}

/* --- 2: every group says what it has there --- */

static void piece_add(struct destage_part *p, uint64_t last_entry, uint64_t end_lsn, bool ends)
{
    const struct jrn_group *g = p->group;
    struct destage_piece *n;
    const struct destage_piece *before;

    p->pieces = mem_grow(p->pieces, (p->n_pieces + 1) * sizeof *p->pieces);
    n = &p->pieces[p->n_pieces++];
    before = p->n_pieces > 1 ? n - 1 : NULL;
    *n = (struct destage_piece){ .first_entry =
                                     (before ? before->last_entry : g->destaged_entry) + 1,
                                 .last_entry = last_entry,
                                 .segment_first =
                                     before ? before->last_entry + 1 : g->destaged_segment.first,
                                 .ends = ends,
                                 .end_lsn = end_lsn,
                                 .segment = store_new_segment(p->d->st) };
}

/* One more than segments of the group that end in the round. */
static void pieces_make(struct destage_part *p)
{
    const struct destage *d = p->d;
    const struct jrn_group *g = p->group;
    const struct wal_mark *m = mark_of(d, g->id);

    for (unsigned i = 0; i < d->n_extents; i++)
        for (unsigned k = 0; k < d->extents[i]->n_cuts; k++) {
            const struct wal_cut *c = &d->extents[i]->cuts[k];

            if (c->group == g->id && c->end_lsn > g->destaged_lsn)
                piece_add(p, c->entry, c->end_lsn, true);
        }
    piece_add(p, m && g->destaged_lsn < d->end_lsn ? m->last_entry : g->destaged_entry, d->end_lsn,
              false);
}

static void collected_on_keeper(struct store *st, void *arg)
{
    struct destage *d = arg;

    if (--d->waiting > 0)
        return;
    for (unsigned i = 0; i < st->n_groups; i++)
        pieces_make(&d->parts[i]);
    d->work = (struct work){ .run = destage_write_run, .done = pool_done, .loop = st->keeper };
    pool_submit(st->env.pool, &d->work);
}

/* A shard that the round does not come by has nothing in it, and rows have what it had before: they
 * were given that when it last lost entries, or became dirty. */
static void shard_collect(void *ctx, struct shard *s)
{
    struct destage_part *p = ctx;
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    uint64_t end = atomic_load(&s->end);

    s->saved_end = end;
    if (atomic_load(&s->deleted))
        return;
    for (uint32_t i = 0; i < index_count(&s->index); i++) {
        const struct index_entry *n = index_at(&s->index, i);

        if (n->lsn >= p->d->end_lsn)
            break;
        if (p->n == p->cap) {
            p->cap = p->cap ? p->cap * 2 : 64;
            p->list = mem_grow(p->list, p->cap * sizeof *p->list);
        }
        p->list[p->n] = (struct destage_entry){ .shard = s->id, .entry = *n };
        if (n->direct)
            p->list[p->n].direct = *n->direct;
        p->n++;
    }
    if (end == s->rows_end)
        return; /* nor has any producer written since */
    rows_batch_put(&p->rows, key, row_key(key, ROW_END, s->id), value, row_u64_write(end, value));
    producers_save(&s->producers, s->id, end, &p->rows);
}

static void collect_home(struct task *t)
{
    struct destage_part *p = (struct destage_part *)t;

    if (dirty_some(&p->group->dirty, &p->walk, shard_collect, p))
        loop_post(p->group->loop, &p->task); /* the loop has others to serve meanwhile */
    else
        store_on_keeper(p->d->st, collected_on_keeper, p->d);
}

/* --- 1: which extents --- */

/* A round takes extents that put nothing into open segments, or exactly one that did. */
static unsigned round_extents(struct destage *d)
{
    unsigned n = 0;

    if (d->n_extents > 0 && d->extents[0]->n_direct > 0)
        return 1;
    while (n < d->n_extents && d->extents[n]->n_direct == 0)
        n++;
    return n;
}

void destage_consider(struct store *st, bool anything)
{
    struct destage *d = st->destage;
    struct wal_live live;
    uint64_t closed;
    unsigned want, max;

    if (d->running || atomic_load(&st->failed) || atomic_load(&st->closing))
        return;
    live = wal_live(&st->wal);
    closed = live.closed_bytes + live.closed_direct;
    want = closed > st->conf.wal_budget
               ? (unsigned)((closed - st->conf.wal_budget + st->conf.wal_budget / ROUND_PART) >>
                            st->wal_log2) +
                     1
               : 0;
    if (anything && want == 0 && closed > 0)
        want = ROUND_EXTENTS;
    if (want == 0)
        return;
    max = ROUND_BYTES >> st->wal_log2;
    max = max < 1 ? 1 : max > ROUND_EXTENTS ? ROUND_EXTENTS : max;
    d->n_extents = wal_oldest(&st->wal, d->extents, want < max ? want : max);
    d->n_extents = round_extents(d);
    if (d->n_extents == 0)
        return;
    d->running = true;
    d->began_us = loop_now_us(st->keeper);
    d->end_lsn = d->extents[d->n_extents - 1]->end_lsn;
    LOG_DEBUG("destage.begin", F_LSN(d->end_lsn));
    d->parts = mem_new(st->n_groups * sizeof *d->parts);
    d->waiting = st->n_groups;
    for (unsigned i = 0; i < st->n_groups; i++) {
        struct destage_part *p = &d->parts[i];

        p->d = d;
        p->group = st->groups[i];
        p->task.run = collect_home;
        p->walk.end_lsn = d->end_lsn;
        loop_post(p->group->loop, &p->task);
    }
}
