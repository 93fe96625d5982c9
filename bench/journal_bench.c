/* bench/journal_bench: the journal alone, in this process, through journal/journal.h.
 *
 *   journal_bench latency    -d DIR [-r ROUNDS] [-n APPENDS] [-s BYTES] [-K KIND]
 *   journal_bench throughput -d DIR [-r ROUNDS] [-t SECONDS] [-s BYTES] [-w WRITERS] [-k SHARDS]
 *   journal_bench half       -d DIR [-r ROUNDS] [-t SECONDS] [-s BYTES] [-w WRITERS] [-k SHARDS]
 *   journal_bench direct     -d DIR [-r ROUNDS] [-t SECONDS] [-s BYTES] [-w WRITERS] [-k SHARDS]
 *   journal_bench recovery   -d DIR [-r ROUNDS] [-s BYTES] [-c RECORDS] [-w WRITERS] [-k SHARDS]
 *   journal_bench restart    -d DIR [-r ROUNDS] -- SERVER [ARGUMENT]...
 *   all: [-b WAL_BUDGET_MIB] [-l LOOPS (0: as the server)] [-x NAME] [-R RETENTION_MIB]
 *
 * half finds the rate of WRITERS that wait for their answers, and then appends at half of it whatever
 * is answered when: latency from the moment when each was due. Beside it one writer of as many bytes
 * with fdatasync, at half of its own rate, likewise.
 *
 * direct is throughput against a stream of raw writes without a sync, from memory as a plain program has
 * it and (name_huge) from huge pages, and says how many bytes the device was given for each that was
 * accepted (name_amp).
 *
 * recovery kills a child of this program that appends, and opens its store in another; a store that is
 * in DIR already is taken as it is. restart
 * runs a server, whose data folder is DIR and which was killed before, until it logs that it is
 * ready (JSON), and kills it again.
 *
 * DIR is made, and the device's own figure is taken in it too. Every append is ACK_QUORUM_DURABLE:
 * answered after its flush. A round is one turn of the journal and one of the raw device, the
 * first of them changing. -R: what all shards together keep; the rest is trimmed, so that space comes
 * round. -c: records in a batch. -x: a name instead of the figure's own. -K: segment,
 * memory (its figures are called memory_append...) or rocksdb. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/logger.h"
#include "base/rng.h"
#include "bench/child.h"
#include "bench/least.h"
#include "bench/measure.h"
#include "bench/paced.h"
#include "bench/raw_io.h"
#include "bench/store.h"
#include "format/batch.h"

enum {
    WRITERS_MAX = 4096,
    SHARDS_MAX = 1000000,
    RAW_SYNC_BYTES = 64 << 10,
    RAW_DEPTH = 8,
    RETENTION_CHECK_MS = 250,
    SLABS_MAX = 10000
};

static struct options {
    const char *dir, *name;
    uint64_t rounds, appends, bytes, writers, shards, budget_mib, loops, records, retention_mib;
    double seconds;
    enum shard_kind kind;
    const char *const *server; /* restart: its arguments, NULL at the end */
} opt = { .rounds = 7,
          .appends = 2000,
          .bytes = 1024,
          .writers = 64,
          .shards = 1,
          .budget_mib = 64,
          .records = 1,
          .seconds = 3 };

static struct journal_conf settings(void)
{
    return (struct journal_conf){ .wal_budget = opt.budget_mib << 20,
                                  .delete_grace_ms = 100,
                                  .retention_check_ms = RETENTION_CHECK_MS };
}

static void open_store(struct bench_store *s)
{
    struct journal_conf conf = settings();

    logger_setup(LOG_LEVEL_WARN, false);
    bench_store_open(s, opt.dir, &conf, (unsigned)opt.loops);
    s->kind = opt.kind;
    if (opt.retention_mib)
        s->policy = (struct shard_policy){ .flags = SHARD_LIMITED,
                                           .retention_bytes =
                                               (int64_t)((opt.retention_mib << 20) / opt.shards) };
    store_run(s);
}

