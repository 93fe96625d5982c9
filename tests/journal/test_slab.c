/* Slabs: the allocator against a map of units, growth and its limits, and crashes in growth. */
#include <inttypes.h>

#include "base/rng.h"
#include "tests/check.h"
#include "tests/sim/jrn_bare.h"

enum { UNITS_PER_MIB = 16, MIB = 1 << 20 };

static uint64_t free_bytes(struct jrn_bare *b)
{
    uint64_t total, left;

    slabs_space(&b->st->slabs, &total, &left);
    CHECK(left <= total);
    return left;
}

static int grow(struct jrn_bare *b, uint64_t at_least)
{
    struct err e = { 0 };
    int rc = slabs_grow(&b->st->slabs, at_least, &e);

    CHECK((rc < 0) == (e.text[0] != 0)); /* an error says why */
    return rc;
}

/* --- the allocator --- */

struct held {
    uint64_t place;
    uint32_t log2;
};

static bool overlap(struct held a, struct held b)
{
    uint64_t a0 = place_pos(a.place), b0 = place_pos(b.place);

    return place_slab(a.place) == place_slab(b.place) && a0 < b0 + ((uint64_t)1 << b.log2) &&
           b0 < a0 + ((uint64_t)1 << a.log2);
}

static void check_new(struct jrn_bare *b, const struct held *list, unsigned n, struct held x)
{
    struct dev_file *file = slabs_file(&b->st->slabs, x.place, x.log2);

    REQUIRE(file != NULL);
    CHECK(place_pos(x.place) >= UNIT_BYTES); /* the header's unit is never given */
    CHECK_EQ(place_pos(x.place) % ((uint64_t)1 << x.log2), 0);
    CHECK(place_pos(x.place) + ((uint64_t)1 << x.log2) <= file->bytes);
    for (unsigned i = 0; i < n; i++)
        CHECK(!overlap(list[i], x));
}

static void test_random_takes_never_overlap_and_space_adds_up(void)
{
    static struct held list[4096];
    struct jrn_bare b;
    struct rng r;
    unsigned n = 0, refused = 0;
    uint64_t used = 0, all = 0;

    rng_seed(&r, 4);
    jrn_bare_init(&b, 4, 0);
    for (unsigned i = 0; i < 4000; i++) {
        struct held x = { 0, UNIT_LOG2 + (uint32_t)rng_below(&r, 5) };

        if (rng_chance(&r, 1, 500) && b.st->slabs.n < 4) {
            CHECK_EQ(grow(&b, UNIT_BYTES), 0);
            all = 0;
            for (unsigned k = 0; k < b.st->slabs.n; k++)
                all += b.st->slabs.list[k].file->bytes - UNIT_BYTES;
        }
        if (n > 0 && rng_chance(&r, 2, 5)) {
            unsigned k = (unsigned)rng_below(&r, n);

            slabs_give(&b.st->slabs, list[k].place, list[k].log2);
            used -= (uint64_t)1 << list[k].log2;
            list[k] = list[--n];
        } else if (slabs_take(&b.st->slabs, x.log2, &x.place) >= 0) {
            check_new(&b, list, n, x);
            used += (uint64_t)1 << x.log2;
            list[n++] = x;
        } else {
            refused++;
            CHECK(x.log2 > UNIT_LOG2 || used == all); /* a single unit is refused only when full */
        }
        CHECK_EQ(free_bytes(&b), all - used);
    }
    CHECK(refused > 0 && all > 0);
    for (unsigned i = 0; i < n; i++)
        slabs_give(&b.st->slabs, list[i].place, list[i].log2);
    CHECK_EQ(free_bytes(&b), all);
    jrn_bare_fini(&b);
}

