/* What a store of store_tool must hold, and its text form, the manifest (see store_tool.c). */
#ifndef WEIR_TESTS_GOLDEN_STORE_MODEL_H
#define WEIR_TESTS_GOLDEN_STORE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

enum { MAX_SHARDS = 16, MAX_BATCHES = 400, MAX_ROWS = 16, MAX_PRODUCERS = 8 };

struct model_batch {
    uint64_t base, xxh3;
    uint32_t n_offsets, bytes;
};
struct model_shard {
    uint64_t id, group, start, end;
    int class;
    bool deleted;
    unsigned n;
    struct model_batch batches[MAX_BATCHES];
};
struct model_row {
    char key[64];
    uint32_t value_bytes;
    uint8_t value[4096];
};
struct model_producer {
    uint64_t shard, base;
    int64_t id;
    int epoch, sequence, n_records;
};
/* What the store must hold. Shared between the lives of `make`, each of which is a process. */
struct model {
    unsigned n_shards, n_rows, n_producers;
    uint64_t max_shard;
    struct model_shard shards[MAX_SHARDS];
    struct model_row rows[MAX_ROWS];
    struct model_producer producers[MAX_PRODUCERS];
};

/* Says so and ends the process. */
_Noreturn void store_model_die(const char *what, const char *why);
/* The shard of that number, made when it is not there. */
struct model_shard *store_model_shard(struct model *m, uint64_t id);
void store_model_add(struct model_shard *s, const struct model_batch *b);
/* Sorts the rows. */
void store_model_write(struct model *m, const char *path);
void store_model_read(struct model *m, const char *path);

#endif
