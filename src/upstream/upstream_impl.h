/* upstream_impl.h - the inside of a way out, and of a worker's surroundings for it; shared by the files of this folder.
 *
 * Who is who
 *     upstream     what the configuration says; immutable, shared by all workers
 *     up_memory    what this worker has learned about one upstream: health, last good address, "no UDP here"
 *     up_env       one a worker: pools, receive buffers, memories
 *     group_live   what it has learned about the members of a group (group_live.c; the choice itself is group.c)
 *     dial         racing TCP connects to one host (dial.c)
 *     handshake    a dial, then TLS, then what the proxy speaks; ends in a descriptor or a failure (handshake.c)
 *     talk         what is said to the proxy: SOCKS5, SOCKS4 or HTTP, without I/O (talk.h)
 *     secure       TLS around a connection, from the handshake into the stream (secure.c)
 *     up_stream    80 bytes for each open stream; the handshake is a separate object that is given back when it is open
 *     up_udp       an association (udp.c) */
#ifndef CULVERT_UPSTREAM_IMPL_H
#define CULVERT_UPSTREAM_IMPL_H

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "culvert/upstream.h"
#include "group_live.h"
#include "talk.h"

#define SECOND_US UINT64_C(1000000)

/* ---- the configured way out ----------------------------------------------------------------------------------- */

struct upstream {
    atomic_uint refs;
    atomic_uint memories; /* of the refs, those of workers that only remember it (env.c) */
    uint64_t mark;        /* of all that its options say, and those that it names */
    enum upstream_kind kind;
    enum upstream_udp udp;
    enum upstream_pipelining pipelining;
    bool fast_open;
    uint32_t pool;
    const char *name;
    struct host_port server; /* a name is normalised and lives in text */
    struct socks5_login login;
    const char *token;        /* NULL: none */
    struct tls_settings *tls; /* NULL: plain; one reference */
    const char *tls_name;
    uint32_t half_close_delay_ms;
    uint32_t routing_mark;
    char interface_name[16];
    struct ip_prefix *allow; /* in text; NULL: all */
    size_t allows;
    bool public_only;
    struct upstream *dialer; /* the server is reached through it; NULL: by a socket of ours; one reference */
    const char *head_path;   /* a group's test: what is asked for at `server`, through `dialer` */
    struct group_options group; /* kind UPSTREAM_GROUP; its lists are below */
    struct upstream **members;  /* one reference each */
    struct upstream **tests;    /* the same for each member's test by url; NULL: without url */
    size_t bytes;               /* of all of this */
    _Alignas(8) char text[];    /* the prefixes, then names and secrets */
};

/* ---- mark.c ---- */
uint64_t upstream_mark(const struct upstream_options *opt); /* without those that it names */
uint64_t upstream_mark_with(uint64_t mark, const struct upstream *named);

/** upstream_is_proxy() - is there a server of ours between us and the target? */
static inline bool upstream_is_proxy(const struct upstream *up)
{
    return up->kind != UPSTREAM_DIRECT && up->kind != UPSTREAM_REJECT && up->kind != UPSTREAM_REJECT_DROP;
}
/** upstream_allows() - may it dial this destination? @own: addresses of this host */
bool upstream_allows(const struct upstream *up, const struct ip_addr *dst, const struct ip_addr *own,
                     size_t owns);

/* ---- failures ------------------------------------------------------------------------------------------------------ */

