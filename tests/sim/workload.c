#include "tests/sim/workload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal/catalogue.h"
#include "journal/committer.h"
#include "journal/store.h"
#include "journal/destage.h"
#include "journal/rewrite.h"
#include "tests/sim/jrn_sim.h"
#include "tests/sim/model.h"
#include "tests/sim/rot.h"

enum {
    OPS_MAX = 24,
    STEPS_MAX = 400000, /* for one thing to come to its end */
    WAIT_US = 30 * 1000 * 1000,
    PLACES_MAX = 512,
    UNIT_64K = 65536
};

enum op_kind { OP_APPEND, OP_READ, OP_WAIT, OP_FIND, OP_TRIM, OP_UPDATE, OP_OPEN };
/* What a batch with a producer must be answered, when nothing forbids appends as such. */
enum expect { EXPECT_OK, EXPECT_DUPLICATE, EXPECT_CODE };

struct op {
    union {
        struct append_done append;
        struct read_done read;
        struct shard_wait wait;
        struct find_time find;
        struct shard_trim trim;
        struct jrn_update update;
        struct shard_open open;
    } u; /* first: what the journal gives back is this */
    struct workload *w;
    enum op_kind kind;
    bool kept; /* its maker waits for it and frees it */
    bool done;
    struct op *prev, *next;
    struct model_shard *s;
    struct sent *x;
    enum ack ack;
    bool resent;
    enum expect expect;
    int code;
    uint64_t from, end_before;
    bool failed_before, deleted_before, read_only_before;
    struct model_update *update;
};

struct workload {
    struct model m;
    struct jrn_sim js;
    struct rng rng;
    struct workload_counts *n;
    bool talk;
    struct op *ops;
    unsigned n_ops;
    /* swarm: how often what is done in this seed */
    unsigned weight[10];
    unsigned big_reads;
    bool tight, faulty, rotting;
    bool power_must_go; /* a flush failed: only a power cut tells what is left */

    bool orderly; /* the last life ended so, with its closing block */
    bool killed;  /* the last life ended so: not all that is there is durable */
    bool ending;  /* no promise of success any more in this life */
    uint64_t stamp;
    /* what is watched */
    uint64_t ckpt_lsn, wal_lsn, unloads;
    unsigned slabs, segments;
    struct {
        uint64_t place;
        unsigned uses;
    } places[PLACES_MAX];
    unsigned n_places;
    struct rot_report rot;
    uint64_t accept[ROT_GROUPS_MAX]; /* the operator's, for the rest of the seed */
    unsigned n_accept;
};

static uint64_t below(struct workload *w, uint64_t n)
{
    return rng_below(&w->rng, n);
}

static bool chance(struct workload *w, uint32_t num, uint32_t den)
{
    return rng_chance(&w->rng, num, den);
}

#define TALK(w, ...)                                                                               \
    do {                                                                                           \
        if ((w)->talk) {                                                                           \
            fprintf(stderr, "%10" PRIu64 " ", sim_now_us((w)->js.sim));                            \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)

/* --- what the journal did meanwhile --- */

static void place_used(struct workload *w, uint64_t place)
{
    unsigned i = 0;

    while (i < w->n_places && w->places[i].place != place)
        i++;
    if (i == PLACES_MAX)
        return;
    if (i == w->n_places)
        w->places[w->n_places++].place = place;
    if (++w->places[i].uses > w->n->reuses + 1)
        w->n->reuses = w->places[i].uses - 1;
}

static void watch_wal(struct workload *w, struct store *st)
{
    uint64_t lap = st->conf.wal_budget + 2 * ((uint64_t)1 << st->wal_log2);

    for (unsigned i = 0; i < st->wal.n; i++) {
        const struct wal_extent *x = st->wal.list[i];

        if (x->first_lsn < w->wal_lsn || (x->first_lsn == w->wal_lsn && x->incarnation == 0))
            continue;
        w->wal_lsn = x->first_lsn + 1;
        place_used(w, x->place);
        w->n->laps = (uint32_t)(x->first_lsn / lap);
    }
}

/* Called all the time. J3 is checked here. */
static void watch(struct workload *w)
{
    struct store *st = w->js.st;
    unsigned segments;

    w->m.now_us = sim_now_us(w->js.sim);
    if (!st)
        return;
    segments = (unsigned)st->segments.by_id.count;
    if (st->super.ckpt_lsn < w->ckpt_lsn)
        model_fail(&w->m, "the checkpoint went back from %" PRIu64 " to %" PRIu64, w->ckpt_lsn,
                   st->super.ckpt_lsn);
    if (w->ckpt_lsn && st->super.ckpt_lsn > w->ckpt_lsn)
        w->n->destages++;
    w->ckpt_lsn = st->super.ckpt_lsn;
    if (w->slabs && st->slabs.n > w->slabs)
        w->n->grown += st->slabs.n - w->slabs;
    w->slabs = st->slabs.n;
    if (segments > w->segments)
        w->n->sealed += segments - w->segments;
    else
        w->n->deleted += w->segments - segments;
    w->segments = segments;
    w->n->unloads += (uint32_t)(st->unloads - (st->unloads < w->unloads ? 0 : w->unloads));
    w->unloads = st->unloads;
    watch_wal(w, st);
}

static void step(struct workload *w, unsigned n)
{
    while (n-- > 0 && sim_step(w->js.sim))
        ;
    watch(w);
}

/* --- operations under way --- */

static bool group_read_only(const struct workload *w, uint64_t group)
{
    for (unsigned i = 0; i < w->rot.n_groups; i++)
        if (w->rot.groups[i] == group)
            return true;
    return false;
}

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
    op->failed_before = journal_state(w->js.j) == JRN_FAILED;
    if (s) {
        op->deleted_before = s->exists == SHARD_DELETED;
        op->end_before = s->end_seen;
        op->read_only_before = group_read_only(w, s->group);
    }
    return op;
}

