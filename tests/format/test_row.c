/* Rows: keys sort as their numbers do, values are read as written, other lengths and versions are
 * refused. */
#include "format/row.h"

#include "base/rng.h"
#include "tests/check.h"

#include <stdlib.h>
#include <xxhash.h>

static uint8_t mem[ROW_VALUE_MAX];

/* What every value must do. read: parses mem[0..bytes) and gives the reader's answer. */
static void check_refusals(size_t bytes, int (*read)(const void *mem, size_t bytes))
{
    for (size_t n = 0; n <= bytes + 1; n++) {
        uint8_t *part = calloc(1, n ? n : 1);

        memcpy(part, mem, n < bytes ? n : bytes);
        CHECK_EQ(read(part, n), n == bytes ? 0 : E_CORRUPT);
        if (n == bytes) {
            part[0] = 4;
            CHECK_EQ(read(part, n), E_VERSION);
            part[0] = 255;
            CHECK_EQ(read(part, n), E_VERSION);
            part[0] = 0;
            CHECK_EQ(read(part, n), E_CORRUPT);
        }
        free(part);
    }
}

static void test_keys_sort_as_their_numbers(void)
{
    struct rng r;

    rng_seed(&r, 1);
    for (unsigned n = 0; n < 2000; n++) {
        uint64_t a = rng_u64(&r) >> rng_below(&r, 64), b = rng_u64(&r) >> rng_below(&r, 64);
        uint64_t got_a, got_b;
        uint8_t x[ROW_KEY_MAX], y[ROW_KEY_MAX];
        int order;

        CHECK_EQ(row_key(x, ROW_SHARD, a), 9);
        CHECK_EQ(row_key(y, ROW_SHARD, b), 9);
        order = memcmp(x, y, 9);
        CHECK(a == b ? order == 0 : (a < b) == (order < 0));
        CHECK_EQ(row_key2(x, ROW_RUN, a, b), 17);
        CHECK_EQ(row_key2(y, ROW_RUN, a, b + 1), 17);
        CHECK(b == UINT64_MAX || memcmp(x, y, 17) < 0);
        REQUIRE(row_key_parse(x, 17, &got_a, &got_b));
        CHECK(got_a == a && got_b == b);
        REQUIRE(row_key_parse(x, 9, &got_a, NULL));
        CHECK(got_a == a);
    }
}

static void test_key_is_laid_out_as_documented(void)
{
    uint8_t key[ROW_KEY_MAX];

    row_key2(key, ROW_HOLE, 0x0102030405060708, 16);
    CHECK(memcmp(key, "H\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\x10", 17) == 0);
}

static void test_key_of_another_length_is_refused(void)
{
    uint64_t a, b;

    for (size_t n = 0; n < 40; n++) {
        uint8_t *key = calloc(1, n ? n : 1);

        CHECK(row_key_parse(key, n, &a, &b) == (n == 9 || n == 17));
        free(key);
    }
}

static int read_group(const void *p, size_t n)
{
    struct row_group v;

    return row_group_read(&v, p, n);
}

static void test_group_row(void)
{
    struct row_group v = { .class = 1,
                           .destaged_lsn = 0x1122334455667788,
                           .last_entry = 3,
                           .last_hash = 4 },
                     got;
    size_t n = row_group_write(&v, mem);

    CHECK_EQ(n, 28);
    CHECK(memcmp(mem, "\x01\x01\0\0\x88\x77\x66\x55\x44\x33\x22\x11\x03", 13) == 0 && mem[20] == 4);
    REQUIRE(row_group_read(&got, mem, n) == 0);
    CHECK(got.class == 1 && got.destaged_lsn == v.destaged_lsn && got.last_entry == 3);
    CHECK(got.last_hash == 4 && got.segment.first == 0 && got.segment.bytes == 0);
    check_refusals(n, read_group);
}

static void test_group_row_that_says_where_its_segment_stands(void)
{
    struct row_group v = { .class = 1, .last_entry = 3, .segment = { 0x99, 0x1234 } }, got;
    size_t n = row_group_write(&v, mem);

    CHECK_EQ(n, 44);
    CHECK(memcmp(mem, "\x02\x01\0\0", 4) == 0 && mem[28] == 0x99 && mem[36] == 0x34);
    REQUIRE(row_group_read(&got, mem, n) == 0);
    CHECK(got.last_entry == 3 && got.segment.first == 0x99 && got.segment.bytes == 0x1234);
    check_refusals(n, read_group);
    mem[28] = 0; /* a first entry of 0 is none */
    CHECK_EQ(row_group_read(&got, mem, n), E_CORRUPT);
}

static int read_shard(const void *p, size_t n)
{
    struct row_shard v;

    return row_shard_read(&v, p, n);
}

static void test_shard_row(void)
{
    struct row_shard v = { 0, 1, 5, 600, -7 }, got;
    size_t n = row_shard_write(&v, mem);

    CHECK_EQ(n, 28);
    CHECK(memcmp(mem, "\x01\0\x01\0\x05\0\0\0\0\0\0\0\x58\x02", 14) == 0 && mem[20] == 0xf9);
    REQUIRE(row_shard_read(&got, mem, n) == 0);
    CHECK(got.kind == 0 && got.class == 1 && got.group == 5 && got.start == 600);
    CHECK(got.created == -7);
    check_refusals(n, read_shard);
}

