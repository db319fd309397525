/* schema_proxy.c - the schema, second half: entries of `proxies` and `rules`, and the far end. See schema.c. */
#include "schema.h"

/* ---- proxies ------------------------------------------------------------------------------------------------------- */

static const struct cfg_choice types[] = {
    { "socks5", UPSTREAM_SOCKS5, CFG_HERE },
    { "socks4", UPSTREAM_SOCKS4, CFG_HERE },
    { "socks4a", UPSTREAM_SOCKS4A, CFG_HERE },
    { "http", UPSTREAM_HTTP, CFG_HERE },
    { "masque", 0, CFG_LATER },
    { "ss", 0, CFG_LATER },
    { "trojan", 0, CFG_LATER },
    { "anytls", 0, CFG_FOREIGN },
    { "hysteria", 0, CFG_FOREIGN },
    { "hysteria2", 0, CFG_FOREIGN },
    { "mieru", 0, CFG_FOREIGN },
    { "snell", 0, CFG_FOREIGN },
    { "ssh", 0, CFG_FOREIGN },
    { "ssr", 0, CFG_FOREIGN },
    { "tuic", 0, CFG_FOREIGN },
    { "vless", 0, CFG_FOREIGN },
    { "vmess", 0, CFG_FOREIGN },
    { "wireguard", 0, CFG_FOREIGN },
    { .text = NULL },
};
static const struct cfg_choice udps[] = {
    { "auto", UPSTREAM_UDP_AUTO, CFG_HERE },
    { "true", UPSTREAM_UDP_ON, CFG_HERE },
    { "false", UPSTREAM_UDP_OFF, CFG_HERE },
    { "over-tcp", 0, CFG_LATER },
    { .text = NULL },
};

