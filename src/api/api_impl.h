/* api_impl.h - what the files of src/api share. */
#ifndef CULVERT_API_IMPL_H
#define CULVERT_API_IMPL_H

#include <sys/stat.h>
#include <sys/un.h>

#include "culvert/api.h"
#include "culvert/tls.h"

#define API_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1) /* 107 bytes on Linux */

/* Limits (faults.md A4). 64 connections with a mebibyte each would be all that a router has, so there is one for all bodies, too. */
enum {
    API_CONNECTIONS_MAX = 64,
    API_HEAD_BYTES = 8 << 10,
    API_TIMEOUT_S = 10,
    API_BODY_MAX = 1 << 20,
    API_BODIES_MAX = 4 << 20
};

/** api_address() - the address of a socket file
 * Return: 0; -ENAMETOOLONG or -EINVAL (empty) with a sentence. */
int api_address(const char *path, struct sockaddr_un *out, struct err *err);

/* ---- json.c: snapshots as JSON text with a newline at the end, malloc'd; NULL: no memory ---- */
char *api_json_status(const struct status_snapshot *s, bool flows);
char *api_json_flows(const struct status_snapshot *s);
char *api_json_last(const struct status_snapshot *s); /* flows that ended */
char *api_json_groups(const struct status_snapshot *s);
char *api_json_group(const struct status_snapshot *s, const char *name); /* NULL as well: there is none */
char *api_json_upstreams(const struct status_snapshot *s);
char *api_json_rules(const struct status_snapshot *s);
char *api_json_ended(const struct status_ended *e); /* one line, as the next */
/** api_json_counters() - flows and the sums of counters; @lost: messages that this listener did not get */
char *api_json_counters(const struct status_snapshot *s, uint64_t lost);
/** api_json_error() - {"error": @sentence}, with the place in the caller's text when @line > 0 */
char *api_json_error(const char *sentence, int line, int column);

/** api_text_flows() - the live flows as a table, malloc'd; NULL: no memory. Works without WITH_API */
char *api_text_flows(const struct status_snapshot *s);
char *api_text_last(const struct status_snapshot *s); /* the same of those that ended, with the reason */

/* ---- metrics.c ---- */
/** api_metrics() - the text format of Prometheus, version 0.0.4; malloc'd, NULL: no memory. Works without WITH_API */
char *api_metrics(const struct status_snapshot *s);

/* ---- body.c: what callers send, pure ---- */
struct api_body {
    char member[STATUS_NAME_MAX]; /* "now"; "": not there */
    uint32_t drain_ms;            /* "drain-ms"; API_NO_DRAIN: not there */
};
struct api_fault { /* a sentence and the place that it is about, from 1 */
    char text[200];
    int line, column;
};
/** api_body_read() - one JSON object with keys that we know, none of them twice. No text at all is an empty object
 * Return: 0; -EINVAL and *fault; -ENOMEM. */
int api_body_read(const char *text, size_t len, struct api_body *out, struct api_fault *fault);

/* ---- guard.c: who may ask over TCP, pure ---- */
/** api_host_is_ours() - does "Host:" name the address that we listen on? A page of another site that got itself our address by
 * DNS rebinding sends its own name (faults.md A2); so names are not ours, but for "localhost" on a loopback address. */
bool api_host_is_ours(const char *host, const struct ip_port *listen);
/** api_origin_is_ours() - NULL (no browser), or "http://" and a host that is ours */
bool api_origin_is_ours(const char *origin, const struct ip_port *listen);
/** api_secret_is_right() - compares @header ("Bearer SECRET", or NULL) in a time that depends on @header's length only */
bool api_secret_is_right(const char *header, const char *secret);

/* ---- listen.c: the two listening sockets ---- */
struct api_socket {
    int fd;
    bool bound; /* the file is ours to remove */
    dev_t dev;  /* of the socket file, so that we remove ours and no other */
    ino_t ino;
    char path[API_PATH_MAX + 1];
};
int api_listen_unix(const char *path, struct api_socket *out,
                    struct err *err); /* 0 or -errno with a sentence */
int api_listen_tcp(const struct ip_port *at, struct api_socket *out, struct err *err);
void api_socket_close(struct api_socket *s); /* .fd -1 is fine */

#ifdef WITH_API
#include <microhttpd.h>

/* ---- request.c ---- */
/* What a request is about, once it has been read. */
enum api_about {
    API_STATUS,
    API_FLOWS,
    API_FLOWS_TEXT,
    API_LAST,
    API_LAST_TEXT,
    API_GROUPS,
    API_GROUP,
    API_UPSTREAMS,
    API_RULES,
    API_METRICS,
    API_END_FLOW,
    API_RELOAD,
    API_EVENTS
};

/* One connection, as long as it is open: what bounds the time that a request may take to come. */
struct api_peer {
    struct api_peer *next, *prev;
    uint64_t since_us; /* it was opened, or its last request ended */
    bool heard;        /* a whole request is here; its answer is not our caller's fault */
    int fd;
};

/* One request under way: made when its head has been read, freed when MHD says that it is over. */
struct api_answer {
    struct api *api;
    struct api_answer *next, *prev; /* in api->waiting while WAITING */
    struct MHD_Connection *connection;
    struct api_peer *peer;
    char *in; /* the body that came, NULL: none */
    size_t in_len;
    bool too_long;
    char *body; /* ours until it is part of a response; NULL in ANSWERED: there was no memory */
    unsigned status;
    enum { HEAD_READ, ASKED, WAITING, ANSWERED } state;
    enum api_about about;
    bool flows; /* the list of them was asked for */
    char name[STATUS_NAME_MAX];
};

struct api {
    struct api_options opt; /* its texts are the next two */
    char *secret, *metrics;
    struct loop *loop;
    struct MHD_Daemon *mhd;
    struct loop_io io; /* MHD's epoll set */
    struct loop_timer timer;
    struct api_listener {
        struct api *api;
        struct api_socket socket;
        struct loop_io io;
        struct loop_timer again; /* after an accept that failed: again, but not in a circle */
    } listener[2];               /* unix, TCP */
    struct loop_timer sweep;     /* looks for connections that are silent for too long */
    struct api_peer *peers;
    struct api_answer *waiting;
    struct api_watcher *watchers;
    size_t body_bytes; /* of all requests under way; at most API_BODIES_MAX */
    bool running;      /* inside MHD_run(), which must not be entered again from a callback */
};

enum MHD_Result api_on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                               const char *version, const char *upload, size_t *upload_len, void **request);
void api_on_completed(void *cls, struct MHD_Connection *c, void **request,
                      enum MHD_RequestTerminationCode why);
void api_answers_drop(struct api *api); /* those that wait: MHD must not be stopped with suspended ones */
/* ---- events.c ---- */
bool api_events_wanted(struct MHD_Connection *c,
                       char accept[TLS_WEBSOCKET_ACCEPT_BYTES]); /* is this a websocket's handshake? */
enum MHD_Result api_events_open(struct api *api, struct MHD_Connection *c); /* MHD_NO: not now, close it */
void api_events_close(struct api *api);

void api_wake(struct api *api); /* MHD_run() in the loop's next turn */
#endif

#endif
