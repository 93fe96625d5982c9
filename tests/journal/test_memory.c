/* Shards of kind MEMORY: bounded, volatile, at once, and no offset twice. */
#include "journal/memory.h"

#include <stdlib.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/catalogue.h"
#include "tests/check.h"
#include "tests/sim/jrn_kinds.h"

static void open_sim(struct jrn_sim *js, uint64_t seed, unsigned loops)
{
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(js, seed, 32 << 20, loops);
    REQUIRE(jrn_sim_open(js, &e) >= 0);
}

static void reopen(struct jrn_sim *js)
{
    struct err e = { 0 };

    REQUIRE(jrn_sim_open(js, &e) >= 0);
}

static struct shard *make(struct jrn_sim *js, uint64_t id, const struct shard_policy *policy)
{
    struct shard *s;

    REQUIRE(kind_create(js, id, SHARD_MEMORY, policy) >= 0);
    s = call_open(js, id, NULL);
    REQUIRE(s != NULL);
    CHECK(shard_kind(s) == SHARD_MEMORY && shard_is_volatile(s));
    return s;
}

static void end_sim(struct jrn_sim *js)
{
    jrn_sim_close(js);
    jrn_sim_fini(js);
    CHECK_EQ(buf_total_bytes(), 0);
}

static void test_what_is_appended_is_read_with_its_offset_and_epoch(void)
{
    struct call_bytes read = { 0 };
    struct batch_head h;
    struct jrn_sim js;
    struct shard *s;
    uint64_t offset;
    int rc;

    open_sim(&js, 1, 2);
    s = make(&js, 16, NULL);
    for (unsigned i = 0; i < 50; i++) {
        REQUIRE(call_append(&js, s, call_batch(i, 2, 100), &offset) >= 0);
        CHECK_EQ(offset, 2 * i);
        CHECK_EQ(shard_end(s), 2 * i + 2);
    }
    CHECK_EQ(call_read(&js, s, 0, &read, &rc, NULL), 100);
    CHECK_EQ(rc, 0);
    REQUIRE(batch_check(&h, read.mem, read.n) >= 0);
    CHECK_EQ(h.base_offset, 0);
    CHECK_EQ(h.leader_epoch, shard_epoch(s));
    call_read(&js, s, 101, NULL, &rc, NULL);
    CHECK_EQ(rc, E_RANGE);
    free(read.mem);
    shard_unref(s);
    end_sim(&js);
}

static void test_only_offsets_reach_the_device_and_no_append_waits_for_them_but_the_first(void)
{
    struct jrn_sim js;
    struct shard *s;
    uint64_t before, updates = 0, end;

    open_sim(&js, 2, 1);
    s = make(&js, 16, NULL);
    REQUIRE(call_append(&js, s, call_batch(0, 1, 0), NULL) >= 0);
    end = shard_end(js.st->catalogue_shard);
    for (unsigned i = 1; i < 1500; i++) {
        before = sim_now_us(js.sim);
        REQUIRE(call_append(&js, s, call_batch(i, 1400, 0), NULL) >= 0);
        /* Virtual time moves only when something must be waited for. */
        CHECK_EQ(sim_now_us(js.sim), before);
        call_wait_ms(&js, 1);
        updates += shard_end(js.st->catalogue_shard) != end;
        end = shard_end(js.st->catalogue_shard);
    }
    /* Two million offsets, asked for half a million at a time or more. */
    CHECK(updates >= 2 && updates <= 5);
    CHECK_EQ(s->index.end - s->index.first, 0);
    shard_unref(s);
    end_sim(&js);
}

static void test_the_ring_holds_the_newest_batches_within_its_bytes(void)
{
    struct shard_policy p = { .flags = SHARD_LIMITED, .retention_bytes = 10000 };
    struct call_bytes read = { 0 };
    struct jrn_sim js;
    struct shard *s;
    int rc;

    open_sim(&js, 3, 1);
    s = make(&js, 16, &p);
    for (unsigned i = 0; i < 100; i++)
        REQUIRE(call_append(&js, s, call_batch(i, 1, 900), NULL) >= 0);
    CHECK(shard_start(s) > 85 && shard_start(s) < 95);
    CHECK_EQ(call_read(&js, s, shard_start(s), &read, &rc, NULL), 100);
    CHECK(read.n <= 10000 && read.n > 9000);
    call_read(&js, s, shard_start(s) - 1, NULL, &rc, NULL);
    CHECK_EQ(rc, E_RANGE);
    /* Memory is that of the batches, and a part of one chunk at either end. */
    CHECK(memories_bytes(js.st->memories) <= 10000 + 2 * 4096);
    free(read.mem);
    shard_unref(s);
    end_sim(&js);
}

