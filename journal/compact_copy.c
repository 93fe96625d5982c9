/* A piece of a round of log compaction: the records that stay, in a new segment. */
#include "journal/compact_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch_keep.h"

/* What a piece is made of: batches as they will be, in (shard, offset) order. */
struct piece {
    struct compact_round *r;
    uint8_t *mem;
    uint64_t bytes, cap;
    uint64_t read; /* bytes of runs taken into it */
    unsigned n_runs;
    struct segwrite_origin of; /* the segments that they came from */
    /* of the shard under way */
    struct compact_shard *s;
    const struct seg_index *index; /* of the segment that is read */
    bool changed;
    struct batch_head filler; /* offsets that nobody has any more, not written yet */
    uint32_t n_filler;
    uint64_t tombstones;
};

static void bytes_add(struct piece *p, const void *mem, uint64_t bytes)
{
    if (p->cap - p->bytes < bytes) {
        p->cap = p->cap * 2 > p->bytes + bytes ? p->cap * 2 : p->bytes + bytes + (1 << 16);
        p->mem = mem_grow(p->mem, p->cap);
    }
    memcpy(p->mem + p->bytes, mem, bytes);
    p->bytes += bytes;
}

static void filler_end(struct piece *p)
{
    uint8_t mem[BATCH_HEAD_BYTES];

    if (p->n_filler == 0)
        return;
    batch_empty_write(&p->filler, p->n_filler, false, mem);
    bytes_add(p, mem, sizeof mem);
    p->n_filler = 0;
}

static void filler_add(struct piece *p, const struct batch_head *h)
{
    uint32_t n = (uint32_t)h->last_offset_delta + 1;

    if (p->n_filler > 0 && p->filler.base_offset + p->n_filler == h->base_offset &&
        p->n_filler <= (uint32_t)INT32_MAX - n) {
        p->n_filler += n;
        return;
    }
    filler_end(p);
    p->filler = *h;
    p->n_filler = n;
}

static void batch_add(struct piece *p, const void *mem, uint64_t bytes)
{
    filler_end(p);
    bytes_add(p, mem, bytes);
}

/* --- one batch --- */

static bool record_stays(void *ctx, const struct batch_record *rec)
{
    struct piece *p = ctx;
    const struct row_cleaned *now = &p->s->now;
    uint64_t offset = (uint64_t)rec->offset, latest;

    if (offset >= now->to)
        return true;
    if (!rec->key)
        return false;
    if (keymap_get(&p->r->map, p->s->id, rec->key, (size_t)rec->key_bytes, &latest) &&
#ifdef WEIR_MUTANT_COMPACT_DROPS_LATEST
        latest >= offset)
#else
        latest > offset)
#endif
        return false;
    if (!rec->value && offset < now->drop_below)
        return false;
    p->tombstones += rec->value == NULL;
    return true;
}

/* Whether the batch is one of the last of its producer, as far as its segment knows: then it must be
 * known again when it is sent again. */
static bool producer_needs(const struct piece *p, const struct batch_head *h)
{
    const struct seg_index *x = p->index;
    uint32_t low = 0, high = x->n_producers;

#ifdef WEIR_MUTANT_COMPACT_NO_PRODUCERS
    return false;
#endif
    if (h->producer_id < 0 || h->base_timestamp < p->r->time - PRODUCER_EXPIRE_MS)
        return false;
    while (low < high) { /* they are in (shard, offset) order */
        uint32_t mid = (low + high) / 2;
        const struct seg_producer *n = &x->producers[mid];

        if (n->shard < p->s->id || (n->shard == p->s->id && n->base < (uint64_t)h->base_offset))
            low = mid + 1;
        else
            high = mid;
    }
    return low < x->n_producers && x->producers[low].shard == p->s->id &&
           x->producers[low].base == (uint64_t)h->base_offset;
}

static void batch_emptied(struct piece *p, const struct batch_head *h)
{
    uint8_t mem[BATCH_HEAD_BYTES];

    if (!producer_needs(p, h)) {
        p->changed = p->changed || !batch_is_filler(h);
        filler_add(p, h);
        return;
    }
    p->changed = p->changed || h->record_count > 0;
    batch_empty_write(h, (uint32_t)h->last_offset_delta + 1, true, mem);
    batch_add(p, mem, sizeof mem);
}

