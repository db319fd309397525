/* test_tun_watch.c - faces src/tun/tun_watch.c, in a network namespace of its own: what happens to a device while it is used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/if_tun.h>

#include "tun_lab.h"

enum { SOON_MS = 2000 };

static struct tun_lab *watched(void **state, const struct tun_options *opt)
{
    struct tun_lab *lab = *state;
    struct err err = { "" };
    int r;

    r = tun_open(opt, 2, lab->nl, &lab->tun, &err);
    if (r != 0)
        print_error("%s\n", err.text);
    assert_int_equal(r, 0);
    assert_int_equal(tun_lab_watch(lab), 0);
    return lab;
}

static ssize_t read_once(struct tun_lab *lab, uint32_t queue)
{
    static uint8_t packet[65535];
    struct pkt_meta meta;

    return tun_read(lab->tun, queue, packet, sizeof(packet), &meta);
}

static int write_once(struct tun_lab *lab)
{
    /* IPv4, 20 bytes, to nobody: the kernel takes it and drops it */
    uint8_t packet[20] = { 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 198, 18, 0, 2, 198, 18, 0, 1 };
    struct iovec iov = { .iov_base = packet, .iov_len = sizeof(packet) };
    struct pkt_meta meta = { 0 };

    return tun_write(lab->tun, 0, &iov, 1, &meta);
}

/* ---- down and up ---- */

static bool went_down(void *arg)
{
    return ((struct tun_lab *)arg)->downs > 0;
}

static bool came_up(void *arg)
{
    return ((struct tun_lab *)arg)->ups > 0;
}

static void a_device_set_down_is_told_and_its_ip6_address_is_back_when_it_is_up(
    void **state) /* faults.md V3 */
{
    const struct tun_options opt = tun_lab_options();
    struct tun_lab *lab = watched(state, &opt);

    assert_int_equal(write_once(lab), 0);
    assert_true(tun_lab_sh("ip link set tun0 down"));
    assert_false(tun_lab_has_address(lab, "tun0", "fdfe:dcba:9876::1")); /* the kernel's doing */
    assert_true(loop_wait_until(&lab->wait, SOON_MS, went_down, lab));
    assert_int_equal(write_once(lab), -EIO);
    assert_int_equal(tun_counters(lab->tun, 0)->tx_dropped, 1);
    assert_int_equal(tun_counters(lab->tun, 0)->write_calls, 1); /* no call for the one that could not go */
    assert_true(tun_lab_sh("ip link set tun0 up"));
    assert_true(loop_wait_until(&lab->wait, SOON_MS, came_up, lab));
    assert_true(tun_lab_has_address(lab, "tun0", "198.18.0.1"));
    assert_true(tun_lab_has_address(lab, "tun0", "fdfe:dcba:9876::1"));
    assert_int_equal(write_once(lab), 0);
    assert_int_equal(lab->downs, 1);
    assert_int_equal(lab->ups, 1);
}

/* ---- gone and back ---- */

static bool is_reopened(void *arg)
{
    return ((struct tun_lab *)arg)->reopened > 0;
}

static bool is_lost(void *arg)
{
    return ((struct tun_lab *)arg)->lost > 0;
}

