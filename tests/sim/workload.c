#include "tests/sim/workload.h"

#include <stdlib.h>
#include <string.h>

#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/devices.h"
#include "journal/store.h"
#include "tests/sim/workload_int.h"

/* --- what the journal did meanwhile --- */

static void place_used(struct workload *w, struct watched *d, uint64_t place)
{
    unsigned i = 0;

    while (i < d->n_places && d->places[i].place != place)
        i++;
    if (i == PLACES_MAX)
        return;
    if (i == d->n_places)
        d->places[d->n_places++].place = place;
    if (++d->places[i].uses > w->n->reuses + 1)
        w->n->reuses = d->places[i].uses - 1;
}

static void watch_wal(struct workload *w, struct watched *d, struct store *st)
{
    uint64_t lap = st->conf.wal_budget + 2 * ((uint64_t)1 << st->wal_log2);

    for (unsigned i = 0; i < st->wal.n; i++) {
        const struct wal_extent *x = st->wal.list[i];

        if (x->first_lsn < d->wal_lsn || (x->first_lsn == d->wal_lsn && x->incarnation == 0))
            continue;
        d->wal_lsn = x->first_lsn + 1;
        place_used(w, d, x->place);
        if (x->first_lsn / lap > w->n->laps)
            w->n->laps = (uint32_t)(x->first_lsn / lap);
    }
}

static void watch_device(struct workload *w, struct watched *d, struct store *st)
{
    unsigned segments = (unsigned)st->segments.by_id.count;

    if (st->super.ckpt_lsn < d->ckpt_lsn)
        model_fail(&w->m, "the checkpoint went back from %" PRIu64 " to %" PRIu64, d->ckpt_lsn,
                   st->super.ckpt_lsn);
    if (d->ckpt_lsn && st->super.ckpt_lsn > d->ckpt_lsn)
        w->n->destages++;
    d->ckpt_lsn = st->super.ckpt_lsn;
    if (d->slabs && st->slabs.n > d->slabs)
        w->n->grown += st->slabs.n - d->slabs;
    d->slabs = st->slabs.n;
    w->n->direct += (uint32_t)((atomic_load(&st->bytes.direct) >> 10) - d->direct_kib);
    d->direct_kib = atomic_load(&st->bytes.direct) >> 10;
    w->n->unloads += (uint32_t)(st->unloads - (st->unloads < d->unloads ? 0 : d->unloads));
    d->unloads = st->unloads;
    if (segments > d->segments)
        w->n->sealed += segments - d->segments;
    else
        w->n->deleted += d->segments - segments;
    d->segments = segments;
    w->n->throttled += atomic_load(&st->throttle_us) > 0;
    watch_wal(w, d, st);
}

/* Called all the time. J3 is checked here. */
void workload_watch(struct workload *w)
{
    w->m.now_us = sim_now_us(w->js.sim);
    if (w->js.j && loop_wall_ms(w->js.loops[0]) > w->wall_max)
        w->wall_max = loop_wall_ms(w->js.loops[0]);
    for (unsigned i = 0; w->js.j && i < journal_n_devices(w->js.j); i++)
        watch_device(w, &w->watched[i], jrn_sim_store(&w->js, i));
}

static void step(struct workload *w, unsigned n)
{
    while (n-- > 0 && sim_step(w->js.sim))
        ;
    workload_watch(w);
}

/* --- faults --- */

static void do_fault(struct workload *w)
{
    struct sim_faults *f = &w->js.devices[below(w, w->js.n_devices)].disk->faults;

    switch (below(w, 8)) {
    case 0:
        f->nth[SIM_FAULT_READ] = 1 + (uint32_t)below(w, 10);
        break;
    case 1:
        f->nth[SIM_FAULT_WRITE] = 1 + (uint32_t)below(w, 10);
        break;
    case 2:
        f->nth[SIM_FAULT_SYNC] = 1 + (uint32_t)below(w, 10);
        w->power_must_go = true;
        break;
    case 3:
        f->nth[SIM_FAULT_NAMES] = 1;
        break;
    case 4:
        f->nth[SIM_FAULT_CREATE] = 1 + (uint32_t)below(w, 2);
        break;
    case 5:
    case 6:
        f->chance[SIM_FAULT_SLOW] = 2000;
        break;
    default:
        f->nth[SIM_FAULT_STUCK] = 1 + (uint32_t)below(w, 4);
    }
}

