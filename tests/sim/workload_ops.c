#include "tests/sim/workload_int.h"

#include <stdlib.h>
#include <string.h>

#include "journal/devices.h"
#include "journal/shard.h"
#include "journal/store.h"

/* --- devices --- */

static enum jrn_state device_state(const struct workload *w, unsigned device)
{
    return store_state(jrn_sim_store(&w->js, device));
}

bool workload_any_device_is(const struct workload *w, enum jrn_state state)
{
    for (unsigned i = 0; i < journal_n_devices(w->js.j); i++)
        if (device_state(w, i) == state)
            return true;
    return false;
}

/* The state of the device that a shard lies on; of device 0, which keeps the rows, without one. */
static enum jrn_state state_of(const struct workload *w, const struct model_shard *s)
{
    return device_state(w, s ? device_of(s->id) : 0);
}

/* --- operations under way --- */

static struct op *op_new(struct workload *w, enum op_kind kind, struct model_shard *s)
{
    struct op *op = mem_new(sizeof *op);

    op->w = w;
    op->kind = kind;
    op->s = s;
    op->next = w->ops;
    if (op->next)
        op->next->prev = op;
    w->ops = op;
    w->n_ops++;
    op->failed_before = state_of(w, s) == JRN_FAILED;
    if (s) {
        op->deleted_before = s->exists == SHARD_DELETED;
        op->end_before = s->end_seen;
        op->read_only_before = workload_group_read_only(w, s->group);
    }
    return op;
}

void workload_op_free(struct op *op)
{
    struct workload *w = op->w;

    if (op->prev)
        op->prev->next = op->next;
    else
        w->ops = op->next;
    if (op->next)
        op->next->prev = op->prev;
    w->n_ops--;
    free(op);
}

static void op_done(struct op *op)
{
    op->done = true;
    if (!op->kept)
        workload_op_free(op);
}

struct until {
    struct workload *w;
    bool (*fn)(void *ctx);
    void *ctx;
    uint64_t end_us;
    bool met;
};

static bool until_over(void *ctx)
{
    struct until *u = ctx;

    u->met = u->fn(u->ctx);
    return u->met || sim_now_us(u->w->js.sim) > u->end_us;
}

/* Runs until fn is true, WAIT_US at most: the journal's timers never stop, and must not move the clock
 * by days while a request is stuck. */
bool workload_run_until(struct workload *w, bool (*fn)(void *ctx), void *ctx)
{
    struct until u = { w, fn, ctx, sim_now_us(w->js.sim) + WAIT_US, false };

    return sim_run_until(w->js.sim, until_over, &u, STEPS_MAX) && u.met;
}

static bool op_is_done(void *ctx)
{
    return ((struct op *)ctx)->done;
}

void workload_op_wait(struct workload *w, struct op *op)
{
    if (!workload_run_until(w, op_is_done, op))
        model_fail(&w->m, "operation %d is never answered", (int)op->kind);
    workload_watch(w);
}

static struct loop *some_loop(struct workload *w)
{
    return w->js.loops[below(w, w->js.n_loops)];
}

/* Errors that any operation may get once the life is coming to its end, or the device has failed. */
static bool excused(const struct workload *w, const struct op *op, int rc)
{
    if (rc == E_DELETED)
        return op->s && op->s->deleting;
    if (rc == E_CLOSED)
        return w->ending;
    if (rc == E_IO)
        return w->ending || w->faulty;
    if (rc == E_DEVICE)
        return w->ending || (op->s ? state_of(w, op->s) == JRN_FAILED
                                   : workload_any_device_is(w, JRN_FAILED)); /* an update, of any */
    return false;
}

static struct model_shard *some_shard(struct workload *w)
{
    struct model_shard *found = NULL;
    unsigned n = 0;

    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        /* Deleted ones stay of interest while their handle lives; the later the less. */
        if (s->handle && (s->exists != SHARD_DELETED || chance(w, 1, 8)) && below(w, ++n) == 0)
            found = s;
    }
    return found;
}

/* What retention may have done to the shard by now. */
void workload_expire(struct workload *w, struct model_shard *s)
{
    if (loop_wall_ms(w->js.loops[0]) > w->wall_max)
        w->wall_max = loop_wall_ms(w->js.loops[0]);
    model_expire(s, w->wall_max, s->handle ? shard_end(s->handle) : s->handed);
}

/* --- appends --- */

static void append_wrong(const struct op *op, const char *what)
{
    const struct append_done *d = &op->u.append;

    model_fail(&op->w->m,
               "shard %" PRIu64 ": batch %" PRIu64 " (producer %d, epoch %d, sequence %d): %s, "
               "answer %s offset %" PRIu64 "%s",
               op->s->id, op->x->id, op->x->producer, (int)op->x->epoch, (int)op->x->sequence, what,
               d->rc < 0 ? err_name(d->rc) : "OK", d->base_offset,
               d->duplicate ? " duplicate" : "");
}

