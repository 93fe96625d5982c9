/* test-limit: 900
 *
 * The journal under the simulator: many seeds of tests/sim/workload.h, in two processes.
 *
 *     test_sim [--seed N] [--first N] [--seeds N] [--jobs N] [--no-gates] [--first-failure]
 *
 * --seed runs one seed, talking. SIM_SEEDS and SIM_FIRST in the environment say the same as --seeds and --first. It fails when a promise
 * is broken, when a seed crashes or hangs, and when something that the median seed must see did not happen. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/logger.h"
#include "tests/sim/workload.h"

#ifdef WEIR_SLOW_ASSERTS
enum { SEEDS = 500, SEED_SECONDS = 240 };
#else
enum { SEEDS = 10000, SEED_SECONDS = 60 };
#endif
enum { JOBS_MAX = 16, FAILURES_MAX = 10 };

struct options {
    uint64_t first, seeds;
    unsigned jobs, failures_max;
    bool gates;
};

/* Shared with the children. */
struct board {
    uint64_t now[JOBS_MAX]; /* the seed that each is at */
    struct workload_counts counts[];
};

static const char *program;

static void job_run(const struct options *o, struct board *b, unsigned job, uint64_t from)
{
    for (uint64_t i = from; i < o->seeds; i += o->jobs) {
        b->now[job] = i;
        alarm(SEED_SECONDS);
        workload_run(o->first + i, &b->counts[i], false);
    }
}

static pid_t job_start(const struct options *o, struct board *b, unsigned job, uint64_t from)
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        job_run(o, b, job, from);
        _exit(0);
    }
    return pid;
}

static void tell_failure(const struct options *o, uint64_t i, int status)
{
    uint64_t seed = o->first + i;

    if (WIFSIGNALED(status))
        printf("seed %" PRIu64 " ended by signal %d%s\n", seed, WTERMSIG(status),
               WTERMSIG(status) == 14 ? " (no end)" : "");
    printf("replay with: %s --seed %" PRIu64 "\n", program, seed);
}

/* Runs all seeds; gives how many failed. A job that dies is started again behind the seed that killed it. */
static unsigned run_all(const struct options *o, struct board *b)
{
    pid_t pids[JOBS_MAX];
    unsigned failed = 0, running = 0;

    for (unsigned k = 0; k < o->jobs; k++, running++)
        pids[k] = job_start(o, b, k, k);
    while (running > 0) {
        int status;
        pid_t pid = wait(&status);
        unsigned k = 0;

        while (k < o->jobs && pids[k] != pid)
            k++;
        if (k == o->jobs)
            continue;
        running--;
        if (status == 0)
            continue;
        if (failed++ >= o->failures_max)
            continue;
        tell_failure(o, b->now[k], status);
        if (failed < o->failures_max && b->now[k] + o->jobs < o->seeds) {
            pids[k] = job_start(o, b, k, b->now[k] + o->jobs);
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

static uint32_t count_of(const struct workload_counts *c, size_t at)
{
    return ((const uint32_t *)c)[at];
}

/* What must have happened: in the median seed so often, or at least once in all of them. */
struct gate {
    const char *name;
    uint32_t median;
};
static const struct gate gates[] = { { "crashes", 3 },   { "in_recovery", 1 }, { "laps", 2 },
                                     { "reuses", 2 },    { "destages", 1 },    { "grown", 1 },
                                     { "sealed", 1 },    { "deleted", 1 },     { "kills", 1 },
                                     { "trims", 1 },     { "duplicates", 1 },  { "refused", 1 },
                                     { "rows_lost", 1 }, { "unloads", 1 } };

static uint32_t wanted_median(const char *name)
{
    for (unsigned i = 0; i < sizeof gates / sizeof gates[0]; i++)
        if (strcmp(gates[i].name, name) == 0)
            return gates[i].median;
    return 0;
}

/* Prints the table; gives how many gates were missed. */
static unsigned table(const struct options *o, const struct board *b)
{
    static const char *const names[][2] = {
#define X(name, text) { #name, text },
        WORKLOAD_COUNTS(X)
#undef X
    };
    uint32_t *values = malloc(o->seeds * sizeof *values);
    unsigned missed = 0;

    printf("%-45s %10s %10s %12s\n", "", "median", "most", "in all");
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        uint64_t all = 0;
        uint32_t median;
        bool bad;

        for (uint64_t i = 0; i < o->seeds; i++)
            all += values[i] = count_of(&b->counts[i], k);
        qsort(values, o->seeds, sizeof *values, by_value);
        median = values[o->seeds / 2];
        bad = all == 0 || median < wanted_median(names[k][0]);
        printf("%-45s %10" PRIu32 " %10" PRIu32 " %12" PRIu64 "%s\n", names[k][1], median,
               values[o->seeds - 1], all, bad ? "  TOO FEW" : "");
        missed += bad;
    }
    free(values);
    return missed;
}

static int many(const struct options *o)
{
    size_t bytes = sizeof(struct board) + o->seeds * sizeof(struct workload_counts);
    struct board *b = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned failed, missed = 0;

    if (b == MAP_FAILED)
        return 2;
    failed = run_all(o, b);
    if (failed == 0)
        missed = table(o, b);
    if (!o->gates)
        missed = 0;
    printf("%" PRIu64 " seeds from %" PRIu64 "\n", o->seeds, o->first);
    printf("%u passed, %u failed\n", failed + missed ? 0 : 1, failed + missed);
    return failed ? 1 : missed ? 2 : 0;
}

static uint64_t number(const char *text, uint64_t otherwise)
{
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
    struct options o = { .first = number(getenv("SIM_FIRST"), 1),
                         .seeds = number(getenv("SIM_SEEDS"), SEEDS),
                         .jobs = 2,
                         .failures_max = FAILURES_MAX,
                         .gates = true };

    program = argv[0];
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--first-failure") == 0) {
            o.failures_max = 1;
            continue;
        }
        if (strcmp(argv[i], "--no-gates") == 0) {
            o.gates = false;
            continue;
        }
        if (strcmp(argv[i], "--seed") == 0) {
            struct workload_counts c = { 0 };

            workload_run(number(next, 1), &c, true);
            printf("1 passed, 0 failed\n");
            return 0;
        }
        if (strcmp(argv[i], "--first") == 0)
            o.first = number(next, 1);
        else if (strcmp(argv[i], "--seeds") == 0)
            o.seeds = number(next, SEEDS);
        else if (strcmp(argv[i], "--jobs") == 0)
            o.jobs = (unsigned)number(next, 2);
        else
            return 2;
        i++;
    }
    if (o.jobs < 1 || o.jobs > JOBS_MAX || o.seeds < 1)
        return 2;
    logger_to(-1);
    return many(&o);
}
