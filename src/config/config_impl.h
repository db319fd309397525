/* config_impl.h - what the files of src/config share: memory, messages, the node tree, the schema and its reader.
 *
 *     bytes -> file.c (read, encoding) -> tree.c (libyaml's events, limits) -> walk.c (schema, defaults)
 *           -> value.c, proxy.c, ruleset.c (what a value means) -> config.c (checks across sections)
 *
 * Every step goes on after a mistake where it can, so that one run names all of them. */
#ifndef CULVERT_CONFIG_IMPL_H
#define CULVERT_CONFIG_IMPL_H

#include "culvert/config.h"

/* ---- memory (store.c) ------------------------------------------------------------------------------------------- */

/* Memory that is freed, and wiped, as a whole: secrets pass through it. */
struct config_store;
struct config_store *cfg_store_new(void); /* NULL: no memory */
void cfg_store_free(struct config_store *s);
void *cfg_alloc(struct config_store *s, size_t bytes); /* zeroed, aligned for any type; NULL: no memory */
char *cfg_copy_text(struct config_store *s, const char *text, size_t len); /* NUL added */

/* ---- messages (message.c) --------------------------------------------------------------------------------------- */

#define CFG_QUOTED_MAX 104 /* a quoted value, at most, with its NUL */

/* @line, @column: from 1, or 0. The text is @path, ": ", and the sentence; an empty path is left out. */
void cfg_message(struct config_messages *m, bool warning, uint32_t line, uint32_t column, const char *path,
                 const char *fmt, va_list ap);
void cfg_messages_sort(struct config_messages *m);
/* A value as it may be shown: in quotes, control bytes escaped, cut when long, a login in a URL hidden. Returns @out. */
const char *cfg_quote(const char *text, char out[CFG_QUOTED_MAX]);
/* How many slips apart two words are, case and `_` for `-` ignored; more than @limit: limit + 1. */
unsigned cfg_word_distance(const char *a, const char *b, unsigned limit);
unsigned cfg_slips_allowed(const char *word); /* what still counts as "did you mean" */

/* ---- bytes (file.c) ---------------------------------------------------------------------------------------------- */

#define CFG_FILE_MAX ((size_t)16 << 20)

/** cfg_read_file() - a regular file of at most @max bytes, a NUL added
 * @mode: gets its permission bits. Return: 0 and malloc'ed memory in *out; -errno with a sentence in @err (faults.md C7). */
int cfg_read_file(const char *path, size_t max, char **out, size_t *len, unsigned *mode, struct err *err);
/** cfg_check_text() - is it UTF-8 that YAML allows, without NUL, control bytes or another encoding's mark?
 * Return: true; false with the place and a sentence. */
bool cfg_check_text(const char *text, size_t len, uint32_t *line, uint32_t *column, struct err *err);

/* ---- the tree (tree.c) ------------------------------------------------------------------------------------------- */

#define CFG_DEPTH_MAX       32
#define CFG_ALIAS_NODES_MAX 10000
#define CFG_NODES_MAX       1000000 /* 16 MiB of "a," would be eight million; a node costs about 60 bytes */
#define CFG_ANCHORS_MAX     1000

enum cfg_kind { CFG_SCALAR, CFG_LIST, CFG_MAP };

struct cfg_pair {
    const struct cfg_node *key, *value; /* a key is always a scalar */
};

/* A value of the file. An alias is a pointer to its anchor's node, so the tree may share branches, never a circle. */
struct cfg_node {
    enum cfg_kind kind;
    bool plain;            /* a scalar without quotes */
    bool brackets;         /* a list in [ ]; a scalar: without quotes in one, so a comma ended it */
    uint8_t height;        /* levels below: 0 for a scalar */
    uint32_t line, column; /* from 1; 0: not from a file */
    uint32_t size;         /* nodes with all aliases written out */
    uint32_t count;        /* items, pairs, or bytes of text */
    union {
        const char *text; /* NUL-terminated, no NUL inside */
        const struct cfg_node **items;
        struct cfg_pair *pairs;
    };
};

/** cfg_tree() - one YAML document as nodes in @scratch
 * Duplicate keys, merge keys, tags and keys that are no scalars are reported and left out; the rest is still there.
 * Return: 0 and *out (NULL: no document); -EINVAL: reported, no tree; -ENOMEM. */
int cfg_tree(const char *text, size_t len, struct config_store *scratch, struct config_messages *m,
             const struct cfg_node **out);

/* Is it nothing at all: empty, ~ or null, without quotes? */
bool cfg_is_null(const struct cfg_node *n);

/* ---- the schema (schema.c, foreign.c) ------------------------------------------------------------------------------ */

