#include "journal/journal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/core.h"
#include "journal/destage.h"
#include "journal/group.h"
#include "journal/recover.h"
#include "journal/rewrite.h"
#include "journal/shard.h"

enum {
    MIB = 1 << 20,
    RESERVE_EXTENTS =
        3, /* kept free so that trims, deletions, destage and checkpoints can always finish */
    SPACE_RETRY_US = 200 * 1000,
    TRIM_AFTER_US = 2 * 1000 * 1000, /* without destage: the large buffers are not needed soon */
    CLOSE_POLL_US = 1000
};

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

struct jrn_group *journal_group(struct journal *j, uint64_t id)
{
    return id < j->n_groups ? j->groups[id] : NULL;
}

uint64_t journal_backlog(const struct journal *j)
{
    return atomic_load(&((struct journal *)(uintptr_t)j)->backlog);
}

bool journal_backlogged(const struct journal *j)
{
    return journal_backlog(j) > j->conf.pending_max;
}

enum jrn_state journal_state(const struct journal *j)
{
    struct journal *m = (struct journal *)(uintptr_t)j;

    if (atomic_load(&m->failed))
        return JRN_FAILED;
    return atomic_load(&m->space) == SPACE_FULL ? JRN_FULL : JRN_OK;
}

uint64_t journal_start(const struct journal *j)
{
    return j->start_no;
}

uint64_t journal_max_shard(struct journal *j)
{
    return atomic_load(&j->max_shard);
}

int journal_rows_scan(struct journal *j, const void *prefix, size_t prefix_bytes,
                      int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                                size_t value_bytes),
                      void *ctx);

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

int journal_rows_scan(struct journal *j, const void *prefix, size_t prefix_bytes,
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
    rc = rows_scan(j->rows, from, s.bytes, false, app_row, &s);
    return rc < 0 ? rc : s.rc;
}

/* --- the keeper --- */

struct keeper_task {
    struct task task;
    struct journal *j;
    void (*fn)(struct journal *j, void *arg);
    void *arg;
};

static void keeper_run(struct task *t)
{
    struct keeper_task *k = (struct keeper_task *)t;
    struct keeper_task copy = *k;

    free(k);
    copy.fn(copy.j, copy.arg);
}

void journal_on_keeper(struct journal *j, void (*fn)(struct journal *j, void *arg), void *arg)
{
    struct keeper_task *k = mem_new(sizeof *k);

    k->task.run = keeper_run;
    k->j = j;
    k->fn = fn;
    k->arg = arg;
    loop_post(j->keeper, &k->task);
}

static void rows_next(struct journal *j);

static void rows_work_run(struct work *w)
{
    struct rows_work *r = (struct rows_work *)w;

    r->run(r);
}

static void rows_work_done(struct work *w)
{
    struct rows_work *r = (struct rows_work *)w;
    struct journal *j = r->j;

    j->rows_running = false;
    if (r->rc < 0)
        LOG_ERROR("rows.failed", F_ERR(r->rc));
    r->done(r);
    rows_next(j);
}

static void rows_next(struct journal *j)
{
    struct rows_work *r = j->rows_first;

    if (j->rows_running || !r)
        return;
    j->rows_first = r->next;
    if (!j->rows_first)
        j->rows_end = &j->rows_first;
    j->rows_running = true;
    r->work = (struct work){ .run = rows_work_run, .done = rows_work_done, .loop = j->keeper };
    pool_submit(j->env.pool, &r->work);
}

void journal_rows_do(struct journal *j, struct rows_work *w)
{
    ASSERT_HOME(j->keeper);
    w->j = j;
    w->rc = 0;
    w->next = NULL;
    *j->rows_end = w;
    j->rows_end = &w->next;
    rows_next(j);
}

static void groups_kick(struct journal *j)
{
    for (unsigned i = 0; i < j->n_groups; i++)
        group_kick(j->groups[i]);
}

void journal_fail(struct journal *j, const char *what, int rc)
{
    if (atomic_exchange(&j->failed, true))
        return;
    LOG_ERROR("device.failed", F_STR("at", what), F_ERR(rc),
              F_STR("meaning", "nothing more is acknowledged; reads go on; restart after mending"));
    groups_kick(j);
}

