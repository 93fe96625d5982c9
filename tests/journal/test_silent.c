/* test-limit: 600
 *
 * One silent fault of the device in each seed (disk_sim.h): a write that is acknowledged and never done, one that lands elsewhere, a read
 * that gives older bytes, flushes that do nothing. Whatever a reader is given is what was sent at that offset; what is not there any
 * more answers E_LOST or E_IO, or the store is refused with a sentence; other groups are served.
 *
 * What one copy cannot tell (docs/testing.md): a lost or lied-about tail is cut as if it were torn. So batches that were acked after the
 * fault was armed may be missing at the end of their shard after a crash, and are counted; those acked before it may not, whatever
 * happens. tests/sim/seeds.h says what may be asked of this program (SILENT_SEEDS, SILENT_FIRST). */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/store.h"
#include "tests/sim/jrn_calls.h"
#include "tests/sim/seeds.h"

#ifdef WEIR_SLOW_ASSERTS
enum { SEEDS = 200, SEED_SECONDS = 120 };
#else
enum { SEEDS = 10000, SEED_SECONDS = 60 };
#endif
enum { SHARDS = 4, SENT_MAX = 400, STEPS = 1000000 };

#define COUNTS(X)                                                                                  \
    X(lost, "writes lost")                                                                         \
    X(astray, "writes gone astray")                                                                \
    X(stale, "stale reads")                                                                        \
    X(lies, "flushes that lied")                                                                   \
    X(refused, "stores refused")                                                                   \
    X(answered, "batches answered lost")                                                           \
    X(read_only, "groups made read-only")                                                          \
    X(silent, "batches missing from a tail, unseen")                                               \
    X(unharmed, "seeds in which nothing was harmed")                                               \
    X(whole, "shards read whole beside harmed ones")                                               \
    X(reads, "batches read and compared")                                                          \
    X(direct, "lives with direct batches")                                                         \
    X(destages, "checkpoints")                                                                     \
    X(crashes, "power cuts")                                                                       \
    X(kills, "kills")                                                                              \
    X(closes, "closes")

struct counts {
#define X(name, text) uint32_t name;
    COUNTS(X)
#undef X
};

struct sent {
    struct call_append call;
    struct buf *batch;
    unsigned shard;
    uint64_t end;
    bool missing; /* found to be gone from the tail: its offset may be another's */
};

struct script {
    uint64_t seed;
    struct rng rng;
    struct counts *n;
    bool talk;
    struct jrn_sim js;
    enum sim_fault fault;
    struct shard *handles[SHARDS];
    struct sent sent[SENT_MAX];
    unsigned n_sent, armed_at;
    bool blind; /* recovery was given stale reads: the tail may be any */
    uint64_t ckpt_lsn;
};

enum ending { CRASH, KILL, CLOSE };

