/* cmd_run.c - `culvert run`: the gateway in the foreground, until a signal ends it. */
#include "commands.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "culvert/api.h"
#include "culvert/loop.h"
#include "culvert/route.h"
#include "confirm.h"
#include "crash.h"
#include "gateway.h"
#include "process.h"
#include "stages.h"

struct run {
    const struct cli *cli;
    struct config config; /* the loaded one with the command line's changes; shares its strings */
    struct loop *loop;
    struct netlink *netlink;
    struct gateway *gateway;
    struct api *api;
    struct stages stages;
    struct confirm confirm;
    uint64_t confirm_us; /* 0: nobody has to */
    bool alone;          /* no other culvert has our device, as far as we know */
    int status;          /* to exit with */
};

/* ---- ending ---- */

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
    loop_stop(run->loop);
}

/* The new file is looked at as a whole before anything changes; a mistake in it is told as at a start, and the old one stays
 * (faults.md C9). Its strings are nobody's once the policy is made; what only a restart changes is compared with the first one. */
static int reload(struct run *run, uint32_t drain_ms, struct err *err)
{
    struct config *now;
    int r;

    if (run->stages.config_path == NULL)
        r = load_config(run->cli, &now) == EXIT_FINE ? 0
                                                     : err_set(err, -EINVAL, "--proxy cannot be used again");
    else
        r = confine_load(run->stages.confine, run->stages.config_path, &now, err);
    if (r != 0)
        return r;
    r = gateway_reload(run->gateway, now, drain_ms, err);
    if (r == 0)
        stages_warn(&run->stages, now);
    config_free(now);
    return r;
}

static int on_reload(void *arg, uint32_t drain_ms, struct err *err)
{
    int r;

    process_notify_reloading();
    r = reload(arg, drain_ms, err);
    if (r == 0)
        log_info("reloaded: the new configuration is in force for new flows");
    else
        log_error("reload failed: %s; the configuration stays as it is", err->text);
    process_notify("READY=1");
    return r;
}

static void on_reload_signal(void *arg, int signo)
{
    struct err err = { "" };

    (void)signo;
    (void)on_reload(arg, GATEWAY_NO_DRAIN, &err); /* it has told the log */
}

static void on_fatal(void *arg, const char *why)
{
    struct run *run = arg;

    log_error("%s", why);
    run->status = EXIT_FAILED;
    loop_stop(run->loop);
}

/* ---- the control socket ---- */

static void on_snapshot(void *arg, const struct status_snapshot *s)
{
    api_answer_status(arg, s);
}

static void on_status(void *arg, unsigned parts, struct api_answer *a)
{
    struct run *run = arg;

    gateway_status(run->gateway, parts, on_snapshot, a);
}

static int on_pick(void *arg, const char *group, const char *member, struct err *err)
{
    struct run *run = arg;

    return gateway_pick(run->gateway, group, member, err);
}

static void on_flow_ended(void *arg, bool found)
{
    api_answer_ended(arg, found);
}

static void on_end_flow(void *arg, uint64_t id, struct api_answer *a)
{
    struct run *run = arg;

    gateway_end_flow(run->gateway, id, on_flow_ended, a);
}

static void on_ended(void *arg, const struct status_ended *e)
{
    struct run *run = arg;

    api_tell_ended(run->api, e);
}

static void on_counters(void *arg, const struct status_snapshot *s)
{
    struct run *run = arg;

    api_tell_counters(run->api, s);
}

static void on_watch(void *arg, bool on)
{
    static const struct gateway_events events = { on_ended, on_counters };
    struct run *run = arg;

    gateway_watch(run->gateway, on ? &events : NULL, run);
}

/* Sockets that the file names must work; the default one is used where it can be. Opened before anything is touched, and asked
 * by nobody before the loop runs, when the gateway is there. */
static int open_api(struct run *run)
{
    const struct config *c = &run->config;
    bool named = c->api_unix_set || c->api.listen.port != 0;
    struct api_options opt = { .unix_path = c->api_unix_set ? c->api_unix : API_PATH_DEFAULT,
                               .listen = c->api.listen,
                               .secret = c->api.secret,
                               .metrics = c->api.metrics,
                               .arg = run,
                               .on_status = on_status,
                               .on_pick = on_pick,
                               .on_end_flow = on_end_flow,
                               .on_reload = on_reload,
                               .on_watch = on_watch };
    struct err err = { "" };
    int r = 0;

    if (opt.unix_path == NULL && opt.listen.port == 0)
        return EXIT_FINE; /* api.unix: none */
    if (!c->api_unix_set && mkdir("/run/culvert", 0755) != 0 && errno != EEXIST)
        r = err_set(&err, -errno, "/run/culvert cannot be made: %s", strerror(errno));
    if (r == 0 && (r = api_open(&opt, run->loop, &run->api, &err)) == 0)
        return EXIT_FINE;
    if (named)
        return complain(run->alone && r != -ENOMEM ? EXIT_USAGE : EXIT_FAILED, "%s", err.text);
    log_info("no control socket: %s", err.text);
    return EXIT_FINE;
}

/* ---- starting ---- */

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

/* Is it one of us who has the device or the routing table? Then nothing is badly chosen: one is enough (faults.md X4). */
static bool another_runs(const struct run *run)
{
    struct nl_link owner;

    return !run->alone || (run->config.route.auto_route && route_owner(run->netlink, 0, &owner) == 0);
}

