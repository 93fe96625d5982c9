#include "base/conf.h"

#include <ctype.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/check.h"

/* Loads one text as "f.yaml". */
static int load(struct conf *c, const char *text, struct err *e)
{
    *e = (struct err){ 0 };
    return conf_load_text(c, "f.yaml", text, strlen(text), e);
}

/* Whether got is the sentence; says both when not. */
static int same(const char *got, const char *expected)
{
    if (strcmp(got, expected) == 0)
        return 1;
    fprintf(stderr, "got:      %s\nexpected: %s\n", got, expected);
    return 0;
}

/* --- rows --- */

static void test_conf_rows_are_named_once_in_lower_case_and_sections_stand_together(void)
{
    for (int k = 0; k < CONF_N_KEYS; k++) {
        const char *name = conf_rows[k].name;
        size_t section = strcspn(name, ".");

        CHECK(strspn(name, "abcdefghijklmnopqrstuvwxyz_.") == strlen(name));
        CHECK(strlen(conf_rows[k].help) > 10);
        for (int other = 0; other < k; other++) {
            char a[100], b[100];

            /* Dots and underscores look alike in the environment. */
            snprintf(a, sizeof a, "%s", name);
            snprintf(b, sizeof b, "%s", conf_rows[other].name);
            for (char *p = a; *p; p++)
                *p = *p == '.' ? '_' : *p;
            for (char *p = b; *p; p++)
                *p = *p == '.' ? '_' : *p;
            CHECK(strcmp(a, b) != 0);
            /* A member of an earlier section, with another one between. */
            if (name[section] && other < k - 1 &&
                strncmp(conf_rows[other].name, name, section + 1) == 0)
                CHECK(strncmp(conf_rows[k - 1].name, name, section + 1) == 0);
        }
    }
}

static void test_conf_defaults_are_what_the_headers_promise(void)
{
    struct conf *c = conf_new();
    unsigned n;

    CHECK(same(conf_str(c, CONF_DATA), "./data"));
    CHECK(same(conf_host(c, CONF_KAFKA_LISTEN), "127.0.0.1"));
    CHECK_EQ(conf_port(c, CONF_KAFKA_LISTEN), 9092);
    CHECK(conf_host(c, CONF_KAFKA_ADVERTISED) == NULL);
    CHECK_EQ(conf_port(c, CONF_KAFKA_ADVERTISED), 0);
    CHECK(conf_has(c, CONF_ROLES, "meta"));
    CHECK(conf_has(c, CONF_ROLES, "broker"));
    CHECK(conf_has(c, CONF_ROLES, "engine"));
    CHECK(!conf_has(c, CONF_ROLES, "met"));
    CHECK_EQ(conf_num(c, CONF_LOG_LEVEL), 2);
    CHECK_EQ(conf_num(c, CONF_KAFKA_AUTO_CREATE), 1);
    CHECK_EQ(conf_num(c, CONF_KAFKA_IDLE_CLOSE), 600000);
    CHECK_EQ(conf_num(c, CONF_KAFKA_REQUEST_MAX), 104857600);
    CHECK_EQ(conf_num(c, CONF_KAFKA_BATCH_MAX), 1048588);
    CHECK_EQ(conf_num(c, CONF_KAFKA_FETCH_MAX), 57671680);
    CHECK_EQ(conf_num(c, CONF_KAFKA_OFFSETS_RETENTION), 604800000);
    CHECK_EQ(conf_num(c, CONF_JOURNAL_WAL_BUDGET), 1073741824);
    CHECK_EQ(conf_num(c, CONF_JOURNAL_WAL_EXTENT), 2097152);
    CHECK_EQ(conf_num(c, CONF_JOURNAL_SPACE_MAX), 0);
    CHECK_EQ(conf_num(c, CONF_ROWS_CACHE), 33554432);
    conf_list(c, CONF_JOURNAL_ACCEPT_LOSS, &n);
    CHECK_EQ(n, 0);
    for (int k = 0; k < CONF_N_KEYS; k++)
        CHECK(same(conf_where(c, (enum conf_key)k), "default"));
    conf_free(c);
}

/* --- files --- */

