/* echo_proxy.c - a client's echo request becomes one of this host's kernel (icmp.md section 4).
 *
 * How it works. One client request becomes one kernel request from an unprivileged ping socket. A flow is (client, target,
 * the client's id, where it came in); it has a socket and so a kernel id of its own, until there are many: then flows share a
 * few sockets, and a fresh random number on the wire says which request of which flow a reply is for (X17). Where there are no
 * ping sockets and CAP_NET_RAW is held, one raw socket a family does the same with ids of ours (4.8).
 *
 * What always holds. What cannot be sent is dropped and counted, or told to the client as what it is; no failure becomes a reply.
 * Only the target's own replies to numbers that were sent come through, at most four of each (X20, X22).
 *
 * Limits. echo_proxy_options; an answer later than the idle time finds nobody.
 * Left out: binding to the uplink's source address as the last means of X35, which keeps nothing out of the TUN by itself. */
#include "culvert/echo.h"

#include <time.h> /* linux/errqueue.h wants struct timespec */
#include <linux/errqueue.h>
#include <net/if.h>
#include <stdlib.h>

#include "ping_impl.h"

#define MAX_FLOWS    16384 /* of the process: the id space is 65,536 and not ours alone (X12) */
#define MAX_OUT_EACH 64    /* requests out on shared sockets, for each flow */

const struct counter_desc echo_proxy_counter_descs[] = {
#define ECHO_PROXY_DESC(member, name) { name, offsetof(struct echo_proxy_counters, member) },
    ECHO_PROXY_COUNTERS(ECHO_PROXY_DESC)
#undef ECHO_PROXY_DESC
        { NULL, 0 },
};

