#include "tests/sim/jrn_bare.h"

#include <stdlib.h>
#include <string.h>

static void parts_open(struct jrn_bare *b)
{
    int rc = dev_sim_new(&b->j->dev, b->sim, b->disk);

    ASSERT(rc >= 0);
    b->j->slabs.first_bytes = 1 << 20;
    b->j->slabs.max_bytes = 4 << 20;
    segments_init(&b->j->segments, b->j->dev, &b->j->slabs);
}

static void parts_close(struct jrn_bare *b)
{
    segments_fini(&b->j->segments);
    slabs_close(&b->j->slabs);
    dev_sim_free(b->j->dev);
    b->j->slabs = (struct slabs){ 0 };
}

void jrn_bare_init(struct jrn_bare *b, uint64_t seed, uint64_t capacity)
{
    int rc;

    b->sim = sim_new(seed);
    b->disk = sim_disk_new(seed + 1, capacity);
    b->j = mem_new(sizeof *b->j);
    b->j->keeper = sim_loop(b->sim, 0);
    b->j->wal_log2 = 17;
    memcpy(b->j->super.store.bytes, "a store's number", 16);
    parts_open(b);
    rc = slabs_open(&b->j->slabs, b->j->dev, &b->j->super.store, NULL);
    ASSERT(rc >= 0);
}

void jrn_bare_fini(struct jrn_bare *b)
{
    parts_close(b);
    free(b->j);
    sim_free(b->sim);
    sim_disk_free(b->disk);
}

int jrn_bare_reopen(struct jrn_bare *b, bool crash, struct err *e)
{
    parts_close(b);
    if (crash)
        sim_disk_crash(b->disk, sim_rng(b->sim));
    parts_open(b);
    return slabs_open(&b->j->slabs, b->j->dev, &b->j->super.store, e);
}
