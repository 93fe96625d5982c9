#include "tests/gateways/journal_fake.h"

#include "tests/gateways/journal_fake_int.h"

#include <stdlib.h>
#include <string.h>

#include "format/batch.h"

enum { SEQUENCES = 5 };

struct fake_row {
    struct fake_row *next; /* in key order */
    uint8_t *key, *value;
    uint32_t key_bytes, value_bytes;
};

struct fake_batch {
    struct buf *bytes; /* stamped */
    uint64_t base, end;
    int64_t max_time;
};

struct fake_producer {
    struct fake_producer *next;
    int64_t id;
    int16_t epoch;
    unsigned n;
    struct {
        int32_t first, last;
        uint64_t base;
    } last[SEQUENCES]; /* newest last */
};

struct fake_append {
    struct fake_append *next;
    struct shard *shard;
    struct buf *buf;
    uint32_t at, bytes;
    struct append_done *done;
};

/* The handle and the shard are one: refs counts handles. */
struct shard {
    struct shard *next;
    struct journal *journal;
    uint64_t id;
    enum shard_class class;
    enum shard_kind kind; /* all kinds are kept alike */
    unsigned refs;
    bool deleted;
    struct shard_policy policy;
    uint64_t start, end;
    struct fake_batch *batches;
    unsigned n_batches;
    struct fake_producer *producers;
    struct shard_wait *waits;
};

struct journal {
    struct fake_row *rows;
    struct shard *shards;
    uint64_t max_shard, last_shard;
    uint64_t starts;
    struct fake_append *held, **held_tail;
    bool hold, backlogged;
    int append_rc, update_rc, read_rc;
    unsigned append_fails, update_fails;
    unsigned n_updates, n_held;
};

/* --- the fake's own --- */

struct journal *journal_fake_new(void)
{
    struct journal *j = mem_new(sizeof *j);

    j->max_shard = 15;
    j->starts = 1;
    j->held_tail = &j->held;
    return j;
}

static void drop_held(struct journal *j)
{
    struct fake_append *a;

    while ((a = j->held)) {
        j->held = a->next;
        buf_unref(a->buf);
        free(a);
    }
    j->held_tail = &j->held;
    j->n_held = 0;
}

static void free_shard(struct shard *s)
{
    struct fake_producer *p;

    ASSERT(!s->refs && !s->waits);
    for (unsigned i = 0; i < s->n_batches; i++)
        buf_unref(s->batches[i].bytes);
    while ((p = s->producers)) {
        s->producers = p->next;
        free(p);
    }
    free(s->batches);
    free(s);
}

void journal_fake_free(struct journal *j)
{
    struct fake_row *r;
    struct shard *s;

    drop_held(j);
    while ((r = j->rows)) {
        j->rows = r->next;
        free(r->key);
        free(r->value);
        free(r);
    }
    while ((s = j->shards)) {
        j->shards = s->next;
        free_shard(s);
    }
    free(j);
}

void journal_fake_restart(struct journal *j)
{
    drop_held(j);
    j->starts++;
    j->hold = j->backlogged = false;
}

void journal_fake_fail_appends(struct journal *j, int rc, unsigned n)
{
    j->append_rc = rc;
    j->append_fails = n;
}

void journal_fake_fail_updates(struct journal *j, int rc, unsigned n)
{
    j->update_rc = rc;
    j->update_fails = n;
}

void journal_fake_fail_reads(struct journal *j, int rc)
{
    j->read_rc = rc;
}

void journal_fake_set_backlogged(struct journal *j, bool on)
{
    j->backlogged = on;
}

unsigned journal_fake_handles(const struct journal *j)
{
    unsigned n = 0;

    for (struct shard *s = j->shards; s; s = s->next)
        n += s->refs;
    return n;
}

unsigned journal_fake_waits(const struct journal *j)
{
    unsigned n = 0;

    for (struct shard *s = j->shards; s; s = s->next)
        for (struct shard_wait *w = s->waits; w; w = w->next)
            n++;
    return n;
}

unsigned journal_fake_held(const struct journal *j)
{
    return j->n_held;
}

unsigned journal_fake_updates(const struct journal *j)
{
    return j->n_updates;
}

/* --- journal --- */

uint64_t journal_backlog(const struct journal *j)
{
    return j->backlogged;
}

bool journal_backlogged(const struct journal *j)
{
    return j->backlogged;
}

enum jrn_state journal_state(const struct journal *j)
{
    return JRN_OK;
}

