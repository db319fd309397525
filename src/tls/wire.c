/* wire.c - between mbedTLS and the socket: several records with one system call.
 *
 * How it works. mbedTLS asks for the 5 bytes of a record's head and then for the rest, and hands over each record by itself. So what
 * the socket has is read into a buffer of about 64 KiB first, and records that are made together are gathered in one before they
 * leave. The buffers are the worker's: a session holds one only while bytes wait in it, which for most is within one call.
 *
 * What always holds. Bytes leave in the order in which they were made: while a buffer waits for the socket, mbedTLS's own is
 * behind it. When all buffers are taken, by sessions whose sockets or owners stand still, the others do without.
 *
 * The copy stays in the second-level cache, with 64 KiB, and costs a tenth of the calls that it saves. */
#include "tls_impl.h"

/* ---- receiving ---- */

static void drop_in(struct tls *t)
{
    buffers_put(&t->context->worker->wire, t->in);
    t->in = NULL;
}

static ssize_t take_in(struct tls *t, void *to, size_t len)
{
    size_t n = t->in->len - t->in->off;

    n = n < len ? n : len;
    memcpy(to, t->in->data + t->in->off, n);
    t->in->off += n;
    if (t->in->off == t->in->len)
        drop_in(t);
    return (ssize_t)n;
}

/* As the socket's own. A read that was not filled has emptied it: once there is something to show for it, nobody asks again. */
static ssize_t read_ahead(struct tls *t, void *to, size_t len)
{
    ssize_t n;

    if (t->in)
        return take_in(t, to, len);
    if (t->emptied)
        return -EAGAIN;
    t->in = buffers_get(&t->context->worker->wire);
    if (!t->in)
        return t->io->recv(t->arg, to, len);
    n = t->io->recv(t->arg, t->in->data, sizeof(t->in->data));
    if (n <= 0) {
        drop_in(t);
        return n;
    }
    t->emptied = (size_t)n < sizeof(t->in->data);
    t->in->off = 0;
    t->in->len = (size_t)n;
    return take_in(t, to, len);
}

int wire_recv(void *arg, unsigned char *to, size_t len)
{
    struct tls *t = arg;
    uint32_t most = t->state == TLS_STATE_OPENING ? TLS_OPENING_RECORDS_MAX : TLS_IDLE_RECORDS_MAX;
    ssize_t n;

    if (t->watch.count > most) {
        t->flooded = true;
        return MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE;
    }
    n = read_ahead(t, to, len);
    t->dry = n == -EAGAIN;
    if (n > 0) {
        record_watch(&t->watch, to, (size_t)n);
        return (int)n;
    }
    if (n == -EAGAIN)
        return MBEDTLS_ERR_SSL_WANT_READ;
    t->reset = n < 0;
    t->truncated = n == 0;
    return MBEDTLS_ERR_SSL_CONN_EOF;
}

/* ---- sending ---- */

static void drop_out(struct tls *t)
{
    buffers_put(&t->context->worker->wire, t->out);
    t->out = NULL;
}

static bool put_out(struct tls *t, const void *data, size_t len)
{
    if (len > sizeof(t->out->data) - t->out->len)
        return false;
    memcpy(t->out->data + t->out->len, data, len);
    t->out->len += len;
    return true;
}

int wire_flush(struct tls *t)
{
    t->gathering = false;
    while (t->out) {
        ssize_t n = t->io->send(t->arg, t->out->data + t->out->off, t->out->len - t->out->off);

        if (n < 0) {
            t->reset = t->reset || n != -EAGAIN;
            return (int)n;
        }
        t->out->off += (size_t)n;
        if (t->out->off == t->out->len)
            drop_out(t);
    }
    return 0;
}

/* Into the buffer, which leaves when it is full. Return: as the socket's own */
static ssize_t gather(struct tls *t, const void *data, size_t len)
{
    bool goes_on = t->gathering;
    int r;

    if (t->out && put_out(t, data, len))
        return (ssize_t)len;
    if (t->out && (r = wire_flush(t)) != 0)
        return r;
    t->gathering = goes_on;
    t->out = goes_on ? buffers_get(&t->context->worker->wire) : NULL;
    if (!t->out)
        return t->io->send(t->arg, data, len);
    t->out->off = t->out->len = 0;
    return put_out(t, data, len) ? (ssize_t)len : -EAGAIN; /* it fits: it is larger than any record */
}

int wire_send(void *arg, const unsigned char *data, size_t len)
{
    struct tls *t = arg;
    ssize_t n = t->out || t->gathering ? gather(t, data, len) : t->io->send(t->arg, data, len);

    if (n >= 0)
        return (int)n;
    if (n == -EAGAIN)
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    t->reset = true;
    return MBEDTLS_ERR_SSL_CONN_EOF;
}

void wire_drop(struct tls *t)
{
    if (t->in)
        drop_in(t);
    if (t->out)
        drop_out(t);
}
