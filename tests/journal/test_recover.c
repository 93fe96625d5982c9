/* Opening a store: what rot costs and what it does not, and every fault that opening can meet. */
#include "base/logger.h"
#include "journal/core.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"
#include "tests/sim/wal_look.h"

#include <stdlib.h>

enum { LOOPS = 3, SHARDS = 6, NEVER_MS = 1000000, FAULTS_MAX = 400 };

static void store_init(struct jrn_sim *js, uint64_t seed)
{
    logger_to(-1);
    jrn_sim_init(js, seed, 64 << 20, LOOPS);
}

/* A life that creates the shards (the first one) and appends n batches to each. */
static void life(struct jrn_sim *js, unsigned n)
{
    struct err e = { 0 };
    struct shard *s[SHARDS];

    REQUIRE(jrn_sim_open(js, &e) >= 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        if (js->lives == 1)
            REQUIRE(call_create(js, 16 + i, SHARD_CLASS_DATA) == 0);
        s[i] = call_open(js, 16 + i, NULL);
        REQUIRE(s[i] != NULL);
    }
    for (unsigned i = 0; i < n * SHARDS; i++)
        REQUIRE(call_append(js, s[i % SHARDS], call_batch(i, 1, i * 997 % 4000), NULL) == 0);
    for (unsigned i = 0; i < SHARDS; i++)
        shard_unref(s[i]);
}

/* Every shard holds offsets 0 .. n, all readable. */
static void check_all(struct jrn_sim *js, uint64_t n)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = call_open(js, 16 + i, NULL);
        int rc;

        REQUIRE(s != NULL);
        CHECK_EQ(shard_end(s), n);
        CHECK_EQ(call_read(js, s, 0, NULL, &rc, NULL), n);
        CHECK_EQ(rc, 0);
        shard_unref(s);
    }
}

/* --- rot in the live WAL --- */

struct hit {
    bool group[64];
    uint64_t shard, base, end; /* the one item of the block; shard 0: it holds no user's */
};

static void block_hits(const struct look_block *b, struct hit *hit)
{
    *hit = (struct hit){ 0 };
    for (uint32_t i = 0; i < b->head.n_frames; i++) {
        struct block_dir d;
        struct frame_item item;

        block_dir_read(&d, b->mem, i);
        hit->group[d.group] = true;
        frame_item_read(&item, b->mem + d.pos, 0);
        if (item.shard >= SHARD_FIRST_USER) {
            hit->shard = item.shard;
            hit->base = item.base_offset;
            hit->end = item.base_offset + item.n_offsets;
        }
    }
}

static void check_hit_shard(struct jrn_sim *js, struct shard *s, const struct hit *hit, uint64_t n)
{
    uint64_t at;
    int rc;

    CHECK_EQ(call_append(js, s, call_batch(1, 1, 10), NULL), E_READONLY);
    if (shard_id(s) != hit->shard) {
        CHECK_EQ(call_read(js, s, 0, NULL, &rc, NULL), n);
        return;
    }
    at = call_read(js, s, 0, NULL, &rc, NULL);
    CHECK_EQ(at, hit->base);
    CHECK_EQ(rc, E_LOST); /* never a skip, never "no such offset" */
    if (hit->end < n) {
        CHECK_EQ(call_read(js, s, hit->end, NULL, &rc, NULL), n);
        CHECK_EQ(rc, 0);
    }
}

static void check_after_rot(struct jrn_sim *js, const struct hit *hit, uint64_t n)
{
    for (unsigned i = 0; i < js->st->n_groups; i++)
        CHECK_EQ(atomic_load(&js->st->groups[i]->read_only), hit->group[i]);
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = call_open(js, 16 + i, NULL);
        int rc;

        REQUIRE(s != NULL);
        if (hit->group[shard_group(s)]) {
            check_hit_shard(js, s, hit, n);
        } else {
            CHECK_EQ(shard_end(s), n);
            CHECK_EQ(call_read(js, s, 0, NULL, &rc, NULL), n);
            CHECK_EQ(rc, 0);
            CHECK_EQ(call_append(js, s, call_batch(n, 1, 10), NULL), 0);
        }
        shard_unref(s);
    }
}

