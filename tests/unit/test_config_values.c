/* test_config_values.c - what a loaded configuration holds, what it warns of, and that it keeps its secrets. */
#include "config_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MATCH       "rules: ['MATCH,DIRECT']\n"
#define PROXY(more) "proxies: [{name: a, type: socks5, server: h, port: 1" more "}]\nrules: ['MATCH,a']\n"

static void free_text(char **text)
{
    free(*text);
}
#define AUTO_TEXT __attribute__((cleanup(free_text))) char *

/* ---- values ------------------------------------------------------------------------------------------------------ */

static void the_minimal_file_has_the_defaults_of_the_schema(void **state)
{
    struct config *c = lab_load("tun: {auto-route: true}\n" MATCH);

    (void)state;
    assert_true(c->has_tun);
    assert_false(c->has_serve);
    assert_int_equal(c->workers, 0);
    assert_int_equal(c->limits.memory_bytes, 0);
    assert_int_equal(c->limits.per_source, 0);
    assert_int_equal(c->log.level, LOG_INFO);
    assert_int_equal(c->log.format, LOG_TEXT);
    assert_string_equal(c->log.output, "stderr");
    assert_string_equal(c->tun.name, "culvert0");
    assert_int_equal(c->tun.fd, -1);
    assert_int_equal(c->tun.mtu, 1500);
    assert_int_equal(c->tun.queues, 0);
    assert_int_equal(c->tun.offload, TUN_OFFLOAD_AUTO);
    assert_int_equal(c->tun.addresses, 2);
    assert_int_equal(c->tun.address[0].len, 96 + 30);
    assert_true(c->route.auto_route);
    assert_int_equal(c->route.mark, 0x1b6);
    assert_true(c->route.interface_auto);
    assert_int_equal(c->route.excludes, 0);
    assert_int_equal(c->forward.accept, TCP_ACCEPT_LATE);
    assert_int_equal(c->forward.connect_timeout_ms, 10000);
    assert_int_equal(c->forward.tcp_idle_timeout_ms, 7200000);
    assert_int_equal(c->forward.half_close_timeout_ms, 60000);
    assert_int_equal(c->forward.udp_idle_timeout_ms, 300000);
    assert_int_equal(c->forward.dns_idle_timeout_ms, 10000);
    assert_int_equal(c->forward.echo, ECHO_MODE_AUTO); /* icmp.md M16 */
    assert_int_equal(c->forward.echo_unsupported, ECHO_MODE_REPLY_IF_HEALTHY);
    assert_int_equal(c->forward.echo_down, ECHO_DOWN_DROP);
    assert_int_equal(c->forward.echo_ttl, ECHO_TTL_HOP);
    assert_true(c->forward.echo_relay_errors);
    assert_int_equal(c->forward.echo_max_flows, 1024);
    assert_int_equal(c->stack.keepalive_idle_ms, 300000);
    assert_int_equal(c->stack.icmp_errors_per_second, 1000);
#ifdef WITH_API
    assert_string_equal(c->api_unix, "/run/culvert/api.sock");
#else
    assert_null(c->api_unix);
#endif
    assert_false(c->api_unix_set);
    config_free(c);
}

