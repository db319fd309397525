/* far_end_impl.h - the inside of one thread of the far end. */
#ifndef CULVERT_APP_FAR_END_IMPL_H
#define CULVERT_APP_FAR_END_IMPL_H

#include <pthread.h>

#include "culvert/resolver.h"
#include "far_end.h"

struct far_end {
    struct loop *loop;
    struct wheel wheel;
    struct loop_timer timer;
    uint64_t timer_us; /* what `timer` is set to */
    struct up_socket_rules rules;
    struct resolver *resolver;
    struct up_env *env;
    struct serve *serve;
    struct masque *masque;
    struct echo_proxy *echo; /* NULL: no pings */
    pthread_t thread;
    bool started;
};

/** far_end_echo_open() - after masque_open(); `masque.echo: false` is no error. Return: 0 or -errno */
int far_end_echo_open(struct far_end *f, const struct far_end_setup *setup);

#endif
