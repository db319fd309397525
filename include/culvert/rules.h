/* rules.h - which way a flow goes: an ordered list of rules, the first that matches wins.
 * Knows     what a flow is made of (addresses, name, ports, program); never what a target is: it is a number that the caller gave.
 *           It fetches nothing: what is missing for a decision is named in the verdict, and the caller asks again when it has it.
 * Threads   [any] a loaded list, a set and a database are immutable and counted, shared by all workers.
 * Memory    is allocated when something is loaded, and by nothing else: rules_new(), rules_with_set(), rule_set_build() to
 *           rule_set_finish(), rule_set_parse(), rule_geo_open(), and while rules_value_parse() and its kin try an expression. Whatever
 *           asks (rules_match(), rules_why(), rule_set_has_*()) allocates nothing, takes no lock and does not block; an expression
 *           works in 40 KiB of the caller's stack. A database is mapped: a page that is not in memory is read from the disk then.
 * Errors    0 or -errno, with a sentence where there is an @err; *out is untouched on failure. */
#ifndef CULVERT_RULES_H
#define CULVERT_RULES_H

#include "culvert/base.h"

struct rule_set;
struct rule_geo;

/* ---- one rule ------------------------------------------------------------------------------------------- */

enum rule_kind {
    RULE_DST_CIDR, /* the target's address */
    RULE_SRC_CIDR, /* the client's address */
    RULE_DST_PORT, /* TCP and UDP only */
    RULE_SRC_PORT,
    RULE_NETWORK,
    RULE_DOMAIN,          /* the target's name, whole */
    RULE_DOMAIN_SUFFIX,   /* that name, or one below it */
    RULE_DOMAIN_KEYWORD,  /* anywhere in the name */
    RULE_DOMAIN_WILDCARD, /* the whole name; `*` is any number of bytes, `?` is one */
    RULE_DOMAIN_LABELS, /* the whole name; a label `*` is one label: entries of lists, as in "a.*.example" */
    RULE_DOMAIN_REGEX,  /* anywhere in the name, whatever its case (pcre2) */
    RULE_GEOIP,  /* the country of the target's address; "lan": an address that is not of the internet */
    RULE_IP_ASN, /* the network that announces the target's address */
    RULE_PROCESS_NAME, /* the last component of the program's path, whatever its case */
    RULE_PROCESS_PATH,
    RULE_UID,     /* who runs the program */
    RULE_IN_NAME, /* the interface that the flow came by */
    RULE_SET,     /* a list with a name */
    RULE_AND,     /* of the conditions inside, which follow it */
    RULE_OR,
    RULE_NOT, /* of the one inside */
};
#define RULE_KINDS (RULE_NOT + 1)

enum { RULE_TCP = 1, RULE_UDP = 2, RULE_ICMP = 4 }; /* bits of RULE_NETWORK; icmp means both families */

/* One condition. Conditions of one kind are alternatives, and every kind that is present must hold: that is the map form
 * of config.md ("keys ANDed, values ORed"). No condition at all: MATCH. RULE_AND, RULE_OR and RULE_NOT take the next `inside`
 * conditions, which are read as one list of alternatives (OR) or as a list where all must hold (AND). */
struct rule_cond {
    enum rule_kind kind;
    bool no_resolve; /* a target known by name only is not looked up for this condition: it does not hold */
    uint32_t inside; /* conditions behind this one that belong to it; 0 but for RULE_AND, RULE_OR, RULE_NOT */
    union {
        struct ip_prefix prefix; /* RULE_*_CIDR */
        struct {
            uint16_t first, last; /* first <= last */
        } ports;                  /* RULE_*_PORT */
        struct {
            uint32_t first, last;
        } numbers;        /* RULE_UID, RULE_IP_ASN */
        uint8_t networks; /* RULE_NETWORK: RULE_TCP | ... */
        struct {
            const char *text; /* borrowed, not terminated */
            uint32_t len;
        } value; /* all others: a name, an expression, a country, a path, the name of a set */
    };
    /* Given by the caller before rules_new(), which takes a reference: the parser leaves them NULL. */
    struct rule_set *set; /* RULE_SET */
    struct rule_geo *geo; /* RULE_IP_ASN, and RULE_GEOIP of a country */
};

/* A rule's own `echo`, which wins over `stack.icmp.echo` (icmp.md 5.3). */
enum rule_echo {
    RULE_ECHO_UNSET,
    RULE_ECHO_AUTO,
    RULE_ECHO_REPLY,
    RULE_ECHO_REPLY_IF_HEALTHY,
    RULE_ECHO_PROXY,
    RULE_ECHO_TUNNEL,
    RULE_ECHO_DROP,
    RULE_ECHO_REJECT,
};

struct rule { /* input of rules_new(); everything in it is copied */
    const struct rule_cond *conds;
    size_t n_conds;
    uint32_t target;  /* the caller's index of a proxy, a group, DIRECT, ... */
    const char *name; /* for logs and `explain`: the rule as it was written, or its `name`; NULL: none */
    enum rule_echo echo;
    bool no_resolve; /* a target known by name is not looked up for this rule */
};

