#include "journal/segment.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/producer.h"

enum {
    MERGED_AT_ONCE = 8, /* small pieces of a segment that goes on */
    INDEXES_MAX = 64,   /* parsed indexes kept */
    READ_PIECE = 1 << 20,
    RUN_MAX_BYTES = 1 << 30 /* sparse positions are 32 bits */
};

void segments_init(struct segments *t, struct dev *dev, struct slabs *slabs)
{
    *t = (struct segments){ .slabs = slabs, .dev = dev, .ready = true };
    pthread_mutex_init(&t->lock, NULL);
}

static void index_drop(struct segment *s)
{
    if (s->index) {
        seg_index_free(s->index);
        free(s->index);
        s->index = NULL;
    }
}

static void segment_free(struct segment *s)
{
    index_drop(s);
    free(s);
}

void segments_fini(struct segments *t)
{
    uint64_t pos = 0;
    void *value;

    if (!t->ready)
        return;
    while (hash_next(&t->by_id, &pos, NULL, &value))
        segment_free(value);
    hash_free(&t->by_id);
    pthread_mutex_destroy(&t->lock);
    *t = (struct segments){ 0 };
}

struct segment *segments_add(struct segments *t, uint64_t id, const struct row_segment *row)
{
    struct segment *s;

    pthread_mutex_lock(&t->lock);
    s = hash_get(&t->by_id, id);
    if (!s) {
        s = mem_new(sizeof *s);
        s->id = id;
        s->row = *row;
        s->live = row->data_bytes;
        hash_put(&t->by_id, id, s);
    }
    pthread_mutex_unlock(&t->lock);
    return s;
}

static void give_extents(struct segments *t, const struct row_segment *row)
{
    for (unsigned i = 0; i < row->n_extents; i++)
        if (row->extents[i].place != PLACE_NONE)
            slabs_give(t->slabs, row->extents[i].place, row->extents[i].log2);
}

void segments_remove(struct segments *t, uint64_t id, bool give_space)
{
    struct segment *s;
    bool now = false;

    pthread_mutex_lock(&t->lock);
    s = hash_take(&t->by_id, id);
    if (s) {
        if (s->index)
            t->n_indexes--;
        s->dead = give_space;
        now = s->pins == 0;
        if (!now && !give_space)
            s->dead = false;
    }
    pthread_mutex_unlock(&t->lock);
    if (!s || !now)
        return;
    if (give_space)
        give_extents(t, &s->row);
    segment_free(s);
}

void segments_open(struct segments *t, uint64_t id, uint64_t group)
{
    struct segment *s = mem_new(sizeof *s);

    s->id = id;
    s->row.group = group;
    s->open = true;
    pthread_mutex_lock(&t->lock);
    ASSERT(!hash_get(&t->by_id, id));
    hash_put(&t->by_id, id, s);
    pthread_mutex_unlock(&t->lock);
}

void segments_extend(struct segments *t, uint64_t id, unsigned number, struct seg_extent x)
{
    struct segment *s;

    pthread_mutex_lock(&t->lock);
    s = hash_get(&t->by_id, id);
    ASSERT(s && s->open && number < SEG_MAX_EXTENTS);
    while (s->row.n_extents <= number)
        s->row.extents[s->row.n_extents++] = (struct seg_extent){ PLACE_NONE, x.log2 };
    s->row.extents[number] = x;
    pthread_mutex_unlock(&t->lock);
}

void segments_written(struct segments *t, uint64_t id, uint64_t end)
{
    struct segment *s;

    pthread_mutex_lock(&t->lock);
    s = hash_get(&t->by_id, id);
    ASSERT(s && s->open);
    if (end > s->row.data_bytes)
        s->row.data_bytes = end;
    pthread_mutex_unlock(&t->lock);
}

void segments_seal(struct segments *t, uint64_t id, const struct row_segment *row)
{
    struct segment *s;

    pthread_mutex_lock(&t->lock);
    s = hash_get(&t->by_id, id);
    ASSERT(s && s->open);
    s->row = *row;
    pthread_mutex_unlock(&t->lock);
}

