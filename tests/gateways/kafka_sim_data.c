/* Produce, Fetch, ListOffsets. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gateways/kafka_sim_int.h"

enum { PARTS_MAX = 3, TOPIC_IDS_FROM = 13, ZSTD_FROM = 7, SHORT_MS = 1, LONG_MS = 30000 };
enum { FETCH_ZSTD_FROM = 10 };

static const char *name_of(const struct kafka_sim *w, const struct sim_part *p)
{
    return w->m.names[p->topic->name].text;
}

/* --- what is asked of a partition, and what was known then --- */

struct asked {
    struct sim_part *part;
    bool deleted; /* for certain */
    int64_t start, end;
    struct sim_batch *batch; /* Produce */
    int64_t offset;          /* Fetch */
    int64_t time;            /* ListOffsets */
};

static bool only_zstd(const struct sim_part *p)
{
    return p->topic->codecs == 1u << CODEC_ZSTD;
}

struct data_call {
    struct sim_call call;
    struct asked asked[PARTS_MAX];
    unsigned n;
    bool failed_before; /* the device had failed when it was sent */
    bool weak;
    bool control;
    /* Produce */
    bool hurried; /* its time may run out */
    /* Fetch */
    int32_t wait_ms, min_bytes, max_bytes;
    /* results for who waits on the control client */
    int *error;
    int64_t *next;
};

static struct data_call *data_new(struct kafka_sim *w, sim_call_fn *fn)
{
    struct data_call *c = mem_new(sizeof *c);

    c->call.fn = fn;
    c->failed_before = w->js.j && journal_state(w->js.j) == JRN_FAILED;
    c->weak = kafka_sim_weak(w);
    return c;
}

static struct asked *data_ask(struct kafka_sim *w, struct data_call *c, struct sim_part *p)
{
    struct asked *a = &c->asked[c->n++];

    a->part = p;
    a->deleted = p->topic->deleted;
    a->start = p->start;
    a->end = p->end;
    w->m.names[p->topic->name].in_flight++;
    return a;
}

/* Nothing of it can reach the door any more. */
static void data_end(struct kafka_sim *w, struct data_call *c)
{
    for (unsigned i = 0; i < c->n; i++)
        w->m.names[c->asked[i].part->topic->name].in_flight--;
}

static bool has_part(const struct data_call *c, const struct sim_part *p)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->asked[i].part == p)
            return true;
    return false;
}

/* Is this error what this partition may get? */
static bool excused(struct kafka_sim *w, const struct data_call *c, const struct asked *a,
                    int16_t error)
{
    return kafka_sim_topic_excused(a->part->topic, error) || c->weak || kafka_sim_excused(w, error);
}

static void wrong(struct kafka_sim *w, const struct asked *a, const char *what, int64_t value)
{
    kafka_sim_fail(w, "%s-%d: %s %" PRId64, name_of(w, a->part), (int)a->part->index, what, value);
}

/* --- queues of idempotent producers --- */

static int queue_at(const struct sim_queue *q, const struct sim_batch *b)
{
    for (unsigned i = 0; i < q->n; i++)
        if (q->at[i] == b)
            return (int)i;
    return -1;
}

static struct sim_queue *queue_of(struct sim_batch *b)
{
    for (unsigned k = 0; b->producer >= 0 && k < SIM_PRODUCERS; k++)
        if (queue_at(&b->part->queues[k], b) >= 0)
            return &b->part->queues[k];
    return NULL;
}

static void queue_drop(struct sim_queue *q, unsigned at)
{
    q->n--;
    memmove(q->at + at, q->at + at + 1, (q->n - at) * sizeof q->at[0]);
}

/* The client that has batches of this queue in flight; SIM_CLIENTS: none. */
static unsigned queue_slot(const struct sim_queue *q)
{
    for (unsigned i = 0; i < q->n; i++)
        if (q->at[i]->in_flight)
            return q->at[i]->slot;
    return SIM_CLIENTS;
}

/* One failed: the rest is sent again from the first, when nothing is in flight any more. */
static bool queue_broken(const struct sim_queue *q)
{
    for (unsigned i = 0; i < q->n; i++)
        if (!q->at[i]->in_flight)
            return true;
    return false;
}

/* --- Produce --- */

