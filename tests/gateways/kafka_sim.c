#include "tests/gateways/kafka_sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal/core.h"
#include "tests/gateways/kafka_sim_int.h"

enum {
    UNIT_64K = 65536,
    ANSWERED_WITHIN_US = 120 * 1000 * 1000, /* of virtual time, for every request */
    STEP_US = 20000,
    HEAL_ROUNDS = 100
};

/* --- telling --- */

_Noreturn void kafka_sim_fail(const struct kafka_sim *w, const char *format, ...)
{
    va_list args;

    printf("seed %" PRIu64 ", life %u, at %" PRIu64 " us: ", w->seed, w->js.lives,
           sim_now_us(w->js.sim));
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

void kafka_sim_say(const struct kafka_sim *w, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%10" PRIu64 " ", sim_now_us(w->js.sim));
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* --- what may be expected --- */

bool kafka_sim_weak(const struct kafka_sim *w)
{
    return w->ending || w->js.disk->off || w->fault_set ||
           (w->js.j && journal_state(w->js.j) == JRN_FAILED);
}

bool kafka_sim_excused(struct kafka_sim *w, int16_t error)
{
    switch (error) {
    case KAFKA_STORAGE_ERROR:
        return kafka_sim_weak(w) || w->tight;
    case KAFKA_COORDINATOR_NOT_AVAILABLE: /* commits and producer ids have a reserve */
    case KAFKA_NOT_LEADER:
    case KAFKA_LEADER_NOT_AVAILABLE:
    case KAFKA_REQUEST_TIMED_OUT:
        return kafka_sim_weak(w);
    default:
        return false;
    }
}

bool kafka_sim_topic_excused(const struct sim_topic *t, int16_t error)
{
    return t->deleting && (error == KAFKA_UNKNOWN_TOPIC_OR_PARTITION ||
                           error == KAFKA_UNKNOWN_TOPIC_ID || error == KAFKA_LEADER_NOT_AVAILABLE);
}

/* --- running --- */

static void watch(struct kafka_sim *w)
{
    struct store *st = w->js.st;

    if (!st)
        return;
    if (w->ckpt_lsn && st->super.ckpt_lsn > w->ckpt_lsn)
        w->n->checkpoints++;
    w->ckpt_lsn = st->super.ckpt_lsn;
}

static void poll_all(struct kafka_sim *w)
{
    for (unsigned i = 0; i < SIM_CLIENTS; i++) {
        struct door_client *c = &w->clients[i];
        bool had = c->conn != NULL, left = c->hung_up;

        door_client_poll(w, c);
        w->n->closed += had && !c->conn && !left && !w->ending;
    }
}

static void time_out(void *ctx)
{
    *(bool *)ctx = true;
}

/* n turns, but not far into the future: an idle server's next turn may be minutes away. */
static void step(struct kafka_sim *w, unsigned n)
{
    bool out = false;
    struct sim_event *e = sim_at(w->js.sim, STEP_US, time_out, &out);

    while (n-- > 0 && !out && sim_step(w->js.sim))
        poll_all(w);
    if (!out)
        sim_cancel(w->js.sim, e);
    watch(w);
}

static void run_for(struct kafka_sim *w, uint64_t us)
{
    uint64_t until = sim_now_us(w->js.sim) + us;

    for (uint64_t n = 0; sim_now_us(w->js.sim) < until; n++) {
        if (n > SIM_STEPS)
            kafka_sim_fail(w, "time stands still");
        if (!sim_run_for(w->js.sim, (until - sim_now_us(w->js.sim)) / 4 + 1, SIM_STEPS))
            kafka_sim_fail(w, "does not come to rest");
        poll_all(w);
    }
    watch(w);
}

static void run_until(struct kafka_sim *w, bool (*fn)(void *ctx), const char *what)
{
    if (!sim_run_until(w->js.sim, fn, w, SIM_STEPS))
        kafka_sim_fail(w, "%s never ends", what);
    watch(w);
}

/* --- clients --- */

static bool usable(const struct door_client *c)
{
    return c->conn && !c->hung_up && !c->conn->closing;
}

static struct loop *some_loop(struct kafka_sim *w)
{
    return w->js.loops[below(w, w->js.n_loops)];
}

struct door_client *kafka_sim_client(struct kafka_sim *w)
{
    struct door_client *c = &w->clients[below(w, SIM_CONTROL)];

    if (!c->conn) {
        door_client_open(w, c, some_loop(w));
        c->conn->piecemeal = w->batch_bytes < 300 && chance(w, 1, 16);
    }
    return usable(c) && c->n_calls < SIM_CALLS_MAX ? c : NULL;
}

static bool control_answered(void *ctx)
{
    struct kafka_sim *w = ctx;

    poll_all(w);
    if (w->fault_set)
        sim_disk_unstick(w->js.disk);
    return w->clients[SIM_CONTROL].n_calls == 0;
}

bool kafka_sim_ask(struct kafka_sim *w, struct sim_call *call, int16_t key, int16_t version,
                   const void *request)
{
    struct door_client *c = &w->clients[SIM_CONTROL];

    if (!c->conn)
        door_client_open(w, c, some_loop(w));
    door_client_send(w, c, call, key, version, request);
    run_until(w, control_answered, "a request at rest");
    return c->conn && !w->js.disk->off;
}

static void unstick(struct kafka_sim *w)
{
    for (unsigned i = 0; i < SIM_CLIENTS; i++)
        if (usable(&w->clients[i]) && w->clients[i].conn->stuck)
            conn_fake_stick(w->clients[i].conn, false);
}

static void do_conn(struct kafka_sim *w)
{
    struct door_client *c = &w->clients[below(w, SIM_CONTROL)];

    if (!usable(c))
        return;
    if (chance(w, 1, 2))
        door_client_hang_up(w, c);
    else
        conn_fake_stick(c->conn, !c->conn->stuck);
}

/* --- topics that requests name --- */

struct sim_topic *kafka_sim_topic(struct kafka_sim *w, bool live)
{
    struct sim_topic *found = NULL;
    unsigned n = 0;

    for (struct sim_topic *t = w->m.topics; t; t = t->next) {
        const struct sim_name *name = &w->m.names[t->name];
        /* A name that may be made anew would lead to another topic. */
        bool may = t->deleted ? !live && !name->now && name->pending == SIM_NONE
                              : name->now == t && (!live || !t->deleting);

        if (may && below(w, ++n) == 0)
            found = t;
    }
    return found;
}

struct sim_part *kafka_sim_part(struct kafka_sim *w, bool live)
{
    struct sim_topic *t = kafka_sim_topic(w, live);

    return t ? &t->parts[below(w, (uint64_t)t->n_parts)] : NULL;
}

/* --- the door --- */

struct starting {
    struct kafka_start start;
    struct kafka_sim *w;
};
struct stopping {
    struct kafka_stop stop;
    struct kafka_sim *w;
};

static void started(struct kafka_start *s)
{
    struct kafka_sim *w = ((struct starting *)s)->w;

    w->start_rc = s->rc;
    w->started = true;
}

static bool is_started(void *ctx)
{
    return ((struct kafka_sim *)ctx)->started;
}

static void stopped(struct kafka_stop *s)
{
    ((struct stopping *)s)->w->stopped = true;
}

/* A request that is drawn as stuck may get there after others were let go. */
static bool is_stopped(void *ctx)
{
    struct kafka_sim *w = ctx;

    poll_all(w);
    if (w->fault_set)
        sim_disk_unstick(w->js.disk);
    for (unsigned i = 0; i < SIM_CLIENTS; i++)
        if (w->clients[i].conn)
            return false;
    return w->stopped;
}

/* 0 or what kafka_start says. */
static int door_start(struct kafka_sim *w)
{
    struct kafka_env env = { .journal = w->js.j,
                             .loops = w->js.loops,
                             .n_loops = w->js.n_loops,
                             .pool = sim_pool(w->js.sim),
                             .seed = w->seed };
    struct starting s = { .start = { .fn = started, .loop = some_loop(w) }, .w = w };
    struct err e = { 0 };

    if (kafka_new(&w->kafka, &env, &w->conf, &e) < 0)
        kafka_sim_fail(w, "the door cannot be made: %s", e.text);
    w->started = false;
    kafka_start(w->kafka, &s.start);
    run_until(w, is_started, "the start");
    if (w->start_rc < 0 && !w->js.disk->off)
        kafka_sim_fail(w, "the door does not start: %s", s.start.err.text);
    w->door = kafka_door(w->kafka);
    return w->start_rc;
}

static void door_stop(struct kafka_sim *w)
{
    struct stopping s = { .stop = { .fn = stopped, .loop = some_loop(w) }, .w = w };

    w->ending = true;
    w->stopped = false;
    kafka_stop(w->kafka, &s.stop);
    run_until(w, is_stopped, "the stop");
    kafka_free(w->kafka);
    w->kafka = NULL;
    kafka_sim_members_gone(w);
    for (unsigned i = 0; i < SIM_PRODUCERS; i++)
        w->producers[i].asking = false;
}

/* --- at rest --- */

static bool all_answered(void *ctx)
{
    struct kafka_sim *w = ctx;

    poll_all(w);
    for (unsigned i = 0; i < SIM_CLIENTS; i++)
        if (w->clients[i].n_calls > 0)
            return false;
    return true;
}

/* Every request is answered in time, whatever the device does. */
static void settle_down(struct kafka_sim *w)
{
    uint64_t until = sim_now_us(w->js.sim) + ANSWERED_WITHIN_US;

    do {
        unstick(w);
        sim_disk_unstick(w->js.disk);
        if (all_answered(w))
            return;
        run_for(w, 20000);
    } while (sim_now_us(w->js.sim) < until);
    for (unsigned i = 0; i < SIM_CLIENTS; i++)
        if (w->clients[i].n_calls > 0)
            kafka_sim_fail(w, "a request of API %d is never answered", w->clients[i].head->key);
}

/* Everything that is promised must be there. False: power went meanwhile. */
static bool check_all(struct kafka_sim *w, bool started_anew)
{
    if (!kafka_sim_topics_settle(w, started_anew))
        return false;
    for (unsigned i = 0; i < SIM_NAMES; i++) {
        struct sim_topic *t = w->m.names[i].now;

        for (int32_t k = 0; t && !t->deleting && k < t->n_parts; k++) {
            if (!kafka_sim_read_whole(w, &t->parts[k]))
                return false;
            if (started_anew)
                sim_model_settle(&t->parts[k], &w->m);
            if (chance(w, 1, 4) && !kafka_sim_time_check(w, &t->parts[k]))
                return false;
        }
        if (t && !t->deleting && !kafka_sim_offsets_check(w, t))
            return false;
    }
    return true;
}

static unsigned first_name(const struct kafka_sim *w, bool there)
{
    unsigned i = 0;

    while (i < SIM_NAMES && ((w->m.names[i].now != NULL) != there || w->m.names[i].unsure))
        i++;
    return i;
}

static bool is_serving(const struct kafka_sim *w)
{
    return !w->js.disk->off && journal_state(w->js.j) != JRN_FAILED;
}

/* A full disk: deleting topics must work, and bring back a disk that takes batches. */
static void heal(struct kafka_sim *w)
{
    struct door_client *c = &w->clients[SIM_CONTROL];
    unsigned name;
    int error = KAFKA_STORAGE_ERROR;

    for (unsigned i = 0; i < SIM_NAMES; i++)
        if (w->m.names[i].unsure)
            return; /* it may keep what nobody may delete now */
    if (!c->conn)
        door_client_open(w, c, some_loop(w));
    while ((name = first_name(w, true)) < SIM_NAMES && is_serving(w)) {
        kafka_sim_delete_one(w, c, name);
        settle_down(w);
        if (w->m.names[name].unsure && is_serving(w))
            kafka_sim_fail(w, "a full disk does not let %s be deleted", w->m.names[name].text);
    }
    run_for(w, 1000000);
    for (unsigned i = 0; i < HEAL_ROUNDS && error && is_serving(w); i++) {
        kafka_sim_create(w);
        settle_down(w);
        name = first_name(w, true);
        if (name < SIM_NAMES)
            error = kafka_sim_produce_one(w, &w->m.names[name].now->parts[0], 1000);
        run_for(w, 100000);
    }
    if (error && is_serving(w))
        kafka_sim_fail(w, "a full disk is not healed by deleting all topics: error %d", error);
    w->n->healed += !error;
}

/* --- faults --- */

static void do_fault(struct kafka_sim *w)
{
    struct sim_faults *f = &w->js.disk->faults;

    w->fault_set = true;
    switch (below(w, 6)) {
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
        f->nth[SIM_FAULT_CREATE] = 1;
        break;
    case 4:
        f->chance[SIM_FAULT_SLOW] = 2000;
        break;
    default:
        f->nth[SIM_FAULT_STUCK] = 1 + (uint32_t)below(w, 4);
    }
}

static void faults_end(struct kafka_sim *w)
{
    w->js.disk->faults = (struct sim_faults){ 0 };
    sim_disk_unstick(w->js.disk);
}

/* --- a life --- */

static bool lose_rows(struct kafka_sim *w)
{
    bool lost = chance(w, 1, 4);

    w->n->rows_lost += lost;
    w->rows_lost = w->rows_lost || lost;
    return lost;
}

static void cut_power(struct kafka_sim *w)
{
    w->n->power_cuts++;
    sim_disk_power_off(w->js.disk);
    if (w->kafka)
        door_stop(w);
    jrn_sim_crash(&w->js, lose_rows(w));
}

/* What the process still writes after its death must reach neither files nor rows. */
static void kill_process(struct kafka_sim *w)
{
    w->n->kills++;
    sim_disk_kill_answering(w->js.disk);
    sim_rows_crash(w->js.store, &w->rng, lose_rows(w));
    door_stop(w);
    jrn_sim_kill(&w->js, false);
}

/* False: power went meanwhile. */
static bool try_open(struct kafka_sim *w)
{
    struct err e = { 0 };
    int rc = jrn_sim_open(&w->js, &e);

    w->ckpt_lsn = 0;
    w->ending = w->power_must_go = w->fault_set = false;
    if (rc < 0 && !w->js.disk->off)
        kafka_sim_fail(w, "the journal does not open: %s (%s)", e.text, err_name(rc));
    if (rc < 0)
        return false;
    if (door_start(w) < 0)
        return false;
    w->js.disk->off_armed = false;
    return !w->js.disk->off;
}

static void open_life(struct kafka_sim *w)
{
    bool cut = chance(w, 1, 3);

    for (;;) {
        if (cut)
            sim_disk_power_off_after(w->js.disk, below(w, chance(w, 1, 2) ? 40 : 150));
        if (try_open(w))
            break;
        w->n->in_start++;
        SAY(w, "power cut while starting");
        cut_power(w);
        cut = chance(w, 1, 2);
    }
    w->n->lives++;
    SAY(w, "life %u", w->js.lives);
}

static void end_life(struct kafka_sim *w, unsigned how)
{
    w->ending = true;
    faults_end(w);
    SAY(w, "ends: %u", how);
    if (how == 0 || w->js.disk->off || w->js.disk->off_armed || w->power_must_go) {
        cut_power(w);
    } else if (how == 1) {
        kill_process(w);
    } else {
        w->n->stops++;
        door_stop(w);
        for (unsigned i = 0; w->fault_set && i < 8; i++) {
            run_for(w, 20000);
            sim_disk_unstick(w->js.disk);
        }
        jrn_sim_close(&w->js);
    }
    for (unsigned i = 0; i < SIM_NAMES; i++)
        if (w->m.names[i].in_flight)
            kafka_sim_fail(w, "requests are left over");
}

static void (*const acts[])(struct kafka_sim *) = { kafka_sim_produce,     kafka_sim_fetch,
                                                    kafka_sim_list,        kafka_sim_create,
                                                    kafka_sim_auto_create, kafka_sim_delete,
                                                    kafka_sim_grow,        kafka_sim_member,
                                                    kafka_sim_metadata,    kafka_sim_producer,
                                                    kafka_sim_commit,      kafka_sim_offsets,
                                                    kafka_sim_others,      do_conn,
                                                    kafka_sim_trim,        kafka_sim_configure };
enum { ACT_PRODUCE = 0, ACT_DELETE = 5, N_ACTS = sizeof acts / sizeof acts[0] };

static void act(struct kafka_sim *w)
{
    unsigned all = 0, at;

    for (unsigned i = 0; i < N_ACTS; i++)
        all += w->weight[i];
    at = (unsigned)below(w, all);
    for (unsigned i = 0; i < N_ACTS; i++) {
        if (at < w->weight[i]) {
            acts[i](w);
            return;
        }
        at -= w->weight[i];
    }
}

static void pause_between(struct kafka_sim *w)
{
    int64_t jump;

    switch (below(w, 16)) {
    case 0:
        run_for(w, below(w, 40000));
        break;
    case 1:
        jump = (int64_t)below(w, 200) - 100;
        sim_wall_jump(w->js.sim, jump);
        w->wall_now_ms += jump;
        if (w->wall_now_ms > w->wall_ahead_ms)
            w->wall_ahead_ms = w->wall_now_ms;
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        step(w, (unsigned)below(w, 100));
        break;
    default:
        step(w, (unsigned)below(w, 12));
    }
}

static void life(struct kafka_sim *w, bool last)
{
    unsigned n = (unsigned)below(w, chance(w, 1, 5) ? 20 : w->tight ? 600 : 250);
    bool cut = chance(w, 1, 3);
    unsigned fault_at = w->faulty && chance(w, 1, 2) ? (unsigned)below(w, n + 1) : n + 1;

    open_life(w);
    if (!check_all(w, true))
        kafka_sim_fail(w, "the check after the start was not answered");
    for (unsigned i = 0; i < n && !w->js.disk->off; i++) {
        if (i == fault_at)
            do_fault(w);
        if (cut && i + 20 > n && !w->js.disk->off_armed) {
            w->ending = true;
            sim_disk_power_off_after(w->js.disk, below(w, 40));
        }
        act(w);
        pause_between(w);
    }
    w->n->failed += journal_state(w->js.j) == JRN_FAILED && !w->js.disk->off;
    if (!w->js.disk->off && !w->js.disk->off_armed && chance(w, 1, 2)) {
        faults_end(w);
        settle_down(w);
        if (is_serving(w) && w->tight && journal_state(w->js.j) == JRN_FULL)
            heal(w);
        if (is_serving(w))
            check_all(w, false);
    }
    end_life(w, last ? 2 : (unsigned)below(w, 3));
}

/* --- a seed --- */

static void swarm_journal(struct kafka_sim *w)
{
    struct journal_conf *c = &w->js.conf;
    uint64_t extent = UNIT_64K << below(w, 2);

    c->wal_extent = (uint32_t)extent;
    c->wal_budget = extent * (1 + below(w, 3));
    c->block_max = 8192u << below(w, 3);
    c->cache_bytes = 4096u << below(w, 6);
    c->idle_close_ms = 1 + (uint32_t)below(w, 20);
    c->delete_grace_ms = 1 + (uint32_t)below(w, 100);
    c->retention_check_ms = 10 + (uint32_t)below(w, 300);
    c->wal_age_ms = chance(w, 1, 2) ? 0 : 1 + (uint32_t)below(w, 2000);
    c->pending_max = 8192u << below(w, 4);
    c->slab_first = 8 * extent;
    c->slab_max = c->slab_first * (1 + below(w, 2));
    if (!w->tight)
        return;
    /* Against a unit of 64 KiB an extent must be large for the reserve to mean anything. */
    extent = 4 * UNIT_64K;
    c->wal_extent = (uint32_t)extent;
    c->wal_budget = extent;
    c->slab_first = c->slab_max = 8 * extent;
    c->space_max = extent * (20 + below(w, 8));
    c->batch_max = c->block_max = UNIT_64K;
}

static void swarm(struct kafka_sim *w)
{
    static const char *const some_codec[] = { "none", "lz4", "zstd" };
    static const unsigned least[N_ACTS] = { 20, 8, 2, 1, 1, 1, 1, 3, 1, 3, 3, 2, 1, 2, 1, 1 };

    w->tight = chance(w, 1, 8);
    w->faulty = !w->tight && chance(w, 1, 4);
    w->deletes = w->tight || chance(w, 3, 4);
    w->batch_bytes = 100u << below(w, 5);
    if (w->tight)
        w->batch_bytes = 30000;
    jrn_sim_init(&w->js, w->seed, 64 << 20, 1 + (unsigned)below(w, 3));
    swarm_journal(w);
    for (unsigned i = 0; i < N_ACTS; i++)
        w->weight[i] = least[i] + (unsigned)below(w, least[i] + 3);
    if (w->tight) { /* what fills is more than what is given back */
        w->weight[ACT_PRODUCE] *= 6;
        w->weight[ACT_DELETE] = 1;
    }
    w->conf = (struct kafka_conf){ .default_partitions = 1 + (int32_t)below(w, 3),
                                   .request_max = 1 << 20,
                                   .batch_max = 32768,
                                   .fetch_max = 8192u << below(w, 5),
                                   .conn_pending_max = 4096u << below(w, 5),
                                   .session_min_ms = 100,
                                   .recode_here = chance(w, 1, 2) ? 1 << 16 : 64u << below(w, 8),
                                   .server_batches = some_codec[below(w, 3)],
                                   .offsets_snapshot_every = 1 + (uint32_t)below(w, 40) };
}

uint64_t kafka_sim_run(uint64_t seed, struct kafka_sim_counts *counts, bool talk)
{
    struct kafka_sim *w = mem_new(sizeof *w);
    unsigned lives;
    uint64_t trace;

    w->seed = seed;
    w->n = counts;
    w->talk = talk;
    rng_seed(&w->rng, seed * 0x9e3779b97f4a7c15 + 1);
    sim_model_init(&w->m);
    for (unsigned i = 0; i < SIM_CLIENTS; i++)
        w->clients[i].slot = i;
    for (unsigned i = 0; i < SIM_PRODUCERS; i++)
        w->producers[i].id = -1;
    swarm(w);
    lives = 2 + (unsigned)below(w, 5);
    for (unsigned i = 0; i < lives; i++)
        life(w, i + 1 == lives);
    trace = sim_trace(w->js.sim) ^ sim_disk_trace(w->js.disk);
    sim_model_fini(&w->m);
    if (buf_total_bytes() != 0)
        kafka_sim_fail(w, "%" PRIu64 " bytes of buffers are left", buf_total_bytes());
    jrn_sim_fini(&w->js);
    free(w);
    return trace;
}
