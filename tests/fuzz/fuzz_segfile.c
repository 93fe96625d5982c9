/* Segment index, footer and run header, told apart by their magic: any bytes as they are, then with
 * length and sum put right. */
#include "format/segfile.h"

#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "format/sum.h"

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes);

static void reseal(uint8_t *mem, size_t bytes)
{
    uint16_t version = (uint16_t)(mem[4] | mem[5] << 8); /* seeds the sum from 2 on */
    struct wr w = wr_of(mem + 8, 8);

    wr_u64le(&w, sum_xxh3(mem + 16, bytes - 16, version > 1 ? version : 0));
}

/* What every reader of an index relies on. */
static void index_sound(const struct seg_index *x)
{
    for (uint32_t i = 0; i < x->n_runs; i++) {
        const struct seg_run *n = &x->runs[i];

        ASSERT(n->base < n->end && n->pos + n->bytes >= n->pos && n->n_sparse > 0);
        ASSERT((uint64_t)n->first_sparse + n->n_sparse <= x->n_sparse);
        for (uint32_t k = 0; k < n->n_sparse; k++)
            ASSERT(x->sparse[n->first_sparse + k].pos < n->bytes);
        if (i) /* what was written directly lies in any order */
            ASSERT(n[-1].shard <= n->shard);
    }
}

static void try_index(const uint8_t *mem, size_t bytes)
{
    struct seg_index x, again;
    uint8_t *copy;

    if (seg_index_read(&x, mem, bytes) < 0)
        return;
    index_sound(&x);
    ASSERT(seg_index_bytes(x.n_runs, x.n_sparse, x.n_producers) == bytes);
    copy = malloc(bytes);
    seg_index_write(&x, copy);
    ASSERT(seg_index_read(&again, copy, bytes) == 0);
    ASSERT(again.n_runs == x.n_runs && again.n_sparse == x.n_sparse && again.segment == x.segment);
    free(copy);
    seg_index_free(&again);
    seg_index_free(&x);
}

static void try_footer(const uint8_t *page)
{
    static struct seg_footer f, again;
    static uint8_t copy[PAGE_BYTES];

    if (seg_footer_read(&f, page) < 0)
        return;
    ASSERT(f.n_extents > 0 && f.n_extents <= SEG_MAX_EXTENTS && f.data_bytes <= f.index_pos);
    for (uint32_t i = 0; i < f.n_extents; i++)
        ASSERT(f.extents[i].log2 >= UNIT_LOG2 && f.extents[i].log2 <= EXTENT_MAX_LOG2);
    seg_footer_write(&f, copy);
    ASSERT(seg_footer_read(&again, copy) == 0 && again.segment == f.segment);
}

static void try_run(const uint8_t *mem, size_t bytes)
{
    struct seg_run run;

    if (seg_run_head_read(&run, 1, mem, bytes) >= 0)
        ASSERT(run.bytes <= bytes - SEG_RUN_HEAD_BYTES);
}

static void run_put_right(uint8_t *mem)
{
    struct wr w = wr_of(mem + 32, 8);

    wr_u64le(&w, sum_xxh3(mem, 32, 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes)
{
    size_t whole = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    uint8_t *fixed;

    try_index(mem, bytes);
    try_run(mem, bytes);
    if (bytes >= PAGE_BYTES)
        try_footer(mem);
    if (bytes < SEG_RUN_HEAD_BYTES)
        return 0;
    fixed = calloc(1, whole);
    memcpy(fixed, mem, bytes);
    if (mem[1] == 'R') {
        run_put_right(fixed);
        try_run(fixed, bytes);
    } else if (mem[1] == 'F') {
        reseal(fixed, PAGE_BYTES);
        try_footer(fixed);
    } else {
        reseal(fixed, whole);
        try_index(fixed, whole);
    }
    free(fixed);
    return 0;
}
