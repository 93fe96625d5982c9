/* test-limit: 600
 *
 * Identities of the log's segments. One plan (appends one after another to shards of several groups,
 * trims and deletions at given places, where segments end) is carried out on many stores: other sizes of
 * WAL, extents and blocks, another lane for each batch, destage early or late, with and without rewriting, and
 * crashes, also within an append, which is then sent again. However that was, the store must have
 * the segments, and the identities, that follow from the plan alone: this file reckons them from
 * docs/format.md's words. Where shards are compacted, when and in how many rounds is another thing that
 * differs; once nothing is dirty and the time of all tombstones is over, the plan says what is left.
 *
 * An epoch is part of the log: it is stamped into batches. So a first run of a plan, with crashes at any moment,
 * notes in which epoch each append came to lie, and the other runs of the plan are granted the same. */
#include <stdlib.h>

#include "base/logger.h"
#include "format/batch_keep.h"
#include "journal/compact.h"
#include "journal/destage.h"
#include "journal/identity.h"
#include "journal/rewrite.h"
#include "journal/stats.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

enum {
    PLANS = 150,
    PLANS_COMPACTED = 100,
    RUNS = 6, /* of each plan */
    PLAIN = 7,
    SHARDS = 10, /* those from PLAIN on are compacted, in plans that have them */
    KEYS = 6,    /* that come again; other records have keys of their own, or none */
    KEY_NONE = -1,
    DELETE_RETENTION_MS = 2000, /* and twice that */
    CLEANINGS_MAX = 30,
    STEPS_MAX = 90,
    LIST_MAX = 400,
    SIM_STEPS = 2000000,
    EPOCHS_APART = 1000000
};

enum step_kind { STEP_APPEND, STEP_TRIM, STEP_DELETE };

struct step {
    enum step_kind kind;
    unsigned shard; /* its number less 16 */
    unsigned n_records, value_bytes;
    enum batch_codec codec; /* where it is compacted */
    uint64_t base;          /* of the append; to which it is trimmed */
    uint64_t epoch;
};

struct plan {
    struct step steps[STEPS_MAX];
    unsigned n;
    unsigned n_shards;
    unsigned n_loops;
    uint64_t segment_bytes;
    uint32_t segment_entries;
    /* as it ends */
    uint64_t start[SHARDS], end[SHARDS];
    bool deleted[SHARDS];
};

struct run {
    const struct plan *plan;
    struct step *record; /* the plan's steps, in the run that notes the epochs */
    struct jrn_sim js;
    struct rng rng;
    struct jrn_assigner assigner;
    uint64_t target, granted; /* what groups of data are granted; 0: this start's number */
    bool crashes;
    bool compacting; /* now; else it waits */
    bool is_short;   /* of space, it believes: the log's cuts do not matter then */
    struct shard *s[SHARDS];
    uint64_t group[SHARDS];
};

struct list {
    struct identity x[LIST_MAX];
    unsigned n;
};

/* What happened in all runs: a test of what never happens shows nothing. */
static struct {
    unsigned cuts, crashes, within, survived, in_recovery, rewrites, destages;
    uint64_t direct;
    unsigned compactions, untouched, less, gone, several;
    uint64_t dropped, refined; /* batches that lost all, or some */
} seen;

/* --- the plan --- */

static void step_draw(struct plan *p, struct rng *r, struct step *x)
{
    unsigned s = x->shard = (unsigned)rng_below(r, p->n_shards);

    while (p->deleted[x->shard])
        s = x->shard = (x->shard + 1) % p->n_shards;
    if (p->end[s] > p->start[s] && rng_chance(r, 1, 8)) {
        x->kind = STEP_TRIM;
        x->base = p->start[s] += 1 + rng_below(r, p->end[s] - p->start[s]);
    } else if (s > 0 && rng_chance(r, 1, 40)) {
        x->kind = STEP_DELETE;
        p->deleted[s] = true;
    } else {
        x->n_records = 1 + (unsigned)rng_below(r, 4);
        x->value_bytes = (unsigned)rng_below(r, rng_chance(r, 1, 3) ? 7000 : 300);
        if (s >= PLAIN)
            x->codec = (enum batch_codec)rng_below(r, CODEC_COUNT);
        x->base = p->end[s];
        p->end[s] += x->n_records;
    }
}

