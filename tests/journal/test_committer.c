/* The committer: how blocks are made up, in what order answers go out, and what a failed write
 * means. Blocks are looked at on the disk after a power cut. */
#include "base/logger.h"
#include "format/sum.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"
#include "tests/sim/wal_look.h"

enum { SHARDS = 9, MANY = 60, NEVER_MS = 1000000, SEGMENT_BYTES = 9000 };

static void up(struct jrn_sim *js, uint64_t seed, unsigned n_loops, struct shard **s)
{
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(js, seed, 64 << 20, n_loops);
    js->conf.wal_budget = 1 << 30;
    js->conf.idle_close_ms = NEVER_MS;
    js->conf.segment_bytes = SEGMENT_BYTES;
    REQUIRE(jrn_sim_open(js, &e) >= 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        REQUIRE(call_create(js, 16 + i, SHARD_CLASS_DATA) == 0);
        s[i] = call_open(js, 16 + i, NULL);
    }
}

static void handles_drop(struct shard **s)
{
    for (unsigned i = 0; i < SHARDS; i++)
        shard_unref(s[i]);
}

/* Many appends at once, of shards in no order. */
static void append_many(struct jrn_sim *js, struct shard **s, struct rng *r, struct call_append *a,
                        unsigned *shard, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        shard[i] = (unsigned)rng_below(r, SHARDS);
        call_append_begin(js, s[shard[i]],
                          call_batch(i, 1 + (unsigned)rng_below(r, 3), (unsigned)rng_below(r, 900)),
                          &a[i]);
    }
}

/* --- what lies in a block --- */

struct group_seen {
    uint64_t entry, hash, epoch;
    uint64_t cut, bytes; /* the last entry that ended a segment; of batches since */
    unsigned cuts;
};

/* A segment ends with the frame that brings it to its size, and with no other. */
static void check_segment(const struct frame_head *f, const uint8_t *frame, struct group_seen *seen)
{
    CHECK_EQ(f->segment.first, seen->cut + 1);
    CHECK_EQ(f->segment.bytes, seen->bytes);
    for (uint32_t i = 0; i < f->n_items; i++) {
        struct frame_item item;

        frame_item_read(&item, frame, i);
        seen->bytes += item.bytes;
    }
    CHECK_EQ((f->flags & FRAME_CUT) != 0, seen->bytes >= SEGMENT_BYTES);
    if (f->flags & FRAME_CUT) {
        seen->cut = f->entry;
        seen->bytes = 0;
        seen->cuts++;
    }
}

static void check_frame(const struct look_block *b, const struct block_dir *d,
                        struct group_seen *seen)
{
    struct frame_head f;
    struct frame_item item, before = { 0 };

    REQUIRE(frame_head_read(&f, b->mem + d->pos, d->bytes) >= 0);
    CHECK_EQ(f.group, d->group);
    CHECK_EQ(f.entry, seen->entry + 1);
    CHECK_EQ(f.prev_hash, seen->hash);
    CHECK_EQ(f.lac, seen->entry); /* one block in flight: all before is committed */
    CHECK_EQ(d->hash, sum_xxh3(b->mem + d->pos, d->bytes, 0));
    for (uint32_t i = 0; i < f.n_items; i++) {
        frame_item_read(&item, b->mem + d->pos, i);
        if (i > 0)
            CHECK(item.shard > before.shard ||
                  (item.shard == before.shard &&
                   item.base_offset == before.base_offset + before.n_offsets));
        before = item;
    }
    check_segment(&f, b->mem + d->pos, seen);
    seen->entry = f.entry;
    seen->hash = d->hash;
}

static unsigned group_of(const struct look_block *b, uint64_t group, struct block_dir *d)
{
    for (uint32_t i = 0; i < b->head.n_frames; i++) {
        block_dir_read(d, b->mem, i);
        if (d->group == group)
            return 1;
    }
    return 0;
}

/* The prev entries name what the block before held; those of the first name every group. */
static void check_prev(const struct look_block *b, const struct look_block *before,
                       unsigned n_groups)
{
    CHECK_EQ(b->head.n_prev, before ? before->head.n_frames : n_groups);
    for (uint32_t i = 0; before && i < b->head.n_prev; i++) {
        struct block_prev p;
        struct block_dir d;

        block_prev_read(&p, b->mem, b->head.n_frames, i);
        REQUIRE(group_of(before, p.group, &d) == 1);
        CHECK_EQ(p.last_entry, d.entry);
        CHECK_EQ(p.n_offsets, d.n_offsets);
    }
}

