#include "format/batch.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "format/codec.h"
#include "format/sum.h"

/* --- header --- */

enum {
    LENGTH_AT = 8,
    MAGIC_AT = 16,
    CRC_AT = 17,
    CODEC_AT = BATCH_CRC_START + 1, /* the attributes' low byte */
    MAX_TIMESTAMP_AT = 35,
    BATCH_MIN_LENGTH = BATCH_HEAD_BYTES - BATCH_LENGTH_END
};

static void head_parse(struct batch_head *h, const uint8_t *mem)
{
    struct rd r = rd_of(mem, BATCH_HEAD_BYTES);

    h->base_offset = (int64_t)rd_u64be(&r);
    h->bytes = rd_u32be(&r) + BATCH_LENGTH_END;
    h->leader_epoch = (int32_t)rd_u32be(&r);
    h->magic = (int8_t)rd_u8(&r);
    h->crc = rd_u32be(&r);
    h->attributes = rd_u16be(&r);
    h->last_offset_delta = (int32_t)rd_u32be(&r);
    h->base_timestamp = (int64_t)rd_u64be(&r);
    h->max_timestamp = (int64_t)rd_u64be(&r);
    h->producer_id = (int64_t)rd_u64be(&r);
    h->producer_epoch = (int16_t)rd_u16be(&r);
    h->base_sequence = (int32_t)rd_u32be(&r);
    h->record_count = (int32_t)rd_u32be(&r);
}

int batch_head_read(struct batch_head *h, const void *mem, size_t left)
{
    const uint8_t *p = mem;
    uint32_t length;

    *h = (struct batch_head){ 0 };
    if (left <= MAGIC_AT)
        return E_CORRUPT;
    /* The old message formats keep their magic at the same place and may be shorter than our
     * header. */
    h->magic = (int8_t)p[MAGIC_AT];
    if (h->magic == 0 || h->magic == 1)
        return E_UNSUPPORTED;
    if (h->magic != 2 || left < BATCH_HEAD_BYTES)
        return E_CORRUPT;
    length = get_u32be(p + 8);
    if (length < BATCH_MIN_LENGTH || length > INT32_MAX || length > left - BATCH_LENGTH_END)
        return E_CORRUPT;
    head_parse(h, p);
    return 0;
}

static enum batch_codec head_codec(const struct batch_head *h)
{
    return (enum batch_codec)(h->attributes & BATCH_ATTR_CODEC);
}

static bool crc_right(const struct batch_head *h, const void *mem)
{
    return sum_crc32c((const uint8_t *)mem + BATCH_CRC_START, h->bytes - BATCH_CRC_START) == h->crc;
}

int batch_check(struct batch_head *h, const void *mem, size_t left)
{
    int rc = batch_head_read(h, mem, left);

    if (rc < 0)
        return rc;
    if (!crc_right(h, mem))
        return E_CORRUPT;
    /* Compaction leaves gaps, and may leave no record at all: fewer records than offsets, never
     * more. */
    if (head_codec(h) >= CODEC_COUNT || h->last_offset_delta < 0 || h->record_count < 0 ||
        h->record_count > BATCH_MAX_RECORDS || h->record_count > (int64_t)h->last_offset_delta + 1)
        return E_CORRUPT;
    return 0;
}

int batch_check_at(struct batch_head *h, const void *mem, size_t left, uint64_t base)
{
    return batch_check(h, mem, left) < 0 || (uint64_t)h->base_offset != base ? E_CORRUPT : 0;
}

void batch_stamp(void *mem, int64_t base_offset, int32_t leader_epoch)
{
    uint8_t *p = mem;

    put_u64be(p, (uint64_t)base_offset);
    put_u32be(p + 12, (uint32_t)leader_epoch);
}

void batch_stamp_time(void *mem, size_t bytes, int64_t time)
{
    uint8_t *p = mem;

    p[BATCH_CRC_START + 1] |= BATCH_ATTR_LOG_APPEND_TIME; /* the attributes, big-endian */
    put_u64be(p + MAX_TIMESTAMP_AT, (uint64_t)time);
    put_u32be(p + MAGIC_AT + 1, sum_crc32c(p + BATCH_CRC_START, bytes - BATCH_CRC_START));
}

/* --- records --- The walk over an uncompressed batch is the hot path of every append, so varints
 * are read here, inline, with the one-byte case first; nearly all of a record's varints are one or
 * two bytes long. */

