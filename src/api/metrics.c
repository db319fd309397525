/* metrics.c - a snapshot in the text format of Prometheus, version 0.0.4.
 *
 * How it works. Each counter of `culvert status` is a family of its own, culvert_NAME_total, with a label for the worker; a few
 * that differ in a label only are one family (the table `splits`; icmp.md 4.10 fixes the names of the echo proxy's). A family's
 * HELP and TYPE come once and its series together, as the format wants. Names have no address and no secret in them. */
#include "api_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAMILY_MAX 96
enum { RULE_SERIES_MAX = 500 };

/* Counters that are one family: what follows the prefix is the label's value. */
static const struct split {
    const char *prefix, *family, *label, *help;
} splits[] = {
    { "icmp_proxy.requests_", "icmp_proxy_requests_total", "family", "Echo requests sent to targets." },
    { "icmp_proxy.errors_relayed_", "icmp_proxy_errors_relayed_total", "error",
      "ICMP errors of the network that clients were told of, by family, type and code." },
    { "icmp_proxy.drops_", "icmp_proxy_drops_total", "reason", "Requests and answers thrown away." },
    { "icmp_proxy.send_errors_", "icmp_proxy_send_errors_total", "errno", "Requests that did not leave." },
    { "icmp_proxy.families_", "icmp_proxy_mode", "mode", "Address families that are carried in this way." },
};

/* "v4_3_1": the three labels of an error; "other" has none. */
static void put_error_labels(FILE *f, const char *value)
{
    unsigned family, type, code;

    if (sscanf(value, "v%u_%u_%u", &family, &type, &code) == 3)
        fprintf(f, ",family=\"v%u\",type=\"%u\",code=\"%u\"", family, type, code);
    else
        fputs(",family=\"\",type=\"other\",code=\"other\"", f);
}

/* What goes back as well. */
static const char *const gauges[] = { "icmp_proxy.flows", "icmp_proxy.flows_pooled",
                                      "icmp_proxy.outstanding" };

/* ---- text ---- */

/* A label's value: backslash, quote and newline are escaped. */
static void put_value(FILE *f, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            fputs("\\n", f);
        else {
            if (*text == '\\' || *text == '"')
                putc('\\', f);
            putc(*text, f);
        }
    }
}

static void put_head(FILE *f, const char *family, const char *type, const char *help)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", family, help, family, type);
}

static void put_one(FILE *f, const char *family, const char *type, const char *help, double value)
{
    put_head(f, family, type, help);
    fprintf(f, "%s %.17g\n", family, value);
}

/* ---- counters ---- */

struct metric {
    char family[FAMILY_MAX];
    const char *label, *value; /* NULL: the worker is the only label */
    const char *help;          /* NULL: none of its own */
    bool gauge;
};

static bool is_gauge(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(gauges); i++)
        if (strcmp(name, gauges[i]) == 0)
            return true;
    return false;
}

static void metric_of(const char *name, struct metric *out)
{
    bool icmp = strncmp(name, "icmp_proxy.", 11) == 0;
    bool gauge = is_gauge(name);

    *out = (struct metric){ .gauge = gauge };
    for (size_t i = 0; i < ARRAY_LEN(splits); i++) {
        size_t len = strlen(splits[i].prefix);

        if (strncmp(name, splits[i].prefix, len) != 0)
            continue;
        snprintf(out->family, sizeof(out->family), "%s", splits[i].family);
        out->label = splits[i].label;
        out->value = name + len;
        out->help = splits[i].help;
        out->gauge = strstr(splits[i].family, "_total") == NULL;
        return;
    }
    snprintf(out->family, sizeof(out->family), "%s%s%s", icmp ? "" : "culvert_", name, gauge ? "" : "_total");
    for (char *c = out->family; *c != '\0'; c++)
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", *c) == NULL)
            *c = '_';
}

static void put_series(FILE *f, const struct status_snapshot *s, const char *name, const struct metric *m)
{
    for (size_t w = 0; w < s->worker_count; w++) {
        for (size_t i = 0; i < s->workers[w].counter_count; i++) {
            const struct status_counter *c = &s->workers[w].counters[i];

            if (strcmp(c->name, name) != 0)
                continue;
            fprintf(f, "%s{worker=\"%" PRIu32 "\"", m->family, s->workers[w].index);
            if (m->label != NULL && strcmp(m->label, "error") == 0)
                put_error_labels(f, m->value);
            else if (m->label != NULL)
                fprintf(f, ",%s=\"%s\"", m->label, m->value);
            fprintf(f, "} %" PRIu64 "\n", c->value);
        }
    }
}

