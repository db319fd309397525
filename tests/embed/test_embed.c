/* test_embed.c - libculvert-gateway from the outside: this program is linked to it and to nothing else of ours. Real packets, in a network
 * namespace of its own; the proxies behind the gateways are rig.h's. */
#include "culvert.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include "netns.h"
#include "rig.h"
#include "skip.h"

enum { BYTES = 1 << 20, WHY = 512, WAIT_MS = 20000 };

static struct rig_proxy proxy[2]; /* one for each gateway; the program's, not the library's */

struct side { /* one gateway, and what it said */
    char config[768];
    struct culvert *gateway;
    atomic_uint lines, ends;
    atomic_uint elsewhere; /* lines that say why a key is not obeyed */
    int ended_with;
    int call_from_log; /* what culvert_wait() said in there */
};

static void on_log(void *arg, enum culvert_level level, const char *line)
{
    struct side *s = arg;

    assert_true(level <= CULVERT_LOG_DEBUG && strchr(line, '\n') == NULL);
    if (s->gateway != NULL)
        s->call_from_log = culvert_wait(s->gateway, 0, NULL, 0);
    atomic_fetch_add(&s->lines, 1);
    if (strstr(line, "auto-route is not obeyed: the TUN is elsewhere") != NULL)
        atomic_fetch_add(&s->elsewhere, 1);
}

static void on_end(void *arg, int err, const char *why)
{
    struct side *s = arg;

    assert_int_equal(err == 0, why[0] == '\0');
    s->ended_with = err;
    atomic_fetch_add(&s->ends, 1);
}

static struct culvert_options options(struct side *s)
{
    return (struct culvert_options){
        .size = sizeof(struct culvert_options),
        .config_text = s->config,
        .on_log = on_log,
        .on_end = on_end,
        .arg = s,
    };
}

/* Network 198.18.@i.0/24 leads to proxy @i by a device of the library's. */
static void write_config(struct side *s, int i, const char *rule)
{
    snprintf(s->config, sizeof(s->config),
             "runtime: {workers: 2}\n"
             "tun: {name: embed%d, address: [198.18.%d.1/24], auto-route: false}\n"
             "proxies: [{name: p, type: socks5, server: 127.0.0.1, port: %u}]\n"
             "rules: ['%s']\n",
             i, i, (unsigned)proxy[i].port, rule);
}