static int batch_refine(struct piece *p, const struct batch_head *h, const uint8_t *mem)
{
    struct buf *rest;
    int rc;

    if (!compact_batch_opens(h) || (uint64_t)h->base_offset >= p->s->now.to) {
        batch_add(p, mem, h->bytes);
        return 0;
    }
    p->tombstones = 0;
    rc = batch_keep(mem, h->bytes, COMPACT_BODY_MAX, record_stays, p, &rest);
    if (rc == E_NOMEM)
        return rc;
    if (h->record_count == 0 || rc == BATCH_KEPT_NONE) {
        batch_emptied(p, h);
    } else if (rc == BATCH_KEPT_SOME) {
        p->changed = true;
        batch_add(p, rest->mem, rest->len);
        buf_unref(rest);
    } else { /* all of it, or nobody can open it */
        batch_add(p, mem, h->bytes);
    }
    if (rc >= 0)
        p->s->now.tombstones += p->tombstones;
    return 0;
}

/* --- runs --- */

static int run_refine(struct piece *p, const struct compact_run *run)
{
    struct segments *t = &p->r->st->segments;
    uint64_t base = run->base;
    struct segment *seg;
    const uint8_t *mem;
    struct buf *buf;
    int rc = compact_run_read(p->r->st, run, &seg, &buf, &mem);

    if (rc < 0)
        return rc;
    rc = segment_index(t, seg, &p->index);
    if (rc == E_IO)
        rc = E_CORRUPT;
    for (uint64_t at = 0; rc >= 0 && at < run->row.bytes;) {
        struct batch_head h;

        rc = batch_check_at(&h, mem + at, run->row.bytes - at, base);
        if (rc >= 0)
            rc = batch_refine(p, &h, mem + at);
        base += (uint64_t)h.last_offset_delta + 1;
        at += h.bytes;
    }
    if (rc >= 0 && base != run->row.end)
        rc = E_CORRUPT;
    segwrite_origin_add(&p->of, &seg->row);
    buf_unref(buf);
    segment_unpin(t, seg);
    return rc;
}

/* The runs of a shard that come next, as many as belong into the piece. */
static int shard_runs(struct piece *p, const struct compact_run *list, unsigned n, uint64_t limit)
{
    struct compact_shard *s = p->s;
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < n && p->read < limit; i++) {
        rc = run_refine(p, &list[i]);
        p->read += list[i].row.bytes;
        p->n_runs++;
        s->to = s->at = list[i].row.end;
    }
    filler_end(p);
    s->now.done = s->at < s->now.to ? s->at : s->now.to;
    return rc;
}

static int shard_damaged(struct compact_shard *s)
{
    LOG_WARN("compact.damaged", F_INT("shard", s->id), F_INT("at", s->at));
    s->damaged = s->through = true;
    return 0;
}

/* Takes what comes next of a shard in segment `first` of the log (NULL: in any) into the piece; what
 * loses nothing stays where it is. */
static int shard_refine(struct piece *p, struct compact_shard *s, const uint64_t *first,
                        uint64_t limit)
{
    struct compact_want want = { .from = s->at, .below = s->now.to, .first = first };
    struct piece as_was = *p;
    struct compact_run *list;
    unsigned n;
    int rc = compact_runs(p->r->st, s->id, &want, &list, &n);

    p->s = s;
    p->changed = false;
    s->moved = true;
    s->looked = false;
    s->from = s->to = n > 0 ? list[0].base : 0;
    if (rc >= 0)
        rc = shard_runs(p, list, n, limit);
    free(list);
    if (rc < 0 || !p->changed) {
        p->bytes = as_was.bytes;
        p->n_runs = as_was.n_runs;
        p->n_filler = 0;
        p->of = as_was.of;
        s->from = s->to;
    }
    if (rc != E_CORRUPT)
        return rc;
    s->moved = false;
    return shard_damaged(s);
}

/* --- what comes next --- */

