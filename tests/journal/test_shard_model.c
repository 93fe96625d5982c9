/* The shard API against a naive log in memory: random histories over shards of all kinds, on the simulator's
 * loops, with restarts, kills, power cuts and lost rows. After each call the journal must say what the
 * naive log says, to the byte.
 *
 * MODEL_SEEDS histories from MODEL_FIRST on; a failure names its seed. */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/store.h"
#include "tests/check.h"
#include "tests/sim/jrn_kinds.h"

enum {
    SEEDS = 5000,
    SLOTS = 4,
    KEYS = 9,
    RECORDS_MAX = 5,
    PENDING_MAX = 4,
    KNOWN = 5,
    LONG_KEY_BYTES = 1200,
    FOR_EVER_MS = 1 << 30
};

struct naive_record {
    int64_t ts;
    int key; /* -1: none */
    bool tombstone;
    uint32_t value_bytes;
    uint8_t fill;
};

struct naive_batch {
    uint64_t base;
    struct buf *buf; /* as it was sent */
    unsigned n;
    struct naive_record r[RECORDS_MAX];
    int64_t max_ts;
};

struct naive_producer {
    int64_t id;
    int16_t epoch;
    int32_t next;
    struct {
        int32_t sequence;
        unsigned n;
        uint64_t offset;
    } last[KNOWN]; /* oldest first */
    unsigned n_last;
};

struct naive {
    uint64_t id; /* 0: no shard in this slot */
    enum shard_kind kind;
    struct shard_policy policy, before; /* what a look under way when it changed still goes by */
    struct shard *handle;
    uint64_t start, end;
    struct naive_batch *list; /* first .. n are kept */
    unsigned first, n;
    struct naive_producer producer;
};

struct history {
    uint64_t seed;
    struct jrn_sim js;
    struct rng rng;
    struct naive slots[SLOTS];
    uint64_t next_id;
    int64_t next_producer;
    const char *op;
    unsigned n_ops;
};

static struct {
    unsigned appends, duplicates, refused, evicted, expired, reads, cold, waits, finds, trims, gets,
        found, scans, lives, rows_lost, deletions, pending_there, pending_gone, policies, let_go;
} counts;

static char keys[KEYS][LONG_KEY_BYTES + 1];

static uint64_t below(struct history *h, uint64_t n)
{
    return rng_below(&h->rng, n);
}

static bool chance(struct history *h, uint32_t num, uint32_t den)
{
    return rng_chance(&h->rng, num, den);
}

static void fail(const struct history *h, const struct naive *n, const char *what)
{
    fprintf(stderr,
            "seed %" PRIu64 ", operation %u (%s), shard %" PRIu64 " of kind %d, %" PRIu64
            "..%" PRIu64 ": %s\n",
            h->seed, h->n_ops, h->op, n ? n->id : 0, n ? (int)n->kind : -1, n ? n->start : 0,
            n ? n->end : 0, what);
    printf("0 passed, 1 failed\n");
    fflush(stdout);
    _exit(1);
}

#define MUST(h, n, x)                                                                              \
    do {                                                                                           \
        if (!(x))                                                                                  \
            fail(h, n, #x);                                                                        \
    } while (0)

static int64_t now_ms(const struct history *h)
{
    return SIM_WALL_START_MS + (int64_t)(sim_now_us(h->js.sim) / 1000);
}

/* --- the naive log --- */

static struct naive_batch *at(const struct naive *n, unsigned i)
{
    return &n->list[n->first + i];
}

static unsigned count(const struct naive *n)
{
    return n->n - n->first;
}

static void drop_first(struct naive *n)
{
    struct naive_batch *b = at(n, 0);

    if (b->base + b->n > n->start)
        n->start = b->base + b->n;
    buf_unref(b->buf);
    n->first++;
}

static void empty(struct naive *n)
{
    while (count(n) > 0)
        drop_first(n);
}

static void forget(struct naive *n)
{
    empty(n);
    free(n->list);
    shard_unref(n->handle);
    *n = (struct naive){ 0 };
}

static void keep(struct naive *n, const struct naive_batch *b)
{
    n->list = mem_grow(n->list, (n->n + 1) * sizeof *n->list);
    n->list[n->n++] = *b;
    n->end = b->base + b->n;
}

static uint64_t kept_bytes(const struct naive *n)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < count(n); i++)
        bytes += at(n, i)->buf->len;
    return bytes;
}

