/* test_sandbox.c - what the sandbox refuses and what it lets through; each case in a process of its own, for there is no way back. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/app/privilege.h"
#include "../../src/app/process.h"
#include "../../src/app/sandbox.h"
#include "../../src/app/watchdog.h"
#include "skip.h"

enum { CANNOT = 77 };

/* Runs @fn in a child. Return: what it returned. */
static int alone(int (*fn)(int arg), int arg)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(fn(arg));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status))
        fail_msg("ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* ---- files ---- */

static int with_files(int abi)
{
    char folder[] = "/tmp/culvert-sandbox-XXXXXX", inside[64], outside[64];
    struct err err = { "" };
    struct sandbox_path paths[] = { { "/proc", false }, { "/nowhere", false }, { folder, true } };
    struct sandbox_files f = { .path = paths, .paths = ARRAY_LEN(paths) };
    int fd, r;

    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(inside, sizeof(inside), "%s/in", folder);
    snprintf(outside, sizeof(outside), "%s-out", folder);
    r = sandbox_files(&f, abi, &err);
    if (r == -EOPNOTSUPP)
        return CANNOT;
    if (r != abi)
        return 2;
    fd = open(inside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, "x", 1) != 1 || rename(inside, inside) != 0 || unlink(inside) != 0)
        return 3;
    if (open(outside, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0 || errno != EACCES)
        return 4;
    if (open("/proc/self/status", O_RDONLY | O_CLOEXEC) < 0)
        return 5;
    if (open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0 || errno != EACCES)
        return 6;
    return 0;
}

static void every_version_of_landlock_can_be_used(void **state) /* faults.md X10 */
{
    (void)state;
    for (int abi = 1; abi <= 7; abi++) {
        int r = alone(with_files, abi);

        if (r == CANNOT)
            SKIP("this kernel has no Landlock");
        if (r != 0)
            fail_msg("version %d: step %d", abi, r);
    }
}

static int without_landlock(int unused)
{
    struct sandbox_files f = { .paths = 0 };
    struct err err = { "" };

    (void)unused;
    return sandbox_files(&f, 0, &err) == -EOPNOTSUPP && strstr(err.text, "Landlock") != NULL ? 0 : 1;
}

static void a_kernel_without_landlock_is_named(void **state) /* faults.md X10 */
{
    (void)state;
    assert_int_equal(alone(without_landlock, 0), 0);
}

/* ---- system calls ---- */

static int with_calls(int who)
{
    struct err err = { "" };
    int r = sandbox_calls((enum sandbox_who)who, &err);

    if (r == -EOPNOTSUPP)
        return CANNOT;
    if (r != 0)
        return 1;
    errno = 0;
    if (syscall(SYS_sethostname, "x", 1) != -1 || errno != EPERM)
        return 2;
    if (syscall(SYS_mount, "a", "/b", "c", 0, 0) != -1 || errno != EPERM)
        return 3;
    if (socket(AF_PACKET, SOCK_RAW, 0) >= 0 || errno != EPERM)
        return 4;
    if (socket(AF_INET, SOCK_RAW, 1) >= 0 || errno != EPERM)
        return 5;
    if ((socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0) != (who == SANDBOX_GATEWAY))
        return 6;
    return 0;
}

static void a_refused_call_is_an_error_and_no_death(void **state) /* faults.md X9 */
{
    int r = alone(with_calls, SANDBOX_GATEWAY);

    (void)state;
    if (r == CANNOT)
        SKIP("no filter of system calls in this build or kernel");
    assert_int_equal(r, 0);
    assert_int_equal(alone(with_calls, SANDBOX_HELPER), 0);
}

static void stop_soon(struct loop_timer *t)
{
    loop_stop(*(struct loop **)(void *)(t + 1));
}

static int tells(int unused)
{
    struct {
        struct loop_timer timer;
        struct loop *loop;
    } soon = { .loop = NULL };
    char path[] = "/tmp/culvert-log-XXXXXX", text[2000] = "", *first;
    struct log_options log = { .level = LOG_INFO, .output = path };
    struct err err;
    int fd = mkstemp(path), r;

    (void)unused;
    if (fd < 0 || log_init(&log) != 0 || loop_new(&soon.loop) != 0 || sandbox_report(soon.loop) != 0)
        return 1;
    if ((r = sandbox_calls(SANDBOX_GATEWAY, &err)) != 0)
        return r == -EOPNOTSUPP ? CANNOT : 4;
    for (int i = 0; i < 3; i++)
        (void)!syscall(SYS_sethostname, "x", 1);
    loop_timer_start(soon.loop, &soon.timer, clock_now_us() + 50000, stop_soon);
    loop_run(soon.loop);
    sandbox_report_end(soon.loop);
    if (read(fd, text, sizeof(text) - 1) <= 0)
        return 2;
    unlink(path);
    first = strstr(text, "the system call sethostname");
    return first != NULL && strstr(first + 1, "the system call sethostname") == NULL ? 0 : 3;
}

static void a_refused_call_is_one_line(void **state) /* faults.md X9 */
{
    int r = alone(tells, 0);

    (void)state;
    if (r == CANNOT)
        SKIP("no filter of system calls in this build or kernel");
    assert_int_equal(r, 0);
}

static int answers(int unused)
{
    char text[SANDBOX_TEXT_MAX] = "";
    struct err err;
    int r;

    (void)unused;
    if (sandbox_listen() != 0)
        return 1;
    if ((r = sandbox_calls(SANDBOX_HELPER, &err)) != 0)
        return r == -EOPNOTSUPP ? CANNOT : 2;
    if (sandbox_refused(text))
        return 3;
    for (int i = 0; i < 3; i++)
        (void)!syscall(SYS_sethostname, "x", 1);
    if (!sandbox_refused(text) || strstr(text, "the system call sethostname") == NULL)
        return 4;
    return sandbox_refused(text) ? 5 : 0;
}

static void a_process_without_a_loop_asks_for_that_line(void **state) /* faults.md X9 */
{
    int r = alone(answers, 0);

    (void)state;
    if (r == CANNOT)
        SKIP("no filter of system calls in this build or kernel");
    assert_int_equal(r, 0);
}

/* ---- capabilities ---- */

static int keeps(int keep)
{
    struct err err = { "" };
    char text[256];

    if (privilege_keep((unsigned)keep, &err) != 0)
        return 1;
    privilege_text(text, sizeof(text));
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 2;
    if (strcmp(text, keep == 0 ? "none" : "net_raw") != 0)
        return 3;
    if (keep == 0 && socket(AF_PACKET, SOCK_RAW, 0) >= 0)
        return 4;
    return 0;
}

static void only_what_is_kept_is_left(void **state)
{
    (void)state;
    if (geteuid() != 0)
        SKIP("needs root");
    assert_int_equal(alone(keeps, 0), 0);
    assert_int_equal(alone(keeps, PRIVILEGE_MARK), 0);
}

static int becomes(int unused)
{
    struct privilege_account a;
    struct err err = { "" };

    (void)unused;
    if (privilege_account_find("nobody", &a, &err) != 0)
        return CANNOT;
    if (privilege_become(&a, &err) != 0 ||
        privilege_keep(0, &err) != 0) /* capabilities stay until the second */
        return 1;
    if (getuid() != a.uid || geteuid() != a.uid || getegid() != a.gid || setuid(0) == 0)
        return getuid() == 0 ? 2 : 3;
    return 0;
}

static void a_user_is_become_for_good(void **state)
{
    struct privilege_account a;
    struct err err = { "" };
    int r;

    (void)state;
    assert_int_equal(privilege_account_find("no-such-user-here", &a, &err), -ENOENT);
    assert_non_null(strstr(err.text, "useradd"));
    assert_int_equal(privilege_account_find(NULL, &a, &err), 0);
    assert_false(a.set);
    if (geteuid() != 0)
        SKIP("needs root");
    r = alone(becomes, 0);
    if (r == CANNOT)
        SKIP("this machine has no user nobody");
    if (r != 0)
        fail_msg("step %d", r);
}

/* ---- sleep of the machine ---- */

static void only_a_sleep_of_the_machine_counts_as_one(void **state) /* faults.md X7 */
{
    uint64_t gap = 0;

    (void)state;
    assert_int_equal(clock_slept_us(&gap, 1000, 5000), 0);           /* the first look */
    assert_int_equal(clock_slept_us(&gap, 900001000, 900005000), 0); /* a long time, awake or stopped */
    assert_int_equal(clock_slept_us(&gap, 900002000, 900002000 + 4000 + 28800000000), 28800000000);
    assert_int_equal(clock_slept_us(&gap, 900003000, 900003000 + 4000 + 28800000000), 0);
    gap = 0;
    assert_int_equal(clock_slept_us(&gap, 1000, 1000), 0); /* a machine that never slept */
    assert_int_equal(clock_slept_us(&gap, 2000, 9000), 6999);
}

/* ---- entropy ---- */

static int tries_left; /* of a source that is not ready */

static ssize_t slow_source(void *out, size_t len, unsigned flags)
{
    (void)flags;
    if (tries_left-- > 0) {
        errno = EAGAIN;
        return -1;
    }
    memset(out, 0, len);
    return (ssize_t)len;
}

static ssize_t no_source(void *out, size_t len, unsigned flags)
{
    (void)out;
    (void)len;
    (void)flags;
    errno = ENOSYS;
    return -1;
}

static void random_numbers_are_waited_for_and_never_made_up(void **state) /* faults.md R11 */
{
    (void)state;
    tries_left = 2;
    assert_int_equal(process_wait_for_entropy(slow_source, 1000), 0);
    tries_left = 1000;
    assert_int_equal(process_wait_for_entropy(slow_source, 300), -EAGAIN);
    assert_int_equal(tries_left, 1000 - 4);
    assert_int_equal(process_wait_for_entropy(no_source, 1000), -ENOSYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_version_of_landlock_can_be_used),
        cmocka_unit_test(a_kernel_without_landlock_is_named),
        cmocka_unit_test(a_refused_call_is_an_error_and_no_death),
        cmocka_unit_test(a_refused_call_is_one_line),
        cmocka_unit_test(a_process_without_a_loop_asks_for_that_line),
        cmocka_unit_test(only_what_is_kept_is_left),
        cmocka_unit_test(a_user_is_become_for_good),
        cmocka_unit_test(random_numbers_are_waited_for_and_never_made_up),
        cmocka_unit_test(only_a_sleep_of_the_machine_counts_as_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
