/* Fetch: reads all partitions asked for, waits for more when there is too little, answers with
 * the journal's own slices.
 *
 * One fetch goes through: open handles -> read (in waves, each as much as still fits) ->
 * enough? answer : wait until one partition has more or the time is up -> read again. Sessions
 * (KIP-227) are not kept: every answer is full, with session id 0. */
#include "gateways/kafka/api.h"
#include "gateways/kafka/errors.h"
#include "gateways/kafka/kafka_int.h"
#include "gateways/kafka/partition.h"
#include "gateways/kafka/schema_data.h"

enum {
    ZSTD_FROM = 10,
    TOPIC_IDS_FROM = 13,
    LEADERS_FROM = 16,
    READ_AGAIN_US = 5000,
    WAIT_MAX_MS = 300000
};

struct fetch_part {
    struct topic_open open;
    struct read_done read;
    struct shard_wait wait;
    struct fetch_op *op;
    const struct kafka_fetch_partition *asked;
    struct kafka_fetch_partition_answer *answer;
    int16_t error;
    bool ready;   /* has a shard */
    bool waiting; /* wait.fn has not run yet */
    bool done;    /* read in this round */
    uint32_t bytes;
};

enum fetch_state { FETCH_OPENING, FETCH_READING, FETCH_WAITING, FETCH_ENDING };

struct fetch_op {
    struct kafka_open open;
    struct kafka_request *r;
    struct kafka_fetch_response *response;
    struct topic **topics;
    struct fetch_part *parts;
    unsigned n_topics, n_parts;
    unsigned next;      /* part to read next in this round */
    unsigned n_reads;   /* reads not answered */
    unsigned n_waits;   /* waits that have not ended */
    uint32_t max_bytes; /* of the answer */
    uint32_t bytes;     /* read in this round */
    bool some;          /* this round has a part that gives its first batch whatever its size */
    bool forced;        /* ... and it was given to a second one because the first had none */
    bool gone;          /* nobody waits for the answer */
    bool late;          /* max_wait_ms is over */
    bool pace;   /* there is something but too little: more may come soon, read it together */
    bool failed; /* some part has an error: answer now */
    enum fetch_state state;
    uint64_t due_us;
    struct loop_timer timer;
};

static void fetch_read(struct fetch_op *op);

static void part_fails(struct fetch_part *p, int16_t error)
{
    p->error = error;
    p->op->failed = true;
}

/* --- answering --- */

static void give_back(struct fetch_op *op)
{
    for (unsigned i = 0; i < op->n_parts; i++) {
        read_done_release(&op->parts[i].read);
        op->parts[i].read.n_slices = 0;
        op->parts[i].bytes = 0;
        op->parts[i].done = false;
    }
    op->bytes = 0;
}

static void part_answer(struct fetch_part *p)
{
    struct kafka_fetch_partition_answer *a = p->answer;

    a->index = p->asked->index;
    a->error_code = p->error;
    a->records.len = 0;
    if (p->error) {
        a->high_watermark = -1;
        if (p->ready && (p->error == KAFKA_FENCED_LEADER_EPOCH)) {
            a->current_leader.leader_id = p->op->r->kafka->conf.node_id;
            a->current_leader.leader_epoch = shard_epoch(p->open.shard);
        }
        return;
    }
    a->high_watermark = (int64_t)p->read.end;
    a->last_stable_offset = (int64_t)p->read.end; /* no transactions: all is decided */
    a->log_start_offset = (int64_t)p->read.start;
    a->records.slices = p->read.slices;
    a->records.n_slices = p->read.n_slices;
    a->records.len = (int32_t)p->bytes;
}

