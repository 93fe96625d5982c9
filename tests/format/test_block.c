/* Blocks: what is written is read, every changed bit is seen, no lie leads outside. */
#include "format/block.h"

#include "base/rng.h"
#include "format/sum.h"
#include "tests/check.h"

#include <stdlib.h>

enum { MAX_LISTED = 8, INCARNATION = 5 };

struct made {
    struct block_head head;
    struct block_dir dir[MAX_LISTED];
    struct block_prev prev[MAX_LISTED];
    uint64_t salt;
    uint8_t *mem; /* exactly block_bytes */
};

static uint32_t round_up(uint64_t v, uint32_t to)
{
    return (uint32_t)((v + to - 1) / to * to);
}

/* A block with random frames (the frames' own form is not the block's affair). */
static struct made block_random(struct rng *r, uint32_t n_frames, uint32_t n_prev)
{
    struct made m = { .salt = rng_u64(r) };
    uint32_t pos = round_up(block_frames_pos(n_frames, n_prev, 0), 8);

    for (uint32_t i = 0; i < n_frames; i++) {
        m.dir[i] = (struct block_dir){ .group = rng_u64(r),
                                       .epoch = rng_u64(r),
                                       .entry = rng_u64(r),
                                       .pos = pos,
                                       .bytes = 1 + (uint32_t)rng_below(r, 3000),
                                       .n_offsets = (uint32_t)rng_u64(r) };
        pos = round_up((uint64_t)pos + m.dir[i].bytes + rng_below(r, 9), 8);
    }
    m.head = (struct block_head){ .incarnation = INCARNATION,
                                  .lsn = rng_below(r, 1 << 30) * PAGE_BYTES,
                                  .prev_hash = rng_u64(r),
                                  .durable_lsn = rng_u64(r),
                                  .body_bytes = pos,
                                  .block_bytes = round_up(pos, PAGE_BYTES),
                                  .next_place = rng_u64(r),
                                  .n_frames = n_frames,
                                  .n_prev = n_prev,
                                  .flags = (uint32_t)rng_below(r, 4),
                                  .written = (int64_t)rng_u64(r),
                                  .prev_lsn = rng_u64(r) };
    for (unsigned i = 0; i < sizeof m.head.store.bytes; i++)
        m.head.store.bytes[i] = (uint8_t)rng_u64(r);
    m.mem = calloc(1, m.head.block_bytes);
    for (uint32_t i = 0; i < n_frames; i++) {
        for (uint32_t k = 0; k < m.dir[i].bytes; k++)
            m.mem[m.dir[i].pos + k] = (uint8_t)rng_u64(r);
        m.dir[i].hash = sum_xxh3(m.mem + m.dir[i].pos, m.dir[i].bytes, 0);
        block_dir_write(&m.dir[i], m.mem, i);
    }
    for (uint32_t i = 0; i < n_prev; i++) {
        m.prev[i] = (struct block_prev){ rng_u64(r), rng_u64(r), (uint32_t)rng_u64(r) };
        block_prev_write(&m.prev[i], m.mem, n_frames, i);
    }
    block_head_write(&m.head, m.salt, m.mem);
    return m;
}

static int read_head(const struct made *m, struct block_head *h, uint64_t left)
{
    return block_head_read(h, &m->head.store, INCARNATION, m->salt, m->mem, left);
}

/* Header and body: what recovery asks before it believes a block. */
static int read_whole(const struct made *m)
{
    struct block_head h;
    int rc = read_head(m, &h, m->head.block_bytes);

    return rc < 0 ? rc : block_body_check(&h, m->mem);
}

static void put_u32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* The right head hash, as the document has it, for a block that was changed: a hostile writer. */
static void reseal(struct made *m, uint64_t head_end)
{
    uint64_t sum = sum_xxh3(m->mem + 16, head_end - 16, m->salt ^ m->head.lsn);

    put_u32(m->mem + 8, (uint32_t)sum);
    put_u32(m->mem + 12, (uint32_t)(sum >> 32));
}

