/* Torn or rotten: a real WAL, damaged page by page. */
#include "base/logger.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"
#include "tests/sim/wal_look.h"

enum { SHARDS = 3, NEVER_MS = 1000000 };

/* One life of n appends of mixed sizes, ended by a power cut; all blocks were flushed. */
static void life(struct jrn_sim *js, unsigned n, bool idle_at_end)
{
    struct err e = { 0 };
    struct shard *s[SHARDS];

    js->conf.wal_budget = 1 << 30; /* nothing is destaged */
    js->conf.idle_close_ms = idle_at_end ? 50 : NEVER_MS;
    REQUIRE(jrn_sim_open(js, &e) >= 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        if (js->lives == 1)
            REQUIRE(call_create(js, 16 + i, SHARD_CLASS_DATA) == 0);
        s[i] = call_open(js, 16 + i, NULL);
    }
    for (unsigned i = 0; i < n; i++)
        REQUIRE(call_append(js, s[i % SHARDS], call_batch(i, 2, i * 2711 % 11000), NULL) == 0);
    for (unsigned i = 0; i < SHARDS; i++)
        shard_unref(s[i]);
    if (idle_at_end)
        call_wait_ms(js, 200);
    jrn_sim_crash(js, false);
}

static void wal_make(struct jrn_sim *js, struct wal_look *l, unsigned lives, unsigned n,
                     bool idle_at_end)
{
    logger_to(-1);
    jrn_sim_init(js, 77, 64 << 20, SHARDS);
    for (unsigned i = 0; i < lives; i++)
        life(js, n, idle_at_end);
    wal_look_open(l, js);
    REQUIRE(wal_look_scan(l) >= 0);
    CHECK_EQ(l->n_rots, 0);
    CHECK(!l->end.torn);
}

static void wal_drop(struct jrn_sim *js, struct wal_look *l)
{
    wal_look_close(l);
    jrn_sim_fini(js);
}

/* The blocks of one scan, to compare the next with. */
struct seen {
    uint64_t lsn[512], bytes[512], pos[512];
    struct dev_file *file[512];
    unsigned n;
    uint64_t end;
};

static void keep(const struct wal_look *l, struct seen *s)
{
    REQUIRE(l->n_blocks <= 512);
    s->n = l->n_blocks;
    s->end = l->end.lsn;
    for (unsigned i = 0; i < s->n; i++) {
        s->lsn[i] = l->blocks[i].lsn;
        s->bytes[i] = l->blocks[i].bytes;
        s->pos[i] = l->blocks[i].pos;
        s->file[i] = l->blocks[i].file;
    }
}

/* All blocks but number `without` are seen. */
static bool all_but(const struct wal_look *l, const struct seen *s, unsigned without)
{
    if (l->n_blocks != s->n - 1)
        return false;
    for (unsigned i = 0; i < l->n_blocks; i++)
        if (l->blocks[i].lsn != s->lsn[i + (i >= without)])
            return false;
    return true;
}

/* A byte that is another one in each page and each block. */
static uint64_t some_byte(uint64_t lsn, uint64_t page)
{
    return page + (lsn / 4096 * 2654435761u + page / 4096 * 40503u) % 4096;
}

static void test_blocks_follow_one_another_over_extents_and_incarnations(void)
{
    struct jrn_sim js;
    struct wal_look l;
    uint64_t lsn = 4096;

    wal_make(&js, &l, 3, 20, false);
    CHECK_EQ(l.super.n, 3);
    CHECK(l.n_extents >= 6);
    for (unsigned i = 0; i < l.n_blocks; i++) {
        CHECK_EQ(l.blocks[i].lsn, lsn);
        lsn += l.blocks[i].bytes;
    }
    CHECK_EQ(l.end.lsn, lsn);
    CHECK_EQ(l.end.blocks, l.n_blocks);
    CHECK_EQ(l.end.hash, l.blocks[l.n_blocks - 1].head.hash);
    CHECK_EQ(l.end.last_place, l.extents[l.n_extents - 1].x.place);
    for (unsigned i = 0; i < l.n_extents; i++) {
        CHECK(!l.extents[i].x.head_damaged);
        CHECK_EQ(l.extents[i].end_lsn,
                 i + 1 < l.n_extents ? l.extents[i + 1].x.first_lsn : l.end.lsn);
    }
    wal_drop(&js, &l);
}

