/* Reading: from the recent blocks, from the live WAL, from sealed segments (journal.h:
 * shard_read). */
#include "journal/read_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "base/rd.h"
#include "format/batch.h"
#include "journal/group.h"
#include "journal/memory.h"
#include "journal/shard.h"
#include "journal/stats.h"

enum {
    COLD_ENTRIES = 32, /* runs of the WAL read in one go */
    SEGMENT_CHUNK_MIN = 128 * 1024,
    SEGMENT_CHUNK_MAX = 4 << 20
};

struct read_work {
    struct work work;
    struct task task;
    struct read_done *d;
    struct shard *s;
    uint64_t
        wal_first; /* where the live WAL's part of the shard begins; its end when it has none */
    struct cold_entry cold[COLD_ENTRIES];
    unsigned n_cold;
};

/* --- collecting what fits --- */

static void slice_add(struct read_done *d, struct buf *buf, const uint8_t *mem, uint32_t len)
{
    if ((d->n_slices & (d->n_slices - 1)) == 0)
        d->slices = mem_grow(d->slices, (d->n_slices ? d->n_slices * 2 : 1) * sizeof *d->slices);
    d->slices[d->n_slices++] = (struct slice){ .buf = buf_ref(buf), .mem = mem, .len = len };
    d->bytes += len;
}

/* Adds the batches of mem that hold d->from or lie after it, as far as the budget goes. *at: the
 * offset wanted next. check: the bytes come from a
 * device, and the first batch must begin at base (offsets and epochs are not under a batch's CRC).
 * 1: more may follow; 0: the budget is used up; E_LOST: a batch is damaged. */
static int take_batches(struct read_done *d, uint64_t *at, struct buf *buf, const uint8_t *mem,
                        uint64_t bytes, bool check, uint64_t base)
{
    const uint8_t *first = NULL;
    uint32_t len = 0;
    int rc = 1;

    while (rc == 1 && bytes > 0) {
        struct batch_head h;
        uint64_t end;

        if ((check ? batch_check(&h, mem, bytes) : batch_head_read(&h, mem, bytes)) < 0 ||
            (check && ((uint64_t)h.base_offset != base || h.last_offset_delta < 0 ||
                       h.leader_epoch < 1 || h.leader_epoch > shard_epoch(d->shard)))) {
            rc = E_LOST;
            break;
        }
        base += (uint64_t)h.last_offset_delta + 1;
        end = (uint64_t)h.base_offset + (uint64_t)h.last_offset_delta + 1;
        if (end > *at) {
            bool room = d->bytes + len + h.bytes <= d->max_bytes ||
                        (d->at_least_one && d->bytes + len == 0);

            /* A slow read may meet a run that has grown meanwhile, past the end that it tells. */
            if (!room || end > d->end) {
                rc = 0;
                break;
            }
            if (!first)
                first = mem;
            len += h.bytes;
            *at = end;
        }
        mem += h.bytes;
        bytes -= h.bytes;
    }
    if (len > 0)
        slice_add(d, buf, first, len);
    return rc;
}

/* --- answering --- */

static void read_done_run(struct task *t)
{
    struct read_done *d = (struct read_done *)t;

    d->fn(d);
}

void read_done_release(struct read_done *d)
{
    for (unsigned i = 0; i < d->n_slices; i++)
        buf_unref(d->slices[i].buf);
    free(d->slices);
    d->slices = NULL;
    d->n_slices = 0;
    d->bytes = 0;
}

static void read_answer(struct read_done *d, int rc)
{
    struct shard *s = d->shard;
    struct store *st = s->st;

    if (rc < 0 && d->bytes > 0)
        rc = 0; /* what is whole before the damage is given first */
#ifdef WEIR_MUTANT_NOTFOUND_ON_EIO
    if (rc == E_IO || rc == E_LOST)
        rc = E_RANGE;
#endif
    if (rc < 0 && atomic_load(&s->deleted))
        rc = E_DELETED;
    else if (rc == E_LOST && d->from < atomic_load(&s->start))
        rc = E_RANGE;
    d->rc = rc < 0 ? rc : 0;
    d->task.run = read_done_run;
    loop_post(d->loop, &d->task);
    shard_unref(s);
    atomic_fetch_sub(&st->busy, 1);
}

