/* Records of the offsets shard. Integers are little-endian, text has no terminator. Each is a record (key, value) of a RecordBatch v2
 * without headers; batches are not compressed by us, readers accept any codec. A record's meaning depends only on its key.
 *
 *   key    u8 version 1, u8 kind, then by kind
 *          1 committed offset   u16 n, group (n bytes); u16 n, topic (n bytes); u32 partition
 *          2 producer ids       nothing
 *          3 snapshot begins    nothing
 *          4 snapshot ends      nothing
 *   value  u8 version 1, then by kind
 *          1   i64 offset; i32 leader epoch (-1: not known); i64 commit time (ms since 1970); 16 bytes topic id (zero: not
 *              known); u16 n, metadata (n bytes; n 0xffff: null)
 *          2   i64: no id at or above this one was ever given
 *          3   u64 rows live when it began
 *          4   u64 offset of its begin record; u64 rows it wrote
 *          A null value, of kind 1 only, deletes the row.
 *
 * State = the records applied in order. A snapshot is a begin record, then every row as it is when written, mixed with ordinary records,
 * then an end record; only when that is durable is the shard trimmed to the begin. So the shard always holds, from its start
 * on, all that is needed, and a snapshot without an end is nothing but rows.
 *
 * O1: memory changes only when the append under way ends well, so it cannot change while a batch is on its way.
 * O2: what reads memory to write it (snapshots, deletions of many rows) has a batch of its own: nothing in the same batch is newer. */
#include "gateways/kafka/offsets.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/logger.h"
#include "base/rd.h"
#include "base/strmap.h"
#include "format/batch.h"
#include "journal/journal.h"

enum {
    VERSION = 1,
    KIND_OFFSET = 1,
    KIND_PRODUCER_IDS = 2,
    KIND_BEGIN = 3,
    KIND_END = 4,
    METADATA_NULL = 0xffff,

    BATCH_BYTES = 256 << 10, /* a batch takes no more when it holds this */
    READ_BYTES = 1 << 20,
    BODY_MAX = 64 << 20, /* of a batch that is read */
    PRODUCER_BLOCK = 1000,
    EXPIRE_ROWS = 20000 /* looked at in one turn */
};

struct topic {
    char *name;
    int32_t name_bytes;
    struct hash rows; /* partition -> row */
    struct owner *owner;
};

/* A group that has rows. */
struct owner {
    char *name;
    int32_t name_bytes;
    struct strmap topics;
    uint64_t n_rows;
    int64_t used_ms; /* members were seen then; at least the start of this process */
};

struct row {
    struct row *prev, *next; /* all rows */
    struct topic *topic;
    char *metadata;
    int64_t offset;
    int64_t time;
    int32_t metadata_bytes; /* -1: null */
    int32_t partition;
    int32_t leader_epoch;
    uint8_t topic_id[OFFSETS_TOPIC_ID_BYTES];
};

enum what { COMMIT, REMOVE, REMOVE_GROUP, REMOVE_TOPIC, RESERVE };

/* What the batch on its way holds, and so what to do when it is durable. */
enum flight { NOTHING, CHANGES, DELETIONS, SNAPSHOT_BEGIN, SNAPSHOT_ROWS, SNAPSHOT_END };

struct offsets {
    struct offsets_env env;
    struct offsets_conf conf;
    int state; /* 0: loaded; else what everybody is told */

    struct strmap owners;
    struct row *first, *last;
    uint64_t n_rows;
    int64_t next_id;      /* producer id to give next */
    int64_t reserved_end; /* first id that is not reserved */

    struct offsets_commit *queue, **queue_end;
    struct producer_id_done *ids, **ids_end; /* waiting for a block */
    struct offsets_commit reserve;           /* its place in the queue */
    bool reserving;
    struct task turn;
    bool turn_posted;

    enum flight flight;
    struct offsets_commit *flying; /* CHANGES: those in the batch; DELETIONS: the one, or NULL for expired rows */
    int64_t flying_reserve;        /* the new reserved_end, or 0 */
    struct append_done append;
    struct batch_builder batch;

