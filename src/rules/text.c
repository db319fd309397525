/* text.c - rules as people write them: the classic string of the Clash family, with AND, OR and NOT in parentheses. */
#include <errno.h>
#include <string.h>

#include "rules_impl.h"

#define WORD_MAX 32 /* bytes of a wrong word that are shown */

/* One string that is being taken apart. */
struct parse {
    const char *text;
    struct rule_text made;
    bool entry; /* of a list: there is no target */
    size_t *at;
    struct err *err;
};

static int fail(struct parse *p, const char *where, int r)
{
    *p->at = (size_t)(where - p->text);
    return r;
}

static int shown(struct piece p)
{
    return p.len < WORD_MAX ? (int)p.len : WORD_MAX;
}

/* The piece before the next comma; @rest moves behind it, and its text becomes NULL after the last one. */
static struct piece next_piece(struct piece *rest)
{
    const char *comma = memchr(rest->text, ',', rest->len);
    size_t len = comma != NULL ? (size_t)(comma - rest->text) : rest->len;
    struct piece p = piece_trim(rest->text, len);

    rest->text = comma != NULL ? comma + 1 : NULL;
    rest->len -= comma != NULL ? len + 1 : len;
    return p;
}

static const char *closing(const char *from, const char *end)
{
    int depth = 0;

    for (const char *c = from; c < end; c++) {
        if (*c == '\\' && c + 1 < end)
            c++; /* a parenthesis that an expression means as such */
        else if (*c == '(')
            depth++;
        else if (*c == ')' && --depth == 0)
            return c;
    }
    return NULL;
}

/* The value of a kind may hold commas: what is in parentheses, and a regular expression up to the target. */
static struct piece next_value(struct parse *p, enum rule_kind kind, struct piece *rest, bool last)
{
    struct piece trimmed = piece_trim(rest->text, rest->len);
    const char *end = rest->text + rest->len, *stop = NULL;

    if (trimmed.len > 0 && trimmed.text[0] == '(' &&
        (kind == RULE_AND || kind == RULE_OR || kind == RULE_NOT))
        stop = closing(trimmed.text, end);
    else if (kind == RULE_DOMAIN_REGEX) {
        stop = end;
        for (const char *c = rest->text; c < end && !last; c++)
            if (*c == ',')
                stop = c - 1;
        stop = last || stop == end ? end - 1 : stop;
    }
    (void)p;
    if (stop == NULL)
        return next_piece(rest);
    trimmed = piece_trim(rest->text, (size_t)(stop + 1 - rest->text));
    rest->text = memchr(stop, ',', (size_t)(end - stop));
    if (rest->text != NULL)
        rest->text++;
    rest->len = rest->text != NULL ? (size_t)(end - rest->text) : 0;
    return trimmed;
}

static bool about_address(enum rule_kind kind)
{
    return kind == RULE_DST_CIDR || kind == RULE_GEOIP || kind == RULE_IP_ASN || kind == RULE_SET;
}

/* What may follow the target: no-resolve, once, where a target's address matters. */
static int parse_option(struct parse *p, struct piece word, enum rule_kind kind, bool *no_resolve)
{
    struct err *err = p->err;

    if (piece_is(word, "src") && about_address(kind))
        err_set(err, -EINVAL, "the option \"src\" is not supported; write SRC-IP-CIDR instead of %s",
                kind_type(kind));
    else if (!piece_is(word, "no-resolve"))
        err_set(err, -EINVAL, "\"%.*s\" follows the target; only no-resolve may, after IP-CIDR", shown(word),
                word.text);
    else if (!about_address(kind))
        err_set(err, -EINVAL, "no-resolve is for IP-CIDR; this rule never looks a name up, so leave it out");
    else if (*no_resolve)
        err_set(err, -EINVAL, "no-resolve is written twice");
    else {
        *no_resolve = true;
        return 0;
    }
    return fail(p, word.text, -EINVAL);
}

/* ---- conditions -------------------------------------------------------------------------------------------------- */

static int condition(struct parse *p, struct piece type, struct piece *rest, bool last, unsigned depth,
                     enum rule_kind *kind);

static int take_cond(struct parse *p, const char *where, struct rule_cond **out)
{
    if (p->made.n_conds == RULE_CONDS_MAX) {
        err_set(p->err, -EINVAL,
                "a rule of more than %d conditions; use RULE-SET, or split it over two rules",
                RULE_CONDS_MAX);
        return fail(p, where, -EINVAL);
    }
    *out = &p->made.conds[p->made.n_conds++];
    **out = (struct rule_cond){ .kind = RULE_OR };
    return 0;
}

/* One member of AND, OR, NOT: "TYPE,VALUE[,no-resolve]" without its parentheses. */
static int member(struct parse *p, struct piece inside, unsigned depth)
{
    struct piece rest = inside, type = next_piece(&rest);
    bool no_resolve = false;
    size_t first = p->made.n_conds;
    enum rule_kind kind;
    int r = condition(p, type, &rest, true, depth, &kind);

    while (r == 0 && rest.text != NULL)
        r = parse_option(p, next_piece(&rest), kind, &no_resolve);
    for (size_t i = first; r == 0 && i < p->made.n_conds; i++)
        p->made.conds[i].no_resolve |= no_resolve;
    return r;
}

static int expects_parentheses(struct parse *p, const char *where, enum rule_kind kind)
{
    err_set(p->err, -EINVAL, "%s wants its rules in parentheses, as in %s", kind_type(kind),
            kind == RULE_NOT ? "NOT,((NETWORK,udp)),TARGET" : "AND,((NETWORK,udp),(DST-PORT,443)),TARGET");
    return fail(p, where, -EINVAL);
}

