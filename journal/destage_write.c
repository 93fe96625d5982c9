/* What of a round of destage runs on the pool: reading, checking, writing. */
#include "journal/destage_int.h"

#include <stdlib.h>

#include "format/batch.h"
#include "format/block.h"
#include "journal/group.h"

enum { READ_PIECE = 1 << 20 };
#define MEMORY_EXTENTS UINT64_C(4) /* of what is sorted, that much is held in memory */

static int extent_read(struct destage *d, unsigned i)
{
    struct wal_extent *x = d->extents[i];
    uint64_t bytes = x->end_lsn - x->first_lsn, pos;
    struct dev_file *file = wal_at(&d->st->wal, x, x->first_lsn, &pos);
    int rc = file ? 0 : E_IO;

    if (bytes == 0)
        return 0;
    d->wal[i] = buf_new_aligned(bytes);
    if (!d->wal[i])
        return E_NOMEM;
    for (uint64_t at = 0; rc >= 0 && at < bytes; at += READ_PIECE) {
        uint64_t n = bytes - at < READ_PIECE ? bytes - at : READ_PIECE;

        rc = dev_read(d->st->dev, file, pos + at, d->wal[i]->mem + at, (uint32_t)n);
    }
    d->wal[i]->len = (uint32_t)bytes;
    return rc;
}

/* Notes the blocks of the first extent that are whole: what they say of direct batches can be used. */
static void blocks_look(struct destage *d)
{
    const struct wal_extent *x = d->extents[0];
    uint64_t at = x->first_lsn;

    while (at < x->end_lsn) {
        const uint8_t *mem = d->wal[0]->mem + (at - x->first_lsn);
        struct block_head h;

        if (block_head_read(&h, &d->st->super.store, x->incarnation, x->salt, mem,
                            x->end_lsn - at) < 0 ||
            h.lsn != at || block_body_check(&h, mem) < 0) {
            at += PAGE_BYTES;
            continue;
        }
        d->whole = mem_grow(d->whole, (d->n_whole + 1) * sizeof *d->whole);
        d->whole[d->n_whole++] = (struct lsn_range){ at, at + h.block_bytes };
        at += h.block_bytes;
    }
}

static bool block_is_whole(const struct destage *d, uint64_t lsn)
{
    unsigned low = 0, high = d->n_whole;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (d->whole[mid].end <= lsn)
            low = mid + 1;
        else
            high = mid;
    }
    return low < d->n_whole && d->whole[low].start <= lsn;
}

static const uint8_t *wal_bytes(const struct destage *d, uint64_t lsn)
{
    unsigned low = 0, high = d->n_extents;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (d->extents[mid]->end_lsn <= lsn)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == d->n_extents || !d->wal[low] || lsn < d->extents[low]->first_lsn)
        return NULL;
    return d->wal[low]->mem + (lsn - d->extents[low]->first_lsn);
}

static int by_shard_offset(const void *a, const void *b)
{
    const struct destage_entry *x = a, *y = b;

    if (x->piece != y->piece)
        return x->piece < y->piece ? -1 : 1;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return x->entry.base < y->entry.base ? -1 : x->entry.base > y->entry.base;
}

static void lost_add(struct destage_part *p, uint64_t shard, uint64_t start, uint64_t end)
{
    p->lost = mem_grow(p->lost, (p->n_lost + 1) * sizeof *p->lost);
    p->lost[p->n_lost++] = (struct lost_range){ shard, start, end };
}

/* Copies one run's batches to their places. One that is not what was written is lost as a whole: its
 * batches may be sound, and another's. */
static void entry_add(struct destage *d, struct destage_part *p, struct destage_piece *to,
                      const struct destage_entry *n)
{
    const uint8_t *mem = wal_bytes(d, n->entry.lsn);
    uint64_t at = 0, next = n->entry.base, end = n->entry.base + n->entry.n_offsets;

#ifndef WEIR_MUTANT_STRANGE_DESTAGED
    if (mem && sum_xxh3(mem, n->entry.bytes, 0) != n->entry.xxh3)
        mem = NULL;
#endif
    while (mem && at < n->entry.bytes) {
        struct batch_head h;

        if (batch_check_at(&h, mem + at, n->entry.bytes - at, next) < 0)
            break;
        segwrite_add(&to->out, n->shard, &h, mem + at);
        at += h.bytes;
        next += (uint64_t)h.last_offset_delta + 1;
    }
    if (next < end)
        lost_add(p, n->shard, next, end);
}

