/* Committed offsets over a journal of one shard that lives in this file: its log can be cut at any
 * batch, and its appends fail. */
#include "gateways/kafka/offsets.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/logger.h"
#include "base/rng.h"
#include "format/batch.h"
#include "journal/journal.h"
#include "tests/check.h"
#include "tests/sim/loop_sim.h"

enum { LOG_MAX = 20000, KEYS = 40, TEXT = 64 };

/* ---- the journal ---- */

struct shard {
    struct sim *sim;
    struct buf *batches[LOG_MAX];
    uint64_t base[LOG_MAX];
    unsigned n;
    uint64_t start, end;
    unsigned appends, trims;
    int fail; /* what appends answer; 0: they work */
    int trim_fails;
    uint64_t delay_us; /* of an append */
    struct append_done *flying;
    struct task task;
    int read_fails;
};

static struct append_done *late; /* one append at a time is what is under test */

uint64_t shard_start(const struct shard *s)
{
    return s->start;
}

uint64_t shard_end(const struct shard *s)
{
    return s->end;
}

static void append_run(struct task *t)
{
    struct append_done *d = (struct append_done *)t;

    d->fn(d);
}

static void append_late(void *ctx)
{
    struct append_done *d = late;

    late = NULL;
    d->task.run = append_run;
    loop_post(d->loop, &d->task);
}

void shard_append(struct shard *s, struct buf *batch, uint32_t at, uint32_t bytes, enum ack ack,
                  struct append_done *d)
{
    struct batch_head h;

    CHECK_EQ(ack, ACK_QUORUM_DURABLE);
    CHECK_EQ(batch_validate(&h, batch->mem + at, bytes), 0);
    CHECK(bytes < 1200 << 10);
    REQUIRE(s->n < LOG_MAX && !late);
    s->appends++;
    d->rc = s->fail;
    if (!s->fail) {
        s->batches[s->n] = buf_copy(batch->mem + at, bytes);
        s->base[s->n] = d->base_offset = s->end;
        batch_stamp(s->batches[s->n]->mem, (int64_t)s->end, 1);
        s->end += (uint64_t)h.record_count;
        s->n++;
    }
    late = d;
    sim_at(s->sim, s->delay_us, append_late, NULL);
}

static void read_run(struct task *t)
{
    struct read_done *d = (struct read_done *)t;

    d->fn(d);
}

