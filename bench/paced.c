#include "bench/paced.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "base/buf.h"
#include "base/rng.h"
#include "base/slice.h"

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

size_t paced_count(const struct paced *p)
{
    size_t n = (size_t)(p->rate * p->seconds);

    return n ? n : 1;
}

double paced_due(const struct paced *p, double began, size_t i)
{
    return began + (double)i / p->rate;
}

double paced_wait(const struct paced *p, double began, size_t i, double least)
{
    double due = paced_due(p, began, i), now = measure_now();

    if (now < due)
        measure_sleep_until(due > now + least ? due : now + least);
    return due;
}

enum { SLICE_US = 200 };

void paced_wake_in_time(void)
{
    prctl(PR_SET_TIMERSLACK, 1UL); /* without it each wake-up may come 50 us late */
    slice_set_us(SLICE_US);        /* nor does it wait while others compute */
}

void paced_appends(const struct paced *p, struct bench_store *s, struct shard *const *shards,
                   unsigned n, struct buf *batch, struct measure_samples *out)
{
    size_t count = paced_count(p);
    struct run run = { .list = mem_new(count * sizeof *run.list) };
    struct rng rng;
    double began;

    paced_wake_in_time();
    rng_seed(&rng, 3);
    sem_init(&run.ended, 0, 0);
    atomic_store(&run.left, count);
    began = measure_now();
    for (size_t i = 0; i < count; i++) {
        struct request *q = &run.list[i];

        q->run = &run;
        q->done.fn = acked;
        q->done.loop = s->loops[i % s->n_loops];
        q->due = paced_wait(p, began, i, PACED_TICK);
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
    size_t count = paced_count(p);
    double began;

    paced_wake_in_time();
    began = measure_now();
    for (size_t i = 0; i < count; i++) {
        double due = paced_wait(p, began, i, 0);

        raw_write_sync(f, bytes);
        measure_add(out, measure_now() - due);
    }
}
