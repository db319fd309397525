/* schema_hev.c - the keys of a file of hev-socks5-tunnel, with that program's units and defaults; hev.c says what becomes of them. */
#include "hev.h"
#include "schema.h"

#define HEV_AT(member) .offset = (uint32_t)offsetof(struct cfg_hev, member)
#define HEV_MS_MIN     1000
#define HEV_MS_MAX     (24u * 3600 * 1000)

#define NO_EFFECT(name_, help_)                                                                              \
    {                                                                                                        \
        .name = (name_), .type = &cfg_ignored, .state = CFG_NO_EFFECT, .help = (help_)                       \
    }

static const struct cfg_choice pings[] = {
    { "off", false, CFG_HERE },
    { "reply", true, CFG_HERE },
    { .text = NULL },
};

static const struct cfg_key tunnel_keys[] = {
    { .name = "name",
      .type = &cfg_text_node,
      HEV_AT(name),
      .shown = "`tun0`",
      .help = "`tun.name`; there, the default is the first of `tun0`, `tun1`, ... that is free" },
    { .name = "mtu",
      .type = &cfg_uint,
      HEV_AT(mtu),
      .fallback = "8500",
      .min = 576,
      .max = 65535,
      .help = "`tun.mtu`" },
    { .name = "multi-queue",
      .type = &cfg_bool,
      HEV_AT(multi_queue),
      .fallback = "false",
      .help = "accepted; there is a queue for each worker in any case" },
    { .name = "ipv4",
      .type = &cfg_hev_address,
      HEV_AT(ipv4),
      .shown = "none",
      .help = "`tun.address`, without a range" },
    { .name = "ipv6", .type = &cfg_hev_address, HEV_AT(ipv6), .shown = "none", .help = "the same" },
    { .name = "icmp",
      .type = &cfg_choice,
      HEV_AT(ping),
      .fallback = "off",
      .choices = pings,
      .help = "`stack.icmp.echo`: `drop` or `reply`" },
    { .name = "post-up-script",
      .type = &cfg_text_node,
      .state = CFG_FOREIGN,
      .instead = "no program is ever run: make your routes when `culvert run` has printed \"ready\", or "
                 "write a file of ours with tun.auto-route",
      .help = "refused" },
    { .name = "pre-down-script",
      .type = &cfg_text_node,
      .state = CFG_FOREIGN,
      .instead = "no program is ever run: routes into the device end with it; for others use what starts "
                 "`culvert run`, such as ExecStopPost",
      .help = "refused" },
    END,
};

const struct cfg_section cfg_hev_tunnel = {
    .where = "tunnel",
    .help = "The device. Routes into it are yours to make, as with hev-socks5-tunnel.",
    .keys = tunnel_keys,
};

static const struct cfg_choice relays[] = {
    { "tcp", false, CFG_HERE },
    { "udp", true, CFG_HERE },
    { .text = NULL },
};

static const struct cfg_key socks5_keys[] = {
    { .name = "address",
      .type = &cfg_text_node,
      HEV_AT(server),
      .required = true,
      .help = "`server` of the one proxy" },
    { .name = "port",
      .type = &cfg_uint,
      HEV_AT(port),
      .required = true,
      .min = 1,
      .max = 65535,
      .help = "its `port`" },
    { .name = "udp",
      .type = &cfg_choice,
      HEV_AT(udp),
      .fallback = "tcp",
      .choices = relays,
      .help = "its `udp`: `over-tcp` or `true`" },
    { .name = "udp-address",
      .type = &cfg_text_node,
      HEV_AT(udp_address),
      .shown = "none",
      .help = "refused: datagrams go where the server says; `0.0.0.0` from it stands for its own address" },
    { .name = "pipeline",
      .type = &cfg_bool,
      HEV_AT(pipeline),
      .fallback = "false",
      .help = "its `pipelining`" },
    { .name = "username",
      .type = &cfg_text_node,
      HEV_AT(username),
      .shown = "none",
      .help = "its `username`; with `password`, or neither" },
    { .name = "password",
      .type = &cfg_secret_node,
      HEV_AT(password),
      .shown = "none",
      .help = "its `password`" },
    { .name = "mark",
      .type = &cfg_text_node,
      HEV_AT(mark),
      .shown = "0",
      .help = "`tun.routing-mark`; decimal, hex with 0x, octal with 0" },
    { .name = "tcp-fastopen",
      .type = &cfg_bool,
      HEV_AT(fast_open),
      .fallback = "false",
      .help = "its `tcp-fast-open`" },
    END,
};

