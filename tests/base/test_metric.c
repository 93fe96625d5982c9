/* Metrics: buckets, quantiles against sorted values, threads, and the registry. */
#include "base/metric.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/rng.h"
#include "tests/check.h"

enum { VALUES = 20000, THREADS = 4, EACH = 50000 };

static void test_buckets_are_gapless_and_narrow(void)
{
    for (unsigned i = 0; i < METRIC_BUCKETS; i++) {
        uint64_t first = metric_bucket_first(i), last = metric_bucket_last(i);

        CHECK_EQ(metric_bucket(first), i);
        CHECK_EQ(metric_bucket(last), i);
        CHECK(i == 0 || first == metric_bucket_last(i - 1) + 1);
        CHECK((last - first) * 32 <= first); /* so the middle is within 1/64 */
    }
    CHECK_EQ(metric_bucket_last(METRIC_BUCKETS - 1), (UINT64_C(1) << METRIC_MAX_BITS) - 1);
    CHECK_EQ(metric_bucket(UINT64_C(1) << METRIC_MAX_BITS), METRIC_BUCKETS - 1);
    CHECK_EQ(metric_bucket(UINT64_MAX), METRIC_BUCKETS - 1);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void test_quantiles_are_within_their_error(void)
{
    static const double quantiles[] = { 0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1 };
    static struct metric_hist h;
    static uint64_t values[VALUES];
    struct rng r;

    rng_seed(&r, 7);
    for (unsigned shape = 0; shape < 3; shape++) {
        uint64_t sum = 0;

        metric_hist_clear(&h);
        for (unsigned i = 0; i < VALUES; i++) {
            values[i] = shape == 0   ? rng_below(&r, 30)
                        : shape == 1 ? rng_below(&r, 1000000)
                                     : (uint64_t)1 << rng_below(&r, 35);
            values[i] += shape == 2 ? rng_below(&r, values[i]) : 0;
            sum += values[i];
            metric_observe(&h, values[i]);
        }
        qsort(values, VALUES, sizeof values[0], by_value);
        CHECK_EQ(metric_hist_count(&h), VALUES);
        CHECK_EQ(metric_hist_sum(&h), sum);
        for (unsigned i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++) {
            unsigned rank = (unsigned)(quantiles[i] * VALUES);
            uint64_t want = values[rank ? rank - 1 : 0], got;

            got = metric_hist_quantile(&h, quantiles[i]);
            CHECK((got > want ? got - want : want - got) * 64 <= want);
        }
    }
}

static void test_empty_histogram_gives_zeros(void)
{
    static struct metric_hist h;

    CHECK_EQ(metric_hist_count(&h), 0);
    CHECK_EQ(metric_hist_quantile(&h, 0.5), 0);
    CHECK_EQ(metric_hist_at_most(&h, UINT64_MAX), 0);
}

static void test_merge_is_what_one_would_have_counted(void)
{
    static struct metric_hist a, b, all;
    struct rng r;

    rng_seed(&r, 8);
    for (unsigned i = 0; i < VALUES; i++) {
        uint64_t v = rng_below(&r, 1 << 20);

        metric_observe(i % 3 ? &a : &b, v);
        metric_observe(&all, v);
    }
    metric_hist_merge(&a, &b);
    for (unsigned i = 0; i < METRIC_BUCKETS; i++)
        CHECK_EQ(a.bucket[i], all.bucket[i]);
    CHECK_EQ(metric_hist_sum(&a), metric_hist_sum(&all));
}

static void test_at_most_counts_whole_buckets(void)
{
    static struct metric_hist h;

    for (uint64_t v = 0; v < 4096; v++)
        metric_observe(&h, v);
    for (unsigned i = 0; metric_bucket_last(i) < 4096; i++)
        CHECK_EQ(metric_hist_at_most(&h, metric_bucket_last(i)), metric_bucket_last(i) + 1);
}

static struct metric_hist shared_hist;
static struct metric_counter shared_count;

static void *count_run(void *arg)
{
    for (uint64_t i = 0; i < EACH; i++) {
        metric_observe(&shared_hist, i % 100);
        metric_add(&shared_count, 2);
    }
    return NULL;
}

static void test_nothing_is_lost_between_threads(void)
{
    pthread_t t[THREADS];

    for (unsigned i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&t[i], NULL, count_run, NULL) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    CHECK_EQ(metric_hist_count(&shared_hist), THREADS * EACH);
    CHECK_EQ(metric_hist_sum(&shared_hist), THREADS * (uint64_t)EACH / 100 * 4950);
    CHECK_EQ(metric_count(&shared_count), 2 * THREADS * EACH);
}

/* --- the registry --- */

struct owner {
    struct metric_counter done;
    struct metric_gauge left;
    struct metric_hist took;
    struct metric_set set;
    unsigned refreshed;
};
static const struct metric_row rows[] = {
    { "weir_test_done_total", "What was done.", METRIC_COUNTER, NULL, offsetof(struct owner, done),
      1 },
    { "weir_test_left", "What is left.", METRIC_GAUGE, "state=\"open\"",
      offsetof(struct owner, left), 1 },
    { "weir_test_took_seconds", "How long.", METRIC_HIST, NULL, offsetof(struct owner, took),
      1e-6 },
};

static void owner_refresh(struct metric_set *s)
{
    ((struct owner *)((char *)s - offsetof(struct owner, set)))->refreshed++;
}

static void owner_open(struct owner *o, const char *labels)
{
    *o = (struct owner){ 0 };
    o->set = (struct metric_set){
        .rows = rows, .n_rows = 3, .base = o, .labels = labels, .refresh = owner_refresh
    };
    metric_set_add(&o->set);
}

static void count_views(void *ctx, const struct metric_view *v)
{
    ++*(unsigned *)ctx;
}

static void test_sets_come_and_go(void)
{
    static struct owner a, b;
    unsigned n = 0;

    owner_open(&a, "device=\"0\"");
    owner_open(&b, "device=\"1\"");
    metrics_visit(count_views, &n);
    CHECK_EQ(n, 6);
    CHECK_EQ(a.refreshed, 1);
    metric_set_remove(&a.set);
    metric_set_remove(&a.set);
    n = 0;
    metrics_visit(count_views, &n);
    CHECK_EQ(n, 3);
    metric_set_remove(&b.set);
    metrics_visit(count_views, &n);
    CHECK_EQ(n, 3);
    metric_set_visit(&a.set, count_views, &n);
    CHECK_EQ(n, 6);
}

static void test_json_has_names_labels_and_base_units(void)
{
    static struct owner o;
    char *text;

    owner_open(&o, "device=\"0\"");
    metric_add(&o.done, 12);
    metric_set(&o.left, -3);
    for (unsigned i = 0; i < 10; i++)
        metric_observe(&o.took, 31);
    text = metrics_json();
    CHECK_EQ(strcmp(text, "{\"weir_test_done_total{device=\\\"0\\\"}\":12,"
                          "\"weir_test_left{device=\\\"0\\\",state=\\\"open\\\"}\":-3,"
                          "\"weir_test_took_seconds{device=\\\"0\\\"}\":{\"count\":10,"
                          "\"sum\":0.00031,\"p50\":3.1e-05,\"p90\":3.1e-05,\"p99\":3.1e-05,"
                          "\"p999\":3.1e-05,\"max\":3.1e-05}}"),
             0);
    free(text);
    metric_set_remove(&o.set);
    text = metrics_json();
    CHECK_EQ(strcmp(text, "{}"), 0);
    free(text);
}

TEST_MAIN(T(buckets_are_gapless_and_narrow) T(quantiles_are_within_their_error)
              T(empty_histogram_gives_zeros) T(merge_is_what_one_would_have_counted)
                  T(at_most_counts_whole_buckets) T(nothing_is_lost_between_threads)
                      T(sets_come_and_go) T(json_has_names_labels_and_base_units))
