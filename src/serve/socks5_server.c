/* socks5_server.c - what a SOCKS5 server hears and answers, step by step (RFC 1928, login by RFC 1929).
 *
 * How it works
 *     GREETING --0--> REQUEST --> READY          a client that offers no method of ours gets ff,
 *         '----2--> LOGIN --'                    a wrong login 1, a command that we lack 7; then it is over
 *
 * What always holds. Nothing is read beyond the request, so bytes that follow it at once belong to the target.
 * Left out: GSSAPI and BIND, as by nearly everybody. */
#include "socks5_server.h"

#include <errno.h>
#include <string.h>

enum { VERSION = 5, LOGIN_VERSION = 1 };
enum { METHOD_NONE = 0, METHOD_PASSWORD = 2, METHOD_REFUSED = 0xff };

void server_init(struct socks5_server *s, const struct serve_user *users, size_t user_count)
{
    *s = (struct socks5_server){ .state = SERVER_GREETING, .users = users, .user_count = user_count };
}

static enum server_step enter(struct socks5_server *s, enum server_state state)
{
    s->state = state;
    return SERVER_AGAIN;
}

static enum server_step give_up(struct socks5_server *s)
{
    s->state = SERVER_REFUSED;
    return SERVER_GIVE_UP;
}

/* ---- the greeting (section 3) ---- */

static enum server_step on_greeting(struct socks5_server *s, struct span *in, struct buf *out)
{
    uint8_t want = s->user_count > 0 ? METHOD_PASSWORD : METHOD_NONE, version, count;
    struct span rest = *in;
    const uint8_t *methods;

    if (in->len > 0 && in->data[0] != VERSION)
        return give_up(s);
    if (!span_u8(&rest, &version) || !span_u8(&rest, &count) || !span_bytes(&rest, count, &methods))
        return SERVER_NEED_INPUT;
    *in = rest;
    buf_u8(out, VERSION);
    if (count == 0 || !memchr(methods, want, count)) {
        buf_u8(out, METHOD_REFUSED);
        return give_up(s);
    }
    buf_u8(out, want);
    return enter(s, want == METHOD_NONE ? SERVER_REQUEST : SERVER_LOGIN);
}

/* ---- the login (RFC 1929 section 2) ---- */

/* Compares all 256 bytes of both, whatever their lengths. */
static unsigned differs(const char *known, const struct span *given)
{
    size_t known_len = strlen(known);
    unsigned diff = known_len != given->len;

    for (size_t i = 0; i < 256; i++) {
        uint8_t a = i < known_len ? (uint8_t)known[i] : 0, b = i < given->len ? given->data[i] : 0;

        diff |= (unsigned)(a ^ b);
    }
    return diff;
}

int server_login(const struct serve_user *users, size_t n, const struct span *name,
                 const struct span *password)
{
    int found = -1;

    for (size_t i = 0; i < n; i++) {
        unsigned wrong = (name ? differs(users[i].name, name) : 0) | differs(users[i].password, password);

        found = wrong == 0 ? (int)i : found;
    }
    return found;
}

static enum server_step on_login(struct socks5_server *s, struct span *in, struct buf *out)
{
    struct span rest = *in, name, password;
    uint8_t version, name_len, password_len;

    if (in->len > 0 && in->data[0] != LOGIN_VERSION)
        return give_up(s);
    if (!span_u8(&rest, &version) || !span_u8(&rest, &name_len) || !span_bytes(&rest, name_len, &name.data) ||
        !span_u8(&rest, &password_len) || !span_bytes(&rest, password_len, &password.data))
        return SERVER_NEED_INPUT;
    name.len = name_len;
    password.len = password_len;
    *in = rest;
    s->user = server_login(s->users, s->user_count, &name, &password);
    s->login_failed = s->user < 0;
    buf_u8(out, LOGIN_VERSION);
    buf_u8(out, s->login_failed ? 1 : 0);
    return s->login_failed ? give_up(s) : enter(s, SERVER_REQUEST);
}

/* ---- the request (section 4) ---- */

static enum server_step refuse(struct socks5_server *s, struct buf *out, enum server_reply code)
{
    server_put_reply(out, code, NULL);
    return give_up(s);
}

static enum server_step on_request(struct socks5_server *s, struct span *in, struct buf *out)
{
    struct span rest = *in;
    struct socks5_address a;
    uint8_t command;
    int r;

    if (in->len > 0 && in->data[0] != VERSION)
        return give_up(s);
    if (in->len < 4)
        return SERVER_NEED_INPUT;
    command = in->data[1];
    span_skip(&rest, 3);
    r = socks5_address_get(&rest, &a);
    if (r == -EAGAIN)
        return SERVER_NEED_INPUT;
    if (r != 0)
        return refuse(s, out, REPLY_NO_ADDRESS_TYPE);
    *in = rest;
    if (command != SERVER_CONNECT && command != SERVER_ASSOCIATE && command != SERVER_UDP_IN_TCP)
        return refuse(s, out, REPLY_NO_COMMAND);
    s->command = (enum server_command)command;
    s->target = (struct host_port){ .addr = a.ip.addr, .port = a.ip.port };
    if (a.name) {
        if (host_name_normalise(a.name, a.name_len, s->name) != 0)
            return refuse(s, out, REPLY_HOST_UNREACHABLE);
        s->target.name = s->name;
    }
    return enter(s, SERVER_READY);
}

enum server_step server_step(struct socks5_server *s, struct span *in, struct buf *out)
{
    switch (s->state) {
    case SERVER_GREETING:
        return on_greeting(s, in, out);
    case SERVER_LOGIN:
        return on_login(s, in, out);
    case SERVER_REQUEST:
        return on_request(s, in, out);
    case SERVER_READY:
        return SERVER_ASKED;
    case SERVER_REFUSED:
        return SERVER_GIVE_UP;
    }
    return give_up(s);
}

/* ---- replies (section 6) ---- */

void server_put_reply(struct buf *out, enum server_reply code, const struct ip_port *bound)
{
    static const struct host_port nowhere = { .addr.b = { [10] = 0xff, [11] = 0xff } }; /* 0.0.0.0:0 */
    struct host_port at = bound ? (struct host_port){ NULL, bound->addr, bound->port } : nowhere;
    uint8_t address[SOCKS5_ADDRESS_MAX];

    buf_u8(out, VERSION);
    buf_u8(out, (uint8_t)code);
    buf_u8(out, 0);
    buf_put(out, address, socks5_address_put(address, &at));
}

enum server_reply server_reply_for(int err)
{
    switch (err) {
    case 0:
        return REPLY_OK;
    case -ECONNREFUSED:
        return REPLY_REFUSED;
    case -EHOSTUNREACH:
    case -EINVAL: /* no such name can exist */
        return REPLY_HOST_UNREACHABLE;
    case -ENETUNREACH:
        return REPLY_NET_UNREACHABLE;
    case -ETIMEDOUT:
        return REPLY_TTL_EXPIRED;
    case -EACCES:
    case -ELOOP:
        return REPLY_NOT_ALLOWED;
    default:
        return REPLY_FAILED;
    }
}
