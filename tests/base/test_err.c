#include "base/err.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"

static void test_every_code_has_its_name_text_and_class(void)
{
#define X(name, class, text)                                                                       \
    CHECK(strcmp(err_name(E_##name), #name) == 0);                                                 \
    CHECK(strcmp(err_text(E_##name), text) == 0);                                                  \
    CHECK_EQ(err_class(E_##name), ERR_##class);
    ERR_LIST(X)
#undef X
}

static void test_codes_run_down_from_1000_without_gaps(void)
{
    int want = -1000;
#define X(name, class, text) CHECK_EQ(E_##name, want--);
    ERR_LIST(X)
#undef X
}

static void test_success_is_ok_and_strange_codes_are_unknown(void)
{
    const int strange[] = { -1, -999, -1000 - ERR_COUNT, INT32_MIN };

    CHECK(strcmp(err_name(0), "OK") == 0);
    CHECK(strcmp(err_name(17), "OK") == 0);
    for (unsigned i = 0; i < 4; i++) {
        CHECK(strcmp(err_name(strange[i]), "UNKNOWN") == 0);
        CHECK_EQ(err_class(strange[i]), ERR_BUG);
    }
}

static void test_set_fills_and_returns_the_code(void)
{
    struct err e = { 0 };

    CHECK_EQ(err_set(&e, E_CORRUPT, "block at %d", 42), E_CORRUPT);
    CHECK_EQ(e.code, E_CORRUPT);
    CHECK(strcmp(e.text, "block at 42") == 0);
    CHECK_EQ(err_set(NULL, E_BUSY, "nobody reads %s", "this"), E_BUSY);
}

static void test_set_may_quote_the_sentence_it_replaces(void)
{
    struct err e = { 0 };

    err_set(&e, E_IO, "inner");
    err_set(&e, E_DEVICE, "outer: %s", e.text);
    CHECK(strcmp(e.text, "outer: inner") == 0);
}

static void test_prefix_goes_before_the_sentence(void)
{
    struct err e = { 0 };

    err_set(&e, E_IO, "short read");
    err_prefix(&e, "file %d: ", 7);
    CHECK(strcmp(e.text, "file 7: short read") == 0);
    CHECK_EQ(e.code, E_IO);
    err_prefix(NULL, "nobody");
}

static void test_long_sentences_are_cut_and_closed(void)
{
    struct err e = { 0 };
    char big[600];

    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    err_set(&e, E_IO, "%s", big);
    CHECK_EQ(strlen(e.text), sizeof e.text - 1);
    err_prefix(&e, "ab");
    CHECK_EQ(strlen(e.text), sizeof e.text - 1);
    CHECK(memcmp(e.text, "abx", 3) == 0);
    err_prefix(&e, "%s", big);
    CHECK_EQ(strlen(e.text), sizeof e.text - 1);
    CHECK_EQ(e.text[0], 'x');
}

static void test_a_false_assertion_ends_the_process(void)
{
    const struct rlimit no_core = { 0, 0 };
    int status = 0;
    pid_t child;

    fflush(NULL);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        ASSERT(child != 0);
        _exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

TEST_MAIN(T(every_code_has_its_name_text_and_class) T(codes_run_down_from_1000_without_gaps)
              T(success_is_ok_and_strange_codes_are_unknown) T(set_fills_and_returns_the_code)
                  T(set_may_quote_the_sentence_it_replaces) T(prefix_goes_before_the_sentence)
                      T(long_sentences_are_cut_and_closed) T(a_false_assertion_ends_the_process))
