/* events.c - GET /v1/events: a websocket (RFC 6455) on which the gateway tells of ended flows and, once a second, of its counters.
 *
 * How it works. MHD hands the descriptor over after its answer to the handshake; wslay reads and writes the frames, our loop
 * watches the descriptor. What a listener sends is heard and thrown away, but for pings and its close.
 *
 * Limits (faults.md A5): 16 listeners; a frame of theirs has at most 1 KiB, else 1009; what is no frame of a client is 1002. When
 * more than 64 KiB wait for one that does not read, what is new is lost to it, and its next message of counters says how much. */
#ifdef WITH_API

#include "api_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <wslay/wslay.h>

enum { WATCHERS_MAX = 16, FRAME_MAX = 1024, UNSENT_MAX = 64 << 10 };

struct api_watcher {
    struct api *api;
    struct api_watcher *next;
    struct MHD_UpgradeResponseHandle *upgrade;
    wslay_event_context_ptr frames;
    struct loop_io io;
    uint64_t lost;
    size_t first_len, first_at; /* bytes that came behind the handshake */
    uint8_t first[];
};

/* ---- frames ---- */

static ssize_t on_recv(wslay_event_context_ptr frames, uint8_t *to, size_t len, int flags, void *arg)
{
    struct api_watcher *w = arg;
    size_t left = w->first_len - w->first_at;
    ssize_t n;

    (void)flags;
    if (left > 0) {
        n = (ssize_t)(left < len ? left : len);
        memcpy(to, w->first + w->first_at, (size_t)n);
        w->first_at += (size_t)n;
        return n;
    }
    n = recv(loop_io_fd(&w->io), to, len, MSG_DONTWAIT);
    if (n > 0)
        return n;
    wslay_event_set_error(frames, n < 0 && (errno == EAGAIN || errno == EINTR) ? WSLAY_ERR_WOULDBLOCK
                                                                               : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static ssize_t on_send(wslay_event_context_ptr frames, const uint8_t *data, size_t len, int flags, void *arg)
{
    struct api_watcher *w = arg;
    ssize_t n = send(loop_io_fd(&w->io), data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

    (void)flags;
    if (n >= 0)
        return n;
    wslay_event_set_error(frames, errno == EAGAIN || errno == EINTR ? WSLAY_ERR_WOULDBLOCK
                                                                    : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static const struct wslay_event_callbacks callbacks = { .recv_callback = on_recv, .send_callback = on_send };

/* ---- one listener ---- */

static void watcher_close(struct api_watcher *w)
{
    struct api *api = w->api;
    struct api_watcher **at;

    for (at = &api->watchers; *at != w; at = &(*at)->next)
        ;
    *at = w->next;
    loop_io_stop(api->loop, &w->io);
    if (w->frames != NULL)
        wslay_event_context_free(w->frames);
    MHD_upgrade_action(w->upgrade, MHD_UPGRADE_ACTION_CLOSE);
    free(w);
    api_wake(api);
    if (api->watchers == NULL)
        api->opt.on_watch(api->opt.arg, false);
}

/* Return: false: it is closed and gone. */
static bool watcher_flush(struct api_watcher *w)
{
    if (wslay_event_send(w->frames) != 0 ||
        (!wslay_event_want_read(w->frames) && !wslay_event_want_write(w->frames))) {
        watcher_close(w);
        return false;
    }
    loop_io_set(w->api->loop, &w->io, LOOP_READ | (wslay_event_want_write(w->frames) ? LOOP_WRITE : 0));
    return true;
}

static void on_watcher(struct loop_io *io, unsigned events)
{
    struct api_watcher *w = CONTAINER_OF(io, struct api_watcher, io);

    (void)events;
    /* A frame that breaks the rules is answered by wslay with a close of its own, which still has to leave. */
    if (wslay_event_want_read(w->frames) && wslay_event_recv(w->frames) != 0) {
        watcher_close(w);
        return;
    }
    watcher_flush(w);
}

static void watcher_tell(struct api_watcher *w, const char *text)
{
    struct wslay_event_msg m = { WSLAY_TEXT_FRAME, (const uint8_t *)text, strlen(text) };

    if (wslay_event_get_queued_msg_length(w->frames) + m.msg_length > UNSENT_MAX ||
        wslay_event_queue_msg(w->frames, &m) != 0)
        w->lost++;
    else
        watcher_flush(w);
}

/* ---- beginning ---- */

static size_t watcher_count(const struct api *api)
{
    size_t n = 0;

    for (const struct api_watcher *w = api->watchers; w != NULL; w = w->next)
        n++;
    return n;
}

static void on_upgrade(void *cls, struct MHD_Connection *c, void *request, const char *first,
                       size_t first_len, MHD_socket fd, struct MHD_UpgradeResponseHandle *upgrade)
{
    struct api *api = cls;
    struct api_answer *a = request;
    struct api_watcher *w = calloc(1, sizeof(*w) + first_len);

    (void)c;
    if (a != NULL && a->peer != NULL)
        a->peer->fd = -1; /* it may be silent from now on */
    if (w == NULL || wslay_event_context_server_init(&w->frames, &callbacks, w) != 0) {
        free(w);
        MHD_upgrade_action(upgrade, MHD_UPGRADE_ACTION_CLOSE);
        return;
    }
    wslay_event_config_set_max_recv_msg_length(w->frames, FRAME_MAX);
    w->api = api;
    w->upgrade = upgrade;
    w->first_len = first_len;
    if (first_len > 0)
        memcpy(w->first, first, first_len);
    w->next = api->watchers;
    api->watchers = w;
    /* Writable at once: what came behind the handshake is read in a turn of its own, when MHD is done with this connection. */
    loop_io_start(api->loop, &w->io, fd, LOOP_READ | LOOP_WRITE, on_watcher);
    if (w->next == NULL)
        api->opt.on_watch(api->opt.arg, true);
}

static bool header_is(struct MHD_Connection *c, const char *name, const char *value)
{
    const char *text = MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);

    return text != NULL && strcasecmp(text, value) == 0;
}

bool api_events_wanted(struct MHD_Connection *c, char accept[TLS_WEBSOCKET_ACCEPT_BYTES])
{
    const char *key = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Sec-WebSocket-Key");

    return header_is(c, "Upgrade", "websocket") && header_is(c, "Sec-WebSocket-Version", "13") &&
           key != NULL && strlen(key) == 24 && tls_websocket_accept(key, accept) == 0;
}

enum MHD_Result api_events_open(struct api *api, struct MHD_Connection *c)
{
    char accept[TLS_WEBSOCKET_ACCEPT_BYTES];
    struct MHD_Response *r;
    enum MHD_Result sent = MHD_NO;

    if (watcher_count(api) >= WATCHERS_MAX || api->opt.on_watch == NULL || !api_events_wanted(c, accept))
        return MHD_NO;
    r = MHD_create_response_for_upgrade(on_upgrade, api);
    if (r == NULL)
        return MHD_NO;
    if (MHD_add_response_header(r, "Upgrade", "websocket") == MHD_YES &&
        MHD_add_response_header(r, "Sec-WebSocket-Accept", accept) == MHD_YES)
        sent = MHD_queue_response(c, MHD_HTTP_SWITCHING_PROTOCOLS, r);
    MHD_destroy_response(r);
    return sent;
}

void api_events_close(struct api *api)
{
    while (api->watchers != NULL)
        watcher_close(api->watchers);
}

/* ---- telling ---- */

void api_tell_ended(struct api *api, const struct status_ended *e)
{
    char *text = api != NULL && api->watchers != NULL ? api_json_ended(e) : NULL;

    for (struct api_watcher *w = text != NULL ? api->watchers : NULL, *next; w != NULL; w = next) {
        next = w->next; /* it may be gone after this */
        watcher_tell(w, text);
    }
    free(text);
}

void api_tell_counters(struct api *api, const struct status_snapshot *s)
{
    for (struct api_watcher *w = api != NULL && s != NULL ? api->watchers : NULL, *next; w != NULL;
         w = next) {
        char *text = api_json_counters(s, w->lost);

        next = w->next;
        if (text != NULL)
            watcher_tell(w, text);
        free(text);
    }
}

#else

#include "api_impl.h"

void api_tell_ended(struct api *api, const struct status_ended *e)
{
    (void)api;
    (void)e;
}

void api_tell_counters(struct api *api, const struct status_snapshot *s)
{
    (void)api;
    (void)s;
}

#endif
