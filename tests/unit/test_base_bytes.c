/* test_base_bytes.c - faces src/base/bytes.c and name.c: views that never read or write past their end, host names. */
#include "culvert/base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void a_span_gives_numbers_from_its_front_in_network_order(void **state)
{
    static const uint8_t data[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    struct span s = { data, sizeof(data) };
    const uint8_t *bytes;
    uint32_t u32;
    uint16_t u16;
    uint8_t u8;

    (void)state;
    assert_true(span_u8(&s, &u8) && span_u16(&s, &u16) && span_u32(&s, &u32));
    assert_int_equal(u8, 1);
    assert_int_equal(u16, 0x0203);
    assert_int_equal(u32, 0x04050607);
    assert_true(span_bytes(&s, 2, &bytes));
    assert_ptr_equal(bytes, data + 7);
    assert_int_equal(s.len, 0);
}

static void a_span_that_is_too_short_gives_nothing_and_keeps_what_it_has(void **state)
{
    static const uint8_t data[] = { 1, 2, 3 };
    struct span s = { data, 0 };
    const uint8_t *bytes = NULL;
    uint32_t u32 = 99;
    uint16_t u16 = 99;
    uint8_t u8 = 99;

    (void)state;
    assert_false(span_u8(&s, &u8));
    s.len = 1;
    assert_false(span_u16(&s, &u16));
    s.len = 3;
    assert_false(span_u32(&s, &u32));
    assert_false(span_bytes(&s, 4, &bytes));
    assert_false(span_bytes(&s, SIZE_MAX, &bytes));
    assert_ptr_equal(s.data, data);
    assert_int_equal(s.len, 3);
    assert_true(u8 == 99 && u16 == 99 && u32 == 99 && bytes == NULL);
    assert_true(span_bytes(&s, 0, &bytes));
}

static void an_empty_span_without_memory_can_give_zero_bytes(void **state)
{
    struct span s = { NULL, 0 };
    const uint8_t *bytes;

    (void)state;
    assert_true(span_bytes(&s, 0, &bytes));
    assert_false(span_bytes(&s, 1, &bytes));
}

static void a_buffer_fills_in_network_order(void **state)
{
    static const uint8_t want[] = { 1, 2, 3, 4, 5, 6, 7, 'a', 'b' };
    uint8_t memory[9];
    struct buf b;

    (void)state;
    buf_init(&b, memory, sizeof(memory));
    buf_u8(&b, 1);
    buf_u16(&b, 0x0203);
    buf_u32(&b, 0x04050607);
    buf_put(&b, "ab", 2);
    buf_put(&b, NULL, 0);
    assert_false(b.full);
    assert_int_equal(b.len, sizeof(want));
    assert_memory_equal(memory, want, sizeof(want));
}

static void a_full_buffer_stays_full_and_takes_nothing_more(void **state)
{
    uint8_t memory[8] = { 0 };
    struct buf b;

    (void)state;
    buf_init(&b, memory, 3);
    buf_u16(&b, 0x0102);
    buf_u16(&b, 0xffff); /* one byte too many */
    assert_true(b.full);
    buf_u8(&b, 0xff); /* would fit, but a hole before it would go unseen */
    buf_u32(&b, 0xffffffff);
    buf_put(&b, memory, SIZE_MAX);
    assert_int_equal(b.len, 2);
    assert_int_equal(memory[2], 0);
}

#define LABEL_63 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0"

static const struct name_row {
    const char *what, *text;
    size_t len; /* 0: strlen(text) */
    const char *name;
} names[] = {
    /* faults.md S10; the two with exact lengths are tests of their own */
    { "plain", "example.com", 0, "example.com" },
    { "upper case", "WWW.Example.COM", 0, "www.example.com" },
    { "trailing dot", "example.com.", 0, "example.com" },
    { "one label", "nas", 0, "nas" },
    { "underscore and hyphens", "_dmarc.a--b.-x-", 0, "_dmarc.a--b.-x-" },
    { "looks like an address", "192.0.2.1", 0, "192.0.2.1" },
    { "label of 63", LABEL_63 ".x", 0, LABEL_63 ".x" },
    { "only the bytes counted", "example.com/path", 11, "example.com" },
    { "label of 64", LABEL_63 "z.x", 0, NULL },
    { "empty", "", 0, NULL },
    { "only a dot", ".", 0, NULL },
    { "two trailing dots", "example.com..", 0, NULL },
    { "leading dot", ".example.com", 0, NULL },
    { "empty label", "example..com", 0, NULL },
    { "space", "exa mple.com", 0, NULL },
    { "NUL inside", "example\0.com", 12, NULL },
    { "NUL at the end", "example.com\0", 12, NULL },
    { "UTF-8",
      "b\xc3\xbc"
      "cher.example",
      0, NULL },
    { "high byte", "a\xff.example", 0, NULL },
    { "slash", "a/b", 0, NULL },
    { "colon", "example.com:80", 0, NULL },
    { "line feed", "example.com\n", 0, NULL },
    { "DEL", "a\x7f", 0, NULL },
};

static void host_names_are_lower_cased_or_refused(void **state) /* faults.md S10 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        size_t len = names[i].len > 0 ? names[i].len : strlen(names[i].text);
        char out[256] = "untouched";
        int r = host_name_normalise(names[i].text, len, out);
        const char *want = names[i].name != NULL ? names[i].name : "untouched";

        if (r == (names[i].name != NULL ? 0 : -EINVAL) && strcmp(out, want) == 0)
            continue;
        print_error("%s: %d \"%s\"\n", names[i].what, r, out);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_name_of_255_bytes_is_taken_and_one_of_256_is_not(void **state) /* faults.md S10 */
{
    char text[301], out[256];

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = i % 50 == 49 ? '.' : 'a';
    assert_int_equal(host_name_normalise(text, 255, out), 0);
    assert_int_equal(strlen(out), 255);
    assert_int_equal(host_name_normalise(text, 256, out), -EINVAL);
    assert_int_equal(host_name_normalise(text, 301, out), -EINVAL);
    text[255] = '.';
    assert_int_equal(host_name_normalise(text, 256, out), 0); /* the trailing dot is not part of it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_span_gives_numbers_from_its_front_in_network_order),
        cmocka_unit_test(a_span_that_is_too_short_gives_nothing_and_keeps_what_it_has),
        cmocka_unit_test(an_empty_span_without_memory_can_give_zero_bytes),
        cmocka_unit_test(a_buffer_fills_in_network_order),
        cmocka_unit_test(a_full_buffer_stays_full_and_takes_nothing_more),
        cmocka_unit_test(host_names_are_lower_cased_or_refused),
        cmocka_unit_test(a_name_of_255_bytes_is_taken_and_one_of_256_is_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
