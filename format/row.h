/* Rows: keys and values of the catalogue and of the view kept in RocksDB.
 *
 * A key is a table letter and big-endian numbers (so that they sort); a value begins with a version
 * byte (1), then little-endian fields. Catalogue records are RecordBatch v2 records: key = row key,
 * value = row value, null = deleted.
 *
 * In the catalogue and in the view:
 *   'G' group u64      group: u8 1, u8 class, u16 0, u64 destaged_lsn (its batches below are in
 *                      segments), u64 last entry below it, u64 hash of that entry's frame; or
 *                      u8 2, and behind these u64 first entry of the segment that the entry after
 *                      that is in, u64 bytes of batches that this segment has below
 *   'S' shard u64      shard: u8 1, u8 kind, u8 class, u8 0, u64 group, u64 start offset,
 *                      i64 created, ms; or, when it has a policy: u8 2, and behind these
 *                      u32 flags (1 expires, 2 limited, 4 compacted), u32 0, i64 retention ms,
 *                      i64 retention bytes, i64 least compaction lag ms, i64 delete retention ms
 *   'M' segment u64    segment: u8 1, u8 flags, u16 n_extents, u64 group, u64 first entry, u64 last
 *                      entry, u64 data_bytes, u64 index_pos, u64 index_bytes, u64 n_batches,
 *                      i64 min_ts, i64 max_ts, u8[16] identity, i64 created, ms, then (version
 *                      byte 2 and 3) u64 direct_bytes, u64 sorted_pos, then (3) u64 first entry of
 *                      the log's segment that it is a piece of, then the extents, 12 bytes each:
 *                      u64 place, u32 log2. The version says which identity it is (segfile.h; of 2
 *                      and 3 the same). Flags (with 3, else 0) as in the footer
 *   'H' shard u64, start u64   hole (records lost): u8 1, u8[7] 0, u64 end offset
 *   'L' group u64, lsn u64     loss: u8 1, u8 accepted, u16 0, u32 0, u64 end lsn,
 *                      u64 offsets that may have been used at most
 *   'I' serial u64, device u64   intent (format/intent.h): only in device 0's catalogue
 *   'C' shard u64      log compaction (journal/compact.h): u8 1, u8[7] 0, u64 cleaned (below it a
 *                      key has one record), u64 to (of the round under way or last), u64 done (the
 *                      round has come so far), u64 tombstones below this are dropped, u64 horizon,
 *                      i64 when all below the horizon had been cleaned, i64 time of the round,
 *                      u64 tombstones that are left below `to`
 *   'N'                largest shard id ever used: u8 1, u8[7] 0, u64 id
 *   'A' ...            rows of the doors: key and value are theirs
 * In the view only (derived, rebuilt when lost):
 *   'e' shard u64      u8 1, u8[7] 0, u64 end offset (at the replay LSN)
 *   'r' shard u64, base u64    run in a segment: u8 1, u8[3] 0, u32 n_sparse, u64 segment,
 *                      u64 end offset, u64 pos, u64 bytes, i64 max_ts, u32 first_sparse,
 *                      u32 n_batches, u64 xxh3
 *   'p' shard u64, producer u64   u8 1, u8 n (1..5), i16 epoch, u32 0, then n of: u64 base offset,
 *                      i64 time, i32 base sequence, i32 last sequence
 *   'k' shard u64, name   latest record of a key: u8 1, u8[7] 0, u64 offset. name: the key itself up to
 *                      999 bytes; of a longer one the first 999 and the XXH3-128 (canonical, seed 0)
 *                      of all of it, 1015 in all
 *   'x' shard u64      u8 1, u8[7] 0, u64 offset below which the shard's keys are in 'k'; of shard 0
 *                      (there is none): the rows were made anew, and not yet every 'k'
 *   't' u8 n, table u8[n], key   row of a table: the owner's value
 *   'o' u8 n, table u8[n], shard u64   u8 1, u8[7] 0, u64 offset that the table's rows stand for
 *   'd' segment u64    live bytes: u8 1, u8[7] 0, u64 bytes of its runs whose shard is not deleted,
 *                      nor trimmed past them */
#ifndef WEIR_FORMAT_ROW_H
#define WEIR_FORMAT_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "format/frame.h"
#include "format/segfile.h"

enum row_table {
    ROW_GROUP = 'G',
    ROW_SHARD = 'S',
    ROW_SEGMENT = 'M',
    ROW_HOLE = 'H',
    ROW_LOSS = 'L',
    ROW_CLEANED = 'C',
    ROW_MAX_SHARD = 'N',
    ROW_INTENT = 'I',
    ROW_APP = 'A',
    ROW_END = 'e',
    ROW_RUN = 'r',
    ROW_PRODUCER = 'p',
    ROW_LIVE = 'd',
    ROW_NAME = 'k',
    ROW_NAMED = 'x',
    ROW_TABLE = 't',
    ROW_TABLE_OFFSET = 'o'
};