static void batch_acked(struct kafka_sim *w, const struct data_call *c, const struct asked *a,
                        int64_t offset)
{
    struct sim_batch *b = a->batch;
    struct sim_queue *q = queue_of(b);
    int at = q ? queue_at(q, b) : -1;

    if (c->failed_before)
        wrong(w, a, "acked after the device had failed: batch", b->no);
    if (a->deleted)
        wrong(w, a, "acked by a deleted topic: batch", b->no);
    if (offset < 0)
        wrong(w, a, "acked without an offset:", offset);
    w->n->produced++;
    w->n->idempotent += b->producer >= 0;
    w->n->repeated += b->sends > 1;
    w->n->duplicates += b->sends > 1 && b->offset >= 0;
    sim_model_placed(w, b, offset);
    b->acked = true;
    if (at >= 0)
        queue_drop(q, (unsigned)at);
}

static void batch_failed(struct kafka_sim *w, const struct data_call *c, const struct asked *a,
                         int16_t error)
{
    struct sim_batch *b = a->batch;
    struct sim_queue *q = queue_of(b);
    bool first = q && queue_at(q, b) == 0;

    if (error == KAFKA_STORAGE_ERROR && journal_state(w->js.j) == JRN_FULL)
        w->n->full++;
    if (error == KAFKA_OUT_OF_ORDER_SEQUENCE) {
        /* Where a producer was forgotten, an older repeat that was taken as new goes before this one. */
        if (q && first && !(w->rows_lost && sim_model_start_max(a->part) > 0))
            wrong(w, a, "out of order, though all before were acked: batch", b->no);
        if (b->producer < 0)
            wrong(w, a, "a sequence of no producer: batch", b->no);
        return;
    }
    if (error == KAFKA_DUPLICATE_SEQUENCE && b->sends > 1 && !c->failed_before) {
        b->acked =
            true; /* older than what is remembered: reading whole will show whether it is true */
        /* Older than what is remembered: reading whole will show whether it is true. */
        b->acked = true;
        if (q)
            queue_drop(q, (unsigned)queue_at(q, b));
        return;
    }
    if (error == KAFKA_REQUEST_TIMED_OUT && c->hurried)
        return;
    if (!excused(w, c, a, error))
        wrong(w, a, "produced with error", error);
}

static void not_in_flight(struct data_call *c)
{
    for (unsigned i = 0; i < c->n; i++)
        c->asked[i].batch->in_flight = false;
}

static void produced(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_produce_response *r = answer;
    struct data_call *c = (struct data_call *)call;

    data_end(w, c);
    not_in_flight(c);
    if (!r)
        return;
    if (r->topics.n != (int32_t)c->n)
        kafka_sim_fail(w, "Produce: %d topics answered of %u", (int)r->topics.n, c->n);
    for (unsigned i = 0; i < c->n; i++) {
        const struct asked *a = &c->asked[i];
        const struct kafka_produce_partition_answer *p = r->topics.at[i].partitions.at;

        if (r->topics.at[i].partitions.n != 1 || p->index != a->part->index)
            wrong(w, a, "Produce answers another partition:", p->index);
        SAY(w, "%s-%d batch %u seq %d: error %d offset %" PRId64, name_of(w, a->part),
            (int)a->part->index, a->batch->no, (int)a->batch->sequence, p->error_code,
            p->base_offset);
        if (c->error)
            *c->error = p->error_code;
        if (p->error_code)
            batch_failed(w, c, a, p->error_code);
        else
            batch_acked(w, c, a, p->base_offset);
    }
}

/* What follows a request without an answer: that this is answered says that the other was seen. */
static void fence_passed(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    data_end(w, (struct data_call *)call);
}

static void produce_add(struct kafka_sim *w, struct data_call *c, struct door_client *client,
                        struct sim_batch *b)
{
    data_ask(w, c, b->part)->batch = b;
    b->in_flight = true;
    b->slot = client->slot;
    if (b->sends++ == 0) {
        b->conn_no = client->conn_no;
        b->send_no = client->send_no;
    }
}