/* The rest of a varint whose first byte was *p, p < end. NULL: it runs past end, or past 64
 * bits. */
static const uint8_t *uvarint_rest(const uint8_t *p, const uint8_t *end, uint64_t *v)
{
    uint64_t x = *p++ & 0x7f;
    unsigned shift = 7;

    while (p < end && shift < 64) {
        uint8_t b = *p++;

        if (shift == 63 && b > 1)
            return NULL;
        x |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            *v = x;
            return p;
        }
        shift += 7;
    }
    return NULL;
}

static inline const uint8_t *varint64(const uint8_t *p, const uint8_t *end, int64_t *v)
{
    uint64_t x;

    if (p >= end)
        return NULL;
    if (*p < 0x80) {
        x = *p++;
    } else if (end - p >= 2 && p[1] < 0x80) {
        x = (p[0] & 0x7fu) | (uint64_t)p[1] << 7;
        p += 2;
    } else {
        p = uvarint_rest(p, end, &x);
        if (!p)
            return NULL;
    }
    *v = (int64_t)(x >> 1) ^ -(int64_t)(x & 1);
    return p;
}

static inline const uint8_t *varint32(const uint8_t *p, const uint8_t *end, int32_t *v)
{
    int64_t x;

    p = varint64(p, end, &x);
    if (!p || x < INT32_MIN || x > INT32_MAX)
        return NULL;
    *v = (int32_t)x;
    return p;
}

/* A length (at least min: -1 where null is allowed) and that many bytes. */
static inline const uint8_t *field_read(const uint8_t *p, const uint8_t *end, int32_t min,
                                        const uint8_t **mem, int32_t *bytes)
{
    p = varint32(p, end, bytes);
    if (!p || *bytes < min)
        return NULL;
    if (*bytes < 0) {
        *mem = NULL;
        return p;
    }
    if (*bytes > end - p)
        return NULL;
    *mem = p;
    return p + *bytes;
}

static const uint8_t *header_read(const uint8_t *p, const uint8_t *end, struct batch_header *h)
{
    int32_t key_bytes;

    p = field_read(p, end, 0, &h->key, &key_bytes);
    if (!p)
        return NULL;
    h->key_bytes = (uint32_t)key_bytes;
    return field_read(p, end, -1, &h->value, &h->value_bytes);
}

/* Whether exactly n headers fill the bytes from p to end. */
static bool headers_fit(const uint8_t *p, const uint8_t *end, uint32_t n)
{
    struct batch_header h;

    for (uint32_t i = 0; i < n && p; i++)
        p = header_read(p, end, &h);
    return p == end;
}

/* Reads the record at p whole, its headers too; offset and timestamp are still deltas. Returns its
 * end, NULL when it does not fit or does not fill its own length. */
static inline const uint8_t *record_read(struct batch_record *r, const uint8_t *p,
                                         const uint8_t *end)
{
    int32_t length, offset_delta, n_headers;

    p = varint32(p, end, &length);
    if (!p || length < 1 || length > end - p)
        return NULL;
    end = p + length;
    p++; /* attributes: none is defined */
    p = varint64(p, end, &r->timestamp);
    if (!p)
        return NULL;
    p = varint32(p, end, &offset_delta);
    if (!p)
        return NULL;
    p = field_read(p, end, -1, &r->key, &r->key_bytes);
    if (!p)
        return NULL;
    p = field_read(p, end, -1, &r->value, &r->value_bytes);
    if (!p)
        return NULL;
    p = varint32(p, end, &n_headers);
    if (!p || n_headers < 0)
        return NULL;
    r->offset = offset_delta;
    r->n_headers = (uint32_t)n_headers;
    r->headers = p;
    r->headers_bytes = (uint32_t)(end - p);
    if (n_headers ? !headers_fit(p, end, r->n_headers) : p != end)
        return NULL;
    return end;
}

/* What the header promises of a producer's records: dense deltas from 0, nothing before, between or
 * behind. */
static bool records_right(const struct batch_head *h, const uint8_t *body, size_t bytes)
{
    const uint8_t *p = body, *end = body + bytes;
    struct batch_record r;

    for (int32_t i = 0; i < h->record_count; i++) {
        p = record_read(&r, p, end);
        if (!p || r.offset != i)
            return false;
    }
    return p == end;
}

