/* Looking into a real store: a view is what was written, verify finds every flipped bit of what is
 * stored and nothing else. test-limit: 600 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/logger.h"
#include "base/rng.h"
#include "journal/inspect.h"
#include "tests/check.h"
#include "tests/journal/store_maker.h"

#define T0 INT64_C(1700000000000)

enum { A = 16, B = 17, C = 18, GONE = 19, INTERNAL = 20, N_BATCHES = 150, TRIMMED = 200 };

static char folder[4000];

static const struct journal_conf conf = { .wal_budget = 3 * 65536,
                                          .wal_extent = 65536,
                                          .slab_first = 8 * 65536,
                                          .slab_max = 16 * 65536,
                                          .space_floor = 4096,
                                          .delete_grace_ms = 20 };

static void append_batch(struct store *s, uint64_t id, uint64_t *end, unsigned i)
{
    struct store_batch b = { .base = *end,
                             .n = 3,
                             .value_bytes = 60 + i * 29 % 700,
                             .time = T0 + (int64_t)i * 100,
                             .codec = i % 4 == 1 ? CODEC_LZ4 : CODEC_NONE,
                             .producer = id == C ? 5 : 0,
                             .sequence = (int32_t)*end };

    REQUIRE(store_append(s, id, &b) == *end);
    *end += 3;
}

/* Several shards over two lives: most of it in segments, the rest in the live WAL. */
static void make_store(void)
{
    uint64_t end[5] = { 0 };
    struct store s;

    maker_open(&s, folder, &conf);
    for (uint64_t id = A; id <= INTERNAL; id++)
        store_create(&s, id, id == INTERNAL ? SHARD_CLASS_INTERNAL : SHARD_CLASS_DATA);
    for (unsigned i = 0; i < N_BATCHES; i++) {
        for (uint64_t id = A; id <= C; id++)
            append_batch(&s, id, &end[id - A], i);
        if (i < 60)
            append_batch(&s, GONE, &end[GONE - A], i);
        if (i % 10 == 0)
            append_batch(&s, INTERNAL, &end[INTERNAL - A], i);
        if (i == 60)
            store_delete(&s, GONE);
        if (i == 120)
            store_trim(&s, B, TRIMMED);
    }
    store_put_row(&s, "Xkey", 4, "value", 5);
    maker_close(&s);
    maker_open(&s, folder, &conf);
    append_batch(&s, A, &end[0], N_BATCHES);
    maker_close(&s);
}

static void shell(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void shell(const char *fmt, ...)
{
    char line[9000];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    REQUIRE(system(line) == 0);
}

static void make_once(void)
{
    static bool made;
    const char *scratch = getenv("TMPDIR");

    if (made)
        return;
    made = true;
    logger_to(-1);
    snprintf(folder, sizeof folder, "%s/inspect.%ld", scratch ? scratch : "/tmp", (long)getpid());
    make_store();
}

static struct inspect *open_view(void)
{
    struct inspect *in = NULL;
    struct err e = { 0 };
    int rc = inspect_open(&in, folder, &e);

    if (rc < 0)
        fprintf(stderr, "inspect_open: %s\n", e.text);
    REQUIRE(rc >= 0);
    return in;
}

/* --- the view --------------------------------------------------------------------------------- */

struct walk {
    struct inspect *in;
    uint64_t shard, next, n_records;
    unsigned n;
    int64_t step; /* of time, from batch to batch */
};

static int see_record_batch(void *ctx, const struct inspect_batch *b)
{
    struct walk *w = ctx;
    struct batch_iter it;
    struct batch_record r;

    CHECK(b->ok);
    REQUIRE(batch_iter_open(&it, b->mem, b->bytes, 1 << 20) >= 0);
    while (batch_iter_next(&it, &r) == 1) {
        char want[64];
        int n =
            snprintf(want, sizeof want, "%" PRIu64 ".%" PRIu64 ".", w->shard, (uint64_t)r.offset);

        CHECK_EQ(r.offset, w->next);
        CHECK_EQ(r.timestamp, T0 + (r.offset / 3) * w->step + r.offset % 3);
        CHECK(r.value_bytes >= n && memcmp(r.value, want, (size_t)n) == 0);
        w->next = (uint64_t)r.offset + 1;
        w->n_records++;
    }
    batch_iter_close(&it);
    return 0;
}

static int see_run(void *ctx, const struct inspect_run *run)
{
    struct walk *w = ctx;

    if (w->n++ == 0)
        w->next = run->base;
    CHECK_EQ(run->base, w->next);
    return inspect_run_batches(w->in, w->shard, run, see_record_batch, w);
}

static void check_shard(struct inspect *in, uint64_t id, uint64_t start, uint64_t end)
{
    struct walk w = { .in = in, .shard = id, .step = id == INTERNAL ? 1000 : 100 };
    struct inspect_shard s;

    REQUIRE(inspect_shard(in, id, &s) >= 0);
    CHECK_EQ(s.start, start);
    CHECK_EQ(s.end, end);
    CHECK(!s.read_only && !s.tail_lost);
    CHECK_EQ(s.n_holes, 0);
    CHECK_EQ(inspect_runs(in, id, see_run, &w), 0);
    CHECK_EQ(w.next, end);
    CHECK(w.n_records >= end - start);
}

static int count_shard(void *ctx, const struct inspect_shard *s)
{
    ++*(unsigned *)ctx;
    return 0;
}

static int see_app_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                       size_t value_bytes)
{
    CHECK(key_bytes == 4 && memcmp(key, "Xkey", 4) == 0);
    CHECK(value_bytes == 5 && memcmp(value, "value", 5) == 0);
    ++*(unsigned *)ctx;
    return 0;
}

