/* ping_probe.c - which sockets can be had, and what the operator is told (icmp.md 4.2).
 *
 * The truth is socket(2) itself, tried for each family (X1): supplementary groups count, root is not exempt, and the range is
 * the network namespace's. The file is read only to explain a failure. */
#include "ping_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROBE_AGAIN_US (60 * PING_SECOND_US)
#define RANGE_FILE     "/proc/sys/net/ipv4/ping_group_range"
#define GROUPS_MAX     256

/* ---- the explanation ---------------------------------------------------------------------------------------------- */

static const char *take_number(const char *at, uint32_t *out)
{
    unsigned long long v;
    char *end;

    while (*at == ' ' || *at == '\t')
        at++;
    if (*at < '0' || *at > '9')
        return NULL;
    v = strtoull(at, &end, 10);
    if (end - at > 10 || v > 4294967294ull)
        return NULL;
    *out = (uint32_t)v;
    return end;
}

struct ping_range ping_range_parse(const char *text)
{
    struct ping_range r = { 0 };
    const char *at = take_number(text, &r.low);

    if (!at || (*at != ' ' && *at != '\t'))
        return (struct ping_range){ 0 };
    at = take_number(at, &r.high);
    if (!at || at[strspn(at, " \t\n")] != 0)
        return (struct ping_range){ 0 };
    r.known = true;
    return r;
}

static struct ping_range read_range(void)
{
    char text[64] = "";
    FILE *f = fopen(RANGE_FILE, "re");

    if (!f)
        return (struct ping_range){ 0 };
    if (!fgets(text, sizeof(text), f))
        text[0] = 0;
    fclose(f);
    return ping_range_parse(text);
}

/* strerrorname_np() is not everywhere. */
static const char *errno_name(int err)
{
    static const struct {
        int err;
        const char *name;
    } names[] = { { EACCES, "EACCES" },
                  { EPERM, "EPERM" },
                  { EAFNOSUPPORT, "EAFNOSUPPORT" },
                  { EPROTONOSUPPORT, "EPROTONOSUPPORT" },
                  { EMFILE, "EMFILE" },
                  { ENFILE, "ENFILE" },
                  { EADDRINUSE, "EADDRINUSE" },
                  { EAGAIN, "EAGAIN" },
                  { ENOMEM, "ENOMEM" },
                  { EOPNOTSUPP, "EOPNOTSUPP" } };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (names[i].err == err)
            return names[i].name;
    }
    return strerror(err);
}

static const char *groups_text(const struct ping_trouble *t, char *out, size_t cap)
{
    size_t len = 0;

    snprintf(out, cap, "none");
    for (size_t i = 0; i < t->group_count; i++) {
        int n = snprintf(out + len, cap - len, "%s%u", i > 0 ? " " : "", t->groups[i]);

        if (n < 0 || (size_t)n >= cap - len)
            break;
        len += (size_t)n;
    }
    return out;
}

int ping_trouble_text(const struct ping_trouble *t, char *out, size_t cap)
{
    const char *families = t->v4 && t->v6 ? "IPv4 and IPv6" : t->v4 ? "IPv4" : "IPv6";
    char groups[256], range[80] = "unknown", join[96] = "";

    if (t->range.known && t->range.low > t->range.high)
        snprintf(range, sizeof(range), "%u-%u, i.e. no group", t->range.low, t->range.high);
    else if (t->range.known) {
        snprintf(range, sizeof(range), "%u-%u", t->range.low, t->range.high);
        snprintf(join, sizeof(join), "; add the user to a group in %u-%u", t->range.low, t->range.high);
    }
    return snprintf(
        out, cap,
        "icmp proxy off for %s: cannot open a ping socket (%s). Process groups: effective %u, supplementary "
        "%s. "
        "Allowed here: %s (" RANGE_FILE
        " of this network namespace; it also governs IPv6 and applies to root). "
        "Fix one: set net.ipv4.ping_group_range=\"%u %u\" (containers: on the container or pod, e.g. docker "
        "--sysctl, "
        "Kubernetes securityContext.sysctls; it is read-only from inside)%s; or grant CAP_NET_RAW. "
        "Until then pings with policy proxy are %s.",
        families, errno_name(t->err), t->group, groups_text(t, groups, sizeof(groups)), range, t->group,
        t->group, join, t->fallback);
}

/* A kernel without IPv6 has nothing to explain. */
static bool is_in_trouble(const struct echo_proxy *p, bool v6)
{
    return p->mode[v6] == ECHO_PROXY_MODE_OFF && p->why_off[v6] != EAFNOSUPPORT;
}