/* A batch of so many records, of values that do not compress. */
static struct buf *make_batch(void)
{
    struct batch_builder b = { 0 };
    uint8_t *value = mem_new(opt.bytes);
    struct buf *batch;
    struct rng rng;

    rng_seed(&rng, 2);
    for (uint64_t r = 0; r < opt.records; r++) {
        for (uint64_t i = 0; i < opt.bytes; i++)
            value[i] = (uint8_t)rng_u64(&rng);
        batch_builder_add(&b, &(struct batch_new_record){ .timestamp = 1700000000000,
                                                          .value = value,
                                                          .value_bytes = opt.bytes });
    }
    if (batch_builder_finish(&b, CODEC_NONE, &batch) < 0)
        measure_die("no batch");
    batch_builder_free(&b);
    free(value);
    return batch;
}

/* --- writers: each has one append on its way --- */

struct load {
    struct shard **shards;
    unsigned n_shards;
    struct buf *batch;
    uint64_t appends_each; /* 0: until stop */
    atomic_bool stop;
    atomic_ulong bytes_acked;
    sem_t ended;
};

struct writer {
    struct append_done done; /* first */
    struct task start;
    struct load *load;
    struct rng rng;
    double began;
    uint64_t acked;
    struct measure_samples *latencies; /* NULL: not wanted */
};

static void append(struct writer *w)
{
    struct load *l = w->load;
    struct shard *s = l->shards[l->n_shards > 1 ? rng_below(&w->rng, l->n_shards) : 0];

    if (w->latencies)
        w->began = measure_now();
    shard_append(s, l->batch, 0, l->batch->len, ACK_QUORUM_DURABLE, &w->done);
}

static void acked(struct append_done *d)
{
    struct writer *w = (struct writer *)d;
    struct load *l = w->load;

    if (w->latencies)
        measure_add(w->latencies, measure_now() - w->began);
    if (d->rc < 0)
        measure_die("append: %s", err_text(d->rc));
    w->acked++;
    atomic_fetch_add_explicit(&l->bytes_acked, l->batch->len, memory_order_relaxed);
    if (atomic_load_explicit(&l->stop, memory_order_relaxed) ||
        (l->appends_each && w->acked == l->appends_each))
        sem_post(&l->ended);
    else
        append(w);
}

static void start(struct task *t)
{
    append((struct writer *)((char *)t - offsetof(struct writer, start)));
}

static struct writer *writers_start(struct load *l, struct bench_store *s, unsigned n,
                                    unsigned loop)
{
    struct writer *w = mem_new(n * sizeof *w);

    sem_init(&l->ended, 0, 0);
    for (unsigned i = 0; i < n; i++) {
        w[i].load = l;
        w[i].done.fn = acked;
        w[i].done.loop = s->loops[(loop + i) % s->n_loops];
        w[i].start.run = start;
        rng_seed(&w[i].rng, i);
    }
    return w;
}

static void writers_go(struct writer *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        loop_post(w[i].done.loop, &w[i].start);
}

/* Waits until each has its last answer; gives the appends acked by all. */
static uint64_t writers_end(struct load *l, struct writer *w, unsigned n)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < n; i++)
        while (sem_wait(&l->ended) < 0)
            continue;
    for (unsigned i = 0; i < n; i++)
        total += w[i].acked;
    sem_destroy(&l->ended);
    free(w);
    return total;
}

/* --- latency at one client --- */

static void journal_latency(struct bench_store *s, struct load *l, unsigned loop,
                            struct measure_samples *out)
{
    struct writer *w = writers_start(l, s, 1, loop);

    measure_clear(out);
    w->latencies = out;
    writers_go(w, 1);
    writers_end(l, w, 1);
}

static void raw_latency(struct raw_file *f, uint32_t bytes, struct measure_samples *out)
{
    measure_clear(out);
    for (uint64_t i = 0; i < opt.appends; i++)
        measure_add(out, raw_write_sync(f, bytes));
}

