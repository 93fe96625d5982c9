#include "tests/sim/jrn_bare.h"

#include <stdlib.h>
#include <string.h>

#include "base/logger.h"
#include "format/batch.h"
#include "journal/segwrite.h"
#include "tests/sim/jrn_calls.h"

static void parts_open(struct jrn_bare *b)
{
    int rc = dev_sim_new(&b->st->dev, b->sim, b->disk);

    ASSERT(rc >= 0);
    b->st->slabs.first_bytes = 1 << 20;
    b->st->slabs.max_bytes = 4 << 20;
    segments_init(&b->st->segments, b->st->dev, &b->st->slabs);
}

static void parts_close(struct jrn_bare *b)
{
    segments_fini(&b->st->segments);
    slabs_close(&b->st->slabs);
    dev_sim_free(b->st->dev);
    b->st->slabs = (struct slabs){ 0 };
}

void jrn_bare_init(struct jrn_bare *b, uint64_t seed, uint64_t capacity)
{
    int rc;

    logger_to(-1);
    b->sim = sim_new(seed);
    b->disk = sim_disk_new(seed + 1, capacity);
    b->st = mem_new(sizeof *b->st);
    b->st->keeper = sim_loop(b->sim, 0);
    b->st->wal_log2 = 17;
    memcpy(b->st->super.store.bytes, "a store's number", 16);
    parts_open(b);
    rc = slabs_open(&b->st->slabs, b->st->dev, &b->st->super.store, NULL);
    ASSERT(rc >= 0);
}

void jrn_bare_fini(struct jrn_bare *b)
{
    parts_close(b);
    free(b->st);
    sim_free(b->sim);
    sim_disk_free(b->disk);
}

int jrn_bare_reopen(struct jrn_bare *b, bool crash, struct err *e)
{
    parts_close(b);
    if (crash)
        sim_disk_crash(b->disk, sim_rng(b->sim));
    parts_open(b);
    return slabs_open(&b->st->slabs, b->st->dev, &b->st->super.store, e);
}

/* --- batches and segments --- */

void bare_batches_draw(struct bare_batches *m, struct rng *r, unsigned n_shards, unsigned per_shard,
                       uint32_t max_value)
{
    *m = (struct bare_batches){ .list = mem_new(n_shards * per_shard * sizeof *m->list) };
    for (unsigned s = 0; s < n_shards; s++) {
        uint64_t base = rng_below(r, 1000);
        int32_t sequence = 0;

        for (unsigned i = 0; i < per_shard; i++) {
            struct bare_batch *b = &m->list[m->n++];
            unsigned records = 1 + (unsigned)rng_below(r, 4);
            uint32_t value = (uint32_t)rng_below(r, max_value / records + 1);

            base += rng_chance(r, 1, 10) ? 1 + rng_below(r, 30) : 0;
            *b = (struct bare_batch){ .shard = 16 + s, .base = base, .n_offsets = records };
            if (rng_chance(r, 1, 2)) {
                b->buf = call_batch_of(s % 3, 0, sequence, records, value);
                b->max_ts = SIM_WALL_START_MS + sequence;
                sequence += (int32_t)records;
            } else {
                uint64_t n = rng_below(r, 100000);

                b->buf = call_batch(n, records, value);
                b->max_ts = SIM_WALL_START_MS + (int64_t)n;
            }
            batch_stamp(b->buf->mem, (int64_t)base, 1);
            base += records;
            m->bytes += b->buf->len;
        }
    }
}

void bare_batches_free(struct bare_batches *m)
{
    for (unsigned i = 0; i < m->n; i++)
        buf_unref(m->list[i].buf);
    free(m->list);
    *m = (struct bare_batches){ 0 };
}

int jrn_bare_segment(struct jrn_bare *b, uint64_t segment, const struct bare_batches *m,
                     struct segwrite *w)
{
    int rc = segwrite_open(w, b->st, 2, segment, m->bytes + m->n * SEG_RUN_HEAD_BYTES);

    ASSERT(rc >= 0);
    for (unsigned i = 0; i < m->n; i++) {
        struct batch_head h;

        rc = batch_check(&h, m->list[i].buf->mem, m->list[i].buf->len);
        ASSERT(rc >= 0);
        segwrite_add(w, m->list[i].shard, &h, m->list[i].buf->mem);
    }
    return segwrite_finish(w, 1, 9);
}

void jrn_bare_scatter(struct jrn_bare *b)
{
    struct slabs *s = &b->st->slabs;
    uint64_t place;

    while (slabs_take(s, UNIT_LOG2, &place) >= 0)
        ;
    for (unsigned i = 0; i < s->n; i++)
        for (uint32_t unit = 1; unit < s->list[i].n_units; unit += 2)
            slabs_give(s, place_of(s->list[i].number, unit), UNIT_LOG2);
}
