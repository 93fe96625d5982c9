#include "journal/destage.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "format/block.h"
#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/compact.h"
#include "journal/group.h"
#include "journal/retention.h"
#include "journal/segwrite.h"
#include "journal/shard.h"
#include "journal/stats.h"

enum {
    ROUND_EXTENTS = 16,
    ROUND_BYTES = 32 << 20, /* of WAL; the round needs twice that in memory */
    /* A round that begins takes this part of the budget. Over many shards each extent more makes runs
     * longer, and so the rows fewer, of which there is one for a run, and one for each shard. */
    ROUND_PART = 4,
    READ_PIECE = 1 << 20
};

/* One run in the WAL, or a direct batch, that is to go into a segment. */
struct destage_entry {
    uint64_t shard;
    struct index_entry
        entry; /* its direct is not NULL where direct holds, and is not to be followed */
    struct index_direct direct;
    uint32_t piece; /* of its part */
};

struct lsn_range {
    uint64_t start, end;
};

struct lost_range {
    uint64_t shard, start, end;
};

/* What of a part lies between two ends of segments, or the ends of the round: one segment is written
 * of it, a piece of the log's (format/frame.h). */
struct destage_piece {
    uint64_t first_entry, last_entry;
    uint64_t segment_first;
    bool ends;        /* its segment */
    uint64_t end_lsn; /* its batches are below */
    /* made by the pool */
    uint32_t from, n; /* of the part's list */
    uint64_t segment;
    struct segwrite out;
    uint64_t open; /* the open segment of its direct batches; 0: none, or several */
    bool seals;    /* it becomes the piece's segment */
    bool in_table; /* as such, already */
};

/* One group's part of a round. */
struct destage_part {
    struct task task;
    struct destage *d;
    struct jrn_group *group;
    struct destage_entry *list;
    uint32_t n, cap;
    struct rows_batch rows; /* ends and producers of its dirty shards */
    struct destage_piece *pieces;
    unsigned n_pieces;
    /* made by the pool */
    struct lost_range *lost;
    unsigned n_lost;
};

