/* Idempotent producers: each rule, then random sequences against a list of all that was taken. */
#include <stdlib.h>

#include "base/rng.h"
#include "journal/io/rows_int.h"
#include "journal/producer.h"
#include "tests/check.h"

enum { ID = 7, SHARD = 33 };

static struct batch_head head(int64_t id, int16_t epoch, int32_t sequence, int32_t n)
{
    return (struct batch_head){ .producer_id = id,
                                .producer_epoch = epoch,
                                .base_sequence = sequence,
                                .record_count = n,
                                .last_offset_delta = n - 1 };
}

static int check(struct producers *p, int16_t epoch, int32_t sequence, int32_t n)
{
    struct batch_head h = head(ID, epoch, sequence, n);
    uint64_t offset = 0;

    return producer_check(p, &h, &offset);
}

static void note(struct producers *p, int16_t epoch, int32_t sequence, int32_t n, uint64_t offset)
{
    struct batch_head h = head(ID, epoch, sequence, n);

    producer_note(p, &h, offset, 1000);
}

static void test_batches_without_producer_are_always_new(void)
{
    struct producers p = { 0 };
    struct batch_head h = head(-1, -1, -1, 3);
    uint64_t offset;

    producer_note(&p, &h, 0, 0);
    CHECK_EQ(p.by_id.count, 0);
    CHECK_EQ(producer_check(&p, &h, &offset), 0);
    producers_free(&p);
}

static void test_an_unknown_producer_may_begin_anywhere(void)
{
    struct producers p = { 0 };

    CHECK_EQ(check(&p, 0, 0, 1), 0);
    CHECK_EQ(check(&p, 9, 12345, 1), 0);
    CHECK_EQ(check(&p, 0, INT32_MAX, 2), 0);
    producers_free(&p);
}

static void test_after_a_refusal_nothing_later_is_taken_before_the_repeat(void)
{
    struct producers p = { 0 };
    struct batch_head h = head(ID, 0, 5, 3);

    producer_refused(&p, &h);
    h = head(ID, 0, 8, 1);
    producer_refused(&p, &h); /* the first refusal holds */
    CHECK_EQ(check(&p, 0, 8, 1), E_SEQUENCE);
    CHECK_EQ(check(&p, 1, 0, 1), 0);
    CHECK_EQ(check(&p, 0, 5, 3), 0);
    note(&p, 0, 5, 3, 0);
    CHECK_EQ(check(&p, 0, 8, 1), 0);
    CHECK_EQ(check(&p, 0, 5, 3), 1);
    producer_refused(&p, &h); /* of one that is known: its batches tell the order */
    CHECK_EQ(check(&p, 0, 8, 1), 0);
    CHECK_EQ(check(&p, 0, 9, 1), E_SEQUENCE);
    producers_free(&p);
}

static void test_last_sequence_wraps_after_the_largest(void)
{
    CHECK_EQ(producer_last_sequence(0, 1), 0);
    CHECK_EQ(producer_last_sequence(10, 5), 14);
    CHECK_EQ(producer_last_sequence(INT32_MAX, 1), INT32_MAX);
    CHECK_EQ(producer_last_sequence(INT32_MAX, 2), 0);
    CHECK_EQ(producer_last_sequence(INT32_MAX - 1, 5), 2);
}

static void test_sequences_wrap_from_the_largest_to_zero(void)
{
    struct producers p = { 0 };

    note(&p, 0, INT32_MAX - 1, 2, 100); /* ends with the largest */
    CHECK_EQ(check(&p, 0, 0, 3), 0);
    CHECK_EQ(check(&p, 0, 1, 3), E_SEQUENCE);
    note(&p, 0, 0, 3, 102);
    CHECK_EQ(check(&p, 0, 3, 1), 0);
    CHECK_EQ(check(&p, 0, INT32_MAX - 1, 2), 1);
    CHECK_EQ(check(&p, 0, INT32_MAX - 5, 2), E_DUPLICATE);
    producers_free(&p);
}

