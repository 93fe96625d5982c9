#include "tests/gateways/kafka_sim_model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "format/codec.h"
#include "journal/journal.h"
#include "tests/gateways/kafka_sim_int.h"

enum { TIME_MIX = 5 }; /* how times are mixed up so that they do not follow the offsets */

void sim_model_init(struct sim_model *m)
{
    *m = (struct sim_model){ 0 };
    for (unsigned i = 0; i < SIM_NAMES; i++)
        snprintf(m->names[i].text, sizeof m->names[i].text, "t%u", i);
}

void sim_model_fini(struct sim_model *m)
{
    struct sim_topic *t;

    while ((t = m->topics)) {
        m->topics = t->next;
        for (int i = 0; i < SIM_PARTITIONS; i++)
            free(t->parts[i].log);
        free(t);
    }
    for (uint32_t i = 0; i < m->n_batches; i++) {
        buf_unref(m->batches[i]->bytes);
        free(m->batches[i]);
    }
    free(m->batches);
    free(m->producers);
    *m = (struct sim_model){ 0 };
}

struct sim_topic *sim_model_topic_new(struct sim_model *m, unsigned name, int32_t n_parts,
                                      unsigned codecs)
{
    struct sim_topic *t = mem_new(sizeof *t);

    t->name = name;
    t->n_parts = n_parts;
    t->codecs = codecs;
    t->retention_ms = -1;
    t->next = m->topics;
    m->topics = t;
    for (int32_t i = 0; i < SIM_PARTITIONS; i++) {
        t->parts[i].topic = t;
        t->parts[i].index = i;
        for (unsigned g = 0; g < SIM_GROUPS; g++)
            t->parts[i].commits[g] = (struct sim_commit){ .acked = -1, .sent = -1 };
    }
    return t;
}

void sim_model_topic_id(struct kafka_sim *w, struct sim_topic *t, const struct kafka_uuid *id)
{
    if (t->id_known && memcmp(&t->id, id, sizeof *id) != 0)
        kafka_sim_fail(w, "topic %s has changed its id", w->m.names[t->name].text);
    if (t->id_known)
        return;
    for (const struct sim_topic *o = w->m.topics; o; o = o->next)
        if (o->id_known && memcmp(&o->id, id, sizeof *id) == 0)
            kafka_sim_fail(w, "topic %s has the id of an older topic", w->m.names[t->name].text);
    t->id = *id;
    t->id_known = true;
}

void sim_model_producer(struct kafka_sim *w, int64_t id)
{
    struct sim_model *m = &w->m;

    for (unsigned i = 0; i < m->n_producers; i++)
        if (m->producers[i] == id)
            kafka_sim_fail(w, "producer id %" PRId64 " was given twice", id);
    if (m->n_producers == m->cap_producers) {
        m->cap_producers = m->cap_producers ? 2 * m->cap_producers : 32;
        m->producers = mem_grow(m->producers, m->cap_producers * sizeof *m->producers);
    }
    m->producers[m->n_producers++] = id;
}

/* --- batches --- */

/* The first record has the least time, the second the largest: neither the first nor the last
 * offset is the answer to every question for a time. */
int64_t sim_batch_time(const struct sim_batch *b, unsigned k)
{
    return b->base_time + (k ? b->n_records - k : 0);
}

static void fill_value(struct rng *r, uint8_t *mem, size_t bytes, bool repetitive)
{
    uint64_t x = rng_u64(r);

    for (size_t i = 0; i < bytes; i++) {
        if (!repetitive && i % 8 == 0)
            x = rng_u64(r);
        mem[i] = (uint8_t)(x >> 8 * (i % 8));
    }
}

static struct buf *build(struct rng *r, const struct sim_batch *b, uint32_t bytes, unsigned codec)
{
    struct batch_builder builder = { .has_producer = b->producer >= 0,
                                     .producer_id = b->producer,
                                     .base_sequence = b->sequence };
    uint8_t *value = mem_new(bytes + 1);
    struct buf *out = NULL;

    for (unsigned k = 0; k < b->n_records; k++) {
        size_t n = bytes / b->n_records;

        fill_value(r, value, n, codec != CODEC_NONE);
        batch_builder_add(&builder, &(struct batch_new_record){ .timestamp = sim_batch_time(b, k),
                                                                .key = &b->no,
                                                                .key_bytes = sizeof b->no,
                                                                .value = value,
                                                                .value_bytes = n });
    }
    ASSERT(batch_builder_finish(&builder, (enum batch_codec)codec, &out) == 0);
    batch_builder_free(&builder);
    free(value);
    return out;
}

