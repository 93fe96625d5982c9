#include "tests/sim/workload_int.h"

#include <stdlib.h>
#include <string.h>

#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/destage.h"
#include "journal/compact.h"
#include "journal/devices.h"
#include "journal/retention.h"
#include "journal/rewrite.h"
#include "journal/scrub.h"
#include "journal/space.h"
#include "journal/stats.h"
#include "tests/sim/compacted.h"
#include "journal/store.h"

bool workload_group_read_only(const struct workload *w, uint64_t group)
{
    for (unsigned i = 0; i < w->rot.n_groups; i++)
        if (w->rot.groups[i] == group)
            return true;
    return false;
}

/* --- after a start --- */

/* Where reading can go on after damage. */
static uint64_t past_damage(const struct model_shard *s, uint64_t at, uint64_t end)
{
    for (unsigned i = 0; i < s->n_lost; i++)
        if (at >= s->lost[i].start && at < s->lost[i].end)
            return s->lost[i].end < end ? s->lost[i].end : end;
    return end;
}

/* Reads a shard from its start to its end. Every batch of the log must be met, and no other; of a compacted shard what compaction must
 * leave, and when it is clean no more than that. */
static void read_whole(struct workload *w, struct model_shard *s, bool clean)
{
    uint64_t start = shard_start(s->handle), end = shard_end(s->handle), at = start;
    bool compacted = s->compacted;
    struct compacted_seen seen = { 0 };

    if (compacted)
        compacted_begin(w, s, &seen);
    while (at < end) {
        struct op *op = workload_read(w, s, at, 1 + (uint32_t)below(w, w->big_reads), true, true);
        struct read_done *d = &op->u.read;

        workload_op_wait(w, op);
        if (d->rc == E_LOST) {
            at = past_damage(s, at, end);
        } else if (d->rc == E_RANGE && shard_start(s->handle) > at) {
            at = shard_start(s->handle); /* retention was faster */
        } else if (d->rc < 0) {
            if (!w->faulty || d->rc != E_IO)
                workload_read_wrong(op, "the shard cannot be read whole");
            read_done_release(d);
            workload_op_free(op);
            free(seen.there);
            return;
        }
        for (unsigned i = 0; d->rc >= 0 && i < d->n_slices; i++) {
            const uint8_t *mem = d->slices[i].mem;
            uint32_t left = d->slices[i].len;

            while (left > 0) {
                struct batch_head h;

                if (batch_head_read(&h, mem, left) < 0)
                    workload_read_wrong(op, "not a batch");
                at = (uint64_t)h.base_offset + (uint64_t)h.last_offset_delta + 1;
                if (compacted)
                    compacted_see(&seen, mem, &h);
                mem += h.bytes;
                left -= h.bytes;
            }
        }
        if (d->rc >= 0 && d->bytes == 0)
            workload_read_wrong(op, "stuck");
        read_done_release(d);
        workload_op_free(op);
    }
    if (compacted)
        compacted_check(w, s, &seen, clean);
    free(seen.there);
}

/* The record that the answer must be, from the log of a shard all of which is known. */
static bool time_expected(const struct model_shard *s, uint64_t start, int64_t time,
                          uint64_t *offset, int64_t *ts)
{
    bool found = false;

    for (unsigned i = model_find(s, start); i < s->n_log; i++) {
        const struct sent *x = s->log[i];

        for (unsigned k = 0; k < x->n_records; k++) {
            bool better = time == SHARD_TIME_MAX ? !found || x->ts[k] > *ts : x->ts[k] >= time;

            if (x->offset + k < start || !better)
                continue;
            *offset = x->offset + k;
            *ts = x->ts[k];
            found = true;
            if (time != SHARD_TIME_MAX)
                return true;
        }
    }
    return found;
}

