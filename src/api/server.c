/* server.c - the control socket: libmicrohttpd, driven by our loop.
 *
 * How it works. The listening sockets are ours (listen.c). We accept, and hand connections to libmicrohttpd, which keeps them in
 * an epoll set of its own; our loop watches that one descriptor and a timer, and calls MHD_run() when either says so. What is
 * asked and answered is in request.c.
 *
 * When the flows have taken every descriptor, status must still answer (faults.md G1): the program leaves a few below the hard
 * limit (process_raise_fd_limit), and here the soft limit is lifted for the moment of one accept.
 *
 * Limits (faults.md A4): 64 connections, 8 KiB for the head of a request, 1 MiB for its body, 4 MiB for all of them. MHD's own time-out is one of
 * silence, which a byte now and then escapes; so a connection that has not brought a whole request within 10 s is closed. */
#include "api_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#ifdef WITH_API

enum { ACCEPTS_A_TURN = 16, ACCEPT_AGAIN_US = 100000, SWEEP_US = 1000000 };

/* ---- connections ---- */

static void on_connection(void *cls, struct MHD_Connection *c, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct api *api = cls;
    struct api_peer *p = *socket_context;

    if (what == MHD_CONNECTION_NOTIFY_STARTED && (p = calloc(1, sizeof(*p))) != NULL) {
        *p = (struct api_peer){ .next = api->peers,
                                .since_us = clock_now_us(),
                                .fd = info != NULL ? info->connect_fd : -1 };
        if (api->peers != NULL)
            api->peers->prev = p;
        api->peers = p;
        *socket_context = p;
    } else if (what == MHD_CONNECTION_NOTIFY_CLOSED && p != NULL) {
        *(p->prev != NULL ? &p->prev->next : &api->peers) = p->next;
        if (p->next != NULL)
            p->next->prev = p->prev;
        free(p);
        *socket_context = NULL;
    }
}

/* MHD closes what has been shut down, as if its other end had. */
static void on_sweep(struct loop_timer *t)
{
    struct api *api = CONTAINER_OF(t, struct api, sweep);
    uint64_t now_us = clock_now_us();

    for (struct api_peer *p = api->peers; p != NULL; p = p->next)
        if (!p->heard && p->fd >= 0 && now_us - p->since_us > API_TIMEOUT_S * UINT64_C(1000000))
            shutdown(p->fd, SHUT_RDWR);
    if (api->peers != NULL)
        loop_timer_start(api->loop, t, loop_now_us(api->loop) + SWEEP_US, on_sweep);
}

/* ---- driven by the loop ---- */

static void on_timer(struct loop_timer *t);

/* Let MHD do what it can now, and wake it when its next time-out is due. */
static void api_turn(struct api *api)
{
    MHD_UNSIGNED_LONG_LONG ms;

    if (api->running)
        return;
    api->running = true;
    MHD_run(api->mhd);
    api->running = false;
    if (MHD_get_timeout(api->mhd, &ms) == MHD_YES)
        loop_timer_start(api->loop, &api->timer, clock_now_us() + ms * 1000, on_timer);
    else
        loop_timer_stop(api->loop, &api->timer);
    if (api->peers != NULL && !loop_timer_active(&api->sweep))
        loop_timer_start(api->loop, &api->sweep, clock_now_us() + SWEEP_US, on_sweep);
}

static void on_timer(struct loop_timer *t)
{
    api_turn(CONTAINER_OF(t, struct api, timer));
}

static void on_ready(struct loop_io *io, unsigned events)
{
    (void)events;
    api_turn(CONTAINER_OF(io, struct api, io));
}

void api_wake(struct api *api)
{
    loop_timer_start(api->loop, &api->timer, clock_now_us(), on_timer);
}

/* One connection. With no descriptor left below the soft limit, one from between it and the hard limit. */
static int accept_one(int listen_fd, struct sockaddr_storage *peer, socklen_t *len)
{
    socklen_t most = *len;
    struct rlimit files, more;
    int fd = accept4(listen_fd, (struct sockaddr *)peer, len, SOCK_CLOEXEC | SOCK_NONBLOCK), r;

    if (fd >= 0 || errno != EMFILE || getrlimit(RLIMIT_NOFILE, &files) != 0)
        return fd >= 0 ? fd : -errno;
    more = (struct rlimit){ files.rlim_max, files.rlim_max };
    setrlimit(RLIMIT_NOFILE, &more);
    *len = most;
    fd = accept4(listen_fd, (struct sockaddr *)peer, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    r = fd >= 0 ? fd : -errno;
    setrlimit(RLIMIT_NOFILE, &files);
    return r;
}

static void on_accept_again(struct loop_timer *t)
{
    struct api_listener *l = CONTAINER_OF(t, struct api_listener, again);

    loop_io_set(l->api->loop, &l->io, LOOP_READ);
}

static void on_connections(struct loop_io *io, unsigned events)
{
    struct api_listener *l = CONTAINER_OF(io, struct api_listener, io);
    int fd = 0;

    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN && fd >= 0; i++) {
        struct sockaddr_storage peer = { 0 };
        socklen_t len = sizeof(peer);

        fd = accept_one(l->socket.fd, &peer, &len);
        if (fd >= 0)
            MHD_add_connection(l->api->mhd, fd, (struct sockaddr *)&peer, len); /* closes what it refuses */
    }
    if (fd < 0 && fd != -EAGAIN && fd != -ECONNABORTED && fd != -EINTR) {
        loop_io_set(l->api->loop, io, 0);
        loop_timer_start(l->api->loop, &l->again, clock_now_us() + ACCEPT_AGAIN_US, on_accept_again);
    }
    api_turn(l->api);
}

