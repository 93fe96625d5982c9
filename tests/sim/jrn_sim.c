#include "tests/sim/jrn_sim.h"

#include "journal/store.h"

#include <string.h>

enum { CLOSE_STEPS = 2000000 };

void jrn_sim_init(struct jrn_sim *js, uint64_t seed, uint64_t capacity, unsigned n_loops)
{
    *js = (struct jrn_sim){ .n_loops = n_loops, .seed = seed };
    js->sim = sim_new(seed);
    jrn_sim_add_device(js, capacity);
    js->disk = js->devices[0].disk;
    js->store = js->devices[0].store;
    rng_seed(&js->rng, seed ^ 0xd1b54a32d192ed03);
    js->conf = (struct journal_conf){ .wal_budget = 2 * 65536,
                                      .wal_extent = 65536,
                                      .slab_first = 8 * 65536,
                                      .slab_max = 16 * 65536,
                                      .space_floor = 4096,
                                      .block_max = 16384,
                                      .batch_max = 32768,
                                      .direct_from = UINT32_MAX,
                                      .cache_bytes = 32768,
                                      .read_cache_bytes = 65536,
                                      .pending_max = 65536,
                                      .idle_close_ms = 10,
                                      .delete_grace_ms = 50 };
    for (unsigned i = 0; i < n_loops; i++)
        js->loops[i] = sim_loop(js->sim, i);
}

void jrn_sim_add_device(struct jrn_sim *js, uint64_t capacity)
{
    struct jrn_sim_device *d = &js->devices[js->n_devices];

    ASSERT(js->n_devices < JRN_SIM_DEVICES && !js->j);
    d->disk = sim_disk_new(js->seed ^ (js->n_devices + 1) * UINT64_C(0x9e3779b97f4a7c15), capacity);
    d->store = sim_rows_store_new(d->disk);
    js->order[js->n_devices] = js->n_devices;
    js->n_devices++;
    for (unsigned i = 0; js->n_devices > 1 && i < js->n_devices; i++)
        js->devices[i].disk->peer = js->devices[(i + 1) % js->n_devices].disk;
}

struct store *jrn_sim_store(const struct jrn_sim *js, unsigned number)
{
    return journal_store_at(js->j, number);
}

void jrn_sim_fini(struct jrn_sim *js)
{
    ASSERT(!js->j);
    for (unsigned i = 0; i < js->n_devices; i++)
        sim_rows_store_free(js->devices[i].store);
    sim_free(js->sim);
    for (unsigned i = 0; i < js->n_devices; i++)
        sim_disk_free(js->devices[i].disk);
    *js = (struct jrn_sim){ 0 };
}

static void life_end(struct jrn_sim *js)
{
    for (unsigned i = 0; i < JRN_SIM_DEVICES; i++) {
        struct jrn_sim_device *d = &js->devices[i];

        if (!d->dev)
            continue;
        dev_sim_free(d->dev);
        rows_close(d->rows);
        d->dev = NULL;
        d->rows = NULL;
    }
    js->j = NULL;
    js->st = NULL;
}

/* The given'th folder. */
static struct jrn_device device_open(struct jrn_sim *js, unsigned given)
{
    struct jrn_sim_device *d = &js->devices[js->order[given]];
    int rc = dev_sim_new(&d->dev, js->sim, d->disk);

    if (rc >= 0)
        rc = rows_sim_open(&d->rows, d->store);
    ASSERT(rc >= 0);
    return (struct jrn_device){ d->dev, d->rows, sim_loop(js->sim, 32 + js->order[given]) };
}

int jrn_sim_open(struct jrn_sim *js, struct err *e)
{
    struct jrn_device devices[JRN_SIM_DEVICES];
    struct journal_env env = { .loops = js->loops,
                               .n_loops = js->n_loops,
                               .pool = sim_pool(js->sim),
                               .assigner = js->assigner ? js->assigner : jrn_assigner_local(),
                               .more = devices + 1,
                               .n_more = js->n_devices - 1,
                               .seed = js->seed + ++js->lives };
    int rc;

    for (unsigned i = 0; i < js->n_devices; i++)
        devices[i] = device_open(js, i);
    env.dev = devices[0].dev;
    env.rows = devices[0].rows;
    env.commit_loop = devices[0].commit_loop;
    rc = journal_open(&js->j, &env, &js->conf, e);
    js->st = rc < 0 ? NULL : journal_store(js->j);
    if (rc < 0)
        life_end(js);
    return rc;
}

struct closing {
    struct journal_close close;
    bool done;
};

static void closed(struct journal_close *c)
{
    ((struct closing *)c)->done = true;
}

static bool is_closed(void *ctx)
{
    return ((struct closing *)ctx)->done;
}

/* Lets the journal answer everything and free its memory. */
static void let_go(struct jrn_sim *js)
{
    struct closing c = { .close = { .fn = closed, .loop = js->loops[0] } };

    if (!js->j)
        return;
    journal_close(js->j, &c.close);
    ASSERT(sim_run_until(js->sim, is_closed, &c, CLOSE_STEPS));
}

void jrn_sim_close(struct jrn_sim *js)
{
    let_go(js);
    life_end(js);
}

void jrn_sim_kill(struct jrn_sim *js, bool rows_lost)
{
    for (unsigned i = 0; i < js->n_devices; i++)
        sim_disk_kill_answering(js->devices[i].disk);
    for (unsigned i = 0; i < js->n_devices; i++)
        sim_rows_crash(js->devices[i].store, &js->rng, rows_lost && i == js->lives % js->n_devices);
    let_go(js);
    sim_crash(js->sim);
    life_end(js);
}

void jrn_sim_crash(struct jrn_sim *js, bool rows_lost)
{
    sim_disk_power_off(js->disk);
    let_go(js);
    for (unsigned i = 0; i < js->n_devices; i++) {
        sim_disk_crash(js->devices[i].disk, &js->rng);
        sim_rows_crash(js->devices[i].store, &js->rng, rows_lost && i == js->lives % js->n_devices);
    }
    sim_crash(js->sim);
    life_end(js);
}
