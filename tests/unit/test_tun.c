/* test_tun.c - faces src/tun/tun.c, tun_device.c and tun_config.c, in a network namespace of its own: every rung of the ladder,
 * packets both ways, adopted descriptors, and a sentence for every way in which it cannot work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/if_tun.h>
#include <netinet/udp.h>

#include "tun_lab.h"

static void open_tun(struct tun_lab *lab, const struct tun_options *opt, uint32_t workers)
{
    struct err err = { "" };
    int r = tun_open(opt, workers, lab->nl, &lab->tun, &err);

    if (r != 0)
        print_error("%s\n", err.text);
    assert_int_equal(r, 0);
}

static void close_tun(struct tun_lab *lab)
{
    tun_close(lab->tun);
    lab->tun = NULL;
}

static bool exists(struct tun_lab *lab, const char *name)
{
    struct nl_link link;

    return netlink_link_by_name(lab->nl, name, &link) == 0;
}

/* ---- packets ---- */

/* A client socket whose datagrams enter the TUN towards 198.18.0.2 or its IPv6 neighbour, port 7. */
static int client_socket(bool v6)
{
    struct sockaddr_storage ss;
    struct ip_port to = { .port = 7 };
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct timeval patience = { .tv_sec = 2 }; /* an answer that does not come is a failure, not a hang */
    socklen_t len;

    assert_int_equal(ip_parse(v6 ? "fdfe:dcba:9876::2" : "198.18.0.2", &to.addr), 0);
    len = ip_to_sockaddr(&to, &ss);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
    return fd;
}

/* The next packet on any queue; the device's own chatter (multicast) is skipped. */
static ssize_t next_packet(struct tun *t, uint8_t *packet, struct pkt_meta *meta, uint32_t *queue)
{
    struct pollfd fds[TUN_QUEUES_MAX];

    for (;;) {
        for (uint32_t q = 0; q < tun_queues(t); q++)
            fds[q] = (struct pollfd){ .fd = tun_queue_fd(t, q), .events = POLLIN };
        assert_true(poll(fds, tun_queues(t), 2000) > 0);
        for (uint32_t q = 0; q < tun_queues(t); q++) {
            ssize_t n = fds[q].revents != 0 ? tun_read(t, q, packet, 65535, meta) : -EAGAIN;
            bool multicast = n > 24 && (packet[0] >> 4 == 6 ? packet[24] == 0xff : packet[16] >= 224);

            if (n == -EAGAIN || multicast)
                continue;
            *queue = q;
            return n;
        }
    }
}

static uint32_t sum_bytes(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i + 1 < len; i += 2)
        sum += get_be16(p + i);
    if ((len & 1) != 0)
        sum += (uint32_t)p[len - 1] << 8;
    return sum;
}

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static size_t l4_offset(const uint8_t *packet)
{
    return packet[0] >> 4 == 6 ? 40 : 20;
}

static uint16_t pseudo_sum(const uint8_t *packet, size_t len)
{
    size_t l4 = l4_offset(packet);
    uint32_t sum = sum_bytes(packet + (l4 == 40 ? 8 : 12), l4 == 40 ? 32 : 8, 0);

    return fold(sum + IP_PROTO_UDP + (uint32_t)(len - l4));
}

/* Turns a datagram around: addresses and ports swapped, the checksum complete or left to the kernel. */
static void turn_around(uint8_t *packet, size_t len, bool offload, struct pkt_meta *meta)
{
    size_t l4 = l4_offset(packet), addr = l4 == 40 ? 16 : 4, at = l4 == 40 ? 8 : 12;
    uint8_t tmp[16];

    memcpy(tmp, packet + at, addr);
    memcpy(packet + at, packet + at + addr, addr);
    memcpy(packet + at + addr, tmp, addr);
    memcpy(tmp, packet + l4, 2);
    memcpy(packet + l4, packet + l4 + 2, 2);
    memcpy(packet + l4 + 2, tmp, 2);
    put_be16(packet + l4 + 6, 0);
    *meta = (struct pkt_meta){ 0 };
    if (offload) {
        *meta = (struct pkt_meta){ .needs_csum = true, .csum_start = (uint16_t)l4, .csum_offset = 6 };
        put_be16(packet + l4 + 6, pseudo_sum(packet, len));
    } else {
        put_be16(packet + l4 + 6, (uint16_t)~fold(sum_bytes(packet + l4, len - l4, pseudo_sum(packet, len))));
    }
}

