#include "tests/sim/compacted.h"

#include <stdlib.h>
#include <string.h>

#include "journal/core.h"

/* --- what a batch is left of --- */

/* Several may have been sent with one sequence (wrong ones, which are refused): timestamps tell. */
static struct sent *by_producer(struct model *m, const struct model_shard *s,
                                const struct batch_head *h)
{
    for (unsigned i = m->n_all; i-- > 0;) {
        struct sent *x = m->all[i];

        if (x->shard == s && x->producer >= 0 && x->producer_id == h->producer_id &&
            x->epoch == h->producer_epoch && x->sequence == h->base_sequence && !x->gone &&
            x->ts[0] == h->base_timestamp &&
            (!x->offset_known || x->offset == (uint64_t)h->base_offset))
            return x;
    }
    return NULL;
}

/* Records say the number of their batch in a header. */
static struct sent *by_record(struct model *m, const struct batch_record *r)
{
    struct batch_header header;
    uint32_t pos = 0;
    uint64_t id;

    if (batch_header_next(r, &pos, &header) != 1 || header.value_bytes != sizeof id)
        return NULL;
    memcpy(&id, header.value, sizeof id);
    return id >= 1 && id <= m->n_all ? m->all[id - 1] : NULL;
}

static bool same_field(const uint8_t *a, int32_t a_bytes, const uint8_t *b, int32_t b_bytes)
{
    return a_bytes == b_bytes && (a_bytes <= 0 || memcmp(a, b, (size_t)a_bytes) == 0);
}

static void record_check(struct model *m, const struct sent *x, const struct batch_record *r,
                         uint64_t base)
{
    struct batch_iter it;
    struct batch_record o;
    bool same = false;

    if (batch_iter_open(&it, x->buf->mem, x->buf->len, 1 << 20) < 0)
        model_fail(m, "a batch of ours cannot be opened");
    while (batch_iter_next(&it, &o) == 1)
        if ((uint64_t)o.offset == (uint64_t)r->offset - base)
            same = o.timestamp == r->timestamp &&
                   same_field(o.key, o.key_bytes, r->key, r->key_bytes) &&
                   same_field(o.value, o.value_bytes, r->value, r->value_bytes) &&
                   o.headers_bytes == r->headers_bytes &&
                   memcmp(o.headers, r->headers, o.headers_bytes) == 0;
    batch_iter_close(&it);
    if (!same)
        model_fail(m, "shard %" PRIu64 ": the record at %" PRId64 " is not the one that was sent",
                   x->shard->id, r->offset);
}

static void head_check(struct model *m, const struct sent *x, const struct batch_head *h)
{
    struct batch_head o;

    if (batch_head_read(&o, x->buf->mem, x->buf->len) < 0 ||
        o.last_offset_delta != h->last_offset_delta || o.base_timestamp != h->base_timestamp ||
        o.producer_id != h->producer_id || o.producer_epoch != h->producer_epoch ||
        o.base_sequence != h->base_sequence ||
        (h->record_count > 0 && o.attributes != h->attributes) || o.record_count <= h->record_count)
        model_fail(
            m, "shard %" PRIu64 ": the head at %" PRId64 " is not what is left of batch %" PRIu64,
            x->shard->id, h->base_offset, x->id);
}

struct sent *compacted_origin(struct model *m, struct model_shard *s, const uint8_t *mem,
                              const struct batch_head *h)
{
    struct sent *x = NULL;
    struct batch_iter it;
    struct batch_record r;
    int rc;

    if (h->record_count == 0 && h->producer_id < 0)
        return NULL;
    if (h->record_count == 0)
        x = by_producer(m, s, h);
    if (batch_iter_open(&it, mem, h->bytes, 1 << 20) < 0)
        model_fail(m, "shard %" PRIu64 ": the batch at %" PRId64 " cannot be opened", s->id,
                   h->base_offset);
    while ((rc = batch_iter_next(&it, &r)) == 1) {
        x = by_record(m, &r);
        if (x)
            record_check(m, x, &r, (uint64_t)h->base_offset);
    }
    batch_iter_close(&it);
    if (rc < 0 || !x || x->shard != s)
        model_fail(m, "shard %" PRIu64 ": what is at %" PRId64 " is left of nothing that was sent",
                   s->id, h->base_offset);
    head_check(m, x, h);
    return x;
}

