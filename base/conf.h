/* Configuration: values for the rows of base/conf_rows.h, from default, file, environment and
 * command line.
 *
 * A later source of that list wins whatever the order of loading; what a stronger source hides is
 * checked all the same. An error is one sentence that starts with its place: "weir.yaml:3:
 * kafka.lisen: no such key (did you mean kafka.listen?)". */
#ifndef WEIR_BASE_CONF_H
#define WEIR_BASE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/conf_rows.h"
#include "base/err.h"

enum conf_key {
#define X(id, ...) CONF_##id,
    CONF_ROWS(X)
#undef X
        CONF_N_KEYS
};

enum conf_type {
    CONF_STRING,
    CONF_BOOL,
    CONF_U64,
    CONF_BYTES,
    CONF_BYTES_AUTO,
    CONF_POWER2,
    CONF_MS,
    CONF_ADDRESS,
    CONF_ADDRESS0,
    CONF_CHOICE,
    CONF_CHOICES,
    CONF_U64S,
    CONF_PATHS
};
enum conf_change { CONF_RESTART, CONF_RELOAD };
enum conf_source { CONF_FROM_DEFAULT, CONF_FROM_FILE, CONF_FROM_ENV, CONF_FROM_COMMAND };

struct conf_row {
    const char *name;
    enum conf_type type;
    const char *def;
    uint64_t min;
    uint64_t max;
    const char *choices; /* "a|b|c" */
    enum conf_change change;
    const char *help;
};
extern const struct conf_row conf_rows[CONF_N_KEYS];

struct conf;

/* All defaults. Never NULL. */
struct conf *conf_new(void);
/* NULL is allowed. */
void conf_free(struct conf *c);

/* A YAML file of at most 1 MiB: keys nested (kafka: {listen: ...}) or dotted. Each key at most
 * once. E_INVALID, E_SYSTEM. */
int conf_load_file(struct conf *c, const char *path, struct err *e) MUST_USE;
/* The same from memory; name stands in errors. */
int conf_load_text(struct conf *c, const char *name, const char *text, size_t bytes,
                   struct err *e) MUST_USE;
/* Every WEIR_ variable of env ("NAME=value", NULL at the end); kafka.listen is WEIR_KAFKA_LISTEN.
 * One that names no key is an error. */
int conf_load_env(struct conf *c, char *const *env, struct err *e) MUST_USE;
/* "KEY=VALUE" from --set; the last one for a key wins. */
int conf_load_set(struct conf *c, const char *assignment, struct err *e) MUST_USE;
/* One value from an option of the command line of its own ("--data"). */
int conf_load_option(struct conf *c, const char *option, enum conf_key key, const char *value,
                     struct err *e) MUST_USE;

/* What no value says alone: keys that contradict one another, and roles that this version does not have
 * apart. For when all sources are loaded. E_INVALID. */
int conf_check(const struct conf *c, struct err *e) MUST_USE;

/* The value: numbers, bytes, milliseconds, bools (0, 1), the index of a choice. */
uint64_t conf_num(const struct conf *c, enum conf_key key);
/* A string's or address's text; for others their canonical text. Borrowed from c. */
const char *conf_str(const struct conf *c, enum conf_key key);
/* Host of an address, without brackets; NULL when it is empty. Borrowed from c. */
const char *conf_host(const struct conf *c, enum conf_key key);
uint16_t conf_port(const struct conf *c, enum conf_key key);
/* Numbers of a U64S, or indexes of a CHOICES; borrowed from c. */
const uint64_t *conf_list(const struct conf *c, enum conf_key key, unsigned *n);
/* Number i of a PATHS, NULL behind the last. Borrowed from c. */
const char *conf_path(const struct conf *c, enum conf_key key, unsigned i);
/* Whether a CHOICES has the one named. */
bool conf_has(const struct conf *c, enum conf_key key, const char *choice);
/* Where the value came from: "default", "weir.yaml:3", "WEIR_KAFKA_LISTEN", "--set". Borrowed from
 * c. */
const char *conf_where(const struct conf *c, enum conf_key key);

/* Every value with where it came from, as a YAML file that can be loaded again. */
void conf_print(const struct conf *c, FILE *out);
/* The text of docs/config.md. */
void conf_print_docs(FILE *out);

#endif
