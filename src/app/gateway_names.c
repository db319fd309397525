/* gateway_names.c - what all workers know of names: the book of addresses, its file, and the services that answer DNS.
 *
 * The file (`fake-ip` in runtime.state-dir) is read before any worker gives a fake address (at the start, or when a reload brings the
 * mode), and written by the main thread: SAVE_US after a name was added, and at the end. Whatever goes wrong with it is one line, and costs no more than the memory of addresses. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/dns.h"
#include "gateway_impl.h"
#include "state_file.h"

#define FILE_NAME "fake-ip"
#define SAVE_US   5000000
#define STORE_MAX ((size_t)64 << 20)
#define LOW_RAM   ((uint64_t)256 << 20)

static const struct dns_settings *settings_of(const struct gateway *g)
{
    return dns_plan_settings(g->names.plan);
}

static bool stored(const struct gateway *g)
{
    return g->setup.keeps_state && g->names.fakes && g->names.plan != NULL && settings_of(g)->fake_store;
}

/* ---- reading ---- */

static void load(struct gateway *g)
{
    const char *dir = g->setup.config->state_dir;
    uint8_t *bytes = NULL;
    ssize_t n = state_file_read(dir, FILE_NAME, STORE_MAX, &bytes);
    int r = 0;

    if (n > 0)
        r = name_book_decode(g->names.book, (struct span){ bytes, (size_t)n }, clock_now_us());
    if (n < 0)
        log_warning("dns: %s/" FILE_NAME " cannot be read (%s); fake addresses of before are unknown", dir,
                    strerror((int)-n));
    else if (r == -ESTALE)
        log_info("dns: %s/" FILE_NAME " was made for other fake ranges; fake addresses of before are unknown",
                 dir);
    else if (r != 0)
        log_warning("dns: %s/" FILE_NAME
                    " is broken or of another version; fake addresses of before are unknown",
                    dir);
    else if (n > 0)
        log_info("dns: %u fake addresses of before are known", name_book_fakes(g->names.book));
    if (n > 0)
        free(bytes);
}

/* ---- writing ---- */

static void save(struct gateway *g)
{
    uint64_t changes = name_book_changes(g->names.book);
    uint8_t *bytes;
    size_t len;
    int r;

    if (changes == g->names.saved)
        return;
    r = name_book_encode(g->names.book, &bytes, &len);
    if (r == 0) {
        r = state_file_write(g->setup.config->state_dir, FILE_NAME, bytes, len);
        free(bytes);
    }
    g->names.saved = changes; /* what failed now is tried again with the next name */
    if (r != 0 && !g->names.save_failed)
        log_warning("dns: fake addresses cannot be kept in %s: %s; a restart will not know them",
                    g->setup.config->state_dir, strerror(-r));
    g->names.save_failed = r != 0;
}

static void on_save(struct loop_timer *t)
{
    struct gateway_names *n = CONTAINER_OF(t, struct gateway_names, timer);
    struct gateway *g = CONTAINER_OF(n, struct gateway, names);

    if (!stored(g)) /* a reload has said so */
        return;
    save(g);
    loop_timer_start(g->setup.loop, t, loop_now_us(g->setup.loop) + SAVE_US, on_save);
}

/* ---- plans ---- */

int gateway_names_plan(const struct config *c, const struct forward_policy *p, struct dns_plan **out)
{
    struct dns_plan_setup setup = { .settings = &c->dns };
    const char **names = calloc(c->upstream_count + 1, sizeof(*names));
    int r;

    if (names == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < c->upstream_count; i++) {
        if (c->upstreams[i].server.name != NULL)
            names[setup.proxy_name_count++] = c->upstreams[i].server.name;
    }
    setup.proxy_names = names;
    setup.targets = forward_policy_targets(p, &setup.target_count);
    r = dns_plan_new(&setup, out);
    free((void *)names);
    return r;
}

/* From then on for good: addresses that were handed out stay what they are. */
void gateway_names_use_fakes(struct gateway *g, const struct dns_plan *p)
{
    if (g->names.fakes || dns_plan_settings(p)->mode != DNS_MODE_FAKE_IP)
        return;
    g->names.fakes = true;
    if (g->setup.keeps_state && dns_plan_settings(p)->fake_store)
        load(g);
    g->names.saved = name_book_changes(g->names.book);
    name_book_use_fakes(g->names.book);
    gateway_socket_rules_again(g);
}

static void start_saving(struct gateway *g)
{
    if (!stored(g) || loop_timer_active(&g->names.timer))
        return;
    loop_timer_start(g->setup.loop, &g->names.timer, loop_now_us(g->setup.loop) + SAVE_US, on_save);
}

void gateway_names_set_plan(struct gateway *g, struct dns_plan *p)
{
    dns_plan_unref(g->names.plan);
    g->names.plan = p;
    start_saving(g);
}

/* ---- life ---- */

static void book_options(const struct config *c, uint64_t memory_bytes, struct name_book_options *out)
{
    out->fake4 = c->dns.fake4;
    out->fakes = memory_bytes < LOW_RAM ? 16384 : 0; /* about 300 bytes each, once it has been given */
    for (size_t i = 0; i < c->tun.addresses; i++) {
        if (!ip_is4(&c->tun.address[i].addr))
            out->fake6 = c->dns.fake6; /* a device without IPv6 would never see them */
    }
}

int gateway_names_open(struct gateway *g, uint32_t workers, uint64_t memory_bytes)
{
    const struct config *c = g->setup.config;
    struct name_book_options opt = { .shards = workers };
    int r;

    book_options(c, memory_bytes, &opt);
    for (size_t i = 0; i < c->tun.addresses && i < ARRAY_LEN(g->names.own); i++)
        g->names.own[g->names.owns++] = gateway_network_of(&c->tun.address[i]);
    if ((r = name_book_new(&opt, &g->names.book)) != 0 ||
        (r = dns_services_new(workers, &g->names.services)) != 0 ||
        (r = gateway_names_plan(c, g->policy, &g->names.plan)) != 0)
        return r;
    if (g->names.fakes)
        name_book_use_fakes(g->names.book);
    if (stored(g))
        load(g);
    g->names.saved = name_book_changes(g->names.book);
    start_saving(g);
    return 0;
}

void gateway_names_close(struct gateway *g)
{
    loop_timer_stop(g->setup.loop, &g->names.timer);
    if (stored(g) && g->names.book != NULL)
        save(g);
    dns_services_free(g->names.services);
    name_book_free(g->names.book);
    dns_plan_unref(g->names.plan);
}