_Noreturn static void fail(const struct script *s, const char *fmt, ...)
{
    va_list ap;

    printf("seed %" PRIu64 ": ", s->seed);
    for (unsigned i = 0; i < s->js.disk->n_ledger && i < 3; i++) {
        const struct sim_silent *l = &s->js.disk->ledger[i];

        printf("[fault %d %s %" PRIu64 "+%" PRIu64 " to %" PRIu64 "] ", (int)l->fault, l->name,
               l->pos, l->bytes, l->to);
    }
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

static uint64_t below(struct script *s, uint64_t n)
{
    return rng_below(&s->rng, n);
}

static bool is_acked(const struct sent *x)
{
    return x->call.done && x->call.d.rc >= 0 && !x->missing;
}

/* --- reading --- */

struct answer {
    struct read_done d;
    bool done;
};

static void answered(struct read_done *d)
{
    ((struct answer *)d)->done = true;
}

static bool is_answered(void *ctx)
{
    return ((struct answer *)ctx)->done;
}

static bool same(const struct sent *x, const uint8_t *mem, uint32_t bytes)
{
    return x->batch->len == bytes && memcmp(x->batch->mem + 16, mem + 16, bytes - 16) == 0;
}

/* A batch that a reader was given: what was acked there, or something that was sent and has no answer. */
static void batch_compare(struct script *s, unsigned shard, const uint8_t *mem,
                          const struct batch_head *h)
{
    bool found = false;

    for (unsigned i = 0; i < s->n_sent; i++) {
        const struct sent *x = &s->sent[i];

        if (x->shard != shard)
            continue;
        if (is_acked(x) && x->call.d.base_offset == (uint64_t)h->base_offset &&
            !same(x, mem, h->bytes))
            fail(s, "shard %u: wrong bytes at %" PRId64, shard, h->base_offset);
        found = found || (same(x, mem, h->bytes) &&
                          (!is_acked(x) || x->call.d.base_offset == (uint64_t)h->base_offset));
    }
    if (!found)
        fail(s, "shard %u: bytes at %" PRId64 " that nobody sent", shard, h->base_offset);
    s->n->reads++;
}

/* One read; gives the offset after it, or `from` and what was answered. */
static uint64_t read_one(struct script *s, unsigned shard, uint64_t from, int *rc)
{
    struct answer a = { .d = { .fn = answered,
                               .loop = s->js.loops[0],
                               .from = from,
                               .max_bytes = 1 + (uint32_t)below(s, 20000),
                               .at_least_one = true } };
    uint64_t at = from;

    shard_read(s->handles[shard], &a.d);
    if (!sim_run_until(s->js.sim, is_answered, &a, STEPS))
        fail(s, "a read is never answered");
    *rc = a.d.rc;
    for (unsigned i = 0; a.d.rc >= 0 && i < a.d.n_slices; i++) {
        const uint8_t *mem = a.d.slices[i].mem;
        uint32_t left = a.d.slices[i].len;
        struct batch_head h;

        for (; left > 0; mem += h.bytes, left -= h.bytes) {
            if (batch_check(&h, mem, left) < 0)
                fail(s, "shard %u: not a batch behind %" PRIu64, shard, at);
            if (at == from ? (uint64_t)h.base_offset > at : (uint64_t)h.base_offset != at)
                fail(s, "shard %u: from %" PRIu64 " to %" PRId64 " without a word", shard, at,
                     h.base_offset);
            batch_compare(s, shard, mem, &h);
            at = (uint64_t)h.base_offset + (uint64_t)h.last_offset_delta + 1;
        }
    }
    read_done_release(&a.d);
    return at;
}

/* The batch that was acked at or behind offset. */
static struct sent *acked_from(struct script *s, unsigned shard, uint64_t offset)
{
    struct sent *found = NULL;

    for (unsigned i = 0; i < s->n_sent; i++) {
        struct sent *x = &s->sent[i];

        if (x->shard == shard && is_acked(x) && x->end > offset &&
            (!found || x->call.d.base_offset < found->call.d.base_offset))
            found = x;
    }
    return found;
}

static bool said_lost(int rc)
{
    return rc == E_LOST || rc == E_IO || rc == E_CORRUPT;
}

/* Reads all that was acked. It comes, or it is said to be lost, or it is missing from the tail: which only a crash may do, and only to
 * what was acked after the fault was armed. */
static unsigned shard_check(struct script *s, unsigned shard, enum ending how)
{
    uint64_t at = 0;
    unsigned harmed = 0;
    struct sent *x;

    while ((x = acked_from(s, shard, at)) != NULL) {
        int rc;
        uint64_t to = read_one(s, shard, at, &rc);

        if (to > at) {
            at = to;
            continue;
        }
        if (said_lost(rc)) {
            if (s->js.disk->n_ledger == 0)
                fail(s, "shard %u: %s at %" PRIu64 " without a fault", shard, err_name(rc), at);
            harmed++;
            s->n->answered++;
            /* Behind the end of a group that is read-only all is lost; a later start may know that the damage had been destaged, and then
             * only the tail is missing. */
            if (at >= shard_end(s->handles[shard]) && !(how == CLOSE && !s->blind) &&
                x >= &s->sent[s->armed_at])
                x->missing = true;
            at = x->call.d.base_offset > at ? x->call.d.base_offset : x->end;
            continue;
        }
        if (rc < 0 && rc != E_RANGE)
            fail(s, "shard %u: %s at %" PRIu64, shard, err_name(rc), at);
        if ((how == CLOSE && !s->blind) || s->js.disk->n_ledger == 0 || x < &s->sent[s->armed_at] ||
            at < shard_end(s->handles[shard]))
            fail(s,
                 "shard %u: batch %u, acked at %" PRIu64 ", is missing (%s at %" PRIu64
                 ", end %" PRIu64 ")",
                 shard, (unsigned)(x - s->sent), x->call.d.base_offset, err_name(rc), at,
                 shard_end(s->handles[shard]));
        x->missing = true;
        harmed++;
        s->n->silent++;
    }
    return harmed;
}

/* --- the script --- */

static void do_append(struct script *s)
{
    unsigned shard = (unsigned)below(s, SHARDS), records = 1 + (unsigned)below(s, 3);
    struct sent *x = &s->sent[s->n_sent];

    if (s->n_sent == SENT_MAX || !s->handles[shard])
        return;
    x->shard = shard;
    x->batch = call_batch(s->n_sent++, records, (unsigned)below(s, 4) ? 60 : 3000);
    call_append_begin(&s->js, s->handles[shard], buf_ref(x->batch), &x->call);
    if (call_append_end(&s->js, &x->call) < 0)
        return;
    x->end = x->call.d.base_offset + records;
    for (unsigned i = 0; i + 1 < s->n_sent; i++)
        if (s->sent[i].shard == shard && is_acked(&s->sent[i]) &&
            s->sent[i].end > x->call.d.base_offset)
            fail(s, "shard %u: offset %" PRIu64 " is given twice", shard, x->call.d.base_offset);
}

static void do_read(struct script *s)
{
    unsigned shard = (unsigned)below(s, SHARDS);
    int rc;

    if (!s->handles[shard])
        return;
    read_one(s, shard, below(s, shard_end(s->handles[shard]) + 1), &rc);
    if (rc < 0 && !said_lost(rc))
        fail(s, "shard %u: a read gives %s", shard, err_name(rc));
    if (rc < 0 && s->js.disk->n_ledger == 0)
        fail(s, "shard %u: %s without a fault", shard, err_name(rc));
}

static void act(struct script *s, unsigned n)
{
    while (n-- > 0) {
        uint64_t what = below(s, 16);

        if (what < 3)
            do_read(s);
        else if (what == 3)
            call_wait_ms(&s->js, 1 + below(s, 30));
        else
            do_append(s);
        s->n->destages += s->js.st->super.ckpt_lsn > s->ckpt_lsn;
        s->ckpt_lsn = s->js.st->super.ckpt_lsn;
    }
}

static void arm(struct script *s)
{
    static const unsigned within[] = { 16, 16, 6, 4 };
    struct sim_faults *f = &s->js.disk->faults;

    f->nth[s->fault] = 1 + (uint32_t)below(s, within[s->fault - SIM_FAULT_LOST]);
    if (s->fault == SIM_FAULT_LIE && below(s, 2))
        f->chance[SIM_FAULT_LIE] = 65536; /* from now on, all of them */
}

static void handles_close(struct script *s)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        shard_unref(s->handles[i]);
        s->handles[i] = NULL;
    }
}

