#include <stdlib.h>

#include "format/batch.h"
#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/schema_data.h"
#include "gateways/kafka/schema_topics.h"
#include "tests/check.h"
#include "tests/gateways/kafka_client.h"

enum { PRODUCE = 0, FETCH = 1, LIST_OFFSETS = 2, METADATA = 3, FIND_COORDINATOR = 10 };
enum { API_VERSIONS = 18, CREATE_TOPICS = 19, DELETE_TOPICS = 20, INIT_PRODUCER_ID = 22 };
enum { CREATE_PARTITIONS = 37 };

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

/* --- requests --- */

static int16_t create(struct kafka_client *c, const char *name, int32_t partitions)
{
    struct kafka_create_topics_request *q = KAFKA_ASK(c, create_topics_request);
    struct kafka_create_topics_response *a;
    struct kafka_create_topic *t = KAFKA_ASK(c, create_topic);

    t->name = kafka_str_of(name);
    t->num_partitions = partitions;
    t->replication_factor = 1;
    q->topics.at = t;
    q->topics.n = 1;
    a = kafka_client_call(c, CREATE_TOPICS, 7, q);
    REQUIRE(a && a->topics.n == 1);
    return a->topics.at[0].error_code;
}

static struct kafka_produce_request *produce_ask(struct kafka_client *c, const char *topic,
                                                 int32_t partition, const struct buf *batch,
                                                 int16_t acks)
{
    struct kafka_produce_request *q = KAFKA_ASK(c, produce_request);
    struct kafka_produce_topic *t = KAFKA_ASK(c, produce_topic);
    struct kafka_produce_partition *p = KAFKA_ASK(c, produce_partition);

    p->index = partition;
    p->records = (struct kafka_records){ .mem = batch->mem, .len = (int32_t)batch->len };
    t->name = kafka_str_of(topic);
    t->partitions.at = p;
    t->partitions.n = 1;
    q->topics.at = t;
    q->topics.n = 1;
    q->acks = acks;
    q->timeout_ms = 30000;
    return q;
}

static const struct kafka_produce_partition_answer *produced(const void *answer)
{
    const struct kafka_produce_response *a = answer;

    REQUIRE(a && a->topics.n == 1 && a->topics.at[0].partitions.n == 1);
    return &a->topics.at[0].partitions.at[0];
}

/* One batch of n records; gives the partition's answer. */
static struct kafka_produce_partition_answer produce(struct kafka_client *c, const char *topic,
                                                     int32_t partition, unsigned n, unsigned bytes,
                                                     int64_t time)
{
    struct buf *b = kafka_batch(n, bytes, time, -1, -1, -1);
    struct kafka_produce_partition_answer a =
        *produced(kafka_client_call(c, PRODUCE, 9, produce_ask(c, topic, partition, b, -1)));

    buf_unref(b);
    return a;
}

static int16_t produce_error(struct kafka_client *c, int16_t version, const char *topic,
                             int32_t partition, const struct buf *b, int16_t acks)
{
    const struct kafka_produce_partition_answer *a =
        produced(kafka_client_call(c, PRODUCE, version, produce_ask(c, topic, partition, b, acks)));

    CHECK(a->error_code == 0 || a->base_offset == -1);
    return a->error_code;
}

static struct kafka_fetch_request *fetch_ask(struct kafka_client *c, const char *topic,
                                             int32_t partition, int64_t offset, int32_t wait_ms)
{
    struct kafka_fetch_request *q = KAFKA_ASK(c, fetch_request);
    struct kafka_fetch_topic *t = KAFKA_ASK(c, fetch_topic);
    struct kafka_fetch_partition *p = KAFKA_ASK(c, fetch_partition);

    p->index = partition;
    p->fetch_offset = offset;
    p->max_bytes = 1 << 20;
    t->name = kafka_str_of(topic);
    t->partitions.at = p;
    t->partitions.n = 1;
    q->topics.at = t;
    q->topics.n = 1;
    q->max_wait_ms = wait_ms;
    q->min_bytes = 1;
    q->max_bytes = 50 << 20;
    return q;
}

static const struct kafka_fetch_partition_answer *fetched(const void *answer)
{
    const struct kafka_fetch_response *a = answer;

    REQUIRE(a && a->error_code == 0 && a->topics.n == 1 && a->topics.at[0].partitions.n == 1);
    return &a->topics.at[0].partitions.at[0];
}

static const struct kafka_fetch_partition_answer *fetch(struct kafka_client *c, const char *topic,
                                                        int32_t partition, int64_t offset)
{
    return fetched(kafka_client_call(c, FETCH, 11, fetch_ask(c, topic, partition, offset, 0)));
}

