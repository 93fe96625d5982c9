/* The group APIs through the door: bytes in, bytes out, over an in-memory connection and
 * journal. */
#include <stdlib.h>

#include "base/buf.h"
#include "base/logger.h"
#include "gateways/kafka/api.h"
#include "gateways/kafka/group_api.h"
#include "gateways/kafka/kafka.h"
#include "gateways/kafka/schema_group.h"
#include "gateways/kafka/schema_topics.h"
#include "tests/check.h"
#include "tests/gateways/conn_fake.h"
#include "tests/gateways/journal_fake.h"
#include "tests/gateways/kafka_messages.h"
#include "tests/sim/loop_sim.h"

enum {
    COMMIT = 8,
    FETCH = 9,
    JOIN = 11,
    HEARTBEAT = 12,
    LEAVE = 13,
    SYNC = 14,
    DESCRIBE = 15,
    LIST = 16,
    CREATE_TOPICS = 19,
    DELETE_TOPICS = 20,
    DELETE_GROUPS = 42,
    OFFSET_DELETE = 47,
    SESSION_MS = 10000,
    CLIENTS = 4,
    STEPS = 1000000
};

/* ---- a door with clients ---- */

struct world {
    struct sim *sim;
    struct loop *loops[2];
    struct journal *journal;
    struct kafka *kafka;
    struct conn_door door;
    struct conn_fake *conns[CLIENTS]; /* on both loops in turn */
    struct kafka_arena arena;         /* requests and answers of one test */
    int32_t correlation;
};

static bool flag;

static bool flag_up(void *ctx)
{
    return flag;
}

static void on_start(struct kafka_start *s)
{
    flag = true;
}

static void on_stop(struct kafka_stop *s)
{
    flag = true;
}

static void start(struct world *w)
{
    struct kafka_start s = { .fn = on_start, .loop = w->loops[0] };
    struct kafka_env env = {
        .journal = w->journal, .loops = w->loops, .n_loops = 2, .pool = sim_pool(w->sim), .seed = 5
    };

    REQUIRE(kafka_new(&w->kafka, &env, &(struct kafka_conf){ 0 }, NULL) == 0);
    flag = false;
    kafka_start(w->kafka, &s);
    REQUIRE(sim_run_until(w->sim, flag_up, NULL, STEPS));
    REQUIRE(s.rc == 0);
    w->door = kafka_door(w->kafka);
    for (int i = 0; i < CLIENTS; i++)
        w->conns[i] = conn_fake_new(&w->door, w->loops[i % 2]);
}

static void stop(struct world *w)
{
    struct kafka_stop s = { .fn = on_stop, .loop = w->loops[0] };

    flag = false;
    kafka_stop(w->kafka, &s);
    REQUIRE(sim_run_until(w->sim, flag_up, NULL, STEPS));
    REQUIRE(sim_run_for(w->sim, 1000, STEPS));
    for (int i = 0; i < CLIENTS; i++)
        conn_fake_free(w->conns[i]);
    kafka_free(w->kafka);
}

static void world_init(struct world *w)
{
    logger_to(-1);
    memset(w, 0, offsetof(struct world, arena));
    w->correlation = 100;
    w->sim = sim_new(21);
    w->loops[0] = sim_loop(w->sim, 0);
    w->loops[1] = sim_loop(w->sim, 1);
    w->journal = journal_fake_new();
    kafka_arena_init(&w->arena, 64 << 20);
    start(w);
}

static void world_fini(struct world *w)
{
    stop(w);
    journal_fake_free(w->journal);
    kafka_arena_fini(&w->arena);
    sim_free(w->sim);
}

static void run_ms(struct world *w, uint64_t ms)
{
    REQUIRE(sim_run_for(w->sim, ms * 1000, STEPS));
}

static struct kafka_form form_of(int16_t key, int16_t version)
{
    const struct kafka_api *api = kafka_api_find(key);

    return (struct kafka_form){ version, version >= api->flex };
}

static void send(struct world *w, int who, int16_t key, int16_t version, const void *msg)
{
    struct kafka_form f = form_of(key, version);
    size_t body_bytes;
    uint8_t *body = kafka_message_bytes(kafka_api_find(key)->request, f, msg, &body_bytes);
    uint8_t head[64];
    struct wr h = wr_of(head, sizeof head);

    wr_u32be(&h, (uint32_t)(2 + 2 + 4 + 2 + 6 + f.flex + body_bytes));
    wr_u16be(&h, (uint16_t)key);
    wr_u16be(&h, (uint16_t)version);
    wr_u32be(&h, (uint32_t)++w->correlation);
    wr_u16be(&h, 6);
    wr_bytes(&h, "client", 6);
    if (f.flex)
        wr_u8(&h, 0);
    conn_fake_send(w->conns[who], head, wr_used(&h));
    conn_fake_send(w->conns[who], body, body_bytes);
    free(body);
}

/* The next answer on the connection, decoded; NULL when there is none yet. Every byte must be
 * used. */