/* "((...),(...))" */
static int logic(struct parse *p, enum rule_kind kind, struct piece value, unsigned depth)
{
    const char *c = value.text + 1, *end = value.text + value.len - 1;
    size_t at = p->made.n_conds, members = 0;
    struct rule_cond *own;
    int r;

    if (value.len < 2 || value.text[0] != '(' || closing(value.text, end + 1) != end)
        return expects_parentheses(p, value.text, kind);
    if (depth >= RULE_DEPTH_MAX) {
        err_set(p->err, -EINVAL, "more than %d rules inside one another; write it flatter", RULE_DEPTH_MAX);
        return fail(p, value.text, -EINVAL);
    }
    if ((r = take_cond(p, value.text, &own)) != 0)
        return r;
    own->kind = kind;
    while (c < end) {
        struct piece left = piece_trim(c, (size_t)(end - c));
        const char *stop = left.len > 0 && left.text[0] == '(' ? closing(left.text, end) : NULL;

        if (stop == NULL)
            return expects_parentheses(p, left.text, kind);
        if ((r = member(p, piece_trim(left.text + 1, (size_t)(stop - left.text - 1)), depth + 1)) != 0)
            return r;
        members++;
        left = piece_trim(stop + 1, (size_t)(end - stop - 1));
        if (left.len > 0 && left.text[0] != ',')
            return expects_parentheses(p, left.text, kind);
        c = left.len > 0 ? left.text + 1 : end;
    }
    if (members == 0)
        return expects_parentheses(p, value.text, kind);
    if (kind == RULE_NOT && members > 1) {
        err_set(p->err, -EINVAL, "NOT takes one rule; put these into an AND or an OR");
        return fail(p, value.text, -EINVAL);
    }
    p->made.conds[at].inside = (uint32_t)(p->made.n_conds - at - 1);
    return 0;
}

/* @depth > 0: inside AND, OR, NOT, where a list of ports is one member. */
static int values(struct parse *p, enum rule_kind kind, struct piece value, unsigned depth)
{
    struct rule_cond *to = p->made.conds + p->made.n_conds, *around;
    size_t made = 0, room = RULE_CONDS_MAX - p->made.n_conds;
    const char *bad = value.text;
    int r = value_parse(kind, value, to, room, &made, &bad, p->err);

    if (r != 0)
        return fail(p, bad, r);
    p->made.n_conds += made;
    if (made < 2 || depth == 0)
        return 0;
    if ((r = take_cond(p, value.text, &around)) != 0)
        return r;
    memmove(to + 1, to, made * sizeof(*to));
    *to = (struct rule_cond){ .kind = RULE_OR, .inside = (uint32_t)made };
    return 0;
}

static int condition(struct parse *p, struct piece type, struct piece *rest, bool last, unsigned depth,
                     enum rule_kind *kind)
{
    struct piece value;
    int r = kind_of_type(type, kind, p->err);

    if (r != 0)
        return fail(p, type.text, r);
    if (rest->text == NULL) {
        err_set(p->err, -EINVAL, "%s needs a value%s", kind_type(*kind),
                p->entry || depth > 0 ? "" : " and a target, as in TYPE,VALUE,TARGET");
        return fail(p, type.text + type.len, -EINVAL);
    }
    value = next_value(p, *kind, rest, last);
    if (*kind == RULE_AND || *kind == RULE_OR || *kind == RULE_NOT)
        return logic(p, *kind, value, depth);
    return values(p, *kind, value, depth);
}

/* ---- the whole string ------------------------------------------------------------------------------------------------ */

/* TARGET; @rest has no text when the string ended before it. */
static int parse_target(struct parse *p, struct piece *rest)
{
    struct piece target;

    if (rest->text == NULL) {
        err_set(p->err, -EINVAL,
                "the target is missing; end the rule with a proxy, a group, DIRECT, REJECT or REJECT-DROP");
        return fail(p, p->text + strlen(p->text), -EINVAL);
    }
    target = next_piece(rest);
    if (target.len == 0) {
        err_set(p->err, -EINVAL,
                "the target is empty; write a proxy, a group, DIRECT, REJECT or REJECT-DROP");
        return fail(p, target.text, -EINVAL);
    }
    p->made.target = target.text;
    p->made.target_len = target.len;
    return 0;
}

static int parse_all(struct parse *p)
{
    struct piece rest = { p->text, strlen(p->text) }, type = next_piece(&rest);
    enum rule_kind kind = RULE_AND;
    int r = 0;

    if (p->entry || !piece_is(type, "MATCH"))
        r = condition(p, type, &rest, p->entry, 0, &kind);
    if (r == 0 && !p->entry)
        r = parse_target(p, &rest);
    while (r == 0 && rest.text != NULL)
        r = parse_option(p, next_piece(&rest), kind, &p->made.no_resolve);
    return r;
}

static int parse(const char *text, bool entry, struct rule_text *out, size_t *at, struct err *err)
{
    struct parse p = { .text = text, .entry = entry, .at = at, .err = err };
    int r;

    p.made.n_conds = 0;
    r = parse_all(&p);
    if (r == 0)
        *out = p.made;
    return r;
}

int rules_parse(const char *text, struct rule_text *out, size_t *at, struct err *err)
{
    return parse(text, false, out, at, err);
}

int rules_parse_entry(const char *text, struct rule_text *out, size_t *at, struct err *err)
{
    return parse(text, true, out, at, err);
}