enum { LATENCY_QUANTILES = 2 };
static const double latency_q[LATENCY_QUANTILES] = { 0.5, 0.99 };

static const struct {
    const char *name, *prefix;
} kinds[] = { [SHARD_SEGMENT] = { "segment", "" },
              [SHARD_MEMORY] = { "memory", "memory_" },
              [SHARD_ROCKSDB] = { "rocksdb", "rocksdb_" } };

/* One figure per quantile and per loop that the client may sit on: the shard's own, or another. */
struct latency_figures {
    struct measure_rounds rounds[LATENCY_QUANTILES];
    char names[LATENCY_QUANTILES][64];
    char text[128];
};

static void latency_figures_init(struct latency_figures *f, bool home)
{
    snprintf(f->text, sizeof f->text,
             "append of %" PRIu64
             " bytes, one client on %s loop, against a raw write and fdatasync",
             opt.bytes, home ? "the shard's" : "another");
    for (int q = 0; q < LATENCY_QUANTILES; q++) {
        snprintf(f->names[q], sizeof f->names[q], "%sappend_p%d%s", kinds[opt.kind].prefix,
                 (int)(100 * latency_q[q]), home ? "" : "_cross");
        f->rounds[q] =
            (struct measure_rounds){ .name = f->names[q], .unit = "us", .text = f->text };
    }
}

static void latency_round(struct bench_store *s, struct load *l, struct raw_file *raw,
                          unsigned loop, bool raw_first, struct latency_figures *f)
{
    struct measure_samples ours = { 0 }, reference = { 0 };

    if (raw_first)
        raw_latency(raw, l->batch->len, &reference);
    journal_latency(s, l, loop, &ours);
    if (!raw_first)
        raw_latency(raw, l->batch->len, &reference);
    for (int q = 0; q < LATENCY_QUANTILES; q++)
        measure_round(&f->rounds[q], 1e6 * measure_quantile(&ours, latency_q[q]),
                      1e6 * measure_quantile(&reference, latency_q[q]));
    measure_free(&ours);
    measure_free(&reference);
}

static void raw_path(char *path, size_t bytes)
{
    snprintf(path, bytes, "%s.raw", opt.dir);
}

/* The loop that a shard lives on cannot be asked for; the journal spreads shards over them by
 * their number, so a shard is taken whose number says which. Both figures are printed, and the
 * slower of them must hold. */
static void latency(void)
{
    struct latency_figures figures[2];
    struct load l = { .n_shards = 1, .appends_each = opt.appends, .batch = make_batch() };
    struct shard *shard;
    struct raw_file raw;
    struct bench_store s;
    char path[4096];

    if (opt.loops == 0 && loop_event_count() < 2)
        opt.loops = 2; /* one figure is of a shard at home on another */
    raw_path(path, sizeof path);
    raw_create(&raw, path, 64 << 20, 1 << 20);
    open_store(&s);
    store_create_shards(&s, &shard, 1);
    l.shards = &shard;
    for (unsigned other = 0; other < 2 && other < s.n_loops; other++) {
        unsigned loop = (unsigned)(shard_group(shard) + other) % s.n_loops;

        latency_figures_init(&figures[other], other == 0);
        for (unsigned r = 0; r < opt.rounds; r++)
            latency_round(&s, &l, &raw, loop, r % 2, &figures[other]);
        for (int q = 0; q < LATENCY_QUANTILES; q++)
            measure_report(&figures[other].rounds[q]);
    }
    store_delete_shards(&s, &shard, 1);
    bench_store_close(&s);
    raw_remove(&raw);
    buf_unref(l.batch);
}

/* --- durable throughput --- */

