/* Sealed segments: reading across extents, finding by offset, the rebuilt index, pins. */
#include <inttypes.h>
#include <stdlib.h>

#include "format/batch.h"
#include "journal/segwrite.h"
#include "tests/check.h"
#include "tests/sim/jrn_bare.h"
#include "tests/sim/jrn_calls.h"

enum { SEGMENT = 0x900000001, INDEXES_BOUND = 64 };

/* A written segment in the table, pinned. */
struct bed {
    struct jrn_bare b;
    struct bare_batches m;
    struct segwrite w; /* its builder holds the index as it was made */
    struct segment *s;
};

static void bed_init(struct bed *t, uint64_t seed, unsigned n_shards, unsigned per_shard,
                     uint32_t max_value)
{
    struct rng r;

    rng_seed(&r, seed);
    jrn_bare_init(&t->b, seed, 0);
    for (unsigned i = 0; i < 5; i++)
        REQUIRE(slabs_grow(&t->b.st->slabs, UNIT_BYTES, NULL) >= 0);
    if (seed % 2)
        jrn_bare_scatter(&t->b);
    bare_batches_draw(&t->m, &r, n_shards, per_shard, max_value);
    REQUIRE(jrn_bare_segment(&t->b, SEGMENT, &t->m, &t->w) >= 0);
    segments_add(&t->b.st->segments, SEGMENT, &t->w.row);
    t->s = segment_pin(&t->b.st->segments, SEGMENT);
    REQUIRE(t->s != NULL);
}

static void bed_fini(struct bed *t)
{
    if (t->s)
        segment_unpin(&t->b.st->segments, t->s);
    segwrite_close(&t->w);
    bare_batches_free(&t->m);
    jrn_bare_fini(&t->b);
}

/* Changes one bit of the segment's byte pos on the device. */
static void damage(struct bed *t, uint64_t pos)
{
    const struct row_segment *row = &t->w.row;
    char name[32];
    unsigned i = 0;

    while (pos >= seg_extent_room(row->extents[i].log2))
        pos -= seg_extent_room(row->extents[i++].log2);
    REQUIRE(i < row->n_extents);
    snprintf(name, sizeof name, "slab-%06" PRIu32, place_slab(row->extents[i].place));
    REQUIRE(sim_disk_rot(t->b.disk, name, place_pos(row->extents[i].place) + PAGE_BYTES + pos) >=
            0);
}

/* --- reading --- */

static void test_any_range_reads_as_it_was_written_across_extents(void)
{
    for (uint64_t seed = 1; seed < 5; seed++) {
        struct bed t;
        struct rng r;

        bed_init(&t, seed, 3, 60, 6000);
        CHECK(seed % 2 == 0 || t.w.row.n_extents > 4);
        rng_seed(&r, seed);
        for (unsigned i = 0; i < 300; i++) {
            uint64_t pos = rng_below(&r, t.w.row.data_bytes);
            uint64_t bytes = 1 + rng_below(&r, t.w.row.data_bytes - pos);
            struct buf *buf;
            uint32_t at;

            REQUIRE(segment_read(&t.b.st->segments, t.s, pos, bytes, &buf, &at) >= 0);
            CHECK(at + bytes <= buf->len);
            CHECK(memcmp(buf->mem + at, t.w.data->mem + pos, bytes) == 0);
            buf_unref(buf);
        }
        bed_fini(&t);
    }
}

static void test_a_read_behind_the_extents_is_corrupt_and_a_failed_one_is_io(void)
{
    struct bed t;
    struct buf *buf;
    uint32_t at;

    bed_init(&t, 6, 1, 10, 100);
    CHECK_EQ(segment_read(&t.b.st->segments, t.s, segment_space(&t.w.row), 10, &buf, &at),
             E_CORRUPT);
    t.b.disk->faults.nth[SIM_FAULT_READ] = 1;
    CHECK_EQ(segment_read(&t.b.st->segments, t.s, 0, 10, &buf, &at), E_IO);
    bed_fini(&t);
}

/* --- the index --- */

