/* Chunks of what was read: one read for all who want a place, a bound, each batch checked once, and what
 * readers of a whole journal get of them. */
#include <stdlib.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/committer.h"
#include "journal/destage.h"
#include "journal/segwrite.h"
#include "tests/check.h"
#include "tests/sim/jrn_bare.h"
#include "tests/sim/jrn_kinds.h"

enum { SEGMENT = 77, STEPS = 2000000, SHARD = 16, BATCHES = 400, VALUE = 3000 };

/* --- the table alone, over one segment --- */

struct bare {
    struct jrn_bare b;
    struct chunks t;
    struct segwrite w;
    struct segment *seg;
};

struct waiter {
    struct work work;
    struct chunk_wait wait;
    bool woken;
};

static void woken(struct work *w)
{
    ((struct waiter *)w)->woken = true;
}

static bool is_woken(void *ctx)
{
    return ((struct waiter *)ctx)->woken;
}

static void bare_up(struct bare *x, uint64_t max_bytes)
{
    struct bare_batches m;
    struct err e = { 0 };
    struct rng r;

    *x = (struct bare){ 0 };
    rng_seed(&r, 5);
    jrn_bare_init(&x->b, 5, 0);
    while (x->b.st->slabs.n < 3)
        REQUIRE(slabs_grow(&x->b.st->slabs, 1 << 20, &e) == 0);
    x->b.st->env.read_pool = sim_pool(x->b.sim);
    bare_batches_draw(&m, &r, 2, 200, 6000);
    REQUIRE(jrn_bare_segment(&x->b, SEGMENT, &m, &x->w) == 0);
    bare_batches_free(&m);
    segments_add(&x->b.st->segments, SEGMENT, &x->w.row);
    x->seg = segment_pin(&x->b.st->segments, SEGMENT);
    chunks_init(&x->t, x->b.st, max_bytes);
}

static void bare_down(struct bare *x)
{
    chunks_fini(&x->t);
    segment_unpin(&x->b.st->segments, x->seg);
    segwrite_close(&x->w);
    jrn_bare_fini(&x->b);
}

static struct chunk_place at(const struct bare *x, uint64_t pos, uint32_t bytes)
{
    return (struct chunk_place){ .seg = x->seg, .pos = pos, .bytes = bytes };
}

static struct chunk *begin(struct bare *x, uint64_t pos, uint32_t bytes, bool ahead)
{
    struct chunk_place p = at(x, pos, bytes);

    return chunk_read(&x->t, &p, x->b.st->keeper, ahead);
}

static void wait_for(struct bare *x, struct chunk *c)
{
    struct waiter w = { .work = { .run = woken, .loop = x->b.st->keeper } };

    w.wait.work = &w.work;
    chunk_wait(&x->t, c, &w.wait);
    REQUIRE(sim_run_until(x->b.sim, is_woken, &w, STEPS));
}

/* What chunk c holds is what the segment has there. */
static void check_bytes(struct bare *x, struct chunk *c, uint64_t pos, uint32_t bytes)
{
    struct buf *buf = NULL;
    uint32_t start;

    CHECK_EQ(chunk_state(&x->t, c), 1);
    REQUIRE(segment_read(&x->b.st->segments, x->seg, pos, bytes, &buf, &start) == 0);
    CHECK(memcmp(chunk_mem(c), buf->mem + start, bytes) == 0);
    buf_unref(buf);
}

static void test_who_comes_second_waits_for_the_first_ones_read(void)
{
    struct chunk *first, *second;
    struct bare x;
    uint64_t reads;

    bare_up(&x, 1 << 20);
    first = begin(&x, 1000, 200000, false);
    CHECK_EQ(chunk_state(&x.t, first), 0);
    second = begin(&x, 1000, 200000, false);
    CHECK(second == first);
    wait_for(&x, second);
    check_bytes(&x, first, 1000, 200000);
    reads = x.b.disk->counts.reads;
    chunk_unref(&x.t, first);
    chunk_unref(&x.t, second);
    first = begin(&x, 1000, 200000, false);
    CHECK_EQ(chunk_state(&x.t, first), 1);
    wait_for(&x, first); /* at once */
    CHECK_EQ(x.b.disk->counts.reads, reads);
    chunk_unref(&x.t, first);
    bare_down(&x);
}

static void test_a_chunk_crosses_extents(void)
{
    struct chunk *c;
    struct bare x;
    uint32_t bytes;

    bare_up(&x, 8 << 20);
    bytes = (uint32_t)x.w.row.data_bytes;
    CHECK(x.w.row.n_extents > 1);
    c = begin(&x, 0, bytes, false);
    wait_for(&x, c);
    check_bytes(&x, c, 0, bytes);
    chunk_unref(&x.t, c);
    bare_down(&x);
}

