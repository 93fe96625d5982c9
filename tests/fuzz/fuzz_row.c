/* Rows: a byte that says how long the key is, the key, the value. The key's first letter names the
 * reader, as in the catalogue. What passes is written and read again. */
#include "format/row.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes);

static uint8_t copy[ROW_VALUE_MAX];

#define TRY(type)                                                                                  \
    static void try_##type(const uint8_t *mem, size_t bytes)                                       \
    {                                                                                              \
        static struct row_##type v, again;                                                         \
        size_t n;                                                                                  \
                                                                                                   \
        memset(&v, 0, sizeof v);                                                                   \
        memset(&again, 0, sizeof again);                                                           \
        if (row_##type##_read(&v, mem, bytes) < 0)                                                 \
            return;                                                                                \
        n = row_##type##_write(&v, copy);                                                          \
        ASSERT(n == bytes);                                                                        \
        ASSERT(row_##type##_read(&again, copy, n) == 0);                                           \
        ASSERT(memcmp(&v, &again, sizeof v) == 0);                                                 \
    }
TRY(group)
TRY(shard)
TRY(segment)
TRY(loss)
TRY(run)
TRY(producer)

static void try_u64(const uint8_t *mem, size_t bytes)
{
    uint64_t v, again;

    if (row_u64_read(&v, mem, bytes) < 0)
        return;
    ASSERT(row_u64_write(v, copy) == bytes);
    ASSERT(row_u64_read(&again, copy, bytes) == 0 && again == v);
}

static void try_key(const uint8_t *key, size_t bytes)
{
    uint8_t again[ROW_KEY_MAX];
    uint64_t a, b;
    size_t n;

    if (!row_key_parse(key, bytes, &a, &b))
        return;
    n = bytes == 9 ? row_key(again, key[0], a) : row_key2(again, key[0], a, b);
    ASSERT(n == bytes && memcmp(again, key, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes)
{
    static void (*const readers[256])(const uint8_t *, size_t) = {
        [ROW_GROUP] = try_group, [ROW_SHARD] = try_shard, [ROW_SEGMENT] = try_segment,
        [ROW_HOLE] = try_u64,    [ROW_LOSS] = try_loss,   [ROW_MAX_SHARD] = try_u64,
        [ROW_END] = try_u64,     [ROW_RUN] = try_run,     [ROW_PRODUCER] = try_producer,
        [ROW_LIVE] = try_u64
    };

    if (bytes < 2 || mem[0] < 1 || mem[0] > bytes - 1)
        return 0;
    try_key(mem + 1, mem[0]);
    if (readers[mem[1]])
        readers[mem[1]](mem + 1 + mem[0], bytes - 1 - mem[0]);
    return 0;
}
