/* schema.c - the one table of keys: what each is called, may say, defaults to and means.
 *
 * The loader obeys it (walk.c), messages take their suggestions from it, and docs/config.md is printed from it
 * (reference.c). A key that config.md of the specification promises and that is not built yet stands here as LATER: it is
 * refused by name. Keys of other programs that will not come are in foreign.c. */
#include "schema.h"

#define SECONDS    1000ull
#define HOURS      (3600 * SECONDS)
#define MILLIS_MAX (1176 * HOURS) /* 49 days: what 32 bits of milliseconds hold */
#define MIB        (1ull << 20)
#define FLOWS_MAX  16777216

/* Choices are stored as int. */
_Static_assert(sizeof(enum log_level) == sizeof(int) && sizeof(enum tun_offload) == sizeof(int) &&
                   sizeof(enum config_sandbox) == sizeof(int),
               "enum size");
_Static_assert(sizeof(enum echo_mode) == sizeof(int) && sizeof(enum upstream_udp) == sizeof(int) &&
                   sizeof(enum upstream_pipelining) == sizeof(int),
               "enum size");

/* ---- runtime, limits, log ------------------------------------------------------------------------------------------ */

#ifdef WITH_SECCOMP
#define REQUIRE_STATE CFG_HERE
#define NEEDS_SECCOMP
#else
#define REQUIRE_STATE CFG_LEFT_OUT
#define NEEDS_SECCOMP                                                                                        \
    .state = CFG_LEFT_OUT, .instead = "this program was built to keep its privileges (WITH_SECCOMP=OFF)",
#endif

static const struct cfg_choice sandboxes[] = {
    { "true", CONFIG_SANDBOX_ON, CFG_HERE },
    { "false", CONFIG_SANDBOX_OFF, CFG_HERE },
    { "require", CONFIG_SANDBOX_REQUIRE, REQUIRE_STATE },
    { .text = NULL },
};

static const struct cfg_key runtime_keys[] = {
    { .name = "workers",
      .type = &cfg_auto_uint,
      AT(workers),
      .fallback = "auto",
      .min = 1,
      .max = 64,
      .help = "threads, each with its own loop, TUN queue and stack shard; "
              "`auto`: one for each usable core" },
    { .name = "user",
      .fixed = true,
      NEEDS_SECCOMP.type = &cfg_account,
      AT(user),
      .shown = "unset: stay",
      .help = "become this user once everything is open; its files must be readable for a reload" },
    { .name = "sandbox",
      .fixed = true,
      .type = &cfg_choice,
      AT(sandbox),
      .fallback = "true",
      .choices = sandboxes,
      .help = "`run`, `serve` and `exec` give up privileges, system calls and files that are not needed; "
              "`require`: where the kernel cannot do all of it, do not start" },
    { .name = "state-dir",
      .type = &cfg_output_dir,
      .fixed = true,
      AT(state_dir),
      .fallback = "/var/lib/culvert",
      .help = "folder for what outlives a restart" },
    END,
};

static const struct cfg_section runtime = {
    .where = "runtime",
    .help = "The process itself.",
    .keys = runtime_keys,
};

static const struct cfg_key limits_keys[] = {
    { .name = "memory",
      .fixed = true,
      .type = &cfg_auto_size,
      AT(limits.memory_bytes),
      .fallback = "auto",
      .min = 16 * MIB,
      .max = MIB << 20,
      .help = "budget for buffers and flows; `auto`: a quarter of RAM or of the cgroup's limit, at "
              "least 16MiB" },
    { .name = "tcp",
      .fixed = true,
      .type = &cfg_auto_uint,
      AT(limits.tcp),
      .fallback = "auto",
      .min = 1,
      .max = FLOWS_MAX,
      .help = "TCP flows at a time; `auto`: what memory and descriptors carry" },
    { .name = "udp",
      .fixed = true,
      .type = &cfg_auto_uint,
      AT(limits.udp),
      .fallback = "auto",
      .min = 1,
      .max = FLOWS_MAX,
      .help = "UDP mappings at a time; `auto`: what memory and descriptors carry" },
    { .name = "per-source",
      .type = &cfg_none_uint,
      AT(limits.per_source),
      .fallback = "none",
      .min = 1,
      .max = FLOWS_MAX,
      .help = "flows of one client address at a time" },
    END,
};