struct destage {
    struct store *st;
    bool running;
    uint64_t began_us;
    struct wal_extent *extents[ROUND_EXTENTS];
    unsigned n_extents;
    uint64_t end_lsn;
    struct destage_part *parts; /* one a group */
    unsigned waiting;
    struct work work;
    struct buf *wal[ROUND_EXTENTS];
    struct lsn_range *whole; /* blocks of an extent with direct batches, in order */
    unsigned n_whole;
    int rc;
    struct rows_work rows_work;
    struct super super; /* as it will be */
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

/* Lets go of entries below the checkpoint; shards with nothing left to write are no longer dirty. One
 * whose entries a trim has taken since may still have an end and producers that rows do not know. */
static void drop_home(struct task *t)
{
    struct destage_part *p = (struct destage_part *)t;
    struct jrn_group *g = p->group;
    struct shard *list = dirty_take(&g->dirty, p->d->end_lsn);

    while (list) {
        struct shard *s = list;

        list = s->dirty_next;
        index_drop_lsn(&s->index, p->d->end_lsn);
        s->rows_end = s->saved_end;
        if (index_count(&s->index) > 0 || s->next != atomic_load(&s->end) ||
            s->saved_end != s->next) {
            dirty_add(&g->dirty, s);
            continue;
        }
        s->dirty = false;
        shard_unref(s);
    }
    store_on_keeper(p->d->st, dropped_on_keeper, p->d);
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
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    if (n->out.row.n_extents == 0)
        return;
    rows_batch_put(rows, key, row_key(key, ROW_SEGMENT, n->segment), value,
                   row_segment_write(&n->out.row, value));
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

/* --- 3: reading, checking, writing; on a pool thread --- */

static int extent_read(struct destage *d, unsigned i)
{
    struct wal_extent *x = d->extents[i];
    uint64_t bytes = x->end_lsn - x->first_lsn, pos;
    struct dev_file *file = wal_at(&d->st->wal, x, x->first_lsn, &pos);
    int rc = file ? 0 : E_IO;

    if (bytes == 0)
        return 0;
    d->wal[i] = buf_new_aligned(bytes);
    if (!d->wal[i])
        return E_NOMEM;
    for (uint64_t at = 0; rc >= 0 && at < bytes; at += READ_PIECE) {
        uint64_t n = bytes - at < READ_PIECE ? bytes - at : READ_PIECE;

        rc = dev_read(d->st->dev, file, pos + at, d->wal[i]->mem + at, (uint32_t)n);
    }
    d->wal[i]->len = (uint32_t)bytes;
    return rc;
}

/* Notes the blocks of the first extent that are whole: what they say of direct batches can be used. */
static void blocks_look(struct destage *d)
{
    const struct wal_extent *x = d->extents[0];
    uint64_t at = x->first_lsn;

    while (at < x->end_lsn) {
        const uint8_t *mem = d->wal[0]->mem + (at - x->first_lsn);
        struct block_head h;

        if (block_head_read(&h, &d->st->super.store, x->incarnation, x->salt, mem,
                            x->end_lsn - at) < 0 ||
            h.lsn != at || block_body_check(&h, mem) < 0) {
            at += PAGE_BYTES;
            continue;
        }
        d->whole = mem_grow(d->whole, (d->n_whole + 1) * sizeof *d->whole);
        d->whole[d->n_whole++] = (struct lsn_range){ at, at + h.block_bytes };
        at += h.block_bytes;
    }
}

static bool block_is_whole(const struct destage *d, uint64_t lsn)
{
    unsigned low = 0, high = d->n_whole;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (d->whole[mid].end <= lsn)
            low = mid + 1;
        else
            high = mid;
    }
    return low < d->n_whole && d->whole[low].start <= lsn;
}

static const uint8_t *wal_bytes(const struct destage *d, uint64_t lsn)
{
    for (unsigned i = 0; i < d->n_extents; i++)
        if (d->wal[i] && lsn >= d->extents[i]->first_lsn && lsn < d->extents[i]->end_lsn)
            return d->wal[i]->mem + (lsn - d->extents[i]->first_lsn);
    return NULL;
}

static int by_shard_offset(const void *a, const void *b)
{
    const struct destage_entry *x = a, *y = b;

    if (x->piece != y->piece)
        return x->piece < y->piece ? -1 : 1;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return x->entry.base < y->entry.base ? -1 : x->entry.base > y->entry.base;
}

static void lost_add(struct destage_part *p, uint64_t shard, uint64_t start, uint64_t end)
{
    p->lost = mem_grow(p->lost, (p->n_lost + 1) * sizeof *p->lost);
    p->lost[p->n_lost++] = (struct lost_range){ shard, start, end };
}

/* Copies one run's batches to their places. One that is not what was written is lost as a whole: its
 * batches may be sound, and another's. */
static void entry_add(struct destage *d, struct destage_part *p, struct destage_piece *to,
                      const struct destage_entry *n)
{
    const uint8_t *mem = wal_bytes(d, n->entry.lsn);
    uint64_t at = 0, next = n->entry.base, end = n->entry.base + n->entry.n_offsets;

#ifndef WEIR_MUTANT_STRANGE_DESTAGED
    if (mem && sum_xxh3(mem, n->entry.bytes, 0) != n->entry.xxh3)
        mem = NULL;
#endif
    while (mem && at < n->entry.bytes) {
        struct batch_head h;

        if (batch_check(&h, mem + at, n->entry.bytes - at) < 0 || (uint64_t)h.base_offset != next ||
            h.last_offset_delta < 0)
            break;
        segwrite_add(&to->out, n->shard, &h, mem + at);
        at += h.bytes;
        next += (uint64_t)h.last_offset_delta + 1;
    }
    if (next < end)
        lost_add(p, n->shard, next, end);
}

/* The header of a direct batch: from the WAL, if what says so there is sound; else from the batch. */
static int direct_head(struct destage *d, struct segment *seg, const struct destage_entry *n,
                       struct batch_head *h)
{
    const uint8_t *mem = wal_bytes(d, n->entry.lsn);
    struct buf *buf;
    uint32_t at;
    int rc;

