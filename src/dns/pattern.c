/* pattern.c - patterns of names and names of types, as configurations spell them. */
#include "culvert/dns.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A "*" stands for a whole label; what remains must be a host name. */
int dns_pattern_check(const char *text, char out[256])
{
    size_t skip = text[0] == '+' && text[1] == '.' ? 2 : text[0] == '.' ? 1 : 0;
    char plain[256], normal[256];
    size_t len = strlen(text);

    if (len <= skip || len >= sizeof(plain) - 2)
        return -EINVAL;
    memcpy(plain, text, len + 1);
    for (char *c = plain + skip; *c != '\0'; c++) {
        if (*c != '*')
            continue;
        if ((c > plain + skip && c[-1] != '.') || (c[1] != '.' && c[1] != '\0'))
            return -EINVAL;
        *c = '_'; /* any byte of host names: put back below */
    }
    if (host_name_normalise(plain + skip, len - skip, normal) != 0)
        return -EINVAL;
    memcpy(out, text, skip);
    for (size_t i = 0; normal[i] != '\0'; i++)
        out[skip + i] = text[skip + i] == '*' ? '*' : normal[i];
    out[skip + strlen(normal)] = '\0';
    return 0;
}

/* Label by label; as many in the one as in the other. */
static bool match_labels(const char *pattern, const char *name)
{
    for (;;) {
        size_t p = strcspn(pattern, "."), n = strcspn(name, ".");

        if (!(p == 1 && pattern[0] == '*') && (p != n || memcmp(pattern, name, n) != 0))
            return false;
        if (pattern[p] == '\0' || name[n] == '\0')
            return pattern[p] == name[n];
        pattern += p + 1;
        name += n + 1;
    }
}

static unsigned dots(const char *text)
{
    unsigned n = 0;

    for (; *text != '\0'; text++)
        n += *text == '.';
    return n;
}

bool dns_pattern_match(const char *pattern, const char *name)
{
    bool below = pattern[0] == '.', or_below = pattern[0] == '+' && pattern[1] == '.';
    const char *rest = pattern + (or_below ? 2 : below ? 1 : 0);
    unsigned want = dots(rest), have = dots(name);

    if (!below && !or_below)
        return match_labels(rest, name);
    if (have < want || (below && have == want))
        return false;
    for (; have > want; have--)
        name = strchr(name, '.') + 1;
    return match_labels(rest, name);
}

uint16_t dns_type_parse(const char *text)
{
    static const struct {
        const char *name;
        uint16_t type;
    } types[] = {
        { "A", 1 },      { "NS", 2 },      { "CNAME", 5 }, { "SOA", 6 },   { "PTR", 12 },   { "HINFO", 13 },
        { "MX", 15 },    { "TXT", 16 },    { "AAAA", 28 }, { "SRV", 33 },  { "NAPTR", 35 }, { "DS", 43 },
        { "RRSIG", 46 }, { "DNSKEY", 48 }, { "TLSA", 52 }, { "SVCB", 64 }, { "HTTPS", 65 }, { "SPF", 99 },
        { "ANY", 255 },  { "URI", 256 },   { "CAA", 257 },
    };
    const char *digits = strncasecmp(text, "TYPE", 4) == 0 ? text + 4 : text;
    size_t len = strspn(digits, "0123456789");
    unsigned long n = strtoul(digits, NULL, 10);

    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (strcasecmp(types[i].name, text) == 0)
            return types[i].type;
    }
    return len > 0 && len <= 5 && digits[len] == '\0' && n <= UINT16_MAX ? (uint16_t)n : 0;
}