/* Where the leader named above can be reached. */
static void name_endpoint(struct fetch_op *op)
{
    struct kafka_request *r = op->r;
    struct kafka_node_endpoint *e;
    bool named = false;

    for (unsigned i = 0; i < op->n_parts; i++)
        named = named || op->parts[i].answer->current_leader.leader_id >= 0;
    if (!named || r->form.version < LEADERS_FROM)
        return;
    e = kafka_message_new(&r->arena, &kafka_node_endpoint_schema, 1);
    if (!e)
        return;
    e->node_id = r->kafka->conf.node_id;
    e->host = kafka_own_host(r);
    e->port = kafka_own_port(r);
    op->response->node_endpoints.at = e;
    op->response->node_endpoints.n = 1;
}

static void fetch_answer(struct fetch_op *op)
{
    struct kafka_request *r = op->r;

    op->state = FETCH_ENDING;
    for (unsigned i = 0; i < op->n_parts; i++)
        part_answer(&op->parts[i]);
    name_endpoint(op);
    kafka_request_hold(r);
    kafka_answer(r, op->response);
    give_back(op);
    for (unsigned i = 0; i < op->n_parts; i++)
        shard_unref(op->parts[i].open.shard);
    for (unsigned i = 0; i < op->n_topics; i++)
        topic_unref(op->topics[i]);
    kafka_request_drop(r);
}

/* --- waiting --- */

static void timer_set(struct fetch_op *op, uint64_t most_us)
{
    uint64_t now = loop_now_us(op->r->loop);
    uint64_t delay = op->due_us > now ? op->due_us - now : 0;

    loop_timer_set(op->r->loop, &op->timer, delay < most_us ? delay : most_us);
}

static void wait_over(struct fetch_op *op)
{
    if (op->state != FETCH_WAITING || op->n_waits)
        return;
    if (op->pace && !op->late && !op->gone && !op->failed) {
        op->pace = false;
        timer_set(op, READ_AGAIN_US);
        return;
    }
    loop_timer_stop(&op->timer);
    fetch_read(op);
}

/* One wait is over: so are all. Each one's fn still runs, and the last of them reads again. */
static void cancel_waits(struct fetch_op *op)
{
    for (unsigned i = 0; i < op->n_parts; i++) {
        struct fetch_part *p = &op->parts[i];

        if (!p->waiting)
            continue;
        p->waiting = false;
        shard_wait_cancel(&p->wait);
    }
}

static void waited(struct shard_wait *w)
{
    struct fetch_part *p = (struct fetch_part *)((char *)w - offsetof(struct fetch_part, wait));
    struct fetch_op *op = p->op;

    p->waiting = false;
    op->n_waits--;
    if (w->rc < 0 && w->rc != E_CANCELLED)
        part_fails(p, kafka_error_of(w->rc));
    cancel_waits(op);
    wait_over(op);
}

static void time_up(struct loop_timer *t)
{
    struct fetch_op *op = (struct fetch_op *)((char *)t - offsetof(struct fetch_op, timer));

    if (loop_now_us(op->r->loop) >= op->due_us)
        op->late = true;
    cancel_waits(op);
    wait_over(op);
}

/* The client is gone: nothing to wait for. */
static void fetch_gone(struct kafka_request *r)
{
    struct fetch_op *op = r->own;

    op->gone = true;
    if (op->state == FETCH_WAITING) {
        cancel_waits(op);
        wait_over(op);
    }
}

static void part_wait(struct fetch_part *p)
{
    p->wait = (struct shard_wait){ .fn = waited, .loop = p->op->r->loop };
    p->waiting = true;
    p->op->n_waits++;
    shard_wait(p->open.shard, p->read.end, &p->wait);
}

static void fetch_wait(struct fetch_op *op)
{
    op->state = FETCH_WAITING;
    op->pace = op->bytes > 0;
    give_back(op);
    op->timer.fire = time_up;
    op->timer.loop = op->r->loop;
    timer_set(op, UINT64_MAX);
    for (unsigned i = 0; i < op->n_parts; i++)
        if (op->parts[i].ready && !op->parts[i].error)
            part_wait(&op->parts[i]);
}

/* --- reading --- */

