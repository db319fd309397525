/* udp_io.c - UDP packets: verified on the way in, built on the way out (RFC 768, RFC 8200 section 8.1).
 *
 * In: length and checksum are right before anybody hears of a datagram (icmp.md UF2). The owner of a client's
 * port is named by a keyed hash that all shards share, whatever queue the kernel chose (design.md 3.3). A
 * super-packet of datagrams (USO) stays one all the way. Out: a row of equal datagrams leaves as one
 * super-packet when the device takes those, one by one when it does not; what is larger than the MTU is cut
 * into fragments by ip_output(). */
#include "udp_impl.h"

#define V4_DATA_MAX      (IP_MAX - V4_HEADER - UDP_HEADER) /* 65,507 */
#define V6_DATA_MAX      (IP_MAX - UDP_HEADER)
#define PATH_MTU_LIFE_US 600000000
#define GSO_MAX          128 /* datagrams in a super-packet (VN-6) */

/* All that a waiting datagram needs lies in front of the room that frag.c uses for an IPv6 header. */
_Static_assert(sizeof(struct block) + sizeof(struct udp_item) <= BLOCK_HEADROOM - V6_HEADER,
               "headroom is shared");

/* ---- in ------------------------------------------------------------------------------------------------ */

static bool checksum_is_right(struct stack *s, const struct packet *p)
{
    if (p->l4[6] == 0 && p->l4[7] == 0)
        return !p->v6; /* none; IPv6 has no header checksum that would make up for it */
    if (p->csum_ok)
        return true;
    COUNT_ADD(s, payload_summed, p->l4_len);
    return csum_fold(csum_add(csum_pseudo(&p->src, &p->dst, IP_PROTO_UDP, p->l4_len), p->l4, p->l4_len)) ==
           0xffff;
}

/* Packet memory that outlives this call: the slot itself, or a copy. */
static struct block *keep(struct stack *s, const struct packet *p)
{
    struct block *b = p->slot;
    const uint8_t *ip = p->ip;

    if (b != NULL)
        b->refs++;
    else
        b = ip_copy(s, p->ip, p->ip_len, &ip);
    if (b != NULL)
        *udp_item(b) =
            (struct udp_item){ .ip = ip,
                               .data.iov_base = (void *)(uintptr_t)(ip + (p->l4 - p->ip) + UDP_HEADER) };
    return b;
}

static bool owner_took_it(struct stack *s, const struct packet *p)
{
    struct packet verified = *p;

    verified.meta.csum_valid = true;
    if (!udp_owner_took_it(s, &verified, &p->src, get_be16(p->l4)))
        return false;
    COUNT(s, udp_passed_on);
    return true;
}

/* icmp.md UF6: nobody can be its endpoint; it is shown where it lies. */
static void show_to_many(struct stack *s, const struct packet *p)
{
    struct iovec data = { .iov_base = (uint8_t *)(uintptr_t)p->l4 + UDP_HEADER,
                          .iov_len = p->l4_len - UDP_HEADER };
    struct udp_datagram d = { .client = { p->src, get_be16(p->l4) },
                              .target = { p->dst, get_be16(p->l4 + 2) },
                              .data = &data,
                              .ranges = 1,
                              .len = data.iov_len,
                              .ttl = p->ttl,
                              .tos = p->tos };

    COUNT(s, udp_delivered);
    s->ev.on_udp_broadcast(s->arg, &d, p->multicast);
}

void udp_input(struct stack *s, struct packet *p)
{
    struct udp_item *i;
    struct block *b;

    COUNT(s, udp_in);
    if (p->l4_len < UDP_HEADER || get_be16(p->l4 + 4) != p->l4_len) {
        COUNT(s, udp_length);
        return;
    }
    if (!checksum_is_right(s, p)) {
        COUNT(s, udp_checksum);
        return;
    }
    if (p->broadcast || p->multicast) {
        show_to_many(s, p);
        return;
    }
    if (owner_took_it(s, p))
        return;
    b = keep(s, p);
    if (b == NULL) {
        COUNT(s, udp_held_dropped);
        return;
    }
    i = udp_item(b);
    i->ip_len = p->ip_len;
    i->data.iov_len = p->l4_len - UDP_HEADER;
    i->gso_size = p->meta.gso == PKT_GSO_UDP && p->meta.gso_size < i->data.iov_len ? p->meta.gso_size : 0;
    i->tag = get_be32(p->l4) ^ get_be32(p->src.b + 12) ^ get_be32(p->dst.b + 12);
    i->ttl = p->ttl;
    i->tos = p->tos;
    udp_queue_append(&s->udp->ready, b);
}

/* ---- datagrams that wait ------------------------------------------------------------------------------- */

static const uint8_t *item_header(const struct udp_item *i)
{
    return (const uint8_t *)i->data.iov_base - UDP_HEADER;
}

