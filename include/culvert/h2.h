/* h2.h - HTTP/2 connections, client and server, and the capsules that MASQUE sends over them; the one door to nghttp2.
 * Knows     RFC 9113 (HTTP/2), 8441 (extended CONNECT), 9297 (capsules), the paths of 9298 and 9484; moves bytes between a
 *           connected descriptor, or a TLS session over it, and streams. Knows nothing of targets, logins or packets.
 * Threads   a connection and its streams belong to one loop.
 * Lifetime  descriptor and TLS session are borrowed until h2_close() returns. on_closed is the last call, for a connection as for
 *           a stream; close() is the end at once: no callback comes after it. Both may be called from inside any callback.
 * Memory    blocks of 8 KiB from reserved address space: at most `receive_bytes` and `send_bytes` for all streams together (and
 *           one block a stream); a stream's share is its window (64 KiB, or 128 KiB for datagrams) and 64 KiB to send.
 * Order     datagrams of urgent streams leave before bulk data: at most one frame of 16 KiB and what the socket has not sent
 *           (TCP_NOTSENT_LOWAT) are ahead of them. */
#ifndef CULVERT_H2_H
#define CULVERT_H2_H

#include <sys/uio.h>

#include "culvert/base.h"
#include "culvert/loop.h"
#include "culvert/tls.h"

#define H2_ALPN "h2" /* RFC 9113 section 3.2: over TLS the other side must have agreed to it */

/* ---- heads: requests and responses --------------------------------------------------------------------------------- */

struct h2_field {
    const char *name, *value; /* name in lower case */
};
enum {
    H2_FIELDS_MAX = 64,
    H2_HEAD_MAX = 16384
}; /* of one head: more is refused with 431, or breaks the stream */

struct h2_head {
    /* request; NULL: not there. All texts are borrowed: from the caller while sending, until the callback returns else. */
    const char *method, *scheme, *authority, *path, *protocol;
    unsigned status; /* response */
    const struct h2_field *fields;
    size_t field_count;
    bool end; /* no data follows in this direction */
};
/** h2_field() - the value of the first field of that name (lower case); NULL: none */
const char *h2_field(const struct h2_head *head, const char *name);

/* ---- connections ----------------------------------------------------------------------------------------------------- */

/* RFC 9113 section 7, those that we send or tell apart. */
enum h2_code {
    H2_NO_ERROR = 0,
    H2_PROTOCOL_ERROR = 1,
    H2_INTERNAL_ERROR = 2,
    H2_FLOW_CONTROL_ERROR = 3,
    H2_REFUSED_STREAM = 7, /* nothing was done: safe to try again on another connection */
    H2_CANCEL = 8,
    H2_CONNECT_ERROR = 10, /* the target reset, or the connection to it broke (section 8.5) */
    H2_ENHANCE_YOUR_CALM = 11,
};

struct h2;        /* one connection */
struct h2_stream; /* one request and its response, or the tunnel that they opened */

struct h2_events {
    void (*on_settings)(
        void *arg); /* their first SETTINGS came: h2_has_extended_connect() says the truth now; may be NULL */
    /* Server: a request. The handler takes the stream (h2_accept()) or leaves it: then it is refused. Answer with h2_respond(),
     * now or later. */
    void (*on_request)(void *arg, struct h2_stream *s, const struct h2_head *head);
    void (*on_drain)(void *arg); /* they sent GOAWAY: no new streams; those running go on; may be NULL */
    void (*on_pong)(void *arg, uint64_t rtt_us); /* an answer to h2_ping() or to a keep-alive; may be NULL */
    /* The end: @err 0 after a drain, else -errno (-ETIMEDOUT silent, -ECONNRESET gone, -EPROTO no HTTP/2, -EBUSY it floods us).
     * @why fits behind "NAME (ADDRESS) ". Streams were told before. The connection is gone: closing it in here does nothing. */
    void (*on_closed)(void *arg, int err, const char *why);
};