static void fetch_done(struct fetch_op *op)
{
    const struct kafka_fetch_request *q = op->r->body;

    if (op->gone || op->failed || op->late || !op->n_parts || op->bytes >= op->max_bytes ||
        (int64_t)op->bytes >= q->min_bytes || loop_now_us(op->r->loop) >= op->due_us)
        fetch_answer(op);
    else
        fetch_wait(op);
}

static void part_was_read(struct read_done *d)
{
    struct fetch_part *p = (struct fetch_part *)((char *)d - offsetof(struct fetch_part, read));
    struct fetch_op *op = p->op;

    op->n_reads--;
    if (d->rc < 0) {
        part_fails(p, kafka_error_of(d->rc));
    } else {
        p->bytes = d->bytes;
        op->bytes += d->bytes;
    }
    if (op->n_reads == 0)
        fetch_read(op);
}

/* Begins to read one part; gives how many bytes it may bring. */
static uint32_t part_read(struct fetch_part *p, uint32_t room)
{
    struct fetch_op *op = p->op;
    uint64_t offset = (uint64_t)p->asked->fetch_offset;
    uint64_t start = shard_start(p->open.shard), end = shard_end(p->open.shard);
    uint32_t max = p->asked->max_bytes > 0 ? (uint32_t)p->asked->max_bytes : 0;

    p->done = true;
    p->read = (struct read_done){ .fn = part_was_read,
                                  .loop = op->r->loop,
                                  .from = offset,
                                  .start = start,
                                  .end = end,
                                  .max_bytes = max < room ? max : room };
    if (p->asked->fetch_offset < 0 || offset < start || offset > end) {
        part_fails(p, KAFKA_OFFSET_OUT_OF_RANGE);
        return 0;
    }
    if (offset == end)
        return 0;
    p->read.at_least_one = !op->some;
    if (!p->read.at_least_one && !p->read.max_bytes)
        return 0;
    op->some = true;
    op->n_reads++;
    shard_read(p->open.shard, &p->read);
    return p->read.max_bytes;
}

/* The one part that had to give a batch gave an error instead: let another one do it, or a
 * large batch there would never be read. */
static bool read_forced(struct fetch_op *op)
{
    if (op->bytes || op->forced || !op->some || !op->failed)
        return false;
    op->forced = true;
    for (unsigned i = 0; i < op->n_parts; i++) {
        struct fetch_part *p = &op->parts[i];

        if (!p->ready || p->error || p->read.from >= p->read.end)
            continue;
        op->some = false;
        part_read(p, op->max_bytes);
        return op->n_reads > 0;
    }
    return false;
}

/* Reads on: the next wave, as many parts as may together fill the answer. At the end of the
 * round: enough? */
static void fetch_read(struct fetch_op *op)
{
    uint32_t room = op->bytes < op->max_bytes ? op->max_bytes - op->bytes : 0;

    if (op->state != FETCH_READING) {
        op->state = FETCH_READING;
        op->next = 0;
        op->some = false;
    }
    while (!op->gone && op->next < op->n_parts) {
        struct fetch_part *p = &op->parts[op->next];
        uint32_t may;

        if (!room && op->n_reads)
            return;
        op->next++;
        if (!p->ready || p->error)
            continue;
        may = part_read(p, room);
        room -= may < room ? may : room;
    }
    if (op->n_reads == 0 && !read_forced(op))
        fetch_done(op);
}

static void fetch_opened(struct kafka_open *o)
{
    struct fetch_op *op = (struct fetch_op *)((char *)o - offsetof(struct fetch_op, open));

    for (unsigned i = 0; i < op->n_parts; i++) {
        struct fetch_part *p = &op->parts[i];

        if (p->error)
            continue;
        if (p->open.rc < 0) {
            part_fails(p, kafka_error_of(p->open.rc));
            continue;
        }
        p->ready = true;
        p->error = kafka_epoch_check(p->open.shard, p->asked->current_leader_epoch);
        if (p->error)
            op->failed = true;
    }
    fetch_read(op);
}

