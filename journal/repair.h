/* Repairing a stopped store: what can be made again from what is sound is written again; the rest is
 * named, and stays as it is. Nothing that was acknowledged is ever dropped here: a loss in the WAL is
 * the operator's to accept (conf.accept_loss), and damaged batches go on to answer E_LOST. */
#ifndef WEIR_JOURNAL_REPAIR_H
#define WEIR_JOURNAL_REPAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "journal/inspect.h"

enum repair_part {
    REPAIR_SUPER = 1,   /* copies of the superblock, from the newest sound one */
    REPAIR_HEADERS = 2, /* of slabs and of segments' extents, and footers: from the catalogue */
    REPAIR_INDEXES = 4, /* of segments, from their data */
    REPAIR_ROWS = 8,    /* the folder rows/, from catalogue, segments and WAL */
    REPAIR_ALL = 15,
    REPAIR_ROWS_ANYWAY = 16 /* and sound ones, too */
};

enum repair_state {
    REPAIR_WOULD, /* dry run */
    REPAIR_DONE,
    REPAIR_LOST /* nothing to make it from */
};

struct repair_step {
    enum repair_state state;
    struct inspect_place at; /* file empty: no place of its own */
    uint64_t bytes, segment;
    char text[240];
};

/* Looks at the store in folder path, and writes what `parts` names unless dry. fn hears of each step
 * once it is done; *left counts what cannot be mended. E_LOCKED: a server has the store (a dry run
 * works beside it); E_NOTFOUND, E_CORRUPT (no start gets past it), E_IO. */
int repair_run(const char *path, unsigned parts, bool dry,
               void (*fn)(void *ctx, const struct repair_step *s), void *ctx, unsigned *left,
               struct err *e) MUST_USE;

#endif
