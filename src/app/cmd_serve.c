/* cmd_serve.c - `culvert serve`: the far end, SOCKS5 and MASQUE servers with a thread for each core.
 *
 * Once everything listens, privileges go, as in `run`: capabilities, files, system calls.
 *
 * The main thread has signals (SIGHUP: certificate, users, `allow` and limits are read again) and this host's addresses, which the
 * MASQUE server refuses to dial: netlink tells of changes, and every thread gets the new list by message. */
#include "commands.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "confine.h"
#include "crash.h"
#include "far_end.h"
#include "privilege.h"
#include "process.h"

enum { THREADS_MAX = 64, OWN_MAX = 256 };

struct server {
    const struct cli *cli;
    const struct config *config; /* of the file, or what there is without one */
    struct confine *confine;
    struct privilege_account account;
    struct serve_options socks5;
    struct masque_options masque;
    bool has_socks5, has_masque;
    struct serve_ledger *ledgers[2];
    struct serve_ledger **old; /* of earlier readings of the file: flows still count in them */
    size_t olds;
    struct netlink *netlink;
    struct netlink_watch *watch;
    struct ip_addr own[OWN_MAX];
    size_t owns;
    struct loop *loop; /* the main thread's */
    struct far_end *thread[THREADS_MAX];
    uint32_t threads;
};

/* ---- options ---- */

static void default_options(struct serve_options *o)
{
    *o = (struct serve_options){
        .listen = { .port = 1080 }, .udp = true, .connect_timeout_ms = 10000, .max_streams = 16384
    };
    ip_parse("127.0.0.1", &o->listen.addr);
}

/* Without a file, a plain server on loopback; with one, what its `serve` says; --listen wins over both. */
static int set_options(struct server *s, const struct cli *cli, const struct config *config)
{
    default_options(&s->socks5);
    s->has_socks5 = config == NULL || config->has_serve;
    s->has_masque = config != NULL && config->has_masque;
    if (!s->has_socks5 && !s->has_masque)
        return complain(EXIT_USAGE, "%s has neither serve.socks5 nor serve.masque; add one, or leave -c out",
                        cli->config);
    if (config != NULL && s->has_socks5)
        s->socks5 = config->serve;
    if (s->has_masque)
        s->masque = config->masque;
    if (cli->listen != NULL &&
        config_parse_listen(cli->listen, s->has_socks5 ? &s->socks5.listen : &s->masque.listen) != 0)
        return complain(EXIT_USAGE,
                        "--listen: \"%.60s\" is not ADDR:PORT, such as 127.0.0.1:1080 or [::1]:1080",
                        cli->listen);
    if (s->has_masque && s->masque.user_count == 0 && !ip_is_loopback(&s->masque.listen.addr))
        return complain(EXIT_USAGE, "--listen: a MASQUE server that others reach needs serve.masque.users");
    if (s->has_socks5 && !ip_is_loopback(&s->socks5.listen.addr) && s->socks5.user_count == 0)
        log_warning("whoever reaches this server may use it: it has no serve.socks5.users");
    return EXIT_FINE;
}

static int make_ledger(const struct serve_per_user *limits, size_t users, struct serve_ledger **out)
{
    if (limits->flows == 0 && limits->bytes_per_second == 0)
        return 0;
    return serve_ledger_new(limits, users, out);
}

static int make_ledgers(struct server *s)
{
    int r = make_ledger(&s->socks5.per_user, s->socks5.user_count, &s->ledgers[0]);

    if (r == 0)
        r = make_ledger(&s->masque.per_user, s->masque.user_count, &s->ledgers[1]);
    s->socks5.ledger = s->ledgers[0];
    s->masque.ledger = s->ledgers[1];
    return r == 0 ? EXIT_FINE : complain(EXIT_FAILED, "no memory");
}

/* ---- this host's addresses ---- */

static int on_own_address(void *arg, const struct nl_addr *a)
{
    struct server *s = arg;

    if (s->owns < OWN_MAX)
        s->own[s->owns++] = a->addr.addr;
    return 0;
}

static void on_addresses(void *arg, enum netlink_event what, int ifindex)
{
    struct server *s = arg;

    (void)ifindex;
    if (what != NETLINK_ADDR_CHANGED && what != NETLINK_EVENTS_LOST)
        return;
    s->owns = 0;
    if (netlink_addrs(s->netlink, 0, on_own_address, s) != 0)
        return;
    for (uint32_t i = 0; i < s->threads; i++)
        (void)far_end_set_own(s->thread[i], s->own, s->owns);
}

static void find_own_addresses(struct server *s)
{
    struct err err = { "" };

    if (netlink_open(&s->netlink, &err) != 0 || netlink_addrs(s->netlink, 0, on_own_address, s) != 0 ||
        netlink_watch_open(s->loop, on_addresses, s, &s->watch) != 0)
        log_warning("this host's own addresses are not known (%s); clients may reach public ones of them",
                    err.text[0] != '\0' ? err.text : "netlink does not answer");
}