enum { ROW_KEY_MAX = 17, ROW_VALUE_MAX = 4096, ROW_PRODUCER_BATCHES = 5 };
enum {
    ROW_NAME_PLAIN = 999,
    ROW_NAME_MAX = ROW_NAME_PLAIN + 16,
    ROW_NAME_KEY_MAX = 9 + ROW_NAME_MAX
};

/* Keys; return their length. key: ROW_KEY_MAX bytes. */
size_t row_key(uint8_t *key, enum row_table table, uint64_t a);
size_t row_key2(uint8_t *key, enum row_table table, uint64_t a, uint64_t b);
/* The numbers back; false when the length is not the table's. */
bool row_key_parse(const void *key, size_t bytes, uint64_t *a, uint64_t *b);
/* Whether it is a key of that table whose first number is a; *b is the second (NULL: not asked for). */
bool row_key_of(const void *key, size_t bytes, enum row_table table, uint64_t a, uint64_t *b);

/* The name under which a record's key is indexed; returns its length. name: ROW_NAME_MAX bytes. */
size_t row_index_name(uint8_t *name, const void *key, size_t bytes);
/* The key of row k; bytes: ROW_NAME_MAX at most. key: ROW_NAME_KEY_MAX bytes. */
size_t row_key_name(uint8_t *key, uint64_t shard, const void *name, size_t bytes);
/* True for a row k of shard. */
bool row_key_is_name(const void *key, size_t bytes, uint64_t shard);

struct row_group {
    uint8_t class;
    uint64_t destaged_lsn, last_entry, last_hash;
    struct frame_segment segment; /* that the next entry is in; first 0: the row does not say */
};
struct row_policy {
    uint32_t flags; /* enum shard_flag, journal.h; 0: no policy, all is kept */
    int64_t retention_ms, retention_bytes, min_compaction_lag_ms, delete_retention_ms;
};
struct row_shard {
    uint8_t kind, class;
    uint64_t group, start;
    int64_t created;
    struct row_policy policy;
};
struct row_segment {
    uint8_t version; /* that of its footer: 1 or 2; 0 to write the newest */
    uint8_t flags;   /* SEG_ENDS, SEG_SEVERAL */
    uint64_t group, first_entry, last_entry, data_bytes, index_pos, index_bytes, n_batches;
    int64_t min_ts, max_ts, created;
    struct sum128 identity;
    uint64_t direct_bytes, sorted_pos;
    uint64_t segment_first; /* 0: not known, from before there was such a thing */
    uint16_t n_extents;
    struct seg_extent extents[SEG_MAX_EXTENTS];
};
struct row_loss {
    bool accepted;
    uint64_t end_lsn, max_offsets;
};
struct row_cleaned {
    uint64_t cleaned, to, done, drop_below, horizon;
    int64_t horizon_time, time;
    uint64_t tombstones;
};
struct row_run {
    uint64_t segment, end, pos, bytes, xxh3;
    int64_t max_ts;
    uint32_t first_sparse, n_sparse, n_batches;
};
struct row_producer_batch {
    uint64_t base;
    int64_t time;
    int32_t base_sequence, last_sequence;
};
struct row_producer {
    int16_t epoch;
    uint8_t n;
    struct row_producer_batch batch[ROW_PRODUCER_BATCHES]; /* oldest first */
};

/* Values; writers return their length (mem: ROW_VALUE_MAX bytes), readers 0, E_CORRUPT or
 * E_VERSION. */
size_t row_group_write(const struct row_group *v, uint8_t *mem);
int row_group_read(struct row_group *v, const void *mem, size_t bytes) MUST_USE;
size_t row_shard_write(const struct row_shard *v, uint8_t *mem);
int row_shard_read(struct row_shard *v, const void *mem, size_t bytes) MUST_USE;
size_t row_segment_write(const struct row_segment *v, uint8_t *mem);
int row_segment_read(struct row_segment *v, const void *mem, size_t bytes) MUST_USE;
size_t row_loss_write(const struct row_loss *v, uint8_t *mem);
int row_loss_read(struct row_loss *v, const void *mem, size_t bytes) MUST_USE;
size_t row_cleaned_write(const struct row_cleaned *v, uint8_t *mem);
int row_cleaned_read(struct row_cleaned *v, const void *mem, size_t bytes) MUST_USE;
size_t row_run_write(const struct row_run *v, uint8_t *mem);
int row_run_read(struct row_run *v, const void *mem, size_t bytes) MUST_USE;
size_t row_producer_write(const struct row_producer *v, uint8_t *mem);
int row_producer_read(struct row_producer *v, const void *mem, size_t bytes) MUST_USE;
/* One u64: hole's end, shard's end, live bytes. */
size_t row_u64_write(uint64_t v, uint8_t *mem);
int row_u64_read(uint64_t *v, const void *mem, size_t bytes) MUST_USE;

#endif
