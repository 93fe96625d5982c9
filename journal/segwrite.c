#include "journal/segwrite.h"

#include <stdlib.h>
#include <string.h>

#include "format/batch.h"

enum { WRITE_PIECE = 1 << 20 };

int segwrite_open(struct segwrite *w, struct store *st, uint64_t group, uint64_t segment,
                  uint64_t max_bytes)
{
    *w = (struct segwrite){ .st = st, .group = group, .segment = segment };
    w->identity = sum128_new();
    /* Room for the index behind it, as a rule; segwrite_finish copes when there is less. */
    w->data = buf_new_aligned(max_bytes + max_bytes / 32 + UNIT_BYTES);
    return w->data ? 0 : E_NOMEM;
}

void segwrite_begin_open(struct segwrite *w, const struct seg_extent *extents, unsigned n_extents,
                         uint64_t direct_bytes)
{
    memcpy(w->row.extents, extents, n_extents * sizeof *extents);
    w->row.n_extents = (uint16_t)n_extents;
    w->n_open = n_extents;
    w->direct_bytes = direct_bytes;
    w->start = w->base = (direct_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    w->builder.pos = w->start;
}

static void identity_add(struct segwrite *w, uint64_t shard, uint64_t xxh3)
{
    uint64_t pair[2] = { htole64(shard), htole64(xxh3) };

    sum128_add(w->identity, pair, sizeof pair);
}

void segwrite_add_direct(struct segwrite *w, uint64_t shard, const struct batch_head *h,
                         uint64_t pos, uint64_t xxh3)
{
    ASSERT(pos + h->bytes <= w->direct_bytes);
    seg_builder_add_direct(&w->builder, shard, h, pos, xxh3);
    identity_add(w, shard, xxh3);
}

/* Takes extents until row has room for `bytes` of pages, the footer's included: as large as fit, down to
 * a unit when space is scattered. */
static int extents_take(struct store *st, uint64_t bytes, struct row_segment *row)
{
    uint32_t log2 = st->wal_log2;

    for (unsigned i = 0; i < row->n_extents; i++) {
        uint64_t room = seg_extent_room(row->extents[i].log2);

        bytes -= bytes < room ? bytes : room;
    }
    while (bytes > 0) {
        uint64_t place;

        while (log2 > UNIT_LOG2 && seg_extent_room(log2 - 1) >= bytes)
            log2--;
        if (log2 > UNIT_LOG2 && seg_extent_room(log2) > bytes + bytes / 4)
            log2--;
        while (slabs_take(&st->slabs, log2, &place) < 0)
            if (log2-- == UNIT_LOG2)
                return E_NOSPACE;
        if (row->n_extents == SEG_MAX_EXTENTS) {
            slabs_give(&st->slabs, place, log2);
            return E_NOSPACE;
        }
        row->extents[row->n_extents++] = (struct seg_extent){ place, log2 };
        bytes -= bytes < seg_extent_room(log2) ? bytes : seg_extent_room(log2);
    }
    return 0;
}

static int put(const struct segwrite *w, const struct seg_extent *x, uint64_t at,
               const uint8_t *mem, uint32_t bytes)
{
    struct store *st = w->st;

    atomic_fetch_add(w->copy ? &st->bytes.rewrite : &st->bytes.destage, bytes);
    return dev_write(st->dev, slabs_file(&st->slabs, x->place, x->log2), place_pos(x->place) + at,
                     mem, bytes);
}

static int head_write(const struct segwrite *w, unsigned i, uint64_t pos, uint8_t *page)
{
    const struct seg_extent *x = &w->row.extents[i];
    struct extent_head h = { .kind = EXTENT_SEGMENT,
                             .store = w->st->super.store,
                             .place = x->place,
                             .log2 = x->log2,
                             .group = w->group,
                             .segment = w->segment,
                             .index = i,
                             .n_extents = w->row.n_extents,
                             .pos = pos };

    extent_head_write(&h, page);
    return put(w, x, 0, page, PAGE_BYTES);
}

/* What of data, which begins with byte base of the segment, lies in extent i, whose room begins with
 * byte pos. */
static int extent_write(const struct segwrite *w, unsigned i, uint64_t pos, const uint8_t *data,
                        uint64_t bytes)
{
    const struct seg_extent *x = &w->row.extents[i];
    uint64_t end = pos + seg_extent_room(x->log2), at = w->base > pos ? w->base : pos;
    int rc = 0;

    end = end < w->base + bytes ? end : w->base + bytes;
    while (rc >= 0 && at < end) {
        uint64_t n = end - at < WRITE_PIECE ? end - at : WRITE_PIECE;

        rc = put(w, x, PAGE_BYTES + (at - pos), data + (at - w->base), (uint32_t)n);
        at += n;
    }
    return rc;
}

/* Writes the whole pages in memory; the rest of the last one stays. No run goes on behind them. */
static void piece_write(struct segwrite *w)
{
    uint64_t used = w->builder.pos - w->base, bytes = used / PAGE_BYTES * PAGE_BYTES, pos = 0;
    struct buf *page = buf_new_aligned(PAGE_BYTES);

    seg_builder_finish(&w->builder, w->segment, w->base, w->data->mem);
    w->builder.cut = true;
    if (!page)
        w->rc = E_NOMEM;
    if (w->rc >= 0)
        w->rc = extents_take(w->st, w->base + bytes, &w->row);
    for (unsigned i = 0; w->rc >= 0 && i < w->row.n_extents; i++) {
        if (i == w->n_heads) {
            w->rc = head_write(w, i, pos, page->mem);
            w->n_heads++;
        }
        if (w->rc >= 0)
            w->rc = extent_write(w, i, pos, w->data->mem, bytes);
        pos += seg_extent_room(w->row.extents[i].log2);
    }
    memmove(w->data->mem, w->data->mem + bytes, used - bytes);
    w->base += bytes;
    buf_unref(page);
}

void segwrite_add(struct segwrite *w, uint64_t shard, const struct batch_head *h,
                  const uint8_t *mem)
{
    uint64_t at;

    if (w->in_pieces && w->builder.pos + SEG_RUN_HEAD_BYTES + h->bytes - w->base > w->data->cap)
        piece_write(w);
    at = seg_builder_add(&w->builder, shard, h) - w->base;
    ASSERT(at + h->bytes <= w->data->cap);
    memcpy(w->data->mem + at, mem, h->bytes);
    identity_add(w, shard, sum_xxh3(mem, h->bytes, 0));
}

static void footer_make(const struct segwrite *w, uint8_t *page)
{
    struct seg_footer f = { .store = w->st->super.store,
                            .group = w->group,
                            .segment = w->segment,
                            .first_entry = w->row.first_entry,
                            .last_entry = w->row.last_entry,
                            .data_bytes = w->row.data_bytes,
                            .index_pos = w->row.index_pos,
                            .index_bytes = w->row.index_bytes,
                            .n_batches = w->row.n_batches,
                            .n_offsets = w->builder.n_offsets,
                            .min_ts = w->row.min_ts,
                            .max_ts = w->row.max_ts,
                            .identity = w->row.identity,
                            .created = w->row.created,
                            .n_extents = w->row.n_extents,
                            .direct_bytes = w->row.direct_bytes,
                            .sorted_pos = w->row.sorted_pos,
                            .segment_first = w->row.segment_first,
                            .flags = w->row.flags };

    memcpy(f.extents, w->row.extents, w->row.n_extents * sizeof f.extents[0]);
    seg_footer_write(&f, page);
}

/* One flush for each slab file that the segment touches. */
static int segment_sync(struct store *st, const struct row_segment *row)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < row->n_extents; i++) {
        uint32_t slab = place_slab(row->extents[i].place);
        bool seen = false;

        for (unsigned k = 0; k < i; k++)
            seen = seen || place_slab(row->extents[k].place) == slab;
        if (!seen)
            rc = dev_sync(st->dev,
                          slabs_file(&st->slabs, row->extents[i].place, row->extents[i].log2));
    }
    return rc;
}