static void trim(struct naive *n, uint64_t start)
{
    if (start > n->end)
        start = n->end;
    while (count(n) > 0 && at(n, 0)->base + at(n, 0)->n <= start)
        drop_first(n);
    if (start > n->start)
        n->start = start;
}

static void bound(struct naive *n)
{
    if (n->kind != SHARD_MEMORY || !(n->policy.flags & SHARD_LIMITED))
        return;
    while (count(n) > 1 && kept_bytes(n) > (uint64_t)n->policy.retention_bytes) {
        drop_first(n);
        counts.evicted++;
    }
}

/* Takes over what a memory shard has let go of by age: only what is too old, and, when somebody has looked
 * at the shard since `looked`, all that was. */
static void follow_expiry(struct history *h, struct naive *n, int64_t looked)
{
    uint64_t start = shard_start(n->handle);

    if (n->kind != SHARD_MEMORY || !(n->policy.flags & SHARD_EXPIRES))
        return;
    while (count(n) > 0 && at(n, 0)->base + at(n, 0)->n <= start) {
        MUST(h, n, at(n, 0)->max_ts < now_ms(h) - n->policy.retention_ms);
        drop_first(n);
        counts.expired++;
    }
    MUST(h, n, looked == 0 || count(n) == 0 || at(n, 0)->max_ts >= looked - n->policy.retention_ms);
}

static bool may_go(struct history *h, const struct naive *n, const struct shard_policy *p)
{
    const struct naive_batch *b = at(n, 0);

    return ((p->flags & SHARD_EXPIRES) && b->max_ts < now_ms(h) - p->retention_ms) ||
           ((p->flags & SHARD_LIMITED) &&
            kept_bytes(n) - b->buf->len >= (uint64_t)p->retention_bytes);
}

/* Takes over what retention has let go of a segment shard, at any time: whole batches, only those that the policy
 * names. Gives whether there was any. */
static bool follow_retention(struct history *h, struct naive *n)
{
    uint64_t start = shard_start(n->handle);
    bool any = false;

    if (n->kind != SHARD_SEGMENT)
        return false;
    while (count(n) > 0 && at(n, 0)->base + at(n, 0)->n <= start) {
        MUST(h, n, may_go(h, n, &n->policy) || may_go(h, n, &n->before));
        drop_first(n);
        counts.let_go++;
        any = true;
    }
    return any;
}

/* The latest record of a key, and its offset; NULL when it is deleted, trimmed or never was. */
static const struct naive_record *latest(const struct naive *n, int key, uint64_t *offset)
{
    for (unsigned i = count(n); i-- > 0;) {
        for (unsigned k = at(n, i)->n; k-- > 0;) {
            const struct naive_record *r = &at(n, i)->r[k];

            if (r->key != key || at(n, i)->base + k < n->start)
                continue;
            *offset = at(n, i)->base + k;
            return r->tombstone ? NULL : r;
        }
    }
    return NULL;
}

static bool first_at(const struct naive *n, int64_t time, uint64_t *offset, int64_t *ts)
{
    bool found = false;

    for (unsigned i = 0; i < count(n); i++) {
        for (unsigned k = 0; k < at(n, i)->n; k++) {
            const struct naive_record *r = &at(n, i)->r[k];

            if (at(n, i)->base + k < n->start ||
                (time == SHARD_TIME_MAX ? found && r->ts <= *ts : r->ts < time))
                continue;
            *offset = at(n, i)->base + k;
            *ts = r->ts;
            found = true;
            if (time != SHARD_TIME_MAX)
                return true;
        }
    }
    return found;
}

/* --- appends --- */

static struct naive_batch draw_batch(struct history *h, const struct naive *n, int32_t sequence)
{
    static const uint32_t sizes[] = { 4, 60, 400, 3000 };
    struct naive_batch b = { .n = 1 + (unsigned)below(h, RECORDS_MAX), .max_ts = INT64_MIN };
    struct batch_builder builder = { 0 };
    static uint8_t value[RECORDS_MAX][3000];

