#include "journal/direct.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/core.h"
#include "journal/io/dev.h"

enum { BUFFER_MIN = 128 * 1024 };

void direct_init(struct direct_buffer *d)
{
    *d = (struct direct_buffer){ .size = BUFFER_MIN };
    pthread_mutex_init(&d->lock, NULL);
}

void direct_fini(struct direct_buffer *d)
{
    buf_unref(d->buf);
    pthread_mutex_destroy(&d->lock);
}

void direct_close(struct direct_buffer *d, const struct buf *buf)
{
    pthread_mutex_lock(&d->lock);
    d->closed = d->closed || d->buf == buf;
    pthread_mutex_unlock(&d->lock);
}

/* Room for that many bytes in the present buffer; false: it is closed or full. */
static bool reserve(struct direct_buffer *d, uint64_t bytes, uint32_t *at)
{
    bool fits;

    pthread_mutex_lock(&d->lock);
    fits = d->buf && !d->closed && d->used + bytes <= d->buf->cap;
    if (fits) {
        *at = d->used;
        d->used += (uint32_t)bytes;
    }
    pthread_mutex_unlock(&d->lock);
    return fits;
}

/* The next buffer: twice as large after one that was full, half after one that was hardly used. */
static bool renew(struct direct_buffer *d, uint64_t bytes)
{
    struct buf *next, *old = d->buf;

    if (old && !d->closed && d->size < DIRECT_BUFFER_MAX)
        d->size *= 2;
    else if (old && d->used < d->size / 4 && d->size > BUFFER_MIN)
        d->size /= 2;
    next = buf_new_aligned(bytes > d->size ? bytes : d->size);
    pthread_mutex_lock(&d->lock);
    d->buf = next;
    d->used = 0;
    d->closed = false;
    pthread_mutex_unlock(&d->lock);
    buf_unref(old);
    return next != NULL;
}

void direct_stage(struct jrn_group *g, struct append *a)
{
    struct direct_buffer *d = &g->direct;
    uint64_t bytes = SEG_RUN_HEAD_BYTES + (uint64_t)a->bytes;
    uint8_t *mem;
    uint32_t at, end;

    if (!a->batch || a->bytes < g->st->direct_from || g->id == GROUP_CATALOGUE)
        return;
    if (!reserve(d, bytes, &at) && (!renew(d, bytes) || !reserve(d, bytes, &at)))
        return; /* short of memory: it goes inline */
    mem = d->buf->mem + at;
    end = at + (uint32_t)bytes;
    memset(mem, 0, SEG_RUN_HEAD_BYTES);
    mem += SEG_RUN_HEAD_BYTES;
    memcpy(mem, a->batch->mem + a->at, a->bytes);
    memset(mem + a->bytes, 0, (PAGE_BYTES - end % PAGE_BYTES) % PAGE_BYTES);
    batch_stamp(mem, (int64_t)a->base_offset, (int32_t)g->epoch);
    a->xxh3 = sum_xxh3(mem, a->bytes, 0);
    buf_unref(a->batch);
    a->batch = buf_ref(d->buf);
    a->at = at + SEG_RUN_HEAD_BYTES;
    a->direct = true;
}

/* --- from which size on --- */

enum {
    PROBE_US = 60 * 1000,
    PROBE_ROUNDS = 7,
    PROBE_SIZES = 3,
    PROBE_LEAST = 16 * 1024,
    PROBE_DOUBT = 32 * 1024
};

struct probe {
    struct store *st;
    struct dev_file *file;
    uint64_t pos, bytes, at; /* the extent, and where in it the next write goes */
    struct buf *mem;
    uint64_t until_us;
    int rc;
};

/* Writes that much at the next place; gives the time. */
static uint64_t probe_write(struct probe *p, uint32_t bytes, bool sync)
{
    uint64_t began = loop_now_us(p->st->keeper);

    if (p->at + bytes > p->bytes)
        p->at = 0;
    if (p->rc >= 0)
        p->rc = dev_write(p->st->dev, p->file, p->pos + p->at, p->mem->mem, bytes);
    if (p->rc >= 0 && sync)
        p->rc = dev_sync(p->st->dev, p->file);
    p->at += bytes;
    return loop_now_us(p->st->keeper) - began;
}

/* How much longer the direct way takes than the inline one, one block with one batch; in us. */
static int64_t probe_round(struct probe *p, uint32_t bytes)
{
    int64_t direct = (int64_t)probe_write(p, bytes, false), twice;

    direct += (int64_t)probe_write(p, PAGE_BYTES, true);
    twice = (int64_t)probe_write(p, bytes + PAGE_BYTES, true);
    /* Destage writes many together. */
    twice += (int64_t)(probe_write(p, (uint32_t)p->mem->cap, false) * bytes / p->mem->cap);
    return direct - twice;
}

static bool probe_direct_wins(struct probe *p, uint32_t bytes)
{
    unsigned wins = 0, n = 0;

    while (n < PROBE_ROUNDS && p->rc >= 0 && loop_now_us(p->st->keeper) < p->until_us) {
        wins += probe_round(p, bytes) < 0;
        n++;
    }
    return n == PROBE_ROUNDS && p->rc >= 0 && wins > n / 2;
}

uint32_t direct_probe(struct store *st)
{
    struct probe p = { .st = st, .bytes = (uint64_t)1 << st->wal_log2 };
    uint32_t from = PROBE_DOUBT;
    uint64_t place;

    if (p.bytes < PROBE_LEAST * 16 || slabs_take(&st->slabs, st->wal_log2, &place) < 0)
        return from;
    p.file = slabs_file(&st->slabs, place, st->wal_log2);
    p.pos = place_pos(place);
    p.mem = buf_new_aligned(p.bytes < 1 << 20 ? p.bytes : 1 << 20);
    p.until_us = loop_now_us(st->keeper) + PROBE_US;
    if (p.mem) {
        memset(p.mem->mem, 0, p.mem->cap);
        from = PROBE_LEAST;
        while (from < PROBE_LEAST << (PROBE_SIZES - 1) && !probe_direct_wins(&p, from))
            from *= 2;
        if (p.rc < 0 || loop_now_us(st->keeper) >= p.until_us)
            from = PROBE_DOUBT;
    }
    buf_unref(p.mem);
    slabs_give(&st->slabs, place, st->wal_log2);
    LOG_INFO("journal.direct_from", F_BYTES(from));
    return from;
}
