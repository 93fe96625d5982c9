#include "journal/destage.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/group.h"
#include "journal/shard.h"

enum { ROUND_EXTENTS = 2, WRITE_PIECE = 1 << 20, READ_PIECE = 1 << 20 };

/* One run in the WAL that is to go into a segment. */
struct destage_entry {
    uint64_t shard;
    struct index_entry entry;
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
    struct rows_batch rows; /* ends and producers of its dirty shards */
    /* made by the pool */
    uint64_t segment;
    struct row_segment row;
    struct seg_builder builder;
    struct lost_range *lost;
    unsigned n_lost;
};

struct destage {
    struct journal *j;
    bool running;
    struct wal_extent *extents[ROUND_EXTENTS];
    unsigned n_extents;
    uint64_t end_lsn;
    struct destage_part *parts; /* one a group */
    unsigned waiting;
    struct work work;
    struct buf *wal[ROUND_EXTENTS];
    int rc;
    struct rows_work rows_work;
    struct super super; /* as it will be */
};

struct destage *destage_new(struct journal *j)
{
    struct destage *d = mem_new(sizeof *d);

    d->j = j;
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
    for (unsigned i = 0; d->parts && i < d->j->n_groups; i++) {
        struct destage_part *p = &d->parts[i];

        free(p->list);
        free(p->lost);
        rows_batch_free(&p->rows);
        seg_builder_free(&p->builder);
    }
    free(d->parts);
    d->parts = NULL;
    d->running = false;
}

static void round_failed(struct destage *d, const char *step, int rc)
{
    LOG_WARN("destage.failed", F_STR("step", step), F_ERR(rc));
    if (rc == E_IO || rc == E_DEVICE)
        journal_fail(d->j, "destage.device", rc);
    round_clean(d);
}

/* --- 6: memory lets go, then the extents are free --- */

static void dropped_on_keeper(struct journal *j, void *arg)
{
    struct destage *d = arg;

    if (--d->waiting > 0)
        return;
    wal_passed(&j->wal, d->end_lsn);
    LOG_DEBUG("destage.done", F_LSN(d->end_lsn));
    round_clean(d);
    journal_space_check(j);
}

/* Lets go of entries below the checkpoint; shards with nothing left to write are no longer dirty. */
static void drop_home(struct task *t)
{
    struct destage_part *p = (struct destage_part *)t;
    struct jrn_group *g = p->group;
    struct shard **at = &g->dirty;

    while (*at) {
        struct shard *s = *at;

        index_drop_lsn(&s->index, p->d->end_lsn);
        if (index_count(&s->index) > 0 || s->next != atomic_load(&s->end)) {
            at = &s->dirty_next;
            continue;
        }
        *at = s->dirty_next;
        s->dirty = false;
        shard_unref(s);
    }
    journal_on_keeper(p->d->j, dropped_on_keeper, p->d);
}

static void checkpoint_done(struct rows_work *w)
{
    struct destage *d = (struct destage *)((char *)w - offsetof(struct destage, rows_work));
    struct journal *j = d->j;

    if (w->rc < 0) {
        round_failed(d, "checkpoint", w->rc);
        return;
    }
    /* J3: the checkpoint only moves forward. */
    ASSERT(d->super.ckpt_lsn >= j->super.ckpt_lsn);
    j->super = d->super;
    for (unsigned i = 0; i < j->n_groups; i++) {
        const struct wal_mark *m = mark_of(d, j->groups[i]->id);

        j->groups[i]->destaged_lsn = d->end_lsn;
        if (m) {
            j->groups[i]->destaged_entry = m->last_entry;
            j->groups[i]->destaged_hash = m->last_hash;
        }
    }
    d->waiting = j->n_groups;
    for (unsigned i = 0; i < j->n_groups; i++) {
        d->parts[i].task.run = drop_home;
        loop_post(j->groups[i]->loop, &d->parts[i].task);
    }
}

/* --- 5: rows are flushed with the new replay LSN, the superblock names it --- */

int super_store(struct dev *dev, struct dev_file *file, struct super *s)
{
    struct buf *b = buf_new_aligned(SUPER_BYTES);
    unsigned first;
    int rc = b ? 0 : E_NOMEM;

    s->generation++;
    first = (unsigned)(s->generation % 2) * 2;
    if (b)
        super_write(s, b->mem);
    for (unsigned i = 0; rc >= 0 && i < 2; i++)
        rc = dev_write(dev, file, (uint64_t)(first + i) * SUPER_BYTES, b->mem, SUPER_BYTES);
    if (rc >= 0)
        rc = dev_sync(dev, file);
    buf_unref(b);
    return rc;
}

