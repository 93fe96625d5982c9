/* test-limit: 900
 *
 * The journal under the simulator: many seeds of tests/sim/workload.h (tests/sim/seeds.h says what may be asked of this program;
 * SIM_SEEDS and SIM_FIRST in the environment). */
#include "tests/sim/seeds.h"
#include "tests/sim/workload.h"

#ifdef WEIR_SLOW_ASSERTS
enum { SEEDS = 500, SEED_SECONDS = 240 };
#else
enum { SEEDS = 10000, SEED_SECONDS = 60 };
#endif

static const struct seeds_row rows[] = {
#define X(name, text, median) { text, median },
    WORKLOAD_COUNTS(X)
#undef X
};

static void run(uint64_t seed, uint32_t *counts, bool talk)
{
    workload_run(seed, (struct workload_counts *)counts, talk);
}

int main(int argc, char **argv)
{
    struct seeds s = { .env_seeds = "SIM_SEEDS",
                       .env_first = "SIM_FIRST",
                       .n = SEEDS,
                       .seconds = SEED_SECONDS,
                       .rows = rows,
                       .n_rows = sizeof rows / sizeof rows[0],
                       .run = run };

    return seeds_main(&s, argc, argv);
}
