/* test_config_keys.c - every key of the schema: right, wrong, misspelt, not built yet, another program's. */
#include "config/config_impl.h"
#include "config_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DATA SOURCE_DIR "/tests/unit/data"
#define GROUP(more)                                                                                          \
    "proxies: [socks5://h:1#a]\nproxy-groups: [{name: g, type: load-balance, proxies: a" more                \
    "}]\nrules: ['MATCH,g']\n"
#define PROXY(more) "proxies: [{name: a, type: socks5, server: h, port: 1" more "}]\nrules: ['MATCH,a']\n"
#define MASQUE(more)                                                                                         \
    "serve: {masque: {" more "certificate: " DATA "/ca.pem, private-key: {file: " DATA "/key.pem}}}\n"
#define LIST(inside) "rule-providers: {l: {" inside "}}\n" MATCH
#define MATCH        "rules: ['MATCH,DIRECT']\n"

static void free_text(char **text)
{
    free(*text);
}
#define AUTO_TEXT __attribute__((cleanup(free_text))) char *

/* ---- each key once right and once wrong ------------------------------------------------------------------------------ */

static const struct key_row {
    const char *path;  /* of the key in the schema */
    const char *right; /* loads without a word */
    const char *wrong; /* and this says: */
    const char *says;
} keys[] = {
    { "version", "version: 1\n", "version: 2\n", "1:10: version: \"2\" is out of range; 1 would work" },
    { "runtime.workers", "runtime: {workers: 64}\n", "runtime: {workers: 65}\n",
      "1:20: runtime.workers: \"65\" is out of range; auto or 1 to 64 would work" },
    { "limits.memory", "limits: {memory: 64MiB}\n", "limits: {memory: 64MB}\n",
      "1:20: limits.memory: \"64MB\" has no known unit; write KiB, MiB or GiB, as in \"64MiB\"" },
    { "limits.tcp", "limits: {tcp: 1}\n", "limits: {tcp: 0}\n",
      "1:15: limits.tcp: \"0\" is out of range; auto or 1 to 16777216 would work" },
    { "limits.udp", "limits: {udp: auto}\n", "limits: {udp: many}\n",
      "1:15: limits.udp: \"many\" is no whole number; auto or 1 to 16777216 would work" },
    { "limits.per-source", "limits: {per-source: 2000}\n", "limits: {per-source: auto}\n",
      "1:22: limits.per-source: \"auto\" is no whole number; none or 1 to 16777216 would work" },
    { "log.level", "log: {level: warning}\n", "log: {level: warn}\n",
      "1:14: log.level: unknown value \"warn\"; info, debug, warning or error would work" },
    { "log.format", "log: {format: json}\n", "log: {format: jsn}\n",
      "1:15: log.format: unknown value \"jsn\"; did you mean \"json\"?" },
    { "log.output", "log: {output: /var/log/culvert.log}\n", "log: {output: stdrr}\n",
      "1:15: log.output: \"stdrr\" is no place for a log; stderr, stdout or an absolute path would work" },
    { "tun.name", "tun: {name: tun7}\n" MATCH, "tun: {name: a/b}\n" MATCH,
      "1:13: tun.name: \"a/b\" is no interface name; 1 to 15 bytes without space, /, : or % would work" },
    { "tun.fd", "tun: {fd: 3}\n" MATCH, "tun: {fd: three}\n" MATCH,
      "1:11: tun.fd: \"three\" is no whole number; 0 to 65535 would work" },
    { "tun.address", "tun: {address: [10.7.0.1/24, 'fd00::1/64']}\n" MATCH,
      "tun: {address: 10.7.0.1}\n" MATCH,
      "1:16: tun.address: \"10.7.0.1\" is no address with a prefix length; 198.18.0.1/30 would work" },
    { "tun.mtu", "tun: {mtu: 9000}\n" MATCH, "tun: {mtu: 70000}\n" MATCH,
      "1:12: tun.mtu: \"70000\" is out of range; 576 to 65535 would work" },
    { "tun.queues", "tun: {queues: 2}\n" MATCH, "tun: {queues: 0}\n" MATCH,
      "1:15: tun.queues: \"0\" is out of range; auto or 1 to 64 would work" },
    { "tun.offload", "tun: {offload: false}\n" MATCH, "tun: {offload: off}\n" MATCH,
      "1:16: tun.offload: unknown value \"off\"; auto, true or false would work" },
    { "tun.auto-route", "tun: {auto-route: true}\n" MATCH, "tun: {auto-route: yes}\n" MATCH,
      "1:19: tun.auto-route: \"yes\" is neither true nor false; write one of these" },
    { "tun.strict-route", "tun: {strict-route: true}\n" MATCH, "tun: {strict-route: yes}\n" MATCH,
      "1:21: tun.strict-route: \"yes\" is neither true nor false; write one of these" },
    { "tun.routing-mark", "tun: {routing-mark: 0x1b6}\n" MATCH, "tun: {routing-mark: 0x1g}\n" MATCH,
      "1:21: tun.routing-mark: \"0x1g\" is no mark; a number from 1 to 0xffffffff would work, as in 0x1b6" },
    { "tun.interface-name", "tun: {interface-name: eth0}\n" MATCH,
      "tun: {interface-name: a-name-that-is-too-long}\n" MATCH,
      "1:23: tun.interface-name: \"a-name-that-is-too-long\" is no interface name; 1 to 15 bytes without "
      "space, /, : or "
      "% would work" },
    { "tun.route-exclude-address", "tun: {route-exclude-address: [192.168.0.0/16, 'fd12:3456::/32']}\n" MATCH,
      "tun: {route-exclude-address: [192.168.0.0/33]}\n" MATCH,
      "1:31: tun.route-exclude-address[0]: \"192.168.0.0/33\" is no range of addresses; 192.168.0.0/16 or "
      "fd00::/8 would "
      "work" },
    { "tun.on-exit", "tun: {on-exit: block}\n" MATCH, "tun: {on-exit: none}\n" MATCH,
      "1:16: tun.on-exit: unknown value \"none\"; restore, keep or block would work" },
    { "tun.system-dns", "dns: {mode: fake-ip}\ntun: {auto-route: true, system-dns: true}\n" MATCH,
      "tun: {auto-route: true, system-dns: true}\n" MATCH,
      "1:37: tun.system-dns: nobody would answer with dns.mode off; real or fake-ip would work" },
    { "tun.include-interface", "tun: {include-interface: [br-lan, lo]}\n" MATCH,
      "tun: {include-interface: a/b}\n" MATCH,
      "1:26: tun.include-interface: \"a/b\" is no interface name; 1 to 15 bytes without space, /, : or % "
      "would work" },
    { "tun.exclude-interface", "tun: {exclude-interface: docker0}\n" MATCH,
      "tun: {exclude-interface: ['']}\n" MATCH,
      "1:27: tun.exclude-interface[0]: \"\" is no interface name; 1 to 15 bytes without space, /, : or % "
      "would work" },
    { "tun.include-uid", "tun: {include-uid: [108, 1000-1999]}\n" MATCH, "tun: {include-uid: 9-1}\n" MATCH,
      "1:20: tun.include-uid: \"9-1\" is neither a number nor a range of numbers; 1000 or 1000-1999 would "
      "work" },
    { "tun.exclude-uid", "tun: {exclude-uid: 0}\n" MATCH, "tun: {exclude-uid: root}\n" MATCH,
      "1:20: tun.exclude-uid: \"root\" is neither a number nor a range of numbers; 1000 or 1000-1999 would "
      "work" },
#ifdef WITH_NFT
    { "tun.include-gid", "tun: {include-gid: 4294967294}\n" MATCH, "tun: {include-gid: 4294967295}\n" MATCH,
      "1:20: tun.include-gid: \"4294967295\" is neither a number nor a range of numbers; 1000 or 1000-1999 "
      "would work" },
    { "tun.exclude-gid", "tun: {exclude-gid: 10-20}\n" MATCH, "tun: {exclude-gid: 10-}\n" MATCH,
      "1:20: tun.exclude-gid: \"10-\" is neither a number nor a range of numbers; 1000 or 1000-1999 would "
      "work" },
    { "tun.include-cgroup", "tun: {include-cgroup: system.slice/tor.service}\n" MATCH,
      "tun: {include-cgroup: ../x}\n" MATCH,
      "1:23: tun.include-cgroup: \"../x\" is no path of a cgroup; system.slice/transmission.service would "
      "work" },
    { "tun.exclude-cgroup", "tun: {exclude-cgroup: /user.slice}\n" MATCH,
      "tun: {exclude-cgroup: 'a b'}\n" MATCH,
      "1:23: tun.exclude-cgroup: \"a b\" is no path of a cgroup; system.slice/transmission.service would "
      "work" },
#endif
    { "tun.auto-detect-interface", "tun: {auto-detect-interface: true}\n" MATCH,
      "tun: {auto-detect-interface: on}\n" MATCH,
      "1:30: tun.auto-detect-interface: \"on\" is neither true nor false; write one of these" },
    { "stack.tcp.accept", "stack: {tcp: {accept: early}}\n", "stack: {tcp: {accept: soon}}\n",
      "1:23: stack.tcp.accept: unknown value \"soon\"; late, early or auto would work" },
    { "stack.tcp.congestion", "stack: {tcp: {congestion: newreno}}\n", "stack: {tcp: {congestion: cubik}}\n",
      "1:27: stack.tcp.congestion: unknown value \"cubik\"; did you mean \"cubic\"?" },
    { "stack.tcp.connect-timeout", "stack: {tcp: {connect-timeout: 300ms}}\n",
      "stack: {tcp: {connect-timeout: 30x}}\n",
      "1:34: stack.tcp.connect-timeout: \"30x\" has no known unit; write ms, s, m or h, as in \"30s\"" },
    { "stack.tcp.keepalive", "stack: {tcp: {keepalive: off}}\n", "stack: {tcp: {keepalive: never}}\n",
      "1:26: stack.tcp.keepalive: \"never\" does not start with a digit; off or a duration such as 60s or 5m "
      "would "
      "work" },
    { "stack.tcp.idle-timeout", "stack: {tcp: {idle-timeout: 90}}\n", "stack: {tcp: {idle-timeout: 0}}\n",
      "1:29: stack.tcp.idle-timeout: \"0\" is out of range; 1s to 1176h would work" },
    { "stack.tcp.half-close-timeout", "stack: {tcp: {half-close-timeout: 5m}}\n",
      "stack: {tcp: {half-close-timeout: 010}}\n",
      "1:35: stack.tcp.half-close-timeout: \"010\" has a leading zero; a duration such as 300ms, 60s, 5m or "
      "2h would "
      "work" },
    { "stack.udp.nat", "stack: {udp: {nat: symmetric}}\n", "stack: {udp: {nat: none}}\n",
      "1:20: stack.udp.nat: unknown value \"none\"; endpoint-independent or symmetric would work" },
    { "stack.udp.idle-timeout", "stack: {udp: {idle-timeout: 2h}}\n",
      "stack: {udp: {idle-timeout: 99999h}}\n",
      "1:29: stack.udp.idle-timeout: \"99999h\" is out of range; 1s to 1176h would work" },
    { "stack.udp.dns-idle-timeout", "stack: {udp: {dns-idle-timeout: 5s}}\n",
      "stack: {udp: {dns-idle-timeout: 18446744073709551617s}}\n",
      "1:33: stack.udp.dns-idle-timeout: \"18446744073709551617s\" is out of range; 1s to 1176h would work" },
    { "stack.icmp.echo", "stack: {icmp: {echo: drop}}\n", "stack: {icmp: {echo: ping}}\n",
      "1:22: stack.icmp.echo: unknown value \"ping\"; auto, reply, reply-if-healthy, proxy, tunnel, drop or "
      "reject would "
      "work" },
    { "stack.icmp.reject-with", "stack: {icmp: {reject-with: host-unreachable}}\n",
      "stack: {icmp: {reject-with: rst}}\n",
      "1:29: stack.icmp.reject-with: unknown value \"rst\"; admin-prohibited, net-unreachable, "
      "host-unreachable, "
      "port-unreachable, net-prohibited or host-prohibited would work" },
    { "stack.icmp.on-down", "stack: {icmp: {on-down: reject}}\n", "stack: {icmp: {on-down: reply}}\n",
      "1:25: stack.icmp.on-down: unknown value \"reply\"; drop or reject would work" },
    { "stack.icmp.on-unsupported", "stack: {icmp: {on-unsupported: drop}}\n",
      "stack: {icmp: {on-unsupported: proxy}}\n",
      "1:32: stack.icmp.on-unsupported: unknown value \"proxy\"; reply-if-healthy, reply, drop or reject "
      "would work" },
    { "stack.icmp.ttl", "stack: {icmp: {ttl: transparent}}\n", "stack: {icmp: {ttl: 64}}\n",
      "1:21: stack.icmp.ttl: unknown value \"64\"; hop or transparent would work" },
    { "stack.icmp.relay-errors", "stack: {icmp: {relay-errors: false}}\n",
      "stack: {icmp: {relay-errors: some}}\n",
      "1:30: stack.icmp.relay-errors: \"some\" is neither true nor false; write one of these" },
    { "stack.icmp.max-flows", "stack: {icmp: {max-flows: 16384}}\n", "stack: {icmp: {max-flows: 16385}}\n",
      "1:27: stack.icmp.max-flows: \"16385\" is out of range; 1 to 16384 would work" },
    { "stack.icmp.delay", "stack: {icmp: {delay: none}}\n", "stack: {icmp: {delay: 5ms}}\n",
      "1:23: stack.icmp.delay: unknown value \"5ms\"; upstream-rtt or none would work" },
    { "stack.icmp.errors-per-second", "stack: {icmp: {errors-per-second: 5}}\n",
      "stack: {icmp: {errors-per-second: 1e3}}\n",
      "1:35: stack.icmp.errors-per-second: \"1e3\" is no whole number; 1 to 1000000 would work" },
    { "runtime.user", "runtime: {user: culvert}\n", "runtime: {user: \"a b\"}\n",
      "1:17: runtime.user: \"a b\" is no name of a user; culvert would work" },
    { "runtime.sandbox", "runtime: {sandbox: require}\n", "runtime: {sandbox: maybe}\n",
      "1:20: runtime.sandbox: unknown value \"maybe\"; true, false or require would work" },
    { "runtime.state-dir", "runtime: {state-dir: /tmp}\n", "runtime: {state-dir: tmp}\n",
      "1:22: runtime.state-dir: \"tmp\" is no absolute path; /var/lib/culvert would work" },
    { "dns.mode", "dns: {mode: real, nameserver: 192.0.2.53}\n", "dns: {mode: real}\n",
      "1:13: dns.mode: real asks name servers, and there is none; set dns.nameserver" },
    { "dns.hijack", "dns: {hijack: ['any:53', 'tcp://192.0.2.1:5353', '2001:db8::1']}\n",
      "dns: {hijack: ['any:0']}\n",
      "1:16: dns.hijack[0]: \"any:0\" is no address of name servers; any:53, tcp://any:53 or 192.0.2.53:53 "
      "would work" },
    { "dns.fake-ip-range", "dns: {fake-ip-range: 10.1.0.0/16}\n", "dns: {fake-ip-range: 'fd00::/64'}\n",
      "1:22: dns.fake-ip-range: \"fd00::/64\" is no range of fake addresses; 198.19.0.0/16 or none would "
      "work" },
    { "dns.fake-ip-range6", "dns: {fake-ip-range6: none}\n",
      "dns: {mode: fake-ip, fake-ip-range6: 'fdfe:dcba::/32'}\n",
      "1:38: dns.fake-ip-range6: overlaps tun.address[1]; 198.19.0.0/16 and fdfe:dcba:9877::/64 would work" },
    { "dns.fake-ip-filter", "dns: {fake-ip-filter: ['*.lan', '+.local', 'time.*.com']}\n",
      "dns: {fake-ip-filter: 'a*.lan'}\n",
      "1:23: dns.fake-ip-filter[0]: \"a*.lan\" is no pattern of names; www.example.org, *.example.org or "
      "+.example.org would work" },
    { "dns.fake-ip-store", "dns: {fake-ip-store: false}\n", "dns: {fake-ip-store: no}\n",
      "1:22: dns.fake-ip-store: \"no\" is neither true nor false; write one of these" },
    { "dns.cache-size", "dns: {cache-size: 64}\n", "dns: {cache-size: 0}\n",
      "1:19: dns.cache-size: \"0\" is out of range; 64 to 1000000 would work" },
    { "dns.nameserver", "dns: {nameserver: ['192.0.2.1', 'tcp://[2001:db8::1]:5353#DIRECT']}\n",
      "dns: {nameserver: '192.0.2.1#nobody'}\n",
      "1:19: dns.nameserver[0]: unknown proxy \"nobody\"; the name of a proxy or DIRECT would work" },
    { "dns.nameserver-order", "dns: {nameserver-order: in-order}\n", "dns: {nameserver-order: fast}\n",
      "1:25: dns.nameserver-order: unknown value \"fast\"; race or in-order would work" },
    { "dns.nameserver-policy", "dns: {nameserver-policy: {'+.corp.example': [10.0.0.53, 10.0.0.54]}}\n",
      "dns: {nameserver-policy: {'+.corp.example': dns.example}}\n",
      "1:45: dns.nameserver-policy.+.corp.example[0]: \"dns.example\" is no name server; 192.0.2.53, "
      "tls://192.0.2.53 or https://192.0.2.53/dns-query would work" },
    { "dns.proxy-server-nameserver", "dns: {proxy-server-nameserver: [192.0.2.1, 192.0.2.2]}\n",
      "dns: {proxy-server-nameserver: 'tcp://192.0.2.1'}\n",
      "1:32: dns.proxy-server-nameserver[0]: is asked directly and in the clear, for the names of proxies "
      "only; a plain address such as 192.0.2.53 would work" },
    { "dns.block-types", "dns: {block-types: [HTTPS, TYPE64, AAAA]}\n", "dns: {block-types: WEB}\n",
      "1:20: dns.block-types: \"WEB\" is no type of DNS records; HTTPS, AAAA or TYPE65 would work" },
    { "dns.rebind-allow", "dns: {rebind-allow: '+.lab.example'}\n", "dns: {rebind-allow: 'a b'}\n",
      "1:21: dns.rebind-allow[0]: \"a b\" is no pattern of names; www.example.org, *.example.org or "
      "+.example.org would work" },
    { "dns.queries-per-source", "dns: {queries-per-source: 50}\n", "dns: {queries-per-source: none}\n",
      "1:27: dns.queries-per-source: \"none\" is no whole number; 1 to 1000000 would work" },
    { "dns.ca", "dns: {mode: off}\n", "dns: {ca: /nonexistent.pem}\n",
      "1:11: dns.ca: the file \"/nonexistent.pem\" cannot be read: there is no such file" },
    { "hosts", "hosts: {router.lan: 192.168.1.1, '+.test': ['::1', 127.0.0.1]}\n", "hosts: {a.b: c.d}\n",
      "1:14: hosts.a.b: \"c.d\" is no address; 192.168.1.1 would work" },
    { "sniffer.timeout", "sniffer: {timeout: 1s}\n", "sniffer: {timeout: 1ms}\n",
      "1:20: sniffer.timeout: \"1ms\" is out of range; 10ms to 10s would work" },
    { "sniffer.tls", "sniffer: {tls: [443, 8000-8999]}\n", "sniffer: {tls: 9-8}\n",
      "1:16: sniffer.tls: \"9-8\" is no port; 443, 8000-8999 or none would work" },
    { "sniffer.http", "sniffer: {http: none}\n", "sniffer: {http: 0}\n",
      "1:17: sniffer.http: \"0\" is no port; 443, 8000-8999 or none would work" },
    { "sniffer.quic", "sniffer: {quic: 443}\n", "sniffer: {quic: [all]}\n",
      "1:18: sniffer.quic[0]: \"all\" is no port; 443, 8000-8999 or none would work" },
    { "tun.dns-hijack", "tun: {dns-hijack: 'any:53'}\n" MATCH, "tun: {dns-hijack: 'any'}\n" MATCH,
      "1:19: tun.dns-hijack[0]: \"any\" is no address of name servers; any:53, tcp://any:53 or 192.0.2.53:53 "
      "would work" },
    { "dns.enable", "dns: {enable: false}\n", "dns: {enable: no}\n",
      "1:15: dns.enable: \"no\" is neither true nor false; write one of these" },
    { "proxies", "proxies: socks5://192.0.2.1:1080#a\nrules: ['MATCH,a']\n", "proxies: {}\n" MATCH,
      "1:10: proxies: the key \"name\" is missing; a name would work\n"
      "1:10: proxies: the key \"type\" is missing; socks5, socks4, socks4a, http or masque would work\n"
      "1:10: proxies: the key \"server\" is missing; an address or a host name would work\n"
      "1:10: proxies: the key \"port\" is missing; a port would work" },
    { "proxies[].name", PROXY(""), "proxies: [{name: 'a,b', type: socks5, server: h, port: 1}]\n" MATCH,
      "1:18: proxies[0].name: a name with a comma cannot stand in a rule; leave the comma out" },
    { "proxies[].type", PROXY(""), "proxies: [{name: a, type: sock5, server: h, port: 1}]\n" MATCH,
      "1:27: proxies[0].type: unknown value \"sock5\"; did you mean \"socks5\"?" },
    { "proxies[].server", PROXY(""), "proxies: [{name: a, type: socks5, server: 300.1.1.1, port: 1}]\n" MATCH,
      "1:43: proxies[0].server: \"300.1.1.1\" is neither an address nor a host name; 192.0.2.10 or "
      "proxy.example.net "
      "would work" },
    { "proxies[].port", PROXY(""), "proxies: [{name: a, type: socks5, server: h, port: 65536}]\n" MATCH,
      "1:52: proxies[0].port: \"65536\" is out of range; 1 to 65535 would work" },
    { "proxies[].udp", PROXY(", udp: over-tcp"), PROXY(", udp: maybe"),
      "1:60: proxies[0].udp: unknown value \"maybe\"; auto, true, false or over-tcp would work" },
    { "proxies[].pipelining", PROXY(", pipelining: true"), PROXY(", pipelining: yes"),
      "1:67: proxies[0].pipelining: unknown value \"yes\"; auto, true or false would work" },
    { "proxies[].tcp-fast-open", PROXY(", tcp-fast-open: true"), PROXY(", tcp-fast-open: 2"),
      "1:70: proxies[0].tcp-fast-open: \"2\" is neither true nor false; write one of these" },
    { "proxies[].pool", PROXY(", pool: 4"), PROXY(", pool: 65"),
      "1:61: proxies[0].pool: \"65\" is out of range; 0 to 64 would work" },
    { "proxies[].username", PROXY(", username: u, password: p"), PROXY(", username: '', password: p"),
      "1:65: proxies[0].username: has 0 bytes; 1 to 255 would work" },
    { "proxies[].password", PROXY(", username: u, password: 010"), PROXY(", username: u, password: ''"),
      "1:78: proxies[0].password: the secret has 0 bytes; 1 to 255 would work" },
    { "proxies[].interface-name", PROXY(", interface-name: wan2"), PROXY(", interface-name: 'w 2'"),
      "1:71: proxies[0].interface-name: \"w 2\" is no interface name; 1 to 15 bytes without space, /, : or % "
      "would work" },
    { "proxies[].routing-mark", PROXY(", routing-mark: 2"), PROXY(", routing-mark: -2"),
      "1:69: proxies[0].routing-mark: \"-2\" is no mark; a number from 1 to 0xffffffff would work, as in "
      "0x1b6" },
    { "proxies[].dialer-proxy", PROXY(", dialer-proxy: DIRECT"), PROXY(", dialer-proxy: b"),
      "1:69: proxies[0].dialer-proxy: no proxy or group is called \"b\"; a name from proxies or "
      "proxy-groups, or DIRECT, would work" },
    { "proxies[].token",
      "proxies: [{name: a, type: masque, server: a.test, port: 443, tls: {ca: " DATA
      "/ca.pem}, token: {env: PATH}}]\n" MATCH,
      PROXY(", token: abc"),
      "1:62: proxies[0]: only type masque has a token; username and password would work" },
    { "proxy-groups", GROUP(""), "proxy-groups: {}\n" MATCH,
      "1:15: proxy-groups: the key \"name\" is missing; a name would work\n"
      "1:15: proxy-groups: the key \"type\" is missing; select, url-test, fallback or load-balance would "
      "work\n"
      "1:15: proxy-groups: the key \"proxies\" is missing; the name of a proxy or a group would work" },
    { "proxy-groups[].name", GROUP(""),
      "proxy-groups: [{name: 'a,b', type: select, proxies: DIRECT}]\n" MATCH,
      "1:23: proxy-groups[0].name: a name with a comma cannot stand in a rule; leave the comma out" },
    { "proxy-groups[].type", GROUP(""), "proxy-groups: [{name: a, type: relay, proxies: DIRECT}]\n" MATCH,
      "1:32: proxy-groups[0].type: \"relay\" is not supported; select, url-test, fallback or load-balance "
      "would work" },
    { "proxy-groups[].proxies", GROUP(""),
      "proxy-groups: [{name: a, type: fallback, proxies: REJECT}]\n" MATCH,
      "1:51: proxy-groups[0].proxies[0]: only a select group can have REJECT or REJECT-DROP as a member; "
      "leave it out" },
    { "proxy-groups[].url", GROUP(", url: 'http://cp.test:8080/204'"), GROUP(", url: 'ftp://cp.test/'"),
      "2:63: proxy-groups[0].url: \"ftp://cp.test/\" cannot be fetched; http://HOST[:PORT]/PATH or "
      "https://... would work" },
    { "proxy-groups[].interval", GROUP(", interval: 60"), GROUP(", interval: 0"),
      "2:68: proxy-groups[0].interval: \"0\" is out of range; 1s to 168h would work" },
    { "proxy-groups[].timeout", GROUP(", timeout: 3000"), GROUP(", timeout: 2m"),
      "2:67: proxy-groups[0].timeout: \"2m\" is out of range; 1ms to 1m would work" },
    { "proxy-groups[].tolerance", GROUP(", tolerance: 50"), GROUP(", tolerance: 5x"),
      "2:70: proxy-groups[0].tolerance: \"5x\" has no known unit; write ms, s, m or h, as in \"50ms\"" },
    { "proxy-groups[].max-failures", GROUP(", max-failures: 2"), GROUP(", max-failures: 0"),
      "2:72: proxy-groups[0].max-failures: \"0\" is out of range; 1 to 1000 would work" },
    { "proxy-groups[].retry-after", GROUP(", retry-after: 30s"), GROUP(", retry-after: 1ms"),
      "2:71: proxy-groups[0].retry-after: \"1ms\" is out of range; 1s to 24h would work" },
    { "proxy-groups[].strategy", GROUP(", strategy: sticky"), GROUP(", strategy: random"),
      "2:68: proxy-groups[0].strategy: unknown value \"random\"; consistent-hash, round-robin or sticky "
      "would work" },
    { "proxies[].tls", PROXY(", tls: true"), PROXY(", tls: maybe"),
      "1:60: proxies[0].tls: is neither true nor false nor a map; one of these would work" },
    { "proxies[].tls.sni", PROXY(", tls: {sni: a.test}"), PROXY(", tls: {sni: 'a b'}"),
      "1:66: proxies[0].tls.sni: \"a b\" is no host name; a name such as proxy.example.net would work" },
    { "proxies[].tls.alpn", PROXY(", tls: {alpn: [h2, http/1.1]}"), PROXY(", tls: {alpn: ''}"),
      "1:67: proxies[0].tls.alpn: has 0 bytes; 1 to 255 would work" },
    { "proxies[].tls.ca", PROXY(", tls: {ca: " DATA "/ca.pem}"), PROXY(", tls: {ca: /none}"),
      "1:65: proxies[0].tls.ca: the file \"/none\" cannot be read: there is no such file" }, /* faults.md L16 */
    { "proxies[].tls.pin-sha256",
      PROXY(", tls: {pin-sha256: 'r4bnBmRCZr5xAVMLgTFpKKuaG5oy1SAmP4EVtMVOSyM='}"),
      PROXY(", tls: {pin-sha256: [abc]}"),
      "1:74: proxies[0].tls.pin-sha256[0]: \"abc\" is no SHA-256 in base64 (44 characters with a final =)" },
    { "proxies[].tls.certificate",
      PROXY(", tls: {certificate: " DATA "/ca.pem, private-key: " DATA "/key.pem}"),
      PROXY(", tls: {certificate: " DATA "/ca.pem}"),
      "1:74: proxies[0]: a certificate and its private key belong together; set both certificate and "
      "private-key" },
    { "proxies[].tls.private-key",
      PROXY(", tls: {certificate: " DATA "/ca.pem, private-key: {file: " DATA "/key.pem}}"),
      PROXY(", tls: {private-key: /none}"),
      "1:74: proxies[0].tls.private-key: the file \"/none\" cannot be read: there is no such file\n"
      "1:74: proxies[0]: a certificate and its private key belong together; set both certificate and "
      "private-key" }, /* faults.md L16 */
    { "proxies[].tls.min-version", PROXY(", tls: {min-version: 1.2}"), PROXY(", tls: {min-version: 1.1}"),
      "1:74: proxies[0].tls.min-version: unknown value \"1.1\"; did you mean \"1.2\"?" },
    { "proxies[].tls.resume", PROXY(", tls: {resume: false}"), PROXY(", tls: {resume: maybe}"),
      "1:69: proxies[0].tls.resume: unknown value \"maybe\"; true or false would work" },
    { "proxies[].tls.skip-cert-verify", PROXY(", tls: {skip-cert-verify: false}"),
      PROXY(", tls: {skip-cert-verify: 1}"),
      "1:79: proxies[0].tls.skip-cert-verify: is neither true nor false; write one of these" },
    { "proxies[].tls.half-close-delay", PROXY(", tls: {half-close-delay: 500ms}"),
      PROXY(", tls: {half-close-delay: 2h}"),
      "1:79: proxies[0].tls.half-close-delay: \"2h\" is out of range; 1ms to 1m would work" },
    { "proxies[].sni", PROXY(", tls: true, sni: a.test"), PROXY(", sni: a.test"),
      "1:60: proxies[0]: a key of TLS at a proxy without TLS; tls: true beside it would work" },
    { "proxies[].alpn", PROXY(", alpn: h2, tls: true"), PROXY(", tls: true, alpn: ''"),
      "1:72: proxies[0].alpn: has 0 bytes; 1 to 255 would work" },
    { "proxies[].skip-cert-verify", PROXY(", tls: true, skip-cert-verify: false"),
      PROXY(", tls: true, skip-cert-verify: x"),
      "1:84: proxies[0].skip-cert-verify: is neither true nor false; write one of these" },
    { "rules", "rules: MATCH,DIRECT\n", "rules: ['MATCH,DIREKT']\n",
      "1:16: rules[0]: no proxy is called \"DIREKT\"; did you mean \"DIRECT\"?" },
    { "rules[].via", "rules: {via: DIRECT}\n", "rules: {via: nowhere}\n",
      "1:14: rules[0]: no proxy is called \"nowhere\"; a name from proxies, DIRECT, REJECT or REJECT-DROP "
      "would work" },
    { "rules[].name", "rules: {via: DIRECT, name: all}\n", "rules: {via: DIRECT, name: ''}\n",
      "1:28: rules[0].name: has 0 bytes; 1 to 255 would work" },
    { "rules[].echo", "rules: {via: DIRECT, echo: proxy}\n", "rules: {via: DIRECT, echo: ping}\n",
      "1:28: rules[0].echo: unknown value \"ping\"; auto, reply, reply-if-healthy, proxy, tunnel, drop or "
      "reject would "
      "work" },
    { "rules[].dst-cidr", "rules: [{via: REJECT, dst-cidr: [10.0.0.0/8, 'fd00::/8']}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, dst-cidr: 10.0.0.0/33}, {via: DIRECT}]\n", "1:33: rules[0].dst-cidr: " },
    { "rules[].src-cidr", "rules: [{via: REJECT, src-cidr: 10.0.0.0/8}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, src-cidr: here}, {via: DIRECT}]\n", "1:33: rules[0].src-cidr: " },
    { "rules[].dst-port", "rules: [{via: REJECT, dst-port: [80, 8000-8999]}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, dst-port: [80, 99999]}, {via: DIRECT}]\n", "1:38: rules[0].dst-port[1]: " },
    { "rules[].src-port", "rules: [{via: REJECT, src-port: 80/443}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, src-port: '9-1'}, {via: DIRECT}]\n", "1:34: rules[0].src-port: " },
    { "rules[].domain", "rules: [{via: REJECT, domain: [a.example, b.example]}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, domain: 'a b'}, {via: DIRECT}]\n", "1:32: rules[0].domain: " },
    { "rules[].domain-suffix", "rules: [{via: REJECT, domain-suffix: example}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, domain-suffix: +.example}, {via: DIRECT}]\n", "1:38: rules[0].domain-suffix: " },
    { "rules[].domain-keyword", "rules: [{via: REJECT, domain-keyword: track}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, domain-keyword: 'a b'}, {via: DIRECT}]\n", "1:40: rules[0].domain-keyword: " },
    { "rules[].domain-wildcard", "rules: [{via: REJECT, domain-wildcard: '*.example'}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, domain-wildcard: 'a b'}, {via: DIRECT}]\n", "1:41: rules[0].domain-wildcard: " },
    { "rules[].process-name", "rules: [{via: REJECT, process-name: curl}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, process-name: /bin/curl}, {via: DIRECT}]\n", "1:37: rules[0].process-name: " },
    { "rules[].process-path", "rules: [{via: REJECT, process-path: /bin/curl}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, process-path: curl}, {via: DIRECT}]\n", "1:37: rules[0].process-path: " },
    { "rules[].uid", "rules: [{via: REJECT, uid: [0, 1000-1999]}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, uid: root}, {via: DIRECT}]\n", "1:28: rules[0].uid: " },
    { "rules[].in", "rules: [{via: REJECT, in: tun0}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, in: ''}, {via: DIRECT}]\n", "1:28: rules[0].in: " },
    { "rules[].rule-set",
      "rule-providers: {l: {type: inline, behavior: domain, payload: a.b}}\nrules: [{via: REJECT, rule-set: "
      "l}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, rule-set: l}, {via: DIRECT}]\n",
      "1:33: rules[0].rule-set: no rule provider is called \"l\"; rule-providers names the lists" },
    { "rules[].no-resolve", "rules: [{via: REJECT, dst-cidr: 10.0.0.0/8, no-resolve: true}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, no-resolve: 1}, {via: DIRECT}]\n",
      "1:35: rules[0].no-resolve: is neither true nor false; write one of these" },
#ifdef WITH_REGEX
    { "rules[].domain-regex", "rules: [{via: REJECT, domain-regex: '^a+[.]'}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, domain-regex: '('}, {via: DIRECT}]\n", "1:38: rules[0].domain-regex: " },
#else
    { "rules[].domain-regex", MATCH, "rules: [{via: REJECT, domain-regex: '('}, {via: DIRECT}]\n",
      "1:38: rules[0].domain-regex: " },
#endif
    { "rules[].geoip", "rules: [{via: REJECT, geoip: lan}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, geoip: Mars}, {via: DIRECT}]\n", "1:30: rules[0].geoip: " },
#ifdef WITH_GEOIP
    { "rules[].ip-asn", MATCH, "rules: [{via: REJECT, ip-asn: 1}, {via: DIRECT}]\n",
      "1:31: rules[0].ip-asn: needs a database; name its file in geodata.asn" },
#else
    { "rules[].ip-asn", MATCH, "rules: [{via: REJECT, ip-asn: 1}, {via: DIRECT}]\n",
      "1:31: rules[0].ip-asn: " },
#endif
    { "rule-providers", LIST("type: inline, behavior: domain, payload: a.b"), "rule-providers: []\n" MATCH,
      "1:17: rule-providers: is a list; a map of names, each with a map would work" },
    { "rule-providers.*.type", LIST("type: file, behavior: ipcidr, path: " DATA "/lan.txt"),
      LIST("type: ftp, behavior: ipcidr, path: " DATA "/lan.txt"),
      "1:28: rule-providers.l.type: unknown value \"ftp\"; file, http or inline would work" },
    { "rule-providers.*.behavior", LIST("type: inline, behavior: classical, payload: 'UID,0'"),
      LIST("type: inline, behavior: names, payload: a.b"),
      "1:46: rule-providers.l.behavior: unknown value \"names\"; domain, ipcidr or classical would work" },
    { "rule-providers.*.format", LIST("type: file, behavior: ipcidr, format: text, path: " DATA "/lan.txt"),
      LIST("type: inline, behavior: domain, payload: a.b, format: mrs"),
      "1:76: rule-providers.l.format: \"mrs\" is not supported; auto, text or yaml would work" },
    { "rule-providers.*.path", LIST("type: file, behavior: ipcidr, path: " DATA "/lan.txt"),
      LIST("type: file, behavior: ipcidr, path: /none"),
      "1:58: rule-providers.l: /none cannot be read: there is no such file" },
    { "rule-providers.*.url",
      LIST("type: http, behavior: ipcidr, url: 'https://lists.example/l', path: " DATA "/lan.txt"),
      LIST("type: http, behavior: ipcidr, url: 'ftp://lists.example/l', path: " DATA "/lan.txt"),
      "1:57: rule-providers.l: \"ftp://lists.example/l\" is no address of a list; http://... or https://... "
      "would work" },
    { "rule-providers.*.interval", LIST("type: inline, behavior: domain, payload: a.b, interval: 3600"),
      LIST("type: inline, behavior: domain, payload: a.b, interval: 0s"),
      "1:78: rule-providers.l.interval: \"0s\" is out of range; 1s to 1176h would work" },
    { "rule-providers.*.size-limit", LIST("type: inline, behavior: domain, payload: a.b, size-limit: 4MiB"),
      LIST("type: inline, behavior: domain, payload: a.b, size-limit: 1"),
      "1:80: rule-providers.l.size-limit: \"1\" is out of range; 1KiB to 256MiB would work" },
    { "rule-providers.*.ca",
      LIST("type: http, behavior: ipcidr, url: 'https://h/l', path: " DATA "/lan.txt, ca: " DATA "/ca.pem"),
      LIST("type: inline, behavior: domain, payload: a.b, ca: /none"), "1:72: rule-providers.l.ca: " },
    { "rule-providers.*.proxy",
      LIST("type: http, behavior: ipcidr, url: 'http://h/l', path: " DATA "/lan.txt, proxy: DIRECT"),
      LIST("type: http, behavior: ipcidr, url: 'http://h/l', proxy: nobody, path: " DATA "/lan.txt"),
      "1:78: rule-providers.l: no proxy is called \"nobody\"; a name from proxies or DIRECT would work" },
    { "rule-providers.*.payload",
      LIST("type: inline, behavior: domain, payload: ['+.a.b', '*.c.d', 'e.*.f']"),
      LIST("type: inline, behavior: ipcidr, payload: 10.0.0.0/33"), "1:63: rule-providers.l: " },
    { "geodata.country", "geodata: {country: /none}\n" MATCH, "geodata: {country: []}\n" MATCH,
      "1:20: geodata.country: is a list; the path of a database would work" },
    { "geodata.asn", "geodata: {asn: /none}\n" MATCH, "geodata: {asn: {}}\n" MATCH,
      "1:16: geodata.asn: is a map; the path of a database would work" },
    { "rules[].network", "rules: [{via: REJECT, network: [udp, icmp]}, {via: DIRECT}]\n",
      "rules: [{via: REJECT, network: sctp}, {via: DIRECT}]\n", "1:32: rules[0].network: " },
#ifdef WITH_API
    { "api.unix", "api: {unix: none}\n", "api: {unix: api.sock}\n",
      "1:13: api.unix: \"api.sock\" is no absolute path; /run/culvert/api.sock or none would work" },
    { "api.listen", "api: {listen: 127.0.0.1:9090}\n", "api: {listen: localhost:9090}\n",
      "1:15: api.listen: \"localhost:9090\" is no address with a port; 127.0.0.1:9090 or '[::1]:9090' would "
      "work" },
    { "api.listen, public", "api: {listen: 192.0.2.1:9090, secret: s}\n",
      "api: {listen: 192.0.2.1:9090}\n", /* faults.md A3 */
      "1:15: api.listen: others can reach this address, and there is no api.secret; set one, or listen on "
      "127.0.0.1" },
    { "api.secret", "api: {secret: abc}\n", "api: {secret: \"a b\"}\n",
      "1:15: api.secret: holds a byte that no bearer token may have (RFC 6750)" },
    { "api.metrics", "api: {metrics: /metrics}\n", "api: {metrics: metrics}\n",
      "1:16: api.metrics: \"metrics\" is no path for metrics; /metrics would work" },
#else
    { "api.unix", "api: {unix: none}\n", "api: {unix: /run/api.sock}\n",
      "1:7: api.unix: not supported; this program was built without the control socket (WITH_API=OFF)" },
#endif
    { "serve.masque", MASQUE(""), "serve: {masque: 443}\n",
      "1:17: serve.masque: is a single value; a map such as {listen: '0.0.0.0:443', certificate: FILE, "
      "private-key: FILE, users: MAP} would work" },
    { "serve.masque.listen", MASQUE("listen: '127.0.0.1:8443', "), MASQUE("listen: 8443, "),
      "1:26: serve.masque.listen: \"8443\" is no address with a port; 127.0.0.1:1080 or '[::1]:1080' would "
      "work" },
    { "serve.masque.certificate", MASQUE(""), "serve: {masque: {private-key: " DATA "/key.pem}}\n",
      "1:17: serve.masque: the key \"certificate\" is missing; a file or PEM text would work" },
    { "serve.masque.private-key", MASQUE(""), "serve: {masque: {certificate: " DATA "/ca.pem}}\n",
      "1:17: serve.masque: the key \"private-key\" is missing; a file, PEM text, {file: PATH}, {env: NAME} "
      "or "
      "{credential: NAME} would work" },
    { "serve.masque.users", MASQUE("users: {alice: {file: " DATA "/key.pem}}, "),
      MASQUE("users: {'a:b': pw}, "),
      "1:26: serve.masque.users.a:b: holds a colon, which ends a user name in HTTP (RFC 7617)" },
    { "serve.masque.echo", MASQUE("echo: false, "), MASQUE("echo: maybe, "),
      "1:24: serve.masque.echo: \"maybe\" is neither true nor false; write one of these" },
    { "serve.masque.allow", MASQUE("allow: 10.0.0.0/8, "), MASQUE("allow: [all], "),
      "1:26: serve.masque.allow[0]: \"all\" is no range of addresses; 192.168.0.0/16 or fd00::/8 would "
      "work" },
    { "serve.masque.per-user", MASQUE("per-user: {flows: 5}, "), MASQUE("per-user: 5, "),
      "1:28: serve.masque.per-user: is a single value; a map such as {flows: 1000, rate: 50Mbit} would "
      "work" },
    { "serve.socks5.per-user", "serve: {socks5: {per-user: {flows: 5}}}\n",
      "serve: {socks5: {per-user: x}}\n",
      "1:28: serve.socks5.per-user: is a single value; a map such as {flows: 1000, rate: 50Mbit} would "
      "work" },
    { "serve.*.per-user.flows", "serve: {socks5: {per-user: {flows: 5}}}\n",
      "serve: {socks5: {per-user: {flows: 0}}}\n",
      "1:36: serve.socks5.per-user.flows: \"0\" is out of range; none or 1 to 1000000 would work" },
    { "serve.*.per-user.rate", "serve: {socks5: {per-user: {rate: 50Mbit}}}\n",
      "serve: {socks5: {per-user: {rate: 50MB}}}\n",
      "1:37: serve.socks5.per-user.rate: \"50MB\" has no known unit; write kbit, Mbit or Gbit, as in "
      "\"50Mbit\"" },
    { "serve.socks5.listen", "serve: {socks5: {listen: '[::1]:1080'}}\n",
      "serve: {socks5: {listen: '::1:1080'}}\n",
      "1:26: serve.socks5.listen: \"::1:1080\" is no address with a port; 127.0.0.1:1080 or '[::1]:1080' "
      "would work" },
    { "serve.socks5.udp", "serve: {socks5: {udp: false}}\n", "serve: {socks5: {udp: auto}}\n",
      "1:23: serve.socks5.udp: \"auto\" is neither true nor false; write one of these" },
    { "serve.socks5.users", "serve: {socks5: {users: {alice: pw, bob: pw}}}\n",
      "serve: {socks5: {users: [alice]}}\n",
      "1:25: serve.socks5.users: is a list; a map such as {alice: {file: PATH}} would work" },
    { "serve.socks5.allow", "serve: {socks5: {allow: 10.0.0.0/8}}\n", "serve: {socks5: {allow: [all]}}\n",
      "1:26: serve.socks5.allow[0]: \"all\" is no range of addresses; 192.168.0.0/16 or fd00::/8 would "
      "work" },
};

