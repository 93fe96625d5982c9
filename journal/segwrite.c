#include "journal/segwrite.h"

#include <stdlib.h>
#include <string.h>

#include "format/batch.h"

enum { WRITE_PIECE = 1 << 20 };

int segwrite_open(struct segwrite *w, struct store *st, uint64_t group, uint64_t segment,
                  uint64_t max_bytes)
{
    *w = (struct segwrite){ .st = st, .group = group, .segment = segment };
    /* Room for the index behind it, as a rule; segwrite_finish copes when there is less. */
    w->data = buf_new_aligned(max_bytes + max_bytes / 32 + UNIT_BYTES);
    return w->data ? 0 : E_NOMEM;
}

void segwrite_add(struct segwrite *w, uint64_t shard, const struct batch_head *h,
                  const uint8_t *mem)
{
    uint64_t at = seg_builder_add(&w->builder, shard, h);

    ASSERT(at + h->bytes <= w->data->cap);
    memcpy(w->data->mem + at, mem, h->bytes);
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

/* Takes extents for `bytes` of pages, the footer's included: as large as fit, down to a unit when
 * space is scattered. */
static int extents_take(struct store *st, uint64_t bytes, struct row_segment *row)
{
    uint32_t log2 = st->wal_log2;

    row->n_extents = 0;
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

static int extent_write(struct store *st, const struct segwrite *w, unsigned i, uint64_t pos,
                        const uint8_t *mem, uint64_t bytes, uint8_t *page)
{
    const struct seg_extent *x = &w->row.extents[i];
    struct dev_file *file = slabs_file(&st->slabs, x->place, x->log2);
    struct extent_head h = { .kind = EXTENT_SEGMENT,
                             .store = st->super.store,
                             .place = x->place,
                             .log2 = x->log2,
                             .group = w->group,
                             .segment = w->segment,
                             .index = i,
                             .n_extents = w->row.n_extents,
                             .pos = pos };
    int rc;

    extent_head_write(&h, page);
    rc = dev_write(st->dev, file, place_pos(x->place), page, PAGE_BYTES);
    for (uint64_t at = 0; rc >= 0 && at < bytes; at += WRITE_PIECE) {
        uint64_t n = bytes - at < WRITE_PIECE ? bytes - at : WRITE_PIECE;

        rc = dev_write(st->dev, file, place_pos(x->place) + PAGE_BYTES + at, mem + at, (uint32_t)n);
    }
    return rc;
}

static void footer_make(struct store *st, const struct segwrite *w, uint8_t *page)
{
    struct seg_footer f = { .store = st->super.store,
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
                            .n_extents = w->row.n_extents };

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

static int segment_write(struct segwrite *w, const uint8_t *mem, uint64_t bytes)
{
    struct store *st = w->st;
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    struct seg_extent *last;
    uint64_t pos = 0;
    int rc = page ? extents_take(st, bytes + PAGE_BYTES, &w->row) : E_NOMEM;

    for (unsigned i = 0; rc >= 0 && i < w->row.n_extents; i++) {
        uint64_t room = seg_extent_room(w->row.extents[i].log2), left = bytes - pos;
        uint64_t n = left < room ? left : room;

        rc = extent_write(st, w, i, pos, mem + pos, n, page->mem);
        pos += n;
    }
    if (rc >= 0) {
        last = &w->row.extents[w->row.n_extents - 1];
        footer_make(st, w, page->mem);
        rc = dev_write(st->dev, slabs_file(&st->slabs, last->place, last->log2),
                       place_pos(last->place) + ((uint64_t)1 << last->log2) - PAGE_BYTES, page->mem,
                       PAGE_BYTES);
    }
    if (rc >= 0)
        rc = segment_sync(st, &w->row);
    buf_unref(page);
    return rc;
}

int segwrite_finish(struct segwrite *w, uint64_t first_entry, uint64_t last_entry)
{
    struct seg_builder *b = &w->builder;
    uint64_t pages = (b->pos + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    size_t index_bytes = seg_index_bytes(b->index.n_runs, b->index.n_sparse, b->index.n_producers);
    struct buf *all = w->data;
    int rc;

    if (pages + index_bytes > w->data->cap) {
        all = buf_new_aligned(pages + index_bytes);
        if (!all)
            return E_NOMEM;
    }
    seg_builder_finish(b, w->segment, w->data->mem);
    w->row = (struct row_segment){ .group = w->group,
                                   .first_entry = first_entry,
                                   .last_entry = last_entry,
                                   .data_bytes = b->pos,
                                   .index_pos = pages,
                                   .index_bytes = index_bytes,
                                   .n_batches = b->n_batches,
                                   .min_ts = b->min_ts,
                                   .max_ts = b->max_ts,
                                   .created = loop_wall_ms(w->st->keeper),
                                   .identity = identity_of(b, w->data->mem) };
    if (all != w->data)
        memcpy(all->mem, w->data->mem, b->pos);
    memset(all->mem + b->pos, 0, pages - b->pos);
    seg_index_write(&b->index, all->mem + pages);
    rc = segment_write(w, all->mem, pages + index_bytes);
    if (all != w->data)
        buf_unref(all);
    return rc;
}

void segwrite_undo(struct segwrite *w)
{
    for (unsigned i = 0; i < w->row.n_extents; i++)
        slabs_give(&w->st->slabs, w->row.extents[i].place, w->row.extents[i].log2);
    w->row.n_extents = 0;
}

void segwrite_close(struct segwrite *w)
{
    buf_unref(w->data);
    w->data = NULL;
    seg_builder_free(&w->builder);
}
