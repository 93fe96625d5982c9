/* The set of devices: what belongs together is found whatever the order of the folders, and nothing
 * else is taken for it; new shards are spread; updates over several devices are whole or nothing. */
#include "journal/devices.h"

#include <stdlib.h>

#include "base/logger.h"
#include "journal/store.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

enum { CAPACITY = 16 << 20, OPS_MAX = 600 };

static void begin(struct jrn_sim *js, uint64_t seed, unsigned n)
{
    logger_to(-1);
    jrn_sim_init(js, seed, CAPACITY, 2);
    while (js->n_devices < n)
        jrn_sim_add_device(js, CAPACITY);
}

static void up(struct jrn_sim *js)
{
    struct err e = { 0 };
    int rc = jrn_sim_open(js, &e);

    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    REQUIRE(rc >= 0);
}

/* Opens with the first n folders of order, and must be refused with these words. */
static void refused(struct jrn_sim *js, unsigned n, const char *words)
{
    unsigned all = js->n_devices;
    struct err e = { 0 };

    js->n_devices = n;
    CHECK_EQ(jrn_sim_open(js, &e), E_INVALID);
    if (!strstr(e.text, words))
        fprintf(stderr, "\"%s\" does not say \"%s\"\n", e.text, words);
    CHECK(strstr(e.text, words) != NULL);
    js->n_devices = all;
}

static void give_in_order(struct jrn_sim *js, unsigned a, unsigned b, unsigned c)
{
    js->order[0] = a;
    js->order[1] = b;
    js->order[2] = c;
}

static struct shard *shard_on(struct jrn_sim *js, unsigned device, uint64_t *id)
{
    *id = (uint64_t)device << DEVICE_SHIFT | 20;
    REQUIRE(call_create(js, *id, SHARD_CLASS_DATA) >= 0);
    return call_open(js, *id, NULL);
}

static void test_devices_keep_their_numbers_in_whatever_order_they_are_given(void)
{
    static const unsigned orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 2, 0 }, { 0, 2, 1 } };
    struct jrn_sim js;
    struct uuid stores[3];

    begin(&js, 1, 3);
    for (unsigned i = 0; i < 4; i++) {
        give_in_order(&js, orders[i][0], orders[i][1], orders[i][2]);
        up(&js);
        CHECK_EQ(journal_n_devices(js.j), 3);
        for (unsigned k = 0; k < 3; k++) {
            struct store *st = jrn_sim_store(&js, k);

            CHECK_EQ(st->super.device, k);
            CHECK_EQ(st->super.n_devices, 3);
            CHECK(memcmp(&st->super.set, &jrn_sim_store(&js, 0)->super.store, 16) == 0);
            if (i == 0)
                stores[k] = st->super.store;
            CHECK(memcmp(&stores[k], &st->super.store, 16) == 0);
        }
        jrn_sim_close(&js);
    }
    jrn_sim_fini(&js);
}

