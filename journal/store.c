#include "journal/store_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/compact.h"
#include "journal/destage.h"
#include "journal/group.h"
#include "journal/memory.h"
#include "journal/retention.h"
#include "journal/rewrite.h"
#include "journal/scrub.h"
#include "journal/shard.h"
#include "journal/space.h"
#include "journal/stats.h"
#include "journal/unload.h"

enum { CLOSE_POLL_US = 1000 };

/* --- small parts --- */

static uint64_t local_grant(struct jrn_assigner *a, uint64_t group, uint64_t start)
{
    return start;
}

struct jrn_assigner *jrn_assigner_local(void)
{
    static struct jrn_assigner local = { local_grant };

    return &local;
}

struct jrn_group *store_group(struct store *st, uint64_t id)
{
    return id < st->n_groups ? st->groups[id] : NULL;
}

uint64_t store_new_segment(struct store *st)
{
    return st->start_no << 32 | (atomic_fetch_add(&st->segment_serial, 1) + 1);
}

uint64_t store_backlog(const struct store *st)
{
    return atomic_load(&((struct store *)(uintptr_t)st)->backlog);
}

enum jrn_state store_state(const struct store *st)
{
    struct store *m = (struct store *)(uintptr_t)st;

    if (atomic_load(&m->failed))
        return JRN_FAILED;
    return atomic_load(&m->space) == SPACE_FULL ? JRN_FULL : JRN_OK;
}

uint64_t store_room(const struct store *st)
{
    return space_room(st->meter);
}

void store_info(const struct store *st, struct jrn_device_info *info)
{
    space_info(st->meter, info);
    info->state = store_state(st);
    info->backlog = store_backlog(st);
}

uint64_t store_start(const struct store *st)
{
    return st->start_no;
}

int32_t store_epoch(const struct store *st)
{
    for (unsigned i = 1; i < st->n_groups; i++)
        if (st->groups[i]->epoch != st->groups[0]->epoch)
            return -1;
    return (int32_t)st->groups[0]->epoch;
}

uint64_t store_max_shard(struct store *st)
{
    return atomic_load(&st->max_shard);
}

struct app_scan {
    const uint8_t *prefix;
    size_t bytes;
    int (*fn)(void *, const void *, size_t, const void *, size_t);
    void *ctx;
    int rc;
};

static int app_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                   size_t value_bytes)
{
    struct app_scan *s = ctx;

    if (key_bytes < s->bytes || memcmp(key, s->prefix, s->bytes) != 0)
        return 1;
    s->rc = s->fn(s->ctx, (const uint8_t *)key + 1, key_bytes - 1, value, value_bytes);
    return s->rc;
}

int store_rows_scan(struct store *st, const void *prefix, size_t prefix_bytes,
                    int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                              size_t value_bytes),
                    void *ctx)
{
    uint8_t from[1024];
    struct app_scan s = { from, prefix_bytes + 1, fn, ctx, 0 };
    int rc;

    if (prefix_bytes >= sizeof from)
        return E_INVALID;
    from[0] = ROW_APP;
    memcpy(from + 1, prefix, prefix_bytes);
    rc = rows_scan(st->rows, from, s.bytes, false, app_row, &s);
    return rc < 0 ? rc : s.rc;
}

/* --- the keeper --- */

struct keeper_task {
    struct task task;
    struct store *st;
    void (*fn)(struct store *st, void *arg);
    void *arg;
};

static void keeper_run(struct task *t)
{
    struct keeper_task *k = (struct keeper_task *)t;
    struct keeper_task copy = *k;

    free(k);
    copy.fn(copy.st, copy.arg);
}

void store_on_keeper(struct store *st, void (*fn)(struct store *st, void *arg), void *arg)
{
    struct keeper_task *k = mem_new(sizeof *k);

    k->task.run = keeper_run;
    k->st = st;
    k->fn = fn;
    k->arg = arg;
    loop_post(st->keeper, &k->task);
}