static void op_free(struct op *op)
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
        op_free(op);
}

static bool op_is_done(void *ctx)
{
    return ((struct op *)ctx)->done;
}

static void op_wait(struct workload *w, struct op *op)
{
    if (!sim_run_until(w->js.sim, op_is_done, op, STEPS_MAX))
        model_fail(&w->m, "operation %d is never answered", (int)op->kind);
    watch(w);
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
        return w->ending || journal_state(w->js.j) == JRN_FAILED;
    return false;
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
    bool durable = op->ack >= ACK_LEADER_DURABLE;

    if (op->failed_before)
        append_wrong(op, "taken after the device had failed");
    if (op->deleted_before)
        append_wrong(op, "taken by a deleted shard");
    if (op->read_only_before)
        append_wrong(op, "taken by a group with a loss");
    if (op->expect == EXPECT_CODE)
        append_wrong(op, "taken against its sequence");
    if (op->expect == EXPECT_DUPLICATE && !d->duplicate)
        append_wrong(op, "taken twice");
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
        if (!group_read_only(w, op->s->group))
            append_wrong(op, "refused");
    } else if (!excused(w, op, rc)) {
        append_wrong(op, "refused");
    }
    if (p && op->expect == EXPECT_OK)
        p->unsure = true;
    if (!op->resent && rc != E_DEVICE && rc != E_IO)
        op->x->gone = true; /* refused for certain */
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

    if (!s || (s->class == SHARD_CLASS_INTERNAL && journal_state(w->js.j) == JRN_FULL))
        return;
    if (at < 0) {
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

static void read_wrong(const struct op *op, const char *what)
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
            read_wrong(op, "not a batch");
        base = (uint64_t)h.base_offset;
        end = base + (uint64_t)h.last_offset_delta + 1;
        if (*first ? base > *at || end <= *at : base != *at)
            read_wrong(op, "offsets are not dense");
        if (end > op->u.read.end)
            read_wrong(op, "above the high watermark");
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

    if (d->end < op->end_before && !model_may_be_lost(op->s, d->end))
        read_wrong(op, "the high watermark went back");
    model_end(&op->w->m, op->s, d->end);
    for (unsigned i = 0; i < d->n_slices; i++)
        slice_check(op, &d->slices[i], &at, &first);
    if (d->bytes == 0 && d->from != d->end && d->at_least_one)
        read_wrong(op, "nothing, below the high watermark");
    if (d->start > op->s->start_max)
        read_wrong(op, "the start is past what was asked for");
}

