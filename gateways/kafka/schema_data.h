/* Messages of records and of where they are: Produce, Fetch, ListOffsets, Metadata,
 * ApiVersions, FindCoordinator, InitProducerId. Source: the protocol's message definitions,
 * Kafka 4.2; KIP-516 (topic ids), KIP-951 (new leaders). */
#ifndef WEIR_GATEWAYS_KAFKA_SCHEMA_DATA_H
#define WEIR_GATEWAYS_KAFKA_SCHEMA_DATA_H

#include "gateways/kafka/schema.h"

/* --- Produce (0) --- */

#define KAFKA_PRODUCE_PARTITION(F, M)                                                              \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, RECORDS, records, 0, LAST, NULLABLE)

#define KAFKA_PRODUCE_TOPIC(F, M)                                                                  \
    F(M, STRING, name, 0, 12)                                                                      \
    F(M, UUID, topic_id, 13, LAST)                                                                 \
    F(M, ARRAY(produce_partition), partitions, 0, LAST)

#define KAFKA_PRODUCE_REQUEST(F, M)                                                                \
    F(M, STRING, transactional_id, 3, LAST, NULLABLE)                                              \
    F(M, INT16, acks, 0, LAST)                                                                     \
    F(M, INT32, timeout_ms, 0, LAST)                                                               \
    F(M, ARRAY(produce_topic), topics, 0, LAST)

#define KAFKA_LEADER(F, M)                                                                         \
    F(M, INT32, leader_id, 0, LAST, DEFAULT(-1))                                                   \
    F(M, INT32, leader_epoch, 0, LAST, DEFAULT(-1))

#define KAFKA_NODE_ENDPOINT(F, M)                                                                  \
    F(M, INT32, node_id, 0, LAST)                                                                  \
    F(M, STRING, host, 0, LAST)                                                                    \
    F(M, INT32, port, 0, LAST)                                                                     \
    F(M, STRING, rack, 0, LAST, NULLABLE)

#define KAFKA_PRODUCE_RECORD_ERROR(F, M)                                                           \
    F(M, INT32, batch_index, 8, LAST)                                                              \
    F(M, STRING, message, 8, LAST, NULLABLE)

#define KAFKA_PRODUCE_PARTITION_ANSWER(F, M)                                                       \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, INT64, base_offset, 0, LAST)                                                              \
    F(M, INT64, log_append_time_ms, 2, LAST, DEFAULT(-1))                                          \
    F(M, INT64, log_start_offset, 5, LAST, DEFAULT(-1))                                            \
    F(M, ARRAY(produce_record_error), record_errors, 8, LAST)                                      \
    F(M, STRING, error_message, 8, LAST, NULLABLE)                                                 \
    F(M, STRUCT(leader), current_leader, 10, LAST, TAG(0))

#define KAFKA_PRODUCE_TOPIC_ANSWER(F, M)                                                           \
    F(M, STRING, name, 0, 12)                                                                      \
    F(M, UUID, topic_id, 13, LAST)                                                                 \
    F(M, ARRAY(produce_partition_answer), partitions, 0, LAST)

#define KAFKA_PRODUCE_RESPONSE(F, M)                                                               \
    F(M, ARRAY(produce_topic_answer), topics, 0, LAST)                                             \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, ARRAY(node_endpoint), node_endpoints, 10, LAST, TAG(0))

/* --- Fetch (1) --- */

#define KAFKA_FETCH_PARTITION(F, M)                                                                \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, INT32, current_leader_epoch, 9, LAST, DEFAULT(-1))                                        \
    F(M, INT64, fetch_offset, 0, LAST)                                                             \
    F(M, INT32, last_fetched_epoch, 12, LAST, DEFAULT(-1))                                         \
    F(M, INT64, log_start_offset, 5, LAST, DEFAULT(-1))                                            \
    F(M, INT32, max_bytes, 0, LAST)                                                                \
    F(M, UUID, replica_directory_id, 17, LAST, TAG(0))                                             \
    F(M, INT64, high_watermark, 18, LAST, TAG(1), DEFAULT(INT64_MAX))

