#include "base/logger.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/check.h"

static int out[2];
static char got[8192];

static void capture(enum log_level level, bool json)
{
    REQUIRE(pipe2(out, O_NONBLOCK) == 0);
    logger_to(out[1]);
    logger_setup(level, json);
}

/* What one read gives: with one write a line, all lines so far, or "" for nothing. */
static const char *captured(void)
{
    ssize_t n = read(out[0], got, sizeof got - 1);

    got[n > 0 ? n : 0] = 0;
    return got;
}

static void release(void)
{
    logger_to(STDERR_FILENO);
    logger_setup(LOG_LEVEL_INFO, false);
    close(out[0]);
    close(out[1]);
}

/* Checks the shape 2026-11-21T08:00:00.123Z and gives what follows it. */
static const char *after_time(const char *s)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ";

    for (size_t i = 0; i < sizeof shape - 1; i++)
        if (shape[i] == 'd' ? !isdigit((unsigned char)s[i]) : s[i] != shape[i])
            return "no time";
    return s + sizeof shape - 1;
}

static void test_text_lines_have_time_level_event_and_fields(void)
{
    capture(LOG_LEVEL_DEBUG, false);
    LOG_INFO("wal.open", F_LSN(1), F_STR("path", "x y"));
    CHECK(strcmp(after_time(captured()), " INFO  wal.open lsn=1 path=\"x y\"\n") == 0);
    LOG_ERROR("device.failed", F_ERR(E_DEVICE), F_INT("n", INT64_MIN));
    CHECK(strcmp(after_time(captured()),
                 " ERROR device.failed error=DEVICE n=-9223372036854775808\n") == 0);
    LOG_WARN("a");
    CHECK(strcmp(after_time(captured()), " WARN  a\n") == 0);
    LOG_DEBUG("b");
    CHECK(strcmp(after_time(captured()), " DEBUG b\n") == 0);
    release();
}

static void test_json_lines_have_the_same(void)
{
    const char *line;

    capture(LOG_LEVEL_INFO, true);
    LOG_INFO("wal.open", F_LSN(1), F_STR("path", "x"));
    line = captured();
    REQUIRE(strncmp(line, "{\"ts\":\"", 7) == 0);
    CHECK(strcmp(after_time(line + 7),
                 "\",\"level\":\"info\",\"event\":\"wal.open\",\"lsn\":1,\"path\":\"x\"}\n") == 0);
    release();
}

static const char *quoted(const char *value)
{
    const char *line;

    LOG_INFO("e", F_STR("v", value));
    line = strstr(captured(), " v=");
    return line ? line + 3 : "";
}

static void test_strings_are_quoted_only_where_needed(void)
{
    capture(LOG_LEVEL_INFO, false);
    CHECK(strcmp(quoted("/a/b-c_d.e:f"), "/a/b-c_d.e:f\n") == 0);
    CHECK(strcmp(quoted(""), "\"\"\n") == 0);
    CHECK(strcmp(quoted("a=b"), "\"a=b\"\n") == 0);
    CHECK(strcmp(quoted("say \"hi\" \\"), "\"say \\\"hi\\\" \\\\\"\n") == 0);
    release();
}

