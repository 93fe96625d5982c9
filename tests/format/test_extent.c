/* Slab and extent headers: what is written is read, and nothing else is. */
#include "format/extent.h"

#include "base/rng.h"
#include "format/sum.h"
#include "tests/check.h"

#include <stdlib.h>

static void uuid_random(struct rng *r, struct uuid *u)
{
    for (unsigned i = 0; i < sizeof u->bytes; i++)
        u->bytes[i] = (uint8_t)rng_u64(r);
}

/* The sum as docs/format.md has it, after a change. */
static void reseal(uint8_t *page)
{
    uint64_t sum = sum_xxh3(page + 16, PAGE_BYTES - 16, 0);

    for (unsigned i = 0; i < 8; i++)
        page[8 + i] = (uint8_t)(sum >> 8 * i);
}

static struct slab_head slab_random(struct rng *r)
{
    struct slab_head h = { .number = (uint32_t)rng_u64(r),
                           .bytes = (1 + rng_below(r, 1 << 20)) * UNIT_BYTES };

    uuid_random(r, &h.store);
    return h;
}

static struct extent_head extent_random(struct rng *r, enum extent_kind kind)
{
    struct extent_head h = { .kind = kind,
                             .place = rng_u64(r),
                             .log2 = UNIT_LOG2 +
                                     (uint32_t)rng_below(r, EXTENT_MAX_LOG2 - UNIT_LOG2 + 1) };

    uuid_random(r, &h.store);
    if (kind == EXTENT_WAL) {
        uint64_t *const fields[] = { &h.incarnation,    &h.salt,
                                     &h.number,         &h.first_lsn,
                                     &h.prev_hash,      &h.prev_place,
                                     &h.next_place,     &h.before_incarnation,
                                     &h.before_end_lsn, &h.before_end_hash };

        for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++)
            *fields[i] = rng_u64(r);
    } else {
        h.group = rng_u64(r);
        h.segment = rng_u64(r);
        h.index = (uint32_t)rng_u64(r);
        h.n_extents = (uint32_t)rng_u64(r);
        h.pos = rng_u64(r);
    }
    return h;
}

static void test_slab_head_is_read_as_written(void)
{
    uint8_t page[PAGE_BYTES];
    struct rng r;

    rng_seed(&r, 1);
    for (unsigned n = 0; n < 1000; n++) {
        struct slab_head h = slab_random(&r), got = { 0 };

        slab_head_write(&h, page);
        REQUIRE(slab_head_read(&got, page) == 0);
        CHECK(memcmp(&h.store, &got.store, sizeof h.store) == 0);
        CHECK_EQ(got.number, h.number);
        CHECK_EQ(got.bytes, h.bytes);
    }
}

static void check_extent(const struct extent_head *a, const struct extent_head *b)
{
    CHECK(a->kind == b->kind && memcmp(&a->store, &b->store, sizeof a->store) == 0);
    CHECK(a->place == b->place && a->log2 == b->log2);
    CHECK(a->incarnation == b->incarnation && a->salt == b->salt && a->number == b->number);
    CHECK(a->first_lsn == b->first_lsn && a->prev_hash == b->prev_hash);
    CHECK(a->prev_place == b->prev_place && a->next_place == b->next_place);
    CHECK(a->before_incarnation == b->before_incarnation);
    CHECK(a->before_end_lsn == b->before_end_lsn && a->before_end_hash == b->before_end_hash);
    CHECK(a->group == b->group && a->segment == b->segment && a->index == b->index);
    CHECK(a->n_extents == b->n_extents && a->pos == b->pos);
}

static void test_extent_heads_of_both_kinds_are_read_as_written(void)
{
    uint8_t page[PAGE_BYTES];
    struct rng r;

    rng_seed(&r, 2);
    for (unsigned n = 0; n < 1000; n++) {
        struct extent_head h = extent_random(&r, n % 2 ? EXTENT_WAL : EXTENT_SEGMENT), got;

        extent_head_write(&h, page);
        REQUIRE(extent_head_read(&got, page) == 0);
        check_extent(&h, &got);
    }
}