static void plan_draw(struct plan *p, uint64_t seed, unsigned n_shards)
{
    struct rng r;

    rng_seed(&r, seed);
    *p = (struct plan){ .n_loops = 1 + (unsigned)rng_below(&r, 3), .n_shards = n_shards };
    p->segment_bytes = 3000u << rng_below(&r, 7);
    p->segment_entries = rng_chance(&r, 1, 2) ? 1 + (uint32_t)rng_below(&r, 12) : 0;
    p->n = STEPS_MAX / 2 + (unsigned)rng_below(&r, STEPS_MAX / 2);
    for (unsigned i = 0; i < p->n; i++)
        step_draw(p, &r, &p->steps[i]);
}

/* What the record at an offset of a compacted shard is. */
struct keyed {
    int key;
    bool tombstone;
    int64_t later_ms;
};

static struct keyed keyed_at(unsigned shard, uint64_t offset)
{
    struct rng r;
    struct keyed k;

    rng_seed(&r, shard * UINT64_C(1000003) + offset);
    k.key = rng_chance(&r, 1, 8)   ? KEY_NONE
            : rng_chance(&r, 1, 2) ? (int)rng_below(&r, KEYS)
                                   : KEYS + (int)offset;
    k.tombstone = rng_chance(&r, 1, 5);
    k.later_ms = (int64_t)rng_below(&r, 50);
    return k;
}

static struct buf *keyed_batch(const struct step *x)
{
    static uint8_t value[8000];
    struct batch_builder b = { .has_producer = true,
                               .producer_id = x->shard,
                               .base_sequence = (int32_t)x->base };
    struct buf *out = NULL;

    for (unsigned i = 0; i < x->n_records; i++) {
        struct keyed k = keyed_at(x->shard, x->base + i);
        struct batch_new_record r = { .timestamp =
                                          SIM_WALL_START_MS + (int64_t)x->base + k.later_ms };

        if (k.key != KEY_NONE) {
            r.key = &k.key;
            r.key_bytes = sizeof k.key;
        }
        if (!k.tombstone) {
            r.value = value;
            r.value_bytes = x->value_bytes;
        }
        batch_builder_add(&b, &r);
    }
    REQUIRE(batch_builder_finish(&b, x->codec, &out) >= 0);
    batch_builder_free(&b);
    return out;
}

static struct buf *step_batch(const struct step *x)
{
    return x->shard >= PLAIN
               ? keyed_batch(x)
               : call_batch_of(x->shard, 0, (int32_t)x->base, x->n_records, x->value_bytes);
}

/* --- what follows from it --- */

/* A batch, and the segment it belongs to. */
struct placed {
    uint64_t group, first, shard, base, end, xxh3, bytes;
    bool ended;
    bool dropped; /* compaction leaves nothing of it */
};

/* Whether the record is what is left of its key in the end. */
struct lasting {
    const struct plan *plan;
    unsigned shard;
};

static bool record_lasts(void *ctx, const struct batch_record *rec)
{
    const struct lasting *l = ctx;
    uint64_t offset = (uint64_t)rec->offset;
    struct keyed k = keyed_at(l->shard, offset);

    if (k.key == KEY_NONE || k.tombstone)
        return false;
    while (++offset < l->plan->end[l->shard])
        if (keyed_at(l->shard, offset).key == k.key)
            return false;
    return true;
}

/* As one look at the batch with all that came behind it in mind leaves it. */
static void placed_compact(const struct plan *plan, const struct step *x, const struct buf *b,
                           struct placed *n)
{
    struct lasting l = { plan, x->shard };
    struct buf *rest;
    int rc = batch_keep(b->mem, b->len, 1 << 20, record_lasts, &l, &rest);

    REQUIRE(rc >= 0);
    n->dropped = rc == BATCH_KEPT_NONE;
    seen.dropped += n->dropped;
    if (rc != BATCH_KEPT_SOME)
        return;
    n->xxh3 = sum_xxh3(rest->mem, rest->len, 0);
    n->bytes = rest->len;
    seen.refined++;
    buf_unref(rest);
}