static const struct bad {
    const char *text;
    const char *error;
} bad_files[] = {
    /* names */
    { "data: x\nkafka:\n  lisen: a:1\n",
      "f.yaml:3: kafka.lisen: no such key (did you mean kafka.listen?)" },
    { "kafak:\n  listen: a:1\n", "f.yaml:1: kafak: no such key (did you mean kafka?)" },
    { "\n# two\nloop: 3\n", "f.yaml:3: loop: no such key (did you mean loops?)" },
    { "quite_something_else: 3\n", "f.yaml:1: quite_something_else: no such key" },
    { "kafka.listens: a:1\n", "f.yaml:1: kafka.listens: no such key (did you mean "
                              "kafka.listen?)" },
    /* twice */
    { "loops: 1\ndata: x\nloops: 2\n", "f.yaml:3: loops: given twice (first on line 1)" },
    { "kafka: {listen: \"a:1\"}\nkafka.listen: b:2\n",
      "f.yaml:2: kafka.listen: given twice (first on line 1)" },
    { "kafka:\n  listen: a:1\nkafka:\n  auto_create: true\n",
      "f.yaml:3: kafka: given twice (first on line 1)" },
    /* shapes */
    { "kafka: 3\n", "f.yaml:1: kafka: is a section and takes a mapping of keys" },
    { "kafka:\n- listen\n", "f.yaml:1: kafka: is a section and takes a mapping of keys" },
    { "loops:\n  a: 1\n", "f.yaml:2: loops: takes a value, not a mapping of keys" },
    { "\nloops: [1]\n", "f.yaml:2: loops: takes one value, not a list" },
    { "roles: [[meta]]\n", "f.yaml:1: roles: a list holds plain values" },
    { "- a\n", "f.yaml:1: not a mapping of keys" },
    { "just text\n", "f.yaml:1: not a mapping of keys" },
    { "[a, b]: 1\n", "f.yaml:1: a key is a plain word" },
    { "loops: 1\n---\nloops: 2\n", "f.yaml:2: a second document" },
    { "data: &a x\nlog: {level: *a}\n", "f.yaml:2: aliases (*a) are not supported" },
    /* nothing there */
    { "data:\nloops: 1\n", "f.yaml:1: data: has no value" },
    { "loops: ~\n", "f.yaml:1: loops: has no value" },
    { "data: null\n", "f.yaml:1: data: has no value" },
    { "data: \"\"\n", "f.yaml:1: data: \"\" is shorter than 1 character" },
    /* types */
    { "loops: many\n", "f.yaml:1: loops: \"many\" is not a whole number" },
    { "loops: -1\n", "f.yaml:1: loops: \"-1\" is not a whole number" },
    { "loops: +1\n", "f.yaml:1: loops: \"+1\" is not a whole number" },
    { "loops: 1.5\n", "f.yaml:1: loops: \"1.5\" is not a whole number" },
    { "loops: 0x10\n", "f.yaml:1: loops: \"0x10\" is not a whole number" },
    { "loops: 4KiB\n", "f.yaml:1: loops: \"4KiB\" is not a whole number" },
    { "kafka:\n  auto_create: yes\n", "f.yaml:2: kafka.auto_create: \"yes\" is not true or false" },
    { "kafka: {fetch_max: 4KB}\n", "f.yaml:1: kafka.fetch_max: \"4KB\" is not a size (a number, or "
                                   "with KiB, MiB, GiB, TiB)" },
    { "kafka: {idle_close: 600}\n",
      "f.yaml:1: kafka.idle_close: \"600\" is not a time (a number with ms, s, m or h)" },
    { "log:\n  level: loud\n",
      "f.yaml:2: log.level: \"loud\" is not one of error|warn|info|debug" },
    { "log:\n  level: inf\n", "f.yaml:2: log.level: \"inf\" is not one of error|warn|info|debug" },
    { "roles: [meta, brok]\n", "f.yaml:1: roles: \"brok\" is not one of meta|broker|engine" },
    { "roles: [meta, meta]\n", "f.yaml:1: roles: \"meta\" is given twice" },
    { "roles: []\n", "f.yaml:1: roles: is empty; at least one of meta|broker|engine is needed" },
    { "journal:\n  accept_loss: [1, x]\n",
      "f.yaml:2: journal.accept_loss: \"x\" is not a whole number" },
    { "kafka: {listen: localhost}\n",
      "f.yaml:1: kafka.listen: \"localhost\" is not an address (host:port)" },
    { "kafka: {listen: \":9092\"}\n",
      "f.yaml:1: kafka.listen: \":9092\" is not an address (host:port)" },
    { "kafka: {listen: \"::1:9092\"}\n",
      "f.yaml:1: kafka.listen: \"::1:9092\" is not an address (host:port)" },
    { "kafka: {listen: \"[::1]9092\"}\n",
      "f.yaml:1: kafka.listen: \"[::1]9092\" is not an address (host:port)" },
    { "kafka: {listen: \"a:\"}\n", "f.yaml:1: kafka.listen: \"a:\" is not an address (host:port)" },
    { "kafka: {listen: \"\"}\n", "f.yaml:1: kafka.listen: \"\" is not an address (host:port)" },
    { "kafka: {listen: \"a b:1\"}\n",
      "f.yaml:1: kafka.listen: \"a b:1\" is not an address (host:port)" },
    { "data: \"a\\tb\"\n", "f.yaml:1: data: has a control character" },
    { "data: \"a\\0b\"\n", "f.yaml:1: data: has a zero byte" },
    /* limits */
    { "loops: 257\n", "f.yaml:1: loops: 257 is above the limit of 256" },
    { "loops: 18446744073709551616\n",
      "f.yaml:1: loops: 18446744073709551616 is above the limit of 256" },
    { "node: {id: 0}\n", "f.yaml:1: node.id: 0 is below the limit of 1" },
    { "journal: {wal_extent: 32KiB}\n",
      "f.yaml:1: journal.wal_extent: 32KiB is below the limit of 64KiB" },
    { "journal: {wal_extent: 3MiB}\n", "f.yaml:1: journal.wal_extent: 3MiB is not a power of two" },
    { "journal: {wal_extent: 2GiB}\n",
      "f.yaml:1: journal.wal_extent: 2GiB is above the limit of 1GiB" },
    { "journal: {space_max: 16777216TiB}\n",
      "f.yaml:1: journal.space_max: 16777216TiB is above the limit of 18446744073709551615" },
    { "kafka: {idle_close: 0ms}\n", "f.yaml:1: kafka.idle_close: 0ms is below the limit of 1ms" },
    { "kafka: {idle_close: 721h}\n",
      "f.yaml:1: kafka.idle_close: 721h is above the limit of 720h" },
    { "kafka: {listen: \"a:65536\"}\n",
      "f.yaml:1: kafka.listen: port 65536 is above the limit of 65535" },
    { "kafka: {advertised: \"a:0\"}\n",
      "f.yaml:1: kafka.advertised: port 0 is below the limit of 1" },
};

