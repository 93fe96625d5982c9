/* What of a block goes to the groups' open segments: places, writes, headers of extents. */
#include <stdlib.h>
#include <string.h>

#include "format/batch.h"
#include "journal/committer_int.h"

enum { DIRECT_IO_MAX = 512 * 1024 }; /* one write: large ones go side by side */

static uint64_t page_up(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static uint64_t room_of(const struct committer *c)
{
    return wal_room(&c->st->wal);
}

uint64_t committer_direct_max(const struct committer *c)
{
    uint64_t rooms = 2 * room_of(c);

    return rooms < DIRECT_BUFFER_MAX ? rooms : DIRECT_BUFFER_MAX;
}

uint64_t committer_direct_placements(const struct committer *c, uint64_t n, uint64_t bytes,
                                     unsigned n_groups)
{
    /* A piece, which each batch may be, is padded to a page; it ends in the extent where the next
     * one begins. */
    return n + (bytes + n * (uint64_t)(PAGE_BYTES + SEG_RUN_HEAD_BYTES)) / room_of(c) +
           2 * (uint64_t)n_groups;
}

void committer_direct_renew(struct committer *c)
{
    for (unsigned i = 0; c->open && i < c->st->n_groups; i++)
        if (c->open[i])
            *c->open[i] = (struct direct_open){ 0 };
}

void committer_direct_cut(struct committer *c, const struct jrn_group *g)
{
    if (c->open && c->open[g->id])
        c->open[g->id]->ended = true; /* what goes out now is still its */
}

static struct direct_open *open_of(struct committer *c, const struct jrn_group *g)
{
    if (!c->open)
        c->open = mem_new(c->st->n_groups * sizeof(*c->open));
    if (!c->open[g->id])
        c->open[g->id] = mem_new(sizeof(struct direct_open));
    if (c->open[g->id]->ended)
        *c->open[g->id] = (struct direct_open){ 0 };
    return c->open[g->id];
}

/* --- places --- */

static bool place_take(struct committer *c, struct direct_open *o)
{
    bool has;

    if (o->n_places == DIRECT_PLACES_MAX)
        return false;
    pthread_mutex_lock(&c->lock);
    has = c->n_direct_given > 0;
    if (has)
        o->places[o->n_places++] = c->direct_given[--c->n_direct_given];
    else if (c->direct_want < DIRECT_WANT_MAX)
        c->direct_want *= 2;
    pthread_mutex_unlock(&c->lock);
    return has;
}

static void places_return(struct committer *c, struct direct_open *o)
{
    while (o->n_places > o->n_known) {
        uint64_t place = o->places[--o->n_places];

        pthread_mutex_lock(&c->lock);
        if (c->n_direct_given < DIRECT_GIVEN_MAX) {
            c->direct_given[c->n_direct_given++] = place;
            place = PLACE_NONE;
        }
        pthread_mutex_unlock(&c->lock);
        if (place != PLACE_NONE)
            slabs_give(&c->st->slabs, place, c->st->wal_log2);
    }
}

static struct direct_piece *piece_new(struct committer *c, struct jrn_group *g, uint64_t pos,
                                      const struct append *a)
{
    struct direct_piece *p;

    if (c->n_pieces == c->cap_pieces) {
        c->cap_pieces = c->cap_pieces ? c->cap_pieces * 2 : 8;
        c->pieces = mem_grow(c->pieces, c->cap_pieces * sizeof *c->pieces);
    }
    p = &c->pieces[c->n_pieces++];
    *p = (struct direct_piece){
        .group = g, .from = a->batch, .from_at = a->at - SEG_RUN_HEAD_BYTES, .pos = pos
    };
    return p;
}

/* One batch: behind the one before it in their run buffer, or first of a piece of its own. */
static bool batch_place(struct committer *c, struct jrn_group *g, struct direct_open *o,
                        uint64_t *end, struct append *a)
{
    struct direct_piece *p = c->n_pieces ? &c->pieces[c->n_pieces - 1] : NULL;
    uint32_t at = a->at - SEG_RUN_HEAD_BYTES;

    if (!p || p->group != g || p->from != a->batch || p->from_at + p->bytes != at)
        p = piece_new(c, g, page_up(*end), a);
    a->pos = p->pos + p->bytes + SEG_RUN_HEAD_BYTES;
    p->bytes += SEG_RUN_HEAD_BYTES + a->bytes;
    *end = p->pos + p->bytes;
    while (o->n_places * room_of(c) < page_up(*end))
        if (!place_take(c, o))
            return false;
    return true;
}

/* From a on, everything direct of the group goes inline. */
static void inline_from(struct append *a)
{
    for (; a; a = a->next)
        a->direct = false;
}

static bool group_place(struct committer *c, struct jrn_group *g)
{
    struct direct_open *o = NULL;
    uint64_t end = 0;

    for (struct append *a = g->in_block; a; a = a->next) {
        if (!a->direct)
            continue;
        if (!o) {
            o = open_of(c, g);
            end = o->pos;
        }
        if (!batch_place(c, g, o, &end, a)) {
            inline_from(a);
            return false;
        }
    }
    return true;
}

static void look_for_more(struct store *st, void *arg)
{
    store_space_check(st);
}

/* --- what is placed is settled --- */

static void touch(struct committer *c, uint64_t segment, uint64_t pos, uint64_t place)
{
    struct block_placement *last = c->n_touched ? &c->touched[c->n_touched - 1] : NULL;

    if (last && last->segment == segment && last->pos == pos)
        return;
    if (c->n_touched == c->cap_touched) {
        c->cap_touched = c->cap_touched ? c->cap_touched * 2 : 8;
        c->touched = mem_grow(c->touched, c->cap_touched * sizeof *c->touched);
    }
    c->touched[c->n_touched++] = (struct block_placement){
        .base = place, .segment = segment, .pos = pos, .bytes = c->st->wal_log2
    };
}

/* The bytes as they will be written: the run buffer's own, where the piece is its beginning. */
static struct buf *piece_bytes(struct direct_piece *p)
{
    struct buf *b;

    direct_close(&p->group->direct, p->from);
    if (p->from_at == 0)
        return buf_ref((struct buf *)(uintptr_t)p->from);
    b = buf_new_aligned(p->bytes);
    ASSERT(b); /* a few MiB at most */
    memcpy(b->mem, p->from->mem + p->from_at, p->bytes);
    memset(b->mem + p->bytes, 0, page_up(p->bytes) - p->bytes);
    return b;
}

static void piece_settle(struct committer *c, struct direct_piece *p)
{
    struct direct_open *o = c->open[p->group->id];
    uint64_t room = room_of(c);

    if (!o->segment) {
        o->segment = store_new_segment(c->st);
        segments_open(&c->st->segments, o->segment, p->group->id);
    }
    p->segment = o->segment;
    p->buf = piece_bytes(p);
    for (uint64_t i = p->pos / room; i <= (p->pos + p->bytes - 1) / room; i++) {
        touch(c, o->segment, i * room, o->places[i]);
        segments_extend(&c->st->segments, o->segment, (unsigned)i,
                        (struct seg_extent){ o->places[i], c->st->wal_log2 });
    }
    segments_written(&c->st->segments, o->segment, p->pos + p->bytes);
    o->pos = page_up(p->pos + p->bytes);
    wal_direct(&c->st->wal, LSN_OPEN, p->group->id, o->segment, page_up(p->bytes));
    if (o->pos >= c->st->conf.segment_bytes ||
        o->n_places + committer_direct_max(c) / room + 2 > DIRECT_PLACES_MAX) {
        pthread_mutex_lock(&c->lock);
        c->roll_asked = true;
        pthread_mutex_unlock(&c->lock);
    }
}

/* Fills in the runs' headers, and tells the appends their segment. */
static void heads_settle(struct committer *c, struct jrn_group *g)
{
    unsigned k = 0;

    for (struct append *a = g->in_block; a; a = a->next) {
        struct seg_run run = {
            .shard = a->shard_id, .base = a->base_offset, .bytes = a->bytes, .n_batches = 1
        };
        const struct direct_piece *p;

        if (!a->direct)
            continue;
        while (c->pieces[k].group != g || a->pos >= c->pieces[k].pos + c->pieces[k].bytes)
            k++;
        p = &c->pieces[k];
        a->segment = p->segment;
        seg_run_head_write(&run, p->segment, p->buf->mem + (a->pos - p->pos) - SEG_RUN_HEAD_BYTES);
    }
}

bool committer_direct_place(struct committer *c)
{
    bool all = true;

    if (c->n_direct == 0)
        return true;
    for (unsigned i = 0; i < c->n_in_block; i++)
        all = group_place(c, c->in_block[i]) && all;
    if (!all) {
        for (unsigned i = 0; i < c->n_in_block; i++)
            if (c->open && c->open[c->in_block[i]->id])
                places_return(c, c->open[c->in_block[i]->id]);
        c->n_pieces = 0;
        store_on_keeper(c->st, look_for_more, NULL);
        return false;
    }
    for (unsigned i = 0; i < c->n_pieces; i++)
        piece_settle(c, &c->pieces[i]);
    for (unsigned i = 0; i < c->n_in_block; i++)
        heads_settle(c, c->in_block[i]);
    return true;
}

/* --- the request --- */

/* The headers of the extents that are begun. */
static void heads_request(struct committer *c)
{
    struct store *st = c->st;
    unsigned n = 0, k = 0;

    for (unsigned i = 0; i < c->n_in_block; i++) {
        const struct direct_open *o = c->open[c->in_block[i]->id];

        n += o ? o->n_places - o->n_known : 0;
    }
    if (n == 0)
        return;
    c->direct_heads = buf_new_aligned((size_t)n * PAGE_BYTES);
    ASSERT(c->direct_heads);
    for (unsigned i = 0; i < c->n_in_block; i++) {
        struct direct_open *o = c->open[c->in_block[i]->id];

        for (; o && o->n_known < o->n_places; o->n_known++, k++) {
            uint64_t place = o->places[o->n_known];
            uint8_t *page = c->direct_heads->mem + (size_t)k * PAGE_BYTES;
            struct extent_head h = { .kind = EXTENT_SEGMENT,
                                     .store = st->super.store,
                                     .place = place,
                                     .log2 = st->wal_log2,
                                     .group = c->in_block[i]->id,
                                     .segment = o->segment,
                                     .index = o->n_known,
                                     .pos = o->n_known * room_of(c) };

            extent_head_write(&h, page);
            committer_io_add(c, slabs_file(&st->slabs, place, st->wal_log2), place_pos(place), page,
                             PAGE_BYTES);
        }
    }
    atomic_fetch_add(&st->bytes.direct, n * (uint64_t)PAGE_BYTES);
    store_on_keeper(st, look_for_more, NULL);
}

static void piece_request(struct committer *c, const struct direct_piece *p)
{
    const struct direct_open *o = c->open[p->group->id];
    uint64_t bytes = page_up(p->bytes), room = room_of(c);

    for (uint64_t at = 0; at < bytes;) {
        uint64_t inside = (p->pos + at) % room, n = bytes - at, place;

        place = o->places[(p->pos + at) / room];
        n = n < room - inside ? n : room - inside;
        n = n < DIRECT_IO_MAX ? n : DIRECT_IO_MAX;
        committer_io_add(c, slabs_file(&c->st->slabs, place, c->st->wal_log2),
                         place_pos(place) + PAGE_BYTES + inside, p->buf->mem + at, (uint32_t)n);
        at += n;
    }
    atomic_fetch_add(&c->st->bytes.direct, bytes);
}

void committer_direct_request(struct committer *c)
{
    if (c->n_pieces == 0)
        return;
    heads_request(c);
    for (unsigned i = 0; i < c->n_pieces; i++)
        piece_request(c, &c->pieces[i]);
}

void committer_direct_done(struct committer *c, bool good)
{
    for (unsigned i = 0; i < c->n_pieces; i++) {
        struct direct_piece *p = &c->pieces[i];

        if (good)
            run_cache_add(&c->st->runs, p->segment, p->pos, p->buf, p->bytes);
        buf_unref(p->buf);
    }
    c->n_pieces = c->n_touched = c->n_direct = 0;
    buf_unref(c->direct_heads);
    c->direct_heads = NULL;
}

void committer_direct_free(struct committer *c)
{
    for (unsigned i = 0; c->open && i < c->st->n_groups; i++)
        free(c->open[i]);
    free(c->open);
    free(c->pieces);
    free(c->touched);
}
