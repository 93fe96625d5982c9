/* Verifying: every stored byte that somebody may read again, each against the sum that covers it
 * and, where a checksum leaves bytes
 * out, against what the writer would have written.
 *
 * A pass opens a view and reads all. Damage counts when two passes in a row name it at the same
 * place: beside a running server the
 * first may meet extents that were freed and used anew while it read; the second starts from a
 * newer view, in which they
 * belong to somebody else. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/frame.h"
#include "format/sum.h"
#include "journal/catalogue.h"
#include "journal/inspect_int.h"
#include "journal/io/dev.h"
#include "journal/io/rows_int.h"

enum { PASSES = 10, DAMAGES_MAX = 100000 };

struct used {
    uint64_t place;
    uint32_t log2;
    uint64_t segment; /* 0: the WAL */
};

struct pass {
    struct dev *dev;
    struct inspect *in;
    struct inspect_report *report;
    struct super super;
    struct buf *page;
    struct used *used;
    unsigned n_used;
};

const char *inspect_part_name(enum inspect_part part)
{
    switch (part) {
    case INSPECT_SUPER:
        return "superblock";
    case INSPECT_SLABS:
        return "slab";
    case INSPECT_WAL:
        return "wal";
    case INSPECT_SEGMENTS:
        return "segment";
    case INSPECT_ROWS:
        return "rows";
    case INSPECT_SPACE:
        return "space";
    default:
        return "store";
    }
}

/* A new finding, to be completed by the caller. Past a bound the last one is used again: enough is
 * known by then. */
static struct inspect_damage *damage(struct pass *p, enum inspect_part part, const char *file,
                                     uint64_t byte, uint64_t bytes, const char *fmt, ...)
    PRINTF_LIKE(6, 7);
static struct inspect_damage *damage(struct pass *p, enum inspect_part part, const char *file,
                                     uint64_t byte, uint64_t bytes, const char *fmt, ...)
{
    struct inspect_report *r = p->report;
    struct inspect_damage *d;
    va_list ap;

    if (r->n < DAMAGES_MAX) {
        r->list = mem_grow(r->list, (r->n + 1) * sizeof *r->list);
        r->n++;
    }
    d = &r->list[r->n - 1];
    *d = (struct inspect_damage){ .part = part, .bytes = bytes };
    snprintf(d->at.file, sizeof d->at.file, "%s", file);
    d->at.byte = byte;
    va_start(ap, fmt);
    vsnprintf(d->text, sizeof d->text, fmt, ap);
    va_end(ap);
    return d;
}

static void used_add(struct pass *p, uint64_t place, uint32_t log2, uint64_t segment)
{
    p->used = mem_grow(p->used, (p->n_used + 1) * sizeof *p->used);
    p->used[p->n_used++] = (struct used){ place, log2, segment };
}

/* --- superblock and slabs -----------------------------------------------------------------------
 * */

static void super_copy(struct pass *p, unsigned i, struct super *one, uint8_t *mem, uint8_t *again)
{
    uint64_t byte = (uint64_t)i * SUPER_BYTES;
    int rc;

    p->report->super_copies++;
    *one = (struct super){ 0 };
    rc = super_read(one, mem);
    if (rc < 0) {
        damage(p, INSPECT_SUPER, "superblock", byte, SUPER_BYTES, "copy %u: %s", i, err_text(rc));
        return;
    }
    super_write(one, again);
    if (memcmp(mem, again, SUPER_BYTES) != 0)
        damage(p, INSPECT_SUPER, "superblock", byte, SUPER_BYTES,
               "copy %u: bytes outside the checksum have changed", i);
    else if (one->generation % 2 != i / 2)
        damage(p, INSPECT_SUPER, "superblock", byte, SUPER_BYTES,
               "copy %u holds generation %" PRIu64 ", which belongs elsewhere", i, one->generation);
    if (one->generation > p->super.generation)
        p->super = *one;
}

/* A copy that is being written may be read half old, half new: reads until two in a row are the
 * same. */
static int super_read_still(struct pass *p, struct dev_file *file, uint64_t pos, uint8_t *mem)
{
    int rc = dev_read(p->dev, file, pos, mem, SUPER_BYTES);

    for (unsigned i = 0; rc >= 0 && i < PASSES; i++) {
        rc = dev_read(p->dev, file, pos, mem + SUPER_BYTES, SUPER_BYTES);
        if (rc >= 0 && memcmp(mem, mem + SUPER_BYTES, SUPER_BYTES) == 0)
            break;
        memcpy(mem, mem + SUPER_BYTES, SUPER_BYTES);
    }
    return rc;
}

