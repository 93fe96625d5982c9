/* Produce: each partition's one batch is checked and given to the journal where it lies in the
 * request; the answer goes out when all appends have answered, or when the client's time is
 * up. An append that is late still counts. A topic's compression.type makes another batch of it
 * first (recode.h). */
#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/partition.h"
#include "gateways/kafka/recode.h"
#include "gateways/kafka/schema_data.h"

#include "format/batch.h"
#include "format/batch_keep.h"

enum { ZSTD_FROM = 7, TOPIC_IDS_FROM = 13 };

struct produce_part {
    struct topic_open open;
    struct append_done done;
    struct kafka_recode recode; /* out: what is appended instead of what was sent */
    struct kafka_produce_op *op;
    const struct kafka_produce_partition *asked;
    struct kafka_produce_partition_answer *answer;
    bool appending;
};

struct kafka_produce_op {
    struct kafka_open open;
    struct kafka_request *r;
    struct kafka_produce_response *response;
    struct topic **topics;
    struct produce_part *parts;
    unsigned n_topics, n_parts;
    unsigned n_left; /* appends not answered */
    struct kafka_recodes recodes;
    enum ack ack;
    bool silent; /* acks 0 */
    bool failed;
    bool answered;
    bool blocked;
    uint64_t due_us;
    struct kafka_produce_op *prev, *next; /* of the loop's list, while appends are out */
};

static void part_fails(struct produce_part *p, int16_t error)
{
    p->answer->error_code = error;
    p->answer->base_offset = -1;
    p->op->failed = true;
}

/* --- checks --- */

static int16_t batch_error(int rc, const struct kafka_records *records)
{
    if (rc == E_INVALID && records->len >= BATCH_HEAD_BYTES &&
        (records->mem[22] & BATCH_ATTR_CODEC) >= CODEC_COUNT)
        return KAFKA_UNSUPPORTED_COMPRESSION;
    if (rc == E_INVALID)
        return KAFKA_INVALID_RECORD;
    return rc == E_UNSUPPORTED ? KAFKA_UNSUPPORTED_FOR_MESSAGE_FORMAT : kafka_error_of(rc);
}

static uint32_t batch_max(const struct kafka_request *r, const struct topic *t)
{
    return t->message_max < UINT32_MAX ? t->message_max : r->kafka->conf.batch_max;
}

static int16_t records_check(const struct kafka_request *r, const struct topic *t,
                             const struct kafka_records *records)
{
    struct batch_head h;
    int rc;

    if (records->len <= 0)
        return KAFKA_INVALID_RECORD;
    if ((uint32_t)records->len > batch_max(r, t))
        return KAFKA_MESSAGE_TOO_LARGE;
    rc = batch_validate(&h, records->mem, (size_t)records->len);
    if (rc < 0)
        return batch_error(rc, records);
    if ((h.attributes & BATCH_ATTR_CODEC) == CODEC_ZSTD && r->form.version < ZSTD_FROM)
        return KAFKA_UNSUPPORTED_COMPRESSION;
    /* As Kafka does, but for compressed batches: they would have to be opened here, on the loop.
     * Compaction takes their records without a key when it comes to them. */
    if (t->compacted && batch_lacks_keys(records->mem, (size_t)records->len))
        return KAFKA_INVALID_RECORD;
    /* Transactions do not exist here, so no batch can be part of one. */
    return h.attributes & BATCH_ATTR_TRANSACTIONAL ? KAFKA_INVALID_TXN_STATE : KAFKA_NONE;
}

static int16_t request_check(const struct kafka_produce_request *q)
{
    if (q->acks < -1 || q->acks > 1)
        return KAFKA_INVALID_REQUIRED_ACKS;
    return q->transactional_id.len >= 0 ? KAFKA_INVALID_TXN_STATE : KAFKA_NONE;
}

/* LogAppendTime: the batch gets the time of its arrival, where it lies in the request. */
static void part_stamp(struct produce_part *p)
{
    const struct kafka_records *records = &p->asked->records;
    struct buf *b = p->op->r->buf;
    int64_t now = loop_wall_ms(p->op->r->loop);

    batch_stamp_time(b->mem + (records->mem - b->mem), (size_t)records->len, now);
    p->answer->log_append_time_ms = now;
}

