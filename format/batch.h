/* Kafka RecordBatch v2 (magic 2): the unit that is appended, stored, cached and fetched. All
 * integers big-endian.
 *
 *    0  i64 base_offset          stamped by the server, outside the CRC
 *    8  i32 length               bytes after this field: whole batch = length + 12
 *   12  i32 leader_epoch         stamped by the server, outside the CRC
 *   16  i8  magic                2
 *   17  u32 crc                  CRC-32C of everything from byte 21 on
 *   21  i16 attributes           bits 0-2 codec, 3 log append time, 4 transactional, 5 control, 6
 *   delete horizon
 *   23  i32 last_offset_delta    record_count - 1 in what a producer sends
 *   27  i64 base_timestamp       ms since 1970
 *   35  i64 max_timestamp
 *   43  i64 producer_id          -1: none
 *   51  i16 producer_epoch       -1: none
 *   53  i32 base_sequence        -1: none
 *   57  i32 record_count
 *   61  records, compressed as a whole by the codec
 *
 * One record (inside the decompressed body): varint length, i8 attributes (0), varint
 * timestamp_delta (64 bit), varint
 * offset_delta, varint key_length (-1: null) key, varint value_length (-1: null) value, varint
 * n_headers, then
 * each header: varint key_length key, varint value_length (-1: null) value.
 * Source: Kafka protocol guide, "Record Batch" and "Record". */
#ifndef WEIR_FORMAT_BATCH_H
#define WEIR_FORMAT_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum {
    BATCH_HEAD_BYTES = 61,
    BATCH_LENGTH_END = 12, /* base_offset and length: enough to step to the next batch */
    BATCH_CRC_START = 21,
    BATCH_MAX_RECORDS = 1 << 24, /* a batch claiming more is refused: it could not be honest */
    BATCH_PACK_FROM = 1024, /* body bytes from which batches that the server builds are packed */
    BATCH_PACK_ASIDE = 64 << 10 /* open bytes above which a loop leaves packing to a pool */
};

enum batch_codec { CODEC_NONE, CODEC_GZIP, CODEC_SNAPPY, CODEC_LZ4, CODEC_ZSTD, CODEC_COUNT };

enum {
    BATCH_ATTR_CODEC = 7,
    BATCH_ATTR_LOG_APPEND_TIME = 1 << 3,
    BATCH_ATTR_TRANSACTIONAL = 1 << 4,
    BATCH_ATTR_CONTROL = 1 << 5,
    BATCH_ATTR_DELETE_HORIZON = 1 << 6
};

struct batch_head {
    int64_t base_offset;
    uint32_t bytes; /* whole batch, length + 12 */
    int32_t leader_epoch;
    int8_t magic;
    uint32_t crc;
    uint16_t attributes;
    int32_t last_offset_delta;
    int64_t base_timestamp;
    int64_t max_timestamp;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t record_count;
};

/* Reads the header of the batch at mem; left bytes are there. Checks only what is needed to trust
 * `bytes`: magic is 2 and
 * the whole batch lies inside left. E_CORRUPT otherwise (E_UNSUPPORTED: magic 0 or 1). */
int batch_head_read(struct batch_head *h, const void *mem, size_t left) MUST_USE;

/* What a stored batch must be: header sane, CRC right. For every byte that comes back from a
 * device. */
int batch_check(struct batch_head *h, const void *mem, size_t left) MUST_USE;

/* The same, and its first offset is base, which no CRC covers: 0 or E_CORRUPT. */
int batch_check_at(struct batch_head *h, const void *mem, size_t left, uint64_t base) MUST_USE;

/* What a producer may send: exactly one batch filling mem (E_INVALID: trailing bytes or none),
 * magic 2, CRC right (E_CORRUPT),
 * record_count in 1..BATCH_MAX_RECORDS and = last_offset_delta + 1, no control bit, no
 * log-append-time or delete-horizon bit,
 * known codec, producer_id >= 0 with epoch >= 0 and sequence >= 0, or producer_id -1, whose epoch
 * and sequence are then
 * ignored, as Kafka does: kafkajs and Sarama send zeros there (else E_INVALID). When the codec is
 * none the records are walked
 * (E_CORRUPT when they do not fill the body exactly or a delta is wrong); compressed ones are not
 * opened.
 * *h is filled as far as it was read. */