static int super_check(struct pass *p, struct err *e)
{
    struct buf *b = buf_new_aligned(SUPER_BYTES * 2);
    struct super *one = mem_new(sizeof *one);
    struct dev_file *file = NULL;
    int rc = dev_open(p->dev, "superblock", &file, e);

    if (!b)
        rc = E_NOMEM;
    if (rc >= 0 && file->bytes < SUPER_COPIES * SUPER_BYTES)
        damage(p, INSPECT_SUPER, "superblock", file->bytes,
               SUPER_COPIES * SUPER_BYTES - file->bytes, "the file is cut short: %" PRIu64 " bytes",
               file->bytes);
    for (unsigned i = 0; rc >= 0 && i < SUPER_COPIES && (i + 1) * SUPER_BYTES <= file->bytes; i++) {
        int r = super_read_still(p, file, (uint64_t)i * SUPER_BYTES, b->mem);

        if (r < 0)
            damage(p, INSPECT_SUPER, "superblock", (uint64_t)i * SUPER_BYTES, SUPER_BYTES,
                   "copy %u cannot be read: %s", i, err_text(r));
        else
            super_copy(p, i, one, b->mem, b->mem + SUPER_BYTES);
    }
    dev_close(p->dev, file);
    free(one);
    buf_unref(b);
    return rc;
}

static const char *slab_head_fault(struct pass *p, const struct dev_file *file, uint32_t number)
{
    uint8_t *again = p->page->mem + PAGE_BYTES;
    struct slab_head h;
    int rc = slab_head_read(&h, p->page->mem);

    if (rc < 0)
        return err_text(rc);
    slab_head_write(&h, again);
    if (memcmp(p->page->mem, again, PAGE_BYTES) != 0)
        return "bytes outside the checksum have changed";
    if (h.number != number)
        return "it says that it is another slab";
    if (h.bytes > file->bytes)
        return "the file is cut short";
    if (p->super.generation && memcmp(&h.store, &p->super.store, sizeof h.store) != 0)
        return "it belongs to another store";
    return NULL;
}

static void slab_check(void *ctx, const char *name)
{
    struct pass *p = ctx;
    struct dev_file *file = NULL;
    const char *fault = NULL;
    uint32_t number;
    char tail;
    int rc;

    if (sscanf(name, "slab-%6" SCNu32 "%c", &number, &tail) != 1)
        return;
    p->report->slabs++;
    rc = dev_open(p->dev, name, &file, NULL);
    if (rc >= 0)
        rc = dev_read(p->dev, file, 0, p->page->mem, PAGE_BYTES);
    fault = rc < 0 ? err_text(rc) : slab_head_fault(p, file, number);
    if (fault)
        damage(p, INSPECT_SLABS, name, 0, PAGE_BYTES, "slab header: %s", fault);
    dev_close(p->dev, file);
}

/* --- the live WAL -------------------------------------------------------------------------------
 * */

/* Reads the header page at a place. NULL: it is sound and as it would be written; else what is
 * wrong. */
static const char *extent_head_fault(struct pass *p, uint64_t place, uint32_t log2,
                                     struct extent_head *h)
{
    struct dev_file *file = slabs_file(&p->in->j->slabs, place, log2);
    uint8_t *again = p->page->mem + PAGE_BYTES;
    int rc = file ? dev_read(p->dev, file, place_pos(place), p->page->mem, PAGE_BYTES) : E_RANGE;

    if (rc == E_RANGE)
        return "the extent lies outside the slab";
    if (rc >= 0)
        rc = extent_head_read(h, p->page->mem);
    if (rc < 0)
        return err_text(rc);
    extent_head_write(h, again);
    if (memcmp(p->page->mem, again, PAGE_BYTES) != 0)
        return "bytes outside the checksum have changed";
    if (h->place != place || h->log2 != log2 ||
        memcmp(&h->store, &p->super.store, sizeof h->store) != 0)
        return "it belongs elsewhere";
    return NULL;
}

static int wal_extent(void *ctx, const struct inspect_extent *x)
{
    struct pass *p = ctx;
    uint64_t place =
        place_of((uint32_t)strtoul(x->at.file + 5, NULL, 10), (uint32_t)(x->at.byte / UNIT_BYTES));
    struct extent_head h = { 0 };
    const char *fault = extent_head_fault(p, place, p->in->j->wal_log2, &h);

    p->report->wal_extents++;
    used_add(p, place, p->in->j->wal_log2, 0);
    if (!fault && (h.kind != EXTENT_WAL || h.incarnation != x->incarnation))
        fault = "it belongs elsewhere";
    if (!fault && x->head_damaged)
        fault = "it does not fit what follows it";
    if (fault)
        damage(p, INSPECT_WAL, x->at.file, x->at.byte, PAGE_BYTES, "extent header: %s", fault)
            ->lsn = x->first_lsn;
    return 0;
}

