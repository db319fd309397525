/* socks5_client.c - what a client of a SOCKS5 server says and expects, step by step (RFC 1928, RFC 1929).
 *
 * How it works
 *     GREET --greeting--> METHOD --0--> request --> REPLY --0--> OPEN
 *                           '--2--> LOGIN --0--'
 * The request goes out when the server has chosen a method: servers that throw away what came with the greeting exist, and a
 * refused login must not have told the server where the client wanted to go. Pipelined, for servers that are known to take
 * it (pipeline.c), everything goes out at once, and the greeting offers only the method that the login is for.
 *
 * What always holds. No answer is longer than SOCKS5_IN_MAX, so the caller's buffer is fixed; a reply that says "no" is
 * understood from its second byte, since some servers close without sending the rest; a byte is looked at as soon as it is
 * there, so a server of another protocol is named at its first byte (faults.md S5).
 *
 * Left out: GSSAPI (method 1, which RFC 1928 wants of a full implementation and nobody deploys) and BIND. */
#include "socks5.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { VERSION = 5, LOGIN_VERSION = 1 };
enum { METHOD_NONE = 0, METHOD_PASSWORD = 2, METHOD_REFUSED = 0xff };
enum { CMD_CONNECT = 1, CMD_ASSOCIATE = 3, CMD_UDP_IN_TCP = 5 };

void socks5_init(struct socks5 *s, enum socks5_goal goal, const struct socks5_login *login,
                 const struct host_port *target)
{
    *s = (struct socks5){ .goal = goal, .login = login, .reply_len = SOCKS5_REPLY_MIN };
    if (target)
        s->target = *target;
}

void socks5_pipeline(struct socks5 *s)
{
    s->pipelined = s->goal == SOCKS5_CONNECT;
}

void socks5_greeted(struct socks5 *s)
{
    s->state = SOCKS5_ASK;
}

static bool has_login(const struct socks5 *s)
{
    return s->login && s->login->username;
}

static enum socks5_step enter(struct socks5 *s, enum socks5_state state)
{
    s->state = state;
    return SOCKS5_AGAIN;
}

static enum socks5_step fail(struct socks5 *s, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The way out failed, whatever it said: the client sees an unreachable host (design.md section 6). */
static enum socks5_step fail(struct socks5 *s, int err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(s->why, sizeof(s->why), fmt, ap);
    va_end(ap);
    s->err = err;
    s->proxy_fault = true;
    s->failed_in = s->state;
    s->state = SOCKS5_FAILED;
    return SOCKS5_BROKEN;
}

static enum socks5_step fail_login(struct socks5 *s, const char *why)
{
    s->login_fault = true;
    return fail(s, -EHOSTUNREACH, "%s", why);
}

/* ---- what we say ---- */

static void put_greeting(const struct socks5 *s, struct buf *out)
{
    buf_u8(out, VERSION);
    if (s->pipelined) {
        buf_u8(out, 1);
        buf_u8(out, has_login(s) ? METHOD_PASSWORD : METHOD_NONE);
        return;
    }
    buf_u8(out, has_login(s) ? 2 : 1);
    buf_u8(out, METHOD_NONE);
    if (has_login(s))
        buf_u8(out, METHOD_PASSWORD);
}

static void put_login(const struct socks5 *s, struct buf *out)
{
    size_t user = strlen(s->login->username), password = strlen(s->login->password);

    buf_u8(out, LOGIN_VERSION);
    buf_u8(out, (uint8_t)user);
    buf_put(out, s->login->username, user);
    buf_u8(out, (uint8_t)password);
    buf_put(out, s->login->password, password);
}

static void put_request(const struct socks5 *s, struct buf *out)
{
    static const struct host_port anywhere = { .addr.b = { [10] = 0xff, [11] = 0xff } }; /* 0.0.0.0:0 */
    uint8_t address[SOCKS5_ADDRESS_MAX];
    bool connect = s->goal == SOCKS5_CONNECT;
    size_t len = socks5_address_put(address, connect ? &s->target : &anywhere);

    buf_u8(out, VERSION);
    buf_u8(out, connect ? CMD_CONNECT : s->goal == SOCKS5_IN_TCP ? CMD_UDP_IN_TCP : CMD_ASSOCIATE);
    buf_u8(out, 0);
    buf_put(out, address, len);
}

static enum socks5_step logged_in(struct socks5 *s, struct buf *out)
{
    if (s->goal == SOCKS5_HELLO)
        return enter(s, SOCKS5_OPEN);
    if (!s->pipelined)
        put_request(s, out);
    return enter(s, SOCKS5_REPLY);
}

static enum socks5_step greet(struct socks5 *s, struct buf *out)
{
    put_greeting(s, out);
    if (s->pipelined && has_login(s))
        put_login(s, out);
    if (s->pipelined)
        put_request(s, out);
    return enter(s, SOCKS5_METHOD);
}

/* ---- what we hear ---- */

/* A first byte that is not ours tells what listens there (faults.md S5). */
static enum socks5_step wrong_version(struct socks5 *s, uint8_t byte)
{
    static const struct {
        uint8_t byte;
        const char *is;
    } known[] = {
        { 0x00, "speaks SOCKS4, not SOCKS5" },
        { 0x04, "speaks SOCKS4, not SOCKS5" },
        { 0x15, "wants TLS: set tls, or use its port without TLS" },
        { 0x16, "wants TLS: set tls, or use its port without TLS" },
        { 'H', "is an HTTP server, not SOCKS5: set type: http, or its SOCKS5 port" },
        { 'S', "is an SSH server, not SOCKS5" },
        { '2', "is a mail or FTP server, not SOCKS5" },
        { '<', "is an HTTP server, not SOCKS5: set type: http, or its SOCKS5 port" },
    };

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (known[i].byte == byte)
            return fail(s, -EHOSTUNREACH, "%s", known[i].is);
    }
    return fail(s, -EHOSTUNREACH, "does not speak SOCKS5: its answer begins with the byte 0x%02x", byte);
}

