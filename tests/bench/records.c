/* records.c - what TLS records cost by themselves: mbedTLS in memory, no socket, the cipher that the gateway agrees on.
 *
 *   records CERTIFICATE_AND_KEY.pem    two numbers: seconds of CPU to write a GB, and to read one, in records of 16 KiB */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#if MBEDTLS_VERSION_MAJOR >= 3
#include <psa/crypto.h>
#endif

enum { RECORD = 16384, BATCH = 64, ROUNDS = 96 };

struct pipe { /* one direction; emptied before it is filled again */
    uint8_t data[BATCH * (RECORD + 512)];
    size_t len, off;
};

struct side {
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config conf;
    struct pipe *in, *out;
};

static struct pipe up, down;

static int dice(void *arg, unsigned char *out, size_t len)
{
    (void)arg;
    return getrandom(out, len, 0) == (ssize_t)len ? 0 : -1;
}

static int put(void *arg, const unsigned char *data, size_t len)
{
    struct pipe *p = ((struct side *)arg)->out;

    if (p->off == p->len)
        p->off = p->len = 0;
    if (len > sizeof(p->data) - p->len)
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    memcpy(p->data + p->len, data, len);
    p->len += len;
    return (int)len;
}

static int get(void *arg, unsigned char *to, size_t len)
{
    struct pipe *p = ((struct side *)arg)->in;
    size_t n = p->len - p->off < len ? p->len - p->off : len;

    if (n == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    memcpy(to, p->data + p->off, n);
    p->off += n;
    return (int)n;
}

static void must(int e, const char *what)
{
    if (e == 0)
        return;
    fprintf(stderr, "records: %s: mbedTLS error -0x%04x\n", what, (unsigned)-e);
    exit(1);
}

static void setup(struct side *s, int endpoint, struct pipe *in, struct pipe *out)
{
    static const int suites[] = {
#if MBEDTLS_VERSION_MAJOR >= 3 && defined(MBEDTLS_SSL_PROTO_TLS1_3)
        MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
#endif
        MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        0
    };

    mbedtls_ssl_init(&s->ssl);
    mbedtls_ssl_config_init(&s->conf);
    must(mbedtls_ssl_config_defaults(&s->conf, endpoint, MBEDTLS_SSL_TRANSPORT_STREAM,
                                     MBEDTLS_SSL_PRESET_DEFAULT),
         "defaults");
    mbedtls_ssl_conf_rng(&s->conf, dice, NULL);
    mbedtls_ssl_conf_ciphersuites(&s->conf, suites);
    mbedtls_ssl_conf_authmode(&s->conf, MBEDTLS_SSL_VERIFY_NONE);
    s->in = in;
    s->out = out;
    mbedtls_ssl_set_bio(&s->ssl, s, put, get, NULL);
}

static double cpu_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Seconds to write and to read ROUNDS batches, each added to its sum. */
static void run(struct side *from, struct side *to, double *write_s, double *read_s)
{
    static uint8_t data[RECORD];

    for (int round = 0; round < ROUNDS; round++) {
        double start = cpu_s(), middle;

        for (size_t left = (size_t)BATCH * RECORD;
             left > 0;) { /* 3.6 takes a little less than 16 KiB at once */
            int n = mbedtls_ssl_write(&from->ssl, data, left < RECORD ? left : RECORD);

            if (n <= 0)
                must(n, "write");
            left -= n > 0 ? (size_t)n : 0;
        }
        middle = cpu_s();
        for (size_t left = (size_t)BATCH * RECORD; left > 0;) {
            int n = mbedtls_ssl_read(&to->ssl, data, left < RECORD ? left : RECORD);

            if (n <= 0 && n != MBEDTLS_ERR_SSL_WANT_READ) /* a ticket of 1.3 is "again" */
                must(n, "read");
            left -= n > 0 ? (size_t)n : 0;
        }
        *write_s += middle - start;
        *read_s += cpu_s() - middle;
    }
}

int main(int argc, char **argv)
{
    static struct side client, server;
    double write_s = 0, read_s = 0, gb = (double)ROUNDS * BATCH * RECORD / 1e9;
    mbedtls_x509_crt crt;
    mbedtls_pk_context key;
    int c = 1, s = 1;

    if (argc != 2)
        return 2;
#if MBEDTLS_VERSION_MAJOR >= 3
    must(psa_crypto_init(), "psa");
#endif
    mbedtls_x509_crt_init(&crt);
    mbedtls_pk_init(&key);
    must(mbedtls_x509_crt_parse_file(&crt, argv[1]), argv[1]);
#if MBEDTLS_VERSION_MAJOR >= 3
    must(mbedtls_pk_parse_keyfile(&key, argv[1], NULL, dice, NULL), argv[1]);
#else
    must(mbedtls_pk_parse_keyfile(&key, argv[1], NULL), argv[1]);
#endif
    setup(&client, MBEDTLS_SSL_IS_CLIENT, &down, &up);
    setup(&server, MBEDTLS_SSL_IS_SERVER, &up, &down);
    must(mbedtls_ssl_conf_own_cert(&server.conf, &crt, &key), "own certificate");
    must(mbedtls_ssl_setup(&client.ssl, &client.conf), "setup");
    must(mbedtls_ssl_setup(&server.ssl, &server.conf), "setup");
    must(mbedtls_ssl_set_hostname(&client.ssl, "proxy.test"), "name");
    for (int i = 0; i < 50 && (c != 0 || s != 0); i++) {
        c = c != 0 ? mbedtls_ssl_handshake(&client.ssl) : 0;
        s = s != 0 ? mbedtls_ssl_handshake(&server.ssl) : 0;
    }
    must(c, "client");
    must(s, "server");
    run(&client, &server, &write_s, &read_s);
    printf("%.4f %.4f\n", write_s / gb, read_s / gb);
    return 0;
}