static void wal_items(struct pass *p, const struct block_head *h, const struct inspect_place *at,
                      const uint8_t *frame, const struct block_dir *d)
{
    struct frame_head f;
    uint64_t pos;

    if (frame_head_read(&f, frame, d->bytes) < 0 || f.group != d->group || f.entry != d->entry) {
        damage(p, INSPECT_WAL, at->file, at->byte + d->pos, d->bytes,
               "group %" PRIu64 " entry %" PRIu64 ": the frame makes no sense", d->group, d->entry)
            ->lsn = h->lsn;
        return;
    }
    pos = FRAME_HEAD_BYTES + (uint64_t)f.n_items * FRAME_ITEM_BYTES;
    for (uint32_t i = 0; i < f.n_items; i++) {
        struct frame_item item;
        struct batch_head b;

        frame_item_read(&item, frame, i);
        p->report->wal_batches++;
        if (batch_check(&b, frame + pos, item.bytes) < 0 || b.bytes != item.bytes ||
            (uint64_t)b.base_offset != item.base_offset)
            damage(p, INSPECT_WAL, at->file, at->byte + d->pos + pos, item.bytes,
                   "shard %" PRIu64 " offset %" PRIu64 ": the batch fails its checksum", item.shard,
                   item.base_offset)
                ->lsn = h->lsn;
        pos += item.bytes;
    }
}

static int wal_block(void *ctx, const struct block_head *h, const uint8_t *mem,
                     const struct inspect_place *at)
{
    struct pass *p = ctx;

    p->report->wal_blocks++;
    p->report->wal_bytes += h->block_bytes;
    for (uint32_t i = 0; i < h->n_frames; i++) {
        struct block_dir d;

        block_dir_read(&d, mem, i);
        p->report->wal_frames++;
        wal_items(p, h, at, mem + d.pos, &d);
    }
    return 0;
}

static int wal_rot(void *ctx, uint64_t lsn, uint64_t end_lsn, const struct inspect_place *at)
{
    struct pass *p = ctx;
    uint64_t size = (uint64_t)1 << p->in->j->wal_log2, inside = at->byte % size;
    uint64_t bytes = end_lsn - lsn;
    struct inspect_damage *d;

    if (bytes > size - inside)
        bytes = size - inside;
    d = damage(p, INSPECT_WAL, at->file[0] ? at->file : "superblock", at->byte, bytes,
               "LSN %" PRIu64 " to %" PRIu64 " was durable and cannot be read: rot", lsn, end_lsn);
    d->lsn = lsn;
    d->end_lsn = end_lsn;
    return 0;
}

static int wal_check(struct pass *p, struct err *e)
{
    static const struct inspect_wal calls = { wal_extent, wal_block, wal_rot };

    p->report->torn = p->in->end.torn;
    return inspect_wal(p->in, &calls, p, e);
}

/* --- one segment --------------------------------------------------------------------------------
 * */

struct sealed {
    struct pass *p;
    uint64_t id;
    const struct row_segment *row;
    struct segment *seg;
};

/* A finding at [pos, pos + bytes) of the segment's bytes; one for each extent that this touches. */
static void segment_damage(struct sealed *s, uint64_t pos, uint64_t bytes, const char *text)
{
    uint64_t first = 0;

    for (unsigned i = 0; i < s->row->n_extents; i++) {
        uint64_t room = seg_extent_room(s->row->extents[i].log2);
        uint64_t from = pos > first ? pos : first;
        uint64_t to = pos + bytes < first + room ? pos + bytes : first + room;
        struct inspect_place at;

        if (from < to) {
            inspect_place_set(&at, s->row->extents[i].place, PAGE_BYTES + from - first);
            damage(s->p, INSPECT_SEGMENTS, at.file, at.byte, to - from, "segment %" PRIu64 ": %s",
                   s->id, text)
                ->segment = s->id;
        }
        first += room;
    }
}

static void segment_heads(struct sealed *s)
{
    uint64_t pos = 0;

    for (unsigned i = 0; i < s->row->n_extents; i++) {
        const struct seg_extent *x = &s->row->extents[i];
        struct extent_head h = { 0 };
        const char *fault = extent_head_fault(s->p, x->place, x->log2, &h);
        struct inspect_place at;

        if (!fault && (h.kind != EXTENT_SEGMENT || h.segment != s->id || h.group != s->row->group ||
                       h.index != i || h.n_extents != s->row->n_extents || h.pos != pos))
            fault = "it belongs to another";
        inspect_place_set(&at, x->place, 0);
        if (fault)
            damage(s->p, INSPECT_SEGMENTS, at.file, at.byte, PAGE_BYTES,
                   "segment %" PRIu64 ": header of extent %u: %s", s->id, i, fault)
                ->segment = s->id;
        pos += seg_extent_room(x->log2);
    }
}

/* Bytes of a sealed segment; NULL when they cannot be read. */
static struct buf *segment_bytes(struct sealed *s, uint64_t pos, uint64_t bytes,
                                 const uint8_t **mem)
{
    struct buf *b = NULL;
    uint32_t at;
    int rc = segment_read(&s->p->in->j->segments, s->seg, pos, bytes, &b, &at);

    if (rc < 0) {
        segment_damage(s, pos, bytes, err_text(rc));
        return NULL;
    }
    *mem = b->mem + at;
    return b;
}

/* What walking the data gives, to hold against footer, row and index. */
struct walked {
    struct seg_builder builder;
    struct sum128_state *identity;
    bool damaged;
};

