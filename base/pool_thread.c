#include "base/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct pool_thread {
    struct pool pool;
    pthread_mutex_t lock;
    pthread_cond_t news;

    /* under lock */
    struct task *first;
    struct task *last;
    bool closing;

    unsigned n_threads;
    char name[16]; /* what the kernel keeps of a thread's name */
    pthread_t threads[];
};

static struct work *work_of(struct task *t)
{
    return (struct work *)((char *)t - offsetof(struct work, task));
}

static void run_done(struct task *t)
{
    struct work *w = work_of(t);

    w->done(w);
}

static void pool_submit_work(struct pool *pool, struct work *w)
{
    struct pool_thread *p = (struct pool_thread *)pool;

    w->task.next = NULL;
    pthread_mutex_lock(&p->lock);
    if (p->first)
        p->last->next = &w->task;
    else
        p->first = &w->task;
    p->last = &w->task;
    /* Under the lock: once it is open the pool may be closed and freed by who waits for this
     * work. */
    pthread_cond_signal(&p->news);
    pthread_mutex_unlock(&p->lock);
}

/* The next piece of work; NULL when the pool closes and nothing is queued. */
static struct work *next_work(struct pool_thread *p)
{
    struct task *t;

    pthread_mutex_lock(&p->lock);
    while (!p->first && !p->closing)
        pthread_cond_wait(&p->news, &p->lock);
    t = p->first;
    if (t)
        p->first = t->next;
    pthread_mutex_unlock(&p->lock);
    return t ? work_of(t) : NULL;
}

static void *thread_main(void *arg)
{
    struct pool_thread *p = arg;
    struct work *w;

    pthread_setname_np(pthread_self(), p->name);
    while ((w = next_work(p))) {
        bool has_done = w->done != NULL; /* without one, run may free w */

        w->run(w);
        if (!has_done)
            continue;
        w->task.run = run_done;
        loop_post(w->loop, &w->task);
    }
    return NULL;
}

int pool_thread_new(struct pool **out, unsigned n_threads, const char *name, struct err *e)
{
    static const struct pool_ops ops = { .submit = pool_submit_work };
    struct pool_thread *p = mem_new(sizeof *p + n_threads * sizeof p->threads[0]);
    sigset_t all, before;
    int error = 0;

    *out = NULL;
    p->pool.ops = &ops;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->news, NULL);
    snprintf(p->name, sizeof p->name, "%s", name);
    /* Signals are for the thread that called: the pool's inherit a full mask. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (p->n_threads < n_threads && error == 0) {
        error = pthread_create(&p->threads[p->n_threads], NULL, thread_main, p);
        if (error == 0)
            p->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        pool_thread_free(&p->pool);
        return err_set(e, E_SYSTEM, "%s: cannot start a thread: %s", name, strerror(error));
    }
    *out = &p->pool;
    return 0;
}

void pool_thread_free(struct pool *pool)
{
    struct pool_thread *p = (struct pool_thread *)pool;

    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_broadcast(&p->news);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->news);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
