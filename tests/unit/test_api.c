/* test_api.c - the control socket from both ends: a server on a temporary socket in its own thread, clients beside it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "culvert/api.h"

#ifdef WITH_API

/* A server in a thread of its own. `later` answers from a message of the loop instead of inside the request. */
struct lab {
    char dir[32], path[64];
    struct loop *loop;
    struct api *api;
    pthread_t thread;
    bool later, never, asked_flows;
    struct loop_msg answer_msg, stop_msg;
    struct api_answer *pending;
    _Atomic int asked;
};

static const struct status_counter counters[2][2] = {
    { { "ip.short", 3 }, { "tcp.opened", 10 } },
    { { "ip.short", 4 }, { "tcp.opened", 20 } },
};
static const struct status_pool pools[] = { { "tcp.conn", 512, 5, 9, 1000, 0 } };
static const struct status_worker workers[] = {
    { 0,
      7,
      2,
      1,
      { { [MEMORY_FLOWS] = 1000, [MEMORY_TLS] = 30 } },
      counters[0],
      2,
      pools,
      1,
      NULL,
      0,
      NULL,
      0 },
    { 1, 8, 3, 0, { { [MEMORY_FLOWS] = 2000 } }, counters[1], 2, pools, 1, NULL, 0, NULL, 0 },
};

static void fill(struct status_snapshot *s, struct status_flow *f)
{
    *f = (struct status_flow){
        .worker = 1, .upstream = "up \"quoted\"", .state = "open", .rule = 2, .age_ms = 5
    };
    ip_parse("192.0.2.1", &f->key.client);
    ip_parse("2001:db8::1", &f->key.target);
    f->key.client_port = 40000;
    f->key.target_port = 443;
    f->key.proto = IP_PROTO_TCP;
    *s = (struct status_snapshot){ .version = "0.1.0",
                                   .tun = "tun0",
                                   .offload = "tso+uso",
                                   .mtu = 1500,
                                   .uptime_ms = 1234,
                                   .budget_bytes = 16 << 20,
                                   .memory = { { [MEMORY_RULES] = 500 } },
                                   .workers = workers,
                                   .worker_count = 2,
                                   .flows = f,
                                   .flow_count = 1 };
}

static void answer_now(struct lab *lab, struct api_answer *a)
{
    struct status_snapshot s;
    struct status_flow f;

    fill(&s, &f);
    if (!lab->asked_flows)
        s.flow_count = 0;
    api_answer_status(a, &s);
}

static void answer_later(struct loop_msg *m)
{
    struct lab *lab = CONTAINER_OF(m, struct lab, answer_msg);

    answer_now(lab, lab->pending);
}

static void on_status(void *arg, unsigned parts, struct api_answer *a)
{
    struct lab *lab = arg;

    lab->asked_flows = (parts & STATUS_FLOWS) != 0;
    lab->asked++;
    lab->pending = a;
    if (lab->never)
        return;
    if (!lab->later) {
        answer_now(lab, a);
        return;
    }
    lab->answer_msg.fn = answer_later;
    loop_post(lab->loop, &lab->answer_msg);
}

static int setup(void **state)
{
    struct lab *lab = calloc(1, sizeof(*lab));

    strcpy(lab->dir, "/tmp/culvert-api-XXXXXX");
    assert_non_null(mkdtemp(lab->dir));
    snprintf(lab->path, sizeof(lab->path), "%s/api.sock", lab->dir);
    assert_int_equal(loop_new(&lab->loop), 0);
    *state = lab;
    return 0;
}

static void *serve(void *arg)
{
    struct lab *lab = arg;

    loop_run(lab->loop);
    return NULL;
}

