#include "journal/destage.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "format/block.h"
#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/group.h"
#include "journal/retention.h"
#include "journal/segwrite.h"
#include "journal/shard.h"
#include "journal/stats.h"

enum {
    ROUND_EXTENTS = 8,
    ROUND_BYTES = 32 << 20, /* of WAL; the round needs twice that in memory */
    READ_PIECE = 1 << 20
};

/* One run in the WAL, or a direct batch, that is to go into a segment. */
struct destage_entry {
    uint64_t shard;
    struct index_entry
        entry; /* its direct is not NULL where direct holds, and is not to be followed */
    struct index_direct direct;
};

struct lsn_range {
    uint64_t start, end;
};

struct lost_range {
    uint64_t shard, start, end;
};

/* One group's part of a round. */
struct destage_part {
    struct task task;
    struct destage *d;
    struct jrn_group *group;
    struct destage_entry *list;
    uint32_t n, cap;
    uint32_t n_direct;      /* of them */
    struct rows_batch rows; /* ends and producers of its dirty shards */
    /* made by the pool */
    uint64_t segment;
    struct segwrite out;
    struct lost_range *lost;
    unsigned n_lost;
    uint64_t open; /* the open segment that the round ends; 0: none */
    bool seals;    /* it becomes the part's segment */
    bool in_table; /* as such, already */
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
        segwrite_close(&p->out);
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
    for (unsigned i = 0; i < st->n_groups; i++)
        if (d->parts[i].open && !d->parts[i].seals)
            segments_remove_open(&st->segments, d->parts[i].open);
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
    struct shard **at = &g->dirty;

