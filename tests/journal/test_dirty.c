/* The lists of shards that have something that rows do not have. */
#include <stdlib.h>

#include "base/rng.h"
#include "journal/core.h"
#include "tests/check.h"

enum { LOG2 = 16, SHARDS = 50, ROUNDS = 3000, ENTRY_BYTES = 5000 };

struct seen {
    unsigned times[SHARDS];
};

static void see(void *ctx, struct shard *s)
{
    ((struct seen *)ctx)->times[s->id]++;
}

static void add_entry(struct shard *s, uint64_t lsn)
{
    index_add(&s->index,
              &(struct index_entry){ .base = s->next++, .lsn = lsn, .n_offsets = 1, .bytes = 1 });
}

static void write_some(struct dirty *d, struct shard *shards, struct rng *rng, uint64_t *lsn)
{
    for (uint64_t n = rng_below(rng, 200); n > 0; n--) {
        struct shard *s = &shards[rng_below(rng, SHARDS)];

        add_entry(s, *lsn);
        *lsn += 1 + rng_below(rng, ENTRY_BYTES);
        if (!s->dirty)
            dirty_add(d, s);
        s->dirty = true;
    }
}

/* Whoever has an entry in the round is seen, and nobody twice. */
static void check_seen(struct dirty *d, const struct shard *shards, uint64_t end_lsn)
{
    struct seen seen = { 0 };

    struct dirty_walk w = { .end_lsn = end_lsn };

    while (dirty_some(d, &w, see, &seen))
        ;
    for (unsigned i = 0; i < SHARDS; i++) {
        const struct shard *s = &shards[i];
        bool must = s->dirty && index_count(&s->index) > 0 && index_at(&s->index, 0)->lsn < end_lsn;

        CHECK(seen.times[i] <= (s->dirty ? 1u : 0u));
        CHECK(!must || seen.times[i] == 1);
    }
}

static void let_go(struct dirty *d, uint64_t end_lsn)
{
    struct shard *list = dirty_take(d, end_lsn);

    while (list) {
        struct shard *s = list;

        list = s->dirty_next;
        index_drop_lsn(&s->index, end_lsn);
        s->dirty = index_count(&s->index) > 0;
        if (s->dirty)
            dirty_add(d, s);
    }
}

/* Rounds as destage makes them, some of which fail, with trims between; far more WAL than there are
 * lists. */
static void test_a_round_comes_by_every_shard_with_something_in_it(void)
{
    struct shard *shards = calloc(SHARDS, sizeof *shards);
    struct dirty d = { .log2 = LOG2 };
    uint64_t lsn = 4096, done = 0;
    struct rng rng;

    rng_seed(&rng, 5);
    for (unsigned i = 0; i < SHARDS; i++)
        shards[i].id = i;
    for (unsigned r = 0; r < ROUNDS; r++) {
        uint64_t end;
        struct shard *s = &shards[rng_below(&rng, SHARDS)];

        write_some(&d, shards, &rng, &lsn);
        index_drop_offset(&s->index, s->next - rng_below(&rng, 3) % (s->next + 1));
        end = done + rng_below(&rng, lsn - done + 1);
        check_seen(&d, shards, end);
        if (rng_below(&rng, 4) == 0)
            continue; /* it failed */
        write_some(&d, shards, &rng, &lsn);
        let_go(&d, end);
        done = end;
    }
    CHECK(lsn >> LOG2 > 3000);
    let_go(&d, UINT64_MAX);
    check_seen(&d, shards, UINT64_MAX);
    for (unsigned i = 0; i < SHARDS; i++)
        CHECK(!shards[i].dirty);
    dirty_free(&d);
    free(shards);
}

static void test_a_round_does_not_look_at_shards_that_come_later(void)
{
    struct shard shards[3] = { { .id = 0 }, { .id = 1 }, { .id = 2 } };
    struct dirty d = { .log2 = LOG2 };
    struct dirty_walk w = { .end_lsn = 1 << LOG2 };
    struct seen seen = { 0 };

    for (unsigned i = 0; i < 3; i++) {
        add_entry(&shards[i], 4096 + ((uint64_t)i << (LOG2 + 1)));
        dirty_add(&d, &shards[i]);
    }
    while (dirty_some(&d, &w, see, &seen))
        ;
    CHECK_EQ(seen.times[0], 1);
    CHECK_EQ(seen.times[1] + seen.times[2], 0);
    CHECK(dirty_take(&d, 1 << LOG2) == &shards[0]);
    CHECK(!shards[0].dirty_next);
    CHECK(dirty_take(&d, UINT64_MAX) != NULL);
    for (unsigned i = 0; i < 3; i++)
        index_free(&shards[i].index);
    dirty_free(&d);
}

TEST_MAIN(T(a_round_comes_by_every_shard_with_something_in_it)
              T(a_round_does_not_look_at_shards_that_come_later))
