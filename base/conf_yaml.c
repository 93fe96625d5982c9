/* The file source, on libyaml's events: they carry the line of every key
 * (docs/decisions/config-parser.md). */
#include "base/conf_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/buf.h"

enum { FILE_MAX_BYTES = 1 << 20, PATH_MAX_BYTES = 128, LIST_MAX_ITEMS = 4096 };

/* Names seen, so that none is given twice. */
struct seen {
    char *name;
    size_t line;
};

struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the one being looked at */
    struct conf *conf;
    const char *file;
    struct err *e;
    struct seen *seen;
    unsigned n_seen;
};

static size_t event_line(const struct reader *r)
{
    return r->event.start_mark.line + 1;
}

static int yaml_fault(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    size_t line = p->problem_mark.line + 1;

    if (p->error == YAML_MEMORY_ERROR)
        return err_set(r->e, E_NOMEM, "%s: out of memory", r->file);
    /* A byte that is no text has an offset, but no line yet. */
    if (p->error == YAML_READER_ERROR)
        return err_set(r->e, E_INVALID, "%s: byte %zu: not valid YAML: %s", r->file,
                       p->problem_offset, p->problem);
    return err_set(r->e, E_INVALID, "%s:%zu: not valid YAML: %s", r->file, line,
                   p->problem ? p->problem : "cannot be parsed");
}

/* Steps to the next event. */
static int next(struct reader *r)
{
    yaml_event_delete(&r->event);
    if (!yaml_parser_parse(&r->parser, &r->event))
        return yaml_fault(r);
    if (r->event.type == YAML_ALIAS_EVENT)
        return err_set(r->e, E_INVALID, "%s:%zu: aliases (*%.40s) are not supported", r->file,
                       event_line(r), (const char *)r->event.data.alias.anchor);
    return 0;
}

static int see(struct reader *r, const char *name, size_t line)
{
    for (unsigned i = 0; i < r->n_seen; i++)
        if (strcmp(r->seen[i].name, name) == 0)
            return err_set(r->e, E_INVALID, "%s:%zu: %s: given twice (first on line %zu)", r->file,
                           line, name, r->seen[i].line);
    r->seen = mem_grow(r->seen, (r->n_seen + 1) * sizeof *r->seen);
    r->seen[r->n_seen++] = (struct seen){ .name = mem_str(name), .line = line };
    return 0;
}

