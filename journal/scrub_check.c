#include "journal/scrub_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "format/batch.h"
#include "format/block.h"

enum { WAL_PIECE = 1 << 20 };

void scrub_check_begin(struct scrub_check *c, struct store *st, const struct scrub_item *item,
                       uint64_t piece)
{
    *c = (struct scrub_check){ .st = st, .item = *item, .piece = piece };
}

static void runs_end(struct scrub_check *c)
{
    sum64_end(c->sum);
    c->sum = NULL;
    seg_index_free(&c->index);
    free(c->runs);
    c->runs = NULL;
}

void scrub_check_end(struct scrub_check *c)
{
    runs_end(c);
    free(c->found);
    *c = (struct scrub_check){ 0 };
}

static struct scrub_finding *found(struct scrub_check *c, uint64_t byte, uint64_t bytes,
                                   const char *what)
{
    struct scrub_finding *f;

    c->found = mem_grow(c->found, (c->n_found + 1) * sizeof *c->found);
    f = &c->found[c->n_found++];
    *f = (struct scrub_finding){
        .kind = c->item.kind, .id = c->item.id, .byte = byte, .bytes = bytes, .what = what
    };
    return f;
}

/* At byte pos of the extent at place. */
static struct scrub_finding *found_at(struct scrub_check *c, uint64_t place, uint64_t pos,
                                      uint64_t bytes, const char *what)
{
    struct scrub_finding *f = found(c, place_pos(place) + pos, bytes, what);

    slab_name(f->file, sizeof f->file, place_slab(place), "");
    return f;
}

/* Reads pages; NULL when they cannot be read: *rc says why. */
static struct buf *read_pages(struct scrub_check *c, struct dev_file *file, uint64_t pos,
                              uint32_t bytes, int *rc)
{
    struct buf *b = buf_new_aligned(bytes);

    *rc = !b ? E_NOMEM : file ? dev_read(c->st->dev, file, pos, b->mem, bytes) : E_IO;
    c->read += bytes;
    if (*rc >= 0)
        return b;
    buf_unref(b);
    return NULL;
}

/* --- superblock and slabs --- */

static const char *super_fault(struct super *one, const uint8_t *mem, uint8_t *again)
{
    if (super_read(one, mem) < 0)
        return "a copy of the superblock fails its checksum";
    return super_is_whole(one, mem, again) ? NULL : "bytes outside the checksum have changed";
}

static void super_check(struct scrub_check *c)
{
    struct super *one = mem_new(sizeof *one);
    uint8_t *again = mem_new(SUPER_BYTES);
    uint64_t generation[SUPER_COPIES] = { 0 }, newest = 0;
    int rc;

    for (unsigned i = 0; i < SUPER_COPIES; i++) {
        uint64_t pos = (uint64_t)i * SUPER_BYTES;
        struct buf *b = read_pages(c, c->st->super_file, pos, SUPER_BYTES, &rc);
        const char *fault = b ? super_fault(one, b->mem, again) : "a copy cannot be read";

        if (fault && rc != E_NOMEM)
            snprintf(found(c, pos, SUPER_BYTES, fault)->file, 16, "superblock");
        generation[i] = fault ? 0 : one->generation;
        newest = generation[i] > newest ? generation[i] : newest;
        buf_unref(b);
    }
    for (unsigned i = 0; i < SUPER_COPIES; i++) /* all four are written each time */
        if (generation[i] && (generation[i] + 1 < newest || generation[i] % 2 != i / 2))
            snprintf(found(c, (uint64_t)i * SUPER_BYTES, SUPER_BYTES, "an old copy")->file, 16,
                     "superblock");
    free(again);
    free(one);
    c->done = true;
}

