#include "journal/group.h"

#include <stdlib.h>

#include "base/logger.h"
#include "journal/committer.h"
#include "journal/keyindex.h"
#include "journal/shard.h"
#include "journal/stats.h"

static void flush_run(struct task *t)
{
    struct jrn_group *g = (struct jrn_group *)((char *)t - offsetof(struct jrn_group, flush));
    struct append *first = g->staged, **end = g->staged_end;

    g->flush_posted = false;
    if (!first)
        return;
    g->staged = NULL;
    g->staged_end = &g->staged;
    committer_push(g->st->committer, first, end);
}

/* Takes every held append through its checks again. */
static void held_retry(struct jrn_group *g)
{
    struct append *a = g->held;

    g->held = NULL;
    g->held_end = &g->held;
    loop_timer_stop(&g->throttle);
    while (a) {
        struct append *next = a->next;

        a->next = NULL;
        shard_append_home(a);
        a = next;
    }
}

/* Groups of one policy class are spread over the loops, and so are the classes of one turn. */
static unsigned loop_of(const struct store *st, uint64_t id)
{
    uint64_t at = id;

    if (st->super.policy_groups && id >= st->super.policy_groups) {
        at -= st->super.policy_groups;
        at = at / POLICY_CLASSES + at % POLICY_CLASSES;
    }
    return (unsigned)(at % st->env.n_loops);
}

static void throttle_fire(struct loop_timer *t)
{
    held_retry((struct jrn_group *)((char *)t - offsetof(struct jrn_group, throttle)));
}

bool group_throttled(struct jrn_group *g, struct append *a)
{
    uint32_t us = atomic_load(&g->st->throttle_us);
    uint64_t now;

    if (us == 0 || atomic_load(&g->st->closing))
        return false;
    now = loop_now_us(g->loop);
    if (a->due_us == 0)
        a->due_us = now + us;
    if (now >= a->due_us)
        return false;
    if (!g->held)
        loop_timer_set(g->loop, &g->throttle, a->due_us - now);
    return true;
}

struct jrn_group *group_new(struct store *st, uint64_t id, enum shard_class class)
{
    struct jrn_group *g = mem_new_aligned(sizeof *g, CACHE_LINE);

    g->st = st;
    g->id = id;
    g->class = class;
    g->loop = st->env.loops[loop_of(st, id)];
    g->least_retention_ms = INT64_MAX;
    g->dirty.log2 = st->wal_log2;
    g->staged_end = &g->staged;
    g->held_end = &g->held;
    g->flush.run = flush_run;
    direct_init(&g->direct);
    g->throttle.fire = throttle_fire;
    return g;
}

void group_free(struct jrn_group *g)
{
    if (!g)
        return;
    ASSERT(!g->staged && !g->held);
    cache_free(&g->cache);
    direct_fini(&g->direct);
    free(atomic_load(&g->spare_result));
    dirty_free(&g->dirty);
    free(g->losses);
    free(g);
}

void group_stage(struct jrn_group *g, struct append *a)
{
    ASSERT_HOME(g->loop);
    direct_stage(g, a);
    a->next = NULL;
    *g->staged_end = a;
    g->staged_end = &a->next;
    if (!g->flush_posted) {
        g->flush_posted = true;
        loop_post(g->loop, &g->flush);
    }
}

/* Kicks may come from any thread, so each is a task of its own. */
struct group_kick {
    struct task task;
    struct jrn_group *group;
};

static void kick_task(struct task *t)
{
    struct group_kick *k = (struct group_kick *)t;
    struct jrn_group *g = k->group;

    free(k);
    held_retry(g);
}

void group_kick(struct jrn_group *g)
{
    struct group_kick *k = mem_new(sizeof *k);

    k->task.run = kick_task;
    k->group = g;
    loop_post(g->loop, &k->task);
}

void group_dirty(struct jrn_group *g, struct shard *s)
{
    if (s->dirty)
        return;
    s->dirty = true;
    if (!g->used) {
        g->used = true;
        atomic_fetch_add(&g->st->groups_used, 1);
    }
    dirty_add(&g->dirty, shard_ref(s));
}

const struct group_loss *group_tail_loss(struct jrn_group *g, const struct shard *s)
{
    for (unsigned i = 0; i < g->n_losses; i++)
        if (!g->losses[i].accepted && s->last_lsn < g->losses[i].end_lsn)
            return &g->losses[i];
    return NULL;
}

