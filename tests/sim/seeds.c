#include "tests/sim/seeds.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/logger.h"

enum { JOBS_MAX = 16, FAILURES_MAX = 10 };

struct options {
    uint64_t first, seeds;
    unsigned jobs, failures_max;
    bool gates;
};

struct many {
    const struct seeds *s;
    const char *program;
    struct options o;
    uint64_t *now; /* the seed that each job is at; shared with the children, as are the counts */
    uint32_t *counts; /* n_rows for each seed */
    pid_t pids[JOBS_MAX];
};

static uint32_t *counts_of(const struct many *m, uint64_t i)
{
    return m->counts + i * m->s->n_rows;
}

/* One seed may take so many seconds of the processor: on a busy machine it may wait as long as it likes, or nearly. */
static void seed_clock(unsigned seconds)
{
    struct itimerval t = { .it_value.tv_sec = seconds };

    setitimer(ITIMER_PROF, &t, NULL);
    alarm(seconds * 10);
}

static void job_run(const struct many *m, unsigned job, uint64_t from)
{
    for (uint64_t i = from; i < m->o.seeds; i += m->o.jobs) {
        m->now[job] = i;
        seed_clock(m->s->seconds);
        m->s->run(m->o.first + i, counts_of(m, i), false);
    }
}

static void job_start(struct many *m, unsigned job, uint64_t from)
{
    fflush(stdout);
    m->pids[job] = fork();
    if (m->pids[job] == 0) {
        job_run(m, job, from);
        exit(0); /* so that a leak is told */
    }
}

static void tell_failure(const struct many *m, uint64_t i, int status)
{
    uint64_t seed = m->o.first + i;

    if (WIFSIGNALED(status))
        printf("seed %" PRIu64 " ended by signal %d%s\n", seed, WTERMSIG(status),
               WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGPROF ? " (no end)" : "");
    printf("replay with: %s --seed %" PRIu64 "\n", m->program, seed);
}

/* Runs all seeds; gives how many failed. A job that dies is started again behind the seed that killed it. */
static unsigned run_all(struct many *m)
{
    unsigned failed = 0, running = 0;

    for (unsigned k = 0; k < m->o.jobs; k++, running++)
        job_start(m, k, k);
    while (running > 0) {
        int status;
        pid_t pid = wait(&status);
        unsigned k = 0;

        while (k < m->o.jobs && m->pids[k] != pid)
            k++;
        if (k == m->o.jobs)
            continue;
        running--;
        if (status == 0 || failed++ >= m->o.failures_max)
            continue;
        tell_failure(m, m->now[k], status);
        if (failed < m->o.failures_max && m->now[k] + m->o.jobs < m->o.seeds) {
            job_start(m, k, m->now[k] + m->o.jobs);
            running++;
        }
    }
    return failed;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* One line of the table; false when the row's gate is missed. values: room for one number a seed. */
static bool row_tell(const struct many *m, unsigned k, uint32_t *values)
{
    const struct seeds_row *row = &m->s->rows[k];
    uint64_t all = 0;
    uint32_t median;
    bool good;

    for (uint64_t i = 0; i < m->o.seeds; i++)
        all += values[i] = counts_of(m, i)[k];
    qsort(values, m->o.seeds, sizeof *values, by_value);
    median = values[m->o.seeds / 2];
    good = (all > 0 || row->may_miss) && median >= row->median;
    printf("%-45s %10" PRIu32 " %10" PRIu32 " %12" PRIu64 "%s\n", row->text, median,
           values[m->o.seeds - 1], all, good ? "" : "  TOO FEW");
    return good;
}

/* Prints the table; gives how many gates were missed. */
static unsigned table(const struct many *m)
{
    uint32_t *values = malloc(m->o.seeds * sizeof *values);
    unsigned missed = 0;

    printf("%-45s %10s %10s %12s\n", "", "median", "most", "in all");
    for (unsigned k = 0; k < m->s->n_rows; k++)
        missed += !row_tell(m, k, values);
    free(values);
    return missed;
}

static void *shared(size_t bytes)
{
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return mem == MAP_FAILED ? NULL : mem;
}

static int many_run(struct many *m)
{
    unsigned failed, missed = 0;

    m->now = shared(JOBS_MAX * sizeof *m->now);
    m->counts = shared(m->o.seeds * m->s->n_rows * sizeof *m->counts);
    if (!m->now || !m->counts)
        return 2;
    failed = run_all(m);
    if (failed == 0)
        missed = table(m);
    if (!m->o.gates)
        missed = 0;
    printf("%" PRIu64 " seeds from %" PRIu64 "\n", m->o.seeds, m->o.first);
    printf("%u passed, %u failed\n", failed + missed ? 0 : 1, failed + missed);
    return failed ? 1 : missed ? 2 : 0;
}

static int one_run(const struct seeds *s, uint64_t seed)
{
    uint32_t *counts = calloc(s->n_rows, sizeof *counts);

    if (!counts)
        return 2;
    s->run(seed, counts, true);
    free(counts);
    printf("1 passed, 0 failed\n");
    return 0;
}

static uint64_t number(const char *text, uint64_t otherwise)
{
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* False: an argument that nobody knows. *one: the seed to run alone, and to talk about. */
static bool options_read(struct options *o, int argc, char **argv, const char **one)
{
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--first-failure") == 0) {
            o->failures_max = 1;
            continue;
        }
        if (strcmp(argv[i], "--no-gates") == 0) {
            o->gates = false;
            continue;
        }
        if (strcmp(argv[i], "--seed") == 0)
            *one = next;
        else if (strcmp(argv[i], "--first") == 0)
            o->first = number(next, 1);
        else if (strcmp(argv[i], "--seeds") == 0)
            o->seeds = number(next, o->seeds);
        else if (strcmp(argv[i], "--jobs") == 0)
            o->jobs = (unsigned)number(next, 2);
        else
            return false;
        i++;
    }
    return o->jobs >= 1 && o->jobs <= JOBS_MAX && o->seeds >= 1;
}

int seeds_main(const struct seeds *s, int argc, char **argv)
{
    struct many m = { .s = s, .program = argv[0] };
    const char *one = NULL;

    m.o = (struct options){ .first = number(getenv(s->env_first), 1),
                            .seeds = number(getenv(s->env_seeds), s->n),
                            .jobs = 2,
                            .failures_max = FAILURES_MAX,
                            .gates = true };
    if (!options_read(&m.o, argc, argv, &one))
        return 2;
    if (one)
        return one_run(s, number(one, 1));
    logger_to(-1);
    return many_run(&m);
}