static void test_conf_file_errors_name_file_line_and_key(void)
{
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
        struct conf *c = conf_new();
        struct err e;

        CHECK(load(c, bad_files[i].text, &e) == E_INVALID);
        CHECK(same(e.text, bad_files[i].error));
        conf_free(c);
    }
}

static void test_conf_broken_yaml_names_its_line(void)
{
    static const char *const texts[] = { "data: x\nloops: [1\n", "data: x\n\tloops: 1\n",
                                         "data: x\nloops: \"1\n", "data: x\nloops: @1\n" };
    struct err e;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct conf *c = conf_new();
        unsigned line = 0;

        CHECK(load(c, texts[i], &e) == E_INVALID);
        CHECK(sscanf(e.text, "f.yaml:%u: not valid YAML: ", &line) == 1);
        CHECK(line == 2 || line == 3); /* of the place where the parser gave up */
        CHECK(strstr(e.text, ": not valid YAML: ") != NULL);
        conf_free(c);
    }
}

static void test_conf_bytes_that_are_no_text_are_refused(void)
{
    struct conf *c = conf_new();
    struct err e;

    CHECK(load(c, "data: \xff\xfe\n", &e) == E_INVALID);
    CHECK(strncmp(e.text, "f.yaml: byte 6: not valid YAML: ", 32) == 0);
    conf_free(c);
}

