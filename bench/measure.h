/* Figures: clocks, distributions, and rounds in which two things take turns.
 *
 * A figure that has a reference is measured against it in the same run, round by round, because a
 * machine that is shared or warms up changes both alike. Programs print each figure for people
 * and, when BENCH_FIGURES names a file, add a line to it: name, unit, our median, the reference's,
 * ratio of the medians, median of the ratios, least, most, rounds; tabs between, "-" for what
 * there is not. Least and most are of the ratios, or of our values when there is no reference. */
#ifndef WEIR_BENCH_MEASURE_H
#define WEIR_BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>

enum { MEASURE_ROUNDS_MAX = 100 };

/* Monotonic seconds; the same clock in every process. */
double measure_now(void);
/* Sleeps until the clock says so; returns at once when it is late. */
void measure_sleep_until(double when);
/* Ends the program with a line on stderr. */
void measure_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
/* A whole number from the command line within [min, max], or the end of the program. */
uint64_t measure_number(const char *text, uint64_t min, uint64_t max);

/* Values of one distribution. Zeroed is empty. */
struct measure_samples {
    double *values;
    size_t n, cap;
};
void measure_add(struct measure_samples *s, double value);
/* The value at or below which a share q (0..1) of them lies, by nearest rank; sorts. 0: empty. */
double measure_quantile(struct measure_samples *s, double q);
/* Empties without giving memory back. */
void measure_clear(struct measure_samples *s);
void measure_free(struct measure_samples *s);

struct measure_rounds {
    const char *name;
    const char *unit;
    const char *text; /* for people: what was done, on what terms */
    double ours[MEASURE_ROUNDS_MAX];
    double reference[MEASURE_ROUNDS_MAX];
    unsigned n;
};
struct measure_summary {
    double ours, reference; /* medians */
    double ratio_of_medians, median_of_ratios, low,
        high; /* without a reference: low, high of ours */
};
/* Adds a round; reference 0: there is none, in no round. */
void measure_round(struct measure_rounds *r, double ours, double reference);
struct measure_summary measure_summarise(const struct measure_rounds *r);
/* Prints the figure, and adds it to BENCH_FIGURES. */
void measure_report(const struct measure_rounds *r);

#endif
