#include "tests/sim/jrn_sim.h"

#include "journal/store.h"

#include <string.h>

enum { CLOSE_STEPS = 2000000 };

void jrn_sim_init(struct jrn_sim *js, uint64_t seed, uint64_t capacity, unsigned n_loops)
{
    *js = (struct jrn_sim){ .n_loops = n_loops, .seed = seed };
    js->sim = sim_new(seed);
    js->disk = sim_disk_new(seed ^ 0x9e3779b97f4a7c15, capacity);
    js->store = sim_rows_store_new(js->disk);
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
                                      .pending_max = 65536,
                                      .idle_close_ms = 10,
                                      .delete_grace_ms = 50 };
    for (unsigned i = 0; i < n_loops; i++)
        js->loops[i] = sim_loop(js->sim, i);
}

void jrn_sim_fini(struct jrn_sim *js)
{
    ASSERT(!js->j);
    sim_rows_store_free(js->store);
    sim_free(js->sim);
    sim_disk_free(js->disk);
    *js = (struct jrn_sim){ 0 };
}

static void life_end(struct jrn_sim *js)
{
    dev_sim_free(js->dev);
    rows_close(js->rows);
    js->dev = NULL;
    js->rows = NULL;
    js->j = NULL;
    js->st = NULL;
}

int jrn_sim_open(struct jrn_sim *js, struct err *e)
{
    struct journal_env env = { .loops = js->loops,
                               .n_loops = js->n_loops,
                               .commit_loop = sim_loop(js->sim, 32),
                               .pool = sim_pool(js->sim),
                               .assigner = jrn_assigner_local(),
                               .seed = js->seed + ++js->lives };
    int rc = dev_sim_new(&js->dev, js->sim, js->disk);

    if (rc >= 0)
        rc = rows_sim_open(&js->rows, js->store);
    ASSERT(rc >= 0);
    env.dev = js->dev;
    env.rows = js->rows;
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
    sim_disk_kill_answering(js->disk);
    sim_rows_crash(js->store, &js->rng, rows_lost);
    let_go(js);
    sim_crash(js->sim);
    if (js->dev)
        life_end(js);
}

void jrn_sim_crash(struct jrn_sim *js, bool rows_lost)
{
    sim_disk_power_off(js->disk);
    let_go(js);
    sim_disk_crash(js->disk, &js->rng);
    sim_rows_crash(js->store, &js->rng, rows_lost);
    sim_crash(js->sim);
    if (js->dev)
        life_end(js);
}
