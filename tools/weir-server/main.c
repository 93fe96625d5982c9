/* weir-server: arguments, configuration, signals. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/conf.h"
#include "base/logger.h"
#include "base/metric.h"
#include "tools/weir-server/server.h"

enum { EXIT_USAGE = 2, EXIT_SECOND_SIGNAL = 130 };

enum option {
    OPT_CONFIG,
    OPT_DATA,
    OPT_SET,
    OPT_CHECK_CONFIG,
    OPT_PRINT_CONFIG,
    OPT_PRINT_CONFIG_DOCS,
    OPT_BANNER,
    OPT_VERSION,
    OPT_HELP,
    OPT_COUNT
};

static const struct option_row {
    const char *name;
    const char *arg; /* NULL: takes none */
    const char *help;
} options[OPT_COUNT] = {
    [OPT_CONFIG] = { "--config", "FILE", "read this YAML file" },
    [OPT_DATA] = { "--data", "DIR", "the data folder; the same as --set data=DIR" },
    [OPT_SET] = { "--set", "KEY=VALUE", "set one key of the configuration; may be repeated" },
    [OPT_CHECK_CONFIG] = { "--check-config", NULL, "say whether the configuration is right" },
    [OPT_PRINT_CONFIG] = { "--print-config", NULL, "print every value and where it came from" },
    [OPT_PRINT_CONFIG_DOCS] = { "--print-config-docs", NULL, "print what every key means" },
    [OPT_BANNER] = { "--banner", NULL, "say on stdout how to connect, even if it is no terminal" },
    [OPT_VERSION] = { "--version", NULL, "print the version" },
    [OPT_HELP] = { "--help", NULL, "print this" },
};

struct args {
    const char *value[OPT_COUNT]; /* NULL: not given; "" for those without an argument */
    const char **sets;
    unsigned n_sets;
};

/* --- arguments --- */

static void print_help(void)
{
    printf("usage: weir-server [OPTION]...\n\n"
           "Runs a Weir server in the foreground until SIGTERM or SIGINT.\n\n");
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option_row *o = &options[i];
        char left[64];

        snprintf(left, sizeof left, "%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        printf("  %-22s %s\n", left, o->help);
    }
    printf("\nAlso read: the environment, WEIR_KAFKA_LISTEN for kafka.listen, and so on.\n"
           "Exit status: 0 stopped as asked, 1 it could not start or go on, 2 wrong usage.\n");
}

static int usage(const char *what, const char *arg)
{
    fprintf(stderr, "weir-server: %s%s; see weir-server --help\n", arg, what);
    return EXIT_USAGE;
}

static int find_option(const char *arg, size_t bytes)
{
    for (int i = 0; i < OPT_COUNT; i++)
        if (strlen(options[i].name) == bytes && memcmp(options[i].name, arg, bytes) == 0)
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
    int o = find_option(arg, bytes);

    if (o < 0)
        return usage(": no such option", arg);
    if (!options[o].arg && value)
        return usage(": takes no value", arg);
    if (options[o].arg && !value) {
        value = argv[*at + 1];
        if (!value)
            return usage(" needs a value", arg);
        ++*at;
    }
    if (o == OPT_SET) {
        a->sets = mem_grow(a->sets, (a->n_sets + 1) * sizeof *a->sets);
        a->sets[a->n_sets++] = value;
    } else {
        a->value[o] = value ? value : "";
    }
    return 0;
}

/* --- configuration --- */

/* All sources; NULL and *e on failure. */
static struct conf *load_conf(const struct args *a, struct err *e)
{
    struct conf *c = conf_new();
    int rc = a->value[OPT_CONFIG] ? conf_load_file(c, a->value[OPT_CONFIG], e) : 0;

    if (rc == 0)
        rc = conf_load_env(c, environ, e);
    for (unsigned i = 0; rc == 0 && i < a->n_sets; i++)
        rc = conf_load_set(c, a->sets[i], e);
    if (rc == 0 && a->value[OPT_DATA])
        rc = conf_load_option(c, "--data", CONF_DATA, a->value[OPT_DATA], e);
    if (rc == 0)
        rc = server_check(c, e);
    if (rc == 0)
        return c;
    conf_free(c);
    return NULL;
}

static void apply_log(const struct conf *c)
{
    logger_setup((enum log_level)conf_num(c, CONF_LOG_LEVEL), conf_num(c, CONF_LOG_FORMAT) == 1);
}

/* SIGHUP: reads everything again and takes over what can be; the rest is named and waits for a
 * restart. */