static void start_with(struct side *s, const struct culvert_options *opt)
{
    char why[WHY];

    if (culvert_new(opt, &s->gateway, why, sizeof(why)) != 0 ||
        culvert_start(s->gateway, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    assert_string_equal(why, "");
}

static void start(struct side *s, int i)
{
    struct culvert_options opt = options(s);

    write_config(s, i, "MATCH,p");
    start_with(s, &opt);
}

static void stop(struct side *s)
{
    char why[WHY];

    culvert_stop(s->gateway);
    assert_int_equal(culvert_wait(s->gateway, WAIT_MS, why, sizeof(why)), 0);
    assert_int_equal(atomic_load(&s->ends), 1);
    assert_int_equal(s->ended_with, 0);
    culvert_free(s->gateway);
    s->gateway = NULL;
}

static int connect_through(int i)
{
    char address[32], letter = '?';
    int fd;

    snprintf(address, sizeof(address), "198.18.%d.9", i);
    fd = rig_connect(address, &letter);
    if (fd < 0)
        fail_msg("%s: %s", address, strerror(-fd));
    assert_int_equal(letter, proxy[i].letter);
    return fd;
}

static void relay(int i, size_t bytes)
{
    int fd = connect_through(i);

    assert_true(rig_echo(fd, bytes));
    close(fd);
}

/* ---- tests ---- */

static void two_gateways_at_once_relay_each_its_own_traffic(void **state)
{
    struct side side[2] = { 0 };
    struct culvert_status status = { .size = sizeof(status) };
    uint64_t value = 0;
    int fd[2];

    (void)state;
    for (int i = 0; i < 2; i++)
        start(&side[i], i);
    for (int i = 0; i < 2; i++) {
        fd[i] = connect_through(i);
        assert_true(rig_echo(fd[i], BYTES));
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(culvert_status(side[i].gateway, &status), 0);
        assert_int_equal(status.workers, 2);
        assert_int_equal(status.tcp_flows, 1);
        assert_true(status.bytes_in > BYTES && status.bytes_out > BYTES && status.packets_in > 0);
        assert_int_equal(status.tun[5], '0' + i);
        assert_int_equal(culvert_counter(side[i].gateway, "tun.rx_bytes", &value), 0);
        assert_true(value >= status.bytes_in);
        assert_int_equal(culvert_counter(side[i].gateway, "no.such", &value), -ENOENT);
        assert_true(atomic_load(&side[i].lines) > 0);
    }
    stop(&side[0]); /* the other one is not touched by it */
    assert_true(rig_echo(fd[1], BYTES));
    relay(1, 1000);
    stop(&side[1]);
    for (int i = 0; i < 2; i++)
        close(fd[i]);
}

static bool has_thread(const char *name)
{
    char path[64], text[32] = "";
    DIR *dir = opendir("/proc/self/task");
    struct dirent *e;
    bool found = false;

    while (!found && (e = readdir(dir)) != NULL) {
        FILE *f;

        snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", e->d_name);
        if ((f = fopen(path, "r")) == NULL)
            continue;
        found = fgets(text, sizeof(text), f) != NULL && strncmp(text, name, strlen(name)) == 0;
        fclose(f);
    }
    closedir(dir);
    return found;
}

static void one_after_another_leaves_no_thread_and_no_descriptor(void **state)
{
    unsigned fds = 0;

    (void)state;
    for (int round = 0; round < 4; round++) {
        struct side s = { 0 };

        start(&s, 0);
        relay(0, 10000);
        assert_true(has_thread("worker-1") && has_thread("culvert"));
        stop(&s);
        assert_false(has_thread("worker-") || has_thread("culvert"));
        rig_wait_for_no_guest(); /* their descriptors are closed when they have seen the end */
        if (round == 0)
            fds = rig_count("/proc/self/fd");
    }
    assert_int_equal(rig_count("/proc/self/fd"), fds);
}

static void a_queue_that_is_handed_over_stays_the_programs(void **state)
{
    int tun = rig_tun("mine", "198.18.0.1");

    (void)state;
    assert_true(tun >= 0);
    for (int elsewhere = 0; elsewhere < 2; elsewhere++) { /* with netlink, and without */
        struct side s = { 0 };
        struct culvert_options opt = options(&s);

        write_config(&s, 0, "MATCH,p");
        opt.tun_fds = &tun;
        opt.tun_fd_count = 1;
        opt.flags = elsewhere ? CULVERT_TUN_ELSEWHERE : 0;
        start_with(&s, &opt);
        relay(0, BYTES);
        stop(&s);
        assert_true(fcntl(tun, F_GETFD) >= 0);
    }
    close(tun);
}

static void a_route_that_is_asked_for_in_vain_is_said(void **state)
{
    int tun = rig_tun("mine", "198.18.0.1");

    (void)state;
    assert_true(tun >= 0);
    for (int wanted = 0; wanted < 2; wanted++) {
        struct side s = { 0 };
        struct culvert_options opt = options(&s);
        char why[WHY];

        opt.config_text = wanted ? "tun: {auto-route: true}\nrules: ['MATCH,DIRECT']\n"
                                 : "tun: {auto-route: false}\nrules: ['MATCH,DIRECT']\n";
        opt.tun_fds = &tun;
        opt.tun_fd_count = 1;
        opt.flags = CULVERT_TUN_ELSEWHERE;
        assert_int_equal(culvert_new(&opt, &s.gateway, why, sizeof(why)), 0);
        assert_int_equal(s.elsewhere, wanted);
        culvert_free(s.gateway);
    }
    close(tun);
}

/* A program that was built with a later header, in which the structs have grown. */
static void larger_structs_are_taken_as_long_as_nothing_unknown_is_set(void **state)
{
    struct later {
        union {
            struct culvert_options options;
            struct culvert_status status;
        };
        uint64_t more[2];
    } later = { .options = { .config_text = "rules: ['MATCH,DIRECT']\n" } };
    struct culvert *gateway = NULL;
    size_t sizes[] = { 0, sizeof(struct culvert_options) - 1, 1 << 20 };
    char why[WHY];

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        later.options.size = sizes[i];
        assert_int_equal(culvert_new(&later.options, &gateway, why, sizeof(why)), -EINVAL);
        assert_non_null(strstr(why, "culvert_options.size"));
    }
    later.options.size = sizeof(later);
    assert_int_equal(culvert_new(&later.options, &gateway, why, sizeof(why)), 0);
    culvert_free(gateway);
    later.more[1] = 1;
    assert_int_equal(culvert_new(&later.options, &gateway, why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "something set that this library does not know"));
}

static void a_larger_status_is_filled_as_far_as_it_is_known(void **state)
{
    struct {
        struct culvert_status status;
        uint64_t more;
    } later = { .status.size = sizeof(later), .more = 7 };
    struct side s = { 0 };

    (void)state;
    start(&s, 0);
    assert_int_equal(culvert_status(s.gateway, &later.status), 0);
    assert_int_equal(later.status.workers, 2);
    assert_int_equal(later.status.size, sizeof(later));
    assert_int_equal(later.more, 0);
    stop(&s);
}

static void a_reload_decides_new_flows_and_a_wrong_one_changes_nothing(void **state)
{
    struct side s = { 0 };
    char why[WHY], letter;
    int live;

    (void)state;
    start(&s, 0);
    live = connect_through(0);
    assert_int_equal(
        culvert_reload(s.gateway, "rules: [MATCH]\nnonsense: 1\n", CULVERT_NO_DRAIN, why, sizeof(why)),
        -EINVAL);
    assert_non_null(strstr(why, "config_text:1:"));
    assert_non_null(strstr(why, "\nconfig_text:2:1: unknown key \"nonsense\""));
    relay(0, 1000);
    write_config(&s, 0, "MATCH,REJECT");
    assert_int_equal(culvert_reload(s.gateway, s.config, CULVERT_NO_DRAIN, why, sizeof(why)), 0);
    assert_string_equal(why, "");
    assert_int_equal(rig_connect("198.18.0.9", &letter), -ECONNREFUSED);
    assert_true(rig_echo(live, 100000));
    assert_int_equal(culvert_reload(s.gateway, NULL, CULVERT_NO_DRAIN, NULL, 0),
                     0); /* the last that was taken */
    assert_int_equal(rig_connect("198.18.0.9", &letter), -ECONNREFUSED);
    write_config(&s, 0, "MATCH,p");
    assert_int_equal(culvert_reload(s.gateway, s.config, CULVERT_NO_DRAIN, NULL, 0), 0);
    relay(0, 1000);
    close(live);
    stop(&s);
}

static const struct {
    const char *config;
    unsigned flags;
    int r;
    const char *says;
} wrong[] = {
    { "tun: {mtu: 9}\nrules: ['MATCH,DIRECT']\n", 0, -EINVAL, "config_text:1:12: tun.mtu: " },
    { "a: b: c\n", 0, -EINVAL, "config_text:1:" },
    { NULL, 0, -EINVAL, "exactly one of config_file, config_text and proxy_url" },
    { "rules: ['MATCH,DIRECT']\n", CULVERT_TUN_ELSEWHERE, -EINVAL, "needs tun_fds" },
};

static void a_mistake_is_a_sentence_in_the_callers_buffer(void **state)
{
    struct culvert *gateway = NULL;
    char why[WHY], tiny[8];

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct culvert_options opt = { .size = sizeof(opt),
                                       .config_text = wrong[i].config,
                                       .flags = wrong[i].flags };

        assert_int_equal(culvert_new(&opt, &gateway, why, sizeof(why)), wrong[i].r);
        if (strstr(why, wrong[i].says) == NULL)
            fail_msg("row %zu says: %s", i, why);
        assert_null(gateway);
        assert_int_equal(culvert_new(&opt, &gateway, tiny, sizeof(tiny)), wrong[i].r);
        assert_true(strlen(tiny) < sizeof(tiny));
        assert_int_equal(culvert_new(&opt, &gateway, NULL, 0), wrong[i].r);
    }
}