static void every_value_arrives_in_its_struct(void **state)
{
    struct config *c = lab_load(
        "runtime: {workers: 3}\n"
        "limits: {memory: 64MiB, tcp: 5000, udp: 300, per-source: 200}\n"
        "log: {level: debug, format: json, output: /tmp/x.log}\n"
        "tun:\n"
        "  name: tun9\n"
        "  address: 10.9.0.1/24\n"
        "  mtu: 1400\n"
        "  queues: 2\n"
        "  offload: false\n"
        "  routing-mark: 77\n"
        "  interface-name: eth1\n"
        "  route-exclude-address: [192.168.0.0/16, 'fd12:3456::/32']\n"
        "stack:\n"
        "  tcp: {congestion: newreno, connect-timeout: 300ms, keepalive: off, idle-timeout: 90}\n"
        "  udp: {nat: symmetric, idle-timeout: 2m, dns-idle-timeout: 3s}\n"
        "  icmp: {echo: drop, on-down: reject, on-unsupported: reject, delay: none, errors-per-second: 5, "
        "ttl: transparent, relay-errors: false, max-flows: 7}\n"
        "serve: {socks5: {listen: '[::1]:0', udp: false, users: {al: pw}, allow: 10.0.0.0/8}}\n"
        "api: {unix: none}\n" MATCH);

    (void)state;
    assert_int_equal(c->workers, 3);
    assert_int_equal(c->limits.memory_bytes, 64 << 20);
    assert_int_equal(c->limits.tcp, 5000);
    assert_int_equal(c->limits.udp, 300);
    assert_int_equal(c->limits.per_source, 200);
    assert_int_equal(c->log.level, LOG_DEBUG);
    assert_int_equal(c->log.format, LOG_JSON);
    assert_string_equal(c->log.output, "/tmp/x.log");
    assert_string_equal(c->tun.name, "tun9");
    assert_int_equal(c->tun.addresses, 1);
    assert_int_equal(c->tun.mtu, 1400);
    assert_int_equal(c->stack.mtu_bytes, 1400);
    assert_int_equal(c->tun.queues, 2);
    assert_int_equal(c->tun.offload, TUN_OFFLOAD_OFF);
    assert_false(c->route.auto_route);
    assert_int_equal(c->route.mark, 77);
    assert_string_equal(c->route.interface_name, "eth1");
    assert_false(c->route.interface_auto);
    assert_int_equal(c->route.excludes, 2);
    assert_int_equal(c->stack.congestion, TCP_CC_NEWRENO);
    assert_int_equal(c->stack.keepalive_idle_ms, 0);
    assert_int_equal(c->stack.icmp_errors_per_second, 5);
    assert_int_equal(c->forward.connect_timeout_ms, 300);
    assert_int_equal(c->forward.tcp_idle_timeout_ms, 90000);
    assert_int_equal(c->forward.nat, UDP_NAT_SYMMETRIC);
    assert_int_equal(c->forward.udp_idle_timeout_ms, 120000);
    assert_int_equal(c->forward.dns_idle_timeout_ms, 3000);
    assert_int_equal(c->forward.echo, ECHO_MODE_DROP);
    assert_int_equal(c->forward.echo_down, ECHO_DOWN_REJECT);
    assert_int_equal(c->forward.echo_unsupported, ECHO_MODE_REJECT);
    assert_int_equal(c->forward.echo_ttl, ECHO_TTL_TRANSPARENT);
    assert_false(c->forward.echo_relay_errors);
    assert_int_equal(c->forward.echo_max_flows, 7);
    assert_int_equal(c->forward.echo_delay, ECHO_DELAY_NONE);
    assert_true(c->has_serve);
    assert_true(ip_is_loopback(&c->serve.listen.addr));
    assert_false(c->serve.udp);
    assert_int_equal(c->serve.user_count, 1);
    assert_string_equal(c->serve.users[0].name, "al");
    assert_string_equal(c->serve.users[0].password, "pw");
    assert_int_equal(c->serve.allows, 1);
    assert_null(c->api_unix);
#ifdef WITH_API
    assert_true(c->api_unix_set);
#endif
    config_free(c);
}

static void without_auto_route_sockets_are_neither_marked_nor_bound(void **state)
{
    struct config *c = lab_load("tun: {}\n" MATCH);

    (void)state;
    assert_int_equal(c->route.mark, 0);
    assert_false(c->route.interface_auto);
    config_free(c);
}

static void proxies_are_maps_or_urls_after_the_three_that_are_always_there(void **state)
{
    struct config *c =
        lab_load("proxies:\n"
                 "  - {name: one, type: socks5, server: Proxy.Example.NET., port: 1081, udp: false,\n"
                 "     username: u, password: 010, interface-name: wan2, routing-mark: 0x2}\n"
                 "  - socks5://bob:pw@192.0.2.11:1080#two\n"
                 "rules: ['MATCH,two']\n");
    const struct upstream_options *u = c->upstreams;

    (void)state;
    assert_int_equal(c->upstream_count, 5);
    assert_string_equal(u[CONFIG_TARGET_DIRECT].name, "DIRECT");
    assert_int_equal(u[CONFIG_TARGET_REJECT].kind, UPSTREAM_REJECT);
    assert_int_equal(u[CONFIG_TARGET_REJECT_DROP].kind, UPSTREAM_REJECT_DROP);
    assert_string_equal(u[3].name, "one");
    assert_int_equal(u[3].kind, UPSTREAM_SOCKS5);
    assert_string_equal(u[3].server.name, "proxy.example.net");
    assert_int_equal(u[3].server.port, 1081);
    assert_int_equal(u[3].udp, UPSTREAM_UDP_OFF);
    assert_string_equal(u[3].password, "010"); /* as written */
    assert_string_equal(u[3].interface_name, "wan2");
    assert_int_equal(u[3].routing_mark, 2);
    assert_string_equal(u[4].name, "two");
    assert_null(u[4].server.name);
    assert_int_equal(u[4].server.port, 1080);
    assert_string_equal(u[4].username, "bob");
    assert_int_equal(u[4].udp, UPSTREAM_UDP_AUTO);
    config_free(c);
}

