/* text.c - rules as people write them: the classic string of the Clash family, and the values of the map form.
 *
 * A mistake earns one sentence and the place it is about. A rule that other programs know and we lack is named, with the
 * nearest thing that we have (config.md sections 4 and 6); a misspelt one gets a suggestion. */
#include "culvert/rules.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SUGGEST_DISTANCE 2  /* edits that still look like a slip */
#define WORD_MAX         32 /* longest word that is compared for a suggestion */

/* A piece of the text that is being parsed, without the white space around it. */
struct piece {
    const char *text;
    size_t len;
};

static const struct {
    const char *type, *key; /* in a classic string; in the map form */
    enum rule_kind kind;
} kinds[] = {
    { "IP-CIDR", "dst-cidr", RULE_DST_CIDR },     { "IP-CIDR6", "dst-cidr", RULE_DST_CIDR },
    { "SRC-IP-CIDR", "src-cidr", RULE_SRC_CIDR }, { "DST-PORT", "dst-port", RULE_DST_PORT },
    { "SRC-PORT", "src-port", RULE_SRC_PORT },    { "NETWORK", "network", RULE_NETWORK },
};

/* What config.md promises and a later part builds. The map form spells them in lower case. */
static const char *const later[] = {
    "DOMAIN",
    "DOMAIN-SUFFIX",
    "DOMAIN-KEYWORD",
    "DOMAIN-WILDCARD",
    "DOMAIN-REGEX",
    "GEOIP",
    "IP-ASN",
    "PROCESS-NAME",
    "PROCESS-PATH",
    "UID",
    "IN-NAME",
    "RULE-SET",
    "AND",
    "OR",
    "NOT",
};
static const char *const later_keys[] = {
    "domain", "domain-suffix", "domain-keyword", "domain-regex",
    "geoip",  "process-name",  "process-path",   "uid",
    "in",     "rule-set",
};

/* Kinds of mihomo that we do not plan, each with what comes nearest. */
static const struct {
    const char *type, *instead;
} foreign[] = {
    { "GEOSITE", "use RULE-SET with a list of domains" },
    { "SUB-RULE", "write the conditions into one rule, or use AND" },
    { "SRC-GEOIP", "use SRC-IP-CIDR" },
    { "SRC-IP-ASN", "use SRC-IP-CIDR" },
    { "IP-SUFFIX", "use IP-CIDR" },
    { "SRC-IP-SUFFIX", "use SRC-IP-CIDR" },
    { "IN-PORT", "use IN-NAME" },
    { "IN-TYPE", "use IN-NAME" },
    { "IN-USER", "use SRC-IP-CIDR" },
    { "DSCP", "use DST-PORT or NETWORK" },
    { "PROCESS-NAME-REGEX", "use PROCESS-NAME" },
    { "PROCESS-NAME-WILDCARD", "use PROCESS-NAME" },
    { "PROCESS-PATH-REGEX", "use PROCESS-PATH" },
    { "PROCESS-PATH-WILDCARD", "use PROCESS-PATH" },
};

static bool piece_is(struct piece p, const char *word)
{
    return strlen(word) == p.len && strncmp(p.text, word, p.len) == 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static struct piece trim(const char *text, size_t len)
{
    while (len > 0 && is_space(text[0])) {
        text++;
        len--;
    }
    while (len > 0 && is_space(text[len - 1]))
        len--;
    return (struct piece){ text, len };
}

/* The piece before the next comma; @rest moves behind it, and becomes NULL after the last one. */
static struct piece next_piece(const char **rest)
{
    const char *start = *rest, *comma = strchr(start, ',');

    *rest = comma != NULL ? comma + 1 : NULL;
    return trim(start, comma != NULL ? (size_t)(comma - start) : strlen(start));
}

static int fail_at(size_t *at, size_t offset)
{
    *at = offset;
    return -EINVAL;
}

/* ---- near spellings ---- */

static char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;

    return m < c ? m : c;
}

