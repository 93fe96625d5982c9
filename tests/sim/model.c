#include "tests/sim/model.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "format/sum.h"
#include "tests/sim/compacted.h"

enum { BYTES_KEY_FROM = 16, FAIL_STATUS = 3 }; /* the server stamps the bytes before */

void model_init(struct model *m, uint64_t seed)
{
    *m = (struct model){ .seed = seed, .next_producer = 1000, .scale = 1 };
}

static void shard_free(struct model_shard *s)
{
    free(s->log);
    free(s->lost);
}

void model_fini(struct model *m)
{
    for (unsigned i = 0; i < m->n_all; i++) {
        buf_unref(m->all[i]->buf);
        free(m->all[i]);
    }
    free(m->all);
    for (unsigned i = 0; i < m->n_shards; i++)
        shard_free(&m->shards[i]);
    for (unsigned i = 0; i < m->n_updates; i++)
        free(m->updates[i]);
    free(m->updates);
    hash_free(&m->by_bytes);
    *m = (struct model){ 0 };
}

void model_fail(const struct model *m, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "seed %" PRIu64 " at %" PRIu64 " us: %s\n", m->seed, m->now_us, text);
    fflush(stderr);
    _exit(FAIL_STATUS);
}

/* --- batches --- */

static uint64_t bytes_key(const uint8_t *mem, uint32_t bytes)
{
    return sum_xxh3(mem + BYTES_KEY_FROM, bytes - BYTES_KEY_FROM, 0);
}

/* A key of few, sometimes no value; in a keyed shard also a header that says whose the record is. */
static void record_key(struct sent *x, struct rng *r, unsigned i, char *key,
                       struct batch_new_record *n, struct batch_header *header)
{
    x->key[i] = (int)rng_below(r, MODEL_RECORD_KEYS + 1) - 1;
    if (x->key[i] >= 0) {
        n->key = key;
        n->key_bytes = (size_t)sprintf(key, "key%d", x->key[i]);
        /* Else the first record's value tells one batch from another. */
        x->tombstone[i] = (i > 0 || x->shard->keyed) && rng_chance(r, 1, 4);
    }
    if (x->tombstone[i])
        n->value = NULL;
    if (!x->shard->keyed)
        return;
    *header =
        (struct batch_header){ (const uint8_t *)"of", 2, (const uint8_t *)&x->id, sizeof x->id };
    n->headers = header;
    n->n_headers = 1;
}

/* Mostly small, some near the limits of a block; timestamps go up and sometimes back. */
static void records_make(struct sent *x, struct rng *r, struct batch_builder *b, uint32_t scale)
{
    static const uint32_t sizes[] = { 40, 300, 1200, 3000, 7000, 15000 };
    uint32_t size = (uint32_t)rng_below(r, sizes[rng_below(r, 6)]) * scale;
    char value[65536], key[16];

    for (unsigned i = 0; i < x->n_records; i++) {
        struct batch_new_record n = { .value = value };
        struct batch_header header;
        int head;

        x->ts[i] =
            1700000000000 + (int64_t)(x->id * 10) - (int64_t)rng_below(r, 4) * 25 + (int64_t)i;
        head = snprintf(value, sizeof value, "%" PRIu64 ".%u ", x->id, i);
        n.value_bytes = (size_t)head + size / x->n_records;
        memset(value + head, (int)('a' + x->id % 26), size / x->n_records);
        n.timestamp = x->ts[i];
        record_key(x, r, i, key, &n, &header);
        batch_builder_add(b, &n);
    }
}

struct sent *model_send(struct model *m, struct model_shard *s, struct rng *r, int producer,
                        int32_t sequence, int16_t epoch)
{
    struct sent *x = mem_new(sizeof *x);
    struct batch_builder b = { 0 };

    x->id = m->n_all + 1;
    x->shard = s;
    x->n_records = 1 + (unsigned)(rng_chance(r, 1, 2) ? 0 : rng_below(r, MODEL_RECORDS_MAX));
    x->producer = producer;
    x->epoch = epoch;
    x->sequence = sequence;
    records_make(x, r, &b, m->scale);
    if (producer >= 0) {
        b.has_producer = true;
        b.producer_id = x->producer_id = s->producers[producer].id;
        b.producer_epoch = epoch;
        b.base_sequence = sequence;
    }
    if (batch_builder_finish(&b, rng_chance(r, 1, 8) ? CODEC_LZ4 : CODEC_NONE, &x->buf) < 0)
        model_fail(m, "a batch could not be built");
    batch_builder_free(&b);
    if (m->n_all == m->cap_all) {
        m->cap_all = m->cap_all ? m->cap_all * 2 : 256;
        m->all = mem_grow(m->all, m->cap_all * sizeof(*m->all));
    }
    m->all[m->n_all++] = x;
    hash_put(&m->by_bytes, bytes_key(x->buf->mem, x->buf->len), x);
    return x;
}

