#include "journal/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "format/extent.h"
#include "journal/catalogue.h"
#include "journal/group.h"
#include "journal/store.h"
#include "journal/inspect_int.h"
#include "journal/io/dev.h"
#include "journal/shard.h"

void inspect_place_set(struct inspect_place *at, uint64_t place, uint64_t pos)
{
    slab_name(at->file, sizeof at->file, place_slab(place), "");
    at->byte = place_pos(place) + pos;
}

bool inspect_moved(struct inspect *in)
{
    struct super now;

    return inspect_super_now(in->dev, &now, NULL) < 0 || now.ckpt_lsn != in->super.ckpt_lsn ||
           now.starts != in->super.starts;
}

void inspect_info(struct inspect *in, struct inspect_info *info)
{
    struct store *st = in->st;

    *info = (struct inspect_info){ .store = in->super.store,
                                   .generation = in->super.generation,
                                   .starts = in->super.starts,
                                   .created = in->super.created,
                                   .ckpt_lsn = in->super.ckpt_lsn,
                                   .end_lsn = in->end.lsn,
                                   .torn = in->end.torn,
                                   .wal_extent = (uint64_t)1 << st->wal_log2,
                                   .n_groups = st->n_groups,
                                   .n_slabs = st->slabs.n,
                                   .device = in->super.device,
                                   .n_devices = in->super.n_devices,
                                   .rows_lost = in->rows_lost };
    slabs_space(&st->slabs, &info->space, &info->space_free);
}

int inspect_rows(struct inspect *in, const void *prefix, size_t prefix_bytes,
                 int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                           size_t value_bytes),
                 void *ctx)
{
    return store_rows_scan(in->st, prefix, prefix_bytes, fn, ctx);
}

int inspect_rows_all(struct inspect *in,
                     int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                               size_t value_bytes),
                     void *ctx)
{
    return rows_scan(in->rows, "", 0, false, fn, ctx);
}

/* --- shards -------------------------------------------------------------------------------------
 * */

static int shard_at(struct inspect *in, uint64_t id, struct shard **out)
{
    int rc = 0;

    *out = shard_find(in->st, id);
    if (!*out) {
        rc = shard_load(in->st, id, out);
        if (rc < 0)
            *out = NULL;
    }
    return rc;
}

struct runs_walk {
    struct inspect *in;
    uint64_t shard;
    int (*fn)(void *ctx, const struct inspect_run *run);
    void *ctx;
    int rc;
};

/* Ends the scan with 1 and leaves fn's result in rc: a scan cannot tell them apart otherwise. */
static int run_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                   size_t value_bytes)
{
    struct runs_walk *w = ctx;
    struct row_run row;
    uint64_t base;

    if (!row_key_of(key, key_bytes, ROW_RUN, w->shard, &base))
        return 1;
    if (row_run_read(&row, value, value_bytes) < 0)
        return E_CORRUPT;
    w->rc = w->fn(w->ctx, &(struct inspect_run){ .base = base,
                                                 .end = row.end,
                                                 .segment = row.segment,
                                                 .pos = row.pos,
                                                 .bytes = row.bytes,
                                                 .max_ts = row.max_ts });
    return w->rc != 0;
}

int inspect_runs(struct inspect *in, uint64_t shard,
                 int (*fn)(void *ctx, const struct inspect_run *run), void *ctx)
{
    struct runs_walk w = { in, shard, fn, ctx, 0 };
    uint8_t key[ROW_KEY_MAX];
    struct shard *s = shard_find(in->st, shard);
    int rc = rows_scan(in->rows, key, row_key2(key, ROW_RUN, shard, 0), false, run_row, &w);

    rc = rc < 0 ? rc : w.rc;
    for (uint32_t i = 0; rc == 0 && s && i < index_count(&s->index); i++) {
        const struct index_entry *n = index_at(&s->index, i);

        rc = fn(ctx, &(struct inspect_run){ .base = n->base,
                                            .end = n->base + n->n_offsets,
                                            .lsn = n->lsn,
                                            .segment = n->direct ? n->direct->segment : 0,
                                            .pos = n->direct ? n->direct->pos : 0,
                                            .bytes = n->bytes,
                                            .max_ts = n->max_ts });
    }
    shard_unref(s);
    return rc;
}