static void *take(struct world *w, int who, int16_t key, int16_t version)
{
    struct kafka_form f = form_of(key, version);
    const struct schema *s = kafka_api_find(key)->response;
    size_t bytes;
    uint8_t *raw = conn_fake_take(w->conns[who], &bytes);
    uint8_t *mem;
    void *msg;
    struct rd r;

    if (!raw)
        return NULL;
    mem = kafka_arena_take(&w->arena, bytes);
    memcpy(mem, raw, bytes);
    free(raw);
    r = rd_of(mem, bytes);
    CHECK(rd_u32be(&r) > 100); /* one of ours */
    if (f.flex)
        CHECK_EQ(rd_u8(&r), 0);
    msg = kafka_message_new(&w->arena, s, 1);
    REQUIRE(kafka_decode(s, f, &r, &w->arena, msg) == 0);
    CHECK_EQ(rd_left(&r), 0);
    return msg;
}

static void *call(struct world *w, int who, int16_t key, int16_t version, const void *msg)
{
    void *answer;

    send(w, who, key, version, msg);
    run_ms(w, 20);
    answer = take(w, who, key, version);
    REQUIRE(answer != NULL);
    return answer;
}

#define NEW(w, name) KAFKA_NEW(&(w)->arena, name, 1)
#define STR(s)       kafka_str_of(s)
#define BYTES(s)     ((struct kafka_bytes){ (const uint8_t *)(s), (int32_t)strlen(s) })

static struct kafka_uuid topic_id;

static void create_topic(struct world *w, const char *name, int32_t partitions)
{
    struct kafka_create_topics_request *q = NEW(w, create_topics_request);
    struct kafka_create_topics_response *a;

    q->topics.n = 1;
    q->topics.at = NEW(w, create_topic);
    q->topics.at[0].name = STR(name);
    q->topics.at[0].num_partitions = partitions;
    q->topics.at[0].replication_factor = 1;
    a = call(w, 0, CREATE_TOPICS, 7, q);
    REQUIRE(a->topics.n == 1 && a->topics.at[0].error_code == 0);
    topic_id = a->topics.at[0].topic_id;
}

static void delete_topic(struct world *w, const char *name)
{
    struct kafka_delete_topics_request *q = NEW(w, delete_topics_request);

    q->topic_names.n = 1;
    q->topic_names.at = kafka_arena_take(&w->arena, sizeof *q->topic_names.at);
    q->topic_names.at[0] = STR(name);
    call(w, 0, DELETE_TOPICS, 5, q);
}

/* ---- requests ---- */

struct member {
    int who; /* connection */
    struct kafka_str id;
    const char *instance;
    const char *subscription; /* metadata bytes, text here */
    int32_t generation;
};

static struct kafka_join_group_request *join_of(struct world *w, struct member *m)
{
    struct kafka_join_group_request *q = NEW(w, join_group_request);

    q->group_id = STR("g");
    q->session_timeout_ms = SESSION_MS;
    q->rebalance_timeout_ms = 20000;
    q->member_id = m->id;
    q->group_instance_id = kafka_str_of(m->instance);
    q->protocol_type = STR("consumer");
    q->protocols.n = 1;
    q->protocols.at = NEW(w, join_group_protocol);
    q->protocols.at[0].name = STR("range");
    q->protocols.at[0].metadata = BYTES(m->subscription ? m->subscription : "subscription");
    q->reason = KAFKA_NULL;
    return q;
}

/* Joins, twice where the version wants it; the answer, or NULL when it waits. */
static struct kafka_join_group_response *join(struct world *w, struct member *m, int16_t version)
{
    struct kafka_join_group_response *a;

    send(w, m->who, JOIN, version, join_of(w, m));
    run_ms(w, 20);
    a = take(w, m->who, JOIN, version);
    if (a && a->error_code == 79) {
        m->id = a->member_id;
        send(w, m->who, JOIN, version, join_of(w, m));
        run_ms(w, 20);
        a = take(w, m->who, JOIN, version);
    }
    if (a && !a->error_code) {
        m->id = a->member_id;
        m->generation = a->generation_id;
    }
    return a;
}

static struct kafka_sync_group_request *sync_of(struct world *w, struct member *m,
                                                struct member *to, const char *work)
{
    struct kafka_sync_group_request *q = NEW(w, sync_group_request);

    q->group_id = STR("g");
    q->generation_id = m->generation;
    q->member_id = m->id;
    q->group_instance_id = kafka_str_of(m->instance);
    q->protocol_type = STR("consumer");
    q->protocol_name = STR("range");
    q->assignments.n = to ? 1 : 0;
    q->assignments.at = NEW(w, sync_group_assignment);
    if (to) {
        q->assignments.at[0].member_id = to->id;
        q->assignments.at[0].assignment = BYTES(work);
    }
    return q;
}

static int16_t heartbeat(struct world *w, struct member *m, int16_t version)
{
    struct kafka_heartbeat_request *q = NEW(w, heartbeat_request);
    struct kafka_heartbeat_response *a;

    q->group_id = STR("g");
    q->generation_id = m->generation;
    q->member_id = m->id;
    q->group_instance_id = kafka_str_of(m->instance);
    a = call(w, m->who, HEARTBEAT, version, q);
    return a->error_code;
}

/* m alone, stable; works on "work". */
static void make_stable(struct world *w, struct member *m)
{
    struct kafka_join_group_response *a = join(w, m, 9);
    struct kafka_sync_group_response *s;

    REQUIRE(a && !a->error_code);
    s = call(w, m->who, SYNC, 5, sync_of(w, m, m, "work"));
    REQUIRE(!s->error_code);
}

