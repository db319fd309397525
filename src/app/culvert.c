/* culvert.c - one gateway as a thing that a program makes, starts, stops and frees (include/culvert.h). */
#include "culvert_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static_assert((int)CULVERT_LOG_ERROR == (int)LOG_ERROR && (int)CULVERT_LOG_DEBUG == (int)LOG_DEBUG,
              "a level is the same number inside and outside");

/* ---- sentences ---- */

/* Into the caller's buffer, which may be none at all; returns @r. */
static int say(char *why, size_t len, int r, const char *text)
{
    if (why != NULL && len > 0)
        snprintf(why, len, "%s", text);
    return r;
}

/* A line each, as many as the buffer holds. */
static void say_messages(char *why, size_t len, const struct config_messages *m)
{
    FILE *f = why != NULL && len > 1 ? fmemopen(why, len - 1, "w") : NULL;
    size_t end;

    if (f == NULL)
        return;
    config_print_messages(f, m);
    fclose(f);
    why[len - 1] = '\0';
    end = strlen(why);
    if (end > 0 && why[end - 1] == '\n')
        why[end - 1] = '\0';
}

/* ---- the configuration ---- */

static const char *name_of(const struct culvert_options *opt)
{
    return opt->config_file != NULL   ? opt->config_file
           : opt->config_text != NULL ? "config_text"
                                      : "proxy_url";
}

static void log_warnings(const struct config_messages *m)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->list[i].warning)
            log_warning("%s:%u:%u: %s", m->file, (unsigned)m->list[i].line, (unsigned)m->list[i].column,
                        m->list[i].text);
    }
}

int culvert_load(const struct culvert *c, const char *text, struct config **out, char *why, size_t why_len)
{
    const struct culvert_options *opt = &c->opt;
    struct config_messages m = { 0 };
    struct err err = { "" };
    int r;

    if (text == NULL)
        text = opt->config_text;
    if (text != NULL)
        r = config_load_text(text, strlen(text), "config_text", out, &m);
    else if (opt->config_file != NULL)
        r = config_load_file(opt->config_file, out, &m);
    else
        r = config_from_proxy_url(opt->proxy_url, out, &m);
    if (c->hooks.on_messages != NULL)
        c->hooks.on_messages(c->hooks.arg, &m);
    else if (r == 0)
        log_warnings(&m);
    if (r != 0 && confine_refused(c->stages.confine, &m, &err) != 0)
        say(why, why_len, -EACCES, err.text);
    else if (r != 0 && m.errors == 0 && why != NULL)
        snprintf(why, why_len, "%s: %s", name_of(opt), strerror(-r));
    else if (r != 0 && c->hooks.on_messages == NULL)
        say_messages(why, why_len, &m);
    config_messages_free(&m);
    return r;
}

/* What the program says beside the configuration. */
static int adapt(struct culvert *c, char *why, size_t why_len)
{
    struct config *now = &c->config;
    size_t room = sizeof(now->tun.name);

    *now = *c->loaded;
    if (c->opt.tun_name != NULL && strlen(c->opt.tun_name) >= room)
        return say(why, why_len, -EINVAL,
                   "the name of the TUN is too long for an interface; 15 bytes are the most");
    if (c->opt.tun_name != NULL)
        snprintf(now->tun.name, room, "%s", c->opt.tun_name);
    if (c->tun_fd_count > 0) {
        now->tun.fd = -1;
        now->tun.more_fds_count = 0;
    }
    if ((c->opt.flags & CULVERT_TUN_ELSEWHERE) != 0) {
        if (now->route.auto_route)
            log_warning("tun.auto-route is not obeyed: the TUN is elsewhere (CULVERT_TUN_ELSEWHERE)");
        now->route = (struct config_route){ .mark = now->route.mark };
    }
    if (now->user != NULL && (c->opt.flags & CULVERT_DROP_PRIVILEGES) == 0)
        log_warning("runtime.user is not obeyed: the process belongs to another program");
    return 0;
}

/* ---- options ---- */