/* The header of a direct batch: from the WAL, if what says so there is sound; else from the batch. */
static int direct_head(struct destage *d, struct segment *seg, const struct destage_entry *n,
                       struct batch_head *h)
{
    const uint8_t *mem = wal_bytes(d, n->entry.lsn);
    struct buf *buf;
    uint32_t at;
    int rc;

    if (mem && block_is_whole(d, n->entry.lsn))
        return batch_head_read(h, mem, n->entry.bytes);
    rc = segment_read(&d->st->segments, seg, n->direct.pos, n->entry.bytes, &buf, &at);
    if (rc >= 0) {
        rc = batch_check(h, buf->mem + at, n->entry.bytes);
        buf_unref(buf);
    }
    return rc;
}

/* Names a direct batch, which stays where it is. */
static int direct_name(struct destage *d, struct destage_part *p, struct destage_piece *to,
                       struct segment *seg, const struct destage_entry *n)
{
    struct batch_head h;
    int rc = direct_head(d, seg, n, &h);

    if (rc < 0 && rc != E_CORRUPT && rc != E_UNSUPPORTED)
        return rc;
    if (rc < 0 || h.bytes != n->entry.bytes || (uint64_t)h.base_offset != n->entry.base ||
        (uint64_t)h.last_offset_delta + 1 != n->entry.n_offsets)
        lost_add(p, n->shard, n->entry.base, n->entry.base + n->entry.n_offsets);
    else
        segwrite_add_direct(&to->out, n->shard, &h, n->direct.pos, n->direct.xxh3);
    return 0;
}

/* Copies a direct batch out of an open segment that cannot be sealed. */
static int direct_copy(struct destage *d, struct destage_part *p, struct destage_piece *to,
                       const struct destage_entry *n)
{
    struct segments *t = &d->st->segments;
    struct segment *seg = segment_pin(t, n->direct.segment);
    struct batch_head h;
    struct buf *buf;
    uint32_t at;
    int rc;

    if (!seg)
        return E_CORRUPT; /* our own books are wrong */
    rc = segment_read(t, seg, n->direct.pos, n->entry.bytes, &buf, &at);
    segment_unpin(t, seg);
    if (rc < 0 && rc != E_CORRUPT)
        return rc;
    if (rc >= 0 && batch_check(&h, buf->mem + at, n->entry.bytes) >= 0 &&
        h.bytes == n->entry.bytes && (uint64_t)h.base_offset == n->entry.base)
        segwrite_add(&to->out, n->shard, &h, buf->mem + at);
    else
        lost_add(p, n->shard, n->entry.base, n->entry.base + n->entry.n_offsets);
    if (rc >= 0)
        buf_unref(buf);
    return 0;
}

/* Rot in the WAL may have taken what said where an extent of it is: then it is not sealed, but copied.
 */
static bool can_seal(const struct segment *seg)
{
    for (unsigned i = 0; i < seg->row.n_extents; i++)
        if (seg->row.extents[i].place == PLACE_NONE)
            return false;
    return true;
}

/* What the segment must hold in memory. */
static uint64_t piece_bytes(const struct destage_part *p, const struct destage_piece *to)
{
    uint64_t bytes = 0;

    for (uint32_t i = to->from; i < to->from + to->n; i++)
        if (!p->list[i].entry.direct || !to->seals)
            bytes += p->list[i].entry.bytes + SEG_RUN_HEAD_BYTES;
    return bytes;
}

static int piece_entries(struct destage *d, struct destage_part *p, struct destage_piece *to,
                         struct segment *seg)
{
    int rc = 0;

    for (uint32_t i = to->from; rc >= 0 && i < to->from + to->n; i++) {
        const struct destage_entry *n = &p->list[i];

        if (!n->entry.direct)
            entry_add(d, p, to, n);
        else
            rc = to->seals ? direct_name(d, p, to, seg, n) : direct_copy(d, p, to, n);
    }
    return rc;
}