uint64_t journal_start(const struct journal *j)
{
    return j->starts;
}

uint64_t journal_shard_new(struct journal *j, enum shard_class class)
{
    if (j->last_shard < j->max_shard)
        j->last_shard = j->max_shard;
    return ++j->last_shard;
}

uint64_t journal_max_shard(struct journal *j)
{
    return j->max_shard;
}

static int key_order(const struct fake_row *r, const void *key, size_t bytes)
{
    size_t n = r->key_bytes < bytes ? r->key_bytes : bytes;
    int c = memcmp(r->key, key, n);

    return c ? c : r->key_bytes < bytes ? -1 : r->key_bytes > bytes;
}

/* Where the row of this key is, or would be. */
static struct fake_row **row_at(struct journal *j, const void *key, size_t bytes)
{
    struct fake_row **at = &j->rows;

    while (*at && key_order(*at, key, bytes) < 0)
        at = &(*at)->next;
    return at;
}

static void row_delete(struct journal *j, const void *key, uint32_t bytes)
{
    struct fake_row **at = row_at(j, key, bytes);
    struct fake_row *r = *at;

    if (!r || key_order(r, key, bytes))
        return;
    *at = r->next;
    free(r->key);
    free(r->value);
    free(r);
}

static uint8_t *copy(const void *mem, size_t bytes)
{
    uint8_t *p = mem_new(bytes + 1);

    if (bytes)
        memcpy(p, mem, bytes);
    return p;
}

static void row_put(struct journal *j, const struct jrn_change *c)
{
    struct fake_row *r = mem_new(sizeof *r);
    struct fake_row **at;

    row_delete(j, c->key, c->key_bytes);
    at = row_at(j, c->key, c->key_bytes);
    *r = (struct fake_row){ .next = *at,
                            .key = copy(c->key, c->key_bytes),
                            .value = copy(c->value, c->value_bytes),
                            .key_bytes = c->key_bytes,
                            .value_bytes = c->value_bytes };
    *at = r;
}

void journal_fake_row(struct journal *j, const void *key, uint32_t key_bytes, const void *value,
                      uint32_t value_bytes)
{
    if (value)
        row_put(j, &(struct jrn_change){ .key = key,
                                         .key_bytes = key_bytes,
                                         .value = value,
                                         .value_bytes = value_bytes });
    else
        row_delete(j, key, key_bytes);
}

static struct shard *find_shard(struct journal *j, uint64_t id)
{
    struct shard *s = j->shards;

    while (s && s->id != id)
        s = s->next;
    return s;
}

static void wait_end(struct shard_wait *w, int rc);

static void delete_shard(struct shard *s)
{
    s->deleted = true;
    while (s->waits)
        wait_end(s->waits, E_DELETED);
}

static int update_check(struct journal *j, const struct jrn_change *c, unsigned n)
{
    if (j->update_fails) {
        j->update_fails--;
        return j->update_rc;
    }
    for (unsigned i = 0; i < n; i++) {
        if (c[i].op == JRN_SHARD_CREATE && (c[i].shard < 16 || find_shard(j, c[i].shard)))
            return E_EXISTS;
        if ((c[i].op == JRN_SHARD_DELETE || c[i].op == JRN_SHARD_POLICY) &&
            !find_shard(j, c[i].shard))
            return E_NOTFOUND;
        if (c[i].op == JRN_SHARD_CREATE && c[i].kind != SHARD_SEGMENT)
            return E_INVALID; /* a journal that knows no others */
    }
    return 0;
}

static void create_shard(struct journal *j, const struct jrn_change *c)
{
    struct shard *s = mem_new(sizeof *s);

    s->journal = j;
    s->id = c->shard;
    s->class = c->class;
    s->policy = c->policy;
    s->kind = c->kind;
    s->next = j->shards;
    j->shards = s;
    if (s->id > j->max_shard)
        j->max_shard = s->id;
}

static void update_answer(struct task *t)
{
    struct jrn_update *u = (struct jrn_update *)t;

    u->fn(u);
}

void journal_update(struct journal *j, const struct jrn_change *changes, unsigned n,
                    struct jrn_update *done)
{
    done->rc = update_check(j, changes, n);
    j->n_updates++;
    for (unsigned i = 0; done->rc == 0 && i < n; i++) {
        const struct jrn_change *c = &changes[i];

        switch (c->op) {
        case JRN_SHARD_CREATE:
            create_shard(j, c);
            break;
        case JRN_SHARD_DELETE:
            delete_shard(find_shard(j, c->shard));
            break;
        case JRN_SHARD_POLICY: /* nothing here grows old */
            find_shard(j, c->shard)->policy = c->policy;
            break;
        case JRN_ROW_PUT:
            row_put(j, c);
            break;
        case JRN_ROW_DELETE:
            row_delete(j, c->key, c->key_bytes);
            break;
        }
    }
    done->task.run = update_answer;
    loop_post(done->loop, &done->task);
}

