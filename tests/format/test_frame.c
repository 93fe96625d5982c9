/* Frames: what is written is read, no lie about counts or lengths is believed. */
#include "format/frame.h"

#include "base/rng.h"
#include "tests/check.h"

#include <stdlib.h>

struct made {
    struct frame_head head;
    struct frame_item *items;
    uint8_t *mem; /* exactly head.bytes, so that a sanitizer sees a byte too many */
};

static struct made frame_random(struct rng *r, uint32_t n_items)
{
    struct made m = { .items = calloc(n_items + 1, sizeof *m.items) };
    uint64_t body_bytes = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        m.items[i] = (struct frame_item){ .shard = rng_u64(r),
                                          .base_offset = rng_u64(r),
                                          .n_offsets = 1 + (uint32_t)rng_below(r, UINT32_MAX - 1),
                                          .bytes = (uint32_t)rng_below(r, 500),
                                          .kind = (uint8_t)rng_below(r, 2) };
        if (m.items[i].kind == ITEM_DIRECT) {
            m.items[i].bytes = 61 + (uint32_t)rng_below(r, UINT32_MAX - 61);
            m.items[i].xxh3 = rng_u64(r);
            body_bytes += 61; /* the header of a RecordBatch */
        } else {
            body_bytes += m.items[i].bytes;
        }
    }
    m.head = (struct frame_head){ .flags = (uint16_t)rng_below(r, 4),
                                  .group = rng_u64(r),
                                  .epoch = rng_u64(r),
                                  .entry = rng_u64(r),
                                  .prev_hash = rng_u64(r),
                                  .lac = rng_u64(r),
                                  .append_time = (int64_t)rng_u64(r),
                                  .segment = { rng_u64(r), rng_u64(r) },
                                  .n_items = n_items,
                                  .bytes = (uint32_t)frame_bytes(n_items, body_bytes) };
    m.mem = calloc(1, m.head.bytes);
    frame_head_write(&m.head, m.mem);
    for (uint32_t i = 0; i < n_items; i++)
        frame_item_write(&m.items[i], m.mem, i);
    return m;
}

static void made_free(struct made *m)
{
    free(m->items);
    free(m->mem);
}

static void put_u32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static void test_frame_is_read_as_written(void)
{
    struct rng r;

    rng_seed(&r, 1);
    for (unsigned n = 0; n < 300; n++) {
        struct made m = frame_random(&r, (uint32_t)rng_below(&r, 20));
        struct frame_head h;

        REQUIRE(frame_head_read(&h, m.mem, m.head.bytes) == 0);
        CHECK(h.flags == m.head.flags && h.group == m.head.group && h.epoch == m.head.epoch);
        CHECK(h.entry == m.head.entry && h.prev_hash == m.head.prev_hash && h.lac == m.head.lac);
        CHECK(h.append_time == m.head.append_time && h.n_items == m.head.n_items);
        CHECK_EQ(h.bytes, m.head.bytes);
        CHECK_EQ(h.segment.first, m.head.segment.first);
        CHECK_EQ(h.segment.bytes, m.head.segment.bytes);
        for (uint32_t i = 0; i < h.n_items; i++) {
            struct frame_item x, *y = &m.items[i];

            frame_item_read(&x, m.mem, i);
            CHECK(x.shard == y->shard && x.base_offset == y->base_offset && x.kind == y->kind);
            CHECK(x.n_offsets == y->n_offsets && x.bytes == y->bytes && x.xxh3 == y->xxh3);
        }
        made_free(&m);
    }
}

static void test_frame_is_laid_out_as_documented(void)
{
    struct frame_head h = { .flags = FRAME_RESTART,
                            .group = 2,
                            .epoch = 3,
                            .entry = 4,
                            .lac = 5,
                            .append_time = 6,
                            .n_items = 1,
                            .bytes = 128 };
    struct frame_item item = { 16, 0x0807060504030201, 9, 7, ITEM_INLINE, 0 };
    uint8_t mem[128] = { 0 };

    frame_head_write(&h, mem);
    frame_item_write(&item, mem, 0);
    CHECK(memcmp(mem, "WFRM\x01\0\x01\0\x02", 9) == 0);
    CHECK(mem[16] == 3 && mem[24] == 4 && mem[40] == 5 && mem[48] == 6 && mem[56] == 1);
    CHECK(mem[60] == 128 && mem[80] == 16 && mem[96] == 9 && mem[100] == 7 && mem[104] == 0);
    CHECK(memcmp(mem + 88, "\x01\x02\x03\x04\x05\x06\x07\x08", 8) == 0);
    CHECK_EQ(frame_bytes(0, 0), 80);
    CHECK_EQ(frame_bytes(1, 1), 128);
    CHECK_EQ(frame_bytes(2, 8), 168);
    CHECK_EQ(frame_head_read(&h, mem, sizeof mem), 0);
}

