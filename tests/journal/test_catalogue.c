/* The catalogue: updates are whole or nothing, in order, and the same again without rows. */
#include "journal/catalogue.h"
#include "base/logger.h"
#include "format/batch.h"
#include "journal/io/rows_int.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

#include <stdlib.h>

enum { OPS_MAX = 500 };

static struct jrn_change put(const char *key, const char *value)
{
    return (struct jrn_change){ .op = JRN_ROW_PUT,
                                .key = key,
                                .key_bytes = (uint32_t)strlen(key),
                                .value = value,
                                .value_bytes = (uint32_t)strlen(value) };
}

static struct jrn_change row_delete(const char *key)
{
    return (
        struct jrn_change){ .op = JRN_ROW_DELETE, .key = key, .key_bytes = (uint32_t)strlen(key) };
}

static struct jrn_change shard_change(enum jrn_change_op op, uint64_t shard)
{
    return (struct jrn_change){ .op = op, .shard = shard };
}

static int add_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                   size_t value_bytes)
{
    struct call_bytes *b = ctx;

    call_bytes_add(b, key, key_bytes);
    call_bytes_add(b, "=", 1);
    call_bytes_add(b, value, value_bytes);
    call_bytes_add(b, ";", 1);
    return 0;
}

/* All rows under prefix as one text; free it. */
static char *rows_text(struct jrn_sim *js, const char *prefix)
{
    struct call_bytes b = { 0 };

    REQUIRE(journal_rows_scan(js->j, prefix, strlen(prefix), add_row, &b) >= 0);
    call_bytes_add(&b, "", 1);
    return (char *)b.mem;
}

static bool rows_are(struct jrn_sim *js, const char *prefix, const char *wanted)
{
    char *text = rows_text(js, prefix);
    bool same = strcmp(text, wanted) == 0;

    if (!same)
        fprintf(stderr, "rows are %s, not %s\n", text, wanted);
    free(text);
    return same;
}

static bool shard_exists(struct jrn_sim *js, uint64_t id)
{
    int rc;
    struct shard *s = call_open(js, id, &rc);

    CHECK(rc == 0 || rc == E_NOTFOUND);
    shard_unref(s);
    return s != NULL;
}

static void up(struct jrn_sim *js, uint64_t seed)
{
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(js, seed, 16 << 20, 2);
    REQUIRE(jrn_sim_open(js, &e) >= 0);
}

static void again(struct jrn_sim *js, bool crash, bool rows_lost)
{
    struct err e = { 0 };

    if (crash)
        jrn_sim_crash(js, rows_lost);
    else
        jrn_sim_close(js);
    REQUIRE(jrn_sim_open(js, &e) >= 0);
}

static void down(struct jrn_sim *js)
{
    jrn_sim_close(js);
    jrn_sim_fini(js);
}

/* --- what an update does --- */

static void test_rows_come_in_key_order_under_their_prefix_and_survive_lost_rows(void)
{
    struct jrn_change c[] = { put("Tb", "2"), put("Ta", "1"), put("Tab", "3"), put("U", "x") };
    struct jrn_sim js;

    up(&js, 1);
    CHECK_EQ(call_update(&js, c, 4), 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(rows_are(&js, "T", "Ta=1;Tab=3;Tb=2;"));
        CHECK(rows_are(&js, "Ta", "Ta=1;Tab=3;"));
        CHECK(rows_are(&js, "", "Ta=1;Tab=3;Tb=2;U=x;"));
        CHECK(rows_are(&js, "V", ""));
        again(&js, i > 0, i > 1);
    }
    down(&js);
}

static void test_of_two_changes_of_one_key_the_later_holds(void)
{
    struct jrn_change c[] = { put("a", "1"), row_delete("a"), put("a", "2"),
                              put("b", "1"), row_delete("b"), row_delete("never") };
    struct jrn_sim js;

    up(&js, 2);
    CHECK_EQ(call_update(&js, c, 6), 0);
    CHECK(rows_are(&js, "", "a=2;"));
    again(&js, true, true);
    CHECK(rows_are(&js, "", "a=2;"));
    down(&js);
}

