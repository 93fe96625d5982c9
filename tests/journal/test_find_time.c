/* Finding by time against a naive search: timestamps in no order, packed batches, batches stamped with
 * the time of their append, trims in the middle of batches, before and after destage and restarts. */
#include <stdlib.h>

#include "base/logger.h"
#include "base/rd.h"
#include "format/batch.h"
#include "format/sum.h"
#include "journal/committer.h"
#include "journal/destage.h"
#include "tests/check.h"
#include "tests/sim/jrn_kinds.h"

enum {
    SEEDS = 60,
    STEPS = 120,
    RECORDS_MAX = 9,
    SHARD = 16,
    SPAN = 90, /* timestamps are drawn from so few that many are equal */
    LIARS = 30
};

struct naive {
    int64_t *ts; /* by offset */
    uint64_t start, end;
};

struct run {
    struct jrn_sim js;
    struct shard *s;
    struct naive n;
    struct rng rng;
    enum shard_kind kind;
    unsigned found, missed, trimmed;
};

static uint64_t below(struct run *r, uint64_t n)
{
    return rng_below(&r->rng, n);
}

static bool naive_find(const struct naive *n, int64_t time, uint64_t *offset, int64_t *ts)
{
    bool found = false;

    for (uint64_t at = n->start; at < n->end; at++) {
        if (time == SHARD_TIME_MAX ? found && n->ts[at] <= *ts : n->ts[at] < time)
            continue;
        *offset = at;
        *ts = n->ts[at];
        found = true;
        if (time != SHARD_TIME_MAX)
            break;
    }
    return found;
}

static void find_both(struct run *r, int64_t time)
{
    uint64_t offset = 0, naive_offset = 0;
    int64_t ts = 0, naive_ts = 0;
    bool found = false, naive = naive_find(&r->n, time, &naive_offset, &naive_ts);

    REQUIRE(kind_find_time(&r->js, r->s, time, &found, &offset, &ts) == 0);
    CHECK_EQ(found, naive);
    CHECK_EQ(offset, naive_offset);
    CHECK_EQ(ts, naive_ts);
    *(naive ? &r->found : &r->missed) += 1;
}

static void roll(struct store *st, void *arg)
{
    committer_roll(st->committer);
}

static void destage(struct store *st, void *arg)
{
    destage_consider(st, true);
}

/* Ends the present extent of the WAL and begins to destage what is closed. */
static void destage_some(struct run *r)
{
    store_on_keeper(r->js.st, roll, NULL);
    call_wait_ms(&r->js, below(r, 20));
    store_on_keeper(r->js.st, destage, NULL);
}

static int64_t draw_time(struct run *r)
{
    return SIM_WALL_START_MS + (int64_t)below(r, SPAN) + (below(r, 40) ? 0 : 1000);
}

static void append_one(struct run *r)
{
    static const uint32_t sizes[] = { 10, 200, 1500, 4500 };
    static const uint8_t value[4500];
    struct batch_builder b = { 0 };
    unsigned n = 1 + (unsigned)below(r, RECORDS_MAX);
    bool append_time = below(r, 5) == 0;
    int64_t stamp = draw_time(r);
    struct buf *batch = NULL;
    uint64_t offset;

    r->n.ts = mem_grow(r->n.ts, (r->n.end + n) * sizeof *r->n.ts);
    for (unsigned i = 0; i < n; i++) {
        struct batch_new_record x = { .timestamp = draw_time(r), .value = value };

        x.value_bytes = below(r, sizes[below(r, 4)]);
        batch_builder_add(&b, &x);
        r->n.ts[r->n.end + i] = append_time ? stamp : x.timestamp;
    }
    REQUIRE(batch_builder_finish(&b, (enum batch_codec)below(r, CODEC_COUNT), &batch) >= 0);
    batch_builder_free(&b);
    if (append_time)
        batch_stamp_time(batch->mem, batch->len, stamp);
    REQUIRE(call_append(&r->js, r->s, batch, &offset) == 0);
    CHECK_EQ(offset, r->n.end);
    r->n.end += n;
}

static void trim_some(struct run *r)
{
    r->n.start += below(r, (r->n.end - r->n.start) / 3 + 2);
    if (r->n.start > r->n.end)
        r->n.start = r->n.end;
    REQUIRE(call_trim(&r->js, r->s, r->n.start) == 0);
    r->trimmed++;
}

static void open_again(struct run *r)
{
    struct err e = { 0 };

    if (r->kind == SHARD_MEMORY)
        return; /* nothing would be left */
    shard_unref(r->s);
    jrn_sim_close(&r->js);
    REQUIRE(jrn_sim_open(&r->js, &e) >= 0);
    r->s = call_open(&r->js, SHARD, NULL);
}