static void test_a_batch_larger_than_the_ring_is_kept_alone(void)
{
    struct shard_policy p = { .flags = SHARD_LIMITED, .retention_bytes = 1000 };
    struct jrn_sim js;
    struct shard *s;
    int rc;

    open_sim(&js, 4, 1);
    s = make(&js, 16, &p);
    for (unsigned i = 0; i < 3; i++)
        REQUIRE(call_append(&js, s, call_batch(i, 1, 20000), NULL) >= 0);
    CHECK_EQ(shard_start(s), 2);
    CHECK_EQ(call_read(&js, s, 2, NULL, &rc, NULL), 3);
    shard_unref(s);
    end_sim(&js);
}

/* Sets the policy and lets the home loop take it. */
static void set_policy(struct jrn_sim *js, uint64_t shard, const struct shard_policy *p)
{
    struct jrn_change c = { .op = JRN_SHARD_POLICY, .shard = shard, .policy = *p };

    REQUIRE(call_update(js, &c, 1) >= 0);
    call_wait_ms(js, 1);
}

static void test_a_new_policy_bounds_the_ring_at_once_and_leaves_its_offsets(void)
{
    struct shard_policy p = { .flags = SHARD_LIMITED, .retention_bytes = 100000 };
    struct row_shard before, after;
    struct jrn_sim js;
    struct shard *s;
    uint64_t offset;

    open_sim(&js, 6, 2);
    s = make(&js, 16, &p);
    for (unsigned i = 0; i < 50; i++)
        REQUIRE(call_append(&js, s, call_batch(i, 1, 900), NULL) >= 0);
    CHECK_EQ(shard_start(s), 0);
    REQUIRE(catalogue_shard_row(js.st, 16, &before) >= 0);
    CHECK(before.start >= MEMORY_RESERVE / 2); /* above the shard's own */
    p.retention_bytes = 10000;
    set_policy(&js, 16, &p);
    CHECK(shard_start(s) > 35 && shard_start(s) < 45);
    REQUIRE(catalogue_shard_row(js.st, 16, &after) >= 0);
    CHECK_EQ(after.start, before.start);
    CHECK_EQ(after.policy.retention_bytes, 10000);
    REQUIRE(call_append(&js, s, call_batch(50, 1, 900), &offset) >= 0);
    CHECK_EQ(offset, 50);
    shard_unref(s);
    jrn_sim_kill(&js, false);
    reopen(&js);
    s = call_open(&js, 16, NULL);
    REQUIRE(s != NULL);
    CHECK_EQ(shard_start(s), before.start);
    for (unsigned i = 0; i < 50; i++)
        REQUIRE(call_append(&js, s, call_batch(i, 1, 900), NULL) >= 0);
    CHECK(shard_start(s) > before.start + 35);
    shard_unref(s);
    end_sim(&js);
}

static void test_a_policy_that_expires_is_the_rings_own_affair(void)
{
    struct shard_policy p = { .flags = SHARD_EXPIRES, .retention_ms = 5000 };
    struct jrn_sim js;
    struct shard *s;
    uint64_t reserved;
    struct row_shard row;

    open_sim(&js, 7, 1);
    s = make(&js, 16, NULL);
    for (unsigned i = 0; i < 10; i++)
        REQUIRE(call_append(&js, s, call_batch(i, 1, 100), NULL) >= 0);
    REQUIRE(catalogue_shard_row(js.st, 16, &row) >= 0);
    reserved = row.start;
    call_wait_ms(&js, 60000);
    CHECK_EQ(shard_start(s), 0); /* kept, without one */
    set_policy(&js, 16, &p);
    CHECK_EQ(shard_start(s), 10);
    CHECK_EQ(shard_end(s), 10);
    call_wait_ms(&js, 60000);
    REQUIRE(catalogue_shard_row(js.st, 16, &row) >= 0);
    CHECK_EQ(row.start, reserved); /* nobody else trims it */
    for (unsigned i = 0; i < js.st->n_groups; i++)
        CHECK(js.st->groups[i]->least_retention_ms == INT64_MAX);
    shard_unref(s);
    end_sim(&js);
}

/* how: 0 close, 1 kill, 2 power cut, 3 the same with the rows lost. */
static void life_ends(struct jrn_sim *js, unsigned how)
{
    if (how == 0)
        jrn_sim_close(js);
    else if (how == 1)
        jrn_sim_kill(js, false);
    else
        jrn_sim_crash(js, how == 3);
    reopen(js);
}

