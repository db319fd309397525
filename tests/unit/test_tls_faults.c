/* test_tls_faults.c - src/tls when memory ends, clocks are wrong, and servers send what no server should (faults.md section 7).
 *
 * How memory ends and time is moved. This program has a calloc() and a time() of its own, which the linker prefers to the C
 * library's for mbedTLS too: Debian builds it without MBEDTLS_PLATFORM_MEMORY and MBEDTLS_PLATFORM_TIME_ALT. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls/tls_impl.h"
#include "tls_pair.h"

#include <cmocka.h>

/* ---- memory that ends, and a clock that we set ---------------------------------------------------------------------- */

/* The sanitizers' allocator when there is one, else the C library's. */
extern void *__interceptor_calloc(size_t n, size_t size) __attribute__((weak));
extern void *__libc_calloc(size_t n, size_t size);

static struct {
    bool counting;
    unsigned count, fail_at; /* fail_at 0: never */
    size_t largest;          /* bytes of one allocation */
    time_t now;              /* 0: the real one */
} world;

void *calloc(size_t n, size_t size)
{
    if (world.counting) {
        world.largest = n * size > world.largest ? n * size : world.largest;
        if (++world.count == world.fail_at)
            return NULL;
    }
    return __interceptor_calloc ? __interceptor_calloc(n, size) : __libc_calloc(n, size);
}

time_t time(time_t *out)
{
    struct timespec ts;
    time_t now = world.now;

    if (now == 0) {
        clock_gettime(CLOCK_REALTIME, &ts);
        now = ts.tv_sec;
    }
    if (out)
        *out = now;
    return now;
}

static void memory_fails_at(unsigned n)
{
    world.count = 0;
    world.largest = 0;
    world.fail_at = n;
}

/* Both sides until the client is through or broken; only its memory ends. */
static void run_client(struct tls_pair *p)
{
    static uint64_t turn;

    p->client.step = TLS_WANT_READ;
    for (int i = 0; i < 100 && p->client.step != TLS_DONE && p->client.step != TLS_BROKEN; i++) {
        world.counting = true;
        p->client.step = tls_handshake(p->client.tls, ++turn);
        world.counting = false;
        (void)tls_handshake(p->server.tls, ++turn);
    }
}

/* One connection of @lab whose client's k-th allocation fails. Return: whether it failed at all, so far did it get */
static bool connect_with_failure(struct tls_lab *lab, unsigned k)
{
    struct tls_pair p;
    char in;

    tls_pair_open(lab, &p);
    memory_fails_at(k);
    run_client(&p);
    assert_true(p.client.step == TLS_DONE || p.client.step == TLS_BROKEN);
    if (p.client.step == TLS_BROKEN)
        assert_true(strlen(tls_why(p.client.tls)) > 0);
    world.counting = true;
    if (p.client.step == TLS_DONE) /* TLS 1.3: its ticket is kept now */
        (void)tls_recv(p.client.tls, &in, 1);
    world.counting = false;
    tls_pair_free(&p);
    return world.count >= k;
}

static void a_full_handshake_survives_every_allocation_that_fails(void **state) /* faults.md L17 */
{
    struct tls_options opt = { .resume = false };
    struct tls_lab lab;
    unsigned tried = 0;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
    for (unsigned k = 1; connect_with_failure(&lab, k);
         k += k < 40 ? 1 : 1 + k / 8) /* most are of big numbers */
        tried++;
    assert_true(tried > 40);
    assert_false(connect_with_failure(&lab, 1000000)); /* and afterwards all is well */
    assert_int_equal(lab.client->full_running, 0);
    tls_lab_fini(&lab);
}

static void a_resumed_handshake_survives_every_allocation_that_fails(void **state) /* faults.md L17 */
{
    struct tls_options opt = { .resume = true };
    struct tls_lab lab;
    unsigned k = 0;
    bool failed;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), true);
    do {
        assert_false(
            connect_with_failure(&lab, 1000000)); /* makes a session, or resumes the one that is left */
        assert_true(lab.client->session_until_s > 0);
        failed = connect_with_failure(&lab, ++k); /* the first ones are of set_session() */
    } while (failed && k < 400);
    assert_true(k > 5);
    tls_lab_fini(&lab);
}

