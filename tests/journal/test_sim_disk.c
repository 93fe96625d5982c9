/* The simulator's disk and the devices on it: every state that a crash may leave is one that the
 * contract allows, and all of those come about. */
#include "tests/check.h"

#include <stdlib.h>

#include "base/hash.h"
#include "tests/sim/dev_sim.h"
#include "tests/sim/loop_sim.h"

enum { MANY_STEPS = 100000, SECTOR = 512, PAGES = 8 };

static _Alignas(DEV_PAGE) uint8_t page_mem[DEV_PAGE];
static _Alignas(DEV_PAGE) uint8_t read_mem[PAGES * DEV_PAGE];

/* --- disk --- */

struct rig {
    struct sim *sim;
    struct sim_disk *disk;
    struct dev *dev;
    struct dev_file *file;
    struct rng rng;
};

static void rig_new(struct rig *g, uint64_t seed)
{
    *g = (struct rig){ .sim = sim_new(seed), .disk = sim_disk_new(seed, 0) };
    rng_seed(&g->rng, seed);
    REQUIRE(!dev_sim_new(&g->dev, g->sim, g->disk));
}

/* With one durable file of PAGES zero pages. */
static void rig_with_file(struct rig *g, uint64_t seed)
{
    rig_new(g, seed);
    REQUIRE(!dev_create(g->dev, "f", PAGES * DEV_PAGE, &g->file, NULL));
    REQUIRE(!dev_sync_names(g->dev));
}

static void rig_free(struct rig *g)
{
    dev_sim_free(g->dev);
    sim_disk_free(g->disk);
    sim_free(g->sim);
}

/* The next life; "f" is opened again. */
static void rig_reopen(struct rig *g)
{
    dev_sim_free(g->dev);
    sim_crash(g->sim);
    REQUIRE(!dev_sim_new(&g->dev, g->sim, g->disk));
    REQUIRE(!dev_open(g->dev, "f", &g->file, NULL));
}

static void rig_crash(struct rig *g)
{
    sim_disk_crash(g->disk, &g->rng);
    rig_reopen(g);
}

static const uint8_t *page_of(uint8_t fill)
{
    memset(page_mem, fill, DEV_PAGE);
    return page_mem;
}

static int put_page(struct rig *g, unsigned page, uint8_t fill)
{
    return dev_write(g->dev, g->file, page * DEV_PAGE, page_of(fill), DEV_PAGE);
}

static const uint8_t *get_page(struct rig *g, unsigned page)
{
    REQUIRE(!dev_read(g->dev, g->file, page * DEV_PAGE, read_mem, DEV_PAGE));
    return read_mem;
}

/* The one byte that fills mem, or -1. */
static int fill_of(const uint8_t *mem, size_t bytes)
{
    for (size_t i = 1; i < bytes; i++)
        if (mem[i] != mem[0])
            return -1;
    return mem[0];
}

static int page_fill(struct rig *g, unsigned page)
{
    return fill_of(get_page(g, page), DEV_PAGE);
}

static void test_a_crash_gives_each_page_any_of_its_states_and_mixes_sectors(void)
{
    unsigned seen[4] = { 0 }, torn = 0;

    for (uint64_t seed = 0; seed < 400; seed++) {
        struct rig g;
        const uint8_t *mem;
        int fill;

        rig_with_file(&g, seed);
        for (uint8_t v = 1; v <= 3; v++) {
            CHECK_EQ(put_page(&g, 2, v), 0);
            CHECK_EQ(page_fill(&g, 2), v);
        }
        CHECK_EQ(sim_disk_unsynced_pages(g.disk), 1);
        rig_crash(&g);
        CHECK_EQ(sim_disk_unsynced_pages(g.disk), 0);
        mem = get_page(&g, 2);
        for (unsigned s = 0; s < DEV_PAGE / SECTOR; s++) {
            fill = fill_of(mem + s * SECTOR, SECTOR);
            CHECK(fill >= 0 && fill <= 3);
        }
        fill = fill_of(mem, DEV_PAGE);
        if (fill < 0)
            torn++;
        else
            seen[fill]++;
        CHECK_EQ(g.disk->counts.torn_pages, fill < 0);
        CHECK_EQ(page_fill(&g, 1), 0);
        rig_free(&g);
    }
    CHECK(torn > 40 && seen[0] > 40 && seen[1] > 10 && seen[2] > 10 && seen[3] > 40);
}

