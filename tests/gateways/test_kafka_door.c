#include <stdlib.h>

#include "format/batch.h"
#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "tests/check.h"
#include "tests/gateways/kafka_ask.h"

static struct kafka_server server;
static struct kafka_client client;

static void begin(const struct kafka_conf *conf)
{
    kafka_server_start(&server, conf);
    kafka_client_open(&client, &server, 1);
}

static void end(void)
{
    kafka_client_close(&client);
    kafka_server_stop(&server);
}

/* --- versions --- */

static void test_api_versions_lists_what_is_served(void)
{
    struct kafka_api_versions_response *a;

    begin(NULL);
    for (int16_t v = 0; v <= 4; v++) {
        a = kafka_client_call(&client, API_VERSIONS, v, KAFKA_ASK(&client, api_versions_request));
        REQUIRE(a != NULL);
        CHECK_EQ(a->error_code, 0);
        REQUIRE(a->api_keys.n > 10);
        CHECK_EQ(a->api_keys.at[0].api_key, PRODUCE);
        CHECK_EQ(a->api_keys.at[0].min_version, 0); /* said, not served: KAFKA-18659 */
        CHECK_EQ(a->api_keys.at[0].max_version, 13);
    }
    end();
}

static void test_a_newer_api_versions_is_told_ours_in_the_oldest_form(void)
{
    /* Version 9, a body that only the future knows. */
    static const uint8_t request[] = { 0, 0,  0, 16, 0,   18,  0, 9, 0, 0,
                                       0, 77, 0, 2,  'm', 'e', 9, 9, 9, 9 };
    struct kafka_api_versions_response *a;
    bool found = false;

    begin(NULL);
    conn_fake_send(client.conn, request, sizeof request);
    kafka_server_run(&server, 1);
    a = kafka_client_take(&client, API_VERSIONS, 0);
    REQUIRE(a != NULL);
    CHECK_EQ(client.answered_id, 77);
    CHECK_EQ(a->error_code, 35);
    for (int32_t i = 0; i < a->api_keys.n; i++)
        if (a->api_keys.at[i].api_key == API_VERSIONS) {
            found = true;
            CHECK_EQ(a->api_keys.at[i].max_version, 4);
        }
    CHECK(found);
    CHECK(!kafka_client_closed(&client));
    end();
}

/* --- bad bytes --- */

static bool closes(const void *mem, size_t bytes)
{
    bool closed;

    begin(NULL);
    conn_fake_send(client.conn, mem, bytes);
    kafka_server_run(&server, 1);
    closed = kafka_client_closed(&client);
    end();
    return closed;
}
#define CLOSES(...)                                                                                \
    closes((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void test_malformed_requests_close_the_connection(void)
{
    CHECK(CLOSES(0xff, 0xff, 0xff, 0xff));                           /* negative size */
    CHECK(CLOSES(0x7f, 0xff, 0xff, 0xff));                           /* larger than any request */
    CHECK(CLOSES(0, 0, 0, 0));                                       /* no header */
    CHECK(CLOSES(0, 0, 0, 9, 0, 18, 0, 0, 0, 0, 0, 1, 0));           /* half a header */
    CHECK(CLOSES('G', 'E', 'T', ' ', '/', ' ', 'H', 'T'));           /* not Kafka at all */
    CHECK(CLOSES(0, 0, 0, 10, 0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff)); /* unknown key */
    CHECK(CLOSES(0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff)); /* unknown version */
    CHECK(
        CLOSES(0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff)); /* Produce 2: said, not served */
    CHECK(CLOSES(0, 0, 0, 10, 0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff)); /* client id beyond the end */
    CHECK(CLOSES(0, 0, 0, 12, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0)); /* body cut off */
    CHECK(!CLOSES(0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0));
    CHECK(!CLOSES(0, 0, 0)); /* not all there yet */
}

static void test_requests_may_come_byte_by_byte_and_many_at_once(void)
{
    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 1), 0);
    client.conn->piecemeal = true;
    CHECK_EQ(kafka_ask_produce_now(&client, "t", 0, 3, 100, 1000).base_offset, 0);
    client.conn->piecemeal = false;
    for (unsigned i = 0; i < 50; i++)
        kafka_client_send(&client, API_VERSIONS, 3, KAFKA_ASK(&client, api_versions_request));
    kafka_server_run(&server, 1);
    for (int32_t i = 0; i < 50; i++) {
        REQUIRE(kafka_client_take(&client, API_VERSIONS, 3) != NULL);
        CHECK_EQ(client.answered_id, client.next_id - 50 + i);
    }
    end();
}

