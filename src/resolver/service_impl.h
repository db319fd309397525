/* service_impl.h - the parts of the service that answers clients; private to src/resolver.
 *
 *     ask   a client's question, from taking it to its reply; it may travel to another worker and back
 *     job   one question to name servers, with all asks that wait for it
 *     try   a job's question to one server, over UDP or a stream
 *     assoc a way to servers over UDP, shared by tries through a proxy
 *     conn  a stream (TCP, TLS) to one server, shared by tries (RFC 7766 section 6.2.1)
 *
 * What always holds: a job that is done stays in memory until its timer runs, so no callback of a try finds it gone. */
#ifndef SERVICE_IMPL_H
#define SERVICE_IMPL_H

#include <stdatomic.h>
#include <stddef.h>

#include "culvert/dns.h"
#include "culvert/resolver.h"

#define SERVICE_ASKS_MAX  4096 /* open at a time, of one worker's clients */
#define SERVICE_JOBS_MAX  512
#define JOB_BUCKETS       256
#define REPLY_ROOM        1232
#define SERVICE_QUERY_MAX (2 + DNS_HEADER_LEN + 255 + 4 + 11) /* length, header, name, type and class, OPT */
#define LIMIT_PLACES      4096

struct dns_job;
struct dns_conn;

struct dns_ask {
    void *free_link; /* the slab's, while free */
    struct loop_msg msg;
    struct dns_service *home, *owner;
    struct dns_ask *next; /* of its job */
    struct dns_job *job;
    dns_reply_fn *fn;
    void *arg;
    bool cancelled, away, internal;
    bool plain;  /* the name is one that a host can have */
    bool *ended; /* set when it is over; NULL: nobody asks */
    uint32_t most_bytes;
    struct dns_query query;
    char name[256]; /* of the question, normalised */
    uint8_t *reply; /* room, or malloc'ed; NULL: none */
    size_t reply_len;
    uint8_t room[REPLY_ROOM];
};

/* ---- plan.c ---- */

struct block;
struct dns_plan {
    atomic_uint refs;
    struct dns_settings settings;
    struct upstream **targets;
    size_t target_count;
    struct dns_patterns proxies; /* names */
    struct block *blocks;
    bool broken; /* memory was out while it was made */
};

/** dns_plan_bootstraps() - is @name asked of the proxy_nameservers, before anything works? */
bool dns_plan_bootstraps(const struct dns_plan *p, const char *name);
/** dns_plan_servers() - who is asked for @name; there may be none */
const struct dns_nameservers *dns_plan_servers(const struct dns_plan *p, const char *name);

/* ---- answer_cache.c ---- */

struct answer_key {
    const char *name; /* normalised */
    uint16_t type;
    uint8_t flags; /* DNS_Q_DO, DNS_Q_CD */
};
struct kept_answer {
    struct kept_answer *chain, *older, *newer;
    uint64_t hash;
    uint64_t came_us, expires_us;
    uint16_t type, additionals, len;
    uint8_t flags, name_len;
    bool positive;   /* worth serving stale */
    uint8_t bytes[]; /* the message, then the name */
};
struct answer_cache {
    struct hash_key key;
    struct kept_answer **buckets, *oldest, *newest;
    size_t bucket_count, count, cap, bytes; /* bytes: of the answers */
};
#define STALE_MAX_US UINT64_C(3600000000) /* faults.md D7 */
int answer_cache_init(struct answer_cache *c, size_t cap);
void answer_cache_fini(struct answer_cache *c);
void answer_cache_clear(struct answer_cache *c);
struct kept_answer *answer_cache_find(struct answer_cache *c, const struct answer_key *k);
void answer_cache_put(struct answer_cache *c, const struct answer_key *k, struct span message,
                      const struct dns_relay *relay, uint64_t now_us);

/* ---- job.c ---- */

