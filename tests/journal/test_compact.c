/* Log compaction on a simulated store, step by step; random work is the simulator's (test_sim). */
#include "journal/compact.h"
#include "base/logger.h"
#include "format/batch_keep.h"
#include "journal/destage.h"
#include "journal/rewrite.h"
#include "journal/stats.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

#include <stdlib.h>

enum {
    SHARD = 16,
    OTHER = 17,
    KEYS = 5,
    STEPS = 2000000,
    EXTENT = 2 * UNIT_BYTES,
    MINUTE = 60000,
    HOUR_MS = 3600000,
    OPS_MAX = 2000
};

static int create(struct jrn_sim *js, uint64_t id, int64_t lag_ms, int64_t delete_ms)
{
    struct jrn_change c = { .op = JRN_SHARD_CREATE, .shard = id };

    c.policy.flags = SHARD_COMPACTED;
    c.policy.min_compaction_lag_ms = lag_ms;
    c.policy.delete_retention_ms = delete_ms;
    return call_update(js, &c, 1);
}

/* A store in which nothing is destaged until a test says so. check_ms: how often it looks for dirty
 * shards by itself. */
static struct shard *up_as(struct jrn_sim *js, uint32_t check_ms, int64_t lag_ms, int64_t delete_ms)
{
    struct err e = { 0 };
    struct shard *s;

    js->conf.wal_budget = 1 << 30;
    js->conf.wal_extent = EXTENT;
    js->conf.slab_first = js->conf.slab_max = 32 * UNIT_BYTES;
    js->conf.compact_check_ms = check_ms;
    js->conf.delete_grace_ms = 1;
    REQUIRE(jrn_sim_open(js, &e) >= 0);
    REQUIRE(create(js, SHARD, lag_ms, delete_ms) == 0);
    s = call_open(js, SHARD, NULL);
    REQUIRE(s != NULL);
    return s;
}

static struct shard *up(struct jrn_sim *js, uint64_t seed, uint32_t check_ms, int64_t lag_ms,
                        int64_t delete_ms)
{
    logger_to(-1);
    jrn_sim_init(js, seed, 64 << 20, 1);
    return up_as(js, check_ms, lag_ms, delete_ms);
}

static void down(struct jrn_sim *js, struct shard *s)
{
    shard_unref(s);
    jrn_sim_close(js);
    jrn_sim_fini(js);
}

/* One record; value_bytes below 0: none. key below 0: none. */
static struct buf *record(struct jrn_sim *js, int key, int value_bytes, int64_t producer,
                          int32_t sequence)
{
    static uint8_t value[60000];
    struct batch_builder b = { .has_producer = producer >= 0,
                               .producer_id = producer,
                               .base_sequence = sequence };
    struct batch_new_record r = { .timestamp = loop_wall_ms(js->loops[0]) };
    struct buf *out = NULL;

    if (key >= 0) {
        r.key = &key;
        r.key_bytes = sizeof key;
    }
    if (value_bytes >= 0) {
        r.value = value;
        r.value_bytes = (size_t)value_bytes;
    }
    batch_builder_add(&b, &r);
    REQUIRE(batch_builder_finish(&b, CODEC_NONE, &out) >= 0);
    batch_builder_free(&b);
    return out;
}

static uint64_t put(struct jrn_sim *js, struct shard *s, int key, int value_bytes)
{
    uint64_t offset = UINT64_MAX;

    REQUIRE(call_append(js, s, record(js, key, value_bytes, -1, 0), &offset) == 0);
    return offset;
}

/* Fills the WAL with another shard's records until what it held is closed. */
static void fill(struct jrn_sim *js, struct shard *s)
{
    for (unsigned i = 0; i < 6; i++)
        put(js, s, -1, 30000);
}

static void destage_now(struct store *st, void *arg)
{
    destage_consider(st, true);
}

static void compact_now(struct store *st, void *arg)
{
    compact_consider(st, true);
}

