/* test_tcp_options.c - faces src/stack/tcp_options.c: what a header's options say, however broken
 * (tcp-stack.md SEQ-1, SEQ-2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "stack/tcp_impl.h"

/* faults.md T2 */
static const struct option_row {
    const char *what;
    uint8_t bytes[40];
    size_t len;
    const char *found; /* m MSS, w window scale, s SACK permitted, t timestamp, digit: SACK blocks */
} rows[] = {
    { "nothing", { 0 }, 0, "" },
    { "MSS", { 2, 4, 5, 180 }, 4, "m" },
    { "all of a SYN", { 2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7 }, 20, "mwst" },
    { "the usual timestamp", { 1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8 }, 12, "t" },
    { "an odd place", { 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8, 0 }, 12, "t" },
    { "MSS of length 3", { 2, 3, 5, 4, 2 }, 5, "s" },
    { "length 0", { 8, 0, 2, 4, 5, 180 }, 6, "" },
    { "length 1", { 2, 1, 2, 4, 5, 180 }, 6, "" },
    { "length 255", { 4, 2, 99, 255, 2, 4, 5, 180 }, 8, "s" },
    { "cut off", { 2, 4, 5 }, 3, "" },
    { "kind without length", { 1, 1, 1, 2 }, 4, "" },
    { "end of list", { 0, 2, 4, 5, 180 }, 5, "" },
    { "unknown before MSS", { 253, 4, 1, 2, 2, 4, 5, 180 }, 8, "m" },
    { "one SACK block", { 1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2 }, 12, "1" },
    { "SACK of odd length", { 5, 9, 0, 0, 0, 1, 0, 0, 0, 4, 2 }, 11, "s" },
    { "empty SACK", { 5, 2, 4, 2 }, 4, "s" },
    { "40 NOPs",
      { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 },
      40,
      "" },
};

static const char *found_in(const struct tcp_options *o, char out[8])
{
    size_t n = 0;

    if (o->has_mss)
        out[n++] = 'm';
    if (o->has_ws)
        out[n++] = 'w';
    if (o->sack_ok)
        out[n++] = 's';
    if (o->has_ts)
        out[n++] = 't';
    if (o->sacks > 0)
        out[n++] = (char)('0' + o->sacks);
    out[n] = '\0';
    return out;
}

static void options_are_read_up_to_what_is_broken(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tcp_options o;
        char text[8];

        memset(&o, 0xa5, sizeof(o));
        tcp_options_parse((struct span){ .data = rows[i].bytes, .len = rows[i].len }, &o);
        if (strcmp(found_in(&o, text), rows[i].found) == 0)
            continue;
        print_error("%s: found \"%s\", not \"%s\"\n", rows[i].what, text, rows[i].found);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void values_come_in_host_order(void **state)
{
    static const uint8_t bytes[] = { 2, 4, 5, 180, 3, 3, 14, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8 };
    static const uint8_t sacks[] = { 5, 34, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0,
                                     4, 0,  0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0, 8 };
    struct tcp_options o;

    (void)state;
    tcp_options_parse((struct span){ .data = bytes, .len = sizeof(bytes) }, &o);
    assert_int_equal(o.mss, 1460);
    assert_int_equal(o.ws, 14);
    assert_int_equal(o.tsval, 0x01020304);
    assert_int_equal(o.tsecr, 0x05060708);
    tcp_options_parse((struct span){ .data = sacks, .len = sizeof(sacks) }, &o);
    assert_int_equal(o.sacks, 4);
    assert_int_equal(o.sack[3].start, 7);
    assert_int_equal(o.sack[3].end, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_read_up_to_what_is_broken),
        cmocka_unit_test(values_come_in_host_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
