/* forward_impl.h - the inside of a forwarder, shared by all files of this folder that are not pure (sniff.h, rate_bucket.h).
 * All of it belongs to one worker: no lock, no atomic, no other worker's memory. */
#ifndef CULVERT_FORWARD_IMPL_H
#define CULVERT_FORWARD_IMPL_H

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "culvert/dns.h"
#include "culvert/forward.h"
#include "rate_bucket.h"

/* One worker's hold on a policy. It lives as long as flows of this worker do that were decided by it. */
struct ways {
    uint32_t refs; /* this worker's only */
    struct forward *f;
    struct forward_policy *policy;
    struct rules *rules; /* the policy's, as the next three */
    size_t count;
    struct upstream *const *target;
    const struct rate_limit *rates;
    uint32_t rate_count;
    struct meter *meters; /* this worker's part of each limit of a way out */
    uint32_t workers;     /* that have a part in every limit */
    counter *hits;        /* this worker's: one for each rule, then one for RULE_IMPLICIT */
    uint32_t rule_count;
    _Atomic uint8_t *
        echo_said; /* two places for each rule and two more: what was said about it, once by all workers (M16) */
};

/* How many flows this worker may have of some limit (share.c). */
struct part {
    uint32_t part;
    bool met;    /* nearly, since somebody asked */
    bool scarce; /* the other workers have nothing left to give */
};

/* How many flows one client address has here (limits.per-source). */
struct source {
    struct ip_addr addr;
    uint32_t flows;               /* 0: its meter or its part is remembered for a while */
    struct part part;             /* with limits.per-source */
    bool dealt_flows, dealt_rate; /* its parts are no equal ones */
    uint8_t limit;                /* with a meter: which of the rates */
    uint16_t queries;             /* questions of its that are carried over TCP now (dns_flow.c) */
    uint16_t waits;    /* targets of its whose datagrams wait until the rules can decide (udp_wait.c) */
    uint16_t sessions; /* connections of its whose questions are answered here (dns_hijack.c) */
    uint32_t looks;    /* targets of its that wait so, or whose decision is kept (udp_wait.c) */
    struct source *next;
    struct meter *meter; /* NULL: no limit of rates names it */
};
#define SOURCE_BUCKETS 4096

/* ---- how fast (rate.c) --------------------------------------------------------------------------------------------- */

struct rate_line { /* one direction of a meter, and the streams that wait for it */
    struct rate_bucket bucket;
    struct rate_wait *first, *last;
    struct wheel_timer timer; /* set while somebody waits: when the first one's turn can come */
    uint8_t dir;
};
struct meter {
    struct rate_line line[2]; /* RATE_UP, RATE_DOWN */
};
struct rate_wait {
    struct rate_line *line; /* NULL: does not wait */
    struct rate_wait *next, *prev;
};
struct rate_of { /* the limits of a flow's ways: 1 + their index, 0: none */
    uint8_t target, way;
};

/* What only a TCP flow needs that some limit names. */
struct pace {
    struct source *source;
    struct tcp_flow *flow;
    struct rate_wait wait[2];
    struct rate_of of;
    bool stalled[2]; /* while the policy changes */
};

/* ---- a TCP flow ---------------------------------------------------------------------------------------------- */

enum tcp_flow_state {
    TCP_FLOW_FREE,    /* a slab's free object */
    TCP_FLOW_OPENING, /* the client's SYN is held, the upstream is being opened */
    TCP_FLOW_ACCEPT,  /* our SYN-ACK is out */
    TCP_FLOW_EARLY, /* the same, and `owner` knows the addresses that are to be dialled when the client is there */
    TCP_FLOW_DIALING, /* accepted early: the client may send, the upstream is being opened */
    TCP_FLOW_OPEN,
    TCP_FLOW_DRAIN, /* the upstream broke: what was read is still delivered, then RST (tcp-stack.md CLS-2) */
    TCP_FLOW_SNIFF, /* accepted early: the client's first bytes may tell a name, which decides */
    TCP_FLOW_ASK,   /* then: what it said is known, and the rules wait for who opened it */
    TCP_FLOW_DNS,   /* its messages are answered here; there is no upstream */
};