struct flow_key udp_item_key(const struct udp_item *i)
{
    bool v6 = i->ip[0] >> 4 == 6;

    return (struct flow_key){ .client = v6 ? ip_from6(i->ip + 8) : ip_from4(i->ip + 12),
                              .target = v6 ? ip_from6(i->ip + 24) : ip_from4(i->ip + 16),
                              .client_port = get_be16(item_header(i)),
                              .target_port = get_be16(item_header(i) + 2),
                              .proto = IP_PROTO_UDP };
}

struct block *udp_item_compact(struct stack *s, struct block *b)
{
    struct packet p = { .ip = udp_item(b)->ip, .ip_len = udp_item(b)->ip_len };
    struct udp_item old = *udp_item(b);
    struct block *copy;

    if (b->class_ != BLOCK_SLOT && b->class_ == block_class_for(old.ip_len))
        return b;
    p.l4 = item_header(&old);
    copy = keep(s, &p);
    if (copy != NULL) {
        struct udp_item *i = udp_item(copy);

        old.ip = i->ip;
        old.data.iov_base = i->data.iov_base;
        *i = old;
    }
    block_put(s, b);
    return copy;
}

void udp_item_show(const struct udp_item *i, struct udp_datagram *out)
{
    struct flow_key k = udp_item_key(i);

    *out = (struct udp_datagram){ .client = { k.client, k.client_port },
                                  .target = { k.target, k.target_port },
                                  .data = &i->data,
                                  .ranges = 1,
                                  .len = i->data.iov_len,
                                  .gso_size = i->gso_size,
                                  .ttl = i->ttl,
                                  .tos = i->tos };
}

