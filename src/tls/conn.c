/* conn.c - opening a session: the handshake in small steps, a session to resume, and a sentence when it fails.
 *
 * How it works. mbedTLS's handshake goes by steps. Those that verify signatures or make keys take milliseconds, so at most one
 * of them runs in a turn of the worker's loop; the others wait for the next one (faults.md L13). A context runs at most four
 * full handshakes at once; who comes later waits in a queue, and resumes the session of the first that is through.
 *
 * Sessions. One is kept a context, for an hour at most and never longer than the certificate it was verified with. With TLS
 * 1.3 it comes after the handshake (data.c). A server that does not take it costs a full handshake, and counts as one. */
#include "tls_impl.h"

#include <stdio.h>
#include <stdlib.h>

static int64_t wall_s(void)
{
    return (int64_t)time(NULL);
}

/* ---- why it failed --------------------------------------------------------------------------------------------------------- */

/* Alerts of the other side (RFC 8446 section 6.2). @config: ours to correct. */
static const char *alert_text(uint8_t alert, bool *config)
{
    static const struct {
        uint8_t alert;
        bool config;
        const char *text;
    } known[] = {
        { 40, true, "refused our offer: no version or cipher in common, or it wants a client certificate" },
        { 42, true, "does not accept our certificate" },
        { 43, true, "does not accept our kind of certificate" },
        { 44, true, "says that our certificate was revoked" },
        { 45, true, "says that our certificate has expired" },
        { 46, true, "does not accept our certificate" },
        { 48, true, "does not know the authority of our certificate" },
        { 49, true, "denies us access" },
        { 70, false, "accepts none of our versions of TLS" },
        { 71, false, "wants more security than we offer" },
        { 80, false, "had an internal error" },
        { 86, false, "refused a version that we did not offer" },
        { 112, true, "knows no host of that name: set sni" },
        { 116, true, "wants a client certificate: set certificate and private-key" },
        { 120, true, "speaks none of the protocols in alpn" },
    };

    *config = false;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (known[i].alert == alert) {
            *config = known[i].config;
            return known[i].text;
        }
    }
    return NULL;
}

static void alert_sentence(struct tls *t)
{
    uint8_t alert = t->watch.alert[1];
    const char *text;

    if (alert == 0) /* it was encrypted: mbedTLS has it */
        alert = t->ssl.MBEDTLS_PRIVATE(in_msg) != NULL ? t->ssl.MBEDTLS_PRIVATE(in_msg)[1] : 0;
    text = alert_text(alert, &t->config_fault);
    if (alert == 70 && !tls_has_1_3())
        snprintf(t->why, sizeof(t->why), "wants TLS 1.3, and this build has TLS 1.2 only");
    else if (text != NULL)
        snprintf(t->why, sizeof(t->why), "%s", text);
    else
        snprintf(t->why, sizeof(t->why), "broke the handshake off with alert %u", alert);
}

/* A list of certificates that is empty, cannot be read, or is more than one message (a record of 16 KiB) can hold. */
static const char *list_sentence(const struct tls *t, int err)
{
    if (t->report.seen || t->context->settings->server ||
        t->ssl.MBEDTLS_PRIVATE(state) != MBEDTLS_SSL_SERVER_CERTIFICATE)
        return NULL;
    if (err == MBEDTLS_ERR_SSL_FEATURE_UNAVAILABLE)
        return "shows more than 16 KiB of certificates, or in pieces that this build does not put together";
#if MBEDTLS_VERSION_MAJOR >= 3
    return err == MBEDTLS_ERR_SSL_DECODE_ERROR || err == MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE
#else
    return err == MBEDTLS_ERR_SSL_BAD_HS_CERTIFICATE
#endif
               ? "shows no certificate that can be read"
               : NULL;
}

