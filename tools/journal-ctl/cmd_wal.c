/* journal-ctl wal dump | verify */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "format/block.h"
#include "format/frame.h"
#include "tools/journal-ctl/ctl.h"
#include "tools/journal-ctl/records.h"

enum { SHOWN_BYTES = 60, ENOUGH = 1 };

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const struct emit_column dump_columns[] = {
    { "type", EMIT_TEXT, false },     { "lsn", EMIT_NUMBER, false },
    { "bytes", EMIT_NUMBER, false },  { "file", EMIT_TEXT, false },
    { "byte", EMIT_NUMBER, false },   { "incarnation", EMIT_NUMBER, false },
    { "group", EMIT_NUMBER, false },  { "epoch", EMIT_NUMBER, false },
    { "entry", EMIT_NUMBER, false },  { "shard", EMIT_NUMBER, false },
    { "offset", EMIT_NUMBER, false }, { "count", EMIT_NUMBER, false },
    { "time", EMIT_TIME, false },     { "durable_lsn", EMIT_NUMBER, true },
    { "lac", EMIT_NUMBER, true },     { "note", EMIT_TEXT, false },
    { "key", EMIT_TEXT, false },      { "value", EMIT_TEXT, false },
};
enum { COLUMNS = COUNT(dump_columns), COLUMNS_NO_RECORDS = COLUMNS - 2 };

/* One row, by name; what is not set is none. */
struct dump_row {
    struct emit_cell type, lsn, bytes, file, byte, incarnation, group, epoch, entry, shard, offset,
        count, time, durable_lsn, lac, note, key, value;
};

struct dump {
    struct ctl *c;
    uint64_t incarnation, n_blocks;
    bool rot;
    uint64_t shard; /* while records are shown */
    size_t shown;
};

static void dump_emit(struct dump *d, const struct dump_row *r)
{
    struct emit_cell cells[COLUMNS] = {
        r->type,  r->lsn,         r->bytes, r->file,  r->byte,   r->incarnation,
        r->group, r->epoch,       r->entry, r->shard, r->offset, r->count,
        r->time,  r->durable_lsn, r->lac,   r->note,  r->key,    r->value,
    };

    emit_row(d->c->emit, cells, d->c->records ? COLUMNS : COLUMNS_NO_RECORDS);
}

static int dump_extent(void *ctx, const struct inspect_extent *x)
{
    struct dump *d = ctx;

    if (x->incarnation != d->incarnation)
        dump_emit(d, &(struct dump_row){ .type = C_TEXT("incarnation"),
                                         .lsn = C_U64(x->first_lsn),
                                         .incarnation = C_U64(x->incarnation) });
    d->incarnation = x->incarnation;
    dump_emit(d, &(struct dump_row){ .type = C_TEXT("extent"),
                                     .lsn = C_U64(x->first_lsn),
                                     .file = C_TEXT(x->at.file),
                                     .byte = C_U64(x->at.byte),
                                     .incarnation = C_U64(x->incarnation),
                                     .note = C_TEXT(x->head_damaged ? "header damaged" : NULL) });
    return 0;
}

static int dump_record(void *ctx, const struct batch_head *h, const struct batch_record *r)
{
    struct dump *d = ctx;
    char *key = records_escape(r->key, r->key_bytes, d->shown);
    char *value = records_escape(r->value, r->value_bytes, d->shown);

    dump_emit(d, &(struct dump_row){ .type = C_TEXT("record"),
                                     .shard = C_U64(d->shard),
                                     .offset = C_U64((uint64_t)r->offset),
                                     .time = C_I64(r->timestamp),
                                     .key = C_TEXT(key),
                                     .value = C_TEXT(value) });
    free(key);
    free(value);
    return 0;
}

static void dump_item(struct dump *d, const struct frame_item *item, const uint8_t *mem,
                      uint64_t lsn, uint64_t group, const char *note)
{
    dump_emit(d, &(struct dump_row){ .type = C_TEXT("item"),
                                     .lsn = C_U64(lsn),
                                     .bytes = C_U64(item->bytes),
                                     .group = C_U64(group),
                                     .shard = C_U64(item->shard),
                                     .offset = C_U64(item->base_offset),
                                     .count = C_U64(item->n_offsets),
                                     .note = C_TEXT(note) });
    d->shard = item->shard;
    if (d->c->records && mem && records_each(mem, item->bytes, dump_record, d) < 0)
        dump_emit(d, &(struct dump_row){ .type = C_TEXT("record"),
                                         .shard = C_U64(item->shard),
                                         .note = C_TEXT("does not decode") });
}