/* ---- a list --------------------------------------------------------------------------------------------- */

struct rules; /* immutable, counted */

/** rules_new() - compile a list; the caller holds the first reference
 * @implicit_target: what a flow gets that no rule takes (config.md section 4: REJECT, said in a warning)
 * Return: 0; -ENOMEM; -EINVAL: a condition contradicts its kind (ports in the wrong order, prefix over 128, no network, a set or a
 * database that is not there, an expression that pcre2 refuses). */
int rules_new(const struct rule *list, size_t n, uint32_t implicit_target, struct rules **out);
struct rules *rules_ref(struct rules *r); /* [any] returns @r */
void rules_unref(struct rules *r);        /* [any] NULL is fine */
size_t rules_count(const struct rules *r);
/* The name given to rules_new(), or "" for none; "(no rule)" for RULE_IMPLICIT. Lives as long as @r. */
const char *rules_name(const struct rules *r, uint32_t rule);
uint32_t rules_target(const struct rules *r, uint32_t rule); /* of RULE_IMPLICIT, too */
/** rules_with_set() - the same list with @fresh wherever @old stands: what a refreshed provider needs
 * Return: 0 and *out, with a reference; -ENOMEM. @r is as it was. */
int rules_with_set(const struct rules *r, const struct rule_set *old, struct rule_set *fresh,
                   struct rules **out);

/* What a decision may lack. UID and PROCESS are looked up by the flow's socket, once. */
enum { RULE_NEEDS_ADDRESS = 1, RULE_NEEDS_NAME = 2, RULE_NEEDS_UID = 4, RULE_NEEDS_PROCESS = 8 };
/* All that some rule of the list may ask for: what is not in here need never be fetched. */
uint8_t rules_needs(const struct rules *r);

struct rule_flow {
    struct ip_port client;
    /* The name (as host_name_normalise() makes it) is for domain rules; the address may stand beside it, or be none. */
    struct host_port target;
    enum ip_proto proto;
    const char *process; /* path of the program; NULL: not known */
    const char *in_name; /* interface; NULL: none */
    bool has_uid;
    uint32_t uid;
    /* RULE_NEEDS_* that were asked for already, or cannot be had: what is missing then does not match, and is not asked again. */
    uint8_t settled;
};

#define RULE_IMPLICIT  UINT32_MAX
#define RULE_ADDRS_MAX 16 /* of one name */

struct rule_verdict {
    uint32_t target; /* as given in struct rule */
    uint32_t rule;   /* its index in the list, or RULE_IMPLICIT */
    enum rule_echo echo;
    /* 0: decided. Else what the first rule that may change this lacks (RULE_NEEDS_*): get it, or settle it, and ask again. The
     * fields above are the verdict without it. */
    uint8_t needs;
    bool regex_gave_up; /* an expression met its limit of steps, and so did not match */
};

/** rules_match() - the first rule that takes @flow; there is always a verdict [any] the packet path
 * @flow: borrowed for the call, as all that it points to */
void rules_match(const struct rules *r, const struct rule_flow *flow, struct rule_verdict *out);
/** rules_match_counted() - the same; @visited grows by the places of the indexes and the rules that were looked at */
void rules_match_counted(const struct rules *r, const struct rule_flow *flow, struct rule_verdict *out,
                         uint64_t *visited);

/** rules_match_any() - the same for a name that was looked up: each of its addresses is judged by itself, as target.addr, and the first
 * rule that takes one of them has the flow [any]
 * @n:    at most RULE_ADDRS_MAX; 0: as rules_match()
 * @fits: bit i: addrs[i] by itself goes to the verdict's target. The others go elsewhere: whoever dials by this verdict must not
 *        dial them. Cost: that of @n matches. */
void rules_match_any(const struct rules *r, const struct rule_flow *flow, const struct ip_addr *addrs,
                     size_t n, struct rule_verdict *out, uint32_t *fits);

enum rule_answer { RULE_NO, RULE_YES, RULE_UNKNOWN };

/** rules_why() - does this one rule take @flow, and why (not): for `culvert explain`
 * @out: a short reason, as in "example.com is not below corp.example" */
enum rule_answer rules_why(const struct rules *r, uint32_t rule, const struct rule_flow *flow, char *out,
                           size_t cap);

/* ---- sets: lists of entries under one name, as rule-providers hold them --------------------------------------- */

enum rule_behavior { RULE_SET_DOMAIN, RULE_SET_IPCIDR, RULE_SET_CLASSICAL };
enum rule_format { RULE_LIST_TEXT, RULE_LIST_YAML };

struct rule_set_builder;

/** rule_set_build() - an empty set to be filled. Return: 0 or -ENOMEM. */
int rule_set_build(enum rule_behavior behavior, struct rule_set_builder **out);
/** rule_set_add() - one entry: "+.example.org", "*.example.org", "10.0.0.0/8", or a rule without its target
 * Return: 0; -EINVAL: a bad entry, with a sentence, and the set is as it was; -ENOMEM. */