static const struct seg_run *run_of(const struct seg_index *x, const struct bare_batch *b)
{
    for (uint32_t i = 0; i < x->n_runs; i++)
        if (x->runs[i].shard == b->shard && b->base >= x->runs[i].base && b->base < x->runs[i].end)
            return &x->runs[i];
    return NULL;
}

/* From the last sparse entry at or below offset, batch by batch, no further than the next. */
static uint64_t find_from_sparse(const struct bed *t, const struct seg_index *x,
                                 const struct seg_run *run, uint64_t offset)
{
    const struct seg_sparse *n = &x->sparse[run->first_sparse];
    uint64_t at, end;
    uint32_t i = 0;
    struct batch_head h;

    while (i + 1 < run->n_sparse && n[i + 1].offset <= offset)
        i++;
    at = n[i].pos;
    end = i + 1 < run->n_sparse ? n[i + 1].pos : run->bytes;
    while (at < end) {
        if (batch_check(&h, t->w.data->mem + run->pos + at, run->bytes - at) < 0)
            return UINT64_MAX;
        if ((uint64_t)h.base_offset + (uint64_t)h.last_offset_delta >= offset)
            return (uint64_t)h.base_offset;
        at += h.bytes;
    }
    return UINT64_MAX;
}

static void test_every_offset_is_found_from_its_sparse_entry(void)
{
    for (uint64_t seed = 10; seed < 14; seed++) {
        const struct seg_index *x;
        struct bed t;

        bed_init(&t, seed, 4, 100, seed % 3 ? 3000 : 30000);
        REQUIRE(segment_index(&t.b.st->segments, t.s, &x) >= 0);
        for (unsigned i = 0; i < t.m.n; i++) {
            const struct bare_batch *n = &t.m.list[i];
            const struct seg_run *run = run_of(x, n);

            REQUIRE(run != NULL);
            CHECK(n->base + n->n_offsets <= run->end);
            for (uint32_t k = 0; k < n->n_offsets; k++)
                CHECK_EQ(find_from_sparse(&t, x, run, n->base + k), n->base);
        }
        bed_fini(&t);
    }
}

static void test_sparse_entries_are_32_kib_apart_and_know_their_largest_time(void)
{
    struct bed t;
    const struct seg_index *x;
    unsigned more_than_one = 0;

    bed_init(&t, 15, 2, 150, 4000);
    REQUIRE(segment_index(&t.b.st->segments, t.s, &x) >= 0);
    for (uint32_t i = 0; i < x->n_runs; i++) {
        const struct seg_run *run = &x->runs[i];

        REQUIRE(run->n_sparse >= 1);
        CHECK_EQ(x->sparse[run->first_sparse].pos, 0);
        more_than_one += run->n_sparse > 1;
        for (uint32_t k = 0; k < run->n_sparse; k++) {
            const struct seg_sparse *n = &x->sparse[run->first_sparse + k];
            uint64_t end = k + 1 < run->n_sparse ? n[1].offset : run->end;
            int64_t max = INT64_MIN;

            if (k + 1 < run->n_sparse)
                CHECK(n[1].pos - n->pos >= 32768);
            for (unsigned b = 0; b < t.m.n; b++)
                if (t.m.list[b].shard == run->shard && t.m.list[b].base >= n->offset &&
                    t.m.list[b].base < end && t.m.list[b].max_ts > max)
                    max = t.m.list[b].max_ts;
            CHECK_EQ(n->max_ts, max);
        }
    }
    CHECK(more_than_one > 0);
    bed_fini(&t);
}

static bool same_index(const struct seg_index *a, const struct seg_index *b)
{
    bool same = a->segment == b->segment && a->n_runs == b->n_runs && a->n_sparse == b->n_sparse &&
                a->n_producers == b->n_producers;

    for (uint32_t i = 0; same && i < a->n_runs; i++) {
        const struct seg_run *x = &a->runs[i], *y = &b->runs[i];

        same = x->shard == y->shard && x->base == y->base && x->end == y->end && x->pos == y->pos &&
               x->bytes == y->bytes && x->n_batches == y->n_batches && x->n_sparse == y->n_sparse &&
               x->first_sparse == y->first_sparse && x->max_ts == y->max_ts && x->xxh3 == y->xxh3;
    }
    for (uint32_t i = 0; same && i < a->n_sparse; i++)
        same = a->sparse[i].offset == b->sparse[i].offset && a->sparse[i].pos == b->sparse[i].pos &&
               a->sparse[i].max_ts == b->sparse[i].max_ts;
    for (uint32_t i = 0; same && i < a->n_producers; i++) {
        const struct seg_producer *x = &a->producers[i], *y = &b->producers[i];

        same = x->shard == y->shard && x->producer == y->producer && x->base == y->base &&
               x->max_ts == y->max_ts && x->base_sequence == y->base_sequence &&
               x->last_sequence == y->last_sequence && x->epoch == y->epoch;
    }
    return same;
}

