#include "format/codec.h"

#include <limits.h>
#include <string.h>

#include <lz4frame.h>
#include <snappy-c.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/rd.h"

/* A payload's own word about its decompressed size may be a lie, and an allocation is made before
 * the lie shows. So the first buffer is at most this many times the payload (plus a floor),
 * whatever is declared; it grows only as real output fills it. */
enum { TRUST_RATIO = 16, TRUST_FLOOR = 4096, GUESS_RATIO = 4 };

/* Output that grows up to max. When max is reached, whatever else comes goes to spill: one byte
 * there says "too big", and none says that the output just fitted. */
struct growing {
    struct buf *buf;
    size_t max;
    bool spilling;
    uint8_t spill[16];
};

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int growing_init(struct growing *g, size_t in_bytes, uint64_t declared, size_t max)
{
    size_t trusted = min_size(in_bytes, SIZE_MAX / 2 / TRUST_RATIO) * TRUST_RATIO + TRUST_FLOOR;
    size_t first = in_bytes * GUESS_RATIO + TRUST_FLOOR;

    *g = (struct growing){ .max = min_size(max, UINT32_MAX) };
    if (declared > 0)
        first = declared < trusted ? (size_t)declared : trusted;
    first = min_size(first, g->max);
    g->buf = buf_new(first ? first : 1);
    return g->buf ? 0 : E_NOMEM;
}

static int growing_double(struct growing *g)
{
    struct buf *old = g->buf, *b = buf_new(min_size((size_t)old->cap * 2, g->max));

    if (!b)
        return E_NOMEM;
    memcpy(b->mem, old->mem, old->len);
    b->len = old->len;
    buf_unref(old);
    g->buf = b;
    return 0;
}

/* Where the next output goes; *room > 0. */
static int growing_room(struct growing *g, uint8_t **mem, size_t *room)
{
    size_t limit = min_size(g->buf->cap, g->max);
    int rc;

    if (g->buf->len == limit && limit < g->max) {
        rc = growing_double(g);
        if (rc < 0)
            return rc;
        limit = min_size(g->buf->cap, g->max);
    }
    g->spilling = g->buf->len == limit;
    *mem = g->spilling ? g->spill : g->buf->mem + g->buf->len;
    *room = g->spilling ? sizeof g->spill : limit - g->buf->len;
    return 0;
}

static int growing_made(struct growing *g, size_t bytes)
{
    if (g->spilling)
        return bytes ? E_TOOBIG : 0;
    g->buf->len += (uint32_t)bytes;
    return 0;
}

/* Hands the buffer out, or frees it when rc tells of a failure. */
static int growing_end(struct growing *g, int rc, struct buf **out)
{
    if (rc < 0)
        buf_unref(g->buf);
    else
        *out = g->buf;
    return rc < 0 ? rc : 0;
}

/* A new buffer filled with bytes by the caller. */
static int out_new(size_t bytes, struct buf **out)
{
    if (bytes > UINT32_MAX)
        return E_TOOBIG;
    *out = buf_new(bytes ? bytes : 1);
    if (!*out)
        return E_NOMEM;
    (*out)->len = (uint32_t)bytes;
    return 0;
}

/* --- none --- */

static int none_copy(const uint8_t *mem, size_t bytes, size_t max, struct buf **out)
{
    int rc;

    if (bytes > max)
        return E_TOOBIG;
    rc = out_new(bytes, out);
    if (rc == 0 && bytes)
        memcpy((*out)->mem, mem, bytes);
    return rc;
}

/* --- gzip --- */

enum { GZIP_WINDOW_BITS = 15 + 16 /* 16: gzip framing, nothing else */, GZIP_MIN_BYTES = 18 };

/* One step of inflate: 1 when the last member has ended with the input, 0 to go on. */
static int gzip_step(z_stream *z, struct growing *g)
{
    uint8_t *to;
    size_t room;
    int zrc, rc;

    rc = growing_room(g, &to, &room);
    if (rc < 0)
        return rc;
    z->next_out = to;
    z->avail_out = (uInt)room;
    zrc = inflate(z, Z_NO_FLUSH);
    if (zrc == Z_MEM_ERROR)
        return E_NOMEM;
    /* Z_BUF_ERROR: nothing moved though there was room, so the input ends too early. */
    if (zrc != Z_OK && zrc != Z_STREAM_END)
        return E_CORRUPT;
    rc = growing_made(g, room - z->avail_out);
    if (rc < 0 || zrc == Z_OK)
        return rc;
    if (z->avail_in == 0)
        return 1;
    return inflateReset(z) == Z_OK ? 0 : E_CORRUPT; /* another member follows (RFC 1952, 2.2) */
}

