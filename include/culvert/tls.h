/* tls.h - TLS sessions, client and server, without a socket of their own; the one door to mbedTLS.
 * Knows     TLS 1.2 (and 1.3 where mbedTLS has it), certificates, names; moves bytes through the two functions of tls_io.
 * Threads   tls_ca and tls_settings are immutable and counted [any]; all the rest belongs to one worker.
 * Memory    a session costs about 40 KiB while it lives (mbedTLS keeps a record buffer for each direction); those of a worker share
 *           2.1 MiB for what waits to leave or was read ahead.
 * Errors    what went wrong is a sentence that fits behind "NAME (ADDRESS) ": see tls_why(). No secrets in it. */
#ifndef CULVERT_TLS_H
#define CULVERT_TLS_H

#include <sys/uio.h>

#include "culvert/base.h"

/* ---- who is trusted, and who we are ----------------------------------------------------------------------------- */

#define TLS_SYSTEM_CA_FILE "/etc/ssl/certs/ca-certificates.crt"

struct tls_ca; /* authorities; immutable, counted, shared by settings */
/** tls_ca_parse() - every certificate of PEM text, or one in DER
 * Return: 0; -EINVAL with what is wrong in @err, fit to follow the name of a file; -ENOMEM. */
int tls_ca_parse(const void *text, size_t len, struct tls_ca **out, struct err *err);
struct tls_ca *tls_ca_ref(struct tls_ca *ca); /* [any] */
void tls_ca_unref(struct tls_ca *ca);         /* [any] NULL is fine */

enum tls_version { TLS_1_2, TLS_1_3 };
enum { TLS_PIN_BYTES = 32, TLS_ALPN_MAX = 8 };
bool tls_has_1_3(void); /* does this build speak TLS 1.3? */

struct tls_options { /* copied by tls_settings_new() */
    bool server;
    struct tls_ca *ca; /* client: must be there; server: authorities of clients, NULL: none is asked for */
    bool skip_verify;  /* client: neither chain nor name is checked; pins still are */
    bool resume;       /* keep sessions */
    enum tls_version min_version;
    const char *const *alpn; /* in order of preference, 1..255 bytes each */
    size_t alpns;            /* at most TLS_ALPN_MAX */
    const uint8_t (*pins)
        [TLS_PIN_BYTES]; /* SHA-256 of public keys (RFC 7469 section 2.4): one of the chain must be there */
    size_t pin_count;
    const char *certificate, *private_key; /* PEM or NULL; both or none. A server has both. */
};

struct tls_settings; /* immutable, counted, shared by all workers */
/** tls_settings_new()
 * Return: 0; -EINVAL and a sentence: "the private key does not belong to the certificate"; -ENOMEM. */
int tls_settings_new(const struct tls_options *opt, struct tls_settings **out, struct err *err);
struct tls_settings *tls_settings_ref(struct tls_settings *s); /* [any] */
/** tls_settings_mark() - the same for settings that say the same, authorities, certificate and key included; it stays in the process */
uint64_t tls_settings_mark(const struct tls_settings *s);
void tls_settings_unref(struct tls_settings *s); /* [any] NULL is fine; forgets the key at 0 */
/** tls_check_certificate(), tls_check_key() - can this PEM be read? Each says what is wrong, for one key of a file at a time */
int tls_check_certificate(const char *pem, struct err *err);
int tls_check_key(const char *pem, struct err *err);
/** tls_parse_pin() - base64 of a SHA-256, with or without "sha256/" in front. Return: 0 or -EINVAL */
int tls_parse_pin(const char *text, uint8_t out[TLS_PIN_BYTES]);

/* ---- a worker's view ----------------------------------------------------------------------------------------------- */

struct tls_worker; /* random numbers, a buffer, and the turn in which a costly step was last taken */
int tls_worker_new(struct tls_worker **out); /* 0, -ENOMEM, or -errno of the random source */
void tls_worker_memory(const struct tls_worker *w,
                       struct memory_use *add); /* its sessions, too; NULL is fine */
void tls_worker_free(struct tls_worker *w);     /* NULL is fine; all contexts freed before */

/* One way to one server (or one server's listener), as one worker uses it: its session tickets, its queue. */
struct tls_context;
/** tls_context_new() - settings at work
 * @name: client: what the certificate must be issued for, and the name that is sent (SNI). A text that reads as an address is
 *        compared with the addresses of the certificate, and no name is sent (RFC 6066 section 3). NULL for a server.
 * Return: 0; -EINVAL a client without a name: it would verify nothing (faults.md L3); -ENOMEM. */
int tls_context_new(struct tls_worker *w, struct tls_settings *s, const char *name, struct tls_context **out);
void tls_context_free(struct tls_context *c); /* NULL is fine; all sessions freed before */

