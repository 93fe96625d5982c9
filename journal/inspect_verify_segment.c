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
                       h.index != i || h.pos != pos ||
                       (h.n_extents != s->row->n_extents &&
                        !(h.n_extents == 0 && pos < s->row->direct_bytes))))
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

void inspect_verify_identity(struct sum128_state *identity, const struct row_segment *row,
                             uint64_t shard, const uint8_t *mem, uint32_t bytes)
{
    uint64_t pair[2] = { htole64(shard), htole64(sum_xxh3(mem, bytes, 0)) };

    if (row->version > 1) {
        sum128_add(identity, pair, sizeof pair);
    } else {
        sum128_add(identity, pair, sizeof pair[0]);
        sum128_add(identity, mem, bytes);
    }
}

static void walk_batches(struct sealed *s, struct walked *w, const struct seg_run *run,
                         const uint8_t *mem, uint64_t pos)
{
    uint64_t at = 0, next = run->base;

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
            inspect_verify_identity(w->identity, s->row, run->shard, mem + at, h.bytes);
            seg_builder_add(&w->builder, run->shard, &h);
            s->p->report->batches++;
        }
        next = next + (uint64_t)h.last_offset_delta + 1;
        at += h.bytes;
    }
}

static void walk_run(struct sealed *s, struct walked *w, const struct seg_run *run,
                     const uint8_t *data)
{
    w->builder.pos = run->pos - SEG_RUN_HEAD_BYTES;
    w->builder.cut = true;
    walk_batches(s, w, run, data + run->pos, run->pos);
    s->p->report->runs++;
}

/* The data as the index names it. */
static void indexed_data(struct sealed *s, struct walked *w, const struct seg_index *x,
                         const uint8_t *data)
{
    for (uint32_t i = 0; i < x->n_runs; i++) {
        const struct seg_run *want = &x->runs[i];
        struct seg_run run;

        if (want->pos < SEG_RUN_HEAD_BYTES || want->pos > s->row->data_bytes ||
            want->bytes > s->row->data_bytes - want->pos) {
            segment_damage(s, s->row->index_pos, s->row->index_bytes,
                           "the index names a run that is not there");
            w->damaged = true;
            continue;
        }
        if (seg_run_head_read(&run, s->id, data + want->pos - SEG_RUN_HEAD_BYTES,
                              want->bytes + SEG_RUN_HEAD_BYTES) < 0 ||
            run.shard != want->shard || run.base != want->base || run.bytes != want->bytes ||
            run.n_batches != want->n_batches) {
            segment_damage(s, want->pos - SEG_RUN_HEAD_BYTES, SEG_RUN_HEAD_BYTES,
                           "the header of a run is damaged");
            w->damaged = true;
        }
        walk_run(s, w, want, data);
        if (!w->damaged && sum_xxh3(data + want->pos, want->bytes, 0) != want->xxh3) {
            segment_damage(s, want->pos, want->bytes, "a run fails its checksum");
            w->damaged = true;
        }
    }
}

/* Without an index: what lies behind one another from pos on. What was written directly may have gaps,
 * and batches that nothing names: there all that can be told is in the index. */
static void plain_data(struct sealed *s, struct walked *w, const uint8_t *data)
{
    uint64_t pos = s->row->sorted_pos, bytes = s->row->data_bytes;

    w->damaged = w->damaged || s->row->direct_bytes > 0;
    while (pos < bytes) {
        struct seg_run run;

        if (seg_run_head_read(&run, s->id, data + pos, bytes - pos) < 0) {
            segment_damage(s, pos, SEG_RUN_HEAD_BYTES, "the header of a run is damaged");
            w->damaged = true;
            return;
        }
        run.pos = pos + SEG_RUN_HEAD_BYTES;
        walk_run(s, w, &run, data);
        pos = run.pos + run.bytes;
    }
}

/* The index that the data gives must be the stored one, byte for byte. */
static void index_compare(struct sealed *s, struct walked *w, const uint8_t *data,
                          const uint8_t *stored, uint16_t version)
{
    struct seg_index *x = &w->builder.index;
    size_t bytes = seg_index_bytes(x->n_runs, x->n_sparse, x->n_producers);
    uint8_t *again = mem_new(bytes);

    x->segment = s->id;
    x->version = version;
    for (uint32_t i = 0; i < x->n_runs; i++)
        seg_run_sum(x, i, data + x->runs[i].pos);
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
        f->n_extents != row->n_extents || f->version != row->version ||
        f->direct_bytes != row->direct_bytes || f->sorted_pos != row->sorted_pos ||
        f->segment_first != row->segment_first || f->flags != row->flags ||
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

    if (has_index)
        indexed_data(s, w, &x, data);
    else
        plain_data(s, w, data);
    if (has_index && !w->damaged)
        index_compare(s, w, data, index, x.version);
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
    while (hash_next(&t->by_id, &pos, &id, &value)) {
        struct segment *seg = value;

        if (only && id != only)
            continue;
        for (unsigned i = 0; i < seg->row.n_extents; i++)
            if (seg->row.extents[i].place != PLACE_NONE)
                inspect_verify_used(p, seg->row.extents[i].place, seg->row.extents[i].log2, id);
        if (!seg->open) /* the WAL speaks for an open one */
            segment_check(p, id, seg);
    }
    return 0;
}
