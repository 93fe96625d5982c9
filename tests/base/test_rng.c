#include "base/rng.h"

#include "tests/check.h"

/* The reference sequence of xoshiro256** from the state 1, 2, 3, 4. */
static void test_sequence_is_xoshiro256(void)
{
    static const uint64_t want[] = { 11520,
                                     0,
                                     1509978240,
                                     1215971899390074240,
                                     1216172134540287360,
                                     607988272756665600,
                                     16172922978634559625u,
                                     8476171486693032832 };
    struct rng r = { { 1, 2, 3, 4 } };

    for (unsigned i = 0; i < sizeof want / sizeof want[0]; i++)
        CHECK(rng_u64(&r) == want[i]);
}

/* The reference sequence of splitmix64 for the seed 1234567. */
static void test_seed_is_spread_by_splitmix64(void)
{
    struct rng r;

    rng_seed(&r, 1234567);
    CHECK(r.s[0] == 6457827717110365317u);
    CHECK(r.s[1] == 3203168211198807973u);
    CHECK(r.s[2] == 9817491932198370423u);
    CHECK(r.s[3] == 4593380528125082431u);
}

static void test_below_stays_below_and_meets_all(void)
{
    unsigned seen[7] = { 0 };
    struct rng r;

    rng_seed(&r, 7);
    for (int i = 0; i < 7000; i++) {
        uint64_t v = rng_below(&r, 7);

        REQUIRE(v < 7);
        seen[v]++;
    }
    /* 1000 expected; 6 standard deviations (29.3 each) on either side. */
    for (int i = 0; i < 7; i++)
        CHECK(seen[i] > 824 && seen[i] < 1176);
    CHECK_EQ(rng_below(&r, 1), 0);
    for (int i = 0; i < 100; i++)
        CHECK(rng_below(&r, UINT64_MAX) < UINT64_MAX);
}

static void test_chance_keeps_its_rate(void)
{
    unsigned hits = 0;
    struct rng r;

    rng_seed(&r, 9);
    for (int i = 0; i < 10000; i++) {
        hits += rng_chance(&r, 1, 4);
        CHECK(!rng_chance(&r, 0, 4));
        CHECK(rng_chance(&r, 4, 4));
    }
    CHECK(hits > 2240 && hits < 2760); /* 2500, 6 standard deviations of 43.3 */
}

static void test_system_seeds_differ(void)
{
    struct rng a, b;

    rng_seed_system(&a);
    rng_seed_system(&b);
    CHECK(memcmp(&a, &b, sizeof a) != 0);
}

TEST_MAIN(T(sequence_is_xoshiro256) T(seed_is_spread_by_splitmix64)
              T(below_stays_below_and_meets_all) T(chance_keeps_its_rate) T(system_seeds_differ))
