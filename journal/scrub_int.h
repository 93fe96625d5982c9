/* What the files of the scrub share: scrub.c (cycles, pace, findings; keeper), scrub_check.c (reading and
 * checking; pool threads). */
#ifndef WEIR_JOURNAL_SCRUB_INT_H
#define WEIR_JOURNAL_SCRUB_INT_H

#include "journal/scrub.h"

enum scrub_kind { SCRUB_SUPER, SCRUB_SLAB, SCRUB_WAL, SCRUB_SEGMENT };

struct scrub_item {
    enum scrub_kind kind;
    uint64_t id;    /* slab number, first LSN of the extent, segment */
    uint64_t bytes; /* about what it takes to read */
};

struct scrub_finding {
    enum scrub_kind kind;
    uint64_t id;
    char file[16];
    uint64_t byte, bytes; /* in the file: what is damaged lies in them */
    uint64_t lsn;         /* WAL */
    const char *what;
};

/* One item on its way through the steps. */
struct scrub_check {
    struct store *st;
    struct scrub_item item;
    uint64_t piece;
    struct scrub_finding *found;
    unsigned n_found;
    uint64_t read; /* bytes, by the last step */
    bool begun, done;
    /* a segment */
    struct seg_index index;
    struct seg_run *runs; /* by place */
    uint32_t run;         /* the present one */
    uint64_t at;          /* byte of it that comes next */
    uint64_t next;        /* offset of the batch there */
    bool run_damaged;
    struct sum64_state *sum;
};

/* piece: bytes of a segment that are read in one step, or the batch there when it is larger. */
void scrub_check_begin(struct scrub_check *c, struct store *st, const struct scrub_item *item,
                       uint64_t piece);
/* Reads and checks a piece more; sets done. Blocks. */
void scrub_check_step(struct scrub_check *c);
void scrub_check_end(struct scrub_check *c);

#endif