static void up(struct run *r, uint64_t seed, enum shard_kind kind)
{
    struct shard_policy policy = { 0 };
    struct err e = { 0 };

    logger_to(-1);
    *r = (struct run){ .kind = kind };
    rng_seed(&r->rng, seed);
    jrn_sim_init(&r->js, seed, 64 << 20, 1);
    r->js.conf.direct_from = seed % 2 ? 8192 : UINT32_MAX;
    r->js.conf.cache_bytes = seed % 3 ? 16384 : 1 << 20;
    REQUIRE(jrn_sim_open(&r->js, &e) >= 0);
    REQUIRE(kind_create(&r->js, SHARD, kind, &policy) == 0);
    r->s = call_open(&r->js, SHARD, NULL);
    REQUIRE(r->s != NULL);
}

static void down(struct run *r)
{
    shard_unref(r->s);
    jrn_sim_close(&r->js);
    jrn_sim_fini(&r->js);
    free(r->n.ts);
}

static void one_history(uint64_t seed, enum shard_kind kind)
{
    struct run r;

    up(&r, seed, kind);
    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t what = below(&r, 100);

        if (what < 45)
            append_one(&r);
        else if (what < 50)
            trim_some(&r);
        else if (what < 52)
            destage_some(&r);
        else if (what < 53)
            open_again(&r);
        else if (what < 60)
            find_both(&r, SHARD_TIME_MAX);
        else
            find_both(&r, draw_time(&r) + (int64_t)below(&r, 3) - 1);
    }
    for (int64_t t = -1; t <= SPAN; t++)
        find_both(&r, SIM_WALL_START_MS + t);
    find_both(&r, SHARD_TIME_MAX);
    CHECK(r.found > 0);
    down(&r);
}

static void test_every_answer_is_that_of_a_naive_search(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        one_history(seed, SHARD_SEGMENT);
}

static void test_a_memory_shard_answers_the_same(void)
{
    for (uint64_t seed = 1; seed <= SEEDS / 4; seed++)
        one_history(seed, SHARD_MEMORY);
}

/* A sound batch whose header says that it holds something as late as `late`. */
static struct buf *liar(int64_t ts, int64_t late)
{
    struct batch_builder b = { 0 };
    struct batch_new_record x = { .timestamp = ts, .value = "x", .value_bytes = 1 };
    struct buf *batch = NULL;

    batch_builder_add(&b, &x);
    REQUIRE(batch_builder_finish(&b, CODEC_NONE, &batch) >= 0);
    batch_builder_free(&b);
    put_u64be(batch->mem + 35, (uint64_t)late);
    put_u32be(batch->mem + 17,
              sum_crc32c(batch->mem + BATCH_CRC_START, batch->len - BATCH_CRC_START));
    return batch;
}

/* More of them than are looked into at once, in the cache, in the WAL and in a segment. */
static void test_headers_that_promise_too_much_do_not_hide_what_is_behind_them(void)
{
    int64_t t0 = SIM_WALL_START_MS, ts = 0;
    uint64_t offset = 0;
    bool found = false;
    struct run r;

    up(&r, 1, SHARD_SEGMENT);
    for (unsigned i = 0; i < LIARS; i++)
        REQUIRE(call_append(&r.js, r.s, liar(t0 + (i == 4), t0 + 1000), NULL) == 0);
    REQUIRE(call_append(&r.js, r.s, liar(t0 + 600, t0 + 600), NULL) == 0);
    for (unsigned i = 0; i < 3; i++) {
        REQUIRE(kind_find_time(&r.js, r.s, t0 + 500, &found, &offset, &ts) == 0);
        CHECK(found);
        CHECK_EQ(offset, LIARS);
        CHECK_EQ(ts, t0 + 600);
        REQUIRE(kind_find_time(&r.js, r.s, t0 + 601, &found, &offset, &ts) == 0);
        CHECK(!found);
        REQUIRE(kind_find_time(&r.js, r.s, SHARD_TIME_MAX, &found, &offset, &ts) == 0);
        CHECK(found);
        CHECK_EQ(offset, 0);
        CHECK_EQ(ts, t0);
        if (i == 0)
            open_again(&r);
        if (i == 1)
            destage_some(&r);
        call_wait_ms(&r.js, 1000);
    }
    down(&r);
}

TEST_MAIN(T(every_answer_is_that_of_a_naive_search) T(a_memory_shard_answers_the_same)
              T(headers_that_promise_too_much_do_not_hide_what_is_behind_them))