int journal_rows_scan(struct journal *j, const void *prefix, size_t prefix_bytes,
                      int (*fn)(void *ctx, const void *key, size_t key_bytes, const void *value,
                                size_t value_bytes),
                      void *ctx)
{
    int rc = 0;

    for (struct fake_row *r = j->rows; r && rc == 0; r = r->next)
        if (r->key_bytes >= prefix_bytes && !memcmp(r->key, prefix, prefix_bytes))
            rc = fn(ctx, r->key, r->key_bytes, r->value, r->value_bytes);
    return rc;
}

/* --- shards --- */

static void open_answer(struct task *t)
{
    struct shard_open *o = (struct shard_open *)t;

    o->fn(o);
}

void shard_open(struct journal *j, uint64_t id, struct shard_open *done)
{
    struct shard *s = find_shard(j, id);

    done->rc = !s ? E_NOTFOUND : s->deleted ? E_DELETED : 0;
    done->shard = done->rc ? NULL : shard_ref(s);
    done->task.run = open_answer;
    loop_post(done->loop, &done->task);
}

struct shard *shard_ref(struct shard *s)
{
    s->refs++;
    return s;
}

void shard_unref(struct shard *s)
{
    if (!s)
        return;
    ASSERT(s->refs > 0);
    s->refs--;
}

/* Without a handle a shard leaves memory at once. */
struct shard *shard_in_memory(struct journal *j, uint64_t id)
{
    struct shard *s = find_shard(j, id);

    return s && s->refs > 0 && !s->deleted ? shard_ref(s) : NULL;
}

int32_t journal_epoch(const struct journal *j, uint64_t shard)
{
    return (int32_t)j->starts;
}

uint64_t shard_id(const struct shard *s)
{
    return s->id;
}

void shard_policy(const struct shard *s, struct shard_policy *out)
{
    *out = s->policy;
}

uint64_t shard_group(const struct shard *s)
{
    return s->class;
}

enum shard_kind shard_kind(const struct shard *s)
{
    return s->kind;
}

bool shard_is_volatile(const struct shard *s)
{
    return s->kind == SHARD_MEMORY;
}

int32_t shard_epoch(const struct shard *s)
{
    return (int32_t)s->journal->starts;
}

uint64_t shard_start(const struct shard *s)
{
    return s->start;
}

uint64_t shard_end(const struct shard *s)
{
    return s->end;
}

/* --- waiting --- */

static void wait_answer(struct task *t)
{
    struct shard_wait *w = (struct shard_wait *)t;

    w->fn(w);
}

static void wait_end(struct shard_wait *w, int rc)
{
    if (w->prev)
        w->prev->next = w->next;
    else
        w->shard->waits = w->next;
    if (w->next)
        w->next->prev = w->prev;
    w->state = 1;
    w->rc = rc;
    w->task.run = wait_answer;
    loop_post(w->loop, &w->task);
}

void shard_wait(struct shard *s, uint64_t past, struct shard_wait *w)
{
    w->past = past;
    w->shard = s;
    w->state = 0;
    w->prev = NULL;
    w->next = s->waits;
    if (w->next)
        w->next->prev = w;
    s->waits = w;
    if (s->deleted || s->end > past)
        wait_end(w, s->deleted ? E_DELETED : 0);
}

void shard_wait_cancel(struct shard_wait *w)
{
    if (w->state == 0)
        wait_end(w, E_CANCELLED);
}

static void wake(struct shard *s)
{
    struct shard_wait *next;

    for (struct shard_wait *w = s->waits; w; w = next) {
        next = w->next;
        if (s->end > w->past)
            wait_end(w, 0);
    }
}

/* --- appending --- */

static void append_answer(struct task *t)
{
    struct append_done *d = (struct append_done *)t;

    d->fn(d);
}

static struct fake_producer *producer_of(struct shard *s, int64_t id)
{
    struct fake_producer *p = s->producers;

    while (p && p->id != id)
        p = p->next;
    if (p)
        return p;
    p = mem_new(sizeof *p);
    p->id = id;
    p->epoch = -1;
    p->next = s->producers;
    s->producers = p;
    return p;
}