static void rows_next(struct store *st);

static void rows_work_run(struct work *w)
{
    struct rows_work *r = (struct rows_work *)w;

    uint64_t began_us = loop_now_us(r->st->keeper);

    r->run(r);
    metric_observe(&r->st->stats->rows_us, loop_now_us(r->st->keeper) - began_us);
}

static void rows_work_done(struct work *w)
{
    struct rows_work *r = (struct rows_work *)w;
    struct store *st = r->st;

    st->rows_running = false;
    metric_add(&st->stats->rows_works, 1);
    if (r->rc < 0) {
        metric_add(&st->stats->rows_failed, 1);
        LOG_ERROR("rows.failed", F_ERR(r->rc));
    }
    r->done(r);
    rows_next(st);
}

static void rows_next(struct store *st)
{
    struct rows_work *r = st->rows_first;

    if (st->rows_running || !r)
        return;
    st->rows_first = r->next;
    if (!st->rows_first)
        st->rows_end = &st->rows_first;
    st->rows_running = true;
    r->work = (struct work){ .run = rows_work_run, .done = rows_work_done, .loop = st->keeper };
    pool_submit(st->env.pool, &r->work);
}

void store_rows_do(struct store *st, struct rows_work *w)
{
    ASSERT_HOME(st->keeper);
    w->st = st;
    w->rc = 0;
    w->next = NULL;
    *st->rows_end = w;
    st->rows_end = &w->next;
    rows_next(st);
}

static void groups_kick(struct store *st)
{
    for (unsigned i = 0; i < st->n_groups; i++)
        group_kick(st->groups[i]);
}

void store_fail(struct store *st, const char *what, int rc)
{
    if (atomic_exchange(&st->failed, true))
        return;
    LOG_ERROR("device.failed", F_STR("at", what), F_ERR(rc),
              F_STR("meaning", "nothing more is acknowledged; reads go on; restart after mending"));
    groups_kick(st);
}

/* --- space: space.c --- */

static void grave_fire(struct loop_timer *t)
{
    struct store *st = (struct store *)((char *)t - offsetof(struct store, grave_timer));

    catalogue_bury(st, false);
    store_space_check(st);
}

/* --- memory --- */

void store_shards_free(struct store *st)
{
    uint64_t pos = 0;
    void *value;

    shard_unref(st->catalogue_shard);
    while (st->groups && hash_next(&st->shards, &pos, NULL, &value)) {
        struct shard *s = value;

        index_free(&s->index);
        shard_unref(s);
    }
    for (unsigned i = 0; i < st->n_groups; i++) {
        struct jrn_group *g = st->groups[i];
        struct shard *dirty = dirty_take(&g->dirty, UINT64_MAX);

        while (dirty) {
            struct shard *s = dirty;

            dirty = s->dirty_next;
            shard_unref(s);
        }
        group_free(g);
    }
    free(st->groups);
    hash_free(&st->shards);
}

void store_free(struct store *st)
{
    stats_free(st->stats); /* first: nobody looks at the rest any more */
    store_shards_free(st);
    hash_free(&st->loading);
    committer_free(st->committer);
    catalogue_free(st->catalogue);
    destage_free(st->destage);
    rewrite_free(st->rewrite);
    run_cache_fini(&st->runs);
    chunks_fini(&st->chunks);
    retention_free(st->retention);
    space_free(st->meter);
    compact_free(st->compact);
    scrub_free(st->scrub);
    memories_free(st->memories);
    segments_fini(&st->segments);
    wal_fini(&st->wal);
    slabs_close(&st->slabs);
    dev_close(st->dev, st->super_file);
    while (st->graves) {
        struct grave *g = st->graves;

        st->graves = g->next;
        free(g);
    }
    pthread_mutex_destroy(&st->shards_lock);
    free((void *)(uintptr_t)st->conf.accept_loss);
    free(st);
}

