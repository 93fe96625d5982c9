/* Shards of kind ROCKSDB: the latest record of a key, keys in order, and an index that comes back. */
#include "journal/keyindex.h"

#include <stdlib.h>

#include "base/logger.h"
#include "format/batch.h"
#include "tests/check.h"
#include "tests/sim/jrn_kinds.h"

static void open_sim(struct jrn_sim *js, uint64_t seed, unsigned loops)
{
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(js, seed, 32 << 20, loops);
    REQUIRE(jrn_sim_open(js, &e) >= 0);
}

static struct shard *make(struct jrn_sim *js, uint64_t id)
{
    struct shard *s;

    REQUIRE(kind_create(js, id, SHARD_ROCKSDB, NULL) >= 0);
    s = call_open(js, id, NULL);
    REQUIRE(s != NULL);
    CHECK(shard_kind(s) == SHARD_ROCKSDB && !shard_is_volatile(s));
    return s;
}

static void end_sim(struct jrn_sim *js)
{
    jrn_sim_close(js);
    jrn_sim_fini(js);
    CHECK_EQ(buf_total_bytes(), 0);
}

static void put(struct jrn_sim *js, struct shard *s, const char *key, const char *value)
{
    REQUIRE(call_append(js, s, kind_record(key, value), NULL) >= 0);
}

/* Rows of a table of one shard. */
struct counting {
    uint8_t table;
    unsigned n;
};

static int count_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct counting *c = ctx;

    if (((const uint8_t *)key)[0] != c->table)
        return 1;
    c->n++;
    return 0;
}

static unsigned rows_of(struct jrn_sim *js, enum row_table table)
{
    struct counting c = { (uint8_t)table, 0 };

    REQUIRE(rows_scan(js->devices[0].rows, &c.table, 1, false, count_row, &c) >= 0);
    return c.n;
}

static void test_a_get_sees_what_was_appended_just_before(void)
{
    char key[16], value[16];
    struct jrn_sim js;
    struct shard *s;
    int rc;

    open_sim(&js, 1, 2);
    s = make(&js, 16);
    for (unsigned i = 0; i < 60; i++) {
        snprintf(key, sizeof key, "k%u", i % 7);
        snprintf(value, sizeof value, "v%u", i);
        put(&js, s, key, value);
        CHECK(strcmp(kind_value(&js, s, key, &rc), value) == 0);
        CHECK_EQ(rc, 0);
    }
    put(&js, s, "k3", NULL);
    kind_value(&js, s, "k3", &rc);
    CHECK_EQ(rc, E_NOTFOUND);
    put(&js, s, "k3", "");
    CHECK(strcmp(kind_value(&js, s, "k3", &rc), "") == 0);
    CHECK_EQ(rc, 0);
    kind_value(&js, s, "other", &rc);
    CHECK_EQ(rc, E_NOTFOUND);
    shard_unref(s);
    end_sim(&js);
}

static void test_a_record_comes_with_offset_time_and_headers_from_any_codec(void)
{
    struct batch_header head = { .key = (const uint8_t *)"h",
                                 .key_bytes = 1,
                                 .value = (const uint8_t *)"hv",
                                 .value_bytes = 2 };
    struct batch_new_record r[3] = {
        { .timestamp = 1000,
          .key = "a",
          .key_bytes = 1,
          .value = "aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
          .value_bytes = 28 },
        { .timestamp = 2000, .value = "no key", .value_bytes = 6 },
        { .timestamp = 3000,
          .key = "b",
          .key_bytes = 1,
          .value = "bbbbbbbbbbbbbbbbbbbbbbbbbbbb",
          .value_bytes = 28,
          .headers = &head,
          .n_headers = 1 },
    };
    struct jrn_sim js;
    struct shard *s;

    open_sim(&js, 2, 1);
    s = make(&js, 16);
    for (int codec = CODEC_NONE; codec < CODEC_COUNT; codec++) {
        struct batch_header h;
        struct shard_get g;
        uint32_t pos = 0;
        uint64_t base;

        REQUIRE(call_append(&js, s, kind_batch(r, 3, codec), &base) >= 0);
        REQUIRE(kind_get(&js, s, "b", 1, &g) >= 0);
        CHECK_EQ(g.record.offset, base + 2);
        CHECK_EQ(g.record.timestamp, 3000);
        CHECK_EQ(g.record.key_bytes, 1);
        CHECK_EQ(g.record.value_bytes, 28);
        CHECK_EQ(batch_header_next(&g.record, &pos, &h), 1);
        CHECK(h.value_bytes == 2 && memcmp(h.value, "hv", 2) == 0);
        shard_get_release(&g);
        REQUIRE(kind_get(&js, s, "a", 1, &g) >= 0);
        CHECK_EQ(g.record.offset, base);
        shard_get_release(&g);
    }
    CHECK_EQ(rows_of(&js, ROW_NAME), 2);
    shard_unref(s);
    end_sim(&js);
}

