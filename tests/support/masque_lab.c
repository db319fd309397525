/* masque_lab.c - see masque_lab.h. */
#include "masque_lab.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const alpn[] = { "h2" };

struct tls_settings *masque_lab_settings(void)
{
    struct tls_options o = { .server = true,
                             .resume = true,
                             .certificate = pki_server()->certificate,
                             .private_key = pki_server()->key,
                             .alpn = alpn,
                             .alpns = 1 };
    struct tls_settings *s;
    struct err err;

    assert_int_equal(tls_settings_new(&o, &s, &err), 0);
    return s;
}

struct masque_options masque_lab_options(void)
{
    struct masque_options o = { .echo = true, .connect_timeout_ms = 2000, .max_streams = 64 };

    o.listen.addr = rig_addr("127.0.0.1");
    assert_int_equal(ip_prefix_parse("127.0.0.0/8", &o.allow[0]), 0);
    assert_int_equal(ip_prefix_parse("192.0.2.0/28", &o.allow[1]), 0);
    assert_int_equal(ip_prefix_parse("2001:db8::/64", &o.allow[2]), 0);
    o.allows = 3;
    return o;
}

static void open_echo(struct masque_lab *lab)
{
    struct ip_addr exit4 = rig_addr("198.51.100.1"), exit6 = rig_addr("2001:db8:f::1");
    struct echo_proxy_options o;

    echo_proxy_options_defaults(&o);
    o.loop = lab->h2.rig.loop;
    o.wheel = &lab->h2.rig.wheel;
    o.on_answer = masque_on_echo_answer;
    o.arg = lab->masque;
    o.quiet = true;
    assert_int_equal(echo_proxy_new(&o, &lab->echo), 0);
    masque_attach_echo(lab->masque, lab->echo, &exit4, &exit6);
}

void masque_lab_serve(struct masque_lab *lab, const struct masque_options *opt)
{
    struct masque_options o = *opt;
    struct err err = { "" };

    lab->server_tls = masque_lab_settings();
    o.tls = lab->server_tls;
    if (masque_open(&o, lab->h2.rig.env, &lab->masque, &err) != 0)
        fail_msg("%s", err.text);
    open_echo(lab);
}

static ssize_t io_recv(void *arg, void *to, size_t len)
{
    ssize_t n = recv(((struct masque_lab *)arg)->fd, to, len, 0);

    return n >= 0 ? n : -errno;
}

static ssize_t io_send(void *arg, const void *data, size_t len)
{
    ssize_t n = send(((struct masque_lab *)arg)->fd, data, len, MSG_NOSIGNAL);

    return n >= 0 ? n : -errno;
}

static void io_wake(void *arg)
{
    (void)arg;
}

static void step(struct masque_lab *lab)
{
    switch (tls_handshake(lab->tls, clock_now_us())) { /* each call is a turn of its own */
    case TLS_DONE:
        loop_io_stop(lab->h2.rig.loop, &lab->io);
        lab->open = true;
        return;
    case TLS_WANT_READ:
        loop_io_set(lab->h2.rig.loop, &lab->io, LOOP_READ);
        return;
    case TLS_WANT_WRITE:
    case TLS_LATER:
    case TLS_QUEUED:
        loop_io_set(lab->h2.rig.loop, &lab->io, LOOP_WRITE);
        return;
    case TLS_BROKEN:
        fail_msg("TLS: the server %s", tls_why(lab->tls));
    }
}

static void on_io(struct loop_io *io, unsigned events)
{
    (void)events;
    step(CONTAINER_OF(io, struct masque_lab, io));
}

static bool is_open(void *arg)
{
    return ((struct masque_lab *)arg)->open;
}

static bool has_settings(void *arg)
{
    return ((struct masque_lab *)arg)->h2.client.settings;
}

void masque_lab_connect(struct masque_lab *lab)
{
    static const struct tls_io tls_io = { io_recv, io_send, io_wake };
    struct sockaddr_storage ss;
    struct ip_port at = { rig_addr("127.0.0.1"), masque_port(lab->masque) };
    socklen_t len = ip_to_sockaddr(&at, &ss);
    struct h2_options o = { .loop = lab->h2.rig.loop,
                            .wheel = &lab->h2.rig.wheel,
                            .events = &h2_side_events };

    lab->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(lab->fd, (struct sockaddr *)&ss, len), 0);
    assert_int_equal(fcntl(lab->fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(tls_open(lab->context, &tls_io, lab, &lab->tls), 0);
    lab->open = false;
    loop_io_start(lab->h2.rig.loop, &lab->io, lab->fd, LOOP_WRITE, on_io);
    rig_until(&lab->h2.rig, is_open, lab);
    assert_string_equal(tls_alpn(lab->tls), "h2");
    memset(&lab->h2.client, 0, sizeof(lab->h2.client));
    o.fd = lab->h2.client.fd = lab->fd;
    o.tls = lab->tls;
    o.arg = &lab->h2.client;
    assert_int_equal(h2_open(&o, &lab->h2.client.h), 0);
    rig_until(&lab->h2.rig, has_settings, lab);
}

void masque_lab_leave(struct masque_lab *lab)
{
    if (lab->fd <= 0)
        return;
    h2_close(lab->h2.client.h);
    lab->h2.client.h = NULL;
    tls_free(lab->tls);
    close(lab->fd);
    lab->fd = -1;
}

int masque_lab_setup(void **state)
{
    struct masque_lab *lab = calloc(1, sizeof(*lab));
    struct tls_options o = { .ca = tls_test_ca(pki_authority()), .resume = true, .alpn = alpn, .alpns = 1 };
    struct tls_settings *s;
    struct err err;

    rig_init(&lab->h2.rig);
    assert_int_equal(tls_worker_new(&lab->worker), 0);
    assert_int_equal(tls_settings_new(&o, &s, &err), 0);
    assert_int_equal(tls_context_new(lab->worker, s, "localhost", &lab->context), 0);
    tls_settings_unref(s);
    tls_ca_unref(o.ca);
    *state = lab;
    return 0;
}

int masque_lab_teardown(void **state)
{
    struct masque_lab *lab = *state;

    masque_lab_leave(lab);
    masque_close(lab->masque);
    echo_proxy_free(lab->echo);
    serve_ledger_free(lab->ledger);
    tls_settings_unref(lab->server_tls);
    tls_context_free(lab->context);
    tls_worker_free(lab->worker);
    rig_fini(&lab->h2.rig);
    free(lab);
    return 0;
}

void masque_lab_start(struct masque_lab *lab)
{
    struct masque_options o = masque_lab_options();

    masque_lab_serve(lab, &o);
    masque_lab_connect(lab);
}

struct stream_side *masque_lab_ask(struct masque_lab *lab, const char *host, uint16_t port)
{
    char authority[64];
    struct stream_side *s;

    snprintf(authority, sizeof(authority), "%s:%u", host, port);
    s = h2_ask(&lab->h2, authority, NULL, NULL);
    rig_until(&lab->h2.rig, h2_answered, s);
    return s;
}
