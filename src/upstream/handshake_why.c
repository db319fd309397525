/* handshake_why.c - why a handshake failed: the sentence for the log, whose fault it is, and what the client shall see.
 *
 * Whose fault. What the client sees (up_failure.err) is the target's state if the way out is known to work, and "host
 * unreachable" if it is the way out that failed. A proxy that took our request and is silent may well be waiting for the
 * target, so that silence is not counted against its health. */
#include "upstream_impl.h"
#include "masque.h"

#include <stdio.h>

#define BAD_LOGIN_US (10 * SECOND_US) /* faults.md S6 */

enum { SERVER_TEXT_MAX = 128 };

/* "office (192.0.2.10:1080)", "office (proxy.example.net)" or, for DIRECT, "192.0.2.1:443" */
static const char *server_text(const struct handshake *h, char out[SERVER_TEXT_MAX])
{
    const struct upstream *up = h->memory->up;
    char address[IP_PORT_TEXT_MAX];
    const char *where = up->server.name ? up->server.name : "?";

    if (!ip_is_none(&h->dial.peer.addr))
        where = ip_port_text(&h->dial.peer, address);
    else if (upstream_is_proxy(up) && !up->server.name)
        where = ip_port_text(&(struct ip_port){ up->server.addr, up->server.port }, address);
    if (upstream_is_proxy(up))
        snprintf(out, SERVER_TEXT_MAX, "%.40s (%.80s)", up->name, where);
    else
        snprintf(out, SERVER_TEXT_MAX, "%.120s", where);
    return out;
}

static const char *dialled_name(const struct handshake *h)
{
    return upstream_is_proxy(h->memory->up) ? h->memory->up->server.name : h->target_name;
}

/* ---- failures of the dial ---- */

static const char *dial_text(int err)
{
    static const struct {
        int err;
        const char *text;
    } texts[] = {
        { -ECONNREFUSED, "refuses connections" },
        { -ENETUNREACH, "is unreachable: there is no route to its network" },
        { -EHOSTUNREACH, "is unreachable" },
        { -ETIMEDOUT, "does not answer" },
        { -EACCES, "may not be dialled: it is not among the allowed destinations, or a firewall forbids it" },
        { -EPERM, "may not be dialled: a firewall of this machine forbids it" },
        { -ELOOP, "would lead back into the gateway: it is an address of the TUN, or no address at all" },
        { -EADDRNOTAVAIL, "cannot be dialled: every local port towards it is in use; widen "
                          "net.ipv4.ip_local_port_range or add another address" },
        { -EMFILE, "cannot be dialled: no file descriptor is left; raise the limit (ulimit -n)" },
        { -ENODEV, "cannot be dialled: the interface that it is bound to does not exist" },
    };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].err == err)
            return texts[i].text;
    }
    return strerror(-err);
}

/* What the client shall see of a failed dial. */
static int dial_err(int err, bool proxy)
{
    switch (err) {
    case -ELOOP:
    case -EMFILE:
    case -ENOMEM:
        return err;
    case -EADDRNOTAVAIL: /* faults.md S23 */
        return -ECONNREFUSED;
    case -ECONNREFUSED:
    case -ENETUNREACH:
    case -ETIMEDOUT:
    case -EACCES:
        return proxy ? -EHOSTUNREACH : err;
    case -ENODEV: /* the uplink has just gone */
        return proxy ? -EHOSTUNREACH : -ENETUNREACH;
    case -EPERM:
        return proxy ? -EHOSTUNREACH : -EACCES;
    case -ECONNRESET:
        return proxy ? -EHOSTUNREACH : -ECONNREFUSED;
    default:
        return -EHOSTUNREACH;
    }
}

static bool is_our_own_trouble(int err)
{
    return err == -ELOOP || err == -EMFILE || err == -ENOMEM || err == -EADDRNOTAVAIL;
}