/* --- cold reads, on a pool thread --- */

bool read_pin(struct store *st, const struct index_entry *n, struct cold_entry *c)
{
    *c = (struct cold_entry){ .entry = *n };
    if (!n->direct)
        return wal_pin(&st->wal, n->lsn, n->bytes, &c->extent) >= 0;
    c->direct = *n->direct;
    c->seg = segment_pin(&st->segments, c->direct.segment);
    return c->seg != NULL;
}

void read_unpin(struct store *st, struct cold_entry *c)
{
    buf_unref(c->slice.buf);
    if (c->extent)
        wal_unpin(&st->wal, c->extent);
    if (c->seg)
        segment_unpin(&st->segments, c->seg);
}

int read_wal_run(struct store *st, const struct cold_entry *c, struct buf **buf,
                 const uint8_t **mem)
{
    uint64_t pos, start, end;
    struct dev_file *file;
    struct buf *b;
    uint32_t at;
    int rc;

    if (c->seg) {
        rc = segment_read(&st->segments, c->seg, c->direct.pos, c->entry.bytes, buf, &at);
        if (rc < 0)
            return rc == E_CORRUPT ? E_LOST : rc;
        *mem = (*buf)->mem + at;
        /* It covers the bytes that the CRC leaves out, too. */
        return sum_xxh3(*mem, c->entry.bytes, 0) == c->direct.xxh3 ? 0 : E_LOST;
    }
    file = wal_at(&st->wal, c->extent, c->entry.lsn, &pos);
    start = pos / PAGE_BYTES * PAGE_BYTES;
    end = (pos + c->entry.bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    b = buf_new_aligned(end - start);
    if (!b)
        return E_NOMEM;
    rc = file ? dev_read(st->dev, file, start, b->mem, (uint32_t)(end - start)) : E_IO;
    if (rc < 0) {
        buf_unref(b);
        return rc;
    }
    b->len = (uint32_t)(end - start);
    *buf = b;
    *mem = b->mem + (pos - start);
#ifdef WEIR_MUTANT_STRANGE_RUN
    return 0;
#endif
    /* Sound batches may be another's: of a block that was lost or went astray. */
    return sum_xxh3(*mem, c->entry.bytes, 0) == c->entry.xxh3 ? 0 : E_LOST;
}

static void log_damage(const struct shard *s, const char *where, uint64_t place, uint64_t offset)
{
    metric_add(&s->st->stats->read_damaged, 1);
    LOG_ERROR("read.damaged", F_INT("shard", s->id), F_STR("in", where), F_INT("at", place),
              F_INT("offset", offset));
}

static void cold_run(struct work *w)
{
    struct read_work *rw = (struct read_work *)w;
    struct read_done *d = rw->d;
    struct store *st = rw->s->st;
    uint64_t at = d->from;
    int rc = 1;

    for (unsigned i = 0; rc == 1 && i < rw->n_cold; i++) {
        struct cold_entry *c = &rw->cold[i];
        struct buf *buf = NULL;
        const uint8_t *mem;

        rc = read_wal_run(st, c, &buf, &mem);
        if (rc >= 0)
            stats_read(st, STATS_WAL, c->entry.bytes);
        if (rc >= 0)
            rc = take_batches(d, &at, buf, mem, c->entry.bytes, true, c->entry.base);
        if (rc == E_LOST)
            log_damage(rw->s, "wal", c->entry.lsn, at);
        buf_unref(buf);
    }
    for (unsigned i = 0; i < rw->n_cold; i++)
        read_unpin(st, &rw->cold[i]);
    d->rc = rc;
}

struct find_run {
    uint64_t shard, base;
    struct row_run run;
    bool found;
};

static int find_run_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                        size_t value_bytes)
{
    struct find_run *f = ctx;
    uint64_t shard, base;

    if (((const uint8_t *)key)[0] != ROW_RUN || !row_key_parse(key, key_bytes, &shard, &base) ||
        shard != f->shard)
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

    want = want < SEGMENT_CHUNK_MIN ? SEGMENT_CHUNK_MIN : want;
    want = want > SEGMENT_CHUNK_MAX ? SEGMENT_CHUNK_MAX : want;
    while (k + n < run->n_sparse && bytes < want)
        bytes += seg_stretch_bytes(x, run, k + n++);
    rc = segment_read(&rw->s->st->segments, seg, run->pos + pos, bytes, &buf, &start);
    if (rc < 0)
        return rc;
    rc = 1;
    for (; rc == 1 && n > 0; n--, k++) {
        const uint8_t *mem = buf->mem + start + (list[k].pos - pos);

        rc = seg_stretch_is(x, run, k, mem)
                 ? take_batches(rw->d, at, buf, mem, seg_stretch_bytes(x, run, k), true,
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

    left = left < SEGMENT_CHUNK_MAX ? left : SEGMENT_CHUNK_MAX;
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
                 ? take_batches(rw->d, at, buf, mem, run[i].bytes, true, run[i].base)
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
    rc = take_batches(rw->d, at, cached.buf, cached.mem, cached.len, false, run->base);
    buf_unref(cached.buf);
    return rc;
}

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
            rc = n > 1 ? runs_take(rw, seg, x, run, n, &at) : segment_take(rw, seg, x, run, k, &at);
        i += n;
        if (at != x->runs[i - 1].end)
            break; /* there is more of this one */
    }
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

static void segment_run(struct work *w)
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
                stats_read(st, STATS_SEGMENT, rw->d->bytes);
            }
        }
        if (rc == E_LOST || rc == E_CORRUPT)
            log_damage(rw->s, "segment", seg->id, rw->d->from);
        segment_unpin(&st->segments, seg);
    } else if (rc == E_LOST && !atomic_load(&rw->s->group->read_only)) {
        rw->d->lost_until = hole_end(rw);
    }
    rw->d->rc = rc == E_CORRUPT ? E_LOST : rc;
}