static void test_block_is_read_as_written(void)
{
    struct rng r;

    rng_seed(&r, 1);
    for (unsigned n = 0; n < 300; n++) {
        struct made m = block_random(&r, (uint32_t)rng_below(&r, MAX_LISTED + 1),
                                     (uint32_t)rng_below(&r, MAX_LISTED + 1));
        struct block_head h;

        REQUIRE(read_head(&m, &h, m.head.block_bytes) == 0);
        CHECK_EQ(block_body_check(&h, m.mem), 0);
        CHECK(h.hash == m.head.hash && h.lsn == m.head.lsn && h.prev_hash == m.head.prev_hash);
        CHECK(h.durable_lsn == m.head.durable_lsn && h.next_place == m.head.next_place);
        CHECK(h.block_bytes == m.head.block_bytes && h.body_bytes == m.head.body_bytes);
        CHECK(h.n_frames == m.head.n_frames && h.n_prev == m.head.n_prev && h.n_placements == 0);
        CHECK(h.flags == m.head.flags && h.written == m.head.written);
        CHECK(h.prev_lsn == m.head.prev_lsn && h.incarnation == INCARNATION);
        for (uint32_t i = 0; i < h.n_frames; i++) {
            struct block_dir d, *w = &m.dir[i];

            block_dir_read(&d, m.mem, i);
            CHECK(d.group == w->group && d.epoch == w->epoch && d.entry == w->entry);
            CHECK(d.pos == w->pos && d.bytes == w->bytes && d.n_offsets == w->n_offsets);
            CHECK(d.hash == w->hash);
        }
        for (uint32_t i = 0; i < h.n_prev; i++) {
            struct block_prev p;

            block_prev_read(&p, m.mem, h.n_frames, i);
            CHECK(p.group == m.prev[i].group && p.last_entry == m.prev[i].last_entry);
            CHECK(p.n_offsets == m.prev[i].n_offsets);
        }
        free(m.mem);
    }
}

static void test_block_is_laid_out_as_documented(void)
{
    struct block_head h = { .incarnation = 5,
                            .lsn = 0x0000000000013000,
                            .durable_lsn = 6,
                            .block_bytes = PAGE_BYTES,
                            .body_bytes = 128 + 48 + 24,
                            .next_place = UINT64_MAX,
                            .n_frames = 1,
                            .n_prev = 1,
                            .flags = BLOCK_OPENING,
                            .prev_lsn = 9 };
    struct block_dir d = { 2, 3, 4, 208, 8, 7, 1 };
    struct block_prev p = { 11, 12, 13 };
    uint8_t mem[PAGE_BYTES] = { 0 };
    uint64_t sum;

    block_dir_write(&d, mem, 0);
    block_prev_write(&p, mem, 1, 0);
    block_head_write(&h, 0x55, mem);
    sum = sum_xxh3(mem + 16, 200 - 16, 0x55 ^ 0x13000);
    CHECK(h.hash == sum && memcmp(mem + 8, &(uint64_t){ htole64(sum) }, 8) == 0);
    CHECK(memcmp(mem, "WBLK\x01\0\0\0", 8) == 0);
    CHECK(mem[32] == 5 && mem[41] == 0x30 && mem[42] == 1 && mem[56] == 6 && mem[65] == 0x10);
    CHECK(mem[68] == 200 && mem[72] == 0xff && mem[80] == 1 && mem[84] == 1 && mem[88] == 0);
    CHECK(mem[92] == 2 && mem[104] == 9 && bytes_are_zero(mem + 112, 16));
    CHECK(mem[128] == 2 && mem[136] == 3 && mem[144] == 4 && mem[152] == 208 && mem[156] == 8);
    CHECK(mem[160] == 7 && mem[168] == 1);
    CHECK(mem[176] == 11 && mem[184] == 12 && mem[192] == 13);
    CHECK_EQ(block_frames_pos(2, 3, 4), 128 + 2 * 48 + 3 * 24 + 4 * 40);
}