static void test_an_extent_is_found_wherever_one_is_free(void)
{
    struct jrn_bare b;
    uint64_t places[UNITS_PER_MIB], place;

    jrn_bare_init(&b, 5, 0);
    CHECK_EQ(slabs_take(&b.st->slabs, UNIT_LOG2, &place), E_NOSPACE);
    CHECK_EQ(grow(&b, UNIT_BYTES), 0);
    for (unsigned i = 0; i < UNITS_PER_MIB - 1; i++)
        REQUIRE(slabs_take(&b.st->slabs, UNIT_LOG2, &places[i]) >= 0);
    CHECK_EQ(slabs_take(&b.st->slabs, UNIT_LOG2, &place), E_NOSPACE);
    /* Each aligned pair in turn: only it is free. */
    for (uint32_t unit = 2; unit < UNITS_PER_MIB; unit += 2) {
        slabs_give(&b.st->slabs, place_of(0, unit), UNIT_LOG2);
        CHECK_EQ(slabs_take(&b.st->slabs, UNIT_LOG2 + 1, &place), E_NOSPACE);
        slabs_give(&b.st->slabs, place_of(0, unit + 1), UNIT_LOG2);
        REQUIRE(slabs_take(&b.st->slabs, UNIT_LOG2 + 1, &place) >= 0);
        CHECK_EQ(place, place_of(0, unit));
    }
    /* Two free units that are no aligned pair are no extent of two. */
    slabs_give(&b.st->slabs, place_of(0, 2), UNIT_LOG2 + 1);
    slabs_give(&b.st->slabs, place_of(0, 4), UNIT_LOG2 + 1);
    CHECK_EQ(slabs_mark(&b.st->slabs, place_of(0, 2), UNIT_LOG2), 0);
    CHECK_EQ(slabs_mark(&b.st->slabs, place_of(0, 5), UNIT_LOG2), 0);
    CHECK_EQ(slabs_take(&b.st->slabs, UNIT_LOG2 + 1, &place), E_NOSPACE);
    jrn_bare_fini(&b);
}

static void test_a_mark_is_refused_where_no_free_extent_can_be(void)
{
    struct jrn_bare b;
    struct slabs *s;
    uint64_t place;

    jrn_bare_init(&b, 6, 0);
    s = &b.st->slabs;
    CHECK_EQ(grow(&b, UNIT_BYTES), 0);
    CHECK_EQ(slabs_mark(s, place_of(0, 4), UNIT_LOG2 + 2), 0);
    CHECK_EQ(slabs_mark(s, place_of(0, 4), UNIT_LOG2 + 2), E_CORRUPT);
    CHECK_EQ(slabs_mark(s, place_of(0, 7), UNIT_LOG2), E_CORRUPT);
    CHECK_EQ(slabs_mark(s, place_of(0, 0), UNIT_LOG2 + 3), E_CORRUPT); /* over it, and unit 0 */
    CHECK_EQ(slabs_mark(s, place_of(0, 0), UNIT_LOG2), E_CORRUPT);
    CHECK_EQ(slabs_mark(s, place_of(0, 9), UNIT_LOG2 + 1), E_CORRUPT); /* not aligned */
    CHECK_EQ(slabs_mark(s, place_of(0, 16), UNIT_LOG2), E_CORRUPT);    /* behind the end */
    CHECK_EQ(slabs_mark(s, place_of(1, 1), UNIT_LOG2), E_CORRUPT);     /* no such slab */
    CHECK_EQ(slabs_mark(s, PLACE_NONE, UNIT_LOG2), E_CORRUPT);
    CHECK_EQ(slabs_mark(s, place_of(0, 2), UNIT_LOG2 - 1), E_CORRUPT);
    CHECK_EQ(slabs_mark(s, place_of(0, 2), EXTENT_MAX_LOG2 + 1), E_CORRUPT);
    CHECK_EQ(slabs_mark(s, place_of(0, 2), 63), E_CORRUPT);
    CHECK(slabs_file(s, place_of(0, 16), UNIT_LOG2) == NULL);
    CHECK(slabs_file(s, place_of(0, 15), UNIT_LOG2) != NULL);
    CHECK_EQ(free_bytes(&b), (UNITS_PER_MIB - 1 - 4) * UNIT_BYTES);
    for (unsigned i = 0; i < UNITS_PER_MIB - 1 - 4; i++) {
        REQUIRE(slabs_take(s, UNIT_LOG2, &place) >= 0);
        CHECK((uint32_t)place < 4 || (uint32_t)place > 7);
    }
    jrn_bare_fini(&b);
}

/* --- growth --- */

static uint64_t file_bytes(struct jrn_bare *b)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < b->st->slabs.n; i++)
        sum += b->st->slabs.list[i].file->bytes;
    return sum;
}

static void test_growth_doubles_up_to_the_largest_file(void)
{
    struct jrn_bare b;

    jrn_bare_init(&b, 7, 0);
    for (unsigned i = 0; i < 5; i++)
        CHECK_EQ(grow(&b, UNIT_BYTES), 0);
    CHECK_EQ(b.st->slabs.list[0].file->bytes, MIB);
    for (unsigned i = 1; i < 5; i++) {
        CHECK(b.st->slabs.list[i].file->bytes >= b.st->slabs.list[i - 1].file->bytes);
        CHECK(b.st->slabs.list[i].file->bytes <= 4 * MIB);
    }
    CHECK_EQ(b.st->slabs.list[4].file->bytes, 4 * MIB);
    jrn_bare_fini(&b);
}