static void faults_end(struct workload *w)
{
    for (unsigned i = 0; i < w->js.n_devices; i++)
        w->js.devices[i].disk->faults = (struct sim_faults){ 0 };
    workload_disks_unstick(w);
}

/* --- a life --- */

static bool enough_room(void *ctx)
{
    return ((struct workload *)ctx)->n_ops < OPS_MAX / 2;
}

static void pause_between(struct workload *w)
{
    switch (below(w, 16)) {
    case 0:
        sim_run_for(w->js.sim, below(w, 30000), STEPS_MAX);
        break;
    case 1:
        workload_cancel_waits(w, 1, 2);
        step(w, 50);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        step(w, (unsigned)below(w, 60));
        break;
    case 6:
        sim_wall_jump(w->js.sim, (int64_t)below(w, 200) - 100);
        break;
    default:
        step(w, (unsigned)below(w, 8));
    }
    if (w->n_ops >= OPS_MAX) {
        workload_cancel_waits(w, 1, 1);
        if (!workload_run_until(w, enough_room, w)) {
            workload_disks_unstick(w);
            if (!workload_run_until(w, enough_room, w))
                model_fail(&w->m, "%u operations are never answered", w->n_ops);
        }
    }
    workload_watch(w);
}

/* Power goes after n more operations of one device. */
static void power_goes_after(struct workload *w, uint64_t n)
{
    sim_disk_power_off_after(w->js.devices[below(w, w->js.n_devices)].disk, n);
}

static bool power_is_to_go(const struct workload *w)
{
    for (unsigned i = 0; i < w->js.n_devices; i++)
        if (w->js.devices[i].disk->off_armed)
            return true;
    return false;
}

static void power_stays(struct workload *w)
{
    for (unsigned i = 0; i < w->js.n_devices; i++)
        w->js.devices[i].disk->off_armed = false;
}

static uint32_t opens_now(const struct store *st)
{
    uint64_t pos = 0;
    uint32_t n = 0;
    void *value;

    while (hash_next(&st->segments.by_id, &pos, NULL, &value))
        n += ((const struct segment *)value)->open;
    return n;
}

/* False: it could not be opened because power went, or a fault was met. */
static bool try_open(struct workload *w, bool may_fail)
{
    struct err e = { 0 };
    int rc = jrn_sim_open(&w->js, &e);

    for (unsigned i = 0; i < JRN_SIM_DEVICES; i++)
        w->watched[i].segments = 0, w->watched[i].direct_kib = 0;
    if (rc >= 0) {
        power_stays(w);
        for (unsigned i = 0; i < journal_n_devices(w->js.j); i++) {
            struct store *st = jrn_sim_store(&w->js, i);

            w->n->opens_found += opens_now(st);
            w->watched[i].segments = (unsigned)st->segments.by_id.count;
        }
        workload_watch(w);
        return true;
    }
    /* A catalogue with a record missing may contradict itself: then it is refused, which an operator must look into. */
    if (w->rot.catalogue && rc == E_CORRUPT)
        return false;
    if (!may_fail || !w->js.disk->off)
        model_fail(&w->m, "the journal does not open: %s (%s)", e.text, err_name(rc));
    return false;
}

/* --- rot --- */

static bool rot_once(struct workload *w)
{
    switch (below(w, 7)) {
    case 6:
        if (!rot_direct(&w->js, &w->rng, &w->m))
            return false;
        w->n->rotten_direct++;
        return true;
    case 0:
    case 1:
        return w->rot.n_groups == 0 && w->n_accept == 0 &&
               rot_wal_block(&w->js, &w->rng, &w->m, w->orderly && chance(w, 1, 2), &w->rot);
    case 2:
        return rot_wal_head(&w->js, &w->rng, &w->m);
    case 3:
        return rot_segment_data(&w->js, &w->rng, &w->m, &w->rotten_segment);
    case 4:
        return rot_segment_rest(&w->js, &w->rng, &w->m, &w->rotten_segment);
    default:
        return rot_super(&w->js, &w->rng, &w->m);
    }
}

