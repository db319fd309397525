/* rules_impl.h - the inside of src/rules: indexes, sets and the evaluation of conditions.
 *
 *     text.c (classic strings) -> value.c (values), kinds.c (words) -> rules.c (compile) -> match.c (indexes) -> eval.c (conditions)
 *     list.c (files) -> set.c (a set: names.c, prefixes.c, and conditions for what is left)
 *
 * Everything that a match reads is written before the first reference is handed out, and never after. */
#ifndef CULVERT_RULES_IMPL_H
#define CULVERT_RULES_IMPL_H

#include "culvert/rules.h"

#define RULE_DEPTH_MAX 16 /* AND, OR and NOT in one another */
#define NAME_BYTES_MAX 255
#define NEEDS_SOURCE   16 /* beside RULE_NEEDS_*: the client's address, which every real flow has */

/* A piece of text, without an end mark. */
struct piece {
    const char *text;
    size_t len;
};

/* ---- names.c: which names are in a set ------------------------------------------------------------------------ */

enum {
    NAME_SELF = 1,
    NAME_BELOW = 2,
    NAME_CHILD = 4
}; /* the name; any name below it; a name one label below it */

/* A suffix trie whose edges are hashed: a name is looked up by its suffixes, one a label, in one table. An entry is its flags,
 * its length and its text in one run of bytes; a slot is where that starts, with eight bits of the hash in front, so that a
 * suffix that is not there costs one line of cache. */
struct names {
    struct hash_key key;
    uint8_t *bytes; /* [flags][length][text] ... */
    size_t used, cap;
    uint32_t *slot; /* offset in bytes; NAMES_FREE: none */
    uint8_t *tag;
    uint32_t slots;
    uint32_t count;
};
/* @name: normalised. Return: 0 or -ENOMEM. */
int names_add(struct names *n, const char *name, size_t len, uint8_t flags);
int names_finish(struct names *n); /* no names_add() after it */
bool names_has(const struct names *n, const char *name, size_t len, uint64_t *visited);
size_t names_bytes(const struct names *n);
void names_fini(struct names *n); /* zeroed is fine */

/* ---- prefixes.c: which ranges hold an address -------------------------------------------------------------------- */

/* Sorted by address, the longer of two equal ones last; each knows the one around it. So the last that starts at or before an
 * address is the narrowest that may hold it, and all others that do are on the way up: a trie folded into one array. */
struct prefix_entry {
    struct ip_addr addr;
    uint32_t value;
    uint32_t len : 8, up : 24; /* PREFIX_NONE: none around it */
};
#define PREFIX_NONE  0xffffffu
#define PREFIXES_MAX 0xfffffeu
struct prefixes {
    struct prefix_entry *list;
    uint32_t count, cap;
};
int prefixes_add(struct prefixes *p, const struct ip_prefix *prefix, uint32_t value); /* 0, -ENOMEM, -E2BIG */
/* @as_set: values do not matter, so a range inside another one is dropped. */
int prefixes_finish(struct prefixes *p, bool as_set);
/* The narrowest entry that holds @addr, and from there the next wider: PREFIX_NONE when there is none. */
uint32_t prefixes_find(const struct prefixes *p, const struct ip_addr *addr, uint64_t *visited);
uint32_t prefixes_wider(const struct prefixes *p, const struct ip_addr *addr, uint32_t from,
                        uint64_t *visited);
void prefixes_fini(struct prefixes *p);

/* ---- regex.c, geo.c --------------------------------------------------------------------------------------------------- */

struct rule_regex;
int regex_new(const char *text, size_t len, struct rule_regex **out,
              struct err *err); /* -EINVAL, -ENOTSUP, -ENOMEM */
void regex_free(struct rule_regex *r);
/* @gave_up: set when the limit of steps was met. */
bool regex_matches(const struct rule_regex *r, const char *name, size_t len, bool *gave_up);
int regex_supported(struct err *err); /* 0 or -ENOTSUP with a sentence */
int geo_supported(struct err *err);

bool geo_has_country(const struct rule_geo *g, const struct ip_addr *addr, const char *code, size_t len);
size_t geo_bytes(const struct rule_geo *g); /* mapped */
bool geo_asn(const struct rule_geo *g, const struct ip_addr *addr, uint32_t *out);

/* ---- eval.c: do conditions hold? ------------------------------------------------------------------------------------------ */

/* A condition as it is evaluated: values are in lower case, text and references are owned by the list or set. AND, OR and NOT
 * stand in front of what they hold, so a rule is one condition with everything inside. */
struct node {
    uint8_t kind; /* enum rule_kind */
    bool no_resolve;
    uint32_t inside;
    union {
        struct ip_prefix prefix;
        struct {
            uint32_t first, last;
        } range; /* ports, uids, networks of the routing system */
        uint8_t networks;
        struct {
            const char *text;
            uint32_t len;
        } value;
        uint32_t set; /* index of struct rules' sets, so that one can be replaced */
    };
    union {
        struct rule_regex *regex;
        struct rule_geo *geo;     /* NULL: RULE_GEOIP of "lan" */
        struct rule_set *own_set; /* with RULE_SET_OWN: many values of one key */
    };
};
#define RULE_SET_OWN UINT32_MAX

