/* Intents: what is written is read, and nothing else is. */
#include "format/intent.h"

#include "base/rng.h"
#include "tests/check.h"

enum {
    CHANGES = 40,
    ROOM = INTENT_HEAD_BYTES + CHANGES * (INTENT_CHANGE_BYTES + INTENT_POLICY_BYTES)
};

static uint8_t mem[ROOM];

static struct intent_change change_random(struct rng *r)
{
    struct intent_change c = { .op = INTENT_CREATE + (enum intent_op)rng_below(r, 3),
                               .kind = (uint8_t)rng_u64(r),
                               .class = (uint8_t)rng_u64(r),
                               .has_policy = rng_chance(r, 1, 2),
                               .shard = rng_u64(r) };

    if (c.has_policy)
        c.policy =
            (struct row_policy){ (uint32_t)rng_u64(r), (int64_t)rng_u64(r), (int64_t)rng_u64(r),
                                 (int64_t)rng_u64(r), (int64_t)rng_u64(r) };
    return c;
}

static bool same(const struct intent_change *a, const struct intent_change *b)
{
    return a->op == b->op && a->kind == b->kind && a->class == b->class &&
           a->has_policy == b->has_policy && a->shard == b->shard &&
           a->policy.flags == b->policy.flags && a->policy.retention_ms == b->policy.retention_ms &&
           a->policy.retention_bytes == b->policy.retention_bytes &&
           a->policy.min_compaction_lag_ms == b->policy.min_compaction_lag_ms &&
           a->policy.delete_retention_ms == b->policy.delete_retention_ms;
}

static void test_changes_are_read_as_written(void)
{
    struct intent_change list[CHANGES], got;
    struct rng r;

    rng_seed(&r, 1);
    for (unsigned n = 0; n <= CHANGES; n++) {
        struct wr w = wr_of(mem, sizeof mem);
        struct rd in;
        uint32_t count;

        intent_head_write(&w, n);
        for (unsigned i = 0; i < n; i++) {
            list[i] = change_random(&r);
            intent_change_write(&w, &list[i]);
        }
        REQUIRE(wr_ok(&w));
        in = rd_of(mem, wr_used(&w));
        REQUIRE(intent_head_read(&in, &count) == 0);
        CHECK_EQ(count, n);
        for (unsigned i = 0; i < n; i++) {
            REQUIRE(intent_change_read(&in, &got) == 0);
            CHECK(same(&list[i], &got));
        }
        CHECK_EQ(rd_left(&in), 0);
    }
}

static void test_an_intent_is_laid_out_as_documented(void)
{
    struct intent_change c = { .op = INTENT_DELETE,
                               .kind = 1,
                               .class = 1,
                               .has_policy = true,
                               .shard = 0x0102030405060708,
                               .policy = { 7, 1, 2, 3, 4 } };
    struct wr w = wr_of(mem, sizeof mem);

    intent_head_write(&w, 1);
    intent_change_write(&w, &c);
    CHECK_EQ(wr_used(&w), 8 + 48);
    CHECK(memcmp(mem, "\1\0\0\0\1\0\0\0\2\1\1\1\x08\x07\x06\x05\x04\x03\x02\x01\x07\0\0\0\1\0",
                 26) == 0);
    CHECK(mem[32] == 2 && mem[40] == 3 && mem[48] == 4);
}

static void test_what_makes_no_sense_is_refused(void)
{
    struct intent_change c = { .op = INTENT_CREATE, .shard = 16 };
    struct wr w = wr_of(mem, sizeof mem);
    struct rd in;
    uint32_t n;

    intent_head_write(&w, 1);
    intent_change_write(&w, &c);
    for (size_t cut = 0; cut < wr_used(&w); cut++) {
        in = rd_of(mem, cut);
        CHECK_EQ(intent_head_read(&in, &n), E_CORRUPT);
    }
    mem[0] = 2;
    in = rd_of(mem, wr_used(&w));
    CHECK_EQ(intent_head_read(&in, &n), E_VERSION);
    mem[0] = 1;
    for (unsigned op = 0; op < 256; op++) {
        mem[8] = (uint8_t)op;
        in = rd_of(mem + 8, wr_used(&w) - 8);
        CHECK_EQ(intent_change_read(&in, &c), op >= 1 && op <= 3 ? 0 : E_CORRUPT);
    }
    mem[8] = 1;
    for (unsigned has = 1; has < 256; has++) { /* 1: the policy is not there */
        mem[11] = (uint8_t)has;
        in = rd_of(mem + 8, wr_used(&w) - 8);
        CHECK_EQ(intent_change_read(&in, &c), E_CORRUPT);
    }
}

TEST_MAIN(T(changes_are_read_as_written) T(an_intent_is_laid_out_as_documented)
              T(what_makes_no_sense_is_refused))
