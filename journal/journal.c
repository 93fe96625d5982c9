#include "journal/journal.h"

#include <stdlib.h>

#include "journal/devices.h"
#include "journal/intent.h"
#include "journal/place.h"
#include "journal/shard.h"
#include "journal/stats.h"
#include "journal/store.h"

struct journal {
    struct store *stores[JRN_DEVICES_MAX]; /* by number */
    unsigned n;
    struct intents *intents; /* NULL: there is one device */
    struct place place;
    struct journal_close closes[JRN_DEVICES_MAX], *close_asked;
    unsigned n_open;
};

struct store *journal_store(const struct journal *j)
{
    return j->stores[0];
}

struct store *journal_store_at(const struct journal *j, unsigned device)
{
    return j->stores[device];
}

/* --- opening --- */

/* What one device's store runs on. */
static struct journal_env env_of(const struct journal_env *env, const struct device_place *p,
                                 unsigned number)
{
    struct journal_env one = *env;

    one.dev = p->device.dev;
    one.rows = p->device.rows;
    one.commit_loop = p->device.commit_loop;
    one.seed += number * UINT64_C(0x9e3779b97f4a7c15);
    return one;
}

/* In order of their numbers: those that are there are always the first of the set. */
static int devices_make(struct devices *d, const struct journal_env *env,
                        const struct journal_conf *conf, struct err *e)
{
    int rc = 0;

    for (unsigned i = 0; rc >= 0 && i < d->n; i++) {
        struct device_place *p = &d->list[i];
        struct journal_env one = env_of(env, p, i);
        struct store_member m = { .number = (uint16_t)i,
                                  .n_devices = (uint16_t)(i + 1),
                                  .set = d->list[0].store };

        if (!p->fresh)
            continue;
        rc = store_make(&one, conf, &m, e);
        p->store = m.store;
        if (rc < 0 && p->device.dev->name)
            err_prefix(e, "%s: ", p->device.dev->name);
    }
    return rc;
}

static int stores_open(struct journal *j, const struct devices *d, const struct journal_env *env,
                       const struct journal_conf *conf, struct err *e)
{
    struct journal_conf share = *conf;
    int rc = 0;

    share.cache_bytes = conf->cache_bytes / d->n;
    share.read_cache_bytes = conf->read_cache_bytes / d->n;
    for (unsigned i = 0; rc >= 0 && i < d->n; i++) {
        struct journal_env one = env_of(env, &d->list[i], i);
        struct store_member m = { .number = (uint16_t)i,
                                  .n_devices = (uint16_t)d->n,
                                  .set = d->list[0].store };

        rc = store_open(&j->stores[i], &one, &share, &m, e);
        if (rc >= 0)
            j->n++;
        else if (d->n > 1 && d->list[i].device.dev->name)
            err_prefix(e, "%s: ", d->list[i].device.dev->name);
    }
    if (rc >= 0 && d->n > 1) {
        j->intents = intents_new(j->stores, j->n);
        rc = intents_load(j->intents, e);
    }
    for (unsigned i = 0; rc >= 0 && i < j->n; i++) {
        rc = store_enter(j->stores[i], e);
        if (rc < 0 && d->n > 1 && d->list[i].device.dev->name)
            err_prefix(e, "%s: ", d->list[i].device.dev->name);
    }
    return rc < 0 ? rc : 0;
}

int journal_open(struct journal **out, const struct journal_env *env,
                 const struct journal_conf *conf, struct err *e)
{
    struct journal *j = mem_new(sizeof *j);
    struct devices *d = mem_new(sizeof *d);
    int rc = devices_find(d, env, e);

    if (rc >= 0)
        rc = devices_make(d, env, conf, e);
    if (rc >= 0)
        rc = stores_open(j, d, env, conf, e);
    free(d);
    if (rc < 0) {
        intents_free(j->intents);
        for (unsigned i = 0; i < j->n; i++)
            store_abandon(j->stores[i]);
        free(j);
        return rc;
    }
    place_init(&j->place, j->stores, j->n);
    if (j->intents)
        intents_start(j->intents);
    for (unsigned i = 0; i < j->n; i++)
        store_begin(j->stores[i]);
    *out = j;
    return 0;
}

/* --- closing --- */

static void store_closed(struct journal_close *c)
{
    struct journal *j = c->journal;
    struct journal_close *asked = j->close_asked;

    if (--j->n_open > 0)
        return;
    intents_free(j->intents);
    place_fini(&j->place);
    free(j);
    asked->fn(asked);
}