/* --- topics --- */

static void test_metadata_names_us_and_the_topics(void)
{
    const struct kafka_metadata_response *a;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "alpha", 3), 0);
    for (int16_t v = 0; v <= 13; v++) {
        a = kafka_ask_metadata(&client, v, NULL, false);
        REQUIRE(a->brokers.n == 1 && a->topics.n == 1);
        CHECK(kafka_str_is(a->brokers.at[0].host, "192.0.2.1"));
        CHECK_EQ(a->brokers.at[0].port, 9092);
        CHECK_EQ(a->brokers.at[0].node_id, 1);
        CHECK(v < 1 || a->controller_id == 1);
        CHECK_EQ(a->cluster_id.len, v < 2 ? -1 : 22);
        CHECK(kafka_str_is(a->topics.at[0].name, "alpha"));
        CHECK_EQ(kafka_uuid_is_none(&a->topics.at[0].topic_id), v < 10);
        REQUIRE(a->topics.at[0].partitions.n == 3);
        CHECK_EQ(a->topics.at[0].partitions.at[2].index, 2);
        CHECK_EQ(a->topics.at[0].partitions.at[2].leader_id, 1);
        CHECK_EQ(a->topics.at[0].partitions.at[2].isr.n, 1);
        CHECK_EQ(a->topics.at[0].partitions.at[2].leader_epoch, v < 7 ? -1 : 1);
        CHECK_EQ(a->topics.at[0].authorized_operations, INT32_MIN);
    }
    end();
}

static void test_metadata_creates_topics_only_where_it_may(void)
{
    struct kafka_conf conf = { .default_partitions = 4, .advertised_host = "weir.example" };
    const struct kafka_metadata_response *a;

    begin(&conf);
    CHECK_EQ(kafka_ask_metadata(&client, 9, "new", false)->topics.at[0].error_code, 3);
    a = kafka_ask_metadata(&client, 9, "new", true);
    CHECK_EQ(a->topics.at[0].error_code, 0);
    CHECK_EQ(a->topics.at[0].partitions.n, 4);
    CHECK(kafka_str_is(a->brokers.at[0].host, "weir.example"));
    /* Before version 4 a client could not ask for no creation. */
    CHECK_EQ(kafka_ask_metadata(&client, 1, "old", false)->topics.at[0].error_code, 0);
    CHECK_EQ(kafka_ask_metadata(&client, 9, "bad name", true)->topics.at[0].error_code, 17);
    end();
    conf.no_auto_create = true;
    begin(&conf);
    CHECK_EQ(kafka_ask_metadata(&client, 9, "new", true)->topics.at[0].error_code, 3);
    end();
}

static void test_two_clients_that_create_the_same_topic_meet(void)
{
    struct kafka_client other;
    struct kafka_metadata_request *q;
    struct kafka_metadata_topic *t;
    struct kafka_metadata_response *a, *b;

    begin(NULL);
    kafka_client_open(&other, &server, 0);
    q = KAFKA_ASK(&client, metadata_request);
    t = KAFKA_ASK(&client, metadata_topic);
    t->name = KAFKA_STR("both");
    q->topics.at = t;
    q->topics.n = 1;
    kafka_client_send(&client, METADATA, 12, q);
    kafka_client_send(&other, METADATA, 12, q);
    kafka_server_run(&server, 1);
    a = kafka_client_take(&client, METADATA, 12);
    b = kafka_client_take(&other, METADATA, 12);
    REQUIRE(a && b);
    CHECK_EQ(a->topics.at[0].error_code, 0);
    CHECK_EQ(b->topics.at[0].error_code, 0);
    CHECK(!memcmp(&a->topics.at[0].topic_id, &b->topics.at[0].topic_id, 16));
    CHECK_EQ(kafka_ask_create(&client, "both", 1), 36);
    kafka_client_close(&other);
    end();
}

