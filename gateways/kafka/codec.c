#include "gateways/kafka/codec.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct kafka_str kafka_str_of(const char *text)
{
    if (!text)
        return KAFKA_NULL;
    return (struct kafka_str){ .mem = text, .len = (int32_t)strlen(text) };
}

bool kafka_uuid_is_none(const struct kafka_uuid *id)
{
    static const struct kafka_uuid none;

    return !memcmp(id, &none, sizeof none);
}

static bool field_in(const struct schema_field *f, struct kafka_form form)
{
    return form.version >= f->min && form.version <= f->max && (!f->tagged || form.flex);
}

static bool field_nullable(const struct schema_field *f, struct kafka_form form)
{
    return f->nullable && form.version >= f->null_from;
}

/* --- defaults --- */

static void set_defaults(const struct schema *s, void *msg);

static void field_default(const struct schema_field *f, void *at)
{
    switch ((enum schema_type)f->type) {
    case SCHEMA_BOOL:
        *(bool *)at = f->def != 0;
        break;
    case SCHEMA_INT8:
        *(int8_t *)at = (int8_t)f->def;
        break;
    case SCHEMA_INT16:
        *(int16_t *)at = (int16_t)f->def;
        break;
    case SCHEMA_INT32:
        *(int32_t *)at = (int32_t)f->def;
        break;
    case SCHEMA_INT64:
        *(int64_t *)at = f->def;
        break;
    case SCHEMA_UUID:
        *(struct kafka_uuid *)at = (struct kafka_uuid){ { 0 } };
        break;
    case SCHEMA_STRING:
    case SCHEMA_BYTES: /* the same shape */
        *(struct kafka_str *)at = f->nullable ? KAFKA_NULL : KAFKA_STR("");
        break;
    case SCHEMA_RECORDS:
        *(struct kafka_records *)at =
            (struct kafka_records){ .mem = (const uint8_t *)"", .len = f->nullable ? -1 : 0 };
        break;
    case SCHEMA_INT32S:
    case SCHEMA_STRINGS:
    case SCHEMA_ARRAY: /* the same shape */
        *(struct kafka_int32s *)at = (struct kafka_int32s){ .n = f->nullable ? -1 : 0 };
        break;
    case SCHEMA_STRUCT:
        set_defaults(f->sub, at);
        break;
    }
}

static void set_defaults(const struct schema *s, void *msg)
{
    for (unsigned i = 0; i < s->n_fields; i++)
        field_default(&s->fields[i], (uint8_t *)msg + s->fields[i].offset);
}

/* Arrays of structs are reached through this shape, whatever the struct. */
struct any_array {
    uint8_t *at;
    int32_t n;
};

void *kafka_message_new(struct kafka_arena *a, const struct schema *s, size_t n)
{
    uint8_t *mem = n > SIZE_MAX / s->size ? NULL : kafka_arena_take(a, n * s->size);

    if (mem)
        for (size_t i = 0; i < n; i++)
            set_defaults(s, mem + i * s->size);
    return mem;
}

/* --- decoding --- */

struct decoder {
    struct rd *r;
    struct kafka_arena *arena;
    struct kafka_form form;
};

static int decode_struct(struct decoder *d, const struct schema *s, void *msg);

/* The length of what follows, -1 for null; -2 (and bad) when it cannot be. */
static int64_t decode_length(struct decoder *d, unsigned plain_bytes)
{
    uint64_t n;

    if (d->form.flex) {
        n = rd_uvarint(d->r, 5);
        return rd_ok(d->r) && n <= (uint64_t)INT32_MAX + 1 ? (int64_t)n - 1 : -2;
    }
    if (plain_bytes == 2)
        return (int16_t)rd_u16be(d->r);
    return (int32_t)rd_u32be(d->r);
}

/* Checks a length against its bound, what is left and whether null may be: 1 go on, 0 null, or
 * an error. */
static int length_check(struct decoder *d, const struct schema_field *f, int64_t n, int64_t max)
{
    if (!rd_ok(d->r) || n < -1)
        return E_CORRUPT;
    if (n == -1)
        return field_nullable(f, d->form) ? 0 : E_CORRUPT;
    return n <= max && (uint64_t)n <= rd_left(d->r) ? 1 : E_CORRUPT;
}

