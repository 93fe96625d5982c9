/* Long reads beside commits. */
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#include "journal/io/gate.h"
#include "tests/check.h"

enum { MIB = 1 << 20 };

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A commit after which others are expected for as long as a test may take. */
static void commit(struct gate *g)
{
    gate_commit_begin(g);
    gate_commit_end(g);
    g->commit_us += UINT64_C(3600) * 1000000;
}

static void test_without_commits_reads_are_whole_and_many_at_once(void)
{
    struct gate g;

    gate_init(&g);
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(gate_read_begin(&g, MIB), MIB);
    for (unsigned i = 0; i < 8; i++)
        gate_read_end(&g);
    gate_fini(&g);
}

static void test_after_a_commit_reads_go_in_pieces(void)
{
    struct gate g;

    gate_init(&g);
    commit(&g);
    CHECK_EQ(gate_read_begin(&g, MIB), GATE_PIECE);
    gate_read_end(&g);
    CHECK_EQ(gate_read_begin(&g, 4096), 4096);
    gate_read_end(&g);
    gate_fini(&g);
}

struct reader {
    struct gate *g;
    pthread_t thread;
    atomic_bool through;
    sem_t go_on;
    double waited;
};

static void *reader_run(void *arg)
{
    struct reader *r = arg;
    double began = now();

    gate_read_begin(r->g, MIB);
    r->waited = now() - began;
    atomic_store(&r->through, true);
    sem_wait(&r->go_on);
    gate_read_end(r->g);
    return NULL;
}

static void reader_start(struct reader *r, struct gate *g)
{
    *r = (struct reader){ .g = g };
    sem_init(&r->go_on, 0, 0);
    REQUIRE(pthread_create(&r->thread, NULL, reader_run, r) == 0);
}

static void reader_end(struct reader *r)
{
    sem_post(&r->go_on);
    pthread_join(r->thread, NULL);
    sem_destroy(&r->go_on);
}

/* Nobody ends the commit: the piece goes all the same, and not before its time. */
static void test_a_piece_waits_for_a_commit_but_not_for_ever(void)
{
    struct reader r;
    struct gate g;

    gate_init(&g);
    gate_commit_begin(&g);
    reader_start(&r, &g);
    reader_end(&r);
    CHECK(r.waited >= GATE_WAIT_US / 1e6);
    gate_commit_end(&g);
    gate_fini(&g);
}

/* The second one is held until the first one has ended, or its time is over. */
static void test_pieces_go_one_at_a_time_while_commits_come(void)
{
    struct reader first, second;
    struct gate g;

    gate_init(&g);
    commit(&g);
    reader_start(&first, &g);
    while (!atomic_load(&first.through))
        sched_yield();
    reader_start(&second, &g);
    reader_end(&second);
    CHECK(second.waited >= GATE_WAIT_US / 1e6);
    reader_end(&first);
    gate_fini(&g);
}

TEST_MAIN(T(without_commits_reads_are_whole_and_many_at_once) T(after_a_commit_reads_go_in_pieces)
              T(a_piece_waits_for_a_commit_but_not_for_ever)
                  T(pieces_go_one_at_a_time_while_commits_come))