static void walk_batches(struct sealed *s, struct walked *w, const struct seg_run *run,
                         const uint8_t *mem, uint64_t pos)
{
    uint64_t at = 0, shard = htole64(run->shard), next = run->base;

    while (at < run->bytes) {
        struct batch_head h;

        if (batch_check(&h, mem + at, run->bytes - at) < 0) {
            bool known = batch_head_read(&h, mem + at, run->bytes - at) >= 0;

            segment_damage(s, pos + at, known ? h.bytes : run->bytes - at,
                           "a batch fails its checksum");
            w->damaged = true;
            if (!known)
                return;
        } else if ((uint64_t)h.base_offset != next) {
            segment_damage(s, pos + at, h.bytes, "a batch has another offset than its place says");
            w->damaged = true;
        } else {
            sum128_add(w->identity, &shard, sizeof shard);
            sum128_add(w->identity, mem + at, h.bytes);
            seg_builder_add(&w->builder, run->shard, &h);
            s->p->report->batches++;
        }
        next = next + (uint64_t)h.last_offset_delta + 1;
        at += h.bytes;
    }
}

/* The data, run by run. x: the stored index; NULL when it is damaged. */
static void segment_data(struct sealed *s, struct walked *w, const struct seg_index *x,
                         const uint8_t *data)
{
    uint64_t pos = 0, bytes = s->row->data_bytes;
    uint32_t n = 0;

    for (; pos < bytes; n++) {
        const struct seg_run *want = x && n < x->n_runs ? &x->runs[n] : NULL;
        struct seg_run run;

        if (seg_run_head_read(&run, s->id, data + pos, bytes - pos) < 0) {
            segment_damage(s, pos, SEG_RUN_HEAD_BYTES, "the header of a run is damaged");
            w->damaged = true;
            if (!want || want->pos != pos + SEG_RUN_HEAD_BYTES || want->pos + want->bytes > bytes)
                return;
            run = *want; /* the index knows the way past it */
        }
        w->builder.pos = pos;
        pos += SEG_RUN_HEAD_BYTES;
        walk_batches(s, w, &run, data + pos, pos);
        if (!w->damaged && want && want->pos == pos && want->bytes == run.bytes &&
            sum_xxh3(data + pos, run.bytes, 0) != want->xxh3) {
            segment_damage(s, pos, run.bytes, "a run fails its checksum");
            w->damaged = true;
        }
        s->p->report->runs++;
        pos += run.bytes;
    }
}

/* The index that the data gives must be the stored one, byte for byte. */
static void index_compare(struct sealed *s, struct walked *w, const uint8_t *data,
                          const uint8_t *stored)
{
    struct seg_index *x = &w->builder.index;
    size_t bytes = seg_index_bytes(x->n_runs, x->n_sparse, x->n_producers);
    uint8_t *again = mem_new(bytes);

    x->segment = s->id;
    for (uint32_t i = 0; i < x->n_runs; i++)
        x->runs[i].xxh3 = sum_xxh3(data + x->runs[i].pos, x->runs[i].bytes, 0);
    seg_index_write(x, again);
    if (bytes != s->row->index_bytes || memcmp(stored, again, bytes) != 0)
        segment_damage(s, s->row->index_pos, s->row->index_bytes,
                       "the index does not say what the data says");
    free(again);
}

static const char *footer_fault(struct sealed *s, const struct seg_footer *f,
                                const struct walked *w)
{
    const struct row_segment *row = s->row;

    if (f->segment != s->id || f->group != row->group ||
        memcmp(&f->store, &s->p->super.store, sizeof f->store) != 0)
        return "the footer belongs to another";
    if (f->first_entry != row->first_entry || f->last_entry != row->last_entry ||
        f->data_bytes != row->data_bytes || f->index_pos != row->index_pos ||
        f->index_bytes != row->index_bytes || f->n_batches != row->n_batches ||
        f->min_ts != row->min_ts || f->max_ts != row->max_ts || f->created != row->created ||
        f->n_extents != row->n_extents ||
        memcmp(&f->identity, &row->identity, sizeof f->identity) != 0)
        return "the footer does not say what the catalogue says";
    for (unsigned i = 0; i < row->n_extents; i++)
        if (f->extents[i].place != row->extents[i].place ||
            f->extents[i].log2 != row->extents[i].log2)
            return "the footer names other extents than the catalogue";
    if (!w->damaged &&
        (f->n_batches != w->builder.n_batches || f->n_offsets != w->builder.n_offsets ||
         f->min_ts != w->builder.min_ts || f->max_ts != w->builder.max_ts))
        return "the footer does not say what the data says";
    return NULL;
}