/* What only a flow needs whose SYN is held. */
struct tcp_opening {
    struct tcp_request *request;
    struct flow_key key; /* later the connection has it */
    struct owner *owner; /* the rules wait for its answer; NULL: they do not */
};

struct tcp_flow {
    struct ways *ways; /* first: the slab's link while free */
    union {
        struct tcp_opening *opening; /* OPENING */
        struct tcp_conn *conn;       /* later */
    };
    union {
        struct up_stream *up;    /* NULL once closed */
        struct dns_session *dns; /* TCP_FLOW_DNS */
        struct owner *owner;     /* TCP_FLOW_ASK, TCP_FLOW_EARLY */
    };
    union {
        struct source *source;
        struct pace *pace; /* paced */
    };
    struct wheel_timer timer; /* idle and half-close time-outs, and the poll of DRAIN */
    uint32_t rule;
    uint16_t target; /* index into ways->target */
    uint8_t state;   /* enum tcp_flow_state */
    bool client_eof : 1, up_eof : 1, up_shut : 1, want_read : 1, want_write : 1,
        fake : 1, /* its target is a fake address, in use until it ends */
        sniff : 1, paced : 1;
    uint32_t started_ms, active_ms; /* since the forwarder began */
};
static_assert(sizeof(void *) != 8 || sizeof(struct tcp_flow) <= 80, "an idle flow is cheap (PERF-9)");

static inline bool tcp_flow_has_owner(const struct tcp_flow *t)
{
    return t->state == TCP_FLOW_ASK || t->state == TCP_FLOW_EARLY;
}
static inline bool tcp_flow_has_up(const struct tcp_flow *t)
{
    return t->state != TCP_FLOW_DNS && !tcp_flow_has_owner(t) && t->up != NULL;
}

/* ---- a UDP mapping: one client port, one association for each way out that its datagrams take -------------------- */

#define HELD_MAX   16
#define HELD_BYTES 2048

struct held { /* one datagram, copied */
    struct held *next;
    struct ip_port target;
    uint16_t len;
    uint8_t ttl, tos;
    uint8_t data[];
};
struct held_list { /* in the client's order (udp_held.c) */
    struct held *first, *last;
    uint8_t count; /* at most HELD_MAX */
};
/** held_add() - copy one datagram of @d to the end; the oldest makes room (faults.md U7)
 * Return: false: it is too long to wait, or there is no memory for it. */
bool held_add(struct forward *f, struct held_list *l, const struct udp_datagram *d, const struct iovec *data);
void held_add_row(struct forward *f, struct held_list *l,
                  const struct udp_datagram *d); /* all of it, as far as it goes */
struct held *held_take(struct held_list *l); /* the oldest; the caller gives it back to f->held. NULL: none */
void held_drop(struct forward *f, struct held_list *l);
/** held_refuse() - the opening failed: the client is told of all that waited for it, and its next datagram tries anew */
void held_refuse(struct forward *f, struct held_list *l, struct udp_endpoint *client, enum stack_reject how);

struct udp_walk { /* the datagrams of a row, one by one */
    const struct udp_datagram *row;
    int range;
    size_t at; /* in that range */
};
bool udp_walk_next(struct udp_walk *w, struct iovec *out);

struct udp_assoc {
    struct udp_flow *flow;
    struct up_udp *up; /* NULL: not open (yet, or any more) */
    struct udp_assoc *next;
    struct held_list held; /* datagrams that wait for the opening */
    uint16_t target;       /* index into ways->target */
    struct rate_of rate;   /* while it is open */
    bool open, no_udp, alias;
    /* Its one target is a fake address: it has the association to itself, so that replies find back. */
    bool faked;
    struct ip_port fake;
    /* The rules looked at the addresses of its name: from here it is `real`, one that they let go this way, or nothing at all. */
    bool pinned;
    struct ip_addr real; /* none: the name had no address, at that time */
    uint32_t pinned_ms;
    /* of the client's latest datagram; what a reply without source is taken to come from */
    struct ip_port last_target;
};
enum udp_flow_state { UDP_FLOW_FREE, UDP_FLOW_OPENING, UDP_FLOW_OPEN };