int batch_validate(struct batch_head *h, const void *mem, size_t bytes) MUST_USE;

/* Writes base offset and leader epoch: the only bytes the server changes, outside the CRC. */
void batch_stamp(void *mem, int64_t base_offset, int32_t leader_epoch);

/* Makes every record's timestamp `time` (LogAppendTime), and the CRC right again. mem: a batch that
 * batch_validate has passed. */
void batch_stamp_time(void *mem, size_t bytes, int64_t time);

/* The same batch with its records packed by another codec (or not at all), and the CRC right again:
 * *out, one reference. Nothing else changes, and the codec stays as asked even where that makes the
 * batch larger.
 * mem   what batch_validate has passed
 * room  bytes that the records may have when open (E_TOOBIG: more, *room is as before, and hardly
 *       more than that was made); what they took is taken off.
 * E_CORRUPT: packed records that do not open, or are not what the header says. */
int batch_recode(const void *mem, size_t bytes, enum batch_codec codec, size_t *room,
                 struct buf **out) MUST_USE;

/* One record; pointers borrow from the iterator's decompressed body. NULL key or value means null.
 * */
struct batch_record {
    int64_t offset;
    int64_t timestamp;
    const uint8_t *key;
    const uint8_t *value;
    int32_t key_bytes;   /* -1: null */
    int32_t value_bytes; /* -1: null */
    uint32_t n_headers;
    const uint8_t *headers; /* for batch_header_next */
    uint32_t headers_bytes;
};

struct batch_iter {
    struct batch_head head;
    struct buf *body; /* decompressed; NULL when the codec is none */
    const uint8_t *at;
    const uint8_t *end;
    int32_t next;  /* records given so far */
    int64_t delta; /* least offset delta that the next record may have */
};

/* Starts over the records of one whole batch (left >= its bytes). Decompresses if needed, never
 * allocating more than max_body
 * bytes (E_TOOBIG). E_CORRUPT when the payload does not decompress. The CRC is not looked at. */
int batch_iter_open(struct batch_iter *it, const void *mem, size_t left, size_t max_body) MUST_USE;
/* 1: *r is filled; 0: the end, and the body was used up exactly; E_CORRUPT. */
int batch_iter_next(struct batch_iter *it, struct batch_record *r) MUST_USE;
/* Frees; harmless twice. */
void batch_iter_close(struct batch_iter *it);

struct batch_header {
    const uint8_t *key;
    uint32_t key_bytes;
    const uint8_t *value; /* NULL: null */
    int32_t value_bytes;
};
/* Steps through r->headers: 1, 0 at the end, E_CORRUPT. Start with *pos = 0. */
int batch_header_next(const struct batch_record *r, uint32_t *pos, struct batch_header *h) MUST_USE;

/* Builds a batch of our own. Zeroed is empty; add records, then finish. */
struct batch_builder {
    uint8_t *body;
    size_t body_bytes;
    size_t body_cap;
    int32_t n;
    int64_t base_timestamp;
    int64_t max_timestamp;
    uint16_t attributes; /* set before finish: transactional, control */
    int64_t producer_id; /* used when has_producer */
    int16_t producer_epoch;
    int32_t base_sequence;
    bool has_producer;
};
struct batch_new_record {
    int64_t timestamp;
    const void *key; /* NULL: null */
    size_t key_bytes;
    const void *value; /* NULL: null */
    size_t value_bytes;
    const struct batch_header *headers;
    uint32_t n_headers;
};
void batch_builder_add(struct batch_builder *b, const struct batch_new_record *r);
/* Makes the batch (base offset 0, epoch -1), compressed by codec when that makes it smaller. *out
 * has one reference. The builder
 * is empty again afterwards. E_INVALID when no record was added. */
int batch_builder_finish(struct batch_builder *b, enum batch_codec codec,
                         struct buf **out) MUST_USE;
void batch_builder_free(struct batch_builder *b);

#endif