static int gzip_decompress(const uint8_t *mem, size_t bytes, size_t max, struct buf **out)
{
    z_stream z = { .next_in = (Bytef *)(uintptr_t)mem, .avail_in = (uInt)bytes };
    struct growing g;
    struct rd r;
    int rc;

    if (bytes < GZIP_MIN_BYTES)
        return E_CORRUPT;
    r = rd_of(mem + bytes - 4, 4); /* ISIZE of the last member, a hint */
    rc = growing_init(&g, bytes, rd_u32le(&r), max);
    if (rc < 0)
        return rc;
    rc = inflateInit2(&z, GZIP_WINDOW_BITS) == Z_OK ? 0 : E_NOMEM;
    while (rc == 0)
        rc = gzip_step(&z, &g);
    inflateEnd(&z);
    return growing_end(&g, rc, out);
}

static int gzip_compress(const uint8_t *mem, size_t bytes, struct buf **out)
{
    z_stream z = { .next_in = (Bytef *)(uintptr_t)mem, .avail_in = (uInt)bytes };
    int rc;

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW_BITS, 8,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return E_NOMEM;
    rc = out_new(deflateBound(&z, (uLong)bytes), out);
    if (rc == 0) {
        z.next_out = (*out)->mem;
        z.avail_out = (*out)->cap;
        rc = deflate(&z, Z_FINISH) == Z_STREAM_END ? 0 : E_BUG;
        (*out)->len = (uint32_t)z.total_out;
    }
    deflateEnd(&z);
    return rc;
}

/* --- snappy --- */

/* The framing of Java producers: 8 bytes of magic, two u32 versions, then blocks, each behind its
 * length. No raw block begins so: after the preamble it would copy from before the start. */
static const uint8_t snappy_java_magic[8] = { 0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0 };
enum { SNAPPY_JAVA_HEAD_BYTES = 16, SNAPPY_JAVA_BLOCK = 32 << 10 };

/* The densest element makes 64 bytes out of 3; a block that declares more than that is a lie, so
 * declared sizes can be trusted to within this ratio before anything is allocated. */
enum { SNAPPY_MAX_RATIO = 22 };

static int snappy_declared(const uint8_t *mem, size_t bytes, size_t *size)
{
    if (snappy_uncompressed_length((const char *)mem, bytes, size) != SNAPPY_OK)
        return E_CORRUPT;
    return *size / SNAPPY_MAX_RATIO > bytes ? E_CORRUPT : 0;
}

static int snappy_block(const uint8_t *mem, size_t bytes, uint8_t *to, size_t *made)
{
    return snappy_uncompress((const char *)mem, bytes, (char *)to, made) == SNAPPY_OK ? 0
                                                                                      : E_CORRUPT;
}

static int snappy_raw_decompress(const uint8_t *mem, size_t bytes, size_t max, struct buf **out)
{
    size_t size;
    int rc = snappy_declared(mem, bytes, &size);

    if (rc < 0)
        return rc;
    if (size > max)
        return E_TOOBIG;
    rc = out_new(size, out);
    return rc < 0 ? rc : snappy_block(mem, bytes, (*out)->mem, &size);
}

/* The next block of the Java framing: 1, 0 at the end. */
static int snappy_java_next(struct rd *r, const uint8_t **block, size_t *bytes, size_t *size)
{
    int rc;

    if (rd_left(r) == 0)
        return 0;
    *bytes = rd_u32be(r);
    *block = rd_bytes(r, *bytes);
    if (!rd_ok(r))
        return E_CORRUPT;
    rc = snappy_declared(*block, *bytes, size);
    return rc < 0 ? rc : 1;
}

/* Twice over the blocks: first to add up what they declare, then to decompress. */
static int snappy_java_decompress(const uint8_t *mem, size_t bytes, size_t max, struct buf **out)
{
    struct rd r = rd_of(mem + SNAPPY_JAVA_HEAD_BYTES, bytes - SNAPPY_JAVA_HEAD_BYTES), again = r;
    const uint8_t *block;
    size_t block_bytes, size, total = 0;
    int rc;

    while ((rc = snappy_java_next(&r, &block, &block_bytes, &size)) == 1) {
        if (size > max - total)
            return E_TOOBIG;
        total += size;
    }
    if (rc < 0)
        return rc;
    rc = out_new(total, out);
    if (rc < 0)
        return rc;
    total = 0;
    while ((rc = snappy_java_next(&again, &block, &block_bytes, &size)) == 1) {
        if (snappy_block(block, block_bytes, (*out)->mem + total, &size) < 0)
            return E_CORRUPT;
        total += size;
    }
    return rc;
}

