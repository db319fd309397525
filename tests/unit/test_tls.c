/* test_tls.c - src/tls: who is trusted and who is not, the handshake, sessions to resume (faults.md section 7). */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls/tls_impl.h"
#include "tls_pair.h"

#include <cmocka.h>

/* ---- who is trusted ------------------------------------------------------------------------------------------------ */

struct trust_row {
    const char *when;
    struct pki_wish server;
    bool self_signed, other_authority, skip;
    const char *name; /* NULL: localhost */
    const char *says; /* NULL: accepted */
};

#define GOOD .cn = "localhost", .dns = { "localhost" }

static const struct trust_row trust[] = {
    /* faults.md L1, L2 */
    { "the name is right", { GOOD }, .says = NULL },
    { "one of several names", { .cn = "x", .dns = { "a.test", "localhost" } }, .says = NULL },
    { "a wildcard", { .cn = "x", .dns = { "*.proxy.test" } }, .name = "a.proxy.test", .says = NULL },
    { "a wildcard is for one label",
      { .cn = "x", .dns = { "*.proxy.test" } },
      .name = "a.b.proxy.test",
      .says = "not for a.b.proxy.test" },
    { "an address", { .cn = "x", .addresses = { "127.0.0.1" } }, .name = "127.0.0.1", .says = NULL },
    { "an IPv6 address", { .cn = "x", .addresses = { "10.0.0.1", "::1" } }, .name = "::1", .says = NULL },
    { "another address",
      { .cn = "x", .addresses = { "127.0.0.1" } },
      .name = "127.0.0.2",
      .says = "for 127.0.0.1, not for 127.0.0.2" },
    { "an address that is only a text",
      { .cn = "127.0.0.1", .dns = { "127.0.0.1" } },
      .name = "127.0.0.1",
      .says = "not for 127.0.0.1" },
    { "a name, but the certificate has an address",
      { .cn = "x", .addresses = { "127.0.0.1" } },
      .says = "not for localhost" },
    { "another host",
      { .cn = "other.test", .dns = { "other.test" } },
      .says = "for other.test, not for localhost" },
    { "expired", { GOOD, .to = "20240301120000" }, .says = "expired on 2024-03-01 12:00 UTC" },
    { "not yet valid", { GOOD, .from = "20390101000000" }, .says = "valid only from 2039-01-01 00:00 UTC" },
    { "self-signed", { GOOD }, .self_signed = true, .says = "self-signed certificate (localhost)" },
    { "an authority that nobody knows",
      { GOOD },
      .other_authority = true,
      .says = "\"evil CA\", which is no trusted authority" },
    { "RSA of 2048 bits", { GOOD, .rsa_bits = 2048 }, .says = NULL },
    { "RSA of 1024 bits", { GOOD, .rsa_bits = 1024 }, .says = "too weak (RSA" },
    { "signed with SHA-1", { GOOD, .sha1 = true }, .says = "too weak (MD5 or SHA-1)" },
    { "signed with MD5",
      { GOOD, .rsa_bits = 2048, .md5 = true },
      .self_signed = true,
      .says = "too weak (MD5 or SHA-1)" },
    { "an authority's instead of a leaf",
      { .cn = "test CA", .authority = true },
      .says = "for test CA, not for localhost" },
    { "expired, and nobody cares", { GOOD, .to = "20240301120000" }, .skip = true, .says = NULL },
    { "another host, and nobody cares", { .cn = "x", .dns = { "x" } }, .skip = true, .says = NULL },
};

static const char *try_trust(const struct trust_row *row, char said[200])
{
    struct tls_options opt = { .skip_verify = row->skip };
    static struct pki_id evil;
    struct pki_wish wish = row->server;
    struct tls_lab lab;
    struct tls_pair p;
    struct pki_id id;

    if (row->other_authority && !evil.key[0])
        pki_make(&(struct pki_wish){ .cn = "evil CA", .authority = true }, &evil);
    wish.issuer = row->self_signed ? NULL : row->other_authority ? &evil : pki_authority();
    wish.issuer_cn = row->other_authority ? "evil CA" : NULL;
    pki_make(&wish, &id);
    tls_lab_init(&lab, &opt, row->name ? row->name : "localhost", &id, false);
    tls_pair_open(&lab, &p);
    said[0] = '\0';
    if (!tls_pair_handshake(&p))
        snprintf(said, 200, "%s", tls_why(p.client.tls));
    tls_pair_free(&p);
    tls_lab_fini(&lab);
    return said;
}

