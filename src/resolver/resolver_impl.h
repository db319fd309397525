/* resolver_impl.h - the parts of one resolver; private to src/resolver.
 *
 *     query    what a caller waits for; many may wait for one name
 *     lookup   one name being asked; lives while a family is still open, even if all callers were served
 *     ask      one family (A or AAAA) of a lookup, tried over the name servers in turn
 *     exchange one ask with one server: a UDP socket, and a TCP connection if the answer was cut
 *     cached   what is known of a name, fresh or old
 *
 * What always holds: callbacks of sockets only change their ask and wake the resolver's one timer; answers are handed
 * out, and lookups end, in resolver_run() alone. So no socket callback ever finds its own memory gone. */
#ifndef RESOLVER_IMPL_H
#define RESOLVER_IMPL_H

#include "culvert/dns.h"
#include "culvert/resolver.h"

#define DNS_PORT         53
#define FAMILIES         2
#define FAMILY_ADDRS_MAX 8   /* of one family kept for a name; twice this is RESOLVER_ADDRS_MAX */
#define LOOKUPS_MAX      128 /* names asked at once; each has 2 to 6 sockets */
#define QUERY_BYTES_MAX  300 /* length of TCP, header, longest name, type, class and EDNS */
#define NEVER            UINT64_MAX

enum family { FAMILY_V6, FAMILY_V4 }; /* in the order of preference */

/* ---- conf.c: the two files ---- */

struct name_server {
    struct ip_port at;
    uint32_t scope_id; /* of a link-local address, else 0 */
};

struct resolv_conf {
    struct name_server servers[RESOLVER_SERVERS_MAX];
    size_t n_servers;
    uint32_t timeout_ms, attempts; /* `options`; within sane bounds */
};

/* Reads the text of a resolv.conf (resolv.conf(5)); what it does not say gets its default, the servers none. */
void resolv_conf_parse(const char *text, size_t len, struct resolv_conf *out);
/* The addresses of @name (normalised) in the text of a hosts file (hosts(5)), in its order. Return: how many, up to @cap */
size_t hosts_find(const char *text, size_t len, const char *name, struct ip_addr *out, size_t cap);

/* A small file that is read again when it changed; its text is "" while it cannot be read. */
struct watched_file {
    char *path;
    char *text; /* not terminated; NULL: empty */
    size_t len;
    uint64_t checked_us;     /* last look at the folder; 0: never */
    int64_t changed_s, size; /* what identified the text that we have */
    long changed_ns;
    uint64_t inode;
};
int watched_file_init(struct watched_file *f,
                      const char *path); /* 0 or -ENOMEM; fini is safe on zeroed memory */
void watched_file_fini(struct watched_file *f);
bool watched_file_refresh(struct watched_file *f,
                          uint64_t now_us); /* looks once a second; true: the text is new */

/* ---- cache.c: what is known ---- */

struct lookup;

struct cached_family {
    struct ip_addr addrs[FAMILY_ADDRS_MAX];
    uint8_t n;                /* 0: never had any */
    uint64_t learned_us;      /* when the addresses came */
    uint64_t expires_us;      /* until then they are fresh, after that old */
    uint64_t empty_until_us;  /* the servers said: none; holds that long */
    uint64_t failed_until_us; /* no server said anything: not asked again before */
};

struct cached_name {
    char name[256];
    uint64_t used_us;
    struct lookup *lookup; /* being asked right now; such an entry is never thrown out */
    struct cached_family family[FAMILIES];
};

struct cache {
    struct hash_key key;
    uint64_t *hashes; /* of names[i], beside them so that a search touches little memory */
    struct cached_name *names;
    size_t n, cap;
};
int cache_init(struct cache *c, size_t cap);
void cache_fini(struct cache *c);
struct cached_name *cache_find(struct cache *c, const char *name);
struct cached_name *cache_make(struct cache *c,
                               const char *name); /* the least used one goes; NULL: all are being asked */

