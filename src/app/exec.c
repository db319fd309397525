/* exec.c - `culvert exec`: one command in a network of its own, whose only way out is our TUN.
 *
 * How it works. The command's process is a fork of ours in namespaces of its own (cell.h); the gateway runs here, in the host's
 * network, on the TUN's queues that came back. Host names are asked at an address of the TUN, from where the gateway sends the
 * questions through the exit to the host's name server.
 *
 * The terminal belongs to the command: it stays in our process group, so the keyboard's signals reach it without us, and we
 * take none of them. Signals that a process sent to us go on to the command. When it stops, we stop, so that a shell sees its
 * job stopped; when we are continued, it is. Its exit status is ours (faults.md Q3, Q6). */
#include "commands.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cell.h"
#include "confine.h"
#include "exec_builtin.h"
#include "gateway.h"
#include "guard.h"
#include "helper.h"
#include "names.h"
#include "privilege.h"
#include "process.h"
#include "stages.h"

struct exec {
    struct config config; /* the loaded one with our changes; shares its strings */
    char *const *words;
    struct ip_addr dns_address[2];
    struct ip_port dns_server;
    struct cell cell;
    struct guard guard;
    struct loop *loop;
    struct gateway *gateway;
    const char *config_path; /* NULL: --proxy or --builtin */
    struct confine *confine;
    /* Looks at the command's processes, which the confined gateway may not; NULL: no rule asks. */
    struct helper *helper;
    struct loop_io signal_io;
    sigset_t old_mask; /* what the command gets back */
    bool ended;        /* the command, and `status` is its */
    int status;
};

/* ---- the configuration ---- */

/* The TUN is in another namespace: nothing here is routed into it, no socket of ours can loop, and a mark would need a
 * privilege. What is logged may not disturb the command's terminal. */
static void adapt_config(struct config *c)
{
    bool terminal =
        c->log.output == NULL || strcmp(c->log.output, "stderr") == 0 || strcmp(c->log.output, "stdout") == 0;

    c->tun.fd = -1;
    c->tun.more_fds_count = 0;
    snprintf(c->tun.name, sizeof(c->tun.name), "tun0");
    c->route = (struct config_route){ .auto_route = false };
    if (!terminal)
        return;
    c->log.output = "stderr";
    if (c->log.level > LOG_WARNING)
        c->log.level = LOG_WARNING;
}

static int choose_dns(const struct cli *cli, struct exec *x)
{
    if (cli->dns != NULL) {
        x->dns_server.port = 53;
        if (ip_parse(cli->dns, &x->dns_server.addr) != 0 &&
            config_parse_listen(cli->dns, &x->dns_server) != 0)
            return complain(EXIT_USAGE, "--dns: \"%.60s\" is not an address, such as 192.0.2.53", cli->dns);
    } else if (names_find_server(names_host_paths, &x->dns_server) != 0) {
        return complain(
            EXIT_FAILED,
            "this machine has no name server that is not on loopback; name one that the proxy reaches with "
            "--dns ADDR");
    }
    gateway_stack_addresses(&x->config.tun, x->dns_address, NULL);
    if (ip_is_none(&x->dns_address[0]) && ip_is_none(&x->dns_address[1]))
        return complain(EXIT_USAGE,
                        "tun.address leaves no address for name lookups; use a prefix of /30 or shorter");
    return EXIT_FINE;
}

/* ---- the command ---- */

static void on_fatal(void *arg, const char *why)
{
    struct exec *x = arg;

    log_error("%s; the command is ended", why);
    x->status = EXIT_FAILED;
    loop_stop(x->loop);
}

/* Is there a file of that name, executable or not? execvp(3) says EACCES also when it was a folder of PATH that it could not
 * search, and then the name was simply not found, as a shell would say. */
static bool is_somewhere(const char *name)
{
    const char *path = getenv("PATH");
    char file[PATH_MAX];

    if (strchr(name, '/') != NULL)
        return access(name, F_OK) == 0;
    while (path != NULL && *path != '\0') {
        size_t len = strcspn(path, ":");

        snprintf(file, sizeof(file), "%.*s/%s", (int)len, path, name);
        if (access(file, F_OK) == 0)
            return true;
        path += len + (path[len] == ':');
    }
    return false;
}