/* Damages block k of a store that is the same each time; false when there is no such block. */
static bool rot_in_block(unsigned k, uint64_t n)
{
    struct err e = { 0 };
    struct jrn_sim js;
    struct wal_look l;
    struct hit hit;
    bool there;

    store_init(&js, 5);
    js.conf.wal_budget = 1 << 30;
    life(&js, 0);
    jrn_sim_close(&js);
    life(&js, (unsigned)n);
    call_wait_ms(&js, 100); /* the closing block */
    jrn_sim_crash(&js, false);
    wal_look_open(&l, &js);
    REQUIRE(wal_look_scan(&l) >= 0);
    /* The first life is the catalogue's: its loss is another test's. */
    while (k < l.n_blocks && l.blocks[k].head.incarnation == 1)
        k++;
    there = k + 1 < l.n_blocks;
    if (there) {
        block_hits(&l.blocks[k], &hit);
        wal_look_flip(&l, l.blocks[k].file, l.blocks[k].pos + 100 + k % 3 * 90);
        wal_look_close(&l);
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        check_after_rot(&js, &hit, n);
        jrn_sim_close(&js);
        /* The loss is recorded: the next start says the same. */
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        for (unsigned i = 0; i < js.st->n_groups; i++)
            CHECK_EQ(atomic_load(&js.st->groups[i]->read_only), hit.group[i]);
        jrn_sim_close(&js);
    } else {
        wal_look_close(&l);
    }
    jrn_sim_fini(&js);
    return there;
}

static void test_rot_in_any_block_stops_exactly_the_groups_that_it_held(void)
{
    unsigned n = 0;
    static struct jrn_sim js;
    struct wal_look l;

    store_init(&js, 5);
    js.conf.wal_budget = 1 << 30;
    life(&js, 0);
    jrn_sim_close(&js);
    wal_look_open(&l, &js);
    REQUIRE(wal_look_scan(&l) >= 0);
    n = l.n_blocks; /* of the first life */
    wal_look_close(&l);
    jrn_sim_fini(&js);
    for (unsigned k = n; rot_in_block(k, 6); k++)
        n++;
    CHECK(n > 36);
}