static int build_client(struct err *err)
{
    static const char *const alpn[] = { "h2" };
    static const uint8_t pin[1][TLS_PIN_BYTES];
    struct tls_options opt = { .resume = true,
                               .alpn = alpn,
                               .alpns = 1,
                               .pins = pin,
                               .pin_count = 1,
                               .certificate = pki_server()->certificate,
                               .private_key = pki_server()->key };
    const char *ca = pki_authority()->certificate;
    struct tls_settings *s = NULL;
    struct tls_context *c = NULL;
    struct tls_worker *w = NULL;
    struct tls *t = NULL;
    int r = tls_ca_parse(ca, strlen(ca), &opt.ca, err);

    if (r == 0 && (r = tls_settings_new(&opt, &s, err)) == 0 && (r = tls_worker_new(&w)) == 0 &&
        (r = tls_context_new(w, s, "localhost", &c)) == 0)
        r = tls_open(c, &(struct tls_io){ 0 }, NULL, &t);
    tls_free(t);
    tls_context_free(c);
    tls_worker_free(w);
    tls_settings_unref(s);
    tls_ca_unref(opt.ca);
    return r;
}

static void settings_and_contexts_survive_every_allocation_that_fails(void **state) /* faults.md L17 */
{
    struct err err = { 0 };
    unsigned said = 0;

    (void)state;
    (void)pki_server();
    for (unsigned k = 1; k < 5000; k += k < 200 ? 1 : 1 + k / 8) {
        int r;

        memory_fails_at(k);
        world.counting = true;
        r = build_client(&err);
        world.counting = false;
        if (world.count < k) {
            assert_int_equal(r, 0);
            break;
        }
        said += r == -ENOMEM; /* mbedTLS does without some, and for others it has no code of its own */
    }
    assert_true(said > 20);
}

/* ---- a clock that is wrong, or goes on ------------------------------------------------------------------------------------ */

static void a_clock_of_1970_is_blamed_until_it_jumps(void **state) /* faults.md L14 */
{
    struct tls_options opt = { .resume = true };
    struct tls_lab lab;
    struct tls_pair p;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), true);
    tls_pair_open(&lab, &p);
    world.now = 86400;
    assert_false(tls_pair_handshake(&p));
    world.now = 0;
    assert_non_null(strstr(tls_why(p.client.tls), "this machine's clock says 1970-01-02"));
    assert_false(
        tls_config_fault(p.client.tls)); /* so that the next flow tries again, and not the one after 10 s */
    tls_pair_free(&p);
    tls_pair_open(&lab, &p);
    assert_true(tls_pair_handshake(&p));
    tls_pair_free(&p);
    tls_lab_fini(&lab);
}

static void a_session_is_offered_for_an_hour_at_most(void **state) /* faults.md L9 */
{
    static const struct {
        int after_s;
        bool resumed;
    } rows[] = { { 3590, true }, { 3601, false } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_options opt = { .resume = true };
        struct tls_lab lab;
        struct tls_pair p;

        tls_lab_init(&lab, &opt, "localhost", pki_server(), true);
        world.now = 1767225600; /* 2026 */
        assert_false(connect_with_failure(&lab, 1000000));
        world.now += rows[i].after_s;
        tls_pair_open(&lab, &p);
        assert_true(tls_pair_handshake(&p));
        assert_int_equal(tls_resumed(p.client.tls), rows[i].resumed);
        tls_pair_free(&p);
        world.now = 0;
        tls_lab_fini(&lab);
    }
}

static void a_session_is_not_kept_longer_than_its_certificate(void **state) /* faults.md L9, L15 */
{
    static struct pki_id brief;
    struct tls_options opt = { .resume = true };
    struct tls_lab lab;

    (void)state;
    pki_make(&(struct pki_wish){ .cn = "localhost",
                                 .dns = { "localhost" },
                                 .from = "20250101000000",
                                 .to = "20260101001000",
                                 .issuer = pki_authority() },
             &brief);
    tls_lab_init(&lab, &opt, "localhost", &brief, true);
    world.now = 1767225600; /* 2026-01-01 00:00 */
    assert_false(connect_with_failure(&lab, 1000000));
    world.now = 0;
    assert_int_equal(lab.client->session_until_s, 1767225600 + 600);
    tls_lab_fini(&lab);
}