static void shard_through(const struct compact_round *r, struct compact_shard *s)
{
    s->through = s->moved = true;
    s->now.cleaned = s->now.done = s->now.to;
    if (s->now.horizon <= s->now.drop_below) {
        s->now.horizon = s->now.to;
        s->now.horizon_time = r->time;
    }
}

static int shard_look(const struct compact_round *r, struct compact_shard *s)
{
    struct compact_want want = { .from = s->at, .below = s->now.to, .max = 1 };
    struct compact_run *list;
    unsigned n;
    int rc = compact_runs(r->st, s->id, &want, &list, &n);

    if (rc >= 0 && n == 0)
        shard_through(r, s);
    else if (rc >= 0)
        s->next_first = compact_run_first(r->st, list);
    s->looked = rc >= 0;
    free(list);
    return rc == E_CORRUPT ? shard_damaged(s) : rc;
}

/* 1 and the earliest segment of the log in which something is left of the shards; 0: the round is
 * through. */
static int segment_next(struct compact_round *r, uint64_t *first)
{
    int rc = 0;

    for (unsigned i = 0; i < r->n; i++) {
        struct compact_shard *s = &r->shards[i];
        int found = s->taken && !s->through && !s->looked ? shard_look(r, s) : 0;

        if (found < 0)
            return found;
        if (s->taken && !s->through && (rc == 0 || s->next_first < *first)) {
            *first = s->next_first;
            rc = 1;
        }
    }
    return rc;
}

/* Takes one segment's runs; when space is short, as many as make a piece. */
static int segment_refine(struct piece *p, uint64_t first, uint64_t limit)
{
    struct compact_round *r = p->r;
#ifdef WEIR_MUTANT_COMPACT_ACROSS
    bool across = true;
#else
    bool across = r->across;
#endif
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < r->n && p->read < limit; i++) {
        struct compact_shard *s = &r->shards[i];

        if (s->taken && !s->through && (across || s->next_first == first))
            rc = shard_refine(p, s, across ? NULL : &first, limit);
    }
    return rc;
}

/* --- the piece --- */

static int piece_write(struct piece *p)
{
    struct compact_round *r = p->r;
    uint64_t at = 0;
    int rc;

#ifndef WEIR_MUTANT_COMPACT_EARLY_NUMBER
    /* Above those of all segments that were read: after a crash that says which runs hold. */
    r->segment = store_new_segment(r->st);
#endif
    rc = segwrite_open(&r->out, r->st, r->group, r->segment,
                       p->bytes + (uint64_t)p->n_runs * SEG_RUN_HEAD_BYTES);
    for (unsigned i = 0; rc >= 0 && i < r->n; i++) {
        const struct compact_shard *s = &r->shards[i];

        for (uint64_t next = s->from; rc >= 0 && next < s->to;) {
            struct batch_head h;

            rc = batch_head_read(&h, p->mem + at, p->bytes - at);
            ASSERT(rc >= 0);
            segwrite_add(&r->out, s->id, &h, p->mem + at);
            next = (uint64_t)h.base_offset + (uint64_t)h.last_offset_delta + 1;
            at += h.bytes;
        }
    }
    ASSERT(rc < 0 || at == p->bytes);
    if (rc >= 0)
        rc = segwrite_finish_of(&r->out, &p->of);
    return rc;
}

int compact_copy(struct compact_round *r)
{
    struct piece p = { .r = r };
    uint64_t limit = (uint64_t)2 << r->st->wal_log2, first = 0;
    int rc = 0, more = 1;

    for (unsigned i = 0; i < r->n; i++) {
        r->shards[i].moved = false;
        r->shards[i].from = r->shards[i].to = 0;
    }
    while (rc >= 0 && more > 0 && p.bytes == 0 && p.read < limit && !atomic_load(&r->st->closing)) {
        more = segment_next(r, &first);
        rc = more > 0 ? segment_refine(&p, first, limit) : more;
    }
    if (rc >= 0 && p.bytes > 0)
        rc = piece_write(&p);
    free(p.mem);
    if (rc >= 0)
        rc = more = segment_next(r, &first); /* row C says at once when a shard is through */
    r->over = more <= 0 || atomic_load(&r->st->closing);
    return rc < 0 ? rc : 0;
}