static void segment_footer(struct sealed *s, const struct walked *w)
{
    const struct seg_extent *last = &s->row->extents[s->row->n_extents - 1];
    uint64_t inside = ((uint64_t)1 << last->log2) - PAGE_BYTES;
    struct dev_file *file = slabs_file(&s->p->in->j->slabs, last->place, last->log2);
    uint8_t *mem = s->p->page->mem, *again = mem + PAGE_BYTES;
    struct seg_footer *f = mem_new(sizeof *f);
    const char *fault = NULL;
    struct inspect_place at;
    int rc = file ? dev_read(s->p->dev, file, place_pos(last->place) + inside, mem, PAGE_BYTES)
                  : E_CORRUPT;

    if (rc >= 0)
        rc = seg_footer_read(f, mem);
    if (rc < 0) {
        fault = "the footer fails its checksum";
    } else {
        seg_footer_write(f, again);
        fault = memcmp(mem, again, PAGE_BYTES) != 0
                    ? "footer: bytes outside the checksum have changed"
                    : footer_fault(s, f, w);
    }
    inspect_place_set(&at, last->place, inside);
    if (fault)
        damage(s->p, INSPECT_SEGMENTS, at.file, at.byte, PAGE_BYTES, "segment %" PRIu64 ": %s",
               s->id, fault)
            ->segment = s->id;
    free(f);
}

/* The stored index as the writer would write it; false: damaged (told). */
static bool index_read(struct sealed *s, const uint8_t *mem, struct seg_index *x)
{
    uint8_t *again;
    bool same;

    if (seg_index_read(x, mem, s->row->index_bytes) < 0) {
        segment_damage(s, s->row->index_pos, s->row->index_bytes, "the index fails its checksum");
        return false;
    }
    again = mem_new(s->row->index_bytes);
    seg_index_write(x, again);
    same = memcmp(mem, again, s->row->index_bytes) == 0 && x->segment == s->id;
    free(again);
    if (!same) {
        segment_damage(s, s->row->index_pos, s->row->index_bytes,
                       "index: bytes outside the checksum have changed");
        seg_index_free(x);
    }
    return same;
}

static void segment_body(struct sealed *s, struct walked *w, const uint8_t *data,
                         const uint8_t *index)
{
    struct seg_index x = { 0 };
    bool has_index = index_read(s, index, &x);

    segment_data(s, w, has_index ? &x : NULL, data);
    if (has_index && !w->damaged)
        index_compare(s, w, data, index);
    if (!bytes_are_zero(data + s->row->data_bytes, s->row->index_pos - s->row->data_bytes))
        segment_damage(s, s->row->data_bytes, s->row->index_pos - s->row->data_bytes,
                       "the bytes behind the data are not zero");
    seg_index_free(&x);
}

static void segment_check(struct pass *p, uint64_t id, struct segment *seg)
{
    struct sealed s = { .p = p, .id = id, .row = &seg->row, .seg = seg };
    struct walked w = { .identity = sum128_new() };
    const uint8_t *data = NULL;
    struct sum128 sum;
    struct buf *b;

    p->report->segments++;
    p->report->segment_bytes += seg->row.data_bytes + seg->row.index_bytes;
    for (unsigned i = 0; i < seg->row.n_extents; i++)
        used_add(p, seg->row.extents[i].place, seg->row.extents[i].log2, id);
    segment_heads(&s);
    b = segment_bytes(&s, 0, seg->row.index_pos + seg->row.index_bytes, &data);
    if (b)
        segment_body(&s, &w, data, data + seg->row.index_pos);
    else
        w.damaged = true;
    sum = sum128_end(w.identity);
    if (!w.damaged && memcmp(&sum, &seg->row.identity, sizeof sum) != 0)
        segment_damage(&s, 0, seg->row.data_bytes,
                       "the batches are not those that were sealed: another identity");
    segment_footer(&s, &w);
    seg_builder_free(&w.builder);
    buf_unref(b);
}

static int segments_check(struct pass *p, uint64_t only)
{
    struct segments *t = &p->in->j->segments;
    uint64_t pos = 0, id;
    void *value;

    if (only && !hash_get(&t->by_id, only))
        return E_NOTFOUND;
    while (hash_next(&t->by_id, &pos, &id, &value))
        if (!only || id == only)
            segment_check(p, id, value);
    return 0;
}

/* --- rows: the catalogue replayed beside them, and the indexes -----------------------------------
 * */

struct replay {
    struct pass *p;
    struct rows *rows;
    uint64_t next;
    bool damaged;
};

static int replay_batch(void *ctx, const struct inspect_batch *b)
{
    struct replay *r = ctx;
    struct rows_batch rows = { 0 };
    uint64_t base = (uint64_t)b->head.base_offset;
    int rc = b->ok ? 0 : E_CORRUPT;

    if (rc >= 0 && base < r->next)
        return 0;
    if (rc >= 0 && base == r->next)
        rc = catalogue_batch_rows(b->mem, b->bytes, &rows);
    if (rc < 0 || base != r->next) {
        damage(r->p, INSPECT_ROWS, b->at.file, b->at.byte, b->bytes,
               "catalogue offset %" PRIu64 " is damaged or missing", r->next)
            ->segment = b->segment;
        r->damaged = true;
        rows_batch_free(&rows);
        return 1;
    }
    r->next = base + (uint64_t)b->head.last_offset_delta + 1;
    rc = rows_write(r->rows, &rows, 0);
    rows_batch_free(&rows);
    return rc < 0 ? rc : 0;
}

