/* sim.c - see sim.h: the embedder's side of the simulated connection, and the run. The link is in sim_link.c, the client in
 * sim_client.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_impl.h"
#include "stack/tcp_impl.h"

/* ---- the embedder ----------------------------------------------------------------------------------------- */

static void relay_reads(struct lab *lab)
{
    struct sim *s = lab->hook_arg;

    if (!s->o.stalled_relay) {
        while (tcp_readable_bytes(lab->conn) > 0)
            lab_read(lab, SIZE_MAX);
    }
    lab->eof = tcp_at_eof(lab->conn);
}

/* A few bytes at a time, each a batch of its own. */
static void trickle(struct sim *s)
{
    struct lab *lab = s->lab;

    if (lab->now_us < s->relay_at)
        return;
    s->relay_at = lab->now_us + 300;
    if (lab->to_put < s->o.down_bytes)
        lab->to_put += s->o.write_bytes;
    lab->shutdown_when_put = lab->to_put >= s->o.down_bytes;
    if (lab->shutdown_when_put)
        lab->to_put = s->o.down_bytes;
    lab_write(lab, 0);
}

static bool relay_is_timed(const struct sim *s)
{
    if (s->lab->conn == NULL)
        return false;
    return s->o.stalled_relay || (s->o.write_bytes > 0 && !s->lab->shutdown_when_put);
}

static void relay_turn(struct sim *s)
{
    struct lab *lab = s->lab;

    if (lab->conn != NULL && s->o.stalled_relay && lab->now_us >= s->relay_at) {
        lab_read(lab, 1 + prng_below(&s->rng, 30000));
        s->relay_at = lab->now_us + 5000;
    }
    if (lab->conn != NULL && lab->eof && s->o.down_after_up && lab->to_put == 0 && !lab->shutdown_when_put) {
        lab->shutdown_when_put = true;
        lab_write(lab, s->o.down_bytes);
    }
    if (lab->conn != NULL && s->o.message_bytes > 0) {
        lab->shutdown_when_put = lab->got >= s->o.down_bytes;
        lab->to_put = lab->got / s->o.message_bytes * s->o.message_bytes;
        if (lab->shutdown_when_put)
            lab->to_put = s->o.down_bytes;
        lab_write(lab, 0);
    } else if (lab->conn != NULL && s->o.write_bytes > 0) {
        trickle(s);
    }
    lab_batch(lab);
}

/* ---- the run ------------------------------------------------------------------------------------------------------------- */

static void choose_iss(struct sim *s)
{
    uint32_t edge = s->o.wrap == 2 ? 0x80000000u : 0, found = 0;
    struct stack *fake = calloc(1, sizeof(*fake));
    struct flow_key flow = { .client_port = 40000, .target_port = 80, .proto = IP_PROTO_TCP };
    struct tcp_key key;

    ip_parse(s->o.lab.v6 ? "fd00::2" : "10.0.0.2", &flow.client);
    ip_parse(s->o.lab.v6 ? "2001:db8::80" : "192.0.2.80", &flow.target);
    tcp_key_of(&flow, &key);
    fake->now_us = 1000000000;
    fake->cfg = s->o.lab.config;
    while (edge - tcp_iss(fake, &key) > 60000 || edge == tcp_iss(fake, &key))
        fake->cfg.secret.k0 = ++found;
    s->o.lab.config.secret = fake->cfg.secret;
    s->o.lab.irs = edge - 1 - prng_below(&s->rng, 60000);
    free(fake);
}

static uint64_t next_time(const struct sim *s)
{
    const struct client *c = &s->c;
    uint64_t at = stack_next_deadline(s->lab->stack);

    if (s->events > 0 && s->heap[0].at < at)
        at = s->heap[0].at;
    if (c->rto_at < at)
        at = c->rto_at;
    if (c->ack_at < at)
        at = c->ack_at;
    if (c->syn_at < at)
        at = c->syn_at;
    if (relay_is_timed(s) && s->relay_at < at)
        at = s->relay_at;
    return at;
}

static void to_stack(struct sim *s, const struct event *e)
{
    if (e->kind == ICMP_TO_STACK) {
        sim_too_big(s, &e->out);
        return;
    }
    if (getenv("SIM_TRACE") != NULL)
        fprintf(stderr, "%10.3f < flags %u seq %u len %u gso %u ack %u sacks %d%s\n",
                (double)(s->lab->now_us - 1000000000) / 1000, e->seg.flags, e->seg.seq, e->seg.len,
                e->seg.gso_size, e->seg.ack, e->seg.sacks, e->seg.flip_bit != 0 ? " corrupt" : "");
    lab_feed(s->lab, &e->seg);
}

