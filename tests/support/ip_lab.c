/* ip_lab.c - see ip_lab.h. */
#include "ip_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

static void keep_packet(struct lab_packet *k, const struct iovec *iov, int iovcnt,
                        const struct pkt_meta *meta)
{
    size_t len = 0;

    for (int i = 0; i < iovcnt; i++)
        len += iov[i].iov_len;
    *k = (struct lab_packet){ .data = malloc(len > 0 ? len : 1), .meta = *meta, .iovcnt = iovcnt };
    for (int i = 0; i < iovcnt; i++) {
        if (iov[i].iov_len > 0)
            memcpy(k->data + k->len, iov[i].iov_base, iov[i].iov_len);
        k->len += iov[i].iov_len;
    }
}

static int on_emit(void *arg, const struct iovec *iov, int iovcnt, const struct pkt_meta *meta)
{
    struct ip_lab *lab = arg;

    assert_true(iovcnt >= 1 && iovcnt <= STACK_EMIT_IOV);
    if (lab->outs < LAB_KEEP)
        keep_packet(&lab->out[lab->outs++], iov, iovcnt, meta);
    return lab->emit_result;
}

static bool on_handoff(void *arg, uint32_t to_shard, uint32_t origin, const void *packet, size_t len,
                       const struct pkt_meta *meta)
{
    struct iovec iov = { .iov_base = (void *)(uintptr_t)packet, .iov_len = len };
    struct ip_lab *lab = arg;

    if (lab->handoff_full)
        return false;
    if (lab->hands < ARRAY_LEN(lab->handed)) {
        keep_packet(&lab->handed[lab->hands], &iov, 1, meta);
        lab->handed[lab->hands].to_shard = to_shard;
        lab->handed[lab->hands].origin = origin;
        lab->hands++;
    }
    return true;
}

static void on_request(void *arg, struct udp_request *r)
{
    struct ip_lab *lab = arg;

    lab->requests++;
    lab->request = r;
    udp_request_set_user(r, lab);
    switch (lab->on_request) {
    case LAB_HOLD:
        break;
    case LAB_ACCEPT:
    case LAB_ACCEPT_FLOW:
        lab->request = NULL;
        assert_int_equal(udp_request_accept(r,
                                            lab->on_request == LAB_ACCEPT ? UDP_MATCH_CLIENT : UDP_MATCH_FLOW,
                                            lab, &lab->endpoint),
                         0);
        break;
    case LAB_REJECT:
        lab->request = NULL;
        udp_request_reject(r, lab->why);
        break;
    }
}

static void on_gone(void *user)
{
    struct ip_lab *lab = user;

    lab->gone++;
    lab->gone_user = user;
    lab->request = NULL;
}

/* A row is written down as the packets that it was made of. */
static void on_datagram(void *user, const struct udp_datagram *d)
{
    struct ip_lab *lab = user;

    lab->rows++;
    for (int i = 0; i < d->ranges; i++) {
        size_t len = d->data[i].iov_len;
        struct lab_datagram *g = &lab->got[lab->gots];

        assert_true(lab->gots++ < LAB_KEEP);
        *g = (struct lab_datagram){ .d = *d, .data = { malloc(len + 1), len }, .user = user };
        if (len > 0)
            memcpy(g->data.iov_base, d->data[i].iov_base, len);
        g->d.data = &g->data;
        g->d.ranges = 1;
        g->d.len = len;
        if (len <= d->gso_size)
            g->d.gso_size = 0;
    }
    if (lab->close_in_datagram) {
        udp_endpoint_close(lab->endpoint);
        lab->endpoint = NULL;
    }
}

static enum echo_verdict on_echo(void *arg, struct echo_req *r)
{
    struct ip_lab *lab = arg;

    lab->echoes++;
    lab->echo_ptr = r;
    lab->echo = *r;
    if (lab->in_echo != NULL)
        lab->in_echo(lab, r);
    return lab->verdict;
}

static void on_tcp_request(void *arg, struct tcp_request *r)
{
    struct ip_lab *lab = arg;

    lab->tcp_requests++;
    if (!lab->tcp_hold)
        tcp_request_reject(r, REJECT_RST);
}

static void on_tcp_gone(void *user, int err)
{
    (void)user;
    (void)err;
}

struct ip_lab *ip_lab_new(void)
{
    struct ip_lab *lab = calloc(1, sizeof(*lab));

    stack_config_defaults(&lab->cfg);
    lab->cfg.rx_slots = 64;
    lab->cfg.buffer_cap_bytes = 16 << 20;
    lab->cfg.max_tcp = 1024;
    lab->cfg.max_half_open = 256;
    lab->cfg.max_time_wait = 256;
    lab->cfg.max_udp = 256;
    lab->cfg.seed = 1;
    lab->cfg.steer_key = (struct hash_key){ 11, 22 };
    lab->cfg.secret = (struct hash_key){ 33, 44 };
    ip_parse(LAB_GATEWAY, &lab->cfg.address[0]);
    ip_parse(LAB_GATEWAY6, &lab->cfg.address[1]);
    lab->cfg.address_len[0] = 120;
    lab->cfg.address_len[1] = 64;
    lab->cfg.addresses = 2;
    lab->ev = (struct stack_events){ .emit = on_emit,
                                     .handoff = on_handoff,
                                     .on_tcp_request = on_tcp_request,
                                     .on_tcp_request_gone = on_tcp_gone,
                                     .on_udp_request = on_request,
                                     .on_udp_request_gone = on_gone,
                                     .on_udp_datagram = on_datagram,
                                     .on_echo = on_echo };
    lab->now_us = 1000000;
    return lab;
}