static void checkpoint_run(struct rows_work *w)
{
    struct destage *d = (struct destage *)((char *)w - offsetof(struct destage, rows_work));
    struct rows_batch all = { 0 };

    for (unsigned i = 0; w->rc >= 0 && i < d->j->n_groups; i++)
        if (d->parts[i].rows.n > 0)
            w->rc = rows_write(d->j->rows, &d->parts[i].rows, 0);
    if (w->rc >= 0)
        w->rc = rows_write(d->j->rows, &all, d->end_lsn);
    if (w->rc >= 0)
        w->rc = rows_flush(d->j->rows);
    if (w->rc >= 0)
        w->rc = super_store(d->j->dev, d->j->super_file, &d->super);
}

/* Incarnations that live WAL still belongs to, with the place where each now begins. */
static void super_prune(struct destage *d)
{
    struct super *s = &d->super;
    uint32_t n = 0;

    *s = d->j->super;
    s->ckpt_lsn = d->end_lsn;
    s->catalogue_end = atomic_load(&d->j->catalogue_shard->end);
    for (uint32_t i = 0; i < s->n; i++) {
        struct super_incarnation x = s->list[i];

        if (x.end_lsn <= d->end_lsn)
            continue;
        x.place = wal_place_after(&d->j->wal, x.incarnation, d->end_lsn);
        s->list[n++] = x;
    }
    s->n = n;
}

static void checkpoint(struct destage *d)
{
    super_prune(d);
    d->rows_work = (struct rows_work){ .run = checkpoint_run, .done = checkpoint_done };
    journal_rows_do(d->j, &d->rows_work);
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

    if (!m)
        return;
    row.last_entry = m->last_entry;
    row.last_hash = m->last_hash;
    rows_batch_put(rows, key, row_key(key, ROW_GROUP, g->id), value,
                   row_group_write(&row, value));
}

/* What was found damaged: the holes, and the loss that keeps the group read-only. */
static void lost_rows(struct destage *d, struct destage_part *p, struct rows_batch *rows)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    struct row_loss loss = { .end_lsn = d->end_lsn };

    for (unsigned i = 0; i < p->n_lost; i++)
        rows_batch_put(rows, key, row_key2(key, ROW_HOLE, p->lost[i].shard, p->lost[i].start),
                       value, row_u64_write(p->lost[i].end, value));
    if (p->n_lost > 0)
        rows_batch_put(rows, key,
                       row_key2(key, ROW_LOSS, p->group->id, d->extents[0]->first_lsn), value,
                       row_loss_write(&loss, value));
}

static int seal_prepare(struct catalogue_update *u)
{
    struct destage *d = ((struct seal_update *)u)->d;
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    for (unsigned i = 0; i < d->j->n_groups; i++) {
        struct destage_part *p = &d->parts[i];

        group_row(d, p->group, &u->rows);
        lost_rows(d, p, &u->rows);
        if (p->row.n_extents == 0)
            continue;
        rows_batch_put(&u->rows, key, row_key(key, ROW_SEGMENT, p->segment), value,
                       row_segment_write(&p->row, value));
        segment_run_rows(p->segment, &p->builder.index, &u->rows);
    }
    return 0;
}

static void give_back(struct destage *d)
{
    for (unsigned i = 0; i < d->j->n_groups; i++) {
        struct row_segment *row = &d->parts[i].row;

        for (unsigned k = 0; k < row->n_extents; k++)
            slabs_give(&d->j->slabs, row->extents[k].place, row->extents[k].log2);
        row->n_extents = 0;
    }
}

/* Shards that were deleted or trimmed while the segment was made: what it holds of them is dead from the start. */
static void reap_late(struct destage *d, struct destage_part *p)
{
    uint64_t last = 0;

    for (uint32_t i = 0; i < p->builder.index.n_runs; i++) {
        uint64_t id = p->builder.index.runs[i].shard;
        struct shard *s;

        if (id == last)
            continue;
        last = id;
        s = shard_find(d->j, id);
        if (!s || atomic_load(&s->deleted))
            catalogue_reap(d->j, id, UINT64_MAX);
        else if (atomic_load(&s->start) > p->builder.index.runs[i].base)
            catalogue_reap(d->j, id, atomic_load(&s->start));
        shard_unref(s);
    }
}