#define KAFKA_FETCH_TOPIC(F, M)                                                                    \
    F(M, STRING, name, 0, 12)                                                                      \
    F(M, UUID, topic_id, 13, LAST)                                                                 \
    F(M, ARRAY(fetch_partition), partitions, 0, LAST)

#define KAFKA_FETCH_FORGOTTEN(F, M)                                                                \
    F(M, STRING, name, 7, 12)                                                                      \
    F(M, UUID, topic_id, 13, LAST)                                                                 \
    F(M, INT32S, partitions, 7, LAST)

#define KAFKA_FETCH_REPLICA(F, M)                                                                  \
    F(M, INT32, replica_id, 15, LAST, DEFAULT(-1))                                                 \
    F(M, INT64, replica_epoch, 15, LAST, DEFAULT(-1))

#define KAFKA_FETCH_REQUEST(F, M)                                                                  \
    F(M, STRING, cluster_id, 12, LAST, NULLABLE, TAG(0))                                           \
    F(M, INT32, replica_id, 0, 14, DEFAULT(-1))                                                    \
    F(M, STRUCT(fetch_replica), replica_state, 15, LAST, TAG(1))                                   \
    F(M, INT32, max_wait_ms, 0, LAST)                                                              \
    F(M, INT32, min_bytes, 0, LAST)                                                                \
    F(M, INT32, max_bytes, 3, LAST, DEFAULT(INT32_MAX))                                            \
    F(M, INT8, isolation_level, 4, LAST)                                                           \
    F(M, INT32, session_id, 7, LAST)                                                               \
    F(M, INT32, session_epoch, 7, LAST, DEFAULT(-1))                                               \
    F(M, ARRAY(fetch_topic), topics, 0, LAST)                                                      \
    F(M, ARRAY(fetch_forgotten), forgotten, 7, LAST)                                               \
    F(M, STRING, rack_id, 11, LAST)

#define KAFKA_FETCH_DIVERGING(F, M)                                                                \
    F(M, INT32, epoch, 12, LAST, DEFAULT(-1))                                                      \
    F(M, INT64, end_offset, 12, LAST, DEFAULT(-1))

#define KAFKA_FETCH_SNAPSHOT(F, M)                                                                 \
    F(M, INT64, end_offset, 12, LAST, DEFAULT(-1))                                                 \
    F(M, INT32, epoch, 12, LAST, DEFAULT(-1))

#define KAFKA_FETCH_ABORTED(F, M)                                                                  \
    F(M, INT64, producer_id, 4, LAST)                                                              \
    F(M, INT64, first_offset, 4, LAST)

#define KAFKA_FETCH_PARTITION_ANSWER(F, M)                                                         \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, INT64, high_watermark, 0, LAST)                                                           \
    F(M, INT64, last_stable_offset, 4, LAST, DEFAULT(-1))                                          \
    F(M, INT64, log_start_offset, 5, LAST, DEFAULT(-1))                                            \
    F(M, STRUCT(fetch_diverging), diverging_epoch, 12, LAST, TAG(0))                               \
    F(M, STRUCT(leader), current_leader, 12, LAST, TAG(1))                                         \
    F(M, STRUCT(fetch_snapshot), snapshot_id, 12, LAST, TAG(2))                                    \
    F(M, ARRAY(fetch_aborted), aborted_transactions, 4, LAST, NULLABLE)                            \
    F(M, INT32, preferred_read_replica, 11, LAST, DEFAULT(-1))                                     \
    F(M, RECORDS, records, 0, LAST, NULLABLE)

#define KAFKA_FETCH_TOPIC_ANSWER(F, M)                                                             \
    F(M, STRING, name, 0, 12)                                                                      \
    F(M, UUID, topic_id, 13, LAST)                                                                 \
    F(M, ARRAY(fetch_partition_answer), partitions, 0, LAST)

#define KAFKA_FETCH_RESPONSE(F, M)                                                                 \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, INT16, error_code, 7, LAST)                                                               \
    F(M, INT32, session_id, 7, LAST)                                                               \
    F(M, ARRAY(fetch_topic_answer), topics, 0, LAST)                                               \
    F(M, ARRAY(node_endpoint), node_endpoints, 16, LAST, TAG(0))

