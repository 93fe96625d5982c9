/* Tables: rows and the offset that they stand for, together or not at all. */
#include "journal/table.h"

#include <stdlib.h>

#include "base/logger.h"
#include "tests/check.h"
#include "tests/sim/jrn_kinds.h"

static void open_sim(struct jrn_sim *js, uint64_t seed)
{
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(js, seed, 32 << 20, 2);
    REQUIRE(jrn_sim_open(js, &e) >= 0);
}

static void end_sim(struct jrn_sim *js)
{
    jrn_sim_close(js);
    jrn_sim_fini(js);
}

static struct jrn_table *table(struct jrn_sim *js, const char *name)
{
    struct jrn_table *t = NULL;

    REQUIRE(jrn_table_open(&t, js->j, name) >= 0);
    return t;
}

static int put(struct jrn_sim *js, struct jrn_table *t, const char *key, const char *value,
               uint64_t shard, uint64_t offset)
{
    struct jrn_table_row r = { .key = key,
                               .key_bytes = (uint32_t)strlen(key),
                               .value = value,
                               .value_bytes = value ? (uint32_t)strlen(value) : 0 };

    return kind_table_write(js, t, &r, 1, shard, offset);
}

/* The value is what is said; NULL: there is none. */
static void check_value(struct jrn_sim *js, struct jrn_table *t, const char *key, const char *value)
{
    struct jrn_table_read r;
    int rc = kind_table_get(js, t, key, &r);

    CHECK_EQ(rc, value ? 0 : E_NOTFOUND);
    if (rc >= 0)
        CHECK(r.n == 1 && r.rows[0].value_bytes == strlen(value) &&
              memcmp(r.rows[0].value, value, strlen(value)) == 0 &&
              r.rows[0].key_bytes == strlen(key) && memcmp(r.rows[0].key, key, strlen(key)) == 0);
    jrn_table_read_release(&r);
}

static uint64_t offset_of(struct jrn_sim *js, struct jrn_table *t, uint64_t shard)
{
    uint64_t offset = 99;

    CHECK_EQ(kind_table_offset(js, t, shard, &offset), 0);
    return offset;
}

static void test_rows_are_written_read_and_removed_with_their_offset(void)
{
    struct jrn_sim js;
    struct jrn_table *t;

    open_sim(&js, 1);
    t = table(&js, "sessions");
    CHECK_EQ(offset_of(&js, t, 16), 0);
    CHECK_EQ(put(&js, t, "a", "1", 16, 7), 0);
    CHECK_EQ(put(&js, t, "b", "2", 17, 9), 0);
    check_value(&js, t, "a", "1");
    CHECK_EQ(offset_of(&js, t, 16), 7);
    CHECK_EQ(offset_of(&js, t, 17), 9);
    CHECK_EQ(put(&js, t, "a", NULL, 16, 8), 0);
    check_value(&js, t, "a", NULL);
    CHECK_EQ(offset_of(&js, t, 16), 8);
    CHECK_EQ(kind_table_write(&js, t, NULL, 0, 16, 20), 0); /* only that it has come further */
    CHECK_EQ(offset_of(&js, t, 16), 20);
    jrn_table_close(t);
    end_sim(&js);
}

static void test_a_scan_gives_rows_in_order_from_where_it_is_told(void)
{
    static const char *const keys[] = { "b2", "a", "b1", "c", "b3", "b" };
    struct jrn_table_read r;
    struct jrn_sim js;
    struct jrn_table *t;

    open_sim(&js, 2);
    t = table(&js, "t");
    for (unsigned i = 0; i < 6; i++)
        CHECK_EQ(put(&js, t, keys[i], keys[i], 16, i + 1), 0);
    CHECK_EQ(kind_table_scan(&js, t, "b", NULL, 3, &r), 0);
    CHECK(r.n == 3 && r.more);
    CHECK(memcmp(r.rows[0].key, "b", 1) == 0 && r.rows[0].key_bytes == 1);
    CHECK(memcmp(r.rows[2].key, "b2", 2) == 0);
    jrn_table_read_release(&r);
    CHECK_EQ(kind_table_scan(&js, t, "b", "b2", 3, &r), 0);
    CHECK(r.n == 2 && !r.more);
    jrn_table_read_release(&r);
    CHECK_EQ(kind_table_scan(&js, t, "", "c", 3, &r), 0);
    CHECK_EQ(r.n, 1);
    jrn_table_read_release(&r);
    CHECK_EQ(kind_table_scan(&js, t, "x", NULL, 3, &r), 0);
    CHECK_EQ(r.n, 0);
    jrn_table_read_release(&r);
    jrn_table_close(t);
    end_sim(&js);
}