static void read_bad(struct op *op)
{
    struct workload *w = op->w;
    struct read_done *d = &op->u.read;

    switch (d->rc) {
    case E_RANGE:
        if (d->from >= op->s->start_max && d->from <= op->end_before)
            read_wrong(op, "out of range");
        break;
    case E_LOST:
        if (!model_may_be_lost(op->s, d->from) &&
            !(d->from >= op->s->end_seen && group_read_only(w, op->s->group)))
            read_wrong(op, "nothing was damaged there");
        w->n->lost_reads++;
        break;
    default:
        if (!excused(w, op, d->rc))
            read_wrong(op, "refused");
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

static struct op *read_start(struct workload *w, struct model_shard *s, uint64_t from,
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
    read_start(w, s, from, 1 + (uint32_t)below(w, chance(w, 1, 2) ? 4000 : 60000), chance(w, 2, 3),
               false);
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
static void cancel_waits(struct workload *w, uint32_t num, uint32_t den)
{
    for (struct op *op = w->ops; op; op = op->next) {
        if (op->kind != OP_WAIT || op->resent || !chance(w, num, den))
            continue;
        op->resent = true;
        shard_wait_cancel(&op->u.wait);
    }
}

/* --- finding by time --- */

/* The record that the answer must be, from the log of a shard all of which is known. */
static bool time_expected(const struct model_shard *s, uint64_t start, int64_t time,
                          uint64_t *offset, int64_t *ts)
{
    bool found = false;

    for (unsigned i = model_find(s, start); i < s->n_log; i++) {
        const struct sent *x = s->log[i];

        for (unsigned k = 0; k < x->n_records; k++) {
            bool better = time == SHARD_TIME_MAX ? !found || x->ts[k] > *ts : x->ts[k] >= time;

            if (x->offset + k < start || !better)
                continue;
            *offset = x->offset + k;
            *ts = x->ts[k];
            found = true;
            if (time != SHARD_TIME_MAX)
                return true;
        }
    }
    return found;
}

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

static struct op *find_start(struct workload *w, struct model_shard *s, bool kept)
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
        find_start(w, s, false);
}

/* At rest, right after the shard was read whole: the answer is known. */
static void find_checked(struct workload *w, struct model_shard *s)
{
    struct op *op = find_start(w, s, true);
    const struct find_time *f = &op->u.find;
    uint64_t offset = 0;
    int64_t ts = 0;
    bool found = time_expected(s, shard_start(s->handle), f->time, &offset, &ts);

    op_wait(w, op);
    if (f->rc >= 0 && s->n_lost == 0 &&
        (f->found != found || (found && (f->offset != offset || f->timestamp != ts))))
        model_fail(&w->m,
                   "shard %" PRIu64 ": time %" PRId64 " is %s offset %" PRIu64 " (%" PRId64
                   "), not %s %" PRIu64 " (%" PRId64 ")",
                   s->id, f->time, f->found ? "at" : "not at", f->offset, f->timestamp,
                   found ? "at" : "anywhere", offset, ts);
    op_free(op);
}

/* --- trims and updates --- */

static void trim_fn(struct shard_trim *d)
{
    struct op *op = (struct op *)d;
    struct workload *w = op->w;

    if (d->rc >= 0) {
        w->n->trims++;

        if (d->start < op->from || d->start > op->s->start_max)
            model_fail(&w->m,
                       "shard %" PRIu64 ": start %" PRIu64 " is not in %" PRIu64 "..%" PRIu64,
                       op->s->id, d->start, op->from, op->s->start_max);
        if (d->start > op->s->start_min)
            op->s->start_min = d->start;
    } else if (d->rc != E_READONLY || !group_read_only(w, GROUP_CATALOGUE)) {
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

    w->n->updates += d->rc >= 0;
    if (d->rc >= 0 && op->failed_before)
        model_fail(&w->m, "an update held after the device had failed");
    if (d->rc < 0 && !excused(w, op, d->rc) && d->rc != op->code &&
        !(d->rc == E_READONLY && group_read_only(w, GROUP_CATALOGUE)))
        model_fail(&w->m, "an update gave %s", err_name(d->rc));
    if (op->code && d->rc >= 0)
        model_fail(&w->m, "an update that is wrong was made");
    if (op->update) {
        for (unsigned i = 0; d->rc >= 0 && i < op->update->n; i++)
            w->n->shards_deleted += op->update->changes[i].op == MODEL_DELETE;
        model_update_answered(&w->m, op->update, d->rc);
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
                                              .class = w->m.shards[c->at].class };
            changes[i].op = c->op == MODEL_CREATE ? JRN_SHARD_CREATE : JRN_SHARD_DELETE;
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

static struct model_change row_change(struct workload *w)
{
    unsigned key = (unsigned)below(w, MODEL_KEYS);

    if (chance(w, 1, 4))
        return (struct model_change){ MODEL_UNPUT, key, 0 };
    return (struct model_change){ MODEL_PUT, key, ++w->stamp };
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
    uint64_t last = w->m.n_shards ? s[-1].id : SHARD_FIRST_USER - 1;

    *s = (struct model_shard){ .id = last + 1 + below(w, 3) };
    s->class = chance(w, 1, 6) ? SHARD_CLASS_INTERNAL : SHARD_CLASS_DATA;
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
    bool full = journal_state(w->js.j) == JRN_FULL;
    unsigned n = 0, live = live_shards(w);

    while (n == 0 || (n < 2 && chance(w, 1, 2)))
        list[n++] = row_change(w);
    if (w->m.n_shards > 0 && chance(w, 1, 12)) { /* a number that was used */
        struct model_shard *s = &w->m.shards[below(w, w->m.n_shards)];

        if (s->exists != SHARD_NOT_YET) {
            list[n++] = (struct model_change){ MODEL_CREATE, (unsigned)(s - w->m.shards), 0 };
            update_send(w, list, n, E_EXISTS);
            return;
        }
    }
    if (w->m.n_shards < MODEL_SHARDS_MAX && live < 6 && !full && chance(w, 1, 2)) {
        shard_new(w);
        list[n++] = (struct model_change){ MODEL_CREATE, w->m.n_shards - 1, 0 };
    }
    if (live > 2 && chance(w, full ? 3 : 1, 4)) {
        struct model_shard *s = shard_to_delete(w);

        if (s) {
            s->deleting = true;
            list[n++] = (struct model_change){ MODEL_DELETE, (unsigned)(s - w->m.shards), 0 };
        }
    }
    update_send(w, list, n, 0);
}

/* --- opening handles, reading whole --- */

static void open_fn(struct shard_open *o)
{
    op_done((struct op *)o);
}

/* Gives whether the shard exists. */
static bool handle_open(struct workload *w, struct model_shard *s)
{
    struct op *op = op_new(w, OP_OPEN, s);
    bool exists;
    int rc;

    op->kept = true;
    op->u.open.fn = open_fn;
    op->u.open.loop = some_loop(w);
    shard_open(w->js.j, s->id, &op->u.open);
    op_wait(w, op);
    rc = op->u.open.rc;
    exists = rc >= 0;
    if (exists) {
        s->handle = op->u.open.shard;
        s->group = shard_group(s->handle);
    } else if (rc != E_NOTFOUND && !excused(w, op, rc)) {
        model_fail(&w->m, "opening shard %" PRIu64 " gave %s", s->id, err_name(rc));
    }
    op_free(op);
    return exists;
}

static void handles_open_new(struct workload *w)
{
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (s->exists == SHARD_LIVE && !s->handle && !handle_open(w, s) &&
            s->exists == SHARD_LIVE && !s->deleting && !w->ending && !w->faulty)
            model_fail(&w->m, "shard %" PRIu64 " was made and is not there", s->id);
    }
}

static void handles_close(struct workload *w)
{
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        shard_unref(w->m.shards[i].handle);
        w->m.shards[i].handle = NULL;
    }
}

/* Where reading can go on after damage. */
static uint64_t past_damage(const struct model_shard *s, uint64_t at, uint64_t end)
{
    for (unsigned i = 0; i < s->n_lost; i++)
        if (at >= s->lost[i].start && at < s->lost[i].end)
            return s->lost[i].end < end ? s->lost[i].end : end;
    return end;
}

/* Reads a shard from its start to its end. Every batch of the log must be met, and no other. */
static void read_whole(struct workload *w, struct model_shard *s)
{
    uint64_t start = shard_start(s->handle), end = shard_end(s->handle), at = start;

    while (at < end) {
        struct op *op = read_start(w, s, at, 1 + (uint32_t)below(w, w->big_reads), true, true);
        struct read_done *d = &op->u.read;

        op_wait(w, op);
        if (d->rc == E_LOST) {
            at = past_damage(s, at, end);
        } else if (d->rc < 0) {
            if (!w->faulty || d->rc != E_IO)
                read_wrong(op, "the shard cannot be read whole");
            read_done_release(d);
            op_free(op);
            return;
        }
        for (unsigned i = 0; d->rc >= 0 && i < d->n_slices; i++) {
            const uint8_t *mem = d->slices[i].mem;
            uint32_t left = d->slices[i].len;

            while (left > 0) {
                struct batch_head h;

                if (batch_head_read(&h, mem, left) < 0)
                    read_wrong(op, "not a batch");
                at = (uint64_t)h.base_offset + (uint64_t)h.last_offset_delta + 1;
                mem += h.bytes;
                left -= h.bytes;
            }
        }
        if (d->rc >= 0 && d->bytes == 0)
            read_wrong(op, "stuck");
        read_done_release(d);
        op_free(op);
    }
}

static void range_check(struct workload *w, struct model_shard *s)
{
    uint64_t start = shard_start(s->handle), end = shard_end(s->handle);

    if (start < s->start_min || start > s->start_max)
        model_fail(&w->m, "shard %" PRIu64 ": start %" PRIu64 " is not in %" PRIu64 "..%" PRIu64,
                   s->id, start, s->start_min, s->start_max);
    for (uint64_t at = end; at < s->end_seen; at++)
        if (!model_may_be_lost(s, at))
            model_fail(&w->m, "shard %" PRIu64 ": ends at %" PRIu64 ", but readers saw %" PRIu64,
                       s->id, end, s->end_seen);
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
        handles_open_new(w);
    for (unsigned i = 0; i < w->m.n_shards; i++)
        if (w->m.shards[i].handle)
            range_check(w, &w->m.shards[i]);
}

struct rows_found {
    struct workload *w;
    uint64_t rows[MODEL_KEYS];
};

static int row_found(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct rows_found *f = ctx;
    const uint8_t *k = key;

    if (key_bytes != 2 || k[1] >= MODEL_KEYS || value_bytes != sizeof(uint64_t))
        model_fail(&f->w->m, "a row that nobody put");
    memcpy(&f->rows[k[1]], value, sizeof(uint64_t));
    return 0;
}

static void rows_check(struct workload *w, const bool *exists)
{
    struct rows_found f = { .w = w };

    if (journal_rows_scan(w->js.j, "T", 1, row_found, &f) < 0)
        model_fail(&w->m, "rows cannot be read");
    model_match(&w->m, f.rows, exists);
}

static bool group_accepted(const struct workload *w, uint64_t group)
{
    for (unsigned i = 0; i < w->n_accept; i++)
        if (w->accept[i] == group)
            return true;
    return false;
}

/* The operator has accepted: the shards of the groups go on above all that may have been used. */
static void accepted_check(struct workload *w)
{
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];
        uint64_t end;

        if (!s->handle || !group_accepted(w, s->group))
            continue;
        end = shard_end(s->handle);
        for (unsigned k = 0; k < s->n_lost; k++)
            if (s->lost[k].end > end)
                model_fail(&w->m,
                           "shard %" PRIu64 ": accepted, and goes on at %" PRIu64 ", but %" PRIu64
                           " was handed out",
                           s->id, end, s->lost[k].end);
        if (end > s->end_seen)
            model_lose(s, s->end_seen, end);
    }
}