void up_fail(struct up_failure *f, int err, const char *stage, bool proxy_fault, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- what a worker remembers of an upstream ----------------------------------------------------------------------- */

enum { UP_ADDRS_MAX = 8 }; /* addresses of one name that we try */

struct probe;
struct masque; /* masque.h */
struct masque_stream;
struct masque_udp;

struct up_memory {
    struct up_memory *next; /* of its bucket */
    struct up_env *env;
    struct upstream *up; /* one reference */
    struct up_health health;
    uint64_t bad_until_us;    /* a refused login: openings fail at once (faults.md S6) */
    uint64_t no_udp_until_us; /* faults.md U6 */
    uint64_t no_ip6_until_us; /* IPv6 lost a race against IPv4: it goes second */
    uint64_t far_until_us;    /* connect() returned before the server had answered */
    struct ip_addr last_good; /* address of the server that answered last; none */
    struct ip_addr addrs[UP_ADDRS_MAX];
    uint8_t addr_count;  /* the server's name as it was last answered, for when it fails (faults.md S18) */
    struct pooled *pool; /* newest first; pool.c */
    struct wheel_timer pool_timer;
    uint64_t pool_wanted_us; /* the latest flow that was opened */
    uint32_t pooled;
    uint64_t no_pipelining_until_us; /* pipeline.c */
    bool pipelining_tried;           /* a handshake is on trial */
    bool pipelining_proved;
    uint8_t reply_len; /* talk_expect(); 0: nothing known */
    char bad_why[120];
    struct tls_context *tls; /* sessions to resume; NULL until the first dial */
    struct probe *probe;     /* running; NULL: none */
    struct group_live *live; /* of a group, from its first use on */
    struct masque *masque;   /* the connection that all share; NULL: none yet */
    uint32_t users;          /* handshakes, streams and associations that point here */
    uint32_t unguarded;      /* dials of it that are not in own_flows; each until dial_cancel() */
};

void up_memory_good(struct up_env *env, struct up_memory *m);
void up_memory_bad(struct up_env *env, struct up_memory *m);
void up_memory_rtt(struct up_memory *m, uint64_t rtt_us);

/* ---- a worker's surroundings ----------------------------------------------------------------------------------------- */

enum {
    MEMORY_BUCKETS = 64,
    RX_BYTES = 65536,      /* room for each: the largest datagram and the largest row */
    NO_GUARD = UINT32_MAX, /* not in own_flows */
    OWNERS_MAX = 16,       /* kinds of owners that streams have */
};

struct udp_rx; /* udp_io.c */

struct up_env {
    struct up_env_options opt;
    struct up_socket_rules no_rules; /* for a caller without any */
    uint32_t rules_number; /* grows with each new set: memory of an old one may come back as a new one */
    struct up_memory *memories[MEMORY_BUCKETS];
    struct slab tunnels; /* udp_in_tcp.c */
    struct slab pooled, streams, handshakes, udps, probes, names, held, secures;
    struct slab masque_streams, masque_udps, masque_targets;
    struct tls_worker *tls; /* NULL until the first dial with TLS */
    struct udp_rx *rx;
    const struct up_stream_events
        *owners[OWNERS_MAX]; /* one for each kind: an idle stream keeps a number, no pointer */
    const struct up_echo_events *echo_events; /* NULL: nobody listens */
    void *echo_arg;
    uint8_t *masque_scratch;  /* one capsule; NULL until the first association through MASQUE */
    struct up_stream *broken; /* streams whose error is to be told, newest first */
    struct wheel_timer broken_timer;
    /* What is being called back right now; set to NULL by its close, so that the caller notices. One level: callbacks of
     * one object never run inside callbacks of another. */
    const void *running;
    struct ip_addr client;   /* up_env_set_client() */
    uint64_t local_at_us[2]; /* when our own address was looked up, by family; see socket_note_local() */
    bool warned_mark, warned_bind, no_gso;
    struct up_counters cnt;
};

#define UP_COUNT(env, member) counter_add(&(env)->cnt.member, 1)

static inline uint64_t env_now_us(const struct up_env *env)
{
    return loop_now_us(env->opt.loop);
}
/** env_memory() - this worker's memory of @up, made at its first use. NULL: no memory
 * Whoever keeps the pointer counts itself in ->users: memories of upstreams that nobody else holds are swept. */
struct up_memory *env_memory(struct up_env *env, struct upstream *up);

/* ---- sockets (socket.c) ------------------------------------------------------------------------------------------------- */

/** socket_open() - as up_socket(), but not bound to a device when @connected is false: then see socket_ifindex() */
int socket_open(struct up_env *env, const struct upstream *up, int type, const struct ip_port *dst,
                bool connected);
void socket_tune(int fd);      /* TCP: for a stream that goes on */
void socket_fast_open(int fd); /* before connect(): what is sent first leaves with the SYN (RFC 7413) */
/** socket_check() - may @dst be dialled? Return: 0, -ELOOP, -EACCES */
int socket_check(struct up_env *env, const struct upstream *up, const struct ip_port *dst);
/** socket_ifindex() - the interface that a datagram to @dst must leave by; 0: any */
int socket_ifindex(const struct up_env *env, const struct ip_addr *dst);
/** socket_guard() - enter a connected socket into own_flows. Return: what own_flows_remove() wants; NO_GUARD */
uint32_t socket_guard(struct up_env *env, int fd, uint8_t proto, const struct ip_port *dst);
void socket_close(struct up_env *env, int fd, uint32_t guard); /* fd -1 is fine */
/** socket_guard_udp() - the same for a socket that is not connected and has a port by now */
uint32_t socket_guard_udp(struct up_env *env, int fd, bool v6);
/** socket_note_local() - look up which address of ours datagrams to @dst leave from; at most once a second, for own_flows */
void socket_note_local(struct up_env *env, const struct upstream *up, const struct ip_port *dst);

uint32_t own_flows_add(struct own_flows *o, const struct flow_key *flow);
void own_flows_remove(struct own_flows *o, uint32_t where); /* NO_GUARD is fine */
/* An unconnected UDP socket: any packet from this port and one of our addresses is ours. */
uint32_t own_flows_add_udp(struct own_flows *o, uint16_t port, bool v6);
void own_flows_add_local(struct own_flows *o, const struct ip_addr *addr);

/** up_has_no_udp() - is it known that no datagrams go this way? For a group only what holds for all of it */
bool up_has_no_udp(const struct up_env *env, const struct up_memory *m);

/* ---- dialling (dial.c) ------------------------------------------------------------------------------------------------------ */

struct dial;
/* @fd: the caller's now, or -1 and @err says why; @peer: who answered, or the last that did not (none: no address) */
typedef void dial_fn(struct dial *d, int fd, uint32_t guard, int err);

struct attempt {
    struct loop_io io;
    uint64_t started_us;
    uint32_t guard;
    uint8_t index; /* in dial->attempts and dial->addrs */
    bool active;
};

struct dial {
    struct up_env *env;
    struct up_memory *memory;
    dial_fn *fn;
    struct wheel_timer next_timer; /* the next address gets its turn */
    struct up_resolve *query;
    struct ip_addr addrs[UP_ADDRS_MAX];
    struct attempt attempts[UP_ADDRS_MAX];
    struct ip_port peer;
    uint8_t addr_count, tried, active;
    uint16_t port;
    int err;        /* the most telling one so far */
    int early_fd;   /* for dial_take(); -1: none */
    bool is_server; /* the upstream's own server: its addresses are remembered */
    bool starting;  /* inside dial_start(): failures are its return value */
    bool fast;      /* the SYN may wait for what is sent first: the winner has not answered yet */
    bool unasked;   /* the winner may have failed: whoever sends first learns */
    bool unguarded; /* counted in memory->unguarded */
    bool resolving;
};

/* How to dial: our own server; whoever gets the connection sends at once, so an error may as well be told by that */
enum { DIAL_SERVER = 1, DIAL_UNASKED = 2 };

/** dial_start() - connect to @dst, its addresses in turn, 250 ms apart (RFC 8305)
 * @known: of @dst's name: it is not looked up; NULL: it is. Return: 0, then dial_take() has it or there is one call of @fn, later; or -errno and no call. */
int dial_start(struct dial *d, struct up_env *env, struct up_memory *m, const struct host_port *dst,
               const struct up_known *known, unsigned how, dial_fn *fn);
/** dial_take() - right after dial_start(): the descriptor of a connection that nobody needs to wait for
 * The first send tells: it works, or it would block and the connection is not there yet, or the dial has failed. A server next to
 * us has answered before connect() returns, so that nearly always it works. @guard: set, the caller's with the descriptor
 * Return: the descriptor; -1: @fn will be called */
int dial_take(struct dial *d, uint32_t *guard);
void dial_noted(struct dial *d, bool there); /* what the first send said of one that was taken */
void dial_cancel(struct dial *d); /* after dial_start(), finished or not, when what was dialled for is over */
/** dial_order() - the order of attempts: @first if it is among them, then the families by turns
 * @ip6_second: IPv4 opens the round */
void dial_order(struct ip_addr *addrs, size_t n, const struct ip_addr *first, bool ip6_second);

/* ---- handshakes (handshake.c) -------------------------------------------------------------------------------------------- */

struct handshake_result {
    int fd; /* the receiver's now; -1: failed, see why */
    uint32_t guard;
    struct secure *secure; /* TLS around fd: the receiver's too; NULL: plain */
    struct ip_port bound, peer;
    /* a stream of HTTP/2 instead of fd, and around it `secure`: the receiver's too */
    struct masque_stream *masque;
    struct up_memory *memory; /* of the way out that was taken: a member, if a group was asked */
    /* NULL, and neither fd nor masque: a group's member that needs no handshake for this goal */
    const struct up_failure *why;
};
/* The handshake is gone when this runs. */
typedef void handshake_fn(void *arg, const struct handshake_result *result);
/** handshake_result_close() - the receiver has no use for it */
void handshake_result_close(struct up_env *env, const struct handshake_result *result);

struct handshake {
    struct up_env *env;
    struct up_memory *memory;
    handshake_fn *fn;
    void *arg;
    struct wheel_timer deadline; /* of this try, or the end of our patience (pipeline.c) */
    uint64_t deadline_us;        /* of this try ... */
    uint64_t whole_us;           /* ... and of all */
    struct dial dial;
    struct handshake *via; /* with the way out that leads to our server; NULL: we dial, or it is done */
    uint64_t started_us;
    struct up_memory *group; /* that was asked; NULL: none. Then: */
    struct group_try tries[GROUP_TRIES_MAX];
    uint8_t try_count, try_at;
    enum socks5_goal goal;
    struct host_port target; /* as checked; its name is target_name */
    bool is_known;           /* by the caller: its addresses are these */
    uint8_t known_count;
    int known_err;
    struct ip_addr known[UP_ADDRS_MAX];
    struct loop_io io; /* the winner's descriptor */
    uint32_t guard;
    struct masque_stream *hop; /* the hop before ours is a stream of HTTP/2: it carries us instead of io */
    bool connected;            /* io, or hop, is ours */
    bool failed;               /* before handshake_open() returned: told by the deadline timer */
    bool talking;              /* the dial, and TLS if any, are through */
    bool pooled;               /* the connection is one that was dialled ahead */
    bool early;                /* dial_take(): the first send tells whether it is there */
    bool beginning;            /* nobody may be called */
    bool stale;                /* such a one was dead: take no other */
    bool pipelined, on_trial;  /* pipeline.c */
    uint64_t doubted_us;       /* when it started over for being pipelined; 0: it did not */
    bool idle;                 /* nothing is to be done: succeeds at once */
    int start_err;             /* of the latest try */
    struct up_failure why;
    struct secure *below;         /* TLS of a hop before this one; ours goes into it */
    struct secure *secure;        /* what is spoken through; NULL: plain */
    struct masque_stream *masque; /* this try goes through HTTP/2 instead of all that */
    struct talk talk;
    uint16_t in_len, out_len, out_off;
    uint16_t peeked; /* bytes of `in` that are still in the socket */
    uint8_t in[TALK_IN_MAX];
    uint8_t out[TALK_OUT_MAX];
    char target_name[256];
};

/* ---- which way (way.c) ---- */

/** way_choose() - what was asked for becomes ->memory, or a member of it does. Return: 0; as group_tries() */
int way_choose(struct handshake *h, struct up_memory *m);
/** way_check() - what stands in the way before anything is dialled; sets ->idle. Return: 0, or -errno and ->why */
int way_check(struct handshake *h);
/** way_next() - the next member and its share of the time. Return: there is one */
bool way_next(struct handshake *h);
void way_note(struct handshake *h, bool good); /* counts for its health, and for the group that chose it */
void way_leave(struct handshake *h);
/** way_start_dial() - dial our server, or without one the target. Return: as dial_start() */
int way_start_dial(struct handshake *h, dial_fn *fn);
/** way_start_via() - open the hop before ours. Return: as handshake_open() */
int way_start_via(struct handshake *h, handshake_fn *fn);
void way_why_via(struct handshake *h, const struct up_failure *why); /* names the hop (faults.md S22) */

/* ---- dialled ahead (pool.c) ---- */

/* One connection, greeted and logged in, or on its way there. */
struct pooled {
    struct pooled *next; /* of its memory */
    struct up_memory *memory;
    struct handshake *handshake; /* NULL: ready */
    struct loop_io io;
    struct masque_stream *hop; /* instead of io */
    struct secure *secure;     /* NULL: plain */
    struct wheel_timer timer;
    struct ip_port peer;
    uint32_t guard;
};
void pool_want(struct up_memory *m); /* a flow was opened: soon the pool is full again */
/** pool_take() - one that is alive, as a handshake would have made it; the caller's. Return: there is one */
bool pool_take(struct up_memory *m, struct handshake_result *out);
void pool_drop_all(struct up_memory *m);

/* ---- all at once? (pipeline.c) ---- */

/** pipeline_begin() - may this handshake say all at once? Then ->pipelined is set; pipeline_end() when it is over */
bool pipeline_begin(struct handshake *h);
/** pipeline_wait() - all has been said: from now on the answer of a server on trial may take its time, then on_deadline() doubts it */
void pipeline_wait(struct handshake *h);
void pipeline_doubt(struct handshake *h);    /* no answer to a pipelined request: it goes on step by step */
void pipeline_silent(struct handshake *h);   /* its time is over; perhaps the target's fault */
void pipeline_answered(struct handshake *h); /* there is an answer to the request, whatever it says */
void pipeline_end(struct handshake *h);

/** handshake_goal() - what is asked of this way out: an association over TCP has a command of its own */
enum socks5_goal handshake_goal(const struct handshake *h);
/** handshake_open() - reach @target through the memory's upstream; @target NULL: its server only
 * @known: as up_stream_open_known()
 * Return: 0, then @fn once, later; -EMFILE, -ENOMEM, -EINVAL: no call. */
int handshake_open(struct up_env *env, struct up_memory *m, enum socks5_goal goal,
                   const struct host_port *target, const struct up_known *known, uint64_t timeout_us,
                   handshake_fn *fn, void *arg, struct handshake **out);
void handshake_cancel(struct handshake *h); /* NULL is fine */
const char *handshake_stage(const struct handshake *h);
struct up_memory *handshake_memory(const struct handshake *h); /* of the way out that is tried */

/* What h->why shall say (handshake_why.c). */
void handshake_why_dial(struct handshake *h, int err);
void handshake_why_login(struct handshake *h); /* refused a moment ago: not asked again */
void handshake_why_talk(struct handshake *h);
void handshake_why_tls(struct handshake *h);
void handshake_why_timeout(struct handshake *h);

/* ---- streams (stream.c), probes (probe.c) ------------------------------------------------------------------------------------ */

enum stream_state {
    STREAM_OPENING,
    STREAM_OPEN,
    STREAM_BROKEN, /* open, in env->broken: on_closed comes */
    STREAM_DEAD,   /* on_closed is running */
};

struct up_stream {
    struct loop_io io; /* started when open */
    struct up_memory *memory;
    void *arg;
    union {
        struct handshake *handshake;   /* OPENING */
        struct secure *secure;         /* OPEN, with is_secure */
        struct masque_stream *masque;  /* OPEN, with is_masque */
        struct up_stream *next_broken; /* BROKEN; TLS is gone then */
    };
    uint32_t guard;
    uint8_t state;        /* enum stream_state */
    uint8_t sends;        /* 0, 1, or 2 for more */
    uint8_t owner;        /* whose events: index into env->owners */
    bool shut : 1;        /* our FIN is out */
    bool send_failed : 1; /* so the end of what arrives is no FIN */
    bool is_secure : 1;
    bool is_masque : 1;   /* no socket of its own */
    bool over_masque : 1; /* nor here: with is_secure, TLS goes through a stream of HTTP/2 */
};
static_assert(sizeof(void *) != 8 || sizeof(struct up_stream) <= 80, "an idle stream is cheap (PERF-9)");

/* TLS around one connection: first a handshake's, then a stream's. In a chain there may be several, one inside the other:
 * only the innermost, on top, has an owner; those below are its way to the socket. */
struct secure {
    struct tls *tls;
    struct secure *below; /* ours to free; NULL: the socket */
    struct up_env *env;
    int fd;
    struct masque_stream *hop; /* instead of fd; as that one, borrowed */
    /* the next step; then: bytes that no descriptor announces, and the half close */
    struct wheel_timer timer;
    struct handshake *handshake;
    struct up_stream *stream;
    uint64_t heard_us;   /* when the stream last got bytes, or its FIN was asked for */
    uint32_t turn_bytes; /* that it got in that turn */
    uint8_t want;        /* of the stream's owner: LOOP_READ, LOOP_WRITE */
    bool end_held;       /* the owner's FIN waits for silence (faults.md L12) */
};
/** secure_new() - TLS as a client, around what carries a handshake; nothing is sent yet. Return: 0, -ENOMEM, -EIO
 * @h: its `below` is taken over on success; with none the descriptor, or the hop, is spoken through */
int secure_new(struct handshake *h, struct secure **out);
bool secure_unsent(const struct secure *c); /* ciphertext waits for the socket, at any level */
int secure_flush(struct secure *c);         /* 0, -EAGAIN, -ECONNRESET */
void secure_free(struct secure *c);         /* NULL is fine; not the descriptor */
void secure_close(struct secure *c,
                  bool politely); /* the same, with a close_notify at every level if it goes */
/** secure_again() - handshake_secure_step() runs in the next turn */
void secure_again(struct secure *c);
void handshake_secure_step(struct handshake *h);
void handshake_masque_done(struct handshake *h, const struct up_failure *why); /* NULL: it is open */
/* The stream's side. secure_update() after anything that changed what is waited for. */
void secure_attach(struct secure *c, struct up_stream *s);
ssize_t secure_recv(struct secure *c, void *to,
                    size_t len); /* as up_stream_recv(), the break left to the caller */
void secure_update(struct secure *c);
void secure_end(struct secure *c); /* our FIN, in time */
void secure_on_io(struct loop_io *io, unsigned events);
void secure_on_hop(void *stream, unsigned events);

void stream_ended(struct up_stream *s,
                  const struct up_failure *why); /* one without a socket; it is free afterwards */
void stream_why_cut(const struct upstream *up, struct up_failure *why); /* names the way that has ended */
const struct up_stream_events *stream_events(const struct up_stream *s);
/** stream_adopt() - a stream that is open from the beginning: what a handshake has made, which is taken over
 * Return: 0 or -ENOMEM, then nothing was taken. on_open is not called. */
int stream_adopt(struct up_env *env, const struct handshake_result *result,
                 const struct up_stream_events *events, void *arg, struct up_stream **out);
void stream_tell_broken(struct wheel_timer *t, uint64_t now_us);

/* One call of up_probe(). The first one for an upstream does the work, the others hang on its list. */
struct probe {
    struct probe *next;
    struct up_env *env;
    struct up_memory *memory;
    struct handshake *handshake; /* of the first one; NULL: nothing to ask */
    struct masque *masque;       /* that was asked instead */
    struct wheel_timer later;    /* tells, when there is nothing to ask */
    void (*fn)(void *arg, int err);
    void *arg;
    int err;
};
void probe_free(struct up_env *env, struct probe *p); /* with its list, and no call; NULL is fine */

#endif