/* Between two lives. One bit at a time: two could make a tail that nobody can tell from a torn one. */
static void rot(struct workload *w)
{
    w->rotted = false;
    if (!w->rotting || w->js.lives == 0 || !chance(w, 1, 2))
        return;
    if (w->rot.n_groups > 0 && chance(w, 1, 2)) {
        memcpy(w->accept, w->rot.groups, sizeof w->accept);
        w->js.conf.accept_loss = w->accept;
        w->js.conf.n_accept_loss = w->n_accept = w->rot.n_groups;
        w->n->accepted += w->rot.n_groups;
        w->rot.n_groups = 0;
        return;
    }
    if (rot_once(w)) {
        w->rotted = true;
        w->n->rotten++;
        TALK(w, "a bit has rotted: %u groups", w->rot.n_groups);
    }
}

static bool lose_rows(struct workload *w)
{
    /* Rows and catalogue are each other's second copy: both at once is more than is promised. */
    bool lost = chance(w, 1, 4) && !w->rot.catalogue;

    w->n->rows_lost += lost;
    return lost;
}

/* Folders are given in any order, and once in a while there is a new one. */
static void devices_change(struct workload *w)
{
    if (w->js.lives == 0)
        return;
    if (w->js.n_devices < w->devices_max && chance(w, 1, 3))
        jrn_sim_add_device(&w->js, 64 << 20);
    for (unsigned i = w->js.n_devices; i-- > 1;) {
        unsigned k = (unsigned)below(w, i + 1), was = w->js.order[i];

        w->js.order[i] = w->js.order[k];
        w->js.order[k] = was;
    }
}

/* Operations that were drawn to fail, whether the journal has met it yet or not. */
static uint64_t failures_drawn(const struct workload *w)
{
    uint64_t drawn = 0;

    for (unsigned i = 0; i < w->js.n_devices; i++) {
        const uint64_t *n = w->js.devices[i].disk->counts.faults;

        drawn += n[SIM_FAULT_WRITE] + n[SIM_FAULT_SYNC];
    }
    return drawn;
}

/* False: the store is refused for the damage that was done to its catalogue. */
static bool open_life(struct workload *w)
{
    bool cut = chance(w, 1, 2) && w->js.lives > 0;

    devices_change(w);
    if (!w->killed)
        rot(w);
    /* Which groups the bit has hit follows from rows that a power cut would take back. */
    cut = cut && !(w->rotted && sim_rows_unflushed(w->js.store) > 0);
    while (cut) {
        power_goes_after(w, below(w, chance(w, 1, 2) ? 30 : 120));
        if (try_open(w, true))
            break;
        w->n->in_recovery++;
        w->rot.certain = false;
        w->n->crashes++;
        TALK(w, "power cut during recovery");
        jrn_sim_crash(&w->js, lose_rows(w));
        cut = chance(w, 1, 2) && !w->rot.catalogue;
    }
    if (!w->js.j && !try_open(w, false))
        return false;
    w->power_must_go = w->ending = false;
    w->failures = failures_drawn(w);
    TALK(w, "life %u: start %" PRIu64 " checkpoint %" PRIu64, w->js.lives, w->js.st->start_no,
         w->js.st->super.ckpt_lsn);
    return true;
}

static void nothing_open(struct workload *w)
{
    if (w->n_ops > 0)
        model_fail(&w->m, "%u operations were not answered, the first of kind %d", w->n_ops,
                   (int)w->ops->kind);
}

/* An orderly close finishes what is pending: what had an offset is there. */
static void keep_all(struct workload *w)
{
    for (unsigned i = 0; i < w->m.n_all; i++) {
        struct sent *x = w->m.all[i];

        if (x->offset_known && !x->gone && !x->stale && !x->durable &&
            x->shard->exists == SHARD_LIVE && !x->shard->deleting)
            model_acked(&w->m, x, x->offset, true, false);
    }
}

