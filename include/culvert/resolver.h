/* resolver.h - addresses of host names, asked from name servers without ever blocking (RFC 1035, RFC 6891).
 * Knows     the hosts file, resolv.conf and name servers over UDP and TCP, for clients also over TLS and HTTPS (RFC 7858, RFC 8484);
 *           nothing of why a name is asked.
 * Threads   [worker] one resolver, one dns_service belongs to one loop; services speak to each other by messages. Plans are immutable
 *           and counted [any]; exceptions are marked.
 * Bounds    an answer or an error within 5 s; a bounded cache; one question on the wire for all who ask the same name.
 * Files     read in the loop's thread when they changed, at most once a second; only their first MiB counts.
 * Not here  getaddrinfo and nsswitch.conf (design.md section 6, Names); `search` and `ndots`: names are taken as complete. */
#ifndef CULVERT_RESOLVER_H
#define CULVERT_RESOLVER_H

#include "culvert/base.h"
#include "culvert/loop.h"
#include "culvert/tls.h"
#include "culvert/upstream.h"

struct resolver; /* heap, one per loop */
/* One open question of one caller; gone once its callback ran or resolver_cancel() returned. */
struct resolver_query;

#define RESOLVER_ADDRS_MAX   16
#define RESOLVER_SERVERS_MAX 3

/** The sockets are the caller's to make, so that they carry its mark and its device (never a way back into the TUN).
 * @type: SOCK_DGRAM or SOCK_STREAM; @dst: where it will be connected
 * Return: a non-blocking, close-on-exec descriptor that now is the resolver's, or -errno. */
typedef int resolver_socket_fn(void *arg, int family, int type, const struct ip_port *dst);

struct resolver_options {          /* all zero is a good set; paths are copied */
    const char *hosts_path;        /* NULL: /etc/hosts */
    const char *resolv_conf_path;  /* NULL: /etc/resolv.conf; read again when it changed */
    const struct ip_port *servers; /* instead of those of resolv.conf, when n_servers > 0; copied */
    size_t n_servers;              /* at most RESOLVER_SERVERS_MAX are used */
    uint32_t timeout_ms;           /* of one name, from question to callback; 0: 5,000 */
    uint32_t cache_names;          /* 0: 256; never less */
    uint32_t stale_max_s; /* how old an address may get that is used while its name fails; 0: a day */
    resolver_socket_fn *make_socket; /* NULL: plain sockets */
    void *socket_arg;                /* given to make_socket */
};

/** resolver_new() - Return: 0, -ENOMEM, or -errno of the kernel's random source. Files that are missing are no error. */
int resolver_new(struct loop *l, const struct resolver_options *opt, struct resolver **out);
/* Callbacks of open queries do not run. Not from inside a callback; NULL is fine. */
void resolver_free(struct resolver *r);

/* The result, exactly once unless cancelled. @addrs is borrowed for the call; families alternate, IPv6 first (RFC 8305
 * section 4), at most RESOLVER_ADDRS_MAX. @err 0: n > 0. Otherwise n is 0, and @err is -ENOENT: no such name or no address;
 * -ETIMEDOUT: nobody answered; -EHOSTUNREACH: all name servers failed or refused; -ENETUNREACH: no name server could be
 * asked; or another -errno. Old addresses come with err 0 while a name fails (faults.md S18). */
typedef void resolver_fn(void *arg, int err, const struct ip_addr *addrs, size_t n);

/** resolver_query() - ask for the addresses of @name; an address as text is its own answer
 * @fn:   never runs before this function has returned
 * @out:  for resolver_cancel(), valid until @fn runs; may be NULL
 * Return: 0, then one callback; -EINVAL: no host name (faults.md S10); -ENOMEM; -EAGAIN: too many open questions. Then no callback. */
int resolver_query(struct resolver *r, const char *name, resolver_fn *fn, void *arg,
                   struct resolver_query **out);
void resolver_cancel(struct resolver_query *q); /* @fn will not run; NULL is fine */

/** resolver_set_servers() - ask these from now on, instead of those of the options; n 0: those of resolv.conf */
void resolver_set_servers(struct resolver *r, const struct ip_port *servers, size_t n);

/** resolver_conf_servers() - the name servers that a resolv.conf lists, in order, with port 53 [any]
 * Return: how many, at most @cap; 0: none, or the file cannot be read. */
size_t resolver_conf_servers(const char *path, struct ip_port *out, size_t cap);