struct h2_options {
    struct loop *loop;
    struct wheel *wheel; /* advanced by the caller */
    bool server;
    /* connected, non-blocking, watched by nobody else; -1: `tls` goes through something else, which the caller watches */
    int fd;
    struct tls *tls; /* its handshake is done; NULL: plain (h2c with prior knowledge, RFC 9113 section 3.3) */
    /* TLS inside TLS (a chain): do the sessions below hold what has not left, and send it. NULL: there are none */
    bool (*unsent)(void *below);
    int (*flush)(void *below); /* 0, -EAGAIN, -ECONNRESET */
    void *below;
    /* with fd -1: LOOP_READ | LOOP_WRITE are wanted from now on; the caller says by h2_turn() that they are there */
    void (*want)(void *below, unsigned events);
    uint32_t max_streams;         /* at a time; 0: 256 */
    uint32_t receive_bytes;       /* that wait to be read, all streams together; 0: 4 MiB */
    uint32_t send_bytes;          /* that wait to be sent, all streams together; 0: 4 MiB */
    uint32_t keep_alive_ms;       /* PING after so much silence; 0: never */
    uint32_t keep_alive_reply_ms; /* and so long for its answer; 0: 15 s */
    const struct h2_events *events;
    void *arg;
};

/** h2_open() - start: our preface or SETTINGS leave in this call or soon. No callback before it returns.
 * Return: 0, -ENOMEM. */
int h2_open(const struct h2_options *opt, struct h2 **out);
void h2_close(
    struct h2 *h); /* NULL is fine; GOAWAY if it goes; all streams are gone with it, without a callback */
/** h2_turn() - for a connection without a descriptor: LOOP_READ | LOOP_WRITE have come. @h may be gone afterwards */
void h2_turn(struct h2 *h, unsigned events);
/** h2_drain() - no new streams from now on (GOAWAY); on_closed with 0 comes when the last one has ended */
void h2_drain(struct h2 *h);
bool h2_can_open(const struct h2 *h); /* client: not draining, and below both sides' number of streams */
bool h2_has_settings(const struct h2 *h);
bool h2_has_extended_connect(const struct h2 *h);           /* they take :protocol (RFC 8441 section 3) */
void h2_memory(const struct h2 *h, struct memory_use *add); /* of all its streams */
uint32_t h2_stream_count(const struct h2 *h);
/** h2_ping() - on_pong comes. At most one is under way: another call is that one. Return: 0 or -ECONNRESET */
int h2_ping(struct h2 *h);
const char *h2_why(const struct h2 *h);   /* it is ending: fits behind "NAME (ADDRESS) "; else "" */
uint64_t h2_heard_us(const struct h2 *h); /* when bytes last came */

struct h2_counters {
    counter streams, refused, resets_received, pings_received, datagrams_expired, datagrams_dropped,
        capsules_skipped;
};
const struct h2_counters *h2_counters(const struct h2 *h);

/* ---- streams ----------------------------------------------------------------------------------------------------------- */

struct h2_stream_events {
    void (*on_response)(
        void *arg, const struct h2_head *head); /* client; once, the final one; may be NULL on a server */
    void (*on_readable)(
        void *arg); /* data or its end is there; only while wanted, again each turn; see h2_want() */
    void (*on_writable)(void *arg); /* room to send; only while wanted, again each turn */
    /* Broke: RST_STREAM with @code, or the connection ended (@err as its on_closed; @code H2_NO_ERROR). Never for an orderly end.
     * @err for a reset: -EAGAIN refused, nothing was done (H2_REFUSED_STREAM); -EBUSY (H2_ENHANCE_YOUR_CALM); -ECONNRESET else.
     * The stream is gone: closing it in here does nothing. */
    void (*on_closed)(void *arg, int err, uint32_t code);
};