/* Commits one partition; NULL member: as a simple consumer. Its error. */
static int16_t commit(struct world *w, struct member *m, const char *group, const char *topic,
                      int32_t partition, int64_t offset, const char *metadata, int16_t version)
{
    struct kafka_offset_commit_request *q = NEW(w, offset_commit_request);
    struct kafka_offset_commit_response *a;

    q->group_id = STR(group);
    q->generation_id = m ? m->generation : -1;
    q->member_id = m ? m->id : STR("");
    q->topics.n = 1;
    q->topics.at = NEW(w, offset_commit_topic);
    q->topics.at[0].name = version < 10 ? STR(topic) : STR("");
    if (version >= 10)
        q->topics.at[0].topic_id = topic_id;
    q->topics.at[0].partitions.n = 1;
    q->topics.at[0].partitions.at = NEW(w, offset_commit_partition);
    q->topics.at[0].partitions.at[0].partition_index = partition;
    q->topics.at[0].partitions.at[0].committed_offset = offset;
    q->topics.at[0].partitions.at[0].committed_leader_epoch = version >= 6 ? 3 : -1;
    q->topics.at[0].partitions.at[0].committed_metadata = kafka_str_of(metadata);
    a = call(w, 3, COMMIT, version, q);
    REQUIRE(a->topics.n == 1 && a->topics.at[0].partitions.n == 1);
    CHECK_EQ(a->topics.at[0].partitions.at[0].partition_index, partition);
    if (version >= 10) {
        CHECK(!memcmp(&a->topics.at[0].topic_id, &q->topics.at[0].topic_id, 16));
    } else {
        CHECK(kafka_str_is(a->topics.at[0].name, topic));
    }
    return a->topics.at[0].partitions.at[0].error_code;
}

/* Asks for one partition (topic NULL: for all), in any version; the answer's topics. */
static struct kafka_offset_fetched_group fetch(struct world *w, const char *group,
                                               const char *topic, int32_t partition,
                                               int16_t version)
{
    struct kafka_offset_fetch_request *q = NEW(w, offset_fetch_request);
    struct kafka_offset_fetch_topic *t = NEW(w, offset_fetch_topic);
    struct kafka_offset_fetch_response *a;
    int32_t *index = kafka_arena_take(&w->arena, sizeof *index);
    struct kafka_offset_fetched_group g = { 0 };

    *index = partition;
    t->name = kafka_str_of(version < 10 && topic ? topic : "");
    if (version >= 10)
        t->topic_id = topic_id;
    t->partition_indexes = (struct kafka_int32s){ index, 1 };
    if (version < 8) {
        q->group_id = STR(group);
        q->topics.at = t;
        q->topics.n = topic ? 1 : -1;
    } else {
        q->groups.n = 1;
        q->groups.at = NEW(w, offset_fetch_group);
        q->groups.at[0].group_id = STR(group);
        q->groups.at[0].topics.at = t;
        q->groups.at[0].topics.n = topic ? 1 : -1;
    }
    a = call(w, 2, FETCH, version, q);
    if (version >= 8) {
        REQUIRE(a->groups.n == 1);
        CHECK(kafka_str_is(a->groups.at[0].group_id, group));
        return a->groups.at[0];
    }
    g.topics.at = a->topics.at;
    g.topics.n = a->topics.n;
    g.error_code = a->error_code;
    return g;
}

static int64_t fetched(struct world *w, const char *group, const char *topic, int32_t partition,
                       int16_t version)
{
    struct kafka_offset_fetched_group g = fetch(w, group, topic, partition, version);

    REQUIRE(g.topics.n == 1 && g.topics.at[0].partitions.n == 1);
    CHECK_EQ(g.error_code, 0);
    CHECK_EQ(g.topics.at[0].partitions.at[0].error_code, 0);
    CHECK_EQ(g.topics.at[0].partitions.at[0].partition_index, partition);
    return g.topics.at[0].partitions.at[0].committed_offset;
}

/* ---- members ---- */

static void test_a_whole_life_in_every_version(void)
{
    for (int16_t v = 0; v <= 10; v++) {
        struct world w;
        struct member a = { .who = 0 }, b = { .who = 1 };
        struct kafka_join_group_response *ja, *jb;
        struct kafka_sync_group_response *s;
        struct kafka_leave_group_request *l;
        struct kafka_leave_group_response *left;
        int16_t jv = v > 9 ? 9 : v, sv = v > 5 ? 5 : v, hv = v > 4 ? 4 : v;

        world_init(&w);
        create_topic(&w, "t", 3);
        ja = join(&w, &a, jv);
        REQUIRE(ja && !ja->error_code);
        CHECK_EQ(ja->generation_id, 1);
        CHECK(!strncmp(a.id.mem, "client-", 7));
        CHECK(!join(&w, &b, jv)); /* until a joins again */
        CHECK_EQ(heartbeat(&w, &a, hv), 27);
        ja = join(&w, &a, jv);
        jb = take(&w, 1, JOIN, jv);
        REQUIRE(ja && jb && !jb->error_code);
        b.id = jb->member_id;
        b.generation = jb->generation_id;
        CHECK_EQ(ja->members.n, 2);
        CHECK_EQ(jb->members.n, 0);
        CHECK(kafka_str_is(ja->protocol_name, "range"));
        CHECK_EQ(ja->members.at[1].metadata.len, 12);
        if (jv >= 7)
            CHECK(kafka_str_is(jb->protocol_type, "consumer"));
        send(&w, 1, SYNC, sv, sync_of(&w, &b, NULL, NULL));
        run_ms(&w, 5);
        CHECK(!take(&w, 1, SYNC, sv)); /* until the leader has spoken */
        s = call(&w, 0, SYNC, sv, sync_of(&w, &a, &b, "all of it"));
        CHECK(!s->error_code && s->assignment.len == 0);
        s = take(&w, 1, SYNC, sv);
        REQUIRE(s != NULL);
        CHECK_EQ(s->error_code, 0);
        CHECK(s->assignment.len == 9 && !memcmp(s->assignment.mem, "all of it", 9));
        CHECK_EQ(heartbeat(&w, &b, hv), 0);
        CHECK_EQ(commit(&w, &b, "g", "t", 1, 77, "x", v < 2 ? 2 : v), 0);
        CHECK_EQ(fetched(&w, "g", "t", 1, v < 1 ? 1 : v), 77);
        l = NEW(&w, leave_group_request);
        l->group_id = STR("g");
        l->member_id = b.id;
        l->members.n = 1;
        l->members.at = NEW(&w, leave_group_member);
        l->members.at[0].member_id = b.id;
        if (sv < 3)
            l->members.n = 0;
        else
            l->member_id = STR("");
        left = call(&w, 1, LEAVE, sv, l);
        CHECK_EQ(left->error_code, 0);
        if (sv >= 3) {
            REQUIRE(left->members.n == 1);
            CHECK_EQ(left->members.at[0].error_code, 0);
        }
        CHECK_EQ(heartbeat(&w, &b, hv), 25);
        CHECK_EQ(heartbeat(&w, &a, hv), 27);
        world_fini(&w);
    }
}

