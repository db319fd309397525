/* test_dns_service.c - faces src/resolver's service.c, job.c and datagram.c on virtual time: every way that a name server can keep a
 * question waiting, and when who is told what. */
#include "service_lab.h"

/* ---- one server over UDP ---- */

static void a_silent_server_is_asked_three_times_and_given_up_before_five_seconds(
    void **state) /* faults.md D7 */
{
    struct lab *lab = lab_new(DNS_RACE, "udp");
    struct told *t = ask(lab, "a.example");

    (void)state;
    ways_run_ms(500);
    udp_now_open(ways->udp[0]);
    assert_int_equal(ways->udp[0]->count, 1);
    ways_run_ms(450);
    assert_int_equal(ways->udp[0]->count, 1);
    ways_run_ms(100);
    assert_int_equal(ways->udp[0]->count, 2); /* after one second, */
    ways_run_ms(2000);
    assert_int_equal(ways->udp[0]->count, 3); /* after three, */
    ways_run_ms(2000);
    assert_int_equal(ways->udp[0]->count, 3);
    assert_told(t, DNS_SERVFAIL, 0, 4750); /* and then no more */
    assert_int_equal(lab->s->cnt.failed, 1);
    lab_free(lab);
}

static void what_is_not_the_answer_is_waited_on(void **state) /* faults.md D3 */
{
    struct lab *lab = lab_new(DNS_RACE, "udp");
    struct told *t = ask(lab, "a.example");
    const struct ip_port other = { ip_from4((const uint8_t[4]){ 192, 0, 2, 99 }), 53 };
    struct ip_port from;
    struct span a;

    (void)state;
    udp_now_open(ways->udp[0]);
    from = (struct ip_port){ ways->udp[0]->said[0].to.addr, 53 };
    a = answer_to(lab, ways->udp[0]->said[0].bytes, ways->udp[0]->said[0].len, GOOD, 60, 66);
    udp_now_brings(ways->udp[0], &other, a.data, a.len); /* from somebody else */
    lab->message.bytes[0] ^= 1;
    udp_now_brings(ways->udp[0], &from, a.data, a.len); /* another id */
    lab->message.bytes[0] ^= 1;
    lab->message.bytes[DNS_HEADER_LEN + 1] ^= 0x20;
    udp_now_brings(ways->udp[0], &from, a.data, a.len); /* another question: its case */
    udp_now_brings(ways->udp[0], &from, "short", 5);    /* nothing at all */
    udp_now_brings(ways->udp[0], &from, "", 0);
    assert_int_equal(t->calls, 0);
    assert_int_equal(lab->s->cnt.ignored, 5);
    ways_run_ms(100);
    udp_answers(lab, 0, 0, GOOD, 1);
    assert_told(t, DNS_NOERROR, 1, 100);
    lab_free(lab);
}

static void broken_bytes_and_refusals_end_a_try_at_once(void **state) /* faults.md D2, D6 */
{
    static const uint16_t flags[] = { SERVFAIL, MESSAGE_RESPONSE | DNS_REFUSED, MESSAGE_RESPONSE | 14 };
    struct span a;

    (void)state;
    for (size_t i = 0; i <= ARRAY_LEN(flags); i++) {
        struct lab *lab = lab_new(DNS_RACE, "udp");
        struct told *t = ask(lab, "a.example");
        struct ip_port from;

        udp_now_open(ways->udp[0]);
        from = (struct ip_port){ ways->udp[0]->said[0].to.addr, 53 };
        if (i < ARRAY_LEN(flags)) {
            udp_answers(lab, 0, 0, flags[i], 0);
        } else {
            a = answer_to(lab, ways->udp[0]->said[0].bytes, ways->udp[0]->said[0].len, GOOD, 60, 1);
            udp_now_brings(ways->udp[0], &from, a.data, a.len - 3); /* cut in its record */
        }
        assert_told(t, DNS_SERVFAIL, 0, 0);
        lab_free(lab);
    }
}

static void a_server_that_knows_no_edns_is_asked_plainly(void **state) /* RFC 6891 section 7 */
{
    struct lab *lab = lab_new(DNS_RACE, "udp");
    struct told *t = ask(lab, "a.example");

    (void)state;
    udp_now_open(ways->udp[0]);
    udp_answers(lab, 0, 0, MESSAGE_RESPONSE | DNS_FORMERR, 0);
    assert_int_equal(ways->udps, 2); /* with an id and a port of its own */
    udp_now_open(ways->udp[1]);
    assert_int_equal(ways->udp[1]->said[0].len, ways->udp[0]->said[0].len - 11);
    udp_answers(lab, 1, 0, GOOD, 1);
    assert_told(t, DNS_NOERROR, 1, 0);
    lab_free(lab);
}

