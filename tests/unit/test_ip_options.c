/* test_ip_options.c - IPv4 options of echo requests, and IPv6 extension headers: icmp.md 2.7. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ip_lab.h"

static struct pkt pkt;

#define SELF 10, 0, 0, 1
#define HIS  1, 2, 3, 4

static const struct row {
    const char *id;
    uint8_t options[40];
    size_t len;
    uint8_t reply[40]; /* what the reply carries */
    size_t reply_len;
    uint8_t pointer; /* > 0: parameter problem, there */
} rows[] = {
    { "icmp.md P1 record route", { 7, 7, 4, 0, 0, 0, 0, 0 }, 8, { 7, 7, 8, SELF, 0 }, 8, 0 },
    { "icmp.md P1 record route, second",
      { 7, 11, 8, HIS, 0, 0, 0, 0, 0 },
      12,
      { 7, 11, 12, HIS, SELF, 0 },
      12,
      0 },
    { "icmp.md P2 record route, full", { 7, 7, 8, HIS, 0 }, 8, { 7, 7, 8, HIS, 0 }, 8, 0 },
    { "icmp.md P2 timestamp, full", { 68, 8, 9, 0x00, HIS }, 8, { 68, 8, 9, 0x10, HIS }, 8, 0 },
    { "icmp.md P2 timestamp, 14 missed", { 68, 8, 9, 0xe1, HIS }, 8, { 68, 8, 9, 0xf1, HIS }, 8, 0 },
    { "icmp.md P2 timestamp, 15 missed", { 68, 8, 9, 0xf0, HIS }, 8, { 0 }, 0, 20 + 3 },
    { "icmp.md P3 router alert", { 148, 4, 0, 0 }, 4, { 148, 4, 0, 0 }, 4, 0 },
    { "icmp.md P3 router alert of another kind", { 148, 4, 0, 1 }, 4, { 0 }, 0, 20 + 2 },
    { "icmp.md P4 unknown", { 30, 4, 9, 9, 148, 4, 0, 0 }, 8, { 148, 4, 0, 0 }, 4, 0 },
    { "icmp.md P4 unknown, between", { 1, 30, 3, 9, 148, 4, 0, 0 }, 8, { 1, 148, 4, 0, 0, 0, 0, 0 }, 8, 0 },
    { "icmp.md P4 unknown alone", { 30, 4, 9, 9 }, 4, { 0 }, 0, 0 },
    { "icmp.md P5 NOP", { 1, 1, 1, 0 }, 4, { 1, 1, 1, 0 }, 4, 0 },
    { "icmp.md P5 end", { 0, 7, 7, 4 }, 4, { 0 }, 0, 0 },
    { "icmp.md P6 length 0", { 30, 0, 0, 0 }, 4, { 0 }, 0, 20 },
    { "icmp.md P6 length 1", { 1, 30, 1, 0 }, 4, { 0 }, 0, 21 },
    { "icmp.md P6 length past the end", { 1, 7, 9, 4 }, 4, { 0 }, 0, 21 },
    { "icmp.md P6 no length", { 1, 1, 1, 7 }, 4, { 0 }, 0, 23 },
    { "icmp.md P6 route without pointer", { 7, 2, 0, 0 }, 4, { 0 }, 0, 21 },
    { "icmp.md P6 route, pointer low", { 7, 7, 3, 0, 0, 0, 0, 0 }, 8, { 0 }, 0, 22 },
    { "icmp.md P6 route, pointer odd", { 7, 7, 5, 0, 0, 0, 0, 0 }, 8, { 0 }, 0, 22 },
    { "icmp.md P6 stamp, pointer low", { 68, 8, 4, 0, 0, 0, 0, 0 }, 8, { 0 }, 0, 22 },
    { "icmp.md P6 stamp, pointer odd", { 68, 8, 6, 0, 0, 0, 0, 0 }, 8, { 0 }, 0, 22 },
    { "icmp.md P6 stamp, short", { 68, 3, 5, 0 }, 4, { 0 }, 0, 21 },
    { "icmp.md P6 stamp, flag 2", { 68, 8, 5, 2, 0, 0, 0, 0 }, 8, { 0 }, 0, 23 },
    { "icmp.md P6 two routes", { 7, 3, 4, 7, 3, 4, 0, 0 }, 8, { 0 }, 0, 23 },
    { "icmp.md P6 two alerts", { 148, 4, 0, 0, 148, 4, 0, 0 }, 8, { 0 }, 0, 24 },
};