static bool producer_right(const struct batch_head *h)
{
    if (h->producer_id == -1)
        return true;
    return h->producer_id >= 0 && h->producer_epoch >= 0 && h->base_sequence >= 0;
}

int batch_validate(struct batch_head *h, const void *mem, size_t bytes)
{
    enum {
        BROKER_ONLY = BATCH_ATTR_CONTROL | BATCH_ATTR_LOG_APPEND_TIME | BATCH_ATTR_DELETE_HORIZON
    };
    int rc;

    *h = (struct batch_head){ 0 };
    if (bytes == 0)
        return E_INVALID;
    rc = batch_head_read(h, mem, bytes);
    if (rc < 0)
        return rc;
    if (h->bytes != bytes)
        return E_INVALID;
    if (!crc_right(h, mem))
        return E_CORRUPT;
    if (h->record_count < 1 || h->record_count > BATCH_MAX_RECORDS ||
        h->last_offset_delta != h->record_count - 1)
        return E_INVALID;
    if ((h->attributes & BROKER_ONLY) || head_codec(h) >= CODEC_COUNT || !producer_right(h))
        return E_INVALID;
    if (head_codec(h) == CODEC_NONE &&
        !records_right(h, (const uint8_t *)mem + BATCH_HEAD_BYTES, bytes - BATCH_HEAD_BYTES))
        return E_CORRUPT;
    return 0;
}

/* --- another codec --- */

/* The records of a batch, opened if they are packed: then s->buf holds them. */
static int records_open(const struct batch_head *h, const void *mem, size_t max, struct slice *s)
{
    const uint8_t *records = (const uint8_t *)mem + BATCH_HEAD_BYTES;
    size_t bytes = h->bytes - BATCH_HEAD_BYTES;
    int rc;

    *s = (struct slice){ .mem = records, .len = (uint32_t)bytes };
    if (head_codec(h) == CODEC_NONE)
        return bytes > max ? E_TOOBIG : 0;
    rc = codec_decompress(head_codec(h), records, bytes, max, &s->buf);
    if (rc < 0)
        return rc;
    s->mem = s->buf->mem;
    s->len = s->buf->len;
    return records_right(h, s->mem, s->len) ? 0 : E_CORRUPT;
}

/* The same header, another codec and other bytes behind it. */
static int recoded(const void *head, enum batch_codec codec, const uint8_t *body, size_t bytes,
                   struct buf **out)
{
    struct buf *b;

    if (bytes > INT32_MAX - BATCH_HEAD_BYTES)
        return E_TOOBIG;
    b = buf_new(BATCH_HEAD_BYTES + bytes);
    if (!b)
        return E_NOMEM;
    b->len = (uint32_t)(BATCH_HEAD_BYTES + bytes);
    memcpy(b->mem, head, BATCH_HEAD_BYTES);
    memcpy(b->mem + BATCH_HEAD_BYTES, body, bytes);
    put_u32be(b->mem + LENGTH_AT, b->len - BATCH_LENGTH_END);
    b->mem[CODEC_AT] = (uint8_t)((b->mem[CODEC_AT] & ~BATCH_ATTR_CODEC) | codec);
    put_u32be(b->mem + CRC_AT, sum_crc32c(b->mem + BATCH_CRC_START, b->len - BATCH_CRC_START));
    *out = b;
    return 0;
}

int batch_recode(const void *mem, size_t bytes, enum batch_codec codec, size_t *room,
                 struct buf **out)
{
    struct batch_head h;
    struct slice s = { 0 };
    struct buf *packed = NULL;
    int rc = batch_head_read(&h, mem, bytes);

    *out = NULL;
    if (rc == 0)
        rc = records_open(&h, mem, *room, &s);
    if (rc == 0 && codec != CODEC_NONE)
        rc = codec_compress(codec, s.mem, s.len, &packed);
    if (rc == 0)
        rc = recoded(mem, codec, packed ? packed->mem : s.mem, packed ? packed->len : s.len, out);
    if (rc == 0)
        *room -= s.len;
    buf_unref(packed);
    buf_unref(s.buf);
    return rc;
}

/* --- iterator --- */