static void part_recode(struct produce_part *p, const struct topic *t)
{
    const struct kafka_records *records = &p->asked->records;

    if (t->codec == TOPIC_CODEC_PRODUCER || (records->mem[22] & BATCH_ATTR_CODEC) == t->codec)
        return;
    kafka_recode(&p->op->recodes, &p->recode, records->mem, (size_t)records->len,
                 (enum batch_codec)t->codec, batch_max(p->op->r, t));
}

static void part_begin(struct produce_part *p, struct topic *t, int16_t error)
{
    int32_t index = p->asked->index;

    p->answer->index = index;
    if (!error && (index < 0 || (uint32_t)index >= t->n_partitions))
        error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    if (!error)
        error = records_check(p->op->r, t, &p->asked->records);
    if (!error && t->append_time)
        part_stamp(p);
    if (error) {
        part_fails(p, error);
        return;
    }
    kafka_open_one(&p->op->open, t, (uint32_t)index, &p->open);
    part_recode(p, t);
}

/* --- answers --- */

static void op_unlink(struct kafka_produce_op *op)
{
    struct kafka_loop *kl = kafka_loop_of(op->r->kafka, op->r->loop);

    if (op->prev)
        op->prev->next = op->next;
    else
        kl->produces = op->next;
    if (op->next)
        op->next->prev = op->prev;
}

static void op_link(struct kafka_produce_op *op)
{
    struct kafka_loop *kl = kafka_loop_of(op->r->kafka, op->r->loop);

    op->next = kl->produces;
    if (op->next)
        op->next->prev = op;
    kl->produces = op;
    kafka_loop_need_tick(kl);
}

static void op_answer(struct kafka_produce_op *op)
{
    if (op->answered)
        return;
    op->answered = true;
    if (!op->silent)
        kafka_answer(op->r, op->response);
    else if (op->failed)
        kafka_refuse(op->r); /* the only way to tell a client that wants no answers */
    else
        kafka_answer_none(op->r);
}

/* Nothing of it is with the journal any more. */
static void op_end(struct kafka_produce_op *op)
{
    struct kafka_request *r = op->r;

    op_answer(op);
    for (unsigned i = 0; i < op->n_parts; i++)
        shard_unref(op->parts[i].open.shard);
    for (unsigned i = 0; i < op->n_topics; i++)
        topic_unref(op->topics[i]);
    kafka_request_drop(r);
}

static void appended(struct append_done *d)
{
    struct produce_part *p =
        (struct produce_part *)((char *)d - offsetof(struct produce_part, done));
    struct kafka_produce_op *op = p->op;

    p->appending = false;
    if (d->rc < 0) {
        part_fails(p, kafka_error_of(d->rc));
    } else {
        p->answer->base_offset = (int64_t)d->base_offset;
        p->answer->log_start_offset = (int64_t)shard_start(p->open.shard);
    }
    if (--op->n_left)
        return;
    op_unlink(op);
    op_end(op);
}

static void op_late(struct kafka_produce_op *op)
{
    for (unsigned i = 0; i < op->n_parts; i++)
        if (op->parts[i].appending)
            part_fails(&op->parts[i], KAFKA_REQUEST_TIMED_OUT);
    op_answer(op);
}

void kafka_produce_tick(struct kafka_loop *kl)
{
    uint64_t now = loop_now_us(kl->loop);
    struct kafka_produce_op *next;

    for (struct kafka_produce_op *op = kl->produces; op; op = next) {
        next = op->next;
        if (!op->answered && op->due_us <= now)
            op_late(op);
    }
}

/* --- appending --- */

static void part_append(struct produce_part *p)
{
    const struct kafka_records *records = &p->asked->records;
    struct buf *b = p->op->r->buf, *other = p->recode.out;

    p->appending = true;
    p->op->n_left++;
    p->done.fn = appended;
    p->done.loop = p->op->r->loop;
    if (other)
        shard_append(p->open.shard, other, 0, other->len, p->op->ack, &p->done);
    else
        shard_append(p->open.shard, b, (uint32_t)(records->mem - b->mem), (uint32_t)records->len,
                     p->op->ack, &p->done);
}

