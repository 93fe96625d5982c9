#include "bench/measure.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"

double measure_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void measure_sleep_until(double when)
{
    struct timespec t = { .tv_sec = (time_t)when };

    t.tv_nsec = (long)((when - (double)t.tv_sec) * 1e9);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

void measure_die(const char *fmt, ...)
{
    va_list args;

    fflush(stdout);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

uint64_t measure_number(const char *text, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long long n;

    errno = 0;
    n = strtoull(text, &end, 10);
    if (errno || end == text || *end || n < min || n > max)
        measure_die("%s: not a number from %llu to %llu", text, (unsigned long long)min,
                    (unsigned long long)max);
    return n;
}

void measure_add(struct measure_samples *s, double value)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 1024;
        s->values = mem_grow(s->values, s->cap * sizeof *s->values);
    }
    s->values[s->n++] = value;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double measure_quantile(struct measure_samples *s, double q)
{
    double rank = ceil(q * (double)s->n);

    if (s->n == 0)
        return 0;
    qsort(s->values, s->n, sizeof *s->values, compare);
    return s->values[rank < 1 ? 0 : (size_t)rank - 1];
}

void measure_clear(struct measure_samples *s)
{
    s->n = 0;
}

void measure_free(struct measure_samples *s)
{
    free(s->values);
    *s = (struct measure_samples){ 0 };
}

void measure_round(struct measure_rounds *r, double ours, double reference)
{
    if (r->n == MEASURE_ROUNDS_MAX)
        measure_die("%s: more than %d rounds", r->name, MEASURE_ROUNDS_MAX);
    r->ours[r->n] = ours;
    r->reference[r->n++] = reference;
}

/* The middle one, or the mean of the two in the middle; sorts. */
static double median(double *v, unsigned n)
{
    qsort(v, n, sizeof *v, compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

struct measure_summary measure_summarise(const struct measure_rounds *r)
{
    double ours[MEASURE_ROUNDS_MAX], reference[MEASURE_ROUNDS_MAX], ratio[MEASURE_ROUNDS_MAX];
    struct measure_summary s = { 0 };

    if (r->n == 0)
        return s;
    memcpy(ours, r->ours, r->n * sizeof *ours);
    memcpy(reference, r->reference, r->n * sizeof *reference);
    for (unsigned i = 0; i < r->n; i++)
        ratio[i] = r->reference[i] > 0 ? r->ours[i] / r->reference[i] : 0;
    s.ours = median(ours, r->n);
    s.low = ours[0];
    s.high = ours[r->n - 1];
    s.reference = median(reference, r->n);
    if (s.reference > 0) {
        s.ratio_of_medians = s.ours / s.reference;
        s.median_of_ratios = median(ratio, r->n);
        s.low = ratio[0];
        s.high = ratio[r->n - 1];
    }
    return s;
}

static void add_to_file(const struct measure_rounds *r, const struct measure_summary *s)
{
    const char *path = getenv("BENCH_FIGURES");
    FILE *f = path ? fopen(path, "a") : NULL;

    if (!path)
        return;
    if (!f)
        measure_die("%s: %s", path, strerror(errno));
    fprintf(f, "%s\t%s\t%.6g\t", r->name, r->unit, s->ours);
    if (s->reference > 0)
        fprintf(f, "%.6g\t%.4g\t%.4g\t", s->reference, s->ratio_of_medians, s->median_of_ratios);
    else
        fprintf(f, "-\t-\t-\t");
    fprintf(f, "%.4g\t%.4g\t%u\n", s->low, s->high, r->n);
    if (fclose(f) != 0)
        measure_die("%s: %s", path, strerror(errno));
}

void measure_report(const struct measure_rounds *r)
{
    struct measure_summary s = measure_summarise(r);

    printf("%s: %s\n  %.5g %s", r->name, r->text, s.ours, r->unit);
    if (s.reference > 0)
        printf("; reference %.5g; ratio of medians %.3f, median of ratios %.3f", s.reference,
               s.ratio_of_medians, s.median_of_ratios);
    printf(" (%.4g to %.4g, %u rounds)\n", s.low, s.high, r->n);
    fflush(stdout);
    add_to_file(r, &s);
}
