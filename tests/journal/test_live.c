/* What is alive in segments. That an empty one is dropped is seen in test_compact, test_retention and
 * the simulator. */
#include "journal/live.h"

#include <stdlib.h>

#include "journal/io/rows.h"
#include "tests/check.h"
#include "tests/sim/jrn_bare.h"

enum { SEGMENT = 0x900000001, NOWHERE = 0x900000099 };

static void table_fill(struct jrn_bare *b, unsigned n, uint64_t live)
{
    const struct row_segment row = { .group = 2 };

    for (unsigned i = 0; i < n; i++)
        segments_add(&b->st->segments, SEGMENT + i, &row)->live = live;
}

static uint64_t live_of(struct jrn_bare *b, uint64_t segment)
{
    struct segment *s = segment_pin(&b->st->segments, segment);
    uint64_t live = s->live;

    segment_unpin(&b->st->segments, s);
    return live;
}

/* What the rows say once the batch is written; UINT64_MAX: nothing. */
static uint64_t row_of(struct rows *rows, const struct rows_batch *b, uint64_t segment)
{
    uint8_t key[ROW_KEY_MAX], *mem;
    uint64_t live;
    size_t bytes;
    int rc;

    REQUIRE(rows_write(rows, b, 0) >= 0);
    rc = rows_get(rows, key, row_key(key, ROW_LIVE, segment), &mem, &bytes);
    if (rc == E_NOTFOUND)
        return UINT64_MAX;
    REQUIRE(rc >= 0);
    REQUIRE(row_u64_read(&live, mem, bytes) >= 0);
    free(mem);
    return live;
}

static void test_what_a_segment_loses_is_put_together_and_subtracted_once(void)
{
    struct live_loss l = { 0 };
    struct rows_batch b = { 0 };
    struct rows *rows;
    struct jrn_bare t;

    jrn_bare_init(&t, 1, 0);
    REQUIRE(rows_mem_open(&rows, NULL) >= 0);
    table_fill(&t, 3, 1000);
    live_lose(&l, SEGMENT, 10);
    live_lose(&l, SEGMENT + 1, 200);
    live_lose(&l, NOWHERE, 5);
    live_lose(&l, SEGMENT, 30);
    CHECK_EQ(live_lost_bytes(&l), 245);
    CHECK_EQ(live_of(&t, SEGMENT), 1000); /* not yet */
    live_subtract(&l, t.st, &b);
    CHECK_EQ(live_of(&t, SEGMENT), 960);
    CHECK_EQ(live_of(&t, SEGMENT + 1), 800);
    CHECK_EQ(live_of(&t, SEGMENT + 2), 1000);
    CHECK_EQ(b.n, 2);
    CHECK_EQ(row_of(rows, &b, SEGMENT), 960);
    CHECK_EQ(row_of(rows, &b, SEGMENT + 1), 800);
    CHECK_EQ(row_of(rows, &b, SEGMENT + 2), UINT64_MAX);
    CHECK_EQ(row_of(rows, &b, NOWHERE), UINT64_MAX);
    live_loss_free(&l);
    rows_batch_free(&b);
    rows_close(rows);
    jrn_bare_fini(&t);
}

static void test_no_segment_falls_below_nothing(void)
{
    struct rows_batch b = { 0 };
    struct live_loss l = { 0 };
    struct rows *rows;
    struct jrn_bare t;

    jrn_bare_init(&t, 2, 0);
    REQUIRE(rows_mem_open(&rows, NULL) >= 0);
    table_fill(&t, 1, 1000);
    live_lose(&l, SEGMENT, 1001);
    live_subtract(&l, t.st, &b);
    CHECK_EQ(live_of(&t, SEGMENT), 0);
    CHECK_EQ(row_of(rows, &b, SEGMENT), 0);
    live_loss_free(&l);
    rows_batch_free(&b);
    rows_close(rows);
    jrn_bare_fini(&t);
}

TEST_MAIN(T(what_a_segment_loses_is_put_together_and_subtracted_once)
              T(no_segment_falls_below_nothing))
