/* Keys and their latest offsets. */
#include "journal/keymap.h"
#include "tests/check.h"

static const uint64_t seed[2] = { 11, 22 };

static void test_the_highest_offset_of_a_key_stays(void)
{
    struct keymap m;
    uint64_t offset;

    keymap_init(&m, 1 << 20, seed);
    CHECK(!keymap_get(&m, 1, "a", 1, &offset));
    keymap_put(&m, 1, "a", 1, 7);
    keymap_put(&m, 1, "a", 1, 3);
    REQUIRE(keymap_get(&m, 1, "a", 1, &offset));
    CHECK_EQ(offset, 7);
    keymap_put(&m, 1, "a", 1, 9);
    REQUIRE(keymap_get(&m, 1, "a", 1, &offset));
    CHECK_EQ(offset, 9);
    CHECK_EQ(m.n, 1);
    keymap_free(&m);
}

static void test_offset_0_and_the_empty_key_count(void)
{
    struct keymap m;
    uint64_t offset;

    keymap_init(&m, 1 << 20, seed);
    keymap_put(&m, 1, "", 0, 0);
    REQUIRE(keymap_get(&m, 1, "", 0, &offset));
    CHECK_EQ(offset, 0);
    keymap_free(&m);
}

static void test_shards_do_not_share_keys(void)
{
    struct keymap m;
    uint64_t offset;

    keymap_init(&m, 1 << 20, seed);
    keymap_put(&m, 1, "a", 1, 7);
    CHECK(!keymap_get(&m, 2, "a", 1, &offset));
    keymap_free(&m);
}

static void test_many_keys_are_all_found(void)
{
    enum { KEYS = 100000 };
    struct keymap m;
    uint64_t offset;

    keymap_init(&m, (uint64_t)1 << 30, seed);
    for (uint64_t i = 0; i < KEYS; i++)
        keymap_put(&m, 1, &i, sizeof i, i * 2);
    CHECK_EQ(m.n, KEYS);
    for (uint64_t i = 0; i < KEYS; i++) {
        REQUIRE(keymap_get(&m, 1, &i, sizeof i, &offset));
        CHECK_EQ(offset, i * 2);
    }
    for (uint64_t i = KEYS; i < 2 * KEYS; i++)
        CHECK(!keymap_get(&m, 1, &i, sizeof i, &offset));
    keymap_free(&m);
}

static void test_room_is_what_the_bytes_give_and_one_batch_always_fits(void)
{
    struct keymap m;
    uint64_t n = 0;

    keymap_init(&m, 100000, seed);
    CHECK(keymap_room(&m, 1000000)); /* empty: a round must come on */
    while (n == 0 || keymap_room(&m, 1)) {
        keymap_put(&m, 1, &n, sizeof n, n);
        n++;
        REQUIRE(n < 100000);
    }
    CHECK(m.cap * 24 <= 100000); /* a slot is three u64s */
    CHECK(m.cap * 24 > 50000 / 2);
    CHECK(n >= m.cap / 2);
    keymap_free(&m);
}

TEST_MAIN(T(the_highest_offset_of_a_key_stays) T(offset_0_and_the_empty_key_count)
              T(shards_do_not_share_keys) T(many_keys_are_all_found)
                  T(room_is_what_the_bytes_give_and_one_batch_always_fits))
