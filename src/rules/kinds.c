/* kinds.c - the words for kinds of rules, in classic strings and in maps, and what is said about a word that is none.
 *
 * A rule that other programs know and we lack is named, with the nearest thing that we have (config.md sections 4 and 6); a misspelt
 * one gets a suggestion. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rules_impl.h"

#define SUGGEST_DISTANCE 2  /* edits that still look like a slip */
#define WORD_MAX         32 /* longest word that is compared for a suggestion */

static const struct {
    const char *type, *key; /* in a classic string; in the map form (NULL: not there) */
    enum rule_kind kind;
} kinds[] = {
    { "IP-CIDR", "dst-cidr", RULE_DST_CIDR },
    { "IP-CIDR6", "dst-cidr", RULE_DST_CIDR },
    { "SRC-IP-CIDR", "src-cidr", RULE_SRC_CIDR },
    { "DST-PORT", "dst-port", RULE_DST_PORT },
    { "SRC-PORT", "src-port", RULE_SRC_PORT },
    { "NETWORK", "network", RULE_NETWORK },
    { "DOMAIN", "domain", RULE_DOMAIN },
    { "DOMAIN-SUFFIX", "domain-suffix", RULE_DOMAIN_SUFFIX },
    { "DOMAIN-KEYWORD", "domain-keyword", RULE_DOMAIN_KEYWORD },
    { "DOMAIN-WILDCARD", "domain-wildcard", RULE_DOMAIN_WILDCARD },
    { "DOMAIN-REGEX", "domain-regex", RULE_DOMAIN_REGEX },
    { "GEOIP", "geoip", RULE_GEOIP },
    { "IP-ASN", "ip-asn", RULE_IP_ASN },
    { "PROCESS-NAME", "process-name", RULE_PROCESS_NAME },
    { "PROCESS-PATH", "process-path", RULE_PROCESS_PATH },
    { "UID", "uid", RULE_UID },
    { "IN-NAME", "in", RULE_IN_NAME },
    { "RULE-SET", "rule-set", RULE_SET },
    { "AND", NULL, RULE_AND },
    { "OR", NULL, RULE_OR },
    { "NOT", NULL, RULE_NOT },
};

/* Kinds of mihomo that we do not plan, each with what comes nearest. */
static const struct {
    const char *type, *instead;
} foreign[] = {
    { "GEOSITE", "use RULE-SET with a list of domains" },
    { "SUB-RULE", "write the conditions into one rule, or use AND" },
    { "DOMAIN-SET", "use RULE-SET" },
    { "IP-SET", "use RULE-SET" },
    { "FINAL", "use MATCH" },
    { "SRC-MAC", "use SRC-IP-CIDR" },
    { "SRC-GEOIP", "use SRC-IP-CIDR" },
    { "SRC-IP-ASN", "use SRC-IP-CIDR" },
    { "IP-SUFFIX", "use IP-CIDR" },
    { "SRC-IP-SUFFIX", "use SRC-IP-CIDR" },
    { "IN-PORT", "use IN-NAME" },
    { "IN-TYPE", "use IN-NAME" },
    { "IN-USER", "use SRC-IP-CIDR" },
    { "DSCP", "use DST-PORT or NETWORK" },
    { "PROCESS-REGEX", "use PROCESS-NAME" },
    { "PROCESS-NAME-REGEX", "use PROCESS-NAME" },
    { "PROCESS-NAME-WILDCARD", "use PROCESS-NAME" },
    { "PROCESS-PATH-REGEX", "use PROCESS-PATH" },
    { "PROCESS-PATH-WILDCARD", "use PROCESS-PATH" },
};

bool piece_is(struct piece p, const char *word)
{
    return strlen(word) == p.len && strncmp(p.text, word, p.len) == 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

struct piece piece_trim(const char *text, size_t len)
{
    while (len > 0 && is_space(text[0])) {
        text++;
        len--;
    }
    while (len > 0 && is_space(text[len - 1]))
        len--;
    return (struct piece){ text, len };
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
    if (best != NULL)
        return err_set(err, -EINVAL, "unknown rule \"%.*s\"; did you mean \"%s\"?", shown, type.text, best);
    return err_set(err, -EINVAL,
                   "unknown rule \"%.*s\"; write TYPE,VALUE,TARGET as in IP-CIDR,10.0.0.0/8,DIRECT", shown,
                   type.text);
}

int kind_of_type(struct piece type, enum rule_kind *out, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (piece_is(type, kinds[i].type)) {
            *out = kinds[i].kind;
            return 0;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
        if (piece_is(type, foreign[i].type))
            return err_set(err, -ENOTSUP, "%s is not supported; %s", foreign[i].type, foreign[i].instead);
    }
    return unknown_type(type, err);
}

const char *kind_type(enum rule_kind kind)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (kinds[i].kind == kind)
            return kinds[i].type;
    return "a list's entry"; /* RULE_DOMAIN_LABELS has no word of its own */
}

int rules_key_parse(const char *key, enum rule_kind *out)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i].key != NULL && strcmp(key, kinds[i].key) == 0) {
            *out = kinds[i].kind;
            return 0;
        }
    }
    return -ENOENT;
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
