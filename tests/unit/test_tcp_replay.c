/* test_tcp_replay.c - faces all of src/stack/tcp_*.c: kernels' clients, recorded by tests/traces/record, speak to the stack on virtual
 * time (tcp-stack.md TST-6). What it answers is compared field by field with tests/traces/NAME.golden.
 *
 * UPDATE=1 in the environment writes those files anew; TRACE=FILE replays another pcap and prints what is answered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replay.h"

#define TRACES SOURCE_DIR "/tests/traces/"

static const struct trace_row {
    const char *name;
    uint64_t up, down; /* as tests/traces/record has them */
    uint64_t client_bytes;
    int close_err;
    bool eof, loses;
} rows[] = {
    { "request", 300, 8000, 300, 0, true, false },
    { "upload", 60000, 100, 60000, 0, true, true },
    { "upload-plain", 30000, 100, 30000, 0, true, true },
    { "half-close", UINT64_MAX, 9000, 5000, 0, true, false },
    { "reset", 1000, 10, 1000, -ECONNRESET, false, false },
};

/* Return: true when both texts are the same; else shows the first line that is not. */
static bool same_text(const char *name, const char *now, const char *golden)
{
    for (int line = 1; *now != '\0' || *golden != '\0'; line++) {
        size_t a = strcspn(now, "\n"), b = strcspn(golden, "\n");

        if (a != b || memcmp(now, golden, a) != 0) {
            print_error("%s, packet %d: the stack says\n  %.*s\nand said\n  %.*s\n", name, line, (int)a, now,
                        (int)b, golden);
            return false;
        }
        now += a + (now[a] != '\0');
        golden += b + (golden[b] != '\0');
    }
    return true;
}

static bool matches_golden(const char *name, const char *now)
{
    static char golden[1 << 20];
    char path[500];
    FILE *f;
    size_t n = 0;

    snprintf(path, sizeof(path), TRACES "%s.golden", name);
    if (getenv("UPDATE") != NULL) {
        f = fopen(path, "w");
        assert_non_null(f);
        fputs(now, f);
        fclose(f);
    }
    f = fopen(path, "r");
    if (f != NULL) {
        n = fread(golden, 1, sizeof(golden) - 1, f);
        fclose(f);
    }
    golden[n] = '\0';
    return same_text(name, now, golden);
}

static struct replay_result replay(const struct trace_row *row, char **text)
{
    char path[500];
    size_t len;
    FILE *log = open_memstream(text, &len);
    struct replay_result r;

    snprintf(path, sizeof(path), TRACES "%s.pcap", row->name);
    r = replay_run(&(struct replay_options){
        .path = path, .up_bytes = row->up, .down_bytes = row->down, .after_us = 1000000, .log = log });
    fclose(log);
    if (r.wrong != NULL)
        fail_msg("%s: %s", path, r.wrong);
    return r;
}

static void recorded_clients_are_served_byte_for_byte(void **state) /* tcp-stack.md TST-6 */
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct trace_row *row = &rows[i];
        char *text = NULL;
        struct replay_result r = replay(row, &text);

        print_message("%s: %u packets of the client\n", row->name, r.packets);
        assert_int_equal(r.client_bytes, row->client_bytes);
        assert_int_equal(r.got, row->client_bytes);
        assert_false(r.got_wrong);
        assert_int_equal(r.eof, row->eof);
        assert_int_equal(r.acked, row->down);
        assert_int_equal(r.closes, 1);
        assert_int_equal(r.close_err, row->close_err);
        assert_int_equal(r.resets_out, 0);
        assert_int_equal(r.counters.tcp_bad_ack, 0); /* the client's numbers were moved rightly */
        assert_int_equal(r.counters.tcp_paws, 0);
        assert_int_equal(r.counters.tcp_ooo > 0, row->loses);
        assert_true(matches_golden(row->name, text));
        free(text);
    }
}

static void what_is_no_trace_is_said(void **state)
{
    struct replay_result r;

    (void)state;
    r = replay_run(&(struct replay_options){ .path = TRACES "record" });
    assert_non_null(r.wrong);
    r = replay_run(&(struct replay_options){ .path = TRACES "absent.pcap" });
    assert_string_equal(r.wrong, "there is no such file");
}

/* Not a test but a tool: what would the stack have answered? */
static void another_trace_is_shown(void **state)
{
    const char *path = getenv("TRACE");
    struct replay_result r;

    (void)state;
    if (path == NULL)
        return;
    r = replay_run(&(struct replay_options){
        .path = path, .up_bytes = UINT64_MAX, .down_bytes = 1000, .after_us = 1000000, .log = stdout });
    print_message("%s: %u packets, %llu bytes delivered\n", r.wrong != NULL ? r.wrong : path, r.packets,
                  (unsigned long long)r.got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_clients_are_served_byte_for_byte),
        cmocka_unit_test(what_is_no_trace_is_said),
        cmocka_unit_test(another_trace_is_shown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