static const struct cfg_choice tls_versions[] = {
    { "1.2", TLS_1_2, CFG_HERE },
    { "1.3", TLS_1_3, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice resumes[] = {
    { "true", false, CFG_HERE },
    { "false", true, CFG_HERE },
    { .text = NULL },
};

static const struct cfg_key tls_keys[] = {
    { .name = "sni",
      .type = &cfg_tls_sni,
      PROXY_AT(tls),
      .shown = "`server`",
      .help = "the name that is asked for and verified; an address is verified and not sent" },
    { .name = "alpn",
      .type = &cfg_tls_alpn,
      PROXY_AT(tls),
      .shown = "none",
      .help = "protocols that are offered" },
    { .name = "ca",
      .type = &cfg_tls_ca,
      PROXY_AT(tls),
      .shown = "`" TLS_SYSTEM_CA_FILE "`",
      .help = "the authorities that are trusted instead of the system's" },
    { .name = "pin-sha256",
      .type = &cfg_tls_pin,
      PROXY_AT(tls),
      .shown = "none",
      .help = "SHA-256 of public keys (RFC 7469), base64; one of the chain must be among them, besides all "
              "other checks" },
    { .name = "certificate",
      .type = &cfg_tls_certificate,
      PROXY_AT(tls),
      .shown = "none",
      .help = "our own certificate" },
    { .name = "private-key",
      .type = &cfg_tls_key,
      PROXY_AT(tls),
      .shown = "none",
      .help = "and its key, not encrypted" },
    { .name = "min-version",
      .type = &cfg_choice,
      PROXY_AT(tls.options.min_version),
      .choices = tls_versions,
      .fallback = "1.2",
      .help = "the oldest TLS that is spoken; 1.3 needs a build with mbedTLS 3.6" },
    { .name = "resume",
      .type = &cfg_choice,
      PROXY_AT(tls.no_resume_choice),
      .choices = resumes,
      .fallback = "true",
      .help = "resume sessions, for an hour at most" },
    { .name = "skip-cert-verify",
      .type = &cfg_tls_skip,
      PROXY_AT(tls),
      .shown = "`false`",
      .help = "trust whoever answers; warns at every start" },
    { .name = "half-close-delay",
      .type = &cfg_duration,
      PROXY_AT(tls.half_close_delay_ms),
      .fallback = "2s",
      .min = 1,
      .max = 60000,
      .help = "how long an answer is silent before our end is passed on" },
    END,
};

static const struct cfg_section tls = {
    .where = "proxies[].tls",
    .help = "TLS around the connection to a proxy. Certificate and host name are verified.",
    .keys = tls_keys,
};

#define INTO_TLS(name_)                                                                                      \
    {                                                                                                        \
        .name = (name_), .type = &cfg_later_text, .state = CFG_LATER, .help = "mihomo: a key of `tls`"       \
    }

static const struct cfg_key proxy_keys[] = {
    { .name = "name", .type = &cfg_proxy_name, .required = true, .help = "what rules call it; no comma" },
    { .name = "type",
      .type = &cfg_choice,
      PROXY_AT(options.kind),
      .required = true,
      .choices = types,
      .help = "what it speaks" },
    { .name = "server",
      .type = &cfg_host,
      PROXY_AT(options.server),
      .required = true,
      .help = "where it is" },
    { .name = "port",
      .type = &cfg_port,
      PROXY_AT(options.server.port),
      .required = true,
      .min = 1,
      .max = 65535,
      .help = "and its port" },
    { .name = "udp",
      .type = &cfg_choice,
      PROXY_AT(options.udp),
      .fallback = "auto",
      .choices = udps,
      .help = "`auto`: tried, and a refusal remembered for 60 s. `false`, or refused: DNS goes over "
              "TCP through the "
              "same proxy, other UDP is refused at once" },
    { .name = "username",
      .type = &cfg_user,
      PROXY_AT(options.username),
      .shown = "none",
      .help = "login, 1 to 255 bytes" },
    { .name = "password",
      .type = &cfg_password,
      PROXY_AT(options.password),
      .shown = "none",
      .help = "login, 1 to 255 bytes" },
    { .name = "interface-name",
      .type = &cfg_interface,
      PROXY_AT(options.interface_name),
      .shown = "`tun.interface-name`",
      .help = "bind the sockets to this proxy to an interface" },
    { .name = "routing-mark",
      .type = &cfg_auto_mark,
      PROXY_AT(options.routing_mark),
      .fallback = "auto",
      .help = "mark of the sockets to this proxy; `auto`: that of `tun.routing-mark`" },
    { .name = "tls",
      .type = &cfg_tls,
      .section = &tls,
      .shown = "`false`",
      .help = "TLS around the connection; then there is no UDP" },
    LATER("dialer-proxy", cfg_later_text, "the way out that leads to this one"),
    LATER("pool", cfg_later_number, "connections kept open"),
    LATER("tcp-fast-open", cfg_later_bool, "send with the first packet"),
    LATER("pipelining", cfg_later_bool, "send the request before the greeting is answered"),
    LATER("token", cfg_later_secret, "login by bearer token"),
    { .name = "sni", .type = &cfg_tls_sni, PROXY_AT(tls), .help = "mihomo: `tls.sni`, beside `tls: true`" },
    ALIAS("servername", "sni"),
    { .name = "alpn", .type = &cfg_tls_alpn, PROXY_AT(tls), .help = "mihomo: `tls.alpn`" },
    { .name = "skip-cert-verify",
      .type = &cfg_tls_skip,
      PROXY_AT(tls),
      .shown = "`false`",
      .help = "mihomo: `tls.skip-cert-verify`" },
    INTO_TLS("fingerprint"),
    { .name = "client-fingerprint",
      .type = &cfg_ignored,
      .state = CFG_NO_EFFECT,
      .help = "mihomo: no effect" },
    END,
};

const struct cfg_section cfg_proxy_section = {
    .where = "proxies[]",
    .help = "One way out.",
    .keys = proxy_keys,
};

/* ---- rules ------------------------------------------------------------------------------------------------------------- */

static const struct cfg_choice rule_echoes[] = {
    { "auto", RULE_ECHO_AUTO, CFG_HERE },
    { "reply", RULE_ECHO_REPLY, CFG_HERE },
    { "reply-if-healthy", RULE_ECHO_REPLY_IF_HEALTHY, CFG_HERE },
    { "proxy", RULE_ECHO_PROXY, CFG_HERE },
    { "tunnel", 0, CFG_LATER },
    { "drop", RULE_ECHO_DROP, CFG_HERE },
    { "reject", RULE_ECHO_REJECT, CFG_HERE },
    { .text = NULL },
};

static const struct cfg_key rule_keys[] = {
    { .name = "via",
      .type = &cfg_rule_text,
      RULE_AT(via),
      .required = true,
      .help = "a proxy, `DIRECT`, `REJECT` (RST or unreachable) or `REJECT-DROP` (silence)" },
    { .name = "name",
      .type = &cfg_rule_text,
      RULE_AT(name),
      .shown = "its place, as in `rules[0]`",
      .help = "what logs call it" },
    { .name = "echo",
      .type = &cfg_choice,
      RULE_AT(echo),
      .shown = "`stack.icmp.echo`",
      .choices = rule_echoes,
      .help = "what a ping that this rule takes gets; `proxy` only with `via: DIRECT`" },
    { .name = "dst-cidr", .type = &cfg_rule_values, .shown = "any", .help = "ranges of the target" },
    { .name = "src-cidr", .type = &cfg_rule_values, .shown = "any", .help = "ranges of the client" },
    { .name = "dst-port",
      .type = &cfg_rule_values,
      .shown = "any",
      .help = "ports of the target, as 80 or 8000-8999" },
    { .name = "src-port", .type = &cfg_rule_values, .shown = "any", .help = "ports of the client" },
    { .name = "network", .type = &cfg_rule_values, .shown = "any", .help = "`tcp`, `udp` or `icmp`" },
    LATER("domain", cfg_later_texts, "names"),
    LATER("domain-suffix", cfg_later_texts, "names and all below them"),
    LATER("domain-keyword", cfg_later_texts, "names that hold this"),
    LATER("domain-wildcard", cfg_later_texts, "names with `*` and `?`"),
    LATER("domain-regex", cfg_later_texts, "names that fit an expression"),
    LATER("geoip", cfg_later_texts, "countries of the target"),
    LATER("ip-asn", cfg_later_texts, "networks of the target"),
    LATER("process-name", cfg_later_texts, "programs"),
    LATER("process-path", cfg_later_texts, "programs, by path"),
    LATER("uid", cfg_later_texts, "users"),
    LATER("in", cfg_later_texts, "where it came in"),
    LATER("rule-set", cfg_later_texts, "lists of `rule-providers`"),
    END,
};

const struct cfg_section cfg_rule_section = {
    .where = "rules[]",
    .help = "One rule as a map: all keys must fit, and of a key's values one. Without such keys it takes "
            "everything. "
            "The classic string is `TYPE,VALUE,TARGET[,no-resolve]`, with the types MATCH, IP-CIDR, "
            "IP-CIDR6, SRC-IP-CIDR, "
            "DST-PORT, SRC-PORT and NETWORK.",
    .keys = rule_keys,
};

/* ---- the far end ---------------------------------------------------------------------------------------------------------- */

static const struct cfg_key per_user_keys[] = {
    LATER("flows", cfg_later_number, "at a time"),
    LATER("rate", cfg_later_rate, "each way"),
    END,
};

static const struct cfg_section per_user = {
    .where = "serve.*.per-user",
    .help = "What one user may take.",
    .keys = per_user_keys,
};

static const struct cfg_key socks5_keys[] = {
    { .name = "listen",
      .type = &cfg_listen,
      AT(serve.listen),
      .fallback = "127.0.0.1:1080",
      .help = "where it listens" },
    { .name = "udp", .type = &cfg_bool, AT(serve.udp), .fallback = "true", .help = "UDP ASSOCIATE" },
    { .name = "users",
      .type = &cfg_users,
      AT(serve),
      .shown = "none: no login",
      .help = "who may use it, and their passwords" },
    { .name = "allow",
      .type = &cfg_allow,
      AT(serve),
      .shown = "all",
      .help = "destinations that it may dial" },
    LATER_SECTION("per-user", cfg_later_section, per_user, "what one user may take"),
    END,
};

static const struct cfg_section socks5 = {
    .where = "serve.socks5",
    .help = "A SOCKS5 server (RFC 1928).",
    .keys = socks5_keys,
};

static const struct cfg_key masque_keys[] = {
    LATER("listen", cfg_later_text, "where it listens"),
    LATER("certificate", cfg_later_text, "its certificate"),
    LATER("private-key", cfg_later_secret, "and its key"),
    LATER("users", cfg_later_map, "who may use it"),
    LATER("echo", cfg_later_bool, "carry pings"),
    LATER("allow", cfg_later_texts, "destinations that it may dial"),
    LATER_SECTION("per-user", cfg_later_section, per_user, "what one user may take"),
    END,
};

static const struct cfg_section masque = {
    .where = "serve.masque",
    .help = "A MASQUE server (RFC 9298, RFC 9484 for echo).",
    .keys = masque_keys,
};

static const struct cfg_key serve_keys[] = {
    LATER_SECTION("masque", cfg_later_section, masque, "a MASQUE server"),
    SECTION("socks5", socks5),
    END,
};

const struct cfg_section cfg_serve_section = {
    .where = "serve",
    .help = "The far end, used by `culvert serve` only.",
    .keys = serve_keys,
};
