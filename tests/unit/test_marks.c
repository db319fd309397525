/* test_marks.c - faces src/upstream/mark.c and the mark of tls_settings: what says the same as before a reload is kept, so every member
 * of the options must count (faults.md C11).
 *
 * A member that is new in one of these structs is missing in its list here, and the compiler says so: the lists are initializers by
 * position, and -Wextra wants a value for each member. A member in a list that the mark forgets fails the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tls_pair.h"
#include "upstream/upstream_impl.h"

/* What the lists name that must live somewhere. */
static struct tls_settings *settings[2];
static const struct ip_prefix allow[2][2] = { { { .len = 96 }, { .len = 97 } },
                                              { { .len = 98 }, { .len = 97 } } };
static const uint32_t members[2][2] = { { 0, 1 }, { 1, 0 } };
static struct group_options groups[2];

/* M(member, a value, another one, does the mark cover it) in the order of the struct */
#define UPSTREAM_MEMBERS(M)                                                                                  \
    M(name, "office", "home", true)                                                                          \
    M(kind, UPSTREAM_SOCKS5, UPSTREAM_HTTP, true)                                                            \
    M(server, servers[0], servers[1], true)                                                                  \
    M(username, "alice", "bob", true)                                                                        \
    M(password, "sesame", "builder", true)                                                                   \
    M(token, "0123", "4567", true)                                                                           \
    M(udp, UPSTREAM_UDP_AUTO, UPSTREAM_UDP_OFF, true)                                                        \
    M(pipelining, UPSTREAM_PIPELINING_AUTO, UPSTREAM_PIPELINING_OFF, true)                                   \
    M(fast_open, false, true, true)                                                                          \
    M(pool, 1, 2, true)                                                                                      \
    M(secure, false, true, true)                                                                             \
    M(tls, settings[0], settings[1], true)                                                                   \
    M(tls_name, "one.test", "two.test", true)                                                                \
    M(half_close_delay_ms, 1, 2, true)                                                                       \
    M(routing_mark, 1, 2, true)                                                                              \
    M(interface_name, "eth0", "eth1", true)                                                                  \
    M(allow, allow[0], allow[1], true)                                                                       \
    M(allows, 1, 2, true)                                                                                    \
    M(public_only, false, true, true)                                                                        \
    M(dialer, 1, 2, false) /* a place in the list; what stands there counts (test_upstream_renew.c) */       \
    M(group, &groups[0], &groups[1], true)

#define GROUP_MEMBERS(M)                                                                                     \
    M(kind, GROUP_SELECT, GROUP_FALLBACK, true)                                                              \
    M(strategy, GROUP_STICKY, GROUP_ROUND_ROBIN, true)                                                       \
    M(members, members[0], members[1], false) /* places, too */                                              \
    M(member_count, 1, 2, true)                                                                              \
    M(url, servers[0], servers[1], true)                                                                     \
    M(url_path, "/a", "/b", true)                                                                            \
    M(tls, settings[0], settings[1], true)                                                                   \
    M(interval_ms, 1, 2, true)                                                                               \
    M(timeout_ms, 1, 2, true)                                                                                \
    M(tolerance_ms, 1, 2, true)                                                                              \
    M(max_failures, 1, 2, true)                                                                              \
    M(retry_after_ms, 1, 2, true)

#define TLS_MEMBERS(M)                                                                                       \
    M(server, false, true, true)                                                                             \
    M(ca, authorities[0], authorities[1], true)                                                              \
    M(skip_verify, false, true, true)                                                                        \
    M(resume, false, true, true)                                                                             \
    M(min_version, TLS_1_2, tls_has_1_3() ? TLS_1_3 : TLS_1_2, tls_has_1_3())                                \
    M(alpn, alpn[0], alpn[1], true)                                                                          \
    M(alpns, 1, 2, true)                                                                                     \
    M(pins, pins[0], pins[1], true)                                                                          \
    M(pin_count, 1, 2, true)                                                                                 \
    M(certificate, pki_server()->certificate, certificate, true)                                             \
    M(private_key, pki_server()->key, key, true)

#define FIRST(member, one, another, counts)  one,
#define SECOND(member, one, another, counts) another,
#define UPSTREAM_ROW(member, one, another, counts)                                                           \
    { #member, offsetof(struct upstream_options, member), sizeof(((struct upstream_options *)0)->member),    \
      counts },
