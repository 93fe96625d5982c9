/* Records of the offsets shard. Integers are little-endian, text has no terminator. Each is a
 * record (key, value) of a RecordBatch v2 without headers; batches are not compressed by us,
 * readers accept any codec. A record's meaning depends only on its key.
 *
 *   key    u8 version 1, u8 kind, then by kind
 *          1 committed offset   u16 n, group (n bytes); u16 n, topic (n bytes); u32 partition
 *          2 producer ids       nothing
 *          3 snapshot begins    nothing
 *          4 snapshot ends      nothing
 *   value  u8 version 1, then by kind
 *          1   i64 offset; i32 leader epoch (-1: not known); i64 commit time (ms since 1970);
 *              16 bytes topic id (zero: not known); u16 n, metadata (n bytes; n 0xffff: null)
 *          2   i64: no id at or above this one was ever given
 *          3   u64 rows live when it began
 *          4   u64 offset of its begin record; u64 rows it wrote
 *          A null value, of kind 1 only, deletes the row.
 *
 * State = the records applied in order. A snapshot is a begin record, then every row as it is
 * when written, mixed with ordinary records, then an end record; only when that is durable is
 * the shard trimmed to the begin. So the shard always holds, from its start on, all that is
 * needed, and a snapshot without an end is nothing but rows.
 *
 * O1: memory changes only when the append under way ends well, so it cannot change while a batch
 * is on its way.
 * O2: what reads memory to write it (snapshots, deletions of many rows) has a batch of its own:
 * nothing in the same batch is newer. */
#include "gateways/kafka/offsets_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/logger.h"
#include "base/rd.h"

enum {
    VERSION = 1,
    METADATA_NULL = 0xffff,
    READ_BYTES = 1 << 20,
    BODY_MAX = 64 << 20 /* of a batch that is read */
};

/* ---- records --------------------------------------------------------------------------------- */

static void record_add(struct offsets *o, const struct wr *key, const struct wr *value)
{
    ASSERT(wr_ok(key) && (!value || wr_ok(value)));
    batch_builder_add(&o->batch, &(struct batch_new_record){
                                     .timestamp = loop_wall_ms(o->env.home),
                                     .key = key->start,
                                     .key_bytes = wr_used(key),
                                     .value = value ? value->start : NULL,
                                     .value_bytes = value ? wr_used(value) : 0,
                                 });
    o->stats.records++;
}

static void write_text(struct wr *w, const void *mem, int32_t bytes)
{
    wr_u16le(w, (uint16_t)bytes);
    wr_bytes(w, mem, (size_t)bytes);
}

void offsets_write_entry(struct offsets *o, struct group_bytes group, const struct offset_entry *e,
                         int64_t time, bool remove)
{
    uint8_t *mem = mem_new(KEY_FIXED + (size_t)group.bytes + (size_t)e->topic.bytes);
    uint8_t value_mem[VALUE_FIXED + OFFSETS_METADATA_MAX];
    struct wr key = wr_of(mem, KEY_FIXED + (size_t)group.bytes + (size_t)e->topic.bytes);
    struct wr value = wr_of(value_mem, sizeof value_mem);

    wr_u8(&key, VERSION);
    wr_u8(&key, KIND_OFFSET);
    write_text(&key, group.mem, group.bytes);
    write_text(&key, e->topic.mem, e->topic.bytes);
    wr_u32le(&key, (uint32_t)e->partition);
    if (!remove) {
        wr_u8(&value, VERSION);
        wr_u64le(&value, (uint64_t)e->offset);
        wr_u32le(&value, (uint32_t)e->leader_epoch);
        wr_u64le(&value, (uint64_t)time);
        wr_bytes(&value, e->topic_id, sizeof e->topic_id);
        if (e->metadata.bytes < 0)
            wr_u16le(&value, METADATA_NULL);
        else
            write_text(&value, e->metadata.mem, e->metadata.bytes);
    }
    record_add(o, &key, remove ? NULL : &value);
    free(mem);
}

void offsets_write_row(struct offsets *o, const struct row *r, bool remove)
{
    struct offset_row v = offsets_row_view(r);
    struct offset_entry e = { .topic = v.topic,
                              .partition = v.partition,
                              .offset = v.offset,
                              .leader_epoch = v.leader_epoch,
                              .metadata = v.metadata };

    memcpy(e.topic_id, v.topic_id, sizeof e.topic_id);
    offsets_write_entry(o,
                        (struct group_bytes){ r->topic->owner->name, r->topic->owner->name_bytes },
                        &e, r->time, remove);
}