static void test_every_truncation_is_refused(void)
{
    struct rng r;
    struct made m;

    rng_seed(&r, 2);
    m = frame_random(&r, 7);
    for (uint32_t left = 0; left < m.head.bytes; left++) {
        uint8_t *part = malloc(left + 1);
        struct frame_head h;

        /* At the end of its allocation, so that reading on is seen. */
        memcpy(part + 1, m.mem, left);
        CHECK_EQ(frame_head_read(&h, part + 1, left), E_CORRUPT);
        free(part);
    }
    made_free(&m);
}

static void test_lies_about_counts_and_lengths_are_refused(void)
{
    static const uint32_t lies[] = { 0, 1, 6, 8, 1000, 1u << 20, 1u << 31, UINT32_MAX };
    struct frame_head h;
    struct rng r;
    struct made m;

    rng_seed(&r, 3);
    m = frame_random(&r, 7);
    for (unsigned i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        put_u32(m.mem + 56, lies[i]);
        CHECK_EQ(frame_head_read(&h, m.mem, m.head.bytes), E_CORRUPT);
        frame_head_write(&m.head, m.mem);
        put_u32(m.mem + 60, lies[i]);
        CHECK_EQ(frame_head_read(&h, m.mem, m.head.bytes), E_CORRUPT);
        frame_head_write(&m.head, m.mem);
    }
    m.items[3].kind = ITEM_INLINE;
    m.items[3].bytes = UINT32_MAX;
    frame_item_write(&m.items[3], m.mem, 3);
    CHECK_EQ(frame_head_read(&h, m.mem, m.head.bytes), E_CORRUPT);
    made_free(&m);
}

static void test_a_direct_item_has_its_batchs_header_in_the_frame(void)
{
    struct frame_item items[] = { { 16, 5, 1, 7, ITEM_INLINE, 0 },
                                  { 17, 6, 2, 1 << 20, ITEM_DIRECT, 99 } };
    uint8_t mem[80 + 2 * 40 + 72] = { 0 }; /* 7 and 61 bytes, rounded up to 8 */
    struct frame_head h = { .n_items = 2, .bytes = sizeof mem }, got;

    CHECK_EQ(frame_item_body(&items[0]), 7);
    CHECK_EQ(frame_item_body(&items[1]), 61);
    CHECK_EQ(frame_bytes(2, 7 + 61), sizeof mem);
    frame_head_write(&h, mem);
    for (uint32_t i = 0; i < 2; i++)
        frame_item_write(&items[i], mem, i);
    CHECK_EQ(frame_head_read(&got, mem, sizeof mem), 0);
    items[1].bytes = 60; /* shorter than its own header */
    frame_item_write(&items[1], mem, 1);
    CHECK_EQ(frame_head_read(&got, mem, sizeof mem), E_CORRUPT);
}

static void test_items_that_make_no_sense_are_refused(void)
{
    struct frame_head h;
    struct rng r;
    struct made m;

    rng_seed(&r, 4);
    m = frame_random(&r, 3);
    m.mem[FRAME_HEAD_BYTES + FRAME_ITEM_BYTES + 24] = 2; /* a kind that is not known */
    CHECK_EQ(frame_head_read(&h, m.mem, m.head.bytes), E_CORRUPT);
    frame_item_write(&m.items[1], m.mem, 1);
    CHECK_EQ(frame_head_read(&h, m.mem, m.head.bytes), 0);
    put_u32(m.mem + FRAME_HEAD_BYTES + 16, 0); /* no offsets */
    CHECK_EQ(frame_head_read(&h, m.mem, m.head.bytes), E_CORRUPT);
    made_free(&m);
}

static void test_newer_version_is_told_from_damage(void)
{
    struct frame_head h;
    struct rng r;
    struct made m;

    rng_seed(&r, 5);
    m = frame_random(&r, 1);
    m.mem[4] = 2;
    CHECK_EQ(frame_head_read(&h, m.mem, m.head.bytes), E_VERSION);
    m.mem[4] = 0;
    CHECK_EQ(frame_head_read(&h, m.mem, m.head.bytes), E_CORRUPT);
    m.mem[4] = 2;
    m.mem[0] ^= 1;
    CHECK_EQ(frame_head_read(&h, m.mem, m.head.bytes), E_CORRUPT);
    made_free(&m);
}

TEST_MAIN(T(frame_is_read_as_written) T(frame_is_laid_out_as_documented)
              T(every_truncation_is_refused) T(lies_about_counts_and_lengths_are_refused)
                  T(a_direct_item_has_its_batchs_header_in_the_frame)
                      T(items_that_make_no_sense_are_refused) T(newer_version_is_told_from_damage))
