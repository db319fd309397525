/* serve_lab.c - see serve_lab.h. */
#include "serve_lab.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <cmocka.h>

struct serve_options serve_lab_options(const char *listen)
{
    struct serve_options o = { .udp = true, .connect_timeout_ms = 2000, .max_streams = 64 };

    o.listen.addr = rig_addr(listen);
    return o;
}

void serve_lab_open(struct serve_lab *lab, const struct serve_options *opt)
{
    struct upstream_options o = { .name = "far end", .kind = UPSTREAM_SOCKS5 };
    struct err err = { "" };

    if (serve_open(opt, lab->rig.env, &lab->serve, &err) != 0)
        fail_msg("%s", err.text);
    o.server = (struct host_port){ NULL, opt->listen.addr, serve_port(lab->serve) };
    assert_int_equal(upstream_new(&o, &lab->up), 0);
}

void serve_lab_close(struct serve_lab *lab)
{
    upstream_unref(lab->up);
    serve_close(lab->serve);
    lab->up = NULL;
    lab->serve = NULL;
}

int serve_lab_setup(void **state)
{
    struct serve_lab *lab = calloc(1, sizeof(*lab));

    assert_non_null(lab);
    rig_init(&lab->rig);
    *state = lab;
    return 0;
}

int serve_lab_teardown(void **state)
{
    struct serve_lab *lab = *state;

    serve_lab_close(lab);
    rig_fini(&lab->rig);
    free(lab);
    return 0;
}

int serve_lab_client(const struct serve_lab *lab, const void *data, size_t len)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                              .sin_port = htons(serve_port(lab->serve)) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
    return fd;
}

ssize_t serve_lab_read(struct serve_lab *lab, int fd, void *out, size_t want)
{
    size_t got = 0;

    for (;;) {
        ssize_t n;

        rig_run_ms(&lab->rig, 1);
        n = recv(fd, (char *)out + got, want - got, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : (ssize_t)got;
        got += (size_t)n;
        if (got == want)
            return (ssize_t)got;
    }
}
