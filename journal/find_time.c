/* Finding a record by its time (journal.h: shard_find_time).
 *
 * What a run, a piece of it and a batch say of their largest timestamp leads to the batches that are
 * opened. The home loop names the runs of the WAL that may hold the answer, a few at a time, and a
 * pool thread looks into the segments, which are before them, and then into these; while a header has
 * promised too much the search goes on behind it. */
#include <stdlib.h>
#include <string.h>

#include "format/batch.h"
#include "format/sum.h"
#include "journal/memory.h"
#include "journal/read_int.h"
#include "journal/shard.h"

enum {
    CANDIDATES = 8, /* runs of the WAL looked into in one turn */
    BODY_MAX = 256 << 20
};

struct time_work {
    struct work work;
    struct task task;
    struct find_time *f;
    struct shard *s;
    uint64_t start; /* of the shard, when asked */
    bool max;       /* SHARD_TIME_MAX is asked for */
    int64_t wanted; /* the least timestamp that will do; max: the largest one seen */
    uint64_t at;    /* what is below has been looked through */
    /* What is below is looked for in segments. The rows may know of more already: what is just being
     * destaged, whose segments nobody can read yet. */
    uint64_t wal_first;
    /* Runs of the WAL that may hold the answer, in order; where the next turn begins, 0: nowhere. */
    struct cold_entry wal[CANDIDATES];
    unsigned n_wal;
    uint64_t next_turn;
};

static void found(struct time_work *tw, uint64_t offset, int64_t timestamp)
{
    tw->f->offset = offset;
    tw->f->timestamp = timestamp;
    tw->f->found = true;
}

/* --- in bytes --- */

/* Looks through one batch for the first record that will do. Its header may have promised a later
 * time than any of its records has; asked for the largest, its latest record is given then: nothing
 * else said so much. */
static void time_in_batch(struct time_work *tw, const uint8_t *mem, const struct batch_head *h)
{
    struct batch_record r, latest = { .offset = -1 };
    struct batch_iter it;

    if (batch_iter_open(&it, mem, h->bytes, BODY_MAX) < 0)
        return;
    while (!tw->f->found && batch_iter_next(&it, &r) == 1) {
        if ((uint64_t)r.offset < tw->start)
            continue;
        if (r.timestamp >= tw->wanted)
            found(tw, (uint64_t)r.offset, r.timestamp);
        else if (latest.offset < 0 || r.timestamp > latest.timestamp)
            latest = r;
    }
    batch_iter_close(&it);
    if (!tw->f->found && tw->max && latest.offset >= 0 && (uint64_t)h->base_offset >= tw->start)
        found(tw, (uint64_t)latest.offset, latest.timestamp);
}

/* Looks through a run's bytes, whose first batch has offset base; a damaged one ends it. A batch's
 * own offset is not under its CRC: it must be the one that follows. */
static int time_in_bytes(struct time_work *tw, const uint8_t *mem, uint64_t bytes, uint64_t base)
{
    while (bytes > 0 && !tw->f->found) {
        struct batch_head h;

        if (batch_check_at(&h, mem, bytes, base) < 0)
            return E_LOST;
        base += (uint64_t)h.last_offset_delta + 1;
        if (h.max_timestamp >= tw->wanted && base > tw->start)
            time_in_batch(tw, mem, &h);
        mem += h.bytes;
        bytes -= h.bytes;
    }
    return 0;
}

/* The largest timestamp of the records from the start on, in a batch in which the start lies. */
static void max_in_batch(struct time_work *tw, const uint8_t *mem, const struct batch_head *h)
{
    struct batch_iter it;
    struct batch_record r;

    if (batch_iter_open(&it, mem, h->bytes, BODY_MAX) < 0)
        return;
    while (batch_iter_next(&it, &r) == 1)
        if ((uint64_t)r.offset >= tw->start && r.timestamp > tw->wanted)
            tw->wanted = r.timestamp;
    batch_iter_close(&it);
}