/* --- space --- */

struct grow {
    struct work work;
    struct journal *j;
    int rc;
    struct err e;
};

static void grow_run(struct work *w)
{
    struct grow *g = (struct grow *)w;

    g->rc = slabs_grow(&g->j->slabs, (uint64_t)1 << g->j->wal_log2, &g->e);
}

static void grow_done(struct work *w)
{
    struct grow *g = (struct grow *)w;
    struct journal *j = g->j;

    j->growing = false;
    if (g->rc < 0) {
        if (!j->grow_refused)
            LOG_WARN("slab.not_grown", F_STR("why", g->e.text));
        j->grow_refused = true;
        j->grow_again_us = loop_now_us(j->keeper) + SPACE_RETRY_US;
        if (g->rc != E_NOSPACE)
            journal_fail(j, "slab.grow", g->rc);
    } else {
        j->grow_refused = false;
    }
    free(g);
    journal_space_check(j);
}

static void grow_start(struct journal *j)
{
    struct grow *g;

    if (j->growing || atomic_load(&j->closing) || atomic_load(&j->failed) ||
        (j->grow_refused && loop_now_us(j->keeper) < j->grow_again_us))
        return;
    g = mem_new(sizeof *g);
    g->j = j;
    g->work = (struct work){ .run = grow_run, .done = grow_done, .loop = j->keeper };
    j->growing = true;
    pool_submit(j->env.pool, &g->work);
}

static void space_set(struct journal *j, enum space_state state)
{
    enum space_state before = (enum space_state)atomic_exchange(&j->space, state);

    if (before == state)
        return;
    if (state == SPACE_FULL)
        LOG_ERROR(
            "device.full",
            F_STR("meaning", "appends are refused until topics are deleted or space is added"));
    else if (before == SPACE_FULL)
        LOG_INFO("device.has_space_again", F_INT("state", state));
    if (state != SPACE_WAIT)
        groups_kick(j);
}

void journal_space_check(struct journal *j)
{
    uint64_t extent = (uint64_t)1 << j->wal_log2, total, free_bytes, closed, need;
    unsigned n_live;
    bool tight, behind, hungry;

    ASSERT_HOME(j->keeper);
    committer_feed(j->committer);
    /* Enough may be free, and none of it a whole extent: somebody must look again, or the appends
     * that wait for one wait for ever. */
    hungry = committer_spare(j->committer) < 2;
    if (hungry && atomic_load(&j->failed))
        committer_starve(j->committer); /* nothing will grow any more: it answers what it holds */
    slabs_space(&j->slabs, &total, &free_bytes);
    wal_live(&j->wal, &closed, &n_live);
    /* Destage must be able to write all that is live once more, and then some. */
    need = (uint64_t)n_live * extent + RESERVE_EXTENTS * extent;
    /* Each round writes a segment for each group, of a unit at least. */
    need += (uint64_t)(n_live / 2 + 1) * j->n_groups * UNIT_BYTES;
    /* Once full, it takes two extents more to be called otherwise: no flapping while space comes
     * back. */
    if (atomic_load(&j->space) == SPACE_FULL)
        need += 2 * extent;
    tight = free_bytes < need || !slabs_has_whole(&j->slabs, RESERVE_EXTENTS);
    /* Destage that cannot keep up holds the producers: the live WAL is what a restart must read. */
    behind = closed > 2 * j->conf.wal_budget + 4 * extent;
    /* Ahead of need: a new slab takes a while to be written. */
    if (hungry || (free_bytes < need + need / 2 + 2 * extent && (!j->grow_refused || tight)))
        grow_start(j);
    if (!tight)
        space_set(j, behind ? SPACE_WAIT : SPACE_OK);
    else
        space_set(j, j->grow_refused ? SPACE_FULL : SPACE_WAIT);
    catalogue_bury(j, tight);
    destage_consider(j, tight && j->grow_refused);
    if (!destage_idle(j->destage) && !atomic_load(&j->closing))
        loop_timer_set(j->keeper, &j->trim_timer, TRIM_AFTER_US);
    rewrite_consider(j, tight && j->grow_refused);
    if ((tight || hungry) && !atomic_load(&j->closing))
        loop_timer_set(j->keeper, &j->space_timer, SPACE_RETRY_US);
}

