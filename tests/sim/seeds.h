/* The main program of a simulation: many seeds in a few processes, what happened in them added up, and gates over that.
 *
 *     PROGRAM [--seed N] [--first N] [--seeds N] [--jobs N] [--no-gates] [--first-failure]
 *
 * --seed runs one seed, talking. The environment may say the same as --seeds and --first. It fails when a seed breaks a promise (its
 * process ends with a message), crashes or hangs, and when something did not happen as often as its row asks for. */
#ifndef WEIR_TESTS_SIM_SEEDS_H
#define WEIR_TESTS_SIM_SEEDS_H

#include <stdbool.h>
#include <stdint.h>

/* One thing that is counted; in all seeds together it must happen once, and in the median seed so often. */
struct seeds_row {
    const char *text;
    uint32_t median;
    bool may_miss; /* it need not happen at all */
};

struct seeds {
    const char *env_seeds, *env_first;
    uint64_t n;       /* seeds when nobody says otherwise */
    unsigned seconds; /* that one seed may take */
    const struct seeds_row *rows;
    unsigned n_rows;
    /* counts: n_rows numbers, in the order of the rows, zero at first. */
    void (*run)(uint64_t seed, uint32_t *counts, bool talk);
};

/* Gives the process's exit code: 0, 1: a seed failed, 2: a gate was missed, or the arguments are wrong. */
int seeds_main(const struct seeds *s, int argc, char **argv);

#endif