/* Kafka's rule; 1: a repeat, *base is the first one's. */
static int sequence_check(struct fake_producer *p, const struct batch_head *h, uint64_t *base)
{
    int32_t last = h->base_sequence + h->last_offset_delta;

    if (h->producer_epoch < p->epoch)
        return E_PRODUCER_EPOCH;
    if (h->producer_epoch > p->epoch)
        return h->base_sequence ? E_SEQUENCE : 0;
    for (unsigned i = 0; i < p->n; i++)
        if (p->last[i].first == h->base_sequence && p->last[i].last == last) {
            *base = p->last[i].base;
            return 1;
        }
    if (p->n && h->base_sequence != p->last[p->n - 1].last + 1)
        return h->base_sequence <= p->last[p->n - 1].last ? E_DUPLICATE : E_SEQUENCE;
    return 0;
}

static void sequence_note(struct fake_producer *p, const struct batch_head *h, uint64_t base)
{
    if (h->producer_epoch != p->epoch)
        p->n = 0;
    p->epoch = h->producer_epoch;
    if (p->n == SEQUENCES)
        memmove(&p->last[0], &p->last[1], sizeof p->last[0] * --p->n);
    p->last[p->n].first = h->base_sequence;
    p->last[p->n].last = h->base_sequence + h->last_offset_delta;
    p->last[p->n++].base = base;
}

static int append_now(struct shard *s, const uint8_t *mem, uint32_t bytes, struct append_done *d)
{
    struct batch_head h;
    int rc = batch_head_read(&h, mem, bytes);
    struct fake_producer *p;

    if (s->deleted)
        return E_DELETED;
    if (rc < 0 || h.bytes != bytes)
        return E_CORRUPT;
    p = h.producer_id >= 0 ? producer_of(s, h.producer_id) : NULL;
    rc = p ? sequence_check(p, &h, &d->base_offset) : 0;
    if (rc) {
        d->duplicate = rc == 1;
        return rc < 0 ? rc : 0;
    }
    d->base_offset = s->end;
    if (p)
        sequence_note(p, &h, s->end);
    s->batches = mem_grow(s->batches, (s->n_batches + 1) * sizeof *s->batches);
    s->batches[s->n_batches++] =
        (struct fake_batch){ .bytes = buf_copy(mem, bytes),
                             .base = s->end,
                             .end = s->end + (uint64_t)h.last_offset_delta + 1,
                             .max_time = h.max_timestamp };
    batch_stamp(s->batches[s->n_batches - 1].bytes->mem, (int64_t)s->end, shard_epoch(s));
    s->end = s->batches[s->n_batches - 1].end;
    wake(s);
    return 0;
}

void shard_append(struct shard *s, struct buf *batch, uint32_t at, uint32_t bytes, enum ack ack,
                  struct append_done *done)
{
    struct journal *j = s->journal;
    struct fake_append *a;

    done->task.run = append_answer;
    done->duplicate = false;
    done->append_time = loop_wall_ms(done->loop);
    if (j->append_fails) {
        j->append_fails--;
        done->rc = j->append_rc;
    } else if (j->hold) {
        a = mem_new(sizeof *a);
        *a = (struct fake_append){
            .shard = s, .buf = buf_ref(batch), .at = at, .bytes = bytes, .done = done
        };
        *j->held_tail = a;
        j->held_tail = &a->next;
        j->n_held++;
        return;
    } else {
        done->rc = append_now(s, batch->mem + at, bytes, done);
    }
    loop_post(done->loop, &done->task);
}

void journal_fake_hold(struct journal *j, bool on)
{
    struct fake_append *a;

    j->hold = on;
    while (!on && (a = j->held)) {
        j->held = a->next;
        j->n_held--;
        a->done->rc = append_now(a->shard, a->buf->mem + a->at, a->bytes, a->done);
        loop_post(a->done->loop, &a->done->task);
        buf_unref(a->buf);
        free(a);
    }
    if (!on)
        j->held_tail = &j->held;
}

/* --- reading --- */

static void read_answer(struct task *t)
{
    struct read_done *d = (struct read_done *)t;

    d->fn(d);
}

