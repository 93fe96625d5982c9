/* Space: watermarks slow and then refuse producers, and what gives space back works at any time. */
#include "journal/space.h"

#include "base/logger.h"
#include "journal/store.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

enum { EXTENT = 65536, SPACE = 64 * EXTENT, APPENDS_MAX = 4000, SHARDS = 3 };

static unsigned urged;

static void urgent(struct store *st)
{
    urged++;
}

static void begin(struct jrn_sim *js, uint64_t seed)
{
    struct err e = { 0 };

    logger_to(-1);
    urged = 0;
    jrn_sim_init(js, seed, 64 << 20, 1);
    js->conf.space_max = SPACE;
    js->conf.wal_budget = EXTENT;
    js->conf.slab_max = 8 * EXTENT;
    js->conf.space_urgent = 30;
    js->conf.space_throttle = 40;
    js->conf.space_refuse = 55;
    REQUIRE(jrn_sim_open(js, &e) >= 0);
    js->st->retention_urgent = urgent;
}

static struct jrn_device_info info_of(struct jrn_sim *js)
{
    struct jrn_device_info info;

    REQUIRE(journal_device_info(js->j, 0, &info) >= 0);
    return info;
}

static struct shard *make(struct jrn_sim *js, uint64_t id, enum shard_class class)
{
    REQUIRE(call_create(js, id, class) >= 0);
    return call_open(js, id, NULL);
}

/* Appends until it is refused; gives how many were taken. *slowest: the longest an answer took. */
static unsigned fill(struct jrn_sim *js, struct shard *s, uint64_t *slowest)
{
    *slowest = 0;
    for (unsigned n = 0; n < APPENDS_MAX; n++) {
        uint64_t before = sim_now_us(js->sim);
        int rc = call_append(js, s, call_batch(n, 1, 16000), NULL);

        if (rc == E_NOSPACE)
            return n;
        CHECK_EQ(rc, 0);
        if (sim_now_us(js->sim) - before > *slowest)
            *slowest = sim_now_us(js->sim) - before;
    }
    return APPENDS_MAX;
}

static void test_producers_are_slowed_then_refused_and_taken_again_after_a_deletion(void)
{
    struct jrn_device_info info;
    struct jrn_sim js;
    uint64_t slowest;
    unsigned n;

    begin(&js, 1);
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = make(&js, 16 + i, SHARD_CLASS_DATA);

        n = fill(&js, s, &slowest);
        CHECK(n > 50 && n < APPENDS_MAX);
        CHECK(slowest > 50 * 1000); /* it was slowed before it was refused */
        CHECK(urged > 0);
        info = info_of(&js);
        CHECK_EQ(info.state, JRN_FULL);
        CHECK(info.fullness >= 400 && info.fullness < 800);
        CHECK_EQ(journal_state(js.j), JRN_FULL);
        shard_unref(s);
        REQUIRE(call_delete(&js, 16 + i) >= 0);
        call_wait_ms(&js, 3000);
        info = info_of(&js);
        CHECK_EQ(info.state, JRN_OK);
        CHECK(info.fullness < 300);
        CHECK_EQ(info.throttle_us, 0);
    }
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_a_full_device_takes_trims_and_what_is_internal(void)
{
    struct jrn_sim js;
    struct shard *s, *own;
    uint64_t slowest;

    begin(&js, 2);
    s = make(&js, 16, SHARD_CLASS_DATA);
    own = make(&js, 17, SHARD_CLASS_INTERNAL);
    CHECK(fill(&js, s, &slowest) < APPENDS_MAX);
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQ(call_append(&js, own, call_batch(i, 1, 100), NULL), 0);
    CHECK_EQ(call_append(&js, s, call_batch(1, 1, 100), NULL), E_NOSPACE);
    CHECK_EQ(call_create(&js, 18, SHARD_CLASS_DATA), 0);
    CHECK_EQ(call_trim(&js, s, shard_end(s)), 0);
    call_wait_ms(&js, 3000);
    CHECK_EQ(info_of(&js).state, JRN_OK);
    CHECK_EQ(call_append(&js, s, call_batch(1, 1, 100), NULL), 0);
    shard_unref(s);
    shard_unref(own);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_a_level_ends_below_where_it_began(void)
{
    struct jrn_sim js;
    struct shard *s;
    uint64_t slowest, end;
    unsigned changes = 0;
    enum jrn_state was = JRN_FULL;

    begin(&js, 3);
    s = make(&js, 16, SHARD_CLASS_DATA);
    CHECK(fill(&js, s, &slowest) < APPENDS_MAX);
    /* Trimmed a little at a time, it becomes well once and stays so. */
    end = shard_end(s);
    for (uint64_t at = 1; at <= end; at++) {
        REQUIRE(call_trim(&js, s, at) >= 0);
        call_wait_ms(&js, 300);
        changes += info_of(&js).state != was;
        was = info_of(&js).state;
    }
    CHECK_EQ(was, JRN_OK);
    CHECK_EQ(changes, 1);
    shard_unref(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_what_is_used_is_counted_by_what_it_is(void)
{
    struct jrn_device_info info;
    struct jrn_sim js;
    struct shard *s;
    uint64_t slowest;

    begin(&js, 4);
    s = make(&js, 16, SHARD_CLASS_DATA);
    CHECK(fill(&js, s, &slowest) < APPENDS_MAX);
    call_wait_ms(&js, 5000);
    info = info_of(&js);
    CHECK(info.limit <= SPACE && info.total <= info.limit && info.free < info.total);
    CHECK(info.segment_live > shard_end(s) / 2 * 16000);
    CHECK_EQ(info.wal + info.segment_live + info.segment_dead + info.grave, info.total - info.free);
    shard_unref(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_marks_that_make_no_sense_are_refused(void)
{
    static const uint32_t bad[][3] = {
        { 90, 80, 95 }, { 80, 96, 95 }, { 80, 90, 99 }, { 1, 2, 3 }
    };
    struct jrn_sim js;

    logger_to(-1);
    jrn_sim_init(&js, 5, 64 << 20, 1);
    for (unsigned i = 0; i < 4; i++) {
        js.conf.space_urgent = bad[i][0];
        js.conf.space_throttle = bad[i][1];
        js.conf.space_refuse = bad[i][2];
        CHECK_EQ(jrn_sim_open(&js, NULL), E_INVALID);
    }
    jrn_sim_fini(&js);
}

TEST_MAIN(T(producers_are_slowed_then_refused_and_taken_again_after_a_deletion)
              T(a_full_device_takes_trims_and_what_is_internal) T(a_level_ends_below_where_it_began)
                  T(what_is_used_is_counted_by_what_it_is) T(marks_that_make_no_sense_are_refused))
