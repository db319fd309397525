/* test_config_hev.c - faces src/config/hev.c: files of hev-socks5-tunnel, with that program's units and defaults (config.md 1.7). */
#include "config_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define FILES  SOURCE_DIR "/tests/unit/data/hev/"
#define SOCKS5 "socks5: {port: 1080, address: 192.0.2.1}\n"

static struct config *load(const char *path)
{
    struct config_messages m = { 0 };
    struct config *c = NULL;

    if (config_load_file(path, &c, &m) != 0)
        config_print_messages(stderr, &m);
    assert_non_null(c);
    config_messages_free(&m);
    return c;
}

static void check_address(const struct config *c, size_t i, const char *address)
{
    struct ip_prefix p;

    assert_int_equal(ip_prefix_parse(address, &p), 0);
    assert_true(ip_equal(&c->tun.address[i].addr, &p.addr));
    assert_int_equal(c->tun.address[i].len, p.len);
}

static void every_value_of_a_router_arrives_in_its_struct(void **state)
{
    struct config *c = load(FILES "router.yaml");
    const struct upstream_options *up = &c->upstreams[CONFIG_TARGET_FIRST_PROXY];
    struct ip_prefix fake;

    (void)state;
    assert_true(c->has_tun);
    assert_string_equal(c->tun.name, "hev0");
    assert_int_equal(c->tun.mtu, 9000);
    assert_int_equal(c->tun.addresses, 2);
    check_address(c, 0, "10.11.12.13/32");
    check_address(c, 1, "fd11::13/128");
    assert_false(c->route.auto_route); /* routes are the user's there */
    assert_int_equal(c->route.mark, 0666);
    assert_int_equal(c->forward.echo, ECHO_MODE_REPLY);
    assert_int_equal(c->upstream_count, CONFIG_TARGET_FIRST_PROXY + 1);
    assert_string_equal(up->server.name, "proxy.example.net");
    assert_int_equal(up->server.port, 1081);
    assert_int_equal(up->udp, UPSTREAM_UDP_ON);
    assert_int_equal(up->pipelining, UPSTREAM_PIPELINING_ON);
    assert_true(up->fast_open);
    assert_string_equal(up->username, "box");
    assert_string_equal(up->password, "not 2 tell");
    assert_int_equal(c->dns.mode, DNS_MODE_FAKE_IP);
    assert_int_equal(c->dns.hijacks, 1);
    assert_int_equal(c->dns.hijack[0].to.port, 5353);
    assert_int_equal(ip_prefix_parse("100.80.0.0/13", &fake), 0);
    assert_true(ip_equal(&c->dns.fake4.addr, &fake.addr));
    assert_int_equal(c->dns.fake4.len, fake.len);
    assert_int_equal(c->dns.fake6.len, 0);
    assert_false(c->dns.fake_store);
    assert_int_equal(c->limits.tcp, 1200);
    assert_int_equal(c->limits.udp, 1200);
    assert_int_equal(c->forward.connect_timeout_ms, 4500);
    assert_int_equal(c->forward.tcp_idle_timeout_ms, 120000);
    assert_int_equal(c->forward.udp_idle_timeout_ms, 90000);
    assert_int_equal(c->log.level, LOG_ERROR);
    assert_string_equal(c->log.output, "/dev/null");
    config_free(c);
}