/* --- what is there --- */

void compacted_see(struct compacted_seen *seen, const uint8_t *mem, const struct batch_head *h)
{
    struct batch_iter it;
    struct batch_record r;

    if (batch_iter_open(&it, mem, h->bytes, 1 << 20) < 0)
        return;
    while (batch_iter_next(&it, &r) == 1)
        if ((uint64_t)r.offset >= seen->start && (uint64_t)r.offset < seen->end)
            seen->there[(uint64_t)r.offset - seen->start] = 1;
    batch_iter_close(&it);
}

static void cleaned_row(struct workload *w, const struct model_shard *s, struct row_cleaned *row)
{
    uint8_t key[ROW_KEY_MAX], *mem;
    size_t bytes;

    *row = (struct row_cleaned){ 0 };
    if (rows_get(jrn_sim_store(&w->js, (unsigned)(s->id >> 56))->rows, key,
                 row_key(key, ROW_CLEANED, s->id), &mem, &bytes) < 0)
        return;
    if (row_cleaned_read(row, mem, bytes) < 0)
        model_fail(&w->m, "shard %" PRIu64 ": row C makes no sense", s->id);
    free(mem);
}

/* The latest record of a key below `below`, of those that are known; false: there is none. */
static bool latest_of(const struct model_shard *s, int key, uint64_t below, uint64_t *offset,
                      bool *tombstone)
{
    for (unsigned i = s->n_log; i-- > 0;) {
        const struct sent *x = s->log[i];

        for (unsigned k = x->n_records; k-- > 0;) {
            if (x->key[k] != key || x->offset + k >= below)
                continue;
            *offset = x->offset + k;
            *tombstone = x->tombstone[k];
            return true;
        }
    }
    return false;
}

static bool is_there(const struct compacted_seen *seen, uint64_t offset)
{
    return offset < seen->alive || offset >= seen->end || seen->there[offset - seen->start];
}

bool compacted_unknown(const struct model_shard *s, uint64_t from, uint64_t to)
{
    for (unsigned i = model_find(s, from); from < to; i++) {
        if (i == s->n_log || s->log[i]->offset > from)
            return true;
        from = s->log[i]->offset + s->log[i]->n_records;
    }
    return false;
}

static bool record_may_go(const struct model_shard *s, const struct sent *x, unsigned k)
{
    uint64_t latest;
    bool tombstone;

    return x->key[k] < 0 || x->tombstone[k] ||
           !latest_of(s, x->key[k], UINT64_MAX, &latest, &tombstone) || latest > x->offset + k;
}

bool compacted_leaves(const struct model_shard *s, const struct sent *x, int64_t *max_ts)
{
    bool stays = false;

    for (unsigned k = 0; k < x->n_records; k++) {
        if (s->compacted && record_may_go(s, x, k))
            continue;
        if (!stays || x->ts[k] > *max_ts)
            *max_ts = x->ts[k];
        stays = true;
    }
    return stays && !(s->compacted && compacted_unknown(s, x->offset, s->handed));
}

void compacted_begin(struct workload *w, struct model_shard *s, struct compacted_seen *seen)
{
    *seen = (struct compacted_seen){ .start = shard_start(s->handle), .end = shard_end(s->handle) };
    seen->there = mem_new(seen->end - seen->start + 1);
    cleaned_row(w, s, &seen->row);
}