static void what_cannot_be_had_fails_the_start_and_leaves_nothing(void **state)
{
    struct side s = { 0 };
    struct culvert_options opt = options(&s);
    int tun = rig_tun("embed0", NULL); /* has the name that the gateway wants */
    char why[WHY];

    (void)state;
    assert_true(tun >= 0);
    write_config(&s, 0, "MATCH,p");
    assert_int_equal(culvert_new(&opt, &s.gateway, why, sizeof(why)), 0);
    assert_int_equal(
        culvert_status(s.gateway, &(struct culvert_status){ .size = sizeof(struct culvert_status) }), -ESRCH);
    assert_int_equal(culvert_wait(s.gateway, 0, why, sizeof(why)), -ESRCH);
    assert_int_equal(culvert_start(s.gateway, why, sizeof(why)), -EBUSY);
    assert_non_null(strstr(why, "embed0"));
    assert_int_equal(culvert_wait(s.gateway, 0, why, sizeof(why)), -EBUSY);
    assert_int_equal(culvert_start(s.gateway, why, sizeof(why)), -EALREADY);
    assert_int_equal(atomic_load(&s.ends), 0);
    culvert_free(s.gateway);
    close(tun);
}

/* The first has the routes of this namespace, so the second opens its queue and then fails; its descriptors are closed once. */
static void a_start_that_fails_late_closes_nothing_of_the_programs(void **state)
{
    struct side first = { 0 }, second = { 0 };
    struct culvert_options opt = options(&first);
    int tun = rig_tun("mine", "198.18.1.1"), fd[2];
    char why[WHY];

    (void)state;
    write_config(&first, 0, "MATCH,p");
    memcpy(strstr(first.config, "false"), "true ", 5);
    start_with(&first, &opt);
    opt = options(&second);
    opt.tun_fds = &tun;
    opt.tun_fd_count = 1;
    write_config(&second, 1, "MATCH,p");
    memcpy(strstr(second.config, "false"), "true ", 5);
    assert_int_equal(culvert_new(&opt, &second.gateway, why, sizeof(why)), 0);
    assert_true(culvert_start(second.gateway, why, sizeof(why)) < 0);
    assert_non_null(strstr(why, "embed0"));
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0); /* has the numbers that are free now */
    culvert_free(second.gateway);
    assert_true(fcntl(fd[0], F_GETFD) >= 0 && fcntl(fd[1], F_GETFD) >= 0 && fcntl(tun, F_GETFD) >= 0);
    stop(&first);
    close(fd[0]);
    close(fd[1]);
    close(tun);
}