static void a_certificate_is_trusted_or_the_sentence_says_why_not(void **state) /* faults.md L1, L2 */
{
    char said[200];
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(trust); i++) {
        try_trust(&trust[i], said);
        if (trust[i].says ? strstr(said, trust[i].says) != NULL : said[0] == '\0')
            continue;
        print_error("%s: \"%s\", not \"%s\"\n", trust[i].when, said, trust[i].says ? trust[i].says : "");
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void an_address_is_never_sent_as_a_name(void **state) /* faults.md L2; RFC 6066 section 3 */
{
    static const struct {
        const char *name;
        bool sent;
    } rows[] = { { "localhost", true }, { "127.0.0.1", false }, { "::1", false } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_options opt = { 0 };
        struct tls_lab lab;
        struct tls_pair p;

        tls_lab_init(&lab, &opt, rows[i].name, pki_server(), false);
        tls_pair_open(&lab, &p);
        assert_int_equal(tls_handshake(p.client.tls, 1), TLS_WANT_READ);
        assert_int_equal(memmem(p.up.data, p.up.len, rows[i].name, strlen(rows[i].name)) != NULL,
                         rows[i].sent);
        tls_pair_free(&p);
        tls_lab_fini(&lab);
    }
}

static void a_client_without_a_name_is_refused(void **state) /* faults.md L3 */
{
    struct tls_options opt = { .ca = tls_test_ca(pki_authority()) };
    char long_name[300] = "";
    struct tls_settings *s;
    struct tls_context *c;
    struct tls_worker *w;
    struct err err;

    (void)state;
    memset(long_name, 'a', sizeof(long_name) - 1);
    assert_int_equal(tls_worker_new(&w), 0);
    assert_int_equal(tls_settings_new(&opt, &s, &err), 0);
    assert_int_equal(tls_context_new(w, s, NULL, &c), -EINVAL);
    assert_int_equal(tls_context_new(w, s, "", &c), -EINVAL);
    assert_int_equal(tls_context_new(w, s, long_name, &c), -EINVAL);
    tls_settings_unref(s);
    tls_ca_unref(opt.ca);
    tls_worker_free(w);
}

static void a_pin_must_be_among_the_keys_of_the_chain_and_replaces_nothing(void **state) /* faults.md L4 */
{
    static struct pki_id expired;
    uint8_t pins[2][TLS_PIN_BYTES] = { { 1 }, { 2 } };
    const struct {
        const char *when;
        const struct pki_id *server;
        const uint8_t *pin;
        bool skip;
        const char *says;
    } rows[] = {
        { "the leaf's key", pki_server(), pki_server()->pin, false, NULL },
        { "the authority's key", pki_server(), pki_authority()->pin, false, NULL },
        { "another key", pki_server(), NULL, false, "not among pin-sha256" },
        { "another key, unverified", pki_server(), NULL, true, "not among pin-sha256" },
        { "the right key, expired", &expired, expired.pin, false, "expired" },
        { "the right key, expired, unverified", &expired, expired.pin, true, NULL },
    };

    (void)state;
    pki_make(&(struct pki_wish){ GOOD, .to = "20240301120000", .issuer = pki_authority() }, &expired);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_options opt = { .skip_verify = rows[i].skip, .pin_count = 2 };
        struct tls_lab lab;
        struct tls_pair p;
        bool ok;

        opt.pins = (const uint8_t(*)[TLS_PIN_BYTES])pins;
        memset(pins[1], 2, TLS_PIN_BYTES);
        if (rows[i].pin)
            memcpy(pins[1], rows[i].pin, TLS_PIN_BYTES);
        tls_lab_init(&lab, &opt, "localhost", rows[i].server, false);
        tls_pair_open(&lab, &p);
        ok = tls_pair_handshake(&p);
        if (ok != !rows[i].says || (rows[i].says && !strstr(tls_why(p.client.tls), rows[i].says)))
            fail_msg("%s: %s", rows[i].when, tls_why(p.client.tls));
        tls_pair_free(&p);
        tls_lab_fini(&lab);
    }
}

