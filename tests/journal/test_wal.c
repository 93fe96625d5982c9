/* The list of live WAL extents: pins, gaps, what the checkpoint frees. */
#include <stdlib.h>

#include "base/buf.h"
#include "base/rng.h"
#include "tests/check.h"
#include "tests/sim/jrn_bare.h"

enum { EXTENT = 1 << 17, ROOM = EXTENT - PAGE_BYTES };

struct bed {
    struct jrn_bare b;
    struct wal w;
};

static void bed_init(struct bed *t, uint64_t seed)
{
    jrn_bare_init(&t->b, seed, 0);
    for (unsigned i = 0; i < 3; i++)
        REQUIRE(slabs_grow(&t->b.st->slabs, EXTENT, NULL) >= 0);
    wal_init(&t->w, &t->b.st->slabs, t->b.st->wal_log2);
}

static void bed_fini(struct bed *t)
{
    wal_fini(&t->w);
    wal_fini(&t->w); /* harmless twice */
    jrn_bare_fini(&t->b);
}

/* A slab's header takes the first half of what could be one more. */
static uint64_t free_extents(struct bed *t)
{
    uint64_t total, left;

    slabs_space(&t->b.st->slabs, &total, &left);
    return (left - t->b.st->slabs.n * UNIT_BYTES) / EXTENT;
}

static uint64_t add(struct bed *t, uint64_t incarnation, uint64_t first_lsn)
{
    uint64_t place;

    REQUIRE(slabs_take(&t->b.st->slabs, t->b.st->wal_log2, &place) >= 0);
    wal_add(&t->w, place, incarnation, 99, first_lsn);
    return place;
}

static bool held(struct bed *t, uint64_t lsn, uint64_t bytes)
{
    struct wal_extent *x;
    int rc = wal_pin(&t->w, lsn, bytes, &x);

    if (rc < 0) {
        CHECK_EQ(rc, E_NOTFOUND);
        return false;
    }
    CHECK(x->first_lsn <= lsn && (x->end_lsn == LSN_OPEN || lsn + bytes <= x->end_lsn));
    wal_unpin(&t->w, x);
    return true;
}

static void test_an_lsn_is_found_in_the_extent_that_holds_it_whole(void)
{
    struct bed t;
    struct wal_extent *x;
    struct dev_file *file;
    uint64_t places[3], pos;

    bed_init(&t, 1);
    CHECK(!held(&t, 4096, 1));
    places[0] = add(&t, 1, 4096);
    CHECK(held(&t, 4096, 100));
    CHECK(!held(&t, 4095, 1));
    wal_end(&t.w, 4096 + 40960, NULL, 0);
    places[1] = add(&t, 1, 4096 + 40960);
    CHECK(held(&t, 4096, 40960));
    CHECK(!held(&t, 4096, 40961)); /* across the end */
    CHECK(held(&t, 4096 + 40960, 1));
    wal_end(&t.w, 60000 * 4096, NULL, 0);
    places[2] = add(&t, 2, 60000 * 4096);
    REQUIRE(wal_pin(&t.w, 4096 + 40960 + 500, 8, &x) >= 0);
    CHECK_EQ(x->place, places[1]);
    file = wal_at(&t.w, x, 4096 + 40960 + 500, &pos);
    CHECK(file == slabs_file(&t.b.st->slabs, places[1], t.b.st->wal_log2));
    CHECK_EQ(pos, place_pos(places[1]) + PAGE_BYTES + 500);
    wal_unpin(&t.w, x);
    CHECK(places[0] != places[2]);
    bed_fini(&t);
}

static void test_a_gap_that_rot_left_is_not_found(void)
{
    struct bed t;

    bed_init(&t, 2);
    add(&t, 1, 4096);
    wal_end(&t.w, 20480, NULL, 0);
    add(&t, 1, 40960);
    CHECK(held(&t, 4096, 16384));
    CHECK(!held(&t, 20480, 1));
    CHECK(!held(&t, 40959, 1));
    CHECK(!held(&t, 16384, 8192));
    CHECK(held(&t, 40960, 1));
    bed_fini(&t);
}