static void test_frames_are_sorted_and_chained_and_blocks_say_what_was_before(void)
{
    unsigned several = 0, cuts = 0;

    for (uint64_t seed = 1; seed < 8; seed++) {
        static struct call_append a[MANY];
        static unsigned shard[MANY];
        struct group_seen seen[64] = { 0 };
        struct shard *s[SHARDS];
        struct jrn_sim js;
        struct wal_look l;

        up(&js, seed, 1 + seed % 4, s);
        for (unsigned k = 0; k < 3; k++) {
            append_many(&js, s, &js.rng, a, shard, MANY);
            for (unsigned i = 0; i < MANY; i++)
                CHECK_EQ(call_append_end(&js, &a[i]), 0);
        }
        handles_drop(s);
        jrn_sim_crash(&js, false);
        wal_look_open(&l, &js);
        REQUIRE(wal_look_scan(&l) >= 0);
        CHECK_EQ(l.blocks[0].head.flags, BLOCK_OPENING);
        for (unsigned i = 0; i < l.n_blocks; i++) {
            const struct look_block *b = &l.blocks[i], *before = i > 0 ? b - 1 : NULL;

            check_prev(b, before, l.super.n_groups);
            CHECK_EQ(b->lsn % 4096, 0);
            CHECK_EQ(b->head.durable_lsn, b->lsn); /* all below was flushed before */
            CHECK_EQ(b->head.prev_hash, before ? before->head.hash : 0);
            CHECK_EQ(b->head.prev_lsn, before ? before->lsn : UINT64_MAX);
            several += b->head.n_frames > 1;
            for (uint32_t k = 0; k < b->head.n_frames; k++) {
                struct block_dir d;

                block_dir_read(&d, b->mem, k);
                check_frame(b, &d, &seen[d.group]);
            }
        }
        for (unsigned i = 0; i < 64; i++)
            cuts += seen[i].cuts;
        wal_look_close(&l);
        jrn_sim_fini(&js);
    }
    CHECK(several > 5);
    CHECK(cuts > 20);
}

/* How a life may end. */
static void life_ends(struct jrn_sim *js, struct shard **s, unsigned how)
{
    struct call_append a;

    if (how < 2)
        call_append_begin(js, s[0], call_batch(1, 1, 3000), &a); /* it may be there, or not */
    handles_drop(s);
    if (how == 0)
        jrn_sim_crash(js, js->lives % 2 == 0);
    else if (how == 1)
        jrn_sim_kill(js, js->lives % 2 == 0);
    else
        jrn_sim_close(js);
    if (how < 2)
        CHECK(a.done);
}

static void test_segments_end_at_the_same_entries_however_often_the_writer_starts(void)
{
    unsigned cuts = 0;

    for (uint64_t seed = 10; seed < 20; seed++) {
        struct group_seen seen[64] = { 0 };
        struct shard *s[SHARDS];
        struct jrn_sim js;
        struct wal_look l;

        up(&js, seed, 1, s);
        for (unsigned life = 0; life < 6; life++) {
            for (uint64_t i = 0; i < 6; i++)
                CHECK_EQ(call_append(&js, s[rng_below(&js.rng, SHARDS)],
                                     call_batch(i, 1, (unsigned)rng_below(&js.rng, 3000)), NULL),
                         0);
            life_ends(&js, s, (unsigned)rng_below(&js.rng, 3));
            REQUIRE(jrn_sim_open(&js, NULL) >= 0);
            for (unsigned i = 0; i < SHARDS; i++)
                s[i] = call_open(&js, 16 + i, NULL);
        }
        life_ends(&js, s, 2);
        wal_look_open(&l, &js);
        REQUIRE(wal_look_scan(&l) >= 0);
        for (unsigned i = 0; i < l.n_blocks; i++)
            for (uint32_t k = 0; k < l.blocks[i].head.n_frames; k++) {
                struct block_dir d;
                struct frame_head f;

                block_dir_read(&d, l.blocks[i].mem, k);
                REQUIRE(frame_head_read(&f, l.blocks[i].mem + d.pos, d.bytes) >= 0);
                check_segment(&f, l.blocks[i].mem + d.pos, &seen[d.group]);
            }
        for (unsigned i = 0; i < 64; i++)
            cuts += seen[i].cuts;
        wal_look_close(&l);
        jrn_sim_fini(&js);
    }
    CHECK(cuts > 20);
}