static void test_topics_survive_a_restart_with_ids_and_shards(void)
{
    struct kafka_uuid id;
    const struct kafka_metadata_response *a;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "kept", 2), 0);
    CHECK_EQ(kafka_ask_create(&client, "gone", 2), 0);
    kafka_ask_produce_now(&client, "kept", 1, 5, 10, 1000);
    id = kafka_ask_metadata(&client, 12, "kept", false)->topics.at[0].topic_id;
    {
        struct kafka_delete_topics_request *q = KAFKA_ASK(&client, delete_topics_request);
        struct kafka_str name = KAFKA_STR("gone");

        q->topic_names = (struct kafka_strs){ .at = &name, .n = 1 };
        kafka_client_call(&client, DELETE_TOPICS, 5, q);
    }
    kafka_client_close(&client);
    kafka_server_restart(&server);
    kafka_client_open(&client, &server, 0);
    a = kafka_ask_metadata(&client, 12, NULL, false);
    REQUIRE(a->topics.n == 1);
    CHECK(!memcmp(&a->topics.at[0].topic_id, &id, 16));
    CHECK_EQ(a->topics.at[0].partitions.at[0].leader_epoch, 2);
    CHECK_EQ(kafka_ask_fetch_now(&client, "kept", 1, 0)->high_watermark, 5);
    /* New topics get shards of their own. */
    CHECK_EQ(kafka_ask_create(&client, "fresh", 1), 0);
    CHECK_EQ(kafka_ask_fetch_now(&client, "fresh", 0, 0)->high_watermark, 0);
    end();
}

struct create_case {
    const char *name;
    int32_t partitions;
    int16_t factor;
    const char *config, *value;
    int16_t error;
};

static void test_create_topics_refuses_what_makes_no_sense(void)
{
    static const struct create_case cases[] = {
        { "a", 1, 1, NULL, NULL, 0 },
        { "b", -1, -1, NULL, NULL, 0 },
        { "a", 1, 1, NULL, NULL, 36 },
        { "", 1, 1, NULL, NULL, 17 },
        { "..", 1, 1, NULL, NULL, 17 },
        { "c", 0, 1, NULL, NULL, 37 },
        { "c", -2, 1, NULL, NULL, 37 },
        { "c", 10001, 1, NULL, NULL, 37 },
        { "c", 1, 3, NULL, NULL, 38 },
        { "c", 1, 0, NULL, NULL, 38 },
        { "c", 1, 1, "no.such.config", "1", 40 },
        { "c", 1, 1, "retention.ms", "soon", 40 },
        { "c", 1, 1, "retention.ms", NULL, 40 },
        { "c", 1, 1, "cleanup.policy", "compact,shred", 40 },
        { "c", 1, 1, "cleanup.policy", "compact,delete", 0 },
        { "d", 1, 1, "retention.ms", "-1", 0 },
    };
    struct kafka_create_topics_request *q;
    struct kafka_create_topics_response *a;
    struct kafka_create_config *config;

    begin(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        q = KAFKA_ASK(&client, create_topics_request);
        q->topics.at = KAFKA_ASK(&client, create_topic);
        q->topics.n = 1;
        q->topics.at->name = kafka_str_of(cases[i].name);
        q->topics.at->num_partitions = cases[i].partitions;
        q->topics.at->replication_factor = cases[i].factor;
        config = KAFKA_ASK(&client, create_config);
        config->name = kafka_str_of(cases[i].config);
        config->value = kafka_str_of(cases[i].value);
        q->topics.at->configs.at = config;
        q->topics.at->configs.n = cases[i].config != NULL;
        a = kafka_client_call(&client, CREATE_TOPICS, 5, q);
        REQUIRE(a != NULL);
        CHECK_EQ(a->topics.at[0].error_code, cases[i].error);
        CHECK_EQ(a->topics.at[0].error_message.len < 0, cases[i].error == 0);
    }
    end();
}

static void test_create_topics_can_only_look(void)
{
    struct kafka_create_topics_request *q;
    struct kafka_create_topics_response *a;

    begin(NULL);
    q = KAFKA_ASK(&client, create_topics_request);
    q->topics.at = KAFKA_NEW(&client.arena, create_topic, 2);
    q->topics.n = 2;
    q->validate_only = true;
    q->topics.at[0].name = q->topics.at[1].name = KAFKA_STR("twice");
    q->topics.at[0].num_partitions = q->topics.at[1].num_partitions = 2;
    q->topics.at[0].replication_factor = q->topics.at[1].replication_factor = 1;
    a = kafka_client_call(&client, CREATE_TOPICS, 7, q);
    REQUIRE(a && a->topics.n == 2);
    CHECK_EQ(a->topics.at[0].error_code, 0);
    CHECK_EQ(a->topics.at[0].num_partitions, 2);
    CHECK_EQ(a->topics.at[1].error_code, 42); /* named twice */
    CHECK_EQ(kafka_ask_metadata(&client, 9, "twice", false)->topics.at[0].error_code, 3);
    end();
}