static void test_every_flipped_bit_is_refused(void)
{
    struct rng r;
    struct made m;

    rng_seed(&r, 2);
    m = block_random(&r, 3, 2);
    REQUIRE(read_whole(&m) == 0);
    for (uint32_t bit = 0; bit < m.head.block_bytes * 8; bit++) {
        m.mem[bit / 8] ^= (uint8_t)(1 << bit % 8);
        REQUIRE(read_whole(&m) == E_CORRUPT);
        m.mem[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK_EQ(read_whole(&m), 0);
    free(m.mem);
}

static void test_every_truncation_is_refused(void)
{
    struct rng r;
    struct made m;

    rng_seed(&r, 3);
    m = block_random(&r, 4, 4);
    for (uint32_t left = 0; left < m.head.block_bytes; left += left < 1000 ? 1 : 61) {
        struct made part = m;
        struct block_head h;

        part.mem = malloc(left + 1);
        memcpy(part.mem, m.mem, left);
        REQUIRE(read_head(&part, &h, left) == E_CORRUPT);
        free(part.mem);
    }
    free(m.mem);
}

static void test_block_of_another_time_or_store_is_refused(void)
{
    struct rng r;
    struct made m;
    struct block_head h;
    struct uuid other;

    rng_seed(&r, 4);
    m = block_random(&r, 1, 1);
    other = m.head.store;
    other.bytes[15] ^= 1;
    CHECK_EQ(block_head_read(&h, &m.head.store, INCARNATION, m.salt, m.mem, m.head.block_bytes), 0);
    CHECK_EQ(block_head_read(&h, &other, INCARNATION, m.salt, m.mem, m.head.block_bytes),
             E_CORRUPT);
    CHECK_EQ(block_head_read(&h, &m.head.store, INCARNATION + 1, m.salt, m.mem, m.head.block_bytes),
             E_CORRUPT);
    CHECK_EQ(block_head_read(&h, &m.head.store, INCARNATION, m.salt + 1, m.mem, m.head.block_bytes),
             E_CORRUPT);
    free(m.mem);
}

static void test_another_version_is_no_block(void)
{
    struct rng r;
    struct made m;

    rng_seed(&r, 5);
    m = block_random(&r, 1, 0);
    for (unsigned v = 0; v < 256; v++) {
        m.mem[4] = (uint8_t)v;
        CHECK_EQ(read_whole(&m), v == 1 ? 0 : E_CORRUPT);
    }
    free(m.mem);
}

static void test_lies_in_the_header_never_lead_outside(void)
{
    static const uint32_t places[] = { 64, 68, 80, 84, 88 };
    static const uint32_t lies[] = {
        0, 1, 7, 200, 4095, 4097, 0x101000, 0x1fffff, 89478485, 1u << 31, 0xfffff000, UINT32_MAX
    };
    struct rng r;
    struct made m;

    rng_seed(&r, 6);
    m = block_random(&r, 2, 2);
    for (unsigned p = 0; p < sizeof places / sizeof places[0]; p++) {
        for (unsigned i = 0; i < sizeof lies / sizeof lies[0]; i++) {
            uint8_t before[4];
            struct block_head h;

            memcpy(before, m.mem + places[p], 4);
            put_u32(m.mem + places[p], lies[i]);
            if (memcmp(before, m.mem + places[p], 4) != 0)
                CHECK_EQ(read_head(&m, &h, m.head.block_bytes), E_CORRUPT);
            memcpy(m.mem + places[p], before, 4);
        }
    }
    CHECK_EQ(read_whole(&m), 0);
    free(m.mem);
}

/* A writer gone mad: any directory, under a right head hash. The body check must stay inside. */
static void test_lies_in_the_directory_never_lead_outside(void)
{
    struct rng r;
    unsigned refused = 0;

    rng_seed(&r, 7);
    for (unsigned n = 0; n < 3000; n++) {
        struct made m = block_random(&r, 3, 0);
        uint32_t i = (uint32_t)rng_below(&r, 3);
        struct block_dir d = m.dir[i];
        uint32_t *field = rng_chance(&r, 1, 2) ? &d.pos : &d.bytes, before = *field;

        *field = rng_chance(&r, 1, 2) ? (uint32_t)rng_u64(&r)
                                      : (uint32_t)rng_below(&r, m.head.block_bytes + 100);
        block_dir_write(&d, m.mem, i);
        reseal(&m, block_frames_pos(3, 0, 0));
        if (*field != before) {
            CHECK_EQ(read_whole(&m), E_CORRUPT);
            refused++;
        }
        free(m.mem);
    }
    CHECK(refused > 2900);
}

TEST_MAIN(T(block_is_read_as_written) T(block_is_laid_out_as_documented)
              T(every_flipped_bit_is_refused) T(every_truncation_is_refused)
                  T(block_of_another_time_or_store_is_refused) T(another_version_is_no_block)
                      T(lies_in_the_header_never_lead_outside)
                          T(lies_in_the_directory_never_lead_outside))
