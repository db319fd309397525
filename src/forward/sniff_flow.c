/* sniff_flow.c - TCP flows whose rules need a name: accepted early, read until they tell it, then decided (config.md sniffer).
 *
 * Only a flow comes here whose rules say that a name may change the verdict, that has none by its address, and whose port stands
 * in `sniffer`. Its first bytes stay in the connection: the way out gets them as they came. Whoever says nothing for the
 * time-out, or something else, is decided without a name; so a server that speaks first waits that long, and no longer. */
#include "forward_impl.h"
#include "sniff.h"

#define PEEK_RANGES 32

bool sniff_port(const struct sniff_ports *ports, uint16_t port)
{
    for (size_t i = 0; i < ports->n; i++)
        if (port >= ports->list[i].first && port <= ports->list[i].last)
            return true;
    return false;
}

bool sniff_may(const struct forward *f, const struct flow_name *name, uint16_t port)
{
    return f->opt.accept == TCP_ACCEPT_AUTO && name->known == NAME_UNKNOWN &&
           (sniff_port(&f->opt.sniff.tls, port) || sniff_port(&f->opt.sniff.http, port));
}

/* What the client has said so far. */
static struct span peek(struct tcp_flow *t, uint8_t bytes[SNIFF_BYTES_MAX])
{
    struct iovec iov[PEEK_RANGES];
    int n = tcp_peek(t->conn, iov, PEEK_RANGES);
    struct buf b;

    buf_init(&b, bytes, SNIFF_BYTES_MAX);
    for (int i = 0; i < n; i++) {
        size_t room = b.cap - b.len;

        buf_put(&b, iov[i].iov_base, iov[i].iov_len < room ? iov[i].iov_len : room);
    }
    return (struct span){ bytes, b.len };
}

static enum sniffed look(const struct sniff_options *o, uint16_t port, struct span in, char name[256])
{
    enum sniffed tls = sniff_port(&o->tls, port) ? sniff_tls(in, name) : SNIFF_NONE, http;

    if (tls == SNIFF_NAME)
        return tls;
    http = sniff_port(&o->http, port) ? sniff_http(in, name) : SNIFF_NONE;
    return http == SNIFF_NONE ? tls : http;
}

/* The rules have decided. */
static void take(struct tcp_flow *t, const struct rule_verdict *verdict)
{
    struct forward *f = t->ways->f;
    enum upstream_kind kind = upstream_kind(forward_way(f, t->ways, verdict->target));

    t->rule = verdict->rule;
    t->target = (uint16_t)verdict->target;
    t->state = TCP_FLOW_DIALING;
    t->up = NULL;
    if (kind == UPSTREAM_REJECT ||
        kind == UPSTREAM_REJECT_DROP) { /* it was answered: silence would be a lie */
        FCOUNT(f, rejected);
        tcp_abort(t->conn);
        return;
    }
    tcp_flow_dial(t);
}

/* @name: NULL: there is none. @owner: NULL: not asked. */
static void decide(struct tcp_flow *t, const struct flow_key *key, const char *name, struct owner *owner)
{
    struct forward *f = t->ways->f;
    struct rule_flow asked = { .client = { key->client, key->client_port },
                               .target = { name, key->target, key->target_port },
                               .proto = IP_PROTO_TCP,
                               .settled = RULE_NEEDS_ADDRESS | RULE_NEEDS_NAME };
    struct rule_verdict verdict;

    wheel_cancel(f->wheel, &t->timer);
    if (!flow_match(f, t->ways, &asked, owner, NULL, &verdict)) {
        owner_leave(owner);
        take(t, &verdict);
        return;
    }
    if (!owner_ask(t->ways, &owner, key, NULL, verdict.needs, t)) {
        FCOUNT(f, undecided);
        tcp_abort(t->conn);
        return;
    }
    strcpy(owner->name.name, name ? name : "");
    t->owner = owner;
    t->state = TCP_FLOW_ASK;
}

void tcp_flow_sniffed(struct tcp_flow *t)
{
    struct owner *owner = t->owner;
    struct flow_key key;

    tcp_flow_key(t, &key);
    decide(t, &key, owner->name.name[0] != '\0' ? owner->name.name : NULL, owner);
}

void tcp_flow_sniff(struct tcp_flow *t, bool last)
{
    struct forward *f = t->ways->f;
    uint8_t bytes[SNIFF_BYTES_MAX];
    struct span in = peek(t, bytes);
    enum sniffed found;
    struct flow_key key;
    char name[256];

    tcp_flow_key(t, &key);
    found = look(&f->opt.sniff, key.target_port, in, name);
    if (found == SNIFF_MORE && !last && in.len < SNIFF_BYTES_MAX && !tcp_at_eof(t->conn))
        return;
    if (found == SNIFF_NAME)
        FCOUNT(f, sniffed);
    decide(t, &key, found == SNIFF_NAME ? name : NULL, NULL);
}

void tcp_flow_sniff_start(struct tcp_flow *t)
{
    struct forward *f = t->ways->f;

    t->state = TCP_FLOW_SNIFF;
    wheel_set(f->wheel, &t->timer, loop_now_us(f->loop) + (uint64_t)f->opt.sniff.timeout_ms * 1000);
}