static void test_conf_truncated_files_never_crash(void)
{
    const char *whole = "# c\nroles: [meta, broker, engine]\nkafka:\n  listen: \"[::1]:1\"\n"
                        "  auto_create: false\nlog: {level: debug, format: json}\n";
    unsigned n_good = 0;

    for (size_t n = 0; n <= strlen(whole); n++) {
        struct conf *c = conf_new();
        struct err e = { 0 };
        int rc = conf_load_text(c, "f.yaml", whole, n, &e);

        CHECK(rc == 0 || (rc == E_INVALID && strncmp(e.text, "f.yaml:", 7) == 0));
        n_good += rc == 0;
        conf_free(c);
    }
    CHECK(n_good > 3 && n_good < strlen(whole));
}

static void test_conf_nested_and_dotted_keys_and_comments_are_read(void)
{
    struct conf *c = conf_new();
    struct err e;
    const uint64_t *list;
    unsigned n;

    CHECK_EQ(load(c,
                  "# a comment\nkafka:\n  listen: 0.0.0.0:19092   # inline\n  auto_create: false\n"
                  "log.level: debug\nlog: {format: json}\njournal:\n  accept_loss:\n"
                  "    - 7\n    - 18446744073709551615\nroles:\n- engine\n- meta\ndata: /a b/c\n",
                  &e),
             0);
    CHECK(same(conf_host(c, CONF_KAFKA_LISTEN), "0.0.0.0"));
    CHECK_EQ(conf_port(c, CONF_KAFKA_LISTEN), 19092);
    CHECK_EQ(conf_num(c, CONF_KAFKA_AUTO_CREATE), 0);
    CHECK_EQ(conf_num(c, CONF_LOG_LEVEL), 3);
    CHECK_EQ(conf_num(c, CONF_LOG_FORMAT), 1);
    list = conf_list(c, CONF_JOURNAL_ACCEPT_LOSS, &n);
    REQUIRE(n == 2);
    CHECK(list[0] == 7 && list[1] == UINT64_MAX);
    CHECK(conf_has(c, CONF_ROLES, "engine") && !conf_has(c, CONF_ROLES, "broker"));
    CHECK(same(conf_str(c, CONF_DATA), "/a b/c"));
    CHECK(same(conf_where(c, CONF_KAFKA_LISTEN), "f.yaml:3"));
    CHECK(same(conf_where(c, CONF_DATA), "f.yaml:14"));
    conf_free(c);
}

static void test_conf_empty_files_change_nothing(void)
{
    static const char *const texts[] = { "",         "\n\n", "# only a comment\n", "---\n",
                                         "--- {}\n", "{}\n", "kafka: {}\n" };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct conf *c = conf_new();
        struct err e;

        CHECK_EQ(load(c, texts[i], &e), 0);
        CHECK(same(conf_where(c, CONF_KAFKA_LISTEN), "default"));
        conf_free(c);
    }
}

static void test_conf_a_missing_file_is_named(void)
{
    struct conf *c = conf_new();
    struct err e = { 0 };

    CHECK(conf_load_file(c, "/nonexistent/weir.yaml", &e) == E_SYSTEM);
    CHECK(same(e.text, "/nonexistent/weir.yaml: cannot be opened: No such file or directory"));
    CHECK(conf_load_file(c, "/", &e) == E_SYSTEM); /* a folder */
    conf_free(c);
}

static void test_conf_files_are_read_from_disk_up_to_one_mib(void)
{
    char path[] = "/tmp/weir-conf-XXXXXX";
    int fd = mkstemp(path);
    FILE *f = fdopen(fd, "w");
    struct conf *c = conf_new();
    struct err e = { 0 };

    REQUIRE(f != NULL);
    fprintf(f, "loops: 3\n");
    fflush(f);
    CHECK_EQ(conf_load_file(c, path, &e), 0);
    CHECK_EQ(conf_num(c, CONF_LOOPS), 3);
    for (int i = 0; i < 1 << 18; i++)
        fprintf(f, "# %d\n", i % 10);
    fclose(f);
    CHECK(conf_load_file(c, path, &e) == E_INVALID);
    CHECK(strstr(e.text, ": larger than 1 MiB") != NULL);
    unlink(path);
    conf_free(c);
}

