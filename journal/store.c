#include "journal/store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "journal/catalogue.h"
#include "format/extent.h"
#include "journal/committer.h"
#include "journal/compact.h"
#include "journal/core.h"
#include "journal/destage.h"
#include "journal/devices.h"
#include "journal/group.h"
#include "journal/keyindex.h"
#include "journal/memory.h"
#include "journal/recover.h"
#include "journal/retention.h"
#include "journal/rewrite.h"
#include "journal/scrub.h"
#include "journal/shard.h"
#include "journal/space.h"
#include "journal/stats.h"
#include "journal/unload.h"

enum { MIB = 1 << 20, CLOSE_POLL_US = 1000 };

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

/* --- opening --- */

static uint32_t log2_of(uint64_t v)
{
    uint32_t n = 0;

    while (((uint64_t)1 << n) < v)
        n++;
    return n;
}

static void conf_defaults(struct journal_conf *c)
{
    if (!c->wal_budget)
        c->wal_budget = (uint64_t)1024 * MIB;
    if (!c->wal_extent)
        c->wal_extent = 2 * MIB;
    if (!c->slab_first)
        c->slab_first = (uint64_t)32 * MIB;
    if (!c->slab_max)
        c->slab_max = (uint64_t)1024 * MIB;
    if (!c->space_floor)
        c->space_floor = (uint64_t)256 * MIB;
    if (!c->segment_bytes)
        c->segment_bytes = (uint64_t)256 * MIB;
    if (!c->rewrite_gain)
        c->rewrite_gain = 15 * UNIT_BYTES;
    if (!c->block_max)
        c->block_max = MIB;
    if (!c->batch_max)
        c->batch_max = 2 * MIB;
    if (!c->cache_bytes)
        c->cache_bytes = (uint64_t)64 * MIB;
    if (!c->read_cache_bytes)
        c->read_cache_bytes = (uint64_t)64 * MIB;
    if (!c->memory_bytes)
        c->memory_bytes = (uint64_t)256 * MIB;
    if (!c->pending_max)
        c->pending_max = (uint64_t)64 * MIB;
    if (!c->idle_close_ms)
        c->idle_close_ms = 10;
    if (!c->delete_grace_ms)
        c->delete_grace_ms = 10000;
    if (!c->wal_age_ms)
        c->wal_age_ms = 600000;
    if (!c->retention_check_ms)
        c->retention_check_ms = 30000;
    if (!c->compact_check_ms)
        c->compact_check_ms = 15000;
    if (!c->compact_map_bytes)
        c->compact_map_bytes = (uint64_t)64 << 20;
    if (!c->space_urgent)
        c->space_urgent = 80;
    if (!c->space_throttle)
        c->space_throttle = 90;
    if (!c->space_refuse)
        c->space_refuse = 95;
    if (!c->unload_ms)
        c->unload_ms = 2000;
}

/* A block of one batch must fit into an extent, whatever stands around it. */
static uint32_t batch_limit(uint32_t extent)
{
    return extent / 4 * 3;
}

static int conf_check(struct journal_conf *c, struct err *e)
{
    if ((c->wal_extent & (c->wal_extent - 1)) != 0 || c->wal_extent < UNIT_BYTES ||
        c->wal_extent > (1u << EXTENT_MAX_LOG2))
        return err_set(e, E_INVALID,
                       "wal_extent: %" PRIu32 " is not a power of two from 64 KiB to 1 GiB",
                       c->wal_extent);
    if (c->space_urgent < 5 || c->space_urgent > c->space_throttle ||
        c->space_throttle > c->space_refuse || c->space_refuse > 98)
        return err_set(e, E_INVALID,
                       "space_urgent, space_throttle, space_refuse: %" PRIu32 ", %" PRIu32
                       ", %" PRIu32 " do not rise from 5 to 98",
                       c->space_urgent, c->space_throttle, c->space_refuse);
    if (c->batch_max > batch_limit(c->wal_extent))
        c->batch_max = batch_limit(c->wal_extent);
    if (c->block_max > c->wal_extent / 2)
        c->block_max = c->wal_extent / 2;
    if (c->slab_first < (uint64_t)c->wal_extent * 8)
        c->slab_first = (uint64_t)c->wal_extent * 8;
    if (c->slab_max < c->slab_first)
        c->slab_max = c->slab_first;
    return 0;
}

