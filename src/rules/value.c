/* value.c - what stands behind a kind: ranges, ports, networks, names, numbers. A mistake earns one sentence and its place. */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "rules_impl.h"

#define WORD_MAX 32 /* bytes of a wrong value that are shown */

static int shown(struct piece p)
{
    return p.len < WORD_MAX ? (int)p.len : WORD_MAX;
}

/* ---- addresses, ports, networks ---- */

static int parse_cidr(struct piece p, struct ip_prefix *out, struct err *err)
{
    char copy[64];

    if (p.len > 0 && p.len < sizeof(copy)) {
        memcpy(copy, p.text, p.len);
        copy[p.len] = '\0';
        if (memchr(copy, '\0', p.len) == NULL && ip_prefix_parse(copy, out) == 0)
            return 0;
    }
    return err_set(err, -EINVAL, "\"%.*s\" is no address range; write one as in 10.0.0.0/8 or fd00::/8",
                   p.len < sizeof(copy) ? (int)p.len : (int)sizeof(copy), p.text);
}

/* 1 to 5 digits, up to 65535. */
static bool parse_port(struct piece p, uint16_t *out)
{
    unsigned n = 0;

    if (p.len == 0 || p.len > 5)
        return false;
    for (size_t i = 0; i < p.len; i++) {
        if (p.text[i] < '0' || p.text[i] > '9')
            return false;
        n = n * 10 + (unsigned)(p.text[i] - '0');
    }
    *out = (uint16_t)n;
    return n <= UINT16_MAX;
}

static int parse_port_range(struct piece p, struct rule_cond *out, struct err *err)
{
    const char *dash = memchr(p.text, '-', p.len);
    size_t first_len = dash != NULL ? (size_t)(dash - p.text) : p.len;
    int shown = p.len < WORD_MAX ? (int)p.len : WORD_MAX;
    uint16_t first, last;
    bool good = parse_port(piece_trim(p.text, first_len), &first);

    last = first;
    if (good && dash != NULL)
        good = parse_port(piece_trim(dash + 1, p.len - first_len - 1), &last);
    if (!good)
        return err_set(err, -EINVAL,
                       "\"%.*s\" is no port; write 0 to 65535, a range 8000-8999, or a list 80/443", shown,
                       p.text);
    if (first > last)
        return err_set(err, -EINVAL, "\"%.*s\" runs backwards; write %u-%u", shown, p.text, last, first);
    out->ports.first = first;
    out->ports.last = last;
    return 0;
}