static void sealed(struct catalogue_update *u)
{
    struct destage *d = ((struct seal_update *)u)->d;
    int rc = u->rc;

    free(u);
    if (rc < 0) {
        /* Whether the record is durable is unknown after a device failure: then the space stays taken. */
        if (rc != E_DEVICE)
            give_back(d);
        round_failed(d, "seal", rc);
        return;
    }
    for (unsigned i = 0; i < d->j->n_groups; i++) {
        struct destage_part *p = &d->parts[i];
        struct segment *seg;

        if (p->n_lost > 0) {
            atomic_store(&p->group->read_only, true);
            LOG_ERROR("wal.rot", F_INT("group", p->group->id), F_LSN(d->extents[0]->first_lsn),
                      F_INT("ranges", p->n_lost));
        }
        if (p->row.n_extents == 0)
            continue;
        seg = segments_add(&d->j->segments, p->segment, &p->row);
        seg->live = 0;
        for (uint32_t k = 0; k < p->builder.index.n_runs; k++)
            seg->live += p->builder.index.runs[k].bytes;
        LOG_INFO("segment.sealed", F_INT("segment", p->segment), F_INT("group", p->group->id),
                 F_INT("batches", p->row.n_batches), F_BYTES(p->row.data_bytes));
    }
    for (unsigned i = 0; i < d->j->n_groups; i++)
        reap_late(d, &d->parts[i]);
    checkpoint(d);
}

static void seal(struct destage *d)
{
    struct seal_update *u = mem_new(sizeof *u);

    u->d = d;
    u->u.prepare = seal_prepare;
    u->u.applied = sealed;
    catalogue_submit(d->j->catalogue, &u->u);
}

/* --- 3: reading, checking, writing; on a pool thread --- */

