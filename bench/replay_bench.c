/* bench/replay_bench: one reader goes through a large shard from its beginning, with nothing of it in
 * memory, and what that does to one who appends meanwhile.
 *
 *   replay_bench -d DIR [-r ROUNDS] [-t SECONDS] [-g MIB] [-s BYTES] [-c RECORDS] [-b WAL_BUDGET_MIB] [-x NAME]
 *
 * DIR is made, and the device's own figure is taken beside it. First a shard is filled with MIB of
 * batches of RECORDS records of BYTES. Then in each round, the first of each pair changing:
 *   replay      the reader alone, reads of 1 MiB; against libaio, O_DIRECT, 1 MiB, 8 at once
 *   replay_cpu  seconds of this process for a GiB of it, against the same of the raw reads
 *   replay_p99  appends of 1 KiB to another shard, due at half the rate that one closed loop reaches,
 *               each timed from when it was due, while the reader replays; against the same without it */
#include <inttypes.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/logger.h"
#include "base/rng.h"
#include "bench/measure.h"
#include "bench/raw_io.h"
#include "bench/store.h"
#include "format/batch.h"

enum { FILLERS = 32, RAW_DEPTH = 8, READ_BYTES = 1 << 20, TAIL_BYTES = 1024, QUIET_CHECKS = 5 };

static struct options {
    const char *dir, *name;
    uint64_t rounds, mib, bytes, records, budget_mib;
    double seconds;
} opt = { .name = "replay",
          .rounds = 7,
          .mib = 2048,
          .bytes = 1024,
          .records = 16,
          .budget_mib = 64,
          .seconds = 3 };

static void wait_for(sem_t *gate)
{
    while (sem_wait(gate) < 0)
        continue;
}

