/* talk.h - what is said to a proxy before the stream is ours, as state machines without I/O: SOCKS5, SOCKS4, HTTP CONNECT.
 * The caller feeds bytes and sends bytes; handshake.c is that caller. */
#ifndef CULVERT_UPSTREAM_TALK_H
#define CULVERT_UPSTREAM_TALK_H

#include "socks5.h"

enum talk_step { TALK_AGAIN, TALK_NEED_INPUT, TALK_DONE, TALK_BROKEN };
struct talk_failure {
    int err;          /* -errno that the client shall see; 0: none */
    bool proxy_fault; /* else the target's */
    bool login_fault; /* the configuration's: do not hammer the server (faults.md S6) */
    char why[120];    /* goes after "NAME (ADDRESS) "; no secrets */
};
/** talk_fail() - fills the failure in: the way out's fault. Returns TALK_BROKEN */
enum talk_step talk_fail(struct talk_failure *f, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- SOCKS4 and 4A (socks4_client.c) -------------------------------------------------------------------------------- */

enum socks4_state { SOCKS4_REQUEST, SOCKS4_REPLY, SOCKS4_OPEN, SOCKS4_FAILED };
enum { SOCKS4_IN_MAX = 8, SOCKS4_OUT_MAX = 8 + 255 + 1 + 255 + 1 };
struct socks4 {
    enum socks4_state state;
    bool names;              /* 4A: the server resolves */
    const char *user;        /* NULL: none; borrowed */
    struct host_port target; /* its name is borrowed */
    struct talk_failure failure;
};
void socks4_init(struct socks4 *s, bool names, const char *user, const struct host_port *target);
enum talk_step socks4_step(struct socks4 *s, struct span *in, struct buf *out); /* room for SOCKS4_OUT_MAX */
void socks4_gone(struct socks4 *s, bool reset);

/* ---- HTTP CONNECT (http_client.c) -------------------------------------------------------------------------------------- */

enum http_state { HTTP_REQUEST, HTTP_STATUS, HTTP_HEADERS, HTTP_OPEN, HTTP_FAILED };
enum { HTTP_HEAD_MAX = 8192, HTTP_HEADERS_MAX = 100, HTTP_LINE_MAX = 200, HTTP_OUT_MAX = 1536 };
struct http_connect {
    enum http_state state;
    const struct socks5_login *login; /* borrowed */
    struct host_port target;          /* its name is borrowed */
    const char *head_path;            /* a HEAD request for it instead of CONNECT; borrowed */
    uint16_t status, total, headers, line_len;
    bool basic;               /* it would take a login of ours */
    int hint;                 /* -errno: what it says of the target; 0: nothing */
    char line[HTTP_LINE_MAX]; /* of the line under way, its beginning */
    struct talk_failure failure;
};
void http_init(struct http_connect *s, const struct socks5_login *login, const struct host_port *target);
/** http_step() - takes bytes up to the end of the head and none behind it. @out: room for HTTP_OUT_MAX */
enum talk_step http_step(struct http_connect *s, struct span *in, struct buf *out);
void http_gone(struct http_connect *s, bool reset);
/* The same words in HTTP/2. http_authority(): "name:port", "1.2.3.4:port" or "[v6]:port" (RFC 9112 section 3.2.3). */
enum { HTTP_AUTHORITY_MAX = 272, HTTP_BASIC_MAX = 700 };
void http_authority(const struct host_port *to, char out[HTTP_AUTHORITY_MAX]);
void http_put_basic(struct buf *out, const struct socks5_login *login); /* at most HTTP_BASIC_MAX */
/** http_answer() - what a final status of CONNECT means; the two fields may be NULL. Return: it is open */
bool http_answer(const struct socks5_login *login, unsigned status, const char *proxy_status,
                 const char *authenticate, struct talk_failure *failure);

/* ---- any of them (talk.c) ---------------------------------------------------------------------------------------------------- */

enum { TALK_IN_MAX = 512, TALK_OUT_MAX = HTTP_OUT_MAX };
#define TALK_LOOK SIZE_MAX

struct talk {
    enum upstream_kind kind;
    enum socks5_goal goal;
    bool finished; /* nothing was to be said */
    union {
        struct socks5 socks5;
        struct socks4 socks4;
        struct http_connect http;
    };
};
/** talk_init_head() - instead: a HEAD request for @path at @server, done when a status has come; both borrowed */
void talk_init_head(struct talk *t, const struct host_port *server, const char *path);
void talk_init(struct talk *t, enum upstream_kind kind, enum socks5_goal goal,
               const struct socks5_login *login, const struct host_port *target);
/* After talk_init(), where there is a choice: all at once (socks5_pipeline()); the greeting is done (socks5_greeted()); how
 * much of the reply to ask for, 0: what is always safe. */
void talk_pipeline(struct talk *t);
void talk_greeted(struct talk *t);
void talk_expect(struct talk *t, uint8_t reply_len);
enum talk_step talk_step(struct talk *t, struct span *in, struct buf *out); /* room for TALK_OUT_MAX */
/** talk_missing() - how many more bytes surely belong to the answer; TALK_LOOK: look at them first, talk_step() finds the end */
size_t talk_missing(const struct talk *t, const struct span *in);
void talk_gone(struct talk *t, bool reset);
struct talk_failure talk_failure(const struct talk *t);
const char *talk_stage(const struct talk *t); /* "method", "login", "request" */
bool talk_greets(const struct talk *t);       /* the answer under way is the one to our greeting */
bool talk_asked(const struct talk *t);        /* the request is out: silence may be the target's */
struct ip_port talk_bound(const struct talk *t);
uint8_t talk_reply_len(const struct talk *t); /* for talk_expect(), the next time */

#endif