/* --- other sources --- */

static void test_conf_every_key_can_be_set_from_every_source(void)
{
    for (int k = 0; k < CONF_N_KEYS; k++) {
        const struct conf_row *row = &conf_rows[k];
        struct conf *c = conf_new();
        struct err e;
        char text[400], var[400], *p;
        char *env[] = { var, NULL };

        snprintf(text, sizeof text, "%s: \"%s\"\n", row->name, row->def);
        CHECK_EQ(load(c, text, &e), 0);
        CHECK(same(conf_where(c, (enum conf_key)k), "f.yaml:1"));
        snprintf(var, sizeof var, "WEIR_%s=%s", row->name, row->def);
        for (p = var; *p != '='; p++)
            *p = *p == '.' ? '_' : (char)toupper((unsigned char)*p);
        CHECK_EQ(conf_load_env(c, env, &e), 0);
        CHECK(strncmp(conf_where(c, (enum conf_key)k), "WEIR_", 5) == 0);
        snprintf(text, sizeof text, "%s=%s", row->name, row->def);
        CHECK_EQ(conf_load_set(c, text, &e), 0);
        CHECK(same(conf_where(c, (enum conf_key)k), "--set"));
        conf_free(c);
    }
}

static void test_conf_later_sources_win_whatever_the_order_of_loading(void)
{
    char var[] = "WEIR_LOOPS=3", other[] = "HOME=/", path[] = "WEIR_NODE_ID=4";
    char *env[] = { other, var, path, NULL };
    struct err e;

    for (int order = 0; order < 2; order++) {
        struct conf *c = conf_new();

        if (order == 0)
            CHECK_EQ(conf_load_set(c, "loops=5", &e), 0);
        CHECK_EQ(conf_load_env(c, env, &e), 0);
        CHECK_EQ(load(c, "loops: 2\nnode: {id: 9}\nlog: {level: warn}\n", &e), 0);
        if (order == 1)
            CHECK_EQ(conf_load_set(c, "loops=5", &e), 0);
        CHECK_EQ(conf_num(c, CONF_LOOPS), 5);
        CHECK_EQ(conf_num(c, CONF_NODE_ID), 4);
        CHECK_EQ(conf_num(c, CONF_LOG_LEVEL), 1);
        CHECK(same(conf_where(c, CONF_LOOPS), "--set"));
        CHECK(same(conf_where(c, CONF_NODE_ID), "WEIR_NODE_ID"));
        CHECK(same(conf_where(c, CONF_LOG_LEVEL), "f.yaml:3"));
        /* Hidden values are checked all the same. */
        CHECK(load(c, "loops: x\n", &e) == E_INVALID);
        CHECK_EQ(conf_load_set(c, "loops=6", &e), 0);
        CHECK_EQ(conf_num(c, CONF_LOOPS), 6);
        CHECK_EQ(conf_load_option(c, "--data", CONF_DATA, "/d", &e), 0);
        CHECK(same(conf_where(c, CONF_DATA), "--data"));
        conf_free(c);
    }
}