static void calls_in_the_wrong_place_are_refused(void **state)
{
    struct side s = { 0 };
    struct culvert_options opt = options(&s);
    char why[WHY];

    (void)state;
    start(&s, 0);
    assert_int_equal(culvert_wait(s.gateway, 10, why, sizeof(why)), -ETIMEDOUT);
    assert_int_equal(culvert_start(s.gateway, why, sizeof(why)), -EALREADY);
    relay(0, 10);
    assert_int_equal(culvert_reload(s.gateway, NULL, CULVERT_NO_DRAIN, why, sizeof(why)),
                     0); /* which is a line */
    assert_int_equal(s.call_from_log, -EDEADLK);
    stop(&s);
    opt.flags = CULVERT_DROP_PRIVILEGES;
    assert_int_equal(culvert_new(&opt, &s.gateway, why, sizeof(why)), 0);
    assert_int_equal(culvert_start(s.gateway, why, sizeof(why)), -EINVAL);
    culvert_stop(s.gateway);
    assert_int_equal(culvert_run(s.gateway, why, sizeof(why)), -ECANCELED);
    culvert_free(s.gateway);
    culvert_free(NULL);
}

static void a_device_that_is_taken_away_ends_it_with_a_sentence(void **state)
{
    struct side s = { 0 };
    struct culvert_options opt = options(&s);
    int tun = rig_tun("gone0", "198.18.0.1");
    char why[WHY];

    (void)state;
    write_config(&s, 0, "MATCH,p");
    opt.tun_fds = &tun;
    opt.tun_fd_count = 1;
    start_with(&s, &opt);
    relay(0, 1000);
    assert_int_equal(system("ip link delete gone0"), 0);
    assert_int_equal(culvert_wait(s.gateway, WAIT_MS, why, sizeof(why)), -EIO);
    assert_true(strlen(why) > 10);
    assert_int_equal(atomic_load(&s.ends), 1);
    assert_int_equal(s.ended_with, -EIO);
    assert_int_equal(culvert_counter(s.gateway, "tun.rx_bytes", &(uint64_t){ 0 }), -ESRCH);
    culvert_free(s.gateway);
    close(tun);
}