struct cfg_read;
struct cfg_key;

/* What a value may look like and how it is read. */
struct cfg_type {
    const char *name;    /* for the reference: "duration" */
    const char *expects; /* for messages: "a duration such as 300ms, 60s, 5m or 2h" */
    enum cfg_kind kind;  /* of the value; of a list, of each item */
    bool list;           /* read() gets one item after the other; a single value is a list of one */
    bool mixed;          /* a map and a scalar are both fine; read() looks for itself */
    bool nullable;       /* `null` is a word like others */
    /* @to: the struct that the section fills; the value goes to k->offset in it. Reports its mistakes itself.
     * NULL: nothing of this type is read yet. */
    void (*read)(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to);
};

/* How a type is written. They are const, and declared below. */
#define CFG_SCALAR_TYPE(type, name_, expects_, read_)                                                        \
    const struct cfg_type type = {                                                                           \
        .name = (name_), .expects = (expects_), .kind = CFG_SCALAR, .read = (read_)                          \
    }
#define CFG_LIST_TYPE(type, name_, expects_, read_)                                                          \
    const struct cfg_type type = {                                                                           \
        .name = (name_), .expects = (expects_), .kind = CFG_SCALAR, .list = true, .read = (read_)            \
    }
#define CFG_MAP_TYPE(type, name_, expects_, read_)                                                           \
    const struct cfg_type type = { .name = (name_), .expects = (expects_), .kind = CFG_MAP, .read = (read_) }

enum cfg_state {
    CFG_HERE,      /* works */
    CFG_LATER,     /* config.md promises it: "not supported yet" */
    CFG_ALIAS,     /* another spelling of the key that `alias` names, same section */
    CFG_NO_EFFECT, /* accepted with a warning */
    CFG_LEFT_OUT,  /* works, but not in this build; `instead` says why */
    CFG_FOREIGN,   /* another program's, and not planned: `instead` says what comes nearest */
};

struct cfg_choice {
    const char *text;
    int value;
    enum cfg_state
        state; /* CFG_HERE, CFG_LATER, CFG_ALIAS (not in the reference), CFG_LEFT_OUT or CFG_FOREIGN */
};

struct cfg_section {
    const char *where; /* "", "tun", "stack.tcp", "proxies[]": names it in the reference and in foreign.c */
    const char *help;
    const struct cfg_key *keys; /* ends with name NULL */
};

struct cfg_key {
    const char *name;
    const struct cfg_type *type;
    const char *help;
    enum cfg_state state;
    bool required;
    bool fixed; /* a reload does not change it; of a section: none of its keys (fixed.c) */
    uint32_t offset;
    /* the default as one would write it, read by the same reader; a list is separated by spaces */
    const char *fallback;
    const char *shown; /* the default for people, where it is no value */
    uint64_t min, max;
    const struct cfg_choice *choices;  /* ends with text NULL */
    const struct cfg_section *section; /* of a map */
    const char *alias, *instead;
};

extern const struct cfg_section cfg_schema; /* the whole file */

/* reference.c, for manual.c too: a cell of its table, in Markdown */
void cfg_put_value(FILE *to, const struct cfg_key *k);
void cfg_put_default(FILE *to, const struct cfg_key *k);

struct cfg_foreign {
    const char *where, *name, *instead;
};
/* A key of another program that we know and do not have; NULL: unknown. */
const struct cfg_foreign *cfg_foreign_find(const char *where, const char *name);
const char *cfg_foreign_program(const struct cfg_foreign *f); /* whose key it is: "mihomo" or "sing-box" */
const struct cfg_foreign *cfg_foreign_list(size_t *n);        /* those of mihomo */

/* ---- reading (walk.c) ---------------------------------------------------------------------------------------------- */

#define CFG_PATH_MAX 256

struct cfg_dns;       /* dns.c */
struct cfg_rate;      /* below */
struct cfg_providers; /* provider.c */
struct cfg_targets;   /* proxy.c: the proxies in order, and all names */

struct cfg_nodes { /* a vector in scratch memory */
    const struct cfg_node **list;
    size_t count, cap;
};