static int extent_read(struct destage *d, unsigned i)
{
    struct wal_extent *x = d->extents[i];
    uint64_t bytes = x->end_lsn - x->first_lsn, pos;
    struct dev_file *file = wal_at(&d->j->wal, x, x->first_lsn, &pos);
    int rc = file ? 0 : E_IO;

    if (bytes == 0)
        return 0;
    d->wal[i] = buf_new_aligned(bytes);
    if (!d->wal[i])
        return E_NOMEM;
    for (uint64_t at = 0; rc >= 0 && at < bytes; at += READ_PIECE) {
        uint64_t n = bytes - at < READ_PIECE ? bytes - at : READ_PIECE;

        rc = dev_read(d->j->dev, file, pos + at, d->wal[i]->mem + at, (uint32_t)n);
    }
    d->wal[i]->len = (uint32_t)bytes;
    return rc;
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

/* Copies one run's batches to their places; a damaged batch loses the rest of its run. */
static void entry_add(struct destage *d, struct destage_part *p, const struct destage_entry *n,
                      uint8_t *data)
{
    const uint8_t *mem = wal_bytes(d, n->entry.lsn);
    uint64_t at = 0, next = n->entry.base, end = n->entry.base + n->entry.n_offsets;

    while (mem && at < n->entry.bytes) {
        struct batch_head h;

        if (batch_check(&h, mem + at, n->entry.bytes - at) < 0 ||
            (uint64_t)h.base_offset != next || h.last_offset_delta < 0)
            break;
        memcpy(data + seg_builder_add(&p->builder, n->shard, &h), mem + at, h.bytes);
        at += h.bytes;
        next += (uint64_t)h.last_offset_delta + 1;
    }
    if (next < end)
        lost_add(p, n->shard, next, end);
}

static struct sum128 identity_of(const struct seg_builder *b, const uint8_t *data)
{
    struct sum128_state *sum = sum128_new();

    for (uint32_t i = 0; i < b->index.n_runs; i++) {
        const struct seg_run *n = &b->index.runs[i];
        uint64_t shard = htole64(n->shard), at = 0;

        while (at < n->bytes) {
            struct batch_head h;
            int rc = batch_head_read(&h, data + n->pos + at, n->bytes - at);

            ASSERT(rc >= 0);
            sum128_add(sum, &shard, sizeof shard);
            sum128_add(sum, data + n->pos + at, h.bytes);
            at += h.bytes;
        }
    }
    return sum128_end(sum);
}

/* Takes extents for `bytes` of pages, the footer's included: as large as fit, down to a unit when space is scattered. */
static int extents_take(struct journal *j, uint64_t bytes, struct row_segment *row)
{
    uint32_t log2 = j->wal_log2;

    row->n_extents = 0;
    while (bytes > 0) {
        uint64_t place;

        while (log2 > UNIT_LOG2 && seg_extent_room(log2 - 1) >= bytes)
            log2--;
        if (log2 > UNIT_LOG2 && seg_extent_room(log2) > bytes + bytes / 4)
            log2--;
        while (slabs_take(&j->slabs, log2, &place) < 0)
            if (log2-- == UNIT_LOG2)
                return E_NOSPACE;
        if (row->n_extents == SEG_MAX_EXTENTS) {
            slabs_give(&j->slabs, place, log2);
            return E_NOSPACE;
        }
        row->extents[row->n_extents++] = (struct seg_extent){ place, log2 };
        bytes -= bytes < seg_extent_room(log2) ? bytes : seg_extent_room(log2);
    }
    return 0;
}

static int extent_write(struct journal *j, const struct destage_part *p, unsigned i, uint64_t pos,
                        const uint8_t *mem, uint64_t bytes, uint8_t *page)
{
    const struct seg_extent *x = &p->row.extents[i];
    struct dev_file *file = slabs_file(&j->slabs, x->place, x->log2);
    struct extent_head h = { .kind = EXTENT_SEGMENT,
                             .store = j->super.store,
                             .place = x->place,
                             .log2 = x->log2,
                             .group = p->group->id,
                             .segment = p->segment,
                             .index = i,
                             .n_extents = p->row.n_extents,
                             .pos = pos };
    int rc;

    extent_head_write(&h, page);
    rc = dev_write(j->dev, file, place_pos(x->place), page, PAGE_BYTES);
    for (uint64_t at = 0; rc >= 0 && at < bytes; at += WRITE_PIECE) {
        uint64_t n = bytes - at < WRITE_PIECE ? bytes - at : WRITE_PIECE;

        rc = dev_write(j->dev, file, place_pos(x->place) + PAGE_BYTES + at, mem + at, (uint32_t)n);
    }
    return rc;
}

static void footer_make(struct journal *j, const struct destage_part *p, uint8_t *page)
{
    struct seg_footer f = { .store = j->super.store,
                            .group = p->group->id,
                            .segment = p->segment,
                            .first_entry = p->row.first_entry,
                            .last_entry = p->row.last_entry,
                            .data_bytes = p->row.data_bytes,
                            .index_pos = p->row.index_pos,
                            .index_bytes = p->row.index_bytes,
                            .n_batches = p->row.n_batches,
                            .n_offsets = p->builder.n_offsets,
                            .min_ts = p->row.min_ts,
                            .max_ts = p->row.max_ts,
                            .identity = p->row.identity,
                            .created = p->row.created,
                            .n_extents = p->row.n_extents };

    memcpy(f.extents, p->row.extents, p->row.n_extents * sizeof f.extents[0]);
    seg_footer_write(&f, page);
}

/* One flush for each slab file that the segment touches. */
static int segment_sync(struct journal *j, const struct row_segment *row)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < row->n_extents; i++) {
        uint32_t slab = place_slab(row->extents[i].place);
        bool seen = false;

        for (unsigned k = 0; k < i; k++)
            seen = seen || place_slab(row->extents[k].place) == slab;
        if (!seen)
            rc = dev_sync(j->dev, slabs_file(&j->slabs, row->extents[i].place,
                                             row->extents[i].log2));
    }
    return rc;
}

static int segment_write(struct journal *j, struct destage_part *p, const uint8_t *mem,
                         uint64_t bytes)
{
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    struct seg_extent *last;
    uint64_t pos = 0;
    int rc = page ? extents_take(j, bytes + PAGE_BYTES, &p->row) : E_NOMEM;

    for (unsigned i = 0; rc >= 0 && i < p->row.n_extents; i++) {
        uint64_t room = seg_extent_room(p->row.extents[i].log2), left = bytes - pos;
        uint64_t n = left < room ? left : room;

        rc = extent_write(j, p, i, pos, mem + pos, n, page->mem);
        pos += n;
    }
    if (rc >= 0) {
        last = &p->row.extents[p->row.n_extents - 1];
        footer_make(j, p, page->mem);
        rc = dev_write(j->dev, slabs_file(&j->slabs, last->place, last->log2),
                       place_pos(last->place) + ((uint64_t)1 << last->log2) - PAGE_BYTES,
                       page->mem, PAGE_BYTES);
    }
    if (rc >= 0)
        rc = segment_sync(j, &p->row);
    buf_unref(page);
    return rc;
}

static void row_fill(struct destage *d, struct destage_part *p)
{
    const struct wal_mark *m = mark_of(d, p->group->id);

    p->row.group = p->group->id;
    p->row.first_entry = p->group->destaged_entry + 1;
    p->row.last_entry = m ? m->last_entry : p->group->destaged_entry;
    p->row.n_batches = p->builder.n_batches;
    p->row.min_ts = p->builder.min_ts;
    p->row.max_ts = p->builder.max_ts;
    p->row.created = loop_wall_ms(d->j->keeper);
}

