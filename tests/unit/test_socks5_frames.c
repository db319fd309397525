/* test_socks5_frames.c - UDP in TCP: frames in and out, however the stream is cut; and what is no frame. */
#include <errno.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "culvert/upstream.h"

static const struct host_port targets[] = {
    { NULL, { .b = { [10] = 0xff, [11] = 0xff, 192, 0, 2, 1 } }, 53 },
    { NULL, { .b = { 0x20, 1, 0xd, 0xb8, [15] = 1 } }, 443 },
    { "example.test", { .b = { 0 } }, 7 },
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct socks5_frames));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

/* Puts bytes in as a stream would bring them. Return: as socks5_frames_next() */
static int feed(struct socks5_frames *f, const void *data, size_t len, struct socks5_address *a,
                struct span *out)
{
    uint8_t *to;

    assert_true(socks5_frames_room(f, &to) >= len);
    memcpy(to, data, len);
    socks5_frames_received(f, len);
    return socks5_frames_next(f, a, out);
}

static void a_frame_is_two_lengths_an_address_and_the_data(void **state)
{
    static const uint8_t wire[] = "\0\2\12\1\300\0\2\1\0\65hi";
    struct socks5_frames *f = *state;
    struct span out;

    assert_int_equal(socks5_frames_add(f, &targets[0], "hi", 2), 0);
    out = socks5_frames_unsent(f);
    assert_int_equal(out.len, sizeof(wire) - 1);
    assert_memory_equal(out.data, wire, out.len);
    socks5_frames_sent(f, 5);
    assert_int_equal(socks5_frames_unsent(f).len, sizeof(wire) - 1 - 5);
}

static void what_is_written_is_read_again_byte_by_byte(void **state)
{
    struct socks5_frames *f = *state;
    uint8_t wire[512];
    size_t len = 0, seen = 0;

    for (size_t i = 0; i < ARRAY_LEN(targets); i++)
        assert_int_equal(socks5_frames_add(f, &targets[i], "0123456789", i * 5), 0);
    len = socks5_frames_unsent(f).len;
    memcpy(wire, socks5_frames_unsent(f).data, len);
    for (size_t i = 0; i < len; i++) {
        struct socks5_address a;
        struct span data;

        if (feed(f, wire + i, 1, &a, &data) == 0)
            continue;
        assert_int_equal(data.len, seen * 5);
        assert_memory_equal(data.data, "0123456789", data.len);
        assert_int_equal(a.ip.port, targets[seen].port);
        assert_int_equal(a.name != NULL, targets[seen].name != NULL);
        seen++;
    }
    assert_int_equal(seen, ARRAY_LEN(targets));
}

static void a_frame_with_an_address_that_nobody_knows_is_thrown_away_alone(void **state)
{
    static const uint8_t wire[] = "\0\1\12\2\300\0\2\1\0\65x"   /* type 2 */
                                  "\0\1\13\1\300\0\2\1\0\65\0x" /* a header longer than its address */
                                  "\0\1\5\1\300x"               /* and one that is shorter */
                                  "\0\1\12\1\300\0\2\1\0\65y";
    struct socks5_frames *f = *state;
    struct socks5_address a;
    struct span data;

    assert_int_equal(feed(f, wire, sizeof(wire) - 1, &a, &data), 1);
    assert_int_equal(data.data[0], 'y');
    assert_int_equal(f->malformed, 3);
    assert_int_equal(socks5_frames_next(f, &a, &data), 0);
}

static void a_header_too_short_to_be_one_ends_it(void **state)
{
    struct socks5_frames *f = *state;
    struct socks5_address a;
    struct span data;

    assert_int_equal(feed(f, "\0\1\4\1", 4, &a, &data), -EBADMSG);
}

static void a_datagram_too_long_for_us_is_skipped(void **state)
{
    static uint8_t big[10 + 65535];
    struct socks5_frames *f = *state;
    struct socks5_address a;
    struct span data;
    uint8_t *to;

    memcpy(big, "\377\377\12\1\300\0\2\1\0\65", 10);
    for (size_t at = 0; at < sizeof(big);) {
        size_t room = socks5_frames_room(f, &to), n = sizeof(big) - at < room ? sizeof(big) - at : room;

        assert_true(room > 0);
        memcpy(to, big + at, n);
        socks5_frames_received(f, n);
        at += n;
        assert_int_equal(socks5_frames_next(f, &a, &data), 0);
    }
    assert_int_equal(f->malformed, 1);
    assert_int_equal(feed(f, "\0\1\12\1\300\0\2\1\0\65z", 11, &a, &data), 1);
    assert_int_equal(data.data[0], 'z');
}

static void a_full_queue_loses_datagrams_and_a_long_name_has_no_frame(void **state)
{
    static uint8_t data[SOCKS5_FRAME_DATA_MAX + 1];
    struct socks5_frames *f = *state;
    char name[256];
    struct host_port to = { .name = name, .port = 1 };
    unsigned queued = 0;

    memset(name, 'a', 255);
    name[255] = '\0';
    assert_int_equal(socks5_frames_add(f, &to, "x", 1), -EMSGSIZE);
    name[248] = '\0';
    assert_int_equal(socks5_frames_add(f, &to, "x", 1), 0);
    assert_int_equal(socks5_frames_add(f, &targets[0], data, sizeof(data)), -EMSGSIZE);
    while (socks5_frames_add(f, &targets[0], data, 1000) == 0)
        queued++;
    assert_in_range(queued, 31, 33);
    socks5_frames_sent(f, 5000);
    assert_int_equal(socks5_frames_add(f, &targets[0], data, 1000), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_frame_is_two_lengths_an_address_and_the_data),
        TEST(what_is_written_is_read_again_byte_by_byte),
        TEST(a_frame_with_an_address_that_nobody_knows_is_thrown_away_alone),
        TEST(a_header_too_short_to_be_one_ends_it),
        TEST(a_datagram_too_long_for_us_is_skipped),
        TEST(a_full_queue_loses_datagrams_and_a_long_name_has_no_frame),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