void ip_lab_start(struct ip_lab *lab)
{
    lab->bytes = stack_memory_bytes(&lab->cfg);
    lab->memory =
        mmap(NULL, lab->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(lab->memory != MAP_FAILED);
    lab->s = stack_init(lab->memory, &lab->cfg, &lab->ev, lab, lab->now_us);
    assert_non_null(lab->s);
}

void ip_lab_clear(struct ip_lab *lab)
{
    for (size_t i = 0; i < lab->outs; i++)
        free(lab->out[i].data);
    for (size_t i = 0; i < lab->hands; i++)
        free(lab->handed[i].data);
    for (size_t i = 0; i < lab->gots; i++)
        free(lab->got[i].data.iov_base);
    lab->outs = lab->hands = lab->gots = 0;
}

void ip_lab_free(struct ip_lab *lab)
{
    const char *wrong = ip_lab_sum_error(lab);

    if (wrong != NULL)
        fail_msg("%s", wrong);
    stack_fini(lab->s);
    munmap(lab->memory, lab->bytes);
    ip_lab_clear(lab);
    free(lab);
}

int ip_lab_setup(void **state)
{
    struct ip_lab *lab = ip_lab_new();

    ip_lab_start(lab);
    *state = lab;
    return 0;
}

int ip_lab_teardown(void **state)
{
    ip_lab_free(*state);
    return 0;
}

void ip_lab_bytes(struct ip_lab *lab, const void *data, size_t len, const struct pkt_meta *meta)
{
    assert_true(len <= STACK_SLOT_BYTES);
    if (len > 0)
        memcpy(stack_rx_slot(lab->s), data, len);
    stack_input(lab->s, lab->now_us, len, meta);
}

void ip_lab_feed(struct ip_lab *lab, const struct pkt *p)
{
    ip_lab_bytes(lab, p->data, p->len, &p->meta);
}

void ip_lab_input(struct ip_lab *lab, const struct pkt *p)
{
    ip_lab_feed(lab, p);
    stack_batch_end(lab->s, lab->now_us);
}

void ip_lab_run_until(struct ip_lab *lab, uint64_t now_us)
{
    lab->now_us = now_us;
    stack_advance(lab->s, now_us);
}

struct pkt_view ip_lab_out(struct ip_lab *lab, size_t i)
{
    struct pkt_view v = { 0 };
    const char *wrong;

    assert_true(i < lab->outs);
    wrong = pkt_parse(lab->out[i].data, lab->out[i].len, &lab->out[i].meta, &v);
    if (wrong != NULL)
        fail_msg("packet %zu that went out: %s", i, wrong);
    return v;
}

size_t ip_lab_join(struct ip_lab *lab, size_t from, size_t to, uint8_t *out, size_t cap,
                   struct pkt_view *first)
{
    size_t at = 0;

    for (size_t i = from; i < to; i++) {
        struct pkt_view v = ip_lab_out(lab, i);

        if (i == from)
            *first = v;
        assert_true(v.fragment && v.id == first->id && v.offset == at && v.more == (i + 1 < to));
        assert_true(at + v.len <= cap);
        assert_true(lab->out[i].len <= lab->cfg.mtu_bytes);
        memcpy(out + at, v.data, v.len);
        at += v.len;
    }
    return at;
}

static bool count_one(const struct ip_lab *lab, const char *name, uint64_t *out)
{
    for (const struct counter_desc *d = stack_counter_descs; d->name != NULL; d++) {
        if (strcmp(d->name, name) == 0) {
            *out = counter_read(
                (const counter *)(const void *)((const char *)stack_counters(lab->s) + d->offset));
            return true;
        }
    }
    return false;
}

uint64_t ip_lab_count(const struct ip_lab *lab, const char *name)
{
    char of4[64], of6[64];
    uint64_t n, n6;

    if (count_one(lab, name, &n))
        return n;
    if (strncmp(name, "icmp.", 5) == 0) {
        snprintf(of4, sizeof(of4), "icmp4.%s", name + 5);
        snprintf(of6, sizeof(of6), "icmp6.%s", name + 5);
        if (count_one(lab, of4, &n) && count_one(lab, of6, &n6))
            return n + n6;
    }
    fail_msg("no counter is called %s", name);
    return 0;
}

const char *ip_lab_sum_error(const struct ip_lab *lab)
{
    static char text[160];
    const struct stack_counters *c = stack_counters(lab->s);
    uint64_t in = c->ip_in + c->ip_handoff_in + c->frag_done;
    uint64_t gone = c->tcp_in + c->udp_in + c->icmp_in + c->ip_down + c->ip_short + c->ip_version +
                    c->ip_malformed + c->ip_checksum + c->ip_bad_src + c->ip_bad_dst + c->ip_options +
                    c->ip_proto + c->ip_ext_header + c->frag_in + c->frag_malformed + c->frag_overlap +
                    c->frag_no_memory;

    if (in == gone)
        return NULL;
    snprintf(text, sizeof(text), "%llu packets came in, %llu are accounted for", (unsigned long long)in,
             (unsigned long long)gone);
    return text;
}

uint32_t ip_lab_in_use(const struct ip_lab *lab, const char *pool)
{
    struct stack_pool_info info[32];
    size_t n = stack_pools(lab->s, info, ARRAY_LEN(info));

    for (size_t i = 0; i < n; i++) {
        if (strcmp(info[i].name, pool) == 0)
            return info[i].in_use;
    }
    fail_msg("no pool is called %s", pool);
    return 0;
}