static void cold_done(struct work *w)
{
    struct read_work *rw = (struct read_work *)w;
    struct read_done *d = rw->d;

    free(rw);
    read_answer(d, d->rc);
}

static struct read_work *cold_new(struct read_done *d, void (*run)(struct work *w))
{
    struct read_work *rw = mem_new(sizeof *rw);

    rw->d = d;
    rw->s = d->shard;
    rw->work.run = run;
    rw->work.done = cold_done;
    rw->work.loop = d->loop;
    return rw;
}

/* --- on the home loop --- */

/* Pins the runs from entry i on that the budget may reach and hands them to the pool. */
static void read_cold_wal(struct read_done *d, uint32_t i)
{
    struct shard *s = d->shard;
    struct store *st = s->st;
    struct read_work *rw = cold_new(d, cold_run);
    uint64_t bytes = 0, next = index_at(&s->index, i)->base;

    for (; i < index_count(&s->index) && rw->n_cold < COLD_ENTRIES; i++) {
        const struct index_entry *n = index_at(&s->index, i);

        if (n->base != next || (rw->n_cold > 0 && bytes >= d->max_bytes) ||
            !read_pin(st, n, &rw->cold[rw->n_cold]))
            break;
        next = n->base + n->n_offsets;
        bytes += n->bytes;
        rw->n_cold++;
    }
    if (rw->n_cold == 0) {
        free(rw);
        read_answer(d, E_LOST);
        return;
    }
    pool_submit(st->env.read_pool, &rw->work);
}