/* The server was started anew with another certificate, while one client's connection lives on in the old one. */
static void a_certificate_that_was_renewed_is_verified_by_new_flows_only(void **state) /* faults.md L15 */
{
    static struct pki_id renewed, wrong;
    struct tls_options opt = { .resume = true };
    const struct {
        const struct pki_id *id;
        bool trusted;
    } rows[] = { { &renewed, true }, { &wrong, false } };

    (void)state;
    pki_make(&(struct pki_wish){ .cn = "localhost", .dns = { "localhost" }, .issuer = pki_authority() },
             &renewed);
    pki_make(&(struct pki_wish){ .cn = "other", .dns = { "other.test" }, .issuer = pki_authority() }, &wrong);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct iovec word = { (char *)"word", 4 };
        struct tls_lab before, after;
        struct tls_pair old, new;
        char in[4];

        tls_lab_init(&before, &opt, "localhost", pki_server(), true);
        tls_lab_init(&after, &opt, "localhost", rows[i].id, true);
        tls_pair_open(&before, &old);
        assert_true(tls_pair_handshake(&old));
        (void)tls_recv(old.client.tls, in, 1);
        tls_pair_open(&(struct tls_lab){ .client = before.client, .server = after.server }, &new);
        assert_int_equal(tls_pair_handshake(&new), rows[i].trusted);
        assert_false(tls_resumed(new.client.tls));
        assert_int_equal(tls_sendv(old.server.tls, &word, 1), 4);
        assert_int_equal(tls_recv(old.client.tls, in, 4), 4);
        tls_pair_free(&new);
        tls_pair_free(&old);
        tls_lab_fini(&after);
        tls_lab_fini(&before);
    }
}

static void a_session_stays_with_its_way_out_and_trust(void **state) /* faults.md L9 */
{
    struct tls_options opt = { .resume = true };
    struct tls_lab first, second;
    struct tls_pair p;

    (void)state;
    tls_lab_init(&first, &opt, "localhost", pki_server(), true);
    tls_lab_init(&second, &opt, "proxy.test", pki_server(), true);
    assert_false(connect_with_failure(&first, 1000000));
    assert_true(first.client->session_until_s > 0);
    assert_true(second.client->session_until_s == 0);
    tls_pair_open(&second, &p);
    assert_true(tls_pair_handshake(&p));
    assert_false(tls_resumed(p.client.tls));
    tls_pair_free(&p);
    tls_lab_fini(&second);
    tls_lab_fini(&first);
}

/* ---- what no server should send ------------------------------------------------------------------------------------------- */

static void put24(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 16);
    put_be16(p + 1, (uint16_t)v);
}

static void put_record(struct mem_pipe *to, uint8_t type, const uint8_t *data, size_t len)
{
    uint8_t head[5] = { type, 3, 3, (uint8_t)(len >> 8), (uint8_t)len };

    mem_pipe_put(to, head, sizeof(head));
    mem_pipe_put(to, data, len);
}

/* A handshake message in records of @piece bytes. */
static void put_message(struct mem_pipe *to, uint8_t type, const uint8_t *body, size_t len, size_t piece)
{
    uint8_t *message = malloc(len + 4);

    assert_non_null(message);
    message[0] = type;
    put24(message + 1, len);
    memcpy(message + 4, body, len);
    for (size_t at = 0; at < len + 4; at += piece)
        put_record(to, 22, message + at, len + 4 - at < piece ? len + 4 - at : piece);
    free(message);
}

enum { CERTIFICATE = 11, RECORD = 16384 };

/* A list of @count certificates, each the DER of a good one, behind its length. */
static uint8_t *certificate_list(size_t count, size_t *len)
{
    mbedtls_x509_crt crt;
    const char *pem = pki_server()->certificate;
    uint8_t *list, *at;
    size_t one, all;

    mbedtls_x509_crt_init(&crt);
    assert_int_equal(mbedtls_x509_crt_parse(&crt, (const uint8_t *)pem, strlen(pem) + 1), 0);
    one = crt.raw.len;
    all = count * (one + 3);
    list = at = malloc(all + 3);
    assert_non_null(list);
    put24(at, all);
    at += 3;
    for (size_t i = 0; i < count; i++, at += one + 3) {
        put24(at, one);
        memcpy(at + 3, crt.raw.p, one);
    }
    mbedtls_x509_crt_free(&crt);
    *len = all + 3;
    return list;
}