static double cpu_now(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Appends a second; *cpu: seconds of this process (journal and writers) per million of them. */
static double journal_throughput(struct bench_store *s, struct load *l, double *cpu)
{
    struct writer *w = writers_start(l, s, (unsigned)opt.writers, 0);
    double began = measure_now(), cpu_began = cpu_now(), took;
    uint64_t n;

    atomic_store(&l->stop, false);
    writers_go(w, (unsigned)opt.writers);
    measure_sleep_until(began + opt.seconds);
    atomic_store(&l->stop, true);
    n = writers_end(l, w, (unsigned)opt.writers);
    took = measure_now() - began;
    *cpu = (cpu_now() - cpu_began) * 1e6 / (double)n;
    return (double)n / took;
}

/* Bytes a second of writes with a flush each. */
static double raw_throughput(struct raw_file *f)
{
    double began = measure_now(), now = began;
    uint64_t n = 0;

    for (; now - began < opt.seconds; now = measure_now(), n++)
        raw_write_sync(f, RAW_SYNC_BYTES);
    return (double)n * RAW_SYNC_BYTES / (now - began);
}

static void throughput_round(struct bench_store *s, struct load *l, struct raw_file *raw,
                             bool raw_first, struct measure_rounds *rate,
                             struct measure_rounds *cpu)
{
    double reference = 0, ours, cpu_seconds;

    if (raw_first)
        reference = raw_throughput(raw);
    store_create_shards(s, l->shards, l->n_shards);
    ours = journal_throughput(s, l, &cpu_seconds) * (double)(opt.bytes * opt.records);
    store_delete_shards(s, l->shards, l->n_shards);
    bench_store_rest(s);
    if (!raw_first)
        reference = raw_throughput(raw);
    measure_round(rate, ours / 1e6, reference / 1e6);
    measure_round(cpu, cpu_seconds, 0);
}

static void throughput(void)
{
    struct load l = { .n_shards = (unsigned)opt.shards, .batch = make_batch() };
    struct measure_rounds rate = { .unit = "MB/s" }, cpu = { .unit = "s/million" };
    char name[64], cpu_name[80], text[200], path[4096];
    struct raw_file raw;
    struct bench_store s;

    snprintf(name, sizeof name, "%s", opt.name ? opt.name : "journal");
    snprintf(cpu_name, sizeof cpu_name, "%s_cpu", name);
    snprintf(text, sizeof text,
             "%" PRIu64 " writers, %" PRIu64 " records of %" PRIu64 " bytes a batch, over %" PRIu64
             " shards, WAL budget %" PRIu64 " MiB, against raw writes of 64 KiB with fdatasync",
             opt.writers, opt.records, opt.bytes, opt.shards, opt.budget_mib);
    rate.name = name;
    rate.text = text;
    cpu.name = cpu_name;
    cpu.text = "CPU of journal and writers for a million appends";
    l.shards = mem_new(opt.shards * sizeof *l.shards);
    raw_path(path, sizeof path);
    raw_create(&raw, path, 256 << 20, RAW_SYNC_BYTES);
    open_store(&s);
    for (unsigned r = 0; r < opt.rounds; r++)
        throughput_round(&s, &l, &raw, r % 2, &rate, &cpu);
    measure_report(&rate);
    measure_report(&cpu);
    bench_store_close(&s);
    raw_remove(&raw);
    free(l.shards);
    buf_unref(l.batch);
}

/* --- latency at half load --- */

/* The same of the raw device: its own rate with one writer, then half of it. */
static void raw_half(struct raw_file *f, uint32_t bytes, struct measure_samples *out)
{
    double began = measure_now(), took = 0;
    uint64_t n = 0;

    for (; took < opt.seconds / 2; took = measure_now() - began, n++)
        raw_write_sync(f, bytes);
    measure_clear(out);
    paced_raw(&(struct paced){ .rate = (double)n / took / 2, .seconds = opt.seconds }, f, bytes,
              out);
}

static double journal_half(struct bench_store *s, struct load *l, struct measure_samples *out)
{
    struct paced p = { .seconds = opt.seconds };
    double cpu;

    store_create_shards(s, l->shards, l->n_shards);
    p.rate = journal_throughput(s, l, &cpu) / 2;
    measure_clear(out);
    paced_appends(&p, s, l->shards, l->n_shards, l->batch, out);
    store_delete_shards(s, l->shards, l->n_shards);
    bench_store_rest(s);
    return p.rate;
}

/* What the journal is held against: one writer, and the least that as many appends take. */
enum { HALF_RAW, HALF_LEAST, HALF_REFERENCES };

struct half_figures {
    struct measure_rounds rounds[HALF_REFERENCES][LATENCY_QUANTILES], rate;
    char names[HALF_REFERENCES][LATENCY_QUANTILES][80], rate_name[80];
};

static void half_figures_init(struct half_figures *f, const char *name)
{
    static const char *const parts[] = { "", "_least" };
    static const char *const texts[] = { "appends at half of the rate of so many writers, from "
                                         "when each was due, against raw writes "
                                         "with fdatasync at half of theirs",
                                         "the same against raw blocks of as many bytes at the same "
                                         "rate, with all bytes written once "
                                         "more beside them" };

    for (int k = 0; k < HALF_REFERENCES; k++)
        for (int q = 0; q < LATENCY_QUANTILES; q++) {
            snprintf(f->names[k][q], sizeof f->names[k][q], "%s%s_p%d", name, parts[k],
                     (int)(100 * latency_q[q]));
            f->rounds[k][q] =
                (struct measure_rounds){ .name = f->names[k][q], .unit = "us", .text = texts[k] };
        }
    snprintf(f->rate_name, sizeof f->rate_name, "%s_rate", name);
    f->rate = (struct measure_rounds){ .unit = "1/s",
                                       .name = f->rate_name,
                                       .text = "appends a second, at half load" };
}

static void half_round(struct bench_store *s, struct load *l, const struct least *least,
                       bool raw_first, struct half_figures *f)
{
    struct measure_samples ours = { 0 }, reference[HALF_REFERENCES] = { 0 };
    struct paced p = { .seconds = opt.seconds };

    if (raw_first)
        raw_half(least->log, l->batch->len, &reference[HALF_RAW]);
    p.rate = journal_half(s, l, &ours);
    measure_round(&f->rate, p.rate, 0);
    if (!raw_first)
        raw_half(least->log, l->batch->len, &reference[HALF_RAW]);
    least_run(&p, least, &reference[HALF_LEAST]);
    for (int k = 0; k < HALF_REFERENCES; k++) {
        for (int q = 0; q < LATENCY_QUANTILES; q++)
            measure_round(&f->rounds[k][q], 1e6 * measure_quantile(&ours, latency_q[q]),
                          1e6 * measure_quantile(&reference[k], latency_q[q]));
        measure_free(&reference[k]);
    }
    measure_free(&ours);
}

static void half(void)
{
    struct load l = { .n_shards = (unsigned)opt.shards, .batch = make_batch() };
    char raw_name[4096], copy_name[4096 + 8];
    struct half_figures figures;
    struct raw_file raw, copy;
    struct least least = { .log = &raw, .copy = &copy, .bytes = l.batch->len };
    struct bench_store s;

    half_figures_init(&figures, opt.name ? opt.name : "half");
    l.shards = mem_new(opt.shards * sizeof *l.shards);
    raw_path(raw_name, sizeof raw_name);
    snprintf(copy_name, sizeof copy_name, "%s.copy", raw_name);
    raw_create(&raw, raw_name, 64 << 20, LEAST_BLOCK_MAX);
    raw_create(&copy, copy_name, 64 << 20, LEAST_BLOCK_MAX);
    open_store(&s);
    journal_half(&s, &l, &(struct measure_samples){ 0 }); /* for the slabs to grow */
    for (unsigned r = 0; r < opt.rounds; r++)
        half_round(&s, &l, &least, r % 2, &figures);
    for (int k = 0; k < HALF_REFERENCES; k++)
        for (int q = 0; q < LATENCY_QUANTILES; q++)
            measure_report(&figures.rounds[k][q]);
    measure_report(&figures.rate);
    bench_store_close(&s);
    raw_remove(&raw);
    raw_remove(&copy);
    free(l.shards);
    buf_unref(l.batch);
}

/* --- large batches, and what reaches the device --- */

/* Bytes written since `was` for each accepted one; *in: where they went. */
static double bytes_written(const struct bench_store *s, const struct journal_bytes *was, char *in,
                            size_t room)
{
    struct journal_bytes b;
    double accepted, wal, straight, destage, rewrite;

    journal_bytes(s->journal, &b);
    accepted = (double)(b.accepted - was->accepted);
    wal = (double)(b.wal - was->wal) / accepted;
    straight = (double)(b.direct - was->direct) / accepted;
    destage = (double)(b.destage - was->destage) / accepted;
    rewrite = (double)(b.rewrite - was->rewrite) / accepted;
    snprintf(in, room, "to WAL %.3f, directly %.3f, by destage %.3f, by rewriting %.3f", wal,
             straight, destage, rewrite);
    return wal + straight + destage + rewrite;
}

/* The device's figure from a plain program's memory, and from huge pages. */
static void direct_reference(struct raw_file *raws, double reference[2])
{
    for (int i = 0; i < 2; i++)
        reference[i] = raw_stream(&raws[i], 1 << 20, RAW_DEPTH, opt.seconds / 2);
}

static void direct_round(struct bench_store *s, struct load *l, struct raw_file *raws,
                         bool raw_first, struct measure_rounds *rates)
{
    double reference[2], ours, cpu;

    if (raw_first)
        direct_reference(raws, reference);
    store_create_shards(s, l->shards, l->n_shards);
    ours = journal_throughput(s, l, &cpu) * (double)l->batch->len;
    store_delete_shards(s, l->shards, l->n_shards);
    bench_store_rest(s);
    if (!raw_first)
        direct_reference(raws, reference);
    for (int i = 0; i < 2; i++)
        measure_round(&rates[i], ours / 1e6, reference[i] / 1e6);
}

static void direct(void)
{
    struct load l = { .n_shards = (unsigned)opt.shards, .batch = make_batch() };
    struct measure_rounds rates[2] = { { .unit = "MB/s" }, { .unit = "MB/s" } };
    struct measure_rounds amp = { .unit = "bytes" };
    char name[64], huge_name[80], amp_name[80], text[200], in[160], paths[2][4096];
    struct journal_bytes was;
    struct raw_file raws[2];
    struct bench_store s;

    snprintf(name, sizeof name, "%s", opt.name ? opt.name : "direct");
    snprintf(huge_name, sizeof huge_name, "%s_huge", name);
    snprintf(amp_name, sizeof amp_name, "%s_amp", name);
    snprintf(text, sizeof text,
             "%" PRIu64 " writers, batches of %" PRIu32 " bytes over %" PRIu64
             " shards, against raw writes of 1 MiB, %d at once, without a sync",
             opt.writers, l.batch->len, opt.shards, RAW_DEPTH);
    rates[0].name = name;
    rates[0].text = text;
    rates[1].name = huge_name;
    rates[1].text = "the same, against such writes from huge pages";
    amp.name = amp_name;
    amp.text = in;
    l.shards = mem_new(opt.shards * sizeof *l.shards);
    for (int i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof paths[i], "%s.raw-%d", opt.dir, i);
        raw_create(&raws[i], paths[i], 512 << 20, 1 << 20);
    }
    raw_use_huge(&raws[1]);
    open_store(&s);
    /* One round first, for the slabs to grow: they are written whole before their first use. */
    store_create_shards(&s, l.shards, l.n_shards);
    journal_throughput(&s, &l, &(double){ 0 });
    store_delete_shards(&s, l.shards, l.n_shards);
    bench_store_rest(&s);
    journal_bytes(s.journal, &was);
    for (unsigned r = 0; r < opt.rounds; r++)
        direct_round(&s, &l, raws, r % 2, rates);
    for (int i = 0; i < 2; i++)
        measure_report(&rates[i]);
    measure_round(&amp, bytes_written(&s, &was, in, sizeof in), 0);
    measure_report(&amp);
    bench_store_close(&s);
    for (int i = 0; i < 2; i++)
        raw_remove(&raws[i]);
    free(l.shards);
    buf_unref(l.batch);
}