static void check_echo(struct tun *t, bool v6)
{
    bool offload = tun_rung(t) <= TUN_RUNG_TSO;
    static uint8_t packet[65535];
    char back[16] = "";
    struct pkt_meta meta;
    uint32_t queue;
    struct iovec iov[2];
    int fd = client_socket(v6);
    ssize_t n;

    assert_int_equal(send(fd, "hello", 5, 0), 5);
    n = next_packet(t, packet, &meta, &queue);
    assert_int_equal(n, (v6 ? 48 : 28) + 5);
    assert_int_equal(packet[0] >> 4, v6 ? 6 : 4);
    assert_memory_equal(packet + n - 5, "hello", 5);
    assert_int_equal(meta.gso, PKT_GSO_NONE);
    assert_int_equal(meta.needs_csum, offload);
    if (!offload) /* the checksum is there and right: all ones over everything */
        assert_int_equal(fold(sum_bytes(packet + l4_offset(packet), (size_t)n - l4_offset(packet),
                                        pseudo_sum(packet, (size_t)n))),
                         0xffff);
    turn_around(packet, (size_t)n, offload, &meta);
    iov[0] = (struct iovec){ .iov_base = packet, .iov_len = l4_offset(packet) + 8 };
    iov[1] = (struct iovec){ .iov_base = packet + iov[0].iov_len, .iov_len = 5 };
    assert_int_equal(tun_write(t, queue, iov, 2, &meta), 0);
    assert_int_equal(recv(fd, back, sizeof(back), 0), 5);
    assert_memory_equal(back, "hello", 5);
    assert_int_equal(tun_counters(t, queue)->tx_packets >= 1, 1);
    close(fd);
}

/* Four segments in one send: one packet where USO is in force, four where it is not. */
static void check_segmented_send(struct tun *t)
{
    static uint8_t packet[65535], payload[4000];
    bool super = tun_rung(t) == TUN_RUNG_USO;
    int fd = client_socket(false), segment = 1000;
    struct pkt_meta meta;
    uint32_t queue;

    assert_int_equal(setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)), 0);
    assert_int_equal(send(fd, payload, sizeof(payload), 0), (int)sizeof(payload));
    for (int i = 0; i < (super ? 1 : 4); i++) {
        assert_int_equal(next_packet(t, packet, &meta, &queue), super ? 28 + 4000 : 28 + 1000);
        assert_int_equal(meta.gso, super ? PKT_GSO_UDP : PKT_GSO_NONE);
        assert_int_equal(meta.gso_size, super ? 1000 : 0);
    }
    close(fd);
}

static void each_rung_carries_packets_of_both_families_both_ways(void **state) /* VN-1, faults.md V8 */
{
    struct tun_lab *lab = *state;

    for (enum tun_rung rung = TUN_RUNG_USO; rung <= TUN_RUNG_PLAIN; rung++) {
        struct tun_options opt = tun_lab_options();

        opt.best_rung = rung;
        open_tun(lab, &opt, 2);
        if (tun_rung(lab->tun) != rung) {
            assert_int_equal(rung, TUN_RUNG_USO); /* only that one may be missing in a kernel of ours */
            print_message("skipped: this kernel has no USO\n");
        }
        check_echo(lab->tun, false);
        check_echo(lab->tun, true);
        check_segmented_send(lab->tun);
        close_tun(lab);
    }
}

static sigjmp_buf after_abort;

static void on_abort(int signo)
{
    (void)signo;
    siglongjmp(after_abort, 1);
}

