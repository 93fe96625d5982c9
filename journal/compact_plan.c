/* Which shards a round of log compaction takes, and the latest offset of each of their keys. */
#include "journal/compact_int.h"

#include <stdlib.h>

#include "base/logger.h"
#include "journal/catalogue.h"
#include "journal/read_int.h"

/* --- reading what segments hold of a shard --- */

struct runs_scan {
    struct store *st;
    uint64_t shard;
    const struct compact_want *want;
    struct compact_run *list;
    unsigned n, cap;
};

uint64_t compact_run_first(struct store *st, const struct compact_run *run)
{
    struct segment *seg = segment_pin(&st->segments, run->row.segment);
    uint64_t first = seg ? seg->row.segment_first : 0;

    if (seg)
        segment_unpin(&st->segments, seg);
    return first;
}

static int runs_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct runs_scan *s = ctx;
    const struct compact_want *want = s->want;
    struct compact_run run;

    if (!row_key_of(key, key_bytes, ROW_RUN, s->shard, &run.base) || run.base >= want->below)
        return 1;
    if (row_run_read(&run.row, value, value_bytes) < 0)
        return E_CORRUPT;
    if (want->first && compact_run_first(s->st, &run) != *want->first)
        return 1;
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 16;
        s->list = mem_grow(s->list, s->cap * sizeof *s->list);
    }
    s->list[s->n++] = run;
    return s->n == want->max;
}

int compact_runs(struct store *st, uint64_t shard, const struct compact_want *want,
                 struct compact_run **list, unsigned *n)
{
    struct runs_scan s = { .st = st, .shard = shard, .want = want };
    uint8_t key[ROW_KEY_MAX];
    int rc =
        rows_scan(st->rows, key, row_key2(key, ROW_RUN, shard, want->from), false, runs_row, &s);

    *list = s.list;
    *n = s.n;
    return rc < 0 ? rc : 0;
}

int compact_run_read(struct store *st, const struct compact_run *run, struct segment **seg,
                     struct buf **buf, const uint8_t **mem)
{
    uint32_t at;
    int rc;

    *seg = segment_pin(&st->segments, run->row.segment);
    if (!*seg)
        return E_CORRUPT;
    rc = segment_read(&st->segments, *seg, run->row.pos, run->row.bytes, buf, &at);
    if (rc < 0) {
        segment_unpin(&st->segments, *seg);
        return rc == E_IO ? E_CORRUPT : rc; /* one place cannot be read: not the device's end */
    }
    *mem = (*buf)->mem + at;
    /* Rot where no CRC reaches (epochs) must not be written anew as if it were sound. */
    if (sum_xxh3(*mem, run->row.bytes, 0) == run->row.xxh3)
        return 0;
    buf_unref(*buf);
    segment_unpin(&st->segments, *seg);
    return E_CORRUPT;
}

bool compact_batch_opens(const struct batch_head *h)
{
    return !(h->attributes & (BATCH_ATTR_CONTROL | BATCH_ATTR_TRANSACTIONAL));
}

/* --- noting keys --- */

struct noting {
    struct compact_round *r;
    struct compact_shard *s;
    uint64_t bytes; /* of batches whose keys are noted */
    bool young;     /* it ended at a batch that is too young, for so long: */
    int64_t young_ms;
    bool full; /* or at one whose keys have no room */
};

/* Notes the keys of a batch, if it can be opened whole: what readers cannot open supersedes nothing. */
static void batch_note(struct noting *n, const uint8_t *mem, const struct batch_head *h)
{
    struct batch_iter it, again;
    struct batch_record rec;
    int rc;

    if (!compact_batch_opens(h) || batch_iter_open(&it, mem, h->bytes, COMPACT_BODY_MAX) < 0)
        return;
    again = it;
    while ((rc = batch_iter_next(&again, &rec)) == 1)
        ;
    while (rc == 0 && batch_iter_next(&it, &rec) == 1)
        if (rec.key)
            keymap_put(&n->r->map, n->s->id, rec.key, (size_t)rec.key_bytes, (uint64_t)rec.offset);
    batch_iter_close(&it);
}

