/* Settings of topics through the Kafka door, and what the journal is told of them. */
#include <string.h>

#include "format/batch.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/schema_config.h"
#include "gateways/kafka/topic_configs.h"
#include "tests/check.h"
#include "tests/gateways/kafka_ask.h"

enum { DELETE_RECORDS = 21, DESCRIBE_CONFIGS = 32, ALTER_CONFIGS = 33, INCREMENTAL = 44 };
enum { SET, DELETE, APPEND, SUBTRACT };
enum { TOPIC = 2, BROKER = 4 };

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

/* One setting, or none (name NULL). */
static const struct kafka_create_topic_answer *create(const char *topic, const char *name,
                                                      const char *value)
{
    struct kafka_create_topics_request *q = KAFKA_ASK(&client, create_topics_request);
    struct kafka_create_topic *t = KAFKA_ASK(&client, create_topic);
    struct kafka_create_config *c = KAFKA_ASK(&client, create_config);
    struct kafka_create_topics_response *a;

    t->name = kafka_str_of(topic);
    t->num_partitions = 1;
    t->replication_factor = 1;
    if (name) {
        c->name = kafka_str_of(name);
        c->value = kafka_str_of(value);
        t->configs.at = c;
        t->configs.n = 1;
    }
    q->topics.at = t;
    q->topics.n = 1;
    a = kafka_client_call(&client, CREATE_TOPICS, 7, q);
    REQUIRE(a && a->topics.n == 1);
    return &a->topics.at[0];
}

static bool says(struct kafka_str text, const char *part)
{
    return text.len > 0 && memmem(text.mem, (size_t)text.len, part, strlen(part)) != NULL;
}

static const struct kafka_alter_configs_answer *alter(const char *topic, int8_t op,
                                                      const char *name, const char *value,
                                                      bool look)
{
    struct kafka_incremental_alter_configs_request *q =
        KAFKA_ASK(&client, incremental_alter_configs_request);
    struct kafka_incremental_resource *r = KAFKA_ASK(&client, incremental_resource);
    struct kafka_incremental_config *c = KAFKA_ASK(&client, incremental_config);
    struct kafka_incremental_alter_configs_response *a;

    c->name = kafka_str_of(name);
    c->config_operation = op;
    c->value = value ? kafka_str_of(value) : KAFKA_NULL;
    r->resource_type = TOPIC;
    r->resource_name = kafka_str_of(topic);
    r->configs.at = c;
    r->configs.n = 1;
    q->resources.at = r;
    q->resources.n = 1;
    q->validate_only = look;
    a = kafka_client_call(&client, INCREMENTAL, 1, q);
    REQUIRE(a && a->responses.n == 1);
    return &a->responses.at[0];
}

/* The setting as it is described; NULL: not at all. */
static const struct kafka_describe_configs_config *described(int8_t type, const char *resource,
                                                             const char *name)
{
    struct kafka_describe_configs_request *q = KAFKA_ASK(&client, describe_configs_request);
    struct kafka_describe_configs_resource *r = KAFKA_ASK(&client, describe_configs_resource);
    struct kafka_str key = kafka_str_of(name);
    struct kafka_describe_configs_response *a;

    r->resource_type = type;
    r->resource_name = kafka_str_of(resource);
    r->configuration_keys.at = &key;
    r->configuration_keys.n = 1;
    q->resources.at = r;
    q->resources.n = 1;
    q->include_synonyms = q->include_documentation = true;
    a = kafka_client_call(&client, DESCRIBE_CONFIGS, 4, q);
    REQUIRE(a && a->results.n == 1);
    return a->results.at[0].configs.n == 1 ? &a->results.at[0].configs.at[0] : NULL;
}

static bool is(struct kafka_str s, const char *text)
{
    return s.len == (int32_t)strlen(text) && !memcmp(s.mem, text, strlen(text));
}