/* Two batches a read, so that a load takes many steps. */
void shard_read(struct shard *s, struct read_done *d)
{
    d->rc = s->read_fails;
    d->n_slices = 0;
    d->bytes = 0;
    d->slices = mem_new(2 * sizeof *d->slices);
    d->start = s->start;
    d->end = s->end;
    CHECK(d->from >= s->start && d->from <= s->end);
    for (unsigned i = 0; !d->rc && i < s->n && d->n_slices < 2; i++) {
        uint64_t next = i + 1 < s->n ? s->base[i + 1] : s->end;

        if (next > d->from && s->base[i] < s->end)
            d->slices[d->n_slices++] =
                (struct slice){ buf_ref(s->batches[i]), s->batches[i]->mem, s->batches[i]->len };
    }
    d->task.run = read_run;
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

static void trim_run(struct task *t)
{
    struct shard_trim *d = (struct shard_trim *)t;

    d->fn(d);
}

void shard_trim(struct shard *s, struct shard_trim *t)
{
    s->trims++;
    t->rc = s->trim_fails;
    if (!t->rc && t->start > s->start)
        s->start = t->start;
    t->task.run = trim_run;
    loop_post(t->loop, &t->task);
}

/* A journal that holds only the first n batches of another. */
static struct shard shard_prefix(const struct shard *of, unsigned n, struct sim *sim)
{
    struct shard s = { .sim = sim, .n = n, .start = of->start };

    for (unsigned i = 0; i < n; i++) {
        s.batches[i] = buf_ref(of->batches[i]);
        s.base[i] = of->base[i];
    }
    s.end = n < of->n ? of->base[n] : of->end;
    return s;
}

static void shard_end_of(struct shard *s)
{
    for (unsigned i = 0; i < s->n; i++)
        buf_unref(s->batches[i]);
}

/* ---- the world ---- */

struct world {
    struct sim *sim;
    struct loop *home, *other;
    struct shard *shard;
    struct offsets *offsets;
    struct offsets_conf conf;
    struct pool *pool;
    bool used; /* what in_use says */
    struct offsets_load load;
    bool loaded, closed;
};

static struct world *loading;

static void on_load(struct offsets_load *l)
{
    loading->loaded = true;
}

static bool in_use(void *ctx, struct group_bytes group)
{
    return ((struct world *)ctx)->used;
}

static void open_on(struct world *w, struct shard *s)
{
    w->shard = s;
    w->loaded = false;
    w->load = (struct offsets_load){ .fn = on_load };
    w->offsets = offsets_new(
        &(struct offsets_env){
            .home = w->home, .shard = s, .in_use = in_use, .ctx = w, .pool = w->pool },
        &w->conf);
    loading = w;
    offsets_load(w->offsets, &w->load);
    CHECK(!w->loaded);
    while (!w->loaded)
        REQUIRE(sim_step(w->sim));
}

static void world_init(struct world *w, const struct offsets_conf *conf)
{
    logger_to(-1);
    *w = (struct world){ .sim = sim_new(3), .conf = *conf };
    w->home = sim_loop(w->sim, 0);
    w->other = sim_loop(w->sim, 1);
    w->shard = mem_new(sizeof *w->shard);
    w->shard->sim = w->sim;
    open_on(w, w->shard);
    REQUIRE(w->load.rc == 0);
}

static void on_close(struct offsets_close *c)
{
    loading->closed = true;
}

static void close_it(struct world *w)
{
    struct offsets_close c = { .fn = on_close, .loop = w->other };

    loading = w;
    w->closed = false;
    offsets_close(w->offsets, &c);
    CHECK(!w->closed);
    while (!w->closed)
        REQUIRE(sim_step(w->sim));
    offsets_free(w->offsets);
}

static void world_fini(struct world *w)
{
    close_it(w);
    shard_end_of(w->shard);
    free(w->shard);
    sim_free(w->sim);
}

static void run(struct world *w)
{
    REQUIRE(sim_run_for(w->sim, 100000, 1000000));
}

/* ---- changes ---- */

struct change {
    struct offsets_commit c;
    struct offset_entry entries[8];
    char topics[8][TEXT], metadata[8][TEXT];
    bool done;
};

static void on_change(struct offsets_commit *c)
{
    ((struct change *)c)->done = true;
}

static struct change change(struct world *w, const char *group)
{
    return (
        struct change){ .c = { .fn = on_change, .loop = w->other, .group = group_text(group) } };
}

static void add(struct change *c, const char *topic, int32_t partition, int64_t offset,
                const char *metadata)
{
    c->entries[c->c.n++] = (struct offset_entry){ .topic = group_text(topic),
                                                  .partition = partition,
                                                  .topic_id = { 1, 2, 3 },
                                                  .offset = offset,
                                                  .leader_epoch = 4,
                                                  .metadata = group_text(metadata) };
    c->c.entries = c->entries;
}

static int commit_now(struct world *w, const char *group, const char *topic, int32_t partition,
                      int64_t offset)
{
    struct change c = change(w, group);

    add(&c, topic, partition, offset, "m");
    offsets_commit(w->offsets, &c.c);
    CHECK(!c.done);
    while (!c.done)
        REQUIRE(sim_step(w->sim));
    return c.c.rc;
}

static int64_t committed(struct world *w, const char *group, const char *topic, int32_t partition)
{
    struct offset_row r;

    return offsets_find(w->offsets, group_text(group), group_text(topic), partition, &r) ? r.offset
                                                                                         : -1;
}

static void reopen(struct world *w)
{
    close_it(w);
    open_on(w, w->shard);
}

static void test_a_commit_is_found_when_answered_and_after_a_restart(void)
{
    struct world w;
    struct change c;
    struct offset_row r;
    int64_t at;

    world_init(&w, &(struct offsets_conf){ 0 });
    at = loop_wall_ms(w.home);
    c = change(&w, "g");
    add(&c, "t", 3, 12345678901, "some text");
    add(&c, "t", 4, 0, NULL);
    offsets_commit(w.offsets, &c.c);
    CHECK_EQ(committed(&w, "g", "t", 3), -1); /* not before it is durable */
    run(&w);
    REQUIRE(c.done && c.c.rc == 0);
    for (int again = 0; again < 2; again++) {
        REQUIRE(offsets_find(w.offsets, group_text("g"), group_text("t"), 3, &r));
        CHECK_EQ(r.offset, 12345678901);
        CHECK_EQ(r.leader_epoch, 4);
        CHECK_EQ(r.commit_time, at);
        CHECK(group_bytes_equal(r.metadata, group_text("some text")));
        CHECK(r.topic_id[0] == 1 && r.topic_id[2] == 3 && r.topic_id[15] == 0);
        REQUIRE(offsets_find(w.offsets, group_text("g"), group_text("t"), 4, &r));
        CHECK_EQ(r.metadata.bytes, -1);
        CHECK_EQ(committed(&w, "g", "t", 5), -1);
        CHECK_EQ(committed(&w, "h", "t", 3), -1);
        CHECK(offsets_has_group(w.offsets, group_text("g")));
        CHECK(!offsets_has_group(w.offsets, group_text("h")));
        if (!again)
            reopen(&w);
    }
    world_fini(&w);
}

/* Byte for byte what the head of offsets.c says. */
static void test_records_are_what_the_format_says(void)
{
    static const uint8_t key[] = { 1, 1, 1, 0, 'g', 2, 0, 't', 't', 7, 0, 0, 0 };
    static const uint8_t value[] = { 1, 0xe8, 3, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, /* 1000, epoch 4 */
                                     0, 0,    0, 0, 0, 0, 0, 0,                /* the time */
                                     1, 2,    3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 'm' };
    struct world w;
    struct batch_iter it;
    struct batch_record r;
    struct change c;

    world_init(&w, &(struct offsets_conf){ 0 });
    CHECK_EQ(commit_now(&w, "g", "tt", 7, 1000), 0);
    REQUIRE(batch_iter_open(&it, w.shard->batches[0]->mem, w.shard->batches[0]->len, 1 << 20) == 0);
    REQUIRE(batch_iter_next(&it, &r) == 1);
    CHECK(r.key_bytes == sizeof key && !memcmp(r.key, key, sizeof key));
    REQUIRE(r.value_bytes == sizeof value);
    CHECK(!memcmp(r.value, value, 13) && !memcmp(r.value + 21, value + 21, sizeof value - 21));
    CHECK_EQ(r.value[13] | r.value[14] << 8 | r.value[15] << 16,
             (r.timestamp & 0xffffff)); /* the time, taken in the same turn */
    batch_iter_close(&it);
    c = change(&w, "g");
    add(&c, "tt", 7, 0, NULL);
    offsets_remove(w.offsets, &c.c);
    run(&w);
    REQUIRE(batch_iter_open(&it, w.shard->batches[1]->mem, w.shard->batches[1]->len, 1 << 20) == 0);
    REQUIRE(batch_iter_next(&it, &r) == 1);
    CHECK(r.key_bytes == sizeof key && !memcmp(r.key, key, sizeof key));
    CHECK_EQ(r.value_bytes, -1);
    batch_iter_close(&it);
    CHECK_EQ(committed(&w, "g", "tt", 7), -1);
    CHECK(!offsets_has_group(w.offsets, group_text("g")));
    world_fini(&w);
}

static void test_commits_of_one_turn_share_an_append(void)
{
    struct world w;
    struct change c[10];

    world_init(&w, &(struct offsets_conf){ 0 });
    for (int i = 0; i < 10; i++) {
        c[i] = change(&w, i % 2 ? "g" : "h");
        add(&c[i], "t", i, i * 10, "");
        offsets_commit(w.offsets, &c[i].c);
    }
    run(&w);
    CHECK_EQ(w.shard->appends, 1);
    CHECK_EQ(w.shard->end, 10);
    for (int i = 0; i < 10; i++)
        CHECK(c[i].done && committed(&w, i % 2 ? "g" : "h", "t", i) == i * 10);
    world_fini(&w);
}

static void test_commits_that_come_during_an_append_share_the_next(void)
{
    struct world w;
    struct change c[20];

    world_init(&w, &(struct offsets_conf){ 0 });
    w.shard->delay_us = 5000;
    for (int i = 0; i < 20; i++) {
        c[i] = change(&w, "g");
        add(&c[i], "t", 0, i, "");
        offsets_commit(w.offsets, &c[i].c);
        REQUIRE(sim_run_for(w.sim, 100, 1000));
    }
    run(&w);
    CHECK_EQ(w.shard->appends, 2);
    CHECK_EQ(committed(&w, "g", "t", 0), 19); /* in order */
    world_fini(&w);
}

static void test_a_failed_append_changes_nothing(void)
{
    struct world w;

    world_init(&w, &(struct offsets_conf){ 0 });
    CHECK_EQ(commit_now(&w, "g", "t", 0, 5), 0);
    w.shard->fail = E_NOSPACE;
    CHECK_EQ(commit_now(&w, "g", "t", 0, 6), E_NOSPACE);
    CHECK_EQ(commit_now(&w, "g", "t", 1, 6), E_NOSPACE);
    CHECK_EQ(committed(&w, "g", "t", 0), 5);
    CHECK_EQ(committed(&w, "g", "t", 1), -1);
    w.shard->fail = 0;
    CHECK_EQ(commit_now(&w, "g", "t", 0, 7), 0);
    CHECK_EQ(committed(&w, "g", "t", 0), 7);
    world_fini(&w);
}

static void test_too_large_a_commit_is_refused(void)
{
    static char big[OFFSETS_METADATA_MAX + 1];
    struct offset_entry many[300];
    struct world w;
    struct change c;

    world_init(&w, &(struct offsets_conf){ .rows_max = 400 });
    c = change(&w, "g");
    add(&c, "t", 0, 1, "");
    c.entries[0].metadata = (struct group_bytes){ big, sizeof big };
    offsets_commit(w.offsets, &c.c);
    run(&w);
    CHECK_EQ(c.c.rc, E_TOOBIG);
    c.entries[0].metadata.bytes--;
    c.done = false;
    offsets_commit(w.offsets, &c.c);
    run(&w);
    CHECK_EQ(c.c.rc, 0);
    for (int i = 0; i < 300; i++) {
        many[i] = c.entries[0];
        many[i].partition = i;
    }
    c.c.entries = many;
    c.c.n = 300;
    offsets_commit(w.offsets, &c.c);
    run(&w);
    CHECK_EQ(c.c.rc, E_TOOBIG); /* 300 times 4 KiB */
    for (int i = 0; i < 300; i++)
        many[i].metadata.bytes = 0;
    offsets_commit(w.offsets, &c.c);
    run(&w);
    CHECK_EQ(c.c.rc, 0);
    for (int i = 0; i < 300; i++)
        many[i].partition += 300;
    offsets_commit(w.offsets, &c.c);
    run(&w);
    CHECK_EQ(c.c.rc, E_NOSPACE); /* too many rows */
    CHECK_EQ(offsets_stats(w.offsets).rows, 300);
    world_fini(&w);
}

/* ---- deletions ---- */

static void count_row(void *ctx, const struct offset_row *r)
{
    ++*(unsigned *)ctx;
}

static void count_group(void *ctx, struct group_bytes group)
{
    ++*(unsigned *)ctx;
}

static void test_a_group_is_removed_whole_in_several_batches(void)
{
    static struct offset_entry many[5000];
    static char topic[200];
    struct world w;
    struct change c;
    unsigned rows = 0, groups = 0;

    world_init(&w, &(struct offsets_conf){ 0 });
    memset(topic, 't', sizeof topic);
    for (int i = 0; i < 5000; i++)
        many[i] = (struct offset_entry){
            .topic = { topic, 50 + i % 100 }, .partition = i, .offset = i, .metadata = GROUP_NULL
        };
    for (int i = 0; i < 2; i++) {
        c = change(&w, i ? "keep" : "gone");
        c.c.entries = many;
        c.c.n = 5000;
        offsets_commit(w.offsets, &c.c);
        run(&w);
        REQUIRE(c.done && c.c.rc == 0);
    }
    c = change(&w, "gone");
    w.shard->appends = 0;
    offsets_remove_group(w.offsets, &c.c);
    run(&w);
    CHECK(c.done && c.c.rc == 0);
    CHECK(w.shard->appends > 1);
    for (int again = 0; again < 2; again++) {
        rows = groups = 0;
        offsets_each(w.offsets, group_text("gone"), count_row, &rows);
        CHECK_EQ(rows, 0);
        offsets_each(w.offsets, group_text("keep"), count_row, &rows);
        CHECK_EQ(rows, 5000);
        offsets_each_group(w.offsets, count_group, &groups);
        CHECK_EQ(groups, 1);
        reopen(&w);
    }
    c = change(&w, "gone");
    w.shard->appends = 0;
    offsets_remove_group(w.offsets, &c.c); /* nothing to do is no append */
    run(&w);
    CHECK(c.done && c.c.rc == 0 && w.shard->appends == 0);
    world_fini(&w);
}

static void test_a_removal_sees_commits_made_before_it(void)
{
    struct world w;
    struct change a, b, c;

    world_init(&w, &(struct offsets_conf){ 0 });
    a = change(&w, "g");
    add(&a, "t", 0, 1, "");
    b = change(&w, "g");
    c = change(&w, "g");
    add(&c, "t", 1, 2, "");
    offsets_commit(w.offsets, &a.c);
    offsets_remove_group(w.offsets, &b.c);
    offsets_commit(w.offsets, &c.c);
    run(&w);
    CHECK(a.done && b.done && c.done);
    CHECK_EQ(committed(&w, "g", "t", 0), -1);
    CHECK_EQ(committed(&w, "g", "t", 1), 2);
    reopen(&w);
    CHECK_EQ(committed(&w, "g", "t", 0), -1);
    CHECK_EQ(committed(&w, "g", "t", 1), 2);
    world_fini(&w);
}

static void test_a_deleted_topic_loses_its_offsets_in_all_groups(void)
{
    struct world w;

    world_init(&w, &(struct offsets_conf){ 0 });
    commit_now(&w, "g", "t", 0, 1);
    commit_now(&w, "g", "u", 0, 2);
    commit_now(&w, "h", "t", 9, 3);
    offsets_topic_deleted(w.offsets, group_text("t"));
    run(&w);
    for (int again = 0; again < 2; again++) {
        CHECK_EQ(committed(&w, "g", "t", 0), -1);
        CHECK_EQ(committed(&w, "h", "t", 9), -1);
        CHECK_EQ(committed(&w, "g", "u", 0), 2);
        CHECK(!offsets_has_group(w.offsets, group_text("h")));
        reopen(&w);
    }
    world_fini(&w);
}

static void test_offsets_expire_when_their_group_is_long_empty(void)
{
    struct world w;

    world_init(&w, &(struct offsets_conf){ .retention_ms = 3600000, .expire_every_ms = 60000 });
    commit_now(&w, "g", "t", 0, 1);
    w.used = true;
    REQUIRE(sim_run_for(w.sim, 3 * 3600000000ull, 1000000)); /* 3 h with members */
    CHECK_EQ(committed(&w, "g", "t", 0), 1);
    w.used = false;
    REQUIRE(sim_run_for(w.sim, 50 * 60000000ull, 1000000)); /* 50 min without */
    CHECK_EQ(committed(&w, "g", "t", 0), 1);
    commit_now(&w, "g", "t", 1, 2); /* a newer row lives longer */
    REQUIRE(sim_run_for(w.sim, 15 * 60000000ull, 1000000));
    CHECK_EQ(committed(&w, "g", "t", 0), -1);
    CHECK_EQ(committed(&w, "g", "t", 1), 2);
    CHECK_EQ(offsets_stats(w.offsets).expired, 1);
    reopen(&w);
    CHECK_EQ(committed(&w, "g", "t", 0), -1); /* durably */
    CHECK_EQ(committed(&w, "g", "t", 1), 2);
    world_fini(&w);
}

/* ---- producer ids ---- */

struct ids {
    struct producer_id_done d;
    bool done;
};

static void on_id(struct producer_id_done *d)
{
    ((struct ids *)d)->done = true;
}

static int64_t next_id(struct world *w)
{
    struct ids i = { .d = { .fn = on_id, .loop = w->other } };

    producer_ids_next(w->offsets, &i.d);
    CHECK(!i.done);
    while (!i.done)
        REQUIRE(sim_step(w->sim));
    return i.d.rc ? i.d.rc : i.d.id;
}

static void test_producer_ids_are_reserved_in_blocks_and_never_given_twice(void)
{
    struct world w;
    int64_t last = -1;
    struct ids many[2500];

    world_init(&w, &(struct offsets_conf){ 0 });
    for (int i = 0; i < 5; i++) {
        int64_t a = next_id(&w), b = next_id(&w);

        CHECK(a > last && b == a + 1);
        last = b;
        reopen(&w);
    }
    w.shard->appends = 0;
    memset(many, 0, sizeof many);
    for (int i = 0; i < 2500; i++) {
        many[i].d.fn = on_id;
        many[i].d.loop = w.other;
        producer_ids_next(w.offsets, &many[i].d);
    }
    run(&w);
    for (int i = 0; i < 2500; i++) {
        CHECK(many[i].done && !many[i].d.rc && many[i].d.id > last);
        last = many[i].d.id;
    }
    CHECK_EQ(w.shard->appends, 3);
    world_fini(&w);
}

static void test_no_producer_id_is_given_when_its_block_is_not_durable(void)
{
    struct world w;
    int64_t first;

    world_init(&w, &(struct offsets_conf){ 0 });
    w.shard->fail = E_DEVICE;
    CHECK_EQ(next_id(&w), E_DEVICE);
    CHECK_EQ(next_id(&w), E_DEVICE); /* the first failure reserved nothing */
    w.shard->fail = 0;
    first = next_id(&w);
    CHECK(first >= 0);
    w.shard->fail = E_DEVICE;
    CHECK_EQ(next_id(&w), first + 1); /* from the block at hand */
    for (int i = 0; i < 998; i++)
        next_id(&w);
    CHECK_EQ(next_id(&w), E_DEVICE);
    world_fini(&w);
}

/* ---- snapshots, restarts ---- */

static void test_a_snapshot_is_written_and_the_shard_trimmed_to_it(void)
{
    struct world w;
    uint64_t start;

    world_init(&w, &(struct offsets_conf){ .snapshot_every = 100 });
    for (int i = 0; i < 99; i++)
        commit_now(&w, "g", "t", i % 10, i);
    run(&w);
    CHECK_EQ(offsets_stats(w.offsets).snapshots, 0);
    commit_now(&w, "g", "t", 0, 99);
    run(&w);
    CHECK_EQ(offsets_stats(w.offsets).snapshots, 1);
    start = w.shard->start;
    CHECK_EQ(start, 100); /* the begin record's offset: all the commits are before it */
    CHECK_EQ(w.shard->end, 100 + 1 + 1 + 10 + 1); /* begin, ids, rows, end */
    reopen(&w);
    CHECK_EQ(committed(&w, "g", "t", 0), 99);
    CHECK_EQ(committed(&w, "g", "t", 9), 89);
    for (int i = 0; i < 1000; i++)
        commit_now(&w, "g", "t", i % 10, i);
    run(&w);
    CHECK(w.shard->start > start && w.shard->end - w.shard->start < 300);
    world_fini(&w);
}

static void test_a_snapshot_waits_for_as_many_records_as_there_are_rows(void)
{
    struct world w;

    world_init(&w, &(struct offsets_conf){ .snapshot_every = 10 });
    for (int i = 0; i < 1000; i++)
        commit_now(&w, "g", "t", i % 200, i);
    run(&w);
    /* after the 10th, when there are 10 rows; then the 210th, 410th, 610th and 810th, with 200 */
    CHECK_EQ(offsets_stats(w.offsets).snapshots, 5);
    world_fini(&w);
}

static void test_a_trim_that_was_lost_is_made_up_for_at_start(void)
{
    struct world w;

    world_init(&w, &(struct offsets_conf){ .snapshot_every = 50 });
    w.shard->trim_fails = E_DEVICE;
    for (int i = 0; i < 50; i++)
        commit_now(&w, "g", "t", 0, i);
    run(&w);
    CHECK_EQ(w.shard->trims, 1);
    CHECK_EQ(w.shard->start, 0);
    w.shard->trim_fails = 0;
    reopen(&w);
    run(&w);
    CHECK_EQ(w.shard->start, 50);
    world_fini(&w);
}

/* What a model says after each batch of the log. */
struct model {
    int64_t offset[KEYS];
    int64_t ids;
};

/* Reads the records of one batch with nothing of offsets.c: the key's text is "gN" and "tN", one
 * digit each. */
static void model_apply(struct model *m, const struct buf *b)
{
    struct batch_iter it;
    struct batch_record r;

    REQUIRE(batch_iter_open(&it, b->mem, b->len, 64 << 20) == 0);
    while (batch_iter_next(&it, &r) == 1) {
        if (r.key[1] == 1) {
            int k = (r.key[5] - '0') * 10 + (r.key[9] - '0');
            int64_t v = -1;

            CHECK_EQ(r.key_bytes, 14);
            if (r.value_bytes >= 0)
                memcpy(&v, r.value + 1, 8); /* the tests run where integers are little-endian */
            m->offset[k] = v;
        } else if (r.key[1] == 2) {
            memcpy(&m->ids, r.value + 1, 8);
        }
    }
    batch_iter_close(&it);
}

static void check_against(struct world *w, const struct model *m)
{
    unsigned rows = 0;

    for (int k = 0; k < KEYS; k++) {
        char group[3] = { 'g', (char)('0' + k / 10), 0 },
             topic[3] = { 't', (char)('0' + k % 10), 0 };

        CHECK_EQ(committed(w, group, topic, 0), m->offset[k]);
        rows += m->offset[k] >= 0;
    }
    CHECK_EQ(offsets_stats(w->offsets).rows, rows);
    CHECK_EQ(offsets_stats(w->offsets).next_producer_id, m->ids);
}

/* Random commits, removals of rows, groups and topics, and ids, several at once. */
static void random_life(struct world *w, struct rng *r, int steps)
{
    static struct change c[6];
    static struct ids ids[6];

    for (int s = 0; s < steps; s++) {
        int n = 1 + (int)rng_below(r, 6);

        for (int i = 0; i < n; i++) {
            char group[3] = { 'g', (char)('0' + rng_below(r, 4)), 0 };

            c[i] = change(w, NULL);
            strcpy(c[i].metadata[7], group);
            c[i].c.group = group_text(c[i].metadata[7]);
            for (uint64_t k = 1 + rng_below(r, 3); k > 0; k--) {
                char *topic = c[i].topics[c[i].c.n];

                snprintf(topic, TEXT, "t%d", (int)rng_below(r, 10));
                add(&c[i], topic, 0, (int64_t)rng_below(r, 1000000), "x");
            }
            ids[i] = (struct ids){ .d = { .fn = on_id, .loop = w->other } };
            switch (rng_below(r, 14)) {
            case 0:
                offsets_remove(w->offsets, &c[i].c);
                break;
            case 1:
                if (rng_chance(r, 1, 4))
                    offsets_remove_group(w->offsets, &c[i].c);
                else
                    c[i].done = true;
                break;
            case 2:
                if (rng_chance(r, 1, 4))
                    offsets_topic_deleted(w->offsets, c[i].entries[0].topic);
                c[i].done = true;
                break;
            case 3:
                producer_ids_next(w->offsets, &ids[i].d);
                c[i].done = true;
                break;
            default:
                offsets_commit(w->offsets, &c[i].c);
            }
            sim_run_for(w->sim, rng_below(r, 300), 10000);
        }
        run(w);
        for (int i = 0; i < n; i++)
            CHECK(c[i].done && c[i].c.rc == 0);
    }
}

static void test_a_restart_from_every_prefix_of_the_log_gives_exactly_its_records(void)
{
    struct world w, *after = mem_new(sizeof *after);
    struct model *m = mem_new(sizeof *m);
    struct rng r;
    struct shard *log, *cut = mem_new(sizeof *cut);

    world_init(&w, &(struct offsets_conf){ .snapshot_every = 60 });
    w.shard->delay_us = 200;
    w.shard->trim_fails =
        E_BUSY; /* so that the whole log stays: any snapshot in it must be harmless */
    rng_seed(&r, 11);
    random_life(&w, &r, 150);
    log = w.shard;
    CHECK(offsets_stats(w.offsets).snapshots >= 3);
    for (int k = 0; k < KEYS; k++)
        m->offset[k] = -1;
    for (unsigned n = 0; n <= log->n; n++) {
        if (n)
            model_apply(m, log->batches[n - 1]);
        *after = (struct world){ .sim = w.sim, .home = w.home, .other = w.other };
        *cut = shard_prefix(log, n, w.sim);
        open_on(after, cut);
        CHECK_EQ(after->load.rc, 0);
        check_against(after, m);
        close_it(after);
        shard_end_of(cut);
    }
    CHECK(offsets_stats(w.offsets).next_producer_id <= m->ids);
    m->ids = offsets_stats(w.offsets).next_producer_id;
    check_against(&w, m); /* and the process that wrote it agrees */
    CHECK(log->n > 200);
    world_fini(&w);
    free(cut);
    free(after);
    free(m);
}

static void test_a_restart_from_every_prefix_of_a_trimmed_log_loses_nothing(void)
{
    struct world w, *after = mem_new(sizeof *after);
    struct rng r;
    struct shard *cut = mem_new(sizeof *cut);
    unsigned trimmed = 0;

    world_init(&w, &(struct offsets_conf){ .snapshot_every = 40 });
    w.shard->delay_us = 200;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct model m = { .ids = 0 };

        rng_seed(&r, seed);
        random_life(&w, &r, 3);
        for (int k = 0; k < KEYS; k++)
            m.offset[k] = -1;
        for (unsigned n = 0; n < w.shard->n; n++)
            model_apply(&m, w.shard->batches[n]); /* the fake keeps what was trimmed */
        *after = (struct world){ .sim = w.sim, .home = w.home, .other = w.other };
        *cut = shard_prefix(w.shard, w.shard->n, w.sim);
        trimmed += cut->start > 0;
        open_on(after, cut);
        CHECK_EQ(after->load.rc, 0);
        check_against(after, &m);
        close_it(after);
        shard_end_of(cut);
    }
    CHECK(trimmed > 30);
    CHECK(w.shard->trims >= 3);
    world_fini(&w);
    free(cut);
    free(after);
}