static int replay_run(void *ctx, const struct inspect_run *run)
{
    struct replay *r = ctx;
    int rc = inspect_run_batches(r->p->in, SHARD_CATALOGUE, run, replay_batch, r);

    if (rc == E_CORRUPT) {
        damage(r->p, INSPECT_ROWS, "rows", 0, 0,
               "catalogue offset %" PRIu64 ": the place that the rows name is not there", r->next);
        r->damaged = true;
        rc = 1;
    }
    return rc;
}

struct compare {
    struct pass *p;
    struct rows *other;
    const char *what;
    bool count;
};

static void row_name(const uint8_t *key, size_t bytes, char *name, size_t room)
{
    uint64_t a = 0, b = 0;

    if (key[0] == ROW_APP)
        snprintf(name, room, "row of a door beginning with '%c'", bytes > 1 ? key[1] : '?');
    else if (row_key_parse(key, bytes, &a, &b))
        snprintf(name, room, "row %c %" PRIu64 " %" PRIu64, key[0], a, b);
    else
        snprintf(name, room, "row %c", key[0]);
}

/* One row that must be the same on the other side. */
static int compare_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                       size_t value_bytes)
{
    struct compare *c = ctx;
    const uint8_t *k = key;
    uint8_t *mem = NULL;
    size_t bytes = 0;
    char name[64];
    int rc;

    if (key_bytes == 0 || k[0] < 'A' || k[0] > 'Z')
        return key_bytes && k[0] > 'Z';
    if (c->count)
        c->p->report->rows++;
    rc = rows_get(c->other, key, key_bytes, &mem, &bytes);
    if (rc < 0 && rc != E_NOTFOUND)
        return rc;
    if (rc < 0 || bytes != value_bytes || memcmp(mem, value, bytes) != 0) {
        row_name(k, key_bytes, name, sizeof name);
        damage(c->p, INSPECT_ROWS, "rows", 0, 0, "%s: %s", name,
               rc < 0 ? c->what : "it is not what the catalogue says");
    }
    free(mem);
    return 0;
}

/* The catalogue from its first record on gives the rows that are there, no more and no fewer. */
static int catalogue_check(struct pass *p)
{
    struct replay r = { .p = p, .next = p->in->super.catalogue_start };
    struct compare there = { p, NULL, "the catalogue does not have it", true };
    struct compare back = { p, p->in->rows, "the catalogue has it, the rows do not", false };
    int rc = rows_mem_open(&r.rows, NULL);

    there.other = r.rows;
    if (rc >= 0)
        rc = inspect_runs(p->in, SHARD_CATALOGUE, replay_run, &r);
    if (rc >= 0 && !r.damaged)
        rc = rows_write(r.rows, &p->in->todo.rows, 0); /* what the view itself has added */
    if (rc >= 0 && !r.damaged)
        rc = rows_scan(p->in->rows, "A", 1, false, compare_row, &there);
    if (rc >= 0 && !r.damaged)
        rc = rows_scan(r.rows, "A", 1, false, compare_row, &back);
    rows_close(r.rows);
    return rc < 0 ? rc : 0;
}

/* Whether a run's shard is there and reaches into the run. */
static int run_is_alive(struct pass *p, uint64_t shard, uint64_t end, bool *alive)
{
    struct row_shard row = { 0 };
    uint8_t key[ROW_KEY_MAX], *mem;
    size_t bytes;
    int rc;

    *alive = shard == SHARD_CATALOGUE;
    if (*alive)
        return 0;
    rc = rows_get(p->in->rows, key, row_key(key, ROW_SHARD, shard), &mem, &bytes);
    if (rc < 0)
        return rc == E_NOTFOUND ? 0 : rc;
    *alive = row_shard_read(&row, mem, bytes) >= 0 && end > row.start;
    free(mem);
    return 0;
}

static bool run_matches(const struct row_run *row, uint64_t segment, const struct seg_run *n)
{
    return row->segment == segment && row->end == n->end && row->pos == n->pos &&
           row->bytes == n->bytes && row->xxh3 == n->xxh3 && row->max_ts == n->max_ts &&
           row->first_sparse == n->first_sparse && row->n_sparse == n->n_sparse &&
           row->n_batches == n->n_batches;
}

struct runs_seen {
    struct pass *p;
    uint64_t in_indexes, in_rows; /* those that are alive */
};