struct process_state {
    struct sigaction action[NSIG];
    sigset_t mask;
    struct rlimit files;
    char folder[256];
};

static void look_at_process(struct process_state *p)
{
    memset(p, 0, sizeof(*p));
    for (int signo = 1; signo < NSIG; signo++)
        sigaction(signo, NULL, &p->action[signo]);
    sigprocmask(SIG_BLOCK, NULL, &p->mask);
    getrlimit(RLIMIT_NOFILE, &p->files);
    assert_non_null(getcwd(p->folder, sizeof(p->folder)));
}

static void assert_same_process(const struct process_state *before)
{
    struct process_state now;

    look_at_process(&now);
    for (int signo = 1; signo < NSIG; signo++)
        assert_ptr_equal(now.action[signo].sa_handler, before->action[signo].sa_handler);
    for (int signo = 1; signo < NSIG; signo++)
        assert_int_equal(sigismember(&now.mask, signo), sigismember(&before->mask, signo));
    assert_int_equal(now.files.rlim_cur, before->files.rlim_cur);
    assert_string_equal(now.folder, before->folder);
}

static void on_end_write(void *arg, int err, const char *why)
{
    on_end(arg, err, why);
    raise(SIGPIPE); /* as a write to a pipe that nobody reads would */
}

static void on_log_stop(void *arg, enum culvert_level level, const char *line)
{
    struct side *s = arg;

    (void)level;
    (void)line;
    culvert_stop(s->gateway);
}

static void a_broken_pipe_in_its_thread_does_not_end_the_program(void **state)
{
    struct side s = { 0 };
    struct culvert_options opt = options(&s);
    char why[WHY];

    (void)state;
    opt.on_log = on_log_stop;
    opt.on_end = on_end_write;
    write_config(&s, 0, "MATCH,p");
    assert_int_equal(culvert_new(&opt, &s.gateway, why, sizeof(why)), 0);
    assert_int_equal(culvert_run(s.gateway, why, sizeof(why)), 0);
    assert_int_equal(atomic_load(&s.ends), 1);
    culvert_free(s.gateway);
}

/* Signals, limits, folder, and not a byte to the program's stderr. */
static void the_process_stays_as_it_was(void **state)
{
    int out[2], saved = dup(STDERR_FILENO);
    struct side s = { 0 };
    struct process_state before;
    char text[256];

    (void)state;
    look_at_process(&before);
    assert_int_equal(pipe2(out, O_CLOEXEC | O_NONBLOCK), 0);
    dup2(out[1], STDERR_FILENO);
    start(&s, 0);
    relay(0, 1000);
    assert_same_process(&before);
    stop(&s);
    dup2(saved, STDERR_FILENO);
    assert_same_process(&before);
    assert_int_equal(read(out[0], text, sizeof(text)), -1);
    close(out[0]);
    close(out[1]);
    close(saved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_gateways_at_once_relay_each_its_own_traffic),
        cmocka_unit_test(one_after_another_leaves_no_thread_and_no_descriptor),
        cmocka_unit_test(a_queue_that_is_handed_over_stays_the_programs),
        cmocka_unit_test(a_route_that_is_asked_for_in_vain_is_said),
        cmocka_unit_test(larger_structs_are_taken_as_long_as_nothing_unknown_is_set),
        cmocka_unit_test(a_larger_status_is_filled_as_far_as_it_is_known),
        cmocka_unit_test(a_reload_decides_new_flows_and_a_wrong_one_changes_nothing),
        cmocka_unit_test(a_mistake_is_a_sentence_in_the_callers_buffer),
        cmocka_unit_test(what_cannot_be_had_fails_the_start_and_leaves_nothing),
        cmocka_unit_test(a_start_that_fails_late_closes_nothing_of_the_programs),
        cmocka_unit_test(calls_in_the_wrong_place_are_refused),
        cmocka_unit_test(a_device_that_is_taken_away_ends_it_with_a_sentence),
        cmocka_unit_test(a_broken_pipe_in_its_thread_does_not_end_the_program),
        cmocka_unit_test(the_process_stays_as_it_was),
    };
    const char *why = netns_enter_with_tun();

    if (why == NULL && (rig_proxy_open(&proxy[0], 'A') != 0 || rig_proxy_open(&proxy[1], 'B') != 0))
        return 1;
    return run_unless(why, tests);
}