void model_submitted(struct model *m, struct sent *x)
{
    x->serial = ++m->serial;
    x->shard->sent_bytes += x->buf->len;
    x->gone = x->stale = false;
    x->offset_known = false;
}

unsigned model_find(const struct model_shard *s, uint64_t offset)
{
    unsigned low = 0, high = s->n_log;

    while (low < high) {
        unsigned mid = (low + high) / 2;
        const struct sent *x = s->log[mid];

        if (x->offset + x->n_records <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

const struct sent *model_latest(const struct model_shard *s, int key, uint64_t start,
                                unsigned *record)
{
    for (unsigned i = s->n_log; i-- > 0;) {
        const struct sent *x = s->log[i];

        for (unsigned k = x->n_records; k-- > 0;) {
            if (x->key[k] != key || x->offset + k < start)
                continue;
            *record = k;
            return x;
        }
    }
    return NULL;
}

bool model_may_be_lost(const struct model_shard *s, uint64_t offset)
{
    for (unsigned i = 0; i < s->n_lost; i++)
        if (offset >= s->lost[i].start && offset < s->lost[i].end)
            return true;
    return false;
}

void model_lose(struct model_shard *s, uint64_t start, uint64_t end)
{
    s->lost = mem_grow(s->lost, (s->n_lost + 1) * sizeof *s->lost);
    s->lost[s->n_lost++] = (struct model_range){ start, end };
}

/* The batch now is in the shard for good. */
static void log_add(struct model *m, struct sent *x, uint64_t offset)
{
    struct model_shard *s = x->shard;
    unsigned at;

    if (x->durable) {
        if (x->offset != offset)
            model_fail(m, "shard %" PRIu64 ": batch %" PRIu64 " at %" PRIu64 " and at %" PRIu64,
                       s->id, x->id, x->offset, offset);
        return;
    }
    if (x->gone)
        model_fail(m,
                   "shard %" PRIu64 ": batch %" PRIu64
                   ", which a recovery came up without, is at %" PRIu64,
                   s->id, x->id, offset);
    if (x->offset_known && x->offset != offset)
        model_fail(m, "shard %" PRIu64 ": batch %" PRIu64 " answered at %" PRIu64 " is at %" PRIu64,
                   s->id, x->id, x->offset, offset);
    at = model_find(s, offset);
    if (at < s->n_log && s->log[at]->offset < offset + x->n_records)
        model_fail(m,
                   "shard %" PRIu64 ": batch %" PRIu64 " at %" PRIu64 " lies over batch %" PRIu64
                   " at %" PRIu64,
                   s->id, x->id, offset, s->log[at]->id, s->log[at]->offset);
    if ((at > 0 && s->log[at - 1]->serial > x->serial) ||
        (at < s->n_log && s->log[at]->serial < x->serial))
        model_fail(m, "shard %" PRIu64 ": batch %" PRIu64 " at %" PRIu64 " is out of order", s->id,
                   x->id, offset);
    x->durable = x->offset_known = true;
    x->offset = offset;
    if (s->n_log == s->cap_log) {
        s->cap_log = s->cap_log ? s->cap_log * 2 : 64;
        s->log = mem_grow(s->log, s->cap_log * sizeof(*s->log));
    }
    memmove(s->log + at + 1, s->log + at, (s->n_log - at) * sizeof(*s->log));
    s->log[at] = x;
    s->n_log++;
}

void model_end(struct model *m, struct model_shard *s, uint64_t end)
{
    if (end > s->end_seen)
        s->end_seen = end;
    if (end > s->handed)
        s->handed = end;
}

void model_acked(struct model *m, struct sent *x, uint64_t offset, bool durable, bool duplicate)
{
    struct model_shard *s = x->shard;

    if (x->offset_known && x->offset != offset)
        model_fail(m,
                   "shard %" PRIu64 ": batch %" PRIu64 " answered at %" PRIu64 ", then at %" PRIu64,
                   s->id, x->id, x->offset, offset);
    if (duplicate && !x->offset_known && x->producer < 0)
        model_fail(m, "shard %" PRIu64 ": batch %" PRIu64 " without a producer is a duplicate",
                   s->id, x->id);
    if (durable) {
        log_add(m, x, offset);
        model_end(m, s, offset + x->n_records);
    }
    x->offset_known = true;
    x->offset = offset;
    if (offset + x->n_records > s->handed)
        s->handed = offset + x->n_records;
}

struct sent *model_seen(struct model *m, struct model_shard *s, const uint8_t *mem,
                        const struct batch_head *h)
{
    struct sent *x = hash_get(&m->by_bytes, bytes_key(mem, h->bytes));

    if (!x && s->compacted) {
        x = compacted_origin(m, s, mem, h);
        if (x)
            log_add(m, x, (uint64_t)h->base_offset);
        return x;
    }
    if (!x || x->buf->len != h->bytes ||
        memcmp(x->buf->mem + BYTES_KEY_FROM, mem + BYTES_KEY_FROM, h->bytes - BYTES_KEY_FROM) != 0)
        model_fail(m, "shard %" PRIu64 ": bytes at %" PRId64 " that nobody sent", s->id,
                   h->base_offset);
    if (x->shard != s)
        model_fail(m, "shard %" PRIu64 ": batch %" PRIu64 " belongs to shard %" PRIu64, s->id,
                   x->id, x->shard->id);
    if (h->leader_epoch < 1)
        model_fail(m, "shard %" PRIu64 ": epoch %d at %" PRId64, s->id, (int)h->leader_epoch,
                   h->base_offset);
    log_add(m, x, (uint64_t)h->base_offset);
    return x;
}

void model_accepted(struct model_shard *s, struct sent *x)
{
    struct model_producer *p = &s->producers[x->producer];

    unsigned at;

    if (p->n_last > 0 && p->last[0]->epoch != x->epoch) {
        p->n_last = 0;
        p->older = false;
    }
    /* Answers on several loops come in any order; what counts is the order of offsets. */
    at = p->n_last;
    while (at > 0 && p->last[at - 1]->offset > x->offset)
        at--;
    if (p->n_last == MODEL_LAST) {
        p->older = true;
        if (at == 0)
            return;
        memmove(p->last, p->last + 1, (MODEL_LAST - 1) * sizeof(p->last[0]));
        p->n_last--;
        at--;
    }
    memmove(p->last + at + 1, p->last + at, (p->n_last - at) * sizeof(p->last[0]));
    p->last[at] = x;
    p->n_last++;
}

/* Of runs only whole ones go, when all their batches may: so batch by batch is never less. */
void model_expire(struct model_shard *s, int64_t now, uint64_t end)
{
    uint64_t left = s->sent_bytes;
    unsigned i = 0;

    if (s->least_ms == INT64_MAX && s->least_bytes == INT64_MAX)
        return;
    for (; i < s->n_log; i++) {
        const struct sent *x = s->log[i];
        int64_t max = INT64_MIN;
        bool stays = compacted_leaves(s, x, &max);

        left -= x->buf->len < left ? x->buf->len : left;
        if (x->offset + x->n_records <= s->start_max)
            continue; /* trimmed, maybe: retention goes on from there */
        if (s->least_ms != INT64_MAX && !stays)
            continue; /* then it is as old as what is left around it */
        if (!(s->least_ms != INT64_MAX && max + s->least_ms < now) &&
            !(s->least_bytes != INT64_MAX && left >= (uint64_t)s->least_bytes))
            break;
    }
    if (i < s->n_log && s->log[i]->offset < end)
        end = s->log[i]->offset;
    if (end > s->start_max)
        s->start_max = end;
}

/* --- lives --- */

/* What a producer has in the log is what the journal must remember of it. */
static void producer_settle(struct model *m, struct model_shard *s, int at, bool blind)
{
    struct model_producer *p = &s->producers[at];

    p->in_flight = 0;
    p->n_last = 0;
    p->older = false;
    p->unsure = false;
    if (blind || !p->id) {
        *p = (struct model_producer){ .id = ++m->next_producer };
        return;
    }
    for (unsigned i = 0; i < s->n_log; i++)
        if (s->log[i]->producer == at && s->log[i]->producer_id == p->id)
            model_accepted(s, s->log[i]);
    if (p->n_last > 0) {
        const struct sent *last = p->last[p->n_last - 1];

        p->epoch = last->epoch;
        p->next = last->sequence + (int32_t)last->n_records;
    } else {
        p->next = 0;
    }
}

void model_settle(struct model *m, struct model_shard *s, uint64_t start)
{
    uint64_t known = 0;
    bool blind;

    for (unsigned i = 0; i < m->n_all; i++) {
        struct sent *x = m->all[i];

        /* Where something was lost, a batch that was not met may still be there. */
        if (x->shard == s && !x->durable)
            x->stale = true;
        if (x->shard == s && !x->durable && s->n_lost == 0) {
            x->gone = true;
            x->offset_known = false;
        }
    }
    for (unsigned i = 0; i < s->n_log && s->log[i]->offset < start; i++)
        known += s->log[i]->offset + s->log[i]->n_records < start ? s->log[i]->n_records
                                                                  : start - s->log[i]->offset;
    /* Batches that were trimmed before anybody saw them: who knows what their producers did. */
    blind = known < start || s->n_lost > 0;
    for (int i = 0; i < MODEL_PRODUCERS; i++)
        producer_settle(m, s, i, blind);
    s->start_min = s->start_max = start;
}

/* --- updates --- */

struct model_update *model_update_new(struct model *m)
{
    struct model_update *u = mem_new(sizeof *u);

    m->updates = mem_grow(m->updates, (m->n_updates + 1) * sizeof(*m->updates));
    m->updates[m->n_updates++] = u;
    return u;
}

static void update_apply(struct model *m, const struct model_update *u)
{
    for (unsigned i = 0; i < u->n; i++) {
        const struct model_change *c = &u->changes[i];

        if (c->op == MODEL_CREATE)
            m->shards[c->at].exists = SHARD_LIVE;
        if (c->op == MODEL_CREATE || c->op == MODEL_POLICY)
            m->shards[c->at].policy = c->policy;
        else if (c->op == MODEL_DELETE)
            m->shards[c->at].exists = SHARD_DELETED;
        else if (c->op == MODEL_PUT || c->op == MODEL_UNPUT)
            m->rows[c->at] = c->op == MODEL_PUT ? c->value : 0;
    }
}

static void update_forget(struct model *m, unsigned at)
{
    free(m->updates[at]);
    m->n_updates--;
    memmove(m->updates + at, m->updates + at + 1, (m->n_updates - at) * sizeof(*m->updates));
}

void model_update_answered(struct model *m, struct model_update *u, int rc)
{
    unsigned at = 0;

    while (at < m->n_updates && m->updates[at] != u)
        at++;
    ASSERT(at < m->n_updates);
    if (rc >= 0) {
        if (at != 0)
            model_fail(m, "an update was answered before the one before it");
        update_apply(m, u);
        update_forget(m, at);
    } else if (rc == E_EXISTS || rc == E_INVALID || rc == E_READONLY || rc == E_CLOSED ||
               rc == E_NOSPACE) {
        for (unsigned i = 0; i < u->n; i++)
            if (u->changes[i].op == MODEL_DELETE)
                m->shards[u->changes[i].at].deleting = false;
        update_forget(m, at);
    } else {
        u->unknown = true;
    }
}

static bool same_policy(const struct shard_policy *a, const struct shard_policy *b)
{
    return a->flags == b->flags && a->retention_ms == b->retention_ms &&
           a->retention_bytes == b->retention_bytes;
}

/* Rows alone do not tell: what one update puts the next may take away, or even the same. */
static bool matches(const struct model *m, const uint64_t *rows, const bool *exists,
                    const struct shard_policy *policies)
{
    for (unsigned i = 0; i < MODEL_KEYS; i++)
        if (m->rows[i] != rows[i])
            return false;
    for (unsigned i = 0; i < m->n_shards; i++)
        if ((m->shards[i].exists == SHARD_LIVE) != exists[i] ||
            (exists[i] && !same_policy(&m->shards[i].policy, &policies[i])))
            return false;
    return true;
}

void model_match(struct model *m, const uint64_t *rows, const bool *exists,
                 const struct shard_policy *policies)
{
    unsigned n = m->n_updates;

    for (unsigned p = 0;; p++) {
        if (matches(m, rows, exists, policies))
            break;
        if (p == n) {
            for (unsigned i = 0; i < MODEL_KEYS; i++)
                fprintf(stderr, "row %u: %" PRIu64 " found %" PRIu64 "\n", i, m->rows[i], rows[i]);
            for (unsigned i = 0; i < m->n_shards; i++)
                fprintf(stderr, "shard %" PRIu64 ": %d found %d%s\n", m->shards[i].id,
                        (int)m->shards[i].exists, (int)exists[i],
                        exists[i] && !same_policy(&m->shards[i].policy, &policies[i])
                            ? ", with another policy"
                            : "");
            model_fail(m, "rows and shards are those of no prefix of the updates (%u unanswered)",
                       n);
        }
        update_apply(m, m->updates[p]);
    }
    while (m->n_updates > 0)
        update_forget(m, 0);
    for (unsigned i = 0; i < m->n_shards; i++)
        m->shards[i].deleting = m->shards[i].exists == SHARD_DELETED;
}
