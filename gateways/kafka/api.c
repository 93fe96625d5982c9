#include "gateways/kafka/api.h"

#include <stddef.h>

#include "gateways/kafka/errors.h"
#include "gateways/kafka/group_api.h"
#include "gateways/kafka/schema_config.h"
#include "gateways/kafka/schema_data.h"
#include "gateways/kafka/schema_group.h"
#include "gateways/kafka/schema_topics.h"

enum { NEVER = 0x7fff };

/* key, name, first and last version served, first flexible version, messages and handler, then
 * what differs. Produce and JoinGroup are advertised from 0 on: older librdkafka takes a
 * higher start for a broker without compression (KAFKA-18659), older clients of other kinds
 * for one without groups (KAFKA-19444). */
#define ROW(the_key, the_name, first, last, flexible, message, ...)                                \
    {                                                                                              \
        .name = #the_name, .key = (the_key), .min = (first), .max = (last),                        \
        .advertised_min = (first), .flex = (flexible),                                             \
        .request = &kafka_##message##_request_schema,                                              \
        .response = &kafka_##message##_response_schema, .handle = kafka_##message, __VA_ARGS__     \
    }

static const struct kafka_api apis[] = {
    { .name = "Produce",
      .key = 0,
      .min = 3,
      .max = 13,
      .advertised_min = 0,
      .flex = 9,
      .request = &kafka_produce_request_schema,
      .response = &kafka_produce_response_schema,
      .handle = kafka_produce },
    ROW(1, Fetch, 4, 18, 12, fetch),
    ROW(2, ListOffsets, 1, 11, 6, list_offsets),
    ROW(3, Metadata, 0, 13, 9, metadata),
    ROW(8, OffsetCommit, 2, 10, 8, offset_commit),
    ROW(9, OffsetFetch, 1, 10, 6, offset_fetch),
    ROW(10, FindCoordinator, 0, 6, 3, find_coordinator),
    ROW(11, JoinGroup, 0, 9, 6, join_group),
    ROW(12, Heartbeat, 0, 4, 4, heartbeat),
    ROW(13, LeaveGroup, 0, 5, 4, leave_group),
    ROW(14, SyncGroup, 0, 5, 4, sync_group),
    ROW(15, DescribeGroups, 0, 6, 5, describe_groups),
    ROW(16, ListGroups, 0, 5, 3, list_groups),
    ROW(KAFKA_API_VERSIONS_KEY, ApiVersions, 0, 4, 3, api_versions),
    ROW(19, CreateTopics, 2, 7, 5, create_topics),
    ROW(20, DeleteTopics, 1, 6, 4, delete_topics),
    ROW(21, DeleteRecords, 0, 2, 2, delete_records),
    ROW(22, InitProducerId, 0, 5, 2, init_producer_id),
    ROW(32, DescribeConfigs, 1, 4, 4, describe_configs),
    ROW(33, AlterConfigs, 0, 2, 2, alter_configs),
    ROW(37, CreatePartitions, 0, 3, 2, create_partitions),
    ROW(42, DeleteGroups, 0, 2, 2, delete_groups),
    ROW(44, IncrementalAlterConfigs, 0, 1, 1, incremental_alter_configs),
    ROW(47, OffsetDelete, 0, 0, NEVER, offset_delete),
};

enum { N_APIS = sizeof apis / sizeof apis[0] };

const struct kafka_api *kafka_api_at(unsigned i)
{
    return i < N_APIS ? &apis[i] : NULL;
}

const struct kafka_api *kafka_api_find(int16_t key)
{
    for (unsigned i = 0; i < N_APIS; i++)
        if (apis[i].key == key)
            return &apis[i];
    return NULL;
}

static void answer_versions(struct kafka_request *r, int16_t error)
{
    struct kafka_api_versions_response *a = kafka_response_new(r);

    if (!a)
        return;
    a->error_code = error;
    a->api_keys.at = KAFKA_ANSWERS(r, api_version, N_APIS);
    if (!a->api_keys.at)
        return;
    a->api_keys.n = N_APIS;
    for (unsigned i = 0; i < N_APIS; i++) {
        a->api_keys.at[i].api_key = apis[i].key;
        a->api_keys.at[i].min_version = apis[i].advertised_min;
        a->api_keys.at[i].max_version = apis[i].max;
    }
    kafka_answer(r, a);
}

void kafka_api_versions(struct kafka_request *r)
{
    answer_versions(r, KAFKA_NONE);
}

void kafka_api_versions_unknown(struct kafka_request *r)
{
    r->form = (struct kafka_form){ .version = 0 };
    answer_versions(r, KAFKA_UNSUPPORTED_VERSION);
}
