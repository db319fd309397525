/* tun.h - a Linux TUN device: its queues, the virtio-net header, its addresses and MTU.
 * Knows     /dev/net/tun, ioctl and (through loop) netlink; nothing of what packets mean.
 * Threads   open, close, settings, events: [main]. tun_read and tun_write: the worker that owns the queue.
 * Lifetime  tun_open .. tun_close; queues are indices 0..tun_queues()-1 until then. */
#ifndef CULVERT_TUN_H
#define CULVERT_TUN_H

#include <sys/uio.h>

#include "culvert/base.h"
#include "culvert/loop.h"

enum { TUN_QUEUES_MAX = 64, TUN_ADDRESSES_MAX = 16 };
enum { TUN_WRITE_RANGES = 135 }; /* headers and a row of 128 datagrams, with room to spare */

/* AUTO takes what the kernel has; ON fails when it has not even TSO; OFF asks for no virtio-net header at all. */
enum tun_offload { TUN_OFFLOAD_AUTO, TUN_OFFLOAD_ON, TUN_OFFLOAD_OFF };

/* The ladder of VN-1: what is in force, best first. On VNET and PLAIN every packet is a single one with complete checksums,
 * read and written, and tun_write() takes no other. */
enum tun_rung {
    TUN_RUNG_USO,  /* checksums, TCP and UDP super-segments (Linux 6.2) */
    TUN_RUNG_TSO,  /* checksums and TCP super-segments */
    TUN_RUNG_VNET, /* a header, and nothing in it */
    TUN_RUNG_PLAIN /* no header */
};

struct tun_options {
    char name[16]; /* interface name, "" lets the kernel choose */
    int fd;        /* an adopted queue, or -1; then name is read from it and nothing else is configured */
    int more_fds[TUN_QUEUES_MAX - 1]; /* further queues of the same adopted device */
    uint32_t more_fds_count;
    struct ip_prefix address[TUN_ADDRESSES_MAX]; /* with host bits; len counted as in struct ip_prefix */
    size_t addresses;
    /* TUNSETIFF on a queue of ours when the device is made again, for who has given up the privilege; NULL: we do. 0 or -errno */
    int (*attach)(void *arg, int fd, const char *name, short flags);
    void *attach_arg;
    uint32_t mtu;    /* default (0) 1500; 576..65535 */
    uint32_t queues; /* 0 = one per worker; at most TUN_QUEUES_MAX */
    enum tun_offload offload;
    uint32_t txqueuelen;     /* default (0) 4096 packets (STR-5) */
    enum tun_rung best_rung; /* start the ladder here; TUN_RUNG_USO by default; tests try each rung */
};

struct tun;

/** tun_open() - create or adopt the device, walk the ladder, set MTU, addresses and queue length, bring it up [main]
 * @workers:  how many queues are wanted when opt->queues is 0; fewer come with one log line (faults.md V7)
 * @nl:       borrowed until tun_close(); of the namespace where the device lives. NULL only with an adopted descriptor whose
 *            device lives elsewhere: then its MTU is opt->mtu
 * Adopted descriptors belong to the device from a successful return on, and are closed by tun_close().
 * Return: 0; or -errno with a sentence in @err that says what to do. About the configuration (faults.md V5, V6; the caller exits
 * with status 2): -EINVAL name or descriptor is no TUN of ours, -EBUSY name taken, -ERANGE MTU, -E2BIG, -EBADF. About
 * the machine (V9; status 1): -EACCES, -ENOENT, -ENODEV, -EPERM, -EOPNOTSUPP, others. Nothing is left behind on failure. */
int tun_open(const struct tun_options *opt, uint32_t workers, struct netlink *nl, struct tun **out,
             struct err *err);
/* [main] after the workers have stopped; a device that we made disappears; NULL is fine */
void tun_close(struct tun *t);

/** tun_steer() - have the device choose queues as steer_packet() says, modulo their number, also after it was made anew [main]
 * At most once a device, while the process may still load eBPF programs. Nothing depends on it but hand-offs.
 * Return: 0, also where one queue needs no choice; or -errno, and the kernel chooses as it always does. */
