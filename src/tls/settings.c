/* settings.c - what a configuration says about TLS, parsed once and shared by all workers. */
#include "tls_impl.h"

#include <stdlib.h>

#include <mbedtls/asn1.h>
#include <mbedtls/base64.h>
#include <mbedtls/cipher.h>
#include <mbedtls/ecp.h>
#include <mbedtls/error.h>
#include <mbedtls/md.h>
#include <mbedtls/pem.h>
#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif

/* For parsing, and for the keys of tickets: settings are made before any worker, and shared by all. */
static int raw_random(void *arg, unsigned char *out, size_t len)
{
    (void)arg;
    return random_bytes(out, len) == 0 ? 0 : MBEDTLS_ERR_CTR_DRBG_ENTROPY_SOURCE_FAILED;
}

bool tls_has_1_3(void)
{
#if MBEDTLS_VERSION_MAJOR >= 3 && defined(MBEDTLS_SSL_PROTO_TLS1_3)
    return true;
#else
    return false;
#endif
}

/* mbedTLS wants the final NUL of PEM text counted, and none counted of DER. */
static size_t pem_size(const void *text, size_t len)
{
    return memmem(text, len, "-----BEGIN", 10) != NULL ? len + 1 : len;
}

/* ---- authorities ---- */

/* Their codes are a sum of two: what a high module did (0x7f80), and why a low one could not (0x007f). */
bool tls_is_no_memory(int e)
{
    static const int high[] = { MBEDTLS_ERR_SSL_ALLOC_FAILED,   MBEDTLS_ERR_X509_ALLOC_FAILED,
                                MBEDTLS_ERR_PK_ALLOC_FAILED,    MBEDTLS_ERR_PEM_ALLOC_FAILED,
                                MBEDTLS_ERR_ECP_ALLOC_FAILED,   MBEDTLS_ERR_MD_ALLOC_FAILED,
                                MBEDTLS_ERR_CIPHER_ALLOC_FAILED };
    int low = -e & 0x7f;

    if (e >= 0)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(high); i++) {
        if ((-e & 0x7f80) == -high[i])
            return true;
    }
    return low == -MBEDTLS_ERR_MPI_ALLOC_FAILED || low == -MBEDTLS_ERR_ASN1_ALLOC_FAILED;
}

static int parse_failure(int e, const char *what, struct err *err)
{
    if (tls_is_no_memory(e))
        return err_set(err, -ENOMEM, "no memory");
    if (e == MBEDTLS_ERR_PK_PASSWORD_REQUIRED || e == MBEDTLS_ERR_PEM_PASSWORD_REQUIRED ||
        e == MBEDTLS_ERR_PK_PASSWORD_MISMATCH)
        return err_set(err, -EINVAL,
                       "holds %s that is encrypted; decrypt it with `openssl pkey -in FILE -out NEW`", what);
    return err_set(err, -EINVAL, "holds no %s that can be read (mbedTLS error -0x%04x); PEM text would work",
                   what, (unsigned)-e);
}

int tls_ca_parse(const void *text, size_t len, struct tls_ca **out, struct err *err)
{
    struct tls_ca *ca = calloc(1, sizeof(*ca));
    int e, r = 0;

    if (ca == NULL)
        return err_set(err, -ENOMEM, "no memory");
    atomic_init(&ca->refs, 1);
    mbedtls_x509_crt_init(&ca->chain);
    e = mbedtls_x509_crt_parse(&ca->chain, text, pem_size(text, len));
    /* > 0: so many could not be read. A system's store may hold some that are too new; one's own file may not. */
    if (e < 0 || ca->chain.raw.p == NULL)
        r = parse_failure(e, "certificate", err);
    if (r != 0) {
        tls_ca_unref(ca);
        return r;
    }
    *out = ca;
    return 0;
}

struct tls_ca *tls_ca_ref(struct tls_ca *ca)
{
    atomic_fetch_add_explicit(&ca->refs, 1, memory_order_relaxed);
    return ca;
}