/* False: the round's end is reached. */
static bool batch_fits(struct noting *n, const struct batch_head *h)
{
    n->young = n->s->lag_ms > 0 && h->max_timestamp > n->r->time - n->s->lag_ms;
    if (n->young)
        n->young_ms = h->max_timestamp - (n->r->time - n->s->lag_ms);
    n->full = !n->young && !keymap_room(&n->r->map, (uint64_t)h->record_count);
    return !n->young && !n->full && !atomic_load(&n->r->st->closing);
}

/* 1: the round's end is reached in it. */
static int run_note(struct noting *n, const struct compact_run *run)
{
    struct segments *t = &n->r->st->segments;
    struct row_cleaned *now = &n->s->now;
    uint64_t base = run->base, at = 0;
    struct segment *seg;
    const uint8_t *mem;
    struct buf *buf;
    int rc = compact_run_read(n->r->st, run, &seg, &buf, &mem);

    if (rc < 0)
        return rc;
    while (rc == 0 && at < run->row.bytes) {
        struct batch_head h;

        rc = batch_check_at(&h, mem + at, run->row.bytes - at, base);
        if (rc < 0)
            break;
        base += (uint64_t)h.last_offset_delta + 1;
        at += h.bytes;
        if (base <= now->to)
            continue;
        if (!batch_fits(n, &h)) {
            rc = 1;
            break;
        }
        batch_note(n, mem + at - h.bytes, &h);
        n->bytes += h.bytes;
        now->to = base;
    }
    buf_unref(buf);
    segment_unpin(t, seg);
    return rc;
}

/* --- choosing --- */

/* The byte of a run where offset lies, about: the sparse entries around it say where to look. Little
 * may be left of what is clean, so offsets alone do not tell. */
static uint64_t pos_about(const struct seg_index *x, const struct seg_run *run, uint64_t offset)
{
    uint64_t base = run->base, end = run->end, pos = 0, pos_end = run->bytes;

    for (uint32_t i = 0; i < run->n_sparse; i++) {
        const struct seg_sparse *n = &x->sparse[run->first_sparse + i];

        if (n->offset > offset) {
            end = n->offset;
            pos_end = n->pos;
            break;
        }
        base = n->offset;
        pos = n->pos;
    }
    if (end <= base || pos_end < pos)
        return pos;
    return pos +
           (uint64_t)((double)(pos_end - pos) * (double)(offset - base) / (double)(end - base));
}

/* What is not clean of a run in which `cleaned` lies. */
static int run_dirty(struct compact_round *r, uint64_t shard, const struct compact_run *run,
                     uint64_t cleaned, uint64_t *dirty)
{
    struct segment *seg = segment_pin(&r->st->segments, run->row.segment);
    const struct seg_index *x;
    const struct seg_run *in;
    int rc = seg ? segment_index(&r->st->segments, seg, &x) : E_CORRUPT;

    if (rc >= 0) {
        in = read_index_run(x, shard, run->base);
        *dirty += in ? in->bytes - pos_about(x, in, cleaned) : run->row.bytes;
    }
    if (seg)
        segment_unpin(&r->st->segments, seg);
    return rc == E_IO ? E_CORRUPT : rc;
}

/* Bytes of the runs, and of what in them is not clean yet. */
static int weigh(struct compact_round *r, const struct compact_shard *s,
                 const struct compact_run *list, unsigned n, uint64_t *total, uint64_t *dirty)
{
    int rc = 0;

    *total = *dirty = 0;
    for (unsigned i = 0; rc >= 0 && i < n; i++) {
        *total += list[i].row.bytes;
        if (list[i].base >= s->now.cleaned)
            *dirty += list[i].row.bytes;
        else if (list[i].row.end > s->now.cleaned)
            rc = run_dirty(r, s->id, &list[i], s->now.cleaned, dirty);
    }
    return rc;
}

/* Something may be dropped once the time of the tombstones below the horizon is over. A round that
 * was cut off has none: it is begun again, or nothing is left that it was for. */