static void append_good(struct op *op)
{
    struct workload *w = op->w;
    struct append_done *d = &op->u.append;
    bool memory = op->s->kind == SHARD_MEMORY, durable = memory || op->ack >= ACK_LEADER_DURABLE;

    if (op->failed_before)
        append_wrong(op, "taken after the device had failed");
    if (op->deleted_before)
        append_wrong(op, "taken by a deleted shard");
    if (op->read_only_before && !memory)
        append_wrong(op, "taken by a group with a loss");
    if (op->expect == EXPECT_CODE)
        append_wrong(op, "taken against its sequence");
    if (op->expect == EXPECT_DUPLICATE && !d->duplicate && !op->x->refused)
        append_wrong(op, "taken twice");
    if (!d->duplicate &&
        op->x->refused) /* room has come up between the first time and the second */
        op->x->gone = op->x->refused = false;
    if (d->duplicate && op->expect == EXPECT_OK)
        append_wrong(op, "not a duplicate");
    if (durable && op->s->handle && shard_end(op->s->handle) < d->base_offset + op->x->n_records)
        append_wrong(op, "answered before readers see it");
    model_acked(&w->m, op->x, d->base_offset, durable, d->duplicate);
    w->n->durable += durable;
    w->n->duplicates += d->duplicate;
    if (!d->duplicate && op->x->producer >= 0)
        model_accepted(op->s, op->x);
}

static void append_bad(struct op *op)
{
    struct workload *w = op->w;
    int rc = op->u.append.rc;
    bool sequence = rc == E_SEQUENCE || rc == E_DUPLICATE || rc == E_PRODUCER_EPOCH;
    struct model_producer *p = op->x->producer >= 0 ? &op->s->producers[op->x->producer] : NULL;

    if (sequence && op->expect == EXPECT_CODE) {
        if (rc != op->code)
            append_wrong(op, "refused for the wrong reason");
        w->n->refused++;
    } else if (sequence) {
        if (!p || !p->unsure)
            append_wrong(op, "refused");
    } else if (rc == E_NOSPACE) {
        if (op->s->class == SHARD_CLASS_INTERNAL)
            append_wrong(op, "refused by a group that has a reserve");
        w->n->full++;
    } else if (rc == E_READONLY) {
        uint64_t device = op->s->group >> DEVICE_SHIFT << DEVICE_SHIFT;

        if (!workload_group_read_only(w, op->s->group) &&
            !workload_group_read_only(w, device | GROUP_CATALOGUE))
            append_wrong(op, "refused");
    } else if (!excused(w, op, rc)) {
        append_wrong(op, "refused");
    }
    if (p && op->expect == EXPECT_OK)
        p->unsure = true;
    if (!op->resent && rc != E_DEVICE && rc != E_IO)
        op->x->gone = op->x->refused = true; /* for certain */
}

/* Within a shard, answers that wait for the same thing come in order of submission. */
static void append_in_order(struct op *op)
{
    for (const struct op *o = op->next; o && !op->resent; o = o->next)
        if (o->kind == OP_APPEND && o->s == op->s && !o->resent && o->ack >= ACK_LEADER_DURABLE &&
            op->ack >= ACK_LEADER_DURABLE && o->u.append.loop == op->u.append.loop && !o->done)
            append_wrong(op, "answered before an earlier one");
}

static void append_fn(struct append_done *d)
{
    struct op *op = (struct op *)d;

    TALK(op->w, "shard %" PRIu64 " batch %" PRIu64 " x%u producer %d/%d seq %d: %s %" PRIu64 "%s",
         op->s->id, op->x->id, op->x->n_records, op->x->producer, (int)op->x->epoch,
         (int)op->x->sequence, err_name(d->rc), d->base_offset, d->duplicate ? " dup" : "");
    if (op->x->producer >= 0)
        op->s->producers[op->x->producer].in_flight--;
    if (d->rc >= 0) {
        append_in_order(op);
        append_good(op);
    } else {
        append_bad(op);
    }
    op_done(op);
}

static struct op *append(struct workload *w, struct model_shard *s, struct sent *x, enum expect e,
                         int code)
{
    struct op *op = op_new(w, OP_APPEND, s);

    op->x = x;
    op->expect = e;
    op->code = code;
    op->resent = e == EXPECT_DUPLICATE;
    op->ack = chance(w, 3, 4) ? ACK_QUORUM_DURABLE : (enum ack)below(w, 5);
    op->u.append.fn = append_fn;
    op->u.append.loop = some_loop(w);
    if (e == EXPECT_OK)
        model_submitted(&w->m, x);
    if (x->producer >= 0)
        s->producers[x->producer].in_flight++;
    w->n->appends++;
    shard_append(s->handle, x->buf, 0, x->buf->len, op->ack, &op->u.append);
    return op;
}

