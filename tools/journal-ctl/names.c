#include "tools/journal-ctl/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/rd.h"

/* The rows are described at the head of gateways/topics/topics.c. */
enum { ROW_VERSION = 1, TOPIC_ROW_VERSION = 2, TOPIC_ROW = 'T', INTERNAL_ROW = 'I' };

static void name_add(struct names *names, const struct name *n)
{
    if (names->n == names->cap) {
        names->cap = names->cap ? names->cap * 2 : 64;
        names->list = mem_grow(names->list, names->cap * sizeof *names->list);
    }
    names->list[names->n++] = *n;
}

static char *text_of(const uint8_t *mem, size_t bytes)
{
    char *text = mem_new(bytes + 1);

    if (mem)
        memcpy(text, mem, bytes);
    return text;
}

static int topic_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                     size_t value_bytes)
{
    struct names *names = ctx;
    struct rd r = rd_of(value, value_bytes);
    uint8_t version = rd_u8(&r);
    size_t name_bytes = rd_u8(&r);
    const uint8_t *name = rd_bytes(&r, name_bytes);
    uint32_t n;

    rd_u64le(&r);
    n = rd_u32le(&r);
    if (!rd_ok(&r) || version == 0 || version > TOPIC_ROW_VERSION || n > rd_left(&r) / 8) {
        names->bad++;
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct name one = { .shard = rd_u64le(&r), .partition = i };

        one.topic = text_of(name, name_bytes);
        name_add(names, &one);
    }
    return 0;
}

static int internal_row(void *ctx, const void *key, size_t key_bytes, const void *value,
                        size_t value_bytes)
{
    struct names *names = ctx;
    struct rd r = rd_of(value, value_bytes);
    uint8_t version = rd_u8(&r);
    struct name one = { .shard = rd_u64le(&r), .internal = true };

    if (!rd_ok(&r) || version != ROW_VERSION) {
        names->bad++;
        return 0;
    }
    one.topic = text_of((const uint8_t *)key + 1, key_bytes - 1);
    name_add(names, &one);
    return 0;
}

static int by_shard(const void *a, const void *b)
{
    const struct name *x = a, *y = b;

    return x->shard < y->shard ? -1 : x->shard > y->shard;
}

int names_load(struct names *names, struct inspect *in)
{
    int rc = inspect_rows(in, "T", 1, topic_row, names);

    if (rc >= 0)
        rc = inspect_rows(in, "I", 1, internal_row, names);
    if (names->n)
        qsort(names->list, names->n, sizeof *names->list, by_shard);
    return rc < 0 ? rc : 0;
}

void names_free(struct names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->list[i].topic);
    free(names->list);
    *names = (struct names){ 0 };
}

const struct name *names_of(const struct names *names, uint64_t shard)
{
    struct name key = { .shard = shard };

    return names->n ? bsearch(&key, names->list, names->n, sizeof key, by_shard) : NULL;
}

bool names_number(const char *text, uint64_t *v)
{
    char *end;

    errno = 0;
    *v = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && errno == 0;
}

int names_find(const struct names *names, const char *text, uint64_t *shard)
{
    const char *slash = strrchr(text, '/');
    uint64_t partition;

    if (names_number(text, shard))
        return 0;
    if (!slash || !names_number(slash + 1, &partition))
        return E_NOTFOUND;
    for (size_t i = 0; i < names->n; i++) {
        const struct name *n = &names->list[i];

        if (!n->internal && n->partition == partition &&
            strlen(n->topic) == (size_t)(slash - text) &&
            memcmp(n->topic, text, (size_t)(slash - text)) == 0) {
            *shard = n->shard;
            return 0;
        }
    }
    return E_NOTFOUND;
}