static bool horizon_waits(const struct compact_shard *s)
{
    return s->now.tombstones > 0 && s->now.horizon > s->now.drop_below;
}

/* That time is over. */
static bool horizon_passed(const struct compact_round *r, const struct compact_shard *s)
{
    return s->now.horizon > s->now.drop_below &&
           r->time - s->now.horizon_time >= s->delete_retention_ms;
}

static void horizon_move(const struct compact_round *r, struct compact_shard *s)
{
    if (horizon_passed(r, s))
        s->now.drop_below = s->now.horizon;
    s->now.tombstones = 0;
    s->now.done = 0;
    s->now.time = r->time;
}

/* Notes the keys of what is dirty. False: what can be cleaned is not worth a round now. */
static int shard_note(struct compact_round *r, struct compact_shard *s,
                      const struct compact_run *list, unsigned n, uint64_t clean, bool due)
{
    struct noting note = { .r = r, .s = s };
    uint64_t cleaned = s->now.cleaned;
    int rc = 0;

    s->now.to = cleaned;
    for (unsigned i = 0; rc == 0 && i < n; i++)
        if (list[i].row.end > cleaned)
            rc = run_note(&note, &list[i]);
    if (rc < 0)
        return rc;
    s->taken = due || (s->now.to > cleaned && (!note.young || r->urgent || note.bytes >= clean));
    s->wait_ms = note.full ? 1 : r->st->conf.compact_check_ms;
    if (note.young && note.young_ms > s->wait_ms)
        s->wait_ms = note.young_ms;
    return 0;
}

static int shard_weigh(struct compact_round *r, struct compact_shard *s)
{
    struct compact_run *list;
    uint64_t total, dirty;
    unsigned n;
    bool due;
    int rc = compact_runs(r->st, s->id, &(struct compact_want){ .below = UINT64_MAX }, &list, &n);

    if (rc >= 0)
        rc = weigh(r, s, list, n, &total, &dirty);
    if (rc >= 0) {
        due = total > 0 &&
              ((s->now.tombstones > 0 && horizon_passed(r, s)) || s->now.to > s->now.cleaned);
        s->wait_ms = COMPACT_WHEN_SEALED;
        if (total > 0 && horizon_waits(s) && !horizon_passed(r, s))
            s->wait_ms = s->now.horizon_time + s->delete_retention_ms - r->time;
        if (due || (dirty > 0 && (r->urgent || dirty >= total - dirty)))
            rc = shard_note(r, s, list, n, total - dirty, due);
    }
    free(list);
    return rc;
}

/* Says whether the round takes the shard, or when to look again. */
static int shard_choose(struct compact_round *r, struct compact_shard *s)
{
    struct row_shard row;
    int rc = catalogue_shard_row(r->st, s->id, &row);

    s->wait_ms = COMPACT_FORGET;
    if (rc == E_NOTFOUND || (rc >= 0 && !(row.policy.flags & SHARD_COMPACTED)))
        return 0;
    if (rc < 0)
        return rc;
    s->wait_ms = 1; /* another group's turn is the next round */
    if (r->group != UINT64_MAX && row.group != r->group)
        return 0;
    s->lag_ms = row.policy.min_compaction_lag_ms;
    s->delete_retention_ms = row.policy.delete_retention_ms;
    rc = catalogue_cleaned_row(r->st, s->id, &s->now);
    if (rc >= 0)
        rc = shard_weigh(r, s);
    if (rc == E_CORRUPT) {
        LOG_WARN("compact.damaged", F_INT("shard", s->id));
        s->wait_ms = COMPACT_WHEN_SEALED;
        s->taken = false;
        rc = 0;
    }
    if (s->taken) {
        r->group = row.group;
        horizon_move(r, s);
    }
    return rc;
}

int compact_plan(struct compact_round *r)
{
    int rc = 0;

    r->group = UINT64_MAX;
    for (unsigned i = 0; rc >= 0 && i < r->n; i++)
        rc = shard_choose(r, &r->shards[i]);
    return rc;
}
