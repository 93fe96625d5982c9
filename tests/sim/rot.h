/* Rot: bits that flip in stored bytes while the process is down, at places where the damage can be told from a torn tail, and what
 * they may cost. */
#ifndef WEIR_TESTS_SIM_ROT_H
#define WEIR_TESTS_SIM_ROT_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/jrn_sim.h"
#include "tests/sim/model.h"

enum { ROT_GROUPS_MAX = 64 };

struct rot_report {
    uint64_t groups[ROT_GROUPS_MAX]; /* those that must be read-only from now on, and no others */
    unsigned n_groups;
    uint64_t latent
        [ROT_GROUPS_MAX]; /* those that did without what was hit, as the rows had all of it: may be so if those are lost */
    unsigned n_latent;
    uint64_t end_lsn; /* of the damage: past caring when the checkpoint is */
    bool certain;   /* at the first start; a later one may find that all of it had been destaged */
    bool catalogue; /* one of them is the catalogue's: updates may be lost */
};

/* All between two lives, after a power cut or an orderly close. True when a bit was flipped; m then knows which offsets it may have
 * cost. */

/* In a block of the live WAL that is known to have been flushed. orderly: in the last one that holds anything, which an orderly close
 * has made known. Where rows must be rebuilt, not in one with the catalogue's records:
 * rows and catalogue are each other's second copy. */
bool rot_wal_block(struct jrn_sim *js, struct rng *r, struct model *m, bool orderly,
                   struct rot_report *report);
/* In the header of an extent of the live WAL: costs nothing. */
/* A byte of a batch that a block of the live WAL, not the last, has put into an open segment: the batch
 * is lost, nothing else, and nobody notices before it is read. */
bool rot_direct(struct jrn_sim *js, struct rng *r, struct model *m);
bool rot_wal_head(struct jrn_sim *js, struct rng *r, const struct model *m);
/* In a batch of a sealed segment, whose number goes to *segment. */
bool rot_segment_data(struct jrn_sim *js, struct rng *r, struct model *m, uint64_t *segment);
/* In the index, the footer or an extent's header of a sealed segment: costs nothing. */
bool rot_segment_rest(struct jrn_sim *js, struct rng *r, const struct model *m, uint64_t *segment);
/* In one of the four copies of the superblock: costs nothing. */
bool rot_super(struct jrn_sim *js, struct rng *r, const struct model *m);

#endif
