#include "journal/recover_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "format/frame.h"
#include "journal/catalogue.h"
#include "journal/destage.h"
#include "journal/keyremake.h"

/* --- rows that are lost: the catalogue's own segments are found by looking at every unit --- */

struct found_run {
    uint64_t base, end;
    struct buf *buf;
    uint32_t at;
    uint64_t bytes;
};

struct rebuild {
    struct recovery *r;
    struct found_run *list;
    unsigned n;
    uint64_t next; /* catalogue offset that is applied next */
};

static int found_by_base(const void *a, const void *b)
{
    const struct found_run *x = a, *y = b;

    if (x->base != y->base)
        return x->base < y->base ? -1 : 1;
    return x->end > y->end ? -1 : x->end < y->end;
}

/* Takes the catalogue's runs of a segment whose footer was found. Stale ones hold the same bytes
 * for the same offsets. */
static void rebuild_segment(struct rebuild *b, const struct seg_footer *f)
{
    struct store *st = b->r->st;
    struct segment seg = { .id = f->segment };
    struct seg_index copy;
    struct buf *buf;
    uint32_t at;

    seg.row.group = f->group;
    seg.row.data_bytes = f->data_bytes;
    seg.row.index_pos = f->index_pos;
    seg.row.index_bytes = f->index_bytes;
    seg.row.n_extents = (uint16_t)f->n_extents;
    memcpy(seg.row.extents, f->extents, f->n_extents * sizeof f->extents[0]);
    if (segment_read(&st->segments, &seg, f->index_pos, f->index_bytes, &buf, &at) < 0)
        return;
    if (seg_index_read(&copy, buf->mem + at, f->index_bytes) < 0) {
        buf_unref(buf);
        if (segment_index_rebuild(&st->segments, &seg, &copy) < 0)
            return;
    } else {
        buf_unref(buf);
    }
    for (uint32_t i = 0; i < copy.n_runs; i++) {
        const struct seg_run *run = &copy.runs[i];
        struct found_run n = { run->base, run->end, NULL, 0, run->bytes };

        if (run->shard != SHARD_CATALOGUE ||
            segment_read(&st->segments, &seg, run->pos, n.bytes, &n.buf, &n.at) < 0)
            continue;
        b->list = mem_grow(b->list, (b->n + 1) * sizeof *b->list);
        b->list[b->n++] = n;
    }
    seg_index_free(&copy);
}

static void rebuild_slab(struct rebuild *b, struct slab *slab, uint8_t *page)
{
    struct store *st = b->r->st;

    for (uint32_t unit = 1; unit < slab->n_units; unit++) {
        uint64_t place = place_of(slab->number, unit), last;
        struct extent_head h;
        struct seg_footer *f;

        if (dev_read(st->dev, slab->file, place_pos(place), page, PAGE_BYTES) < 0 ||
            extent_head_read(&h, page) < 0 || h.kind != EXTENT_SEGMENT ||
            h.group != GROUP_CATALOGUE || h.place != place ||
            memcmp(&h.store, &st->super.store, sizeof h.store) != 0 || h.index + 1 != h.n_extents ||
            !slabs_file(&st->slabs, place, h.log2))
            continue;
        last = place_pos(place) + ((uint64_t)1 << h.log2) - PAGE_BYTES;
        f = mem_new(sizeof *f);
        if (dev_read(st->dev, slab->file, last, page, PAGE_BYTES) >= 0 &&
            seg_footer_read(f, page) >= 0 && f->segment == h.segment && f->group == GROUP_CATALOGUE)
            rebuild_segment(b, f);
        free(f);
    }
}

/* One catalogue batch, if it is the one that comes next. */
static int rebuild_batch(struct rebuild *b, const uint8_t *mem, uint64_t left, uint32_t *bytes)
{
    struct batch_head h;

    if (batch_check(&h, mem, left) < 0)
        return E_CORRUPT; /* a stale place may hold anything by now */
    *bytes = h.bytes;
    if ((uint64_t)h.base_offset != b->next)
        return 0;
    b->next += (uint64_t)h.last_offset_delta + 1;
    return recover_catalogue_item(b->r, mem, h.bytes);
}

