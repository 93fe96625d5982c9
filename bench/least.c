#include "bench/least.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/buf.h"

struct run {
    const struct paced *p;
    const struct least *l;
    double began;
    size_t count;
    atomic_size_t given; /* requests that are due */
    sem_t more;
    double *took; /* of each */
};

static void *commit(void *arg)
{
    struct run *r = arg;
    size_t most = LEAST_BLOCK_MAX / r->l->bytes, n = 0;

    while (n < r->count) {
        size_t given = atomic_load(&r->given);
        double now;

        if (given == n) {
            while (sem_wait(&r->more) < 0)
                ASSERT(errno == EINTR);
            continue;
        }
        if (given - n > most)
            given = n + most;
        raw_write_sync(r->l->log, (uint32_t)(given - n) * r->l->bytes);
        now = measure_now();
        for (; n < given; n++)
            r->took[n] = now - paced_due(r->p, r->began, n);
    }
    return NULL;
}

static void *copy(void *arg)
{
    struct run *r = arg;
    double bytes = (double)r->count * r->l->bytes;
    struct paced p = { .rate = r->p->rate * r->l->bytes / LEAST_BLOCK_MAX };

    paced_wake_in_time();
    for (size_t i = 0; (double)(i + 1) * LEAST_BLOCK_MAX <= bytes; i++) {
        paced_wait(&p, r->began, i, 0);
        raw_write(r->l->copy, LEAST_BLOCK_MAX);
    }
    return NULL;
}

static pthread_t begin(void *(*fn)(void *), struct run *r)
{
    pthread_t t;

    if (pthread_create(&t, NULL, fn, r) != 0)
        measure_die("no thread");
    return t;
}

/* How many are due, when i were and one more is. */
static size_t due_now(const struct run *r, size_t i)
{
    double n = (measure_now() - r->began) * r->p->rate;

    return n <= (double)i ? i + 1 : n < (double)r->count ? (size_t)n : r->count;
}

void least_run(const struct paced *p, const struct least *l, struct measure_samples *out)
{
    struct run r = { .p = p, .l = l, .count = paced_count(p), .began = measure_now() };
    pthread_t committer, copier;

    paced_wake_in_time();
    r.took = mem_new(r.count * sizeof *r.took);
    sem_init(&r.more, 0, 0);
    committer = begin(commit, &r);
    copier = begin(copy, &r);
    for (size_t i = 0; i < r.count;) {
        paced_wait(p, r.began, i, PACED_TICK);
        i = due_now(&r, i);
        atomic_store(&r.given, i);
        sem_post(&r.more);
    }
    pthread_join(committer, NULL);
    pthread_join(copier, NULL);
    for (size_t i = 0; i < r.count; i++)
        measure_add(out, r.took[i]);
    sem_destroy(&r.more);
    free(r.took);
}