enum try_state { TRY_IDLE, TRY_UDP, TRY_STREAM, TRY_DEAD };
struct dns_try {
    struct dns_job *job;
    const struct dns_nameserver *server;
    enum try_state state;
    uint16_t id;
    bool repeated, no_edns;
    struct dns_assoc *assoc; /* over UDP */
    struct dns_try *assoc_next;
    struct dns_conn *conn;
    struct h2_stream *request; /* over HTTPS: on its way */
    uint8_t *body;             /* of the response, as far as it came */
    size_t body_len, body_cap;
    uint32_t age_s;            /* how long the answer has waited in caches of HTTP */
    struct dns_try *conn_next; /* of its connection */
    size_t query_len;          /* with TCP's length in front */
    uint8_t query[SERVICE_QUERY_MAX];
};
struct dns_job {
    void *free_link;
    struct dns_service *s;
    struct dns_job *chain, *next_all, **link_all;
    struct dns_ask *waiting;
    char name[256];
    struct dns_question question;
    uint8_t flags;
    bool done, stale_served;
    struct dns_plan *plan; /* a reference */
    struct wheel_timer timer;
    uint64_t started_us;
    unsigned ticks, started_tries, tick_of_try;
    size_t n_tries;
    struct dns_try tries[DNS_NAMESERVERS_MAX];
};
void job_join(struct dns_service *s, struct dns_ask *a); /* ask name servers, or wait with those who did */
void job_leave(struct dns_ask *a);
void jobs_close(struct dns_service *s);
void try_message(struct dns_try *t, const uint8_t *data, size_t len);
void try_failed(struct dns_try *t);
void try_over_stream(struct dns_try *t); /* UDP is not enough, or cannot be had */

/* ---- datagram.c ---- */

/** datagram_ask() - send it over UDP when there is an association; 0; -EOPNOTSUPP: its way out has none; or -errno */
int datagram_ask(struct dns_try *t);
void datagram_send(struct dns_try *t); /* once more, if it was sent */
void datagram_leave(struct dns_try *t);
void datagrams_close(struct dns_service *s);

/* ---- stream.c ---- */

int stream_ask(struct dns_try *t); /* send it over the server's connection, made if need be; 0 or -errno */
void stream_leave(struct dns_try *t);
void streams_close(struct dns_service *s);
void streams_forget(struct dns_service *s); /* TLS sessions of plans that nobody goes by any more */

struct dns_conn {
    struct dns_conn *next;
    struct dns_service *s;
    struct dns_plan *plan; /* a reference; `server` is of it */
    const struct dns_nameserver *server;
    struct up_stream *up; /* NULL: it is gone */
    struct tls *tls;      /* NULL: plain */
    struct h2 *h2;        /* over HTTPS, once the session is there */
    bool open;            /* the stream is; with TLS not yet the session */
    bool ready;           /* questions may leave */
    bool leaving;         /* it takes no more questions */
    struct dns_try *tries;
    struct wheel_timer timer; /* TLS wants a turn, or nothing has been asked for long */
    uint64_t idle_us;         /* without a question it closes then */
    uint64_t unheard_us;      /* since when a question waits and nothing comes; 0: none does */
    uint8_t *out, *in;
    size_t out_len, out_cap, in_len, in_cap;
};
void stream_end(struct dns_conn *c);   /* it broke: its questions are asked once more elsewhere, or fail */
void stream_heard(struct dns_conn *c); /* something came from its server */

/* ---- https.c ---- */

bool https_start(struct dns_conn *c);       /* its TLS session is there. Return: false: it speaks no HTTP/2 */
void https_ask_waiting(struct dns_conn *c); /* as many as it has room for */
void https_leave(struct dns_try *t);

/* ---- service.c ---- */

struct limit_place {
    struct ip_addr addr;
    uint32_t second, used;
};
struct dns_server_tls { /* one for each name server that is asked over TLS */
    struct dns_server_tls *next;
    struct dns_plan *plan; /* a reference; `server` is of it */
    const struct dns_nameserver *server;
    struct tls_context *context;
};
struct dns_service {
    struct dns_services *all;
    uint32_t index;
    bool running;
    struct loop *loop;
    struct up_env *env;
    struct wheel *wheel;
    struct dns_plan *plan;               /* a reference */
    const struct dns_settings *settings; /* of it */
    struct name_book *book;
    const struct ip_prefix *own;
    size_t owns;
    struct slab asks, jobs;
    struct dns_job *buckets[JOB_BUCKETS], *all_jobs;
    struct dns_conn *conns;
    struct dns_assoc *assocs, *assocs_alone; /* shared by questions; for one each */
    struct tls_worker *tls;
    struct dns_server_tls *tls_contexts;
    struct answer_cache cache;
    struct hash_key key;
    struct limit_place *limits;
    struct dns_counters cnt;
};
struct dns_services {
    uint32_t count;
    struct dns_service each[];
};
#define DCOUNT(s, member) counter_add(&(s)->cnt.member, 1)

/* A finished ask's way back to its client; it is gone then. */
void ask_reply(struct dns_ask *a, enum dns_rcode rcode, const struct dns_record *records, size_t n);
void ask_reply_relay(struct dns_ask *a, struct span stored, uint16_t additionals, uint32_t age_s, bool stale);
struct dns_ask *ask_new(struct dns_service *s, dns_reply_fn *fn, void *arg);
void ask_start(struct dns_ask *a); /* its query and name are there */

#endif
