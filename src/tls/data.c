/* data.c - plain bytes through an open session, and its end.
 *
 * Copies. What was read ahead (wire.c) goes into mbedTLS's record buffer, is decrypted there and copied out to the caller's memory:
 * two copies. Sending, a piece is copied into the record and encrypted there; pieces below SMALL_PIECE are gathered before, so that
 * a hundred segments do not make a hundred records; records of one call are gathered after, to leave together. The cipher costs
 * twenty times as much as all of these.
 *
 * What always holds. A record that was made is ours to send: tls_sendv() counts its bytes as taken although the socket took
 * only a part, and nothing else is written before the rest of it has left (RFC 5246 section 6.2: records do not interleave). */
#include "tls_impl.h"

enum {
    SMALL_PIECE = 4096,
    SEND_MAX = 128 * 1024, /* of one call: 0.4 ms of cipher, then others have a turn (faults.md L13) */
};

static int broken(struct tls *t, int e)
{
    tls_fail(t, e);
    return -ECONNRESET;
}

/* ---- receiving ---- */

/* Return: bytes, 0 for their end, or -errno. */
static ssize_t recv_some(struct tls *t, uint8_t *to, size_t len)
{
    for (int silent = 0;;) {
        int n;

        t->dry = false;
        n = mbedtls_ssl_read(&t->ssl, to, len);

        if (n > 0) {
            t->watch.count = 0;
            return n;
        }
        /* A message that was no data, as a ticket of 1.3, is "again" although the socket is not empty. */
        if (n == MBEDTLS_ERR_SSL_WANT_READ && !t->dry && ++silent < 2 * TLS_IDLE_RECORDS_MAX)
            continue;
        if (n == MBEDTLS_ERR_SSL_WANT_READ || n == MBEDTLS_ERR_SSL_WANT_WRITE)
            return -EAGAIN;
#if MBEDTLS_VERSION_MAJOR >= 3 && defined(MBEDTLS_SSL_PROTO_TLS1_3)
        if (n == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET) { /* faults.md L10 */
            tls_new_session(t);
            continue;
        }
#endif
        if (n == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
            t->their_end = true;
            return 0;
        }
        return broken(t, n == 0 ? MBEDTLS_ERR_SSL_CONN_EOF : n);
    }
}

static ssize_t tell_end(struct tls *t, ssize_t n)
{
    t->end_told = n != -EAGAIN;
    return n;
}

ssize_t tls_recv(struct tls *t, void *to, size_t len)
{
    size_t got = 0;

    if (t->their_end)
        return tell_end(t, 0);
    if (t->state != TLS_STATE_OPEN)
        return tell_end(t, -ECONNRESET);
    t->emptied = false;
    while (got < len) {
        ssize_t n = recv_some(t, (uint8_t *)to + got, len - got);

        if (n > 0)
            got += (size_t)n;
        else if (got > 0)
            break; /* an end or an error is told by the next call: tls_unread() says that there is one */
        else if (n == -EAGAIN && t->emptied)
            t->emptied = false; /* a part of a record came, or no data: their end may be right behind it */
        else
            return tell_end(t, n);
    }
    return (ssize_t)got;
}

bool tls_unread(const struct tls *t)
{
    if (t->their_end || t->state == TLS_STATE_BROKEN)
        return !t->end_told;
    return t->state == TLS_STATE_OPEN && (t->in || mbedtls_ssl_check_pending(&t->ssl) != 0);
}

/* ---- sending ---- */

bool tls_unsent(const struct tls *t)
{
    return t->state == TLS_STATE_OPEN && !t->send_broken &&
           ((t->out && !t->gathering) || t->ssl.MBEDTLS_PRIVATE(out_left) > 0);
}

static int send_broken(struct tls *t)
{
    t->send_broken = true; /* what had arrived can still be read */
    return -ECONNRESET;
}