/* Letters to add, drop, change or swap (neighbours) between two words, whatever their case. */
static unsigned edit_distance(struct piece a, struct piece b)
{
    unsigned row[3][WORD_MAX + 1]; /* the last two rows and the one being filled, in turn */

    if (a.len > WORD_MAX || b.len > WORD_MAX)
        return WORD_MAX;
    for (unsigned j = 0; j <= b.len; j++)
        row[0][j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];

        now[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            char x = upper(a.text[i - 1]), y = upper(b.text[j - 1]);

            now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == upper(b.text[j - 2]) && y == upper(a.text[i - 2]) &&
                before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
    }
    return row[a.len % 3][b.len];
}

/* Keeps in @best the word nearest to @p so far; half of a short word changed is another word. */
static void consider(struct piece p, const char *word, const char **best, unsigned *best_distance)
{
    unsigned d = edit_distance(p, (struct piece){ word, strlen(word) });

    if (d < *best_distance && 2 * d < p.len) {
        *best = word;
        *best_distance = d;
    }
}

/* ---- kinds ---- */

static int unknown_type(struct piece type, struct err *err)
{
    unsigned distance = SUGGEST_DISTANCE + 1;
    const char *best = NULL;
    int shown = type.len < WORD_MAX ? (int)type.len : WORD_MAX;

    consider(type, "MATCH", &best, &distance);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        consider(type, kinds[i].type, &best, &distance);
    for (size_t i = 0; i < ARRAY_LEN(later); i++)
        consider(type, later[i], &best, &distance);
    if (best != NULL)
        return err_set(err, -EINVAL, "unknown rule \"%.*s\"; did you mean \"%s\"?", shown, type.text, best);
    return err_set(err, -EINVAL,
                   "unknown rule \"%.*s\"; write TYPE,VALUE,TARGET as in IP-CIDR,10.0.0.0/8,DIRECT", shown,
                   type.text);
}

static int find_type(struct piece type, enum rule_kind *out, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (piece_is(type, kinds[i].type)) {
            *out = kinds[i].kind;
            return 0;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(later); i++) {
        if (piece_is(type, later[i]))
            return err_set(err, -ENOTSUP, "%s is not supported yet", later[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
        if (piece_is(type, foreign[i].type))
            return err_set(err, -ENOTSUP, "%s is not supported; %s", foreign[i].type, foreign[i].instead);
    }
    return unknown_type(type, err);
}

int rules_key_parse(const char *key, enum rule_kind *out, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(key, kinds[i].key) == 0) {
            *out = kinds[i].kind;
            return 0;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(later_keys); i++) {
        if (strcmp(key, later_keys[i]) == 0)
            return err_set(err, -ENOTSUP, "%s is not supported yet", key);
    }
    return -ENOENT;
}

/* ---- values ---- */

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
    bool good = parse_port(trim(p.text, first_len), &first);

    last = first;
    if (good && dash != NULL)
        good = parse_port(trim(dash + 1, p.len - first_len - 1), &last);
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

static int parse_ports(enum rule_kind kind, struct piece p, struct rule_cond *out, size_t cap, size_t *n,
                       const char **bad, struct err *err)
{
    const char *at = p.text, *end = p.text + p.len;
    size_t made = 0;

    while (at != NULL) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        struct piece range = trim(at, (size_t)((slash != NULL ? slash : end) - at));

        *bad = range.text;
        if (made == cap)
            return err_set(err, -EINVAL, "a list of more than %zu ports; split it over two rules", cap);
        out[made].kind = kind;
        if (parse_port_range(range, &out[made], err) != 0)
            return -EINVAL;
        made++;
        at = slash != NULL ? slash + 1 : NULL;
    }
    *n = made;
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

static int parse_value(enum rule_kind kind, struct piece p, struct rule_cond *out, size_t cap, size_t *n,
                       const char **bad, struct err *err)
{
    int r = -EINVAL;

    *bad = p.text;
    if (cap == 0)
        return err_set(err, -EINVAL, "too many values");
    switch (kind) {
    case RULE_DST_PORT:
    case RULE_SRC_PORT:
        return parse_ports(kind, p, out, cap, n, bad, err);
    case RULE_DST_CIDR:
    case RULE_SRC_CIDR:
        r = parse_cidr(p, &out->prefix, err);
        break;
    case RULE_NETWORK:
        r = parse_network(p, &out->networks, err);
        break;
    }
    if (r == 0) {
        out->kind = kind;
        *n = 1;
    }
    return r;
}

int rules_value_parse(enum rule_kind kind, const char *text, struct rule_cond *out, size_t cap, size_t *n,
                      size_t *at, struct err *err)
{
    const char *bad = text;

    if (parse_value(kind, trim(text, strlen(text)), out, cap, n, &bad, err) != 0)
        return fail_at(at, (size_t)(bad - text));
    return 0;
}

int rules_echo_parse(const char *text, enum rule_echo *out, struct err *err)
{
    static const struct {
        const char *name;
        enum rule_echo echo;
    } modes[] = {
        { "auto", RULE_ECHO_AUTO },
        { "reply", RULE_ECHO_REPLY },
        { "reply-if-healthy", RULE_ECHO_REPLY_IF_HEALTHY },
        { "proxy", RULE_ECHO_PROXY },
        { "tunnel", RULE_ECHO_TUNNEL },
        { "drop", RULE_ECHO_DROP },
        { "reject", RULE_ECHO_REJECT },
    };

    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        if (strcmp(text, modes[i].name) == 0) {
            *out = modes[i].echo;
            return 0;
        }
    }
    return err_set(
        err, -EINVAL,
        "\"%.32s\" is no echo mode; write auto, reply, reply-if-healthy, proxy, tunnel, drop or reject",
        text);
}

