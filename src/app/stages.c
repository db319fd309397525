/* stages.c - the stages of giving up privileges, in the order in which they happen. */
#include "stages.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway.h"

static bool wanted(const struct stages *s)
{
    return s->config->user != NULL || s->config->sandbox != CONFIG_SANDBOX_OFF;
}

static bool wants_programs(const struct config *c)
{
    return (rules_needs(c->rules) & RULE_NEEDS_PROCESS) != 0;
}

/* ---- helper and user ---- */

/* With a device that was handed over, and no routes of our own, there is nothing to put back. */
static int start_helper(struct stages *s, struct err *err)
{
    const struct config *c = s->config;
    bool programs = wants_programs(c);
    struct helper_options opt = {
        .keep = PRIVILEGE_ROUTES | (programs ? PRIVILEGE_PROGRAMS : 0),
        .account = c->user,
        .mark = c->route.mark != 0 || !c->route.auto_route ? c->route.mark : GATEWAY_DEFAULT_MARK,
        .dns = c->route.system_dns,
        .sandbox = c->sandbox != CONFIG_SANDBOX_OFF,
    };

    s->sees_programs = programs;
    if (c->tun.fd >= 0 && !c->route.auto_route && !programs)
        return 0;
    return helper_start(&opt, &s->helper, err);
}

static void hand_over(const struct stages *s)
{
    char folder[PATH_MAX];
    char *slash;

    (void)mkdir(s->config->state_dir, 0700); /* later it could not be made, and who writes there says so */
    privilege_hand_over(s->config->state_dir, &s->account);
    snprintf(folder, sizeof(folder), "%s", s->api_path != NULL ? s->api_path : "");
    if ((slash = strrchr(folder, '/')) == NULL || slash == folder)
        return;
    *slash = '\0';
    if (strcmp(folder, "/run/culvert") == 0) /* ours; another one is its owner's */
        privilege_hand_over(folder, &s->account);
}

int stages_begin(struct stages *s, struct err *err)
{
    int r;

    if ((r = privilege_account_find(s->config->user, &s->account, err)) != 0)
        return -EINVAL;
    if (!wanted(s))
        return 0;
    if ((r = start_helper(s, err)) != 0)
        return r;
    hand_over(s);
    return privilege_become(&s->account, err);
}

/* ---- capabilities ---- */

unsigned stages_kept(const struct config *c)
{
    bool any = c->route.mark != 0 || c->route.auto_route;

    for (size_t i = 0; i < c->upstream_count; i++)
        any = any || c->upstreams[i].routing_mark != 0;
    return any ? privilege_for_mark() : 0;
}

static void on_helper_dead(void *arg)
{
    struct stages *s = arg;

    s->on_fatal(
        s->arg,
        s->config->route.auto_route
            ? "the helper process, which has the privileges, ended by itself; ending, and routes stay "
              "without a way out until `culvert cleanup` or the next start"
            : "the helper process, which has the privileges, ended by itself; ending, since the TUN "
              "cannot be kept");
}

static int delegate(struct stages *s, const char *tun_name, struct route *route, struct err *err)
{
    const struct route_agent agent = { helper_nft_load, helper_nft_rules, helper_nft_remove, s->helper };
    char *text;
    int r;

    if (s->helper == NULL)
        return 0;
    text = route != NULL ? route_nft_whole(route) : NULL;
    r = helper_settle(s->helper, tun_name, text);
    free(text);
    if (r != 0)
        return err_set(err, r, "the helper process does not work: %s", strerror(-r));
    netlink_delegate(s->netlink, helper_change, s->helper);
    if (route != NULL)
        route_delegate(route, &agent);
    helper_watch(s->helper, s->loop, on_helper_dead, s);
    return 0;
}

/* ---- all of it ---- */

int stages_confine(void *stages, const char *tun_name, struct route *route, struct err *err)
{
    struct stages *s = stages;
    const struct confine_options files = {
        .config = s->config, .config_path = s->config_path, .api_path = s->api_path, .state = true
    };
    char text[256];
    int r;

    if (!wanted(s))
        return 0;
    if ((r = delegate(s, tun_name, route, err)) != 0 ||
        (r = privilege_keep(stages_kept(s->config), err)) != 0)
        return r;
    log_info("privileges: user %u, capabilities: %s%s", (unsigned)geteuid(),
             privilege_text(text, sizeof(text)),
             s->helper != NULL ? "; the helper process keeps what routes and the TUN need" : "");
    confine_warn_unreadable(s->config, s->config_path);
    return confine_now(&files, s->loop, &s->confine, err);
}

void stages_warn(const struct stages *s, const struct config *now)
{
    if (wanted(s) && !s->sees_programs && wants_programs(now))
        log_warning("reload: PROCESS-* rules are new: until a restart they see the programs of user %u only, "
                    "since the privilege to look at others was given up at the start",
                    (unsigned)geteuid());
}

void stages_end(struct stages *s)
{
    confine_end(s->confine, s->loop);
    s->confine = NULL;
    if (s->helper != NULL)
        netlink_delegate(s->netlink, NULL, NULL);
    helper_end(s->helper);
    s->helper = NULL;
}