/* One load under way. */
struct cfg_read {
    struct config *config;        /* being filled */
    struct config_store *store;   /* what outlives the load */
    struct config_store *scratch; /* what does not */
    struct config_messages *messages;
    const char *folder;      /* of relative paths: "" or with a final slash */
    char path[CFG_PATH_MAX]; /* of the value being read: "proxies[0].port" */
    size_t path_len;
    bool fixed;                           /* inside a section of which a reload changes nothing */
    bool no_memory;                       /* somewhere an allocation failed; the load ends with -ENOMEM */
    struct cfg_rate *rates;               /* rates.c: entries in order */
    const struct cfg_node *api_listen;    /* api.listen; NULL: not there */
    const struct cfg_node *secret_inside; /* the first secret that stands in the file itself; NULL: none */
    struct cfg_masque *masque;            /* NULL: not in the file */
    struct tls_ca *system_ca;             /* NULL: not asked for yet; held by the configuration */
    struct cfg_targets *targets;
    struct cfg_dns *dns;             /* dns.c; NULL: nothing read yet */
    struct cfg_providers *providers; /* provider.c; NULL: nothing read yet */
    struct cfg_nodes rules;          /* its items, read when all names are known */
    /* Where things stand, for the checks at the end; NULL: not in the file. */
    const struct cfg_node *address[16], *exclude[CONFIG_EXCLUDES_MAX];
    const struct cfg_node *mtu, *fd, *tun_name, *listen, *interface;
};