static void test_errors_of_a_join_have_no_generation(void)
{
    for (int16_t v = 0; v <= 9; v++) {
        struct world w;
        struct member a = { .who = 0, .id = STR("nobody") };
        struct kafka_join_group_response *j;

        world_init(&w);
        j = join(&w, &a, v);
        REQUIRE(j != NULL);
        CHECK_EQ(j->error_code, 25);
        CHECK_EQ(j->generation_id, -1);
        CHECK(kafka_str_is(j->member_id, "nobody"));
        CHECK_EQ(j->protocol_name.len, v >= 7 ? -1 : 0);
        world_fini(&w);
    }
}

static void test_a_static_member_keeps_its_place(void)
{
    struct world w;
    struct member a = { .who = 0, .instance = "box" }, back;
    struct kafka_join_group_response *j;
    struct kafka_sync_group_response *s;

    world_init(&w);
    make_stable(&w, &a);
    back = a;
    back.id = STR("");
    back.who = 1;
    j = join(&w, &back, 9);
    REQUIRE(j && !j->error_code);
    CHECK_EQ(j->generation_id, 1);
    CHECK(j->skip_assignment);
    REQUIRE(j->members.n == 1);
    CHECK(kafka_str_is(j->members.at[0].group_instance_id, "box"));
    s = call(&w, 1, SYNC, 5, sync_of(&w, &back, NULL, NULL));
    CHECK(!s->error_code && s->assignment.len == 4);
    CHECK_EQ(heartbeat(&w, &a, 4), 82);
    world_fini(&w);
}

static void test_a_client_that_hangs_up_in_a_join_holds_nobody_for_long(void)
{
    struct world w;
    struct member a = { .who = 0 }, b = { .who = 1 };
    struct kafka_join_group_response *j;

    world_init(&w);
    make_stable(&w, &a);
    CHECK(!join(&w, &b, 9)); /* waits */
    conn_fake_hang_up(w.conns[1]);
    run_ms(&w, 10);
    CHECK(!join(&w, &a, 9)); /* b may come back */
    run_ms(&w, SESSION_MS + 100);
    j = take(&w, 0, JOIN, 9);
    REQUIRE(j && !j->error_code);
    CHECK_EQ(j->members.n, 1);
    world_fini(&w);
}

static void test_the_door_stops_while_members_wait(void)
{
    struct world w;
    struct member a = { .who = 0 }, b = { .who = 1 };
    struct kafka_join_group_response *j;

    world_init(&w);
    j = join(&w, &a, 5);
    REQUIRE(j && !j->error_code);
    CHECK(!join(&w, &b, 5));
    send(&w, 2, HEARTBEAT, 4, NEW(&w, heartbeat_request));
    world_fini(&w); /* it ends at all, and no sanitizer complains */
}

/* ---- offsets ---- */

static void test_commits_are_kept_across_restart_and_members_are_not(void)
{
    struct world w;
    struct member a = { .who = 0 };

    world_init(&w);
    create_topic(&w, "t", 3);
    make_stable(&w, &a);
    CHECK_EQ(commit(&w, &a, "g", "t", 2, 1234567890123, "meta", 9), 0);
    stop(&w);
    journal_fake_restart(w.journal);
    start(&w);
    CHECK_EQ(fetched(&w, "g", "t", 2, 9), 1234567890123);
    CHECK_EQ(heartbeat(&w, &a, 4), 25);
    CHECK_EQ(commit(&w, &a, "g", "t", 2, 1, "", 9), 22); /* its generation is gone */
    world_fini(&w);
}

