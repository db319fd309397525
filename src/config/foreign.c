/* foreign.c - keys of mihomo that we know and do not have, each with what comes nearest (config.md section 6), and by which a file of
 * sing-box (JSON, which YAML reads) is known.
 *
 * Whoever pastes a mihomo file learns of each such key what to do instead; the list follows mihomo's documentation. */
#include "config_impl.h"

#include <string.h>

static const struct cfg_foreign of_sing_box[] = {
    { "", "inbounds", "tun is the device; docs/recipes.md has a table of its keys and ours" },
    { "", "outbounds", "proxies and proxy-groups are that; docs/recipes.md has a table" },
    { "", "endpoints", "WireGuard and the like are not spoken" },
    { "", "route", "rules are lines, and final is their MATCH; docs/recipes.md has a table" },
    { "", "experimental", "fake addresses are kept by themselves, and api.unix is the control socket" },
    { "dns", "servers", "nameserver is a list of addresses and URLs" },
    { "dns", "final", "nameserver is asked when nameserver-policy names nobody else" },
    { "dns", "strategy", "both families are asked for" },
};

static const struct cfg_foreign foreign[] = {
    /* top level */
    { "", "port", "for programs that speak to a proxy, run `culvert serve` with serve.socks5" },
    { "", "socks-port", "for programs that speak to a proxy, run `culvert serve` with serve.socks5" },
    { "", "mixed-port", "for programs that speak to a proxy, run `culvert serve` with serve.socks5" },
    { "", "redir-port", "tun.auto-route leads all traffic in" },
    { "", "tproxy-port", "tun.auto-route leads all traffic in" },
    { "", "listeners", "traffic comes in by tun, and for `culvert serve` by serve" },
    { "", "tunnels", "a rule with a target address does the same for a TUN" },
    { "", "allow-lan", "serve.socks5.listen names the address" },
    { "", "bind-address", "serve.socks5.listen names the address" },
    { "", "lan-allowed-ips", "a rule with src-cidr does that" },
    { "", "lan-disallowed-ips", "a rule with src-cidr and REJECT does that" },
    { "", "authentication", "serve.socks5.users does that" },
    { "", "skip-auth-prefixes", "serve.socks5.users is for all" },
    { "", "mode", "rules decide; a single MATCH rule is mihomo's global or direct mode" },
    { "", "log-level", "log.level does that" },
    { "", "ipv6", "tun.address has an IPv6 address, or has none" },
    { "", "external-controller", "api.unix is the control socket" },
    { "", "external-controller-unix", "api.unix does that" },
    { "", "external-controller-tls", "api.unix is the control socket" },
    { "", "external-controller-cors", "api.unix is the control socket" },
    { "", "external-controller-pipe", "api.unix does that" },
    { "", "external-doh-server", "leave it out" },
    { "", "external-ui", "there is no web page; `culvert status` shows what goes on" },
    { "", "external-ui-name", "there is no web page; `culvert status` shows what goes on" },
    { "", "external-ui-url", "there is no web page; `culvert status` shows what goes on" },
    { "", "secret", "api.unix is guarded by the socket's file mode" },
    { "", "interface-name", "tun.interface-name does that" },
    { "", "routing-mark", "tun.routing-mark does that" },
    { "", "geodata-mode", "geodata names the databases" },
    { "", "geodata-loader", "geodata names the databases" },
    { "", "geo-auto-update", "geodata names the databases; nothing is fetched" },
    { "", "geo-update-interval", "geodata names the databases; nothing is fetched" },
    { "", "geosite-matcher", "lists of domains are rule-providers" },
    { "", "geox-url", "geodata names the databases; nothing is fetched" },
    { "", "global-ua", "leave it out" },
    { "", "etag-support", "leave it out" },
    { "", "find-process-mode", "leave it out; programs are looked up when a rule asks" },
    { "", "tcp-concurrent", "leave it out" },
    { "", "unified-delay", "leave it out" },
    { "", "inbound-tfo", "leave it out" },
    { "", "inbound-mptcp", "leave it out" },
    { "", "keep-alive-interval", "stack.tcp.keepalive does that" },
    { "", "keep-alive-idle", "stack.tcp.keepalive does that" },
    { "", "disable-keep-alive", "stack.tcp.keepalive: off does that" },
    { "", "global-client-fingerprint", "leave it out" },
    { "", "profile", "leave it out" },
    { "", "proxy-providers", "write the entries into proxies" },
    { "", "sub-rules", "write the conditions into rules" },
    { "", "experimental", "leave it out" },
    { "", "ntp", "leave it out; the system keeps the time" },
    { "", "tls", "keys and certificates stand at the proxy or server that they belong to" },
    { "", "clash-for-android", "leave it out" },
    { "", "iptables", "tun.auto-route leads all traffic in" },
    { "", "ebpf", "tun.auto-route leads all traffic in" },
    { "", "auto-redir", "tun.auto-route leads all traffic in" },
    /* tun */
    { "tun", "auto-redirect", "auto-route does that" },
    { "tun", "auto-redirect-input-mark", "routing-mark is the one mark" },
    { "tun", "auto-redirect-output-mark", "routing-mark is the one mark" },
    { "tun", "auto-redirect-iproute2-fallback-rule-index", "leave it out" },
    { "tun", "gso", "offload does that" },
    { "tun", "gso-max-size", "offload does that, up to 64 KiB" },
    { "tun", "inet4-address", "address takes both families" },
    { "tun", "inet6-address", "address takes both families" },
    { "tun", "inet4-route-address", "route-exclude-address names what stays out" },
    { "tun", "inet6-route-address", "route-exclude-address names what stays out" },
    { "tun", "inet4-route-exclude-address", "route-exclude-address does that" },
    { "tun", "inet6-route-exclude-address", "route-exclude-address does that" },
    { "tun", "route-address", "route-exclude-address names what stays out" },
    { "tun", "route-address-set", "route-exclude-address names what stays out" },
    { "tun", "route-exclude-address-set", "route-exclude-address does that" },
    { "tun", "loopback-address", "leave it out" },
    { "tun", "endpoint-independent-nat", "stack.udp.nat does that, and it is the default" },
    { "tun", "udp-timeout", "stack.udp.idle-timeout does that" },
    { "tun", "disable-icmp-forwarding", "stack.icmp.echo does that" },
    { "tun", "iproute2-table-index", "leave it out" },
    { "tun", "iproute2-rule-index", "leave it out" },
    { "tun", "include-uid-range", "include-uid takes ranges such as 1000-1999" },
    { "tun", "exclude-uid-range", "exclude-uid takes ranges such as 1000-1999" },
    { "tun", "exclude-src-port", "a rule with src-port and DIRECT does that" },
    { "tun", "exclude-src-port-range", "a rule with src-port and DIRECT does that" },
    { "tun", "exclude-dst-port", "a rule with dst-port and DIRECT does that" },
    { "tun", "exclude-dst-port-range", "a rule with dst-port and DIRECT does that" },
    { "tun", "include-android-user", "leave it out" },
    { "tun", "include-package", "leave it out" },
    { "tun", "exclude-package", "leave it out" },
    { "tun", "include-mac-address", "a rule with src-cidr does that" },
    { "tun", "exclude-mac-address", "a rule with src-cidr does that" },
    { "tun", "recvmsgx", "leave it out" },
    { "tun", "sendmsgx", "leave it out" },
    { "tun", "file-descriptor", "fd does that" },
    /* dns */
    { "dns", "ipv6", "leave it out; both families are answered" },
    { "dns", "ipv6-timeout", "leave it out" },
    { "dns", "prefer-h3", "leave it out" },
    { "dns", "use-hosts", "leave it out; hosts always counts" },
    { "dns", "use-system-hosts", "leave it out; the hosts file always counts" },
    { "dns", "respect-rules", "`#name` after a name server sends it through that exit" },
    { "dns", "cache-algorithm", "cache-size does that" },
    { "dns", "cache-max-size", "cache-size does that" },
    { "dns", "fallback", "nameserver and nameserver-policy do that" },
    { "dns", "fallback-filter", "nameserver-policy does that" },
    { "dns", "fake-ip-filter-mode", "fake-ip-filter names what keeps its real address" },
    { "dns", "fake-ip-ttl", "leave it out" },
    { "dns", "direct-nameserver", "nameserver-policy does that" },
    { "dns", "direct-nameserver-follow-policy", "nameserver-policy does that" },
    { "dns", "proxy-server-nameserver-policy", "proxy-server-nameserver does that" },
    /* sniffer: the whole section is refused, so its keys are never looked up */
    /* proxies */
    { "proxies[]", "cipher", "type socks5 has none" },
    { "proxies[]", "plugin", "type socks5 has none" },
    { "proxies[]", "plugin-opts", "type socks5 has none" },
    { "proxies[]", "uuid", "type socks5 has username and password" },
    { "proxies[]", "alterId", "type socks5 has username and password" },
    { "proxies[]", "psk", "type socks5 has username and password" },
    { "proxies[]", "headers", "type socks5 has none" },
    { "proxies[]", "network", "type socks5 runs over TCP" },
    { "proxies[]", "ws-opts", "type socks5 runs over TCP" },
    { "proxies[]", "h2-opts", "type socks5 runs over TCP" },
    { "proxies[]", "http-opts", "type socks5 runs over TCP" },
    { "proxies[]", "grpc-opts", "type socks5 runs over TCP" },
    { "proxies[]", "xhttp-opts", "type socks5 runs over TCP" },
    { "proxies[]", "reality-opts", "tls verifies certificates" },
    { "proxies[]", "ech-opts", "leave it out" },
    { "proxies[]", "flow", "leave it out" },
    { "proxies[]", "packet-encoding", "leave it out" },
    { "proxies[]", "udp-over-tcp", "udp: over-tcp does that, in hev's way" },
    { "proxies[]", "udp-over-tcp-version", "udp: over-tcp does that, in hev's way" },
    { "proxies[]", "smux", "type masque will carry many streams in one connection" },
    { "proxies[]", "ip-version", "server takes an address of the family you want" },
    { "proxies[]", "tfo", "tcp-fast-open does that" },
    { "proxies[]", "mptcp", "leave it out" },
    { "proxies[]", "up", "rate-limits does that" },
    { "proxies[]", "down", "rate-limits does that" },
    { "proxies[]", "ports", "port takes one number" },
    { "proxies[]", "obfs", "leave it out" },
    { "proxies[]", "obfs-password", "leave it out" },
    { "proxies[]", "obfs-opts", "leave it out" },
    { "proxies[]", "certificate", "tls.certificate does that" },
    { "proxies[]", "private-key", "tls.private-key does that" },
    /* proxy-groups */
    { "proxy-groups[]", "use", "proxies names the members one by one" },
    { "proxy-groups[]", "filter", "proxies names the members one by one" },
    { "proxy-groups[]", "exclude-filter", "proxies names the members one by one" },
    { "proxy-groups[]", "exclude-type", "proxies names the members one by one" },
    { "proxy-groups[]", "include-all", "proxies names the members one by one" },
    { "proxy-groups[]", "include-all-proxies", "proxies names the members one by one" },
    { "proxy-groups[]", "include-all-providers", "proxies names the members one by one" },
    { "proxy-groups[]", "empty-fallback", "proxies names the members one by one" },
    { "proxy-groups[]", "lazy", "a group that nobody uses is never tested; leave it out" },
    { "proxy-groups[]", "hidden", "leave it out" },
    { "proxy-groups[]", "icon", "leave it out" },
    { "proxy-groups[]", "max-failed-times", "max-failures does that" },
    { "proxy-groups[]", "expected-status", "any status of url will do; leave it out" },
    { "proxy-groups[]", "disable-udp", "udp: false at the proxies does that" },
    { "proxy-groups[]", "interface-name", "interface-name at the proxies does that" },
    { "proxy-groups[]", "routing-mark", "routing-mark at the proxies does that" },
    { "proxy-groups[]", "default-selected", "the first of proxies is taken until another one is picked" },
};

static const struct cfg_foreign *find_in(const struct cfg_foreign *list, size_t n, const char *where,
                                         const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].name, name) == 0 && strcmp(list[i].where, where) == 0)
            return &list[i];
    }
    return NULL;
}

const struct cfg_foreign *cfg_foreign_find(const char *where, const char *name)
{
    const struct cfg_foreign *f = find_in(foreign, ARRAY_LEN(foreign), where, name);

    return f != NULL ? f : find_in(of_sing_box, ARRAY_LEN(of_sing_box), where, name);
}

const char *cfg_foreign_program(const struct cfg_foreign *f)
{
    return f >= of_sing_box && f < of_sing_box + ARRAY_LEN(of_sing_box) ? "sing-box" : "mihomo";
}

const struct cfg_foreign *cfg_foreign_list(size_t *n)
{
    *n = ARRAY_LEN(foreign);
    return foreign;
}
