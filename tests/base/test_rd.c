#include "base/rd.h"

#include "base/rng.h"
#include "tests/check.h"

static void test_fixed_widths_read_both_orders(void)
{
    static const uint8_t mem[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    struct rd r;

#define READS(fn, want)                                                                            \
    r = rd_of(mem, sizeof mem);                                                                    \
    CHECK(fn(&r) == (want));                                                                       \
    CHECK(rd_ok(&r));
    READS(rd_u8, 1)
    READS(rd_u16le, 0x0201)
    READS(rd_u16be, 0x0102)
    READS(rd_u32le, 0x04030201)
    READS(rd_u32be, 0x01020304)
    READS(rd_u64le, 0x0807060504030201)
    READS(rd_u64be, 0x0102030405060708)
#undef READS
    CHECK_EQ(get_u32be(mem), 0x01020304);
    CHECK_EQ(get_u64be(mem), 0x0102030405060708);
}

static void test_fixed_widths_write_both_orders(void)
{
    static const uint8_t want[] = { 9, 2, 1, 1, 2, 4, 3, 2, 1, 1, 2, 3, 4, 8, 7,
                                    6, 5, 4, 3, 2, 1, 1, 2, 3, 4, 5, 6, 7, 8 };
    uint8_t mem[sizeof want], four[4], eight[8];
    struct wr w = wr_of(mem, sizeof mem);

    wr_u8(&w, 9);
    wr_u16le(&w, 0x0102);
    wr_u16be(&w, 0x0102);
    wr_u32le(&w, 0x01020304);
    wr_u32be(&w, 0x01020304);
    wr_u64le(&w, 0x0102030405060708);
    wr_u64be(&w, 0x0102030405060708);
    CHECK(wr_ok(&w));
    CHECK_EQ(wr_used(&w), sizeof want);
    CHECK(memcmp(mem, want, sizeof want) == 0);
    put_u32be(four, 0x01020304);
    CHECK(memcmp(four, want + 9, 4) == 0);
    put_u64be(eight, 0x0102030405060708);
    CHECK(memcmp(eight, want + 21, 8) == 0);
}

static void test_a_short_reader_stays_bad(void)
{
    static const uint8_t mem[] = { 1, 2, 3, 4, 5 };
    struct rd r = rd_of(mem, sizeof mem);

    CHECK_EQ(rd_u32be(&r), 0x01020304);
    CHECK_EQ(rd_u32be(&r), 0);
    CHECK(!rd_ok(&r));
    CHECK_EQ(rd_u8(&r), 0); /* although one byte is there */
    CHECK_EQ(rd_left(&r), 0);
    CHECK(rd_bytes(&r, 0) == NULL);
    CHECK_EQ(rd_uvarint(&r, 5), 0);
}

static void test_huge_lengths_are_short_not_overflow(void)
{
    static const uint8_t mem[4];
    struct rd r = rd_of(mem, sizeof mem);
    uint8_t out[4] = { 1, 1, 1, 1 };
    struct wr w = wr_of(out, sizeof out);

    CHECK(rd_bytes(&r, SIZE_MAX) == NULL);
    CHECK(wr_room(&w, SIZE_MAX) == NULL);
    CHECK(!rd_ok(&r) && !wr_ok(&w));
    wr_u8(&w, 9);
    CHECK_EQ(out[0], 1);
}

static void test_a_full_writer_writes_nothing_more(void)
{
    uint8_t mem[6] = { 0 };
    struct wr w = wr_of(mem, 5);

    wr_u32be(&w, 0x01020304);
    wr_u16be(&w, 0xffff);
    CHECK(!wr_ok(&w));
    wr_u8(&w, 0xff);
    CHECK_EQ(mem[4], 0);
    CHECK_EQ(mem[5], 0);
}

static void test_pad_fills_with_zeros_to_the_boundary(void)
{
    uint8_t mem[16];
    struct wr w = wr_of(mem, sizeof mem);

    memset(mem, 0xff, sizeof mem);
    wr_pad(&w, 8);
    CHECK_EQ(wr_used(&w), 0);
    wr_u8(&w, 1);
    wr_pad(&w, 8);
    CHECK_EQ(wr_used(&w), 8);
    CHECK_EQ(mem[1] | mem[2] | mem[7], 0);
    CHECK_EQ(mem[8], 0xff);
}

/* The pairs of the protobuf encoding page, and the ends of the types. */
static void test_varints_have_their_published_bytes(void)
{
    static const struct {
        uint64_t value;
        uint8_t n, mem[10];
    } rows[] = {
        { 0, 1, { 0 } },
        { 1, 1, { 1 } },
        { 127, 1, { 0x7f } },
        { 128, 2, { 0x80, 1 } },
        { 150, 2, { 0x96, 1 } },
        { 300, 2, { 0xac, 2 } },
        { UINT32_MAX, 5, { 0xff, 0xff, 0xff, 0xff, 0x0f } },
        { UINT64_MAX, 10, { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1 } },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t mem[10];
        struct wr w = wr_of(mem, sizeof mem);
        struct rd r = rd_of(rows[i].mem, rows[i].n);

        wr_uvarint(&w, rows[i].value);
        CHECK_EQ(wr_used(&w), rows[i].n);
        CHECK(memcmp(mem, rows[i].mem, rows[i].n) == 0);
        CHECK(rd_uvarint(&r, 10) == rows[i].value);
        CHECK(rd_ok(&r) && rd_left(&r) == 0);
    }
}

static void test_signed_varints_are_zigzag(void)
{
    static const struct {
        int64_t value;
        uint64_t raw;
    } rows[] = { { 0, 0 },
                 { -1, 1 },
                 { 1, 2 },
                 { -2, 3 },
                 { INT32_MAX, 4294967294 },
                 { INT32_MIN, 4294967295 },
                 { INT64_MAX, UINT64_MAX - 1 },
                 { INT64_MIN, UINT64_MAX } };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t mem[10];
        struct wr w = wr_of(mem, sizeof mem);
        struct rd r;

        wr_varint(&w, rows[i].value);
        r = rd_of(mem, wr_used(&w));
        CHECK(rd_uvarint(&r, 10) == rows[i].raw);
        r = rd_of(mem, wr_used(&w));
        CHECK(rd_varint(&r, 10) == rows[i].value);
        r = rd_of(mem, wr_used(&w));
        if (rows[i].value >= INT32_MIN && rows[i].value <= INT32_MAX)
            CHECK(rd_varint(&r, 5) == rows[i].value);
        CHECK(rd_ok(&r));
    }
}