static void end_life(struct workload *w, unsigned how)
{
    bool orderly;

    w->killed = w->orderly = false;
    workload_scrub_end(w);
    faults_end(w);
    workload_cancel_waits(w, 1, 1);
    orderly = how == 2 && !power_is_to_go(w) && journal_state(w->js.j) == JRN_OK &&
              !w->js.disk->off && failures_drawn(w) == w->failures;
    w->ending = true;
    TALK(w, "ends: %s",
         w->js.disk->off ? "power was cut"
         : how == 0      ? "power cut"
         : how == 1      ? "kill"
                         : "close");
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (s->handle && s->handle->next > s->handed)
            s->handed = s->handle->next;
    }
    if (how == 0 || w->js.disk->off || power_is_to_go(w) || w->power_must_go) {
        w->n->crashes++;
        sim_disk_power_off(w->js.disk);
        workload_handles_close(w);
        jrn_sim_crash(&w->js, lose_rows(w));
    } else if (how == 1) {
        w->killed = true;
        w->n->kills++;
        workload_handles_close(w);
        jrn_sim_kill(&w->js, lose_rows(w));
    } else {
        w->n->closes++;
        workload_handles_close(w);
        for (unsigned i = 0; w->faulty && i < 3;
             i++) { /* a request may get stuck later than it was drawn */
            sim_run_for(w->js.sim, 400 * 1000, STEPS_MAX);
            workload_disks_unstick(w);
        }
        jrn_sim_close(&w->js);
        w->orderly = orderly;
        if (orderly)
            keep_all(w);
    }
    nothing_open(w);
}

static bool is_not_full(void *ctx)
{
    return !workload_any_device_is(ctx, JRN_FULL);
}

/* A full device must take deletions, and be well again after them. */
static void heal(struct workload *w)
{
    uint64_t end_us = sim_now_us(w->js.sim) + WAIT_US;

    if (w->rot.n_groups > 0)
        return;
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (s->exists == SHARD_LIVE && !s->deleting)
            workload_delete(w, s);
    }
    while (!is_not_full(w) && sim_now_us(w->js.sim) < end_us) {
        workload_disks_unstick(w); /* a request may get stuck later than it was drawn */
        sim_run_for(w->js.sim, 100 * 1000, STEPS_MAX);
    }
    if (!is_not_full(w)) {
        for (unsigned i = 0; i < journal_n_devices(w->js.j); i++) {
            struct jrn_device_info d;

            if (journal_device_info(w->js.j, i, &d) >= 0)
                fprintf(stderr,
                        "device %u: state %d, %u thousandths of %" PRIu64 ": %" PRIu64
                        " in slabs, free %" PRIu64 ", WAL %" PRIu64 ", live %" PRIu64
                        ", dead %" PRIu64 ", graves %" PRIu64 "\n",
                        i, (int)d.state, d.fullness, d.limit, d.total, d.free, d.wal,
                        d.segment_live, d.segment_dead, d.grave);
        }
        model_fail(&w->m, "everything is deleted, and the device is still full");
    }
    w->n->healed++;
}

static void life(struct workload *w, bool last)
{
    unsigned n = (unsigned)below(w, chance(w, 1, 5) ? 12 : w->tight ? 400 : 200);
    bool cut = chance(w, 1, 3);
    unsigned fault_at = w->faulty && chance(w, 1, 2) ? (unsigned)below(w, n + 1) : n + 1;

    if (!open_life(w))
        return;
    workload_check_read_only(w);
    if (w->rot.catalogue) { /* which updates are left is anybody's guess; the journal has come up */
        end_life(w, 2);
        return;
    }
    workload_check_recovered(w);
    for (unsigned i = 0; i < n && !w->js.disk->off; i++) {
        if (i == fault_at)
            do_fault(w);
        if (cut && i + 20 > n && !power_is_to_go(w)) {
            w->ending = true;
            power_goes_after(w, below(w, 40));
        }
        workload_act(w);
        pause_between(w);
    }
    w->ending = w->js.disk->off || power_is_to_go(w);
    if (!w->ending && chance(w, 1, 2)) {
        faults_end(w);
        workload_check_at_rest(w);
    }
    if (!w->ending && workload_any_device_is(w, JRN_FULL) &&
        !workload_any_device_is(w, JRN_FAILED) && chance(w, 1, 2)) {
        faults_end(w);
        heal(w);
    }
    w->n->faults += workload_any_device_is(w, JRN_FAILED) && !w->js.disk->off;
    end_life(w, last ? 2 : (unsigned)below(w, 3));
}

/* --- a seed --- */

