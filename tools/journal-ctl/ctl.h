/* What the commands of journal-ctl share. */
#ifndef WEIR_TOOLS_JOURNAL_CTL_CTL_H
#define WEIR_TOOLS_JOURNAL_CTL_CTL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "journal/inspect.h"
#include "tools/journal-ctl/emit.h"
#include "tools/journal-ctl/names.h"

#define WEIR_VERSION "0.1.0"

enum exit_status { EXIT_OK, EXIT_ERROR, EXIT_USAGE, EXIT_NOT_FOUND = 3, EXIT_CORRUPT = 5 };

struct ctl {
    const char *data;
    const char *target; /* what follows the verb; NULL: nothing */
    const char *folder; /* what follows that; NULL: nothing */
    const char *shard;  /* --shard */
    const char *format; /* --format */
    bool dry_run;
    bool records;
    bool logical;   /* --logical */
    uint64_t from;  /* --from */
    uint64_t to;    /* --to; all ones: not given */
    uint64_t limit; /* --limit; 0: none */
    int64_t time;   /* --time */
    bool has_time;
    bool told_device;
    bool last_try; /* what still looks damaged is */
    struct emit *emit;
    /* for those that look at a view */
    struct inspect *in;
    struct names names;
};

/* A command: 0, or an error with a sentence in *e where the table's does not say enough. E_CORRUPT
 * ends with EXIT_CORRUPT; before anything is printed it makes main look again with a new view when
 * the store has moved on. */
typedef int ctl_fn(struct ctl *c, struct err *e);

ctl_fn cmd_shard_ls, cmd_shard_describe, cmd_shard_offsets;
ctl_fn cmd_segment_ls, cmd_segment_identity, cmd_segment_head, cmd_segment_dump, cmd_segment_verify;
ctl_fn cmd_wal_dump, cmd_wal_verify;
ctl_fn cmd_verify;
ctl_fn cmd_rows_dump;
ctl_fn cmd_stat;
ctl_fn cmd_export;
ctl_fn cmd_repair, cmd_index_rebuild;
ctl_fn cmd_config_check;

/* The shard named by text; E_NOTFOUND with a sentence. */
int ctl_shard(const struct ctl *c, const char *text, uint64_t *id, struct err *e) MUST_USE;
/* The segment that target names; E_NOTFOUND with a sentence. */
int ctl_segment(const struct ctl *c, uint64_t *id, struct err *e) MUST_USE;
/* "packages/0", "catalogue", "internal offsets"; NULL: it has none. buf holds it. */
const char *ctl_shard_name(const struct ctl *c, uint64_t id, bool catalogue, char *buf,
                           size_t bytes);
/* "segment"; NULL: no table. Static. */
const char *ctl_table_name(uint8_t table);
/* Prints findings and counts; E_CORRUPT when there is damage. */
int ctl_report(struct ctl *c, const struct inspect_report *r, unsigned parts) MUST_USE;
/* The closing line for people; returns rc. */
int ctl_verdict(struct ctl *c, int rc);

#endif