static void produce_send(struct kafka_sim *w, struct door_client *client, struct data_call *c,
                         int16_t acks)
{
    struct kafka_arena mem;
    struct kafka_produce_request *q;
    bool zstd = false, by_id = true;
    int16_t version;

    kafka_arena_init(&mem, 1 << 20);
    q = KAFKA_NEW(&mem, produce_request, 1);
    q->topics.at = KAFKA_NEW(&mem, produce_topic, c->n);
    q->topics.n = (int32_t)c->n;
    for (unsigned i = 0; i < c->n; i++) {
        const struct sim_batch *b = c->asked[i].batch;
        struct kafka_produce_partition *p = KAFKA_NEW(&mem, produce_partition, 1);
        struct kafka_produce_topic *t = &q->topics.at[i];

        t->name = kafka_str_of(name_of(w, b->part));
        t->topic_id = b->part->topic->id;
        t->partitions.at = p;
        t->partitions.n = 1;
        p->index = b->part->index;
        p->records = (struct kafka_records){ .mem = b->bytes->mem, .len = (int32_t)b->bytes->len };
        zstd |= b->zstd;
        by_id &= b->part->topic->id_known;
    }
    version = some_version(w, zstd ? ZSTD_FROM : 3, by_id ? TOPIC_IDS_FROM : TOPIC_IDS_FROM - 1);
    q->acks = acks;
    q->timeout_ms = c->hurried ? SHORT_MS : LONG_MS;
    if (acks)
        door_client_send(w, client, &c->call, PRODUCE, version, q);
    else
        door_client_send(w, client, NULL, PRODUCE, version, q);
    kafka_arena_fini(&mem);
}

/* Batches of no producer: whatever becomes of them, they are not sent again. */
static void produce_plain(struct kafka_sim *w, struct door_client *client, struct sim_part *p)
{
    int16_t acks = chance(w, 1, 8) ? 0 : chance(w, 1, 3) ? 1 : -1;
    struct data_call *c = data_new(w, acks ? produced : fence_passed);
    struct kafka_arena mem;

    c->hurried = acks && chance(w, 1, 30);
    while (p && c->n < PARTS_MAX && !has_part(c, p)) {
        produce_add(w, c, client, sim_model_batch(&w->m, &w->rng, p, -1, -1, w->batch_bytes));
        p = acks && chance(w, 1, 3) ? kafka_sim_part(w, true) : NULL;
    }
    produce_send(w, client, c, acks);
    if (acks)
        return;
    w->n->unasked += c->n;
    not_in_flight(c);
    kafka_arena_init(&mem, 1 << 20);
    door_client_send(w, client, &c->call, API_VERSIONS, 0,
                     KAFKA_NEW(&mem, api_versions_request, 1));
    kafka_arena_fini(&mem);
}

static void send_one(struct kafka_sim *w, struct door_client *client, struct sim_batch *b)
{
    struct data_call *c = data_new(w, produced);

    c->hurried = chance(w, 1, 30);
    produce_add(w, c, client, b);
    produce_send(w, client, c, chance(w, 1, 3) ? 1 : -1);
}

static void produce_idempotent(struct kafka_sim *w, struct door_client *client, struct sim_part *p,
                               unsigned k)
{
    struct sim_queue *q = &p->queues[k];
    unsigned slot = queue_slot(q);
    unsigned more = 1 + (unsigned)below(w, SIM_QUEUE);

    if (slot < SIM_CLIENTS && (queue_broken(q) || slot != client->slot))
        return;
    if (slot == SIM_CLIENTS)
        for (unsigned i = 0; i < q->n; i++)
            send_one(w, client, q->at[i]);
    while (q->n < SIM_QUEUE && more-- > 0) {
        struct sim_batch *b =
            sim_model_batch(&w->m, &w->rng, p, w->producers[k].id, q->next, w->batch_bytes);

        q->next += (int32_t)b->n_records;
        q->at[q->n++] = b;
        send_one(w, client, b);
    }
}

void kafka_sim_produce(struct kafka_sim *w)
{
    struct door_client *client = kafka_sim_client(w);
    struct sim_part *p = kafka_sim_part(w, chance(w, 15, 16));
    unsigned k = (unsigned)below(w, SIM_PRODUCERS + 2);

    if (!client || !p)
        return;
    if (k < SIM_PRODUCERS && w->producers[k].id >= 0)
        produce_idempotent(w, client, p, k);
    else
        produce_plain(w, client, p);
}