static void test_answers_of_one_loop_go_out_in_lsn_order(void)
{
    for (uint64_t seed = 20; seed < 26; seed++) {
        static struct call_append a[MANY];
        static unsigned shard[MANY];
        static uint64_t lsn[MANY];
        struct shard *s[SHARDS];
        struct jrn_sim js;
        struct wal_look l;

        up(&js, seed, 1, s);
        append_many(&js, s, &js.rng, a, shard, MANY);
        for (unsigned i = 0; i < MANY; i++)
            CHECK_EQ(call_append_end(&js, &a[i]), 0);
        handles_drop(s);
        jrn_sim_crash(&js, false);
        wal_look_open(&l, &js);
        REQUIRE(wal_look_scan(&l) >= 0);
        memset(lsn, 0, sizeof lsn);
        for (unsigned b = 0; b < l.n_blocks; b++)
            for (uint32_t k = 0; k < l.blocks[b].head.n_frames; k++) {
                struct block_dir d;
                struct frame_head f;
                struct frame_item item;

                block_dir_read(&d, l.blocks[b].mem, k);
                REQUIRE(frame_head_read(&f, l.blocks[b].mem + d.pos, d.bytes) >= 0);
                for (uint32_t n = 0; n < f.n_items; n++) {
                    frame_item_read(&item, l.blocks[b].mem + d.pos, n);
                    for (unsigned i = 0; i < MANY; i++)
                        if (shard[i] + 16 == item.shard && a[i].d.base_offset == item.base_offset)
                            lsn[i] = l.blocks[b].lsn + d.pos + n;
                }
            }
        for (unsigned i = 0; i < MANY; i++) {
            CHECK(lsn[i] != 0); /* what was acked is there */
            for (unsigned k = 0; k < MANY; k++)
                CHECK((lsn[i] < lsn[k]) == (a[i].order < a[k].order) || i == k);
        }
        wal_look_close(&l);
        jrn_sim_fini(&js);
    }
}

/* --- duplicates --- */

static void test_a_duplicate_is_answered_after_its_original(void)
{
    for (uint64_t seed = 30; seed < 60; seed++) {
        struct call_append a[8], d[8];
        struct shard *s[SHARDS];
        struct jrn_sim js;

        up(&js, seed, 1 + seed % 3, s);
        for (int32_t i = 0; i < 8; i++) {
            call_append_begin(&js, s[0], call_batch_of(5, 0, i, 1, 8000), &a[i]);
            for (unsigned k = 0; k < seed % 7; k++)
                sim_step(js.sim);
            call_append_begin(&js, s[0], call_batch_of(5, 0, i, 1, 8000), &d[i]);
        }
        for (unsigned i = 0; i < 8; i++) {
            CHECK_EQ(call_append_end(&js, &d[i]), 0);
            CHECK(d[i].d.duplicate);
            CHECK(a[i].done && !a[i].d.duplicate);
            CHECK(d[i].order > a[i].order);
            CHECK_EQ(d[i].d.base_offset, i);
            CHECK_EQ(a[i].d.base_offset, i);
        }
        CHECK_EQ(shard_end(s[0]), 8);
        handles_drop(s);
        jrn_sim_close(&js);
        jrn_sim_fini(&js);
    }
}

/* --- failure --- */