static void test_what_a_crash_left_is_durable(void)
{
    uint8_t before[PAGES * DEV_PAGE];

    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rig g;

        rig_with_file(&g, seed);
        for (unsigned i = 0; i < 20; i++)
            CHECK_EQ(put_page(&g, (unsigned)rng_below(&g.rng, PAGES), (uint8_t)(i + 1)), 0);
        rig_crash(&g);
        REQUIRE(!dev_read(g.dev, g.file, 0, read_mem, sizeof read_mem));
        memcpy(before, read_mem, sizeof before);
        rig_crash(&g);
        REQUIRE(!dev_read(g.dev, g.file, 0, read_mem, sizeof read_mem));
        CHECK(!memcmp(before, read_mem, sizeof before));
        rig_free(&g);
    }
}

static void test_a_sync_makes_its_file_durable_and_no_other(void)
{
    unsigned other_lost = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        struct rig g;
        struct dev_file *other;

        rig_with_file(&g, seed);
        REQUIRE(!dev_create(g.dev, "g", DEV_PAGE, &other, NULL));
        REQUIRE(!dev_sync_names(g.dev));
        CHECK_EQ(put_page(&g, 0, 1), 0);
        CHECK_EQ(dev_write(g.dev, other, 0, page_of(9), DEV_PAGE), 0);
        CHECK_EQ(dev_sync(g.dev, g.file), 0);
        CHECK_EQ(put_page(&g, 1, 2), 0);
        rig_crash(&g);
        CHECK_EQ(page_fill(&g, 0), 1);
        REQUIRE(!dev_open(g.dev, "g", &other, NULL));
        REQUIRE(!dev_read(g.dev, other, 0, read_mem, DEV_PAGE));
        other_lost += fill_of(read_mem, DEV_PAGE) == 0;
        rig_free(&g);
    }
    CHECK(other_lost > 10);
}

/* A request with its own memory: n pages, one io each, to be written to or read from the pages from
 * `first` on. */
struct shot {
    struct dev_req req;
    struct dev_io io[PAGES];
    struct dev_file *sync[1];
    uint8_t *mem;
    bool done;
};

static void shot_done(struct dev_req *r)
{
    struct shot *t = (struct shot *)r;

    CHECK(!t->done);
    t->done = true;
}

static bool shot_is_done(void *ctx)
{
    return ((struct shot *)ctx)->done;
}

static void shot_submit(struct rig *g, struct shot *t, unsigned first, unsigned n, int fill,
                        bool sync)
{
    *t = (struct shot){ .mem = aligned_alloc(DEV_PAGE, PAGES * DEV_PAGE) };
    memset(t->mem, fill < 0 ? 0x77 : fill, PAGES * DEV_PAGE);
    for (unsigned i = 0; i < n; i++)
        t->io[i] = (struct dev_io){ g->file, (first + i) * DEV_PAGE, t->mem + i * DEV_PAGE,
                                    DEV_PAGE, fill >= 0 };
    t->sync[0] = g->file;
    t->req = (struct dev_req){ .loop = sim_loop(g->sim, 0), .done = shot_done, .io = t->io };
    t->req.n_io = n;
    t->req.sync = t->sync;
    t->req.n_sync = sync;
    dev_submit(g->dev, &t->req, DEV_COMMIT);
    CHECK(!t->done);
}

static void test_a_request_with_a_sync_survives_once_it_is_answered(void)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct rig g;
        struct shot t, back;

        rig_with_file(&g, seed);
        shot_submit(&g, &t, 1, 5, 3, true);
        CHECK(sim_run_until(g.sim, shot_is_done, &t, MANY_STEPS));
        CHECK_EQ(t.req.rc, 0);
        rig_crash(&g);
        shot_submit(&g, &back, 0, PAGES, -1, false);
        CHECK(sim_run_until(g.sim, shot_is_done, &back, MANY_STEPS));
        CHECK_EQ(back.req.rc, 0);
        for (unsigned i = 0; i < PAGES; i++)
            CHECK_EQ(fill_of(back.mem + i * DEV_PAGE, DEV_PAGE), i >= 1 && i < 6 ? 3 : 0);
        free(t.mem);
        free(back.mem);
        rig_free(&g);
    }
}