static void reload(const struct args *a, const struct conf *running)
{
    struct err e = { 0 };
    struct conf *c = load_conf(a, &e);

    if (!c) {
        LOG_ERROR("config.not_reloaded", F_STR("why", e.text));
        return;
    }
    for (int k = 0; k < CONF_N_KEYS; k++)
        if (conf_rows[k].change == CONF_RESTART &&
            strcmp(conf_str(c, (enum conf_key)k), conf_str(running, (enum conf_key)k)) != 0)
            LOG_WARN("config.needs_restart", F_STR("key", conf_rows[k].name));
    apply_log(c);
    LOG_INFO("config.reloaded", F_STR("level", conf_str(c, CONF_LOG_LEVEL)));
    conf_free(c);
}

/* --- signals --- */

static sem_t news; /* a signal came */
static atomic_bool stop_asked;
static atomic_bool reload_asked;
static atomic_bool metrics_asked;

static void signal_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
}

/* A thread of its own, so that a second signal ends the process whatever the others are blocked
 * in. */
static void *wait_signals(void *arg)
{
    sigset_t set;
    int sig;

    pthread_setname_np(pthread_self(), "signals");
    signal_set(&set);
    for (;;) {
        if (sigwait(&set, &sig) != 0)
            continue;
        if (sig == SIGHUP)
            atomic_store(&reload_asked, true);
        else if (sig == SIGUSR1)
            atomic_store(&metrics_asked, true);
        else if (atomic_exchange(&stop_asked, true))
            _exit(EXIT_SECOND_SIGNAL);
        sem_post(&news);
    }
    return NULL;
}

/* Before any other thread: they inherit the mask. */
static int start_signals(struct err *e)
{
    pthread_t thread;
    sigset_t set;
    int rc;

    signal(SIGPIPE, SIG_IGN);
    sem_init(&news, 0, 0);
    signal_set(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    rc = pthread_create(&thread, NULL, wait_signals, NULL);
    if (rc != 0)
        return err_set(e, E_SYSTEM, "cannot start a thread: %s", strerror(rc));
    pthread_detach(thread);
    return 0;
}

/* SIGUSR1: every metric, in one line. */
static void tell_metrics(void)
{
    char *text = metrics_json();

    logger_write_json("metrics", "metrics", text);
    free(text);
}

static void wait_stop(const struct args *a, const struct conf *c)
{
    while (!atomic_load(&stop_asked)) {
        if (atomic_exchange(&reload_asked, false))
            reload(a, c);
        if (atomic_exchange(&metrics_asked, false))
            tell_metrics();
        while (sem_wait(&news) < 0)
            ASSERT(errno == EINTR);
    }
}

/* --- running --- */

static void print_banner(const struct server *s, const struct conf *c)
{
    const char *at = server_kafka_address(s);

    printf(
        "\nWeir serves Kafka clients on %s and keeps its data in %s.\nTry, in another terminal:\n\n"
        "  echo hello | kcat -b %s -t first -P\n"
        "  kcat -b %s -t first -C -e\n\n"
        "Ctrl-C stops it.\n\n",
        at, conf_str(c, CONF_DATA), at, at);
    fflush(stdout);
}

static int serve(const struct args *a, const struct conf *c, uint64_t began_us)
{
    struct err e = { 0 };
    struct server *s;

    apply_log(c);
    if (start_signals(&e) < 0 || server_start(&s, c, began_us, &e) < 0) {
        fprintf(stderr, "weir-server: %s\n", e.text);
        return EXIT_FAILURE;
    }
    if (a->value[OPT_BANNER] || isatty(STDOUT_FILENO))
        print_banner(s, c);
    wait_stop(a, c);
    LOG_INFO("server.stopping");
    server_stop(s);
    LOG_INFO("server.stopped");
    return EXIT_SUCCESS;
}

static int with_conf(const struct args *a, uint64_t began_us)
{
    struct err e = { 0 };
    struct conf *c = load_conf(a, &e);
    int status = EXIT_SUCCESS;

    if (!c) {
        fprintf(stderr, "weir-server: %s\n", e.text);
        return EXIT_FAILURE;
    }
    if (a->value[OPT_CHECK_CONFIG])
        printf("the configuration is right\n");
    else if (a->value[OPT_PRINT_CONFIG])
        conf_print(c, stdout);
    else
        status = serve(a, c, began_us);
    conf_free(c);
    return status;
}

int main(int argc, char **argv)
{
    uint64_t began_us = server_now_us();
    struct args a = { 0 };
    int status = 0;

    for (int i = 1; status == 0 && i < argc; i++)
        status = take_arg(&a, argv, &i);
    if (status == 0) {
        if (a.value[OPT_HELP])
            print_help();
        else if (a.value[OPT_VERSION])
            printf("weir-server " WEIR_VERSION "\n");
        else if (a.value[OPT_PRINT_CONFIG_DOCS])
            conf_print_docs(stdout);
        else
            status = with_conf(&a, began_us);
    }
    free(a.sets);
    return status;
}