static int piece_run(struct destage *d, struct destage_part *p, struct destage_piece *to)
{
    struct segment *seg = NULL;
    uint64_t bytes, most = MEMORY_EXTENTS << d->st->wal_log2;
    int rc;

    if (to->n == 0)
        return 0;
    if (to->open) {
        seg = segment_pin(&d->st->segments, to->open);
        if (!seg)
            return E_CORRUPT; /* our own books are wrong */
        to->seals = can_seal(seg);
        if (to->seals)
            to->segment = to->open;
    }
    bytes = piece_bytes(p, to);
    /* What is sealed lies there already; the rest is an extent's at most. */
    most = to->seals || bytes < most ? bytes : most;
    rc = segwrite_open(&to->out, d->st, p->group->id, to->segment, most);
    to->out.in_pieces = most < bytes;
    to->out.row.segment_first = to->segment_first;
    to->out.row.flags = to->ends && to->segment_first ? SEG_ENDS : 0;
    if (rc >= 0 && to->seals)
        segwrite_begin_open(&to->out, seg->row.extents, seg->row.n_extents, seg->row.data_bytes);
    if (rc >= 0)
        rc = piece_entries(d, p, to, seg);
    if (rc >= 0 && to->out.builder.n_batches > 0)
        rc = segwrite_finish(&to->out, to->first_entry, to->last_entry);
    buf_unref(
        to->out.data); /* the next piece needs memory, too; of this one only the index is wanted */
    to->out.data = NULL;
    if (rc >= 0 && to->seals && to->out.builder.n_batches == 0) {
        to->seals = false; /* all of it is lost: nothing is sealed */
        to->out.row.n_extents = 0;
    }
    if (seg)
        segment_unpin(&d->st->segments, seg);
    return rc;
}

/* The piece that holds what lies at lsn. */
static uint32_t piece_at(const struct destage_part *p, uint64_t lsn)
{
    uint32_t low = 0, high = p->n_pieces - 1;

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (p->pieces[mid].end_lsn <= lsn)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* An open segment becomes the piece's whose direct batches it has. Should it have those of another,
 * too, or they be in several, nothing is sealed: they are copied. */
static void piece_open(struct destage_part *p, struct destage_piece *to)
{
    uint32_t n_direct = 0;

    for (uint32_t i = to->from; i < to->from + to->n; i++) {
        const struct destage_entry *n = &p->list[i];

        if (!n->entry.direct)
            continue;
        if (n_direct++ == 0)
            to->open = n->direct.segment;
        else if (to->open != n->direct.segment)
            to->open = 0;
    }
    for (const struct destage_piece *k = p->pieces; to->open && k < to; k++)
        if (k->open == to->open)
            to->open = 0;
}

static int part_run(struct destage *d, struct destage_part *p)
{
    int rc = 0;

    for (uint32_t i = 0; i < p->n; i++) {
        p->list[i].piece = piece_at(p, p->list[i].entry.lsn);
        p->pieces[p->list[i].piece].n++;
    }
    if (p->n > 0)
        qsort(p->list, p->n, sizeof *p->list, by_shard_offset);
    for (unsigned k = 0; rc >= 0 && k < p->n_pieces; k++) {
        struct destage_piece *to = &p->pieces[k];

        to->from = k > 0 ? to[-1].from + to[-1].n : 0;
        piece_open(p, to);
        rc = piece_run(d, p, to);
    }
    return rc;
}

void destage_write_run(struct work *w)
{
    struct destage *d = (struct destage *)((char *)w - offsetof(struct destage, work));

    d->rc = 0;
    for (unsigned i = 0; d->rc >= 0 && i < d->n_extents; i++)
        d->rc = extent_read(d, i);
    if (d->rc >= 0 && d->extents[0]->n_direct > 0)
        blocks_look(d);
    for (unsigned i = 0; d->rc >= 0 && i < d->st->n_groups; i++)
        d->rc = part_run(d, &d->parts[i]);
}
