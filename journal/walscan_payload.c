#include "base/buf.h"
#include "format/frame.h"
#include "format/segfile.h"
#include "journal/walscan_int.h"

enum { READ_PIECE = 1 << 20 };

struct payloads {
    struct dev *dev;
    struct slabs *slabs;
    const struct block_head *h;
    const uint8_t *mem; /* the block */
    uint32_t next;      /* placement of the next direct item */
};

/* The extent that holds byte pos of a segment, among those that the block names. */
static bool extent_find(const struct payloads *p, uint64_t segment, uint64_t pos,
                        struct block_placement *x)
{
    for (uint32_t i = p->h->n_placements; i-- > 0;) {
        block_placement_read(x, p->h, p->mem, i);
        if (x->shard != 0)
            return false; /* extents are behind the batches */
        if (x->segment == segment && x->bytes >= UNIT_LOG2 && x->bytes <= EXTENT_MAX_LOG2 &&
            pos >= x->pos && pos - x->pos < seg_extent_room(x->bytes))
            return true;
    }
    return false;
}

/* Reads the pages of [pos, pos + bytes) of a segment; 1, or 0: nobody says where they are. */
static int pages_read(const struct payloads *p, uint64_t segment, uint64_t pos, uint64_t bytes,
                      uint8_t *mem)
{
    while (bytes > 0) {
        struct block_placement x;
        struct dev_file *file;
        uint64_t n = bytes < READ_PIECE ? bytes : READ_PIECE, room;
        int rc;

        if (!extent_find(p, segment, pos, &x))
            return 0;
        file = slabs_file(p->slabs, x.base, x.bytes);
        if (!file)
            return 0;
        room = seg_extent_room(x.bytes) - (pos - x.pos);
        n = n < room ? n : room;
        rc = dev_read(p->dev, file, place_pos(x.base) + PAGE_BYTES + (pos - x.pos), mem,
                      (uint32_t)n);
        if (rc < 0)
            return rc;
        pos += n;
        mem += n;
        bytes -= n;
    }
    return 1;
}

static int batch_look(const struct payloads *p, const struct frame_item *item,
                      const struct block_placement *at)
{
    uint64_t start = at->pos / PAGE_BYTES * PAGE_BYTES;
    uint64_t end = (at->pos + item->bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    struct buf *b = buf_new_aligned(end - start);
    int rc = b ? pages_read(p, at->segment, start, end - start, b->mem) : E_NOMEM;

    if (rc == 1 && sum_xxh3(b->mem + (at->pos - start), item->bytes, 0) != item->xxh3)
        rc = 0;
    buf_unref(b);
    return rc;
}

static int frame_look(struct payloads *p, const struct block_dir *d)
{
    struct frame_head f;
    int rc = 1;

    if (frame_head_read(&f, p->mem + d->pos, d->bytes) < 0)
        return 1; /* who reads the block tells */
    for (uint32_t i = 0; rc == 1 && i < f.n_items; i++) {
        struct block_placement at;
        struct frame_item item;

        frame_item_read(&item, p->mem + d->pos, i);
        if (item.kind != ITEM_DIRECT)
            continue;
        if (p->next == p->h->n_placements)
            return 0;
        block_placement_read(&at, p->h, p->mem, p->next++);
        if (at.pos > UINT64_MAX / 2)
            return 0;
        rc = batch_look(p, &item, &at);
    }
    return rc;
}

int walscan_payloads(struct dev *dev, struct slabs *slabs, const struct block_head *h,
                     const uint8_t *mem)
{
    struct payloads p = { dev, slabs, h, mem, 0 };
    int rc = 1;

    for (uint32_t i = 0; rc == 1 && i < h->n_frames; i++) {
        struct block_dir d;

        block_dir_read(&d, mem, i);
        rc = frame_look(&p, &d);
    }
    return rc;
}