struct resolver_counters {
    counter queries;       /* resolver_query() accepted */
    counter cache_hits;    /* answered from hosts, cache or literal, without the wire */
    counter stale_answers; /* old addresses given because the name failed */
    counter failed;        /* callbacks with err != 0 */
    counter sent;          /* messages to name servers, UDP and TCP */
    counter answers;       /* taken */
    counter ignored;       /* wrong id, other question, not an answer (faults.md D3) */
    counter malformed;     /* ours, and broken (faults.md D2) */
    counter truncated;     /* asked again over TCP */
    counter refused;       /* SERVFAIL, REFUSED and the like: next server */
    counter timeouts;      /* one server, one try */
};
void resolver_memory(const struct resolver *r, struct memory_use *add);
const struct resolver_counters *resolver_counters(const struct resolver *r);
extern const struct counter_desc resolver_counter_descs[]; /* ends with name NULL */

/* ---- answering clients: what the `dns` and `hosts` sections say ---------------------------------------------------- */

enum dns_mode { DNS_MODE_OFF, DNS_MODE_REAL, DNS_MODE_FAKE_IP };
enum dns_transport { DNS_OVER_UDP, DNS_OVER_TCP, DNS_OVER_TLS, DNS_OVER_HTTPS };
enum dns_order { DNS_RACE, DNS_IN_ORDER };

#define DNS_HIJACKS_MAX     16
#define DNS_BLOCK_TYPES_MAX 32
#define DNS_HOST_ADDRS_MAX  8
#define DNS_NAMESERVERS_MAX 8 /* of one list */

struct dns_hijack { /* queries to whom are answered here */
    bool tcp;
    struct ip_port to; /* without an address: any */
};
struct dns_nameserver {
    enum dns_transport transport;
    struct host_port at;
    const char *path;         /* of HTTPS; "/dns-query" */
    uint32_t target;          /* the way out: an index of the caller's upstreams */
    struct tls_settings *tls; /* TLS and HTTPS; borrowed from whoever made the settings */
};
struct dns_nameservers {
    const struct dns_nameserver *list;
    size_t n; /* at most DNS_NAMESERVERS_MAX */
};
struct dns_policy {
    const char *pattern; /* of dns_pattern_check(), as all patterns here */
    struct dns_nameservers servers;
};
struct dns_host {
    const char *pattern;
    struct ip_addr addrs[DNS_HOST_ADDRS_MAX];
    size_t n;
};
struct dns_patterns {
    const char *const *list;
    size_t n;
};

struct dns_settings { /* immutable; what it points to belongs to whoever made it */
    enum dns_mode mode;
    struct dns_hijack hijack[DNS_HIJACKS_MAX];
    size_t hijacks;
    struct ip_prefix fake4, fake6;   /* addresses that stand for names */
    struct dns_patterns fake_filter; /* names that keep their real addresses */
    bool fake_store;                 /* they outlive a restart */
    uint32_t cache_names;
    uint32_t queries_per_source; /* a second, of one client address */
    enum dns_order order;
    struct dns_nameservers nameservers;
    const struct dns_policy *policies; /* the first that matches wins */
    size_t n_policies;
    /* For the names of proxies and name servers, asked directly: over TCP, TLS or HTTPS, if there are any; the names of these
     * themselves, or all of them, by the resolver from plain addresses; none: resolv.conf's. */
    struct dns_nameservers proxy_nameservers;
    struct ip_port proxy_servers[RESOLVER_SERVERS_MAX];
    size_t n_proxy_servers;
    uint16_t block_types[DNS_BLOCK_TYPES_MAX];
    size_t n_block_types;
    const struct dns_host *hosts;
    size_t n_hosts;
    struct dns_patterns rebind_allow; /* names whose addresses may be this machine's (faults.md D11) */
};

/* ---- answering clients: a plan, which a reload replaces ---------------------------------------------------------------- */

/* Settings and what their targets mean, immutable and counted. Questions under way hold the one they began with. */
struct dns_plan;

struct dns_plan_setup { /* copied */
    const struct dns_settings *settings;
    struct upstream *const *targets; /* what dns_nameserver.target means; references are taken */
    size_t target_count;
    const char *const *proxy_names; /* host names of proxies */
    size_t proxy_name_count;
};
int dns_plan_new(const struct dns_plan_setup *setup, struct dns_plan **out); /* [any] 0 or -ENOMEM */
struct dns_plan *dns_plan_ref(struct dns_plan *p);                           /* [any] */
void dns_plan_unref(struct dns_plan *p);                                     /* [any] NULL is fine */
const struct dns_settings *dns_plan_settings(const struct dns_plan *p);
/** dns_plan_asks_first() - must @name be known before anything works? (proxies and name servers: proxy-server-nameserver) */
bool dns_plan_asks_first(const struct dns_plan *p, const char *name);