static bool is_quiet(void *ctx)
{
    struct store *st = ((struct jrn_sim *)ctx)->st;

    return destage_idle(st->destage) && compact_idle(st->compact) && rewrite_idle(st->rewrite);
}

static void settle(struct jrn_sim *js)
{
    REQUIRE(sim_run_until(js->sim, is_quiet, js, STEPS));
}

/* Moves all that is closed into segments. */
static void destage_all(struct jrn_sim *js)
{
    uint64_t closed = 1;

    while (closed > 0) {
        store_on_keeper(js->st, destage_now, NULL);
        call_wait_ms(js, 20);
        settle(js);
        closed = wal_live(&js->st->wal).closed_bytes;
    }
}

static void compact_all(struct jrn_sim *js)
{
    for (unsigned i = 0; i < 4; i++) {
        store_on_keeper(js->st, compact_now, NULL);
        call_wait_ms(js, 20);
        settle(js);
    }
}

/* Everything so far into segments, and compacted. */
static void clean(struct jrn_sim *js)
{
    struct shard *other = call_open(js, OTHER, NULL);

    if (!other) {
        REQUIRE(call_create(js, OTHER, SHARD_CLASS_DATA) == 0);
        other = call_open(js, OTHER, NULL);
    }
    fill(js, other);
    shard_unref(other);
    destage_all(js);
    compact_all(js);
}

static struct row_cleaned row(struct jrn_sim *js, uint64_t shard)
{
    struct row_cleaned v = { 0 };
    uint8_t key[ROW_KEY_MAX], *mem;
    size_t bytes;

    if (rows_get(js->st->rows, key, row_key(key, ROW_CLEANED, shard), &mem, &bytes) >= 0) {
        CHECK_EQ(row_cleaned_read(&v, mem, bytes), 0);
        free(mem);
    }
    return v;
}

/* Which offsets below `max` have a record; the shard's batches must follow one another. */
static uint64_t records(struct jrn_sim *js, struct shard *s, unsigned max)
{
    struct call_bytes all = { 0 };
    uint64_t there = 0;
    size_t at = 0;
    int rc;

    CHECK_EQ(call_read(js, s, shard_start(s), &all, &rc, NULL), shard_end(s));
    CHECK_EQ(rc, 0);
    while (at < all.n) {
        struct batch_iter it;
        struct batch_record r;

        REQUIRE(batch_iter_open(&it, all.mem + at, all.n - at, 1 << 20) >= 0);
        at += it.head.bytes;
        while (batch_iter_next(&it, &r) == 1)
            if (r.offset < max)
                there |= (uint64_t)1 << r.offset;
        batch_iter_close(&it);
    }
    free(all.mem);
    return there;
}

static unsigned n_records(struct jrn_sim *js, struct shard *s)
{
    struct call_bytes all = { 0 };
    unsigned n = 0;
    int rc;

    CHECK_EQ(call_read(js, s, 0, &all, &rc, NULL), shard_end(s));
    for (size_t at = 0; at < all.n;) {
        struct batch_head h;

        REQUIRE(batch_head_read(&h, all.mem + at, all.n - at) >= 0);
        n += (unsigned)h.record_count;
        at += h.bytes;
    }
    free(all.mem);
    return n;
}

static uint64_t bit(uint64_t offset)
{
    return (uint64_t)1 << offset;
}

static uint64_t live_bytes(struct jrn_sim *js)
{
    uint64_t pos = 0, sum = 0;
    void *value;

    while (hash_next(&js->st->segments.by_id, &pos, NULL, &value))
        sum += ((struct segment *)value)->live;
    return sum;
}

static uint64_t free_bytes(struct jrn_sim *js)
{
    uint64_t total, n;

    slabs_space(&js->st->slabs, &total, &n);
    return n;
}

/* --- what stays --- */

