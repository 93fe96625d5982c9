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
#include "journal/inspect_verify_int.h"
#include "journal/io/dev.h"

enum { PASSES = 10, DAMAGES_MAX = 100000 };

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

struct inspect_damage *inspect_verify_damage(struct pass *p, enum inspect_part part,
                                             const char *file, uint64_t byte, uint64_t bytes,
                                             const char *fmt, ...)
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

void inspect_verify_used(struct pass *p, uint64_t place, uint32_t log2, uint64_t segment)
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
        inspect_verify_damage(p, INSPECT_SUPER, "superblock", byte, SUPER_BYTES, "copy %u: %s", i,
                              err_text(rc));
        return;
    }
    if (!super_is_whole(one, mem, again))
        inspect_verify_damage(p, INSPECT_SUPER, "superblock", byte, SUPER_BYTES,
                              "copy %u: bytes outside the checksum have changed", i);
    else if (one->generation % 2 != i / 2)
        inspect_verify_damage(p, INSPECT_SUPER, "superblock", byte, SUPER_BYTES,
                              "copy %u holds generation %" PRIu64 ", which belongs elsewhere", i,
                              one->generation);
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
        inspect_verify_damage(p, INSPECT_SUPER, "superblock", file->bytes,
                              SUPER_COPIES * SUPER_BYTES - file->bytes,
                              "the file is cut short: %" PRIu64 " bytes", file->bytes);
    for (unsigned i = 0; rc >= 0 && i < SUPER_COPIES && (i + 1) * SUPER_BYTES <= file->bytes; i++) {
        int r = super_read_still(p, file, (uint64_t)i * SUPER_BYTES, b->mem);

        if (r < 0)
            inspect_verify_damage(p, INSPECT_SUPER, "superblock", (uint64_t)i * SUPER_BYTES,
                                  SUPER_BYTES, "copy %u cannot be read: %s", i, err_text(r));
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
    int rc;

    if (!slab_name_parse(name, &number))
        return;
    p->report->slabs++;
    rc = dev_open(p->dev, name, &file, NULL);
    if (rc >= 0)
        rc = dev_read(p->dev, file, 0, p->page->mem, PAGE_BYTES);
    fault = rc < 0 ? err_text(rc) : slab_head_fault(p, file, number);
    if (fault)
        inspect_verify_damage(p, INSPECT_SLABS, name, 0, PAGE_BYTES, "slab header: %s", fault);
    dev_close(p->dev, file);
}

/* --- the live WAL -------------------------------------------------------------------------------
 * */

const char *inspect_verify_head(struct pass *p, uint64_t place, uint32_t log2,
                                struct extent_head *h)
{
    struct dev_file *file = slabs_file(&p->in->st->slabs, place, log2);
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
    const char *fault = inspect_verify_head(p, place, p->in->st->wal_log2, &h);

    p->report->wal_extents++;
    inspect_verify_used(p, place, p->in->st->wal_log2, 0);
    if (!fault && (h.kind != EXTENT_WAL || h.incarnation != x->incarnation))
        fault = "it belongs elsewhere";
    if (!fault && x->head_damaged)
        fault = "it does not fit what follows it";
    if (fault)
        inspect_verify_damage(p, INSPECT_WAL, x->at.file, x->at.byte, PAGE_BYTES,
                              "extent header: %s", fault)
            ->lsn = x->first_lsn;
    return 0;
}

static void item_damage(struct pass *p, const struct block_head *h, const struct inspect_place *at,
                        uint64_t pos, const struct frame_item *item)
{
    inspect_verify_damage(p, INSPECT_WAL, at->file, at->byte + pos, frame_item_body(item),
                          "shard %" PRIu64 " offset %" PRIu64 ": the batch fails its checksum",
                          item->shard, item->base_offset)
        ->lsn = h->lsn;
}

/* A batch in an open segment: its header here, and all of it there. Where the segment is sealed since,
 * its index speaks for it. */
static bool direct_is_sound(struct pass *p, const struct frame_item *item, const uint8_t *head,
                            const struct block_placement *at)
{
    struct segment *seg = hash_get(&p->in->st->segments.by_id, at->segment);
    struct batch_head h;
    struct buf *b;
    uint32_t start;
    bool sound;

    if (batch_head_read(&h, head, item->bytes) < 0 || h.bytes != item->bytes ||
        (uint64_t)h.base_offset != item->base_offset || at->shard != item->shard ||
        at->base != item->base_offset || at->bytes != item->bytes)
        return false;
    if (!seg || !seg->open)
        return true;
    if (segment_read(&p->in->st->segments, seg, at->pos, item->bytes, &b, &start) < 0)
        return false;
    sound = sum_xxh3(b->mem + start, item->bytes, 0) == item->xxh3 &&
            memcmp(b->mem + start, head, BATCH_HEAD_BYTES) == 0 &&
            batch_check(&h, b->mem + start, item->bytes) >= 0;
    buf_unref(b);
    return sound;
}

