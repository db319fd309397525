/* test_owner.c - faces src/loop/netlink_owner.c and src/app/owner.c: whose socket a flow of this machine is. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "app/owner.h"

struct ends {
    int client, server;
    struct flow_key key;
};

static struct ip_port bind_to(int fd, const char *text)
{
    struct sockaddr_storage sa;
    struct ip_port at = { .port = 0 };
    socklen_t len;

    assert_int_equal(ip_parse(text, &at.addr), 0);
    len = ip_to_sockaddr(&at, &sa);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    len = sizeof(sa);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    assert_int_equal(ip_from_sockaddr((struct sockaddr *)&sa, &at), 0);
    return at;
}

/* A client's socket and its target on loopback; @type SOCK_STREAM or SOCK_DGRAM. */
static struct ends open_ends(const char *address, int type, bool connected)
{
    int family = strchr(address, ':') != NULL ? AF_INET6 : AF_INET;
    struct ends e = { socket(family, type, 0), socket(family, type, 0), .key.proto = IP_PROTO_TCP };
    struct ip_port client, server;
    struct sockaddr_storage sa;

    assert_true(e.client >= 0 && e.server >= 0);
    server = bind_to(e.server, address);
    client = bind_to(e.client, address);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(e.server, 1), 0);
    else
        e.key.proto = IP_PROTO_UDP;
    if (connected)
        assert_int_equal(connect(e.client, (struct sockaddr *)&sa, ip_to_sockaddr(&server, &sa)), 0);
    e.key.client = client.addr;
    e.key.client_port = client.port;
    e.key.target = server.addr;
    e.key.target_port = server.port;
    return e;
}

static void close_ends(struct ends *e)
{
    close(e->client);
    close(e->server);
}

static void the_kernel_knows_whose_socket_it_is(void **state)
{
    static const struct {
        const char *address;
        int type;
        bool connected;
    } rows[] = { { "127.0.0.1", SOCK_STREAM, true }, { "127.0.0.1", SOCK_DGRAM, true },
                 { "127.0.0.1", SOCK_DGRAM, false }, { "::1", SOCK_STREAM, true },
                 { "::1", SOCK_DGRAM, true },        { "::1", SOCK_DGRAM, false } };
    struct netlink *nl;
    struct err err;

    (void)state;
    if (netlink_open_diag(&nl, &err) != 0)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ends e = open_ends(rows[i].address, rows[i].type, rows[i].connected);
        struct nl_owner owner = { UINT32_MAX, 0 };
        char link[64], wanted[64];
        ssize_t n;

        assert_int_equal(netlink_socket_owner(nl, &e.key, &owner), 0);
        assert_int_equal(owner.uid, geteuid());
        snprintf(wanted, sizeof(wanted), "/proc/self/fd/%d", e.client);
        n = readlink(wanted, link, sizeof(link) - 1);
        assert_true(n > 0);
        link[n] = '\0';
        snprintf(wanted, sizeof(wanted), "socket:[%u]", owner.inode);
        assert_string_equal(link, wanted);
        close_ends(&e);
        assert_int_not_equal(netlink_socket_owner(nl, &e.key, &owner), 0);
    }
    netlink_close(nl);
}

struct answered {
    struct flow_owner_ask ask;
    struct loop *loop;
    bool done;
};

static void on_answer(struct loop_msg *m)
{
    struct answered *a = CONTAINER_OF(m, struct answered, ask.msg);

    a->done = true;
    loop_stop(a->loop);
}

static void the_thread_finds_user_and_program_and_says_when_there_is_none(void **state)
{
    struct ends e = open_ends("127.0.0.1", SOCK_STREAM, true);
    struct answered a = { .ask.answer = on_answer, .ask.wants_program = true };
    struct owners *owners;
    char self[256];
    struct err err;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    (void)state;
    assert_true(n > 0);
    self[n] = '\0';
    assert_int_equal(loop_new(&a.loop), 0);
    assert_int_equal(owners_new(NULL, NULL, &owners, &err), 0);
    assert_int_equal(owners_start(owners), 0);
    a.ask.home = a.loop;
    a.ask.key = e.key;
    owners_ask(owners, &a.ask);
    loop_run(a.loop);
    assert_true(a.done && a.ask.found);
    assert_int_equal(a.ask.uid, geteuid());
    assert_string_equal(a.ask.program, self);
    close_ends(&e);
    a.done = false;
    owners_ask(owners, &a.ask);
    loop_run(a.loop);
    assert_true(a.done);
    assert_false(a.ask.found);
    assert_string_equal(a.ask.program, "");
    owners_free(owners);
    loop_free(a.loop);
}

static void what_was_asked_is_answered_even_when_all_ends(void **state)
{
    struct answered a[50] = { { .done = false } };
    struct owners *owners;
    struct loop *loop;
    struct err err;

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(owners_new(NULL, NULL, &owners, &err), 0);
    assert_int_equal(owners_start(owners), 0);
    for (size_t i = 0; i < ARRAY_LEN(a); i++) {
        a[i].ask.answer = on_answer;
        a[i].ask.home = a[i].loop = loop;
        a[i].ask.key.proto = IP_PROTO_TCP;
        owners_ask(owners, &a[i].ask);
    }
    owners_free(owners);
    loop_free(loop);
    for (size_t i = 0; i < ARRAY_LEN(a); i++)
        assert_true(a[i].done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_knows_whose_socket_it_is),
        cmocka_unit_test(the_thread_finds_user_and_program_and_says_when_there_is_none),
        cmocka_unit_test(what_was_asked_is_answered_even_when_all_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
