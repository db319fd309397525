/* tun_device.c - /dev/net/tun: attaching queues, adopting them, and the ladder of offloads (tcp-stack.md VN-1).
 *
 * How it goes. The device is made by the first TUNSETIFF; each further queue is another descriptor with the same name. Kernels
 * differ in the offloads they know, so TUNSETOFFLOAD is tried from the best set down. An existing device keeps its choice of
 * one or many queues, so both are tried. When the device is deleted the descriptors stay ours, and the same TUNSETIFF on
 * them makes it anew (faults.md V4). Every errno has its own sentence (V5 to V9). */
#include "tun_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/if_tun.h>

#ifndef TUN_F_USO4 /* Linux 6.2; the headers of Debian 12 are older */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

static const char DEVICE[] = "/dev/net/tun";

/* ---- sentences ---- */

static int open_error(struct err *err, int r)
{
    switch (-r) {
    case ENOENT:
        return err_set(
            err, r,
            "%s does not exist; make it with: mkdir -p /dev/net && mknod -m 666 %s c 10 200 (a container "
            "gets it from its host)",
            DEVICE, DEVICE);
    case EACCES:
    case EPERM:
        return err_set(err, r,
                       "%s may not be opened by this user; run as root, or allow it with: chmod 666 %s",
                       DEVICE, DEVICE);
    case ENODEV:
    case ENXIO:
        return err_set(err, -ENODEV, "the kernel has no TUN driver behind %s; load it with: modprobe tun",
                       DEVICE);
    }
    return err_set(err, r, "%s does not open: %s", DEVICE, strerror(-r));
}

static int attach_error(struct err *err, int r, const char *name)
{
    const char *shown = name[0] != '\0' ? name : "a TUN device";

    switch (-r) {
    case EPERM:
        return err_set(
            err, r,
            "%s needs the capability CAP_NET_ADMIN; run as root, or give it with: setcap cap_net_admin+ep "
            "FILE, where FILE is this program",
            shown);
    case EBUSY:
        return err_set(err, r, "%s is in use by another program; stop that one or choose another tun.name",
                       shown);
    case EINVAL:
        return err_set(err, r, "%s exists and is no TUN device that we can use; choose another tun.name",
                       shown);
    case E2BIG:
        return err_set(err, r, "%s has all of its queues in use; choose another tun.name", shown);
    case ENODEV:
    case ENXIO:
        return open_error(err, r); /* a node like that, with another driver behind it */
    case ENOTTY:
        return err_set(err, -ENODEV,
                       "%s is not the TUN driver; remove it and make it with: mknod -m 666 %s c 10 200",
                       DEVICE, DEVICE);
    }
    return err_set(err, r, "%s cannot be made: %s", shown, strerror(-r));
}

/* ---- one descriptor ---- */

static int open_node(void)
{
    int fd = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);

    return fd >= 0 ? fd : -errno;
}

static int attach(int fd, const char *name, short flags, char name_out[16])
{
    struct ifreq ifr = { .ifr_flags = flags };

    memcpy(ifr.ifr_name, name, strlen(name));
    if (ioctl(fd, TUNSETIFF, &ifr) != 0)
        return -errno;
    if (name_out != NULL) {
        memcpy(name_out, ifr.ifr_name, 16);
        name_out[15] = '\0';
    }
    return 0;
}

bool tun_device_is_attached(int fd)
{
    struct ifreq ifr = { 0 };

    return ioctl(fd, TUNGETIFF, &ifr) == 0;
}

static int set_header_size(int fd)
{
    int size = VNET_HDR_LEN;

    return ioctl(fd, TUNSETVNETHDRSZ, &size) == 0 ? 0 : -errno;
}

/* ---- the ladder ---- */

static unsigned rung_flags(enum tun_rung rung)
{
    unsigned tso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

    switch (rung) {
    case TUN_RUNG_USO:
        return tso | TUN_F_USO4 | TUN_F_USO6; /* the kernel wants both or neither */
    case TUN_RUNG_TSO:
        return tso;
    case TUN_RUNG_VNET:
    case TUN_RUNG_PLAIN:
        return 0;
    }
    return 0;
}

