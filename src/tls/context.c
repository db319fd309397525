/* context.c - settings at work: what one worker keeps for one server (or listener): mbedTLS's configuration, and a session.
 *
 * Choices. ECDHE with an AEAD only (RFC 9325 section 4.2), P-256 first: it is the fastest curve of mbedTLS by far, and every
 * server has it. ChaCha20-Poly1305 before AES: mbedTLS takes 3.0 s of CPU for a GB of it and 4.1 s for AES-128-GCM (2.28; 3.6: 2.5
 * and 3.1 s) even on an x86 that has instructions for AES, which it uses for one block at a time; without them AES is far slower
 * still. Other libraries do either so fast that their end hardly notices. TLS 1.2 at least (2.28 would offer 1.0). No
 * renegotiation. */
#include "tls_impl.h"

#include <stdlib.h>

/* mbedTLS asks for seed and reseed through this one: the kernel is our entropy. */
static int seed_source(void *arg, unsigned char *out, size_t len)
{
    (void)arg;
    return random_bytes(out, len) == 0 ? 0 : MBEDTLS_ERR_CTR_DRBG_ENTROPY_SOURCE_FAILED;
}

int tls_random(void *worker, unsigned char *out, size_t len)
{
    struct tls_worker *w = worker;

    return mbedtls_ctr_drbg_random(&w->random, out, len);
}

int tls_worker_new(struct tls_worker **out)
{
    struct tls_worker *w = calloc(1, sizeof(*w));
    int e;

    if (w == NULL)
        return -ENOMEM;
    w->costly_turn = UINT64_MAX;
    mbedtls_ctr_drbg_init(&w->random);
    e = buffers_init(&w->wire, sizeof(struct wire_buffer), WIRE_BUFFERS_MAX, WIRE_BUFFERS_KEPT);
    if (e == 0 && mbedtls_ctr_drbg_seed(&w->random, seed_source, NULL, NULL, 0) != 0)
        e = -EIO;
    if (e != 0) {
        tls_worker_free(w);
        return e;
    }
    *out = w;
    return 0;
}

void tls_worker_memory(const struct tls_worker *w, struct memory_use *add)
{
    if (w != NULL)
        add->bytes[MEMORY_TLS] +=
            sizeof(*w) + buffers_resident_bytes(&w->wire) + (uint64_t)w->sessions * TLS_SESSION_BYTES;
}

void tls_worker_free(struct tls_worker *w)
{
    if (w == NULL)
        return;
    mbedtls_ctr_drbg_free(&w->random);
    buffers_fini(&w->wire);
    explicit_bzero(w, sizeof(*w));
    free(w);
}

/* ---- mbedTLS's configuration ---- */

static const int suites[] = {
#if MBEDTLS_VERSION_MAJOR >= 3 && defined(MBEDTLS_SSL_PROTO_TLS1_3)
    MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
    MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
#endif
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    0,
};

static void set_versions(mbedtls_ssl_config *conf, enum tls_version min)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    mbedtls_ssl_conf_min_tls_version(conf, min == TLS_1_3 ? MBEDTLS_SSL_VERSION_TLS1_3
                                                          : MBEDTLS_SSL_VERSION_TLS1_2);
#else
    (void)min; /* there is one only: tls_settings_new() */
    mbedtls_ssl_conf_min_version(conf, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#endif
}

static void set_curves(mbedtls_ssl_config *conf)
{
#if MBEDTLS_VERSION_MAJOR >= 3
    static const uint16_t groups[] = { MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
                                       MBEDTLS_SSL_IANA_TLS_GROUP_X25519,
                                       MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, 0 };

    mbedtls_ssl_conf_groups(conf, groups);
#else
    static const mbedtls_ecp_group_id curves[] = { MBEDTLS_ECP_DP_SECP256R1, MBEDTLS_ECP_DP_CURVE25519,
                                                   MBEDTLS_ECP_DP_SECP384R1, MBEDTLS_ECP_DP_NONE };

    mbedtls_ssl_conf_curves(conf, curves);
#endif
}

static void set_tickets(struct tls_context *c)
{
    if (!c->settings->server) {
        mbedtls_ssl_conf_session_tickets(&c->conf, c->settings->resume
                                                       ? MBEDTLS_SSL_SESSION_TICKETS_ENABLED
                                                       : MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
#if defined(MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED) /* 3.6.1 on: silent unless asked for */
        mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(
            &c->conf, MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
#endif
    } else if (c->settings->resume) {
        mbedtls_ssl_conf_session_tickets_cb(&c->conf, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse,
                                            &c->settings->tickets);
    }
}

/* Return: 0 or mbedTLS's code, which can only mean that memory is missing. */
static int set_conf(struct tls_context *c)
{
    struct tls_settings *s = c->settings;
    mbedtls_ssl_config *conf = &c->conf;
    int e = mbedtls_ssl_config_defaults(conf, s->server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                        MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);

    if (e != 0)
        return e;
    set_versions(conf, s->min_version);
    set_curves(conf);
    mbedtls_ssl_conf_ciphersuites(conf, suites);
    mbedtls_ssl_conf_rng(conf, tls_random, c->worker);
#if defined(MBEDTLS_SSL_RENEGOTIATION)
    mbedtls_ssl_conf_renegotiation(conf, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#endif
    if (s->ca != NULL)
        mbedtls_ssl_conf_ca_chain(conf, &s->ca->chain, NULL);
    mbedtls_ssl_conf_authmode(conf, s->server && s->ca == NULL ? MBEDTLS_SSL_VERIFY_NONE
                                                               : MBEDTLS_SSL_VERIFY_REQUIRED);
    if (s->alpn[0] != NULL && (e = mbedtls_ssl_conf_alpn_protocols(conf, s->alpn)) != 0)
        return e;
    if (s->has_own && (e = mbedtls_ssl_conf_own_cert(conf, &s->own, &s->key)) != 0)
        return e;
    set_tickets(c);
    return 0;
}

/* ---- life ---- */

int tls_context_new(struct tls_worker *w, struct tls_settings *s, const char *name, struct tls_context **out)
{
    struct tls_context *c;

    /* The one place that makes a client: without a name mbedTLS would take any host's certificate (CVE-2025-27809). */
    if (!s->server && (name == NULL || name[0] == '\0' || strlen(name) >= sizeof(c->name)))
        return -EINVAL;
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return -ENOMEM;
    c->worker = w;
    c->settings = tls_settings_ref(s);
    c->queue_end = &c->queue;
    if (name != NULL && !s->server) {
        memcpy(c->name, name, strlen(name) + 1);
        if (ip_parse(name, &c->addr) != 0)
            c->addr = (struct ip_addr){ 0 };
    }
    mbedtls_ssl_config_init(&c->conf);
    mbedtls_ssl_session_init(&c->session);
    if (set_conf(c) != 0) {
        tls_context_free(c);
        return -ENOMEM;
    }
    *out = c;
    return 0;
}

void context_drop_session(struct tls_context *c)
{
    mbedtls_ssl_session_free(&c->session);
    mbedtls_ssl_session_init(&c->session);
    c->session_until_s = 0;
}

void tls_context_free(struct tls_context *c)
{
    if (c == NULL)
        return;
    context_drop_session(c);
    mbedtls_ssl_config_free(&c->conf);
    tls_settings_unref(c->settings);
    free(c);
}

const struct tls_context_counters *tls_context_counters(const struct tls_context *c)
{
    return &c->count;
}
