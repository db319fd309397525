/* lab.h - a virtual-time laboratory for TCP: one stack, a clock that we move, a client whose segments we
 * write by hand, and everything that the stack emitted or called back.
 *
 * Sequence numbers in scripts are relative: the client's to LAB.irs (its SYN has 0), the stack's to its ISS
 * (its SYN-ACK has 0). */
#ifndef CULVERT_TEST_LAB_H
#define CULVERT_TEST_LAB_H

#include "culvert/stack.h"

#define LAB_SEGMENTS 8192

enum {
    LAB_FIN = 1,
    LAB_SYN = 2,
    LAB_RST = 4,
    LAB_PSH = 8,
    LAB_ACK = 16,
    LAB_URG = 32,
    LAB_ECE = 64,
    LAB_CWR = 128
};

/* One segment that the stack emitted; an ICMP packet has flags 0 and its type and code. */
struct lab_out {
    uint64_t at_us;
    uint8_t flags;
    uint32_t seq, ack; /* relative; raw when the connection is not ours */
    uint32_t raw_seq, raw_ack;
    uint32_t wnd; /* scaled, except in a SYN */
    uint32_t len, gso_size;
    uint32_t packet_bytes; /* with all headers */
    uint16_t port;         /* the client's */
    uint32_t client;       /* the last four bytes of its address */
    uint16_t mss;
    int ws; /* -1: not offered */
    bool sack_ok, ts, df;
    uint8_t tos, ttl, icmp_type, icmp_code;
    uint32_t flow_label; /* IPv6 */
    uint32_t tsval, tsecr;
    uint8_t options[40]; /* as they are on the wire */
    size_t options_len;
    int sacks;
    struct {
        uint32_t start, end; /* relative to the client's numbers */
    } sack[4];
    const uint8_t *data;   /* until lab_clear() */
    const uint8_t *packet; /* all of it; for the hook only */
};

struct lab_seg { /* what the client sends; zero is a bare segment without options */
    uint8_t flags;
    uint32_t seq, ack; /* relative */
    uint32_t wnd;      /* of the header, as is; 0 means 65,535 unless zero_wnd */
    bool zero_wnd;
    const void *data; /* NULL with len > 0: the pattern */
    uint32_t len;
    uint16_t gso_size;
    uint16_t mss, port; /* mss 0: none, except in a SYN, which has 1,460; port 0: the usual one */
    int ws;             /* 0: none in a SYN unless lab options say so */
    bool no_ts, old_ts; /* leave out the timestamp that was negotiated; send one from before */
    uint32_t tsval;     /* 0: the lab's clock */
    int sacks;
    struct {
        uint32_t start, end; /* relative to the stack's numbers */
    } sack[4];
    const uint8_t *options; /* instead of all of the above */
    size_t options_len;
    uint8_t tos;
    uint32_t flip_bit; /* > 0: this bit of the packet turns over on the way (modulo its length) */
    bool bad_checksum, drop_offset; /* drop_offset: data offset of 4 words */
    bool long_offset;               /* of 15 words, whatever the length */
    bool ae;                        /* the flag of RFC 9768 above CWR */
    uint16_t urgent;                /* pointer */
};

struct lab_options {
    struct stack_config config; /* from lab_options_default() */
    bool v6, ts, sack;
    int ws;             /* client's shift; -1: not offered */
    uint32_t irs;       /* client's first sequence number */
    bool hold;          /* do not accept by itself */
    bool stall;         /* do not read by itself */
    bool random_iss;    /* leave the ISS as it comes */
    const char *client; /* its address; NULL: 10.0.0.2 or fd00::2 */
    /* Instead of the laboratory's own embedder; its `emit` and `driver` do not count. Many connections need one. */
    const struct stack_events *embedder;
    void *embedder_arg;
};

struct lab {
    struct lab_options opt;
    struct stack *stack;
    void *memory;
    size_t memory_len;
    uint64_t now_us;
    uint32_t iss;        /* of the stack, learnt from its SYN-ACK */
    int snd_shift;       /* of windows that the stack sends, after the handshake */
    uint32_t last_tsval; /* of the stack: echoed */
    uint32_t ts_base;
    struct lab_out *out;
    size_t outs;
    uint8_t *bytes; /* payload of out */
    size_t bytes_used;
    bool keep_payload;
    void (*hook)(struct lab *lab, const struct lab_out *o); /* instead of keeping it in `out` */
    void *hook_arg;

    /* the embedder's side */
    struct tcp_request *request;
    struct tcp_conn *conn;
    unsigned requests, gones, opens, readables, writables, closes;
    int gone_err, close_err;
    uint64_t got;   /* bytes read */
    bool got_wrong; /* a byte was not the pattern's */
    bool eof;
    bool shutdown_at_eof;
    uint64_t put, to_put; /* bytes written, and still to be written when there is room */
    bool shutdown_when_put;
    void (*on_readable)(struct lab *lab);
    int emit_error;
};

void lab_options_default(struct lab_options *o);
struct lab *lab_new(const struct lab_options *o);
struct lab *lab_connected(const struct lab_options *o); /* lab_new() and lab_connect() */
struct lab *lab_stalled(void);                          /* connected, and its reader takes nothing */
void lab_free(struct lab *lab); /* also fails the process when an object is left over */

/* Send one segment; lab_send() ends the batch, lab_feed() does not. */
void lab_send(struct lab *lab, const struct lab_seg *s);
void lab_feed(struct lab *lab, const struct lab_seg *s);
void lab_batch(struct lab *lab);
void lab_connect(struct lab *lab);                                        /* SYN, SYN-ACK, ACK; then clears */
void lab_data(struct lab *lab, uint32_t seq, uint32_t ack, uint32_t len); /* pattern bytes, ACK flag */
void lab_ack(struct lab *lab, uint32_t seq, uint32_t ack);
void lab_run_us(struct lab *lab, uint64_t us); /* let time pass, timer by timer */
void lab_run_until_ms(struct lab *lab, uint64_t ms);
void lab_write(struct lab *lab,
               uint64_t bytes);              /* the embedder queues this much of the pattern, as room comes */
void lab_read(struct lab *lab, size_t most); /* when stalled */

void lab_clear(struct lab *lab);
/* Segments emitted since lab_clear() with exactly these flags: "SYN,ACK". PSH is not looked at. */
unsigned lab_count(const struct lab *lab, const char *flags);
const struct lab_out *lab_last(const struct lab *lab); /* NULL: nothing */
uint8_t lab_pattern(uint64_t at);
uint32_t lab_in_use(const struct lab *lab, const char *pool);
struct tcp_info lab_info(const struct lab *lab);
const char *lab_flags_text(uint8_t flags, char out[40]);

#endif
