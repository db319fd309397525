/* test_base_log.c - faces src/base/log.c and err.c: one clean line for one event, and never a wait. */
#include "culvert/base.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

struct fixture {
    char dir[32], path[64];
    char text[65536]; /* what was written so far */
};

static void log_to(struct fixture *f, enum log_level level, enum log_format format)
{
    struct log_options opt = { .level = level, .format = format, .output = f->path };

    unlink(f->path);
    assert_int_equal(log_init(&opt), 0);
}

static const char *written(struct fixture *f)
{
    FILE *file = fopen(f->path, "r");
    size_t n;

    assert_non_null(file);
    n = fread(f->text, 1, sizeof(f->text) - 1, file);
    f->text[n] = '\0';
    fclose(file);
    return f->text;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return -1;
    strcpy(f->dir, "/tmp/culvert-log-XXXXXX");
    if (mkdtemp(f->dir) == NULL)
        return -1;
    snprintf(f->path, sizeof(f->path), "%s/log", f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct log_options back = { .level = LOG_INFO };
    int r = log_init(&back);

    unlink(f->path);
    rmdir(f->dir);
    free(f);
    return r;
}

static void a_line_has_the_time_the_level_and_the_message(void **state)
{
    struct fixture *f = *state;
    int year, month, day, hour, minute, second, ms, end = 0;

    log_to(f, LOG_INFO, LOG_TEXT);
    log_warning("tun%d is down", 0);
    assert_int_equal(sscanf(written(f), "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute,
                            &second, &ms, &end),
                     7);
    assert_int_equal(end, 24);
    assert_string_equal(f->text + end, " warning: tun0 is down\n");
}

static void lines_below_the_level_are_not_written(void **state)
{
    struct fixture *f = *state;

    log_to(f, LOG_WARNING, LOG_TEXT);
    assert_true(log_enabled(LOG_ERROR));
    assert_false(log_enabled(LOG_INFO));
    log_info("no");
    log_debug("no");
    assert_string_equal(written(f), "");
    log_to(f, LOG_DEBUG, LOG_TEXT);
    log_debug("yes");
    assert_non_null(strstr(written(f), " debug: yes\n"));
}

static const struct {
    const char *bytes, *text, *json;
} escapes[] = {
    { "plain", "plain", "plain" },
    { "two\nlines", "two\\x0alines", "two\\u000alines" },
    { "\x1b[31mred", "\\x1b[31mred", "\\u001b[31mred" },
    { "tab\tdel\x7f", "tab\\x09del\\x7f", "tab\\u0009del\\u007f" },
    { "say \"hi\" c:\\", "say \"hi\" c:\\", "say \\\"hi\\\" c:\\\\" },
    { "b\xc3\xbc"
      "cher \xe2\x82\xac \xf0\x9f\x98\x80",
      "b\xc3\xbc"
      "cher \xe2\x82\xac \xf0\x9f\x98\x80",
      "b\xc3\xbc"
      "cher \xe2\x82\xac \xf0\x9f\x98\x80" },
    { "C1 \xc2\x9b", "C1 \\xc2\\x9b", "C1 \\u00c2\\u009b" },       /* CSI in one character */
    { "cut \xe2\x82", "cut \\xe2\\x82", "cut \\u00e2\\u0082" },    /* the string ends too early */
    { "long \xc0\x8a", "long \\xc0\\x8a", "long \\u00c0\\u008a" }, /* a line feed, overlong */
    { "sur \xed\xa0\x80", "sur \\xed\\xa0\\x80", "sur \\u00ed\\u00a0\\u0080" }, /* half a surrogate pair */
    { "big \xf4\x90\x80\x80", "big \\xf4\\x90\\x80\\x80", "big \\u00f4\\u0090\\u0080\\u0080" },
    { "raw \xff", "raw \\xff", "raw \\u00ff" },
};

static void bytes_of_strangers_can_neither_forge_a_line_nor_move_the_cursor(void **state)
{
    struct fixture *f = *state;
    char want[256];

    for (size_t i = 0; i < ARRAY_LEN(escapes); i++) {
        log_to(f, LOG_INFO, LOG_TEXT);
        log_info("%s", escapes[i].bytes);
        snprintf(want, sizeof(want), " info: %s\n", escapes[i].text);
        assert_string_equal(written(f) + 24, want);
        log_to(f, LOG_INFO, LOG_JSON);
        log_info("%s", escapes[i].bytes);
        snprintf(want, sizeof(want), "\",\"level\":\"info\",\"message\":\"%s\"}\n", escapes[i].json);
        assert_memory_equal(written(f), "{\"time\":\"", 9);
        assert_string_equal(f->text + 9 + 24, want);
    }
}

static void an_event_is_a_sentence_as_text_and_fields_as_json(void **state)
{
    static char longest[3000];
    const struct log_field fields[] = { { "source", "a \"b\"\n", 0 }, { "up", NULL, UINT64_MAX } };
    const struct log_field many[] = { { "first", longest, 0 },
                                      { "second", longest, 0 },
                                      { "third", "x", 0 } };
    struct fixture *f = *state;
    size_t len;

    log_to(f, LOG_INFO, LOG_TEXT);
    log_event(LOG_INFO, "flow ended", fields, 2, "%s went", "it");
    assert_string_equal(written(f) + 24, " info: it went\n");
    log_to(f, LOG_INFO, LOG_JSON);
    log_event(LOG_INFO, "flow ended", fields, 2, "%s went", "it");
    assert_string_equal(written(f) + 9 + 24,
                        "\",\"level\":\"info\",\"message\":\"flow ended\",\"source\":\"a "
                        "\\\"b\\\"\\u000a\",\"up\":18446744073709551615}\n");
    memset(longest, 'x', sizeof(longest) - 1);
    log_to(f, LOG_INFO, LOG_JSON); /* it stays one line of JSON, whatever is in it */
    log_event(LOG_INFO, "much", many, 3, "much");
    len = strlen(written(f));
    assert_in_range(len, 4000, 4096);
    assert_string_equal(f->text + len - 7, "x...\"}\n");
    assert_null(strstr(f->text, "third"));
    log_to(f, LOG_WARNING, LOG_JSON);
    log_event(LOG_INFO, "flow ended", fields, 2, "no");
    assert_string_equal(written(f), "");
}

static void a_long_message_is_cut_and_says_so(void **state)
{
    struct fixture *f = *state;
    static char longest[8000];
    size_t len;

    memset(longest, 'x', sizeof(longest) - 1);
    log_to(f, LOG_INFO, LOG_TEXT);
    log_info("%s", longest);
    len = strlen(written(f));
    assert_in_range(len, 1000, 1100);
    assert_string_equal(f->text + len - 5, "x...\n");
    memset(longest, '\x01', sizeof(longest) - 1); /* six bytes each in JSON */
    log_to(f, LOG_INFO, LOG_JSON);
    log_info("%s", longest);
    len = strlen(written(f));
    assert_in_range(len, 3000, 4096);
    assert_string_equal(f->text + len - 6, "...\"}\n");
}

static void a_line_that_cannot_be_written_is_counted_and_errno_is_kept(void **state) /* faults.md R8 */
{
    struct log_options full = { .output = "/dev/full", .level = LOG_INFO };
    uint64_t lost = log_lines_lost();

    (void)state;
    assert_int_equal(log_init(&full), 0);
    errno = EXDEV;
    log_info("nowhere to go");
    assert_int_equal(errno, EXDEV);
    assert_int_equal(log_lines_lost(), lost + 1);
}

static void a_pipe_that_nobody_reads_is_not_waited_for(void **state) /* faults.md R8 */
{
    struct fixture *f = *state;
    struct log_options opt = { .output = f->path, .level = LOG_INFO };
    uint64_t lost = log_lines_lost();
    struct sigaction ignore = { .sa_handler = SIG_DFL };
    int reader;

    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_int_equal(log_init(&opt), -ENXIO); /* no reader: said at start, the old sink stays */
    reader = open(f->path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_int_equal(log_init(&opt), 0);
    for (int i = 0; i < 2000; i++)
        log_info("%0900d", i); /* far more than a pipe holds */
    assert_true(log_lines_lost() > lost + 100);
    close(reader);
    lost = log_lines_lost();
    assert_int_equal(sigaction(SIGPIPE, &ignore, NULL), 0); /* a write would end this process */
    log_info("no reader any more");
    assert_int_equal(log_lines_lost(), lost + 1);
}

static void a_sink_that_cannot_be_opened_leaves_the_old_one(void **state)
{
    struct fixture *f = *state;
    struct log_options opt = { .output = "/nonexistent/folder/log", .level = LOG_DEBUG };

    log_to(f, LOG_INFO, LOG_TEXT);
    assert_int_equal(log_init(&opt), -ENOENT);
    log_info("still here");
    assert_non_null(strstr(written(f), "still here"));
    assert_false(log_enabled(LOG_DEBUG));
}

static void a_cause_that_repeats_is_held_back_and_then_counted(void **state) /* faults.md G3 */
{
    struct log_limit l = { .window_us = 0 };
    uint64_t now = 1000000000;
    uint32_t held = 99;
    int passed = 0;

    (void)state;
    for (int i = 0; i < 1000; i++)
        passed += log_limit_pass(&l, now + (uint64_t)i, 10, &held);
    assert_int_equal(passed, 10);
    assert_int_equal(held, 0);
    assert_false(log_limit_pass(&l, now + 999999, 10, &held));
    assert_true(log_limit_pass(&l, now + 1000000, 10, &held));
    assert_int_equal(held, 991);
    assert_true(log_limit_pass(&l, now + 1000001, 10, &held));
    assert_int_equal(held, 0);
}

static void an_error_keeps_its_number_and_its_sentence(void **state)
{
    struct err e;

    (void)state;
    assert_int_equal(err_set(&e, -EBUSY, "%s is taken", "tun0"), -EBUSY);
    assert_string_equal(e.text, "tun0 is taken");
    assert_int_equal(err_set(NULL, -EIO, "nobody reads this"), -EIO);
    assert_int_equal(err_set(&e, -EIO, "%0300d", 1), -EIO);
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
}

struct heard {
    struct log_sink *log;
    enum log_level level;
    char line[128];
    size_t lines;
};

static void hear(void *arg, enum log_level level, const char *line)
{
    struct heard *h = arg;

    h->level = level;
    h->lines++;
    snprintf(h->line, sizeof(h->line), "%s", line);
}

static void *write_to_it(void *arg)
{
    struct heard *h = arg;
    struct log_options quiet = { .level = LOG_WARNING };

    log_use(h->log);
    assert_int_equal(log_init(&quiet), 0); /* of this log only */
    log_info("too quiet");
    log_warning("one\nline");
    return NULL;
}

static void a_thread_may_have_a_log_of_its_own(void **state)
{
    struct fixture *f = *state;
    struct heard h = { 0 };
    pthread_t thread;

    log_to(f, LOG_INFO, LOG_TEXT);
    assert_int_equal(log_sink_new(hear, &h, &h.log), 0);
    assert_int_equal(pthread_create(&thread, NULL, write_to_it, &h), 0);
    pthread_join(thread, NULL);
    assert_int_equal(h.lines, 1);
    assert_int_equal(h.level, LOG_WARNING);
    assert_string_equal(h.line, "one\\x0aline");
    assert_string_equal(written(f), "");
    log_info("here");
    assert_non_null(strstr(written(f), " info: here\n"));
    assert_null(log_use(h.log));
    assert_ptr_equal(log_in_use(), h.log);
    assert_ptr_equal(log_use(NULL), h.log);
    log_sink_free(h.log);
}

static void who_cannot_listen_is_told_what_would_work(void **state)
{
    static const struct {
        int r;
        const char *says;
    } rows[] = {
        { -EADDRINUSE, "x: 192.0.2.1:53 is in use; stop what listens there or choose another port" },
        { -EADDRNOTAVAIL,
          "x: 192.0.2.1:53: this machine has no such address; \"ip address\" lists those it has" },
        { -EACCES,
          "x: 192.0.2.1:53: ports below 1024 take root or CAP_NET_BIND_SERVICE; choose a higher one" },
        { -ENOBUFS, "x: cannot listen on 192.0.2.1:53: No buffer space available" },
    };
    struct ip_port at = { .port = 53 };
    struct err e;

    (void)state;
    ip_parse("192.0.2.1", &at.addr);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(err_set_listen(&e, rows[i].r, "x: ", &at), rows[i].r);
        assert_string_equal(e.text, rows[i].says);
    }
}

int main(void)
{
#define LOG_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        LOG_TEST(a_line_has_the_time_the_level_and_the_message),
        LOG_TEST(lines_below_the_level_are_not_written),
        LOG_TEST(bytes_of_strangers_can_neither_forge_a_line_nor_move_the_cursor),
        LOG_TEST(an_event_is_a_sentence_as_text_and_fields_as_json),
        LOG_TEST(a_long_message_is_cut_and_says_so),
        LOG_TEST(a_line_that_cannot_be_written_is_counted_and_errno_is_kept),
        LOG_TEST(a_pipe_that_nobody_reads_is_not_waited_for),
        LOG_TEST(a_sink_that_cannot_be_opened_leaves_the_old_one),
        LOG_TEST(a_cause_that_repeats_is_held_back_and_then_counted),
        LOG_TEST(a_thread_may_have_a_log_of_its_own),
        cmocka_unit_test(who_cannot_listen_is_told_what_would_work),
        cmocka_unit_test(an_error_keeps_its_number_and_its_sentence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