/* Rows of 4 KiB make a snapshot of several batches; rows around its place go and change
 * meanwhile. */
static void test_rows_may_go_while_a_snapshot_passes_them(void)
{
    static char text[OFFSETS_METADATA_MAX + 1];
    struct world w;
    struct rng r;

    memset(text, 'x', OFFSETS_METADATA_MAX);
    rng_seed(&r, 5);
    world_init(&w, &(struct offsets_conf){ .snapshot_every = 300 });
    w.shard->delay_us = 500;
    for (int round = 0; round < 40; round++) {
        static struct change c[60], gone[60];
        int64_t want[300];

        for (int i = 0; i < 300; i++)
            want[i] = committed(&w, "g", "t", i);
        for (int i = 0; i < 60; i++) {
            c[i] = change(&w, "g");
            gone[i] = change(&w, "g");
            for (int k = 0; k < 8; k++) {
                int32_t partition = (int32_t)rng_below(&r, 300);

                want[partition] = round * 1000 + i;
                add(&c[i], "t", partition, want[partition], text);
            }
            for (int k = 0; k < 4; k++) {
                int32_t partition = (int32_t)rng_below(&r, 300);

                want[partition] = -1;
                add(&gone[i], "t", partition, 0, NULL);
            }
            offsets_commit(w.offsets, &c[i].c);
            offsets_remove(w.offsets, &gone[i].c);
            REQUIRE(sim_run_for(w.sim, rng_below(&r, 1000), 10000));
        }
        run(&w);
        for (int again = 0; again < 2; again++) {
            for (int i = 0; i < 300; i++)
                CHECK_EQ(committed(&w, "g", "t", i), want[i]);
            if (round % 8 || again)
                break;
            reopen(&w);
        }
    }
    CHECK(w.shard->trims > 10);
    world_fini(&w);
}