/* At rest, right after the shard was read whole: the answer is known. */
static void find_checked(struct workload *w, struct model_shard *s)
{
    struct op *op = workload_find(w, s, true);
    const struct find_time *f = &op->u.find;
    uint64_t offset = 0, start = shard_start(s->handle);
    int64_t ts = 0;
    bool found = time_expected(s, start, f->time, &offset, &ts);

    workload_op_wait(w, op);
    if (s->compacted)
        compacted_check_time(w, s, f);
    else if (f->rc >= 0 && s->n_lost == 0 && start == shard_start(s->handle) &&
             (f->found != found || (found && (f->offset != offset || f->timestamp != ts))))
        model_fail(&w->m,
                   "shard %" PRIu64 ": time %" PRId64 " is %s offset %" PRIu64 " (%" PRId64
                   "), not %s %" PRIu64 " (%" PRId64 ")",
                   s->id, f->time, f->found ? "at" : "not at", f->offset, f->timestamp,
                   found ? "at" : "anywhere", offset, ts);
    workload_op_free(op);
}

void workload_check_range(struct workload *w, struct model_shard *s)
{
    uint64_t start, end = shard_end(s->handle);

    workload_expire(w, s);
    start = shard_start(s->handle);
    if (start > s->start_min)
        w->n->expired++;
    if (start < s->start_min || start > s->start_max)
        model_fail(&w->m, "shard %" PRIu64 ": start %" PRIu64 " is not in %" PRIu64 "..%" PRIu64,
                   s->id, start, s->start_min, s->start_max);
    for (uint64_t at = end; at < s->end_seen; at++)
        if (!model_may_be_lost(s, at))
            model_fail(&w->m, "shard %" PRIu64 ": ends at %" PRIu64 ", but readers saw %" PRIu64,
                       s->id, end, s->end_seen);
}

struct rows_found {
    struct workload *w;
    uint64_t rows[MODEL_KEYS];
};

static int row_found(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct rows_found *f = ctx;
    const uint8_t *k = key;

    if (key_bytes != 2 || k[1] >= MODEL_KEYS || value_bytes != sizeof(uint64_t))
        model_fail(&f->w->m, "a row that nobody put");
    memcpy(&f->rows[k[1]], value, sizeof(uint64_t));
    return 0;
}

static void rows_check(struct workload *w, const bool *exists)
{
    struct shard_policy policies[MODEL_SHARDS_MAX] = { 0 };
    struct rows_found f = { .w = w };

    for (unsigned i = 0; i < w->m.n_shards; i++) {
        policies[i] = w->m.shards[i].policy; /* as good as found, of what has no handle now */
        if (w->m.shards[i].handle)
            shard_policy(w->m.shards[i].handle, &policies[i]);
    }
    if (journal_rows_scan(w->js.j, "T", 1, row_found, &f) < 0)
        model_fail(&w->m, "rows cannot be read");
    model_match(&w->m, f.rows, exists, policies);
}

static bool group_accepted(const struct workload *w, uint64_t group)
{
    for (unsigned i = 0; i < w->n_accept; i++)
        if (w->accept[i] == group)
            return true;
    return false;
}

/* The operator has accepted: the shards of the groups go on above all that may have been used. */
static void accepted_check(struct workload *w)
{
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];
        uint64_t end;

        if (!s->handle || !group_accepted(w, s->group) || s->kind == SHARD_MEMORY)
            continue;
        end = shard_end(s->handle);
        for (unsigned k = 0; k < s->n_lost; k++)
            if (s->lost[k].end > end)
                model_fail(&w->m,
                           "shard %" PRIu64 ": accepted, and goes on at %" PRIu64 ", but %" PRIu64
                           " was handed out",
                           s->id, end, s->lost[k].end);
        if (end > s->end_seen)
            model_lose(s, s->end_seen, end);
    }
}

static bool is_latent(const struct workload *w, uint64_t group)
{
    for (unsigned i = 0; i < w->rot.n_latent; i++)
        if (w->rot.latent[i] == group)
            return true;
    return false;
}

