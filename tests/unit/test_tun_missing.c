/* test_tun_missing.c - faces src/tun/tun_device.c where there is no TUN to be had: each reason has its sentence, with the command
 * that helps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tun_lab.h"

static bool hide_node(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", "/dev/net", "tmpfs", 0, NULL) == 0;
}

static bool no_node(void)
{
    return hide_node();
}

static bool closed_node(void)
{
    return hide_node() && mknod("/dev/net/tun", S_IFCHR | 0600, makedev(10, 200)) == 0 && setuid(65534) == 0;
}

static bool node_without_driver(void)
{
    return hide_node() && mknod("/dev/net/tun", S_IFCHR | 0666, makedev(240, 77)) == 0;
}

static bool other_node(void)
{
    return hide_node() && mknod("/dev/net/tun", S_IFCHR | 0666, makedev(1, 3)) == 0;
}

static bool no_capability(void)
{
    return hide_node() && mknod("/dev/net/tun", S_IFCHR | 0666, makedev(10, 200)) == 0 &&
           chmod("/dev/net/tun", 0666) == 0 && setuid(65534) == 0;
}

struct missing_row {
    const char *when;
    bool (*prepare)(void);
    int r;
    const char *says;
};

/* 0: as it should be; 1: not; 2: could not be prepared here. Runs in a child, whose mounts and user nobody else sees. */
static int try_without(const struct missing_row *row)
{
    struct tun_options opt = tun_lab_options();
    struct err err = { "" };
    struct netlink *nl;
    struct tun *t;
    int r;

    if (!row->prepare() || netlink_open(&nl, NULL) != 0)
        return 2;
    r = tun_open(&opt, 1, nl, &t, &err);
    netlink_close(nl);
    if (r == row->r && strstr(err.text, row->says) != NULL)
        return 0;
    fprintf(stderr, "%s: %d \"%s\", not %d \"%s\"\n", row->when, r, err.text, row->r, row->says);
    return 1;
}

static void a_machine_without_tun_says_which_command_makes_it(void **state) /* faults.md V9 */
{
    static const struct missing_row rows[] = {
        { "no node", no_node, -ENOENT, "mknod -m 666 /dev/net/tun c 10 200" },
        { "mode 0600", closed_node, -EACCES, "chmod 666 /dev/net/tun" },
        { "no driver", node_without_driver, -ENODEV, "modprobe tun" },
        { "another driver", other_node, -ENODEV, "is not the TUN driver" },
        { "no CAP_NET_ADMIN", no_capability, -EPERM, "CAP_NET_ADMIN" },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        pid_t pid = fork();
        int status = 0;

        if (pid == 0)
            _exit(try_without(&rows[i]));
        assert_true(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        if (WEXITSTATUS(status) == 2)
            print_message("skipped: %s: mounts and nodes need root\n", rows[i].when);
        wrong += WEXITSTATUS(status) == 1;
    }
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_without_tun_says_which_command_makes_it),
    };

    return run_unless(netns_enter_with_tun(), tests);
}
