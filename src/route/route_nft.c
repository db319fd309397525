/* route_nft.c - our one table of nftables: what policy rules cannot say.
 *
 *   - Answers keep the way of their question: who connects to this machine, or through it to a server on the LAN (DNAT), came by
 *     the uplink, and what goes back to him must not enter the TUN. Direction "reply" of connection tracking says which those are.
 *   - Connections from before we came keep their path: TCP of the machine itself with another source than the TUN's, whose SYN we
 *     did not see; and what is masqueraded behind another address than the TUN's.
 *   - Groups and cgroups, which policy rules do not know. Their packets are sent on after they were addressed, so what does not
 *     enter the TUN is masqueraded.
 *   - Packets for the TUN's addresses that come in by another interface are dropped (CVE-2019-14899, faults.md E6).
 *
 * It speaks by marks: ours, set where none is, and the rule at our first priority does the rest. A mark of somebody else is left
 * as it is. Nothing outside of this table is ever touched, and it is replaced as a whole. libnftables compiles the text; it is
 * loaded when needed, so that a machine without it runs everything else. */
#include "route_impl.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BEGUN                                                                                                \
    0x20000000u /* a bit of the connection's mark: we saw the SYN of a socket bound to another address */

/* ---- the text; pure ---- */

/* "{ 198.18.0.1, 198.18.4.1 }"; false: none of this family. */
static bool put_tun_addresses(const struct route_options *opt, bool v6, const char *before, FILE *out)
{
    char text[IP_TEXT_MAX];
    size_t n = 0;

    for (size_t i = 0; i < opt->addresses; i++) {
        if (ip_is4(&opt->address[i].addr) == v6)
            continue;
        fprintf(out, "%s%s", n++ == 0 ? before : ", ", ip_text(&opt->address[i].addr, text));
    }
    if (n > 0)
        fputs(" }", out);
    return n > 0;
}

static void put_mark(const struct route_options *opt, FILE *out)
{
    fprintf(out, " meta mark set 0x%x return\n", opt->mark);
}

static void put_prerouting(const struct route_options *opt, FILE *out)
{
    fprintf(out,
            "  chain prerouting {\n    type filter hook prerouting priority mangle; policy accept;\n"
            "    iifname \"%s\" return\n",
            opt->tun_name);
    if (put_tun_addresses(opt, false, "    ip daddr { ", out))
        fputs(" fib saddr type != local drop\n", out);
    if (put_tun_addresses(opt, true, "    ip6 daddr { ", out))
        fputs(" fib saddr type != local drop\n", out);
    fputs("    meta mark != 0 return\n    ct direction reply", out);
    put_mark(opt, out);
    fputs("    ct status snat", out);
    (void)put_tun_addresses(opt, false, " ct reply ip daddr != { ", out);
    put_mark(opt, out);
    fputs("  }\n", out);
}

static void put_groups(const struct route_options *opt, const struct route_choice *c, const char *is,
                       FILE *out)
{
    fprintf(out, "    meta skgid %s{ ", is);
    for (size_t i = 0; i < c->gids; i++)
        fprintf(out, "%s%u-%u", i == 0 ? "" : ", ", c->gid[i].first, c->gid[i].last);
    fputs(" }", out);
    put_mark(opt, out);
}

static void put_cgroup(const char *path, FILE *out)
{
    unsigned level = 1;

    for (const char *p = path; *p != '\0'; p++)
        level += *p == '/';
    fprintf(out, "    socket cgroupv2 level %u \"%s\"", level, path);
}

static void put_choices(const struct route_options *opt, FILE *out)
{
    const struct route_choice *in = opt->include, *left = opt->leave_out;

    if (left != NULL && left->gids > 0)
        put_groups(opt, left, "", out);
    if (in != NULL && in->gids > 0)
        put_groups(opt, in, "!= ", out);
    for (size_t i = 0; left != NULL && i < left->cgroups; i++) {
        put_cgroup(left->cgroup[i], out);
        put_mark(opt, out);
    }
    if (in != NULL && in->cgroups > 0)
        fputs("    jump cgroups\n", out);
}