struct udp_flow {
    void *free_link;
    struct forward *f;
    union {
        struct udp_request *request;
        struct udp_endpoint *endpoint;
    };
    struct ways *ways;
    struct source *source;
    struct owner *owner;      /* NULL: nobody asks for it */
    struct udp_assoc *assocs; /* the one that was chosen last first */
    struct udp_look *looks; /* targets that wait for what decides, or were decided by a name that they told */
    struct udp_assoc *last; /* the one that the previous datagram used */
    struct ip_port last_decided; /* the target that `last` was chosen for */
    struct dns_carried *queries; /* DNS over TCP under way */
    struct dns_pending *asked;   /* questions that are answered here */
    struct wheel_timer timer;
    uint32_t rule;
    uint32_t started_ms, active_ms;
    uint64_t bytes_up, bytes_down;
    struct ip_port client;
    struct ip_port first_target;
    uint8_t state; /* enum udp_flow_state */
    bool dns_only; /* nothing but port 53 so far: the short idle time-out */
};

/* ---- DNS over TCP for an exit without UDP (config.md: proxies[].udp) ------------------------------------------------- */

struct dns_carried {
    struct udp_flow *flow;
    struct dns_carried *next;
    struct up_stream *up;
    struct wheel_timer timer;        /* a server that never answers */
    uint16_t target;                 /* index into ways->target */
    struct ip_port shown;            /* whom the client asked */
    uint16_t sent, message_len, got; /* of the 2 + message_len bytes; of the answer with its length */
    uint8_t buf[4096 + 2];           /* the question, then the answer (RFC 1035 section 4.2.2) */
};

/* ---- DNS that is answered here (dns.hijack) --------------------------------------------------------------------------- */

struct dns_pending { /* a question that came as a datagram */
    void *free_link;
    struct udp_flow *flow;
    struct dns_pending *next;
    struct dns_ask *ask;
    struct ip_port shown; /* whom the client asked */
};

/* ---- names of flows ------------------------------------------------------------------------------------------------- */

struct flow_name {
    enum name_known known;
    char text[256]; /* NAME_REAL and NAME_FAKE */
};
/** flow_name_find() - what is known of @addr; with NAME_FAKE the address is in use until flow_name_release() */
void flow_name_find(struct forward *f, const struct ip_addr *addr, struct flow_name *out);
void flow_name_release(struct forward *f, const struct ip_addr *addr);
/** flow_name_unknown() - counts and tells of a flow to a fake address that is nobody's (faults.md D8) */
void flow_name_unknown(struct forward *f, const struct flow_key *key);
/** flow_name_shown() - the name beside @addr in lines and lists; "": there is none */
const char *flow_name_shown(struct forward *f, const struct ip_addr *addr, char name[256]);
/** flow_name_target() - the target for rules and for dialling: a fake address is only its name, a real one has both
 * The name is borrowed from @n. */
struct host_port flow_name_target(const struct flow_name *n, const struct ip_port *dst);

/* ---- echo ------------------------------------------------------------------------------------------------------------- */

struct echo_wait { /* a detached request: held for the upstream's delay, or for a probe */
    void *free_link;
    struct forward *f;
    echo_token token;
    struct wheel_timer timer;
    struct echo_wait *next; /* of the same probe */
};
/* What stands behind a fake address (echo_name.c). */
struct echo_alias {
    struct ip_addr real; /* of the same family; only with KNOWN */
    uint64_t place;      /* what echo_name_shown() finds it by; never 0 */
};
enum echo_named {
    ECHO_NAME_KNOWN,
    ECHO_NAME_MISSING, /* the name has no address of this family */
    ECHO_NAME_ASKED,   /* the answer is under way: echo_name_hold() */
    ECHO_NAME_BUSY,    /* too many questions are under way */
};
enum echo_named echo_name_find(struct forward *f, const struct ip_addr *fake, const char *name,
                               struct echo_alias *out);
