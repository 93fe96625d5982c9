/* ListOffsets: where a partition begins and ends, and the first record at or after a time. */
#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/partition.h"
#include "gateways/kafka/schema_data.h"

/* Special times, and the version each came with. */
enum { LATEST = -1, EARLIEST = -2, MAX_TIMESTAMP = -3, EARLIEST_LOCAL = -4, LATEST_TIERED = -5 };
enum { EARLIEST_PENDING_UPLOAD = -6 };
static const int16_t special_since[] = { 0, 1, 1, 7, 8, 9, 11 };

struct list_part {
    struct topic_open open;
    struct find_time find;
    struct list_op *op;
    const struct kafka_list_offsets_partition *asked;
    struct kafka_list_offsets_partition_answer *answer;
    bool ready; /* may be looked up once its shard is open */
};

struct list_op {
    struct kafka_open open;
    struct kafka_request *r;
    struct kafka_list_offsets_response *response;
    struct topic **topics;
    struct list_part *parts;
    unsigned n_topics, n_parts;
    unsigned n_left;
};

static void list_end(struct list_op *op)
{
    for (unsigned i = 0; i < op->n_parts; i++)
        shard_unref(op->parts[i].open.shard);
    for (unsigned i = 0; i < op->n_topics; i++)
        topic_unref(op->topics[i]);
    kafka_answer(op->r, op->response);
}

static void list_less(struct list_op *op)
{
    if (--op->n_left == 0)
        list_end(op);
}

static void found(struct find_time *f)
{
    struct list_part *p = (struct list_part *)((char *)f - offsetof(struct list_part, find));

    if (f->rc < 0) {
        p->answer->error_code = kafka_error_of(f->rc);
    } else if (f->found) {
        p->answer->offset = (int64_t)f->offset;
        p->answer->timestamp = f->timestamp;
        p->answer->leader_epoch = shard_epoch(p->open.shard);
    }
    list_less(p->op);
}

static void part_find(struct list_part *p, int64_t time)
{
    p->op->n_left++;
    p->find = (struct find_time){ .fn = found, .loop = p->op->r->loop, .time = time };
    shard_find_time(p->open.shard, &p->find);
}

static void part_look(struct list_part *p)
{
    struct shard *s = p->open.shard;
    int64_t time = p->asked->timestamp;

    if (p->open.rc < 0) {
        p->answer->error_code = kafka_error_of(p->open.rc);
        return;
    }
    p->answer->error_code = kafka_epoch_check(s, p->asked->current_leader_epoch);
    if (p->answer->error_code)
        return;
    if (time >= 0 || time == MAX_TIMESTAMP) {
        part_find(p, time == MAX_TIMESTAMP ? SHARD_TIME_MAX : time);
        return;
    }
    /* Nothing is tiered: everything is local, and the tiered part has no last offset. */
    if (time == LATEST_TIERED || time == EARLIEST_PENDING_UPLOAD)
        return;
    p->answer->offset = (int64_t)(time == LATEST ? shard_end(s) : shard_start(s));
    p->answer->leader_epoch = shard_epoch(s);
}

static void list_look(struct kafka_open *o)
{
    struct list_op *op = (struct list_op *)((char *)o - offsetof(struct list_op, open));

    op->n_left = 1;
    for (unsigned i = 0; i < op->n_parts; i++)
        if (op->parts[i].ready)
            part_look(&op->parts[i]);
    list_less(op);
}

static void part_begin(struct list_part *p, struct topic *t, int16_t error)
{
    int32_t index = p->asked->index;
    int64_t time = p->asked->timestamp;

    p->answer->index = index;
    if (!error && (index < 0 || (uint32_t)index >= t->n_partitions))
        error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    if (!error && time < 0 &&
        (time < EARLIEST_PENDING_UPLOAD || p->op->r->form.version < special_since[-time]))
        error = KAFKA_UNSUPPORTED_VERSION;
    p->answer->error_code = error;
    p->ready = !error;
    if (p->ready)
        kafka_open_one(&p->op->open, t, (uint32_t)index, &p->open);
}

static bool list_prepare(struct kafka_request *r, struct list_op *op)
{
    const struct kafka_list_offsets_request *q = r->body;

    op->response = kafka_response_new(r);
    if (!op->response)
        return false;
    op->response->topics.at = KAFKA_ANSWERS(r, list_offsets_topic_answer, q->topics.n);
    if (!op->response->topics.at)
        return false;
    op->response->topics.n = q->topics.n;
    for (int32_t i = 0; i < q->topics.n; i++) {
        struct kafka_list_offsets_topic_answer *a = &op->response->topics.at[i];

        a->name = q->topics.at[i].name;
        a->partitions.n = q->topics.at[i].partitions.n;
        a->partitions.at = KAFKA_ANSWERS(r, list_offsets_partition_answer, a->partitions.n);
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

void kafka_list_offsets(struct kafka_request *r)
{
    const struct kafka_list_offsets_request *q = r->body;
    struct list_op *op = kafka_take(r, 1, sizeof *op);
    struct list_part *p;

    if (!op || !list_prepare(r, op))
        return;
    op->r = r;
    kafka_open_begin(&op->open, r, list_look);
    p = op->parts;
    for (int32_t i = 0; i < q->topics.n; i++) {
        const struct kafka_list_offsets_topic *t = &q->topics.at[i];
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