static void a_wrong_clock_is_named_and_not_the_certificate(void **state) /* faults.md L14 */
{
    struct cert_report r = { .flags = MBEDTLS_X509_BADCERT_FUTURE, .from_s = INT64_C(1577836800) };
    char said[160];

    (void)state;
    verify_sentence(&r, "localhost", 86400, said, sizeof(said));
    assert_non_null(strstr(said, "clock says 1970-01-02"));
    verify_sentence(&r, "localhost", INT64_C(1767225600), said, sizeof(said));
    assert_non_null(strstr(said, "valid only from 2020-01-01"));
}

static void a_client_certificate_is_shown_and_asked_for(void **state)
{
    static struct pki_id client, stranger;
    const struct {
        const struct pki_id *id;
        const char *says;
    } rows[] = { { &client, NULL }, { &stranger, "certificate" } };

    (void)state;
    pki_make(&(struct pki_wish){ .cn = "client", .issuer = pki_authority(), .client_only = true }, &client);
    pki_make(&(struct pki_wish){ .cn = "stranger" }, &stranger);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_options opt = { .certificate = rows[i].id->certificate, .private_key = rows[i].id->key };
        struct tls_lab lab;
        struct tls_pair p;
        char in[10];
        bool ok;

        tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
        tls_pair_open(&lab, &p);
        ok = tls_pair_handshake(&p);
        assert_int_equal(ok, rows[i].says == NULL);
        if (!ok && p.client.step == TLS_DONE) /* TLS 1.3: the client was through before the server looked */
            assert_int_equal(tls_recv(p.client.tls, in, sizeof(in)), -ECONNRESET);
        else if (!ok && p.client.step != TLS_BROKEN)
            assert_int_equal(tls_handshake(p.client.tls, 0), TLS_BROKEN);
        if (!ok) {
            /* A server by mbedTLS 3.6 encrypts this alert so that nobody can read it. */
            if (!tls_has_1_3() && !strstr(tls_why(p.client.tls), rows[i].says))
                fail_msg("\"%s\"", tls_why(p.client.tls));
            assert_int_equal(tls_config_fault(p.client.tls), !tls_has_1_3());
        }
        tls_pair_free(&p);
        tls_lab_fini(&lab);
    }
}

static void alpn_is_agreed(void **state)
{
    static const char *const protocols[] = { "h2", "http/1.1" };
    struct tls_options opt = { .alpn = protocols, .alpns = 2 };
    struct tls_lab lab;
    struct tls_pair p;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
    tls_pair_open(&lab, &p);
    assert_true(tls_pair_handshake(&p));
    assert_string_equal(tls_alpn(p.client.tls), "h2");
    assert_non_null(strstr(tls_version_name(p.client.tls), tls_has_1_3() ? "1.3" : "1.2"));
    tls_pair_free(&p);
    tls_lab_fini(&lab);
}

