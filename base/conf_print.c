#include "base/conf_int.h"

#include <inttypes.h>
#include <string.h>

/* Whether text can stand unquoted in YAML without changing its meaning here. */
static bool plain(const char *text)
{
    if (!*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0)
        return false;
    if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./", *text))
        return false;
    for (const char *p = text; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./:_-", *p))
            return false;
    return text[strlen(text) - 1] != ':';
}

static void print_quoted(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void print_paths(FILE *out, const struct conf *c, enum conf_key key)
{
    fputc('[', out);
    for (unsigned i = 0; conf_path(c, key, i); i++) {
        if (i)
            fputs(", ", out);
        print_quoted(out, conf_path(c, key, i));
    }
    fputc(']', out);
}

static void print_value(FILE *out, const struct conf *c, enum conf_key key)
{
    const char *text = conf_str(c, key);

    if (conf_rows[key].type == CONF_PATHS)
        print_paths(out, c, key);
    else if (conf_rows[key].type == CONF_CHOICES || conf_rows[key].type == CONF_U64S)
        fprintf(out, "[%s]", text);
    else if (plain(text))
        fputs(text, out);
    else
        print_quoted(out, text);
}

/* The part of a key after its section, and in *n the length of the section (0: none). */
static const char *last_part(const char *name, size_t *n)
{
    *n = strcspn(name, ".");
    if (name[*n])
        return name + *n + 1;
    *n = 0;
    return name;
}

/* Whether row k opens a section. */
static bool opens_section(int k, size_t n)
{
    size_t before;

    if (k == 0)
        return true;
    last_part(conf_rows[k - 1].name, &before);
    return n != before || strncmp(conf_rows[k - 1].name, conf_rows[k].name, n) != 0;
}

void conf_print(const struct conf *c, FILE *out)
{
    for (int k = 0; k < CONF_N_KEYS; k++) {
        size_t n;
        const char *last = last_part(conf_rows[k].name, &n);

        if (n && opens_section(k, n))
            fprintf(out, "%.*s:\n", (int)n, conf_rows[k].name);
        fprintf(out, "%s%s: ", n ? "  " : "", last);
        print_value(out, c, (enum conf_key)k);
        fprintf(out, " # %s\n", conf_where(c, (enum conf_key)k));
    }
}

/* --- docs --- */

static void print_limits(FILE *out, const struct conf_row *row)
{
    char low[32], high[32];

    if (row->choices) {
        for (const char *p = row->choices; *p; p++)
            *p == '|' ? fputs(", ", out) : fputc(*p, out);
        return;
    }
    if (row->type == CONF_BOOL) {
        fputs("true, false", out);
        return;
    }
    conf_value_format(low, row->type, row->min);
    conf_value_format(high, row->type, row->max);
    if (row->type == CONF_ADDRESS || row->type == CONF_ADDRESS0)
        fprintf(out, "port %s to %s", low, high);
    else if (row->type == CONF_STRING || row->type == CONF_PATHS)
        fprintf(out, "%s to %s characters", low, high);
    else if (row->type == CONF_BYTES_AUTO)
        fprintf(out, "auto, %s to %s", low, high);
    else if (row->max == UINT64_MAX)
        fprintf(out, "%s or more", low);
    else
        fprintf(out, "%s to %s", low, high);
}

static void print_doc_row(FILE *out, const struct conf_row *row)
{
    static const char *const types[] = { [CONF_STRING] = "text",
                                         [CONF_BOOL] = "bool",
                                         [CONF_U64] = "number",
                                         [CONF_BYTES] = "size",
                                         [CONF_BYTES_AUTO] = "size or auto",
                                         [CONF_POWER2] = "size, power of two",
                                         [CONF_MS] = "time",
                                         [CONF_ADDRESS] = "address",
                                         [CONF_ADDRESS0] = "address or empty",
                                         [CONF_CHOICE] = "choice",
                                         [CONF_CHOICES] = "list of choices",
                                         [CONF_U64S] = "list of numbers",
                                         [CONF_PATHS] = "list of folders" };

    fprintf(out, "| `%s` | %s | %s%s%s | ", row->name, types[row->type], *row->def ? "`" : "",
            *row->def ? row->def : "empty", *row->def ? "`" : "");
    print_limits(out, row);
    fprintf(out, " | %s | %s |\n", row->change == CONF_RELOAD ? "reload" : "restart", row->help);
}

static const char docs_head[] =
    "# Configuration\n"
    "\n"
    "This page is printed by `weir-server --print-config-docs` from the same rows that the server "
    "reads.\n"
    "\n"
    "No key has to be set. A value comes from, the later winning:\n"
    "\n"
    "1. the default below;\n"
    "2. the YAML file given with `--config FILE`: `kafka: {listen: \"0.0.0.0:9092\"}`, or "
    "`kafka.listen:` "
    "in one word;\n"
    "3. the environment: the key in capitals, dots as underscores, after `WEIR_`: "
    "`WEIR_KAFKA_LISTEN`;\n"
    "4. the command line: `--set kafka.listen=0.0.0.0:9092`, and `--data DIR` for `--set "
    "data=DIR`.\n"
    "\n"
    "`weir-server --check-config` says whether all of it is right, `--print-config` shows every "
    "value\n"
    "and where it came from. A key that does not exist, a value of the wrong type or outside its\n"
    "limits, or a key given twice in a file is an error that names its place; the server does not "
    "start.\n"
    "\n"
    "A size is a number of bytes, or a number with KiB, MiB, GiB or TiB. A time is a number with "
    "ms, s,\n"
    "m or h. An address is host:port, an IPv6 host in brackets: `[::1]:9092` (in quotes in YAML). "
    "A list\n"
    "is `[a, b]` in YAML and `a,b` elsewhere. *reload*: taken over when the server gets SIGHUP;\n"
    "*restart*: at the next start.\n";

void conf_print_docs(FILE *out)
{
    fputs(docs_head, out);
    for (int k = 0; k < CONF_N_KEYS; k++) {
        size_t n;

        last_part(conf_rows[k].name, &n);
        if (opens_section(k, n)) {
            fprintf(out, "\n## %.*s\n\n", n ? (int)n : 7, n ? conf_rows[k].name : "general");
            fputs("| key | type | default | limits | change | meaning |\n"
                  "|---|---|---|---|---|---|\n",
                  out);
        }
        print_doc_row(out, &conf_rows[k]);
    }
}