void tls_ca_unref(struct tls_ca *ca)
{
    if (ca == NULL || atomic_fetch_sub_explicit(&ca->refs, 1, memory_order_acq_rel) != 1)
        return;
    mbedtls_x509_crt_free(&ca->chain);
    free(ca);
}

/* ---- our own certificate and key ---- */

static int parse_certificate(mbedtls_x509_crt *crt, const char *pem, struct err *err)
{
    int e = mbedtls_x509_crt_parse(crt, (const uint8_t *)pem, strlen(pem) + 1);

    return e == 0 ? 0 : parse_failure(e < 0 ? e : -1, "certificate", err);
}

static int parse_key(mbedtls_pk_context *key, const char *pem, struct err *err)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    int e = mbedtls_pk_parse_key(key, (const uint8_t *)pem, strlen(pem) + 1, NULL, 0, raw_random, NULL);
#else
    int e = mbedtls_pk_parse_key(key, (const uint8_t *)pem, strlen(pem) + 1, NULL, 0);
#endif

    return e == 0 ? 0 : parse_failure(e, "private key", err);
}

static int check_pair(const mbedtls_x509_crt *crt, mbedtls_pk_context *key, struct err *err)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    int e = mbedtls_pk_check_pair(&crt->pk, key, raw_random, NULL);
#else
    int e = mbedtls_pk_check_pair(&crt->pk, key);
#endif

    if (tls_is_no_memory(e))
        return parse_failure(e, "private key", err);
    return e == 0 ? 0 : err_set(err, -EINVAL, "the private key does not belong to the certificate");
}

int tls_check_certificate(const char *pem, struct err *err)
{
    mbedtls_x509_crt crt;
    int r;

    mbedtls_x509_crt_init(&crt);
    r = parse_certificate(&crt, pem, err);
    mbedtls_x509_crt_free(&crt);
    return r;
}

int tls_check_key(const char *pem, struct err *err)
{
    mbedtls_pk_context key;
    int r;

    mbedtls_pk_init(&key);
    r = parse_key(&key, pem, err);
    mbedtls_pk_free(&key);
    return r;
}

static int take_own(struct tls_settings *s, const struct tls_options *opt, struct err *err)
{
    int r;

    if (opt->certificate == NULL && opt->private_key == NULL)
        return s->server ? err_set(err, -EINVAL, "a server needs a certificate and its private key") : 0;
    if (opt->certificate == NULL || opt->private_key == NULL)
        return err_set(err, -EINVAL, "a certificate and its private key belong together; one is missing");
    if ((r = parse_certificate(&s->own, opt->certificate, err)) != 0 ||
        (r = parse_key(&s->key, opt->private_key, err)) != 0 || (r = check_pair(&s->own, &s->key, err)) != 0)
        return r;
    s->has_own = true;
    return 0;
}

/* ---- settings ---- */

int tls_parse_pin(const char *text, uint8_t out[TLS_PIN_BYTES])
{
    uint8_t pin[TLS_PIN_BYTES + 1];
    size_t len;

    if (strncmp(text, "sha256/", 7) == 0)
        text += 7;
    if (mbedtls_base64_decode(pin, sizeof(pin), &len, (const uint8_t *)text, strlen(text)) != 0 ||
        len != TLS_PIN_BYTES)
        return -EINVAL;
    memcpy(out, pin, TLS_PIN_BYTES);
    return 0;
}

static int take_lists(struct tls_settings *s, const struct tls_options *opt, struct err *err)
{
    if (opt->alpns > TLS_ALPN_MAX)
        return err_set(err, -EINVAL, "more than %d protocols in alpn", TLS_ALPN_MAX);
    for (size_t i = 0; i < opt->alpns; i++) {
        size_t len = strlen(opt->alpn[i]);

        if (len == 0 || len > 255)
            return err_set(err, -EINVAL, "a protocol in alpn has %zu bytes; 1 to 255 would work", len);
        s->alpn[i] = strdup(opt->alpn[i]);
        if (s->alpn[i] == NULL)
            return err_set(err, -ENOMEM, "no memory");
    }
    if (opt->pin_count == 0)
        return 0;
    s->pins = calloc(opt->pin_count, sizeof(*s->pins));
    if (s->pins == NULL)
        return err_set(err, -ENOMEM, "no memory");
    memcpy(s->pins, opt->pins, opt->pin_count * sizeof(*s->pins));
    s->pin_count = opt->pin_count;
    return 0;
}

