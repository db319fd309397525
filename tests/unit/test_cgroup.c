/* test_cgroup.c - the memory limit of a control group, as the files of both versions say it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "app/cgroup.h"
#include "culvert/base.h"

static const struct row {
    const char *when, *membership;
    const char *file, *text; /* below the root; NULL: none */
    uint64_t limit;
} rows[] = {
    { "v2", "0::/a\n", "a/memory.max", "67108864\n", 64 << 20 },
    { "v2 without a limit", "0::/a\n", "a/memory.max", "max\n", 0 },
    { "v1", "9:pids:/a\n4:memory:/a\n", "memory/a/memory.limit_in_bytes", "67108864\n", 64 << 20 },
    { "v1, mounted with another controller", "4:cpu,memory:/a\n", "memory/a/memory.limit_in_bytes", "4096\n",
      4096 },
    { "v1 without a limit", "4:memory:/a\n", "memory/a/memory.limit_in_bytes", "9223372036854771712\n", 0 },
    { "both are mounted, memory is v1's", "4:memory:/a\n0::/a\n", "memory/a/memory.limit_in_bytes", "8192\n",
      8192 },
    { "both are mounted, memory is v2's", "9:pids:/a\n0::/a\n", "a/memory.max", "8192\n", 8192 },
    { "a container sees the host's path", "4:memory:/docker/1\n", "memory/memory.limit_in_bytes", "8192\n",
      8192 },
    { "a controller that is only called alike", "4:memory2:/a\n", "memory/a/memory.limit_in_bytes", "8192\n",
      0 },
    { "no file", "0::/a\n", NULL, NULL, 0 },
    { "no line", "", NULL, NULL, 0 },
    { "a line cut short", "4:memory", NULL, NULL, 0 },
};

static void put(const char *dir, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void remove_at(const char *dir, const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)remove(path);
}

static void both_versions_are_read(void **state)
{
    static const char *const folders[] = { "a", "memory", "memory/a" };
    char dir[] = "/tmp/culvert-cgroup-XXXXXX", path[256], membership[256];
    int wrong = 0;

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    snprintf(membership, sizeof(membership), "%s/membership", dir);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t limit;

        put(dir, "membership", rows[i].membership);
        if (rows[i].file)
            put(dir, rows[i].file, rows[i].text);
        limit = cgroup_memory_limit(membership, dir);
        if (rows[i].file)
            remove_at(dir, rows[i].file);
        if (limit == rows[i].limit)
            continue;
        print_error("%s: %llu\n", rows[i].when, (unsigned long long)limit);
        wrong++;
    }
    assert_int_equal(cgroup_memory_limit("/nowhere/at/all", dir), 0);
    remove_at(dir, "membership");
    for (size_t i = ARRAY_LEN(folders); i-- > 0;)
        remove_at(dir, folders[i]);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(both_versions_are_read) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