static void what_is_no_certificate_or_key_is_named(void **state) /* faults.md L16 */
{
    static struct pki_id other;
    static const char encrypted[] = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
                                    "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n"
                                    "AAAAAAAAAAAAAAAAAAAAAA==\n-----END RSA PRIVATE KEY-----\n";
    struct tls_options opt = { .certificate = pki_server()->certificate };
    struct tls_settings *s;
    uint8_t pin[TLS_PIN_BYTES];
    struct tls_ca *ca;
    struct err err;

    (void)state;
    assert_int_equal(tls_ca_parse("nonsense", 8, &ca, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no certificate that can be read"));
    assert_int_equal(tls_ca_parse("", 0, &ca, &err), -EINVAL);
    assert_int_equal(tls_check_certificate("x", &err), -EINVAL);
    assert_int_equal(tls_check_key("x", &err), -EINVAL);
    assert_int_equal(tls_check_key(encrypted, &err), -EINVAL);
    assert_non_null(strstr(err.text, "encrypted"));
    opt.ca = tls_test_ca(pki_authority());
    assert_int_equal(tls_settings_new(&opt, &s, &err), -EINVAL);
    pki_make(&(struct pki_wish){ GOOD }, &other);
    opt.private_key = other.key;
    assert_int_equal(tls_settings_new(&opt, &s, &err), -EINVAL);
    assert_non_null(strstr(err.text, "does not belong"));
    tls_ca_unref(opt.ca);
    assert_int_equal(tls_settings_new(&(struct tls_options){ 0 }, &s, &err), -EINVAL); /* trusts nobody */
    assert_int_equal(tls_parse_pin("sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", pin), 0);
    assert_int_equal(tls_parse_pin("AAAA", pin), -EINVAL);
    assert_int_equal(tls_parse_pin("", pin), -EINVAL);
}

/* ---- the handshake -------------------------------------------------------------------------------------------------------- */

static uint64_t held_by(const struct tls_worker *w)
{
    struct memory_use use = { { 0 } };

    tls_worker_memory(w, &use);
    assert_int_equal(memory_sum(&use), use.bytes[MEMORY_TLS]);
    return use.bytes[MEMORY_TLS];
}

static void memory_follows_sessions(void **state)
{
    struct tls_options opt = { 0 };
    struct tls_pair p[2];
    struct tls_lab lab;
    uint64_t none, one, two;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
    none = held_by(lab.worker);
    tls_pair_open(&lab, &p[0]);
    one = held_by(lab.worker);
    tls_pair_open(&lab, &p[1]);
    two = held_by(lab.worker);
    assert_true(one >= none + 32768);
    assert_int_equal(two - one, one - none);
    tls_pair_free(&p[0]);
    assert_int_equal(held_by(lab.worker), one);
    tls_pair_free(&p[1]);
    assert_int_equal(held_by(lab.worker), none);
    tls_lab_fini(&lab);
}

static void one_costly_step_a_turn(void **state) /* faults.md L13 */
{
    struct tls_options opt = { 0 };
    struct tls_pair p[2];
    unsigned later = 0;
    struct tls_lab lab;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
    for (int i = 0; i < 2; i++)
        tls_pair_open(&lab, &p[i]);
    for (uint64_t turn = 0; turn < 100; turn++) {
        for (int i = 0; i < 2; i++) { /* both in one turn */
            p[i].client.step = tls_handshake(p[i].client.tls, turn);
            later += p[i].client.step == TLS_LATER;
            (void)tls_handshake(p[i].server.tls, turn * 2 + (uint64_t)i);
        }
        if (p[0].client.step == TLS_DONE && p[1].client.step == TLS_DONE)
            break;
    }
    assert_int_equal(p[0].client.step, TLS_DONE);
    assert_int_equal(p[1].client.step, TLS_DONE);
    assert_true(later >= 3);
    for (int i = 0; i < 2; i++)
        tls_pair_free(&p[i]);
    tls_lab_fini(&lab);
}

static void sixteen_handshakes_go_on_in_one_turn(void **state) /* faults.md L13 */
{
    struct tls_options opt = { .resume = true };
    struct tls_pair p[20];
    struct tls_lab lab;
    char in;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), true);
    tls_pair_open(&lab, &p[0]);
    assert_true(tls_pair_handshake(&p[0]));
    (void)tls_recv(p[0].client.tls, &in,
                   1); /* now all others resume, and none of them has to wait for another */
    tls_pair_free(&p[0]);
    for (int i = 0; i < 20; i++)
        tls_pair_open(&lab, &p[i]);
    for (int i = 0; i < 20; i++)
        assert_int_equal(tls_handshake(p[i].client.tls, 777000), i < 16 ? TLS_WANT_READ : TLS_LATER);
    assert_int_equal(tls_handshake(p[19].client.tls, 777001), TLS_WANT_READ);
    for (int i = 0; i < 20; i++)
        tls_pair_free(&p[i]);
    tls_lab_fini(&lab);
}

static void four_full_handshakes_at_once_and_the_others_resume(void **state) /* faults.md L13, L9 */
{
    struct tls_options opt = { .resume = true };
    struct tls_pair p[10];
    struct tls_lab lab;
    char in;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), true);
    for (int i = 0; i < 10; i++) {
        tls_pair_open(&lab, &p[i]);
        assert_int_equal(tls_handshake(p[i].client.tls, 1000 + (uint64_t)i),
                         i < 4 ? TLS_WANT_READ : TLS_QUEUED);
    }
    tls_free(p[9].client.tls); /* one gives up while it waits */
    p[9].client.tls = NULL;
    assert_true(tls_pair_handshake(&p[0]));
    assert_int_equal(tls_recv(p[0].client.tls, &in, 1),
                     -EAGAIN); /* TLS 1.3: its ticket comes now (faults.md L10) */
    for (int i = 4; i < 9; i++) {
        assert_true(p[i].client.woken >= 1);
        assert_true(tls_pair_handshake(&p[i]));
        assert_true(tls_resumed(p[i].client.tls));
    }
    assert_false(tls_resumed(p[0].client.tls));
    for (int i = 1; i < 4; i++)
        assert_true(tls_pair_handshake(&p[i]));
    assert_int_equal(tls_context_counters(lab.client)->full, 4);
    assert_int_equal(tls_context_counters(lab.client)->resumed, 5);
    for (int i = 0; i < 10; i++)
        tls_pair_free(&p[i]);
    tls_lab_fini(&lab);
}

