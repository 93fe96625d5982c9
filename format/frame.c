#include "format/frame.h"

#include "base/rd.h"
#include "format/batch.h"

enum { FRAME_MAGIC = 0x4d524657 /* "WFRM" */, FRAME_VERSION = 1 };

uint32_t frame_item_body(const struct frame_item *item)
{
    return item->kind == ITEM_DIRECT ? BATCH_HEAD_BYTES : item->bytes;
}

size_t frame_bytes(uint32_t n_items, uint64_t body_bytes)
{
    size_t bytes = FRAME_HEAD_BYTES + (size_t)n_items * FRAME_ITEM_BYTES + body_bytes;

    return (bytes + FRAME_ALIGN - 1) / FRAME_ALIGN * FRAME_ALIGN;
}

void frame_head_write(const struct frame_head *h, uint8_t *mem)
{
    struct wr w = wr_of(mem, FRAME_HEAD_BYTES);

    wr_u32le(&w, FRAME_MAGIC);
    wr_u16le(&w, FRAME_VERSION);
    wr_u16le(&w, h->flags);
    wr_u64le(&w, h->group);
    wr_u64le(&w, h->epoch);
    wr_u64le(&w, h->entry);
    wr_u64le(&w, h->prev_hash);
    wr_u64le(&w, h->lac);
    wr_u64le(&w, (uint64_t)h->append_time);
    wr_u32le(&w, h->n_items);
    wr_u32le(&w, h->bytes);
    wr_u64le(&w, h->segment.first);
    wr_u64le(&w, h->segment.bytes);
    ASSERT(wr_ok(&w) && wr_used(&w) == FRAME_HEAD_BYTES);
}

void frame_item_write(const struct frame_item *item, uint8_t *mem, uint32_t i)
{
    struct wr w = wr_of(mem + FRAME_HEAD_BYTES + (size_t)i * FRAME_ITEM_BYTES, FRAME_ITEM_BYTES);

    wr_u64le(&w, item->shard);
    wr_u64le(&w, item->base_offset);
    wr_u32le(&w, item->n_offsets);
    wr_u32le(&w, item->bytes);
    wr_u8(&w, item->kind);
    wr_u8(&w, 0);
    wr_u16le(&w, 0);
    wr_u32le(&w, 0);
    wr_u64le(&w, item->xxh3);
}

static int items_check(const struct frame_head *h, const uint8_t *mem)
{
    uint64_t body_bytes = 0;

    for (uint32_t i = 0; i < h->n_items; i++) {
        struct frame_item item;

        frame_item_read(&item, mem, i);
        if (item.kind > ITEM_DIRECT || item.n_offsets == 0 ||
            (item.kind == ITEM_DIRECT && item.bytes < BATCH_HEAD_BYTES))
            return E_CORRUPT;
        body_bytes += frame_item_body(&item);
    }
    return frame_bytes(h->n_items, body_bytes) == h->bytes ? 0 : E_CORRUPT;
}

int frame_head_read(struct frame_head *h, const uint8_t *mem, size_t left)
{
    struct rd r = rd_of(mem, left);
    uint32_t magic = rd_u32le(&r);
    uint16_t version = rd_u16le(&r);

    h->flags = rd_u16le(&r);
    h->group = rd_u64le(&r);
    h->epoch = rd_u64le(&r);
    h->entry = rd_u64le(&r);
    h->prev_hash = rd_u64le(&r);
    h->lac = rd_u64le(&r);
    h->append_time = (int64_t)rd_u64le(&r);
    h->n_items = rd_u32le(&r);
    h->bytes = rd_u32le(&r);
    h->segment.first = rd_u64le(&r);
    h->segment.bytes = rd_u64le(&r);
    if (!rd_ok(&r) || magic != FRAME_MAGIC)
        return E_CORRUPT;
    if (version != FRAME_VERSION)
        return version > FRAME_VERSION ? E_VERSION : E_CORRUPT;
    if (h->bytes > left || h->n_items > (left - FRAME_HEAD_BYTES) / FRAME_ITEM_BYTES)
        return E_CORRUPT;
    return items_check(h, mem);
}

void frame_item_read(struct frame_item *item, const uint8_t *mem, uint32_t i)
{
    struct rd r = rd_of(mem + FRAME_HEAD_BYTES + (size_t)i * FRAME_ITEM_BYTES, FRAME_ITEM_BYTES);

    item->shard = rd_u64le(&r);
    item->base_offset = rd_u64le(&r);
    item->n_offsets = rd_u32le(&r);
    item->bytes = rd_u32le(&r);
    item->kind = rd_u8(&r);
    rd_bytes(&r, 7);
    item->xxh3 = rd_u64le(&r);
}