static void test_a_new_slab_always_holds_what_was_asked_for_as_one_extent(void)
{
    for (uint32_t log2 = UNIT_LOG2; log2 <= 23; log2++) {
        struct jrn_bare b;
        uint64_t place;

        jrn_bare_init(&b, 8, 0);
        CHECK_EQ(grow(&b, (uint64_t)1 << log2), 0);
        CHECK_EQ(slabs_take(&b.st->slabs, log2, &place), 0);
        jrn_bare_fini(&b);
    }
}

static void test_growth_never_passes_the_limit_of_all_slabs(void)
{
    for (uint64_t units = 1; units < 100; units += 7) {
        struct jrn_bare b;
        unsigned grown = 0;
        int rc = 0;

        jrn_bare_init(&b, 9, 0);
        b.st->slabs.space_max = units * UNIT_BYTES;
        while (rc >= 0 && grown < 50) {
            rc = grow(&b, UNIT_BYTES);
            grown += rc >= 0;
            CHECK(file_bytes(&b) <= b.st->slabs.space_max);
        }
        CHECK_EQ(rc, E_NOSPACE);
        CHECK_EQ(grown > 0, units >= 2); /* a header's unit and one to give */
        CHECK(file_bytes(&b) + 2 * UNIT_BYTES > b.st->slabs.space_max);
        jrn_bare_fini(&b);
    }
}

static void test_growth_leaves_the_floor_free(void)
{
    struct jrn_bare b;
    struct dev_space space;
    int rc = 0;

    jrn_bare_init(&b, 10, 10 * MIB);
    b.st->slabs.space_floor = 3 * MIB + 5000;
    for (unsigned i = 0; rc >= 0 && i < 50; i++) {
        rc = grow(&b, UNIT_BYTES);
        REQUIRE(dev_space(b.st->dev, &space) >= 0);
        CHECK(space.free >= b.st->slabs.space_floor);
    }
    CHECK_EQ(rc, E_NOSPACE);
    CHECK(space.free < b.st->slabs.space_floor + 2 * UNIT_BYTES); /* and it used what it could */
    jrn_bare_fini(&b);
}

static void test_no_space_on_the_file_system_is_no_space_and_grows_later(void)
{
    struct jrn_bare b;
    uint64_t place;

    jrn_bare_init(&b, 11, 0);
    b.disk->faults.nth[SIM_FAULT_CREATE] = 1;
    CHECK_EQ(grow(&b, UNIT_BYTES), E_NOSPACE);
    CHECK_EQ(b.st->slabs.n, 0);
    CHECK_EQ(sim_disk_used(b.disk), 0);
    CHECK_EQ(grow(&b, UNIT_BYTES), 0);
    CHECK_EQ(slabs_take(&b.st->slabs, UNIT_LOG2, &place), 0);
    jrn_bare_fini(&b);
}

static void test_a_failed_operation_of_growth_is_an_error_and_adds_nothing(void)
{
    static const enum sim_fault kinds[] = { SIM_FAULT_WRITE, SIM_FAULT_SYNC, SIM_FAULT_NAMES };

    for (unsigned k = 0; k < 3; k++) {
        bool met = true;

        for (uint32_t n = 1; met; n++) {
            struct jrn_bare b;
            uint64_t before;
            int rc;

            jrn_bare_init(&b, 12 + n, 0);
            CHECK_EQ(grow(&b, UNIT_BYTES), 0);
            before = b.disk->counts.faults[kinds[k]];
            b.disk->faults.nth[kinds[k]] = n;
            rc = grow(&b, UNIT_BYTES);
            met = b.disk->counts.faults[kinds[k]] > before;
            /* Removing a file that is not there may fail unseen. */
            CHECK(rc >= 0 || met);
            CHECK(rc >= 0 || rc == E_IO);
            CHECK_EQ(b.st->slabs.n, rc >= 0 ? 2 : 1);
            b.disk->faults.nth[kinds[k]] = 0;
            CHECK_EQ(grow(&b, UNIT_BYTES), 0);
            CHECK_EQ(jrn_bare_reopen(&b, true, NULL), 0);
            CHECK_EQ(b.st->slabs.n, rc >= 0 ? 3 : 2);
            jrn_bare_fini(&b);
        }
    }
}

struct folder {
    unsigned n_slabs, n_tmp, n_other;
};

static void folder_name(void *ctx, const char *name)
{
    struct folder *f = ctx;
    size_t n = strlen(name);

    if (n == 11 && strncmp(name, "slab-", 5) == 0)
        f->n_slabs++;
    else if (n == 15 && strcmp(name + 11, ".tmp") == 0)
        f->n_tmp++;
    else
        f->n_other++;
}

