/* Open segments: what the WAL's blocks say of them, after a start. */
#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "journal/recover_int.h"

static struct recover_open *open_find(struct recovery *r, uint64_t segment)
{
    for (unsigned i = r->n_opens; i-- > 0;)
        if (r->opens[i].segment == segment)
            return &r->opens[i];
    return NULL;
}

int recover_open_item(struct recovery *r, struct jrn_group *g, const struct frame_item *item,
                      struct index_direct *at)
{
    struct block_placement p;
    struct recover_open *o;

    if (r->placement == r->head->n_placements)
        return E_CORRUPT;
    block_placement_read(&p, r->head, r->block, r->placement++);
    if (p.shard != item->shard || p.base != item->base_offset || p.bytes != item->bytes)
        return E_CORRUPT;
    *at = (struct index_direct){ p.segment, p.pos, item->xxh3 };
    o = open_find(r, p.segment);
    if (!o) {
        r->opens = mem_grow(r->opens, (r->n_opens + 1) * sizeof *r->opens);
        o = &r->opens[r->n_opens++];
        *o = (struct recover_open){ .segment = p.segment, .group = g->id };
    }
    if (o->group != g->id)
        return E_CORRUPT;
    o->lsn = r->head->lsn;
    if (p.pos + p.bytes > o->end)
        o->end = p.pos + p.bytes;
    o->bytes += SEG_RUN_HEAD_BYTES + (uint64_t)p.bytes;
    return 0;
}

int recover_open_extents(struct recovery *r)
{
    uint32_t log2 = r->st->wal_log2;

    while (r->placement < r->head->n_placements) {
        struct block_placement p;
        struct recover_open *o;
        uint64_t number;

        block_placement_read(&p, r->head, r->block, r->placement++);
        o = p.shard == 0 ? open_find(r, p.segment) : NULL;
        number = p.pos / seg_extent_room(log2);
        if (!o || p.bytes != log2 || p.pos % seg_extent_room(log2) != 0 ||
            number >= SEG_MAX_EXTENTS)
            return E_CORRUPT;
        while (o->n_extents <= number) {
            o->extents = mem_grow(o->extents, (o->n_extents + 1) * sizeof *o->extents);
            o->extents[o->n_extents++] = (struct seg_extent){ PLACE_NONE, log2 };
        }
        o->extents[number].place = p.base;
    }
    return 0;
}

/* What was destaged is sealed, or nothing of it was alive: its extents are not ours to mark. */
static bool is_open(const struct recovery *r, const struct recover_open *o)
{
    return o->lsn >= r->st->groups[o->group]->destaged_lsn &&
           !hash_get(&r->st->segments.by_id, o->segment);
}

void recover_open_mark(struct recovery *r)
{
#ifdef WEIR_MUTANT_OPEN_NOT_TAKEN
    return; /* free for anybody, until it is sealed */
#endif
    for (unsigned i = 0; i < r->n_opens; i++) {
        struct recover_open *o = &r->opens[i];

        for (unsigned k = 0; k < o->n_extents && is_open(r, o); k++) {
            struct seg_extent *x = &o->extents[k];

            if (x->place == PLACE_NONE || slabs_mark(&r->st->slabs, x->place, x->log2) >= 0)
                continue;
            LOG_ERROR("segment.overwritten", F_INT("segment", o->segment),
                      F_INT("group", o->group));
            x->place = PLACE_NONE;
        }
    }
}

void recover_open_publish(struct recovery *r)
{
    struct segments *t = &r->st->segments;

    for (unsigned i = 0; i < r->n_opens; i++) {
        const struct recover_open *o = &r->opens[i];

        if (!is_open(r, o))
            continue;
        segments_open(t, o->segment, o->group);
        for (unsigned k = 0; k < o->n_extents; k++)
            segments_extend(t, o->segment, k, o->extents[k]);
        segments_written(t, o->segment, o->end);
        /* Only of what is open: where the superblock is older than the rows, the log still has blocks of segments that are sealed. */
        wal_direct(&r->st->wal, o->lsn, o->group, o->segment, o->bytes);
    }
}

void recover_open_free(struct recovery *r)
{
    for (unsigned i = 0; i < r->n_opens; i++)
        free(r->opens[i].extents);
    free(r->opens);
}
