/* How changes of the offsets shard are gathered, appended and then applied: one batch on its way
 * at a time (O1, O2: offsets.c). */
#include "gateways/kafka/offsets_int.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/logger.h"

enum {
    BATCH_BYTES = 256 << 10, /* a batch takes no more when it holds this */
    EXPIRE_ROWS = 20000      /* looked at in one turn */
};

static void pump(struct offsets *o);

/* ---- answers --------------------------------------------------------------------------------- */

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

/* ---- the queue ------------------------------------------------------------------------------- */

static void turn_run(struct task *t)
{
    struct offsets *o = (struct offsets *)((char *)t - offsetof(struct offsets, turn));

    o->turn_posted = false;
    pump(o);
    offsets_close_if_idle(o);
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
    c->group = (struct group_bytes){ offsets_bytes_own(topic), topic.bytes };
    change(o, c, REMOVE_TOPIC);
}

/* ---- producer ids ---------------------------------------------------------------------------- */

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

static void reserve_done(struct offsets_commit *c);

static void reserve_block(struct offsets *o)
{
    o->reserving = true;
    o->reserve = (struct offsets_commit){ .fn = reserve_done, .loop = o->env.home };
    enqueue(o, &o->reserve, RESERVE);
}

static void reserve_done(struct offsets_commit *c)
{
    struct offsets *o = (struct offsets *)((char *)c - offsetof(struct offsets, reserve));

    o->reserving = false;
    if (c->rc)
        ids_refuse(o, c->rc);
    ids_give(o);
    if (o->ids)
        reserve_block(o);
    offsets_close_if_idle(o);
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
    if (o->ids && !o->reserving)
        reserve_block(o);
}

void producer_ids_next(struct offsets *o, struct producer_id_done *d)
{
    d->offsets = o;
    d->task.run = id_wanted;
    loop_post(o->env.home, &d->task);
}

/* ---- deletions of many rows ------------------------------------------------------------------ */

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

static void doom_topic(struct offsets *o, struct owner_topic *t)
{
    uint64_t pos = 0;
    void *r;

    while (hash_next(&t->rows, &pos, NULL, &r)) {
        if (batch_full(o)) {
            o->doomed_more = true;
            return;
        }
        doom(o, r);
        offsets_write_row(o, r, true);
    }
}

/* Gathers what c deletes, as far as one batch goes. */
static void doom_rows_of(struct offsets *o, const struct offsets_commit *c)
{
    struct owner *one = c->what == REMOVE_GROUP ? offsets_owner_find(o, c->group) : NULL;
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
        offsets_row_drop(o, o->doomed[i]);
    o->n_doomed = 0;
}

/* ---- expiry ---------------------------------------------------------------------------------- */

void offsets_expire_later(struct offsets *o)
{
    loop_timer_set(o->env.home, &o->expire, (uint64_t)o->conf.expire_every_ms * 1000);
}

void offsets_expire_fire(struct loop_timer *t)
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
            offsets_write_row(o, r, true);
        }
    o->expire_at = r;
    if (!r) {
        o->expiring = false;
        offsets_expire_later(o);
    }
    return o->n_doomed > 0;
}

/* ---- snapshots ------------------------------------------------------------------------------- */

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
        offsets_write_numbers(o, KIND_BEGIN, 1, o->n_rows, 0);
        return;
    }
    if (o->snapshot == SNAPSHOT_END) {
        offsets_write_numbers(o, KIND_END, 2, o->snapshot_from, o->snapshot_rows);
        return;
    }
    if (!o->snapshot_rows)
        offsets_write_numbers(o, KIND_PRODUCER_IDS, 1, (uint64_t)o->reserved_end, 0);
    o->snapshot_rows += !o->snapshot_rows; /* the counter is a row too */
    for (; o->snapshot_at && !batch_full(o); o->snapshot_at = o->snapshot_at->next) {
        offsets_write_row(o, o->snapshot_at, false);
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
        offsets_trim_to(o, o->snapshot_from);
    }
}