int batch_iter_open(struct batch_iter *it, const void *mem, size_t left, size_t max_body)
{
    const uint8_t *body = (const uint8_t *)mem + BATCH_HEAD_BYTES;
    size_t bytes;
    int rc;

    *it = (struct batch_iter){ 0 };
    rc = batch_head_read(&it->head, mem, left);
    if (rc < 0)
        return rc;
    bytes = it->head.bytes - BATCH_HEAD_BYTES;
    if (head_codec(&it->head) >= CODEC_COUNT || it->head.record_count < 0)
        return E_CORRUPT;
    /* A batch that compaction emptied has no body at all, whatever its codec bits say. */
    if (head_codec(&it->head) != CODEC_NONE && (bytes || it->head.record_count)) {
        rc = codec_decompress(head_codec(&it->head), body, bytes, max_body, &it->body);
        if (rc < 0)
            return rc;
        body = it->body->mem;
        bytes = it->body->len;
    }
    it->at = body;
    it->end = body + bytes;
    return 0;
}

int batch_iter_next(struct batch_iter *it, struct batch_record *r)
{
    const struct batch_head *h = &it->head;
    const uint8_t *p;

    if (it->next == h->record_count)
        return it->at == it->end ? 0 : E_CORRUPT;
    p = record_read(r, it->at, it->end);
    /* Compaction leaves gaps, so deltas rise, but need not be the index. */
    if (!p || r->offset < it->delta || r->offset > h->last_offset_delta)
        return E_CORRUPT;
    it->at = p;
    it->next++;
    it->delta = r->offset + 1;
    /* Unsigned: the sum of two hostile numbers may wrap, and is then merely wrong. */
    r->offset = (int64_t)((uint64_t)h->base_offset + (uint64_t)r->offset);
    if (h->attributes & BATCH_ATTR_LOG_APPEND_TIME)
        r->timestamp = h->max_timestamp;
    else
        r->timestamp = (int64_t)((uint64_t)h->base_timestamp + (uint64_t)r->timestamp);
    return 1;
}

void batch_iter_close(struct batch_iter *it)
{
    buf_unref(it->body);
    *it = (struct batch_iter){ 0 };
}

int batch_header_next(const struct batch_record *r, uint32_t *pos, struct batch_header *h)
{
    const uint8_t *p;

    if (*pos >= r->headers_bytes)
        return 0;
    p = header_read(r->headers + *pos, r->headers + r->headers_bytes, h);
    if (!p)
        return E_CORRUPT;
    *pos = (uint32_t)(p - r->headers);
    return 1;
}

/* --- builder --- */