static const struct cfg_section limits = {
    .where = "limits",
    .help = "What the process may take.",
    .keys = limits_keys,
};

static const struct cfg_choice log_levels[] = {
    { "info", LOG_INFO, CFG_HERE },
    { "debug", LOG_DEBUG, CFG_HERE },
    { "warning", LOG_WARNING, CFG_HERE },
    { "error", LOG_ERROR, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice log_formats[] = {
    { "text", LOG_TEXT, CFG_HERE },
    { "json", LOG_JSON, CFG_HERE },
    { .text = NULL },
};

static const struct cfg_key log_keys[] = {
    { .name = "level",
      .type = &cfg_choice,
      AT(log.level),
      .fallback = "info",
      .choices = log_levels,
      .help = "least importance of a line that is written" },
    { .name = "format",
      .type = &cfg_choice,
      AT(log.format),
      .fallback = "text",
      .choices = log_formats,
      .help =
          "how a line looks; `json`: an object a line, for an ended flow with `id`, `source`, `destination`, "
          "`host`, `upstream`, `rule`, `reason`, `up`, `down` and `age-ms`" },
    { .name = "output",
      .type = &cfg_output,
      AT(log.output),
      .fallback = "stderr",
      .help = "where lines go; a file is appended to" },
    END,
};

static const struct cfg_section log_section = {
    .where = "log",
    .help = "One line for each event, one for each flow that ended.",
    .keys = log_keys,
};

/* ---- tun ------------------------------------------------------------------------------------------------------------- */

static const struct cfg_choice offloads[] = {
    { "auto", TUN_OFFLOAD_AUTO, CFG_HERE },
    { "true", TUN_OFFLOAD_ON, CFG_HERE },
    { "false", TUN_OFFLOAD_OFF, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice on_exits[] = { { "restore", ROUTE_RESTORE, CFG_HERE },
                                              { "keep", ROUTE_KEEP, CFG_HERE },
                                              { "block", ROUTE_BLOCK, CFG_HERE },
                                              { .text = NULL } };

#ifdef WITH_NFT
#define NEEDS_NFT
#else
#define NEEDS_NFT .state = CFG_LEFT_OUT, .instead = "this program was built without nftables (WITH_NFT=OFF)",
#endif

static const struct cfg_key tun_keys[] = {
    { .name = "name",
      .type = &cfg_interface,
      AT(tun.name),
      .fallback = "culvert0",
      .help = "name of the device, made at start and gone at the end" },
    { .name = "fd",
      .type = &cfg_fd,
      AT(tun.fd),
      .shown = "none",
      .min = 0,
      .max = 65535,
      .help = "adopt this open TUN descriptor instead; its name, addresses and MTU stay as they are" },
    { .name = "address",
      .type = &cfg_tun_addresses,
      .fallback = "198.18.0.1/30 fdfe:dcba:9876::1/126",
      .help = "addresses of the device; without one of a family, that family is not carried" },
    { .name = "mtu",
      .type = &cfg_mtu,
      AT(tun.mtu),
      .fallback = "1500",
      .min = 576,
      .max = 65535,
      .help = "largest packet; 1280 or more with an IPv6 address" },
    { .name = "queues",
      .type = &cfg_auto_uint,
      AT(tun.queues),
      .fallback = "auto",
      .min = 1,
      .max = 64,
      .help = "queues of the device; `auto`: one for each worker" },
    { .name = "offload",
      .type = &cfg_choice,
      AT(tun.offload),
      .fallback = "auto",
      .choices = offloads,
      .help = "exchange super-segments with the kernel, both ways; `auto` does what the kernel can" },
    { .name = "auto-route",
      .type = &cfg_bool,
      AT(route.auto_route),
      .fallback = "false",
      .help = "lead this machine's traffic into the device, and put everything back at the end" },
    { .name = "strict-route",
      .type = &cfg_bool,
      AT(route.strict),
      .fallback = "false",
      .help =
          "refuse families that are not carried, and follow no route but the device's and those of connected "
          "private networks" },
    { .name = "routing-mark",
      .type = &cfg_auto_mark,
      AT(route.mark),
      .fallback = "auto",
      .help = "on every socket of ours, so that our traffic never loops; `auto`: 0x1b6 with "
              "auto-route, else none" },
    { .name = "interface-name",
      .type = &cfg_auto_interface,
      .shown = "`auto` with auto-route, else `none`",
      .help = "bind our sockets to this interface; `auto` follows the default route" },
    { .name = "route-exclude-address",
      .type = &cfg_excludes,
      .shown = "none",
      .help = "destinations that never enter the device" },
    { .name = "include-interface",
      .type = &cfg_route_interfaces,
      AT(route.include),
      .shown = "none",
      .help = "only what comes in by these interfaces; `lo` is the machine itself" },
    { .name = "exclude-interface",
      .type = &cfg_route_interfaces,
      AT(route.leave_out),
      .shown = "none",
      .help = "not what comes in by these interfaces; `lo` is the machine itself" },
    { .name = "include-uid",
      .type = &cfg_route_uids,
      AT(route.include),
      .shown = "none",
      .help = "of the machine itself only programs of these users" },
    { .name = "exclude-uid",
      .type = &cfg_route_uids,
      AT(route.leave_out),
      .shown = "none",
      .help = "not programs of these users" },
    { .name = "include-gid",
      NEEDS_NFT.type = &cfg_route_gids,
      AT(route.include),
      .shown = "none",
      .help = "of the machine itself only programs of these groups; needs nftables" },
    { .name = "exclude-gid",
      NEEDS_NFT.type = &cfg_route_gids,
      AT(route.leave_out),
      .shown = "none",
      .help = "not programs of these groups; needs nftables" },
    { .name = "include-cgroup",
      NEEDS_NFT.type = &cfg_route_cgroups,
      AT(route.include),
      .shown = "none",
      .help = "of the machine itself only programs of these cgroups (v2, by path; they must exist at start); "
              "needs nftables" },
    { .name = "exclude-cgroup",
      NEEDS_NFT.type = &cfg_route_cgroups,
      AT(route.leave_out),
      .shown = "none",
      .help = "not programs of these cgroups; needs nftables" },
    { .name = "on-exit",
      .type = &cfg_choice,
      AT(route.on_exit),
      .fallback = "restore",
      .choices = on_exits,
      .help = "what becomes of the routes: put back; kept as they are; or `block`: what was led finds no way "
              "(kill "
              "switch) until the next start or `culvert cleanup`" },
    { .name = "system-dns",
      .type = &cfg_bool,
      AT(route.system_dns),
      .fallback = "false",
      .help = "with auto-route: /etc/resolv.conf names us while we run; needed only for programs that ask by "
              "other "
              "ways than port 53" },
    ALIAS("device", "name"),
    { .name = "auto-detect-interface",
      .type = &cfg_detect_interface,
      .help = "mihomo: `true` is `interface-name: auto`" },
    { .name = "dns-hijack", .type = &cfg_tun_hijack, .help = "mihomo: `dns.hijack`" },
    { .name = "enable", .type = &cfg_true_only, .state = CFG_NO_EFFECT, .help = "mihomo: no effect" },
    { .name = "stack", .type = &cfg_ignored, .state = CFG_NO_EFFECT, .help = "mihomo: no effect" },
    END,
};

#undef NEEDS_NFT

static const struct cfg_section tun = {
    .where = "tun",
    .help = "The device that packets come from, and what is led into it.",
    .keys = tun_keys,
};

/* ---- stack ----------------------------------------------------------------------------------------------------------- */

static const struct cfg_choice accepts[] = {
    { "late", TCP_ACCEPT_LATE, CFG_HERE },
    { "early", TCP_ACCEPT_EARLY, CFG_HERE },
    { "auto", TCP_ACCEPT_AUTO, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice congestions[] = {
    { "cubic", TCP_CC_CUBIC, CFG_HERE },
    { "newreno", TCP_CC_NEWRENO, CFG_HERE },
    { .text = NULL },
};

static const struct cfg_key stack_tcp_keys[] = {
    { .name = "accept",
      .type = &cfg_choice,
      AT(forward.accept),
      .fallback = "late",
      .choices = accepts,
      .help =
          "`late`: a client's SYN is answered when the upstream answered, and a refusal reaches "
          "it as one; `early`: at once, and a failure is a reset; `auto`: early only where a rule needs to "
          "see what the client says" },
    { .name = "congestion",
      .fixed = true,
      .type = &cfg_choice,
      AT(stack.congestion),
      .fallback = "cubic",
      .choices = congestions,
      .help = "congestion control towards the clients" },
    { .name = "connect-timeout",
      .type = &cfg_duration,
      AT(forward.connect_timeout_ms),
      .fallback = "10s",
      .min = 100,
      .max = 600 * SECONDS,
      .help = "bounds the whole opening, from the name to the last byte of the proxy's handshake" },
    { .name = "keepalive",
      .fixed = true,
      .type = &cfg_duration_or_off,
      AT(stack.keepalive_idle_ms),
      .fallback = "300s",
      .min = SECONDS,
      .max = 24 * HOURS,
      .help = "ask a silent client after this time whether it is still there" },
    { .name = "idle-timeout",
      .type = &cfg_duration,
      AT(forward.tcp_idle_timeout_ms),
      .fallback = "2h",
      .min = SECONDS,
      .max = MILLIS_MAX,
      .help = "end a connection after this time without a byte" },
    { .name = "half-close-timeout",
      .type = &cfg_duration,
      AT(forward.half_close_timeout_ms),
      .fallback = "60s",
      .min = SECONDS,
      .max = MILLIS_MAX,
      .help = "the same, while one direction has ended already" },
    END,
};

static const struct cfg_section stack_tcp = {
    .where = "stack.tcp",
    .help = "TCP of the clients, which ends here.",
    .keys = stack_tcp_keys,
};

static const struct cfg_choice nats[] = {
    { "endpoint-independent", UDP_NAT_ENDPOINT_INDEPENDENT, CFG_HERE },
    { "symmetric", UDP_NAT_SYMMETRIC, CFG_HERE },
    { .text = NULL },
};

static const struct cfg_key stack_udp_keys[] = {
    { .name = "nat",
      .type = &cfg_choice,
      AT(forward.nat),
      .fallback = "endpoint-independent",
      .choices = nats,
      .help = "mapping and filtering (RFC 4787): one association for each "
              "client port, or for each target, too" },
    { .name = "idle-timeout",
      .type = &cfg_duration,
      AT(forward.udp_idle_timeout_ms),
      .fallback = "300s",
      .min = SECONDS,
      .max = MILLIS_MAX,
      .help = "end a mapping after this time without a datagram" },
    { .name = "dns-idle-timeout",
      .type = &cfg_duration,
      AT(forward.dns_idle_timeout_ms),
      .fallback = "10s",
      .min = SECONDS,
      .max = MILLIS_MAX,
      .help = "the same, for a mapping that only asked port 53, or that was refused by a sniffed name" },
    END,
};

static const struct cfg_section stack_udp = {
    .where = "stack.udp",
    .help = "UDP of the clients.",
    .keys = stack_udp_keys,
};

static const struct cfg_choice echoes[] = {
    { "auto", ECHO_MODE_AUTO, CFG_HERE },
    { "reply", ECHO_MODE_REPLY, CFG_HERE },
    { "reply-if-healthy", ECHO_MODE_REPLY_IF_HEALTHY, CFG_HERE },
    { "proxy", ECHO_MODE_PROXY, CFG_HERE },
    { "tunnel", ECHO_MODE_TUNNEL, CFG_HERE },
    { "drop", ECHO_MODE_DROP, CFG_HERE },
    { "reject", ECHO_MODE_REJECT, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice echoes_unsupported[] = {
    { "reply-if-healthy", ECHO_MODE_REPLY_IF_HEALTHY, CFG_HERE },
    { "reply", ECHO_MODE_REPLY, CFG_HERE },
    { "drop", ECHO_MODE_DROP, CFG_HERE },
    { "reject", ECHO_MODE_REJECT, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice downs[] = {
    { "drop", ECHO_DOWN_DROP, CFG_HERE },
    { "reject", ECHO_DOWN_REJECT, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice rejects[] = {
    { "admin-prohibited", REJECT_ADMIN_PROHIBITED, CFG_HERE },
    { "net-unreachable", REJECT_NET_UNREACH, CFG_HERE },
    { "host-unreachable", REJECT_HOST_UNREACH, CFG_HERE },
    { "port-unreachable", REJECT_PORT_UNREACH, CFG_HERE },
    { "net-prohibited", REJECT_NET_PROHIBITED, CFG_HERE },
    { "host-prohibited", REJECT_HOST_PROHIBITED, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice ttls[] = {
    { "hop", ECHO_TTL_HOP, CFG_HERE },
    { "transparent", ECHO_TTL_TRANSPARENT, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice delays[] = {
    { "upstream-rtt", ECHO_DELAY_UPSTREAM_RTT, CFG_HERE },
    { "none", ECHO_DELAY_NONE, CFG_HERE },
    { .text = NULL },
};

static const struct cfg_key stack_icmp_keys[] = {
    { .name = "echo",
      .type = &cfg_choice,
      AT(forward.echo),
      .fallback = "auto",
      .choices = echoes,
      .help =
          "what a ping gets; a rule's `echo` overrides it. `auto`: `proxy` where TCP would go direct, what "
          "`on-unsupported` says elsewhere. `proxy`: this host pings the target, `DIRECT` only. `reply`: we "
          "answer, "
          "which says only that we are alive; `reply-if-healthy`: the same, while TCP to the target could "
          "leave. "
          "`reject`: prohibited" },
    { .name = "on-down",
      .type = &cfg_choice,
      AT(forward.echo_down),
      .fallback = "drop",
      .choices = downs,
      .help = "what a ping gets while its way out is down, or this host may not ping; `reject`: host "
              "unreachable" },
    { .name = "reject-with",
      .type = &cfg_choice,
      AT(forward.echo_reject_with),
      .fallback = "admin-prohibited",
      .choices = rejects,
      .help = "what `echo: reject`, and `REJECT`, answer a ping with" },
    { .name = "on-unsupported",
      .type = &cfg_choice,
      AT(forward.echo_unsupported),
      .fallback = "reply-if-healthy",
      .choices = echoes_unsupported,
      .help = "what a ping gets where its way out cannot carry it" },
    { .name = "delay",
      .type = &cfg_choice,
      AT(forward.echo_delay),
      .fallback = "upstream-rtt",
      .choices = delays,
      .help = "hold an answer of ours for the time that the upstream takes, or not" },
    { .name = "errors-per-second",
      .fixed = true,
      .type = &cfg_uint,
      AT(stack.icmp_errors_per_second),
      .fallback = "1000",
      .min = 1,
      .max = 1000000,
      .help = "ICMP errors that one worker sends" },
    { .name = "ttl",
      .fixed = true,
      .type = &cfg_choice,
      AT(forward.echo_ttl),
      .fallback = "hop",
      .choices = ttls,
      .help = "of proxied pings. `hop`: we are a hop of traceroute; `transparent`: we are not" },
    { .name = "relay-errors",
      .fixed = true,
      .type = &cfg_bool,
      AT(forward.echo_relay_errors),
      .fallback = "true",
      .help = "hand on the ICMP errors that proxied pings meet; traceroute needs them" },
    { .name = "max-flows",
      .fixed = true,
      .type = &cfg_uint,
      AT(forward.echo_max_flows),
      .fallback = "1024",
      .min = 1,
      .max = 16384,
      .help = "proxied pings under way at a time: one is a client, a target and an id" },
    END,
};

static const struct cfg_section stack_icmp = {
    .where = "stack.icmp",
    .help = "Ping and the errors that we send.",
    .keys = stack_icmp_keys,
};

static const struct cfg_key stack_keys[] = {
    SECTION("tcp", stack_tcp),
    SECTION("udp", stack_udp),
    SECTION("icmp", stack_icmp),
    END,
};

static const struct cfg_section stack_section = {
    .where = "stack",
    .help = "The userspace network stack.",
    .keys = stack_keys,
};

/* ---- api, and what is wholly to come ----------------------------------------------------------------------------------- */

#ifdef WITH_API
#define API_STATE CFG_HERE
#else
#define API_STATE CFG_LEFT_OUT
#endif

#define API_LEFT_OUT "this program was built without the control socket (WITH_API=OFF)"

static const struct cfg_key api_keys[] = {
    { .name = "unix",
      .type = &cfg_socket_path,
      AT(api_unix),
      .fallback = "/run/culvert/api.sock",
      .max = 107,
      .state = API_STATE,
      .instead = API_LEFT_OUT,
      .help = "where `culvert status` asks" },
    { .name = "listen",
      .type = &cfg_api_listen,
      AT(api.listen),
      .shown = "none",
      .state = API_STATE,
      .instead = API_LEFT_OUT,
      .help = "the same over TCP, for callers that know `secret`; other addresses than 127.0.0.1 and ::1 "
              "need one" },
    { .name = "secret",
      .type = &cfg_token,
      AT(api.secret),
      .shown = "none",
      .state = API_STATE,
      .instead = API_LEFT_OUT,
      .help = "what a caller over TCP must send as a bearer token" },
    { .name = "metrics",
      .type = &cfg_metrics_path,
      AT(api.metrics),
      .shown = "none",
      .state = API_STATE,
      .instead = API_LEFT_OUT,
      .help = "path of the metrics for Prometheus: `/metrics`" },
    END,
};

static const struct cfg_section api = {
    .where = "api",
    .help = "The control socket.",
    .keys = api_keys,
};

/* ---- the file ----------------------------------------------------------------------------------------------------------- */

static const struct cfg_key top_keys[] = {
    { .name = "version",
      .type = &cfg_version,
      .shown = "1",
      .min = 1,
      .max = 1,
      .help = "of this format; there is one" },
    FIXED_SECTION("runtime", runtime),
    SECTION("limits", limits),
    SECTION("log", log_section),
    FIXED_SECTION("tun", tun),
    SECTION("stack", stack_section),
    SECTION("dns", cfg_dns_section),
    { .name = "hosts",
      .type = &cfg_dns_hosts,
      .shown = "none",
      .help = "addresses of names, by name or pattern; they go before all name servers" },
    SECTION("sniffer", cfg_sniffer_section),
    { .name = "proxies",
      .type = &cfg_proxy_list,
      .shown = "none",
      .section = &cfg_proxy_section,
      .help = "ways out: maps as below, or URLs such as `socks5://user:password@192.0.2.10:1080#name`" },
    { .name = "proxy-groups",
      .type = &cfg_group_list,
      .shown = "none",
      .section = &cfg_group_section,
      .help = "several ways out under one name" },
    { .name = "rule-providers",
      .type = &cfg_provider_map,
      .shown = "none",
      .section = &cfg_provider_section,
      .help = "lists for rules, by name" },
    { .name = "rules",
      .type = &cfg_rule_list,
      .shown = "`MATCH,REJECT`, with a warning",
      .section = &cfg_rule_section,
      .help = "which flow takes which way: the first rule that fits" },
    FIXED_SECTION("api", api),
    SECTION("serve", cfg_serve_section),
    SECTION("geodata", cfg_geodata_section),
    { .name = "rate-limits",
      .type = &cfg_rate_list,
      .shown = "none",
      .section = &cfg_rate_section,
      .help = "how fast clients and ways out may be" },
    END,
};

const struct cfg_section cfg_schema = {
    .where = "",
    .help = "The top level of the file.",
    .keys = top_keys,
};
