/* One copy of the superblock: any bytes as they are, then with a right sum. What passes is written
 * and read again. */
#include "format/super.h"

#include <string.h>

#include "base/rd.h"
#include "format/sum.h"

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes);

static struct super one, again;
static uint8_t page[SUPER_BYTES], copy[SUPER_BYTES];

static void try_super(void)
{
    if (super_read(&one, page) < 0)
        return;
    ASSERT(one.n <= SUPER_MAX_INCARNATIONS);
    ASSERT(one.wal_extent_log2 >= UNIT_LOG2 && one.wal_extent_log2 <= EXTENT_MAX_LOG2);
    super_write(&one, copy);
    ASSERT(super_read(&again, copy) == 0);
    ASSERT(again.generation == one.generation && again.n == one.n && again.starts == one.starts);
    ASSERT(memcmp(again.list, one.list, one.n * sizeof one.list[0]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes)
{
    struct wr w = wr_of(page + 8, 8);

    memset(page, 0, sizeof page);
    if (bytes)
        memcpy(page, mem, bytes < sizeof page ? bytes : sizeof page);
    try_super();
    memcpy(page, "WSUP\x01\0\0", 8);
    wr_u64le(&w, sum_xxh3(page + 16, SUPER_BYTES - 16, 0));
    try_super();
    return 0;
}