static void test_a_scan_gives_keys_in_order_piece_by_piece(void)
{
    static const char *const keys[] = { "b/2", "a/1", "b/10", "c", "b/1", "b" };
    char seen[64] = "";
    struct shard_scan c = { .prefix = "b", .prefix_bytes = 1, .limit = 2, .max_bytes = 1 << 20 };
    struct jrn_sim js;
    struct shard *s;
    unsigned calls = 0;
    void *next = NULL;

    open_sim(&js, 3, 1);
    s = make(&js, 16);
    for (unsigned i = 0; i < 6; i++)
        put(&js, s, keys[i], "v");
    put(&js, s, "b/1", NULL);
    put(&js, s, "b/1x", "v");
    do {
        REQUIRE(kind_scan(&js, s, &c) >= 0);
        CHECK(c.n <= 2);
        for (uint32_t i = 0; i < c.n; i++) {
            strncat(seen, (const char *)c.records[i].key, (size_t)c.records[i].key_bytes);
            strcat(seen, " ");
        }
        free(next);
        next = NULL;
        if (c.next) {
            next = mem_new(c.next_bytes);
            memcpy(next, c.next, c.next_bytes);
        }
        shard_scan_release(&c);
        c.from = next;
        c.from_bytes = c.next_bytes;
        calls++;
    } while (next);
    CHECK(strcmp(seen, "b b/10 b/1x b/2 ") == 0);
    CHECK_EQ(calls, 2);
    c = (struct shard_scan){ .limit = 100, .max_bytes = 1 };
    REQUIRE(kind_scan(&js, s, &c) >= 0);
    CHECK_EQ(c.n, 1); /* one is given always */
    CHECK(c.next && c.next_bytes == 1);
    shard_scan_release(&c);
    c = (struct shard_scan){ .limit = 0 };
    CHECK_EQ(kind_scan(&js, s, &c), E_INVALID);
    shard_unref(s);
    end_sim(&js);
}

static void test_long_keys_are_found_though_they_share_their_beginning(void)
{
    struct jrn_sim js;
    struct shard *s;
    char key[2100];
    int rc;

    open_sim(&js, 4, 1);
    s = make(&js, 16);
    for (unsigned n = 995; n < 1005; n++) {
        char value[16];

        memset(key, 'x', n);
        key[n] = '\0';
        snprintf(value, sizeof value, "%u", n);
        put(&js, s, key, value);
    }
    memset(key, 'x', 2000);
    key[2000] = '\0';
    put(&js, s, key, "2000");
    key[1500] = 'y';
    kind_value(&js, s, key, &rc);
    CHECK_EQ(rc, E_NOTFOUND);
    put(&js, s, key, "other");
    CHECK(strcmp(kind_value(&js, s, key, &rc), "other") == 0);
    key[1500] = 'x';
    CHECK(strcmp(kind_value(&js, s, key, &rc), "2000") == 0);
    for (unsigned n = 995; n < 1005; n++) {
        char value[16];

        memset(key, 'x', n);
        key[n] = '\0';
        snprintf(value, sizeof value, "%u", n);
        CHECK(strcmp(kind_value(&js, s, key, &rc), value) == 0);
    }
    shard_unref(s);
    end_sim(&js);
}

/* Enough that most of it is in segments. */
static void fill(struct jrn_sim *js, struct shard *s, unsigned n)
{
    static char value[2000];
    char key[16];

    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof key, "k%u", i % 40);
        snprintf(value, sizeof value, "v%u ", i);
        memset(value + strlen(value), 'z', sizeof value - 1 - strlen(value));
        put(js, s, key, value);
    }
}

static void filled_check(struct jrn_sim *js, struct shard *s, unsigned n)
{
    for (unsigned k = 0; k < 40; k++) {
        unsigned last = (n - 1 - k) / 40 * 40 + k, got = 0;
        char key[16];
        int rc;

        snprintf(key, sizeof key, "k%u", k);
        CHECK(sscanf(kind_value(js, s, key, &rc), "v%u", &got) == 1);
        CHECK_EQ(got, last);
    }
}