static void test_a_batch_over_the_wrap_is_followed_and_repeated(void)
{
    struct producers p = { 0 };

    note(&p, 3, INT32_MAX - 2, 10, 0); /* INT32_MAX - 2, - 1, - 0, then 0 .. 6 */
    CHECK_EQ(check(&p, 3, INT32_MAX - 2, 10), 1);
    CHECK_EQ(check(&p, 3, 7, 1), 0);
    CHECK_EQ(check(&p, 3, 6, 1), E_DUPLICATE);
    CHECK_EQ(check(&p, 3, 8, 1), E_SEQUENCE);
    producers_free(&p);
}

static void test_each_of_the_last_five_is_known_and_no_older(void)
{
    struct producers p = { 0 };

    for (int32_t i = 0; i < 8; i++)
        note(&p, 0, i * 10, 10, (uint64_t)i * 10 + 1000);
    for (int32_t i = 0; i < 8; i++) {
        struct batch_head h = head(ID, 0, i * 10, 10);
        uint64_t offset = 0;
        int rc = producer_check(&p, &h, &offset);

        CHECK_EQ(rc, i < 3 ? E_DUPLICATE : 1);
        CHECK_EQ(offset, i < 3 ? 0 : i * 10 + 1000);
    }
    producers_free(&p);
}

static void test_a_gap_and_another_cut_of_what_was_sent_are_refused(void)
{
    struct producers p = { 0 };

    note(&p, 0, 0, 10, 0);
    CHECK_EQ(check(&p, 0, 11, 1), E_SEQUENCE);
    CHECK_EQ(check(&p, 0, 1 << 29, 1), E_SEQUENCE);
    CHECK_EQ(check(&p, 0, 0, 9), E_DUPLICATE); /* the same begin, another end */
    CHECK_EQ(check(&p, 0, 5, 5), E_DUPLICATE);
    CHECK_EQ(check(&p, 0, 5, 20), E_DUPLICATE);
    producers_free(&p);
}

static void test_a_new_epoch_begins_at_zero_and_ends_the_old(void)
{
    struct producers p = { 0 };

    note(&p, 2, 40, 10, 0);
    CHECK_EQ(check(&p, 3, 50, 1), E_SEQUENCE);
    CHECK_EQ(check(&p, 3, 0, 1), 0);
    CHECK_EQ(check(&p, 1, 0, 1), E_PRODUCER_EPOCH);
    note(&p, 3, 0, 1, 10);
    CHECK_EQ(check(&p, 2, 50, 1), E_PRODUCER_EPOCH);
    CHECK_EQ(check(&p, 2, 40, 10), E_PRODUCER_EPOCH);
    CHECK_EQ(check(&p, 3, 40, 10), E_SEQUENCE); /* the old epoch's batch is not remembered */
    CHECK_EQ(check(&p, 3, 0, 1), 1);
    producers_free(&p);
}

static void test_noting_again_what_is_remembered_changes_nothing(void)
{
    struct producers p = { 0 };

    for (int32_t i = 0; i < 5; i++)
        note(&p, 1, i, 1, (uint64_t)i);
    for (int32_t i = 0; i < 5; i++)
        note(&p, 1, i, 1, (uint64_t)i);
    note(&p, 0, 77, 1, 2); /* replayed from before the present epoch */
    for (int32_t i = 0; i < 5; i++)
        CHECK_EQ(check(&p, 1, i, 1), 1);
    CHECK_EQ(check(&p, 1, 5, 1), 0);
    producers_free(&p);
}

/* --- rows --- */