/* The counters of the echo proxy's histogram are one metric, put_rtt(). */
static bool is_apart(const char *name)
{
    return strncmp(name, "icmp_proxy.rtt_", 15) == 0;
}

static void put_counters(FILE *f, const struct status_snapshot *s)
{
    const struct status_worker *first = s->worker_count > 0 ? &s->workers[0] : NULL;
    char done[ARRAY_LEN(splits)] = { 0 };

    for (size_t i = 0; first != NULL && i < first->counter_count; i++) {
        const char *name = first->counters[i].name;
        struct metric m, other;
        char help[160];

        metric_of(name, &m);
        if (is_apart(name))
            continue;
        snprintf(help, sizeof(help), "%s in culvert status.", name);
        if (m.label == NULL) {
            put_head(f, m.family, m.gauge ? "gauge" : "counter", help);
            put_series(f, s, name, &m);
            continue;
        }
        for (size_t k = 0; k < ARRAY_LEN(splits); k++) { /* with the first of a family come all of it */
            if (strcmp(splits[k].family, m.family) != 0 || done[k])
                continue;
            done[k] = 1;
            put_head(f, m.family, m.gauge ? "gauge" : "counter", m.help);
            for (size_t j = i; j < first->counter_count; j++) {
                metric_of(first->counters[j].name, &other);
                if (strcmp(other.family, m.family) == 0)
                    put_series(f, s, first->counters[j].name, &other);
            }
        }
    }
}

static uint64_t counter_of(const struct status_worker *w, const char *name)
{
    for (size_t i = 0; i < w->counter_count; i++)
        if (strcmp(w->counters[i].name, name) == 0)
            return w->counters[i].value;
    return 0;
}

static void put_rtt(FILE *f, const struct status_snapshot *s)
{
    static const struct {
        const char *name, *le;
    } buckets[] = {
        { "icmp_proxy.rtt_le_1ms", "0.001" }, { "icmp_proxy.rtt_le_3ms", "0.003" },
        { "icmp_proxy.rtt_le_10ms", "0.01" }, { "icmp_proxy.rtt_le_30ms", "0.03" },
        { "icmp_proxy.rtt_le_100ms", "0.1" }, { "icmp_proxy.rtt_le_300ms", "0.3" },
        { "icmp_proxy.rtt_le_1s", "1" },      { "icmp_proxy.rtt_more", "+Inf" },
    };

    put_head(f, "icmp_proxy_rtt_seconds", "histogram", "Time from a request to its reply.");
    for (size_t w = 0; w < s->worker_count; w++) {
        const struct status_worker *of = &s->workers[w];
        uint64_t sum = 0;

        for (size_t i = 0; i < ARRAY_LEN(buckets); i++) { /* cumulative, as the format has them */
            sum += counter_of(of, buckets[i].name);
            fprintf(f, "icmp_proxy_rtt_seconds_bucket{worker=\"%" PRIu32 "\",le=\"%s\"} %" PRIu64 "\n",
                    of->index, buckets[i].le, sum);
        }
        fprintf(f, "icmp_proxy_rtt_seconds_sum{worker=\"%" PRIu32 "\"} %.6f\n", of->index,
                (double)counter_of(of, "icmp_proxy.rtt_sum_us") / 1e6);
        fprintf(f, "icmp_proxy_rtt_seconds_count{worker=\"%" PRIu32 "\"} %" PRIu64 "\n", of->index, sum);
    }
}

/* ---- flows, memory ---- */

static void put_flows(FILE *f, const struct status_snapshot *s)
{
    put_head(f, "culvert_flows", "gauge", "Open flows.");
    for (size_t w = 0; w < s->worker_count; w++)
        fprintf(f,
                "culvert_flows{worker=\"%" PRIu32 "\",network=\"tcp\"} %" PRIu32 "\n"
                "culvert_flows{worker=\"%" PRIu32 "\",network=\"udp\"} %" PRIu32 "\n",
                s->workers[w].index, s->workers[w].tcp_flows, s->workers[w].index, s->workers[w].udp_flows);
    put_head(f, "culvert_half_open", "gauge", "Clients' SYNs that are not answered yet.");
    for (size_t w = 0; w < s->worker_count; w++)
        fprintf(f, "culvert_half_open{worker=\"%" PRIu32 "\"} %" PRIu32 "\n", s->workers[w].index,
                s->workers[w].half_open);
}