static int part_run(struct destage *d, struct destage_part *p)
{
    uint64_t bytes = 0, pages;
    struct buf *data, *all = NULL;
    size_t index_bytes;
    int rc = 0;

    if (p->n == 0)
        return 0;
    qsort(p->list, p->n, sizeof *p->list, by_shard_offset);
    for (uint32_t i = 0; i < p->n; i++)
        bytes += p->list[i].entry.bytes + SEG_RUN_HEAD_BYTES;
    data = buf_new_aligned(bytes);
    if (!data)
        return E_NOMEM;
    for (uint32_t i = 0; i < p->n; i++)
        entry_add(d, p, &p->list[i], data->mem);
    if (p->builder.n_batches > 0) {
        seg_builder_finish(&p->builder, p->segment, data->mem);
        row_fill(d, p);
        p->row.identity = identity_of(&p->builder, data->mem);
        p->row.data_bytes = p->builder.pos;
        pages = (p->builder.pos + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        index_bytes = seg_index_bytes(p->builder.index.n_runs, p->builder.index.n_sparse,
                                      p->builder.index.n_producers);
        p->row.index_pos = pages;
        p->row.index_bytes = index_bytes;
        all = buf_new_aligned(pages + index_bytes);
        rc = all ? 0 : E_NOMEM;
        if (all) {
            memcpy(all->mem, data->mem, p->builder.pos);
            memset(all->mem + p->builder.pos, 0, pages - p->builder.pos);
            seg_index_write(&p->builder.index, all->mem + pages);
            rc = segment_write(d->j, p, all->mem, pages + index_bytes);
        }
    }
    buf_unref(all);
    buf_unref(data);
    return rc;
}

static void pool_run(struct work *w)
{
    struct destage *d = (struct destage *)((char *)w - offsetof(struct destage, work));

    d->rc = 0;
    for (unsigned i = 0; d->rc >= 0 && i < d->n_extents; i++)
        d->rc = extent_read(d, i);
    for (unsigned i = 0; d->rc >= 0 && i < d->j->n_groups; i++)
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

static void collected_on_keeper(struct journal *j, void *arg)
{
    struct destage *d = arg;

    if (--d->waiting > 0)
        return;
    for (unsigned i = 0; i < j->n_groups; i++)
        d->parts[i].segment = j->start_no << 32 | ++j->segment_serial;
    d->work = (struct work){ .run = pool_run, .done = pool_done, .loop = j->keeper };
    pool_submit(j->env.pool, &d->work);
}

static void shard_collect(struct destage_part *p, struct shard *s)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    uint64_t end = atomic_load(&s->end);

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
        p->list[p->n++] = (struct destage_entry){ s->id, *n };
    }
    rows_batch_put(&p->rows, key, row_key(key, ROW_END, s->id), value, row_u64_write(end, value));
    producers_save(&s->producers, s->id, end, &p->rows);
}

static void collect_home(struct task *t)
{
    struct destage_part *p = (struct destage_part *)t;

    for (struct shard *s = p->group->dirty; s; s = s->dirty_next)
        shard_collect(p, s);
    journal_on_keeper(p->d->j, collected_on_keeper, p->d);
}

/* --- 1: which extents --- */

void destage_consider(struct journal *j, bool anything)
{
    struct destage *d = j->destage;
    uint64_t closed;
    unsigned live, want;

    if (d->running || atomic_load(&j->failed) || atomic_load(&j->closing))
        return;
    wal_live(&j->wal, &closed, &live);
    want = closed > j->conf.wal_budget
               ? (unsigned)((closed - j->conf.wal_budget) >> j->wal_log2) + 1
               : 0;
    if (anything && want == 0 && closed > 0)
        want = 1;
    if (want == 0)
        return;
    d->n_extents = wal_oldest(&j->wal, d->extents, want < ROUND_EXTENTS ? want : ROUND_EXTENTS);
    if (d->n_extents == 0)
        return;
    d->running = true;
    d->end_lsn = d->extents[d->n_extents - 1]->end_lsn;
    d->parts = mem_new(j->n_groups * sizeof *d->parts);
    d->waiting = j->n_groups;
    for (unsigned i = 0; i < j->n_groups; i++) {
        struct destage_part *p = &d->parts[i];

        p->d = d;
        p->group = j->groups[i];
        p->task.run = collect_home;
        loop_post(p->group->loop, &p->task);
    }
}