static void reload(struct producers *to, const struct producers *from, uint64_t end)
{
    struct rows_batch rows = { 0 };
    struct rows_change c;
    size_t at = 0;

    producers_save(from, SHARD, end, &rows);
    while (rows_batch_next(&rows, &at, &c)) {
        struct row_producer s;
        uint64_t shard = 0, id = 0;

        CHECK_EQ(c.op, ROWS_PUT);
        REQUIRE(c.key[0] == ROW_PRODUCER && row_key_parse(c.key, c.key_bytes, &shard, &id));
        CHECK_EQ(shard, SHARD);
        REQUIRE(row_producer_read(&s, c.value, c.value_bytes) >= 0);
        for (unsigned i = 0; i < s.n; i++)
            producer_note_raw(to, (int64_t)id, s.epoch, &s.batch[i]);
    }
    rows_batch_free(&rows);
}

/* A client may have five batches in flight: what is saved meanwhile must still know the five before. */
/* Segments 1 and 3 merged into one come before segment 2: the batch of 2 is still a repeat. */
static void test_an_older_batch_takes_its_place_among_the_later(void)
{
    static const unsigned merged_first[] = { 0, 1, 2, 6, 7, 3, 5, 4, 4 };
    struct producers p = { 0 };
    struct batch_head h;
    uint64_t offset;

    for (unsigned i = 0; i < sizeof merged_first / sizeof merged_first[0]; i++) {
        int32_t n = (int32_t)merged_first[i];
        struct row_producer_batch b = { .base = 100 + merged_first[i],
                                        .base_sequence = n,
                                        .last_sequence = n };

        producer_insert_raw(&p, ID, 2, &b);
    }
    producer_insert_raw(&p, ID, 1,
                        &(struct row_producer_batch){ .base = 50, .base_sequence = 900 });
    for (int32_t n = 3; n < 8; n++) {
        h = head(ID, 2, n, 1);
        CHECK_EQ(producer_check(&p, &h, &offset), 1);
        CHECK_EQ(offset, 100 + n);
    }
    CHECK_EQ(check(&p, 2, 2, 1), E_DUPLICATE);
    CHECK_EQ(check(&p, 2, 8, 1), 0);
    producers_free(&p);
}

/* More than are kept, backwards behind the last: the newest ones stay. */
static void test_older_batches_never_push_out_later_ones(void)
{
    struct producers p = { 0 };
    struct batch_head h;
    uint64_t offset;

    for (int32_t i = 0; i < 30; i++) {
        int32_t n = i ? 29 - i : 29;
        struct row_producer_batch b = { .base = (uint64_t)n,
                                        .base_sequence = n,
                                        .last_sequence = n };

        producer_insert_raw(&p, ID, 0, &b);
    }
    for (int32_t n = 25; n < 30; n++) {
        h = head(ID, 0, n, 1);
        CHECK_EQ(producer_check(&p, &h, &offset), 1);
        CHECK_EQ(offset, n);
    }
    CHECK_EQ(check(&p, 0, 30, 1), 0);
    producers_free(&p);
}

static void test_five_in_flight_do_not_push_out_the_durable_five(void)
{
    struct producers p = { 0 }, q = { 0 };

    for (int32_t i = 0; i < 10; i++)
        note(&p, 0, i, 1, (uint64_t)i);
    reload(&q, &p, 5);
    for (int32_t i = 0; i < 5; i++)
        CHECK_EQ(check(&q, 0, i, 1), 1);
    CHECK_EQ(check(&q, 0, 5, 1), 0);
    CHECK_EQ(check(&p, 0, 4, 1), E_DUPLICATE); /* in memory five are remembered, as ever */
    CHECK_EQ(check(&p, 0, 5, 1), 1);
    producers_free(&p);
    producers_free(&q);
}

static void test_what_is_not_durable_is_not_saved(void)
{
    struct producers p = { 0 }, q = { 0 };

    note(&p, 0, 0, 5, 100);
    note(&p, 0, 5, 5, 105);
    note(&p, 0, 10, 5, 110);
    reload(&q, &p, 110); /* one past the last durable offset */
    CHECK_EQ(check(&q, 0, 0, 5), 1);
    CHECK_EQ(check(&q, 0, 5, 5), 1);
    CHECK_EQ(check(&q, 0, 10, 5), 0); /* it may never have happened: taken as new */
    producers_free(&q);
    reload(&q, &p, 100);
    CHECK_EQ(q.by_id.count, 0);
    producers_free(&q);
    producers_free(&p);
}