int rule_set_add(struct rule_set_builder *b, const char *text, size_t len, struct err *err);
/** rule_set_finish() - the set, with its first reference; @b is gone in any case. Return: 0 or -ENOMEM. */
int rule_set_finish(struct rule_set_builder *b, struct rule_set **out);
void rule_set_builder_free(struct rule_set_builder *b); /* NULL is fine */

#define RULE_BAD_LINES_KEPT 5
struct rule_list_report {
    uint32_t lines, entries, bad; /* bad ones were skipped (faults.md C6) */
    struct {
        uint32_t line; /* from 1 */
        struct err why;
    } first_bad[RULE_BAD_LINES_KEPT];
};

/** rule_set_parse() - a provider's file: one entry a line; YAML: the items of `payload:`, each on its line
 * Return: 0 and *out even if every line was bad; -ENOMEM. */
int rule_set_parse(enum rule_behavior behavior, enum rule_format format, const char *data, size_t len,
                   struct rule_set **out, struct rule_list_report *report);
struct rule_set *rule_set_ref(struct rule_set *s); /* [any] returns @s */
void rule_set_unref(struct rule_set *s);           /* NULL is fine */
size_t rule_set_count(const struct rule_set *s);
size_t rule_set_bytes(const struct rule_set *s); /* of memory */
/** rules_memory() - rules, their lists, and databases: each once, mapped as a whole */
void rules_memory(const struct rules *r, struct memory_use *add);
/** rule_set_has_name() - is @name (normalised) in it? @visited may be NULL */
bool rule_set_has_name(const struct rule_set *s, const char *name, uint64_t *visited);
/* The same for an address; false for none and for a set of names. */
bool rule_set_has_addr(const struct rule_set *s, const struct ip_addr *addr, uint64_t *visited);

/* ---- databases of addresses (MaxMind's format) ------------------------------------------------------------------ */

enum rule_geo_kind { RULE_GEO_COUNTRY, RULE_GEO_ASN };

/** rule_geo_open() - map the file; it is read as rules ask. Replace it by renaming, never by writing into it.
 * Return: 0 and *out with a reference; -ENOENT, -EINVAL, ... with a sentence; -ENOTSUP: built without it (WITH_GEOIP). */
int rule_geo_open(const char *path, enum rule_geo_kind kind, struct rule_geo **out, struct err *err);
struct rule_geo *rule_geo_ref(struct rule_geo *g); /* [any] returns @g */
void rule_geo_unref(struct rule_geo *g);           /* NULL is fine */

/* ---- text (used by config) ------------------------------------------------------------------------------ */

#define RULE_CONDS_MAX 64 /* of one classic string, with all that AND, OR and NOT hold */

struct rule_text {                          /* one classic string, taken apart */
    struct rule_cond conds[RULE_CONDS_MAX]; /* their values are inside the text that was parsed */
    size_t n_conds;
    const char
        *target; /* inside the text that was parsed, not terminated; NULL: an entry of a list has none */
    size_t target_len;
    bool no_resolve;
};

/** rules_parse() - one classic string, "TYPE,VALUE,TARGET[,no-resolve]" or "MATCH,TARGET"
 * @out: untouched on failure; whether the target exists is the caller's to check
 * @at:  on failure, the offset in @text of what @err is about
 * Return: 0; -EINVAL: a mistake; -ENOTSUP: a rule that exists, but not here or not yet. @err is a sentence without position. */
int rules_parse(const char *text, struct rule_text *out, size_t *at, struct err *err);
/** rules_parse_entry() - the same without a target: "TYPE,VALUE[,no-resolve]", as classical lists have it */
int rules_parse_entry(const char *text, struct rule_text *out, size_t *at, struct err *err);

/** rules_key_parse() - the kind that a key of the map form stands for: "dst-cidr", "domain-suffix", "uid", ...
 * Return: 0; -ENOENT: no key of a rule (`via`, `name` and `echo` are the caller's). */
int rules_key_parse(const char *key, enum rule_kind *out);

/** rules_value_parse() - one value of a kind: "10.0.0.0/8"; "80", "8000-8999" or "80/443/8000-8999"; "example.org"
 * @out, @cap:  appended from @out[0]; @n gets how many conditions were made (more than one for a list of ports or numbers only)
 * @at:         on failure, the offset in @text
 * Return: 0; -EINVAL with a sentence; -ENOTSUP: left out of this build (WITH_REGEX, WITH_GEOIP). */
int rules_value_parse(enum rule_kind kind, const char *text, struct rule_cond *out, size_t cap, size_t *n,
                      size_t *at, struct err *err);

/** rules_echo_parse() - a value of `echo`: "auto", "reply", ... Return: 0, or -EINVAL with a sentence that lists them */
int rules_echo_parse(const char *text, enum rule_echo *out, struct err *err);

#endif
