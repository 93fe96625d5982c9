/* bench/idle_bench: many shards that do nothing, and many of which any may be next.
 *
 *   idle_bench load   -d DIR [-T TOPICS] [-P PARTITIONS] [-s BYTES]
 *   idle_bench random -d DIR [-r ROUNDS] [-t SECONDS] [-k SHARDS] [-w WRITERS] [-s BYTES] [-b WAL_BUDGET_MIB]
 *
 * load makes a store as the server would: topics, one record in each partition, and then so much into
 * one more topic that everything before it is destaged. What a server over it takes is run.sh's to
 * measure. random compares durable appends to a random one of the shards with the same to one shard;
 * handles are taken and given back as a door does, so shards are loaded as they come. */
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/logger.h"
#include "base/rng.h"
#include "bench/measure.h"
#include "bench/store.h"
#include "format/batch.h"
#include "gateways/topics/topics.h"

enum { AT_ONCE = 512, FILLER_BYTES = 32 << 20, FILLER_BATCH = 64 << 10 };

static struct options {
    const char *dir;
    uint64_t topics, partitions, bytes, rounds, shards, writers, budget_mib;
    double seconds;
} opt = { .topics = 10000,
          .partitions = 100,
          .bytes = 100,
          .rounds = 3,
          .shards = 100000,
          .writers = 64,
          .budget_mib = 1024, /* as a server has it */
          .seconds = 60 };

static void wait_for(sem_t *gate)
{
    while (sem_wait(gate) < 0)
        ASSERT(errno == EINTR);
}

static struct buf *make_batch(uint64_t bytes)
{
    struct batch_builder b = { 0 };
    uint8_t *value = mem_new(bytes + 1);
    struct buf *batch;
    struct rng rng;

    rng_seed(&rng, 3);
    for (uint64_t i = 0; i < bytes; i++)
        value[i] = (uint8_t)rng_u64(&rng);
    batch_builder_add(&b, &(struct batch_new_record){
                              .timestamp = 1700000000000, .value = value, .value_bytes = bytes });
    if (batch_builder_finish(&b, CODEC_NONE, &batch) < 0)
        measure_die("no batch");
    batch_builder_free(&b);
    free(value);
    return batch;
}

/* --- load --- */

static struct load {
    struct bench_store store;
    struct topics *topics;
    struct buf *batch;
    sem_t room; /* appends that may be on their way */
    sem_t answered;
} load;

struct one {
    struct topic_open open; /* first */
    struct append_done done;
    struct buf *batch;
};

static void one_appended(struct append_done *d)
{
    struct one *one = (struct one *)((char *)d - offsetof(struct one, done));

    if (d->rc < 0)
        measure_die("append: %s", err_text(d->rc));
    shard_unref(one->open.shard);
    free(one);
    sem_post(&load.room);
}

static void one_opened(struct topic_open *o)
{
    struct one *one = (struct one *)o;

    if (o->rc < 0)
        measure_die("open: %s", err_text(o->rc));
    one->done.fn = one_appended;
    one->done.loop = o->loop;
    shard_append(o->shard, one->batch, 0, one->batch->len, ACK_QUORUM_DURABLE, &one->done);
}

static void append_one(struct topic *t, uint32_t partition, struct buf *batch)
{
    struct one *one = mem_new(sizeof *one);

    wait_for(&load.room);
    one->open.fn = one_opened;
    one->open.loop = load.store.loops[partition % load.store.n_loops];
    one->open.topic = t;
    one->open.partition = partition;
    one->batch = batch;
    topic_open(load.topics, &one->open);
}

static void all_appended(void)
{
    for (unsigned i = 0; i < AT_ONCE; i++)
        wait_for(&load.room);
    for (unsigned i = 0; i < AT_ONCE; i++)
        sem_post(&load.room);
}

static void changed(struct topics_change *c)
{
    sem_post(&load.answered);
}

static struct topic *make_topic(const char *name, uint32_t partitions)
{
    struct topics_change c = { .fn = changed,
                               .loop = load.store.loops[0],
                               .name = name,
                               .name_bytes = strlen(name),
                               .n_partitions = partitions };