    struct row **doomed; /* DELETIONS, and expired rows that wait for theirs */
    uint64_t n_doomed, cap_doomed;
    bool doomed_more; /* the change under way has rows beyond these */

    enum flight snapshot; /* what its next batch is; NOTHING: none under way */
    bool snapshot_yields; /* the queue's turn is next */
    struct row *snapshot_at;
    uint64_t snapshot_rows;
    uint64_t snapshot_from; /* offset of the begin record */
    uint64_t since;         /* records since the last snapshot began */
    struct shard_trim trim;
    bool trimming;

    struct loop_timer expire;
    struct row *expire_at;
    bool expiring;

    struct read_done read;
    struct offsets_load *load;
    uint64_t load_end;
    bool load_has_end;
    uint64_t load_trim; /* the last whole snapshot began here */
    struct offsets_close *close;
    struct offsets_stats stats;
};

/* ---- rows in memory --------------------------------------------------------------------------------------------------- */

static char *bytes_own(struct group_bytes b)
{
    char *mem = mem_new((size_t)(b.bytes > 0 ? b.bytes : 0) + 1);

    if (b.bytes > 0)
        memcpy(mem, b.mem, (size_t)b.bytes);
    return mem;
}

static struct owner *owner_find(const struct offsets *o, struct group_bytes group)
{
    return group.bytes < 0 ? NULL : strmap_get(&o->owners, group.mem, (size_t)group.bytes);
}

static struct row *row_find(const struct offsets *o, struct group_bytes group,
                            struct group_bytes topic, int32_t partition)
{
    struct owner *w = owner_find(o, group);
    struct topic *t =
        w && topic.bytes >= 0 ? strmap_get(&w->topics, topic.mem, (size_t)topic.bytes) : NULL;

    return t ? hash_get(&t->rows, (uint32_t)partition) : NULL;
}

static struct topic *topic_make(struct offsets *o, struct group_bytes group,
                                struct group_bytes name)
{
    struct owner *w = owner_find(o, group);
    struct topic *t;

    if (!w) {
        w = mem_new(sizeof *w);
        w->name = bytes_own(group);
        w->name_bytes = group.bytes;
        w->used_ms = loop_wall_ms(o->env.home);
        strmap_put(&o->owners, w->name, (size_t)w->name_bytes, w);
    }
    t = strmap_get(&w->topics, name.mem, (size_t)name.bytes);
    if (!t) {
        t = mem_new(sizeof *t);
        t->name = bytes_own(name);
        t->name_bytes = name.bytes;
        t->owner = w;
        strmap_put(&w->topics, t->name, (size_t)t->name_bytes, t);
    }
    return t;
}

static void row_put(struct offsets *o, struct group_bytes group, const struct offset_entry *e,
                    int64_t time)
{
    struct topic *t = topic_make(o, group, e->topic);
    struct row *r = hash_get(&t->rows, (uint32_t)e->partition);

    if (!r) {
        r = mem_new(sizeof *r);
        r->topic = t;
        r->partition = e->partition;
        hash_put(&t->rows, (uint32_t)e->partition, r);
        r->prev = o->last;
        *(o->last ? &o->last->next : &o->first) = r;
        o->last = r;
        o->n_rows++;
        t->owner->n_rows++;
    }
    free(r->metadata);
    r->metadata = e->metadata.bytes > 0 ? bytes_own(e->metadata) : NULL;
    r->metadata_bytes = e->metadata.bytes;
    r->offset = e->offset;
    r->time = time;
    r->leader_epoch = e->leader_epoch;
    memcpy(r->topic_id, e->topic_id, sizeof r->topic_id);
}