static void test_writes_of_a_request_land_in_any_order_before_its_answer(void)
{
    bool first_seen_after_second = false, second_seen_after_first = false;

    for (uint64_t seed = 0; seed < 60; seed++) {
        struct rig g;
        struct shot t;

        rig_with_file(&g, seed);
        shot_submit(&g, &t, 0, 2, 1, false);
        while (!t.done) {
            bool first = page_fill(&g, 0) == 1, second = page_fill(&g, 1) == 1;

            first_seen_after_second |= second && !first;
            second_seen_after_first |= first && !second;
            REQUIRE(sim_step(g.sim));
        }
        CHECK_EQ(page_fill(&g, 0), 1);
        CHECK_EQ(page_fill(&g, 1), 1);
        free(t.mem);
        rig_free(&g);
    }
    CHECK(first_seen_after_second && second_seen_after_first);
}

static void test_a_sync_covers_no_write_that_was_not_answered_before_it(void)
{
    unsigned tried = 0, lost = 0;

    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rig g;
        struct shot t;

        rig_with_file(&g, seed);
        shot_submit(&g, &t, 0, 2, 1, false);
        while (!t.done && page_fill(&g, 0) != 1)
            REQUIRE(sim_step(g.sim));
        if (dev_sim_in_flight(g.dev)) {
            tried++;
            CHECK_EQ(put_page(&g, 5, 8), 0);
            CHECK_EQ(dev_sync(g.dev, g.file), 0);
            rig_crash(&g);
            CHECK_EQ(page_fill(&g, 5), 8);
            lost += page_fill(&g, 0) == 0;
        }
        free(t.mem);
        rig_free(&g);
    }
    CHECK(tried > 50);
    CHECK(lost > 10 && lost < tried);
}

static void test_a_sync_covers_no_write_that_landed_after_it_began(void)
{
    unsigned lost = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        struct rig g;
        struct shot t;

        rig_with_file(&g, seed);
        shot_submit(&g, &t, 0, 1, 1, true);
        while (page_fill(&g, 0) != 1)
            REQUIRE(sim_step(g.sim));
        CHECK_EQ(put_page(&g, 5, 8), 0); /* the request's own sync is under way */
        CHECK(!t.done);
        CHECK(sim_run_until(g.sim, shot_is_done, &t, MANY_STEPS));
        rig_crash(&g);
        CHECK_EQ(page_fill(&g, 0), 1);
        lost += page_fill(&g, 5) == 0;
        free(t.mem);
        rig_free(&g);
    }
    CHECK(lost > 10);
}

static void test_requests_in_flight_at_a_crash_may_have_landed_in_part(void)
{
    unsigned none = 0, some = 0, all = 0;

    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rig g;
        struct shot t;
        unsigned landed = 0;

        rig_with_file(&g, seed);
        shot_submit(&g, &t, 0, 4, 1, true);
        sim_disk_crash(g.disk, &g.rng);
        while (sim_step(g.sim))
            continue;
        CHECK(!t.done);
        rig_reopen(&g);
        for (unsigned i = 0; i < 4; i++)
            landed += page_fill(&g, i) == 1;
        none += landed == 0;
        all += landed == 4;
        some += landed > 0 && landed < 4;
        free(t.mem);
        rig_free(&g);
    }
    CHECK(none > 10 && some > 10 && all > 10);
}

static void test_a_failed_sync_loses_pages_for_good_though_reads_show_them(void)
{
    unsigned lost = 0, durable = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        struct rig g;
        int fill;

        rig_with_file(&g, seed);
        g.disk->faults.nth[SIM_FAULT_SYNC] = 1;
        CHECK_EQ(put_page(&g, 0, 1), 0);
        CHECK_EQ(dev_sync(g.dev, g.file), E_IO);
        CHECK_EQ(page_fill(&g, 0), 1);
        CHECK_EQ(dev_sync(g.dev, g.file), 0);
        CHECK_EQ(page_fill(&g, 0), 1);
        rig_crash(&g);
        fill = page_fill(&g, 0);
        CHECK(fill == 0 || fill == 1);
        lost += fill == 0;
        durable += fill == 1;
        CHECK_EQ(g.disk->counts.lost_pages, fill == 0);
        rig_free(&g);
    }
    CHECK(lost > 20 && durable > 20);
}

