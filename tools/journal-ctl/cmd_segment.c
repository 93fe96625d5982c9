/* journal-ctl segment ls | identity | head | dump | verify */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "format/extent.h"
#include "tools/journal-ctl/ctl.h"
#include "tools/journal-ctl/records.h"

enum { SHOWN_BYTES = 60 };

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const struct emit_column segment_columns[] = {
    { "id", EMIT_NUMBER, false },          { "group", EMIT_NUMBER, false },
    { "first_entry", EMIT_NUMBER, false }, { "last_entry", EMIT_NUMBER, false },
    { "batches", EMIT_NUMBER, false },     { "data_bytes", EMIT_BYTES, false },
    { "live_bytes", EMIT_BYTES, false },   { "space", EMIT_BYTES, false },
    { "extents", EMIT_NUMBER, false },     { "min_timestamp", EMIT_TIME, false },
    { "max_timestamp", EMIT_TIME, false }, { "created", EMIT_TIME, false },
};

static int segment_row(void *ctx, const struct inspect_segment *s)
{
    struct ctl *c = ctx;

    EMIT_ROW(c->emit, C_U64(s->id), C_U64(s->row->group), C_U64(s->row->first_entry),
             C_U64(s->row->last_entry), C_U64(s->row->n_batches), C_U64(s->row->data_bytes),
             C_U64(s->live), C_U64(s->space), C_U64(s->row->n_extents), C_I64(s->row->min_ts),
             C_I64(s->row->max_ts), C_I64(s->row->created));
    return 0;
}

static const struct emit_column logical_columns[] = {
    { "group", EMIT_NUMBER, false },      { "first_entry", EMIT_NUMBER, false },
    { "last_entry", EMIT_NUMBER, false }, { "ended", EMIT_BOOL, false },
    { "several", EMIT_BOOL, false },      { "pieces", EMIT_NUMBER, false },
};

static int logical_row(void *ctx, const struct identity *x)
{
    struct ctl *c = ctx;

    EMIT_ROW(c->emit, C_U64(x->group), C_U64(x->first), C_U64(x->last), C_BOOL(x->ended),
             C_BOOL(x->several), C_U64(x->n_pieces));
    return 0;
}

int cmd_segment_ls(struct ctl *c, struct err *e)
{
    if (c->logical) {
        emit_section(c->emit, "segments", logical_columns, COUNT(logical_columns), false);
        return inspect_logical(c->in, UINT64_MAX, logical_row, c);
    }
    emit_section(c->emit, "segments", segment_columns, COUNT(segment_columns), false);
    return inspect_segments(c->in, segment_row, c);
}

/* --- identity --------------------------------------------------------------------------------- */

static const struct emit_column identity_columns[] = {
    { "group", EMIT_NUMBER, false },      { "first_entry", EMIT_NUMBER, false },
    { "last_entry", EMIT_NUMBER, false }, { "ended", EMIT_BOOL, false },
    { "several", EMIT_BOOL, false },      { "pieces", EMIT_NUMBER, false },
    { "batches", EMIT_NUMBER, false },    { "bytes", EMIT_BYTES, false },
    { "identity", EMIT_TEXT, false },
};

static void hex(const uint8_t *mem, size_t bytes, char *out);

int cmd_segment_identity(struct ctl *c, struct err *e)
{
    struct identity x;
    uint64_t group, entry;
    char sum[33];
    int rc = names_number(c->target, &group) && names_number(c->folder, &entry) ? 0 : E_NOTFOUND;

    if (rc >= 0)
        rc = inspect_segment_identity(c->in, group, entry, &x);
    if (rc < 0)
        return err_set(e, rc, "group %s, entry %s: %s", c->target, c->folder,
                       rc == E_NOTFOUND ? "no such segment" : err_text(rc));
    hex(x.sum.bytes, sizeof x.sum.bytes, sum);
    emit_section(c->emit, "segment", identity_columns, COUNT(identity_columns), true);
    EMIT_ROW(c->emit, C_U64(x.group), C_U64(x.first), C_U64(x.last), C_BOOL(x.ended),
             C_BOOL(x.several), C_U64(x.n_pieces), C_U64(x.n_batches), C_U64(x.bytes), C_TEXT(sum));
    return 0;
}

/* --- head ------------------------------------------------------------------------------------- */