static int snappy_decompress(const uint8_t *mem, size_t bytes, size_t max, struct buf **out)
{
    if (bytes >= SNAPPY_JAVA_HEAD_BYTES &&
        memcmp(mem, snappy_java_magic, sizeof snappy_java_magic) == 0)
        return snappy_java_decompress(mem, bytes, max, out);
    return snappy_raw_decompress(mem, bytes, max, out);
}

/* One block behind its length; room is the largest that it can become. */
static int snappy_java_put(struct wr *w, const uint8_t *mem, size_t bytes)
{
    size_t made = snappy_max_compressed_length(bytes);
    uint8_t *length = wr_room(w, 4);

    if (!length || (size_t)(w->end - w->at) < made ||
        snappy_compress((const char *)mem, bytes, (char *)w->at, &made) != SNAPPY_OK)
        return E_BUG;
    put_u32be(length, (uint32_t)made);
    (void)wr_room(w, made);
    return 0;
}

/* In Java's framing, which every client reads. */
static int snappy_pack(const uint8_t *mem, size_t bytes, struct buf **out)
{
    size_t blocks = bytes / SNAPPY_JAVA_BLOCK + 1;
    int rc = out_new(SNAPPY_JAVA_HEAD_BYTES +
                         blocks * (4 + snappy_max_compressed_length(SNAPPY_JAVA_BLOCK)),
                     out);
    struct wr w;

    if (rc < 0)
        return rc;
    w = wr_of((*out)->mem, (*out)->len);
    wr_bytes(&w, snappy_java_magic, sizeof snappy_java_magic);
    wr_u32be(&w, 1);
    wr_u32be(&w, 1);
    for (size_t n; rc == 0 && bytes; mem += n, bytes -= n) {
        n = min_size(bytes, SNAPPY_JAVA_BLOCK);
        rc = snappy_java_put(&w, mem, n);
    }
    (*out)->len = (uint32_t)wr_used(&w);
    return rc;
}

/* --- lz4 --- */

/* One step: 1 at the end of the frame, 0 to go on. */
static int lz4_step(LZ4F_dctx *d, struct rd *r, struct growing *g)
{
    size_t room, in = rd_left(r), hint;
    uint8_t *to;
    int rc;

    rc = growing_room(g, &to, &room);
    if (rc < 0)
        return rc;
    hint = LZ4F_decompress(d, to, &room, r->at, &in, NULL);
    if (LZ4F_isError(hint))
        return E_CORRUPT;
    (void)rd_bytes(r, in);
    rc = growing_made(g, room);
    if (rc < 0)
        return rc;
    if (hint == 0)
        return 1;
    return in || room ? 0 : E_CORRUPT; /* neither read nor wrote: the input ends too early */
}

static int lz4_decompress(const uint8_t *mem, size_t bytes, size_t max, struct buf **out)
{
    struct rd r = rd_of(mem, bytes);
    struct growing g;
    LZ4F_dctx *d;
    int rc;

    if (LZ4F_isError(LZ4F_createDecompressionContext(&d, LZ4F_VERSION)))
        return E_NOMEM;
    rc = growing_init(&g, bytes, 0, max);
    if (rc == 0) {
        do
            rc = lz4_step(d, &r, &g);
        while (rc == 0);
        /* One frame: Java's reader stops at its end, so what follows would be seen by some clients
         * only. */
        if (rc == 1 && rd_left(&r))
            rc = E_CORRUPT;
        rc = growing_end(&g, rc, out);
    }
    LZ4F_freeDecompressionContext(d);
    return rc;
}

static int lz4_compress(const uint8_t *mem, size_t bytes, struct buf **out)
{
    /* Java's reader refuses blocks that depend on the one before. */
    LZ4F_preferences_t prefs = { .frameInfo = { .blockMode = LZ4F_blockIndependent } };
    size_t made;
    int rc = out_new(LZ4F_compressFrameBound(bytes, &prefs), out);

    if (rc < 0)
        return rc;
    made = LZ4F_compressFrame((*out)->mem, (*out)->cap, mem, bytes, &prefs);
    if (LZ4F_isError(made))
        return E_NOMEM;
    (*out)->len = (uint32_t)made;
    return 0;
}