static void without_sessions_the_queue_moves_one_by_one(void **state) /* faults.md L13 */
{
    struct tls_options opt = { .resume = false };
    struct tls_pair p[6];
    struct tls_lab lab;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
    for (int i = 0; i < 6; i++) {
        tls_pair_open(&lab, &p[i]);
        (void)tls_handshake(p[i].client.tls, 2000 + (uint64_t)i);
    }
    p[1].down.ended = true; /* one fails: the next in the queue gets its place */
    assert_int_equal(tls_handshake(p[1].client.tls, 3000), TLS_BROKEN);
    assert_int_equal(p[4].client.woken, 1);
    assert_int_equal(p[5].client.woken, 0);
    assert_true(tls_pair_handshake(&p[4]));
    assert_int_equal(p[5].client.woken, 1);
    assert_true(tls_pair_handshake(&p[5]));
    for (int i = 0; i < 6; i++)
        tls_pair_free(&p[i]);
    tls_lab_fini(&lab);
}

static void a_session_that_the_server_does_not_know_costs_a_full_handshake(
    void **state) /* faults.md L9, L15 */
{
    struct tls_options opt = { .resume = true };
    struct tls_lab first, second;
    struct tls_context *keep;
    struct tls_pair p;
    char in;

    (void)state;
    tls_lab_init(&first, &opt, "localhost", pki_server(), true);
    tls_pair_open(&first, &p);
    assert_true(tls_pair_handshake(&p));
    assert_int_equal(tls_recv(p.client.tls, &in, 1), -EAGAIN);
    tls_pair_free(&p);
    tls_lab_init(&second, &opt, "localhost", pki_server(),
                 true); /* the server was started anew: other ticket keys */
    keep = second.client;
    second.client = first.client;
    tls_pair_open(&second, &p);
    assert_true(tls_pair_handshake(&p));
    assert_false(tls_resumed(p.client.tls));
    assert_int_equal(tls_recv(p.client.tls, &in, 1), -EAGAIN);
    tls_pair_free(&p);
    tls_pair_open(&second, &p);
    assert_true(tls_pair_handshake(&p));
    assert_true(tls_resumed(p.client.tls));
    tls_pair_free(&p);
    second.client = keep;
    tls_lab_fini(&second);
    tls_lab_fini(&first);
}

/* ---- strangers, and records that break the rules ------------------------------------------------------------------------- */

#define BYTES(text) (text), sizeof(text) - 1

static enum tls_step handshake_ends(struct tls *t)
{
    enum tls_step step = TLS_LATER;

    for (uint64_t turn = 0; turn < 20 && step != TLS_BROKEN; turn++)
        step = tls_handshake(t, turn);
    return step;
}

