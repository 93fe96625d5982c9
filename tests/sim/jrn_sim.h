/* A journal in the simulator: stores (disk and rows), one per device, that outlive their process, and
 * one life of the process at a time.
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

enum { JRN_SIM_DEVICES = 3 };

/* One folder. The disks of a journal lose power together, and each draws for itself what survives. */
struct jrn_sim_device {
    struct sim_disk *disk;
    struct sim_rows_store *store;
    /* one life */
    struct dev *dev;
    struct rows *rows;
};

struct jrn_sim {
    struct sim *sim;
    struct jrn_sim_device devices[JRN_SIM_DEVICES];
    unsigned n_devices;
    unsigned order[JRN_SIM_DEVICES]; /* in which they are given to the journal */
    struct sim_disk *disk;           /* of devices[0], as what follows */
    struct sim_rows_store *store;
    struct journal_conf conf;
    struct jrn_assigner *assigner; /* NULL: the local one */
    unsigned n_loops;
    uint64_t seed;
    struct rng rng; /* the harness's own */
    /* one life */
    struct loop *loops[8];
    struct journal *j;
    struct store *st; /* of the device with number 0 */
    unsigned lives;
};

/* Tiny extents and budgets: 64 KiB WAL extents, a few of them before destage. capacity: bytes of
 * the disk. */
void jrn_sim_init(struct jrn_sim *js, uint64_t seed, uint64_t capacity, unsigned n_loops);
void jrn_sim_fini(struct jrn_sim *js);
/* One more device, empty, from the next opening on. */
void jrn_sim_add_device(struct jrn_sim *js, uint64_t capacity);
/* The store of a device, by its number. */
struct store *jrn_sim_store(const struct jrn_sim *js, unsigned number);
/* Opens the journal: 0 or what journal_open says (then there is no life). */
int jrn_sim_open(struct jrn_sim *js, struct err *e);
/* Closes in order. Runs the simulator. */
void jrn_sim_close(struct jrn_sim *js);
/* Power is cut now. rows_lost: the row store's folder of one device is gone too, each life another's. */
void jrn_sim_crash(struct jrn_sim *js, bool rows_lost);
/* The process is killed now; what its writes had reached is there, unsynced. rows_lost: as above.
 * */
void jrn_sim_kill(struct jrn_sim *js, bool rows_lost);

#endif
