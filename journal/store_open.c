/* Making and opening a store. */
#include "journal/store_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/extent.h"
#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/compact.h"
#include "journal/destage.h"
#include "journal/devices.h"
#include "journal/group.h"
#include "journal/keyindex.h"
#include "journal/memory.h"
#include "journal/recover.h"
#include "journal/retention.h"
#include "journal/rewrite.h"
#include "journal/scrub.h"
#include "journal/space.h"
#include "journal/stats.h"
#include "journal/unload.h"

enum { MIB = 1 << 20 };

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