/* data: what lies from w->base on, whole pages. */
static int segment_write(struct segwrite *w, const uint8_t *data, uint64_t bytes)
{
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    const struct seg_extent *last;
    uint64_t pos = 0;
    int rc = page ? extents_take(w->st, w->base + bytes + PAGE_BYTES, &w->row) : E_NOMEM;

    for (unsigned i = 0; rc >= 0 && i < w->row.n_extents; i++) {
        if (i >= w->n_open)
            rc = head_write(w, i, pos, page->mem);
        if (rc >= 0)
            rc = extent_write(w, i, pos, data, bytes);
        pos += seg_extent_room(w->row.extents[i].log2);
    }
    if (rc >= 0) {
        last = &w->row.extents[w->row.n_extents - 1];
        footer_make(w, page->mem);
        rc = put(w, last, ((uint64_t)1 << last->log2) - PAGE_BYTES, page->mem, PAGE_BYTES);
    }
    if (rc >= 0)
        rc = segment_sync(w->st, &w->row);
    buf_unref(page);
    return rc;
}

int segwrite_finish(struct segwrite *w, uint64_t first_entry, uint64_t last_entry)
{
    struct seg_builder *b = &w->builder;
    uint64_t bytes = b->pos - w->base, pages = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    size_t index_bytes = seg_index_bytes(b->index.n_runs, b->index.n_sparse, b->index.n_producers);
    struct row_segment *row = &w->row;
    struct buf *all = w->data;
    int rc = w->rc;

    if (rc < 0)
        return rc;
    if (pages + index_bytes > w->data->cap) {
        all = buf_new_aligned(pages + index_bytes);
        if (!all)
            return E_NOMEM;
    }
    seg_builder_finish(b, w->segment, w->base, w->data->mem);
    row->version = SEG_FOOTER_VERSION; /* in memory, too: the scrub holds the footer against it */
    row->group = w->group;
    row->first_entry = first_entry;
    row->last_entry = last_entry;
    row->data_bytes = b->pos;
    row->index_pos = w->base + pages;
    row->index_bytes = index_bytes;
    row->n_batches = b->n_batches;
    row->min_ts = b->min_ts;
    row->max_ts = b->max_ts;
    row->created = loop_wall_ms(w->st->keeper);
    row->identity = sum128_end(w->identity);
    w->identity = NULL;
    row->direct_bytes = w->direct_bytes;
    row->sorted_pos = w->start;
    if (all != w->data)
        memcpy(all->mem, w->data->mem, bytes);
    memset(all->mem + bytes, 0, pages - bytes);
    seg_index_write(&b->index, all->mem + pages);
    rc = segment_write(w, all->mem, pages + index_bytes);
    if (all != w->data)
        buf_unref(all);
    return rc;
}

