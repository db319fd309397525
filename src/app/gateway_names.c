/* gateway_names.c - what all workers know of names: the book of addresses, its file, and the services that answer DNS.
 *
 * The file (`fake-ip` in runtime.state-dir) is read before the first worker runs and written by the main thread: SAVE_US after a
 * name was added, and at the end. Whatever goes wrong with it is one line, and costs no more than the memory of addresses. */
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

static bool wanted(const struct gateway *g)
{
    return g->setup.config->dns.mode != DNS_MODE_OFF;
}

static bool stored(const struct gateway *g)
{
    const struct dns_settings *dns = &g->setup.config->dns;

    return dns->mode == DNS_MODE_FAKE_IP && dns->fake_store && g->names.book != NULL;
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

    save(g);
    loop_timer_start(g->setup.loop, t, loop_now_us(g->setup.loop) + SAVE_US, on_save);
}

/* ---- the names that must be found before anything else works ---- */

static int gather_bootstrap(struct gateway *g)
{
    const struct config *c = g->setup.config;
    const struct dns_settings *dns = &c->dns;
    size_t most = c->upstream_count + dns->nameservers.n + dns->n_policies * DNS_NAMESERVERS_MAX, n = 0;

    g->names.bootstrap = calloc(most + 1, sizeof(*g->names.bootstrap));
    if (g->names.bootstrap == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < c->upstream_count; i++) {
        if (c->upstreams[i].server.name != NULL)
            g->names.bootstrap[n++] = c->upstreams[i].server.name;
    }
    for (size_t i = 0; i < dns->nameservers.n; i++) {
        if (dns->nameservers.list[i].at.name != NULL)
            g->names.bootstrap[n++] = dns->nameservers.list[i].at.name;
    }
    for (size_t i = 0; i < dns->n_policies; i++) {
        for (size_t k = 0; k < dns->policies[i].servers.n; k++) {
            if (dns->policies[i].servers.list[k].at.name != NULL)
                g->names.bootstrap[n++] = dns->policies[i].servers.list[k].at.name;
        }
    }
    g->names.bootstraps = n;
    return 0;
}

/* ---- life ---- */

int gateway_names_open(struct gateway *g, uint32_t workers, uint64_t memory_bytes)
{
    const struct config *c = g->setup.config;
    struct name_book_options opt = { .shards = workers };
    int r;

    if (!wanted(g))
        return 0;
    if (c->dns.mode == DNS_MODE_FAKE_IP) {
        opt.fake4 = c->dns.fake4;
        opt.fakes = memory_bytes < LOW_RAM ? 16384 : 0; /* about 300 bytes each, once it has been given */
        for (size_t i = 0; i < c->tun.addresses; i++) {
            if (!ip_is4(&c->tun.address[i].addr))
                opt.fake6 = c->dns.fake6; /* a device without IPv6 would never see them */
        }
    }
    for (size_t i = 0; i < c->tun.addresses && i < ARRAY_LEN(g->names.own); i++)
        g->names.own[g->names.owns++] = gateway_network_of(&c->tun.address[i]);
    if ((r = gather_bootstrap(g)) != 0 || (r = name_book_new(&opt, &g->names.book)) != 0 ||
        (r = dns_services_new(workers, &g->names.services)) != 0)
        return r;
    g->names.policy = forward_policy_ref(g->policy);
    if (!stored(g))
        return 0;
    load(g);
    g->names.saved = name_book_changes(g->names.book);
    loop_timer_start(g->setup.loop, &g->names.timer, loop_now_us(g->setup.loop) + SAVE_US, on_save);
    return 0;
}

void gateway_names_close(struct gateway *g)
{
    if (stored(g)) {
        loop_timer_stop(g->setup.loop, &g->names.timer);
        save(g);
    }
    dns_services_free(g->names.services);
    name_book_free(g->names.book);
    forward_policy_unref(g->names.policy);
    free(g->names.bootstrap);
}