/* What is said without the file's name, which is the same in every line. */
static void strip_file(char *text)
{
    char *to = text;

    for (const char *s = text; *s != '\0';) {
        if ((s == text || s[-1] == '\n') && strncmp(s, "t.yaml:", 7) == 0)
            s += 7;
        *to++ = *s++;
    }
    *to = '\0';
}

static bool says_so(const char *said, const char *expected)
{
    size_t len = strlen(expected);

    /* A row that ends in ": " leaves the sentence to src/rules, whose own test has it. */
    return len > 2 && strcmp(expected + len - 2, ": ") == 0
               ? strncmp(said, expected, len) == 0 && strchr(said, '\n') == NULL
               : strcmp(said, expected) == 0;
}

static void every_key_loads_when_right_and_says_so_when_wrong(void **state) /* faults.md C1, C3 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        AUTO_TEXT good = lab_says(keys[i].right);
        AUTO_TEXT bad = lab_says(keys[i].wrong);

        strip_file(bad);
        if (strcmp(good, "") == 0 && says_so(bad, keys[i].says))
            continue;
        print_error("%s\n  right: %s\n  wrong: %s\n    not: %s\n", keys[i].path, good, bad, keys[i].says);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* ---- the schema, walked -------------------------------------------------------------------------------------------------- */