/* The nth write or flush after the start fails; gives false when there was none. */
static bool fail_at(enum sim_fault kind, uint32_t nth, uint64_t seed)
{
    struct call_append a[12], d;
    uint64_t acked = 0, end;
    struct shard *s[SHARDS];
    struct jrn_sim js;
    struct err e = { 0 };
    bool met;
    int rc;

    up(&js, seed, 2, s);
    js.disk->faults.nth[kind] = nth;
    for (int32_t i = 0; i < 12; i++) {
        call_append_begin(&js, s[0], call_batch_of(5, 0, i, 1, 5000), &a[i]);
        if (i % 3 == 2)
            call_append_end(&js, &a[i]);
    }
    call_append_begin(&js, s[0], call_batch_of(5, 0, 11, 1, 5000), &d);
    call_append_end(&js, &d);
    met = js.disk->faults.nth[kind] == 0;
    js.disk->faults.nth[kind] = 0;
    for (unsigned i = 0; i < 12; i++) {
        rc = call_append_end(&js, &a[i]);
        CHECK(rc == 0 || rc == E_DEVICE);
        if (rc == 0)
            CHECK_EQ(acked, i); /* nothing is acked behind a failure */
        acked += rc == 0;
    }
    CHECK_EQ(d.d.rc, acked == 12 ? 0 : E_DEVICE);
    CHECK_EQ(acked == 12, !met);
    CHECK_EQ(journal_state(js.j), met ? JRN_FAILED : JRN_OK);
    if (met) {
        CHECK_EQ(call_append(&js, s[1], call_batch(1, 1, 10), NULL), E_DEVICE);
        CHECK_EQ(call_append(&js, s[0], call_batch_of(5, 0, 0, 1, 5000), NULL), E_DEVICE);
        end = call_read(&js, s[0], 0, NULL, &rc, NULL);
        CHECK_EQ(rc, 0); /* reads go on */
        CHECK_EQ(end, acked);
    }
    handles_drop(s);
    jrn_sim_crash(&js, false);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    s[0] = call_open(&js, 16, NULL);
    CHECK(shard_end(s[0]) >= acked && shard_end(s[0]) <= 12);
    CHECK_EQ(call_read(&js, s[0], 0, NULL, &rc, NULL), shard_end(s[0]));
    shard_unref(s[0]);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
    return met;
}

static void test_after_a_failed_write_or_flush_nothing_is_acked_any_more(void)
{
    uint32_t n = 1;

    while (fail_at(SIM_FAULT_WRITE, n, 70 + n))
        n++;
    CHECK(n > 4);
    for (n = 1; fail_at(SIM_FAULT_SYNC, n, 90 + n);)
        n++;
    CHECK(n > 4);
}

/* --- sizes --- */

/* A batch of exactly so many bytes. */
static struct buf *batch_sized(uint32_t bytes)
{
    for (unsigned value = bytes - 200; value < bytes; value++) {
        struct buf *b = call_batch(1, 1, value);

        if (b->len == bytes)
            return b;
        buf_unref(b);
    }
    return NULL;
}