static void new_uuid(struct rng *rng, struct uuid *u)
{
    uint64_t a = rng_u64(rng), b = rng_u64(rng);

    memcpy(u->bytes, &a, 8);
    memcpy(u->bytes + 8, &b, 8);
    u->bytes[6] = (u->bytes[6] & 0x0f) | 0x40; /* RFC 4122 version 4 */
    u->bytes[8] = (u->bytes[8] & 0x3f) | 0x80;
}

static void slab_seen(void *ctx, const char *name)
{
    if (strncmp(name, "slab-", 5) == 0 && !strstr(name, ".tmp"))
        *(bool *)ctx = true;
}

static int superblock_make(struct store *st, struct err *e)
{
    const char *tmp = "superblock.tmp";
    struct rows_batch none = { 0 };
    bool slabs = false;
    int rc = dev_list(st->dev, slab_seen, &slabs);

    if (rc >= 0 && slabs)
        return err_set(e, E_CORRUPT, "there are slab files but no superblock");
    if (rc >= 0)
        rc = dev_remove(st->dev, tmp);
    if (rc == E_NOTFOUND)
        rc = 0;
    st->super.ckpt_lsn = LSN_FIRST;
    st->super.wal_extent_log2 = log2_of(st->conf.wal_extent);
    st->super.created = loop_wall_ms(st->keeper);
    st->super.n_groups = st->super.policy_groups = GROUP_DATA;
    if (rc >= 0)
        rc = dev_create(st->dev, tmp, SUPER_COPIES * SUPER_BYTES, &st->super_file, e);
    if (rc >= 0)
        rc = super_store(st->dev, st->super_file, &st->super);
    if (rc >= 0)
        rc = rows_clear(st->rows);
    if (rc >= 0)
        rc = rows_write(st->rows, &none, LSN_FIRST);
    if (rc >= 0)
        rc = rows_flush(st->rows);
    if (rc >= 0)
        rc = dev_rename(st->dev, tmp, "superblock");
    if (rc >= 0)
        rc = dev_sync_names(st->dev);
    return rc < 0 ? err_set(e, rc, "creating the superblock: %s", err_text(rc)) : 0;
}

/* One of each policy class for each loop. What was made before there were classes stays below. */
static void groups_make(struct store *st)
{
    struct super *sup = &st->super;
    uint32_t n;

    if (!sup->policy_groups)
        sup->policy_groups = sup->n_groups < GROUP_DATA ? GROUP_DATA : sup->n_groups;
    n = sup->policy_groups + POLICY_CLASSES * st->env.n_loops;
    if (sup->n_groups < n)
        sup->n_groups = n;
    st->n_groups = sup->n_groups;
    st->groups = mem_new(st->n_groups * sizeof(*st->groups));
    for (unsigned i = 0; i < st->n_groups; i++)
        st->groups[i] = group_new(st, i, i < GROUP_DATA ? SHARD_CLASS_INTERNAL : SHARD_CLASS_DATA);
}

/* An extent for the WAL, growing when there is none. */
static int first_extent(struct store *st, uint64_t *place, struct err *e)
{
    int rc = slabs_take(&st->slabs, st->wal_log2, place);

    if (rc == E_NOSPACE) {
        rc = slabs_grow(&st->slabs, (uint64_t)1 << st->wal_log2, e);
        if (rc >= 0)
            rc = slabs_take(&st->slabs, st->wal_log2, place);
    }
    return rc < 0 ? err_set(e, rc, "no extent for the WAL: %s", err_text(rc)) : 0;
}

/* The cut is durable before anything new is written: the superblock says where the incarnation
 * before ended. */
