/* Segment index, run headers and footer: what is written is read, no lie is believed. */
#include "format/segfile.h"

#include "base/rng.h"
#include "tests/check.h"

#include <stdlib.h>

enum { MAX_RUNS = 12, MAX_SPARSE = 40, MAX_PRODUCERS = 9 };

struct made {
    struct seg_index index;
    struct seg_run runs[MAX_RUNS];
    struct seg_sparse sparse[MAX_SPARSE];
    struct seg_producer producers[MAX_PRODUCERS];
    size_t bytes;
    uint8_t *mem; /* exactly bytes */
};

static void put(uint8_t *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void reseal_seeded(uint8_t *mem, size_t bytes, uint64_t seed)
{
    put(mem + 8, sum_xxh3(mem + 16, bytes - 16, seed), 8);
}

static void reseal(uint8_t *mem, size_t bytes)
{
    reseal_seeded(mem, bytes, SEG_INDEX_VERSION);
}

static uint64_t sum_of(const uint8_t *mem)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)mem[8 + i] << 8 * i;
    return v;
}

static void runs_random(struct rng *r, struct made *m)
{
    uint64_t shard = 16, offset = 0, pos = 0;

    for (uint32_t i = 0; i < m->index.n_runs; i++) {
        struct seg_run *n = &m->runs[i];

        if (rng_chance(r, 1, 2)) {
            shard += 1 + rng_below(r, 1000);
            offset = rng_below(r, 1000);
        }
        *n = (struct seg_run){ .shard = shard,
                               .base = offset + rng_below(r, 10),
                               .bytes = 1000 + rng_below(r, 100000),
                               .n_batches = (uint32_t)rng_u64(r),
                               .first_sparse = m->index.n_sparse,
                               .max_ts = (int64_t)rng_u64(r),
                               .xxh3 = rng_u64(r) };
        n->end = offset = n->base + 1 + rng_below(r, 1000);
        n->pos = pos + SEG_RUN_HEAD_BYTES;
        pos = n->pos + n->bytes;
        n->n_sparse = 1 + (uint32_t)rng_below(r, 3);
        for (uint32_t k = 0; k < n->n_sparse; k++)
            m->sparse[m->index.n_sparse++] =
                (struct seg_sparse){ n->base + k, k * 100, (uint32_t)rng_u64(r),
                                     (int64_t)rng_u64(r) };
    }
}

static struct made *index_random(struct rng *r, uint32_t n_runs, uint32_t n_producers)
{
    struct made *m = calloc(1, sizeof *m);

    m->index = (struct seg_index){ .segment = rng_u64(r),
                                   .runs = m->runs,
                                   .n_runs = n_runs,
                                   .sparse = m->sparse,
                                   .producers = m->producers,
                                   .n_producers = n_producers };
    runs_random(r, m);
    for (uint32_t i = 0; i < n_producers; i++)
        m->producers[i] = (struct seg_producer){ .shard = rng_u64(r),
                                                 .producer = (int64_t)rng_u64(r),
                                                 .base = rng_u64(r),
                                                 .max_ts = (int64_t)rng_u64(r),
                                                 .base_sequence = (int32_t)rng_u64(r),
                                                 .last_sequence = (int32_t)rng_u64(r),
                                                 .epoch = (int16_t)rng_u64(r) };
    m->bytes = seg_index_bytes(n_runs, m->index.n_sparse, n_producers);
    m->mem = malloc(m->bytes);
    seg_index_write(&m->index, m->mem);
    return m;
}

static void made_free(struct made *m)
{
    free(m->mem);
    free(m);
}

static int index_read_and_free(const uint8_t *mem, size_t bytes)
{
    struct seg_index x;
    int rc = seg_index_read(&x, mem, bytes);

    CHECK(rc >= 0 || (!x.runs && !x.sparse && !x.producers));
    if (rc >= 0)
        seg_index_free(&x);
    return rc;
}