/* ---- answering clients: the service ---------------------------------------------------------------------------------
 *
 * Each worker has one. A question is taken by the worker that the client's flow lives in, and decided by the one that the name's
 * shard of the book belongs to: a message there, a message back. So the cache, the coalescing of equal questions and the fake
 * addresses need no lock, and no two workers ask the same. */

struct name_book; /* culvert/dns.h */
struct dns_service;
struct
    dns_services; /* all of them; lives longer than every worker, since messages may be under way to the end */
int dns_services_new(uint32_t count, struct dns_services **out); /* 0 or -ENOMEM [main] */
void dns_services_free(struct dns_services *all); /* all stopped, all loops freed; NULL is fine [main] */

struct dns_service_setup {
    struct loop *loop;
    struct up_env *env;
    struct dns_plan *plan;       /* a reference is taken */
    struct name_book *book;      /* lives as long as the service, as does all that follows */
    const struct ip_prefix *own; /* the device's own ranges and what must not be an answer (faults.md D11) */
    size_t owns;
};
/** dns_service_start() - service @index of @all at work in @setup->loop. Return: 0, -ENOMEM, -errno of the random source */
int dns_service_start(struct dns_services *all, uint32_t index, const struct dns_service_setup *setup,
                      struct dns_service **out);
/** dns_service_set_plan() - new questions are answered by @p (a reference is taken); what was cached is forgotten; cannot fail
 * The size of the cache stays. */
void dns_service_set_plan(struct dns_service *s, struct dns_plan *p);
void dns_service_memory(const struct dns_service *s, struct memory_use *add);
bool dns_service_trim(struct dns_service *s); /* as slab_trim(), for all that it holds */
/** dns_service_stop() - closes what it has open; open questions are never answered. NULL is fine */
void dns_service_stop(struct dns_service *s);

/* The reply to a query: borrowed for the call. NULL: there is none, say nothing. */
typedef void dns_reply_fn(void *arg, const uint8_t *message, size_t len);
struct dns_ask; /* an open question */
/** dns_service_ask() - a client's query, to be answered
 * @tcp: it came over TCP, so the answer may be long
 * @fn:  once, perhaps before this function returns
 * @out: to cancel; NULL when @fn has run. Return: 0; -EBADMSG no query, -EAGAIN too many of this client or at all: then @fn does
 *       not run, and nothing is to be said. */
int dns_service_ask(struct dns_service *s, const struct ip_addr *client, const uint8_t *message, size_t len,
                    bool tcp, dns_reply_fn *fn, void *arg, struct dns_ask **out);
void dns_service_cancel(struct dns_ask *a); /* @fn will not run; NULL is fine */

/** dns_service_lookup() - real addresses of @name through the configured name servers, for our own dialling
 * As up_env_options.resolve; @fn may run before it returns. Return: 0, -EINVAL, -EAGAIN. */
struct dns_lookup;
int dns_service_lookup(struct dns_service *s, const char *name, up_resolved_fn *fn, void *arg,
                       struct dns_lookup **out);
void dns_service_lookup_cancel(struct dns_lookup *l);

/** dns_service_knows() - may dns_service_lookup() be asked for @name? False: no name servers for it, or a name that they hang on */
bool dns_service_knows(const struct dns_service *s, const char *name);

/* clang-format off */
#define DNS_COUNTERS(X) \
    X(queries, "dns.queries") \
    X(malformed, "dns.malformed") \
    X(limit_source, "dns.limit_source") \
    X(limit, "dns.limit") \
    X(local, "dns.local") \
    X(blocked, "dns.blocked") \
    X(fake, "dns.fake") \
    X(fake_full, "dns.fake_full") \
    X(cache_hits, "dns.cache_hits") \
    X(stale, "dns.stale") \
    X(coalesced, "dns.coalesced") \
    X(asked, "dns.asked") \
    X(sent, "dns.sent") \
    X(connections, "dns.connections") \
    X(answers, "dns.answers") \
    X(ignored, "dns.ignored") \
    X(bad_answers, "dns.bad_answers") \
    X(truncated, "dns.truncated") \
    X(refused, "dns.refused") \
    X(repeated, "dns.repeated") \
    X(rebind, "dns.rebind") \
    X(failed, "dns.failed")
/* clang-format on */
struct dns_counters {
#define DNS_COUNTER_MEMBER(member, name) counter member;
    DNS_COUNTERS(DNS_COUNTER_MEMBER)
#undef DNS_COUNTER_MEMBER
};
const struct dns_counters *dns_counters(const struct dns_service *s);
extern const struct counter_desc dns_counter_descs[]; /* ends with name NULL */

#endif
