/* journal-ctl: looks into a store, offline or beside its server. Writes nothing, but for repair and index
 * rebuild, which need it stopped. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/logger.h"
#include "tools/journal-ctl/ctl.h"

enum { TRIES = 10 };

enum option {
    OPT_DATA,
    OPT_OUTPUT,
    OPT_SHARD,
    OPT_LOGICAL,
    OPT_RECORDS,
    OPT_FROM,
    OPT_TO,
    OPT_FORMAT,
    OPT_DRY_RUN,
    OPT_LIMIT,
    OPT_TIME,
    OPT_VERBOSE,
    OPT_VERSION,
    OPT_HELP,
    OPT_COUNT
};

static const struct option_row {
    const char *name;
    const char *brief; /* or NULL */
    const char *arg;   /* NULL: takes none */
    const char *help;
} options[OPT_COUNT] = {
    [OPT_DATA] = { "--data", NULL, "DIR", "the data folder (./data)" },
    [OPT_OUTPUT] = { "--output", "-o", "FORM", "table, json or jsonl (table)" },
    [OPT_SHARD] = { "--shard", NULL, "SHARD", "segment dump: only this one" },
    [OPT_LOGICAL] = { "--logical", NULL, NULL, "segment ls: the log's segments, not their pieces" },
    [OPT_RECORDS] = { "--records", NULL, NULL, "dump: decode the batches" },
    [OPT_FROM] = { "--from", NULL, "LSN", "wal dump: begin at this LSN; export: at this offset" },
    [OPT_TO] = { "--to", NULL, "OFFSET", "export: end before this offset" },
    [OPT_FORMAT] = { "--format", NULL, "WHAT", "export: kafka-log or json (kafka-log)" },
    [OPT_DRY_RUN] = { "--dry-run", NULL, NULL, "repair: say what would be done, write nothing" },
    [OPT_LIMIT] = { "--limit", NULL, "N", "wal dump: end after so many blocks" },
    [OPT_TIME] = { "--time", NULL, "MS", "shard offsets: find the first record at or after MS" },
    [OPT_VERBOSE] = { "--verbose", "-v", NULL, "say on stderr what recovery meets" },
    [OPT_VERSION] = { "--version", NULL, NULL, "print the version" },
    [OPT_HELP] = { "--help", "-h", NULL, "print this" },
};

#define TAKES(option) (1u << (option))

