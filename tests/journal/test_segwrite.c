/* Writing sealed segments: what lies where, the identity, and what an error leaves. */
#include <endian.h>
#include <stdlib.h>

#include "format/batch.h"
#include "journal/segwrite.h"
#include "tests/check.h"
#include "tests/sim/jrn_bare.h"

enum { SEGMENT = 0x500000007 };

static void grow_to(struct jrn_bare *b, uint64_t bytes)
{
    uint64_t total, left = 0;

    while (left < bytes) {
        REQUIRE(slabs_grow(&b->st->slabs, UNIT_BYTES, NULL) >= 0);
        slabs_space(&b->st->slabs, &total, &left);
    }
}

static uint64_t free_bytes(struct jrn_bare *b)
{
    uint64_t total, left;

    slabs_space(&b->st->slabs, &total, &left);
    return left;
}

/* The identity, by the words of format/segfile.h. */
static struct sum128 identity(const struct bare_batches *m)
{
    struct sum128_state *s = sum128_new();

    for (unsigned i = 0; i < m->n; i++) {
        uint8_t shard[8];
        uint64_t hash;

        for (unsigned k = 0; k < 8; k++)
            shard[k] = (uint8_t)(m->list[i].shard >> (8 * k));
        sum128_add(s, shard, sizeof shard);
        hash = htole64(sum_xxh3(m->list[i].buf->mem, m->list[i].buf->len, 0));
        sum128_add(s, &hash, sizeof hash);
    }
    return sum128_end(s);
}

static bool same_sum(struct sum128 a, struct sum128 b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static unsigned runs_of(const struct bare_batches *m)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->n; i++)
        n += i == 0 || m->list[i].shard != m->list[i - 1].shard ||
             m->list[i].base != m->list[i - 1].base + m->list[i - 1].n_offsets;
    return n;
}

static void test_the_row_says_what_the_segment_holds(void)
{
    struct bare_batches m;
    struct jrn_bare b;
    struct segwrite w;
    struct rng r;
    int64_t min = INT64_MAX, max = INT64_MIN;

    rng_seed(&r, 1);
    jrn_bare_init(&b, 1, 0);
    grow_to(&b, 1 << 20);
    bare_batches_draw(&m, &r, 5, 20, 3000);
    for (unsigned i = 0; i < m.n; i++) {
        min = m.list[i].max_ts < min ? m.list[i].max_ts : min;
        max = m.list[i].max_ts > max ? m.list[i].max_ts : max;
    }
    CHECK_EQ(jrn_bare_segment(&b, SEGMENT, &m, &w), 0);
    CHECK_EQ(w.row.group, 2);
    CHECK_EQ(w.row.first_entry, 1);
    CHECK_EQ(w.row.last_entry, 9);
    CHECK_EQ(w.row.n_batches, m.n);
    CHECK_EQ(w.row.data_bytes, m.bytes + runs_of(&m) * SEG_RUN_HEAD_BYTES);
    CHECK_EQ(w.row.index_pos % PAGE_BYTES, 0);
    CHECK(w.row.index_pos >= w.row.data_bytes);
    CHECK_EQ(w.row.min_ts, min); /* each batch has one timestamp */
    CHECK_EQ(w.row.max_ts, max);
    CHECK(same_sum(w.row.identity, identity(&m)));
    segwrite_close(&w);
    bare_batches_free(&m);
    jrn_bare_fini(&b);
}

static void test_the_identity_does_not_depend_on_where_the_bytes_lie(void)
{
    struct bare_batches m;
    struct sum128 sums[2];
    unsigned n_extents[2];
    struct rng r;

    rng_seed(&r, 2);
    bare_batches_draw(&m, &r, 7, 30, 5000);
    for (unsigned i = 0; i < 2; i++) {
        struct jrn_bare b;
        struct segwrite w;

        jrn_bare_init(&b, 2 + i, 0);
        grow_to(&b, 8 << 20);
        if (i == 1)
            jrn_bare_scatter(&b);
        CHECK_EQ(jrn_bare_segment(&b, SEGMENT + i, &m, &w), 0);
        sums[i] = w.row.identity;
        n_extents[i] = w.row.n_extents;
        segwrite_close(&w);
        jrn_bare_fini(&b);
    }
    CHECK(n_extents[1] > n_extents[0]);
    CHECK(same_sum(sums[0], sums[1]));
    CHECK(same_sum(sums[0], identity(&m)));
    /* And one bit anywhere makes another. */
    m.list[m.n / 2].buf->mem[m.list[m.n / 2].buf->len - 1] ^= 1;
    CHECK(!same_sum(sums[0], identity(&m)));
    bare_batches_free(&m);
}