static void test_a_batch_of_the_largest_size_fits_wherever_the_extent_stands(void)
{
    struct shard *s[SHARDS];
    struct jrn_sim js;
    uint64_t offset;
    int rc;

    up(&js, 110, 3, s);
    for (unsigned i = 0; i < 16; i++) {
        struct buf *b = batch_sized(js.conf.batch_max);

        REQUIRE(b != NULL);
        CHECK_EQ(call_append(&js, s[i % SHARDS], b, &offset), 0);
        for (unsigned k = 0; k < i; k++)
            CHECK_EQ(call_append(&js, s[k % SHARDS], call_batch(k, 1, 10), NULL), 0);
    }
    CHECK_EQ(call_append(&js, s[0], batch_sized(js.conf.batch_max + 1), &offset), E_TOOBIG);
    for (unsigned i = 0; i < SHARDS; i++) {
        CHECK_EQ(call_read(&js, s[i], 0, NULL, &rc, NULL), shard_end(s[i]));
        CHECK_EQ(rc, 0);
    }
    handles_drop(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_a_block_stops_taking_batches_at_its_bound(void)
{
    static struct call_append a[MANY];
    struct shard *s[SHARDS];
    struct jrn_sim js;
    struct wal_look l;
    uint64_t largest = 0;

    up(&js, 111, 1, s);
    for (unsigned i = 0; i < MANY; i++)
        call_append_begin(&js, s[i % SHARDS], call_batch(i, 1, 2000), &a[i]);
    for (unsigned i = 0; i < MANY; i++)
        CHECK_EQ(call_append_end(&js, &a[i]), 0);
    handles_drop(s);
    jrn_sim_crash(&js, false);
    wal_look_open(&l, &js);
    REQUIRE(wal_look_scan(&l) >= 0);
    for (unsigned i = 0; i < l.n_blocks; i++)
        largest = l.blocks[i].bytes > largest ? l.blocks[i].bytes : largest;
    CHECK(largest <= js.conf.block_max);
    CHECK(largest > js.conf.block_max / 2); /* they were gathered */
    wal_look_close(&l);
    jrn_sim_fini(&js);
}

/* --- the delay between commits --- */

enum { DELAY_MS = 50, STEP_MS = 3 };

/* Appends MANY batches, STEP_MS apart, in a life with that delay, and closes while one is on its way.
 * Gives how many blocks had them; none began too early. */
static unsigned blocks_with_delay(uint64_t delay_ms)
{
    static struct call_append a[MANY + 1];
    struct shard *s[SHARDS];
    struct jrn_sim js;
    struct wal_look l;
    uint64_t before = 0;
    unsigned n = 0;

    up(&js, 113, 1, s);
    handles_drop(s);
    jrn_sim_close(&js);
    js.conf.commit_delay_us = (uint32_t)delay_ms * 1000;
    REQUIRE(jrn_sim_open(&js, NULL) >= 0);
    s[0] = call_open(&js, 16, NULL);
    for (unsigned i = 0; i < MANY; i++) {
        call_append_begin(&js, s[0], call_batch(i, 1, 10), &a[i]);
        call_wait_ms(&js, STEP_MS);
    }
    for (unsigned i = 0; i < MANY; i++)
        CHECK_EQ(call_append_end(&js, &a[i]), 0);
    call_append_begin(&js, s[0], call_batch(MANY, 1, 10), &a[MANY]);
    shard_unref(s[0]);
    jrn_sim_close(&js);
    CHECK(a[MANY].done);
    wal_look_open(&l, &js);
    REQUIRE(wal_look_scan(&l) >= 0);
    for (unsigned i = 0; i < l.n_blocks; i++) {
        const struct block_head *h = &l.blocks[i].head;

        if (h->incarnation != 2 || h->n_frames == 0)
            continue;
        if (n++ > 0 && i + 2 < l.n_blocks) /* the close waits for nothing */
            CHECK((uint64_t)h->written + 1 >= before + delay_ms);
        before = (uint64_t)h->written;
    }
    wal_look_close(&l);
    jrn_sim_fini(&js);
    return n;
}

static void test_with_a_delay_commits_begin_that_far_apart_and_all_are_answered(void)
{
    unsigned with = blocks_with_delay(DELAY_MS), without = blocks_with_delay(0);

    CHECK(with >= 3);
    CHECK(with <= MANY * STEP_MS / DELAY_MS + 4);
    CHECK(without > 2 * with);
}

/* --- the closing block --- */

static void test_an_idle_wal_gets_one_closing_block_and_no_second(void)
{
    struct shard *s[SHARDS];
    struct jrn_sim js;
    struct wal_look l;
    unsigned closing = 0;

    up(&js, 112, 2, s);
    handles_drop(s);
    jrn_sim_close(&js);
    js.conf.idle_close_ms = 10;
    REQUIRE(jrn_sim_open(&js, NULL) >= 0);
    s[0] = call_open(&js, 16, NULL);
    CHECK_EQ(call_append(&js, s[0], call_batch(1, 1, 10), NULL), 0);
    call_wait_ms(&js, 1000);
    CHECK_EQ(call_append(&js, s[0], call_batch(2, 1, 10), NULL), 0);
    shard_unref(s[0]);
    call_wait_ms(&js, 1000);
    jrn_sim_close(&js);
    wal_look_open(&l, &js);
    REQUIRE(wal_look_scan(&l) >= 0);
    CHECK_EQ(l.super.n, 2);
    for (unsigned i = 0; i < l.n_blocks; i++) {
        CHECK_EQ(l.blocks[i].head.flags == 0, l.blocks[i].head.n_frames > 0);
        closing += l.blocks[i].head.incarnation == 2 && l.blocks[i].head.flags == BLOCK_CLOSING;
    }
    CHECK_EQ(closing, 2);
    CHECK_EQ(l.blocks[l.n_blocks - 1].head.flags, BLOCK_CLOSING);
    wal_look_close(&l);
    jrn_sim_fini(&js);
}

TEST_MAIN(
    T(frames_are_sorted_and_chained_and_blocks_say_what_was_before)
        T(segments_end_at_the_same_entries_however_often_the_writer_starts)
            T(answers_of_one_loop_go_out_in_lsn_order) T(a_duplicate_is_answered_after_its_original)
                T(after_a_failed_write_or_flush_nothing_is_acked_any_more)
                    T(a_batch_of_the_largest_size_fits_wherever_the_extent_stands)
                        T(a_block_stops_taking_batches_at_its_bound)
                            T(with_a_delay_commits_begin_that_far_apart_and_all_are_answered)
                                T(an_idle_wal_gets_one_closing_block_and_no_second))