static void a_cut_answer_is_asked_for_over_tcp_and_a_cut_one_there_fails(void **state) /* faults.md D5 */
{
    (void)state;
    for (int cut_again = 0; cut_again < 2; cut_again++) {
        struct lab *lab = lab_new(DNS_RACE, "udp");
        struct told *t = ask(lab, "a.example");

        udp_now_open(ways->udp[0]);
        udp_answers(lab, 0, 0, TRUNCATED, 0);
        assert_int_equal(ways->streams, 1);
        ways_run_ms(300);
        assert_true(ways->udp[0]->closed); /* its one question has left it */
        stream_now_open(ways->stream[0]);
        stream_answers(lab, 0, 0, cut_again ? TRUNCATED : GOOD, cut_again ? 0 : 1);
        if (cut_again)
            assert_told(t, DNS_SERVFAIL, 0, 300);
        else
            assert_told(t, DNS_NOERROR, 1, 300);
        lab_free(lab);
    }
}

static void a_way_without_udp_is_asked_over_tcp(void **state) /* faults.md U6 */
{
    (void)state;
    for (int later = 0; later < 2; later++) {
        struct lab *lab = lab_new(DNS_RACE, "udp#socks");
        struct told *t;

        lab->socks.udp_err = later ? 0 : -EOPNOTSUPP;
        t = ask(lab, "a.example");
        if (later)
            udp_now_gone(ways->udp[0], &way_without_udp);
        stream_now_open(ways->stream[0]);
        stream_answers(lab, 0, 0, GOOD, 1);
        assert_told(t, DNS_NOERROR, 1, 0);
        lab_free(lab);
    }
}

/* ---- several servers ---- */

static void in_a_race_the_first_good_answer_counts_and_one_failure_is_none(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "udp udp udp");
    struct told *t = ask(lab, "a.example");

    (void)state;
    assert_int_equal(ways->udps, 3);
    for (size_t i = 0; i < 3; i++)
        udp_now_open(ways->udp[i]);
    udp_answers(lab, 0, 0, SERVFAIL, 0);
    udp_now_gone(ways->udp[2], &way_broke); /* and is asked again on a socket of its own */
    assert_int_equal(ways->udps, 4);
    assert_int_equal(t->calls, 0);
    ways_run_ms(200);
    udp_answers(lab, 1, 0, GOOD, 2);
    assert_told(t, DNS_NOERROR, 2, 200);
    ways_run_ms(100);
    for (size_t i = 0; i < 4; i++)
        assert_true(ways->udp[i]->closed);
    lab_free(lab);
}

static void in_order_the_next_server_has_its_turn_by_failure_or_by_time(void **state)
{
    struct lab *lab = lab_new(DNS_IN_ORDER, "udp udp udp");
    struct told *t = ask(lab, "a.example");
    struct ip_port second;

    (void)state;
    assert_int_equal(ways->udps, 1);
    udp_now_open(ways->udp[0]);
    ways_run_ms(1400);
    assert_int_equal(ways->udps, 1);
    ways_run_ms(150); /* a third of 4.75 s, in ticks of a quarter */
    assert_int_equal(ways->udps, 2);
    udp_now_open(ways->udp[1]);
    second = (struct ip_port){ ways->udp[1]->said[0].to.addr, 53 };
    ways->udp[1]->events->on_error(ways->udp[1]->arg, &second, NULL, 3, 1, 0); /* unreachable ... */
    assert_int_equal(ways->udps, 2); /* ... but the first may still answer */
    udp_answers(lab, 0, 0, SERVFAIL, 0);
    assert_int_equal(ways->udps, 3);
    udp_now_open(ways->udp[2]);
    udp_answers(lab, 2, 0, GOOD, 3);
    assert_told(t, DNS_NOERROR, 3, 1550);
    lab_free(lab);
}

static void equal_questions_are_asked_once_and_others_by_themselves(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "udp");
    struct told *first = ask(lab, "a.example"), *same = ask(lab, "A.Example"), *late;

    (void)state;
    assert_int_equal(ways->udps, 1);
    ask_with(lab, "a.example", DNS_AAAA, DNS_Q_EDNS);
    ask_with(lab, "a.example", DNS_A, DNS_Q_EDNS | DNS_Q_DO);
    assert_int_equal(ways->udps, 3);
    udp_now_open(ways->udp[0]);
    late = ask(lab, "a.example");
    udp_answers(lab, 0, 0, GOOD, 1);
    assert_told(first, DNS_NOERROR, 1, 0);
    assert_told(same, DNS_NOERROR, 1, 0);
    assert_told(late, DNS_NOERROR, 1, 0);
    assert_told(ask(lab, "a.example"), DNS_NOERROR, 1, 0); /* and now from the cache */
    assert_int_equal(lab->s->cnt.coalesced, 2);
    assert_int_equal(lab->s->cnt.cache_hits, 1);
    lab_free(lab);
}