/* A gateway that was killed may have left the machine asking it for names (faults.md X2). */
static void restore_dead_ones_dns(const struct run *run)
{
    struct nl_link owner;

    if (run->alone && route_owner(run->netlink, 0, &owner) != 0 && route_dns_restore(ROUTE_DNS_FILE) == 0)
        log_info("%s is back, which an earlier culvert had replaced", ROUTE_DNS_FILE);
}

static int start_gateway(struct run *run)
{
    struct gateway_setup setup = { .config = &run->config,
                                   .loop = run->loop,
                                   .netlink = run->netlink,
                                   .helper = run->stages.helper,
                                   .before_threads = stages_confine,
                                   .before_arg = &run->stages,
                                   .keeps_state = true,
                                   .on_fatal = on_fatal,
                                   .arg = run };
    struct err err = { "" };
    int r;

    restore_dead_ones_dns(run);
    if (setup.helper != NULL) {
        run->config.tun.attach = helper_attach;
        run->config.tun.attach_arg = setup.helper;
    }
    r = gateway_start(&setup, &run->gateway, &err);

    if (r == -EBUSY && another_runs(run))
        return complain(EXIT_FAILED, "another culvert is running: %s", err.text);
    return r == 0 ? EXIT_FINE : complain(status_of(r), "%s", err.text);
}

static int begin_stages(struct run *run)
{
    bool named = run->config.api_unix_set;
    struct err err = { "" };
    int r;

    run->stages = (struct stages){ .config = &run->config,
                                   .config_path = load_path(run->cli),
                                   .api_path = named ? run->config.api_unix : API_PATH_DEFAULT,
                                   .netlink = run->netlink,
                                   .loop = run->loop,
                                   .on_fatal = on_fatal,
                                   .arg = run };
    r = stages_begin(&run->stages, &err);
    return r == 0 ? EXIT_FINE : complain(status_of(r), "%s", err.text);
}

static int prepare(struct run *run)
{
    struct err err = { "" };
    int r;

    if ((r = process_wait_for_entropy(getrandom, ENTROPY_WAIT_MS)) != 0)
        return complain(EXIT_FAILED, "no random numbers from the kernel: %s", strerror(-r));
    crash_banner();
    process_raise_fd_limit();
    if ((r = loop_new(&run->loop)) != 0)
        return complain(EXIT_FAILED, "no event loop: %s", strerror(-r));
    signal(SIGPIPE, SIG_IGN);
    loop_on_signal(run->loop, SIGTERM, on_end_signal, run);
    loop_on_signal(run->loop, SIGINT, on_end_signal, run);
    loop_on_signal(run->loop, SIGHUP, on_reload_signal, run);
    if (netlink_open(&run->netlink, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    return EXIT_FINE;
}

static void finish(struct run *run)
{
    process_notify("STOPPING=1");
    confirm_end(&run->confirm);
    api_close(run->api);
    gateway_stop(run->gateway);
    stages_end(&run->stages);
    netlink_close(run->netlink);
    loop_free(run->loop);
}

static void on_unconfirmed(void *arg)
{
    struct run *run = arg;

    gateway_forget_on_exit(run->gateway);
    run->status = EXIT_FAILED;
    loop_stop(run->loop);
}

static int serve_until_signal(struct run *run)
{
    char line[160];
    int r;

    if (run->confirm_us != 0)
        confirm_start(&run->confirm, run->loop, run->confirm_us, on_unconfirmed, run);
    fprintf(stderr, "%s\n", gateway_ready_line(run->gateway, line, sizeof(line)));
    process_notify("READY=1");
    if ((r = loop_run(run->loop)) != 0)
        return complain(EXIT_FAILED, "the event loop broke: %s", strerror(-r));
    return run->status;
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

static int run_with(struct run *run)
{
    int status = prepare(run);

    run->alone = run->config.tun.name[0] == '\0' || process_claim(run->config.tun.name);
    if (status == EXIT_FINE && (status = open_api(run)) == EXIT_FINE &&
        (status = begin_stages(run)) == EXIT_FINE && (status = start_gateway(run)) == EXIT_FINE)
        status = serve_until_signal(run);
    finish(run);
    return status;
}

int cmd_run(const struct cli *cli)
{
    struct run run = { .cli = cli, .status = EXIT_FINE };
    struct err err = { "" };
    struct config *loaded;
    int status, r;

    if (cli->confirm != NULL && confirm_parse(cli->confirm, &run.confirm_us, &err) != 0)
        return complain(EXIT_USAGE, "%s", err.text);
    status = load_config(cli, &loaded);

    if (status != EXIT_FINE)
        return status;
    run.config = *loaded;
    if (cli->tun != NULL && strlen(cli->tun) >= sizeof(run.config.tun.name))
        status = complain(EXIT_USAGE, "--tun: \"%.40s\" is too long for an interface; 15 bytes are the most",
                          cli->tun);
    else if (cli->tun != NULL)
        snprintf(run.config.tun.name, sizeof(run.config.tun.name), "%s", cli->tun);
    if (status == EXIT_FINE && (r = log_init(&run.config.log)) != 0)
        status = complain(EXIT_USAGE, "log.output: %s: %s", run.config.log.output, strerror(-r));
    if (status == EXIT_FINE)
        status = cli->dry_run ? print_plan(&run.config) : run_with(&run);
    config_free(loaded);
    return status;
}