/* Recovery notes a hole where it sees one; what it could not see (the end was known from a row
 * already) is a gap between runs all the same. So the gaps are what is told. */
struct holes_walk {
    uint64_t next, end;
    int (*fn)(void *ctx, uint64_t start, uint64_t end);
    void *ctx;
};

static int hole_before(void *ctx, const struct inspect_run *run)
{
    struct holes_walk *w = ctx;
    uint64_t start = w->next;

    if (run->end > w->next)
        w->next = run->end;
    return run->base > start ? w->fn(w->ctx, start, run->base) : 0;
}

static uint64_t start_of(const struct inspect *in, const struct shard *s)
{
    return s->id == SHARD_CATALOGUE ? in->super.catalogue_start : shard_start(s);
}

static int holes_of(struct inspect *in, const struct shard *s,
                    int (*fn)(void *ctx, uint64_t start, uint64_t end), void *ctx)
{
    struct holes_walk w = { start_of(in, s), shard_end(s), fn, ctx };
    int rc = inspect_runs(in, s->id, hole_before, &w);

    return rc == 0 && w.next < w.end ? fn(ctx, w.next, w.end) : rc;
}

int inspect_holes(struct inspect *in, uint64_t shard,
                  int (*fn)(void *ctx, uint64_t start, uint64_t end), void *ctx)
{
    struct shard *s;
    int rc = shard_at(in, shard, &s);

    if (rc >= 0)
        rc = holes_of(in, s, fn, ctx);
    shard_unref(s);
    return rc;
}

int inspect_producers(struct inspect *in, uint64_t shard,
                      int (*fn)(void *ctx, int64_t id, const struct row_producer *p), void *ctx)
{
    struct shard *s;
    struct row_producer p;
    uint64_t pos = 0, id;
    int rc = shard_at(in, shard, &s);

    if (rc < 0)
        return rc;
    while (rc == 0 && producers_next(&s->producers, UINT64_MAX, &pos, &id, &p))
        rc = fn(ctx, (int64_t)id, &p);
    shard_unref(s);
    return rc;
}

static int count_run(void *ctx, const struct inspect_run *run)
{
    struct inspect_shard *s = ctx;

    s->n_runs++;
    if (run->segment) {
        s->segment_bytes += run->bytes;
    } else {
        s->wal_bytes += run->bytes;
    }
    return 0;
}

static int count_hole(void *ctx, uint64_t start, uint64_t end)
{
    struct inspect_shard *s = ctx;

    s->n_holes++;
    s->lost += end - start;
    return 0;
}

struct distinct {
    uint64_t *list;
    uint32_t n;
};

static int note_segment(void *ctx, const struct inspect_run *run)
{
    struct distinct *d = ctx;

    for (uint32_t i = d->n; i-- > 0;)
        if (d->list[i] == run->segment)
            return 0;
    if (run->segment) {
        d->list = mem_grow(d->list, (d->n + 1) * sizeof *d->list);
        d->list[d->n++] = run->segment;
    }
    return 0;
}

static int shard_fill(struct inspect *in, const struct shard *s, struct inspect_shard *out)
{
    struct distinct d = { 0 };
    struct row_shard row = { 0 };
    struct row_cleaned cleaned = { 0 };
    int rc = catalogue_shard_row(s->st, s->id, &row);

    if (rc < 0 && rc != E_NOTFOUND)
        return rc;
    *out = (struct inspect_shard){
        .policy = row.policy,
        .id = s->id,
        .group = s->group->id,
        .kind = (uint8_t)s->kind,
        .class = (uint8_t)s->group->class,
        .created = s->created,
        .start = start_of(in, s),
        .end = shard_end(s),
        .catalogue = s->id == SHARD_CATALOGUE,
        .read_only = atomic_load(&s->group->read_only),
        .tail_lost = group_tail_loss(s->group, s) != NULL,
    };
    rc = inspect_runs(in, s->id, count_run, out);
    if (rc >= 0)
        rc = inspect_runs(in, s->id, note_segment, &d);
    if (rc >= 0)
        rc = catalogue_cleaned_row(in->st, s->id, &cleaned);
    out->cleaned = cleaned.cleaned;
    out->n_segments = d.n;
    free(d.list);
    return rc < 0 ? rc : holes_of(in, s, count_hole, out);
}