static const char *slab_fault(const struct scrub_check *c, const uint8_t *mem)
{
    uint8_t again[PAGE_BYTES];
    struct slab_head h;

    if (slab_head_read(&h, mem) < 0)
        return "the slab's header fails its checksum";
    slab_head_write(&h, again);
    if (memcmp(mem, again, PAGE_BYTES) != 0)
        return "bytes outside the checksum have changed";
    return h.number != c->item.id || memcmp(&h.store, &c->st->super.store, sizeof h.store) != 0
               ? "the slab's header belongs elsewhere"
               : NULL;
}

static void slab_check(struct scrub_check *c)
{
    uint64_t place = place_of((uint32_t)c->item.id, 0);
    struct dev_file *file = slabs_file(&c->st->slabs, place, UNIT_LOG2);
    int rc;
    struct buf *b = read_pages(c, file, 0, PAGE_BYTES, &rc);
    const char *fault = b ? slab_fault(c, b->mem) : "the slab's header cannot be read";

    if (fault && rc != E_NOMEM)
        found_at(c, place, 0, PAGE_BYTES, fault);
    buf_unref(b);
    c->done = true;
}

/* --- extent headers --- */

/* NULL: it is sound, as it would be written, and at its place. */
static const char *head_fault(struct scrub_check *c, uint64_t place, uint32_t log2,
                              struct extent_head *h)
{
    uint8_t again[PAGE_BYTES];
    const char *fault = NULL;
    int rc;
    struct buf *b =
        read_pages(c, slabs_file(&c->st->slabs, place, log2), place_pos(place), PAGE_BYTES, &rc);

    if (!b)
        return rc == E_NOMEM ? NULL : "an extent's header cannot be read";
    if (extent_head_read(h, b->mem) < 0) {
        fault = "an extent's header fails its checksum";
    } else {
        extent_head_write(h, again);
        if (memcmp(b->mem, again, PAGE_BYTES) != 0)
            fault = "bytes outside the checksum have changed";
        else if (h->place != place || h->log2 != log2 ||
                 memcmp(&h->store, &c->st->super.store, sizeof h->store) != 0)
            fault = "an extent's header belongs elsewhere";
    }
    buf_unref(b);
    return fault;
}

/* --- closed extents of the WAL --- */

static void wal_head(struct scrub_check *c, const struct wal_extent *x)
{
    struct extent_head h = { 0 };
    const char *fault = head_fault(c, x->place, c->st->wal_log2, &h);

    if (!fault && h.place && (h.kind != EXTENT_WAL || h.incarnation != x->incarnation))
        fault = "an extent's header belongs elsewhere";
    if (fault)
        found_at(c, x->place, 0, PAGE_BYTES, fault)->lsn = x->first_lsn;
}

static bool block_good(const struct scrub_check *c, const struct wal_extent *x, const uint8_t *mem,
                       uint64_t left, uint64_t lsn, struct block_head *h)
{
    return block_head_read(h, &c->st->super.store, x->incarnation, x->salt, mem, left) >= 0 &&
           h->lsn == lsn && block_body_check(h, mem) >= 0;
}

static void wal_found(struct scrub_check *c, const struct wal_extent *x, uint64_t lsn, uint64_t end)
{
    found_at(c, x->place, PAGE_BYTES + (lsn - x->first_lsn), end - lsn, "a block is damaged")->lsn =
        lsn;
}

/* Checks the blocks of mem, the first of which is at lsn; behind a bad one it goes on at the next
 * page that begins a good one. */
static void wal_blocks(struct scrub_check *c, const struct wal_extent *x, const uint8_t *mem,
                       uint64_t bytes, uint64_t lsn)
{
    uint64_t at = 0, bad = UINT64_MAX;

    while (at < bytes) {
        struct block_head h;

        if (block_good(c, x, mem + at, bytes - at, lsn + at, &h)) {
            if (bad != UINT64_MAX)
                wal_found(c, x, lsn + bad, lsn + at);
            bad = UINT64_MAX;
            at += h.block_bytes;
        } else {
            bad = bad == UINT64_MAX ? at : bad;
            at += PAGE_BYTES;
        }
    }
    if (bad != UINT64_MAX)
        wal_found(c, x, lsn + bad, lsn + bytes);
}

