#include "tests/sim/jrn_calls.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/batch.h"

enum { STEPS = 2000000, READ_BYTES = 8192 };

void call_bytes_add(struct call_bytes *b, const void *mem, size_t n)
{
    b->mem = mem_grow(b->mem, b->n + n + 1);
    memcpy(b->mem + b->n, mem, n);
    b->n += n;
}

static struct buf *make(struct batch_builder *b, uint64_t n, unsigned n_records,
                        unsigned value_bytes)
{
    struct buf *out = NULL;
    char *value = mem_new(value_bytes + 32);
    int rc;

    for (unsigned i = 0; i < n_records; i++) {
        struct batch_new_record r = { .timestamp = SIM_WALL_START_MS + (int64_t)n, .value = value };

        r.value_bytes = (size_t)snprintf(value, 32, "%" PRIu64 ".%u", n, i) + value_bytes;
        batch_builder_add(b, &r);
    }
    rc = batch_builder_finish(b, CODEC_NONE, &out);
    ASSERT(rc >= 0);
    batch_builder_free(b);
    free(value);
    return out;
}

struct buf *call_batch(uint64_t n, unsigned n_records, unsigned value_bytes)
{
    struct batch_builder b = { 0 };

    return make(&b, n, n_records, value_bytes);
}

struct buf *call_batch_of(int64_t producer, int16_t epoch, int32_t sequence, unsigned n_records,
                          unsigned value_bytes)
{
    struct batch_builder b = { .has_producer = true,
                               .producer_id = producer,
                               .producer_epoch = epoch,
                               .base_sequence = sequence };

    return make(&b, (uint64_t)sequence, n_records, value_bytes);
}

CALL_ANSWER(read_done, read)
CALL_ANSWER(jrn_update, update)
CALL_ANSWER(shard_open, opened)
CALL_ANSWER(shard_trim, trim)

void call_run_until(struct jrn_sim *js, bool (*fn)(void *), void *ctx)
{
    bool answered = sim_run_until(js->sim, fn, ctx, STEPS);

    ASSERT(answered);
}

int call_update(struct jrn_sim *js, const struct jrn_change *changes, unsigned n)
{
    struct update_answer a = { .k = { .fn = update_fn, .loop = js->loops[0] } };

    journal_update(js->j, changes, n, &a.k);
    call_run_until(js, update_is_done, &a);
    return a.k.rc;
}

int call_create(struct jrn_sim *js, uint64_t shard, enum shard_class class)
{
    struct jrn_change c = { .op = JRN_SHARD_CREATE, .shard = shard, .class = class };

    return call_update(js, &c, 1);
}

int call_delete(struct jrn_sim *js, uint64_t shard)
{
    struct jrn_change c = { .op = JRN_SHARD_DELETE, .shard = shard };

    return call_update(js, &c, 1);
}

struct shard *call_open(struct jrn_sim *js, uint64_t shard, int *rc)
{
    struct opened_answer a = { .k = { .fn = opened_fn, .loop = js->loops[0] } };

    shard_open(js->j, shard, &a.k);
    call_run_until(js, opened_is_done, &a);
    if (rc)
        *rc = a.k.rc;
    return a.k.rc < 0 ? NULL : a.k.shard;
}

int call_trim(struct jrn_sim *js, struct shard *s, uint64_t start)
{
    struct trim_answer a = { .k = { .fn = trim_fn, .loop = js->loops[0], .start = start } };

    shard_trim(s, &a.k);
    call_run_until(js, trim_is_done, &a);
    return a.k.rc;
}

static void append_fn(struct append_done *d)
{
    static uint64_t answers;
    struct call_append *a = (struct call_append *)d;

    a->done = true;
    a->order = ++answers;
}

static bool append_is_done(void *ctx)
{
    return ((struct call_append *)ctx)->done;
}

void call_append_begin(struct jrn_sim *js, struct shard *s, struct buf *batch,
                       struct call_append *a)
{
    *a = (struct call_append){ .d = { .fn = append_fn, .loop = js->loops[0] } };
    shard_append(s, batch, 0, batch->len, ACK_QUORUM_DURABLE, &a->d);
    buf_unref(batch);
}

int call_append_end(struct jrn_sim *js, struct call_append *a)
{
    call_run_until(js, append_is_done, a);
    return a->d.rc;
}

int call_append(struct jrn_sim *js, struct shard *s, struct buf *batch, uint64_t *offset)
{
    struct call_append a;
    int rc;

    call_append_begin(js, s, batch, &a);
    rc = call_append_end(js, &a);
    if (offset)
        *offset = a.d.base_offset;
    return rc;
}

/* Takes in one answer; gives the offset after it. */
static uint64_t take(const struct read_done *d, uint64_t at, struct call_bytes *out)
{
    for (unsigned i = 0; i < d->n_slices; i++) {
        const uint8_t *mem = d->slices[i].mem;
        uint32_t left = d->slices[i].len;

        while (left > 0) {
            struct batch_head h;
            int rc = batch_check(&h, mem, left);

            ASSERT(rc >= 0);
            /* The first batch may begin before what was asked for, which it has then. */
            ASSERT((uint64_t)h.base_offset == at ||
                   (at == d->from && (uint64_t)h.base_offset < at &&
                    at - (uint64_t)h.base_offset <= (uint64_t)h.last_offset_delta));
            at = (uint64_t)h.base_offset + (uint64_t)h.last_offset_delta + 1;
            if (out)
                call_bytes_add(out, mem, h.bytes);
            mem += h.bytes;
            left -= h.bytes;
        }
    }
    return at;
}

uint64_t call_read(struct jrn_sim *js, struct shard *s, uint64_t from, struct call_bytes *out,
                   int *rc, uint64_t *lost_until)
{
    uint64_t at = from;

    for (;;) {
        struct read_answer a = { .k = { .fn = read_fn,
                                        .loop = js->loops[0],
                                        .from = at,
                                        .max_bytes = READ_BYTES,
                                        .at_least_one = true } };
        uint32_t bytes;

        shard_read(s, &a.k);
        call_run_until(js, read_is_done, &a);
        *rc = a.k.rc;
        if (lost_until)
            *lost_until = a.k.lost_until;
        bytes = a.k.rc < 0 ? 0 : a.k.bytes;
        if (bytes > 0)
            at = take(&a.k, at, out);
        read_done_release(&a.k);
        if (bytes == 0)
            return at;
    }
}

void call_wait_ms(struct jrn_sim *js, uint64_t ms)
{
    bool ended = sim_run_for(js->sim, ms * 1000, STEPS);

    ASSERT(ended);
}