void segments_unseal(struct segments *t, uint64_t id, unsigned n_extents)
{
    struct segment *s;

    pthread_mutex_lock(&t->lock);
    s = hash_get(&t->by_id, id);
    ASSERT(s && s->open && s->row.n_extents >= n_extents);
    s->row.n_extents = (uint16_t)n_extents;
    s->row.data_bytes = s->row.direct_bytes;
    if (s->index && s->pins == 0) { /* it names what was not sealed */
        index_drop(s);
        t->n_indexes--;
    }
    pthread_mutex_unlock(&t->lock);
}

void segments_remove_open(struct segments *t, uint64_t id)
{
    struct segment *s;
    bool open;

    pthread_mutex_lock(&t->lock);
    s = hash_get(&t->by_id, id);
    open = s && s->open;
    pthread_mutex_unlock(&t->lock);
    if (open)
        segments_remove(t, id, true);
}

struct segment *segment_pin(struct segments *t, uint64_t id)
{
    struct segment *s;

    pthread_mutex_lock(&t->lock);
    s = hash_get(&t->by_id, id);
    if (s)
        s->pins++;
    pthread_mutex_unlock(&t->lock);
    return s;
}

void segment_unpin(struct segments *t, struct segment *s)
{
    bool last;

    pthread_mutex_lock(&t->lock);
    ASSERT(s->pins > 0);
    s->pins--;
    last = s->pins == 0 && s->dead;
    pthread_mutex_unlock(&t->lock);
    if (last) {
        give_extents(t, &s->row);
        segment_free(s);
    }
}

