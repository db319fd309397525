/* culvert_control.c - one gateway behind its control socket: each question goes to the gateway, and its answer back. All of it [main]. */
#include "culvert_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static void on_snapshot(void *arg, const struct status_snapshot *s)
{
    api_answer_status(arg, s);
}

static void on_status(void *arg, unsigned parts, struct api_answer *a)
{
    struct culvert *c = arg;

    gateway_status(c->gateway, parts, on_snapshot, a);
}

static int on_pick(void *arg, const char *group, const char *member, struct err *err)
{
    struct culvert *c = arg;

    return gateway_pick(c->gateway, group, member, err);
}

static void on_flow_ended(void *arg, bool found)
{
    api_answer_ended(arg, found);
}

static void on_end_flow(void *arg, uint64_t id, struct api_answer *a)
{
    struct culvert *c = arg;

    gateway_end_flow(c->gateway, id, on_flow_ended, a);
}

static int on_reload(void *arg, uint32_t drain_ms, struct err *err)
{
    return culvert_reload_now(arg, NULL, drain_ms, err->text, sizeof(err->text));
}

static void on_ended(void *arg, const struct status_ended *e)
{
    struct culvert *c = arg;

    api_tell_ended(c->api, e);
}

static void on_counters(void *arg, const struct status_snapshot *s)
{
    struct culvert *c = arg;

    api_tell_counters(c->api, s);
}

static void on_watch(void *arg, bool on)
{
    static const struct gateway_events events = { on_ended, on_counters };
    struct culvert *c = arg;

    gateway_watch(c->gateway, on ? &events : NULL, c);
}

int culvert_open_control(struct culvert *c, struct err *err)
{
    const struct config *conf = &c->config;
    bool named = conf->api_unix_set || conf->api.listen.port != 0;
    struct api_options opt = { .unix_path = conf->api_unix_set ? conf->api_unix : CULVERT_API_PATH,
                               .listen = conf->api.listen,
                               .secret = conf->api.secret,
                               .metrics = conf->api.metrics,
                               .arg = c,
                               .on_status = on_status,
                               .on_pick = on_pick,
                               .on_end_flow = on_end_flow,
                               .on_reload = on_reload,
                               .on_watch = on_watch };
    int r = 0;

    if (opt.unix_path == NULL && opt.listen.port == 0)
        return 0; /* api.unix: none */
    if (!conf->api_unix_set && mkdir("/run/culvert", 0755) != 0 && errno != EEXIST)
        r = err_set(err, -errno, "/run/culvert cannot be made: %s", strerror(errno));
    if (r == 0 && (r = api_open(&opt, c->loop, &c->api, err)) == 0)
        return 0;
    if (named) /* what the file asks for and cannot have is its mistake, unless another one of us has it */
        return r == -ENOMEM ? r : c->alone ? -EINVAL : -EALREADY;
    log_info("no control socket: %s", err->text);
    return 0;
}