/* ---- life ---- */

static int start_server(struct api *api, struct err *err)
{
    const union MHD_DaemonInfo *info;

    api->mhd = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE, 0, NULL,
        NULL, api_on_request, api, MHD_OPTION_NOTIFY_COMPLETED, api_on_completed, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, api, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)API_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)API_TIMEOUT_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)API_HEAD_BYTES, MHD_OPTION_END);
    if (api->mhd == NULL)
        return err_set(err, -ENOMEM, "api: the HTTP server does not start: %s", strerror(errno));
    info = MHD_get_daemon_info(api->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL || info->epoll_fd < 0)
        return err_set(err, -ENOTSUP, "api: the HTTP server has no epoll; rebuild libmicrohttpd with it");
    loop_io_start(api->loop, &api->io, info->epoll_fd, LOOP_READ, on_ready);
    for (size_t i = 0; i < ARRAY_LEN(api->listener); i++)
        if (api->listener[i].socket.fd >= 0)
            loop_io_start(api->loop, &api->listener[i].io, api->listener[i].socket.fd, LOOP_READ,
                          on_connections);
    return 0;
}

/* The listening sockets and copies of the options' texts. */
static int take_options(struct api *api, struct err *err)
{
    struct api_options *o = &api->opt;
    int r;

    if (o->listen.port != 0 && !ip_is_loopback(&o->listen.addr) && o->secret == NULL)
        return err_set(err, -EINVAL, "api.listen: others can reach this address; set api.secret, too");
    if ((o->secret != NULL && (api->secret = strdup(o->secret)) == NULL) ||
        (o->metrics != NULL && (api->metrics = strdup(o->metrics)) == NULL))
        return err_set(err, -ENOMEM, "api: no memory");
    o->secret = api->secret;
    o->metrics = api->metrics;
    if (o->unix_path != NULL && (r = api_listen_unix(o->unix_path, &api->listener[0].socket, err)) != 0)
        return r;
    return o->listen.port != 0 ? api_listen_tcp(&o->listen, &api->listener[1].socket, err) : 0;
}

int api_open(const struct api_options *opt, struct loop *l, struct api **out, struct err *err)
{
    struct api *api = calloc(1, sizeof(*api));
    int r;

    if (api == NULL)
        return err_set(err, -ENOMEM, "api: no memory");
    *api = (struct api){ .opt = *opt, .loop = l };
    for (size_t i = 0; i < ARRAY_LEN(api->listener); i++) {
        api->listener[i].api = api;
        api->listener[i].socket.fd = -1;
    }
    if ((r = take_options(api, err)) != 0 || (r = start_server(api, err)) != 0) {
        api_close(api);
        return r;
    }
    *out = api;
    return 0;
}

void api_close(struct api *api)
{
    if (api == NULL)
        return;
    loop_io_stop(api->loop, &api->io);
    loop_timer_stop(api->loop, &api->timer);
    loop_timer_stop(api->loop, &api->sweep);
    for (size_t i = 0; i < ARRAY_LEN(api->listener); i++) {
        loop_io_stop(api->loop, &api->listener[i].io);
        loop_timer_stop(api->loop, &api->listener[i].again);
        api_socket_close(&api->listener[i].socket);
    }
    api_events_close(api);
    api_answers_drop(api);
    if (api->mhd != NULL)
        MHD_stop_daemon(api->mhd);
    if (api->secret != NULL)
        explicit_bzero(api->secret, strlen(api->secret));
    free(api->secret);
    free(api->metrics);
    free(api);
}

#else /* !WITH_API */

int api_open(const struct api_options *opt, struct loop *l, struct api **out, struct err *err)
{
    (void)opt;
    (void)l;
    (void)out;
    return err_set(err, -ENOTSUP, "api: not built in; configure the build with -DWITH_API=ON");
}

void api_close(struct api *api)
{
    (void)api;
}

void api_answer_status(struct api_answer *a, const struct status_snapshot *s)
{
    (void)a;
    (void)s;
}

void api_answer_ended(struct api_answer *a, bool found)
{
    (void)a;
    (void)found;
}

#endif