static void test_conf_environment_and_command_errors_name_their_place(void)
{
    static const struct bad env[] = {
        { "WEIR_KAFKA_LISEN=a:1",
          "WEIR_KAFKA_LISEN: no such key (did you mean WEIR_KAFKA_LISTEN, for kafka.listen?)" },
        { "WEIR_LOOPS=x", "WEIR_LOOPS: loops: \"x\" is not a whole number" },
        { "WEIR_LOOPS=", "WEIR_LOOPS: loops: \"\" is not a whole number" },
        { "WEIR_loops=1", "WEIR_loops: no such key (did you mean WEIR_LOOPS, for loops?)" },
    };
    static const struct bad set[] = {
        { "kafka.lisen=1", "--set: kafka.lisen: no such key (did you mean kafka.listen?)" },
        { "kafka.listen", "--set kafka.listen: not KEY=VALUE" },
        { "=1", "--set: : no such key" },
        { "loops=300", "--set: loops: 300 is above the limit of 256" },
        { "roles=meta,,broker", "--set: roles: \"\" is not one of meta|broker|engine" },
    };
    struct err e;

    for (size_t i = 0; i < sizeof env / sizeof env[0]; i++) {
        struct conf *c = conf_new();
        char var[100];
        char *vars[] = { var, NULL };

        snprintf(var, sizeof var, "%s", env[i].text);
        CHECK(conf_load_env(c, vars, &e) == E_INVALID);
        CHECK(same(e.text, env[i].error));
        conf_free(c);
    }
    for (size_t i = 0; i < sizeof set / sizeof set[0]; i++) {
        struct conf *c = conf_new();

        CHECK(conf_load_set(c, set[i].text, &e) == E_INVALID);
        CHECK(same(e.text, set[i].error));
        conf_free(c);
    }
}

static void test_conf_keys_that_contradict_one_another_are_refused_with_their_place(void)
{
    static const struct bad bad[] = {
        { "journal.space_urgent: 91\n",
          "f.yaml:1: journal.space_urgent: is above journal.space_throttle" },
        { "journal.space_throttle: 96\n",
          "f.yaml:1: journal.space_throttle: is above journal.space_refuse" },
        { "kafka.session_min: 1h\n", "f.yaml:1: kafka.session_min: is above kafka.session_max" },
        { "kafka.request_max: 1KiB\n", "default: kafka.batch_max: is above kafka.request_max" },
        { "kafka.partitions_max: 3\nkafka.default_partitions: 4\n",
          "f.yaml:2: kafka.default_partitions: is above kafka.partitions_max" },
        { "roles: [broker]\n",
          "f.yaml:1: roles: this version needs meta, broker and engine together in one process" },
    };
    struct conf *c = conf_new();
    struct err e = { 0 };

    CHECK_EQ(conf_check(c, &e), 0);
    CHECK_EQ(load(c, "journal: {space_urgent: 90, space_refuse: 90}\n", &e), 0);
    CHECK_EQ(conf_check(c, &e), 0);
    conf_free(c);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        c = conf_new();
        CHECK_EQ(load(c, bad[i].text, &e), 0);
        CHECK_EQ(conf_check(c, &e), E_INVALID);
        CHECK(same(e.text, bad[i].error));
        conf_free(c);
    }
}

/* Long names and values are cut in the sentence, not in memory. */
static void test_conf_very_long_input_is_refused_with_a_sentence(void)
{
    static char text[8000];
    struct conf *c = conf_new();
    struct err e;

    memset(text, 'a', 6000);
    CHECK(conf_load_set(c, text, &e) == E_INVALID);
    strcpy(text + 5000, "=1");
    CHECK(conf_load_set(c, text, &e) == E_INVALID);
    strcpy(text + 5000, ": 1\n");
    CHECK(load(c, text, &e) == E_INVALID);
    memcpy(text, "data: ", 6);
    text[5000] = 0;
    CHECK(load(c, text, &e) == E_INVALID);
    CHECK(strstr(e.text, "is longer than 3000 characters") != NULL);
    memcpy(text, "WEIR_", 5);
    text[4000] = '=';
    char *env[] = { text, NULL };
    CHECK(conf_load_env(c, env, &e) == E_INVALID);
    conf_free(c);
}

/* --- values --- */