static int by_segment(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;

    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return x->base < y->base ? -1 : 1;
}

static unsigned batches_place(const struct run *r, bool compacted, struct placed *all)
{
    uint64_t entry[64] = { 0 }, first[64], bytes[64] = { 0 };
    unsigned n = 0;

    for (unsigned i = 0; i < 64; i++)
        first[i] = 1;
    for (unsigned i = 0; i < r->plan->n; i++) {
        const struct step *x = &r->plan->steps[i];
        uint64_t g = r->group[x->shard];
        struct buf *b;

        if (x->kind != STEP_APPEND)
            continue;
        b = step_batch(x);
        batch_stamp(b->mem, (int64_t)x->base, (int32_t)x->epoch);
        all[n++] = (struct placed){ .group = g,
                                    .first = first[g],
                                    .shard = 16 + x->shard,
                                    .base = x->base,
                                    .end = x->base + x->n_records,
                                    .xxh3 = sum_xxh3(b->mem, b->len, 0),
                                    .bytes = b->len };
        if (compacted && x->shard >= PLAIN)
            placed_compact(r->plan, x, b, &all[n - 1]);
        entry[g]++;
        bytes[g] += b->len;
        buf_unref(b);
        if (bytes[g] >= r->plan->segment_bytes ||
            (r->plan->segment_entries && entry[g] - first[g] + 1 >= r->plan->segment_entries)) {
            first[g] = entry[g] + 1;
            bytes[g] = 0;
            seen.cuts++;
        }
    }
    for (unsigned i = 0; i < n; i++)
        all[i].ended = all[i].first < first[all[i].group];
    return n;
}

/* Several segments that the store has as one are one. */
static void join(struct placed *all, unsigned n, const struct list *got)
{
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < got->n; k++) {
            const struct identity *x = &got->x[k];

            if (x->several && x->group == all[i].group && all[i].first >= x->first &&
                all[i].first <= x->last) {
                all[i].first = x->first;
                all[i].ended = x->ended;
                seen.several++;
            }
        }
}

/* The segments with something alive in them; where they became one, they are as in `got`. */
static void list_expected(const struct run *r, bool compacted, const struct list *got,
                          struct list *out)
{
    static struct placed all[STEPS_MAX];
    struct sum128_state *sum = NULL;
    unsigned n = batches_place(r, compacted, all);
    struct identity *x = NULL;

    out->n = 0;
    join(all, n, got);
    qsort(all, n, sizeof all[0], by_segment);
    for (unsigned i = 0; i < n; i++) {
        const struct placed *b = &all[i];
        uint64_t pair[2] = { htole64(b->shard), htole64(b->xxh3) };

        if (r->plan->deleted[b->shard - 16] || b->end <= r->plan->start[b->shard - 16] ||
            b->dropped)
            continue;
        if (!x || x->group != b->group || x->first != b->first) {
            if (x)
                x->sum = sum128_end(sum);
            x = &out->x[out->n++];
            *x = (struct identity){ .group = b->group, .first = b->first, .ended = b->ended };
            sum = sum128_new();
        }
        sum128_add(sum, pair, sizeof pair);
        x->n_batches++;
        x->bytes += b->bytes;
    }
    if (x)
        x->sum = sum128_end(sum);
}

static int take(void *ctx, const struct identity *x)
{
    struct list *l = ctx;

    /* The catalogue's records tell of the layout itself. */
    if (x->group != GROUP_CATALOGUE && x->n_batches > 0 && l->n < LIST_MAX)
        l->x[l->n++] = *x;
    return 0;
}

static void list_print(const char *what, const struct list *l)
{
    for (unsigned i = 0; i < l->n; i++) {
        const struct identity *x = &l->x[i];

        fprintf(stderr,
                "%s: group %" PRIu64 " segment %" PRIu64 "%s%s: %" PRIu64 " batches, %" PRIu64
                " bytes, %02x%02x\n",
                what, x->group, x->first, x->ended ? ", ended" : "", x->several ? ", several" : "",
                x->n_batches, x->bytes, x->sum.bytes[0], x->sum.bytes[1]);
    }
}