static const struct kafka_metadata_response *metadata(struct kafka_client *c, int16_t version,
                                                      const char *topic, bool may_create)
{
    struct kafka_metadata_request *q = KAFKA_ASK(c, metadata_request);
    struct kafka_metadata_topic *t = KAFKA_ASK(c, metadata_topic);
    const struct kafka_metadata_response *a;

    t->name = kafka_str_of(topic);
    q->topics.at = t;
    q->topics.n = topic ? 1 : version == 0 ? 0 : -1;
    q->allow_auto_topic_creation = may_create;
    a = kafka_client_call(c, METADATA, version, q);
    REQUIRE(a != NULL);
    return a;
}

static struct kafka_list_offsets_partition_answer list_offset(struct kafka_client *c,
                                                              int16_t version, const char *topic,
                                                              int64_t time, int32_t epoch)
{
    struct kafka_list_offsets_request *q = KAFKA_ASK(c, list_offsets_request);
    struct kafka_list_offsets_topic *t = KAFKA_ASK(c, list_offsets_topic);
    struct kafka_list_offsets_partition *p = KAFKA_ASK(c, list_offsets_partition);
    const struct kafka_list_offsets_response *a;

    p->timestamp = time;
    p->current_leader_epoch = epoch;
    t->name = kafka_str_of(topic);
    t->partitions.at = p;
    t->partitions.n = 1;
    q->topics.at = t;
    q->topics.n = 1;
    a = kafka_client_call(c, LIST_OFFSETS, version, q);
    REQUIRE(a && a->topics.n == 1 && a->topics.at[0].partitions.n == 1);
    return a->topics.at[0].partitions.at[0];
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
    static const uint8_t request[] = { 0, 0, 0, 16, 0, 18, 0, 9, 0, 0, 0, 77, 0, 2, 'm', 'e',
                                       9, 9, 9, 9 };
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
#define CLOSES(...) closes((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void test_malformed_requests_close_the_connection(void)
{
    CHECK(CLOSES(0xff, 0xff, 0xff, 0xff));             /* negative size */
    CHECK(CLOSES(0x7f, 0xff, 0xff, 0xff));             /* larger than any request */
    CHECK(CLOSES(0, 0, 0, 0));                         /* no header */
    CHECK(CLOSES(0, 0, 0, 9, 0, 18, 0, 0, 0, 0, 0, 1, 0)); /* half a header */
    CHECK(CLOSES('G', 'E', 'T', ' ', '/', ' ', 'H', 'T')); /* not Kafka at all */
    CHECK(CLOSES(0, 0, 0, 10, 0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff)); /* unknown key */
    CHECK(CLOSES(0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff)); /* unknown version */
    CHECK(CLOSES(0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff));  /* Produce 2: said, not served */
    CHECK(CLOSES(0, 0, 0, 10, 0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff));  /* client id beyond the end */
    CHECK(CLOSES(0, 0, 0, 12, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0)); /* body cut off */
    CHECK(!CLOSES(0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0));
    CHECK(!CLOSES(0, 0, 0)); /* not all there yet */
}

static void test_requests_may_come_byte_by_byte_and_many_at_once(void)
{
    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    client.conn->piecemeal = true;
    CHECK_EQ(produce(&client, "t", 0, 3, 100, 1000).base_offset, 0);
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
    CHECK_EQ(create(&client, "alpha", 3), 0);
    for (int16_t v = 0; v <= 13; v++) {
        a = metadata(&client, v, NULL, false);
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
    CHECK_EQ(metadata(&client, 9, "new", false)->topics.at[0].error_code, 3);
    a = metadata(&client, 9, "new", true);
    CHECK_EQ(a->topics.at[0].error_code, 0);
    CHECK_EQ(a->topics.at[0].partitions.n, 4);
    CHECK(kafka_str_is(a->brokers.at[0].host, "weir.example"));
    /* Before version 4 a client could not ask for no creation. */
    CHECK_EQ(metadata(&client, 1, "old", false)->topics.at[0].error_code, 0);
    CHECK_EQ(metadata(&client, 9, "bad name", true)->topics.at[0].error_code, 17);
    end();
    conf.no_auto_create = true;
    begin(&conf);
    CHECK_EQ(metadata(&client, 9, "new", true)->topics.at[0].error_code, 3);
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
    CHECK_EQ(create(&client, "both", 1), 36);
    kafka_client_close(&other);
    end();
}

static void test_topics_survive_a_restart_with_ids_and_shards(void)
{
    struct kafka_uuid id;
    const struct kafka_metadata_response *a;

    begin(NULL);
    CHECK_EQ(create(&client, "kept", 2), 0);
    CHECK_EQ(create(&client, "gone", 2), 0);
    produce(&client, "kept", 1, 5, 10, 1000);
    id = metadata(&client, 12, "kept", false)->topics.at[0].topic_id;
    {
        struct kafka_delete_topics_request *q = KAFKA_ASK(&client, delete_topics_request);
        struct kafka_str name = KAFKA_STR("gone");

        q->topic_names = (struct kafka_strs){ .at = &name, .n = 1 };
        kafka_client_call(&client, DELETE_TOPICS, 5, q);
    }
    kafka_client_close(&client);
    kafka_server_restart(&server);
    kafka_client_open(&client, &server, 0);
    a = metadata(&client, 12, NULL, false);
    REQUIRE(a->topics.n == 1);
    CHECK(!memcmp(&a->topics.at[0].topic_id, &id, 16));
    CHECK_EQ(a->topics.at[0].partitions.at[0].leader_epoch, 2);
    CHECK_EQ(fetch(&client, "kept", 1, 0)->high_watermark, 5);
    /* New topics get shards of their own. */
    CHECK_EQ(create(&client, "fresh", 1), 0);
    CHECK_EQ(fetch(&client, "fresh", 0, 0)->high_watermark, 0);
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
        CHECK_EQ(a->topics.at[0].num_partitions, cases[i].error && cases[i].error != 36 ? -1 : a->topics.at[0].num_partitions);
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
    CHECK_EQ(metadata(&client, 9, "twice", false)->topics.at[0].error_code, 3);
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
        t->assignments.at[i].broker_ids = (struct kafka_int32s){ .at = (int32_t *)&broker[i], .n = 1 };
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
    CHECK_EQ(metadata(&client, 9, "placed", false)->topics.at[0].partitions.n, 2);
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
    CHECK_EQ(create(&client, "t", 2), 0);
    produce(&client, "t", 1, 7, 10, 1000);
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
    CHECK_EQ(metadata(&client, 9, "t", false)->topics.at[0].partitions.n, 5);
    CHECK_EQ(fetch(&client, "t", 1, 0)->high_watermark, 7);
    CHECK_EQ(produce(&client, "t", 4, 1, 10, 1000).error_code, 0);
    end();
}

static void test_topics_are_deleted_by_name_and_by_id(void)
{
    struct kafka_delete_topics_request *q;
    struct kafka_delete_topics_response *a;

    begin(NULL);
    CHECK_EQ(create(&client, "one", 1), 0);
    CHECK_EQ(create(&client, "two", 1), 0);
    q = KAFKA_ASK(&client, delete_topics_request);
    q->topics.at = KAFKA_NEW(&client.arena, delete_topic, 4);
    q->topics.n = 4;
    q->topics.at[0].name = KAFKA_STR("one");
    q->topics.at[1].topic_id = metadata(&client, 12, "two", false)->topics.at[0].topic_id;
    q->topics.at[2].name = KAFKA_STR("three");
    q->topics.at[3].topic_id.bytes[3] = 1;
    a = kafka_client_call(&client, DELETE_TOPICS, 6, q);
    REQUIRE(a && a->topics.n == 4);
    CHECK_EQ(a->topics.at[0].error_code, 0);
    CHECK_EQ(a->topics.at[1].error_code, 0);
    CHECK(kafka_str_is(a->topics.at[1].name, "two"));
    CHECK_EQ(a->topics.at[2].error_code, 3);
    CHECK_EQ(a->topics.at[3].error_code, 100);
    CHECK_EQ(metadata(&client, 9, NULL, false)->topics.n, 0);
    end();
}

/* --- producing and fetching --- */

static void test_what_is_produced_is_fetched_byte_for_byte(void)
{
    struct buf *b;
    const struct kafka_fetch_partition_answer *f;

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    for (int16_t v = 3; v <= 12; v++) {
        b = kafka_batch(4, 50, 1000 * v, -1, -1, -1);
        CHECK_EQ(produce_error(&client, v, "t", 0, b, -1), 0);
        f = fetch(&client, "t", 0, 4 * (v - 3));
        REQUIRE(f->records.len == (int32_t)b->len);
        batch_stamp(b->mem, 4 * (v - 3), 1);
        CHECK(!memcmp(f->records.mem, b->mem, b->len));
        CHECK_EQ(f->high_watermark, 4 * (v - 2));
        CHECK_EQ(f->last_stable_offset, f->high_watermark);
        CHECK_EQ(f->log_start_offset, 0);
        buf_unref(b);
    }
    end();
}

static void test_fetch_of_every_version_finds_the_records(void)
{
    struct kafka_uuid id;

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    produce(&client, "t", 0, 4, 50, 1000);
    id = metadata(&client, 12, "t", false)->topics.at[0].topic_id;
    for (int16_t v = 4; v <= 18; v++) {
        struct kafka_fetch_request *q = fetch_ask(&client, "t", 0, 2, 0);

        q->topics.at->topic_id = id;
        /* The whole batch that holds offset 2. */
        CHECK(fetched(kafka_client_call(&client, FETCH, v, q))->records.len > 200);
    }
    end();
}

static void test_topic_ids_work_in_produce_and_unknown_ones_are_told(void)
{
    struct buf *b = kafka_batch(1, 10, 1000, -1, -1, -1);
    struct kafka_produce_request *q;
    struct kafka_fetch_request *f;

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    q = produce_ask(&client, "t", 0, b, 1);
    q->topics.at->topic_id = metadata(&client, 12, "t", false)->topics.at[0].topic_id;
    CHECK_EQ(produced(kafka_client_call(&client, PRODUCE, 13, q))->error_code, 0);
    q->topics.at->topic_id.bytes[0] ^= 1;
    CHECK_EQ(produced(kafka_client_call(&client, PRODUCE, 13, q))->error_code, 100);
    f = fetch_ask(&client, "t", 0, 0, 0);
    f->topics.at->topic_id = q->topics.at->topic_id;
    CHECK_EQ(fetched(kafka_client_call(&client, FETCH, 13, f))->error_code, 100);
    buf_unref(b);
    end();
}

static void test_produce_errors_are_told_by_partition(void)
{
    struct buf *good = kafka_batch(2, 10, 1000, -1, -1, -1);
    struct buf *bad = kafka_batch(2, 10, 1000, -1, -1, -1);
    struct buf *two = buf_new(2 * good->len), *none = buf_new(16);
    struct kafka_conf conf = { .batch_max = 4096 };
    struct buf *large = kafka_batch(1, 5000, 1000, -1, -1, -1);

    begin(&conf);
    CHECK_EQ(create(&client, "t", 1), 0);
    bad->mem[bad->len - 1] ^= 1;
    memcpy(two->mem, good->mem, good->len);
    memcpy(two->mem + good->len, good->mem, good->len);
    two->len = 2 * good->len;
    CHECK_EQ(produce_error(&client, 9, "t", 1, good, -1), 3);
    CHECK_EQ(produce_error(&client, 9, "t", -1, good, -1), 3);
    CHECK_EQ(produce_error(&client, 9, "no", 0, good, -1), 3);
    CHECK_EQ(produce_error(&client, 9, "t", 0, bad, -1), 2);
    CHECK_EQ(produce_error(&client, 9, "t", 0, two, -1), 87);
    CHECK_EQ(produce_error(&client, 9, "t", 0, none, -1), 87);
    CHECK_EQ(produce_error(&client, 9, "t", 0, large, -1), 10);
    CHECK_EQ(produce_error(&client, 9, "t", 0, good, 2), 21);
    CHECK_EQ(fetch(&client, "t", 0, 0)->high_watermark, 0);
    journal_fake_fail_appends(server.journal, E_NOSPACE, 1);
    CHECK_EQ(produce_error(&client, 9, "t", 0, good, -1), 56);
    CHECK_EQ(produce_error(&client, 9, "t", 0, good, -1), 0);
    buf_unref(good);
    buf_unref(bad);
    buf_unref(two);
    buf_unref(none);
    buf_unref(large);
    end();
}

static void test_zstd_needs_produce_7(void)
{
    struct batch_builder builder = { 0 };
    char value[4000];
    struct buf *b;

    memset(value, 'z', sizeof value);
    batch_builder_add(&builder, &(struct batch_new_record){ .timestamp = 1, .value = value, .value_bytes = sizeof value });
    REQUIRE(batch_builder_finish(&builder, CODEC_ZSTD, &b) == 0);
    batch_builder_free(&builder);
    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    CHECK_EQ(produce_error(&client, 6, "t", 0, b, -1), 76);
    CHECK_EQ(produce_error(&client, 7, "t", 0, b, -1), 0);
    buf_unref(b);
    end();
}

static void test_transactional_batches_are_refused(void)
{
    struct batch_builder builder = { .attributes = BATCH_ATTR_TRANSACTIONAL, .has_producer = true, .producer_id = 5 };
    struct buf *b, *plain = kafka_batch(1, 10, 1, -1, -1, -1);
    struct kafka_produce_request *q;

    batch_builder_add(&builder, &(struct batch_new_record){ .timestamp = 1, .value = "v", .value_bytes = 1 });
    REQUIRE(batch_builder_finish(&builder, CODEC_NONE, &b) == 0);
    batch_builder_free(&builder);
    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    CHECK_EQ(produce_error(&client, 9, "t", 0, b, -1), 48);
    q = produce_ask(&client, "t", 0, plain, -1);
    q->transactional_id = KAFKA_STR("mine");
    CHECK_EQ(produced(kafka_client_call(&client, PRODUCE, 9, q))->error_code, 48);
    buf_unref(b);
    buf_unref(plain);
    end();
}

static void test_a_repeated_batch_answers_its_first_offset(void)
{
    struct buf *first = kafka_batch(3, 10, 1000, 9, 0, 0);
    struct buf *second = kafka_batch(3, 10, 1000, 9, 0, 3);
    struct buf *gap = kafka_batch(3, 10, 1000, 9, 0, 9);

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    CHECK_EQ(produce_error(&client, 9, "t", 0, first, -1), 0);
    CHECK_EQ(produce_error(&client, 9, "t", 0, second, -1), 0);
    CHECK_EQ(produced(kafka_client_call(&client, PRODUCE, 9,
                                        produce_ask(&client, "t", 0, first, -1)))->base_offset,
             0);
    CHECK_EQ(produce_error(&client, 9, "t", 0, gap, -1), 45);
    CHECK_EQ(fetch(&client, "t", 0, 0)->high_watermark, 6);
    buf_unref(first);
    buf_unref(second);
    buf_unref(gap);
    end();
}

static void test_acks_0_has_no_answer_and_an_error_closes(void)
{
    struct buf *b = kafka_batch(1, 10, 1000, -1, -1, -1);

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    kafka_client_send(&client, PRODUCE, 9, produce_ask(&client, "t", 0, b, 0));
    CHECK_EQ(fetch(&client, "t", 0, 0)->high_watermark, 1); /* the next answer is this one's */
    kafka_client_send(&client, PRODUCE, 9, produce_ask(&client, "t", 5, b, 0));
    kafka_server_run(&server, 1);
    CHECK(kafka_client_closed(&client));
    CHECK_EQ(client.conn->out_bytes, 0);
    buf_unref(b);
    end();
}

static void test_answers_keep_the_order_of_the_requests(void)
{
    struct buf *b = kafka_batch(1, 10, 1000, -1, -1, -1);
    int32_t slow, fast;

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    CHECK_EQ(produce(&client, "t", 0, 1, 10, 1000).error_code, 0);
    journal_fake_hold(server.journal, true);
    slow = kafka_client_send(&client, PRODUCE, 9, produce_ask(&client, "t", 0, b, -1));
    fast = kafka_client_send(&client, API_VERSIONS, 3, KAFKA_ASK(&client, api_versions_request));
    kafka_server_run(&server, 100);
    CHECK_EQ(client.conn->out_bytes, 0);
    journal_fake_hold(server.journal, false);
    kafka_server_run(&server, 1);
    CHECK(kafka_client_take(&client, PRODUCE, 9) != NULL);
    CHECK_EQ(client.answered_id, slow);
    CHECK(kafka_client_take(&client, API_VERSIONS, 3) != NULL);
    CHECK_EQ(client.answered_id, fast);
    buf_unref(b);
    end();
}

static void test_pipelined_batches_are_appended_in_order_from_the_first(void)
{
    struct buf *b[20];

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    /* The first opens the partition; none may overtake it, or sequences would have gaps. */
    for (int32_t i = 0; i < 20; i++) {
        b[i] = kafka_batch(2, 10, 1000, 3, 0, 2 * i);
        kafka_client_send(&client, PRODUCE, 9, produce_ask(&client, "t", 0, b[i], -1));
    }
    kafka_server_run(&server, 1);
    for (int32_t i = 0; i < 20; i++) {
        const struct kafka_produce_partition_answer *a = produced(kafka_client_take(&client, PRODUCE, 9));

        CHECK_EQ(a->error_code, 0);
        CHECK_EQ(a->base_offset, 2 * i);
        buf_unref(b[i]);
    }
    end();
}

static void test_a_late_append_is_answered_as_timed_out_and_still_counts(void)
{
    struct buf *b = kafka_batch(1, 10, 1000, -1, -1, -1);
    struct kafka_produce_request *q;
    const struct kafka_produce_partition_answer *a;

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    journal_fake_hold(server.journal, true);
    q = produce_ask(&client, "t", 0, b, -1);
    q->timeout_ms = 1000;
    kafka_client_send(&client, PRODUCE, 9, q);
    kafka_server_run(&server, 900);
    CHECK_EQ(client.conn->out_bytes, 0);
    kafka_server_run(&server, 200);
    a = produced(kafka_client_take(&client, PRODUCE, 9));
    CHECK_EQ(a->error_code, 7);
    journal_fake_hold(server.journal, false);
    kafka_server_run(&server, 1);
    CHECK_EQ(client.conn->out_bytes, 0);
    CHECK_EQ(fetch(&client, "t", 0, 0)->high_watermark, 1);
    buf_unref(b);
    end();
}

/* --- waiting fetches --- */

static void test_a_fetch_waits_until_there_is_data(void)
{
    struct kafka_client other;

    begin(NULL);
    kafka_client_open(&other, &server, 0);
    CHECK_EQ(create(&client, "t", 2), 0);
    kafka_client_send(&client, FETCH, 11, fetch_ask(&client, "t", 1, 0, 5000));
    kafka_server_run(&server, 4000);
    CHECK_EQ(client.conn->out_bytes, 0);
    CHECK_EQ(produce(&other, "t", 1, 3, 10, 1000).error_code, 0);
    kafka_server_run(&server, 1);
    CHECK(fetched(kafka_client_take(&client, FETCH, 11))->records.len > 0);
    kafka_client_close(&other);
    end();
}

static void test_a_fetch_answers_nothing_when_its_time_is_up(void)
{
    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    kafka_client_send(&client, FETCH, 11, fetch_ask(&client, "t", 0, 0, 500));
    kafka_server_run(&server, 499);
    CHECK_EQ(client.conn->out_bytes, 0);
    kafka_server_run(&server, 2);
    CHECK_EQ(fetched(kafka_client_take(&client, FETCH, 11))->records.len, 0);
    CHECK_EQ(journal_fake_waits(server.journal), 0);
    end();
}

static void test_a_fetch_waits_for_its_min_bytes(void)
{
    struct kafka_client other;
    struct kafka_fetch_request *q;

    begin(NULL);
    kafka_client_open(&other, &server, 0);
    CHECK_EQ(create(&client, "t", 1), 0);
    q = fetch_ask(&client, "t", 0, 0, 5000);
    q->min_bytes = 1000;
    kafka_client_send(&client, FETCH, 11, q);
    CHECK_EQ(produce(&other, "t", 0, 1, 400, 1000).error_code, 0);
    kafka_server_run(&server, 100);
    CHECK_EQ(client.conn->out_bytes, 0);
    CHECK_EQ(produce(&other, "t", 0, 1, 600, 1000).error_code, 0);
    kafka_server_run(&server, 100);
    CHECK(fetched(kafka_client_take(&client, FETCH, 11))->records.len > 1000);
    kafka_client_close(&other);
    end();
}

static void test_a_waiting_fetch_ends_when_its_client_goes(void)
{
    struct kafka_client other;

    begin(NULL);
    kafka_client_open(&other, &server, 0);
    CHECK_EQ(create(&client, "t", 8), 0);
    kafka_client_send(&other, FETCH, 11, fetch_ask(&other, "t", 0, 0, 60000));
    kafka_server_run(&server, 10);
    CHECK_EQ(journal_fake_waits(server.journal), 1);
    kafka_client_close(&other);
    CHECK_EQ(journal_fake_waits(server.journal), 0);
    end();
}

static void test_a_waiting_fetch_ends_when_its_topic_is_deleted(void)
{
    struct kafka_client other;
    struct kafka_delete_topics_request *q;
    struct kafka_str name = KAFKA_STR("t");

    begin(NULL);
    kafka_client_open(&other, &server, 0);
    CHECK_EQ(create(&client, "t", 1), 0);
    kafka_client_send(&other, FETCH, 11, fetch_ask(&other, "t", 0, 0, 60000));
    kafka_server_run(&server, 10);
    q = KAFKA_ASK(&client, delete_topics_request);
    q->topic_names = (struct kafka_strs){ .at = &name, .n = 1 };
    REQUIRE(kafka_client_call(&client, DELETE_TOPICS, 4, q) != NULL);
    kafka_server_run(&server, 1);
    CHECK_EQ(fetched(kafka_client_take(&other, FETCH, 11))->error_code, 3);
    kafka_client_close(&other);
    end();
}

static void test_the_server_stops_while_fetches_wait(void)
{
    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    kafka_client_send(&client, FETCH, 11, fetch_ask(&client, "t", 0, 0, 60000));
    kafka_server_run(&server, 10);
    kafka_server_stop(&server);
    CHECK(client.conn->closed);
    conn_fake_free(client.conn);
    kafka_arena_fini(&client.arena);
}

/* --- fetch: errors and limits --- */

static void test_fetch_errors(void)
{
    struct kafka_fetch_request *q;
    struct kafka_fetch_response *a;

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    produce(&client, "t", 0, 3, 10, 1000);
    CHECK_EQ(fetch(&client, "t", 0, 4)->error_code, 1);
    CHECK_EQ(fetch(&client, "t", 0, -1)->error_code, 1);
    CHECK_EQ(fetch(&client, "t", 0, 3)->error_code, 0);
    CHECK_EQ(fetch(&client, "t", 1, 0)->error_code, 3);
    CHECK_EQ(fetch(&client, "x", 0, 0)->error_code, 3);
    for (int32_t epoch = 0; epoch < 3; epoch++) {
        q = fetch_ask(&client, "t", 0, 0, 0);
        q->topics.at->partitions.at->current_leader_epoch = epoch;
        CHECK_EQ(fetched(kafka_client_call(&client, FETCH, 12, q))->error_code,
                 epoch == 0 ? 74 : epoch == 1 ? 0 : 75);
    }
    q = fetch_ask(&client, "t", 0, 0, 0);
    q->session_id = 5;
    q->session_epoch = 2;
    a = kafka_client_call(&client, FETCH, 11, q);
    REQUIRE(a != NULL);
    CHECK_EQ(a->error_code, 70);
    q->session_id = 0;
    q->session_epoch = 0; /* asks for a session: answered in full, with none */
    a = kafka_client_call(&client, FETCH, 11, q);
    REQUIRE(a != NULL);
    CHECK_EQ(a->session_id, 0);
    CHECK(fetched(a)->records.len > 0);
    journal_fake_fail_reads(server.journal, E_LOST);
    CHECK_EQ(fetch(&client, "t", 0, 0)->error_code, 56);
    end();
}

static void test_a_fenced_fetch_names_the_leader(void)
{
    struct kafka_fetch_request *q;
    struct kafka_fetch_response *a;

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    q = fetch_ask(&client, "t", 0, 0, 0);
    q->topics.at->topic_id = metadata(&client, 12, "t", false)->topics.at[0].topic_id;
    q->topics.at->partitions.at->current_leader_epoch = 0;
    a = kafka_client_call(&client, FETCH, 16, q);
    CHECK_EQ(fetched(a)->error_code, 74);
    CHECK_EQ(fetched(a)->current_leader.leader_id, 1);
    CHECK_EQ(fetched(a)->current_leader.leader_epoch, 1);
    REQUIRE(a->node_endpoints.n == 1);
    CHECK_EQ(a->node_endpoints.at[0].port, 9092);
    end();
}

static int32_t fetch_bytes(int32_t partition_max, int32_t max)
{
    struct kafka_fetch_request *q = fetch_ask(&client, "t", 0, 0, 0);
    struct kafka_fetch_response *a;
    int32_t sum = 0;

    q->topics.at->partitions.at = KAFKA_NEW(&client.arena, fetch_partition, 3);
    q->topics.at->partitions.n = 3;
    for (int32_t i = 0; i < 3; i++) {
        q->topics.at->partitions.at[i].index = i;
        q->topics.at->partitions.at[i].max_bytes = partition_max;
    }
    q->max_bytes = max;
    a = kafka_client_call(&client, FETCH, 11, q);
    REQUIRE(a && a->topics.n == 1 && a->topics.at[0].partitions.n == 3);
    for (int32_t i = 0; i < 3; i++)
        sum += a->topics.at[0].partitions.at[i].records.len;
    return sum;
}

static void test_fetch_keeps_its_limits_but_gives_one_batch(void)
{
    struct buf *b = kafka_batch(1, 1000, 1000, -1, -1, -1);
    int32_t one = (int32_t)b->len;

    begin(NULL);
    CHECK_EQ(create(&client, "t", 3), 0);
    /* Partition 0 is empty, 1 and 2 have four batches each. */
    for (int32_t i = 0; i < 8; i++)
        produce(&client, "t", 1 + i % 2, 1, 1000, 1000);
    CHECK_EQ(fetch_bytes(1 << 20, 1 << 20), 8 * one);
    CHECK_EQ(fetch_bytes(2 * one, 1 << 20), 4 * one);
    CHECK_EQ(fetch_bytes(1 << 20, 5 * one), 5 * one);
    CHECK_EQ(fetch_bytes(1 << 20, 5 * one - 1), 4 * one);
    CHECK_EQ(fetch_bytes(1, 1 << 20), one);     /* smaller than any batch: one is given */
    CHECK_EQ(fetch_bytes(1 << 20, 1), one);
    buf_unref(b);
    end();
}

/* --- offsets by time --- */

static void test_list_offsets_answers_ends_and_times(void)
{
    struct kafka_list_offsets_partition_answer a;

    begin(NULL);
    CHECK_EQ(create(&client, "t", 1), 0);
    a = list_offset(&client, 7, "t", -3, -1);
    CHECK_EQ(a.offset, -1);
    produce(&client, "t", 0, 3, 10, 5000); /* 5000 5001 5002 */
    produce(&client, "t", 0, 2, 10, 1000); /* 1000 1001 */
    produce(&client, "t", 0, 2, 10, 7000); /* 7000 7001 */
    for (int16_t v = 1; v <= 11; v++) {
        CHECK_EQ(list_offset(&client, v, "t", -1, -1).offset, 7);
        CHECK_EQ(list_offset(&client, v, "t", -2, -1).offset, 0);
        CHECK_EQ(list_offset(&client, v, "t", -3, -1).error_code, v < 7 ? 35 : 0);
        CHECK_EQ(list_offset(&client, v, "t", -4, -1).error_code, v < 8 ? 35 : 0);
        CHECK_EQ(list_offset(&client, v, "t", -5, -1).error_code, v < 9 ? 35 : 0);
        CHECK_EQ(list_offset(&client, v, "t", -7, -1).error_code, 35);
    }
    a = list_offset(&client, 7, "t", -3, -1);
    CHECK_EQ(a.offset, 6);
    CHECK_EQ(a.timestamp, 7001);
    CHECK_EQ(a.leader_epoch, 1);
    a = list_offset(&client, 7, "t", 5001, -1);
    CHECK_EQ(a.offset, 1);
    CHECK_EQ(a.timestamp, 5001);
    CHECK_EQ(list_offset(&client, 7, "t", 0, -1).offset, 0);
    CHECK_EQ(list_offset(&client, 7, "t", 5003, -1).offset, 5);
    a = list_offset(&client, 7, "t", 8000, -1);
    CHECK_EQ(a.offset, -1);
    CHECK_EQ(a.timestamp, -1);
    CHECK_EQ(a.error_code, 0);
    CHECK_EQ(list_offset(&client, 9, "t", -5, -1).offset, -1);
    CHECK_EQ(list_offset(&client, 8, "t", -4, -1).offset, 0);
    CHECK_EQ(list_offset(&client, 7, "t", -1, 0).error_code, 74);
    CHECK_EQ(list_offset(&client, 7, "t", -1, 9).error_code, 75);
    CHECK_EQ(list_offset(&client, 7, "x", -1, -1).error_code, 3);
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

/* --- bounds --- */

static void test_a_client_with_too_much_unanswered_is_not_read(void)
{
    struct kafka_conf conf = { .conn_pending_max = 10000 };
    struct buf *b = kafka_batch(1, 3000, 1000, -1, -1, -1);

    begin(&conf);
    CHECK_EQ(create(&client, "t", 1), 0);
    produce(&client, "t", 0, 1, 10, 1000);
    journal_fake_hold(server.journal, true);
    for (unsigned i = 0; i < 20; i++)
        kafka_client_send(&client, PRODUCE, 9, produce_ask(&client, "t", 0, b, -1));
    kafka_server_run(&server, 10);
    CHECK(client.conn->paused);
    CHECK_EQ(journal_fake_held(server.journal), 4);
    journal_fake_hold(server.journal, false);
    kafka_server_run(&server, 10);
    for (unsigned i = 0; i < 20; i++)
        CHECK_EQ(produced(kafka_client_take(&client, PRODUCE, 9))->error_code, 0);
    CHECK(!client.conn->paused);
    buf_unref(b);
    end();
}

static void test_nobody_is_read_while_the_journal_has_too_much(void)
{
    begin(NULL);
    journal_fake_set_backlogged(server.journal, true);
    kafka_client_send(&client, API_VERSIONS, 3, KAFKA_ASK(&client, api_versions_request));
    kafka_server_run(&server, 500);
    CHECK_EQ(client.conn->out_bytes, 0);
    journal_fake_set_backlogged(server.journal, false);
    kafka_server_run(&server, 100);
    CHECK(kafka_client_take(&client, API_VERSIONS, 3) != NULL);
    end();
}

static void test_a_client_that_does_not_read_is_not_served_without_end(void)
{
    struct kafka_conf conf = { .fetch_max = 10000 };
    size_t queued;

    begin(&conf);
    CHECK_EQ(create(&client, "t", 1), 0);
    produce(&client, "t", 0, 1, 5000, 1000);
    conn_fake_stick(client.conn, true);
    for (unsigned i = 0; i < 50; i++)
        kafka_client_send(&client, FETCH, 11, fetch_ask(&client, "t", 0, 0, 0));
    kafka_server_run(&server, 10);
    queued = client.conn->out_bytes;
    CHECK(queued >= 5000 && queued <= 3 * 10000);
    CHECK(client.conn->paused);
    for (unsigned i = 0; i < 50; i++) {
        conn_fake_stick(client.conn, false);
        kafka_server_run(&server, 10);
        conn_fake_stick(client.conn, true);
    }
    for (unsigned i = 0; i < 50; i++)
        CHECK(fetched(kafka_client_take(&client, FETCH, 11))->records.len > 5000);
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

TEST_MAIN(T(api_versions_lists_what_is_served)
          T(a_newer_api_versions_is_told_ours_in_the_oldest_form)
          T(malformed_requests_close_the_connection)
          T(requests_may_come_byte_by_byte_and_many_at_once)
          T(metadata_names_us_and_the_topics) T(metadata_creates_topics_only_where_it_may)
          T(two_clients_that_create_the_same_topic_meet)
          T(topics_survive_a_restart_with_ids_and_shards)
          T(create_topics_refuses_what_makes_no_sense) T(create_topics_can_only_look)
          T(assignments_may_only_name_us_and_every_partition_once)
          T(partitions_are_added_and_the_old_ones_stay) T(topics_are_deleted_by_name_and_by_id)
          T(what_is_produced_is_fetched_byte_for_byte)
          T(fetch_of_every_version_finds_the_records)
          T(topic_ids_work_in_produce_and_unknown_ones_are_told)
          T(produce_errors_are_told_by_partition) T(zstd_needs_produce_7)
          T(transactional_batches_are_refused) T(a_repeated_batch_answers_its_first_offset)
          T(acks_0_has_no_answer_and_an_error_closes)
          T(answers_keep_the_order_of_the_requests)
          T(pipelined_batches_are_appended_in_order_from_the_first)
          T(a_late_append_is_answered_as_timed_out_and_still_counts)
          T(a_fetch_waits_until_there_is_data) T(a_fetch_answers_nothing_when_its_time_is_up)
          T(a_fetch_waits_for_its_min_bytes) T(a_waiting_fetch_ends_when_its_client_goes)
          T(a_waiting_fetch_ends_when_its_topic_is_deleted)
          T(the_server_stops_while_fetches_wait) T(fetch_errors) T(a_fenced_fetch_names_the_leader)
          T(fetch_keeps_its_limits_but_gives_one_batch) T(list_offsets_answers_ends_and_times)
          T(we_coordinate_groups_and_no_transactions)
          T(producer_ids_are_never_given_twice_not_even_after_a_restart)
          T(a_client_with_too_much_unanswered_is_not_read)
          T(nobody_is_read_while_the_journal_has_too_much)
          T(a_client_that_does_not_read_is_not_served_without_end)
          T(every_error_of_ours_has_a_code))
