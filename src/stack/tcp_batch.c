/* tcp_batch.c - the end of a batch: callbacks first, output afterwards (BAT-1), and the end of connections.
 *
 * A connection that something happened to stands in one of two lists: `ready` (callbacks to run) or `out`
 * (output to make). It is freed here and nowhere else, after on_tcp_closed(), so callbacks may end any
 * connection (ARC-3). */
#include "tcp_impl.h"

static void push(struct conn_list *l, struct tcp_conn *c)
{
    c->list_next = NULL;
    if (l->tail != NULL)
        l->tail->list_next = c;
    else
        l->head = c;
    l->tail = c;
}

static struct tcp_conn *pop(struct conn_list *l)
{
    struct tcp_conn *c = l->head;

    if (c == NULL)
        return NULL;
    l->head = c->list_next;
    if (l->head == NULL)
        l->tail = NULL;
    return c;
}

void tcp_ready(struct tcp_conn *c)
{
    if (c->flags & CONN_LISTED)
        return;
    c->flags |= CONN_LISTED;
    push(&c->s->tcp->ready, c);
}

bool tcp_batch_pending(const struct stack *s)
{
    const struct tcp_shard *t = s->tcp;

    return t->ready.head != NULL || t->out.head != NULL || tcp_request_pending(t);
}

static bool take_event(struct tcp_conn *c, uint32_t event)
{
    bool due = (c->flags & event) && !(c->flags & (CONN_DEAD | CONN_RELEASED));

    c->flags &= ~event;
    return due;
}

static void run_events(struct tcp_conn *c)
{
    const struct stack_events *ev = &c->s->ev;

    if (take_event(c, CONN_EV_OPEN))
        ev->on_tcp_open(c->user);
    if (take_event(c, CONN_EV_READABLE))
        ev->on_tcp_readable(c->user);
    if (take_event(c, CONN_EV_WRITABLE))
        ev->on_tcp_writable(c->user);
}

static void bury(struct tcp_conn *c, int err)
{
    bool tell = !(c->flags & CONN_RELEASED);

    c->flags |= CONN_RELEASED | CONN_DEAD; /* nothing but a look at it may come out of the callback */
    if (tell)
        c->s->ev.on_tcp_closed(c->user, err);
    tcp_conn_free(c);
}

/* Both directions have ended, and the embedder has had every byte and been told of the end. */
static bool is_finished(const struct tcp_conn *c)
{
    return (c->state == TCPS_TIME_WAIT || c->state == TCPS_CLOSED) && c->rcv_held == 0 &&
           !(c->flags & (CONN_EVENTS | CONN_ACK_NOW));
}

static void finish(struct tcp_conn *c)
{
    if (c->state == TCPS_TIME_WAIT)
        tcp_tw_enter(c); /* TW-1: the rest is for a record */
    else
        tcp_table_remove(c->s->tcp, &c->key);
    bury(c, 0);
}

/* Callbacks of one connection; then it waits for output. */
static void run_ready(struct tcp_conn *c)
{
    run_events(c);
    if (c->flags & CONN_DEAD) {
        bury(c, c->err);
        return;
    }
    tcp_recv_settle(c);
    push(&c->s->tcp->out, c);
}

static void run_output(struct tcp_conn *c)
{
    struct tcp_shard *t = c->s->tcp;
    bool more;

    if (c->flags & (CONN_DEAD | CONN_EVENTS)) { /* since it was put here */
        push(&t->ready, c);
        return;
    }
    more = tcp_output(c);
    tcp_check(c);
    if (is_finished(c)) {
        finish(c);
        return;
    }
    if (more) {
        push(&t->out, c);
        return;
    }
    c->flags &= ~(uint32_t)CONN_LISTED;
    if (c->flags & (CONN_DEAD | CONN_EVENTS))
        tcp_ready(c);
}

void tcp_batch_end(struct stack *s)
{
    struct tcp_shard *t = s->tcp;
    uint64_t acks = counter_read(&s->cnt.tcp_pure_acks);
    struct tcp_conn *c;

    tcp_pressure_relieve(s);
    while (tcp_batch_pending(s)) {
        while ((c = pop(&t->ready)) != NULL)
            run_ready(c);
        tcp_request_events(s);
        if (t->ready.head != NULL)
            continue;
        c = pop(&t->out);
        if (c != NULL)
            run_output(c);
    }
    t->turn_of = NULL;
    tcp_request_reap(s);
    tcp_check_sum(s);
    tcp_check_acks(s, acks);
}