static void test_what_was_committed_comes_back_with_epoch_and_metadata(void)
{
    struct world w;
    struct kafka_offset_fetched_group g;

    world_init(&w);
    create_topic(&w, "t", 3);
    CHECK_EQ(commit(&w, NULL, "g", "t", 0, 5, "some text", 6), 0);
    for (int16_t v = 1; v <= 10; v++) {
        g = fetch(&w, "g", "t", 0, v);
        REQUIRE(g.topics.n == 1 && g.topics.at[0].partitions.n == 1);
        CHECK_EQ(g.topics.at[0].partitions.at[0].committed_offset, 5);
        CHECK_EQ(g.topics.at[0].partitions.at[0].committed_leader_epoch, v >= 5 ? 3 : -1);
        CHECK(kafka_str_is(g.topics.at[0].partitions.at[0].metadata, "some text"));
        CHECK_EQ(fetched(&w, "g", "t", 1, v), -1); /* nothing there: no error */
        CHECK_EQ(fetched(&w, "g", "t", 99, v), -1);
        CHECK_EQ(fetched(&w, "nobody", "t", 0, v), -1);
        if (v < 10)
            CHECK_EQ(fetched(&w, "g", "no such topic", 0, v), -1);
    }
    CHECK_EQ(commit(&w, NULL, "g", "t", 1, 6, NULL, 10), 0);
    g = fetch(&w, "g", "t", 1, 10);
    CHECK(kafka_str_is(g.topics.at[0].partitions.at[0].metadata, ""));
    CHECK(!memcmp(&g.topics.at[0].topic_id, &topic_id, 16));
    memset(&topic_id, 9, sizeof topic_id);
    CHECK_EQ(commit(&w, NULL, "g", "t", 1, 6, NULL, 10), 100);
    g = fetch(&w, "g", "t", 1, 10);
    CHECK_EQ(g.topics.at[0].partitions.at[0].error_code, 100);
    CHECK_EQ(g.topics.at[0].partitions.at[0].committed_offset, -1);
    world_fini(&w);
}

static void test_all_offsets_of_a_group_and_several_groups_at_once(void)
{
    struct world w;
    struct kafka_offset_fetched_group g;
    struct kafka_offset_fetch_request *q;
    struct kafka_offset_fetch_response *a;
    unsigned parts = 0;

    world_init(&w);
    create_topic(&w, "t", 3);
    create_topic(&w, "u", 3);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(commit(&w, NULL, "g", "t", i, i, "", 9), 0);
    CHECK_EQ(commit(&w, NULL, "g", "u", 1, 10, "", 9), 0);
    CHECK_EQ(commit(&w, NULL, "h", "u", 2, 20, "", 9), 0);
    for (int16_t v = 2; v <= 10; v++) {
        g = fetch(&w, "g", NULL, 0, v);
        CHECK_EQ(g.error_code, 0);
        REQUIRE(g.topics.n == 2);
        parts = 0;
        for (int i = 0; i < 2; i++) {
            parts += (unsigned)g.topics.at[i].partitions.n;
            if (v < 10)
                CHECK(kafka_str_is(g.topics.at[i].name,
                                   g.topics.at[i].partitions.n == 3 ? "t" : "u"));
        }
        CHECK_EQ(parts, 4);
    }
    q = NEW(&w, offset_fetch_request);
    q->groups.n = 3;
    q->groups.at = KAFKA_NEW(&w.arena, offset_fetch_group, 3);
    q->groups.at[0].group_id = STR("h");
    q->groups.at[1].group_id = STR("none");
    q->groups.at[2].group_id = STR("g");
    for (int i = 0; i < 3; i++)
        q->groups.at[i].topics.n = -1;
    a = call(&w, 0, FETCH, 8, q);
    REQUIRE(a->groups.n == 3);
    REQUIRE(a->groups.at[0].topics.n == 1);
    CHECK_EQ(a->groups.at[0].topics.at[0].partitions.at[0].committed_offset, 20);
    CHECK_EQ(a->groups.at[1].topics.n, 0);
    CHECK_EQ(a->groups.at[2].topics.n, 2);
    world_fini(&w);
}

static void test_bad_commits_are_refused_one_by_one(void)
{
    struct world w;
    struct member a = { .who = 0 }, wrong;
    char *big;

    world_init(&w);
    create_topic(&w, "t", 3);
    big = mem_new(4098);
    memset(big, 'x', 4097);
    CHECK_EQ(commit(&w, NULL, "g", "no such topic", 0, 1, "", 9), 3);
    CHECK_EQ(commit(&w, NULL, "g", "t", 3, 1, "", 9), 3);
    CHECK_EQ(commit(&w, NULL, "g", "t", -1, 1, "", 9), 3);
    CHECK_EQ(commit(&w, NULL, "g", "t", 0, 1, big, 9), 12);
    make_stable(&w, &a);
    CHECK_EQ(commit(&w, NULL, "g", "t", 0, 1, "", 9), 25); /* the group has members now */
    wrong = a;
    wrong.generation++;
    CHECK_EQ(commit(&w, &wrong, "g", "t", 0, 1, "", 9), 22);
    CHECK_EQ(fetched(&w, "g", "t", 0, 9), -1);
    free(big);
    world_fini(&w);
}

static void test_a_commit_that_cannot_be_written_is_refused_and_not_seen(void)
{
    struct world w;

    world_init(&w);
    create_topic(&w, "t", 3);
    CHECK_EQ(commit(&w, NULL, "g", "t", 0, 1, "", 9), 0);
    journal_fake_fail_appends(w.journal, E_NOSPACE, 1);
    CHECK_EQ(commit(&w, NULL, "g", "t", 0, 2, "", 9), 15); /* clients try this again */
    CHECK_EQ(fetched(&w, "g", "t", 0, 9), 1);
    CHECK_EQ(commit(&w, NULL, "g", "t", 0, 3, "", 9), 0);
    CHECK_EQ(fetched(&w, "g", "t", 0, 9), 3);
    world_fini(&w);
}