/* What cannot be read is taken for zeros: no block. */
static void wal_read(struct scrub_check *c, struct dev_file *file, uint64_t pos, uint8_t *mem,
                     uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += WAL_PIECE) {
        uint32_t n = bytes - at < WAL_PIECE ? (uint32_t)(bytes - at) : WAL_PIECE;

        if (!file || dev_read(c->st->dev, file, pos + at, mem + at, n) < 0)
            memset(mem + at, 0, n);
    }
    c->read += bytes;
}

/* In one step, as recovery reads it: a block may be half an extent long. */
static void wal_extent(struct scrub_check *c, const struct wal_extent *x)
{
    uint64_t bytes = x->end_lsn - x->first_lsn, pos;
    struct dev_file *file = wal_at(&c->st->wal, x, x->first_lsn, &pos);
    struct buf *b;

    if (bytes > wal_room(&c->st->wal)) /* rot at an incarnation's end: no extent holds the rest */
        bytes = wal_room(&c->st->wal);
    b = buf_new_aligned(bytes);
    if (!b)
        return;
    if (!x->head_damaged)
        wal_head(c, x);
    wal_read(c, file, pos, b->mem, bytes);
    wal_blocks(c, x, b->mem, bytes, x->first_lsn);
    buf_unref(b);
}

/* The extent may be freed between two steps: then there is nothing more to check. */
static void wal_step(struct scrub_check *c)
{
    struct wal_extent *x;

    c->done = true;
    if (wal_pin(&c->st->wal, c->item.id, 1, &x) < 0)
        return;
    if (x->end_lsn != LSN_OPEN && x->first_lsn == c->item.id)
        wal_extent(c, x);
    wal_unpin(&c->st->wal, x);
}

/* --- sealed segments --- */

/* A finding at [pos, pos + bytes) of the segment's bytes: at the extent where it begins. */
static void segment_found(struct scrub_check *c, const struct segment *seg, uint64_t pos,
                          uint64_t bytes, const char *what)
{
    for (unsigned i = 0; i < seg->row.n_extents; i++) {
        uint64_t room = seg_extent_room(seg->row.extents[i].log2);

        if (pos < room) {
            found_at(c, seg->row.extents[i].place, PAGE_BYTES + pos, bytes, what);
            return;
        }
        pos -= room;
    }
    found_at(c, seg->row.extents[0].place, 0, bytes, what);
}

static void segment_heads(struct scrub_check *c, const struct segment *seg)
{
    uint64_t pos = 0;

    for (unsigned i = 0; i < seg->row.n_extents; i++) {
        const struct seg_extent *x = &seg->row.extents[i];
        struct extent_head h = { 0 };
        const char *fault = head_fault(c, x->place, x->log2, &h);

        if (!fault && h.place &&
            (h.kind != EXTENT_SEGMENT || h.segment != seg->id || h.index != i || h.pos != pos ||
             h.group != seg->row.group ||
             (h.n_extents != seg->row.n_extents &&
              !(h.n_extents == 0 && pos < seg->row.direct_bytes))))
            fault = "an extent's header belongs elsewhere";
        if (fault)
            found_at(c, x->place, 0, PAGE_BYTES, fault);
        pos += seg_extent_room(x->log2);
    }
}

static const char *footer_fault(const struct scrub_check *c, const struct segment *seg,
                                const uint8_t *mem, struct seg_footer *f)
{
    const struct row_segment *row = &seg->row;
    uint8_t again[PAGE_BYTES];

    if (seg_footer_read(f, mem) < 0)
        return "the footer fails its checksum";
    seg_footer_write(f, again);
    if (memcmp(mem, again, PAGE_BYTES) != 0)
        return "bytes outside the checksum have changed";
    return f->segment != seg->id || f->data_bytes != row->data_bytes ||
                   f->index_pos != row->index_pos || f->index_bytes != row->index_bytes ||
                   f->version != row->version || f->direct_bytes != row->direct_bytes ||
                   f->sorted_pos != row->sorted_pos || f->segment_first != row->segment_first ||
                   f->flags != row->flags ||
                   memcmp(&f->store, &c->st->super.store, sizeof f->store) != 0 ||
                   memcmp(&f->identity, &row->identity, sizeof f->identity) != 0
               ? "the footer belongs elsewhere"
               : NULL;
}