static void test_the_latest_record_of_each_key_stays_at_its_offset(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 1, 100, 0, 0);

    for (unsigned i = 0; i < 4 * KEYS; i++)
        CHECK_EQ(put(&js, s, (int)(i % KEYS), 100), i);
    clean(&js);
    CHECK_EQ(row(&js, SHARD).cleaned, 4 * KEYS);
    CHECK_EQ(records(&js, s, 64), (bit(4 * KEYS) - 1) & ~(bit(3 * KEYS) - 1));
    CHECK_EQ(shard_start(s), 0);
    CHECK_EQ(shard_end(s), 4 * KEYS);
    down(&js, s);
}

static void test_records_without_a_key_go(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 2, 100, 0, 0);

    put(&js, s, -1, 100);
    put(&js, s, 1, 100);
    put(&js, s, -1, 100);
    clean(&js);
    CHECK_EQ(records(&js, s, 64), bit(1));
    down(&js, s);
}

static void test_what_is_in_the_live_wal_is_not_touched(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 3, 100, 0, 0);

    put(&js, s, 1, 100);
    clean(&js);
    put(&js, s, 1, 100);
    put(&js, s, 1, 100);
    compact_all(&js);
    CHECK_EQ(records(&js, s, 64), bit(0) | bit(1) | bit(2));
    clean(&js);
    CHECK_EQ(records(&js, s, 64), bit(2));
    down(&js, s);
}

static void test_another_rounds_records_supersede_those_of_the_clean_part(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 4, 100, 0, 0);

    for (int round = 0; round < 4; round++) {
        put(&js, s, 1, 100);
        put(&js, s, 10 + round, 100);
        clean(&js);
    }
    CHECK_EQ(records(&js, s, 64), bit(1) | bit(3) | bit(5) | bit(6) | bit(7));
    down(&js, s);
}

static void test_records_younger_than_the_lag_stay(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 5, 100, 10 * MINUTE, 0);

    put(&js, s, 1, 100);
    put(&js, s, 1, 100);
    call_wait_ms(&js, 6 * MINUTE);
    put(&js, s, 1, 100);
    clean(&js);
    CHECK_EQ(records(&js, s, 64), bit(0) | bit(1) | bit(2));
    call_wait_ms(&js, 5 * MINUTE); /* the third is 5 minutes old */
    compact_all(&js);
    CHECK_EQ(row(&js, SHARD).cleaned, 2);
    CHECK_EQ(records(&js, s, 64), bit(1) | bit(2));
    call_wait_ms(&js, 6 * MINUTE);
    compact_all(&js);
    CHECK_EQ(records(&js, s, 64), bit(2));
    down(&js, s);
}

/* Without anything being asked for: half dirty is enough, and less is not. */
static void test_a_round_begins_by_itself_when_half_is_dirty(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 6, 100, 0, 0), *other;

    REQUIRE(call_create(&js, OTHER, SHARD_CLASS_DATA) == 0);
    other = call_open(&js, OTHER, NULL);
    for (int i = 0; i < 8; i++)
        put(&js, s, i, 1000);
    fill(&js, other);
    destage_all(&js);
    call_wait_ms(&js, 1000);
    CHECK_EQ(row(&js, SHARD).cleaned, 8);
    for (int i = 0; i < 4; i++) /* a third */
        put(&js, s, 0, 1000);
    fill(&js, other);
    destage_all(&js);
    call_wait_ms(&js, 1000);
    CHECK_EQ(row(&js, SHARD).cleaned, 8);
    for (int i = 0; i < 5; i++)
        put(&js, s, 0, 1000);
    fill(&js, other);
    destage_all(&js);
    call_wait_ms(&js, 1000);
    CHECK_EQ(row(&js, SHARD).cleaned, 17);
    CHECK_EQ(records(&js, s, 64), 0xfe | bit(16));
    shard_unref(other);
    down(&js, s);
}

/* --- tombstones --- */

