#include "journal/keyindex.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/keyremake.h"
#include "journal/shard.h"

enum {
    STEP_BYTES = 256 << 10, /* of batches, as they are stored */
    BODY_MAX = 256 << 20,
    SWEEP_ROWS = 2048
};

struct keyindex {
    struct shard *shard; /* it holds us */
    uint64_t indexed;    /* all below is in the rows */
    bool running;
    struct keyindex_wait *waits, **waits_end;
};

/* One reading from `indexed` up to the end: its steps follow one another. */
struct catch_up {
    struct read_done read; /* first */
    struct work work;
    struct rows_work rows_work;
    struct task task;
    struct shard *shard; /* a reference */
    struct rows_batch rows;
    uint64_t upto;
    int rc;
};

/* --- loading --- */

int keyindex_load(struct shard *s)
{
    uint8_t key[ROW_KEY_MAX], *mem;
    uint64_t indexed = 0;
    size_t bytes;
    int rc = rows_get(s->st->rows, key, row_key(key, ROW_NAMED, s->id), &mem, &bytes);

    if (rc >= 0) {
        rc = row_u64_read(&indexed, mem, bytes);
        free(mem);
    }
    if (rc < 0 && rc != E_NOTFOUND)
        return rc;
    s->keys = mem_new(sizeof *s->keys);
    s->keys->shard = s;
    s->keys->indexed = indexed;
    s->keys->waits_end = &s->keys->waits;
    return 0;
}

void keyindex_free(struct keyindex *k)
{
    ASSERT(!k || !k->waits);
    free(k);
}

/* --- who waits --- */

static void waits_answer(struct keyindex *k, int rc)
{
    struct keyindex_wait *w = k->waits;

    k->waits = NULL;
    k->waits_end = &k->waits;
    while (w) {
        struct keyindex_wait *next = w->next;

        if (rc < 0 || w->target <= k->indexed) {
            w->fn(w, rc);
        } else {
            w->next = NULL;
            *k->waits_end = w;
            k->waits_end = &w->next;
        }
        w = next;
    }
}

bool keyindex_wait(struct shard *s, struct keyindex_wait *w)
{
    struct keyindex *k = s->keys;

    ASSERT_HOME(s->group->loop);
    w->target = atomic_load(&s->end);
    if (k->indexed >= w->target)
        return true;
    w->next = NULL;
    *k->waits_end = w;
    k->waits_end = &w->next;
    keyindex_behind(s);
    return false;
}

void keyindex_deleted(struct shard *s)
{
    waits_answer(s->keys, E_DELETED);
}

/* --- a step: read, open, write --- */

static void step(struct catch_up *c);

static void catch_up_end(struct catch_up *c, int rc)
{
    struct shard *s = c->shard;
    struct store *st = s->st;

    s->keys->running = false;
    waits_answer(s->keys, rc);
    if (rc < 0 && rc != E_CLOSED && rc != E_DELETED)
        LOG_WARN("keys.behind", F_INT("shard", s->id), F_INT("from", s->keys->indexed), F_ERR(rc));
    shard_unref(s);
    free(c);
    atomic_fetch_sub(&st->busy, 1);
}

static void written_home(struct task *t)
{
    struct catch_up *c = (struct catch_up *)((char *)t - offsetof(struct catch_up, task));
    struct keyindex *k = c->shard->keys;

    if (c->rc < 0) {
        catch_up_end(c, c->rc);
        return;
    }
    k->indexed = c->upto;
    waits_answer(k, 0);
    step(c);
}

static void rows_run(struct rows_work *w)
{
    struct catch_up *c = (struct catch_up *)((char *)w - offsetof(struct catch_up, rows_work));

#ifdef WEIR_MUTANT_KEYS_APART
    struct rows_batch x = { 0 };
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    rows_batch_put(&x, key, row_key(key, ROW_NAMED, c->shard->id), value,
                   row_u64_write(c->upto, value));
    w->rc = atomic_load(&c->shard->deleted) ? 0 : rows_write(w->st->rows, &x, 0);
    rows_batch_free(&x);
#endif
    /* A deletion says so before it sweeps the rows, and both go through this queue. */
    w->rc = atomic_load(&c->shard->deleted) ? 0 : rows_write(w->st->rows, &c->rows, 0);
}

static void rows_done(struct rows_work *w)
{
    struct catch_up *c = (struct catch_up *)((char *)w - offsetof(struct catch_up, rows_work));

    rows_batch_free(&c->rows);
    c->rc = w->rc;
    c->task.run = written_home;
    loop_post(c->shard->group->loop, &c->task);
}

