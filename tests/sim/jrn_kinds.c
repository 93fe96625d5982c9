#include "tests/sim/jrn_kinds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/batch.h"

enum { STEPS = 2000000, WAIT_US = 1000 * 1000 };

struct buf *kind_batch(const struct batch_new_record *records, unsigned n, int codec)
{
    struct batch_builder b = { 0 };
    struct buf *out = NULL;
    int rc;

    for (unsigned i = 0; i < n; i++)
        batch_builder_add(&b, &records[i]);
    rc = batch_builder_finish(&b, (enum batch_codec)codec, &out);
    ASSERT(rc >= 0);
    batch_builder_free(&b);
    return out;
}

struct buf *kind_record(const char *key, const char *value)
{
    struct batch_new_record r = { .timestamp = SIM_WALL_START_MS,
                                  .key = key,
                                  .key_bytes = key ? strlen(key) : 0,
                                  .value = value,
                                  .value_bytes = value ? strlen(value) : 0 };

    return kind_batch(&r, 1, CODEC_NONE);
}

int kind_create(struct jrn_sim *js, uint64_t shard, enum shard_kind kind,
                const struct shard_policy *policy)
{
    struct jrn_change c = { .op = JRN_SHARD_CREATE, .shard = shard, .kind = kind };

    if (policy)
        c.policy = *policy;
    return call_update(js, &c, 1);
}

/* --- answers --- */

CALL_ANSWER(find_time, find)
CALL_ANSWER(shard_wait, wait)
CALL_ANSWER(shard_get, get)
CALL_ANSWER(shard_scan, scan)
CALL_ANSWER(jrn_table_done, change)
CALL_ANSWER(jrn_table_read, look)

int kind_find_time(struct jrn_sim *js, struct shard *s, int64_t time, bool *found, uint64_t *offset,
                   int64_t *ts)
{
    struct find_answer a = { .k = { .fn = find_fn, .loop = js->loops[0], .time = time } };

    shard_find_time(s, &a.k);
    call_run_until(js, find_is_done, &a);
    *found = a.k.found;
    *offset = a.k.offset;
    *ts = a.k.timestamp;
    return a.k.rc;
}

int kind_wait(struct jrn_sim *js, struct shard *s, uint64_t past)
{
    struct wait_answer a = { .k = { .fn = wait_fn, .loop = js->loops[0] } };

    shard_wait(s, past, &a.k);
    /* By the clock: the journal's timers never stop, and steps between them would be hours. */
    sim_run_for(js->sim, WAIT_US, STEPS);
    if (!a.done) {
        shard_wait_cancel(&a.k);
        call_run_until(js, wait_is_done, &a);
    }
    return a.k.rc;
}

int kind_get(struct jrn_sim *js, struct shard *s, const void *key, size_t key_bytes,
             struct shard_get *g)
{
    struct get_answer a = { .k = { .fn = get_fn, .loop = js->loops[0] } };

    a.k.key = key;
    a.k.key_bytes = (uint32_t)key_bytes;
    shard_get(s, &a.k);
    call_run_until(js, get_is_done, &a);
    *g = a.k;
    return a.k.rc;
}

const char *kind_value(struct jrn_sim *js, struct shard *s, const char *key, int *rc)
{
    static char text[64];
    struct shard_get g;

    text[0] = '\0';
    *rc = kind_get(js, s, key, strlen(key), &g);
    if (*rc >= 0)
        snprintf(text, sizeof text, "%.*s", (int)g.record.value_bytes,
                 (const char *)g.record.value);
    shard_get_release(&g);
    return text;
}

int kind_scan(struct jrn_sim *js, struct shard *s, struct shard_scan *c)
{
    struct scan_answer a = { .k = *c };

    a.k.fn = scan_fn;
    a.k.loop = js->loops[0];
    shard_scan(s, &a.k);
    call_run_until(js, scan_is_done, &a);
    *c = a.k;
    return a.k.rc;
}

int kind_table_write(struct jrn_sim *js, struct jrn_table *t, const struct jrn_table_row *rows,
                     unsigned n, uint64_t shard, uint64_t offset)
{
    struct change_answer a = { .k = { .fn = change_fn, .loop = js->loops[0] } };

    jrn_table_write(t, rows, n, shard, offset, &a.k);
    call_run_until(js, change_is_done, &a);
    return a.k.rc;
}

int kind_table_offset(struct jrn_sim *js, struct jrn_table *t, uint64_t shard, uint64_t *offset)
{
    struct change_answer a = { .k = { .fn = change_fn, .loop = js->loops[0] } };

    jrn_table_offset(t, shard, &a.k);
    call_run_until(js, change_is_done, &a);
    *offset = a.k.offset;
    return a.k.rc;
}

int kind_table_drop(struct jrn_sim *js, struct jrn_table *t)
{
    struct change_answer a = { .k = { .fn = change_fn, .loop = js->loops[0] } };

    jrn_table_drop(t, &a.k);
    call_run_until(js, change_is_done, &a);
    return a.k.rc;
}

int kind_table_get(struct jrn_sim *js, struct jrn_table *t, const char *key,
                   struct jrn_table_read *r)
{
    struct look_answer a = { .k = { .fn = look_fn, .loop = js->loops[0] } };

    jrn_table_get(t, key, (uint32_t)strlen(key), &a.k);
    call_run_until(js, look_is_done, &a);
    *r = a.k;
    return a.k.rc;
}

int kind_table_scan(struct jrn_sim *js, struct jrn_table *t, const char *prefix, const char *from,
                    uint32_t limit, struct jrn_table_read *r)
{
    struct look_answer a = { .k = { .fn = look_fn, .loop = js->loops[0] } };

    jrn_table_scan(t, prefix, (uint32_t)strlen(prefix), from, from ? (uint32_t)strlen(from) : 0,
                   limit, &a.k);
    call_run_until(js, look_is_done, &a);
    *r = a.k;
    return a.k.rc;
}
