/* schema_dns.c - the keys of `dns`, `hosts` and `sniffer`; part of the table in schema.c. */
#include "schema.h"

#define SECONDS 1000ull

_Static_assert(sizeof(enum dns_mode) == sizeof(int) && sizeof(enum dns_order) == sizeof(int), "enum size");

static const struct cfg_choice modes[] = {
    { "off", DNS_MODE_OFF, CFG_HERE },
    { "real", DNS_MODE_REAL, CFG_HERE },
    { "fake-ip", DNS_MODE_FAKE_IP, CFG_HERE },
    { "redir-host", DNS_MODE_REAL, CFG_ALIAS }, /* mihomo's word for real */
    { .text = NULL },
};
static const struct cfg_choice orders[] = {
    { "race", DNS_RACE, CFG_HERE },
    { "in-order", DNS_IN_ORDER, CFG_HERE },
    { .text = NULL },
};

static const struct cfg_key dns_keys[] = {
    { .name = "hijack",
      .type = &cfg_dns_hijack,
      .shown = "`any:53`, `tcp://any:53`",
      .help = "queries to these addresses are answered here, whatever their target is" },
    { .name = "mode",
      .type = &cfg_dns_mode,
      AT(dns.mode),
      .fallback = "off",
      .choices = modes,
      .help =
          "`off`: queries are flows like others and follow the rules. `real`: answers come through "
          "`nameserver`, and rules know the names of the addresses until their TTL. `fake-ip`: a name gets "
          "an address that stands for it, and the way out gets the name" },
    { .name = "fake-ip-range",
      .fixed = true,
      .type = &cfg_dns_range,
      AT(dns.fake4),
      .fallback = "198.19.0.0/16",
      .help =
          "IPv4 addresses that stand for names; an address that a flow uses, or that was handed out within "
          "10 minutes, is not given to another name" },
    { .name = "fake-ip-range6",
      .fixed = true,
      .type = &cfg_dns_range,
      AT(dns.fake6),
      .fallback = "fdfe:dcba:9877::/64",
      .help = "the same for IPv6" },
    { .name = "fake-ip-filter",
      .type = &cfg_dns_filter,
      .fallback = "*.lan +.local",
      .help = "names that keep their real addresses: `a.b` that name, `+.a.b` it and all below, `*.a.b` one "
              "label more" },
    { .name = "fake-ip-store",
      .type = &cfg_bool,
      AT(dns.fake_store),
      .fallback = "true",
      .help = "keep fake addresses over a restart, in `runtime.state-dir`" },
    { .name = "cache-size",
      .fixed = true,
      .type = &cfg_uint,
      AT(dns.cache_names),
      .fallback = "4096",
      .min = 64,
      .max = 1000000,
      .help = "answers that are remembered, of all workers" },
    { .name = "nameserver",
      .type = &cfg_dns_servers,
      .shown = "none",
      .help =
          "who is asked: `192.0.2.53`, `tcp://`, `tls://` or `https://192.0.2.53/dns-query`; `#name` goes "
          "through that proxy. "
          "Never the system's resolver" },
    { .name = "nameserver-order",
      .type = &cfg_choice,
      AT(dns.order),
      .fallback = "race",
      .choices = orders,
      .help =
          "`race`: all are asked, the first good answer counts; `in-order`: the next one when one fails" },
    { .name = "nameserver-policy",
      .type = &cfg_dns_policy,
      .shown = "none",
      .help = "who is asked for some names; the first pattern that fits" },
    { .name = "proxy-server-nameserver",
      .type = &cfg_dns_proxy_servers,
      .shown = "those of resolv.conf",
      .help =
          "who is asked, directly, for the names of proxies and name servers: as in `nameserver`. Plain "
          "addresses, up to 3, are asked for the names of the others, and for all if there are no others" },
    { .name = "ca",
      .type = &cfg_dns_ca,
      .shown = "the system's",
      .help = "authorities of `tls://` and `https://` name servers" },
    { .name = "block-types",
      .type = &cfg_dns_types,
      .fallback = "SVCB HTTPS",
      .help = "types of queries that get an empty answer; `none`: no type" },
    { .name = "rebind-allow",
      .type = &cfg_dns_rebind,
      .fallback = "none",
      .help =
          "names whose addresses may be of this machine or of the device; all others lose such addresses" },
    { .name = "queries-per-source",
      .type = &cfg_uint,
      AT(dns.queries_per_source),
      .fallback = "1000",
      .min = 1,
      .max = 1000000,
      .help = "queries a second that one client address may ask" },
    ALIAS("enhanced-mode", "mode"),
    { .name = "default-nameserver",
      .type = &cfg_dns_default_servers,
      .shown = "none",
      .help = "mihomo: more entries of `proxy-server-nameserver`" },
    { .name = "enable", .type = &cfg_dns_enable, .help = "mihomo: `false` is `mode: off`" },
    { .name = "listen", .type = &cfg_ignored, .state = CFG_NO_EFFECT, .help = "mihomo: no effect" },
    END,
};

const struct cfg_section cfg_dns_section = {
    .where = "dns",
    .help = "Names. With `mode: off`, queries are flows like others and follow the rules.",
    .keys = dns_keys,
};

static const struct cfg_key sniffer_keys[] = {
    { .name = "timeout",
      .type = &cfg_duration,
      AT(forward.sniff.timeout_ms),
      .fallback = "300ms",
      .min = 10,
      .max = 10 * SECONDS,
      .help = "how long a client's first bytes are waited for; then rules decide without a name" },
    { .name = "tls",
      .type = &cfg_sniff_ports,
      AT(forward.sniff.tls),
      .fallback = "443 8443",
      .help = "ports where the name of TLS (SNI) is looked for; `none`: nowhere" },
    { .name = "http",
      .type = &cfg_sniff_ports,
      AT(forward.sniff.http),
      .fallback = "80",
      .help = "ports where HTTP's Host is looked for" },
    { .name = "quic",
      .type = &cfg_sniff_ports,
      AT(forward.sniff.quic),
      .fallback = "443",
      .help = "UDP ports where QUIC's first datagrams are opened" },
    END,
};

const struct cfg_section cfg_sniffer_section = {
    .where = "sniffer",
    .help = "Names from the first bytes of a flow, for flows whose rules still need one. TCP must have been "
            "accepted by then: see `stack.tcp.accept`.",
    .keys = sniffer_keys,
};
