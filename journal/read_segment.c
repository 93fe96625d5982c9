/* Reading from sealed segments, on a pool thread. Who reads on gets chunks (chunk.h), and the next ones
 * are read ahead; who reads here and there gets just what he asks for. */
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "base/rd.h"
#include "format/batch.h"
#include "journal/read_int.h"
#include "journal/shard.h"
#include "journal/stats.h"

enum { SEGMENT_READ_MIN = 128 * 1024, SEGMENT_READ_MAX = 4 << 20 };

/* --- where --- */

struct find_run {
    uint64_t shard, base;
    struct row_run run;
    bool found;
};

static int find_run_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                        size_t value_bytes)
{
    struct find_run *f = ctx;
    uint64_t base;

    if (!row_key_of(key, key_bytes, ROW_RUN, f->shard, &base))
        return 1;
    if (row_run_read(&f->run, value, value_bytes) < 0)
        return E_CORRUPT;
    f->base = base;
    f->found = true;
    return 1;
}

/* The run of the shard's segments that holds offset, its segment pinned. E_LOST: none does. A
 * segment may be rewritten and buried between its row and the pin: then the row has changed, too. */
static int segment_of(struct shard *s, uint64_t offset, struct find_run *f, struct segment **seg)
{
    uint8_t key[ROW_KEY_MAX];
    uint64_t gone = 0;

    for (;;) {
        int rc;

        *f = (struct find_run){ .shard = s->id };
        rc = rows_scan(s->st->rows, key, row_key2(key, ROW_RUN, s->id, offset), true, find_run_row,
                       f);
        if (rc < 0)
            return rc;
        if (!f->found || f->run.end <= offset || f->run.segment == gone)
            return E_LOST;
        *seg = segment_pin(&s->st->segments, f->run.segment);
        if (*seg)
            return 0;
        gone = f->run.segment;
    }
}

const struct seg_run *read_index_run(const struct seg_index *x, uint64_t shard, uint64_t base)
{
    uint32_t low = 0, high = x->n_runs;

    while (low < high) {
        uint32_t mid = (low + high) / 2;
        const struct seg_run *n = &x->runs[mid];

        if (n->shard < shard || (n->shard == shard && n->end <= base))
            low = mid + 1;
        else
            high = mid;
    }
    return low < x->n_runs && x->runs[low].shard == shard && x->runs[low].base <= base
               ? &x->runs[low]
               : NULL;
}