static void a_deleted_device_is_made_anew_on_the_same_descriptors(void **state) /* faults.md V4 */
{
    struct tun_options opt = tun_lab_options();
    struct tun_lab *lab;
    struct nl_link link;
    int before, fds[2];

    opt.mtu = 1400;
    lab = watched(state, &opt);
    before = tun_ifindex(lab->tun);
    for (uint32_t q = 0; q < 2; q++)
        fds[q] = tun_queue_fd(lab->tun, q);
    assert_true(tun_lab_sh("ip link del tun0"));
    assert_int_equal(read_once(lab, 0), -EBADFD);
    assert_true(loop_wait_until(&lab->wait, SOON_MS, is_reopened, lab));
    assert_int_equal(netlink_link_by_name(lab->nl, "tun0", &link), 0);
    assert_int_equal(link.ifindex, tun_ifindex(lab->tun));
    assert_true(link.ifindex != before);
    assert_int_equal(link.mtu, 1400);
    assert_true(link.up);
    assert_true(tun_lab_has_address(lab, "tun0", "198.18.0.1"));
    assert_true(tun_lab_has_address(lab, "tun0", "fdfe:dcba:9876::1"));
    for (uint32_t q = 0; q < 2; q++) {
        assert_int_equal(tun_queue_fd(lab->tun, q), fds[q]);
        assert_int_not_equal(read_once(lab, q), -EBADFD);
    }
    assert_int_equal(write_once(lab), 0);
    assert_int_equal(lab->reopened, 1);
    assert_int_equal(lab->lost, 0);
}

static void reports_of_workers_are_acted_on_once_and_harmless_when_all_is_well(
    void **state) /* faults.md V4 */
{
    const struct tun_options opt = tun_lab_options();
    struct tun_lab *lab = watched(state, &opt);

    assert_true(tun_lab_sh("ip link del tun0"));
    for (int i = 0; i < 100; i++)
        tun_report_gone(lab->tun, (uint32_t)i % 2);
    assert_true(loop_wait_until(&lab->wait, SOON_MS, is_reopened, lab));
    tun_report_gone(lab->tun, 1); /* late: the device is there again */
    lab->reopened = 0;
    assert_false(loop_wait_until(&lab->wait, 100, is_reopened, lab));
    tun_report_gone(lab->tun, 0); /* and one that outlives the device, which teardown closes first */
}

static void a_device_that_cannot_be_made_anew_is_lost_after_ten_tries(void **state) /* faults.md V4 */
{
    const struct tun_options opt = tun_lab_options();
    struct tun_lab *lab = watched(state, &opt);

    /* somebody is quicker, with a device of that name for one queue, which ours cannot join */
    assert_true(tun_lab_sh("ip link del tun0 && ip tuntap add dev tun0 mode tun"));
    assert_true(loop_wait_until(&lab->wait, 10000, is_lost, lab));
    assert_int_equal(lab->lost, 1);
    assert_int_equal(lab->reopened, 0);
    assert_non_null(strstr(lab->why, "tun0: the device was deleted and cannot be made anew"));
    assert_int_equal(write_once(lab), -EIO);
    tun_close(lab->tun);
    lab->tun = NULL;
    assert_true(tun_lab_sh("ip tuntap del dev tun0 mode tun"));
}