    if (sequence >= 0) {
        builder.has_producer = true;
        builder.producer_id = n->producer.id;
        builder.producer_epoch = n->producer.epoch;
        builder.base_sequence = sequence;
    }
    for (unsigned i = 0; i < b.n; i++) {
        struct naive_record *r = &b.r[i];
        struct batch_new_record new = { 0 };

        r->ts = new.timestamp = now_ms(h) + (int64_t)below(h, 4000) - 3000;
        if (r->ts > b.max_ts)
            b.max_ts = r->ts;
        r->key = chance(h, 1, 8) ? -1 : (int)below(h, KEYS);
        r->tombstone = r->key >= 0 && chance(h, 1, 5);
        r->value_bytes = (uint32_t)below(h, sizes[below(h, 4)]);
        r->fill = (uint8_t)below(h, 256);
        memset(value[i], r->fill, r->value_bytes);
        new.key = r->key < 0 ? NULL : keys[r->key];
        new.key_bytes = r->key < 0 ? 0 : strlen(keys[r->key]);
        new.value = r->tombstone ? NULL : value[i];
        new.value_bytes = r->tombstone ? 0 : r->value_bytes;
        batch_builder_add(&builder, &new);
    }
    MUST(h, n,
         batch_builder_finish(
             &builder, chance(h, 1, 4) ? (enum batch_codec)below(h, CODEC_COUNT) : CODEC_NONE,
             &b.buf) >= 0);
    batch_builder_free(&builder);
    return b;
}

static void known_add(struct naive_producer *p, int32_t sequence, unsigned n, uint64_t offset)
{
    if (p->n_last == KNOWN) {
        memmove(p->last, p->last + 1, (KNOWN - 1) * sizeof p->last[0]);
        p->n_last--;
    }
    p->last[p->n_last].sequence = sequence;
    p->last[p->n_last].n = n;
    p->last[p->n_last++].offset = offset;
    p->next = sequence + (int32_t)n;
}

static void do_append(struct history *h, struct naive *n)
{
    struct naive_producer *p = &n->producer;
    bool idempotent = chance(h, 1, 3);
    struct naive_batch b;
    uint64_t offset;
    int64_t before = now_ms(h);

    if (idempotent && (!p->id || chance(h, 1, 10))) {
        p->epoch = p->id ? (int16_t)(p->epoch + 1) : 0;
        p->id = p->id ? p->id : ++h->next_producer;
        p->next = 0;
        p->n_last = 0;
    }
    b = draw_batch(h, n, idempotent ? p->next : -1);
    MUST(h, n, call_append(&h->js, n->handle, buf_ref(b.buf), &offset) == 0);
    MUST(h, n, offset == n->end);
    b.base = offset;
    keep(n, &b);
    if (idempotent)
        known_add(p, p->next, b.n, offset);
    bound(n);
    follow_expiry(h, n, before);
    follow_retention(h, n);
    MUST(h, n, shard_end(n->handle) == n->end);
    MUST(h, n, shard_start(n->handle) == n->start);
    counts.appends++;
}

/* A producer's repeats, gaps and old epochs; only where what is known of it has not been trimmed. */
static void do_odd_append(struct history *h, struct naive *n)
{
    struct naive_producer *p = &n->producer;
    struct call_append a;
    struct naive_batch b;
    unsigned which;

    if (p->n_last == 0 || p->last[0].offset < n->start)
        return;
    switch (below(h, 3)) {
    case 0:
        which = (unsigned)below(h, p->n_last);
        for (unsigned i = 0; i < count(n); i++) {
            if (at(n, i)->base != p->last[which].offset)
                continue;
            call_append_begin(&h->js, n->handle, buf_ref(at(n, i)->buf), &a);
            MUST(h, n, call_append_end(&h->js, &a) == 0);
            MUST(h, n, a.d.duplicate && a.d.base_offset == at(n, i)->base);
            counts.duplicates++;
        }
        break;
    case 1:
        b = draw_batch(h, n, p->next + 1 + (int32_t)below(h, 9));
        MUST(h, n, call_append(&h->js, n->handle, b.buf, NULL) == E_SEQUENCE);
        counts.refused++;
        break;
    default:
        if (p->epoch == 0)
            return;
        p->epoch--;
        b = draw_batch(h, n, p->next);
        p->epoch++;
        MUST(h, n, call_append(&h->js, n->handle, b.buf, NULL) == E_PRODUCER_EPOCH);
        counts.refused++;
    }
    MUST(h, n, shard_end(n->handle) == n->end);
}