static void protocol_sentence(struct tls *t, int err)
{
    const char *list = list_sentence(t, err);
    const char *stranger = record_stranger(&t->watch);
    const char *when = t->state == TLS_STATE_OPENING ? " during the TLS handshake" : "";

    if (stranger != NULL)
        snprintf(t->why, sizeof(t->why), "%s", stranger);
    else if (t->flooded)
        snprintf(t->why, sizeof(t->why), "sends TLS records without data, which is limited");
    else if (t->watch.alert[0] == MBEDTLS_SSL_ALERT_LEVEL_FATAL)
        alert_sentence(t);
    else if (list != NULL)
        snprintf(t->why, sizeof(t->why), "%s", list);
    else if (t->reset || t->truncated)
        snprintf(t->why, sizeof(t->why), "%s the connection%s", t->reset ? "reset" : "closed",
                 t->state == TLS_STATE_OPENING ? when : " without the end that TLS has for it");
    else if (err == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
        alert_sentence(t);
#if MBEDTLS_VERSION_MAJOR >= 3
    else if (err == MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION)
#else
    else if (err == MBEDTLS_ERR_SSL_BAD_HS_PROTOCOL_VERSION)
#endif
        snprintf(t->why, sizeof(t->why), "speaks only a version of TLS that is too old: 1.2 is the least");
    else
        snprintf(t->why, sizeof(t->why), "broke the rules of TLS%s (mbedTLS error -0x%04x)", when,
                 (unsigned)-err);
}

/* A server that refuses us says so and closes while we are still sending: what it said is read before it is forgotten. */
static void look_for_alert(struct tls *t)
{
    uint8_t rest[512];
    ssize_t n = 1;

    if (t->in)
        record_watch(&t->watch, t->in->data + t->in->off, t->in->len - t->in->off);
    for (int i = 0; i < 4 && n > 0; i++) {
        n = t->io->recv(t->arg, rest, sizeof(rest));
        if (n > 0)
            record_watch(&t->watch, rest, (size_t)n);
    }
}

/* Some faults of a certificate mbedTLS notes after verify_callback() has run: what it may be used for. */
static void add_flags(struct tls *t)
{
    uint32_t flags = t->report.seen ? mbedtls_ssl_get_verify_result(&t->ssl) : 0;

    if (flags != UINT32_MAX && !t->context->settings->skip_verify)
        t->report.flags |= flags;
}

void tls_fail(struct tls *t, int err)
{
    if (t->state == TLS_STATE_BROKEN)
        return;
    add_flags(t);
    if (t->reset && t->state == TLS_STATE_OPENING)
        look_for_alert(t);
    if (tls_is_no_memory(err)) {
        snprintf(t->why, sizeof(t->why), "cannot be reached: no memory for TLS");
    } else if (t->report.flags != 0 && t->state == TLS_STATE_OPENING && !t->context->settings->server) {
        /* What only the clock makes wrong is right again when it has jumped: the next flow tries (faults.md L14). */
        t->config_fault = !verify_sentence(&t->report, t->context->name, wall_s(), t->why, sizeof(t->why));
    } else {
        protocol_sentence(t, err);
    }
    t->state = TLS_STATE_BROKEN;
}

/* ---- four at a time --------------------------------------------------------------------------------------------------------- */

static void unqueue(struct tls *t)
{
    struct tls_context *c = t->context;
    struct tls **at = &c->queue;

    if (!t->queued)
        return;
    while (*at != t)
        at = &(*at)->next_queued;
    *at = t->next_queued;
    if (c->queue_end == &t->next_queued)
        c->queue_end = at;
    t->queued = false;
}

/* One handshake is through, or has failed: those who waited go on, all of them when there is a session now. */
static void wake_queue(struct tls_context *c)
{
    unsigned most =
        c->session_until_s > 0 && !c->resume_refused ? UINT32_MAX : TLS_FULL_MAX - c->full_running;

    for (unsigned i = 0; i < most && c->queue != NULL; i++) {
        struct tls *t = c->queue;

        unqueue(t);
        t->io->wake(t->arg);
    }
}

static void leave_full(struct tls *t)
{
    if (!t->counted_full)
        return;
    t->counted_full = false;
    t->context->full_running--;
    wake_queue(t->context);
}

/* ---- sessions -------------------------------------------------------------------------------------------------------------------- */

static void offer_session(struct tls *t)
{
    struct tls_context *c = t->context;

    if (c->settings->server || c->session_until_s == 0)
        return;
    if (wall_s() >= c->session_until_s)
        context_drop_session(c);
    else
        t->offered_session = mbedtls_ssl_set_session(&t->ssl, &c->session) == 0;
}

void tls_new_session(struct tls *t)
{
    struct tls_context *c = t->context;
    int64_t until_s = wall_s() + TLS_SESSION_S, kept_s = c->session_until_s;
    mbedtls_ssl_session fresh;

    if (c->settings->server || !c->settings->resume)
        return;
    mbedtls_ssl_session_init(&fresh);
    if (mbedtls_ssl_get_session(&t->ssl, &fresh) != 0) {
        mbedtls_ssl_session_free(&fresh);
        return;
    }
    context_drop_session(c);
    c->session = fresh;
    if (!t->report.seen) /* resumed: what was verified is as old as before */
        until_s = kept_s > 0 && kept_s < until_s ? kept_s : until_s;
    else if (!c->settings->skip_verify && t->report.leaf_to_s < until_s)
        until_s = t->report.leaf_to_s;
    c->session_until_s = until_s;
    wake_queue(c);
}

/* Its sessions come later, as tickets: one without a ticket is of no use (faults.md L10). */
static bool speaks_1_3(const struct tls *t)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    return mbedtls_ssl_get_version_number(&t->ssl) == MBEDTLS_SSL_VERSION_TLS1_3;
#else
    (void)t;
    return false;
#endif
}

