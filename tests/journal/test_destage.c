/* Destage: rounds begun by hand, cut at every operation, and what they leave. */
#include "journal/destage.h"
#include "base/logger.h"
#include "format/batch.h"
#include "journal/shard.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

#include <inttypes.h>
#include <stdlib.h>

enum { SHARDS = 4, OPS_MAX = 1000, STEPS = 1000000, EXTENT = 2 * UNIT_BYTES };

/* A store whose WAL is destaged only when a test says so, with n batches in each shard. */
static void up(struct jrn_sim *js, uint64_t seed, uint64_t slab_first, unsigned n, struct shard **s)
{
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(js, seed, 64 << 20, 2);
    js->conf.wal_budget = 1 << 30;
    js->conf.wal_extent = EXTENT;
    js->conf.slab_first = js->conf.slab_max = slab_first;
    REQUIRE(jrn_sim_open(js, &e) >= 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        REQUIRE(call_create(js, 16 + i, SHARD_CLASS_DATA) == 0);
        s[i] = call_open(js, 16 + i, NULL);
        REQUIRE(s[i] != NULL);
    }
    for (unsigned i = 0; i < n * SHARDS; i++)
        REQUIRE(call_append(js, s[i % SHARDS], call_batch(i, 1 + i % 3, i * 1741 % 6000), NULL) ==
                0);
}

static void handles_drop(struct shard **s)
{
    for (unsigned i = 0; i < SHARDS; i++)
        shard_unref(s[i]);
}

static void begin(struct store *st, void *arg)
{
    destage_consider(st, true);
    *(bool *)arg = true;
}

struct round {
    struct jrn_sim *js;
    bool begun;
};

static bool round_over(void *ctx)
{
    struct round *r = ctx;

    return r->begun && (destage_idle(r->js->st->destage) || journal_state(r->js->j) == JRN_FAILED);
}

/* One round over what is closed; true when the checkpoint has moved. */
static bool round_run(struct jrn_sim *js)
{
    struct round r = { .js = js };
    uint64_t before = js->st->super.ckpt_lsn;

    store_on_keeper(js->st, begin, &r.begun);
    REQUIRE(sim_run_until(js->sim, round_over, &r, STEPS));
    CHECK(js->st->super.ckpt_lsn >= before);
    return js->st->super.ckpt_lsn > before;
}

static uint64_t closed_bytes(struct jrn_sim *js)
{
    return wal_live(&js->st->wal).closed_bytes;
}

static void rounds_run(struct jrn_sim *js)
{
    while (closed_bytes(js) > 0)
        REQUIRE(round_run(js));
}

/* --- what a round leaves --- */