/* By the entries that they hold: ids only tell when they were written. */
static int by_group_entry(const void *a, const void *b)
{
    const struct segment *x = *(struct segment *const *)a, *y = *(struct segment *const *)b;

    if (x->row.group != y->row.group)
        return x->row.group < y->row.group ? -1 : 1;
    if (x->row.first_entry != y->row.first_entry)
        return x->row.first_entry < y->row.first_entry ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* What of its index is about what is alive in it. Where runs are small it is as large as they are. */
static uint64_t live_index(const struct segment *s)
{
    uint64_t data = s->row.data_bytes > s->live ? s->row.data_bytes : s->live;

    return data ? (uint64_t)((double)s->row.index_bytes * (double)s->live / (double)data) : 0;
}

/* What a segment with that much in it takes, at least but for runs that become one. */
static uint64_t space_for(uint64_t live, uint64_t index)
{
    uint64_t bytes = live + (index > live / 64 ? index : live / 64) + 4 * PAGE_BYTES;

    return (bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
}

/* Whether the log has ended the segment of which list[0] is a piece, and all of it is here. Any of its
 * pieces may say so: what compaction has made of some lies among them. */
static bool has_ended(struct segment **list, size_t n)
{
    const struct row_segment *first = &list[0]->row;
    bool ends = false;
    size_t end = 0;

    while (end < n && list[end]->row.group == first->group &&
           list[end]->row.segment_first == first->segment_first)
        ends = (list[end++]->row.flags & SEG_ENDS) || ends;
    return first->segment_first != 0 && (ends || (end < n && list[end]->row.group == first->group));
}

/* What several segments are together. */
struct together {
    uint64_t live, index, space, largest;
    bool small; /* each */
};

static void together_add(struct together *t, const struct segment *s, uint64_t small_bytes)
{
    uint64_t index = live_index(s), bytes = s->live + index;

    t->live += s->live;
    t->index += index;
    t->space += segment_space(&s->row);
    t->small = t->small && bytes <= small_bytes;
    if (bytes > t->largest)
        t->largest = bytes;
}

/* What is gained when these n are written anew; 0: too little. Small ones of a segment that goes on
 * wait until the largest is no more than the others, so that nothing is copied again and again. */
static uint64_t gain_of(const struct together *t, unsigned n, bool ended,
                        const struct segments_want *want)
{
    uint64_t after = t->live ? space_for(t->live, t->index) : 0;
    uint64_t saved = t->space > after ? t->space - after : 0;

    if (want->urgent || (saved >= want->least_gain && after <= t->space / 2))
        return saved;
    if (want->least_gain < UINT64_MAX && t->small && n > 1 &&
        (ended || (n >= MERGED_AT_ONCE && t->largest * 2 <= t->live + t->index)))
        return saved + n * (uint64_t)PAGE_BYTES;
    return 0;
}

/* How much of list[0..) of one group should be taken together, and what that gains. The gain is a guess:
 * what a copy takes depends on the extents that are free. So what a rewrite has made is not copied
 * again on its own until something in it has died, or a guess that is never met would be tried for ever. */
static unsigned neighbours(struct segment **list, size_t n, const struct segments_want *want,
                           bool across, uint64_t *gain)
{
    struct together t = { .small = list[0]->row.segment_first != 0 };
    bool ended = has_ended(list, n);
    bool settled = list[0]->settled && list[0]->live == list[0]->settled;
    unsigned best = 0;

    *gain = 0;
    for (unsigned k = 0; k < n && k < want->max && list[k]->row.group == list[0]->row.group; k++) {
        uint64_t now;

        /* What the log has cut stays cut, so that every node has the same segments. */
        if (!across && list[k]->row.segment_first != list[0]->row.segment_first)
            break;
        if (list[k]->dropping || list[k]->rewrite_us > want->now_us ||
            (k > 0 && (t.live > want->max_bytes || list[k]->live > want->max_bytes - t.live)))
            break;
        together_add(&t, list[k], want->max_bytes / 4);
        now = gain_of(&t, k + 1, ended, want);
        if (now > *gain && !(k == 0 && settled)) {
            *gain = now;
            best = k + 1;
        }
    }
    return best;
}

/* The first of those that should be taken together, and how many. */
static unsigned best_neighbours(struct segment **list, size_t n, const struct segments_want *want,
                                bool across, size_t *at)
{
    uint64_t best_gain = 0, gain;
    unsigned best = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned k = neighbours(list + i, n - i, want, across, &gain);

        if (gain > best_gain) {
            best_gain = gain;
            *at = i;
            best = k;
        }
    }
    return best;
}

unsigned segments_wasteful(struct segments *t, struct segment **out,
                           const struct segments_want *want)
{
    struct segment **list;
    uint64_t pos = 0;
    size_t n = 0, at = 0;
    unsigned best;
    void *value;

    pthread_mutex_lock(&t->lock);
    list = mem_new((t->by_id.count + 1) * sizeof(*list));
    while (hash_next(&t->by_id, &pos, NULL, &value))
        if (!((struct segment *)value)->open)
            list[n++] = value;
    if (n > 0)
        qsort(list, n, sizeof(*list), by_group_entry);
#ifdef WEIR_MUTANT_MERGED_ACROSS
    best = best_neighbours(list, n, want, true, &at);
#else
    best = best_neighbours(list, n, want, false, &at);
#endif
    if (best == 0 && want->urgent)
        best = best_neighbours(list, n, want, true, &at);
    for (unsigned i = 0; i < best; i++) {
        out[i] = list[at + i];
        out[i]->pins++;
    }
    pthread_mutex_unlock(&t->lock);
    free(list);
    return best;
}

uint64_t segment_space(const struct row_segment *row)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < row->n_extents; i++)
        bytes += (uint64_t)1 << row->extents[i].log2;
    return bytes;
}

/* The extent that holds logical byte pos; *room: bytes from there to its end. */
static int locate(const struct row_segment *row, uint64_t pos, unsigned *extent, uint64_t *inside,
                  uint64_t *room)
{
    for (unsigned i = 0; i < row->n_extents; i++) {
        uint64_t holds = seg_extent_room(row->extents[i].log2);

        if (pos < holds) {
            *extent = i;
            *inside = pos;
            *room = holds - pos;
            return 0;
        }
        pos -= holds;
    }
    return E_CORRUPT;
}

int segment_locate(struct segments *t, struct segment *s, uint64_t pos, struct seg_place *out)
{
    unsigned i;
    int rc;

    pthread_mutex_lock(&t->lock);
    rc = locate(&s->row, pos, &i, &out->inside, &out->room);
    if (rc >= 0)
        out->extent = s->row.extents[i];
    pthread_mutex_unlock(&t->lock);
    return rc >= 0 && out->extent.place == PLACE_NONE ? E_CORRUPT : rc;
}