static void write_on_keeper(struct store *st, void *arg)
{
    struct catch_up *c = arg;

    c->rows_work = (struct rows_work){ .run = rows_run, .done = rows_done };
    store_rows_do(st, &c->rows_work);
}

/* The names of one batch, from offset from on. A batch that cannot be opened is its producer's doing
 * (its CRC is right): nobody can read a key from it. */
static void batch_names(struct catch_up *c, const uint8_t *mem, const struct batch_head *h,
                        uint64_t from)
{
    struct batch_iter it;
    struct batch_record r;
    int rc;

    if (h->attributes & BATCH_ATTR_CONTROL)
        return;
    rc = batch_iter_open(&it, mem, h->bytes, BODY_MAX);
    if (rc < 0) {
        LOG_WARN("keys.unreadable", F_INT("shard", c->shard->id), F_INT("offset", h->base_offset),
                 F_ERR(rc));
        return;
    }
    while (batch_iter_next(&it, &r) == 1) {
        uint8_t name[ROW_NAME_MAX], key[ROW_NAME_KEY_MAX], value[ROW_VALUE_MAX];
        size_t n;

        if (!r.key || (uint64_t)r.offset < from)
            continue;
        n = row_index_name(name, r.key, (size_t)r.key_bytes);
        n = row_key_name(key, c->shard->id, name, n);
        if (r.value)
            rows_batch_put(&c->rows, key, n, value, row_u64_write((uint64_t)r.offset, value));
        else
            rows_batch_delete(&c->rows, key, n);
    }
    batch_iter_close(&it);
}

static void open_run(struct work *w)
{
    struct catch_up *c = (struct catch_up *)((char *)w - offsetof(struct catch_up, work));
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    c->upto = c->read.from;
    for (unsigned i = 0; i < c->read.n_slices; i++) {
        const uint8_t *mem = c->read.slices[i].mem;
        uint32_t left = c->read.slices[i].len;
        struct batch_head h;

        for (; left > 0 && batch_head_read(&h, mem, left) >= 0; mem += h.bytes, left -= h.bytes) {
            batch_names(c, mem, &h, c->read.from);
            c->upto = (uint64_t)h.base_offset + (uint64_t)h.last_offset_delta + 1;
        }
    }
    c->rc = c->upto > c->read.from ? 0 : E_CORRUPT;
    rows_batch_put(&c->rows, key, row_key(key, ROW_NAMED, c->shard->id), value,
                   row_u64_write(c->upto, value));
}

static void opened(struct work *w)
{
    struct catch_up *c = (struct catch_up *)((char *)w - offsetof(struct catch_up, work));

    read_done_release(&c->read);
    if (c->rc < 0) {
        rows_batch_free(&c->rows);
        catch_up_end(c, c->rc);
        return;
    }
    store_on_keeper(c->shard->st, write_on_keeper, c);
}

static void was_read(struct read_done *d)
{
    struct catch_up *c = (struct catch_up *)d;
    struct keyindex *k = c->shard->keys;
    uint64_t start = shard_start(c->shard);

    if (d->rc == E_RANGE && start > k->indexed) {
        k->indexed = start; /* trimmed meanwhile, perhaps since d->start was looked at */
        waits_answer(k, 0);
        step(c);
    } else if (d->rc == E_LOST && d->lost_until > k->indexed) {
        k->indexed = d->lost_until; /* a loss that was accepted: those records are no more */
        waits_answer(k, 0);
        step(c);
    } else if (d->rc < 0) {
        catch_up_end(c, d->rc);
    } else if (d->bytes == 0) {
        k->indexed = d->end; /* nothing survives there */
        waits_answer(k, 0);
        step(c);
    } else {
        c->work = (struct work){ .run = open_run, .done = opened };
        c->work.loop = c->shard->group->loop;
        pool_submit(c->shard->st->env.pool, &c->work);
    }
}

static void step(struct catch_up *c)
{
    struct shard *s = c->shard;
    int rc = 0;

    if (atomic_load(&s->deleted))
        rc = E_DELETED;
    else if (atomic_load(&s->st->closing))
        rc = E_CLOSED; /* the next life goes on */
    if (rc < 0 || s->keys->indexed >= atomic_load(&s->end)) {
        catch_up_end(c, rc);
        return;
    }
    c->read = (struct read_done){ .fn = was_read,
                                  .loop = s->group->loop,
                                  .from = s->keys->indexed,
                                  .max_bytes = STEP_BYTES,
                                  .at_least_one = true };
    shard_read(s, &c->read);
}

