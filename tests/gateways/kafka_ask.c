#include "tests/gateways/kafka_ask.h"

#include "gateways/kafka/codec.h"
#include "tests/check.h"

int16_t kafka_ask_create(struct kafka_client *c, const char *name, int32_t partitions)
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

struct kafka_produce_request *kafka_ask_produce(struct kafka_client *c, const char *topic,
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

const struct kafka_produce_partition_answer *kafka_ask_produced(const void *answer)
{
    const struct kafka_produce_response *a = answer;

    REQUIRE(a && a->topics.n == 1 && a->topics.at[0].partitions.n == 1);
    return &a->topics.at[0].partitions.at[0];
}

/* One batch of n records; gives the partition's answer. */
struct kafka_produce_partition_answer kafka_ask_produce_now(struct kafka_client *c,
                                                            const char *topic, int32_t partition,
                                                            unsigned n, unsigned bytes,
                                                            int64_t time)
{
    struct buf *b = kafka_batch(n, bytes, time, -1, -1, -1);
    struct kafka_produce_partition_answer a = *kafka_ask_produced(
        kafka_client_call(c, PRODUCE, 9, kafka_ask_produce(c, topic, partition, b, -1)));

    buf_unref(b);
    return a;
}

int16_t kafka_ask_produce_error(struct kafka_client *c, int16_t version, const char *topic,
                                int32_t partition, const struct buf *b, int16_t acks)
{
    const struct kafka_produce_partition_answer *a = kafka_ask_produced(
        kafka_client_call(c, PRODUCE, version, kafka_ask_produce(c, topic, partition, b, acks)));

    CHECK(a->error_code == 0 || a->base_offset == -1);
    return a->error_code;
}

struct kafka_fetch_request *kafka_ask_fetch(struct kafka_client *c, const char *topic,
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

const struct kafka_fetch_partition_answer *kafka_ask_fetched(const void *answer)
{
    const struct kafka_fetch_response *a = answer;

    REQUIRE(a && a->error_code == 0 && a->topics.n == 1 && a->topics.at[0].partitions.n == 1);
    return &a->topics.at[0].partitions.at[0];
}

const struct kafka_fetch_partition_answer *kafka_ask_fetch_now(struct kafka_client *c,
                                                               const char *topic, int32_t partition,
                                                               int64_t offset)
{
    return kafka_ask_fetched(
        kafka_client_call(c, FETCH, 11, kafka_ask_fetch(c, topic, partition, offset, 0)));
}

const struct kafka_metadata_response *kafka_ask_metadata(struct kafka_client *c, int16_t version,
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
