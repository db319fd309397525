/* icmp.c - ICMP messages that arrive: checked, counted and sorted (RFC 792, RFC 4443; icmp.md 2.1 and 2.9).
 * Echo requests go to echo.c, errors to icmp_error.c. Nothing else is for us: a tunnel has no neighbours to discover, and
 * echo replies answer questions that we did not ask. */
#include "ip_impl.h"

#define ICMP_HEADER 8

/* Always computed: the device's word covers TCP and UDP only (icmp.md V5). */
static bool checksum_is_right(const struct packet *p)
{
    uint32_t sum = p->v6 ? csum_pseudo(&p->src, &p->dst, IP_PROTO_ICMPV6, p->l4_len) : 0;

    return csum_fold(csum_add(sum, p->l4, p->l4_len)) == 0xffff;
}

static void input_v4(struct stack *s, struct packet *p)
{
    switch (p->l4[0]) {
    case ICMP4_ECHO:
        echo_input(s, p);
        break;
    case ICMP4_ECHO_REPLY:
        echo_reply_input(s, p);
        break;
    case ICMP4_UNREACHABLE:
    case ICMP4_TIME_EXCEEDED:
    case ICMP4_PARAM_PROBLEM:
        icmp_error_input(s, p);
        break;
    default: /* a number from the wire; source quench among them (RFC 6633) */
        COUNT(s, icmp_ignored);
        break;
    }
}

static void input_v6(struct stack *s, struct packet *p)
{
    switch (p->l4[0]) {
    case ICMP6_ECHO:
        echo_input(s, p);
        break;
    case ICMP6_ECHO_REPLY:
        echo_reply_input(s, p);
        break;
    case ICMP6_UNREACHABLE:
    case ICMP6_TOO_BIG:
    case ICMP6_TIME_EXCEEDED:
    case ICMP6_PARAM_PROBLEM:
        icmp_error_input(s, p);
        break;
    default: /* a number from the wire */
        COUNT(s, icmp_ignored);
        break;
    }
}

void icmp_input(struct stack *s, struct packet *p)
{
    COUNT(s, icmp_in);
    if (p->l4_len < ICMP_HEADER || !checksum_is_right(p)) {
        COUNT_ICMP(s, p->v6, rx_invalid);
        return;
    }
    if (p->v6)
        input_v6(s, p);
    else
        input_v4(s, p);
}