/* --- zstd --- */

enum { ZSTD_LEVEL = 3 };

/* The whole payload into a buffer of this size: 1 when the buffer is too small. Never the streaming
 * call: it would allocate the window that the payload asks for, up to 128 MiB. */
static int zstd_try(ZSTD_DCtx *d, struct buf *b, size_t cap, const uint8_t *mem, size_t bytes)
{
    size_t made = ZSTD_decompressDCtx(d, b->mem, cap, mem, bytes);

    if (!ZSTD_isError(made)) {
        b->len = (uint32_t)made;
        return 0;
    }
    switch (ZSTD_getErrorCode(made)) {
    case ZSTD_error_dstSize_tooSmall:
        return 1;
    case ZSTD_error_memory_allocation:
        return E_NOMEM;
    default:
        return E_CORRUPT;
    }
}

static int zstd_decompress(const uint8_t *mem, size_t bytes, size_t max, struct buf **out)
{
    uint64_t declared = ZSTD_getFrameContentSize(mem, bytes);
    ZSTD_DCtx *d;
    struct growing g;
    size_t cap;
    int rc;

    if (declared == ZSTD_CONTENTSIZE_ERROR)
        return E_CORRUPT;
    if (declared == ZSTD_CONTENTSIZE_UNKNOWN)
        declared = 0;
    if (declared > max)
        return E_TOOBIG;
    d = ZSTD_createDCtx();
    if (!d)
        return E_NOMEM;
    rc = growing_init(&g, bytes, declared, max);
    while (rc == 0) {
        cap = min_size(g.buf->cap, g.max);
        rc = zstd_try(d, g.buf, cap, mem, bytes);
        if (rc != 1)
            break;
        rc = cap < g.max ? growing_double(&g) : E_TOOBIG;
    }
    ZSTD_freeDCtx(d);
    return growing_end(&g, rc, out);
}

static int zstd_compress(const uint8_t *mem, size_t bytes, struct buf **out)
{
    size_t made;
    int rc = out_new(ZSTD_compressBound(bytes), out);

    if (rc < 0)
        return rc;
    made = ZSTD_compress((*out)->mem, (*out)->cap, mem, bytes, ZSTD_LEVEL);
    if (ZSTD_isError(made))
        return E_NOMEM;
    (*out)->len = (uint32_t)made;
    return 0;
}

/* --- the five --- */

static const struct codec {
    const char *name;
    int (*decompress)(const uint8_t *mem, size_t bytes, size_t max, struct buf **out);
    int (*compress)(const uint8_t *mem, size_t bytes, struct buf **out);
} codecs[CODEC_COUNT] = {
    [CODEC_NONE] = { "none", none_copy, NULL },
    [CODEC_GZIP] = { "gzip", gzip_decompress, gzip_compress },
    [CODEC_SNAPPY] = { "snappy", snappy_decompress, snappy_pack },
    [CODEC_LZ4] = { "lz4", lz4_decompress, lz4_compress },
    [CODEC_ZSTD] = { "zstd", zstd_decompress, zstd_compress },
};

/* The error of a codec: what it had made so far is freed here, for all of them. */
static int codec_end(int rc, struct buf **out)
{
    if (rc < 0) {
        buf_unref(*out);
        *out = NULL;
    }
    return rc;
}

int codec_decompress(enum batch_codec codec, const void *mem, size_t bytes, size_t max,
                     struct buf **out)
{
    *out = NULL;
    if ((unsigned)codec >= CODEC_COUNT)
        return E_UNSUPPORTED;
    if (bytes > UINT32_MAX)
        return E_TOOBIG;
    return codec_end(codecs[codec].decompress(mem, bytes, max, out), out);
}

int codec_compress(enum batch_codec codec, const void *mem, size_t bytes, struct buf **out)
{
    int rc;

    *out = NULL;
    if ((unsigned)codec >= CODEC_COUNT)
        return E_UNSUPPORTED;
    if (bytes > UINT32_MAX)
        return E_TOOBIG;
    if (codec == CODEC_NONE)
        rc = none_copy(mem, bytes, SIZE_MAX, out);
    else
        rc = codecs[codec].compress(mem, bytes, out);
    return codec_end(rc, out);
}

const char *codec_name(enum batch_codec codec)
{
    return (unsigned)codec < CODEC_COUNT ? codecs[codec].name : NULL;
}