/* The same in a run in which the start lies: what a run says of itself counts the trimmed ones, too. */
static int max_in_bytes(struct time_work *tw, const uint8_t *mem, uint64_t bytes, uint64_t base)
{
    while (bytes > 0) {
        struct batch_head h;

        if (batch_check_at(&h, mem, bytes, base) < 0)
            return E_LOST;
        base += (uint64_t)h.last_offset_delta + 1;
        if (base > tw->start && h.max_timestamp > tw->wanted) {
            if ((uint64_t)h.base_offset >= tw->start)
                tw->wanted = h.max_timestamp;
            else
                max_in_batch(tw, mem, &h);
        }
        mem += h.bytes;
        bytes -= h.bytes;
    }
    return 0;
}

/* --- in segments --- */

struct time_scan {
    struct time_work *tw;
    bool max_only;            /* only look for the largest timestamp */
    uint64_t gone, gone_base; /* the segment that was not there any more, and the run in it */
    int rc;
};

/* Reads a run from its first promising sparse entry on, in pieces between sparse entries. */
static int time_in_run(struct time_work *tw, struct segment *seg, const struct seg_index *x,
                       const struct seg_run *run)
{
    struct segments *t = &tw->s->st->segments;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && !tw->f->found && i < run->n_sparse; i++) {
        const struct seg_sparse *n = &x->sparse[run->first_sparse + i];
        uint64_t end = i + 1 < run->n_sparse ? n[1].pos : run->bytes;
        struct buf *buf;
        uint32_t at;

        if (n->max_ts < tw->wanted)
            continue;
        rc = segment_read(t, seg, run->pos + n->pos, end - n->pos, &buf, &at);
        if (rc < 0)
            break;
        rc = seg_stretch_is(x, run, i, buf->mem + at)
                 ? time_in_bytes(tw, buf->mem + at, end - n->pos, n->offset)
                 : E_LOST;
        buf_unref(buf);
    }
    return rc;
}

static int time_in_segment(struct time_scan *ts, struct segment *seg, const struct row_run *row,
                           uint64_t base)
{
    struct time_work *tw = ts->tw;
    struct segments *t = &tw->s->st->segments;
    const struct seg_index *x;
    const struct seg_run *run;
    struct buf *buf;
    uint32_t at;
    int rc;

    if (ts->max_only) {
        rc = segment_read(t, seg, row->pos, row->bytes, &buf, &at);
        if (rc < 0)
            return rc;
        rc = sum_xxh3(buf->mem + at, row->bytes, 0) == row->xxh3
                 ? max_in_bytes(tw, buf->mem + at, row->bytes, base)
                 : E_LOST;
        buf_unref(buf);
        return rc;
    }
    rc = segment_index(t, seg, &x);
    if (rc < 0)
        return rc;
    run = read_index_run(x, tw->s->id, base);
    return run ? time_in_run(tw, seg, x, run) : 0;
}

/* The segment of a row is not there any more: trimmed meanwhile, or rewritten, and then its row has
 * changed, too. */
static int time_row_gone(struct time_scan *ts, const struct row_run *row, uint64_t base)
{
    struct shard *s = ts->tw->s;

    if (atomic_load(&s->deleted)) {
        ts->rc = E_DELETED;
        return 1;
    }
    if (row->end <= atomic_load(&s->start))
        return 0;
    ts->rc = row->segment == ts->gone && base == ts->gone_base ? E_LOST : E_BUSY;
    ts->gone = row->segment;
    ts->gone_base = base;
    return 1;
}

