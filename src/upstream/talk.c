/* talk.c - one face for the kinds of proxies that a handshake speaks to. */
#include "talk.h"

#include <stdio.h>

enum talk_step talk_fail(struct talk_failure *f, int err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(f->why, sizeof(f->why), fmt, ap);
    va_end(ap);
    f->err = err;
    f->proxy_fault = true;
    return TALK_BROKEN;
}

void talk_init(struct talk *t, enum upstream_kind kind, enum socks5_goal goal,
               const struct socks5_login *login, const struct host_port *target)
{
    t->kind = kind;
    t->goal = goal;
    t->finished = kind == UPSTREAM_DIRECT || (kind != UPSTREAM_SOCKS5 && goal == SOCKS5_HELLO);
    switch (kind) {
    case UPSTREAM_HTTP:
        http_init(&t->http, login, target);
        break;
    case UPSTREAM_SOCKS4:
    case UPSTREAM_SOCKS4A:
        socks4_init(&t->socks4, kind == UPSTREAM_SOCKS4A, login->username, target);
        break;
    case UPSTREAM_DIRECT:
    case UPSTREAM_REJECT:
    case UPSTREAM_REJECT_DROP:
    case UPSTREAM_GROUP:
    case UPSTREAM_MASQUE: /* only its server is reached in this way: the rest is HTTP/2's */
    case UPSTREAM_SOCKS5:
        socks5_init(&t->socks5, goal, login, target);
        break;
    }
}

void talk_pipeline(struct talk *t)
{
    if (t->kind == UPSTREAM_SOCKS5)
        socks5_pipeline(&t->socks5);
}

void talk_greeted(struct talk *t)
{
    if (t->kind == UPSTREAM_SOCKS5)
        socks5_greeted(&t->socks5);
}

void talk_expect(struct talk *t, uint8_t reply_len)
{
    if (t->kind == UPSTREAM_SOCKS5 && reply_len > 0)
        t->socks5.reply_len = reply_len;
}

uint8_t talk_reply_len(const struct talk *t)
{
    return t->kind == UPSTREAM_SOCKS5 ? t->socks5.reply_len : 0;
}

void talk_init_head(struct talk *t, const struct host_port *server, const char *path)
{
    t->kind = UPSTREAM_HTTP;
    t->finished = false;
    http_init(&t->http, NULL, server);
    t->http.head_path = path;
}

static enum talk_step from_socks5(enum socks5_step step)
{
    switch (step) {
    case SOCKS5_AGAIN:
        return TALK_AGAIN;
    case SOCKS5_NEED_INPUT:
        return TALK_NEED_INPUT;
    case SOCKS5_DONE:
        return TALK_DONE;
    case SOCKS5_BROKEN:
        return TALK_BROKEN;
    }
    return TALK_BROKEN;
}

static bool is_socks4(const struct talk *t)
{
    return t->kind == UPSTREAM_SOCKS4 || t->kind == UPSTREAM_SOCKS4A;
}

enum talk_step talk_step(struct talk *t, struct span *in, struct buf *out)
{
    if (t->finished)
        return TALK_DONE;
    if (t->kind == UPSTREAM_HTTP)
        return http_step(&t->http, in, out);
    return is_socks4(t) ? socks4_step(&t->socks4, in, out) : from_socks5(socks5_step(&t->socks5, in, out));
}

size_t talk_missing(const struct talk *t, const struct span *in)
{
    if (t->kind == UPSTREAM_HTTP)
        return TALK_LOOK;
    if (is_socks4(t))
        return in->len < SOCKS4_IN_MAX ? SOCKS4_IN_MAX - in->len : 1;
    return socks5_missing(&t->socks5, in);
}

void talk_gone(struct talk *t, bool reset)
{
    if (t->kind == UPSTREAM_HTTP)
        http_gone(&t->http, reset);
    else if (is_socks4(t))
        socks4_gone(&t->socks4, reset);
    else
        socks5_gone(&t->socks5, reset);
}

struct talk_failure talk_failure(const struct talk *t)
{
    struct talk_failure f = { 0 };

    if (t->kind == UPSTREAM_HTTP)
        return t->http.failure;
    if (is_socks4(t))
        return t->socks4.failure;
    f = (struct talk_failure){ t->socks5.err, t->socks5.proxy_fault, t->socks5.login_fault, "" };
    snprintf(f.why, sizeof(f.why), "%s", t->socks5.why);
    return f;
}

const char *talk_stage(const struct talk *t)
{
    return t->kind == UPSTREAM_HTTP || is_socks4(t) ? "request" : socks5_stage(&t->socks5);
}

bool talk_greets(const struct talk *t)
{
    return t->kind == UPSTREAM_SOCKS5 && t->socks5.state == SOCKS5_METHOD;
}

bool talk_asked(const struct talk *t)
{
    if (t->kind == UPSTREAM_HTTP)
        return t->http.state == HTTP_STATUS && t->http.total == 0;
    return is_socks4(t) ? t->socks4.state == SOCKS4_REPLY : t->socks5.state == SOCKS5_REPLY;
}

struct ip_port talk_bound(const struct talk *t)
{
    return t->kind == UPSTREAM_SOCKS5 ? t->socks5.bound : (struct ip_port){ 0 };
}
