/* ping_quote.c - received messages and error records, and what of them a client may see (icmp.md 4.4, 4.5). Pure.
 *
 * An error reaches us with what a router quoted of OUR request: the kernel's id, on a shared socket our own number, in IPv6 our
 * own address in the checksum. The client must find its own datagram in the quote, or its ping and traceroute would not
 * know it. So the header comes from what was kept; where that is overwritten it is rebuilt, and the checksum is taken back
 * from ours to the client's by incremental update (RFC 1624), which is exact because only known words differ. */
#include "ping_impl.h"

#include <time.h> /* linux/errqueue.h wants struct timespec */
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define MTU_MIN4 68   /* RFC 791 */
#define MTU_MIN6 1280 /* RFC 8200 */
#define MTU_OLD  576  /* for a router that does not say (RFC 1191 section 4, the smallest usual one) */
#define QUOTE4   548  /* 576 less 20 and 8 (U7) */
#define HEADER4  20
#define HEADER6  40

/* ---- checksums ---------------------------------------------------------------------------------------------------- */

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint16_t ping_sum(const void *data, size_t len, uint32_t start)
{
    const uint8_t *p = data;
    uint32_t sum = start;

    for (; len > 1; len -= 2, p += 2) {
        sum += get_be16(p);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if (len > 0)
        sum += (uint32_t)p[0] << 8;
    return (uint16_t)~fold(sum);
}

uint16_t ping_sum_replace(uint16_t sum, const void *from, const void *to, size_t len)
{
    const uint8_t *a = from, *b = to;
    uint32_t s = (uint16_t)~sum; /* RFC 1624, equation 3: HC' = ~(~HC + ~m + m') */

    for (size_t i = 0; i + 1 < len; i += 2) {
        s += (uint16_t)~get_be16(a + i);
        s += get_be16(b + i);
        s = (s & 0xffff) + (s >> 16);
    }
    return (uint16_t)~fold(s);
}

/* ---- received messages ------------------------------------------------------------------------------------------------ */

/* A raw IPv4 socket reads the IP header, too. */
static bool take_header4(struct span *in, struct ping_message *out)
{
    size_t len;

    if (in->len < HEADER4 || in->data[0] >> 4 != 4)
        return false;
    len = (size_t)(in->data[0] & 0xf) * 4;
    if (len < HEADER4 || len > in->len)
        return false;
    out->tos = in->data[1];
    out->ttl = in->data[8];
    span_skip(in, len);
    return true;
}

enum ping_read ping_read_message(struct span bytes, bool v6, bool raw, struct ping_message *out)
{
    struct ping_message m = { 0 };

    if ((raw && !v6 && !take_header4(&bytes, &m)) || bytes.len < PING_HEADER)
        return PING_READ_BAD;
    if (raw && !v6 &&
        ping_sum(bytes.data, bytes.len, 0) != 0) /* a raw socket reads before the kernel checks */
        return PING_READ_BAD;
    if (bytes.data[0] != (v6 ? PING6_REPLY : PING4_REPLY) || bytes.data[1] != 0)
        return PING_READ_OTHER;
    m.id = get_be16(bytes.data + 4);
    m.seq = get_be16(bytes.data + 6);
    m.payload = bytes.data + PING_HEADER;
    m.payload_len = (uint32_t)(bytes.len - PING_HEADER);
    *out = m;
    return PING_READ_REPLY;
}

/* ---- error records --------------------------------------------------------------------------------------------------------- */

static void take_offender(const struct cmsghdr *c, struct ping_error_record *out)
{
    const uint8_t *data = CMSG_DATA(c);
    size_t have = c->cmsg_len - CMSG_LEN(0), at = sizeof(struct sock_extended_err);
    struct sockaddr_in6 name; /* the longer one; it need not lie aligned */
    struct ip_port p;

    memset(&name, 0, sizeof(name));
    memcpy(&name, data + at, have - at < sizeof(name) ? have - at : sizeof(name));
    if (ip_from_sockaddr((struct sockaddr *)&name, &p) == 0)
        out->offender = p.addr;
}

static bool take_record(const struct cmsghdr *c, struct ping_error_record *out)
{
    struct sock_extended_err e;

    if (c->cmsg_len < CMSG_LEN(sizeof(e)))
        return false;
    memcpy(&e, CMSG_DATA(c), sizeof(e));
    out->origin = e.ee_origin;
    out->type = e.ee_type;
    out->code = e.ee_code;
    out->err = (int)e.ee_errno;
    out->info = e.ee_info;
    if (c->cmsg_len > CMSG_LEN(sizeof(e)))
        take_offender(c, out);
    return true;
}

/* Does all of @c lie inside the control bytes? The kernel's does. */
static bool is_whole(const struct msghdr *m, const struct cmsghdr *c)
{
    size_t at = (size_t)((const uint8_t *)c - (const uint8_t *)m->msg_control);

    return c->cmsg_len >= CMSG_LEN(0) && c->cmsg_len <= m->msg_controllen - at;
}

bool ping_read_error(const struct msghdr *m, struct span data, struct ping_error_record *out)
{
    struct ping_error_record e = { .quoted = data };
    struct msghdr *walk = (struct msghdr *)(uintptr_t)m; /* CMSG_NXTHDR wants it so; nothing is written */
    struct sockaddr_in6 name;
    struct ip_port p;
    bool found = false;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(walk); c && is_whole(m, c); c = CMSG_NXTHDR(walk, c)) {
        if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
            (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR)) {
            found = take_record(c, &e) || found;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO &&
                   c->cmsg_len >= CMSG_LEN(sizeof(struct in6_pktinfo))) {
            struct in6_pktinfo info;

            memcpy(&info, CMSG_DATA(c), sizeof(info));
            e.source = ip_from6(info.ipi6_addr.s6_addr);
        }
    }
    memset(&name, 0, sizeof(name));
    if (m->msg_name)
        memcpy(&name, m->msg_name, m->msg_namelen < sizeof(name) ? m->msg_namelen : sizeof(name));
    if (ip_from_sockaddr((struct sockaddr *)&name, &p) == 0)
        e.target = p.addr;
    if (found)
        *out = e;
    return found;
}

