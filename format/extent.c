#include "format/extent.h"

#include <stdbool.h>
#include <string.h>

#include "base/rd.h"
#include "format/sum.h"

enum {
    SLAB_MAGIC = 0x424c5357,   /* "WSLB" */
    EXTENT_MAGIC = 0x54584557, /* "WEXT" */
    EXTENT_VERSION = 1,
    SUM_START = 16
};

static void page_begin(struct wr *w, uint8_t *page, uint32_t magic, uint16_t kind)
{
    memset(page, 0, PAGE_BYTES);
    *w = wr_of(page, PAGE_BYTES);
    wr_u32le(w, magic);
    wr_u16le(w, EXTENT_VERSION);
    wr_u16le(w, kind);
    wr_u64le(w, 0);
}

static void page_end(uint8_t *page)
{
    struct wr w = wr_of(page + 8, 8);

    wr_u64le(&w, sum_xxh3(page + SUM_START, PAGE_BYTES - SUM_START, 0));
}

/* Checks magic, version and sum; leaves r after them. */
static int page_open(struct rd *r, const uint8_t *page, uint32_t magic, uint16_t *kind)
{
    uint16_t version;
    uint64_t sum;

    *r = rd_of(page, PAGE_BYTES);
    if (rd_u32le(r) != magic)
        return E_CORRUPT;
    version = rd_u16le(r);
    *kind = rd_u16le(r);
    sum = rd_u64le(r);
    if (sum != sum_xxh3(page + SUM_START, PAGE_BYTES - SUM_START, 0))
        return E_CORRUPT;
    return version > EXTENT_VERSION ? E_VERSION : version == EXTENT_VERSION ? 0 : E_CORRUPT;
}

static void rd_uuid(struct rd *r, struct uuid *u)
{
    const uint8_t *p = rd_bytes(r, sizeof u->bytes);

    if (p)
        memcpy(u->bytes, p, sizeof u->bytes);
}

void slab_head_write(const struct slab_head *h, uint8_t *page)
{
    struct wr w;

    page_begin(&w, page, SLAB_MAGIC, 0);
    wr_bytes(&w, h->store.bytes, sizeof h->store.bytes);
    wr_u32le(&w, h->number);
    wr_u32le(&w, 0);
    wr_u64le(&w, h->bytes);
    page_end(page);
}

int slab_head_read(struct slab_head *h, const uint8_t *page)
{
    struct rd r;
    uint16_t kind;
    int rc = page_open(&r, page, SLAB_MAGIC, &kind);

    if (rc < 0)
        return rc;
    rd_uuid(&r, &h->store);
    h->number = rd_u32le(&r);
    rd_u32le(&r);
    h->bytes = rd_u64le(&r);
    return rd_ok(&r) && kind == 0 && h->bytes >= UNIT_BYTES && h->bytes % UNIT_BYTES == 0
               ? 0
               : E_CORRUPT;
}

void extent_head_write(const struct extent_head *h, uint8_t *page)
{
    struct wr w;

    page_begin(&w, page, EXTENT_MAGIC, (uint16_t)h->kind);
    wr_bytes(&w, h->store.bytes, sizeof h->store.bytes);
    wr_u64le(&w, h->place);
    wr_u32le(&w, h->log2);
    wr_u32le(&w, 0);
    if (h->kind == EXTENT_WAL) {
        wr_u64le(&w, h->incarnation);
        wr_u64le(&w, h->salt);
        wr_u64le(&w, h->number);
        wr_u64le(&w, h->first_lsn);
        wr_u64le(&w, h->prev_hash);
        wr_u64le(&w, h->prev_place);
        wr_u64le(&w, h->next_place);
        wr_u64le(&w, h->before_incarnation);
        wr_u64le(&w, h->before_end_lsn);
        wr_u64le(&w, h->before_end_hash);
    } else {
        wr_u64le(&w, h->group);
        wr_u64le(&w, h->segment);
        wr_u32le(&w, h->index);
        wr_u32le(&w, h->n_extents);
        wr_u64le(&w, h->pos);
    }
    page_end(page);
}

static void wal_part_read(struct extent_head *h, struct rd *r)
{
    h->incarnation = rd_u64le(r);
    h->salt = rd_u64le(r);
    h->number = rd_u64le(r);
    h->first_lsn = rd_u64le(r);
    h->prev_hash = rd_u64le(r);
    h->prev_place = rd_u64le(r);
    h->next_place = rd_u64le(r);
    h->before_incarnation = rd_u64le(r);
    h->before_end_lsn = rd_u64le(r);
    h->before_end_hash = rd_u64le(r);
}

int extent_head_read(struct extent_head *h, const uint8_t *page)
{
    struct rd r;
    uint16_t kind;
    int rc = page_open(&r, page, EXTENT_MAGIC, &kind);

    if (rc < 0)
        return rc;
    *h = (struct extent_head){ .kind = kind };
    rd_uuid(&r, &h->store);
    h->place = rd_u64le(&r);
    h->log2 = rd_u32le(&r);
    rd_u32le(&r);
    if (kind == EXTENT_WAL) {
        wal_part_read(h, &r);
    } else if (kind == EXTENT_SEGMENT) {
        h->group = rd_u64le(&r);
        h->segment = rd_u64le(&r);
        h->index = rd_u32le(&r);
        h->n_extents = rd_u32le(&r);
        h->pos = rd_u64le(&r);
    } else {
        return E_CORRUPT;
    }
    return rd_ok(&r) && h->log2 >= UNIT_LOG2 && h->log2 <= EXTENT_MAX_LOG2 ? 0 : E_CORRUPT;
}

int bytes_are_zero(const uint8_t *mem, uint64_t bytes)
{
    return bytes == 0 || (mem[0] == 0 && memcmp(mem, mem + 1, bytes - 1) == 0);
}
