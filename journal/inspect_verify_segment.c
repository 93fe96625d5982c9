/* Verifying sealed segments: headers, data, identity, zeros, index, footer. */
#include "journal/inspect_verify_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/sum.h"
#include "journal/io/dev.h"

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
            inspect_verify_damage(s->p, INSPECT_SEGMENTS, at.file, at.byte, to - from,
                                  "segment %" PRIu64 ": %s", s->id, text)
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
        const char *fault = inspect_verify_head(s->p, x->place, x->log2, &h);
        struct inspect_place at;

        if (!fault && (h.kind != EXTENT_SEGMENT || h.segment != s->id || h.group != s->row->group ||
                       h.index != i || h.n_extents != s->row->n_extents || h.pos != pos))
            fault = "it belongs to another";
        inspect_place_set(&at, x->place, 0);
        if (fault)
            inspect_verify_damage(s->p, INSPECT_SEGMENTS, at.file, at.byte, PAGE_BYTES,
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
    int rc = segment_read(&s->p->in->st->segments, s->seg, pos, bytes, &b, &at);

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
    struct dev_file *file = slabs_file(&s->p->in->st->slabs, last->place, last->log2);
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
        inspect_verify_damage(s->p, INSPECT_SEGMENTS, at.file, at.byte, PAGE_BYTES,
                              "segment %" PRIu64 ": %s", s->id, fault)
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

/* Whether a segment was deleted since and one of its extents belongs to somebody else by now. */
static bool segment_gone(struct pass *p, uint64_t id, const struct row_segment *row)
{
    for (unsigned i = 0; i < row->n_extents; i++) {
        struct extent_head h = { 0 };

        if (!inspect_verify_head(p, row->extents[i].place, p->in->st->wal_log2, &h) ||
            !inspect_verify_head(p, row->extents[i].place, row->extents[i].log2, &h))
            if (h.kind != EXTENT_SEGMENT || h.segment != id)
                return inspect_moved(p->in);
    }
    return false;
}

static void segment_check(struct pass *p, uint64_t id, struct segment *seg)
{
    struct sealed s = { .p = p, .id = id, .row = &seg->row, .seg = seg };
    struct walked w = { .identity = sum128_new() };
    const uint8_t *data = NULL;
    unsigned before = p->report->n;
    struct sum128 sum;
    struct buf *b;

    p->report->segments++;
    p->report->segment_bytes += seg->row.data_bytes + seg->row.index_bytes;
    for (unsigned i = 0; i < seg->row.n_extents; i++)
        inspect_verify_used(p, seg->row.extents[i].place, seg->row.extents[i].log2, id);
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
    if (p->report->n > before && segment_gone(p, id, &seg->row))
        p->report->n = before;
    seg_builder_free(&w.builder);
    buf_unref(b);
}

int inspect_verify_segments(struct pass *p, uint64_t only)
{
    struct segments *t = &p->in->st->segments;
    uint64_t pos = 0, id;
    void *value;

    if (only && !hash_get(&t->by_id, only))
        return E_NOTFOUND;
    while (hash_next(&t->by_id, &pos, &id, &value))
        if (!only || id == only)
            segment_check(p, id, value);
    return 0;
}
