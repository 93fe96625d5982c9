#include "journal/keyremake.h"

#include <stdlib.h>

#include "base/logger.h"
#include "journal/keyindex.h"
#include "journal/store.h"

/* Takes turns: the keeper opens a shard, its home loop waits for the index, and gives it back. */
struct remake {
    struct rows_work w; /* first: finding the shards */
    uint64_t *ids;
    unsigned n, at;
    struct shard_open open;
    struct task task;
    struct keyindex_wait wait;
};

int keyremake_mark(struct rows *rows)
{
    struct rows_batch batch = { 0 };
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];
    int rc;

    rows_batch_put(&batch, key, row_key(key, ROW_NAMED, KEYREMAKE_SHARD), value,
                   row_u64_write(0, value));
    rc = rows_write(rows, &batch, 0);
    rows_batch_free(&batch);
    return rc;
}

static struct remake *of_task(struct task *t)
{
    return (struct remake *)((char *)t - offsetof(struct remake, task));
}

static int shard_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct remake *r = ctx;
    struct row_shard row;
    uint64_t id;

    if (((const uint8_t *)key)[0] != ROW_SHARD || !row_key_parse(key, key_bytes, &id, NULL))
        return 1;
    if (row_shard_read(&row, value, value_bytes) < 0 || row.kind != SHARD_ROCKSDB)
        return 0;
    r->ids = mem_grow(r->ids, (r->n + 1) * sizeof *r->ids);
    r->ids[r->n++] = id;
    return 0;
}

static void find_run(struct rows_work *w)
{
    uint8_t table = ROW_SHARD;

    w->rc = rows_scan(w->st->rows, &table, 1, false, shard_row, w);
}

static void remake_end(struct rows_work *w)
{
    struct remake *r = (struct remake *)w;
    struct store *st = w->st;

    free(r->ids);
    free(r);
    atomic_fetch_sub(&st->busy, 1);
}

static void unmark_run(struct rows_work *w)
{
    struct rows_batch batch = { 0 };
    uint8_t key[ROW_KEY_MAX];

    rows_batch_delete(&batch, key, row_key(key, ROW_NAMED, KEYREMAKE_SHARD));
    w->rc = rows_write(w->st->rows, &batch, 0);
    rows_batch_free(&batch);
}

static void all_done(struct remake *r)
{
    LOG_INFO("keys.remade", F_INT("device", r->w.st->super.device), F_INT("shards", r->n));
    r->w.run = unmark_run;
    r->w.done = remake_end;
    store_rows_do(r->w.st, &r->w);
}

static void turn(struct remake *r);

static void turn_over(struct task *t)
{
    struct remake *r = of_task(t);

    shard_unref(r->open.shard);
    r->at++;
    turn(r);
}

/* One that cannot be indexed has said so in the log, and does not stop the others. */
static void indexed(struct keyindex_wait *w, int rc)
{
    struct remake *r = (struct remake *)((char *)w - offsetof(struct remake, wait));

    r->task.run = turn_over;
    loop_post(r->w.st->keeper, &r->task);
}

static void index_home(struct task *t)
{
    struct remake *r = of_task(t);

    r->wait.fn = indexed;
    if (keyindex_wait(r->open.shard, &r->wait))
        indexed(&r->wait, 0);
}

static void opened(struct shard_open *o)
{
    struct remake *r = (struct remake *)((char *)o - offsetof(struct remake, open));

    if (o->rc < 0) { /* deleted meanwhile */
        r->at++;
        turn(r);
        return;
    }
    r->task.run = index_home;
    loop_post(o->shard->group->loop, &r->task);
}

static void turn(struct remake *r)
{
    struct store *st = r->w.st;

    ASSERT_HOME(st->keeper);
    if (atomic_load(&st->closing) || atomic_load(&st->failed)) {
        remake_end(&r->w);
    } else if (r->at == r->n) {
        all_done(r);
    } else {
        r->open = (struct shard_open){ .fn = opened, .loop = st->keeper };
        store_shard_open(st, r->ids[r->at], &r->open);
    }
}

static void found(struct rows_work *w)
{
    struct remake *r = (struct remake *)w;

    if (w->rc >= 0) {
        turn(r);
        return;
    }
    LOG_WARN("keys.not_remade", F_ERR(w->rc));
    remake_end(w);
}

void keyremake_start(struct store *st)
{
    struct remake *r = mem_new(sizeof *r);

    atomic_fetch_add(&st->busy, 1);
    r->w.run = find_run;
    r->w.done = found;
    store_rows_do(st, &r->w);
}