#define ECHO_WAS_HELD UINT32_C(0x80000000) /* echo_req.flags of a copy: it carries no right to answer */
/** echo_name_hold() - copy this request; the policy sees the copy when the answer is there. Return: false: no room for it */
bool echo_name_hold(struct forward *f, const struct echo_req *r);
/** echo_name_shown() - the fake address of a place. NULL: it is another one's by now */
const struct ip_addr *echo_name_shown(struct forward *f, uint64_t place);
void echo_names_free(struct forward *f);
/** echo_refuse(), echo_end() - echo_reject() and echo_expire(), for a request that was held as well */
void echo_refuse(struct forward *f, struct echo_req *r, enum stack_reject why);
void echo_end(struct forward *f, struct echo_req *r);

struct echo_probe { /* of one way out: a question under way, and who waits for its answer */
    void *free_link;
    struct forward *f;
    struct upstream *up; /* a reference; NULL: free */
    struct echo_wait *waiting;
    struct echo_probe *next;
};
#define ECHO_PROBES_MAX 256

/* ---- who opened a flow (owner.c) ------------------------------------------------------------------------------------------ */

#define FLOW_OWNERS_MAX 4096 /* of a worker: open questions, beside UDP mappings, which keep theirs */
#define OWNER_NEEDS     (RULE_NEEDS_UID | RULE_NEEDS_PROCESS)
#define OWNER_ASKABLE   (OWNER_NEEDS | RULE_NEEDS_ADDRESS) /* a name is sniffed, not asked for */
struct name_ask { /* the addresses behind a flow's name, for rules about them and for the dial */
    void (*answered)(struct name_ask *a);
    struct up_resolve *query;
    bool asked;     /* there was a question; then what is known now is all that will be */
    bool resolving; /* it is under way */
    bool asking;    /* up_resolve_name() has not returned yet */
    int err;        /* there is no address: why */
    size_t n;
    struct ip_addr addrs[RESOLVER_ADDRS_MAX]; /* once the rules have decided: those that may be dialled */
    char name[256];
};
/** name_ask() - look @name up (NULL: none, then it has no address)
 * Return: true: @answered follows, unless name_ask_cancel() comes first; false: what is known is there. */
bool name_ask(struct forward *f, struct name_ask *a, const char *name, void (*answered)(struct name_ask *a));
void name_ask_cancel(struct forward *f, struct name_ask *a); /* not asked is fine */
struct owner {
    struct flow_owner_ask ask;
    struct forward *f;
    void *user;           /* a struct tcp_flow or udp_flow, by ask.key.proto; NULL: the flow is gone */
    bool asked;           /* for who opened it */
    bool waiting;         /* for the answer to that */
    struct name_ask name; /* of a TCP flow's target; a mapping has many */
};
/** flow_match() - the rules' verdict on @asked, with what is known of its owner and of its name's addresses
 * @owner, @name: NULL: nothing was asked for. When the verdict is the last word, @name keeps the addresses that may be dialled by it.
 * Return: true: the verdict lacks something that can be asked for. */
bool flow_match(struct forward *f, const struct ways *w, struct rule_flow *asked, const struct owner *owner,
                struct name_ask *name, struct rule_verdict *out);
/** owner_ask() - get what @needs says (rule_verdict.needs) for the rules of @w; *at is made at the first call
 * @name: of the target; NULL: none. Return: true: {tcp,udp}_flow_on_owner(@user) follows, unless owner_leave() comes first;
 * false: ask the rules again now; *at is NULL: too many are open, and the flow cannot be decided. */
