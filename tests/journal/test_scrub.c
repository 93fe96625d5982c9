/* The scrub: a bit that flips in anything at rest is told once, at its place; nothing else ever is. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/logger.h"
#include "journal/core.h"
#include "journal/destage.h"
#include "journal/rewrite.h"
#include "journal/scrub.h"
#include "journal/stats.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

enum { LOOPS = 2, SHARDS = 5, STEPS = 4000000 };

static int log_fd = -1;

static void store_init(struct jrn_sim *js, uint64_t seed, uint64_t rate)
{
    if (log_fd < 0)
        log_fd = memfd_create("log", 0);
    REQUIRE(log_fd >= 0);
    logger_setup(LOG_LEVEL_ERROR, true);
    logger_to(log_fd);
    jrn_sim_init(js, seed, 64 << 20, LOOPS);
    js->conf.scrub_bytes_per_s = rate;
    js->conf.scrub_interval_ms = 1;
}

struct cycles {
    struct jrn_sim *js;
    uint64_t until;
};

static bool cycles_done(void *ctx)
{
    struct cycles *c = ctx;

    return metric_count(&c->js->st->stats->scrub_cycles) >= c->until;
}

/* Until n cycles have ended from now on: all but the first of them began after this. */
static void cycles_wait(struct jrn_sim *js, unsigned n)
{
    struct cycles c = { js, metric_count(&js->st->stats->scrub_cycles) + n };

    REQUIRE(sim_run_until(js->sim, cycles_done, &c, STEPS));
}

static bool is_quiet(void *ctx)
{
    struct store *st = ((struct jrn_sim *)ctx)->st;

    return destage_idle(st->destage) && rewrite_idle(st->rewrite) && !st->rows_running &&
           !st->rows_first;
}

/* A store with closed WAL and segments, of batches of up to max_value bytes, at rest. */
static void store_fill(struct jrn_sim *js, unsigned n, unsigned max_value)
{
    struct err e = { 0 };
    struct shard *s[SHARDS];

    REQUIRE(jrn_sim_open(js, &e) >= 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        REQUIRE(call_create(js, 16 + i, SHARD_CLASS_DATA) == 0);
        s[i] = call_open(js, 16 + i, NULL);
    }
    for (unsigned i = 0; i < n; i++)
        REQUIRE(call_append(js, s[i % 7 % SHARDS],
                            call_batch(i, 1 + i % 3, i * 997 % max_value / (1 + i % 3)),
                            NULL) == 0);
    for (unsigned i = 0; i < SHARDS; i++)
        shard_unref(s[i]);
    call_wait_ms(js, 200);
    REQUIRE(sim_run_until(js->sim, is_quiet, js, STEPS));
    cycles_wait(js, 2);
}

static uint64_t found(const struct jrn_sim *js)
{
    return metric_count(&js->st->stats->scrub_found);
}

/* --- what is stored where --- */

struct stored {
    char file[16];
    uint64_t from, end;
};
static struct stored stored[4096];
static unsigned n_stored;

static void stored_add(const char *file, uint64_t from, uint64_t end)
{
    REQUIRE(n_stored < sizeof stored / sizeof stored[0]);
    stored[n_stored] = (struct stored){ .from = from, .end = end };
    snprintf(stored[n_stored++].file, sizeof stored[0].file, "%s", file);
}

static void stored_in(uint64_t place, uint64_t from, uint64_t end)
{
    char file[16];

    snprintf(file, sizeof file, "slab-%06u", (unsigned)(place_slab(place) % 1000000));
    stored_add(file, place_pos(place) + from, place_pos(place) + end);
}

static void stored_segment(const struct row_segment *row)
{
    uint64_t left = row->index_pos + row->index_bytes;

    for (unsigned i = 0; i < row->n_extents; i++) {
        uint64_t room = seg_extent_room(row->extents[i].log2), here = left < room ? left : room;

        stored_in(row->extents[i].place, 0, PAGE_BYTES);
        if (here > 0)
            stored_in(row->extents[i].place, PAGE_BYTES, PAGE_BYTES + here);
        left -= here;
        if (i + 1 == row->n_extents)
            stored_in(row->extents[i].place, room, room + PAGE_BYTES);
    }
}

static void stored_map(struct jrn_sim *js)
{
    struct store *st = js->st;
    uint64_t pos = 0;
    void *value;

    n_stored = 0;
    for (unsigned i = 0; i < SUPER_COPIES; i++)
        stored_add("superblock", i * SUPER_BYTES, (i + 1) * SUPER_BYTES);
    for (unsigned i = 0; i < st->slabs.n; i++)
        stored_in(place_of(st->slabs.list[i].number, 0), 0, PAGE_BYTES);
    for (unsigned i = 0; i < st->wal.n; i++) {
        const struct wal_extent *x = st->wal.list[i];

        if (x->end_lsn == LSN_OPEN)
            continue;
        stored_in(x->place, 0, PAGE_BYTES);
        stored_in(x->place, PAGE_BYTES, PAGE_BYTES + (x->end_lsn - x->first_lsn));
    }
    while (hash_next(&st->segments.by_id, &pos, NULL, &value))
        stored_segment(&((struct segment *)value)->row);
}

/* --- what was said --- */

static void log_clear(void)
{
    CHECK(ftruncate(log_fd, 0) == 0);
    CHECK(lseek(log_fd, 0, SEEK_SET) == 0);
}

