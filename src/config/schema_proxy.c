/* schema_proxy.c - the schema: entries of `proxies`. See schema.c. */
#include "schema.h"

/* ---- proxies ------------------------------------------------------------------------------------------------------- */

#ifdef WITH_MASQUE
#define MASQUE_STATE CFG_HERE
#else
#define MASQUE_STATE CFG_LEFT_OUT
#endif

static const struct cfg_choice types[] = {
    { "socks5", UPSTREAM_SOCKS5, CFG_HERE },
    { "socks4", UPSTREAM_SOCKS4, CFG_HERE },
    { "socks4a", UPSTREAM_SOCKS4A, CFG_HERE },
    { "http", UPSTREAM_HTTP, CFG_HERE },
    { "masque", UPSTREAM_MASQUE, MASQUE_STATE },
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
    { "over-tcp", UPSTREAM_UDP_OVER_TCP, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice pipelinings[] = {
    { "auto", UPSTREAM_PIPELINING_AUTO, CFG_HERE },
    { "true", UPSTREAM_PIPELINING_ON, CFG_HERE },
    { "false", UPSTREAM_PIPELINING_OFF, CFG_HERE },
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
              "same proxy, other UDP is refused at once. `over-tcp`: SOCKS5 only, datagrams "
              "in the TCP connection, for servers that speak hev's command 5" },
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
      .help = "TLS around the connection; then there is no UDP. `masque` is always inside TLS, and has UDP" },
    { .name = "dialer-proxy",
      .type = &cfg_dialer,
      .shown = "none",
      .help = "the proxy or group that leads to this one; then there is no UDP but `over-tcp` and `masque`'s "
              "own" },
    { .name = "pool",
      .type = &cfg_uint,
      PROXY_AT(options.pool),
      .fallback = "0",
      .max = 64,
      .help = "connections that each worker keeps dialled ahead, logged in, for the next flows; socks5, "
              "socks4, socks4a and "
              "http. Each is renewed after 15 s, and without flows for a minute there is none" },
    { .name = "tcp-fast-open",
      .type = &cfg_bool,
      PROXY_AT(options.fast_open),
      .fallback = "false",
      .help = "what is said first leaves with the first packet, once the server has given a cookie (RFC "
              "7413); a packet that "
              "the network doubles may then open a second connection" },
    { .name = "pipelining",
      .type = &cfg_choice,
      PROXY_AT(options.pipelining),
      .fallback = "auto",
      .choices = pipelinings,
      .help = "socks5: greeting, login and request in one message. `auto`: tried with a server that has "
              "answered once, and a "
              "server that does not take it is remembered; `true`: from the first connection on" },
    { .name = "token",
      .type = &cfg_token,
      PROXY_AT(options.token),
      .shown = "none",
      .help = "`masque`: a bearer token (RFC 6750) instead of username and password, 1 to 4096 bytes" },
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
