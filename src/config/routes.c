/* routes.c - values of `tun` that say which traffic is led: interfaces, users, groups, cgroups (route.h: struct route_choice). */
#include "config_impl.h"

#include <stdio.h>
#include <string.h>

static struct route_choice *choice_of(const struct cfg_key *k, void *to)
{
    return (struct route_choice *)(void *)((char *)to + k->offset);
}

static bool has_room(struct cfg_read *r, const struct cfg_node *v, size_t count)
{
    if (count < ROUTE_NAMES_MAX)
        return true;
    cfg_error(r, v, "more than %d entries; remove some", ROUTE_NAMES_MAX);
    return false;
}

static void read_interfaces(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct route_choice *c = choice_of(k, to);

    if (has_room(r, v, c->interfaces) && cfg_interface_valid(r, v))
        memcpy(c->interface[c->interfaces++], v->text, v->count + 1);
}

/* "1000" or "1000-1999"; the last number of all means "nobody" to the kernel. */
static bool read_ids(struct cfg_read *r, const struct cfg_node *v, struct route_ids *out)
{
    const char *dash = strchr(v->text, '-');
    size_t len = dash != NULL ? (size_t)(dash - v->text) : v->count;
    char first[16] = "", quoted[CFG_QUOTED_MAX];
    uint64_t from, till;

    if (len < sizeof(first))
        memcpy(first, v->text, len);
    if (cfg_parse_number(first, 0, UINT32_MAX - 1, &from) == CFG_NUMBER_OK &&
        cfg_parse_number(dash != NULL ? dash + 1 : first, 0, UINT32_MAX - 1, &till) == CFG_NUMBER_OK &&
        from <= till) {
        *out = (struct route_ids){ .first = (uint32_t)from, .last = (uint32_t)till };
        return true;
    }
    cfg_error(r, v, "%s is neither a number nor a range of numbers; 1000 or 1000-1999 would work",
              cfg_quote(v->text, quoted));
    return false;
}

static void read_uids(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct route_choice *c = choice_of(k, to);

    if (has_room(r, v, c->uids) && read_ids(r, v, &c->uid[c->uids]))
        c->uids++;
}

static void read_gids(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct route_choice *c = choice_of(k, to);

    if (has_room(r, v, c->gids) && read_ids(r, v, &c->gid[c->gids]))
        c->gids++;
}

/* It becomes a word of nft's language, so quotes and the like have no place in it. */
static void read_cgroups(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct route_choice *c = choice_of(k, to);
    char quoted[CFG_QUOTED_MAX];
    const char *path = v->text + (v->text[0] == '/');
    size_t len = strlen(path);

    if (!has_room(r, v, c->cgroups))
        return;
    if (len == 0 || len >= ROUTE_CGROUP_MAX || strcspn(path, "\"\\ \t\r\n;{}") != len ||
        strstr(path, "..") != NULL || strstr(path, "//") != NULL || path[len - 1] == '/')
        cfg_error(r, v, "%s is no path of a cgroup; system.slice/transmission.service would work",
                  cfg_quote(v->text, quoted));
    else
        memcpy(c->cgroup[c->cgroups++], path, len + 1);
}

CFG_LIST_TYPE(cfg_route_interfaces, "list of interfaces", "the name of an interface", read_interfaces);
CFG_LIST_TYPE(cfg_route_uids, "list of numbers and ranges", "a number or a range such as 1000-1999",
              read_uids);
CFG_LIST_TYPE(cfg_route_gids, "list of numbers and ranges", "a number or a range such as 1000-1999",
              read_gids);
CFG_LIST_TYPE(cfg_route_cgroups, "list of paths", "the path of a cgroup", read_cgroups);
