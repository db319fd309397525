/* demo.c - `culvert demo`: all of it at once, in networks of its own.
 *
 *     this process, namespace A                                   the tour, namespace B
 *     TCP, UDP and name servers <- SOCKS5 server <- gateway  <==  TUN  <-  clients
 *
 * Namespace A has loopback only, so nothing can leave the machine; the host's network is not touched. */
#include "commands.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cell.h"
#include "demo_impl.h"
#include "exec_builtin.h"
#include "gateway.h"
#include "process.h"

struct demo {
    struct config config;
    struct builtin builtin;
    struct demo_servers *servers;
    struct ip_addr dns_address[2];
    struct cell cell;
    struct loop *loop;
    struct gateway *gateway;
    int status;
};

static int run_tour(void *arg) /* [child] */
{
    struct demo *d = arg;
    int failed = demo_tour(&d->dns_address[0]);

    fflush(stdout);
    return failed == 0 ? EXIT_FINE : EXIT_FAILED;
}

/* ---- namespace A ---- */

static int add_addresses(struct netlink *nl, int ifindex)
{
    static const char *const addresses[] = { DEMO_TARGET4, DEMO_TARGET6, DEMO_DNS };
    struct ip_prefix p;
    int r = 0;

    for (size_t i = 0; i < ARRAY_LEN(addresses) && r == 0; i++) {
        ip_prefix_parse(addresses[i], &p);
        r = netlink_addr_add(nl, ifindex, &p);
    }
    return r;
}

static int make_network(struct err *err)
{
    struct netlink *nl = NULL;
    struct nl_link lo;
    int r;

    if ((r = cell_enter_network(err)) != 0 || (r = netlink_open(&nl, err)) != 0)
        return r;
    if ((r = netlink_link_by_name(nl, "lo", &lo)) != 0 ||
        (r = netlink_link_set(nl, lo.ifindex, true, 0, 0)) != 0 || (r = add_addresses(nl, lo.ifindex)) != 0)
        err_set(err, r, "no network for the tour: %s", strerror(-r));
    netlink_close(nl);
    return r;
}

/* ---- the gateway ---- */

static void on_fatal(void *arg, const char *why)
{
    struct demo *d = arg;

    log_error("%s", why);
    loop_stop(d->loop);
}

static void on_child_signal(void *arg, int signo)
{
    struct demo *d = arg;
    int status;

    (void)signo;
    if (waitpid(d->cell.pid, &status, WNOHANG) != d->cell.pid)
        return;
    d->cell.pid = 0;
    d->status = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;
    loop_stop(d->loop);
}

static int start_cell(struct demo *d, struct err *err)
{
    struct cell_options opt = {
        .tun = &d->config.tun,
        .queues = process_usable_cores(),
        .run = run_tour,
        .arg = d,
    };

    d->config.tun.fd = -1;
    snprintf(d->config.tun.name, sizeof(d->config.tun.name), "tun0");
    d->config.route.auto_route = false;
    gateway_stack_addresses(&d->config.tun, d->dns_address, NULL);
    return cell_start(&opt, &d->cell, err);
}

static int start_gateway(struct demo *d, struct err *err)
{
    struct gateway_setup setup = {
        .config = &d->config,
        .loop = d->loop,
        .tun_fds = d->cell.fds,
        .tun_fd_count = d->cell.fd_count,
        .dns_address = { d->dns_address[0], d->dns_address[1] },
        .dns_server = { .port = 53 },
        .on_fatal = on_fatal,
        .arg = d,
    };

    ip_parse(DEMO_DNS, &setup.dns_server.addr);
    d->config.tun.mtu = d->cell.mtu;
    d->cell.fd_count = 0; /* the gateway's from here on */
    return gateway_start(&setup, &d->gateway, err);
}

static int start_all(struct demo *d)
{
    struct err err = { "" };
    char line[160];
    int r;

    if (start_cell(d, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    signal(SIGPIPE, SIG_IGN);
    process_raise_fd_limit();
    if ((r = loop_new(&d->loop)) != 0)
        return complain(EXIT_FAILED, "no event loop: %s", strerror(-r));
    loop_on_signal(d->loop, SIGCHLD, on_child_signal, d);
    if (builtin_start(&d->builtin) != EXIT_FINE)
        return EXIT_FAILED;
    if (demo_servers_start(&d->servers, &err) != 0 || start_gateway(d, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    printf("culvert " CULVERT_VERSION
           ", a tour: clients, TUN, gateway, SOCKS5 server, servers; nothing leaves this machine\n%s\n\n",
           gateway_ready_line(d->gateway, line, sizeof(line)));
    fflush(stdout);
    return EXIT_FINE;
}

static int run(struct demo *d)
{
    int r = start_all(d);

    if (r != EXIT_FINE)
        return r;
    if (cell_go(&d->cell) != 0)
        return complain(EXIT_FAILED, "the tour's process died");
    if ((r = loop_run(d->loop)) != 0)
        return complain(EXIT_FAILED, "the event loop broke: %s", strerror(-r));
    return d->status;
}

int cmd_demo(const struct cli *cli)
{
    struct demo d = { .cell = { .sock = -1 }, .status = EXIT_FAILED };
    const struct log_options quiet = { .level = LOG_WARNING, .output = "stderr" };
    struct config *loaded = NULL;
    struct err err = { "" };
    int status;

    (void)cli;
    log_init(&quiet);
    if (cell_check(&err) != 0 || make_network(&err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    if ((status = builtin_new(&d.builtin, &loaded)) == EXIT_FINE) {
        d.config = *loaded;
        status = run(&d);
    }
    gateway_stop(d.gateway);
    cell_end(&d.cell);
    builtin_free(&d.builtin);
    loop_free(d.loop);
    config_free(loaded);
    return status;
}