static void an_old_answer_is_given_after_1750_ms_and_a_late_one_is_kept(void **state) /* RFC 8767 section 5 */
{
    struct lab *lab = lab_new(DNS_RACE, "udp");
    struct told *t = ask(lab, "a.example");

    (void)state;
    udp_now_open(ways->udp[0]);
    udp_answers(lab, 0, 0, GOOD, 1);
    assert_int_equal(t->ttl_s, 60);
    ways_run_ms(61000);
    t = ask(lab, "a.example");
    udp_now_open(ways->udp[1]);
    ways_run_ms(1700);
    assert_int_equal(t->calls, 0);
    ways_run_ms(100);
    assert_told(t, DNS_NOERROR, 1, 1750);
    assert_int_equal(t->ttl_s, 30);
    udp_answers(lab, 1, 0, GOOD, 2);
    assert_told(ask(lab, "a.example"), DNS_NOERROR, 2, 0);
    lab_free(lab);
}

static void a_cancelled_question_is_never_told_in_whatever_state(void **state)
{
    enum { OPENING, SENT, STREAM_OPENING, STREAM_SENT, STATES };

    (void)state;
    for (int in = OPENING; in < STATES; in++) {
        struct lab *lab = lab_new(DNS_RACE, in < STREAM_OPENING ? "udp" : "tcp");
        struct told *gone = ask(lab, "a.example"), *stays = ask(lab, "a.example");

        if (in == SENT)
            udp_now_open(ways->udp[0]);
        if (in == STREAM_SENT)
            stream_now_open(ways->stream[0]);
        dns_service_cancel(gone->ask);
        if (in == OPENING)
            udp_now_open(ways->udp[0]);
        if (in == STREAM_OPENING)
            stream_now_open(ways->stream[0]);
        if (in < STREAM_OPENING)
            udp_answers(lab, 0, 0, GOOD, 1);
        else
            stream_answers(lab, 0, 0, GOOD, 1);
        assert_int_equal(gone->calls, 0);
        assert_told(stays, DNS_NOERROR, 1, 0);
        ask(lab, "b.example"); /* and one that is still open at the end */
        lab_free(lab);
    }
}

/* ---- associations ---- */

static void questions_through_a_proxy_share_an_association_with_ids_of_their_own(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "udp#socks udp#socks");
    struct told *t[20];
    char name[32];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        snprintf(name, sizeof(name), "n%zu.example", i);
        t[i] = ask(lab, name);
        if (i == 10)
            udp_now_open(ways->udp[0]);
    }
    assert_int_equal(ways->udps, 1);
    assert_int_equal(ways->udp[0]->count, 40); /* to two servers */
    for (size_t i = 0; i < 40; i++) {
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(ways->udp[0]->said[i].bytes, ways->udp[0]->said[k].bytes, 2);
    }
    for (size_t i = 0; i < 40; i++)
        udp_answers(lab, 0, i, GOOD, 1);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        assert_told(t[i], DNS_NOERROR, 1, 0);
    ways_run_ms(9900);
    assert_false(ways->udp[0]->closed);
    ways_run_ms(400); /* ten seconds after its last question was gone */
    assert_true(ways->udp[0]->closed);
    lab_free(lab);
}

static void the_slower_servers_of_a_race_are_no_strangers(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "udp#socks udp#socks udp#socks");
    char name[32];

    (void)state;
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "n%d.example", i);
        ask(lab, name);
        if (i == 0)
            udp_now_open(ways->udp[0]);
        udp_answers(lab, 0, ways->udp[0]->count - 3, GOOD, 1);
        ways_run_ms(20); /* its question is gone */
        udp_answers(lab, 0, ways->udp[0]->count - 2, GOOD, 1);
        udp_answers(lab, 0, ways->udp[0]->count - 1, GOOD, 1);
        lab->asked = 0;
    }
    assert_int_equal(ways->udps, 1);
    lab_free(lab);
}