static void test_a_commit_is_answered_only_when_durable(void)
{
    struct world w;
    struct kafka_offset_commit_request *q;

    world_init(&w);
    create_topic(&w, "t", 3);
    journal_fake_hold(w.journal, true);
    q = NEW(&w, offset_commit_request);
    q->group_id = STR("g");
    q->topics.n = 1;
    q->topics.at = NEW(&w, offset_commit_topic);
    q->topics.at[0].name = STR("t");
    q->topics.at[0].partitions.n = 1;
    q->topics.at[0].partitions.at = NEW(&w, offset_commit_partition);
    q->topics.at[0].partitions.at[0].committed_offset = 8;
    send(&w, 0, COMMIT, 9, q);
    run_ms(&w, 1000);
    CHECK(!take(&w, 0, COMMIT, 9));
    CHECK_EQ(fetched(&w, "g", "t", 0, 9), -1);
    journal_fake_hold(w.journal, false);
    run_ms(&w, 10);
    CHECK(take(&w, 0, COMMIT, 9) != NULL);
    CHECK_EQ(fetched(&w, "g", "t", 0, 9), 8);
    world_fini(&w);
}

static void test_offsets_of_a_deleted_topic_are_not_those_of_a_new_one(void)
{
    struct world w;

    world_init(&w);
    create_topic(&w, "t", 3);
    CHECK_EQ(commit(&w, NULL, "g", "t", 0, 55, "", 9), 0);
    delete_topic(&w, "t");
    CHECK_EQ(fetched(&w, "g", "t", 0, 9), -1);
    create_topic(&w, "t", 3);
    CHECK_EQ(fetched(&w, "g", "t", 0, 9), -1);
    CHECK_EQ(fetched(&w, "g", "t", 0, 10), -1);
    CHECK_EQ(fetch(&w, "g", NULL, 0, 9).topics.n, 0);
    world_fini(&w);
}

/* ---- groups ---- */

static struct kafka_described_group describe(struct world *w, const char *group, int16_t version)
{
    struct kafka_describe_groups_request *q = NEW(w, describe_groups_request);
    struct kafka_describe_groups_response *a;

    q->groups.n = 1;
    q->groups.at = kafka_arena_take(&w->arena, sizeof *q->groups.at);
    q->groups.at[0] = STR(group);
    a = call(w, 2, DESCRIBE, version, q);
    REQUIRE(a->groups.n == 1);
    CHECK(kafka_str_is(a->groups.at[0].group_id, group));
    CHECK_EQ(a->groups.at[0].authorized_operations, INT32_MIN);
    return a->groups.at[0];
}

static void test_describe_shows_states_members_and_assignments(void)
{
    for (int16_t v = 0; v <= 6; v++) {
        struct world w;
        struct member a = { .who = 0 }, b = { .who = 1 };
        struct kafka_described_group g;

        world_init(&w);
        create_topic(&w, "t", 1);
        g = describe(&w, "g", v);
        CHECK(kafka_str_is(g.group_state, "Dead"));
        CHECK_EQ(g.error_code, v >= 6 ? 69 : 0);
        commit(&w, NULL, "simple", "t", 0, 1, "", 9);
        g = describe(&w, "simple", v);
        CHECK(kafka_str_is(g.group_state, "Empty") && !g.error_code && g.members.n == 0);
        make_stable(&w, &a);
        g = describe(&w, "g", v);
        CHECK(kafka_str_is(g.group_state, "Stable") && !g.error_code);
        CHECK(kafka_str_is(g.protocol_type, "consumer") && kafka_str_is(g.protocol_data, "range"));
        REQUIRE(g.members.n == 1);
        CHECK(kafka_str_is(g.members.at[0].client_id, "client"));
        CHECK_EQ(g.members.at[0].client_host.mem[0], '/');
        CHECK_EQ(g.members.at[0].member_metadata.len, 12);
        CHECK_EQ(g.members.at[0].member_assignment.len, 4);
        CHECK(!join(&w, &b, 9));
        g = describe(&w, "g", v);
        CHECK(kafka_str_is(g.group_state, "PreparingRebalance"));
        REQUIRE(g.members.n == 2);
        CHECK_EQ(g.members.at[0].member_assignment.len, 0);
        CHECK_EQ(g.protocol_data.len, 0);
        world_fini(&w);
    }
}

static int32_t list(struct world *w, int16_t version, const char *state, const char *type)
{
    struct kafka_list_groups_request *q = NEW(w, list_groups_request);
    struct kafka_list_groups_response *a;
    struct kafka_str *filters = kafka_arena_take(&w->arena, 2 * sizeof *filters);

    filters[0] = kafka_str_of(state);
    filters[1] = kafka_str_of(type);
    q->states_filter = (struct kafka_strs){ filters, state ? 1 : 0 };
    q->types_filter = (struct kafka_strs){ filters + 1, type ? 1 : 0 };
    a = call(w, 0, LIST, version, q);
    CHECK_EQ(a->error_code, 0);
    for (int32_t i = 0; i < a->groups.n; i++) {
        bool g = kafka_str_is(a->groups.at[i].group_id, "g");

        CHECK(g || kafka_str_is(a->groups.at[i].group_id, "simple"));
        CHECK(kafka_str_is(a->groups.at[i].protocol_type, g ? "consumer" : ""));
        if (version >= 4)
            CHECK(kafka_str_is(a->groups.at[i].group_state, g ? "Stable" : "Empty"));
        if (version >= 5)
            CHECK(kafka_str_is(a->groups.at[i].group_type, "classic"));
    }
    return a->groups.n;
}