static void append_end_at(struct append *a, int rc, int64_t append_time, uint64_t now_us)
{
    struct append_done *d = a->done;
    struct store *st = a->group->st;

    atomic_fetch_sub(&st->backlog, a->bytes);
    stats_append(a, rc, now_us);
    buf_unref(a->batch);
    shard_unref(a->shard);
    if (d) {
        d->rc = rc;
        d->base_offset = a->base_offset;
        d->append_time = append_time;
        d->duplicate = a->duplicate;
        d->task.run = append_done_run;
    }
    if (a->on_heap)
        free(a);
    if (d)
        loop_post(d->loop, &d->task); /* a, where it lies in d, is gone with this */
    atomic_fetch_sub(&st->busy, 1);
}

void append_end(struct append *a, int rc, int64_t append_time)
{
    append_end_at(a, rc, append_time, loop_now_us(a->group->loop));
}

/* Adds what one frame holds of one shard, the appends first .. (before end), as one run: inline ones
 * that follow one another, or a direct one. */
static void run_committed(struct jrn_group *g, struct append *first, struct append *end)
{
    struct shard *s = first->shard;
    struct index_direct direct = { first->segment, first->pos, first->xxh3 };
    struct index_entry n = { .base = first->base_offset,
                             .lsn = first->lsn,
                             .max_ts = INT64_MIN,
                             .xxh3 = first->direct ? 0 : first->xxh3,
                             .direct = first->direct ? &direct : NULL };

    for (struct append *a = first; a != end; a = a->next) {
        ASSERT(a->base_offset == n.base + n.n_offsets);
        n.n_offsets += a->n_offsets;
        n.bytes += a->bytes;
        if (a->max_ts > n.max_ts)
            n.max_ts = a->max_ts;
    }
    ASSERT(n.base == atomic_load(&s->end));
    atomic_fetch_add(&g->st->bytes.accepted, n.bytes);
    if (!atomic_load(&s->deleted)) {
        index_add(&s->index, &n);
        group_dirty(g, s);
    }
    s->last_lsn = n.lsn;
    atomic_store(&s->end, n.base + n.n_offsets);
    shard_wake(s, 0);
    if (s->kind == SHARD_ROCKSDB && s->keys)
        keyindex_behind(s);
}

/* Each of the block's shards may be out of every cache: all are asked for, then what their indexes end
 * with, before the first is looked at. */
static void frame_prefetch(const struct append *first)
{
    for (const struct append *a = first; a; a = a->next) {
        __builtin_prefetch(a->shard);
        __builtin_prefetch(&a->shard->index);
    }
    for (const struct append *a = first; a; a = a->next)
        index_prefetch(&a->shard->index);
}

/* The groups of a loop share its part of the cache: the oldest blocks go, whosever they are, so that
 * groups without work do not keep memory from the others. */
static void cache_share(struct jrn_group *g)
{
    struct store *st = g->st;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < st->n_groups; i++)
        if (st->groups[i]->loop == g->loop)
            bytes += st->groups[i]->cache.bytes;
    while (bytes > g->cache.max_bytes) {
        struct cache *oldest = &g->cache;

        for (unsigned i = 0; i < st->n_groups; i++)
            if (st->groups[i]->loop == g->loop &&
                cache_oldest(&st->groups[i]->cache) < cache_oldest(oldest))
                oldest = &st->groups[i]->cache;
        if (cache_oldest(oldest) == UINT64_MAX)
            return; /* one block each */
        bytes -= oldest->bytes;
        cache_drop(oldest);
        bytes += oldest->bytes;
    }
}

static void frame_committed(struct jrn_group *g, struct commit_result *r)
{
    struct append *a = r->first;

    frame_prefetch(a);
    g->cache.max_bytes =
        (g->st->conf.cache_bytes - g->st->runs.max_bytes) / (atomic_load(&g->st->groups_used) + 1);
    cache_add(&g->cache, r->lsn, r->block);
    cache_share(g);
    while (a) {
        struct append *first = a;

        a = append_run_end(first);
        run_committed(g, first, a);
    }
}

void group_committed(struct task *t)
{
    struct commit_result *r = (struct commit_result *)t;
    struct jrn_group *g = r->group;
    struct append *a = r->first;
    uint64_t now;

    ASSERT_HOME(g->loop);
    direct_release(&g->direct);
    if (r->rc >= 0 && r->block)
        frame_committed(g, r);
    now = loop_now_us(g->loop); /* once: asking costs as much as the rest of an answer */
    while (a) {
        struct append *next = a->next;

        append_end_at(a, r->rc, r->append_time, now);
        a = next;
    }
    buf_unref(r->block);
    free(atomic_exchange(&g->spare_result, r));
}