static void check_run(const struct seg_run *a, const struct seg_run *b)
{
    CHECK(a->shard == b->shard && a->base == b->base && a->end == b->end && a->pos == b->pos);
    CHECK(a->bytes == b->bytes && a->n_batches == b->n_batches && a->n_sparse == b->n_sparse);
    CHECK(a->first_sparse == b->first_sparse && a->max_ts == b->max_ts && a->xxh3 == b->xxh3);
}

static void check_producer(const struct seg_producer *a, const struct seg_producer *b)
{
    CHECK(a->shard == b->shard && a->producer == b->producer && a->base == b->base);
    CHECK(a->max_ts == b->max_ts && a->base_sequence == b->base_sequence);
    CHECK(a->last_sequence == b->last_sequence && a->epoch == b->epoch);
}

static void test_index_is_read_as_written(void)
{
    struct rng r;

    rng_seed(&r, 1);
    for (unsigned n = 0; n < 300; n++) {
        struct made *m = index_random(&r, (uint32_t)rng_below(&r, MAX_RUNS + 1),
                                      (uint32_t)rng_below(&r, MAX_PRODUCERS + 1));
        struct seg_index x;

        CHECK_EQ(m->bytes % PAGE_BYTES, 0);
        REQUIRE(seg_index_read(&x, m->mem, m->bytes) == 0);
        REQUIRE(x.n_runs == m->index.n_runs && x.n_sparse == m->index.n_sparse &&
                x.n_producers == m->index.n_producers);
        CHECK(x.segment == m->index.segment);
        for (uint32_t i = 0; i < x.n_runs; i++)
            check_run(&x.runs[i], &m->runs[i]);
        for (uint32_t i = 0; i < x.n_sparse; i++)
            CHECK(x.sparse[i].offset == m->sparse[i].offset &&
                  x.sparse[i].pos == m->sparse[i].pos && x.sparse[i].sum == m->sparse[i].sum &&
                  x.sparse[i].max_ts == m->sparse[i].max_ts);
        for (uint32_t i = 0; i < x.n_producers; i++)
            check_producer(&x.producers[i], &m->producers[i]);
        seg_index_free(&x);
        made_free(m);
    }
}

static void test_index_is_laid_out_as_documented(void)
{
    struct seg_run run = { .shard = 16,
                           .base = 3,
                           .end = 9,
                           .pos = 40,
                           .bytes = 200,
                           .n_batches = 2,
                           .n_sparse = 1,
                           .max_ts = 5,
                           .xxh3 = 6 };
    struct seg_sparse sparse = { 3, 0, 0x08060504, 7 };
    struct seg_producer producer = { 16, 8, 3, 9, 10, 11, 12 };
    struct seg_index x = { 1, 0, &run, 1, &sparse, 1, &producer, 1 };
    uint8_t mem[PAGE_BYTES];

    CHECK_EQ(seg_index_bytes(1, 1, 1), PAGE_BYTES);
    CHECK_EQ(seg_index_bytes(56, 0, 0), PAGE_BYTES);
    CHECK_EQ(seg_index_bytes(56, 1, 0), 2 * PAGE_BYTES);
    seg_index_write(&x, mem);
    CHECK(memcmp(mem, "WIDX\x02\0\0\0", 8) == 0);
    CHECK_EQ(sum_of(mem), sum_xxh3(mem + 16, PAGE_BYTES - 16, 2));
    CHECK(mem[16] == 1 && mem[24] == 1 && mem[28] == 1 && mem[32] == 1);
    CHECK(mem[64] == 16 && mem[72] == 3 && mem[80] == 9 && mem[88] == 40 && mem[96] == 200);
    CHECK(mem[104] == 2 && mem[108] == 1 && mem[112] == 0 && mem[120] == 5 && mem[128] == 6);
    CHECK(mem[136] == 3 && mem[144] == 0 && mem[152] == 7);
    CHECK(memcmp(mem + 148, "\4\5\6\x08", 4) == 0);
    CHECK(mem[160] == 16 && mem[168] == 8 && mem[176] == 3 && mem[184] == 9 && mem[192] == 10);
    CHECK(mem[196] == 11 && mem[200] == 12 && bytes_are_zero(mem + 208, PAGE_BYTES - 208));
}