static void test_the_last_block_is_cut_as_torn_whichever_page_is_bad(void)
{
    for (unsigned n = 1; n < 24; n += 2) {
        static struct seen s;
        struct jrn_sim js;
        struct wal_look l;
        unsigned last;

        wal_make(&js, &l, 1, n, false);
        keep(&l, &s);
        last = s.n - 1;
        for (uint64_t page = 0; page < s.bytes[last]; page += 4096) {
            uint64_t at = s.pos[last] + some_byte(s.lsn[last], page);

            wal_look_flip(&l, s.file[last], at);
            CHECK_EQ(wal_look_scan(&l), 0);
            CHECK_EQ(l.n_rots, 0);
            CHECK(l.end.torn);
            CHECK_EQ(l.end.lsn, s.lsn[last]);
            CHECK(all_but(&l, &s, last));
            wal_look_flip(&l, s.file[last], at);
        }
        wal_drop(&js, &l);
    }
}

static void test_any_earlier_block_is_rot_of_exactly_its_bytes_whichever_page_is_bad(void)
{
    static struct seen s;
    struct jrn_sim js;
    struct wal_look l;

    wal_make(&js, &l, 2, 25, false);
    keep(&l, &s);
    CHECK(l.n_extents >= 4);
    for (unsigned i = 0; i + 1 < s.n; i++) {
        for (uint64_t page = 0; page < s.bytes[i]; page += 4096) {
            uint64_t at = s.pos[i] + some_byte(s.lsn[i], page);

            wal_look_flip(&l, s.file[i], at);
            CHECK_EQ(wal_look_scan(&l), 0);
            REQUIRE(l.n_rots == 1);
            CHECK_EQ(l.rots[0].lsn, s.lsn[i]);
            CHECK_EQ(l.rots[0].end_lsn, s.lsn[i] + s.bytes[i]);
            CHECK(all_but(&l, &s, i));
            CHECK_EQ(l.end.lsn, s.end);
            CHECK(!l.end.torn);
            wal_look_flip(&l, s.file[i], at);
        }
    }
    wal_drop(&js, &l);
}

static void test_rot_over_several_blocks_is_one_range_or_several(void)
{
    static struct seen s;
    struct jrn_sim js;
    struct wal_look l;

    wal_make(&js, &l, 1, 25, false);
    keep(&l, &s);
    for (unsigned i = 1; i + 3 < s.n; i++) {
        uint64_t rotten = 0;

        for (unsigned k = i; k < i + 2; k++)
            wal_look_flip(&l, s.file[k], s.pos[k] + 200);
        CHECK_EQ(wal_look_scan(&l), 0);
        REQUIRE(l.n_rots >= 1);
        CHECK_EQ(l.rots[0].lsn, s.lsn[i]);
        CHECK_EQ(l.rots[l.n_rots - 1].end_lsn, s.lsn[i + 2]);
        for (unsigned k = 0; k < l.n_rots; k++)
            rotten += l.rots[k].end_lsn - l.rots[k].lsn;
        CHECK_EQ(rotten, s.bytes[i] + s.bytes[i + 1]);
        CHECK_EQ(l.end.lsn, s.end);
        for (unsigned k = i; k < i + 2; k++)
            wal_look_flip(&l, s.file[k], s.pos[k] + 200);
    }
    wal_drop(&js, &l);
}

static void test_a_closing_block_makes_damage_of_the_last_acked_one_rot(void)
{
    static struct seen s;
    struct jrn_sim js;
    struct wal_look l;
    unsigned last;

    wal_make(&js, &l, 1, 5, true);
    keep(&l, &s);
    last = s.n - 1;
    CHECK(l.blocks[last].head.flags == BLOCK_CLOSING);
    CHECK_EQ(l.blocks[last].head.n_frames, 0);
    CHECK_EQ(l.blocks[last - 1].head.n_frames, 1);
    wal_look_flip(&l, s.file[last - 1], s.pos[last - 1] + 300);
    CHECK_EQ(wal_look_scan(&l), 0);
    REQUIRE(l.n_rots == 1);
    CHECK_EQ(l.rots[0].lsn, s.lsn[last - 1]);
    CHECK_EQ(l.rots[0].end_lsn, s.lsn[last]);
    CHECK(!l.end.torn);
    wal_look_flip(&l, s.file[last - 1], s.pos[last - 1] + 300);
    /* The closing block itself holds nothing. */
    wal_look_flip(&l, s.file[last], s.pos[last] + 300);
    CHECK_EQ(wal_look_scan(&l), 0);
    CHECK_EQ(l.n_rots, 0);
    CHECK_EQ(l.end.lsn, s.lsn[last]);
    wal_drop(&js, &l);
}

