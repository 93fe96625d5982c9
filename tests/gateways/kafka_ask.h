/* Requests that many tests make, each with its answer checked for shape. */
#ifndef WEIR_TESTS_GATEWAYS_KAFKA_ASK_H
#define WEIR_TESTS_GATEWAYS_KAFKA_ASK_H

#include "gateways/kafka/schema_data.h"
#include "gateways/kafka/schema_topics.h"
#include "tests/gateways/kafka_client.h"

/* Keys of APIs. */
enum { PRODUCE = 0, FETCH = 1, LIST_OFFSETS = 2, METADATA = 3, FIND_COORDINATOR = 10 };
enum { API_VERSIONS = 18, CREATE_TOPICS = 19, DELETE_TOPICS = 20, INIT_PRODUCER_ID = 22 };
enum { CREATE_PARTITIONS = 37 };

/* Creates a topic; gives the error code. */
int16_t kafka_ask_create(struct kafka_client *c, const char *name, int32_t partitions);

/* A request for one partition, and the one partition of its answer. */
struct kafka_produce_request *kafka_ask_produce(struct kafka_client *c, const char *topic,
                                                int32_t partition, const struct buf *batch,
                                                int16_t acks);
const struct kafka_produce_partition_answer *kafka_ask_produced(const void *answer);
/* Produces one batch of n records of `bytes` each, timestamps from time on. */
struct kafka_produce_partition_answer kafka_ask_produce_now(struct kafka_client *c,
                                                            const char *topic, int32_t partition,
                                                            unsigned n, unsigned bytes,
                                                            int64_t time);
int16_t kafka_ask_produce_error(struct kafka_client *c, int16_t version, const char *topic,
                                int32_t partition, const struct buf *b, int16_t acks);

/* The same for Fetch: min_bytes 1, 1 MiB of the partition. */
struct kafka_fetch_request *kafka_ask_fetch(struct kafka_client *c, const char *topic,
                                            int32_t partition, int64_t offset, int32_t wait_ms);
const struct kafka_fetch_partition_answer *kafka_ask_fetched(const void *answer);
const struct kafka_fetch_partition_answer *kafka_ask_fetch_now(struct kafka_client *c,
                                                               const char *topic, int32_t partition,
                                                               int64_t offset);

/* topic NULL: all. */
const struct kafka_metadata_response *kafka_ask_metadata(struct kafka_client *c, int16_t version,
                                                         const char *topic, bool may_create);

#endif
