#include "base/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/check.h"

static struct pool *new_pool(unsigned n_threads)
{
    struct pool *p = NULL;
    int rc = pool_thread_new(&p, n_threads, "test-pool", NULL);

    alarm(60);
    REQUIRE(rc == 0);
    return p;
}

static struct loop *new_loop(void)
{
    struct loop *l = NULL;
    int rc = loop_event_new(&l, 0, NULL);

    REQUIRE(rc == 0);
    return l;
}

enum { JOBS = 1000 };

struct job {
    struct work work; /* first */
    unsigned number;
    unsigned ran;
    unsigned done;
};

static unsigned next_run, wrong_runs;   /* pool thread */
static unsigned next_done, wrong_dones; /* home */
static atomic_uint n_runs;

static void run_in_order(struct work *w)
{
    struct job *j = (struct job *)w;

    wrong_runs += j->number != next_run++;
    j->ran++;
}

static void done_in_order(struct work *w)
{
    struct job *j = (struct job *)w;

    wrong_dones += j->number != next_done++ || j->ran != 1 || !w->loop->ops->is_home(w->loop);
    if (++j->done && next_done == JOBS)
        loop_event_stop(w->loop);
}

static void test_one_thread_is_fifo_and_done_runs_at_home(void)
{
    static struct job jobs[JOBS];
    struct loop *l = new_loop();
    struct pool *p = new_pool(1);

    next_run = next_done = wrong_runs = wrong_dones = 0;
    for (unsigned i = 0; i < JOBS; i++) {
        jobs[i] =
            (struct job){ { .run = run_in_order, .done = done_in_order, .loop = l }, i, 0, 0 };
        pool_submit(p, &jobs[i].work);
    }
    loop_event_run(l);
    pool_thread_free(p);
    CHECK_EQ(wrong_runs + wrong_dones, 0);
    CHECK_EQ(next_done, JOBS);
    loop_event_free(l);
}

static void run_and_free(struct work *w)
{
    free(w);
    atomic_fetch_add(&n_runs, 1);
}

static void test_free_finishes_what_is_queued_and_run_may_free(void)
{
    struct pool *p = new_pool(3);

    atomic_store(&n_runs, 0);
    for (int i = 0; i < JOBS; i++) {
        struct work *w = calloc(1, sizeof *w);

        w->run = run_and_free;
        pool_submit(p, w);
    }
    pool_thread_free(p);
    CHECK_EQ(atomic_load(&n_runs), JOBS);
    pool_thread_free(NULL);
}

/* Work that submits more while the pool closes: it is queued before the submitter ends, so it
 * runs too. */
struct chain {
    struct work work; /* first */
    struct pool *pool;
    int left;
};

static void run_chain(struct work *w)
{
    struct chain *c = (struct chain *)w;

    atomic_fetch_add(&n_runs, 1);
    if (c->left-- > 0)
        pool_submit(c->pool, w);
}

static void test_work_submitted_by_the_last_work_runs(void)
{
    struct pool *p = new_pool(2);
    struct chain c = { { .run = run_chain }, p, 100 };

    atomic_store(&n_runs, 0);
    pool_submit(p, &c.work);
    pool_thread_free(p);
    CHECK_EQ(atomic_load(&n_runs), 101);
}

static pthread_barrier_t meeting;

static void run_meeting(struct work *w)
{
    pthread_barrier_wait(&meeting);
    atomic_fetch_add(&n_runs, 1);
}

static void test_n_threads_work_at_once(void)
{
    struct pool *p = new_pool(4);
    struct work works[4] = { { .run = run_meeting },
                             { .run = run_meeting },
                             { .run = run_meeting },
                             { .run = run_meeting } };

    atomic_store(&n_runs, 0);
    pthread_barrier_init(&meeting, NULL, 4); /* with fewer threads nobody gets past it */
    for (int i = 0; i < 4; i++)
        pool_submit(p, &works[i]);
    pool_thread_free(p);
    CHECK_EQ(atomic_load(&n_runs), 4);
    pthread_barrier_destroy(&meeting);
}

static char seen_name[32];
static int term_blocked;

static void run_look(struct work *w)
{
    sigset_t mask;

    pthread_getname_np(pthread_self(), seen_name, sizeof seen_name);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    term_blocked = sigismember(&mask, SIGTERM);
}

static void test_threads_have_a_name_and_take_no_signals(void)
{
    struct work w = { .run = run_look };
    struct pool *p = NULL;
    sigset_t mask;

    REQUIRE(pool_thread_new(&p, 1, "a-name-that-is-long", NULL) == 0);
    pool_submit(p, &w);
    pool_thread_free(p);
    CHECK(strcmp(seen_name, "a-name-that-is-") == 0);
    CHECK_EQ(term_blocked, 1);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    CHECK_EQ(sigismember(&mask, SIGTERM), 0);
}

TEST_MAIN(T(one_thread_is_fifo_and_done_runs_at_home)
              T(free_finishes_what_is_queued_and_run_may_free)
                  T(work_submitted_by_the_last_work_runs) T(n_threads_work_at_once)
                      T(threads_have_a_name_and_take_no_signals))