/* --- ListOffsets (2) --- */

#define KAFKA_LIST_OFFSETS_PARTITION(F, M)                                                         \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, INT32, current_leader_epoch, 4, LAST, DEFAULT(-1))                                        \
    F(M, INT64, timestamp, 0, LAST)

#define KAFKA_LIST_OFFSETS_TOPIC(F, M)                                                             \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, ARRAY(list_offsets_partition), partitions, 0, LAST)

#define KAFKA_LIST_OFFSETS_REQUEST(F, M)                                                           \
    F(M, INT32, replica_id, 0, LAST)                                                               \
    F(M, INT8, isolation_level, 2, LAST)                                                           \
    F(M, ARRAY(list_offsets_topic), topics, 0, LAST)                                               \
    F(M, INT32, timeout_ms, 10, LAST)

#define KAFKA_LIST_OFFSETS_PARTITION_ANSWER(F, M)                                                  \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, INT64, timestamp, 1, LAST, DEFAULT(-1))                                                   \
    F(M, INT64, offset, 1, LAST, DEFAULT(-1))                                                      \
    F(M, INT32, leader_epoch, 4, LAST, DEFAULT(-1))

#define KAFKA_LIST_OFFSETS_TOPIC_ANSWER(F, M)                                                      \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, ARRAY(list_offsets_partition_answer), partitions, 0, LAST)

#define KAFKA_LIST_OFFSETS_RESPONSE(F, M)                                                          \
    F(M, INT32, throttle_time_ms, 2, LAST)                                                         \
    F(M, ARRAY(list_offsets_topic_answer), topics, 0, LAST)

/* --- Metadata (3) --- */

#define KAFKA_METADATA_TOPIC(F, M)                                                                 \
    F(M, UUID, topic_id, 10, LAST)                                                                 \
    F(M, STRING, name, 0, LAST, NULLABLE_FROM(10))

#define KAFKA_METADATA_REQUEST(F, M)                                                               \
    F(M, ARRAY(metadata_topic), topics, 0, LAST, NULLABLE_FROM(1))                                 \
    F(M, BOOL, allow_auto_topic_creation, 4, LAST, DEFAULT(true))                                  \
    F(M, BOOL, include_cluster_authorized_operations, 8, 10)                                       \
    F(M, BOOL, include_topic_authorized_operations, 8, LAST)

#define KAFKA_METADATA_BROKER(F, M)                                                                \
    F(M, INT32, node_id, 0, LAST)                                                                  \
    F(M, STRING, host, 0, LAST)                                                                    \
    F(M, INT32, port, 0, LAST)                                                                     \
    F(M, STRING, rack, 1, LAST, NULLABLE_FROM(1))

#define KAFKA_METADATA_PARTITION_ANSWER(F, M)                                                      \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, INT32, leader_id, 0, LAST)                                                                \
    F(M, INT32, leader_epoch, 7, LAST, DEFAULT(-1))                                                \
    F(M, INT32S, replicas, 0, LAST)                                                                \
    F(M, INT32S, isr, 0, LAST)                                                                     \
    F(M, INT32S, offline_replicas, 5, LAST)

#define KAFKA_METADATA_TOPIC_ANSWER(F, M)                                                          \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, STRING, name, 0, LAST, NULLABLE_FROM(12))                                                 \
    F(M, UUID, topic_id, 10, LAST)                                                                 \
    F(M, BOOL, is_internal, 1, LAST)                                                               \
    F(M, ARRAY(metadata_partition_answer), partitions, 0, LAST)                                    \
    F(M, INT32, authorized_operations, 8, LAST, DEFAULT(INT32_MIN))