static int see_producer(void *ctx, int64_t id, const struct row_producer *p)
{
    CHECK_EQ(id, 5);
    CHECK_EQ(p->n, 5);
    CHECK_EQ(p->batch[4].last_sequence, 3 * N_BATCHES - 1);
    ++*(unsigned *)ctx;
    return 0;
}

static void check_view(struct inspect *in)
{
    struct inspect_shard s;
    unsigned n = 0, n_rows = 0, n_producers = 0;

    check_shard(in, A, 0, 3 * N_BATCHES + 3);
    check_shard(in, B, TRIMMED, 3 * N_BATCHES);
    check_shard(in, C, 0, 3 * N_BATCHES);
    check_shard(in, INTERNAL, 0, 3 * 15);
    CHECK_EQ(inspect_shard(in, GONE, &s), E_NOTFOUND);
    CHECK_EQ(inspect_shards(in, count_shard, &n), 0);
    CHECK_EQ(n, 4 + 1); /* and the catalogue */
    CHECK_EQ(inspect_rows(in, "X", 1, see_app_row, &n_rows), 0);
    CHECK_EQ(n_rows, 1);
    CHECK_EQ(inspect_producers(in, C, see_producer, &n_producers), 0);
    CHECK_EQ(n_producers, 1);
}

static void test_view_shows_what_was_written(void)
{
    struct inspect_info info;
    struct inspect *in;

    make_once();
    in = open_view();
    check_view(in);
    inspect_info(in, &info);
    CHECK_EQ(info.starts, 2);
    CHECK_EQ(info.wal_extent, 65536);
    CHECK(info.ckpt_lsn > 4096 && info.end_lsn > info.ckpt_lsn);
    CHECK(!info.torn && !info.rows_lost);
    CHECK(!inspect_moved(in));
    inspect_close(in);
}

static void test_view_without_rows_is_the_same(void)
{
    struct inspect_info info;
    struct inspect *in;

    make_once();
    shell("mv %s/rows %s.rows", folder, folder);
    in = open_view();
    inspect_info(in, &info);
    CHECK(info.rows_lost);
    check_view(in);
    inspect_close(in);
    shell("test ! -e %s/rows && mv %s.rows %s/rows", folder, folder, folder);
}

static void test_looking_writes_nothing(void)
{
    struct inspect_report r;
    struct err e = { 0 };

    make_once();
    shell("cd %s && find . -type f -exec sha256sum {} + | sort >%s.before", folder, folder);
    inspect_close(open_view());
    REQUIRE(inspect_verify(folder, INSPECT_ALL, 0, &r, &e) >= 0);
    inspect_report_free(&r);
    shell("cd %s && find . -type f -exec sha256sum {} + | sort | cmp - %s.before", folder, folder);
}