static const char *fault_of(const struct culvert_options *o)
{
    int sources = (o->config_file != NULL) + (o->config_text != NULL) + (o->proxy_url != NULL);

    if (o->size < sizeof(*o) || o->size > CULVERT_SIZE_MAX)
        return "culvert_options.size is not that of a culvert.h that this library knows";
    for (const uint8_t *more = (const uint8_t *)(o + 1); more < (const uint8_t *)o + o->size; more++)
        if (*more != 0)
            return "culvert_options has something set that this library does not know: it is older than the "
                   "culvert.h that the program was built with";
    if (sources != 1)
        return "exactly one of config_file, config_text and proxy_url is needed";
    if (o->tun_fd_count > TUN_QUEUES_MAX || (o->tun_fd_count > 0 && o->tun_fds == NULL))
        return "tun_fds: 1 to 64 descriptors";
    if ((o->flags & CULVERT_TUN_ELSEWHERE) != 0 && o->tun_fd_count == 0)
        return "CULVERT_TUN_ELSEWHERE needs tun_fds: there is no device without them";
    if ((o->flags & CULVERT_TUN_ELSEWHERE) != 0 && (o->flags & CULVERT_DROP_PRIVILEGES) != 0)
        return "CULVERT_TUN_ELSEWHERE and CULVERT_DROP_PRIVILEGES do not go together";
    return NULL;
}

static bool copy_text(const char **text)
{
    return *text == NULL || (*text = strdup(*text)) != NULL;
}

/* Descriptors of ours for the caller's, which may close them whenever it likes. */
static int copy_options(struct culvert *c, const struct culvert_options *opt)
{
    bool fine = true;

    c->opt = *opt;
    c->opt.tun_fds = NULL;
    fine = copy_text(&c->opt.config_file) && fine;
    fine = copy_text(&c->opt.config_text) && fine;
    fine = copy_text(&c->opt.proxy_url) && fine;
    fine = copy_text(&c->opt.tun_name) && fine;
    if (!fine)
        return -ENOMEM;
    for (size_t i = 0; i < opt->tun_fd_count; i++) {
        int fd = fcntl(opt->tun_fds[i], F_DUPFD_CLOEXEC, 3);

        if (fd < 0)
            return -errno;
        c->tun_fds[c->tun_fd_count++] = fd;
    }
    return 0;
}

static void free_options(struct culvert *c)
{
    free((void *)(uintptr_t)c->opt.config_file);
    free((void *)(uintptr_t)c->opt.config_text);
    free((void *)(uintptr_t)c->opt.proxy_url);
    free((void *)(uintptr_t)c->opt.tun_name);
}

/* ---- life ---- */

static void on_line(void *arg, enum log_level level, const char *line)
{
    struct culvert *c = arg;

    c->opt.on_log(c->opt.arg, (enum culvert_level)level, line);
}

static int open_log(struct culvert *c)
{
    return c->hooks.is_process ? 0 : log_sink_new(c->opt.on_log != NULL ? on_line : NULL, c, &c->log);
}

static int fill(struct culvert *c, const struct culvert_options *opt, char *why, size_t why_len)
{
    struct log_sink *before;
    int r;

    if ((r = copy_options(c, opt)) != 0 || (r = open_log(c)) != 0)
        return say(why, why_len, r,
                   r == -EBADF ? "tun_fds: a descriptor is not open" : "no memory or no descriptors");
    before = log_use(c->log);
    r = culvert_load(c, NULL, &c->loaded, why, why_len);
    if (r == 0)
        r = adapt(c, why, why_len);
    if (r == 0 && (r = log_init(&c->config.log)) != 0) {
        struct err err;

        err_set(&err, r, "log.output: %s: %s", c->config.log.output, strerror(-r));
        r = say(why, why_len, -EINVAL, err.text);
    }
    log_use(before);
    return r;
}

int culvert_make(const struct culvert_options *opt, const struct culvert_hooks *hooks, struct culvert **out,
                 char *why, size_t why_len)
{
    const char *fault = fault_of(opt);
    pthread_condattr_t monotonic;
    struct culvert *c;
    int r;

    say(why, why_len, 0, "");
    if (fault != NULL)
        return say(why, why_len, -EINVAL, fault);
    if ((c = calloc(1, sizeof(*c))) == NULL)
        return say(why, why_len, -ENOMEM, "no memory");
    if (hooks != NULL)
        c->hooks = *hooks;
    c->claim = -ENOENT;
    c->phase = CULVERT_MADE;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if ((r = fill(c, opt, why, why_len)) != 0) {
        culvert_free(c);
        return r;
    }
    *out = c;
    return 0;
}

int culvert_new(const struct culvert_options *opt, struct culvert **out, char *why, size_t why_len)
{
    return culvert_make(opt, NULL, out, why, why_len);
}

void culvert_free(struct culvert *c)
{
    if (c == NULL)
        return;
    culvert_stop(c);
    (void)culvert_wait(c, -1, NULL, 0);
    if (c->has_thread)
        pthread_join(c->thread, NULL);
    for (size_t i = 0; i < c->tun_fd_count; i++)
        close(c->tun_fds[i]);
    config_free(c->loaded);
    log_sink_free(c->log);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free_options(c);
    free(c);
}

