/* listener.h - a listening socket of one thread; threads share an address by SO_REUSEPORT and nothing else.
 * When no descriptor is left it rests for 100 ms instead of spinning (faults.md R1); a connection that its owner cannot take is
 * reset, so that its client knows at once. */
#ifndef CULVERT_SERVE_LISTENER_H
#define CULVERT_SERVE_LISTENER_H

#include "culvert/loop.h"

struct listener {
    struct loop *loop;
    struct wheel *wheel;
    struct loop_io io;
    struct wheel_timer pause;
    struct ip_port bound;
    int (*take)(void *arg, int fd); /* 0: the descriptor is its now; -errno: it stays ours, and is reset */
    void *arg;
    counter *accepted, *refused;
};

/** listener_open() - listen at @at; all members but io, pause and bound are set by the caller
 * Return: 0; -errno with a sentence in @err. */
int listener_open(struct listener *l, const struct ip_port *at, struct err *err);
void listener_close(struct listener *l); /* not open is fine */

#endif