    topics_create(load.topics, &c);
    wait_for(&load.answered);
    if (c.rc < 0)
        measure_die("topic %s: %s", name, err_text(c.rc));
    return c.topic;
}

static void started(struct topics_start *s)
{
    sem_post(&load.answered);
}

static void fill(void)
{
    struct topic *t = make_topic("filler", 1);
    struct buf *batch = make_batch(FILLER_BATCH);

    for (uint64_t n = 0; n < FILLER_BYTES; n += FILLER_BATCH)
        append_one(t, 0, batch);
    all_appended();
    topic_unref(t);
    buf_unref(batch);
}

static void load_run(void)
{
    struct journal_conf conf = { .wal_budget = 1 }; /* destage all that is closed */
    struct topics_start start = { .fn = started };
    double began = measure_now();

    bench_store_open(&load.store, opt.dir, &conf, 0);
    store_run(&load.store);
    sem_init(&load.room, 0, AT_ONCE);
    sem_init(&load.answered, 0, 0);
    load.topics = topics_new(&(struct topics_env){ .journal = load.store.journal,
                                                   .home = load.store.loops[0],
                                                   .pool = load.store.pool,
                                                   .seed = 1 });
    start.loop = load.store.loops[0];
    topics_start(load.topics, &start);
    wait_for(&load.answered);
    if (start.rc < 0)
        measure_die("topics: %s", start.err.text);
    load.batch = make_batch(opt.bytes);
    for (uint64_t i = 0; i < opt.topics; i++) {
        char name[32];
        struct topic *t;

        snprintf(name, sizeof name, "idle-%06u", (unsigned)i);
        t = make_topic(name, (uint32_t)opt.partitions);
        for (uint32_t p = 0; p < opt.partitions; p++)
            append_one(t, p, load.batch);
        topic_unref(t);
    }
    all_appended();
    fill();
    measure_sleep_until(measure_now() + 3); /* the last rounds of destage */
    buf_unref(load.batch);
    topics_free(load.topics);
    bench_store_close(&load.store);
    printf("%u topics of %u partitions, a record in each: %.1f s\n", (unsigned)opt.topics,
           (unsigned)opt.partitions, measure_now() - began);
}

/* --- random --- */

struct writers {
    struct bench_store *store;
    uint64_t first, n; /* shards */
    struct buf *batch;
    atomic_bool stop;
    sem_t ended;
};

struct writer {
    struct append_done done; /* first */
    struct shard_open open;
    struct task start;
    struct writers *all;
    struct shard *shard;
    struct rng rng;
    uint64_t acked;
};

static void next(struct writer *w);

static void writer_acked(struct append_done *d)
{
    struct writer *w = (struct writer *)d;

    if (d->rc < 0)
        measure_die("append: %s", err_text(d->rc));
    shard_unref(w->shard);
    w->acked++;
    if (atomic_load_explicit(&w->all->stop, memory_order_relaxed))
        sem_post(&w->all->ended);
    else
        next(w);
}

static void writer_append(struct writer *w)
{
    shard_append(w->shard, w->all->batch, 0, w->all->batch->len, ACK_QUORUM_DURABLE, &w->done);
}

static void writer_opened(struct shard_open *o)
{
    struct writer *w = (struct writer *)((char *)o - offsetof(struct writer, open));

    if (o->rc < 0)
        measure_die("open: %s", err_text(o->rc));
    w->shard = o->shard;
    writer_append(w);
}

static void next(struct writer *w)
{
    uint64_t id = w->all->first + rng_below(&w->rng, w->all->n);

    w->shard = shard_in_memory(w->all->store->journal, id);
    if (w->shard)
        writer_append(w);
    else
        shard_open(w->all->store->journal, id, &w->open);
}

static void writer_start(struct task *t)
{
    next((struct writer *)((char *)t - offsetof(struct writer, start)));
}

static void make_shards(struct bench_store *s, uint64_t n)
{
    struct shard **shards = mem_new(n * sizeof(*shards));

    store_create_shards(s, shards, (unsigned)n);
    for (uint64_t i = 0; i < n; i++)
        shard_unref(shards[i]);
    free(shards);
    measure_sleep_until(measure_now() + 5); /* they leave memory */
}