#define KAFKA_METADATA_RESPONSE(F, M)                                                              \
    F(M, INT32, throttle_time_ms, 3, LAST)                                                         \
    F(M, ARRAY(metadata_broker), brokers, 0, LAST)                                                 \
    F(M, STRING, cluster_id, 2, LAST, NULLABLE_FROM(2))                                            \
    F(M, INT32, controller_id, 1, LAST, DEFAULT(-1))                                               \
    F(M, ARRAY(metadata_topic_answer), topics, 0, LAST)                                            \
    F(M, INT32, cluster_authorized_operations, 8, 10, DEFAULT(INT32_MIN))                          \
    F(M, INT16, error_code, 13, LAST)

/* --- FindCoordinator (10) --- */

#define KAFKA_FIND_COORDINATOR_REQUEST(F, M)                                                       \
    F(M, STRING, key, 0, 3)                                                                        \
    F(M, INT8, key_type, 1, LAST)                                                                  \
    F(M, STRINGS, coordinator_keys, 4, LAST)

#define KAFKA_COORDINATOR(F, M)                                                                    \
    F(M, STRING, key, 4, LAST)                                                                     \
    F(M, INT32, node_id, 4, LAST)                                                                  \
    F(M, STRING, host, 4, LAST)                                                                    \
    F(M, INT32, port, 4, LAST)                                                                     \
    F(M, INT16, error_code, 4, LAST)                                                               \
    F(M, STRING, error_message, 4, LAST, NULLABLE)

#define KAFKA_FIND_COORDINATOR_RESPONSE(F, M)                                                      \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, INT16, error_code, 0, 3)                                                                  \
    F(M, STRING, error_message, 1, 3, NULLABLE)                                                    \
    F(M, INT32, node_id, 0, 3)                                                                     \
    F(M, STRING, host, 0, 3)                                                                       \
    F(M, INT32, port, 0, 3)                                                                        \
    F(M, ARRAY(coordinator), coordinators, 4, LAST)

/* --- ApiVersions (18) --- */

#define KAFKA_API_VERSIONS_REQUEST(F, M)                                                           \
    F(M, STRING, client_software_name, 3, LAST)                                                    \
    F(M, STRING, client_software_version, 3, LAST)

#define KAFKA_API_VERSION(F, M)                                                                    \
    F(M, INT16, api_key, 0, LAST)                                                                  \
    F(M, INT16, min_version, 0, LAST)                                                              \
    F(M, INT16, max_version, 0, LAST)

#define KAFKA_SUPPORTED_FEATURE(F, M)                                                              \
    F(M, STRING, name, 3, LAST)                                                                    \
    F(M, INT16, min_version, 3, LAST)                                                              \
    F(M, INT16, max_version, 3, LAST)

#define KAFKA_FINALIZED_FEATURE(F, M)                                                              \
    F(M, STRING, name, 3, LAST)                                                                    \
    F(M, INT16, max_version_level, 3, LAST)                                                        \
    F(M, INT16, min_version_level, 3, LAST)

#define KAFKA_API_VERSIONS_RESPONSE(F, M)                                                          \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, ARRAY(api_version), api_keys, 0, LAST)                                                    \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, ARRAY(supported_feature), supported_features, 3, LAST, TAG(0))                            \
    F(M, INT64, finalized_features_epoch, 3, LAST, TAG(1), DEFAULT(-1))                            \
    F(M, ARRAY(finalized_feature), finalized_features, 3, LAST, TAG(2))                            \
    F(M, BOOL, zk_migration_ready, 3, LAST, TAG(3))

/* --- InitProducerId (22) --- */

#define KAFKA_INIT_PRODUCER_ID_REQUEST(F, M)                                                       \
    F(M, STRING, transactional_id, 0, LAST, NULLABLE)                                              \
    F(M, INT32, transaction_timeout_ms, 0, LAST)                                                   \
    F(M, INT64, producer_id, 3, LAST, DEFAULT(-1))                                                 \
    F(M, INT16, producer_epoch, 3, LAST, DEFAULT(-1))

#define KAFKA_INIT_PRODUCER_ID_RESPONSE(F, M)                                                      \
    F(M, INT32, throttle_time_ms, 0, LAST)                                                         \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, INT64, producer_id, 0, LAST, DEFAULT(-1))                                                 \
    F(M, INT16, producer_epoch, 0, LAST)