static void test_rows_may_go_while_expiry_passes_them(void)
{
    static struct offset_entry many[4000];
    static char topic[200];
    struct world w;
    struct change c[2], gone;

    world_init(&w, &(struct offsets_conf){ .retention_ms = 3600000, .expire_every_ms = 60000 });
    memset(topic, 't', sizeof topic);
    for (int i = 0; i < 4000; i++)
        many[i] = (struct offset_entry){
            .topic = { topic, 100 }, .partition = i, .offset = i, .metadata = GROUP_NULL
        };
    for (int i = 0; i < 2; i++) {
        c[i] = change(&w, i ? "g" : "h");
        c[i].c.entries = many;
        c[i].c.n = 4000;
        offsets_commit(w.offsets, &c[i].c);
    }
    run(&w);
    REQUIRE(c[0].done && c[1].done && !c[0].c.rc && !c[1].c.rc);
    w.shard->delay_us = 10000;
    w.shard->appends = 0;
    while (!w.shard->appends) /* expiry has begun, and its first batch is on its way */
        REQUIRE(sim_step(w.sim));
    gone = change(&w, "h");
    offsets_remove_group(w.offsets, &gone.c);
    REQUIRE(sim_run_for(w.sim, 10000000, 1000000));
    CHECK(gone.done && gone.c.rc == 0);
    CHECK_EQ(offsets_stats(w.offsets).rows, 0);
    CHECK(w.shard->appends >= 4);
    world_fini(&w);
}