static int decode_bytes(struct decoder *d, const struct schema_field *f, void *at)
{
    bool string = f->type == SCHEMA_STRING;
    int64_t n = decode_length(d, string ? 2 : 4);
    int rc = length_check(d, f, n, string ? KAFKA_STRING_MAX : INT32_MAX);
    const uint8_t *mem;

    if (rc < 0)
        return rc;
    mem = n >= 0 ? rd_bytes(d->r, (size_t)n) : NULL;
    if (f->type == SCHEMA_RECORDS)
        *(struct kafka_records *)at = (struct kafka_records){ .mem = mem, .len = (int32_t)n };
    else
        *(struct kafka_bytes *)at = (struct kafka_bytes){ .mem = mem, .len = (int32_t)n };
    return 0;
}

static int decode_int32s(struct decoder *d, const struct schema_field *f, void *at)
{
    struct kafka_int32s *a = at;
    int64_t n = decode_length(d, 4);
    int rc = length_check(d, f, n, KAFKA_ARRAY_MAX);

    if (rc < 0)
        return rc;
    *a = (struct kafka_int32s){ .n = (int32_t)n };
    if (n <= 0)
        return 0;
    if ((uint64_t)n * 4 > rd_left(d->r))
        return E_CORRUPT;
    a->at = kafka_arena_take(d->arena, (size_t)n * 4);
    if (!a->at)
        return E_NOMEM;
    for (int32_t i = 0; i < a->n; i++)
        a->at[i] = (int32_t)rd_u32be(d->r);
    return 0;
}