static struct row_segment segment, segment_got;

static int read_segment(const void *p, size_t n)
{
    return row_segment_read(&segment_got, p, n);
}

static void test_segment_row_with_any_number_of_extents(void)
{
    struct rng r;

    rng_seed(&r, 2);
    for (uint16_t e = 0; e <= SEG_MAX_EXTENTS; e++) {
        const struct row_segment *a = &segment, *b = &segment_got;
        size_t n;

        segment = (struct row_segment){ .group = rng_u64(&r),
                                        .first_entry = rng_u64(&r),
                                        .last_entry = rng_u64(&r),
                                        .data_bytes = rng_u64(&r),
                                        .index_pos = rng_u64(&r),
                                        .index_bytes = rng_u64(&r),
                                        .n_batches = rng_u64(&r),
                                        .min_ts = (int64_t)rng_u64(&r),
                                        .max_ts = (int64_t)rng_u64(&r),
                                        .created = (int64_t)rng_u64(&r),
                                        .direct_bytes = rng_u64(&r),
                                        .sorted_pos = rng_u64(&r),
                                        .n_extents = e };
        /* What was written before the log cut segments does not say of which it is a piece. */
        segment.segment_first = e % 3 ? 1 + rng_below(&r, 1000) : 0;
        segment.flags = e % 3 ? (uint8_t)rng_below(&r, 4) : 0;
        for (unsigned i = 0; i < 16; i++)
            segment.identity.bytes[i] = (uint8_t)rng_u64(&r);
        for (unsigned i = 0; i < e; i++)
            segment.extents[i] = (struct seg_extent){ rng_u64(&r), (uint32_t)rng_u64(&r) };
        n = row_segment_write(&segment, mem);
        CHECK_EQ(n, (e % 3 ? 124 : 116) + 12 * e);
        CHECK_EQ(mem[0], e % 3 ? 3 : 2);
        REQUIRE(row_segment_read(&segment_got, mem, n) == 0);
        CHECK(b->version == 2 && a->direct_bytes == b->direct_bytes &&
              a->sorted_pos == b->sorted_pos);
        CHECK(a->segment_first == b->segment_first && a->flags == b->flags);
        CHECK(a->group == b->group && a->first_entry == b->first_entry && b->n_extents == e);
        CHECK(a->last_entry == b->last_entry && a->data_bytes == b->data_bytes);
        CHECK(a->index_pos == b->index_pos && a->index_bytes == b->index_bytes);
        CHECK(a->n_batches == b->n_batches && a->min_ts == b->min_ts && a->max_ts == b->max_ts);
        CHECK(a->created == b->created && memcmp(&a->identity, &b->identity, 16) == 0);
        for (unsigned i = 0; i < e; i++)
            CHECK(a->extents[i].place == b->extents[i].place &&
                  a->extents[i].log2 == b->extents[i].log2);
        if (e % 60 == 3)
            check_refusals(n, read_segment);
    }
}

static void test_segment_row_with_too_many_extents_is_refused(void)
{
    size_t n;

    segment.n_extents = SEG_MAX_EXTENTS;
    n = row_segment_write(&segment, mem);
    for (unsigned e = SEG_MAX_EXTENTS + 1; e < 65536; e += 1 + e / 8) {
        mem[2] = (uint8_t)e;
        mem[3] = (uint8_t)(e >> 8);
        CHECK_EQ(row_segment_read(&segment_got, mem, n), E_CORRUPT);
        CHECK_EQ(row_segment_read(&segment_got, mem, sizeof mem), E_CORRUPT);
    }
}

static int read_loss(const void *p, size_t n)
{
    struct row_loss v;

    return row_loss_read(&v, p, n);
}

static void test_loss_row(void)
{
    struct row_loss v = { true, 4096, 77 }, got = { 0 };
    size_t n = row_loss_write(&v, mem);

    CHECK_EQ(n, 24);
    CHECK(memcmp(mem, "\x01\x01\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\x4d", 17) == 0);
    REQUIRE(row_loss_read(&got, mem, n) == 0);
    CHECK(got.accepted && got.end_lsn == 4096 && got.max_offsets == 77);
    v.accepted = false;
    row_loss_write(&v, mem);
    REQUIRE(row_loss_read(&got, mem, n) == 0);
    CHECK(!got.accepted);
    check_refusals(n, read_loss);
}

static int read_run(const void *p, size_t n)
{
    struct row_run v;

    return row_run_read(&v, p, n);
}