/* --- reads --- */

/* The bytes must be those of the naive log's batches from the one that holds `from` on. */
static void bytes_check(struct history *h, const struct naive *n, uint64_t from,
                        const struct call_bytes *read)
{
    size_t pos = 0;

    for (unsigned i = 0; i < count(n); i++) {
        const struct naive_batch *b = at(n, i);
        struct batch_head head;

        if (b->base + b->n <= from)
            continue;
        MUST(h, n, read->n - pos >= b->buf->len);
        MUST(h, n, batch_head_read(&head, read->mem + pos, read->n - pos) >= 0);
        MUST(h, n, (uint64_t)head.base_offset == b->base);
        MUST(h, n, memcmp(read->mem + pos + 16, b->buf->mem + 16, b->buf->len - 16) == 0);
        pos += b->buf->len;
    }
    MUST(h, n, pos == read->n);
}

static void do_read(struct history *h, struct naive *n, uint64_t from)
{
    struct call_bytes read = { 0 };
    int64_t before = now_ms(h);
    uint64_t end;
    int rc;

    end = call_read(&h->js, n->handle, from, &read, &rc, NULL);
    follow_expiry(h, n, before);
    if (follow_retention(h, n)) { /* before it was read, in between or after */
        MUST(h, n, rc == 0 || rc == E_RANGE);
    } else if (from < n->start || from > n->end) {
        MUST(h, n, rc == E_RANGE && read.n == 0);
    } else {
        MUST(h, n, rc == 0 && end == n->end);
        bytes_check(h, n, from, &read);
    }
    free(read.mem);
    counts.reads++;
    counts.cold += h->js.st->segments.by_id.count > 0;
}

static void do_wait(struct history *h, struct naive *n)
{
    uint64_t past = n->end + below(h, 3) - (n->end > 0);

    MUST(h, n, kind_wait(&h->js, n->handle, past) == (past < n->end ? 0 : E_CANCELLED));
    counts.waits++;
}

static void do_find(struct history *h, struct naive *n)
{
    int64_t time = chance(h, 1, 4) ? SHARD_TIME_MAX : now_ms(h) - (int64_t)below(h, 8000),
            before = now_ms(h), ts = 0, naive_ts = 0;
    uint64_t offset = 0, naive_offset = 0;
    bool found, naive_found;

    MUST(h, n, kind_find_time(&h->js, n->handle, time, &found, &offset, &ts) == 0);
    follow_expiry(h, n, before);
    if (follow_retention(h, n))
        return; /* before or after that */
    naive_found = first_at(n, time, &naive_offset, &naive_ts);
    MUST(h, n, found == naive_found);
    MUST(h, n, !found || (offset == naive_offset && ts == naive_ts));
    counts.finds++;
}

static void do_trim(struct history *h, struct naive *n)
{
    uint64_t start = n->start + below(h, n->end - n->start + 3);

    if (chance(h, 2, 3))
        start = n->start + below(h, (n->end - n->start) / 8 + 2);
    MUST(h, n, call_trim(&h->js, n->handle, start) == 0);
    trim(n, start);
    follow_expiry(h, n, 0);
    follow_retention(h, n);
    MUST(h, n, shard_start(n->handle) == n->start);
    counts.trims++;
}

static void policy_draw(struct history *h, const struct naive *n, struct shard_policy *p)
{
    bool memory = n->kind == SHARD_MEMORY;

    if (memory ? chance(h, 2, 3) : chance(h, 1, 3)) {
        p->flags |= SHARD_LIMITED;
        p->retention_bytes = 500 + (int64_t)below(h, 20000);
    }
    if (chance(h, 1, 3)) {
        p->flags |= SHARD_EXPIRES;
        p->retention_ms = 1000 + (int64_t)below(h, 4000);
    }
}

/* From now on; what it lets go goes when somebody looks. A ring's changes are in test_memory. */
static void do_policy(struct history *h, struct naive *n)
{
    struct jrn_change c = { .op = JRN_SHARD_POLICY, .shard = n->id };

    if (n->kind != SHARD_SEGMENT)
        return;
    policy_draw(h, n, &c.policy);
    n->before = n->policy;
    n->policy = c.policy;
    MUST(h, n, call_update(&h->js, &c, 1) == 0);
    follow_retention(h, n);
    MUST(h, n, shard_start(n->handle) == n->start);
    counts.policies++;
}