static void step(struct sim *s)
{
    struct lab *lab = s->lab;
    unsigned batch = s->o.batch_packets > 1 ? 1 + prng_below(&s->rng, s->o.batch_packets) : 1;

    s->burst = 0;
    stack_advance(lab->stack, lab->now_us);
    while (sim_due(s)) {
        struct event e = sim_pop(s);

        if (e.kind == TO_CLIENT) {
            client_input(s, &e.out);
            continue;
        }
        to_stack(s, &e);
        if (--batch == 0) {
            lab_batch(lab);
            batch = s->o.batch_packets > 1 ? 1 + prng_below(&s->rng, s->o.batch_packets) : 1;
        }
    }
    lab_batch(lab);
    if (s->c.rto_at <= lab->now_us)
        client_timeout(s);
    if (s->c.ack_at <= lab->now_us)
        client_ack(s);
    if (s->c.syn_at <= lab->now_us)
        client_syn(s);
    client_sends(s);
    relay_turn(s);
}

static bool finished(const struct sim *s)
{
    return s->lab->closes > 0 && s->c.fin_seen && s->c.fin_acked;
}

void sim_options_default(struct sim_options *o)
{
    memset(o, 0, sizeof(*o));
    lab_options_default(&o->lab);
    o->link = (struct sim_link){ .delay_us = 5000, .reorder_us = 3000 };
    o->seed = 1;
    o->up_bytes = o->down_bytes = 200000;
    o->batch_packets = 8;
    o->deadline_us = 300ull * 1000000;
}

struct sim_result sim_run(const struct sim_options *o)
{
    struct sim *s = calloc(1, sizeof(*s));
    struct sim_result r;

    s->o = *o;
    prng_seed(&s->rng, o->seed);
    if (o->wrap != 0)
        choose_iss(s);
    s->lab = lab_new(&s->o.lab);
    s->lab->keep_payload = false;
    s->lab->hook = sim_from_stack;
    s->lab->hook_arg = s;
    s->lab->on_readable = relay_reads;
    if (o->prepare != NULL)
        o->prepare(s->lab, o->prepare_arg);
    if (!o->down_after_up && o->message_bytes == 0 && o->write_bytes == 0) {
        s->lab->to_put = o->down_bytes;
        s->lab->shutdown_when_put = true;
    }
    s->heap = calloc(SIM_EVENTS, sizeof(*s->heap));
    s->c.mss = s->c.seg = 1400;
    if (o->message_bytes > 0 && o->message_bytes < s->c.seg)
        s->c.seg = o->message_bytes;
    if (o->write_bytes > 0)
        s->c.seg = o->write_bytes;
    s->c.nsegs = (size_t)((o->up_bytes + s->c.seg - 1) / s->c.seg);
    s->c.segs = calloc(s->c.nsegs + 1, 1);
    s->c.sent_at = calloc(s->c.nsegs + 1, sizeof(uint64_t));
    s->c.have = calloc(o->down_bytes + 1, 1);
    s->c.rto_at = s->c.ack_at = NEVER;
    s->c.syn_at = s->lab->now_us;
    s->o.blackout_at_us += s->lab->now_us;
    s->o.narrow_at_us += s->lab->now_us;
    s->relay_at = s->lab->now_us;
    {
        uint64_t start = s->lab->now_us;

        while (!finished(s) && s->r.why == NULL && !s->c.reset && s->lab->now_us - start < o->deadline_us) {
            uint64_t at = next_time(s);

            if (at == NEVER) {
                s->r.why = "nothing is going to happen any more";
                break;
            }
            if (at > s->lab->now_us)
                s->lab->now_us = at;
            step(s);
        }
        s->r.took_us = s->lab->now_us - start;
    }
    s->r.wrong = s->r.why != NULL || s->lab->got_wrong;
    s->r.reset = s->c.reset;
    if (s->c.reset)
        s->r.why = "the stack reset the connection";
    else if (s->r.why == NULL && !finished(s))
        s->r.why = "not over in time";
    else if (s->r.why == NULL && (s->c.got != o->down_bytes || s->lab->got != o->up_bytes))
        s->r.why = "a stream is short";
    else if (s->r.why == NULL && s->lab->got_wrong)
        s->r.why = "the stack delivered a wrong byte";
    else if (s->r.why == NULL && s->lab->close_err != 0)
        s->r.why = "the connection did not end in order";
    s->r.up_twice = stack_counters(s->lab->stack)->tcp_duplicate;
    s->r.done = s->r.why == NULL;
    r = s->r;
    lab_free(s->lab);
    free(s->heap);
    free(s->c.segs);
    free(s->c.sent_at);
    free(s->c.have);
    free(s);
    return r;
}
