/* The cache of recent blocks, against a plain list. */
#include "base/rng.h"
#include "journal/cache.h"
#include "tests/check.h"

enum { MODEL_MAX = 4096, PAGE = 4096 };

struct model {
    uint64_t lsn[MODEL_MAX];
    uint32_t bytes[MODEL_MAX];
    uint32_t first, n; /* kept: first .. n */
    uint64_t max;
};

static uint8_t byte_at(uint64_t lsn)
{
    return (uint8_t)(lsn * 2654435761u >> 13);
}

static struct buf *block(uint64_t lsn, uint32_t bytes)
{
    struct buf *b = buf_new_aligned(bytes);

    REQUIRE(b != NULL);
    for (uint32_t i = 0; i < bytes; i++)
        b->mem[i] = byte_at(lsn + i);
    b->len = bytes;
    return b;
}

static void add(struct cache *c, struct model *m, uint64_t lsn, uint32_t bytes)
{
    struct buf *b = block(lsn, bytes);
    uint64_t sum = 0;

    cache_add(c, lsn, b);
    buf_unref(b);
    m->lsn[m->n] = lsn;
    m->bytes[m->n++] = bytes;
    /* As many of the newest as fit, one at least. */
    m->first = m->n - 1;
    for (sum = bytes; m->first > 0 && sum + m->bytes[m->first - 1] <= m->max;)
        sum += m->bytes[--m->first];
}

static bool model_has(const struct model *m, uint64_t lsn, uint32_t bytes)
{
    for (uint32_t i = m->first; i < m->n; i++)
        if (lsn >= m->lsn[i] && lsn + bytes <= m->lsn[i] + m->bytes[i])
            return true;
    return false;
}

static void look(struct cache *c, const struct model *m, uint64_t lsn, uint32_t bytes)
{
    struct slice s = { 0 };
    bool has = cache_get(c, lsn, bytes, &s);

    CHECK_EQ(has, model_has(m, lsn, bytes));
    if (!has)
        return;
    CHECK_EQ(s.len, bytes);
    for (uint32_t i = 0; i < bytes; i += 1 + bytes / 7)
        CHECK_EQ(s.mem[i], byte_at(lsn + i));
    buf_unref(s.buf);
}

static void test_random_adds_and_looks_match_a_plain_list(void)
{
    static struct model m;
    uint64_t before = buf_total_bytes();
    struct rng r;

    rng_seed(&r, 2);
    for (unsigned round = 0; round < 20; round++) {
        struct cache c = { .max_bytes = (1 + rng_below(&r, 200)) * PAGE };
        uint64_t lsn = PAGE;

        m = (struct model){ .max = c.max_bytes };
        for (unsigned i = 0; i < 500; i++) {
            uint32_t bytes = (1 + (uint32_t)rng_below(&r, 6)) * PAGE;

            lsn += rng_chance(&r, 1, 4) ? rng_below(&r, 9) * PAGE : 0; /* other groups' blocks */
            add(&c, &m, lsn, bytes);
            lsn += bytes;
            for (unsigned k = 0; k < 4; k++)
                look(&c, &m, lsn - rng_below(&r, lsn / 2 + 1), 1 + (uint32_t)rng_below(&r, 9000));
            CHECK(c.bytes <= c.max_bytes || c.n == 1);
        }
        cache_free(&c);
        CHECK_EQ(buf_total_bytes(), before);
    }
}

static void test_bytes_across_two_blocks_are_not_cached(void)
{
    static struct model m;
    struct cache c = { .max_bytes = 1 << 20 };

    m = (struct model){ .max = c.max_bytes };
    add(&c, &m, 4096, 4096);
    add(&c, &m, 8192, 4096);
    look(&c, &m, 8191, 1);
    look(&c, &m, 8191, 2);
    look(&c, &m, 8192, 4096);
    look(&c, &m, 8192, 4097);
    look(&c, &m, 4095, 1);
    CHECK(!model_has(&m, 8191, 2)); /* the model says what the name says */
    cache_free(&c);
}

static void test_a_block_larger_than_the_bound_is_kept_alone(void)
{
    static struct model m;
    struct cache c = { .max_bytes = 2 * PAGE };

    m = (struct model){ .max = c.max_bytes };
    add(&c, &m, 4096, PAGE);
    add(&c, &m, 8192, 8 * PAGE);
    CHECK_EQ(c.n, 1);
    look(&c, &m, 4096, 1);
    look(&c, &m, 8192, 8 * PAGE);
    add(&c, &m, 8192 + 8 * PAGE, PAGE);
    CHECK_EQ(c.n, 1);
    look(&c, &m, 8192, 1);
    cache_free(&c);
}

static void test_a_slice_outlives_its_block(void)
{
    struct cache c = { .max_bytes = PAGE };
    struct buf *b = block(4096, PAGE);
    struct slice s = { 0 };

    cache_add(&c, 4096, b);
    buf_unref(b);
    REQUIRE(cache_get(&c, 4100, 100, &s));
    cache_free(&c);
    CHECK_EQ(s.mem[50], byte_at(4150));
    buf_unref(s.buf);
    cache_free(&c);
}

TEST_MAIN(T(random_adds_and_looks_match_a_plain_list) T(bytes_across_two_blocks_are_not_cached)
              T(a_block_larger_than_the_bound_is_kept_alone) T(a_slice_outlives_its_block))
