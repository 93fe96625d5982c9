/* One seed of the simulator: a journal on a disk that loses and tears what was not synced, random work, crashes, faults and rot, and
 * the model's promises checked all along (model.h). A broken promise ends the process with a line that names the seed. */
#ifndef WEIR_TESTS_SIM_WORKLOAD_H
#define WEIR_TESTS_SIM_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

/* What happened in a seed: X(name, text). */
#define WORKLOAD_COUNTS(X)                                                                         \
    X(crashes, "power cuts")                                                                       \
    X(in_recovery, "of them during recovery")                                                      \
    X(kills, "kills")                                                                              \
    X(closes, "orderly closes")                                                                    \
    X(rows_lost, "row stores lost")                                                                \
    X(laps, "laps of the WAL over its budget")                                                     \
    X(reuses, "uses of one extent by the WAL after the first")                                     \
    X(destages, "destages and checkpoints")                                                        \
    X(grown, "slabs grown")                                                                        \
    X(sealed, "segments sealed")                                                                   \
    X(deleted, "segments deleted")                                                                 \
    X(appends, "appends")                                                                          \
    X(durable, "answered durable")                                                                 \
    X(duplicates, "answered as duplicates")                                                        \
    X(refused, "refused by sequence or epoch")                                                     \
    X(full, "answered no space")                                                                   \
    X(healed, "full devices healed by deletions")                                                  \
    X(reads, "reads")                                                                              \
    X(cold, "reads of what is in segments")                                                        \
    X(finds, "times found")                                                                        \
    X(waits, "waits answered with data")                                                           \
    X(trims, "trims")                                                                              \
    X(updates, "updates")                                                                          \
    X(shards_deleted, "shards deleted")                                                            \
    X(let_go, "handles let go")                                                                    \
    X(unloads, "shards unloaded")                                                                  \
    X(faults, "faults that failed the device")                                                     \
    X(rotten, "bits rotted")                                                                       \
    X(read_only, "groups made read-only by rot")                                                   \
    X(accepted, "losses accepted")                                                                 \
    X(lost_reads, "reads answered lost")

struct workload_counts {
#define X(name, text) uint32_t name;
    WORKLOAD_COUNTS(X)
#undef X
};

/* Runs a seed. talk: says what it does on stderr. */
void workload_run(uint64_t seed, struct workload_counts *counts, bool talk);

#endif