static const struct command {
    const char *noun, *verb; /* verb NULL: the noun stands alone */
    const char *target;      /* NULL: takes none; "X Y": two */
    ctl_fn *run;
    const char *help;
    unsigned takes; /* options beside those that all take */
    bool many;      /* its document has several sections */
    bool no_view;   /* it opens none, or its own */
} commands[] = {
    { "shard", "ls", NULL, cmd_shard_ls, "all shards", 0, false, false },
    { "shard", "describe", "SHARD", cmd_shard_describe, "one with its runs, holes and producers", 0,
      true, false },
    { "shard", "offsets", "SHARD", cmd_shard_offsets, "its first, last and latest record",
      TAKES(OPT_TIME), false, false },
    { "segment", "ls", NULL, cmd_segment_ls, "all sealed segments", TAKES(OPT_LOGICAL), false,
      false },
    { "segment", "identity", "GROUP ENTRY", cmd_segment_identity,
      "of the log's segment that holds the entry", 0, false, false },
    { "segment", "head", "SEGMENT", cmd_segment_head, "one's footer, extents and identity", 0, true,
      false },
    { "segment", "dump", "SEGMENT", cmd_segment_dump, "its batches, or records",
      TAKES(OPT_SHARD) | TAKES(OPT_RECORDS), false, false },
    { "segment", "verify", "SEGMENT", cmd_segment_verify, "every checksum in it", 0, true, false },
    { "wal", "dump", NULL, cmd_wal_dump, "incarnations, extents, blocks, frames, items",
      TAKES(OPT_FROM) | TAKES(OPT_LIMIT) | TAKES(OPT_RECORDS), false, false },
    { "wal", "verify", NULL, cmd_wal_verify, "every checksum in the live WAL; what rot has hit", 0,
      true, false },
    { "verify", NULL, NULL, cmd_verify, "everything", 0, true, true },
    { "rows", "dump", NULL, cmd_rows_dump, "every row of the view beside the log", 0, false,
      false },
    { "stat", NULL, NULL, cmd_stat, "space, shards, segments, WAL, amplification", 0, true, false },
    { "export", NULL, "SHARD DIR", cmd_export, "its records as Kafka's log files, or JSON lines",
      TAKES(OPT_FORMAT) | TAKES(OPT_FROM) | TAKES(OPT_TO), false, false },
    { "repair", NULL, NULL, cmd_repair, "write again what can be made again", TAKES(OPT_DRY_RUN),
      true, true },
    { "index", "rebuild", NULL, cmd_index_rebuild, "make the rows and damaged indexes anew",
      TAKES(OPT_DRY_RUN), true, true },
    { "config", "check", "FILE", cmd_config_check, "a configuration file of the server", 0, false,
      true },
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

/* --- what commands share ---------------------------------------------------------------------- */

int ctl_shard(const struct ctl *c, const char *text, uint64_t *id, struct err *e)
{
    struct inspect_shard s;
    int rc = names_find(&c->names, text, id);

    if (rc >= 0)
        rc = inspect_shard(c->in, *id, &s);
    return rc == E_NOTFOUND ? err_set(e, rc, "%s: no such shard", text) : rc;
}

int ctl_segment(const struct ctl *c, uint64_t *id, struct err *e)
{
    struct inspect_segment s;
    char *end;

    errno = 0;
    *id = strtoull(c->target, &end, 10);
    if (*end || end == c->target || errno || inspect_segment(c->in, *id, &s) < 0)
        return err_set(e, E_NOTFOUND, "%s: no such segment", c->target);
    return 0;
}

const char *ctl_shard_name(const struct ctl *c, uint64_t id, bool catalogue, char *buf,
                           size_t bytes)
{
    const struct name *n = names_of(&c->names, id);

    if (catalogue)
        return "(catalogue)";
    if (!n)
        return NULL;
    if (n->internal)
        snprintf(buf, bytes, "(%s)", n->topic);
    else
        snprintf(buf, bytes, "%s/%" PRIu32, n->topic, n->partition);
    return buf;
}

/* --- arguments -------------------------------------------------------------------------------- */

struct args {
    const char *value[OPT_COUNT]; /* NULL: not given; "" for those without an argument */
    const char *word[4];
    unsigned n_words;
};

static int usage(const char *arg, const char *what)
{
    fprintf(stderr, "journal-ctl: %s%s; see journal-ctl --help\n", arg, what);
    return EXIT_USAGE;
}

static void print_help(void)
{
    printf("usage: journal-ctl [--data DIR] [-o table|json|jsonl] COMMAND [OPTION]...\n\n"
           "Looks into a Weir data folder, offline or beside its server. Writes nothing, but for\n"
           "repair and index rebuild, which need it stopped.\n\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        const struct command *c = &commands[i];
        char left[64];

        snprintf(left, sizeof left, "%s%s%s%s%s", c->noun, c->verb ? " " : "",
                 c->verb ? c->verb : "", c->target ? " " : "", c->target ? c->target : "");
        printf("  %-24s %s\n", left, c->help);
    }
    printf("\n");
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option_row *o = &options[i];
        char left[64];

        snprintf(left, sizeof left, "%s%s%s%s%s", o->brief ? o->brief : "", o->brief ? ", " : "",
                 o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        printf("  %-24s %s\n", left, o->help);
    }
    printf("\nA SHARD is a number or topic/partition; for export a topic, too.\n"
           "Exit status: 0 all is well, 1 error, 2 wrong usage, 3 not found, 5 damaged.\n");
}

static int find_option(const char *arg, size_t bytes)
{
    for (int i = 0; i < OPT_COUNT; i++)
        if ((strlen(options[i].name) == bytes && memcmp(options[i].name, arg, bytes) == 0) ||
            (options[i].brief && strlen(options[i].brief) == bytes &&
             memcmp(options[i].brief, arg, bytes) == 0))
            return i;
    return -1;
}

/* Takes one argument, and its value from the next one unless it stands behind "=". 0 or an exit
 * status. */
static int take_arg(struct args *a, char **argv, int *at)
{
    const char *arg = argv[*at];
    size_t bytes = strcspn(arg, "=");
    const char *value = arg[bytes] ? arg + bytes + 1 : NULL;
    int o;

    if (arg[0] != '-') {
        if (a->n_words == sizeof a->word / sizeof a->word[0])
            return usage(arg, ": one word too many");
        a->word[a->n_words++] = arg;
        return 0;
    }
    o = find_option(arg, bytes);
    if (o < 0)
        return usage(arg, ": no such option");
    if (!options[o].arg && value)
        return usage(arg, ": takes no value");
    if (options[o].arg && !value) {
        value = argv[*at + 1];
        if (!value)
            return usage(arg, " needs a value");
        ++*at;
    }
    a->value[o] = value ? value : "";
    return 0;
}

static unsigned n_targets(const struct command *c)
{
    return c->target ? 1 + (strchr(c->target, ' ') != NULL) : 0;
}

static int find_command(const struct args *a, const struct command **out)
{
    bool noun = false;

    if (a->n_words == 0)
        return usage("", "what shall be done?");
    for (int i = 0; i < N_COMMANDS; i++) {
        const struct command *c = &commands[i];
        unsigned n = 1 + (c->verb != NULL), targets = n_targets(c);

        if (strcmp(c->noun, a->word[0]) != 0)
            continue;
        noun = true;
        if (c->verb && (a->n_words < 2 || strcmp(c->verb, a->word[1]) != 0))
            continue;
        if (a->n_words > n + targets)
            return usage(a->word[a->n_words - 1], ": one word too many");
        if (a->n_words < n + targets)
            return usage(c->target, " is missing");
        *out = c;
        return 0;
    }
    return noun ? usage(a->word[0], a->n_words > 1 ? ": no such verb for it" : ": needs a verb")
                : usage(a->word[0], ": no such command");
}

/* Fills *c and *format; 0 or an exit status. */
static int take_options(const struct args *a, const struct command *cmd, struct ctl *c,
                        enum emit_format *format)
{
    const unsigned all = TAKES(OPT_DATA) | TAKES(OPT_OUTPUT) | TAKES(OPT_VERBOSE);
    const char *form = a->value[OPT_OUTPUT] ? a->value[OPT_OUTPUT] : "table";
    uint64_t time = 0;

    for (int i = 0; i < OPT_COUNT; i++)
        if (a->value[i] && !((all | cmd->takes) & TAKES(i)))
            return usage(options[i].name, ": not with this command");
    *format = strcmp(form, "json") == 0 ? EMIT_JSON : EMIT_JSONL;
    if (strcmp(form, "table") == 0)
        *format = EMIT_TABLE;
    else if (*format == EMIT_JSONL && strcmp(form, "jsonl") != 0)
        return usage(form, ": not one of table, json, jsonl");
    c->data = a->value[OPT_DATA] ? a->value[OPT_DATA] : "./data";
    c->target = cmd->target ? a->word[a->n_words - n_targets(cmd)] : NULL;
    c->folder = n_targets(cmd) > 1 ? a->word[a->n_words - 1] : NULL;
    c->format = a->value[OPT_FORMAT];
    c->dry_run = a->value[OPT_DRY_RUN] != NULL;
    c->to = UINT64_MAX;
    c->shard = a->value[OPT_SHARD];
    c->logical = a->value[OPT_LOGICAL] != NULL;
    c->records = a->value[OPT_RECORDS] != NULL;
    c->has_time = a->value[OPT_TIME] != NULL;
    if ((a->value[OPT_FROM] && !names_number(a->value[OPT_FROM], &c->from)) ||
        (a->value[OPT_TO] && !names_number(a->value[OPT_TO], &c->to)) ||
        (a->value[OPT_LIMIT] && !names_number(a->value[OPT_LIMIT], &c->limit)) ||
        (c->has_time && (!names_number(a->value[OPT_TIME], &time) || time > INT64_MAX)))
        return usage("--from, --to, --limit, --time", ": a whole number is needed");
    c->time = (int64_t)time;
    return 0;
}

/* --- running ---------------------------------------------------------------------------------- */

/* One folder is what is shown: it must not pass for all of its set. */
static void tell_device(struct ctl *c)
{
    struct inspect_info info;

    inspect_info(c->in, &info);
    if (info.n_devices > 1 && !c->told_device)
        fprintf(
            stderr,
            "journal-ctl: %s is device %u of a set of %u: what lies on the others is not shown\n",
            c->data, info.device, info.n_devices);
    c->told_device = true;
}

static int run_once(const struct command *cmd, struct ctl *c, struct err *e)
{
    int rc = cmd->no_view ? 0 : inspect_open(&c->in, c->data, e);

    if (rc >= 0 && c->in)
        rc = names_load(&c->names, c->in);
    if (rc >= 0 && c->in)
        tell_device(c);
    if (rc >= 0)
        rc = cmd->run(c, e);
    /* What is damaged in a store that has moved on may be what was freed and used anew. */
    if (rc == E_CORRUPT && c->in && !emit_begun(c->emit) && !c->last_try && inspect_moved(c->in))
        rc = E_BUSY;
    names_free(&c->names);
    inspect_close(c->in);
    c->in = NULL;
    return rc;
}

static int run(const struct command *cmd, struct ctl *c, enum emit_format format)
{
    struct err e = { 0 };
    int rc = E_BUSY;

    c->emit = emit_new(format, stdout, cmd->many);
    for (unsigned i = 1; rc == E_BUSY && !emit_begun(c->emit) && i <= TRIES; i++) {
        e = (struct err){ 0 };
        c->last_try = i == TRIES;
        rc = run_once(cmd, c, &e);
    }
    if (!emit_free(c->emit) && rc >= 0)
        rc = err_set(&e, E_IO, "the output cannot be written");
    if (rc >= 0)
        return EXIT_OK;
    if (rc != E_CORRUPT || e.code)
        fprintf(stderr, "journal-ctl: %s\n", e.code ? e.text : err_text(rc));
    return rc == E_NOTFOUND ? EXIT_NOT_FOUND : rc == E_CORRUPT ? EXIT_CORRUPT : EXIT_ERROR;
}

int main(int argc, char **argv)
{
    const struct command *cmd;
    enum emit_format format;
    struct args a = { 0 };
    struct ctl c = { 0 };
    int status = 0;

    for (int i = 1; status == 0 && i < argc; i++)
        status = take_arg(&a, argv, &i);
    if (status)
        return status;
    if (a.value[OPT_HELP]) {
        print_help();
        return EXIT_OK;
    }
    if (a.value[OPT_VERSION]) {
        printf("journal-ctl " WEIR_VERSION "\n");
        return EXIT_OK;
    }
    status = find_command(&a, &cmd);
    if (status == 0)
        status = take_options(&a, cmd, &c, &format);
    if (status)
        return status;
    logger_setup(LOG_LEVEL_INFO, false);
    if (!a.value[OPT_VERBOSE])
        logger_to(-1);
    return run(cmd, &c, format);
}