static double cpu_now(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Values do not compress. */
static struct buf *make_batch(uint64_t records, uint64_t bytes)
{
    struct batch_builder b = { 0 };
    uint8_t *value = mem_new(bytes);
    struct buf *batch;
    struct rng rng;

    rng_seed(&rng, 3);
    for (uint64_t r = 0; r < records; r++) {
        for (uint64_t i = 0; i < bytes; i++)
            value[i] = (uint8_t)rng_u64(&rng);
        batch_builder_add(&b, &(struct batch_new_record){ .timestamp = 1700000000000,
                                                          .value = value,
                                                          .value_bytes = bytes });
    }
    if (batch_builder_finish(&b, CODEC_NONE, &batch) < 0)
        measure_die("no batch");
    batch_builder_free(&b);
    free(value);
    return batch;
}

/* --- filling, and the rate of a closed loop --- */

struct filler {
    struct append_done done; /* first */
    struct shard *shard;
    struct buf *batch;
    atomic_llong *left; /* appends that all fillers have still to begin */
    sem_t *ended;
};

static void filler_acked(struct append_done *d)
{
    struct filler *f = (struct filler *)d;

    if (d->rc < 0)
        measure_die("append: %s", err_text(d->rc));
    if (atomic_fetch_sub(f->left, 1) > 0)
        shard_append(f->shard, f->batch, 0, f->batch->len, ACK_QUORUM_DURABLE, d);
    else
        sem_post(f->ended);
}

/* Seconds that n appends took, so many at once. */
static double fill(struct bench_store *s, struct shard *shard, struct buf *batch, uint64_t n,
                   unsigned at_once)
{
    struct filler *list = mem_new(at_once * sizeof *list);
    double began = measure_now();
    atomic_llong left;
    sem_t ended;

    atomic_init(&left, (long long)n - at_once);
    sem_init(&ended, 0, 0);
    for (unsigned i = 0; i < at_once; i++) {
        list[i] = (struct filler){ .shard = shard, .batch = batch, .left = &left, .ended = &ended };
        list[i].done.fn = filler_acked;
        list[i].done.loop = s->loops[i % s->n_loops];
        shard_append(shard, batch, 0, batch->len, ACK_QUORUM_DURABLE, &list[i].done);
    }
    for (unsigned i = 0; i < at_once; i++)
        wait_for(&ended);
    free(list);
    return measure_now() - began;
}

/* Until destage and rewriting have nothing more to do for a while. */
static void wait_quiet(struct bench_store *s)
{
    struct journal_bytes was = { 0 }, now;

    for (unsigned quiet = 0; quiet < QUIET_CHECKS;) {
        measure_sleep_until(measure_now() + 0.2);
        journal_bytes(s->journal, &now);
        quiet = now.destage == was.destage && now.rewrite == was.rewrite ? quiet + 1 : 0;
        was = now;
    }
}

/* --- the reader --- */

struct reader {
    struct read_done d; /* first */
    struct shard *shard;
    uint32_t batch_bytes;
    atomic_bool stop;
    atomic_ullong bytes;
    sem_t ended;
};

static void reader_go(struct reader *r)
{
    r->d.max_bytes = READ_BYTES;
    r->d.at_least_one = true;
    shard_read(r->shard, &r->d);
}

static void reader_read(struct read_done *d)
{
    struct reader *r = (struct reader *)d;
    uint64_t batches = d->bytes / r->batch_bytes;

    if (d->rc < 0)
        measure_die("read at %" PRIu64 ": %s", d->from, err_text(d->rc));
    atomic_fetch_add(&r->bytes, d->bytes);
    d->from = d->bytes ? d->from + batches * opt.records : 0;
    read_done_release(d);
    if (atomic_load(&r->stop))
        sem_post(&r->ended);
    else
        reader_go(r);
}

static void reader_start(struct reader *r, struct bench_store *s, struct shard *shard,
                         struct buf *batch)
{
    *r = (struct reader){ .shard = shard, .batch_bytes = batch->len };
    r->d.fn = reader_read;
    r->d.loop = s->loops[(shard_group(shard) + 1) % s->n_loops];
    sem_init(&r->ended, 0, 0);
    reader_go(r);
}

static void reader_end(struct reader *r)
{
    atomic_store(&r->stop, true);
    wait_for(&r->ended);
    sem_destroy(&r->ended);
}

/* Bytes a second; *cpu: seconds for a GiB. */
static double replay(struct bench_store *s, struct shard *shard, struct buf *batch, double *cpu)
{
    double began = measure_now(), cpu_began = cpu_now();
    struct reader r;
    double bytes;

    reader_start(&r, s, shard, batch);
    measure_sleep_until(began + opt.seconds);
    reader_end(&r);
    bytes = (double)atomic_load(&r.bytes);
    *cpu = (cpu_now() - cpu_began) * (double)(1 << 30) / bytes;
    return bytes / (measure_now() - began);
}

/* The same of the device alone. */
static double raw_read(struct raw_file *raw, double *cpu)
{
    double cpu_began = cpu_now(), began = measure_now();
    double rate = raw_read_stream(raw, READ_BYTES, RAW_DEPTH, opt.seconds / 2);

    *cpu = (cpu_now() - cpu_began) * (double)(1 << 30) / (rate * (measure_now() - began));
    return rate;
}

/* --- the one who appends --- */

struct paced {
    struct append_done done; /* first */
    double due, took;
    sem_t *ended;
};

static void paced_acked(struct append_done *d)
{
    struct paced *p = (struct paced *)d;

    if (d->rc < 0)
        measure_die("append: %s", err_text(d->rc));
    p->took = measure_now() - p->due;
    sem_post(p->ended);
}

/* The 99th of a hundred, in microseconds. */
static double paced_p99(struct bench_store *s, struct shard *shard, struct buf *batch, double rate)
{
    uint64_t n = (uint64_t)(rate * opt.seconds) + 1;
    struct paced *list = mem_new(n * sizeof *list);
    struct measure_samples took = { 0 };
    double began = measure_now(), p99;
    sem_t ended;

    sem_init(&ended, 0, 0);
    for (uint64_t i = 0; i < n; i++) {
        list[i] = (struct paced){ .due = began + (double)i / rate, .ended = &ended };
        list[i].done.fn = paced_acked;
        list[i].done.loop = s->loops[shard_group(shard) % s->n_loops];
        measure_sleep_until(list[i].due);
        shard_append(shard, batch, 0, batch->len, ACK_QUORUM_DURABLE, &list[i].done);
    }
    for (uint64_t i = 0; i < n; i++)
        wait_for(&ended);
    for (uint64_t i = 0; i < n; i++)
        measure_add(&took, list[i].took);
    p99 = 1e6 * measure_quantile(&took, 0.99);
    measure_free(&took);
    free(list);
    sem_destroy(&ended);
    return p99;
}

static double paced_beside(struct bench_store *s, struct shard **shards, struct buf *batch,
                           struct buf *small, double rate)
{
    struct reader r;
    double p99;

    reader_start(&r, s, shards[0], batch);
    p99 = paced_p99(s, shards[1], small, rate);
    reader_end(&r);
    return p99;
}

/* --- all --- */

struct figures {
    struct measure_rounds rate, cpu, p99;
    char names[3][64], text[200];
};

static void figures_init(struct figures *f)
{
    static const char *const ends[] = { "", "_cpu", "_p99" };

    for (unsigned i = 0; i < 3; i++)
        snprintf(f->names[i], sizeof f->names[i], "%s%s", opt.name, ends[i]);
    snprintf(f->text, sizeof f->text,
             "one reader from the beginning of %" PRIu64 " MiB of batches of %" PRIu64
             " records of %" PRIu64 " bytes, against raw reads of 1 MiB, %d at once",
             opt.mib, opt.records, opt.bytes, RAW_DEPTH);
    f->rate = (struct measure_rounds){ .name = f->names[0], .unit = "MB/s", .text = f->text };
    f->cpu = (struct measure_rounds){ .name = f->names[1],
                                      .unit = "s/GiB",
                                      .text = "CPU of journal and reader for a GiB of it, "
                                              "against that of the raw reads" };
    f->p99 = (struct measure_rounds){ .name = f->names[2],
                                      .unit = "us",
                                      .text = "appends of 1 KiB at half of the closed-loop rate "
                                              "beside it, against the same without it" };
}

static void one_round(struct bench_store *s, struct shard **shards, struct buf *batch,
                      struct buf *small, struct raw_file *raw, double rate, bool other_first,
                      struct figures *f)
{
    double reference = 0, cpu, raw_cpu, ours;

    if (other_first)
        reference = raw_read(raw, &raw_cpu);
    ours = replay(s, shards[0], batch, &cpu);
    if (!other_first)
        reference = raw_read(raw, &raw_cpu);
    measure_round(&f->rate, ours / 1e6, reference / 1e6);
    measure_round(&f->cpu, cpu, raw_cpu);
    if (other_first)
        reference = paced_p99(s, shards[1], small, rate);
    ours = paced_beside(s, shards, batch, small, rate);
    if (!other_first)
        reference = paced_p99(s, shards[1], small, rate);
    measure_round(&f->p99, ours, reference);
}

static void run(void)
{
    struct journal_conf conf = { .wal_budget = opt.budget_mib << 20, .delete_grace_ms = 100 };
    struct buf *batch = make_batch(opt.records, opt.bytes), *small = make_batch(1, TAIL_BYTES);
    struct shard *shards[2];
    struct figures f;
    struct raw_file raw;
    struct bench_store s;
    char path[4096];
    double rate;

    snprintf(path, sizeof path, "%s.raw", opt.dir);
    raw_create(&raw, path, 1 << 30, READ_BYTES);
    logger_setup(LOG_LEVEL_WARN, false);
    bench_store_open(&s, opt.dir, &conf, 0);
    store_run(&s);
    store_create_shards(&s, shards, 2);
    fill(&s, shards[0], batch, (opt.mib << 20) / batch->len + FILLERS, FILLERS);
    wait_quiet(&s);
    rate = 5000;
    rate /= 2 * fill(&s, shards[1], small, 5000, 1);
    printf("appends are due %.0f times a second\n", rate);
    figures_init(&f);
    for (unsigned i = 0; i < opt.rounds; i++)
        one_round(&s, shards, batch, small, &raw, rate, i % 2, &f);
    measure_report(&f.rate);
    measure_report(&f.cpu);
    measure_report(&f.p99);
    store_delete_shards(&s, shards, 2);
    bench_store_close(&s);
    raw_remove(&raw);
    buf_unref(batch);
    buf_unref(small);
}

int main(int argc, char **argv)
{
    int o;

    while ((o = getopt(argc, argv, "d:x:r:t:g:s:c:b:")) != -1) {
        switch (o) {
        case 'd':
            opt.dir = optarg;
            break;
        case 'x':
            opt.name = optarg;
            break;
        case 'r':
            opt.rounds = measure_number(optarg, 1, MEASURE_ROUNDS_MAX);
            break;
        case 't':
            opt.seconds = (double)measure_number(optarg, 1, 3600);
            break;
        case 'g':
            opt.mib = measure_number(optarg, 1, 1 << 20);
            break;
        case 's':
            opt.bytes = measure_number(optarg, 1, 1 << 20);
            break;
        case 'c':
            opt.records = measure_number(optarg, 1, 1 << 20);
            break;
        case 'b':
            opt.budget_mib = measure_number(optarg, 1, 1 << 20);
            break;
        default:
            opt.dir = NULL;
        }
    }
    if (!opt.dir || optind != argc) {
        fputs("replay_bench -d DIR [-r ROUNDS] [-t SECONDS] [-g MIB] [-s BYTES] [-c RECORDS]"
              " [-b WAL_BUDGET_MIB] [-x NAME]\n",
              stderr);
        return 2;
    }
    run();
    return 0;
}
