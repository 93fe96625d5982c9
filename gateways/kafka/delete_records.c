/* DeleteRecords: moves the starts of partitions up to the offsets asked for, durably. */
#include <string.h>

#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/partition.h"
#include "gateways/kafka/schema_config.h"
#include "gateways/kafka/topic_configs.h"

enum { HIGH_WATERMARK = -1 };

struct delete_part {
    struct topic_open open;
    struct shard_trim trim;
    struct delete_op *op;
    const struct kafka_delete_records_partition *asked;
    struct kafka_delete_records_partition_answer *answer;
    bool ready; /* may be trimmed once its shard is open */
};

struct delete_op {
    struct kafka_open open;
    struct kafka_request *r;
    struct kafka_delete_records_response *response;
    struct topic **topics;
    struct delete_part *parts;
    unsigned n_topics, n_parts;
    unsigned n_left;
};

static void op_less(struct delete_op *op)
{
    if (--op->n_left > 0)
        return;
    for (unsigned i = 0; i < op->n_parts; i++)
        shard_unref(op->parts[i].open.shard);
    for (unsigned i = 0; i < op->n_topics; i++)
        topic_unref(op->topics[i]);
    kafka_answer(op->r, op->response);
}

static void part_fails(struct delete_part *p, int16_t error)
{
    p->answer->error_code = error;
    p->answer->low_watermark = -1;
}

static void trimmed(struct shard_trim *t)
{
    struct delete_part *p = (struct delete_part *)((char *)t - offsetof(struct delete_part, trim));

    if (t->rc < 0)
        part_fails(p, kafka_error_of(t->rc));
    else
        p->answer->low_watermark = (int64_t)t->start;
    op_less(p->op);
}

static void part_trim(struct delete_part *p)
{
    uint64_t end;
    int64_t offset = p->asked->offset;

    if (p->open.rc < 0) {
        part_fails(p, kafka_error_of(p->open.rc));
        return;
    }
    end = shard_end(p->open.shard);
    if (offset < HIGH_WATERMARK || (offset >= 0 && (uint64_t)offset > end)) {
        part_fails(p, KAFKA_OFFSET_OUT_OF_RANGE);
        return;
    }
    p->op->n_left++;
    p->trim = (struct shard_trim){ .fn = trimmed,
                                   .loop = p->op->r->loop,
                                   .start = offset == HIGH_WATERMARK ? end : (uint64_t)offset };
    shard_trim(p->open.shard, &p->trim);
}

static void parts_trim(struct kafka_open *o)
{
    struct delete_op *op = (struct delete_op *)((char *)o - offsetof(struct delete_op, open));

    op->n_left = 1;
    for (unsigned i = 0; i < op->n_parts; i++)
        if (op->parts[i].ready)
            part_trim(&op->parts[i]);
    op_less(op);
}

/* As Kafka: what is only compacted does not go from its start. */
static bool may_delete(const struct topic *t)
{
    struct kafka_settings now = { t->settings, t->n_settings };
    struct kafka_settings defaults = { t->defaults, t->n_defaults };

    return strcmp(kafka_topic_config_value(now, defaults, "cleanup.policy"), "compact") != 0;
}

static void part_begin(struct delete_part *p, struct topic *t, int16_t error)
{
    int32_t index = p->asked->index;

    p->answer->index = index;
    if (!error && (index < 0 || (uint32_t)index >= t->n_partitions))
        error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    if (!error && !may_delete(t))
        error = KAFKA_POLICY_VIOLATION;
    p->ready = !error;
    if (error)
        part_fails(p, error);
    else
        kafka_open_one(&p->op->open, t, (uint32_t)index, &p->open);
}

static bool delete_prepare(struct kafka_request *r, struct delete_op *op)
{
    const struct kafka_delete_records_request *q = r->body;

    op->response = kafka_response_new(r);
    if (!op->response)
        return false;
    op->response->topics.at = KAFKA_ANSWERS(r, delete_records_topic_answer, q->topics.n);
    if (!op->response->topics.at)
        return false;
    op->response->topics.n = q->topics.n;
    for (int32_t i = 0; i < q->topics.n; i++) {
        struct kafka_delete_records_topic_answer *a = &op->response->topics.at[i];

        a->name = q->topics.at[i].name;
        a->partitions.n = q->topics.at[i].partitions.n;
        a->partitions.at = KAFKA_ANSWERS(r, delete_records_partition_answer, a->partitions.n);
        if (!a->partitions.at)
            return false;
        op->n_parts += (unsigned)a->partitions.n;
    }
    op->n_topics = (unsigned)q->topics.n;
    op->topics = kafka_take(r, op->n_topics, sizeof *op->topics);
    if (!op->topics)
        return false;
    op->parts = kafka_take(r, op->n_parts, sizeof *op->parts);
    return op->parts != NULL;
}

void kafka_delete_records(struct kafka_request *r)
{
    const struct kafka_delete_records_request *q = r->body;
    struct delete_op *op = kafka_take(r, 1, sizeof *op);
    struct delete_part *p;

    if (!op || !delete_prepare(r, op))
        return;
    op->r = r;
    kafka_open_begin(&op->open, r, parts_trim);
    p = op->parts;
    for (int32_t i = 0; i < q->topics.n; i++) {
        const struct kafka_delete_records_topic *t = &q->topics.at[i];
        int16_t error;

        op->topics[i] = kafka_topic_of(r->kafka, t->name, NULL, false, &error);
        for (int32_t j = 0; j < t->partitions.n; j++, p++) {
            p->op = op;
            p->asked = &t->partitions.at[j];
            p->answer = &op->response->topics.at[i].partitions.at[j];
            part_begin(p, op->topics[i], error);
        }
    }
    kafka_open_end(&op->open);
}