static void topic_drop_if_empty(struct offsets *o, struct topic *t)
{
    struct owner *w = t->owner;

    if (t->rows.count)
        return;
    strmap_take(&w->topics, t->name, (size_t)t->name_bytes);
    hash_free(&t->rows);
    free(t->name);
    free(t);
    if (w->topics.count)
        return;
    strmap_take(&o->owners, w->name, (size_t)w->name_bytes);
    strmap_free(&w->topics);
    free(w->name);
    free(w);
}

static void row_drop(struct offsets *o, struct row *r)
{
    struct topic *t = r->topic;

    if (o->snapshot_at == r)
        o->snapshot_at = r->next;
    if (o->expire_at == r)
        o->expire_at = r->next;
    *(r->prev ? &r->prev->next : &o->first) = r->next;
    *(r->next ? &r->next->prev : &o->last) = r->prev;
    hash_take(&t->rows, (uint32_t)r->partition);
    t->owner->n_rows--;
    o->n_rows--;
    free(r->metadata);
    free(r);
    topic_drop_if_empty(o, t);
}

static struct offset_row row_view(const struct row *r)
{
    return (struct offset_row){
        .topic = { r->topic->name, r->topic->name_bytes },
        .partition = r->partition,
        .topic_id = r->topic_id,
        .offset = r->offset,
        .leader_epoch = r->leader_epoch,
        .metadata = { r->metadata ? r->metadata : "", r->metadata_bytes },
        .commit_time = r->time,
    };
}

int offsets_state(const struct offsets *o)
{
    return o->state;
}

bool offsets_find(struct offsets *o, struct group_bytes group, struct group_bytes topic,
                  int32_t partition, struct offset_row *out)
{
    struct row *r = row_find(o, group, topic, partition);

    ASSERT_HOME(o->env.home);
    if (r)
        *out = row_view(r);
    return r != NULL;
}

bool offsets_has_group(struct offsets *o, struct group_bytes group)
{
    return owner_find(o, group) != NULL;
}

void offsets_each(struct offsets *o, struct group_bytes group,
                  void (*fn)(void *ctx, const struct offset_row *r), void *ctx)
{
    struct owner *w = owner_find(o, group);
    uint64_t pos = 0, row_pos;
    void *t, *r;

    ASSERT_HOME(o->env.home);
    while (w && strmap_next(&w->topics, &pos, NULL, NULL, &t))
        for (row_pos = 0; hash_next(&((struct topic *)t)->rows, &row_pos, NULL, &r);) {
            struct offset_row view = row_view(r);

            fn(ctx, &view);
        }
}

void offsets_each_group(struct offsets *o, void (*fn)(void *ctx, struct group_bytes group),
                        void *ctx)
{
    uint64_t pos = 0;
    void *w;

    ASSERT_HOME(o->env.home);
    while (strmap_next(&o->owners, &pos, NULL, NULL, &w))
        fn(ctx, (struct group_bytes){ ((struct owner *)w)->name, ((struct owner *)w)->name_bytes });
}

struct offsets_stats offsets_stats(const struct offsets *o)
{
    struct offsets_stats s = o->stats;

    s.rows = o->n_rows;
    s.next_producer_id = o->next_id;
    return s;
}

/* ---- records ---------------------------------------------------------------------------------------------------------- */

enum { KEY_FIXED = 2 + 2 + 2 + 4, VALUE_FIXED = 1 + 8 + 4 + 8 + OFFSETS_TOPIC_ID_BYTES + 2 };

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

static void record_add_offset(struct offsets *o, struct group_bytes group,
                              const struct offset_entry *e, int64_t time, bool remove)
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

static void record_add_row(struct offsets *o, const struct row *r, bool remove)
{
    struct offset_row v = row_view(r);
    struct offset_entry e = { .topic = v.topic,
                              .partition = v.partition,
                              .offset = v.offset,
                              .leader_epoch = v.leader_epoch,
                              .metadata = v.metadata };

    memcpy(e.topic_id, v.topic_id, sizeof e.topic_id);
    record_add_offset(o,
                      (struct group_bytes){ r->topic->owner->name, r->topic->owner->name_bytes },
                      &e, r->time, remove);
}

