/* Messages of settings and of what they would do by themselves: DescribeConfigs, AlterConfigs,
 * IncrementalAlterConfigs, DeleteRecords. Source: the protocol's message definitions, Kafka 4.2. */
#ifndef WEIR_GATEWAYS_KAFKA_SCHEMA_CONFIG_H
#define WEIR_GATEWAYS_KAFKA_SCHEMA_CONFIG_H

#include "gateways/kafka/schema.h"

/* --- DeleteRecords (21) --- */

#define KAFKA_DELETE_RECORDS_PARTITION(F, M)                                                       \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, INT64, offset, 0, LAST)

#define KAFKA_DELETE_RECORDS_TOPIC(F, M)                                                           \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, ARRAY(delete_records_partition), partitions, 0, LAST)

#define KAFKA_DELETE_RECORDS_REQUEST(F, M)                                                         \
    F(M, ARRAY(delete_records_topic), topics, 0, LAST)                                             \
    F(M, INT32, timeout_ms, 0, LAST)

#define KAFKA_DELETE_RECORDS_PARTITION_ANSWER(F, M)                                                \
    F(M, INT32, index, 0, LAST)                                                                    \
    F(M, INT64, low_watermark, 0, LAST)                                                            \
    F(M, INT16, error_code, 0, LAST)

#define KAFKA_DELETE_RECORDS_TOPIC_ANSWER(F, M)                                                    \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, ARRAY(delete_records_partition_answer), partitions, 0, LAST)

#define KAFKA_DELETE_RECORDS_RESPONSE(F, M)                                                        \
    F(M, INT32, throttle_time_ms, 0, LAST)                                                         \
    F(M, ARRAY(delete_records_topic_answer), topics, 0, LAST)

/* --- DescribeConfigs (32) --- */

#define KAFKA_DESCRIBE_CONFIGS_RESOURCE(F, M)                                                      \
    F(M, INT8, resource_type, 0, LAST)                                                             \
    F(M, STRING, resource_name, 0, LAST)                                                           \
    F(M, STRINGS, configuration_keys, 0, LAST, NULLABLE)

#define KAFKA_DESCRIBE_CONFIGS_REQUEST(F, M)                                                       \
    F(M, ARRAY(describe_configs_resource), resources, 0, LAST)                                     \
    F(M, BOOL, include_synonyms, 1, LAST)                                                          \
    F(M, BOOL, include_documentation, 3, LAST)

#define KAFKA_DESCRIBE_CONFIGS_SYNONYM(F, M)                                                       \
    F(M, STRING, name, 1, LAST)                                                                    \
    F(M, STRING, value, 1, LAST, NULLABLE)                                                         \
    F(M, INT8, source, 1, LAST)

#define KAFKA_DESCRIBE_CONFIGS_CONFIG(F, M)                                                        \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, STRING, value, 0, LAST, NULLABLE)                                                         \
    F(M, BOOL, read_only, 0, LAST)                                                                 \
    F(M, INT8, config_source, 1, LAST, DEFAULT(-1))                                                \
    F(M, BOOL, is_sensitive, 0, LAST)                                                              \
    F(M, ARRAY(describe_configs_synonym), synonyms, 1, LAST)                                       \
    F(M, INT8, config_type, 3, LAST)                                                               \
    F(M, STRING, documentation, 3, LAST, NULLABLE)

#define KAFKA_DESCRIBE_CONFIGS_RESULT(F, M)                                                        \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, STRING, error_message, 0, LAST, NULLABLE)                                                 \
    F(M, INT8, resource_type, 0, LAST)                                                             \
    F(M, STRING, resource_name, 0, LAST)                                                           \
    F(M, ARRAY(describe_configs_config), configs, 0, LAST)

#define KAFKA_DESCRIBE_CONFIGS_RESPONSE(F, M)                                                      \
    F(M, INT32, throttle_time_ms, 0, LAST)                                                         \
    F(M, ARRAY(describe_configs_result), results, 0, LAST)

/* --- AlterConfigs (33) --- */

#define KAFKA_ALTER_CONFIGS_CONFIG(F, M)                                                           \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, STRING, value, 0, LAST, NULLABLE)

#define KAFKA_ALTER_CONFIGS_RESOURCE(F, M)                                                         \
    F(M, INT8, resource_type, 0, LAST)                                                             \
    F(M, STRING, resource_name, 0, LAST)                                                           \
    F(M, ARRAY(alter_configs_config), configs, 0, LAST)