void segwrite_origin_add(struct segwrite_origin *o, const struct row_segment *row)
{
    bool ends = row->flags & SEG_ENDS;

    o->several = o->several || (row->flags & SEG_SEVERAL) ||
                 (o->any && row->segment_first != o->segment_first);
    if (!o->any || row->segment_first < o->segment_first)
        o->segment_first = row->segment_first;
    if (!o->any || row->first_entry < o->first_entry)
        o->first_entry = row->first_entry;
    /* What compaction has made of some of them overlaps them: the last need not end last. */
    if (row->last_entry >= o->last_entry)
        o->ends = ends || (o->ends && row->last_entry == o->last_entry);
    if (row->last_entry > o->last_entry)
        o->last_entry = row->last_entry;
    o->any = true;
}

int segwrite_finish_of(struct segwrite *w, const struct segwrite_origin *o)
{
    w->row.segment_first = o->segment_first;
    w->row.flags = 0;
    if (o->segment_first)
        w->row.flags = (uint8_t)((o->several ? SEG_SEVERAL : 0) | (o->ends ? SEG_ENDS : 0));
    return segwrite_finish(w, o->first_entry, o->last_entry);
}

void segwrite_undo(struct segwrite *w)
{
    for (unsigned i = w->n_open; i < w->row.n_extents; i++)
        slabs_give(&w->st->slabs, w->row.extents[i].place, w->row.extents[i].log2);
    w->row.n_extents = 0;
}

void segwrite_close(struct segwrite *w)
{
    buf_unref(w->data);
    w->data = NULL;
    if (w->identity)
        sum128_end(w->identity);
    w->identity = NULL;
    seg_builder_free(&w->builder);
}

struct segment *segwrite_enter(const struct segwrite *w)
{
    struct segment *seg = segments_add(&w->st->segments, w->segment, &w->row);

    seg->live = seg_index_live(&w->builder.index);
    return seg;
}

void segwrite_refused(const struct segwrite *w, int rc)
{
    if ((rc == E_READONLY || rc == E_NOSPACE || rc == E_CLOSED) && w->row.n_extents > 0)
        segments_remove(&w->st->segments, w->segment, true);
}
