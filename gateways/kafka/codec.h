/* The one engine that reads and writes every Kafka message from its rows (schema.h).
 *
 * `flex`: this version of the message is flexible: compact lengths (uvarint of length + 1),
 * and tagged fields after each struct. Source: Kafka protocol guide, "Protocol Primitive
 * Types"; KIP-482. */
#ifndef WEIR_GATEWAYS_KAFKA_CODEC_H
#define WEIR_GATEWAYS_KAFKA_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/rd.h"
#include "gateways/kafka/arena.h"
#include "gateways/kafka/schema.h"

enum {
    KAFKA_ARRAY_MAX = 1000000, /* elements */
    KAFKA_TAGS_MAX = 10000,    /* tagged fields after one struct */
    KAFKA_STRING_MAX = 32767   /* bytes */
};

struct kafka_form {
    int16_t version;
    bool flex;
};

/* n structs of s in the arena, holding their defaults. NULL past the arena's bound. */
void *kafka_message_new(struct kafka_arena *a, const struct schema *s, size_t n);
#define KAFKA_NEW(arena, name, n)                                                                  \
    ((struct kafka_##name *)kafka_message_new((arena), &kafka_##name##_schema, (n)))

/* Reads one message; strings and bytes point into what r reads, arrays are the arena's.
 * E_CORRUPT: short, over long, or null where it may not be; E_NOMEM: more than the arena
 * gives. */
int kafka_decode(const struct schema *s, struct kafka_form f, struct rd *r, struct kafka_arena *a,
                 void *msg) MUST_USE;

/* Bytes of msg as it would be written, and how many slices of records are among them. */
struct kafka_size {
    uint64_t bytes;
    uint64_t record_bytes; /* of them in slices, not copied */
    unsigned n_slices;
    unsigned n_records; /* fields that are slices */
};
struct kafka_size kafka_encoded_size(const struct schema *s, struct kafka_form f, const void *msg);

/* Writes msg to w, which has room for bytes - record_bytes, and the pieces to out (room for
 * n_slices + n_records + 1): runs of `in`, the buffer behind w, and the records' own slices,
 * each with a reference of its own. The first piece begins at w->start. Returns how many
 * pieces. */
unsigned kafka_encode(const struct schema *s, struct kafka_form f, const void *msg, struct wr *w,
                      struct buf *in, struct slice *out);

/* Writes msg as text, for people; cut off at cap. Returns bytes written without the closing
 * zero. */
size_t kafka_dump(const struct schema *s, struct kafka_form f, const void *msg, char *out,
                  size_t cap);

/* Strings. */
static inline bool kafka_str_is(struct kafka_str s, const char *text)
{
    return s.len >= 0 && strlen(text) == (size_t)s.len &&
           (s.len == 0 || !memcmp(s.mem, text, (size_t)s.len));
}
/* Borrows text; NULL is null. */
struct kafka_str kafka_str_of(const char *text);
bool kafka_uuid_is_none(const struct kafka_uuid *id);

#endif
