#include "journal/direct.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/core.h"
#include "journal/io/dev.h"

/* What lies in the cache for one batch should not be many times as large. */
enum { BUFFER_MIN = 32 * 1024 };

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

void direct_release(struct direct_buffer *d)
{
    struct buf *old = NULL;

    if (!d->buf)
        return;
    pthread_mutex_lock(&d->lock);
    if (d->closed) {
        old = d->buf;
        d->buf = NULL;
    }
    pthread_mutex_unlock(&d->lock);
    if (old && d->used < d->size / 4 && d->size > BUFFER_MIN)
        d->size /= 2;
    buf_unref(old);
}

/* The next buffer: twice as large after one that was full; half after one that was hardly used. */
static bool renew(struct direct_buffer *d, uint64_t bytes)
{
    struct buf *next, *old;

    direct_release(d);
    old = d->buf;
    if (old && d->size < DIRECT_BUFFER_MAX)
        d->size *= 2;
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
    PROBE_SURE = 6, /* rounds of one mind */
    PROBE_LEAST = 16 * 1024,
    PROBE_DOUBT = 32 * 1024,
    PROBE_MOST = 64 * 1024,
    PROBE_DESTAGE = 1 << 20 /* destage writes so much at once */
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
static uint64_t probe_write(struct probe *p, uint32_t bytes)
{
    uint64_t began = loop_now_us(p->st->keeper);

    if (p->at + bytes > p->bytes)
        p->at = 0;
    if (p->rc >= 0)
        p->rc = dev_write(p->st->dev, p->file, p->pos + p->at, p->mem->mem, bytes);
    p->at += bytes;
    return loop_now_us(p->st->keeper) - began;
}

static uint64_t probe_sync(struct probe *p)
{
    uint64_t began = loop_now_us(p->st->keeper);

    if (p->rc >= 0)
        p->rc = dev_sync(p->st->dev, p->file);
    return loop_now_us(p->st->keeper) - began;
}

/* Whether one batch takes less time directly than inline. The block goes out with the batch, so the
 * longer of the two counts. */
static bool probe_round(struct probe *p, uint32_t bytes)
{
    uint64_t batch = probe_write(p, bytes), block = probe_write(p, PAGE_BYTES);
    uint64_t direct = (batch > block ? batch : block) + probe_sync(p);
    uint64_t twice = probe_write(p, bytes + PAGE_BYTES) + probe_sync(p);

    twice += probe_write(p, PROBE_DESTAGE) * bytes / PROBE_DESTAGE;
    return direct < twice;
}

/* Of PROBE_ROUNDS; or as many as there was time for. */
static unsigned probe_wins(struct probe *p, uint32_t bytes)
{
    unsigned wins = 0;

    for (unsigned n = 0; n < PROBE_ROUNDS; n++)
        if (p->rc >= 0 && loop_now_us(p->st->keeper) < p->until_us)
            wins += probe_round(p, bytes);
    return wins;
}

static uint32_t probe_size(struct probe *p)
{
    uint32_t from = PROBE_DOUBT;

    if (probe_wins(p, PROBE_LEAST) >= PROBE_SURE)
        from = PROBE_LEAST;
    else if (probe_wins(p, PROBE_DOUBT) <= PROBE_ROUNDS - PROBE_SURE)
        from = PROBE_MOST;
    /* Who ran out of time knows nothing. */
    return p->rc < 0 || loop_now_us(p->st->keeper) >= p->until_us ? PROBE_DOUBT : from;
}

uint32_t direct_probe(struct store *st)
{
    struct probe p = { .st = st, .bytes = (uint64_t)1 << st->wal_log2 };
    uint32_t from = PROBE_DOUBT;
    uint64_t place;

    if (p.bytes < PROBE_DESTAGE || slabs_take(&st->slabs, st->wal_log2, &place) < 0)
        return from;
    p.file = slabs_file(&st->slabs, place, st->wal_log2);
    p.pos = place_pos(place);
    p.mem = buf_new_aligned(PROBE_DESTAGE);
    p.until_us = loop_now_us(st->keeper) + PROBE_US;
    if (p.mem) {
        memset(p.mem->mem, 0, PROBE_DESTAGE);
        from = probe_size(&p);
    }
    buf_unref(p.mem);
    slabs_give(&st->slabs, place, st->wal_log2);
    LOG_INFO("journal.direct_from", F_BYTES(from));
    return from;
}