static void append_next(struct workload *w, struct model_shard *s, int at)
{
    struct model_producer *p = &s->producers[at];
    struct sent *x = model_send(&w->m, s, &w->rng, at, p->next, p->epoch);

    p->next += (int32_t)x->n_records;
    append(w, s, x, EXPECT_OK, 0);
    if (chance(w, 1, 6)) /* the client is impatient and sends it again at once */
        append(w, s, x, EXPECT_DUPLICATE, 0);
}

/* Answers that follow from what the producer has in the shard, when all of it is known and kept. */
static bool append_odd(struct workload *w, struct model_shard *s, int at)
{
    struct model_producer *p = &s->producers[at];
    struct sent *last = p->n_last > 0 ? p->last[p->n_last - 1] : NULL;
    struct sent *x = last;
    int32_t sequence = p->next;
    int16_t epoch = p->epoch;
    int code = E_SEQUENCE;

    workload_expire(w, s);
    if (!last || last->offset < s->start_max || last->epoch != p->epoch)
        return false;
    switch (below(w, 5)) {
    case 0:
    case 1:
        x = p->last[below(w, p->n_last)];
        if (x->offset < s->start_max)
            return false;
        append(w, s, x, EXPECT_DUPLICATE, 0);
        return true;
    case 2:
        sequence += 1 + (int32_t)below(w, 5);
        break;
    case 3:
        if (epoch == 0)
            return false;
        epoch--;
        code = E_PRODUCER_EPOCH;
        break;
    default:
        if (!p->older || p->last[0]->sequence < 1)
            return false;
        sequence = p->last[0]->sequence - 1;
        code = E_DUPLICATE;
        break;
    }
    x = model_send(&w->m, s, &w->rng, at, sequence, epoch);
    if (code == E_DUPLICATE && x->n_records != 1)
        return true; /* it would reach into what is remembered: not sent */
    append(w, s, x, EXPECT_CODE, code);
    return true;
}

static void do_append(struct workload *w)
{
    struct model_shard *s = some_shard(w);
    int at = (int)below(w, MODEL_PRODUCERS + 1) - 1;
    struct model_producer *p;

    if (!s || (s->class == SHARD_CLASS_INTERNAL && state_of(w, s) == JRN_FULL))
        return;
    if (at < 0 || s->kind == SHARD_MEMORY) { /* what that knows of producers goes with the life */
        append(w, s, model_send(&w->m, s, &w->rng, -1, -1, -1), EXPECT_OK, 0);
        return;
    }
    p = &s->producers[at];
    if (!p->id)
        p->id = ++w->m.next_producer;
    if (p->unsure) {
        if (p->in_flight > 0)
            return;
        p->epoch++;
        p->next = 0;
        p->unsure = false;
    }
    if (p->in_flight == 0 && chance(w, 1, 4) && append_odd(w, s, at))
        return;
    append_next(w, s, at);
}

/* --- reads --- */

void workload_read_wrong(const struct op *op, const char *what)
{
    const struct read_done *d = &op->u.read;

    model_fail(&op->w->m,
               "shard %" PRIu64 ": read from %" PRIu64 " (start %" PRIu64 " end %" PRIu64
               "): %s: %s, %" PRIu32 " bytes",
               op->s->id, d->from, d->start, d->end, what, d->rc < 0 ? err_name(d->rc) : "OK",
               d->bytes);
}

/* One slice of whole batches. *at: the offset that comes next. */
static void slice_check(struct op *op, const struct slice *slice, uint64_t *at, bool *first)
{
    const uint8_t *mem = slice->mem;
    uint32_t left = slice->len;

    while (left > 0) {
        struct batch_head h;
        uint64_t base, end;

        if (batch_check(&h, mem, left) < 0)
            workload_read_wrong(op, "not a batch");
        base = (uint64_t)h.base_offset;
        end = base + (uint64_t)h.last_offset_delta + 1;
        if (*first ? base > *at || end <= *at : base != *at)
            workload_read_wrong(op, "offsets are not dense");
        if (end > op->u.read.end)
            workload_read_wrong(op, "above the high watermark");
        model_seen(&op->w->m, op->s, mem, &h);
        *first = false;
        *at = end;
        mem += h.bytes;
        left -= h.bytes;
    }
}

