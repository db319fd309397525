/* tun.h - a Linux TUN device: its queues, the virtio-net header, its addresses and MTU.
 * Knows     /dev/net/tun, ioctl and (through loop) netlink; nothing of what packets mean.
 * Threads   open, close, settings, events: [main]. tun_read and tun_write: the worker that owns the queue.
 * Lifetime  tun_open .. tun_close; queues are indices 0..tun_queues()-1 until then. */
#ifndef CULVERT_TUN_H
#define CULVERT_TUN_H

#include <sys/uio.h>

#include "culvert/base.h"
#include "culvert/loop.h"

enum tun_offload { TUN_OFFLOAD_AUTO, TUN_OFFLOAD_ON, TUN_OFFLOAD_OFF };
enum tun_rung {
    TUN_RUNG_USO,
    TUN_RUNG_TSO,
    TUN_RUNG_VNET,
    TUN_RUNG_PLAIN
}; /* the ladder of VN-1: what is in force, best first */

struct tun_options {
    char name[16]; /* interface name, "" lets the kernel choose */
    int fd;        /* an adopted queue, or -1; then name is read from it and nothing else is configured */
    struct ip_prefix address[16]; /* with host bits; len counted as in struct ip_prefix */
    size_t addresses;
    uint32_t mtu;    /* default 1500; 576..65535 */
    uint32_t queues; /* 0 = one per worker */
    enum tun_offload offload;
    uint32_t txqueuelen;     /* default 4096 packets (STR-5) */
    enum tun_rung best_rung; /* start the ladder here; TUN_RUNG_USO by default; tests try each rung */
};

struct tun;

/** tun_open() - create or adopt the device, walk the ladder, set MTU, addresses and queue length, bring it up [main]
 * @workers:  how many queues are wanted when opt->queues is 0
 * Return: 0; or -errno with a sentence in @err that says what to do (faults.md V5 to V9): -EBUSY name taken by another owner,
 * -EINVAL not a TUN, -EACCES, -ENOENT, -ENODEV, -EPERM about /dev/net/tun. Nothing is left behind on failure. */
int tun_open(const struct tun_options *opt, uint32_t workers, struct netlink *nl, struct tun **out,
             struct err *err);
void tun_close(struct tun *t); /* [main] after the workers have stopped; a device that we made disappears */

const char *tun_name(const struct tun *t);
int tun_ifindex(const struct tun *t);
uint32_t tun_queues(const struct tun *t);
enum tun_rung tun_rung(const struct tun *t);
const char *tun_rung_text(enum tun_rung r); /* "tso+uso", "tso", "csum", "off" */
uint32_t tun_mtu(const struct tun *t);
int tun_queue_fd(const struct tun *t, uint32_t queue); /* non-blocking; for loop_io */

/** tun_read() - one packet or super-segment [worker]
 * @packet: at least 65,535 bytes; the virtio-net header goes elsewhere, so the packet starts at packet[0]
 * Return: packet bytes (> 0); -EAGAIN; -EPROTO: the header was bad, packet dropped, read on; -EIO link down; -EBADFD device gone. */
ssize_t tun_read(struct tun *t, uint32_t queue, void *packet, size_t cap, struct pkt_meta *meta);
/** tun_write() - one packet [worker]; without offload in force @meta must ask for none and checksums must be complete
 * Return: 0 or -errno: -EAGAIN, -ENOBUFS, -EIO and the like mean "lost on the way", never a broken queue. */
int tun_write(struct tun *t, uint32_t queue, const struct iovec *iov, int iovcnt,
              const struct pkt_meta *meta);

/* The 10-byte virtio-net header, as pure functions; fuzzed. Host (little or native) endian as the kernel gives it. */
#define VNET_HDR_LEN 10
/** vnet_decode() - Return: 0; -EPROTO when it contradicts the packet (VN-3, faults.md V1) */
int vnet_decode(const uint8_t hdr[VNET_HDR_LEN], const uint8_t *packet, size_t len, struct pkt_meta *out);
/** vnet_encode() - asserts what the kernel would refuse (faults.md V2), given the packet's total length and version */
void vnet_encode(const struct pkt_meta *meta, size_t packet_len, uint8_t version, uint8_t hdr[VNET_HDR_LEN]);

/* Run-time events (faults.md V3, V4, V11, V12): watches netlink and keeps the device as configured. [main] */
struct tun_events {
    void (*on_mtu)(void *arg, uint32_t mtu);
    void (*on_down)(void *arg); /* link set down by someone: writes would say EIO */
    void (*on_up)(void *arg);   /* up again; addresses restored; routes are the route folder's business */
    void (*on_reopened)(
        void *arg); /* the device was deleted and made anew: same queue descriptors, new ifindex */
    void (*on_lost)(
        void *arg,
        const char
            *why); /* ten tries failed, or an adopted fd is gone: the caller ends the process, status 1 */
};
int tun_watch(struct tun *t, struct loop *l, struct netlink *nl, const struct tun_events *ev, void *arg);
/* [worker] tell main that a queue said EBADFD or POLLERR; safe to repeat, acted on once */
void tun_report_gone(struct tun *t, uint32_t queue);

struct tun_counters { /* one per queue, plain */
    counter rx_packets, rx_bytes, rx_vnet_bad, rx_errors;
    counter tx_packets, tx_bytes, tx_dropped, tx_invalid;
    counter read_calls, write_calls;
};
const struct tun_counters *tun_counters(const struct tun *t, uint32_t queue);
extern const struct counter_desc tun_counter_descs[]; /* ends with name NULL */

#endif