/* Gives what the store has. */
static const struct list *check_list(const struct run *r, bool compacted, const char *when)
{
    static struct list want, got;
    bool same;
    int rc;

    got.n = 0;
    rc = identity_each(r->js.st, UINT64_MAX, 0, true, take, &got);
    list_expected(r, compacted, &got, &want);
    same = rc >= 0 && want.n == got.n;
    for (unsigned i = 0; same && i < want.n; i++) {
        const struct identity *a = &want.x[i], *b = &got.x[i];

        same = a->group == b->group && a->first == b->first && a->ended == b->ended &&
               b->several <= r->is_short && a->n_batches == b->n_batches && a->bytes == b->bytes &&
               memcmp(&a->sum, &b->sum, sizeof a->sum) == 0;
    }
    if (!same) {
        fprintf(stderr, "run %" PRIu64 ", %s, %s\n", r->js.seed, when,
                rc < 0 ? err_name(rc) : "done");
        list_print("the plan", &want);
        list_print("the store", &got);
    }
    REQUIRE(same);
    return &got;
}

/* A segment that lost nothing is the one that it was. */
static void check_untouched(const struct list *before, const struct list *after)
{
    unsigned k = 0;

    for (unsigned i = 0; i < before->n; i++) {
        const struct identity *a = &before->x[i], *b = &after->x[k];

        if (k == after->n || a->group != b->group || a->first != b->first) {
            seen.gone++;
            continue;
        }
        k++;
        if (a->n_batches == b->n_batches && a->bytes == b->bytes) {
            CHECK(memcmp(&a->sum, &b->sum, sizeof a->sum) == 0);
            seen.untouched++;
        } else {
            CHECK(memcmp(&a->sum, &b->sum, sizeof a->sum) != 0);
            seen.less++;
        }
    }
    CHECK_EQ(k, after->n);
}

/* --- lives --- */

static uint64_t below(struct run *r, uint64_t n)
{
    return rng_below(&r->rng, n);
}

static uint64_t grant(struct jrn_assigner *a, uint64_t group, uint64_t start)
{
    struct run *r = (struct run *)((char *)a - offsetof(struct run, assigner));

    if (group == GROUP_CATALOGUE)
        return start;
    r->granted = r->target ? r->target : start;
    return r->granted;
}

/* What may be another in each life. */
static void conf_draw(struct run *r)
{
    static const uint32_t direct[] = { UINT32_MAX, 1, 400, 2000, 8000 };
    struct journal_conf *c = &r->js.conf;

    c->wal_budget = c->wal_extent * (1 + below(r, 4));
    c->block_max = 8192u << below(r, 3);
    c->direct_from = direct[below(r, 5)];
    c->idle_close_ms = 1 + (uint32_t)below(r, 20);
    c->delete_grace_ms = 1 + (uint32_t)below(r, 100);
    c->retention_check_ms = 5 + (uint32_t)below(r, 100);
    c->wal_age_ms = below(r, 2) ? 1 + (uint32_t)below(r, 300) : 1000000;
    c->rewrite_gain = below(r, 2) ? 1 : UINT64_MAX;
    c->unload_ms = 1 + (uint32_t)below(r, 100);
    c->space_urgent = r->is_short ? 5 : 0; /* percent */
    c->compact_check_ms = r->compacting ? 10 + (uint32_t)below(r, 200) : UINT32_MAX / 2;
}

static void handles_open(struct run *r)
{
    for (unsigned i = 0; i < r->plan->n_shards; i++) {
        r->s[i] = call_open(&r->js, 16 + i, NULL);
        if (r->s[i])
            r->group[i] = shard_group(r->s[i]);
    }
}