/* The answer of a good server to the client's first words; with TLS 1.2 its first record is the ServerHello alone. */
static void good_answer(struct tls_pair *p)
{
    assert_int_equal(tls_handshake(p->client.tls, 1), TLS_WANT_READ);
    for (uint64_t turn = 2; turn < 6; turn++)
        (void)tls_handshake(p->server.tls, turn);
    assert_true(p->down.len > 100);
}

static size_t first_record(const struct mem_pipe *p)
{
    return 5 + get_be16(p->data + 3);
}

static enum tls_step client_ends(struct tls_pair *p)
{
    enum tls_step step = TLS_LATER;

    world.counting = true;
    for (uint64_t turn = 100; turn < 400 && step != TLS_BROKEN && step != TLS_DONE; turn++)
        step = tls_handshake(p->client.tls, turn);
    world.counting = false;
    return step;
}

enum chain { CHAIN_NONE, CHAIN_100, CHAIN_1_MIB, CHAIN_FITS };

static void put_chain(struct mem_pipe *to, enum chain kind)
{
    static const size_t counts[] = {
        [CHAIN_NONE] = 0, [CHAIN_100] = 100, [CHAIN_1_MIB] = 2400, [CHAIN_FITS] = 20
    };
    size_t len;
    uint8_t *list = certificate_list(counts[kind], &len);

    put_message(to, CERTIFICATE, list, len, RECORD);
    free(list);
}