/* A live run of an index and its row. */
static int index_run_check(struct runs_seen *seen, uint64_t id, const struct seg_run *n)
{
    uint8_t key[ROW_KEY_MAX], *mem = NULL;
    struct row_run row;
    size_t bytes;
    bool same;
    int rc =
        rows_get(seen->p->in->rows, key, row_key2(key, ROW_RUN, n->shard, n->base), &mem, &bytes);

    if (rc < 0 && rc != E_NOTFOUND)
        return rc;
    same = rc >= 0 && row_run_read(&row, mem, bytes) >= 0 && run_matches(&row, id, n);
    free(mem);
    seen->in_indexes++;
    if (!same)
        damage(seen->p, INSPECT_ROWS, "rows", 0, 0,
               "shard %" PRIu64 " offset %" PRIu64 ": %s the index of segment %" PRIu64 " says",
               n->shard, n->base,
               rc < 0 ? "no row of the run that" : "the row of the run is not what", id)
            ->segment = id;
    return 0;
}

static int index_rows_check(struct runs_seen *seen, struct segment *seg)
{
    struct segments *t = &seen->p->in->j->segments;
    const struct seg_index *x;
    int rc;

    seg = segment_pin(t, seg->id);
    rc = segment_index(t, seg, &x);
    for (uint32_t i = 0; rc >= 0 && i < x->n_runs; i++) {
        bool alive;

        rc = run_is_alive(seen->p, x->runs[i].shard, x->runs[i].end, &alive);
        if (rc >= 0 && alive)
            rc = index_run_check(seen, seg->id, &x->runs[i]);
    }
    segment_unpin(t, seg);
    return rc;
}

/* What is trimmed or deleted may have rows that are still to be taken away. */
static int run_row_check(void *ctx, const void *key, size_t key_bytes, const void *value,
                         size_t value_bytes)
{
    struct runs_seen *seen = ctx;
    struct row_run row;
    uint64_t shard, base;
    bool alive;
    int rc;

    if (((const uint8_t *)key)[0] != ROW_RUN)
        return 1;
    seen->p->report->rows++;
    if (!row_key_parse(key, key_bytes, &shard, &base) ||
        row_run_read(&row, value, value_bytes) < 0) {
        damage(seen->p, INSPECT_ROWS, "rows", 0, 0, "the row of a run makes no sense");
        return 0;
    }
    rc = run_is_alive(seen->p, shard, row.end, &alive);
    if (rc < 0 || !alive)
        return rc;
    seen->in_rows++;
    if (!hash_get(&seen->p->in->j->segments.by_id, row.segment))
        damage(seen->p, INSPECT_ROWS, "rows", 0, 0,
               "shard %" PRIu64 " offset %" PRIu64 ": its row names segment %" PRIu64
               ", which is not there",
               shard, base, row.segment)
            ->segment = row.segment;
    return 0;
}

/* Every live run of an index has its row, and there are no more of them than that. */
static int runs_check(struct pass *p)
{
    struct runs_seen seen = { .p = p };
    uint8_t first = ROW_RUN;
    uint64_t pos = 0;
    void *value;
    int rc = rows_scan(p->in->rows, &first, 1, false, run_row_check, &seen);

    while (rc >= 0 && hash_next(&p->in->j->segments.by_id, &pos, NULL, &value))
        rc = index_rows_check(&seen, value);
    if (rc >= 0 && seen.in_rows > seen.in_indexes)
        damage(p, INSPECT_ROWS, "rows", 0, 0,
               "%" PRIu64 " rows of runs, but the indexes have only %" PRIu64, seen.in_rows,
               seen.in_indexes);
    return rc;
}

static int rows_check(struct pass *p)
{
    int rc;

    if (p->in->rows_damaged)
        damage(p, INSPECT_ROWS, "rows", 0, 0, "RocksDB cannot be read");
    rc = catalogue_check(p);
    if (rc >= 0)
        rc = runs_check(p);
    if (rc == E_CORRUPT) { /* RocksDB's own checksums */
        damage(p, INSPECT_ROWS, "rows", 0, 0, "stored rows fail their checksum");
        rc = 0;
    }
    return rc < 0 ? rc : 0;
}

/* --- space --------------------------------------------------------------------------------------
 * */

static int by_place(const void *a, const void *b)
{
    const struct used *x = a, *y = b;

    return x->place < y->place ? -1 : x->place > y->place;
}

static void owner_name(const struct used *u, char *name, size_t room)
{
    if (u->segment)
        snprintf(name, room, "segment %" PRIu64, u->segment);
    else
        snprintf(name, room, "the WAL");
}

/* No extent outside its slab, none in the slab's first unit, none in two places. */
static void space_check(struct pass *p)
{
    if (p->n_used)
        qsort(p->used, p->n_used, sizeof *p->used, by_place);
    p->report->extents = p->n_used;
    for (unsigned i = 0; i < p->n_used; i++) {
        const struct used *u = &p->used[i], *before = i ? u - 1 : NULL;
        uint64_t bytes = (uint64_t)1 << u->log2;
        struct inspect_place at;
        char mine[48], other[48];

        inspect_place_set(&at, u->place, 0);
        owner_name(u, mine, sizeof mine);
        if (!slabs_file(&p->in->j->slabs, u->place, u->log2) || (uint32_t)u->place == 0)
            damage(p, INSPECT_SPACE, at.file, at.byte, bytes, "an extent of %s lies outside", mine)
                ->segment = u->segment;
        if (!before || place_slab(before->place) != place_slab(u->place) ||
            place_pos(before->place) + ((uint64_t)1 << before->log2) <= place_pos(u->place))
            continue;
        owner_name(before, other, sizeof other);
        damage(p, INSPECT_SPACE, at.file, at.byte, bytes, "the extent is used by %s and by %s",
               other, mine)
            ->segment = u->segment;
    }
}