static void test_a_tombstone_stays_for_its_time_and_then_goes_by_itself(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 7, 100, 0, 10 * MINUTE);

    put(&js, s, 1, 100);
    put(&js, s, 1, -1);
    put(&js, s, 2, 100);
    clean(&js);
    CHECK_EQ(records(&js, s, 64), bit(1) | bit(2));
    CHECK_EQ(row(&js, SHARD).tombstones, 1);
    call_wait_ms(&js, 9 * MINUTE);
    compact_all(&js);
    CHECK_EQ(records(&js, s, 64), bit(1) | bit(2));
    call_wait_ms(&js, 2 * MINUTE);
    settle(&js);
    CHECK_EQ(records(&js, s, 64), bit(2));
    CHECK_EQ(row(&js, SHARD).tombstones, 0);
    down(&js, s);
}

static void test_a_later_tombstone_has_a_time_of_its_own(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 8, 100, 0, 10 * MINUTE);

    put(&js, s, 1, -1);
    clean(&js);
    call_wait_ms(&js, 9 * MINUTE);
    put(&js, s, 2, -1);
    clean(&js);
    call_wait_ms(&js, 2 * MINUTE);
    settle(&js);
    CHECK_EQ(records(&js, s, 64), bit(1)); /* the first is gone, the second cleaned 2 minutes ago */
    call_wait_ms(&js, 6 * MINUTE);
    settle(&js);
    CHECK_EQ(records(&js, s, 64), bit(1));
    call_wait_ms(&js, 6 * MINUTE);
    settle(&js);
    CHECK_EQ(records(&js, s, 64), 0);
    down(&js, s);
}

/* --- producers --- */

static int send(struct jrn_sim *js, struct shard *s, int32_t sequence, bool *duplicate)
{
    struct call_append a;
    int rc;

    call_append_begin(js, s, record(js, 1, 100, 500, sequence), &a);
    rc = call_append_end(js, &a);
    *duplicate = a.d.duplicate;
    return rc;
}

static void test_batches_that_lost_all_are_duplicates_still_after_rows_are_lost(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 9, 100, 0, 0);
    struct err e = { 0 };
    bool duplicate;

    for (int32_t i = 0; i < 9; i++)
        REQUIRE(send(&js, s, i, &duplicate) == 0 && !duplicate);
    put(&js, s, 1, 100);
    clean(&js);
    CHECK_EQ(records(&js, s, 64), bit(9));
    for (int life = 0; life < 2; life++) {
        shard_unref(s);
        jrn_sim_close(&js);
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        jrn_sim_crash(&js, true);
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        s = call_open(&js, SHARD, NULL);
        CHECK_EQ(records(&js, s, 64), bit(9));
        CHECK_EQ(send(&js, s, 3, &duplicate), E_DUPLICATE);
        for (int32_t i = 4; i < 9; i++)
            CHECK(send(&js, s, i, &duplicate) == 0 && duplicate);
        CHECK_EQ(send(&js, s, 10, &duplicate), E_SEQUENCE);
        clean(&js); /* once more over what is empty already */
    }
    down(&js, s);
}

/* --- space --- */

static void test_space_comes_back(void)
{
    struct jrn_sim js;
    struct shard *s = up(&js, 10, 100, 0, 0);
    uint64_t live, space;

    for (unsigned i = 0; i < 200; i++)
        put(&js, s, (int)(i % KEYS), 20000);
    fill(&js, s); /* without keys */
    destage_all(&js);
    call_wait_ms(&js, 100);
    settle(&js);
    compact_all(&js);
    live = live_bytes(&js);
    space = free_bytes(&js);
    CHECK(live < 10 * 20000 + 6 * 30000); /* of four million */
    CHECK(space > 2 * 200 * 20000 / 3);
    CHECK(records(&js, s, 64) == 0);
    down(&js, s);
}