/* --- recovery --- */

/* Child: fills the WAL to its budget, and dies under load without a goodbye. */
static void recovery_fill(void)
{
    struct load l = { .n_shards = (unsigned)opt.shards, .batch = make_batch() };
    struct bench_store s;

    l.shards = mem_new(opt.shards * sizeof *l.shards);
    open_store(&s);
    store_create_shards(&s, l.shards, l.n_shards);
    writers_go(writers_start(&l, &s, (unsigned)opt.writers, 0), (unsigned)opt.writers);
    while (atomic_load(&l.bytes_acked) < opt.budget_mib << 20)
        measure_sleep_until(measure_now() + 0.001);
    kill(getpid(), SIGKILL);
}

/* Child: opens, says so, and is killed; so the next round finds the same. */
static void recovery_open(void)
{
    struct journal_conf conf = settings();
    struct bench_store s;

    logger_setup(LOG_LEVEL_INFO, true);
    logger_to(STDOUT_FILENO);
    bench_store_open(&s, opt.dir, &conf, (unsigned)opt.loops);
    dprintf(STDOUT_FILENO, "opened\n");
    for (;;)
        pause();
}

/* This program anew, with another verb and the same options. */
struct self_args {
    char numbers[6][32];
    const char *argv[32];
};

static const char *const *self_args(struct self_args *a, const char *verb)
{
    const uint64_t values[6] = { opt.bytes,  opt.records,    opt.writers,
                                 opt.shards, opt.budget_mib, opt.loops };
    const char *const flags[6] = { "-s", "-c", "-w", "-k", "-b", "-l" };
    int n = 0;

    a->argv[n++] = "/proc/self/exe";
    a->argv[n++] = verb;
    a->argv[n++] = "-d";
    a->argv[n++] = opt.dir;
    for (int i = 0; i < 6; i++) {
        snprintf(a->numbers[i], sizeof a->numbers[i], "%" PRIu64, values[i]);
        a->argv[n++] = flags[i];
        a->argv[n++] = a->numbers[i];
    }
    a->argv[n] = NULL;
    return a->argv;
}

