/* One seed of the Kafka door in the simulator: the door over the real journal, on a disk that loses
 * and tears what was not synced, with clients that come and go in memory. What clients were told is
 * held against a model (kafka_sim_model.h). A broken promise ends the process with a line that
 * names the seed. */
#ifndef WEIR_TESTS_GATEWAYS_KAFKA_SIM_H
#define WEIR_TESTS_GATEWAYS_KAFKA_SIM_H

#include <stdbool.h>
#include <stdint.h>

/* What happened in a seed: X(name, text). */
#define KAFKA_SIM_COUNTS(X)                                                                        \
    X(lives, "starts")                                                                             \
    X(power_cuts, "power cuts")                                                                    \
    X(in_start, "of them while starting")                                                          \
    X(kills, "kills")                                                                              \
    X(stops, "orderly stops")                                                                      \
    X(rows_lost, "row stores lost")                                                                \
    X(checkpoints, "checkpoints")                                                                  \
    X(failed, "devices failed")                                                                    \
    X(requests, "requests")                                                                        \
    X(drops, "connections dropped by the client")                                                  \
    X(closed, "connections closed by the door")                                                    \
    X(created, "topics created")                                                                   \
    X(auto_created, "topics created by Metadata")                                                  \
    X(deleted, "topics deleted")                                                                   \
    X(grown, "topics grown")                                                                       \
    X(renamed, "names used again")                                                                 \
    X(unsure, "changes of topics without an answer")                                               \
    X(produced, "batches acked")                                                                   \
    X(unasked, "batches sent with acks 0")                                                         \
    X(idempotent, "batches of idempotent producers acked")                                         \
    X(repeated, "of them after a repeat")                                                          \
    X(duplicates, "of them found there already")                                                   \
    X(full, "batches refused by a full disk")                                                      \
    X(healed, "full disks healed by deleting")                                                     \
    X(fetches, "partitions fetched")                                                               \
    X(records, "batches fetched")                                                                  \
    X(recoded, "of them with another codec than they were sent with")                              \
    X(woken, "fetches that waited for data and got it")                                            \
    X(waited, "fetches that waited for nothing")                                                   \
    X(whole, "partitions read whole")                                                              \
    X(listed, "offsets listed")                                                                    \
    X(times, "times found")                                                                        \
    X(trims, "records deleted by request")                                                         \
    X(expired, "batches gone by age")                                                              \
    X(configured, "settings changed")                                                              \
    X(producers, "producer ids")                                                                   \
    X(commits, "offsets committed")                                                                \
    X(fetched_commits, "committed offsets read back")                                              \
    X(joins, "members joined")                                                                     \
    X(syncs, "assignments given")                                                                  \
    X(member_commits, "commits of members")                                                        \
    X(rejoins, "members sent to join again")

struct kafka_sim_counts {
#define X(name, text) uint32_t name;
    KAFKA_SIM_COUNTS(X)
#undef X
};

/* Runs a seed; gives a hash over all that happened. talk: says what it does on stderr. */
uint64_t kafka_sim_run(uint64_t seed, struct kafka_sim_counts *counts, bool talk);

#endif
