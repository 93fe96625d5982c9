/* A real store with compacted shards, looked at from outside: verify finds nothing wrong, the view is the same when the rows are lost,
 * and so does who has read docs/format.md alone. test-limit: 300 */
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/logger.h"
#include "journal/inspect.h"
#include "tests/check.h"
#include "tests/journal/store_maker.h"

enum { COMPACTED = 16, PLAIN = 17, OTHER = 18, KEYS = 7, ROUNDS_MAX = 4000, SEGMENTS_MAX = 1000 };

#define T0 INT64_C(1700000000000)

static char folder[4000];

static const struct journal_conf conf = { .wal_budget = 2 * 65536,
                                          .wal_extent = 65536,
                                          .slab_first = 8 * 65536,
                                          .slab_max = 16 * 65536,
                                          .space_floor = 4096,
                                          .segment_bytes = 10000,
                                          .compact_check_ms = 10,
                                          .delete_grace_ms = 20 };

static int shell(const char *fmt, ...)
{
    char line[9000];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    return system(line);
}

static struct inspect *view(void)
{
    struct inspect *in = NULL;
    struct err e = { 0 };
    int rc = inspect_open(&in, folder, &e);

    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    REQUIRE(rc >= 0);
    return in;
}

static uint64_t cleaned(uint64_t shard)
{
    struct inspect *in = view();
    struct inspect_shard s;

    REQUIRE(inspect_shard(in, shard, &s) >= 0);
    inspect_close(in);
    return s.cleaned;
}

static void append(struct store *s, uint64_t id, uint64_t *end, unsigned i)
{
    struct store_batch b = { .base = *end,
                             .n = 1 + i % 4,
                             .value_bytes = 200,
                             .time = T0 + (int64_t)i * 100,
                             .codec = (enum batch_codec)(i % CODEC_COUNT),
                             .producer = id == OTHER ? 5 : 0,
                             .sequence = (int32_t)*end,
                             .keys = KEYS };

    REQUIRE(store_append(s, id, &b) == *end);
    *end += b.n;
}

/* Appends until both compacted shards have been cleaned twice. */
static void make_store(void)
{
    uint64_t end[3] = { 0 };
    struct store s;
    unsigned i = 0;

    maker_open(&s, folder, &conf);
    store_create_compacted(&s, COMPACTED);
    store_create(&s, PLAIN, SHARD_CLASS_DATA);
    store_create_compacted(&s, OTHER);
    while (i < ROUNDS_MAX &&
           (i < 400 || i % 50 || cleaned(COMPACTED) < 500 || cleaned(OTHER) < 500)) {
        for (uint64_t id = COMPACTED; id <= OTHER; id++)
            append(&s, id, &end[id - COMPACTED], i);
        i++;
    }
    CHECK(i < ROUNDS_MAX);
    store_trim(&s, OTHER, 5);
    maker_close(&s);
}

static void make_once(void)
{
    static const char name[] = "/tmp/weir-compact-XXXXXX";

    if (folder[0])
        return;
    logger_to(-1);
    snprintf(folder, sizeof folder, "%s", name);
    REQUIRE(mkdtemp(folder) != NULL);
    make_store();
}

static int count_records(void *ctx, const struct inspect_batch *b)
{
    uint64_t *records = ctx;

    CHECK(b->ok);
    *records += (uint64_t)b->head.record_count;
    return 0;
}

struct walk {
    struct inspect *in;
    uint64_t shard, records, next;
};

static int see_run(void *ctx, const struct inspect_run *run)
{
    struct walk *w = ctx;

    CHECK(w->next == 0 || run->base == w->next);
    w->next = run->end;
    return inspect_run_batches(w->in, w->shard, run, count_records, &w->records);
}

static uint64_t records_of(struct inspect *in, uint64_t shard)
{
    struct walk w = { .in = in, .shard = shard };
    struct inspect_shard s;

    REQUIRE(inspect_shard(in, shard, &s) >= 0);
    CHECK_EQ(s.n_holes, 0);
    CHECK_EQ(inspect_runs(in, shard, see_run, &w), 0);
    CHECK_EQ(w.next, s.end);
    if (shard == PLAIN)
        CHECK_EQ(w.records, s.end);
    else
        CHECK(w.records < s.end - s.cleaned + KEYS + 1 + 4);
    return w.records;
}

static void test_verify_finds_nothing_wrong(void)
{
    struct inspect_report r;
    struct err e = { 0 };

    make_once();
    REQUIRE(inspect_verify(folder, INSPECT_ALL, 0, &r, &e) >= 0);
    for (unsigned i = 0; i < r.n; i++)
        fprintf(stderr, "%s\n", r.list[i].text);
    CHECK_EQ(r.n, 0);
    CHECK(r.segments > 0);
    inspect_report_free(&r);
}

struct counted {
    struct inspect *in;
    uint64_t shard, n;
};

static int count_batch(void *ctx, const struct inspect_batch *b)
{
    struct counted *c = ctx;
    struct inspect_shard s;
    uint64_t end = (uint64_t)b->head.base_offset + (uint64_t)b->head.last_offset_delta + 1;

    REQUIRE(inspect_shard(c->in, b->shard, &s) >= 0);
    c->n += end > s.start && b->head.record_count > 0;
    return 0;
}