/* ---- threads ---- */

/* What the command line or the file asks for and cannot have is a mistake there (faults.md C8). */
static int listen_status(int r)
{
    return r == -EADDRINUSE || r == -EADDRNOTAVAIL || r == -EACCES ? EXIT_USAGE : EXIT_FAILED;
}

static int check_port(const struct ip_port *at)
{
    int r = process_port_is_free(at);
    struct err err;

    return r == 0 ? EXIT_FINE : complain(listen_status(err_set_listen(&err, r, "", at)), "%s", err.text);
}

/* All threads listen on one address; the first one's port is everybody's when the kernel chose it. */
static int open_threads(struct server *s, uint32_t wanted)
{
    struct far_end_setup setup = { .socks5 = s->has_socks5 ? &s->socks5 : NULL,
                                   .masque = s->has_masque ? &s->masque : NULL,
                                   .count = wanted,
                                   .own = s->own,
                                   .owns = s->owns };
    struct err err = { "" };
    int r = s->has_socks5 ? check_port(&s->socks5.listen) : EXIT_FINE;

    if (r == EXIT_FINE && s->has_masque)
        r = check_port(&s->masque.listen);
    if (r != EXIT_FINE)
        return r;
    for (; s->threads < wanted; s->threads++) {
        setup.index = s->threads;
        if ((r = far_end_new(&setup, &s->thread[s->threads], &err)) != 0)
            return complain(listen_status(r), "%s", err.text);
        if (s->has_socks5)
            s->socks5.listen.port = far_end_port(s->thread[0]);
        if (s->has_masque)
            s->masque.listen.port = far_end_masque_port(s->thread[0]);
    }
    return EXIT_FINE;
}

static int start_threads(struct server *s)
{
    struct err err = { "" };

    for (uint32_t i = 0; i < s->threads; i++) {
        if (far_end_start(s->thread[i], &err) != 0)
            return complain(EXIT_FAILED, "%s", err.text);
    }
    return EXIT_FINE;
}

/* ---- privileges ---- */

/* All sockets that take a privilege are open: ports below 1024, and those of pings. Nothing needs one again, so there is no helper
 * and no capability is kept. */