static int decode_strings(struct decoder *d, const struct schema_field *f, void *at)
{
    static const struct schema_field element = { .name = "element", .type = SCHEMA_STRING };
    struct kafka_strs *a = at;
    int64_t n = decode_length(d, 4);
    int rc = length_check(d, f, n, KAFKA_ARRAY_MAX);

    if (rc < 0)
        return rc;
    *a = (struct kafka_strs){ .n = (int32_t)n };
    if (n <= 0)
        return 0;
    a->at = kafka_arena_take(d->arena, (size_t)n * sizeof *a->at);
    if (!a->at)
        return E_NOMEM;
    for (int32_t i = 0; i < a->n; i++) {
        rc = decode_bytes(d, &element, &a->at[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int decode_array(struct decoder *d, const struct schema_field *f, void *at)
{
    struct any_array *a = at;
    int64_t n = decode_length(d, 4);
    int rc = length_check(d, f, n, KAFKA_ARRAY_MAX);

    if (rc < 0)
        return rc;
    *a = (struct any_array){ .n = (int32_t)n };
    if (n <= 0)
        return 0;
    a->at = kafka_arena_take(d->arena, (size_t)n * f->sub->size);
    if (!a->at)
        return E_NOMEM;
    for (int32_t i = 0; i < a->n; i++) {
        rc = decode_struct(d, f->sub, a->at + (size_t)i * f->sub->size);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int decode_field(struct decoder *d, const struct schema_field *f, void *at)
{
    const uint8_t *p;

    switch ((enum schema_type)f->type) {
    case SCHEMA_BOOL:
        *(bool *)at = rd_u8(d->r) != 0;
        break;
    case SCHEMA_INT8:
        *(int8_t *)at = (int8_t)rd_u8(d->r);
        break;
    case SCHEMA_INT16:
        *(int16_t *)at = (int16_t)rd_u16be(d->r);
        break;
    case SCHEMA_INT32:
        *(int32_t *)at = (int32_t)rd_u32be(d->r);
        break;
    case SCHEMA_INT64:
        *(int64_t *)at = (int64_t)rd_u64be(d->r);
        break;
    case SCHEMA_UUID:
        p = rd_bytes(d->r, 16);
        if (p)
            memcpy(at, p, 16);
        break;
    case SCHEMA_STRING:
    case SCHEMA_BYTES:
    case SCHEMA_RECORDS:
        return decode_bytes(d, f, at);
    case SCHEMA_INT32S:
        return decode_int32s(d, f, at);
    case SCHEMA_STRINGS:
        return decode_strings(d, f, at);
    case SCHEMA_STRUCT:
        return decode_struct(d, f->sub, at);
    case SCHEMA_ARRAY:
        return decode_array(d, f, at);
    }
    return rd_ok(d->r) ? 0 : E_CORRUPT;
}

static const struct schema_field *tagged_field(const struct schema *s, struct kafka_form form,
                                               uint64_t tag)
{
    for (unsigned i = 0; i < s->n_fields; i++)
        if (s->fields[i].tagged && s->fields[i].tag == tag && field_in(&s->fields[i], form))
            return &s->fields[i];
    return NULL;
}

/* A tagged field that we know must fill its bytes exactly. */
static int decode_tag(struct decoder *d, const struct schema_field *f, const uint8_t *mem,
                      size_t bytes, void *msg)
{
    struct rd inner = rd_of(mem, bytes);
    struct decoder sub = { .r = &inner, .arena = d->arena, .form = d->form };
    int rc = decode_field(&sub, f, (uint8_t *)msg + f->offset);

    if (rc < 0)
        return rc;
    return rd_left(&inner) ? E_CORRUPT : 0;
}

/* Tagged fields: count, then tag, bytes, content each. What we do not know is stepped over. */
static int decode_tags(struct decoder *d, const struct schema *s, void *msg)
{
    uint64_t n = rd_uvarint(d->r, 5);

    if (!rd_ok(d->r) || n > KAFKA_TAGS_MAX)
        return E_CORRUPT;
    while (n-- > 0) {
        uint64_t tag = rd_uvarint(d->r, 5);
        uint64_t bytes = rd_uvarint(d->r, 5);
        const uint8_t *p = rd_ok(d->r) ? rd_bytes(d->r, (size_t)bytes) : NULL;
        const struct schema_field *f = p ? tagged_field(s, d->form, tag) : NULL;
        int rc = !p ? E_CORRUPT : f ? decode_tag(d, f, p, (size_t)bytes, msg) : 0;

        if (rc < 0)
            return rc;
    }
    return 0;
}

static int decode_struct(struct decoder *d, const struct schema *s, void *msg)
{
    int rc;

    for (unsigned i = 0; i < s->n_fields; i++) {
        const struct schema_field *f = &s->fields[i];
        void *at = (uint8_t *)msg + f->offset;

        if (f->tagged || !field_in(f, d->form)) {
            field_default(f, at);
            continue;
        }
        rc = decode_field(d, f, at);
        if (rc < 0)
            return rc;
    }
    return d->form.flex ? decode_tags(d, s, msg) : 0;
}

int kafka_decode(const struct schema *s, struct kafka_form f, struct rd *r, struct kafka_arena *a,
                 void *msg)
{
    struct decoder d = { .r = r, .arena = a, .form = f };
    int rc = decode_struct(&d, s, msg);

    return rc < 0 ? rc : rd_ok(r) ? 0 : E_CORRUPT;
}

/* --- sizes --- */

static unsigned uvarint_bytes(uint64_t v)
{
    unsigned n = 1;

    while (v >>= 7)
        n++;
    return n;
}

static unsigned length_bytes(struct kafka_form form, int64_t n, unsigned plain_bytes)
{
    return form.flex ? uvarint_bytes((uint64_t)(n + 1)) : plain_bytes;
}

static void size_struct(struct kafka_size *z, const struct schema *s, struct kafka_form form,
                        const void *msg);

static void size_records(struct kafka_size *z, struct kafka_form form,
                         const struct kafka_records *v)
{
    z->bytes += length_bytes(form, v->len, 4) + (uint64_t)(v->len > 0 ? v->len : 0);
    if (!v->n_slices)
        return;
    z->record_bytes += (uint64_t)v->len;
    z->n_slices += v->n_slices;
    z->n_records++;
}

static void size_strings(struct kafka_size *z, struct kafka_form form, const struct kafka_strs *v)
{
    z->bytes += length_bytes(form, v->n, 4);
    for (int32_t i = 0; i < v->n; i++)
        z->bytes += length_bytes(form, v->at[i].len, 2) + (uint64_t)v->at[i].len;
}

static void size_array(struct kafka_size *z, const struct schema *sub, struct kafka_form form,
                       const struct any_array *v)
{
    z->bytes += length_bytes(form, v->n, 4);
    for (int32_t i = 0; i < v->n; i++)
        size_struct(z, sub, form, v->at + (size_t)i * sub->size);
}

static void size_field(struct kafka_size *z, const struct schema_field *f, struct kafka_form form,
                       const void *at)
{
    static const uint8_t fixed[] = { [SCHEMA_BOOL] = 1,  [SCHEMA_INT8] = 1,  [SCHEMA_INT16] = 2,
                                     [SCHEMA_INT32] = 4, [SCHEMA_INT64] = 8, [SCHEMA_UUID] = 16 };
    const struct kafka_str *str = at;
    const struct kafka_int32s *ints = at;

    switch ((enum schema_type)f->type) {
    case SCHEMA_BOOL:
    case SCHEMA_INT8:
    case SCHEMA_INT16:
    case SCHEMA_INT32:
    case SCHEMA_INT64:
    case SCHEMA_UUID:
        z->bytes += fixed[f->type];
        break;
    case SCHEMA_STRING:
    case SCHEMA_BYTES:
        z->bytes += length_bytes(form, str->len, f->type == SCHEMA_STRING ? 2 : 4) +
                    (uint64_t)(str->len > 0 ? str->len : 0);
        break;
    case SCHEMA_RECORDS:
        size_records(z, form, at);
        break;
    case SCHEMA_INT32S:
        z->bytes += length_bytes(form, ints->n, 4) + 4 * (uint64_t)(ints->n > 0 ? ints->n : 0);
        break;
    case SCHEMA_STRINGS:
        size_strings(z, form, at);
        break;
    case SCHEMA_STRUCT:
        size_struct(z, f->sub, form, at);
        break;
    case SCHEMA_ARRAY:
        size_array(z, f->sub, form, at);
        break;
    }
}

static bool has_default(const struct schema_field *f, const void *at);

static bool struct_has_defaults(const struct schema *s, const void *msg)
{
    for (unsigned i = 0; i < s->n_fields; i++)
        if (!has_default(&s->fields[i], (const uint8_t *)msg + s->fields[i].offset))
            return false;
    return true;
}

/* Whether a tagged field may be left out. */
static bool has_default(const struct schema_field *f, const void *at)
{
    switch ((enum schema_type)f->type) {
    case SCHEMA_BOOL:
        return *(const bool *)at == (f->def != 0);
    case SCHEMA_INT8:
        return *(const int8_t *)at == f->def;
    case SCHEMA_INT16:
        return *(const int16_t *)at == f->def;
    case SCHEMA_INT32:
        return *(const int32_t *)at == f->def;
    case SCHEMA_INT64:
        return *(const int64_t *)at == f->def;
    case SCHEMA_UUID:
        return kafka_uuid_is_none(at);
    case SCHEMA_STRING:
    case SCHEMA_BYTES:
        return ((const struct kafka_str *)at)->len == (f->nullable ? -1 : 0);
    case SCHEMA_RECORDS:
        return ((const struct kafka_records *)at)->len == (f->nullable ? -1 : 0);
    case SCHEMA_INT32S:
    case SCHEMA_STRINGS:
    case SCHEMA_ARRAY:
        return ((const struct any_array *)at)->n == (f->nullable ? -1 : 0);
    case SCHEMA_STRUCT:
        return struct_has_defaults(f->sub, at);
    }
    return false;
}

static bool tag_present(const struct schema_field *f, struct kafka_form form, const void *msg)
{
    return f->tagged && field_in(f, form) && !has_default(f, (const uint8_t *)msg + f->offset);
}

static void size_tags(struct kafka_size *z, const struct schema *s, struct kafka_form form,
                      const void *msg)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->n_fields; i++) {
        const struct schema_field *f = &s->fields[i];
        uint64_t before = z->bytes;

        if (!tag_present(f, form, msg))
            continue;
        n++;
        size_field(z, f, form, (const uint8_t *)msg + f->offset);
        z->bytes += uvarint_bytes(f->tag) + uvarint_bytes(z->bytes - before);
    }
    z->bytes += uvarint_bytes(n);
}

static void size_struct(struct kafka_size *z, const struct schema *s, struct kafka_form form,
                        const void *msg)
{
    for (unsigned i = 0; i < s->n_fields; i++) {
        const struct schema_field *f = &s->fields[i];

        if (!f->tagged && field_in(f, form))
            size_field(z, f, form, (const uint8_t *)msg + f->offset);
    }
    if (form.flex)
        size_tags(z, s, form, msg);
}

struct kafka_size kafka_encoded_size(const struct schema *s, struct kafka_form f, const void *msg)
{
    struct kafka_size z = { 0 };

    size_struct(&z, s, f, msg);
    return z;
}

/* --- encoding --- */

struct encoder {
    struct wr *w;
    struct buf *in;
    struct slice *out;
    unsigned n_out;
    const uint8_t *piece; /* start of the run that is not in out yet */
    struct kafka_form form;
};

static void encode_struct(struct encoder *e, const struct schema *s, const void *msg);

static void end_piece(struct encoder *e)
{
    uint32_t n = (uint32_t)(e->w->at - e->piece);

    if (n)
        e->out[e->n_out++] = (struct slice){ .buf = buf_ref(e->in), .mem = e->piece, .len = n };
    e->piece = e->w->at;
}

static void encode_length(struct encoder *e, int64_t n, unsigned plain_bytes)
{
    if (e->form.flex)
        wr_uvarint(e->w, (uint64_t)(n + 1));
    else if (plain_bytes == 2)
        wr_u16be(e->w, (uint16_t)n);
    else
        wr_u32be(e->w, (uint32_t)n);
}

static void encode_bytes(struct encoder *e, const void *mem, int32_t len, unsigned plain_bytes)
{
    encode_length(e, len, plain_bytes);
    if (len > 0)
        wr_bytes(e->w, mem, (size_t)len);
}

static void encode_records(struct encoder *e, const struct kafka_records *v)
{
    if (!v->n_slices) {
        encode_bytes(e, v->mem, v->len, 4);
        return;
    }
    encode_length(e, v->len, 4);
    end_piece(e);
    for (unsigned i = 0; i < v->n_slices; i++) {
        buf_ref(v->slices[i].buf);
        e->out[e->n_out++] = v->slices[i];
    }
}

static void encode_strings(struct encoder *e, const struct kafka_strs *v)
{
    encode_length(e, v->n, 4);
    for (int32_t i = 0; i < v->n; i++)
        encode_bytes(e, v->at[i].mem, v->at[i].len, 2);
}

static void encode_int32s(struct encoder *e, const struct kafka_int32s *v)
{
    encode_length(e, v->n, 4);
    for (int32_t i = 0; i < v->n; i++)
        wr_u32be(e->w, (uint32_t)v->at[i]);
}

static void encode_array(struct encoder *e, const struct schema *sub, const struct any_array *v)
{
    encode_length(e, v->n, 4);
    for (int32_t i = 0; i < v->n; i++)
        encode_struct(e, sub, v->at + (size_t)i * sub->size);
}

static void encode_field(struct encoder *e, const struct schema_field *f, const void *at)
{
    const struct kafka_str *str = at;

    switch ((enum schema_type)f->type) {
    case SCHEMA_BOOL:
        wr_u8(e->w, *(const bool *)at);
        break;
    case SCHEMA_INT8:
        wr_u8(e->w, (uint8_t) * (const int8_t *)at);
        break;
    case SCHEMA_INT16:
        wr_u16be(e->w, (uint16_t) * (const int16_t *)at);
        break;
    case SCHEMA_INT32:
        wr_u32be(e->w, (uint32_t) * (const int32_t *)at);
        break;
    case SCHEMA_INT64:
        wr_u64be(e->w, (uint64_t) * (const int64_t *)at);
        break;
    case SCHEMA_UUID:
        wr_bytes(e->w, at, 16);
        break;
    case SCHEMA_STRING:
    case SCHEMA_BYTES:
        ASSERT(str->len >= 0 || field_nullable(f, e->form));
        encode_bytes(e, str->mem, str->len, f->type == SCHEMA_STRING ? 2 : 4);
        break;
    case SCHEMA_RECORDS:
        encode_records(e, at);
        break;
    case SCHEMA_INT32S:
        encode_int32s(e, at);
        break;
    case SCHEMA_STRINGS:
        encode_strings(e, at);
        break;
    case SCHEMA_STRUCT:
        encode_struct(e, f->sub, at);
        break;
    case SCHEMA_ARRAY:
        encode_array(e, f->sub, at);
        break;
    }
}

static void encode_tag(struct encoder *e, const struct schema_field *f, const void *at)
{
    struct kafka_size z = { 0 };

    size_field(&z, f, e->form, at);
    wr_uvarint(e->w, f->tag);
    wr_uvarint(e->w, z.bytes);
    encode_field(e, f, at);
}

/* Tags are written in rising order, as the protocol asks; rows list them so. */
static void encode_tags(struct encoder *e, const struct schema *s, const void *msg)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->n_fields; i++)
        n += tag_present(&s->fields[i], e->form, msg);
    wr_uvarint(e->w, n);
    for (unsigned i = 0; n && i < s->n_fields; i++)
        if (tag_present(&s->fields[i], e->form, msg))
            encode_tag(e, &s->fields[i], (const uint8_t *)msg + s->fields[i].offset);
}

static void encode_struct(struct encoder *e, const struct schema *s, const void *msg)
{
    for (unsigned i = 0; i < s->n_fields; i++) {
        const struct schema_field *f = &s->fields[i];

        if (!f->tagged && field_in(f, e->form))
            encode_field(e, f, (const uint8_t *)msg + f->offset);
    }
    if (e->form.flex)
        encode_tags(e, s, msg);
}

unsigned kafka_encode(const struct schema *s, struct kafka_form f, const void *msg, struct wr *w,
                      struct buf *in, struct slice *out)
{
    struct encoder e = { .w = w, .in = in, .out = out, .piece = w->start, .form = f };

    encode_struct(&e, s, msg);
    ASSERT(wr_ok(w));
    end_piece(&e);
    return e.n_out;
}

/* --- dump --- */

struct text {
    char *mem;
    size_t cap;
    size_t n;
};

static void text_add(struct text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void text_add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    if (t->n + 1 >= t->cap)
        return;
    va_start(ap, fmt);
    n = vsnprintf(t->mem + t->n, t->cap - t->n, fmt, ap);
    va_end(ap);
    if (n > 0)
        t->n += (size_t)n < t->cap - t->n ? (size_t)n : t->cap - t->n - 1;
}

static void dump_struct(struct text *t, const struct schema *s, struct kafka_form form,
                        const void *msg);

static void dump_str(struct text *t, const struct kafka_str *v, bool text)
{
    if (v->len < 0) {
        text_add(t, "null");
        return;
    }
    text_add(t, text ? "\"" : "x");
    for (int32_t i = 0; i < v->len; i++) {
        uint8_t c = (uint8_t)v->mem[i];

        if (text && c >= ' ' && c < 127 && c != '"' && c != '\\')
            text_add(t, "%c", c);
        else
            text_add(t, text ? "\\x%02x" : "%02x", c);
    }
    if (text)
        text_add(t, "\"");
}

static void dump_array(struct text *t, const struct schema_field *f, struct kafka_form form,
                       const struct any_array *v)
{
    if (v->n < 0) {
        text_add(t, "null");
        return;
    }
    text_add(t, "[");
    for (int32_t i = 0; i < v->n; i++) {
        if (i)
            text_add(t, ", ");
        if (f->type == SCHEMA_ARRAY)
            dump_struct(t, f->sub, form, v->at + (size_t)i * f->sub->size);
        else if (f->type == SCHEMA_STRINGS)
            dump_str(t, &((const struct kafka_str *)(const void *)v->at)[i], true);
        else
            text_add(t, "%" PRId32, ((const int32_t *)(const void *)v->at)[i]);
    }
    text_add(t, "]");
}

static void dump_field(struct text *t, const struct schema_field *f, struct kafka_form form,
                       const void *at)
{
    switch ((enum schema_type)f->type) {
    case SCHEMA_BOOL:
        text_add(t, "%s", *(const bool *)at ? "true" : "false");
        break;
    case SCHEMA_INT8:
        text_add(t, "%d", *(const int8_t *)at);
        break;
    case SCHEMA_INT16:
        text_add(t, "%d", *(const int16_t *)at);
        break;
    case SCHEMA_INT32:
        text_add(t, "%" PRId32, *(const int32_t *)at);
        break;
    case SCHEMA_INT64:
        text_add(t, "%" PRId64, *(const int64_t *)at);
        break;
    case SCHEMA_UUID:
        dump_str(t, &(struct kafka_str){ .mem = at, .len = 16 }, false);
        break;
    case SCHEMA_STRING:
    case SCHEMA_BYTES:
        dump_str(t, at, f->type == SCHEMA_STRING);
        break;
    case SCHEMA_RECORDS:
        text_add(t, "%" PRId32 " bytes", ((const struct kafka_records *)at)->len);
        break;
    case SCHEMA_STRUCT:
        dump_struct(t, f->sub, form, at);
        break;
    case SCHEMA_INT32S:
    case SCHEMA_STRINGS:
    case SCHEMA_ARRAY:
        dump_array(t, f, form, at);
        break;
    }
}

static void dump_struct(struct text *t, const struct schema *s, struct kafka_form form,
                        const void *msg)
{
    const char *sep = "";

    text_add(t, "{");
    for (unsigned i = 0; i < s->n_fields; i++) {
        const struct schema_field *f = &s->fields[i];

        if (!field_in(f, form))
            continue;
        text_add(t, "%s%s: ", sep, f->name);
        dump_field(t, f, form, (const uint8_t *)msg + f->offset);
        sep = ", ";
    }
    text_add(t, "}");
}

size_t kafka_dump(const struct schema *s, struct kafka_form f, const void *msg, char *out,
                  size_t cap)
{
    struct text t = { .mem = out, .cap = cap };

    text_add(&t, "%s v%d ", s->name, f.version);
    dump_struct(&t, s, f, msg);
    return t.n;
}