static int become_command(void *arg) /* [child] */
{
    struct exec *x = arg;
    int r;

    sigprocmask(SIG_SETMASK, &x->old_mask, NULL);
    execvp(x->words[0], x->words);
    r = errno;
    if (r == EACCES && !is_somewhere(x->words[0]))
        r = ENOENT;
    complain(0, "%s: %s", x->words[0], r == ENOENT ? "command not found" : strerror(r));
    fflush(NULL);
    _exit(r == ENOENT || r == ENOTDIR ? 127 : 126);
}

static void reap(struct exec *x)
{
    int status;

    while (!x->ended && waitpid(x->cell.pid, &status, WNOHANG | WUNTRACED) == x->cell.pid) {
        if (WIFSTOPPED(status)) {
            raise(SIGSTOP);
            kill(x->cell.pid, SIGCONT);
            continue;
        }
        x->ended = true;
        x->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        x->cell.pid = 0;
        loop_stop(x->loop);
    }
}

/* Without its guard, a kill -9 of ours would leave children of the command behind; so the end of one is the end of all. */
static void look_after_guard(struct exec *x)
{
    if (x->guard.pid <= 0 || waitpid(x->guard.pid, NULL, WNOHANG) != x->guard.pid)
        return;
    x->guard.pid = 0;
    on_fatal(x, "the guard process was killed");
}