/* The latest record of each key, but for old tombstones. */
static void latest_check(struct workload *w, struct model_shard *s,
                         const struct compacted_seen *seen, const struct row_cleaned *row)
{
    for (int key = 0; key < MODEL_RECORD_KEYS; key++) {
        uint64_t offset;
        bool tombstone;

        if (!latest_of(s, key, UINT64_MAX, &offset, &tombstone) || is_there(seen, offset) ||
            (tombstone && offset < row->drop_below) || model_may_be_lost(s, offset) ||
            compacted_unknown(s, offset, s->to_seen)) /* unread, and lost: it may have been later */
            continue;
        model_fail(&w->m, "shard %" PRIu64 ": the latest record of key %d, at %" PRIu64 ", is gone",
                   s->id, key, offset);
    }
}

/* Nothing goes where no round has come. */
static void above_check(struct workload *w, struct model_shard *s,
                        const struct compacted_seen *seen)
{
    for (unsigned i = model_find(s, s->to_seen); i < s->n_log; i++) {
        for (unsigned k = 0; k < s->log[i]->n_records; k++) {
            uint64_t offset = s->log[i]->offset + k;

            if (offset >= s->to_seen && !is_there(seen, offset) && !model_may_be_lost(s, offset))
                model_fail(&w->m, "shard %" PRIu64 ": %" PRIu64 " is gone, above any round's end",
                           s->id, offset);
        }
    }
}

static void clean_check(struct workload *w, struct model_shard *s,
                        const struct compacted_seen *seen)
{
    for (unsigned i = 0; s->n_lost == 0 && i < s->n_log; i++) {
        const struct sent *x = s->log[i];

        for (unsigned k = 0; k < x->n_records; k++) {
            uint64_t offset = x->offset + k, latest = offset;
            bool tombstone = false;
            /* A round on its way has raised drop_below, and is there as far as done. */
            bool drops = offset < seen->row.drop_below && offset < seen->row.done;

            if (offset < seen->alive || offset >= seen->row.cleaned)
                continue;
            w->n->cleaned++;
            if (!is_there(seen, offset))
                continue;
            w->n->kept++;
            if (x->key[k] >= 0)
                latest_of(s, x->key[k], seen->row.cleaned, &latest, &tombstone);
            if (x->key[k] < 0 || latest > offset || (tombstone && drops))
                model_fail(&w->m,
                           "shard %" PRIu64 ": %" PRIu64 " (key %d) is there, clean up to %" PRIu64,
                           s->id, offset, x->key[k], seen->row.cleaned);
        }
    }
}

void compacted_check(struct workload *w, struct model_shard *s, struct compacted_seen *seen,
                     bool clean)
{
    struct row_cleaned row;

    seen->alive = shard_start(s->handle);
    cleaned_row(w, s, &row);
    if (row.to > s->to_seen)
        s->to_seen = row.to;
    if (row.cleaned > row.to || row.done > row.to || row.drop_below > row.cleaned)
        model_fail(&w->m, "shard %" PRIu64 ": row C contradicts itself", s->id);
    latest_check(w, s, seen, &row);
    above_check(w, s, seen);
    if (clean)
        clean_check(w, s, seen);
}

void compacted_check_time(struct workload *w, struct model_shard *s, const struct find_time *f)
{
    uint64_t start = shard_start(s->handle), offset;
    bool tombstone;

    for (int key = 0; f->rc >= 0 && s->n_lost == 0 && key < MODEL_RECORD_KEYS; key++) {
        const struct sent *x;
        int64_t ts;

        if (!latest_of(s, key, UINT64_MAX, &offset, &tombstone) || tombstone || offset < start ||
            compacted_unknown(s, offset, shard_end(s->handle)))
            continue;
        x = s->log[model_find(s, offset)];
        ts = x->ts[offset - x->offset];
        if (f->time == SHARD_TIME_MAX ? !f->found || f->timestamp < ts
                                      : ts >= f->time && (!f->found || f->offset > offset))
            model_fail(&w->m,
                       "shard %" PRIu64 ": time %" PRId64 " %s, but %" PRIu64 " has %" PRId64,
                       s->id, f->time, f->found ? "is later" : "is not found", offset, ts);
    }
}