static void end(struct script *s, enum ending how)
{
    handles_close(s);
    s->n->direct += atomic_load(&s->js.st->bytes.direct) > 0;
    if (how == CLOSE) {
        s->n->closes++;
        jrn_sim_close(&s->js);
    } else if (how == KILL) {
        s->n->kills++;
        jrn_sim_kill(&s->js, false);
    } else {
        s->n->crashes++;
        jrn_sim_crash(&s->js, false);
    }
    s->js.disk->faults = (struct sim_faults){ 0 };
}

/* False: refused, with a sentence. */
static bool start(struct script *s)
{
    struct err e = { 0 };
    int rc = jrn_sim_open(&s->js, &e);

    if (rc >= 0) {
        for (unsigned i = 0; i < SHARDS; i++)
            s->handles[i] = call_open(&s->js, 16 + i, NULL);
        s->ckpt_lsn = s->js.st->super.ckpt_lsn;
        return true;
    }
    if (s->js.disk->n_ledger == 0 || !*e.text)
        fail(s, "does not open: %s (%s)", e.text, err_name(rc));
    if (s->talk)
        fprintf(stderr, "refused: %s (%s)\n", e.text, err_name(rc));
    s->n->refused++;
    return false;
}

static unsigned check(struct script *s, enum ending how)
{
    unsigned harmed[SHARDS], all = 0;

    for (unsigned i = 0; i < SHARDS; i++) {
        if (!s->handles[i] && s->js.disk->n_ledger == 0)
            fail(s, "shard %u is gone", i);
        /* A catalogue with a hole may not know it: that is said when the store is opened, by a group that is read-only. */
        if (!s->handles[i] && !s->blind && !atomic_load(&s->js.st->groups[0]->read_only))
            fail(s, "shard %u is gone without a word", i);
        all += harmed[i] = s->handles[i] ? shard_check(s, i, how) : 1;
    }
    for (unsigned i = 0; i < s->js.st->n_groups; i++)
        s->n->read_only += atomic_load(&s->js.st->groups[i]->read_only);
    for (unsigned i = 0; i < SHARDS; i++)
        s->n->whole += all > 0 && harmed[i] == 0;
    return all;
}