static void test_tables_whose_names_begin_alike_do_not_mix(void)
{
    struct jrn_table_read r;
    struct jrn_sim js;
    struct jrn_table *a, *ab;

    open_sim(&js, 3);
    a = table(&js, "a");
    ab = table(&js, "ab");
    CHECK_EQ(put(&js, a, "bx", "1", 16, 1), 0);
    CHECK_EQ(put(&js, ab, "x", "2", 16, 2), 0);
    check_value(&js, a, "bx", "1");
    check_value(&js, a, "x", NULL);
    check_value(&js, ab, "x", "2");
    CHECK_EQ(kind_table_scan(&js, a, "", NULL, 10, &r), 0);
    CHECK_EQ(r.n, 1);
    jrn_table_read_release(&r);
    CHECK_EQ(kind_table_drop(&js, ab), 0);
    check_value(&js, ab, "x", NULL);
    check_value(&js, a, "bx", "1");
    CHECK_EQ(offset_of(&js, a, 16), 1);
    CHECK_EQ(offset_of(&js, ab, 16), 0);
    jrn_table_close(a);
    jrn_table_close(ab);
    end_sim(&js);
}

static void test_after_a_crash_rows_are_those_of_the_offset_that_is_there(void)
{
    unsigned behind = 0, kept = 0;

    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct err e = { 0 };
        char value[16];
        struct jrn_sim js;
        struct jrn_table *t;
        uint64_t offset;

        open_sim(&js, seed);
        t = table(&js, "t");
        for (unsigned i = 1; i <= 20; i++) {
            struct jrn_table_row r[2] = { { .key = "x", .key_bytes = 1, .value = value },
                                          { .key = "y", .key_bytes = 1, .value = value } };

            r[0].value_bytes = r[1].value_bytes = (uint32_t)snprintf(value, sizeof value, "%u", i);
            CHECK_EQ(kind_table_write(&js, t, r, 2, 16, i), 0);
        }
        jrn_table_close(t);
        jrn_sim_crash(&js, seed % 10 == 0);
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        t = table(&js, "t");
        offset = offset_of(&js, t, 16);
        CHECK(offset <= 20);
        snprintf(value, sizeof value, "%u", (unsigned)offset);
        check_value(&js, t, "x", offset ? value : NULL);
        check_value(&js, t, "y", offset ? value : NULL);
        if (seed % 10 == 0)
            CHECK_EQ(offset, 0);
        behind += offset < 20;
        kept += offset > 0;
        jrn_table_close(t);
        end_sim(&js);
    }
    CHECK(behind > 0 && kept > 0);
}

static void test_a_drop_takes_many_rows_and_all_offsets(void)
{
    struct jrn_table_row *rows = calloc(5000, sizeof *rows);
    char(*keys)[8] = calloc(5000, sizeof *keys);
    struct jrn_table_read r;
    struct jrn_sim js;
    struct jrn_table *t;

    open_sim(&js, 4);
    t = table(&js, "t");
    for (unsigned i = 0; i < 5000; i++) {
        rows[i] = (struct jrn_table_row){ .key = keys[i], .value = "v", .value_bytes = 1 };
        rows[i].key_bytes = (uint32_t)snprintf(keys[i], sizeof keys[i], "%u", i);
    }
    CHECK_EQ(kind_table_write(&js, t, rows, 5000, 16, 3), 0);
    CHECK_EQ(kind_table_write(&js, t, NULL, 0, 17, 4), 0);
    CHECK_EQ(kind_table_drop(&js, t), 0);
    CHECK_EQ(kind_table_scan(&js, t, "", NULL, 10, &r), 0);
    CHECK_EQ(r.n, 0);
    jrn_table_read_release(&r);
    CHECK_EQ(offset_of(&js, t, 16), 0);
    CHECK_EQ(offset_of(&js, t, 17), 0);
    jrn_table_close(t);
    end_sim(&js);
    free(rows);
    free(keys);
}

static void test_what_is_out_of_bounds_is_refused_and_nothing_of_it_made(void)
{
    static char key[JRN_TABLE_KEY_MAX + 1];
    struct jrn_table_row r[2] = {
        { .key = "a", .key_bytes = 1, .value = "1", .value_bytes = 1 },
        { .key = key, .key_bytes = sizeof key, .value = "1", .value_bytes = 1 }
    };
    struct jrn_sim js;
    struct jrn_table *t;

    open_sim(&js, 5);
    CHECK_EQ(jrn_table_open(&t, js.j, ""), E_INVALID);
    CHECK_EQ(jrn_table_open(&t, js.j, "123456789012345678901234567890123"), E_INVALID);
    t = table(&js, "12345678901234567890123456789012");
    CHECK_EQ(kind_table_write(&js, t, r, 2, 16, 5), E_INVALID);
    check_value(&js, t, "a", NULL);
    CHECK_EQ(offset_of(&js, t, 16), 0);
    r[1].key_bytes--;
    CHECK_EQ(kind_table_write(&js, t, r, 2, 16, 5), 0);
    check_value(&js, t, "a", "1");
    jrn_table_close(t);
    end_sim(&js);
}

TEST_MAIN(T(rows_are_written_read_and_removed_with_their_offset)
              T(a_scan_gives_rows_in_order_from_where_it_is_told)
                  T(tables_whose_names_begin_alike_do_not_mix)
                      T(after_a_crash_rows_are_those_of_the_offset_that_is_there)
                          T(a_drop_takes_many_rows_and_all_offsets)
                              T(what_is_out_of_bounds_is_refused_and_nothing_of_it_made))
