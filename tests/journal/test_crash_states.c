/* test-limit: 600
 *
 * Every state that a power cut can leave, at every single operation on the device, of small workloads (tests/sim/crash_states.h):
 * recovery is run in each and held against what had been answered by then. What an answered update, append, trim or deletion did is
 * there, nothing else is, a recovery that is itself cut off and runs again comes to the same, and the store works on.
 *
 * The workloads create the store, make shards, append, trim, delete, fill the WAL until it is destaged and checkpointed, grow slabs,
 * close and open again. tests/sim/seeds.h says what may be asked of this program (CRASH_SEEDS, CRASH_FIRST). */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/store.h"
#include "tests/sim/crash_states.h"
#include "tests/sim/disk_sim_int.h"
#include "tests/sim/jrn_calls.h"
#include "tests/sim/seeds.h"

#ifdef WEIR_SLOW_ASSERTS
enum { SEEDS = 8, SEED_SECONDS = 600 };
#else
enum { SEEDS = 100, SEED_SECONDS = 120 };
#endif
enum {
    SHARDS_MAX = 12,
    SENT_MAX = 240,
    CAPACITY = 16 << 20,
    RECORDS_MAX = 4,
    ARMED = 1 << 30 /* more operations than a life has: to count them */
};

#define COUNTS(X)                                                                                  \
    X(moments, "operations before which power was cut", 100)                                       \
    X(whole, "of them with every combination tried", 50)                                           \
    X(states, "states recovered", 1000)                                                            \
    X(torn, "of them with a torn page", 20)                                                        \
    X(repeats, "that had been tried before", 0)                                                    \
    X(in_creation, "states of a store that is being made", 1)                                      \
    X(again, "recoveries cut off, and run again", 100)                                             \
    X(appended, "states appended to", 300)                                                         \
    X(cut_again, "of them cut, not closed", 50)                                                    \
    X(destages, "destages and checkpoints", 1)                                                     \
    X(grown, "slabs grown", 0)                                                                     \
    X(trims, "trims", 1)                                                                           \
    X(deletions, "shards deleted", 1)                                                              \
    X(closes, "closes", 1)

struct counts {
#define X(name, text, median) uint32_t name;
    COUNTS(X)
#undef X
};

/* --- what was done, and answered --- */

struct sent {
    struct call_append call;
    struct buf *batch;
    unsigned shard, n_records;
};

struct made {
    uint64_t id;
    struct shard *handle;
    bool asked, answered, delete_asked, deleted;
    uint64_t trim_asked, trimmed;
};

struct script {
    uint64_t seed;
    struct rng rng;
    struct counts *n;
    bool talk;
    struct jrn_sim js;
    struct crash_states states;
    struct made shards[SHARDS_MAX];
    unsigned n_shards;
    struct sent sent[SENT_MAX];
    unsigned n_sent;
    uint64_t disk_seen, rows_seen, stamp_seen;
    uint64_t ckpt_lsn;
    uint32_t slabs;
};

