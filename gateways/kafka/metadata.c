/* Metadata: the one broker, and topics with their partitions; topics that are asked for and
 * allowed are made on the way. */
#include <stdlib.h>
#include <string.h>

#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/partition.h"
#include "gateways/kafka/schema_data.h"

enum { AUTO_CREATE_ASKED_FROM = 4, EPOCH_FROM = 7, NULL_NAMES_FROM = 12 };

struct meta_topic {
    struct topics_change change;
    struct meta_op *op;
    struct topic *topic; /* a reference */
    struct kafka_metadata_topic_answer *answer;
};

struct meta_op {
    struct kafka_request *r;
    struct kafka_metadata_response *response;
    struct meta_topic *topics;
    unsigned n_topics;
    unsigned n_left; /* creations not answered */
};

static void meta_end(struct meta_op *op)
{
    for (unsigned i = 0; i < op->n_topics; i++)
        topic_unref(op->topics[i].topic);
}

/* --- the answer --- */

static bool fill_partitions(struct meta_topic *m)
{
    struct meta_op *op = m->op;
    struct kafka_metadata_topic_answer *a = m->answer;
    int32_t *nodes = kafka_take(op->r, 1, sizeof *nodes);

    if (!nodes)
        return false;
    nodes[0] = op->r->kafka->conf.node_id;
    a->partitions.at = KAFKA_ANSWERS(op->r, metadata_partition_answer, m->topic->n_partitions);
    if (!a->partitions.at)
        return false;
    a->partitions.n = (int32_t)m->topic->n_partitions;
    for (int32_t i = 0; i < a->partitions.n; i++) {
        struct kafka_metadata_partition_answer *p = &a->partitions.at[i];

        p->index = i;
        p->leader_id = nodes[0];
        p->replicas = p->isr = (struct kafka_int32s){ .at = nodes, .n = 1 };
        if (op->r->form.version >= EPOCH_FROM)
            p->leader_epoch = topic_epoch(op->r->kafka->topics, m->topic, (uint32_t)i);
    }
    return true;
}

static bool fill_topic(struct meta_topic *m)
{
    struct kafka_metadata_topic_answer *a = m->answer;

    if (!m->topic)
        return true;
    a->name = (struct kafka_str){ .mem = m->topic->name, .len = (int32_t)m->topic->name_bytes };
    memcpy(a->topic_id.bytes, m->topic->id, TOPIC_ID_BYTES);
    return fill_partitions(m);
}

static bool fill_broker(struct meta_op *op)
{
    struct kafka_request *r = op->r;
    struct kafka_metadata_broker *b = KAFKA_ANSWERS(r, metadata_broker, 1);

    if (!b)
        return false;
    b->node_id = r->kafka->conf.node_id;
    b->host = kafka_own_host(r);
    b->port = kafka_own_port(r);
    op->response->brokers.at = b;
    op->response->brokers.n = 1;
    op->response->cluster_id = kafka_str_of(r->kafka->conf.cluster_id);
    op->response->controller_id = r->kafka->conf.node_id;
    return true;
}

/* All topics are known. No shard is opened for it: a client may ask for a million. */
static void meta_answer(struct meta_op *op)
{
    struct kafka_request *r = op->r;
    bool good;

    kafka_request_hold(r);
    good = fill_broker(op);
    for (unsigned i = 0; i < op->n_topics && good; i++)
        good = fill_topic(&op->topics[i]);
    if (good)
        kafka_answer(r, op->response);
    meta_end(op);
    kafka_request_drop(r);
}

/* --- topics asked for --- */

static void meta_less(struct meta_op *op)
{
    if (--op->n_left == 0)
        meta_answer(op);
}

static void created(struct topics_change *c)
{
    struct meta_topic *m = (struct meta_topic *)c;

    m->topic = c->topic; /* also when another one made it first */
    if (c->rc < 0 && c->rc != E_EXISTS)
        m->answer->error_code = c->rc == E_INVALID ? KAFKA_INVALID_TOPIC : kafka_error_of(c->rc);
    meta_less(m->op);
}

static void auto_create(struct meta_topic *m, struct kafka_str name)
{
    struct kafka *k = m->op->r->kafka;

    m->change = (struct topics_change){ .fn = created,
                                        .loop = m->op->r->loop,
                                        .name = name.mem,
                                        .name_bytes = (size_t)name.len,
                                        .n_partitions = (uint32_t)k->conf.default_partitions,
                                        .defaults = k->defaults,
                                        .n_defaults = KAFKA_CONFIG_DEFAULTS };
    kafka_topic_policy((struct kafka_settings){ NULL, 0 },
                       (struct kafka_settings){ k->defaults, KAFKA_CONFIG_DEFAULTS },
                       &m->change.policy);
    m->op->n_left++;
    topics_create(k->topics, &m->change);
}

static bool may_create(const struct kafka_request *r)
{
    const struct kafka_metadata_request *q = r->body;

    return !r->kafka->conf.no_auto_create &&
           (r->form.version < AUTO_CREATE_ASKED_FROM || q->allow_auto_topic_creation);
}

static void look_up(struct meta_topic *m, const struct kafka_metadata_topic *asked)
{
    struct kafka_request *r = m->op->r;
    bool by_id = asked->name.len < 0;
    int16_t error;

    m->answer->name = asked->name;
    m->answer->topic_id = asked->topic_id;
    if (by_id && r->form.version < NULL_NAMES_FROM)
        m->answer->name = KAFKA_STR("");
    m->topic = kafka_topic_of(r->kafka, asked->name, &asked->topic_id, by_id, &error);
    if (!error)
        return;
    if (by_id)
        m->answer->error_code = error;
    else if (!topic_name_ok(asked->name.mem, (size_t)asked->name.len))
        m->answer->error_code = KAFKA_INVALID_TOPIC;
    else if (may_create(r))
        auto_create(m, asked->name);
    else
        m->answer->error_code = error;
}

static bool meta_room(struct meta_op *op, size_t n)
{
    op->topics = kafka_take(op->r, n, sizeof *op->topics);
    if (!op->topics)
        return false;
    op->response->topics.at = KAFKA_ANSWERS(op->r, metadata_topic_answer, n);
    if (!op->response->topics.at)
        return false;
    op->response->topics.n = (int32_t)n;
    op->n_topics = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        op->topics[i].op = op;
        op->topics[i].answer = &op->response->topics.at[i];
    }
    return true;
}

static bool all_topics(struct meta_op *op)
{
    size_t n;
    struct topic **all = topics_list(op->r->kafka->topics, &n);
    bool good = meta_room(op, n);

    for (size_t i = 0; i < n; i++) {
        if (good)
            op->topics[i].topic = all[i];
        else
            topic_unref(all[i]);
    }
    free(all);
    return good;
}

void kafka_metadata(struct kafka_request *r)
{
    const struct kafka_metadata_request *q = r->body;
    bool all = q->topics.n < 0 || (r->form.version == 0 && q->topics.n == 0);
    struct meta_op *op = kafka_take(r, 1, sizeof *op);

    if (!op)
        return;
    op->r = r;
    op->response = kafka_response_new(r);
    if (!op->response || !(all ? all_topics(op) : meta_room(op, (size_t)q->topics.n)))
        return;
    op->n_left = 1;
    for (int32_t i = 0; !all && i < q->topics.n; i++)
        look_up(&op->topics[i], &q->topics.at[i]);
    meta_less(op);
}
