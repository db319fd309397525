/* text.c - the live flows as a table for people: `culvert connections`. */
#include "api_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* 1234567 as "1.2M": four characters and a letter at most. */
static const char *bytes_text(uint64_t n, char out[32])
{
    static const char units[] = "BKMGTPE";
    double v = (double)n;
    size_t u = 0;

    for (; v >= 1000 && u + 2 < sizeof(units); u++)
        v /= 1024;
    snprintf(out, 32, u > 0 && v < 10 ? "%.1f%c" : "%.0f%c", v, units[u]);
    return out;
}

static const char *age_text(uint64_t ms, char out[32])
{
    uint64_t s = ms / 1000;

    if (s < 60)
        snprintf(out, 32, "%" PRIu64 ".%" PRIu64 "s", s, ms % 1000 / 100);
    else if (s < 3600)
        snprintf(out, 32, "%" PRIu64 "m%02" PRIu64 "s", s / 60, s % 60);
    else
        snprintf(out, 32, "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s / 60 % 60);
    return out;
}

static void put_flow(FILE *f, const struct status_flow *flow)
{
    struct ip_port c = { flow->key.client, flow->key.client_port };
    struct ip_port t = { flow->key.target, flow->key.target_port };
    char client[IP_PORT_TEXT_MAX], target[IP_PORT_TEXT_MAX], up[32], down[32], age[32];

    fprintf(f, "%016" PRIx64 " %-3s %-8s %7s %7s %7s  %s -> %s%s%s%s via %s%s by %s\n", flow->id,
            flow->key.proto == IP_PROTO_TCP ? "tcp" : "udp", flow->state != NULL ? flow->state : "",
            age_text(flow->age_ms, age), bytes_text(flow->bytes_up, up), bytes_text(flow->bytes_down, down),
            ip_port_text(&c, client), ip_port_text(&t, target), flow->host != NULL ? " (" : "",
            flow->host != NULL ? flow->host : "", flow->host != NULL ? ")" : "",
            flow->upstream != NULL ? flow->upstream : "",
            flow->left ? " (not in the configuration any more)" : "",
            flow->rule_text != NULL ? flow->rule_text : "");
}

static void put_last(FILE *f, const struct status_ended *e)
{
    struct ip_port c = { e->key.client, e->key.client_port };
    struct ip_port t = { e->key.target, e->key.target_port };
    char client[IP_PORT_TEXT_MAX], target[IP_PORT_TEXT_MAX], up[32], down[32], age[32], ago[32];

    fprintf(f, "%-3s %7s %7s %7s %7s  %s -> %s%s%s%s via %s by %s: %s\n",
            e->key.proto == IP_PROTO_TCP ? "tcp" : "udp", age_text(e->ago_ms, ago), age_text(e->age_ms, age),
            bytes_text(e->up, up), bytes_text(e->down, down), ip_port_text(&c, client),
            ip_port_text(&t, target), e->host[0] != '\0' ? " (" : "", e->host, e->host[0] != '\0' ? ")" : "",
            e->upstream, e->rule, e->reason);
}

/* @f: of open_memstream(), behind *text. Return: *text; NULL: no memory */
static char *text_end(FILE *f, char *const *text)
{
    bool whole = ferror(f) == 0;

    if (fclose(f) == 0 && whole)
        return *text;
    free(*text);
    return NULL;
}

char *api_text_last(const struct status_snapshot *s)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    if (f == NULL)
        return NULL;
    fprintf(f, "%-3s %7s %7s %7s %7s  %s\n", "net", "ago", "age", "up", "down", "flow");
    for (size_t i = 0; i < s->ended_count; i++)
        put_last(f, &s->ended[i]);
    return text_end(f, &text);
}

char *api_text_flows(const struct status_snapshot *s)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    if (f == NULL)
        return NULL;
    fprintf(f, "%-16s %-3s %-8s %7s %7s %7s  %s\n", "id", "net", "state", "age", "up", "down", "flow");
    for (size_t i = 0; i < s->flow_count; i++)
        put_flow(f, &s->flows[i]);
    return text_end(f, &text);
}