static void test_after_a_round_all_reads_the_same_and_the_wal_is_free(void)
{
    struct call_bytes before[SHARDS] = { 0 };
    struct shard *s[SHARDS];
    struct jrn_sim js;
    uint64_t end[SHARDS];
    int rc;

    up(&js, 1, 16 * UNIT_BYTES, 30, s);
    for (unsigned i = 0; i < SHARDS; i++)
        end[i] = call_read(&js, s[i], 0, &before[i], &rc, NULL);
    CHECK(closed_bytes(&js) >= 2 * EXTENT);
    rounds_run(&js);
    CHECK_EQ(closed_bytes(&js), 0);
    CHECK(js.st->segments.by_id.count > 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        struct call_bytes after = { 0 };

        CHECK(end[i] > 0);
        CHECK_EQ(call_read(&js, s[i], 0, &after, &rc, NULL), end[i]);
        CHECK_EQ(rc, 0);
        REQUIRE(after.n == before[i].n);
        CHECK(memcmp(after.mem, before[i].mem, after.n) == 0);
        free(after.mem);
        free(before[i].mem);
    }
    handles_drop(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_the_index_lets_go_of_what_is_destaged(void)
{
    struct shard *s[SHARDS];
    struct jrn_sim js;
    unsigned kept = 0;

    up(&js, 2, 16 * UNIT_BYTES, 30, s);
    rounds_run(&js);
    call_wait_ms(&js, 10);
    for (unsigned i = 0; i < SHARDS; i++) {
        for (uint32_t k = 0; k < index_count(&s[i]->index); k++)
            CHECK(index_at(&s[i]->index, k)->lsn >= js.st->super.ckpt_lsn);
        kept += index_count(&s[i]->index);
    }
    CHECK(kept < SHARDS * 30);
    handles_drop(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

/* --- identity --- */

struct sealed {
    uint64_t group, first, last;
    struct sum128 identity;
    unsigned n_extents;
};

static unsigned sealed_list(struct jrn_sim *js, struct sealed *list, unsigned max)
{
    uint64_t pos = 0;
    unsigned n = 0;
    void *value;

    while (n < max && hash_next(&js->st->segments.by_id, &pos, NULL, &value)) {
        const struct row_segment *row = &((struct segment *)value)->row;

        list[n++] = (struct sealed){ row->group, row->first_entry, row->last_entry, row->identity,
                                     row->n_extents };
    }
    return n;
}

/* The same log in two stores whose slabs are cut otherwise, and one of them scattered: segments of
 * the same entries have the same identity. */
static void test_segments_of_the_same_entries_have_the_same_identity(void)
{
    struct sealed list[2][64];
    unsigned n[2], same = 0, otherwise_cut = 0;

    for (unsigned k = 0; k < 2; k++) {
        struct shard *s[SHARDS];
        struct jrn_sim js;
        static uint64_t slabs_taken[1024];
        unsigned n_taken = 0;
        uint64_t place;

        up(&js, 3, (k ? 40 : 16) * UNIT_BYTES, 30, s);
        if (k) { /* only single units are left, and no more will come */
            js.st->slabs.space_max = 1;
            while (slabs_take(&js.st->slabs, UNIT_LOG2, &place) >= 0)
                slabs_taken[n_taken++] = place;
            for (unsigned i = 0; i < n_taken; i++)
                if ((uint32_t)slabs_taken[i] % 2)
                    slabs_give(&js.st->slabs, slabs_taken[i], UNIT_LOG2);
        }
        rounds_run(&js);
        n[k] = sealed_list(&js, list[k], 64);
        handles_drop(s);
        jrn_sim_close(&js);
        jrn_sim_fini(&js);
    }
    for (unsigned i = 0; i < n[0]; i++)
        for (unsigned k = 0; k < n[1]; k++) {
            const struct sealed *a = &list[0][i], *b = &list[1][k];

            /* The catalogue's own records name segments and places: they differ. */
            if (a->group < GROUP_DATA || a->group != b->group || a->first != b->first ||
                a->last != b->last)
                continue;
            CHECK(memcmp(&a->identity, &b->identity, sizeof a->identity) == 0);
            same++;
            otherwise_cut += a->n_extents != b->n_extents;
        }
    CHECK(same >= 2);
    CHECK(otherwise_cut > 0);
}

/* --- damage that is found when it is destaged --- */

/* Flips a bit in the stored batch that holds entry k of the shard's index. */
static struct index_entry damage_entry(struct jrn_sim *js, struct shard *s, uint32_t k)
{
    struct index_entry n = *index_at(&s->index, k);
    struct wal_extent *x;
    char name[32];
    uint64_t pos;

    REQUIRE(wal_pin(&js->st->wal, n.lsn, n.bytes, &x) >= 0);
    REQUIRE(x->end_lsn != LSN_OPEN);
    REQUIRE(wal_at(&js->st->wal, x, n.lsn, &pos) != NULL);
    snprintf(name, sizeof name, "slab-%06" PRIu32, place_slab(x->place));
    REQUIRE(sim_disk_rot(js->disk, name, pos + n.bytes - 1) >= 0);
    wal_unpin(&js->st->wal, x);
    return n;
}

static void check_hole(struct jrn_sim *js, struct shard **s, const struct index_entry *n,
                       const uint64_t *end)
{
    uint64_t group = shard_group(s[1]);
    int rc;

    for (unsigned i = 0; i < SHARDS; i++) {
        bool hit = shard_group(s[i]) == group;

        if (i == 1) {
            CHECK_EQ(call_read(js, s[i], 0, NULL, &rc, NULL), n->base);
            CHECK_EQ(rc, E_LOST);
            CHECK_EQ(call_read(js, s[i], n->base + n->n_offsets, NULL, &rc, NULL), end[i]);
        } else {
            CHECK_EQ(call_read(js, s[i], 0, NULL, &rc, NULL), end[i]);
        }
        CHECK(i == 1 || rc == 0);
        CHECK_EQ(call_append(js, s[i], call_batch(1, 1, 1), NULL), hit ? E_READONLY : 0);
    }
}

static void test_a_damaged_batch_becomes_a_hole_and_stops_its_group(void)
{
    struct shard *s[SHARDS];
    struct jrn_sim js;
    struct index_entry n;
    uint64_t end[SHARDS];

    up(&js, 4, 16 * UNIT_BYTES, 30, s);
    for (unsigned i = 0; i < SHARDS; i++)
        end[i] = shard_end(s[i]);
    n = damage_entry(&js, s[1], 7);
    rounds_run(&js);
    CHECK_EQ(journal_state(js.j), JRN_OK);
    check_hole(&js, s, &n, end);
    for (unsigned life = 0; life < 3; life++) {
        handles_drop(s);
        if (life == 0)
            jrn_sim_close(&js);
        else
            jrn_sim_crash(&js, life == 2);
        REQUIRE(jrn_sim_open(&js, NULL) >= 0);
        for (unsigned i = 0; i < SHARDS; i++) {
            s[i] = call_open(&js, 16 + i, NULL);
            end[i] = shard_end(s[i]);
        }
        check_hole(&js, s, &n, end);
    }
    handles_drop(s);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

/* --- power cuts and faults in a round --- */

static void check_all(struct jrn_sim *js, const uint64_t *end, const struct call_bytes *bytes)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = call_open(js, 16 + i, NULL);
        struct call_bytes now = { 0 };
        int rc;

        REQUIRE(s != NULL);
        CHECK_EQ(shard_end(s), end[i]);
        CHECK_EQ(call_read(js, s, 0, &now, &rc, NULL), end[i]);
        CHECK_EQ(rc, 0);
        CHECK(now.n == bytes[i].n && memcmp(now.mem, bytes[i].mem, now.n) == 0);
        free(now.mem);
        shard_unref(s);
    }
}

/* A round in which power fails after n operations; false when it was over before. */
static bool cut_after(uint64_t n, bool rows_lost, bool *moved)
{
    struct call_bytes bytes[SHARDS] = { 0 };
    uint64_t end[SHARDS];
    struct shard *s[SHARDS];
    struct jrn_sim js;
    struct err e = { 0 };
    bool off;
    int rc;

    up(&js, 100 + n, 16 * UNIT_BYTES, 12, s);
    for (unsigned i = 0; i < SHARDS; i++)
        end[i] = call_read(&js, s[i], 0, &bytes[i], &rc, NULL);
    call_wait_ms(&js, 100); /* nothing else is going on */
    sim_disk_power_off_after(js.disk, n);
    *moved = round_run(&js);
    off = js.disk->off;
    CHECK(*moved || off);
    handles_drop(s);
    jrn_sim_crash(&js, rows_lost);
    for (unsigned life = 0; life < 2; life++) {
        if (jrn_sim_open(&js, &e) < 0)
            fprintf(stderr, "power off after %u: %s\n", (unsigned)n, e.text);
        REQUIRE(js.j != NULL);
        check_all(&js, end, bytes);
        rounds_run(&js); /* and the next round finds nothing in its way */
        check_all(&js, end, bytes);
        jrn_sim_crash(&js, life == 0);
    }
    for (unsigned i = 0; i < SHARDS; i++)
        free(bytes[i].mem);
    jrn_sim_fini(&js);
    return off;
}

static void test_power_cut_at_any_operation_of_a_round_loses_nothing(void)
{
    for (unsigned lost = 0; lost < 2; lost++) {
        unsigned before = 0;
        uint64_t n = 0;
        bool moved;

        while (n < OPS_MAX && cut_after(n, lost, &moved)) {
            n++;
            before += !moved;
        }
        CHECK(before > 10 && n < OPS_MAX);
    }
}

/* The nth operation of that kind fails in a round; false: there was none. */
static bool fail_at(enum sim_fault kind, uint32_t nth)
{
    struct call_bytes bytes[SHARDS] = { 0 };
    uint64_t end[SHARDS];
    struct shard *s[SHARDS];
    struct jrn_sim js;
    bool met, moved;
    int rc;

    up(&js, 200 + nth, 16 * UNIT_BYTES, 12, s);
    for (unsigned i = 0; i < SHARDS; i++)
        end[i] = call_read(&js, s[i], 0, &bytes[i], &rc, NULL);
    call_wait_ms(&js, 100);
    js.disk->faults.nth[kind] = nth;
    moved = round_run(&js);
    met = js.disk->faults.nth[kind] == 0;
    js.disk->faults.nth[kind] = 0;
    CHECK(moved || met);
    if (!moved) { /* a failed write, flush or read: the device is failed, reads go on */
        CHECK_EQ(journal_state(js.j), JRN_FAILED);
        CHECK_EQ(call_append(&js, s[0], call_batch(1, 1, 1), NULL), E_DEVICE);
    }
    check_all(&js, end, bytes);
    handles_drop(s);
    jrn_sim_crash(&js, nth % 2);
    REQUIRE(jrn_sim_open(&js, NULL) >= 0);
    check_all(&js, end, bytes);
    jrn_sim_close(&js);
    for (unsigned i = 0; i < SHARDS; i++)
        free(bytes[i].mem);
    jrn_sim_fini(&js);
    return met;
}

static void test_a_failed_operation_of_a_round_fails_the_device_and_loses_nothing(void)
{
    static const enum sim_fault kinds[] = { SIM_FAULT_READ, SIM_FAULT_WRITE, SIM_FAULT_SYNC };

    for (unsigned k = 0; k < 3; k++) {
        uint32_t n = 1;

        while (n < OPS_MAX && fail_at(kinds[k], n))
            n++;
        CHECK(n > 2 && n < OPS_MAX);
    }
}

TEST_MAIN(T(after_a_round_all_reads_the_same_and_the_wal_is_free)
              T(the_index_lets_go_of_what_is_destaged)
                  T(segments_of_the_same_entries_have_the_same_identity)
                      T(a_damaged_batch_becomes_a_hole_and_stops_its_group)
                          T(power_cut_at_any_operation_of_a_round_loses_nothing)
                              T(a_failed_operation_of_a_round_fails_the_device_and_loses_nothing))
