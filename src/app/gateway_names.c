/* gateway_names.c - what all workers know of names: the book of addresses, its file, and the services that answer DNS.
 *
 * The file (`fake-ip` in runtime.state-dir) is read before the first worker runs and written by the main thread: SAVE_US after a
 * name was added, and at the end. It is written beside the old one, synced and moved over it, so a reader finds the one or the
 * other (faults.md D9). Whatever goes wrong with it is one line, and costs no more than the memory of addresses. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "culvert/dns.h"
#include "gateway_impl.h"

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

static void store_path(const struct gateway *g, const char *suffix, char out[512])
{
    snprintf(out, 512, "%s/fake-ip%s", g->setup.config->state_dir, suffix);
}

/* ---- reading ---- */

/* Return: bytes in *out; 0: there is no file; -errno. */
static ssize_t read_whole(const char *path, uint8_t **out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    size_t len = 0;
    ssize_t n = 0;

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size > STORE_MAX ||
        (*out = malloc((size_t)st.st_size + 1)) == NULL) {
        close(fd);
        return -EINVAL;
    }
    while (len < (size_t)st.st_size && (n = read(fd, *out + len, (size_t)st.st_size - len)) > 0)
        len += (size_t)n;
    close(fd);
    return n < 0 ? -EIO : (ssize_t)len;
}

static void load(struct gateway *g)
{
    uint8_t *bytes = NULL;
    char path[512];
    ssize_t n;
    int r = 0;

    store_path(g, "", path);
    n = read_whole(path, &bytes);
    if (n > 0)
        r = name_book_decode(g->names.book, (struct span){ bytes, (size_t)n }, clock_now_us());
    if (n < 0)
        log_warning("dns: %s cannot be read (%s); fake addresses of before are unknown", path,
                    strerror((int)-n));
    else if (r == -ESTALE)
        log_info("dns: %s was made for other fake ranges; fake addresses of before are unknown", path);
    else if (r != 0)
        log_warning("dns: %s is broken or of another version; fake addresses of before are unknown", path);
    else if (n > 0)
        log_info("dns: %u fake addresses of before are known", name_book_fakes(g->names.book));
    free(bytes);
}

/* ---- writing ---- */

static int write_whole(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
    return fsync(fd) == 0 ? 0 : -errno;
}

static int replace_file(const struct gateway *g, const uint8_t *bytes, size_t len)
{
    char path[512], fresh[512];
    int fd, r;

    store_path(g, "", path);
    store_path(g, ".new", fresh);
    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    r = write_whole(fd, bytes, len);
    close(fd);
    if (r == 0 && rename(fresh, path) != 0)
        r = -errno;
    if (r != 0)
        unlink(fresh);
    return r;
}

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
        r = replace_file(g, bytes, len);
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
    if (mkdir(c->state_dir, 0700) != 0 && errno != EEXIST)
        log_debug("dns: %s cannot be made: %s", c->state_dir, strerror(errno));
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
