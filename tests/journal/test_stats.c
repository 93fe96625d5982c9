/* What the journal counts of itself adds up. */
#include "journal/stats.h"

#include <stdlib.h>

#include "base/logger.h"
#include "journal/core.h"
#include "tests/check.h"
#include "tests/sim/jrn_calls.h"

enum { LOOPS = 2, BATCHES = 400, NAMES_MAX = 200 };

static uint64_t count(const struct metric_counter *c)
{
    return metric_count(c);
}

static void store_init(struct jrn_sim *js, uint64_t seed)
{
    struct err e = { 0 };

    logger_to(-1);
    jrn_sim_init(js, seed, 64 << 20, LOOPS);
    js->conf.cache_bytes = 128 << 10; /* a few blocks of each group */
    REQUIRE(jrn_sim_open(js, &e) >= 0);
}

static void nothing(void *ctx, const struct metric_view *v)
{
}

static void test_appends_blocks_and_bytes_add_up(void)
{
    uint64_t before, bytes = 0, sent = 0;
    struct jrn_sim js;
    struct stats *s;
    struct shard *h;

    store_init(&js, 1);
    REQUIRE(call_create(&js, 16, SHARD_CLASS_DATA) == 0);
    h = call_open(&js, 16, NULL);
    s = js.st->stats;
    before = count(&s->append_bytes);
    for (unsigned i = 0; i < BATCHES; i++) {
        struct buf *b = call_batch(i, 1, i * 37 % 3000);

        sent += b->len;
        REQUIRE(call_append(&js, h, b, NULL) == 0);
    }
    call_wait_ms(&js, 100);
    journal_stats_visit(js.j, nothing, NULL); /* brings the sum over the groups up to date */
    CHECK_EQ(metric_hist_count(&s->append_us), count(&s->appends));
    CHECK_EQ(metric_hist_sum(&s->block_batches), count(&s->appends));
    CHECK_EQ(metric_hist_sum(&s->block_bytes), count(&s->wal_bytes));
    CHECK_EQ(metric_hist_count(&s->flush_us), metric_hist_count(&s->block_bytes));
    CHECK(count(&s->append_bytes) - before >= sent);
    CHECK(count(&s->wal_bytes) > count(&s->append_bytes));
    CHECK(count(&s->destage_rounds) > 0 && count(&s->destage_failed) == 0);
    CHECK(count(&s->destage_bytes) > 0 && count(&s->destage_bytes) < count(&s->append_bytes));
    CHECK_EQ(count(&s->append_refused), 0);
    for (unsigned i = 0; i < STATS_N_SPACES; i++)
        bytes += (uint64_t)metric_get(&s->space[i]);
    CHECK(bytes > 0);
    CHECK((uint64_t)metric_get(&s->space_limit) >= bytes && metric_get(&s->throttle_us) == 0);
    shard_unref(h);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_reads_are_counted_where_they_were_found(void)
{
    struct jrn_sim js;
    struct shard *h;
    struct stats *s;
    uint64_t all = 0;
    int rc;

    store_init(&js, 2);
    REQUIRE(call_create(&js, 16, SHARD_CLASS_DATA) == 0);
    h = call_open(&js, 16, NULL);
    for (unsigned i = 0; i < BATCHES; i++)
        REQUIRE(call_append(&js, h, call_batch(i, 1, 2000), NULL) == 0);
    s = js.st->stats;
    CHECK_EQ(call_read(&js, h, 0, NULL, &rc, NULL), BATCHES);
    for (unsigned i = 0; i < STATS_N_SOURCES; i++) {
        CHECK(count(&s->reads[i]) > 0);
        all += count(&s->read_bytes[i]);
    }
    CHECK(all >= BATCHES * 2000);
    CHECK_EQ(count(&s->read_damaged), 0);
    shard_unref(h);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_refused_appends_are_counted(void)
{
    struct jrn_sim js;
    struct shard *h;

    store_init(&js, 3);
    REQUIRE(call_create(&js, 16, SHARD_CLASS_DATA) == 0);
    h = call_open(&js, 16, NULL);
    CHECK_EQ(call_append(&js, h, call_batch_of(7, 0, 0, 1, 10), NULL), 0);
    CHECK_EQ(call_append(&js, h, call_batch_of(7, 0, 5, 1, 10), NULL), E_SEQUENCE);
    CHECK_EQ(call_append(&js, h, call_batch(1, 1, 200000), NULL), E_TOOBIG);
    CHECK_EQ(count(&js.st->stats->append_refused), 2);
    shard_unref(h);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

static void test_recovery_is_measured(void)
{
    struct err e = { 0 };
    struct jrn_sim js;
    struct shard *h;

    store_init(&js, 4);
    CHECK_EQ(metric_get(&js.st->stats->recovery_blocks), 0);
    REQUIRE(call_create(&js, 16, SHARD_CLASS_DATA) == 0);
    h = call_open(&js, 16, NULL);
    for (unsigned i = 0; i < 10; i++)
        REQUIRE(call_append(&js, h, call_batch(i, 1, 2000), NULL) == 0);
    shard_unref(h);
    jrn_sim_crash(&js, false);
    REQUIRE(jrn_sim_open(&js, &e) >= 0);
    CHECK(metric_get(&js.st->stats->recovery_blocks) >= 10);
    CHECK(metric_get(&js.st->stats->recovery_bytes) >= 10 * PAGE_BYTES);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

/* --- names, as Prometheus wants them --- */

static struct {
    const struct metric_row *row;
} seen[NAMES_MAX];
static unsigned n_seen;

static void name_seen(void *ctx, const struct metric_view *v)
{
    const char *name = v->row->name, *end = name + strlen(name);

    REQUIRE(n_seen < NAMES_MAX);
    CHECK(strncmp(name, "weir_journal_", 13) == 0);
    CHECK((strcmp(end - 6, "_total") == 0) == (v->row->kind == METRIC_COUNTER));
    CHECK(v->row->scale == 1 || v->row->scale == 1e-3 || strcmp(end - 8, "_seconds") == 0);
    CHECK(v->set_labels && strcmp(v->set_labels, "device=\"0\"") == 0);
    /* The rows of one name stand together, the first has the help, and labels tell them apart. */
    for (unsigned i = 0; i < n_seen; i++) {
        if (strcmp(seen[i].row->name, name) != 0)
            continue;
        CHECK(strcmp(seen[n_seen - 1].row->name, name) == 0 && v->row->help == NULL);
        CHECK(v->row->labels && strcmp(seen[i].row->labels, v->row->labels) != 0);
    }
    if (n_seen == 0 || strcmp(seen[n_seen - 1].row->name, name) != 0)
        CHECK(v->row->help != NULL);
    seen[n_seen++].row = v->row;
}

static void test_names_units_and_labels_are_in_order(void)
{
    struct jrn_sim js;

    store_init(&js, 5);
    journal_stats_visit(js.j, name_seen, NULL);
    CHECK(n_seen > 30);
    jrn_sim_close(&js);
    jrn_sim_fini(&js);
}

TEST_MAIN(T(appends_blocks_and_bytes_add_up) T(reads_are_counted_where_they_were_found)
              T(refused_appends_are_counted) T(recovery_is_measured)
                  T(names_units_and_labels_are_in_order))