static void what_answers_instead_of_tls_is_named(void **state) /* faults.md L5, L6 */
{
    static const struct {
        const char *answer;
        size_t len;
        const char *says;
    } rows[] = {
        { BYTES("HTTP/1.1 400 Bad Request\r\n\r\n"), "an HTTP server without TLS" },
        { BYTES("\5\0"), "SOCKS5 without TLS" },
        { BYTES("\5\377"), "SOCKS5 without TLS" },
        { BYTES("SSH-2.0-x\r\n"), "an SSH server" },
        { BYTES("\x80\x80\x80\x80\x80\x80"), "does not speak TLS" },
        { BYTES("\x15\3\1\0\2\2\x46"), "TLS" },               /* protocol_version */
        { BYTES("\x15\3\3\0\2\2\x28"), "refused our offer" }, /* handshake_failure */
        { BYTES("\x15\3\3\0\2\2\x70"), "set sni" },           /* unrecognized_name */
        { BYTES("\x15\3\3\0\2\2\x74"), "set certificate" },   /* certificate_required */
        { BYTES("\x15\3\3\0\2\2\x63"), "alert 99" },
        { BYTES("\x16\3\1\0\x2c\2\0\0\x28\3\1"
                "12345678901234567890123456789012\0\xc0\x2b\0\0\0"),
          "too old" },
        { BYTES("\x16\3\3\0\0"), "" },        /* faults.md L7: empty */
        { BYTES("\x16\3\3\x44\1"), "rules" }, /* too long */
        { BYTES("\x16\3\3\xff\xff"), "rules" },
        { BYTES("\x16\x33\3\0\1x"), "rules" },
        { BYTES(""), "closed the connection during the TLS handshake" },
        { BYTES("\x16\3\3\0\x20\2"), "closed the connection during the TLS handshake" },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_options opt = { 0 };
        struct tls_lab lab;
        struct tls_pair p;

        tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
        tls_pair_open(&lab, &p);
        mem_pipe_put(&p.down, rows[i].answer, rows[i].len);
        p.down.ended = true;
        p.down.piece = i % 2;
        if (handshake_ends(p.client.tls) != TLS_BROKEN || !strstr(tls_why(p.client.tls), rows[i].says)) {
            print_error("row %zu: \"%s\", not \"%s\"\n", i, tls_why(p.client.tls), rows[i].says);
            wrong++;
        }
        tls_pair_free(&p);
        tls_lab_fini(&lab);
    }
    assert_int_equal(wrong, 0);
}

static void a_handshake_cut_reset_or_bent_at_every_byte_fails_once(void **state) /* faults.md L6, S2, S3 */
{
    struct tls_options opt = { 0 };
    struct tls_lab lab;
    struct tls_pair p;
    size_t whole;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
    tls_pair_open(&lab, &p);
    assert_true(tls_pair_handshake(&p));
    whole = p.down.len;
    tls_pair_free(&p);
    for (size_t k = 0; k + 1 < whole; k += k < 150 ? 7 : 41) {
        for (int how = 0; how < 3; how++) {
            tls_pair_open(&lab, &p);
            (void)tls_handshake(p.client.tls, k * 10);
            for (int i = 0; i < 8; i++) { /* the server says all it has, as long as the client answers */
                (void)tls_handshake(p.server.tls, k * 100 + (uint64_t)i);
                if (p.down.len > k) {
                    if (how == 2) {
                        p.down.data[k] ^= 0xa5;
                    } else {
                        p.down.len = k;
                        p.down.ended = how == 0;
                        p.down.reset = how == 1;
                    }
                }
                for (int turn = 0; turn < 5; turn++)
                    p.client.step = tls_handshake(p.client.tls, k * 100 + (uint64_t)(i * 5 + turn));
                if (p.client.step == TLS_BROKEN || how == 2)
                    break;
            }
            if (how < 2)
                assert_int_equal(p.client.step, TLS_BROKEN);
            else if (p.client.step == TLS_DONE)
                fail_msg("byte %zu was bent and the handshake went through", k);
            tls_pair_free(&p);
        }
    }
    tls_lab_fini(&lab);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_certificate_is_trusted_or_the_sentence_says_why_not),
        cmocka_unit_test(an_address_is_never_sent_as_a_name),
        cmocka_unit_test(a_client_without_a_name_is_refused),
        cmocka_unit_test(a_pin_must_be_among_the_keys_of_the_chain_and_replaces_nothing),
        cmocka_unit_test(a_wrong_clock_is_named_and_not_the_certificate),
        cmocka_unit_test(a_client_certificate_is_shown_and_asked_for),
        cmocka_unit_test(alpn_is_agreed),
        cmocka_unit_test(what_is_no_certificate_or_key_is_named),
        cmocka_unit_test(memory_follows_sessions),
        cmocka_unit_test(one_costly_step_a_turn),
        cmocka_unit_test(sixteen_handshakes_go_on_in_one_turn),
        cmocka_unit_test(four_full_handshakes_at_once_and_the_others_resume),
        cmocka_unit_test(without_sessions_the_queue_moves_one_by_one),
        cmocka_unit_test(a_session_that_the_server_does_not_know_costs_a_full_handshake),
        cmocka_unit_test(what_answers_instead_of_tls_is_named),
        cmocka_unit_test(a_handshake_cut_reset_or_bent_at_every_byte_fails_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
