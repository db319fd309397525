/* test_base_addr.c - faces src/base/addr.c: reading, printing and judging addresses. */
#include "culvert/base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static struct ip_addr addr_of(const char *text)
{
    struct ip_addr a;

    if (ip_parse(text, &a) != 0)
        fail_msg("\"%s\" is no address", text);
    return a;
}

static const struct {
    const char *text, *printed;
} addresses[] = {
    { "192.0.2.1", "192.0.2.1" },
    { "0.0.0.0", "0.0.0.0" },
    { "255.255.255.255", "255.255.255.255" },
    { "2001:db8::1", "2001:db8::1" },
    { "[2001:db8::1]", "2001:db8::1" },
    { "2001:0DB8:0:0:0:0:0:1", "2001:db8::1" },
    { "::", "::" },
    { "::1", "::1" },
    { "::ffff:192.0.2.1", "192.0.2.1" },
    { "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8" },
    { "", NULL },
    { "1.2.3", NULL },
    { "1.2.3.4.5", NULL },
    { "1.2.3.256", NULL },
    { "1.2.3.04", NULL },
    { "0x7f.0.0.1", NULL },
    { " 1.2.3.4", NULL },
    { "1.2.3.4 ", NULL },
    { "1.2.3.4:80", NULL },
    { "[1.2.3.4]", NULL },
    { "[]", NULL },
    { "[::1", NULL },
    { "::1]", NULL },
    { ":::", NULL },
    { "1::2::3", NULL },
    { "1:2:3:4:5:6:7:8:9", NULL },
    { "fe80::1%eth0", NULL },
    { "example.com", NULL },
    { "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb", NULL },
};