/* A flow under question, with what is worked out once. */
struct ask {
    const struct rule_flow *flow;
    struct rule_set *const *sets;
    const char *name; /* NULL: none */
    size_t name_len;
    struct piece process_name;
    uint8_t network;
    uint8_t needs; /* what an UNKNOWN was for */
    bool regex_gave_up;
    uint64_t *visited;
};
void ask_begin(struct ask *a, const struct rule_flow *flow, struct rule_set *const *sets, uint64_t *visited);
enum rule_answer node_ask(const struct node *n, struct ask *a);
enum rule_answer set_ask(const struct rule_set *s, struct ask *a, bool no_resolve);
uint8_t node_needs(const struct node *n, struct rule_set *const *sets);
bool glob_matches(struct piece pattern, struct piece text);
bool labels_match(struct piece pattern, struct piece text);
bool addr_is_lan(const struct ip_addr *a);

/* ---- nodes.c: conditions become nodes ------------------------------------------------------------------------------------------ */

struct nodes {
    struct node *list;
    uint32_t count, cap;
    char *text; /* what their values point to, once nodes_settle() has run; offsets before */
    size_t text_len, text_cap;
    struct rule_set **sets; /* referenced */
    uint32_t n_sets;
};
/** nodes_add() - one expression: conditions in the form of struct rule_cond, as those of one rule
 * Return: 0 and where it starts in @at; -EINVAL: a condition contradicts its kind; -ENOMEM. */
int nodes_add(struct nodes *n, const struct rule_cond *conds, size_t count, bool no_resolve, uint32_t *at);
void nodes_settle(struct nodes *n); /* nothing is added any more */
void nodes_fini(struct nodes *n);
size_t nodes_bytes(const struct nodes *n);

/* ---- set.c ------------------------------------------------------------------------------------------------------------------- */

struct rule_set {
    atomic_uint refs;
    size_t entries;
    struct names names;
    struct prefixes dst, dst_no_resolve, src;
    struct nodes nodes; /* what none of these holds; any of them will do */
    uint32_t *expr;     /* where each starts */
    uint32_t n_exprs;
    uint8_t needs;
};
#define SET_WORTH_IT 16 /* values of one key from which on a set is made of them */

/* ---- guards.c: which rules are worth asking ------------------------------------------------------------------------------------- */

/* By the hash of one value: rules that this value may fulfil, in order. The hash alone decides, since a rule is asked in full. */
struct guard {
    uint64_t hash;
    uint32_t rule;
};
struct guards {
    struct hash_key key;
    struct guard *list; /* sorted by hash, then rule */
    uint32_t *slot;     /* the first of its hash; GUARD_FREE: none */
    uint32_t count, cap, slots;
    uint32_t kinds; /* a bit for each enum rule_kind that is in it */
};
#define GUARD_FREE UINT32_MAX
int guards_add(struct guards *g, enum rule_kind kind, const void *value, size_t len, uint32_t rule);
int guards_finish(struct guards *g);
/* The first of this value's rules in g->list, up to @end; NULL: none. */
const struct guard *guards_find(const struct guards *g, enum rule_kind kind, const void *value, size_t len,
                                const struct guard **end, uint64_t *visited);
void guards_fini(struct guards *g);

/* ---- rules.c: the compiled list ----------------------------------------------------------------------------------------------------- */

struct order { /* indexes of rules, ascending */
    uint32_t *list;
    uint32_t count, cap;
};

struct compiled_rule {
    uint32_t node;
    uint32_t target;
    uint32_t name_at; /* in names, NUL-terminated */
    uint8_t echo;     /* enum rule_echo */
};

#define NEEDS_KINDS 4 /* RULE_NEEDS_* are bits 0 to 3 */

/* A rule that can only hold if one of some values is there is found by that value; all others are asked one after the other. */
struct rules_core {
    atomic_uint refs;
    uint32_t implicit_target;
    uint32_t n;
    struct compiled_rule *rule;
    char *names;
    struct nodes nodes;
    struct guards guards;
    struct prefixes dst, src;
    struct order rest;                 /* rules without such a value */
    struct order waiting[NEEDS_KINDS]; /* rules whose value is not there yet: by what the flow lacks */
};

struct rules {
    atomic_uint refs;
    uint8_t needs;
    struct rules_core *core;
    uint32_t n_sets;
    struct rule_set *sets[];
};

/* ---- kinds.c: words --------------------------------------------------------------------------------------------------------------- */

int kind_of_type(struct piece type, enum rule_kind *out, struct err *err); /* 0, -EINVAL, -ENOTSUP */
const char *kind_type(enum rule_kind kind);                                /* "IP-CIDR" */
bool piece_is(struct piece p, const char *word);
struct piece piece_trim(const char *text, size_t len);

/** value_parse() - rules_value_parse() for a piece; @bad gets where the mistake is */
int value_parse(enum rule_kind kind, struct piece p, struct rule_cond *out, size_t cap, size_t *n,
                const char **bad, struct err *err);

#endif