int kafka_sim_produce_one(struct kafka_sim *w, struct sim_part *p, uint32_t bytes)
{
    struct door_client *client = &w->clients[SIM_CONTROL];
    struct sim_batch *b = sim_model_batch(&w->m, &w->rng, p, -1, -1, bytes);
    struct data_call *c = data_new(w, produced);
    struct kafka_arena mem;
    struct kafka_produce_request *q;
    int error = -1;
    bool good;

    c->error = &error;
    produce_add(w, c, client, b);
    kafka_arena_init(&mem, 1 << 20);
    q = KAFKA_NEW(&mem, produce_request, 1);
    q->topics.at = KAFKA_NEW(&mem, produce_topic, 1);
    q->topics.n = 1;
    q->topics.at->name = kafka_str_of(name_of(w, p));
    q->topics.at->partitions.at = KAFKA_NEW(&mem, produce_partition, 1);
    q->topics.at->partitions.n = 1;
    q->topics.at->partitions.at->index = p->index;
    q->topics.at->partitions.at->records =
        (struct kafka_records){ .mem = b->bytes->mem, .len = (int32_t)b->bytes->len };
    q->acks = -1;
    q->timeout_ms = LONG_MS;
    good = kafka_sim_ask(w, &c->call, PRODUCE, 9, q);
    kafka_arena_fini(&mem);
    return good ? error : -1;
}

/* --- Fetch --- */

static int32_t records_seen(struct kafka_sim *w, const struct asked *a,
                            const struct kafka_fetch_partition_answer *p, int64_t *next)
{
    const uint8_t *mem = p->records.mem;
    int32_t left = p->records.len;
    int64_t at = a->offset;
    bool first = true;

    while (left > 0) {
        uint32_t bytes;
        int64_t base, end = sim_model_seen(w, a->part, mem, (size_t)left, &bytes, &base);

        if (first ? base > at || end <= at : base != at)
            wrong(w, a, "offsets are not dense: a batch at", base);
        if (end > p->high_watermark)
            wrong(w, a, "fetched past the high watermark: to", end);
        first = false;
        at = end;
        mem += bytes;
        left -= (int32_t)bytes;
        w->n->records++;
    }
    if (next)
        *next = at;
    return p->records.len > 0 ? p->records.len : 0;
}

static int32_t part_fetched(struct kafka_sim *w, struct data_call *c, const struct asked *a,
                            const struct kafka_fetch_partition_answer *p)
{
    if (p->index != a->part->index)
        wrong(w, a, "Fetch answers another partition:", p->index);
    if (c->error)
        *c->error = p->error_code;
    if (p->error_code == KAFKA_OFFSET_OUT_OF_RANGE) {
        if (a->offset >= 0 && a->offset <= a->end && a->offset >= sim_model_start_max(a->part))
            wrong(w, a, "out of range:", a->offset);
        return 0;
    }
    if (c->call.version < FETCH_ZSTD_FROM && a->part->topic->codecs & 1u << CODEC_ZSTD) {
        if (p->error_code == KAFKA_UNSUPPORTED_COMPRESSION)
            return 0;
        if (!p->error_code && only_zstd(a->part))
            wrong(w, a, "gives a zstd topic to Fetch version", c->call.version);
    }
    if (p->error_code) {
        if (!excused(w, c, a, p->error_code))
            wrong(w, a, "fetched with error", p->error_code);
        return 0;
    }
    if (a->deleted)
        wrong(w, a, "fetched from a deleted topic up to", p->high_watermark);
    w->n->fetches++;
    if (p->high_watermark < a->end)
        wrong(w, a, "the high watermark went back to", p->high_watermark);
    if (a->offset < a->start)
        wrong(w, a, "what was deleted is read from", a->offset);
    if (c->call.version >= 5 && p->log_start_offset < a->start)
        wrong(w, a, "the start went back to", p->log_start_offset);
    if (c->call.version >= 5 && p->log_start_offset > a->part->start)
        sim_model_start(w, a->part, p->log_start_offset);
    if (p->high_watermark > a->part->end)
        a->part->end = p->high_watermark;
    if (c->n == 1 && p->records.len <= 0 && p->high_watermark > a->offset)
        wrong(w, a, "nothing was fetched below the high watermark, from", a->offset);
    return records_seen(w, a, p, c->next);
}