static void test_list_shows_groups_with_members_or_offsets_and_filters(void)
{
    struct world w;
    struct member a = { .who = 0 };

    world_init(&w);
    create_topic(&w, "t", 1);
    CHECK_EQ(list(&w, 5, NULL, NULL), 0);
    make_stable(&w, &a);
    commit(&w, NULL, "simple", "t", 0, 1, "", 9);
    commit(&w, &a, "g", "t", 0, 1, "", 9); /* both: listed once */
    for (int16_t v = 0; v <= 5; v++)
        CHECK_EQ(list(&w, v, NULL, NULL), 2);
    CHECK_EQ(list(&w, 4, "stable", NULL), 1);
    CHECK_EQ(list(&w, 5, "Empty", NULL), 1);
    CHECK_EQ(list(&w, 5, "Dead", NULL), 0);
    CHECK_EQ(list(&w, 5, NULL, "classic"), 2);
    CHECK_EQ(list(&w, 5, NULL, "consumer"), 0);
    world_fini(&w);
}

static void test_delete_forgets_empty_groups_with_their_offsets(void)
{
    for (int16_t v = 0; v <= 2; v++) {
        struct world w;
        struct member a = { .who = 0 };
        struct kafka_delete_groups_request *q;
        struct kafka_delete_groups_response *d;

        world_init(&w);
        create_topic(&w, "t", 2);
        commit(&w, NULL, "simple", "t", 0, 1, "", 9);
        commit(&w, NULL, "simple", "t", 1, 1, "", 9);
        make_stable(&w, &a);
        q = NEW(&w, delete_groups_request);
        q->groups_names.n = 4;
        q->groups_names.at = kafka_arena_take(&w.arena, 4 * sizeof *q->groups_names.at);
        q->groups_names.at[0] = STR("g");
        q->groups_names.at[1] = STR("simple");
        q->groups_names.at[2] = STR("none");
        q->groups_names.at[3] = STR("");
        d = call(&w, 1, DELETE_GROUPS, v, q);
        REQUIRE(d->results.n == 4);
        CHECK_EQ(d->results.at[0].error_code, 68);
        CHECK_EQ(d->results.at[1].error_code, 0);
        CHECK_EQ(d->results.at[2].error_code, 69);
        CHECK_EQ(d->results.at[3].error_code, 24);
        CHECK_EQ(fetched(&w, "simple", "t", 0, 9), -1);
        CHECK_EQ(fetched(&w, "simple", "t", 1, 9), -1);
        CHECK_EQ(list(&w, 5, NULL, NULL), 1);
        journal_fake_fail_appends(w.journal, E_DEVICE, 1);
        world_fini(&w);
    }
}

static struct kafka_offset_delete_response *offset_delete(struct world *w, const char *group,
                                                          const char *topic)
{
    struct kafka_offset_delete_request *q = NEW(w, offset_delete_request);

    q->group_id = STR(group);
    q->topics.n = 1;
    q->topics.at = NEW(w, offset_delete_topic);
    q->topics.at[0].name = STR(topic);
    q->topics.at[0].partitions.n = 1;
    q->topics.at[0].partitions.at = NEW(w, offset_delete_partition);
    return call(w, 1, OFFSET_DELETE, 0, q);
}

static void test_offset_delete_spares_topics_that_members_read(void)
{
    /* ConsumerProtocolSubscription, version 0, one topic "t", no user data */
    static const uint8_t subscription[] = { 0, 0, 0, 0, 0, 1, 0, 1, 't', 255, 255, 255, 255 };
    struct world w;
    struct member a = { .who = 0 };
    struct kafka_join_group_request *q;
    struct kafka_join_group_response *j;
    struct kafka_offset_delete_response *d;

    world_init(&w);
    create_topic(&w, "t", 1);
    create_topic(&w, "u", 1);
    CHECK_EQ(offset_delete(&w, "g", "t")->error_code, 69);
    commit(&w, NULL, "g", "t", 0, 1, "", 9);
    commit(&w, NULL, "g", "u", 0, 2, "", 9);
    q = join_of(&w, &a);
    q->protocols.at[0].metadata = (struct kafka_bytes){ subscription, sizeof subscription };
    j = call(&w, 0, JOIN, 3, q);
    REQUIRE(!j->error_code);
    d = offset_delete(&w, "g", "t");
    CHECK_EQ(d->error_code, 0);
    REQUIRE(d->topics.n == 1 && d->topics.at[0].partitions.n == 1);
    CHECK_EQ(d->topics.at[0].partitions.at[0].error_code, 86);
    d = offset_delete(&w, "g", "u");
    CHECK_EQ(d->topics.at[0].partitions.at[0].error_code, 0);
    CHECK_EQ(fetched(&w, "g", "t", 0, 9), 1);
    CHECK_EQ(fetched(&w, "g", "u", 0, 9), -1);
    world_fini(&w);
}

/* ---- bytes, written by hand from the protocol's message definitions ---- */