static void request(const uint8_t *options, size_t len, const char *dst)
{
    pkt_echo(&pkt, LAB_CLIENT, dst, 1, 2, "data", 4);
    pkt_insert_options(&pkt, options, len);
    pkt_fix_ip(&pkt);
}

static bool reply_is_right(struct ip_lab *lab, const struct row *row)
{
    const uint8_t *ip = lab->out[0].data;

    return lab->outs == 1 && lab->echoes == 1 && (ip[0] & 15) * 4u == 20 + row->reply_len &&
           memcmp(ip + 20, row->reply, row->reply_len) == 0 && ip_lab_out(lab, 0).type == 0 &&
           ip_lab_out(lab, 0).len == 4 && lab->echo.ip_header_len == 20 + row->len;
}

static bool problem_is_right(struct ip_lab *lab, const struct row *row)
{
    struct pkt_view v;

    if (lab->outs != 1 || lab->echoes != 0)
        return false;
    v = ip_lab_out(lab, 0);
    return v.type == 12 && v.code == 0 && v.word >> 24 == row->pointer && v.len == pkt.len &&
           memcmp(v.data, pkt.data, pkt.len) == 0 && ip_lab_count(lab, "ip.malformed") == 1 &&
           ip_lab_count(lab, "icmp.rx.echo_request") == 0;
}

static void options_are_answered_as_rfc_791_says(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *row = &rows[i];
        struct ip_lab *lab = ip_lab_new();

        ip_lab_start(lab);
        request(row->options, row->len, LAB_GATEWAY);
        ip_lab_input(lab, &pkt);
        if (!(row->pointer > 0 ? problem_is_right(lab, row) : reply_is_right(lab, row))) {
            print_error("%s: %zu packets, %u calls\n", row->id, lab->outs, lab->echoes);
            for (size_t k = 0; lab->outs > 0 && k < lab->out[0].len && k < 44; k++)
                print_error("%s%02x", k % 4 == 0 ? " " : "", lab->out[0].data[k]);
            print_error("\n");
            wrong++;
        }
        ip_lab_free(lab);
    }
    assert_int_equal(wrong, 0);
}

static void timestamps_are_written_where_there_is_room(void **state) /* icmp.md P1 */
{
    static const struct {
        uint8_t options[12], len, pointer, stamp_at;
    } stamps[] = {
        { { 68, 8, 5, 0, 0, 0, 0, 0 }, 8, 9, 4 },
        { { 68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0 }, 12, 13, 8 },
        { { 68, 12, 5, 3, SELF, 0, 0, 0, 0 }, 12, 13, 8 },
        { { 68, 12, 5, 3, HIS, 0, 0, 0, 0 }, 12, 5, 0 }, /* somebody else's turn */
    };
    struct ip_lab *lab = *state;
    static const uint8_t self[] = { SELF };

    lab->now_us = 5000000;
    for (size_t i = 0; i < ARRAY_LEN(stamps); i++) {
        const uint8_t *o;

        ip_lab_clear(lab);
        request(stamps[i].options, stamps[i].len, LAB_GATEWAY);
        ip_lab_input(lab, &pkt);
        assert_int_equal(ip_lab_out(lab, 0).type, 0);
        o = lab->out[0].data + 20;
        assert_int_equal(o[2], stamps[i].pointer);
        if (stamps[i].stamp_at > 0) /* not a time of day: the high bit says so (RFC 791 section 3.1) */
            assert_int_equal(get_be32(o + stamps[i].stamp_at), 0x80000000u | 5000);
        else
            assert_memory_equal(o, stamps[i].options, stamps[i].len);
        if (stamps[i].stamp_at == 8)
            assert_memory_equal(o + 4, self, 4);
    }
}

