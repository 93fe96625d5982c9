/* Which topic and partition a shard is, from the rows of the doors. */
#ifndef WEIR_TOOLS_JOURNAL_CTL_NAMES_H
#define WEIR_TOOLS_JOURNAL_CTL_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "journal/inspect.h"

struct name {
    uint64_t shard;
    char *topic;        /* or the internal state's name */
    uint32_t partition; /* of a topic */
    bool internal;
};

struct names {
    struct name *list; /* by shard */
    size_t n, cap;
    unsigned bad; /* rows that made no sense */
};

/* Reads them all; zeroed before. */
int names_load(struct names *names, struct inspect *in) MUST_USE;
void names_free(struct names *names);
/* NULL: it has none. */
const struct name *names_of(const struct names *names, uint64_t shard);
/* A whole number, and nothing else, as it stands for a shard, a group or an entry; false: it is none. */
bool names_number(const char *text, uint64_t *v);
/* A shard's number, or topic/partition. E_NOTFOUND. */
int names_find(const struct names *names, const char *text, uint64_t *shard) MUST_USE;

#endif