/* Too little, and too early? */
static void patience_check(struct kafka_sim *w, const struct data_call *c, int64_t bytes,
                           bool error)
{
    uint64_t due = c->call.sent_us + 1000 * (uint64_t)c->wait_ms;
    bool enough = bytes >= c->min_bytes || bytes >= c->max_bytes;

    if (c->wait_ms > 0 && bytes == 0 && !error)
        w->n->waited++;
    if (c->wait_ms > 0 && bytes > 0 && c->asked[0].offset >= c->asked[0].end)
        w->n->woken++;
    if (!enough && !error && !w->ending && sim_now_us(w->js.sim) < due)
        kafka_sim_fail(w, "a fetch was answered %" PRIu64 " us early with %" PRId64 " bytes of %d",
                       due - sim_now_us(w->js.sim), bytes, (int)c->min_bytes);
}

static void fetched(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_fetch_response *r = answer;
    struct data_call *c = (struct data_call *)call;
    int64_t bytes = 0;
    bool error = false;

    data_end(w, c);
    if (!r)
        return;
    if (r->error_code || r->session_id || r->topics.n != (int32_t)c->n)
        kafka_sim_fail(w, "Fetch: error %d, %d topics", r->error_code, (int)r->topics.n);
    for (unsigned i = 0; i < c->n; i++) {
        if (r->topics.at[i].partitions.n != 1)
            wrong(w, &c->asked[i], "Fetch: partitions", r->topics.at[i].partitions.n);
        bytes += part_fetched(w, c, &c->asked[i], r->topics.at[i].partitions.at);
        error |= r->topics.at[i].partitions.at->error_code != 0;
    }
    patience_check(w, c, bytes, error);
}

static void fetch_send(struct kafka_sim *w, struct door_client *client, struct data_call *c,
                       int32_t part_bytes)
{
    struct kafka_arena mem;
    struct kafka_fetch_request *q;
    bool by_id = true, zstd = false;
    int16_t version;

    kafka_arena_init(&mem, 1 << 20);
    q = KAFKA_NEW(&mem, fetch_request, 1);
    q->topics.at = KAFKA_NEW(&mem, fetch_topic, c->n);
    q->topics.n = (int32_t)c->n;
    for (unsigned i = 0; i < c->n; i++) {
        struct kafka_fetch_partition *p = KAFKA_NEW(&mem, fetch_partition, 1);
        const struct asked *a = &c->asked[i];

        q->topics.at[i].name = kafka_str_of(name_of(w, a->part));
        q->topics.at[i].topic_id = a->part->topic->id;
        q->topics.at[i].partitions.at = p;
        q->topics.at[i].partitions.n = 1;
        p->index = a->part->index;
        p->fetch_offset = a->offset;
        p->max_bytes = part_bytes;
        by_id &= a->part->topic->id_known;
        zstd |= (a->part->topic->codecs & 1u << CODEC_ZSTD) != 0;
    }
    q->max_wait_ms = c->wait_ms;
    q->min_bytes = c->min_bytes;
    q->max_bytes = c->max_bytes;
    version =
        some_version(w, zstd && c->control ? FETCH_ZSTD_FROM : 4, by_id ? 18 : TOPIC_IDS_FROM - 1);
    if (c->control)
        kafka_sim_ask(w, &c->call, FETCH, version, q);
    else
        door_client_send(w, client, &c->call, FETCH, version, q);
    kafka_arena_fini(&mem);
}

static int64_t some_offset(struct kafka_sim *w, const struct sim_part *p)
{
    if (chance(w, 1, 2))
        return p->end;
    return (int64_t)below(w, (uint64_t)p->end + 3) - chance(w, 1, 50);
}

void kafka_sim_fetch(struct kafka_sim *w)
{
    struct door_client *client = kafka_sim_client(w);
    struct sim_part *p = kafka_sim_part(w, chance(w, 7, 8));
    struct data_call *c;

    if (!client || !p)
        return;
    c = data_new(w, fetched);
    while (p && c->n < PARTS_MAX && !has_part(c, p)) {
        data_ask(w, c, p)->offset = some_offset(w, p);
        p = chance(w, 1, 2) ? kafka_sim_part(w, true) : NULL;
    }
    c->min_bytes = chance(w, 1, 2) ? 1 : (int32_t)below(w, 5000);
    c->max_bytes = 1 + (int32_t)below(w, w->conf.fetch_max);
    if (chance(w, 1, 2))
        c->wait_ms = 1 + (int32_t)below(w, chance(w, 1, 2) ? 30 : 1000);
    fetch_send(w, client, c, 1 + (int32_t)below(w, 100000));
}

/* --- ListOffsets --- */

enum { LATEST = -1, EARLIEST = -2, MAX_TIMESTAMP = -3, EARLIEST_LOCAL = -4, LATEST_TIERED = -5 };