/* --- passes -------------------------------------------------------------------------------------
 * */

/* No start would get past it; the WAL can be looked at still. */
static int pass_bare(struct pass *p, const char *path, unsigned parts, const struct err *why)
{
    struct err e = { 0 };

    damage(p, 0, "", 0, 0, "the store cannot be opened, segments and rows were not looked at: %s",
           why->text);
    if (!(parts & INSPECT_WAL) || inspect_open_bare(&p->in, path, &e) < 0)
        return 0;
    p->super = p->in->super;
    return wal_check(p, &e) == E_IO ? E_IO : 0;
}

static int pass_view(struct pass *p, const char *path, unsigned parts, uint64_t segment,
                     struct err *e)
{
    int rc = inspect_open(&p->in, path, e);

    if (rc == E_CORRUPT)
        return pass_bare(p, path, parts, e);
    if (rc < 0)
        return rc;
    p->super = p->in->super;
    if (parts & (INSPECT_WAL | INSPECT_SPACE))
        rc = wal_check(p, e);
    if (rc >= 0 && parts & (INSPECT_SEGMENTS | INSPECT_SPACE)) {
        rc = segments_check(p, segment);
        if (rc == E_NOTFOUND)
            return err_set(e, rc, "no segment %" PRIu64, segment);
    }
    if (rc >= 0 && parts & INSPECT_ROWS)
        rc = rows_check(p);
    if (rc >= 0 && parts & INSPECT_SPACE)
        space_check(p);
    return rc < 0 ? err_set(e, rc, "%s: %s", path, e->code ? e->text : err_text(rc)) : 0;
}

static int pass_run(const char *path, unsigned parts, uint64_t segment,
                    struct inspect_report *report, struct err *e)
{
    struct pass p = { .report = report, .page = buf_new_aligned((size_t)PAGE_BYTES * 2) };
    int rc = p.page
                 ? dev_aio_open(&p.dev, path,
                                &(struct dev_aio_conf){ .read_threads = 1, .read_only = true }, e)
                 : E_NOMEM;

    if (rc >= 0)
        rc = super_check(&p, e);
    if (rc >= 0 && !(parts & INSPECT_SUPER))
        inspect_report_free(report);
    if (rc >= 0 && parts & INSPECT_SLABS)
        rc = dev_list(p.dev, slab_check, &p);
    if (rc >= 0 && parts & ~(unsigned)(INSPECT_SUPER | INSPECT_SLABS))
        rc = pass_view(&p, path, parts, segment, e);
    inspect_close(p.in);
    dev_aio_close(p.dev);
    free(p.used);
    buf_unref(p.page);
    return rc < 0 ? rc : 0;
}

static bool is_named(const struct inspect_report *r, const struct inspect_damage *d)
{
    for (unsigned i = 0; i < r->n; i++) {
        const struct inspect_damage *x = &r->list[i];

        if (x->part == d->part && x->at.byte == d->at.byte && x->segment == d->segment &&
            x->lsn == d->lsn && strcmp(x->at.file, d->at.file) == 0 &&
            strcmp(x->text, d->text) == 0)
            return true;
    }
    return false;
}

/* Keeps only what the pass before has named, too. */
static unsigned confirm(struct inspect_report *now, const struct inspect_report *before)
{
    unsigned n = 0;

    for (unsigned i = 0; i < now->n; i++)
        n += is_named(before, &now->list[i]);
    if (n == 0)
        return 0;
    n = 0;
    for (unsigned i = 0; i < now->n; i++)
        if (is_named(before, &now->list[i]))
            now->list[n++] = now->list[i];
    return now->n = n;
}

int inspect_verify(const char *path, unsigned parts, uint64_t segment,
                   struct inspect_report *report, struct err *e)
{
    struct inspect_report before = { 0 };
    int rc = 0;

    *report = (struct inspect_report){ 0 };
    for (unsigned i = 0; i < PASSES; i++) {
        rc = pass_run(path, parts, segment, report, e);
        if (rc < 0 || report->n == 0 || confirm(report, &before) > 0)
            break;
        inspect_report_free(&before);
        before = *report;
        *report = (struct inspect_report){ 0 };
        rc = err_set(e, E_BUSY, "%s: the store changes faster than it can be verified", path);
    }
    inspect_report_free(&before);
    if (rc < 0)
        inspect_report_free(report);
    return rc;
}

void inspect_report_free(struct inspect_report *report)
{
    free(report->list);
    *report = (struct inspect_report){ 0 };
}