void workload_check_read_only(struct workload *w)
{
    struct rot_report now = { .catalogue = w->rot.catalogue, .end_lsn = w->rot.end_lsn };

    for (unsigned k = 0; k < journal_n_devices(w->js.j); k++) {
        struct store *st = jrn_sim_store(&w->js, k);

        for (unsigned i = 0; i < st->n_groups; i++) {
            uint64_t group = (uint64_t)k << DEVICE_SHIFT | i;
            bool is = atomic_load(&st->groups[i]->read_only), latent = is_latent(w, group);
            bool may = workload_group_read_only(w, group);

            if (!is && (may || latent) && st->super.ckpt_lsn < now.end_lsn)
                now.latent[now.n_latent++] = group;
            if (is ? !may && !latent : may && w->rot.certain)
                model_fail(&w->m, "group %u of device %u is %s", i, k,
                           is ? "read-only without a loss" : "writable over a loss");
            w->n->read_only += is;
            if (is)
                now.groups[now.n_groups++] = group;
        }
    }
    w->rot = now;
}

static void policy_check(struct workload *w, const struct model_shard *s)
{
    struct shard_policy p;

    shard_policy(s->handle, &p);
    if (p.flags != s->policy.flags || p.retention_ms != s->policy.retention_ms ||
        p.retention_bytes != s->policy.retention_bytes ||
        p.min_compaction_lag_ms != s->policy.min_compaction_lag_ms ||
        p.delete_retention_ms != s->policy.delete_retention_ms)
        model_fail(&w->m,
                   "shard %" PRIu64 ": policy %u %" PRId64 " %" PRId64 ", not %u %" PRId64
                   " %" PRId64,
                   s->id, p.flags, p.retention_ms, p.retention_bytes, s->policy.flags,
                   s->policy.retention_ms, s->policy.retention_bytes);
}

/* At rest, right after the shard was read whole: every key is where the log says. */
static void keys_checked(struct workload *w, struct model_shard *s)
{
    if (s->kind != SHARD_ROCKSDB || s->n_lost > 0)
        return;
    w->n->keys_checked++;
    for (int key = 0; key < MODEL_RECORD_KEYS; key++) {
        struct op *op = workload_get(w, s, key, true);
        const struct shard_get *g = &op->u.get;
        unsigned record = 0;
        uint64_t start = shard_start(s->handle);
        const struct sent *x = model_latest(s, key, start, &record);

        workload_op_wait(w, op);
        if (x && x->tombstone[record])
            x = NULL;
        /* Retention was faster; or perhaps a tombstone followed that nobody met. */
        if (start != shard_start(s->handle) ||
            (s->compacted && x && compacted_unknown(s, x->offset, shard_end(s->handle)))) {
            workload_op_free(op);
            continue;
        }
        if (g->rc == E_NOTFOUND
                ? x != NULL
                : g->rc >= 0 && (!x || (uint64_t)g->record.offset != x->offset + record))
            workload_get_wrong(op, "not what the log says");
        workload_op_free(op);
    }
}

/* A shard in memory after a start: empty, above every offset that was given. */
static void ring_checked(struct workload *w, struct model_shard *s)
{
    uint64_t end = shard_end(s->handle);

    if (shard_start(s->handle) != end || end < s->handed)
        model_fail(&w->m,
                   "shard %" PRIu64 " in memory begins at %" PRIu64 "..%" PRIu64 ", but %" PRIu64
                   " were given",
                   s->id, shard_start(s->handle), end, s->handed);
    w->n->ring_starts++;
    s->start_min = end;
    model_end(&w->m, s, end);
}

/* After a start: what is there must be explained by what was promised. */
void workload_check_recovered(struct workload *w)
{
    bool exists[MODEL_SHARDS_MAX];

    for (unsigned i = 0; i < w->m.n_shards; i++)
        exists[i] = workload_handle_open(w, &w->m.shards[i]);
    rows_check(w, exists);
    accepted_check(w);
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (!exists[i])
            continue;
        policy_check(w, s);
        if (s->kind == SHARD_MEMORY) {
            ring_checked(w, s);
            continue;
        }
        workload_check_range(w, s);
        read_whole(w, s, false);
        workload_expire(w, s);
        model_settle(&w->m, s, shard_start(s->handle));
        model_end(&w->m, s, shard_end(s->handle));
        keys_checked(w, s);
        if (chance(w, 1, 4))
            find_checked(w, s);
    }
}