static void batch_keep(struct sim_model *m, struct sim_batch *b)
{
    if (m->n_batches == m->cap_batches) {
        m->cap_batches = m->cap_batches ? 2 * m->cap_batches : 256;
        m->batches = mem_grow(m->batches, m->cap_batches * sizeof(struct sim_batch *));
    }
    b->no = m->n_batches;
    m->batches[m->n_batches++] = b;
}

struct sim_batch *sim_model_batch(struct sim_model *m, struct rng *r, struct sim_part *p,
                                  int64_t producer, int32_t sequence, uint32_t max_bytes)
{
    struct sim_batch *b = mem_new(sizeof *b);
    unsigned codec = rng_chance(r, 1, 4) ? (unsigned)rng_below(r, CODEC_COUNT) : CODEC_NONE;

    batch_keep(m, b);
    b->part = p;
    b->producer = producer;
    b->sequence = producer < 0 ? -1 : sequence;
    b->n_records = 1 + (unsigned)rng_below(r, rng_chance(r, 1, 2) ? 1 : SIM_RECORDS);
    b->base_time = SIM_FIRST_TIME + (int64_t)SIM_TIME_STEP * (b->no ^ TIME_MIX);
    b->offset = -1;
    b->bytes = build(r, b, b->n_records * 10 + (uint32_t)rng_below(r, max_bytes), codec);
    b->zstd = (b->bytes->mem[22] & BATCH_ATTR_CODEC) == CODEC_ZSTD;
    return b;
}

/* --- places --- */

