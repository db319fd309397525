/* tls_impl.h - the inside of src/tls.
 *
 * Who is who
 *     tls_ca        authorities that are trusted
 *     tls_settings  what the configuration says, parsed; shared by all workers
 *     tls_worker    one a worker: random numbers, the buffer that gathers small writes, the turn of the last costly step
 *     tls_context   one way to one server, seen by one worker: mbedTLS's configuration, the session to resume, the queue
 *     tls           one connection
 *
 * mbedTLS 2.28 and 3.6. The few fields of theirs that we look at have another name there (MBEDTLS_PRIVATE).
 *
 * Threads. Settings are shared, and mbedTLS caches inside keys: it locks them itself when it is built with
 * MBEDTLS_THREADING_C (as Debian does); otherwise a lock of the settings is held around every step of a handshake. */
#ifndef CULVERT_TLS_IMPL_H
#define CULVERT_TLS_IMPL_H

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>

#include "culvert/tls.h"

#ifndef MBEDTLS_PRIVATE
#define MBEDTLS_PRIVATE(member) member
#endif

enum {
    TLS_RECORD_MAX = 16384, /* plain bytes of one (RFC 5246 section 6.2.1) */
    TLS_FULL_MAX = 4,       /* full handshakes of a context at once (faults.md L13) */
    TLS_TURN_CALLS_MAX =
        16, /* handshakes of a worker that go on in one turn: about 0.2 ms each (faults.md L13) */
    TLS_IDLE_RECORDS_MAX = 16,    /* without data in between (faults.md L8) */
    TLS_OPENING_RECORDS_MAX = 64, /* in a handshake (faults.md L7) */
    TLS_SESSION_S =
        3600, /* a session is resumed for so long at most, so that a renewed certificate is seen */
};

struct tls_ca {
    atomic_uint refs;
    mbedtls_x509_crt chain;
};

struct tls_settings {
    atomic_uint refs;
    uint64_t mark; /* of all that it was made of */
    bool server, skip_verify, resume, has_own;
    enum tls_version min_version;
    struct tls_ca *ca; /* NULL: a server that asks for none */
    mbedtls_x509_crt own;
    mbedtls_pk_context key;
    const char *alpn[TLS_ALPN_MAX + 1]; /* ends with NULL, as mbedTLS wants it */
    uint8_t (*pins)[TLS_PIN_BYTES];
    size_t pin_count;
    /* server: one key for all workers, since a client's next connection may come to another of them */
    mbedtls_ssl_ticket_context tickets;
    pthread_mutex_t lock; /* used without MBEDTLS_THREADING_C only */
};

/* What mbedTLS holds for one session that is open: its record buffers, keys, and our part . mallinfo2() says 36,916 bytes for what
 * mbedtls_ssl_setup() of 2.28 takes; the rest is an allowance for keys, the session, and ours. An estimate, since Debian builds mbedTLS without
 * a way to count its calls. */
#define TLS_SESSION_BYTES 40000u

struct tls_worker {
    mbedtls_ctr_drbg_context random;
    uint64_t turn;        /* the latest one */
    uint32_t turn_calls;  /* of tls_handshake() in it */
    uint64_t costly_turn; /* in which the last costly step was taken; UINT64_MAX none */
    struct buffers wire;  /* of struct wire_buffer */
    uint32_t sessions;    /* open, of all its contexts */
    uint8_t gather[TLS_RECORD_MAX];
};
int tls_random(void *worker, unsigned char *out, size_t len); /* as mbedTLS wants it */

struct tls_context {
    struct tls_worker *worker;
    struct tls_settings *settings;
    char name[256];      /* "" for a server */
    struct ip_addr addr; /* of a name that is an address; else none */
    mbedtls_ssl_config conf;
    mbedtls_ssl_session session; /* to resume; valid when session_until_s > 0 */
    int64_t session_until_s;
    bool resume_refused; /* the server took a full handshake instead of the session last time */
    unsigned full_running;
    struct tls *queue, **queue_end;
    struct tls_context_counters count;
};
void context_drop_session(struct tls_context *c);

/* ---- what a certificate says (verify.c) ---------------------------------------------------------------------------- */

