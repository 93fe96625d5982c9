/* The cache of what was written to open segments, against a plain list. */
#include "base/rng.h"
#include "journal/run_cache.h"
#include "tests/check.h"

enum { SEGMENTS = 3, PAGE = 4096 };

static uint8_t byte_at(uint64_t segment, uint64_t pos)
{
    return (uint8_t)((segment * 31 + pos) * 2654435761u >> 11);
}

static void add(struct run_cache *c, uint64_t segment, uint64_t pos, uint32_t bytes)
{
    struct buf *b = buf_new_aligned(bytes);

    REQUIRE(b != NULL);
    for (uint32_t i = 0; i < bytes; i++)
        b->mem[i] = byte_at(segment, pos + i);
    run_cache_add(c, segment, pos, b, bytes);
    buf_unref(b);
}

/* Whether it is there; and then it is right. */
static bool has(struct run_cache *c, uint64_t segment, uint64_t pos, uint32_t bytes)
{
    struct slice s = { 0 };

    if (!run_cache_get(c, segment, pos, bytes, &s))
        return false;
    CHECK_EQ(s.len, bytes);
    for (uint32_t i = 0; i < bytes; i += 97)
        CHECK_EQ(s.mem[i], byte_at(segment, pos + i));
    buf_unref(s.buf);
    return true;
}

static void test_any_part_of_a_piece_is_found_and_nothing_across_two(void)
{
    struct run_cache c;

    run_cache_init(&c, 1 << 20);
    add(&c, 5, 0, 2 * PAGE);
    add(&c, 5, 2 * PAGE, PAGE);
    add(&c, 5, 9 * PAGE, 100);
    CHECK(has(&c, 5, 0, 2 * PAGE));
    CHECK(has(&c, 5, 40, 1));
    CHECK(has(&c, 5, 2 * PAGE + 40, PAGE - 40));
    CHECK(has(&c, 5, 9 * PAGE, 100));
    CHECK(!has(&c, 5, 2 * PAGE - 1, 2));
    CHECK(!has(&c, 5, 9 * PAGE, 101));
    CHECK(!has(&c, 5, 4 * PAGE, 1));
    CHECK(!has(&c, 4, 0, 1));
    run_cache_fini(&c);
    CHECK_EQ(buf_total_bytes(), 0);
}

static void test_the_least_recently_used_piece_goes_first(void)
{
    struct run_cache c;

    run_cache_init(&c, 3 * PAGE);
    for (uint64_t i = 0; i < 3; i++)
        add(&c, 7, i * PAGE, PAGE);
    CHECK(has(&c, 7, 0, PAGE)); /* used again */
    add(&c, 8, 0, PAGE);
    CHECK(has(&c, 7, 0, PAGE));
    CHECK(!has(&c, 7, PAGE, PAGE));
    CHECK(has(&c, 7, 2 * PAGE, PAGE));
    CHECK(has(&c, 8, 0, PAGE));
    run_cache_fini(&c);
}

static void test_a_slice_outlives_its_piece(void)
{
    struct run_cache c;
    struct slice s;

    run_cache_init(&c, PAGE);
    add(&c, 7, 0, PAGE);
    REQUIRE(run_cache_get(&c, 7, 100, 200, &s));
    add(&c, 7, PAGE, PAGE);
    CHECK(!has(&c, 7, 0, 1));
    CHECK_EQ(s.mem[0], byte_at(7, 100));
    run_cache_fini(&c);
    CHECK_EQ(s.mem[199], byte_at(7, 299));
    buf_unref(s.buf);
    CHECK_EQ(buf_total_bytes(), 0);
}

static void test_a_piece_larger_than_the_bound_is_kept_alone(void)
{
    struct run_cache c;

    run_cache_init(&c, PAGE);
    add(&c, 1, 0, PAGE);
    add(&c, 2, 0, 4 * PAGE);
    CHECK(!has(&c, 1, 0, 1));
    CHECK(has(&c, 2, PAGE, 3 * PAGE));
    run_cache_fini(&c);
}

/* The bound holds, the newest is always there, and what is found is right. */
static void test_random_work(void)
{
    uint64_t end[SEGMENTS] = { 0 };
    struct run_cache c;
    struct rng r;

    rng_seed(&r, 11);
    run_cache_init(&c, 40 * PAGE);
    for (unsigned n = 0; n < 5000; n++) {
        uint64_t s = rng_below(&r, SEGMENTS);
        uint32_t bytes = 1 + (uint32_t)rng_below(&r, 6 * PAGE);
        uint64_t pos = end[s] + rng_below(&r, 3) * PAGE;

        if (rng_chance(&r, 1, 2)) {
            add(&c, s, pos, bytes);
            CHECK(has(&c, s, pos, bytes));
            end[s] = (pos + bytes + PAGE - 1) / PAGE * PAGE;
        } else {
            has(&c, s, rng_below(&r, end[s] + 1), bytes);
        }
        CHECK(c.bytes <= 40 * PAGE);
    }
    run_cache_fini(&c);
    CHECK_EQ(buf_total_bytes(), 0);
}

TEST_MAIN(T(any_part_of_a_piece_is_found_and_nothing_across_two)
              T(the_least_recently_used_piece_goes_first) T(a_slice_outlives_its_piece)
                  T(a_piece_larger_than_the_bound_is_kept_alone) T(random_work))