/* --- at rest --- */

static bool store_quiet(struct store *st)
{
    return catalogue_idle(st->catalogue) && !st->rows_running && !st->rows_first &&
           !space_busy(st->meter) && destage_idle(st->destage) && rewrite_idle(st->rewrite) &&
           compact_idle(st->compact) && retention_idle(st->retention) && scrub_idle(st->scrub) &&
           store_backlog(st) == 0 && atomic_load(&st->busy) == 0;
}

static bool is_quiet(void *ctx)
{
    struct workload *w = ctx;

    for (const struct op *op = w->ops; op; op = op->next)
        if (op->kind != OP_WAIT)
            return false;
    for (unsigned i = 0; i < journal_n_devices(w->js.j); i++)
        if (!store_quiet(jrn_sim_store(&w->js, i)))
            return false;
    return true;
}

static int sum_run_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                       size_t value_bytes)
{
    struct hash *sums = ctx;
    struct row_run run;

    if (((const uint8_t *)key)[0] != ROW_RUN)
        return 1;
    if (row_run_read(&run, value, value_bytes) < 0)
        return E_CORRUPT;
    hash_put(sums, run.segment,
             (void *)((uintptr_t)hash_get(sums, run.segment) + (uintptr_t)run.bytes));
    return 0;
}

/* Every unit is free, or the WAL's, or a segment's; and segments know how much of them is alive. */
static void space_check(struct workload *w, struct store *st)
{
    uint64_t total, free_bytes, pos = 0, used = 0;
    uint8_t table = ROW_RUN;
    struct hash sums = { 0 };
    void *value;

    slabs_space(&st->slabs, &total, &free_bytes);
    used = (uint64_t)(st->wal.n + committer_spare(st->committer) +
                      committer_spare_direct(st->committer))
           << st->wal_log2;
    if (rows_scan(st->rows, &table, 1, false, sum_run_row, &sums) < 0)
        model_fail(&w->m, "rows cannot be read");
    while (hash_next(&st->segments.by_id, &pos, NULL, &value)) {
        const struct segment *seg = value;

        used += segment_space(&seg->row);
        if (!seg->open && seg->live != (uintptr_t)hash_get(&sums, seg->id))
            model_fail(&w->m,
                       "segment %" PRIx64 ": %" PRIu64 " bytes alive, but its runs are %" PRIu64,
                       seg->id, seg->live, (uint64_t)(uintptr_t)hash_get(&sums, seg->id));
    }
    hash_free(&sums);
    if (free_bytes + used != total)
        model_fail(&w->m, "%" PRIu64 " bytes free and %" PRIu64 " used are not %" PRIu64,
                   free_bytes, used, total);
}

void workload_disks_unstick(struct workload *w)
{
    for (unsigned i = 0; i < w->js.n_devices; i++)
        sim_disk_unstick(w->js.devices[i].disk);
}

static void settle_down(struct workload *w)
{
    bool quiet = false;

    /* A request may get stuck after others were let go. */
    for (unsigned i = 0; !quiet && i < 8; i++) {
        workload_disks_unstick(w);
        quiet = workload_run_until(w, is_quiet, w);
    }
    if (!quiet)
        model_fail(&w->m,
                   "does not come to rest: %u operations open, catalogue %d rows %d growing %d "
                   "destage %d backlog %" PRIu64,
                   w->n_ops, !catalogue_idle(w->js.st->catalogue), w->js.st->rows_running,
                   space_busy(w->js.st->meter), !destage_idle(w->js.st->destage),
                   journal_backlog(w->js.j));
    workload_watch(w);
}

static void check_waits(struct workload *w)
{
    for (const struct op *op = w->ops; op; op = op->next)
        if (op->kind == OP_WAIT && op->s->handle && shard_end(op->s->handle) > op->u.wait.past &&
            op->s->exists == SHARD_LIVE)
            model_fail(&w->m,
                       "shard %" PRIu64 ": a wait past %" PRIu64
                       " sleeps though the end is %" PRIu64,
                       op->s->id, op->u.wait.past, shard_end(op->s->handle));
}