void keyindex_behind(struct shard *s)
{
    struct catch_up *c;

    ASSERT_HOME(s->group->loop);
    if (s->keys->running)
        return;
    s->keys->running = true;
    atomic_fetch_add(&s->st->busy, 1);
    c = mem_new(sizeof *c);
    c->shard = shard_ref(s);
    step(c);
}

/* --- sweeping: names whose record is gone --- */

struct sweep {
    struct rows_work w;
    uint64_t shard, start;
    uint8_t from[ROW_NAME_KEY_MAX + 1]; /* where it goes on */
    size_t from_bytes;
    unsigned seen;
    bool more;
    struct rows_batch rows;
};

static int sweep_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct sweep *s = ctx;
    uint64_t offset;

    if (!row_key_is_name(key, key_bytes, s->shard))
        return 1;
    if (s->seen++ == SWEEP_ROWS) {
        memcpy(s->from, key, key_bytes);
        s->from_bytes = key_bytes;
        s->more = true;
        return 1;
    }
    if (row_u64_read(&offset, value, value_bytes) < 0 || offset < s->start)
        rows_batch_delete(&s->rows, key, key_bytes);
    return 0;
}

static void sweep_run(struct rows_work *w)
{
    struct sweep *s = (struct sweep *)w;
    uint8_t key[ROW_KEY_MAX];

    s->more = false;
    s->seen = 0;
    w->rc = rows_scan(w->st->rows, s->from, s->from_bytes, false, sweep_row, s);
    /* Row x goes last: while it is there, a start finds what is left. */
    if (w->rc >= 0 && !s->more && s->start == UINT64_MAX)
        rows_batch_delete(&s->rows, key, row_key(key, ROW_NAMED, s->shard));
    if (w->rc >= 0 && s->rows.n > 0)
        w->rc = rows_write(w->st->rows, &s->rows, 0);
    rows_batch_free(&s->rows);
}

static void sweep_done(struct rows_work *w)
{
    struct sweep *s = (struct sweep *)w;

    if (w->rc >= 0 && s->more && !atomic_load(&w->st->closing))
        store_rows_do(w->st, w);
    else
        free(s);
}

void keyindex_sweep(struct store *st, uint64_t shard, uint64_t start)
{
    struct sweep *s = mem_new(sizeof *s);

    s->shard = shard;
    s->start = start;
    s->from_bytes = row_key_name(s->from, shard, NULL, 0);
    s->w.run = sweep_run;
    s->w.done = sweep_done;
    store_rows_do(st, &s->w);
}

bool keyindex_is_there(struct store *st, uint64_t shard)
{
    uint8_t key[ROW_KEY_MAX], *mem = NULL;
    size_t bytes;
    int rc = rows_get(st->rows, key, row_key(key, ROW_NAMED, shard), &mem, &bytes);

    free(mem);
    return rc >= 0;
}

struct resume {
    struct rows_work w;
    uint64_t *gone;
    unsigned n;
    bool remake;
};

static int resume_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                      size_t value_bytes)
{
    struct resume *r = ctx;
    uint8_t shard_key[ROW_KEY_MAX], *mem = NULL;
    uint64_t shard;
    size_t bytes;
    int rc;

    if (((const uint8_t *)key)[0] != ROW_NAMED || !row_key_parse(key, key_bytes, &shard, NULL))
        return 1;
    if (shard == KEYREMAKE_SHARD) {
        r->remake = true;
        return 0;
    }
    rc = rows_get(r->w.st->rows, shard_key, row_key(shard_key, ROW_SHARD, shard), &mem, &bytes);
    free(mem);
    if (rc != E_NOTFOUND)
        return rc < 0 ? rc : 0;
    r->gone = mem_grow(r->gone, (r->n + 1) * sizeof *r->gone);
    r->gone[r->n++] = shard;
    return 0;
}

static void resume_run(struct rows_work *w)
{
    uint8_t table = ROW_NAMED;

    w->rc = rows_scan(w->st->rows, &table, 1, false, resume_row, w);
}

static void resume_done(struct rows_work *w)
{
    struct resume *r = (struct resume *)w;

    for (unsigned i = 0; i < r->n; i++)
        keyindex_sweep(w->st, r->gone[i], UINT64_MAX);
    if (r->remake)
        keyremake_start(w->st);
    free(r->gone);
    free(r);
}

void keyindex_resume(struct store *st)
{
    struct resume *r = mem_new(sizeof *r);

    r->w.run = resume_run;
    r->w.done = resume_done;
    store_rows_do(st, &r->w);
}
