/* cmd_doctor.c - `culvert doctor`: what of this machine stands in the way, each finding with the command that mends it.
 *
 * It reads files and asks nothing else, so it needs no privilege, changes nothing, and a test can show it any machine: --root is
 * the folder that stands for "/". A problem is what makes the gateway fail or lets names leak; a note is what some uses want. */
#include "commands.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct doctor {
    const char *root; /* "" is the machine itself */
    unsigned problems, notes;
};

/* ---- reading ---- */

static const char *place(const struct doctor *d, const char *path, char out[512])
{
    snprintf(out, 512, "%s%s", d->root, path);
    return out;
}

/* The first line of a file without its end. Return: false: there is none. */
static bool first_line(const struct doctor *d, const char *path, char *out, size_t cap)
{
    char full[512];
    FILE *f = fopen(place(d, path, full), "re");
    bool read = f != NULL && fgets(out, (int)cap, f) != NULL;

    if (f != NULL)
        fclose(f);
    if (read)
        out[strcspn(out, "\n")] = '\0';
    return read;
}

static bool number_in(const struct doctor *d, const char *path, long *out)
{
    char line[64], *end;

    if (!first_line(d, path, line, sizeof(line)))
        return false;
    *out = strtol(line, &end, 10);
    return end != line;
}

static bool exists(const struct doctor *d, const char *path)
{
    char full[512];
    struct stat st;

    return lstat(place(d, path, full), &st) == 0;
}

/* The first line that begins with @key, blanks before it left out; into @out what follows. */
static bool line_with(const struct doctor *d, const char *path, const char *key, char *out, size_t cap)
{
    char full[512], line[512];
    FILE *f = fopen(place(d, path, full), "re");
    bool found = false;

    while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL) {
        const char *at = line + strspn(line, " \t");

        found = strncmp(at, key, strlen(key)) == 0;
        if (found)
            snprintf(out, cap, "%s", at + strlen(key));
    }
    if (f != NULL)
        fclose(f);
    if (found)
        out[strcspn(out, "\n")] = '\0';
    return found;
}

/* ---- telling ---- */

static void fine(const char *what)
{
    printf("ok: %s\n", what);
}

static void problem(struct doctor *d, const char *what, const char *fix)
{
    d->problems++;
    printf("problem: %s\n    fix: %s\n", what, fix);
}

static void note(struct doctor *d, const char *what, const char *fix)
{
    d->notes++;
    printf("note: %s\n    fix: %s\n", what, fix);
}

/* ---- the kernel ---- */

static void look_at_kernel(struct doctor *d)
{
    char release[80], text[160];
    int major = 0, minor = 0;

    if (!first_line(d, "/proc/sys/kernel/osrelease", release, sizeof(release)) ||
        sscanf(release, "%d.%d", &major, &minor) != 2) {
        problem(d, "the kernel does not tell its version; /proc is not there", "mount -t proc proc /proc");
        return;
    }
    snprintf(text, sizeof(text), "kernel %s", release);
    if (major > 5 || (major == 5 && minor >= 10)) {
        fine(text);
        return;
    }
    snprintf(text, sizeof(text), "kernel %s is older than 5.10", release);
    problem(d, text, "apt-get install linux-image-amd64 && reboot");
}

static void look_at_tun(struct doctor *d)
{
    if (exists(d, "/dev/net/tun"))
        fine("/dev/net/tun");
    else
        problem(d, "/dev/net/tun is missing: the gateway has no device",
                "modprobe tun; mkdir -p /dev/net && mknod -m 666 /dev/net/tun c 10 200");
}

