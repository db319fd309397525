/* tun.c - opening and closing a device, and packets in and out of its queues.
 * The virtio-net header travels in a vector of its own, so that a packet starts where the caller wants it and payload ranges are
 * written from where they are (tcp-stack.md DN-2). A packet that the kernel does not take is a packet lost on the way. */
#include "tun_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

const struct counter_desc tun_counter_descs[] = {
    { "tun.rx_packets", offsetof(struct tun_counters, rx_packets) },
    { "tun.rx_bytes", offsetof(struct tun_counters, rx_bytes) },
    { "tun.vnet", offsetof(struct tun_counters, rx_vnet_bad) }, /* the name of faults.md V1 */
    { "tun.rx_errors", offsetof(struct tun_counters, rx_errors) },
    { "tun.tx_packets", offsetof(struct tun_counters, tx_packets) },
    { "tun.tx_bytes", offsetof(struct tun_counters, tx_bytes) },
    { "tun.dropped", offsetof(struct tun_counters, tx_dropped) },       /* V10 */
    { "tun.write_invalid", offsetof(struct tun_counters, tx_invalid) }, /* V2 */
    { "tun.read_calls", offsetof(struct tun_counters, read_calls) },
    { "tun.write_calls", offsetof(struct tun_counters, write_calls) },
    { NULL, 0 },
};

/* ---- open and close ---- */

static struct tun *tun_alloc(const struct tun_options *opt, struct netlink *nl)
{
    struct tun *t =
        aligned_alloc(CACHE_LINE, sizeof(*t)); /* a multiple of its alignment, as aligned_alloc wants */

    if (t == NULL)
        return NULL;
    memset(t, 0, sizeof(*t));
    t->opt = *opt;
    t->nl = nl;
    t->steering.program = -1;
    t->steering.text = "off: not asked for";
    if (opt->offload == TUN_OFFLOAD_OFF)
        t->opt.best_rung = TUN_RUNG_PLAIN;
    return t;
}

int tun_open(const struct tun_options *opt, uint32_t workers, struct netlink *nl, struct tun **out,
             struct err *err)
{
    uint32_t wanted = opt->queues != 0 ? opt->queues : workers;
    int r = tun_check_options(opt, err);
    struct tun *t;

    if (r != 0)
        return r;
    assert(wanted > 0 && (nl != NULL || opt->fd >= 0));
    if ((t = tun_alloc(opt, nl)) == NULL)
        return err_set(err, -ENOMEM, "out of memory");
    if (wanted > TUN_QUEUES_MAX)
        wanted = TUN_QUEUES_MAX;
    r = opt->fd >= 0 ? tun_device_adopt(t, err) : tun_device_create(t, wanted, err);
    if (r == 0 && (r = tun_configure(t, err)) != 0 && t->adopted)
        t->queues = 0; /* the descriptors stay the caller's */
    if (r != 0) {
        tun_close(t);
        return r;
    }
    *out = t;
    return 0;
}

void tun_close(struct tun *t)
{
    if (t == NULL)
        return;
    tun_watch_end(t);
    tun_steer_end(t);
    tun_remove_added(t);
    tun_device_close(t);
    free(t);
}

const char *tun_name(const struct tun *t)
{
    return t->name;
}

int tun_ifindex(const struct tun *t)
{
    return t->ifindex;
}

uint32_t tun_queues(const struct tun *t)
{
    return t->queues;
}

enum tun_rung tun_rung(const struct tun *t)
{
    return t->rung;
}

const char *tun_rung_text(enum tun_rung r)
{
    switch (r) {
    case TUN_RUNG_USO:
        return "tso+uso";
    case TUN_RUNG_TSO:
        return "tso";
    case TUN_RUNG_VNET:
        return "none";
    case TUN_RUNG_PLAIN:
        return "off";
    }
    return "?";
}

uint32_t tun_mtu(const struct tun *t)
{
    return atomic_load_explicit(&t->mtu, memory_order_relaxed);
}

uint64_t tun_kernel_drops(const struct tun *t)
{
    struct nl_link link;

    return t->nl != NULL && netlink_link_by_name(t->nl, t->name, &link) == 0 ? link.tx_dropped : 0;
}

int tun_queue_fd(const struct tun *t, uint32_t queue)
{
    assert(queue < t->queues);
    return t->queue[queue].fd;
}

const struct tun_counters *tun_counters(const struct tun *t, uint32_t queue)
{
    assert(queue < t->queues);
    return &t->queue[queue].counters;
}

/* ---- reading ---- */

