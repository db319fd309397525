/* server.c - the control socket: libmicrohttpd, driven by our loop.
 *
 * How it works. The listening socket is ours: a file that only its owner may open. We accept, and hand connections to
 * libmicrohttpd, which keeps them in an epoll set of its own; our loop watches that one descriptor and a timer, and calls
 * MHD_run() when either says so. A request that takes a while is suspended and resumed when its answer is there; one that is
 * answered at once never is.
 *
 * When the flows have taken every descriptor, status must still answer (faults.md G1): the program leaves a few below the hard
 * limit (process_raise_fd_limit), and here the soft limit is lifted for the moment of one accept.
 *
 * Limits (faults.md A4): 64 connections, 8 KiB for the head of a request, 10 s without progress. A body is not read. */
#include "api_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef WITH_API

#include <microhttpd.h>

enum { CONNECTIONS_MAX = 64, CONNECTION_BYTES = 8 << 10, CONNECTION_TIMEOUT_S = 10 };
enum { ACCEPTS_A_TURN = 16, ACCEPT_AGAIN_US = 100000 };

/* One request under way: made when its head has been read, freed when MHD says that it is over. */
struct api_answer {
    struct api *api;
    struct api_answer *next, *prev; /* in api->waiting while WAITING */
    struct MHD_Connection *connection;
    char *body; /* JSON, ours until it is part of a response; NULL in ANSWERED: there was no memory */
    enum { HEAD_READ, ASKED, WAITING, ANSWERED } state;
    bool flows; /* the list of them was asked for */
};

struct api {
    struct api_options opt;
    struct loop *loop;
    struct MHD_Daemon *mhd;
    struct loop_io io; /* MHD's epoll set */
    struct loop_timer timer;
    struct loop_io listen_io;
    struct loop_timer accept_timer; /* after an accept that failed: again, but not in a circle */
    struct api_answer *waiting;
    bool running; /* inside MHD_run(), which must not be entered again from a callback */
    int listen_fd;
    bool bound; /* the file is ours to remove */
    dev_t dev;  /* of the socket file, so that we remove ours and no other */
    ino_t ino;
    char path[API_PATH_MAX + 1];
};

/* ---- answers ---- */

/* @text is copied, or freed by MHD when @owned. */
static enum MHD_Result send_text(struct MHD_Connection *c, unsigned status, char *text, bool owned)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(
        strlen(text), text, owned ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_MUST_COPY);
    enum MHD_Result sent = MHD_NO;

    if (r == NULL && owned)
        free(text);
    if (r == NULL)
        return MHD_NO;
    if (MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json") == MHD_YES &&
        (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
         MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, MHD_HTTP_METHOD_GET) == MHD_YES))
        sent = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return sent;
}

static enum MHD_Result send_error(struct MHD_Connection *c, unsigned status, const char *sentence)
{
    char text[128];

    snprintf(text, sizeof(text), "{\"error\": \"%s\"}\n", sentence);
    return send_text(c, status, text, false);
}

static enum MHD_Result send_body(struct api_answer *a)
{
    char *body = a->body;

    a->body = NULL;
    if (body == NULL)
        return send_error(a->connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory for the answer");
    return send_text(a->connection, MHD_HTTP_OK, body, true);
}

static void waiting_add(struct api_answer *a)
{
    a->state = WAITING;
    a->prev = NULL;
    a->next = a->api->waiting;
    if (a->next != NULL)
        a->next->prev = a;
    a->api->waiting = a;
}

static void waiting_remove(struct api_answer *a)
{
    if (a->prev != NULL)
        a->prev->next = a->next;
    else
        a->api->waiting = a->next;
    if (a->next != NULL)
        a->next->prev = a->prev;
}

static enum MHD_Result ask_status(struct api_answer *a)
{
    const char *flows = MHD_lookup_connection_value(a->connection, MHD_GET_ARGUMENT_KIND, "flows");

