/* What log compaction leaves of a batch. */
#include "format/batch_keep.h"
#include "base/buf.h"
#include "base/rd.h"
#include "format/codec.h"
#include "format/sum.h"
#include "tests/check.h"

enum { RECORDS = 6, BODY_MAX = 1 << 20, OFFSET = 1000 };

#define T0 INT64_C(1700000000000)

/* Six records, keys "k0" to "k5", of which every other has no value; times go up and down. */
static struct buf *make(enum batch_codec codec, bool producer)
{
    static const int64_t times[RECORDS] = { 5, 40, 3, 90, 2, 7 };
    struct batch_header header = { (const uint8_t *)"h", 1, (const uint8_t *)"vv", 2 };
    struct batch_builder b = {
        .has_producer = producer, .producer_id = 77, .producer_epoch = 3, .base_sequence = 12
    };
    struct buf *out = NULL;

    for (unsigned i = 0; i < RECORDS; i++) {
        char key[8];
        struct batch_new_record r = { .timestamp = T0 + times[i],
                                      .key = key,
                                      .value =
                                          i % 2 ? NULL : "a value that may be compressed ........",
                                      .value_bytes = i % 2 ? 0 : 39,
                                      .headers = &header,
                                      .n_headers = 1 };

        r.key_bytes = (size_t)snprintf(key, sizeof key, "k%u", i);
        batch_builder_add(&b, &r);
    }
    REQUIRE(batch_builder_finish(&b, codec, &out) >= 0);
    batch_builder_free(&b);
    batch_stamp(out->mem, OFFSET, 9);
    return out;
}

static bool by_mask(void *ctx, const struct batch_record *r)
{
    return *(unsigned *)ctx >> (r->offset - OFFSET) & 1;
}

static int keep(const struct buf *b, unsigned mask, struct buf **out)
{
    return batch_keep(b->mem, b->len, BODY_MAX, by_mask, &mask, out);
}

static void test_all_or_nothing_makes_no_new_batch(void)
{
    struct buf *b = make(CODEC_NONE, false), *out;

    CHECK_EQ(keep(b, 0x3f, &out), BATCH_KEPT_ALL);
    CHECK(out == NULL);
    CHECK_EQ(keep(b, 0, &out), BATCH_KEPT_NONE);
    CHECK(out == NULL);
    buf_unref(b);
}

static void records_same(const struct buf *was, const struct buf *is, unsigned mask)
{
    struct batch_iter a, b;
    struct batch_record x, y;

    REQUIRE(batch_iter_open(&a, was->mem, was->len, BODY_MAX) >= 0);
    REQUIRE(batch_iter_open(&b, is->mem, is->len, BODY_MAX) >= 0);
    while (batch_iter_next(&a, &x) == 1) {
        if (!by_mask(&mask, &x))
            continue;
        REQUIRE(batch_iter_next(&b, &y) == 1);
        CHECK_EQ(y.offset, x.offset);
        CHECK_EQ(y.timestamp, x.timestamp);
        REQUIRE(y.key_bytes == x.key_bytes && y.value_bytes == x.value_bytes);
        CHECK(memcmp(y.key, x.key, (size_t)x.key_bytes) == 0);
        CHECK(x.value_bytes < 0 || memcmp(y.value, x.value, (size_t)x.value_bytes) == 0);
        REQUIRE(y.headers_bytes == x.headers_bytes);
        CHECK(memcmp(y.headers, x.headers, x.headers_bytes) == 0);
    }
    CHECK_EQ(batch_iter_next(&b, &y), 0);
    batch_iter_close(&a);
    batch_iter_close(&b);
}

static void test_what_is_left_keeps_offsets_times_and_head_in_every_codec(void)
{
    for (int codec = CODEC_NONE; codec < CODEC_COUNT; codec++) {
        struct buf *b = make((enum batch_codec)codec, true);

        for (unsigned mask = 1; mask < 0x3f; mask++) {
            struct batch_head was, is;
            struct buf *out;

            REQUIRE(keep(b, mask, &out) == BATCH_KEPT_SOME);
            REQUIRE(batch_check(&was, b->mem, b->len) >= 0);
            REQUIRE(batch_check(&is, out->mem, out->len) >= 0);
            CHECK_EQ(is.bytes, out->len);
            CHECK_EQ(is.base_offset, OFFSET);
            CHECK_EQ(is.leader_epoch, 9);
            CHECK_EQ(is.last_offset_delta, RECORDS - 1);
            CHECK_EQ(is.attributes, was.attributes);
            CHECK_EQ(is.base_timestamp, was.base_timestamp);
            CHECK_EQ(is.producer_id, 77);
            CHECK_EQ(is.producer_epoch, 3);
            CHECK_EQ(is.base_sequence, 12);
            CHECK_EQ(is.record_count, __builtin_popcount(mask));
            records_same(b, out, mask);
            buf_unref(out);
        }
        buf_unref(b);
    }
}