static void put_included_cgroups(const struct route_options *opt, FILE *out)
{
    const struct route_choice *in = opt->include;

    if (in == NULL || in->cgroups == 0)
        return;
    fputs("  chain cgroups {\n", out);
    for (size_t i = 0; i < in->cgroups; i++) {
        put_cgroup(in->cgroup[i], out);
        fputs(" return\n", out);
    }
    fprintf(out, "    meta mark set 0x%x\n  }\n", opt->mark);
}

/* A socket that is bound to another address than the TUN's begins inside the tunnel, too; only its SYN tells it from one that
 * was there before us. */
static void put_earlier(const struct route_options *opt, bool v6, FILE *out)
{
    const char *family = v6 ? "    meta nfproto ipv6 " : "    meta nfproto ipv4 ";
    const char *source = v6 ? "ip6 saddr != { " : "ip saddr != { ";

    fputs(family, out);
    (void)put_tun_addresses(opt, v6, source, out);
    fprintf(out, " tcp flags & (syn | ack) == syn ct mark set ct mark | 0x%x\n", BEGUN);
    fputs(family, out);
    (void)put_tun_addresses(opt, v6, source, out);
    fprintf(out, " meta l4proto tcp ct mark & 0x%x == 0", BEGUN);
    put_mark(opt, out);
}

static void put_output(const struct route_options *opt, FILE *out)
{
    fputs("  chain output {\n    type route hook output priority mangle; policy accept;\n"
          "    meta mark != 0 return\n    oifname \"lo\" return\n    ct direction reply",
          out);
    put_mark(opt, out);
    put_choices(opt, out);
    fputs("    meta mark != 0 return\n", out);
    put_earlier(opt, false, out);
    put_earlier(opt, true, out);
    fputs("  }\n", out);
}

/* Who is told from others by his packets only has chosen his address already: that of the TUN, where he does not go. */
static void put_postrouting(const struct route_options *opt, FILE *out)
{
    if (!route_needs_nft(opt))
        return;
    fputs("  chain postrouting {\n    type nat hook postrouting priority srcnat; policy accept;\n", out);
    for (int v6 = 0; v6 < 2; v6++) {
        fprintf(out, "    oifname != \"%s\" meta nfproto ipv%d", opt->tun_name, v6 ? 6 : 4);
        if (put_tun_addresses(opt, v6, v6 ? " ip6 saddr { " : " ip saddr { ", out))
            fputs(" masquerade\n", out);
        else
            fputs(" accept\n", out);
    }
    fputs("  }\n", out);
}

bool route_needs_nft(const struct route_options *opt)
{
    const struct route_choice *in = opt->include, *out = opt->leave_out;

    return (in != NULL && in->gids + in->cgroups > 0) || (out != NULL && out->gids + out->cgroups > 0);
}

void route_nft_text(const struct route_options *opt, FILE *out)
{
    fputs("table inet " ROUTE_NFT_TABLE " {\n", out);
    put_prerouting(opt, out);
    put_included_cgroups(opt, out);
    put_output(opt, out);
    put_postrouting(opt, out);
    fputs("}\n", out);
}

/* ---- making it so ---- */

#ifdef WITH_NFT
struct nft_ctx;

struct nftables { /* of libnftables(3), which has had these since 0.9 */
    void *library;
    struct nft_ctx *(*ctx_new)(uint32_t flags);
    void (*ctx_free)(struct nft_ctx *ctx);
    int (*buffer_output)(struct nft_ctx *ctx);
    int (*buffer_error)(struct nft_ctx *ctx);
    const char *(*error_buffer)(struct nft_ctx *ctx);
    int (*run)(struct nft_ctx *ctx, const char *text);
};

static bool find(const struct nftables *n, const char *name, void *function)
{
    void *symbol = dlsym(n->library, name);

    memcpy(function, &symbol, sizeof(symbol)); /* POSIX's way from data to function */
    return symbol != NULL;
}