static void test_a_failed_snapshot_is_harmless(void)
{
    struct world w;

    world_init(&w, &(struct offsets_conf){ .snapshot_every = 20 });
    w.shard->delay_us = 1000;
    for (int i = 0; i < 20; i++)
        commit_now(&w, "g", "t", i, i);
    w.shard->fail = E_NOSPACE; /* the begin is written, the rows are not */
    run(&w);
    CHECK_EQ(offsets_stats(w.offsets).snapshots, 0);
    w.shard->fail = 0;
    reopen(&w);
    for (int i = 0; i < 20; i++)
        CHECK_EQ(committed(&w, "g", "t", i), i);
    commit_now(&w, "g", "t", 0, 100);
    run(&w);
    CHECK_EQ(offsets_stats(w.offsets).snapshots, 1);
    CHECK(w.shard->start > 0);
    world_fini(&w);
}

/* ---- damage, closing ---- */

static void put_record(struct shard *s, const void *key, size_t key_bytes, const void *value,
                       size_t value_bytes)
{
    struct batch_builder b = { 0 };
    struct buf *buf;

    batch_builder_add(&b, &(struct batch_new_record){ .timestamp = 1,
                                                      .key = key,
                                                      .key_bytes = key_bytes,
                                                      .value = value,
                                                      .value_bytes = value_bytes });
    REQUIRE(batch_builder_finish(&b, CODEC_GZIP, &buf) == 0);
    batch_builder_free(&b);
    s->batches[s->n] = buf;
    s->base[s->n++] = s->end;
    batch_stamp(buf->mem, (int64_t)s->end, 1);
    s->end++;
}