static void test_a_missing_device_is_refused_and_named(void)
{
    struct jrn_sim js;

    begin(&js, 2, 3);
    up(&js);
    jrn_sim_close(&js);
    refused(&js, 2, "device 2 of the 3 of this set is missing");
    give_in_order(&js, 2, 0, 1);
    refused(&js, 2, "device 1 of the 3 of this set is missing");
    give_in_order(&js, 1, 2, 0);
    refused(&js, 2, "device 0, which keeps its topics, is missing");
    give_in_order(&js, 0, 1, 2);
    up(&js);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_an_empty_folder_does_not_stand_for_a_missing_device(void)
{
    struct jrn_sim js;
    struct jrn_sim_device was;

    begin(&js, 3, 2);
    up(&js);
    jrn_sim_close(&js);
    was = js.devices[1];
    js.devices[1].disk = sim_disk_new(99, CAPACITY);
    js.devices[1].store = sim_rows_store_new(js.devices[1].disk);
    refused(&js, 2, "device 1 of the 2 of this set is missing");
    sim_rows_store_free(js.devices[1].store);
    sim_disk_free(js.devices[1].disk);
    js.devices[1] = was;
    up(&js);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_devices_of_two_sets_are_not_mixed(void)
{
    struct jrn_sim a, b;
    struct jrn_sim_device was;

    begin(&a, 4, 2);
    begin(&b, 5, 2);
    up(&a);
    jrn_sim_close(&a);
    up(&b);
    jrn_sim_close(&b);
    was = a.devices[1];
    a.devices[1] = b.devices[1];
    refused(&a, 2, "belongs to another set");
    a.devices[1] = b.devices[0];
    refused(&a, 2, "of two different ones");
    a.devices[1] = a.devices[0];
    refused(&a, 2, "copies of one device");
    a.devices[1] = was;
    up(&a);
    jrn_sim_close(&a);
    jrn_sim_fini(&a);
    jrn_sim_fini(&b);
}

static void test_a_store_of_its_own_becomes_device_0_when_folders_are_added(void)
{
    struct jrn_sim js;
    struct shard *s;
    uint64_t id = 17, offset = 0;

    begin(&js, 6, 1);
    up(&js);
    CHECK_EQ(js.st->super.n_devices, 1);
    REQUIRE(call_create(&js, id, SHARD_CLASS_DATA) >= 0);
    s = call_open(&js, id, NULL);
    CHECK(call_append(&js, s, call_batch(1, 3, 100), &offset) >= 0);
    shard_unref(s);
    jrn_sim_close(&js);
    jrn_sim_add_device(&js, CAPACITY);
    give_in_order(&js, 1, 0, 2); /* the new one first */
    up(&js);
    CHECK_EQ(journal_n_devices(js.j), 2);
    s = call_open(&js, id, NULL);
    REQUIRE(s != NULL);
    CHECK_EQ(shard_end(s), 3);
    shard_unref(s);
    jrn_sim_close(&js);
    give_in_order(&js, 0, 1, 2);
    refused(&js, 1, "device 1 of the 2");
    jrn_sim_fini(&js);
}

/* A first start, or one with a new folder, that power ends anywhere can be repeated. */
static bool joining_cut_after(uint64_t n, unsigned device, bool first)
{
    struct jrn_sim js;
    bool off;

    begin(&js, 1000 + n, first ? 2 : 1);
    if (!first) {
        up(&js);
        jrn_sim_close(&js);
        jrn_sim_add_device(&js, CAPACITY);
    }
    sim_disk_power_off_after(js.devices[device].disk, n);
    (void)!jrn_sim_open(&js, NULL);
    off = js.disk->off;
    jrn_sim_crash(&js, false);
    up(&js);
    CHECK_EQ(journal_n_devices(js.j), 2);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
    return off;
}

static void test_joining_goes_on_wherever_power_was_cut(void)
{
    for (unsigned way = 0; way < 4; way++) {
        uint64_t n = 0;

        while (n < OPS_MAX && joining_cut_after(n, way & 1, way & 2))
            n++;
        CHECK(n > 3 && n < OPS_MAX);
    }
}

static void test_new_shards_are_spread_by_room(void)
{
    unsigned on[3] = { 0 };
    struct jrn_sim js;

    begin(&js, 7, 2);
    jrn_sim_add_device(&js, 2 * CAPACITY);
    up(&js);
    for (unsigned i = 0; i < 400; i++)
        on[device_of(journal_shard_new(js.j, SHARD_CLASS_DATA))]++;
    CHECK(on[0] > 90 && on[0] < 110);
    CHECK(on[1] > 90 && on[1] < 110);
    CHECK(on[2] > 190 && on[2] < 210);
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQ(device_of(journal_shard_new(js.j, SHARD_CLASS_INTERNAL)), 0);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_ids_are_new_and_rise_on_their_device_across_restarts(void)
{
    uint64_t last[2] = { 0 };
    struct jrn_sim js;

    begin(&js, 8, 2);
    for (unsigned life = 0; life < 3; life++) {
        up(&js);
        for (unsigned i = 0; i < 6; i++) {
            uint64_t id = journal_shard_new(js.j, SHARD_CLASS_DATA);

            CHECK(id > last[device_of(id)]);
            last[device_of(id)] = id;
            CHECK_EQ(call_create(&js, id, SHARD_CLASS_DATA), 0);
            CHECK_EQ(call_create(&js, id, SHARD_CLASS_DATA), E_EXISTS);
        }
        jrn_sim_crash(&js, life == 1);
    }
    jrn_sim_fini(&js);
}

static void test_a_failed_device_fails_its_shards_alone(void)
{
    struct jrn_device_info info;
    struct jrn_sim js;
    struct shard *s[2];
    uint64_t id[2], offset;

    begin(&js, 9, 2);
    up(&js);
    for (unsigned i = 0; i < 2; i++)
        s[i] = shard_on(&js, i, &id[i]);
    js.devices[1].disk->faults.nth[SIM_FAULT_SYNC] = 1;
    CHECK_EQ(call_append(&js, s[1], call_batch(1, 1, 10), &offset), E_DEVICE);
    CHECK_EQ(call_append(&js, s[1], call_batch(2, 1, 10), &offset), E_DEVICE);
    CHECK_EQ(call_append(&js, s[0], call_batch(3, 1, 10), &offset), 0);
    CHECK_EQ(journal_state(js.j), JRN_FAILED);
    CHECK_EQ(journal_device_info(js.j, 0, &info), 0);
    CHECK_EQ(info.state, JRN_OK);
    CHECK_EQ(journal_device_info(js.j, 1, &info), 0);
    CHECK_EQ(info.state, JRN_FAILED);
    CHECK_EQ(journal_device_info(js.j, 2, &info), E_NOTFOUND);
    for (unsigned i = 0; i < 10; i++)
        CHECK_EQ(device_of(journal_shard_new(js.j, SHARD_CLASS_DATA)), 0);
    CHECK_EQ(call_create(&js, 40, SHARD_CLASS_DATA), 0);
    CHECK_EQ(call_delete(&js, id[1]), E_DEVICE);
    shard_unref(s[0]);
    shard_unref(s[1]);
    jrn_sim_crash(&js, false);
    up(&js);
    CHECK_EQ(journal_state(js.j), JRN_OK);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static int count_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    ++*(unsigned *)ctx;
    return 0;
}

static bool is_there(struct jrn_sim *js, uint64_t id)
{
    int rc;
    struct shard *s = call_open(js, id, &rc);

    CHECK(s || rc == E_NOTFOUND);
    shard_unref(s);
    return s != NULL;
}

/* Deletes what was made before and makes what is new on all devices and in the rows, while power
 * goes after n operations of one of them. sides: how often neither or all of it was found. */
static bool update_cut_after(uint64_t n, unsigned device, bool lost, unsigned *sides)
{
    const uint64_t second = UINT64_C(1) << DEVICE_SHIFT, third = UINT64_C(2) << DEVICE_SHIFT;
    struct jrn_change old[] = { { .op = JRN_SHARD_CREATE, .shard = 16 },
                                { .op = JRN_SHARD_CREATE, .shard = second | 16 },
                                { .op = JRN_SHARD_CREATE, .shard = third | 16 } };
    struct jrn_change all[] = {
        { .op = JRN_ROW_PUT, .key = "Tx", .key_bytes = 2, .value = "v", .value_bytes = 1 },
        { .op = JRN_SHARD_CREATE, .shard = 17 },
        { .op = JRN_SHARD_CREATE, .shard = second | 17 },
        { .op = JRN_SHARD_CREATE, .shard = third | 18 },
        { .op = JRN_SHARD_DELETE, .shard = 16 },
        { .op = JRN_SHARD_DELETE, .shard = second | 16 },
        { .op = JRN_SHARD_DELETE, .shard = third | 16 }
    };
    unsigned rows = 0, made;
    struct jrn_sim js;
    bool off;
    int rc;

    begin(&js, 2000 + n, 3);
    up(&js);
    REQUIRE(call_update(&js, old, 3) >= 0);
    sim_disk_power_off_after(js.devices[device].disk, n);
    rc = call_update(&js, all, 7);
    off = js.disk->off;
    jrn_sim_crash(&js, lost);
    up(&js);
    REQUIRE(journal_rows_scan(js.j, "T", 1, count_row, &rows) >= 0);
    CHECK(rc < 0 || rows == 1);
    made = rows + is_there(&js, 17) + is_there(&js, second | 17) + is_there(&js, third | 18) +
           !is_there(&js, 16) + !is_there(&js, second | 16) + !is_there(&js, third | 16);
    CHECK(made == 0 || made == 7);
    sides[made == 7]++;
    CHECK_EQ(call_create(&js, second | 17, SHARD_CLASS_DATA), made ? E_EXISTS : 0);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
    return off;
}

static void test_an_update_of_three_devices_is_all_or_nothing_wherever_power_is_cut(void)
{
    for (unsigned way = 0; way < 6; way++) {
        unsigned sides[2] = { 0 };
        uint64_t n = 0;

        while (n < OPS_MAX && update_cut_after(n, way % 3, way >= 3, sides))
            n++;
        CHECK(n > 1 && n < OPS_MAX);
        CHECK(sides[1] > 0);
        if (way % 3 == 0) /* the others have no part before it is durable there */
            CHECK(sides[0] > 0);
    }
}

static void test_a_device_that_fails_after_the_update_is_durable_gets_its_part_later(void)
{
    const uint64_t there = UINT64_C(1) << DEVICE_SHIFT | 16;
    struct jrn_change all[] = {
        { .op = JRN_ROW_PUT, .key = "Tx", .key_bytes = 2, .value = "v", .value_bytes = 1 },
        { .op = JRN_SHARD_CREATE, .shard = there }
    };
    struct jrn_sim js;
    unsigned rows = 0;

    begin(&js, 10, 2);
    up(&js);
    js.devices[1].disk->faults.nth[SIM_FAULT_SYNC] = 1;
    CHECK_EQ(call_update(&js, all, 2), 0);
    CHECK_EQ(call_create(&js, there + 1, SHARD_CLASS_DATA), E_DEVICE);
    CHECK_EQ(call_create(&js, 16, SHARD_CLASS_DATA), 0); /* others go on */
    jrn_sim_crash(&js, false);
    for (unsigned life = 0; life < 2; life++) {
        rows = 0;
        up(&js);
        REQUIRE(journal_rows_scan(js.j, "T", 1, count_row, &rows) >= 0);
        CHECK_EQ(rows, 1);
        CHECK(is_there(&js, there));
        jrn_sim_close(&js);
    }
    jrn_sim_fini(&js);
}

static void test_a_shard_of_a_device_that_is_not_there_is_not_found(void)
{
    struct jrn_sim js;
    int rc;

    begin(&js, 11, 2);
    up(&js);
    CHECK(call_open(&js, UINT64_C(2) << DEVICE_SHIFT | 16, &rc) == NULL);
    CHECK_EQ(rc, E_NOTFOUND);
    CHECK_EQ(call_create(&js, UINT64_C(2) << DEVICE_SHIFT | 16, SHARD_CLASS_DATA), E_INVALID);
    CHECK_EQ(call_create(&js, UINT64_C(1) << DEVICE_SHIFT | 15, SHARD_CLASS_DATA), E_INVALID);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

TEST_MAIN(T(devices_keep_their_numbers_in_whatever_order_they_are_given) T(
    a_missing_device_is_refused_and_named) T(an_empty_folder_does_not_stand_for_a_missing_device)
              T(devices_of_two_sets_are_not_mixed)
                  T(a_store_of_its_own_becomes_device_0_when_folders_are_added)
                      T(joining_goes_on_wherever_power_was_cut) T(new_shards_are_spread_by_room) T(
                          ids_are_new_and_rise_on_their_device_across_restarts)
                          T(a_failed_device_fails_its_shards_alone) T(
                              an_update_of_three_devices_is_all_or_nothing_wherever_power_is_cut)
                              T(a_device_that_fails_after_the_update_is_durable_gets_its_part_later)
                                  T(a_shard_of_a_device_that_is_not_there_is_not_found))