static int incarnation_begin(struct store *st, const struct walscan_end *end, struct err *e)
{
    struct committer_start s = { .first_lsn = end->lsn, .prev_place = end->last_place };
    struct super *sup = &st->super;
    uint32_t n = 0;
    int rc = first_extent(st, &s.place, e);

    if (rc >= 0)
        rc = first_extent(st, &s.next_place, e);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < sup->n; i++) {
        struct super_incarnation x = sup->list[i];

#ifndef WEIR_MUTANT_CUT_NOT_RECORDED
        if (x.end_lsn == LSN_OPEN) {
            x.end_lsn = end->lsn;
            x.end_hash = end->hash;
        }
#endif
        s.before_incarnation = x.incarnation;
        s.before_end_lsn = x.end_lsn;
        s.before_end_hash = x.end_hash;
        if (x.first_lsn < x.end_lsn)
            sup->list[n++] = x;
    }
    sup->n = n;
    if (n == SUPER_MAX_INCARNATIONS)
        return err_set(e, E_TOOBIG,
                       "%d starts without a checkpoint: let one run until it has destaged",
                       SUPER_MAX_INCARNATIONS);
    sup->starts++;
    s.incarnation = sup->starts;
    s.salt = rng_u64(&st->rng);
#ifdef WEIR_MUTANT_CONSTANT_SALT
    s.salt = 1;
#endif
    sup->list[sup->n++] = (struct super_incarnation){ .incarnation = s.incarnation,
                                                      .salt = s.salt,
                                                      .first_lsn = s.first_lsn,
                                                      .end_lsn = LSN_OPEN,
                                                      .place = s.place };
    st->start_no = sup->starts;
    rc = super_store(st->dev, st->super_file, sup);
    if (rc < 0)
        return err_set(e, rc, "writing the superblock: %s", err_text(rc));
    return committer_open(st->committer, &s, e);
}

static int epochs_open(struct store *st, struct err *e)
{
    struct jrn_assigner *a = st->env.assigner ? st->env.assigner : jrn_assigner_local();

    for (unsigned i = 0; i < st->n_groups; i++) {
        uint64_t epoch =
            a->grant_epoch(a, (uint64_t)st->super.device << DEVICE_SHIFT | i, st->super.starts + 1);

        if (epoch == 0 || epoch <= st->groups[i]->epoch)
            return err_set(e, E_FENCED,
                           "group %u: granted epoch %" PRIu64 ", but %" PRIu64 " has been used", i,
                           epoch, st->groups[i]->epoch);
        st->groups[i]->epoch = epoch;
    }
    return 0;
}

/* --- what recovery left to do, once the loops run --- */

struct todo_update {
    struct catalogue_update u;
    struct recover_todo todo;
    struct walscan_end end; /* where the log ended, until the next incarnation has begun */
};

static void todo_applied(struct catalogue_update *u)
{
    struct todo_update *t = (struct todo_update *)u;
    struct store *st = u->st;

    if (u->rc < 0)
        LOG_WARN("recovery.not_recorded", F_ERR(u->rc));
    for (unsigned i = 0; i < t->todo.n_deleted; i++)
        catalogue_reap(st, t->todo.deleted[i], UINT64_MAX);
    for (unsigned i = 0; i < t->todo.n_trimmed; i++)
        catalogue_reap(st, t->todo.trimmed[i][0], t->todo.trimmed[i][1]);
    for (unsigned i = 0; i < t->todo.n_dead; i++)
        catalogue_drop_segment(st, t->todo.dead_segments[i]);
    keyindex_resume(st);
    recover_todo_free(&t->todo);
    free(t);
    store_space_check(st);
}

static void todo_start(struct store *st, void *arg)
{
    struct todo_update *t = arg;

    scrub_start(st->scrub);
    catalogue_submit(st->catalogue, &t->u);
    retention_start(st);
    compact_start(st);
    unload_begin(st);
}

/* The header of extent i of an open segment was written with the first block that put something there.
 * That block may have survived a power cut without it. */
static int open_head_mend(struct store *st, const struct segment *s, unsigned i, uint8_t *pages)
{
    uint64_t place = s->row.extents[i].place;
    struct dev_file *file = slabs_file(&st->slabs, place, st->wal_log2);
    struct extent_head h = { .kind = EXTENT_SEGMENT,
                             .store = st->super.store,
                             .place = place,
                             .log2 = st->wal_log2,
                             .group = s->row.group,
                             .segment = s->id,
                             .index = i,
                             .pos = i * seg_extent_room(st->wal_log2) };
    int rc;

    if (!file)
        return 0;
    extent_head_write(&h, pages);
    rc = dev_read(st->dev, file, place_pos(place), pages + PAGE_BYTES, PAGE_BYTES);
    if (rc >= 0 && memcmp(pages, pages + PAGE_BYTES, PAGE_BYTES) == 0)
        return 0;
    rc = dev_write(st->dev, file, place_pos(place), pages, PAGE_BYTES);
    return rc < 0 ? rc : dev_sync(st->dev, file);
}

