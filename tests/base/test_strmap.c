#include "base/strmap.h"

#include "base/rng.h"
#include "tests/check.h"

enum { KEYS = 300, STEPS = 60000, KEY_BYTES = 40 };

struct key {
    char mem[KEY_BYTES];
    size_t bytes;
};

static char values[16];

/* Prefixes of one string with zero bytes inside, numbered names, and random bytes; all
 * different. */
static void make_keys(struct key *keys, struct rng *rng)
{
    for (unsigned i = 0; i < KEYS; i++) {
        struct key *k = &keys[i];

        memset(k, 0, sizeof *k);
        if (i < KEY_BYTES) {
            k->bytes = i; /* the empty key too */
        } else if (i < 150) {
            k->bytes = (size_t)snprintf(k->mem, sizeof k->mem, "topic-%u", i);
        } else {
            k->bytes = 16 + rng_below(rng, KEY_BYTES - 16 + 1);
            for (size_t j = 0; j < k->bytes; j++)
                k->mem[j] = (char)rng_u64(rng);
        }
    }
}

static void test_it_agrees_with_a_naive_map(void)
{
    static struct key keys[KEYS];
    void *model[KEYS] = { NULL };
    struct strmap m = { 0 };
    size_t count = 0;
    struct rng rng;

    rng_seed(&rng, 1);
    make_keys(keys, &rng);
    for (int i = 0; i < STEPS; i++) {
        bool putting = rng_chance(&rng, i / 5000 % 2 ? 1 : 3, 4);
        unsigned k = (unsigned)rng_below(&rng, KEYS);
        void *value = &values[rng_below(&rng, 16)];
        struct key key = keys[k]; /* a copy at another place: the map must compare bytes */

        CHECK(strmap_get(&m, key.mem, key.bytes) == model[k]);
        if (putting) {
            CHECK(strmap_put(&m, key.mem, key.bytes, value) == model[k]);
            count += !model[k];
            model[k] = value;
        } else {
            CHECK(strmap_take(&m, key.mem, key.bytes) == model[k]);
            count -= model[k] != NULL;
            model[k] = NULL;
        }
        CHECK_EQ(m.count, count);
        if (i % 500 == 0)
            for (unsigned j = 0; j < KEYS; j++)
                CHECK(strmap_get(&m, keys[j].mem, keys[j].bytes) == model[j]);
    }
    strmap_free(&m);
    CHECK_EQ(m.count, 0);
}

static void test_an_empty_map_answers(void)
{
    struct strmap m = { 0 };
    uint64_t pos = 0;

    CHECK(strmap_get(&m, "a", 1) == NULL);
    CHECK(strmap_take(&m, NULL, 0) == NULL);
    CHECK(!strmap_next(&m, &pos, NULL, NULL, NULL));
    strmap_free(&m);
    strmap_free(&m);
}

static void test_lengths_not_zero_bytes_end_keys(void)
{
    struct strmap m = { 0 };

    strmap_put(&m, "a\0b", 3, &values[0]);
    strmap_put(&m, "a\0c", 3, &values[1]);
    strmap_put(&m, "a", 1, &values[2]);
    strmap_put(&m, NULL, 0, &values[3]);
    CHECK_EQ(m.count, 4);
    CHECK(strmap_get(&m, "a\0b", 3) == &values[0]);
    CHECK(strmap_get(&m, "a\0c", 3) == &values[1]);
    CHECK(strmap_get(&m, "a\0", 2) == NULL);
    CHECK(strmap_get(&m, "abc", 1) == &values[2]);
    CHECK(strmap_get(&m, "", 0) == &values[3]);
    strmap_free(&m);
}

/* Every key once, whichever of the visited are taken, with the walk's own copy of the key. */
static void walk_and_take(struct rng *rng, unsigned n, unsigned take_of_4)
{
    unsigned visits[100] = { 0 }, left = n, number;
    struct strmap m = { 0 };
    const char *key;
    size_t key_bytes;
    uint64_t pos = 0;
    char name[16];

    for (unsigned i = 0; i < n; i++) {
        int bytes = snprintf(name, sizeof name, "%u", i);

        strmap_put(&m, name, (size_t)bytes, &values[i % 16]);
    }
    while (strmap_next(&m, &pos, &key, &key_bytes, NULL)) {
        REQUIRE(sscanf(key, "%u", &number) == 1 && number < n);
        CHECK_EQ(key_bytes, strlen(key));
        visits[number]++;
        if (!rng_chance(rng, take_of_4, 4))
            continue;
        CHECK(strmap_take(&m, key, key_bytes) == &values[number % 16]);
        left--;
    }
    for (unsigned i = 0; i < n; i++)
        CHECK_EQ(visits[i], 1);
    CHECK_EQ(m.count, left);
    strmap_free(&m);
}

static void test_a_walk_meets_each_key_once_while_keys_are_taken(void)
{
    struct rng rng;

    rng_seed(&rng, 2);
    for (unsigned n = 0; n < 100; n++)
        for (unsigned take = 0; take <= 4; take++)
            walk_and_take(&rng, n, take);
}

TEST_MAIN(T(it_agrees_with_a_naive_map) T(an_empty_map_answers) T(lengths_not_zero_bytes_end_keys)
              T(a_walk_meets_each_key_once_while_keys_are_taken))