void udp_item_reject(struct stack *s, const struct udp_item *i, enum stack_reject why)
{
    struct flow_key k = udp_item_key(i);
    struct packet p = { .src = k.client,
                        .dst = k.target,
                        .ip = i->ip,
                        .ip_len = i->ip_len,
                        .l4 = item_header(i),
                        .l4_len = (uint32_t)i->data.iov_len + UDP_HEADER,
                        .proto = IP_PROTO_UDP,
                        .ttl = i->ttl,
                        .tos = i->tos,
                        .v6 = i->ip[0] >> 4 == 6 };

    icmp_send_error(s, &p, why, 0);
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

#define ROW_LOOK_AHEAD 64 /* waiting datagrams that are looked at for one row: two batches of the device */

static bool same_ends(const struct udp_item *a, const struct udp_item *b)
{
    struct flow_key x, y;

    if (a->tag != b->tag)
        return false;
    x = udp_item_key(a);
    y = udp_item_key(b);
    return flow_key_equal(&x, &y);
}

/* Does @i go on with a row of @size? It may be of that size, a row of its own of that size, or shorter and
 * the end. */
static bool continues(const struct udp_item *first, const struct udp_item *i, size_t size)
{
    if (i->ttl != first->ttl || i->tos != first->tos || i->data.iov_len == 0)
        return false;
    return i->gso_size > 0 ? i->gso_size == size : i->data.iov_len <= size;
}

static void row_add(struct udp_queue *row, struct block *b, struct iovec *iov, struct udp_datagram *out)
{
    iov[out->ranges++] = udp_item(b)->data;
    out->len += udp_item(b)->data.iov_len;
    udp_queue_append(row, b);
}

uint32_t udp_row_take(struct udp_queue *q, struct udp_queue *row, struct iovec *iov, struct udp_datagram *out)
{
    struct block *b = udp_queue_take(q), *before = NULL, *next;
    const struct udp_item *first = udp_item(b);
    size_t size = first->gso_size > 0 ? first->gso_size : first->data.iov_len;

    udp_item_show(first, out);
    out->data = iov;
    out->ranges = 0;
    out->len = 0;
    row_add(row, b, iov, out);
    b = q->first;
    for (int looked = 0; b != NULL && size > 0 && looked < ROW_LOOK_AHEAD; looked++, b = next) {
        next = b->next;
        if (!same_ends(first, udp_item(b))) {
            before = b;
            continue;
        }
        if (out->len % size != 0 || out->ranges == UDP_ROW_RANGES || !continues(first, udp_item(b), size))
            break;
        udp_queue_unlink(q, before, b);
        row_add(row, b, iov, out);
    }
    out->gso_size = out->ranges > 1 ? (uint16_t)size : first->gso_size;
    return row->count;
}

/* ---- out ----------------------------------------------------------------------------------------------- */

/* What a too-big taught us is believed for ten minutes (RFC 8201 section 4). */
static uint32_t path_mtu(struct udp_node *n)
{
    if (n->path_mtu != 0 && n->s->now_us - n->path_mtu_us >= PATH_MTU_LIFE_US)
        n->path_mtu = 0;
    return n->path_mtu;
}

static int send_datagram(struct stack *s, struct ip_out *o, const struct ip_port *from, uint16_t to_port,
                         const struct iovec *iov, int iovcnt, size_t len)
{
    uint8_t room[IP_OUT_HEADROOM + UDP_HEADER], *h = room + IP_OUT_HEADROOM;

    if (len > (ip_is4(&o->dst) ? V4_DATA_MAX : V6_DATA_MAX)) {
        COUNT(s, udp_too_big);
        return -EMSGSIZE;
    }
    o->src = from->addr;
    o->proto = IP_PROTO_UDP;
    o->ttl = s->cfg.ttl;
    o->csum_offset = 6;
    if (ip_is4(&o->dst))
        o->ip_id = (uint16_t)prng_next(&s->prng);
    put_be16(h, from->port);
    put_be16(h + 2, to_port);
    put_be16(h + 4, (uint16_t)(UDP_HEADER + len));
    put_be16(h + 6, 0);
    COUNT(s, udp_out);
    return ip_output(s, o, h, UDP_HEADER, iov, iovcnt);
}

static int send_one(struct udp_node *n, const struct ip_port *source, const struct iovec *iov, int iovcnt,
                    size_t len, uint16_t gso_size)
{
    struct ip_out o = { .dst = n->key.client, .gso_size = gso_size, .path_mtu = path_mtu(n) };

    return send_datagram(n->s, &o, source, n->key.client_port, iov, iovcnt, len);
}

/* Is this row what the device takes as one super-packet: equal sizes, the last may be shorter, and each fits
 * the MTU? */
static bool is_super(struct udp_node *n, const struct iovec *iov, int iovcnt, uint16_t gso_size, size_t len)
{
    size_t headers = UDP_HEADER + (ip_is4(&n->key.client) ? V4_HEADER : V6_HEADER), mtu = path_mtu(n);
    const struct stack *s = n->s;

    if (!s->cfg.offload_uso || !s->cfg.offload_csum || iovcnt < 2 || iovcnt > GSO_MAX ||
        headers + len > IP_MAX || gso_size + headers > s->cfg.mtu_bytes ||
        (mtu != 0 && gso_size + headers > mtu))
        return false;
    for (int i = 0; i < iovcnt - 1; i++) {
        if (iov[i].iov_len != gso_size)
            return false;
    }
    return iov[iovcnt - 1].iov_len > 0 && iov[iovcnt - 1].iov_len <= gso_size;
}

int udp_send(struct udp_endpoint *e, const struct ip_port *source, const struct iovec *iov, int iovcnt,
             uint16_t gso_size)
{
    struct udp_node *n = (struct udp_node *)e;
    size_t len = 0;
    int r = 0;

    if (ip_is4(&source->addr) != ip_is4(&n->key.client))
        return -EAFNOSUPPORT;
    for (int i = 0; i < iovcnt; i++)
        len += iov[i].iov_len;
    if (!ip_may_send_from(n->s, &source->addr, &n->asked.addr)) /* icmp.md N2 */
        return -EADDRNOTAVAIL;
    if (gso_size == 0)
        return send_one(n, source, iov, iovcnt, len, 0);
    if (is_super(n, iov, iovcnt, gso_size, len))
        return send_one(n, source, iov, iovcnt, len, gso_size);
    for (int i = 0; i < iovcnt; i++) {
        int one = send_one(n, source, iov + i, 1, iov[i].iov_len, 0);

        if (r == 0)
            r = one;
    }
    return r;
}

int udp_inject(struct stack *s, const struct ip_port *from, const struct ip_port *to, const struct iovec *iov,
               int iovcnt)
{
    struct ip_out o = { .dst = to->addr };
    size_t len = 0;

    if (ip_is4(&from->addr) != ip_is4(&to->addr))
        return -EAFNOSUPPORT;
    if (!ip_may_send_from(s, &from->addr, NULL))
        return -EADDRNOTAVAIL;
    for (int i = 0; i < iovcnt; i++)
        len += iov[i].iov_len;
    return send_datagram(s, &o, from, to->port, iov, iovcnt, len);
}

void udp_endpoint_error(struct udp_endpoint *e, const struct ip_port *target, const struct ip_addr *offender,
                        enum stack_reject why, uint32_t mtu)
{
    struct udp_node *n = (struct udp_node *)e;
    struct flow_key flow = { .client = n->key.client,
                             .target = target->addr,
                             .client_port = n->key.client_port,
                             .target_port = target->port,
                             .proto = IP_PROTO_UDP };
    uint8_t h[UDP_HEADER] = { 0 };

    if (ip_is4(&flow.client) != ip_is4(&flow.target))
        return;
    put_be16(h, flow.client_port);
    put_be16(h + 2, flow.target_port);
    put_be16(h + 4, UDP_HEADER);
    icmp_send_error_for(n->s, &flow, h, sizeof(h),
                        offender != NULL && !ip_is_none(offender) ? offender : &flow.target, why, mtu);
}