/* --- random --- */

enum { PRODUCERS = 4, TAKEN_MAX = 4096 };

struct taken {
    int16_t epoch;
    int64_t first, end; /* not wrapped */
    uint64_t offset;
};
struct model {
    struct taken list[TAKEN_MAX];
    unsigned n;
};

static int32_t wrapped(int64_t sequence)
{
    return (int32_t)(sequence & INT32_MAX);
}

static int model_check(const struct model *m, int16_t epoch, int64_t first, int32_t n,
                       uint64_t *offset)
{
    const struct taken *last = m->n ? &m->list[m->n - 1] : NULL;

    if (!last)
        return 0;
    if (epoch < last->epoch)
        return E_PRODUCER_EPOCH;
    if (epoch > last->epoch)
        return wrapped(first) == 0 ? 0 : E_SEQUENCE;
    for (unsigned i = 0; i < 5 && i < m->n && m->list[m->n - 1 - i].epoch == epoch; i++) {
        const struct taken *t = &m->list[m->n - 1 - i];

        if (t->first == first && t->end == first + n) {
            *offset = t->offset;
            return 1;
        }
    }
    if (first == last->end)
        return 0;
    return first < last->end ? E_DUPLICATE : E_SEQUENCE;
}

/* Something that a producer in epoch and place of *last might send, rightly or wrongly. */
static void draw(struct rng *r, const struct model *m, int16_t *epoch, int64_t *first, int32_t *n)
{
    const struct taken *last = &m->list[m->n - 1], *t;

    *n = 1 + (int32_t)rng_below(r, 30);
    *epoch = last->epoch;
    *first = last->end;
    switch (rng_below(r, 10)) {
    case 0:
    case 1: /* a repeat */
        t = &m->list[m->n - 1 - rng_below(r, m->n < 7 ? m->n : 7)];
        *epoch = t->epoch;
        *first = t->first;
        *n = (int32_t)(t->end - t->first);
        break;
    case 2:
        *first += 1 + (int64_t)rng_below(r, 1000);
        break;
    case 3:
        *first -= 1 + (int64_t)rng_below(r, 100);
        break;
    case 4:
        *epoch = (int16_t)(last->epoch + (rng_chance(r, 1, 2) ? 1 : -1));
        *first = rng_chance(r, 1, 2) ? 0 : 17;
        break;
    default:
        break;
    }
}

static void test_random_sequences_match_a_list_of_all_that_was_taken(void)
{
    static struct model models[PRODUCERS];
    struct rng r;

    rng_seed(&r, 3);
    for (unsigned round = 0; round < 30; round++) {
        struct producers p = { 0 };
        uint64_t next = 0;
        unsigned counts[2] = { 0 };

        for (unsigned i = 0; i < PRODUCERS; i++) {
            models[i].n = 1;
            models[i].list[0] = (struct taken){ 5, (int64_t)INT32_MAX - 200, 0, next };
            models[i].list[0].end = models[i].list[0].first + 10;
            producer_note(&p,
                          &(struct batch_head){ .producer_id = i,
                                                .producer_epoch = 5,
                                                .base_sequence = INT32_MAX - 200,
                                                .record_count = 10 },
                          next, 1);
            next += 10;
        }
        for (unsigned i = 0; i < 1000; i++) {
            unsigned id = (unsigned)rng_below(&r, PRODUCERS);
            struct model *m = &models[id];
            struct batch_head h;
            uint64_t offset = 0, wanted = 0;
            int16_t epoch;
            int64_t first;
            int32_t n;
            int rc;

            draw(&r, m, &epoch, &first, &n);
            if (first < 0)
                continue;
            h = head(id, epoch, wrapped(first), n);
            rc = model_check(m, epoch, first, n, &wanted);
            CHECK_EQ(producer_check(&p, &h, &offset), rc);
            CHECK_EQ(offset, wanted);
            counts[rc < 0]++;
            if (rc == 0) {
                producer_note(&p, &h, next, 1);
                m->list[m->n++] = (struct taken){ epoch, first, first + n, next };
                next += (uint64_t)n;
            }
            if (rng_chance(&r, 1, 50)) { /* a restart with all durable */
                struct producers q = { 0 };

                reload(&q, &p, next);
                producers_free(&p);
                p = q;
            }
        }
        CHECK(counts[0] > 100 && counts[1] > 100);
        producers_free(&p);
    }
}

