/* A journal in the simulator: one store (disk and rows) that outlives its process, and one life of
 * the process at a time.
 *
 *   struct jrn_sim js;
 *   jrn_sim_init(&js, seed, capacity, loops);
 *   jrn_sim_open(&js);  ... shard_append etc., sim_run_until ...  jrn_sim_close(&js) or
 *   jrn_sim_crash(&js)
 *   jrn_sim_fini(&js);
 *
 * A crash is power off, run until the journal has answered everything and let go (all with errors:
 * nothing is acked once power is
 * gone), then the disk and the rows draw what survives. */
#ifndef WEIR_TESTS_SIM_JRN_SIM_H
#define WEIR_TESTS_SIM_JRN_SIM_H

#include "journal/journal.h"
#include "tests/sim/dev_sim.h"
#include "tests/sim/rows_sim.h"

struct jrn_sim {
    struct sim *sim;
    struct sim_disk *disk;
    struct sim_rows_store *store;
    struct journal_conf conf;
    unsigned n_loops;
    uint64_t seed;
    struct rng rng; /* the harness's own */
    /* one life */
    struct dev *dev;
    struct rows *rows;
    struct loop *loops[8];
    struct journal *j;
    struct store *st; /* what is behind j */
    unsigned lives;
};

/* Tiny extents and budgets: 64 KiB WAL extents, a few of them before destage. capacity: bytes of
 * the disk. */
void jrn_sim_init(struct jrn_sim *js, uint64_t seed, uint64_t capacity, unsigned n_loops);
void jrn_sim_fini(struct jrn_sim *js);
/* Opens the journal: 0 or what journal_open says (then there is no life). */
int jrn_sim_open(struct jrn_sim *js, struct err *e);
/* Closes in order. Runs the simulator. */
void jrn_sim_close(struct jrn_sim *js);
/* Power is cut now. rows_lost: the row store's folder is gone too. */
void jrn_sim_crash(struct jrn_sim *js, bool rows_lost);
/* The process is killed now; what its writes had reached is there, unsynced. rows_lost: as above.
 * */
void jrn_sim_kill(struct jrn_sim *js, bool rows_lost);

#endif
