/* Rows (journal/io/rows.h) that crash: a store in memory that outlives the process, and the handles
 * on it, one for each life.
 *
 * A write shows at once; a flush makes all before it durable. A crash keeps the flushed ones and
 * some of the batches after them, from the oldest on, each whole with its LSN, as RocksDB may at
 * any time have flushed on its own. */
#ifndef WEIR_TESTS_SIM_ROWS_SIM_H
#define WEIR_TESTS_SIM_ROWS_SIM_H

#include "journal/io/rows.h"
#include "tests/sim/disk_sim.h"

struct sim_rows_store;

struct sim_rows_counts {
    uint64_t writes, flushes, crashes, lost_batches, lost_stores;
};

/* disk: whose power it shares; every write, flush and clear is one operation of it, E_IO when power
 * is gone. May be NULL. */
struct sim_rows_store *sim_rows_store_new(struct sim_disk *disk);
void sim_rows_store_free(struct sim_rows_store *s);
/* The process dies, by power or by kill. lost: the whole store is gone. Handles opened before
 * answer E_IO to everything. */
void sim_rows_crash(struct sim_rows_store *s, struct rng *r, bool lost);
/* Opens a handle for this life; to be closed, before or after the crash that ends it, while the
 * store is there. */
int rows_sim_open(struct rows **out, struct sim_rows_store *s) MUST_USE;

/* Another store over another disk, with what is flushed and the first `keep` batches behind it, all durable. */
struct sim_rows_store *sim_rows_store_copy(const struct sim_rows_store *s, struct sim_disk *disk,
                                           unsigned keep);
/* Batches ever written: with the number of those taken back, it names a state. */
uint64_t sim_rows_serial(const struct sim_rows_store *s);

/* Batches that a crash may lose. */
unsigned sim_rows_unflushed(const struct sim_rows_store *s);
const struct sim_rows_counts *sim_rows_counts(const struct sim_rows_store *s);

#endif
