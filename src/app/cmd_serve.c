/* cmd_serve.c - `culvert serve`: the far end, a SOCKS5 server with a thread for each core. */
#include "commands.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "far_end.h"
#include "process.h"

enum { THREADS_MAX = 64 };

struct server {
    struct serve_options options;
    struct loop *loop; /* the main thread's: signals only */
    struct far_end *thread[THREADS_MAX];
    uint32_t threads;
};

static void default_options(struct serve_options *o)
{
    *o = (struct serve_options){
        .listen = { .port = 1080 }, .udp = true, .connect_timeout_ms = 10000, .max_streams = 16384
    };
    ip_parse("127.0.0.1", &o->listen.addr);
}

/* Without a file, a plain server on loopback; with one, its serve.socks5; --listen wins over both. */
static int set_options(const struct cli *cli, const struct config *config, struct serve_options *out)
{
    default_options(out);
    if (config != NULL && !config->has_serve)
        return complain(EXIT_USAGE, "%s has no serve.socks5 section; add one, or leave -c out", cli->config);
    if (config != NULL)
        *out = config->serve;
    if (cli->listen != NULL && config_parse_listen(cli->listen, &out->listen) != 0)
        return complain(EXIT_USAGE,
                        "--listen: \"%.60s\" is not ADDR:PORT, such as 127.0.0.1:1080 or [::1]:1080",
                        cli->listen);
    if (!ip_is_loopback(&out->listen.addr) && out->user_count == 0)
        log_warning("whoever reaches this server may use it: it has no serve.socks5.users");
    return EXIT_FINE;
}

/* What the command line or the file asks for and cannot have is a mistake there (faults.md C8). */
static int listen_status(int r)
{
    return r == -EADDRINUSE || r == -EADDRNOTAVAIL || r == -EACCES ? EXIT_USAGE : EXIT_FAILED;
}

/* All threads listen on one address; the first one's port is everybody's when the kernel chose it. */
static int open_threads(struct server *s, uint32_t wanted)
{
    char listen[IP_PORT_TEXT_MAX];
    struct err err = { "" };
    int r = process_port_is_free(&s->options.listen);

    if (r != 0)
        return complain(listen_status(r), "cannot listen on %s: %s", ip_port_text(&s->options.listen, listen),
                        strerror(-r));
    for (; s->threads < wanted; s->threads++) {
        if ((r = far_end_new(&s->options, &s->thread[s->threads], &err)) != 0)
            return complain(listen_status(r), "%s", err.text);
        s->options.listen.port = far_end_port(s->thread[0]);
    }
    for (uint32_t i = 0; i < s->threads; i++) {
        if (far_end_start(s->thread[i], &err) != 0)
            return complain(EXIT_FAILED, "%s", err.text);
    }
    return EXIT_FINE;
}

static void on_signal(void *arg, int signo)
{
    struct server *s = arg;

    log_info("signal %d: ending", signo);
    signal(SIGTERM, SIG_DFL); /* a second one ends us at once */
    signal(SIGINT, SIG_DFL);
    loop_stop(s->loop);
}

static int run(struct server *s, uint32_t threads)
{
    char listen[IP_PORT_TEXT_MAX];
    int r = loop_new(&s->loop);

    if (r != 0)
        return complain(EXIT_FAILED, "no event loop: %s", strerror(-r));
    signal(SIGPIPE, SIG_IGN);
    loop_on_signal(s->loop, SIGTERM, on_signal, s);
    loop_on_signal(s->loop, SIGINT, on_signal, s);
    if ((r = open_threads(s, threads)) != EXIT_FINE)
        return r;
    fprintf(stderr, "ready: socks5 on %s, %u thread%s\n", ip_port_text(&s->options.listen, listen),
            s->threads, s->threads == 1 ? "" : "s");
    process_notify("READY=1");
    loop_run(s->loop);
    process_notify("STOPPING=1");
    return EXIT_FINE;
}

int cmd_serve(const struct cli *cli)
{
    struct config *config = NULL;
    struct server s = { .threads = 0 };
    uint32_t threads = process_usable_cores();
    int status = cli->config != NULL ? load_file(cli->config, &config) : EXIT_FINE;
    int r;

    if (status == EXIT_FINE && config != NULL && (r = log_init(&config->log)) != 0)
        status = complain(EXIT_USAGE, "log.output: %s: %s", config->log.output, strerror(-r));
    if (status == EXIT_FINE)
        status = set_options(cli, config, &s.options);
    if (config != NULL && config->workers != 0)
        threads = config->workers;
    if (status == EXIT_FINE) {
        process_raise_fd_limit();
        status = run(&s, threads < THREADS_MAX ? threads : THREADS_MAX);
    }
    for (uint32_t i = 0; i < s.threads; i++)
        far_end_free(s.thread[i]);
    loop_free(s.loop);
    config_free(config);
    return status;
}