static void test_the_nth_operation_fails_and_the_others_do_not(void)
{
    struct rig g;
    struct shot t;

    rig_with_file(&g, 1);
    g.disk->faults.nth[SIM_FAULT_WRITE] = 3;
    CHECK_EQ(put_page(&g, 0, 1), 0);
    CHECK_EQ(put_page(&g, 1, 1), 0);
    CHECK_EQ(put_page(&g, 2, 1), E_IO);
    CHECK_EQ(put_page(&g, 3, 1), 0);
    g.disk->faults.nth[SIM_FAULT_READ] = 2;
    CHECK_EQ(dev_read(g.dev, g.file, 0, read_mem, DEV_PAGE), 0);
    CHECK_EQ(dev_read(g.dev, g.file, 0, read_mem, DEV_PAGE), E_IO);
    CHECK(fill_of(read_mem, DEV_PAGE) != 1);
    CHECK_EQ(page_fill(&g, 0), 1);
    g.disk->faults.nth[SIM_FAULT_WRITE] = 2;
    shot_submit(&g, &t, 0, 3, 5, true);
    CHECK(sim_run_until(g.sim, shot_is_done, &t, MANY_STEPS));
    CHECK_EQ(t.req.rc, E_IO);
    CHECK_EQ(g.disk->counts.syncs, 0);
    CHECK_EQ(g.disk->counts.faults[SIM_FAULT_WRITE], 2);
    CHECK_EQ(page_fill(&g, 0), 5);
    CHECK_EQ(page_fill(&g, 2), 5);
    free(t.mem);
    rig_free(&g);
}

static void test_a_lost_write_is_acknowledged_and_never_there(void)
{
    struct rig g;

    rig_with_file(&g, 1);
    CHECK_EQ(put_page(&g, 3, 1), 0);
    g.disk->faults.nth[SIM_FAULT_LOST] = 1;
    CHECK_EQ(put_page(&g, 3, 2), 0);
    CHECK_EQ(dev_sync(g.dev, g.file), 0);
    CHECK_EQ(page_fill(&g, 3), 1);
    CHECK_EQ(g.disk->n_ledger, 1);
    CHECK_EQ(g.disk->ledger[0].pos, 3 * DEV_PAGE);
    CHECK_EQ(g.disk->ledger[0].bytes, DEV_PAGE);
    rig_free(&g);
}

static void test_a_write_gone_astray_lands_where_the_ledger_says(void)
{
    unsigned elsewhere = 0;

    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rig g;

        rig_with_file(&g, seed);
        g.disk->faults.nth[SIM_FAULT_ASTRAY] = 1;
        CHECK_EQ(put_page(&g, 3, 7), 0);
        REQUIRE(g.disk->n_ledger == 1);
        CHECK_EQ(page_fill(&g, (unsigned)(g.disk->ledger[0].to / DEV_PAGE)), 7);
        elsewhere += g.disk->ledger[0].to != 3 * DEV_PAGE && page_fill(&g, 3) != 7;
        rig_free(&g);
    }
    CHECK(elsewhere > 30);
}

static void test_a_stale_read_gives_what_was_there_before(void)
{
    struct rig g;

    rig_with_file(&g, 1);
    CHECK_EQ(put_page(&g, 3, 1), 0);
    CHECK_EQ(put_page(&g, 3, 2), 0);
    g.disk->faults.nth[SIM_FAULT_STALE] = 1;
    CHECK_EQ(page_fill(&g, 3), 1);
    CHECK_EQ(page_fill(&g, 3), 2);
    CHECK_EQ(g.disk->n_ledger, 1);
    rig_free(&g);
}

static void test_a_sync_that_lies_makes_nothing_durable_and_the_next_does(void)
{
    for (unsigned honest = 0; honest < 2; honest++) {
        unsigned there = 0;

        for (uint64_t seed = 0; seed < 50; seed++) {
            struct rig g;

            rig_with_file(&g, seed);
            g.disk->faults.nth[SIM_FAULT_LIE] = 1;
            CHECK_EQ(put_page(&g, 3, 1), 0);
            CHECK_EQ(dev_sync(g.dev, g.file), 0);
            if (honest)
                CHECK_EQ(dev_sync(g.dev, g.file), 0);
            rig_crash(&g);
            there += page_fill(&g, 3) == 1;
            rig_free(&g);
        }
        if (honest)
            CHECK_EQ(there, 50);
        else
            CHECK(there > 5 && there < 45);
    }
}

static void test_faults_come_about_as_often_as_asked(void)
{
    struct rig g;
    unsigned failed = 0;

    rig_with_file(&g, 2);
    g.disk->faults.chance[SIM_FAULT_READ] = 65536 / 4;
    for (unsigned i = 0; i < 4000; i++)
        failed += dev_read(g.dev, g.file, 0, read_mem, DEV_PAGE) == E_IO;
    CHECK(failed > 850 && failed < 1150);
    rig_free(&g);
}