static uint32_t verdict(const struct config *c, const char *client, const char *target, uint16_t port,
                        enum ip_proto proto)
{
    struct rule_flow flow = { .target.port = port, .proto = proto };
    struct rule_verdict v;

    assert_int_equal(ip_parse(client, &flow.client.addr), 0);
    assert_int_equal(ip_parse(target, &flow.target.addr), 0);
    rules_match(c->rules, &flow, &v);
    return v.target;
}

/* icmp.md M12: the target would see this host. */
static void only_direct_may_proxy_pings(void **state)
{
    char *says = lab_says("proxies: [{name: a, type: socks5, server: h, port: 1}]\n"
                          "rules: [{network: icmp, via: a, echo: proxy}, 'MATCH,a']\n");
    struct config *c;

    (void)state;
    assert_non_null(strstr(says, "echo: proxy shows the target this host"));
    free(says);
    c = lab_load("rules: [{network: icmp, via: DIRECT, echo: proxy}, 'MATCH,REJECT']\n");
    assert_true(c->forward.echo_direct);
    config_free(c);
    c = lab_load("rules: [{network: icmp, via: DIRECT, echo: drop}, 'MATCH,REJECT']\n");
    assert_false(c->forward.echo_direct);
    config_free(c);
}

static void rules_as_text_and_as_maps_decide_alike(void **state)
{
    struct config *c =
        lab_load("proxies: [{name: a, type: socks5, server: h, port: 1}]\n"
                 "rules:\n"
                 "  - IP-CIDR,10.0.0.0/8,DIRECT\n"
                 "  - {dst-cidr: [172.16.0.0/12, 'fd00::/8'], network: tcp, via: a, name: inner}\n"
                 "  - {src-cidr: 192.168.1.64/26, dst-port: [25, 8000-8999], via: REJECT-DROP}\n"
                 "  - NETWORK,icmp,REJECT\n"
                 "  - MATCH,a\n");

    (void)state;
    assert_int_equal(rules_count(c->rules), 5);
    assert_string_equal(rules_name(c->rules, 1), "inner");
    assert_string_equal(rules_name(c->rules, 2), "rules[2]");
    assert_string_equal(rules_name(c->rules, 4), "MATCH,a");
    assert_int_equal(verdict(c, "192.168.1.1", "10.1.2.3", 80, IP_PROTO_TCP), CONFIG_TARGET_DIRECT);
    assert_int_equal(verdict(c, "192.168.1.1", "172.16.0.1", 80, IP_PROTO_TCP), 3);
    assert_int_equal(verdict(c, "fd01::1", "fd00::1", 80, IP_PROTO_TCP), 3);
    assert_int_equal(verdict(c, "192.168.1.65", "192.0.2.1", 8500, IP_PROTO_UDP), CONFIG_TARGET_REJECT_DROP);
    assert_int_equal(verdict(c, "192.168.1.1", "192.0.2.1", 0, IP_PROTO_ICMP), CONFIG_TARGET_REJECT);
    assert_int_equal(verdict(c, "192.168.1.1", "192.0.2.1", 8500, IP_PROTO_UDP), 3);
    config_free(c);
}

static void a_proxy_url_alone_is_a_whole_configuration(void **state)
{
    struct config_messages m = { 0 };
    struct config *c = NULL;

    (void)state;
    assert_int_equal(config_from_proxy_url("socks5://bob:pw@192.0.2.11:1080", &c, &m), 0);
    assert_int_equal(m.count, 0);
    assert_true(c->has_tun);
    assert_true(c->route.auto_route);
    assert_int_equal(c->route.mark, 0x1b6);
    assert_true(c->route.interface_auto);
    assert_int_equal(c->upstream_count, 4);
    assert_int_equal(c->upstreams[3].udp, UPSTREAM_UDP_AUTO);
    assert_int_equal(rules_count(c->rules), 1);
    assert_int_equal(verdict(c, "10.0.0.1", "192.0.2.1", 80, IP_PROTO_TCP), 3);
    config_free(c);
    config_messages_free(&m);
}

