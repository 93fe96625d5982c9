/* Shards that leave memory: when, when not, and that they come back as they were. */
#include "journal/unload.h"
#include "base/logger.h"
#include "journal/shard.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

#include <stdlib.h>
#include <string.h>

enum { ID = 16, OTHER = 17, PRODUCER = 7, WAIT_MS = 200 };

/* Shards ID and OTHER; a handle on each. */
static void up(struct jrn_sim *js, uint64_t seed, struct shard **s, struct shard **other)
{
    logger_to(-1);
    jrn_sim_init(js, seed, 64 << 20, 2);
    js->conf.wal_budget = 1;
    js->conf.unload_ms = 10;
    REQUIRE(jrn_sim_open(js, NULL) >= 0);
    REQUIRE(call_create(js, ID, SHARD_CLASS_DATA) == 0);
    REQUIRE(call_create(js, OTHER, SHARD_CLASS_DATA) == 0);
    *s = call_open(js, ID, NULL);
    *other = call_open(js, OTHER, NULL);
    REQUIRE(*s && *other);
}

static void down(struct jrn_sim *js, struct shard *s, struct shard *other)
{
    shard_unref(s);
    shard_unref(other);
    jrn_sim_close(js);
    jrn_sim_fini(js);
}

/* Whatever is in the WAL is destaged. */
static void destage(struct jrn_sim *js, struct shard *other)
{
    for (unsigned i = 0; i < 40; i++)
        REQUIRE(call_append(js, other, call_batch(1000 + i, 1, 8000), NULL) == 0);
    call_wait_ms(js, WAIT_MS);
}

static bool in_memory(struct jrn_sim *js, uint64_t id)
{
    struct shard *s = shard_in_memory(js->j, id);

    shard_unref(s);
    return s != NULL;
}

static void test_a_shard_goes_when_destaged_and_let_go_and_comes_back_as_it_was(void)
{
    struct call_bytes before = { 0 }, after = { 0 };
    struct shard *s, *other;
    struct jrn_sim js;
    uint64_t offset;
    int rc;

    up(&js, 1, &s, &other);
    for (int i = 0; i < 7; i++)
        REQUIRE(call_append(&js, s, call_batch_of(PRODUCER, 0, i, 1, 50), &offset) == 0);
    REQUIRE(call_trim(&js, s, 2) == 0);
    CHECK_EQ(call_read(&js, s, 2, &before, &rc, NULL), 7);
    destage(&js, other);
    CHECK(in_memory(&js, ID));
    shard_unref(s);
    call_wait_ms(&js, WAIT_MS);
    CHECK(!in_memory(&js, ID));
    CHECK(in_memory(&js, OTHER));

    s = call_open(&js, ID, NULL);
    REQUIRE(s != NULL);
    CHECK_EQ(shard_start(s), 2);
    CHECK_EQ(shard_end(s), 7);
    CHECK_EQ(call_read(&js, s, 2, &after, &rc, NULL), 7);
    CHECK(before.n == after.n && memcmp(before.mem, after.mem, before.n) == 0);
    /* Producers are known again: a repeat, a gap, and what comes next. */
    CHECK_EQ(call_append(&js, s, call_batch_of(PRODUCER, 0, 6, 1, 50), &offset), 0);
    CHECK_EQ(offset, 6);
    CHECK_EQ(call_append(&js, s, call_batch_of(PRODUCER, 0, 9, 1, 50), NULL), E_SEQUENCE);
    CHECK_EQ(call_append(&js, s, call_batch_of(PRODUCER, 0, 7, 1, 50), &offset), 0);
    CHECK_EQ(offset, 7);
    free(before.mem);
    free(after.mem);
    down(&js, s, other);
}

static void test_a_shard_with_batches_in_the_wal_stays(void)
{
    struct shard *s, *other;
    struct jrn_sim js;

    up(&js, 2, &s, &other);
    REQUIRE(call_append(&js, s, call_batch(1, 1, 50), NULL) == 0);
    shard_unref(s);
    call_wait_ms(&js, WAIT_MS);
    CHECK(in_memory(&js, ID));
    destage(&js, other);
    call_wait_ms(&js, WAIT_MS);
    CHECK(!in_memory(&js, ID));
    down(&js, NULL, other);
}

static void test_a_handle_keeps_a_shard_and_a_recent_use_does_for_a_while(void)
{
    struct shard *s, *other;
    struct jrn_sim js;

    up(&js, 3, &s, &other);
    call_wait_ms(&js, WAIT_MS);
    CHECK_EQ(js.st->unloads, 0);
    shard_unref(s);
    for (unsigned i = 0; i < 20; i++) { /* asked for more often than a round takes */
        call_wait_ms(&js, js.conf.unload_ms / 2);
        CHECK(in_memory(&js, ID));
    }
    call_wait_ms(&js, WAIT_MS);
    CHECK_EQ(js.st->unloads, 1);
    down(&js, NULL, other);
}

/* The index of a shard that is trimmed to its end is empty before rows have what it got last. */
static void test_a_shard_emptied_by_a_trim_keeps_end_and_producers(void)
{
    struct shard *s, *other;
    struct jrn_sim js;
    uint64_t offset;

    up(&js, 4, &s, &other);
    for (int i = 0; i < 3; i++)
        REQUIRE(call_append(&js, s, call_batch_of(PRODUCER, 0, i, 1, 50), NULL) == 0);
    REQUIRE(call_trim(&js, s, 3) == 0);
    shard_unref(s);
    destage(&js, other);
    call_wait_ms(&js, WAIT_MS);
    CHECK(!in_memory(&js, ID));
    s = call_open(&js, ID, NULL);
    REQUIRE(s != NULL);
    CHECK_EQ(shard_start(s), 3);
    CHECK_EQ(shard_end(s), 3);
    CHECK_EQ(call_append(&js, s, call_batch_of(PRODUCER, 0, 2, 1, 50), &offset), 0);
    CHECK_EQ(offset, 2);
    down(&js, s, other);
}

struct opening {
    struct shard_open o;
    bool done;
};

static void opened(struct shard_open *o)
{
    ((struct opening *)o)->done = true;
}

static void test_many_opens_of_one_shard_give_one_shard(void)
{
    struct opening o[8] = { 0 };
    struct shard *s, *other;
    struct jrn_sim js;

    up(&js, 5, &s, &other);
    shard_unref(s);
    call_wait_ms(&js, WAIT_MS);
    CHECK(!in_memory(&js, ID));
    for (unsigned i = 0; i < 8; i++) {
        o[i].o.fn = opened;
        o[i].o.loop = js.loops[i % 2];
        shard_open(js.j, ID, &o[i].o);
    }
    call_wait_ms(&js, WAIT_MS);
    for (unsigned i = 0; i < 8; i++) {
        CHECK(o[i].done && o[i].o.rc == 0 && o[i].o.shard == o[0].o.shard);
        shard_unref(o[i].o.shard);
    }
    CHECK_EQ(js.st->loading.count, 0);
    down(&js, NULL, other);
}

TEST_MAIN(T(a_shard_goes_when_destaged_and_let_go_and_comes_back_as_it_was)
              T(a_shard_with_batches_in_the_wal_stays)
                  T(a_handle_keeps_a_shard_and_a_recent_use_does_for_a_while)
                      T(a_shard_emptied_by_a_trim_keeps_end_and_producers)
                          T(many_opens_of_one_shard_give_one_shard))