static void addresses_are_read_strictly_and_printed_shortest(void **state)
{
    char text[IP_TEXT_MAX];
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
        struct ip_addr a, untouched;
        int r;

        memset(&a, 0xa5, sizeof(a));
        untouched = a;
        r = ip_parse(addresses[i].text, &a);
        if (addresses[i].printed == NULL ? r == -EINVAL && ip_equal(&a, &untouched)
                                         : r == 0 && strcmp(ip_text(&a, text), addresses[i].printed) == 0)
            continue;
        print_error("\"%s\": %d %s\n", addresses[i].text, r, r == 0 ? text : "");
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static const struct {
    const char *text, *printed;
    int len;
} prefixes[] = {
    { "10.0.0.0/8", "10.0.0.0", 104 },
    { "10.1.2.3/8", "10.0.0.0", 104 },
    { "10.1.2.3", "10.1.2.3", 128 },
    { "0.0.0.0/0", "0.0.0.0", 96 },
    { "192.168.1.77/26", "192.168.1.64", 122 },
    { "fd12:3456:789a::/33", "fd12:3456::", 33 },
    { "::/0", "::", 0 },
    { "[fd00::1]/128", "fd00::1", 128 },
    { "fd00::1", "fd00::1", 128 },
    { "::ffff:10.1.2.3/104", "10.0.0.0", 104 },
    { "10.0.0.0/33", NULL, 0 },
    { "::/129", NULL, 0 },
    { "10.0.0.0/", NULL, 0 },
    { "10.0.0.0/08", NULL, 0 },
    { "10.0.0.0/-1", NULL, 0 },
    { "10.0.0.0/+8", NULL, 0 },
    { "10.0.0.0/8 ", NULL, 0 },
    { "10.0.0.0/8/8", NULL, 0 },
    { "/8", NULL, 0 },
    { "10.0.0.0/4294967304", NULL, 0 },
    { "10.0.0/8", NULL, 0 },
    { "", NULL, 0 },
};

static void prefixes_are_read_with_host_bits_cleared(void **state)
{
    char text[IP_TEXT_MAX] = "";
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        struct ip_prefix p = { .len = 77 };
        int r = ip_prefix_parse(prefixes[i].text, &p);

        if (prefixes[i].printed == NULL ? r == -EINVAL && p.len == 77
                                        : r == 0 && p.len == prefixes[i].len &&
                                              strcmp(ip_text(&p.addr, text), prefixes[i].printed) == 0)
            continue;
        print_error("\"%s\": %d %s/%d\n", prefixes[i].text, r, text, p.len);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void an_interface_address_keeps_its_host_bits(void **state)
{
    char text[IP_TEXT_MAX];
    struct ip_prefix p;

    (void)state;
    assert_int_equal(ip_interface_parse("198.18.0.1/30", &p), 0);
    assert_string_equal(ip_text(&p.addr, text), "198.18.0.1");
    assert_int_equal(p.len, 126);
    assert_int_equal(ip_interface_parse("198.18.0.1/x", &p), -EINVAL);
}

static const struct {
    const char *prefix, *addr;
    bool in;
} members[] = {
    { "10.0.0.0/8", "10.255.255.255", true },
    { "10.0.0.0/8", "11.0.0.0", false },
    { "10.0.0.0/8", "9.255.255.255", false },
    { "192.168.1.64/26", "192.168.1.127", true },
    { "192.168.1.64/26", "192.168.1.128", false },
    { "0.0.0.0/0", "255.255.255.255", true },
    { "0.0.0.0/0", "2001:db8::1", false },
    { "::/0", "2001:db8::1", true },
    { "::/0", "192.0.2.1", false },
    { "::/1", "192.0.2.1", false },
    { "fd00::/8", "fdff::", true },
    { "fd00::/8", "fe00::", false },
    { "2001:db8::/33", "2001:db8:7fff::", true },
    { "2001:db8::/33", "2001:db8:8000::", false },
    { "192.0.2.1/32", "192.0.2.1", true },
    { "192.0.2.1/32", "192.0.2.0", false },
};

static void a_prefix_holds_exactly_its_addresses(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        struct ip_addr a = addr_of(members[i].addr);
        struct ip_prefix p;

        assert_int_equal(ip_prefix_parse(members[i].prefix, &p), 0);
        if (ip_in_prefix(&a, &p) == members[i].in)
            continue;
        print_error("%s in %s: not %d\n", members[i].addr, members[i].prefix, members[i].in);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

enum { MARTIAN = 1, MULTICAST = 2, LOOPBACK = 4, LINK_LOCAL = 8, V4 = 16 };

static const struct {
    const char *addr;
    int is;
} judged[] = {
    { "192.0.2.1", V4 },
    { "0.0.0.0", V4 | MARTIAN },
    { "0.255.255.255", V4 | MARTIAN },
    { "1.0.0.0", V4 },
    { "126.255.255.255", V4 },
    { "127.0.0.1", V4 | MARTIAN | LOOPBACK },
    { "127.255.255.255", V4 | MARTIAN | LOOPBACK },
    { "128.0.0.0", V4 },
    { "169.254.0.1", V4 | LINK_LOCAL },
    { "169.253.0.1", V4 },
    { "223.255.255.255", V4 },
    { "224.0.0.1", V4 | MARTIAN | MULTICAST },
    { "239.255.255.255", V4 | MARTIAN | MULTICAST },
    { "240.0.0.0", V4 | MARTIAN },
    { "255.255.255.255", V4 | MARTIAN },
    { "::", MARTIAN },
    { "::1", MARTIAN | LOOPBACK },
    { "::2", 0 },
    { "2001:db8::1", 0 },
    { "fe7f::1", 0 },
    { "fe80::1", LINK_LOCAL },
    { "febf::1", LINK_LOCAL },
    { "fec0::1", 0 },
    { "feff::1", 0 },
    { "ff00::", MARTIAN | MULTICAST },
    { "ff02::1", MARTIAN | MULTICAST },
};

/* What the stack asks for rows P6 and P7. */
static void addresses_that_no_flow_may_have_are_martians(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(judged); i++) {
        struct ip_addr a = addr_of(judged[i].addr);
        int is = (ip_is_martian(&a) ? MARTIAN : 0) | (ip_is_multicast(&a) ? MULTICAST : 0) |
                 (ip_is_loopback(&a) ? LOOPBACK : 0) | (ip_is_link_local(&a) ? LINK_LOCAL : 0) |
                 (ip_is4(&a) ? V4 : 0);

        if (is == judged[i].is)
            continue;
        print_error("%s: %#x, not %#x\n", judged[i].addr, (unsigned)is, (unsigned)judged[i].is);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void only_what_the_internet_reaches_is_public(void **state)
{
    static const char *const no[] = {
        "0.0.0.0",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "198.19.255.255",
        "203.0.113.9",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fdff::1",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "2001::1",
        "100::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2002:c0a8:101::1",
    };
    static const char *const yes[] = {
        "1.1.1.1",    "9.255.255.255",    "11.0.0.1",        "100.63.0.1", "100.128.0.1",     "172.15.0.1",
        "172.32.0.1", "192.0.1.1",        "198.17.255.255",  "198.20.0.1", "223.255.255.255", "2606:4700::1",
        "2a00::1",    "64:ff9b::101:101", "2002:101:101::1", "2003::1",    "fbff::1",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(no); i++) {
        struct ip_addr a = addr_of(no[i]);

        if (ip_is_public(&a))
            fail_msg("%s is public", no[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        struct ip_addr a = addr_of(yes[i]);

        if (!ip_is_public(&a))
            fail_msg("%s is not public", yes[i]);
    }
}

static void bytes_of_packets_become_the_same_addresses_as_text(void **state)
{
    static const uint8_t four[4] = { 192, 0, 2, 1 }, six[16] = { 0x20, 0x01, 0x0d, 0xb8, [15] = 1 };
    struct ip_addr a = ip_from4(four), b = addr_of("192.0.2.1"), c = ip_from6(six),
                   d = addr_of("2001:db8::1");

    (void)state;
    assert_true(ip_equal(&a, &b));
    assert_true(ip_equal(&c, &d));
    assert_false(ip_equal(&a, &c));
    assert_false(ip_is_none(&a));
    assert_true(ip_is_none(&(struct ip_addr){ .w = { 0 } }));
}

static void socket_addresses_go_there_and_back(void **state)
{
    static const char *const both[] = { "192.0.2.1", "2001:db8::1" };
    struct sockaddr other = { .sa_family = AF_UNIX };
    struct ip_port from, back;
    struct sockaddr_storage sa;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        from = (struct ip_port){ .addr = addr_of(both[i]), .port = 65534 };
        assert_int_equal(ip_to_sockaddr(&from, &sa), i == 0 ? 16 : 28);
        assert_int_equal(sa.ss_family, i == 0 ? AF_INET : AF_INET6);
        assert_int_equal(ip_from_sockaddr((struct sockaddr *)&sa, &back), 0);
        assert_true(ip_port_equal(&from, &back));
        back.port--;
        assert_false(ip_port_equal(&from, &back));
    }
    assert_int_equal(ip_from_sockaddr(&other, &back), -EAFNOSUPPORT);
}

static void an_address_with_a_port_prints_with_brackets_only_for_ipv6(void **state)
{
    struct ip_port four = { .addr = addr_of("1.2.3.4"), .port = 5 },
                   six = { .addr = addr_of("::1"), .port = 65535 };
    struct ip_port longest = { .addr = addr_of("1111:2222:3333:4444:5555:6666:7777:8888"), .port = 65535 };
    char text[IP_PORT_TEXT_MAX];

    (void)state;
    assert_string_equal(ip_port_text(&four, text), "1.2.3.4:5");
    assert_string_equal(ip_port_text(&six, text), "[::1]:65535");
    assert_string_equal(ip_port_text(&longest, text), "[1111:2222:3333:4444:5555:6666:7777:8888]:65535");
}

static void flow_keys_differ_in_every_field(void **state)
{
    struct flow_key a = { .client = addr_of("192.0.2.1"),
                          .target = addr_of("192.0.2.2"),
                          .client_port = 1,
                          .target_port = 2,
                          .proto = IP_PROTO_TCP };
    struct flow_key b[5] = { a, a, a, a, a };

    (void)state;
    assert_true(flow_key_equal(&a, &b[0]));
    b[0].client.b[15]++;
    b[1].target.b[15]++;
    b[2].client_port++;
    b[3].target_port++;
    b[4].proto = IP_PROTO_UDP;
    for (size_t i = 0; i < ARRAY_LEN(b); i++)
        assert_false(flow_key_equal(&a, &b[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_strictly_and_printed_shortest),
        cmocka_unit_test(prefixes_are_read_with_host_bits_cleared),
        cmocka_unit_test(an_interface_address_keeps_its_host_bits),
        cmocka_unit_test(a_prefix_holds_exactly_its_addresses),
        cmocka_unit_test(addresses_that_no_flow_may_have_are_martians),
        cmocka_unit_test(only_what_the_internet_reaches_is_public),
        cmocka_unit_test(bytes_of_packets_become_the_same_addresses_as_text),
        cmocka_unit_test(socket_addresses_go_there_and_back),
        cmocka_unit_test(an_address_with_a_port_prints_with_brackets_only_for_ipv6),
        cmocka_unit_test(flow_keys_differ_in_every_field),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