static const struct emit_column head_columns[] = {
    { "id", EMIT_NUMBER, false },
    { "group", EMIT_NUMBER, false },
    { "store", EMIT_TEXT, false },
    { "first_entry", EMIT_NUMBER, false },
    { "last_entry", EMIT_NUMBER, false },
    { "batches", EMIT_NUMBER, false },
    { "offsets", EMIT_NUMBER, false },
    { "data_bytes", EMIT_BYTES, false },
    { "live_bytes", EMIT_BYTES, false },
    { "index_pos", EMIT_NUMBER, false },
    { "index_bytes", EMIT_BYTES, false },
    { "runs", EMIT_NUMBER, false },
    { "sparse_entries", EMIT_NUMBER, false },
    { "producer_entries", EMIT_NUMBER, false },
    { "min_timestamp", EMIT_TIME, false },
    { "max_timestamp", EMIT_TIME, false },
    { "created", EMIT_TIME, false },
    { "identity", EMIT_TEXT, false },
};
static const struct emit_column extent_columns[] = {
    { "extent", EMIT_NUMBER, false }, { "file", EMIT_TEXT, false },  { "byte", EMIT_NUMBER, false },
    { "bytes", EMIT_BYTES, false },   { "pos", EMIT_NUMBER, false },
};

static void hex(const uint8_t *mem, size_t bytes, char *out)
{
    for (size_t i = 0; i < bytes; i++)
        snprintf(out + i * 2, 3, "%02x", mem[i]);
}

static void head_one(struct ctl *c, const struct inspect_segment *s, const struct seg_footer *f,
                     const struct seg_index *x)
{
    char store[33], identity[33];

    hex(f->store.bytes, sizeof f->store.bytes, store);
    hex(f->identity.bytes, sizeof f->identity.bytes, identity);
    emit_section(c->emit, "segment", head_columns, COUNT(head_columns), true);
    EMIT_ROW(c->emit, C_U64(s->id), C_U64(f->group), C_TEXT(store), C_U64(f->first_entry),
             C_U64(f->last_entry), C_U64(f->n_batches), C_U64(f->n_offsets), C_U64(f->data_bytes),
             C_U64(s->live), C_U64(f->index_pos), C_U64(f->index_bytes), C_U64(x->n_runs),
             C_U64(x->n_sparse), C_U64(x->n_producers), C_I64(f->min_ts), C_I64(f->max_ts),
             C_I64(f->created), C_TEXT(identity));
}

static void head_extents(struct ctl *c, const struct seg_footer *f)
{
    uint64_t pos = 0;

    emit_section(c->emit, "extents", extent_columns, COUNT(extent_columns), false);
    for (unsigned i = 0; i < f->n_extents; i++) {
        char file[32];

        snprintf(file, sizeof file, "slab-%06" PRIu32, place_slab(f->extents[i].place));
        EMIT_ROW(c->emit, C_U64(i), C_TEXT(file), C_U64(place_pos(f->extents[i].place)),
                 C_U64((uint64_t)1 << f->extents[i].log2), C_U64(pos));
        pos += seg_extent_room(f->extents[i].log2);
    }
}

int cmd_segment_head(struct ctl *c, struct err *e)
{
    const struct seg_index *x;
    struct inspect_segment s;
    static struct seg_footer f;
    uint64_t id;
    int rc = ctl_segment(c, &id, e);

    if (rc >= 0)
        rc = inspect_segment(c->in, id, &s);
    if (rc >= 0)
        rc = inspect_footer(c->in, id, &f);
    if (rc < 0)
        return err_set(e, rc, "segment %" PRIu64 ": footer: %s", id, err_text(rc));
    rc = inspect_index(c->in, id, &x);
    if (rc < 0)
        return rc;
    head_one(c, &s, &f, x);
    head_extents(c, &f);
    return 0;
}

/* --- dump ------------------------------------------------------------------------------------- */

static const struct emit_column batch_columns[] = {
    { "shard", EMIT_NUMBER, false },
    { "offset", EMIT_NUMBER, false },
    { "count", EMIT_NUMBER, false },
    { "bytes", EMIT_NUMBER, false },
    { "codec", EMIT_TEXT, false },
    { "base_timestamp", EMIT_TIME, false },
    { "max_timestamp", EMIT_TIME, false },
    { "producer", EMIT_NUMBER, false },
    { "producer_epoch", EMIT_NUMBER, true },
    { "base_sequence", EMIT_NUMBER, false },
    { "transactional", EMIT_BOOL, true },
    { "control", EMIT_BOOL, true },
    { "leader_epoch", EMIT_NUMBER, true },
    { "crc_ok", EMIT_BOOL, false },
    { "file", EMIT_TEXT, false },
    { "byte", EMIT_NUMBER, false },
};
static const struct emit_column record_columns[] = {
    { "shard", EMIT_NUMBER, false },   { "offset", EMIT_NUMBER, false },
    { "timestamp", EMIT_TIME, false }, { "key", EMIT_TEXT, false },
    { "value", EMIT_TEXT, false },     { "headers", EMIT_NUMBER, false },
    { "crc_ok", EMIT_BOOL, true },
};

struct dump {
    struct ctl *c;
    uint64_t shard;
    size_t shown; /* bytes of keys and values; 0: all */
    uint64_t bad;
    uint64_t only; /* a shard; 0: all */
    uint64_t segment;
    bool silent;
};