static void chains_without_end_or_leaf_are_refused_in_bounded_memory(void **state) /* faults.md L7, L1 */
{
    static const struct {
        const char *what;
        enum chain chain;
        const char *says; /* with TLS 1.2; what 1.3 has here is encrypted, and so none of this is allowed */
    } rows[] = {
        { "no certificate at all", CHAIN_NONE, "shows no certificate" },
        { "100 certificates", CHAIN_100, "more than 16 KiB of certificates" },
        { "1 MiB of them", CHAIN_1_MIB, "more than 16 KiB of certificates" },
        { "20 times the same one", CHAIN_FITS, "" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_options opt = { 0 };
        struct tls_lab lab;
        struct tls_pair p;

        tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
        tls_pair_open(&lab, &p);
        good_answer(&p);
        p.down.len = first_record(&p.down);
        put_chain(&p.down, rows[i].chain);
        p.down.ended = true;
        memory_fails_at(0);
        assert_int_equal(client_ends(&p), TLS_BROKEN);
        if (!tls_has_1_3() && !strstr(tls_why(p.client.tls), rows[i].says))
            fail_msg("%s: \"%s\"", rows[i].what, tls_why(p.client.tls));
        assert_true(p.down.off < 64 * 1024 + sizeof(struct wire_buffer));
        assert_true(world.largest < 64 * 1024);
        tls_pair_free(&p);
        tls_lab_fini(&lab);
    }
}

static void a_handshake_in_records_of_one_byte_is_refused(void **state) /* faults.md L7 */
{
    struct tls_options opt = { 0 };
    struct tls_lab lab;
    struct tls_pair p;
    uint8_t answer[RECORD];
    size_t len;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
    tls_pair_open(&lab, &p);
    good_answer(&p);
    len = first_record(&p.down) - 5;
    memcpy(answer, p.down.data + 5, len);
    p.down.len = 0;
    for (size_t i = 0; i < len; i++)
        put_record(&p.down, 22, answer + i, 1);
    assert_int_equal(client_ends(&p), TLS_BROKEN);
    assert_true(strlen(tls_why(p.client.tls)) > 0);
    tls_pair_free(&p);
    tls_lab_fini(&lab);
}

static void records_of_nothing_during_the_handshake_are_limited(void **state) /* faults.md L8, L7 */
{
    static const uint8_t warning[] = { 1, 90 }, hello_request[] = { 0, 0, 0, 0 };
    static const struct {
        const char *what;
        uint8_t type;
        const uint8_t *data;
        size_t len;
    } rows[] = { { "warnings", 21, warning, 2 },
                 { "HelloRequests", 22, hello_request, 4 },
                 { "empty ones", 22, warning, 0 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_options opt = { 0 };
        struct tls_lab lab;
        struct tls_pair p;

        tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
        tls_pair_open(&lab, &p);
        assert_int_equal(tls_handshake(p.client.tls, 1), TLS_WANT_READ);
        for (int n = 0; n < 10000; n++)
            put_record(&p.down, rows[i].type, rows[i].data, rows[i].len);
        assert_int_equal(client_ends(&p), TLS_BROKEN);
        if (p.client.tls->watch.count > TLS_OPENING_RECORDS_MAX + 1)
            fail_msg("%s: %u records were looked at", rows[i].what, p.client.tls->watch.count);
        assert_true(p.down.off <= sizeof(struct wire_buffer));
        tls_pair_free(&p);
        tls_lab_fini(&lab);
    }
}

#if defined(MBEDTLS_SSL_RENEGOTIATION)
static void renegotiation_is_off_and_asking_for_it_is_limited(void **state) /* faults.md L8 */
{
    struct tls_options opt = { 0 };
    struct tls_lab lab;
    struct tls_pair p;
    char in[10];

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
    tls_pair_open(&lab, &p);
    assert_true(tls_pair_handshake(&p));
    if (tls_has_1_3()) { /* it has no such message */
        tls_pair_free(&p);
        tls_lab_fini(&lab);
        return;
    }
    for (int i = 0; i < 10000; i++)
        (void)mbedtls_ssl_renegotiate(&p.server.tls->ssl);
    assert_int_equal(tls_recv(p.client.tls, in, sizeof(in)), -ECONNRESET);
    assert_true(p.client.tls->watch.count <= TLS_IDLE_RECORDS_MAX + 1);
    assert_non_null(strstr(tls_why(p.client.tls), "limited"));
    tls_pair_free(&p);
    tls_lab_fini(&lab);
}
#endif

/* A NewSessionTicket of 64 KiB (its length has 16 bits) does not fit a record: refused, and nothing is kept. */
static void a_ticket_of_64_kib_is_refused(void **state) /* faults.md L9 */
{
    static uint8_t body[6 + 65535];
    struct tls_options opt = { .resume = true };
    struct tls_lab lab;
    struct tls_pair p;
    char in[10];

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), true);
    tls_pair_open(&lab, &p);
    good_answer(&p);
    body[4] = body[5] = 0xff;
    put_message(&p.down, 4, body, sizeof(body), RECORD);
    memory_fails_at(0);
    if (client_ends(&p) == TLS_DONE) /* TLS 1.3: it comes behind the server's last message */
        assert_int_equal(tls_recv(p.client.tls, in, sizeof(in)), -ECONNRESET);
    else
        assert_int_equal(tls_handshake(p.client.tls, 0), TLS_BROKEN);
    assert_true(world.largest < 64 * 1024);
    assert_true(lab.client->session_until_s == 0);
    tls_pair_free(&p);
    tls_lab_fini(&lab);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_handshake_survives_every_allocation_that_fails),
        cmocka_unit_test(a_resumed_handshake_survives_every_allocation_that_fails),
        cmocka_unit_test(settings_and_contexts_survive_every_allocation_that_fails),
        cmocka_unit_test(a_clock_of_1970_is_blamed_until_it_jumps),
        cmocka_unit_test(a_session_is_offered_for_an_hour_at_most),
        cmocka_unit_test(a_session_is_not_kept_longer_than_its_certificate),
        cmocka_unit_test(a_certificate_that_was_renewed_is_verified_by_new_flows_only),
        cmocka_unit_test(a_session_stays_with_its_way_out_and_trust),
        cmocka_unit_test(chains_without_end_or_leaf_are_refused_in_bounded_memory),
        cmocka_unit_test(a_handshake_in_records_of_one_byte_is_refused),
        cmocka_unit_test(records_of_nothing_during_the_handshake_are_limited),
#if defined(MBEDTLS_SSL_RENEGOTIATION)
        cmocka_unit_test(renegotiation_is_off_and_asking_for_it_is_limited),
#endif
        cmocka_unit_test(a_ticket_of_64_kib_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