bool read_cached(struct shard *s, const struct index_entry *n, struct slice *slice)
{
    if (n->direct)
        return run_cache_get(&s->st->runs, n->direct->segment, n->direct->pos, n->bytes, slice);
    return cache_get(&s->group->cache, n->lsn, n->bytes, slice);
}

static void read_tail(struct read_done *d, uint32_t i)
{
    struct shard *s = d->shard;
    uint64_t at = d->from;
    int rc = 1;

    if (index_at(&s->index, i)->base > at) {
        if (!atomic_load(&s->group->read_only))
            d->lost_until = index_at(&s->index, i)->base;
        read_answer(d, E_LOST);
        return;
    }
    for (uint32_t k = i; rc == 1 && k < index_count(&s->index); k++) {
        const struct index_entry *n = index_at(&s->index, k);
        struct slice slice;

        if (k > i && n->base != at)
            break; /* a hole: it answers when asked for */
        if (!read_cached(s, n, &slice)) {
            if (d->bytes == 0) {
                read_cold_wal(d, k);
                return;
            }
            break;
        }
        stats_read(s->st, STATS_CACHE, slice.len);
        rc = take_batches(d, &at, slice.buf, slice.mem, slice.len, false, 0);
        buf_unref(slice.buf);
    }
    read_answer(d, rc < 0 ? rc : 0);
}

static void read_segment(struct read_done *d)
{
    struct shard *s = d->shard;
    struct read_work *rw = cold_new(d, segment_run);

    rw->wal_first = index_count(&s->index) > 0 ? index_at(&s->index, 0)->base : d->end;
    pool_submit(s->st->env.read_pool, &rw->work);
}

/* A MEMORY shard: slices of what is kept. */
static int read_memory(struct read_done *d)
{
    struct shard *s = d->shard;
    uint64_t at = d->from;
    int rc = 1;

    if (d->from < d->start || d->from > d->end)
        return E_RANGE;
    for (uint32_t i = memory_find(s, at); rc == 1 && i < memory_count(s);) {
        struct slice slice = memory_slice(s, &i);

        rc = take_batches(d, &at, slice.buf, slice.mem, slice.len, false, 0);
    }
    return rc;
}

static void read_home(struct task *t)
{
    struct read_done *d = (struct read_done *)t;
    struct shard *s = d->shard;
    uint32_t i;

    ASSERT_HOME(s->group->loop);
    if (s->memory)
        memory_expire(s);
    d->start = atomic_load(&s->start);
    d->end = atomic_load(&s->end);
    if (atomic_load(&s->deleted)) {
        read_answer(d, E_DELETED);
    } else if (s->memory) {
        read_answer(d, read_memory(d));
    } else if (d->from < d->start) {
        read_answer(d, E_RANGE);
    } else if (d->from > d->end) {
        /* What lies past a damaged tail may have existed: it is lost, not out of range. */
        read_answer(d, group_tail_loss(s->group, s) ? E_LOST : E_RANGE);
    } else if (d->from == d->end) {
        read_answer(d, group_tail_loss(s->group, s) ? E_LOST : 0);
    } else if (index_count(&s->index) > 0 && index_at(&s->index, 0)->base <= d->from) {
        i = index_find(&s->index, d->from);
        if (i < index_count(&s->index)) {
            read_tail(d, i);
        } else {
            if (!atomic_load(&s->group->read_only))
                d->lost_until = d->end;
            read_answer(d, E_LOST);
        }
    } else {
        read_segment(d);
    }
}

void shard_read(struct shard *s, struct read_done *d)
{
    atomic_fetch_add(&s->st->busy, 1);
    d->shard = shard_ref(s);
    d->slices = NULL;
    d->n_slices = 0;
    d->bytes = 0;
    d->lost_until = 0;
    d->task.run = read_home;
    loop_post(s->group->loop, &d->task);
}
