/* Frames: any bytes as they are, then with the magic and the total length put right. What passes is
 * walked to its last byte, and written again. */
#include "format/frame.h"

#include <stdlib.h>
#include <string.h>

#include "base/rd.h"

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes);

static int walk(const uint8_t *mem, size_t bytes, struct frame_head *f)
{
    uint64_t at, last = 0;
    int rc = frame_head_read(f, mem, bytes);

    if (rc < 0)
        return rc;
    at = FRAME_HEAD_BYTES + (uint64_t)f->n_items * FRAME_ITEM_BYTES;
    for (uint32_t i = 0; i < f->n_items; i++) {
        struct frame_item item;

        frame_item_read(&item, mem, i);
        ASSERT(item.n_offsets > 0 && item.kind <= ITEM_DIRECT);
        for (uint32_t k = 0; k < frame_item_body(&item); k += 64)
            last += mem[at + k];
        at += frame_item_body(&item);
    }
    ASSERT(at <= f->bytes && f->bytes - at < FRAME_ALIGN && f->bytes <= bytes);
    return last == UINT64_MAX; /* so that the reading is not left out */
}

static void rewrite(uint8_t *mem, size_t bytes, const struct frame_head *f)
{
    struct frame_head again;

    frame_head_write(f, mem);
    for (uint32_t i = 0; i < f->n_items; i++) {
        struct frame_item item, same;

        frame_item_read(&item, mem, i);
        frame_item_write(&item, mem, i);
        frame_item_read(&same, mem, i);
        ASSERT(same.shard == item.shard && same.bytes == item.bytes && same.xxh3 == item.xxh3);
    }
    ASSERT(walk(mem, bytes, &again) == 0);
    ASSERT(again.entry == f->entry && again.bytes == f->bytes && again.flags == f->flags);
}

int LLVMFuzzerTestOneInput(const uint8_t *mem, size_t bytes)
{
    struct frame_head f;
    struct wr w;
    uint8_t *fixed;

    (void)!walk(mem, bytes, &f);
    if (bytes < FRAME_HEAD_BYTES)
        return 0;
    fixed = malloc(bytes);
    memcpy(fixed, mem, bytes);
    w = wr_of(fixed, 6);
    wr_bytes(&w, "WFRM\x01", 6);
    w = wr_of(fixed + 60, 4);
    wr_u32le(&w, (uint32_t)(bytes / FRAME_ALIGN * FRAME_ALIGN));
    if (walk(fixed, bytes, &f) == 0)
        rewrite(fixed, bytes, &f);
    free(fixed);
    return 0;
}