#define KAFKA_DATA_MESSAGES(X)                                                                     \
    X(produce_partition, KAFKA_PRODUCE_PARTITION)                                                  \
    X(produce_topic, KAFKA_PRODUCE_TOPIC)                                                          \
    X(produce_request, KAFKA_PRODUCE_REQUEST)                                                      \
    X(leader, KAFKA_LEADER)                                                                        \
    X(node_endpoint, KAFKA_NODE_ENDPOINT)                                                          \
    X(produce_record_error, KAFKA_PRODUCE_RECORD_ERROR)                                            \
    X(produce_partition_answer, KAFKA_PRODUCE_PARTITION_ANSWER)                                    \
    X(produce_topic_answer, KAFKA_PRODUCE_TOPIC_ANSWER)                                            \
    X(produce_response, KAFKA_PRODUCE_RESPONSE)                                                    \
    X(fetch_partition, KAFKA_FETCH_PARTITION)                                                      \
    X(fetch_topic, KAFKA_FETCH_TOPIC)                                                              \
    X(fetch_forgotten, KAFKA_FETCH_FORGOTTEN)                                                      \
    X(fetch_replica, KAFKA_FETCH_REPLICA)                                                          \
    X(fetch_request, KAFKA_FETCH_REQUEST)                                                          \
    X(fetch_diverging, KAFKA_FETCH_DIVERGING)                                                      \
    X(fetch_snapshot, KAFKA_FETCH_SNAPSHOT)                                                        \
    X(fetch_aborted, KAFKA_FETCH_ABORTED)                                                          \
    X(fetch_partition_answer, KAFKA_FETCH_PARTITION_ANSWER)                                        \
    X(fetch_topic_answer, KAFKA_FETCH_TOPIC_ANSWER)                                                \
    X(fetch_response, KAFKA_FETCH_RESPONSE)                                                        \
    X(list_offsets_partition, KAFKA_LIST_OFFSETS_PARTITION)                                        \
    X(list_offsets_topic, KAFKA_LIST_OFFSETS_TOPIC)                                                \
    X(list_offsets_request, KAFKA_LIST_OFFSETS_REQUEST)                                            \
    X(list_offsets_partition_answer, KAFKA_LIST_OFFSETS_PARTITION_ANSWER)                          \
    X(list_offsets_topic_answer, KAFKA_LIST_OFFSETS_TOPIC_ANSWER)                                  \
    X(list_offsets_response, KAFKA_LIST_OFFSETS_RESPONSE)                                          \
    X(metadata_topic, KAFKA_METADATA_TOPIC)                                                        \
    X(metadata_request, KAFKA_METADATA_REQUEST)                                                    \
    X(metadata_broker, KAFKA_METADATA_BROKER)                                                      \
    X(metadata_partition_answer, KAFKA_METADATA_PARTITION_ANSWER)                                  \
    X(metadata_topic_answer, KAFKA_METADATA_TOPIC_ANSWER)                                          \
    X(metadata_response, KAFKA_METADATA_RESPONSE)                                                  \
    X(find_coordinator_request, KAFKA_FIND_COORDINATOR_REQUEST)                                    \
    X(coordinator, KAFKA_COORDINATOR)                                                              \
    X(find_coordinator_response, KAFKA_FIND_COORDINATOR_RESPONSE)                                  \
    X(api_versions_request, KAFKA_API_VERSIONS_REQUEST)                                            \
    X(api_version, KAFKA_API_VERSION)                                                              \
    X(supported_feature, KAFKA_SUPPORTED_FEATURE)                                                  \
    X(finalized_feature, KAFKA_FINALIZED_FEATURE)                                                  \
    X(api_versions_response, KAFKA_API_VERSIONS_RESPONSE)                                          \
    X(init_producer_id_request, KAFKA_INIT_PRODUCER_ID_REQUEST)                                    \
    X(init_producer_id_response, KAFKA_INIT_PRODUCER_ID_RESPONSE)

KAFKA_DATA_MESSAGES(KAFKA_STRUCT)

#endif