static void test_one_bad_change_refuses_all_of_the_update(void)
{
    static const char long_key[1025];
    struct jrn_change bad[] = { shard_change(JRN_SHARD_CREATE, 16),
                                shard_change(JRN_SHARD_CREATE, 15),
                                shard_change(JRN_SHARD_DELETE, 1),
                                { .op = JRN_ROW_PUT, .key = "x" },
                                { .op = JRN_ROW_PUT, .key = long_key, .key_bytes = 1025 },
                                { .op = (enum jrn_change_op)99 } };
    static const int wanted[] = { E_EXISTS, E_INVALID, E_INVALID, E_INVALID, E_INVALID, E_INVALID };
    struct jrn_sim js;

    up(&js, 3);
    CHECK_EQ(call_create(&js, 16, SHARD_CLASS_DATA), 0);
    for (unsigned i = 0; i < 6; i++) {
        struct jrn_change c[3] = { put("a", "1"), shard_change(JRN_SHARD_CREATE, 40), bad[i] };

        CHECK_EQ(call_update(&js, c, 3), wanted[i]);
        CHECK(rows_are(&js, "", ""));
        CHECK(!shard_exists(&js, 40));
    }
    CHECK_EQ(journal_max_shard(js.j), 16);
    CHECK_EQ(call_update(&js, bad, 0), 0); /* nothing to do */
    down(&js);
}

static void test_a_shards_number_is_never_used_twice(void)
{
    struct jrn_sim js;

    up(&js, 4);
    CHECK_EQ(journal_max_shard(js.j), 15);
    CHECK_EQ(call_create(&js, 20, SHARD_CLASS_DATA), 0);
    CHECK_EQ(call_delete(&js, 20), 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(!shard_exists(&js, 20));
        CHECK_EQ(call_create(&js, 20, SHARD_CLASS_DATA), E_EXISTS);
        CHECK_EQ(journal_max_shard(js.j), 20);
        again(&js, i > 0, i > 1);
    }
    CHECK_EQ(call_create(&js, 21, SHARD_CLASS_DATA), 0);
    down(&js);
}

static void test_a_deleted_shard_answers_deleted_to_those_who_hold_it(void)
{
    struct jrn_sim js;
    struct shard *s;
    int rc;

    up(&js, 5);
    CHECK_EQ(call_create(&js, 16, SHARD_CLASS_DATA), 0);
    s = call_open(&js, 16, NULL);
    CHECK_EQ(call_append(&js, s, call_batch(0, 1, 10), NULL), 0);
    CHECK_EQ(call_delete(&js, 16), 0);
    CHECK_EQ(call_append(&js, s, call_batch(0, 1, 10), NULL), E_DELETED);
    call_read(&js, s, 0, NULL, &rc, NULL);
    CHECK_EQ(rc, E_DELETED);
    shard_unref(s);
    down(&js);
}

static void update_done(struct jrn_update *u)
{
    static int order;

    u->impl = (void *)(intptr_t)++order;
}

static void test_updates_of_one_loop_happen_in_order(void)
{
    struct jrn_update u[20];
    struct jrn_sim js;

    up(&js, 6);
    for (unsigned i = 0; i < 20; i++) {
        char value[2] = { (char)('a' + i), 0 };
        struct jrn_change c = put("k", value);

        u[i] = (struct jrn_update){ .fn = update_done, .loop = js.loops[0] };
        journal_update(js.j, &c, 1, &u[i]);
    }
    call_wait_ms(&js, 1000);
    for (unsigned i = 0; i < 20; i++) {
        CHECK_EQ(u[i].rc, 0);
        CHECK(u[i].impl != NULL);
        CHECK(i == 0 || (intptr_t)u[i].impl > (intptr_t)u[i - 1].impl);
    }
    CHECK(rows_are(&js, "", "k=t;"));
    down(&js);
}

static void test_classes_have_groups_of_their_own(void)
{
    struct jrn_sim js;

    up(&js, 7);
    for (uint64_t id = 16; id < 24; id++) {
        enum shard_class class = id % 2 ? SHARD_CLASS_INTERNAL : SHARD_CLASS_DATA;
        struct shard *s;

        CHECK_EQ(call_create(&js, id, class), 0);
        s = call_open(&js, id, NULL);
        REQUIRE(s != NULL);
        CHECK_EQ(shard_group(s),
                 catalogue_group_for(js.st, class, &(struct shard_policy){ 0 }, id));
        CHECK(class == SHARD_CLASS_INTERNAL ? shard_group(s) == GROUP_INTERNAL
                                            : shard_group(s) >= GROUP_DATA);
        shard_unref(s);
    }
    down(&js);
}

/* --- records --- */