static int time_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    struct time_scan *ts = ctx;
    struct time_work *tw = ts->tw;
    struct segment *seg;
    struct row_run row;
    uint64_t base;

    if (!row_key_of(key, key_bytes, ROW_RUN, tw->s->id, &base))
        return 1;
    if (row_run_read(&row, value, value_bytes) < 0)
        return E_CORRUPT;
    if (base >= tw->wal_first)
        return 1;
    if (row.end <= tw->start || row.end <= tw->at)
        return 0;
    if (ts->max_only && (base >= tw->start || row.max_ts <= tw->wanted)) {
        if (row.max_ts > tw->wanted)
            tw->wanted = row.max_ts;
        return 0;
    }
    if (row.max_ts < tw->wanted)
        return 0;
    seg = segment_pin(&tw->s->st->segments, row.segment);
    if (!seg)
        return time_row_gone(ts, &row, base);
    ts->rc = time_in_segment(ts, seg, &row, base);
    segment_unpin(&tw->s->st->segments, seg);
    return ts->rc < 0 || tw->f->found;
}

static int time_in_segments(struct time_work *tw, bool max_only)
{
    struct time_scan ts = { .tw = tw, .max_only = max_only };
    uint8_t key[ROW_KEY_MAX];
    size_t key_bytes = row_key2(key, ROW_RUN, tw->s->id, 0);
    int rc;

    do {
        ts.rc = 0;
        rc = rows_scan(tw->s->st->rows, key, key_bytes, false, time_row, &ts);
    } while (rc >= 0 && ts.rc == E_BUSY);
    return rc < 0 ? rc : ts.rc;
}

/* --- in the WAL --- */

static int time_in_wal(struct time_work *tw, bool max_only)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && !tw->f->found && i < tw->n_wal; i++) {
        struct cold_entry *c = &tw->wal[i];
        struct buf *buf = NULL;
        const uint8_t *mem = c->slice.mem;

        if (max_only && (c->entry.base >= tw->start || c->entry.max_ts <= tw->wanted)) {
            if (c->entry.max_ts > tw->wanted)
                tw->wanted = c->entry.max_ts;
            continue;
        }
        if (c->entry.max_ts < tw->wanted)
            continue;
        rc = c->slice.buf ? 0 : read_wal_run(tw->s->st, c, &buf, &mem);
        if (rc >= 0)
            rc = (max_only ? max_in_bytes : time_in_bytes)(tw, mem, c->entry.bytes, c->entry.base);
        buf_unref(buf);
    }
    return rc;
}

static void time_run(struct work *w)
{
    struct time_work *tw = (struct time_work *)w;
    int rc = 0;

    if (tw->max) {
        rc = time_in_wal(tw, true);
        if (rc >= 0)
            rc = time_in_segments(tw, true);
    }
    if (rc >= 0)
        rc = time_in_segments(tw, false);
    if (rc >= 0)
        rc = time_in_wal(tw, false);
    for (unsigned i = 0; i < tw->n_wal; i++)
        read_unpin(tw->s->st, &tw->wal[i]);
    tw->n_wal = 0;
    tw->f->rc = rc < 0 ? rc : 0;
}

/* --- on the home loop --- */

static void time_turn(struct task *t);

/* On the loop of the one who asked. */
static void time_turn_over(struct work *w)
{
    struct time_work *tw = (struct time_work *)w;
    struct find_time *f = tw->f;
    struct store *st = tw->s->st;

    if (f->rc >= 0 && !f->found && tw->next_turn) {
        tw->at = tw->next_turn;
        tw->task.run = time_turn;
        loop_post(tw->s->group->loop, &tw->task);
        return;
    }
    shard_unref(tw->s);
    free(tw);
    atomic_fetch_sub(&st->busy, 1);
    f->fn(f);
}

/* The same as of an entry of the index, for each batch of a MEMORY shard. */
static struct index_entry memory_entry(const struct shard *s, uint32_t i)
{
    const struct memory_batch *b = memory_at(s, i);

    return (struct index_entry){
        .base = b->base, .n_offsets = b->n_offsets, .bytes = b->bytes, .max_ts = b->max_ts
    };
}

static uint32_t n_entries(const struct shard *s)
{
    return s->memory ? memory_count(s) : index_count(&s->index);
}

