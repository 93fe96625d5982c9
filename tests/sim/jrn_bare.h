/* The journal's lower modules without a journal: a simulated device, slabs, the table of segments,
 * and as much of struct journal as they look at. */
#ifndef WEIR_TESTS_SIM_JRN_BARE_H
#define WEIR_TESTS_SIM_JRN_BARE_H

#include "journal/core.h"
#include "tests/sim/dev_sim.h"

struct jrn_bare {
    struct sim *sim;
    struct sim_disk *disk;
    struct journal *j; /* dev, slabs, segments, super.store, wal_log2, keeper */
};

/* capacity: bytes of the disk, 0: no limit. No slab exists yet; sizes of slabs are 1 MiB to
 * 4 MiB, and WAL extents are of 128 KiB, until the test says otherwise. */
void jrn_bare_init(struct jrn_bare *b, uint64_t seed, uint64_t capacity);
void jrn_bare_fini(struct jrn_bare *b);
/* Closes device, slabs and segments, and opens them again over the same disk; what slabs_open
 * says. crash: power is cut between. */
int jrn_bare_reopen(struct jrn_bare *b, bool crash, struct err *e) MUST_USE;

#endif