static void test_live_bytes_fall_by_what_went_and_the_old_segments_go(void)
{
    struct jrn_sim js;
    struct shard *s, *other;
    uint64_t before;

    s = up(&js, 11, HOUR_MS, 0, 0); /* nothing by itself */
    REQUIRE(call_create(&js, OTHER, SHARD_CLASS_DATA) == 0);
    other = call_open(&js, OTHER, NULL);
    for (unsigned i = 0; i < 40; i++)
        put(&js, s, (int)(i % KEYS), 10000);
    fill(&js, other);
    destage_all(&js);
    before = live_bytes(&js);
    CHECK(before > 40 * 10000);
    compact_all(&js);
    call_wait_ms(&js, 1000);
    settle(&js);
    CHECK(live_bytes(&js) < before - 34 * 10000);
    CHECK(live_bytes(&js) > before - 36 * 10000);
    shard_unref(other);
    down(&js, s);
}

static uint64_t group_space(struct jrn_sim *js, uint64_t group, unsigned *n)
{
    uint64_t pos = 0, sum = 0;
    void *value;

    *n = 0;
    while (hash_next(&js->st->segments.by_id, &pos, NULL, &value)) {
        const struct segment *seg = value;

        if (seg->row.group != group || seg->open)
            continue;
        sum += segment_space(&seg->row);
        (*n)++;
    }
    return sum;
}

/* What stays of each segment of the log lies for a while beside the piece that it is taken from, in
 * which another shard lives; rewriting makes them one. */
static void test_tiny_segments_take_no_more_space_once_compacted(void)
{
    enum { RECORDS = 400, EACH = 8 };
    struct shard *s, *other;
    unsigned n, n_before;
    struct jrn_sim js;
    uint64_t before;

    logger_to(-1);
    jrn_sim_init(&js, 13, 64 << 20, 1);
    js.conf.segment_entries = EACH;
    s = up_as(&js, HOUR_MS, 0, 0);
    REQUIRE(create(&js, OTHER, 0, 0) == 0);
    other = call_open(&js, OTHER, NULL);
    REQUIRE(shard_group(s) == shard_group(other));
    for (int i = 0; i < RECORDS / 2; i++) {
        put(&js, s, i % KEYS, 500);
        put(&js, other, i, 500);
    }
    fill(&js, other);
    destage_all(&js);
    before = group_space(&js, shard_group(s), &n_before);
    CHECK(n_before >= RECORDS / EACH);
    compact_all(&js);
    CHECK_EQ(row(&js, SHARD).cleaned, RECORDS / 2);
    call_wait_ms(&js, 1000);
    settle(&js);
    CHECK(metric_count(&js.st->stats->compact_after) >= RECORDS / EACH * BATCH_HEAD_BYTES);
    CHECK(group_space(&js, shard_group(s), &n) <= before);
    CHECK(n <= n_before && n >= RECORDS / EACH);
    shard_unref(other);
    down(&js, s);
}

static void test_more_keys_than_memory_take_several_rounds(void)
{
    enum { MANY = 1500 };
    struct jrn_sim js;
    struct shard *s;

    logger_to(-1);
    jrn_sim_init(&js, 12, 64 << 20, 1);
    js.conf.compact_map_bytes = 24576; /* 768 keys */
    s = up_as(&js, 100, 0, 0);
    for (int i = 0; i < 2 * MANY; i++)
        put(&js, s, i % MANY, 10);
    clean(&js);
    call_wait_ms(&js, 1000);
    settle(&js);
    CHECK_EQ(row(&js, SHARD).cleaned, 2 * MANY);
    CHECK_EQ(records(&js, s, 64), 0);
    CHECK_EQ(n_records(&js, s), MANY);
    down(&js, s);
}

/* --- in the way of other things --- */

static bool quiet_or_failed(void *ctx)
{
    return is_quiet(ctx) || journal_state(((struct jrn_sim *)ctx)->j) == JRN_FAILED;
}

/* What must be there of 40 records over KEYS keys, and what may. */
static void check_forty(struct jrn_sim *js, struct shard *s, bool exactly)
{
    uint64_t must = (bit(40) - 1) & ~(bit(35) - 1), there = records(js, s, 64);

    CHECK_EQ(there & must, must);
    CHECK_EQ(there & ~(bit(40) - 1), 0);
    if (exactly)
        CHECK_EQ(there, must);
}

