/* What one device's journal counts of itself: the rows of its metrics (base/metric.h) and the calls
 * that add to them. Every call is cheap and may be made on any thread. */
#ifndef WEIR_JOURNAL_STATS_H
#define WEIR_JOURNAL_STATS_H

#include <stdint.h>

#include "base/metric.h"

struct store;
struct append;

enum stats_source { STATS_CACHE, STATS_WAL, STATS_SEGMENT, STATS_N_SOURCES };
/* As struct jrn_device_info says. */
enum stats_space {
    STATS_SPACE_WAL,
    STATS_SPACE_SEGMENT_LIVE,
    STATS_SPACE_SEGMENT_DEAD,
    STATS_SPACE_GRAVE,
    STATS_SPACE_FREE,
    STATS_N_SPACES
};

/* Owned by struct store; counters may be added to directly. */
struct stats {
    struct metric_set set;
    struct store *st;
    char labels[32];
    struct metric_hist
        *group_us; /* one a group, so that loops do not meet; append_us is their sum */
    /* appends */
    struct metric_hist append_us; /* accepted to durable */
    struct metric_counter appends, append_bytes, append_held, append_refused;
    struct metric_counter direct, direct_bytes; /* of these */
    struct metric_gauge backlog;
    /* the committer */
    struct metric_hist flush_us, block_bytes, block_batches;
    struct metric_counter wal_bytes;
    /* reads */
    struct metric_counter reads[STATS_N_SOURCES], read_bytes[STATS_N_SOURCES];
    struct metric_counter read_damaged;
    /* behind */
    struct metric_counter destage_rounds, destage_bytes, destage_failed;
    struct metric_hist destage_us;
    struct metric_counter rewrites, rewrite_bytes;
    struct metric_counter compact_rounds, compact_failed;
    struct metric_counter compact_before, compact_after;
    struct metric_counter rows_works, rows_failed;
    struct metric_hist rows_us;
    struct metric_gauge recovery_bytes, recovery_blocks, recovery_us;
    struct metric_gauge space[STATS_N_SPACES], segments, wal_extents, state;
    struct metric_gauge space_limit, throttle_us;
    /* scrub.h */
    struct metric_counter scrub_bytes, scrub_cycles, scrub_found, scrub_paused;
    struct metric_gauge scrub_damaged, scrub_cycle_us, scrub_done_permille;
};

/* Adds the set to the registry; device: its number. the store has its groups and its meter
 * (space.h) already. */
struct stats *stats_new(struct store *st, unsigned device);
void stats_free(struct stats *s);

/* An append is durable, or has failed; before it is freed. now_us: of its group's loop. */
void stats_append(const struct append *a, int rc, uint64_t now_us);
/* A block was flushed: it held so many batches and bytes, and took since began_us. */
void stats_block(struct store *st, uint64_t began_us, uint32_t bytes, uint32_t batches);
void stats_read(struct store *st, enum stats_source from, uint64_t bytes);
void stats_recovered(struct store *st, uint64_t bytes, uint64_t blocks, uint64_t us);

#endif