static void test_conf_numbers_take_the_units_of_their_type(void)
{
    static const struct {
        const char *set;
        enum conf_key key;
        uint64_t expected;
        const char *text;
    } good[] = {
        { "kafka.fetch_max=1024", CONF_KAFKA_FETCH_MAX, 1024, "1KiB" },
        { "kafka.fetch_max=3 KiB", CONF_KAFKA_FETCH_MAX, 3072, "3KiB" },
        { "kafka.fetch_max=1025", CONF_KAFKA_FETCH_MAX, 1025, "1025" },
        { "kafka.fetch_max=1GiB", CONF_KAFKA_FETCH_MAX, 1073741824, "1GiB" },
        { "journal.wal_budget=2048GiB", CONF_JOURNAL_WAL_BUDGET, 2199023255552, "2TiB" },
        { "journal.space_max=18446744073709551615", CONF_JOURNAL_SPACE_MAX, UINT64_MAX,
          "18446744073709551615" },
        { "journal.wal_extent=64KiB", CONF_JOURNAL_WAL_EXTENT, 65536, "64KiB" },
        { "journal.wal_extent=65536", CONF_JOURNAL_WAL_EXTENT, 65536, "64KiB" },
        { "journal.direct_from=auto", CONF_JOURNAL_DIRECT_FROM, 0, "auto" },
        { "journal.direct_from=65536", CONF_JOURNAL_DIRECT_FROM, 65536, "64KiB" },
        { "kafka.idle_close=90s", CONF_KAFKA_IDLE_CLOSE, 90000, "90s" },
        { "kafka.idle_close=2h", CONF_KAFKA_IDLE_CLOSE, 7200000, "2h" },
        { "kafka.idle_close=60 m", CONF_KAFKA_IDLE_CLOSE, 3600000, "1h" },
        { "kafka.idle_close=1500ms", CONF_KAFKA_IDLE_CLOSE, 1500, "1500ms" },
        { "kafka.rebalance_delay=0s", CONF_KAFKA_REBALANCE_DELAY, 0, "0ms" },
        { "loops=007", CONF_LOOPS, 7, "7" },
        { "kafka.auto_create=false", CONF_KAFKA_AUTO_CREATE, 0, "false" },
        { "log.level=error", CONF_LOG_LEVEL, 0, "error" },
    };

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct conf *c = conf_new();
        struct err e = { 0 };

        CHECK_EQ(conf_load_set(c, good[i].set, &e), 0);
        CHECK(conf_num(c, good[i].key) == good[i].expected);
        CHECK(same(conf_str(c, good[i].key), good[i].text));
        conf_free(c);
    }
}

/* Each number's own limits are taken, and what is one beyond is not. */
static void test_conf_limits_are_inclusive_for_every_number(void)
{
    for (int k = 0; k < CONF_N_KEYS; k++) {
        const struct conf_row *row = &conf_rows[k];
        const char *unit = row->type == CONF_MS ? "ms" : "";
        struct conf *c;
        struct err e;
        char text[200];

        if (row->type != CONF_U64 && row->type != CONF_BYTES && row->type != CONF_BYTES_AUTO &&
            row->type != CONF_POWER2 && row->type != CONF_MS)
            continue;
        c = conf_new();
        snprintf(text, sizeof text, "%s=%" PRIu64 "%s", row->name, row->min, unit);
        CHECK_EQ(conf_load_set(c, text, &e), 0);
        CHECK(conf_num(c, (enum conf_key)k) == row->min);
        snprintf(text, sizeof text, "%s=%" PRIu64 "%s", row->name, row->max, unit);
        CHECK_EQ(conf_load_set(c, text, &e), 0);
        CHECK(conf_num(c, (enum conf_key)k) == row->max);
        if (row->min > 0) {
            snprintf(text, sizeof text, "%s=%" PRIu64 "%s", row->name, row->min - 1, unit);
            CHECK(conf_load_set(c, text, &e) == E_INVALID);
        }
        if (row->max < UINT64_MAX) {
            snprintf(text, sizeof text, "%s=%" PRIu64 "%s", row->name, row->max + 1, unit);
            CHECK(conf_load_set(c, text, &e) == E_INVALID);
        }
        conf_free(c);
    }
}