static bool has_row(const char *path)
{
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (strcmp(keys[i].path, path) == 0)
            return true;
    }
    return false;
}

static void path_of(const struct cfg_section *s, const struct cfg_key *k, char out[128])
{
    snprintf(out, 128, "%s%s%s", s->where, s->where[0] != '\0' ? "." : "", k->name);
}

static int untested_keys(const struct cfg_section *s)
{
    int missing = 0;
    char path[128];

    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        path_of(s, k, path);
        if (k->state != CFG_HERE)
            continue;
        if (k->type != &cfg_section_type && !has_row(path)) {
            print_error("no row for the key %s\n", path);
            missing++;
        }
        if (k->section != NULL)
            missing += untested_keys(k->section);
    }
    return missing;
}

static void every_key_of_the_schema_has_a_row_above(void **state)
{
    (void)state;
    assert_int_equal(untested_keys(&cfg_schema), 0);
}

/* "stack.icmp.ttl" as YAML: maps in maps; an entry of a list stands in one. The place of the key comes out, too. */
static void yaml_of(const struct cfg_section *s, const char *key, char out[256], unsigned *column)
{
    char path[128];
    size_t n = 0, open = 0;
    char *rest = path, *word;

    snprintf(path, sizeof(path), "%s", s->where);
    while ((word = strsep(&rest, ".")) != NULL && word[0] != '\0') {
        char *list = strstr(word, "[]");

        if (list != NULL)
            *list = '\0';
        n += (size_t)snprintf(out + n, 256 - n, "%s: {", word);
        open++;
    }
    *column = (unsigned)n + 1;
    n += (size_t)snprintf(out + n, 256 - n, "%s: x", key);
    while (open-- > 0)
        n += (size_t)snprintf(out + n, 256 - n, "}");
    snprintf(out + n, 256 - n, "\n");
}

