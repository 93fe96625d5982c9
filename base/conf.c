#include "base/conf.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/conf_int.h"

#define RELOAD  CONF_RELOAD
#define RESTART CONF_RESTART
const struct conf_row conf_rows[CONF_N_KEYS] = {
#define X(id, key, kind, value, lowest, highest, options, when, text)                              \
    [CONF_##id] = { .name = key,                                                                   \
                    .type = CONF_##kind,                                                           \
                    .def = value,                                                                  \
                    .min = lowest,                                                                 \
                    .max = highest,                                                                \
                    .choices = options,                                                            \
                    .change = when,                                                                \
                    .help = text },
    CONF_ROWS(X)
#undef X
};
#undef RELOAD
#undef RESTART

enum { NAME_MAX_BYTES = 80 };

struct conf_slot {
    struct conf_value value;
    enum conf_source source;
    char *where;
};

struct conf {
    struct conf_slot slots[CONF_N_KEYS];
};

struct conf *conf_new(void)
{
    struct conf *c = mem_new(sizeof *c);

    for (int k = 0; k < CONF_N_KEYS; k++) {
        char *item = mem_str(conf_rows[k].def);
        struct err e = { 0 };
        int rc = conf_put(c, (enum conf_key)k, CONF_FROM_DEFAULT, "default",
                          &(struct conf_input){ .items = &item, .n = 1 }, &e);

        ASSERT(rc == 0); /* a default outside its own row's limits */
        free(item);
    }
    return c;
}

void conf_free(struct conf *c)
{
    if (!c)
        return;
    for (int k = 0; k < CONF_N_KEYS; k++) {
        conf_value_fini(&c->slots[k].value);
        free(c->slots[k].where);
    }
    free(c);
}

/* --- names --- */

int conf_find(const char *name, size_t bytes)
{
    for (int k = 0; k < CONF_N_KEYS; k++)
        if (strlen(conf_rows[k].name) == bytes && memcmp(conf_rows[k].name, name, bytes) == 0)
            return k;
    return -1;
}

bool conf_is_section(const char *name)
{
    size_t n = strlen(name);

    for (int k = 0; k < CONF_N_KEYS; k++)
        if (strncmp(conf_rows[k].name, name, n) == 0 && conf_rows[k].name[n] == '.')
            return true;
    return false;
}

/* Levenshtein distance; both at most NAME_MAX_BYTES long. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[NAME_MAX_BYTES + 1];
    unsigned n = (unsigned)strlen(b);

    for (unsigned j = 0; j <= n; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1]; i++) {
        unsigned diagonal = row[0];

        row[0] = i;
        for (unsigned j = 1; j <= n; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

/* The row nearest to name, and how far it is. */
static int nearest_key(const char *name, unsigned *best)
{
    int key = 0;

    *best = UINT32_MAX;
    if (strlen(name) > NAME_MAX_BYTES)
        return key;
    for (int k = 0; k < CONF_N_KEYS; k++) {
        unsigned d = distance(name, conf_rows[k].name);

        if (d < *best) {
            *best = d;
            key = k;
        }
    }
    return key;
}

const char *conf_nearest(const char *name)
{
    static _Thread_local char section[NAME_MAX_BYTES + 1];
    unsigned best;
    const char *found = conf_rows[nearest_key(name, &best)].name;

    if (best == UINT32_MAX)
        return NULL;
    for (int k = 0; k < CONF_N_KEYS; k++) {
        char prefix[NAME_MAX_BYTES + 1];
        size_t n = strcspn(conf_rows[k].name, ".");

        if (!conf_rows[k].name[n])
            continue;
        snprintf(prefix, sizeof prefix, "%.*s", (int)n, conf_rows[k].name);
        if (distance(name, prefix) < best) {
            best = distance(name, prefix);
            found = strcpy(section, prefix);
        }
    }
    return best <= 1 + strlen(name) / 3 ? found : NULL;
}

/* --- sources --- */

int conf_put(struct conf *c, enum conf_key key, enum conf_source source, const char *where,
             const struct conf_input *in, struct err *e)
{
    struct conf_slot *s = &c->slots[key];
    struct conf_value v;
    int rc = conf_value_parse(&v, &conf_rows[key], in, e);

    if (rc < 0)
        return rc;
    if (s->where && source < s->source) {
        conf_value_fini(&v);
        return 0;
    }
    conf_value_fini(&s->value);
    free(s->where);
    *s = (struct conf_slot){ .value = v, .source = source, .where = mem_str(where) };
    return 0;
}

static int put_text(struct conf *c, enum conf_key key, enum conf_source source, const char *where,
                    const char *text, struct err *e)
{
    char *item = mem_str(text);
    int rc = conf_put(c, key, source, where, &(struct conf_input){ .items = &item, .n = 1 }, e);

    free(item);
    return rc;
}

/* kafka.listen to WEIR_KAFKA_LISTEN. */
static void env_name(char *out, const char *key)
{
    out += sprintf(out, "WEIR_");
    for (; *key; key++)
        *out++ = *key == '.' ? '_' : (char)toupper((unsigned char)*key);
    *out = 0;
}