static void read_good(struct op *op)
{
    struct read_done *d = &op->u.read;
    uint64_t at = d->from;
    bool first = true;

    workload_expire(op->w, op->s);
    if (d->end < op->end_before && !model_may_be_lost(op->s, d->end))
        workload_read_wrong(op, "the high watermark went back");
    model_end(&op->w->m, op->s, d->end);
    for (unsigned i = 0; i < d->n_slices; i++)
        slice_check(op, &d->slices[i], &at, &first);
    if (d->bytes == 0 && d->from != d->end && d->at_least_one)
        workload_read_wrong(op, "nothing, below the high watermark");
    if (d->start > op->s->start_max)
        workload_read_wrong(op, "the start is past what was asked for");
}

static void read_bad(struct op *op)
{
    struct workload *w = op->w;
    struct read_done *d = &op->u.read;

    workload_expire(w, op->s);
    switch (d->rc) {
    case E_RANGE:
        if (op->s->kind == SHARD_MEMORY && d->from >= d->start && d->from <= d->end)
            workload_read_wrong(op, "out of range");
        if (d->from >= op->s->start_max && d->from <= op->end_before)
            workload_read_wrong(op, "out of range");
        break;
    case E_LOST:
        if (!model_may_be_lost(op->s, d->from) &&
            !(d->from >= op->s->end_seen && workload_group_read_only(w, op->s->group)))
            workload_read_wrong(op, "nothing was damaged there");
        w->n->lost_reads++;
        break;
    default:
        if (!excused(w, op, d->rc))
            workload_read_wrong(op, "refused");
    }
}

static void read_fn(struct read_done *d)
{
    struct op *op = (struct op *)d;

    op->w->n->reads++;
    if (d->rc >= 0)
        read_good(op);
    else
        read_bad(op);
    if (!op->kept)
        read_done_release(d);
    op_done(op);
}

struct op *workload_read(struct workload *w, struct model_shard *s, uint64_t from,
                         uint32_t max_bytes, bool at_least_one, bool kept)
{
    struct op *op = op_new(w, OP_READ, s);

    op->kept = kept;
    op->u.read = (struct read_done){ .fn = read_fn,
                                     .loop = some_loop(w),
                                     .from = from,
                                     .max_bytes = max_bytes,
                                     .at_least_one = at_least_one };
    shard_read(s->handle, &op->u.read);
    return op;
}

static void do_read(struct workload *w)
{
    struct model_shard *s = some_shard(w);
    uint64_t from;

    if (!s)
        return;
    from = below(w, s->end_seen + 3);
    if (chance(w, 1, 3))
        from = s->end_seen - (s->end_seen ? below(w, s->end_seen < 6 ? s->end_seen : 6) : 0);
    if (s->handle->index.first == s->handle->index.end ||
        from < index_at(&s->handle->index, 0)->base)
        w->n->cold++;
    workload_read(w, s, from, 1 + (uint32_t)below(w, chance(w, 1, 2) ? 4000 : 60000),
                  chance(w, 2, 3), false);
}

static void wait_fn(struct shard_wait *d)
{
    struct op *op = (struct op *)d;
    struct workload *w = op->w;

    if (d->rc >= 0) {
        w->n->waits++;
        if (op->s->handle && shard_end(op->s->handle) <= d->past)
            model_fail(&w->m, "shard %" PRIu64 ": woken for nothing past %" PRIu64, op->s->id,
                       d->past);
    } else if (d->rc == E_CANCELLED ? !op->resent : !excused(w, op, d->rc)) {
        model_fail(&w->m, "shard %" PRIu64 ": wait ended with %s", op->s->id, err_name(d->rc));
    }
    op_done(op);
}

static void do_wait(struct workload *w)
{
    struct model_shard *s = some_shard(w);
    struct op *op;

    if (!s)
        return;
    op = op_new(w, OP_WAIT, s);
    op->u.wait.fn = wait_fn;
    op->u.wait.loop = some_loop(w);
    shard_wait(s->handle, s->end_seen + below(w, 4) - (s->end_seen && chance(w, 1, 8)),
               &op->u.wait);
}

/* resent stands for "cancelled" here: once is the limit. */
void workload_cancel_waits(struct workload *w, uint32_t num, uint32_t den)
{
    for (struct op *op = w->ops; op; op = op->next) {
        if (op->kind != OP_WAIT || op->resent || !chance(w, num, den))
            continue;
        op->resent = true;
        shard_wait_cancel(&op->u.wait);
    }
}

/* --- finding by time --- */