static int open_segment_mend(struct store *st, const struct segment *s)
{
    struct buf *pages = buf_new_aligned(2 * PAGE_BYTES);
    int rc = pages ? 0 : E_NOMEM;

    for (unsigned i = 0; s->open && rc >= 0 && i < s->row.n_extents; i++)
        if (s->row.extents[i].place != PLACE_NONE)
            rc = open_head_mend(st, s, i, pages->mem);
    buf_unref(pages);
    return rc;
}

static int open_segments_mend(struct store *st, struct err *e)
{
    uint64_t pos = 0;
    void *value;
    int rc = 0;

    while (rc >= 0 && hash_next(&st->segments.by_id, &pos, NULL, &value))
        rc = open_segment_mend(st, value);
    return rc < 0 ? err_set(e, rc, "mending the headers of open segments: %s", err_text(rc)) : 0;
}

/* What recovery will read may be a killed process's last writes, names and superblock, which a power
 * cut still takes back: they are made durable before anything of them is applied. Rows may become
 * durable at any time, and rows that stand for more than the log has cannot be told from rows that
 * do not. */
static int found_sync(struct store *st, struct err *e)
{
    int rc = dev_sync_names(st->dev);

    if (rc >= 0)
        rc = dev_sync(st->dev, st->super_file);
#ifdef WEIR_MUTANT_FOUND_NOT_SYNCED
    return rc;
#endif
    for (unsigned i = 0; rc >= 0 && i < st->slabs.n; i++)
        rc = dev_sync(st->dev, st->slabs.list[i].file);
    return rc < 0 ? err_set(e, rc, "making what was found durable: %s", err_text(rc)) : 0;
}

static int modules_open(struct store *st, struct recover_todo *todo, struct walscan_end *end,
                        struct err *e)
{
    uint64_t t0 = loop_now_us(st->keeper);
    int rc = slabs_open(&st->slabs, st->dev, &st->super.store, e);

    if (rc >= 0)
        rc = found_sync(st, e);
    if (rc >= 0 && st->slabs.n == 0)
        rc = slabs_grow(&st->slabs, (uint64_t)1 << st->wal_log2, e);
    if (rc < 0)
        return rc;
    wal_init(&st->wal, &st->slabs, st->wal_log2);
    segments_init(&st->segments, st->dev, &st->slabs);
    run_cache_init(&st->runs, st->conf.direct_from == UINT32_MAX ? 0 : st->conf.cache_bytes / 2);
    chunks_init(&st->chunks, st, st->conf.read_cache_bytes);
    groups_make(st);
    st->meter = space_new(st); /* the counters look at it */
    st->stats = stats_new(st, st->super.device);
    st->catalogue = catalogue_new(st);
    st->direct_from = st->conf.direct_from;
    st->committer = committer_new(st);
    st->destage = destage_new(st);
    st->rewrite = rewrite_new(st);
    st->retention = retention_new(st);
    st->retention_urgent = retention_urgent;
    st->compact = compact_new(st);
    st->scrub = scrub_new(st);
    st->memories = memories_new(st, st->conf.memory_bytes);
    rc = recover_run(st, end, todo, e);
    if (rc < 0)
        return rc;
    LOG_INFO("journal.recovered", F_INT("device", st->super.device), F_LSN(end->lsn),
             F_INT("from_lsn", st->super.ckpt_lsn), F_INT("blocks", end->blocks),
             F_BYTES(end->bytes), F_INT("torn_tail", end->torn),
             F_INT("us", loop_now_us(st->keeper) - t0));
    stats_recovered(st, end->bytes, end->blocks, loop_now_us(st->keeper) - t0);
    rc = open_segments_mend(st, e);
    if (rc >= 0 && !st->direct_from)
        st->direct_from = direct_probe(st);
    return rc;
}