static void test_largest_timestamp_is_that_of_what_is_left(void)
{
    struct buf *b = make(CODEC_NONE, false), *out;
    struct batch_head h;

    REQUIRE(keep(b, 1 << 0 | 1 << 4, &out) == BATCH_KEPT_SOME); /* times 5 and 2 */
    REQUIRE(batch_check(&h, out->mem, out->len) >= 0);
    CHECK_EQ(h.max_timestamp, T0 + 5);
    buf_unref(out);
    buf_unref(b);
}

static void test_what_is_left_can_lose_more(void)
{
    struct buf *b = make(CODEC_LZ4, true), *once, *twice;

    REQUIRE(keep(b, 0x2d, &once) == BATCH_KEPT_SOME);
    REQUIRE(keep(once, 0x09, &twice) == BATCH_KEPT_SOME);
    records_same(b, twice, 0x09);
    buf_unref(twice);
    buf_unref(once);
    buf_unref(b);
}

static void test_a_batch_that_cannot_be_opened_is_corrupt(void)
{
    struct buf *b = make(CODEC_NONE, false), *out;

    b->mem[BATCH_HEAD_BYTES] ^= 0x7e; /* the first record's length */
    CHECK_EQ(keep(b, 1, &out), E_CORRUPT);
    CHECK(out == NULL);
    buf_unref(b);
}

static void test_an_empty_batch_is_whole_and_has_no_records(void)
{
    struct buf *b = make(CODEC_ZSTD, true), *out;
    uint8_t mem[BATCH_HEAD_BYTES];
    struct batch_head like, h;
    struct batch_iter it;
    struct batch_record r;

    REQUIRE(batch_head_read(&like, b->mem, b->len) >= 0);
    for (int producer = 0; producer < 2; producer++) {
        batch_empty_write(&like, RECORDS, producer, mem);
        REQUIRE(batch_check(&h, mem, sizeof mem) >= 0);
        CHECK_EQ(h.bytes, BATCH_HEAD_BYTES);
        CHECK_EQ(h.base_offset, OFFSET);
        CHECK_EQ(h.last_offset_delta, RECORDS - 1);
        CHECK_EQ(h.record_count, 0);
        CHECK_EQ(h.attributes, 0);
        CHECK_EQ(h.leader_epoch, 9);
        CHECK_EQ(h.max_timestamp, -1);
        CHECK_EQ(h.base_timestamp, like.base_timestamp);
        CHECK_EQ(h.producer_id, producer ? 77 : -1);
        CHECK_EQ(h.producer_epoch, producer ? 3 : -1);
        CHECK_EQ(h.base_sequence, producer ? 12 : -1);
        CHECK_EQ(batch_is_filler(&h), !producer);
        REQUIRE(batch_iter_open(&it, mem, sizeof mem, BODY_MAX) >= 0);
        CHECK_EQ(batch_iter_next(&it, &r), 0);
        batch_iter_close(&it);
        CHECK_EQ(batch_keep(mem, sizeof mem, BODY_MAX, by_mask, &(unsigned){ 1 }, &out),
                 BATCH_KEPT_ALL);
    }
    buf_unref(b);
}

static void test_an_empty_batch_reaches_over_two_to_the_31_offsets(void)
{
    struct batch_head like = { .base_offset = 5 }, h;
    uint8_t mem[BATCH_HEAD_BYTES];

    batch_empty_write(&like, (uint32_t)1 << 31, false, mem);
    REQUIRE(batch_check(&h, mem, sizeof mem) >= 0);
    CHECK_EQ(h.last_offset_delta, INT32_MAX);
}

static void test_a_record_without_a_key_is_seen_where_nothing_must_be_opened(void)
{
    for (int codec = CODEC_NONE; codec < CODEC_COUNT; codec++) {
        struct batch_builder b = { 0 };
        struct batch_new_record r = {
            .timestamp = T0, .key = "k", .key_bytes = 1, .value_bytes = 200
        };
        static const char value[200];
        struct buf *all = make((enum batch_codec)codec, false), *out = NULL;

        CHECK(!batch_lacks_keys(all->mem, all->len));
        buf_unref(all);
        r.value = value;
        batch_builder_add(&b, &r);
        r.key = NULL;
        r.key_bytes = 0;
        batch_builder_add(&b, &r);
        REQUIRE(batch_builder_finish(&b, (enum batch_codec)codec, &out) >= 0);
        CHECK_EQ(batch_lacks_keys(out->mem, out->len), codec == CODEC_NONE);
        buf_unref(out);
        batch_builder_free(&b);
    }
}

TEST_MAIN(T(a_record_without_a_key_is_seen_where_nothing_must_be_opened)
              T(all_or_nothing_makes_no_new_batch)
                  T(what_is_left_keeps_offsets_times_and_head_in_every_codec)
                      T(largest_timestamp_is_that_of_what_is_left) T(what_is_left_can_lose_more)
                          T(a_batch_that_cannot_be_opened_is_corrupt)
                              T(an_empty_batch_is_whole_and_has_no_records)
                                  T(an_empty_batch_reaches_over_two_to_the_31_offsets))