static enum socks5_step on_method(struct socks5 *s, struct span *in, struct buf *out)
{
    uint8_t method;

    if (in->len > 0 && in->data[0] != VERSION)
        return wrong_version(s, in->data[0]);
    if (in->len < 2)
        return SOCKS5_NEED_INPUT;
    method = in->data[1];
    span_skip(in, 2);
    if (method == METHOD_NONE && !(s->pipelined && has_login(s)))
        return logged_in(s, out);
    if (method == METHOD_PASSWORD && has_login(s)) {
        if (!s->pipelined)
            put_login(s, out);
        return enter(s, SOCKS5_LOGIN);
    }
    if (s->pipelined) /* asked step by step, it may have more to say */
        return fail(s, -EHOSTUNREACH, "does not take the login method that it chose before");
    if (method == METHOD_PASSWORD || (method == METHOD_REFUSED && !has_login(s)))
        return fail_login(s, "wants a login: set username and password");
    if (method == METHOD_REFUSED)
        return fail_login(s, "accepts neither a login by username and password nor none");
    s->login_fault = true;
    return fail(s, -EHOSTUNREACH, "chose login method %u, which we did not offer", method);
}

static enum socks5_step on_login(struct socks5 *s, struct span *in, struct buf *out)
{
    uint8_t status;

    if (in->len > 0 && in->data[0] != LOGIN_VERSION)
        return fail(s, -EHOSTUNREACH, "answered the login with version %u, not 1", in->data[0]);
    if (in->len < 2)
        return SOCKS5_NEED_INPUT;
    status = in->data[1];
    span_skip(in, 2);
    if (status != 0) /* RFC 1929 section 2; v2ray says 255 */
        return fail_login(s, "refused the login: check username and password");
    return logged_in(s, out);
}

/* RFC 1928 section 6. The proxy is well and the target is not, so none of these counts against the proxy. */
static enum socks5_step refused(struct socks5 *s, uint8_t code)
{
    static const struct {
        int err;
        const char *why;
    } replies[] = {
        { -EHOSTUNREACH, "could not reach the target, and does not say why" },
        { -EACCES, "does not allow this target" },
        { -ENETUNREACH, "says that the target's network is unreachable" },
        { -EHOSTUNREACH, "says that the target is unreachable" },
        { -ECONNREFUSED, "says that the target refused the connection" },
        { -ETIMEDOUT, "says that the target did not answer in time" },
        { -EHOSTUNREACH, "does not support this command" },
        { -ENETUNREACH, "does not support the target's kind of address" },
    };

