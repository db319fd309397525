/* replay.c - see replay.h. */
#include "replay.h"

#include <stdlib.h>
#include <string.h>

#define PCAP_HEADER   24
#define PCAP_RECORD   16
#define LINK_ETHERNET 1
#define LINK_RAW      101
#define ETHERNET      14
#define TRACE_MAX     (1u << 20)

struct trace {
    uint8_t *data;
    size_t len, at;
    uint32_t link;
};

struct frame {
    uint64_t at_us;
    uint8_t *ip, *tcp;
    size_t len, header; /* of the IP packet; of the TCP header */
    uint32_t payload;
};

struct replay {
    const struct replay_options *o;
    struct replay_result r;
    struct lab *lab;
    struct trace trace;
    uint64_t first_us, began_us;
    uint8_t client[16]; /* address and port: whose packets go in */
    uint16_t client_port;
    uint32_t irs, server_iss, server_ts, our_ts;
    bool v6, server_known;
    size_t logged;
};

/* ---- the file ---------------------------------------------------------------------------------------- */

static uint32_t get_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static const char *trace_open(struct trace *t, const char *path)
{
    FILE *f = fopen(path, "rb");

    if (f == NULL)
        return "there is no such file";
    t->data = malloc(TRACE_MAX);
    t->len = fread(t->data, 1, TRACE_MAX, f);
    fclose(f);
    if (t->len < PCAP_HEADER || t->len == TRACE_MAX || get_le32(t->data) != 0xa1b2c3d4)
        return "it is no pcap file of at most 1 MiB, little-endian, with microseconds";
    t->link = get_le32(t->data + 20);
    t->at = PCAP_HEADER;
    return t->link == LINK_ETHERNET || t->link == LINK_RAW ? NULL
                                                           : "its link layer is neither Ethernet nor raw IP";
}

/* The next TCP packet that is whole. Return: false at the end. */
static bool trace_next(struct trace *t, struct frame *f)
{
    while (t->at + PCAP_RECORD <= t->len) {
        const uint8_t *h = t->data + t->at;
        uint32_t len = get_le32(h + 8), skip = t->link == LINK_ETHERNET ? ETHERNET : 0, ip_header;

        if (len > t->len - t->at - PCAP_RECORD)
            return false;
        t->at += PCAP_RECORD + len;
        f->at_us = (uint64_t)get_le32(h) * 1000000 + get_le32(h + 4);
        f->ip = (uint8_t *)h + PCAP_RECORD + skip;
        f->len = len - skip;
        if (len < skip + 40 || get_le32(h + 12) != len)
            continue;
        ip_header = f->ip[0] >> 4 == 6 ? 40 : (f->ip[0] & 15) * 4u;
        f->tcp = f->ip + ip_header;
        f->len = f->ip[0] >> 4 == 6 ? 40u + get_be16(f->ip + 4) : get_be16(f->ip + 2); /* without padding */
        if (f->len > len - skip || f->len < ip_header + 20)
            continue;
        f->header = (size_t)(f->tcp[12] >> 4) * 4;
        if ((f->ip[0] >> 4 == 6 ? f->ip[6] : f->ip[9]) != IP_PROTO_TCP || f->len < ip_header + f->header)
            continue;
        f->payload = (uint32_t)(f->len - ip_header - f->header);
        return true;
    }
    return false;
}

/* ---- from their numbers to ours ------------------------------------------------------------------------ */

static const uint8_t *address_of(const struct frame *f, size_t *len)
{
    *len = f->ip[0] >> 4 == 6 ? 16 : 4;
    return f->ip + (*len == 16 ? 8 : 12);
}

static bool is_clients(const struct replay *p, const struct frame *f)
{
    size_t len;
    const uint8_t *from = address_of(f, &len);

    return memcmp(from, p->client, len) == 0 && get_be16(f->tcp) == p->client_port;
}

/* Return: where the option of this kind has its value, or NULL. */
static uint8_t *find_option(const struct frame *f, uint8_t kind)
{
    size_t i = 20;

    while (i < f->header && f->tcp[i] != 0) {
        size_t n = f->tcp[i] == 1 ? 1 : i + 1 < f->header ? f->tcp[i + 1] : 0;

        if (n == 0 || i + n > f->header)
            return NULL;
        if (f->tcp[i] == kind)
            return f->tcp + i + 2;
        i += n;
    }
    return NULL;
}

static void translate(const struct replay *p, struct frame *f)
{
    uint32_t by = p->lab->iss - p->server_iss;
    uint8_t *ts = find_option(f, 8), *sack = find_option(f, 5);

    if (!p->server_known)
        return;
    put_be32(f->tcp + 8, get_be32(f->tcp + 8) + by);
    if (ts != NULL) {
        uint32_t ours = p->our_ts + (get_be32(ts + 4) - p->server_ts);
        uint32_t now = p->our_ts + (uint32_t)((p->lab->now_us - p->began_us) / 1000);

        put_be32(ts + 4, (int32_t)(ours - now) > 0 ? now : ours); /* its milliseconds began elsewhere */
    }
    for (size_t i = 0; sack != NULL && i + 2 < sack[-1]; i += 4)
        put_be32(sack + i, get_be32(sack + i) + by);
}

