/* Messages of consumer groups and their offsets.
 * Source: the protocol's message definitions, Kafka 4.2. */
#ifndef WEIR_GATEWAYS_KAFKA_SCHEMA_GROUP_H
#define WEIR_GATEWAYS_KAFKA_SCHEMA_GROUP_H

#include "gateways/kafka/schema.h"

/* --- OffsetCommit (8) --- */

#define KAFKA_OFFSET_COMMIT_PARTITION(F, M)                                                        \
    F(M, INT32, partition_index, 0, LAST)                                                          \
    F(M, INT64, committed_offset, 0, LAST)                                                         \
    F(M, INT32, committed_leader_epoch, 6, LAST, DEFAULT(-1))                                      \
    F(M, STRING, committed_metadata, 0, LAST, NULLABLE)

#define KAFKA_OFFSET_COMMIT_TOPIC(F, M)                                                            \
    F(M, STRING, name, 0, 9)                                                                       \
    F(M, UUID, topic_id, 10, LAST)                                                                 \
    F(M, ARRAY(offset_commit_partition), partitions, 0, LAST)

#define KAFKA_OFFSET_COMMIT_REQUEST(F, M)                                                          \
    F(M, STRING, group_id, 0, LAST)                                                                \
    F(M, INT32, generation_id, 1, LAST, DEFAULT(-1))                                               \
    F(M, STRING, member_id, 1, LAST)                                                               \
    F(M, STRING, group_instance_id, 7, LAST, NULLABLE)                                             \
    F(M, INT64, retention_time_ms, 2, 4, DEFAULT(-1))                                              \
    F(M, ARRAY(offset_commit_topic), topics, 0, LAST)

#define KAFKA_OFFSET_COMMITTED_PARTITION(F, M)                                                     \
    F(M, INT32, partition_index, 0, LAST)                                                          \
    F(M, INT16, error_code, 0, LAST)

#define KAFKA_OFFSET_COMMITTED_TOPIC(F, M)                                                         \
    F(M, STRING, name, 0, 9)                                                                       \
    F(M, UUID, topic_id, 10, LAST)                                                                 \
    F(M, ARRAY(offset_committed_partition), partitions, 0, LAST)

#define KAFKA_OFFSET_COMMIT_RESPONSE(F, M)                                                         \
    F(M, INT32, throttle_time_ms, 3, LAST)                                                         \
    F(M, ARRAY(offset_committed_topic), topics, 0, LAST)

/* --- OffsetFetch (9): one group up to version 7, several from 8 on --- */

#define KAFKA_OFFSET_FETCH_TOPIC(F, M)                                                             \
    F(M, STRING, name, 0, 9)                                                                       \
    F(M, UUID, topic_id, 10, LAST)                                                                 \
    F(M, INT32S, partition_indexes, 0, LAST)

#define KAFKA_OFFSET_FETCH_GROUP(F, M)                                                             \
    F(M, STRING, group_id, 8, LAST)                                                                \
    F(M, STRING, member_id, 9, LAST, NULLABLE)                                                     \
    F(M, INT32, member_epoch, 9, LAST, DEFAULT(-1))                                                \
    F(M, ARRAY(offset_fetch_topic), topics, 8, LAST, NULLABLE)

#define KAFKA_OFFSET_FETCH_REQUEST(F, M)                                                           \
    F(M, STRING, group_id, 0, 7)                                                                   \
    F(M, ARRAY(offset_fetch_topic), topics, 0, 7, NULLABLE_FROM(2))                                \
    F(M, ARRAY(offset_fetch_group), groups, 8, LAST)                                               \
    F(M, BOOL, require_stable, 7, LAST)

#define KAFKA_OFFSET_FETCHED_PARTITION(F, M)                                                       \
    F(M, INT32, partition_index, 0, LAST)                                                          \
    F(M, INT64, committed_offset, 0, LAST)                                                         \
    F(M, INT32, committed_leader_epoch, 5, LAST, DEFAULT(-1))                                      \
    F(M, STRING, metadata, 0, LAST, NULLABLE)                                                      \
    F(M, INT16, error_code, 0, LAST)

#define KAFKA_OFFSET_FETCHED_TOPIC(F, M)                                                           \
    F(M, STRING, name, 0, 9)                                                                       \
    F(M, UUID, topic_id, 10, LAST)                                                                 \
    F(M, ARRAY(offset_fetched_partition), partitions, 0, LAST)

