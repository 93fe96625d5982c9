#include "bench/paced.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "base/buf.h"
#include "base/rng.h"

struct run;

struct request {
    struct append_done done; /* first */
    struct run *run;
    double due, took;
};

struct run {
    struct request *list;
    atomic_size_t left;
    sem_t ended;
};

static void acked(struct append_done *d)
{
    struct request *q = (struct request *)d;

    if (d->rc < 0)
        measure_die("append: %s", err_text(d->rc));
    q->took = measure_now() - q->due;
    if (atomic_fetch_sub(&q->run->left, 1) == 1)
        sem_post(&q->run->ended);
}

static size_t count_of(const struct paced *p)
{
    size_t n = (size_t)(p->rate * p->seconds);

    return n ? n : 1;
}

/* So long the loop of appends sleeps at least: to wake for each of 150,000 a second it would take one
 * of two cores from what it measures. Those due meanwhile go out together, late by half of this on the
 * average, which counts. */
static const double TICK = 100e-6;

/* When request i is due; sleeps until then, and for least. Late ones come at once, one after the other.
 */
static double wait_until_due(const struct paced *p, double began, size_t i, double least)
{
    double due = began + (double)i / p->rate, now = measure_now();

    if (now < due)
        measure_sleep_until(due > now + least ? due : now + least);
    return due;
}

static void wake_in_time(void)
{
    prctl(PR_SET_TIMERSLACK, 1UL); /* without it each wake-up may come 50 us late */
}

void paced_appends(const struct paced *p, struct bench_store *s, struct shard *const *shards,
                   unsigned n, struct buf *batch, struct measure_samples *out)
{
    size_t count = count_of(p);
    struct run run = { .list = mem_new(count * sizeof *run.list) };
    struct rng rng;
    double began;

    wake_in_time();
    rng_seed(&rng, 3);
    sem_init(&run.ended, 0, 0);
    atomic_store(&run.left, count);
    began = measure_now();
    for (size_t i = 0; i < count; i++) {
        struct request *q = &run.list[i];

        q->run = &run;
        q->done.fn = acked;
        q->done.loop = s->loops[i % s->n_loops];
        q->due = wait_until_due(p, began, i, TICK);
        shard_append(shards[n > 1 ? rng_below(&rng, n) : 0], batch, 0, batch->len,
                     ACK_QUORUM_DURABLE, &q->done);
    }
    while (sem_wait(&run.ended) < 0)
        ASSERT(errno == EINTR);
    for (size_t i = 0; i < count; i++)
        measure_add(out, run.list[i].took);
    sem_destroy(&run.ended);
    free(run.list);
}

void paced_raw(const struct paced *p, struct raw_file *f, uint32_t bytes,
               struct measure_samples *out)
{
    size_t count = count_of(p);
    double began;

    wake_in_time();
    began = measure_now();
    for (size_t i = 0; i < count; i++) {
        double due = wait_until_due(p, began, i, 0);

        raw_write_sync(f, bytes);
        measure_add(out, measure_now() - due);
    }
}