static void start(struct lab *lab)
{
    struct api_options opt = { .unix_path = lab->path, .on_status = on_status, .arg = lab };
    struct err err = { "" };

    if (api_open(&opt, lab->loop, &lab->api, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(pthread_create(&lab->thread, NULL, serve, lab), 0);
}

static void close_api(struct loop_msg *m)
{
    struct lab *lab = CONTAINER_OF(m, struct lab, stop_msg);

    api_close(lab->api);
    lab->api = NULL;
    loop_stop(lab->loop);
}

static void stop(struct lab *lab)
{
    lab->stop_msg.fn = close_api;
    loop_post(lab->loop, &lab->stop_msg);
    pthread_join(lab->thread, NULL);
}

static int teardown(void **state)
{
    struct lab *lab = *state;

    api_close(lab->api);
    loop_free(lab->loop);
    unlink(lab->path);
    rmdir(lab->dir);
    free(lab);
    return 0;
}

static char *get(struct lab *lab, const char *path, int *r, struct err *err)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    *r = api_ask(lab->path, "GET", path, NULL, 5000, f, err);
    fclose(f);
    return text;
}

static int connect_raw(struct lab *lab)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", lab->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

/* Send @text and collect the answer until the server closes, 64 KiB at most. The caller frees. */
static char *raw(struct lab *lab, const char *text, size_t len)
{
    char *answer = calloc(1, 65537);
    size_t got = 0;
    ssize_t n;
    int fd = connect_raw(lab);

    for (size_t done = 0; done < len; done += (size_t)n) {
        n = send(fd, text + done, len - done, MSG_NOSIGNAL);
        if (n < 0)
            break;
    }
    while (got < 65536 && (n = recv(fd, answer + got, 65536 - got, 0)) > 0)
        got += (size_t)n;
    close(fd);
    return answer;
}

static void a_status_has_sums_workers_pools_and_counts(void **state)
{
    static const char *const wanted[] = { "\"version\": \"0.1.0\"",
                                          "\"tun\": \"tun0\"",
                                          "\"offload\": \"tso+uso\"",
                                          "\"ip.short\": 7",
                                          "\"tcp.opened\": 30",
                                          "\"tcp\": 15",
                                          "\"udp\": 5",
                                          "\"half-open\": 1",
                                          "\"high-water\": 9",
                                          "\"flows_bytes\": 3000",
                                          "\"flows_bytes\": 2000",
                                          "\"tls_bytes\": 30",
                                          "\"rules_bytes\": 500",
                                          "\"memory-limit-bytes\": 16777216" };
    struct lab *lab = *state;
    struct err err = { "" };
    char *text;
    int r, missing = 0;

    start(lab);
    text = get(lab, "/v1/status", &r, &err);
    stop(lab);
    assert_int_equal(r, 0);
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        if (strstr(text, wanted[i]) == NULL) {
            print_error("missing: %s\n", wanted[i]);
            missing++;
        }
    }
    assert_null(strstr(text, "connections"));
    free(text);
    assert_int_equal(missing, 0);
}

static void flows_are_listed_when_asked_for(void **state)
{
    struct lab *lab = *state;
    struct err err = { "" };
    char *text;
    int r;

    start(lab);
    text = get(lab, "/v1/status?flows=1", &r, &err);
    stop(lab);
    assert_int_equal(r, 0);
    assert_non_null(strstr(text, "\"source\": \"192.0.2.1:40000\""));
    assert_non_null(strstr(text, "\"destination\": \"[2001:db8::1]:443\""));
    assert_non_null(strstr(text, "\"upstream\": \"up \\\"quoted\\\"\""));
    free(text);
}

static void an_answer_may_come_later(void **state)
{
    struct lab *lab = *state;
    struct err err = { "" };
    char *text;
    int r;

    lab->later = true;
    start(lab);
    for (int i = 0; i < 3; i++) {
        text = get(lab, "/v1/status", &r, &err);
        assert_int_equal(r, 0);
        assert_non_null(strstr(text, "\"ip.short\": 7"));
        free(text);
    }
    stop(lab);
    assert_int_equal(lab->asked, 3);
}

static void closing_drops_requests_that_wait(void **state)
{
    struct lab *lab = *state;
    static const char request[] = "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n";
    char byte;
    int fd;

    lab->never = true;
    start(lab);
    fd = connect_raw(lab);
    assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
    while (lab->asked == 0)
        sched_yield();
    stop(lab);
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    close(fd);
}

static void what_is_not_a_known_get_is_refused(void **state)
{
    static const struct row {
        const char *request, *status;
    } rows[] = {
        { "GET /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404" },
        { "GET /v1/../v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404" },
        { "POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
          "HTTP/1.1 405" },
        { "DELETE /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 405" },
        { "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200" },
    };
    struct lab *lab = *state;
    int wrong = 0;

    start(lab);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *answer = raw(lab, rows[i].request, strlen(rows[i].request));

        if (strncmp(answer, rows[i].status, strlen(rows[i].status)) != 0) {
            print_error("%.40s: %.60s\n", rows[i].request, answer);
            wrong++;
        }
        free(answer);
    }
    stop(lab);
    assert_int_equal(wrong, 0);
}

static void a_head_over_8_kib_is_refused_and_the_next_request_works(void **state) /* faults.md A4 */
{
    struct lab *lab = *state;
    struct err err = { "" };
    char *request = malloc(100 << 10), *answer, *text;
    int r;

    memset(request, 'a', 100 << 10);
    memcpy(request, "GET /v1/status?x=", 17);
    start(lab);
    answer = raw(lab, request, 100 << 10);
    assert_true(answer[0] == '\0' || strncmp(answer, "HTTP/1.1 4", 10) == 0);
    free(answer);
    free(request);
    text = get(lab, "/v1/status", &r, &err);
    assert_int_equal(r, 0);
    free(text);
    stop(lab);
}

static void a_hundred_idle_connections_do_no_harm(void **state) /* faults.md A4 */
{
    struct lab *lab = *state;
    struct err err = { "" };
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fds[100], r;
    char *text;

    start(lab);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", lab->path);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fds[i], (struct sockaddr *)&sa, sizeof(sa)); /* fails once the kernel's queue is full, too */
    }
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    r = -1;
    for (int i = 0; i < 100; i++) { /* the closed ones are swept by and by; the server lives */
        text = get(lab, "/v1/status", &r, &err);
        free(text);
        if (r == 0)
            break;
    }
    stop(lab);
    assert_int_equal(r, 0);
}

