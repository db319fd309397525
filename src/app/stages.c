/* stages.c - the stages of giving up privileges, in the order in which they happen. */
#include "stages.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <string.h>
#include <unistd.h>

#include "gateway.h"
#include "sandbox.h"

static bool wanted(const struct stages *s)
{
    return s->config->user != NULL || s->config->sandbox != CONFIG_SANDBOX_OFF;
}

/* ---- helper and user ---- */

/* With a device that was handed over, and no routes of our own, there is nothing to put back. */
static int start_helper(struct stages *s, struct err *err)
{
    const struct config *c = s->config;
    bool programs = (rules_needs(c->rules) & RULE_NEEDS_PROCESS) != 0;
    struct helper_options opt = {
        .keep = PRIVILEGE_ROUTES | (programs ? PRIVILEGE_PROGRAMS : 0),
        .account = c->user,
        .mark = c->route.mark != 0 || !c->route.auto_route ? c->route.mark : GATEWAY_DEFAULT_MARK,
        .dns = c->route.system_dns,
        .sandbox = c->sandbox != CONFIG_SANDBOX_OFF,
    };

    if (c->tun.fd >= 0 && !c->route.auto_route && !programs)
        return 0;
    return helper_start(&opt, &s->helper, err);
}

static void hand_over(const struct stages *s)
{
    char folder[PATH_MAX];
    char *slash;

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

static bool has_mark(const struct config *c)
{
    bool any = c->route.mark != 0 || c->route.auto_route;

    for (size_t i = 0; i < c->upstream_count; i++)
        any = any || c->upstreams[i].routing_mark != 0;
    return any;
}

static void on_helper_dead(void *arg)
{
    struct stages *s = arg;

    s->on_fatal(s->arg,
                "the helper process, which has the privileges, ended by itself; without it routes cannot be "
                "kept; ending");
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

/* ---- files ---- */

static const char *folder_of(const char *path, char *out)
{
    char *slash;

    if (path == NULL || realpath(path, out) == NULL || (slash = strrchr(out, '/')) == NULL)
        return NULL;
    slash[slash == out] = '\0';
    return out;
}

/* Whatever a reload may want: the configuration and its neighbours, certificates, databases of countries, lists of rules. */
static int confine_files(const struct stages *s, struct err *err)
{
    char config[PATH_MAX], api[PATH_MAX];
    const char *notify = getenv("NOTIFY_SOCKET");
    const struct sandbox_files f = {
        .read = { "/etc", "/usr", "/lib", "/proc", "/sys", "/run", "/var/lib", "/dev/null", "/dev/urandom",
                  folder_of(s->config_path, config) },
        .reads = 10,
        .write = { s->config->state_dir, folder_of(s->api_path, api) },
        .writes = 2,
        .abstract_sockets = notify != NULL && notify[0] == '@',
    };

    for (size_t i = 0; i < s->config->provider_count; i++) {
        if (s->config->providers[i].type == CONFIG_PROVIDER_HTTP)
            (void)mkdir(s->config->state_dir, 0700); /* later it could not be made */
    }
    return sandbox_files(&f, SANDBOX_ABI_ASK, err);
}

/* A kernel that cannot do a part costs that part and one line, unless all is required (faults.md X10). */
static int missing(const struct stages *s, int r, const struct err *why, struct err *err)
{
    if (s->config->sandbox == CONFIG_SANDBOX_REQUIRE)
        return err_set(err, r, "runtime.sandbox: require: %s", why->text);
    log_warning("sandbox: %s; going on without that part", why->text);
    return 0;
}

static int confine(struct stages *s, struct err *err)
{
    struct err why = { "" };
    int abi = confine_files(s, &why), r = 0;

    if (abi < 0 && (r = missing(s, abi, &why, err)) != 0)
        return r;
    if ((r = sandbox_report(s->loop)) != 0)
        return err_set(err, r, "no pipe for the sandbox: %s", strerror(-r));
    if ((r = sandbox_calls(SANDBOX_GATEWAY, &why)) != 0 && (r = missing(s, r, &why, err)) != 0)
        return r;
    log_debug("sandbox: Landlock version %d", abi > 0 ? abi : 0);
    return 0;
}

/* ---- all of it ---- */

static void warn_of_reload(const struct stages *s)
{
    if (s->config_path != NULL && access(s->config_path, R_OK) != 0)
        log_warning("%s cannot be read by this user any more (%s): a reload will fail until it can",
                    s->config_path, strerror(errno));
}

int stages_confine(void *stages, const char *tun_name, struct route *route, struct err *err)
{
    struct stages *s = stages;
    unsigned keep = has_mark(s->config) ? privilege_for_mark() : 0;
    char text[256];
    int r;

    if (!wanted(s))
        return 0;
    if ((r = delegate(s, tun_name, route, err)) != 0 || (r = privilege_keep(keep, err)) != 0)
        return r;
    log_info("privileges: user %u, capabilities: %s%s", (unsigned)geteuid(),
             privilege_text(text, sizeof(text)),
             s->helper != NULL ? "; the helper process keeps what routes and the TUN need" : "");
    warn_of_reload(s);
    return s->config->sandbox == CONFIG_SANDBOX_OFF ? 0 : confine(s, err);
}

void stages_end(struct stages *s)
{
    sandbox_report_end(s->loop);
    if (s->helper != NULL)
        netlink_delegate(s->netlink, NULL, NULL);
    helper_end(s->helper);
    s->helper = NULL;
}