/* ---- what a client is told -------------------------------------------------------------------------------------------------- */

static uint32_t told_mtu(uint32_t said, bool v6, uint32_t limit)
{
    uint32_t mtu = said == 0 && !v6 ? MTU_OLD : said, least = v6 ? MTU_MIN6 : MTU_MIN4;

    if (limit > 0 && mtu > limit)
        mtu = limit;
    return mtu < least ? least : mtu;
}

static enum ping_error_action too_big(const struct ping_error_record *e, bool v6, uint32_t limit,
                                      uint8_t *type, uint8_t *code, uint32_t *info)
{
    *type = v6 ? PING6_TOO_BIG : PING4_UNREACH;
    *code = v6 ? 0 : 4;
    *info = told_mtu(e->info, v6, limit);
    return PING_ERROR_TELL;
}

enum ping_error_action ping_error_map(const struct ping_error_record *e, bool v6, uint32_t limit,
                                      uint8_t *type, uint8_t *code, uint32_t *info)
{
    if (e->origin == SO_EE_ORIGIN_LOCAL) /* E7; any other word of our kernel comes with the send (E8) */
        return e->err == EMSGSIZE ? too_big(e, v6, limit, type, code, info) : PING_ERROR_DROP;
    if (e->origin != (v6 ? SO_EE_ORIGIN_ICMP6 : SO_EE_ORIGIN_ICMP))
        return PING_ERROR_DROP;
    if (v6 ? e->type == PING6_TOO_BIG : e->type == PING4_UNREACH && e->code == 4) /* E4 */
        return too_big(e, v6, limit, type, code, info);
    *type = e->type;
    *code = e->code;
    *info = 0;
    if (e->type == (v6 ? PING6_EXPIRED : PING4_EXPIRED)) /* E1, E2 */
        return e->code <= 1 ? PING_ERROR_TELL : PING_ERROR_DROP;
    if (e->type == (v6 ? PING6_UNREACH : PING4_UNREACH)) /* E3 */
        return PING_ERROR_TELL;
    if (e->type != (v6 ? PING6_PARAMETER : PING4_PARAMETER)) /* E6 and what there may be in the future */
        return PING_ERROR_DROP;
    *info = v6 ? e->info : e->info & 0xff; /* E5 */
    return PING_ERROR_TELL;
}