_Noreturn static void fail(const struct script *s, const char *fmt, ...)
{
    va_list ap;

    printf("seed %" PRIu64 ", state %" PRIu64 " after %u appends: ", s->seed, s->states.states,
           s->n_sent);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

static bool is_acked(const struct sent *x)
{
    return x->call.done && x->call.d.rc >= 0;
}

/* --- what a recovered store holds --- */

struct content {
    XXH64_hash_t hash;
    uint64_t start[SHARDS_MAX], end[SHARDS_MAX];
    bool exists[SHARDS_MAX];
};

static uint64_t mix(uint64_t hash, uint64_t value)
{
    return hash_mix(hash * 3 + value);
}

/* The number of the batch that was sent to the shard with these bytes, from number `from` on; n_sent: none. */
static unsigned sent_find(const struct script *s, unsigned shard, unsigned from, const uint8_t *mem,
                          uint32_t bytes)
{
    for (unsigned i = from; i < s->n_sent; i++) {
        const struct sent *x = &s->sent[i];

        if (x->shard == shard && x->batch->len == bytes &&
            memcmp(x->batch->mem + 16, mem + 16, bytes - 16) == 0)
            return i;
    }
    return s->n_sent;
}

/* The shard's bytes against what was sent: all that was acked from its start on, in order, and nothing that was not. `late`: batches of
 * ours that the script did not send stand behind all others. */
static void shard_compare(const struct script *s, unsigned shard, const struct content *c,
                          const struct call_bytes *b, unsigned late)
{
    unsigned next = 0;
    size_t at = 0;

    while (at < b->n) {
        struct batch_head h;
        unsigned i;

        if (batch_head_read(&h, b->mem + at, b->n - at) < 0)
            fail(s, "shard %u: not a batch", shard);
        i = sent_find(s, shard, next, b->mem + at, h.bytes);
        if (i == s->n_sent && (late == 0 || (uint64_t)h.base_offset < c->end[shard] - late))
            fail(s, "shard %u: a batch at %" PRId64 " that was not sent, or not in this order",
                 shard, h.base_offset);
        if (i < s->n_sent && is_acked(&s->sent[i]) &&
            (uint64_t)h.base_offset != s->sent[i].call.d.base_offset)
            fail(s, "shard %u: batch %u is at %" PRId64 ", not at %" PRIu64, shard, i,
                 h.base_offset, s->sent[i].call.d.base_offset);
        for (; next < i && next < s->n_sent; next++)
            if (s->sent[next].shard == shard && is_acked(&s->sent[next]) &&
                s->sent[next].call.d.base_offset + s->sent[next].n_records > c->start[shard])
                fail(s, "shard %u: batch %u was acked at %" PRIu64 " and is gone", shard, next,
                     s->sent[next].call.d.base_offset);
        next = i < s->n_sent ? i + 1 : next;
        at += h.bytes;
    }
    for (; next < s->n_sent; next++)
        if (s->sent[next].shard == shard && is_acked(&s->sent[next]) &&
            s->sent[next].call.d.base_offset + s->sent[next].n_records > c->start[shard])
            fail(s, "shard %u: batch %u was acked at %" PRIu64 " and is gone (end %" PRIu64 ")",
                 shard, next, s->sent[next].call.d.base_offset, c->end[shard]);
}

static void shard_look(struct script *s, struct jrn_sim *js, unsigned at, struct content *c,
                       unsigned late)
{
    const struct made *m = &s->shards[at];
    struct call_bytes bytes = { 0 };
    int rc;
    struct shard *h = call_open(js, m->id, &rc);

    c->exists[at] = h != NULL;
    c->hash = mix(c->hash, c->exists[at]);
    if (!h && (rc != E_NOTFOUND || (m->answered && !m->delete_asked)))
        fail(s, "shard %u cannot be opened: %s", at, err_name(rc));
    if (!h)
        return;
    if (m->deleted)
        fail(s, "shard %u was deleted and is there", at);
    c->start[at] = shard_start(h);
    c->end[at] = shard_end(h);
    if (c->start[at] < m->trimmed || c->start[at] > m->trim_asked)
        fail(s, "shard %u: start %" PRIu64 " is not in %" PRIu64 "..%" PRIu64, at, c->start[at],
             m->trimmed, m->trim_asked);
    if (call_read(js, h, c->start[at], &bytes, &rc, NULL) != c->end[at] || rc < 0)
        fail(s, "shard %u: %s before its end %" PRIu64, at, err_name(rc), c->end[at]);
    shard_compare(s, at, c, &bytes, late);
    c->hash = mix(mix(c->hash, c->start[at]), c->end[at]);
    c->hash = mix(c->hash, XXH3_64bits(bytes.mem, bytes.n));
    free(bytes.mem);
    shard_unref(h);
}

static int row_seen(void *ctx, const void *key, size_t key_bytes, const void *value,
                    size_t value_bytes)
{
    if (key_bytes != 2)
        return E_CORRUPT;
    ((bool *)ctx)[((const uint8_t *)key)[1]] = true;
    return 0;
}

/* Each shard's row is made and deleted with it. late: as above, for each shard. */
static void look(struct script *s, struct jrn_sim *js, struct content *c, unsigned late)
{
    bool rows[SHARDS_MAX] = { 0 };

    *c = (struct content){ 0 };
    for (unsigned i = 0; i < s->n_shards; i++)
        shard_look(s, js, i, c, late);
    if (journal_rows_scan(js->j, "T", 1, row_seen, rows) < 0)
        fail(s, "rows cannot be read");
    for (unsigned i = 0; i < SHARDS_MAX; i++)
        if (rows[i] != c->exists[i])
            fail(s, "shard %u %s, but its row %s", i, c->exists[i] ? "is there" : "is not there",
                 rows[i] ? "is" : "is not");
}

/* --- a state --- */

static void state_init(struct script *s, struct jrn_sim *js, struct sim_disk *disk,
                       struct sim_rows_store *rows)
{
    jrn_sim_init(js, rng_u64(&s->rng), CAPACITY, 1);
    sim_rows_store_free(js->store);
    sim_disk_free(js->disk);
    js->disk = js->devices[0].disk = disk;
    js->store = js->devices[0].store = rows;
    js->conf = s->js.conf;
}

static void state_open(struct script *s, struct jrn_sim *js)
{
    struct err e = { 0 };
    int rc = jrn_sim_open(js, &e);

    if (rc < 0)
        fail(s, "does not open: %s (%s)", e.text, err_name(rc));
}

/* Gives how many operations the opening took. */
static uint64_t state_open_counted(struct script *s, struct jrn_sim *js)
{
    uint64_t n;

    sim_disk_power_off_after(js->disk, ARMED);
    state_open(s, js);
    n = ARMED - js->disk->off_after;
    js->disk->off_armed = false;
    return n;
}

/* Every shard that is there takes one more batch; it is there in the next life, and so is the rest. */
static void state_goes_on(struct script *s, struct jrn_sim *js, const struct content *before)
{
    struct content after;

    for (unsigned i = 0; i < s->n_shards; i++) {
        struct shard *h;
        uint64_t offset;

        if (!before->exists[i])
            continue;
        h = call_open(js, s->shards[i].id, NULL);
        if (call_append(js, h, call_batch(1000 + i, 1, 40), &offset) < 0)
            fail(s, "shard %u takes nothing more", i);
        if (offset != before->end[i])
            fail(s, "shard %u goes on at %" PRIu64 ", not at %" PRIu64, i, offset, before->end[i]);
        shard_unref(h);
    }
    s->n->appended++;
    if (rng_chance(&s->rng, 1, 2)) {
        s->n->cut_again++;
        jrn_sim_crash(js, false);
    } else {
        jrn_sim_close(js);
    }
    state_open(s, js);
    look(s, js, &after, 1);
    for (unsigned i = 0; i < s->n_shards; i++)
        if (after.exists[i] != before->exists[i] || after.start[i] != before->start[i] ||
            after.end[i] != before->end[i] + before->exists[i])
            fail(s, "shard %u has another start or end after one more batch", i);
}

/* The same state, its recovery cut off at any operation, once or twice: it must come to the same. */
static void state_again(struct script *s, struct sim_disk *disk, struct sim_rows_store *rows,
                        uint64_t n_ops, const struct content *first)
{
    struct content c;
    struct jrn_sim js;
    struct err e;

    state_init(s, &js, disk, rows);
    for (unsigned i = 1 + (unsigned)rng_below(&s->rng, 2); i > 0; i--) {
        sim_disk_power_off_after(js.disk, rng_below(&s->rng, n_ops));
        e = (struct err){ 0 };
        if (jrn_sim_open(&js, &e) >= 0)
            sim_disk_power_off(js.disk);
        else if (!js.disk->off)
            fail(s, "does not open again: %s", e.text);
        jrn_sim_crash(&js, false);
        s->n->again++;
    }
    state_open(s, &js);
    look(s, &js, &c, 0);
    if (c.hash != first->hash)
        fail(s, "a recovery that was cut off comes to another end");
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void on_state(void *ctx, struct sim_disk *disk, struct sim_rows_store *rows)
{
    struct script *s = ctx;
    bool again = rng_chance(&s->rng, 1, 2);
    struct sim_disk *disk2 = again ? crash_states_copy(disk, s->seed) : NULL;
    struct sim_rows_store *rows2 = again ? sim_rows_store_copy(rows, disk2, 0) : NULL;
    struct jrn_sim js;
    struct content c;
    uint64_t n_ops;

    state_init(s, &js, disk, rows);
    n_ops = state_open_counted(s, &js);
    s->n->in_creation += !s->shards[0].asked;
    look(s, &js, &c, 0);
    if (rng_chance(&s->rng, 1, 2))
        state_goes_on(s, &js, &c);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
    if (again)
        state_again(s, disk2, rows2, n_ops, &c);
}

/* --- the script --- */

/* Changes with everything that was asked for or answered. */
static uint64_t stamp(const struct script *s)
{
    uint64_t hash = s->n_sent;

    for (unsigned i = 0; i < s->n_sent; i++)
        hash = mix(hash, is_acked(&s->sent[i]));
    for (unsigned i = 0; i < s->n_shards; i++) {
        const struct made *m = &s->shards[i];

        hash = mix(mix(hash, m->trim_asked), m->trimmed);
        hash = mix(hash, m->asked | m->answered << 1 | m->delete_asked << 2 | m->deleted << 3);
    }
    return hash;
}

/* Before each operation: all states that power could leave if it went now. */
static void before(void *ctx)
{
    struct script *s = ctx;
    const struct sim_disk_counts *n = &s->js.disk->counts;
    uint64_t disk = n->writes + n->syncs + s->js.disk->names->n_changes * UINT64_C(1000003);

    s->states.stamp = stamp(s);
    if (disk == s->disk_seen && sim_rows_serial(s->js.store) == s->rows_seen &&
        s->states.stamp == s->stamp_seen)
        return;
    s->disk_seen = disk;
    s->rows_seen = sim_rows_serial(s->js.store);
    s->stamp_seen = s->states.stamp;
    crash_states_try(&s->states);
}

static void watch(struct script *s)
{
    const struct store *st = s->js.st;

    if (s->ckpt_lsn && st->super.ckpt_lsn > s->ckpt_lsn)
        s->n->destages++;
    s->ckpt_lsn = st->super.ckpt_lsn;
    if (s->slabs && st->slabs.n > s->slabs)
        s->n->grown += st->slabs.n - s->slabs;
    s->slabs = st->slabs.n;
}

static void update_both(struct script *s, unsigned at, bool create)
{
    uint8_t key[2] = { 'T', (uint8_t)at };
    struct jrn_change c[2] = { { .op = create ? JRN_SHARD_CREATE : JRN_SHARD_DELETE,
                                 .shard = s->shards[at].id },
                               { .op = create ? JRN_ROW_PUT : JRN_ROW_DELETE,
                                 .key = key,
                                 .key_bytes = 2,
                                 .value = "x",
                                 .value_bytes = 1 } };

    if (call_update(&s->js, c, 2) < 0)
        fail(s, "an update fails");
}

static void shard_make(struct script *s)
{
    struct made *m = &s->shards[s->n_shards];

    *m = (struct made){ .id = 16 + s->n_shards, .asked = true };
    update_both(s, s->n_shards++, true);
    m->answered = true;
    m->handle = call_open(&s->js, m->id, NULL);
}

static struct made *some_shard(struct script *s)
{
    struct made *found = NULL;
    unsigned n = 0;

    for (unsigned i = 0; i < s->n_shards; i++)
        if (s->shards[i].handle && rng_below(&s->rng, ++n) == 0)
            found = &s->shards[i];
    return found;
}

/* A few batches at once, so that blocks hold several, for several groups' worth of pages. */
static void do_append(struct script *s)
{
    unsigned n = rng_chance(&s->rng, 1, 4) ? 3 : 1, first = s->n_sent;

    for (unsigned i = 0; i < n && s->n_sent < SENT_MAX; i++) {
        struct sent *x = &s->sent[s->n_sent];
        struct made *m = some_shard(s);

        x->n_records = 1 + (unsigned)rng_below(&s->rng, RECORDS_MAX);
        x->shard = (unsigned)(m - s->shards);
        x->batch = call_batch(s->n_sent++, x->n_records,
                              (unsigned)rng_below(&s->rng, rng_chance(&s->rng, 1, 3) ? 2000 : 100));
        call_append_begin(&s->js, m->handle, buf_ref(x->batch), &x->call);
    }
    for (unsigned i = first; i < s->n_sent; i++)
        if (call_append_end(&s->js, &s->sent[i].call) < 0)
            fail(s, "an append fails");
}

static void do_trim(struct script *s)
{
    struct made *m = some_shard(s);
    uint64_t start = shard_end(m->handle);

    start = rng_below(&s->rng, start + 1);
    if (start > m->trim_asked)
        m->trim_asked = start;
    if (call_trim(&s->js, m->handle, start) < 0)
        fail(s, "a trim fails");
    m->trimmed = m->trim_asked;
    s->n->trims++;
}

static void do_delete(struct script *s)
{
    struct made *m = some_shard(s);

    m->delete_asked = true;
    shard_unref(m->handle);
    m->handle = NULL;
    update_both(s, (unsigned)(m - s->shards), false);
    m->deleted = true;
    s->n->deletions++;
    shard_make(s);
}

static void handles_close(struct script *s)
{
    for (unsigned i = 0; i < s->n_shards; i++) {
        shard_unref(s->shards[i].handle);
        s->shards[i].handle = NULL;
    }
}

static void do_reopen(struct script *s)
{
    handles_close(s);
    jrn_sim_close(&s->js);
    s->n->closes++;
    state_open(s, &s->js);
    for (unsigned i = 0; i < s->n_shards; i++)
        if (!s->shards[i].deleted)
            s->shards[i].handle = call_open(&s->js, s->shards[i].id, NULL);
}

static void act(struct script *s)
{
    uint64_t what = rng_below(&s->rng, 32);

    if (what == 0)
        do_reopen(s);
    else if (what <= 2)
        do_trim(s);
    else if (what <= 4 && s->n_shards < SHARDS_MAX)
        do_delete(s);
    else if (what <= 7)
        call_wait_ms(&s->js, 1 + rng_below(&s->rng, 30));
    else
        do_append(s);
    watch(s);
}

static void script_init(struct script *s)
{
    struct journal_conf *c = &s->js.conf;

    jrn_sim_init(&s->js, s->seed, CAPACITY, 1);
    c->wal_extent = c->wal_budget = 65536;
    c->slab_first = 6 * 65536;
    if (s->seed % 3 == 0)
        c->direct_from = 1024;
    c->idle_close_ms = 1 + (uint32_t)rng_below(&s->rng, 10);
    c->delete_grace_ms = 1 + (uint32_t)rng_below(&s->rng, 20);
    s->states = (struct crash_states){ .disk = s->js.disk,
                                       .rows = s->js.store,
                                       .all_max = 64,
                                       .samples = 8,
                                       .torn = 4,
                                       .fn = on_state,
                                       .ctx = s };
    rng_seed(&s->states.rng, s->seed + 1);
    s->js.disk->before = before;
    s->js.disk->before_ctx = s;
}

static void run(uint64_t seed, uint32_t *counts, bool talk)
{
    struct script *s = calloc(1, sizeof *s);
    unsigned n;

    if (!s)
        _exit(1);
    s->seed = seed;
    s->n = (struct counts *)counts;
    rng_seed(&s->rng, seed * 0x9e3779b97f4a7c15);
    if (!talk)
        logger_to(-1);
    script_init(s);
    state_open(s, &s->js);
    for (n = 0; n < 2; n++)
        shard_make(s);
    for (n = 0; n < 100; n++)
        act(s);
    if (s->n->closes == 0)
        do_reopen(s);
    handles_close(s);
    jrn_sim_close(&s->js);
    s->n->closes++;
    before(s);
    s->n->moments = (uint32_t)s->states.moments;
    s->n->whole = (uint32_t)s->states.whole;
    s->n->states = (uint32_t)s->states.states;
    s->n->torn = (uint32_t)s->states.torn_states;
    s->n->repeats = (uint32_t)s->states.repeats;
    crash_states_fini(&s->states);
    jrn_sim_fini(&s->js);
    for (n = 0; n < s->n_sent; n++)
        buf_unref(s->sent[n].batch);
    if (buf_total_bytes() != 0)
        fail(s, "%" PRIu64 " bytes of buffers are left", buf_total_bytes());
    free(s);
}

static const struct seeds_row rows[] = {
#define X(name, text, median) { text, median },
    COUNTS(X)
#undef X
};

int main(int argc, char **argv)
{
    struct seeds s = { .env_seeds = "CRASH_SEEDS",
                       .env_first = "CRASH_FIRST",
                       .n = SEEDS,
                       .seconds = SEED_SECONDS,
                       .rows = rows,
                       .n_rows = sizeof rows / sizeof rows[0],
                       .run = run };

    return seeds_main(&s, argc, argv);
}