static void read_only_check(struct workload *w)
{
    struct rot_report now = { .catalogue = w->rot.catalogue };
    struct store *st = w->js.st;

    for (unsigned i = 0; i < st->n_groups; i++) {
        bool is = atomic_load(&st->groups[i]->read_only), may = group_read_only(w, i);

        if (is ? !may : may && w->rot.certain)
            model_fail(&w->m, "group %u is %s", i,
                       is ? "read-only without a loss" : "writable over a loss");
        w->n->read_only += is;
        if (is)
            now.groups[now.n_groups++] = i;
    }
    w->rot = now;
}

/* After a start: what is there must be explained by what was promised. */
static void check_recovered(struct workload *w)
{
    bool exists[MODEL_SHARDS_MAX];

    for (unsigned i = 0; i < w->m.n_shards; i++)
        exists[i] = handle_open(w, &w->m.shards[i]);
    rows_check(w, exists);
    accepted_check(w);
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (!exists[i])
            continue;
        range_check(w, s);
        read_whole(w, s);
        model_settle(&w->m, s, shard_start(s->handle));
        model_end(&w->m, s, shard_end(s->handle));
        if (chance(w, 1, 4))
            find_checked(w, s);
    }
}

/* --- at rest --- */

static bool is_quiet(void *ctx)
{
    struct workload *w = ctx;
    struct store *st = w->js.st;

    for (const struct op *op = w->ops; op; op = op->next)
        if (op->kind != OP_WAIT)
            return false;
    return catalogue_idle(st->catalogue) && !st->rows_running && !st->rows_first && !st->growing &&
           destage_idle(st->destage) && rewrite_idle(st->rewrite) && store_backlog(st) == 0 &&
           atomic_load(&st->busy) == 0;
}

