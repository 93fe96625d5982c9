/* Kafka messages as data. A message is an X-macro list; from it follow its C struct (here) and
 * the rows (schema.c) that one engine walks for decoding, encoding, bounds and dump (codec.h).
 *
 *   #define KAFKA_HEARTBEAT_REQUEST(F, M)                \
 *       F(M, STRING, group_id, 0, LAST)                  \
 *       F(M, INT32, generation_id, 0, LAST)              \
 *       F(M, STRING, group_instance_id, 3, LAST, NULLABLE)
 *
 * A row: type, name, first and last version that carry it, then any of
 *   NULLABLE, NULLABLE_FROM(version)   null is allowed (from that version on); such a field is
 *     null unless set
 *   TAG(n)                             a tagged field (flexible versions only); left out when
 *     it has its default
 *   DEFAULT(x)                         what it holds where the version has no such field; 0,
 *     empty or null otherwise
 * Types: BOOL INT8 INT16 INT32 INT64 UUID STRING BYTES RECORDS, INT32S and STRINGS (arrays of
 * them), STRUCT(name), ARRAY(name).
 *
 * A header of messages ends with a list of them, inner structs first, expanded there by
 * KAFKA_STRUCT and in schema.c by KAFKA_ROWS:
 *
 *   #define KAFKA_GROUP_MESSAGES(X) X(heartbeat_request, KAFKA_HEARTBEAT_REQUEST)
 *   KAFKA_GROUP_MESSAGES(KAFKA_STRUCT)
 *
 * gives struct kafka_heartbeat_request and kafka_heartbeat_request_schema. */
#ifndef WEIR_GATEWAYS_KAFKA_SCHEMA_H
#define WEIR_GATEWAYS_KAFKA_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Strings and bytes borrow from the request, or from whoever answers, until the answer is
 * encoded. A zeroed one is empty. What was decoded, or has its default, has mem NULL only when
 * it is null. */
struct kafka_str {
    const char *mem;
    int32_t len; /* -1: null */
};
struct kafka_bytes {
    const uint8_t *mem;
    int32_t len; /* -1: null */
};
/* Record batches: read as bytes of the request; written as slices, not copied, or, when there
 * are none, as bytes. */
struct kafka_records {
    const uint8_t *mem;
    int32_t len; /* -1: null; with slices their sum */
    unsigned n_slices;
    struct slice *slices;
};
struct kafka_uuid {
    uint8_t bytes[16]; /* all zero: none */
};
struct kafka_int32s {
    int32_t *at;
    int32_t n; /* -1: null */
};
struct kafka_strs {
    struct kafka_str *at;
    int32_t n; /* -1: null */
};

#define KAFKA_STR(text) ((struct kafka_str){ .mem = (text), .len = (int32_t)(sizeof(text) - 1) })
#define KAFKA_NULL      ((struct kafka_str){ .len = -1 })

enum schema_type {
    SCHEMA_BOOL,
    SCHEMA_INT8,
    SCHEMA_INT16,
    SCHEMA_INT32,
    SCHEMA_INT64,
    SCHEMA_UUID,
    SCHEMA_STRING,
    SCHEMA_BYTES,
    SCHEMA_RECORDS,
    SCHEMA_INT32S,
    SCHEMA_STRINGS,
    SCHEMA_STRUCT,
    SCHEMA_ARRAY
};

struct schema;

struct schema_field {
    const char *name;
    const struct schema *sub; /* of a struct or an array of them */
    int64_t def;
    uint16_t offset; /* in the C struct */
    int16_t min, max;
    int16_t null_from;
    uint8_t type;
    uint8_t tag;
    bool nullable;
    bool tagged;
};

struct schema {
    const char *name;
    const struct schema_field *fields;
    uint16_t n_fields;
    uint16_t size;  /* of the C struct */
    uint16_t align; /* of the C struct */
};

enum { LAST = 0x7fff };
#define NULLABLE         .nullable = true
#define NULLABLE_FROM(v) .nullable = true, .null_from = (v)
#define TAG(n)           .tagged = true, .tag = (n)
#define DEFAULT(x)       .def = (x)

/* --- the C struct of a message --- */

#define KAFKA_C_BOOL         bool
#define KAFKA_C_INT8         int8_t
#define KAFKA_C_INT16        int16_t
#define KAFKA_C_INT32        int32_t
#define KAFKA_C_INT64        int64_t
#define KAFKA_C_UUID         struct kafka_uuid
#define KAFKA_C_STRING       struct kafka_str
#define KAFKA_C_BYTES        struct kafka_bytes
#define KAFKA_C_RECORDS      struct kafka_records
#define KAFKA_C_INT32S       struct kafka_int32s
#define KAFKA_C_STRINGS      struct kafka_strs
#define KAFKA_C_STRUCT(name) struct kafka_##name
/* n is -1 for null */
#define KAFKA_C_ARRAY(name)                                                                        \
    struct {                                                                                       \
        struct kafka_##name *at;                                                                   \
        int32_t n;                                                                                 \
    }

#define KAFKA_MEMBER(M, TYPE, name, ...) KAFKA_C_##TYPE name;
#define KAFKA_STRUCT(name, LIST)                                                                   \
    struct kafka_##name {                                                                          \
        LIST(KAFKA_MEMBER, name)                                                                   \
    };                                                                                             \
    extern const struct schema kafka_##name##_schema;

/* --- its rows --- */

#define KAFKA_T_BOOL         SCHEMA_BOOL, NULL
#define KAFKA_T_INT8         SCHEMA_INT8, NULL
#define KAFKA_T_INT16        SCHEMA_INT16, NULL
#define KAFKA_T_INT32        SCHEMA_INT32, NULL
#define KAFKA_T_INT64        SCHEMA_INT64, NULL
#define KAFKA_T_UUID         SCHEMA_UUID, NULL
#define KAFKA_T_STRING       SCHEMA_STRING, NULL
#define KAFKA_T_BYTES        SCHEMA_BYTES, NULL
#define KAFKA_T_RECORDS      SCHEMA_RECORDS, NULL
#define KAFKA_T_INT32S       SCHEMA_INT32S, NULL
#define KAFKA_T_STRINGS      SCHEMA_STRINGS, NULL
#define KAFKA_T_STRUCT(name) SCHEMA_STRUCT, &kafka_##name##_schema
#define KAFKA_T_ARRAY(name)  SCHEMA_ARRAY, &kafka_##name##_schema

#define KAFKA_ROW_(the_type, the_sub) .type = the_type, .sub = the_sub
#define KAFKA_ROW_OF(...)             KAFKA_ROW_(__VA_ARGS__)
#define KAFKA_ROW(M, TYPE, the_name, first, last, ...)                                             \
    { .name = #the_name,                                                                           \
      KAFKA_ROW_OF(KAFKA_T_##TYPE),                                                                \
      .offset = offsetof(struct kafka_##M, the_name),                                              \
      .min = (first),                                                                              \
      .max = (last),                                                                               \
      __VA_ARGS__ },
#define KAFKA_ROWS(the_name, LIST)                                                                 \
    static const struct schema_field the_name##_fields[] = { LIST(KAFKA_ROW, the_name) };          \
    const struct schema kafka_##the_name##_schema = {                                              \
        .name = #the_name,                                                                         \
        .fields = the_name##_fields,                                                               \
        .n_fields = sizeof the_name##_fields / sizeof the_name##_fields[0],                        \
        .size = sizeof(struct kafka_##the_name),                                                   \
        .align = _Alignof(struct kafka_##the_name),                                                \
    };

#endif
