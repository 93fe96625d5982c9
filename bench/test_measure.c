/* The arithmetic behind the figures: run by bench/run.sh before anything else. */
#include "bench/measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failures; /* of the test that runs */

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

static void test_quantiles_are_by_nearest_rank(void)
{
    struct measure_samples s = { 0 };

    CHECK(measure_quantile(&s, 0.5) == 0);
    for (int i = 100; i >= 1; i--)
        measure_add(&s, i);
    CHECK(measure_quantile(&s, 0) == 1);
    CHECK(measure_quantile(&s, 0.5) == 50);
    CHECK(measure_quantile(&s, 0.99) == 99);
    CHECK(measure_quantile(&s, 0.999) == 100);
    CHECK(measure_quantile(&s, 1) == 100);
    measure_clear(&s);
    measure_add(&s, 7);
    CHECK(measure_quantile(&s, 0.01) == 7);
    measure_free(&s);
}

static void test_ratios_are_taken_round_by_round(void)
{
    struct measure_rounds r = { .name = "x", .unit = "u", .text = "t" };
    struct measure_summary s;

    /* Ratios 2, 3 and 1/2; medians 30 and 10. */
    measure_round(&r, 20, 10);
    measure_round(&r, 30, 10);
    measure_round(&r, 50, 100);
    s = measure_summarise(&r);
    CHECK(s.ours == 30);
    CHECK(s.reference == 10);
    CHECK(s.ratio_of_medians == 3);
    CHECK(s.median_of_ratios == 2);
    CHECK(s.low == 0.5);
    CHECK(s.high == 3);
}

static void test_without_a_reference_the_spread_is_of_the_values(void)
{
    struct measure_rounds r = { .name = "x", .unit = "u", .text = "t" };
    struct measure_summary s;

    measure_round(&r, 4, 0);
    measure_round(&r, 1, 0);
    s = measure_summarise(&r);
    CHECK(s.ours == 2.5);
    CHECK(s.low == 1);
    CHECK(s.high == 4);
    CHECK(s.reference == 0);
    CHECK(s.median_of_ratios == 0);
}

static void test_a_sleep_is_never_short(void)
{
    double began = measure_now();

    measure_sleep_until(began + 0.002);
    CHECK(measure_now() >= began + 0.002);
    measure_sleep_until(began); /* in the past: returns */
}

static void test_a_figure_adds_one_line_to_the_file(void)
{
    struct measure_rounds r = { .name = "x", .unit = "u", .text = "t" };
    char path[] = "/tmp/weir-measure-XXXXXX", line[256] = "";
    int fd = mkstemp(path);
    FILE *f;

    CHECK(fd >= 0);
    setenv("BENCH_FIGURES", path, 1);
    measure_round(&r, 3, 2);
    measure_report(&r);
    unsetenv("BENCH_FIGURES");
    f = fdopen(fd, "r");
    CHECK(f && fgets(line, sizeof line, f));
    CHECK(strcmp(line, "x\tu\t3\t2\t1.5\t1.5\t1.5\t1.5\t1\n") == 0);
    CHECK(f && !fgets(line, sizeof line, f));
    if (f)
        fclose(f);
    unlink(path);
}

int main(void)
{
    static void (*const tests[])(
        void) = { test_quantiles_are_by_nearest_rank, test_ratios_are_taken_round_by_round,
                  test_without_a_reference_the_spread_is_of_the_values, test_a_sleep_is_never_short,
                  test_a_figure_adds_one_line_to_the_file };
    int n = sizeof tests / sizeof tests[0], failed = 0;

    for (int i = 0; i < n; i++) {
        failures = 0;
        tests[i]();
        failed += failures > 0;
    }
    printf("%d passed, %d failed\n", n - failed, failed);
    return failed > 0;
}
