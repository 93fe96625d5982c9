/* The header pages of slabs and extents: any bytes as they are, then with a right sum. What passes
 * is written and read again. */
#include "format/extent.h"

#include <string.h>

#include "base/rd.h"
#include "format/sum.h"

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes);

static uint8_t page[PAGE_BYTES], copy[PAGE_BYTES];

static void try_slab(void)
{
    struct slab_head h, again;

    if (slab_head_read(&h, page) < 0)
        return;
    ASSERT(h.bytes >= UNIT_BYTES && h.bytes % UNIT_BYTES == 0);
    slab_head_write(&h, copy);
    ASSERT(slab_head_read(&again, copy) == 0);
    ASSERT(again.number == h.number && again.bytes == h.bytes);
}

static void try_extent(void)
{
    struct extent_head h, again;

    if (extent_head_read(&h, page) < 0)
        return;
    ASSERT(h.kind == EXTENT_WAL || h.kind == EXTENT_SEGMENT);
    ASSERT(h.log2 >= UNIT_LOG2 && h.log2 <= EXTENT_MAX_LOG2);
    extent_head_write(&h, copy);
    ASSERT(extent_head_read(&again, copy) == 0);
    ASSERT(again.place == h.place && again.kind == h.kind && again.first_lsn == h.first_lsn &&
           again.segment == h.segment && again.pos == h.pos);
}

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes)
{
    struct wr w = wr_of(page + 8, 8);

    memset(page, 0, sizeof page);
    if (bytes)
        memcpy(page, mem, bytes < sizeof page ? bytes : sizeof page);
    try_slab();
    try_extent();
    wr_u64le(&w, sum_xxh3(page + 16, PAGE_BYTES - 16, 0));
    try_slab();
    try_extent();
    return 0;
}