static void direct_questions_have_a_socket_each(void **state) /* RFC 5452 section 4.5 */
{
    struct lab *lab = lab_new(DNS_RACE, "udp");

    (void)state;
    for (int i = 0; i < 5; i++) {
        char name[32];

        snprintf(name, sizeof(name), "n%d.example", i);
        ask(lab, name);
        udp_now_open(ways->udp[i]);
    }
    udp_answers(lab, 2, 0, GOOD, 1);
    ways_run_ms(20);
    assert_int_equal(ways->udps, 5);
    assert_true(ways->udp[2]->closed);
    assert_false(ways->udp[3]->closed);
    lab_free(lab);
}

static void a_broken_association_is_made_anew_once_for_those_who_wait(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "udp#socks");
    struct told *one = ask(lab, "one.example"), *two = ask(lab, "two.example");

    (void)state;
    udp_now_open(ways->udp[0]);
    dns_service_cancel(two->ask); /* its question goes on for the cache */
    udp_now_gone(ways->udp[0], &way_broke);
    assert_int_equal(ways->udps, 2);
    udp_now_open(ways->udp[1]);
    assert_int_equal(ways->udp[1]->count, 2);
    assert_int_equal(lab->s->cnt.repeated, 2);
    udp_now_gone(ways->udp[1], &way_broke);
    assert_told(one, DNS_SERVFAIL, 0, 0);
    assert_int_equal(ways->udps, 2);
    one = ask(lab, "three.example"); /* one that never opened is no server's silence */
    udp_now_gone(ways->udp[2], &way_broke);
    assert_told(one, DNS_SERVFAIL, 0, 0);
    lab_free(lab);
}

static void an_association_is_left_when_it_is_old_silent_forged_at_or_the_wrong_way(void **state)
{
    enum { OLD, SILENT, FORGED, OTHER_WAY, WHYS };

    (void)state;
    for (int why = OLD; why < WHYS; why++) {
        struct lab *lab = lab_new(DNS_RACE, "udp#group");
        struct ip_port from = { lab->servers[0].at.addr, 53 };
        struct told *t;

        ask(lab, "first.example");
        udp_now_open(ways->udp[0]);
        if (why != SILENT)
            udp_answers(lab, 0, 0, GOOD, 1);
        for (int i = 0; i < 65 && why == OLD; i++) { /* never idle */
            char name[32];

            snprintf(name, sizeof(name), "n%d.example", i);
            if (i < 60) {
                ask_with(lab, name, DNS_A, DNS_Q_EDNS);
                assert_int_equal(ways->udps, 1);
                udp_answers(lab, 0, ways->udp[0]->count - 1, GOOD, 1);
                lab->asked = 0;
            }
            ways_run_ms(i < 60 ? 1000 : 20);
        }
        if (why == SILENT)
            ways_run_ms(3050);
        for (int i = 0; i < 32 && why == FORGED; i++)
            udp_now_brings(ways->udp[0], &from, "0123456789abcdef", 16);
        if (why == OTHER_WAY)
            lab->group.goes = &lab->direct;
        t = ask(lab, "second.example");
        assert_int_equal(ways->udps, 2);
        udp_now_open(ways->udp[1]);
        udp_answers(lab, 1, 0, GOOD, 2);
        assert_int_equal(t->last, 2);
        lab_free(lab);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_server_is_asked_three_times_and_given_up_before_five_seconds),
        cmocka_unit_test(what_is_not_the_answer_is_waited_on),
        cmocka_unit_test(broken_bytes_and_refusals_end_a_try_at_once),
        cmocka_unit_test(a_server_that_knows_no_edns_is_asked_plainly),
        cmocka_unit_test(a_cut_answer_is_asked_for_over_tcp_and_a_cut_one_there_fails),
        cmocka_unit_test(a_way_without_udp_is_asked_over_tcp),
        cmocka_unit_test(in_a_race_the_first_good_answer_counts_and_one_failure_is_none),
        cmocka_unit_test(in_order_the_next_server_has_its_turn_by_failure_or_by_time),
        cmocka_unit_test(equal_questions_are_asked_once_and_others_by_themselves),
        cmocka_unit_test(an_old_answer_is_given_after_1750_ms_and_a_late_one_is_kept),
        cmocka_unit_test(a_cancelled_question_is_never_told_in_whatever_state),
        cmocka_unit_test(questions_through_a_proxy_share_an_association_with_ids_of_their_own),
        cmocka_unit_test(the_slower_servers_of_a_race_are_no_strangers),
        cmocka_unit_test(direct_questions_have_a_socket_each),
        cmocka_unit_test(a_broken_association_is_made_anew_once_for_those_who_wait),
        cmocka_unit_test(an_association_is_left_when_it_is_old_silent_forged_at_or_the_wrong_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