static void feed(struct replay *p, struct frame *f)
{
    const struct pkt_meta meta = { .csum_valid = true };
    uint64_t end = get_be32(f->tcp + 4) - p->irs + f->payload;

    translate(p, f);
    if (f->payload > 0 && end - 1 > p->r.client_bytes)
        p->r.client_bytes = end - 1;
    memcpy(stack_rx_slot(p->lab->stack), f->ip, f->len);
    stack_input(p->lab->stack, p->lab->now_us, f->len, &meta);
    lab_batch(p->lab);
    p->r.packets++;
}

/* ---- what the stack says ------------------------------------------------------------------------------- */

static void log_one(FILE *log, uint64_t ms, const struct lab_out *o)
{
    char flags[40];

    fprintf(log, "%5llu ms  %-8s seq %u ack %u len %u wnd %u", (unsigned long long)ms,
            lab_flags_text(o->flags, flags), o->seq, o->ack, o->len, o->wnd);
    if (o->flags & LAB_SYN)
        fprintf(log, " mss %u ws %d sack %d", o->mss, o->ws, o->sack_ok);
    fprintf(log, " ts %d%s", o->ts, o->sacks > 0 ? " sack" : "");
    for (int i = 0; i < o->sacks; i++)
        fprintf(log, " %u-%u", o->sack[i].start, o->sack[i].end);
    fputc('\n', log);
}

static void look_at_output(struct replay *p)
{
    for (; p->logged < p->lab->outs; p->logged++) {
        const struct lab_out *o = &p->lab->out[p->logged];

        if (p->o->log != NULL)
            log_one(p->o->log, (o->at_us - p->began_us) / 1000, o);
        p->r.resets_out += (o->flags & LAB_RST) != 0;
        if (o->flags & LAB_SYN)
            p->our_ts = o->tsval;
    }
}

/* What the server's program did: read, answer once, end. */
static void embedder(struct replay *p)
{
    struct lab *lab = p->lab;

    if (lab->conn != NULL && lab->to_put == 0 &&
        (p->o->up_bytes == UINT64_MAX ? lab->eof : lab->got >= p->o->up_bytes)) {
        lab->shutdown_when_put = true;
        lab_write(lab, p->o->down_bytes);
    }
    if (lab->conn != NULL)
        p->r.acked = lab_info(lab).bytes_down;
    look_at_output(p);
}

/* ---- all of it ------------------------------------------------------------------------------------------- */

static void learn_server(struct replay *p, const struct frame *f)
{
    uint8_t *ts = find_option(f, 8);

    if (p->server_known || !(f->tcp[13] & LAB_SYN))
        return;
    p->server_iss = get_be32(f->tcp + 4);
    p->server_ts = ts != NULL ? get_be32(ts) : 0;
    p->server_known = true;
}

static void begin(struct replay *p, const struct frame *f)
{
    struct lab_options o;
    size_t len;
    const uint8_t *from = address_of(f, &len);

    memcpy(p->client, from, len);
    p->client_port = get_be16(f->tcp);
    p->irs = get_be32(f->tcp + 4);
    p->first_us = f->at_us;
    lab_options_default(&o);
    o.v6 = len == 16;
    o.irs = p->irs;
    if (p->o->change != NULL)
        p->o->change(&o);
    p->lab = lab_new(&o);
    p->began_us = p->lab->now_us;
}

static void finish(struct replay *p)
{
    const struct lab *lab = p->lab;

    lab_run_us(p->lab, p->o->after_us);
    embedder(p);
    p->r.got = lab->got;
    p->r.got_wrong = lab->got_wrong;
    p->r.eof = lab->eof;
    p->r.closes = lab->closes;
    p->r.close_err = lab->close_err;
    p->r.counters = *stack_counters(lab->stack);
    lab_free(p->lab);
}

struct replay_result replay_run(const struct replay_options *o)
{
    struct replay p = { .o = o };
    struct frame f;

    p.r.wrong = trace_open(&p.trace, o->path);
    while (p.r.wrong == NULL && trace_next(&p.trace, &f)) {
        if (p.lab == NULL && (f.tcp[13] & (LAB_SYN | LAB_ACK)) == LAB_SYN)
            begin(&p, &f);
        if (p.lab == NULL)
            continue;
        if (!is_clients(&p, &f)) {
            learn_server(&p, &f);
            continue;
        }
        if (p.began_us + (f.at_us - p.first_us) > p.lab->now_us)
            lab_run_us(p.lab, p.began_us + (f.at_us - p.first_us) - p.lab->now_us);
        look_at_output(&p);
        feed(&p, &f);
        embedder(&p);
    }
    if (p.r.wrong == NULL && p.lab == NULL)
        p.r.wrong = "no connection begins in it";
    if (p.lab != NULL)
        finish(&p);
    free(p.trace.data);
    return p.r;
}