    if (mem && block_is_whole(d, n->entry.lsn))
        return batch_head_read(h, mem, n->entry.bytes);
    rc = segment_read(&d->st->segments, seg, n->direct.pos, n->entry.bytes, &buf, &at);
    if (rc >= 0) {
        rc = batch_check(h, buf->mem + at, n->entry.bytes);
        buf_unref(buf);
    }
    return rc;
}

/* Names a direct batch, which stays where it is. */
static int direct_name(struct destage *d, struct destage_part *p, struct destage_piece *to,
                       struct segment *seg, const struct destage_entry *n)
{
    struct batch_head h;
    int rc = direct_head(d, seg, n, &h);

    if (rc < 0 && rc != E_CORRUPT && rc != E_UNSUPPORTED)
        return rc;
    if (rc < 0 || h.bytes != n->entry.bytes || (uint64_t)h.base_offset != n->entry.base ||
        (uint64_t)h.last_offset_delta + 1 != n->entry.n_offsets)
        lost_add(p, n->shard, n->entry.base, n->entry.base + n->entry.n_offsets);
    else
        segwrite_add_direct(&to->out, n->shard, &h, n->direct.pos, n->direct.xxh3);
    return 0;
}

/* Copies a direct batch out of an open segment that cannot be sealed. */
static int direct_copy(struct destage *d, struct destage_part *p, struct destage_piece *to,
                       const struct destage_entry *n)
{
    struct segments *t = &d->st->segments;
    struct segment *seg = segment_pin(t, n->direct.segment);
    struct batch_head h;
    struct buf *buf;
    uint32_t at;
    int rc;

    if (!seg)
        return E_CORRUPT; /* our own books are wrong */
    rc = segment_read(t, seg, n->direct.pos, n->entry.bytes, &buf, &at);
    segment_unpin(t, seg);
    if (rc < 0 && rc != E_CORRUPT)
        return rc;
    if (rc >= 0 && batch_check(&h, buf->mem + at, n->entry.bytes) >= 0 &&
        h.bytes == n->entry.bytes && (uint64_t)h.base_offset == n->entry.base)
        segwrite_add(&to->out, n->shard, &h, buf->mem + at);
    else
        lost_add(p, n->shard, n->entry.base, n->entry.base + n->entry.n_offsets);
    if (rc >= 0)
        buf_unref(buf);
    return 0;
}

/* Rot in the WAL may have taken what said where an extent of it is: then it is not sealed, but copied.
 */
static bool can_seal(const struct segment *seg)
{
    for (unsigned i = 0; i < seg->row.n_extents; i++)
        if (seg->row.extents[i].place == PLACE_NONE)
            return false;
    return true;
}

/* What the segment must hold in memory. */
static uint64_t piece_bytes(const struct destage_part *p, const struct destage_piece *to)
{
    uint64_t bytes = 0;

    for (uint32_t i = to->from; i < to->from + to->n; i++)
        if (!p->list[i].entry.direct || !to->seals)
            bytes += p->list[i].entry.bytes + SEG_RUN_HEAD_BYTES;
    return bytes;
}

static int piece_entries(struct destage *d, struct destage_part *p, struct destage_piece *to,
                         struct segment *seg)
{
    int rc = 0;