/** h2_request() - open a stream [client]. The CONNECT forms stay open for data; others end with the head.
 * Return: 0; -ESHUTDOWN draining or over; -EBUSY max_streams (ours, or what they said); -EOPNOTSUPP :protocol that they do not
 * take; -ENOMEM; then no callback at all. None runs before it returns. */
int h2_request(struct h2 *h, const struct h2_head *head, const struct h2_stream_events *events, void *arg,
               struct h2_stream **out);
/** h2_accept() - take a request's stream, inside on_request [server] */
void h2_accept(struct h2_stream *s, const struct h2_stream_events *events, void *arg);
void h2_hand_over(struct h2_stream *s, const struct h2_stream_events *events,
                  void *arg); /* another owner from now on */
/** h2_respond() - the final response [server]; head->end: without data. Return: 0, -EALREADY, -ENOMEM */
int h2_respond(struct h2_stream *s, const struct h2_head *head);

/** h2_recv() - up to @len bytes; their window opens again by what was taken
 * Return: bytes; 0 their end (END_STREAM); -EAGAIN. */
ssize_t h2_recv(struct h2_stream *s, void *to, size_t len);
/** h2_sendv() - as much as there is room for. Return: bytes taken; -EAGAIN; -EPIPE after h2_shutdown() or their early end */
ssize_t h2_sendv(struct h2_stream *s, const struct iovec *iov, int iovcnt);
void h2_want(struct h2_stream *s, unsigned events); /* LOOP_READ | LOOP_WRITE; LOOP_READ at first */
void h2_shutdown(struct h2_stream *s);              /* END_STREAM, after what was sent */
bool h2_unsent(const struct h2_stream *s);          /* bytes, or the end, have not left yet */
/** h2_stream_linger() - we are done, in order: what was sent before h2_shutdown() still leaves, and what they send is thrown away
 * until their end, or for 10 s; then RST_STREAM. As after a close no callback comes. NULL is fine */
void h2_stream_linger(struct h2_stream *s);
/** h2_stream_close() - we are done: RST_STREAM with @code if it is not over in both directions. NULL is fine */
void h2_stream_close(struct h2_stream *s, enum h2_code code);

/* ---- datagrams on a stream (RFC 9297) ---------------------------------------------------------------------------------- */

/* A stream for datagrams sends capsules from a bounded queue: what is older than its deadline is dropped, and when the queue is
 * full the oldest (only a capsule of which a part has left stays; then the new one is dropped). Late is worse than lost. */
struct h2_datagram_options {
    uint32_t frames, bytes; /* of the queue; bytes a power of two, at least 4 times the longest datagram */
    bool urgent;            /* before bulk data of this connection */
};
/** h2_datagrams() - from now on h2_sendv() is over; the window grows so that one whole datagram fits. Return: 0, -ENOMEM */
int h2_datagrams(struct h2_stream *s, const struct h2_datagram_options *opt);
/** h2_datagram_send() - one DATAGRAM capsule of @context (0: a UDP payload, or a whole IP packet)
 * @deadline_us: dropped when it has not left by then. Return: 0; -EMSGSIZE over 65,575 bytes (the largest IPv6 packet); -EPIPE */
int h2_datagram_send(struct h2_stream *s, uint64_t context, const struct iovec *iov, int iovcnt,
                     uint64_t deadline_us);
/** h2_cork() - what is sent until h2_uncork() leaves together, capsules side by side in a frame and a record: for a batch of
 * datagrams. Nothing but sending may be done meanwhile; no callback runs. */
void h2_cork(struct h2_stream *s);
void h2_uncork(struct h2_stream *s);
/** h2_capsule_send() - another capsule, behind the datagrams that wait; never dropped by age. Return: as above, -EAGAIN no room */
int h2_capsule_send(struct h2_stream *s, uint64_t type, const void *value, size_t len);

enum { H2_DATAGRAM_MAX = 65535 + 40 + 8 }; /* a context id and the largest IPv6 packet */

