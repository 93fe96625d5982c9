#include "base/metric.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric_set *registry;

/* --- histograms --- */

uint64_t metric_bucket_first(unsigned bucket)
{
    unsigned octave = bucket >> METRIC_SUB_BITS, sub = bucket & ((1u << METRIC_SUB_BITS) - 1);

    return octave == 0 ? bucket : (uint64_t)((1u << METRIC_SUB_BITS) + sub) << (octave - 1);
}

uint64_t metric_bucket_last(unsigned bucket)
{
    return metric_bucket_first(bucket + 1) - 1;
}

static uint64_t bucket_count(const struct metric_hist *h, unsigned i)
{
    return atomic_load_explicit(&((struct metric_hist *)(uintptr_t)h)->bucket[i],
                                memory_order_relaxed);
}

void metric_hist_merge(struct metric_hist *into, const struct metric_hist *h)
{
    for (unsigned i = 0; i < METRIC_BUCKETS; i++) {
        uint64_t n = bucket_count(h, i);

        if (n > 0)
            atomic_fetch_add_explicit(&into->bucket[i], n, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&into->sum, metric_hist_sum(h), memory_order_relaxed);
}

void metric_hist_clear(struct metric_hist *h)
{
    for (unsigned i = 0; i < METRIC_BUCKETS; i++)
        atomic_store_explicit(&h->bucket[i], 0, memory_order_relaxed);
    atomic_store_explicit(&h->sum, 0, memory_order_relaxed);
}

uint64_t metric_hist_count(const struct metric_hist *h)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < METRIC_BUCKETS; i++)
        n += bucket_count(h, i);
    return n;
}

uint64_t metric_hist_sum(const struct metric_hist *h)
{
    return atomic_load_explicit(&((struct metric_hist *)(uintptr_t)h)->sum, memory_order_relaxed);
}

uint64_t metric_hist_at_most(const struct metric_hist *h, uint64_t v)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < METRIC_BUCKETS && metric_bucket_last(i) <= v; i++)
        n += bucket_count(h, i);
    return n;
}

uint64_t metric_hist_quantile(const struct metric_hist *h, double q)
{
    uint64_t n = metric_hist_count(h), seen = 0;
    /* The rank of the value that is wanted, from 1. */
    uint64_t rank = (uint64_t)ceil(q * (double)n);

    rank = rank < 1 ? 1 : rank;
    for (unsigned i = 0; n > 0 && i < METRIC_BUCKETS; i++) {
        seen += bucket_count(h, i);
        if (seen >= rank)
            return metric_bucket_first(i) + (metric_bucket_last(i) - metric_bucket_first(i)) / 2;
    }
    return 0; /* empty, or it lost some while it was read */
}

/* --- the registry --- */

void metric_set_add(struct metric_set *s)
{
    struct metric_set **at = &registry;

    pthread_mutex_lock(&registry_lock);
    while (*at)
        at = &(*at)->next;
    s->next = NULL;
    *at = s;
    pthread_mutex_unlock(&registry_lock);
}

void metric_set_remove(struct metric_set *s)
{
    struct metric_set **at = &registry;

    pthread_mutex_lock(&registry_lock);
    while (*at && *at != s)
        at = &(*at)->next;
    if (*at)
        *at = s->next;
    pthread_mutex_unlock(&registry_lock);
}

static void set_visit(struct metric_set *s, void (*fn)(void *ctx, const struct metric_view *v),
                      void *ctx)
{
    if (s->refresh)
        s->refresh(s);
    for (unsigned i = 0; i < s->n_rows; i++) {
        const struct metric_row *row = &s->rows[i];
        const void *at = (const char *)s->base + row->offset;
        struct metric_view v = { .row = row, .set_labels = s->labels };

        if (row->kind == METRIC_COUNTER)
            v.value = (double)metric_count(at) * row->scale;
        else if (row->kind == METRIC_GAUGE)
            v.value = (double)metric_get(at) * row->scale;
        else
            v.hist = at;
        fn(ctx, &v);
    }
}

void metric_set_visit(struct metric_set *s, void (*fn)(void *ctx, const struct metric_view *v),
                      void *ctx)
{
    pthread_mutex_lock(&registry_lock); /* two refreshes of one set would disturb each other */
    set_visit(s, fn, ctx);
    pthread_mutex_unlock(&registry_lock);
}

void metrics_visit(void (*fn)(void *ctx, const struct metric_view *v), void *ctx)
{
    pthread_mutex_lock(&registry_lock);
    for (struct metric_set *s = registry; s; s = s->next)
        set_visit(s, fn, ctx);
    pthread_mutex_unlock(&registry_lock);
}

/* --- as JSON --- */

struct text {
    char *mem;
    size_t len, cap;
};

static void text_add(struct text *t, const char *piece)
{
    size_t n = strlen(piece);

    if (t->len + n + 1 > t->cap) {
        t->cap = (t->len + n + 1) * 2;
        t->mem = mem_grow(t->mem, t->cap);
    }
    memcpy(t->mem + t->len, piece, n + 1);
    t->len += n;
}

/* Labels are ours: quotes are all that needs an escape. */
static void text_labels(struct text *t, const char *labels)
{
    for (const char *p = labels; *p; p++)
        text_add(t, *p == '"' ? "\\\"" : (char[]){ *p, 0 });
}

static void text_name(struct text *t, const struct metric_view *v)
{
    const char *own = v->row->labels, *all = v->set_labels;

    text_add(t, t->len > 1 ? ",\"" : "\"");
    text_add(t, v->row->name);
    if (own || all) {
        text_add(t, "{");
        text_labels(t, all ? all : "");
        text_add(t, own && all ? "," : "");
        text_labels(t, own ? own : "");
        text_add(t, "}");
    }
    text_add(t, "\":");
}

static void text_number(struct text *t, const char *before, double v)
{
    char number[40];

    snprintf(number, sizeof number, "%.9g", v);
    text_add(t, before);
    text_add(t, number);
}

static void json_one(void *ctx, const struct metric_view *v)
{
    struct text *t = ctx;
    double scale = v->row->scale;

    text_name(t, v);
    if (!v->hist) {
        text_number(t, "", v->value);
        return;
    }
    text_number(t, "{\"count\":", (double)metric_hist_count(v->hist));
    text_number(t, ",\"sum\":", (double)metric_hist_sum(v->hist) * scale);
    text_number(t, ",\"p50\":", (double)metric_hist_quantile(v->hist, 0.5) * scale);
    text_number(t, ",\"p90\":", (double)metric_hist_quantile(v->hist, 0.9) * scale);
    text_number(t, ",\"p99\":", (double)metric_hist_quantile(v->hist, 0.99) * scale);
    text_number(t, ",\"p999\":", (double)metric_hist_quantile(v->hist, 0.999) * scale);
    text_number(t, ",\"max\":", (double)metric_hist_quantile(v->hist, 1) * scale);
    text_add(t, "}");
}

char *metrics_json(void)
{
    struct text t = { 0 };

    text_add(&t, "{");
    metrics_visit(json_one, &t);
    text_add(&t, "}");
    return t.mem;
}
