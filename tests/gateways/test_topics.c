#include <stdlib.h>

#include "base/logger.h"
#include "base/rng.h"
#include "gateways/topics/topics.h"
#include "tests/check.h"
#include "tests/gateways/journal_fake.h"
#include "tests/sim/loop_sim.h"

enum { MANY_STEPS = 1000000 };

static struct sim *sim;
static struct journal *journal;
static struct topics *topics;
static struct loop *home, *other;
static unsigned n_answers;

static bool answered(void *ctx)
{
    return n_answers >= *(unsigned *)ctx;
}

static void run_until_answers(unsigned n)
{
    REQUIRE(sim_run_until(sim, answered, &n, MANY_STEPS));
}

static void started(struct topics_start *s)
{
    n_answers++;
}

static int load(uint64_t seed)
{
    struct topics_start s = { .fn = started, .loop = other };

    topics = topics_new(&(struct topics_env){
        .journal = journal, .home = home, .pool = sim_pool(sim), .seed = seed });
    n_answers = 0;
    topics_start(topics, &s);
    run_until_answers(1);
    return s.rc;
}

static void begin(void)
{
    logger_to(-1);
    sim = sim_new(1);
    journal = journal_fake_new();
    home = sim_loop(sim, 0);
    other = sim_loop(sim, 1);
    REQUIRE(load(1) == 0);
}

static void restart(void)
{
    topics_free(topics);
    journal_fake_restart(journal);
    REQUIRE(load(1) == 0);
}

static void end(void)
{
    topics_free(topics);
    CHECK_EQ(journal_fake_handles(journal), 0);
    journal_fake_free(journal);
    sim_free(sim);
    CHECK_EQ(buf_total_bytes(), 0);
}

static void changed(struct topics_change *c)
{
    n_answers++;
}

static void ask(struct topics_change *c, const char *name, uint32_t n,
                void (*fn)(struct topics *ts, struct topics_change *c))
{
    *c = (struct topics_change){
        .fn = changed, .loop = other, .name = name, .name_bytes = strlen(name), .n_partitions = n
    };
    fn(topics, c);
}

/* One change and its answer; the topic is given back. */
static int change(const char *name, uint32_t n,
                  void (*fn)(struct topics *ts, struct topics_change *c))
{
    struct topics_change c;

    n_answers = 0;
    ask(&c, name, n, fn);
    run_until_answers(1);
    topic_unref(c.topic);
    return c.rc;
}

static void opened(struct topic_open *o)
{
    n_answers++;
}

static int open_shard(struct topic *t, uint32_t partition, struct shard **shard)
{
    struct topic_open o = { .fn = opened, .loop = other, .topic = t, .partition = partition };

    n_answers = 0;
    topic_open(topics, &o);
    run_until_answers(1);
    *shard = o.shard;
    return o.rc;
}