#define KAFKA_OFFSET_FETCHED_GROUP(F, M)                                                           \
    F(M, STRING, group_id, 8, LAST)                                                                \
    F(M, ARRAY(offset_fetched_topic), topics, 8, LAST)                                             \
    F(M, INT16, error_code, 8, LAST)

#define KAFKA_OFFSET_FETCH_RESPONSE(F, M)                                                          \
    F(M, INT32, throttle_time_ms, 3, LAST)                                                         \
    F(M, ARRAY(offset_fetched_topic), topics, 0, 7)                                                \
    F(M, INT16, error_code, 2, 7)                                                                  \
    F(M, ARRAY(offset_fetched_group), groups, 8, LAST)

/* --- JoinGroup (11) --- */

#define KAFKA_JOIN_GROUP_PROTOCOL(F, M)                                                            \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, BYTES, metadata, 0, LAST)

#define KAFKA_JOIN_GROUP_REQUEST(F, M)                                                             \
    F(M, STRING, group_id, 0, LAST)                                                                \
    F(M, INT32, session_timeout_ms, 0, LAST)                                                       \
    F(M, INT32, rebalance_timeout_ms, 1, LAST, DEFAULT(-1))                                        \
    F(M, STRING, member_id, 0, LAST)                                                               \
    F(M, STRING, group_instance_id, 5, LAST, NULLABLE)                                             \
    F(M, STRING, protocol_type, 0, LAST)                                                           \
    F(M, ARRAY(join_group_protocol), protocols, 0, LAST)                                           \
    F(M, STRING, reason, 8, LAST, NULLABLE)

#define KAFKA_JOIN_GROUP_MEMBER(F, M)                                                              \
    F(M, STRING, member_id, 0, LAST)                                                               \
    F(M, STRING, group_instance_id, 5, LAST, NULLABLE)                                             \
    F(M, BYTES, metadata, 0, LAST)

#define KAFKA_JOIN_GROUP_RESPONSE(F, M)                                                            \
    F(M, INT32, throttle_time_ms, 2, LAST)                                                         \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, INT32, generation_id, 0, LAST, DEFAULT(-1))                                               \
    F(M, STRING, protocol_type, 7, LAST, NULLABLE)                                                 \
    F(M, STRING, protocol_name, 0, LAST, NULLABLE_FROM(7))                                         \
    F(M, STRING, leader, 0, LAST)                                                                  \
    F(M, BOOL, skip_assignment, 9, LAST)                                                           \
    F(M, STRING, member_id, 0, LAST)                                                               \
    F(M, ARRAY(join_group_member), members, 0, LAST)

/* --- Heartbeat (12) --- */

#define KAFKA_HEARTBEAT_REQUEST(F, M)                                                              \
    F(M, STRING, group_id, 0, LAST)                                                                \
    F(M, INT32, generation_id, 0, LAST)                                                            \
    F(M, STRING, member_id, 0, LAST)                                                               \
    F(M, STRING, group_instance_id, 3, LAST, NULLABLE)

#define KAFKA_HEARTBEAT_RESPONSE(F, M)                                                             \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, INT16, error_code, 0, LAST)

/* --- LeaveGroup (13): one member up to version 2, several from 3 on --- */

#define KAFKA_LEAVE_GROUP_MEMBER(F, M)                                                             \
    F(M, STRING, member_id, 3, LAST)                                                               \
    F(M, STRING, group_instance_id, 3, LAST, NULLABLE)                                             \
    F(M, STRING, reason, 5, LAST, NULLABLE)

#define KAFKA_LEAVE_GROUP_REQUEST(F, M)                                                            \
    F(M, STRING, group_id, 0, LAST)                                                                \
    F(M, STRING, member_id, 0, 2)                                                                  \
    F(M, ARRAY(leave_group_member), members, 3, LAST)

#define KAFKA_LEFT_GROUP_MEMBER(F, M)                                                              \
    F(M, STRING, member_id, 3, LAST)                                                               \
    F(M, STRING, group_instance_id, 3, LAST, NULLABLE)                                             \
    F(M, INT16, error_code, 3, LAST)

#define KAFKA_LEAVE_GROUP_RESPONSE(F, M)                                                           \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, ARRAY(left_group_member), members, 3, LAST)

/* --- SyncGroup (14) --- */

#define KAFKA_SYNC_GROUP_ASSIGNMENT(F, M)                                                          \
    F(M, STRING, member_id, 0, LAST)                                                               \
    F(M, BYTES, assignment, 0, LAST)