static bool open_library(struct nftables *n)
{
    n->library = dlopen("libnftables.so.1", RTLD_NOW | RTLD_LOCAL);
    return n->library != NULL && find(n, "nft_ctx_new", &n->ctx_new) &&
           find(n, "nft_ctx_free", &n->ctx_free) && find(n, "nft_ctx_buffer_output", &n->buffer_output) &&
           find(n, "nft_ctx_buffer_error", &n->buffer_error) &&
           find(n, "nft_ctx_get_error_buffer", &n->error_buffer) &&
           find(n, "nft_run_cmd_from_buffer", &n->run);
}

static int run(const struct nftables *n, const char *text, struct err *err)
{
    struct nft_ctx *ctx = n->ctx_new(0);
    int r = 0;

    if (ctx == NULL)
        return err_set(err, -ENOMEM, "out of memory");
    n->buffer_output(ctx);
    n->buffer_error(ctx);
    if (n->run(ctx, text) != 0) {
        const char *why = n->error_buffer(ctx);

        r = err_set(err, -EIO, "nftables does not take our table: %.*s", (int)strcspn(why, "\n"), why);
    }
    n->ctx_free(ctx);
    return r;
}

int route_nft_run(const char *text, struct err *err)
{
    struct nftables n = { 0 };
    int r;

    if (open_library(&n))
        r = run(&n, text, err);
    else
        r = err_set(err, -ENOTSUP, "libnftables.so.1 is not there; install nftables");
    if (n.library != NULL)
        dlclose(n.library);
    return r;
}
#else
int route_nft_run(const char *text, struct err *err)
{
    (void)text;
    return err_set(err, -ENOTSUP, "this program was built without it (WITH_NFT=OFF)");
}
#endif

static char *whole_text(const struct route_options *opt)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (f == NULL)
        return NULL;
    fputs("table inet " ROUTE_NFT_TABLE "\ndelete table inet " ROUTE_NFT_TABLE "\n", f); /* one transaction */
    route_nft_text(opt, f);
    if (fclose(f) == 0)
        return text;
    free(text);
    return NULL;
}

char *route_nft_whole(const struct route *rt)
{
    return rt->nft != NULL ? whole_text(&rt->opt) : NULL;
}

static int load(struct route *rt, struct err *err)
{
    char *text;
    int r;

    if (rt->agent.load != NULL) {
        r = rt->agent.load(rt->agent.arg);
        return r == 0 ? 0 : err_set(err, r, "the helper process cannot make our table: %s", strerror(-r));
    }
    if ((text = whole_text(&rt->opt)) == NULL)
        return err_set(err, -ENOMEM, "out of memory");
    r = route_nft_run(text, err);
    free(text);
    return r;
}

static int count_rules(struct route *rt, unsigned *count)
{
    if (rt->agent.rules != NULL)
        return rt->agent.rules(rt->agent.arg, count);
    return netlink_nft_rules(rt->nft, ROUTE_NFT_TABLE, count);
}

int route_nft_load(struct route *rt, struct err *err)
{
    int r = load(rt, err);

    if (r == 0 && rt->nft == NULL)
        r = netlink_open_nft(&rt->nft, err);
    if (r == 0 && (r = count_rules(rt, &rt->nft_rules)) != 0)
        err_set(err, r, "our table of nftables cannot be read: %s", strerror(-r));
    return r;
}

bool route_nft_missing(struct route *rt)
{
    unsigned count = 0;
    int r;

    if (rt->nft == NULL)
        return false;
    r = count_rules(rt, &count);
    return r == -ENOENT || (r == 0 && count != rt->nft_rules);
}

int route_nft_remove(void)
{
    struct netlink *nl;
    int r = netlink_open_nft(&nl, NULL);

    if (r == -ENOMEM) /* once more: this puts the machine back */
        r = netlink_open_nft(&nl, NULL);
    if (r != 0)
        return -ENOENT; /* a kernel without it has no table of ours */
    r = netlink_nft_remove(nl, ROUTE_NFT_TABLE);
    netlink_close(nl);
    return r;
}

int route_nft_rules(unsigned *count)
{
    struct netlink *nl;
    int r = netlink_open_nft(&nl, NULL);

    if (r != 0)
        return r;
    r = netlink_nft_rules(nl, ROUTE_NFT_TABLE, count);
    netlink_close(nl);
    return r;
}
