/* mq_server.h - a MASQUE server in the test's own loop, which does what a test wants: echoes, refuses, is silent, goes away. */
#ifndef CULVERT_TEST_MQ_SERVER_H
#define CULVERT_TEST_MQ_SERVER_H

#include "culvert/h2.h"
#include "up_rig.h"

enum { MQ_CONNS = 8, MQ_STREAMS = 256 };

struct mq_server;
struct mq_conn {
    struct loop_io io; /* until the handshake is done */
    struct mq_server *server;
    struct wheel_timer later;
    struct tls *tls;
    struct h2 *h2;
    int fd;
    bool active;
};
struct mq_stream {
    struct mq_conn *conn;
    struct h2_stream *s; /* NULL: free */
    struct mq_relay *relay;
    bool capsules;
    uint8_t proto; /* of CONNECT-IP */
    char authority[300], path[300];
    size_t got;
};
struct mq_server {
    /* what it does: set before or between requests */
    const char *alpn;                           /* NULL: none */
    const char *raw;                            /* after TLS these bytes instead of HTTP/2; "": silence */
    unsigned tcp_status, udp_status, ip_status; /* 0: no answer; 200 */
    const char *proxy_status;                   /* a header field of refusals; NULL */
    enum h2_code reset;                         /* instead of an answer; H2_NO_ERROR: do not */
    bool hold;                                  /* never reads: windows stay shut */
    bool mute_echo;                             /* takes pings and says nothing */
    bool no_address;                            /* never assigns one */
    uint32_t max_streams;                       /* of a connection; 0: as h2.h says */
    uint16_t relay;                             /* CONNECT leads to this port here; 0: to the echo */
    /* what it saw */
    unsigned accepted, requests, pings, resets; /* resets: RST_STREAM of streams */
    char login[64], last_path[300], last_protocol[32], last_authority[300];
    uint8_t last_ping[128]; /* the IP packet's beginning */
    size_t last_ping_len;
    /* a packet to answer pings with instead; len 0: the echo reply */
    uint8_t answer[256];
    size_t answer_len;

    struct up_rig *rig;
    struct loop_io listener;
    uint16_t port;
    struct tls_worker *worker;
    struct tls_context *context;
    struct mq_conn conns[MQ_CONNS];
    struct mq_stream streams[MQ_STREAMS];
};
void mq_open(struct mq_server *q, struct up_rig *rig, const char *alpn); /* asserts; echoes by default */
void mq_close(struct mq_server *q);
void mq_drain(struct mq_server *q); /* GOAWAY on every connection */
/* The same with a number of its own: later streams will not be looked at (RFC 9113 section 6.8). */
void mq_go_away(struct mq_server *q, uint32_t last_id);
void mq_cut(struct mq_server *q); /* RST on every connection */
struct upstream *mq_upstream(
    const struct mq_server *q, const char *username, const char *password,
    const char *token); /* "exit" at 127.0.0.1; trusts the test's authority, offers h2 */

/* A server and a way out to it, in one loop. */
struct mq_lab {
    struct up_rig rig;
    struct mq_server server;
    struct upstream *up;
};
void mq_lab_init(struct mq_lab *l, const char *alpn);
void mq_lab_fini(struct mq_lab *l);
void mq_start(struct mq_lab *l, struct stream_log *log, const char *host, uint16_t port, unsigned timeout_ms);

#endif