/* RFC 9297 section 5.4, RFC 9484 section 12.4 */
enum capsule_type {
    CAPSULE_DATAGRAM = 0,
    CAPSULE_ADDRESS_ASSIGN = 1,
    CAPSULE_ADDRESS_REQUEST = 2,
    CAPSULE_ROUTE_ADVERTISEMENT = 3,
};
struct capsule {
    uint64_t type;
    const uint8_t *value; /* in the reader's memory, until the next call */
    size_t len;
};
/** h2_capsule_recv() - the next capsule of a known type; others, and longer ones than @cap, are skipped and counted
 * @memory: the caller's, at least H2_DATAGRAM_MAX bytes for datagrams; may be shared by all streams of a thread
 * Return: 1; 0 their end; -EAGAIN; -EBADMSG their data ended inside a capsule. */
int h2_capsule_recv(struct h2_stream *s, void *memory, size_t cap, struct capsule *out);

/* ---- capsules, pure ------------------------------------------------------------------------------------------------------ */

#define VARINT_MAX UINT64_C(0x3fffffffffffffff) /* RFC 9000 section 16 */
enum { VARINT_BYTES_MAX = 8, CAPSULE_HEAD_MAX = 16 };
size_t varint_put(uint8_t *to, uint64_t v); /* v <= VARINT_MAX. Return: bytes, 1, 2, 4 or 8 */
/** varint_get() - from the front of @in. Return: 0; -EAGAIN it is cut short (nothing skipped) */
int varint_get(struct span *in, uint64_t *out);
/** capsule_head_get() - type and length. Return: 0; -EAGAIN cut short (nothing skipped) */
int capsule_head_get(struct span *in, uint64_t *type, uint64_t *len);
size_t capsule_head_put(uint8_t *to, uint64_t type, uint64_t len); /* Return: bytes, <= CAPSULE_HEAD_MAX */

/* RFC 9484 section 4.7.1 and 4.7.2 */
struct capsule_address {
    uint64_t request_id;
    struct ip_prefix prefix; /* counted in the 16-byte form, host bits kept */
};
/* Section 4.7.3; ranges of addresses, from..to, of one family */
struct capsule_route {
    struct ip_addr from, to;
    uint8_t proto; /* 0: any */
};
/** capsule_address_get() - one entry of ADDRESS_ASSIGN or ADDRESS_REQUEST from the front of @in
 * Return: 0; -ENODATA at the end; -EBADMSG: no such version, a length out of range, or cut short. */
int capsule_address_get(struct span *in, struct capsule_address *out);
int capsule_route_get(
    struct span *in,
    struct capsule_route *out); /* the same for ROUTE_ADVERTISEMENT; order is checked by the caller */
void capsule_address_put(struct buf *b, const struct capsule_address *a); /* at most 26 bytes */
void capsule_route_put(struct buf *b, const struct capsule_route *r);     /* at most 34 bytes */

/* ---- the paths of MASQUE, pure ---------------------------------------------------------------------------------------------- */

enum { MASQUE_PATH_MAX = 1024 };
/** masque_udp_path_put() - "/.well-known/masque/udp/HOST/PORT/" (RFC 9298 section 3); a colon of IPv6 is %3A
 * Return: 0; -EINVAL no port, or a name that does not fit. */
int masque_udp_path_put(const struct host_port *target, char out[MASQUE_PATH_MAX]);
/** masque_udp_path_get() - the same backwards. @name: holds the host if it is a name (256 bytes). Return: 0; -EINVAL */
int masque_udp_path_get(const char *path, char name[256], struct host_port *out);
/** masque_ip_path_put() - "/.well-known/masque/ip/TARGET/PROTO/" (RFC 9484 section 3), target "*" */
void masque_ip_path_put(uint8_t proto, char out[MASQUE_PATH_MAX]);
/** masque_ip_path_get() - @target: the text, decoded, "*" for any (256 bytes); @proto: -1 for "*". Return: 0; -EINVAL */
int masque_ip_path_get(const char *path, char target[256], int *proto);

#endif