static void test_a_record_without_key_is_corrupt(void)
{
    struct batch_builder b = { 0 };
    struct batch_new_record good = { .key = "Ax", .key_bytes = 2, .value = "v", .value_bytes = 1 };
    struct batch_new_record gone = { .key = "Ay", .key_bytes = 2 };
    struct batch_new_record bad = { .value = "v", .value_bytes = 1 };
    struct rows_batch rows = { 0 };
    struct rows_change c;
    struct buf *buf;
    size_t at = 0;

    batch_builder_add(&b, &good);
    batch_builder_add(&b, &gone);
    REQUIRE(batch_builder_finish(&b, CODEC_NONE, &buf) >= 0);
    CHECK_EQ(catalogue_batch_rows(buf->mem, buf->len, &rows), 0);
    REQUIRE(rows_batch_next(&rows, &at, &c));
    CHECK(c.op == ROWS_PUT && c.key_bytes == 2 && c.value_bytes == 1 && c.value[0] == 'v');
    REQUIRE(rows_batch_next(&rows, &at, &c));
    CHECK(c.op == ROWS_DELETE && memcmp(c.key, "Ay", 2) == 0);
    CHECK(!rows_batch_next(&rows, &at, &c));
    buf_unref(buf);
    batch_builder_add(&b, &good);
    batch_builder_add(&b, &bad);
    REQUIRE(batch_builder_finish(&b, CODEC_NONE, &buf) >= 0);
    CHECK_EQ(catalogue_batch_rows(buf->mem, buf->len, &rows), E_CORRUPT);
    buf_unref(buf);
    batch_builder_free(&b);
    rows_batch_free(&rows);
}

/* --- power cuts --- */

/* Which side of the update the store is on: 1 all of it, 0 nothing, -1 something between. */
static int side(struct jrn_sim *js)
{
    bool s17 = shard_exists(js, 17), s30 = shard_exists(js, 30), s31 = shard_exists(js, 31);
    char *text = rows_text(js, "");
    int at = -1;

    if (s17 && !s30 && !s31 && strcmp(text, "Told=1;Tsame=1;") == 0)
        at = 0;
    if (!s17 && s30 && s31 && strcmp(text, "Tnew=2;Tsame=2;") == 0)
        at = 1;
    free(text);
    return at;
}

static bool cut_after(uint64_t n, bool rows_lost, unsigned *sides)
{
    struct jrn_change before[] = { shard_change(JRN_SHARD_CREATE, 17), put("Told", "1"),
                                   put("Tsame", "1") };
    struct jrn_change c[] = { shard_change(JRN_SHARD_CREATE, 30),
                              put("Tnew", "2"),
                              shard_change(JRN_SHARD_DELETE, 17),
                              row_delete("Told"),
                              put("Tsame", "2"),
                              shard_change(JRN_SHARD_CREATE, 31) };
    struct jrn_sim js;
    struct err e = { 0 };
    bool off;
    int rc, at;

    up(&js, 50 + n);
    REQUIRE(call_update(&js, before, 3) == 0);
    sim_disk_power_off_after(js.disk, n);
    rc = call_update(&js, c, 6);
    off = js.disk->off;
    CHECK(rc == 0 || off);
    jrn_sim_crash(&js, rows_lost);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    at = side(&js);
    CHECK(at >= 0);
    CHECK(rc < 0 || at == 1); /* what was answered is there */
    if (at >= 0)
        sides[at]++;
    CHECK_EQ(journal_max_shard(js.j), at == 1 ? 31 : 17);
    down(&js);
    return off;
}

static void test_an_update_is_all_or_nothing_wherever_power_is_cut(void)
{
    unsigned sides[2] = { 0 };

    for (unsigned lost = 0; lost < 2; lost++) {
        uint64_t n = 0;

        while (n < OPS_MAX && cut_after(n, lost, sides))
            n++;
        CHECK(n > 1 && n < OPS_MAX);
    }
    CHECK(sides[0] > 0 && sides[1] > 0);
}

TEST_MAIN(T(rows_come_in_key_order_under_their_prefix_and_survive_lost_rows)
              T(of_two_changes_of_one_key_the_later_holds)
                  T(one_bad_change_refuses_all_of_the_update) T(a_shards_number_is_never_used_twice)
                      T(a_deleted_shard_answers_deleted_to_those_who_hold_it)
                          T(updates_of_one_loop_happen_in_order) T(classes_have_groups_of_their_own)
                              T(a_record_without_key_is_corrupt)
                                  T(an_update_is_all_or_nothing_wherever_power_is_cut))