static void test_rot_in_the_catalogue_stops_updates_and_nothing_else(void)
{
    struct err e = { 0 };
    struct jrn_sim js;
    struct wal_look l;
    struct hit hit = { 0 };
    unsigned k;

    store_init(&js, 6);
    js.conf.wal_budget = 1 << 30;
    life(&js, 3);
    jrn_sim_close(&js);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    CHECK_EQ(call_create(&js, 90, SHARD_CLASS_DATA), 0);
    call_wait_ms(&js, 100);
    jrn_sim_crash(&js, false);
    wal_look_open(&l, &js);
    REQUIRE(wal_look_scan(&l) >= 0);
    for (k = l.n_blocks - 1; k > 0 && !hit.group[GROUP_CATALOGUE]; k--)
        block_hits(&l.blocks[k - 1], &hit);
    REQUIRE(k > 0 && l.blocks[k].head.incarnation == 2);
    wal_look_flip(&l, l.blocks[k].file, l.blocks[k].pos + 500);
    wal_look_close(&l);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    for (unsigned i = 0; i < js.st->n_groups; i++)
        CHECK_EQ(atomic_load(&js.st->groups[i]->read_only), i == GROUP_CATALOGUE);
    CHECK_EQ(call_create(&js, 91, SHARD_CLASS_DATA), E_READONLY);
    check_all(&js, 3);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

/* --- the superblock --- */

static void test_any_three_damaged_copies_of_the_superblock_cost_nothing(void)
{
    for (unsigned set = 1; set < 15; set++) {
        for (unsigned destage = 0; destage < 2; destage++) {
            struct err e = { 0 };
            struct jrn_sim js;

            store_init(&js, 300 + set);
            js.conf.wal_budget = destage ? 65536 : 1 << 30;
            life(&js, 5);
            jrn_sim_crash(&js, false);
            life(&js, 15);
            jrn_sim_crash(&js, false);
            for (unsigned i = 0; i < SUPER_COPIES; i++)
                if (set & 1u << i)
                    REQUIRE(sim_disk_rot(js.disk, "superblock", i * SUPER_BYTES + 40) >= 0);
            if (jrn_sim_open(&js, &e) < 0)
                fprintf(stderr, "copies %x, destage %u: %s\n", set, destage, e.text);
            REQUIRE(js.j != NULL);
            CHECK_EQ(journal_start(js.j), 3); /* no start's number is given twice */
            check_all(&js, 20);
            jrn_sim_close(&js);
            jrn_sim_fini(&js);
        }
    }
}

static void test_a_superblock_without_a_valid_copy_is_refused(void)
{
    struct err e = { 0 };
    struct jrn_sim js;

    store_init(&js, 320);
    life(&js, 1);
    jrn_sim_close(&js);
    for (unsigned i = 0; i < SUPER_COPIES; i++)
        REQUIRE(sim_disk_rot(js.disk, "superblock", i * SUPER_BYTES + 40) >= 0);
    CHECK_EQ(jrn_sim_open(&js, &e), E_CORRUPT);
    CHECK(strstr(e.text, "superblock") != NULL);
    jrn_sim_fini(&js);
}

/* --- faults of opening --- */

/* Opens with the nth operation of that kind failing; then without. False: it met none. */
static bool open_faulty(struct jrn_sim *js, enum sim_fault kind, uint32_t nth)
{
    struct err e = { 0 };
    bool met;
    int rc;

    js->disk->faults.nth[kind] = nth;
    rc = jrn_sim_open(js, &e);
    met = js->disk->faults.nth[kind] == 0;
    js->disk->faults.nth[kind] = 0;
    CHECK(rc >= 0 || met);
    CHECK(rc >= 0 || e.text[0] != 0);
    CHECK(rc >= 0 || rc == E_IO || rc == E_NOSPACE || rc == E_CORRUPT);
    if (rc >= 0)
        jrn_sim_close(js);
    return met;
}

static void sweep(enum sim_fault kind, unsigned how)
{
    bool met = true;
    uint32_t n = 1;

    for (; met && n < FAULTS_MAX; n++) {
        struct err e = { 0 };
        struct jrn_sim js;

        store_init(&js, 400 + n);
        if (how > 0) {
            js.conf.wal_budget = how == 1 ? 65536 : 1 << 30;
            life(&js, 12);
            jrn_sim_crash(&js, how == 3); /* 3: and the rows are lost */
        }
        met = open_faulty(&js, kind, n);
        if (n % 2)
            jrn_sim_crash(&js, false);
        if (jrn_sim_open(&js, &e) < 0)
            fprintf(stderr, "fault %d, number %u, store %u: %s\n", (int)kind, n, how, e.text);
        REQUIRE(js.j != NULL);
        if (how > 0)
            check_all(&js, 12);
        else
            CHECK_EQ(call_create(&js, 16, SHARD_CLASS_DATA), 0);
        jrn_sim_close(&js);
        jrn_sim_fini(&js);
    }
    CHECK(!met);
}

static void test_each_failed_operation_of_creating_a_store_is_told_and_mended_by_the_next(void)
{
    sweep(SIM_FAULT_WRITE, 0);
    sweep(SIM_FAULT_SYNC, 0);
    sweep(SIM_FAULT_NAMES, 0);
    sweep(SIM_FAULT_CREATE, 0);
    sweep(SIM_FAULT_READ, 0);
}

static void test_each_failed_operation_of_opening_a_store_is_told_and_loses_nothing(void)
{
    for (unsigned how = 1; how <= 3; how++) {
        sweep(SIM_FAULT_READ, how);
        sweep(SIM_FAULT_WRITE, how);
        sweep(SIM_FAULT_SYNC, how);
        sweep(SIM_FAULT_NAMES, how);
        sweep(SIM_FAULT_CREATE, how);
    }
}

static void test_power_lost_at_any_operation_of_opening_loses_nothing(void)
{
    for (unsigned how = 0; how < 4; how++) {
        bool met = true;

        for (uint64_t n = 0; met && n < FAULTS_MAX; n++) {
            struct err e = { 0 };
            struct jrn_sim js;
            int rc;

            store_init(&js, 900 + n);
            if (how > 0) {
                js.conf.wal_budget = how == 1 ? 65536 : 1 << 30;
                life(&js, 12);
                jrn_sim_crash(&js, how == 3);
            }
            sim_disk_power_off_after(js.disk, n);
            rc = jrn_sim_open(&js, &e);
            met = js.disk->off;
            CHECK(rc >= 0 || e.text[0] != 0);
            CHECK(rc >= 0 || met);
            jrn_sim_crash(&js, n % 3 == 0);
            e = (struct err){ 0 };
            if (jrn_sim_open(&js, &e) < 0)
                fprintf(stderr, "power off after %u, store %u: %s\n", (unsigned)n, how, e.text);
            REQUIRE(js.j != NULL);
            if (how > 0)
                check_all(&js, 12);
            jrn_sim_close(&js);
            jrn_sim_fini(&js);
        }
        CHECK(!met);
    }
}

/* --- many shards --- */

enum { MANY = 400, MANY_LIVES = 3 };

/* In each life some shards get a batch: the first, the last, and others far apart, or all of them. The
 * WAL of the last life alone is live when `destaged`. */
static void many_shards(bool destaged)
{
    static const unsigned every[MANY_LIVES] = { 1, 133, 399 };
    uint64_t ends[MANY] = { 0 };
    struct err e = { 0 };
    struct jrn_sim js;

    store_init(&js, 11);
    js.conf.wal_budget = destaged ? 1 : 1 << 30;
    for (unsigned l = 0; l < MANY_LIVES; l++) {
        REQUIRE(jrn_sim_open(&js, &e) >= 0);
        for (unsigned i = 0; i < MANY; i++) {
            struct shard *s;

            if (l == 0)
                REQUIRE(call_create(&js, 16 + i, SHARD_CLASS_DATA) == 0);
            if (i % every[l] != 0)
                continue;
            s = call_open(&js, 16 + i, NULL);
            REQUIRE(s != NULL);
            REQUIRE(call_append(&js, s, call_batch(i, 1 + i % 3, 500), NULL) == 0);
            ends[i] += 1 + i % 3;
            shard_unref(s);
        }
        REQUIRE(call_delete(&js, 16 + 7 + l) == 0);
        call_wait_ms(&js, destaged ? 1000 : 0);
        jrn_sim_crash(&js, false);
    }
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    for (unsigned i = 0; i < MANY; i++) {
        int rc;
        struct shard *s = call_open(&js, 16 + i, &rc);

        CHECK_EQ(s == NULL, i >= 7 && i < 7 + MANY_LIVES);
        if (!s)
            continue;
        CHECK_EQ(shard_end(s), ends[i]);
        CHECK_EQ(call_read(&js, s, 0, NULL, &rc, NULL), ends[i]);
        shard_unref(s);
    }
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_of_many_shards_those_that_the_wal_names_are_found_in_the_rows(void)
{
    many_shards(false);
    many_shards(true);
}

TEST_MAIN(
    T(of_many_shards_those_that_the_wal_names_are_found_in_the_rows)
        T(rot_in_any_block_stops_exactly_the_groups_that_it_held)
            T(rot_in_the_catalogue_stops_updates_and_nothing_else)
                T(any_three_damaged_copies_of_the_superblock_cost_nothing)
                    T(a_superblock_without_a_valid_copy_is_refused)
                        T(each_failed_operation_of_creating_a_store_is_told_and_mended_by_the_next)
                            T(each_failed_operation_of_opening_a_store_is_told_and_loses_nothing)
                                T(power_lost_at_any_operation_of_opening_loses_nothing))