static void ledger_count(struct script *s)
{
    const uint64_t *n = s->js.disk->counts.faults;

    s->n->lost = (uint32_t)n[SIM_FAULT_LOST];
    s->n->astray = (uint32_t)n[SIM_FAULT_ASTRAY];
    s->n->stale = (uint32_t)n[SIM_FAULT_STALE];
    s->n->lies = (uint32_t)n[SIM_FAULT_LIE];
}

static void play(struct script *s)
{
    unsigned harmed = 0;
    enum ending how = (enum ending)below(s, 3);

    if (!start(s))
        return;
    for (unsigned i = 0; i < SHARDS; i++) {
        if (call_create(&s->js, 16 + i, SHARD_CLASS_DATA) < 0)
            fail(s, "no shard");
        s->handles[i] = call_open(&s->js, 16 + i, NULL);
    }
    act(s, (unsigned)below(s, 90));
    s->armed_at = s->n_sent;
    arm(s);
    act(s, 5 + (unsigned)below(s, 60));
    end(s, how);
    if (s->fault == SIM_FAULT_STALE && below(s, 2)) /* while it recovers */
        s->js.disk->faults.nth[SIM_FAULT_STALE] = 1 + (uint32_t)below(s, 40);
    for (unsigned life = 0; life < 3; life++) {
        unsigned before = s->js.disk->n_ledger;

        if (!start(s))
            return;
        s->js.disk->faults = (struct sim_faults){ 0 };
        s->blind = s->blind || s->js.disk->n_ledger > before;
        if (s->blind)
            s->armed_at = 0;
        harmed += check(s, how);
        act(s, 40); /* what was hit is destaged, rewritten, passed by checkpoints */
        harmed += check(s, how);
        how = (enum ending)below(s, 3);
        end(s, how);
        s->armed_at = s->n_sent; /* no fault any more: nothing acked from here on is missing */
    }
    s->n->unharmed += harmed == 0 && s->js.disk->n_ledger > 0;
}

static void run(uint64_t seed, uint32_t *counts, bool talk)
{
    struct script *s = calloc(1, sizeof *s);
    struct journal_conf *c;

    if (!s)
        _exit(1);
    s->seed = seed;
    s->n = (struct counts *)counts;
    s->talk = talk;
    rng_seed(&s->rng, seed * 0x9e3779b97f4a7c15);
    if (!talk)
        logger_to(-1);
    jrn_sim_init(&s->js, seed, 16 << 20, 2);
    c = &s->js.conf;
    c->wal_extent = 65536;
    c->wal_budget = 65536 * (1 + below(s, 2));
    c->cache_bytes = 4096;
    c->delete_grace_ms = 1;
    c->direct_from = below(s, 2) ? 2000 : UINT32_MAX;
    s->fault = SIM_FAULT_LOST + (enum sim_fault)below(s, 4);
    play(s);
    ledger_count(s);
    jrn_sim_fini(&s->js);
    for (unsigned i = 0; i < s->n_sent; i++)
        buf_unref(s->sent[i].batch);
    if (buf_total_bytes() != 0) {
        printf("seed %" PRIu64 ": buffers are left\n", seed);
        exit(1);
    }
    free(s);
}

static const struct seeds_row rows[] = {
#define X(name, text) { text, 0 },
    COUNTS(X)
#undef X
};

int main(int argc, char **argv)
{
    struct seeds s = { .env_seeds = "SILENT_SEEDS",
                       .env_first = "SILENT_FIRST",
                       .n = SEEDS,
                       .seconds = SEED_SECONDS,
                       .rows = rows,
                       .n_rows = sizeof rows / sizeof rows[0],
                       .run = run };

    return seeds_main(&s, argc, argv);
}