bool owner_ask(const struct ways *w, struct owner **at, const struct flow_key *key, const char *name,
               uint8_t needs, void *user);
void owner_leave(struct owner *o); /* NULL is fine */
void tcp_flow_on_owner(struct tcp_flow *t);
void udp_flow_on_owner(struct udp_flow *u);

/* ---- the forwarder ------------------------------------------------------------------------------------------------------ */

enum log_cause { LOG_FLOW_ENDED, LOG_FLOW_FAILED, LOG_LOOP, LOG_LIMIT, LOG_FAKE, LOG_CAUSES };

struct forward {
    struct forward_options opt;
    struct loop *loop;
    struct up_env *env;
    struct stack *stack;
    struct wheel *wheel; /* the stack's */
    struct ways *ways;   /* for new flows */
    const struct own_flows *own;
    struct dns_service *dns;                 /* NULL: there is none */
    const struct dns_settings *dns_settings; /* NULL: questions are flows like others */
    struct name_book *book;                  /* beside dns */
    struct echo_proxy *echo;                 /* NULL: none */
    struct echo_tunnel *tunnel;              /* echo_tunnel.c; NULL until the first ping through a tunnel */
    struct echo_names *echo_names;           /* echo_name.c; NULL until the first ping to a fake address */
    uint32_t worker;
    struct ip_addr gateway[2]; /* IPv4, IPv6: who says "time exceeded" */
    uint64_t epoch_us;
    struct prng prng;
    struct hash_key source_key;
    struct slab tcp_flows, openings, udp_flows, assocs, held, sources, queries, pending, sessions, echoes,
        probes, looks, waits;
    flow_end_fn *on_end; /* NULL: nobody listens */
    void *end_arg;
    owner_ask_fn *owner_ask; /* NULL: nobody can be asked */
    void *owner_arg;
    struct slab owners;
    struct echo_probe *probing; /* all that run */
    struct source *source_table[SOURCE_BUCKETS];
    struct slab meters, paces; /* of clients; of TCP flows */
    struct pace *serving;      /* whose turn it is; NULL: nobody's */
    struct rate_line *serving_line;
    int64_t turn_left; /* bytes */
    struct part tcp_part, udp_part;
    forward_want_fn *want_share; /* NULL: this worker has all of every limit */
    void *want_arg;
    bool wants; /* has said so, and was not heard yet */
    struct log_limit limits[LOG_CAUSES];
    struct forward_counters cnt;
};

#define FCOUNT(f, member) counter_add(&(f)->cnt.member, 1)

static inline uint32_t forward_now_ms(const struct forward *f)
{
    return (uint32_t)((loop_now_us(f->loop) - f->epoch_us) / 1000);
}

/* A rule has taken a flow, a datagram's target or a ping. */
static inline void ways_hit(const struct ways *w, uint32_t rule)
{
    counter_add(&w->hits[rule < w->rule_count ? rule : w->rule_count], 1);
}

/** policy_ways() - @f's worker's hold on @p, with a reference of its own, which is a reference to the policy as well */
struct ways *policy_ways(struct forward_policy *p, struct forward *f);
struct ways *ways_ref(struct ways *w);
void ways_unref(struct ways *w); /* NULL is fine */
/** forward_way() - the way out that a new flow to this target takes now: never a group */
static inline struct upstream *forward_way(const struct forward *f, const struct ways *w, uint32_t target)
{
    return up_current(f->env, w->target[target]);
}
/** source_enter() - count one more flow of @addr. NULL: its limit is met (counted) */
struct source *source_enter(struct forward *f, const struct ip_addr *addr);
void source_leave(struct forward *f, struct source *s); /* NULL is fine */
/** source_forget() - free it, if no flow has it and its meter has nothing left to remember */
void source_forget(struct forward *f, struct source *s);