int tls_flush(struct tls *t)
{
    static const uint8_t unused = 0;
    int n;

    if (t->state != TLS_STATE_OPEN || t->send_broken)
        return -ECONNRESET;
    n = wire_flush(t);
    if (n != 0)
        return n == -EAGAIN ? n : send_broken(t);
    if (!tls_unsent(t))
        return 0;
    n = mbedtls_ssl_write(&t->ssl, &unused, 1); /* with a record waiting it only sends that one */
    if (n == MBEDTLS_ERR_SSL_WANT_WRITE)
        return -EAGAIN;
    return n > 0 ? 0 : send_broken(t);
}

/* One record at most. Return: bytes taken; -ECONNRESET */
static ssize_t send_record(struct tls *t, const uint8_t *data, size_t len)
{
    int most = mbedtls_ssl_get_max_out_record_payload(&t->ssl), n;

    if (most > 0 && len > (size_t)most)
        len = (size_t)most;
    n = mbedtls_ssl_write(&t->ssl, data, len);
    if (n > 0)
        return n;
    return n == MBEDTLS_ERR_SSL_WANT_WRITE && tls_unsent(t) ? (ssize_t)len : send_broken(t);
}

struct pieces {
    const struct iovec *iov;
    int left;
    size_t off; /* into the first */
};

static void skip(struct pieces *p, size_t n)
{
    while (p->left > 0 && n >= p->iov->iov_len - p->off) {
        n -= p->iov->iov_len - p->off;
        p->iov++;
        p->left--;
        p->off = 0;
    }
    p->off += n;
}

/* The next bytes for one record: in place when the piece is large, else gathered. */
static const uint8_t *next_bytes(const struct pieces *p, uint8_t gather[TLS_RECORD_MAX], size_t *len)
{
    const uint8_t *first = (const uint8_t *)p->iov->iov_base + p->off;
    size_t off = p->off, n = 0;

    *len = p->iov->iov_len - p->off;
    if (*len >= SMALL_PIECE || p->left == 1)
        return first;
    for (int i = 0; i < p->left && n < TLS_RECORD_MAX; i++) {
        size_t piece = p->iov[i].iov_len - off;

        if (piece > TLS_RECORD_MAX - n)
            piece = TLS_RECORD_MAX - n;
        memcpy(gather + n, (const uint8_t *)p->iov[i].iov_base + off, piece);
        n += piece;
        off = 0;
    }
    *len = n;
    return gather;
}

void tls_hold(struct tls *t)
{
    t->gathering = !tls_unsent(t);
}

static size_t bytes_of(const struct iovec *iov, int iovcnt)
{
    size_t n = 0;

    for (int i = 0; i < iovcnt; i++)
        n += iov[i].iov_len;
    return n;
}

ssize_t tls_sendv(struct tls *t, const struct iovec *iov, int iovcnt)
{
    struct pieces p = { iov, iovcnt, 0 };
    bool held = t->gathering;
    ssize_t taken = 0;
    int r = held ? 0 : tls_flush(t);

    if (r != 0)
        return r;
    if (t->state != TLS_STATE_OPEN || t->send_broken || t->our_end)
        return -ECONNRESET;
    if (!held && bytes_of(iov, iovcnt) > TLS_RECORD_MAX)
        tls_hold(t);
    skip(&p, 0);
    while (p.left > 0 && !tls_unsent(t) && taken < SEND_MAX) {
        size_t len;
        const uint8_t *data = next_bytes(&p, t->context->worker->gather, &len);
        ssize_t n = send_record(t, data, len);

        if (n < 0)
            return taken > 0 ? taken : n;
        skip(&p, (size_t)n);
        taken += n;
    }
    if (!held)
        (void)tls_flush(t); /* what is broken shows in the next call */
    return taken;
}

int tls_shutdown(struct tls *t)
{
    if (t->state != TLS_STATE_OPEN || t->our_end || t->send_broken)
        return 0;
    if (tls_flush(t) == -EAGAIN)
        return -EAGAIN;
    t->our_end = true;
    (void)mbedtls_ssl_close_notify(&t->ssl); /* when the socket is full, tls_flush() sends the rest */
    return 0;
}