static double number_after(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    if (!at)
        measure_die("the child did not say %s: %s", key, text);
    return strtod(at + strlen(key), NULL);
}

static double scan_live(double live_bytes)
{
    char pattern[4096];
    struct raw_scan scan;
    glob_t slabs;

    snprintf(pattern, sizeof pattern, "%s/slab-*", opt.dir);
    if (glob(pattern, 0, NULL, &slabs) != 0)
        measure_die("%s: no slabs", pattern);
    scan = raw_scan(slabs.gl_pathv, (unsigned)slabs.gl_pathc, (uint64_t)live_bytes);
    globfree(&slabs);
    if ((double)scan.bytes < live_bytes)
        measure_die("the slabs are smaller than the live WAL");
    return scan.seconds;
}

static double cpu_of(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6;
}

static void recovery_round(struct child *c, const char *const *argv, const char *until,
                           struct measure_rounds *figure)
{
    double live, took;

    child_run(c, argv, until);
    took = c->said - c->began;
    live = number_after(c->text, "\"lsn\":") - number_after(c->text, "\"from_lsn\":");
    printf("  %.3f s over %.1f MiB of live WAL; CPU %.2f s, peak %ld MiB\n", took, live / (1 << 20),
           cpu_of(&c->usage), c->usage.ru_maxrss / 1024);
    measure_round(figure, took, scan_live(live));
}

