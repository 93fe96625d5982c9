#include "format/block.h"

#include <string.h>

#include "base/rd.h"
#include "format/frame.h"
#include "format/sum.h"

enum { BLOCK_MAGIC = 0x4b4c4257 /* "WBLK" */, BLOCK_VERSION = 1, SUM_START = 16 };

static uint64_t dir_end(uint64_t n_frames, uint64_t n_prev, uint64_t n_placements)
{
    return BLOCK_HEAD_BYTES + n_frames * BLOCK_DIR_BYTES + n_prev * BLOCK_PREV_BYTES +
           n_placements * BLOCK_PLACEMENT_BYTES;
}

uint32_t block_frames_pos(uint32_t n_frames, uint32_t n_prev, uint32_t n_placements)
{
    return (uint32_t)dir_end(n_frames, n_prev, n_placements);
}

void block_dir_write(const struct block_dir *d, uint8_t *mem, uint32_t i)
{
    struct wr w = wr_of(mem + BLOCK_HEAD_BYTES + (size_t)i * BLOCK_DIR_BYTES, BLOCK_DIR_BYTES);

    wr_u64le(&w, d->group);
    wr_u64le(&w, d->epoch);
    wr_u64le(&w, d->entry);
    wr_u32le(&w, d->pos);
    wr_u32le(&w, d->bytes);
    wr_u32le(&w, d->n_offsets);
    wr_u32le(&w, 0);
    wr_u64le(&w, d->hash);
}

void block_dir_read(struct block_dir *d, const uint8_t *mem, uint32_t i)
{
    struct rd r = rd_of(mem + BLOCK_HEAD_BYTES + (size_t)i * BLOCK_DIR_BYTES, BLOCK_DIR_BYTES);

    d->group = rd_u64le(&r);
    d->epoch = rd_u64le(&r);
    d->entry = rd_u64le(&r);
    d->pos = rd_u32le(&r);
    d->bytes = rd_u32le(&r);
    d->n_offsets = rd_u32le(&r);
    rd_u32le(&r);
    d->hash = rd_u64le(&r);
}

void block_prev_write(const struct block_prev *p, uint8_t *mem, uint32_t n_frames, uint32_t i)
{
    struct wr w = wr_of(mem + dir_end(n_frames, i, 0), BLOCK_PREV_BYTES);

    wr_u64le(&w, p->group);
    wr_u64le(&w, p->last_entry);
    wr_u32le(&w, p->n_offsets);
    wr_u32le(&w, 0);
}

void block_prev_read(struct block_prev *p, const uint8_t *mem, uint32_t n_frames, uint32_t i)
{
    struct rd r = rd_of(mem + dir_end(n_frames, i, 0), BLOCK_PREV_BYTES);

    p->group = rd_u64le(&r);
    p->last_entry = rd_u64le(&r);
    p->n_offsets = rd_u32le(&r);
}

void block_placement_write(const struct block_placement *p, uint8_t *mem, uint32_t n_frames,
                           uint32_t n_prev, uint32_t i)
{
    struct wr w = wr_of(mem + dir_end(n_frames, n_prev, i), BLOCK_PLACEMENT_BYTES);

    wr_u64le(&w, p->shard);
    wr_u64le(&w, p->base);
    wr_u64le(&w, p->segment);
    wr_u64le(&w, p->pos);
    wr_u32le(&w, p->bytes);
    wr_u32le(&w, 0);
}

void block_placement_read(struct block_placement *p, const struct block_head *h, const uint8_t *mem,
                          uint32_t i)
{
    struct rd r = rd_of(mem + dir_end(h->n_frames, h->n_prev, i), BLOCK_PLACEMENT_BYTES);

    p->shard = rd_u64le(&r);
    p->base = rd_u64le(&r);
    p->segment = rd_u64le(&r);
    p->pos = rd_u64le(&r);
    p->bytes = rd_u32le(&r);
}