static void test_conf_addresses_split_into_host_and_port(void)
{
    struct conf *c = conf_new();
    struct err e;

    CHECK_EQ(conf_load_set(c, "kafka.listen=[::1]:0", &e), 0);
    CHECK(same(conf_host(c, CONF_KAFKA_LISTEN), "::1"));
    CHECK_EQ(conf_port(c, CONF_KAFKA_LISTEN), 0);
    CHECK_EQ(conf_load_set(c, "kafka.listen=[fe80::1%eth0]:1", &e), 0);
    CHECK(same(conf_host(c, CONF_KAFKA_LISTEN), "fe80::1%eth0"));
    CHECK_EQ(conf_load_set(c, "kafka.advertised=broker-1.example.org:65535", &e), 0);
    CHECK(same(conf_host(c, CONF_KAFKA_ADVERTISED), "broker-1.example.org"));
    CHECK_EQ(conf_port(c, CONF_KAFKA_ADVERTISED), 65535);
    CHECK_EQ(conf_load_set(c, "kafka.advertised=", &e), 0);
    CHECK(conf_host(c, CONF_KAFKA_ADVERTISED) == NULL);
    conf_free(c);
}

/* --- printing --- */

/* What is printed; free() it. */
static char *printed(const struct conf *c, size_t *bytes)
{
    FILE *f = tmpfile();
    char *text = calloc(1, 1 << 20);

    REQUIRE(f != NULL && text != NULL);
    if (c)
        conf_print(c, f);
    else
        conf_print_docs(f);
    rewind(f);
    *bytes = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static void test_conf_printed_values_load_again_as_the_same(void)
{
    static const char *const sets[] = { "data=/tmp/a \"b\" \\c: #d", "kafka.listen=[::1]:9092",
                                        "kafka.advertised=h:1",      "kafka.cluster_id=null",
                                        "roles=engine,meta",         "journal.accept_loss=1,2, 3",
                                        "kafka.idle_close=61s",      "kafka.auto_create=false" };
    struct conf *a = conf_new(), *b = conf_new();
    struct err e = { 0 };
    size_t bytes;
    char *text;

    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        CHECK_EQ(conf_load_set(a, sets[i], &e), 0);
    text = printed(a, &bytes);
    CHECK_EQ(conf_load_text(b, "printed", text, bytes, &e), 0);
    CHECK(same(e.text, ""));
    for (int k = 0; k < CONF_N_KEYS; k++) {
        CHECK(same(conf_str(b, (enum conf_key)k), conf_str(a, (enum conf_key)k)));
        CHECK(strncmp(conf_where(b, (enum conf_key)k), "printed:", 8) == 0);
    }
    CHECK(strstr(text, "  idle_close: 61s # --set\n") != NULL);
    CHECK(strstr(text, "\nloops: 0 # default\n") != NULL);
    free(text);
    conf_free(a);
    conf_free(b);
}

static void test_conf_docs_have_every_key_once(void)
{
    size_t bytes;
    char *text = printed(NULL, &bytes);

    for (int k = 0; k < CONF_N_KEYS; k++) {
        char row[100];
        const char *at;

        snprintf(row, sizeof row, "\n| `%s` | ", conf_rows[k].name);
        at = strstr(text, row);
        CHECK(at != NULL);
        CHECK(at == NULL || strstr(at + 1, row) == NULL);
        CHECK(strstr(text, conf_rows[k].help) != NULL);
    }
    free(text);
}

/* clang-format off */
TEST_MAIN(T(conf_rows_are_named_once_in_lower_case_and_sections_stand_together)
          T(conf_defaults_are_what_the_headers_promise)
          T(conf_file_errors_name_file_line_and_key)
          T(conf_broken_yaml_names_its_line)
          T(conf_bytes_that_are_no_text_are_refused)
          T(conf_truncated_files_never_crash)
          T(conf_nested_and_dotted_keys_and_comments_are_read)
          T(conf_empty_files_change_nothing)
          T(conf_a_missing_file_is_named)
          T(conf_files_are_read_from_disk_up_to_one_mib)
          T(conf_every_key_can_be_set_from_every_source)
          T(conf_later_sources_win_whatever_the_order_of_loading)
          T(conf_environment_and_command_errors_name_their_place)
          T(conf_keys_that_contradict_one_another_are_refused_with_their_place)
          T(conf_very_long_input_is_refused_with_a_sentence)
          T(conf_numbers_take_the_units_of_their_type)
          T(conf_limits_are_inclusive_for_every_number)
          T(conf_addresses_split_into_host_and_port)
          T(conf_printed_values_load_again_as_the_same)
          T(conf_docs_have_every_key_once))
/* clang-format on */
