/* Retention: what policies let go goes, oldest first and no further, and its space comes back. */
#include "journal/retention.h"
#include "base/logger.h"
#include "journal/catalogue.h"
#include "journal/shard.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

#include <stdlib.h>
#include <string.h>

enum { HOUR_MS = 3600 * 1000, BATCH_BYTES = 2000 };

static void up(struct jrn_sim *js, uint64_t seed)
{
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(js, seed, 64 << 20, 2);
    js->conf.retention_check_ms = 100;
    js->conf.wal_age_ms = 500;
    REQUIRE(jrn_sim_open(js, &e) >= 0);
}

static void down(struct jrn_sim *js)
{
    jrn_sim_close(js);
    jrn_sim_fini(js);
}

static int change(struct jrn_sim *js, enum jrn_change_op op, uint64_t shard, struct shard_policy p)
{
    struct jrn_change c = { .op = op, .shard = shard, .policy = p };

    return call_update(js, &c, 1);
}

static struct shard_policy expiring(int64_t ms)
{
    return (struct shard_policy){ .flags = SHARD_EXPIRES, .retention_ms = ms };
}

static struct shard *made(struct jrn_sim *js, uint64_t id, struct shard_policy p)
{
    struct shard *s;

    REQUIRE(change(js, JRN_SHARD_CREATE, id, p) == 0);
    s = call_open(js, id, NULL);
    REQUIRE(s != NULL);
    return s;
}

/* n batches of one record with timestamps from `first` ms on, one ms apart. */
static void fill(struct jrn_sim *js, struct shard *s, uint64_t first, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        REQUIRE(call_append(js, s, call_batch(first + i, 1, BATCH_BYTES), NULL) == 0);
}

static uint64_t used_space(struct jrn_sim *js)
{
    uint64_t total, free_bytes;

    slabs_space(&js->st->slabs, &total, &free_bytes);
    return total - free_bytes;
}

static unsigned segments(const struct jrn_sim *js)
{
    return (unsigned)js->st->segments.by_id.count;
}

/* Everything that is in the WAL gets sealed, and what follows from it happens. */
static void rest(struct jrn_sim *js)
{
    call_wait_ms(js, 3000);
}

static void test_what_is_older_than_retention_goes_and_the_rest_stays(void)
{
    struct jrn_sim js;
    struct shard *old, *keep;
    struct call_bytes before = { 0 }, after = { 0 };
    int rc;

    up(&js, 1);
    keep = made(&js, 16, (struct shard_policy){ 0 });
    old = made(&js, 17, expiring(HOUR_MS));
    fill(&js, keep, 0, 40);
    fill(&js, old, 0, 40); /* these are an hour old at 3600000 */
    rest(&js);
    fill(&js, old, 1800000, 40);
    rest(&js);
    CHECK_EQ(shard_start(old), 0);
    call_read(&js, keep, 0, &before, &rc, NULL);
    call_wait_ms(&js, HOUR_MS);
    CHECK_EQ(shard_start(old), 40);
    CHECK_EQ(shard_end(old), 80);
    CHECK_EQ(call_read(&js, old, 40, NULL, &rc, NULL), 80);
    CHECK_EQ(shard_start(keep), 0);
    CHECK_EQ(call_read(&js, keep, 0, &after, &rc, NULL), 40);
    CHECK(before.n == after.n && memcmp(before.mem, after.mem, after.n) == 0);
    call_wait_ms(&js, HOUR_MS);
    CHECK_EQ(shard_start(old), 80);
    CHECK_EQ(shard_end(old), 80);
    free(before.mem);
    free(after.mem);
    shard_unref(keep);
    shard_unref(old);
    down(&js);
}

static void test_the_space_of_what_expired_comes_back(void)
{
    struct jrn_sim js;
    struct shard *s;
    uint64_t empty, full;
    unsigned n;

    up(&js, 2);
    s = made(&js, 16, expiring(HOUR_MS));
    fill(&js, s, 0, 1);
    rest(&js);
    empty = used_space(&js);
    n = segments(&js);
    fill(&js, s, 1, 150);
    rest(&js);
    full = used_space(&js);
    CHECK(full >= empty + 150 * BATCH_BYTES);
    CHECK(segments(&js) > n);
    call_wait_ms(&js, 2 * HOUR_MS);
    CHECK_EQ(shard_start(s), 151);
    CHECK(used_space(&js) < full - 150 * BATCH_BYTES / 2);
    shard_unref(s);
    down(&js);
}

static void test_a_partition_is_never_cut_below_its_bytes(void)
{
    struct jrn_sim js;
    struct shard *s;
    uint64_t start;

    up(&js, 3);
    s = made(&js, 16,
             (struct shard_policy){ .flags = SHARD_LIMITED, .retention_bytes = 50 * BATCH_BYTES });
    for (unsigned i = 0; i < 10; i++) {
        fill(&js, s, i * 20, 20);
        rest(&js);
        start = shard_start(s);
        CHECK((shard_end(s) - start) * (BATCH_BYTES + 100) >= 50 * BATCH_BYTES || start == 0);
    }
    start = shard_start(s);
    CHECK(start > 0);
    CHECK(shard_end(s) - start < 100); /* and not much above: runs of 20 and less */
    shard_unref(s);
    down(&js);
}