static void segment_footer(struct scrub_check *c, const struct segment *seg)
{
    const struct seg_extent *last = &seg->row.extents[seg->row.n_extents - 1];
    uint64_t inside = ((uint64_t)1 << last->log2) - PAGE_BYTES;
    struct dev_file *file = slabs_file(&c->st->slabs, last->place, last->log2);
    struct seg_footer *f = mem_new(sizeof *f);
    int rc;
    struct buf *b = read_pages(c, file, place_pos(last->place) + inside, PAGE_BYTES, &rc);
    const char *fault = b ? footer_fault(c, seg, b->mem, f) : "the footer cannot be read";

    if (fault && rc != E_NOMEM)
        found_at(c, last->place, inside, PAGE_BYTES, fault);
    buf_unref(b);
    free(f);
}

static struct buf *segment_bytes(struct scrub_check *c, struct segment *seg, uint64_t pos,
                                 uint64_t bytes, const uint8_t **mem, int *rc)
{
    struct buf *b = NULL;
    uint32_t at;

    *rc = segment_read(&c->st->segments, seg, pos, bytes, &b, &at);
    c->read += bytes;
    if (*rc < 0)
        return NULL;
    *mem = b->mem + at;
    return b;
}

static const char *index_fault(struct scrub_check *c, const struct segment *seg, const uint8_t *mem)
{
    uint8_t *again;
    bool same;

    if (seg_index_read(&c->index, mem, seg->row.index_bytes) < 0)
        return "the index fails its checksum";
    again = mem_new(seg->row.index_bytes);
    seg_index_write(&c->index, again);
    same = memcmp(mem, again, seg->row.index_bytes) == 0 && c->index.segment == seg->id;
    free(again);
    if (!same)
        seg_index_free(&c->index);
    return same ? NULL : "bytes outside the checksum have changed";
}

/* Without its index: what can be found again in the data is sound, the rest is not. What was written
 * directly may have gaps and dead runs: there only batches can be counted. */
static void index_lost(struct scrub_check *c, struct segment *seg)
{
    const struct row_segment *row = &seg->row;
    uint64_t sorted = 0, batches = 0;

    c->index = (struct seg_index){ 0 };
    if (segment_index_rebuild(&c->st->segments, seg, &c->index) < 0) {
        c->index = (struct seg_index){ 0 };
        return;
    }
    c->read += seg->row.data_bytes;
    for (uint32_t i = 0; i < c->index.n_runs; i++) {
        if (c->index.runs[i].pos >= row->sorted_pos)
            sorted += SEG_RUN_HEAD_BYTES + c->index.runs[i].bytes;
        batches += c->index.runs[i].n_batches;
    }
    if (sorted != row->data_bytes - row->sorted_pos || batches < row->n_batches)
        segment_found(c, seg, 0, seg->row.data_bytes, "batches are missing");
    seg_index_free(&c->index);
}

static int by_place(const void *a, const void *b)
{
    const struct seg_run *x = a, *y = b;

    return x->pos < y->pos ? -1 : x->pos > y->pos;
}

/* The first step: all but the data. */
static void segment_begin(struct scrub_check *c, struct segment *seg)
{
    const char *fault;
    const uint8_t *mem;
    int rc;
    struct buf *b = segment_bytes(c, seg, seg->row.index_pos, seg->row.index_bytes, &mem, &rc);

    c->begun = true;
    segment_heads(c, seg);
    segment_footer(c, seg);
    fault = b ? index_fault(c, seg, mem) : "the index cannot be read";
    buf_unref(b);
    if (fault && rc != E_NOMEM)
        segment_found(c, seg, seg->row.index_pos, seg->row.index_bytes, fault);
    if (fault) {
        index_lost(c, seg);
        return;
    }
    c->runs = mem_new((c->index.n_runs + 1) * sizeof *c->runs);
    memcpy(c->runs, c->index.runs, c->index.n_runs * sizeof *c->runs);
    qsort(c->runs, c->index.n_runs, sizeof *c->runs, by_place);
}