/* How many findings were logged since, and whether the last names this byte. */
static unsigned log_findings(const char *file, uint64_t byte, bool *names)
{
    static char text[1 << 16];
    ssize_t n = pread(log_fd, text, sizeof text - 1, 0);
    unsigned lines = 0;
    char name[32];

    text[n > 0 ? n : 0] = 0;
    *names = false;
    for (char *p = text; (p = strstr(p, "\"scrub.damage\"")) != NULL; p++) {
        const char *at = strstr(p, "\"file\":\""), *from = strstr(p, "\"byte\":");
        const char *bytes = strstr(p, "\"bytes\":");
        uint64_t first;

        lines++;
        REQUIRE(at && from && bytes);
        first = strtoull(from + 7, NULL, 10);
        snprintf(name, sizeof name, "\"%s\"", file);
        *names = strncmp(at + 7, name, strlen(name)) == 0 && byte >= first &&
                 byte < first + strtoull(bytes + 8, NULL, 10);
    }
    return lines;
}

/* One flip: told once, at its place, and no more once it is taken back. */
static void flip_is_found(struct jrn_sim *js, const char *file, uint64_t byte)
{
    uint64_t before = found(js);
    unsigned lines;
    bool names;

    log_clear();
    REQUIRE(sim_disk_rot(js->disk, file, byte) >= 0);
    cycles_wait(js, 4);
    lines = log_findings(file, byte, &names);
    if (found(js) != before + 1 || lines != 1 || !names)
        fprintf(stderr, "%s byte %" PRIu64 ": found %" PRIu64 ", told %u, its place %d\n", file,
                byte, found(js) - before, lines, names);
    CHECK(found(js) == before + 1 && lines == 1 && names);
    CHECK_EQ(metric_get(&js->st->stats->scrub_damaged), 1);
}

/* sim_disk_rot draws the bit: taking it back is a new store. */
static void flips(uint64_t rate, unsigned n, unsigned max_value, unsigned step)
{
    struct rng r;
    unsigned k = 0, maps = 1;

    rng_seed(&r, rate + max_value);
    for (unsigned i = 0; i < maps; i += step) {
        struct jrn_sim js;
        const struct stored *s;

        store_init(&js, 1, rate);
        store_fill(&js, n, max_value);
        CHECK_EQ(found(&js), 0);
        stored_map(&js);
        maps = n_stored;
        s = &stored[i < maps ? i : 0];
        flip_is_found(&js, s->file,
                      k % 3 == 0   ? s->from
                      : k % 3 == 1 ? s->end - 1
                                   : s->from + rng_below(&r, s->end - s->from));
        k++;
        jrn_sim_close(&js);
        jrn_sim_fini(&js);
    }
    CHECK(k > 10);
}

static void test_each_flipped_bit_at_rest_is_told_once_at_its_place(void)
{
    flips(1 << 30, 500, 3000, 1);
}

static void test_so_it_is_when_pieces_are_smaller_than_runs_and_batches(void)
{
    flips(80 << 10, 90, 20000, 3);
}

static void test_any_byte_of_a_segment_counts(void)
{
    struct rng r;

    rng_seed(&r, 5);
    for (unsigned i = 0; i < 60; i++) {
        struct jrn_sim js;
        const struct stored *s;

        store_init(&js, 2, i % 2 ? 200 << 10 : 1 << 30);
        store_fill(&js, 160, 6000);
        stored_map(&js);
        do
            s = &stored[rng_below(&r, n_stored)];
        while (s->end - s->from <= PAGE_BYTES || strcmp(s->file, "superblock") == 0);
        flip_is_found(&js, s->file, s->from + rng_below(&r, s->end - s->from));
        jrn_sim_close(&js);
        jrn_sim_fini(&js);
    }
}

static void test_a_place_that_cannot_be_read_is_told(void)
{
    struct jrn_sim js;

    store_init(&js, 3, 1 << 30);
    store_fill(&js, 300, 3000);
    log_clear();
    js.disk->faults.nth[SIM_FAULT_READ] = 9;
    cycles_wait(&js, 3);
    CHECK_EQ(found(&js), 1);
    CHECK_EQ(metric_get(&js.st->stats->scrub_damaged), 0); /* it could be read the next time */
    CHECK_EQ(journal_state(js.j), JRN_OK);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_the_rate_is_kept(void)
{
    enum { RATE = 256 << 10 };
    uint64_t before, began;
    struct jrn_sim js;

    store_init(&js, 4, RATE);
    store_fill(&js, 500, 3000);
    cycles_wait(&js, 1);
    before = metric_count(&js.st->stats->scrub_bytes);
    began = sim_now_us(js.sim);
    cycles_wait(&js, 3);
    before = metric_count(&js.st->stats->scrub_bytes) - before;
    began = sim_now_us(js.sim) - began;
    CHECK(before > 3 * 100000);
    CHECK(before * 1000000 / began <= RATE + RATE / 50);
    CHECK(before * 1000000 / began >= RATE / 2);
    CHECK(metric_get(&js.st->stats->scrub_cycle_us) > 0);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_rate_zero_is_no_scrub(void)
{
    struct err e = { 0 };
    struct jrn_sim js;

    store_init(&js, 5, 0);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    call_wait_ms(&js, 100000);
    CHECK_EQ(metric_count(&js.st->stats->scrub_bytes), 0);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

TEST_MAIN(T(each_flipped_bit_at_rest_is_told_once_at_its_place)
              T(so_it_is_when_pieces_are_smaller_than_runs_and_batches)
                  T(any_byte_of_a_segment_counts) T(a_place_that_cannot_be_read_is_told)
                      T(the_rate_is_kept) T(rate_zero_is_no_scrub))
