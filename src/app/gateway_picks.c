/* gateway_picks.c - `culvert select`: the user's choice in groups, told to all workers and kept over a restart.
 *
 * The file (`select` in runtime.state-dir) is text: a first line with its version, then a group and its member on a line each,
 * and `end`. Without its last line it was torn: then nobody has chosen, and that is said. A choice outlives its group, which may
 * come back with the next reload; MAX_PICKS bounds them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway_impl.h"
#include "state_file.h"

#define FILE_NAME "select"
#define HEAD      "culvert select 1\n"
#define TAIL      "end\n"

enum { MAX_PICKS = 1024, FILE_MAX = MAX_PICKS * 2 * STATUS_NAME_MAX + 64 };

struct pick {
    struct pick *next;
    char group[STATUS_NAME_MAX], member[STATUS_NAME_MAX];
};

/* ---- the list ---- */

static struct pick *pick_of(const struct gateway *g, const char *group)
{
    for (struct pick *p = g->picks; p; p = p->next)
        if (strcmp(p->group, group) == 0)
            return p;
    return NULL;
}

static int remember(struct gateway *g, const char *group, const char *member)
{
    struct pick *p = pick_of(g, group);

    if (strlen(group) >= STATUS_NAME_MAX || strlen(member) >= STATUS_NAME_MAX)
        return -ENAMETOOLONG;
    if (!p) {
        p = g->pick_count < MAX_PICKS ? calloc(1, sizeof(*p)) : NULL;
        if (!p)
            return -ENOMEM;
        p->next = g->picks;
        g->picks = p;
        g->pick_count++;
        snprintf(p->group, sizeof(p->group), "%s", group);
    }
    snprintf(p->member, sizeof(p->member), "%s", member);
    return 0;
}

static void forget_all(struct gateway *g)
{
    while (g->picks) {
        struct pick *p = g->picks;

        g->picks = p->next;
        free(p);
    }
    g->pick_count = 0;
}

/* ---- the file ---- */

/* The next line of *at without its end; NULL: there is no whole one. */
static char *next_line(char **at)
{
    char *line = *at, *end = strchr(line, '\n');

    if (!end)
        return NULL;
    *end = '\0';
    *at = end + 1;
    return line;
}

int gateway_picks_decode(struct gateway *g, char *text, size_t len)
{
    const size_t head = sizeof(HEAD) - 1;
    char *group, *member, *at = text + head;

    if (strlen(text) != len || len < head || strncmp(text, HEAD, head) != 0)
        return -EBADMSG;
    while ((group = next_line(&at)) != NULL) {
        if (strcmp(group, "end") == 0 && *at == '\0')
            return 0;
        member = next_line(&at);
        if (!member || remember(g, group, member) != 0)
            break;
    }
    forget_all(g);
    return -EBADMSG;
}

static void load(struct gateway *g)
{
    const char *dir = g->setup.config->state_dir;
    uint8_t *bytes = NULL;
    ssize_t n = g->setup.keeps_state ? state_file_read(dir, FILE_NAME, FILE_MAX, &bytes) : 0;

    if (n > 0 && gateway_picks_decode(g, (char *)bytes, (size_t)n) != 0)
        log_warning("select: %s/%s is broken or of another version; groups begin with their first members",
                    dir, FILE_NAME);
    else if (n < 0)
        log_warning("select: %s/%s cannot be read (%s); groups begin with their first members", dir,
                    FILE_NAME, strerror((int)-n));
    if (n > 0)
        free(bytes);
}

static void save(const struct gateway *g)
{
    const char *dir = g->setup.config->state_dir;
    char *text = NULL;
    size_t len = 0;
    FILE *f;
    int r = -ENOMEM;

    if (!g->setup.keeps_state)
        return;
    f = open_memstream(&text, &len);
    if (f) {
        fputs(HEAD, f);
        for (const struct pick *p = g->picks; p; p = p->next)
            fprintf(f, "%s\n%s\n", p->group, p->member);
        fputs(TAIL, f);
        if (fclose(f) == 0)
            r = state_file_write(dir, FILE_NAME, text, len);
        free(text);
    }
    if (r != 0)
        log_warning("select: the choice cannot be kept in %s: %s; a restart will not know it", dir,
                    strerror(-r));
}

/* ---- telling ---- */

static struct upstream *group_named(const struct gateway *g, const char *name)
{
    size_t n;
    struct upstream *const *targets = forward_policy_targets(g->policy, &n);

    for (size_t i = 0; i < n; i++)
        if (upstream_kind(targets[i]) == UPSTREAM_GROUP && strcmp(upstream_name(targets[i]), name) == 0)
            return targets[i];
    return NULL;
}

static void tell(const struct gateway *g, struct upstream *group, const char *member)
{
    for (uint32_t i = 0; i < g->worker_count; i++)
        worker_pick(g->workers[i], group, member);
}

int gateway_pick(struct gateway *g, const char *group, const char *member, struct err *err)
{
    struct upstream *up = group_named(g, group);
    int r = up ? upstream_group_selects(up, member) : -ENOENT;

    if (!up)
        return err_set(err, -ENOENT, "there is no group \"%.80s\"", group);
    if (r == -EINVAL)
        return err_set(err, -EINVAL, "group \"%.80s\" chooses for itself; only a `select` can be told",
                       group);
    if (r != 0)
        return err_set(err, -EINVAL, "\"%.80s\" is no member of group \"%.80s\"", member, group);
    tell(g, up, member);
    r = remember(g, group, member);
    if (r == 0 && !strchr(group, '\n') && !strchr(member, '\n'))
        save(g);
    else
        log_warning("select: the choice in %s is not kept: a restart will not know it", group);
    return 0;
}

void gateway_picks_again(struct gateway *g)
{
    for (const struct pick *p = g->picks; p; p = p->next) {
        struct upstream *up = group_named(g, p->group);

        if (up && upstream_group_selects(up, p->member) == 0)
            tell(g, up, p->member);
    }
}

void gateway_picks_open(struct gateway *g)
{
    load(g);
    gateway_picks_again(g);
}

void gateway_picks_close(struct gateway *g)
{
    forget_all(g);
}
