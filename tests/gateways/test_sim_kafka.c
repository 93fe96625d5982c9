/* test-limit: 600
 *
 * The Kafka door over the journal under the simulator: many seeds of kafka_sim.h (tests/sim/seeds.h says what may be asked of this
 * program; KAFKA_SIM_SEEDS and KAFKA_SIM_FIRST in the environment). Besides, some seeds are run twice and must do the same. */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/gateways/kafka_sim.h"
#include "tests/sim/seeds.h"

#ifdef WEIR_SLOW_ASSERTS
enum { SEEDS = 200, SEED_SECONDS = 240 };
#else
enum { SEEDS = 1200, SEED_SECONDS = 60 };
#endif
enum { TWICE_EVERY = 25 };

static const struct seeds_row rows[] = {
#define X(name, text) { text, 0 },
    KAFKA_SIM_COUNTS(X)
#undef X
};

/* One seed is one run: everything comes from it. */
static void run_twice(uint64_t seed, uint64_t trace)
{
    struct kafka_sim_counts again = { 0 };

    if (kafka_sim_run(seed, &again, false) == trace)
        return;
    printf("seed %" PRIu64 ": the second run was another one\n", seed);
    fflush(stdout);
    _exit(1);
}

static void run(uint64_t seed, uint32_t *counts, bool talk)
{
    uint64_t trace = kafka_sim_run(seed, (struct kafka_sim_counts *)counts, talk);

    if (!talk && seed % TWICE_EVERY == 1)
        run_twice(seed, trace);
}

int main(int argc, char **argv)
{
    struct seeds s = { .env_seeds = "KAFKA_SIM_SEEDS",
                       .env_first = "KAFKA_SIM_FIRST",
                       .n = SEEDS,
                       .seconds = SEED_SECONDS,
                       .rows = rows,
                       .n_rows = sizeof rows / sizeof rows[0],
                       .run = run };

    return seeds_main(&s, argc, argv);
}