/* Power goes at the nth operation of a round; gives whether it did. */
static bool cut_after(uint64_t n, bool rows_lost)
{
    struct err e = { 0 };
    struct jrn_sim js;
    struct shard *s = up(&js, 300 + n, HOUR_MS, 0, 0), *other;
    bool off;

    REQUIRE(call_create(&js, OTHER, SHARD_CLASS_DATA) == 0);
    other = call_open(&js, OTHER, NULL);
    for (unsigned i = 0; i < 40; i++)
        put(&js, s, (int)(i % KEYS), 12000);
    fill(&js, other);
    destage_all(&js);
    shard_unref(other);
    sim_disk_power_off_after(js.disk, n);
    store_on_keeper(js.st, compact_now, NULL);
    call_wait_ms(&js, 1);
    REQUIRE(sim_run_until(js.sim, quiet_or_failed, &js, STEPS));
    off = js.disk->off;
    shard_unref(s);
    jrn_sim_crash(&js, rows_lost);
    for (unsigned life = 0; life < 3; life++) {
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        s = call_open(&js, SHARD, NULL);
        REQUIRE(s != NULL);
        check_forty(&js, s, life > 0);
        compact_all(&js);
        check_forty(&js, s, true);
        shard_unref(s);
        jrn_sim_crash(&js, life == 0);
    }
    jrn_sim_fini(&js);
    return off;
}

static void test_power_cut_at_any_operation_of_a_round_loses_nothing(void)
{
    for (unsigned lost = 0; lost < 2; lost++) {
        uint64_t n = 0;

        while (n < OPS_MAX && cut_after(n, lost))
            n++;
        CHECK(n > 10 && n < OPS_MAX);
    }
}

/* A shard that is deleted at any step of its round is gone, and its space too. */
static void test_deleting_a_shard_while_it_is_compacted(void)
{
    for (unsigned steps = 0; steps < 60; steps += 3) {
        struct jrn_sim js;
        struct shard *s = up(&js, 400 + steps, HOUR_MS, 0, 0), *other;
        uint64_t before;

        REQUIRE(call_create(&js, OTHER, SHARD_CLASS_DATA) == 0);
        other = call_open(&js, OTHER, NULL);
        fill(&js, other);
        destage_all(&js);
        before = live_bytes(&js);
        for (unsigned i = 0; i < 30; i++)
            put(&js, s, (int)(i % KEYS), 12000);
        fill(&js, other);
        destage_all(&js);
        store_on_keeper(js.st, compact_now, NULL);
        for (unsigned i = 0; i < steps; i++)
            sim_step(js.sim);
        CHECK_EQ(call_delete(&js, SHARD), 0);
        call_wait_ms(&js, 1000);
        settle(&js);
        CHECK(live_bytes(&js) < before + 6 * 30000 + 40000);
        CHECK_EQ(row(&js, SHARD).to, 0);
        shard_unref(other);
        down(&js, s);
    }
}

TEST_MAIN(T(the_latest_record_of_each_key_stays_at_its_offset) T(records_without_a_key_go) T(
    what_is_in_the_live_wal_is_not_touched)
              T(another_rounds_records_supersede_those_of_the_clean_part) T(
                  records_younger_than_the_lag_stay) T(a_round_begins_by_itself_when_half_is_dirty)
                  T(a_tombstone_stays_for_its_time_and_then_goes_by_itself)
                      T(a_later_tombstone_has_a_time_of_its_own)
                          T(batches_that_lost_all_are_duplicates_still_after_rows_are_lost)
                              T(space_comes_back) T(tiny_segments_take_no_more_space_once_compacted)
                                  T(live_bytes_fall_by_what_went_and_the_old_segments_go)
                                      T(more_keys_than_memory_take_several_rounds)
                                          T(power_cut_at_any_operation_of_a_round_loses_nothing)
                                              T(deleting_a_shard_while_it_is_compacted))