static int check_options(const struct tls_options *opt, struct err *err)
{
    if (!opt->server && opt->ca == NULL)
        return err_set(err, -EINVAL, "a client of TLS needs authorities that it trusts");
    if (opt->min_version == TLS_1_3 && !tls_has_1_3())
        return err_set(err, -EINVAL, "this build has TLS 1.2 only: its mbedTLS is %s",
                       MBEDTLS_VERSION_STRING);
#if MBEDTLS_VERSION_MAJOR >= 3
    if (psa_crypto_init() != PSA_SUCCESS)
        return err_set(err, -ENOMEM, "mbedTLS cannot start its cryptography");
#endif
    return 0;
}

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
    struct hash_key key = { h, len };

    return hash_bytes(&key, data, len);
}

static uint64_t mark_of(const struct tls_options *opt)
{
    uint32_t plain[] = { opt->server, opt->skip_verify, opt->resume, opt->min_version };
    uint64_t h = mix(0, plain, sizeof(plain));

    for (const mbedtls_x509_crt *c = opt->ca ? &opt->ca->chain : NULL; c && c->raw.p; c = c->next)
        h = mix(h, c->raw.p, c->raw.len);
    for (size_t i = 0; i < opt->alpns; i++)
        h = mix(h, opt->alpn[i], strlen(opt->alpn[i]));
    if (opt->pin_count > 0)
        h = mix(h, opt->pins, opt->pin_count * sizeof(*opt->pins));
    if (opt->certificate)
        h = mix(h, opt->certificate, strlen(opt->certificate));
    return opt->private_key ? mix(h, opt->private_key, strlen(opt->private_key)) : h;
}

uint64_t tls_settings_mark(const struct tls_settings *s)
{
    return s->mark;
}

static int make_ticket_keys(struct tls_settings *s, struct err *err)
{
    if (!s->server || !s->resume ||
        mbedtls_ssl_ticket_setup(&s->tickets, raw_random, NULL, MBEDTLS_CIPHER_AES_256_GCM, TLS_SESSION_S) ==
            0)
        return 0;
    return err_set(err, -ENOMEM, "no keys for session tickets can be made");
}

int tls_settings_new(const struct tls_options *opt, struct tls_settings **out, struct err *err)
{
    struct tls_settings *s;
    int r = check_options(opt, err);

    if (r != 0)
        return r;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return err_set(err, -ENOMEM, "no memory");
    atomic_init(&s->refs, 1);
    pthread_mutex_init(&s->lock, NULL);
    mbedtls_x509_crt_init(&s->own);
    mbedtls_pk_init(&s->key);
    mbedtls_ssl_ticket_init(&s->tickets);
    s->mark = mark_of(opt);
    s->server = opt->server;
    s->skip_verify = opt->skip_verify;
    s->resume = opt->resume;
    s->min_version = opt->min_version;
    s->ca = opt->ca != NULL ? tls_ca_ref(opt->ca) : NULL;
    if ((r = take_own(s, opt, err)) != 0 || (r = take_lists(s, opt, err)) != 0 ||
        (r = make_ticket_keys(s, err)) != 0) {
        tls_settings_unref(s);
        return r;
    }
    *out = s;
    return 0;
}

struct tls_settings *tls_settings_ref(struct tls_settings *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void tls_settings_unref(struct tls_settings *s)
{
    if (s == NULL || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    mbedtls_pk_free(&s->key); /* wipes it */
    mbedtls_x509_crt_free(&s->own);
    mbedtls_ssl_ticket_free(&s->tickets);
    tls_ca_unref(s->ca);
    for (size_t i = 0; i < TLS_ALPN_MAX; i++)
        free((char *)(uintptr_t)s->alpn[i]);
    free(s->pins);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