/* Appends a second to n new shards, which were out of memory, for opt.seconds; what they had is deleted
 * after it, so that space comes round. */
static double write_for(struct bench_store *s, uint64_t n, struct buf *batch)
{
    struct writers all = { .store = s, .first = s->next_shard, .n = n, .batch = batch };
    struct writer *w = mem_new(opt.writers * sizeof *w);
    uint64_t total = 0;
    double began, took;

    make_shards(s, n);
    sem_init(&all.ended, 0, 0);
    began = measure_now();
    for (uint64_t i = 0; i < opt.writers; i++) {
        w[i].all = &all;
        w[i].done.fn = writer_acked;
        w[i].open.fn = writer_opened;
        w[i].done.loop = w[i].open.loop = s->loops[i % s->n_loops];
        w[i].start.run = writer_start;
        rng_seed(&w[i].rng, i);
        loop_post(w[i].done.loop, &w[i].start);
    }
    measure_sleep_until(began + opt.seconds);
    atomic_store(&all.stop, true);
    for (uint64_t i = 0; i < opt.writers; i++)
        wait_for(&all.ended);
    took = measure_now() - began;
    for (uint64_t i = 0; i < opt.writers; i++)
        total += w[i].acked;
    free(w);
    store_delete_ids(s, all.first, (unsigned)n);
    bench_store_rest(s);
    return (double)total / took;
}

static void random_run(void)
{
    static struct measure_rounds figure = { .name = "random_100k", .unit = "records/s" };
    struct journal_conf conf = { .wal_budget = opt.budget_mib << 20, .delete_grace_ms = 100 };
    struct buf *batch = make_batch(opt.bytes);
    struct bench_store s;
    char text[128];

    snprintf(text, sizeof text, "durable %u B records, each to one of %u shards, against one shard",
             (unsigned)opt.bytes, (unsigned)opt.shards);
    figure.text = text;
    bench_store_open(&s, opt.dir, &conf, 0);
    store_run(&s);
    for (uint64_t r = 0; r < opt.rounds; r++) {
        double one = 0, many;

        if (r % 2)
            one = write_for(&s, 1, batch);
        many = write_for(&s, opt.shards, batch);
        if (r % 2 == 0)
            one = write_for(&s, 1, batch);
        measure_round(&figure, many, one);
    }
    measure_report(&figure);
    buf_unref(batch);
    bench_store_close(&s);
}

/* --- arguments --- */

static int usage(void)
{
    fprintf(stderr, "usage: idle_bench load|random -d DIR [OPTION]...\n");
    return 2;
}

static bool take_option(int o, const char *arg)
{
    static const struct {
        char letter;
        uint64_t *value, min, max;
    } numbers[] = {
        { 'T', &opt.topics, 1, 1000000 },    { 'P', &opt.partitions, 1, 100000 },
        { 's', &opt.bytes, 0, 1 << 20 },     { 'r', &opt.rounds, 1, MEASURE_ROUNDS_MAX },
        { 'k', &opt.shards, 1, 10000000 },   { 'w', &opt.writers, 1, 4096 },
        { 'b', &opt.budget_mib, 1, 1 << 20 }
    };

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (o == numbers[i].letter) {
            *numbers[i].value = measure_number(arg, numbers[i].min, numbers[i].max);
            return true;
        }
    if (o == 't')
        opt.seconds = (double)measure_number(arg, 1, 3600);
    else if (o == 'd')
        opt.dir = arg;
    return o == 't' || o == 'd';
}

int main(int argc, char **argv)
{
    int o;

    logger_setup(LOG_LEVEL_WARN, false);
    optind = 2;
    while (argc > 1 && (o = getopt(argc, argv, "d:T:P:s:r:k:w:b:t:")) != -1)
        if (!take_option(o, optarg))
            return usage();
    if (argc < 2 || !opt.dir || optind != argc)
        return usage();
    if (strcmp(argv[1], "load") == 0)
        load_run();
    else if (strcmp(argv[1], "random") == 0)
        random_run();
    else
        return usage();
    return 0;
}