static void on_signals(struct loop_io *io, unsigned events)
{
    struct exec *x = CONTAINER_OF(io, struct exec, signal_io);
    struct signalfd_siginfo si;

    (void)events;
    while (read(loop_io_fd(io), &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        if (si.ssi_signo == SIGCHLD) {
            reap(x);
            look_after_guard(x);
        } else if (si.ssi_code <= 0 &&
                   !x->ended) /* from a process; the terminal's reached the command by itself */
            kill(x->cell.pid, (int)si.ssi_signo);
    }
}

/* Before any thread exists, so that all of them inherit the mask, and before the fork, so that no signal is lost. */
static void block_signals(struct exec *x, sigset_t *blocked)
{
    static const int ours[] = { SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
                                SIGTSTP, SIGTTIN, SIGTTOU, SIGCHLD, SIGALRM };

    sigemptyset(blocked);
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        sigaddset(blocked, ours[i]);
    sigprocmask(SIG_BLOCK, blocked, &x->old_mask);
}

/* ---- the gateway ---- */

static int start_cell(struct exec *x)
{
    char resolv_conf[NAMES_FILE_MAX], nsswitch[NAMES_FILE_MAX], host[NAMES_FILE_MAX];
    struct cell_options opt = {
        .tun = &x->config.tun,
        .queues = x->config.workers != 0 ? x->config.workers : process_usable_cores(),
        .resolv_conf = resolv_conf,
        .nsswitch = nsswitch,
        .run = become_command,
        .arg = x,
    };
    struct err err = { "" };

    names_read_file("/etc/resolv.conf", host, sizeof(host));
    names_resolv_conf(x->dns_address, &x->dns_server, host, resolv_conf);
    names_read_file("/etc/nsswitch.conf", host, sizeof(host));
    names_nsswitch(host, nsswitch);
    if (cell_start(&opt, &x->cell, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    guard_start(&x->guard, &x->cell);
    return EXIT_FINE;
}

/* The command and its guard live already, and keep what they had; what is given up is the gateway's, which reads what proxies send. */
static int give_up_privileges(void *arg, const char *tun_name, struct route *route, struct err *err)
{
    struct exec *x = arg;
    const struct confine_options files = { .config = &x->config,
                                           .config_path = x->config_path,
                                           .child = true };
    int r;

    (void)tun_name;
    (void)route;
    if (x->config.sandbox == CONFIG_SANDBOX_OFF)
        return 0;
    r = privilege_keep(stages_kept(&x->config), err);
    return r != 0 ? r : confine_now(&files, x->loop, &x->confine, err);
}

static int start_gateway(struct exec *x)
{
    struct gateway_setup setup = {
        .config = &x->config,
        .loop = x->loop,
        .tun_fds = x->cell.fds,
        .tun_fd_count = x->cell.fd_count,
        .dns_address = { x->dns_address[0], x->dns_address[1] },
        .dns_server = x->dns_server,
        .helper = x->helper,
        .diag = x->cell.diag,
        .before_threads = give_up_privileges,
        .before_arg = x,
        .is_process = true,
        .on_fatal = on_fatal,
        .arg = x,
    };
    struct err err = { "" };

    x->config.tun.mtu = x->cell.mtu;
    x->cell.diag = NULL; /* the gateway's from here on, as the queues */
    x->cell.fd_count = 0;
    if (gateway_start(&setup, &x->gateway, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    return EXIT_FINE;
}

static void on_helper_dead(void *arg)
{
    on_fatal(arg, "the helper process was killed");
}

/* Rules with PROCESS-* alone need it. Before there is a thread, and before we give up what we have. */
static int start_helper(struct exec *x)
{
    struct helper_options opt = { .sandbox = x->config.sandbox != CONFIG_SANDBOX_OFF };
    struct err err = { "" };

    if ((rules_needs(x->config.rules) & RULE_NEEDS_PROCESS) == 0)
        return EXIT_FINE;
    if (helper_start(&opt, &x->helper, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    helper_watch(x->helper, x->loop, on_helper_dead, x);
    return EXIT_FINE;
}

static int run_until_end(struct exec *x, const sigset_t *signals)
{
    int fd = signalfd(-1, signals, SFD_NONBLOCK | SFD_CLOEXEC);
    int r;

    if (fd < 0)
        return complain(EXIT_FAILED, "no signal descriptor: %s", strerror(errno));
    loop_io_start(x->loop, &x->signal_io, fd, LOOP_READ, on_signals);
    if ((r = cell_go(&x->cell)) != 0)
        r = complain(EXIT_FAILED, "the process for the command died: %s", strerror(-r));
    else if ((r = loop_run(x->loop)) != 0)
        r = complain(EXIT_FAILED, "the event loop broke: %s", strerror(-r));
    else
        r = x->status;
    loop_io_stop(x->loop, &x->signal_io);
    close(fd);
    return r;
}

static int run(struct exec *x, struct builtin *builtin)
{
    sigset_t signals;
    int status, r;

    block_signals(x, &signals);
    if ((status = start_cell(x)) != EXIT_FINE)
        return status;
    signal(SIGPIPE, SIG_IGN);
    process_raise_fd_limit(); /* ours only: the command keeps the limits that it was given */
    if ((r = loop_new(&x->loop)) != 0)
        return complain(EXIT_FAILED, "no event loop: %s", strerror(-r));
    if ((status = start_helper(x)) != EXIT_FINE || (status = start_gateway(x)) != EXIT_FINE ||
        (status = builtin_start(builtin)) != EXIT_FINE)
        return status; /* in this order: a thread that is there already would keep what it has */
    return run_until_end(x, &signals);
}

static void finish(struct exec *x)
{
    gateway_stop(x->gateway);
    helper_end(x->helper);
    cell_end(&x->cell);
    guard_dismiss(&x->guard);
    confine_end(x->confine, x->loop);
    loop_free(x->loop);
}

int cmd_exec(const struct cli *cli)
{
    struct exec x = { .words = cli->words, .cell = { .sock = -1 }, .status = EXIT_FAILED };
    struct builtin builtin = { 0 };
    struct config *loaded = NULL;
    struct err err = { "" };
    int status, r;

    if (cell_check(&err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    x.config_path = cli->builtin ? NULL : load_path(cli);
    status = cli->builtin ? builtin_new(&builtin, &loaded) : load_config(cli, &loaded);
    if (status == EXIT_FINE) {
        x.config = *loaded;
        adapt_config(&x.config);
        if ((r = log_init(&x.config.log)) != 0)
            status = complain(EXIT_USAGE, "log.output: %s: %s", x.config.log.output, strerror(-r));
    }
    if (status == EXIT_FINE)
        status = choose_dns(cli, &x);
    if (status == EXIT_FINE)
        status = run(&x, &builtin);
    finish(&x);
    builtin_free(&builtin);
    config_free(loaded);
    return status;
}