/* ---- rate.c ---- */
static inline bool rates_on(const struct forward *f)
{
    return f->ways->rate_count > 0;
}
void rates_open(struct forward *f);  /* the meters of its policy, full; once it is attached */
void rates_renew(struct forward *f); /* there is another policy, and the one before is still held */
bool rates_trim(struct forward *f);  /* forgets clients. Return: there are more to forget later */
void rate_enter_source(struct forward *f, struct source *s);
bool rate_leave_source(struct forward *f, struct source *s); /* false: its meter must be kept for a while */
struct rate_of rate_of(const struct forward *f, const struct upstream *target, const struct upstream *way);
/** rate_pass() - may so many bytes of datagrams go? Then they are counted; false: drop them */
bool rate_pass(struct forward *f, const struct source *s, struct rate_of of, int dir, size_t bytes);
void rate_attach_tcp(struct tcp_flow *t); /* both sides are there */
void rate_stop_tcp(struct tcp_flow *t);   /* it waits for nothing any more */
void rate_detach_tcp(struct tcp_flow *t); /* the source is its own again */
void rate_line_set_rate(struct forward *f, struct rate_line *line, uint64_t rate); /* its part, from now on */
/** rate_allow() - how much a paced flow may move now; 0: it waits, and tcp_flow_resume() follows */
size_t rate_allow(struct tcp_flow *t, int dir);
void rate_took(struct tcp_flow *t, int dir, size_t bytes);
static inline bool rate_waits(const struct tcp_flow *t, int dir)
{
    return t->paced && t->pace->wait[dir].line != NULL;
}

/* ---- tcp_bytes.c ---- */
void tcp_flow_want(struct tcp_flow *t);  /* tell the upstream what the flow waits for */
void tcp_flow_broke(struct tcp_flow *t); /* the upstream did: DRAIN */
void tcp_flow_pump_up(struct tcp_flow *t);
void tcp_flow_pump_down(struct tcp_flow *t);
void tcp_flow_resume(struct tcp_flow *t, int dir); /* its turn has come (rate.c) */

/* ---- share.c ---- */
uint64_t share_equal(const struct forward *f, uint64_t whole); /* what a worker has until it is dealt anew */
void share_want(struct forward *f);                            /* some limit was met here */
void share_begin(struct forward *f, struct part *p, uint32_t whole); /* an equal part of it */
/** share_near() - is the part used up? It is said in time that it will be */
bool share_near(struct forward *f, struct part *p, uint32_t in_use);
struct source *source_find(struct forward *f, const struct ip_addr *addr); /* NULL: there is none */
struct source *source_get(struct forward *f, const struct ip_addr *addr);  /* or a new one; NULL: no room */
/** forward_is_loop() - is this a packet of our own? Then it is counted, and logged once in a while with advice */
bool forward_is_loop(struct forward *f, const struct flow_key *key);
/** forward_target() - where a flow to @dst is dialled: the DNS address stands for the name server (forward.h) */
struct ip_port forward_target(const struct forward *f, const struct ip_port *dst);
enum stack_reject reject_for_error(int err);
enum stack_reject reject_for_icmp(bool v6, int type, int code);
/** flow_ended() - the one line of an ended flow, and whoever listens is told
 * @e: all but `name`, which is found here */
void flow_ended(struct forward *f, struct flow_end *e);
/** flow_id() - of the flow in this slot of tcp_flows or udp_flows; see struct flow_info */
uint64_t flow_id(const struct forward *f, bool udp, uint32_t slot, uint32_t started_ms);

void tcp_flow_key(const struct tcp_flow *t, struct flow_key *out);
/** tcp_flow_refuse() - end a flow that is still opening; the client's SYN is answered with RST */
void tcp_flow_refuse(struct tcp_flow *t, const char *why);
void tcp_flow_on_request(void *arg, struct tcp_request *r);
void tcp_flow_on_gone(void *user, int err);
void tcp_flow_on_open(void *user);
void tcp_flow_on_readable(void *user);
void tcp_flow_on_writable(void *user);
void tcp_flow_on_closed(void *user, int err);