static void find_fn(struct find_time *d)
{
    struct op *op = (struct op *)d;
    struct workload *w = op->w;

    if (d->rc >= 0)
        w->n->finds += d->found;
    else if (d->rc != E_LOST || op->s->n_lost == 0)
        if (!excused(w, op, d->rc))
            model_fail(&w->m, "shard %" PRIu64 ": finding a time gave %s", op->s->id,
                       err_name(d->rc));
    if (d->rc >= 0 && d->found) {
        unsigned i = model_find(op->s, d->offset);
        const struct sent *x = i < op->s->n_log ? op->s->log[i] : NULL;

        if (x && x->offset <= d->offset && x->ts[d->offset - x->offset] != d->timestamp)
            model_fail(&w->m, "shard %" PRIu64 ": offset %" PRIu64 " has not time %" PRId64,
                       op->s->id, d->offset, d->timestamp);
    }
    op_done(op);
}

struct op *workload_find(struct workload *w, struct model_shard *s, bool kept)
{
    struct op *op = op_new(w, OP_FIND, s);

    op->kept = kept;
    op->u.find.fn = find_fn;
    op->u.find.loop = some_loop(w);
    op->u.find.time = 1700000000000 + (int64_t)below(w, w->m.n_all * 10 + 20) - 10;
    if (chance(w, 1, 4))
        op->u.find.time = SHARD_TIME_MAX;
    shard_find_time(s->handle, &op->u.find);
    return op;
}

static void do_find(struct workload *w)
{
    struct model_shard *s = some_shard(w);

    if (s)
        workload_find(w, s, false);
}

/* --- trims and updates --- */

static void trim_fn(struct shard_trim *d)
{
    struct op *op = (struct op *)d;
    struct workload *w = op->w;

    if (d->rc >= 0) {
        w->n->trims++;
        workload_expire(w, op->s);
        if (d->start < op->from || d->start > op->s->start_max)
            model_fail(&w->m,
                       "shard %" PRIu64 ": start %" PRIu64 " is not in %" PRIu64 "..%" PRIu64,
                       op->s->id, d->start, op->from, op->s->start_max);
        if (d->start > op->s->start_min)
            op->s->start_min = d->start;
    } else if (d->rc != E_READONLY || !workload_group_read_only(w, GROUP_CATALOGUE)) {
        if (!excused(w, op, d->rc))
            model_fail(&w->m, "shard %" PRIu64 ": trim gave %s", op->s->id, err_name(d->rc));
    }
    op_done(op);
}

static void do_trim(struct workload *w)
{
    struct model_shard *s = some_shard(w);
    struct op *op;

    if (!s)
        return;
    op = op_new(w, OP_TRIM, s);
    op->u.trim.fn = trim_fn;
    op->u.trim.loop = some_loop(w);
    op->from = s->start_min;
    op->u.trim.start = below(w, s->end_seen + 2);
    if (op->u.trim.start > s->start_max)
        s->start_max = op->u.trim.start;
    shard_trim(s->handle, &op->u.trim);
}

static void update_fn(struct jrn_update *d)
{
    struct op *op = (struct op *)d;
    struct workload *w = op->w;

    for (unsigned i = 0; op->update && i < op->update->n; i++)
        TALK(w, "update %d of %u to %" PRIu64 ": %s", (int)op->update->changes[i].op,
             op->update->changes[i].at, op->update->changes[i].value, err_name(d->rc));
    w->n->updates += d->rc >= 0;
    if (d->rc >= 0 && op->failed_before)
        model_fail(&w->m, "an update held after the device had failed");
    if (d->rc < 0 && !excused(w, op, d->rc) && d->rc != op->code &&
        !(d->rc == E_READONLY && workload_group_read_only(w, GROUP_CATALOGUE)))
        model_fail(&w->m, "an update gave %s", err_name(d->rc));
    if (op->code && d->rc >= 0)
        model_fail(&w->m, "an update that is wrong was made");
    if (op->update) {
        for (unsigned i = 0; d->rc >= 0 && i < op->update->n; i++)
            w->n->shards_deleted += op->update->changes[i].op == MODEL_DELETE;
        /* Device 0 is well: another one that has failed was met before anything was done. */
        model_update_answered(&w->m, op->update,
                              d->rc == E_DEVICE && state_of(w, NULL) != JRN_FAILED ? E_READONLY
                                                                                   : d->rc);
    }
    op_done(op);
}

