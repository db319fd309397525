/* icmp.c - ICMP messages that arrive: checked, counted and sorted (RFC 792, RFC 4443; icmp.md 2.1 and 2.9).
 *
 * Echo requests and replies go to echo.c, errors to icmp_error.c. Everything else is counted and nothing
 * more: a tunnel has no neighbours and no groups to discover, and nobody's clock or mask is asked here. What
 * belongs to neighbour or group discovery must look as its RFC says even so, else it counts as invalid (U1,
 * U2). */
#include "ip_impl.h"

#define ICMP_HEADER       8
#define HOPS_OF_NEIGHBOUR 255 /* RFC 4861 section 6.1.1: nobody outside the link can send that */
#define HOPS_OF_MLD       1   /* RFC 2710 section 3 */

/* Always computed: the device's word covers TCP and UDP only (icmp.md V5). */
static bool checksum_is_right(const struct packet *p)
{
    uint32_t sum = p->v6 ? csum_pseudo(&p->src, &p->dst, IP_PROTO_ICMPV6, p->l4_len) : 0;

    return csum_fold(csum_add(sum, p->l4, p->l4_len)) == 0xffff;
}

static void error(struct stack *s, const struct packet *p)
{
    uint8_t type = p->l4[0];

    if (p->v6 ? type == ICMP6_TOO_BIG : type == ICMP4_UNREACHABLE && p->l4[1] == 4)
        COUNT_ICMP(s, p->v6, rx_packet_too_big);
    else if (type == (p->v6 ? ICMP6_UNREACHABLE : ICMP4_UNREACHABLE))
        COUNT_ICMP(s, p->v6, rx_dst_unreachable);
    else if (type == (p->v6 ? ICMP6_TIME_EXCEEDED : ICMP4_TIME_EXCEEDED))
        COUNT_ICMP(s, p->v6, rx_time_exceeded);
    else
        COUNT_ICMP(s, p->v6, rx_param_problem);
    icmp_error_input(s, p);
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
        error(s, p);
        break;
    case ICMP4_REDIRECT:
        COUNT_ICMP(s, false, rx_redirect);
        break;
    case ICMP4_QUENCH: /* RFC 6633: without effect */
    case ICMP4_ROUTER_ADVERT:
    case ICMP4_ROUTER_SOLICIT:
    case ICMP4_TIMESTAMP:
    case ICMP4_TIMESTAMP_REPLY:
    case ICMP4_INFO:
    case ICMP4_INFO_REPLY:
    case ICMP4_MASK:
    case ICMP4_MASK_REPLY:
        COUNT_ICMP(s, false, rx_query);
        break;
    default: /* a number from the wire */
        COUNT_ICMP(s, false, rx_invalid);
        break;
    }
}

static bool is_neighbourly(const struct packet *p)
{
    return p->ttl == HOPS_OF_NEIGHBOUR && p->l4[1] == 0 && !p->fragment_header;
}

static bool is_mld(const struct packet *p)
{
    return p->ttl == HOPS_OF_MLD && p->router_alert && ip_is_link_local(&p->src);
}

static void count_if(struct stack *s, bool sound, bool redirect)
{
    if (!sound)
        COUNT_ICMP(s, true, rx_invalid);
    else if (redirect)
        COUNT_ICMP(s, true, rx_redirect);
    else
        COUNT_ICMP(s, true, rx_query);
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
        error(s, p);
        break;
    case ICMP6_ROUTER_SOLICIT:
    case ICMP6_ROUTER_ADVERT:
    case ICMP6_NEIGHBOUR_SOLICIT:
    case ICMP6_NEIGHBOUR_ADVERT:
    case ICMP6_REDIRECT:
        count_if(s, is_neighbourly(p), p->l4[0] == ICMP6_REDIRECT);
        break;
    case ICMP6_MLD_QUERY:
    case ICMP6_MLD_REPORT:
    case ICMP6_MLD_DONE:
    case ICMP6_MLD2_REPORT:
        count_if(s, is_mld(p), false);
        break;
    default: /* a number from the wire */
        COUNT_ICMP(s, true, rx_unrecognized);
        break;
    }
}

/* The IP layer's own count comes last: a request with a bad IPv4 option is malformed IP, not ICMP (icmp.md
 * P6). */
void icmp_input(struct stack *s, struct packet *p)
{
    if (p->l4_len < ICMP_HEADER || !checksum_is_right(p)) {
        COUNT(s, icmp_in);
        COUNT_ICMP(s, p->v6, rx_invalid);
        return;
    }
    if (!p->v6 && p->l4[0] == ICMP4_ECHO && !ip_options_for_reply(s, p, &s->reply_options)) {
        COUNT(s, ip_malformed);
        return;
    }
    COUNT(s, icmp_in);
    if (p->v6)
        input_v6(s, p);
    else
        input_v4(s, p);
}