static int later_keys_not_refused(const struct cfg_section *s)
{
    char yaml[256], says[256];
    unsigned column;
    int wrong = 0;

    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        if (k->state == CFG_HERE && k->section != NULL)
            wrong += later_keys_not_refused(k->section);
        if (k->state != CFG_LATER)
            continue;
        AUTO_TEXT said = NULL;

        yaml_of(s, k->name, yaml, &column);
        said = lab_says(yaml);
        snprintf(says, sizeof(says), "t.yaml:1:%u: ", column);
        if (strstr(said, says) != NULL && strstr(said, "not supported yet") != NULL)
            continue;
        print_error("%s  said: %s\n", yaml, said);
        wrong++;
    }
    return wrong;
}

static void what_is_not_built_yet_says_so_with_its_position(void **state) /* faults.md C1 */
{
    (void)state;
    assert_int_equal(later_keys_not_refused(&cfg_schema), 0);
}

static void a_key_of_mihomo_that_we_lack_names_the_nearest_thing(void **state) /* faults.md C1 */
{
    static const char *const known[] = { "", "tun", "dns", "proxies[]", "proxy-groups[]" };
    const struct cfg_foreign *list;
    char yaml[256], says[256];
    unsigned column;
    int wrong = 0;
    size_t n;

    (void)state;
    list = cfg_foreign_list(&n);
    for (size_t i = 0; i < n; i++) {
        struct cfg_section s = { .where = list[i].where };
        AUTO_TEXT said = NULL;
        size_t place = 0;

        while (place < ARRAY_LEN(known) && strcmp(known[place], list[i].where) != 0)
            place++;
        yaml_of(&s, list[i].name, yaml, &column);
        said = lab_says(yaml);
        snprintf(says, sizeof(says), "the key \"%s\" of mihomo is not supported; %s", list[i].name,
                 list[i].instead);
        if (place < ARRAY_LEN(known) && strstr(said, says) != NULL)
            continue;
        print_error("%s  said: %s\n", yaml, said);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* Keys that config.md names (sections 3, 4 and 6): each is known, built or not. */
static void every_key_that_the_specification_names_is_known(void **state)
{
    static const char *const paths[] = {
        "proxies.fingerprint: x",
        "rate-limits: x",
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        char where[128], yaml[256];
        struct cfg_section s = { .where = where };
        char *key;
        unsigned column;

        snprintf(where, sizeof(where), "%.*s", (int)strcspn(paths[i], ":"), paths[i]);
        key = strrchr(where, '.');
        if (key == NULL)
            s.where = "";
        else
            *key++ = '\0';
        yaml_of(&s, key == NULL ? where : key, yaml, &column);
        AUTO_TEXT said = lab_says(yaml);

        if (strstr(said, "not supported yet") != NULL)
            continue;
        print_error("%s  said: %s\n", yaml, said);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* ---- faults.md C1 to C3: tables ------------------------------------------------------------------------------------------ */

static void a_misspelt_key_earns_a_suggestion(void **state) /* faults.md C1 */
{
    static const struct lab_row rows[] = {
        { "tun: {adress: 10.0.0.1/8}\n" MATCH,
          "t.yaml:1:7: tun: unknown key \"adress\"; did you mean \"address\"?" },
        { "tun: {auto_route: true}\n" MATCH,
          "t.yaml:1:7: tun: unknown key \"auto_route\"; did you mean \"auto-route\"?" },
        { "proxys: []\n", "t.yaml:1:1: unknown key \"proxys\"; did you mean \"proxies\"?" },
        { "Rules: []\n", "t.yaml:1:1: unknown key \"Rules\"; did you mean \"rules\"?" },
        { "mtu: 1500\n", "t.yaml:1:1: unknown key \"mtu\"; there is \"tun.mtu\"" },
        { "connect-timeout: 1s\n",
          "t.yaml:1:1: unknown key \"connect-timeout\"; there is \"stack.tcp.connect-timeout\"" },
        { "zebra: 1\n", "t.yaml:1:1: unknown key \"zebra\"; docs/config.md lists the keys that would work" },
        { "rules: [{via: DIRECT, dst-prt: 80}]\n",
          "t.yaml:1:23: rules[0]: unknown key \"dst-prt\"; did you mean \"dst-port\"?" },
        { "tun: {tcp: {}}\n" MATCH, "t.yaml:1:7: tun: unknown key \"tcp\"; there is \"limits.tcp\"" },
        { "\"a\\nb\\e[31m\": 1\n",
          "t.yaml:1:1: unknown key \"a\\x0ab\\x1b[31m\"; docs/config.md lists the keys that would work" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void a_value_of_the_wrong_type_is_an_error_of_its_own(void **state) /* faults.md C3 */
{
#define NUMBER(value, says)                                                                                  \
    {                                                                                                        \
        "tun: {mtu: " value "}\n" MATCH, "t.yaml:1:12: tun.mtu: " says                                       \
    }
    static const struct lab_row rows[] = {
        NUMBER("[1500]", "is a list; a number would work"),
        NUMBER("{a: 1}", "is a map; a number would work"),
        NUMBER("yes", "\"yes\" is no whole number; 576 to 65535 would work"),
        NUMBER("true", "\"true\" is no whole number; 576 to 65535 would work"),
        NUMBER("01500", "\"01500\" has a leading zero; 576 to 65535 would work"),
        NUMBER("1e3", "\"1e3\" is no whole number; 576 to 65535 would work"),
        NUMBER("1500.0", "\"1500.0\" is no whole number; 576 to 65535 would work"),
        NUMBER("1_500", "\"1_500\" is no whole number; 576 to 65535 would work"),
        NUMBER("0x5dc", "\"0x5dc\" is no whole number; 576 to 65535 would work"),
        NUMBER("+1500", "\"+1500\" is no whole number; 576 to 65535 would work"),
        NUMBER("-1", "\"-1\" is out of range; 576 to 65535 would work"),
        NUMBER("18446744073709551616", "\"18446744073709551616\" is out of range; 576 to 65535 would work"),
        NUMBER("18446744073709553116", "\"18446744073709553116\" is out of range; 576 to 65535 would work"),
        NUMBER("''", "\"\" is no whole number; 576 to 65535 would work"),
        NUMBER("", "has no value; a number would work"),
        NUMBER("null", "has no value; a number would work"),
        NUMBER("~", "has no value; a number would work"),
        NUMBER("'~'", "\"~\" is no whole number; 576 to 65535 would work"),
        { "tun:\n" MATCH, "t.yaml:1:5: tun: has no value; a map (key: value) would work" },
        { "tun: []\n" MATCH, "t.yaml:1:6: tun: is a list; a map (key: value) would work" },
        { "tun: on\n" MATCH, "t.yaml:1:6: tun: is a single value; a map (key: value) would work" },
        { "tun: {auto-route: True}\n" MATCH,
          "t.yaml:1:19: tun.auto-route: \"True\" is neither true nor false; write one of these" },
        { "tun: {auto-route: 1}\n" MATCH,
          "t.yaml:1:19: tun.auto-route: \"1\" is neither true nor false; write one of these" },
        { "log: {level: [info]}\n",
          "t.yaml:1:14: log.level: is a list; info, debug, warning or error would work" },
        { "rules:\n", "t.yaml:1:7: rules: has no value; a rule such as MATCH,DIRECT would work" },
        { "rules: [[MATCH]]\n", "t.yaml:1:9: rules[0]: is a list; a rule such as MATCH,DIRECT would work" },
        { "rules: [~]\n", "t.yaml:1:9: rules[0]: has no value; a rule such as MATCH,DIRECT would work" },
        { "tun: {address: [10.0.0.1/8, ~]}\n" MATCH,
          "t.yaml:1:29: tun.address[1]: has no value; an address such as 198.18.0.1/30 would work" },
        { "tun: {address: {a: b}}\n" MATCH,
          "t.yaml:1:16: tun.address: is a map; an address such as 198.18.0.1/30 would work" },
        { "limits: {memory: 0x10}\n",
          "t.yaml:1:19: limits.memory: \"0x10\" has no known unit; write KiB, MiB or GiB, as in \"64MiB\"" },
        { "tun: {routing-mark: 0x1ffffffff}\n" MATCH, "t.yaml:1:21: tun.routing-mark: \"0x1ffffffff\" is no "
                                                      "mark; a number from 1 to 0xffffffff would work, as in "
                                                      "0x1b6" },
        { "tun: {routing-mark: 0}\n" MATCH, "t.yaml:1:21: tun.routing-mark: \"0\" is no mark; a number from "
                                            "1 to 0xffffffff would work, as in 0x1b6" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void all_mistakes_of_a_file_are_named_in_one_run_in_their_order(void **state) /* faults.md C3 */
{
    static const struct lab_row rows[] = {
        { "tun:\n"
          "  adress: x\n"
          "  mtu: 70000\n"
          "  address: nonsense\n"
          "proxies:\n"
          "  - {name: a, type: socks5, server: h, port: 0}\n"
          "  - {name: a, type: ss, server: h, port: 1, cipher: x}\n"
          "rules:\n"
          "  - IP-CIDR,10.0.0.0/8,b\n"
          "  - MATCH,a\n"
          "log: {levle: info}\n",
          "t.yaml:2:3: tun: unknown key \"adress\"; did you mean \"address\"?\n"
          "t.yaml:3:8: tun.mtu: \"70000\" is out of range; 576 to 65535 would work\n"
          "t.yaml:4:12: tun.address: \"nonsense\" is no address with a prefix length; 198.18.0.1/30 would "
          "work\n"
          "t.yaml:6:46: proxies[0].port: \"0\" is out of range; 1 to 65535 would work\n"
          "t.yaml:7:12: proxies[1]: the name \"a\" is there twice; the first is on line 6, column 12\n"
          "t.yaml:7:21: proxies[1].type: \"ss\" is not supported yet; socks5, socks4, socks4a, http or "
          "masque would "
          "work\n"
          "t.yaml:7:45: proxies[1]: the key \"cipher\" of mihomo is not supported; type socks5 has none\n"
          "t.yaml:9:24: rules[0]: no proxy is called \"b\"; a name from proxies, DIRECT, REJECT or "
          "REJECT-DROP would work\n"
          "t.yaml:11:7: log: unknown key \"levle\"; did you mean \"level\"?" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void other_spellings_of_mihomo_are_understood(void **state) /* config.md section 6 */
{
    static const struct lab_row rows[] = {
        { "tun: {device: x}\n" MATCH, "" },
        { "tun: {device: a/b}\n" MATCH, "t.yaml:1:15: tun.device: \"a/b\" is no interface name; 1 to 15 "
                                        "bytes without space, /, : or % would work" },
        { "tun: {enable: true, stack: mixed}\n" MATCH,
          "t.yaml:1:15: warning: tun.enable: has no effect; a section that is there is in force\n"
          "t.yaml:1:28: warning: tun.stack: has no effect here; remove it" },
        { "tun: {enable: false}\n" MATCH,
          "t.yaml:1:15: tun.enable: only true would work; to be without it, remove the section" },
        { "tun: {auto-detect-interface: true, interface-name: auto}\n" MATCH, "" },
        { "tun: {interface-name: eth0, auto-detect-interface: true}\n" MATCH,
          "t.yaml:1:52: tun.auto-detect-interface: contradicts the key on line 1; keep one of the two" },
        { "tun: {auto-detect-interface: true, interface-name: eth0}\n" MATCH,
          "t.yaml:1:52: tun.interface-name: contradicts the key on line 1; keep one of the two" },
        { "dns: {enhanced-mode: redir-host}\n",
          "t.yaml:1:22: dns.mode: real asks name servers, and there is none; set dns.nameserver" },
        { "dns: {enhanced-mode: off, mode: off}\n",
          "t.yaml:1:27: dns.mode: says the same as \"enhanced-mode\" on line 1; keep one of the two" },
        { "dns: {listen: '0.0.0.0:53'}\n",
          "t.yaml:1:15: warning: dns.listen: has no effect here; remove it" },
        { "dns: {enable: true}\n", "t.yaml:1:15: warning: dns.enable: has no effect; mode decides" },
        { PROXY(", client-fingerprint: chrome"),
          "t.yaml:1:75: warning: proxies[0].client-fingerprint: has no effect here; remove it" },
        { "proxies: [{name: a, type: vmess, server: h, port: 1, uuid: x}]\n" MATCH,
          "t.yaml:1:27: proxies[0].type: \"vmess\" is not supported; socks5, socks4, socks4a, http or masque "
          "would "
          "work\n"
          "t.yaml:1:54: proxies[0]: the key \"uuid\" of mihomo is not supported; type socks5 has username "
          "and password" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

/* A key that others can read earns a warning, and a checkout does not keep a file's mode beyond its x bit. */
static int close_key_file(void **state)
{
    (void)state;
    return chmod(DATA "/key.pem", 0600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_loads_when_right_and_says_so_when_wrong),
        cmocka_unit_test(every_key_of_the_schema_has_a_row_above),
        cmocka_unit_test(what_is_not_built_yet_says_so_with_its_position),
        cmocka_unit_test(a_key_of_mihomo_that_we_lack_names_the_nearest_thing),
        cmocka_unit_test(every_key_that_the_specification_names_is_known),
        cmocka_unit_test(a_misspelt_key_earns_a_suggestion),
        cmocka_unit_test(a_value_of_the_wrong_type_is_an_error_of_its_own),
        cmocka_unit_test(all_mistakes_of_a_file_are_named_in_one_run_in_their_order),
        cmocka_unit_test(other_spellings_of_mihomo_are_understood),
    };

    return cmocka_run_group_tests(tests, close_key_file, NULL);
}