static void explain(struct echo_proxy *p)
{
    bool v4 = is_in_trouble(p, false), v6 = is_in_trouble(p, true);
    struct ping_trouble t = { .v4 = v4,
                              .v6 = v6,
                              .err = v4 ? p->why_off[0] : p->why_off[1],
                              .group = getegid(),
                              .range = read_range(),
                              .fallback = p->opt.fallback };
    gid_t groups[GROUPS_MAX];
    int n = getgroups(GROUPS_MAX, groups);
    char text[1400];

    _Static_assert(sizeof(gid_t) == sizeof(uint32_t), "groups are shown as they are");
    t.groups = groups;
    t.group_count = n > 0 ? (size_t)n : 0;
    if (t.err == EBADFD) { /* X35: sockets there are, but nothing keeps them out of the TUN */
        log_warning(
            "icmp proxy off: its requests would come back through the TUN, for they can be neither marked "
            "(needs CAP_NET_ADMIN) nor bound to an uplink; set tun.routing-mark or tun.interface-name. "
            "Until then pings with policy proxy are %s.",
            p->opt.fallback);
        return;
    }
    ping_trouble_text(&t, text, sizeof(text));
    log_warning("%s", text);
}

/* ---- probing ----------------------------------------------------------------------------------------------------------- */

/* May a socket run that is marked or not: X35. The address only asks which way the default goes. */
static bool is_kept_out(struct echo_proxy *p, bool v6, bool marked)
{
    static const uint8_t any6[16] = { 0x20, 0x01 };
    static const uint8_t any4[4] = { 192, 0, 2, 1 };
    struct ip_addr a = v6 ? ip_from6(any6) : ip_from4(any4);

    if (!p->opt.guard_needed || marked)
        return true;
    return p->opt.interface_for && p->opt.interface_for(p->opt.socket_arg, &a) > 0;
}

static int try_ping(struct echo_proxy *p, bool v6)
{
    struct ping_socket s = { .fd = -1 };
    bool marked = false, kept_out;
    int r = ping_socket_open(p, &s, v6, ECHO_SOCKET_PING, &marked);

    if (r != 0)
        return r;
    kept_out = is_kept_out(p, v6, marked);
    ping_socket_close(&s);
    return kept_out ? 0 : -EBADFD;
}

static int try_raw(struct echo_proxy *p, bool v6)
{
    struct ping_socket *s = &p->raw[v6];
    bool marked = false;
    int r;

    if (s->fd >= 0)
        return 0;
    if (!p->by_raw_id) {
        if ((r = ping_ids_init(&p->ids, p->opt.share, p->opt.shares)) != 0)
            return r;
        p->by_raw_id = calloc(65536, sizeof(*p->by_raw_id));
        if (!p->by_raw_id)
            return -ENOMEM;
    }
    if ((r = ping_socket_open(p, s, v6, ECHO_SOCKET_RAW, &marked)) != 0)
        return r;
    if (is_kept_out(p, v6, marked))
        return 0;
    ping_socket_close(s);
    return -EBADFD;
}

static void probe_family(struct echo_proxy *p, bool v6)
{
    int r = p->opt.prefer_raw ? -EOPNOTSUPP : try_ping(p, v6);

    if (r == -EMFILE || r == -ENFILE || r == -ENOMEM) { /* says nothing about the right to ping */
        if (p->mode[v6] != ECHO_PROXY_MODE_OFF)
            return;
    }
    if (r == 0) {
        p->mode[v6] = ECHO_PROXY_MODE_PING;
        return;
    }
    p->why_off[v6] = -r;
    p->mode[v6] = r != -EBADFD && try_raw(p, v6) == 0 ? ECHO_PROXY_MODE_RAW : ECHO_PROXY_MODE_OFF;
}

static uint64_t families(const struct echo_proxy *p, enum echo_proxy_mode mode)
{
    return (uint64_t)(p->mode[0] == mode) + (p->mode[1] == mode);
}

static void set_gauge(counter *c, uint64_t to)
{
    counter_add(c, to - *c);
}

void echo_proxy_probe(struct echo_proxy *p)
{
    enum echo_proxy_mode before[2] = { p->mode[0], p->mode[1] };
    bool off;

    for (int v6 = 0; v6 < 2; v6++)
        probe_family(p, v6 != 0);
    set_gauge(&p->cnt.mode_off, families(p, ECHO_PROXY_MODE_OFF));
    set_gauge(&p->cnt.mode_ping, families(p, ECHO_PROXY_MODE_PING));
    set_gauge(&p->cnt.mode_raw, families(p, ECHO_PROXY_MODE_RAW));
    off = p->cnt.mode_off > 0;
    if (!p->opt.quiet && (!p->probed || before[0] != p->mode[0] || before[1] != p->mode[1])) { /* X4 */
        if (is_in_trouble(p, false) || is_in_trouble(p, true))
            explain(p);
        else if (p->probed)
            log_info("icmp proxy on for IPv4 and IPv6");
    }
    p->probed = true;
    if (off)
        loop_timer_start(p->opt.loop, &p->probe_timer, ping_now_us(p) + PROBE_AGAIN_US, ping_probe_on_timer);
    else
        loop_timer_stop(p->opt.loop, &p->probe_timer);
}

void ping_probe_on_timer(struct loop_timer *t)
{
    echo_proxy_probe(CONTAINER_OF(t, struct echo_proxy, probe_timer));
}