static void test_the_bound_holds_and_what_is_held_stays(void)
{
    struct chunk *held, *c;
    struct chunk_place p;
    struct bare x;

    bare_up(&x, 100000);
    held = begin(&x, 0, 30000, false);
    wait_for(&x, held);
    for (uint64_t pos = 30000; pos < 300000; pos += 30000) {
        c = begin(&x, pos, 30000, true);
        REQUIRE(c != NULL);
        wait_for(&x, c);
        chunk_unref(&x.t, c);
        CHECK(x.t.bytes <= 100000);
    }
    p = at(&x, 0, 30000);
    CHECK(chunk_find(&x.t, &p) == NULL); /* the oldest went */
    check_bytes(&x, held, 0, 30000);
    p = at(&x, 270000, 30000);
    c = chunk_find(&x.t, &p);
    CHECK(c != NULL);
    chunk_unref(&x.t, c);
    chunk_unref(&x.t, held);
    bare_down(&x);
}

static void test_a_failed_read_is_told_and_not_kept(void)
{
    struct chunk_place p;
    struct chunk *c;
    struct bare x;

    bare_up(&x, 1 << 20);
    x.b.disk->faults.nth[SIM_FAULT_READ] = 1;
    c = begin(&x, 0, 50000, false);
    wait_for(&x, c);
    CHECK_EQ(chunk_state(&x.t, c), E_IO);
    chunk_unref(&x.t, c);
    p = at(&x, 0, 50000);
    CHECK(chunk_find(&x.t, &p) == NULL);
    c = begin(&x, 0, 50000, false);
    wait_for(&x, c);
    check_bytes(&x, c, 0, 50000);
    chunk_unref(&x.t, c);
    bare_down(&x);
}

static void test_a_longer_place_is_read_anew(void)
{
    struct chunk *small, *c;
    struct bare x;

    bare_up(&x, 1 << 20);
    small = begin(&x, 4096, 20000, false);
    c = begin(&x, 4096, 40000, false);
    CHECK(c != small);
    wait_for(&x, c);
    wait_for(&x, small);
    check_bytes(&x, c, 4096, 40000);
    check_bytes(&x, small, 4096, 20000);
    chunk_unref(&x.t, small);
    small = begin(&x, 4096, 20000, false);
    CHECK(small == c); /* it has that, too */
    chunk_unref(&x.t, small);
    chunk_unref(&x.t, c);
    bare_down(&x);
}

static void test_reading_ahead_ends_when_enough_is_being_read(void)
{
    struct chunk *needed;
    uint64_t pos = 0;
    struct bare x;

    bare_up(&x, 64 << 20);
    for (struct chunk *c; (c = begin(&x, pos, 60000, true)) != NULL; pos += 512) {
        chunk_unref(&x.t, c);
        REQUIRE(pos < 512 * 1000);
    }
    CHECK(x.t.loading > 1 << 20);
    needed = begin(&x, pos, 60000, false); /* who is in need gets it all the same */
    wait_for(&x, needed);
    check_bytes(&x, needed, pos, 60000);
    chunk_unref(&x.t, needed);
    while (x.t.loading > 0)
        REQUIRE(sim_step(x.b.sim));
    bare_down(&x);
}

static void test_each_batch_is_checked_for_itself(void)
{
    const struct seg_index *index;
    struct chunk *c;
    struct bare x;

    bare_up(&x, 8 << 20);
    REQUIRE(segment_index(&x.b.st->segments, x.seg, &index) == 0);
    c = begin(&x, index->runs[0].pos, (uint32_t)(x.w.row.data_bytes - index->runs[0].pos), false);
    wait_for(&x, c);
    for (uint32_t i = 0; i < index->n_runs; i++) {
        const uint8_t *mem = chunk_mem(c) + (index->runs[i].pos - index->runs[0].pos);
        const uint8_t *end = mem + index->runs[i].bytes;

        while (mem < end) {
            struct batch_head h;

            REQUIRE(batch_head_read(&h, mem, (size_t)(end - mem)) == 0);
            CHECK(!chunk_checked(c, mem));
            chunk_check(c, mem);
            CHECK(chunk_checked(c, mem));
            mem += h.bytes;
        }
    }
    chunk_unref(&x.t, c);
    bare_down(&x);
}

/* --- a journal's readers --- */