/* --- keys --- */

static void record_check(struct history *h, const struct naive *n, int key, uint64_t offset,
                         const struct naive_record *want, const struct batch_record *r)
{
    MUST(h, n, (uint64_t)r->offset == offset && r->timestamp == want->ts);
    MUST(h, n, (size_t)r->key_bytes == strlen(keys[key]));
    MUST(h, n, memcmp(r->key, keys[key], (size_t)r->key_bytes) == 0);
    MUST(h, n, (uint32_t)r->value_bytes == want->value_bytes);
    for (uint32_t i = 0; i < want->value_bytes; i++)
        MUST(h, n, r->value[i] == want->fill);
}

static void do_get(struct history *h, struct naive *n)
{
    int key = (int)below(h, KEYS), rc;
    const struct naive_record *want;
    struct shard_get g;
    uint64_t offset;

    rc = kind_get(&h->js, n->handle, keys[key], strlen(keys[key]), &g);
    if (n->kind != SHARD_ROCKSDB) {
        MUST(h, n, rc == E_UNSUPPORTED);
        return;
    }
    want = latest(n, key, &offset);
    MUST(h, n, rc == (want ? 0 : E_NOTFOUND));
    if (want)
        record_check(h, n, key, offset, want, &g.record);
    counts.gets++;
    counts.found += want != NULL;
    shard_get_release(&g);
}

/* Keys are numbered in the order of their bytes. */
static void do_scan(struct history *h, struct naive *n)
{
    static const char *const prefixes[] = { "", "key", "key3", "l", "x" };
    const char *prefix = prefixes[below(h, 5)];
    int from = chance(h, 1, 2) ? (int)below(h, KEYS - 1) : -1, key = from < 0 ? 0 : from;
    struct shard_scan c = { .prefix = prefix,
                            .prefix_bytes = (uint32_t)strlen(prefix),
                            .limit = 1 + (uint32_t)below(h, 12),
                            .max_bytes = 1 << 20 };

    if (chance(h, 1, 4))
        c.max_bytes = (uint32_t)below(h, 3000);
    if (from >= 0) {
        c.from = keys[from];
        c.from_bytes = (uint32_t)strlen(keys[from]);
    }
    if (n->kind != SHARD_ROCKSDB) {
        MUST(h, n, kind_scan(&h->js, n->handle, &c) == E_UNSUPPORTED);
        return;
    }
    MUST(h, n, kind_scan(&h->js, n->handle, &c) == 0);
    for (uint32_t i = 0; i < c.n; key++) {
        uint64_t offset = 0;
        const struct naive_record *want;

        MUST(h, n, key < KEYS);
        if (strncmp(keys[key], prefix, strlen(prefix)) != 0)
            continue;
        want = latest(n, key, &offset);
        if (want)
            record_check(h, n, key, offset, want, &c.records[i++]);
    }
    for (; key < KEYS && !c.next; key++) { /* the end, it says */
        uint64_t offset;

        MUST(h, n, strncmp(keys[key], prefix, strlen(prefix)) != 0 || !latest(n, key, &offset));
    }
    MUST(h, n, c.n == c.limit || !c.next || c.n > 0 || n->start > 0);
    counts.scans++;
    shard_scan_release(&c);
}

/* --- shards and lives --- */

static void shard_make(struct history *h, struct naive *n)
{
    struct shard_policy *p = &n->policy;

    *n = (struct naive){ .id = ++h->next_id, .kind = (enum shard_kind)below(h, 3) };
    if (n->kind == SHARD_MEMORY || (n->kind == SHARD_SEGMENT && chance(h, 1, 3)))
        policy_draw(h, n, p);
    /* What is superseded must stay for the comparison. */
    if (n->kind == SHARD_ROCKSDB) {
        p->flags |= SHARD_COMPACTED;
        p->min_compaction_lag_ms = FOR_EVER_MS;
    }
    MUST(h, n, kind_create(&h->js, n->id, n->kind, p) == 0);
    n->handle = call_open(&h->js, n->id, NULL);
    MUST(h, n, n->handle && shard_kind(n->handle) == n->kind);
}

