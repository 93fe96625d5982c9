#include "bench/store.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"
#include "bench/measure.h"
#include "journal/io/dev.h"
#include "journal/io/rows.h"

enum { POOL_THREADS = 4, ROWS_CACHE = 32 << 20, CHANGES_AT_ONCE = 1000 };
/* Silent for so many looks is at rest; so many looks in all. */
enum { REST_LOOKS = 15, REST_LOOKS_MAX = 1500 };
static const double rest_look_s = 0.02;

static void must(int rc, const struct err *e, const char *what)
{
    if (rc < 0)
        measure_die("%s: %s", what, e && e->code ? e->text : err_text(rc));
}

static void wait_for(sem_t *gate)
{
    while (sem_wait(gate) < 0)
        ASSERT(errno == EINTR);
}

static void *run_loop(void *arg)
{
    loop_event_run(arg);
    return NULL;
}

void bench_store_open(struct bench_store *s, const char *path, const struct journal_conf *conf,
                      unsigned n_loops)
{
    struct err e = { 0 };
    char rows_path[4096];
    struct rng rng;

    if (n_loops == 0)
        n_loops = loop_event_count();
    if (n_loops > STORE_LOOPS_MAX)
        n_loops = STORE_LOOPS_MAX;
    *s = (struct bench_store){ .n_loops = n_loops };
    must(dev_aio_open(&s->dev, path, &(struct dev_aio_conf){ 0 }, &e), &e, path);
    snprintf(rows_path, sizeof rows_path, "%s/rows", path);
    must(rows_rocksdb_open(&s->rows, rows_path, ROWS_CACHE, false, &e), &e, rows_path);
    must(pool_thread_new(&s->pool, POOL_THREADS, "pool", &e), &e, "pool");
    must(pool_thread_new(&s->read_pool, POOL_THREADS, "read", &e), &e, "pool");
    for (unsigned i = 0; i <= n_loops; i++) {
        must(loop_event_new(&s->threads[i].loop, i, &e), &e, "loop");
        if (i < n_loops)
            s->loops[i] = s->threads[i].loop;
    }
    rng_seed_system(&rng);
    must(journal_open(&s->journal,
                      &(struct journal_env){ .loops = s->loops,
                                             .n_loops = n_loops,
                                             .commit_loop = s->threads[n_loops].loop,
                                             .pool = s->pool,
                                             .read_pool = s->read_pool,
                                             .dev = s->dev,
                                             .rows = s->rows,
                                             .assigner = jrn_assigner_local(),
                                             .seed = rng_u64(&rng) },
                      conf, &e),
         &e, path);
    s->next_shard = journal_max_shard(s->journal) + 1;
}

void store_run(struct bench_store *s)
{
    for (unsigned i = 0; i <= s->n_loops; i++) {
        char name[16];

        if (pthread_create(&s->threads[i].thread, NULL, run_loop, s->threads[i].loop) != 0)
            measure_die("cannot start a thread");
        snprintf(name, sizeof name, i < s->n_loops ? "loop-%u" : "commit", i);
        pthread_setname_np(s->threads[i].thread, name);
    }
}

void bench_store_rest(struct bench_store *s)
{
    uint64_t before = 0;

    for (unsigned same = 0, n = 0; same < REST_LOOKS && n < REST_LOOKS_MAX; n++) {
        struct journal_bytes b;
        uint64_t now;

        journal_bytes(s->journal, &b);
        now = b.wal + b.direct + b.destage + b.rewrite;
        same = now == before ? same + 1 : 0;
        before = now;
        measure_sleep_until(measure_now() + rest_look_s);
    }
}

struct close_gate {
    struct journal_close close; /* first */
    sem_t gate;
};

static void closed(struct journal_close *c)
{
    sem_post(&((struct close_gate *)c)->gate);
}

void bench_store_close(struct bench_store *s)
{
    struct close_gate g = { .close = { .fn = closed, .loop = s->loops[0] } };

    sem_init(&g.gate, 0, 0);
    journal_close(s->journal, &g.close);
    wait_for(&g.gate);
    pool_thread_free(s->pool);
    pool_thread_free(s->read_pool);
    for (unsigned i = 0; i <= s->n_loops; i++)
        loop_event_stop(s->threads[i].loop);
    for (unsigned i = 0; i <= s->n_loops; i++)
        pthread_join(s->threads[i].thread, NULL);
    rows_close(s->rows);
    dev_aio_close(s->dev);
    for (unsigned i = 0; i <= s->n_loops; i++)
        loop_event_free(s->threads[i].loop);
}

/* --- shards --- */

struct update_gate {
    struct jrn_update update; /* first */
    sem_t gate;
};

static void updated(struct jrn_update *u)
{
    sem_post(&((struct update_gate *)u)->gate);
}

static void update(struct bench_store *s, const struct jrn_change *changes, unsigned n)
{
    struct update_gate g = { .update = { .fn = updated, .loop = s->loops[0] } };

    sem_init(&g.gate, 0, 0);
    journal_update(s->journal, changes, n, &g.update);
    wait_for(&g.gate);
    must(g.update.rc, NULL, "change of shards");
}

struct open_gate {
    struct shard_open open; /* first */
    sem_t gate;
};

static void opened(struct shard_open *o)
{
    sem_post(&((struct open_gate *)o)->gate);
}

static struct shard *open_shard(struct bench_store *s, uint64_t id)
{
    struct open_gate g = { .open = { .fn = opened, .loop = s->loops[0] } };

    sem_init(&g.gate, 0, 0);
    shard_open(s->journal, id, &g.open);
    wait_for(&g.gate);
    must(g.open.rc, NULL, "opening a shard");
    return g.open.shard;
}

void store_create_shards(struct bench_store *s, struct shard **shards, unsigned n)
{
    struct jrn_change changes[CHANGES_AT_ONCE];
    unsigned k;

    for (unsigned i = 0; i < n; i += k) {
        k = n - i < CHANGES_AT_ONCE ? n - i : CHANGES_AT_ONCE;
        for (unsigned c = 0; c < k; c++)
            changes[c] = (struct jrn_change){ .op = JRN_SHARD_CREATE,
                                              .kind = s->kind,
                                              .policy = s->policy,
                                              .shard = s->next_shard + i + c };
        update(s, changes, k);
    }
    for (unsigned i = 0; i < n; i++)
        shards[i] = open_shard(s, s->next_shard + i);
    s->next_shard += n;
}

void store_delete_ids(struct bench_store *s, uint64_t first, unsigned n)
{
    struct jrn_change changes[CHANGES_AT_ONCE];
    unsigned k;

    for (unsigned i = 0; i < n; i += k) {
        k = n - i < CHANGES_AT_ONCE ? n - i : CHANGES_AT_ONCE;
        for (unsigned c = 0; c < k; c++)
            changes[c] = (struct jrn_change){ .op = JRN_SHARD_DELETE, .shard = first + i + c };
        update(s, changes, k);
    }
}

void store_delete_shards(struct bench_store *s, struct shard **shards, unsigned n)
{
    uint64_t first = shard_id(shards[0]);

    for (unsigned i = 0; i < n; i++)
        shard_unref(shards[i]);
    store_delete_ids(s, first, n);
}
