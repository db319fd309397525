/* json.c - a status snapshot as JSON.
 *
 * The top level has `counters`, each summed over the workers, and `flows`, how many are open: what a person and a test ask first.
 * `workers` repeats them one by one, and `connections` lists the live flows when they were asked for. */
#ifdef WITH_API

#include "api_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

static const char *proto_text(uint8_t proto)
{
    switch ((enum ip_proto)proto) {
    case IP_PROTO_TCP:
        return "tcp";
    case IP_PROTO_UDP:
        return "udp";
    case IP_PROTO_ICMP:
    case IP_PROTO_ICMPV6:
        return "icmp";
    }
    return "other";
}

static json_t *json_count(uint64_t n) /* JSON numbers are signed here; a counter never gets that far */
{
    return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

static json_t *json_counters(const struct status_worker *w)
{
    json_t *o = json_object();

    for (size_t i = 0; i < w->counter_count; i++)
        json_object_set_new(o, w->counters[i].name, json_count(w->counters[i].value));
    return o;
}

static json_t *json_pools(const struct status_worker *w)
{
    json_t *o = json_object();

    for (size_t i = 0; i < w->pool_count; i++) {
        const struct status_pool *p = &w->pools[i];

        json_object_set_new(o, p->name,
                            json_pack("{so, so, so, so, so}", "object-bytes", json_count(p->object_bytes),
                                      "in-use", json_count(p->in_use), "high-water",
                                      json_count(p->high_water), "limit", json_count(p->limit), "failed",
                                      json_count(p->failed)));
    }
    return o;
}

static json_t *json_group(const struct status_group *g)
{
    json_t *members = json_object();

    for (uint32_t i = 0; i < g->member_count; i++) {
        const struct status_member *m = &g->members[i];

        json_object_set_new(members, m->name,
                            json_pack("{sb, sI, sI}", "down", m->down, "failures", (json_int_t)m->failures,
                                      "delay-ms", (json_int_t)m->delay_ms));
    }
    return json_pack("{ss, ss, so}", "type", g->type, "now",
                     g->now < g->member_count ? g->members[g->now].name : "", "members", members);
}

/* Groups as the first worker sees them: it is the one that tests. */
static json_t *json_groups(const struct status_snapshot *s)
{
    json_t *groups = json_object();

    for (size_t i = 0; s->worker_count > 0 && i < s->workers[0].group_count; i++) {
        const struct status_group *g = &s->workers[0].groups[i];

        json_object_set_new(groups, g->name, json_group(g));
    }
    return groups;
}

/* What each worker would take now: mostly the same. */
static json_t *json_choices(const struct status_worker *w)
{
    json_t *o = json_object();

    for (size_t i = 0; i < w->group_count; i++) {
        const struct status_group *g = &w->groups[i];

        json_object_set_new(o, g->name, json_string(g->now < g->member_count ? g->members[g->now].name : ""));
    }
    return o;
}

static json_t *json_memory(const struct memory_use *use)
{
    json_t *o = json_object();

    for (int p = 0; p < MEMORY_PURPOSE_COUNT; p++) {
        char name[32];

        snprintf(name, sizeof(name), "%s_bytes", memory_purpose_name((enum memory_purpose)p));
        json_object_set_new(o, name, json_count(use->bytes[p]));
    }
    return o;
}

static json_t *json_memory_sums(const struct status_snapshot *s)
{
    struct memory_use all = s->memory;

    for (size_t w = 0; w < s->worker_count; w++)
        for (size_t p = 0; p < MEMORY_PURPOSE_COUNT; p++)
            all.bytes[p] += s->workers[w].memory.bytes[p];
    return json_memory(&all);
}

static json_t *json_worker(const struct status_worker *w)
{
    return json_pack("{si, si, si, si, so, so, so, so}", "index", (int)w->index, "tcp-flows",
                     (int)w->tcp_flows, "udp-flows", (int)w->udp_flows, "half-open", (int)w->half_open,
                     "counters", json_counters(w), "memory", json_memory(&w->memory), "pools", json_pools(w),
                     "groups", json_choices(w));
}

static json_t *json_flow(const struct status_flow *f)
{
    char client[IP_PORT_TEXT_MAX], target[IP_PORT_TEXT_MAX], id[20];
    struct ip_port c = { f->key.client, f->key.client_port }, t = { f->key.target, f->key.target_port };

    snprintf(id, sizeof(id), "%016" PRIx64, f->id);
    return json_pack("{ss, ss, ss, ss, ss, ss, ss, sI, ss, sb, sI, so, so, so}", "id", id, "network",
                     proto_text(f->key.proto), "source", ip_port_text(&c, client), "destination",
                     ip_port_text(&t, target), "host", f->host != NULL ? f->host : "", "upstream",
                     f->upstream != NULL ? f->upstream : "", "state", f->state != NULL ? f->state : "",
                     "rule", (json_int_t)f->rule, "rule-text", f->rule_text != NULL ? f->rule_text : "",
                     "left", f->left, "worker", (json_int_t)f->worker, "age-ms", json_count(f->age_ms), "up",
                     json_count(f->bytes_up), "down", json_count(f->bytes_down));
}

/* Workers name the same counters, so the sums take the first one's order. */
static json_t *json_sums(const struct status_snapshot *s)
{
    json_t *sums = json_object();

    for (size_t w = 0; w < s->worker_count; w++) {
        for (size_t i = 0; i < s->workers[w].counter_count; i++) {
            const struct status_counter *c = &s->workers[w].counters[i];
            json_t *old = json_object_get(sums, c->name);
            uint64_t before = old != NULL ? (uint64_t)json_integer_value(old) : 0;

            json_object_set_new(sums, c->name, json_count(before + c->value));
        }
    }
    return sums;
}

static json_t *json_flow_counts(const struct status_snapshot *s)
{
    uint64_t tcp = 0, udp = 0;

    for (size_t w = 0; w < s->worker_count; w++) {
        tcp += s->workers[w].tcp_flows;
        udp += s->workers[w].udp_flows;
    }
    return json_pack("{so, so}", "tcp", json_count(tcp), "udp", json_count(udp));
}

static const char *text_or_none(const char *text)
{
    return text != NULL ? text : "";
}

static json_t *json_not_followed(const struct status_snapshot *s)
{
    char text[IP_TEXT_MAX], whole[IP_TEXT_MAX + 8];
    json_t *list = json_array();

    for (size_t i = 0; i < s->not_followed_count; i++) {
        const struct ip_prefix *net = &s->not_followed[i];

        snprintf(whole, sizeof(whole), "%s/%u", ip_text(&net->addr, text),
                 ip_is4(&net->addr) ? net->len - 96u : net->len);
        json_array_append_new(list, json_string(whole));
    }
    return list;
}

static json_t *json_all(const struct status_snapshot *s)
{
    json_t *workers = json_array();

    for (size_t i = 0; i < s->worker_count; i++)
        json_array_append_new(workers, json_worker(&s->workers[i]));
    return json_pack("{ss, ss, ss, ss, si, so, so, so, so, so, so, so, so, so, so, so}", "version",
                     text_or_none(s->version), "tun", text_or_none(s->tun), "offload",
                     text_or_none(s->offload), "steering", text_or_none(s->steering), "mtu", (int)s->mtu,
                     "tun-kernel-drops", json_count(s->tun_kernel_drops), "uptime-ms",
                     json_count(s->uptime_ms), "rss-bytes", json_count(s->rss_bytes), "memory-limit-bytes",
                     json_count(s->budget_bytes), "memory", json_memory_sums(s), "log-lines-lost",
                     json_count(s->log_lines_lost), "flows", json_flow_counts(s), "counters", json_sums(s),
                     "groups", json_groups(s), "routes-not-followed", json_not_followed(s), "workers",
                     workers);
}

/* @o is used up. Return: its text and a newline, malloc'd; NULL: no memory. */
static char *text_of(json_t *o)
{
    char *text = o != NULL ? json_dumps(o, JSON_INDENT(2)) : NULL, *line;
    size_t len;

    json_decref(o);
    if (text == NULL)
        return NULL;
    len = strlen(text);
    line = realloc(text, len + 2);
    if (line == NULL)
        free(text);
    else
        memcpy(line + len, "\n", 2);
    return line;
}

static json_t *json_flows(const struct status_snapshot *s)
{
    json_t *flows = json_array();

    for (size_t i = 0; i < s->flow_count; i++)
        json_array_append_new(flows, json_flow(&s->flows[i]));
    return flows;
}

char *api_json_status(const struct status_snapshot *s, bool flows)
{
    json_t *o = json_all(s);

    if (flows)
        json_object_set_new(o, "connections", json_flows(s));
    return text_of(o);
}

char *api_json_flows(const struct status_snapshot *s)
{
    return text_of(json_pack("{so}", "flows", json_flows(s)));
}

char *api_json_groups(const struct status_snapshot *s)
{
    return text_of(json_pack("{so}", "groups", json_groups(s)));
}

char *api_json_group(const struct status_snapshot *s, const char *name)
{
    for (size_t i = 0; s->worker_count > 0 && i < s->workers[0].group_count; i++)
        if (strcmp(s->workers[0].groups[i].name, name) == 0)
            return text_of(json_group(&s->workers[0].groups[i]));
    return NULL;
}

/* As each worker sees it: health is learned from its own flows. */
static json_t *json_upstream_views(const struct status_snapshot *s, size_t at)
{
    json_t *views = json_array();

    for (size_t w = 0; w < s->worker_count; w++) {
        const struct status_upstream *u =
            at < s->workers[w].upstream_count ? &s->workers[w].upstreams[at] : NULL;

        if (u != NULL)
            json_array_append_new(
                views, json_pack("{sI, sI, sI, so, sb}", "worker", (json_int_t)s->workers[w].index,
                                 "failures", (json_int_t)u->failures, "rtt-us", (json_int_t)u->rtt_us,
                                 "good-ms", u->good_ms == UINT64_MAX ? json_null() : json_count(u->good_ms),
                                 "udp-refused", u->udp_refused));
    }
    return views;
}

char *api_json_upstreams(const struct status_snapshot *s)
{
    json_t *all = json_object();

    for (size_t i = 0; s->worker_count > 0 && i < s->workers[0].upstream_count; i++) {
        const struct status_upstream *u = &s->workers[0].upstreams[i];

        json_object_set_new(all, u->name,
                            json_pack("{ss, so}", "type", u->type, "workers", json_upstream_views(s, i)));
    }
    return text_of(json_pack("{so}", "upstreams", all));
}

char *api_json_rules(const struct status_snapshot *s)
{
    json_t *rules = json_array();

    for (size_t i = 0; i < s->rule_count; i++)
        json_array_append_new(rules, json_pack("{ss, ss, so}", "rule", text_or_none(s->rules[i].text), "via",
                                               text_or_none(s->rules[i].target), "hits",
                                               json_count(s->rules[i].hits)));
    return text_of(json_pack("{so}", "rules", rules));
}

/* One line: a message of a websocket. */
static char *line_of(json_t *o)
{
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;

    json_decref(o);
    return text;
}

static json_t *json_ended(const struct status_ended *e)
{
    char client[IP_PORT_TEXT_MAX], target[IP_PORT_TEXT_MAX], id[20];
    struct ip_port c = { e->key.client, e->key.client_port }, t = { e->key.target, e->key.target_port };

    snprintf(id, sizeof(id), "%016" PRIx64, e->id);
    return json_pack("{ss, ss, ss, ss, ss, ss, ss, ss, so, so, sI}", "id", id, "network",
                     proto_text(e->key.proto), "source", ip_port_text(&c, client), "destination",
                     ip_port_text(&t, target), "host", e->host, "upstream", e->upstream, "rule", e->rule,
                     "reason", e->reason, "up", json_count(e->up), "down", json_count(e->down), "age-ms",
                     (json_int_t)e->age_ms);
}

char *api_json_ended(const struct status_ended *e)
{
    json_t *o = json_ended(e);

    if (o != NULL)
        json_object_set_new(o, "event", json_string("ended"));
    return line_of(o);
}

char *api_json_last(const struct status_snapshot *s)
{
    json_t *all = json_array();

    for (size_t i = 0; i < s->ended_count; i++) {
        json_t *o = json_ended(&s->ended[i]);

        if (o != NULL)
            json_object_set_new(o, "ago-ms", json_count(s->ended[i].ago_ms));
        json_array_append_new(all, o);
    }
    return text_of(json_pack("{so}", "ended", all));
}

char *api_json_counters(const struct status_snapshot *s, uint64_t lost)
{
    return line_of(json_pack("{ss, so, so, so}", "event", "counters", "lost", json_count(lost), "flows",
                             json_flow_counts(s), "counters", json_sums(s)));
}

char *api_json_error(const char *sentence, int line, int column)
{
    json_t *o = json_pack("{ss}", "error", sentence);

    if (o == NULL) /* bytes that are no UTF-8: what a caller sent must not cost it its answer */
        o = json_pack("{ss}", "error", "the request holds bytes that are no UTF-8");
    if (line > 0) {
        json_object_set_new(o, "line", json_integer(line));
        json_object_set_new(o, "column", json_integer(column));
    }
    return text_of(o);
}

#endif