static void trim_done(struct shard_trim *t)
{
    struct offsets *o = (struct offsets *)((char *)t - offsetof(struct offsets, trim));

    o->trimming = false;
    if (t->rc)
        LOG_WARN("offsets.not_trimmed", F_ERR(t->rc));
    offsets_close_if_idle(o);
}

void offsets_trim_to(struct offsets *o, uint64_t to)
{
    o->trim = (struct shard_trim){ .fn = trim_done, .loop = o->env.home, .start = to };
    o->trimming = true;
    shard_trim(o->env.shard, &o->trim);
}

/* ---- one append at a time -------------------------------------------------------------------- */

static void apply_change(struct offsets *o, const struct offsets_commit *c)
{
    for (unsigned i = 0; i < c->n; i++) {
        const struct offset_entry *e = &c->entries[i];
        struct row *r;

        if (c->what == COMMIT) {
            offsets_row_put(o, c->group, e, c->time);
            continue;
        }
        r = offsets_row_find(o, c->group, e->topic, e->partition);
        if (r)
            offsets_row_drop(o, r);
    }
}

static void changes_flown(struct offsets *o, int rc)
{
    struct offsets_commit *c = o->flying;

    o->flying = NULL;
    if (!rc && o->flying_reserve)
        o->reserved_end = o->flying_reserve;
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
    if (c && !rc && o->doomed_more && !o->close) { /* the next part goes first */
        c->next = o->queue;
        if (!o->queue)
            o->queue_end = &c->next;
        o->queue = c;
    } else if (c) {
        answer(c, !rc && o->doomed_more ? E_CLOSED : rc);
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
    else { /* begun and not ended: harmless; another after as many records again */
        o->snapshot = NOTHING;
        o->since = 0;
    }
    snapshot_if_due(o);
    pump(o);
    offsets_close_if_idle(o);
}

static void append_not_made(struct task *t)
{
    append_done((struct append_done *)t);
}

static void pack(struct work *w)
{
    struct offsets *o = (struct offsets *)((char *)w - offsetof(struct offsets, packing));
    bool small = o->batch.body_bytes < BATCH_PACK_FROM;

    o->packed_rc = batch_builder_finish(&o->batch, small ? CODEC_NONE : o->conf.codec, &o->packed);
}

static void packed(struct work *w)
{
    struct offsets *o = (struct offsets *)((char *)w - offsetof(struct offsets, packing));
    struct buf *b = o->packed;

    o->packed = NULL;
    o->append = (struct append_done){ .fn = append_done, .loop = o->env.home };
    if (o->packed_rc < 0) { /* as a failed append */
        batch_builder_free(&o->batch);
        o->append.rc = o->packed_rc;
        o->append.task.run = append_not_made;
        loop_post(o->env.home, &o->append.task);
        return;
    }
    shard_append(o->env.shard, b, 0, b->len, ACK_QUORUM_DURABLE, &o->append);
    buf_unref(b);
}

static void fly(struct offsets *o, enum flight what)
{
    o->flight = what;
    o->stats.appends++;
    if (what == CHANGES || what == DELETIONS)
        o->since += (unsigned)o->batch.n;
    o->packing = (struct work){ .run = pack, .done = packed, .loop = o->env.home };
    if (o->env.pool && o->conf.codec != CODEC_NONE && o->batch.body_bytes > BATCH_PACK_ASIDE) {
        pool_submit(o->env.pool, &o->packing);
        return;
    }
    pack(&o->packing);
    packed(&o->packing);
}

static void change_add(struct offsets *o, const struct offsets_commit *c)
{
    if (c->what == RESERVE) {
        o->flying_reserve = o->reserved_end + OFFSETS_PRODUCER_BLOCK;
        offsets_write_numbers(o, KIND_PRODUCER_IDS, 1, (uint64_t)o->flying_reserve, 0);
        return;
    }
    for (unsigned i = 0; i < c->n; i++)
        offsets_write_entry(o, c->group, &c->entries[i], c->time, c->what == REMOVE);
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

/* ---- closing --------------------------------------------------------------------------------- */

static void close_done(struct task *t)
{
    struct offsets_close *c = (struct offsets_close *)t;

    c->fn(c);
}

void offsets_close_if_idle(struct offsets *o)
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
    offsets_close_if_idle(o);
}
