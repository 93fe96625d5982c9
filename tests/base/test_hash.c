#include "base/hash.h"

#include "base/rng.h"
#include "tests/check.h"

enum { KEYS = 400, STEPS = 60000 };

static char values[16];

/* Keys that punish a weak hash: near zero, near the top, multiples of large powers of two,
 * random. */
static void make_keys(uint64_t *keys, struct rng *rng)
{
    for (uint64_t i = 0; i < KEYS; i++)
        keys[i] = i < 100   ? i
                  : i < 200 ? UINT64_MAX - (i - 100)
                  : i < 300 ? (i - 199) << 40
                            : rng_u64(rng);
}

static void test_it_agrees_with_a_naive_map(void)
{
    static uint64_t keys[KEYS];
    void *model[KEYS] = { NULL };
    struct hash h = { 0 };
    size_t count = 0;
    struct rng rng;

    rng_seed(&rng, 1);
    make_keys(keys, &rng);
    for (int i = 0; i < STEPS; i++) {
        /* The share of puts swings, so that the map both fills and empties. */
        bool putting = rng_chance(&rng, i / 5000 % 2 ? 1 : 3, 4);
        unsigned k = (unsigned)rng_below(&rng, KEYS);
        void *value = &values[rng_below(&rng, 16)];

        CHECK(hash_get(&h, keys[k]) == model[k]);
        if (putting) {
            CHECK(hash_put(&h, keys[k], value) == model[k]);
            count += !model[k];
            model[k] = value;
        } else {
            CHECK(hash_take(&h, keys[k]) == model[k]);
            count -= model[k] != NULL;
            model[k] = NULL;
        }
        CHECK_EQ(h.count, count);
        if (i % 500 == 0)
            for (unsigned j = 0; j < KEYS; j++)
                CHECK(hash_get(&h, keys[j]) == model[j]);
    }
    hash_free(&h);
    CHECK(hash_get(&h, keys[0]) == NULL);
}

static void test_an_empty_map_answers(void)
{
    struct hash h = { 0 };
    uint64_t pos = 0;

    CHECK(hash_get(&h, 0) == NULL);
    CHECK(hash_take(&h, 0) == NULL);
    CHECK(!hash_next(&h, &pos, NULL, NULL));
    hash_free(&h);
    hash_free(&h);
}

/* Every key once, whichever of the visited are taken on the way. */
static void walk_and_take(struct rng *rng, unsigned n, unsigned take_of_4)
{
    unsigned visits[KEYS] = { 0 }, taken[KEYS] = { 0 };
    struct hash h = { 0 };
    uint64_t pos = 0, key;
    void *value;

    for (uint64_t k = 0; k < n; k++)
        hash_put(&h, k << 33, &values[k % 16]);
    while (hash_next(&h, &pos, &key, &value)) {
        REQUIRE(key >> 33 < n);
        visits[key >> 33]++;
        CHECK(value == &values[(key >> 33) % 16]);
        if (!rng_chance(rng, take_of_4, 4))
            continue;
        CHECK(hash_take(&h, key) == value);
        taken[key >> 33] = 1;
    }
    for (unsigned k = 0; k < n; k++) {
        CHECK_EQ(visits[k], 1);
        CHECK((hash_get(&h, (uint64_t)k << 33) == NULL) == taken[k]);
    }
    hash_free(&h);
}

static void test_a_walk_meets_each_key_once_while_keys_are_taken(void)
{
    struct rng rng;

    rng_seed(&rng, 2);
    for (unsigned n = 0; n < 100; n++)
        for (unsigned take = 0; take <= 4; take++)
            walk_and_take(&rng, n, take);
}

TEST_MAIN(T(it_agrees_with_a_naive_map) T(an_empty_map_answers)
              T(a_walk_meets_each_key_once_while_keys_are_taken))