static void test_io_outside_the_file_is_an_error_and_changes_nothing(void)
{
    struct rig g;
    struct shot t;

    rig_with_file(&g, 3);
    CHECK_EQ(dev_write(g.dev, g.file, PAGES * DEV_PAGE, page_of(1), DEV_PAGE), E_IO);
    CHECK_EQ(dev_read(g.dev, g.file, PAGES * DEV_PAGE, read_mem, DEV_PAGE), E_IO);
    shot_submit(&g, &t, PAGES - 1, 2, 1, true);
    CHECK(sim_run_until(g.sim, shot_is_done, &t, MANY_STEPS));
    CHECK_EQ(t.req.rc, E_IO);
    free(t.mem);
    rig_free(&g);
}

static void test_a_stuck_request_waits_and_a_slow_one_takes_long(void)
{
    struct rig g;
    struct shot stuck, other, slow;
    uint64_t start_us;

    rig_with_file(&g, 4);
    g.disk->faults.nth[SIM_FAULT_STUCK] = 1;
    shot_submit(&g, &stuck, 0, 1, 1, true);
    shot_submit(&g, &other, 1, 1, 1, true);
    CHECK(sim_run_until(g.sim, shot_is_done, &other, MANY_STEPS));
    CHECK(sim_run_for(g.sim, 3600000000, MANY_STEPS));
    CHECK(!stuck.done);
    CHECK_EQ(dev_sim_in_flight(g.dev), 1);
    sim_disk_unstick(g.disk);
    CHECK(sim_run_until(g.sim, shot_is_done, &stuck, MANY_STEPS));
    CHECK_EQ(stuck.req.rc, 0);
    g.disk->faults.nth[SIM_FAULT_SLOW] = 1;
    start_us = sim_now_us(g.sim);
    shot_submit(&g, &slow, 2, 1, 1, true);
    CHECK(sim_run_until(g.sim, shot_is_done, &slow, MANY_STEPS));
    CHECK(sim_now_us(g.sim) - start_us >= 2 * 100 * 10);
    free(stuck.mem);
    free(other.mem);
    free(slow.mem);
    rig_free(&g);
}

/* Every call of the device answers rc, a request too. */
static void check_all_calls_give(struct rig *g, int rc)
{
    struct dev_file *f;
    struct dev_space space;
    struct shot t;

    CHECK_EQ(put_page(g, 0, 7), rc);
    CHECK_EQ(dev_read(g->dev, g->file, 0, read_mem, DEV_PAGE), rc);
    CHECK_EQ(dev_sync(g->dev, g->file), rc);
    CHECK_EQ(dev_create(g->dev, "new", DEV_PAGE, &f, NULL), rc);
    CHECK_EQ(dev_open(g->dev, "f", &f, NULL), rc);
    CHECK_EQ(dev_rename(g->dev, "f", "h"), rc);
    CHECK_EQ(dev_remove(g->dev, "h"), rc);
    CHECK_EQ(dev_sync_names(g->dev), rc);
    CHECK_EQ(dev_space(g->dev, &space), rc);
    shot_submit(g, &t, 0, 2, 7, true);
    CHECK(sim_run_until(g->sim, shot_is_done, &t, MANY_STEPS));
    CHECK_EQ(t.req.rc, rc);
    free(t.mem);
}

static void test_without_power_everything_fails_and_nothing_changes(void)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rig g;
        struct shot t;
        int fill;

        rig_with_file(&g, seed);
        CHECK_EQ(put_page(&g, 0, 1), 0);
        CHECK_EQ(dev_sync(g.dev, g.file), 0);
        shot_submit(&g, &t, 1, 1, 2, true);
        sim_disk_power_off(g.disk);
        CHECK(sim_run_until(g.sim, shot_is_done, &t, MANY_STEPS));
        CHECK_EQ(t.req.rc, E_IO);
        memset(t.mem, 0x55, DEV_PAGE); /* answered, so the memory is the caller's again */
        check_all_calls_give(&g, E_IO);
        rig_crash(&g);
        CHECK_EQ(page_fill(&g, 0), 1);
        get_page(&g, 1);
        for (unsigned s = 0; s < DEV_PAGE / SECTOR; s++) {
            fill = fill_of(read_mem + s * SECTOR, SECTOR);
            CHECK(fill == 0 || fill == 2);
        }
        CHECK_EQ(g.disk->counts.power_cuts, 1);
        free(t.mem);
        rig_free(&g);
    }
}