static int unknown_env(const char *name, struct err *e)
{
    char as_key[NAME_MAX_BYTES + 1], near[NAME_MAX_BYTES + 8];
    unsigned best = UINT32_MAX;
    int key = 0;

    snprintf(as_key, sizeof as_key, "%.*s", NAME_MAX_BYTES, name);
    for (char *p = as_key; *p; p++)
        *p = (char)toupper((unsigned char)*p);
    for (int k = 0; k < CONF_N_KEYS; k++) {
        env_name(near, conf_rows[k].name);
        if (distance(as_key, near) < best) {
            best = distance(as_key, near);
            key = k;
        }
    }
    env_name(near, conf_rows[key].name);
    return err_set(e, E_INVALID, "%.100s: no such key (did you mean %s, for %s?)", name, near,
                   conf_rows[key].name);
}

static int load_variable(struct conf *c, const char *var, struct err *e)
{
    char name[NAME_MAX_BYTES * 2], known[NAME_MAX_BYTES + 8];
    const char *value = strchr(var, '=');
    int rc;

    if (!value)
        return 0;
    snprintf(name, sizeof name, "%.*s", (int)(value - var), var);
    for (int k = 0; k < CONF_N_KEYS; k++) {
        env_name(known, conf_rows[k].name);
        if (strcmp(known, name) != 0)
            continue;
        rc = put_text(c, (enum conf_key)k, CONF_FROM_ENV, name, value + 1, e);
        if (rc < 0)
            err_prefix(e, "%s: %s: ", name, conf_rows[k].name);
        return rc;
    }
    return unknown_env(name, e);
}

int conf_load_env(struct conf *c, char *const *env, struct err *e)
{
    for (; *env; env++) {
        int rc = strncmp(*env, "WEIR_", 5) == 0 ? load_variable(c, *env, e) : 0;

        if (rc < 0)
            return rc;
    }
    return 0;
}

int conf_load_set(struct conf *c, const char *assignment, struct err *e)
{
    const char *value = strchr(assignment, '=');
    const char *near;
    char name[NAME_MAX_BYTES * 2];
    int key, rc;

    if (!value)
        return err_set(e, E_INVALID, "--set %.100s: not KEY=VALUE", assignment);
    key = conf_find(assignment, (size_t)(value - assignment));
    if (key >= 0) {
        rc = put_text(c, (enum conf_key)key, CONF_FROM_COMMAND, "--set", value + 1, e);
        if (rc < 0)
            err_prefix(e, "--set: %s: ", conf_rows[key].name);
        return rc;
    }
    snprintf(name, sizeof name, "%.*s", (int)(value - assignment), assignment);
    near = conf_nearest(name);
    return err_set(e, E_INVALID, "--set: %.100s: no such key%s%s%s", name,
                   near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

int conf_load_option(struct conf *c, const char *option, enum conf_key key, const char *value,
                     struct err *e)
{
    int rc = put_text(c, key, CONF_FROM_COMMAND, option, value, e);

    if (rc < 0)
        err_prefix(e, "%s: ", option);
    return rc;
}

/* --- values --- */

uint64_t conf_num(const struct conf *c, enum conf_key key)
{
    ASSERT(conf_rows[key].type != CONF_STRING && conf_rows[key].type != CONF_CHOICES);
    return c->slots[key].value.num;
}

const char *conf_str(const struct conf *c, enum conf_key key)
{
    return c->slots[key].value.text;
}

const char *conf_host(const struct conf *c, enum conf_key key)
{
    return c->slots[key].value.host;
}

uint16_t conf_port(const struct conf *c, enum conf_key key)
{
    return c->slots[key].value.port;
}

const uint64_t *conf_list(const struct conf *c, enum conf_key key, unsigned *n)
{
    *n = c->slots[key].value.n_list;
    return c->slots[key].value.list;
}

const char *conf_path(const struct conf *c, enum conf_key key, unsigned i)
{
    const struct conf_value *v = &c->slots[key].value;

    ASSERT(conf_rows[key].type == CONF_PATHS);
    return i < v->n_list ? v->paths[i] : NULL;
}

bool conf_has(const struct conf *c, enum conf_key key, const char *choice)
{
    const struct conf_value *v = &c->slots[key].value;
    const char *p = conf_rows[key].choices;

    for (uint64_t i = 0; p; i++) {
        size_t n = strcspn(p, "|");

        if (strlen(choice) == n && memcmp(p, choice, n) == 0) {
            for (unsigned j = 0; j < v->n_list; j++)
                if (v->list[j] == i)
                    return true;
            return false;
        }
        p = p[n] ? p + n + 1 : NULL;
    }
    return false;
}

const char *conf_where(const struct conf *c, enum conf_key key)
{
    return c->slots[key].where;
}

/* --- all of them together --- */

static int fault(const struct conf *c, enum conf_key key, const char *what, const char *other,
                 struct err *e)
{
    return err_set(e, E_INVALID, "%s: %s: %s%s", conf_where(c, key), conf_rows[key].name, what,
                   other);
}

int conf_check(const struct conf *c, struct err *e)
{
#define X(low, high) { CONF_##low, CONF_##high },
    static const enum conf_key order[][2] = { CONF_ORDER(X) };
#undef X

    if (!conf_has(c, CONF_ROLES, "meta") || !conf_has(c, CONF_ROLES, "broker") ||
        !conf_has(c, CONF_ROLES, "engine"))
        return fault(c, CONF_ROLES,
                     "this version needs meta, broker and engine together in one process", "", e);
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
        if (conf_num(c, order[i][0]) > conf_num(c, order[i][1]))
            return fault(c, order[i][0], "is above ", conf_rows[order[i][1]].name, e);
    return 0;
}