static void life_begin(struct run *r)
{
    conf_draw(r);
    for (;;) {
        struct err e = { 0 };
        int rc;

        if (r->crashes && r->js.lives > 0 && below(r, 3) == 0)
            sim_disk_power_off_after(r->js.disk, below(r, 100));
        rc = jrn_sim_open(&r->js, &e);
        if (rc >= 0)
            break;
        REQUIRE(r->js.disk->off); /* nothing else keeps it from opening */
        seen.in_recovery++;
        jrn_sim_crash(&r->js, below(r, 3) == 0);
    }
    r->js.disk->off_armed = false;
    handles_open(r);
}

static void life_end(struct run *r)
{
    for (unsigned i = 0; i < r->plan->n_shards; i++)
        shard_unref(r->s[i]);
    seen.compactions += (unsigned)metric_count(&r->js.st->stats->compact_rounds);
    seen.destages += (unsigned)metric_count(&r->js.st->stats->destage_rounds);
    seen.rewrites += (unsigned)metric_count(&r->js.st->stats->rewrites);
    seen.direct += atomic_load(&r->js.st->bytes.direct);
    switch (below(r, r->crashes ? 3 : 1)) {
    case 0:
        jrn_sim_close(&r->js);
        break;
    case 1:
        seen.crashes++;
        jrn_sim_crash(&r->js, below(r, 3) == 0);
        break;
    default:
        seen.crashes++;
        jrn_sim_kill(&r->js, below(r, 3) == 0);
    }
}

static void restart(struct run *r)
{
    life_end(r);
    life_begin(r);
}

/* --- carrying it out --- */

/* Sends the batch and lets the life end within it, some time. Gives whether it is in the log. */
static bool append_broken(struct run *r, const struct step *x)
{
    struct call_append a;

    call_append_begin(&r->js, r->s[x->shard], step_batch(x), &a);
    for (uint64_t n = below(r, 9); n > 0 && sim_step(r->js.sim); n--)
        ;
    seen.within++;
    restart(r);
    REQUIRE(a.done);
    if (a.d.rc >= 0)
        CHECK(shard_end(r->s[x->shard]) > x->base); /* what was acked is there */
    return shard_end(r->s[x->shard]) > x->base;
}

static void append(struct run *r, unsigned i)
{
    const struct step *x = &r->plan->steps[i];
    bool there = false;
    struct call_append a;

    if (!r->record && x->epoch != r->granted) {
        r->target = x->epoch;
        restart(r);
    }
    while (r->record && !there && below(r, 12) == 0) {
        r->record[i].epoch = r->granted;
        there = append_broken(r, x);
        seen.survived += there;
    }
    if (r->record && !there)
        r->record[i].epoch = r->granted;
    call_append_begin(&r->js, r->s[x->shard], step_batch(x), &a);
    REQUIRE(call_append_end(&r->js, &a) >= 0);
    CHECK_EQ(a.d.base_offset, x->base);
    CHECK_EQ(a.d.duplicate, there);
}

static void step_run(struct run *r, unsigned i)
{
    const struct step *x = &r->plan->steps[i];

    if (x->kind == STEP_APPEND) {
        append(r, i);
        return;
    }
    if (x->kind == STEP_TRIM) {
        CHECK_EQ(call_trim(&r->js, r->s[x->shard], x->base), 0);
    } else {
        shard_unref(r->s[x->shard]);
        r->s[x->shard] = NULL;
        CHECK_EQ(call_delete(&r->js, 16 + x->shard), 0);
    }
}

static bool is_at_rest(void *ctx)
{
    struct store *st = ((struct run *)ctx)->js.st;

    for (unsigned i = 1; i < st->n_groups; i++)
        if (st->groups[i]->destaged_entry != st->groups[i]->last_entry)
            return false;
    return destage_idle(st->destage) && rewrite_idle(st->rewrite) && compact_idle(st->compact);
}

/* Everything is destaged; rewriting goes on meanwhile, or not. */
static void settle(struct run *r, uint64_t rewrite_gain)
{
    life_end(r);
    conf_draw(r);
    r->target = r->target ? r->target + EPOCHS_APART : 0;
    r->js.conf.wal_age_ms = 1;
    r->js.conf.retention_check_ms = 10;
    r->js.conf.rewrite_gain = rewrite_gain;
    REQUIRE(jrn_sim_open(&r->js, NULL) >= 0);
    handles_open(r);
    REQUIRE(sim_run_until(r->js.sim, is_at_rest, r, SIM_STEPS));
    call_wait_ms(&r->js, 2000);
    REQUIRE(sim_run_until(r->js.sim, is_at_rest, r, SIM_STEPS));
}