static void test_names_follow_the_rules(void)
{
    static const char *const good[] = { "a", "A.b_c-9", "...", "__x", ".a" };
    static const char *const bad[] = { "", ".", "..", "a b", "a/b", "\xc3\xa4", "a\n" };
    char longest[TOPIC_NAME_MAX + 2];

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK(topic_name_ok(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(!topic_name_ok(bad[i], strlen(bad[i])));
    memset(longest, 'x', sizeof longest);
    CHECK(topic_name_ok(longest, TOPIC_NAME_MAX));
    CHECK(!topic_name_ok(longest, TOPIC_NAME_MAX + 1));
    CHECK(!topic_name_ok("a\0b", 3));
}

static void test_a_created_topic_is_found_by_name_and_by_id(void)
{
    struct topic *a, *b;

    begin();
    CHECK_EQ(change("t", 3, topics_create), 0);
    a = topics_find(topics, "t", 1);
    REQUIRE(a != NULL);
    CHECK_EQ(a->n_partitions, 3);
    CHECK_EQ(a->created_ms, SIM_WALL_START_MS + (int64_t)(sim_now_us(sim) / 1000));
    b = topics_find_id(topics, a->id);
    CHECK(a == b);
    CHECK(topics_find(topics, "T", 1) == NULL);
    topic_unref(a);
    topic_unref(b);
    end();
}

static void test_creation_is_one_update_and_fails_whole(void)
{
    unsigned before;

    begin();
    before = journal_fake_updates(journal);
    journal_fake_fail_updates(journal, E_NOSPACE, 1);
    CHECK_EQ(change("t", 3, topics_create), E_NOSPACE);
    CHECK(topics_find(topics, "t", 1) == NULL);
    CHECK_EQ(change("t", 3, topics_create), 0);
    CHECK_EQ(journal_fake_updates(journal), before + 2);
    end();
}

static void test_of_many_creations_at_once_one_wins(void)
{
    struct topics_change c[10];
    unsigned won = 0;

    begin();
    n_answers = 0;
    for (unsigned i = 0; i < 10; i++)
        ask(&c[i], "t", i + 1, topics_create);
    run_until_answers(10);
    for (unsigned i = 0; i < 10; i++) {
        won += c[i].rc == 0;
        CHECK(c[i].rc == 0 || c[i].rc == E_EXISTS);
        /* Those that lost are shown the winner. */
        REQUIRE(c[i].topic != NULL);
        CHECK(c[i].topic == c[0].topic);
        topic_unref(c[i].topic);
    }
    CHECK_EQ(won, 1);
    end();
}

static void test_changes_of_one_name_happen_in_order(void)
{
    struct topics_change c[4];
    struct topic *t;

    begin();
    n_answers = 0;
    ask(&c[0], "t", 2, topics_create);
    ask(&c[1], "t", 5, topics_grow);
    ask(&c[2], "t", 0, topics_delete);
    ask(&c[3], "t", 1, topics_create);
    run_until_answers(4);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(c[i].rc, 0);
        topic_unref(c[i].topic);
    }
    t = topics_find(topics, "t", 1);
    REQUIRE(t != NULL);
    CHECK_EQ(t->n_partitions, 1);
    topic_unref(t);
    end();
}

static void test_grow_keeps_the_old_shards_and_their_handles(void)
{
    struct topic *old, *grown;
    struct shard *shard, *same;

    begin();
    CHECK_EQ(change("t", 2, topics_create), 0);
    old = topics_find(topics, "t", 1);
    CHECK_EQ(open_shard(old, 1, &shard), 0);
    CHECK_EQ(change("t", 2, topics_grow), E_INVALID);
    CHECK_EQ(change("x", 2, topics_grow), E_NOTFOUND);
    CHECK_EQ(change("t", 4, topics_grow), 0);
    grown = topics_find(topics, "t", 1);
    REQUIRE(grown != NULL && grown != old);
    CHECK_EQ(grown->n_partitions, 4);
    CHECK(!memcmp(grown->id, old->id, TOPIC_ID_BYTES));
    CHECK_EQ(grown->shards[1], old->shards[1]);
    same = topic_shard(topics, grown, 1);
    CHECK(same == shard);
    shard_unref(same);
    /* The old view still works for who holds it. */
    same = topic_shard(topics, old, 1);
    CHECK(same == shard);
    shard_unref(same);
    shard_unref(shard);
    CHECK(topic_shard(topics, grown, 3) == NULL);
    CHECK_EQ(topic_epoch(topics, grown, 3), topic_epoch(topics, grown, 1));
    CHECK_EQ(open_shard(grown, 3, &shard), 0);
    CHECK_EQ(shard_id(shard), grown->shards[3]);
    shard_unref(shard);
    topic_unref(old);
    topic_unref(grown);
    end();
}

static void on_delete(void *ctx, const struct topic *t)
{
    memcpy(ctx, t->name, t->name_bytes + 1);
}

static void test_a_deleted_topic_is_gone_and_its_shards_say_so(void)
{
    struct topic *t;
    struct shard *shard;
    char gone[TOPIC_NAME_MAX + 1] = "";

    begin();
    topics_on_delete(topics, on_delete, gone);
    CHECK_EQ(change("t", 2, topics_create), 0);
    t = topics_find(topics, "t", 1);
    CHECK_EQ(change("t", 0, topics_delete), 0);
    CHECK(!strcmp(gone, "t"));
    CHECK(topics_find(topics, "t", 1) == NULL);
    CHECK(topics_find_id(topics, t->id) == NULL);
    CHECK(open_shard(t, 0, &shard) == E_DELETED);
    CHECK_EQ(change("t", 0, topics_delete), E_NOTFOUND);
    topic_unref(t);
    end();
}

static void test_settings_and_everything_else_survive_a_restart(void)
{
    struct topic_setting settings[2] = { { .name = (char *)"retention.ms", .value = (char *)"5" },
                                         { .name = (char *)"empty", .value = (char *)"" } };
    struct topics_change c = { .fn = changed,
                               .name = "t",
                               .name_bytes = 1,
                               .n_partitions = 7,
                               .settings = settings,
                               .n_settings = 2 };
    struct topic *t;
    uint8_t id[TOPIC_ID_BYTES], store[TOPIC_ID_BYTES];
    uint64_t last;
    int64_t created;

    begin();
    c.loop = other;
    memcpy(store, topics_store_id(topics), sizeof store);
    n_answers = 0;
    topics_create(topics, &c);
    run_until_answers(1);
    REQUIRE(c.rc == 0);
    memcpy(id, c.topic->id, sizeof id);
    last = c.topic->shards[6];
    created = c.topic->created_ms;
    topic_unref(c.topic);
    restart();
    t = topics_find_id(topics, id);
    REQUIRE(t != NULL);
    CHECK(!strcmp(t->name, "t"));
    CHECK_EQ(t->n_partitions, 7);
    CHECK_EQ(t->shards[6], last);
    CHECK_EQ(t->created_ms, created);
    REQUIRE(topic_setting(t, "retention.ms") != NULL);
    CHECK(!strcmp(topic_setting(t, "retention.ms"), "5"));
    CHECK(!strcmp(topic_setting(t, "empty"), ""));
    CHECK(topic_setting(t, "other") == NULL);
    CHECK(!memcmp(store, topics_store_id(topics), sizeof store));
    topic_unref(t);
    end();
}

static void test_ids_differ_from_start_to_start_with_one_seed(void)
{
    struct topic *a, *b;

    begin();
    CHECK_EQ(change("a", 1, topics_create), 0);
    restart();
    CHECK_EQ(change("b", 1, topics_create), 0);
    a = topics_find(topics, "a", 1);
    b = topics_find(topics, "b", 1);
    REQUIRE(a && b);
    CHECK(memcmp(a->id, b->id, TOPIC_ID_BYTES) != 0);
    CHECK(a->shards[0] != b->shards[0]);
    topic_unref(a);
    topic_unref(b);
    end();
}

static void internal_found(struct topics_internal *q)
{
    n_answers++;
}

static uint64_t internal(const char *name)
{
    struct topics_internal q = { .fn = internal_found, .loop = other, .name = name };

    n_answers = 0;
    topics_internal_shard(topics, &q);
    run_until_answers(1);
    REQUIRE(q.rc == 0);
    return q.shard;
}

static void test_internal_shards_are_made_once(void)
{
    uint64_t a, b;

    begin();
    a = internal("offsets");
    b = internal("sessions");
    CHECK(a != b);
    CHECK_EQ(internal("offsets"), a);
    restart();
    CHECK_EQ(internal("offsets"), a);
    CHECK_EQ(internal("sessions"), b);
    CHECK(topics_find(topics, "offsets", 7) == NULL);
    end();
}

static void test_a_row_that_makes_no_sense_stops_the_start(void)
{
    static const uint8_t key[17] = { 'T', 1 };
    static const uint8_t newer[] = { 3, 1, 't' };
    static const uint8_t cut[] = { 2, 1, 't', 0, 0 };
    struct {
        const uint8_t *mem;
        uint32_t bytes;
        int rc;
    } rows[] = { { newer, sizeof newer, E_VERSION }, { cut, sizeof cut, E_CORRUPT } };

    for (size_t i = 0; i < 2; i++) {
        struct jrn_change put = { .op = JRN_ROW_PUT,
                                  .key = key,
                                  .key_bytes = sizeof key,
                                  .value = rows[i].mem,
                                  .value_bytes = rows[i].bytes };
        struct jrn_update u = { .fn = NULL };

        begin();
        u.loop = home;
        journal_update(journal, &put, 1, &u);
        topics_free(topics);
        sim_crash(sim); /* the update's answer is nobody's */
        CHECK_EQ(load(1), rows[i].rc);
        end();
    }
}

/* Random changes against a plain list of what should be there; restarts between. */
static void test_random_changes_agree_with_a_model(void)
{
    static const char *const names[] = { "a", "b", "c", "d", "e" };
    uint32_t model[5] = { 0 }; /* partitions; 0: no topic */
    struct rng rng;
    struct topic **all;
    size_t n, expected;

    begin();
    rng_seed(&rng, 9);
    for (unsigned i = 0; i < 2000; i++) {
        unsigned at = (unsigned)rng_below(&rng, 5);
        uint32_t want = 1 + (uint32_t)rng_below(&rng, 6);
        uint64_t what = rng_below(&rng, 20);
        int rc;

        if (what == 0) {
            restart();
        } else if (what < 8) {
            rc = change(names[at], want, topics_create);
            CHECK_EQ(rc, model[at] ? E_EXISTS : 0);
            model[at] = model[at] ? model[at] : want;
        } else if (what < 14) {
            rc = change(names[at], want, topics_grow);
            CHECK_EQ(rc, !model[at] ? E_NOTFOUND : want > model[at] ? 0 : E_INVALID);
            model[at] = model[at] && want > model[at] ? want : model[at];
        } else {
            CHECK_EQ(change(names[at], 0, topics_delete), model[at] ? 0 : E_NOTFOUND);
            model[at] = 0;
        }
        all = topics_list(topics, &n);
        expected = 0;
        for (unsigned m = 0; m < 5; m++) {
            if (!model[m])
                continue;
            REQUIRE(expected < n);
            CHECK(!strcmp(all[expected]->name, names[m]));
            CHECK_EQ(all[expected]->n_partitions, model[m]);
            expected++;
        }
        CHECK_EQ(n, expected);
        for (size_t m = 0; m < n; m++)
            topic_unref(all[m]);
        free(all);
    }
    end();
}

/* clang-format off */
TEST_MAIN(
    T(names_follow_the_rules)
    T(a_created_topic_is_found_by_name_and_by_id)
    T(creation_is_one_update_and_fails_whole)
    T(of_many_creations_at_once_one_wins)
    T(changes_of_one_name_happen_in_order)
    T(grow_keeps_the_old_shards_and_their_handles)
    T(a_deleted_topic_is_gone_and_its_shards_say_so)
    T(settings_and_everything_else_survive_a_restart)
    T(ids_differ_from_start_to_start_with_one_seed)
    T(internal_shards_are_made_once)
    T(a_row_that_makes_no_sense_stops_the_start)
    T(random_changes_agree_with_a_model))