static int16_t create_assigned(const int32_t *index, const int32_t *broker, int32_t n,
                               int32_t partitions)
{
    struct kafka_create_topics_request *q = KAFKA_ASK(&client, create_topics_request);
    struct kafka_create_topics_response *a;
    struct kafka_create_topic *t = KAFKA_ASK(&client, create_topic);

    t->name = KAFKA_STR("placed");
    t->num_partitions = partitions;
    t->replication_factor = -1;
    t->assignments.at = KAFKA_NEW(&client.arena, create_assignment, (size_t)n);
    t->assignments.n = n;
    for (int32_t i = 0; i < n; i++) {
        t->assignments.at[i].index = index[i];
        t->assignments.at[i].broker_ids =
            (struct kafka_int32s){ .at = (int32_t *)&broker[i], .n = 1 };
    }
    q->topics.at = t;
    q->topics.n = 1;
    a = kafka_client_call(&client, CREATE_TOPICS, 4, q);
    REQUIRE(a != NULL);
    return a->topics.at[0].error_code;
}

static void test_assignments_may_only_name_us_and_every_partition_once(void)
{
    begin(NULL);
    CHECK_EQ(create_assigned((int32_t[]){ 0, 2 }, (int32_t[]){ 1, 1 }, 2, -1), 39);
    CHECK_EQ(create_assigned((int32_t[]){ 0, 0 }, (int32_t[]){ 1, 1 }, 2, -1), 39);
    CHECK_EQ(create_assigned((int32_t[]){ 0, 1 }, (int32_t[]){ 1, 2 }, 2, -1), 39);
    CHECK_EQ(create_assigned((int32_t[]){ 0, 1 }, (int32_t[]){ 1, 1 }, 2, 2), 42);
    CHECK_EQ(create_assigned((int32_t[]){ 1, 0 }, (int32_t[]){ 1, 1 }, 2, -1), 0);
    CHECK_EQ(kafka_ask_metadata(&client, 9, "placed", false)->topics.at[0].partitions.n, 2);
    end();
}

static void test_partitions_are_added_and_the_old_ones_stay(void)
{
    struct kafka_create_partitions_request *q;
    struct kafka_create_partitions_response *a;
    static const struct {
        const char *topic;
        int32_t count;
        int16_t error;
    } cases[] = { { "t", 2, 37 }, { "t", 1, 37 }, { "x", 3, 3 }, { "t", 5, 0 } };

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "t", 2), 0);
    kafka_ask_produce_now(&client, "t", 1, 7, 10, 1000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        q = KAFKA_ASK(&client, create_partitions_request);
        q->topics.at = KAFKA_ASK(&client, partitions_topic);
        q->topics.n = 1;
        q->topics.at->name = kafka_str_of(cases[i].topic);
        q->topics.at->count = cases[i].count;
        q->topics.at->assignments.n = -1;
        a = kafka_client_call(&client, CREATE_PARTITIONS, 3, q);
        REQUIRE(a != NULL);
        CHECK_EQ(a->topics.at[0].error_code, cases[i].error);
    }
    CHECK_EQ(kafka_ask_metadata(&client, 9, "t", false)->topics.at[0].partitions.n, 5);
    CHECK_EQ(kafka_ask_fetch_now(&client, "t", 1, 0)->high_watermark, 7);
    CHECK_EQ(kafka_ask_produce_now(&client, "t", 4, 1, 10, 1000).error_code, 0);
    end();
}

static void test_topics_are_deleted_by_name_and_by_id(void)
{
    struct kafka_delete_topics_request *q;
    struct kafka_delete_topics_response *a;

    begin(NULL);
    CHECK_EQ(kafka_ask_create(&client, "one", 1), 0);
    CHECK_EQ(kafka_ask_create(&client, "two", 1), 0);
    q = KAFKA_ASK(&client, delete_topics_request);
    q->topics.at = KAFKA_NEW(&client.arena, delete_topic, 4);
    q->topics.n = 4;
    q->topics.at[0].name = KAFKA_STR("one");
    q->topics.at[1].topic_id = kafka_ask_metadata(&client, 12, "two", false)->topics.at[0].topic_id;
    q->topics.at[2].name = KAFKA_STR("three");
    q->topics.at[3].topic_id.bytes[3] = 1;
    a = kafka_client_call(&client, DELETE_TOPICS, 6, q);
    REQUIRE(a && a->topics.n == 4);
    CHECK_EQ(a->topics.at[0].error_code, 0);
    CHECK_EQ(a->topics.at[1].error_code, 0);
    CHECK(kafka_str_is(a->topics.at[1].name, "two"));
    CHECK_EQ(a->topics.at[2].error_code, 3);
    CHECK_EQ(a->topics.at[3].error_code, 100);
    CHECK_EQ(kafka_ask_metadata(&client, 9, NULL, false)->topics.n, 0);
    end();
}