/* --- beginning --- */

static bool fetch_prepare(struct kafka_request *r, struct fetch_op *op)
{
    const struct kafka_fetch_request *q = r->body;

    op->response = kafka_response_new(r);
    if (!op->response)
        return false;
    op->response->topics.at = KAFKA_ANSWERS(r, fetch_topic_answer, q->topics.n);
    if (!op->response->topics.at)
        return false;
    op->response->topics.n = q->topics.n;
    for (int32_t i = 0; i < q->topics.n; i++) {
        struct kafka_fetch_topic_answer *a = &op->response->topics.at[i];

        a->name = q->topics.at[i].name;
        a->topic_id = q->topics.at[i].topic_id;
        a->partitions.n = q->topics.at[i].partitions.n;
        a->partitions.at = KAFKA_ANSWERS(r, fetch_partition_answer, a->partitions.n);
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

static void part_begin(struct fetch_part *p, struct topic *t, int16_t error)
{
    int32_t index = p->asked->index;

    if (!error && (index < 0 || (uint32_t)index >= t->n_partitions))
        error = KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
    /* KIP-110: of the topic, not of each batch; with compression.type producer zstd is the client's own
     * affair. */
    if (!error && t->codec == CODEC_ZSTD && p->op->r->form.version < ZSTD_FROM)
        error = KAFKA_UNSUPPORTED_COMPRESSION;
    if (error)
        part_fails(p, error);
    else
        kafka_open_one(&p->op->open, t, (uint32_t)index, &p->open);
}

static void begin_parts(struct kafka_request *r, struct fetch_op *op)
{
    const struct kafka_fetch_request *q = r->body;
    struct fetch_part *p = op->parts;

    for (int32_t i = 0; i < q->topics.n; i++) {
        const struct kafka_fetch_topic *t = &q->topics.at[i];
        int16_t error;

        op->topics[i] = kafka_topic_of(r->kafka, t->name, &t->topic_id,
                                       r->form.version >= TOPIC_IDS_FROM, &error);
        for (int32_t j = 0; j < t->partitions.n; j++, p++) {
            p->op = op;
            p->asked = &t->partitions.at[j];
            p->answer = &op->response->topics.at[i].partitions.at[j];
            part_begin(p, op->topics[i], error);
        }
    }
}

/* A session that we do not keep: the client is told so, and falls back to full fetches. */
static void refuse_session(struct kafka_request *r)
{
    struct kafka_fetch_response *a = kafka_response_new(r);

    if (!a)
        return;
    a->error_code = KAFKA_FETCH_SESSION_ID_NOT_FOUND;
    kafka_answer(r, a);
}

void kafka_fetch(struct kafka_request *r)
{
    const struct kafka_fetch_request *q = r->body;
    uint32_t limit = r->kafka->conf.fetch_max;
    int32_t wait_ms = q->max_wait_ms < 0 ? 0 : q->max_wait_ms;
    struct fetch_op *op;

    if (q->session_epoch != 0 && q->session_epoch != -1) {
        refuse_session(r);
        return;
    }
    op = kafka_take(r, 1, sizeof *op);
    if (!op || !fetch_prepare(r, op))
        return;
    op->r = r;
    op->max_bytes = q->max_bytes < 0 ? 0 : (uint32_t)q->max_bytes;
    op->max_bytes = op->max_bytes < limit ? op->max_bytes : limit;
    op->due_us =
        loop_now_us(r->loop) + 1000 * (uint64_t)(wait_ms < WAIT_MAX_MS ? wait_ms : WAIT_MAX_MS);
    r->own = op;
    r->gone = fetch_gone;
    kafka_promise(r, op->max_bytes);
    kafka_open_begin(&op->open, r, fetch_opened);
    begin_parts(r, op);
    kafka_open_end(&op->open);
}