static void test_the_index_keeps_the_last_five_batches_of_each_producer(void)
{
    struct bed t;
    const struct seg_index *x;

    bed_init(&t, 16, 3, 50, 500);
    REQUIRE(segment_index(&t.b.st->segments, t.s, &x) >= 0);
    for (uint64_t shard = 16; shard < 19; shard++) {
        struct batch_head last[5];
        uint32_t n = 0, at = 0;

        for (unsigned i = 0; i < t.m.n; i++) {
            struct batch_head h;

            REQUIRE(batch_check(&h, t.m.list[i].buf->mem, t.m.list[i].buf->len) >= 0);
            if (t.m.list[i].shard != shard || h.producer_id < 0)
                continue;
            if (n == 5)
                memmove(last, last + 1, 4 * sizeof last[0]);
            last[n == 5 ? 4 : n] = h;
            n += n < 5;
        }
        CHECK_EQ(n, 5);
        for (uint32_t i = 0; i < x->n_producers; i++) {
            if (x->producers[i].shard != shard)
                continue;
            REQUIRE(at < n);
            CHECK_EQ(x->producers[i].base, last[at].base_offset);
            CHECK_EQ(x->producers[i].base_sequence, last[at].base_sequence);
            CHECK_EQ(x->producers[i].last_sequence,
                     last[at].base_sequence + last[at].record_count - 1);
            at++;
        }
        CHECK_EQ(at, n);
    }
    bed_fini(&t);
}

static void test_an_index_rebuilt_from_the_data_equals_the_stored_one(void)
{
    for (uint64_t seed = 20; seed < 24; seed++) {
        const struct seg_index *x;
        struct seg_index made;
        struct bed t;
        struct rng r;

        bed_init(&t, seed, 5, 60, 3000);
        REQUIRE(segment_index_rebuild(&t.b.st->segments, t.s, &made) >= 0);
        CHECK(same_index(&made, &t.w.builder.index));
        seg_index_free(&made);
        /* The stored one is damaged: the reader gets an equal one. */
        rng_seed(&r, seed);
        damage(&t, t.w.row.index_pos + rng_below(&r, t.w.row.index_bytes));
        REQUIRE(segment_index(&t.b.st->segments, t.s, &x) >= 0);
        CHECK(same_index(x, &t.w.builder.index));
        bed_fini(&t);
    }
}

static void test_a_damaged_batch_costs_a_rebuilt_index_the_rest_of_its_run_only(void)
{
    const struct seg_index *made;
    struct seg_index x;
    const struct seg_run *hit;
    struct bed t;
    uint32_t k = 0;

    bed_init(&t, 26, 4, 40, 2000);
    made = &t.w.builder.index;
    REQUIRE(made->n_runs > 3);
    while (made->runs[k].n_batches < 3)
        k++;
    hit = &made->runs[k];
    damage(&t, hit->pos + hit->bytes - 1); /* in its last batch */
    REQUIRE(segment_index_rebuild(&t.b.st->segments, t.s, &x) >= 0);
    REQUIRE(x.n_runs == made->n_runs);
    for (uint32_t i = 0; i < x.n_runs; i++) {
        CHECK_EQ(x.runs[i].shard, made->runs[i].shard);
        CHECK_EQ(x.runs[i].base, made->runs[i].base);
        CHECK_EQ(x.runs[i].pos, made->runs[i].pos);
        CHECK_EQ(x.runs[i].n_batches, made->runs[i].n_batches - (i == k));
        CHECK_EQ(x.runs[i].end == made->runs[i].end, i != k);
    }
    seg_index_free(&x);
    bed_fini(&t);
}

