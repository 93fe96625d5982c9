/* Every state that a power cut at this very moment may leave behind: each page with unsynced versions has its durable bytes, one of
 * the versions or, torn, sectors of any of them; a prefix of the unsynced changes of names holds; so does a prefix of the rows' unflushed
 * batches. Where all combinations are too many they are sampled: none, all, each page alone, each page missing, random ones, each with
 * a random prefix of names and rows, and torn pages. */
#ifndef WEIR_TESTS_SIM_CRASH_STATES_H
#define WEIR_TESTS_SIM_CRASH_STATES_H

#include "base/hash.h"
#include "tests/sim/rows_sim.h"

struct crash_states {
    const struct sim_disk *disk;
    const struct sim_rows_store *rows;
    struct rng rng;
    unsigned all_max; /* all combinations are tried when there are no more of them */
    unsigned samples; /* random ones otherwise */
    unsigned torn;    /* pages torn in each moment, at most */
    uint64_t stamp;   /* states are told apart from those that were tried with the same stamp */
    /* A state, settled: whatever is left is durable. Both are the callee's, to be freed. */
    void (*fn)(void *ctx, struct sim_disk *disk, struct sim_rows_store *rows);
    void *ctx;
    /* what has been done */
    struct hash seen;
    uint64_t moments, whole, states, torn_states,
        repeats; /* whole: moments with all combinations */
};

/* Tries the states of this moment. */
void crash_states_try(struct crash_states *c);
void crash_states_fini(struct crash_states *c);
/* A copy of a disk that nothing is unsynced on. */
struct sim_disk *crash_states_copy(const struct sim_disk *d, uint64_t seed);

#endif