static int sum_run_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                       size_t value_bytes)
{
    struct hash *sums = ctx;
    struct row_run run;

    if (((const uint8_t *)key)[0] != ROW_RUN)
        return 1;
    if (row_run_read(&run, value, value_bytes) < 0)
        return E_CORRUPT;
    hash_put(sums, run.segment,
             (void *)((uintptr_t)hash_get(sums, run.segment) + (uintptr_t)run.bytes));
    return 0;
}

/* Every unit is free, or the WAL's, or a segment's; and segments know how much of them is alive. */
static void space_check(struct workload *w)
{
    struct store *st = w->js.st;
    uint64_t total, free_bytes, pos = 0, used = 0;
    uint8_t table = ROW_RUN;
    struct hash sums = { 0 };
    void *value;

    slabs_space(&st->slabs, &total, &free_bytes);
    used = (uint64_t)(st->wal.n + committer_spare(st->committer)) << st->wal_log2;
    if (rows_scan(st->rows, &table, 1, false, sum_run_row, &sums) < 0)
        model_fail(&w->m, "rows cannot be read");
    while (hash_next(&st->segments.by_id, &pos, NULL, &value)) {
        const struct segment *seg = value;

        used += segment_space(&seg->row);
        if (seg->live != (uintptr_t)hash_get(&sums, seg->id))
            model_fail(&w->m,
                       "segment %" PRIx64 ": %" PRIu64 " bytes alive, but its runs are %" PRIu64,
                       seg->id, seg->live, (uint64_t)(uintptr_t)hash_get(&sums, seg->id));
    }
    hash_free(&sums);
    if (free_bytes + used != total)
        model_fail(&w->m, "%" PRIu64 " bytes free and %" PRIu64 " used are not %" PRIu64,
                   free_bytes, used, total);
}

static void settle_down(struct workload *w)
{
    bool quiet = false;

    /* A request may get stuck after others were let go. */
    for (unsigned i = 0; !quiet && i < 8; i++) {
        sim_disk_unstick(w->js.disk);
        quiet = sim_run_until(w->js.sim, is_quiet, w, STEPS_MAX);
    }
    if (!quiet)
        model_fail(&w->m,
                   "does not come to rest: %u operations open, catalogue %d rows %d growing %d "
                   "destage %d backlog %" PRIu64,
                   w->n_ops, !catalogue_idle(w->js.st->catalogue), w->js.st->rows_running,
                   w->js.st->growing, !destage_idle(w->js.st->destage), journal_backlog(w->js.j));
    watch(w);
}