    while (*at) {
        struct shard *s = *at;

        index_drop_lsn(&s->index, p->d->end_lsn);
        if (index_count(&s->index) > 0 || s->next != atomic_load(&s->end) ||
            s->saved_end != s->next) {
            at = &s->dirty_next;
            continue;
        }
        *at = s->dirty_next;
        s->dirty = false;
        shard_unref(s);
    }
    store_on_keeper(p->d->st, dropped_on_keeper, p->d);
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
    st->super = d->super;
    for (unsigned i = 0; i < st->n_groups; i++) {
        const struct wal_mark *m = mark_of(d, st->groups[i]->id);

        if (st->groups[i]->destaged_lsn >= d->end_lsn)
            continue;
        st->groups[i]->destaged_lsn = d->end_lsn;
        if (m) {
            st->groups[i]->destaged_entry = m->last_entry;
            st->groups[i]->destaged_hash = m->last_hash;
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
    struct rows_batch all = { 0 };

#ifdef WEIR_MUTANT_ENDS_APART
    for (unsigned i = 0; w->rc >= 0 && i < d->st->n_groups; i++)
        w->rc = rows_write(d->st->rows, &d->parts[i].rows, 0);
#endif
    /* Rows that a checkpoint left ahead of a superblock which then was not written, or was lost, stay ahead. */
    if (w->rc >= 0 && d->end_lsn > rows_replay_lsn(d->st->rows))
        w->rc = rows_write(d->st->rows, &all, d->end_lsn);
#ifdef WEIR_MUTANT_REPLAY_BACK
    if (w->rc >= 0 && d->super.generation % 3 == 0)
        w->rc = rows_write(d->st->rows, &all, LSN_FIRST);
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
    uint64_t live = 0;

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

        live += n->bytes;
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

static int seal_prepare(struct catalogue_update *u)
{
    struct destage *d = ((struct seal_update *)u)->d;
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    for (unsigned i = 0; i < d->st->n_groups; i++) {
        struct destage_part *p = &d->parts[i];

        group_row(d, p->group, &u->rows);
        lost_rows(d, p, &u->rows);
        /* In one write with what says that the round's batches are destaged: who finds that does not
         * read them in the WAL any more, and must know from here where their shards end. */
#ifndef WEIR_MUTANT_ENDS_APART
        rows_batch_append(&u->rows, &p->rows);
#endif
        if (p->out.row.n_extents == 0)
            continue;
        rows_batch_put(&u->rows, key, row_key(key, ROW_SEGMENT, p->segment), value,
                       row_segment_write(&p->out.row, value));
        segment_run_rows(p->segment, &p->out.builder.index, &u->rows);
        /* Known as sealed before the rows name it: a reader may follow them at once. */
        if (p->seals)
            segments_seal(&d->st->segments, p->segment, &p->out.row);
        p->in_table = p->seals;
    }
    return 0;
}

static void give_back(struct destage *d)
{
    for (unsigned i = 0; i < d->st->n_groups; i++) {
        struct destage_part *p = &d->parts[i];

        if (p->in_table)
            segments_unseal(&d->st->segments, p->segment, p->out.n_open);
        p->in_table = false;
        segwrite_undo(&p->out);
    }
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
        struct segment *seg;

        if (p->n_lost > 0) {
            atomic_store(&p->group->read_only, true);
            LOG_ERROR("wal.rot", F_INT("group", p->group->id), F_LSN(d->extents[0]->first_lsn),
                      F_INT("ranges", p->n_lost));
        }
        if (p->out.row.n_extents == 0)
            continue;
        seg = segments_add(&d->st->segments, p->segment, &p->out.row);
        seg->live = 0;
        for (uint32_t k = 0; k < p->out.builder.index.n_runs; k++)
            seg->live += p->out.builder.index.runs[k].bytes;
        seg->open = false;
        retention_sealed(d->st, seg);
        metric_add(&d->st->stats->destage_bytes, moved_bytes(&p->out));
        LOG_INFO("segment.sealed", F_INT("segment", p->segment), F_INT("group", p->group->id),
                 F_INT("batches", p->out.row.n_batches), F_BYTES(p->out.row.data_bytes));
    }
    for (unsigned i = 0; i < d->st->n_groups; i++)
        catalogue_reap_late(d->st, &d->parts[i].out.builder.index);
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
static void entry_add(struct destage *d, struct destage_part *p, const struct destage_entry *n)
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
        segwrite_add(&p->out, n->shard, &h, mem + at);
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
static int direct_name(struct destage *d, struct destage_part *p, struct segment *seg,
                       const struct destage_entry *n)
{
    struct batch_head h;
    int rc = direct_head(d, seg, n, &h);

    if (rc < 0 && rc != E_CORRUPT && rc != E_UNSUPPORTED)
        return rc;
    if (rc < 0 || h.bytes != n->entry.bytes || (uint64_t)h.base_offset != n->entry.base ||
        (uint64_t)h.last_offset_delta + 1 != n->entry.n_offsets)
        lost_add(p, n->shard, n->entry.base, n->entry.base + n->entry.n_offsets);
    else
        segwrite_add_direct(&p->out, n->shard, &h, n->direct.pos, n->direct.xxh3);
    return 0;
}

/* Copies a direct batch out of an open segment that cannot be sealed. */
static int direct_copy(struct destage *d, struct destage_part *p, struct segment *seg,
                       const struct destage_entry *n)
{
    struct batch_head h;
    struct buf *buf;
    uint32_t at;
    int rc = segment_read(&d->st->segments, seg, n->direct.pos, n->entry.bytes, &buf, &at);

    if (rc < 0 && rc != E_CORRUPT)
        return rc;
    if (rc >= 0 && batch_check(&h, buf->mem + at, n->entry.bytes) >= 0 &&
        h.bytes == n->entry.bytes && (uint64_t)h.base_offset == n->entry.base)
        segwrite_add(&p->out, n->shard, &h, buf->mem + at);
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
static uint64_t part_bytes(const struct destage_part *p)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < p->n; i++)
        if (!p->list[i].entry.direct || !p->seals)
            bytes += p->list[i].entry.bytes + SEG_RUN_HEAD_BYTES;
    return bytes;
}

static int part_entries(struct destage *d, struct destage_part *p, struct segment *seg)
{
    int rc = 0;

    for (uint32_t i = 0; rc >= 0 && i < p->n; i++) {
        const struct destage_entry *n = &p->list[i];

        if (!n->entry.direct)
            entry_add(d, p, n);
        else
            rc = p->seals ? direct_name(d, p, seg, n) : direct_copy(d, p, seg, n);
    }
    return rc;
}

static int part_run(struct destage *d, struct destage_part *p)
{
    const struct wal_mark *m = mark_of(d, p->group->id);
    struct segment *seg = NULL;
    int rc;

    if (p->n == 0)
        return 0;
    if (p->n_direct > 0) {
        seg = segment_pin(&d->st->segments, p->open);
        if (!seg)
            return E_CORRUPT; /* our own books are wrong */
        p->seals = can_seal(seg);
        if (p->seals)
            p->segment = p->open;
    }
    qsort(p->list, p->n, sizeof *p->list, by_shard_offset);
    rc = segwrite_open(&p->out, d->st, p->group->id, p->segment, part_bytes(p));
    if (rc >= 0 && p->seals)
        segwrite_begin_open(&p->out, seg->row.extents, seg->row.n_extents, seg->row.data_bytes);
    if (rc >= 0)
        rc = part_entries(d, p, seg);
    if (rc >= 0 && p->out.builder.n_batches > 0)
        rc = segwrite_finish(&p->out, p->group->destaged_entry + 1,
                             m ? m->last_entry : p->group->destaged_entry);
    if (rc >= 0 && p->seals && p->out.builder.n_batches == 0) {
        p->seals = false; /* all of it is lost: nothing is sealed */
        p->out.row.n_extents = 0;
    }
    if (seg)
        segment_unpin(&d->st->segments, seg);
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

static void collected_on_keeper(struct store *st, void *arg)
{
    struct destage *d = arg;

    if (--d->waiting > 0)
        return;
    for (unsigned i = 0; i < st->n_groups; i++)
        d->parts[i].segment = store_new_segment(st);
    d->work = (struct work){ .run = pool_run, .done = pool_done, .loop = st->keeper };
    pool_submit(st->env.pool, &d->work);
}

static void shard_collect(struct destage_part *p, struct shard *s)
{
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
        p->n_direct += n->direct != NULL;
        p->n++;
    }
    rows_batch_put(&p->rows, key, row_key(key, ROW_END, s->id), value, row_u64_write(end, value));
    producers_save(&s->producers, s->id, end, &p->rows);
}

static void collect_home(struct task *t)
{
    struct destage_part *p = (struct destage_part *)t;

    for (struct shard *s = p->group->dirty; s; s = s->dirty_next)
        shard_collect(p, s);
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
               ? (unsigned)((closed - st->conf.wal_budget) >> st->wal_log2) + 1
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
        for (unsigned k = 0; k < d->extents[0]->n_direct; k++)
            if (d->extents[0]->direct[k].group == p->group->id)
                p->open = d->extents[0]->direct[k].segment;
        p->task.run = collect_home;
        loop_post(p->group->loop, &p->task);
    }
}
