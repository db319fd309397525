/* culvert_call.c - what is asked of the main thread while it runs: by other threads of the program, and through the control socket. */
#include "culvert_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reload ---- */

/* The new file is looked at as a whole before anything changes; a mistake in it is told as at a start, and the old one stays
 * (faults.md C9). Its strings are nobody's once the policy is made; what only a restart changes is compared with the first one. */
static int reload(struct culvert *c, const char *text, uint32_t drain_ms, char *why, size_t why_len)
{
    struct err err = { "" };
    struct config *now;
    int r = culvert_load(c, text, &now, why, why_len);

    if (r != 0)
        return r;
    if ((r = confine_take(c->stages.confine, now, &err)) == 0 &&
        (r = gateway_reload(c->gateway, now, drain_ms, &err)) == 0)
        stages_warn(&c->stages, now);
    config_free(now);
    if (r != 0 && why != NULL)
        snprintf(why, why_len, "%s", err.text);
    return r;
}

/* The text that is in force is what is read again, when there is no file. Its copy is made first: then there is no way back. */
static int reload_text(struct culvert *c, const char *text, uint32_t drain_ms, char *why, size_t why_len)
{
    char *copy = strdup(text), *old = (char *)(uintptr_t)c->opt.config_text;
    int r;

    if (copy == NULL) {
        if (why != NULL)
            snprintf(why, why_len, "no memory");
        return -ENOMEM;
    }
    if ((r = reload(c, copy, drain_ms, why, why_len)) == 0)
        c->opt.config_text = copy;
    free(r == 0 ? old : copy);
    return r;
}

int culvert_reload_now(struct culvert *c, const char *text, uint32_t drain_ms, char *why, size_t why_len)
{
    int r;

    if (c->hooks.on_reload != NULL)
        c->hooks.on_reload(c->hooks.arg, true);
    if (why != NULL)
        snprintf(why, why_len,
                 "the file has mistakes; `culvert check` lists them"); /* until it is known better */
    if (text != NULL && c->opt.config_file == NULL)
        r = reload_text(c, text, drain_ms, why, why_len);
    else
        r = reload(c, text, drain_ms, why, why_len);
    if (r == 0)
        log_info("reloaded: the new configuration is in force for new flows");
    else
        log_error("reload failed: %s; the configuration stays as it is", why != NULL ? why : strerror(-r));
    if (r == 0 && why != NULL)
        why[0] = '\0';
    if (c->hooks.on_reload != NULL)
        c->hooks.on_reload(c->hooks.arg, false);
    return r;
}

/* ---- calls of other threads ---- */

static void on_call(struct loop_msg *m) /* [main] */
{
    struct culvert_call *call = CONTAINER_OF(m, struct culvert_call, msg);

    if (call->c->gateway == NULL)
        culvert_answer(call, -ESRCH);
    else
        call->fn(call);
}

