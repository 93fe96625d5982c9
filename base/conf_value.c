#include "base/conf_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: the canonical form takes the first that divides. */
static const struct unit byte_units[] = { { "TiB", CONF_TIB }, { "GiB", CONF_GIB },
                                          { "MiB", CONF_MIB }, { "KiB", CONF_KIB },
                                          { "", 1 },           { NULL, 0 } };
static const struct unit time_units[] = {
    { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 }, { NULL, 0 }
};

static const struct unit *units_of(enum conf_type type)
{
    static const struct unit none[] = { { "", 1 }, { NULL, 0 } };

    if (type == CONF_BYTES || type == CONF_BYTES_AUTO || type == CONF_POWER2)
        return byte_units;
    return type == CONF_MS ? time_units : none;
}

void conf_value_format(char *out, enum conf_type type, uint64_t n)
{
    const struct unit *u = units_of(type);

    if (n == 0)
        while (u[1].name)
            u++;
    else
        while (n % u->factor)
            u++;
    snprintf(out, 32, "%" PRIu64 "%s", n / u->factor, u->name);
}

/* A whole number and a unit, nothing else: no sign, no fraction, blanks only between the two. */
static int parse_number(const char *text, const struct unit *u, uint64_t *out)
{
    uint64_t n = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(n, (uint64_t)10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
            return E_RANGE;
    if (p == text)
        return E_INVALID;
    if (*p)
        while (*p == ' ')
            p++;
    for (; u->name; u++)
        if (strcmp(u->name, p) == 0) {
            if (__builtin_mul_overflow(n, u->factor, out))
                return E_RANGE;
            return 0;
        }
    return E_INVALID;
}

static int number(uint64_t *out, const struct conf_row *row, const char *text, struct err *e)
{
    static const char *const what[] = { [CONF_U64] = "whole number",
                                        [CONF_U64S] = "whole number",
                                        [CONF_BYTES] = "size (a number, or with KiB, MiB, GiB, "
                                                       "TiB)",
                                        [CONF_BYTES_AUTO] = "size (a number, or with KiB, MiB, "
                                                            "GiB, TiB), nor auto",
                                        [CONF_POWER2] = "size (a number, or with KiB, MiB, GiB, "
                                                        "TiB)",
                                        [CONF_MS] = "time (a number with ms, s, m or h)" };
    char limit[32];
    int rc = parse_number(text, units_of(row->type), out);

    if (rc == E_INVALID)
        return err_set(e, E_INVALID, "\"%.60s\" is not a %s", text, what[row->type]);
    if (rc == E_RANGE || *out > row->max) {
        conf_value_format(limit, row->type, row->max);
        return err_set(e, E_INVALID, "%.60s is above the limit of %s", text, limit);
    }
    if (*out < row->min) {
        conf_value_format(limit, row->type, row->min);
        return err_set(e, E_INVALID, "%.60s is below the limit of %s", text, limit);
    }
    if (row->type == CONF_POWER2 && (*out & (*out - 1)))
        return err_set(e, E_INVALID, "%.60s is not a power of two", text);
    return 0;
}

/* The index of text among "a|b|c". */
static int choice(uint64_t *out, const struct conf_row *row, const char *text, struct err *e)
{
    const char *p = row->choices;
    size_t len = strlen(text);

    for (*out = 0; p; ++*out) {
        size_t n = strcspn(p, "|");

        if (n == len && memcmp(p, text, n) == 0)
            return 0;
        p = p[n] ? p + n + 1 : NULL;
    }
    return err_set(e, E_INVALID, "\"%.60s\" is not one of %s", text, row->choices);
}

static int string(struct conf_value *v, const struct conf_row *row, const char *text, struct err *e)
{
    size_t n = strlen(text);

    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            return err_set(e, E_INVALID, "has a control character");
    if (n < row->min)
        return err_set(e, E_INVALID, "\"%.60s\" is shorter than %" PRIu64 " character%s", text,
                       row->min, row->min == 1 ? "" : "s");
    if (n > row->max)
        return err_set(e, E_INVALID, "\"%.60s...\" is longer than %" PRIu64 " characters", text,
                       row->max);
    v->text = mem_str(text);
    return 0;
}

static bool host_byte(char b)
{
    return (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') || b == '.' ||
           b == '-' || b == '_';
}

/* Splits host:port or [v6]:port; whether the host exists is asked when it is used. */
static const char *split_host(const char *text, char **host)
{
    const char *start = text;
    const char *end;

    if (*text == '[') {
        start++;
        end = start + strspn(start, "0123456789abcdefABCDEF:.%abcdefghijklmnopqrstuvwxyz");
        if (end == start || end[0] != ']' || end[1] != ':')
            return NULL;
        text = end + 2;
    } else {
        for (end = text; host_byte(*end); end++)
            ;
        if (end == text || *end != ':')
            return NULL;
        text = end + 1;
    }
    if (end - start > 255)
        return NULL;
    *host = mem_new((size_t)(end - start) + 1);
    memcpy(*host, start, (size_t)(end - start));
    return text;
}

static int address(struct conf_value *v, const struct conf_row *row, const char *text,
                   struct err *e)
{
    struct conf_row port_row = { .type = CONF_U64, .min = row->min, .max = row->max };
    const char *port;

    v->text = mem_str(text);
    if (row->type == CONF_ADDRESS0 && *text == 0)
        return 0;
    port = split_host(text, &v->host);
    if (!port || *port < '0' || *port > '9' || port[strspn(port, "0123456789")])
        return err_set(e, E_INVALID, "\"%.60s\" is not an address (host:port)", text);
    if (number(&v->num, &port_row, port, e) < 0) {
        err_prefix(e, "port ");
        return E_INVALID;
    }
    v->port = (uint16_t)v->num;
    return 0;
}

static int path_add(struct conf_value *v, const struct conf_row *row, const char *item,
                    struct err *e)
{
    struct conf_value one = { 0 };

    if (strchr(item, ','))
        return err_set(e, E_INVALID, "\"%.60s\" has a comma", item);
    if (string(&one, row, item, e) < 0)
        return E_INVALID;
    v->paths = mem_grow(v->paths, (v->n_list + 1) * sizeof *v->paths);
    v->paths[v->n_list++] = one.text;
    for (unsigned i = 0; i + 1 < v->n_list; i++)
        if (strcmp(v->paths[i], item) == 0)
            return err_set(e, E_INVALID, "\"%.60s\" is given twice", item);
    return 0;
}

static int list_add(struct conf_value *v, const struct conf_row *row, const char *item,
                    struct err *e)
{
    uint64_t n;
    int rc = row->type == CONF_CHOICES ? choice(&n, row, item, e) : number(&n, row, item, e);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < v->n_list; i++)
        if (v->list[i] == n)
            return err_set(e, E_INVALID, "\"%.60s\" is given twice", item);
    v->list = mem_grow(v->list, (v->n_list + 1) * sizeof *v->list);
    v->list[v->n_list++] = n;
    return 0;
}

static void list_text(struct conf_value *v, const struct conf_input *items)
{
    size_t bytes = 1;
    char *at;

    for (unsigned i = 0; i < items->n; i++)
        bytes += strlen(items->items[i]) + 2;
    at = v->text = mem_new(bytes);
    for (unsigned i = 0; i < items->n; i++)
        at += sprintf(at, "%s%s", i ? ", " : "", items->items[i]);
}

/* "a, b" as items; *mem is what they point into. */
static struct conf_input split_commas(const char *text, char **mem)
{
    struct conf_input in = { .is_list = true };
    char *p = *mem = mem_str(text);

    p += strspn(p, " ");
    while (*p) {
        char *end = p + strcspn(p, ",");
        char *next = *end ? end + 1 + strspn(end + 1, " ") : end;

        while (end > p && end[-1] == ' ')
            end--;
        *end = 0;
        in.items = mem_grow(in.items, (in.n + 1) * sizeof *in.items);
        in.items[in.n++] = p;
        p = next;
    }
    return in;
}

static int list(struct conf_value *v, const struct conf_row *row, const struct conf_input *in,
                struct err *e)
{
    char *mem = NULL;
    struct conf_input items = in->is_list ? *in : split_commas(in->items[0], &mem);
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < items.n; i++)
        rc = row->type == CONF_PATHS ? path_add(v, row, items.items[i], e)
                                     : list_add(v, row, items.items[i], e);
    if (rc == 0 && row->type == CONF_CHOICES && v->n_list == 0)
        rc = err_set(e, E_INVALID, "is empty; at least one of %s is needed", row->choices);
    if (rc == 0)
        list_text(v, &items);
    if (mem) {
        free(mem);
        free(items.items);
    }
    return rc;
}

