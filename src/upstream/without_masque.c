/* without_masque.c - in place of masque*.c in a build without HTTP/2 (WITH_MASQUE=OFF): no upstream of the type can be made, so nothing
 * here is reached with one, and pings find no tunnel that carries them. */
#include <errno.h>

#include "masque.h"

struct masque *masque_of(struct up_env *env, struct up_memory *m)
{
    (void)env;
    (void)m;
    return NULL;
}

void masque_free(struct masque *m)
{
    (void)m;
}

void masque_check(struct masque *m, uint64_t timeout_us, void (*fn)(void *arg, int err), void *arg)
{
    (void)m;
    (void)timeout_us;
    (void)fn;
    (void)arg;
}

void masque_check_cancel(struct masque *m)
{
    (void)m;
}

int masque_stream_new(struct handshake *h, const struct host_port *dst, uint64_t timeout_us,
                      struct masque_stream **out)
{
    (void)h;
    (void)dst;
    (void)timeout_us;
    (void)out;
    return -ENOTSUP;
}

bool masque_stream_asked(const struct masque_stream *ms)
{
    (void)ms;
    return false;
}

void masque_stream_attach(struct masque_stream *ms, struct up_stream *s)
{
    (void)ms;
    (void)s;
}

ssize_t masque_stream_recv(struct masque_stream *ms, void *to, size_t len)
{
    (void)ms;
    (void)to;
    (void)len;
    return -ENOTSUP;
}

ssize_t masque_stream_sendv(struct masque_stream *ms, const struct iovec *iov, int iovcnt)
{
    (void)ms;
    (void)iov;
    (void)iovcnt;
    return -ENOTSUP;
}

void masque_stream_want(struct masque_stream *ms, unsigned events)
{
    (void)ms;
    (void)events;
}

void masque_stream_shutdown(struct masque_stream *ms)
{
    (void)ms;
}

void masque_stream_close(struct masque_stream *ms)
{
    (void)ms;
}

const char *masque_stream_stage(const struct masque_stream *ms)
{
    (void)ms;
    return "connect";
}

/* Of pools that stay empty. */
size_t masque_stream_bytes(void)
{
    return sizeof(void *);
}

size_t masque_udp_bytes(void)
{
    return sizeof(void *);
}

size_t masque_target_bytes(void)
{
    return sizeof(void *);
}

void masque_udp_open(struct up_udp *u)
{
    (void)u;
}

int masque_udp_send(struct masque_udp *mu, const struct host_port *target, const struct up_row_out *o)
{
    (void)mu;
    (void)target;
    (void)o;
    return -ENOTSUP;
}

void masque_udp_close(struct masque_udp *mu)
{
    (void)mu;
}

enum up_echo_state up_echo_state(struct up_env *env, struct upstream *up, bool v6)
{
    (void)env;
    (void)up;
    (void)v6;
    return UP_ECHO_UNSUPPORTED;
}

void up_echo_listen(struct up_env *env, const struct up_echo_events *events, void *arg)
{
    (void)env;
    (void)events;
    (void)arg;
}

int up_echo_send(struct up_env *env, struct upstream *up, const struct up_echo_request *r)
{
    (void)env;
    (void)up;
    (void)r;
    return -EOPNOTSUPP;
}