static void check_waits(struct workload *w)
{
    for (const struct op *op = w->ops; op; op = op->next)
        if (op->kind == OP_WAIT && op->s->handle && shard_end(op->s->handle) > op->u.wait.past &&
            op->s->exists == SHARD_LIVE)
            model_fail(&w->m,
                       "shard %" PRIu64 ": a wait past %" PRIu64
                       " sleeps though the end is %" PRIu64,
                       op->s->id, op->u.wait.past, shard_end(op->s->handle));
}

/* Everything comes to rest; then all that is promised must hold exactly. */
static void check_at_rest(struct workload *w)
{
    bool exists[MODEL_SHARDS_MAX];

    settle_down(w);
    if (journal_state(w->js.j) == JRN_FAILED || w->m.n_updates > 0)
        return;
    sim_run_for(w->js.sim, 1000, STEPS_MAX); /* wake-ups on their way */
    settle_down(w);
    check_waits(w);
    space_check(w);
    for (unsigned i = 0; i < w->m.n_shards; i++)
        exists[i] = w->m.shards[i].exists == SHARD_LIVE;
    rows_check(w, exists);
    handles_open_new(w);
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (!s->handle || s->exists != SHARD_LIVE)
            continue;
        read_whole(w, s);
        model_end(&w->m, s, shard_end(s->handle));
        find_checked(w, s);
    }
}

/* --- faults --- */

static void do_fault(struct workload *w)
{
    struct sim_faults *f = &w->js.disk->faults;

    switch (below(w, 8)) {
    case 0:
        f->nth[SIM_FAULT_READ] = 1 + (uint32_t)below(w, 10);
        break;
    case 1:
        f->nth[SIM_FAULT_WRITE] = 1 + (uint32_t)below(w, 10);
        break;
    case 2:
        f->nth[SIM_FAULT_SYNC] = 1 + (uint32_t)below(w, 10);
        w->power_must_go = true;
        break;
    case 3:
        f->nth[SIM_FAULT_NAMES] = 1;
        break;
    case 4:
        f->nth[SIM_FAULT_CREATE] = 1 + (uint32_t)below(w, 2);
        break;
    case 5:
    case 6:
        f->chance[SIM_FAULT_SLOW] = 2000;
        break;
    default:
        f->nth[SIM_FAULT_STUCK] = 1 + (uint32_t)below(w, 4);
    }
}

static void faults_end(struct workload *w)
{
    w->js.disk->faults = (struct sim_faults){ 0 };
    sim_disk_unstick(w->js.disk);
}

/* --- a life --- */

static void act(struct workload *w)
{
    static void (*const acts[])(struct workload *) = { do_append,        do_read,  do_wait,
                                                       do_find,          do_trim,  do_update,
                                                       handles_open_new, do_let_go };
    unsigned all = 0, at;

    /* The reserve is for deletions and the like: a full device is not filled up further. */
    if (journal_state(w->js.j) == JRN_FULL && chance(w, 3, 4)) {
        if (chance(w, 1, 4))
            do_update(w);
        return;
    }
    for (unsigned i = 0; i < 8; i++)
        all += w->weight[i];
    at = (unsigned)below(w, all);
    for (unsigned i = 0; i < 8; i++) {
        if (at < w->weight[i]) {
            acts[i](w);
            return;
        }
        at -= w->weight[i];
    }
}

static bool enough_room(void *ctx)
{
    return ((struct workload *)ctx)->n_ops < OPS_MAX / 2;
}

static void pause_between(struct workload *w)
{
    switch (below(w, 16)) {
    case 0:
        sim_run_for(w->js.sim, below(w, 30000), STEPS_MAX);
        break;
    case 1:
        cancel_waits(w, 1, 2);
        step(w, 50);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        step(w, (unsigned)below(w, 60));
        break;
    case 6:
        sim_wall_jump(w->js.sim, (int64_t)below(w, 200) - 100);
        break;
    default:
        step(w, (unsigned)below(w, 8));
    }
    if (w->n_ops >= OPS_MAX) {
        cancel_waits(w, 1, 1);
        if (!sim_run_until(w->js.sim, enough_room, w, STEPS_MAX / 10)) {
            sim_disk_unstick(w->js.disk);
            if (!sim_run_until(w->js.sim, enough_room, w, STEPS_MAX))
                model_fail(&w->m, "%u operations are never answered", w->n_ops);
        }
    }
    watch(w);
}

/* False: it could not be opened because power went, or a fault was met. */
static bool try_open(struct workload *w, bool may_fail)
{
    struct err e = { 0 };
    int rc = jrn_sim_open(&w->js, &e);

    w->segments = 0;
    if (rc >= 0) {
        w->js.disk->off_armed = false;
        w->segments = (unsigned)w->js.st->segments.by_id.count;
        watch(w);
        return true;
    }
    /* A catalogue with a record missing may contradict itself: then it is refused, which an operator must look into. */
    if (w->rot.catalogue && rc == E_CORRUPT)
        return false;
    if (!may_fail || !w->js.disk->off)
        model_fail(&w->m, "the journal does not open: %s (%s)", e.text, err_name(rc));
    return false;
}

/* --- rot --- */

