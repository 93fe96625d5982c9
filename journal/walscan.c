#include "journal/walscan.h"

#include <inttypes.h>
#include <string.h>

#include "base/buf.h"
#include "journal/io/ahead.h"
#include "journal/walscan_int.h"

struct scan {
    struct dev *dev;
    struct slabs *slabs;
    const struct super *super;
    const struct walscan_calls *calls;
    void *ctx;
    struct walscan_end *end;
    uint32_t log2;
    uint64_t size;
    struct buf *mem; /* the present extent */
    struct buf *spare;
    struct ahead
        ahead; /* into spare: the extent that comes next, while this one is looked through */
    uint64_t ahead_place;
    /* the incarnation */
    const struct super_incarnation *inc;
    uint64_t lsn;       /* next expected */
    uint64_t prev_hash; /* of the block before, when have_prev */
    bool have_prev;
    /* the extent */
    uint64_t place, first_lsn, next_place;
    bool extent_open;
};

static void ahead_begin(struct scan *s, uint64_t place)
{
    struct dev_file *file = place == PLACE_NONE ? NULL : slabs_file(s->slabs, place, s->log2);

    s->ahead_place = file ? place : PLACE_NONE;
    if (file)
        ahead_start(&s->ahead, s->dev, file, place_pos(place), s->spare->mem, s->size);
}

static int extent_load(struct scan *s, uint64_t place)
{
    struct buf *before = s->mem;
    int rc = ahead_wait(&s->ahead);

    if (s->ahead_place != place) { /* the log went on somewhere else */
        if (!slabs_file(s->slabs, place, s->log2))
            return E_CORRUPT;
        ahead_begin(s, place);
        rc = ahead_wait(&s->ahead);
    }
    s->ahead_place = PLACE_NONE;
    s->mem = s->spare;
    s->spare = before;
    return rc;
}

/* The header of the extent in memory, if it is one of this incarnation at its place. */
static bool head_is_ours(struct scan *s, uint64_t place, struct extent_head *h)
{
    return extent_head_read(h, s->mem->mem) >= 0 && h->kind == EXTENT_WAL &&
           memcmp(&h->store, &s->super->store, sizeof h->store) == 0 && h->place == place &&
           h->incarnation == s->inc->incarnation && h->salt == s->inc->salt;
}

static bool block_at(struct scan *s, uint64_t pos, struct block_head *h)
{
    return block_head_read(h, &s->super->store, s->inc->incarnation, s->inc->salt,
                           s->mem->mem + pos, s->size - pos) >= 0;
}

/* The first valid block from pos on whose LSN is at least min; its extent would begin at
 * *first_lsn. */
static bool later_block(struct scan *s, uint64_t pos, uint64_t min, uint64_t *at,
                        uint64_t *first_lsn, uint64_t *next_place)
{
    struct block_head h;

    for (; pos < s->size; pos += PAGE_BYTES) {
        if (!block_at(s, pos, &h) || h.lsn < min || h.lsn < pos - PAGE_BYTES ||
            block_body_check(&h, s->mem->mem + pos) < 0)
            continue;
        *at = pos;
        *first_lsn = h.lsn - (pos - PAGE_BYTES);
        *next_place = h.next_place;
        return true;
    }
    return false;
}

static int report_rot(struct scan *s, uint64_t end_lsn)
{
    int rc = 0;

    if (s->calls->rot && end_lsn > s->lsn)
        rc = s->calls->rot(s->ctx, s->lsn, end_lsn, s->place);
    s->have_prev = false;
    s->lsn = end_lsn;
    return rc;
}

static int extent_finish(struct scan *s)
{
    int rc = 0;

    if (s->extent_open && s->calls->extent_end)
        rc = s->calls->extent_end(s->ctx, s->lsn);
    s->extent_open = false;
    return rc;
}

/* Goes into an extent that is in memory already. */
static int extent_enter(struct scan *s, uint64_t place, uint64_t first_lsn, uint64_t next_place,
                        bool damaged)
{
    struct walscan_extent x = { place, s->inc->incarnation, s->inc->salt, first_lsn, damaged };
    int rc = extent_finish(s);

    s->place = place;
    s->first_lsn = first_lsn;
    s->next_place = next_place;
    s->extent_open = true;
    s->end->last_place = place;
    if (rc >= 0 && s->calls->extent)
        rc = s->calls->extent(s->ctx, &x);
    if (rc >= 0)
        ahead_begin(s, next_place);
    return rc;
}

/* Tries the extent at place as the one that continues the log at s->lsn or later. 1: entered, 0: it
 * is not part of the log. */
