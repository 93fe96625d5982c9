/* Codecs: the first byte names one, the rest is its payload; then the rest is packed and must come
 * back. */
#include "format/codec.h"

#include <string.h>

#include "base/err.h"

enum { MAX_BYTES = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes);

static void check_round_trip(enum batch_codec codec, const uint8_t *mem, size_t bytes)
{
    struct buf *packed, *plain;

    ASSERT(codec_compress(codec, mem, bytes, &packed) == 0);
    ASSERT(codec_decompress(codec, packed->mem, packed->len, bytes, &plain) == 0);
    ASSERT(plain->len == bytes && (bytes == 0 || memcmp(plain->mem, mem, bytes) == 0));
    buf_unref(packed);
    buf_unref(plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes)
{
    uint64_t before = buf_total_bytes();
    enum batch_codec codec;
    struct buf *plain;
    int rc;

    if (bytes == 0)
        return 0;
    codec = (enum batch_codec)(mem[0] % (CODEC_COUNT + 1)); /* one that is unknown, too */
    rc = codec_decompress(codec, mem + 1, bytes - 1, MAX_BYTES, &plain);
    ASSERT(rc == 0 || rc == E_CORRUPT || rc == E_TOOBIG || rc == E_UNSUPPORTED);
    ASSERT((rc == 0) == (plain != NULL));
    if (rc == 0) {
        ASSERT(plain->len <= MAX_BYTES && plain->cap <= MAX_BYTES);
        check_round_trip(codec, plain->mem, plain->len);
        buf_unref(plain);
    }
    if (codec < CODEC_COUNT)
        check_round_trip(codec, mem + 1, bytes - 1);
    ASSERT(buf_total_bytes() == before);
    return 0;
}