static int count_run(void *ctx, const struct inspect_run *run)
{
    struct counted *c = ctx;

    return run->segment ? inspect_run_batches(c->in, c->shard, run, count_batch, c) : 0;
}

/* With records, in segments. */
static uint64_t live_batches(void)
{
    struct counted c = { .in = view() };

    for (c.shard = COMPACTED; c.shard <= OTHER; c.shard++)
        CHECK_EQ(inspect_runs(c.in, c.shard, count_run, &c), 0);
    inspect_close(c.in);
    return c.n;
}

static void test_the_view_is_the_same_without_rows(void)
{
    uint64_t records[3];
    struct inspect_info info;
    struct inspect *in;

    make_once();
    in = view();
    for (uint64_t id = COMPACTED; id <= OTHER; id++)
        records[id - COMPACTED] = records_of(in, id);
    inspect_close(in);
    REQUIRE(shell("mv %s/rows %s.rows", folder, folder) == 0);
    in = view();
    inspect_info(in, &info);
    CHECK(info.rows_lost);
    for (uint64_t id = COMPACTED; id <= OTHER; id++)
        CHECK_EQ(records_of(in, id), records[id - COMPACTED]);
    inspect_close(in);
    REQUIRE(shell("mv %s.rows %s/rows", folder, folder) == 0);
}

struct identities {
    struct identity x[SEGMENTS_MAX];
    unsigned n;
};

static int identity_note(void *ctx, const struct identity *x)
{
    struct identities *all = ctx;

    if (x->group != 0 && /* the catalogue's */ all->n < SEGMENTS_MAX)
        all->x[all->n++] = *x;
    return 0;
}

static void identities(struct identities *all)
{
    struct inspect *in = view();

    all->n = 0;
    REQUIRE(inspect_logical(in, UINT64_MAX, identity_note, all) >= 0);
    for (unsigned i = 0; i < all->n; i++) {
        struct identity *x = &all->x[i];

        REQUIRE(inspect_segment_identity(in, x->group, x->first, x) >= 0);
        CHECK(!x->several);
    }
    inspect_close(in);
}

/* All that is in segments belongs to one of the log's, and is found there whether rows say where it lies or
 * the segments' numbers. */
static void test_identities_are_the_same_without_rows(void)
{
    static struct identities with, without;
    uint64_t batches = 0;

    make_once();
    identities(&with);
    REQUIRE(shell("mv %s/rows %s.rows", folder, folder) == 0);
    identities(&without);
    REQUIRE(shell("mv %s.rows %s/rows", folder, folder) == 0);
    CHECK(with.n > 5 && with.n < SEGMENTS_MAX);
    REQUIRE(with.n == without.n);
    for (unsigned i = 0; i < with.n; i++) {
        CHECK_EQ(with.x[i].first, without.x[i].first);
        CHECK_EQ(with.x[i].n_batches, without.x[i].n_batches);
        CHECK(memcmp(&with.x[i].sum, &without.x[i].sum, sizeof with.x[i].sum) == 0);
        batches += with.x[i].n_batches;
    }
    CHECK_EQ(batches, live_batches());
}

/* Batches of the view, in the reader's words: base offsets and lengths. */
static int print_batch(void *ctx, const struct inspect_batch *b)
{
    struct inspect_shard s;
    struct walk *w = ctx;
    uint64_t end = (uint64_t)b->head.base_offset + (uint64_t)b->head.last_offset_delta + 1;
    FILE *out = (FILE *)(uintptr_t)w->records;

    if (inspect_shard(w->in, b->shard, &s) >= 0 && end > s.start)
        fprintf(out, "batch %" PRIu64 " %" PRId64 " %d %" PRIu64 "\n", b->shard,
                b->head.base_offset, b->head.last_offset_delta + 1, b->bytes);
    return 0;
}

static int print_run(void *ctx, const struct inspect_run *run)
{
    struct walk *w = ctx;

    return inspect_run_batches(w->in, w->shard, run, print_batch, w);
}

static void test_the_independent_reader_sees_the_same(void)
{
    struct inspect *in;
    char name[4100];
    FILE *out;

    make_once();
    in = view();
    snprintf(name, sizeof name, "%s.ours", folder);
    out = fopen(name, "w");
    REQUIRE(out != NULL);
    for (uint64_t id = COMPACTED; id <= OTHER; id++) {
        struct walk w = { .in = in, .shard = id, .records = (uint64_t)(uintptr_t)out };

        CHECK_EQ(inspect_runs(in, id, print_run, &w), 0);
    }
    fclose(out);
    inspect_close(in);
    REQUIRE(shell("/usr/bin/python3 tests/format/read_store.py %s >%s.all", folder, folder) == 0);
    CHECK_EQ(shell("grep '^batch' %s.all | cut -d' ' -f1-5 | cmp - %s.ours", folder, folder), 0);
}

static void test_ends_with_the_store_as_it_was(void)
{
    make_once();
    CHECK_EQ(shell("rm -rf %s %s.*", folder, folder), 0);
}

TEST_MAIN(T(verify_finds_nothing_wrong) T(the_view_is_the_same_without_rows)
              T(identities_are_the_same_without_rows) T(the_independent_reader_sees_the_same)
                  T(ends_with_the_store_as_it_was))
