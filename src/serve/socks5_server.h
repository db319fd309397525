/* socks5_server.h - the server's side of a SOCKS5 handshake, without I/O (RFC 1928, RFC 1929). */
#ifndef CULVERT_SERVE_SOCKS5_SERVER_H
#define CULVERT_SERVE_SOCKS5_SERVER_H

#include "culvert/serve.h"

enum server_state { SERVER_GREETING, SERVER_LOGIN, SERVER_REQUEST, SERVER_READY, SERVER_REFUSED };
enum server_step { SERVER_AGAIN, SERVER_NEED_INPUT, SERVER_ASKED, SERVER_GIVE_UP };
enum server_command {
    SERVER_CONNECT = 1,
    SERVER_ASSOCIATE = 3,
    SERVER_UDP_IN_TCP = 5, /* hev's */
};

/* Reply codes (RFC 1928 section 6). */
enum server_reply {
    REPLY_OK = 0,
    REPLY_FAILED = 1,
    REPLY_NOT_ALLOWED = 2,
    REPLY_NET_UNREACHABLE = 3,
    REPLY_HOST_UNREACHABLE = 4,
    REPLY_REFUSED = 5,
    REPLY_TTL_EXPIRED = 6,
    REPLY_NO_COMMAND = 7,
    REPLY_NO_ADDRESS_TYPE = 8,
};

enum {
    SERVER_IN_MAX = 1024, /* bytes held before the request is complete: the longest message is 513 */
    SERVER_OUT_MAX = 64,
};

struct socks5_server {
    enum server_state state;
    const struct serve_user *users; /* borrowed; none: no login */
    size_t user_count;
    bool login_failed;
    int user; /* index of who logged in; 0 without a login */
    /* once SERVER_ASKED: */
    enum server_command command;
    struct host_port target; /* its name, if any, is `name` */
    char name[256];
};

void server_init(struct socks5_server *s, const struct serve_user *users, size_t user_count);
/** server_step() - one step; the caller repeats while SERVER_AGAIN and sends what @out got, also before it gives up
 * @in: bytes received; we skip what we used: what is left after SERVER_ASKED belongs to the target */
enum server_step server_step(struct socks5_server *s, struct span *in, struct buf *out);
/** server_put_reply() - the answer to the request; @bound: none stands for 0.0.0.0:0 */
void server_put_reply(struct buf *out, enum server_reply code, const struct ip_port *bound);
/** server_reply_for() - how a failed dial is told */
enum server_reply server_reply_for(int err);
/** server_login() - which of the users has this name and password? Takes as long for a yes as for a no
 * @name: NULL: any. Return: its index, or -1. */
int server_login(const struct serve_user *users, size_t n, const struct span *name,
                 const struct span *password);

#endif