static void opened(struct tls *t)
{
    struct tls_context *c = t->context;
    bool full = t->report.seen || c->settings->server;

    t->state = TLS_STATE_OPEN;
    t->watch.count = 0;
    if (full)
        c->count.full++;
    else
        c->count.resumed++;
    if (!c->settings->server)
        c->resume_refused = t->offered_session && full;
    if ((full || !t->offered_session) && !speaks_1_3(t))
        tls_new_session(t);
    leave_full(t);
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------------- */

static int state_of(const struct tls *t)
{
    return (int)t->ssl.MBEDTLS_PRIVATE(state);
}

/* The steps of a full handshake that verify a signature or make a key. */
static bool is_costly(int state)
{
    switch (state) {
    case MBEDTLS_SSL_SERVER_CERTIFICATE:
    case MBEDTLS_SSL_SERVER_KEY_EXCHANGE:
    case MBEDTLS_SSL_CLIENT_KEY_EXCHANGE:
    case MBEDTLS_SSL_CERTIFICATE_VERIFY:
        return true;
#if MBEDTLS_VERSION_MAJOR >= 3
    case MBEDTLS_SSL_SERVER_HELLO:
        return true;
#endif
    default: /* an int of theirs */
        return false;
    }
}

static int one_step(struct tls *t)
{
#ifndef MBEDTLS_THREADING_C
    pthread_mutex_t *lock = &t->context->settings->lock;
    int e;

    pthread_mutex_lock(lock);
    e = mbedtls_ssl_handshake_step(&t->ssl);
    pthread_mutex_unlock(lock);
    return e;
#else
    return mbedtls_ssl_handshake_step(&t->ssl);
#endif
}

/* May it begin? A session to resume makes it cheap. */
static bool admitted(struct tls *t)
{
    struct tls_context *c = t->context;

    if (t->counted_full || c->settings->server || state_of(t) != MBEDTLS_SSL_HELLO_REQUEST)
        return true;
    offer_session(t);
    if (t->offered_session && !c->resume_refused)
        return true;
    if (c->full_running >= TLS_FULL_MAX) {
        t->offered_session = false;
        if (!t->queued) {
            t->queued = true;
            t->next_queued = NULL;
            *c->queue_end = t;
            c->queue_end = &t->next_queued;
            c->count.queued++;
        }
        return false;
    }
    t->counted_full = true;
    c->full_running++;
    return true;
}

/* Resumed handshakes are cheap, but when the first session is there, hundreds go on at once: they too share the turns. */
static bool has_turn(struct tls_worker *w, uint64_t turn)
{
    if (w->turn != turn) {
        w->turn = turn;
        w->turn_calls = 0;
    }
    return w->turn_calls++ < TLS_TURN_CALLS_MAX;
}

static enum tls_step give_up(struct tls *t, int e)
{
    t->context->count.failed++;
    if (t->offered_session) /* whatever it was, it shall not happen twice */
        context_drop_session(t->context);
    tls_fail(t, e);
    leave_full(t);
    return TLS_BROKEN;
}

static enum tls_step take_steps(struct tls *t, uint64_t turn)
{
    struct tls_worker *w = t->context->worker;

    while (state_of(t) != MBEDTLS_SSL_HANDSHAKE_OVER) {
        bool costly = is_costly(state_of(t));
        int before = state_of(t), e;

        if (costly && w->costly_turn == turn)
            return TLS_LATER;
        e = one_step(t);
        if (costly && (state_of(t) != before || e != MBEDTLS_ERR_SSL_WANT_READ))
            w->costly_turn = turn;
        if (e == MBEDTLS_ERR_SSL_WANT_READ)
            return TLS_WANT_READ;
        if (e == MBEDTLS_ERR_SSL_WANT_WRITE)
            return TLS_WANT_WRITE;
        if (e != 0)
            return give_up(t, e);
    }
    opened(t);
    return TLS_DONE;
}

enum tls_step tls_handshake(struct tls *t, uint64_t turn)
{
    enum tls_step step;
    int r;

    if (t->state != TLS_STATE_OPENING)
        return t->state == TLS_STATE_OPEN ? TLS_DONE : TLS_BROKEN;
    if (!has_turn(t->context->worker, turn))
        return TLS_LATER;
    if (!admitted(t))
        return TLS_QUEUED;
    r = t->gathering ? 0 : wire_flush(t);
    t->emptied = false;
    t->gathering = true; /* a flight of several records, or an alert at the end, leaves at once */
    step = r == 0 ? take_steps(t, turn) : TLS_WANT_WRITE;
    if (step == TLS_LATER) /* in the middle of a flight, perhaps */
        return step;
    if (r == 0)
        r = wire_flush(t);
    t->gathering = false;
    if (r == -EAGAIN) /* with TLS_DONE, tls_unsent() says so */
        return step == TLS_WANT_READ ? TLS_WANT_WRITE : step;
    return r == 0 || step == TLS_DONE || step == TLS_BROKEN ? step : give_up(t, MBEDTLS_ERR_SSL_CONN_EOF);
}

/* ---- life -------------------------------------------------------------------------------------------------------------------------- */

static int set_name(struct tls *t)
{
    const struct tls_context *c = t->context;

    if (c->settings->server)
        return 0;
#if MBEDTLS_VERSION_MAJOR >= 3
    /* 3.6 wants to be told that the name is checked elsewhere: verify_callback() does. */
    return mbedtls_ssl_set_hostname(&t->ssl, ip_is_none(&c->addr) ? c->name : NULL);
#else
    return ip_is_none(&c->addr) ? mbedtls_ssl_set_hostname(&t->ssl, c->name) : 0;
#endif
}

int tls_open(struct tls_context *c, const struct tls_io *io, void *arg, struct tls **out)
{
    struct tls *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return -ENOMEM;
    t->context = c;
    t->io = io;
    t->arg = arg;
    c->worker->sessions++;
    mbedtls_ssl_init(&t->ssl);
    if (mbedtls_ssl_setup(&t->ssl, &c->conf) != 0 || set_name(t) != 0) {
        tls_free(t);
        return -ENOMEM;
    }
    mbedtls_ssl_set_verify(&t->ssl, verify_callback, t);
    mbedtls_ssl_set_bio(&t->ssl, t, wire_send, wire_recv, NULL);
    *out = t;
    return 0;
}

void tls_free(struct tls *t)
{
    if (t == NULL)
        return;
    unqueue(t);
    mbedtls_ssl_free(&t->ssl);
    wire_drop(t);
    leave_full(t);
    t->context->worker->sessions--;
    free(t);
}

bool tls_resumed(const struct tls *t)
{
    return t->state != TLS_STATE_OPENING && t->offered_session && !t->report.seen;
}

bool tls_truncated(const struct tls *t)
{
    return t->truncated;
}

const char *tls_why(const struct tls *t)
{
    return t->why;
}

bool tls_config_fault(const struct tls *t)
{
    return t->config_fault;
}

const char *tls_alpn(const struct tls *t)
{
    return mbedtls_ssl_get_alpn_protocol(&t->ssl);
}

const char *tls_version_name(const struct tls *t)
{
    return mbedtls_ssl_get_version(&t->ssl);
}