static void test_every_flipped_bit_of_an_index_is_refused(void)
{
    struct rng r;
    struct made *m;

    rng_seed(&r, 2);
    m = index_random(&r, 4, 3);
    for (size_t bit = 0; bit < m->bytes * 8; bit++) {
        m->mem[bit / 8] ^= (uint8_t)(1 << bit % 8);
        REQUIRE(index_read_and_free(m->mem, m->bytes) < 0);
        m->mem[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK_EQ(index_read_and_free(m->mem, m->bytes), 0);
    made_free(m);
}

static void test_every_truncation_of_an_index_is_refused(void)
{
    struct rng r;
    struct made *m;

    rng_seed(&r, 3);
    m = index_random(&r, MAX_RUNS, MAX_PRODUCERS);
    for (size_t bytes = 0; bytes < m->bytes; bytes++) {
        uint8_t *part = malloc(bytes + 1);

        memcpy(part, m->mem, bytes);
        if (bytes >= 16) /* a right sum over what is there: still too short */
            reseal(part, bytes);
        REQUIRE(index_read_and_free(part, bytes) == E_CORRUPT);
        free(part);
    }
    made_free(m);
}

static void test_lies_under_a_right_sum_are_refused(void)
{
    static const struct {
        unsigned at, bytes;
        uint64_t lie;
    } lies[] = { { 24, 4, UINT32_MAX },
                 { 24, 4, 1000 },
                 { 28, 4, 0 },
                 { 28, 4, UINT32_MAX },
                 { 28, 4, 100000 },
                 { 32, 4, UINT32_MAX },
                 { 64 + 8, 8, UINT64_MAX },  /* base past end */
                 { 64 + 44, 4, 0 },          /* no sparse entry */
                 { 64 + 44, 4, UINT32_MAX }, /* too many */
                 { 64 + 48, 4, UINT32_MAX }, /* the first one outside */
                 { 64 + 48, 4, MAX_SPARSE + 1 },
                 { 64 + 32, 8, 0 },          /* no bytes */
                 { 64 + 24, 8, UINT64_MAX }, /* pos + bytes wraps */
                 { 64 + 32, 8, UINT64_MAX },
                 { 64, 8, UINT64_MAX }, /* shards out of order */
                 { 64 + 16, 8, UINT64_MAX },
                 { 64 + 3 * 72 + 8, 4, 1 },      /* a run's first stretch begins behind it */
                 { 64 + 3 * 72 + 24 + 8, 4, 0 }, /* the second begins with the first */
                 { 64 + 3 * 72 + 24 + 8, 4, 1 << 30 } /* behind the run's end */ };
    struct rng r;

    rng_seed(&r, 4);
    for (unsigned i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct made *m = index_random(&r, 3, 2);

        m->runs[1].shard = m->runs[2].shard = m->runs[0].shard; /* offsets must follow */
        m->runs[1].base = m->runs[0].end;
        m->runs[1].end = m->runs[1].base + 1;
        m->runs[2].base = m->runs[1].end;
        m->runs[2].end = m->runs[2].base + 1;
        m->runs[0].n_sparse = 2; /* there are three at least */
        m->runs[0].first_sparse = 0;
        m->runs[1].n_sparse = m->runs[2].n_sparse = 1;
        m->runs[1].first_sparse = m->runs[2].first_sparse = 0;
        m->sparse[0].pos = 0;
        m->sparse[1].pos = 500;
        seg_index_write(&m->index, m->mem);
        REQUIRE(index_read_and_free(m->mem, m->bytes) == 0);
        put(m->mem + lies[i].at, lies[i].lie, lies[i].bytes);
        reseal(m->mem, m->bytes);
        if (index_read_and_free(m->mem, m->bytes) != E_CORRUPT) {
            fprintf(stderr, "lie %u is believed\n", i);
            CHECK(false);
        }
        made_free(m);
    }
}

/* A run of three stretches of 100 bytes. */
static void stretches_make(struct made *m, uint8_t *mem, struct rng *r)
{
    m->index = (struct seg_index){
        .segment = 5, .runs = m->runs, .n_runs = 1, .sparse = m->sparse, .n_sparse = 3
    };
    m->runs[0] = (struct seg_run){
        .shard = 16, .end = 9, .pos = 40, .bytes = 300, .n_batches = 9, .n_sparse = 3
    };
    for (uint32_t k = 0; k < 3; k++)
        m->sparse[k] = (struct seg_sparse){ k * 3, k * 100, 0, 1 };
    for (unsigned i = 0; i < 300; i++)
        mem[i] = (uint8_t)rng_u64(r);
    seg_run_sum(&m->index, 0, mem);
    m->bytes = seg_index_bytes(1, 3, 0);
    m->mem = malloc(m->bytes);
}

static void test_a_stretch_is_known_by_its_sum_alone(void)
{
    struct made m = { 0 };
    uint8_t mem[300], other[100] = { 0 };
    struct seg_index x;
    struct rng r;

    rng_seed(&r, 11);
    stretches_make(&m, mem, &r);
    seg_index_write(&m.index, m.mem);
    REQUIRE(seg_index_read(&x, m.mem, m.bytes) == 0);
    CHECK_EQ(x.runs[0].xxh3, sum_xxh3(mem, 300, 0));
    for (uint32_t k = 0; k < 3; k++) {
        CHECK_EQ(seg_stretch_bytes(&x, x.runs, k), 100);
        CHECK(seg_stretch_is(&x, x.runs, k, mem + k * 100));
        CHECK(!seg_stretch_is(&x, x.runs, k, other));
        CHECK(!seg_stretch_is(&x, x.runs, k, mem + (k + 1) % 3 * 100));
    }
    seg_index_free(&x);
    free(m.mem);
}

static void test_an_index_of_version_1_has_no_sums_of_stretches(void)
{
    struct made m = { 0 };
    uint8_t mem[300], other[300] = { 0 };
    struct seg_index x;
    struct rng r;

    rng_seed(&r, 12);
    stretches_make(&m, mem, &r);
    m.index.version = 1;
    seg_index_write(&m.index, m.mem);
    CHECK(m.mem[4] == 1 && sum_of(m.mem) == sum_xxh3(m.mem + 16, m.bytes - 16, 0));
    REQUIRE(seg_index_read(&x, m.mem, m.bytes) == 0);
    CHECK(x.version == 1 && x.sparse[0].sum == 0 && x.sparse[2].sum == 0);
    CHECK(seg_stretch_is(&x, x.runs, 1, mem + 100));
    x.runs[0].n_sparse = 1; /* all of the run: its sum tells */
    CHECK(seg_stretch_is(&x, x.runs, 0, mem));
    CHECK(!seg_stretch_is(&x, x.runs, 0, other));
    seg_index_free(&x);
    free(m.mem);
}

static void test_run_head_is_read_as_written_and_bound_to_its_segment(void)
{
    struct seg_run run = { .shard = 77, .base = 1000, .bytes = 5000, .n_batches = 9 }, got;
    uint8_t head[SEG_RUN_HEAD_BYTES];

    seg_run_head_write(&run, 42, head);
    CHECK(memcmp(head, "WRUN\x09\0\0\0\x4d", 9) == 0);
    CHECK(head[16] == 0xe8 && head[17] == 3 && head[24] == 0x88 && head[25] == 0x13);
    CHECK_EQ(seg_run_head_read(&got, 42, head, sizeof head + 5000), 0);
    CHECK(got.shard == 77 && got.base == 1000 && got.bytes == 5000 && got.n_batches == 9);
    CHECK_EQ(seg_run_head_read(&got, 43, head, sizeof head + 5000), E_CORRUPT);
    CHECK_EQ(seg_run_head_read(&got, 42, head, sizeof head + 4999), E_CORRUPT);
    for (size_t left = 0; left < sizeof head; left++) {
        uint8_t *part = malloc(left + 1);

        memcpy(part, head, left);
        CHECK_EQ(seg_run_head_read(&got, 42, part, left), E_CORRUPT);
        free(part);
    }
    for (unsigned bit = 0; bit < sizeof head * 8; bit++) {
        head[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(seg_run_head_read(&got, 42, head, UINT32_MAX), E_CORRUPT);
        head[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static struct seg_footer footer, footer_got;

static void footer_random(struct rng *r, uint32_t n_extents)
{
    uint64_t pages = rng_below(r, 1000);

    footer = (struct seg_footer){ .group = rng_u64(r),
                                  .segment = rng_u64(r),
                                  .first_entry = rng_u64(r),
                                  .last_entry = rng_u64(r),
                                  .data_bytes = pages * PAGE_BYTES,
                                  .index_pos = (pages + rng_below(r, 2)) * PAGE_BYTES,
                                  .index_bytes = rng_u64(r),
                                  .n_batches = rng_u64(r),
                                  .n_offsets = rng_u64(r),
                                  .min_ts = (int64_t)rng_u64(r),
                                  .max_ts = (int64_t)rng_u64(r),
                                  .created = (int64_t)rng_u64(r),
                                  .n_extents = n_extents };
    footer.sorted_pos = rng_below(r, pages + 1) * PAGE_BYTES;
    footer.direct_bytes = rng_below(r, footer.sorted_pos + 1);
    footer.segment_first = rng_u64(r);
    footer.flags = (uint32_t)rng_below(r, 4);
    for (unsigned i = 0; i < 16; i++) {
        footer.store.bytes[i] = (uint8_t)rng_u64(r);
        footer.identity.bytes[i] = (uint8_t)rng_u64(r);
    }
    for (uint32_t i = 0; i < n_extents; i++)
        footer.extents[i] =
            (struct seg_extent){ rng_u64(r), UNIT_LOG2 + (uint32_t)rng_below(r, 15) };
}

static void test_footer_is_read_as_written_with_any_number_of_extents(void)
{
    uint8_t page[PAGE_BYTES];
    struct rng r;

    rng_seed(&r, 5);
    for (uint32_t n = 1; n <= SEG_MAX_EXTENTS; n++) {
        const struct seg_footer *a = &footer, *b = &footer_got;

        footer_random(&r, n);
        seg_footer_write(&footer, page);
        REQUIRE(seg_footer_read(&footer_got, page) == 0);
        CHECK(memcmp(&a->store, &b->store, 16) == 0 && memcmp(&a->identity, &b->identity, 16) == 0);
        CHECK(a->group == b->group && a->segment == b->segment && a->created == b->created);
        CHECK(a->first_entry == b->first_entry && a->last_entry == b->last_entry);
        CHECK(a->data_bytes == b->data_bytes && a->index_pos == b->index_pos);
        CHECK(a->index_bytes == b->index_bytes && a->n_batches == b->n_batches);
        CHECK(a->n_offsets == b->n_offsets && a->min_ts == b->min_ts && a->max_ts == b->max_ts);
        CHECK(a->direct_bytes == b->direct_bytes && a->sorted_pos == b->sorted_pos);
        CHECK(a->segment_first == b->segment_first && a->flags == b->flags);
        CHECK_EQ(b->version, 2);
        REQUIRE(b->n_extents == n);
        for (uint32_t i = 0; i < n; i++)
            CHECK(a->extents[i].place == b->extents[i].place &&
                  a->extents[i].log2 == b->extents[i].log2);
    }
}

static void test_every_flipped_bit_of_a_footer_is_refused(void)
{
    uint8_t page[PAGE_BYTES];
    struct rng r;

    rng_seed(&r, 6);
    footer_random(&r, 3);
    seg_footer_write(&footer, page);
    for (unsigned bit = 0; bit < PAGE_BYTES * 8; bit++) {
        page[bit / 8] ^= (uint8_t)(1 << bit % 8);
        REQUIRE(seg_footer_read(&footer_got, page) < 0);
        page[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void test_lies_in_a_footer_are_refused(void)
{
    static const struct {
        unsigned at;
        uint32_t lie;
    } lies[] = { { 144, 0 },
                 { 144, SEG_MAX_EXTENTS + 1 },
                 { 144, UINT32_MAX },
                 { 152 + 8, 15 },
                 { 152 + 8, 31 },
                 { 152 + 8, UINT32_MAX },
                 { 72, PAGE_BYTES + 1 },
                 { 3992 + 7, 1 },
                 { 4000, 1 },
                 { 4000 + 7, 1 } };
    uint8_t page[PAGE_BYTES];
    struct rng r;

    rng_seed(&r, 7);
    for (unsigned i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        footer_random(&r, 3);
        seg_footer_write(&footer, page);
        put(page + lies[i].at, lies[i].lie, 4);
        reseal_seeded(page, PAGE_BYTES, 2);
        CHECK_EQ(seg_footer_read(&footer_got, page), E_CORRUPT);
    }
    footer.data_bytes = footer.index_pos + 1;
    seg_footer_write(&footer, page);
    CHECK_EQ(seg_footer_read(&footer_got, page), E_CORRUPT);
}

static void test_a_footer_of_version_1_is_read_and_written_again(void)
{
    uint8_t page[PAGE_BYTES], again[PAGE_BYTES];
    struct rng r;

    rng_seed(&r, 9);
    footer_random(&r, 2);
    footer.version = 1;
    footer.direct_bytes = footer.sorted_pos = footer.segment_first = footer.flags = 0;
    seg_footer_write(&footer, page);
    CHECK_EQ(page[4], 1);
    reseal_seeded(page, PAGE_BYTES, 0);
    REQUIRE(seg_footer_read(&footer_got, page) == 0);
    CHECK_EQ(footer_got.version, 1);
    seg_footer_write(&footer_got, again);
    CHECK(memcmp(page, again, PAGE_BYTES) == 0);
}

static void test_newer_version_is_told_from_damage(void)
{
    uint8_t page[PAGE_BYTES];
    struct rng r;
    struct made *m;

    rng_seed(&r, 8);
    m = index_random(&r, 2, 1);
    m->mem[4] = 3;
    CHECK_EQ(index_read_and_free(m->mem, m->bytes), E_CORRUPT);
    reseal_seeded(m->mem, m->bytes, 3);
    CHECK_EQ(index_read_and_free(m->mem, m->bytes), E_VERSION);
    m->mem[4] = 0;
    CHECK_EQ(index_read_and_free(m->mem, m->bytes), E_CORRUPT);
    footer_random(&r, 1);
    seg_footer_write(&footer, page);
    page[5] = 7; /* under the sum by its seed: only who writes version 1794 gets this right */
    CHECK_EQ(seg_footer_read(&footer_got, page), E_CORRUPT);
    reseal_seeded(page, PAGE_BYTES, 7 << 8 | 2);
    CHECK_EQ(seg_footer_read(&footer_got, page), E_VERSION);
    page[400] ^= 1;
    CHECK_EQ(seg_footer_read(&footer_got, page), E_CORRUPT);
    made_free(m);
}

TEST_MAIN(T(index_is_read_as_written) T(index_is_laid_out_as_documented)
              T(every_flipped_bit_of_an_index_is_refused) T(every_truncation_of_an_index_is_refused)
                  T(lies_under_a_right_sum_are_refused) T(a_stretch_is_known_by_its_sum_alone)
                      T(an_index_of_version_1_has_no_sums_of_stretches)
                          T(run_head_is_read_as_written_and_bound_to_its_segment)
                              T(footer_is_read_as_written_with_any_number_of_extents)
                                  T(every_flipped_bit_of_a_footer_is_refused)
                                      T(lies_in_a_footer_are_refused)
                                          T(a_footer_of_version_1_is_read_and_written_again)
                                              T(newer_version_is_told_from_damage))