static void test_records_that_make_no_sense_stop_the_load(void)
{
    static const struct {
        const char *key;
        uint8_t key_bytes;
        const char *value;
        uint8_t value_bytes;
        int rc;
    } bad[] = {
        { "", 0, "", 0, E_CORRUPT },
        { "\1", 1, "\1", 1, E_CORRUPT },
        { "\0\1", 2, "\1", 1, E_CORRUPT },
        { "\2\1", 2, "\1", 1, E_VERSION },
        { "\1\5", 2, "\1", 1, E_VERSION },
        { "\1\2", 2, "\2", 1, E_VERSION },
        { "\1\2", 2, "\1\1\1\1\1\1\1\1", 8, E_CORRUPT },
        { "\1\2", 2, "\1\1\1\1\1\1\1\1\0\0", 10, E_CORRUPT },
        { "\1\2", 2, NULL, 0, E_CORRUPT },
        { "\1\1\1\0g\1\0t\0\0\0", 11, NULL, 0, E_CORRUPT },
        { "\1\1\1\0g\377\0t\0\0\0\0", 12, NULL, 0, E_CORRUPT },
        { "\1\1\1\0g\1\0t\0\0\0\0", 12, "\1", 1, E_CORRUPT },
        { "\1\1\1\0g\1\0t\0\0\0\0", 12, NULL, 0, 0 },
        { "\1\2", 2, "\1\1\1\1\1\1\1\1\0", 9, 0 },
    };

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct world w;

        world_init(&w, &(struct offsets_conf){ 0 });
        commit_now(&w, "g", "t", 0, 1);
        put_record(w.shard, bad[i].key, bad[i].key_bytes, bad[i].value, bad[i].value_bytes);
        reopen(&w);
        CHECK_EQ(w.load.rc, bad[i].rc);
        CHECK_EQ(offsets_state(w.offsets), bad[i].rc);
        if (bad[i].rc) {
            CHECK(w.load.err.text[0] != 0);
            CHECK_EQ(commit_now(&w, "g", "t", 0, 2), bad[i].rc);
            CHECK_EQ(next_id(&w), bad[i].rc);
        }
        world_fini(&w);
    }
}