static void check_described(const char *topic, const char *name, const char *value, int source)
{
    const struct kafka_describe_configs_config *c = described(TOPIC, topic, name);

    REQUIRE(c != NULL);
    CHECK(is(c->value, value));
    CHECK_EQ(c->config_source, source);
}

static void opened(struct topic_open *o)
{
    *(bool *)o->impl = true;
}

/* What the journal holds for the topic's one partition. */
static struct shard_policy policy_of(const char *topic)
{
    struct topic *t = topics_find(server.kafka->topics, topic, strlen(topic));
    bool done = false;
    struct topic_open o = { .fn = opened, .loop = server.loops[0], .topic = t, .impl = &done };
    struct shard_policy p;

    REQUIRE(t != NULL);
    topic_open(server.kafka->topics, &o);
    kafka_server_run(&server, 1000);
    REQUIRE(done && o.rc == 0);
    shard_policy(o.shard, &p);
    shard_unref(o.shard);
    topic_unref(t);
    return p;
}

static void test_settings_become_the_shards_policy(void)
{
    static const struct {
        const char *name, *value;
        struct shard_policy p;
    } rows[] = {
        { NULL, NULL, { .flags = SHARD_EXPIRES, .retention_ms = INT64_C(604800000) } },
        { "retention.ms", "5", { .flags = SHARD_EXPIRES, .retention_ms = 5 } },
        { "retention.ms", "-1", { 0 } },
        { "retention.bytes",
          "77",
          { .flags = SHARD_EXPIRES | SHARD_LIMITED,
            .retention_ms = INT64_C(604800000),
            .retention_bytes = 77 } },
        { "cleanup.policy",
          "compact",
          { .flags = SHARD_COMPACTED, .delete_retention_ms = 86400000 } },
        { "cleanup.policy",
          "compact,delete",
          { .flags = SHARD_COMPACTED | SHARD_EXPIRES,
            .retention_ms = INT64_C(604800000),
            .delete_retention_ms = 86400000 } },
    };
    char topic[] = "t0";

    begin(NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++, topic[1]++) {
        struct shard_policy p;

        CHECK_EQ(create(topic, rows[i].name, rows[i].value)->error_code, 0);
        p = policy_of(topic);
        CHECK_EQ(p.flags, rows[i].p.flags);
        CHECK_EQ(p.retention_ms, rows[i].p.retention_ms);
        CHECK_EQ(p.retention_bytes, rows[i].p.retention_bytes);
        CHECK_EQ(p.delete_retention_ms, rows[i].p.delete_retention_ms);
    }
    end();
}