static void test_a_policy_changes_what_is_there_and_outlives_trims_and_restarts(void)
{
    struct jrn_sim js;
    struct shard *s;
    struct shard_policy p;
    struct err e = { 0 };

    for (unsigned lose_rows = 0; lose_rows < 2; lose_rows++) {
        up(&js, 4);
        s = made(&js, 16, (struct shard_policy){ 0 });
        fill(&js, s, 0, 40);
        rest(&js);
        call_wait_ms(&js, 2 * HOUR_MS);
        CHECK_EQ(shard_start(s), 0);
        CHECK_EQ(change(&js, JRN_SHARD_POLICY, 99, expiring(1)), E_NOTFOUND);
        CHECK_EQ(change(&js, JRN_SHARD_POLICY, 16, expiring(-1)), E_INVALID);
        CHECK_EQ(change(&js, JRN_SHARD_POLICY, 16, expiring(24 * HOUR_MS)), 0);
        CHECK_EQ(call_trim(&js, s, 10), 0);
        shard_unref(s);
        jrn_sim_crash(&js, lose_rows);
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        s = call_open(&js, 16, NULL);
        REQUIRE(s != NULL);
        shard_policy(s, &p);
        CHECK_EQ(p.flags, SHARD_EXPIRES);
        CHECK_EQ(p.retention_ms, 24 * HOUR_MS);
        CHECK_EQ(shard_start(s), 10);
        CHECK_EQ(change(&js, JRN_SHARD_POLICY, 16, expiring(HOUR_MS)), 0);
        rest(&js);
        CHECK_EQ(shard_start(s), 40);
        shard_unref(s);
        down(&js);
    }
}

static void test_a_shard_that_nobody_has_open_expires_too(void)
{
    struct jrn_sim js;
    struct shard *s;
    struct err e = { 0 };

    up(&js, 5);
    s = made(&js, 16, expiring(HOUR_MS));
    fill(&js, s, 0, 40);
    rest(&js);
    shard_unref(s);
    jrn_sim_close(&js);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    call_wait_ms(&js, 2 * HOUR_MS);
    s = call_open(&js, 16, NULL);
    REQUIRE(s != NULL);
    CHECK_EQ(shard_start(s), 40);
    CHECK_EQ(shard_end(s), 40);
    shard_unref(s);
    down(&js);
}

static void test_an_idle_store_comes_to_rest(void)
{
    struct jrn_sim js;
    struct shard *s;
    uint64_t ckpt, starts;

    up(&js, 6);
    s = made(&js, 16, (struct shard_policy){ 0 });
    fill(&js, s, 0, 5);
    rest(&js);
    CHECK_EQ(index_count(&s->index), 0); /* old enough: sealed, however little */
    ckpt = js.st->super.ckpt_lsn;
    starts = js.st->segment_serial;
    call_wait_ms(&js, HOUR_MS);
    CHECK_EQ(js.st->super.ckpt_lsn, ckpt);
    CHECK_EQ(js.st->segment_serial, starts);
    shard_unref(s);
    down(&js);
}

static void test_shards_of_one_class_lie_together_and_apart_from_others(void)
{
    static const int64_t hours[] = { 1, 24, 7 * 24, 30 * 24, 10000 };
    struct shard_policy p[7] = { { 0 } };
    struct jrn_sim js;

    up(&js, 7);
    for (unsigned i = 0; i < 5; i++)
        p[1 + i] = expiring(hours[i] * HOUR_MS);
    p[6] = expiring(1);
    p[6].flags |= SHARD_COMPACTED;
    for (unsigned i = 0; i < 7; i++) {
        for (unsigned k = 0; k < 7; k++) {
            uint64_t a = catalogue_group_for(js.st, SHARD_CLASS_DATA, &p[i], 16);
            uint64_t b = catalogue_group_for(js.st, SHARD_CLASS_DATA, &p[k], 16);
            uint64_t c = catalogue_group_for(js.st, SHARD_CLASS_DATA, &p[k], 18);

            CHECK((a == b) == (i == k));
            CHECK_EQ(b, c); /* two loops: every other shard */
        }
    }
    down(&js);
}

TEST_MAIN(T(what_is_older_than_retention_goes_and_the_rest_stays)
              T(the_space_of_what_expired_comes_back) T(a_partition_is_never_cut_below_its_bytes)
                  T(a_policy_changes_what_is_there_and_outlives_trims_and_restarts)
                      T(a_shard_that_nobody_has_open_expires_too) T(an_idle_store_comes_to_rest)
                          T(shards_of_one_class_lie_together_and_apart_from_others))
