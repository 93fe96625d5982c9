/* WAL blocks, walked as recovery walks them: any bytes as they are, then the same with all hashes
 * put right, so that what lies behind them is reached. */
#include "format/block.h"

#include <stdlib.h>
#include <string.h>

#include "base/rd.h"
#include "format/batch.h"
#include "format/frame.h"
#include "format/sum.h"

enum { SALT = 0x5a17 };

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes);

static void frame_walk(const uint8_t *mem, size_t bytes)
{
    struct frame_head f;
    size_t at;

    if (frame_head_read(&f, mem, bytes) < 0)
        return;
    ASSERT(f.bytes <= bytes);
    at = FRAME_HEAD_BYTES + (size_t)f.n_items * FRAME_ITEM_BYTES;
    for (uint32_t i = 0; i < f.n_items; i++) {
        struct frame_item item;
        struct batch_head h;

        frame_item_read(&item, mem, i);
        ASSERT(at + frame_item_body(&item) <= f.bytes);
        if (item.kind == ITEM_INLINE)
            (void)!batch_check(&h, mem + at, item.bytes);
        else
            (void)!batch_head_read(&h, mem + at, item.bytes);
        at += frame_item_body(&item);
    }
}

static int walk(const uint8_t *mem, size_t bytes, struct block_head *h)
{
    struct uuid store = { { 0 } };
    uint64_t incarnation = 0;
    int rc;

    if (bytes >= 40) { /* whatever it says: these are compared, nothing more */
        memcpy(store.bytes, mem + 16, sizeof store.bytes);
        memcpy(&incarnation, mem + 32, sizeof incarnation);
    }
    rc = block_head_read(h, &store, le64toh(incarnation), SALT, mem, bytes);
    if (rc < 0)
        return rc;
    ASSERT(h->block_bytes <= bytes);
    for (uint32_t i = 0; i < h->n_prev; i++) {
        struct block_prev p;

        block_prev_read(&p, mem, h->n_frames, i);
    }
    for (uint32_t i = 0; i < h->n_placements; i++) {
        struct block_placement p;

        block_placement_read(&p, h, mem, i);
    }
    rc = block_body_check(h, mem);
    for (uint32_t i = 0; rc >= 0 && i < h->n_frames; i++) {
        struct block_dir d;

        block_dir_read(&d, mem, i);
        frame_walk(mem + d.pos, d.bytes);
    }
    return rc;
}

/* Gives frames and header their hashes, as far as the counts fit. */
static void put_right(uint8_t *mem, size_t bytes)
{
    struct rd r = rd_of(mem + 64, 28);
    struct wr w = wr_of(mem, 8);
    uint32_t n_frames, n_prev, n_placements;
    uint64_t end, lsn, sum;

    wr_bytes(&w, "WBLK\x01\0\0", 8);
    rd_bytes(&r, 16);
    n_frames = rd_u32le(&r);
    n_prev = rd_u32le(&r);
    n_placements = rd_u32le(&r);
    end = BLOCK_HEAD_BYTES + (uint64_t)n_frames * BLOCK_DIR_BYTES +
          (uint64_t)n_prev * BLOCK_PREV_BYTES + (uint64_t)n_placements * BLOCK_PLACEMENT_BYTES;
    if (end > bytes)
        return;
    for (uint32_t i = 0; i < n_frames; i++) {
        struct block_dir d;

        block_dir_read(&d, mem, i);
        if (d.pos < end || d.pos > bytes || d.bytes > bytes - d.pos)
            continue;
        d.hash = sum_xxh3(mem + d.pos, d.bytes, 0);
        block_dir_write(&d, mem, i);
    }
    memcpy(&lsn, mem + 40, sizeof lsn);
    sum = sum_xxh3(mem + 16, end - 16, SALT ^ le64toh(lsn));
    w = wr_of(mem + 8, 8);
    wr_u64le(&w, sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes)
{
    struct block_head h, again;
    uint8_t *fixed;

    (void)!walk(mem, bytes, &h);
    if (bytes < BLOCK_HEAD_BYTES)
        return 0;
    fixed = malloc(bytes);
    memcpy(fixed, mem, bytes);
    put_right(fixed, bytes);
    if (walk(fixed, bytes, &h) >= 0) {
        /* What was read writes a header that reads the same. */
        block_head_write(&h, SALT, fixed);
        ASSERT(walk(fixed, bytes, &again) >= 0);
        ASSERT(again.lsn == h.lsn && again.n_frames == h.n_frames && again.flags == h.flags &&
               again.hash == h.hash && again.next_place == h.next_place);
    }
    free(fixed);
    return 0;
}
