/* tun_lab.c - a TUN device, a loop and a record of its events, inside the test's namespace. */
#include "tun_lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tun_lab_init(struct tun_lab *lab)
{
    memset(lab, 0, sizeof(*lab));
    if (netlink_open(&lab->nl, NULL) != 0 || loop_new(&lab->loop) != 0)
        return false;
    loop_wait_init(&lab->wait, lab->loop);
    return true;
}

void tun_lab_fini(struct tun_lab *lab)
{
    tun_close(lab->tun);
    loop_free(lab->loop);
    netlink_close(lab->nl);
}

int tun_lab_setup(void **state)
{
    struct tun_lab *lab = calloc(1, sizeof(*lab));

    *state = lab;
    return lab != NULL && tun_lab_init(lab) ? 0 : -1;
}

int tun_lab_teardown(void **state)
{
    tun_lab_fini(*state);
    free(*state);
    return 0;
}

struct tun_options tun_lab_options(void)
{
    struct tun_options opt = { .name = "tun0", .fd = -1, .addresses = 2 };

    ip_parse("198.18.0.1", &opt.address[0].addr);
    opt.address[0].len = 96 + 30;
    ip_parse("fdfe:dcba:9876::1", &opt.address[1].addr);
    opt.address[1].len = 126;
    return opt;
}

static void on_mtu(void *arg, uint32_t mtu)
{
    struct tun_lab *lab = arg;

    lab->mtu_events++;
    lab->mtu = mtu;
}

static void on_down(void *arg)
{
    ((struct tun_lab *)arg)->downs++;
}

static void on_up(void *arg)
{
    ((struct tun_lab *)arg)->ups++;
}

static void on_reopened(void *arg)
{
    ((struct tun_lab *)arg)->reopened++;
}

static void on_lost(void *arg, const char *why)
{
    struct tun_lab *lab = arg;

    lab->lost++;
    snprintf(lab->why, sizeof(lab->why), "%s", why);
}

int tun_lab_watch(struct tun_lab *lab)
{
    static const struct tun_events events = { on_mtu, on_down, on_up, on_reopened, on_lost };

    return tun_watch(lab->tun, lab->loop, lab->nl, &events, lab);
}

bool tun_lab_sh(const char *command)
{
    int r = system(command);

    if (r != 0)
        fprintf(stderr, "%s: ended with %d\n", command, r);
    return r == 0;
}

struct search {
    struct ip_addr addr;
    bool found;
};

static int match(void *arg, const struct nl_addr *a)
{
    struct search *s = arg;

    s->found |= ip_equal(&a->addr.addr, &s->addr);
    return 0;
}

bool tun_lab_has_address(struct tun_lab *lab, const char *device, const char *addr)
{
    struct search s = { .found = false };
    struct nl_link link;

    return netlink_link_by_name(lab->nl, device, &link) == 0 && ip_parse(addr, &s.addr) == 0 &&
           netlink_addrs(lab->nl, link.ifindex, match, &s) == 0 && s.found;
}
