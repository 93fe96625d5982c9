/* Record batches: any bytes as they are, then the same with length, magic and CRC put right, so
 * that what lies behind the checksum is reached too. What batch_validate lets through must iterate,
 * and rebuild to the same records; what takes another codec is valid and holds the same. */
#include "format/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "format/sum.h"

enum { MAX_BODY = 1 << 20, MAX_HEADERS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes);

static unsigned headers_walk(const struct batch_record *r, struct batch_header *out)
{
    struct batch_header h;
    uint32_t pos = 0;
    unsigned n = 0;
    int rc;

    while ((rc = batch_header_next(r, &pos, &h)) == 1) {
        if (n < MAX_HEADERS)
            out[n] = h;
        n++;
    }
    /* The iterator has vouched for them. */
    ASSERT(rc == 0 && n == r->n_headers);
    return n;
}

/* Walks a batch, and gives what it holds to the builder when there is one. */
static int walk(const uint8_t *mem, size_t bytes, struct batch_builder *b, bool *whole)
{
    struct batch_header headers[MAX_HEADERS];
    struct batch_record r;
    struct batch_iter it;
    int rc = batch_iter_open(&it, mem, bytes, MAX_BODY);

    *whole = true;
    if (rc < 0)
        return rc;
    while ((rc = batch_iter_next(&it, &r)) == 1) {
        unsigned n = headers_walk(&r, headers);

        *whole = *whole && n <= MAX_HEADERS;
        if (b && *whole)
            batch_builder_add(
                b, &(struct batch_new_record){ .timestamp = r.timestamp,
                                               .key = r.key,
                                               .key_bytes = r.key ? (size_t)r.key_bytes : 0,
                                               .value = r.value,
                                               .value_bytes = r.value ? (size_t)r.value_bytes : 0,
                                               .headers = headers,
                                               .n_headers = n });
    }
    batch_iter_close(&it);
    return rc;
}

/* Two sound batches hold the same records. */
static void same_records(const uint8_t *a, size_t a_bytes, const struct buf *b)
{
    struct batch_record x, y;
    struct batch_iter i, j;
    int rc;

    ASSERT(batch_iter_open(&i, a, a_bytes, MAX_BODY) == 0);
    ASSERT(batch_iter_open(&j, b->mem, b->len, 2 * MAX_BODY) == 0);
    while ((rc = batch_iter_next(&i, &x)) == 1) {
        ASSERT(batch_iter_next(&j, &y) == 1);
        ASSERT(x.timestamp == y.timestamp && x.key_bytes == y.key_bytes &&
               x.value_bytes == y.value_bytes);
        ASSERT(x.offset - i.head.base_offset == y.offset);
        ASSERT(!x.key == !y.key && (!x.key || memcmp(x.key, y.key, (size_t)x.key_bytes) == 0));
        ASSERT(!x.value == !y.value &&
               (!x.value || memcmp(x.value, y.value, (size_t)x.value_bytes) == 0));
        ASSERT(x.n_headers == y.n_headers);
    }
    ASSERT(rc == 0 && batch_iter_next(&j, &y) == 0);
    batch_iter_close(&i);
    batch_iter_close(&j);
}

static void rebuild(const uint8_t *mem, size_t bytes)
{
    struct batch_builder b = { 0 };
    struct batch_head h;
    struct buf *again;
    bool whole;

    ASSERT(walk(mem, bytes, &b, &whole) == 0);
    if (whole) {
        ASSERT(batch_builder_finish(&b, (enum batch_codec)(bytes % CODEC_COUNT), &again) == 0);
        ASSERT(batch_validate(&h, again->mem, again->len) == 0);
        same_records(mem, bytes, again);
        buf_unref(again);
    }
    batch_builder_free(&b);
}

/* Any codec, packed or not before. */
static void recode(const uint8_t *mem, size_t bytes)
{
    size_t room = MAX_BODY;
    struct batch_head h;
    struct buf *out;

    if (batch_recode(mem, bytes, (enum batch_codec)(bytes % CODEC_COUNT), &room, &out) < 0) {
        ASSERT(!out && room == MAX_BODY);
        return;
    }
    ASSERT(batch_validate(&h, out->mem, out->len) == 0);
    ASSERT((h.attributes & BATCH_ATTR_CODEC) == bytes % CODEC_COUNT);
    batch_stamp(out->mem, 0, -1);
    same_records(mem, bytes, out);
    buf_unref(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes)
{
    uint8_t *fixed;
    struct batch_head h;
    bool whole, plain;

    (void)!batch_check(&h, mem, bytes);
    (void)!batch_validate(&h, mem, bytes);
    (void)!walk(mem, bytes, NULL, &whole);
    if (bytes < BATCH_HEAD_BYTES)
        return 0;
    fixed = malloc(bytes);
    memcpy(fixed, mem, bytes);
    put_u32be(fixed + 8, (uint32_t)bytes - BATCH_LENGTH_END);
    fixed[16] = 2;
    put_u32be(fixed + 17, sum_crc32c(fixed + BATCH_CRC_START, bytes - BATCH_CRC_START));
    plain = (fixed[22] & BATCH_ATTR_CODEC) == CODEC_NONE;
    if (batch_validate(&h, fixed, bytes) == 0) {
        ASSERT(batch_check(&h, fixed, bytes) == 0);
        recode(fixed, bytes);
        if (plain)
            rebuild(fixed, bytes);
        else
            (void)!walk(fixed, bytes, NULL, &whole);
    } else if (batch_check(&h, fixed, bytes) == 0) {
        (void)!walk(fixed, bytes, NULL, &whole);
    }
    free(fixed);
    return 0;
}