static void roll(struct store *st, void *arg)
{
    committer_roll(st->committer);
}

static void destage(struct store *st, void *arg)
{
    destage_consider(st, true);
}

static bool is_destaged(void *ctx)
{
    struct jrn_sim *js = ctx;

    return destage_idle(js->st->destage) && wal_live(&js->st->wal).closed_bytes == 0;
}

static struct shard *journal_up(struct jrn_sim *js, uint32_t direct_from, bool destaged)
{
    struct err e = { 0 };
    struct shard *s;

    logger_to(-1);
    jrn_sim_init(js, 9, 64 << 20, 1);
    js->conf.wal_budget = 1 << 30;
    js->conf.read_cache_bytes = 16 << 20;
    js->conf.direct_from = direct_from;
    REQUIRE(jrn_sim_open(js, &e) >= 0);
    REQUIRE(call_create(js, SHARD, SHARD_CLASS_DATA) == 0);
    s = call_open(js, SHARD, NULL);
    for (unsigned i = 0; i < BATCHES; i++)
        REQUIRE(call_append(js, s, call_batch(i, 2, VALUE), NULL) == 0);
    store_on_keeper(js->st, roll, NULL);
    call_wait_ms(js, 20);
    while (destaged && !is_destaged(js)) {
        store_on_keeper(js->st, destage, NULL);
        call_wait_ms(js, 50);
    }
    return s;
}

static void journal_down(struct jrn_sim *js, struct shard *s)
{
    shard_unref(s);
    jrn_sim_close(js);
    jrn_sim_fini(js);
}

/* All of it is read; gives the reads that the device had for it. */
static uint64_t read_all(struct jrn_sim *js, struct shard *s, struct call_bytes *out)
{
    uint64_t reads = js->disk->counts.reads;
    int rc;

    CHECK_EQ(call_read(js, s, 0, out, &rc, NULL), 2 * BATCHES);
    CHECK(rc >= 0);
    return js->disk->counts.reads - reads;
}

/* Each read of call_read brings a batch or two; a chunk has dozens. */
static void readers_share(uint32_t direct_from, bool destaged)
{
    struct call_bytes first = { 0 }, second = { 0 };
    struct jrn_sim js;
    struct shard *s = journal_up(&js, direct_from, destaged);

    CHECK(read_all(&js, s, &first) < BATCHES / 2);
    CHECK(read_all(&js, s, &second) <= 4); /* its first one is of somebody who may go anywhere */
    CHECK_EQ(first.n, second.n);
    CHECK(memcmp(first.mem, second.mem, first.n) == 0);
    free(first.mem);
    free(second.mem);
    journal_down(&js, s);
}

static void test_who_reads_on_reads_chunks_and_a_second_reader_nothing(void)
{
    readers_share(UINT32_MAX, true);
    readers_share(UINT32_MAX, false);
    readers_share(2000, true);
    readers_share(2000, false);
}

struct one_read {
    struct read_done d;
    bool done;
};

static void one_read_fn(struct read_done *d)
{
    ((struct one_read *)d)->done = true;
}

static bool one_is_read(void *ctx)
{
    return ((struct one_read *)ctx)->done;
}

static void test_who_reads_here_and_there_reads_nothing_ahead(void)
{
    struct jrn_sim js;
    struct shard *s = journal_up(&js, UINT32_MAX, true);

    for (uint64_t i = 0; i < 40; i++) {
        struct one_read r = { .d = { .fn = one_read_fn,
                                     .loop = js.loops[0],
                                     .from = 2 * (i * 37 % BATCHES),
                                     .max_bytes = VALUE,
                                     .at_least_one = true } };

        shard_read(s, &r.d);
        REQUIRE(sim_run_until(js.sim, one_is_read, &r, STEPS));
        CHECK_EQ(r.d.rc, 0);
        CHECK_EQ(r.d.n_slices, 1);
        read_done_release(&r.d);
    }
    CHECK_EQ(js.st->chunks.bytes, 0);
    journal_down(&js, s);
}

TEST_MAIN(T(who_comes_second_waits_for_the_first_ones_read) T(a_chunk_crosses_extents)
              T(the_bound_holds_and_what_is_held_stays) T(a_failed_read_is_told_and_not_kept)
                  T(a_longer_place_is_read_anew) T(reading_ahead_ends_when_enough_is_being_read)
                      T(each_batch_is_checked_for_itself)
                          T(who_reads_on_reads_chunks_and_a_second_reader_nothing)
                              T(who_reads_here_and_there_reads_nothing_ahead))
