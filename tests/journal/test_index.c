/* The index of a shard's runs in the live WAL, against a plain list. */
#include "base/rng.h"
#include "journal/index.h"
#include "tests/check.h"

enum { MODEL_MAX = 4096, ROUNDS = 200, OPS = 400 };

struct model {
    struct index_entry list[MODEL_MAX];
    uint32_t n;
};

static void model_drop(struct model *m, uint32_t n)
{
    m->n -= n;
    memmove(m->list, m->list + n, m->n * sizeof m->list[0]);
}

/* The first entry that is not wholly below offset, by looking at all. */
static uint32_t model_find(const struct model *m, uint64_t offset)
{
    uint32_t i = 0;

    while (i < m->n && offset >= m->list[i].base + m->list[i].n_offsets)
        i++;
    return i;
}

static bool same(const struct index *x, const struct model *m)
{
    if (index_count(x) != m->n)
        return false;
    for (uint32_t i = 0; i < m->n; i++)
        if (memcmp(index_at(x, i), &m->list[i], sizeof m->list[i]) != 0)
            return false;
    return true;
}

/* Adds a run, after a gap now and then: offsets that were lost. */
static void add_some(struct rng *r, struct index *x, struct model *m, struct index_entry *last)
{
    struct index_entry n;

    memset(&n, 0, sizeof n);
    n.base = last->base + last->n_offsets + (rng_chance(r, 1, 8) ? rng_below(r, 50) : 0);
    n.lsn = last->lsn + 1 + rng_below(r, 10000);
    n.n_offsets = 1 + (uint32_t)rng_below(r, 20);
    n.bytes = 61 + (uint32_t)rng_below(r, 1000);
    n.max_ts = (int64_t)rng_below(r, 1000) - 500;
    index_add(x, &n);
    m->list[m->n++] = n;
    *last = n;
}

static void drop_some(struct rng *r, struct index *x, struct model *m,
                      const struct index_entry *last)
{
    uint64_t offset = rng_below(r, last->base + 100), lsn = rng_below(r, last->lsn + 100);
    uint32_t n = 0;

    if (rng_chance(r, 1, 2)) {
        n = model_find(m, offset);
        CHECK_EQ(index_drop_offset(x, offset), n);
    } else {
        while (n < m->n && m->list[n].lsn < lsn)
            n++;
        CHECK_EQ(index_drop_lsn(x, lsn), n);
    }
    model_drop(m, n);
}

static void test_random_adds_drops_and_finds_match_a_plain_list(void)
{
    static struct model m;
    struct rng r;

    rng_seed(&r, 1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct index x = { 0 };
        struct index_entry last = { .base = 0, .lsn = 4096 };
        unsigned drops = 1 + (unsigned)rng_below(&r, 12);

        m.n = 0;
        for (unsigned i = 0; i < OPS; i++) {
            if (rng_below(&r, 40) < drops)
                drop_some(&r, &x, &m, &last);
            else
                add_some(&r, &x, &m, &last);
            for (unsigned k = 0; k < 3; k++) {
                uint64_t offset = rng_below(&r, last.base + 40);

                CHECK_EQ(index_find(&x, offset), model_find(&m, offset));
            }
            CHECK(same(&x, &m));
        }
        index_free(&x);
    }
}

static void test_find_gives_the_entry_after_a_gap(void)
{
    struct index x = { 0 };

    index_add(&x, &(struct index_entry){ .base = 5, .n_offsets = 5, .lsn = 100 });
    index_add(&x, &(struct index_entry){ .base = 20, .n_offsets = 1, .lsn = 200 });
    CHECK_EQ(index_find(&x, 0), 0);
    CHECK_EQ(index_find(&x, 5), 0);
    CHECK_EQ(index_find(&x, 9), 0);
    CHECK_EQ(index_find(&x, 10), 1); /* one past the first run */
    CHECK_EQ(index_find(&x, 19), 1);
    CHECK_EQ(index_find(&x, 20), 1);
    CHECK_EQ(index_find(&x, 21), 2); /* none */
    index_free(&x);
}

static void test_drops_keep_an_entry_that_is_only_partly_below(void)
{
    struct index x = { 0 };

    index_add(&x, &(struct index_entry){ .base = 0, .n_offsets = 10, .lsn = 100 });
    CHECK_EQ(index_drop_offset(&x, 9), 0);
    CHECK_EQ(index_drop_lsn(&x, 100), 0);
    CHECK_EQ(index_count(&x), 1);
    CHECK_EQ(index_drop_lsn(&x, 101), 1);
    index_free(&x);
}

static void test_an_emptied_index_keeps_no_memory(void)
{
    struct index x = { 0 };

    for (uint64_t i = 0; i < 100; i++)
        index_add(&x, &(struct index_entry){ .base = i, .n_offsets = 1, .lsn = i + 1 });
    CHECK_EQ(index_drop_offset(&x, 100), 100);
    CHECK(x.list == NULL);
    CHECK_EQ(x.cap, 0);
    index_add(&x, &(struct index_entry){ .base = 100, .n_offsets = 1, .lsn = 200 });
    CHECK_EQ(index_find(&x, 100), 0);
    index_free(&x);
    index_free(&x);
}

TEST_MAIN(T(random_adds_drops_and_finds_match_a_plain_list) T(find_gives_the_entry_after_a_gap)
              T(drops_keep_an_entry_that_is_only_partly_below) T(an_emptied_index_keeps_no_memory))
