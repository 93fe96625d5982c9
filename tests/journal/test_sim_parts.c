/* The simulator's own parts: what a run rests on must be tested before the journal is tested on
 * it. */
#include "tests/check.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/hash.h"
#include "tests/sim/loop_sim.h"
#include "tests/sim/rows_sim.h"

enum { MANY_STEPS = 100000 };

/* --- loops --- */

static uint64_t log_hash;
static unsigned n_log;
static unsigned log_of[256];

static void note(unsigned what)
{
    log_hash = hash_mix(log_hash + what + 1);
    if (n_log < 256)
        log_of[n_log] = what;
    n_log++;
}

static void log_clear(void)
{
    log_hash = 0;
    n_log = 0;
}

struct job {
    struct task task;
    unsigned number;
    struct loop *loop;
    bool at_home;
};

static void job_run(struct task *t)
{
    struct job *j = (struct job *)t;

    j->at_home = j->loop->ops->is_home(j->loop);
    note(j->number);
}

static void post_jobs(struct sim *s, struct job *jobs, unsigned n, unsigned n_loops)
{
    for (unsigned i = 0; i < n; i++) {
        jobs[i] =
            (struct job){ .task.run = job_run, .number = i, .loop = sim_loop(s, i % n_loops) };
        loop_post(jobs[i].loop, &jobs[i].task);
    }
}

static void test_tasks_of_a_loop_keep_their_order_and_loops_interleave_by_seed(void)
{
    uint64_t first = 0;
    unsigned differ = 0;

    for (uint64_t seed = 0; seed < 20; seed++) {
        struct sim *s = sim_new(seed);
        struct job jobs[60];
        unsigned next[3] = { 0, 1, 2 };

        log_clear();
        post_jobs(s, jobs, 60, 3);
        CHECK_EQ(n_log, 0);
        while (sim_step(s))
            continue;
        CHECK_EQ(n_log, 60);
        for (unsigned i = 0; i < 60; i++) {
            CHECK_EQ(log_of[i], next[log_of[i] % 3]);
            next[log_of[i] % 3] += 3;
            CHECK(jobs[i].at_home);
        }
        if (seed == 0)
            first = log_hash;
        differ += log_hash != first;
        sim_free(s);
    }
    CHECK(differ > 15);
}

struct alarm {
    struct loop_timer timer;
    unsigned number;
    uint64_t due_us;
    bool set;
};

static struct sim *alarm_sim;

static void alarm_fire(struct loop_timer *t)
{
    struct alarm *a = (struct alarm *)t;

    CHECK(a->set);
    CHECK_EQ(sim_now_us(alarm_sim), a->due_us);
    CHECK(t->loop->ops->is_home(t->loop));
    CHECK(!sim_loop(alarm_sim, 9)->ops->is_home(sim_loop(alarm_sim, 9)));
    a->set = false;
    note(a->number);
}

static void alarm_set(struct alarm *a, unsigned loop, uint64_t delay_us)
{
    a->timer.fire = alarm_fire;
    a->set = true;
    a->due_us = sim_now_us(alarm_sim) + delay_us;
    loop_timer_set(sim_loop(alarm_sim, loop), &a->timer, delay_us);
}

static void test_timers_fire_once_on_time_and_never_after_a_stop(void)
{
    struct alarm alarms[40] = { 0 };
    unsigned left = 0;
    struct rng r;

    rng_seed(&r, 7);
    alarm_sim = sim_new(1);
    log_clear();
    for (unsigned i = 0; i < 5000; i++) {
        struct alarm *a = &alarms[rng_below(&r, 40)];

        if (rng_chance(&r, 1, 3)) {
            loop_timer_stop(&a->timer);
            a->set = false;
        } else if (rng_chance(&r, 2, 3)) {
            alarm_set(a, (unsigned)(a - alarms) % 3, rng_below(&r, 50));
        } else {
            sim_step(alarm_sim);
        }
    }
    while (sim_step(alarm_sim))
        continue;
    for (unsigned i = 0; i < 40; i++)
        left += alarms[i].set;
    CHECK_EQ(left, 0);
    CHECK(n_log > 500);
    sim_free(alarm_sim);
}

