/* tcp_knobs.c - options of one connection (tcp-stack.md ARC-2: set_option).
 *
 * A connection has one byte for all of them: the number of a set of options in its shard. Set 0 is the
 * configuration's and most never leave it; a set is shared by all who chose the same, and free again when the
 * last of them has ended. */
#include "tcp_impl.h"

static const uint32_t most[TCP_OPTIONS] = {
    [TCP_OPT_USER_TIMEOUT_MS] = UINT32_MAX / 4,
    [TCP_OPT_KEEPALIVE_IDLE_MS] = UINT32_MAX / 4,
    [TCP_OPT_KEEPALIVE_INTERVAL_MS] = UINT32_MAX / 4,
    [TCP_OPT_KEEPALIVE_PROBES] = UINT8_MAX,
    [TCP_OPT_DELAYED_ACK_US] = 500000, /* RFC 9293 MUST-40 */
    [TCP_OPT_QUICK_ACK_SEGMENTS] = UINT8_MAX,
    [TCP_OPT_RESTART_AFTER_IDLE] = 1,
};

void tcp_knobs_init(struct tcp_shard *t, const struct stack_config *c)
{
    t->knobs[0] = (struct tcp_knobs){
        .users = 1, /* the configuration itself */
        .value = {
            [TCP_OPT_USER_TIMEOUT_MS] = c->user_timeout_ms,
            [TCP_OPT_KEEPALIVE_IDLE_MS] = c->keepalive_idle_ms,
            [TCP_OPT_KEEPALIVE_INTERVAL_MS] = c->keepalive_interval_ms,
            [TCP_OPT_KEEPALIVE_PROBES] = c->keepalive_probes,
            [TCP_OPT_DELAYED_ACK_US] = c->delayed_ack_us,
            [TCP_OPT_QUICK_ACK_SEGMENTS] = min_u32(c->quick_ack_segments, UINT8_MAX),
            [TCP_OPT_RESTART_AFTER_IDLE] = c->restart_after_idle,
        },
    };
}

static void use(struct tcp_conn *c, uint32_t set)
{
    struct tcp_shard *t = c->s->tcp;

    t->knobs[set].users++;
    tcp_knobs_drop(c);
    c->knobs = (uint8_t)set;
}

void tcp_knobs_drop(struct tcp_conn *c)
{
    if (c->knobs != 0)
        c->s->tcp->knobs[c->knobs].users--;
    c->knobs = 0;
}

/* Return: the set with these values, or one that nobody uses; KNOB_SETS: neither. */
static uint32_t find_set(const struct tcp_shard *t, const uint32_t *value)
{
    uint32_t free = KNOB_SETS;

    for (uint32_t i = 0; i < KNOB_SETS; i++) {
        if (t->knobs[i].users == 0)
            free = min_u32(free, i);
        else if (memcmp(t->knobs[i].value, value, sizeof(t->knobs[i].value)) == 0)
            return i;
    }
    return free;
}

int tcp_set_option(struct tcp_conn *c, enum tcp_option which, uint32_t value)
{
    struct tcp_shard *t = c->s->tcp;
    uint32_t wanted[TCP_OPTIONS], set;

    if ((uint32_t)which >= TCP_OPTIONS || value > most[which])
        return -EINVAL;
    if (c->flags & (CONN_DEAD | CONN_RELEASED))
        return -ENOTCONN;
    memcpy(wanted, t->knobs[c->knobs].value, sizeof(wanted));
    wanted[which] = value;
    if (c->knobs != 0 && t->knobs[c->knobs].users == 1)
        tcp_knobs_drop(c); /* nobody else's: its place may serve again */
    set = find_set(t, wanted);
    if (set == KNOB_SETS)
        return -ENOBUFS;
    if (t->knobs[set].users == 0)
        memcpy(t->knobs[set].value, wanted, sizeof(wanted));
    use(c, set);
    if (which == TCP_OPT_KEEPALIVE_IDLE_MS && c->state != TCPS_SYN_RECEIVED) {
        tcp_timer_clear(c, TIMER_LIFE);
        tcp_timer_life(c);
    }
    return 0;
}

uint32_t tcp_get_option(const struct tcp_conn *c, enum tcp_option which)
{
    return tcp_knob(c, which);
}