static void a_wrong_proxy_url_is_an_error_without_its_password(void **state) /* faults.md G7 */
{
    static const char *const urls[] = {
        "socks5://bob:hunter2@h:99999", "masque://bob:hunter2@:1",       "bob:hunter2@h:1",
        "socks5://bob:hunter2@",        "socks5://bob:hunter2@h:1/path", "socks5://hunter2@h:1",
        "vmess://hunter2@h:1"
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        struct config_messages m = { 0 };
        struct config *c = NULL;

        assert_int_equal(config_from_proxy_url(urls[i], &c, &m), -22);
        assert_int_equal(m.errors, 1);
        assert_null(strstr(m.list[0].text, "hunter2"));
        config_messages_free(&m);
    }
}

/* ---- checks across sections (faults.md C8) -------------------------------------------------------------------------- */

static void ranges_that_overlap_are_refused(void **state) /* faults.md C8, S19 */
{
    static const struct lab_row rows[] = {
        { "tun: {address: [10.0.0.1/24, 10.0.0.9/30]}\n" MATCH,
          "t.yaml:1:30: tun.address[1]: its range overlaps that of 10.0.0.1 on line 1; give each its own" },
        { "tun: {route-exclude-address: 198.18.0.0/15}\n" MATCH,
          "t.yaml:1:30: tun.route-exclude-address[0]: overlaps tun.address (198.18.0.1, a default); exclude "
          "less, or set another tun.address" },
        { "tun:\n  route-exclude-address: [10.0.0.0/8, 'fd00::1']\n  address: ['fd00::1/64']\n" MATCH,
          "t.yaml:2:39: tun.route-exclude-address[1]: overlaps tun.address (fd00::1 on line 3); exclude "
          "less, "
          "or set another tun.address" },
        { "tun: {route-exclude-address: 0.0.0.0/0}\n" MATCH,
          "t.yaml:1:30: tun.route-exclude-address[0]: overlaps tun.address (198.18.0.1, a default); exclude "
          "less, or set another tun.address" },
        { "tun: {address: [10.0.0.1/25, 10.0.0.129/25]}\n" MATCH, "" },
        { "proxies: [{name: a, type: socks5, server: 198.18.0.2, port: 1}]\nrules: ['MATCH,a']\n",
          "t.yaml:1:18: proxies[0].server: lies inside tun.address, so it could never be reached" },
        { "proxies: [{name: a, type: socks5, server: 0.0.0.0, port: 1}]\nrules: ['MATCH,a']\n",
          "t.yaml:1:43: proxies[0].server: \"0.0.0.0\" is no address that a server can have; 192.0.2.10 or "
          "proxy.example.net would work" },
        { "tun: {mtu: 1279}\n" MATCH,
          "t.yaml:1:12: tun.mtu: IPv6 needs 1280 or more; raise it, or set tun.address without IPv6" },
        { "tun: {mtu: 576, address: 10.0.0.1/24}\n" MATCH, "" },
        { "tun: {address: 224.0.0.1/24}\n" MATCH, "t.yaml:1:16: tun.address: \"224.0.0.1/24\" cannot be the "
                                                  "address of an interface; 198.18.0.1/30 would work" },
        { "tun: {address: 10.0.0.1/7}\n" MATCH, "t.yaml:1:16: tun.address: \"10.0.0.1/7\" covers too many "
                                                "addresses; a prefix length of 8 or more would work" },
        { "tun: {name: x, fd: 3}\n" MATCH,
          "t.yaml:1:13: tun.name: an adopted descriptor (tun.fd, line 1) has its name "
          "already; keep one of the two" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void names_that_nothing_has_and_names_twice(void **state) /* faults.md C2 */
{
    static const struct lab_row rows[] = {
        { "proxies: ['socks5://h:1#up', 'socks5://h:2#up']\nrules: ['MATCH,up']\n",
          "t.yaml:1:30: proxies[1]: the name \"up\" is there twice; the first is on line 1, column 11" },
        { "proxies: ['socks5://h:1#DIRECT']\nrules: ['MATCH,DIRECT']\n",
          "t.yaml:1:11: proxies[0]: the name \"DIRECT\" is built in; choose another one" },
        { "proxies: ['socks5://h:1#office']\nrules: ['MATCH,ofice']\n",
          "t.yaml:2:16: rules[0]: no proxy is called \"ofice\"; did you mean \"office\"?" },
        { "rules: ['MATCH,direct']\n",
          "t.yaml:1:16: rules[0]: no proxy is called \"direct\"; did you mean \"DIRECT\"?" },
        { "rules: [MATCH,DIRECT]\n", "t.yaml:1:14: rules[0]: the target is missing; end the rule with a "
                                     "proxy, a group, DIRECT, REJECT or "
                                     "REJECT-DROP; between [ and ], a rule stands in quotes\n"
                                     "t.yaml:1:15: rules[1]: unknown rule \"DIRECT\"; write "
                                     "TYPE,VALUE,TARGET as in IP-CIDR,10.0.0.0/8,DIRECT; "
                                     "between [ and ], a rule stands in quotes" },
        { "proxy-groups: [{name: DIRECT, type: select, proxies: DIRECT}]\nrules: ['MATCH,DIRECT']\n",
          "t.yaml:1:23: proxy-groups[0]: the name \"DIRECT\" is built in; choose another one" },
        { "proxies: ['socks5://h:1#a']\nproxy-groups: [{name: a, type: select, proxies: a}]\nrules: "
          "['MATCH,a']\n",
          "t.yaml:2:23: proxy-groups[0]: the name \"a\" is there twice; the first is on line 1, column 11" },
        { "proxy-groups: [{name: a, type: select, proxies: [b]}, {name: b, type: select, proxies: [DIRECT, "
          "a]}]\nrules: ['MATCH,a']\n",
          "t.yaml:1:97: proxy-groups[1]: goes round in a circle: \"a\" leads back here; take one of them "
          "out" },
        { "proxies: [{name: a, type: socks5, server: h, port: 1, dialer-proxy: g}]\nproxy-groups: [{name: g, "
          "type: select, proxies: [DIRECT, a]}]\nrules: ['MATCH,a']\n",
          "t.yaml:2:58: proxy-groups[0]: goes round in a circle: \"a\" leads back here; take one of them "
          "out" },
        { "proxies: [{name: m, type: masque, server: h, port: 1, dialer-proxy: a}, {name: a, type: masque, "
          "server: h, port: 1, dialer-proxy: m}]\nrules: ['MATCH,a']\n",
          "t.yaml:1:131: proxies[1]: goes round in a circle: \"m\" leads back here; take one of them out" },
        { "proxy-groups: [{name: g, type: select, proxies: [DIRECT, DIRECT]}]\nrules: ['MATCH,g']\n",
          "t.yaml:1:58: proxy-groups[0].proxies[1]: is there twice; once is enough" },
        { "proxy-groups: [{name: g, type: relay, proxies: [DIRECT]}]\nrules: ['MATCH,g']\n",
          "t.yaml:1:32: proxy-groups[0].type: \"relay\" is not supported; select, url-test, fallback or "
          "load-balance "
          "would work, or, for a chain, each proxy but the first with the one before it as its "
          "dialer-proxy" },
        { "proxy-groups: [{name: g, type: select, proxies: []}]\nrules: ['MATCH,g']\n",
          "t.yaml:1:23: proxy-groups[0]: has no members; proxies: [...] names them" },
        { "proxy-groups: [{name: g, type: select, proxies: DIRECT, strategy: sticky}]\nrules: ['MATCH,g']\n",
          "t.yaml:1:67: proxy-groups[0]: strategy belongs to type load-balance; leave it out" },
        { "proxy-groups: [{name: g, type: select, include-all: true, proxies: DIRECT}]\nrules: ['MATCH,g']\n",
          "t.yaml:1:40: proxy-groups[0]: the key \"include-all\" of mihomo is not supported; proxies names "
          "the members one by one" },
        { "rules: ['GEOSITE,cn,DIRECT', {via: DIRECT}]\n", NULL },
        { "rules: ['SUB-RULE,(NETWORK,tcp),x', {via: DIRECT}]\n", NULL },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows) - 2), 0);
    for (size_t i = ARRAY_LEN(rows) - 2; i < ARRAY_LEN(rows); i++) { /* the sentence is src/rules' own */
        AUTO_TEXT says = lab_says(rows[i].yaml);

        assert_int_equal(strncmp(says, "t.yaml:1:10: rules[0]: ", 23), 0);
        assert_non_null(strstr(says, "not supported"));
    }
}

static void what_works_but_surprises_earns_a_warning(void **state)
{
    static const struct lab_row rows[] = {
        { "tun: {}\n",
          "t.yaml: warning: rules: no MATCH at the end; what no rule takes is rejected, as by MATCH,REJECT" },
        { "rules: ['IP-CIDR,10.0.0.0/8,DIRECT']\n", "t.yaml:1:9: warning: rules: no MATCH at the end; what "
                                                    "no rule takes is rejected, as by MATCH,REJECT" },
        { "rules: ['MATCH,DIRECT', 'IP-CIDR,10.0.0.0/8,DIRECT']\n",
          "t.yaml:1:25: warning: rules[1]: is never reached, since rules[0] takes everything" },
        { "serve: {socks5: {listen: '0.0.0.0:1080'}}\n",
          "t.yaml:1:26: warning: serve.socks5.listen: whoever reaches this address may use it; set "
          "serve.socks5.users" },
        { "serve: {socks5: {listen: '0.0.0.0:1080', users: {a: b}}}\n", "" },
        { "serve: {socks5: {}}\n", "" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

/* ---- secrets (config.md section 1, point 4) ----------------------------------------------------------------------------- */

static char folder[] = "/tmp/culvert-secret-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) != NULL ? chdir(folder) : -1;
}

static int remove_folder(void **state)
{
    static const char *const names[] = { "pw", "empty", "long", "nul", "cred", "c.yaml" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        remove(names[i]);
    return chdir("/") == 0 ? rmdir(folder) : -1;
}

static void write_bytes(const char *name, const char *text, size_t len, mode_t mode)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(name, mode), 0);
}

static void write_text(const char *name, const char *text, mode_t mode)
{
    write_bytes(name, text, strlen(text), mode);
}

static void a_secret_is_text_or_in_a_file_the_environment_or_a_credential(void **state)
{
    static const char *const forms[] = { "hunter2", "{file: pw}", "{env: CULVERT_TEST_PW}",
                                         "{credential: cred}" };

    (void)state;
    write_text("pw", "hunter2\r\n", 0600);
    write_text("cred", "hunter2", 0600);
    setenv("CULVERT_TEST_PW", "hunter2", 1);
    setenv("CREDENTIALS_DIRECTORY", folder, 1);
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        struct config *c;
        char *yaml;

        assert_true(asprintf(&yaml, PROXY(", username: u, password: %s"), forms[i]) > 0);
        c = lab_load(yaml);
        assert_string_equal(c->upstreams[3].password, "hunter2");
        config_free(c);
        free(yaml);
    }
    unsetenv("CULVERT_TEST_PW");
    unsetenv("CREDENTIALS_DIRECTORY");
}

static void a_secret_that_cannot_be_had_says_why(void **state)
{
#define SECRET(form, at, says)                                                                               \
    {                                                                                                        \
        PROXY(", username: u, password: " form), "t.yaml:1:" at ": proxies[0].password" says                 \
    }
    static const struct lab_row rows[] = {
        SECRET("{file: nowhere}", "85",
               ".file: the secret's file \"nowhere\" cannot be read: there is no such file"),
        SECRET("{file: /tmp}", "85", ".file: the secret's file \"/tmp\" is a folder; give the file in it"),
        SECRET("{file: /dev/zero}", "85",
               ".file: the secret's file \"/dev/zero\" is a device; only a regular file can be read"),
        SECRET("{file: empty}", "85", ".file: the secret has 0 bytes; 1 to 255 would work"),
        SECRET("{file: long}", "85", ".file: the secret has 256 bytes; 1 to 255 would work"),
        SECRET("{file: nul}", "85", ".file: the secret holds a NUL byte; remove it"),
        SECRET("{file: }", "85", ".file: has no value; one word would work"),
        SECRET("{env: CULVERT_NO_SUCH}", "84",
               ".env: the environment has no variable \"CULVERT_NO_SUCH\"; set it, or use {file: PATH}"),
        SECRET("{credential: x}", "91",
               ".credential: systemd handed over no credentials; the unit needs LoadCredential=x:PATH"),
        SECRET("{credential: ../x}", "91", ".credential: \"../x\" is no name of a credential"),
        SECRET("{fil: x}", "78",
               ": is not one of the forms of a secret; text, {file: PATH}, {env: NAME} or {credential: NAME} "
               "would work"),
        SECRET("{file: a, env: b}", "78",
               ": is not one of the forms of a secret; text, {file: PATH}, {env: NAME} or {credential: NAME} "
               "would work"),
        SECRET("[a]", "78", ": is a list; text, {file: PATH}, {env: NAME} or {credential: NAME} would work"),
        { PROXY(", username: u"),
          "t.yaml:1:11: proxies[0]: has a username and no password; a login is both (RFC 1929)" },
        { PROXY(", password: p"),
          "t.yaml:1:11: proxies[0]: has a password and no username; a login is both (RFC 1929)" },
    };
    char long_text[257];

    (void)state;
    memset(long_text, 'x', 256);
    long_text[256] = '\0';
    write_text("empty", "\n", 0600);
    write_text("long", long_text, 0600);
    write_bytes("nul", "a\0b", 3, 0600);
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void a_secret_that_everybody_can_read_earns_a_warning(void **state)
{
    char path[128], expected[300];
    AUTO_TEXT open_text = NULL;
    AUTO_TEXT closed_text = NULL;
    AUTO_TEXT named = NULL;

    (void)state;
    write_text("c.yaml", PROXY(", username: u, password: hunter2"), 0644);
    snprintf(path, sizeof(path), "%s/c.yaml", folder);
    open_text = lab_says_file(path);
    snprintf(expected, sizeof(expected),
             "%s:1:78: warning: a secret in a file that every user of the machine can read; chmod o-r would "
             "help, or "
             "{file: PATH}",
             path);
    assert_string_equal(open_text, expected);
    chmod("c.yaml", 0640);
    closed_text = lab_says_file(path);
    assert_string_equal(closed_text, "");

    write_text("c.yaml", PROXY(", username: u, password: {file: pw}"),
               0644); /* pw is beside the file, not here */
    write_text("pw", "hunter2", 0644);
    assert_int_equal(chdir("/"), 0);
    named = lab_says_file(path);
    assert_int_equal(chdir(folder), 0);
    assert_non_null(strstr(named, "holds a secret and every user of the machine can read it"));
    assert_null(strstr(named, "hunter2"));
}

static void no_message_ever_shows_a_secret(void **state) /* faults.md G7 */
{
    static const char *const yamls[] = {
        "proxies: [{name: a, type: 'socks5://u:hunter2@h', server: h, port: 1, username: u, password: "
        "hunter2, x: 1}]\n",
        "proxies: ['socks5://u:hunter2@h:99999']\n",
        "proxies: ['vmess://hunter2@h:1']\n",
        "proxies: [{name: a, type: socks5, server: 'http://u:hunter2@h', port: 1}]\n",
        "log: {output: 'https://u:hunter2@example/'}\n",
        "serve: {socks5: {users: {a: {hunter2: x}, b: [hunter2]}}}\n",
        "serve: {socks5: {users: {a: hunter2, a: hunter2}}}\n",
        "proxies: [{name: a, type: socks5, server: h, port: 1, password: hunter2\n",
        "proxies: [{name: a, password: hunter2, password: hunter2, pasword: hunter2}]\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(yamls); i++) {
        AUTO_TEXT says = lab_says(yamls[i]);

        if (strstr(says, "hunter2") != NULL)
            print_error("%s  said: %s\n", yamls[i], says);
        assert_null(strstr(says, "hunter2"));
    }
}

/* ---- whole files ---------------------------------------------------------------------------------------------------------- */

static void the_examples_load_without_an_error(void **state)
{
    static const char *const files[] = { "config/culvert.yaml", "config/desktop.yaml",
                                         "tests/unit/data/minimal.yaml" };

    (void)state;
    setenv("OFFICE_PASSWORD", "x", 1);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[512];
        AUTO_TEXT says = NULL;

        snprintf(path, sizeof(path), "%s/%s", SOURCE_DIR, files[i]);
        says = lab_says_file(path);
        assert_string_equal(says, "");
    }
}

/* Its one secret is in a file of the router that reads it. */
static void the_example_of_a_router_lacks_nothing_but_its_password(void **state)
{
    char expected[700];
    AUTO_TEXT says = lab_says_file(SOURCE_DIR "/config/router.yaml");

    (void)state;
    snprintf(expected, sizeof(expected),
             "%s/config/router.yaml:22:101: proxies[0].password.file: the secret's file "
             "\"/etc/culvert/uplink.password\" "
             "cannot be read: there is no such file",
             SOURCE_DIR);
    assert_string_equal(says, expected);
}

/* The full example of the specification: all of it is understood, or said to be not there yet. */
static void the_full_example_is_understood_or_not_supported_yet(void **state)
{
    struct config_messages m = { 0 };
    struct config *c = NULL;
    int wrong = 0;

    (void)state;
    setenv("EXIT_PW", "x", 1); /* named in it; its other secret is the file pw beside it */
    assert_int_equal(config_load_file(SOURCE_DIR "/tests/unit/data/full.yaml", &c, &m), -22);
    assert_true(m.errors > 0);
    for (size_t i = 0; i < m.count; i++) {
        if (m.list[i].warning || strstr(m.list[i].text, "not supported yet") != NULL ||
            strstr(m.list[i].text, "built without") != NULL ||
            strstr(m.list[i].text, "/etc/culvert/secret\" cannot be read") != NULL)
            continue;
        print_error("line %u: %s\n", m.list[i].line, m.list[i].text);
        wrong++;
    }
    assert_int_equal(wrong, 0);
    config_messages_free(&m);
}

#ifdef WITH_API
#define API_UNIX "api: {unix: /run/culvert/api.sock}\n"
#else
#define API_UNIX ""
#endif

/* The same with everything left out that is to come: what remains is right. */
static void what_the_full_example_asks_of_us_today_loads(void **state)
{
    AUTO_TEXT says =
        lab_says("version: 1\n"
                 "runtime: {workers: auto}\n"
                 "limits: {memory: 64MiB, tcp: auto, udp: auto, per-source: 2000}\n"
                 "log: {level: info, format: text, output: stderr}\n"
                 "tun:\n"
                 "  name: tun0\n"
                 "  address: [198.18.0.1/30, 'fdfe:dcba:9876::1/126']\n"
                 "  mtu: 1500\n"
                 "  queues: auto\n"
                 "  offload: auto\n"
                 "  auto-route: true\n"
                 "  routing-mark: 0x1b6\n"
                 "  interface-name: auto\n"
                 "  route-exclude-address: [192.168.0.0/16, 'fd12:3456::/32']\n"
                 "  on-exit: restore\n"
                 "stack:\n"
                 "  tcp: {accept: late, congestion: cubic, connect-timeout: 10s, keepalive: 300s, "
                 "idle-timeout: 2h, half-close-timeout: 60s}\n"
                 "  udp: {nat: endpoint-independent, idle-timeout: 300s, dns-idle-timeout: 10s}\n"
                 "  icmp: {echo: auto, on-down: drop, on-unsupported: reply-if-healthy, delay: upstream-rtt, "
                 "errors-per-second: 1000}\n"
                 "proxies:\n"
                 "  - socks5://bob:pw@192.0.2.11:1080#pasted\n"
                 "rules:\n"
                 "  - IP-CIDR,10.0.0.0/8,DIRECT\n"
                 "  - SRC-IP-CIDR,192.168.1.64/26,pasted\n"
                 "  - MATCH,pasted\n" API_UNIX "serve: {socks5: {listen: 127.0.0.1:1080, udp: true}}\n");

    (void)state;
    assert_string_equal(says, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_minimal_file_has_the_defaults_of_the_schema),
        cmocka_unit_test(every_value_arrives_in_its_struct),
        cmocka_unit_test(without_auto_route_sockets_are_neither_marked_nor_bound),
        cmocka_unit_test(proxies_are_maps_or_urls_after_the_three_that_are_always_there),
        cmocka_unit_test(only_direct_may_proxy_pings),
        cmocka_unit_test(rules_as_text_and_as_maps_decide_alike),
        cmocka_unit_test(a_proxy_url_alone_is_a_whole_configuration),
        cmocka_unit_test(a_wrong_proxy_url_is_an_error_without_its_password),
        cmocka_unit_test(ranges_that_overlap_are_refused),
        cmocka_unit_test(names_that_nothing_has_and_names_twice),
        cmocka_unit_test(what_works_but_surprises_earns_a_warning),
        cmocka_unit_test(a_secret_is_text_or_in_a_file_the_environment_or_a_credential),
        cmocka_unit_test(a_secret_that_cannot_be_had_says_why),
        cmocka_unit_test(a_secret_that_everybody_can_read_earns_a_warning),
        cmocka_unit_test(no_message_ever_shows_a_secret),
        cmocka_unit_test(the_examples_load_without_an_error),
        cmocka_unit_test(the_example_of_a_router_lacks_nothing_but_its_password),
        cmocka_unit_test(the_full_example_is_understood_or_not_supported_yet),
        cmocka_unit_test(what_the_full_example_asks_of_us_today_loads),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