static int parse_network(struct piece p, uint8_t *out, struct err *err)
{
    static const struct {
        const char *name;
        uint8_t bit;
    } networks[] = { { "tcp", RULE_TCP }, { "udp", RULE_UDP }, { "icmp", RULE_ICMP } };

    for (size_t i = 0; i < ARRAY_LEN(networks); i++) {
        if (p.len == strlen(networks[i].name) && strncasecmp(p.text, networks[i].name, p.len) == 0) {
            *out = networks[i].bit;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "\"%.*s\" is no network; write tcp, udp or icmp",
                   p.len < WORD_MAX ? (int)p.len : WORD_MAX, p.text);
}

/* ---- names ---- */

static int set_text(struct piece p, struct rule_cond *out, struct err *err)
{
    if (p.len == 0)
        return err_set(err, -EINVAL, "the value is empty");
    out->value.text = p.text;
    out->value.len = (uint32_t)p.len;
    return 0;
}

/* DOMAIN-SUFFIX may be written with the dot that it begins at. */
static int parse_name(enum rule_kind kind, struct piece p, struct rule_cond *out, struct err *err)
{
    char name[256];

    if (kind == RULE_DOMAIN_SUFFIX && p.len > 1 && p.text[0] == '+' && p.text[1] == '.')
        return err_set(err, -EINVAL, "\"%.*s\": leave out the \"+.\", which DOMAIN-SUFFIX means by itself",
                       shown(p), p.text);
    if (kind == RULE_DOMAIN_SUFFIX && p.len > 1 && p.text[0] == '.')
        p = (struct piece){ p.text + 1, p.len - 1 };
    if (host_name_normalise(p.text, p.len, name) != 0)
        return err_set(err, -EINVAL,
                       "\"%.*s\" is no name; write letters, digits, - and _ between dots, as in example.org, "
                       "and other scripts as xn--...",
                       shown(p), p.text);
    p.len = strlen(name); /* without a last dot */
    return set_text(p, out, err);
}

/* Parts of names: what no name holds can never match. */
static int parse_part(struct piece p, const char *more, struct rule_cond *out, struct err *err)
{
    for (size_t i = 0; i < p.len; i++) {
        unsigned char c = (unsigned char)p.text[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

        if (!plain && strchr("-_.", c) == NULL && strchr(more, c) == NULL)
            return err_set(err, -EINVAL,
                           "\"%.*s\" can never be in a name; letters, digits, -, _%s would work", shown(p),
                           p.text, more[0] != '\0' ? ", dots, * and ?" : " and dots");
    }
    return p.len > NAME_BYTES_MAX ? err_set(err, -EINVAL, "%zu bytes are longer than any name", p.len)
                                  : set_text(p, out, err);
}

static int parse_regex(struct piece p, struct rule_cond *out, struct err *err)
{
    struct rule_regex *regex = NULL;
    struct err why = { "" };
    int r = regex_supported(err);

    if (r != 0)
        return r;
    r = regex_new(p.text, p.len, &regex, &why);
    if (r != 0)
        return err_set(err, r, "\"%.*s\" %s", shown(p), p.text, why.text);
    regex_free(regex);
    return set_text(p, out, err);
}

/* ---- countries, networks, users, programs ---- */

static int parse_country(struct piece p, struct rule_cond *out, struct err *err)
{
    if (p.len == 2 || p.len == 3 || (p.len == 7 && strncasecmp(p.text, "private", 7) == 0)) {
        size_t i = 0;

        while (i < p.len && ((p.text[i] | 0x20) >= 'a' && (p.text[i] | 0x20) <= 'z'))
            i++;
        if (i == p.len)
            return p.len == 2 ? (geo_supported(err) != 0 ? -ENOTSUP : set_text(p, out, err))
                   : p.len == 7 || strncasecmp(p.text, "lan", 3) == 0
                       ? set_text(p, out, err)
                       : err_set(err, -EINVAL, "\"%.*s\" is no country; write two letters", shown(p), p.text);
    }
    return err_set(err, -EINVAL, "\"%.*s\" is no country; write two letters as in DE, or LAN", shown(p),
                   p.text);
}

/* 1 to 10 digits, up to 2^32 - 1. */
static bool parse_u32(struct piece p, uint32_t *out)
{
    uint64_t n = 0;

    if (p.len == 0 || p.len > 10)
        return false;
    for (size_t i = 0; i < p.len; i++) {
        if (p.text[i] < '0' || p.text[i] > '9')
            return false;
        n = n * 10 + (unsigned)(p.text[i] - '0');
    }
    *out = (uint32_t)n;
    return n <= UINT32_MAX;
}

static int parse_asn(struct piece p, struct rule_cond *out, struct err *err)
{
    struct piece digits = p;
    int r = geo_supported(err);

    if (r != 0)
        return r;
    if (p.len > 2 && strncasecmp(p.text, "AS", 2) == 0)
        digits = (struct piece){ p.text + 2, p.len - 2 };
    if (!parse_u32(digits, &out->numbers.first))
        return err_set(err, -EINVAL, "\"%.*s\" is no network; write its number as in 64500", shown(p),
                       p.text);
    out->numbers.last = out->numbers.first;
    return 0;
}

static int parse_uid(struct piece p, struct rule_cond *out, struct err *err)
{
    const char *dash = memchr(p.text, '-', p.len);
    size_t first_len = dash != NULL ? (size_t)(dash - p.text) : p.len;
    bool good = parse_u32(piece_trim(p.text, first_len), &out->numbers.first);

    out->numbers.last = out->numbers.first;
    if (good && dash != NULL)
        good = parse_u32(piece_trim(dash + 1, p.len - first_len - 1), &out->numbers.last);
    if (!good || out->numbers.first > out->numbers.last)
        return err_set(err, -EINVAL,
                       "\"%.*s\" is no user; write a number as in 1000, a range 1000-1999, or a list 0/1000",
                       shown(p), p.text);
    return 0;
}

static int parse_program(enum rule_kind kind, struct piece p, struct rule_cond *out, struct err *err)
{
    if (kind == RULE_PROCESS_PATH && p.len > 0 && p.text[0] != '/')
        return err_set(err, -EINVAL, "\"%.*s\" is no absolute path; PROCESS-NAME takes a bare name", shown(p),
                       p.text);
    if (kind == RULE_PROCESS_NAME && memchr(p.text, '/', p.len) != NULL)
        return err_set(err, -EINVAL, "\"%.*s\" is a path; PROCESS-PATH takes it", shown(p), p.text);
    return set_text(p, out, err);
}

/* ---- one value ---- */

/* One that is no list. */
static int parse_one(enum rule_kind kind, struct piece p, struct rule_cond *out, struct err *err)
{
    switch (kind) {
    case RULE_DST_CIDR:
    case RULE_SRC_CIDR:
        return parse_cidr(p, &out->prefix, err);
    case RULE_NETWORK:
        return parse_network(p, &out->networks, err);
    case RULE_DOMAIN:
    case RULE_DOMAIN_SUFFIX:
        return parse_name(kind, p, out, err);
    case RULE_DOMAIN_KEYWORD:
        return parse_part(p, "", out, err);
    case RULE_DOMAIN_WILDCARD:
    case RULE_DOMAIN_LABELS:
        return parse_part(p, "*?", out, err);
    case RULE_DOMAIN_REGEX:
        return parse_regex(p, out, err);
    case RULE_GEOIP:
        return parse_country(p, out, err);
    case RULE_IP_ASN:
        return parse_asn(p, out, err);
    case RULE_UID:
        return parse_uid(p, out, err);
    case RULE_PROCESS_NAME:
    case RULE_PROCESS_PATH:
        return parse_program(kind, p, out, err);
    case RULE_IN_NAME:
    case RULE_SET:
        return set_text(p, out, err);
    case RULE_DST_PORT:
    case RULE_SRC_PORT:
        return parse_port_range(p, out, err);
    case RULE_AND:
    case RULE_OR:
    case RULE_NOT:
        break;
    }
    return err_set(err, -EINVAL, "%s holds other rules, in parentheses", kind_type(kind));
}

static bool is_list(enum rule_kind kind)
{
    return kind == RULE_DST_PORT || kind == RULE_SRC_PORT || kind == RULE_UID || kind == RULE_IN_NAME;
}

int value_parse(enum rule_kind kind, struct piece p, struct rule_cond *out, size_t cap, size_t *n,
                const char **bad, struct err *err)
{
    const char *at = p.text, *end = p.text + p.len;
    size_t made = 0;
    int r;

    while (at != NULL) {
        const char *slash = is_list(kind) ? memchr(at, '/', (size_t)(end - at)) : NULL;
        struct piece one = piece_trim(at, (size_t)((slash != NULL ? slash : end) - at));

        *bad = one.text;
        if (made == cap)
            return err_set(err, -EINVAL, "a list of more than %zu %s; split it over two rules", cap,
                           kind == RULE_DST_PORT || kind == RULE_SRC_PORT ? "ports" : "values");
        out[made] = (struct rule_cond){ .kind = kind };
        if ((r = parse_one(kind, one, &out[made], err)) != 0)
            return r;
        made++;
        at = slash != NULL ? slash + 1 : NULL;
    }
    *n = made;
    return 0;
}

int rules_value_parse(enum rule_kind kind, const char *text, struct rule_cond *out, size_t cap, size_t *n,
                      size_t *at, struct err *err)
{
    const char *bad = text;
    int r = value_parse(kind, piece_trim(text, strlen(text)), out, cap, n, &bad, err);

    if (r != 0)
        *at = (size_t)(bad - text);
    return r;
}