#define KAFKA_ALTER_CONFIGS_REQUEST(F, M)                                                          \
    F(M, ARRAY(alter_configs_resource), resources, 0, LAST)                                        \
    F(M, BOOL, validate_only, 0, LAST)

#define KAFKA_ALTER_CONFIGS_ANSWER(F, M)                                                           \
    F(M, INT16, error_code, 0, LAST)                                                               \
    F(M, STRING, error_message, 0, LAST, NULLABLE)                                                 \
    F(M, INT8, resource_type, 0, LAST)                                                             \
    F(M, STRING, resource_name, 0, LAST)

#define KAFKA_ALTER_CONFIGS_RESPONSE(F, M)                                                         \
    F(M, INT32, throttle_time_ms, 0, LAST)                                                         \
    F(M, ARRAY(alter_configs_answer), responses, 0, LAST)

/* --- IncrementalAlterConfigs (44) --- */

#define KAFKA_INCREMENTAL_CONFIG(F, M)                                                             \
    F(M, STRING, name, 0, LAST)                                                                    \
    F(M, INT8, config_operation, 0, LAST)                                                          \
    F(M, STRING, value, 0, LAST, NULLABLE)

#define KAFKA_INCREMENTAL_RESOURCE(F, M)                                                           \
    F(M, INT8, resource_type, 0, LAST)                                                             \
    F(M, STRING, resource_name, 0, LAST)                                                           \
    F(M, ARRAY(incremental_config), configs, 0, LAST)

#define KAFKA_INCREMENTAL_ALTER_CONFIGS_REQUEST(F, M)                                              \
    F(M, ARRAY(incremental_resource), resources, 0, LAST)                                          \
    F(M, BOOL, validate_only, 0, LAST)

#define KAFKA_INCREMENTAL_ALTER_CONFIGS_RESPONSE(F, M)                                             \
    F(M, INT32, throttle_time_ms, 0, LAST)                                                         \
    F(M, ARRAY(alter_configs_answer), responses, 0, LAST)

#define KAFKA_CONFIG_MESSAGES(X)                                                                   \
    X(delete_records_partition, KAFKA_DELETE_RECORDS_PARTITION)                                    \
    X(delete_records_topic, KAFKA_DELETE_RECORDS_TOPIC)                                            \
    X(delete_records_request, KAFKA_DELETE_RECORDS_REQUEST)                                        \
    X(delete_records_partition_answer, KAFKA_DELETE_RECORDS_PARTITION_ANSWER)                      \
    X(delete_records_topic_answer, KAFKA_DELETE_RECORDS_TOPIC_ANSWER)                              \
    X(delete_records_response, KAFKA_DELETE_RECORDS_RESPONSE)                                      \
    X(describe_configs_resource, KAFKA_DESCRIBE_CONFIGS_RESOURCE)                                  \
    X(describe_configs_request, KAFKA_DESCRIBE_CONFIGS_REQUEST)                                    \
    X(describe_configs_synonym, KAFKA_DESCRIBE_CONFIGS_SYNONYM)                                    \
    X(describe_configs_config, KAFKA_DESCRIBE_CONFIGS_CONFIG)                                      \
    X(describe_configs_result, KAFKA_DESCRIBE_CONFIGS_RESULT)                                      \
    X(describe_configs_response, KAFKA_DESCRIBE_CONFIGS_RESPONSE)                                  \
    X(alter_configs_config, KAFKA_ALTER_CONFIGS_CONFIG)                                            \
    X(alter_configs_resource, KAFKA_ALTER_CONFIGS_RESOURCE)                                        \
    X(alter_configs_request, KAFKA_ALTER_CONFIGS_REQUEST)                                          \
    X(alter_configs_answer, KAFKA_ALTER_CONFIGS_ANSWER)                                            \
    X(alter_configs_response, KAFKA_ALTER_CONFIGS_RESPONSE)                                        \
    X(incremental_config, KAFKA_INCREMENTAL_CONFIG)                                                \
    X(incremental_resource, KAFKA_INCREMENTAL_RESOURCE)                                            \
    X(incremental_alter_configs_request, KAFKA_INCREMENTAL_ALTER_CONFIGS_REQUEST)                  \
    X(incremental_alter_configs_response, KAFKA_INCREMENTAL_ALTER_CONFIGS_RESPONSE)

KAFKA_CONFIG_MESSAGES(KAFKA_STRUCT)

#endif
