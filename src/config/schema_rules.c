/* schema_rules.c - the schema: entries of `rules` and `rule-providers`, and the databases that rules ask. See schema.c. */
#include "schema.h"

/* ---- rules ------------------------------------------------------------------------------------------------------------- */

static const struct cfg_choice rule_echoes[] = {
    { "auto", RULE_ECHO_AUTO, CFG_HERE },
    { "reply", RULE_ECHO_REPLY, CFG_HERE },
    { "reply-if-healthy", RULE_ECHO_REPLY_IF_HEALTHY, CFG_HERE },
    { "proxy", RULE_ECHO_PROXY, CFG_HERE },
    { "tunnel", RULE_ECHO_TUNNEL, CFG_HERE },
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
    { .name = "domain", .type = &cfg_rule_values, .shown = "any", .help = "names" },
    { .name = "domain-suffix",
      .type = &cfg_rule_values,
      .shown = "any",
      .help = "names, and all below them" },
    { .name = "domain-keyword", .type = &cfg_rule_values, .shown = "any", .help = "names that contain this" },
    { .name = "domain-wildcard",
      .type = &cfg_rule_values,
      .shown = "any",
      .help = "names, with `*` for any text and `?` for one character" },
    { .name = "domain-regex",
      .type = &cfg_rule_values,
      .shown = "any",
      .help = "names that fit a regular expression (pcre2)" },
    { .name = "geoip",
      .type = &cfg_rule_values,
      .shown = "any",
      .help = "countries of the target, as `DE`; `LAN`: addresses that are not of the internet" },
    { .name = "ip-asn",
      .type = &cfg_rule_values,
      .shown = "any",
      .help = "networks that announce the target, as 64500" },
    { .name = "process-name",
      .type = &cfg_rule_values,
      .shown = "any",
      .help = "programs, by the last part of their path" },
    { .name = "process-path", .type = &cfg_rule_values, .shown = "any", .help = "programs, by their path" },
    { .name = "uid", .type = &cfg_rule_values, .shown = "any", .help = "users, as 1000 or 1000-1999" },
    { .name = "in", .type = &cfg_rule_values, .shown = "any", .help = "interfaces that the flow came by" },
    { .name = "rule-set", .type = &cfg_rule_values, .shown = "any", .help = "lists of `rule-providers`" },
    { .name = "no-resolve",
      .type = &cfg_rule_no_resolve,
      .fallback = "false",
      .help = "do not look up a name for this rule: without an address it does not fit" },
    END,
};

const struct cfg_section cfg_rule_section = {
    .where = "rules[]",
    .help =
        "One rule as a map: all keys must fit, and of a key's values one. Without such keys it takes "
        "everything. "
        "The classic string is `TYPE,VALUE,TARGET[,no-resolve]`: MATCH, DOMAIN, DOMAIN-SUFFIX, "
        "DOMAIN-KEYWORD, "
        "DOMAIN-WILDCARD, DOMAIN-REGEX, IP-CIDR, IP-CIDR6, SRC-IP-CIDR, GEOIP, IP-ASN, DST-PORT, "
        "SRC-PORT, NETWORK, "
        "PROCESS-NAME, PROCESS-PATH, UID, IN-NAME, RULE-SET, and AND, OR and NOT as in "
        "`AND,((NETWORK,udp),(DST-PORT,443)),REJECT`. A rule about addresses looks up the address of a "
        "target that is "
        "known by name, unless it says `no-resolve`; DIRECT then dials only those of its addresses that go "
        "to the same target.",
    .keys = rule_keys,
};

/* ---- rule-providers ---------------------------------------------------------------------------------------------------- */

static const struct cfg_choice provider_types[] = {
    { "file", CONFIG_PROVIDER_FILE, CFG_HERE },
    { "http", CONFIG_PROVIDER_HTTP, CFG_HERE },
    { "inline", CONFIG_PROVIDER_INLINE, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice behaviors[] = {
    { "domain", RULE_SET_DOMAIN, CFG_HERE },
    { "ipcidr", RULE_SET_IPCIDR, CFG_HERE },
    { "classical", RULE_SET_CLASSICAL, CFG_HERE },
    { .text = NULL },
};
static const struct cfg_choice formats[] = {
    { "auto", CFG_FORMAT_AUTO, CFG_HERE },
    { "text", RULE_LIST_TEXT, CFG_HERE },
    { "yaml", RULE_LIST_YAML, CFG_HERE },
    { "mrs", 0, CFG_FOREIGN },
    { .text = NULL },
};

static const struct cfg_key provider_keys[] = {
    { .name = "type",
      .type = &cfg_choice,
      PROVIDER_AT(type),
      .required = true,
      .choices = provider_types,
      .help = "where the list comes from" },
    { .name = "behavior",
      .type = &cfg_choice,
      PROVIDER_AT(behavior),
      .required = true,
      .choices = behaviors,
      .help = "what an entry is: a name, a range, or a rule without its target" },
    { .name = "format",
      .type = &cfg_choice,
      PROVIDER_AT(format),
      .fallback = "auto",
      .choices = formats,
      .help = "one entry a line, bare or as a YAML list under `payload:`; `auto` looks at the first line" },
    { .name = "path",
      .type = &cfg_text_node,
      PROVIDER_AT(path),
      .shown = "with http: `providers/NAME` in `runtime.state-dir`",
      .help = "the file; with type http, the copy of what was fetched" },
    { .name = "url",
      .type = &cfg_text_node,
      PROVIDER_AT(url),
      .shown = "none",
      .help = "with type http: where the list is. It is fetched at start, unless the copy at `path` is "
              "young, and every "
              "`interval`; while that fails, the list stays as it was" },
    { .name = "interval",
      .type = &cfg_duration,
      PROVIDER_AT(interval_ms),
      .fallback = "24h",
      .min = 1000,
      .max = 1176ull * 3600 * 1000,
      .help = "between two fetches" },
    { .name = "proxy",
      .type = &cfg_text_node,
      PROVIDER_AT(proxy),
      .shown = "`DIRECT`",
      .help = "the way out for fetching" },
    { .name = "size-limit",
      .type = &cfg_auto_size,
      PROVIDER_AT(max_bytes),
      .fallback = "auto",
      .min = 1024,
      .max = (uint64_t)256 << 20,
      .help = "a longer list is not taken; `auto`: 32MiB" },
    { .name = "ca",
      .type = &cfg_tls_ca,
      PROVIDER_AT(tls),
      .shown = "the system's",
      .help = "authorities of an https address" },
    { .name = "payload",
      .type = &cfg_provider_payload,
      .shown = "none",
      .help = "with type inline: the entries" },
    END,
};

const struct cfg_section cfg_provider_section = {
    .where = "rule-providers.*",
    .help = "A list for `RULE-SET` and `rule-set`, by its name. A bad line of a file is skipped and named in "
            "a warning.",
    .keys = provider_keys,
};

/* ---- geodata ------------------------------------------------------------------------------------------------------------ */

static const struct cfg_key geodata_keys[] = {
    { .name = "country",
      .type = &cfg_geo_path,
      .shown = "none",
      .help = "database of countries, for `GEOIP`; it is mapped, so replace the file by renaming" },
    { .name = "asn", .type = &cfg_geo_path, .shown = "none", .help = "database of networks, for `IP-ASN`" },
    END,
};

const struct cfg_section cfg_geodata_section = {
    .where = "geodata",
    .help = "Databases in MaxMind's format (.mmdb). None comes with the program.",
    .keys = geodata_keys,
};
