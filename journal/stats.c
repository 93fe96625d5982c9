#include "journal/stats.h"

#include <stdio.h>
#include <stdlib.h>

#include "journal/core.h"
#include "journal/store.h"

#define US        1e-6
#define AT(field) offsetof(struct stats, field)
#define ROW(name, kind, labels, field, scale, help)                                                \
    {                                                                                              \
        "weir_journal_" name, help, METRIC_##kind, labels, AT(field), scale                        \
    }

static const struct metric_row stats_rows[] = {
    ROW("append_duration_seconds", HIST, NULL, append_us, US,
        "From an append's acceptance to its durability."),
    ROW("appends_total", COUNTER, NULL, appends, 1, "Batches made durable."),
    ROW("append_bytes_total", COUNTER, NULL, append_bytes, 1, "Bytes of batches made durable."),
    ROW("direct_appends_total", COUNTER, NULL, direct, 1,
        "Of these, batches written once, straight to a segment."),
    ROW("direct_append_bytes_total", COUNTER, NULL, direct_bytes, 1, "Bytes of those."),
    ROW("appends_held_total", COUNTER, NULL, append_held, 1,
        "Appends that had to wait for space, or were slowed for it."),
    ROW("appends_refused_total", COUNTER, NULL, append_refused, 1,
        "Appends answered with an error."),
    ROW("backlog_bytes", GAUGE, NULL, backlog, 1, "Bytes accepted and not yet durable."),
    ROW("flush_duration_seconds", HIST, NULL, flush_us, US,
        "Writing one block and flushing the device."),
    ROW("block_size_bytes", HIST, NULL, block_bytes, 1, "Bytes of one block: one flush."),
    ROW("block_batches", HIST, NULL, block_batches, 1, "Batches in one block."),
    ROW("wal_written_bytes_total", COUNTER, NULL, wal_bytes, 1, "Bytes of blocks written."),
    ROW("reads_total", COUNTER, "source=\"cache\"", reads[STATS_CACHE], 1,
        "Pieces read, by where they were found."),
    ROW("reads_total", COUNTER, "source=\"wal\"", reads[STATS_WAL], 1, NULL),
    ROW("reads_total", COUNTER, "source=\"segment\"", reads[STATS_SEGMENT], 1, NULL),
    ROW("read_bytes_total", COUNTER, "source=\"cache\"", read_bytes[STATS_CACHE], 1,
        "Bytes given to readers, by where they were found."),
    ROW("read_bytes_total", COUNTER, "source=\"wal\"", read_bytes[STATS_WAL], 1, NULL),
    ROW("read_bytes_total", COUNTER, "source=\"segment\"", read_bytes[STATS_SEGMENT], 1, NULL),
    ROW("read_damaged_total", COUNTER, NULL, read_damaged, 1, "Reads that met damage."),
    ROW("destage_rounds_total", COUNTER, NULL, destage_rounds, 1, "Rounds of destage."),
    ROW("destage_bytes_total", COUNTER, NULL, destage_bytes, 1,
        "Bytes of batches moved from the WAL to segments."),
    ROW("destage_failed_total", COUNTER, NULL, destage_failed, 1, "Rounds that failed."),
    ROW("destage_duration_seconds", HIST, NULL, destage_us, US, "One round of destage."),
    ROW("rewrites_total", COUNTER, NULL, rewrites, 1, "Rewrites of segments."),
    ROW("rewrite_bytes_total", COUNTER, NULL, rewrite_bytes, 1, "Bytes written by rewrites."),
    ROW("compact_rounds_total", COUNTER, NULL, compact_rounds, 1,
        "Rounds of log compaction that came to their end."),
    ROW("compact_failed_total", COUNTER, NULL, compact_failed, 1, "Rounds that failed."),
    ROW("compact_before_bytes_total", COUNTER, NULL, compact_before, 1,
        "Bytes of batches that log compaction has written anew."),
    ROW("compact_after_bytes_total", COUNTER, NULL, compact_after, 1,
        "Bytes of what it has left of them."),
    ROW("rows_writes_total", COUNTER, NULL, rows_works, 1, "Pieces of work on the rows."),
    ROW("rows_failed_total", COUNTER, NULL, rows_failed, 1, "Those that failed."),
    ROW("rows_write_duration_seconds", HIST, NULL, rows_us, US, "One piece of work on the rows."),
    ROW("recovery_bytes", GAUGE, NULL, recovery_bytes, 1, "WAL read by this start."),
    ROW("recovery_blocks", GAUGE, NULL, recovery_blocks, 1, "Blocks read by this start."),
    ROW("recovery_duration_seconds", GAUGE, NULL, recovery_us, US,
        "Time that recovery took at this start."),
    ROW("space_bytes", GAUGE, "state=\"wal\"", space[STATS_SPACE_WAL], 1,
        "Bytes of slabs, by what they are used for."),
    ROW("space_bytes", GAUGE, "state=\"segment_live\"", space[STATS_SPACE_SEGMENT_LIVE], 1, NULL),
    ROW("space_bytes", GAUGE, "state=\"segment_dead\"", space[STATS_SPACE_SEGMENT_DEAD], 1, NULL),
    ROW("space_bytes", GAUGE, "state=\"grave\"", space[STATS_SPACE_GRAVE], 1, NULL),
    ROW("space_bytes", GAUGE, "state=\"free\"", space[STATS_SPACE_FREE], 1, NULL),
    ROW("space_limit_bytes", GAUGE, NULL, space_limit, 1,
        "Bytes that all slabs may come to, of which the marks are parts."),
    ROW("throttle_seconds", GAUGE, NULL, throttle_us, US,
        "How long each append is held, because space is short."),
    ROW("segments", GAUGE, NULL, segments, 1, "Segments, those that are still open included."),
    ROW("wal_extents", GAUGE, NULL, wal_extents, 1, "Extents of the live WAL."),
    ROW("state", GAUGE, NULL, state, 1, "0: serving, 1: full, 2: failed."),
    ROW("scrub_bytes_total", COUNTER, NULL, scrub_bytes, 1, "Bytes read by the scrub."),
    ROW("scrub_cycles_total", COUNTER, NULL, scrub_cycles, 1, "Cycles of the scrub completed."),
    ROW("scrub_found_total", COUNTER, NULL, scrub_found, 1, "Damaged places found by the scrub."),
    ROW("scrub_paused_total", COUNTER, NULL, scrub_paused, 1,
        "Times that the scrub gave way to appends."),
    ROW("scrub_damaged", GAUGE, NULL, scrub_damaged, 1,
        "Damaged places that the last whole cycle met."),
    ROW("scrub_cycle_duration_seconds", GAUGE, NULL, scrub_cycle_us, US,
        "Time that the last whole cycle took."),
    ROW("scrub_progress_ratio", GAUGE, NULL, scrub_done_permille, 1e-3,
        "How far the present cycle is."),
};