/* A record of a kind that has no more in its key, and one or two numbers in its value. */
void offsets_write_numbers(struct offsets *o, uint8_t kind, unsigned n, uint64_t a, uint64_t b)
{
    uint8_t key_mem[2], value_mem[17];
    struct wr key = wr_of(key_mem, sizeof key_mem), value = wr_of(value_mem, sizeof value_mem);

    wr_u8(&key, VERSION);
    wr_u8(&key, kind);
    wr_u8(&value, VERSION);
    wr_u64le(&value, a);
    if (n == 2)
        wr_u64le(&value, b);
    record_add(o, &key, &value);
}

static struct group_bytes read_text(struct rd *r)
{
    uint16_t n = rd_u16le(r);

    return (struct group_bytes){ rd_bytes(r, n), n };
}

static int apply_offset(struct offsets *o, struct rd *key, struct rd *value, bool null)
{
    struct group_bytes group = read_text(key);
    struct offset_entry e = { .topic = read_text(key), .partition = (int32_t)rd_u32le(key) };
    const uint8_t *id;
    int64_t time;
    uint16_t n;

    if (!rd_ok(key) || rd_left(key))
        return E_CORRUPT;
    if (null) {
        struct row *r = offsets_row_find(o, group, e.topic, e.partition);

        if (r)
            offsets_row_drop(o, r);
        return 0;
    }
    e.offset = (int64_t)rd_u64le(value);
    e.leader_epoch = (int32_t)rd_u32le(value);
    time = (int64_t)rd_u64le(value);
    id = rd_bytes(value, OFFSETS_TOPIC_ID_BYTES);
    n = rd_u16le(value);
    e.metadata = n == METADATA_NULL ? GROUP_NULL : (struct group_bytes){ rd_bytes(value, n), n };
    if (!rd_ok(value) || rd_left(value))
        return E_CORRUPT;
    memcpy(e.topic_id, id, sizeof e.topic_id);
    offsets_row_put(o, group, &e, time);
    return 0;
}

static int apply_numbers(struct offsets *o, unsigned kind, struct rd *key, struct rd *value)
{
    uint64_t a = rd_u64le(value);

    if (kind == KIND_END)
        rd_u64le(value);
    if (!rd_ok(value) || rd_left(value) || rd_left(key))
        return E_CORRUPT;
    if (kind == KIND_PRODUCER_IDS && (int64_t)a > o->reserved_end)
        o->next_id = o->reserved_end = (int64_t)a;
    if (kind == KIND_END) {
        o->load_has_end = true;
        o->load_trim = a;
        o->since = 0;
    }
    return 0;
}

static int apply_record(struct offsets *o, const struct batch_record *rec)
{
    struct rd key = rd_of(rec->key, (size_t)(rec->key_bytes < 0 ? 0 : rec->key_bytes));
    struct rd value = rd_of(rec->value, (size_t)(rec->value_bytes < 0 ? 0 : rec->value_bytes));
    bool null = rec->value_bytes < 0;
    uint8_t version = rd_u8(&key), kind = rd_u8(&key);
    uint8_t value_version = null ? VERSION : rd_u8(&value);

    o->since++;
    if (!rd_ok(&key) || !rd_ok(&value) || !version || !value_version)
        return E_CORRUPT;
    if (version > VERSION || value_version > VERSION || kind > KIND_END)
        return E_VERSION;
    if (kind == KIND_OFFSET)
        return apply_offset(o, &key, &value, null);
    return kind && !null ? apply_numbers(o, kind, &key, &value) : E_CORRUPT;
}

/* ---- loading --------------------------------------------------------------------------------- */

static int load_batch(struct offsets *o, const uint8_t *mem, size_t left)
{
    struct batch_iter it;
    struct batch_record rec;
    int rc = batch_iter_open(&it, mem, left, BODY_MAX);

    if (rc < 0)
        return rc;
    while ((rc = batch_iter_next(&it, &rec)) > 0) {
        rc = apply_record(o, &rec);
        if (rc < 0) {
            err_set(&o->load->err, rc, "record %lld of the offsets shard", (long long)rec.offset);
            break;
        }
    }
    batch_iter_close(&it);
    return rc;
}