static void check_heads_and_footer(struct jrn_bare *b, const struct segwrite *w)
{
    struct buf *page = buf_new_aligned(PAGE_BYTES);
    const struct seg_extent *last = &w->row.extents[w->row.n_extents - 1];
    struct seg_footer f;
    uint64_t pos = 0;

    for (unsigned i = 0; i < w->row.n_extents; i++) {
        const struct seg_extent *x = &w->row.extents[i];
        struct dev_file *file = slabs_file(&b->st->slabs, x->place, x->log2);
        struct extent_head h;

        REQUIRE(dev_read(b->st->dev, file, place_pos(x->place), page->mem, PAGE_BYTES) >= 0);
        REQUIRE(extent_head_read(&h, page->mem) >= 0);
        CHECK_EQ(h.kind, EXTENT_SEGMENT);
        CHECK_EQ(h.place, x->place);
        CHECK_EQ(h.log2, x->log2);
        CHECK_EQ(h.group, 2);
        CHECK_EQ(h.segment, SEGMENT);
        CHECK_EQ(h.index, i);
        CHECK_EQ(h.n_extents, w->row.n_extents);
        CHECK_EQ(h.pos, pos);
        pos += ((uint64_t)1 << x->log2) - PAGE_BYTES;
    }
    CHECK(pos >= w->row.index_pos + w->row.index_bytes + PAGE_BYTES);
    REQUIRE(dev_read(b->st->dev, slabs_file(&b->st->slabs, last->place, last->log2),
                     place_pos(last->place) + ((uint64_t)1 << last->log2) - PAGE_BYTES, page->mem,
                     PAGE_BYTES) >= 0);
    REQUIRE(seg_footer_read(&f, page->mem) >= 0);
    CHECK_EQ(f.segment, SEGMENT);
    CHECK_EQ(f.last_entry, 9);
    CHECK_EQ(f.data_bytes, w->row.data_bytes);
    CHECK_EQ(f.index_pos, w->row.index_pos);
    CHECK_EQ(f.index_bytes, w->row.index_bytes);
    CHECK_EQ(f.n_batches, w->row.n_batches);
    CHECK_EQ(f.n_extents, w->row.n_extents);
    CHECK(same_sum(f.identity, w->row.identity));
    for (unsigned i = 0; i < f.n_extents; i++) {
        CHECK_EQ(f.extents[i].place, w->row.extents[i].place);
        CHECK_EQ(f.extents[i].log2, w->row.extents[i].log2);
    }
    buf_unref(page);
}

static void test_every_extent_and_the_last_page_say_what_they_belong_to(void)
{
    for (unsigned i = 0; i < 2; i++) {
        struct bare_batches m;
        struct jrn_bare b;
        struct segwrite w;
        struct rng r;

        rng_seed(&r, 3);
        jrn_bare_init(&b, 3, 0);
        grow_to(&b, 8 << 20);
        if (i == 1)
            jrn_bare_scatter(&b);
        bare_batches_draw(&m, &r, 4, 40, 4000);
        CHECK_EQ(jrn_bare_segment(&b, SEGMENT, &m, &w), 0);
        CHECK_EQ(sim_disk_unsynced_pages(b.disk), 0); /* durable when it returns */
        CHECK_EQ(jrn_bare_reopen(&b, true, NULL), 0);
        check_heads_and_footer(&b, &w);
        segwrite_close(&w);
        bare_batches_free(&m);
        jrn_bare_fini(&b);
    }
}

/* --- sealing an open segment --- */

/* Puts every other batch into extents of the WAL's size, as the committer would: some back to back, now
 * and then on a new page. Gives the byte behind the last; pos says where each lies. */
static uint64_t write_directly(struct jrn_bare *b, const struct bare_batches *m,
                               struct seg_extent *extents, unsigned n_extents, uint64_t *pos)
{
    uint64_t room = seg_extent_room(b->st->wal_log2), at = 0, end = 0;
    struct buf *all = buf_new_aligned(n_extents * room);