static int extent_try(struct scan *s, uint64_t place)
{
    struct extent_head h;
    uint64_t at, first_lsn, next_place;
    int rc = place == PLACE_NONE ? 0 : extent_load(s, place);

    if (rc < 0 || place == PLACE_NONE)
        return rc;
    if (head_is_ours(s, place, &h) && h.first_lsn >= s->lsn) {
        rc = report_rot(s, h.first_lsn);
        if (rc >= 0)
            rc = extent_enter(s, place, h.first_lsn, h.next_place, false);
        return rc < 0 ? rc : 1;
    }
    /* A header that is gone: blocks behind it still say whose they are. */
    if (later_block(s, PAGE_BYTES, s->lsn, &at, &first_lsn, &next_place) && first_lsn >= s->lsn) {
        rc = report_rot(s, first_lsn);
        if (rc >= 0)
            rc = extent_enter(s, place, first_lsn, next_place, true);
        return rc < 0 ? rc : 1;
    }
    return 0;
}

static bool at_known_end(const struct scan *s)
{
    return s->inc->end_lsn != LSN_OPEN && s->lsn >= s->inc->end_lsn;
}

/* Whether something on the device says that this block, valid at pos, was flushed: a block that
 * follows it, or the superblock. */
static bool block_is_proven(struct scan *s, const struct block_head *h, uint64_t pos)
{
    uint64_t end = h->lsn + h->block_bytes;
    struct block_head next;

    if (s->inc->end_lsn != LSN_OPEN && end <= s->inc->end_lsn)
        return true;
    pos += h->block_bytes;
    return pos < s->size && block_at(s, pos, &next) && next.lsn == end &&
           next.prev_hash == h->hash && block_body_check(&next, s->mem->mem + pos) >= 0;
}

/* Whether the log goes on behind a block, further back in its extent or in the next one. */
static int log_goes_on(struct scan *s, const struct block_head *h, uint64_t pos)
{
    uint64_t end = h->lsn + h->block_bytes, at, first_lsn, next_place;
    uint64_t next = h->next_place != PLACE_NONE ? h->next_place : s->next_place;
    struct extent_head x;
    bool on;
    int rc;

    if (later_block(s, pos + h->block_bytes, end, &at, &first_lsn, &next_place) &&
        first_lsn == s->first_lsn)
        return 1;
    if (next == PLACE_NONE)
        return 0;
    rc = extent_load(s, next);
    if (rc < 0)
        return rc;
    on = (head_is_ours(s, next, &x) && x.first_lsn >= end) ||
         (later_block(s, PAGE_BYTES, end, &at, &first_lsn, &next_place) && first_lsn >= end);
    rc = extent_load(s, s->place);
    return rc < 0 ? rc : on;
}

/* 1: the block at pos counts; 0: it is the torn tail, for what it put elsewhere is not there. */
static int block_is_whole(struct scan *s, const struct block_head *h, uint64_t pos)
{
    int rc;

    if (h->n_placements == 0 || block_is_proven(s, h, pos))
        return 1;
#ifdef WEIR_MUTANT_PAYLOAD_NOT_CHECKED
    return 1;
#endif
    rc = walscan_payloads(s->dev, s->slabs, h, s->mem->mem + pos);
    return rc == 0 ? log_goes_on(s, h, pos) : rc;
}

/* Valid blocks from s->lsn on, up to the first bad one. */
static int blocks_read(struct scan *s)
{
    struct block_head h;
    int rc = 0;

    while (rc >= 0 && !at_known_end(s)) {
        uint64_t pos = PAGE_BYTES + (s->lsn - s->first_lsn);

        if (pos >= s->size || !block_at(s, pos, &h) || h.lsn != s->lsn ||
            (s->have_prev && h.prev_hash != s->prev_hash) ||
            block_body_check(&h, s->mem->mem + pos) < 0)
            break;
        rc = block_is_whole(s, &h, pos);
        if (rc <= 0)
            break;
        rc = 0;
        if (s->calls->block)
            rc = s->calls->block(s->ctx, &h, s->mem->mem + pos, place_pos(s->place) + pos);
        s->lsn += h.block_bytes;
        s->prev_hash = h.hash;
        s->have_prev = true;
        s->next_place = h.next_place != PLACE_NONE ? h.next_place : s->next_place;
        s->end->blocks++;
        s->end->bytes += h.block_bytes;
        s->end->hash = h.hash;
    }
    return rc;
}

