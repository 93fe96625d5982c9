/* Large memory: pieces never overlap, are aligned, come back, and go back to the system. */
#include "base/large.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/rng.h"
#include "tests/check.h"

enum { LIVE = 200, STEPS = 20000, LARGEST = 12 << 20 };

struct piece {
    uint8_t *mem;
    size_t bytes;
    uint8_t mark;
};

/* Marks both ends and the middle: an overlap shows when the marks are looked at again. */
static void piece_new(struct piece *p, size_t bytes, uint8_t mark)
{
    *p = (struct piece){ large_new(bytes), bytes, mark };
    REQUIRE(p->mem != NULL && (uintptr_t)p->mem % 4096 == 0);
    p->mem[0] = p->mem[bytes / 2] = p->mem[bytes - 1] = mark;
}

static bool piece_whole(const struct piece *p)
{
    return p->mem[0] == p->mark && p->mem[p->bytes / 2] == p->mark &&
           p->mem[p->bytes - 1] == p->mark;
}

static size_t any_size(struct rng *r)
{
    uint64_t top = (uint64_t)LARGE_MIN << rng_below(r, 10);

    return LARGE_MIN + (size_t)rng_below(r, top < LARGEST ? top : LARGEST);
}

static void churn(uint64_t seed)
{
    struct piece live[LIVE] = { { 0 } };
    struct rng r;
    unsigned broken = 0;

    rng_seed(&r, seed);
    for (unsigned i = 0; i < STEPS; i++) {
        struct piece *p = &live[rng_below(&r, LIVE)];

        if (p->mem) {
            broken += !piece_whole(p);
            large_free(p->mem, p->bytes);
            p->mem = NULL;
        } else {
            piece_new(p, any_size(&r), (uint8_t)rng_u64(&r));
        }
    }
    for (unsigned i = 0; i < LIVE; i++) {
        if (live[i].mem) {
            broken += !piece_whole(&live[i]);
            large_free(live[i].mem, live[i].bytes);
        }
    }
    CHECK_EQ(broken, 0);
}

static void test_pieces_of_all_sizes_keep_their_bytes(void)
{
    churn(1);
}

static void *churn_thread(void *arg)
{
    churn((uint64_t)(uintptr_t)arg);
    return NULL;
}

static void test_threads_do_not_disturb_each_other(void)
{
    pthread_t t[4];

    for (uintptr_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&t[i], NULL, churn_thread, (void *)(i + 2)) == 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
}

static void test_freed_memory_is_used_again(void)
{
    void *a = large_new(100000), *b;

    large_free(a, 100000);
    b = large_new(100000);
    CHECK(a == b);
    large_free(b, 100000);
}

/* A server whose batches change their size must not ask the system anew for each: the kernel zeroes it. */
static void test_what_one_size_left_serves_another(void)
{
    void *a, *b;
    size_t mapped;

    large_trim();
    a = large_new(100000);
    mapped = large_mapped();
    large_free(a, 100000);
    b = large_new(200000);
    CHECK_EQ(large_mapped(), mapped);
    large_free(b, 200000);
    a = large_new(5 << 20);
    mapped = large_mapped();
    large_free(a, 5 << 20);
    b = large_new((5 << 20) + 400000);
    CHECK_EQ(large_mapped(), mapped);
    large_free(b, (5 << 20) + 400000);
}

static void test_trim_gives_everything_back_that_is_not_in_use(void)
{
    void *kept = large_new(50000), *list[64];
    size_t with_one;

    large_trim();
    with_one = large_mapped();
    CHECK(with_one > 0);
    for (unsigned i = 0; i < 64; i++)
        list[i] = large_new((size_t)60000 * (i + 1));
    CHECK(large_mapped() >= with_one + 60000ul * 64 * 65 / 2);
    for (unsigned i = 0; i < 64; i++)
        large_free(list[i], (size_t)60000 * (i + 1));
    large_trim();
    CHECK_EQ(large_mapped(), with_one);
    large_free(kept, 50000);
    large_trim();
    CHECK_EQ(large_mapped(), 0);
}

TEST_MAIN(T(pieces_of_all_sizes_keep_their_bytes) T(threads_do_not_disturb_each_other)
              T(freed_memory_is_used_again) T(what_one_size_left_serves_another)
                  T(trim_gives_everything_back_that_is_not_in_use))