static void test_power_lost_anywhere_in_growth_leaves_a_whole_slab_or_a_tmp_file(void)
{
    bool grown = false;
    unsigned tmp_seen = 0;

    for (uint64_t n = 0; !grown; n++) {
        struct jrn_bare b;
        struct folder f = { 0 };
        struct err e = { 0 };
        uint64_t place;

        jrn_bare_init(&b, 100 + n, 0);
        CHECK_EQ(grow(&b, UNIT_BYTES), 0);
        sim_disk_power_off_after(b.disk, n);
        grown = slabs_grow(&b.st->slabs, UNIT_BYTES, &e) >= 0;
        CHECK_EQ(jrn_bare_reopen(&b, true, &e), 0);
        REQUIRE(dev_list(b.st->dev, folder_name, &f) >= 0);
        CHECK_EQ(f.n_other, 0);
        CHECK_EQ(f.n_slabs, b.st->slabs.n);
        CHECK(f.n_slabs == 2 || (!grown && f.n_slabs == 1));
        CHECK(f.n_tmp <= 1);
        tmp_seen += f.n_tmp;
        /* It goes on from there, over what was left. */
        CHECK_EQ(grow(&b, UNIT_BYTES), 0);
        CHECK_EQ(slabs_take(&b.st->slabs, UNIT_LOG2, &place), 0);
        f = (struct folder){ 0 };
        REQUIRE(dev_list(b.st->dev, folder_name, &f) >= 0);
        CHECK_EQ(f.n_tmp, 0);
        jrn_bare_fini(&b);
    }
    CHECK(tmp_seen > 0);
}

/* --- opening --- */

static void test_reopened_slabs_are_the_same_and_wholly_free(void)
{
    struct jrn_bare b;
    uint64_t place, free_before, bytes;

    jrn_bare_init(&b, 13, 0);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(grow(&b, UNIT_BYTES), 0);
    free_before = free_bytes(&b);
    bytes = file_bytes(&b);
    CHECK_EQ(slabs_take(&b.st->slabs, UNIT_LOG2 + 1, &place), 0);
    CHECK_EQ(jrn_bare_reopen(&b, true, NULL), 0);
    CHECK_EQ(b.st->slabs.n, 3);
    CHECK_EQ(file_bytes(&b), bytes);
    CHECK_EQ(free_bytes(&b), free_before);
    CHECK_EQ(slabs_mark(&b.st->slabs, place, UNIT_LOG2 + 1), 0);
    CHECK_EQ(free_bytes(&b), free_before - 2 * UNIT_BYTES);
    jrn_bare_fini(&b);
}

static void test_a_slab_of_another_store_or_with_a_damaged_header_is_refused_by_name(void)
{
    struct jrn_bare b;
    struct err e = { 0 };

    jrn_bare_init(&b, 14, 0);
    CHECK_EQ(grow(&b, UNIT_BYTES), 0);
    CHECK_EQ(grow(&b, UNIT_BYTES), 0);
    b.st->super.store.bytes[3] ^= 1;
    CHECK_EQ(jrn_bare_reopen(&b, false, &e), E_CORRUPT);
    CHECK(strstr(e.text, "slab-000000") != NULL);
    b.st->super.store.bytes[3] ^= 1;
    REQUIRE(sim_disk_rot(b.disk, "slab-000001", 30) >= 0);
    e = (struct err){ 0 };
    CHECK_EQ(jrn_bare_reopen(&b, false, &e), E_CORRUPT);
    CHECK(strstr(e.text, "slab-000001") != NULL);
    jrn_bare_fini(&b);
}

TEST_MAIN(
    T(random_takes_never_overlap_and_space_adds_up) T(an_extent_is_found_wherever_one_is_free)
        T(a_mark_is_refused_where_no_free_extent_can_be) T(growth_doubles_up_to_the_largest_file)
            T(a_new_slab_always_holds_what_was_asked_for_as_one_extent)
                T(growth_never_passes_the_limit_of_all_slabs) T(growth_leaves_the_floor_free)
                    T(no_space_on_the_file_system_is_no_space_and_grows_later) T(
                        a_failed_operation_of_growth_is_an_error_and_adds_nothing)
                        T(power_lost_anywhere_in_growth_leaves_a_whole_slab_or_a_tmp_file) T(
                            reopened_slabs_are_the_same_and_wholly_free)
                            T(a_slab_of_another_store_or_with_a_damaged_header_is_refused_by_name))