static uint64_t pool_bytes(const struct status_pool *p)
{
    return p->in_use * p->object_bytes;
}
static uint64_t pool_high_bytes(const struct status_pool *p)
{
    return p->high_water * p->object_bytes;
}
static uint64_t pool_limit_bytes(const struct status_pool *p)
{
    return p->limit * p->object_bytes;
}
static uint64_t pool_failed(const struct status_pool *p)
{
    return p->failed;
}

static void put_pools(FILE *f, const struct status_snapshot *s)
{
    static const struct {
        const char *family, *type, *help;
        uint64_t (*value)(const struct status_pool *p);
    } columns[] = {
        { "culvert_pool_bytes", "gauge", "Objects in use, by pool.", pool_bytes },
        { "culvert_pool_high_water_bytes", "gauge", "The most that was in use, by pool.", pool_high_bytes },
        { "culvert_pool_limit_bytes", "gauge", "The most that may be in use, by pool.", pool_limit_bytes },
        { "culvert_pool_refused_total", "counter", "Times that there was no more, by pool.", pool_failed },
    };

    for (size_t c = 0; c < ARRAY_LEN(columns); c++) {
        put_head(f, columns[c].family, columns[c].type, columns[c].help);
        for (size_t w = 0; w < s->worker_count; w++)
            for (size_t i = 0; i < s->workers[w].pool_count; i++)
                fprintf(f, "%s{worker=\"%" PRIu32 "\",pool=\"%s\"} %" PRIu64 "\n", columns[c].family,
                        s->workers[w].index, s->workers[w].pools[i].name,
                        columns[c].value(&s->workers[w].pools[i]));
    }
}

/* What a worker holds, and what they share as worker "all"; a purpose without bytes has no series. */
static void put_memory(FILE *f, const struct status_snapshot *s)
{
    put_head(f, "culvert_memory_bytes", "gauge",
             "Memory held, by purpose; geodata is mapped, and not of the limit.");
    for (size_t w = 0; w <= s->worker_count; w++) {
        const struct memory_use *use = w < s->worker_count ? &s->workers[w].memory : &s->memory;
        char index[12] = "all";

        if (w < s->worker_count)
            snprintf(index, sizeof(index), "%" PRIu32, s->workers[w].index);
        for (int p = 0; p < MEMORY_PURPOSE_COUNT; p++)
            if (use->bytes[p] > 0)
                fprintf(f, "culvert_memory_bytes{worker=\"%s\",purpose=\"%s\"} %" PRIu64 "\n", index,
                        memory_purpose_name((enum memory_purpose)p), use->bytes[p]);
    }
}

/* ---- ways out ---- */

static void put_named(FILE *f, const char *family, uint32_t worker, const char *label, const char *name)
{
    fprintf(f, "%s{worker=\"%" PRIu32 "\",%s=\"", family, worker, label);
    put_value(f, name);
}

static void put_upstreams(FILE *f, const struct status_snapshot *s)
{
    put_head(f, "culvert_upstream_failures", "gauge", "Failures in a row.");
    for (size_t w = 0; w < s->worker_count; w++)
        for (size_t i = 0; i < s->workers[w].upstream_count; i++) {
            put_named(f, "culvert_upstream_failures", s->workers[w].index, "upstream",
                      s->workers[w].upstreams[i].name);
            fprintf(f, "\"} %" PRIu32 "\n", s->workers[w].upstreams[i].failures);
        }
    put_head(f, "culvert_upstream_rtt_seconds", "gauge",
             "Time of a connect to its server; none until there was one.");
    for (size_t w = 0; w < s->worker_count; w++)
        for (size_t i = 0; i < s->workers[w].upstream_count; i++) {
            if (s->workers[w].upstreams[i].rtt_us == 0)
                continue;
            put_named(f, "culvert_upstream_rtt_seconds", s->workers[w].index, "upstream",
                      s->workers[w].upstreams[i].name);
            fprintf(f, "\"} %.6f\n", s->workers[w].upstreams[i].rtt_us / 1e6);
        }
    put_head(f, "culvert_upstream_idle_seconds", "gauge",
             "Since its last handshake or data; none before the first.");
    for (size_t w = 0; w < s->worker_count; w++)
        for (size_t i = 0; i < s->workers[w].upstream_count; i++) {
            if (s->workers[w].upstreams[i].good_ms == UINT64_MAX)
                continue;
            put_named(f, "culvert_upstream_idle_seconds", s->workers[w].index, "upstream",
                      s->workers[w].upstreams[i].name);
            fprintf(f, "\"} %.3f\n", (double)s->workers[w].upstreams[i].good_ms / 1e3);
        }
}

