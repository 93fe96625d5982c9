#include "journal/walscan.h"

#include <inttypes.h>
#include <string.h>

#include "base/buf.h"
#include "journal/io/ahead.h"

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

/* At a bad block: 1 when the log goes on somewhere (s stands there), 0 when this incarnation ends
 * here. */
static int find_on(struct scan *s)
{
    uint64_t pos = PAGE_BYTES + (s->lsn - s->first_lsn), at, first_lsn, next_place;
    bool torn;
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
    rc = extent_try(s, s->next_place);
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