static void test_power_goes_after_n_operations(void)
{
    unsigned landed = 0, lost = 0;

    for (uint64_t seed = 0; seed < 60; seed++) {
        struct rig g;

        rig_with_file(&g, seed);
        sim_disk_power_off_after(g.disk, 3);
        CHECK_EQ(put_page(&g, 0, 1), 0);
        CHECK_EQ(put_page(&g, 1, 1), 0);
        CHECK_EQ(dev_sync(g.dev, g.file), 0);
        CHECK_EQ(put_page(&g, 2, 1), E_IO);
        CHECK_EQ(put_page(&g, 3, 1), E_IO);
        rig_crash(&g);
        CHECK_EQ(page_fill(&g, 0), 1);
        CHECK_EQ(page_fill(&g, 1), 1);
        landed += page_fill(&g, 2) == 1;
        lost += page_fill(&g, 2) == 0;
        CHECK_EQ(page_fill(&g, 3), 0);
        rig_free(&g);
    }
    CHECK(landed > 5 && lost > 5);
}

static void test_power_can_go_at_any_step_of_a_request(void)
{
    unsigned ends[2] = { 0 };

    for (uint64_t n = 0; n < 8; n++) {
        struct rig g;
        struct shot t;

        rig_with_file(&g, n);
        sim_disk_power_off_after(g.disk, n);
        shot_submit(&g, &t, 0, 4, 1, true); /* four pieces and a sync */
        CHECK(sim_run_until(g.sim, shot_is_done, &t, MANY_STEPS));
        CHECK_EQ(t.req.rc, n < 5 ? E_IO : 0);
        ends[t.req.rc == 0]++;
        free(t.mem);
        rig_free(&g);
    }
    CHECK_EQ(ends[0], 5);
    CHECK_EQ(ends[1], 3);
}

static void test_a_device_from_before_the_crash_is_dead(void)
{
    struct rig g;
    struct dev *new_dev;
    struct dev_file *f;

    rig_with_file(&g, 6);
    sim_disk_crash(g.disk, &g.rng);
    check_all_calls_give(&g, E_IO);
    REQUIRE(!dev_sim_new(&new_dev, g.sim, g.disk));
    CHECK_EQ(dev_open(new_dev, "f", &f, NULL), 0);
    REQUIRE(!dev_read(new_dev, f, 0, read_mem, DEV_PAGE));
    CHECK_EQ(fill_of(read_mem, DEV_PAGE), 0);
    dev_sim_free(new_dev);
    rig_free(&g);
}

static void test_a_kill_keeps_what_landed_and_a_later_crash_may_drop_it(void)
{
    unsigned dropped = 0, in_part = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        struct rig g;
        struct shot t;

        rig_with_file(&g, seed);
        CHECK_EQ(put_page(&g, 0, 1), 0);
        shot_submit(&g, &t, 1, 2, 2, true);
        sim_disk_kill(g.disk);
        free(t.mem);
        rig_reopen(&g);
        CHECK_EQ(page_fill(&g, 0), 1);
        in_part += (page_fill(&g, 1) == 2) != (page_fill(&g, 2) == 2);
        rig_crash(&g);
        dropped += page_fill(&g, 0) == 0;
        rig_free(&g);
    }
    CHECK(dropped > 10 && in_part > 10);
}

static void count_name(void *ctx, const char *name)
{
    unsigned *seen = ctx;

    *seen |= !strcmp(name, "a")   ? 1u
             : !strcmp(name, "b") ? 2u
             : !strcmp(name, "c") ? 4u
             : !strcmp(name, "d") ? 8u
                                  : 16u;
}

static void test_names_survive_as_a_prefix_of_their_changes(void)
{
    /* After none, one ... all of: create a, create b, rename a c, remove b, create d over c by
     * rename. */
    static const unsigned states[] = { 0, 1, 3, 6, 4, 12, 4 };
    unsigned seen_states = 0;

    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rig g;
        struct dev_file *f;
        unsigned seen = 0, known = 0;

        rig_new(&g, seed);
        CHECK_EQ(dev_create(g.dev, "a", DEV_PAGE, &f, NULL), 0);
        CHECK_EQ(dev_create(g.dev, "b", DEV_PAGE, &f, NULL), 0);
        CHECK_EQ(dev_rename(g.dev, "a", "c"), 0);
        CHECK_EQ(dev_remove(g.dev, "b"), 0);
        CHECK_EQ(dev_create(g.dev, "d", DEV_PAGE, &f, NULL), 0);
        CHECK_EQ(dev_rename(g.dev, "d", "c"), 0);
        if (seed % 4 == 0)
            CHECK_EQ(dev_sync_names(g.dev), 0);
        CHECK_EQ(dev_list(g.dev, count_name, &seen), 0);
        CHECK_EQ(seen, 4);
        sim_disk_crash(g.disk, &g.rng);
        dev_sim_free(g.dev);
        REQUIRE(!dev_sim_new(&g.dev, g.sim, g.disk));
        seen = 0;
        CHECK_EQ(dev_list(g.dev, count_name, &seen), 0);
        for (unsigned i = 0; i < 7; i++)
            known |= states[i] == seen;
        CHECK(known);
        if (seed % 4 == 0)
            CHECK_EQ(seen, 4);
        else
            seen_states |= 1u << seen;
        rig_free(&g);
    }
    CHECK_EQ(seen_states, 1u << 0 | 1u << 1 | 1u << 3 | 1u << 6 | 1u << 4 | 1u << 12);
}

