#include "tests/gateways/kafka_messages.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct any_array {
    uint8_t *at;
    int32_t n;
};

static void fill(struct kafka_arena *a, const struct schema *s, struct kafka_form f,
                 struct rng *rng, void *msg);

static int64_t number(struct rng *rng)
{
    static const int64_t edges[] = { 0,     1,         -1,        127,       -128,
                                     32767, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN };

    if (rng_chance(rng, 1, 2))
        return edges[rng_below(rng, sizeof edges / sizeof edges[0])];
    return (int64_t)rng_u64(rng);
}

/* Now and then so long that a compact length takes two bytes. */
static struct kafka_str text(struct kafka_arena *a, struct rng *rng)
{
    size_t n = rng_chance(rng, 1, 10) ? 100 + rng_below(rng, 200) : rng_below(rng, 12);
    char *mem = kafka_arena_take(a, n + 1);

    for (size_t i = 0; i < n; i++)
        mem[i] = (char)(' ' + rng_below(rng, 95));
    return (struct kafka_str){ .mem = mem, .len = (int32_t)n };
}

/* What Fetch does: records in slices of several buffers. The test that owns them gives them
 * back. */
static struct kafka_records records(struct kafka_arena *a, struct rng *rng)
{
    struct kafka_str s = text(a, rng);

    return (struct kafka_records){ .mem = (const uint8_t *)s.mem, .len = s.len };
}

static void fill_array(struct kafka_arena *a, const struct schema_field *field, struct kafka_form f,
                       struct rng *rng, struct any_array *v)
{
    v->n = (int32_t)rng_below(rng, 4);
    v->at = kafka_arena_take(a, (size_t)(v->n + 1) * (field->sub ? field->sub->size : 16));
    for (int32_t i = 0; i < v->n; i++) {
        if (field->type == SCHEMA_INT32S)
            ((int32_t *)(void *)v->at)[i] = (int32_t)number(rng);
        else if (field->type == SCHEMA_STRINGS)
            ((struct kafka_str *)(void *)v->at)[i] = text(a, rng);
        else
            fill(a, field->sub, f, rng, v->at + (size_t)i * field->sub->size);
    }
}

static void fill_field(struct kafka_arena *a, const struct schema_field *field, struct kafka_form f,
                       struct rng *rng, void *at)
{
    struct kafka_str s;

    switch ((enum schema_type)field->type) {
    case SCHEMA_BOOL:
        *(bool *)at = rng_chance(rng, 1, 2);
        break;
    case SCHEMA_INT8:
        *(int8_t *)at = (int8_t)number(rng);
        break;
    case SCHEMA_INT16:
        *(int16_t *)at = (int16_t)number(rng);
        break;
    case SCHEMA_INT32:
        *(int32_t *)at = (int32_t)number(rng);
        break;
    case SCHEMA_INT64:
        *(int64_t *)at = number(rng);
        break;
    case SCHEMA_UUID:
        for (unsigned i = 0; i < 16; i++)
            ((uint8_t *)at)[i] = (uint8_t)rng_u64(rng);
        break;
    case SCHEMA_STRING:
    case SCHEMA_BYTES:
        s = text(a, rng);
        memcpy(at, &s, sizeof s);
        break;
    case SCHEMA_RECORDS:
        *(struct kafka_records *)at = records(a, rng);
        break;
    case SCHEMA_STRUCT:
        fill(a, field->sub, f, rng, at);
        break;
    case SCHEMA_INT32S:
    case SCHEMA_STRINGS:
    case SCHEMA_ARRAY:
        fill_array(a, field, f, rng, at);
        break;
    }
}

static void fill(struct kafka_arena *a, const struct schema *s, struct kafka_form f,
                 struct rng *rng, void *msg)
{
    void *fresh = kafka_message_new(a, s, 1);

    memcpy(msg, fresh, s->size);
    for (unsigned i = 0; i < s->n_fields; i++) {
        const struct schema_field *field = &s->fields[i];
        bool may_be_null = field->nullable && f.version >= field->null_from;

        if (f.version < field->min || f.version > field->max || (field->tagged && !f.flex))
            continue;
        if ((field->tagged || may_be_null) && rng_chance(rng, 1, 3))
            continue; /* its default: null, or left out */
        fill_field(a, field, f, rng, (uint8_t *)msg + field->offset);
    }
    /* A nullable field whose default is null must hold something where null may not be. */
    for (unsigned i = 0; i < s->n_fields; i++) {
        const struct schema_field *field = &s->fields[i];

        if (field->nullable && f.version < field->null_from && f.version >= field->min &&
            f.version <= field->max)
            fill_field(a, field, f, rng, (uint8_t *)msg + field->offset);
    }
}

void *kafka_message_random(struct kafka_arena *a, const struct schema *s, struct kafka_form f,
                           struct rng *rng)
{
    void *msg = kafka_message_new(a, s, 1);

    fill(a, s, f, rng, msg);
    return msg;
}

uint8_t *kafka_message_bytes(const struct schema *s, struct kafka_form f, const void *msg,
                             size_t *bytes)
{
    struct kafka_size z = kafka_encoded_size(s, f, msg);
    struct slice *out = calloc(z.n_slices + z.n_records + 1, sizeof *out);
    struct buf *b = buf_new(z.bytes + 1);
    struct wr w = wr_of(b->mem, z.bytes - z.record_bytes);
    uint8_t *joined = malloc(z.bytes + 1);
    unsigned n = kafka_encode(s, f, msg, &w, b, out);

    *bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        memcpy(joined + *bytes, out[i].mem, out[i].len);
        *bytes += out[i].len;
        buf_unref(out[i].buf);
    }
    ASSERT(*bytes == z.bytes);
    buf_unref(b);
    free(out);
    return joined;
}