/* In a debug build a mistake of ours is the end, so a child makes it. Return: how often it was counted there */
static int mistakes_counted(struct tun *t, const struct iovec *iov, int count)
{
    struct pkt_meta meta = { 0 };
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        signal(SIGABRT, on_abort);
        if (sigsetjmp(after_abort, 1) == 0 && tun_write(t, 0, iov, count, &meta) != -EINVAL)
            _exit(100);
        _exit((int)tun_counters(t, 0)->tx_invalid);
    }
    assert_true(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_packet_in_too_many_pieces_is_counted_and_not_written(void **state) /* faults.md V2 */
{
    static uint8_t packet[20] = { 0x45 };
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();
    struct iovec iov[2 * TUN_WRITE_RANGES];

    for (size_t i = 0; i < ARRAY_LEN(iov); i++)
        iov[i] = (struct iovec){ packet, i == 0 ? sizeof(packet) : 1 };
    open_tun(lab, &opt, 1);
    assert_int_equal(mistakes_counted(lab->tun, iov, ARRAY_LEN(iov)), 1);
    assert_int_equal(mistakes_counted(lab->tun, iov, TUN_WRITE_RANGES + 1), 1);
    assert_int_equal(mistakes_counted(lab->tun, iov, 0), 1);
    assert_int_equal(tun_write(lab->tun, 0, iov, TUN_WRITE_RANGES, &(struct pkt_meta){ 0 }), 0);
    close_tun(lab);
}

static void a_super_segment_of_datagrams_arrives_as_its_segments(void **state) /* VN-6 */
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();
    static uint8_t packet[28 + 3 * 1200], chatter[65535];
    char got[1500];
    struct pkt_meta meta;
    struct iovec iov = { .iov_base = packet, .iov_len = sizeof(packet) };
    uint32_t queue;
    ssize_t n;
    int fd;

    open_tun(lab, &opt, 1);
    fd = client_socket(false);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    n = next_packet(lab->tun, chatter, &meta, &queue);
    turn_around(chatter, (size_t)n, true, &meta);
    memcpy(packet, chatter, 28);
    put_be16(packet + 2, sizeof(packet));
    put_be16(packet + 10, 0);
    put_be16(packet + 10, (uint16_t)~fold(sum_bytes(packet, 20, 0)));
    put_be16(packet + 24, (uint16_t)(sizeof(packet) - 20));
    put_be16(packet + 26, pseudo_sum(packet, sizeof(packet)));
    meta.gso = PKT_GSO_UDP;
    meta.gso_size = 1200;
    meta.hdr_len = 28;
    assert_int_equal(tun_write(lab->tun, 0, &iov, 1, &meta), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(recv(fd, got, sizeof(got), 0), 1200);
    close(fd);
}

/* ---- the device ---- */

static void a_device_has_the_queues_mtu_length_and_addresses_asked_for_and_is_gone_after_close(void **state)
{
    struct tun_lab *lab = *state;

    for (uint32_t queues = 1; queues <= 4; queues *= 2) {
        struct tun_options opt = tun_lab_options();
        struct nl_link link;

        opt.mtu = 1400;
        opt.queues = queues;
        opt.txqueuelen = 777;
        open_tun(lab, &opt, 3);
        assert_int_equal(tun_queues(lab->tun), queues);
        assert_string_equal(tun_name(lab->tun), "tun0");
        assert_int_equal(netlink_link_by_name(lab->nl, "tun0", &link), 0);
        assert_int_equal(link.ifindex, tun_ifindex(lab->tun));
        assert_int_equal(link.mtu, 1400);
        assert_int_equal(tun_mtu(lab->tun), 1400);
        assert_int_equal(link.txqueuelen, 777);
        assert_true(link.up && link.carrier);
        assert_string_equal(link.kind, "tun");
        assert_true(tun_lab_has_address(lab, "tun0", "198.18.0.1"));
        assert_true(tun_lab_has_address(lab, "tun0", "fdfe:dcba:9876::1"));
        assert_true(tun_carries(lab->tun, false) && tun_carries(lab->tun, true));
        for (uint32_t q = 0; q < queues; q++)
            assert_true((fcntl(tun_queue_fd(lab->tun, q), F_GETFL) & O_NONBLOCK) != 0);
        close_tun(lab);
        assert_false(exists(lab, "tun0"));
    }
}

static void without_a_name_the_kernel_chooses_and_without_queues_there_is_one_a_worker(void **state)
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();

    opt.name[0] = '\0';
    opt.mtu = 1200; /* below 1280: IPv6 is said to be off */
    open_tun(lab, &opt, 3);
    assert_int_equal(tun_queues(lab->tun), 3);
    assert_true(tun_name(lab->tun)[0] != '\0');
    assert_true(exists(lab, tun_name(lab->tun)));
    assert_true(tun_carries(lab->tun, false));
    assert_false(tun_carries(lab->tun, true));
}

static void offload_on_and_off_are_what_they_say(void **state)
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();
    struct err err;

    opt.offload = TUN_OFFLOAD_OFF;
    open_tun(lab, &opt, 1);
    assert_int_equal(tun_rung(lab->tun), TUN_RUNG_PLAIN);
    close_tun(lab);
    opt.offload = TUN_OFFLOAD_ON;
    open_tun(lab, &opt, 1);
    assert_true(tun_rung(lab->tun) <= TUN_RUNG_TSO);
    close_tun(lab);
    opt.best_rung = TUN_RUNG_VNET; /* as if the kernel had nothing better */
    assert_int_equal(tun_open(&opt, 1, lab->nl, &lab->tun, &err), -EOPNOTSUPP);
    assert_non_null(strstr(err.text, "offload: auto"));
    assert_false(exists(lab, "tun0"));
}