static void test_names_answer_as_the_header_says(void)
{
    struct rig g;
    struct dev_file *f;

    rig_with_file(&g, 8);
    CHECK_EQ(dev_open(g.dev, "x", &f, NULL), E_NOTFOUND);
    CHECK_EQ(dev_create(g.dev, "f", DEV_PAGE, &f, NULL), E_EXISTS);
    CHECK_EQ(dev_create(g.dev, "a/b", DEV_PAGE, &f, NULL), E_INVALID);
    CHECK_EQ(dev_rename(g.dev, "x", "y"), E_NOTFOUND);
    CHECK_EQ(dev_remove(g.dev, "x"), E_NOTFOUND);
    REQUIRE(!dev_open(g.dev, "f", &f, NULL));
    CHECK_EQ(f->bytes, PAGES * DEV_PAGE);
    CHECK_EQ(dev_remove(g.dev, "f"), 0);
    CHECK_EQ(dev_write(g.dev, f, 0, page_of(4), DEV_PAGE), 0); /* open still */
    dev_close(g.dev, f);
    rig_free(&g);
}

static void test_capacity_is_counted_over_all_files(void)
{
    struct rig g;
    struct dev_file *f;
    struct dev_space s;

    rig_with_file(&g, 9);
    g.disk->capacity = 10 * DEV_PAGE;
    REQUIRE(!dev_space(g.dev, &s));
    CHECK_EQ(s.total, 10 * DEV_PAGE);
    CHECK_EQ(s.free, 2 * DEV_PAGE);
    CHECK_EQ(dev_create(g.dev, "a", 3 * DEV_PAGE, &f, NULL), E_NOSPACE);
    CHECK_EQ(dev_create(g.dev, "a", 2 * DEV_PAGE, &f, NULL), 0);
    CHECK_EQ(dev_remove(g.dev, "a"), 0);
    g.disk->faults.nth[SIM_FAULT_CREATE] = 1;
    CHECK_EQ(dev_create(g.dev, "b", DEV_PAGE, &f, NULL), E_NOSPACE);
    CHECK_EQ(dev_create(g.dev, "b", DEV_PAGE, &f, NULL), 0);
    rig_free(&g);
}

static void test_rot_flips_one_bit_and_stays(void)
{
    struct rig g;
    unsigned bits = 0;

    rig_with_file(&g, 10);
    CHECK_EQ(put_page(&g, 1, 0), 0);
    CHECK_EQ(put_page(&g, 2, 0xff), 0);
    CHECK_EQ(dev_sync(g.dev, g.file), 0);
    CHECK_EQ(sim_disk_rot(g.disk, "f", DEV_PAGE + 100), 0);
    CHECK_EQ(sim_disk_rot(g.disk, "f", 2 * DEV_PAGE + 4095), 0);
    CHECK_EQ(sim_disk_rot(g.disk, "none", 0), E_NOTFOUND);
    CHECK_EQ(sim_disk_rot(g.disk, "f", PAGES * DEV_PAGE), E_INVALID);
    rig_crash(&g);
    get_page(&g, 1);
    for (unsigned i = 0; i < DEV_PAGE; i++)
        bits += (unsigned)__builtin_popcount(read_mem[i]);
    CHECK_EQ(bits, 1);
    CHECK(read_mem[100] != 0);
    CHECK(get_page(&g, 2)[4095] != 0xff);
    CHECK_EQ(fill_of(get_page(&g, 2), 4095), 0xff);
    rig_free(&g);
}

/* --- all together --- */

/* What happened in a run, as one number. */
static uint64_t log_hash;