static void test_run_row(void)
{
    struct row_run v = { .segment = 1,
                         .end = 2,
                         .pos = 3,
                         .bytes = 4,
                         .xxh3 = 5,
                         .max_ts = -6,
                         .first_sparse = 7,
                         .n_sparse = 8,
                         .n_batches = 9 };
    struct row_run got;
    size_t n = row_run_write(&v, mem);

    CHECK_EQ(n, 64);
    CHECK(mem[4] == 8 && mem[8] == 1 && mem[16] == 2 && mem[24] == 3 && mem[32] == 4);
    CHECK(mem[40] == 0xfa && mem[48] == 7 && mem[52] == 9 && mem[56] == 5);
    REQUIRE(row_run_read(&got, mem, n) == 0);
    CHECK(got.segment == 1 && got.end == 2 && got.pos == 3 && got.bytes == 4 && got.xxh3 == 5);
    CHECK(got.max_ts == -6 && got.first_sparse == 7 && got.n_sparse == 8 && got.n_batches == 9);
    check_refusals(n, read_run);
}

static int read_producer(const void *p, size_t n)
{
    struct row_producer v;

    return row_producer_read(&v, p, n);
}

static void test_producer_row_with_one_to_five_batches(void)
{
    for (uint8_t k = 1; k <= ROW_PRODUCER_BATCHES; k++) {
        struct row_producer v = { .epoch = -2, .n = k }, got;
        size_t n;

        for (unsigned i = 0; i < k; i++)
            v.batch[i] = (struct row_producer_batch){ 10 + i, 20 - (int)i, 30, INT32_MAX - (int)i };
        n = row_producer_write(&v, mem);
        CHECK_EQ(n, 8 + 24 * k);
        REQUIRE(row_producer_read(&got, mem, n) == 0);
        CHECK(got.epoch == -2 && got.n == k);
        for (unsigned i = 0; i < k; i++)
            CHECK(got.batch[i].base == 10 + i && got.batch[i].time == 20 - (int)i &&
                  got.batch[i].base_sequence == 30 &&
                  got.batch[i].last_sequence == INT32_MAX - (int)i);
        check_refusals(n, read_producer);
    }
}

static void test_producer_row_with_none_or_too_many_batches_is_refused(void)
{
    struct row_producer v = { .n = ROW_PRODUCER_BATCHES }, got;
    size_t n = row_producer_write(&v, mem);

    for (unsigned k = 0; k < 256; k++) {
        mem[1] = (uint8_t)k;
        CHECK_EQ(row_producer_read(&got, mem, 8 + 24 * k <= sizeof mem ? 8 + 24 * k : n),
                 k >= 1 && k <= ROW_PRODUCER_BATCHES ? 0 : E_CORRUPT);
    }
}

static int read_u64(const void *p, size_t n)
{
    uint64_t v;

    return row_u64_read(&v, p, n);
}

static void test_number_row(void)
{
    uint64_t got;
    size_t n = row_u64_write(0x1122334455667788, mem);

    CHECK_EQ(n, 16);
    CHECK(memcmp(mem, "\x01\0\0\0\0\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11", 16) == 0);
    REQUIRE(row_u64_read(&got, mem, n) == 0);
    CHECK(got == 0x1122334455667788);
    check_refusals(n, read_u64);
}

static void test_key_up_to_999_bytes_is_its_own_name_and_a_longer_one_ends_in_its_hash(void)
{
    XXH128_canonical_t sum; /* by the library's other way, all at once */
    uint8_t key[2000], name[ROW_NAME_MAX], row[ROW_NAME_KEY_MAX];

    memset(key, 'x', sizeof key);
    CHECK_EQ(row_index_name(name, NULL, 0), 0);
    for (size_t n = 1; n <= 999; n += 499) {
        CHECK_EQ(row_index_name(name, key, n), n);
        CHECK(memcmp(name, key, n) == 0);
    }
    CHECK_EQ(row_index_name(name, key, 1000), 1015);
    CHECK(memcmp(name, key, 999) == 0);
    XXH128_canonicalFromHash(&sum, XXH3_128bits(key, 1000));
    CHECK(memcmp(name + 999, sum.digest, 16) == 0);
    CHECK_EQ(row_key_name(row, 7, name, 1015), 1024);
    CHECK(row[0] == 'k' && row[8] == 7 && memcmp(row + 9, name, 1015) == 0);
    CHECK(row_key_is_name(row, 1024, 7));
    CHECK(!row_key_is_name(row, 1024, 8));
    CHECK(!row_key_is_name(row, 8, 7));
    CHECK(row_key_is_name(row, 9, 7)); /* the empty key */
    row[0] = 'x';
    CHECK(!row_key_is_name(row, 1024, 7));
}

TEST_MAIN(T(keys_sort_as_their_numbers) T(key_is_laid_out_as_documented) T(
    key_of_another_length_is_refused) T(group_row) T(group_row_that_says_where_its_segment_stands)
              T(shard_row) T(segment_row_with_any_number_of_extents)
                  T(segment_row_with_too_many_extents_is_refused) T(loss_row) T(run_row)
                      T(producer_row_with_one_to_five_batches) T(
                          producer_row_with_none_or_too_many_batches_is_refused) T(number_row)
                          T(key_up_to_999_bytes_is_its_own_name_and_a_longer_one_ends_in_its_hash))
