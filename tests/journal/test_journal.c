/* The shard API end to end over the simulated device: what is acked is there after a close, a
 * crash, and without rows. */
#include "tests/check.h"
#include "tests/sim/jrn_kinds.h"

CALL_ANSWER(append_done, append)

/* Answered on another loop than reads are, where there is one. */
static int append(struct jrn_sim *js, struct shard *s, struct buf *b, uint64_t *offset)
{
    struct append_answer a = { .k = { .fn = append_fn, .loop = js->loops[js->n_loops - 1] } };

    shard_append(s, b, 0, b->len, ACK_QUORUM_DURABLE, &a.k);
    buf_unref(b);
    call_run_until(js, append_is_done, &a);
    *offset = a.k.base_offset;
    return a.k.rc;
}

/* How many records there are from `from` on. */
static uint64_t read_all(struct jrn_sim *js, struct shard *s, uint64_t from, int *rc)
{
    return call_read(js, s, from, NULL, rc, NULL) - from;
}

static void test_what_is_acked_is_read_back(void)
{
    struct jrn_sim js;
    struct err e = { 0 };
    struct shard *s;
    uint64_t offset;
    int rc;

    jrn_sim_init(&js, 1, 8 << 20, 2);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    CHECK_EQ(call_create(&js, 16, SHARD_CLASS_DATA), 0);
    CHECK_EQ(call_create(&js, 16, SHARD_CLASS_DATA), E_EXISTS);
    s = call_open(&js, 16, &rc);
    REQUIRE(s != NULL);
    for (unsigned i = 0; i < 10; i++) {
        CHECK_EQ(append(&js, s, call_batch(i, 3, 100), &offset), 0);
        CHECK_EQ(offset, i * 3);
    }
    CHECK_EQ(shard_end(s), 30);
    CHECK_EQ(read_all(&js, s, 0, &rc), 30);
    CHECK_EQ(rc, 0);
    shard_unref(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void life(struct jrn_sim *js, unsigned from, unsigned to, bool crash, bool rows_lost)
{
    struct err e = { 0 };
    struct shard *s;
    uint64_t offset;
    int rc;

    rc = jrn_sim_open(js, &e);
    if (rc < 0)
        fprintf(stderr, "open: %s\n", e.text);
    REQUIRE(rc >= 0);
    if (from == 0)
        CHECK_EQ(call_create(js, 16, SHARD_CLASS_DATA), 0);
    s = call_open(js, 16, &rc);
    REQUIRE(s != NULL);
    CHECK_EQ(shard_end(s), from);
    CHECK_EQ(read_all(js, s, 0, &rc), from);
    for (unsigned i = from; i < to; i++) {
        CHECK_EQ(append(js, s, call_batch(i, 1, 3000), &offset), 0);
        CHECK_EQ(offset, i);
    }
    CHECK_EQ(read_all(js, s, 0, &rc), to);
    shard_unref(s);
    if (crash)
        jrn_sim_crash(js, rows_lost);
    else
        jrn_sim_close(js);
}

static void test_acked_batches_survive_close_crash_and_lost_rows(void)
{
    for (uint64_t seed = 1; seed < 30; seed++) {
        struct jrn_sim js;

        jrn_sim_init(&js, seed, 16 << 20, 1 + seed % 3);
        life(&js, 0, 20, false, false);
        life(&js, 20, 150, true, false);
        life(&js, 150, 300, true, true);
        life(&js, 300, 310, true, false);
        life(&js, 310, 600, false, false);
        life(&js, 600, 600, true, true);
        life(&js, 600, 601, true, true);
        jrn_sim_fini(&js);
    }
}

static void test_trim_and_delete_hold_without_rows(void)
{
    struct jrn_sim js;
    struct err e = { 0 };
    struct shard *s;
    uint64_t offset;
    int rc;

    jrn_sim_init(&js, 7, 32 << 20, 2);
    life(&js, 0, 300, false, false);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    CHECK_EQ(call_create(&js, 17, SHARD_CLASS_DATA), 0);
    s = call_open(&js, 17, &rc);
    CHECK_EQ(append(&js, s, call_batch(0, 1, 10), &offset), 0);
    shard_unref(s);
    CHECK_EQ(call_delete(&js, 17), 0);
    s = call_open(&js, 16, &rc);
    CHECK_EQ(call_trim(&js, s, 250), 0);
    CHECK_EQ(shard_start(s), 250);
    shard_unref(s);
    jrn_sim_crash(&js, true);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    s = call_open(&js, 17, &rc);
    CHECK_EQ(rc, E_NOTFOUND);
    CHECK_EQ(call_create(&js, 17, SHARD_CLASS_DATA), E_EXISTS);
    s = call_open(&js, 16, &rc);
    REQUIRE(s != NULL);
    CHECK_EQ(shard_start(s), 250);
    CHECK_EQ(shard_end(s), 300);
    CHECK_EQ(read_all(&js, s, 250, &rc), 50);
    shard_unref(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_time_is_found_in_segments_and_wal(void)
{
    struct jrn_sim js;
    struct err e = { 0 };
    struct shard *s;
    int rc;

    jrn_sim_init(&js, 9, 16 << 20, 2);
    life(&js, 0, 200, true, false);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    s = call_open(&js, 16, &rc);
    for (unsigned n = 0; n < 200; n += 7) {
        uint64_t offset;
        int64_t ts;
        bool found;

        CHECK_EQ(kind_find_time(&js, s, SIM_WALL_START_MS + n, &found, &offset, &ts), 0);
        CHECK(found);
        CHECK_EQ(offset, n);
    }
    shard_unref(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static bool has_space(void *ctx)
{
    return journal_state(((struct jrn_sim *)ctx)->j) == JRN_OK;
}

static void test_a_full_device_is_healed_by_deleting_though_others_lie_between(void)
{
    struct jrn_sim js;
    struct err e = { 0 };
    struct shard *big, *small;
    uint64_t offset, n_big = 0, n_small = 0;
    int rc = 0;

    jrn_sim_init(&js, 11, 4 << 20, 1);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    CHECK_EQ(call_create(&js, 16, SHARD_CLASS_DATA), 0);
    CHECK_EQ(call_create(&js, 17, SHARD_CLASS_DATA), 0);
    big = call_open(&js, 16, &rc);
    small = call_open(&js, 17, &rc);
    while (rc >= 0 && n_big < 10000) {
        rc = append(&js, big, call_batch(n_big, 1, 3000), &offset);
        n_big += rc >= 0;
        if (rc >= 0 && n_big % 8 == 0) {
            rc = append(&js, small, call_batch(n_small, 1, 100), &offset);
            n_small += rc >= 0;
        }
    }
    CHECK_EQ(rc, E_NOSPACE);
    CHECK_EQ(journal_state(js.j), JRN_FULL);
    CHECK_EQ(read_all(&js, big, 0, &rc), n_big);
    CHECK_EQ(read_all(&js, small, 0, &rc), n_small);
    shard_unref(big);
    CHECK_EQ(call_delete(&js, 16), 0);
    call_run_until(&js, has_space, &js);
    for (unsigned i = 0; i < 300; i++) {
        while ((rc = append(&js, small, call_batch(n_small + i, 1, 3000), &offset)) == E_NOSPACE)
            call_run_until(&js, has_space, &js); /* it comes back bit by bit */
        CHECK_EQ(rc, 0);
    }
    CHECK_EQ(read_all(&js, small, 0, &rc), n_small + 300);
    shard_unref(small);
    jrn_sim_crash(&js, true);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    small = call_open(&js, 17, &rc);
    CHECK_EQ(read_all(&js, small, 0, &rc), n_small + 300);
    CHECK_EQ(rc, 0);
    shard_unref(small);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

TEST_MAIN(T(a_full_device_is_healed_by_deleting_though_others_lie_between)
              T(what_is_acked_is_read_back) T(acked_batches_survive_close_crash_and_lost_rows)
                  T(trim_and_delete_hold_without_rows) T(time_is_found_in_segments_and_wal))
