/* One row per API: from it follow the ApiVersions answer and the dispatch. */
#ifndef WEIR_GATEWAYS_KAFKA_API_H
#define WEIR_GATEWAYS_KAFKA_API_H

#include <stdint.h>

#include "gateways/kafka/request.h"
#include "gateways/kafka/schema.h"

struct kafka_api {
    const char *name;
    int16_t key;
    int16_t min, max;       /* served */
    int16_t advertised_min; /* what ApiVersions says: lower where clients depend on it */
    int16_t flex;           /* first flexible version */
    const struct schema *request, *response;
    void (*handle)(struct kafka_request *r);
};

enum { KAFKA_API_VERSIONS_KEY = 18 };

/* NULL: not served. */
const struct kafka_api *kafka_api_find(int16_t key);
/* The i'th row, NULL past the last. */
const struct kafka_api *kafka_api_at(unsigned i);

/* Handlers, one file each. */
void kafka_produce(struct kafka_request *r);
void kafka_fetch(struct kafka_request *r);
void kafka_list_offsets(struct kafka_request *r);
void kafka_metadata(struct kafka_request *r);
void kafka_create_topics(struct kafka_request *r);
void kafka_delete_topics(struct kafka_request *r);
void kafka_create_partitions(struct kafka_request *r);
void kafka_delete_records(struct kafka_request *r);
void kafka_describe_configs(struct kafka_request *r);
void kafka_alter_configs(struct kafka_request *r);
void kafka_incremental_alter_configs(struct kafka_request *r);
void kafka_find_coordinator(struct kafka_request *r);
void kafka_init_producer_id(struct kafka_request *r);
void kafka_api_versions(struct kafka_request *r);
/* ApiVersions in a version that we do not know: what we know, in the oldest form. */
void kafka_api_versions_unknown(struct kafka_request *r);

#endif