static void compact_now(struct store *st, void *arg)
{
    compact_consider(st, true);
}

/* Nothing in the shard is dirty, and no tombstone waits; or nothing is there. */
static bool shard_is_clean(struct run *r, unsigned i)
{
    struct row_cleaned row = { 0 };
    uint8_t key[ROW_KEY_MAX], *mem;
    size_t bytes;
    int rc = rows_get(r->js.st->rows, key, row_key(key, ROW_CLEANED, 16 + i), &mem, &bytes);

    if (rc >= 0) {
        CHECK_EQ(row_cleaned_read(&row, mem, bytes), 0);
        free(mem);
    }
    return r->plan->deleted[i] || r->plan->start[i] == r->plan->end[i] ||
           (row.cleaned == r->plan->end[i] && row.tombstones == 0);
}

static bool is_clean(struct run *r)
{
    bool clean = true;

    for (unsigned i = PLAIN; i < r->plan->n_shards; i++)
        clean = shard_is_clean(r, i) && clean;
    return clean;
}

/* Compaction comes to rest, rewriting or not beside it. */
static void clean(struct run *r)
{
    unsigned n = 0;

    r->compacting = true;
    settle(r, below(r, 2) ? 1 : UINT64_MAX);
    while (!is_clean(r) && n++ < CLEANINGS_MAX) {
        store_on_keeper(r->js.st, compact_now, NULL);
        call_wait_ms(&r->js, below(r, 2 * DELETE_RETENTION_MS));
        if (below(r, 8) == 0)
            settle(r, below(r, 2) ? 1 : UINT64_MAX);
    }
    REQUIRE(is_clean(r));
    REQUIRE(sim_run_until(r->js.sim, is_at_rest, r, SIM_STEPS));
}

static void shards_create(struct run *r)
{
    /* Kept for ever, an hour, a day, a week ...: a group each. Nothing of it is ever that old. */
    static const int64_t hours[SHARDS] = { 0, 0, 1, 24, 24, 0, 100000 };

    for (unsigned i = 0; i < r->plan->n_shards; i++) {
        struct jrn_change c = { .op = JRN_SHARD_CREATE,
                                .shard = 16 + i,
                                .class = i == 5 ? SHARD_CLASS_INTERNAL : SHARD_CLASS_DATA };

        if (hours[i])
            c.policy = (struct shard_policy){ .flags = SHARD_EXPIRES,
                                              .retention_ms = hours[i] * 3600 * 1000 };
        if (i >= PLAIN)
            c.policy = (struct shard_policy){ .flags = SHARD_COMPACTED,
                                              .delete_retention_ms =
                                                  DELETE_RETENTION_MS * (int64_t)(i - PLAIN) };
        REQUIRE(call_update(&r->js, &c, 1) == 0);
    }
}

static void run_begin(struct run *r, struct plan *p, uint64_t seed, bool record, bool is_short)
{
    *r = (struct run){ .plan = p, .record = record ? p->steps : NULL, .is_short = is_short };
    rng_seed(&r->rng, seed);
    r->assigner.grant_epoch = grant;
    r->crashes = record || below(r, 2);
    r->compacting = p->n_shards > PLAIN && (is_short || below(r, 2));
    jrn_sim_init(&r->js, seed, 64 << 20, p->n_loops);
    r->js.assigner = &r->assigner;
    r->js.conf.wal_extent = 65536u << below(r, 3);
    r->js.conf.slab_first = 16 * r->js.conf.wal_extent;
    r->js.conf.slab_max = 2 * r->js.conf.slab_first;
    r->js.conf.space_max = is_short ? 16 << 20 : 0;
    r->js.conf.segment_bytes = p->segment_bytes;
    r->js.conf.segment_entries = p->segment_entries;
    if (!record)
        r->target = 1;
    life_begin(r);
    shards_create(r);
    handles_open(r);
}