static void shard_remake(struct history *h, struct naive *n)
{
    struct naive_batch b = draw_batch(h, n, -1);

    MUST(h, n, call_delete(&h->js, n->id) == 0);
    MUST(h, n, call_append(&h->js, n->handle, b.buf, NULL) == E_DELETED);
    forget(n);
    shard_make(h, n);
    counts.deletions++;
}

/* Appends that nobody waits for when the power goes: a prefix of them is there, all of those that were answered. */
struct pending {
    struct call_append call[PENDING_MAX];
    struct naive_batch batch[PENDING_MAX];
    unsigned n;
    struct naive *of;
};

static void pending_begin(struct history *h, struct pending *p)
{
    p->of = &h->slots[below(h, SLOTS)];
    p->n = (unsigned)below(h, PENDING_MAX + 1);
    for (unsigned i = 0; i < p->n; i++) {
        p->batch[i] = draw_batch(h, p->of, -1);
        call_append_begin(&h->js, p->of->handle, buf_ref(p->batch[i].buf), &p->call[i]);
    }
    for (unsigned i = (unsigned)below(h, 40); i > 0; i--)
        sim_step(h->js.sim);
}

static void pending_end(struct history *h, struct pending *p)
{
    struct naive *n = p->of;
    uint64_t end = shard_end(n->handle);

    for (unsigned i = 0; i < p->n; i++) {
        struct naive_batch *b = &p->batch[i];
        bool there = n->kind != SHARD_MEMORY && end >= n->end + b->n;

        MUST(h, n, p->call[i].done);
        MUST(h, n, p->call[i].d.rc < 0 || n->kind == SHARD_MEMORY || there);
        if (n->kind == SHARD_MEMORY && p->call[i].d.rc >= 0) /* its offset is never given again */
            MUST(h, n, end >= p->call[i].d.base_offset + b->n);
        if (there) {
            b->base = n->end;
            keep(n, b);
            counts.pending_there++;
        } else {
            buf_unref(b->buf);
            counts.pending_gone++;
        }
    }
}

static void handle_again(struct history *h, struct naive *n)
{
    n->handle = call_open(&h->js, n->id, NULL);
    MUST(h, n, n->handle != NULL);
    if (n->kind != SHARD_MEMORY)
        return;
    MUST(h, n, shard_start(n->handle) == shard_end(n->handle));
    MUST(h, n, shard_start(n->handle) >= n->end);
    empty(n);
    n->start = n->end = shard_start(n->handle);
    n->producer.n_last = 0;
    n->producer.id = 0;
}

static void new_life(struct history *h)
{
    struct pending pending = { 0 };
    bool rows_lost = chance(h, 1, 3);
    unsigned how = (unsigned)below(h, 3);
    struct err e = { 0 };

    pending_begin(h, &pending);
    for (unsigned i = 0; i < SLOTS; i++) {
        shard_unref(h->slots[i].handle);
        h->slots[i].handle = NULL;
    }
    if (how == 0)
        jrn_sim_close(&h->js);
    else if (how == 1)
        jrn_sim_kill(&h->js, rows_lost);
    else
        jrn_sim_crash(&h->js, rows_lost);
    MUST(h, NULL, jrn_sim_open(&h->js, &e) >= 0);
    for (unsigned i = 0; i < SLOTS; i++)
        handle_again(h, &h->slots[i]);
    pending_end(h, &pending);
    for (unsigned i = 0; i < SLOTS; i++) {
        struct naive *n = &h->slots[i];

        follow_retention(h, n);
        MUST(h, n, shard_start(n->handle) == n->start && shard_end(n->handle) == n->end);
        do_read(h, n, n->start);
        do_scan(h, n);
    }
    counts.lives++;
    counts.rows_lost += how > 0 && rows_lost;
}

/* --- a history --- */