static void store_free(struct store *st)
{
    uint64_t pos = 0;
    void *value;

    stats_free(st->stats); /* first: nobody looks at the rest any more */
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

static struct store *store_new(const struct journal_env *env, const struct journal_conf *conf)
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

/* The store's part in its set; device 0 names the set once there are others. */
static void member_take(struct store *st, const struct store_member *m)
{
    st->super.device = m->number;
    st->super.n_devices = m->n_devices;
    if (m->n_devices > 1)
        st->super.set = m->number > 0 ? m->set : st->super.store;
}

int store_make(const struct journal_env *env, const struct journal_conf *conf,
               struct store_member *m, struct err *e)
{
    struct store *st = store_new(env, conf);
    int rc;

    conf_defaults(&st->conf);
    rc = conf_check(&st->conf, e);
    new_uuid(&st->rng, &st->super.store);
    member_take(st, m);
    if (rc >= 0)
        rc = superblock_make(st, e);
    m->store = st->super.store;
    store_free(st);
    return rc;
}

/* What the superblock says of the sizes holds, whatever is configured now. */
static void sizes_take(struct store *st)
{
    uint32_t extent;

    st->wal_log2 = st->super.wal_extent_log2;
    extent = 1u << st->wal_log2;
    if (st->conf.batch_max > batch_limit(extent))
        st->conf.batch_max = batch_limit(extent);
    if (st->conf.block_max > extent / 2)
        st->conf.block_max = extent / 2;
    st->slabs.first_bytes = st->conf.slab_first;
    st->slabs.max_bytes = st->conf.slab_max;
    st->slabs.space_max = st->conf.space_max;
    st->slabs.space_floor = st->conf.space_floor;
    st->slabs.whole_units = 1u << (st->wal_log2 - UNIT_LOG2);
}

static int store_try(struct store **out, const struct journal_env *env,
                     const struct journal_conf *conf, const struct store_member *m, struct err *e)
{
    struct store *st = store_new(env, conf);
    uint64_t least = ((uint64_t)m->number << DEVICE_SHIFT) + SHARD_FIRST_USER - 1;
    struct todo_update *t = mem_new(sizeof *t);
    int rc;

    st->todo = t;
    conf_defaults(&st->conf);
    rc = conf_check(&st->conf, e);
    if (rc >= 0)
        rc = recover_super(st->dev, &st->super_file, &st->super, e);
    if (rc >= 0) {
        member_take(st, m);
        sizes_take(st);
        rc = modules_open(st, &t->todo, &t->end, e);
    }
    if (rc < 0) {
        if (e && e->code >= 0)
            err_set(e, rc, "opening the store: %s", err_text(rc));
        store_abandon(st);
        return rc;
    }
    if (atomic_load(&st->max_shard) < least)
        atomic_store(&st->max_shard, least);
    t->u.rows = t->todo.rows;
    t->todo.rows = (struct rows_batch){ 0 };
    t->u.applied = todo_applied;
    *out = st;
    return 0;
}

/* Rows that turn out to be damaged while recovery reads them are as good as lost: they are made
 * anew. */
int store_open(struct store **out, const struct journal_env *env, const struct journal_conf *conf,
               const struct store_member *m, struct err *e)
{
    int rc = store_try(out, env, conf, m, e);

    if (rc != E_CORRUPT || !atomic_load(&env->rows->damaged))
        return rc;
    LOG_WARN("rows.damaged", F_INT("device", m->number),
             F_STR("meaning", "made anew from catalogue, segments and WAL"));
    if (e)
        *e = (struct err){ 0 };
    rc = rows_clear(env->rows);
    return rc < 0 ? err_set(e, rc, "rows: %s", err_text(rc)) : store_try(out, env, conf, m, e);
}

int store_enter(struct store *st, struct err *e)
{
    int rc = 0;

    if (space_look(st->meter) < 0)
        rc = err_set(e, E_IO, "the file system does not say how much space it has");
    if (rc >= 0)
        rc = epochs_open(st, e);
    return rc < 0 ? rc : incarnation_begin(st, &st->todo->end, e);
}

void store_begin(struct store *st)
{
    struct todo_update *t = st->todo;

    st->todo = NULL;
    store_on_keeper(st, todo_start, t);
}

void store_abandon(struct store *st)
{
    if (st->todo) {
        rows_batch_free(&st->todo->u.rows);
        recover_todo_free(&st->todo->todo);
        free(st->todo);
    }
    store_free(st);
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