static void test_another_segments_index_is_not_taken_for_ours(void)
{
    struct bed t;
    const struct seg_index *x;
    struct segment *other;

    bed_init(&t, 28, 2, 10, 500);
    segments_add(&t.b.st->segments, SEGMENT + 1, &t.w.row);
    other = segment_pin(&t.b.st->segments, SEGMENT + 1);
    /* Neither its index nor its run headers are of the other's number: nothing is found in it. */
    REQUIRE(segment_index(&t.b.st->segments, other, &x) >= 0);
    CHECK_EQ(x->n_runs, 0);
    CHECK_EQ(x->segment, SEGMENT + 1);
    segment_unpin(&t.b.st->segments, other);
    bed_fini(&t);
}

static void test_only_so_many_parsed_indexes_are_kept_and_pinned_ones_stay(void)
{
    struct bed t;
    const struct seg_index *pinned, *x;

    bed_init(&t, 30, 1, 3, 100);
    REQUIRE(segment_index(&t.b.st->segments, t.s, &pinned) >= 0);
    for (unsigned i = 1; i <= 2 * INDEXES_BOUND; i++) {
        struct segwrite w;
        struct segment *s;

        REQUIRE(jrn_bare_segment(&t.b, SEGMENT + i, &t.m, &w) >= 0);
        segments_add(&t.b.st->segments, SEGMENT + i, &w.row);
        segwrite_close(&w);
        s = segment_pin(&t.b.st->segments, SEGMENT + i);
        REQUIRE(segment_index(&t.b.st->segments, s, &x) >= 0);
        CHECK_EQ(x->segment, SEGMENT + i);
        segment_unpin(&t.b.st->segments, s);
        CHECK(t.b.st->segments.n_indexes <= INDEXES_BOUND);
    }
    REQUIRE(segment_index(&t.b.st->segments, t.s, &x) >= 0);
    CHECK(x == pinned);
    bed_fini(&t);
}

/* --- the table --- */

static uint64_t free_bytes(struct bed *t)
{
    uint64_t total, left;

    slabs_space(&t->b.st->slabs, &total, &left);
    return left;
}

static void test_a_removed_segment_is_readable_and_keeps_its_space_until_the_last_unpin(void)
{
    struct segments *table;
    struct segment *again;
    struct buf *buf;
    struct bed t;
    uint64_t before, space;
    uint32_t at;

    bed_init(&t, 32, 2, 20, 2000);
    table = &t.b.st->segments;
    space = segment_space(&t.w.row);
    again = segment_pin(table, SEGMENT);
    CHECK(again == t.s);
    CHECK(segments_add(table, SEGMENT, &t.w.row) == t.s);
    before = free_bytes(&t);
    segments_remove(table, SEGMENT, true);
    segments_remove(table, SEGMENT, true); /* harmless */
    CHECK(segment_pin(table, SEGMENT) == NULL);
    segment_unpin(table, again);
    CHECK_EQ(free_bytes(&t), before);
    CHECK_EQ(segment_read(table, t.s, 0, 100, &buf, &at), 0);
    CHECK(memcmp(buf->mem + at, t.w.data->mem, 100) == 0);
    buf_unref(buf);
    segment_unpin(table, t.s);
    t.s = NULL;
    CHECK_EQ(free_bytes(&t), before + space);
    bed_fini(&t);
}

static void test_a_segment_that_nobody_pins_is_freed_at_once(void)
{
    struct bed t;
    uint64_t before;

    bed_init(&t, 34, 2, 20, 2000);
    segment_unpin(&t.b.st->segments, t.s);
    t.s = NULL;
    before = free_bytes(&t);
    segments_remove(&t.b.st->segments, SEGMENT, true);
    CHECK_EQ(free_bytes(&t), before + segment_space(&t.w.row));
    segments_remove(&t.b.st->segments, 12345, true); /* there is none */
    bed_fini(&t);
}

