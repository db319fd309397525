/* load.c - traffic for tests/bench: a server, and a client that makes one kind of load for some seconds.
 *   load serve ADDRESS PORT
 *   load KIND ADDRESS PORT SECONDS FLOWS        KIND: up down cps rr udp-up udp-down
 *   load beside ADDRESS PORT ROUNDS FLOWS       a round trip of 100 bytes by each of the flows in turn, so many rounds; first
 *                                               alone, then while another flow takes all that it can get. Two lines of:
 *                                               MB/s of that one, ms of a round trip: median, 99th of 100, worst
 * The first byte of a TCP connection says what the server does: u reads, d writes, e echoes. A datagram of one byte is
 * answered by a burst, others are thrown away. Nothing is counted here: the gateway's counters say what went through. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 18, DATAGRAM = 1400, BURST = 32 };

static struct sockaddr_in address;
static double end_s;

static double now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- the server ---- */

static void *serve_connection(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char *data = calloc(1, PIECE), kind = 0;
    ssize_t n = data ? recv(fd, &kind, 1, 0) : 0;

    while (n > 0 && kind == 'd')
        n = send(fd, data, PIECE, MSG_NOSIGNAL);
    while (n > 0) {
        n = recv(fd, data, PIECE, 0);
        if (n > 0 && kind == 'e')
            n = send(fd, data, (size_t)n, MSG_NOSIGNAL);
    }
    close(fd);
    free(data);
    return NULL;
}

static void fill(struct mmsghdr *msgs, struct iovec *iov, void *to, socklen_t to_len)
{
    static char data[DATAGRAM];

    *iov = (struct iovec){ data, sizeof(data) };
    for (int i = 0; i < BURST; i++)
        msgs[i] = (struct mmsghdr){
            .msg_hdr = { .msg_name = to, .msg_namelen = to_len, .msg_iov = iov, .msg_iovlen = 1 }
        };
}

static void *serve_datagrams(void *arg)
{
    int fd = (int)(intptr_t)arg;

    for (;;) {
        struct sockaddr_in from;
        socklen_t len = sizeof(from);
        struct mmsghdr msgs[BURST];
        struct iovec iov;
        char data[2048];

        if (recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &len) != 1)
            continue;
        fill(msgs, &iov, &from, len);
        sendmmsg(fd, msgs, BURST, 0);
    }
    return NULL;
}

static void start_thread(void *(*fn)(void *), int fd)
{
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 1 << 16);
    if (pthread_create(&thread, &attr, fn, (void *)(intptr_t)fd) != 0)
        close(fd);
    pthread_attr_destroy(&attr);
}

static void serve(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0), on = 1;
    int room = 8 << 20;

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 4096) != 0 ||
        bind(udp, (struct sockaddr *)&address, sizeof(address)) != 0)
        die("cannot listen");
    start_thread(serve_datagrams, udp);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        start_thread(serve_connection, fd);
    }
}

/* ---- the client: one thread for each flow ---- */