const struct cfg_section cfg_hev_socks5 = {
    .where = "socks5",
    .help = "The one way out; all traffic takes it.",
    .keys = socks5_keys,
};

static const struct cfg_key mapdns_keys[] = {
    { .name = "address",
      .type = &cfg_text_node,
      HEV_AT(dns_address),
      .required = true,
      .help = "`dns.hijack`: queries to it are answered with addresses that stand for names" },
    { .name = "port",
      .type = &cfg_uint,
      HEV_AT(dns_port),
      .required = true,
      .min = 1,
      .max = 65535,
      .help = "and its port" },
    { .name = "network",
      .type = &cfg_text_node,
      HEV_AT(dns_network),
      .required = true,
      .help = "`dns.fake-ip-range`, its first address" },
    { .name = "netmask",
      .type = &cfg_text_node,
      HEV_AT(dns_netmask),
      .required = true,
      .help = "and its mask" },
    { .name = "cache-size",
      .type = &cfg_uint,
      HEV_AT(dns_names),
      .fallback = "0",
      .max = 1u << 24,
      .help =
          "0: `dns.mode: off`; else `fake-ip`, and the range, or 65,536, says how many names there can be" },
    END,
};

const struct cfg_section cfg_hev_mapdns = {
    .where = "mapdns",
    .help = "Names for flows. Nothing of it is kept over a restart, and names have no IPv6 addresses.",
    .keys = mapdns_keys,
};

static const struct cfg_choice levels[] = {
    { "warn", LOG_WARNING, CFG_HERE }, { "debug", LOG_DEBUG, CFG_HERE },      { "info", LOG_INFO, CFG_HERE },
    { "error", LOG_ERROR, CFG_HERE },  { "warning", LOG_WARNING, CFG_ALIAS }, { .text = NULL },
};

static const struct cfg_key misc_keys[] = {
    { .name = "connect-timeout",
      .type = &cfg_uint,
      HEV_AT(connect_ms),
      .fallback = "10000",
      .min = 100,
      .max = 600000,
      .help = "`stack.tcp.connect-timeout`, in milliseconds" },
    { .name = "read-write-timeout",
      .type = &cfg_uint,
      HEV_AT(both_ms),
      .shown = "none",
      .min = HEV_MS_MIN,
      .max = HEV_MS_MAX,
      .help = "the two below, where they are not there, in milliseconds" },
    { .name = "tcp-read-write-timeout",
      .type = &cfg_uint,
      HEV_AT(tcp_ms),
      .shown = "300000",
      .min = HEV_MS_MIN,
      .max = HEV_MS_MAX,
      .help = "`stack.tcp.idle-timeout` and `half-close-timeout`, in milliseconds" },
    { .name = "udp-read-write-timeout",
      .type = &cfg_uint,
      HEV_AT(udp_ms),
      .shown = "60000",
      .min = HEV_MS_MIN,
      .max = HEV_MS_MAX,
      .help = "`stack.udp.idle-timeout`, in milliseconds" },
    { .name = "max-session-count",
      .type = &cfg_uint,
      HEV_AT(sessions),
      .fallback = "0",
      .max = 16777216,
      .help = "`limits.tcp` and `limits.udp`, each; 0: `auto`" },
    { .name = "log-file",
      .type = &cfg_null_node,
      HEV_AT(log_file),
      .shown = "`stderr`; there, none",
      .help = "`log.output`; `null`: no log" },
    { .name = "log-level",
      .type = &cfg_choice,
      HEV_AT(log_level),
      .fallback = "warn",
      .choices = levels,
      .help = "`log.level`" },
    NO_EFFECT("task-stack-size", "no effect; `limits.memory` is the one budget"),
    NO_EFFECT("tcp-buffer-size", "no effect; `limits.memory` is the one budget"),
    NO_EFFECT("udp-recv-buffer-size", "no effect"),
    NO_EFFECT("udp-copy-buffer-nums", "no effect"),
    NO_EFFECT("limit-nofile", "no effect; the limit is raised as far as the system allows"),
    NO_EFFECT("pid-file", "no effect; the program stays in the foreground"),
    END,
};

const struct cfg_section cfg_hev_misc = {
    .where = "misc",
    .help = "Limits, times, log.",
    .keys = misc_keys,
};
