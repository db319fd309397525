/* test_share.c - faces src/forward/share.c: how a limit of the process is dealt to its workers (design.md section 6). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "culvert/forward.h"

/* "use/part" for each worker, "+" if it wants more; then the parts that come out, "!" if there is no more to have, "=" if equal
 * parts will do. Flows: the part is what the worker keeps at least. */
static const struct row {
    const char *what;
    enum share_kind kind;
    uint64_t whole;
    const char *in, *out;
} rows[] = {
    { "nobody wants anything", SHARE_TCP, 100, "0/10 0/10", "50 50 =" },
    { "one has all the clients", SHARE_TCP, 100, "50/50+ 0/7", "93 7" },
    { "and uses them up", SHARE_TCP, 100, "93/93+ 0/7", "93 7 !" },
    { "both want more", SHARE_TCP, 100, "40/50+ 40/50+", "50 50" },
    { "one wants more, one has much", SHARE_UDP, 120, "30/40+ 60/70", "50 70" },
    { "nobody wants more, one has much", SHARE_UDP, 120, "3/10 60/70", "30 90" },
    { "what is used is not taken away", SHARE_TCP, 100, "80/80+ 60/60", "80 60 !" },
    { "a limit below the number of workers", SHARE_TCP, 2, "1/1+ 1/1 0/0+", "1 1 0 !" },
    { "an odd limit is dealt to the last flow", SHARE_SOURCE, 101, "0/2 0/2 0/2", "34 34 33 =" },
    { "a rate that nobody uses", SHARE_RATE, 1600, "0/800 0/800", "800 800 =" },
    { "one transfer", SHARE_RATE, 1600, "800/800+ 0/800", "1550 50 " },
    { "one transfer, dealt", SHARE_RATE, 1600, "1550/1550+ 0/50", "1550 50 !" },
    { "a second one in the other worker", SHARE_RATE, 1600, "1550/1550+ 50/50+", "800 800" },
    { "one wants more, one needs little", SHARE_RATE, 1600, "800/800+ 160/800", "1400 200" },
    { "what trickles fits into equal parts", SHARE_RATE, 1600, "10/1550 800/50", "800 800 =" },
    { "one uses more than its equal part", SHARE_RATE, 1600, "801/1550 0/50", "1275 325" },
    { "it is over", SHARE_RATE, 1600, "0/1550 0/50", "800 800 =" },
    { "a rate of a few bytes is a limit in each", SHARE_RATE, 20, "5/5+ 0/5 0/5 0/5", "17 1 1 1" },
    { "one of four", SHARE_RATE, 6400, "1600/1600+ 0/1600 0/1600 0/1600", "6100 100 100 100" },
};

static uint32_t parse(const struct row *r, struct share *out)
{
    const char *at = r->in;
    uint32_t n = 0;
    int len;

    for (unsigned long used, part; sscanf(at, "%lu/%lu%n", &used, &part, &len) == 2; n++) {
        at += len;
        out[n] = (struct share){ .kind = (uint8_t)r->kind, .used = used, .part = part, .more = *at == '+' };
        at += strcspn(at, " ");
    }
    return n;
}

static void a_limit_is_dealt_by_use_and_need(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct share s[8], *each[8];
        char seen[128] = "", want[128];
        uint32_t n = parse(&rows[i], s);
        size_t len = 0;
        bool dealt;

        for (uint32_t k = 0; k < n; k++)
            each[k] = &s[k];
        dealt = share_deal(each, n, rows[i].whole);
        for (uint32_t k = 0; k < n; k++)
            len += (size_t)snprintf(seen + len, sizeof(seen) - len, "%s%lu", k ? " " : "",
                                    (unsigned long)s[k].part);
        snprintf(seen + len, sizeof(seen) - len, "%s%s", s[0].more ? " !" : "", dealt ? "" : " =");
        snprintf(want, sizeof(want), "%s", rows[i].out);
        while (want[0] && want[strlen(want) - 1] == ' ')
            want[strlen(want) - 1] = '\0';
        if (strcmp(seen, want) == 0)
            continue;
        print_error("%s: \"%s\", not \"%s\"\n", rows[i].what, seen, want);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* Whatever workers say, flows add up to the limit and nobody gets less than he has; rates add up, too. */
static void the_parts_add_up(void **state)
{
    struct prng r;

    (void)state;
    prng_seed(&r, 11);
    for (int round = 0; round < 20000; round++) {
        uint32_t n = 1 + prng_below(&r, 64);
        uint64_t whole = n + prng_below(&r, 100000), left = whole, sum = 0;
        struct share s[64], before[64], *each[64];
        bool rate = prng_below(&r, 2) == 0;

        for (uint32_t i = 0; i < n; i++) {
            uint64_t part = prng_below(&r, (uint32_t)(left / (n - i)) + 1);

            left -= part;
            s[i] = (struct share){ .kind = rate ? SHARE_RATE : SHARE_TCP,
                                   .part = part,
                                   .used = part / 2,
                                   .more = prng_below(&r, 3) == 0 };
            each[i] = &s[i];
        }
        memcpy(before, s, sizeof(before));
        share_deal(each, n, whole);
        for (uint32_t i = 0; i < n; i++) {
            sum += s[i].part;
            assert_true(rate ? s[i].part > 0 : s[i].part >= before[i].part);
        }
        assert_int_equal(sum, whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_limit_is_dealt_by_use_and_need),
        cmocka_unit_test(the_parts_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
