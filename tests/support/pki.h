/* pki.h - certificates of a test's own authority, made in memory by mbedTLS: good ones and every bad kind. */
#ifndef CULVERT_TEST_PKI_H
#define CULVERT_TEST_PKI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PKI_PEM_MAX = 4096 };

struct pki_id { /* a certificate and its key */
    char certificate[PKI_PEM_MAX], key[PKI_PEM_MAX];
    uint8_t pin[32]; /* SHA-256 of its public key */
};

struct pki_wish {
    const char *cn;
    const char *dns[3];       /* subjectAltName */
    const char *addresses[2]; /* as text */
    const char *from, *to;    /* "20240101000000"; NULL: 2020 to 2040 */
    unsigned rsa_bits;        /* 0: P-256 */
    bool sha1, md5;           /* instead of SHA-256; MD5 only with RSA */
    bool client_only;         /* extended key usage */
    bool authority;
    const struct pki_id *issuer; /* NULL: self-signed */
    const char *issuer_cn;
};
void pki_make(const struct pki_wish *wish, struct pki_id *out); /* asserts that it works */

/* "test CA", and "localhost" with 127.0.0.1, ::1 and proxy.test, by it; made once. */
const struct pki_id *pki_authority(void);
const struct pki_id *pki_server(void);

#endif