static void wal_items(struct pass *p, const struct block_head *h, const struct inspect_place *at,
                      const uint8_t *block, const struct block_dir *d, uint32_t *placement)
{
    const uint8_t *frame = block + d->pos;
    struct frame_head f;
    uint64_t pos;

    if (frame_head_read(&f, frame, d->bytes) < 0 || f.group != d->group || f.entry != d->entry) {
        inspect_verify_damage(p, INSPECT_WAL, at->file, at->byte + d->pos, d->bytes,
                              "group %" PRIu64 " entry %" PRIu64 ": the frame makes no sense",
                              d->group, d->entry)
            ->lsn = h->lsn;
        return;
    }
    pos = FRAME_HEAD_BYTES + (uint64_t)f.n_items * FRAME_ITEM_BYTES;
    for (uint32_t i = 0; i < f.n_items; i++) {
        struct frame_item item;
        struct batch_head b;
        bool sound;

        frame_item_read(&item, frame, i);
        p->report->wal_batches++;
        if (item.kind == ITEM_DIRECT) {
            struct block_placement there = { 0 };

            if (*placement < h->n_placements)
                block_placement_read(&there, h, block, (*placement)++);
            sound = direct_is_sound(p, &item, frame + pos, &there);
        } else {
            sound = batch_check(&b, frame + pos, item.bytes) >= 0 && b.bytes == item.bytes &&
                    (uint64_t)b.base_offset == item.base_offset;
        }
        if (!sound)
            item_damage(p, h, at, d->pos + pos, &item);
        pos += frame_item_body(&item);
    }
}

static int wal_block(void *ctx, const struct block_head *h, const uint8_t *mem,
                     const struct inspect_place *at)
{
    struct pass *p = ctx;
    uint32_t placement = 0;

    p->report->wal_blocks++;
    p->report->wal_bytes += h->block_bytes;
    for (uint32_t i = 0; i < h->n_frames; i++) {
        struct block_dir d;

        block_dir_read(&d, mem, i);
        p->report->wal_frames++;
        wal_items(p, h, at, mem, &d, &placement);
    }
    return 0;
}

static int wal_rot(void *ctx, uint64_t lsn, uint64_t end_lsn, const struct inspect_place *at)
{
    struct pass *p = ctx;
    uint64_t size = (uint64_t)1 << p->in->st->wal_log2, inside = at->byte % size;
    uint64_t bytes = end_lsn - lsn;
    struct inspect_damage *d;

    if (bytes > size - inside)
        bytes = size - inside;
    d = inspect_verify_damage(
        p, INSPECT_WAL, at->file[0] ? at->file : "superblock", at->byte, bytes,
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
        if (!slabs_file(&p->in->st->slabs, u->place, u->log2) || (uint32_t)u->place == 0)
            inspect_verify_damage(p, INSPECT_SPACE, at.file, at.byte, bytes,
                                  "an extent of %s lies outside", mine)
                ->segment = u->segment;
        if (!before || place_slab(before->place) != place_slab(u->place) ||
            place_pos(before->place) + ((uint64_t)1 << before->log2) <= place_pos(u->place))
            continue;
        owner_name(before, other, sizeof other);
        inspect_verify_damage(p, INSPECT_SPACE, at.file, at.byte, bytes,
                              "the extent is used by %s and by %s", other, mine)
            ->segment = u->segment;
    }
}

/* --- passes -------------------------------------------------------------------------------------
 * */

/* No start would get past it; the WAL can be looked at still. */
static int pass_bare(struct pass *p, const char *path, unsigned parts, const struct err *why)
{
    struct err e = { 0 };

    inspect_verify_damage(p, 0, "", 0, 0,
                          "the store cannot be opened, segments and rows were not looked at: %s",
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
        rc = inspect_verify_segments(p, segment);
        if (rc == E_NOTFOUND)
            return err_set(e, rc, "no segment %" PRIu64, segment);
    }
    if (rc >= 0 && parts & INSPECT_ROWS)
        rc = inspect_verify_rows(p);
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
    else if (e)
        *e = (struct err){ 0 }; /* of a pass that was not the last */
    return rc;
}

void inspect_report_free(struct inspect_report *report)
{
    free(report->list);
    *report = (struct inspect_report){ 0 };
}