bool ping_quoted_echo(struct span quoted, bool v6, uint16_t *id, uint16_t *seq)
{
    if (quoted.len < PING_HEADER || quoted.data[0] != (v6 ? PING6_REQUEST : PING4_REQUEST))
        return false;
    *id = get_be16(quoted.data + 4);
    *seq = get_be16(quoted.data + 6);
    return true;
}

/* ---- the client's datagram ------------------------------------------------------------------------------------------------------ */

static size_t put_header4(const struct ping_original *o, size_t icmp_len, uint8_t *out)
{
    size_t len = HEADER4;

    if (o->sent && o->sent->header_len >= HEADER4) {
        len = o->sent->header_len;
        memcpy(out, o->sent->header, len);
    } else {
        memset(out, 0, HEADER4);
        out[0] = 0x45;
        put_be16(out + 2, (uint16_t)(HEADER4 + icmp_len));
        out[9] = IP_PROTO_ICMP;
        memcpy(out + 12, o->client.b + 12, 4);
        memcpy(out + 16, o->target.b + 12, 4);
    }
    out[8] = 1; /* as a router sees it that has no hop left to give */
    put_be16(out + 10, 0);
    put_be16(out + 10, ping_sum(out, len, 0));
    return len;
}

static size_t put_header6(const struct ping_original *o, size_t icmp_len, uint8_t *out)
{
    if (o->sent && o->sent->header_len == HEADER6) {
        memcpy(out, o->sent->header, HEADER6);
    } else {
        memset(out, 0, HEADER6);
        out[0] = 0x60;
        memcpy(out + 8, o->client.b, 16);
        memcpy(out + 24, o->target.b, 16);
    }
    put_be16(out + 4, (uint16_t)icmp_len);
    out[6] = IP_PROTO_ICMPV6; /* extension headers are not kept */
    out[7] = 1;
    return HEADER6;
}

/* The checksum of the client's request, from the one that was on the wire. */
static uint16_t restored_sum(const struct ping_original *o, const uint8_t *quoted, bool v6)
{
    uint8_t ours[4], theirs[4];
    uint16_t sum = get_be16(quoted + 2);

    memcpy(ours, quoted + 4, sizeof(ours));
    put_be16(theirs, o->id);
    put_be16(theirs + 2, o->seq);
    sum = ping_sum_replace(sum, ours, theirs, sizeof(ours));
    if (v6 && !ip_is_none(&o->wire_source))
        sum = ping_sum_replace(sum, o->wire_source.b, o->client.b, 16);
    return sum;
}

uint16_t ping_quote(const struct ping_original *o, struct span quoted, uint8_t out[PING_QUOTE_MAX])
{
    bool v6 = !ip_is4(&o->target);
    size_t most = v6 ? PING_QUOTE_MAX : QUOTE4, len, left;
    size_t icmp_len = o->sent ? o->sent->len : quoted.len;

    len = v6 ? put_header6(o, icmp_len, out) : put_header4(o, icmp_len, out);
    out[len] = v6 ? PING6_REQUEST : PING4_REQUEST;
    out[len + 1] = 0;
    put_be16(out + len + 2, o->sent ? o->sent->checksum : restored_sum(o, quoted.data, v6));
    put_be16(out + len + 4, o->id);
    put_be16(out + len + 6, o->seq);
    len += PING_HEADER;
    span_skip(&quoted, quoted.len < PING_HEADER ? quoted.len : PING_HEADER);
    left = quoted.len < most - len ? quoted.len : most - len;
    if (left > 0)
        memcpy(out + len, quoted.data, left);
    return (uint16_t)(len + left);
}