static void produce_append(struct kafka_open *o)
{
    struct kafka_produce_op *op =
        (struct kafka_produce_op *)((char *)o - offsetof(struct kafka_produce_op, open));
    struct kafka_request *r = op->r;

    for (unsigned i = 0; i < op->n_parts; i++) {
        struct produce_part *p = &op->parts[i];

        if (p->answer->error_code)
            continue;
        if (p->open.rc < 0 || p->recode.rc < 0)
            part_fails(p, kafka_error_of(p->open.rc < 0 ? p->open.rc : p->recode.rc));
        else
            part_append(p);
        buf_unref(p->recode.out);
        p->recode.out = NULL;
    }
    kafka_request_grew(r, op->recodes.made);
    if (op->n_left)
        op_link(op);
    /* Only now may the next request go on: it must not append before this one. */
    if (op->blocked)
        kafka_session_unblock(r);
    if (!op->n_left)
        op_end(op);
}

static bool produce_prepare(struct kafka_request *r, struct kafka_produce_op *op)
{
    const struct kafka_produce_request *q = r->body;
    unsigned n = 0;

    op->response = kafka_response_new(r);
    if (!op->response)
        return false;
    op->response->topics.at = KAFKA_ANSWERS(r, produce_topic_answer, q->topics.n);
    if (!op->response->topics.at)
        return false;
    op->response->topics.n = q->topics.n;
    for (int32_t i = 0; i < q->topics.n; i++) {
        struct kafka_produce_topic_answer *a = &op->response->topics.at[i];
        const struct kafka_produce_topic *t = &q->topics.at[i];

        a->name = t->name;
        a->topic_id = t->topic_id;
        a->partitions.at = KAFKA_ANSWERS(r, produce_partition_answer, t->partitions.n);
        if (!a->partitions.at)
            return false;
        a->partitions.n = t->partitions.n;
        n += (unsigned)t->partitions.n;
    }
    op->n_parts = n;
    op->n_topics = (unsigned)q->topics.n;
    op->parts = kafka_take(r, n, sizeof *op->parts);
    if (!op->parts)
        return false;
    op->topics = kafka_take(r, op->n_topics, sizeof *op->topics);
    return op->topics != NULL;
}

void kafka_produce(struct kafka_request *r)
{
    static const enum ack acks[] = { ACK_QUORUM_DURABLE, ACK_NONE, ACK_LEADER_DURABLE };
    const struct kafka_produce_request *q = r->body;
    struct kafka_produce_op *op = kafka_take(r, 1, sizeof *op);
    int16_t refused = request_check(q);
    struct produce_part *p;

    if (!op || !produce_prepare(r, op))
        return;
    op->r = r;
    op->silent = q->acks == 0;
    op->ack = refused ? ACK_NONE : acks[q->acks + 1];
    op->due_us = loop_now_us(r->loop) + 1000 * (uint64_t)(q->timeout_ms > 0 ? q->timeout_ms : 0);
    kafka_request_hold(r);
    kafka_open_begin(&op->open, r, produce_append);
    kafka_recodes_begin(&op->recodes, &op->open);
    p = op->parts;
    for (int32_t i = 0; i < q->topics.n; i++) {
        const struct kafka_produce_topic *t = &q->topics.at[i];
        int16_t error = refused;

        if (!error)
            op->topics[i] = kafka_topic_of(r->kafka, t->name, &t->topic_id,
                                           r->form.version >= TOPIC_IDS_FROM, &error);
        for (int32_t j = 0; j < t->partitions.n; j++, p++) {
            p->op = op;
            p->asked = &t->partitions.at[j];
            p->answer = &op->response->topics.at[i].partitions.at[j];
            part_begin(p, op->topics[i], error);
        }
    }
    kafka_recodes_end(&op->recodes);
    /* While a handle is being opened, or a batch recoded, a later request could append first. */
    op->blocked = op->open.pending > 1;
    if (op->blocked)
        kafka_session_block(r);
    kafka_open_end(&op->open);
}
