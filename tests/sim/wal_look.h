/* A look at a simulated store's WAL between two lives: what walscan says of it, block by block. */
#ifndef WEIR_TESTS_SIM_WAL_LOOK_H
#define WEIR_TESTS_SIM_WAL_LOOK_H

#include "format/block.h"
#include "format/frame.h"
#include "journal/walscan.h"
#include "tests/sim/jrn_sim.h"

struct look_block {
    struct block_head head;
    uint64_t lsn, bytes;
    uint64_t pos; /* in the slab file */
    struct dev_file *file;
    uint8_t *mem; /* its bytes */
};
struct look_extent {
    struct walscan_extent x;
    uint64_t end_lsn;
};
struct look_rot {
    uint64_t lsn, end_lsn;
};

struct wal_look {
    struct dev *dev;
    struct dev_file *super_file;
    struct super super;
    struct slabs slabs;
    /* of the last scan */
    struct look_block *blocks;
    unsigned n_blocks;
    struct look_extent *extents;
    unsigned n_extents;
    struct look_rot *rots;
    unsigned n_rots;
    struct walscan_end end;
    struct err err;
};

/* The journal must be down. */
void wal_look_open(struct wal_look *l, struct jrn_sim *js);
/* Scans (again); what walscan_run gives. */
int wal_look_scan(struct wal_look *l);
void wal_look_close(struct wal_look *l);
/* Changes one bit of a file's byte, unsynced: doing it twice undoes it. */
void wal_look_flip(struct wal_look *l, struct dev_file *file, uint64_t pos);

#endif