    for (uint32_t i = to->from; rc >= 0 && i < to->from + to->n; i++) {
        const struct destage_entry *n = &p->list[i];

        if (!n->entry.direct)
            entry_add(d, p, to, n);
        else
            rc = to->seals ? direct_name(d, p, to, seg, n) : direct_copy(d, p, to, n);
    }
    return rc;
}

static int piece_run(struct destage *d, struct destage_part *p, struct destage_piece *to)
{
    struct segment *seg = NULL;
    int rc;

    if (to->n == 0)
        return 0;
    if (to->open) {
        seg = segment_pin(&d->st->segments, to->open);
        if (!seg)
            return E_CORRUPT; /* our own books are wrong */
        to->seals = can_seal(seg);
        if (to->seals)
            to->segment = to->open;
    }
    rc = segwrite_open(&to->out, d->st, p->group->id, to->segment, piece_bytes(p, to));
    to->out.row.segment_first = to->segment_first;
    to->out.row.flags = to->ends && to->segment_first ? SEG_ENDS : 0;
    if (rc >= 0 && to->seals)
        segwrite_begin_open(&to->out, seg->row.extents, seg->row.n_extents, seg->row.data_bytes);
    if (rc >= 0)
        rc = piece_entries(d, p, to, seg);
    if (rc >= 0 && to->out.builder.n_batches > 0)
        rc = segwrite_finish(&to->out, to->first_entry, to->last_entry);
    if (rc >= 0 && to->seals && to->out.builder.n_batches == 0) {
        to->seals = false; /* all of it is lost: nothing is sealed */
        to->out.row.n_extents = 0;
    }
    if (seg)
        segment_unpin(&d->st->segments, seg);
    return rc;
}

/* The piece that holds what lies at lsn. */
static uint32_t piece_at(const struct destage_part *p, uint64_t lsn)
{
    uint32_t low = 0, high = p->n_pieces - 1;

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (p->pieces[mid].end_lsn <= lsn)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* An open segment becomes the piece's whose direct batches it has. Should it have those of another,
 * too, or they be in several, nothing is sealed: they are copied. */
static void piece_open(struct destage_part *p, struct destage_piece *to)
{
    uint32_t n_direct = 0;

    for (uint32_t i = to->from; i < to->from + to->n; i++) {
        const struct destage_entry *n = &p->list[i];

        if (!n->entry.direct)
            continue;
        if (n_direct++ == 0)
            to->open = n->direct.segment;
        else if (to->open != n->direct.segment)
            to->open = 0;
    }
    for (const struct destage_piece *k = p->pieces; to->open && k < to; k++)
        if (k->open == to->open)
            to->open = 0;
}

static int part_run(struct destage *d, struct destage_part *p)
{
    int rc = 0;

    for (uint32_t i = 0; i < p->n; i++) {
        p->list[i].piece = piece_at(p, p->list[i].entry.lsn);
        p->pieces[p->list[i].piece].n++;
    }
    if (p->n > 0)
        qsort(p->list, p->n, sizeof *p->list, by_shard_offset);
    for (unsigned k = 0; rc >= 0 && k < p->n_pieces; k++) {
        struct destage_piece *to = &p->pieces[k];

        to->from = k > 0 ? to[-1].from + to[-1].n : 0;
        piece_open(p, to);
        rc = piece_run(d, p, to);
    }
    return rc;
}

static void pool_run(struct work *w)
{
    struct destage *d = (struct destage *)((char *)w - offsetof(struct destage, work));

    d->rc = 0;
    for (unsigned i = 0; d->rc >= 0 && i < d->n_extents; i++)
        d->rc = extent_read(d, i);
    if (d->rc >= 0 && d->extents[0]->n_direct > 0)
        blocks_look(d);
    for (unsigned i = 0; d->rc >= 0 && i < d->st->n_groups; i++)
        d->rc = part_run(d, &d->parts[i]);
}

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
    d->work = (struct work){ .run = pool_run, .done = pool_done, .loop = st->keeper };
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

    dirty_each(&p->group->dirty, p->d->end_lsn, shard_collect, p);
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
        loop_post(p->group->loop, &p->task);
    }
}
