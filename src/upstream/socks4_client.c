/* socks4_client.c - what a client of a SOCKS4 or SOCKS4A server says and expects (Ying-Da Lee's two memos; no RFC).
 *
 * One request, one reply of 8 bytes. SOCKS4 takes an IPv4 address; 4A also a name, behind the address 0.0.0.1. The user name is
 * an ident hint, never a secret; there is no password. A name is never resolved here for want of 4A (faults.md S10). */
#include "talk.h"

#include <errno.h>
#include <string.h>

enum { VERSION = 4, CMD_CONNECT = 1 };
enum { GRANTED = 90, REFUSED = 91, NO_IDENT = 92, OTHER_IDENT = 93 };

void socks4_init(struct socks4 *s, bool names, const char *user, const struct host_port *target)
{
    *s = (struct socks4){ .state = SOCKS4_REQUEST, .names = names, .user = user };
    if (target)
        s->target = *target;
}

static enum talk_step failed(struct socks4 *s, bool proxy_fault)
{
    s->state = SOCKS4_FAILED;
    s->failure.proxy_fault = proxy_fault;
    return TALK_BROKEN;
}

static enum talk_step put_request(struct socks4 *s, struct buf *out)
{
    static const uint8_t name_follows[4] = { 0, 0, 0, 1 };
    const struct host_port *to = &s->target;

    if (to->name && !s->names) {
        talk_fail(&s->failure, -EHOSTUNREACH, "takes no names: type socks4a would");
        return failed(s, false);
    }
    if (!to->name && !ip_is4(&to->addr)) {
        talk_fail(&s->failure, -ENETUNREACH, "carries no IPv6: that is how SOCKS4 is");
        return failed(s, false);
    }
    buf_u8(out, VERSION);
    buf_u8(out, CMD_CONNECT);
    buf_u16(out, to->port);
    buf_put(out, to->name ? name_follows : to->addr.b + 12, 4);
    if (s->user)
        buf_put(out, s->user, strlen(s->user));
    buf_u8(out, 0);
    if (to->name)
        buf_put(out, to->name, strlen(to->name) + 1);
    s->state = SOCKS4_REPLY;
    return TALK_AGAIN;
}

static enum talk_step wrong_version(struct socks4 *s, uint8_t byte)
{
    static const struct {
        uint8_t byte;
        const char *is;
    } known[] = {
        { 0x05, "speaks SOCKS5, not SOCKS4: set type: socks5" },
        { 0x15, "wants TLS: set tls, or use its port without TLS" },
        { 'H', "is an HTTP server, not SOCKS4: set type: http, or its SOCKS port" },
        { 'S', "is an SSH server, not SOCKS4" },
    };

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (known[i].byte == byte) {
            talk_fail(&s->failure, -EHOSTUNREACH, "%s", known[i].is);
            return failed(s, true);
        }
    }
    talk_fail(&s->failure, -EHOSTUNREACH, "does not speak SOCKS4: its answer begins with the byte 0x%02x",
              byte);
    return failed(s, true);
}

static enum talk_step on_reply(struct socks4 *s, struct span *in)
{
    uint8_t code;

    if (in->len > 0 && in->data[0] != 0 && in->data[0] != VERSION) /* 0 by the memo; some say 4 */
        return wrong_version(s, in->data[0]);
    if (in->len < 2 || (in->data[1] == GRANTED && in->len < SOCKS4_IN_MAX))
        return TALK_NEED_INPUT;
    code = in->data[1];
    span_skip(in, in->len < SOCKS4_IN_MAX ? in->len : SOCKS4_IN_MAX);
    if (code == GRANTED) {
        s->state = SOCKS4_OPEN;
        return TALK_AGAIN;
    }
    if (code == REFUSED) {
        talk_fail(&s->failure, -ECONNREFUSED, "could not reach the target, or does not allow it (code 91)");
        return failed(s, false);
    }
    if (code == NO_IDENT || code == OTHER_IDENT) {
        talk_fail(&s->failure, -EHOSTUNREACH,
                  "wants to know the user from an ident server (code %u): set username", code);
        s->failure.login_fault = true;
        return failed(s, true);
    }
    talk_fail(&s->failure, -EHOSTUNREACH, "failed with code %u, which SOCKS4 does not know", code);
    return failed(s, true);
}

enum talk_step socks4_step(struct socks4 *s, struct span *in, struct buf *out)
{
    switch (s->state) {
    case SOCKS4_REQUEST:
        return put_request(s, out);
    case SOCKS4_REPLY:
        return on_reply(s, in);
    case SOCKS4_OPEN:
        return TALK_DONE;
    case SOCKS4_FAILED:
        return TALK_BROKEN;
    }
    return TALK_BROKEN;
}

void socks4_gone(struct socks4 *s, bool reset)
{
    talk_fail(&s->failure, -EHOSTUNREACH, "%s the connection instead of answering the request",
              reset ? "reset" : "closed");
    failed(s, true);
}