static void put_member(FILE *f, const char *family, const struct status_worker *w,
                       const struct status_group *g, uint32_t i)
{
    put_named(f, family, w->index, "group", g->name);
    fputs("\",member=\"", f);
    put_value(f, g->members[i].name);
    fputs("\"} ", f);
}

static void put_groups(FILE *f, const struct status_snapshot *s)
{
    put_head(f, "culvert_group_member_taken", "gauge", "1: new flows of the group take this member.");
    for (size_t w = 0; w < s->worker_count; w++)
        for (size_t g = 0; g < s->workers[w].group_count; g++)
            for (uint32_t i = 0; i < s->workers[w].groups[g].member_count; i++) {
                put_member(f, "culvert_group_member_taken", &s->workers[w], &s->workers[w].groups[g], i);
                fprintf(f, "%d\n", s->workers[w].groups[g].now == i);
            }
    put_head(f, "culvert_group_member_down", "gauge", "1: the member failed too often and is left out.");
    for (size_t w = 0; w < s->worker_count; w++)
        for (size_t g = 0; g < s->workers[w].group_count; g++)
            for (uint32_t i = 0; i < s->workers[w].groups[g].member_count; i++) {
                put_member(f, "culvert_group_member_down", &s->workers[w], &s->workers[w].groups[g], i);
                fprintf(f, "%d\n", s->workers[w].groups[g].members[i].down);
            }
}

static void put_rule(FILE *f, size_t i, const struct status_rule *rule)
{
    fprintf(f, "culvert_rule_hits_total{rule=\"%zu\",text=\"", i);
    put_value(f, rule->text != NULL ? rule->text : "");
    fputs("\",via=\"", f);
    put_value(f, rule->target != NULL ? rule->target : "");
    fprintf(f, "\"} %" PRIu64 "\n", rule->hits);
}

/* Files have 100,000 rules; who collects metrics pays for each series for ever. The last one stands for flows that no rule took. */
static void put_rules(FILE *f, const struct status_snapshot *s)
{
    size_t shown = s->rule_count <= RULE_SERIES_MAX ? s->rule_count : RULE_SERIES_MAX - 1;
    uint64_t others = 0;

    put_head(f, "culvert_rule_hits_total", "counter", "Flows that the rule took since it was loaded.");
    for (size_t i = 0; i < shown; i++)
        put_rule(f, i, &s->rules[i]);
    if (shown == s->rule_count)
        return;
    for (size_t i = shown; i + 1 < s->rule_count; i++)
        others += s->rules[i].hits;
    put_rule(f, s->rule_count - 1, &s->rules[s->rule_count - 1]);
    fprintf(f, "culvert_rule_hits_total{rule=\"other\",text=\"\",via=\"\"} %" PRIu64 "\n", others);
}

static void put_process(FILE *f, const struct status_snapshot *s)
{
    put_head(f, "culvert_info", "gauge", "Always 1: what runs here.");
    fputs("culvert_info{version=\"", f);
    put_value(f, s->version != NULL ? s->version : "");
    fputs("\",tun=\"", f);
    put_value(f, s->tun != NULL ? s->tun : "");
    fputs("\",offload=\"", f);
    put_value(f, s->offload != NULL ? s->offload : "");
    fputs("\"} 1\n", f);
    put_one(f, "culvert_uptime_seconds", "gauge", "Since the gateway began.", (double)s->uptime_ms / 1e3);
    put_one(f, "culvert_resident_memory_bytes", "gauge", "Of the process.", (double)s->rss_bytes);
    put_one(f, "culvert_memory_budget_bytes", "gauge", "limits.memory as it is in force.",
            (double)s->budget_bytes);
    put_one(f, "culvert_tun_kernel_drops_total", "counter",
            "Packets that found the queue of the device full.", (double)s->tun_kernel_drops);
    put_one(f, "culvert_routes_not_followed", "gauge",
            "Routes of others that would lead past the tunnel (strict-route).",
            (double)s->not_followed_count);
    put_one(f, "culvert_log_lines_lost_total", "counter", "Lines of the log that could not be written.",
            (double)s->log_lines_lost);
}

char *api_metrics(const struct status_snapshot *s)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    bool whole;

    if (f == NULL)
        return NULL;
    put_process(f, s);
    put_flows(f, s);
    put_counters(f, s);
    if (s->worker_count > 0)
        put_rtt(f, s);
    put_memory(f, s);
    put_pools(f, s);
    put_upstreams(f, s);
    put_groups(f, s);
    put_rules(f, s);
    whole = ferror(f) == 0;
    if (fclose(f) == 0 && whole)
        return text;
    free(text);
    return NULL;
}
