/* delay.c - a wire that takes its time, for kernels without netem: two TUN devices, and what enters one leaves the other later.
 *   delay DEVICE DEVICE ONE_WAY_US
 * Plain devices, so each packet is one segment and what nft drops beside them is one segment, too. "ready" once both are up to be
 * moved into their namespaces. Ends with its parent's SIGTERM. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PACKET_MAX = 2048, ON_THE_WAY = 1 << 14, BATCH = 64, DEVICE_QUEUE = 5000 };

struct packet {
    uint64_t due_us;
    size_t len;
    uint8_t data[PACKET_MAX];
};

/* One direction: a ring of packets in the order of their departure, which with one delay is that of their arrival. */
struct way {
    int from, to;
    uint32_t head, tail; /* head == tail: nothing is on the way */
    struct packet *ring;
};

static uint64_t now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int open_device(const char *name)
{
    struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI };
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK), s = socket(AF_INET, SOCK_DGRAM, 0);

    strncpy(r.ifr_name, name, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &r) != 0)
        die(name);
    r.ifr_qlen = DEVICE_QUEUE;
    if (ioctl(s, SIOCSIFTXQLEN, &r) != 0)
        die("the queue's length");
    close(s);
    return fd;
}

/* A full ring loses the packet, as a full queue does. */
static void take(struct way *w, uint64_t due_us)
{
    for (int i = 0; i < BATCH; i++) {
        struct packet *p = &w->ring[w->tail % ON_THE_WAY];
        ssize_t n = read(w->from, p->data, sizeof(p->data));

        if (n <= 0)
            return;
        if (w->tail - w->head == ON_THE_WAY - 1)
            continue;
        p->len = (size_t)n;
        p->due_us = due_us;
        w->tail++;
    }
}

/* Deliver what is due, and say when the next one is; 0: nothing is on the way. */
static uint64_t deliver(struct way *w, uint64_t now)
{
    for (; w->head != w->tail; w->head++) {
        struct packet *p = &w->ring[w->head % ON_THE_WAY];

        if (p->due_us > now)
            return p->due_us;
        if (write(w->to, p->data, p->len) < 0)
            continue; /* the device is down, or its namespace has no memory: lost */
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct way ways[2] = { 0 };
    uint64_t delay_us;

    if (argc != 4)
        return 2;
    delay_us = strtoull(argv[3], NULL, 10);
    for (int i = 0; i < 2; i++) {
        ways[i].from = ways[!i].to = open_device(argv[1 + i]);
        ways[i].ring = calloc(ON_THE_WAY, sizeof(struct packet));
        if (!ways[i].ring)
            die("memory");
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd p[2] = { { .fd = ways[0].from, .events = POLLIN },
                               { .fd = ways[1].from, .events = POLLIN } };
        uint64_t now = now_us(), a = deliver(&ways[0], now), b = deliver(&ways[1], now);
        uint64_t next = a && (!b || a < b) ? a : b, wait_us = !next ? 1000000 : next > now ? next - now : 0;
        struct timespec ts = { (time_t)(wait_us / 1000000), (long)(wait_us % 1000000) * 1000 };

        if (ppoll(p, 2, &ts, NULL) > 0)
            for (int i = 0; i < 2; i++)
                if (p[i].revents & POLLIN)
                    take(&ways[i], now_us() + delay_us);
    }
}