/* What the resolver says (up_resolved_fn), for people. */
static const char *name_text(int err)
{
    switch (err) {
    case -ENOENT:
        return "does not exist, or has no address";
    case -ETIMEDOUT:
        return "cannot be resolved: no name server answers";
    case -ENETUNREACH:
        return "cannot be resolved: no name server can be reached";
    case -EHOSTUNREACH:
        return "cannot be resolved: the name servers fail or refuse";
    }
    return "cannot be resolved";
}

void handshake_why_dial(struct handshake *h, int err)
{
    bool proxy = upstream_is_proxy(h->memory->up);
    char server[SERVER_TEXT_MAX];

    if (h->dial.addr_count == 0)
        up_fail(&h->why, dial_err(err, proxy), "resolve", proxy, "the name %.120s %s", dialled_name(h),
                name_text(err));
    else
        up_fail(&h->why, dial_err(err, proxy), "connect", proxy && !is_our_own_trouble(err), "%s %s",
                server_text(h, server), dial_text(err));
}

/* ---- the proxy's answers ---- */

void handshake_why_talk(struct handshake *h)
{
    struct talk_failure f = talk_failure(&h->talk);
    char server[SERVER_TEXT_MAX];
    struct up_memory *m = h->memory;

    up_fail(&h->why, f.err, talk_stage(&h->talk), f.proxy_fault, "%s %s", server_text(h, server), f.why);
    if (f.login_fault) {
        m->bad_until_us = env_now_us(h->env) + BAD_LOGIN_US;
        snprintf(m->bad_why, sizeof(m->bad_why), "%s", f.why);
    }
    if (!f.proxy_fault)
        up_memory_good(h->env, m); /* it answered, if only to refuse */
    if (f.err == -EOPNOTSUPP)
        m->no_udp_until_us = env_now_us(h->env) + 60 * SECOND_US; /* faults.md U6 */
}

void handshake_why_tls(struct handshake *h)
{
    char server[SERVER_TEXT_MAX];

    UP_COUNT(h->env, tls_failed);
    up_fail(&h->why, -EHOSTUNREACH, "tls", true, "%s %s", server_text(h, server), tls_why(h->secure->tls));
}

void handshake_why_timeout(struct handshake *h)
{
    bool proxy = upstream_is_proxy(h->memory->up);
    const char *stage = handshake_stage(h);
    char server[SERVER_TEXT_MAX];

    if (h->masque) {
        UP_COUNT(h->env, socks_timeout);
        up_fail(&h->why, -EHOSTUNREACH, stage, !masque_stream_asked(h->masque), "%s did not %s in time",
                server_text(h, server),
                masque_stream_asked(h->masque) ? "answer our request" : "come to speak HTTP/2");
    } else if (h->dial.resolving) {
        up_fail(&h->why, -EHOSTUNREACH, stage, proxy, "the name %.120s was not resolved in time",
                dialled_name(h));
    } else if (!h->connected || h->dial.unasked) {
        if (ip_is_none(&h->dial.peer.addr) && h->dial.tried > 0)
            h->dial.peer = (struct ip_port){ h->dial.addrs[0], h->dial.port };
        up_fail(&h->why, proxy ? -EHOSTUNREACH : -ETIMEDOUT, stage, proxy, "%s did not answer in time",
                server_text(h, server));
    } else if (!h->talking) {
        UP_COUNT(h->env, tls_timeout);
        up_fail(&h->why, -EHOSTUNREACH, stage, true, "%s did not finish the TLS handshake in time",
                server_text(h, server));
    } else {
        UP_COUNT(h->env, socks_timeout);
        up_fail(&h->why, -EHOSTUNREACH, stage, !talk_asked(&h->talk) || h->in_len > 0,
                "%s did not finish its answer to our %s in time", server_text(h, server),
                talk_greets(&h->talk) ? "greeting" : stage);
    }
}

void handshake_why_login(struct handshake *h)
{
    char server[SERVER_TEXT_MAX];

    up_fail(&h->why, -EHOSTUNREACH, "login", false, "%s %s (not tried again for 10 s)",
            server_text(h, server), h->memory->bad_why);
}
