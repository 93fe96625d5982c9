/* The shard API end to end over the simulated device: what is acked is there after a close, a
 * crash, and without rows. */
#include "base/logger.h"
#include "format/batch.h"
#include "tests/check.h"
#include "tests/sim/jrn_sim.h"

#include <stdlib.h>

enum { STEPS = 1000000 };

static struct buf *batch_of(uint64_t n, unsigned n_records, unsigned value_bytes)
{
    struct batch_builder b = { 0 };
    struct buf *out = NULL;
    char *value = calloc(1, value_bytes + 32);

    for (unsigned i = 0; i < n_records; i++) {
        struct batch_new_record r = { .timestamp = 1700000000000 + (int64_t)n, .value = value };

        snprintf(value, 32, "%" PRIu64 ".%u", n, i);
        r.value_bytes = strlen(value) + value_bytes;
        batch_builder_add(&b, &r);
    }
    REQUIRE(batch_builder_finish(&b, CODEC_NONE, &out) >= 0);
    batch_builder_free(&b);
    free(value);
    return out;
}

/* --- waiting for one answer --- */

#define ANSWER(kind, name)                                                                         \
    struct name##_answer {                                                                         \
        struct kind k;                                                                             \
        bool done;                                                                                 \
    };                                                                                             \
    static void name##_fn(struct kind *k)                                                          \
    {                                                                                              \
        ((struct name##_answer *)k)->done = true;                                                  \
    }                                                                                              \
    static bool name##_is_done(void *ctx)                                                          \
    {                                                                                              \
        return ((struct name##_answer *)ctx)->done;                                                \
    }
ANSWER(append_done, append)
ANSWER(read_done, read)
ANSWER(jrn_update, update)
ANSWER(shard_open, opened)
ANSWER(shard_trim, trim)
ANSWER(find_time, find)

static int create_shard(struct jrn_sim *js, uint64_t id)
{
    struct jrn_change c = { .op = JRN_SHARD_CREATE, .shard = id };
    struct update_answer a = { .k = { .fn = update_fn, .loop = js->loops[0] } };

    journal_update(js->j, &c, 1, &a.k);
    REQUIRE(sim_run_until(js->sim, update_is_done, &a, STEPS));
    return a.k.rc;
}

static int delete_shard(struct jrn_sim *js, uint64_t id)
{
    struct jrn_change c = { .op = JRN_SHARD_DELETE, .shard = id };
    struct update_answer a = { .k = { .fn = update_fn, .loop = js->loops[0] } };

    journal_update(js->j, &c, 1, &a.k);
    REQUIRE(sim_run_until(js->sim, update_is_done, &a, STEPS));
    return a.k.rc;
}

static struct shard *open_shard(struct jrn_sim *js, uint64_t id, int *rc)
{
    struct opened_answer a = { .k = { .fn = opened_fn, .loop = js->loops[0] } };

    shard_open(js->j, id, &a.k);
    REQUIRE(sim_run_until(js->sim, opened_is_done, &a, STEPS));
    *rc = a.k.rc;
    return a.k.rc < 0 ? NULL : a.k.shard;
}

static int append(struct jrn_sim *js, struct shard *s, struct buf *b, uint64_t *offset)
{
    struct append_answer a = { .k = { .fn = append_fn, .loop = js->loops[js->n_loops - 1] } };

    shard_append(s, b, 0, b->len, ACK_QUORUM_DURABLE, &a.k);
    buf_unref(b);
    REQUIRE(sim_run_until(js->sim, append_is_done, &a, STEPS));
    *offset = a.k.base_offset;
    return a.k.rc;
}

/* Reads everything from `from` and checks that batch n holds offsets n * per .. and says so.
 * Returns how many records. */
static uint64_t read_all(struct jrn_sim *js, struct shard *s, uint64_t from, int *rc)
{
    uint64_t at = from;

    for (;;) {
        struct read_answer a = { .k = { .fn = read_fn,
                                        .loop = js->loops[0],
                                        .from = at,
                                        .max_bytes = 8192,
                                        .at_least_one = true } };

        shard_read(s, &a.k);
        REQUIRE(sim_run_until(js->sim, read_is_done, &a, STEPS));
        *rc = a.k.rc;
        if (a.k.rc < 0 || a.k.bytes == 0)
            return at - from;
        for (unsigned i = 0; i < a.k.n_slices; i++) {
            const uint8_t *mem = a.k.slices[i].mem;
            uint32_t left = a.k.slices[i].len;

            while (left > 0) {
                struct batch_head h;

                REQUIRE(batch_check(&h, mem, left) >= 0);
                CHECK_EQ(h.base_offset, at);
                at += (uint64_t)h.last_offset_delta + 1;
                mem += h.bytes;
                left -= h.bytes;
            }
        }
        read_done_release(&a.k);
    }
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
    CHECK_EQ(create_shard(&js, 16), 0);
    CHECK_EQ(create_shard(&js, 16), E_EXISTS);
    s = open_shard(&js, 16, &rc);
    REQUIRE(s != NULL);
    for (unsigned i = 0; i < 10; i++) {
        CHECK_EQ(append(&js, s, batch_of(i, 3, 100), &offset), 0);
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
        CHECK_EQ(create_shard(js, 16), 0);
    s = open_shard(js, 16, &rc);
    REQUIRE(s != NULL);
    CHECK_EQ(shard_end(s), from);
    CHECK_EQ(read_all(js, s, 0, &rc), from);
    for (unsigned i = from; i < to; i++) {
        CHECK_EQ(append(js, s, batch_of(i, 1, 3000), &offset), 0);
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
    struct trim_answer t = { .k = { .fn = trim_fn, .start = 250 } };
    struct shard *s;
    uint64_t offset;
    int rc;

    jrn_sim_init(&js, 7, 32 << 20, 2);
    life(&js, 0, 300, false, false);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    CHECK_EQ(create_shard(&js, 17), 0);
    s = open_shard(&js, 17, &rc);
    CHECK_EQ(append(&js, s, batch_of(0, 1, 10), &offset), 0);
    shard_unref(s);
    CHECK_EQ(delete_shard(&js, 17), 0);
    s = open_shard(&js, 16, &rc);
    t.k.loop = js.loops[0];
    shard_trim(s, &t.k);
    REQUIRE(sim_run_until(js.sim, trim_is_done, &t, STEPS));
    CHECK_EQ(t.k.rc, 0);
    CHECK_EQ(shard_start(s), 250);
    shard_unref(s);
    jrn_sim_crash(&js, true);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    s = open_shard(&js, 17, &rc);
    CHECK_EQ(rc, E_NOTFOUND);
    CHECK_EQ(create_shard(&js, 17), E_EXISTS);
    s = open_shard(&js, 16, &rc);
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
    s = open_shard(&js, 16, &rc);
    for (unsigned n = 0; n < 200; n += 7) {
        struct find_answer f = {
            .k = { .fn = find_fn, .loop = js.loops[0], .time = 1700000000000 + n }
        };

        shard_find_time(s, &f.k);
        REQUIRE(sim_run_until(js.sim, find_is_done, &f, STEPS));
        CHECK_EQ(f.k.rc, 0);
        CHECK(f.k.found);
        CHECK_EQ(f.k.offset, n);
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
    CHECK_EQ(create_shard(&js, 16), 0);
    CHECK_EQ(create_shard(&js, 17), 0);
    big = open_shard(&js, 16, &rc);
    small = open_shard(&js, 17, &rc);
    while (rc >= 0 && n_big < 10000) {
        rc = append(&js, big, batch_of(n_big, 1, 3000), &offset);
        n_big += rc >= 0;
        if (rc >= 0 && n_big % 8 == 0) {
            rc = append(&js, small, batch_of(n_small, 1, 100), &offset);
            n_small += rc >= 0;
        }
    }
    CHECK_EQ(rc, E_NOSPACE);
    CHECK_EQ(journal_state(js.j), JRN_FULL);
    CHECK_EQ(read_all(&js, big, 0, &rc), n_big);
    CHECK_EQ(read_all(&js, small, 0, &rc), n_small);
    shard_unref(big);
    CHECK_EQ(delete_shard(&js, 16), 0);
    REQUIRE(sim_run_until(js.sim, has_space, &js, STEPS));
    for (unsigned i = 0; i < 300; i++) {
        while ((rc = append(&js, small, batch_of(n_small + i, 1, 3000), &offset)) == E_NOSPACE)
            REQUIRE(sim_run_until(js.sim, has_space, &js, STEPS)); /* it comes back bit by bit */
        CHECK_EQ(rc, 0);
    }
    CHECK_EQ(read_all(&js, small, 0, &rc), n_small + 300);
    shard_unref(small);
    jrn_sim_crash(&js, true);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    small = open_shard(&js, 17, &rc);
    CHECK_EQ(read_all(&js, small, 0, &rc), n_small + 300);
    CHECK_EQ(rc, 0);
    shard_unref(small);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

TEST_MAIN(T(a_full_device_is_healed_by_deleting_though_others_lie_between)
              T(what_is_acked_is_read_back) T(acked_batches_survive_close_crash_and_lost_rows)
                  T(trim_and_delete_hold_without_rows) T(time_is_found_in_segments_and_wal))