static int scalar(struct conf_value *v, const struct conf_row *row, const char *text, struct err *e)
{
    char canonical[32];
    int rc;

    if (row->type == CONF_BYTES_AUTO && strcmp(text, "auto") == 0) {
        v->text = mem_str(text);
        return 0;
    }
    switch (row->type) {
    case CONF_STRING:
        return string(v, row, text, e);
    case CONF_ADDRESS:
    case CONF_ADDRESS0:
        return address(v, row, text, e);
    case CONF_BOOL:
        v->num = strcmp(text, "true") == 0;
        if (!v->num && strcmp(text, "false") != 0)
            return err_set(e, E_INVALID, "\"%.60s\" is not true or false", text);
        v->text = mem_str(text);
        return 0;
    case CONF_CHOICE:
        v->text = mem_str(text);
        return choice(&v->num, row, text, e);
    default:
        rc = number(&v->num, row, text, e);
        if (rc < 0)
            return rc;
        conf_value_format(canonical, row->type, v->num);
        v->text = mem_str(canonical);
        return 0;
    }
}

int conf_value_parse(struct conf_value *v, const struct conf_row *row, const struct conf_input *in,
                     struct err *e)
{
    int rc;

    *v = (struct conf_value){ 0 };
    if (row->type == CONF_CHOICES || row->type == CONF_U64S || row->type == CONF_PATHS)
        rc = list(v, row, in, e);
    else if (in->is_list)
        rc = err_set(e, E_INVALID, "takes one value, not a list");
    else
        rc = scalar(v, row, in->items[0], e);
    if (rc < 0)
        conf_value_fini(v);
    return rc;
}

void conf_value_fini(struct conf_value *v)
{
    free(v->text);
    free(v->host);
    free(v->list);
    for (unsigned i = 0; v->paths && i < v->n_list; i++)
        free(v->paths[i]);
    free(v->paths);
    *v = (struct conf_value){ 0 };
}