static int read_failed(struct tun_queue *q, int r)
{
    if (r != -EAGAIN)
        counter_add(&q->counters.rx_errors, 1);
    return r;
}

ssize_t tun_read(struct tun *t, uint32_t queue, void *packet, size_t cap, struct pkt_meta *meta)
{
    struct tun_queue *q = &t->queue[queue];
    bool plain = t->rung == TUN_RUNG_PLAIN;
    uint8_t hdr[VNET_HDR_LEN];
    struct iovec iov[2] = { { .iov_base = hdr, .iov_len = sizeof(hdr) },
                            { .iov_base = packet, .iov_len = cap } };
    ssize_t n = readv(q->fd, plain ? &iov[1] : iov, plain ? 1 : 2);

    counter_add(&q->counters.read_calls, 1);
    if (n < 0)
        return read_failed(q, -errno);
    if (!plain)
        n -= VNET_HDR_LEN; /* a header cut short leaves less than nothing */
    if (n <= 0 || (!plain && vnet_decode(hdr, packet, (size_t)n, meta) != 0)) {
        counter_add(&q->counters.rx_vnet_bad, 1);
        return -EPROTO;
    }
    if (plain)
        *meta = (struct pkt_meta){ 0 };
    counter_add(&q->counters.rx_packets, 1);
    counter_add(&q->counters.rx_bytes, (uint64_t)n);
    return n;
}

/* ---- writing ---- */

static size_t iov_bytes(const struct iovec *iov, int iovcnt)
{
    size_t len = 0;

    for (int i = 0; i < iovcnt; i++)
        len += iov[i].iov_len;
    return len;
}

/* What is wrong with this packet here, or NULL. The MTU is the largest one ever: a smaller one is followed by the stack within
 * a second (faults.md V11), and what it emitted before that is not a mistake. */
static const char *write_fault(const struct tun *t, const struct iovec *iov, int iovcnt, size_t len,
                               const struct pkt_meta *meta)
{
    bool offload = t->rung <= TUN_RUNG_TSO;

    if (iovcnt > TUN_WRITE_RANGES)
        return "in more ranges than one write takes";
    if (len == 0 || iov[0].iov_len == 0) /* a count of 0 or less has none, too */
        return "no bytes";
    if (!offload && (meta->needs_csum || meta->gso != PKT_GSO_NONE))
        return "offload that is not in force";
    if (meta->gso == PKT_GSO_NONE && len > atomic_load_explicit(&t->mtu_largest, memory_order_relaxed))
        return "longer than the MTU";
    return vnet_fault(meta, len, ((const uint8_t *)iov[0].iov_base)[0] >> 4);
}

static int refuse_packet(struct tun_queue *q, const char *why)
{
    counter_add(&q->counters.tx_invalid, 1);
    log_debug("a packet of ours was not written: %s", why);
    assert(!"a packet of ours is wrong; the debug log says how");
    return -EINVAL;
}

static int write_error(struct tun_queue *q, int r)
{
    if (r == -EINVAL)
        return refuse_packet(q, "the kernel says EINVAL");
    counter_add(&q->counters.tx_dropped, 1);
    return r;
}

int tun_write(struct tun *t, uint32_t queue, const struct iovec *iov, int iovcnt, const struct pkt_meta *meta)
{
    struct tun_queue *q = &t->queue[queue];
    size_t len = iov_bytes(iov, iovcnt);
    struct iovec all[1 + TUN_WRITE_RANGES]; /* the virtio-net header goes first */
    uint8_t hdr[VNET_HDR_LEN];
    const char *why;
    ssize_t n;

    if ((why = write_fault(t, iov, iovcnt, len, meta)) != NULL)
        return refuse_packet(q, why);
    if (atomic_load_explicit(
            &t->down, memory_order_relaxed)) /* the kernel would say the same, at the price of a call */
        return write_error(q, -EIO);
    counter_add(&q->counters.write_calls, 1);
    if (t->rung == TUN_RUNG_PLAIN) {
        n = writev(q->fd, iov, iovcnt);
    } else {
        vnet_encode(meta, len, ((const uint8_t *)iov[0].iov_base)[0] >> 4, hdr);
        all[0] = (struct iovec){ .iov_base = hdr, .iov_len = sizeof(hdr) };
        memcpy(&all[1], iov, (size_t)iovcnt * sizeof(*iov));
        n = writev(q->fd, all, iovcnt + 1);
    }
    if (n < 0)
        return write_error(q, -errno);
    counter_add(&q->counters.tx_packets, 1);
    counter_add(&q->counters.tx_bytes, len);
    return 0;
}
