/* cmd_run.c - `culvert run`: the gateway of culvert.h as a process of its own, in the foreground, until a signal ends it. */
#include "commands.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "culvert/loop.h"
#include "culvert/route.h"
#include "confirm.h"
#include "crash.h"
#include "culvert_impl.h"
#include "process.h"

struct run {
    struct culvert *culvert;
    struct loop *loop; /* its main thread's, which is ours */
    struct confirm confirm;
    uint64_t confirm_us; /* 0: nobody has to */
    bool ready;          /* it has been: from then on the log tells what goes wrong */
    int status;          /* to exit with */
};

/* ---- signals ---- */

static void exit_at_once(int signo)
{
    _exit(128 + signo);
}

/* The first one ends the loop; from then on the main thread is busy with putting things back, so a second one needs no loop
 * to be heard (faults.md X1). */
static void on_end_signal(void *arg, int signo)
{
    struct run *run = arg;
    struct sigaction now = { .sa_handler = exit_at_once };

    sigaction(SIGTERM, &now, NULL);
    sigaction(SIGINT, &now, NULL);
    log_info("signal %d: ending", signo);
    culvert_stop(run->culvert);
}

static void on_reload_signal(void *arg, int signo)
{
    struct run *run = arg;
    struct err err = { "" };

    (void)signo;
    (void)culvert_reload_now(run->culvert, NULL, CULVERT_NO_DRAIN, err.text,
                             sizeof(err.text)); /* the log was told */
}

static void on_loop(void *arg, struct loop *l)
{
    struct run *run = arg;

    run->loop = l;
    loop_on_signal(l, SIGTERM, on_end_signal, run);
    loop_on_signal(l, SIGINT, on_end_signal, run);
    loop_on_signal(l, SIGHUP, on_reload_signal, run);
}

/* ---- life ---- */

static void on_messages(void *arg, const struct config_messages *m)
{
    (void)arg;
    config_print_messages(stderr, m);
}

static void on_unconfirmed(void *arg)
{
    struct run *run = arg;

    gateway_forget_on_exit(run->culvert->gateway);
    run->status = EXIT_FAILED;
    culvert_stop(run->culvert);
}

static void on_ready(void *arg, const char *line)
{
    struct run *run = arg;

    run->ready = true;
    if (run->confirm_us != 0)
        confirm_start(&run->confirm, run->loop, run->confirm_us, on_unconfirmed, run);
    fprintf(stderr, "%s\n", line);
    process_notify("READY=1");
}

static void on_reload(void *arg, bool begins)
{
    (void)arg;
    if (begins)
        process_notify_reloading();
    else
        process_notify("READY=1");
}

static void on_ending(void *arg)
{
    struct run *run = arg;

    process_notify("STOPPING=1");
    confirm_end(&run->confirm);
}

/* ---- --dry-run ---- */

/* As far as the machine tells without privileges. */
static int print_plan(const struct config *c)
{
    const char *name = c->tun.name[0] != '\0' ? c->tun.name : "tun0";
    struct route_surroundings around = { 0 };
    struct nl_link link = { 0 };
    struct route_options opt;
    struct route_plan plan;
    struct netlink *nl;
    struct err err = { "" };

    if (!c->route.auto_route) {
        printf("# auto-route is off: no route and no rule would be made\n");
        return EXIT_FINE;
    }
    gateway_route_options(c, name, c->route.mark, &opt);
    for (size_t i = 0; i < c->tun.addresses; i++)
        *(ip_is4(&c->tun.address[i].addr) ? &opt.v4 : &opt.v6) = true;
    if (netlink_open(&nl, NULL) == 0) {
        (void)netlink_link_by_name(nl, name, &link);
        (void)route_look(nl, &opt, link.ifindex, &around);
        netlink_close(nl);
    }
    if (route_plan_make(&opt, &around, 1, &plan, &err) != 0)
        return complain(EXIT_USAGE, "%s", err.text);
    if (c->route.system_dns)
        printf("# %s would name us, and what is there now would lie beside it as %s%s\n", ROUTE_DNS_FILE,
               ROUTE_DNS_FILE, ROUTE_DNS_SAVED);
    printf("nft -f - <<'END'\n");
    route_nft_text(&opt, stdout);
    printf("END\n");
    route_plan_print(&plan, name, stdout);
    route_plan_fini(&plan);
    return EXIT_FINE;
}

/* ---- all of it ---- */

/* What the configuration asks for and cannot have is its mistake; the rest is the machine's (faults.md V5, V6, V9). */
static int status_of(int r)
{
    switch (-r) {
    case EINVAL:
    case EBUSY:
    case ERANGE:
    case E2BIG:
    case EBADF:
        return EXIT_USAGE;
    }
    return EXIT_FAILED;
}

static int run_it(struct run *run)
{
    char why[512];
    int r;

    crash_banner();
    process_raise_fd_limit();
    signal(SIGPIPE, SIG_IGN);
    r = culvert_run(run->culvert, why, sizeof(why));
    if (r != 0 && !run->ready)
        return complain(status_of(r), "%s", why);
    return r != 0 ? EXIT_FAILED : run->status;
}

static int make(const struct cli *cli, struct run *run)
{
    const struct culvert_hooks hooks = { .is_process = true,
                                         .on_messages = on_messages,
                                         .on_loop = on_loop,
                                         .on_ready = on_ready,
                                         .on_reload = on_reload,
                                         .on_ending = on_ending,
                                         .arg = run };
    const struct culvert_options opt = {
        .size = sizeof(opt),
        .config_file = load_path(cli),
        .proxy_url = cli->proxy,
        .tun_name = cli->tun,
        .flags = CULVERT_KEEP_STATE | CULVERT_CONTROL_SOCKET | CULVERT_DROP_PRIVILEGES,
    };
    char why[512];
    int r;

    if (opt.config_file == NULL && opt.proxy_url == NULL)
        return complain_of_nothing();
    if ((r = culvert_make(&opt, &hooks, &run->culvert, why, sizeof(why))) == 0)
        return EXIT_FINE;
    if (why[0] != '\0')
        complain(EXIT_USAGE, "%s", why);
    return r == -ENOMEM ? EXIT_FAILED : EXIT_USAGE; /* the machine's fault, not the file's (faults.md R2) */
}

int cmd_run(const struct cli *cli)
{
    struct run run = { .status = EXIT_FINE };
    struct err err = { "" };
    int status;

    if (cli->confirm != NULL && confirm_parse(cli->confirm, &run.confirm_us, &err) != 0)
        return complain(EXIT_USAGE, "%s", err.text);
    if ((status = make(cli, &run)) != EXIT_FINE)
        return status;
    status = cli->dry_run ? print_plan(&run.culvert->config) : run_it(&run);
    culvert_free(run.culvert);
    return status;
}