/* Applies whole batches and moves o->read.from past them. */
static int load_slice(struct offsets *o, const struct slice *s)
{
    uint32_t at = 0;

    while (at < s->len) {
        struct batch_head h;
        int rc = batch_head_read(&h, s->mem + at, s->len - at);

        if (rc < 0)
            return rc;
        rc = load_batch(o, s->mem + at, s->len - at);
        if (rc < 0)
            return rc;
        o->read.from = (uint64_t)h.base_offset + (uint64_t)h.last_offset_delta + 1;
        at += h.bytes;
    }
    return 0;
}

static void load_end(struct offsets *o, int rc)
{
    struct offsets_load *l = o->load;

    o->load = NULL;
    if (o->close)
        rc = E_CLOSED;
    o->state = l->rc = rc;
    if (rc == 0) {
        LOG_INFO("offsets.loaded", F_INT("rows", o->n_rows), F_INT("end", o->read.from),
                 F_INT("next_producer_id", o->next_id));
        if (o->load_has_end && o->load_trim > shard_start(o->env.shard))
            offsets_trim_to(o, o->load_trim);
        offsets_expire_later(o);
    } else {
        if (!l->err.code)
            err_set(&l->err, rc, "offsets shard at %llu: %s", (unsigned long long)o->read.from,
                    err_text(rc));
        LOG_ERROR("offsets.load_failed", F_ERR(rc), F_STR("text", l->err.text));
    }
    l->fn(l);
    offsets_close_if_idle(o);
}

/* An operator has accepted that these records are gone. Each of them may have reserved a block of
 * producer ids, and an id given out twice would make one producer's records repeats of another's. */
static void load_skip(struct offsets *o, struct read_done *d)
{
    LOG_WARN("offsets.lost", F_INT("from", d->from), F_INT("until", d->lost_until));
    o->next_id += (int64_t)(d->lost_until - d->from) * OFFSETS_PRODUCER_BLOCK;
    o->reserved_end = o->next_id;
    d->from = d->lost_until;
}

static void load_read_done(struct read_done *d)
{
    struct offsets *o = (struct offsets *)((char *)d - offsetof(struct offsets, read));
    uint64_t from = d->from;
    int rc = d->rc;

    if (rc == E_LOST && d->lost_until > d->from) {
        load_skip(o, d);
        rc = 0;
    }
    for (unsigned i = 0; rc >= 0 && i < d->n_slices; i++)
        rc = load_slice(o, &d->slices[i]);
    read_done_release(d);
    if (rc < 0)
        load_end(o, rc);
    else if (d->from >= o->load_end || d->from == from || o->close)
        load_end(o, d->from >= o->load_end ? 0 : E_CORRUPT);
    else
        shard_read(o->env.shard, d);
}

void offsets_load(struct offsets *o, struct offsets_load *l)
{
    ASSERT_HOME(o->env.home);
    o->load = l;
    l->err = (struct err){ 0 };
    o->load_end = shard_end(o->env.shard);
    o->read = (struct read_done){ .fn = load_read_done,
                                  .loop = o->env.home,
                                  .from = shard_start(o->env.shard),
                                  .max_bytes = READ_BYTES,
                                  .at_least_one = true };
    shard_read(o->env.shard, &o->read);
}

/* ---- life ------------------------------------------------------------------------------------ */

struct offsets *offsets_new(const struct offsets_env *env, const struct offsets_conf *conf)
{
    struct offsets *o = mem_new(sizeof *o);

    o->env = *env;
    o->conf = *conf;
    if (!o->conf.snapshot_every)
        o->conf.snapshot_every = 10000;
    if (!o->conf.retention_ms)
        o->conf.retention_ms = 7 * 24 * 3600 * 1000u;
    if (!o->conf.expire_every_ms)
        o->conf.expire_every_ms = 600000;
    if (!o->conf.rows_max)
        o->conf.rows_max = 4000000;
    o->state = E_BUSY;
    o->queue_end = &o->queue;
    o->ids_end = &o->ids;
    o->expire.fire = offsets_expire_fire;
    return o;
}

void offsets_free(struct offsets *o)
{
    if (!o)
        return;
    ASSERT(!o->flight && !o->load && !o->queue && !o->ids);
    loop_timer_stop(&o->expire);
    while (o->first)
        offsets_row_drop(o, o->first);
    strmap_free(&o->owners);
    batch_builder_free(&o->batch);
    free(o->doomed);
    free(o);
}