void journal_close(struct journal *j, struct journal_close *done)
{
    unsigned n = j->n;

    j->close_asked = done;
    j->n_open = n;
    if (j->intents)
        intents_close(j->intents);
    for (unsigned i = 0; i < n; i++) {
        j->closes[i] =
            (struct journal_close){ .fn = store_closed, .loop = done->loop, .journal = j };
        store_close(j->stores[i], &j->closes[i]);
    }
}

/* --- all devices together --- */

uint64_t journal_backlog(const struct journal *j)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < j->n; i++)
        bytes += store_backlog(j->stores[i]);
    return bytes;
}

bool journal_backlogged(const struct journal *j)
{
    for (unsigned i = 0; i < j->n; i++)
        if (store_backlog(j->stores[i]) > j->stores[i]->conf.pending_max)
            return true;
    return false;
}

enum jrn_state journal_state(const struct journal *j)
{
    enum jrn_state worst = JRN_OK;

    for (unsigned i = 0; i < j->n; i++) {
        enum jrn_state one = store_state(j->stores[i]);

        if (one > worst)
            worst = one;
    }
    return worst;
}

unsigned journal_n_devices(const struct journal *j)
{
    return j->n;
}

int journal_device_info(const struct journal *j, unsigned device, struct jrn_device_info *info)
{
    if (device >= j->n)
        return E_NOTFOUND;
    store_info(j->stores[device], info);
    return 0;
}

void journal_bytes(const struct journal *j, struct journal_bytes *b)
{
    *b = (struct journal_bytes){ 0 };
    for (unsigned i = 0; i < j->n; i++) {
        struct store_bytes *n = &j->stores[i]->bytes;

        b->accepted += atomic_load(&n->accepted);
        b->wal += atomic_load(&n->wal);
        b->direct += atomic_load(&n->direct);
        b->destage += atomic_load(&n->destage);
        b->rewrite += atomic_load(&n->rewrite);
    }
}

void journal_stats_visit(struct journal *j, void (*fn)(void *ctx, const struct metric_view *v),
                         void *ctx)
{
    for (unsigned i = 0; i < j->n; i++)
        metric_set_visit(&j->stores[i]->stats->set, fn, ctx);
}

uint64_t journal_start(const struct journal *j)
{
    return store_start(j->stores[0]);
}

/* --- the catalogue --- */

uint64_t journal_max_shard(struct journal *j)
{
    return store_max_shard(j->stores[0]);
}

uint64_t journal_shard_new(struct journal *j, enum shard_class class)
{
    return place_shard(&j->place, class);
}

static void update_answer(struct task *t)
{
    struct jrn_update *u = (struct jrn_update *)t;

    u->fn(u);
}

/* Every shard must be of a device that is there, and a door's. */
static bool changes_known(const struct journal *j, const struct jrn_change *changes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t serial = changes[i].shard & ((UINT64_C(1) << DEVICE_SHIFT) - 1);

        if (changes[i].op == JRN_ROW_PUT || changes[i].op == JRN_ROW_DELETE)
            continue;
        if (device_of(changes[i].shard) >= j->n || serial < SHARD_FIRST_USER)
            return false;
    }
    return true;
}

void journal_update(struct journal *j, const struct jrn_change *changes, unsigned n,
                    struct jrn_update *done)
{
    if (!changes_known(j, changes, n)) {
        done->rc = E_INVALID;
        done->task.run = update_answer;
        loop_post(done->loop, &done->task);
    } else if (j->intents) {
        intents_update(j->intents, changes, n, done);
    } else {
        store_update(j->stores[0], changes, n, done);
    }
}

int journal_rows_scan(struct journal *j, const void *prefix, size_t prefix_bytes,
                      int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                                size_t value_bytes),
                      void *ctx)
{
    return store_rows_scan(j->stores[0], prefix, prefix_bytes, fn, ctx);
}

static void open_answer(struct task *t)
{
    struct shard_open *o = (struct shard_open *)t;

    o->fn(o);
}

void shard_open(struct journal *j, uint64_t id, struct shard_open *done)
{
    if (device_of(id) >= j->n) {
        done->rc = E_NOTFOUND;
        done->task.run = open_answer;
        loop_post(done->loop, &done->task);
    } else if (j->intents && device_of(id) > 0) {
        intents_shard_open(j->intents, id, done);
    } else {
        store_shard_open(j->stores[device_of(id)], id, done);
    }
}

int32_t journal_epoch(const struct journal *j, uint64_t shard)
{
    return device_of(shard) < j->n ? store_epoch(j->stores[device_of(shard)]) : -1;
}

struct shard *shard_in_memory(struct journal *j, uint64_t id)
{
    if (device_of(id) >= j->n)
        return NULL;
    /* What is still owed may delete it. */
    if (j->intents && device_of(id) > 0 && !intents_redone(j->intents))
        return NULL;
    return shard_find(j->stores[device_of(id)], id);
}
