#include "format/batch_keep.h"

#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "format/codec.h"
#include "format/sum.h"

enum {
    AT_LENGTH = 8,
    AT_CRC = 17,
    AT_MAX_TIMESTAMP = 35,
    AT_COUNT = 57,
    EMPTY_TIMESTAMP = -1 /* no record has it: it never is the largest of any */
};

/* What is left of a batch while its records pass. */
struct rest {
    uint8_t *body;
    size_t bytes;
    int32_t n;
    int64_t max_timestamp;
};

static int rest_collect(struct rest *rest, struct batch_iter *it,
                        bool (*keep)(void *ctx, const struct batch_record *r), void *ctx)
{
    struct batch_record r;
    const uint8_t *from = it->at;
    int rc;

    rest->body = mem_new((size_t)(it->end - it->at) + 1);
    while ((rc = batch_iter_next(it, &r)) == 1) {
        size_t bytes = (size_t)(it->at - from);

        if (keep(ctx, &r)) {
            memcpy(rest->body + rest->bytes, from, bytes);
            rest->bytes += bytes;
            if (rest->n++ == 0 || r.timestamp > rest->max_timestamp)
                rest->max_timestamp = r.timestamp;
        }
        from = it->at;
    }
    return rc;
}

static void crc_put(uint8_t *mem, size_t bytes)
{
    put_u32be(mem + AT_CRC, sum_crc32c(mem + BATCH_CRC_START, bytes - BATCH_CRC_START));
}

/* The header is the old one's but for what has changed. */
static int rest_make(const struct rest *rest, const struct batch_head *h, const void *mem,
                     struct buf **out)
{
    enum batch_codec codec = (enum batch_codec)(h->attributes & BATCH_ATTR_CODEC);
    struct buf *packed = NULL, *b;
    size_t bytes = rest->bytes;
    int rc = 0;

    if (codec != CODEC_NONE) {
        rc = codec_compress(codec, rest->body, rest->bytes, &packed);
        if (rc < 0)
            return rc;
        bytes = packed->len;
    }
    b = bytes <= INT32_MAX - BATCH_HEAD_BYTES ? buf_new(BATCH_HEAD_BYTES + bytes) : NULL;
    if (b) {
        b->len = (uint32_t)(BATCH_HEAD_BYTES + bytes);
        memcpy(b->mem, mem, BATCH_HEAD_BYTES);
        memcpy(b->mem + BATCH_HEAD_BYTES, packed ? packed->mem : rest->body, bytes);
        put_u32be(b->mem + AT_LENGTH, b->len - BATCH_LENGTH_END);
        if (!(h->attributes & BATCH_ATTR_LOG_APPEND_TIME))
            put_u64be(b->mem + AT_MAX_TIMESTAMP, (uint64_t)rest->max_timestamp);
        put_u32be(b->mem + AT_COUNT, (uint32_t)rest->n);
        crc_put(b->mem, b->len);
    }
    buf_unref(packed);
    *out = b;
    return b ? 0 : E_NOMEM;
}

int batch_keep(const void *mem, size_t bytes, size_t max_body,
               bool (*keep)(void *ctx, const struct batch_record *r), void *ctx, struct buf **out)
{
    struct rest rest = { 0 };
    struct batch_iter it;
    struct batch_head h;
    int rc = batch_iter_open(&it, mem, bytes, max_body);

    *out = NULL;
    if (rc < 0)
        return rc;
    h = it.head;
    rc = rest_collect(&rest, &it, keep, ctx);
    batch_iter_close(&it);
    if (rc >= 0 && rest.n > 0 && rest.n < h.record_count)
        rc = rest_make(&rest, &h, mem, out);
    free(rest.body);
    if (rc < 0)
        return rc;
    return rest.n == h.record_count ? BATCH_KEPT_ALL
           : rest.n > 0             ? BATCH_KEPT_SOME
                                    : BATCH_KEPT_NONE;
}

void batch_empty_write(const struct batch_head *like, uint32_t n_offsets, bool producer, void *mem)
{
    struct wr w = wr_of(mem, BATCH_HEAD_BYTES);

    wr_u64be(&w, (uint64_t)like->base_offset);
    wr_u32be(&w, BATCH_HEAD_BYTES - BATCH_LENGTH_END);
    wr_u32be(&w, (uint32_t)like->leader_epoch);
    wr_u8(&w, 2);
    wr_u32be(&w, 0); /* CRC: below */
    wr_u16be(&w, 0);
    wr_u32be(&w, n_offsets - 1);
    wr_u64be(&w, (uint64_t)like->base_timestamp);
    wr_u64be(&w, (uint64_t)(int64_t)EMPTY_TIMESTAMP);
    wr_u64be(&w, (uint64_t)(producer ? like->producer_id : -1));
    wr_u16be(&w, (uint16_t)(producer ? like->producer_epoch : -1));
    wr_u32be(&w, (uint32_t)(producer ? like->base_sequence : -1));
    wr_u32be(&w, 0);
    ASSERT(wr_ok(&w) && wr_used(&w) == BATCH_HEAD_BYTES);
    crc_put(mem, BATCH_HEAD_BYTES);
}

bool batch_lacks_keys(const void *mem, size_t bytes)
{
    struct batch_iter it;
    struct batch_record r;
    bool lacks = false;

    if (batch_iter_open(&it, mem, bytes, 0) < 0) /* no room for a body: compressed ones stay shut */
        return false;
    while (!lacks && batch_iter_next(&it, &r) == 1)
        lacks = !r.key;
    batch_iter_close(&it);
    return lacks;
}