void block_head_write(struct block_head *h, uint64_t salt, uint8_t *mem)
{
    uint64_t end = dir_end(h->n_frames, h->n_prev, h->n_placements);
    struct wr w = wr_of(mem, BLOCK_HEAD_BYTES);

    wr_u32le(&w, BLOCK_MAGIC);
    wr_u16le(&w, BLOCK_VERSION);
    wr_u16le(&w, 0);
    wr_u64le(&w, 0);
    wr_bytes(&w, h->store.bytes, sizeof h->store.bytes);
    wr_u64le(&w, h->incarnation);
    wr_u64le(&w, h->lsn);
    wr_u64le(&w, h->prev_hash);
    wr_u64le(&w, h->durable_lsn);
    wr_u32le(&w, h->block_bytes);
    wr_u32le(&w, h->body_bytes);
    wr_u64le(&w, h->next_place);
    wr_u32le(&w, h->n_frames);
    wr_u32le(&w, h->n_prev);
    wr_u32le(&w, h->n_placements);
    wr_u32le(&w, h->flags);
    wr_u64le(&w, (uint64_t)h->written);
    wr_u64le(&w, h->prev_lsn);
    wr_pad(&w, BLOCK_HEAD_BYTES);
    h->hash = sum_xxh3(mem + SUM_START, end - SUM_START, salt ^ h->lsn);
    w = wr_of(mem + 8, 8);
    wr_u64le(&w, h->hash);
}

static bool sizes_fit(const struct block_head *h, uint64_t left)
{
    uint64_t end = dir_end(h->n_frames, h->n_prev, h->n_placements);

    return h->block_bytes <= left && h->block_bytes % PAGE_BYTES == 0 && h->block_bytes > 0 &&
           h->body_bytes <= h->block_bytes && end <= h->body_bytes;
}

int block_head_read(struct block_head *h, const struct uuid *store, uint64_t incarnation,
                    uint64_t salt, const uint8_t *mem, uint64_t left)
{
    struct rd r = rd_of(mem, left < BLOCK_HEAD_BYTES ? left : BLOCK_HEAD_BYTES);
    uint32_t magic = rd_u32le(&r);
    uint32_t version = rd_u32le(&r);
    const uint8_t *uuid;

    h->hash = rd_u64le(&r);
    uuid = rd_bytes(&r, sizeof h->store.bytes);
    h->incarnation = rd_u64le(&r);
    h->lsn = rd_u64le(&r);
    h->prev_hash = rd_u64le(&r);
    h->durable_lsn = rd_u64le(&r);
    h->block_bytes = rd_u32le(&r);
    h->body_bytes = rd_u32le(&r);
    h->next_place = rd_u64le(&r);
    h->n_frames = rd_u32le(&r);
    h->n_prev = rd_u32le(&r);
    h->n_placements = rd_u32le(&r);
    h->flags = rd_u32le(&r);
    h->written = (int64_t)rd_u64le(&r);
    h->prev_lsn = rd_u64le(&r);
    if (!rd_ok(&r) || magic != BLOCK_MAGIC || version != BLOCK_VERSION || !sizes_fit(h, left))
        return E_CORRUPT;
    memcpy(h->store.bytes, uuid, sizeof h->store.bytes);
    if (memcmp(h->store.bytes, store->bytes, sizeof store->bytes) != 0 ||
        h->incarnation != incarnation)
        return E_CORRUPT;
    uint64_t end = dir_end(h->n_frames, h->n_prev, h->n_placements);
    return sum_xxh3(mem + SUM_START, end - SUM_START, salt ^ h->lsn) == h->hash ? 0 : E_CORRUPT;
}

int block_body_check(const struct block_head *h, const uint8_t *mem)
{
    uint64_t at = dir_end(h->n_frames, h->n_prev, h->n_placements);

    for (uint32_t i = 0; i < h->n_frames; i++) {
        struct block_dir d;

        block_dir_read(&d, mem, i);
        if (d.pos < at || d.pos % FRAME_ALIGN != 0 || d.pos > h->body_bytes ||
            d.bytes > h->body_bytes - d.pos || !bytes_are_zero(mem + at, d.pos - at) ||
            sum_xxh3(mem + d.pos, d.bytes, 0) != d.hash)
            return E_CORRUPT;
        at = (uint64_t)d.pos + d.bytes;
    }
    return bytes_are_zero(mem + at, h->block_bytes - at) ? 0 : E_CORRUPT;
}