static void test_of_two_extents_at_one_lsn_the_later_one_holds_it(void)
{
    struct bed t;
    struct wal_extent *x;
    uint64_t place;

    bed_init(&t, 3);
    add(&t, 1, 4096);
    wal_end(&t.w, 4096, NULL, 0); /* an incarnation that wrote nothing */
    place = add(&t, 2, 4096);
    REQUIRE(wal_pin(&t.w, 4096, 10, &x) >= 0);
    CHECK_EQ(x->place, place);
    wal_unpin(&t.w, x);
    bed_fini(&t);
}

static void test_a_pinned_extent_is_freed_at_its_last_unpin(void)
{
    struct bed t;
    struct wal_extent *x, *y;
    uint64_t before, place;

    bed_init(&t, 4);
    before = free_extents(&t);
    place = add(&t, 1, 4096);
    wal_end(&t.w, 8192, mem_new(sizeof(struct wal_mark)), 1);
    add(&t, 1, 8192);
    REQUIRE(wal_pin(&t.w, 4096, 1, &x) >= 0);
    REQUIRE(wal_pin(&t.w, 5000, 1, &y) >= 0);
    CHECK(x == y);
    wal_passed(&t.w, 8192);
    CHECK_EQ(free_extents(&t), before - 2);
    CHECK(!held(&t, 4096, 1)); /* no longer live, though its bytes are still there */
    CHECK_EQ(x->place, place);
    wal_unpin(&t.w, x);
    CHECK_EQ(free_extents(&t), before - 2);
    wal_unpin(&t.w, y);
    CHECK_EQ(free_extents(&t), before - 1);
    CHECK_EQ(slabs_mark(&t.b.st->slabs, place, t.b.st->wal_log2), 0);
    bed_fini(&t);
}

static void test_the_checkpoint_frees_what_ends_at_or_before_it_and_never_the_open_extent(void)
{
    struct bed t;
    struct wal_extent *list[8];
    uint64_t before;

    bed_init(&t, 5);
    before = free_extents(&t);
    for (uint64_t i = 0; i < 4; i++) {
        if (i > 0)
            wal_end(&t.w, i * ROOM, NULL, 0);
        add(&t, 1, i == 0 ? 4096 : i * ROOM);
    }
    CHECK_EQ(wal_oldest(&t.w, list, 8), 3);
    CHECK_EQ(wal_oldest(&t.w, list, 2), 2);
    CHECK_EQ(list[0]->first_lsn, 4096);
    CHECK_EQ(list[1]->first_lsn, ROOM);
    CHECK_EQ(wal_live(&t.w).closed_bytes, 3 * EXTENT);
    CHECK_EQ(wal_live(&t.w).n_extents, 4);
    wal_passed(&t.w, ROOM - 1);
    CHECK_EQ(free_extents(&t), before - 4);
    wal_passed(&t.w, ROOM);
    CHECK_EQ(free_extents(&t), before - 3);
    wal_passed(&t.w, UINT64_MAX - 1);
    CHECK_EQ(free_extents(&t), before - 1);
    CHECK_EQ(wal_live(&t.w).closed_bytes, 0);
    CHECK_EQ(wal_live(&t.w).n_extents, 1);
    CHECK(held(&t, 3 * ROOM, 1));
    bed_fini(&t);
}

static void test_an_incarnation_begins_at_its_first_extent_that_ends_past_the_checkpoint(void)
{
    struct bed t;
    uint64_t places[4];

    bed_init(&t, 6);
    places[0] = add(&t, 1, 4096);
    wal_end(&t.w, 8192, NULL, 0);
    places[1] = add(&t, 1, 8192);
    wal_end(&t.w, 16384, NULL, 0);
    places[2] = add(&t, 2, 16384);
    CHECK_EQ(wal_place_after(&t.w, 1, 0), places[0]);
    CHECK_EQ(wal_place_after(&t.w, 1, 8191), places[0]);
    CHECK_EQ(wal_place_after(&t.w, 1, 8192), places[1]);
    CHECK_EQ(wal_place_after(&t.w, 1, 16384), PLACE_NONE);
    CHECK_EQ(wal_place_after(&t.w, 2, 16384), places[2]);
    CHECK_EQ(wal_place_after(&t.w, 3, 0), PLACE_NONE);
    bed_fini(&t);
}

/* --- random --- */