static int read_pages(struct segments *t, struct segment *s, uint64_t pos, uint64_t bytes,
                      uint8_t *mem)
{
    while (bytes > 0) {
        struct dev_file *file;
        struct seg_place at;
        uint64_t n = bytes;
        int rc = segment_locate(t, s, pos, &at);

        if (rc < 0)
            return rc;
        n = n < at.room ? n : at.room;
        n = n < READ_PIECE ? n : READ_PIECE;
        file = slabs_file(t->slabs, at.extent.place, at.extent.log2);
        if (!file)
            return E_CORRUPT;
        rc = dev_read(t->dev, file, place_pos(at.extent.place) + PAGE_BYTES + at.inside, mem,
                      (uint32_t)n);
        if (rc < 0)
            return rc;
        pos += n;
        mem += n;
        bytes -= n;
    }
    return 0;
}

int segment_read(struct segments *t, struct segment *s, uint64_t pos, uint64_t bytes,
                 struct buf **buf, uint32_t *at)
{
    uint64_t start = pos / PAGE_BYTES * PAGE_BYTES;
    uint64_t end = (pos + bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    struct buf *b = buf_new_aligned(end - start);
    int rc;

    if (!b)
        return E_NOMEM;
    rc = read_pages(t, s, start, end - start, b->mem);
    if (rc < 0) {
        buf_unref(b);
        return rc;
    }
    b->len = (uint32_t)(end - start);
    *buf = b;
    *at = (uint32_t)(pos - start);
    return 0;
}

/* Keeps the number of parsed indexes bounded; under lock. */
static void evict_index(struct segments *t)
{
    struct segment *oldest = NULL;
    uint64_t pos = 0;
    void *value;

    while (hash_next(&t->by_id, &pos, NULL, &value)) {
        struct segment *s = value;

        if (s->index && s->pins == 0 && (!oldest || s->index_used < oldest->index_used))
            oldest = s;
    }
    if (oldest) {
        index_drop(oldest);
        t->n_indexes--;
    }
}

static int index_load(struct segments *t, struct segment *s, struct seg_index *x)
{
    struct buf *b;
    uint32_t at;
    int rc = segment_read(t, s, s->row.index_pos, s->row.index_bytes, &b, &at);

    if (rc < 0)
        return rc;
    rc = seg_index_read(x, b->mem + at, s->row.index_bytes);
    buf_unref(b);
    if (rc >= 0 && x->segment != s->id) {
        seg_index_free(x);
        rc = E_CORRUPT;
    }
    if (rc == E_CORRUPT || rc == E_VERSION) { /* the version is not under the sum */
        LOG_WARN("segment.index_damaged", F_INT("segment", s->id));
        rc = segment_index_rebuild(t, s, x);
    }
    return rc;
}

int segment_index(struct segments *t, struct segment *s, const struct seg_index **out)
{
    struct seg_index *x = NULL;
    int rc = 0;

    pthread_mutex_lock(&t->lock);
    s->index_used = ++t->clock;
    *out = s->index;
    pthread_mutex_unlock(&t->lock);
    if (*out)
        return 0;
    x = mem_new(sizeof *x);
    rc = index_load(t, s, x);
    if (rc < 0) {
        free(x);
        return rc;
    }
    pthread_mutex_lock(&t->lock);
    if (s->index) { /* another reader was faster */
        seg_index_free(x);
        free(x);
    } else {
        if (t->n_indexes >= INDEXES_MAX)
            evict_index(t);
        s->index = x;
        if (hash_get(&t->by_id, s->id) == s)
            t->n_indexes++;
    }
    *out = s->index;
    pthread_mutex_unlock(&t->lock);
    return 0;
}

/* --- building --- */

static void *room_for(void *list, uint32_t n, uint32_t *cap, size_t each)
{
    if (n < *cap)
        return list;
    *cap = *cap ? *cap * 2 : 16;
    return mem_grow(list, *cap * each);
}

static void run_begin(struct seg_builder *b, uint64_t shard, const struct batch_head *h,
                      uint64_t pos)
{
    struct seg_index *x = &b->index;

    if (x->n_runs == 0 || x->runs[x->n_runs - 1].shard != shard)
        b->first_producer = x->n_producers;
    x->runs = room_for(x->runs, x->n_runs, &b->cap_runs, sizeof *x->runs);
    x->runs[x->n_runs++] = (struct seg_run){
        .shard = shard,
        .base = (uint64_t)h->base_offset,
        .pos = pos,
        .first_sparse = x->n_sparse,
        .max_ts = INT64_MIN,
    };
}

static void sparse_add(struct seg_builder *b, struct seg_run *run, const struct batch_head *h)
{
    struct seg_index *x = &b->index;
    struct seg_sparse *last = run->n_sparse ? &x->sparse[x->n_sparse - 1] : NULL;

    if (!last || run->bytes - last->pos >= SEG_SPARSE_EVERY) {
        x->sparse = room_for(x->sparse, x->n_sparse, &b->cap_sparse, sizeof *x->sparse);
        last = &x->sparse[x->n_sparse++];
        *last = (struct seg_sparse){ .offset = (uint64_t)h->base_offset,
                                     .pos = (uint32_t)run->bytes,
                                     .max_ts = h->max_timestamp };
        run->n_sparse++;
    }
    if (h->max_timestamp > last->max_ts)
        last->max_ts = h->max_timestamp;
}

/* Keeps the last five of each producer of the shard: drops the oldest when there are more. */
static void producer_add(struct seg_builder *b, uint64_t shard, const struct batch_head *h)
{
    struct seg_index *x = &b->index;
    uint32_t n = 0, oldest = 0;

    if (h->producer_id < 0)
        return;
    for (uint32_t i = x->n_producers; i-- > b->first_producer;) {
        if (x->producers[i].producer == h->producer_id) {
            n++;
            oldest = i;
            if (n == ROW_PRODUCER_BATCHES)
                break;
        }
    }
    if (n == ROW_PRODUCER_BATCHES) {
        memmove(x->producers + oldest, x->producers + oldest + 1,
                (x->n_producers - oldest - 1) * sizeof *x->producers);
        x->n_producers--;
    }
    x->producers = room_for(x->producers, x->n_producers, &b->cap_producers, sizeof *x->producers);
    x->producers[x->n_producers++] = (struct seg_producer){
        .shard = shard,
        .producer = h->producer_id,
        .base = (uint64_t)h->base_offset,
        .max_ts = h->max_timestamp,
        .base_sequence = h->base_sequence,
        /* By its offsets: compaction may have taken records. */
        .last_sequence = producer_last_sequence(h->base_sequence, h->last_offset_delta + 1),
        .epoch = h->producer_epoch,
    };
}

static void batch_add(struct seg_builder *b, uint64_t shard, const struct batch_head *h)
{
    struct seg_run *run = &b->index.runs[b->index.n_runs - 1];

    sparse_add(b, run, h);
    producer_add(b, shard, h);
    run->end = (uint64_t)h->base_offset + (uint64_t)h->last_offset_delta + 1;
    run->bytes += h->bytes;
    run->n_batches++;
    if (h->max_timestamp > run->max_ts)
        run->max_ts = h->max_timestamp;
    if (b->n_batches == 0 || h->base_timestamp < b->min_ts)
        b->min_ts = h->base_timestamp;
    if (b->n_batches == 0 || h->max_timestamp > b->max_ts)
        b->max_ts = h->max_timestamp;
    b->n_batches++;
    b->n_offsets += (uint64_t)h->last_offset_delta + 1;
}

uint64_t seg_builder_add(struct seg_builder *b, uint64_t shard, const struct batch_head *h)
{
    struct seg_index *x = &b->index;
    struct seg_run *run = x->n_runs ? &x->runs[x->n_runs - 1] : NULL;

    if (!run || b->cut || run->shard != shard || run->end != (uint64_t)h->base_offset ||
        run->bytes + h->bytes > RUN_MAX_BYTES) {
        b->pos += SEG_RUN_HEAD_BYTES;
        run_begin(b, shard, h, b->pos);
    }
    b->cut = false;
    batch_add(b, shard, h);
    b->pos += h->bytes;
    return b->pos - h->bytes;
}

void seg_builder_add_direct(struct seg_builder *b, uint64_t shard, const struct batch_head *h,
                            uint64_t pos, uint64_t xxh3)
{
    run_begin(b, shard, h, pos);
    batch_add(b, shard, h);
    b->index.runs[b->index.n_runs - 1].xxh3 = xxh3;
    b->index.sparse[b->index.n_sparse - 1].sum = (uint32_t)xxh3;
    b->cut = true;
}

void seg_builder_finish(struct seg_builder *b, uint64_t segment, uint64_t start, uint8_t *data)
{
    b->index.segment = segment;
    for (; b->n_finished < b->index.n_runs; b->n_finished++) {
        struct seg_run *run = &b->index.runs[b->n_finished];

        if (run->pos < start)
            continue;
        seg_run_head_write(run, segment, data + (run->pos - start) - SEG_RUN_HEAD_BYTES);
        seg_run_sum(&b->index, b->n_finished, data + (run->pos - start));
    }
}

void seg_builder_free(struct seg_builder *b)
{
    seg_index_free(&b->index);
    *b = (struct seg_builder){ 0 };
}

/* --- the index anew --- */

struct rebuild {
    struct seg_run *runs;
    uint32_t n;
};

/* Collects the runs that lie in [pos, end) by their headers. Between pieces that were written directly
 * may lie other bytes: the next run then begins a page. */
static void rebuild_find(struct rebuild *r, uint64_t segment, const uint8_t *data, uint64_t pos,
                         uint64_t end, bool pieces)
{
    while (pos < end) {
        struct seg_run run;

        if (seg_run_head_read(&run, segment, data + pos, end - pos) < 0) {
            if (!pieces)
                break;
            pos = (pos / PAGE_BYTES + 1) * PAGE_BYTES;
            continue;
        }
        run.pos = pos + SEG_RUN_HEAD_BYTES;
        r->runs = mem_grow(r->runs, (r->n + 1) * sizeof *r->runs);
        r->runs[r->n++] = run;
        pos = run.pos + run.bytes;
    }
}

static int by_shard_base(const void *a, const void *b)
{
    const struct seg_run *x = a, *y = b;

    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return x->base < y->base ? -1 : x->base > y->base;
}

/* Walks the batches of one run; a damaged batch ends it: what follows in the run cannot be told. */
static void rebuild_run(struct seg_builder *b, const struct seg_run *run, const uint8_t *data)
{
    uint64_t at = 0;
    struct batch_head h;

    b->pos = run->pos - SEG_RUN_HEAD_BYTES;
    b->cut = true;
    while (at < run->bytes && batch_check(&h, data + at, run->bytes - at) >= 0) {
        seg_builder_add(b, run->shard, &h);
        at += h.bytes;
    }
}

static void rebuild_index(struct rebuild *r, struct seg_builder *b, const uint8_t *data)
{
    qsort(r->runs, r->n, sizeof *r->runs, by_shard_base);
    for (uint32_t i = 0; i < r->n; i++) {
        const struct seg_run *last = b->index.n_runs ? &b->index.runs[b->index.n_runs - 1] : NULL;

        if (!last || last->shard != r->runs[i].shard || last->end <= r->runs[i].base)
            rebuild_run(b, &r->runs[i], data + r->runs[i].pos);
    }
    for (uint32_t i = 0; i < b->index.n_runs; i++)
        seg_run_sum(&b->index, i, data + b->index.runs[i].pos);
}

int segment_index_rebuild(struct segments *t, struct segment *s, struct seg_index *out)
{
    const struct row_segment *row = &s->row;
    struct seg_builder b = { 0 };
    struct rebuild r = { 0 };
    struct buf *data;
    uint32_t at;
    int rc = segment_read(t, s, 0, row->data_bytes, &data, &at);

    if (rc < 0)
        return rc;
    rebuild_find(&r, s->id, data->mem + at, 0, row->direct_bytes, true);
    rebuild_find(&r, s->id, data->mem + at, row->sorted_pos, row->data_bytes, false);
    if (r.n > 0)
        rebuild_index(&r, &b, data->mem + at);
    free(r.runs);
    buf_unref(data);
    b.index.segment = s->id;
    *out = b.index;
    LOG_WARN("segment.index_rebuilt", F_INT("segment", s->id), F_INT("runs", out->n_runs));
    return 0;
}