/* Applies found runs in offset order; each offset once. */
static int rebuild_apply(struct rebuild *b)
{
    int rc = 0;

    if (b->n > 0)
        qsort(b->list, b->n, sizeof *b->list, found_by_base);
    for (unsigned i = 0; rc >= 0 && i < b->n; i++) {
        struct found_run *n = &b->list[i];
        uint32_t bytes;

        for (uint64_t at = 0; rc >= 0 && at < n->bytes; at += bytes) {
            rc = rebuild_batch(b, n->buf->mem + n->at + at, n->bytes - at, &bytes);
            if (rc == E_CORRUPT) {
                rc = 0; /* another copy may have it; what is missing in the end is told below */
                break;
            }
        }
    }
    return rc;
}

/* The catalogue's part of the live WAL, ahead of the real scan. */
static int rebuild_block(void *ctx, const struct block_head *h, const uint8_t *mem, uint64_t pos)
{
    struct rebuild *b = ctx;
    int rc = 0;

    for (uint32_t i = 0; rc >= 0 && i < h->n_frames; i++) {
        struct block_dir d;
        struct frame_head f;
        uint32_t at, bytes;

        block_dir_read(&d, mem, i);
        if (d.group != GROUP_CATALOGUE)
            continue;
        rc = frame_head_read(&f, mem + d.pos, d.bytes);
        at = FRAME_HEAD_BYTES + f.n_items * FRAME_ITEM_BYTES;
        for (uint32_t k = 0; rc >= 0 && k < f.n_items; k++, at += bytes)
            rc = rebuild_batch(b, mem + d.pos + at, d.bytes - at, &bytes);
    }
    return rc;
}

static int rebuild_end_row(struct rebuild *b)
{
    struct rows_batch rows = { 0 };
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    int rc;

    rows_batch_put(&rows, key, row_key(key, ROW_END, SHARD_CATALOGUE), value,
                   row_u64_write(b->next, value));
    rc = rows_write(b->r->st->rows, &rows, 0);
    rows_batch_free(&rows);
    return rc;
}

/* First the whole catalogue (from its segments, found by looking, and from the live WAL), then the
 * rows of every segment that it
 * names; the scan of the WAL then goes over them as after any start. */
int recover_rows_rebuild(struct recovery *r)
{
    static const struct walscan_calls only_catalogue = { .block = rebuild_block };
    struct store *st = r->st;
    struct rebuild b = { .r = r, .next = st->super.catalogue_start };
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    struct walscan_end end;
    int rc = page ? rows_clear(st->rows) : E_NOMEM;

    LOG_WARN("rows.rebuild", F_LSN(st->super.ckpt_lsn));
    if (rc >= 0)
        rc = keyremake_mark(st->rows);
    for (unsigned i = 0; rc >= 0 && i < st->slabs.n; i++)
        rebuild_slab(&b, &st->slabs.list[i], page->mem);
    if (rc >= 0)
        rc = rebuild_apply(&b);
    if (rc >= 0)
        rc = rebuild_end_row(&b);
    if (rc >= 0)
        rc = walscan_run(st->dev, &st->slabs, &st->super, &only_catalogue, &b, &end, r->e);
    for (unsigned i = 0; i < b.n; i++)
        buf_unref(b.list[i].buf);
    free(b.list);
    buf_unref(page);
    if (rc >= 0 && b.next < st->super.catalogue_end)
        rc = err_set(r->e, E_CORRUPT, "the catalogue ends at %" PRIu64 ", not at %" PRIu64, b.next,
                     st->super.catalogue_end);
    if (rc >= 0)
        rc = recover_table_scan(st, ROW_SEGMENT, recover_segment_row, r);
    if (rc >= 0)
        rc = recover_segments_fill(r);
    segments_fini(&st->segments);
    segments_init(&st->segments, st->dev, &st->slabs);
    return rc;
}
