/* What a reload keeps of the ways out: those that say the same stay the same objects, with all that workers know of them (faults.md C11). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "culvert/upstream.h"

enum { DIRECT, OFFICE, CORP, HOP, PICK, OUTER, WAYS };

struct set {
    uint32_t inner[2], outer[2];
    struct group_options pick, outer_pick;
    struct upstream_options list[WAYS];
};

static struct host_port at(const char *addr, uint16_t port)
{
    struct host_port h = { .port = port };

    assert_int_equal(ip_parse(addr, &h.addr), 0);
    return h;
}

/* A chain (hop through corp), a group of it and office, and a group of that group. */
static void fill(struct set *s)
{
    memset(s, 0, sizeof(*s));
    s->inner[0] = OFFICE;
    s->inner[1] = HOP;
    s->outer[0] = PICK;
    s->outer[1] = DIRECT;
    s->pick = (struct group_options){ .kind = GROUP_SELECT, .members = s->inner, .member_count = 2 };
    s->outer_pick = (struct group_options){ .kind = GROUP_FALLBACK, .members = s->outer, .member_count = 2 };
    s->list[DIRECT] = (struct upstream_options){ .name = "DIRECT", .kind = UPSTREAM_DIRECT };
    s->list[OFFICE] = (struct upstream_options){ .name = "office",
                                                 .kind = UPSTREAM_SOCKS5,
                                                 .server = at("192.0.2.1", 1080),
                                                 .username = "alice",
                                                 .password = "secret" };
    s->list[CORP] =
        (struct upstream_options){ .name = "corp", .kind = UPSTREAM_HTTP, .server = at("192.0.2.2", 3128) };
    s->list[HOP] = (struct upstream_options){
        .name = "hop", .kind = UPSTREAM_SOCKS5, .server = at("192.0.2.3", 1080), .dialer = 1 + CORP
    };
    s->list[PICK] = (struct upstream_options){ .name = "pick", .kind = UPSTREAM_GROUP, .group = &s->pick };
    s->list[OUTER] =
        (struct upstream_options){ .name = "outer", .kind = UPSTREAM_GROUP, .group = &s->outer_pick };
}

static void nothing(struct set *s)
{
    (void)s;
}
static void password(struct set *s)
{
    s->list[OFFICE].password = "Secret";
}
static void pool(struct set *s)
{
    s->list[OFFICE].pool = 4;
}
static void login_gone(struct set *s)
{
    s->list[OFFICE].username = s->list[OFFICE].password = NULL;
}
static void corp_port(struct set *s)
{
    s->list[CORP].server.port++;
}
static void corp_mark(struct set *s)
{
    s->list[CORP].routing_mark = 2;
}
static void hop_direct(struct set *s)
{
    s->list[HOP].dialer = 0;
}
static void order(struct set *s)
{
    s->inner[0] = HOP;
    s->inner[1] = OFFICE;
}
static void failures(struct set *s)
{
    s->outer_pick.max_failures = 5;
}
static void name(struct set *s)
{
    s->list[CORP].name = "corp2";
}

static void what_says_the_same_stays_and_what_names_a_new_one_is_new(void **state)
{
    static const struct {
        const char *what;
        void (*change)(struct set *s);
        unsigned fresh; /* bits: which are new objects then */
    } rows[] = {
        { "nothing", nothing, 0 },
        { "a password", password, 1 << OFFICE | 1 << PICK | 1 << OUTER },
        { "a pool", pool, 1 << OFFICE | 1 << PICK | 1 << OUTER },
        { "no login", login_gone, 1 << OFFICE | 1 << PICK | 1 << OUTER },
        { "a port", corp_port, 1 << CORP | 1 << HOP | 1 << PICK | 1 << OUTER },
        { "a mark", corp_mark, 1 << CORP | 1 << HOP | 1 << PICK | 1 << OUTER },
        { "a dialer", hop_direct, 1 << HOP | 1 << PICK | 1 << OUTER },
        { "the order of members", order, 1 << PICK | 1 << OUTER },
        { "a group's limit", failures, 1 << OUTER },
        { "a name", name, 1 << CORP | 1 << HOP | 1 << PICK | 1 << OUTER },
    };

    (void)state;
    for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
        struct upstream *old[WAYS], *now[WAYS];
        struct set s;

        fill(&s);
        assert_int_equal(upstreams_new(s.list, WAYS, old), 0);
        rows[r].change(&s);
        assert_int_equal(upstreams_renew(s.list, WAYS, old, WAYS, now), 0);
        for (size_t i = 0; i < WAYS; i++)
            if ((old[i] != now[i]) != (rows[r].fresh >> i & 1))
                fail_msg("after %s: %s is %s", rows[r].what, s.list[i].name,
                         old[i] == now[i] ? "old" : "new");
        for (size_t i = 0; i < WAYS; i++) {
            upstream_unref(old[i]);
            upstream_unref(now[i]);
        }
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_says_the_same_stays_and_what_names_a_new_one_is_new),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