static void run_begin(struct scrub_check *c)
{
    const struct seg_run *run = &c->runs[c->run];

    c->at = 0;
    c->next = run->base;
    c->run_damaged = false;
    sum64_end(c->sum);
    c->sum = sum64_new();
}

static void run_end(struct scrub_check *c, const struct segment *seg)
{
    const struct seg_run *run = &c->runs[c->run];
    uint64_t sum = sum64_end(c->sum);

    c->sum = NULL;
#ifdef WEIR_MUTANT_SCRUB_SKIPS
    c->run_damaged = true;
#endif
    if (!c->run_damaged && (sum != run->xxh3 || c->next != run->end))
        segment_found(c, seg, run->pos, run->bytes, "a run fails its checksum");
    c->run++;
    c->at = 0;
}

/* Steps over a damaged batch: to the next one that the index knows of. */
static void batch_lost(struct scrub_check *c, const struct segment *seg, const char *what)
{
    const struct seg_run *run = &c->runs[c->run];
    const struct seg_sparse *n = &c->index.sparse[run->first_sparse];
    uint64_t to = run->bytes, next = run->end;

    for (uint32_t i = 0; i < run->n_sparse; i++) {
        if (n[i].pos > c->at) {
            to = n[i].pos;
            next = n[i].offset;
            break;
        }
    }
#ifndef WEIR_MUTANT_SCRUB_SKIPS
    segment_found(c, seg, run->pos + c->at, to - c->at, what);
#endif
    c->run_damaged = true;
    c->at = to;
    c->next = next;
}

/* The batches of the present run in mem, of which `bytes` are there; first: with nothing else before
 * them in the piece, which was then made large enough for the one. False: one is cut by the piece. */
static bool run_batches(struct scrub_check *c, const struct segment *seg, const uint8_t *mem,
                        uint64_t bytes, bool first)
{
    const struct seg_run *run = &c->runs[c->run];
    uint64_t start = c->at;

    while (c->at < run->bytes) {
        const uint8_t *p = mem + (c->at - start);
        uint64_t left = c->at - start < bytes ? bytes - (c->at - start) : 0;
        bool all = left >= run->bytes - c->at;
        struct batch_head h;

        if (!all &&
            (left < BATCH_HEAD_BYTES || (uint64_t)get_u32be(p + 8) + BATCH_LENGTH_END > left) &&
            (!first || c->at > start || left < BATCH_HEAD_BYTES))
            return false;
        if (left < BATCH_HEAD_BYTES || batch_check_at(&h, p, left, c->next) < 0) {
            batch_lost(c, seg, "a batch is damaged");
            continue;
        }
        sum64_add(c->sum, p, h.bytes);
        c->at += h.bytes;
        c->next += (uint64_t)h.last_offset_delta + 1;
    }
    run_end(c, seg);
    return true;
}

/* The length of the batch at the present place when a piece is too small for it. */
static uint64_t data_want(struct scrub_check *c, struct segment *seg, uint64_t pos, uint64_t left)
{
    const struct seg_run *run = &c->runs[c->run];
    uint64_t want = left < c->piece ? left : c->piece, length;
    uint64_t head = c->at == 0 ? SEG_RUN_HEAD_BYTES : 0;
    const uint8_t *mem;
    struct buf *b;
    int rc;

    if (want == left)
        return want;
    b = segment_bytes(c, seg, pos + head, BATCH_HEAD_BYTES, &mem, &rc);
    if (!b)
        return want;
    length = head + get_u32be(mem + 8) + BATCH_LENGTH_END;
    buf_unref(b);
    return length > want && length <= head + run->bytes - c->at ? length : want;
}

