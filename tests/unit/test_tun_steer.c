/* test_tun_steer.c - faces src/tun/tun_steer.c: the program that the kernel runs against the function that it repeats, packet by packet, and
 * a device that follows it (tcp-stack.md STR-4). In a network namespace of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pkt_build.h"
#include "tun/tun_steer.h"
#include "tun_lab.h"

#define CLIENT  "10.0.0.2"
#define TARGET  "198.51.100.7"
#define CLIENT6 "2001:db8::2"
#define TARGET6 "2001:db8:1::7"

enum { ETHERNET = 14, CUT_MAX = 260, QUEUES = 4 };

static const struct hash_key key = { 0x0123456789abcdef, 0xfedcba9876543210 };
static struct pkt pkt, quoted, piece;

static int load_or_skip(const struct steer *k)
{
    int fd = steer_load(k);

    if (fd == -EPERM || fd == -ENOSYS)
        SKIP("this user may not load eBPF programs");
    assert_true(fd >= 0);
    return fd;
}

/* ---- the kernel's word for a packet ---- */

/* BPF_PROG_TEST_RUN takes an Ethernet header off before the program sees the packet, as the device has none to begin with. */
static uint16_t kernel_value(int fd, const uint8_t *packet, size_t len)
{
    uint8_t frame[ETHERNET + CUT_MAX] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 };
    union bpf_attr run;

    assert_true(len > 0 && len <= CUT_MAX);
    put_be16(frame + 12,
             0x88b5); /* nobody's, else the kernel wants a whole IP header; the program does not ask */
    memcpy(frame + ETHERNET, packet, len);
    memset(&run, 0, sizeof(run));
    run.test.prog_fd = (uint32_t)fd;
    run.test.data_in = (uintptr_t)frame;
    run.test.data_size_in = (uint32_t)(ETHERNET + len);
    if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &run, sizeof(run)) != 0)
        fail_msg("BPF_PROG_TEST_RUN of %zu bytes: %s", len, strerror(errno));
    return (uint16_t)run.test.retval;
}

struct comparison {
    int fd;
    struct steer k;
    unsigned compared, wrong;
    struct prng dice;
};

static void compare(struct comparison *c, const char *what, const uint8_t *packet, size_t len)
{
    uint16_t ours = steer_packet(&c->k, packet, len), theirs = kernel_value(c->fd, packet, len);

    c->compared++;
    if (ours == theirs)
        return;
    if (c->wrong++ < 20)
        print_error("%s, %zu bytes: %04x, and in the kernel %04x\n", what, len, ours, theirs);
}

/* The packet, every cut of it, and forms of it that one or two wrong bytes make. */
static void compare_forms(struct comparison *c, const char *what, const struct pkt *p)
{
    uint8_t bent[CUT_MAX];
    size_t len = p->len < CUT_MAX ? p->len : CUT_MAX;

    for (size_t cut = 1; cut <= len; cut++)
        compare(c, what, p->data, cut);
    for (unsigned i = 0; i < 300; i++) {
        memcpy(bent, p->data, len);
        for (unsigned n = prng_below(&c->dice, 2) + 1; n > 0; n--)
            bent[prng_below(&c->dice, (uint32_t)len)] = (uint8_t)prng_next(&c->dice);
        compare(c, what, bent, len);
    }
}

static int comparison_setup(struct comparison *c)
{
    *c = (struct comparison){ .fd = -1 };
    prng_seed(&c->dice, 7);
    steer_init(&c->k, &key);
    return c->fd = load_or_skip(&c->k);
}

static void comparison_end(const struct comparison *c)
{
    close(c->fd);
    print_message("%u packets compared\n", c->compared);
    assert_int_equal(c->wrong, 0);
}

static void compare_flows(struct comparison *c, bool v6)
{
    const char *client = v6 ? CLIENT6 : CLIENT, *target = v6 ? TARGET6 : TARGET;
    uint8_t data[1000] = { 0 };

    pkt_tcp(&pkt, client, 4000, target, 80, PKT_SYN, 1, 0, NULL, 0);
    compare_forms(c, "TCP", &pkt);
    pkt_udp(&pkt, client, 4000, target, 53, data, 20);
    compare_forms(c, "UDP", &pkt);
    pkt_echo(&pkt, client, target, 7, 1, data, 20);
    compare_forms(c, "echo", &pkt);
    pkt_raw(&pkt, client, target, 50, data, 40);
    compare_forms(c, "another protocol", &pkt);
    pkt_udp(&pkt, client, 4000, target, 53, data, sizeof(data));
    for (size_t at = 0; at < 3; at++) {
        pkt_fragment(&pkt, at * 200, 200, at < 2, 99, &piece);
        compare_forms(c, "a fragment", &piece);
    }
}

static void every_flow_has_the_same_value_in_the_kernel(void **state) /* tcp-stack.md STR-4 */
{
    struct comparison c;

    (void)state;
    comparison_setup(&c);
    compare_flows(&c, false);
    compare_flows(&c, true);
    comparison_end(&c);
}