static struct op *update_send(struct workload *w, const struct model_change *list, unsigned n,
                              int code)
{
    struct jrn_change changes[MODEL_CHANGES_MAX];
    uint8_t keys[MODEL_CHANGES_MAX][2];
    struct op *op = op_new(w, OP_UPDATE, NULL);

    op->code = code;
    op->u.update.fn = update_fn;
    op->u.update.loop = w->js.loops[0];
    if (!code) {
        op->update = model_update_new(&w->m);
        memcpy(op->update->changes, list, n * sizeof *list);
        op->update->n = n;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct model_change *c = &list[i];

        keys[i][0] = 'T';
        keys[i][1] = (uint8_t)c->at;
        changes[i] = (struct jrn_change){ .key = keys[i], .key_bytes = 2 };
        if (c->op == MODEL_CREATE || c->op == MODEL_DELETE) {
            changes[i] = (struct jrn_change){ .shard = w->m.shards[c->at].id,
                                              .class = w->m.shards[c->at].class,
                                              .policy = c->policy };
            changes[i].op = c->op == MODEL_CREATE ? JRN_SHARD_CREATE : JRN_SHARD_DELETE;
            changes[i].kind = w->m.shards[c->at].kind;
        } else if (c->op == MODEL_POLICY) {
            changes[i] = (struct jrn_change){ .op = JRN_SHARD_POLICY,
                                              .shard = w->m.shards[c->at].id,
                                              .policy = c->policy };
        } else if (c->op == MODEL_PUT) {
            changes[i].op = JRN_ROW_PUT;
            changes[i].value = &c->value;
            changes[i].value_bytes = sizeof c->value;
        } else {
            changes[i].op = JRN_ROW_DELETE;
        }
    }
    journal_update(w->js.j, changes, n, &op->u.update);
    return op;
}

void workload_delete(struct workload *w, struct model_shard *s)
{
    struct model_change c = { MODEL_DELETE, (unsigned)(s - w->m.shards), 0, { 0 } };

    s->deleting = true;
    update_send(w, &c, 1, 0);
}

/* Most that are compacted keep the rest, so that there is something to compact. */
static void compacted_policy(struct workload *w, struct model_shard *s, struct shard_policy *p)
{
    if (chance(w, 2, 3))
        *p = (struct shard_policy){ 0 };
    p->flags |= SHARD_COMPACTED;
    p->min_compaction_lag_ms = chance(w, 1, 2) ? 0 : (int64_t)below(w, 20000);
    p->delete_retention_ms = (int64_t)below(w, chance(w, 1, 2) ? 100 : 20000);
    s->compacted = true;
}

/* A policy, mostly one that lets something go. */
static struct model_change policy_change(struct workload *w, enum model_op op, unsigned at)
{
    struct model_shard *s = &w->m.shards[at];
    struct model_change c = { op, at, 0, { 0 } };

    if (chance(w, 1, 2)) {
        c.policy.flags |= SHARD_EXPIRES;
        c.policy.retention_ms = (int64_t)below(w, chance(w, 1, 2) ? 500 : 20000);
        if (c.policy.retention_ms < s->least_ms)
            s->least_ms = c.policy.retention_ms;
    }
    if (chance(w, 1, 4)) {
        c.policy.flags |= SHARD_LIMITED;
        c.policy.retention_bytes = (int64_t)below(w, 20000);
        if (c.policy.retention_bytes < s->least_bytes)
            s->least_bytes = c.policy.retention_bytes;
    }
    if (s->kind == SHARD_MEMORY && chance(w, 3, 4)) {
        c.policy.flags |= SHARD_LIMITED;
        c.policy.retention_bytes = 1000 + (int64_t)below(w, 60000);
    }
    if (s->keyed && (s->kind == SHARD_ROCKSDB || chance(w, 4, 5)))
        compacted_policy(w, s, &c.policy);
    else if (s->kind == SHARD_ROCKSDB || (s->kind == SHARD_MEMORY && chance(w, 1, 8))) {
        c.policy.flags |= SHARD_COMPACTED; /* and nothing is old enough */
        c.policy.min_compaction_lag_ms = INT64_C(1) << 40;
    }
    return c;
}

static struct model_change row_change(struct workload *w)
{
    unsigned key = (unsigned)below(w, MODEL_KEYS);

    if (chance(w, 1, 4))
        return (struct model_change){ MODEL_UNPUT, key, 0, { 0 } };
    return (struct model_change){ MODEL_PUT, key, ++w->stamp, { 0 } };
}

static unsigned live_shards(const struct workload *w)
{
    unsigned n = 0;

    for (unsigned i = 0; i < w->m.n_shards; i++)
        n += w->m.shards[i].exists == SHARD_LIVE && !w->m.shards[i].deleting;
    return n;
}

static struct model_shard *shard_new(struct workload *w)
{
    struct model_shard *s = &w->m.shards[w->m.n_shards];