static void test_controls_and_wrong_utf8_cannot_reach_the_terminal(void)
{
    capture(LOG_LEVEL_INFO, false);
    CHECK(strcmp(quoted("a\nb\tc\rd"), "\"a\\nb\\tc\\rd\"\n") == 0);
    CHECK(strcmp(quoted("\x1b[31m\x7f"), "\"\\u001b[31m\\u007f\"\n") == 0);
    CHECK(strcmp(quoted("\xc2\x9b"), "\"\\u009b\"\n") == 0);
    CHECK(strcmp(quoted("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"),
                 "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"\n") == 0);
#define BAD "\xef\xbf\xbd"
    CHECK(strcmp(quoted("a\xff"), "\"a" BAD "\"\n") == 0);
    CHECK(strcmp(quoted("\xc0\xaf"), "\"" BAD BAD "\"\n") == 0);                 /* overlong */
    CHECK(strcmp(quoted("\xe0\x80\xaf"), "\"" BAD BAD BAD "\"\n") == 0);         /* overlong */
    CHECK(strcmp(quoted("\xed\xa0\x80"), "\"" BAD BAD BAD "\"\n") == 0);         /* surrogate */
    CHECK(strcmp(quoted("\xf4\x90\x80\x80"), "\"" BAD BAD BAD BAD "\"\n") == 0); /* > 10FFFF */
    CHECK(strcmp(quoted("x\xe2\x82"), "\"x" BAD BAD "\"\n") == 0); /* cut at the end */
#undef BAD
    release();
}

static void test_levels_below_the_wanted_are_silent(void)
{
    capture(LOG_LEVEL_WARN, false);
    CHECK(logger_wants(LOG_LEVEL_ERROR) && logger_wants(LOG_LEVEL_WARN));
    CHECK(!logger_wants(LOG_LEVEL_INFO) && !logger_wants(LOG_LEVEL_DEBUG));
    LOG_INFO("quiet");
    logger_write(LOG_LEVEL_DEBUG, "quiet", NULL, 0);
    CHECK(strcmp(captured(), "") == 0);
    LOG_WARN("loud");
    CHECK(strcmp(after_time(captured()), " WARN  loud\n") == 0);
    logger_to(-1);
    LOG_ERROR("nowhere");
    CHECK(strcmp(captured(), "") == 0);
    release();
}

static void test_long_strings_are_cut_and_the_line_stays_whole(void)
{
    static char big[20000];

    memset(big, 'x', sizeof big - 1);
    for (int json = 0; json < 2; json++) {
        const char *tail = json ? "xx...\"}\n" : "xx...\"\n";
        size_t n;

        capture(LOG_LEVEL_INFO, json);
        /* All starts of the cut: the pad moves it over every place. */
        for (int pad = 0; pad < 70; pad++) {
            LOG_INFO("e", F_STR("a", big + sizeof big - 1 - 3900 - pad), F_STR("b", big),
                     F_STR("c", big));
            n = strlen(captured());
            CHECK(n <= 4096);
            CHECK(n > 3900 && got[n - 1] == '\n' && strchr(got, '\n') == got + n - 1);
            if (json)
                CHECK(got[n - 2] == '}' && got[n - 3] == '"');
        }
        LOG_INFO("e", F_STR("a", big));
        n = strlen(captured());
        CHECK(n > strlen(tail) && strcmp(got + n - strlen(tail), tail) == 0);
        release();
    }
}

static void test_errno_is_left_alone(void)
{
    capture(LOG_LEVEL_INFO, false);
    close(out[0]);
    close(out[1]);
    errno = ENOENT;
    LOG_INFO("into.nothing");
    CHECK_EQ(errno, ENOENT);
    REQUIRE(pipe(out) == 0);
    release();
}

enum { WRITERS = 4, LINES = 200 };

static void *write_lines(void *arg)
{
    static const char text[] = "0123456789012345678901234567890123456789";

    for (int i = 0; i < LINES; i++)
        LOG_INFO("line", F_STR("text", text), F_STR("name", arg));
    return NULL;
}

static void test_lines_of_threads_do_not_mix(void)
{
    pthread_t threads[WRITERS];
    char names[WRITERS][2] = { "a", "b", "c", "d" };
    char line[256];
    unsigned whole = 0;
    FILE *f = tmpfile();

    REQUIRE(f != NULL);
    REQUIRE(fcntl(fileno(f), F_SETFL, O_APPEND) == 0);
    logger_to(fileno(f));
    for (int i = 0; i < WRITERS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, write_lines, names[i]) == 0);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    rewind(f);
    while (fgets(line, sizeof line, f))
        whole +=
            strncmp(after_time(line),
                    " INFO  line text=0123456789012345678901234567890123456789 name=", 62) == 0;
    CHECK_EQ(whole, WRITERS * LINES);
    logger_to(STDERR_FILENO);
    fclose(f);
}

static void test_json_documents_of_any_length_are_one_line(void)
{
    char *document = calloc(1, 7001), want[64];
    const char *line;

    memset(document, 'x', 7000);
    document[0] = document[6999] = '"';
    capture(LOG_LEVEL_INFO, true);
    logger_write_json("metrics", "all", document);
    line = captured();
    CHECK(strncmp(line, "{\"ts\":\"", 7) == 0);
    snprintf(want, sizeof want, "\"event\":\"metrics\",\"all\":\"xxx");
    CHECK(strstr(line, want) != NULL);
    CHECK_EQ(strcmp(line + strlen(line) - 6, "xxx\"}\n"), 0);
    CHECK(strstr(line, document) != NULL);
    logger_setup(LOG_LEVEL_INFO, false);
    logger_write_json("metrics", "all", "{\"a\":1}");
    CHECK(strcmp(after_time(captured()), " INFO  metrics all={\"a\":1}\n") == 0);
    logger_setup(LOG_LEVEL_WARN, false);
    logger_write_json("metrics", "all", "{}");
    CHECK(strcmp(captured(), "") == 0);
    release();
    free(document);
}

TEST_MAIN(T(text_lines_have_time_level_event_and_fields) T(json_lines_have_the_same)
              T(strings_are_quoted_only_where_needed)
                  T(controls_and_wrong_utf8_cannot_reach_the_terminal)
                      T(levels_below_the_wanted_are_silent)
                          T(long_strings_are_cut_and_the_line_stays_whole) T(errno_is_left_alone)
                              T(lines_of_threads_do_not_mix)
                                  T(json_documents_of_any_length_are_one_line))
