/* The five codecs of RecordBatch v2, whole buffers at a time.
 *
 * gzip: RFC 1952. snappy: both raw blocks and the framing of Java producers (magic
 * "\x82SNAPPY\0", u32be version 1, u32be compat 1, then u32be length + raw block ...) are read; the
 * framing is written, in blocks of 32 KiB as Java does. lz4: the LZ4 frame format, independent
 * blocks. zstd: RFC 8878. */
#ifndef WEIR_FORMAT_CODEC_H
#define WEIR_FORMAT_CODEC_H

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "format/batch.h"

/* Decompresses mem into a new buffer *out (one reference), never growing it past max bytes
 * (E_TOOBIG). E_CORRUPT: not valid, or
 * bytes left over. E_UNSUPPORTED: codec is not 0..4. Codec none copies. */
int codec_decompress(enum batch_codec codec, const void *mem, size_t bytes, size_t max,
                     struct buf **out) MUST_USE;
/* Compresses mem into a new buffer *out (one reference). */
int codec_compress(enum batch_codec codec, const void *mem, size_t bytes,
                   struct buf **out) MUST_USE;
/* "none", "gzip", ...; NULL when unknown. */
const char *codec_name(enum batch_codec codec);

#endif