    a->state = ASKED;
    a->flows = flows != NULL && strcmp(flows, "1") == 0;
    a->api->opt.on_status(a->api->opt.arg, a->flows, a);
    if (a->state == ANSWERED)
        return send_body(a);
    waiting_add(a);
    MHD_suspend_connection(a->connection);
    return MHD_YES;
}

static enum MHD_Result route(struct api_answer *a, const char *url, const char *method)
{
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0)
        return send_error(a->connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET is answered here");
    if (strcmp(url, "/v1/status") != 0)
        return send_error(a->connection, MHD_HTTP_NOT_FOUND, "no such path");
    return ask_status(a);
}

/* MHD calls this for the head, for each piece of a body, at the end of the request, and again after a resume. To answer at
 * the head would close the connection after it, so the request is heard to its end; a body is thrown away. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_len, void **request)
{
    struct api_answer *a = *request;

    (void)version;
    (void)upload;
    if (a == NULL) {
        a = calloc(1, sizeof(*a));
        if (a == NULL)
            return MHD_NO;
        *a = (struct api_answer){ .api = cls, .connection = c, .state = HEAD_READ };
        *request = a;
        return MHD_YES;
    }
    if (*upload_len > 0) {
        *upload_len = 0;
        return MHD_YES;
    }
    return a->state == ANSWERED ? send_body(a) : route(a, url, method);
}

static void on_completed(void *cls, struct MHD_Connection *c, void **request,
                         enum MHD_RequestTerminationCode why)
{
    struct api_answer *a = *request;

    (void)cls;
    (void)c;
    (void)why;
    if (a == NULL)
        return;
    *request = NULL;
    free(a->body);
    free(a);
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

/* One connection. With no descriptor left below the soft limit, one from between it and the hard limit. */
static int accept_one(const struct api *api)
{
    struct rlimit files, more;
    int fd = accept4(api->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), r;

    if (fd >= 0 || errno != EMFILE || getrlimit(RLIMIT_NOFILE, &files) != 0)
        return fd >= 0 ? fd : -errno;
    more = (struct rlimit){ files.rlim_max, files.rlim_max };
    setrlimit(RLIMIT_NOFILE, &more);
    fd = accept4(api->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    r = fd >= 0 ? fd : -errno;
    setrlimit(RLIMIT_NOFILE, &files);
    return r;
}

static void on_accept_again(struct loop_timer *t)
{
    struct api *api = CONTAINER_OF(t, struct api, accept_timer);

    loop_io_set(api->loop, &api->listen_io, LOOP_READ);
}

static void on_connections(struct loop_io *io, unsigned events)
{
    struct api *api = CONTAINER_OF(io, struct api, listen_io);
    struct sockaddr_un peer = { .sun_family = AF_UNIX };
    int fd = 0;

    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN && (fd = accept_one(api)) >= 0; i++)
        MHD_add_connection(api->mhd, fd, (struct sockaddr *)&peer,
                           sizeof(sa_family_t)); /* closes what it refuses */
    if (fd < 0 && fd != -EAGAIN && fd != -ECONNABORTED && fd != -EINTR) {
        loop_io_set(api->loop, io, 0);
        loop_timer_start(api->loop, &api->accept_timer, clock_now_us() + ACCEPT_AGAIN_US, on_accept_again);
    }
    api_turn(api);
}

void api_answer_status(struct api_answer *a, const struct status_snapshot *s)
{
    bool waited = a->state == WAITING;

    a->body = s != NULL ? api_json_status(s, a->flows) : NULL;
    a->state = ANSWERED;
    if (!waited)
        return; /* still inside on_status: its caller sends the body */
    waiting_remove(a);
    MHD_resume_connection(a->connection);
    /* Not MHD_run() from here: the caller's stack is not ours. The timer is due in this loop's next turn. */
    loop_timer_start(a->api->loop, &a->api->timer, clock_now_us(), on_timer);
}

/* ---- the socket file ---- */

/* faults.md A7: what a killed process left behind refuses a connection; anything else is in use, or not ours. */
static int remove_stale(const struct sockaddr_un *sa, struct err *err)
{
    struct stat st;
    int fd, r;

    if (lstat(sa->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : err_set(err, -errno, "api.unix: %s: %s", sa->sun_path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EEXIST,
                       "api.unix: %s is there and no socket; move it away or choose another path",
                       sa->sun_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "api.unix: no socket: %s", strerror(errno));
    r = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 ? 0 : -errno;
    close(fd);
    if (r != -ECONNREFUSED)
        return err_set(err, -EADDRINUSE,
                       "api.unix: another culvert answers on %s; stop it or choose another path",
                       sa->sun_path);
    if (unlink(sa->sun_path) != 0 && errno != ENOENT)
        return err_set(err, -errno, "api.unix: %s is stale and cannot be removed: %s", sa->sun_path,
                       strerror(errno));
    return 0;
}

static int bind_error(int r, const char *path, struct err *err)
{
    if (r == -ENOENT || r == -ENOTDIR)
        return err_set(err, r, "api.unix: the folder of %s is missing; create it or choose another path",
                       path);
    if (r == -EACCES || r == -EPERM || r == -EROFS)
        return err_set(err, r, "api.unix: %s cannot be made: %s; choose a path in a folder of yours", path,
                       strerror(-r));
    return err_set(err, r, "api.unix: %s: %s", path, strerror(-r));
}

static int listen_unix(struct api *api, struct err *err)
{
    struct sockaddr_un sa;
    struct stat st;
    int r;

    if ((r = api_address(api->opt.unix_path, &sa, err)) != 0 || (r = remove_stale(&sa, err)) != 0)
        return r;
    api->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (api->listen_fd < 0)
        return err_set(err, -errno, "api.unix: no socket: %s", strerror(errno));
    /* Linux makes the file with the mode of the socket, less the umask: never open to others, not even for a moment. */
    if (fchmod(api->listen_fd, 0600) != 0 || bind(api->listen_fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
        return bind_error(-errno, sa.sun_path, err);
    memcpy(api->path, sa.sun_path, sizeof(api->path));
    if (lstat(api->path, &st) == 0) {
        api->bound = true;
        api->dev = st.st_dev;
        api->ino = st.st_ino;
    }
    if (listen(api->listen_fd, CONNECTIONS_MAX) != 0)
        return bind_error(-errno, sa.sun_path, err);
    return 0;
}

static void remove_socket_file(const struct api *api)
{
    struct stat st;

    if (api->bound && lstat(api->path, &st) == 0 && st.st_dev == api->dev && st.st_ino == api->ino)
        unlink(api->path);
}

static int start_server(struct api *api, struct err *err)
{
    const union MHD_DaemonInfo *info;

    api->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, NULL,
                                NULL, on_request, api, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                                MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
                                MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_TIMEOUT_S,
                                MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_END);
    if (api->mhd == NULL)
        return err_set(err, -ENOMEM, "api.unix: the HTTP server does not start: %s", strerror(errno));
    info = MHD_get_daemon_info(api->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL || info->epoll_fd < 0)
        return err_set(err, -ENOTSUP,
                       "api.unix: the HTTP server has no epoll; rebuild libmicrohttpd with it");
    loop_io_start(api->loop, &api->io, info->epoll_fd, LOOP_READ, on_ready);
    loop_io_start(api->loop, &api->listen_io, api->listen_fd, LOOP_READ, on_connections);
    return 0;
}

int api_open(const struct api_options *opt, struct loop *l, struct api **out, struct err *err)
{
    struct api *api = calloc(1, sizeof(*api));
    int r;

    if (api == NULL)
        return err_set(err, -ENOMEM, "api.unix: no memory");
    *api = (struct api){ .opt = *opt, .loop = l, .listen_fd = -1 };
    if ((r = listen_unix(api, err)) != 0 || (r = start_server(api, err)) != 0) {
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
    remove_socket_file(api);
    loop_io_stop(api->loop, &api->io);
    loop_timer_stop(api->loop, &api->timer);
    loop_io_stop(api->loop, &api->listen_io);
    loop_timer_stop(api->loop, &api->accept_timer);
    while (api->waiting != NULL) { /* MHD must not be stopped with suspended connections */
        struct api_answer *a = api->waiting;

        waiting_remove(a);
        a->state = ANSWERED;
        MHD_resume_connection(a->connection);
    }
    if (api->mhd != NULL)
        MHD_stop_daemon(api->mhd);
    if (api->listen_fd >= 0)
        close(api->listen_fd);
    free(api);
}

#else /* !WITH_API */

int api_open(const struct api_options *opt, struct loop *l, struct api **out, struct err *err)
{
    (void)opt;
    (void)l;
    (void)out;
    return err_set(err, -ENOTSUP, "api.unix: not built in; configure the build with -DWITH_API=ON");
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

#endif