    if (s->goal == SOCKS5_IN_TCP)
        fail(s, -EOPNOTSUPP, "carries no UDP over TCP: it answered with code %u", code);
    else if (s->goal == SOCKS5_ASSOCIATE)
        fail(s, -EOPNOTSUPP, "relays no UDP: it answered with code %u", code);
    else if (code >= 1 && code <= ARRAY_LEN(replies))
        fail(s, replies[code - 1].err, "%s", replies[code - 1].why);
    else
        fail(s, -EHOSTUNREACH, "failed with code %u, which RFC 1928 does not know", code);
    s->proxy_fault = false;
    return SOCKS5_BROKEN;
}

static enum socks5_step on_reply(struct socks5 *s, struct span *in)
{
    struct span rest = *in;
    struct socks5_address bound;
    int r;

    if (in->len > 0 && in->data[0] != VERSION)
        return fail(s, -EHOSTUNREACH, "answered the request with version %u, not 5", in->data[0]);
    if (in->len > 1 && in->data[1] != 0)
        return refused(s, in->data[1]);
    if (in->len < 4)
        return SOCKS5_NEED_INPUT;
    span_skip(&rest, 3);
    r = socks5_address_get(&rest, &bound);
    if (r == -EAGAIN)
        return SOCKS5_NEED_INPUT;
    if (r != 0)
        return fail(s, -EHOSTUNREACH, "answered with address type %u, which does not exist", in->data[3]);
    s->reply_len = bound.name ? SOCKS5_REPLY_MIN : SOCKS5_REPLY_IP4;
    s->bound = bound.ip;
    *in = rest;
    return enter(s, SOCKS5_OPEN);
}

enum socks5_step socks5_step(struct socks5 *s, struct span *in, struct buf *out)
{
    switch (s->state) {
    case SOCKS5_GREET:
        return greet(s, out);
    case SOCKS5_METHOD: /* section 3 */
        return on_method(s, in, out);
    case SOCKS5_LOGIN: /* RFC 1929 section 2 */
        return on_login(s, in, out);
    case SOCKS5_ASK:
        return logged_in(s, out);
    case SOCKS5_REPLY: /* section 6 */
        return on_reply(s, in);
    case SOCKS5_OPEN:
        return SOCKS5_DONE;
    case SOCKS5_FAILED:
        return SOCKS5_BROKEN;
    }
    return fail(s, -EHOSTUNREACH, "met a state out of range");
}

/* A reply is 4 bytes, the address and 2 of port; the fifth byte is the length of a name. */
static size_t reply_len(const struct socks5 *s, const struct span *in)
{
    if (in->len < 5)
        return s->reply_len;
    if (in->data[3] == 1)
        return SOCKS5_REPLY_IP4;
    if (in->data[3] == 4)
        return 4 + 16 + 2;
    return 4 + 1 + (size_t)in->data[4] + 2;
}

size_t socks5_missing(const struct socks5 *s, const struct span *in)
{
    size_t len = s->state == SOCKS5_REPLY ? reply_len(s, in) : 2;

    if (s->pipelined && s->state == SOCKS5_METHOD)
        len += (has_login(s) ? 2u : 0) + s->reply_len;
    if (s->pipelined && s->state == SOCKS5_LOGIN)
        len += s->reply_len;
    return len > in->len ? len - in->len : 1;
}

void socks5_gone(struct socks5 *s, bool reset)
{
    const char *how = reset ? "reset" : "closed";

    if ((s->goal == SOCKS5_ASSOCIATE || s->goal == SOCKS5_IN_TCP) &&
        s->state == SOCKS5_REPLY) { /* as `ssh -D` says no to UDP (faults.md U6) */
        fail(s, -EOPNOTSUPP, "relays no UDP: it %s the connection when asked", how);
        s->proxy_fault = false;
        return;
    }
    if (s->state == SOCKS5_METHOD)
        fail(s, -EHOSTUNREACH, "%s the connection instead of answering: is it a SOCKS5 server?", how);
    else if (s->state == SOCKS5_LOGIN)
        fail(s, -EHOSTUNREACH, "%s the connection during the login: check username and password", how);
    else
        fail(s, -EHOSTUNREACH, "%s the connection instead of answering the request", how);
}

const char *socks5_stage(const struct socks5 *s)
{
    enum socks5_state state = s->state == SOCKS5_FAILED ? s->failed_in : s->state;

    if (state == SOCKS5_GREET || state == SOCKS5_METHOD)
        return "method";
    return state == SOCKS5_LOGIN ? "login" : "request";
}