static unsigned codec_of(const struct buf *b)
{
    return b->mem[22] & BATCH_ATTR_CODEC;
}

/* n changes of eight rows each, of one turn. */
static void commit_many(struct world *w, unsigned n)
{
    struct change *c = mem_new(n * sizeof *c);

    for (unsigned i = 0; i < n; i++) {
        c[i] = change(w, "a group with members");
        for (int32_t k = 0; k < 8; k++)
            add(&c[i], "a topic with a name", (int32_t)i * 8 + k, i + 5, "the same text each time");
        offsets_commit(w->offsets, &c[i].c);
    }
    run(w);
    for (unsigned i = 0; i < n; i++)
        CHECK(c[i].done && c[i].c.rc == 0);
    free(c);
}

static void check_many(struct world *w, unsigned n)
{
    for (unsigned i = 0; i < 8 * n; i++)
        CHECK_EQ(committed(w, "a group with members", "a topic with a name", (int32_t)i),
                 (int64_t)i / 8 + 5);
}

static void test_batches_are_packed_from_1_kib_on_and_read_again(void)
{
    static const enum batch_codec codecs[] = { CODEC_LZ4, CODEC_ZSTD };

    for (unsigned i = 0; i < 2; i++) {
        struct world w;

        world_init(&w, &(struct offsets_conf){ .codec = codecs[i] });
        CHECK_EQ(commit_now(&w, "g", "t", 0, 5), 0);
        commit_many(&w, 10);
        REQUIRE(w.shard->n == 2);
        CHECK_EQ(codec_of(w.shard->batches[0]), CODEC_NONE);
        CHECK_EQ(codec_of(w.shard->batches[1]), codecs[i]);
        CHECK(w.shard->batches[1]->len < 80 * 20); /* of some 100 bytes a row */
        reopen(&w);
        REQUIRE(w.load.rc == 0);
        check_many(&w, 10);
        world_fini(&w);
    }
}