/* --- coordinator and producer ids --- */

static void test_we_coordinate_groups_and_no_transactions(void)
{
    struct kafka_find_coordinator_request *q;
    struct kafka_find_coordinator_response *a;
    struct kafka_str keys[2] = { KAFKA_STR("g1"), KAFKA_STR("g2") };

    begin(NULL);
    q = KAFKA_ASK(&client, find_coordinator_request);
    q->key = KAFKA_STR("g");
    q->coordinator_keys = (struct kafka_strs){ .at = keys, .n = 2 };
    for (int16_t v = 0; v <= 6; v++) {
        q->key_type = 0;
        a = kafka_client_call(&client, FIND_COORDINATOR, v, q);
        REQUIRE(a != NULL);
        if (v < 4) {
            CHECK_EQ(a->error_code, 0);
            CHECK_EQ(a->node_id, 1);
            CHECK_EQ(a->port, 9092);
        } else {
            REQUIRE(a->coordinators.n == 2);
            CHECK(kafka_str_is(a->coordinators.at[1].key, "g2"));
            CHECK_EQ(a->coordinators.at[1].port, 9092);
        }
        q->key_type = 1;
        if (v < 1)
            continue;
        a = kafka_client_call(&client, FIND_COORDINATOR, v, q);
        REQUIRE(a != NULL);
        CHECK_EQ(v < 4 ? a->error_code : a->coordinators.at[0].error_code, v < 4 ? 53 : 35);
        CHECK((v < 4 ? a->error_message : a->coordinators.at[0].error_message).len > 0);
    }
    end();
}

static int64_t producer_id(const char *transactional_id, int16_t *error)
{
    struct kafka_init_producer_id_request *q = KAFKA_ASK(&client, init_producer_id_request);
    struct kafka_init_producer_id_response *a;

    q->transactional_id = kafka_str_of(transactional_id);
    a = kafka_client_call(&client, INIT_PRODUCER_ID, 4, q);
    REQUIRE(a != NULL);
    *error = a->error_code;
    CHECK_EQ(a->producer_epoch, a->error_code ? -1 : 0);
    return a->producer_id;
}

static void test_producer_ids_are_never_given_twice_not_even_after_a_restart(void)
{
    int64_t last = -1;
    int16_t error;

    begin(NULL);
    for (unsigned start = 0; start < 3; start++) {
        for (unsigned i = 0; i < 1100; i++) {
            int64_t id = producer_id(NULL, &error);

            CHECK_EQ(error, 0);
            CHECK(id > last);
            last = id;
        }
        kafka_client_close(&client);
        kafka_server_restart(&server);
        kafka_client_open(&client, &server, 0);
    }
    producer_id("mine", &error);
    CHECK(error != 0);
    end();
}

static void test_every_error_of_ours_has_a_code(void)
{
#define X(name, class, text) CHECK(kafka_error_mapped(E_##name) && kafka_error_of(E_##name) != 0);
    ERR_LIST(X)
#undef X
    CHECK_EQ(kafka_error_of(0), 0);
    CHECK_EQ(kafka_error_of(5), 0);
    CHECK_EQ(kafka_error_of(-1), -1);
}

/* clang-format off */
TEST_MAIN(
    T(api_versions_lists_what_is_served)
    T(a_newer_api_versions_is_told_ours_in_the_oldest_form)
    T(malformed_requests_close_the_connection)
    T(requests_may_come_byte_by_byte_and_many_at_once)
    T(metadata_names_us_and_the_topics)
    T(metadata_creates_topics_only_where_it_may)
    T(two_clients_that_create_the_same_topic_meet)
    T(topics_survive_a_restart_with_ids_and_shards)
    T(create_topics_refuses_what_makes_no_sense)
    T(create_topics_can_only_look)
    T(assignments_may_only_name_us_and_every_partition_once)
    T(partitions_are_added_and_the_old_ones_stay)
    T(topics_are_deleted_by_name_and_by_id)
    T(we_coordinate_groups_and_no_transactions)
    T(producer_ids_are_never_given_twice_not_even_after_a_restart)
    T(every_error_of_ours_has_a_code))