void cfg_error(struct cfg_read *r, const struct cfg_node *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void cfg_warning(struct cfg_read *r, const struct cfg_node *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void cfg_error_at(struct cfg_read *r, const struct cfg_node *at, size_t offset, const char *fmt, ...)
    __attribute__((format(printf, 4, 5))); /* @offset bytes into a scalar */
bool cfg_nodes_push(struct cfg_read *r, struct cfg_nodes *v, const struct cfg_node *n);
void *cfg_scratch(struct cfg_read *r, size_t bytes); /* cfg_alloc() that notes a failure */
void *cfg_keep(struct cfg_read *r, size_t bytes);
char *cfg_keep_text(struct cfg_read *r, const char *text, size_t len);

/* config->files gets one more; a failure is noted as those of cfg_keep() are */
void cfg_note_file(struct cfg_read *r, const char *path, bool written);
void cfg_note_refused(struct config_messages *m, int e, const char *path); /* if @e is -EACCES */
/** cfg_read_named() - cfg_read_file() of a file that the configuration names, which is noted */
int cfg_read_named(struct cfg_read *r, const char *path, size_t max, char **out, size_t *len, unsigned *mode,
                   struct err *err);

size_t cfg_enter_key(struct cfg_read *r, const char *key); /* returns what cfg_leave() wants */
size_t cfg_enter_index(struct cfg_read *r, size_t index);
void cfg_leave(struct cfg_read *r, size_t path_len);

/** cfg_read_section() - all keys of a map into @to; a key that is not there gets its default
 * @v: NULL: nothing is there. */
void cfg_read_section(struct cfg_read *r, const struct cfg_section *s, const struct cfg_node *v, void *to);
/* The value of a key of a map; NULL: not there, or no map. */
const struct cfg_node *cfg_map_get(const struct cfg_node *map, const char *key);
/* Says that a value of another kind was expected. Returns false, for use as `return cfg_wrong_kind(...)`. */
bool cfg_wrong_kind(struct cfg_read *r, const struct cfg_node *v, const char *expects);
extern const char cfg_expects_map[]; /* what is expected of a section; known by its address */
bool cfg_need_text(struct cfg_read *r, const struct cfg_node *v,
                   const char *expects); /* a scalar, not null */

/* ---- what a reload leaves alone (fixed.c): the key that r->path names, as it is written, or by default ---- */
void cfg_fixed_value(struct cfg_read *r, const struct cfg_node *v);
void cfg_fixed_default(struct cfg_read *r, const struct cfg_key *k);

/* ---- values (value.c, address.c, secret.c, proxy.c, ruleset.c): the types that schema.c uses ----------------------- */

extern const struct cfg_type cfg_section_type, cfg_bool, cfg_uint, cfg_auto_uint, cfg_none_uint, cfg_port,
    cfg_mtu, cfg_choice, cfg_choice_only, cfg_duration, cfg_duration_ms, cfg_duration_or_off, cfg_auto_size,
    cfg_rate, cfg_auto_mark, cfg_version, cfg_fd, cfg_output, cfg_output_dir, cfg_socket_path,
    cfg_metrics_path, cfg_true_only, cfg_account, cfg_ignored; /* value.c */
extern const struct cfg_type cfg_interface, cfg_auto_interface, cfg_detect_interface, cfg_tun_addresses,
    cfg_excludes, cfg_allow, cfg_listen, cfg_api_listen, cfg_host;      /* address.c */
bool cfg_interface_valid(struct cfg_read *r, const struct cfg_node *v); /* reported if not (address.c) */
extern const struct cfg_type cfg_route_interfaces, cfg_route_uids, cfg_route_gids,
    cfg_route_cgroups;                                          /* routes.c */
extern const struct cfg_type cfg_user, cfg_password, cfg_token; /* secret.c */
extern const struct cfg_type cfg_users, cfg_per_user, cfg_masque, cfg_masque_users,
    cfg_masque_allow; /* serve.c */
extern const struct cfg_type cfg_tls, cfg_tls_ca, cfg_tls_certificate, cfg_tls_key, cfg_tls_sni, cfg_tls_alpn,
    cfg_tls_pin, cfg_tls_skip;                                                               /* tls.c */
extern const struct cfg_type cfg_proxy_list, cfg_proxy_name, cfg_group_list, cfg_group_name; /* proxy.c */
extern const struct cfg_type cfg_rule_list, cfg_rule_values, cfg_rule_no_resolve,
    cfg_rule_text; /* ruleset.c */
extern const struct cfg_type cfg_provider_map, cfg_provider_payload, cfg_text_node,
    cfg_geo_path; /* provider.c */
extern const struct cfg_type cfg_dns_mode, cfg_dns_enable, cfg_dns_ca, cfg_dns_range, cfg_dns_hijack,
    cfg_tun_hijack, cfg_dns_filter, cfg_dns_rebind, cfg_dns_types, cfg_dns_servers, cfg_dns_proxy_servers,
    cfg_dns_default_servers, cfg_dns_policy, cfg_dns_hosts, cfg_sniff_ports;                   /* dns.c */
extern const struct cfg_type cfg_group_members, cfg_group_url, cfg_group_strategy, cfg_dialer; /* group.c */
extern const struct cfg_type cfg_rate_list, cfg_rate_source, cfg_rate_proxy;                   /* rates.c */
/* Not built yet: named in the reference, never read (value.c). */
extern const struct cfg_type cfg_later_text;

void cfg_list_choices(const struct cfg_choice *choices, char *out, size_t cap); /* "a, b or c" (value.c) */

/* How a number was read (value.c). */
enum cfg_number { CFG_NUMBER_OK, CFG_NUMBER_TEXT, CFG_NUMBER_ZERO, CFG_NUMBER_RANGE };
enum cfg_number cfg_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out);

/** cfg_read_secret() - text, or what a file, the environment or systemd holds
 * Return: at most @max bytes in the store; NULL: could not be read, and that was reported. Never in a message. */
const char *cfg_read_secret(struct cfg_read *r, const struct cfg_node *v, size_t max);

enum { CFG_PINS_MAX = 16 };
struct cfg_tls {
    struct tls_options options;
    const char *sni;
    const char *alpn[TLS_ALPN_MAX];
    uint8_t pins[CFG_PINS_MAX][TLS_PIN_BYTES];
    uint32_t half_close_delay_ms;                          /* 0: not in the file */
    int no_resume_choice;                                  /* 1: sessions are not resumed */
    const struct cfg_node *used, *certificate_at, *key_at; /* NULL: not in the file */
};

struct cfg_proxy { /* what one entry of `proxies` fills */
    struct upstream_options options;
    struct cfg_tls tls;
    const struct cfg_node *at;     /* its name, or the URL */
    const struct cfg_node *dialer; /* NULL: none */
};

struct cfg_masque { /* what `serve.masque` fills */
    struct masque_options options;
    struct cfg_tls tls;
    const struct cfg_node *listen; /* NULL: not in the file */
};
/** cfg_masque_finish() - config->masque and its settings of TLS, if the file has serve.masque (serve.c) */
void cfg_masque_finish(struct cfg_read *r);
/** cfg_take_prefix() - one item of a list of prefixes; false: reported */
bool cfg_take_prefix(struct cfg_read *r, const struct cfg_node *v, struct ip_prefix *list, size_t *count,
                     size_t cap);

struct cfg_group { /* what one entry of `proxy-groups` fills */
    struct group_options options;
    const char *name;
    const struct cfg_node *at;                   /* its name */
    const struct cfg_node *url_at, *strategy_at; /* NULL: not in the file */
    struct cfg_nodes members;
    bool secure; /* its url is https */
};

struct cfg_rate { /* what one entry of `rate-limits` fills */
    struct cfg_rate *next;
    const struct cfg_node *at, *proxy; /* NULL: not in the file */
    struct ip_prefix source[RATE_LIMITS_MAX];
    size_t sources;
    bool wrong; /* something in it was reported */
    struct rate_limit limit;
};
/** cfg_rates_finish() - config->rates; all names of proxies are known */
void cfg_rates_finish(struct cfg_read *r);

/** cfg_groups_finish() - members and dialers by index, into @ups, when all names are known; circles are errors
 * @errors: how many messages there were before names were looked at; with more, circles are not looked for */
void cfg_groups_finish(struct cfg_read *r, struct upstream_options *ups, size_t errors);
struct cfg_group *cfg_group_at(const struct cfg_read *r, size_t i);            /* NULL: no more */
const struct cfg_group *cfg_group_of(const struct cfg_read *r, size_t target); /* NULL: no group */
/** cfg_tls_usual() - TLS as a browser would: the system's authorities, names checked; held by the configuration; NULL: reported */
struct tls_settings *cfg_tls_usual(struct cfg_read *r, const struct cfg_node *at);

/** cfg_tls_finish() - p->options.tls from p->tls, if the proxy is to be inside TLS (tls.c) */
void cfg_tls_finish(struct cfg_read *r, struct cfg_proxy *p, const struct cfg_node *at);
/** cfg_tls_client() - settings from @opt, with the system's authorities where it has none; held by the configuration
 * Return: NULL: reported at @at. */
struct tls_settings *cfg_tls_client(struct cfg_read *r, struct tls_options *opt, const struct cfg_node *at);
/* What is counted is given back with the configuration. */
void cfg_hold_ca(struct cfg_read *r, struct tls_ca *ca);
void cfg_hold_tls(struct cfg_read *r, struct tls_settings *tls);
void cfg_release(struct config *c);

/** cfg_proxies_finish() - DIRECT, REJECT, REJECT-DROP, proxies and groups into config->upstreams; names must be distinct */
void cfg_proxies_finish(struct cfg_read *r);
/** cfg_proxy_url() - one more proxy, from a URL that is never shown; its options, or NULL after a message at @at */
struct cfg_proxy *cfg_proxy_url(struct cfg_read *r, const char *url, const struct cfg_node *at);
const struct cfg_proxy *cfg_proxy_at(const struct cfg_read *r, size_t i); /* NULL: no more */
/** cfg_target_named() - the index of a proxy or group by its name. Return: -1 after a message (group.c) */
int64_t cfg_target_named(struct cfg_read *r, const struct cfg_node *at);
enum { CFG_TARGET_UNKNOWN = -1 };
int64_t cfg_target_find(const struct cfg_read *r, const char *name);
const char *cfg_target_nearest(const struct cfg_read *r, const char *name); /* NULL: none is near */

/** cfg_dns_finish() - config->dns; all names of proxies are known */
void cfg_dns_finish(struct cfg_read *r);

struct cfg_rule { /* what one rule in map form fills; conditions are gathered by ruleset.c */
    const char *via, *name;
    int echo; /* enum rule_echo */
    bool no_resolve;
    const struct cfg_node *via_at;
    struct rule_cond *conds; /* scratch */
    size_t n_conds, cap;
};
extern const struct cfg_section cfg_rule_section;

struct cfg_provider { /* what one entry of `rule-providers` fills */
    const char *name;
    const struct cfg_node *at;                 /* its name */
    const struct cfg_node *path, *url, *proxy; /* NULL: not in the file */
    struct cfg_nodes payload;
    int type, behavior, format;
    uint32_t interval_ms;
    uint64_t max_bytes;   /* 0: the default */
    struct cfg_tls tls;   /* its authorities */
    struct rule_set *set; /* the configuration's; NULL: no memory */
};
#define CFG_FORMAT_AUTO 2 /* behind enum rule_format: by the first line */
extern const struct cfg_section cfg_provider_section, cfg_geodata_section;

/** cfg_hev_tree() - a file of hev-socks5-tunnel as a tree of ours, in scratch memory; another file as it is (hev.c)
 * Return: NULL: reported, or no memory. */
const struct cfg_node *cfg_hev_tree(struct cfg_read *r, const struct cfg_node *root);
const struct cfg_section *cfg_hev_section(size_t i); /* for the reference; NULL: no more */

/** cfg_providers_finish() - config->providers, their lists read; all names of proxies are known */
void cfg_providers_finish(struct cfg_read *r);
/** cfg_provider_set() - the list that a rule names, @offset bytes into @at; NULL: reported */
struct rule_set *cfg_provider_set(struct cfg_read *r, const char *name, size_t len, const struct cfg_node *at,
                                  size_t offset);
/** cfg_geodata() - the database that a rule wants; opened once, the configuration's; NULL: reported, once */
struct rule_geo *cfg_geodata(struct cfg_read *r, enum rule_geo_kind kind, const struct cfg_node *at);

/** cfg_rules_finish() - config->rules from r->rules */
void cfg_rules_finish(struct cfg_read *r, bool wanted);

#endif