static void test_missing_store_is_not_found(void)
{
    struct inspect_report r;
    struct inspect *in;
    struct err e = { 0 };
    char empty[4100];

    make_once();
    snprintf(empty, sizeof empty, "%s.empty", folder);
    CHECK_EQ(inspect_open(&in, empty, &e), E_NOTFOUND);
    REQUIRE(mkdir(empty, 0700) == 0);
    CHECK_EQ(inspect_open(&in, empty, &e), E_NOTFOUND);
    CHECK_EQ(inspect_verify(empty, INSPECT_ALL, 0, &r, &e), E_NOTFOUND);
    rmdir(empty);
}

/* --- verify ----------------------------------------------------------------------------------- */

/* Bytes of a file in which something is stored. */
struct stored {
    char file[32];
    uint64_t from, end;
    bool closing; /* the last block: nothing tells its damage from a torn tail, and nothing is lost
                     with it */
};
static struct stored *stored;
static unsigned n_stored;

static void stored_add(const char *file, uint64_t from, uint64_t end)
{
    stored = mem_grow(stored, (n_stored + 1) * sizeof *stored);
    stored[n_stored] = (struct stored){ .from = from, .end = end };
    snprintf(stored[n_stored++].file, sizeof stored[0].file, "%s", file);
}

static void stored_extent(uint64_t place, uint64_t from, uint64_t end)
{
    char file[32];

    snprintf(file, sizeof file, "slab-%06u", (unsigned)place_slab(place));
    stored_add(file, place_pos(place) + from, place_pos(place) + end);
}

/* Header pages, the pages of data and index, and the footer; what lies between index and footer is
 * not written. */
static int stored_segment(void *ctx, const struct inspect_segment *s)
{
    uint64_t left = s->row->index_pos + s->row->index_bytes;

    for (unsigned i = 0; i < s->row->n_extents; i++) {
        uint64_t size = UINT64_C(1) << s->row->extents[i].log2, room = size - 4096;
        uint64_t here = left < room ? left : room;

        stored_extent(s->row->extents[i].place, 0, 4096 + here);
        left -= here;
        if (i + 1 == s->row->n_extents)
            stored_extent(s->row->extents[i].place, size - 4096, size);
    }
    return 0;
}

static int stored_wal_extent(void *ctx, const struct inspect_extent *x)
{
    stored_add(x->at.file, x->at.byte, x->at.byte + 4096);
    return 0;
}

static int stored_block(void *ctx, const struct block_head *h, const uint8_t *mem,
                        const struct inspect_place *at)
{
    stored_add(at->file, at->byte, at->byte + h->block_bytes);
    *(unsigned *)ctx = n_stored - 1;
    return 0;
}

static void stored_slab(unsigned n)
{
    char file[32];

    snprintf(file, sizeof file, "slab-%06u", n);
    stored_add(file, 0, 4096);
}

static void stored_map(void)
{
    static const struct inspect_wal calls = { stored_wal_extent, stored_block, NULL };
    struct inspect *in = open_view();
    struct inspect_info info;
    unsigned last = 0;

    inspect_info(in, &info);
    stored_add("superblock", 0, 65536);
    for (unsigned i = 0; i < info.n_slabs; i++)
        stored_slab(i);
    CHECK_EQ(inspect_segments(in, stored_segment, NULL), 0);
    CHECK_EQ(inspect_wal(in, &calls, &last, NULL), 0);
    stored[last].closing = true;
    inspect_close(in);
}

static const struct stored *stored_at(const char *file, uint64_t byte)
{
    for (unsigned i = 0; i < n_stored; i++)
        if (strcmp(stored[i].file, file) == 0 && byte >= stored[i].from && byte < stored[i].end)
            return &stored[i];
    return NULL;
}