static void test_clock_stands_still_while_a_task_can_run(void)
{
    struct sim *s = alarm_sim = sim_new(3);
    struct job jobs[10];
    struct alarm a = { .number = 99 };
    uint64_t start_us = sim_now_us(s);

    log_clear();
    alarm_set(&a, 0, 1000000);
    post_jobs(s, jobs, 10, 2);
    while (n_log < 10) {
        REQUIRE(sim_step(s));
        CHECK_EQ(sim_now_us(s), start_us);
    }
    CHECK(sim_step(s));
    CHECK_EQ(sim_now_us(s), start_us + 1000000);
    CHECK_EQ(log_of[10], 99);
    CHECK(!sim_step(s));
    sim_free(s);
}

static void test_wall_clock_jumps_alone(void)
{
    struct sim *s = sim_new(4);
    struct loop *l = sim_loop(s, 0);
    uint64_t now_us = loop_now_us(l);
    int64_t wall_ms = loop_wall_ms(l);

    CHECK_EQ(wall_ms, INT64_C(1700000000000) + (int64_t)now_us / 1000);
    sim_wall_jump(s, -5000);
    CHECK_EQ(loop_wall_ms(l), wall_ms - 5000);
    CHECK_EQ(loop_now_us(l), now_us);
    CHECK(sim_run_for(s, 7000, MANY_STEPS));
    CHECK_EQ(loop_wall_ms(l), wall_ms - 5000 + 7);
    CHECK_EQ(loop_now_us(l), now_us + 7000);
    sim_free(s);
}

struct errand {
    struct work work;
    uint64_t run_us;
    bool done;
    struct sim *sim;
};

static void errand_run(struct work *w)
{
    struct errand *e = (struct errand *)w;

    e->run_us = sim_now_us(e->sim);
    CHECK(!w->loop->ops->is_home(w->loop));
}

static void errand_done(struct work *w)
{
    struct errand *e = (struct errand *)w;

    CHECK(e->run_us > 0);
    CHECK(w->loop->ops->is_home(w->loop));
    e->done = true;
}

static bool errand_is_done(void *ctx)
{
    return ((struct errand *)ctx)->done;
}

static void test_pool_runs_work_off_the_loops_and_answers_on_one(void)
{
    unsigned late = 0;

    for (uint64_t seed = 0; seed < 300; seed++) {
        struct sim *s = sim_new(seed);
        struct errand e = { .work = { .run = errand_run, .done = errand_done }, .sim = s };
        uint64_t start_us = sim_now_us(s);

        e.work.loop = sim_loop(s, 1);
        pool_submit(sim_pool(s), &e.work);
        CHECK(!e.run_us);
        CHECK(sim_run_until(s, errand_is_done, &e, 10));
        CHECK(e.run_us - start_us <= 20000);
        late += e.run_us - start_us > 500;
        sim_free(s);
    }
    CHECK(late > 0 && late < 60);
}

static void device_fire(void *ctx)
{
    note(*(unsigned *)ctx);
}

static void test_a_crash_forgets_the_process_but_not_the_devices(void)
{
    struct sim *s = alarm_sim = sim_new(5);
    struct job jobs[4];
    struct alarm a = { 0 };
    struct errand e = { .work = { .run = errand_run, .done = errand_done }, .sim = s };
    unsigned number = 77;

    log_clear();
    post_jobs(s, jobs, 4, 2);
    alarm_set(&a, 0, 10);
    e.work.loop = sim_loop(s, 1);
    pool_submit(sim_pool(s), &e.work);
    sim_at(s, 500, device_fire, &number);
    sim_crash(s);
    loop_timer_stop(&a.timer); /* what cleans up afterwards may do so */
    while (sim_step(s))
        continue;
    CHECK_EQ(n_log, 1);
    CHECK_EQ(log_of[0], 77);
    CHECK(!e.run_us);
    post_jobs(s, jobs, 4, 2);
    while (sim_step(s))
        continue;
    CHECK_EQ(n_log, 5);
    sim_free(s);
}

/* --- rows --- */

struct found {
    uint8_t keys[600];
    uint64_t values[600];
    unsigned n;
    unsigned stop_at;
};