static void swarm(struct workload *w, uint64_t seed)
{
    struct journal_conf *c;
    uint64_t extent;

    w->tight = chance(w, 1, 6);
    jrn_sim_init(&w->js, seed, 64 << 20, w->tight ? 1 : 1 + (unsigned)below(w, 3));
    c = &w->js.conf;
    extent = UNIT_64K << below(w, 2);
    c->wal_extent = (uint32_t)extent;
    c->wal_budget = extent * (1 + below(w, 3));
    c->block_max = 8192u << below(w, 3);
    c->batch_max = 32768;
    c->cache_bytes = 4096u << below(w, 6);
    c->read_cache_bytes = 4096u << seed % 9;
    c->pending_max = 65536;
    c->memory_bytes = 16384u << below(w, 4);
    c->idle_close_ms = 1 + (uint32_t)below(w, 20);
    c->delete_grace_ms = 1 + (uint32_t)below(w, 100);
    c->commit_delay_us = seed % 5 == 0 ? 300 + (uint32_t)(seed % 7) * 2000 : 0;
    if (chance(w, 2, 3)) {
        c->retention_check_ms = 10 + (uint32_t)below(w, 300);
        c->wal_age_ms = 1 + (uint32_t)below(w, 2000);
    }
    c->unload_ms = 1 + (uint32_t)below(w, 4);
    c->slab_first = 8 * extent;
    c->slab_max = c->slab_first * (1 + below(w, 2));
    if (w->tight) {
        /* Against a unit of 64 KiB an extent must be large for the reserve to mean anything. */
        extent = 4 * UNIT_64K;
        c->wal_extent = (uint32_t)extent;
        c->wal_budget = extent;
        c->slab_first = c->slab_max = 8 * extent;
        c->space_max = extent * (16 + below(w, 6));
        c->batch_max = 65536;
        c->block_max = 65536;
        w->m.scale = 4;
        if (chance(w, 1, 2)) { /* watermarks that are met before the reserve is */
            c->space_max = extent * 40;
            c->space_urgent = 15 + (uint32_t)below(w, 10);
            c->space_throttle = c->space_urgent + (uint32_t)below(w, 10);
            c->space_refuse = c->space_throttle + 1 + (uint32_t)below(w, 15);
        }
    }
    if (chance(w, 1, 8))
        c->direct_from = UINT32_MAX;
    else if (chance(w, 1, 8))
        c->direct_from = 1;
    else
        c->direct_from = 128u << below(w, 8);
    c->segment_bytes = UNIT_64K << below(w, 5);
    if (seed % 4 == 1 && !w->tight) /* not drawn: so that all else is as it was */
        c->segment_entries = 3 + (uint32_t)(seed / 4 % 50);
    w->devices_max = 1 + (unsigned)below(w, JRN_SIM_DEVICES);
    while (w->js.n_devices < w->devices_max && chance(w, 2, 3))
        jrn_sim_add_device(&w->js, 64 << 20);
    w->faulty = chance(w, 1, 4);
    w->rotting = !w->faulty && chance(w, 1, 4);
    c->scrub_bytes_per_s = w->rotting || chance(w, 1, 8) ? (uint64_t)100000 << below(w, 14) : 0;
    c->scrub_interval_ms = 300 + below(w, 3000);
    w->compacting = chance(w, 1, 2);
    c->compact_check_ms = 1 + (uint32_t)below(w, 300);
    c->compact_map_bytes = 24576u << below(w, 3);
    w->big_reads = 1u << (8 + below(w, 10));
    w->weight[0] = 20 + (unsigned)below(w, 60);
    for (unsigned i = 1; i < 9; i++)
        w->weight[i] = 1 + (unsigned)below(w, 8);
    if (w->tight) { /* little else than filling it up */
        w->weight[0] = 90;
        w->weight[4] = w->weight[5] = 1;
    }
    if (w->weight[0] > 60)
        w->weight[1] += 8;
}

void workload_run(uint64_t seed, struct workload_counts *counts, bool talk)
{
    struct workload *w = mem_new(sizeof *w);
    unsigned lives;

    w->n = counts;
    w->talk = talk;
    rng_seed(&w->rng, seed * 0x9e3779b97f4a7c15 + 1);
    model_init(&w->m, seed);
    swarm(w, seed);
    lives = 4 + (unsigned)below(w, 5);
    for (unsigned i = 0; i < lives && !w->rot.catalogue; i++)
        life(w, i + 1 == lives);
    model_fini(&w->m);
    jrn_sim_fini(&w->js);
    if (buf_total_bytes() != 0) {
        w->m.seed = seed;
        model_fail(&w->m, "%" PRIu64 " bytes of buffers are left", buf_total_bytes());
    }
    free(w);
}