/* The record that the answer names has the time that it names. */
static void time_check(struct kafka_sim *w, const struct asked *a,
                       const struct kafka_list_offsets_partition_answer *p)
{
    const struct sim_part *part = a->part;

    if (a->time >= 0 && p->timestamp < a->time)
        wrong(w, a, "a time before the one asked for:", p->timestamp);
    w->n->times++;
    for (unsigned i = 0; i < part->n_log; i++) {
        const struct sim_batch *b = part->log[i];

        if (p->offset < b->offset || p->offset >= b->offset + b->n_records)
            continue;
        if (sim_batch_time(b, (unsigned)(p->offset - b->offset)) != p->timestamp)
            wrong(w, a, "a record has not the time listed:", p->offset);
    }
}

static void offset_listed(struct kafka_sim *w, const struct asked *a,
                          const struct kafka_list_offsets_partition_answer *p)
{
    w->n->listed++;
    if (a->time == LATEST) {
        if (p->offset < a->end)
            wrong(w, a, "the latest offset went back to", p->offset);
        if (p->offset > a->part->end)
            a->part->end = p->offset;
    } else if (a->time == EARLIEST || a->time == EARLIEST_LOCAL) {
        if (p->offset < a->start)
            wrong(w, a, "the earliest offset went back to", p->offset);
        if (p->offset > a->part->start)
            sim_model_start(w, a->part, p->offset);
    } else if (a->time == LATEST_TIERED || a->time < LATEST_TIERED) {
        if (p->offset != -1)
            wrong(w, a, "nothing is tiered, but the offset is", p->offset);
    } else if (p->offset >= 0) {
        time_check(w, a, p);
    } else if (a->time == MAX_TIMESTAMP && a->end > sim_model_start_max(a->part) &&
               !a->part->topic->deleting) {
        wrong(w, a, "has records, and no largest time:", a->end);
    }
}

static void listed(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_list_offsets_response *r = answer;
    struct data_call *c = (struct data_call *)call;
    const struct asked *a = &c->asked[0];
    const struct kafka_list_offsets_partition_answer *p;
    int64_t offset = -1, ts = -1;

    data_end(w, c);
    if (!r)
        return;
    if (r->topics.n != 1 || r->topics.at->partitions.n != 1)
        kafka_sim_fail(w, "ListOffsets: %d topics", (int)r->topics.n);
    p = r->topics.at->partitions.at;
    if (p->error_code) {
        if (!excused(w, c, a, p->error_code))
            wrong(w, a, "offsets listed with error", p->error_code);
        return;
    }
    offset_listed(w, a, p);
    if (!c->control || a->time < MAX_TIMESTAMP || a->time == EARLIEST ||
        sim_model_start_max(a->part) > a->part->start)
        return;
    sim_model_time(a->part, a->time, &offset, &ts);
    if (p->offset != offset || p->timestamp != ts)
        kafka_sim_fail(w,
                       "%s-%d: time %" PRId64 " is at %" PRId64 " (%" PRId64 "), not at %" PRId64
                       " (%" PRId64 ")",
                       name_of(w, a->part), (int)a->part->index, a->time, p->offset, p->timestamp,
                       offset, ts);
}

static int64_t some_time(struct kafka_sim *w, bool special)
{
    if (special && chance(w, 1, 2))
        return -1 - (int64_t)below(w, 6);
    if (chance(w, 1, 4))
        return MAX_TIMESTAMP;
    return SIM_FIRST_TIME + (int64_t)below(w, SIM_TIME_STEP * ((uint64_t)w->m.n_batches + 2));
}

/* Since which version a special time may be asked for. */
static int16_t time_since(int64_t time)
{
    static const int16_t since[] = { 1, 1, 1, 7, 8, 9, 11 };

    return time < 0 ? since[-time] : 1;
}

