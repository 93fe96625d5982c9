#include "base/buf.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "tests/check.h"

static void test_new_gives_one_reference_and_room(void)
{
    struct buf *b = buf_new(1000);

    REQUIRE(b != NULL);
    CHECK_EQ(b->refs, 1);
    CHECK_EQ(b->len, 0);
    CHECK_EQ(b->cap, 1000);
    memset(b->mem, 0xab, 1000); /* the sanitizer sees a byte too few */
    buf_unref(b);
}

static void test_aligned_is_aligned_and_rounded_up(void)
{
    static const struct {
        size_t ask, cap;
    } rows[] = { { 0, 0 }, { 1, 4096 }, { 4096, 4096 }, { 4097, 8192 }, { 1 << 20, 1 << 20 } };

    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf *b = buf_new_aligned(rows[i].ask);

        REQUIRE(b != NULL);
        CHECK_EQ((uintptr_t)b->mem % BUF_ALIGN, 0);
        CHECK_EQ(b->cap, rows[i].cap);
        memset(b->mem, 1, b->cap);
        buf_unref(b);
    }
}

static void test_copy_holds_the_bytes(void)
{
    char text[] = "some bytes";
    struct buf *b = buf_copy(text, sizeof text), *empty = buf_copy(NULL, 0);

    REQUIRE(b && empty);
    memset(text, 0, sizeof text);
    CHECK_EQ(b->len, 11);
    CHECK(strcmp((char *)b->mem, "some bytes") == 0);
    CHECK_EQ(empty->len, 0);
    buf_unref(b);
    buf_unref(empty);
}

static void test_more_than_two_gib_is_refused(void)
{
    uint64_t before = buf_total_bytes();

    CHECK(buf_new(((size_t)1 << 31) + 1) == NULL);
    CHECK(buf_new_aligned(((size_t)1 << 31) + 1) == NULL);
    CHECK(buf_new(SIZE_MAX) == NULL);
    CHECK_EQ(buf_total_bytes(), before);
}

static void test_total_follows_live_buffers(void)
{
    uint64_t before = buf_total_bytes();
    struct buf *a = buf_new(100), *b = buf_new_aligned(5000);

    CHECK_EQ(buf_total_bytes() - before, 100 + 8192);
    buf_ref(a);
    buf_unref(a);
    CHECK_EQ(buf_total_bytes() - before, 100 + 8192);
    buf_unref(a);
    CHECK_EQ(buf_total_bytes() - before, 8192);
    buf_unref(b);
    CHECK_EQ(buf_total_bytes(), before);
    buf_unref(NULL);
}

enum { SHARERS = 4, ROUNDS = 20000 };

static void *share(void *arg)
{
    struct buf *b = arg;
    bool intact;

    for (int i = 0; i < ROUNDS; i++)
        buf_unref(buf_ref(b));
    intact = b->mem[0] == 9; /* freed too early, the sanitizer sees it */
    buf_unref(b);
    return intact ? arg : NULL;
}

static void test_the_last_of_many_threads_frees(void)
{
    uint64_t before = buf_total_bytes();
    struct buf *b = buf_new(4096);
    pthread_t threads[SHARERS];
    void *intact[SHARERS];

    b->mem[0] = 9;
    for (int i = 1; i < SHARERS; i++)
        buf_ref(b);
    CHECK_EQ(b->refs, SHARERS);
    for (int i = 0; i < SHARERS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, share, b) == 0);
    for (int i = 0; i < SHARERS; i++)
        pthread_join(threads[i], &intact[i]);
    for (int i = 0; i < SHARERS; i++)
        CHECK(intact[i] != NULL);
    CHECK_EQ(buf_total_bytes(), before);
}

static void test_mem_is_zeroed_grows_and_copies(void)
{
    unsigned char *p = mem_new(300);
    char *s = mem_str("name");
    int sum = 0;

    for (int i = 0; i < 300; i++)
        sum += p[i];
    CHECK_EQ(sum, 0);
    p[299] = 7;
    p = mem_grow(p, 100000);
    CHECK_EQ(p[299], 7);
    p[99999] = 1;
    CHECK(strcmp(s, "name") == 0);
    free(p);
    free(s);
    p = mem_new(0);
    CHECK(p != NULL);
    p = mem_grow(p, 0);
    CHECK(p != NULL);
    free(p);
}

TEST_MAIN(T(new_gives_one_reference_and_room) T(aligned_is_aligned_and_rounded_up)
              T(copy_holds_the_bytes) T(more_than_two_gib_is_refused) T(total_follows_live_buffers)
                  T(the_last_of_many_threads_frees) T(mem_is_zeroed_grows_and_copies))