static void a_device_made_for_one_queue_is_used_with_one_and_left_as_it_was(void **state) /* faults.md V7 */
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();

    assert_true(tun_lab_sh("ip tuntap add dev tun0 mode tun"));
    open_tun(lab, &opt, 4);
    assert_int_equal(tun_queues(lab->tun), 1);
    assert_true(tun_rung(lab->tun) <= TUN_RUNG_TSO);
    check_echo(lab->tun, false);
    close_tun(lab);
    assert_true(exists(lab, "tun0"));
    assert_false(tun_lab_has_address(lab, "tun0", "198.18.0.1"));
    assert_false(tun_lab_has_address(lab, "tun0", "fdfe:dcba:9876::1"));
    assert_true(tun_lab_sh("ip tuntap del dev tun0 mode tun"));
}

static void a_machine_with_ip6_switched_off_still_gets_its_device(void **state) /* faults.md E4 */
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();

    if (access("/proc/sys/net/ipv6/conf/default/disable_ipv6", W_OK) != 0)
        SKIP("IPv6 cannot be switched off here");
    assert_true(tun_lab_sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"));
    open_tun(lab, &opt, 1);
    assert_true(tun_lab_sh("echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6"));
    assert_true(tun_carries(lab->tun, false));
    assert_false(tun_carries(lab->tun, true));
    check_echo(lab->tun, false);
}

/* ---- names ---- */

static void expect_refusal(struct tun_lab *lab, const struct tun_options *opt, int r, const char *says)
{
    struct err err = { "" };
    struct tun *untouched = NULL;

    assert_int_equal(tun_open(opt, 1, lab->nl, &untouched, &err), r);
    assert_null(untouched);
    if (strstr(err.text, says) == NULL)
        print_error("\"%s\" does not say \"%s\"\n", err.text, says);
    assert_non_null(strstr(err.text, says));
}

static void a_name_that_cannot_be_used_is_refused_with_a_sentence(void **state) /* faults.md V6 */
{
    struct tun_lab *lab = *state;
    static const struct {
        const char *name;
        int r;
        const char *says;
    } rows[] = {
        { "a-name-of-16-byt", -EINVAL, "too long" },
        { "a/b", -EINVAL, "no interface name may have" },
        { "a b", -EINVAL, "no interface name may have" },
        { "tun%d", -EINVAL, "no interface name may have" },
        { "..", -EINVAL, "no interface name" },
        { "lo", -EINVAL, "lo exists and is no TUN device that we can use" },
    };
    struct tun_options opt = tun_lab_options();

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        memset(opt.name, 0, sizeof(opt.name));
        memcpy(opt.name, rows[i].name, strlen(rows[i].name));
        expect_refusal(lab, &opt, rows[i].r, rows[i].says);
    }
    assert_true(tun_lab_sh("ip tuntap add dev tap9 mode tap"));
    snprintf(opt.name, sizeof(opt.name), "tap9");
    expect_refusal(lab, &opt, -EINVAL, "tap9 exists and is no TUN device");
    assert_true(tun_lab_sh("ip tuntap del dev tap9 mode tap"));
}

static void a_name_that_another_program_holds_is_refused_and_that_program_is_not_disturbed(
    void **state) /* V6, X4 */
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options(), second = tun_lab_options();

    open_tun(lab, &opt, 2);
    second.mtu = 1300;
    expect_refusal(lab, &second, -EBUSY, "tun0 is in use by another program");
    second.offload = TUN_OFFLOAD_OFF;
    expect_refusal(lab, &second, -EBUSY, "in use");
    check_echo(lab->tun, false);
    assert_int_equal(tun_mtu(lab->tun), 1500);
    assert_true(tun_lab_has_address(lab, "tun0", "198.18.0.1"));
}

static void numbers_out_of_range_are_refused_with_a_sentence(void **state)
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();

    opt.mtu = 575;
    expect_refusal(lab, &opt, -ERANGE, "575 is outside 576 to 65535");
    opt.mtu = 65536;
    expect_refusal(lab, &opt, -ERANGE, "65536 is outside");
    opt.mtu = 0;
    opt.queues = TUN_QUEUES_MAX + 1;
    expect_refusal(lab, &opt, -ERANGE, "more than 64");
}

/* ---- adopted descriptors ---- */

static int raw_tun(const char *name, short flags)
{
    struct ifreq ifr = { .ifr_flags = flags };
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    memcpy(ifr.ifr_name, name, strlen(name));
    assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
    return fd;
}