static void dump_inline(struct dump *d, const struct frame_item *item, const uint8_t *mem,
                        uint64_t lsn, uint64_t group)
{
    struct batch_head h;
    bool ok = batch_check(&h, mem, item->bytes) >= 0;

    dump_item(d, item, ok ? mem : NULL, lsn, group,
              ok ? records_codec(h.attributes) : "fails its checksum");
}

/* A direct batch: its bytes are in an open segment, or in the sealed one that this has become. */
struct dump_direct {
    struct dump *d;
    const struct frame_item *item;
    uint64_t lsn, group;
    const char *where;
};

static int dump_direct_batch(void *ctx, const struct inspect_batch *b)
{
    struct dump_direct *x = ctx;
    char note[96];

    snprintf(note, sizeof note, "%s, %s",
             b->ok ? records_codec(b->head.attributes) : "fails its checksum", x->where);
    dump_item(x->d, x->item, b->ok ? b->mem : NULL, x->lsn, x->group, note);
    return 1;
}

static void dump_direct(struct dump *d, const struct frame_item *item,
                        const struct block_placement *at, uint64_t lsn, uint64_t group)
{
    struct inspect_run run = {
        .base = item->base_offset, .segment = at->segment, .pos = at->pos, .bytes = item->bytes
    };
    char where[64];
    struct dump_direct x = { d, item, lsn, group, where };

    snprintf(where, sizeof where, "in segment %" PRIu64 " at %" PRIu64, at->segment, at->pos);
    if (inspect_run_batches(d->c->in, item->shard, &run, dump_direct_batch, &x) < 0)
        dump_item(d, item, NULL, lsn, group, where);
}

static const char *frame_note(const struct frame_head *f)
{
    if (f->flags & FRAME_RESTART)
        return f->flags & FRAME_CUT ? "restart, ends its segment" : "restart";
    return f->flags & FRAME_CUT ? "ends its segment" : NULL;
}

/* *placement: of the block's next direct item. */
static void dump_frame(struct dump *d, const struct block_head *h, const uint8_t *mem,
                       const struct block_dir *dir, uint32_t *placement)
{
    struct frame_head f;
    uint32_t at;

    if (frame_head_read(&f, mem + dir->pos, dir->bytes) < 0) {
        dump_emit(d, &(struct dump_row){ .type = C_TEXT("frame"),
                                         .lsn = C_U64(h->lsn + dir->pos),
                                         .bytes = C_U64(dir->bytes),
                                         .group = C_U64(dir->group),
                                         .entry = C_U64(dir->entry),
                                         .note = C_TEXT("makes no sense") });
        return;
    }
    dump_emit(d, &(struct dump_row){ .type = C_TEXT("frame"),
                                     .lsn = C_U64(h->lsn + dir->pos),
                                     .bytes = C_U64(dir->bytes),
                                     .group = C_U64(f.group),
                                     .epoch = C_U64(f.epoch),
                                     .entry = C_U64(f.entry),
                                     .count = C_U64(f.n_items),
                                     .time = C_I64(f.append_time),
                                     .lac = C_U64(f.lac),
                                     .note = C_TEXT(frame_note(&f)) });
    at = dir->pos + FRAME_HEAD_BYTES + f.n_items * FRAME_ITEM_BYTES;
    for (uint32_t i = 0; i < f.n_items; i++) {
        struct frame_item item;

        frame_item_read(&item, mem + dir->pos, i);
        if (item.kind == ITEM_INLINE) {
            dump_inline(d, &item, mem + at, h->lsn + at, f.group);
        } else if (*placement < h->n_placements) {
            struct block_placement there;

            block_placement_read(&there, h, mem, (*placement)++);
            dump_direct(d, &item, &there, h->lsn + at, f.group);
        }
        at += frame_item_body(&item);
    }
}

static int dump_block(void *ctx, const struct block_head *h, const uint8_t *mem,
                      const struct inspect_place *at)
{
    struct dump *d = ctx;
    uint32_t placement = 0;

    if (h->lsn + h->block_bytes <= d->c->from)
        return 0;
    if (d->c->limit && d->n_blocks == d->c->limit)
        return ENOUGH;
    d->n_blocks++;
    dump_emit(d, &(struct dump_row){ .type = C_TEXT("block"),
                                     .lsn = C_U64(h->lsn),
                                     .bytes = C_U64(h->block_bytes),
                                     .file = C_TEXT(at->file),
                                     .byte = C_U64(at->byte),
                                     .incarnation = C_U64(h->incarnation),
                                     .count = C_U64(h->n_frames),
                                     .time = C_I64(h->written),
                                     .durable_lsn = C_U64(h->durable_lsn),
                                     .note = C_TEXT(h->flags & BLOCK_OPENING   ? "opening"
                                                    : h->flags & BLOCK_CLOSING ? "closing"
                                                                               : NULL) });
    for (uint32_t i = 0; i < h->n_frames; i++) {
        struct block_dir dir;

        block_dir_read(&dir, mem, i);
        dump_frame(d, h, mem, &dir, &placement);
    }
    return 0;
}

