/* rig.c - see rig.h. */
#include "rig.h"
#include "netns.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int set_address(const char *name, const char *address)
{
    struct ifreq ifr = { 0 };
    struct sockaddr_in sa = { .sin_family = AF_INET };
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    inet_pton(AF_INET, address, &sa.sin_addr);
    memcpy(&ifr.ifr_addr, &sa, sizeof(sa));
    r = ioctl(s, SIOCSIFADDR, &ifr);
    inet_pton(AF_INET, "255.255.255.0", &sa.sin_addr);
    memcpy(&ifr.ifr_netmask, &sa, sizeof(sa));
    r = r == 0 ? ioctl(s, SIOCSIFNETMASK, &ifr) : r;
    close(s);
    return r;
}

int rig_tun(const char *name, const char *address)
{
    struct ifreq ifr = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &ifr) != 0 || (address != NULL && set_address(name, address) != 0) ||
        netns_link_up(name) != 0) {
        close(fd);
        return -EIO;
    }
    return fd;
}

/* ---- bytes ---- */

static bool read_all(int fd, void *out, size_t len)
{
    uint8_t *at = out;

    while (len > 0) {
        ssize_t n = recv(fd, at, len, 0);

        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static bool send_all(int fd, const void *data, size_t len)
{
    const uint8_t *at = data;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

/* ---- the proxy (RFC 1928) ---- */

struct guest {
    int fd;
    char letter;
};

/* How many are served, so that a test can wait for none. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t less;
    unsigned count;
} guests = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 };

static void count_guests(int change)
{
    pthread_mutex_lock(&guests.lock);
    guests.count += (unsigned)change;
    pthread_cond_broadcast(&guests.less);
    pthread_mutex_unlock(&guests.lock);
}

void rig_wait_for_no_guest(void)
{
    pthread_mutex_lock(&guests.lock);
    while (guests.count > 0)
        pthread_cond_wait(&guests.less, &guests.lock);
    pthread_mutex_unlock(&guests.lock);
}

static bool greet(int fd)
{
    static const uint8_t no_login[] = { 5, 0 }, done[] = { 5, 0, 0, 1, 0, 0, 0, 0, 0, 0 };
    uint8_t head[4], rest[16 + 2];

    return read_all(fd, head, 2) && read_all(fd, rest, head[1]) && send_all(fd, no_login, sizeof(no_login)) &&
           read_all(fd, head, 4) && read_all(fd, rest, (head[3] == 1 ? 4 : 16) + 2) &&
           send_all(fd, done, sizeof(done));
}

static void *serve(void *arg)
{
    struct guest *g = arg;
    uint8_t data[16384];
    ssize_t n;

    if (greet(g->fd) && send_all(g->fd, &g->letter, 1))
        while ((n = recv(g->fd, data, sizeof(data), 0)) > 0 && send_all(g->fd, data, (size_t)n))
            ;
    close(g->fd);
    free(g);
    count_guests(-1);
    return NULL;
}

static void *take_all(void *arg)
{
    const struct rig_proxy *p = arg;

    for (;;) {
        struct guest *g = malloc(sizeof(*g));
        pthread_t thread;

        if (g == NULL)
            return NULL;
        *g = (struct guest){ accept4(p->listener, NULL, NULL, SOCK_CLOEXEC), p->letter };
        count_guests(1);
        if (g->fd < 0 || pthread_create(&thread, NULL, serve, g) != 0) {
            free(g);
            return NULL;
        }
        pthread_detach(thread);
    }
}

int rig_proxy_open(struct rig_proxy *p, char letter)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sa);
    pthread_t thread;

    p->letter = letter;
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(p->listener, (struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(p->listener, 64) != 0 ||
        getsockname(p->listener, (struct sockaddr *)&sa, &len) != 0)
        return -errno;
    p->port = ntohs(sa.sin_port);
    if (pthread_create(&thread, NULL, take_all, p) != 0)
        return -EAGAIN;
    return -pthread_detach(thread);
}

/* ---- the client ---- */

int rig_connect(const char *address, char *letter)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(80) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), r = 0;

    inet_pton(AF_INET, address, &sa.sin_addr);
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
        r = -errno;
    else if (!read_all(fd, letter, 1))
        r = -EPIPE;
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

struct sender {
    int fd;
    size_t bytes;
};

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 2654435761u >> 13);
}

static void *send_pattern(void *arg)
{
    const struct sender *s = arg;
    uint8_t data[8192];

    for (size_t at = 0; at < s->bytes;) {
        size_t n = s->bytes - at < sizeof(data) ? s->bytes - at : sizeof(data);

        for (size_t i = 0; i < n; i++)
            data[i] = byte_at(at + i);
        if (!send_all(s->fd, data, n))
            break;
        at += n;
    }
    return NULL;
}

bool rig_echo(int fd, size_t bytes)
{
    struct sender s = { fd, bytes };
    uint8_t data[8192];
    pthread_t thread;
    size_t at = 0;
    ssize_t n = 1;

    if (pthread_create(&thread, NULL, send_pattern, &s) != 0)
        return false;
    while (at < bytes && n > 0) {
        n = recv(fd, data, sizeof(data) < bytes - at ? sizeof(data) : bytes - at, 0);
        for (ssize_t i = 0; i < n; i++)
            n = data[i] == byte_at(at + (size_t)i) ? n : 0;
        at += n > 0 ? (size_t)n : 0;
    }
    if (at < bytes)
        shutdown(fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    return at == bytes;
}

unsigned rig_count(const char *folder)
{
    DIR *dir = opendir(folder);
    unsigned count = 0;

    while (dir != NULL && readdir(dir) != NULL)
        count++;
    if (dir != NULL)
        closedir(dir);
    return count;
}