/* What is not kept up to date as it changes. */
static void refresh(struct metric_set *set)
{
    struct stats *s = (struct stats *)((char *)set - offsetof(struct stats, set));
    struct store *st = s->st;
    struct jrn_device_info info;

    metric_hist_clear(&s->append_us);
    for (unsigned i = 0; i < st->n_groups; i++)
        metric_hist_merge(&s->append_us, &s->group_us[i]);
    store_info(st, &info);
    metric_set(&s->space[STATS_SPACE_WAL], (int64_t)info.wal);
    metric_set(&s->space[STATS_SPACE_SEGMENT_LIVE], (int64_t)info.segment_live);
    metric_set(&s->space[STATS_SPACE_SEGMENT_DEAD], (int64_t)info.segment_dead);
    metric_set(&s->space[STATS_SPACE_GRAVE], (int64_t)info.grave);
    metric_set(&s->space[STATS_SPACE_FREE], (int64_t)info.free);
    metric_set(&s->space_limit, (int64_t)info.limit);
    metric_set(&s->throttle_us, info.throttle_us);
    pthread_mutex_lock(&st->segments.lock);
    metric_set(&s->segments, (int64_t)st->segments.by_id.count);
    pthread_mutex_unlock(&st->segments.lock);
    metric_set(&s->wal_extents, wal_live(&st->wal).n_extents);
    metric_set(&s->backlog, (int64_t)info.backlog);
    metric_set(&s->state, (int64_t)info.state);
}

struct stats *stats_new(struct store *st, unsigned device)
{
    struct stats *s = mem_new(sizeof *s);

    s->st = st;
    s->group_us = mem_new(st->n_groups * sizeof *s->group_us);
    snprintf(s->labels, sizeof s->labels, "device=\"%u\"", device);
    s->set = (struct metric_set){ .rows = stats_rows,
                                  .n_rows = sizeof stats_rows / sizeof stats_rows[0],
                                  .base = s,
                                  .labels = s->labels,
                                  .refresh = refresh };
    metric_set_add(&s->set);
    return s;
}

void stats_free(struct stats *s)
{
    if (!s)
        return;
    metric_set_remove(&s->set);
    free(s->group_us);
    free(s);
}

void stats_append(const struct append *a, int rc, uint64_t now_us)
{
    struct jrn_group *g = a->group;
    struct store *st = g->st;

    if (rc < 0) {
        metric_add(&st->stats->append_refused, 1);
    } else if (a->batch && a->began_us) {
        metric_observe(&st->stats->group_us[g->id], now_us - a->began_us);
        metric_add(&st->stats->appends, 1);
        metric_add(&st->stats->append_bytes, a->bytes);
        if (a->direct) {
            metric_add(&st->stats->direct, 1);
            metric_add(&st->stats->direct_bytes, a->bytes);
        }
    }
}

void stats_block(struct store *st, uint64_t began_us, uint32_t bytes, uint32_t batches)
{
    struct stats *s = st->stats;

    metric_observe(&s->flush_us, loop_now_us(st->env.commit_loop) - began_us);
    metric_observe(&s->block_bytes, bytes);
    metric_observe(&s->block_batches, batches);
    metric_add(&s->wal_bytes, bytes);
}

void stats_read(struct store *st, enum stats_source from, uint64_t bytes)
{
    metric_add(&st->stats->reads[from], 1);
    metric_add(&st->stats->read_bytes[from], bytes);
}

void stats_recovered(struct store *st, uint64_t bytes, uint64_t blocks, uint64_t us)
{
    metric_set(&st->stats->recovery_bytes, (int64_t)bytes);
    metric_set(&st->stats->recovery_blocks, (int64_t)blocks);
    metric_set(&st->stats->recovery_us, (int64_t)us);
}