/* Runs from the present place on, as far as the bytes of mem, which begin at pos of the data, go. */
static void data_runs(struct scrub_check *c, const struct segment *seg, const uint8_t *mem,
                      uint64_t pos, uint64_t bytes)
{
    while (c->run < c->index.n_runs) {
        const struct seg_run *run = &c->runs[c->run];
        uint64_t at = run->pos + c->at;
        bool first = at - (c->at ? 0 : SEG_RUN_HEAD_BYTES) == pos;
        struct seg_run head;

        if (c->at == 0) {
            if (at > pos + bytes || at - SEG_RUN_HEAD_BYTES < pos)
                return;
            run_begin(c);
            if (seg_run_head_read(&head, seg->id, mem + (at - SEG_RUN_HEAD_BYTES - pos),
                                  UINT32_MAX) < 0 ||
                head.shard != run->shard || head.base != run->base || head.bytes != run->bytes)
                segment_found(c, seg, at - SEG_RUN_HEAD_BYTES, SEG_RUN_HEAD_BYTES,
                              "the header of a run is damaged");
        }
        if (at >= pos + bytes || !run_batches(c, seg, mem + (at - pos), pos + bytes - at, first))
            return;
    }
}

static void data_step(struct scrub_check *c, struct segment *seg)
{
    const struct seg_run *run = &c->runs[c->run];
    uint64_t pos = c->at ? run->pos + c->at : run->pos - SEG_RUN_HEAD_BYTES;
    uint64_t want = data_want(c, seg, pos, seg->row.data_bytes - pos), at = c->at;
    uint32_t before = c->run;
    const uint8_t *mem;
    int rc;
    struct buf *b = segment_bytes(c, seg, pos, want, &mem, &rc);

    if (b) {
        data_runs(c, seg, mem, pos, want);
    } else if (rc == E_NOMEM) {
        c->run = c->index.n_runs;
    } else {
        if (c->at == 0)
            run_begin(c);
        batch_lost(c, seg, "the bytes cannot be read");
        if (c->at >= run->bytes)
            run_end(c, seg);
    }
    buf_unref(b);
    if (c->run == before && c->at == at) { /* a length that leads nowhere */
        if (c->at == 0)
            run_begin(c);
        batch_lost(c, seg, "a batch is damaged");
        if (c->at >= run->bytes)
            run_end(c, seg);
    }
}

/* What lies between data and index is zero. */
static void padding_check(struct scrub_check *c, struct segment *seg)
{
    uint64_t bytes = seg->row.index_pos - seg->row.data_bytes;
    const uint8_t *mem;
    int rc;
    struct buf *b = bytes ? segment_bytes(c, seg, seg->row.data_bytes, bytes, &mem, &rc) : NULL;

    if (b && !bytes_are_zero(mem, bytes))
        segment_found(c, seg, seg->row.data_bytes, bytes, "the bytes behind the data are not zero");
    buf_unref(b);
}

/* It may be deleted between two steps: then there is nothing more to check. */
static void segment_step(struct scrub_check *c)
{
    struct segment *seg = segment_pin(&c->st->segments, c->item.id);

    c->done = true;
    if (!seg)
        return;
    if (!c->begun)
        segment_begin(c, seg);
    else
        data_step(c, seg);
    c->done = c->run >= c->index.n_runs;
    if (c->done)
        padding_check(c, seg);
    segment_unpin(&c->st->segments, seg);
}

void scrub_check_step(struct scrub_check *c)
{
    c->read = 0;
    switch (c->item.kind) {
    case SCRUB_SUPER:
        super_check(c);
        break;
    case SCRUB_SLAB:
        slab_check(c);
        break;
    case SCRUB_WAL:
        wal_step(c);
        break;
    case SCRUB_SEGMENT:
        segment_step(c);
        break;
    }
}
