/* What the files of inspect share. */
#ifndef WEIR_JOURNAL_INSPECT_INT_H
#define WEIR_JOURNAL_INSPECT_INT_H

#include "journal/core.h"
#include "journal/inspect.h"
#include "journal/recover.h"

struct inspect {
    struct dev *dev;
    struct rows *base; /* RocksDB; NULL: there is none, or it cannot be read */
    struct rows *rows; /* the overlay */
    struct loop *loop; /* never runs: recovery asks it for the time */
    struct store *st;  /* never serves */
    struct super
        super; /* as the view was made: the last incarnation ends where the log was seen to end */
    struct walscan_end end;
    struct recover_todo todo;
    bool rows_lost;
    bool rows_damaged; /* RocksDB is there and cannot be read */
};

/* A view without recovery, for a store that recovery refuses: inspect_wal works, nothing else. */
int inspect_open_bare(struct inspect **out, const char *path, struct err *e) MUST_USE;
/* The superblock as it is now. */
int inspect_super_now(struct dev *dev, struct super *s, struct err *e) MUST_USE;
/* Byte pos of a place's extent. */
void inspect_place_set(struct inspect_place *at, uint64_t place, uint64_t pos);

#endif