static bool rot_once(struct workload *w)
{
    switch (below(w, 6)) {
    case 0:
    case 1:
        return w->rot.n_groups == 0 && w->n_accept == 0 &&
               rot_wal_block(&w->js, &w->rng, &w->m, w->orderly && chance(w, 1, 2), &w->rot);
    case 2:
        return rot_wal_head(&w->js, &w->rng, &w->m);
    case 3:
        return rot_segment_data(&w->js, &w->rng, &w->m);
    case 4:
        return rot_segment_rest(&w->js, &w->rng, &w->m);
    default:
        return rot_super(&w->js, &w->rng, &w->m);
    }
}

/* Between two lives. One bit at a time: two could make a tail that nobody can tell from a torn one. */
static void rot(struct workload *w)
{
    if (!w->rotting || w->js.lives == 0 || !chance(w, 1, 2))
        return;
    if (w->rot.n_groups > 0 && chance(w, 1, 2)) {
        memcpy(w->accept, w->rot.groups, sizeof w->accept);
        w->js.conf.accept_loss = w->accept;
        w->js.conf.n_accept_loss = w->n_accept = w->rot.n_groups;
        w->n->accepted += w->rot.n_groups;
        w->rot.n_groups = 0;
        return;
    }
    if (rot_once(w)) {
        w->n->rotten++;
        TALK(w, "a bit has rotted: %u groups", w->rot.n_groups);
    }
}

static bool lose_rows(struct workload *w)
{
    /* Rows and catalogue are each other's second copy: both at once is more than is promised. */
    bool lost = chance(w, 1, 4) && !w->rot.catalogue;

    w->n->rows_lost += lost;
    return lost;
}

/* False: the store is refused for the damage that was done to its catalogue. */
static bool open_life(struct workload *w)
{
    bool cut = chance(w, 1, 2) && w->js.lives > 0;

    if (!w->killed)
        rot(w);
    while (cut) {
        sim_disk_power_off_after(w->js.disk, below(w, chance(w, 1, 2) ? 30 : 120));
        if (try_open(w, true))
            break;
        w->n->in_recovery++;
        w->rot.certain = false;
        w->n->crashes++;
        TALK(w, "power cut during recovery");
        jrn_sim_crash(&w->js, lose_rows(w));
        cut = chance(w, 1, 2) && !w->rot.catalogue;
    }
    if (!w->js.j && !try_open(w, false))
        return false;
    w->power_must_go = w->ending = false;
    TALK(w, "life %u: start %" PRIu64 " checkpoint %" PRIu64, w->js.lives, w->js.st->start_no,
         w->js.st->super.ckpt_lsn);
    return true;
}

static void nothing_open(struct workload *w)
{
    if (w->n_ops > 0)
        model_fail(&w->m, "%u operations were not answered, the first of kind %d", w->n_ops,
                   (int)w->ops->kind);
}

/* An orderly close finishes what is pending: what had an offset is there. */
static void keep_all(struct workload *w)
{
    for (unsigned i = 0; i < w->m.n_all; i++) {
        struct sent *x = w->m.all[i];

        if (x->offset_known && !x->gone && !x->stale && !x->durable &&
            x->shard->exists == SHARD_LIVE && !x->shard->deleting)
            model_acked(&w->m, x, x->offset, true, false);
    }
}

static void end_life(struct workload *w, unsigned how)
{
    bool orderly;

    w->killed = w->orderly = false;
    faults_end(w);
    cancel_waits(w, 1, 1);
    orderly =
        how == 2 && !w->js.disk->off_armed && journal_state(w->js.j) == JRN_OK && !w->js.disk->off;
    w->ending = true;
    TALK(w, "ends: %s",
         w->js.disk->off ? "power was cut"
         : how == 0      ? "power cut"
         : how == 1      ? "kill"
                         : "close");
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];

        if (s->handle && s->handle->next > s->handed)
            s->handed = s->handle->next;
    }
    if (how == 0 || w->js.disk->off || w->js.disk->off_armed || w->power_must_go) {
        w->n->crashes++;
        sim_disk_power_off(w->js.disk);
        handles_close(w);
        jrn_sim_crash(&w->js, lose_rows(w));
    } else if (how == 1) {
        w->killed = true;
        w->n->kills++;
        handles_close(w);
        jrn_sim_kill(&w->js, lose_rows(w));
    } else {
        w->n->closes++;
        handles_close(w);
        for (unsigned i = 0; w->faulty && i < 3;
             i++) { /* a request may get stuck later than it was drawn */
            sim_run_for(w->js.sim, 400 * 1000, STEPS_MAX);
            sim_disk_unstick(w->js.disk);
        }
        jrn_sim_close(&w->js);
        w->orderly = orderly;
        if (orderly)
            keep_all(w);
    }
    nothing_open(w);
}

static bool is_not_full(void *ctx)
{
    return journal_state(((struct workload *)ctx)->js.j) != JRN_FULL;
}

