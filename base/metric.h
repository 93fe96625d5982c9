/* Metrics: counters, gauges and histograms that live in their owner's struct, and the one place where
 * all of them can be read.
 *
 * An owner describes its metrics in a table of rows, one a metric: name, help, kind, labels, and
 * where in the struct the value lies; it adds the struct as a set when it opens and removes it before
 * it goes. Names, units and labels are as Prometheus has them: weir_<module>_<what>_<unit>[_total],
 * seconds and bytes. Values are counted as integers in a unit that is cheap (microseconds), and a
 * row's scale makes the base unit of them.
 *
 * Adding to a value: any thread, one relaxed atomic operation (a histogram: two), never a lock. */
#ifndef WEIR_BASE_METRIC_H
#define WEIR_BASE_METRIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed is 0. */
struct metric_counter {
    atomic_uint_least64_t n;
};
static inline void metric_add(struct metric_counter *c, uint64_t n)
{
    atomic_fetch_add_explicit(&c->n, n, memory_order_relaxed);
}
static inline uint64_t metric_count(const struct metric_counter *c)
{
    return atomic_load_explicit(&((struct metric_counter *)(uintptr_t)c)->n, memory_order_relaxed);
}

struct metric_gauge {
    atomic_int_least64_t v;
};
static inline void metric_set(struct metric_gauge *g, int64_t v)
{
    atomic_store_explicit(&g->v, v, memory_order_relaxed);
}
static inline int64_t metric_get(const struct metric_gauge *g)
{
    return atomic_load_explicit(&((struct metric_gauge *)(uintptr_t)g)->v, memory_order_relaxed);
}

/* A log-linear histogram, 8 KiB: values below 32 have a bucket each, those above 32 buckets for each
 * power of two, so that the middle of a bucket is never more than 1/64 (1.6 %) from what lies in it.
 * Values of 2^36 and more (19 hours of microseconds) count as the largest. Zeroed is empty. */
enum {
    METRIC_SUB_BITS = 5,
    METRIC_MAX_BITS = 36,
    METRIC_BUCKETS = (METRIC_MAX_BITS - METRIC_SUB_BITS + 1) << METRIC_SUB_BITS
};
struct metric_hist {
    atomic_uint_least64_t sum;
    atomic_uint_least64_t bucket[METRIC_BUCKETS];
};

/* The bucket of a value, and the least and the largest value of a bucket. */
static inline unsigned metric_bucket(uint64_t v)
{
    unsigned top;

    if (v < 1u << METRIC_SUB_BITS)
        return (unsigned)v;
    if (v >> METRIC_MAX_BITS)
        return METRIC_BUCKETS - 1;
    top = 63u - (unsigned)__builtin_clzll(v) - METRIC_SUB_BITS;
    return ((top + 1) << METRIC_SUB_BITS) + (unsigned)((v >> top) - (1u << METRIC_SUB_BITS));
}
uint64_t metric_bucket_first(unsigned bucket);
uint64_t metric_bucket_last(unsigned bucket);

static inline void metric_observe(struct metric_hist *h, uint64_t v)
{
    atomic_fetch_add_explicit(&h->bucket[metric_bucket(v)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, v, memory_order_relaxed);
}
/* Adds all of one to another. */
void metric_hist_merge(struct metric_hist *into, const struct metric_hist *h);
/* Takes everything out. */
void metric_hist_clear(struct metric_hist *h);
uint64_t metric_hist_count(const struct metric_hist *h);
uint64_t metric_hist_sum(const struct metric_hist *h);
/* How many values were at most v, rounded to whole buckets: v should be the last of its bucket. */
uint64_t metric_hist_at_most(const struct metric_hist *h, uint64_t v);
/* The value below or at which a share q (0..1) of all lies: the middle of its bucket; 0 when empty. */
uint64_t metric_hist_quantile(const struct metric_hist *h, double q);

/* --- the table of a kind of owner, and the sets of what there is now --- */

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HIST };

struct metric_row {
    const char *name; /* rows of one name stand together */
    const char *help; /* of the first of them */
    enum metric_kind kind;
    const char *labels; /* state="free", or NULL */
    size_t offset;      /* of the value in the owner's struct */
    double scale;       /* the unit in the name for one that was counted: 1e-6 */
};

/* One owner's; embed it. Fields are the owner's to fill. */
struct metric_set {
    const struct metric_row *rows;
    unsigned n_rows;
    const void *base;   /* the struct that rows point into */
    const char *labels; /* of all its rows: device="0"; or NULL */
    /* Brings values that are not kept up to date. NULL: none. Runs under the registry's lock: must
     * not add or remove sets, nor block. */
    void (*refresh)(struct metric_set *s);
    struct metric_set *next; /* the registry's */
};
/* Any thread. After metric_set_remove returns nobody reads it. Removing what was never added is
 * harmless. */
void metric_set_add(struct metric_set *s);
void metric_set_remove(struct metric_set *s);

/* One metric as it is now. */
struct metric_view {
    const struct metric_row *row;
    const char *set_labels; /* or NULL */
    double value;           /* counter, gauge: in the base unit */
    const struct metric_hist *hist;
};
/* Calls fn for each row of each set, rows of a set in their order. fn must not come back here. Any
 * thread. */
void metrics_visit(void (*fn)(void *ctx, const struct metric_view *v), void *ctx);
/* Of one set only, whether or not it was added. */
void metric_set_visit(struct metric_set *s, void (*fn)(void *ctx, const struct metric_view *v),
                      void *ctx);

/* Everything as one JSON object, new: {"name{labels}":number, ...}; a histogram as an object of
 * count, sum, p50, p90, p99, p999 and max. */
char *metrics_json(void);

#endif