static uint64_t zigzag(int64_t v)
{
    return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static size_t varint_bytes(int64_t v)
{
    size_t n = 1;

    for (uint64_t x = zigzag(v); x >= 0x80; x >>= 7)
        n++;
    return n;
}

static uint8_t *varint_put(uint8_t *p, int64_t v)
{
    uint64_t x = zigzag(v);

    for (; x >= 0x80; x >>= 7)
        *p++ = (uint8_t)(x | 0x80);
    *p++ = (uint8_t)x;
    return p;
}

static size_t field_bytes(const void *mem, size_t bytes)
{
    ASSERT(bytes <= INT32_MAX);
    return mem ? varint_bytes((int64_t)bytes) + bytes : 1;
}

static uint8_t *field_put(uint8_t *p, const void *mem, size_t bytes)
{
    p = varint_put(p, mem ? (int64_t)bytes : -1);
    if (mem && bytes)
        memcpy(p, mem, bytes);
    return mem ? p + bytes : p;
}

/* A header's key is never null; an empty one may come without a pointer. */
static const void *header_key(const struct batch_header *h)
{
    return h->key ? h->key : (const void *)"";
}

static size_t header_value_bytes(const struct batch_header *h)
{
    return h->value ? (size_t)h->value_bytes : 0;
}

/* Bytes of the record behind its own length. */
static size_t record_bytes(const struct batch_new_record *r, int64_t timestamp_delta, int32_t index)
{
    size_t n = 1 + varint_bytes(timestamp_delta) + varint_bytes(index) +
               field_bytes(r->key, r->key_bytes) + field_bytes(r->value, r->value_bytes) +
               varint_bytes(r->n_headers);

    for (uint32_t i = 0; i < r->n_headers; i++) {
        const struct batch_header *h = &r->headers[i];

        n +=
            field_bytes(header_key(h), h->key_bytes) + field_bytes(h->value, header_value_bytes(h));
    }
    return n;
}

static void builder_room(struct batch_builder *b, size_t bytes)
{
    size_t cap = b->body_cap ? b->body_cap : 1024;

    while (cap - b->body_bytes < bytes)
        cap *= 2;
    if (cap != b->body_cap) {
        b->body = mem_grow(b->body, cap);
        b->body_cap = cap;
    }
}

void batch_builder_add(struct batch_builder *b, const struct batch_new_record *r)
{
    int64_t delta;
    size_t bytes;
    uint8_t *p;

    ASSERT(b->n < BATCH_MAX_RECORDS);
    if (b->n == 0)
        b->base_timestamp = b->max_timestamp = r->timestamp;
    if (r->timestamp > b->max_timestamp)
        b->max_timestamp = r->timestamp;
    delta = (int64_t)((uint64_t)r->timestamp - (uint64_t)b->base_timestamp);
    bytes = record_bytes(r, delta, b->n);
    builder_room(b, bytes + varint_bytes((int64_t)bytes));
    p = varint_put(b->body + b->body_bytes, (int64_t)bytes);
    *p++ = 0;
    p = varint_put(p, delta);
    p = varint_put(p, b->n);
    p = field_put(p, r->key, r->key_bytes);
    p = field_put(p, r->value, r->value_bytes);
    p = varint_put(p, r->n_headers);
    for (uint32_t i = 0; i < r->n_headers; i++) {
        const struct batch_header *h = &r->headers[i];

        p = field_put(p, header_key(h), h->key_bytes);
        p = field_put(p, h->value, header_value_bytes(h));
    }
    b->body_bytes = (size_t)(p - b->body);
    b->n++;
}

static void head_write(const struct batch_builder *b, struct buf *out, enum batch_codec codec)
{
    struct wr w = wr_of(out->mem, BATCH_HEAD_BYTES);

    wr_u64be(&w, 0);
    wr_u32be(&w, out->len - BATCH_LENGTH_END);
    wr_u32be(&w, UINT32_MAX); /* epoch -1 */
    wr_u8(&w, 2);
    wr_u32be(&w, 0); /* CRC: below, over all that follows */
    wr_u16be(&w, (uint16_t)((b->attributes & ~(unsigned)BATCH_ATTR_CODEC) | codec));
    wr_u32be(&w, (uint32_t)b->n - 1);
    wr_u64be(&w, (uint64_t)b->base_timestamp);
    wr_u64be(&w, (uint64_t)b->max_timestamp);
    wr_u64be(&w, (uint64_t)(b->has_producer ? b->producer_id : -1));
    wr_u16be(&w, (uint16_t)(b->has_producer ? b->producer_epoch : -1));
    wr_u32be(&w, (uint32_t)(b->has_producer ? b->base_sequence : -1));
    wr_u32be(&w, (uint32_t)b->n);
    ASSERT(wr_ok(&w) && wr_used(&w) == BATCH_HEAD_BYTES);
    put_u32be(out->mem + 17, sum_crc32c(out->mem + BATCH_CRC_START, out->len - BATCH_CRC_START));
}

static int builder_make(const struct batch_builder *b, enum batch_codec codec, struct buf **out)
{
    const uint8_t *body = b->body;
    size_t bytes = b->body_bytes;
    struct buf *packed = NULL, *batch;
    int rc;

    if (b->n == 0)
        return E_INVALID;
    if (bytes > INT32_MAX - BATCH_HEAD_BYTES)
        return E_TOOBIG;
    if (codec != CODEC_NONE) {
        rc = codec_compress(codec, body, bytes, &packed);
        if (rc < 0)
            return rc;
        if (packed->len < bytes) {
            body = packed->mem;
            bytes = packed->len;
        } else {
            codec = CODEC_NONE;
        }
    }
    batch = buf_new(BATCH_HEAD_BYTES + bytes);
    if (batch) {
        batch->len = (uint32_t)(BATCH_HEAD_BYTES + bytes);
        memcpy(batch->mem + BATCH_HEAD_BYTES, body, bytes);
        head_write(b, batch, codec);
    }
    buf_unref(packed);
    *out = batch;
    return batch ? 0 : E_NOMEM;
}

int batch_builder_finish(struct batch_builder *b, enum batch_codec codec, struct buf **out)
{
    int rc;

    *out = NULL;
    rc = builder_make(b, codec, out);
    /* The body's memory is kept for the next batch. */
    *b = (struct batch_builder){ .body = b->body, .body_cap = b->body_cap };
    return rc;
}

void batch_builder_free(struct batch_builder *b)
{
    free(b->body);
    *b = (struct batch_builder){ 0 };
}