static void flip(const char *file, uint64_t byte, unsigned bit)
{
    char path[4100];
    uint8_t c;
    int fd;

    snprintf(path, sizeof path, "%s/%s", folder, file);
    fd = open(path, O_RDWR);
    REQUIRE(fd >= 0);
    REQUIRE(pread(fd, &c, 1, (off_t)byte) == 1);
    c ^= (uint8_t)(1u << bit);
    REQUIRE(pwrite(fd, &c, 1, (off_t)byte) == 1);
    REQUIRE(fsync(fd) == 0); /* the store is read past the page cache */
    close(fd);
}

static bool names_place(const struct inspect_report *r, const char *file, uint64_t byte)
{
    for (unsigned i = 0; i < r->n; i++)
        if (strcmp(r->list[i].at.file, file) == 0 && byte >= r->list[i].at.byte &&
            byte < r->list[i].at.byte + r->list[i].bytes)
            return true;
    return false;
}

/* One flip, looked at and taken back. */
static void flip_and_verify(const char *file, uint64_t byte, unsigned bit)
{
    const struct stored *s = stored_at(file, byte);
    bool wanted = s && !s->closing, good;
    struct inspect_report r;
    struct err e = { 0 };
    int rc;

    flip(file, byte, bit);
    rc = inspect_verify(folder, INSPECT_ALL, 0, &r, &e);
    good = rc >= 0 && (wanted ? names_place(&r, file, byte) : r.n == 0);
    if (!good) {
        fprintf(stderr, "%s byte %" PRIu64 " bit %u: rc %d %s, stored %d\n", file, byte, bit, rc,
                e.text, wanted);
        for (unsigned i = 0; i < r.n; i++)
            fprintf(stderr, "    %s %" PRIu64 "+%" PRIu64 " %s\n", r.list[i].at.file,
                    r.list[i].at.byte, r.list[i].bytes, r.list[i].text);
    }
    CHECK(good);
    inspect_report_free(&r);
    flip(file, byte, bit);
}

static int extents_add(void *ctx, const struct inspect_segment *s)
{
    *(uint64_t *)ctx += s->row->n_extents;
    return 0;
}

static void test_undamaged_store_verifies(void)
{
    struct inspect_report r;
    struct inspect *in;
    struct err e = { 0 };
    uint64_t extents = 0;

    make_once();
    REQUIRE(inspect_verify(folder, INSPECT_ALL, 0, &r, &e) >= 0);
    for (unsigned i = 0; i < r.n; i++)
        fprintf(stderr, "%s\n", r.list[i].text);
    CHECK_EQ(r.n, 0);
    CHECK_EQ(r.super_copies, 4);
    CHECK(r.slabs > 0 && r.segments > 5 && r.wal_blocks > 5 && r.rows > 10);
    in = open_view();
    CHECK_EQ(inspect_segments(in, extents_add, &extents), 0);
    inspect_close(in);
    CHECK_EQ(r.extents, r.wal_extents + extents); /* one a segment, more when space was scattered */
    inspect_report_free(&r);
}

/* Every piece that is stored, at its first, its last and some byte between: 300 and more in all. */
static void test_every_flip_of_a_stored_bit_is_found_at_its_place(void)
{
    struct rng rng;
    unsigned every;

    make_once();
    stored_map();
    rng_seed(&rng, 20240611);
    every = n_stored / 90 + 1;
    for (unsigned i = 0; i < n_stored; i++) {
        uint64_t from = stored[i].from, bytes = stored[i].end - from;

        if (strncmp(stored[i].file, "slab", 4) == 0 && i % every != 0)
            continue;
        flip_and_verify(stored[i].file, from, (unsigned)rng_below(&rng, 8));
        flip_and_verify(stored[i].file, from + bytes - 1, (unsigned)rng_below(&rng, 8));
        flip_and_verify(stored[i].file, from + rng_below(&rng, bytes),
                        (unsigned)rng_below(&rng, 8));
    }
    for (unsigned i = 0; i < 30; i++) /* the parts that say what the rest is */
        flip_and_verify(stored[i % n_stored].file, stored[i % n_stored].from + rng_below(&rng, 160),
                        (unsigned)rng_below(&rng, 8));
}