    *s = (struct model_shard){ .class = chance(w, 1, 6) ? SHARD_CLASS_INTERNAL : SHARD_CLASS_DATA,
                               .least_ms = INT64_MAX,
                               .least_bytes = INT64_MAX };
    s->kind = chance(w, 1, 4) ? SHARD_ROCKSDB : chance(w, 1, 5) ? SHARD_MEMORY : SHARD_SEGMENT;
    if (s->kind == SHARD_MEMORY) /* it lets go on its own */
        s->start_max = UINT64_MAX;
    /* What was given in a life that ended may be given again; here each is taken once. */
    for (bool fresh = false; !fresh;) {
        s->id = journal_shard_new(w->js.j, s->class) + below(w, 3);
        fresh = true;
        for (unsigned i = 0; i < w->m.n_shards; i++)
            fresh = fresh &&
                    (device_of(w->m.shards[i].id) != device_of(s->id) || w->m.shards[i].id < s->id);
    }
    w->n->elsewhere += device_of(s->id) > 0;
    s->keyed = w->compacting && s->kind != SHARD_MEMORY && chance(w, 1, 2);
    w->m.n_shards++;
    return s;
}

static struct model_shard *shard_to_delete(struct workload *w)
{
    for (unsigned tries = 0; tries < 10; tries++) {
        struct model_shard *s = &w->m.shards[below(w, w->m.n_shards)];

        if (s->exists == SHARD_LIVE && !s->deleting)
            return s;
    }
    return NULL;
}

static void do_update(struct workload *w)
{
    struct model_change list[MODEL_CHANGES_MAX];
    bool full = workload_any_device_is(w, JRN_FULL);
    unsigned n = 0, n_rows, live = live_shards(w);

    while (n == 0 || (n < 2 && chance(w, 1, 2)))
        list[n++] = row_change(w);
    n_rows = n;
    if (w->m.n_shards > 0 && chance(w, 1, 12)) { /* a number that was used */
        struct model_shard *s = &w->m.shards[below(w, w->m.n_shards)];

        if (s->exists != SHARD_NOT_YET) {
            list[n++] =
                (struct model_change){ MODEL_CREATE, (unsigned)(s - w->m.shards), 0, { 0 } };
            update_send(w, list, n, E_EXISTS);
            return;
        }
    }
    if (w->m.n_shards < MODEL_SHARDS_MAX && live < 6 && !full && chance(w, 1, 2)) {
        shard_new(w);
        list[n] = (struct model_change){ MODEL_CREATE, w->m.n_shards - 1, 0, { 0 } };
        if (w->m.shards[w->m.n_shards - 1].kind != SHARD_SEGMENT ||
            w->m.shards[w->m.n_shards - 1].keyed || chance(w, 1, 2))
            list[n] = policy_change(w, MODEL_CREATE, w->m.n_shards - 1);
        n++;
    }
    if (live > 0 && chance(w, 1, 4)) {
        struct model_shard *s = shard_to_delete(w);

        if (s) { /* what is put last tells the updates apart */
            list[n_rows - 1] = (struct model_change){ MODEL_PUT, 0, ++w->stamp, { 0 } };
            list[n++] = policy_change(w, MODEL_POLICY, (unsigned)(s - w->m.shards));
            w->n->policies += s->n_log > 0;
        }
    }
    if (live > 2 && chance(w, full ? 3 : 1, 4)) {
        struct model_shard *s = shard_to_delete(w);

        if (s) {
            s->deleting = true;
            list[n++] =
                (struct model_change){ MODEL_DELETE, (unsigned)(s - w->m.shards), 0, { 0 } };
        }
    }
    update_send(w, list, n, 0);
}

/* --- keys --- */

_Noreturn void workload_get_wrong(const struct op *op, const char *what)
{
    const struct shard_get *g = &op->u.get;

    model_fail(&op->w->m, "shard %" PRIu64 ": %.*s is %s at %" PRId64 ": %s", op->s->id,
               (int)g->key_bytes, (const char *)g->key, g->rc < 0 ? err_name(g->rc) : "there",
               g->rc < 0 ? (int64_t)-1 : g->record.offset, what);
}

/* op->from: the offset of the latest record of the key that was durable before the call. */
static void get_fn(struct shard_get *g)
{
    struct op *op = (struct op *)g;
    struct workload *w = op->w;
    int key = ((const char *)g->key)[3] - '0';

    if (g->rc >= 0) {
        unsigned i = model_find(op->s, (uint64_t)g->record.offset);
        const struct sent *x = i < op->s->n_log ? op->s->log[i] : NULL;
        unsigned k = x ? (unsigned)((uint64_t)g->record.offset - x->offset) : 0;

        w->n->gets++;
        /* After an accepted loss the one before what was lost is the latest. */
        if ((uint64_t)g->record.offset < op->from && op->s->n_lost == 0)
            workload_get_wrong(op, "an older record");
        /* What readers have not seen yet is not in the log. */
        if (x && x->offset <= (uint64_t)g->record.offset &&
            (x->key[k] != key || x->tombstone[k] || x->ts[k] != g->record.timestamp))
            workload_get_wrong(op, "another record");
    } else if (op->s->kind != SHARD_ROCKSDB) {
        if (g->rc != E_UNSUPPORTED && !excused(w, op, g->rc))
            workload_get_wrong(op, "this kind has no keys");
    } else if (g->rc == E_LOST) {
        if (op->s->n_lost == 0 && !workload_group_read_only(w, op->s->group))
            workload_get_wrong(op, "nothing was damaged there");
    } else if (g->rc != E_NOTFOUND && !excused(w, op, g->rc)) {
        workload_get_wrong(op, "refused");
    }
    shard_get_release(g);
    op_done(op);
}

