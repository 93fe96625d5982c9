/* What the files of conf share. */
#ifndef WEIR_BASE_CONF_INT_H
#define WEIR_BASE_CONF_INT_H

#include "base/conf.h"

/* A parsed value. Zeroed is none. */
struct conf_value {
    char *text; /* canonical */
    uint64_t num;
    char *host; /* ADDRESS */
    uint64_t *list;
    unsigned n_list;
    char **paths; /* PATHS: n_list of them */
    uint16_t port;
};

/* One item of a value as it was written. A list has many. */
struct conf_input {
    char **items;
    unsigned n;
    bool is_list; /* written as a list; otherwise one item, which list types split at commas */
};

/* Fills *v; the sentence of an error starts with the value, without place and key. */
int conf_value_parse(struct conf_value *v, const struct conf_row *row, const struct conf_input *in,
                     struct err *e) MUST_USE;
void conf_value_fini(struct conf_value *v);
/* "3", "64KiB", "10m", as row's type is read. out has 32 bytes. */
void conf_value_format(char *out, enum conf_type type, uint64_t n);

/* The row's number, or -1. */
int conf_find(const char *name, size_t bytes);
/* Whether some key starts with name and a dot. */
bool conf_is_section(const char *name);
/* The nearest key or section, or NULL when none is near enough to be meant. */
const char *conf_nearest(const char *name);
/* Stores one value; where is copied. */
int conf_put(struct conf *c, enum conf_key key, enum conf_source source, const char *where,
             const struct conf_input *in, struct err *e) MUST_USE;

#endif