static void act(struct history *h)
{
    struct naive *n = &h->slots[below(h, SLOTS)];
    uint64_t draw = below(h, 100);

#define OP(limit, name, call)                                                                      \
    if (draw < (limit)) {                                                                          \
        h->op = name;                                                                              \
        call;                                                                                      \
        return;                                                                                    \
    }
    follow_expiry(h, n, 0);
    follow_retention(h, n);
    OP(49, "append", do_append(h, n))
    OP(50, "policy", do_policy(h, n))
    OP(55, "odd append", do_odd_append(h, n))
    OP(65, "read", do_read(h, n, n->start + below(h, n->end - n->start + 3) - (n->start > 0)))
    OP(68, "wait", do_wait(h, n))
    OP(74, "find", do_find(h, n))
    OP(79, "trim", do_trim(h, n))
    OP(89, "get", do_get(h, n))
    OP(94, "scan", do_scan(h, n))
    OP(96, "life", new_life(h))
    OP(97, "delete", shard_remake(h, n))
    OP(100, "time goes by", call_wait_ms(&h->js, below(h, 800)))
#undef OP
}

static void history_run(uint64_t seed)
{
    struct history *h = mem_new(sizeof *h);
    struct err e = { 0 };
    unsigned n_ops;

    h->seed = seed;
    h->next_id = SHARD_FIRST_USER - 1;
    rng_seed(&h->rng, seed * 0x9e3779b97f4a7c15 + 7);
    n_ops = 20 + (unsigned)below(h, chance(h, 1, 8) ? 500 : 100);
    jrn_sim_init(&h->js, seed, 64 << 20, 1 + (unsigned)below(h, 3));
    h->js.conf.cache_bytes = 4096u << below(h, 5);
    if (chance(h, 1, 2))
        h->js.conf.direct_from = 256u << below(h, 6);
    if (chance(h, 1, 2)) {
        h->js.conf.retention_check_ms = 10 + (uint32_t)below(h, 200);
        h->js.conf.wal_age_ms = 100 + (uint32_t)below(h, 500);
    }
    h->op = "open";
    MUST(h, NULL, jrn_sim_open(&h->js, &e) >= 0);
    for (unsigned i = 0; i < SLOTS; i++)
        shard_make(h, &h->slots[i]);
    for (h->n_ops = 0; h->n_ops < n_ops; h->n_ops++)
        act(h);
    h->op = "end";
    for (unsigned i = 0; i < SLOTS; i++) {
        follow_expiry(h, &h->slots[i], 0);
        follow_retention(h, &h->slots[i]);
        do_read(h, &h->slots[i], h->slots[i].start);
        forget(&h->slots[i]);
    }
    jrn_sim_close(&h->js);
    jrn_sim_fini(&h->js);
    MUST(h, NULL, buf_total_bytes() == 0);
    free(h);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void keys_make(void)
{
    for (unsigned i = 0; i < KEYS - 2; i++)
        snprintf(keys[i], sizeof keys[i], "key%u", i);
    /* Two that are indexed by their beginning and a hash, in an order of their own: one of them in use. */
    memset(keys[KEYS - 2], 'l', LONG_KEY_BYTES);
    strcpy(keys[KEYS - 1], "m");
}

static void test_every_history_is_that_of_the_naive_log(void)
{
    uint64_t first = number("MODEL_FIRST", 1), n = number("MODEL_SEEDS", SEEDS);

    logger_to(-1);
    keys_make();
    for (uint64_t seed = first; seed < first + n; seed++)
        history_run(seed);
    if (getenv("MODEL_COUNTS"))
        for (unsigned i = 0; i < sizeof counts / sizeof(unsigned); i++)
            fprintf(stderr, "%u ", ((const unsigned *)&counts)[i]);
    if (n < SEEDS)
        return;
    /* A history in which nothing happens proves nothing. */
    CHECK(counts.appends > 150000 && counts.reads > 40000 && counts.cold > 5000);
    CHECK(counts.duplicates > 1500 && counts.refused > 1500);
    CHECK(counts.evicted > 8000 && counts.expired > 1500);
    CHECK(counts.waits > 3000 && counts.finds > 8000 && counts.trims > 8000);
    CHECK(counts.gets > 3000 && counts.found > 1500 && counts.scans > 3000);
    CHECK(counts.lives > 3000 && counts.rows_lost > 500 && counts.deletions > 1500);
    CHECK(counts.policies > 1000 && counts.let_go > 500);
    CHECK(counts.pending_there > 300 && counts.pending_gone > 300);
}

TEST_MAIN(T(every_history_is_that_of_the_naive_log))
