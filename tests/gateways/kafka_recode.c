/* For test_kafka_codec_peer.py. Lines "request|response KEY VERSION HEX" on stdin: decodes and
 * encodes each, prints the hex, or "error". With the argument "make": prints such lines,
 * random messages of every version that is not flexible. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateways/kafka/api.h"
#include "tests/gateways/kafka_messages.h"

enum { ARENA_MAX = 64 << 20, PER_VERSION = 20, HEX_MAX = 1 << 20 };

static void print_hex(const uint8_t *mem, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        printf("%02x", mem[i]);
    printf("\n");
}

static void print_message(const struct schema *s, struct kafka_form f, const void *msg)
{
    size_t bytes;
    uint8_t *mem = kafka_message_bytes(s, f, msg, &bytes);

    print_hex(mem, bytes);
    free(mem);
}

static void make(const struct kafka_api *api, int16_t version, struct rng *rng)
{
    struct kafka_form f = { .version = version };
    const struct schema *both[] = { api->request, api->response };

    for (unsigned i = 0; i < PER_VERSION; i++) {
        struct kafka_arena a;

        kafka_arena_init(&a, ARENA_MAX);
        printf("%s %d %d ", i % 2 ? "response" : "request", api->key, version);
        print_message(both[i % 2], f, kafka_message_random(&a, both[i % 2], f, rng));
        kafka_arena_fini(&a);
    }
}

static void make_all(void)
{
    struct rng rng;

    rng_seed(&rng, 5);
    for (unsigned i = 0; kafka_api_at(i); i++)
        for (int16_t v = kafka_api_at(i)->min; v <= kafka_api_at(i)->max; v++)
            if (v < kafka_api_at(i)->flex)
                make(kafka_api_at(i), v, &rng);
}

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t n = 0;
    unsigned byte;

    while (sscanf(hex + 2 * n, "%2x", &byte) == 1)
        out[n++] = (uint8_t)byte;
    return n;
}

static void recode(const struct schema *s, struct kafka_form f, const uint8_t *mem, size_t bytes)
{
    struct kafka_arena a;
    struct rd r = rd_of(mem, bytes);
    void *msg;

    kafka_arena_init(&a, ARENA_MAX);
    msg = kafka_message_new(&a, s, 1);
    if (kafka_decode(s, f, &r, &a, msg) < 0 || rd_left(&r))
        printf("error\n");
    else
        print_message(s, f, msg);
    kafka_arena_fini(&a);
}

int main(int argc, char **argv)
{
    static char line[HEX_MAX], hex[HEX_MAX];
    static uint8_t bytes[HEX_MAX / 2];
    char kind[16];
    int key, version;

    if (argc > 1 && !strcmp(argv[1], "make")) {
        make_all();
        return 0;
    }
    while (fgets(line, sizeof line, stdin)) {
        const struct kafka_api *api;

        hex[0] = 0;
        if (sscanf(line, "%15s %d %d %s", kind, &key, &version, hex) < 3)
            return 2;
        api = kafka_api_find((int16_t)key);
        if (!api)
            return 2;
        recode(!strcmp(kind, "request") ? api->request : api->response,
               (struct kafka_form){ .version = (int16_t)version, .flex = version >= api->flex },
               bytes, from_hex(hex, bytes));
    }
    return 0;
}
