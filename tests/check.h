/* A thin layer over CUnit: one suite a program, a row a test, counts on the closing line that tests/run-tests adds up.
 *
 *   static void test_thing_does_this(void) { CHECK(...); CHECK_EQ(a, b); }
 *   TEST_MAIN(T(thing_does_this) T(other)) */
#ifndef WEIR_TESTS_CHECK_H
#define WEIR_TESTS_CHECK_H

#include <CUnit/Basic.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CHECK(x) CU_ASSERT(x)
/* Ends the test when it does not hold. */
#define REQUIRE(x) CU_ASSERT_FATAL(x)
#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        long long a_ = (long long)(a), b_ = (long long)(b);                                        \
        if (a_ != b_)                                                                              \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #a, a_, b_);      \
        CU_ASSERT(a_ == b_);                                                                       \
    } while (0)

#define T(name) { "test_" #name, test_##name },
#define TEST_MAIN(rows)                                                                            \
    int main(void)                                                                                 \
    {                                                                                              \
        CU_TestInfo tests_[] = { rows CU_TEST_INFO_NULL };                                         \
        CU_SuiteInfo suites_[] = { { __FILE__, NULL, NULL, NULL, NULL, tests_ },                   \
                                   CU_SUITE_INFO_NULL };                                           \
        unsigned run_, failed_;                                                                    \
        if (CU_initialize_registry() || CU_register_suites(suites_))                               \
            return 2;                                                                              \
        CU_basic_set_mode(CU_BRM_SILENT);                                                          \
        CU_basic_run_tests();                                                                      \
        CU_basic_show_failures(CU_get_failure_list());                                             \
        run_ = CU_get_number_of_tests_run();                                                       \
        failed_ = CU_get_number_of_tests_failed();                                                 \
        printf("%u passed, %u failed\n", run_ - failed_, failed_);                                 \
        CU_cleanup_registry();                                                                     \
        return failed_ ? 1 : 0;                                                                    \
    }

#endif