enum { MODEL_MAX = 512, PINS_MAX = 64 };

struct model {
    struct {
        uint64_t first, end;
        unsigned pins;
        bool gone; /* passed by the checkpoint */
        struct wal_extent *x;
    } list[MODEL_MAX];
    unsigned n;
    unsigned pins[PINS_MAX], n_pins; /* which extents are pinned, one each */
};

static unsigned model_taken(const struct model *m)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->n; i++)
        n += !m->list[i].gone || m->list[i].pins > 0;
    return n;
}

static void pin_some(struct bed *t, struct rng *r, struct model *m)
{
    uint64_t lsn = rng_below(r, m->list[m->n - 1].first + ROOM), bytes = 1 + rng_below(r, 20000);
    struct wal_extent *x;
    int rc = wal_pin(&t->w, lsn, bytes, &x), wanted = -1;

    for (unsigned i = 0; i < m->n; i++)
        if (!m->list[i].gone && lsn >= m->list[i].first &&
            (m->list[i].end == LSN_OPEN || lsn + bytes <= m->list[i].end))
            wanted = (int)i;
    CHECK_EQ(rc, wanted < 0 ? E_NOTFOUND : 0);
    if (rc < 0 || wanted < 0)
        return;
    CHECK_EQ(x->first_lsn, m->list[wanted].first);
    m->list[wanted].x = x;
    m->list[wanted].pins++;
    m->pins[m->n_pins++] = (unsigned)wanted;
}

static void next_extent(struct bed *t, struct rng *r, struct model *m)
{
    uint64_t first = PAGE_BYTES;

    if (m->n > 0) {
        first = m->list[m->n - 1].first + rng_below(r, ROOM);
        wal_end(&t->w, first, NULL, 0);
        m->list[m->n - 1].end = first;
        if (rng_chance(r, 1, 10))
            first += rng_below(r, 50000);
    }
    add(t, 1, first);
    m->list[m->n].first = first;
    m->list[m->n].end = LSN_OPEN;
    m->n++;
}

static void pass_some(struct bed *t, struct rng *r, struct model *m)
{
    uint64_t lsn = rng_below(r, m->list[m->n - 1].first + 1);

    wal_passed(&t->w, lsn);
    for (unsigned i = 0; i < m->n && m->list[i].end <= lsn; i++)
        m->list[i].gone = true;
}

static void test_random_pins_and_checkpoints_match_a_plain_list(void)
{
    static struct model m;
    struct bed t;
    struct rng r;

    rng_seed(&r, 7);
    for (unsigned round = 0; round < 20; round++) {
        uint64_t all;

        bed_init(&t, 7);
        m = (struct model){ 0 };
        all = free_extents(&t);
        next_extent(&t, &r, &m);
        for (unsigned i = 0; i < 600; i++) {
            unsigned what = (unsigned)rng_below(&r, 10);

            if (what == 0 && m.n < MODEL_MAX && free_extents(&t) > 0)
                next_extent(&t, &r, &m);
            else if (what == 1)
                pass_some(&t, &r, &m);
            else if (what < 6 && m.n_pins < PINS_MAX)
                pin_some(&t, &r, &m);
            else if (m.n_pins > 0) {
                unsigned k = (unsigned)rng_below(&r, m.n_pins), e = m.pins[k];

                m.pins[k] = m.pins[--m.n_pins];
                m.list[e].pins--;
                wal_unpin(&t.w, m.list[e].x);
            }
            CHECK_EQ(free_extents(&t), all - model_taken(&m));
        }
        while (m.n_pins > 0)
            wal_unpin(&t.w, m.list[m.pins[--m.n_pins]].x);
        bed_fini(&t);
    }
}

TEST_MAIN(T(an_lsn_is_found_in_the_extent_that_holds_it_whole) T(a_gap_that_rot_left_is_not_found)
              T(of_two_extents_at_one_lsn_the_later_one_holds_it)
                  T(a_pinned_extent_is_freed_at_its_last_unpin)
                      T(the_checkpoint_frees_what_ends_at_or_before_it_and_never_the_open_extent)
                          T(an_incarnation_begins_at_its_first_extent_that_ends_past_the_checkpoint)
                              T(random_pins_and_checkpoints_match_a_plain_list))