    memset(all->mem, 0x5a, n_extents * room);
    for (unsigned i = m->n; i-- > 0;) { /* in the order of arrival, which is not that of shards */
        struct seg_run run = { .shard = m->list[i].shard,
                               .base = m->list[i].base,
                               .bytes = m->list[i].buf->len,
                               .n_batches = 1 };

        if (i % 2 == 0)
            continue;
        if (i % 5 == 0)
            at = (at + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        REQUIRE(at + SEG_RUN_HEAD_BYTES + run.bytes <= n_extents * room);
        seg_run_head_write(&run, SEGMENT, all->mem + at);
        pos[i] = at + SEG_RUN_HEAD_BYTES;
        memcpy(all->mem + pos[i], m->list[i].buf->mem, run.bytes);
        at = end = pos[i] + run.bytes;
    }
    for (unsigned i = 0; i < n_extents; i++) {
        REQUIRE(slabs_take(&b->st->slabs, b->st->wal_log2, &extents[i].place) >= 0);
        extents[i].log2 = b->st->wal_log2;
        REQUIRE(dev_write(b->st->dev, slabs_file(&b->st->slabs, extents[i].place, extents[i].log2),
                          place_pos(extents[i].place) + PAGE_BYTES, all->mem + i * room,
                          (uint32_t)room) >= 0);
    }
    buf_unref(all);
    return end;
}

static void seal(struct jrn_bare *b, const struct bare_batches *m, struct segwrite *w)
{
    struct seg_extent extents[8];
    uint64_t pos[400];
    uint64_t end;

    REQUIRE(m->n <= 400);
    end = write_directly(b, m, extents, 8, pos);
    REQUIRE(segwrite_open(w, b->st, 2, SEGMENT, m->bytes + m->n * SEG_RUN_HEAD_BYTES) >= 0);
    segwrite_begin_open(w, extents, 8, end);
    for (unsigned i = 0; i < m->n; i++) {
        const struct bare_batch *x = &m->list[i];
        struct batch_head h;

        REQUIRE(batch_check(&h, x->buf->mem, x->buf->len) >= 0);
        if (i % 2)
            segwrite_add_direct(w, x->shard, &h, pos[i], sum_xxh3(x->buf->mem, x->buf->len, 0));
        else
            segwrite_add(w, x->shard, &h, x->buf->mem);
    }
    REQUIRE(segwrite_finish(w, 1, 9) >= 0);
}

static bool same_runs(const struct seg_index *x, const struct seg_index *y)
{
    size_t bytes = seg_index_bytes(x->n_runs, x->n_sparse, x->n_producers);
    uint8_t *a = mem_new(bytes), *b = mem_new(bytes);
    bool same =
        x->n_runs == y->n_runs && x->n_sparse == y->n_sparse && x->n_producers == y->n_producers;

    if (same) {
        seg_index_write(x, a);
        seg_index_write(y, b);
        same = memcmp(a, b, bytes) == 0;
    }
    free(a);
    free(b);
    return same;
}

static void test_a_sealed_open_segment_has_the_identity_of_a_sorted_one_and_all_its_batches(void)
{
    const struct seg_index *x;
    struct seg_index again;
    struct bare_batches m;
    struct segment *seg;
    struct jrn_bare b;
    struct segwrite w;
    struct rng r;
    unsigned n = 0;

    rng_seed(&r, 12);
    jrn_bare_init(&b, 12, 0);
    grow_to(&b, 12 << 20);
    bare_batches_draw(&m, &r, 6, 30, 7000);
    seal(&b, &m, &w);
    CHECK(same_sum(w.row.identity, identity(&m)));
    CHECK_EQ(w.row.n_batches, m.n);
    CHECK_EQ(w.row.sorted_pos % PAGE_BYTES, 0);
    CHECK(w.row.direct_bytes <= w.row.sorted_pos && w.row.sorted_pos <= w.row.data_bytes);
    seg = segwrite_enter(&w);
    CHECK_EQ(seg->live, m.bytes);
    REQUIRE(segment_index(&b.st->segments, seg, &x) >= 0);
    for (uint32_t i = 0; i < x->n_runs; i++) {
        uint64_t left = x->runs[i].bytes;
        struct buf *buf;
        uint32_t at;

        REQUIRE(segment_read(&b.st->segments, seg, x->runs[i].pos, left, &buf, &at) >= 0);
        CHECK_EQ(sum_xxh3(buf->mem + at, left, 0), x->runs[i].xxh3);
        for (; left > 0; n++) {
            const struct bare_batch *want = &m.list[n];

            REQUIRE(n < m.n && want->buf->len <= left && want->shard == x->runs[i].shard);
            CHECK(memcmp(buf->mem + at, want->buf->mem, want->buf->len) == 0);
            at += want->buf->len;
            left -= want->buf->len;
        }
        buf_unref(buf);
    }
    CHECK_EQ(n, m.n);
    REQUIRE(segment_index_rebuild(&b.st->segments, seg, &again) >= 0);
    CHECK(same_runs(x, &again));
    seg_index_free(&again);
    segwrite_close(&w);
    bare_batches_free(&m);
    jrn_bare_fini(&b);
}

static void test_undoing_a_sealing_leaves_the_open_segments_extents_alone(void)
{
    struct bare_batches m;
    struct jrn_bare b;
    struct segwrite w;
    struct rng r;
    uint64_t before;

    rng_seed(&r, 13);
    jrn_bare_init(&b, 13, 0);
    grow_to(&b, 12 << 20);
    bare_batches_draw(&m, &r, 6, 60, 7000);
    before = free_bytes(&b);
    seal(&b, &m, &w);
    segwrite_undo(&w);
    CHECK_EQ(before - free_bytes(&b), (uint64_t)8 << b.st->wal_log2);
    segwrite_close(&w);
    bare_batches_free(&m);
    jrn_bare_fini(&b);
}

static void test_extents_are_about_as_large_as_what_they_hold(void)
{
    struct jrn_bare b;
    struct rng r;

    rng_seed(&r, 4);
    jrn_bare_init(&b, 4, 0);
    grow_to(&b, 8 << 20);
    for (unsigned i = 0; i < 20; i++) {
        struct bare_batches m;
        struct segwrite w;
        uint64_t space = 0, need;

        bare_batches_draw(&m, &r, 1 + i % 3, 1 + i * 5, 4000);
        CHECK_EQ(jrn_bare_segment(&b, SEGMENT, &m, &w), 0);
        need = w.row.index_pos + w.row.index_bytes;
        for (unsigned k = 0; k < w.row.n_extents; k++)
            space += (uint64_t)1 << w.row.extents[k].log2;
        CHECK_EQ(segment_space(&w.row), space);
        CHECK(space <= need + need / 4 + 2 * UNIT_BYTES);
        segwrite_undo(&w);
        segwrite_close(&w);
        bare_batches_free(&m);
    }
    jrn_bare_fini(&b);
}

static void test_without_space_all_extents_are_given_back(void)
{
    struct bare_batches m;
    struct jrn_bare b;
    struct segwrite w;
    struct rng r;
    uint64_t before;

    rng_seed(&r, 5);
    jrn_bare_init(&b, 5, 0);
    grow_to(&b, 15 * UNIT_BYTES);
    bare_batches_draw(&m, &r, 2, 300, 6000);
    REQUIRE(m.bytes > 15 * UNIT_BYTES);
    before = free_bytes(&b);
    CHECK_EQ(jrn_bare_segment(&b, SEGMENT, &m, &w), E_NOSPACE);
    segwrite_undo(&w);
    segwrite_undo(&w); /* harmless twice */
    segwrite_close(&w);
    CHECK_EQ(free_bytes(&b), before);
    bare_batches_free(&m);
    jrn_bare_fini(&b);
}

static void test_a_failed_write_or_flush_is_an_error_wherever_it_happens(void)
{
    static const enum sim_fault kinds[] = { SIM_FAULT_WRITE, SIM_FAULT_SYNC };

    for (unsigned k = 0; k < 2; k++) {
        bool met = true;
        unsigned n_met = 0;

        for (uint32_t n = 1; met; n++) {
            struct bare_batches m;
            struct jrn_bare b;
            struct segwrite w;
            struct rng r;
            uint64_t before;
            int rc;

            rng_seed(&r, 6);
            jrn_bare_init(&b, 6, 0);
            grow_to(&b, 4 << 20); /* more than one slab file */
            jrn_bare_scatter(&b);
            before = free_bytes(&b);
            bare_batches_draw(&m, &r, 2, 40, 4000);
            b.disk->faults.nth[kinds[k]] = n;
            rc = jrn_bare_segment(&b, SEGMENT, &m, &w);
            met = b.disk->faults.nth[kinds[k]] == 0;
            n_met += met;
            CHECK_EQ(rc, met ? E_IO : 0);
            segwrite_undo(&w);
            segwrite_close(&w);
            CHECK_EQ(free_bytes(&b), before);
            bare_batches_free(&m);
            jrn_bare_fini(&b);
        }
        CHECK(n_met > 0);
    }
}

/* Every batch that was written lies where the index says, and each run is what its sum says. */
static void check_contents(struct jrn_bare *b, const struct segwrite *w,
                           const struct bare_batches *m)
{
    struct segments *t = &b->st->segments;
    struct segment *s;
    const struct seg_index *x;
    unsigned n = 0;

    segments_add(t, SEGMENT, &w->row);
    s = segment_pin(t, SEGMENT);
    REQUIRE(segment_index(t, s, &x) >= 0);
    for (uint32_t i = 0; i < x->n_runs; i++) {
        struct buf *mem;
        uint32_t at;

        REQUIRE(segment_read(t, s, x->runs[i].pos, x->runs[i].bytes, &mem, &at) >= 0);
        CHECK_EQ(sum_xxh3(mem->mem + at, x->runs[i].bytes, 0), x->runs[i].xxh3);
        for (uint64_t k = 0; k < x->runs[i].bytes; n++) {
            REQUIRE(n < m->n);
            CHECK_EQ(m->list[n].shard, x->runs[i].shard);
            CHECK(memcmp(mem->mem + at + k, m->list[n].buf->mem, m->list[n].buf->len) == 0);
            k += m->list[n].buf->len;
        }
        buf_unref(mem);
    }
    CHECK_EQ(n, m->n);
    segment_unpin(t, s);
    segments_remove(t, SEGMENT, false);
}

static void test_what_is_written_in_pieces_is_whole_and_needs_little_memory(void)
{
    for (unsigned seed = 50; seed < 60; seed++) {
        struct bare_batches m;
        struct jrn_bare b;
        struct segwrite w;
        struct rng r;
        uint32_t cap;

        rng_seed(&r, seed);
        jrn_bare_init(&b, seed, 0);
        grow_to(&b, 4 << 20);
        bare_batches_draw(&m, &r, 4, 60, 9000);
        REQUIRE(segwrite_open(&w, b.st, 2, SEGMENT, 20000) >= 0);
        w.in_pieces = true;
        cap = w.data->cap;
        for (unsigned i = 0; i < m.n; i++) {
            struct batch_head h;

            REQUIRE(batch_check(&h, m.list[i].buf->mem, m.list[i].buf->len) >= 0);
            segwrite_add(&w, m.list[i].shard, &h, m.list[i].buf->mem);
        }
        REQUIRE(segwrite_finish(&w, 1, 9) >= 0);
        CHECK_EQ(w.data->cap, cap);
        CHECK(w.row.data_bytes > 4 * (uint64_t)cap); /* it was full several times */
        CHECK_EQ(w.row.n_batches, m.n);
        CHECK(same_sum(w.row.identity, identity(&m)));
        check_contents(&b, &w, &m);
        segwrite_undo(&w);
        segwrite_close(&w);
        bare_batches_free(&m);
        jrn_bare_fini(&b);
    }
}

TEST_MAIN(T(a_sealed_open_segment_has_the_identity_of_a_sorted_one_and_all_its_batches) T(
    undoing_a_sealing_leaves_the_open_segments_extents_alone) T(the_row_says_what_the_segment_holds)
              T(the_identity_does_not_depend_on_where_the_bytes_lie)
                  T(every_extent_and_the_last_page_say_what_they_belong_to)
                      T(extents_are_about_as_large_as_what_they_hold)
                          T(without_space_all_extents_are_given_back)
                              T(what_is_written_in_pieces_is_whole_and_needs_little_memory)
                                  T(a_failed_write_or_flush_is_an_error_wherever_it_happens))