static void an_adopted_descriptor_carries_packets_and_nothing_else_is_configured(void **state)
{
    struct tun_lab *lab = *state;

    for (int header = 0; header < 2; header++) {
        struct tun_options opt = tun_lab_options();
        int fd = raw_tun("given0", (short)(IFF_TUN | IFF_NO_PI | (header ? IFF_VNET_HDR : 0)));

        assert_true(tun_lab_sh("ip addr add 198.18.0.1/30 dev given0 && ip link set given0 mtu 1300 up"));
        opt.fd = fd;
        open_tun(lab, &opt, 4);
        assert_string_equal(tun_name(lab->tun), "given0");
        assert_int_equal(tun_queues(lab->tun), 1);
        assert_int_equal(tun_mtu(lab->tun), 1300);
        assert_int_equal(tun_rung(lab->tun) == TUN_RUNG_PLAIN, header == 0);
        assert_false(tun_lab_has_address(lab, "given0", "fdfe:dcba:9876::1"));
        assert_true(tun_carries(lab->tun, false));
        assert_false(tun_carries(lab->tun, true));
        check_echo(lab->tun, false);
        close_tun(lab);
        assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed with the device */
    }
}

static void several_descriptors_of_one_device_are_its_queues(void **state)
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();
    short flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;

    opt.fd = raw_tun("given0", flags);
    for (int i = 0; i < 3; i++)
        opt.more_fds[opt.more_fds_count++] = raw_tun("given0", flags);
    assert_true(tun_lab_sh("ip addr add 198.18.0.1/30 dev given0 && ip link set given0 up"));
    open_tun(lab, &opt, 4);
    assert_int_equal(tun_queues(lab->tun), 4);
    for (int i = 0; i < 8; i++) /* eight source ports find several queues */
        check_echo(lab->tun, false);
}

static void a_descriptor_that_is_not_ours_to_use_is_refused_and_named(void **state) /* faults.md V5 */
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();
    int size = 12, other;

    opt.fd = 999;
    expect_refusal(lab, &opt, -EBADF, "descriptor 999 is not open");
    opt.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    expect_refusal(lab, &opt, -EINVAL, "is no TUN device");
    close(opt.fd);
    opt.fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    expect_refusal(lab, &opt, -EINVAL, "without an interface");
    close(opt.fd);
    opt.fd = raw_tun("tap9", IFF_TAP | IFF_NO_PI);
    expect_refusal(lab, &opt, -EINVAL, "TAP");
    close(opt.fd);
    opt.fd = raw_tun("given0", IFF_TUN);
    expect_refusal(lab, &opt, -EINVAL, "IFF_NO_PI");
    close(opt.fd);
    opt.fd = raw_tun("given0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
    assert_int_equal(ioctl(opt.fd, TUNSETVNETHDRSZ, &size), 0);
    expect_refusal(lab, &opt, -EINVAL, "header of 12 bytes; 10 are needed");
    size = 10;
    assert_int_equal(ioctl(opt.fd, TUNSETVNETHDRSZ, &size), 0);
    other = raw_tun("given1", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
    opt.more_fds[opt.more_fds_count++] = other;
    expect_refusal(lab, &opt, -EINVAL, "belongs to given1, the first one to given0");
    assert_true(fcntl(opt.fd, F_GETFD) >= 0); /* refused ones stay open: they are the caller's */
    close(opt.fd);
    close(other);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, tun_lab_setup, tun_lab_teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_rung_carries_packets_of_both_families_both_ways),
        TEST(a_packet_in_too_many_pieces_is_counted_and_not_written),
        TEST(a_super_segment_of_datagrams_arrives_as_its_segments),
        TEST(a_device_has_the_queues_mtu_length_and_addresses_asked_for_and_is_gone_after_close),
        TEST(without_a_name_the_kernel_chooses_and_without_queues_there_is_one_a_worker),
        TEST(offload_on_and_off_are_what_they_say),
        TEST(a_device_made_for_one_queue_is_used_with_one_and_left_as_it_was),
        TEST(a_machine_with_ip6_switched_off_still_gets_its_device),
        TEST(a_name_that_cannot_be_used_is_refused_with_a_sentence),
        TEST(a_name_that_another_program_holds_is_refused_and_that_program_is_not_disturbed),
        TEST(numbers_out_of_range_are_refused_with_a_sentence),
        TEST(an_adopted_descriptor_carries_packets_and_nothing_else_is_configured),
        TEST(several_descriptors_of_one_device_are_its_queues),
        TEST(a_descriptor_that_is_not_ours_to_use_is_refused_and_named),
    };

    return run_unless(netns_enter_with_tun(), tests);
}
