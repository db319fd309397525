/* gateway_lists.c - `rule-providers` of type http: fetched, kept on disk, and put in force without a restart.
 *
 * How it works. Each list has a timer in the main loop. When it is due, a worker fetches the address through the list's way out, and the
 * body comes back by message. A good list is written beside the old copy and renamed over it, then a policy with the new list in the
 * place of the old one goes to all workers: flows that live keep what decided them. Whatever fails, the old list stays in force; that
 * is one line, and the next try comes after a pause that doubles, with jitter.
 * A list with nothing in it, or more bad lines than good ones, is none: a server's page about its own trouble must not open a gate. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "gateway_impl.h"
#include "state_file.h"

#define SECOND_US  UINT64_C(1000000)
#define SILENCE_US (30 * SECOND_US)
#define RETRY_US   (2 * SECOND_US)
#define RETRY_MAX  (3600 * SECOND_US)

struct rule_list {
    struct gateway *g;
    struct config_provider of; /* its strings are ours; its set the one in force, one reference */
    struct loop_timer timer;
    struct prng prng;
    uint32_t failures; /* in a row */
    char validator[UP_VALIDATOR_MAX];
    struct list_fetch *fetch; /* NULL: none is under way */
};

struct list_fetch { /* outlives its list */
    struct worker_fetch worker;
    struct rule_list *list;        /* NULL: it is gone */
    struct forward_policy *policy; /* holds the way out */
    char *url;
};

static void on_due(struct loop_timer *t);

static void due_in(struct rule_list *l, uint64_t us)
{
    struct loop *loop = l->g->setup.loop;

    loop_timer_start(loop, &l->timer, loop_now_us(loop) + us, on_due);
}

/* ---- how it went -------------------------------------------------------------------------------------------------------- */

static void failed(struct rule_list *l, const char *why)
{
    uint64_t pause = RETRY_US, interval = (uint64_t)l->of.interval_ms * 1000;

    for (uint32_t i = 0; i < l->failures && pause < RETRY_MAX; i++)
        pause *= 2;
    if (interval != 0 && pause > interval)
        pause = interval;
    pause = pause * 3 / 4 + prng_below(&l->prng, (uint32_t)(pause / 2 / 1000) + 1) * UINT64_C(1000);
    l->failures++;
    log_warning("rule-providers.%s: %s; %s, and the next try is in %" PRIu64 " s", l->of.name, why,
                l->of.fetched ? "the list stays as it was" : "the list is empty", pause / SECOND_US + 1);
    due_in(l, pause);
}

static void succeeded(struct rule_list *l)
{
    l->failures = 0;
    l->of.fetched = true;
    if (l->of.interval_ms != 0)
        due_in(l, (uint64_t)l->of.interval_ms * 1000);
}

/* ---- the copy ----------------------------------------------------------------------------------------------------------- */

/* Whoever reads it sees the old copy or the new one, whole (faults.md C6). */
static int keep_copy(const char *path, const char *data, size_t len)
{
    char fresh[4096];

    if ((size_t)snprintf(fresh, sizeof(fresh), "%s.new", path) >= sizeof(fresh))
        return -ENAMETOOLONG;
    state_file_folders(path);
    return state_file_replace(path, fresh, 0644, data, len);
}

/* ---- putting it in force -------------------------------------------------------------------------------------------------- */

static int swap(struct rule_list *l, struct rule_set *fresh)
{
    struct gateway *g = l->g;
    struct forward_policy_setup setup = {
        .options = forward_policy_options(g->policy),
        .workers = g->share.workers,
    };
    struct forward_policy *policy = NULL;
    struct rules *rules;
    int r = rules_with_set(forward_policy_rules(g->policy), l->of.set, fresh, &rules);

    if (r != 0)
        return r;
    setup.rules = rules;
    setup.targets = forward_policy_targets(g->policy, &setup.target_count);
    setup.rates = forward_policy_rates(g->policy, &setup.rate_count);
    r = forward_policy_new(&setup, &policy);
    rules_unref(rules);
    if (r == 0)
        r = gateway_set_policy(g, policy, NULL);
    if (r != 0) {
        forward_policy_unref(policy);
        return r;
    }
    rule_set_unref(l->of.set);
    l->of.set = fresh;
    return 0;
}

static void report(const struct rule_list *l, const struct rule_list_report *report)
{
    log_info("rule-providers.%s: fetched, %u entries", l->of.name, report->entries);
    if (report->bad > 0)
        log_warning("rule-providers.%s: %u lines of it are skipped, the first is line %u: %s", l->of.name,
                    report->bad, report->first_bad[0].line, report->first_bad[0].why.text);
}