#define GROUP_ROW(member, one, another, counts)                                                              \
    { #member, offsetof(struct group_options, member), sizeof(((struct group_options *)0)->member), counts },
#define TLS_ROW(member, one, another, counts)                                                                \
    { #member, offsetof(struct tls_options, member), sizeof(((struct tls_options *)0)->member), counts },

struct row {
    const char *member;
    size_t offset, bytes;
    bool counts;
};

/* @mark of @one, with one member after the other as it is in @another; and of @one, copied. */
static int unlike_the_table(const struct row *rows, size_t n, const void *one, const void *another,
                            size_t bytes, uint64_t (*mark)(const void *options))
{
    char changed[sizeof(struct upstream_options) + sizeof(struct group_options) + sizeof(struct tls_options)];
    int wrong = 0;

    memcpy(changed, one, bytes);
    assert_true(mark(one) == mark(changed));
    for (size_t i = 0; i < n; i++) {
        memcpy(changed, one, bytes);
        memcpy(changed + rows[i].offset, (const char *)another + rows[i].offset, rows[i].bytes);
        if ((mark(one) != mark(changed)) != rows[i].counts && ++wrong)
            print_error("%s: %s\n", rows[i].member,
                        rows[i].counts ? "the mark forgets it" : "the mark has it");
    }
    return wrong;
}

static uint64_t mark_of_upstream(const void *options)
{
    struct upstream_options o;

    memcpy(&o, options, sizeof(o)); /* aligned */
    return upstream_mark(&o);
}

static uint64_t mark_of_group(const void *options)
{
    struct group_options g;
    struct upstream_options o = { .name = "group", .kind = UPSTREAM_GROUP, .group = &g };

    memcpy(&g, options, sizeof(g));
    return upstream_mark(&o);
}

static uint64_t mark_of_tls(const void *options)
{
    struct tls_options o;
    struct tls_settings *s;
    struct err err = { "" };
    uint64_t mark;

    memcpy(&o, options, sizeof(o));
    if (tls_settings_new(&o, &s, &err) != 0)
        fail_msg("%s", err.text);
    mark = tls_settings_mark(s);
    tls_settings_unref(s);
    return mark;
}

static struct host_port at(const char *addr)
{
    struct host_port h = { .port = 1080 };

    assert_int_equal(ip_parse(addr, &h.addr), 0);
    return h;
}

static int make(void **state)
{
    for (int i = 0; i < 2; i++) {
        struct tls_options o = { .ca = tls_test_ca(pki_authority()), .resume = i == 1 };
        struct err err;

        assert_int_equal(tls_settings_new(&o, &settings[i], &err), 0);
        tls_ca_unref(o.ca);
        groups[i] =
            (struct group_options){ .kind = GROUP_SELECT, .member_count = 1, .interval_ms = (uint32_t)i };
    }
    (void)state;
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    tls_settings_unref(settings[0]);
    tls_settings_unref(settings[1]);
    return 0;
}

static void every_member_of_a_way_out_counts(void **state)
{
    const struct host_port servers[] = { at("192.0.2.1"), at("192.0.2.2") };
    const struct upstream_options one = { UPSTREAM_MEMBERS(FIRST) }, another = { UPSTREAM_MEMBERS(SECOND) };
    static const struct row rows[] = { UPSTREAM_MEMBERS(UPSTREAM_ROW) };

    (void)state;
    assert_int_equal(unlike_the_table(rows, ARRAY_LEN(rows), &one, &another, sizeof(one), mark_of_upstream),
                     0);
}

static void every_member_of_a_group_counts(void **state)
{
    const struct host_port servers[] = { at("192.0.2.1"), at("192.0.2.2") };
    const struct group_options one = { GROUP_MEMBERS(FIRST) }, another = { GROUP_MEMBERS(SECOND) };
    static const struct row rows[] = { GROUP_MEMBERS(GROUP_ROW) };

    (void)state;
    assert_int_equal(unlike_the_table(rows, ARRAY_LEN(rows), &one, &another, sizeof(one), mark_of_group), 0);
}

static void every_part_of_a_server_counts(void **state)
{
    struct upstream_options o[3] = { { .name = "a", .server = { .name = "a.test", .port = 1 } },
                                     { .name = "a", .server = { .name = "b.test", .port = 1 } },
                                     { .name = "a", .server = { .name = "a.test", .port = 2 } } };

    (void)state;
    assert_true(upstream_mark(&o[0]) != upstream_mark(&o[1]));
    assert_true(upstream_mark(&o[0]) != upstream_mark(&o[2]));
}

static void every_member_of_tls_settings_counts(void **state)
{
    static const char *const alpn[2][2] = { { "h2", "http/1.1" }, { "http/1.1", "h2" } };
    static const uint8_t pins[2][2][TLS_PIN_BYTES] = { { { 1 }, { 2 } }, { { 3 }, { 4 } } };
    static struct pki_id other;
    static char certificate[PKI_PEM_MAX + 1], key[PKI_PEM_MAX + 1];
    struct tls_ca *authorities[2];
    const struct pki_wish wish = { .cn = "other.test", .dns = { "other.test" } };

    (void)state;
    pki_make(&wish, &other);
    snprintf(certificate, sizeof(certificate), "%s\n",
             pki_server()->certificate); /* they must fit each other */
    snprintf(key, sizeof(key), "%s\n", pki_server()->key);
    authorities[0] = tls_test_ca(pki_authority());
    authorities[1] = tls_test_ca(&other);
    {
        const struct tls_options one = { TLS_MEMBERS(FIRST) }, another = { TLS_MEMBERS(SECOND) };
        const struct row rows[] = { TLS_MEMBERS(TLS_ROW) };

        assert_int_equal(unlike_the_table(rows, ARRAY_LEN(rows), &one, &another, sizeof(one), mark_of_tls),
                         0);
    }
    tls_ca_unref(authorities[0]);
    tls_ca_unref(authorities[1]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_of_a_way_out_counts),
        cmocka_unit_test(every_member_of_a_group_counts),
        cmocka_unit_test(every_part_of_a_server_counts),
        cmocka_unit_test(every_member_of_tls_settings_counts),
    };

    return cmocka_run_group_tests(tests, make, unmake);
}
