/* One seed of the simulator: a journal on a disk that loses and tears what was not synced, random work, crashes, faults and rot, and
 * the model's promises checked all along (model.h). A broken promise ends the process with a line that names the seed. */
#ifndef WEIR_TESTS_SIM_WORKLOAD_H
#define WEIR_TESTS_SIM_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

/* What happened in a seed: X(name, text, how often in the median seed at least). */
#define WORKLOAD_COUNTS(X)                                                                         \
    X(crashes, "power cuts", 3)                                                                    \
    X(in_recovery, "of them during recovery", 1)                                                   \
    X(kills, "kills", 1)                                                                           \
    X(closes, "orderly closes", 0)                                                                 \
    X(rows_lost, "row stores lost", 1)                                                             \
    X(laps, "laps of the WAL over its budget", 2)                                                  \
    X(reuses, "uses of one extent by the WAL after the first", 2)                                  \
    X(destages, "destages and checkpoints", 1)                                                     \
    X(direct, "KiB written directly to segments", 1)                                               \
    X(opens_found, "open segments found by recovery", 1)                                           \
    X(grown, "slabs grown", 1)                                                                     \
    X(sealed, "segments sealed", 1)                                                                \
    X(deleted, "segments deleted", 1)                                                              \
    X(appends, "appends", 0)                                                                       \
    X(durable, "answered durable", 0)                                                              \
    X(duplicates, "answered as duplicates", 1)                                                     \
    X(refused, "refused by sequence or epoch", 1)                                                  \
    X(full, "answered no space", 0)                                                                \
    X(throttled, "moments in which producers were slowed", 0)                                      \
    X(healed, "full devices healed by deletions", 0)                                               \
    X(reads, "reads", 0)                                                                           \
    X(cold, "reads of what is in segments", 0)                                                     \
    X(finds, "times found", 0)                                                                     \
    X(waits, "waits answered with data", 0)                                                        \
    X(kept, "records left in what was compacted", 0)                                               \
    X(cleaned, "of so many", 0)                                                                    \
    X(trims, "trims", 1)                                                                           \
    X(expired, "starts moved by retention", 0)                                                     \
    X(policies, "policies of shards with data changed", 0)                                         \
    X(updates, "updates", 0)                                                                       \
    X(gets, "keys found", 0)                                                                       \
    X(keys_checked, "indexes of keys compared with the log", 0)                                    \
    X(ring_starts, "shards in memory begun anew", 0)                                               \
    X(elsewhere, "shards on another device than the first", 1)                                     \
    X(shards_deleted, "shards deleted", 0)                                                         \
    X(let_go, "handles let go", 1)                                                                 \
    X(unloads, "shards unloaded", 0)                                                               \
    X(faults, "faults that failed the device", 0)                                                  \
    X(rotten, "bits rotted", 0)                                                                    \
    X(rotten_direct, "of them in what was written to open segments", 0)                            \
    X(read_only, "groups made read-only by rot", 0)                                                \
    X(accepted, "losses accepted", 0)                                                              \
    X(lost_reads, "reads answered lost", 0)                                                        \
    X(scrubbed, "cycles of the scrub", 0)                                                          \
    X(scrub_found, "damaged places found by the scrub", 0)                                         \
    X(scrub_seen, "rotten segments that a scrub had to find", 0)

struct workload_counts {
#define X(name, text, median) uint32_t name;
    WORKLOAD_COUNTS(X)
#undef X
};

/* Runs a seed. talk: says what it does on stderr. */
void workload_run(uint64_t seed, struct workload_counts *counts, bool talk);

#endif