static void take(struct rule_list *l, const struct up_fetched *got)
{
    struct rule_list_report lines;
    struct rule_set *fresh;
    char why[160];
    int r = config_provider_parse(&l->of, got->body != NULL ? got->body : "", got->len, &fresh, &lines);

    if (r == 0 && (lines.entries == 0 || lines.bad > lines.entries)) {
        rule_set_unref(fresh);
        snprintf(why, sizeof(why), "what came is no list: %u entries, %u bad lines", lines.entries,
                 lines.bad);
        failed(l, why);
        return;
    }
    if (r == 0 && (r = swap(l, fresh)) != 0)
        rule_set_unref(fresh);
    if (r != 0) {
        failed(l, "no memory for the list");
        return;
    }
    memcpy(l->validator, got->validator, sizeof(l->validator));
    r = keep_copy(l->of.path, got->body, got->len);
    if (r != 0)
        log_warning("rule-providers.%s: it cannot be kept in %.200s: %s; a restart will not know it",
                    l->of.name, l->of.path, strerror(-r));
    report(l, &lines);
    succeeded(l);
}

/* ---- fetching --------------------------------------------------------------------------------------------------------------- */

static void on_done(struct loop_msg *m)
{
    struct list_fetch *f = CONTAINER_OF(CONTAINER_OF(m, struct worker_fetch, msg), struct list_fetch, worker);
    const struct up_fetched *got = &f->worker.result;
    struct rule_list *l = f->list;

    if (l != NULL) {
        l->fetch = NULL;
        if (got->err != 0)
            failed(l, got->why);
        else if (got->status == 304)
            succeeded(l);
        else
            take(l, got);
    }
    if (l != NULL && got->err == 0 && got->status == 304)
        (void)utimensat(AT_FDCWD, l->of.path, NULL, 0); /* it is as good as new */
    forward_policy_unref(f->policy);
    free(f->worker.result.body);
    free(f->url);
    free(f);
}

static void on_due(struct loop_timer *t)
{
    struct rule_list *l = CONTAINER_OF(t, struct rule_list, timer);
    struct gateway *g = l->g;
    struct list_fetch *f = calloc(1, sizeof(*f));
    size_t targets;

    if (f == NULL || (f->url = strdup(l->of.url)) == NULL) {
        free(f);
        failed(l, "no memory to fetch it");
        return;
    }
    f->list = l;
    f->policy = forward_policy_ref(g->policy);
    f->worker = (struct worker_fetch){
        .options = { .up = forward_policy_targets(g->policy, &targets)[l->of.exit],
                     .url = f->url,
                     .tls = l->of.tls,
                     .max_bytes = l->of.max_bytes,
                     .silence_us = SILENCE_US,
                     .validator = l->validator },
        .back = g->setup.loop,
        .done = on_done,
    };
    memcpy(f->worker.validator, l->validator, sizeof(l->validator));
    f->worker.options.validator = f->worker.validator;
    l->fetch = f;
    worker_fetch(g->workers[0], &f->worker);
}

/* ---- life --------------------------------------------------------------------------------------------------------------------- */

/* A copy that is younger than the interval will do. */
static uint64_t first_due_us(const struct config_provider *p)
{
    struct timespec now;
    struct stat st;
    int64_t age_s;

    if (stat(p->path, &st) != 0 || clock_gettime(CLOCK_REALTIME, &now) != 0)
        return 0;
    age_s = (int64_t)now.tv_sec - (int64_t)st.st_mtim.tv_sec;
    if (p->interval_ms == 0)
        return UINT64_MAX;
    if (age_s < 0 || (uint64_t)age_s * 1000 >= p->interval_ms)
        return 0;
    return ((uint64_t)p->interval_ms - (uint64_t)age_s * 1000) * 1000;
}

static void list_free(struct rule_list *l)
{
    loop_timer_stop(l->g->setup.loop, &l->timer);
    if (l->fetch != NULL)
        l->fetch->list = NULL;
    rule_set_unref(l->of.set);
    tls_settings_unref(l->of.tls);
    free((void *)l->of.name);
    free((void *)l->of.url);
    free((void *)l->of.path);
}

static int list_open(struct gateway *g, const struct config_provider *p, uint64_t wait_us,
                     struct rule_list *l)
{
    uint64_t due_us = first_due_us(p), seed = 0;

    *l = (struct rule_list){ .g = g, .of = *p };
    (void)random_bytes(&seed, sizeof(seed));
    prng_seed(&l->prng, seed);
    l->of.set = rule_set_ref(p->set);
    l->of.tls = p->tls != NULL ? tls_settings_ref(p->tls) : NULL;
    l->of.name = strdup(p->name);
    l->of.url = strdup(p->url);
    l->of.path = strdup(p->path);
    if (l->of.name == NULL || l->of.url == NULL || l->of.path == NULL) {
        list_free(l);
        return -ENOMEM;
    }
    if (due_us != UINT64_MAX)
        due_in(l, due_us > wait_us ? due_us : wait_us);
    return 0;
}

void gateway_lists_open(struct gateway *g, const struct config *c, uint64_t wait_us)
{
    g->lists = calloc(c->provider_count + 1, sizeof(*g->lists));
    for (size_t i = 0; g->lists != NULL && i < c->provider_count; i++) {
        if (c->providers[i].type == CONFIG_PROVIDER_HTTP &&
            list_open(g, &c->providers[i], wait_us, &g->lists[g->list_count]) == 0)
            g->list_count++;
    }
}

void gateway_lists_close(struct gateway *g)
{
    for (size_t i = 0; i < g->list_count; i++)
        list_free(&g->lists[i]);
    free(g->lists);
    g->lists = NULL;
    g->list_count = 0;
}