static void test_the_end_of_an_incarnation_before_is_never_torn(void)
{
    static struct seen s;
    struct jrn_sim js;
    struct wal_look l;
    unsigned i = 0;

    wal_make(&js, &l, 2, 8, false);
    keep(&l, &s);
    while (s.lsn[i] + s.bytes[i] < l.super.list[0].end_lsn)
        i++;
    CHECK_EQ(s.lsn[i] + s.bytes[i], l.super.list[0].end_lsn);
    CHECK_EQ(l.blocks[i].head.hash, l.super.list[0].end_hash);
    wal_look_flip(&l, s.file[i], s.pos[i] + 20);
    CHECK_EQ(wal_look_scan(&l), 0);
    REQUIRE(l.n_rots == 1);
    CHECK_EQ(l.rots[0].lsn, s.lsn[i]);
    CHECK_EQ(l.rots[0].end_lsn, l.super.list[0].end_lsn);
    CHECK(all_but(&l, &s, i));
    CHECK(!l.end.torn);
    wal_drop(&js, &l);
}

static void test_a_damaged_extent_header_costs_nothing(void)
{
    static struct seen s;
    struct jrn_sim js;
    struct wal_look l;
    unsigned n;

    wal_make(&js, &l, 2, 25, false);
    keep(&l, &s);
    n = l.n_extents;
    for (unsigned i = 0; i < n; i++) {
        uint64_t place = l.extents[i].x.place, pos = place_pos(place) + 48 + i;
        struct dev_file *file = slabs_file(&l.slabs, place, UNIT_LOG2);

        wal_look_flip(&l, file, pos);
        CHECK_EQ(wal_look_scan(&l), 0);
        CHECK_EQ(l.n_rots, 0);
        CHECK_EQ(l.n_blocks, s.n);
        CHECK_EQ(l.end.lsn, s.end);
        REQUIRE(l.n_extents == n);
        for (unsigned k = 0; k < n; k++)
            CHECK_EQ(l.extents[k].x.head_damaged, k == i);
        wal_look_flip(&l, file, pos);
        CHECK_EQ(wal_look_scan(&l), 0);
    }
    wal_drop(&js, &l);
}

static void test_the_scan_begins_at_the_checkpoint(void)
{
    static struct seen s;
    struct jrn_sim js;
    struct wal_look l;

    wal_make(&js, &l, 1, 25, false);
    keep(&l, &s);
    /* As a checkpoint would leave it: at the begin of the second extent, which the entry names. */
    l.super.ckpt_lsn = l.extents[1].x.first_lsn;
    l.super.list[0].place = l.extents[1].x.place;
    CHECK_EQ(wal_look_scan(&l), 0);
    CHECK_EQ(l.n_rots, 0);
    CHECK_EQ(l.blocks[0].lsn, l.super.ckpt_lsn);
    CHECK_EQ(l.end.lsn, s.end);
    wal_drop(&js, &l);
}

static int third_block_fails(void *ctx, const struct block_head *h, const uint8_t *mem,
                             uint64_t pos)
{
    return ++*(unsigned *)ctx == 3 ? E_VERSION : 0;
}

static void test_a_callback_or_a_failed_read_ends_the_scan_with_its_code(void)
{
    static const struct walscan_calls calls = { .block = third_block_fails };
    struct jrn_sim js;
    struct wal_look l;
    struct walscan_end end;
    uint64_t writes;
    unsigned n = 0;

    wal_make(&js, &l, 1, 5, false);
    writes = js.disk->counts.writes;
    CHECK_EQ(walscan_run(l.dev, &l.slabs, &l.super, &calls, &n, &end, &l.err), E_VERSION);
    CHECK_EQ(n, 3);
    js.disk->faults.nth[SIM_FAULT_READ] = 1;
    CHECK_EQ(wal_look_scan(&l), E_IO);
    CHECK(l.err.text[0] != 0);
    CHECK_EQ(wal_look_scan(&l), 0);
    CHECK_EQ(js.disk->counts.writes, writes); /* it writes nothing */
    wal_drop(&js, &l);
}

TEST_MAIN(T(blocks_follow_one_another_over_extents_and_incarnations)
              T(the_last_block_is_cut_as_torn_whichever_page_is_bad)
                  T(any_earlier_block_is_rot_of_exactly_its_bytes_whichever_page_is_bad)
                      T(rot_over_several_blocks_is_one_range_or_several)
                          T(a_closing_block_makes_damage_of_the_last_acked_one_rot)
                              T(the_end_of_an_incarnation_before_is_never_torn)
                                  T(a_damaged_extent_header_costs_nothing)
                                      T(the_scan_begins_at_the_checkpoint) T(
                                          a_callback_or_a_failed_read_ends_the_scan_with_its_code))