static void so_has_every_error_and_what_it_quotes(void **state) /* tcp-stack.md STR-4 */
{
    static const size_t offsets[] = { 0, 8, 16, 304 }; /* each bit of an offset counts, the lowest too */
    struct comparison c;

    (void)state;
    comparison_setup(&c);
    for (int v6 = 0; v6 < 2; v6++) {
        const char *client = v6 ? CLIENT6 : CLIENT, *target = v6 ? TARGET6 : TARGET;

        for (uint8_t type = 0; type < 14; type++) {
            pkt_tcp(&quoted, target, 80, client, 4000, PKT_ACK, 1, 1, "x", 1);
            pkt_icmp(&pkt, client, target, type, 4, 1300, quoted.data, quoted.len);
            compare_forms(&c, "an error about TCP", &pkt);
            pkt_udp(&quoted, target, 53, client, 4000, "answer", 6);
            pkt_icmp(&pkt, client, target, type, 0, 1300, quoted.data, quoted.len);
            compare_forms(&c, "an error about UDP", &pkt);
        }
        pkt_udp(&quoted, target, 53, client, 4000, (uint8_t[600]){ 0 }, 600);
        for (unsigned i = 0; i < ARRAY_LEN(offsets); i++) {
            pkt_fragment(&quoted, offsets[i], 304, true, 99, &piece);
            pkt_icmp(&pkt, client, target, v6 ? 2 : 3, v6 ? 0 : 4, 1300, piece.data, 80);
            compare_forms(&c, "an error about a fragment", &pkt);
        }
    }
    comparison_end(&c);
}

static void so_have_options_and_extension_headers(void **state) /* tcp-stack.md STR-4 */
{
    static const uint8_t options[40] = { 148, 4, 0, 0, 1, 1, 1, 1 };
    static const uint8_t kinds[] = { 0, 60, 43, 44, 60, 51, 135 };
    uint8_t header[16] = { 0 };
    struct comparison c;

    (void)state;
    comparison_setup(&c);
    for (size_t len = 4; len <= sizeof(options); len += 4) {
        pkt_tcp(&pkt, CLIENT, 4000, TARGET, 80, PKT_ACK, 1, 1, "data", 4);
        pkt_insert_options(&pkt, options, len);
        compare_forms(&c, "IPv4 options", &pkt);
        pkt_tcp(&quoted, TARGET, 80, CLIENT, 4000, PKT_ACK, 1, 1, "x", 1);
        pkt_icmp(&pkt, CLIENT, TARGET, 11, 0, 0, quoted.data, quoted.len);
        pkt_insert_options(&pkt, options, len);
        compare_forms(&c, "an error with IPv4 options", &pkt);
    }
    for (unsigned round = 0; round < 60; round++) {
        unsigned chain = round < 12 ? round : prng_below(&c.dice, 12); /* more than anybody steps over */

        if (round % 2 == 0)
            pkt_udp(&pkt, CLIENT6, 4000, TARGET6, 53, "data", 4);
        else {
            pkt_tcp(&quoted, TARGET6, 80, CLIENT6, 4000, PKT_ACK, 1, 1, "x", 1);
            pkt_icmp(&pkt, CLIENT6, TARGET6, 2, 0, 1300, quoted.data, quoted.len);
        }
        for (unsigned i = 0; i < chain; i++) {
            uint8_t kind = kinds[round < 12 ? 1 : prng_below(&c.dice, ARRAY_LEN(kinds))];

            header[1] = kind != 44 && prng_below(&c.dice, 3) == 0; /* one of 16 bytes among those of 8 */
            pkt_insert_ext(&pkt, kind, header, header[1] ? 16 : 8, 0);
        }
        compare_forms(&c, "extension headers", &pkt);
    }
    comparison_end(&c);
}

/* Addresses of all kinds, so that every factor is used in every place. */
static void so_have_random_packets(void **state) /* tcp-stack.md STR-4 */
{
    struct comparison c;
    uint8_t bytes[120];

    (void)state;
    comparison_setup(&c);
    for (unsigned i = 0; i < 20000; i++) {
        for (size_t at = 0; at < sizeof(bytes); at++)
            bytes[at] = (uint8_t)prng_next(&c.dice);
        bytes[0] = i % 2 ? 0x45 : 0x60;
        if (i % 4 < 2)
            bytes[6] = bytes[7] = 0; /* no fragment; of IPv6 a hop-by-hop header */
        if (i % 8 < 6)
            bytes[i % 2 ? 9 : 6] = (uint8_t[]){ 1, 6, 17, 58 }[i / 8 % 4];
        compare(&c, "random bytes", bytes, 1 + prng_below(&c.dice, sizeof(bytes)));
    }
    comparison_end(&c);
}