static bool is_store(const char *dir)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/superblock", dir);
    return access(path, F_OK) == 0;
}

static void recovery(void)
{
    struct measure_rounds figure = { .name = opt.name ? opt.name : "recovery", .unit = "s" };
    struct child *c = mem_new(sizeof *c);
    struct self_args args;
    char text[200];

    snprintf(text, sizeof text,
             "exec to open after SIGKILL, WAL budget %" PRIu64 " MiB, batches of %" PRIu64
             " records of %" PRIu64 " bytes over %" PRIu64
             " shards, against a raw scan with crc32c",
             opt.budget_mib, opt.records, opt.bytes, opt.shards);
    figure.text = text;
    if (!is_store(opt.dir))
        child_run(c, self_args(&args, "recovery-fill"), NULL);
    for (unsigned r = 0; r < opt.rounds; r++)
        recovery_round(c, self_args(&args, "recovery-open"), "opened", &figure);
    measure_report(&figure);
    free(c);
}

static void restart(void)
{
    struct measure_rounds figure = {
        .name = opt.name ? opt.name : "restart",
        .unit = "s",
        .text = "server, exec to ready after SIGKILL under load, against a raw scan with crc32c"
    };
    struct child *c = mem_new(sizeof *c);

    if (!opt.server[0])
        measure_die("restart: which server?");
    for (unsigned r = 0; r < opt.rounds; r++)
        recovery_round(c, opt.server, "\"ready\"", &figure);
    measure_report(&figure);
    free(c);
}