struct store *store_new(const struct journal_env *env, const struct journal_conf *conf)
{
    struct store *st = mem_new(sizeof *st);
    uint64_t *accept = mem_new((conf->n_accept_loss + 1) * sizeof *accept);

    if (conf->n_accept_loss)
        memcpy(accept, conf->accept_loss, conf->n_accept_loss * sizeof *accept);
    st->env = *env;
    st->env.more = NULL;
    st->env.n_more = 0;
    st->conf = *conf;
    st->conf.accept_loss = accept;
    st->keeper = env->loops[0];
    st->dev = env->dev;
    st->rows = env->rows;
    if (!st->env.read_pool)
        st->env.read_pool = env->pool;
    pthread_mutex_init(&st->shards_lock, NULL);
    rng_seed(&st->rng, env->seed);
    st->rows_end = &st->rows_first;
    st->graves_end = &st->graves;
    st->grave_timer.fire = grave_fire;
    return st;
}

/* --- closing --- */

static void close_done_run(struct task *t)
{
    struct journal_close *c = (struct journal_close *)t;

    c->fn(c);
}

/* The last step, on the keeper: nothing of ours is pending anywhere. */
static void close_end(struct store *st)
{
    struct journal_close *c = st->close;

    loop_timer_stop(&st->close_timer);
    loop_timer_stop(&st->grave_timer);
    retention_stop(st);
    space_stop(st->meter);
    compact_stop(st);
    store_free(st);
    c->task.run = close_done_run;
    loop_post(c->loop, &c->task);
}

/* Goes to the committer's loop and every other, and back: what was posted there before it has then
 * run. */
struct close_round {
    struct task task;
    struct store *st;
    unsigned loop;
};

static void round_go(struct store *st, unsigned loop);

static void round_back(struct task *t)
{
    struct close_round *r = (struct close_round *)t;
    struct store *st = r->st;
    unsigned next = r->loop + 1;

    free(r);
    if (next <= st->env.n_loops)
        round_go(st, next);
    else
        close_end(st);
}

static void round_there(struct task *t)
{
    struct close_round *r = (struct close_round *)t;

    r->task.run = round_back;
    loop_post(r->st->keeper, &r->task);
}

static void round_go(struct store *st, unsigned loop)
{
    struct close_round *r = mem_new(sizeof *r);

    r->task.run = round_there;
    r->st = st;
    r->loop = loop;
    loop_post(loop ? st->env.loops[loop - 1] : st->env.commit_loop, &r->task);
}

static void close_finish(struct task *t)
{
    round_go(((struct journal_close *)t)->store, 0);
}

static void close_poll(struct loop_timer *t)
{
    struct store *st = (struct store *)((char *)t - offsetof(struct store, close_timer));

    if (!catalogue_idle(st->catalogue) || st->rows_running || st->rows_first ||
        space_busy(st->meter) || !destage_idle(st->destage) || !rewrite_idle(st->rewrite) ||
        !compact_idle(st->compact) || !retention_idle(st->retention) || !scrub_idle(st->scrub) ||
        store_backlog(st) > 0 || atomic_load(&st->busy) > 0) {
        committer_feed(st->committer);
        if (!space_busy(st->meter) && destage_idle(st->destage) && rewrite_idle(st->rewrite) &&
            compact_idle(st->compact))
            committer_starve(st->committer);
        loop_timer_set(st->keeper, &st->close_timer, CLOSE_POLL_US);
        return;
    }
    st->close->task.run = close_finish;
    committer_close(st->committer, st->keeper, &st->close->task);
}

static void close_start(struct store *st, void *arg)
{
    st->close = arg;
    atomic_store(&st->closing, true);
    unload_end(st);
    scrub_stop(st->scrub);
    memories_stop(st->memories);
    groups_kick(st);
    st->close_timer.fire = close_poll;
    loop_timer_set(st->keeper, &st->close_timer, 1);
}

void store_close(struct store *st, struct journal_close *done)
{
    done->store = st;
    store_on_keeper(st, close_start, done);
}
