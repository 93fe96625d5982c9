/* A real store in a folder, made through journal.h over dev_aio and RocksDB with threads of its
 * own, for tests of what looks at it from outside. Calls wait for their answer and end the process
 * with a line when it is an error. */
#ifndef WEIR_TESTS_JOURNAL_STORE_MAKER_H
#define WEIR_TESTS_JOURNAL_STORE_MAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "format/batch.h"
#include "journal/journal.h"

enum { STORE_LOOPS = 2, STORE_SHARDS = 64, STORE_FIRST = 16 };

struct store {
    struct dev *dev;
    struct rows *rows;
    struct pool *pool;
    struct loop *loops[STORE_LOOPS + 1];
    struct journal *journal;
    struct shard *shard[STORE_SHARDS]; /* by id - STORE_FIRST; NULL: not open */
    struct store_threads *threads;
};

/* Opens or makes it. */
void maker_open(struct store *s, const char *path, const struct journal_conf *conf);
/* In order, so that the WAL ends with a closing block. */
void maker_close(struct store *s);

void store_create(struct store *s, uint64_t id, enum shard_class class);
/* With cleanup by log compaction. */
void store_create_compacted(struct store *s, uint64_t id);
void store_delete(struct store *s, uint64_t id);
void store_put_row(struct store *s, const void *key, uint32_t key_bytes, const void *value,
                   uint32_t value_bytes);
/* Writes the row that names shards first .. first + n - 1 as partitions of a topic. */
void store_put_topic(struct store *s, const char *name, uint64_t first, uint32_t n);

/* What a batch of the tests holds: record k of it has key "k<n>", a value of value_bytes or a few
 * more that begins "<shard>.<n>.", and timestamp time + k, with n the record's offset. */
struct store_batch {
    uint64_t base; /* the offset that it will have */
    unsigned n;
    unsigned value_bytes;
    int64_t time;
    enum batch_codec codec;
    int64_t producer; /* 0: none */
    int32_t sequence;
    unsigned keys; /* the key is "k<n mod keys>"; 0: "k<n>" */
};
struct buf *store_batch_make(uint64_t shard, const struct store_batch *b);
/* Appends it and waits until it is durable; gives the base offset. */
uint64_t store_append(struct store *s, uint64_t id, const struct store_batch *b);
/* Moves the shard's start up. */
void store_trim(struct store *s, uint64_t id, uint64_t start);

#endif