struct op *workload_get(struct workload *w, struct model_shard *s, int key, bool kept)
{
    static const char *const keys[] = { "key0", "key1", "key2", "key3", "key4", "key5" };
    struct op *op = op_new(w, OP_GET, s);
    unsigned record = 0;
    const struct sent *x = model_latest(s, key, 0, &record);

    op->kept = kept;
    op->from = x ? x->offset + record : 0;
    op->u.get.fn = get_fn;
    op->u.get.loop = some_loop(w);
    op->u.get.key = keys[key];
    op->u.get.key_bytes = 4;
    shard_get(s->handle, &op->u.get);
    return op;
}

static void do_get(struct workload *w)
{
    struct model_shard *s = some_shard(w);

    if (s)
        workload_get(w, s, (int)below(w, MODEL_RECORD_KEYS), false);
}

/* --- handles --- */

static void open_fn(struct shard_open *o)
{
    op_done((struct op *)o);
}

/* Gives whether the shard exists. */
bool workload_handle_open(struct workload *w, struct model_shard *s)
{
    struct op *op = op_new(w, OP_OPEN, s);
    bool exists;
    int rc;

    op->kept = true;
    op->u.open.fn = open_fn;
    op->u.open.loop = some_loop(w);
    shard_open(w->js.j, s->id, &op->u.open);
    workload_op_wait(w, op);
    rc = op->u.open.rc;
    exists = rc >= 0;
    if (exists) {
        s->handle = op->u.open.shard;
        s->group = shard_group(s->handle);
    } else if (rc != E_NOTFOUND && !excused(w, op, rc)) {
        model_fail(&w->m, "opening shard %" PRIu64 " gave %s", s->id, err_name(rc));
    }
    workload_op_free(op);
    return exists;
}

void workload_handles_open_new(struct workload *w)
{
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (s->exists == SHARD_LIVE && !s->handle && !workload_handle_open(w, s) &&
            s->exists == SHARD_LIVE && !s->deleting && !w->ending && !w->faulty)
            model_fail(&w->m, "shard %" PRIu64 " was made and is not there", s->id);
    }
}

void workload_handles_close(struct workload *w)
{
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        shard_unref(w->m.shards[i].handle);
        w->m.shards[i].handle = NULL;
    }
}

static bool has_waits(const struct workload *w, const struct model_shard *s)
{
    for (const struct op *op = w->ops; op; op = op->next)
        if (op->kind == OP_WAIT && op->s == s)
            return true;
    return false;
}

static void let_go(struct workload *w, struct model_shard *s)
{
    if (s->handle->next > s->handed)
        s->handed = s->handle->next;
    shard_unref(s->handle);
    s->handle = NULL;
    w->n->let_go++;
}

/* Shards may leave memory, and must come back as they were. What is under way goes on. */
static void do_let_go(struct workload *w)
{
    uint64_t each = 1 + below(w, 4);

    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (s->handle && !has_waits(w, s) && below(w, each) == 0)
            let_go(w, s);
    }
    if (chance(w, 3, 4))
        sim_run_for(w->js.sim, below(w, 4000 * w->js.conf.unload_ms), STEPS_MAX);
    if (chance(w, 3, 4))
        workload_handles_open_new(w);
    for (unsigned i = 0; i < w->m.n_shards; i++)
        if (w->m.shards[i].handle && w->m.shards[i].kind != SHARD_MEMORY)
            workload_check_range(w, &w->m.shards[i]);
}

void workload_act(struct workload *w)
{
    static void (*const acts[])(struct workload *) = {
        do_append, do_read,  do_wait, do_find, do_trim, do_update, workload_handles_open_new,
        do_get,    do_let_go
    };
    unsigned all = 0, at;

    /* The reserve is for deletions and the like: a full device is not filled up further. */
    if (workload_any_device_is(w, JRN_FULL) && chance(w, 3, 4)) {
        if (chance(w, 1, 4))
            do_update(w);
        return;
    }
    for (unsigned i = 0; i < sizeof acts / sizeof acts[0]; i++)
        all += w->weight[i];
    at = (unsigned)below(w, all);
    for (unsigned i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        if (at < w->weight[i]) {
            acts[i](w);
            return;
        }
        at -= w->weight[i];
    }
}