/* Bytes made by hand from the table, so that writer and reader cannot be wrong together. */
static void test_extent_head_is_laid_out_as_documented(void)
{
    struct extent_head h = { .kind = EXTENT_WAL,
                             .place = 0x0000000700000010,
                             .log2 = 20,
                             .incarnation = 3,
                             .first_lsn = 0x1122334455667788,
                             .next_place = PLACE_NONE,
                             .before_end_lsn = 9 };
    uint8_t page[PAGE_BYTES];
    static const uint8_t lsn[8] = { 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11 };

    extent_head_write(&h, page);
    CHECK(memcmp(page, "WEXT\x01\x00\x01\x00", 8) == 0);
    CHECK(memcmp(page + 32, "\x10\0\0\0\x07\0\0\0", 8) == 0);
    CHECK(page[40] == 20 && page[48] == 3 && page[112] == 9);
    CHECK(memcmp(page + 72, lsn, 8) == 0);
    CHECK(memcmp(page + 96, "\xff\xff\xff\xff\xff\xff\xff\xff", 8) == 0);
    CHECK(bytes_are_zero(page + 128, PAGE_BYTES - 128));
    CHECK_EQ(place_pos(h.place), 16 * 65536);
    CHECK_EQ(place_slab(h.place), 7);
}

static void test_every_flipped_bit_of_a_head_is_refused(void)
{
    uint8_t page[PAGE_BYTES];
    struct rng r;
    struct slab_head s;
    struct extent_head x;

    rng_seed(&r, 3);
    for (unsigned kind = 0; kind < 3; kind++) {
        s = slab_random(&r);
        x = extent_random(&r, kind == 1 ? EXTENT_WAL : EXTENT_SEGMENT);
        if (kind == 0)
            slab_head_write(&s, page);
        else
            extent_head_write(&x, page);
        for (unsigned bit = 0; bit < PAGE_BYTES * 8; bit++) {
            page[bit / 8] ^= (uint8_t)(1 << bit % 8);
            REQUIRE((kind == 0 ? slab_head_read(&s, page) : extent_head_read(&x, page)) < 0);
            page[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

static void test_newer_version_is_told_from_damage(void)
{
    uint8_t page[PAGE_BYTES];
    struct slab_head s = { .bytes = UNIT_BYTES };
    struct extent_head x = { .kind = EXTENT_WAL, .log2 = UNIT_LOG2 };

    slab_head_write(&s, page);
    page[4] = 2;
    CHECK_EQ(slab_head_read(&s, page), E_VERSION);
    page[100] ^= 1;
    CHECK_EQ(slab_head_read(&s, page), E_CORRUPT);
    extent_head_write(&x, page);
    page[5] = 1;
    CHECK_EQ(extent_head_read(&x, page), E_VERSION);
    page[5] = page[4] = 0;
    CHECK_EQ(extent_head_read(&x, page), E_CORRUPT);
}

static void test_sizes_and_kinds_out_of_bounds_are_refused(void)
{
    uint8_t page[PAGE_BYTES];
    struct slab_head s = { .bytes = UNIT_BYTES };
    struct extent_head x = { .kind = EXTENT_WAL };
    static const uint8_t log2s[] = { 0, UNIT_LOG2 - 1, EXTENT_MAX_LOG2 + 1, 63, 64, 255 };

    for (unsigned i = 0; i < sizeof log2s; i++) {
        x.log2 = log2s[i];
        extent_head_write(&x, page);
        CHECK_EQ(extent_head_read(&x, page), E_CORRUPT);
    }
    x.log2 = UNIT_LOG2;
    extent_head_write(&x, page);
    for (unsigned kind = 0; kind < 8; kind++) {
        page[6] = (uint8_t)kind;
        reseal(page);
        CHECK_EQ(extent_head_read(&x, page), kind == 1 || kind == 2 ? 0 : E_CORRUPT);
    }
    s.bytes = 0;
    slab_head_write(&s, page);
    CHECK_EQ(slab_head_read(&s, page), E_CORRUPT);
    s.bytes = UNIT_BYTES + PAGE_BYTES;
    slab_head_write(&s, page);
    CHECK_EQ(slab_head_read(&s, page), E_CORRUPT);
}

static void test_zeros_are_told_from_anything_else(void)
{
    uint8_t mem[300] = { 0 };

    CHECK(bytes_are_zero(mem, 0));
    for (unsigned n = 1; n <= sizeof mem; n++) {
        CHECK(bytes_are_zero(mem, n));
        mem[n - 1] = 128;
        CHECK(!bytes_are_zero(mem, n));
        CHECK(n == 1 || bytes_are_zero(mem, n - 1));
        mem[n - 1] = 0;
    }
}

TEST_MAIN(T(slab_head_is_read_as_written) T(extent_heads_of_both_kinds_are_read_as_written)
              T(extent_head_is_laid_out_as_documented) T(every_flipped_bit_of_a_head_is_refused)
                  T(newer_version_is_told_from_damage) T(sizes_and_kinds_out_of_bounds_are_refused)
                      T(zeros_are_told_from_anything_else))
