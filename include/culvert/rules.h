/* rules.h - which way a flow goes: an ordered list of rules, the first that matches wins.
 * Knows     addresses, ports and networks of a flow; never what a target is: it is a number that the caller gave.
 * Threads   [any] a loaded list is immutable and counted, shared by all workers.
 * Memory    rules_match() allocates nothing and takes no lock. */
#ifndef CULVERT_RULES_H
#define CULVERT_RULES_H

#include "culvert/base.h"

/* ---- one rule ------------------------------------------------------------------------------------------- */

enum rule_kind {
    RULE_DST_CIDR, /* the target's address; a target known by name only never matches */
    RULE_SRC_CIDR, /* the client's address */
    RULE_DST_PORT, /* TCP and UDP only */
    RULE_SRC_PORT,
    RULE_NETWORK,
};
#define RULE_KINDS 5

enum { RULE_TCP = 1, RULE_UDP = 2, RULE_ICMP = 4 }; /* bits of RULE_NETWORK; icmp means both families */

/* One condition. Conditions of one kind are alternatives, and every kind that is present must hold: that is the map form
 * of config.md ("keys ANDed, values ORed"). No condition at all: MATCH. */
struct rule_cond {
    enum rule_kind kind;
    union {
        struct ip_prefix prefix; /* RULE_*_CIDR */
        struct {
            uint16_t first, last; /* first <= last */
        } ports;                  /* RULE_*_PORT */
        uint8_t networks;         /* RULE_NETWORK: RULE_TCP | ... */
    };
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
 * Return: 0; -ENOMEM; -EINVAL: a condition contradicts its kind (ports in the wrong order, prefix over 128, no network). */
int rules_new(const struct rule *list, size_t n, uint32_t implicit_target, struct rules **out);
struct rules *rules_ref(struct rules *r); /* returns @r */
void rules_unref(struct rules *r);        /* NULL is fine */
size_t rules_count(const struct rules *r);
/* The name given to rules_new(), or "" for none; "(no rule)" for RULE_IMPLICIT. Lives as long as @r. */
const char *rules_name(const struct rules *r, uint32_t rule);

struct rule_flow {
    struct ip_port client;
    /* The name is kept for domain rules; the address may stand beside it, or be none when only the name is known. */
    struct host_port target;
    enum ip_proto proto;
};

#define RULE_IMPLICIT UINT32_MAX

struct rule_verdict {
    uint32_t target; /* as given in struct rule */
    uint32_t rule;   /* its index in the list, or RULE_IMPLICIT */
    enum rule_echo echo;
};

/** rules_match() - the first rule that takes @flow; there is always a verdict */
void rules_match(const struct rules *r, const struct rule_flow *flow, struct rule_verdict *out);

/* ---- text (used by config) ------------------------------------------------------------------------------ */

#define RULE_CONDS_MAX 64 /* of one classic string: its port list */

struct rule_text { /* one classic string, taken apart */
    struct rule_cond conds[RULE_CONDS_MAX];
    size_t n_conds;
    const char *target; /* inside the text that was parsed, not terminated */
    size_t target_len;
    bool no_resolve;
};

/** rules_parse() - one classic string, "TYPE,VALUE,TARGET[,no-resolve]" or "MATCH,TARGET"
 * @out: untouched on failure; whether the target exists is the caller's to check
 * @at:  on failure, the offset in @text of what @err is about
 * Return: 0; -EINVAL: a mistake; -ENOTSUP: a rule that exists, but not here or not yet. @err is a sentence without position. */
int rules_parse(const char *text, struct rule_text *out, size_t *at, struct err *err);

/** rules_key_parse() - the kind that a key of the map form stands for: "dst-cidr", "src-cidr", "dst-port", ...
 * Return: 0; -ENOTSUP: a key of config.md that is not built yet; -ENOENT: no key of a rule (`via`, `name` and `echo` are the caller's). */
int rules_key_parse(const char *key, enum rule_kind *out, struct err *err);

/** rules_value_parse() - one value of a kind: "10.0.0.0/8"; "80", "8000-8999" or "80/443/8000-8999"; "tcp", "udp" or "icmp"
 * @out, @cap:  appended from @out[0]; @n gets how many conditions were made (more than one for a port list only)
 * @at:         on failure, the offset in @text
 * Return: 0 or -EINVAL with a sentence. */
int rules_value_parse(enum rule_kind kind, const char *text, struct rule_cond *out, size_t cap, size_t *n,
                      size_t *at, struct err *err);

/** rules_echo_parse() - a value of `echo`: "auto", "reply", ... Return: 0, or -EINVAL with a sentence that lists them */
int rules_echo_parse(const char *text, enum rule_echo *out, struct err *err);

#endif