void culvert_answer(struct culvert_call *call, int result)
{
    struct culvert *c = call->c;
    struct culvert_call **at;

    pthread_mutex_lock(&c->lock);
    for (at = &c->calls; *at != call; at = &(*at)->next)
        ;
    *at = call->next;
    call->result = result;
    call->done = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void culvert_end_calls(struct culvert *c)
{
    while (c->calls != NULL) /* nobody adds one: there is no loop any more */
        culvert_answer(c->calls, -ESRCH);
}

/* Ask, and wait for the answer. */
static int call_main(struct culvert *c, struct culvert_call *call, void (*fn)(struct culvert_call *call))
{
    if (c->log != NULL && log_in_use() == c->log)
        return -EDEADLK;
    call->c = c;
    call->fn = fn;
    call->msg.fn = on_call;
    pthread_mutex_lock(&c->lock);
    if (c->loop == NULL || c->phase != CULVERT_RUNNING) {
        pthread_mutex_unlock(&c->lock);
        return -ESRCH;
    }
    call->next = c->calls;
    c->calls = call;
    loop_post(c->loop, &call->msg);
    while (!call->done)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
    return call->result;
}

struct reload_call {
    struct culvert_call call;
    const char *text;
    uint32_t drain_ms;
    char *why;
    size_t why_len;
};

static void on_reload_call(struct culvert_call *call)
{
    struct reload_call *r = CONTAINER_OF(call, struct reload_call, call);

    culvert_answer(call, culvert_reload_now(call->c, r->text, r->drain_ms, r->why, r->why_len));
}

int culvert_reload(struct culvert *c, const char *text, uint32_t drain_ms, char *why, size_t why_len)
{
    struct err own = { "" };
    struct reload_call call = { .text = text, .drain_ms = drain_ms, .why = why, .why_len = why_len };
    int r;

    if (why == NULL || why_len == 0) {
        call.why = own.text;
        call.why_len = sizeof(own.text);
    }
    call.why[0] = '\0';
    r = call_main(c, &call.call, on_reload_call);
    if (r != 0 && call.why[0] == '\0')
        snprintf(call.why, call.why_len, "%s", r == -ESRCH ? "the gateway does not run" : strerror(-r));
    return r;
}

/* ---- status ---- */

struct status_call {
    struct culvert_call call;
    const char *counter; /* one of these two is asked for */
    uint64_t value;
    struct culvert_status *status;
};

/* Of all workers. Return: false: no worker has it. */
static bool sum_counter(const struct status_snapshot *s, const char *name, uint64_t *out)
{
    bool found = false;

    *out = 0;
    for (size_t w = 0; w < s->worker_count; w++) {
        const struct status_worker *worker = &s->workers[w];

        for (size_t i = 0; i < worker->counter_count; i++) {
            if (strcmp(worker->counters[i].name, name) != 0)
                continue;
            *out += worker->counters[i].value;
            found = true;
            break;
        }
    }
    return found;
}

static void fill_status(const struct status_snapshot *s, struct culvert_status *out)
{
    *out = (struct culvert_status){
        .size = out->size,
        .uptime_ms = s->uptime_ms,
        .workers = (uint32_t)s->worker_count,
        .mtu = s->mtu,
        .memory_bytes = s->rss_bytes,
        .memory_budget_bytes = s->budget_bytes,
        .log_lines_lost = s->log_lines_lost,
    };
    snprintf(out->tun, sizeof(out->tun), "%s", s->tun);
    for (size_t w = 0; w < s->worker_count; w++) {
        out->tcp_flows += s->workers[w].tcp_flows;
        out->udp_flows += s->workers[w].udp_flows;
        out->half_open += s->workers[w].half_open;
    }
    sum_counter(s, "tun.rx_packets", &out->packets_in);
    sum_counter(s, "tun.rx_bytes", &out->bytes_in);
    sum_counter(s, "tun.tx_packets", &out->packets_out);
    sum_counter(s, "tun.tx_bytes", &out->bytes_out);
}

static void on_call_snapshot(void *arg, const struct status_snapshot *s)
{
    struct status_call *call = arg;
    int r = s != NULL ? 0 : -ENOMEM;

    if (s != NULL && call->status != NULL)
        fill_status(s, call->status);
    else if (s != NULL && !sum_counter(s, call->counter, &call->value))
        r = -ENOENT;
    culvert_answer(&call->call, r);
}

static void on_status_call(struct culvert_call *call)
{
    struct status_call *s = CONTAINER_OF(call, struct status_call, call);

    gateway_status(call->c->gateway, 0, on_call_snapshot, s);
}

int culvert_status(struct culvert *c, struct culvert_status *out)
{
    struct status_call call = { .status = out };
    int r;

    if (out->size < sizeof(*out) || out->size > CULVERT_SIZE_MAX)
        return -EINVAL;
    r = call_main(c, &call.call, on_status_call);
    if (r == 0)
        memset(out + 1, 0, out->size - sizeof(*out));
    return r;
}

int culvert_counter(struct culvert *c, const char *name, uint64_t *out)
{
    struct status_call call = { .counter = name };
    int r = call_main(c, &call.call, on_status_call);

    if (r == 0)
        *out = call.value;
    return r;
}