static void read_now(struct shard *s, struct read_done *d)
{
    for (unsigned i = 0; i < s->n_batches; i++) {
        struct fake_batch *b = &s->batches[i];
        bool first = d->n_slices == 0 && d->at_least_one;

        if (b->end <= d->from)
            continue;
        if (!first && d->bytes + b->bytes->len > d->max_bytes)
            break;
        d->slices = mem_grow(d->slices, (d->n_slices + 1) * sizeof *d->slices);
        d->slices[d->n_slices++] =
            (struct slice){ .buf = buf_ref(b->bytes), .mem = b->bytes->mem, .len = b->bytes->len };
        d->bytes += b->bytes->len;
    }
}

void shard_read(struct shard *s, struct read_done *d)
{
    d->shard = s;
    d->slices = NULL;
    d->n_slices = 0;
    d->bytes = 0;
    d->start = s->start;
    d->end = s->end;
    d->rc = s->deleted                               ? E_DELETED
            : s->journal->read_rc                    ? s->journal->read_rc
            : d->from < s->start || d->from > s->end ? E_RANGE
                                                     : 0;
    if (d->rc == 0)
        read_now(s, d);
    d->task.run = read_answer;
    loop_post(d->loop, &d->task);
}

void read_done_release(struct read_done *d)
{
    for (unsigned i = 0; i < d->n_slices; i++)
        buf_unref(d->slices[i].buf);
    free(d->slices);
    d->slices = NULL;
    d->n_slices = 0;
}

static void find_answer(struct task *t)
{
    struct find_time *f = (struct find_time *)t;

    f->fn(f);
}

/* The first record of the shard at or after time, or the first that reaches it exactly. */
static void find_in(struct shard *s, struct find_time *f, int64_t time)
{
    for (unsigned i = 0; i < s->n_batches && !f->found; i++) {
        struct batch_iter it = { 0 };
        struct batch_record r;
        struct buf *b = s->batches[i].bytes;

        if (s->batches[i].max_time < time || s->batches[i].end <= s->start ||
            batch_iter_open(&it, b->mem, b->len, 64 << 20) < 0)
            continue;
        while (!f->found && batch_iter_next(&it, &r) > 0)
            if (r.timestamp >= time && (uint64_t)r.offset >= s->start) {
                f->found = true;
                f->offset = (uint64_t)r.offset;
                f->timestamp = r.timestamp;
            }
        batch_iter_close(&it);
    }
}

int journal_fake_records(struct shard *s, void (*fn)(void *ctx, const struct batch_record *r),
                         void *ctx)
{
    for (unsigned i = 0; i < s->n_batches && !s->deleted; i++) {
        struct batch_iter it;
        struct batch_record r;
        struct buf *b = s->batches[i].bytes;

        if (batch_iter_open(&it, b->mem, b->len, 64 << 20) < 0)
            continue;
        while (batch_iter_next(&it, &r) > 0)
            if ((uint64_t)r.offset >= s->start)
                fn(ctx, &r);
        batch_iter_close(&it);
    }
    return s->deleted ? E_DELETED : 0;
}

void shard_find_time(struct shard *s, struct find_time *f)
{
    int64_t time = f->time;

    f->found = false;
    f->rc = s->deleted ? E_DELETED : 0;
    if (time == SHARD_TIME_MAX) {
        time = INT64_MIN;
        for (unsigned i = 0; i < s->n_batches; i++)
            if (s->batches[i].end > s->start && s->batches[i].max_time > time)
                time = s->batches[i].max_time;
    }
    if (f->rc == 0)
        find_in(s, f, time);
    f->task.run = find_answer;
    loop_post(f->loop, &f->task);
}

static void trim_answer(struct task *t)
{
    struct shard_trim *d = (struct shard_trim *)t;

    d->fn(d);
}

void shard_trim(struct shard *s, struct shard_trim *t)
{
    uint64_t to = t->start < s->end ? t->start : s->end;
    unsigned gone = 0;

    if (to > s->start)
        s->start = to;
    while (gone < s->n_batches && s->batches[gone].end <= s->start)
        buf_unref(s->batches[gone++].bytes);
    s->n_batches -= gone;
    if (gone)
        memmove(s->batches, s->batches + gone, s->n_batches * sizeof *s->batches);
    t->start = s->start;
    t->rc = s->deleted ? E_DELETED : 0;
    t->task.run = trim_answer;
    loop_post(t->loop, &t->task);
}

void journal_fake_cut(struct journal *j, uint64_t shard, uint64_t end)
{
    struct shard *s = find_shard(j, shard);

    while (s->n_batches && s->batches[s->n_batches - 1].base >= end)
        buf_unref(s->batches[--s->n_batches].bytes);
    s->end = s->n_batches ? s->batches[s->n_batches - 1].end : s->start;
}