/* direct_from: batches from so many bytes on lie in segments from the first. */
static void made_again(unsigned how, uint32_t direct_from)
{
    struct jrn_sim js;
    struct shard *s;
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(&js, 5 + how, 32 << 20, 2);
    js.conf.direct_from = direct_from;
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    s = make(&js, 16);
    fill(&js, s, 230);
    call_wait_ms(&js, 50);
    CHECK(js.st->segments.by_id.count > 0);
    CHECK((atomic_load(&js.st->bytes.direct) > 0) == (direct_from < UINT32_MAX));
    filled_check(&js, s, 230);
    shard_unref(s);
    if (how == 0)
        jrn_sim_close(&js);
    else if (how == 3)
        jrn_sim_kill(&js, true);
    else
        jrn_sim_crash(&js, how == 1);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    s = call_open(&js, 16, NULL);
    REQUIRE(s != NULL);
    filled_check(&js, s, 230);
    CHECK_EQ(rows_of(&js, ROW_NAME), 40);
    shard_unref(s);
    end_sim(&js);
}

static void test_the_index_is_made_again_when_rows_are_lost(void)
{
    for (unsigned how = 0; how < 4; how++)
        made_again(how, UINT32_MAX);
}

static int row_add(void *ctx, const void *key, size_t key_bytes, const void *value,
                   size_t value_bytes)
{
    struct buf **all = ctx;
    const uint8_t table = *(const uint8_t *)key;

    if (table == ROW_NAME || table == ROW_NAMED) {
        struct buf *more = buf_new((*all)->len + key_bytes + value_bytes);

        memcpy(more->mem, (*all)->mem, (*all)->len);
        memcpy(more->mem + (*all)->len, key, key_bytes);
        memcpy(more->mem + (*all)->len + key_bytes, value, value_bytes);
        more->len = (*all)->len + key_bytes + value_bytes;
        buf_unref(*all);
        *all = more;
    }
    return 0;
}

/* Every row of every index of keys, one behind the other. */
static struct buf *key_rows(struct jrn_sim *js)
{
    struct buf *all = buf_new(0);

    REQUIRE(rows_scan(js->st->rows, "", 0, false, row_add, &all) >= 0);
    return all;
}

static void test_all_indexes_are_made_again_by_themselves_when_rows_are_lost(void)
{
    for (unsigned how = 0; how < 3; how++) {
        struct jrn_sim js;
        struct err e = { 0 };
        struct buf *before, *after;

        open_sim(&js, 50 + how, 2);
        for (unsigned i = 0; i < 4; i++) {
            struct shard *s = make(&js, 16 + i);
            int rc;

            fill(&js, s, 30 + 50 * i);
            kind_value(&js, s, "k1", &rc); /* the index has come to the end */
            if (i == 1)
                CHECK_EQ(call_trim(&js, s, 20), 0);
            shard_unref(s);
        }
        CHECK_EQ(call_delete(&js, 18), 0);
        call_wait_ms(&js, 500);
        before = key_rows(&js);
        CHECK(before->len > 3 * 30 * 16);
        if (how == 0)
            jrn_sim_crash(&js, true);
        else
            jrn_sim_kill(&js, true);
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        if (how == 2) { /* not all of it in one life */
            jrn_sim_close(&js);
            REQUIRE(jrn_sim_open(&js, &e) >= 0);
        }
        call_wait_ms(&js, 500);
        after = key_rows(&js);
        CHECK_EQ(after->len, before->len);
        CHECK(after->len == before->len && memcmp(after->mem, before->mem, after->len) == 0);
        buf_unref(before);
        buf_unref(after);
        end_sim(&js);
    }
}

static void test_keys_of_direct_batches_are_found_and_made_again(void)
{
    for (unsigned how = 0; how < 4; how++)
        made_again(how, 1000);
}

static void test_trimmed_keys_are_not_found_and_their_rows_go(void)
{
    struct shard_scan c = { .limit = 100, .max_bytes = 1 << 20 };
    struct jrn_sim js;
    struct shard *s;
    int rc;

    open_sim(&js, 9, 1);
    s = make(&js, 16);
    put(&js, s, "old", "1");
    put(&js, s, "both", "2");
    put(&js, s, "both", "3");
    kind_value(&js, s, "old", &rc);
    CHECK_EQ(rc, 0);
    CHECK_EQ(call_trim(&js, s, 2), 0);
    kind_value(&js, s, "old", &rc);
    CHECK_EQ(rc, E_NOTFOUND);
    REQUIRE(kind_scan(&js, s, &c) >= 0);
    CHECK_EQ(c.n, 1);
    shard_scan_release(&c);
    call_wait_ms(&js, 10);
    CHECK_EQ(rows_of(&js, ROW_NAME), 1);
    shard_unref(s);
    end_sim(&js);
}

