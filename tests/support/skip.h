/* skip.h - a test that cannot run says why, in a line that ./check counts and shows. */
#ifndef CULVERT_TEST_SKIP_H
#define CULVERT_TEST_SKIP_H

#include <stdbool.h>
#include <stdio.h>

/* Ends the test, as cmocka's skip() does. tests/unit/test_tests.py looks that nothing skips without a reason. */
#define SKIP(why)                                                                                            \
    do {                                                                                                     \
        print_message("skipped: %s\n", why);                                                                 \
        skip();                                                                                              \
    } while (0)

/* Exit status of a whole program that cannot run; ctest knows it (tests/tests.cmake). */
enum { SKIPPED_ALL = 77 };

/* The end of a main(): the group, unless @why (netns_enter() and the like) says that none of it can run here. */
#define run_unless(why, tests) (skips_all(why) ? (int)SKIPPED_ALL : cmocka_run_group_tests(tests, NULL, NULL))

static inline bool skips_all(const char *why)
{
    if (why != NULL)
        printf("skipped: %s\n", why);
    return why != NULL;
}

#endif