static void test_after_a_restart_it_is_empty_and_begins_above_every_offset_given(void)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct jrn_sim js;
        struct shard *s;
        uint64_t given, offset;
        int rc;

        open_sim(&js, seed, 1 + (unsigned)seed % 3);
        s = make(&js, 16, NULL);
        given = 0;
        for (unsigned life = 0; life < 6; life++) {
            for (unsigned i = 0; i < 1 + seed % 5; i++) {
                REQUIRE(call_append(&js, s, call_batch(i, 3, 10), &offset) >= 0);
                CHECK(offset >= given);
                given = offset + 3;
            }
            shard_unref(s);
            life_ends(&js, (unsigned)(seed + life) % 4);
            s = call_open(&js, 16, &rc);
            REQUIRE(s != NULL);
            CHECK_EQ(shard_start(s), shard_end(s));
            CHECK(shard_start(s) >= given);
            CHECK_EQ(call_read(&js, s, shard_end(s), NULL, &rc, NULL), shard_end(s));
            CHECK_EQ(rc, 0);
        }
        shard_unref(s);
        end_sim(&js);
    }
}

static void test_the_largest_ring_gives_way_when_all_together_hold_too_much(void)
{
    struct jrn_sim js;
    struct shard *large, *small[3];

    logger_to(-1);
    jrn_sim_init(&js, 5, 32 << 20, 3);
    js.conf.memory_bytes = 256 << 10;
    reopen(&js);
    for (unsigned i = 0; i < 3; i++) {
        small[i] = make(&js, 17 + i, NULL);
        for (unsigned k = 0; k < 10; k++)
            REQUIRE(call_append(&js, small[i], call_batch(k, 1, 2000), NULL) >= 0);
    }
    large = make(&js, 20, NULL);
    for (unsigned k = 0; k < 500; k++) {
        REQUIRE(call_append(&js, large, call_batch(k, 1, 2000), NULL) >= 0);
        CHECK(memories_bytes(js.st->memories) <= (256 << 10) + (32 << 10) + 32768);
    }
    call_wait_ms(&js, 1);
    CHECK(memories_bytes(js.st->memories) <= 256 << 10);
    CHECK(shard_start(large) > 300);
    CHECK(shard_end(large) - shard_start(large) > 30);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(shard_start(small[i]), 0);
        shard_unref(small[i]);
    }
    shard_unref(large);
    end_sim(&js);
}

static void test_what_is_too_old_goes_though_nobody_touches_the_shard(void)
{
    struct shard_policy p = { .flags = SHARD_EXPIRES };
    struct jrn_sim js;
    struct shard *s;

    open_sim(&js, 6, 2);
    /* The batches say the time at which the simulator began. */
    p.retention_ms = (int64_t)(sim_now_us(js.sim) / 1000) + 5000;
    s = make(&js, 16, &p);
    for (unsigned i = 0; i < 3; i++)
        REQUIRE(call_append(&js, s, call_batch(i, 1, 50), NULL) >= 0);
    call_wait_ms(&js, 4000);
    CHECK_EQ(shard_start(s), 0);
    call_wait_ms(&js, 3000);
    CHECK_EQ(shard_start(s), 3);
    CHECK_EQ(shard_end(s), 3);
    CHECK_EQ(memories_bytes(js.st->memories), 0);
    shard_unref(s);
    end_sim(&js);
}

static void test_a_repeat_is_known_and_a_gap_refused(void)
{
    struct call_append a;
    struct jrn_sim js;
    struct shard *s;

    open_sim(&js, 7, 1);
    s = make(&js, 16, NULL);
    REQUIRE(call_append(&js, s, call_batch_of(9, 0, 0, 2, 10), NULL) >= 0);
    REQUIRE(call_append(&js, s, call_batch_of(9, 0, 2, 2, 10), NULL) >= 0);
    call_append_begin(&js, s, call_batch_of(9, 0, 0, 2, 10), &a);
    CHECK_EQ(call_append_end(&js, &a), 0);
    CHECK(a.d.duplicate);
    CHECK_EQ(a.d.base_offset, 0);
    CHECK_EQ(call_append(&js, s, call_batch_of(9, 0, 9, 2, 10), NULL), E_SEQUENCE);
    CHECK_EQ(shard_end(s), 4);
    shard_unref(s);
    end_sim(&js);
}