/* --- arguments --- */

static int usage(void)
{
    fprintf(stderr, "usage: journal_bench latency|throughput|half|direct|recovery|restart -d DIR "
                    "[OPTION]...\n");
    return 2;
}

static bool take_kind(const char *name)
{
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        opt.kind = (enum shard_kind)i;
        if (strcmp(kinds[i].name, name) == 0)
            return true;
    }
    return false;
}

static bool take_option(int o, const char *arg)
{
    switch (o) {
    case 'd':
        opt.dir = arg;
        return true;
    case 'K':
        return take_kind(arg);
    case 'x':
        opt.name = arg;
        return true;
    case 'r':
        opt.rounds = measure_number(arg, 1, MEASURE_ROUNDS_MAX);
        return true;
    case 't':
        opt.seconds = (double)measure_number(arg, 1, 3600);
        return true;
    case 'n':
        opt.appends = measure_number(arg, 1, 10000000);
        return true;
    case 's':
        opt.bytes = measure_number(arg, 0, 1 << 20);
        return true;
    case 'c':
        opt.records = measure_number(arg, 1, 100000);
        return true;
    case 'w':
        opt.writers = measure_number(arg, 1, WRITERS_MAX);
        return true;
    case 'k':
        opt.shards = measure_number(arg, 1, SHARDS_MAX);
        return true;
    case 'b':
        opt.budget_mib = measure_number(arg, 1, 1 << 20);
        return true;
    case 'R':
        opt.retention_mib = measure_number(arg, 1, 1 << 20);
        return true;
    case 'l':
        opt.loops = measure_number(arg, 0, STORE_LOOPS_MAX);
        return true;
    default:
        return false;
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *verb;
        void (*run)(void);
    } verbs[] = { { "latency", latency },
                  { "throughput", throughput },
                  { "half", half },
                  { "direct", direct },
                  { "recovery", recovery },
                  { "restart", restart },
                  { "recovery-fill", recovery_fill },
                  { "recovery-open", recovery_open } };
    int o;

    optind = 2;
    while (argc > 1 && (o = getopt(argc, argv, "d:x:r:t:n:s:c:w:k:b:l:K:R:")) != -1)
        if (!take_option(o, optarg))
            return usage();
    if (argc < 2 || !opt.dir || (optind != argc && strcmp(argv[1], "restart") != 0))
        return usage();
    opt.server = (const char *const *)(argv + optind);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(argv[1], verbs[i].verb) == 0) {
            verbs[i].run();
            return 0;
        }
    return usage();
}
