#include "tests/sim/wal_look.h"

#include <stdlib.h>
#include <string.h>

#include "journal/recover.h"

static int on_extent(void *ctx, const struct walscan_extent *x)
{
    struct wal_look *l = ctx;

    l->extents = mem_grow(l->extents, (l->n_extents + 1) * sizeof *l->extents);
    l->extents[l->n_extents++] = (struct look_extent){ .x = *x, .end_lsn = LSN_OPEN };
    return 0;
}

static int on_extent_end(void *ctx, uint64_t end_lsn)
{
    struct wal_look *l = ctx;

    l->extents[l->n_extents - 1].end_lsn = end_lsn;
    return 0;
}

static int on_block(void *ctx, const struct block_head *h, const uint8_t *mem, uint64_t pos)
{
    struct wal_look *l = ctx;
    struct look_block *b;

    l->blocks = mem_grow(l->blocks, (l->n_blocks + 1) * sizeof *l->blocks);
    b = &l->blocks[l->n_blocks++];
    *b = (struct look_block){ .head = *h, .lsn = h->lsn, .bytes = h->block_bytes, .pos = pos };
    b->file = slabs_file(&l->slabs, l->extents[l->n_extents - 1].x.place, UNIT_LOG2);
    b->mem = mem_new(h->block_bytes);
    memcpy(b->mem, mem, h->block_bytes);
    return 0;
}

static int on_rot(void *ctx, uint64_t lsn, uint64_t end_lsn, uint64_t place)
{
    struct wal_look *l = ctx;

    l->rots = mem_grow(l->rots, (l->n_rots + 1) * sizeof *l->rots);
    l->rots[l->n_rots++] = (struct look_rot){ lsn, end_lsn };
    return 0;
}

static void forget(struct wal_look *l)
{
    for (unsigned i = 0; i < l->n_blocks; i++)
        free(l->blocks[i].mem);
    free(l->blocks);
    free(l->extents);
    free(l->rots);
    l->blocks = NULL;
    l->extents = NULL;
    l->rots = NULL;
    l->n_blocks = l->n_extents = l->n_rots = 0;
}

void wal_look_open(struct wal_look *l, struct jrn_sim *js)
{
    int rc;

    ASSERT(!js->j);
    *l = (struct wal_look){ 0 };
    rc = dev_sim_new(&l->dev, js->sim, js->disk);
    if (rc >= 0)
        rc = recover_super(l->dev, &l->super_file, &l->super, NULL);
    if (rc >= 0)
        rc = slabs_open(&l->slabs, l->dev, &l->super.store, NULL);
    ASSERT(rc >= 0);
}

int wal_look_scan(struct wal_look *l)
{
    static const struct walscan_calls calls = { on_extent, on_extent_end, on_block, on_rot };

    forget(l);
    l->err = (struct err){ 0 };
    return walscan_run(l->dev, &l->slabs, &l->super, &calls, l, &l->end, &l->err);
}

void wal_look_close(struct wal_look *l)
{
    forget(l);
    slabs_close(&l->slabs);
    dev_close(l->dev, l->super_file);
    dev_sim_free(l->dev);
    *l = (struct wal_look){ 0 };
}

void wal_look_flip(struct wal_look *l, struct dev_file *file, uint64_t pos)
{
    struct buf *page = buf_new_aligned(DEV_PAGE);
    uint64_t at = pos / DEV_PAGE * DEV_PAGE;
    int rc = dev_read(l->dev, file, at, page->mem, DEV_PAGE);

    page->mem[pos - at] ^= 0x10;
    if (rc >= 0)
        rc = dev_write(l->dev, file, at, page->mem, DEV_PAGE);
    ASSERT(rc >= 0);
    buf_unref(page);
}