struct cert_report {
    bool seen;            /* a certificate came: the handshake is a full one */
    uint32_t flags;       /* MBEDTLS_X509_BADCERT_*, of the whole chain */
    bool pinned;          /* one of its keys is among the pins */
    bool self_signed;     /* the leaf, by itself */
    int expired_depth;    /* whose time is wrong: 0 the leaf */
    int64_t from_s, to_s; /* of that one */
    int64_t leaf_to_s;
    char names[96]; /* "other.test, 192.0.2.1" */
    char issuer[64];
};

/** verify_callback() - sees every certificate of a chain, root first; @tls: a struct tls */
int verify_callback(void *tls, mbedtls_x509_crt *crt, int depth, uint32_t *flags);
/** verify_sentence() - why it is not trusted
 * @name: what was asked for. @now_s: UNIX time, since a clock that is wrong makes every certificate wrong (faults.md L14)
 * Return: is it the clock that is wrong? */
bool verify_sentence(const struct cert_report *r, const char *name, int64_t now_s, char *out, size_t cap);
/** verify_address() - is @addr among the iPAddress names of the certificate? (RFC 5280 section 4.2.1.6) */
bool verify_address(const mbedtls_x509_crt *crt, const struct ip_addr *addr);

/* ---- records, as they come in (record.c) ----------------------------------------------------------------------------- */

/* Follows the headers of records beside mbedTLS, which neither counts them nor says what a stranger said. */
struct record_watch {
    uint8_t head[5], head_len;
    uint8_t alert[2]; /* a plain alert's level and description; 0: none */
    uint8_t first[4]; /* the first bytes of all */
    uint8_t first_len;
    uint32_t body_left;
    uint32_t count; /* records since the last reset */
};
void record_watch(struct record_watch *w, const uint8_t *data, size_t len);
/** record_stranger() - what answers instead of TLS, by its first bytes; NULL: it looks like TLS */
const char *record_stranger(const struct record_watch *w);

bool tls_is_no_memory(int e); /* does mbedTLS's code @e say that memory is missing? */

/* ---- between mbedTLS and the socket (wire.c) ------------------------------------------------------------------------- */

enum {
    /* four full records with heads and tags of any version, and more than the largest one */
    WIRE_BYTES = 17 * 4096 - 16,
    WIRE_BUFFERS_MAX = 32, /* of a worker: 2.1 MiB, touched on demand ... */
    WIRE_BUFFERS_KEPT = 4, /* ... and given back but for these */
};
struct wire_buffer {
    size_t off, len; /* what waits is data[off .. len) */
    uint8_t data[WIRE_BYTES];
};
int wire_recv(void *tls, unsigned char *to, size_t len); /* as mbedTLS wants them */
int wire_send(void *tls, const unsigned char *data, size_t len);
/** wire_flush() - send what was gathered, and gather no more. Return: 0; -EAGAIN some of it waits; -errno */
int wire_flush(struct tls *t);
void wire_drop(struct tls *t); /* give the buffers back, and what is in them is lost */

/* ---- a connection ------------------------------------------------------------------------------------------------------ */

enum tls_state { TLS_STATE_OPENING, TLS_STATE_OPEN, TLS_STATE_BROKEN };

struct tls {
    struct tls_context *context;
    const struct tls_io *io;
    void *arg;
    mbedtls_ssl_context ssl;
    struct record_watch watch;
    struct cert_report report;
    struct wire_buffer *in, *out; /* NULL: nothing waits there */
    struct tls *next_queued;
    uint8_t state; /* enum tls_state */
    bool queued, counted_full, offered_session;
    bool their_end;                 /* close_notify came */
    bool truncated, reset, flooded; /* the end without it; a broken socket; too many records */
    bool dry;                       /* the last read found the socket empty */
    bool emptied;                   /* the one before has, as this call of tls_recv() knows */
    bool gathering;                 /* records wait for each other */
    bool end_told;                  /* tls_recv() has returned their end, or that it broke */
    bool our_end, send_broken;
    bool config_fault;
    char why[160];
};
/** tls_fail() - the connection is broken; writes why (only the first time) */
void tls_fail(struct tls *t, int err);
void tls_new_session(struct tls *t); /* keep it for the next connection */

#endif