static void what_is_not_said_is_that_programs_default_and_not_ours(void **state)
{
    struct config *c = load(FILES "short.yaml");
    const struct upstream_options *up = &c->upstreams[CONFIG_TARGET_FIRST_PROXY];
    struct rule_flow flow = { .proto = IP_PROTO_TCP };
    struct rule_verdict verdict;

    (void)state;
    assert_string_equal(c->tun.name, "tun0");
    assert_int_equal(c->tun.mtu, 8500);
    assert_int_equal(c->stack.mtu_bytes, 8500);
    assert_int_equal(c->tun.addresses, 0);
    assert_int_equal(c->route.mark, 0);
    assert_false(c->route.interface_auto);
    assert_int_equal(c->forward.echo, ECHO_MODE_DROP);
    assert_int_equal(up->udp, UPSTREAM_UDP_OVER_TCP);
    assert_int_equal(up->pipelining, UPSTREAM_PIPELINING_OFF);
    assert_int_equal(c->dns.mode, DNS_MODE_OFF);
    assert_int_equal(c->forward.connect_timeout_ms, 10000);
    assert_int_equal(c->forward.tcp_idle_timeout_ms, 300000);
    assert_int_equal(c->forward.half_close_timeout_ms, 300000);
    assert_int_equal(c->forward.udp_idle_timeout_ms, 60000);
    assert_int_equal(c->limits.tcp, 0);
    assert_int_equal(c->log.level, LOG_WARNING);
    assert_string_equal(c->log.output, "stderr");
    rules_match(c->rules, &flow, &verdict);
    assert_int_equal(verdict.target, CONFIG_TARGET_FIRST_PROXY);
    config_free(c);
}

static void addresses_may_be_maps_and_a_mapdns_without_names_is_none(void **state)
{
    struct config *c = load(FILES "older.yaml");

    (void)state;
    assert_int_equal(c->tun.addresses, 2);
    check_address(c, 0, "198.18.0.1/32");
    check_address(c, 1, "fc00::1/128");
    assert_int_equal(c->dns.mode, DNS_MODE_OFF);
    config_free(c);
}

static void a_mistake_in_a_value_that_is_taken_over_keeps_its_place(void **state)
{
    static const struct lab_row rows[] = {
        { "tunnel: {name: a/b}\n" SOCKS5,
          "t.yaml:1:16: tun.name: \"a/b\" is no interface name; 1 to 15 bytes without space, /, : or % would "
          "work" },
        { "tunnel: {ipv4: 198.18.0.300}\n" SOCKS5, "t.yaml:1:16: tun.address[0]: \"198.18.0.300/32\" is no "
                                                   "address with a prefix length; 198.18.0.1/30 "
                                                   "would work" },
        { "tunnel: {ipv4: {prefix: 32}}\n" SOCKS5,
          "t.yaml:1:16: tunnel.ipv4: has no address; 198.18.0.1 would work" },
        { "socks5: {port: 1080, address: 192.0.2.1, mark: 12monkeys}\n",
          "t.yaml:1:48: socks5.mark: \"12monkeys\" is no mark; a number such as 438 or 0x1b6 would work" },
        { "socks5: {port: 1080, address: 'a b'}\n",
          "t.yaml:1:31: proxies[0].server: \"a b\" is neither an address nor a host name; 192.0.2.10 or "
          "proxy.example.net would work" },
        { SOCKS5
          "mapdns: {address: 10.0.0.1, port: 53, network: 100.64.0.0, netmask: 255.0.255.0, cache-size: 9}\n",
          "t.yaml:2:69: mapdns.netmask: is no mask of a network; 255.192.0.0 would work" },
        { "tunnel: {mtu: 1500}\n",
          "t.yaml:1:9: the key \"socks5\" is missing; a map with address and port would work" },
        { SOCKS5 "misc: {log-file: relative.log}\n", "t.yaml:2:18: log.output: \"relative.log\" is no place "
                                                     "for a log; stderr, stdout or an absolute path "
                                                     "would work" },
        { "tunnel: [1]\n" SOCKS5, "t.yaml:1:9: tunnel: is a list; a map (key: value) would work" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_of_a_router_arrives_in_its_struct),
        cmocka_unit_test(what_is_not_said_is_that_programs_default_and_not_ours),
        cmocka_unit_test(addresses_may_be_maps_and_a_mapdns_without_names_is_none),
        cmocka_unit_test(a_mistake_in_a_value_that_is_taken_over_keeps_its_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