static struct index_entry entry_at(const struct shard *s, uint32_t i)
{
    return s->memory ? memory_entry(s, i) : *index_at(&s->index, i);
}

static void time_take(struct time_work *tw, uint32_t i)
{
    struct cold_entry *c = &tw->wal[tw->n_wal];
    struct index_entry n = entry_at(tw->s, i);
    struct slice slice;

    if (tw->s->memory) {
        const struct memory_batch *b = memory_at(tw->s, i);

        slice = (struct slice){ buf_ref(b->buf), b->buf->mem + b->at, b->bytes };
        *c = (struct cold_entry){ .entry = n, .slice = slice };
    } else if (read_cached(tw->s, &n, &slice)) {
        *c = (struct cold_entry){ .entry = n, .slice = slice };
    } else if (!read_pin(tw->s->st, &n, c)) {
        tw->wal_first = UINT64_MAX; /* then rows must say where it went */
        return;
    }
    tw->n_wal++;
}

/* The runs of the WAL that may hold the answer: the first ones from tw->at on that are late enough. */
static void time_candidates(struct time_work *tw)
{
    tw->next_turn = 0;
    for (uint32_t i = 0; i < n_entries(tw->s); i++) {
        struct index_entry n = entry_at(tw->s, i);

        if (n.max_ts < tw->wanted || n.base + n.n_offsets <= tw->at)
            continue;
        if (tw->n_wal == CANDIDATES) {
            tw->next_turn = n.base;
            break;
        }
        time_take(tw, i);
    }
}

/* The one with the largest timestamp, and the first one: when some of it is trimmed, what it says of
 * itself may be too much. */
static void time_max_candidates(struct time_work *tw)
{
    uint32_t n = n_entries(tw->s), first = n > 0 && entry_at(tw->s, 0).base < tw->start,
             best = first;

    if (first)
        time_take(tw, 0);
    for (uint32_t i = first; i < n; i++)
        if (entry_at(tw->s, i).max_ts > entry_at(tw->s, best).max_ts)
            best = i;
    if (best < n)
        time_take(tw, best);
}

static void time_done_run(struct task *t)
{
    struct find_time *f = (struct find_time *)t;

    f->fn(f);
}

static void time_turn(struct task *t)
{
    struct time_work *tw = (struct time_work *)((char *)t - offsetof(struct time_work, task));
    struct find_time *f = tw->f;
    struct shard *s = tw->s;
    struct store *st = s->st;

    ASSERT_HOME(s->group->loop);
    if (atomic_load(&s->deleted)) {
        f->rc = E_DELETED;
        f->task.run = time_done_run;
        loop_post(f->loop, &f->task);
        free(tw);
        shard_unref(s);
        atomic_fetch_sub(&st->busy, 1);
        return;
    }
    tw->wal_first = n_entries(s) > 0 ? entry_at(s, 0).base : UINT64_MAX;
    if (tw->max)
        time_max_candidates(tw);
    else
        time_candidates(tw);
    pool_submit(st->env.read_pool, &tw->work);
}

static void time_home(struct task *t)
{
    struct find_time *f = (struct find_time *)t;
    struct shard *s = f->shard;
    struct time_work *tw = mem_new(sizeof *tw);

    f->found = false;
    tw->f = f;
    tw->s = s;
    tw->max = f->time == SHARD_TIME_MAX;
    tw->wanted = tw->max ? INT64_MIN : f->time;
    tw->work.run = time_run;
    tw->work.done = time_turn_over;
    tw->work.loop = f->loop;
    if (s->memory)
        memory_expire(s);
    tw->start = atomic_load(&s->start);
    time_turn(&tw->task);
}

void shard_find_time(struct shard *s, struct find_time *f)
{
    atomic_fetch_add(&s->st->busy, 1);
    f->shard = shard_ref(s);
    f->task.run = time_home;
    loop_post(s->group->loop, &f->task);
}