static struct row_producer row_of(int16_t epoch, const uint64_t *bases, uint8_t n)
{
    struct row_producer r = { .epoch = epoch, .n = n };

    for (unsigned i = 0; i < n; i++)
        r.batch[i] = (struct row_producer_batch){ .base = bases[i],
                                                  .base_sequence = (int32_t)bases[i],
                                                  .last_sequence = (int32_t)bases[i] };
    return r;
}

/* One batch a sequence number, which is its offset, too. */
static void check_knows(struct producers *p, int32_t first, int32_t last)
{
    for (int32_t i = first; i <= last; i++)
        CHECK_EQ(check(p, 0, i, 1), 1);
    CHECK_EQ(check(p, 0, first - 1, 1), E_DUPLICATE);
    CHECK_EQ(check(p, 0, last + 1, 1), 0);
}

static void test_a_row_read_late_is_as_if_it_had_been_there_first(void)
{
    const uint64_t older[] = { 1, 2, 3, 4, 5 }, gap[] = { 3, 4, 5, 7, 8 }, over[] = { 9 };
    struct producers p = { 0 };
    struct row_producer r = row_of(0, older, 5);

    producer_note_under(&p, ID, &r); /* nothing was remembered */
    check_knows(&p, 1, 5);
    producers_free(&p);
    for (int32_t i = 4; i <= 7; i++)
        note(&p, 0, i, 1, (uint64_t)i);
    producer_note_under(&p, ID, &r);
    check_knows(&p, 3, 7);
    note(&p, 0, 8, 1, 8);
    r = row_of(0, gap, 5); /* lacks 6 */
    producer_note_under(&p, ID, &r);
    check_knows(&p, 4, 8);
    r = row_of(1, over, 1); /* rows are ahead, and of a new epoch */
    producer_note_under(&p, ID, &r);
    CHECK_EQ(check(&p, 0, 9, 1), E_PRODUCER_EPOCH);
    CHECK_EQ(check(&p, 1, 9, 1), 1);
    producers_free(&p);
}

TEST_MAIN(
    T(a_row_read_late_is_as_if_it_had_been_there_first) T(batches_without_producer_are_always_new)
        T(an_unknown_producer_may_begin_anywhere)
            T(after_a_refusal_nothing_later_is_taken_before_the_repeat)
                T(last_sequence_wraps_after_the_largest) T(sequences_wrap_from_the_largest_to_zero)
                    T(a_batch_over_the_wrap_is_followed_and_repeated)
                        T(each_of_the_last_five_is_known_and_no_older)
                            T(a_gap_and_another_cut_of_what_was_sent_are_refused)
                                T(a_new_epoch_begins_at_zero_and_ends_the_old) T(
                                    noting_again_what_is_remembered_changes_nothing)
                                    T(an_older_batch_takes_its_place_among_the_later) T(
                                        older_batches_never_push_out_later_ones)
                                        T(five_in_flight_do_not_push_out_the_durable_five) T(
                                            what_is_not_durable_is_not_saved)
                                            T(random_sequences_match_a_list_of_all_that_was_taken))