static unsigned log_find(const struct sim_part *p, int64_t offset)
{
    unsigned low = 0, high = p->n_log;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (p->log[mid]->offset + p->log[mid]->n_records <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low; /* the first that ends past offset */
}

static void log_insert(struct kafka_sim *w, struct sim_part *p, struct sim_batch *b)
{
    unsigned at = log_find(p, b->offset);

    if (at < p->n_log && p->log[at]->offset < b->offset + b->n_records)
        kafka_sim_fail(w, "%s-%d: batches %u and %u both have offset %" PRId64,
                       w->m.names[p->topic->name].text, (int)p->index, b->no, p->log[at]->no,
                       b->offset);
    if (p->n_log == p->cap_log) {
        p->cap_log = p->cap_log ? 2 * p->cap_log : 64;
        p->log = mem_grow(p->log, p->cap_log * sizeof(struct sim_batch *));
    }
    memmove(p->log + at + 1, p->log + at, (p->n_log - at) * sizeof(struct sim_batch *));
    p->log[at] = b;
    p->n_log++;
}

/* With the rows lost, and all that it had written gone, a producer is not known any more: a repeat is
 * taken as new. */
static bool was_forgotten(const struct kafka_sim *w, const struct sim_batch *b)
{
    return w->rows_lost && b->producer >= 0 && !b->acked &&
           b->offset + b->n_records <= sim_model_start_max(b->part);
}

static void log_remove(struct sim_part *p, struct sim_batch *b)
{
    unsigned at = log_find(p, b->offset);

    ASSERT(p->log[at] == b);
    p->n_log--;
    memmove(p->log + at, p->log + at + 1, (p->n_log - at) * sizeof(struct sim_batch *));
    b->offset = -1;
}

void sim_model_placed(struct kafka_sim *w, struct sim_batch *b, int64_t offset)
{
    struct sim_part *p = b->part;

    if (b->gone)
        kafka_sim_fail(w, "%s-%d: batch %u came back from nowhere at %" PRId64,
                       w->m.names[p->topic->name].text, (int)p->index, b->no, offset);
    if (b->offset >= 0 && b->offset != offset && was_forgotten(w, b))
        log_remove(p, b);
    if (b->offset >= 0 && b->offset != offset)
        kafka_sim_fail(w, "%s-%d: batch %u is at %" PRId64 " and at %" PRId64,
                       w->m.names[p->topic->name].text, (int)p->index, b->no, b->offset, offset);
    if (b->offset < 0) {
        b->offset = offset;
        log_insert(w, p, b);
    }
    if (p->end < offset + b->n_records)
        p->end = offset + b->n_records;
}

static unsigned codec_in(const uint8_t *mem)
{
    return mem[22] & BATCH_ATTR_CODEC;
}

static bool as_sent(const uint8_t *mem, size_t bytes, const struct buf *sent)
{
    return bytes == sent->len && memcmp(mem + 8, sent->mem + 8, 4) == 0 &&
           memcmp(mem + 16, sent->mem + 16, bytes - 16) == 0;
}

/* The same but for length, CRC and codec, and the same records once both are open. */
static bool as_sent_but_packed(const uint8_t *mem, size_t bytes, const struct buf *sent, int codec)
{
    struct buf *a = NULL, *b = NULL;
    bool same = codec_in(mem) == (unsigned)codec && mem[16] == sent->mem[16] &&
                mem[21] == sent->mem[21] && ((mem[22] ^ sent->mem[22]) & ~BATCH_ATTR_CODEC) == 0 &&
                memcmp(mem + 23, sent->mem + 23, BATCH_HEAD_BYTES - 23) == 0;

    ASSERT(codec_decompress((enum batch_codec)codec_in(sent->mem), sent->mem + BATCH_HEAD_BYTES,
                            sent->len - BATCH_HEAD_BYTES, 1 << 20, &b) == 0);
    if (same)
        same = codec_decompress((enum batch_codec)codec, mem + BATCH_HEAD_BYTES,
                                bytes - BATCH_HEAD_BYTES, 1 << 20, &a) == 0 &&
               a->len == b->len && memcmp(a->mem, b->mem, a->len) == 0;
    buf_unref(a);
    buf_unref(b);
    return same;
}

int64_t sim_model_seen(struct kafka_sim *w, struct sim_part *p, const uint8_t *mem, size_t left,
                       uint32_t *bytes, int64_t *base)
{
    const char *name = w->m.names[p->topic->name].text;
    struct batch_head h;
    struct sim_batch *b;
    uint64_t no;
    unsigned codec;
    bool good;

    if (batch_check(&h, mem, left) < 0)
        kafka_sim_fail(w, "%s-%d: what was fetched is not a batch", name, (int)p->index);
    no = (uint64_t)(h.base_timestamp - SIM_FIRST_TIME) / SIM_TIME_STEP ^ TIME_MIX;
    b = no < w->m.n_batches ? w->m.batches[no] : NULL;
    if (!b || b->part != p)
        kafka_sim_fail(w, "%s-%d: a batch at %" PRId64 " that nobody sent there", name,
                       (int)p->index, h.base_offset);
    codec = codec_in(mem);
    if (codec == codec_in(b->bytes->mem)) {
        good = p->topic->codecs & (SIM_AS_SENT | 1u << codec) && as_sent(mem, h.bytes, b->bytes);
    } else {
        good = p->topic->codecs & 1u << codec &&
               as_sent_but_packed(mem, h.bytes, b->bytes, (int)codec);
        w->n->recoded++;
    }
    if (!good)
        kafka_sim_fail(w, "%s-%d: batch %u is not what was sent", name, (int)p->index, b->no);
    sim_model_placed(w, b, h.base_offset);
    *bytes = h.bytes;
    *base = h.base_offset;
    return h.base_offset + b->n_records;
}

/* What one connection sent, and what one producer sent, is there in the order it was sent in. */
static void order_check(struct kafka_sim *w, const struct sim_part *p, unsigned first, unsigned at)
{
    const struct sim_batch *b = p->log[at];

    for (unsigned i = at > first + 12 ? at - 12 : first; i < at; i++) {
        const struct sim_batch *a = p->log[i];
        bool swapped = a->producer >= 0
                           ? a->producer == b->producer && a->sequence >= b->sequence
                           : b->producer < 0 && a->conn_no == b->conn_no && a->send_no > b->send_no;

        if (swapped)
            kafka_sim_fail(w, "%s-%d: batch %u at %" PRId64 " was sent after batch %u at %" PRId64,
                           w->m.names[p->topic->name].text, (int)p->index, a->no, a->offset, b->no,
                           b->offset);
    }
}

/* A producer's sequences are dense in each partition, from 0 on, or from what is still there (next -1).
 * next: by number of producer. */
static void sequence_check(struct kafka_sim *w, const struct sim_batch *b, int32_t *next)
{
    unsigned i = 0;

    if (b->producer < 0)
        return;
    while (w->m.producers[i] != b->producer)
        i++;
    if (next[i] >= 0 && b->sequence != next[i])
        kafka_sim_fail(w, "%s-%d: batch %u at %" PRId64 " has sequence %d, but %d is missing",
                       w->m.names[b->part->topic->name].text, (int)b->part->index, b->no, b->offset,
                       (int)b->sequence, (int)next[i]);
    next[i] = b->sequence + (int32_t)b->n_records;
}

int64_t sim_model_start_max(const struct sim_part *p)
{
    if (p->topic->retention_ms >= 0)
        return INT64_MAX;
    return p->trim > p->start ? p->trim : p->start;
}

void sim_model_start(struct kafka_sim *w, struct sim_part *p, int64_t start)
{
    const char *name = w->m.names[p->topic->name].text;
    int64_t now = SIM_FIRST_TIME + (int64_t)(sim_now_us(w->js.sim) / 1000) + w->wall_ahead_ms;

    if (start < p->start || start > sim_model_start_max(p))
        kafka_sim_fail(w, "%s-%d: begins at %" PRId64 ", not in %" PRId64 " to %" PRId64, name,
                       (int)p->index, start, p->start, sim_model_start_max(p));
    for (unsigned i = log_find(p, p->trim > p->start ? p->trim : p->start); i < p->n_log; i++) {
        const struct sim_batch *b = p->log[i];

        if (b->offset + b->n_records > start)
            break;
        w->n->expired++;
        /* A run goes when its largest time is old enough. */
        if (sim_batch_time(b, b->n_records > 1) + p->topic->retention_ms >= now)
            kafka_sim_fail(w,
                           "%s-%d: batch %u at %" PRId64 " of %" PRId64
                           " is gone too early, at %" PRId64 " with retention %" PRId64,
                           name, (int)p->index, b->no, b->offset,
                           sim_batch_time(b, b->n_records > 1) - SIM_FIRST_TIME,
                           now - SIM_FIRST_TIME, p->topic->retention_ms);
    }
    p->start = start;
    if (p->end < start)
        p->end = start;
}

void sim_model_whole(struct kafka_sim *w, struct sim_part *p, int64_t from, int64_t end)
{
    const char *name = w->m.names[p->topic->name].text;
    int32_t *next = mem_new((w->m.n_producers + 1) * sizeof *next);
    unsigned first = log_find(p, from);
    int64_t at = from;

    for (unsigned i = 0; from > 0 && i < w->m.n_producers; i++)
        next[i] = -1;
    if (first < p->n_log && p->log[first]->offset < from)
        at = p->log[first]->offset; /* only whole batches are given */
    if (end < p->end)
        kafka_sim_fail(w, "%s-%d: ends at %" PRId64 ", but had %" PRId64, name, (int)p->index, end,
                       p->end);
    for (unsigned i = first; i < p->n_log; i++) {
        if (p->log[i]->offset != at)
            kafka_sim_fail(w, "%s-%d: nothing is at %" PRId64, name, (int)p->index, at);
        order_check(w, p, first, i);
        sequence_check(w, p->log[i], next);
        at += p->log[i]->n_records;
    }
    for (uint32_t i = 0; i < w->m.n_batches; i++)
        if (w->m.batches[i]->part == p && w->m.batches[i]->acked && w->m.batches[i]->offset < 0 &&
            from == 0)
            kafka_sim_fail(w, "%s-%d: batch %u was said to be there, and is not", name,
                           (int)p->index, i);
    if (at != end)
        kafka_sim_fail(w, "%s-%d: ends at %" PRId64 ", but batches reach %" PRId64, name,
                       (int)p->index, end, at);
    free(next);
}

static bool queued(const struct sim_batch *b)
{
    for (unsigned k = 0; k < SIM_PRODUCERS; k++)
        for (unsigned i = 0; i < b->part->queues[k].n; i++)
            if (b->part->queues[k].at[i] == b)
                return true;
    return false;
}

void sim_model_settle(struct sim_part *p, struct sim_model *m)
{
    for (uint32_t i = 0; i < m->n_batches; i++) {
        struct sim_batch *b = m->batches[i];

        if (b->part == p && b->offset < 0 && !queued(b))
            b->gone = true;
    }
}

bool sim_model_time(const struct sim_part *p, int64_t time, int64_t *offset, int64_t *ts)
{
    bool found = false;

    for (unsigned i = 0; i < p->n_log; i++) {
        const struct sim_batch *b = p->log[i];

        for (unsigned k = 0; k < b->n_records; k++) {
            int64_t t = sim_batch_time(b, k);

            if (b->offset + k < p->start || (time == SHARD_TIME_MAX ? found && t <= *ts : t < time))
                continue;
            *offset = b->offset + k;
            *ts = t;
            found = true;
            if (time != SHARD_TIME_MAX)
                return true;
        }
    }
    return found;
}