static void test_a_trim_inside_a_batch_hides_only_what_is_below(void)
{
    struct jrn_sim js;
    struct shard *s;
    bool found;
    uint64_t offset;
    int64_t ts;
    int rc;

    open_sim(&js, 8, 1);
    s = make(&js, 16, NULL);
    for (unsigned i = 0; i < 4; i++)
        REQUIRE(call_append(&js, s, call_batch(i, 3, 10), NULL) >= 0);
    CHECK_EQ(call_trim(&js, s, 4), 0);
    CHECK_EQ(shard_start(s), 4);
    call_read(&js, s, 3, NULL, &rc, NULL);
    CHECK_EQ(rc, E_RANGE);
    CHECK_EQ(call_read(&js, s, 4, NULL, &rc, NULL), 12);
    CHECK_EQ(kind_find_time(&js, s, 0, &found, &offset, &ts), 0);
    CHECK(found);
    CHECK_EQ(offset, 4);
    CHECK_EQ(kind_find_time(&js, s, SHARD_TIME_MAX, &found, &offset, &ts), 0);
    CHECK_EQ(offset, 9);
    CHECK_EQ(call_trim(&js, s, 100), 0);
    CHECK_EQ(shard_start(s), 12);
    CHECK_EQ(kind_find_time(&js, s, 0, &found, &offset, &ts), 0);
    CHECK(!found);
    shard_unref(s);
    end_sim(&js);
}

static void test_readers_keep_what_they_were_given_though_the_ring_lets_it_go(void)
{
    struct shard_policy p = { .flags = SHARD_LIMITED, .retention_bytes = 3000 };
    struct jrn_sim js;
    struct shard *s, *again;
    int rc;

    open_sim(&js, 9, 1);
    s = make(&js, 16, &p);
    REQUIRE(call_append(&js, s, call_batch(0, 1, 100), NULL) >= 0);
    again = call_open(&js, 16, NULL);
    CHECK(again == s);
    for (unsigned i = 1; i < 60; i++) {
        REQUIRE(call_append(&js, s, call_batch(i, 1, 700), NULL) >= 0);
        CHECK(call_read(&js, s, shard_start(s), NULL, &rc, NULL) == i + 1);
    }
    shard_unref(again);
    shard_unref(s);
    end_sim(&js);
}

static void test_a_deleted_one_refuses_and_its_memory_is_free(void)
{
    struct jrn_sim js;
    struct shard *s;
    int rc;

    open_sim(&js, 10, 2);
    s = make(&js, 16, NULL);
    for (unsigned i = 0; i < 20; i++)
        REQUIRE(call_append(&js, s, call_batch(i, 1, 500), NULL) >= 0);
    CHECK_EQ(call_delete(&js, 16), 0);
    call_wait_ms(&js, 1);
    CHECK_EQ(memories_bytes(js.st->memories), 0);
    CHECK_EQ(call_append(&js, s, call_batch(0, 1, 5), NULL), E_DELETED);
    call_read(&js, s, 0, NULL, &rc, NULL);
    CHECK_EQ(rc, E_DELETED);
    shard_unref(s);
    end_sim(&js);
}

static void test_appends_that_wait_for_offsets_are_answered_in_order_or_with_the_deletion(void)
{
    struct call_append a[4];
    struct jrn_sim js;
    struct shard *s;

    open_sim(&js, 11, 1);
    s = make(&js, 16, NULL);
    for (unsigned i = 0; i < 4; i++)
        call_append_begin(&js, s, call_batch(i, 2, 5), &a[i]);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(call_append_end(&js, &a[i]), 0);
        CHECK_EQ(a[i].d.base_offset, 2 * i);
    }
    shard_unref(s);
    s = make(&js, 17, NULL);
    call_append_begin(&js, s, call_batch(0, 2, 5), &a[0]);
    CHECK_EQ(call_delete(&js, 17), 0);
    CHECK(call_append_end(&js, &a[0]) == 0 || a[0].d.rc == E_DELETED);
    shard_unref(s);
    end_sim(&js);
}

TEST_MAIN(
    T(what_is_appended_is_read_with_its_offset_and_epoch) T(
        only_offsets_reach_the_device_and_no_append_waits_for_them_but_the_first)
        T(the_ring_holds_the_newest_batches_within_its_bytes) T(
            a_batch_larger_than_the_ring_is_kept_alone)
            T(after_a_restart_it_is_empty_and_begins_above_every_offset_given) T(
                the_largest_ring_gives_way_when_all_together_hold_too_much)
                T(what_is_too_old_goes_though_nobody_touches_the_shard) T(
                    a_repeat_is_known_and_a_gap_refused)
                    T(a_trim_inside_a_batch_hides_only_what_is_below) T(
                        readers_keep_what_they_were_given_though_the_ring_lets_it_go)
                        T(a_deleted_one_refuses_and_its_memory_is_free) T(
                            appends_that_wait_for_offsets_are_answered_in_order_or_with_the_deletion)
                            T(a_new_policy_bounds_the_ring_at_once_and_leaves_its_offsets)
                                T(a_policy_that_expires_is_the_rings_own_affair))