static int unknown(struct reader *r, const char *name, size_t line)
{
    const char *near = conf_nearest(name);

    return err_set(r->e, E_INVALID, "%s:%zu: %s: no such key%s%s%s", r->file, line, name,
                   near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

/* Copies the present scalar; a value must not be left empty, unless in quotes. */
static int take_scalar(struct reader *r, const char *key, char **out)
{
    const char *text = (const char *)r->event.data.scalar.value;
    bool plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

    if (strlen(text) != r->event.data.scalar.length)
        return err_set(r->e, E_INVALID, "%s:%zu: %s: has a zero byte", r->file, event_line(r), key);
    if (plain && (!*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0))
        return err_set(r->e, E_INVALID, "%s:%zu: %s: has no value", r->file, event_line(r), key);
    *out = mem_str(text);
    return 0;
}

static void input_fini(struct conf_input *in)
{
    for (unsigned i = 0; i < in->n; i++)
        free(in->items[i]);
    free(in->items);
}

static int take_item(struct reader *r, const char *key, struct conf_input *in)
{
    char *text = NULL;
    int rc;

    if (r->event.type != YAML_SCALAR_EVENT)
        return err_set(r->e, E_INVALID, "%s:%zu: %s: a list holds plain values", r->file,
                       event_line(r), key);
    if (in->n == LIST_MAX_ITEMS)
        return err_set(r->e, E_INVALID, "%s:%zu: %s: more than %d items", r->file, event_line(r),
                       key, LIST_MAX_ITEMS);
    rc = take_scalar(r, key, &text);
    if (rc < 0)
        return rc;
    in->items = mem_grow(in->items, (in->n + 1) * sizeof *in->items);
    in->items[in->n++] = text;
    return 0;
}

/* Reads the value that starts at the present event. */
static int take_value(struct reader *r, const char *key, struct conf_input *in)
{
    int rc;

    if (r->event.type == YAML_SCALAR_EVENT)
        return take_item(r, key, in);
    if (r->event.type == YAML_MAPPING_START_EVENT)
        return err_set(r->e, E_INVALID, "%s:%zu: %s: takes a value, not a mapping of keys", r->file,
                       event_line(r), key);
    in->is_list = true;
    while ((rc = next(r)) == 0 && r->event.type != YAML_SEQUENCE_END_EVENT) {
        rc = take_item(r, key, in);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int read_key(struct reader *r, const char *name, int key, size_t line)
{
    struct conf_input in = { 0 };
    char *where;
    int rc = take_value(r, name, &in);

    if (rc == 0) {
        where = mem_new(strlen(r->file) + 32);
        sprintf(where, "%s:%zu", r->file, line);
        rc = conf_put(r->conf, (enum conf_key)key, CONF_FROM_FILE, where, &in, r->e);
        if (rc < 0)
            err_prefix(r->e, "%s: %s: ", where, name);
        free(where);
    }
    input_fini(&in);
    return rc;
}

static int read_mapping(struct reader *r, const char *prefix);

/* The present event is the value of key `name`, which stood on `line`. */
static int read_pair(struct reader *r, const char *name, size_t line)
{
    int key = conf_find(name, strlen(name));

    if (key >= 0)
        return read_key(r, name, key, line);
    if (!conf_is_section(name))
        return unknown(r, name, line);
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return err_set(r->e, E_INVALID, "%s:%zu: %s: is a section and takes a mapping of keys",
                       r->file, line, name);
    return read_mapping(r, name);
}

/* From the start event of a mapping to its end. Depth is bounded: a section's name has no section
 * of its own in it, and a mapping under a key is refused. */
static int read_mapping(struct reader *r, const char *prefix)
{
    char name[PATH_MAX_BYTES];
    size_t line;
    int rc;

    while ((rc = next(r)) == 0 && r->event.type != YAML_MAPPING_END_EVENT) {
        line = event_line(r);
        if (r->event.type != YAML_SCALAR_EVENT)
            return err_set(r->e, E_INVALID, "%s:%zu: a key is a plain word", r->file, line);
        snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "",
                 (const char *)r->event.data.scalar.value);
        rc = see(r, name, line);
        if (rc == 0)
            rc = next(r);
        if (rc == 0)
            rc = read_pair(r, name, line);
        if (rc < 0)
            return rc;
    }
    return rc;
}

/* One document, a mapping, or nothing at all. */
static int read_stream(struct reader *r)
{
    bool empty;
    int rc = next(r); /* stream start */

    if (rc == 0)
        rc = next(r);
    if (rc < 0 || r->event.type == YAML_STREAM_END_EVENT)
        return rc;
    rc = next(r);
    if (rc < 0)
        return rc;
    empty = r->event.type == YAML_SCALAR_EVENT && r->event.data.scalar.length == 0;
    if (!empty && r->event.type != YAML_MAPPING_START_EVENT)
        return err_set(r->e, E_INVALID, "%s:%zu: not a mapping of keys", r->file, event_line(r));
    rc = empty ? 0 : read_mapping(r, "");
    if (rc == 0)
        rc = next(r); /* document end */
    if (rc == 0)
        rc = next(r);
    if (rc == 0 && r->event.type != YAML_STREAM_END_EVENT)
        return err_set(r->e, E_INVALID, "%s:%zu: a second document", r->file, event_line(r));
    return rc;
}

int conf_load_text(struct conf *c, const char *name, const char *text, size_t bytes, struct err *e)
{
    struct reader r = { .conf = c, .file = name, .e = e };
    int rc;

    if (!yaml_parser_initialize(&r.parser))
        return err_set(e, E_NOMEM, "%s: out of memory", name);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, bytes);
    rc = read_stream(&r);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    for (unsigned i = 0; i < r.n_seen; i++)
        free(r.seen[i].name);
    free(r.seen);
    return rc;
}

int conf_load_file(struct conf *c, const char *path, struct err *e)
{
    FILE *f = fopen(path, "re");
    char *text = NULL;
    size_t n;
    int rc;

    if (!f)
        return err_set(e, E_SYSTEM, "%s: cannot be opened: %s", path, strerror(errno));
    text = mem_new(FILE_MAX_BYTES + 1);
    n = fread(text, 1, FILE_MAX_BYTES + 1, f);
    if (ferror(f))
        rc = err_set(e, E_SYSTEM, "%s: cannot be read: %s", path, strerror(errno));
    else if (n > FILE_MAX_BYTES)
        rc = err_set(e, E_INVALID, "%s: larger than 1 MiB", path);
    else
        rc = conf_load_text(c, path, text, n, e);
    free(text);
    fclose(f);
    return rc;
}