struct tls_context_counters {
    uint64_t full, resumed, failed, queued;
};
const struct tls_context_counters *tls_context_counters(const struct tls_context *c);

/* ---- sessions ------------------------------------------------------------------------------------------------------- */

struct tls_io {
    /* Return: bytes; 0 the other side's end; -EAGAIN; -errno */
    ssize_t (*recv)(void *arg, void *to, size_t len);
    ssize_t (*send)(void *arg, const void *data, size_t len);
    void (*wake)(void *arg); /* after TLS_QUEUED: call tls_handshake() again, but not from in here */
};

struct tls;
int tls_open(struct tls_context *c, const struct tls_io *io, void *arg, struct tls **out); /* 0, -ENOMEM */
void tls_free(struct tls *t); /* NULL is fine. Says nothing to the other side: see tls_shutdown() */

enum tls_step {
    TLS_DONE,
    TLS_WANT_READ,
    TLS_WANT_WRITE,
    TLS_LATER, /* this turn has had its costly step, or its 16 handshakes: call again in the next one (faults.md L13) */
    TLS_QUEUED, /* four full handshakes of this context are under way: wake() comes */
    TLS_BROKEN,
};
/** tls_handshake() - as far as it goes now
 * @turn: any number that differs from one turn of the loop to the next; at most one costly step is taken a turn and worker. */
enum tls_step tls_handshake(struct tls *t, uint64_t turn);

/** tls_recv() - plain bytes, as many as there are
 * Return: > 0; 0 they closed their direction (close_notify); -EAGAIN; -ECONNRESET broken, see tls_why() and tls_truncated().
 * A short read means that nothing more is there now. */
ssize_t tls_recv(struct tls *t, void *to, size_t len);
/** tls_sendv() - take plain bytes, about 128 KiB at most; small pieces share records, records share system calls
 * Return: bytes taken, of which some may still wait (tls_unsent()); -EAGAIN; -ECONNRESET. */
ssize_t tls_sendv(struct tls *t, const struct iovec *iov, int iovcnt);
/** tls_hold() - what tls_sendv() takes from now on waits until there are 64 KiB of it, or for tls_flush(): they leave together */
void tls_hold(struct tls *t);
/** tls_flush() - send what waits. Return: 0, -EAGAIN, -ECONNRESET */
int tls_flush(struct tls *t);
bool tls_unsent(const struct tls *t); /* ciphertext waits for the socket */
/* Bytes, their end or an error are here that no descriptor will announce: tls_recv() has something to say. */
bool tls_unread(const struct tls *t);
/** tls_shutdown() - close_notify; afterwards nothing can be sent. Return: 0; -EAGAIN: what waits must leave first */
int tls_shutdown(struct tls *t);
bool tls_truncated(const struct tls *t); /* their end came without close_notify (faults.md L11) */
bool tls_resumed(const struct tls *t);
const char *tls_alpn(const struct tls *t);         /* what was agreed; NULL: nothing */
const char *tls_version_name(const struct tls *t); /* "TLSv1.2" */
/** tls_why() - after TLS_BROKEN or an error: "shows a certificate that expired on 2024-03-01" */
const char *tls_why(const struct tls *t);
bool tls_config_fault(const struct tls *t); /* ours to correct: certificate or login, not a broken server */

/* ---- single ciphers, for readers of QUIC's Initial packets (RFC 9001 section 5) [any] ------------------------------------ */

enum { TLS_HKDF_BYTES = 32, TLS_GCM_TAG_BYTES = 16 };
/* HKDF with SHA-256 (RFC 5869). Return: 0, -EINVAL. */
int tls_hkdf_extract(const void *salt, size_t salt_len, const void *secret, size_t len,
                     uint8_t out[TLS_HKDF_BYTES]);
int tls_hkdf_expand(const uint8_t secret[TLS_HKDF_BYTES], const void *info, size_t info_len, void *out,
                    size_t len);
int tls_aes128_block(const uint8_t key[16], const uint8_t in[16], uint8_t out[16]); /* one block, encrypted */
/** tls_aes128_gcm_open() - @sealed is ciphertext and tag; @out gets sealed.len - TLS_GCM_TAG_BYTES bytes
 * Return: 0; -EBADMSG: the tag is not of this key; -ENOMEM (mbedTLS 2.28 takes memory for the key). */
int tls_aes128_gcm_open(const uint8_t key[16], const uint8_t nonce[12], struct span header,
                        struct span sealed, uint8_t *out);

enum { TLS_WEBSOCKET_ACCEPT_BYTES = 29 };
/** tls_websocket_accept() - what answers a Sec-WebSocket-Key (RFC 6455 section 4.2.2), NUL included; proves nothing, so SHA-1
 * @key: at most 64 bytes. Return: 0, -EINVAL. [any] */
int tls_websocket_accept(const char *key, char out[TLS_WEBSOCKET_ACCEPT_BYTES]);

#endif