int inspect_shard(struct inspect *in, uint64_t id, struct inspect_shard *out)
{
    struct shard *s;
    int rc = shard_at(in, id, &s);

    if (rc >= 0)
        rc = shard_fill(in, s, out);
    shard_unref(s);
    return rc;
}

struct ids {
    uint64_t *list;
    size_t n, cap;
};

static void ids_add(struct ids *ids, uint64_t id)
{
    if (ids->n == ids->cap) {
        ids->cap = ids->cap ? ids->cap * 2 : 64;
        ids->list = mem_grow(ids->list, ids->cap * sizeof *ids->list);
    }
    ids->list[ids->n++] = id;
}

static int id_of_shard_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                           size_t value_bytes)
{
    uint64_t id;

    if (((const uint8_t *)key)[0] != ROW_SHARD || !row_key_parse(key, key_bytes, &id, NULL))
        return 1;
    ids_add(ctx, id);
    return 0;
}

int inspect_shards(struct inspect *in, int (*fn)(void *ctx, const struct inspect_shard *s),
                   void *ctx)
{
    uint8_t first = ROW_SHARD;
    struct ids ids = { 0 };
    int rc;

    ids_add(&ids, SHARD_CATALOGUE);
    rc = rows_scan(in->rows, &first, 1, false, id_of_shard_row, &ids);
    if (rc > 0)
        rc = 0;
    for (size_t i = 0; rc == 0 && i < ids.n; i++) {
        struct inspect_shard s;

        rc = inspect_shard(in, ids.list[i], &s);
        if (rc >= 0)
            rc = fn(ctx, &s);
    }
    free(ids.list);
    return rc;
}

/* --- batches ------------------------------------------------------------------------------------
 * */

/* Byte pos of a segment's bytes, as a place. */
static void segment_place(const struct row_segment *row, uint64_t pos, struct inspect_place *at)
{
    *at = (struct inspect_place){ 0 };
    for (unsigned i = 0; i < row->n_extents; i++) {
        uint64_t room = seg_extent_room(row->extents[i].log2);

        if (pos < room) {
            inspect_place_set(at, row->extents[i].place, PAGE_BYTES + pos);
            return;
        }
        pos -= room;
    }
}

struct run_bytes {
    struct buf *buf;
    const uint8_t *mem;
    struct segment *seg;       /* pinned, or */
    struct wal_extent *extent; /* pinned */
};

