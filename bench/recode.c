/* bench/recode [SECONDS]: CPU that it takes to give a batch another codec (format/batch.h, batch_recode), one
 * thread, per MiB of open records. The records look like JSON events of about 300 bytes, in batches of 16 KiB
 * and of 1 MiB. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/rng.h"
#include "bench/measure.h"
#include "format/batch.h"
#include "format/codec.h"

enum { TEXT = 400 };

static struct buf *events(size_t body, enum batch_codec codec)
{
    static const char *const what[] = { "view", "click", "order", "search", "logout" };
    struct batch_builder b = { 0 };
    struct buf *out;
    struct rng r;
    char text[TEXT];

    rng_seed(&r, 1);
    for (unsigned i = 0; b.body_bytes < body; i++) {
        int n =
            snprintf(text, sizeof text,
                     "{\"event\":\"%s\",\"user\":\"%08x\",\"session\":\"%016llx%016llx\",\"page\":"
                     "\"/shop/category/%u/item/%u\",\"agent\":\"Mozilla/5.0 (X11; Linux x86_64) "
                     "AppleWebKit/537.36\",\"took_ms\":%u,\"total\":%u.%02u,\"currency\":\"EUR\"}",
                     what[rng_below(&r, 5)], (unsigned)rng_u64(&r), (unsigned long long)rng_u64(&r),
                     (unsigned long long)rng_u64(&r), (unsigned)rng_below(&r, 40),
                     (unsigned)rng_below(&r, 100000), (unsigned)rng_below(&r, 900),
                     (unsigned)rng_below(&r, 200), (unsigned)rng_below(&r, 100));

        batch_builder_add(&b, &(struct batch_new_record){ .timestamp = 1700000000000 + i,
                                                          .value = text,
                                                          .value_bytes = (size_t)n });
    }
    if (batch_builder_finish(&b, codec, &out) < 0)
        measure_die("no batch");
    batch_builder_free(&b);
    return out;
}

/* CPU, not time: the machine may have more to do. */
static double cpu_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void one(size_t body, enum batch_codec from, enum batch_codec to, double seconds)
{
    struct buf *b = events(body, from), *out = NULL;
    double began = cpu_now(), took;
    uint64_t opened = 0;

    do {
        size_t room = SIZE_MAX;

        buf_unref(out);
        if (batch_recode(b->mem, b->len, to, &room, &out) < 0)
            measure_die("not recoded");
        opened += SIZE_MAX - room;
        took = cpu_now() - began;
    } while (took < seconds);
    printf("%4zu KiB  %-6s to %-6s  %6.2f ms per MiB  to %2.0f %%\n", body >> 10, codec_name(from),
           codec_name(to), took * 1e3 / ((double)opened / (1 << 20)),
           100.0 * out->len / (double)body);
    buf_unref(out);
    buf_unref(b);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 1;

    for (size_t body = 16 << 10; body <= 1 << 20; body *= 64) {
        for (enum batch_codec to = CODEC_GZIP; to < CODEC_COUNT; to++)
            one(body, CODEC_NONE, to, seconds);
        one(body, CODEC_LZ4, CODEC_NONE, seconds);
        one(body, CODEC_LZ4, CODEC_ZSTD, seconds);
    }
    return 0;
}
