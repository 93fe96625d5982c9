/* bench/raw: what the device gives without us.
 *
 *   raw latency [-n COUNT] [-s BYTES] [-m MIB] FILE   pwrite of BYTES, in whole 4 KiB; fdatasync
 *   raw stream  [-t SECONDS] [-m MIB] FILE            libaio, 1 MiB, 8 at once, no sync
 *   raw scan    FILE...                               read all of it once, crc32c
 *   raw stalls  [-t SECONDS]                          how long a core is away while all compute
 *
 * FILE is made (-m: of that size) and removed again, except by scan. A stall is what a virtual machine
 * is not told of: no tail of latencies on that machine is better while its cores are busy. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/measure.h"
#include "bench/raw_io.h"

enum { CORES_MAX = 256 };

static struct {
    uint64_t count, bytes, mib, seconds;
} opt = { .count = 10000, .bytes = 1024, .mib = 256, .seconds = 5 };

static void latency(const char *path)
{
    struct measure_samples s = { 0 };
    struct raw_file f;

    raw_create(&f, path, opt.mib << 20, (uint32_t)opt.bytes);
    for (uint64_t i = 0; i < opt.count; i++)
        measure_add(&s, 1e6 * raw_write_sync(&f, (uint32_t)opt.bytes));
    printf("write and fdatasync of %" PRIu64 " bytes: p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f us"
           "  (%" PRIu64 " times)\n",
           opt.bytes, measure_quantile(&s, 0.5), measure_quantile(&s, 0.9),
           measure_quantile(&s, 0.99), measure_quantile(&s, 0.999), opt.count);
    measure_free(&s);
    raw_remove(&f);
}

static void stream(const char *path)
{
    struct raw_file f;

    raw_create(&f, path, opt.mib << 20, 1 << 20);
    printf("1 MiB writes, 8 at once, no sync: %.0f MB/s\n",
           raw_stream(&f, 1 << 20, 8, (double)opt.seconds) / 1e6);
    raw_remove(&f);
}

static void scan(char *const *paths, unsigned n)
{
    struct raw_scan s = raw_scan(paths, n, UINT64_MAX);

    printf("scan with crc32c: %" PRIu64 " bytes in %.3f s, %.0f MB/s, crc %08" PRIx32 "\n", s.bytes,
           s.seconds, (double)s.bytes / s.seconds / 1e6, s.crc);
}

/* Of one core: pauses of a thread that only reads the clock. */
struct stalls {
    pthread_t thread;
    unsigned n, n_long;   /* of 1 ms and more, of 3 ms and more */
    double lost, longest; /* in those; seconds */
};

static void *stalls_run(void *arg)
{
    struct stalls *s = arg;
    double last = measure_now(), until = last + (double)opt.seconds;

    while (last < until) {
        double now = measure_now(), away = now - last;

        if (away >= 1e-3) {
            s->n++;
            s->n_long += away >= 3e-3;
            s->lost += away;
            s->longest = away > s->longest ? away : s->longest;
        }
        last = now;
    }
    return NULL;
}

static void stalls(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    struct stalls list[CORES_MAX] = { 0 };

    n = n < 1 ? 1 : n < CORES_MAX ? n : CORES_MAX;
    for (long i = 0; i < n; i++)
        if (pthread_create(&list[i].thread, NULL, stalls_run, &list[i]) != 0)
            measure_die("no thread");
    for (long i = 0; i < n; i++) {
        pthread_join(list[i].thread, NULL);
        printf("core %ld: away for 1 ms %u times, 3 ms %u times, at most %.1f ms; %.2f %% lost\n",
               i, list[i].n, list[i].n_long, 1e3 * list[i].longest,
               100 * list[i].lost / (double)opt.seconds);
    }
}

static int usage(void)
{
    fprintf(stderr,
            "usage: raw latency|stream|scan|stalls [-n COUNT] [-s BYTES] [-m MIB] [-t SECONDS] "
            "FILE...\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    int o;

    optind = 2;
    while ((o = getopt(argc, argv, "n:s:m:t:")) != -1) {
        if (o == 'n')
            opt.count = measure_number(optarg, 1, 100000000);
        else if (o == 's')
            opt.bytes = measure_number(optarg, 1, 64 << 20);
        else if (o == 'm')
            opt.mib = measure_number(optarg, 1, 1 << 20);
        else if (o == 't')
            opt.seconds = measure_number(optarg, 1, 3600);
        else
            return usage();
    }
    if (strcmp(verb, "stalls") == 0) {
        stalls();
        return 0;
    }
    if (optind >= argc)
        return usage();
    if (strcmp(verb, "latency") == 0)
        latency(argv[optind]);
    else if (strcmp(verb, "stream") == 0)
        stream(argv[optind]);
    else if (strcmp(verb, "scan") == 0)
        scan(argv + optind, (unsigned)(argc - optind));
    else
        return usage();
    return 0;
}