static int found_add(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct found *f = ctx;

    CHECK_EQ(key_bytes, 1);
    CHECK_EQ(value_bytes, sizeof(uint64_t));
    memcpy(&f->keys[f->n], key, 1);
    memcpy(&f->values[f->n], value, sizeof(uint64_t));
    f->n++;
    return f->stop_at && f->n == f->stop_at ? 42 : 0;
}

/* A naive model: one value a key of one byte, 0 is none. */
struct model {
    uint64_t values[256];
    uint64_t lsn;
};

/* One random batch, put into b and done to the model. */
static void random_batch(struct rng *r, struct rows_batch *b, struct model *m)
{
    unsigned n = 1 + (unsigned)rng_below(r, 6);

    while (n-- > 0) {
        uint8_t key = (uint8_t)rng_u64(r), to = (uint8_t)rng_u64(r);
        uint64_t value = rng_u64(r) | 1;

        if (rng_chance(r, 3, 5)) {
            rows_batch_put(b, &key, 1, &value, sizeof value);
            m->values[key] = value;
        } else if (rng_chance(r, 3, 4)) {
            rows_batch_delete(b, &key, 1);
            m->values[key] = 0;
        } else {
            to = (uint8_t)(key / 2 + to / 2);
            rows_batch_delete_range(b, &key, 1, &to, 1);
            for (unsigned k = key; k < to; k++)
                m->values[k] = 0;
        }
    }
}

static bool rows_match(struct rows *r, const struct model *m)
{
    struct found f = { 0 };
    unsigned at = 0;

    if (rows_replay_lsn(r) != m->lsn || rows_scan(r, "", 0, false, found_add, &f) != 0)
        return false;
    for (unsigned k = 0; k < 256; k++)
        if (m->values[k]) {
            if (at >= f.n || f.keys[at] != k || f.values[at] != m->values[k])
                return false;
            at++;
        }
    return at == f.n;
}

static void check_get(struct rows *rows, const struct model *m, uint8_t key)
{
    uint8_t *value = NULL;
    size_t bytes;
    uint64_t v;
    int rc = rows_get(rows, &key, 1, &value, &bytes);

    CHECK_EQ(rc, m->values[key] ? 0 : E_NOTFOUND);
    if (rc)
        return;
    CHECK_EQ(bytes, sizeof v);
    memcpy(&v, value, sizeof v);
    CHECK(v == m->values[key]);
    free(value);
}

/* Backwards from key, against the model. */
static void check_backwards(struct rows *rows, const struct model *m, uint8_t key)
{
    struct found f = { 0 };
    unsigned at = 0;

    CHECK_EQ(rows_scan(rows, &key, 1, true, found_add, &f), 0);
    for (int k = key; k >= 0; k--)
        if (m->values[k]) {
            CHECK(at < f.n && f.keys[at] == k);
            at++;
        }
    CHECK_EQ(at, f.n);
}

static void test_rows_agree_with_a_naive_model(void)
{
    struct sim_rows_store *store = sim_rows_store_new(NULL);
    struct model m = { 0 };
    struct found f = { .stop_at = 3 };
    struct rows *rows;
    struct rng r;

    rng_seed(&r, 11);
    REQUIRE(!rows_sim_open(&rows, store));
    for (unsigned i = 1; i <= 1000; i++) {
        struct rows_batch b = { 0 };

        random_batch(&r, &b, &m);
        m.lsn = i % 3 ? i : m.lsn;
        CHECK_EQ(rows_write(rows, &b, i % 3 ? i : 0), 0);
        rows_batch_free(&b);
        check_get(rows, &m, (uint8_t)i);
        check_backwards(rows, &m, (uint8_t)rng_u64(&r));
        if (i % 20 == 0)
            CHECK(rows_match(rows, &m));
    }
    CHECK_EQ(rows_scan(rows, "", 0, false, found_add, &f), 42);
    CHECK_EQ(f.n, 3);
    rows_close(rows);
    sim_rows_store_free(store);
}