/* All that it becomes. */
static void run_compacted(struct run *r)
{
    static struct list before;
    bool whole = !r->compacting;

    settle(r, below(r, 2) ? 1 : UINT64_MAX);
    if (whole)
        before = *check_list(r, false, "before compaction");
    clean(r);
    if (whole)
        check_untouched(&before, check_list(r, true, "after compaction"));
    check_list(r, true, "after compaction");
    settle(r, 1);
    check_list(r, true, "after compaction and rewriting");
}

static void run_plan(struct plan *p, uint64_t seed, bool record, bool is_short)
{
    static struct run r;

    run_begin(&r, p, seed, record, is_short);
    for (unsigned i = 0; i < p->n; i++) {
        step_run(&r, i);
        if (r.compacting && below(&r, 6) == 0)
            store_on_keeper(r.js.st, compact_now, NULL);
        if (record && below(&r, 25) == 0)
            restart(&r);
        if (below(&r, 4) == 0)
            call_wait_ms(&r.js, below(&r, 100));
    }
    if (p->n_shards > PLAIN) {
        run_compacted(&r);
    } else {
        settle(&r, UINT64_MAX);
        check_list(&r, false, "before rewriting");
        settle(&r, 1);
        check_list(&r, false, "after rewriting");
    }
    life_end(&r);
    jrn_sim_fini(&r.js);
}

static void test_identities_follow_from_the_log_alone_whatever_the_layout_and_whenever_it_crashed(
    void)
{
    static struct plan p;

    logger_to(-1);
    for (uint64_t n = 0; n < PLANS; n++) {
        plan_draw(&p, n + 1, PLAIN);
        for (uint64_t k = 0; k < RUNS; k++)
            run_plan(&p, 1000 * (n + 1) + k, k == 0, false);
    }
    printf("%u runs: %u segments ended, %u crashes, %u within an append (%u were there), %u within "
           "recovery, %u destages, %u rewrites, %" PRIu64 " KiB direct\n",
           PLANS * RUNS, seen.cuts, seen.crashes, seen.within, seen.survived, seen.in_recovery,
           seen.destages, seen.rewrites, seen.direct >> 10);
    CHECK(seen.cuts > 2000 && seen.crashes > 500 && seen.within > 100);
    CHECK(seen.survived > 20 && seen.survived < seen.within - 20);
    CHECK(seen.in_recovery > 50 && seen.destages > 1000 && seen.rewrites > 100);
    CHECK(seen.direct > 1 << 20);
}

static void test_identities_of_what_compaction_leaves_follow_from_the_log_too(void)
{
    static struct plan p;

    logger_to(-1);
    seen.crashes = seen.in_recovery = seen.rewrites = 0;
    for (uint64_t n = 0; n < PLANS_COMPACTED; n++) {
        plan_draw(&p, 501 + n, SHARDS);
        for (uint64_t k = 0; k < RUNS; k++)
            run_plan(&p, 1000 * (501 + n) + k, k == 0, false);
        run_plan(&p, 1000 * (501 + n) + RUNS, false, true);
    }
    printf("%u runs: %u rounds of compaction, %u crashes, %u within recovery, %u rewrites; %" PRIu64
           " batches left some records, %" PRIu64
           " none; %u segments lost nothing, %u some, %u all\n",
           PLANS_COMPACTED * (RUNS + 1), seen.compactions, seen.crashes, seen.in_recovery,
           seen.rewrites, seen.refined, seen.dropped, seen.untouched, seen.less, seen.gone);
    CHECK(seen.compactions > 1000 && seen.crashes > 300 && seen.rewrites > 100);
    CHECK(seen.in_recovery > 30 && seen.refined > 1000 && seen.dropped > 1000);
    CHECK(seen.untouched > 500 && seen.less > 500 && seen.gone > 50);
    CHECK(seen.several > 1000);
}

TEST_MAIN(T(identities_follow_from_the_log_alone_whatever_the_layout_and_whenever_it_crashed)
              T(identities_of_what_compaction_leaves_follow_from_the_log_too))