void udp_flow_on_request(void *arg, struct udp_request *r);
void udp_flow_on_gone(void *user);
void udp_flow_on_datagram(void *user, const struct udp_datagram *d);
void udp_flow_end(struct udp_flow *u, const char *why);
void udp_flow_evict(struct forward *f); /* an idle one makes room (forward.c) */
/** udp_flow_reply() - a datagram to the client; NULL data never. Used by associations and by DNS over TCP */
void udp_flow_reply(struct udp_flow *u, const struct ip_port *source, const struct iovec *iov, int n,
                    uint16_t gso_size);

int dns_queries_init(struct slab *s);
/** dns_flow_ask() - send this DNS message over TCP through the flow's way out; the answer goes back as a datagram from @shown */
void dns_flow_ask(struct udp_flow *u, uint16_t target, const struct host_port *server,
                  const struct ip_port *shown, const uint8_t *message, size_t len);
void dns_flow_cancel(struct udp_flow *u);

/** dns_hijacked() - are questions to @target answered here? */
bool dns_hijacked(const struct forward *f, const struct ip_port *target, bool tcp);
/** dns_hijack_ask() - answer this datagram of the flow, as if @shown did */
void dns_hijack_ask(struct udp_flow *u, const struct ip_port *shown, const uint8_t *message, size_t len);
void dns_hijack_cancel(struct udp_flow *u);

/* Messages over TCP (RFC 7766); the flow's connection is open. */
int dns_sessions_init(struct slab *s);
struct dns_session *dns_session_new(struct tcp_flow *t); /* NULL: no room, for this client or at all */
void dns_session_free(struct dns_session *s);            /* NULL is fine */
void dns_session_on_readable(struct dns_session *s);
void dns_session_on_writable(struct dns_session *s);
void dns_session_idle(struct dns_session *s); /* nothing has come for long */

bool sniff_port(const struct sniff_ports *ports, uint16_t port);
/** sniff_may() - may a name be found in the first bytes of a TCP flow to this port, which has none by its address? */
bool sniff_may(const struct forward *f, const struct flow_name *name, uint16_t port);
void tcp_flow_sniff_start(struct tcp_flow *t);
void tcp_flow_sniff(struct tcp_flow *t, bool last); /* bytes came; @last: no more are waited for */
void tcp_flow_dial(struct tcp_flow *t);
void tcp_flow_sniffed(struct tcp_flow *t); /* who opened it is known, or cannot be */
/* One target of a client's port, as the rules are asked about it (udp_rules.c). */
struct udp_case {
    const struct ways *ways;
    const struct ip_port *client, *target;
    const struct owner *owner; /* NULL: not asked */
    struct name_ask *name;     /* of the target; NULL: not asked */
    const char *sniffed;       /* NULL: its datagrams told no name */
    bool looked;               /* no more is to be had from its datagrams */
};
struct udp_verdict {
    struct rule_verdict rule;
    struct flow_name name; /* with UDP_DECIDED and NAME_FAKE the address is in use from now on */
};
enum udp_decision {
    UDP_DECIDED,
    UDP_WANTS_OWNER,   /* the verdict lacks what owner_ask() may get */
    UDP_WANTS_ADDRESS, /* ... or what name_ask() may */
    UDP_WANTS_NAME,    /* ... or what a datagram may tell */
    UDP_NOBODY,        /* it is a fake address that is nobody's: there is no verdict */
};
enum udp_decision udp_decide(struct forward *f, const struct udp_case *c, struct udp_verdict *out);

/* Targets whose datagrams wait until the rules can decide (udp_wait.c). */
struct udp_look {
    struct udp_look *next;
    struct udp_flow *flow;
    struct udp_wait *wait; /* its datagrams are held; NULL: it was decided by its name, and goes `way` */
    struct ip_port target; /* where it is dialled */
    uint16_t way;          /* index into ways->target */
};
int udp_waits_init(struct forward *f);
/** udp_decide_first() - as udp_decide(), and @d, the mapping's first datagram, is looked at for a name
 * Return: UDP_WANTS_NAME: later ones may tell it; c->looked is set when this one was enough. */