static bool reads(const uint8_t *mem, size_t bytes, unsigned max_bytes)
{
    struct rd r = rd_of(mem, bytes);
    uint64_t v = rd_uvarint(&r, max_bytes);

    CHECK(rd_ok(&r) || v == 0);
    return rd_ok(&r);
}

static void test_varints_too_long_or_too_big_are_bad(void)
{
    static const uint8_t on[] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0 };
    static const uint8_t big32[] = { 0xff, 0xff, 0xff, 0xff, 0x1f };
    static const uint8_t big64[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2 };
    static const uint8_t zero5[] = { 0x80, 0x80, 0x80, 0x80, 0 };

    CHECK(!reads(on, sizeof on, 10));
    CHECK(!reads(on, sizeof on, 5));
    CHECK(!reads(big32, 5, 5));
    CHECK(reads(big32, 5, 10));
    CHECK(!reads(big64, 10, 10));
    CHECK(reads(zero5, 5, 5)); /* longer than needed, but no longer than the type */
    CHECK(!reads(zero5, 5, 4));
}

static void test_cut_varints_are_bad(void)
{
    static const uint8_t mem[] = { 0xff, 0xff, 0xff, 0xff, 0x0f };

    for (size_t n = 0; n < 5; n++)
        CHECK(!reads(mem, n, 5));
    CHECK(reads(mem, 5, 5));
}

static void test_random_varints_come_back(void)
{
    struct rng rng;
    uint8_t mem[4096];

    rng_seed(&rng, 1);
    for (int round = 0; round < 200; round++) {
        struct wr w = wr_of(mem, sizeof mem);
        struct rng again = rng;
        struct rd r;

        for (int i = 0; i < 200; i++) {
            uint64_t v = rng_u64(&rng);

            wr_uvarint(&w, v >> (v & 63));
            wr_varint(&w, (int64_t)v >> (v >> 6 & 63));
        }
        REQUIRE(wr_ok(&w));
        r = rd_of(mem, wr_used(&w));
        for (int i = 0; i < 200; i++) {
            uint64_t v = rng_u64(&again);

            CHECK(rd_uvarint(&r, 10) == v >> (v & 63));
            CHECK(rd_varint(&r, 10) == (int64_t)v >> (v >> 6 & 63));
        }
        CHECK(rd_ok(&r) && rd_left(&r) == 0);
    }
}

TEST_MAIN(T(fixed_widths_read_both_orders) T(fixed_widths_write_both_orders)
              T(a_short_reader_stays_bad) T(huge_lengths_are_short_not_overflow)
                  T(a_full_writer_writes_nothing_more) T(pad_fills_with_zeros_to_the_boundary)
                      T(varints_have_their_published_bytes) T(signed_varints_are_zigzag)
                          T(varints_too_long_or_too_big_are_bad) T(cut_varints_are_bad)
                              T(random_varints_come_back))