static void space_fire(struct loop_timer *t)
{
    journal_space_check((struct journal *)((char *)t - offsetof(struct journal, space_timer)));
}

static void trim_fire(struct loop_timer *t)
{
    buf_trim();
}

static void grave_fire(struct loop_timer *t)
{
    struct journal *j = (struct journal *)((char *)t - offsetof(struct journal, grave_timer));

    catalogue_bury(j, false);
    journal_space_check(j);
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
        c->wal_extent = 8 * MIB;
    if (!c->slab_first)
        c->slab_first = (uint64_t)128 * MIB;
    if (!c->slab_max)
        c->slab_max = (uint64_t)1024 * MIB;
    if (!c->space_floor)
        c->space_floor = (uint64_t)256 * MIB;
    if (!c->block_max)
        c->block_max = MIB;
    if (!c->batch_max)
        c->batch_max = 2 * MIB;
    if (!c->cache_bytes)
        c->cache_bytes = (uint64_t)64 * MIB;
    if (!c->pending_max)
        c->pending_max = (uint64_t)64 * MIB;
    if (!c->idle_close_ms)
        c->idle_close_ms = 10;
    if (!c->delete_grace_ms)
        c->delete_grace_ms = 10000;
}

static int conf_check(struct journal_conf *c, struct err *e)
{
    if ((c->wal_extent & (c->wal_extent - 1)) != 0 || c->wal_extent < UNIT_BYTES ||
        c->wal_extent > (1u << EXTENT_MAX_LOG2))
        return err_set(e, E_INVALID,
                       "wal_extent: %" PRIu32 " is not a power of two from 64 KiB to 1 GiB",
                       c->wal_extent);
    if (c->batch_max > c->wal_extent / 2)
        c->batch_max = c->wal_extent / 2;
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

/* A new store: the superblock file appears whole or not at all. */
static int store_create(struct journal *j, struct err *e)
{
    const char *tmp = "superblock.tmp";
    struct rows_batch none = { 0 };
    bool slabs = false;
    int rc = dev_list(j->dev, slab_seen, &slabs);

    if (rc >= 0 && slabs)
        return err_set(e, E_CORRUPT, "there are slab files but no superblock");
    if (rc >= 0)
        rc = dev_remove(j->dev, tmp);
    if (rc == E_NOTFOUND)
        rc = 0;
    new_uuid(&j->rng, &j->super.store);
    j->super.ckpt_lsn = LSN_FIRST;
    j->super.wal_extent_log2 = log2_of(j->conf.wal_extent);
    j->super.created = loop_wall_ms(j->keeper);
    j->super.n_groups = GROUP_DATA + j->env.n_loops;
    if (rc >= 0)
        rc = dev_create(j->dev, tmp, SUPER_COPIES * SUPER_BYTES, &j->super_file, e);
    if (rc >= 0)
        rc = super_store(j->dev, j->super_file, &j->super);
    if (rc >= 0)
        rc = rows_clear(j->rows);
    if (rc >= 0)
        rc = rows_write(j->rows, &none, LSN_FIRST);
    if (rc >= 0)
        rc = rows_flush(j->rows);
    if (rc >= 0)
        rc = dev_rename(j->dev, tmp, "superblock");
    if (rc >= 0)
        rc = dev_sync_names(j->dev);
    return rc < 0 ? err_set(e, rc, "creating the superblock: %s", err_text(rc)) : 0;
}

static void groups_make(struct journal *j)
{
    if (j->super.n_groups < GROUP_DATA + j->env.n_loops)
        j->super.n_groups = GROUP_DATA + j->env.n_loops;
    j->n_groups = j->super.n_groups;
    j->groups = mem_new(j->n_groups * sizeof(*j->groups));
    for (unsigned i = 0; i < j->n_groups; i++) {
        j->groups[i] = group_new(j, i, i < GROUP_DATA ? SHARD_CLASS_INTERNAL : SHARD_CLASS_DATA);
        j->groups[i]->cache.max_bytes = j->conf.cache_bytes / (j->n_groups - 1);
    }
}

/* An extent for the WAL, growing when there is none. */
static int first_extent(struct journal *j, uint64_t *place, struct err *e)
{
    int rc = slabs_take(&j->slabs, j->wal_log2, place);

    if (rc == E_NOSPACE) {
        rc = slabs_grow(&j->slabs, (uint64_t)1 << j->wal_log2, e);
        if (rc >= 0)
            rc = slabs_take(&j->slabs, j->wal_log2, place);
    }
    return rc < 0 ? err_set(e, rc, "no extent for the WAL: %s", err_text(rc)) : 0;
}

/* The cut is durable before anything new is written: the superblock says where the incarnation
 * before ended. */
static int incarnation_begin(struct journal *j, const struct walscan_end *end, struct err *e)
{
    struct committer_start s = { .first_lsn = end->lsn, .prev_place = end->last_place };
    struct super *sup = &j->super;
    uint32_t n = 0;
    int rc = first_extent(j, &s.place, e);

    if (rc >= 0)
        rc = first_extent(j, &s.next_place, e);
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
    s.salt = rng_u64(&j->rng);
#ifdef WEIR_MUTANT_CONSTANT_SALT
    s.salt = 1;
#endif
    sup->list[sup->n++] = (struct super_incarnation){ .incarnation = s.incarnation,
                                                      .salt = s.salt,
                                                      .first_lsn = s.first_lsn,
                                                      .end_lsn = LSN_OPEN,
                                                      .place = s.place };
    j->start_no = sup->starts;
    rc = super_store(j->dev, j->super_file, sup);
    if (rc < 0)
        return err_set(e, rc, "writing the superblock: %s", err_text(rc));
    return committer_open(j->committer, &s, e);
}

static int epochs_open(struct journal *j, struct err *e)
{
    struct jrn_assigner *a = j->env.assigner ? j->env.assigner : jrn_assigner_local();

    for (unsigned i = 0; i < j->n_groups; i++) {
        uint64_t epoch = a->grant_epoch(a, i, j->super.starts + 1);

        if (epoch == 0 || epoch <= j->groups[i]->epoch)
            return err_set(e, E_FENCED,
                           "group %u: granted epoch %" PRIu64 ", but %" PRIu64 " has been used", i,
                           epoch, j->groups[i]->epoch);
        j->groups[i]->epoch = epoch;
    }
    return 0;
}

/* --- what recovery left to do, once the loops run --- */

struct todo_update {
    struct catalogue_update u;
    struct recover_todo todo;
};

static void todo_applied(struct catalogue_update *u)
{
    struct todo_update *t = (struct todo_update *)u;
    struct journal *j = u->j;

    if (u->rc < 0)
        LOG_WARN("recovery.not_recorded", F_ERR(u->rc));
    for (unsigned i = 0; i < t->todo.n_deleted; i++)
        catalogue_reap(j, t->todo.deleted[i], UINT64_MAX);
    for (unsigned i = 0; i < t->todo.n_trimmed; i++)
        catalogue_reap(j, t->todo.trimmed[i][0], t->todo.trimmed[i][1]);
    for (unsigned i = 0; i < t->todo.n_dead; i++)
        catalogue_drop_segment(j, t->todo.dead_segments[i]);
    recover_todo_free(&t->todo);
    free(t);
    journal_space_check(j);
}

static void todo_start(struct journal *j, void *arg)
{
    struct todo_update *t = arg;

    catalogue_submit(j->catalogue, &t->u);
}

/* What recovery has read may be a killed process's last writes and names, which a power cut still
 * takes back: they are made durable
 * before anything is built on them. */
static int found_sync(struct journal *j, struct err *e)
{
    struct dev_file *last = NULL;
    int rc = dev_sync_names(j->dev);

#ifdef WEIR_MUTANT_FOUND_NOT_SYNCED
    return 0;
#endif

    for (unsigned i = 0; rc >= 0 && i < j->wal.n; i++) {
        struct dev_file *file = slabs_file(&j->slabs, j->wal.list[i]->place, j->wal_log2);

        if (file && file != last)
            rc = dev_sync(j->dev, file);
        last = file;
    }
    return rc < 0 ? err_set(e, rc, "making what was found durable: %s", err_text(rc)) : 0;
}

static int modules_open(struct journal *j, struct recover_todo *todo, struct err *e)
{
    struct walscan_end end;
    uint64_t t0 = loop_now_us(j->keeper);
    int rc = slabs_open(&j->slabs, j->dev, &j->super.store, e);

    if (rc >= 0 && j->slabs.n == 0)
        rc = slabs_grow(&j->slabs, (uint64_t)1 << j->wal_log2, e);
    if (rc < 0)
        return rc;
    wal_init(&j->wal, &j->slabs, j->wal_log2);
    segments_init(&j->segments, j->dev, &j->slabs);
    groups_make(j);
    j->catalogue = catalogue_new(j);
    j->committer = committer_new(j);
    j->destage = destage_new(j);
    j->rewrite = rewrite_new(j);
    rc = recover_run(j, &end, todo, e);
    if (rc < 0)
        return rc;
    LOG_INFO("journal.recovered", F_LSN(end.lsn), F_INT("from_lsn", j->super.ckpt_lsn),
             F_INT("blocks", end.blocks), F_BYTES(end.bytes), F_INT("torn_tail", end.torn),
             F_INT("us", loop_now_us(j->keeper) - t0));
    rc = found_sync(j, e);
    if (rc >= 0)
        rc = epochs_open(j, e);
    return rc < 0 ? rc : incarnation_begin(j, &end, e);
}

static void journal_free(struct journal *j)
{
    uint64_t pos = 0;
    void *value;

    shard_unref(j->catalogue_shard);
    while (j->groups && hash_next(&j->shards, &pos, NULL, &value)) {
        struct shard *s = value;

        index_free(&s->index);
        shard_unref(s);
    }
    for (unsigned i = 0; i < j->n_groups; i++) {
        struct jrn_group *g = j->groups[i];

        while (g->dirty) {
            struct shard *s = g->dirty;

            g->dirty = s->dirty_next;
            shard_unref(s);
        }
        group_free(g);
    }
    free(j->groups);
    hash_free(&j->shards);
    committer_free(j->committer);
    catalogue_free(j->catalogue);
    destage_free(j->destage);
    rewrite_free(j->rewrite);
    segments_fini(&j->segments);
    wal_fini(&j->wal);
    slabs_close(&j->slabs);
    dev_close(j->dev, j->super_file);
    while (j->graves) {
        struct grave *g = j->graves;

        j->graves = g->next;
        free(g);
    }
    pthread_mutex_destroy(&j->shards_lock);
    free((void *)(uintptr_t)j->conf.accept_loss);
    free(j);
}

static struct journal *journal_new(const struct journal_env *env, const struct journal_conf *conf)
{
    struct journal *j = mem_new(sizeof *j);
    uint64_t *accept = mem_new((conf->n_accept_loss + 1) * sizeof *accept);

    if (conf->n_accept_loss)
        memcpy(accept, conf->accept_loss, conf->n_accept_loss * sizeof *accept);
    j->env = *env;
    j->conf = *conf;
    j->conf.accept_loss = accept;
    j->keeper = env->loops[0];
    j->dev = env->dev;
    j->rows = env->rows;
    if (!j->env.read_pool)
        j->env.read_pool = env->pool;
    pthread_mutex_init(&j->shards_lock, NULL);
    rng_seed(&j->rng, env->seed);
    j->rows_end = &j->rows_first;
    j->graves_end = &j->graves;
    j->grave_timer.fire = grave_fire;
    j->space_timer.fire = space_fire;
    j->trim_timer.fire = trim_fire;
    return j;
}

int journal_open(struct journal **out, const struct journal_env *env,
                 const struct journal_conf *conf, struct err *e)
{
    struct journal *j = journal_new(env, conf);
    struct todo_update *t = mem_new(sizeof *t);
    int rc;

    conf_defaults(&j->conf);
    rc = conf_check(&j->conf, e);
    if (rc >= 0)
        rc = recover_super(j->dev, &j->super_file, &j->super, e);
    if (rc == E_NOTFOUND) {
        if (e)
            *e = (struct err){ 0 }; /* nothing is wrong yet */
        rc = store_create(j, e);
    }
    if (rc >= 0) {
        j->wal_log2 = j->super.wal_extent_log2;
        if (j->conf.batch_max > 1u << (j->wal_log2 - 1))
            j->conf.batch_max = 1u << (j->wal_log2 - 1);
        if (j->conf.block_max > 1u << (j->wal_log2 - 1))
            j->conf.block_max = 1u << (j->wal_log2 - 1);
        j->slabs.first_bytes = j->conf.slab_first;
        j->slabs.max_bytes = j->conf.slab_max;
        j->slabs.space_max = j->conf.space_max;
        j->slabs.space_floor = j->conf.space_floor;
        j->slabs.whole_units = 1u << (j->wal_log2 - UNIT_LOG2);
        rc = modules_open(j, &t->todo, e);
    }
    if (rc < 0) {
        if (e && e->code >= 0)
            err_set(e, rc, "opening the store: %s", err_text(rc));
        recover_todo_free(&t->todo);
        free(t);
        journal_free(j);
        return rc;
    }
    t->u.rows = t->todo.rows;
    t->todo.rows = (struct rows_batch){ 0 };
    t->u.applied = todo_applied;
    journal_on_keeper(j, todo_start, t);
    *out = j;
    return 0;
}

/* --- closing --- */

static void close_done_run(struct task *t)
{
    struct journal_close *c = (struct journal_close *)t;

    c->fn(c);
}

/* The last step, on the keeper: nothing of ours is pending anywhere. */
static void close_end(struct journal *j)
{
    struct journal_close *c = j->close;

    loop_timer_stop(&j->close_timer);
    loop_timer_stop(&j->grave_timer);
    loop_timer_stop(&j->space_timer);
    loop_timer_stop(&j->trim_timer);
    journal_free(j);
    c->task.run = close_done_run;
    loop_post(c->loop, &c->task);
}

/* Goes to the committer's loop and every other, and back: what was posted there before it has then
 * run. */
struct close_round {
    struct task task;
    struct journal *j;
    unsigned loop;
};

static void round_go(struct journal *j, unsigned loop);

static void round_back(struct task *t)
{
    struct close_round *r = (struct close_round *)t;
    struct journal *j = r->j;
    unsigned next = r->loop + 1;

    free(r);
    if (next <= j->env.n_loops)
        round_go(j, next);
    else
        close_end(j);
}

static void round_there(struct task *t)
{
    struct close_round *r = (struct close_round *)t;

    r->task.run = round_back;
    loop_post(r->j->keeper, &r->task);
}

static void round_go(struct journal *j, unsigned loop)
{
    struct close_round *r = mem_new(sizeof *r);

    r->task.run = round_there;
    r->j = j;
    r->loop = loop;
    loop_post(loop ? j->env.loops[loop - 1] : j->env.commit_loop, &r->task);
}

static void close_finish(struct task *t)
{
    round_go(((struct journal_close *)t)->journal, 0);
}

static void close_poll(struct loop_timer *t)
{
    struct journal *j = (struct journal *)((char *)t - offsetof(struct journal, close_timer));

    if (!catalogue_idle(j->catalogue) || j->rows_running || j->rows_first || j->growing ||
        !destage_idle(j->destage) || !rewrite_idle(j->rewrite) || journal_backlog(j) > 0 ||
        atomic_load(&j->busy) > 0) {
        committer_feed(j->committer);
        if (!j->growing && destage_idle(j->destage) && rewrite_idle(j->rewrite))
            committer_starve(j->committer);
        loop_timer_set(j->keeper, &j->close_timer, CLOSE_POLL_US);
        return;
    }
    j->close->task.run = close_finish;
    committer_close(j->committer, j->keeper, &j->close->task);
}

static void close_start(struct journal *j, void *arg)
{
    j->close = arg;
    atomic_store(&j->closing, true);
    groups_kick(j);
    j->close_timer.fire = close_poll;
    loop_timer_set(j->keeper, &j->close_timer, 1);
}

void journal_close(struct journal *j, struct journal_close *done)
{
    done->journal = j;
    journal_on_keeper(j, close_start, done);
}
