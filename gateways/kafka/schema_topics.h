/* Messages that change topics: CreateTopics, DeleteTopics, CreatePartitions.
 * Source: the protocol's message definitions, Kafka 4.2. */
#ifndef WEIR_GATEWAYS_KAFKA_SCHEMA_TOPICS_H
#define WEIR_GATEWAYS_KAFKA_SCHEMA_TOPICS_H

#include "gateways/kafka/schema.h"

/* --- CreateTopics (19) --- */

#define KAFKA_CREATE_ASSIGNMENT(F, M)                                                              \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, INT32S, broker_ids, 0, LAST)

#define KAFKA_CREATE_CONFIG(F, M)                                                                  \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, STRING, value, 0, LAST, NULLABLE)

#define KAFKA_CREATE_TOPIC(F, M)                                                                   \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, INT32, num_partitions, 0, LAST)                                                           \
    F(M, INT16, replication_factor, 0, LAST)                                                       \
    F(M, ARRAY(create_assignment), assignments, 0, LAST)                                           \
    F(M, ARRAY(create_config), configs, 0, LAST)

#define KAFKA_CREATE_TOPICS_REQUEST(F, M)                                                          \
    F(M, ARRAY(create_topic), topics, 0, LAST)                                                     \
    F(M, INT32, timeout_ms, 0, LAST, DEFAULT(60000))                                               \
    F(M, BOOL, validate_only, 1, LAST)

#define KAFKA_CREATE_CONFIG_ANSWER(F, M)                                                           \
    F(M, STRING, name, 5, LAST)                                                                    \
    F(M, STRING, value, 5, LAST, NULLABLE)                                                         \
    F(M, BOOL, read_only, 5, LAST)                                                                 \
    F(M, INT8, config_source, 5, LAST, DEFAULT(-1))                                                \
    F(M, BOOL, is_sensitive, 5, LAST)

#define KAFKA_CREATE_TOPIC_ANSWER(F, M)                                                            \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, UUID, topic_id, 7, LAST)                                                                  \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, STRING, error_message, 1, LAST, NULLABLE)                                                 \
    F(M, INT16, topic_config_error_code, 5, LAST, TAG(0))                                          \
    F(M, INT32, num_partitions, 5, LAST, DEFAULT(-1))                                              \
    F(M, INT16, replication_factor, 5, LAST, DEFAULT(-1))                                          \
    F(M, ARRAY(create_config_answer), configs, 5, LAST, NULLABLE)

#define KAFKA_CREATE_TOPICS_RESPONSE(F, M)                                                         \
    F(M, INT32, throttle_time_ms, 2, LAST)                                                         \
    F(M, ARRAY(create_topic_answer), topics, 0, LAST)

/* --- DeleteTopics (20) --- */

#define KAFKA_DELETE_TOPIC(F, M)                                                                   \
    F(M, STRING, name, 6, LAST, NULLABLE)                                                          \
    F(M, UUID, topic_id, 6, LAST)

#define KAFKA_DELETE_TOPICS_REQUEST(F, M)                                                          \
    F(M, ARRAY(delete_topic), topics, 6, LAST)                                                     \
    F(M, STRINGS, topic_names, 0, 5)                                                               \
    F(M, INT32, timeout_ms, 0, LAST)

#define KAFKA_DELETE_TOPIC_ANSWER(F, M)                                                            \
    F(M, STRING, name, 0, LAST, NULLABLE_FROM(6))                                                  \
    F(M, UUID, topic_id, 6, LAST)                                                                  \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, STRING, error_message, 5, LAST, NULLABLE)

#define KAFKA_DELETE_TOPICS_RESPONSE(F, M)                                                         \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, ARRAY(delete_topic_answer), topics, 0, LAST)

/* --- CreatePartitions (37) --- */

#define KAFKA_PARTITIONS_ASSIGNMENT(F, M) F(M, INT32S, broker_ids, 0, LAST)

#define KAFKA_PARTITIONS_TOPIC(F, M)                                                               \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, INT32, count, 0, LAST)                                                                    \
    F(M, ARRAY(partitions_assignment), assignments, 0, LAST, NULLABLE)

#define KAFKA_CREATE_PARTITIONS_REQUEST(F, M)                                                      \
    F(M, ARRAY(partitions_topic), topics, 0, LAST)                                                 \
    F(M, INT32, timeout_ms, 0, LAST)                                                               \
    F(M, BOOL, validate_only, 0, LAST)

#define KAFKA_PARTITIONS_TOPIC_ANSWER(F, M)                                                        \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, STRING, error_message, 0, LAST, NULLABLE)

#define KAFKA_CREATE_PARTITIONS_RESPONSE(F, M)                                                     \
    F(M, INT32, throttle_time_ms, 0, LAST)                                                         \
    F(M, ARRAY(partitions_topic_answer), topics, 0, LAST)

#define KAFKA_TOPICS_MESSAGES(X)                                                                   \
    X(create_assignment, KAFKA_CREATE_ASSIGNMENT)                                                  \
    X(create_config, KAFKA_CREATE_CONFIG)                                                          \
    X(create_topic, KAFKA_CREATE_TOPIC)                                                            \
    X(create_topics_request, KAFKA_CREATE_TOPICS_REQUEST)                                          \
    X(create_config_answer, KAFKA_CREATE_CONFIG_ANSWER)                                            \
    X(create_topic_answer, KAFKA_CREATE_TOPIC_ANSWER)                                              \
    X(create_topics_response, KAFKA_CREATE_TOPICS_RESPONSE)                                        \
    X(delete_topic, KAFKA_DELETE_TOPIC)                                                            \
    X(delete_topics_request, KAFKA_DELETE_TOPICS_REQUEST)                                          \
    X(delete_topic_answer, KAFKA_DELETE_TOPIC_ANSWER)                                              \
    X(delete_topics_response, KAFKA_DELETE_TOPICS_RESPONSE)                                        \
    X(partitions_assignment, KAFKA_PARTITIONS_ASSIGNMENT)                                          \
    X(partitions_topic, KAFKA_PARTITIONS_TOPIC)                                                    \
    X(create_partitions_request, KAFKA_CREATE_PARTITIONS_REQUEST)                                  \
    X(partitions_topic_answer, KAFKA_PARTITIONS_TOPIC_ANSWER)                                      \
    X(create_partitions_response, KAFKA_CREATE_PARTITIONS_RESPONSE)

KAFKA_TOPICS_MESSAGES(KAFKA_STRUCT)

#endif