/* What `exec` and `demo` need without root. */
static void look_at_namespaces(struct doctor *d)
{
    long n;

    if (!exists(d, "/proc/self/ns/user"))
        note(d, "this kernel has no user namespaces: `exec` and `demo` need root", "none; run them as root");
    else if (number_in(d, "/proc/sys/user/max_user_namespaces", &n) && n == 0)
        note(d, "user namespaces are switched off: `exec` and `demo` need root",
             "sysctl -w user.max_user_namespaces=15000");
    else if (number_in(d, "/proc/sys/kernel/unprivileged_userns_clone", &n) && n == 0)
        note(d, "user namespaces are for root only: `exec` and `demo` need root",
             "sysctl -w kernel.unprivileged_userns_clone=1");
    else if (number_in(d, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", &n) && n == 1)
        note(d, "AppArmor keeps programs without a profile from user namespaces: `exec` and `demo` need root",
             "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    else
        fine("user namespaces");
}

static void look_at_limits(struct doctor *d)
{
    char line[128];
    long soft = 0, hard = 0;

    if (!line_with(d, "/proc/self/limits", "Max open files", line, sizeof(line)))
        return;
    if (sscanf(line, "%ld %ld", &soft, &hard) == 2 && hard < 4096) { /* "unlimited" is no number */
        char text[128];

        snprintf(text, sizeof(text), "at most %ld open files: about as many flows, less a few", hard);
        problem(d, text, "ulimit -Hn 1048576; or LimitNOFILE=1048576 in the service");
    } else
        fine("open files");
}

static void look_at_ping(struct doctor *d)
{
    char line[80];
    unsigned long first = 1, last = 0;

    if (first_line(d, "/proc/sys/net/ipv4/ping_group_range", line, sizeof(line)) &&
        sscanf(line, "%lu %lu", &first, &last) == 2 && first <= last)
        fine("ping_group_range: pings of DIRECT need no privilege");
    else
        note(d, "ping_group_range is empty: pings of DIRECT need CAP_NET_RAW",
             "sysctl -w net.ipv4.ping_group_range='0 2147483647'");
}

/* ---- the network (faults.md E11) ---- */

/* The kernel takes the larger one of "all" and the interface's; "default" is what the TUN will be born with. */
static void look_at_rp_filter(struct doctor *d)
{
    long all = 0, born = 0;

    (void)number_in(d, "/proc/sys/net/ipv4/conf/all/rp_filter", &all);
    (void)number_in(d, "/proc/sys/net/ipv4/conf/default/rp_filter", &born);
    if (all == 1)
        problem(
            d, "rp_filter is strict: answers that come by the TUN, and forwarded clients, are dropped unseen",
            "sysctl -w net.ipv4.conf.all.rp_filter=2");
    else if (all == 0 && born == 1)
        problem(d, "rp_filter of new interfaces is strict: answers that come by the TUN are dropped unseen",
                "sysctl -w net.ipv4.conf.default.rp_filter=2");
    else
        fine("rp_filter");
}

static void look_at_forwarding(struct doctor *d)
{
    long v4 = 0, v6 = 0;

    (void)number_in(d, "/proc/sys/net/ipv4/ip_forward", &v4);
    if (v4 == 0)
        note(d, "ip_forward is off: clients in the LAN get no further than this machine",
             "sysctl -w net.ipv4.ip_forward=1");
    if (number_in(d, "/proc/sys/net/ipv6/conf/all/forwarding", &v6) && v6 == 0)
        note(d, "IPv6 forwarding is off: clients in the LAN get no further by IPv6",
             "sysctl -w net.ipv6.conf.all.forwarding=1");
    if (v4 != 0 && v6 != 0)
        fine("forwarding");
}

/* The iptables of old are listed; tables of nftables are not in /proc. */
static void look_at_nat(struct doctor *d)
{
    char line[64];

    if (line_with(d, "/proc/net/ip_tables_names", "nat", line, sizeof(line)))
        note(d,
             "there is a NAT table: what it masquerades on the way into the TUN reaches the rules as this "
             "machine",
             "iptables -t nat -L POSTROUTING -v -n; leave the TUN out of its MASQUERADE with `! -o tun0`");
}

static void look_at_routes(struct doctor *d)
{
    char full[512], line[256], name[32];
    FILE *f = fopen(place(d, "/proc/net/route", full), "re");
    unsigned long dst, gw, flags, mask;
    int refs, use, metric;
    bool found = false;

    while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL)
        found = sscanf(line, "%31s %lx %lx %lx %d %d %d %lx", name, &dst, &gw, &flags, &refs, &use, &metric,
                       &mask) == 8 &&
                dst == 0 && mask == 0;
    if (f != NULL)
        fclose(f);
    if (found)
        fine("a default route");
    else
        note(d, "there is no IPv4 default route: proxies are reached only if they are near",
             "ip route add default via GATEWAY dev INTERFACE");
}

/* ---- names (faults.md D14): what asks name servers by a way that does not cross the TUN ---- */

static bool has_word(const char *line, const char *word)
{
    size_t len = strlen(word);

    for (const char *at = strstr(line, word); at != NULL; at = strstr(at + 1, word))
        if ((at == line || strchr(" \t:", at[-1]) != NULL) &&
            (at[len] == '\0' || strchr(" \t_46", at[len]) != NULL))
            return true;
    return false;
}

static void look_at_names(struct doctor *d)
{
    unsigned before = d->problems + d->notes;
    char hosts[512] = "", server[128] = "";

    (void)line_with(d, "/etc/nsswitch.conf", "hosts:", hosts, sizeof(hosts));
    (void)line_with(d, "/etc/resolv.conf", "nameserver", server, sizeof(server));
    if (has_word(hosts, "resolve") && exists(d, "/run/systemd/resolve/io.systemd.Resolve"))
        problem(
            d,
            "programs ask systemd-resolved by its socket (`resolve` in nsswitch.conf), not through the TUN",
            "sed -i '/^hosts:/s/ resolve\\( \\[[^]]*\\]\\)*//' /etc/nsswitch.conf");
    if (has_word(server, "127.0.0.53"))
        problem(d,
                "resolv.conf names systemd-resolved (127.0.0.53): questions do not enter the TUN as programs "
                "sent them",
                "resolvectl dns tun0 198.18.0.2 && resolvectl domain tun0 '~.'");
    if (exists(d, "/run/nscd/socket") || exists(d, "/var/run/nscd/socket"))
        problem(d, "nscd answers for all programs, from its own questions of before",
                "systemctl disable --now nscd");
    if (has_word(hosts, "mdns"))
        note(d, "`mdns` in nsswitch.conf asks the LAN for names (.local): they do not cross the TUN",
             "sed -i '/^hosts:/s/ mdns[^ ]*\\( \\[[^]]*\\]\\)*//' /etc/nsswitch.conf");
    if (d->problems + d->notes == before)
        fine("names are asked by port 53");
}

int cmd_doctor(const struct cli *cli)
{
    struct doctor d = { .root = cli->root != NULL ? cli->root : "" };
    struct stat st;

    if (cli->root != NULL && (stat(cli->root, &st) != 0 || !S_ISDIR(st.st_mode)))
        return complain(EXIT_USAGE, "--root: %.200s is no folder", cli->root);
    look_at_kernel(&d);
    look_at_tun(&d);
    look_at_namespaces(&d);
    look_at_limits(&d);
    look_at_ping(&d);
    look_at_routes(&d);
    look_at_rp_filter(&d);
    look_at_forwarding(&d);
    look_at_nat(&d);
    look_at_names(&d);
    printf("%u problem%s, %u note%s\n", d.problems, d.problems == 1 ? "" : "s", d.notes,
           d.notes == 1 ? "" : "s");
    return d.problems > 0 ? EXIT_FAILED : EXIT_FINE;
}