static void note(uint64_t what)
{
    log_hash = hash_mix(log_hash + what + 1);
}

/* Keeps a few requests in flight, with all faults on, through crashes; each answer is noted with
 * its time. */
static void workload_life(struct rig *g, struct shot *shots)
{
    for (unsigned i = 0; i < 8; i++) {
        /* One draw a line: the order of arguments is the compiler's. */
        unsigned first = (unsigned)rng_below(&g->rng, 4);
        int fill = (int)rng_below(&g->rng, 256) - (i == 5);

        shot_submit(g, &shots[i], first, 1 + i % 4, fill, rng_chance(&g->rng, 1, 2));
    }
    for (unsigned i = (unsigned)rng_below(&g->rng, 60); i > 0; i--) {
        sim_step(g->sim);
        for (unsigned s = 0; s < 8; s++)
            if (shots[s].done)
                note(sim_now_us(g->sim) + s + (uint64_t)-shots[s].req.rc);
    }
    if (rng_chance(&g->rng, 1, 3))
        sim_disk_kill(g->disk);
    else
        sim_disk_crash(g->disk, &g->rng);
    for (unsigned s = 0; s < 8; s++)
        free(shots[s].mem);
}

/* A random run's trace, and the bytes that it left. */
static uint64_t workload(uint64_t seed, uint64_t *crashes)
{
    struct rig g;
    struct shot shots[8];
    uint64_t hash;

    rig_with_file(&g, seed);
    log_hash = 0;
    for (unsigned i = 0; i < SIM_FAULT_COUNT; i++)
        g.disk->faults.chance[i] = i == SIM_FAULT_NAMES || i == SIM_FAULT_CREATE ? 0 : 2000;
    for (unsigned life = 0; life < 10; life++) {
        workload_life(&g, shots);
        rig_reopen(&g);
    }
    g.disk->faults = (struct sim_faults){ 0 };
    REQUIRE(!dev_read(g.dev, g.file, 0, read_mem, sizeof read_mem));
    hash = hash_mix(log_hash ^ sim_trace(g.sim)) ^ sim_disk_trace(g.disk);
    for (unsigned i = 0; i < sizeof read_mem; i++)
        hash = hash_mix(hash + read_mem[i]);
    *crashes += g.disk->counts.crashes;
    rig_free(&g);
    return hash;
}

static void test_one_seed_is_one_run_and_seeds_differ(void)
{
    uint64_t crashes = 0, last = 0;

    for (uint64_t seed = 100; seed < 150; seed++) {
        uint64_t hash = workload(seed, &crashes);

        CHECK(hash == workload(seed, &crashes));
        CHECK(hash != last);
        last = hash;
    }
    CHECK(crashes > 300);
}

/* clang-format off */
TEST_MAIN(
    T(a_crash_gives_each_page_any_of_its_states_and_mixes_sectors)
    T(what_a_crash_left_is_durable)
    T(a_sync_makes_its_file_durable_and_no_other)
    T(a_request_with_a_sync_survives_once_it_is_answered)
    T(writes_of_a_request_land_in_any_order_before_its_answer)
    T(a_sync_covers_no_write_that_was_not_answered_before_it)
    T(a_sync_covers_no_write_that_landed_after_it_began)
    T(requests_in_flight_at_a_crash_may_have_landed_in_part)
    T(a_failed_sync_loses_pages_for_good_though_reads_show_them)
    T(the_nth_operation_fails_and_the_others_do_not)
    T(a_lost_write_is_acknowledged_and_never_there)
    T(a_write_gone_astray_lands_where_the_ledger_says)
    T(a_stale_read_gives_what_was_there_before)
    T(a_sync_that_lies_makes_nothing_durable_and_the_next_does)
    T(faults_come_about_as_often_as_asked)
    T(io_outside_the_file_is_an_error_and_changes_nothing)
    T(a_stuck_request_waits_and_a_slow_one_takes_long)
    T(without_power_everything_fails_and_nothing_changes)
    T(power_goes_after_n_operations)
    T(power_can_go_at_any_step_of_a_request)
    T(a_device_from_before_the_crash_is_dead)
    T(a_kill_keeps_what_landed_and_a_later_crash_may_drop_it)
    T(names_survive_as_a_prefix_of_their_changes)
    T(names_answer_as_the_header_says)
    T(capacity_is_counted_over_all_files)
    T(rot_flips_one_bit_and_stays)
    T(one_seed_is_one_run_and_seeds_differ))