static int dial(int type)
{
    int fd = socket(AF_INET, type, 0), on = 1;
    struct timeval patience = { 1, 0 };

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        die("connect");
    if (type == SOCK_STREAM)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static void *bulk(void *arg)
{
    char kind = (char)(intptr_t)arg, *data = calloc(1, PIECE);
    int fd = dial(SOCK_STREAM);
    ssize_t n = send(fd, &kind, 1, MSG_NOSIGNAL);

    while (n > 0 && now_s() < end_s)
        n = kind == 'u' ? send(fd, data, PIECE, MSG_NOSIGNAL) : recv(fd, data, PIECE, 0);
    close(fd);
    free(data);
    return NULL;
}

static void *short_connections(void *arg)
{
    char data[2] = "e";

    (void)arg;
    while (now_s() < end_s) {
        int fd = dial(SOCK_STREAM);

        if (send(fd, data, 2, MSG_NOSIGNAL) == 2)
            recv(fd, data + 1, 1, 0);
        close(fd);
    }
    return NULL;
}

static void *round_trips(void *arg)
{
    char data[2] = "ex";
    int fd = dial(SOCK_STREAM);
    ssize_t n = send(fd, data, 1, MSG_NOSIGNAL);

    (void)arg;
    while (n > 0 && now_s() < end_s) {
        send(fd, data + 1, 1, MSG_NOSIGNAL);
        n = recv(fd, data + 1, 1, 0);
    }
    close(fd);
    return NULL;
}

/* Bursts with a pause in between, so that queues do not overflow: it is the cost that is measured, not who drops first. */
static void *datagrams_up(void *arg)
{
    const struct timespec pause = { 0, 500000 };
    struct mmsghdr msgs[BURST];
    struct iovec iov;
    int fd = dial(SOCK_DGRAM);

    (void)arg;
    fill(msgs, &iov, NULL, 0);
    while (now_s() < end_s) {
        sendmmsg(fd, msgs, BURST, 0);
        nanosleep(&pause, NULL);
    }
    close(fd);
    return NULL;
}

static void *datagrams_down(void *arg)
{
    int fd = dial(SOCK_DGRAM);
    char data[2048];

    (void)arg;
    while (now_s() < end_s) {
        send(fd, "b", 1, 0);
        for (int i = 0; i < BURST && recv(fd, data, sizeof(data), 0) > 0; i++)
            ;
    }
    close(fd);
    return NULL;
}

/* ---- small flows beside a large one ---- */

enum { SMALL = 100 };

static _Atomic uint64_t moved;
static _Atomic int enough;

static void *take_all(void *arg)
{
    char *data = calloc(1, PIECE);
    int fd = dial(SOCK_STREAM);
    ssize_t n = send(fd, "d", 1, MSG_NOSIGNAL);

    (void)arg;
    while (n > 0 && !enough) {
        n = recv(fd, data, PIECE, 0);
        moved += n > 0 ? (uint64_t)n : 0;
    }
    close(fd);
    free(data);
    return NULL;
}

static double round_trip_ms(int fd)
{
    char data[SMALL] = { 0 };
    double start = now_s();

    if (send(fd, data, sizeof(data), MSG_NOSIGNAL) != sizeof(data) ||
        recv(fd, data, sizeof(data), MSG_WAITALL) != sizeof(data))
        die("a small flow");
    return (now_s() - start) * 1e3;
}

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void report(const int *fds, int flows, int rounds)
{
    int n = flows * rounds;
    double *ms = calloc((size_t)n, sizeof(*ms)), start = now_s();
    uint64_t before = moved;

    for (int i = 0; i < n; i++)
        ms[i] = round_trip_ms(fds[i % flows]);
    printf("%.0f", (double)(moved - before) / 1e6 / (now_s() - start));
    qsort(ms, (size_t)n, sizeof(*ms), by_size);
    printf(" %.2f %.2f %.2f\n", ms[n / 2], ms[n / 100 * 99], ms[n - 1]);
    free(ms);
}

static int beside(int rounds, int flows)
{
    int *fds = calloc((size_t)flows, sizeof(*fds));
    pthread_t large;

    for (int i = 0; i < flows; i++) {
        fds[i] = dial(SOCK_STREAM);
        send(fds[i], "e", 1, MSG_NOSIGNAL);
    }
    report(fds, flows, rounds);
    pthread_create(&large, NULL, take_all, NULL);
    while (moved < 1 << 24)
        usleep(1000);
    report(fds, flows, rounds);
    enough = 1;
    pthread_join(large, NULL);
    free(fds);
    return 0;
}

static const struct kind {
    const char *name;
    void *(*fn)(void *);
    char arg;
} kinds[] = {
    { "up", bulk, 'u' },      { "down", bulk, 'd' },         { "cps", short_connections, 0 },
    { "rr", round_trips, 0 }, { "udp-up", datagrams_up, 0 }, { "udp-down", datagrams_down, 0 },
};

static int make_load(const char *name, int flows)
{
    pthread_t threads[256];

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, name) != 0)
            continue;
        for (int k = 0; k < flows; k++)
            pthread_create(&threads[k], NULL, kinds[i].fn, (void *)(intptr_t)kinds[i].arg);
        for (int k = 0; k < flows; k++)
            pthread_join(threads[k], NULL);
        return 0;
    }
    fprintf(stderr, "no such load: %s\n", name);
    return 2;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc != 4 && argc != 6) {
        fprintf(stderr, "load serve ADDRESS PORT | load KIND ADDRESS PORT SECONDS FLOWS\n");
        return 2;
    }
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)atoi(argv[3]));
    if (inet_pton(AF_INET, argv[2], &address.sin_addr) != 1)
        return 2;
    if (argc == 4)
        serve();
    if (strcmp(argv[1], "beside") == 0)
        return beside(atoi(argv[4]), atoi(argv[5]));
    end_s = now_s() + atof(argv[4]);
    return make_load(argv[1], atoi(argv[5]) < 256 ? atoi(argv[5]) : 256);
}
