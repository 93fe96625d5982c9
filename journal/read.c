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
    ON_FROM_BYTES = 64 * 1024 /* who asks for so much from a shard's start on will go on */
};

/* --- collecting what fits --- */

static void slice_add(struct read_done *d, struct buf *buf, const uint8_t *mem, uint32_t len)
{
    if ((d->n_slices & (d->n_slices - 1)) == 0)
        d->slices = mem_grow(d->slices, (d->n_slices ? d->n_slices * 2 : 1) * sizeof *d->slices);
    d->slices[d->n_slices++] = (struct slice){ .buf = buf_ref(buf), .mem = mem, .len = len };
    d->bytes += len;
}

/* Whether a batch of a device is what must be there. */
static bool batch_is_sound(const struct read_done *d, const uint8_t *mem, uint64_t bytes,
                           uint64_t base)
{
    struct batch_head h;

    return batch_check_at(&h, mem, bytes, base) >= 0 && h.leader_epoch >= 1 &&
           h.leader_epoch <= shard_epoch(d->shard);
}

int read_take(struct read_done *d, uint64_t *at, struct buf *buf, const uint8_t *mem,
              uint64_t bytes, bool check, struct chunk *c, uint64_t base)
{
    const uint8_t *first = NULL;
    uint32_t len = 0;
    int rc = 1;

    while (rc == 1 && bytes > 0) {
        struct batch_head h;
        uint64_t end;

        if (check && !(c && chunk_checked(c, mem))) {
            if (!batch_is_sound(d, mem, bytes, base)) {
                rc = E_LOST;
                break;
            }
            if (c)
                chunk_check(c, mem);
        }
        if (batch_head_read(&h, mem, bytes) < 0) {
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

static bool is_entry(const struct cold_entry *c, const uint8_t *mem)
{
    /* Sound batches may be another's: of a block that was lost or went astray. And no CRC reaches
     * offsets and epochs. */
    return sum_xxh3(mem, c->entry.bytes, 0) == (c->seg ? c->direct.xxh3 : c->entry.xxh3);
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
        return is_entry(c, *mem) ? 0 : E_LOST;
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
    return is_entry(c, *mem) ? 0 : E_LOST;
}

void read_log_damage(const struct shard *s, const char *where, uint64_t place, uint64_t offset)
{
    metric_add(&s->st->stats->read_damaged, 1);
    LOG_ERROR("read.damaged", F_INT("shard", s->id), F_STR("in", where), F_INT("at", place),
              F_INT("offset", offset));
}

/* --- chunks --- */

int read_chunk(struct read_work *rw, const struct chunk_place *p, struct chunk **out)
{
    struct chunks *t = &rw->s->st->chunks;
    struct chunk *c = rw->chunk;
    int rc;

    rw->chunk = NULL;
    if (c && !chunk_is(c, p)) {
        chunk_unref(t, c);
        c = NULL;
    }
    if (!c)
        c = rw->on ? chunk_read(t, p, rw->d->loop, false) : chunk_find(t, p);
    if (!c)
        return 2;
    rc = chunk_state(t, c);
    if (rc == 1) {
        *out = c;
        return 1;
    }
    if (rc == 0 && rw->d->bytes == 0) {
        rw->chunk = c;
        rw->waits = true;
        return 0;
    }
    chunk_unref(t, c);
    return rc == E_BUSY || rc == E_NOMEM ? 2 : rc;
}

bool read_ahead(struct read_work *rw, const struct chunk_place *p)
{
    struct chunk *c = chunk_read(&rw->s->st->chunks, p, rw->d->loop, true);

    chunk_unref(&rw->s->st->chunks, c);
    return c != NULL;
}

/* --- the WAL, on a pool thread --- */

/* As read_chunk says, and then the entry's bytes are at *mem. What was not read whole is read alone. */
static int entry_chunk(struct read_work *rw, const struct cold_entry *c, struct chunk **chunk,
                       const uint8_t **mem)
{
    int rc = c->place.bytes ? read_chunk(rw, &c->place, chunk) : 2;

    if (rc != 1)
        return rc;
    *mem = chunk_mem(*chunk) +
           (c->seg ? c->direct.pos - c->place.pos : c->entry.lsn - c->extent->first_lsn);
    if (!chunk_checked(*chunk, *mem) && !is_entry(c, *mem)) {
        chunk_unref(&rw->s->st->chunks, *chunk);
        return E_LOST;
    }
    return 1;
}

static int entry_take(struct read_work *rw, const struct cold_entry *c, uint64_t *at)
{
    struct store *st = rw->s->st;
    struct chunk *chunk = NULL;
    struct buf *buf = NULL;
    const uint8_t *mem;
    int rc = entry_chunk(rw, c, &chunk, &mem);

    if (rc == 2) {
        rc = read_wal_run(st, c, &buf, &mem);
        if (rc >= 0)
            rc = read_take(rw->d, at, buf, mem, c->entry.bytes, true, NULL, c->entry.base);
        buf_unref(buf);
    } else if (rc == 1) {
        rc =
            read_take(rw->d, at, chunk_buf(chunk), mem, c->entry.bytes, true, chunk, c->entry.base);
        chunk_unref(&st->chunks, chunk);
    }
    if (rc >= 0 && !rw->waits)
        stats_read(st, STATS_WAL, c->entry.bytes);
    return rc;
}

static void cold_run(struct work *w)
{
    struct read_work *rw = (struct read_work *)w;
    struct store *st = rw->s->st;
    int rc = 1;

    rw->at = rw->d->from;
    for (unsigned i = 0; rc == 1 && i < rw->n_cold; i++) {
        rc = entry_take(rw, &rw->cold[i], &rw->at);
        if (rc == E_LOST)
            read_log_damage(rw->s, "wal", rw->cold[i].entry.lsn, rw->at);
    }
    for (unsigned i = 0; i < rw->n_ahead; i++) {
        read_ahead(rw, &rw->ahead[i].place);
        read_unpin(st, &rw->ahead[i]);
    }
    rw->n_ahead = 0;
    for (unsigned i = 0; !rw->waits && i < rw->n_cold; i++)
        read_unpin(st, &rw->cold[i]);
    rw->d->rc = rc;
}

/* On the reader's loop. What waits for a chunk begins anew when that has been read. */
static void cold_done(struct work *w)
{
    struct read_work *rw = (struct read_work *)w;
    struct read_done *d = rw->d;

    if (rw->waits) {
        rw->waits = false;
        rw->wait.work = &rw->work;
        chunk_wait(&rw->s->st->chunks, rw->chunk, &rw->wait);
        return;
    }
    chunk_unref(&rw->s->st->chunks, rw->chunk);
    if (d->bytes > 0)
        chunks_read_to(&rw->s->st->chunks, rw->s->id, rw->at);
    free(rw);
    read_answer(d, d->rc);
}

static struct read_work *cold_new(struct read_done *d, void (*run)(struct work *w))
{
    struct read_work *rw = mem_new(sizeof *rw);

    rw->d = d;
    rw->s = d->shard;
    rw->at = d->from;
    rw->on = chunks_reads_on(&rw->s->st->chunks, rw->s->id, d->from) ||
             (d->from <= d->start && d->max_bytes >= ON_FROM_BYTES);
    rw->work.run = run;
    rw->work.done = cold_done;
    rw->work.loop = d->loop;
    return rw;
}

/* --- on the home loop --- */

static bool entries_follow(const struct index_entry *a, const struct index_entry *b)
{
    uint64_t end;

    if (!a->direct || !b->direct || a->direct->segment != b->direct->segment ||
        a->base + a->n_offsets != b->base)
        return false;
    end = a->direct->pos + a->bytes + SEG_RUN_HEAD_BYTES;
    return b->direct->pos >= end && b->direct->pos - end < PAGE_BYTES;
}

/* The chunk that entry i lies in, when it can be read whole: all of a closed extent; of an open segment
 * what lies together there. Gives the number of the first entry behind it. */
static uint32_t entry_place(struct shard *s, uint32_t i, struct cold_entry *c)
{
    const struct index *x = &s->index;
    uint32_t first = i, last = i, n = index_count(x);
    uint64_t window;

    if (!c->seg) {
        uint64_t bytes = wal_closed_bytes(&s->st->wal, c->extent);

        if (bytes && bytes <= CHUNK_EXTENT_MAX)
            c->place = (struct chunk_place){ .extent = c->extent, .bytes = (uint32_t)bytes };
        return index_find_lsn(x, c->extent->first_lsn + bytes);
    }
    window = c->direct.pos / CHUNK_BYTES;
    while (first > 0 && entries_follow(index_at(x, first - 1), index_at(x, first)) &&
           index_at(x, first - 1)->direct->pos / CHUNK_BYTES == window)
        first--;
    while (last + 1 < n && entries_follow(index_at(x, last), index_at(x, last + 1)) &&
           index_at(x, last + 1)->direct->pos / CHUNK_BYTES == window)
        last++;
    c->place = (struct chunk_place){ .seg = c->seg, .pos = index_at(x, first)->direct->pos };
    c->place.bytes =
        (uint32_t)(index_at(x, last)->direct->pos + index_at(x, last)->bytes - c->place.pos);
    return last + 1;
}

/* Names the chunks that a reader will want next, from entry i on, and pins them. */
static void ahead_wal(struct read_work *rw, uint32_t i)
{
    struct shard *s = rw->s;
    uint64_t bytes = 0;

    while (i < index_count(&s->index) && rw->n_ahead < READ_AHEAD_PLACES &&
           bytes < CHUNK_AHEAD_BYTES) {
        struct cold_entry *c = &rw->ahead[rw->n_ahead];
        const struct index_entry *n = index_at(&s->index, i);
        struct slice slice;

        if (read_cached(s, n, &slice)) { /* so is what comes behind it */
            buf_unref(slice.buf);
            break;
        }
        if (!read_pin(s->st, n, c))
            break;
        i = entry_place(s, i, c);
        if (!c->place.bytes) {
            read_unpin(s->st, c);
            break;
        }
        bytes += c->place.bytes;
        rw->n_ahead++;
    }
}

/* Pins the runs from entry i on that the budget may reach and hands them to the pool. */
static void read_cold_wal(struct read_done *d, uint32_t i)
{
    struct shard *s = d->shard;
    struct store *st = s->st;
    struct read_work *rw = cold_new(d, cold_run);
    uint64_t bytes = 0, next = index_at(&s->index, i)->base;
    uint32_t behind = i;

    for (; i < index_count(&s->index) && rw->n_cold < COLD_ENTRIES; i++) {
        const struct index_entry *n = index_at(&s->index, i);
        struct cold_entry *c = &rw->cold[rw->n_cold];

        if (n->base != next || (rw->n_cold > 0 && bytes >= d->max_bytes) || !read_pin(st, n, c))
            break;
        behind = entry_place(s, i, c);
        next = n->base + n->n_offsets;
        bytes += n->bytes;
        rw->n_cold++;
    }
    if (rw->n_cold == 0) {
        free(rw);
        read_answer(d, E_LOST);
        return;
    }
    if (rw->on)
        ahead_wal(rw, behind);
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
        rc = read_take(d, &at, slice.buf, slice.mem, slice.len, false, NULL, 0);
        buf_unref(slice.buf);
    }
    if (d->bytes > 0)
        chunks_read_to(&s->st->chunks, s->id, at);
    read_answer(d, rc < 0 ? rc : 0);
}

static void read_segment(struct read_done *d)
{
    struct shard *s = d->shard;
    struct read_work *rw = cold_new(d, read_segment_run);

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

        rc = read_take(d, &at, slice.buf, slice.mem, slice.len, false, NULL, 0);
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