static int give_up_privileges(struct server *s)
{
    const struct confine_options files = { .config = s->config, .config_path = s->cli->config };
    bool stays = s->config->user == NULL && s->config->sandbox == CONFIG_SANDBOX_OFF;
    struct err err = { "" };
    char text[256];

    if (stays)
        return EXIT_FINE;
    if (privilege_become(&s->account, &err) != 0 || privilege_keep(0, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    log_info("privileges: user %u, capabilities: %s", (unsigned)geteuid(),
             privilege_text(text, sizeof(text)));
    confine_warn_unreadable(s->config, s->cli->config);
    if (confine_now(&files, s->loop, &s->confine, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    return EXIT_FINE;
}

/* ---- signals ---- */

static void on_signal(void *arg, int signo)
{
    struct server *s = arg;

    log_info("signal %d: ending", signo);
    signal(SIGTERM, SIG_DFL); /* a second one ends us at once */
    signal(SIGINT, SIG_DFL);
    loop_stop(s->loop);
}

static bool make_room(struct server *s)
{
    struct serve_ledger **more =
        realloc(s->old, (s->olds + ARRAY_LEN(s->ledgers)) * sizeof(struct serve_ledger *));

    if (more == NULL)
        return false;
    s->old = more;
    return true;
}

/* make_room() was called. */
static void replace_ledger(struct server *s, size_t which, struct serve_ledger *fresh)
{
    if (s->ledgers[which] != NULL)
        s->old[s->olds++] = s->ledgers[which];
    s->ledgers[which] = fresh;
}

/* Limits are counted anew for those who come from now on; those of before keep to theirs. Return: false: nothing was changed. */
static bool take_access(struct server *s, const struct config *config)
{
    struct serve_options socks5 = config->serve;
    struct masque_options masque = config->masque;
    bool told = true;

    socks5.ledger = masque.ledger = NULL;
    if (!make_room(s) ||
        (s->has_socks5 && make_ledger(&socks5.per_user, socks5.user_count, &socks5.ledger) != 0) ||
        (s->has_masque && make_ledger(&masque.per_user, masque.user_count, &masque.ledger) != 0)) {
        serve_ledger_free(socks5.ledger);
        return false;
    }
    replace_ledger(s, 0, socks5.ledger);
    replace_ledger(s, 1, masque.ledger);
    for (uint32_t i = 0; i < s->threads; i++) {
        told = (!s->has_socks5 || far_end_set_socks5(s->thread[i], &socks5) == 0) && told;
        told = (!s->has_masque || far_end_set_access(s->thread[i], &masque) == 0) && told;
    }
    if (!told)
        log_warning("no memory to tell every thread of the new users and certificate");
    return true;
}

/* What a server that runs cannot become. Return: NULL: nothing of it */
static const char *not_possible(const struct server *s, const struct config *config)
{
    if (s->has_socks5 && !config->has_serve)
        return "it has no serve.socks5 any more";
    if (s->has_masque && !config->has_masque)
        return "it has no serve.masque any more";
    if (s->has_socks5 && s->socks5.user_count > 0 && config->serve.user_count == 0 &&
        !ip_is_loopback(&s->socks5.listen.addr))
        return "it has no serve.socks5.users any more, and others reach this server";
    if (s->has_masque && config->masque.user_count == 0 && !ip_is_loopback(&s->masque.listen.addr))
        return "a MASQUE server that others reach needs serve.masque.users";
    return NULL;
}

/* The file is read whole, and what is wrong in it is said; of what it says the certificate, users, `allow` and limits are taken. */
static void on_reload(void *arg, int signo)
{
    struct server *s = arg;
    struct config *config = NULL;
    const char *no;
    struct err err = { "" };

    if (s->cli->config == NULL) {
        log_info("signal %d: there is nothing to read again: no file was given", signo);
        return;
    }
    if (confine_load(s->confine, s->cli->config, &config, &err) != 0) {
        log_error("signal %d: %s is not taken (%s); the old certificate stays, and users and limits as well",
                  signo, s->cli->config, err.text);
    } else if ((no = not_possible(s, config)) != NULL) {
        log_error("signal %d: %s is not taken: %s; all stays as it was", signo, s->cli->config, no);
    } else if (take_access(s, config)) {
        log_info("signal %d: certificate, users, allow and limits are now as %s says", signo, s->cli->config);
    } else {
        log_error("signal %d: %s is not taken: no memory; all stays as it was", signo, s->cli->config);
    }
    config_free(config);
}

static void say_ready(const struct server *s)
{
    char socks5[IP_PORT_TEXT_MAX], masque[IP_PORT_TEXT_MAX];

    fprintf(stderr, "ready: %s%s%s%s%s, %u thread%s\n", s->has_socks5 ? "socks5 on " : "",
            s->has_socks5 ? ip_port_text(&s->socks5.listen, socks5) : "",
            s->has_socks5 && s->has_masque ? ", " : "", s->has_masque ? "masque on " : "",
            s->has_masque ? ip_port_text(&s->masque.listen, masque) : "", s->threads,
            s->threads == 1 ? "" : "s");
}

static int run(struct server *s, uint32_t threads)
{
    int r = loop_new(&s->loop);

    if (r != 0)
        return complain(EXIT_FAILED, "no event loop: %s", strerror(-r));
    signal(SIGPIPE, SIG_IGN);
    loop_on_signal(s->loop, SIGTERM, on_signal, s);
    loop_on_signal(s->loop, SIGINT, on_signal, s);
    loop_on_signal(s->loop, SIGHUP, on_reload, s);
    if (s->has_masque)
        find_own_addresses(s);
    if ((r = make_ledgers(s)) != EXIT_FINE || (r = open_threads(s, threads)) != EXIT_FINE ||
        (r = give_up_privileges(s)) != EXIT_FINE || (r = start_threads(s)) != EXIT_FINE)
        return r;
    say_ready(s);
    process_notify("READY=1");
    loop_run(s->loop);
    process_notify("STOPPING=1");
    return EXIT_FINE;
}

static void clean_up(struct server *s)
{
    for (uint32_t i = 0; i < s->threads; i++)
        far_end_free(s->thread[i]);
    for (size_t i = 0; i < ARRAY_LEN(s->ledgers); i++)
        serve_ledger_free(s->ledgers[i]);
    for (size_t i = 0; i < s->olds; i++)
        serve_ledger_free(s->old[i]);
    free(s->old);
    netlink_watch_close(s->watch);
    netlink_close(s->netlink);
    confine_end(s->confine, s->loop);
    loop_free(s->loop);
}

int cmd_serve(const struct cli *cli)
{
    static const struct config none = { .sandbox = CONFIG_SANDBOX_ON };
    struct config *config = NULL;
    struct server s = { .cli = cli };
    struct err err = { "" };
    uint32_t threads = process_usable_cores();
    int status = cli->config != NULL ? load_file(cli->config, &config) : EXIT_FINE;
    int r;

    if (status == EXIT_FINE && config != NULL && (r = log_init(&config->log)) != 0)
        status = complain(EXIT_USAGE, "log.output: %s: %s", config->log.output, strerror(-r));
    s.config = config != NULL ? config : &none;
    if (status == EXIT_FINE)
        status = set_options(&s, cli, config);
    if (status == EXIT_FINE && privilege_account_find(s.config->user, &s.account, &err) != 0)
        status = complain(EXIT_USAGE, "%s", err.text);
    if (config != NULL && config->workers != 0)
        threads = config->workers;
    if (status == EXIT_FINE) {
        crash_banner();
        process_raise_fd_limit();
        status = run(&s, threads < THREADS_MAX ? threads : THREADS_MAX);
    }
    clean_up(&s);
    config_free(config);
    return status;
}
