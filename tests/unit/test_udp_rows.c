/* test_udp_rows.c - datagrams that arrive together are handed up together (tcp-stack.md UDP-3, the other way): what one
 * client socket sent to one target within a batch is one call, and one system call of the upstream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ip_lab.h"

/* A word a datagram: the client's port (A, B, ...; small letters: its second target), its length, then what is unusual:
 * "t" another TTL, "/4" a super-packet of datagrams of 4 bytes. What is seen: a row a word, "client:lengths/size". */
static const struct row {
    const char *what, *sent, *seen;
} rows[] = {
    { "one alone", "A5", "A:5/0" },
    { "equal ones are a row", "A5 A5 A5", "A:5+5+5/5" },
    { "a shorter one is the last", "A5 A5 A3 A5 A5", "A:5+5+3/5 A:5+5/5" },
    { "a longer one begins another", "A5 A5 A6 A5", "A:5+5/5 A:6+5/6" },
    { "an empty one is none of a row", "A5 A0 A5 A0 A0", "A:5/0 A:0/0 A:5/0 A:0/0 A:0/0" },
    { "clients that take turns", "A5 B7 A5 B7 A5 B7", "A:5+5+5/5 B:7+7+7/7" },
    { "targets that take turns", "A5 a5 A5 a5", "A:5+5/5 a:5+5/5" },
    { "order of one client and target is kept", "A5 A6 B2 A5 A6", "A:5/0 A:6+5/6 B:2/0 A:6/0" },
    { "another TTL", "A5 A5t A5t", "A:5/0 A:5+5/5" },
    { "super-packets of one size go on", "A8/4 A8/4 A4 A2 A4", "A:8+8+4+2/4 A:4/0" },
    { "a super-packet with a short end", "A7/4 A8/4", "A:7/4 A:8/4" },
    { "super-packets of other sizes do not", "A8/4 A9/3", "A:8/4 A:9/3" },
    { "a single one, then a super-packet of its size", "A4 A8/4 A8/2", "A:4+8/4 A:8/2" },
};

static char seen[2048];
static struct pkt pkt;
static uint8_t data[2000];

static void on_row(void *user, const struct udp_datagram *d)
{
    bool other_target = d->target.port != 53;
    size_t sum = 0, at = strlen(seen);

    (void)user;
    at += (size_t)sprintf(seen + at, "%s%c:", at > 0 ? " " : "",
                          (other_target ? 'a' : 'A') + (d->client.port - 4000));
    for (int i = 0; i < d->ranges; i++) {
        at += (size_t)sprintf(seen + at, "%s%zu", i > 0 ? "+" : "", d->data[i].iov_len);
        assert_memory_equal(d->data[i].iov_base, data, d->data[i].iov_len); /* all of it is still there */
        sum += d->data[i].iov_len;
    }
    assert_int_equal(sum, d->len);
    sprintf(seen + at, "/%u", d->gso_size);
}

static int setup(void **state)
{
    struct ip_lab *lab = ip_lab_new();

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    lab->cfg.max_udp = 16;
    lab->ev.on_udp_datagram = on_row;
    lab->on_request = LAB_ACCEPT;
    ip_lab_start(lab);
    *state = lab;
    return 0;
}

static void feed(struct ip_lab *lab, const char *word, bool v6)
{
    char *more;
    bool other_target = word[0] >= 'a';
    uint16_t client = (uint16_t)(4000 + word[0] - (other_target ? 'a' : 'A'));
    size_t len = strtoul(word + 1, &more, 10);

    pkt_udp(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, client, v6 ? LAB_TARGET6 : LAB_TARGET,
            other_target ? 54 : 53, data, len);
    if (*more == 't')
        pkt.data[v6 ? 7 : 8] = 9;
    if (*more == 't' && !v6)
        pkt_fix_ip(&pkt);
    if (*more == '/')
        pkt.meta = (struct pkt_meta){ .gso = PKT_GSO_UDP,
                                      .gso_size = (uint16_t)atoi(more + 1),
                                      .needs_csum = true,
                                      .csum_start = v6 ? 40 : 20,
                                      .csum_offset = 6 };
    ip_lab_feed(lab, &pkt);
}

static void datagrams_of_one_batch_become_rows(void **state)
{
    struct ip_lab *lab = *state;
    int wrong = 0;

    for (int v6 = 0; v6 < 2; v6++) {
        for (const char *warm = "A1\0B1\0"; *warm;
             warm += 3) { /* both clients have an endpoint from here on */
            feed(lab, warm, v6);
            stack_batch_end(lab->s, lab->now_us);
        }
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            char sent[128], *at = sent, *word;

            snprintf(sent, sizeof(sent), "%s", rows[i].sent);
            seen[0] = '\0';
            while ((word = strsep(&at, " ")) != NULL)
                feed(lab, word, v6);
            stack_batch_end(lab->s, lab->now_us);
            if (strcmp(seen, rows[i].seen) == 0)
                continue;
            print_error("%s: sent \"%s\", seen \"%s\", not \"%s\"\n", rows[i].what, rows[i].sent, seen,
                        rows[i].seen);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(ip_lab_in_use(lab, "slot"), 0); /* and nothing is kept longer than the call */
}

static void held_datagrams_come_as_rows(void **state)
{
    struct ip_lab *lab = *state;

    seen[0] = '\0';
    feed(lab, "C5", false);
    feed(lab, "C5", false);
    feed(lab, "C2", false);
    feed(lab, "C5", false);
    stack_batch_end(lab->s, lab->now_us);
    assert_string_equal(seen, "C:5+5+2/5 C:5/0");
}

static void a_row_holds_at_most_so_many_ranges(void **state)
{
    struct ip_lab *lab = *state;
    size_t ranges = 0;

    feed(lab, "A1", false);
    stack_batch_end(lab->s, lab->now_us);
    seen[0] = '\0';
    for (int i = 0; i < 60; i++)
        feed(lab, "A5", false);
    stack_batch_end(lab->s, lab->now_us);
    for (const char *at = seen; (at = strchr(at, '5')) != NULL; at++)
        ranges++;
    assert_int_equal(ranges, 61); /* and the size */
    assert_null(strchr(seen, ' '));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(datagrams_of_one_batch_become_rows, setup, ip_lab_teardown),
        cmocka_unit_test_setup_teardown(held_datagrams_come_as_rows, setup, ip_lab_teardown),
        cmocka_unit_test_setup_teardown(a_row_holds_at_most_so_many_ranges, setup, ip_lab_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