static void raw_call(struct world *w, const uint8_t *request, size_t bytes, const uint8_t *answer,
                     size_t answer_bytes)
{
    uint8_t size[4] = { 0, 0, 0, (uint8_t)bytes };
    uint8_t *got;
    size_t n;

    conn_fake_send(w->conns[0], size, 4);
    conn_fake_send(w->conns[0], request, bytes);
    run_ms(w, 20);
    got = conn_fake_take(w->conns[0], &n);
    REQUIRE(got != NULL);
    CHECK_EQ(n, answer_bytes);
    CHECK(n == answer_bytes && !memcmp(got, answer, answer_bytes));
    free(got);
}

static void test_flexible_versions_byte_for_byte(void)
{
    static const uint8_t heartbeat4[] = { 0, 12,  0, 4, 0, 0, 0, 7,   0, 1, 'c', 0, /* header 2 */
                                          2, 'g', 0, 0, 0, 5, 2, 'm', 0, 0 };
    static const uint8_t heartbeat4_answer[] = { 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 25, 0 };
    static const uint8_t join9[] = {
        0, 11,  0, 9, 0,    0,    0,   8,   255,  255,  0, /* client id null */
        2, 'g', 0, 0, 0x27, 0x10, 0,   0,   0x27, 0x10,    /* 10 s both */
        2, 'm', 0, 9, 'c',  'o',  'n', 's', 'u',  'm',  'e', 'r', 2, 2, 'r', 3, 1, 2, 0, 0, 0
    };
    static const uint8_t join9_answer[] = { 0,   0,   0,   8, 0, 0, 0, 0, 0,   0, 25, 255,
                                            255, 255, 255, 0, 0, 1, 0, 2, 'm', 1, 0 };
    static const uint8_t fetch8[] = { 0,   9, 0, 8,   0, 0, 0, 9, 255, 255, 0, 2, 2,
                                      'g', 2, 2, 't', 2, 0, 0, 0, 1,   0,   0, 0, 0 };
    static const uint8_t fetch8_answer[] = { 0,   0,   0,   9,   0,   0,   0,   0,   0,   2,   2,
                                             'g', 2,   2,   't', 2,   0,   0,   0,   1,   255, 255,
                                             255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1,
                                             0,   0,   0,   0,   0,   0,   0,   0 };
    static const uint8_t commit8[] = { 0, 8,   0,   8,   0,   0,   0, 10, 255, 255, 0,
                                       2, 'g', 255, 255, 255, 255, 1, 0,  2,   2,   't',
                                       2, 0,   0,   0,   1,   0,   0, 0,  0,   0,   0,
                                       0, 5,   255, 255, 255, 255, 0, 0,  0,   0 };
    static const uint8_t commit8_answer[] = { 0,   0, 0, 10, 0, 0, 0, 0, 0, 2, 2,
                                              't', 2, 0, 0,  0, 1, 0, 3, 0, 0, 0 };
    static const uint8_t leave5[] = { 0, 13,  0, 5, 0,   0, 0, 11,  255, 255, 0,
                                      2, 'g', 2, 2, 'm', 0, 3, 'o', 'k', 0,   0 };
    static const uint8_t leave5_answer[] = { 0, 0, 0, 11,  0, 0, 0,  0, 0, 0,
                                             0, 2, 2, 'm', 0, 0, 25, 0, 0 };
    static const uint8_t sync5[] = { 0,   14, 0, 5, 0, 0, 0,   12, 255, 255, 0, 2,
                                     'g', 0,  0, 0, 1, 2, 'm', 0,  0,   0,   1, 0 };
    static const uint8_t sync5_answer[] = { 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 25, 0, 0, 1, 0 };
    struct world w;

    world_init(&w);
    raw_call(&w, heartbeat4, sizeof heartbeat4, heartbeat4_answer, sizeof heartbeat4_answer);
    raw_call(&w, join9, sizeof join9, join9_answer, sizeof join9_answer);
    raw_call(&w, fetch8, sizeof fetch8, fetch8_answer, sizeof fetch8_answer);
    raw_call(&w, commit8, sizeof commit8, commit8_answer, sizeof commit8_answer);
    raw_call(&w, leave5, sizeof leave5, leave5_answer, sizeof leave5_answer);
    raw_call(&w, sync5, sizeof sync5, sync5_answer, sizeof sync5_answer);
    world_fini(&w);
}

/* clang-format off */
TEST_MAIN(T(a_whole_life_in_every_version) T(errors_of_a_join_have_no_generation)
          T(a_static_member_keeps_its_place)
          T(a_client_that_hangs_up_in_a_join_holds_nobody_for_long)
          T(the_door_stops_while_members_wait)
          T(commits_are_kept_across_restart_and_members_are_not)
          T(what_was_committed_comes_back_with_epoch_and_metadata)
          T(all_offsets_of_a_group_and_several_groups_at_once)
          T(bad_commits_are_refused_one_by_one)
          T(a_commit_that_cannot_be_written_is_refused_and_not_seen)
          T(a_commit_is_answered_only_when_durable)
          T(offsets_of_a_deleted_topic_are_not_those_of_a_new_one)
          T(describe_shows_states_members_and_assignments)
          T(list_shows_groups_with_members_or_offsets_and_filters)
          T(delete_forgets_empty_groups_with_their_offsets)
          T(offset_delete_spares_topics_that_members_read) T(flexible_versions_byte_for_byte))