static void an_adopted_device_that_is_deleted_is_lost_at_once(void **state) /* faults.md V5 */
{
    struct ifreq ifr = { .ifr_name = "given0", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
    struct tun_options opt = tun_lab_options();
    struct tun_lab *lab;

    opt.fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    assert_int_equal(ioctl(opt.fd, TUNSETIFF, &ifr), 0);
    lab = watched(state, &opt);
    assert_true(tun_lab_sh("ip link del given0"));
    assert_true(loop_wait_until(&lab->wait, SOON_MS, is_lost, lab));
    assert_string_equal(lab->why, "given0: the device behind the adopted descriptor is gone");
}

static bool left_this_namespace(void *arg)
{
    return tun_ifindex(((struct tun_lab *)arg)->tun) == 0;
}

static void a_device_that_goes_to_another_namespace_is_not_lost(void **state)
{
    const struct tun_options opt = tun_lab_options();
    struct tun_lab *lab = watched(state, &opt);
    int ready[2];
    char command[64], byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNET) == 0 && write(ready[1], "x", 1) == 1)
            pause();
        _exit(1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    snprintf(command, sizeof(command), "ip link set tun0 netns %d", (int)pid);
    assert_true(tun_lab_sh(command));
    assert_true(loop_wait_until(&lab->wait, SOON_MS, left_this_namespace, lab));
    assert_int_equal(lab->lost, 0);
    assert_int_equal(read_once(lab, 0) == -EBADFD, 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(ready[0]);
}

/* ---- MTU ---- */

static bool mtu_told(void *arg)
{
    struct tun_lab *lab = arg;

    return lab->mtu_events > 0;
}

static void a_changed_mtu_is_followed_and_ip6_ends_below_1280_and_comes_back_above(
    void **state) /* faults.md V11 */
{
    static const uint32_t mtus[] = { 576, 9000, 1279, 1280, 65535, 1500 };
    const struct tun_options opt = tun_lab_options();
    struct tun_lab *lab = watched(state, &opt);

    for (size_t i = 0; i < ARRAY_LEN(mtus); i++) {
        char command[64];

        lab->mtu_events = 0;
        snprintf(command, sizeof(command), "ip link set tun0 mtu %u", mtus[i]);
        assert_true(tun_lab_sh(command));
        assert_true(loop_wait_until(&lab->wait, SOON_MS, mtu_told, lab));
        assert_int_equal(lab->mtu, mtus[i]);
        assert_int_equal(tun_mtu(lab->tun), mtus[i]);
        assert_int_equal(tun_carries(lab->tun, true), mtus[i] >= 1280);
        assert_int_equal(tun_lab_has_address(lab, "tun0", "fdfe:dcba:9876::1"), mtus[i] >= 1280);
        assert_true(tun_lab_has_address(lab, "tun0", "198.18.0.1"));
    }
    assert_int_equal(lab->downs, 0);
}

/* ---- addresses ---- */

static bool both_addresses(void *arg)
{
    return tun_lab_has_address(arg, "tun0", "198.18.0.1") &&
           tun_lab_has_address(arg, "tun0", "fdfe:dcba:9876::1");
}

static void a_removed_address_comes_back_once_and_is_left_alone_when_removed_again(
    void **state) /* faults.md V12 */
{
    const struct tun_options opt = tun_lab_options();
    struct tun_lab *lab = watched(state, &opt);

    assert_true(tun_lab_sh("ip addr del 198.18.0.1/30 dev tun0"));
    assert_true(loop_wait_until(&lab->wait, SOON_MS, both_addresses, lab));
    assert_true(tun_lab_sh("ip addr del 198.18.0.1/30 dev tun0"));
    assert_false(loop_wait_until(&lab->wait, 200, both_addresses, lab));
    assert_true(tun_lab_sh(
        "ip link set tun0 down && ip link set tun0 up")); /* that is the kernel's doing, not theirs */
    assert_true(loop_wait_until(&lab->wait, SOON_MS, both_addresses, lab));
    assert_int_equal(lab->lost, 0);
}

static void addresses_of_others_are_not_touched(void **state)
{
    const struct tun_options opt = tun_lab_options();
    struct tun_lab *lab = watched(state, &opt);

    assert_true(tun_lab_sh("ip addr add 192.0.2.77/32 dev tun0 && ip addr del 198.18.0.1/30 dev tun0"));
    assert_true(loop_wait_until(&lab->wait, SOON_MS, both_addresses, lab));
    assert_true(tun_lab_has_address(lab, "tun0", "192.0.2.77"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, tun_lab_setup, tun_lab_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_device_set_down_is_told_and_its_ip6_address_is_back_when_it_is_up),
        TEST(a_deleted_device_is_made_anew_on_the_same_descriptors),
        TEST(reports_of_workers_are_acted_on_once_and_harmless_when_all_is_well),
        TEST(a_device_that_cannot_be_made_anew_is_lost_after_ten_tries),
        TEST(an_adopted_device_that_is_deleted_is_lost_at_once),
        TEST(a_device_that_goes_to_another_namespace_is_not_lost),
        TEST(a_changed_mtu_is_followed_and_ip6_ends_below_1280_and_comes_back_above),
        TEST(a_removed_address_comes_back_once_and_is_left_alone_when_removed_again),
        TEST(addresses_of_others_are_not_touched),
    };

    return run_unless(netns_enter_with_tun(), tests);
}