/* From the wanted rung down, the first that the kernel takes. It cannot refuse the empty set. */
static int walk_ladder(struct tun *t, struct err *err)
{
    enum tun_rung rung = t->opt.best_rung;

    while (rung < TUN_RUNG_VNET && ioctl(t->queue[0].fd, TUNSETOFFLOAD, (unsigned long)rung_flags(rung)) != 0)
        rung++;
    if (rung == TUN_RUNG_VNET && ioctl(t->queue[0].fd, TUNSETOFFLOAD, 0ul) != 0)
        return err_set(err, -errno, "%s: offload cannot be set: %s", t->name, strerror(errno));
    if (t->opt.offload == TUN_OFFLOAD_ON && rung > TUN_RUNG_TSO)
        return err_set(err, -EOPNOTSUPP,
                       "%s: this kernel has no segmentation offload for TUN; use tun.offload: auto", t->name);
    if (rung != t->opt.best_rung)
        log_info("%s: this kernel does not offer offload \"%s\"; \"%s\" is in force", t->name,
                 tun_rung_text(t->opt.best_rung), tun_rung_text(rung));
    t->rung = rung;
    t->offload_flags = rung_flags(rung);
    return 0;
}

static int set_up_header(struct tun *t, struct err *err)
{
    int r;

    if ((t->mode_flags & IFF_VNET_HDR) == 0) {
        if (t->opt.offload == TUN_OFFLOAD_ON)
            return err_set(err, -EOPNOTSUPP, "%s has no virtio-net header; use tun.offload: auto", t->name);
        t->rung = TUN_RUNG_PLAIN;
        return 0;
    }
    if ((r = set_header_size(t->queue[0].fd)) != 0)
        return err_set(err, r, "%s: the header size cannot be set: %s", t->name, strerror(-r));
    return walk_ladder(t, err);
}

/* ---- creating ---- */

/* Refuses a name that belongs to somebody else. A multi-queue device would let us in beside its owner, so we look first. */
static int check_name_free(struct tun *t, struct err *err)
{
    struct nl_link link;
    int r;

    if (t->opt.name[0] == '\0')
        return 0;
    r = netlink_link_by_name(t->nl, t->opt.name, &link);
    if (r == -ENODEV)
        return 0;
    if (r != 0)
        return err_set(err, r, "%s: the kernel does not tell whether it exists: %s", t->opt.name,
                       strerror(-r));
    if (strcmp(link.kind, "tun") != 0)
        return attach_error(err, -EINVAL, t->opt.name);
    if (link.carrier) /* a program holds a queue */
        return attach_error(err, -EBUSY, t->opt.name);
    t->made = false;
    return 0;
}

/* A device that exists was made for one queue or for many, and the kernel says EINVAL to the other. */
static int attach_first(struct tun *t, struct err *err)
{
    short header = t->opt.best_rung == TUN_RUNG_PLAIN ? 0 : IFF_VNET_HDR;
    const short modes[] = { (short)(IFF_MULTI_QUEUE | header), header, IFF_MULTI_QUEUE, 0 };
    int r = -EINVAL;

    for (size_t i = 0; i < ARRAY_LEN(modes) && r == -EINVAL; i++) {
        t->mode_flags = (short)(IFF_TUN | IFF_NO_PI | modes[i]);
        r = attach(t->queue[0].fd, t->opt.name, t->mode_flags, t->name);
    }
    return r == 0 ? 0 : attach_error(err, r, t->opt.name);
}

static void attach_more(struct tun *t, uint32_t wanted)
{
    int r = (t->mode_flags & IFF_MULTI_QUEUE) != 0 ? 0 : -EOPNOTSUPP;

    while (r == 0 && t->queues < wanted) {
        int fd = open_node();

        r = fd < 0 ? fd : attach(fd, t->name, t->mode_flags, NULL);
        if (r == 0)
            t->queue[t->queues++].fd = fd;
        else if (fd >= 0)
            close(fd);
    }
    if (t->queues < wanted)
        log_warning("%s: %u of %u queues, so as many workers carry packets: %s", t->name, t->queues, wanted,
                    r == -EOPNOTSUPP ? "the device was made for one queue" : strerror(-r));
}

int tun_device_create(struct tun *t, uint32_t wanted_queues, struct err *err)
{
    int fd, r;

    t->made = true;
    if ((r = check_name_free(t, err)) != 0)
        return r;
    if ((fd = open_node()) < 0)
        return open_error(err, fd);
    t->queue[0].fd = fd;
    t->queues = 1;
    if ((r = attach_first(t, err)) != 0)
        return r;
    if ((r = set_up_header(t, err)) != 0)
        return r;
    attach_more(t, wanted_queues);
    return 0;
}

/* ---- adopting ---- */

static int adopt_error(struct err *err, int r, int fd)
{
    switch (-r) {
    case EBADF:
        return err_set(
            err, r, "tun.fd: descriptor %d is not open; the program that starts us must leave it open", fd);
    case EBADFD:
        return err_set(err, -EINVAL,
                       "tun.fd: descriptor %d is %s without an interface; attach it (TUNSETIFF) first", fd,
                       DEVICE);
    }
    return err_set(err, -EINVAL, "tun.fd: descriptor %d is no TUN device", fd);
}