static void list_send(struct kafka_sim *w, struct door_client *client, struct data_call *c)
{
    struct kafka_arena mem;
    struct kafka_list_offsets_request *q;
    struct kafka_list_offsets_partition *p;
    const struct asked *a = &c->asked[0];
    int16_t version = some_version(w, time_since(a->time), 11);

    kafka_arena_init(&mem, 1 << 20);
    q = KAFKA_NEW(&mem, list_offsets_request, 1);
    p = KAFKA_NEW(&mem, list_offsets_partition, 1);
    p->index = a->part->index;
    p->timestamp = a->time;
    q->replica_id = -1;
    q->topics.at = KAFKA_NEW(&mem, list_offsets_topic, 1);
    q->topics.n = 1;
    q->topics.at->name = kafka_str_of(name_of(w, a->part));
    q->topics.at->partitions.at = p;
    q->topics.at->partitions.n = 1;
    if (c->control)
        kafka_sim_ask(w, &c->call, LIST_OFFSETS, version, q);
    else
        door_client_send(w, client, &c->call, LIST_OFFSETS, version, q);
    kafka_arena_fini(&mem);
}

void kafka_sim_list(struct kafka_sim *w)
{
    struct door_client *client = kafka_sim_client(w);
    struct sim_part *p = kafka_sim_part(w, chance(w, 7, 8));
    struct data_call *c;

    if (!client || !p)
        return;
    c = data_new(w, listed);
    data_ask(w, c, p)->time = some_time(w, true);
    list_send(w, client, c);
}

bool kafka_sim_time_check(struct kafka_sim *w, struct sim_part *p)
{
    struct data_call *c = data_new(w, listed);

    c->control = true;
    data_ask(w, c, p)->time = some_time(w, false);
    list_send(w, NULL, c);
    return !w->js.disk->off;
}

/* --- reading whole --- */

/* Learns where it begins now. */
static bool start_ask(struct kafka_sim *w, struct sim_part *p)
{
    struct data_call *c = data_new(w, listed);

    c->control = true;
    data_ask(w, c, p)->time = EARLIEST;
    list_send(w, NULL, c);
    return !w->js.disk->off;
}

bool kafka_sim_read_whole(struct kafka_sim *w, struct sim_part *p)
{
    int64_t from = p->start, at = from;
    int error = 0;

    do {
        struct data_call *c = data_new(w, fetched);
        int64_t next = -1;

        data_ask(w, c, p)->offset = at;
        c->control = true;
        c->error = &error;
        c->next = &next;
        c->max_bytes = 1 + (int32_t)below(w, w->conf.fetch_max);
        fetch_send(w, NULL, c, 1 + (int32_t)below(w, 100000));
        if (w->js.disk->off || (error && kafka_sim_weak(w)))
            return false;
        if (error == KAFKA_OFFSET_OUT_OF_RANGE && sim_model_start_max(p) > at) {
            if (!start_ask(w, p))
                return false;
            if (p->start <= at)
                kafka_sim_fail(w, "%s-%d begins at %" PRId64 ", but %" PRId64 " is out of range",
                               name_of(w, p), (int)p->index, p->start, at);
            at = from = p->start; /* it went on meanwhile: from there */
            continue;
        }
        if (error || next < at || (next == at && at < p->end))
            kafka_sim_fail(w, "%s-%d cannot be read from %" PRId64 ": error %d", name_of(w, p),
                           (int)p->index, at, error);
        at = next;
    } while (at < p->end || error);
    sim_model_whole(w, p, from, at);
    w->n->whole++;
    return true;
}

/* --- DeleteRecords --- */

static void trimmed(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_delete_records_response *r = answer;
    struct data_call *c = (struct data_call *)call;
    const struct kafka_delete_records_partition_answer *p;
    const struct asked *a = &c->asked[0];

    data_end(w, c);
    if (!r)
        return; /* who knows: n_trims stays */
    p = r->topics.at->partitions.at;
    if (p->error_code) {
        if (!excused(w, c, a, p->error_code))
            wrong(w, a, "records deleted with error", p->error_code);
        return;
    }
    if (p->low_watermark < a->offset || p->low_watermark < a->start)
        wrong(w, a, "after deleting records it begins at", p->low_watermark);
    if (p->low_watermark > a->part->start)
        sim_model_start(w, a->part, p->low_watermark);
    SAY(w, "%s-%d: records deleted to %" PRId64 ": begins at %" PRId64, name_of(w, a->part),
        (int)a->part->index, a->offset, p->low_watermark);
    if (--a->part->n_trims == 0)
        a->part->trim = a->part->start;
    w->n->trims++;
}