enum udp_decision udp_decide_first(struct forward *f, struct udp_case *c, const struct udp_datagram *d,
                                   struct udp_verdict *out);
struct udp_look *udp_look_find(struct udp_flow *u, const struct ip_port *target); /* NULL: there is none */
/** udp_look_keep() - remember what was decided for a target. Return: NULL: no room */
struct udp_look *udp_look_keep(struct udp_flow *u, const struct ip_port *target, uint32_t way);
/** udp_look_start() - ask for what the verdict on @target lacks; udp_look_take() follows at once
 * Return: NULL: no room, and its datagrams must not go anywhere */
struct udp_look *udp_look_start(struct udp_flow *u, const struct ip_port *target, enum udp_decision lacks,
                                const struct udp_verdict *v);
/** udp_look_take() - the next datagrams to a target that waits: held, or passed on when it can be decided; the look may be gone then */
void udp_look_take(struct udp_look *look, const struct udp_datagram *d);
void udp_looks_on_owner(struct udp_flow *u);   /* it is known who has the mapping's port */
bool udp_looks_wait(const struct udp_flow *u); /* is a target not decided yet? */
void udp_looks_free(struct udp_flow *u);
/** udp_flow_pass() - carry datagrams out, by the way that their target has */
void udp_flow_pass(struct udp_flow *u, const struct udp_datagram *d);

/* Which association (udp_choose.c). */
/** udp_flow_pin() - a fake target was decided by its name's addresses, or for want of any
 * @v: the hold on the fake address is this function's. Return: false: no memory for an association */
bool udp_flow_pin(struct udp_flow *u, const struct ip_port *target, const struct udp_verdict *v,
                  const struct name_ask *name);
void udp_assoc_free(struct udp_assoc *a);        /* it is not in its mapping's list (any more) */
bool udp_pin_is_over(const struct udp_assoc *a); /* its name had no address: by now that is asked again */
/** udp_assoc_by_verdict() - the association for a target that the rules have decided now; the hold on a fake address is this function's
 * Return: NULL: no memory */
struct udp_assoc *udp_assoc_by_verdict(struct udp_flow *u, uint32_t target, const struct ip_port *dst,
                                       const struct flow_name *name);
/** udp_assoc_choose() - the one that @target's datagrams take
 * Return: NULL: none, or they wait for what decides: then @d was taken */
struct udp_assoc *udp_assoc_choose(struct udp_flow *u, const struct udp_datagram *d,
                                   const struct ip_port *target);

enum echo_verdict echo_policy_on_echo(void *arg, struct echo_req *r);
void echo_probes_forget(struct forward *f); /* the environment is gone: no probe will answer */
/** echo_direct() - carry this request out by the echo proxy, or tell its client why not
 * @alias: r->dst is a fake address, and this is behind it; NULL: it is not
 * Return: false: no socket for its family; the policy decides. */
bool echo_direct(struct forward *f, struct echo_req *r, const struct echo_alias *alias);
/** echo_tunnel() - carry this request through @up, which up_echo_state() has not ruled out, or tell its client why not
 * @by: the rule's target: @up itself, or the group that it was chosen from; @to: the target, r->dst unless that is a fake address */
void echo_tunnel(struct forward *f, struct echo_req *r, const struct ip_addr *to, struct upstream *by,
                 struct upstream *up);
/** echo_tunnel_way() - the way that earlier requests of the same flow have taken through @by; NULL: none (icmp.md T16) */
const struct upstream *echo_tunnel_way(struct forward *f, const struct echo_req *r,
                                       const struct upstream *by);
bool echo_tunnel_trim(struct forward *f); /* flows that are over go. Return: there are others */
void echo_tunnel_attach(struct forward *f);
void echo_tunnel_free(struct forward *f);
/** echo_answer_down() - the way out is down: what `on-down` says */
void echo_answer_down(struct forward *f, struct echo_req *r);

#endif
