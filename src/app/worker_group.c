/* worker_group.c - groups in the workers: who tests, who is told, and the user's pick.
 *
 * Worker 0 does the rounds of url-test for all and posts what it found to the others; so a member is tested once for the
 * process. Flows' failures stay where they happened: each worker leaves out what is down for itself, and tests it again for
 * itself, with a jitter. A choice is made from the same numbers by the same function, so workers agree but for moments. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker_impl.h"

struct group_order { /* a message */
    struct loop_msg msg;
    struct worker *worker;
    struct upstream *group; /* one reference */
    uint32_t member, delay_us;
    char name[132];
};

static void post(struct worker *w, struct upstream *group, struct group_order order)
{
    struct group_order *o = malloc(sizeof(*o));

    if (!o)
        return; /* the next round, or the user, says it again */
    *o = order;
    o->worker = w;
    o->group = upstream_ref(group);
    loop_post(w->loop, &o->msg);
}

static void done(struct group_order *o)
{
    upstream_unref(o->group);
    free(o);
}

/* ---- tests ---- */

static void do_tested(struct loop_msg *m)
{
    struct group_order *o = CONTAINER_OF(m, struct group_order, msg);

    if (o->worker->stack)
        up_group_tested(o->worker->env, o->group, o->member, o->delay_us);
    done(o);
}

void worker_on_group_tested(void *arg, struct upstream *group, uint32_t member, uint32_t delay_us)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < w->count; i++) {
        if (w->peer[i] && w->peer[i] != w)
            post(w->peer[i], group,
                 (struct group_order){ .msg.fn = do_tested, .member = member, .delay_us = delay_us });
    }
}

/* One line for the process: the others come to the same, or follow soon. */
void worker_on_group_switch(void *arg, struct upstream *group, uint32_t from, uint32_t to)
{
    struct worker *w = arg;
    struct up_group_info info;

    if (w->index == 0 && up_group_info(w->env, group, &info) == 0)
        log_info("group %s: %s instead of %s", upstream_name(group), info.member[to].name,
                 info.member[from].name);
}

void worker_on_group_no_udp(void *arg, struct upstream *group, uint32_t member)
{
    struct worker *w = arg;
    struct up_group_info info;

    if (up_group_info(w->env, group, &info) == 0)
        log_info("group %s: %s carries no UDP, so datagrams pass it over", upstream_name(group),
                 info.member[member].name);
}

/* ---- the user's pick ---- */

static void do_pick(struct loop_msg *m)
{
    struct group_order *o = CONTAINER_OF(m, struct group_order, msg);

    if (o->worker->stack)
        (void)up_group_pick(o->worker->env, o->group, o->name); /* whoever asks has looked before */
    done(o);
}

void worker_pick(struct worker *w, struct upstream *group, const char *member)
{
    struct group_order o = { .msg.fn = do_pick };

    snprintf(o.name, sizeof(o.name), "%s", member);
    post(w, group, o);
}

/* ---- what status shows ---- */

static const char *const type_text[] = { [GROUP_SELECT] = "select",
                                         [GROUP_URL_TEST] = "url-test",
                                         [GROUP_FALLBACK] = "fallback",
                                         [GROUP_LOAD_BALANCE] = "load-balance" };

static void fill_group(const struct upstream *group, const struct up_group_info *info,
                       struct status_member *members, struct status_group *out)
{
    *out = (struct status_group){
        .type = type_text[info->kind], .members = members, .member_count = info->members, .now = info->now
    };
    snprintf(out->name, sizeof(out->name), "%s", upstream_name(group));
    for (uint32_t i = 0; i < info->members; i++) {
        members[i] = (struct status_member){ .down = info->member[i].down,
                                             .failures = info->member[i].failures,
                                             .delay_ms = (info->member[i].delay_us + 999) / 1000 };
        snprintf(members[i].name, sizeof(members[i].name), "%s", info->member[i].name);
    }
}

void worker_groups_report(struct worker *w, struct status_worker *out)
{
    size_t n, groups = 0, members = 0;
    struct upstream *const *targets = forward_policy_targets(forward_policy_now(w->forward), &n);
    struct up_group_info info;
    struct status_group *g;

    for (size_t i = 0; i < n; i++)
        if (up_group_info(w->env, targets[i], &info) == 0) {
            groups++;
            members += info.members;
        }
    g = groups > 0 ? calloc(1, groups * sizeof(*g) + members * sizeof(struct status_member)) : NULL;
    members = 0;
    for (size_t i = 0; g && i < n && out->group_count < groups; i++)
        if (up_group_info(w->env, targets[i], &info) == 0) {
            fill_group(targets[i], &info, (struct status_member *)(void *)(g + groups) + members,
                       &g[out->group_count++]);
            members += info.members;
        }
    out->groups = g;
}

static const char *kind_text(enum upstream_kind kind)
{
    switch (kind) {
    case UPSTREAM_DIRECT:
        return "direct";
    case UPSTREAM_SOCKS5:
        return "socks5";
    case UPSTREAM_SOCKS4:
        return "socks4";
    case UPSTREAM_SOCKS4A:
        return "socks4a";
    case UPSTREAM_HTTP:
        return "http";
    case UPSTREAM_MASQUE:
        return "masque";
    case UPSTREAM_REJECT:
    case UPSTREAM_REJECT_DROP:
    case UPSTREAM_GROUP:
        break; /* no ways out */
    }
    return NULL;
}

void worker_upstreams_report(struct worker *w, struct status_worker *out)
{
    size_t n;
    struct upstream *const *targets = forward_policy_targets(forward_policy_now(w->forward), &n);
    struct status_upstream *all = calloc(n + 1, sizeof(*all));
    uint64_t now_us = loop_now_us(w->loop);

    for (size_t i = 0; all && i < n; i++) {
        struct status_upstream *u = &all[out->upstream_count];
        struct up_health h;

        u->type = kind_text(upstream_kind(targets[i]));
        if (!u->type)
            continue;
        up_health_get(w->env, targets[i], &h);
        snprintf(u->name, sizeof(u->name), "%s", upstream_name(targets[i]));
        u->failures = h.failures;
        u->rtt_us = h.rtt_us;
        u->good_ms = h.last_good_us ? (now_us - h.last_good_us) / 1000 : UINT64_MAX;
        u->udp_refused = h.udp_refused;
        out->upstream_count++;
    }
    out->upstreams = all;
}

/* ---- life ---- */

void worker_groups_start(struct worker *w, struct forward_policy *p)
{
    size_t n;
    struct upstream *const *targets = forward_policy_targets(p, &n);

    for (size_t i = 0; i < n; i++)
        if (upstream_kind(targets[i]) == UPSTREAM_GROUP)
            (void)up_group_start(w->env, targets[i],
                                 w->index == 0); /* no memory: the first flow tries again */
}