/* The stretch of the run in which the batch that holds offset begins. */
static uint32_t stretch_of(const struct seg_index *x, const struct seg_run *run, uint64_t offset)
{
    uint32_t low = 0, high = run->n_sparse;

    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (x->sparse[run->first_sparse + mid].offset <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low ? low - 1 : 0;
}

/* Batches of one run, from stretch k of it on. Each stretch is held against its own sum before anything
 * of it is given out: a sound batch may be another's (a write that was lost or went astray), and no CRC
 * reaches offsets and epochs. */
static int segment_take(struct read_work *rw, struct segment *seg, const struct seg_index *x,
                        const struct seg_run *run, uint32_t k, uint64_t *at)
{
    const struct seg_sparse *list = &x->sparse[run->first_sparse];
    uint64_t want = (uint64_t)rw->d->max_bytes + SEG_SPARSE_EVERY * 2, bytes = 0;
    uint64_t pos = list[k].pos;
    struct buf *buf;
    uint32_t start, n = 0;
    int rc;

    want = want < SEGMENT_READ_MIN ? SEGMENT_READ_MIN : want;
    want = want > SEGMENT_READ_MAX ? SEGMENT_READ_MAX : want;
    while (k + n < run->n_sparse && bytes < want)
        bytes += seg_stretch_bytes(x, run, k + n++);
    rc = segment_read(&rw->s->st->segments, seg, run->pos + pos, bytes, &buf, &start);
    if (rc < 0)
        return rc;
    rc = 1;
    for (; rc == 1 && n > 0; n--, k++) {
        const uint8_t *mem = buf->mem + start + (list[k].pos - pos);

        rc = seg_stretch_is(x, run, k, mem)
                 ? read_take(rw->d, at, buf, mem, seg_stretch_bytes(x, run, k), true, NULL,
                             list[k].offset)
                 : E_LOST;
    }
    buf_unref(buf);
    return rc;
}

/* How many runs from this one on lie behind one another and follow one another, as far as the budget
 * goes: what was written directly is in runs of one batch. */
static uint32_t runs_together(const struct read_done *d, const struct seg_index *x, uint32_t i)
{
    const struct seg_run *first = &x->runs[i];
    uint64_t left = d->max_bytes > d->bytes ? d->max_bytes - d->bytes : 0;
    uint32_t n = 1;

    left = left < SEGMENT_READ_MAX ? left : SEGMENT_READ_MAX;
    while (i + n < x->n_runs) {
        const struct seg_run *run = &first[n], *last = run - 1;

        if (run->shard != first->shard || run->base != last->end ||
            run->pos != last->pos + last->bytes + SEG_RUN_HEAD_BYTES ||
            run->pos + run->bytes - first->pos > left)
            break;
        n++;
    }
    return n;
}

/* Such runs, in one read. */
static int runs_take(struct read_work *rw, struct segment *seg, const struct seg_index *x,
                     const struct seg_run *run, uint32_t n, uint64_t *at)
{
    const struct seg_run *last = &run[n - 1];
    struct buf *buf;
    uint32_t start;
    int rc = segment_read(&rw->s->st->segments, seg, run->pos, last->pos + last->bytes - run->pos,
                          &buf, &start);

    if (rc < 0)
        return rc;
    rc = 1;
    for (uint32_t i = 0; rc == 1 && i < n; i++) {
        const uint8_t *mem = buf->mem + start + (run[i].pos - run->pos);

        rc = seg_stretch_is(x, &run[i], 0, mem)
                 ? read_take(rw->d, at, buf, mem, run[i].bytes, true, NULL, run[i].base)
                 : E_LOST;
    }
    buf_unref(buf);
    return rc;
}

/* What was written directly may still be there as it came. 2: it is not. */
static int cached_take(struct read_work *rw, struct segment *seg, const struct seg_run *run,
                       uint64_t *at)
{
    struct slice cached;
    int rc;

    if (run->n_batches != 1 ||
        !run_cache_get(&rw->s->st->runs, seg->id, run->pos, run->bytes, &cached))
        return 2;
    rc = read_take(rw->d, at, cached.buf, cached.mem, cached.len, false, NULL, run->base);
    buf_unref(cached.buf);
    return rc;
}

/* --- chunks --- */

/* A stretch of a run, by number. */
struct spot {
    uint32_t run, stretch;
};

/* Batches of one shard that lie in one piece, and are read so: from the first spot of a CHUNK_BYTES
 * window of the segment to the last one. It follows from the index alone, so that all who read there
 * find the same. */
struct span {
    struct spot first, next; /* next: behind it; of another run, when it ends its last one */
    uint64_t pos, end;
};

static const struct seg_sparse *spot_of(const struct seg_index *x, struct spot p)
{
    return &x->sparse[x->runs[p.run].first_sparse + p.stretch];
}

static uint64_t spot_pos(const struct seg_index *x, struct spot p)
{
    return x->runs[p.run].pos + spot_of(x, p)->pos;
}

/* Whether run b goes on where run a ends, but for its header and the rest of a page. */
static bool runs_follow(const struct seg_run *a, const struct seg_run *b)
{
    uint64_t end = a->pos + a->bytes + SEG_RUN_HEAD_BYTES;

    return a->shard == b->shard && a->end == b->base && b->pos >= end && b->pos - end < PAGE_BYTES;
}

/* The spot behind p in the same piece; false: there is none. */
static bool spot_next(const struct seg_index *x, struct spot *p)
{
    if (p->stretch + 1 < x->runs[p->run].n_sparse) {
        p->stretch++;
        return true;
    }
    if (p->run + 1 >= x->n_runs || !runs_follow(&x->runs[p->run], &x->runs[p->run + 1]))
        return false;
    *p = (struct spot){ p->run + 1, 0 };
    return true;
}

static bool spot_before(const struct seg_index *x, struct spot *p)
{
    if (p->stretch > 0) {
        p->stretch--;
        return true;
    }
    if (p->run == 0 || !runs_follow(&x->runs[p->run - 1], &x->runs[p->run]))
        return false;
    p->run--;
    p->stretch = x->runs[p->run].n_sparse - 1;
    return true;
}

static struct span span_at(const struct seg_index *x, struct spot p)
{
    struct span s = { .first = p };
    uint64_t window = spot_pos(x, p) / CHUNK_BYTES;
    struct spot last = p;

    while (spot_before(x, &p) && spot_pos(x, p) / CHUNK_BYTES == window)
        s.first = p;
    p = last;
    while (spot_next(x, &p) && spot_pos(x, p) / CHUNK_BYTES == window)
        last = p;
    s.pos = spot_pos(x, s.first);
    s.next = last;
    if (++s.next.stretch < x->runs[last.run].n_sparse) {
        s.end = spot_pos(x, s.next);
    } else {
        s.next = (struct spot){ last.run + 1, 0 };
        s.end = x->runs[last.run].pos + x->runs[last.run].bytes;
    }
    return s;
}

static struct chunk_place span_place(struct segment *seg, const struct span *s)
{
    return (struct chunk_place){ .seg = seg, .pos = s->pos, .bytes = (uint32_t)(s->end - s->pos) };
}

static bool spot_is(struct spot a, struct spot b)
{
    return a.run == b.run && a.stretch == b.stretch;
}

/* Takes what a chunk holds from spot p on. A stretch whose first batch has been checked has been held
 * against its own sum before. */
static int span_take(struct read_work *rw, const struct seg_index *x, const struct span *s,
                     struct chunk *c, struct spot p, uint64_t *at)
{
    int rc = 1;

    while (rc == 1 && !spot_is(p, s->next)) {
        const struct seg_run *run = &x->runs[p.run];
        const uint8_t *mem = chunk_mem(c) + (spot_pos(x, p) - s->pos);

        if (!chunk_checked(c, mem) && !seg_stretch_is(x, run, p.stretch, mem))
            return E_LOST;
        rc = read_take(rw->d, at, chunk_buf(c), mem, seg_stretch_bytes(x, run, p.stretch), true, c,
                       spot_of(x, p)->offset);
        if (++p.stretch == run->n_sparse)
            p = (struct spot){ p.run + 1, 0 };
    }
    return rc;
}

/* 1: taken, and *i is the run to go on with; 2: read it otherwise; as read_take else, 0 also when
 * it must be waited for. */
static int chunk_take(struct read_work *rw, struct segment *seg, const struct seg_index *x,
                      uint32_t *i, uint64_t *at)
{
    struct spot p = { *i, stretch_of(x, &x->runs[*i], *at) };
    struct span s = span_at(x, p);
    struct chunk_place place = span_place(seg, &s);
    uint64_t was = *at;
    struct chunk *c;
    int rc = read_chunk(rw, &place, &c);

    if (rc != 1)
        return rc;
    rc = span_take(rw, x, &s, c, p, at);
    chunk_unref(&rw->s->st->chunks, c);
    if (rc == 1 && *at == was)
        return E_LOST;
    *i = s.next.run;
    return rc;
}

/* Has the spans of one segment read from *at on, which is moved behind them, until *bytes are enough;
 * that they are, too, when no more can be read ahead. */
static void ahead_in(struct read_work *rw, struct segment *seg, const struct seg_index *x,
                     uint64_t *at, uint64_t *bytes)
{
    const struct seg_run *run = read_index_run(x, rw->s->id, *at);
    struct spot p;

    if (!run)
        return;
    p = (struct spot){ (uint32_t)(run - x->runs), stretch_of(x, run, *at) };
    while (*bytes < CHUNK_AHEAD_BYTES) {
        struct span s = span_at(x, p);
        struct chunk_place place = span_place(seg, &s);

        *bytes += read_ahead(rw, &place) ? place.bytes : CHUNK_AHEAD_BYTES;
        p = s.next;
        if (p.stretch > 0)
            continue;
        *at = x->runs[p.run - 1].end;
        if (p.run == x->n_runs || x->runs[p.run].shard != rw->s->id || x->runs[p.run].base != *at)
            break;
    }
}

/* Has what comes behind `at` read before it is asked for: of this segment, and of the next one. */
static void segment_ahead(struct read_work *rw, struct segment *seg, const struct seg_index *x,
                          uint64_t at)
{
    struct segments *t = &rw->s->st->segments;
    struct segment *next;
    struct find_run f;
    uint64_t bytes = 0;

    ahead_in(rw, seg, x, &at, &bytes);
    if (bytes >= CHUNK_AHEAD_BYTES || at >= rw->wal_first || segment_of(rw->s, at, &f, &next) < 0)
        return;
    if (next != seg && segment_index(t, next, &x) >= 0)
        ahead_in(rw, next, x, &at, &bytes);
    segment_unpin(t, next);
}

/* --- a segment --- */

/* The runs of the shard from number i on, as long as offsets follow one another and the budget lasts. */
static int segment_runs(struct read_work *rw, struct segment *seg, const struct seg_index *x,
                        uint32_t i)
{
    uint64_t at = rw->d->from;
    int rc = 1;

    while (rc == 1 && i < x->n_runs && x->runs[i].shard == rw->s->id && x->runs[i].base <= at) {
        const struct seg_run *run = &x->runs[i];
        uint32_t k = stretch_of(x, run, at);
        uint32_t n = run->n_batches == 1 ? runs_together(rw->d, x, i) : 1;

        rc = k == 0 ? cached_take(rw, seg, run, &at) : 2;
        if (rc == 1) {
            i++;
            continue;
        }
        if (rc == 2)
            rc = chunk_take(rw, seg, x, &i, &at);
        if (rc != 2)
            continue;
        rc = n > 1 ? runs_take(rw, seg, x, run, n, &at) : segment_take(rw, seg, x, run, k, &at);
        i += n;
        if (at != x->runs[i - 1].end)
            break; /* there is more of this one */
    }
    if (rw->on)
        segment_ahead(rw, seg, x, at);
    rw->at = at;
    return rc;
}

/* Where the shard goes on after a hole at offset. */
static uint64_t hole_end(struct read_work *rw)
{
    struct find_run f = { .shard = rw->s->id };
    uint8_t key[ROW_KEY_MAX];
    int rc = rows_scan(rw->s->st->rows, key, row_key2(key, ROW_RUN, rw->s->id, rw->d->from), false,
                       find_run_row, &f);

    return rc >= 0 && f.found ? f.base : rw->wal_first;
}

void read_segment_run(struct work *w)
{
    struct read_work *rw = (struct read_work *)w;
    struct store *st = rw->s->st;
    const struct seg_index *x;
    const struct seg_run *run;
    struct segment *seg;
    struct find_run f;
    int rc = segment_of(rw->s, rw->d->from, &f, &seg);

    if (rc >= 0) {
        rc = segment_index(&st->segments, seg, &x);
        if (rc >= 0) {
            run = read_index_run(x, rw->s->id, rw->d->from);
            rc = E_LOST;
            if (run) {
                rc = segment_runs(rw, seg, x, (uint32_t)(run - x->runs));
                if (!rw->waits)
                    stats_read(st, STATS_SEGMENT, rw->d->bytes);
            }
        }
        if (rc == E_LOST || rc == E_CORRUPT)
            read_log_damage(rw->s, "segment", seg->id, rw->d->from);
        segment_unpin(&st->segments, seg);
    } else if (rc == E_LOST && !atomic_load(&rw->s->group->read_only)) {
        rw->d->lost_until = hole_end(rw);
    }
    rw->d->rc = rc == E_CORRUPT ? E_LOST : rc;
}