/* ---- the classic string ---- */

/* What may follow the target: no-resolve, once, where a target's address matters. */
static int parse_option(struct piece p, bool about_dst, struct rule_text *out, struct err *err)
{
    if (piece_is(p, "src") && about_dst)
        return err_set(err, -EINVAL,
                       "the option \"src\" is not supported; write SRC-IP-CIDR instead of IP-CIDR");
    if (!piece_is(p, "no-resolve"))
        return err_set(err, -EINVAL, "\"%.*s\" follows the target; only no-resolve may, after IP-CIDR",
                       p.len < WORD_MAX ? (int)p.len : WORD_MAX, p.text);
    if (!about_dst)
        return err_set(err, -EINVAL,
                       "no-resolve is for IP-CIDR; this rule never looks a name up, so leave it out");
    if (out->no_resolve)
        return err_set(err, -EINVAL, "no-resolve is written twice");
    out->no_resolve = true;
    return 0;
}

/* TARGET[,no-resolve]; @rest is NULL when the text ended before the target. */
static int parse_target(const char *text, const char *rest, bool about_dst, struct rule_text *out, size_t *at,
                        struct err *err)
{
    struct piece p;

    if (rest == NULL) {
        err_set(err, -EINVAL,
                "the target is missing; end the rule with a proxy, a group, DIRECT, REJECT or REJECT-DROP");
        return fail_at(at, strlen(text));
    }
    p = next_piece(&rest);
    if (p.len == 0) {
        err_set(err, -EINVAL, "the target is empty; write a proxy, a group, DIRECT, REJECT or REJECT-DROP");
        return fail_at(at, (size_t)(p.text - text));
    }
    out->target = p.text;
    out->target_len = p.len;
    while (rest != NULL) {
        p = next_piece(&rest);
        if (parse_option(p, about_dst, out, err) != 0)
            return fail_at(at, (size_t)(p.text - text));
    }
    return 0;
}

int rules_parse(const char *text, struct rule_text *out, size_t *at, struct err *err)
{
    struct rule_text made = { .n_conds = 0 };
    const char *rest = text, *bad;
    enum rule_kind kind = RULE_DST_CIDR;
    struct piece p = next_piece(&rest);
    bool about_dst = false;
    int r;

    if (!piece_is(p, "MATCH")) {
        *at = (size_t)(p.text - text);
        if ((r = find_type(p, &kind, err)) != 0)
            return r;
        if (rest == NULL) {
            err_set(err, -EINVAL, "%.*s needs a value and a target, as in TYPE,VALUE,TARGET", (int)p.len,
                    p.text);
            return fail_at(at, strlen(text));
        }
        p = next_piece(&rest);
        if (parse_value(kind, p, made.conds, RULE_CONDS_MAX, &made.n_conds, &bad, err) != 0)
            return fail_at(at, (size_t)(bad - text));
        about_dst = kind == RULE_DST_CIDR;
    }
    r = parse_target(text, rest, about_dst, &made, at, err);
    if (r == 0)
        *out = made;
    return r;
}