/* A record of a kind that has no more in its key, and one or two numbers in its value. */
static void record_add_numbers(struct offsets *o, uint8_t kind, unsigned n, uint64_t a, uint64_t b)
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
        struct row *r = row_find(o, group, e.topic, e.partition);

        if (r)
            row_drop(o, r);
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
    row_put(o, group, &e, time);
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

/* ---- loading ---------------------------------------------------------------------------------------------------------- */

static void pump(struct offsets *o);
static void trim(struct offsets *o, uint64_t to);
static void expire_later(struct offsets *o);
static void close_if_idle(struct offsets *o);

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
            trim(o, o->load_trim);
        expire_later(o);
    } else {
        if (!l->err.code)
            err_set(&l->err, rc, "offsets shard at %llu: %s", (unsigned long long)o->read.from,
                    err_text(rc));
        LOG_ERROR("offsets.load_failed", F_ERR(rc), F_STR("text", l->err.text));
    }
    l->fn(l);
    close_if_idle(o);
}

static void load_read_done(struct read_done *d)
{
    struct offsets *o = (struct offsets *)((char *)d - offsetof(struct offsets, read));
    uint64_t from = d->from;
    int rc = d->rc;

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

/* ---- answers ---------------------------------------------------------------------------------------------------------- */

static void commit_done(struct task *t)
{
    struct offsets_commit *c = (struct offsets_commit *)t;

    c->fn(c);
}

static void answer(struct offsets_commit *c, int rc)
{
    c->rc = rc;
    c->next = NULL;
    c->task.run = commit_done;
    loop_post(c->loop, &c->task);
}

static void id_done(struct task *t)
{
    struct producer_id_done *d = (struct producer_id_done *)t;

    d->fn(d);
}

static void id_answer(struct producer_id_done *d, int rc, int64_t id)
{
    d->rc = rc;
    d->id = id;
    d->task.run = id_done;
    loop_post(d->loop, &d->task);
}

/* ---- the queue -------------------------------------------------------------------------------------------------------- */

static void turn_run(struct task *t)
{
    struct offsets *o = (struct offsets *)((char *)t - offsetof(struct offsets, turn));

    o->turn_posted = false;
    pump(o);
    close_if_idle(o);
}

/* At the end of this turn, so that all it brings shares a batch. */
static void pump_soon(struct offsets *o)
{
    if (o->turn_posted || o->flight)
        return;
    o->turn_posted = true;
    o->turn.run = turn_run;
    loop_post(o->env.home, &o->turn);
}

static void enqueue(struct offsets *o, struct offsets_commit *c, enum what what)
{
    c->what = what;
    c->next = NULL;
    c->time = loop_wall_ms(o->env.home);
    *o->queue_end = c;
    o->queue_end = &c->next;
    pump_soon(o);
}

static struct offsets_commit *dequeue(struct offsets *o)
{
    struct offsets_commit *c = o->queue;

    o->queue = c->next;
    if (!o->queue)
        o->queue_end = &o->queue;
    c->next = NULL;
    return c;
}

static int commit_check(const struct offsets *o, const struct offsets_commit *c)
{
    uint64_t bytes = 0;

    if (o->state)
        return o->state;
    if (o->close)
        return E_CLOSED;
    if (c->group.bytes < 0 || c->group.bytes > UINT16_MAX)
        return E_INVALID;
    for (unsigned i = 0; i < c->n; i++) {
        const struct offset_entry *e = &c->entries[i];

        if (e->topic.bytes < 0 || e->topic.bytes > UINT16_MAX || e->partition < 0)
            return E_INVALID;
        if (e->metadata.bytes > OFFSETS_METADATA_MAX)
            return E_TOOBIG;
        bytes += KEY_FIXED + VALUE_FIXED + 16 + (uint64_t)c->group.bytes +
                 (uint64_t)e->topic.bytes +
                 (uint64_t)(e->metadata.bytes > 0 ? e->metadata.bytes : 0);
    }
    return bytes > OFFSETS_COMMIT_MAX ? E_TOOBIG : 0;
}

static void change(struct offsets *o, struct offsets_commit *c, enum what what)
{
    int rc = commit_check(o, c);

    ASSERT_HOME(o->env.home);
    if (!rc && what == COMMIT && o->n_rows + c->n > o->conf.rows_max)
        rc = E_NOSPACE;
    if (rc)
        answer(c, rc);
    else
        enqueue(o, c, what);
}

void offsets_commit(struct offsets *o, struct offsets_commit *c)
{
    change(o, c, COMMIT);
}

void offsets_remove(struct offsets *o, struct offsets_commit *c)
{
    change(o, c, REMOVE);
}

void offsets_remove_group(struct offsets *o, struct offsets_commit *c)
{
    c->n = 0;
    change(o, c, REMOVE_GROUP);
}

static void topic_deleted_done(struct offsets_commit *c)
{
    if (c->rc && c->rc != E_CLOSED)
        LOG_WARN("offsets.topic_not_dropped", F_STR("topic", c->group.mem), F_ERR(c->rc));
    free((void *)c->group.mem);
    free(c);
}

void offsets_topic_deleted(struct offsets *o, struct group_bytes topic)
{
    struct offsets_commit *c = mem_new(sizeof *c);

    c->fn = topic_deleted_done;
    c->loop = o->env.home;
    c->group = (struct group_bytes){ bytes_own(topic), topic.bytes };
    change(o, c, REMOVE_TOPIC);
}

/* ---- producer ids ----------------------------------------------------------------------------------------------------- */

static void ids_give(struct offsets *o)
{
    while (o->ids && o->next_id < o->reserved_end) {
        struct producer_id_done *d = o->ids;

        o->ids = d->next;
        id_answer(d, 0, o->next_id++);
    }
    if (!o->ids)
        o->ids_end = &o->ids;
}

static void ids_refuse(struct offsets *o, int rc)
{
    while (o->ids) {
        struct producer_id_done *d = o->ids;

        o->ids = d->next;
        id_answer(d, rc, -1);
    }
    o->ids_end = &o->ids;
}

static void reserve_done(struct offsets_commit *c)
{
    struct offsets *o = (struct offsets *)((char *)c - offsetof(struct offsets, reserve));

    o->reserving = false;
    if (c->rc)
        ids_refuse(o, c->rc);
    ids_give(o);
    if (o->ids)
        goto again;
    close_if_idle(o);
    return;
again:
    o->reserving = true;
    enqueue(o, &o->reserve, RESERVE);
}

static void id_wanted(struct task *t)
{
    struct producer_id_done *d = (struct producer_id_done *)t;
    struct offsets *o = d->offsets;

    d->next = NULL;
    if (o->state || o->close) {
        id_answer(d, o->close ? E_CLOSED : o->state, -1);
        return;
    }
    *o->ids_end = d;
    o->ids_end = &d->next;
    ids_give(o);
    if (!o->ids || o->reserving)
        return;
    o->reserving = true;
    o->reserve = (struct offsets_commit){ .fn = reserve_done, .loop = o->env.home };
    enqueue(o, &o->reserve, RESERVE);
}

void producer_ids_next(struct offsets *o, struct producer_id_done *d)
{
    d->offsets = o;
    d->task.run = id_wanted;
    loop_post(o->env.home, &d->task);
}

/* ---- deletions of many rows ------------------------------------------------------------------------------------------- */

static void doom(struct offsets *o, struct row *r)
{
    if (o->n_doomed == o->cap_doomed) {
        o->cap_doomed = o->cap_doomed ? o->cap_doomed * 2 : 64;
        o->doomed = mem_grow(o->doomed, o->cap_doomed * sizeof *o->doomed);
    }
    o->doomed[o->n_doomed++] = r;
}

static bool batch_full(const struct offsets *o)
{
    return o->batch.body_bytes >= BATCH_BYTES;
}

static void doom_topic(struct offsets *o, struct topic *t)
{
    uint64_t pos = 0;
    void *r;

    while (hash_next(&t->rows, &pos, NULL, &r)) {
        if (batch_full(o)) {
            o->doomed_more = true;
            return;
        }
        doom(o, r);
        record_add_row(o, r, true);
    }
}

/* Gathers what c deletes, as far as one batch goes. */
static void doom_rows_of(struct offsets *o, const struct offsets_commit *c)
{
    struct owner *one = c->what == REMOVE_GROUP ? owner_find(o, c->group) : NULL;
    uint64_t pos = 0;
    void *w, *t;

    o->doomed_more = false;
    if (c->what == REMOVE_GROUP)
        while (one && !o->doomed_more && strmap_next(&one->topics, &pos, NULL, NULL, &t))
            doom_topic(o, t);
    else
        while (!o->doomed_more && strmap_next(&o->owners, &pos, NULL, NULL, &w)) {
            t = strmap_get(&((struct owner *)w)->topics, c->group.mem, (size_t)c->group.bytes);
            if (t)
                doom_topic(o, t);
        }
}

static void doomed_drop(struct offsets *o)
{
    for (uint64_t i = 0; i < o->n_doomed; i++)
        row_drop(o, o->doomed[i]);
    o->n_doomed = 0;
}

/* ---- expiry ----------------------------------------------------------------------------------------------------------- */

static void expire_later(struct offsets *o)
{
    loop_timer_set(o->env.home, &o->expire, (uint64_t)o->conf.expire_every_ms * 1000);
}

static void expire_fire(struct loop_timer *t)
{
    struct offsets *o = (struct offsets *)((char *)t - offsetof(struct offsets, expire));

    o->expiring = true;
    o->expire_at = o->first;
    pump_soon(o);
}

static bool row_expired(struct offsets *o, const struct row *r, int64_t now)
{
    struct owner *w = r->topic->owner;
    int64_t since = r->time > w->used_ms ? r->time : w->used_ms;

    if (w->used_ms != now && o->env.in_use &&
        o->env.in_use(o->env.ctx, (struct group_bytes){ w->name, w->name_bytes }))
        w->used_ms = since = now;
    return now - since >= (int64_t)o->conf.retention_ms;
}

/* Looks at some rows and writes deletions for those whose time is up. True: there is a batch. */
static bool expire_some(struct offsets *o)
{
    int64_t now = loop_wall_ms(o->env.home);
    struct row *r = o->expire_at;

    for (unsigned n = 0; r && n < EXPIRE_ROWS && !batch_full(o); n++, r = r->next)
        if (row_expired(o, r, now)) {
            doom(o, r);
            record_add_row(o, r, true);
        }
    o->expire_at = r;
    if (!r) {
        o->expiring = false;
        expire_later(o);
    }
    return o->n_doomed > 0;
}

/* ---- snapshots -------------------------------------------------------------------------------------------------------- */

static void snapshot_if_due(struct offsets *o)
{
    if (o->snapshot || o->trimming || o->since < o->conf.snapshot_every || o->since < o->n_rows)
        return;
    o->snapshot = SNAPSHOT_BEGIN;
    o->snapshot_yields = false;
}

static void snapshot_build(struct offsets *o)
{
    if (o->snapshot == SNAPSHOT_BEGIN) {
        record_add_numbers(o, KIND_BEGIN, 1, o->n_rows, 0);
        return;
    }
    if (o->snapshot == SNAPSHOT_END) {
        record_add_numbers(o, KIND_END, 2, o->snapshot_from, o->snapshot_rows);
        return;
    }
    if (!o->snapshot_rows)
        record_add_numbers(o, KIND_PRODUCER_IDS, 1, (uint64_t)o->reserved_end, 0);
    o->snapshot_rows += !o->snapshot_rows; /* the counter is a row too */
    for (; o->snapshot_at && !batch_full(o); o->snapshot_at = o->snapshot_at->next) {
        record_add_row(o, o->snapshot_at, false);
        o->snapshot_rows++;
    }
}

static void snapshot_flown(struct offsets *o, enum flight what)
{
    o->snapshot_yields = true;
    if (what == SNAPSHOT_BEGIN) {
        o->snapshot_from = o->append.base_offset;
        o->snapshot_at = o->first;
        o->snapshot_rows = 0;
        o->since = 0;
        o->snapshot = SNAPSHOT_ROWS;
    } else if (what == SNAPSHOT_ROWS) {
        o->snapshot = o->snapshot_at ? SNAPSHOT_ROWS : SNAPSHOT_END;
    } else {
        o->snapshot = NOTHING;
        o->stats.snapshots++;
        trim(o, o->snapshot_from);
    }
}

static void trim_done(struct shard_trim *t)
{
    struct offsets *o = (struct offsets *)((char *)t - offsetof(struct offsets, trim));

    o->trimming = false;
    if (t->rc)
        LOG_WARN("offsets.not_trimmed", F_ERR(t->rc));
    close_if_idle(o);
}

static void trim(struct offsets *o, uint64_t to)
{
    o->trim = (struct shard_trim){ .fn = trim_done, .loop = o->env.home, .start = to };
    o->trimming = true;
    shard_trim(o->env.shard, &o->trim);
}

/* ---- one append at a time --------------------------------------------------------------------------------------------- */

static void apply_change(struct offsets *o, const struct offsets_commit *c)
{
    for (unsigned i = 0; i < c->n; i++) {
        const struct offset_entry *e = &c->entries[i];
        struct row *r;

        if (c->what == COMMIT) {
            row_put(o, c->group, e, c->time);
            continue;
        }
        r = row_find(o, c->group, e->topic, e->partition);
        if (r)
            row_drop(o, r);
    }
}

static void changes_flown(struct offsets *o, int rc)
{
    struct offsets_commit *c = o->flying;

    o->flying = NULL;
    if (!rc && o->flying_reserve > o->reserved_end) {
        if (o->next_id < o->reserved_end - PRODUCER_BLOCK || o->next_id > o->reserved_end)
            o->next_id = o->reserved_end;
        o->reserved_end = o->flying_reserve;
    }
    while (c) {
        struct offsets_commit *next = c->next;

        if (!rc)
            apply_change(o, c);
        answer(c, rc);
        c = next;
    }
}

static void deletions_flown(struct offsets *o, int rc)
{
    struct offsets_commit *c = o->flying;

    o->flying = NULL;
    if (!rc && !c)
        o->stats.expired += o->n_doomed;
    if (!rc)
        doomed_drop(o);
    o->n_doomed = 0;
    if (c && !rc && o->doomed_more) { /* the next part goes first */
        c->next = o->queue;
        if (!o->queue)
            o->queue_end = &c->next;
        o->queue = c;
    } else if (c) {
        answer(c, rc);
    }
}

static void append_done(struct append_done *d)
{
    struct offsets *o = (struct offsets *)((char *)d - offsetof(struct offsets, append));
    enum flight what = o->flight;

    o->flight = NOTHING;
    if (d->rc)
        LOG_WARN("offsets.append_failed", F_ERR(d->rc));
    if (what == CHANGES)
        changes_flown(o, d->rc);
    else if (what == DELETIONS)
        deletions_flown(o, d->rc);
    else if (!d->rc)
        snapshot_flown(o, what);
    else {
        o->snapshot = NOTHING; /* begun and not ended: harmless; another after as many records again */
        o->since = 0;
    }
    snapshot_if_due(o);
    pump(o);
    close_if_idle(o);
}

static void fly(struct offsets *o, enum flight what)
{
    struct buf *b = NULL;
    unsigned n = (unsigned)o->batch.n;
    int rc = batch_builder_finish(&o->batch, CODEC_NONE, &b);

    o->flight = what;
    o->stats.appends++;
    if (what == CHANGES || what == DELETIONS)
        o->since += n;
    o->append = (struct append_done){ .fn = append_done, .loop = o->env.home };
    if (rc < 0) { /* as a failed append; never inside the call that brought us here */
        o->append.rc = rc;
        append_done(&o->append);
        return;
    }
    shard_append(o->env.shard, b, 0, b->len, ACK_QUORUM_DURABLE, &o->append);
    buf_unref(b);
}

static void change_add(struct offsets *o, const struct offsets_commit *c)
{
    if (c->what == RESERVE) {
        o->flying_reserve = o->reserved_end + PRODUCER_BLOCK;
        record_add_numbers(o, KIND_PRODUCER_IDS, 1, (uint64_t)o->flying_reserve, 0);
        return;
    }
    for (unsigned i = 0; i < c->n; i++)
        record_add_offset(o, c->group, &c->entries[i], c->time, c->what == REMOVE);
}

static bool is_deletion_of_many(const struct offsets_commit *c)
{
    return c->what == REMOVE_GROUP || c->what == REMOVE_TOPIC;
}

/* Takes changes off the queue into one batch; true: there is one. */
static bool gather_changes(struct offsets *o)
{
    struct offsets_commit **end = &o->flying;

    o->flying_reserve = 0;
    while (o->queue && !is_deletion_of_many(o->queue) && !batch_full(o)) {
        struct offsets_commit *c = dequeue(o);

        change_add(o, c);
        *end = c;
        end = &c->next;
    }
    return o->batch.n > 0;
}

/* The front of the queue, as one batch. True: it flies. */
static bool pump_queue(struct offsets *o)
{
    while (o->queue) {
        if (is_deletion_of_many(o->queue)) {
            o->flying = dequeue(o);
            doom_rows_of(o, o->flying); /* O2 */
            if (o->batch.n) {
                fly(o, DELETIONS);
                return true;
            }
            answer(o->flying, 0);
            o->flying = NULL;
        } else if (gather_changes(o)) {
            fly(o, CHANGES);
            return true;
        } else { /* changes of no rows */
            changes_flown(o, 0);
        }
    }
    return false;
}

/* The next batch: the queue and a snapshot take turns, expiry comes after both. */
static void pump(struct offsets *o)
{
    if (o->flight || o->state || o->close)
        return;
    if (o->snapshot && (!o->snapshot_yields || !o->queue)) {
        enum flight what = o->snapshot;

        snapshot_build(o); /* O2 */
        fly(o, what);
        return;
    }
    o->snapshot_yields = false;
    if (pump_queue(o))
        return;
    if (o->snapshot)
        pump_soon(o);
    else if (o->expiring && expire_some(o))
        fly(o, DELETIONS);
    else if (o->expiring)
        pump_soon(o);
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

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
    o->expire.fire = expire_fire;
    return o;
}

static void close_done(struct task *t)
{
    struct offsets_close *c = (struct offsets_close *)t;

    c->fn(c);
}

static void close_if_idle(struct offsets *o)
{
    struct offsets_close *c = o->close;

    if (!c || o->flight || o->load || o->trimming || o->turn_posted || o->reserving)
        return;
    o->close = NULL;
    o->state = E_CLOSED;
    c->task.run = close_done;
    loop_post(c->loop, &c->task);
}

void offsets_close(struct offsets *o, struct offsets_close *c)
{
    ASSERT_HOME(o->env.home);
    o->close = c;
    loop_timer_stop(&o->expire);
    while (o->queue)
        answer(dequeue(o), E_CLOSED);
    close_if_idle(o);
}

void offsets_free(struct offsets *o)
{
    if (!o)
        return;
    ASSERT(!o->flight && !o->load && !o->queue && !o->ids);
    loop_timer_stop(&o->expire);
    while (o->first)
        row_drop(o, o->first);
    strmap_free(&o->owners);
    batch_builder_free(&o->batch);
    free(o->doomed);
    free(o);
}