/* A block of the present extent that went astray inside it: up to which LSN it says that all was durable. One with an LSN behind the
 * extent's is no proof: the extent may have been used again, which who looks beside a running server can see. */
static bool stray_block(const struct scan *s, uint64_t *durable)
{
    struct block_head h;

    for (uint64_t pos = PAGE_BYTES; pos < s->size; pos += PAGE_BYTES) {
        if (block_head_read(&h, &s->super->store, s->inc->incarnation, s->inc->salt,
                            s->mem->mem + pos, s->size - pos) < 0 ||
            h.lsn == s->first_lsn + (pos - PAGE_BYTES) ||
            h.lsn >= s->first_lsn + (s->size - PAGE_BYTES) || h.durable_lsn <= s->lsn ||
            block_body_check(&h, s->mem->mem + pos) < 0)
            continue;
        *durable = h.durable_lsn;
        return true;
    }
    return false;
}

/* At a bad block: 1 when the log goes on somewhere (s stands there), 0 when this incarnation ends
 * here. */
static int find_on(struct scan *s)
{
    uint64_t pos = PAGE_BYTES + (s->lsn - s->first_lsn), at, first_lsn, next_place;
    bool torn, stray;
    int rc;

#ifdef WEIR_MUTANT_NO_ROT_RULE
    if (pos < s->size && later_block(s, pos + PAGE_BYTES, s->lsn + 1, &at, &first_lsn, &next_place))
        return 0; /* whatever comes behind: a torn tail */
#endif

    if (pos < s->size &&
        later_block(s, pos + PAGE_BYTES, s->lsn + 1, &at, &first_lsn, &next_place) &&
        first_lsn == s->first_lsn) {
        rc = report_rot(s, s->first_lsn + (at - PAGE_BYTES));
        s->next_place = next_place;
        return rc < 0 ? rc : 1;
    }
    torn = pos < s->size && !bytes_are_zero(s->mem->mem + pos, PAGE_BYTES);
    stray = stray_block(s, &at); /* before the next extent takes its memory */
    rc = extent_try(s, s->next_place);
    if (rc == 0 && stray) /* it may lie over the very block that it was written behind */
        return report_rot(s, at);
    s->end->torn = rc == 0 && torn; /* cut only where the log ends, not where it goes on */
    return rc;
}

static int incarnation_scan(struct scan *s)
{
    int rc;

    s->lsn = s->inc->first_lsn > s->super->ckpt_lsn ? s->inc->first_lsn : s->super->ckpt_lsn;
    s->have_prev = false;
    s->end->hash = 0;
    s->end->torn = false;
    s->end->last_place = PLACE_NONE;
    rc = at_known_end(s) ? 0 : extent_try(s, s->inc->place);
    while (rc == 1) {
        rc = blocks_read(s);
        if (rc < 0 || at_known_end(s))
            break;
        rc = find_on(s);
    }
    if (rc < 0)
        return rc;
    if (s->inc->end_lsn != LSN_OPEN && s->lsn < s->inc->end_lsn) {
        rc = report_rot(s, s->inc->end_lsn);
        if (rc < 0)
            return rc;
    }
    s->end->lsn = s->lsn;
    return extent_finish(s);
}

int walscan_run(struct dev *dev, struct slabs *slabs, const struct super *super,
                const struct walscan_calls *calls, void *ctx, struct walscan_end *end,
                struct err *e)
{
    struct scan s = { .dev = dev,
                      .slabs = slabs,
                      .super = super,
                      .calls = calls,
                      .ctx = ctx,
                      .end = end,
                      .log2 = super->wal_extent_log2,
                      .size = (uint64_t)1 << super->wal_extent_log2 };
    int rc = 0;

    *end = (struct walscan_end){ .lsn = super->ckpt_lsn, .last_place = PLACE_NONE };
    s.mem = buf_new_aligned(s.size);
    s.spare = buf_new_aligned(s.size);
    s.ahead_place = PLACE_NONE;
    if (!s.mem || !s.spare)
        rc = err_set(e, E_NOMEM, "no memory to read a WAL extent of %" PRIu64 " bytes", s.size);
    for (uint32_t i = 0; rc >= 0 && i < super->n; i++) {
        s.inc = &super->list[i];
        rc = incarnation_scan(&s);
    }
    ahead_wait(&s.ahead); /* nobody asked for it */
    buf_unref(s.mem);
    buf_unref(s.spare);
    return rc < 0 ? err_set(e, rc, "reading the WAL at LSN %" PRIu64 ": %s", s.lsn, err_text(rc))
                  : 0;
}