void cached_put_addrs(struct cached_family *f, const struct ip_addr *addrs, size_t n, uint32_t ttl_s,
                      uint64_t now_us);
void cached_put_empty(struct cached_family *f, uint32_t ttl_s, uint64_t now_us);
bool cached_is_fresh(const struct cached_family *f, uint64_t now_us);
bool cached_is_known(const struct cached_family *f,
                     uint64_t now_us); /* fresh, empty or failed: no reason to ask */
/* Fresh addresses of both families, alternating, IPv6 first; or the old ones, if at most @stale_max_us old. */
size_t cached_addrs(const struct cached_name *c, bool stale, uint64_t stale_max_us, uint64_t now_us,
                    struct ip_addr out[RESOLVER_ADDRS_MAX]);

/* ---- ask.c: one question to the name servers ---- */

struct ask;

struct exchange {
    struct ask *ask;
    struct name_server server;
    bool dead;    /* it refused, broke or could not be reached: not asked again */
    bool no_edns; /* it did not understand EDNS */
    bool connecting;
    uint16_t id;
    int udp_fd, tcp_fd; /* -1: none */
    struct loop_io udp_io, tcp_io;
    uint8_t query[QUERY_BYTES_MAX]; /* TCP's length, then the message */
    size_t query_len, tcp_sent;
    uint8_t answer_len[2]; /* of TCP */
    size_t tcp_received;   /* counted from the length's first byte */
    uint8_t *tcp_answer;
};

struct ask {
    struct resolver *r;
    struct dns_question question;
    struct exchange exchanges[RESOLVER_SERVERS_MAX];
    size_t n_exchanges;
    struct exchange *current; /* the one whose turn it is */
    unsigned tries, tries_max;
    uint64_t try_us;      /* how long one try may take */
    uint64_t next_us;     /* when the current try is given up */
    uint64_t deadline_us; /* when everything is */
    int socket_err;       /* the last -errno of a socket; reached is false if there was nothing else */
    bool reached;         /* some server has said something */
    bool done;
    int err;                  /* when done: 0 and answer is set, or -errno */
    struct dns_answer answer; /* NOERROR or NXDOMAIN */
};
void ask_init(struct ask *a, struct resolver *r, const struct dns_question *q, uint64_t now_us,
              uint64_t deadline_us);
void ask_run(struct ask *a,
             uint64_t now_us); /* the next try if it is due; call again at next_us, unless done */
void ask_fini(struct ask *a);  /* zeroed is fine */

/* ---- resolver.c ---- */

struct resolver_query {
    struct resolver_query *next, **link; /* in a lookup's list, or in the resolver's list of answered ones */
    struct resolver *r;
    resolver_fn *fn;
    void *arg;
    int err; /* when answered */
    size_t n;
    struct ip_addr addrs[RESOLVER_ADDRS_MAX];
};

struct lookup {
    struct lookup *next, **link;
    struct cached_name *name;
    struct resolver_query *waiting;
    uint64_t started_us;
    uint64_t addrs_at_us; /* when the first family had addresses; 0: none has */
    struct ask asks[FAMILIES];
    bool asked[FAMILIES];  /* a family that is known is not asked */
    bool stored[FAMILIES]; /* its result is in the cache */
};

struct resolver {
    struct loop *loop;
    struct loop_timer timer; /* the only one: resolver_run() */
    uint64_t wake_us;        /* when it fires; NEVER: it is off */
    struct watched_file hosts, conf_file;
    struct resolv_conf conf;
    bool fixed_servers; /* the options' ones: conf_file does not name any */
    uint64_t timeout_us, stale_max_us;
    resolver_socket_fn *make_socket;
    void *socket_arg;
    struct cache cache;
    struct lookup *lookups;
    size_t n_lookups;
    struct resolver_query *answered; /* their callbacks run in the next resolver_run() */
    struct resolver_query **answered_end;
    struct resolver_counters counters;
};

void resolver_wake_at(struct resolver *r, uint64_t us); /* run no later than then */

#endif