void kafka_sim_trim(struct kafka_sim *w)
{
    struct door_client *client = kafka_sim_client(w);
    struct sim_part *p = kafka_sim_part(w, chance(w, 15, 16));
    struct kafka_delete_records_request *q;
    struct kafka_delete_records_partition *part;
    struct kafka_arena mem;
    struct data_call *c;
    int64_t offset;

    if (!client || !p)
        return;
    offset = chance(w, 1, 8) ? -1 : (int64_t)below(w, (uint64_t)p->end + 1);
    SAY(w, "%s-%d: deletes records to %" PRId64, name_of(w, p), (int)p->index, offset);
    c = data_new(w, trimmed);
    data_ask(w, c, p)->offset = offset;
    p->n_trims++;
    if (offset < 0)
        p->trim = INT64_MAX;
    else if (offset > p->trim)
        p->trim = offset;
    kafka_arena_init(&mem, 1 << 20);
    q = KAFKA_NEW(&mem, delete_records_request, 1);
    part = KAFKA_NEW(&mem, delete_records_partition, 1);
    part->index = p->index;
    part->offset = offset;
    q->topics.at = KAFKA_NEW(&mem, delete_records_topic, 1);
    q->topics.n = 1;
    q->topics.at->name = kafka_str_of(name_of(w, p));
    q->topics.at->partitions.at = part;
    q->topics.at->partitions.n = 1;
    door_client_send(w, client, &c->call, DELETE_RECORDS, some_version(w, 0, 2), q);
    kafka_arena_fini(&mem);
}

/* --- settings --- */

static void configured(struct kafka_sim *w, struct sim_call *call, const void *answer)
{
    const struct kafka_incremental_alter_configs_response *r = answer;
    struct data_call *c = (struct data_call *)call;
    int16_t error;

    data_end(w, c);
    if (!r)
        return;
    error = r->responses.at->error_code;
    if (error && !excused(w, c, &c->asked[0], error))
        wrong(w, &c->asked[0], "settings changed with error", error);
    SAY(w, "%s: settings changed: error %d", name_of(w, c->asked[0].part), error);
    w->n->configured += !error;
}

/* retention.ms, or compression.type: what was ever asked for may be met from now on. */
static void setting_ask(struct kafka_sim *w, struct sim_topic *t,
                        struct kafka_incremental_config *s)
{
    static const char *const codecs[] = { "uncompressed", "gzip", "snappy",
                                          "lz4",          "zstd", "producer" };
    static const char *const times[] = { "0", "100", "1000", "5000" };
    unsigned i = (unsigned)below(w, 4), k = (unsigned)below(w, CODEC_COUNT + 1);

    s->config_operation = chance(w, 1, 4); /* 1: back to the default */
    if (chance(w, 1, 2)) {
        s->name = kafka_str_of("compression.type");
        s->value = kafka_str_of(s->config_operation ? NULL : codecs[k]);
        t->codecs |= s->config_operation ? SIM_AS_SENT : 1u << k;
        return;
    }
    s->name = kafka_str_of("retention.ms");
    s->value = kafka_str_of(s->config_operation ? NULL : times[i]);
    if (!s->config_operation && (t->retention_ms < 0 || t->retention_ms > atoi(times[i])))
        t->retention_ms = atoi(times[i]);
}

void kafka_sim_configure(struct kafka_sim *w)
{
    struct door_client *client = kafka_sim_client(w);
    struct sim_part *p = kafka_sim_part(w, true);
    struct kafka_incremental_alter_configs_request *q;
    struct kafka_incremental_resource *r;
    struct kafka_arena mem;
    struct data_call *c;

    if (!client || !p)
        return;
    c = data_new(w, configured);
    data_ask(w, c, p);
    kafka_arena_init(&mem, 1 << 20);
    q = KAFKA_NEW(&mem, incremental_alter_configs_request, 1);
    r = KAFKA_NEW(&mem, incremental_resource, 1);
    r->resource_type = 2; /* a topic */
    r->resource_name = kafka_str_of(name_of(w, p));
    r->configs.at = KAFKA_NEW(&mem, incremental_config, 1);
    r->configs.n = 1;
    setting_ask(w, p->topic, r->configs.at);
    SAY(w, "%s: sets %s to %s", name_of(w, p), r->configs.at->name.mem,
        r->configs.at->value.mem ? r->configs.at->value.mem : "its default");
    q->resources.at = r;
    q->resources.n = 1;
    door_client_send(w, client, &c->call, INCREMENTAL_ALTER_CONFIGS, some_version(w, 0, 1), q);
    kafka_arena_fini(&mem);
}