/* A full device must take deletions, and be well again after them. */
static void heal(struct workload *w)
{
    uint64_t end_us = sim_now_us(w->js.sim) + WAIT_US;

    if (w->rot.n_groups > 0)
        return;
    for (unsigned i = 0; i < w->m.n_shards; i++) {
        struct model_shard *s = &w->m.shards[i];
        struct model_change c = { MODEL_DELETE, i, 0 };

        if (s->exists == SHARD_LIVE && !s->deleting) {
            s->deleting = true;
            update_send(w, &c, 1, 0);
        }
    }
    while (!is_not_full(w) && sim_now_us(w->js.sim) < end_us)
        sim_run_for(w->js.sim, 100 * 1000, STEPS_MAX);
    if (!is_not_full(w))
        model_fail(&w->m, "everything is deleted, and the device is still full");
    w->n->healed++;
}

static void life(struct workload *w, bool last)
{
    unsigned n = (unsigned)below(w, chance(w, 1, 5) ? 12 : w->tight ? 400 : 200);
    bool cut = chance(w, 1, 3);
    unsigned fault_at = w->faulty && chance(w, 1, 2) ? (unsigned)below(w, n + 1) : n + 1;

    if (!open_life(w))
        return;
    read_only_check(w);
    if (w->rot.catalogue) { /* which updates are left is anybody's guess; the journal has come up */
        end_life(w, 2);
        return;
    }
    check_recovered(w);
    for (unsigned i = 0; i < n && !w->js.disk->off; i++) {
        if (i == fault_at)
            do_fault(w);
        if (cut && i + 20 > n && !w->js.disk->off_armed) {
            w->ending = true;
            sim_disk_power_off_after(w->js.disk, below(w, 40));
        }
        act(w);
        pause_between(w);
    }
    w->ending = w->js.disk->off || w->js.disk->off_armed;
    if (!w->ending && chance(w, 1, 2)) {
        faults_end(w);
        check_at_rest(w);
    }
    if (!w->ending && journal_state(w->js.j) == JRN_FULL && chance(w, 1, 2)) {
        faults_end(w);
        heal(w);
    }
    w->n->faults += journal_state(w->js.j) == JRN_FAILED && !w->js.disk->off;
    end_life(w, last ? 2 : (unsigned)below(w, 3));
}

/* --- a seed --- */

static void swarm(struct workload *w, uint64_t seed)
{
    struct journal_conf *c;
    uint64_t extent;

    w->tight = chance(w, 1, 8);
    jrn_sim_init(&w->js, seed, 64 << 20, w->tight ? 1 : 1 + (unsigned)below(w, 3));
    c = &w->js.conf;
    extent = UNIT_64K << below(w, 2);
    c->wal_extent = (uint32_t)extent;
    c->wal_budget = extent * (1 + below(w, 3));
    c->block_max = 8192u << below(w, 3);
    c->batch_max = 32768;
    c->cache_bytes = 4096u << below(w, 6);
    c->pending_max = 65536;
    c->idle_close_ms = 1 + (uint32_t)below(w, 20);
    c->delete_grace_ms = 1 + (uint32_t)below(w, 100);
    c->unload_ms = 1 + (uint32_t)below(w, 4);
    c->slab_first = 8 * extent;
    c->slab_max = c->slab_first * (1 + below(w, 2));
    if (w->tight) {
        /* Against a unit of 64 KiB an extent must be large for the reserve to mean anything. */
        extent = 4 * UNIT_64K;
        c->wal_extent = (uint32_t)extent;
        c->wal_budget = extent;
        c->slab_first = c->slab_max = 8 * extent;
        c->space_max = extent * (16 + below(w, 6));
        c->batch_max = 65536;
        c->block_max = 65536;
        w->m.scale = 4;
    }
    w->faulty = chance(w, 1, 4);
    w->rotting = !w->faulty && chance(w, 1, 4);
    w->big_reads = 1u << (8 + below(w, 10));
    w->weight[0] = 20 + (unsigned)below(w, 60);
    for (unsigned i = 1; i < 8; i++)
        w->weight[i] = 1 + (unsigned)below(w, 8);
    if (w->tight) { /* little else than filling it up */
        w->weight[0] = 90;
        w->weight[4] = w->weight[5] = 1;
    }
    if (w->weight[0] > 60)
        w->weight[1] += 8;
}

void workload_run(uint64_t seed, struct workload_counts *counts, bool talk)
{
    struct workload *w = mem_new(sizeof *w);
    unsigned lives;

    w->n = counts;
    w->talk = talk;
    rng_seed(&w->rng, seed * 0x9e3779b97f4a7c15 + 1);
    model_init(&w->m, seed);
    swarm(w, seed);
    lives = 4 + (unsigned)below(w, 5);
    for (unsigned i = 0; i < lives && !w->rot.catalogue; i++)
        life(w, i + 1 == lives);
    model_fini(&w->m);
    jrn_sim_fini(&w->js);
    if (buf_total_bytes() != 0) {
        w->m.seed = seed;
        model_fail(&w->m, "%" PRIu64 " bytes of buffers are left", buf_total_bytes());
    }
    free(w);
}
