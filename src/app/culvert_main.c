/* culvert_main.c - the main thread of one gateway: everything is opened in order, the loop runs, everything is undone in reverse. */
#include "culvert_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "culvert/route.h"
#include "process.h"

static void on_fatal(void *arg, const char *text)
{
    struct culvert *c = arg;

    log_error("%s", text);
    c->result = err_set(&c->why, -EIO, "%s", text);
    culvert_stop(c);
}

/* ---- opening ---- */

static void set_loop(struct culvert *c, struct loop *l)
{
    pthread_mutex_lock(&c->lock);
    c->loop = l;
    if (l != NULL && c->stop)
        loop_stop(l);
    pthread_mutex_unlock(&c->lock);
}

static int prepare(struct culvert *c, struct err *err)
{
    struct loop *l;
    int r;

    if ((r = process_wait_for_entropy(getrandom, ENTROPY_WAIT_MS)) != 0)
        return err_set(err, -EIO, "no random numbers from the kernel: %s", strerror(-r));
    if ((r = loop_new(&l)) != 0)
        return err_set(err, -ENOMEM, "no event loop: %s", strerror(-r));
    set_loop(c, l);
    if (c->hooks.on_loop != NULL)
        c->hooks.on_loop(c->hooks.arg, l);
    if ((c->opt.flags & CULVERT_TUN_ELSEWHERE) != 0)
        return 0;
    return netlink_open(&c->netlink, err) == 0 ? 0 : -EIO; /* never the configuration's fault */
}

static void claim_name(struct culvert *c)
{
    c->claim = c->config.tun.name[0] == '\0' ? -ENOENT : process_claim(c->config.tun.name);
    c->alone = c->claim != -EADDRINUSE;
}

static int begin_stages(struct culvert *c, struct err *err)
{
    c->stages = (struct stages){ .config = &c->config,
                                 .config_path = c->opt.config_file,
                                 .api_path = c->config.api_unix_set ? c->config.api_unix : CULVERT_API_PATH,
                                 .netlink = c->netlink,
                                 .loop = c->loop,
                                 .on_fatal = on_fatal,
                                 .arg = c };
    return (c->opt.flags & CULVERT_DROP_PRIVILEGES) != 0 ? stages_begin(&c->stages, err) : 0;
}

/* Is it one of us who has the device or the routing table? Then nothing is badly chosen: one is enough (faults.md X4). */
static bool another_runs(const struct culvert *c)
{
    struct nl_link owner;

    return !c->alone || (c->config.route.auto_route && route_owner(c->netlink, 0, &owner) == 0);
}

/* A gateway that was killed may have left the machine asking it for names (faults.md X2). */
static void restore_dead_ones_dns(const struct culvert *c)
{
    struct nl_link owner;

    if (c->netlink != NULL && c->alone && route_owner(c->netlink, 0, &owner) != 0 &&
        route_dns_restore(ROUTE_DNS_FILE) == 0)
        log_info("%s is back, which an earlier culvert had replaced", ROUTE_DNS_FILE);
}

static int start_gateway(struct culvert *c, struct err *err)
{
    struct gateway_setup setup = { .config = &c->config,
                                   .loop = c->loop,
                                   .netlink = c->netlink,
                                   .tun_fds = c->tun_fds,
                                   .tun_fd_count = c->tun_fd_count,
                                   .helper = c->stages.helper,
                                   .keeps_state = (c->opt.flags & CULVERT_KEEP_STATE) != 0,
                                   .is_process = c->hooks.is_process,
                                   .on_fatal = on_fatal,
                                   .arg = c };
    struct err cause = { "" };
    int r;

    if ((c->opt.flags & CULVERT_DROP_PRIVILEGES) != 0) {
        setup.before_threads = stages_confine;
        setup.before_arg = &c->stages;
    }
    if (setup.helper != NULL) {
        c->config.tun.attach = helper_attach;
        c->config.tun.attach_arg = setup.helper;
    }
    restore_dead_ones_dns(c);
    c->tun_fd_count = 0; /* the gateway's from here on */
    r = gateway_start(&setup, &c->gateway, &cause);
    if (r == -EBUSY && another_runs(c))
        return err_set(err, -EALREADY, "another culvert is running: %s", cause.text);
    return r == 0 ? 0 : err_set(err, r, "%s", cause.text);
}

static int open_all(struct culvert *c, struct err *err)
{
    int r = prepare(c, err);

    claim_name(c);
    if (r != 0)
        return r;
    if ((c->opt.flags & CULVERT_CONTROL_SOCKET) != 0 && (r = culvert_open_control(c, err)) != 0)
        return r;
    r = begin_stages(c, err);
    return r == 0 ? start_gateway(c, err) : r;
}

/* ---- the end ---- */

static void undo_all(struct culvert *c)
{
    struct loop *l = c->loop;

    if (c->hooks.on_ending != NULL)
        c->hooks.on_ending(c->hooks.arg);
    set_loop(c, NULL);
    api_close(c->api);
    gateway_stop(c->gateway);
    c->gateway = NULL;
    stages_end(&c->stages);
    netlink_close(c->netlink);
    loop_free(l); /* what was still asked finds no gateway */
    culvert_end_calls(c);
    if (c->claim >= 0)
        close(c->claim);
}

static void tell_end(struct culvert *c)
{
    if (c->opt.on_end != NULL)
        c->opt.on_end(c->opt.arg, c->result, c->why.text);
}

int culvert_main(struct culvert *c, struct err *err)
{
    bool ran = false;
    char line[160];
    int r = open_all(c, err);

    if (r == 0) {
        gateway_ready_line(c->gateway, line, sizeof(line));
        if (c->hooks.on_ready != NULL)
            c->hooks.on_ready(c->hooks.arg, line);
        else
            log_info("%s", line);
        ran = true;
        culvert_set_phase(c, CULVERT_RUNNING);
        if ((r = loop_run(c->loop)) != 0)
            err_set(err, r, "the event loop broke: %s", strerror(-r));
        else if ((r = c->result) != 0)
            *err = c->why;
    }
    undo_all(c);
    c->result = r;
    c->why = *err;
    if (ran)
        tell_end(c);
    culvert_set_phase(c, CULVERT_ENDED);
    return r;
}