static void who_has_no_privilege_is_refused(void **state)
{
    struct steer k;
    int status;
    pid_t pid;
    char allowed = '0';
    FILE *f = fopen("/proc/sys/kernel/unprivileged_bpf_disabled", "re");

    (void)state;
    if (f != NULL) {
        allowed = (char)fgetc(f);
        fclose(f);
    }
    if (allowed == '0')
        SKIP("this kernel lets everybody load socket filters");
    steer_init(&k, &key);
    if ((pid = fork()) == 0)
        _exit(setresuid(65534, 65534, 65534) != 0 ? 2 : steer_load(&k) == -EPERM ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- a device ---- */

static struct tun_lab *steered(void **state, uint32_t queues)
{
    struct tun_options opt = tun_lab_options();
    struct tun_lab *lab = *state;
    struct err err = { "" };

    opt.queues = queues;
    assert_int_equal(tun_open(&opt, queues, lab->nl, &lab->tun, &err), 0);
    (void)tun_steer(lab->tun, &key);
    if (strstr(tun_steering(lab->tun), "may not load") != NULL)
        SKIP("this user may not load eBPF programs");
    return lab;
}

/* Sends one datagram each from @count ports; how many came by another queue than steer_packet() says. */
static unsigned misled(struct tun_lab *lab, unsigned count)
{
    static uint8_t packet[65535];
    struct ip_port to = { .port = 9 };
    struct sockaddr_storage ss;
    struct steer k;
    unsigned wrong = 0;
    socklen_t len;

    steer_init(&k, &key);
    assert_int_equal(ip_parse("198.18.0.2", &to.addr), 0);
    len = ip_to_sockaddr(&to, &ss);
    for (unsigned i = 0; i < count; i++) {
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        unsigned seen = 0;

        assert_int_equal(sendto(fd, "x", 1, 0, (struct sockaddr *)&ss, len), 1);
        for (uint32_t q = 0; q < tun_queues(lab->tun); q++) {
            struct pkt_meta meta;
            ssize_t n;

            while ((n = tun_read(lab->tun, q, packet, sizeof(packet), &meta)) > 0) {
                if (packet[0] >> 4 != 4 || packet[9] != IP_PROTO_UDP || packet[16] >= 224)
                    continue; /* the machine's own chatter */
                seen++;
                wrong += steer_packet(&k, packet, (size_t)n) % tun_queues(lab->tun) != q;
            }
        }
        assert_int_equal(seen, 1);
        close(fd);
    }
    return wrong;
}

static void a_device_follows_the_program(void **state) /* tcp-stack.md STR-4 */
{
    struct tun_lab *lab = steered(state, QUEUES);

    assert_string_equal(tun_steering(lab->tun), "on");
    assert_int_equal(misled(lab, 200), 0);
}

static void one_queue_needs_no_program(void **state)
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();
    struct err err = { "" };

    opt.queues = 1;
    assert_int_equal(tun_open(&opt, 1, lab->nl, &lab->tun, &err), 0);
    assert_string_equal(tun_steering(lab->tun), "off: not asked for");
    assert_int_equal(tun_steer(lab->tun, &key), 0);
    assert_string_equal(tun_steering(lab->tun), "off: one queue needs none");
    assert_int_equal(misled(lab, 3), 0);
}

static bool is_reopened(void *arg)
{
    return ((struct tun_lab *)arg)->reopened > 0;
}

static void a_device_that_is_made_anew_follows_it_again(void **state) /* faults.md V4 */
{
    struct tun_lab *lab = steered(state, QUEUES);

    assert_int_equal(tun_lab_watch(lab), 0);
    assert_true(tun_lab_sh("ip link del tun0"));
    tun_report_gone(lab->tun, 0);
    assert_true(loop_wait_until(&lab->wait, 5000, is_reopened, lab));
    assert_string_equal(tun_steering(lab->tun), "on");
    assert_int_equal(misled(lab, 200), 0);
}

/* A device that somebody else made goes on choosing by itself when we are gone, and whoever comes next finds no program. */
static void a_device_that_stays_is_left_without_program(void **state)
{
    struct tun_lab *lab = *state;
    struct tun_options opt = tun_lab_options();
    struct err err = { "" };

    assert_true(tun_lab_sh("ip tuntap add dev tun0 mode tun multi_queue"));
    lab = steered(state, QUEUES);
    assert_int_equal(misled(lab, 100), 0);
    tun_close(lab->tun);
    opt.queues = QUEUES;
    assert_int_equal(tun_open(&opt, QUEUES, lab->nl, &lab->tun, &err), 0);
    assert_in_range(misled(lab, 100), 40, 100); /* 75 by chance */
    tun_close(lab->tun);
    lab->tun = NULL;
    assert_true(tun_lab_sh("ip tuntap del dev tun0 mode tun multi_queue"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, tun_lab_setup, tun_lab_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_flow_has_the_same_value_in_the_kernel),
        cmocka_unit_test(so_has_every_error_and_what_it_quotes),
        cmocka_unit_test(so_have_options_and_extension_headers),
        cmocka_unit_test(so_have_random_packets),
        cmocka_unit_test(who_has_no_privilege_is_refused),
        TEST(a_device_follows_the_program),
        TEST(one_queue_needs_no_program),
        TEST(a_device_that_is_made_anew_follows_it_again),
        TEST(a_device_that_stays_is_left_without_program),
    };

    return run_unless(netns_enter_with_tun(), tests);
}
