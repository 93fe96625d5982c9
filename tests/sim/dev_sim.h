/* A device over the simulator's disk: one incarnation of journal/io/dev.h, for one life of the
 * process.
 *
 * Blocking calls act at once and run no events. A request's io land in pieces, in any order, at
 * virtual times drawn from the disk's seed; then its files are flushed one after the other; then
 * done is posted. Requests do not wait for each other, on whatever queue: two that overlap may land
 * and be answered in any order. Memory of requests in flight is read until they are answered, or
 * until the disk crashes or is killed. */
#ifndef WEIR_TESTS_SIM_DEV_SIM_H
#define WEIR_TESTS_SIM_DEV_SIM_H

#include "tests/sim/disk_sim.h"
#include "tests/sim/loop_sim.h"

/* A new incarnation; those made before must have been crashed, killed, or be idle. */
int dev_sim_new(struct dev **out, struct sim *s, struct sim_disk *disk) MUST_USE;
/* Closes what files are still open; requests in flight are never answered and land no further. */
void dev_sim_free(struct dev *d);
/* Requests that are not answered yet, stuck ones too. */
unsigned dev_sim_in_flight(const struct dev *d);

#endif
