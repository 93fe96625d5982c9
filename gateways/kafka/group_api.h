/* Handlers of the consumer group APIs (group_api.c) and of committed offsets (offset_api.c). Groups
 * and offsets live on the door's home loop: a request goes there and its answer comes back. */
#ifndef WEIR_GATEWAYS_KAFKA_GROUP_API_H
#define WEIR_GATEWAYS_KAFKA_GROUP_API_H

#include "gateways/kafka/consumer_group.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/offsets.h"
#include "gateways/kafka/request.h"
#include "gateways/kafka/schema_group.h"

void kafka_join_group(struct kafka_request *r);
void kafka_sync_group(struct kafka_request *r);
void kafka_heartbeat(struct kafka_request *r);
void kafka_leave_group(struct kafka_request *r);
void kafka_describe_groups(struct kafka_request *r);
void kafka_list_groups(struct kafka_request *r);
void kafka_delete_groups(struct kafka_request *r);

void kafka_offset_commit(struct kafka_request *r);
void kafka_offset_fetch(struct kafka_request *r);
void kafka_offset_delete(struct kafka_request *r);

/* --- for both files --- */

/* A request on its way over home. On home only the request's arena is used, and nothing that
 * answers. */
struct kafka_group_op {
    struct task task;
    struct kafka_request *r;
    void *answer; /* r's response; NULL: out of memory, the connection closes */
    void (*home)(struct kafka_group_op *op);
};
/* Runs home on the home loop; it or what it starts ends with kafka_group_op_back. bytes: of the
 * struct that op begins. NULL when out of memory: the request is answered then. */
void *kafka_group_op_new(struct kafka_request *r, size_t bytes,
                         void (*home)(struct kafka_group_op *op));
void kafka_group_op_go(struct kafka_group_op *op);
/* Any loop: sends op->answer from the request's. */
void kafka_group_op_back(struct kafka_group_op *op);
/* n inner structs, or NULL, and then op->answer too. Home. */
void *kafka_group_op_array(struct kafka_group_op *op, const struct schema *s, size_t n);
#define KAFKA_OP_ARRAY(op, name, n)                                                                \
    ((struct kafka_##name *)kafka_group_op_array((op), &kafka_##name##_schema, (size_t)(n)))
/* A copy in the request's arena. Home. */
struct kafka_str kafka_group_op_keep(struct kafka_group_op *op, struct group_bytes b);

static inline struct group_bytes kafka_group_bytes(struct kafka_str s)
{
    return (struct group_bytes){ s.mem, s.len };
}
/* What a member or commit is told for one of our errors; 0 for 0. Coordinators have their own words
 * for "try again". */
int16_t kafka_group_error(int rc);

#endif