static int dump_rot(void *ctx, uint64_t lsn, uint64_t end_lsn, const struct inspect_place *at)
{
    struct dump *d = ctx;

    d->rot = true;
    dump_emit(d, &(struct dump_row){ .type = C_TEXT("rot"),
                                     .lsn = C_U64(lsn),
                                     .bytes = C_U64(end_lsn - lsn),
                                     .file = C_TEXT(at->file[0] ? at->file : NULL),
                                     .byte = at->file[0] ? C_U64(at->byte) : C_NONE,
                                     .note = C_TEXT("was durable, cannot be read") });
    return 0;
}

int cmd_wal_dump(struct ctl *c, struct err *e)
{
    static const struct inspect_wal calls = { dump_extent, dump_block, dump_rot };
    struct dump d = { .c = c, .shown = emit_is_table(c->emit) ? SHOWN_BYTES : 0 };
    int rc;

    emit_section(c->emit, "wal", dump_columns, c->records ? COLUMNS : COLUMNS_NO_RECORDS, false);
    rc = inspect_wal(c->in, &calls, &d, e);
    if (rc >= 0 && d.rot)
        rc = err_set(e, E_CORRUPT, "the live WAL is damaged; see journal-ctl wal verify");
    return rc;
}

/* --- verify ----------------------------------------------------------------------------------- */

static const struct emit_column loss_columns[] = {
    { "group", EMIT_NUMBER, false },
    { "lsn", EMIT_NUMBER, false },
    { "end_lsn", EMIT_NUMBER, false },
    { "accepted", EMIT_BOOL, false },
};
static const struct emit_column lost_columns[] = {
    { "shard", EMIT_NUMBER, false },
    { "name", EMIT_TEXT, false },
    { "start", EMIT_NUMBER, false },
    { "end", EMIT_NUMBER, false },
};

static int loss_row(void *ctx, const struct inspect_loss *l)
{
    EMIT_ROW(((struct ctl *)ctx)->emit, C_U64(l->group), C_U64(l->lsn), C_U64(l->end_lsn),
             C_BOOL(l->accepted));
    return 0;
}

struct lost {
    struct ctl *c;
    uint64_t shard;
    const char *name;
};

static int lost_row(void *ctx, uint64_t start, uint64_t end)
{
    struct lost *l = ctx;

    EMIT_ROW(l->c->emit, C_U64(l->shard), C_TEXT(l->name), C_U64(start), C_U64(end));
    return 0;
}

/* The holes of a shard, and what may have been lost behind its end: nobody can know how much. */
static int lost_of_shard(void *ctx, const struct inspect_shard *s)
{
    struct ctl *c = ctx;
    char name[300];
    struct lost l = { c, s->id, ctl_shard_name(c, s->id, s->catalogue, name, sizeof name) };
    int rc = inspect_holes(c->in, s->id, lost_row, &l);

    if (s->tail_lost)
        EMIT_ROW(c->emit, C_U64(s->id), C_TEXT(l.name), C_U64(s->end), C_NONE);
    return rc;
}

int cmd_wal_verify(struct ctl *c, struct err *e)
{
    struct inspect_report r;
    int rc = inspect_verify(c->data, INSPECT_WAL, 0, &r, e), damaged;

    if (rc < 0)
        return rc;
    damaged = ctl_report(c, &r, INSPECT_WAL);
    inspect_report_free(&r);
    if (damaged || !emit_is_table(c->emit)) {
        emit_section(c->emit, "groups_hit", loss_columns, COUNT(loss_columns), false);
        rc = inspect_losses(c->in, loss_row, c);
        emit_section(c->emit, "lost", lost_columns, COUNT(lost_columns), false);
    }
    if (rc >= 0 && (damaged || !emit_is_table(c->emit)))
        rc = inspect_shards(c->in, lost_of_shard, c);
    return rc < 0 ? rc : ctl_verdict(c, damaged);
}
