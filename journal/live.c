#include "journal/live.h"

#include <stdlib.h>

#include "journal/catalogue.h"

void live_lose(struct live_loss *l, uint64_t segment, uint64_t bytes)
{
    for (unsigned i = l->n; i-- > 0;) {
        if (l->list[i].segment == segment) {
            l->list[i].bytes += bytes;
            return;
        }
    }
    l->list = mem_grow(l->list, (l->n + 1) * sizeof *l->list);
    l->list[l->n++] = (struct live_lost){ segment, bytes };
}

uint64_t live_lost_bytes(const struct live_loss *l)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < l->n; i++)
        bytes += l->list[i].bytes;
    return bytes;
}

void live_subtract_one(struct segment *seg, uint64_t bytes, struct rows_batch *rows)
{
    uint8_t key[ROW_KEY_MAX], value[ROW_VALUE_MAX];

    seg->live -= bytes < seg->live ? bytes : seg->live;
    rows_batch_put(rows, key, row_key(key, ROW_LIVE, seg->id), value,
                   row_u64_write(seg->live, value));
}

void live_subtract(const struct live_loss *l, struct store *st, struct rows_batch *rows)
{
    for (unsigned i = 0; i < l->n; i++) {
        struct segment *seg = segment_pin(&st->segments, l->list[i].segment);

        if (!seg)
            continue;
        live_subtract_one(seg, l->list[i].bytes, rows);
        segment_unpin(&st->segments, seg);
    }
}

void live_drop_empty(const struct live_loss *l, struct store *st)
{
    for (unsigned i = 0; i < l->n; i++) {
        struct segment *seg = segment_pin(&st->segments, l->list[i].segment);
        bool empty = seg && seg->live == 0;

        if (seg)
            segment_unpin(&st->segments, seg);
        if (empty)
            catalogue_drop_segment(st, l->list[i].segment);
    }
}

void live_loss_free(struct live_loss *l)
{
    free(l->list);
    *l = (struct live_loss){ 0 };
}