#define KAFKA_SYNC_GROUP_REQUEST(F, M)                                                             \
    F(M, STRING, group_id, 0, LAST)                                                                \
    F(M, INT32, generation_id, 0, LAST)                                                            \
    F(M, STRING, member_id, 0, LAST)                                                               \
    F(M, STRING, group_instance_id, 3, LAST, NULLABLE)                                             \
    F(M, STRING, protocol_type, 5, LAST, NULLABLE)                                                 \
    F(M, STRING, protocol_name, 5, LAST, NULLABLE)                                                 \
    F(M, ARRAY(sync_group_assignment), assignments, 0, LAST)

#define KAFKA_SYNC_GROUP_RESPONSE(F, M)                                                            \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, STRING, protocol_type, 5, LAST, NULLABLE)                                                 \
    F(M, STRING, protocol_name, 5, LAST, NULLABLE)                                                 \
    F(M, BYTES, assignment, 0, LAST)

/* --- DescribeGroups (15) --- */

#define KAFKA_DESCRIBE_GROUPS_REQUEST(F, M)                                                        \
    F(M, STRINGS, groups, 0, LAST)                                                                 \
    F(M, BOOL, include_authorized_operations, 3, LAST)

#define KAFKA_DESCRIBED_MEMBER(F, M)                                                               \
    F(M, STRING, member_id, 0, LAST)                                                               \
    F(M, STRING, group_instance_id, 4, LAST, NULLABLE)                                             \
    F(M, STRING, client_id, 0, LAST)                                                               \
    F(M, STRING, client_host, 0, LAST)                                                             \
    F(M, BYTES, member_metadata, 0, LAST)                                                          \
    F(M, BYTES, member_assignment, 0, LAST)

#define KAFKA_DESCRIBED_GROUP(F, M)                                                                \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, STRING, error_message, 6, LAST, NULLABLE)                                                 \
    F(M, STRING, group_id, 0, LAST)                                                                \
    F(M, STRING, group_state, 0, LAST)                                                             \
    F(M, STRING, protocol_type, 0, LAST)                                                           \
    F(M, STRING, protocol_data, 0, LAST)                                                           \
    F(M, ARRAY(described_member), members, 0, LAST)                                                \
    F(M, INT32, authorized_operations, 3, LAST, DEFAULT(INT32_MIN))

#define KAFKA_DESCRIBE_GROUPS_RESPONSE(F, M)                                                       \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, ARRAY(described_group), groups, 0, LAST)

/* --- ListGroups (16) --- */

#define KAFKA_LIST_GROUPS_REQUEST(F, M)                                                            \
    F(M, STRINGS, states_filter, 4, LAST)                                                          \
    F(M, STRINGS, types_filter, 5, LAST)

#define KAFKA_LISTED_GROUP(F, M)                                                                   \
    F(M, STRING, group_id, 0, LAST)                                                                \
    F(M, STRING, protocol_type, 0, LAST)                                                           \
    F(M, STRING, group_state, 4, LAST)                                                             \
    F(M, STRING, group_type, 5, LAST)

#define KAFKA_LIST_GROUPS_RESPONSE(F, M)                                                           \
    F(M, INT32, throttle_time_ms, 1, LAST)                                                         \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, ARRAY(listed_group), groups, 0, LAST)

/* --- DeleteGroups (42) --- */

#define KAFKA_DELETE_GROUPS_REQUEST(F, M) F(M, STRINGS, groups_names, 0, LAST)

#define KAFKA_DELETED_GROUP(F, M)                                                                  \
    F(M, STRING, group_id, 0, LAST)                                                                \
    F(M, INT16, error_code, 0, LAST)

#define KAFKA_DELETE_GROUPS_RESPONSE(F, M)                                                         \
    F(M, INT32, throttle_time_ms, 0, LAST)                                                         \
    F(M, ARRAY(deleted_group), results, 0, LAST)

/* --- OffsetDelete (47) --- */

#define KAFKA_OFFSET_DELETE_PARTITION(F, M) F(M, INT32, partition_index, 0, LAST)

#define KAFKA_OFFSET_DELETE_TOPIC(F, M)                                                            \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, ARRAY(offset_delete_partition), partitions, 0, LAST)

#define KAFKA_OFFSET_DELETE_REQUEST(F, M)                                                          \
    F(M, STRING, group_id, 0, LAST)                                                                \
    F(M, ARRAY(offset_delete_topic), topics, 0, LAST)

#define KAFKA_OFFSET_DELETED_PARTITION(F, M)                                                       \
    F(M, INT32, partition_index, 0, LAST)                                                          \
    F(M, INT16, error_code, 0, LAST)

#define KAFKA_OFFSET_DELETED_TOPIC(F, M)                                                           \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, ARRAY(offset_deleted_partition), partitions, 0, LAST)