static void test_flip_of_any_byte_of_a_file_is_found_or_harmless(void)
{
    struct rng rng;
    unsigned n_slabs = 0;

    make_once();
    for (unsigned i = 0; i < n_stored; i++)
        n_slabs += strncmp(stored[i].file, "slab", 4) == 0 && stored[i].from == 0;
    rng_seed(&rng, 7);
    for (unsigned i = 0; i < 60; i++) {
        char file[32];

        snprintf(file, sizeof file, "slab-%06u", (unsigned)rng_below(&rng, n_slabs));
        flip_and_verify(file, rng_below(&rng, 8 * 65536), (unsigned)rng_below(&rng, 8));
    }
}

struct rotten {
    uint64_t lsn, end_lsn;
    struct inspect_place at;
    unsigned n;
};

/* The first block that has frames of group `GROUP_DATA` or above and one behind it. */
static int pick_block(void *ctx, const struct block_head *h, const uint8_t *mem,
                      const struct inspect_place *at)
{
    struct rotten *r = ctx;
    struct block_dir d;

    if (h->n_frames == 0)
        return 0;
    block_dir_read(&d, mem, 0);
    if (d.group < 2 || ++r->n < 3)
        return 0;
    r->lsn = h->lsn;
    r->end_lsn = h->lsn + h->block_bytes;
    r->at = *at;
    return 1;
}

static int count_loss(void *ctx, const struct inspect_loss *l)
{
    struct rotten *r = ctx;

    CHECK_EQ(l->lsn, r->lsn);
    CHECK_EQ(l->end_lsn, r->end_lsn);
    CHECK(!l->accepted && l->group >= 2);
    r->n++;
    return 0;
}

struct lost {
    struct inspect *in;
    uint64_t n_holes, n_tails, n_read_only;
};

static int count_lost(void *ctx, const struct inspect_shard *s)
{
    struct lost *l = ctx;

    l->n_holes += s->n_holes;
    l->n_tails += s->tail_lost;
    l->n_read_only += s->read_only;
    return 0;
}

static void test_rot_in_the_wal_names_groups_and_lost_ranges(void)
{
    static const struct inspect_wal calls = { NULL, pick_block, NULL };
    struct inspect *in;
    struct rotten r = { 0 };
    struct lost l = { 0 };
    struct inspect_report report;
    struct err e = { 0 };

    make_once();
    in = open_view();
    CHECK_EQ(inspect_wal(in, &calls, &r, &e), 1);
    inspect_close(in);
    flip(r.at.file, r.at.byte + 200, 3);
    REQUIRE(inspect_verify(folder, INSPECT_WAL, 0, &report, &e) >= 0);
    REQUIRE(report.n == 1);
    CHECK(strcmp(report.list[0].at.file, r.at.file) == 0);
    CHECK_EQ(report.list[0].at.byte, r.at.byte);
    CHECK_EQ(report.list[0].lsn, r.lsn);
    CHECK_EQ(report.list[0].end_lsn, r.end_lsn);
    inspect_report_free(&report);
    in = open_view();
    r.n = 0;
    CHECK_EQ(inspect_losses(in, count_loss, &r), 0);
    CHECK_EQ(r.n, 1); /* one block of one group */
    l.in = in;
    CHECK_EQ(inspect_shards(in, count_lost, &l), 0);
    CHECK(l.n_read_only > 0);
    CHECK(l.n_holes > 0);
    inspect_close(in);
    flip(r.at.file, r.at.byte + 200, 3);
    in = open_view();
    check_view(in);
    inspect_close(in);
}

static void test_ends_with_the_store_as_it_was(void)
{
    struct inspect *in = open_view();

    check_view(in);
    inspect_close(in);
    free(stored);
    shell("rm -rf %s %s.*", folder, folder);
}

TEST_MAIN(T(view_shows_what_was_written) T(view_without_rows_is_the_same) T(looking_writes_nothing)
              T(missing_store_is_not_found) T(undamaged_store_verifies)
                  T(rot_in_the_wal_names_groups_and_lost_ranges)
                      T(every_flip_of_a_stored_bit_is_found_at_its_place)
                          T(flip_of_any_byte_of_a_file_is_found_or_harmless)
                              T(ends_with_the_store_as_it_was))
