/* pki.c - certificates for tests (RFC 5280), written by mbedTLS. */
#include "pki.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <mbedtls/oid.h>
#include <mbedtls/pk.h>
#include <mbedtls/rsa.h>
#include <mbedtls/sha256.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>

#include "culvert/base.h"

#include <cmocka.h>

static int dice(void *arg, unsigned char *out, size_t len)
{
    (void)arg;
    return random_bytes(out, len);
}

static void make_key(mbedtls_pk_context *key, unsigned rsa_bits)
{
    mbedtls_pk_init(key);
    assert_int_equal(
        mbedtls_pk_setup(key, mbedtls_pk_info_from_type(rsa_bits ? MBEDTLS_PK_RSA : MBEDTLS_PK_ECKEY)), 0);
    if (rsa_bits)
        assert_int_equal(mbedtls_rsa_gen_key(mbedtls_pk_rsa(*key), dice, NULL, rsa_bits, 65537), 0);
    else
        assert_int_equal(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), dice, NULL), 0);
}

static void read_key(mbedtls_pk_context *key, const char *pem)
{
    mbedtls_pk_init(key);
#if MBEDTLS_VERSION_MAJOR >= 3
    assert_int_equal(mbedtls_pk_parse_key(key, (const uint8_t *)pem, strlen(pem) + 1, NULL, 0, dice, NULL),
                     0);
#else
    assert_int_equal(mbedtls_pk_parse_key(key, (const uint8_t *)pem, strlen(pem) + 1, NULL, 0), 0);
#endif
}

/* GeneralNames: a sequence of [2] names and [7] addresses, all short (RFC 5280 section 4.2.1.6). */
static size_t put_names(const struct pki_wish *w, uint8_t out[256])
{
    size_t at = 2;

    for (size_t i = 0; i < ARRAY_LEN(w->dns) && w->dns[i]; i++) {
        out[at++] = 0x82;
        out[at++] = (uint8_t)strlen(w->dns[i]);
        memcpy(out + at, w->dns[i], strlen(w->dns[i]));
        at += strlen(w->dns[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(w->addresses) && w->addresses[i]; i++) {
        struct ip_addr a;
        size_t n;

        assert_int_equal(ip_parse(w->addresses[i], &a), 0);
        n = ip_is4(&a) ? 4 : 16;
        out[at++] = 0x87;
        out[at++] = (uint8_t)n;
        memcpy(out + at, a.b + 16 - n, n);
        at += n;
    }
    assert_true(at < 130);
    out[0] = 0x30;
    out[1] = (uint8_t)(at - 2);
    return at;
}

static void set_extensions(mbedtls_x509write_cert *crt, const struct pki_wish *w)
{
    static const uint8_t client_auth[] = { 0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2 };
    uint8_t names[256];

    assert_int_equal(mbedtls_x509write_crt_set_basic_constraints(crt, w->authority, -1), 0);
    if (w->dns[0] || w->addresses[0])
        assert_int_equal(mbedtls_x509write_crt_set_extension(crt, MBEDTLS_OID_SUBJECT_ALT_NAME,
                                                             MBEDTLS_OID_SIZE(MBEDTLS_OID_SUBJECT_ALT_NAME),
                                                             0, names, put_names(w, names)),
                         0);
    if (w->client_only)
        assert_int_equal(mbedtls_x509write_crt_set_extension(crt, MBEDTLS_OID_EXTENDED_KEY_USAGE,
                                                             MBEDTLS_OID_SIZE(MBEDTLS_OID_EXTENDED_KEY_USAGE),
                                                             0, client_auth, sizeof(client_auth)),
                         0);
}

static void set_serial(mbedtls_x509write_cert *crt)
{
    uint8_t serial[8] = { 1 };
#if MBEDTLS_VERSION_NUMBER >= 0x03040000
    assert_int_equal(random_bytes(serial + 1, sizeof(serial) - 1), 0);
    assert_int_equal(mbedtls_x509write_crt_set_serial_raw(crt, serial, sizeof(serial)), 0);
#else
    mbedtls_mpi n;

    assert_int_equal(random_bytes(serial + 1, sizeof(serial) - 1), 0);
    mbedtls_mpi_init(&n);
    assert_int_equal(mbedtls_mpi_read_binary(&n, serial, sizeof(serial)), 0);
    assert_int_equal(mbedtls_x509write_crt_set_serial(crt, &n), 0);
    mbedtls_mpi_free(&n);
#endif
}

static void make_pin(const char *pem, uint8_t out[32])
{
    mbedtls_x509_crt crt;

    mbedtls_x509_crt_init(&crt);
    assert_int_equal(mbedtls_x509_crt_parse(&crt, (const uint8_t *)pem, strlen(pem) + 1), 0);
#if MBEDTLS_VERSION_MAJOR >= 3
    assert_int_equal(mbedtls_sha256(crt.pk_raw.p, crt.pk_raw.len, out, 0), 0);
#else
    assert_int_equal(mbedtls_sha256_ret(crt.pk_raw.p, crt.pk_raw.len, out, 0), 0);
#endif
    mbedtls_x509_crt_free(&crt);
}

void pki_make(const struct pki_wish *w, struct pki_id *out)
{
    mbedtls_x509write_cert crt;
    mbedtls_pk_context key, issuer;
    char subject[128], by[128];

    make_key(&key, w->rsa_bits);
    if (w->issuer)
        read_key(&issuer, w->issuer->key);
    mbedtls_x509write_crt_init(&crt);
    snprintf(subject, sizeof(subject), "CN=%s", w->cn);
    snprintf(by, sizeof(by), "CN=%s", w->issuer ? (w->issuer_cn ? w->issuer_cn : "test CA") : w->cn);
    mbedtls_x509write_crt_set_version(&crt, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&crt, w->md5    ? MBEDTLS_MD_MD5
                                           : w->sha1 ? MBEDTLS_MD_SHA1
                                                     : MBEDTLS_MD_SHA256);
    set_serial(&crt);
    assert_int_equal(mbedtls_x509write_crt_set_subject_name(&crt, subject), 0);
    assert_int_equal(mbedtls_x509write_crt_set_issuer_name(&crt, by), 0);
    assert_int_equal(mbedtls_x509write_crt_set_validity(&crt, w->from ? w->from : "20200101000000",
                                                        w->to ? w->to : "20400101000000"),
                     0);
    mbedtls_x509write_crt_set_subject_key(&crt, &key);
    mbedtls_x509write_crt_set_issuer_key(&crt, w->issuer ? &issuer : &key);
    set_extensions(&crt, w);
    assert_int_equal(mbedtls_x509write_crt_pem(&crt, (uint8_t *)out->certificate, PKI_PEM_MAX, dice, NULL),
                     0);
    assert_int_equal(mbedtls_pk_write_key_pem(&key, (uint8_t *)out->key, PKI_PEM_MAX), 0);
    make_pin(out->certificate, out->pin);
    mbedtls_x509write_crt_free(&crt);
    mbedtls_pk_free(&key);
    if (w->issuer)
        mbedtls_pk_free(&issuer);
}

const struct pki_id *pki_authority(void)
{
    static struct pki_id id;

    if (!id.key[0])
        pki_make(&(struct pki_wish){ .cn = "test CA", .authority = true }, &id);
    return &id;
}

const struct pki_id *pki_server(void)
{
    static struct pki_id id;

    if (!id.key[0])
        pki_make(&(struct pki_wish){ .cn = "localhost",
                                     .dns = { "localhost", "proxy.test" },
                                     .addresses = { "127.0.0.1", "::1" },
                                     .issuer = pki_authority() },
                 &id);
    return &id;
}