#define KAFKA_OFFSET_DELETE_RESPONSE(F, M)                                                         \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, INT32, throttle_time_ms, 0, LAST)                                                         \
    F(M, ARRAY(offset_deleted_topic), topics, 0, LAST)

#define KAFKA_GROUP_MESSAGES(X)                                                                    \
    X(offset_commit_partition, KAFKA_OFFSET_COMMIT_PARTITION)                                      \
    X(offset_commit_topic, KAFKA_OFFSET_COMMIT_TOPIC)                                              \
    X(offset_commit_request, KAFKA_OFFSET_COMMIT_REQUEST)                                          \
    X(offset_committed_partition, KAFKA_OFFSET_COMMITTED_PARTITION)                                \
    X(offset_committed_topic, KAFKA_OFFSET_COMMITTED_TOPIC)                                        \
    X(offset_commit_response, KAFKA_OFFSET_COMMIT_RESPONSE)                                        \
    X(offset_fetch_topic, KAFKA_OFFSET_FETCH_TOPIC)                                                \
    X(offset_fetch_group, KAFKA_OFFSET_FETCH_GROUP)                                                \
    X(offset_fetch_request, KAFKA_OFFSET_FETCH_REQUEST)                                            \
    X(offset_fetched_partition, KAFKA_OFFSET_FETCHED_PARTITION)                                    \
    X(offset_fetched_topic, KAFKA_OFFSET_FETCHED_TOPIC)                                            \
    X(offset_fetched_group, KAFKA_OFFSET_FETCHED_GROUP)                                            \
    X(offset_fetch_response, KAFKA_OFFSET_FETCH_RESPONSE)                                          \
    X(join_group_protocol, KAFKA_JOIN_GROUP_PROTOCOL)                                              \
    X(join_group_request, KAFKA_JOIN_GROUP_REQUEST)                                                \
    X(join_group_member, KAFKA_JOIN_GROUP_MEMBER)                                                  \
    X(join_group_response, KAFKA_JOIN_GROUP_RESPONSE)                                              \
    X(heartbeat_request, KAFKA_HEARTBEAT_REQUEST)                                                  \
    X(heartbeat_response, KAFKA_HEARTBEAT_RESPONSE)                                                \
    X(leave_group_member, KAFKA_LEAVE_GROUP_MEMBER)                                                \
    X(leave_group_request, KAFKA_LEAVE_GROUP_REQUEST)                                              \
    X(left_group_member, KAFKA_LEFT_GROUP_MEMBER)                                                  \
    X(leave_group_response, KAFKA_LEAVE_GROUP_RESPONSE)                                            \
    X(sync_group_assignment, KAFKA_SYNC_GROUP_ASSIGNMENT)                                          \
    X(sync_group_request, KAFKA_SYNC_GROUP_REQUEST)                                                \
    X(sync_group_response, KAFKA_SYNC_GROUP_RESPONSE)                                              \
    X(describe_groups_request, KAFKA_DESCRIBE_GROUPS_REQUEST)                                      \
    X(described_member, KAFKA_DESCRIBED_MEMBER)                                                    \
    X(described_group, KAFKA_DESCRIBED_GROUP)                                                      \
    X(describe_groups_response, KAFKA_DESCRIBE_GROUPS_RESPONSE)                                    \
    X(list_groups_request, KAFKA_LIST_GROUPS_REQUEST)                                              \
    X(listed_group, KAFKA_LISTED_GROUP)                                                            \
    X(list_groups_response, KAFKA_LIST_GROUPS_RESPONSE)                                            \
    X(delete_groups_request, KAFKA_DELETE_GROUPS_REQUEST)                                          \
    X(deleted_group, KAFKA_DELETED_GROUP)                                                          \
    X(delete_groups_response, KAFKA_DELETE_GROUPS_RESPONSE)                                        \
    X(offset_delete_partition, KAFKA_OFFSET_DELETE_PARTITION)                                      \
    X(offset_delete_topic, KAFKA_OFFSET_DELETE_TOPIC)                                              \
    X(offset_delete_request, KAFKA_OFFSET_DELETE_REQUEST)                                          \
    X(offset_deleted_partition, KAFKA_OFFSET_DELETED_PARTITION)                                    \
    X(offset_deleted_topic, KAFKA_OFFSET_DELETED_TOPIC)                                            \
    X(offset_delete_response, KAFKA_OFFSET_DELETE_RESPONSE)

KAFKA_GROUP_MESSAGES(KAFKA_STRUCT)

#endif
