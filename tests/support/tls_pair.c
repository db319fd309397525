/* tls_pair.c - two TLS sessions joined in memory. */
#include "tls_pair.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

ssize_t mem_pipe_put(struct mem_pipe *p, const void *data, size_t len)
{
    size_t held = p->len - p->off;
    uint8_t *grown;

    p->puts++;
    if (p->reset)
        return -ECONNRESET;
    if (p->room > 0 && held >= p->room)
        return -EAGAIN;
    if (p->room > 0 && len > p->room - held)
        len = p->room - held;
    grown = realloc(p->data, p->len + len + 1);
    assert_non_null(grown);
    p->data = grown;
    memcpy(p->data + p->len, data, len);
    p->len += len;
    return (ssize_t)len;
}

ssize_t mem_pipe_get(struct mem_pipe *p, void *to, size_t len)
{
    size_t n = p->len - p->off;

    p->gets++;
    if (n == 0)
        return p->reset ? -ECONNRESET : p->ended ? 0 : -EAGAIN;
    n = n < len ? n : len;
    n = p->piece > 0 && n > p->piece ? p->piece : n;
    memcpy(to, p->data + p->off, n);
    p->off += n;
    return (ssize_t)n;
}

static ssize_t side_recv(void *arg, void *to, size_t len)
{
    return mem_pipe_get(((struct tls_side *)arg)->in, to, len);
}

static ssize_t side_send(void *arg, const void *data, size_t len)
{
    return mem_pipe_put(((struct tls_side *)arg)->out, data, len);
}

static void side_wake(void *arg)
{
    ((struct tls_side *)arg)->woken++;
}

static const struct tls_io side_io = { side_recv, side_send, side_wake };

struct tls_ca *tls_test_ca(const struct pki_id *id)
{
    struct tls_ca *ca;
    struct err err;

    assert_int_equal(tls_ca_parse(id->certificate, strlen(id->certificate), &ca, &err), 0);
    return ca;
}

void tls_lab_init(struct tls_lab *lab, struct tls_options *client, const char *name,
                  const struct pki_id *server, bool server_resume)
{
    struct tls_options so = { .server = true,
                              .resume = server_resume,
                              .certificate = server->certificate,
                              .private_key = server->key };
    struct tls_settings *s;
    struct tls_ca *ca = client->ca ? tls_ca_ref(client->ca) : tls_test_ca(pki_authority());
    struct tls_options co = *client;
    struct err err;

    *lab = (struct tls_lab){ 0 };
    co.ca = ca;
    assert_int_equal(tls_worker_new(&lab->worker), 0);
    assert_int_equal(tls_worker_new(&lab->server_worker), 0);
    assert_int_equal(tls_settings_new(&co, &s, &err), 0);
    assert_int_equal(tls_context_new(lab->worker, s, name, &lab->client), 0);
    tls_settings_unref(s);
    tls_ca_unref(ca);
    so.alpn = client->alpn;
    so.alpns = client->alpns;
    if (client->certificate)
        so.ca = ca = tls_test_ca(pki_authority());
    assert_int_equal(tls_settings_new(&so, &s, &err), 0);
    if (client->certificate)
        tls_ca_unref(ca);
    assert_int_equal(tls_context_new(lab->server_worker, s, NULL, &lab->server), 0);
    tls_settings_unref(s);
}

void tls_lab_fini(struct tls_lab *lab)
{
    tls_context_free(lab->client);
    tls_context_free(lab->server);
    tls_worker_free(lab->worker);
    tls_worker_free(lab->server_worker);
}

void tls_pair_open(struct tls_lab *lab, struct tls_pair *p)
{
    memset(p, 0, sizeof(*p));
    p->client.in = p->server.out = &p->down;
    p->client.out = p->server.in = &p->up;
    assert_int_equal(tls_open(lab->client, &side_io, &p->client, &p->client.tls), 0);
    assert_int_equal(tls_open(lab->server, &side_io, &p->server, &p->server.tls), 0);
}

void tls_pair_free(struct tls_pair *p)
{
    tls_free(p->client.tls);
    tls_free(p->server.tls);
    free(p->up.data);
    free(p->down.data);
}

static bool goes_on(const struct tls_side *s)
{
    return s->step != TLS_DONE && s->step != TLS_BROKEN && s->step != TLS_QUEUED;
}

bool tls_pair_handshake(struct tls_pair *p)
{
    static uint64_t turn;

    p->client.step = p->server.step = TLS_WANT_READ;
    for (int i = 0; i < 200 && (goes_on(&p->client) || goes_on(&p->server)); i++) {
        p->client.step = tls_handshake(p->client.tls, ++turn);
        p->server.step = tls_handshake(p->server.tls, ++turn);
        (void)tls_flush(
            p->client.tls); /* of TLS 1.3 the last flight may wait for the socket when all is said */
        if (p->client.step == TLS_BROKEN || p->client.step == TLS_QUEUED)
            break;
    }
    return p->client.step == TLS_DONE && p->server.step == TLS_DONE;
}