static void test_rows_come_back_as_a_prefix_of_whole_batches(void)
{
    enum { BATCHES = 12, FLUSHED = 5, CLEARED = 8 };
    unsigned ends[BATCHES + 1] = { 0 };

    for (uint64_t seed = 0; seed < 300; seed++) {
        struct sim_rows_store *store = sim_rows_store_new(NULL);
        struct model states[BATCHES + 1] = { 0 };
        struct rows *rows, *old;
        struct rng r;
        unsigned i;

        rng_seed(&r, seed);
        REQUIRE(!rows_sim_open(&rows, store));
        for (i = 1; i <= BATCHES; i++) {
            struct rows_batch b = { 0 };

            states[i] = states[i - 1];
            if (i == CLEARED) {
                states[i] = (struct model){ 0 };
                CHECK_EQ(rows_clear(rows), 0);
                continue;
            }
            random_batch(&r, &b, &states[i]);
            states[i].lsn = i * 10;
            CHECK_EQ(rows_write(rows, &b, i * 10), 0);
            CHECK(rows_match(rows, &states[i]));
            rows_batch_free(&b);
            if (i == FLUSHED)
                CHECK_EQ(rows_flush(rows), 0);
        }
        CHECK_EQ(sim_rows_unflushed(store), BATCHES - FLUSHED);
        sim_rows_crash(store, &r, false);
        old = rows;
        REQUIRE(!rows_sim_open(&rows, store));
        CHECK_EQ(rows_flush(old), E_IO);
        CHECK_EQ(sim_rows_unflushed(store), 0);
        i = BATCHES - (unsigned)sim_rows_counts(store)->lost_batches;
        CHECK(i >= FLUSHED && rows_match(rows, &states[i]));
        ends[i]++;
        sim_rows_crash(store, &r, false); /* what came back is durable */
        rows_close(old);
        rows_close(rows);
        REQUIRE(!rows_sim_open(&rows, store));
        CHECK(rows_match(rows, &states[i]));
        rows_close(rows);
        sim_rows_store_free(store);
    }
    for (unsigned i = FLUSHED; i <= BATCHES; i++)
        CHECK(ends[i] > 5);
}

static void test_rows_can_be_lost_whole_and_fail_without_power(void)
{
    struct sim_disk *disk = sim_disk_new(1, 0);
    struct sim_rows_store *store = sim_rows_store_new(disk);
    struct model m = { 0 }, empty = { 0 }, unused = { 0 };
    struct rows_batch b = { 0 }, c = { 0 };
    struct rows *rows;
    struct rng r;

    rng_seed(&r, 12);
    REQUIRE(!rows_sim_open(&rows, store));
    random_batch(&r, &b, &m);
    random_batch(&r, &c, &unused);
    m.lsn = 5;
    sim_disk_power_off_after(disk, 2);
    CHECK_EQ(rows_write(rows, &b, 5), 0);
    CHECK_EQ(rows_flush(rows), 0);
    CHECK_EQ(rows_write(rows, &c, 6), E_IO);
    CHECK_EQ(rows_flush(rows), E_IO);
    CHECK_EQ(rows_clear(rows), E_IO);
    CHECK(rows_match(rows, &m));
    sim_disk_crash(disk, &r);
    sim_rows_crash(store, &r, true);
    rows_close(rows);
    REQUIRE(!rows_sim_open(&rows, store));
    CHECK(rows_match(rows, &empty));
    CHECK_EQ(rows_write(rows, &b, 1), 0);
    rows_close(rows);
    rows_batch_free(&b);
    rows_batch_free(&c);
    sim_rows_store_free(store);
    sim_disk_free(disk);
}

/* clang-format off */
TEST_MAIN(
    T(tasks_of_a_loop_keep_their_order_and_loops_interleave_by_seed)
    T(timers_fire_once_on_time_and_never_after_a_stop)
    T(clock_stands_still_while_a_task_can_run)
    T(wall_clock_jumps_alone)
    T(pool_runs_work_off_the_loops_and_answers_on_one)
    T(a_crash_forgets_the_process_but_not_the_devices)
    T(rows_agree_with_a_naive_model)
    T(rows_come_back_as_a_prefix_of_whole_batches)
    T(rows_can_be_lost_whole_and_fail_without_power))