/* TUNGETIFF cannot say it: IFF_NOFILTER, which it reports of itself, is the same bit as IFF_NO_PI. */
static bool has_information_header(struct tun *t, const char *name)
{
    struct nl_link link;

    return t->nl != NULL && netlink_link_by_name(t->nl, name, &link) == 0 && link.tun_pi;
}

static int check_adopted_mode(struct tun *t, int fd, const struct ifreq *ifr, struct err *err)
{
    int size = 0;

    if ((ifr->ifr_flags & IFF_TUN) == 0)
        return err_set(err, -EINVAL,
                       "tun.fd: descriptor %d is a TAP device (Ethernet); a TUN device is needed", fd);
    if (has_information_header(t, ifr->ifr_name))
        return err_set(err, -EINVAL,
                       "tun.fd: descriptor %d has a packet information header; open it with IFF_NO_PI", fd);
    if ((ifr->ifr_flags & IFF_VNET_HDR) == 0)
        return 0;
    if (ioctl(fd, TUNGETVNETHDRSZ, &size) != 0 || size != VNET_HDR_LEN)
        return err_set(err, -EINVAL,
                       "tun.fd: descriptor %d has a virtio-net header of %d bytes; %d are needed", fd, size,
                       VNET_HDR_LEN);
    return 0;
}

static int adopt_one(struct tun *t, int fd, struct err *err)
{
    struct ifreq ifr = { 0 };
    int flags, r;

    if (ioctl(fd, TUNGETIFF, &ifr) != 0)
        return adopt_error(err, -errno, fd);
    ifr.ifr_name[sizeof(ifr.ifr_name) - 1] = '\0';
    if ((r = check_adopted_mode(t, fd, &ifr, err)) != 0)
        return r;
    if (t->queues > 0 && (strcmp(t->name, ifr.ifr_name) != 0 || t->mode_flags != ifr.ifr_flags))
        return err_set(err, -EINVAL, "tun.fd: descriptor %d belongs to %s, the first one to %s", fd,
                       ifr.ifr_name, t->name);
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return err_set(err, -errno, "tun.fd: descriptor %d: %s", fd, strerror(errno));
    memcpy(t->name, ifr.ifr_name, sizeof(t->name));
    t->mode_flags = ifr.ifr_flags;
    t->queue[t->queues++].fd = fd;
    return 0;
}

int tun_device_adopt(struct tun *t, struct err *err)
{
    int r = adopt_one(t, t->opt.fd, err);

    t->adopted = true;
    for (uint32_t i = 0; r == 0 && i < t->opt.more_fds_count; i++)
        r = adopt_one(t, t->opt.more_fds[i], err);
    if (r == 0)
        r = set_up_header(t, err);
    if (r != 0)
        t->queues = 0; /* they stay the caller's */
    return r;
}

/* ---- again, and the end ---- */

static int attach_again(struct tun *t, int fd)
{
    if (t->opt.attach != NULL)
        return t->opt.attach(t->opt.attach_arg, fd, t->name, t->mode_flags);
    return attach(fd, t->name, t->mode_flags, NULL);
}

int tun_device_again(struct tun *t, struct err *err)
{
    struct nl_link link;
    int r;

    /* Attached, and yet the name is unknown here: the device lives on in another namespace. */
    if (tun_device_is_attached(t->queue[0].fd) && netlink_link_by_name(t->nl, t->name, &link) == -ENODEV)
        return -EXDEV;
    for (uint32_t i = 0; i < t->queues; i++) {
        if (tun_device_is_attached(t->queue[i].fd))
            continue;
        if ((r = attach_again(t, t->queue[i].fd)) != 0)
            return attach_error(err, r, t->name);
    }
    if (tun_steer_again(t) != 0)
        log_warning("%s was made anew, and steering is %s", t->name, tun_steering(t));
    if ((t->mode_flags & IFF_VNET_HDR) == 0)
        return 0;
    if ((r = set_header_size(t->queue[0].fd)) == 0 &&
        ioctl(t->queue[0].fd, TUNSETOFFLOAD, (unsigned long)t->offload_flags) != 0)
        r = -errno;
    return r == 0 ? 0 : err_set(err, r, "%s: offload cannot be set: %s", t->name, strerror(-r));
}

void tun_device_close(struct tun *t)
{
    for (uint32_t i = 0; i < t->queues; i++)
        close(t->queue[i].fd);
    t->queues = 0;
}
