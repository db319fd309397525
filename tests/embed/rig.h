/* rig.h - what the tests of libculvert-gateway stand on: a SOCKS5 server that is the target as well, and a client.
 * Plain POSIX, since these programs are linked to the library and to nothing else of ours. */
#ifndef CULVERT_TEST_EMBED_RIG_H
#define CULVERT_TEST_EMBED_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A proxy on 127.0.0.1 that takes every CONNECT, says its letter, and then sends back what comes. */
struct rig_proxy {
    uint16_t port;
    char letter;
    int listener;
};
/** rig_proxy_open() - it serves until the process ends, each connection in a thread of its own. Return: 0 or -errno */
int rig_proxy_open(struct rig_proxy *p, char letter);

void rig_wait_for_no_guest(void); /* of any proxy */

/** rig_connect() - to @address:80, the first byte read into @letter. Return: the socket; -errno: of connect() or of that byte */
int rig_connect(const char *address, char *letter);
/** rig_echo() - send @bytes and read them back. Return: true when each came as it was */
bool rig_echo(int fd, size_t bytes);

/** rig_tun() - a queue of a TUN device that is made, given @address/24 and set up. Return: the descriptor or -errno */
int rig_tun(const char *name, const char *address);

unsigned rig_count(const char *folder); /* entries: "/proc/self/fd" */

#endif