static int wal_run_read(struct inspect *in, const struct inspect_run *run, struct run_bytes *b)
{
    struct store *st = in->st;
    struct dev_file *file;
    uint64_t pos, start, end;
    int rc = wal_pin(&st->wal, run->lsn, run->bytes, &b->extent);

    if (rc < 0)
        return E_CORRUPT;
    file = wal_at(&st->wal, b->extent, run->lsn, &pos);
    start = pos / PAGE_BYTES * PAGE_BYTES;
    end = (pos + run->bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    b->buf = buf_new_aligned(end - start);
    if (!b->buf)
        return E_NOMEM;
    b->mem = b->buf->mem + (pos - start);
    return file ? dev_read(st->dev, file, start, b->buf->mem, (uint32_t)(end - start)) : E_CORRUPT;
}

static int run_read(struct inspect *in, const struct inspect_run *run, struct run_bytes *b)
{
    uint32_t at;
    int rc;

    if (!run->segment)
        return wal_run_read(in, run, b);
    b->seg = segment_pin(&in->st->segments, run->segment);
    if (!b->seg)
        return E_CORRUPT;
    rc = segment_read(&in->st->segments, b->seg, run->pos, run->bytes, &b->buf, &at);
    if (rc >= 0)
        b->mem = b->buf->mem + at;
    return rc;
}

static void run_release(struct inspect *in, struct run_bytes *b)
{
    buf_unref(b->buf);
    if (b->seg)
        segment_unpin(&in->st->segments, b->seg);
    if (b->extent)
        wal_unpin(&in->st->wal, b->extent);
}

static void batch_place(struct inspect *in, const struct run_bytes *b,
                        const struct inspect_run *run, uint64_t at, struct inspect_place *place)
{
    if (b->seg)
        segment_place(&b->seg->row, run->pos + at, place);
    else
        inspect_place_set(place, b->extent->place,
                          PAGE_BYTES + (run->lsn + at - b->extent->first_lsn));
}

int inspect_run_batches(struct inspect *in, uint64_t shard, const struct inspect_run *run,
                        int (*fn)(void *ctx, const struct inspect_batch *b), void *ctx)
{
    struct run_bytes mem = { 0 };
    uint64_t at = 0;
    int rc = run_read(in, run, &mem);

    while (rc == 0 && at < run->bytes) {
        struct inspect_batch b = { .shard = shard, .segment = run->segment, .mem = mem.mem + at };

        b.ok = batch_check(&b.head, mem.mem + at, run->bytes - at) >= 0;
        b.bytes = b.ok ? b.head.bytes : run->bytes - at;
        b.lsn = run->segment ? 0 : run->lsn + at;
        batch_place(in, &mem, run, at, &b.at);
        rc = fn(ctx, &b);
        at += b.bytes;
    }
    run_release(in, &mem);
    return rc;
}

/* --- segments -----------------------------------------------------------------------------------
 * */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

int inspect_segment(struct inspect *in, uint64_t id, struct inspect_segment *out)
{
    const struct segment *seg = hash_get(&in->st->segments.by_id, id);

    if (!seg || seg->open)
        return E_NOTFOUND;
    *out = (struct inspect_segment){ .id = id,
                                     .row = &seg->row,
                                     .space = segment_space(&seg->row),
                                     .live = seg->live == UINT64_MAX ? 0 : seg->live };
    return 0;
}

int inspect_segments(struct inspect *in, int (*fn)(void *ctx, const struct inspect_segment *s),
                     void *ctx)
{
    struct ids ids = { 0 };
    uint64_t pos = 0, id;
    void *value;
    int rc = 0;

    while (hash_next(&in->st->segments.by_id, &pos, &id, &value))
        if (!((const struct segment *)value)->open)
            ids_add(&ids, id);
    if (ids.n)
        qsort(ids.list, ids.n, sizeof *ids.list, by_number);
    for (size_t i = 0; rc == 0 && i < ids.n; i++) {
        struct inspect_segment s;

        rc = inspect_segment(in, ids.list[i], &s);
        if (rc >= 0)
            rc = fn(ctx, &s);
    }
    free(ids.list);
    return rc;
}

int inspect_logical(struct inspect *in, uint64_t group,
                    int (*fn)(void *ctx, const struct identity *x), void *ctx)
{
    return identity_each(in->st, group, 0, false, fn, ctx);
}

static int identity_take(void *ctx, const struct identity *x)
{
    *(struct identity *)ctx = *x;
    return 1;
}

int inspect_segment_identity(struct inspect *in, uint64_t group, uint64_t entry,
                             struct identity *out)
{
    int rc = entry ? identity_each(in->st, group, entry, true, identity_take, out) : 0;

    return rc == 0 ? E_NOTFOUND : rc < 0 ? rc : 0;
}

int inspect_footer(struct inspect *in, uint64_t id, struct seg_footer *out)
{
    const struct segment *seg = hash_get(&in->st->segments.by_id, id);
    const struct seg_extent *last;
    struct dev_file *file;
    struct buf *page;
    int rc;

    if (!seg || seg->row.n_extents == 0)
        return E_NOTFOUND;
    last = &seg->row.extents[seg->row.n_extents - 1];
    file = slabs_file(&in->st->slabs, last->place, last->log2);
    page = buf_new_aligned(PAGE_BYTES);
    if (!page)
        return E_NOMEM;
    rc = file ? dev_read(in->dev, file,
                         place_pos(last->place) + ((uint64_t)1 << last->log2) - PAGE_BYTES,
                         page->mem, PAGE_BYTES)
              : E_CORRUPT;
    if (rc >= 0)
        rc = seg_footer_read(out, page->mem);
    buf_unref(page);
    return rc < 0 ? rc : out->segment == id ? 0 : E_CORRUPT;
}

int inspect_index(struct inspect *in, uint64_t id, const struct seg_index **out)
{
    struct segment *seg = segment_pin(&in->st->segments, id); /* for the life of the view */

    return seg ? segment_index(&in->st->segments, seg, out) : E_NOTFOUND;
}

/* --- the live WAL -------------------------------------------------------------------------------
 * */

struct wal_walk {
    struct inspect *in;
    const struct inspect_wal *calls;
    void *ctx;
    uint64_t place, first_lsn;
    int rc; /* the caller's, that ended the walk */
};

/* A scan ends with an error only. */
static int walk_result(struct wal_walk *w, int rc)
{
    w->rc = rc;
    return rc ? E_CANCELLED : 0;
}

static int walk_extent(void *ctx, const struct walscan_extent *x)
{
    struct wal_walk *w = ctx;
    struct inspect_extent out = { .incarnation = x->incarnation,
                                  .first_lsn = x->first_lsn,
                                  .head_damaged = x->head_damaged };

    w->place = x->place;
    w->first_lsn = x->first_lsn;
    inspect_place_set(&out.at, x->place, 0);
    return w->calls->extent ? walk_result(w, w->calls->extent(w->ctx, &out)) : 0;
}

static void walk_place(const struct wal_walk *w, uint64_t lsn, struct inspect_place *at)
{
    uint64_t size = (uint64_t)1 << w->in->st->wal_log2;
    uint64_t pos = lsn > w->first_lsn ? lsn - w->first_lsn : 0;

    inspect_place_set(at, w->place, pos + PAGE_BYTES < size ? pos + PAGE_BYTES : size - PAGE_BYTES);
}

static int walk_block(void *ctx, const struct block_head *h, const uint8_t *mem, uint64_t pos)
{
    struct wal_walk *w = ctx;
    struct inspect_place at;

    walk_place(w, h->lsn, &at);
    return w->calls->block ? walk_result(w, w->calls->block(w->ctx, h, mem, &at)) : 0;
}

/* What the checkpoint has passed since may have been used anew: it is gone, not rotten. */
static int walk_rot(void *ctx, uint64_t lsn, uint64_t end_lsn, uint64_t place)
{
    struct wal_walk *w = ctx;
    struct inspect_place at = { 0 };
    struct super now;
    int rc;

    if (!w->calls->rot)
        return 0;
    rc = inspect_super_now(w->in->dev, &now, NULL);
    if (rc < 0 || now.ckpt_lsn > lsn || now.starts != w->in->super.starts)
        return rc < 0 ? rc : 0;
    if (w->place != PLACE_NONE)
        walk_place(w, lsn, &at);
    return walk_result(w, w->calls->rot(w->ctx, lsn, end_lsn, &at));
}

int inspect_wal(struct inspect *in, const struct inspect_wal *calls, void *ctx, struct err *e)
{
    static const struct walscan_calls scan = { walk_extent, NULL, walk_block, walk_rot };
    struct wal_walk w = { .in = in, .calls = calls, .ctx = ctx, .place = PLACE_NONE };
    struct walscan_end end;
    int rc = walscan_run(in->dev, &in->st->slabs, &in->super, &scan, &w, &end, e);

    return w.rc ? w.rc : rc;
}

int inspect_losses(struct inspect *in, int (*fn)(void *ctx, const struct inspect_loss *l),
                   void *ctx)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < in->st->n_groups; i++) {
        const struct jrn_group *g = in->st->groups[i];

        for (unsigned k = 0; rc == 0 && k < g->n_losses; k++)
            rc = fn(ctx, &(struct inspect_loss){ .group = g->id,
                                                 .lsn = g->losses[k].lsn,
                                                 .end_lsn = g->losses[k].end_lsn,
                                                 .accepted = g->losses[k].accepted });
    }
    return rc;
}