/* --- the scrub --- */

struct cycles {
    struct store *st;
    uint64_t until;
};

static bool cycles_done(void *ctx)
{
    const struct cycles *c = ctx;

    return metric_count(&c->st->stats->scrub_cycles) >= c->until;
}

static const struct segment *rotten_segment(const struct workload *w)
{
    const struct segment *seg = hash_get(&w->js.st->segments.by_id, w->rotten_segment);

    return seg && !seg->open ? seg : NULL;
}

/* At rest: what has rotted in a segment that is there is found by the next whole cycle. */
static void scrub_check(struct workload *w)
{
    struct store *st = w->js.st;
    struct cycles c = { st, metric_count(&st->stats->scrub_cycles) };

    if (st->conf.scrub_bytes_per_s == 0 || w->rotten_segment == 0 || !rotten_segment(w))
        return;
    for (unsigned i = 0; i < 2; i++) { /* the present one, and a whole one */
        c.until++;
        if (!workload_run_until(w, cycles_done, &c))
            model_fail(&w->m, "the scrub does not come to the end of a cycle");
    }
    if (!rotten_segment(w))
        return;
    if (metric_get(&st->stats->scrub_damaged) == 0)
        model_fail(&w->m, "the scrub has not found the rot in segment %" PRIx64, w->rotten_segment);
    w->n->scrub_seen++;
}

void workload_scrub_end(struct workload *w)
{
    for (unsigned i = 0; i < journal_n_devices(w->js.j); i++) {
        const struct stats *stats = jrn_sim_store(&w->js, i)->stats;
        uint64_t found = metric_count(&stats->scrub_found);

        w->n->scrubbed += (uint32_t)metric_count(&stats->scrub_cycles);
        w->n->scrub_found += (uint32_t)found;
        if (found > 0 && w->n->rotten == 0 && !w->faulty && !w->js.disk->off)
            model_fail(&w->m,
                       "the scrub has found %" PRIu64 " damaged places, and nothing has rotted",
                       found);
    }
}

/* --- log compaction --- */

static void compact_now(struct store *st, void *arg)
{
    compact_consider(st, true);
}

/* Every compacted shard is cleaned as far as its lag lets it be. */
static void compact_all(struct workload *w)
{
    for (unsigned i = 0; w->compacting && i < 3; i++) {
        for (unsigned d = 0; d < journal_n_devices(w->js.j); d++)
            store_on_keeper(jrn_sim_store(&w->js, d), compact_now, NULL);
        sim_run_for(w->js.sim, w->js.conf.compact_check_ms * 1000, STEPS_MAX);
        settle_down(w);
    }
}

/* Everything comes to rest; then all that is promised must hold exactly. */
void workload_check_at_rest(struct workload *w)
{
    bool exists[MODEL_SHARDS_MAX];

    settle_down(w);
    if (workload_any_device_is(w, JRN_FAILED) || w->m.n_updates > 0)
        return;
    sim_run_for(w->js.sim, 1000, STEPS_MAX); /* wake-ups on their way */
    settle_down(w);
    if (workload_any_device_is(w, JRN_FAILED)) /* a request that was slow to fail */
        return;
    compact_all(w);
    check_waits(w);
    scrub_check(w);
    settle_down(w);
    if (workload_any_device_is(w, JRN_FAILED))
        return;
    for (unsigned i = 0; i < journal_n_devices(w->js.j); i++)
        space_check(w, jrn_sim_store(&w->js, i));
    for (unsigned i = 0; i < w->m.n_shards; i++)
        exists[i] = w->m.shards[i].exists == SHARD_LIVE;
    rows_check(w, exists);
    workload_handles_open_new(w);
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (!s->handle || s->exists != SHARD_LIVE)
            continue;
        policy_check(w, s);
        read_whole(w, s, true);
        model_end(&w->m, s, shard_end(s->handle));
        keys_checked(w, s);
        find_checked(w, s);
    }
}