void echo_proxy_options_defaults(struct echo_proxy_options *o)
{
    *o = (struct echo_proxy_options){
        .relay_errors = true,
        .max_flows = 1024,
        .max_per_source = 512,
        .new_per_second = 200,
        .new_burst = 400,
        .pool_after = 256,
        .pool_sockets = 4,
        .idle_ms = 10000,
        .shares = 1,
        .fallback = "dropped",
    };
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

static void fit(struct echo_proxy_options *o)
{
    if (o->max_flows == 0 || o->max_flows > MAX_FLOWS)
        o->max_flows = o->max_flows == 0 ? 1 : MAX_FLOWS;
    if (o->pool_sockets == 0 || o->pool_sockets > PING_POOL_MAX)
        o->pool_sockets = o->pool_sockets == 0 ? 1 : PING_POOL_MAX;
}

int echo_proxy_new(const struct echo_proxy_options *o, struct echo_proxy **out)
{
    struct echo_proxy *p = calloc(1, sizeof(*p));
    struct hash_key key;
    int r;

    if (!p)
        return -ENOMEM;
    p->opt = *o;
    fit(&p->opt);
    for (int v6 = 0; v6 < 2; v6++) {
        p->raw[v6].fd = -1;
        for (int i = 0; i < PING_POOL_MAX; i++)
            p->pool[v6][i].fd = -1;
    }
    if ((r = random_bytes(&key, sizeof(key))) != 0 || (r = ping_table_init(&p->table, &p->opt, &key)) != 0 ||
        (r = ping_map_init(&p->map, p->opt.max_flows * MAX_OUT_EACH, o->seed)) != 0 ||
        (r = ping_rx_new(&p->rx)) != 0) {
        echo_proxy_free(p);
        return r;
    }
    echo_proxy_probe(p);
    *out = p;
    return 0;
}

static void close_all(struct echo_proxy *p)
{
    for (uint32_t i = 0; i < p->table.flows.touched; i++) {
        struct ping_flow *f = slab_at(&p->table.flows, i);

        if (f->live)
            ping_flow_close(f);
    }
    for (int v6 = 0; v6 < 2; v6++) {
        ping_socket_close(&p->raw[v6]);
        for (int i = 0; i < PING_POOL_MAX; i++)
            ping_socket_close(&p->pool[v6][i]);
    }
}

void echo_proxy_free(struct echo_proxy *p)
{
    if (!p)
        return;
    close_all(p);
    loop_timer_stop(p->opt.loop, &p->probe_timer);
    ping_table_fini(&p->table);
    ping_map_fini(&p->map);
    ping_ids_fini(&p->ids);
    free(p->by_raw_id);
    ping_rx_free(p->rx);
    free(p);
}

/* ---- may it be sent ---------------------------------------------------------------------------------------------------- */

static bool is_sendable(const struct ip_addr *a)
{
    return !ip_is_martian(a) &&
           (ip_is4(a) || !ip_is_link_local(a)); /* a link-local one would need its link (X10) */
}

/* X8 to X10, X30, before anything is created. ECHO_PROXY_SENT: go on. */
static enum echo_proxy_result check(struct echo_proxy *p, const struct echo_proxy_request *r)
{
    if (p->mode[!ip_is4(&r->target)] == ECHO_PROXY_MODE_OFF)
        return ECHO_PROXY_OFF;
    if (r->code != 0) {
        PCOUNT(p, drop_code);
        return ECHO_PROXY_DROPPED;
    }
    if (r->broadcast || !is_sendable(&r->target)) {
        PCOUNT(p, drop_target);
        return ECHO_PROXY_DROPPED;
    }
    if (p->opt.strict && r->options) {
        PCOUNT(p, drop_options);
        return ECHO_PROXY_DROPPED;
    }
    if (p->opt.guard && ping_guard_is_stopped(p->opt.guard, ping_now_us(p), &r->target)) {
        PCOUNT(p, drop_loop);
        return ECHO_PROXY_DROPPED;
    }
    if (!p->opt.transparent && r->ttl <= 1) {
        PCOUNT(p, expired);
        return ECHO_PROXY_EXPIRED;
    }
    return ECHO_PROXY_SENT;
}

/* What must hold for a new flow only: it costs system calls. *ifindex: where its requests leave. */
static enum echo_proxy_result check_new(struct echo_proxy *p, const struct echo_proxy_request *r,
                                        int *ifindex)
{
    int i = p->opt.interface_for ? p->opt.interface_for(p->opt.socket_arg, &r->target) : 0;

    if (i == -EACCES)
        return ECHO_PROXY_ADMIN_PROHIBITED;
    if (i < 0 || (!r->local && ping_is_address_of_host(&r->target))) {
        PCOUNT(p, drop_target);
        return ECHO_PROXY_DROPPED;
    }
    *ifindex = i;
    return ECHO_PROXY_SENT;
}

static void trace_request(const struct ping_flow *f, uint16_t seq)
{
    char client[IP_TEXT_MAX], target[IP_TEXT_MAX];

    log_debug("icmp proxy: request %s -> %s id %u seq %u, new flow, id on the wire %u",
              ip_text(&f->key.client, client), ip_text(&f->key.target, target), f->key.id, seq, f->wire_id);
}

static struct ping_flow *flow_for(struct echo_proxy *p, const struct echo_proxy_request *r,
                                  enum echo_proxy_result *result)
{
    struct ping_key key = { r->client, r->target, r->ingress, r->id, 0 };
    struct ping_flow *f = ping_table_find(&p->table, &key);
    int ifindex = 0;

    if (f && f->responder != r->responder) { /* replies in flight reach the new one (X14) */
        f->responder = r->responder;
        PCOUNT(p, flows_rebound);
    }
    if (f)
        return f;
    *result = check_new(p, r, &ifindex);
    if (*result != ECHO_PROXY_SENT)
        return NULL;
    f = ping_flow_open(p, &key, r, ifindex, result);
    if (f)
        trace_request(f, r->seq);
    return f;
}

/* ---- sending ---------------------------------------------------------------------------------------------------------------- */

static void note(struct ping_flow *f, const struct echo_proxy_request *r)
{
    struct ping_sent *old = &f->ring[f->ring_next], *s;

    if (old->used && !old->answered) { /* lost, or very late */
        f->outstanding--;
        gauge_move(&f->proxy->cnt.outstanding, -1);
    }
    s = ping_flow_note(f, r->seq);
    s->sent_us = clock_now_us();
    s->len = PING_HEADER + r->payload_len;
    s->checksum = r->checksum;
    s->answered = true; /* until it is out */
    if (r->ip_header && r->ip_header_len >= 20 && r->ip_header_len <= PING_HEADER_MAX) {
        s->header_len = (uint8_t)r->ip_header_len;
        memcpy(s->header, r->ip_header, r->ip_header_len);
    }
}

static void note_out(struct ping_flow *f, uint16_t seq)
{
    struct ping_sent *s = ping_flow_sent(f, seq);

    s->answered = false;
    f->outstanding++;
    gauge_move(&f->proxy->cnt.outstanding, 1);
    if (!f->sock->shared)
        ping_seen_sent(&f->seen, seq);
    if (f->v6)
        PCOUNT(f->proxy, requests6);
    else
        PCOUNT(f->proxy, requests4);
}

/* Our own kernel says that it is too big for the first link (E7). */
static void tell_too_big(struct ping_flow *f, const struct echo_proxy_request *r, uint32_t mtu)
{
    uint8_t own[PING_QUOTE_MAX] = { 0 };
    size_t len = r->payload_len < sizeof(own) - PING_HEADER ? r->payload_len : sizeof(own) - PING_HEADER;
    struct ping_error_record e = { .origin = SO_EE_ORIGIN_LOCAL,
                                   .err = EMSGSIZE,
                                   .info = mtu,
                                   .target = r->target,
                                   .quoted = { own, PING_HEADER + len } };

    if (len > 0)
        memcpy(own + PING_HEADER, r->payload, len);
    ping_flow_tell(f, r->seq, &e);
}

/* E8: what our own kernel says of the target, with nothing in the error queue. */
static enum echo_proxy_result refused(struct ping_flow *f, int err)
{
    struct echo_proxy *p = f->proxy;

    switch (-err) {
    case ENETUNREACH:
        PCOUNT(p, send_unreach);
        return ECHO_PROXY_NET_UNREACH;
    case EHOSTUNREACH:
        PCOUNT(p, send_unreach);
        return ECHO_PROXY_HOST_UNREACH;
    case EACCES:
        PCOUNT(p, send_unreach);
        return ECHO_PROXY_ADMIN_PROHIBITED;
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
        PCOUNT(p, send_eagain);
        break;
    case EMSGSIZE:
        PCOUNT(p, send_emsgsize);
        break;
    case ENODEV: /* its interface is gone (X36) */
    case ENXIO:
        PCOUNT(p, send_other);
        ping_flow_close(f);
        break;
    default:
        PCOUNT(p, send_other);
        break;
    }
    PCOUNT(p, drop_send);
    return ECHO_PROXY_DROPPED;
}

/* From half of the numbers on a flow gets no more of them than are there for each: a flood by one must not silence the others. */
static bool has_share(struct ping_flow *f, uint64_t now_us)
{
    const struct slab *outs = &f->proxy->map.outs;

    if (now_us - f->numbers_window_us >= (uint64_t)f->proxy->opt.idle_ms * 1000) {
        f->numbers_window_us = now_us;
        f->numbers_in_window = 0;
    }
    return f->numbers_in_window++ < MAX_OUT_EACH || outs->in_use < outs->limit / 2;
}

static bool number_for(struct ping_flow *f, const struct echo_proxy_request *r, uint16_t *wire_seq)
{
    struct echo_proxy *p = f->proxy;
    uint64_t now_us = ping_now_us(p);
    struct ping_out *o;

    *wire_seq = r->seq;
    if (!f->sock->shared)
        return true;
    if (!has_share(f, now_us))
        return false;
    o = ping_map_add(&p->map, now_us, now_us + (uint64_t)p->opt.idle_ms * 1000, f->sock->index);
    if (!o)
        return false;
    o->flow = slab_index(&p->table.flows, f);
    o->generation = f->generation;
    o->seq = r->seq;
    *wire_seq = o->wire_seq;
    return true;
}

/* One request of a flow. The error queue was emptied just before; what it fills with meanwhile fails the send once (X18). */
static enum echo_proxy_result send_out(struct ping_flow *f, const struct echo_proxy_request *r,
                                       uint16_t wire_seq)
{
    struct echo_proxy *p = f->proxy;
    uint32_t index = slab_index(&p->table.flows, f), mtu = 0;
    uint64_t generation = f->generation;
    struct ping_packet k = { .target = &f->key.target,
                             .id = f->wire_id,
                             .seq = wire_seq,
                             .ttl = (uint8_t)(r->ttl - (p->opt.transparent ? 0 : 1)),
                             .tos = r->tos,
                             .df = r->df,
                             .ifindex = f->ifindex,
                             .payload = r->payload,
                             .payload_len = r->payload_len };
    int err = ping_socket_send(f->sock, &k);

    for (int again = 0; err < 0 && err != -EAGAIN && mtu == 0 && again < 2; again++) {
        ping_socket_drain(f->sock, &mtu);
        f = ping_table_at(&p->table, index, generation);
        if (!f)
            return ECHO_PROXY_DROPPED; /* its client has gone meanwhile */
        if (mtu == 0 && again == 0) {
            PCOUNT(p, send_again);
            err = ping_socket_send(f->sock, &k);
        }
    }
    if (err < 0 && mtu > 0) {
        PCOUNT(p, send_emsgsize);
        tell_too_big(f, r, mtu);
        return ECHO_PROXY_SENT;
    }
    if (err < 0)
        return refused(f, err);
    note_out(f, r->seq);
    ping_table_touch(&p->table, f, ping_now_us(p));
    return ECHO_PROXY_SENT;
}

enum echo_proxy_result echo_proxy_send(struct echo_proxy *p, const struct echo_proxy_request *r)
{
    enum echo_proxy_result result = check(p, r);
    struct ping_flow *f = result == ECHO_PROXY_SENT ? flow_for(p, r, &result) : NULL;
    uint64_t generation;
    uint16_t wire_seq;
    uint32_t index;

    if (!f)
        return result;
    index = slab_index(&p->table.flows, f);
    generation = f->generation;
    ping_socket_drain(f->sock, NULL);
    f = ping_table_at(&p->table, index, generation);
    if (!f)
        return ECHO_PROXY_DROPPED;
    if (!number_for(f, r, &wire_seq)) {
        PCOUNT(p, drop_socket);
        return ECHO_PROXY_DROPPED;
    }
    note(f, r);
    if (p->opt.guard)
        ping_guard_sent(p->opt.guard, ping_now_us(p), &f->key.target, f->wire_id, wire_seq);
    return send_out(f, r, wire_seq);
}

/* ---- what the owner says -------------------------------------------------------------------------------------------------------- */

bool echo_proxy_is_loop(struct echo_proxy *p, const struct ip_addr *client, const struct ip_addr *target,
                        uint16_t id, uint16_t seq)
{
    char text[IP_TEXT_MAX];
    uint32_t held;

    if (!p->opt.guard || !ping_guard_has(p->opt.guard, ping_now_us(p), target, id, seq) ||
        !ping_is_address_of_host(client))
        return false;
    PCOUNT(p, loop_detected);
    ping_guard_stop(p->opt.guard, ping_now_us(p), target);
    if (log_limit_pass(&p->log_loop, ping_now_us(p), 1, &held))
        log_warning(
            "loop: our own echo request to %s came back through the TUN and was dropped; that target is not "
            "proxied for 30 s; set tun.routing-mark or tun.interface-name, or route it around the TUN",
            ip_text(target, text));
    return true;
}

enum echo_proxy_mode echo_proxy_mode(const struct echo_proxy *p, bool v6)
{
    return p->mode[v6];
}

void echo_proxy_responder_gone(struct echo_proxy *p, uint64_t responder)
{
    for (uint32_t i = 0; i < p->table.flows.touched; i++) {
        struct ping_flow *f = slab_at(&p->table.flows, i);

        if (!f->live || f->responder != responder)
            continue;
        counter_add(&p->cnt.drop_responder, f->outstanding);
        ping_flow_close(f);
    }
}

void echo_proxy_uplink_changed(struct echo_proxy *p)
{
    char name[IF_NAMESIZE];

    for (uint32_t i = 0; i < p->table.flows.touched; i++) {
        struct ping_flow *f = slab_at(&p->table.flows, i);

        if (f->live && f->ifindex != 0 && !if_indextoname((unsigned)f->ifindex, name))
            ping_flow_close(f);
    }
}

uint32_t echo_proxy_flows(const struct echo_proxy *p)
{
    return p->table.flows.in_use;
}

void echo_proxy_memory(const struct echo_proxy *p, struct memory_use *add)
{
    const struct slab *const all[] = { &p->table.flows, &p->table.sources, &p->map.outs };

    add->bytes[MEMORY_PINGS] +=
        sizeof(*p) + ping_map_bytes(&p->map) + (p->by_raw_id ? 65536 * sizeof(*p->by_raw_id) : 0);
    memory_add_slabs(add, MEMORY_PINGS, all, ARRAY_LEN(all));
}

bool echo_proxy_trim(struct echo_proxy *p)
{
    bool more;

    ping_map_expire(&p->map, ping_now_us(p));
    more = ping_table_trim(&p->table);
    more = slab_trim(&p->map.outs, NULL, NULL) || more;
    if (p->table.flows.in_use == 0)
        ping_rx_trim(p->rx);
    return more;
}

const struct echo_proxy_counters *echo_proxy_counters(const struct echo_proxy *p)
{
    return &p->cnt;
}