static void status_answers_when_no_descriptor_is_left(void **state) /* faults.md G1 beside R1 */
{
    static const char request[] = "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    struct lab *lab = *state;
    struct rlimit files, few;
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    char byte = 0;
    int fd, next;

    start(lab);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", lab->path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    next = dup(0); /* the lowest free number */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    few = (struct rlimit){ (rlim_t)next, files.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    close(next);
    assert_true(dup(0) < 0 && errno == EMFILE);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
    assert_int_equal(recv(fd, &byte, 1, 0), 1);
    assert_int_equal(byte, 'H');
    setrlimit(RLIMIT_NOFILE, &files);
    close(fd);
    stop(lab);
}

static void the_socket_is_its_owners_only_and_gone_after_close(void **state)
{
    struct lab *lab = *state;
    struct stat st;

    start(lab);
    assert_int_equal(stat(lab->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    stop(lab);
    assert_int_equal(stat(lab->path, &st), -1);
}

/* Open and close one more, in this thread and a loop of its own. */
static int open_at(struct lab *lab, const char *path, struct err *err)
{
    struct api_options opt = { .unix_path = path, .on_status = on_status, .arg = lab };
    struct loop *loop;
    struct api *api = NULL;
    int r;

    assert_int_equal(loop_new(&loop), 0);
    r = api_open(&opt, loop, &api, err);
    api_close(api);
    loop_free(loop);
    return r;
}

static void a_stale_socket_is_replaced(void **state) /* faults.md A7 */
{
    struct lab *lab = *state;
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct err err = { "" };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", lab->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    close(fd); /* as after kill -9: the file stays */
    assert_int_equal(open_at(lab, lab->path, &err), 0);
}

static void a_socket_in_use_is_left_alone(void **state) /* faults.md A7 */
{
    struct lab *lab = *state;
    struct err err = { "" };
    char *text;
    int r;

    start(lab);
    assert_int_equal(open_at(lab, lab->path, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, "another culvert"));
    text = get(lab, "/v1/status", &r, &err);
    stop(lab);
    assert_int_equal(r, 0);
    free(text);
}

static void other_places_get_a_sentence_each(void **state) /* faults.md A7 */
{
    struct lab *lab = *state;
    char file[64], missing[64], longest[256];
    struct err err = { "" };
    FILE *f;

    snprintf(file, sizeof(file), "%s/file", lab->dir);
    snprintf(missing, sizeof(missing), "%s/none/api.sock", lab->dir);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    f = fopen(file, "w");
    fputs("precious\n", f);
    fclose(f);
    assert_int_equal(open_at(lab, file, &err), -EEXIST);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(open_at(lab, missing, &err), -ENOENT);
    assert_non_null(strstr(err.text, "folder"));
    assert_int_equal(open_at(lab, longest, &err), -ENAMETOOLONG);
    assert_non_null(strstr(err.text, "107"));
    assert_int_equal(open_at(lab, "", &err), -EINVAL);
    unlink(file);
}

static void the_client_says_what_is_wrong(void **state)
{
    struct lab *lab = *state;
    struct err err = { "" };
    char *text;
    int r;

    text = get(lab, "/v1/status", &r, &err);
    assert_int_equal(r, -ENOENT);
    assert_non_null(strstr(err.text, "no culvert listens"));
    free(text);
    start(lab);
    text = get(lab, "/v1/nothing", &r, &err);
    stop(lab);
    assert_int_equal(r, -EPROTO);
    assert_non_null(strstr(err.text, "no such path"));
    free(text);
}

static void a_silent_server_is_given_up(void **state)
{
    struct lab *lab = *state;
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct err err = { "" };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", lab->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(api_ask(lab->path, "GET", "/v1/status", NULL, 20, stdout, &err), -ETIMEDOUT);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_status_has_sums_workers_pools_and_counts),
        TEST(flows_are_listed_when_asked_for),
        TEST(an_answer_may_come_later),
        TEST(closing_drops_requests_that_wait),
        TEST(what_is_not_a_known_get_is_refused),
        TEST(a_head_over_8_kib_is_refused_and_the_next_request_works),
        TEST(a_hundred_idle_connections_do_no_harm),
        TEST(status_answers_when_no_descriptor_is_left),
        TEST(the_socket_is_its_owners_only_and_gone_after_close),
        TEST(a_stale_socket_is_replaced),
        TEST(a_socket_in_use_is_left_alone),
        TEST(other_places_get_a_sentence_each),
        TEST(the_client_says_what_is_wrong),
        TEST(a_silent_server_is_given_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else /* !WITH_API */

static void without_it_the_program_says_so(void **state)
{
    struct api_options opt = { .unix_path = "/tmp/x" };
    struct api *api = NULL;
    struct err err;

    (void)state;
    assert_int_equal(api_open(&opt, NULL, &api, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "not built in"));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(without_it_the_program_says_so) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