/* A bed whose own segment nobody rewrites, and beside it one with so many bytes in n extents of 2^log2. */
static struct segment *bed_init_beside(struct bed *t, unsigned seed, uint64_t data_bytes,
                                       uint64_t index_bytes, unsigned n, uint32_t log2)
{
    struct row_segment row;

    bed_init(t, seed, 2, 20, 2000);
    t->s->dropping = true;
    row = t->w.row;
    row.data_bytes = data_bytes;
    row.index_bytes = index_bytes;
    row.n_extents = (uint16_t)n;
    for (unsigned i = 0; i < n; i++)
        row.extents[i].log2 = log2;
    return segments_add(&t->b.st->segments, SEGMENT + 1, &row);
}

/* Many small runs: the index is about as large as the data, in the copy, too. */
static void test_a_segment_full_of_data_and_index_is_not_worth_rewriting(void)
{
    const struct segments_want want = { .max = 4, .max_bytes = 8 << 20, .least_gain = 960 << 10 };
    struct segment *s, *out[4];
    struct segments *table;
    struct bed t;

    s = bed_init_beside(&t, 36, 1200 << 10, 1100 << 10, 1, 22);
    table = &t.b.st->segments;
    s->live = s->row.data_bytes;
    CHECK_EQ(segments_wasteful(table, out, &want), 0);
    /* With half of it gone the copy takes less than half of the 4 MiB. */
    s->live = s->row.data_bytes / 2;
    REQUIRE(segments_wasteful(table, out, &want) == 1);
    CHECK(out[0] == s);
    segment_unpin(table, s);
    bed_fini(&t);
}

/* The extents that were free took more than its bytes need: the guess says that a copy takes less, and the
 * copy gets the same. */
static void test_what_a_rewrite_has_made_is_not_copied_alone_before_something_dies(void)
{
    const struct segments_want want = { .max = 4, .max_bytes = 8 << 20, .urgent = true };
    struct segment *s, *out[4];
    struct segments *table;
    struct bed t;

    s = bed_init_beside(&t, 37, 3800 << 10, 2000, 2, 21);
    table = &t.b.st->segments;
    s->live = s->row.data_bytes;
    REQUIRE(segments_wasteful(table, out, &want) == 1);
    segment_unpin(table, s);
    s->settled = s->live;
    CHECK_EQ(segments_wasteful(table, out, &want), 0);
    s->live -= 1000;
    CHECK_EQ(segments_wasteful(table, out, &want), 1);
    segment_unpin(table, s);
    bed_fini(&t);
}

/* Space may come back; what is damaged stays so. */
static void test_what_could_not_be_rewritten_is_tried_again_later(void)
{
    struct segments_want want = { .max = 4, .max_bytes = 8 << 20, .least_gain = 960 << 10 };
    struct segment *s, *out[4];
    struct segments *table;
    struct bed t;

    s = bed_init_beside(&t, 38, 3800 << 10, 2000, 1, 22);
    table = &t.b.st->segments;
    s->live = 1000;
    s->rewrite_us = 5000;
    want.now_us = 4999;
    CHECK_EQ(segments_wasteful(table, out, &want), 0);
    want.now_us = 5000;
    REQUIRE(segments_wasteful(table, out, &want) == 1);
    segment_unpin(table, s);
    bed_fini(&t);
}

TEST_MAIN(
    T(any_range_reads_as_it_was_written_across_extents)
        T(a_read_behind_the_extents_is_corrupt_and_a_failed_one_is_io)
            T(every_offset_is_found_from_its_sparse_entry) T(
                sparse_entries_are_32_kib_apart_and_know_their_largest_time)
                T(the_index_keeps_the_last_five_batches_of_each_producer) T(
                    an_index_rebuilt_from_the_data_equals_the_stored_one)
                    T(a_damaged_batch_costs_a_rebuilt_index_the_rest_of_its_run_only) T(
                        another_segments_index_is_not_taken_for_ours)
                        T(only_so_many_parsed_indexes_are_kept_and_pinned_ones_stay) T(
                            a_removed_segment_is_readable_and_keeps_its_space_until_the_last_unpin)
                            T(a_segment_that_nobody_pins_is_freed_at_once) T(
                                a_segment_full_of_data_and_index_is_not_worth_rewriting)
                                T(what_a_rewrite_has_made_is_not_copied_alone_before_something_dies)
                                    T(what_could_not_be_rewritten_is_tried_again_later))