static void nobody_complains_about_what_went_to_many(void **state) /* icmp.md P6 */
{
    static const uint8_t bad[] = { 7, 7, 3, 0, 0, 0, 0, 0 };
    struct ip_lab *lab = *state;

    request(bad, sizeof(bad), "10.0.0.255");
    ip_lab_input(lab, &pkt);
    request(bad, sizeof(bad), "224.0.0.1");
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->outs + lab->echoes, 0);
    assert_int_equal(ip_lab_count(lab, "ip.malformed"), 2);
}

static void only_marked_options_are_in_later_fragments(void **state) /* icmp.md P1, R8; RFC 791 section 3.1 */
{
    static const uint8_t both[] = { 7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0 };
    static uint8_t payload[1464];
    struct ip_lab *lab = *state;

    pkt_echo(&pkt, LAB_CLIENT, LAB_GATEWAY, 1, 2, payload, sizeof(payload));
    pkt_insert_options(&pkt, both, sizeof(both));
    pkt_fix_ip(&pkt);
    stack_set_mtu(lab->s, 1000);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->outs, 2);
    assert_int_equal((lab->out[0].data[0] & 15) * 4, 32);
    assert_int_equal((lab->out[1].data[0] & 15) * 4, 24);
    assert_int_equal(lab->out[1].data[20], 148);
    assert_true(lab->out[0].len <= 1000 && lab->out[1].len <= 1000);
    assert_int_equal(lab->out[0].len - 32 + lab->out[1].len - 24, sizeof(payload) + 8);
}

static echo_token token;

static void detach(struct ip_lab *lab, struct echo_req *r)
{
    (void)lab;
    token = echo_detach(r, ECHO_KEEP_PAYLOAD);
}

static void a_detached_request_keeps_its_options(void **state) /* icmp.md P1, A1 */
{
    static const uint8_t route[] = { 7, 7, 4, 0, 0, 0, 0, 0 }, filled[] = { 7, 7, 8, SELF, 0 };
    struct echo_outcome o = { .kind = ECHO_OUT_REPLY };
    struct ip_lab *lab = *state;

    lab->in_echo = detach;
    request(route, sizeof(route), LAB_TARGET);
    ip_lab_input(lab, &pkt);
    lab->in_echo = NULL;
    request(route, 0, LAB_GATEWAY); /* another request comes between */
    ip_lab_input(lab, &pkt);
    ip_lab_clear(lab);
    assert_int_equal(echo_complete(lab->s, token, &o), EV_SENT);
    assert_memory_equal(lab->out[0].data + 20, filled, sizeof(filled));
}

static void extension_headers_are_passed_and_not_answered(void **state) /* icmp.md P7 */
{
    static const uint8_t chain[] = {
        60, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0
    }; /* hop-by-hop, destination */
    struct ip_lab *lab = *state;

    pkt_echo(&pkt, LAB_CLIENT6, LAB_GATEWAY6, 1, 2, "data", 4);
    pkt_insert_ext(&pkt, 0, chain, sizeof(chain), 8);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->echo.ip_header_len, 40 + sizeof(chain));
    assert_int_equal(ip_lab_out(lab, 0).type, 129);
    assert_int_equal(lab->out[0].data[6], 58);
    assert_int_equal(ip_lab_out(lab, 0).len, 4);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_answered_as_rfc_791_says),
        T(timestamps_are_written_where_there_is_room),
        T(nobody_complains_about_what_went_to_many),
        T(only_marked_options_are_in_later_fragments),
        T(a_detached_request_keeps_its_options),
        T(extension_headers_are_passed_and_not_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
