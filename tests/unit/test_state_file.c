/* test_state_file.c - faces src/app/state_file.c: whose the folders are that it makes on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "app/state_file.h"

static void folders_that_it_makes_are_private_and_others_stay_as_they_are(void **state)
{
    char top[] = "/tmp/state-file-XXXXXX", path[64];
    static const char *const made[] = { "a/b", "a" };
    struct stat st;

    (void)state;
    assert_non_null(mkdtemp(top));
    assert_int_equal(chmod(top, 0755), 0);
    snprintf(path, sizeof(path), "%s/a/b/list.txt", top);
    state_file_folders(path);
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", top, made[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0700);
        assert_int_equal(rmdir(path), 0);
    }
    assert_int_equal(stat(top, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(rmdir(top), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_that_it_makes_are_private_and_others_stay_as_they_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
