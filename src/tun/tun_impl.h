/* tun_impl.h - the device as the files of this folder see it. */
#ifndef CULVERT_TUN_IMPL_H
#define CULVERT_TUN_IMPL_H

#include "culvert/tun.h"

/* One queue; nothing in it is written by two threads. */
struct tun_queue {
    _Alignas(CACHE_LINE) int fd;
    struct tun_counters counters;
};

/* The run-time side, [main] throughout. */
struct tun_watcher {
    struct loop *loop;
    struct netlink_watch *events;
    const struct tun_events *told;
    void *arg;
    struct loop_timer retry;
    unsigned tries;          /* of making the device anew; 0: it is there */
    bool moved;              /* it went to another namespace, packets and all: nothing left to keep here */
    bool lost;               /* on_lost was called */
    uint64_t restored_us;    /* when somebody's removal of an address was last undone; 0: never */
    bool left_alone;         /* and they did it again */
    struct tun_gone *report; /* heap, since a message on its way may outlive us */
};

struct tun {
    char name[16];
    struct tun_options opt;
    struct netlink *nl; /* NULL: the device lives in another namespace */
    int ifindex;
    short mode_flags;       /* of TUNSETIFF, to make the same device again */
    unsigned offload_flags; /* of TUNSETOFFLOAD */
    enum tun_rung rung;
    bool adopted;
    bool made;                     /* the device did not exist before us */
    bool added[TUN_ADDRESSES_MAX]; /* opt.address[i] was put there by us */
    bool v6_refused;               /* the kernel has IPv6 switched off for this device */
    uint32_t queues;
    _Atomic uint32_t mtu;
    _Atomic uint32_t mtu_largest; /* ever; no packet of ours may be longer without segmentation */
    atomic_bool down;
    struct {
        int program; /* its descriptor, kept for a device that is made anew; -1: none */
        const char *text;
    } steering;
    struct tun_watcher watch;
    struct tun_queue queue[TUN_QUEUES_MAX];
};

/* tun_device.c: descriptors and ioctls */
int tun_device_create(struct tun *t, uint32_t wanted_queues, struct err *err);
int tun_device_adopt(struct tun *t, struct err *err);
/** tun_device_again() - make the deleted device anew on the descriptors that we hold; those that are attached stay so
 * Return: 0; -EXDEV: it is not deleted but in another namespace; -errno with a sentence. */
int tun_device_again(struct tun *t, struct err *err);
bool tun_device_is_attached(int fd);
void tun_device_close(struct tun *t);

/* tun_config.c: what netlink says and does */
int tun_check_options(const struct tun_options *opt, struct err *err);
int tun_configure(struct tun *t, struct err *err);
/** tun_missing_addresses() - which of opt.address should be on the device and are not; a bit each */
int tun_missing_addresses(struct tun *t, uint32_t *out);
/* Adds those of @which. An IPv6 address on a device that cannot have one is left out, and said once. */
int tun_add_addresses(struct tun *t, uint32_t which, struct err *err);
void tun_remove_added(struct tun *t);
void tun_set_mtu_seen(struct tun *t, uint32_t mtu);

/* tun_steer.c */
int tun_steer_again(struct tun *t); /* the device was made anew; 0 or -errno, and tun_steering() says it */
void tun_steer_end(struct tun *t);

/* tun_watch.c */
void tun_watch_end(struct tun *t);

#endif