static unsigned n_works;
static struct pool *counted;

static void count_and_submit(struct pool *p, struct work *work)
{
    n_works++;
    pool_submit(counted, work);
}

static void test_large_batches_are_packed_on_the_pool(void)
{
    static const struct pool_ops ops = { .submit = count_and_submit };
    struct pool pool = { .ops = &ops };
    struct world w;

    world_init(&w, &(struct offsets_conf){ .codec = CODEC_LZ4 });
    close_it(&w);
    w.pool = &pool;
    counted = sim_pool(w.sim);
    n_works = 0;
    open_on(&w, w.shard);
    commit_many(&w, 10);
    CHECK_EQ(n_works, 0);
    commit_many(&w, 150); /* of more than 64 KiB */
    CHECK(n_works > 0);
    CHECK_EQ(n_works + 1, w.shard->n);
    check_many(&w, 150);
    w.shard->fail = E_NOSPACE;
    CHECK_EQ(commit_now(&w, "g", "t", 0, 6), E_NOSPACE);
    w.shard->fail = 0;
    reopen(&w);
    REQUIRE(w.load.rc == 0);
    check_many(&w, 150);
    world_fini(&w);
}

static void test_a_lost_range_fails_the_load(void)
{
    struct world w;

    world_init(&w, &(struct offsets_conf){ 0 });
    commit_now(&w, "g", "t", 0, 1);
    w.shard->read_fails = E_LOST;
    reopen(&w);
    CHECK_EQ(w.load.rc, E_LOST);
    CHECK_EQ(next_id(&w), E_LOST);
    world_fini(&w);
}

static void test_nothing_is_answered_before_the_load(void)
{
    struct world w;
    struct change c;

    world_init(&w, &(struct offsets_conf){ 0 });
    commit_now(&w, "g", "t", 0, 1);
    close_it(&w);
    w.offsets = offsets_new(&(struct offsets_env){ .home = w.home, .shard = w.shard }, &w.conf);
    CHECK_EQ(offsets_state(w.offsets), E_BUSY);
    CHECK_EQ(next_id(&w), E_BUSY);
    c = change(&w, "g");
    add(&c, "t", 0, 9, "");
    offsets_commit(w.offsets, &c.c);
    run(&w);
    CHECK_EQ(c.c.rc, E_BUSY);
    world_fini(&w);
}

static void test_close_ends_what_waits(void)
{
    struct world w;
    struct change a, b;
    struct ids id = { 0 };

    world_init(&w, &(struct offsets_conf){ 0 });
    w.shard->delay_us = 5000;
    a = change(&w, "g");
    add(&a, "t", 0, 1, "");
    offsets_commit(w.offsets, &a.c);
    REQUIRE(sim_run_for(w.sim, 1000, 1000));
    b = change(&w, "g");
    add(&b, "t", 1, 1, "");
    offsets_commit(w.offsets, &b.c); /* behind a */
    id.d = (struct producer_id_done){ .fn = on_id, .loop = w.other };
    producer_ids_next(w.offsets, &id.d);
    REQUIRE(sim_run_for(w.sim, 1000, 1000));
    CHECK(!a.done && !b.done && !id.done);
    world_fini(&w);
    CHECK(a.done && a.c.rc == 0);
    CHECK(b.done && b.c.rc == E_CLOSED);
    CHECK(id.done && id.d.rc == E_CLOSED);
}

/* clang-format off */
TEST_MAIN(T(a_commit_is_found_when_answered_and_after_a_restart)
          T(records_are_what_the_format_says) T(commits_of_one_turn_share_an_append)
          T(commits_that_come_during_an_append_share_the_next) T(a_failed_append_changes_nothing)
          T(too_large_a_commit_is_refused) T(a_group_is_removed_whole_in_several_batches)
          T(a_removal_sees_commits_made_before_it)
          T(a_deleted_topic_loses_its_offsets_in_all_groups)
          T(offsets_expire_when_their_group_is_long_empty)
          T(producer_ids_are_reserved_in_blocks_and_never_given_twice)
          T(no_producer_id_is_given_when_its_block_is_not_durable)
          T(a_snapshot_is_written_and_the_shard_trimmed_to_it)
          T(a_snapshot_waits_for_as_many_records_as_there_are_rows)
          T(a_trim_that_was_lost_is_made_up_for_at_start)
          T(a_restart_from_every_prefix_of_the_log_gives_exactly_its_records)
          T(a_restart_from_every_prefix_of_a_trimmed_log_loses_nothing)
          T(rows_may_go_while_a_snapshot_passes_them)
          T(rows_may_go_while_expiry_passes_them) T(a_failed_snapshot_is_harmless)
          T(records_that_make_no_sense_stop_the_load)
          T(batches_are_packed_from_1_kib_on_and_read_again)
          T(large_batches_are_packed_on_the_pool)
          T(a_lost_range_fails_the_load) T(nothing_is_answered_before_the_load)
          T(close_ends_what_waits))