/* ---- running ---- */

void culvert_set_phase(struct culvert *c, enum culvert_phase phase)
{
    pthread_mutex_lock(&c->lock);
    c->phase = phase;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* One start in a life: whoever is second, or comes after culvert_stop(), is told so. */
static int begin(struct culvert *c, char *why, size_t why_len)
{
    int r = 0;

    say(why, why_len, 0, "");
    pthread_mutex_lock(&c->lock);
    if (c->phase != CULVERT_MADE)
        r = -EALREADY;
    else if (c->stop)
        r = -ECANCELED;
    else
        c->phase = CULVERT_STARTING;
    pthread_mutex_unlock(&c->lock);
    if (r == -EALREADY)
        say(why, why_len, r, "it was started before; make another one with culvert_new()");
    else if (r == -ECANCELED)
        say(why, why_len, r, "it was stopped before it was started");
    return r;
}

static int run_here(struct culvert *c)
{
    struct log_sink *before = log_use(c->log);
    struct err err = { "" };
    int r = culvert_main(c, &err);

    log_use(before);
    return r;
}

int culvert_run(struct culvert *c, char *why, size_t why_len)
{
    const struct timespec at_once = { 0 };
    sigset_t pipe_signal, before;
    int r = begin(c, why, why_len);

    if (r != 0)
        return r;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    r = run_here(c);
    if (sigismember(&before, SIGPIPE) == 0) /* one that waits is of our time, and would end the program now */
        (void)sigtimedwait(&pipe_signal, NULL, &at_once);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return say(why, why_len, r, r != 0 ? c->why.text : "");
}

static void *run_there(void *arg)
{
    struct culvert *c = arg;

    pthread_setname_np(pthread_self(), "culvert");
    (void)run_here(c); /* culvert_wait() tells */
    return NULL;
}

/* Signals are the program's; those of a crash cannot be anybody else's. */
static int start_thread(struct culvert *c)
{
    static const int of_a_crash[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS };
    sigset_t all, before;
    int r;

    sigfillset(&all);
    for (size_t i = 0; i < ARRAY_LEN(of_a_crash); i++)
        sigdelset(&all, of_a_crash[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = -pthread_create(&c->thread, NULL, run_there, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    c->has_thread = r == 0;
    return r;
}

int culvert_start(struct culvert *c, char *why, size_t why_len)
{
    int r;

    if ((c->opt.flags & CULVERT_DROP_PRIVILEGES) != 0)
        return say(why, why_len, -EINVAL, "CULVERT_DROP_PRIVILEGES is for culvert_run() only");
    if ((r = begin(c, why, why_len)) != 0)
        return r;
    if ((r = start_thread(c)) != 0) {
        c->result = r;
        err_set(&c->why, r, "no thread for the gateway: %s", strerror(-r));
        culvert_set_phase(c, CULVERT_ENDED);
    }
    pthread_mutex_lock(&c->lock);
    while (c->phase == CULVERT_STARTING)
        pthread_cond_wait(&c->changed, &c->lock);
    r = c->phase == CULVERT_ENDED ? c->result : 0;
    pthread_mutex_unlock(&c->lock);
    return say(why, why_len, r, r != 0 ? c->why.text : "");
}

void culvert_stop(struct culvert *c)
{
    if (c == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    if (c->loop != NULL)
        loop_stop(c->loop);
    pthread_mutex_unlock(&c->lock);
}

int culvert_wait(struct culvert *c, int timeout_ms, char *why, size_t why_len)
{
    uint64_t until_us = clock_now_us() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * 1000;
    struct timespec until = { (time_t)(until_us / 1000000), (long)(until_us % 1000000) * 1000 };
    int r = 0;

    say(why, why_len, 0, "");
    if (c->log != NULL && log_in_use() == c->log)
        return say(why, why_len, -EDEADLK, "a callback cannot wait for the thread that it is called by");
    pthread_mutex_lock(&c->lock);
    if (c->phase == CULVERT_MADE)
        r = -ESRCH;
    while (r == 0 && c->phase != CULVERT_ENDED)
        r = -(timeout_ms < 0 ? pthread_cond_wait(&c->changed, &c->lock)
                             : pthread_cond_timedwait(&c->changed, &c->lock, &until));
    pthread_mutex_unlock(&c->lock);
    if (r != 0)
        return say(why, why_len, r, r == -ESRCH ? "it was never started" : "it has not ended yet");
    return say(why, why_len, c->result, c->why.text);
}

const char *culvert_version(void)
{
    return CULVERT_VERSION;
}