int tun_steer(struct tun *t, const struct hash_key *key);
const char *tun_steering(const struct tun *t); /* [main] "on", or "off: " and why */

const char *tun_name(const struct tun *t);
int tun_ifindex(const struct tun *t); /* [main] 0: the device lives in another namespace */
uint32_t tun_queues(const struct tun *t);
enum tun_rung tun_rung(const struct tun *t);
const char *tun_rung_text(enum tun_rung r); /* "tso+uso", "tso", "none", "off" */
uint32_t tun_mtu(const struct tun *t);      /* [any] as last seen */
bool tun_carries(const struct tun *t,
                 bool v6); /* [main] for auto-route: has it an address of that family now? (MTU, IPv6 off) */
int tun_queue_fd(const struct tun *t, uint32_t queue); /* non-blocking; for loop_io */

/** tun_read() - one packet or super-segment [worker]
 * @packet: at least 65,535 bytes; the virtio-net header goes elsewhere, so the packet starts at packet[0]
 * Return: packet bytes (> 0); -EAGAIN; -EPROTO: the header was bad, packet dropped, read on; -EBADFD: the device is gone.
 * After -EBADFD the worker stops its loop_io, calls tun_report_gone() and starts again at on_reopened: epoll would report a gone
 * device for ever (faults.md V4). */
ssize_t tun_read(struct tun *t, uint32_t queue, void *packet, size_t cap, struct pkt_meta *meta);
/** tun_write() - one packet [worker]; without offload in force @meta must ask for none and checksums must be complete
 * @iov:    headers and payload ranges, at most TUN_WRITE_RANGES, not changed
 * Return: 0 or -errno: -EAGAIN, -ENOBUFS, -EIO (link down) and the like mean "lost on the way", never a broken queue.
 * -EINVAL is a mistake of ours (faults.md V2): counted, and in debug builds the end. */
int tun_write(struct tun *t, uint32_t queue, const struct iovec *iov, int iovcnt,
              const struct pkt_meta *meta);

/* The 10-byte virtio-net header, as pure functions; fuzzed. Host (little or native) endian as the kernel gives it. */
#define VNET_HDR_LEN 10
/** vnet_decode() - Return: 0; -EPROTO when it contradicts the packet (VN-3, faults.md V1)
 * Lengths inside the IP header are the stack's business; hdr_len is passed on as the hint that it is. */
int vnet_decode(const uint8_t hdr[VNET_HDR_LEN], const uint8_t *packet, size_t len, struct pkt_meta *out);
/* [main] packets for us that the kernel dropped because a queue was full (STR-5), since the device was made; 0 when it lives elsewhere */
uint64_t tun_kernel_drops(const struct tun *t);
/** vnet_fault() - what is wrong with writing a packet like this (faults.md V2), or NULL
 * @version: 4 or 6, the packet's first four bits. What the kernel would refuse is wrong, and what it takes by mistake too. */
const char *vnet_fault(const struct pkt_meta *meta, size_t packet_len, uint8_t version);
/** vnet_encode() - asserts that vnet_fault() finds nothing */
void vnet_encode(const struct pkt_meta *meta, size_t packet_len, uint8_t version, uint8_t hdr[VNET_HDR_LEN]);

/* Run-time events (faults.md V3, V4, V11, V12): watches netlink and keeps the device as configured. [main]
 * Log lines about all of them are written here. A callback must not close the device. */
struct tun_events {
    void (*on_mtu)(void *arg, uint32_t mtu);
    void (*on_down)(void *arg); /* link set down by someone: writes say EIO until on_up */
    void (*on_up)(void *arg);   /* up again; addresses restored; routes are the route folder's business */
    /* The device was deleted and made anew: same queue descriptors, new ifindex. Workers start their loop_io again. */
    void (*on_reopened)(void *arg);
    /* Ten tries failed, or an adopted device is gone: the caller ends the process, status 1. @why is a sentence. */
    void (*on_lost)(void *arg, const char *why);
};
/** tun_watch() - keep it so, until tun_close(); @ev is borrowed until then, and any of its functions may be NULL
 * Return: 0 or -errno. At most once a device. */
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