static void test_the_rows_of_a_deleted_shard_go_even_over_a_crash(void)
{
    for (uint64_t seed = 20; seed < 60; seed++) {
        struct jrn_sim js;
        struct shard *s;
        struct err e = { 0 };
        int rc;

        open_sim(&js, seed, 1 + (unsigned)seed % 2);
        s = make(&js, 16);
        for (unsigned i = 0; i < 20; i++) {
            struct batch_new_record r[200];
            char keys[200][16];

            for (unsigned k = 0; k < 200; k++) {
                snprintf(keys[k], sizeof keys[k], "k%u.%u", i, k);
                r[k] = (struct batch_new_record){
                    .key = keys[k], .key_bytes = strlen(keys[k]), .value = "v", .value_bytes = 1
                };
            }
            REQUIRE(call_append(&js, s, kind_batch(r, 200, CODEC_NONE), NULL) >= 0);
        }
        kind_value(&js, s, "k19.199", &rc);
        CHECK_EQ(rc, 0);
        CHECK_EQ(rows_of(&js, ROW_NAME), 4000);
        CHECK_EQ(call_delete(&js, 16), 0);
        shard_unref(s);
        for (unsigned i = 0; i < seed % 20 * 3; i++)
            sim_step(js.sim);
        if (seed % 4 == 0)
            jrn_sim_close(&js);
        else
            jrn_sim_crash(&js, seed % 4 == 1);
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        call_wait_ms(&js, 50);
        CHECK_EQ(rows_of(&js, ROW_NAME), 0);
        CHECK_EQ(rows_of(&js, ROW_NAMED), 0);
        end_sim(&js);
    }
}

static void test_other_kinds_have_no_keys(void)
{
    struct jrn_sim js;
    struct shard *s;
    int rc;

    open_sim(&js, 10, 1);
    REQUIRE(call_create(&js, 16, SHARD_CLASS_DATA) >= 0);
    s = call_open(&js, 16, NULL);
    put(&js, s, "k", "v");
    kind_value(&js, s, "k", &rc);
    CHECK_EQ(rc, E_UNSUPPORTED);
    call_wait_ms(&js, 10);
    CHECK_EQ(rows_of(&js, ROW_NAME), 0);
    shard_unref(s);
    end_sim(&js);
}

static void test_an_internal_shard_can_be_keyed_and_is_compacted_by_policy(void)
{
    struct jrn_change c = {
        .op = JRN_SHARD_CREATE, .shard = 16, .kind = SHARD_ROCKSDB, .class = SHARD_CLASS_INTERNAL
    };
    struct shard_policy p;
    struct err e = { 0 };
    struct jrn_sim js;
    struct shard *s;
    int rc;

    open_sim(&js, 11, 1);
    REQUIRE(call_update(&js, &c, 1) >= 0);
    s = call_open(&js, 16, NULL);
    CHECK(s->policy.flags & SHARD_COMPACTED);
    put(&js, s, "k", "v");
    CHECK(strcmp(kind_value(&js, s, "k", &rc), "v") == 0);
    CHECK_EQ(call_trim(&js, s, 0), 0);
    c.op = JRN_SHARD_POLICY; /* whose flags do not say so */
    c.policy = (struct shard_policy){ .flags = SHARD_EXPIRES, .retention_ms = 1000000 };
    REQUIRE(call_update(&js, &c, 1) >= 0);
    shard_policy(s, &p);
    CHECK_EQ(p.flags, SHARD_EXPIRES | SHARD_COMPACTED);
    shard_unref(s);
    jrn_sim_close(&js);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    s = call_open(&js, 16, NULL);
    shard_policy(s, &p);
    CHECK_EQ(p.flags, SHARD_EXPIRES | SHARD_COMPACTED);
    shard_unref(s);
    end_sim(&js);
}

TEST_MAIN(T(a_get_sees_what_was_appended_just_before)
              T(a_record_comes_with_offset_time_and_headers_from_any_codec)
                  T(a_scan_gives_keys_in_order_piece_by_piece)
                      T(long_keys_are_found_though_they_share_their_beginning)
                          T(the_index_is_made_again_when_rows_are_lost) T(
                              all_indexes_are_made_again_by_themselves_when_rows_are_lost)
                              T(keys_of_direct_batches_are_found_and_made_again) T(
                                  trimmed_keys_are_not_found_and_their_rows_go)
                                  T(the_rows_of_a_deleted_shard_go_even_over_a_crash) T(
                                      other_kinds_have_no_keys)
                                      T(an_internal_shard_can_be_keyed_and_is_compacted_by_policy))