static void test_what_is_no_setting_or_no_value_is_refused_and_says_why(void)
{
    static const char *const rows[][3] = {
        { "retention.ms", "-2", "Value must be at least -1" },
        { "retention.ms", "x", "Not a number of type LONG" },
        { "segment.bytes", "99999999999", "Not a number of type INT" },
        { "compression.gzip.level", "10", "Value must be no more than 9" },
        { "preallocate", "maybe", "either true or false" },
        { "min.cleanable.dirty.ratio", "1.5", "Value must be no more than 1" },
        { "cleanup.policy", "delete,burn", "String must be one of: compact, delete" },
        { "compression.type", "lzma", "String must be one of: uncompressed" },
        { "nothing", "1", "Unknown topic config name: nothing" },
        { "weir.kind", "memory", "the journal does not take such settings" },
    };

    begin(NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct kafka_create_topic_answer *a = create("t", rows[i][0], rows[i][1]);

        CHECK_EQ(a->error_code, KAFKA_INVALID_CONFIG);
        CHECK(says(a->error_message, rows[i][2]));
    }
    CHECK_EQ(create("t", NULL, NULL)->error_code, 0);
    for (size_t i = 0; i + 1 < sizeof rows / sizeof rows[0]; i++) {
        const struct kafka_alter_configs_answer *a =
            alter("t", SET, rows[i][0], rows[i][1], i % 2 == 0);

        CHECK_EQ(a->error_code, KAFKA_INVALID_CONFIG);
        CHECK(says(a->error_message, rows[i][2]));
    }
    CHECK(says(alter("t", SET, "weir.kind", "memory", false)->error_message, "weir.kind is fixed"));
    CHECK_EQ(alter("none", SET, "retention.ms", "1", false)->error_code,
             KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    end();
}

static void test_alterations_set_take_back_and_edit_lists(void)
{
    begin(NULL);
    create("t", "retention.ms", "1000");
    CHECK_EQ(policy_of("t").retention_ms, 1000);
    CHECK_EQ(alter("t", SET, "retention.ms", "2000", true)->error_code, 0);
    check_described("t", "retention.ms", "1000", 1); /* that was only a look */
    CHECK_EQ(alter("t", SET, "retention.ms", "2000", false)->error_code, 0);
    check_described("t", "retention.ms", "2000", 1);
    CHECK_EQ(policy_of("t").retention_ms, 2000);
    CHECK_EQ(alter("t", APPEND, "cleanup.policy", "compact", false)->error_code, 0);
    check_described("t", "cleanup.policy", "delete,compact", 1);
    CHECK_EQ(policy_of("t").flags, SHARD_EXPIRES | SHARD_COMPACTED);
    CHECK_EQ(alter("t", SUBTRACT, "cleanup.policy", "delete", false)->error_code, 0);
    check_described("t", "cleanup.policy", "compact", 1);
    CHECK_EQ(policy_of("t").flags, SHARD_COMPACTED);
    CHECK(says(alter("t", APPEND, "retention.ms", "1", false)->error_message,
               "its type is not LIST"));
    CHECK_EQ(alter("t", DELETE, "cleanup.policy", NULL, false)->error_code, 0);
    CHECK_EQ(alter("t", DELETE, "retention.ms", NULL, false)->error_code, 0);
    check_described("t", "cleanup.policy", "delete", 5);
    check_described("t", "retention.ms", "604800000", 5);
    CHECK_EQ(policy_of("t").retention_ms, INT64_C(604800000));
    end();
}

static void test_a_topic_keeps_the_defaults_of_when_it_was_made(void)
{
    struct kafka_conf conf = { .retention_ms = 777, .cleanup_policy = "compact" };

    begin(&conf);
    create("t", NULL, NULL);
    check_described("t", "retention.ms", "777", 5);
    check_described("t", "cleanup.policy", "compact", 5);
    CHECK(is(described(BROKER, "1", "log.retention.ms")->value, "777"));
    end();
}

static void test_max_message_bytes_is_the_topics(void)
{
    struct kafka_produce_partition_answer a;

    begin(NULL);
    create("t", "max.message.bytes", "500");
    a = kafka_ask_produce_now(&client, "t", 0, 1, 1000, 1000);
    CHECK_EQ(a.error_code, KAFKA_MESSAGE_TOO_LARGE);
    a = kafka_ask_produce_now(&client, "t", 0, 1, 100, 1000);
    CHECK_EQ(a.error_code, 0);
    end();
}

static void test_log_append_time_is_stamped_and_the_batch_stays_valid(void)
{
    const struct kafka_fetch_partition_answer *f;
    struct kafka_produce_partition_answer a;
    struct batch_head h;

    begin(NULL);
    create("t", "message.timestamp.type", "LogAppendTime");
    a = kafka_ask_produce_now(&client, "t", 0, 3, 100, 1000);
    CHECK_EQ(a.error_code, 0);
    CHECK(a.log_append_time_ms > 1000);
    f = kafka_ask_fetch_now(&client, "t", 0, 0);
    REQUIRE(f && f->records.len > 0);
    REQUIRE(batch_check(&h, f->records.mem, (size_t)f->records.len) == 0);
    CHECK_EQ(h.max_timestamp, a.log_append_time_ms);
    CHECK(h.attributes & BATCH_ATTR_LOG_APPEND_TIME);
    end();
}

static void test_a_compacted_topic_refuses_records_without_keys(void)
{
    begin(NULL);
    create("t", "cleanup.policy", "compact");
    CHECK_EQ(kafka_ask_produce_now(&client, "t", 0, 3, 100, 1000).error_code, KAFKA_INVALID_RECORD);
    alter("t", SET, "cleanup.policy", "delete", false);
    CHECK_EQ(kafka_ask_produce_now(&client, "t", 0, 3, 100, 1000).error_code, 0);
    alter("t", SET, "cleanup.policy", "compact,delete", false);
    CHECK_EQ(kafka_ask_produce_now(&client, "t", 0, 3, 100, 1000).error_code, KAFKA_INVALID_RECORD);
    end();
}

static struct kafka_delete_records_partition_answer delete_records(const char *topic, int32_t index,
                                                                   int64_t offset)
{
    struct kafka_delete_records_request *q = KAFKA_ASK(&client, delete_records_request);
    struct kafka_delete_records_topic *t = KAFKA_ASK(&client, delete_records_topic);
    struct kafka_delete_records_partition *p = KAFKA_ASK(&client, delete_records_partition);
    struct kafka_delete_records_response *a;

    p->index = index;
    p->offset = offset;
    t->name = kafka_str_of(topic);
    t->partitions.at = p;
    t->partitions.n = 1;
    q->topics.at = t;
    q->topics.n = 1;
    a = kafka_client_call(&client, DELETE_RECORDS, 2, q);
    REQUIRE(a && a->topics.n == 1 && a->topics.at[0].partitions.n == 1);
    return a->topics.at[0].partitions.at[0];
}

static void test_delete_records_moves_the_start_and_tells_it(void)
{
    begin(NULL);
    create("t", NULL, NULL);
    for (unsigned i = 0; i < 5; i++)
        kafka_ask_produce_now(&client, "t", 0, 2, 10, 1000);
    CHECK_EQ(delete_records("t", 0, 4).low_watermark, 4);
    CHECK_EQ(delete_records("t", 0, 2).low_watermark, 4);
    CHECK_EQ(delete_records("t", 0, 11).error_code, KAFKA_OFFSET_OUT_OF_RANGE);
    CHECK_EQ(delete_records("t", 0, -2).error_code, KAFKA_OFFSET_OUT_OF_RANGE);
    CHECK_EQ(delete_records("t", 0, -1).low_watermark, 10);
    CHECK_EQ(delete_records("t", 1, 0).error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    CHECK_EQ(delete_records("x", 0, 0).error_code, KAFKA_UNKNOWN_TOPIC_OR_PARTITION);
    alter("t", SET, "cleanup.policy", "compact", false);
    CHECK_EQ(delete_records("t", 0, -1).error_code, KAFKA_POLICY_VIOLATION);
    end();
}

/* Old rows have no defaults: nothing of such a topic may go unless somebody says so. */
static void test_a_topic_without_defaults_keeps_everything(void)
{
    struct kafka_settings none = { NULL, 0 };
    struct shard_policy p = { .flags = 7 };

    kafka_topic_policy(none, none, &p);
    CHECK_EQ(p.flags, 0);
}

TEST_MAIN(T(settings_become_the_shards_policy)
              T(what_is_no_setting_or_no_value_is_refused_and_says_why)
                  T(alterations_set_take_back_and_edit_lists)
                      T(a_topic_keeps_the_defaults_of_when_it_was_made)
                          T(max_message_bytes_is_the_topics)
                              T(log_append_time_is_stamped_and_the_batch_stays_valid)
                                  T(a_compacted_topic_refuses_records_without_keys)
                                      T(delete_records_moves_the_start_and_tells_it)
                                          T(a_topic_without_defaults_keeps_everything))