static int dump_record(void *ctx, const struct batch_head *h, const struct batch_record *r)
{
    struct dump *d = ctx;
    char *key = records_escape(r->key, r->key_bytes, d->shown);
    char *value = records_escape(r->value, r->value_bytes, d->shown);

    EMIT_ROW(d->c->emit, C_U64(d->shard), C_U64((uint64_t)r->offset), C_I64(r->timestamp),
             C_TEXT(key), C_TEXT(value), C_U64(r->n_headers), C_BOOL(true));
    free(key);
    free(value);
    return 0;
}

static void dump_batch_row(struct dump *d, const struct inspect_batch *b)
{
    const struct batch_head *h = &b->head;

    if (!b->ok) {
        EMIT_ROW(d->c->emit, C_U64(b->shard), C_NONE, C_NONE, C_U64(b->bytes), C_NONE, C_NONE,
                 C_NONE, C_NONE, C_NONE, C_NONE, C_NONE, C_NONE, C_NONE, C_BOOL(false),
                 C_TEXT(b->at.file), C_U64(b->at.byte));
        return;
    }
    EMIT_ROW(d->c->emit, C_U64(b->shard), C_U64((uint64_t)h->base_offset),
             C_U64((uint64_t)h->record_count), C_U64(b->bytes),
             C_TEXT(records_codec(h->attributes)), C_I64(h->base_timestamp),
             C_I64(h->max_timestamp), C_I64_BUT(h->producer_id, -1),
             C_I64_BUT(h->producer_epoch, -1), C_I64_BUT(h->base_sequence, -1),
             C_BOOL((h->attributes & BATCH_ATTR_TRANSACTIONAL) != 0),
             C_BOOL((h->attributes & BATCH_ATTR_CONTROL) != 0), C_I64(h->leader_epoch),
             C_BOOL(true), C_TEXT(b->at.file), C_U64(b->at.byte));
}

static int dump_batch(void *ctx, const struct inspect_batch *b)
{
    struct dump *d = ctx;

    if (!b->ok)
        d->bad++;
    if (d->silent)
        return 0;
    d->shard = b->shard;
    if (!d->c->records) {
        dump_batch_row(d, b);
    } else if (!b->ok) {
        EMIT_ROW(d->c->emit, C_U64(b->shard), C_NONE, C_NONE, C_NONE, C_NONE, C_NONE,
                 C_BOOL(false));
    } else if (records_each(b->mem, b->bytes, dump_record, d) < 0) {
        d->bad++;
    }
    return 0;
}

static int dump_runs(struct dump *d, const struct seg_index *x)
{
    int rc = 0;

    for (uint32_t i = 0; rc >= 0 && i < x->n_runs; i++) {
        struct inspect_run run = { .base = x->runs[i].base,
                                   .end = x->runs[i].end,
                                   .segment = d->segment,
                                   .pos = x->runs[i].pos,
                                   .bytes = x->runs[i].bytes,
                                   .max_ts = x->runs[i].max_ts };

        if (!d->only || x->runs[i].shard == d->only)
            rc = inspect_run_batches(d->c->in, x->runs[i].shard, &run, dump_batch, d);
    }
    return rc;
}

int cmd_segment_dump(struct ctl *c, struct err *e)
{
    struct dump d = { .c = c, .shown = emit_is_table(c->emit) ? SHOWN_BYTES : 0, .silent = true };
    const struct seg_index *x;
    int rc = ctl_segment(c, &d.segment, e);

    if (rc >= 0 && c->shard)
        rc = ctl_shard(c, c->shard, &d.only, e);
    if (rc >= 0)
        rc = inspect_index(c->in, d.segment, &x);
    if (rc >= 0)
        rc = dump_runs(&d, x); /* in silence: a segment that was deleted meanwhile is no damage */
    if (rc >= 0 && d.bad && !c->last_try && inspect_moved(c->in))
        rc = E_BUSY;
    if (rc < 0)
        return rc;
    d.silent = false;
    d.bad = 0;
    if (c->records)
        emit_section(c->emit, "records", record_columns, COUNT(record_columns), false);
    else
        emit_section(c->emit, "batches", batch_columns, COUNT(batch_columns), false);
    rc = dump_runs(&d, x);
    if (rc >= 0 && d.bad)
        rc = err_set(e, E_CORRUPT, "segment %" PRIu64 ": %" PRIu64 " batches are damaged",
                     d.segment, d.bad);
    return rc;
}

int cmd_segment_verify(struct ctl *c, struct err *e)
{
    struct inspect_report r;
    uint64_t id;
    int rc = ctl_segment(c, &id, e);

    if (rc >= 0)
        rc = inspect_verify(c->data, INSPECT_SEGMENTS, id, &r, e);
    if (rc < 0)
        return rc;
    rc = ctl_report(c, &r, INSPECT_SEGMENTS);
    inspect_report_free(&r);
    return ctl_verdict(c, rc);
}
