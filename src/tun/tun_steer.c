/* tun_steer.c - the device asks a program of ours which queue a packet is for (tcp-stack.md STR-4): TUNSETSTEERINGEBPF, Linux 4.16.
 *
 * How it works. steer_packet() of src/base/steer.c is written here once more, in the kernel's eBPF instructions, with the secret
 * factors as constants. The kernel checks it, compiles it and runs it for each packet; what it returns, modulo the number of queues, is
 * the queue. A program of this type reads packets by copying bytes into its stack frame: all that most packets need is one such call.
 * Jumps go forward only, so every kernel sees that it ends.
 *
 * What always holds: no packet depends on it. Where the program may not be loaded, or the queues are not in the order in which we
 * hold them (somebody else's device), packets arrive at another shard and are handed over. */
#include "tun_impl.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/bpf.h>
#include <linux/if_tun.h>

#include "tun_steer.h"

/* What registers are for: R1 to R5 are arguments and scratch, and calls spoil them. */
enum {
    VALUE = BPF_REG_0,
    A = BPF_REG_1,
    B = BPF_REG_2,
    PACKET = BPF_REG_6,
    SUM = BPF_REG_7,
    AT = BPF_REG_8,
    PROTO = BPF_REG_9
};
#define FRAME BPF_REG_10

/* The frame: an IP header, and right behind it the first bytes of what follows, as in a packet without options. */
enum { L4 = -8, V4 = L4 - 20, V6 = L4 - 40 };
enum { V4_HEADER = 20, V6_HEADER = 40, L4_BYTES = 4, ICMP_HEADER = 8 };
enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DEST_OPTIONS = 60, BOTH_ADDRESSES = 0 };

/* Where a flow's two ends stand in the frame. */
struct ends {
    int client, target, client_port, target_port;
    unsigned bytes; /* of an address */
};
static const struct ends packet4 = { V4 + 12, V4 + 16, L4, L4 + 2, 4 };
static const struct ends quoted4 = { V4 + 16, V4 + 12, L4 + 2, L4, 4 };
static const struct ends packet6 = { V6 + 8, V6 + 24, L4, L4 + 2, 16 };
static const struct ends quoted6 = { V6 + 24, V6 + 8, L4 + 2, L4, 16 };

/* ---- instructions -------------------------------------------------------------------------------------------------- */

/* A place further on that jumps lead to. */
struct label {
    uint32_t from[32];
    uint32_t count;
};

struct writer {
    const struct steer *key;
    struct bpf_insn *insn;
    uint32_t count;
    struct label out;  /* the sum is complete */
    struct label none; /* no IP packet */
};

static void put(struct writer *w, uint8_t code, uint8_t dst, uint8_t src, int offset, uint32_t imm)
{
    assert(w->count < STEER_INSNS_MAX);
    w->insn[w->count++] = (struct bpf_insn){
        .code = code, .dst_reg = dst & 0xf, .src_reg = src & 0xf, .off = (int16_t)offset, .imm = (int32_t)imm
    };
}

static void op(struct writer *w, uint8_t what, uint8_t dst, uint32_t imm)
{
    put(w, BPF_ALU64 | BPF_K | what, dst, 0, 0, imm);
}

static void op_reg(struct writer *w, uint8_t what, uint8_t dst, uint8_t src)
{
    put(w, BPF_ALU64 | BPF_X | what, dst, src, 0, 0);
}

static void constant(struct writer *w, uint8_t dst, uint64_t value)
{
    put(w, BPF_LD | BPF_IMM | BPF_DW, dst, 0, 0, (uint32_t)value);
    put(w, 0, 0, 0, 0, (uint32_t)(value >> 32));
}

/* @size: BPF_B, BPF_H or BPF_W; as it lies in the packet */
static void load(struct writer *w, uint8_t size, uint8_t dst, int at)
{
    put(w, BPF_LDX | BPF_MEM | size, dst, FRAME, at, 0);
}

static void jump_if(struct writer *w, uint8_t test, uint8_t reg, uint32_t imm, struct label *to)
{
    assert(to->count < ARRAY_LEN(to->from));
    to->from[to->count++] = w->count;
    put(w, BPF_JMP | BPF_K | test, reg, 0, 0, imm);
}

static void jump(struct writer *w, struct label *to)
{
    jump_if(w, BPF_JA, 0, 0, to);
}

static void land(struct writer *w, const struct label *here)
{
    for (uint32_t i = 0; i < here->count; i++)
        w->insn[here->from[i]].off = (int16_t)(w->count - here->from[i] - 1);
}

/* @bytes of the packet from AT on into the frame; R0 is 0 when it has as many. */
static void try_fetch(struct writer *w, int to, uint32_t bytes)
{
    op_reg(w, BPF_MOV, BPF_REG_1, PACKET);
    op_reg(w, BPF_MOV, BPF_REG_2, AT);
    op_reg(w, BPF_MOV, BPF_REG_3, FRAME);
    op(w, BPF_ADD, BPF_REG_3, (uint32_t)to);
    op(w, BPF_MOV, BPF_REG_4, bytes);
    put(w, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_load_bytes);
}

static void fetch(struct writer *w, int to, uint32_t bytes, struct label *missing)
{
    try_fetch(w, to, bytes);
    jump_if(w, BPF_JNE, BPF_REG_0, 0, missing);
}

static void load_version(struct writer *w, int at)
{
    load(w, BPF_B, A, at);
    op(w, BPF_RSH, A, 4);
}

/* ---- the hash ---------------------------------------------------------------------------------------------------------- */

static void add(struct writer *w, uint64_t factor, uint8_t size, int at)
{
    load(w, size, A, at);
    constant(w, B, factor);
    op_reg(w, BPF_MUL, A, B);
    op_reg(w, BPF_ADD, SUM, A);
}

static void add_address(struct writer *w, const uint64_t factor[4], int at, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 4)
        add(w, factor[(16 - bytes + i) / 4], BPF_W, at + (int)i);
}

/* SUM of what @proto goes by. */
static void sum(struct writer *w, const struct ends *e, uint8_t proto)
{
    const struct steer *k = w->key;

    constant(w, SUM, k->start);
    add_address(w, k->client, e->client, e->bytes);
    if (proto != IP_PROTO_UDP)
        add_address(w, k->target, e->target, e->bytes);
    if (proto == IP_PROTO_TCP || proto == IP_PROTO_UDP)
        add(w, k->client_port, BPF_H, e->client_port);
    if (proto == IP_PROTO_TCP)
        add(w, k->target_port, BPF_H, e->target_port);
}

static void spread(struct writer *w)
{
    op_reg(w, BPF_MOV, VALUE, SUM);
    op(w, BPF_RSH, VALUE, 32);
    op_reg(w, BPF_MOV, A, VALUE);
    op(w, BPF_RSH, A, 16);
    op_reg(w, BPF_XOR, VALUE, A);
    put(w, BPF_ALU | BPF_K | BPF_MUL, VALUE, 0, 0, STEER_SPREAD);
    op(w, BPF_RSH, VALUE, 16);
    put(w, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* TCP and UDP are done with; anything else goes on at @other. */
static void by_ports(struct writer *w, const struct ends *e, struct label *other)
{
    struct label not_tcp = { .count = 0 };

    jump_if(w, BPF_JNE, PROTO, IP_PROTO_TCP, &not_tcp);
    sum(w, e, IP_PROTO_TCP);
    jump(w, &w->out);
    land(w, &not_tcp);
    jump_if(w, BPF_JNE, PROTO, IP_PROTO_UDP, other);
    sum(w, e, IP_PROTO_UDP);
    jump(w, &w->out);
}

/* ---- packets ------------------------------------------------------------------------------------------------------------- */

/* An ICMP error at AT, its packet's addresses still in the frame: they count where the quote says nothing. */
static void write_error4(struct writer *w)
{
    sum(w, &packet4, BOTH_ADDRESSES);
    op(w, BPF_ADD, AT, ICMP_HEADER);
    fetch(w, V4, V4_HEADER + L4_BYTES, &w->out);
    load(w, BPF_B, A, V4);
    jump_if(w, BPF_JNE, A, 0x45, &w->out);
    load(w, BPF_H, A, V4 + 6);
    jump_if(w, BPF_JSET, A, htons(0x1fff), &w->out);
    load(w, BPF_B, PROTO, V4 + 9);
    by_ports(w, &quoted4, &w->out);
}

/* @addresses: has jumps of the caller to the place that this writes as well. */
static void write_v4(struct writer *w, struct label *addresses)
{
    struct label here = { .count = 0 }, other = { .count = 0 }, error = { .count = 0 };

    load(w, BPF_B, AT, V4);
    op(w, BPF_AND, AT, 0x0f);
    op(w, BPF_LSH, AT, 2);
    jump_if(w, BPF_JLT, AT, V4_HEADER, addresses);
    load(w, BPF_H, A, V4 + 6);
    jump_if(w, BPF_JSET, A, htons(0x3fff), addresses); /* a fragment */
    load(w, BPF_B, PROTO, V4 + 9);
    jump_if(w, BPF_JEQ, AT, V4_HEADER, &here);
    fetch(w, L4, L4_BYTES, addresses);
    land(w, &here);
    by_ports(w, &packet4, &other);
    land(w, &other);
    jump_if(w, BPF_JNE, PROTO, IP_PROTO_ICMP, addresses);
    load(w, BPF_B, A, L4);
    jump_if(w, BPF_JEQ, A, 3, &error);
    jump_if(w, BPF_JEQ, A, 11, &error);
    jump_if(w, BPF_JEQ, A, 12, &error);
    land(w, addresses);
    sum(w, &packet4, BOTH_ADDRESSES);
    jump(w, &w->out);
    land(w, &error);
    write_error4(w);
}

static void write_error6(struct writer *w)
{
    struct label whole = { .count = 0 };

    sum(w, &packet6, BOTH_ADDRESSES);
    op(w, BPF_ADD, AT, ICMP_HEADER);
    fetch(w, V6, V6_HEADER + L4_BYTES, &w->out);
    load_version(w, V6);
    jump_if(w, BPF_JNE, A, 6, &w->out);
    load(w, BPF_B, PROTO, V6 + 6);
    jump_if(w, BPF_JNE, PROTO, FRAGMENT, &whole);
    load(w, BPF_H, A, L4 + 2);
    jump_if(w, BPF_JSET, A, htons(0xfff8), &w->out);
    load(w, BPF_B, PROTO, L4);
    op(w, BPF_ADD, AT, V6_HEADER + 8);
    fetch(w, L4, L4_BYTES, &w->out);
    land(w, &whole);
    by_ports(w, &quoted6, &w->out);
}

/* One extension header at AT: PROTO and AT become the next one's. */
static void write_step6(struct writer *w, struct label *addresses)
{
    struct label fragment = { .count = 0 }, options = { .count = 0 }, next = { .count = 0 };

    jump_if(w, BPF_JEQ, PROTO, FRAGMENT, &fragment);
    jump_if(w, BPF_JEQ, PROTO, HOP_BY_HOP, &options);
    jump_if(w, BPF_JEQ, PROTO, DEST_OPTIONS, &options);
    jump_if(w, BPF_JNE, PROTO, ROUTING, addresses);
    land(w, &options);
    load(w, BPF_B, PROTO, L4);
    load(w, BPF_B, A, L4 + 1);
    op(w, BPF_ADD, A, 1);
    op(w, BPF_LSH, A, 3);
    op_reg(w, BPF_ADD, AT, A);
    jump(w, &next);
    land(w, &fragment);
    load(w, BPF_H, A, L4 + 2);
    jump_if(w, BPF_JSET, A, htons(0xfff9), addresses); /* a piece; else the whole datagram (RFC 6946) */
    load(w, BPF_B, PROTO, L4);
    op(w, BPF_ADD, AT, 8);
    land(w, &next);
    fetch(w, L4, L4_BYTES, addresses);
}

static void write_v6(struct writer *w, struct label *addresses)
{
    struct label full = { .count = 0 }, upper = { .count = 0 }, other = { .count = 0 },
                 error = { .count = 0 };

    op(w, BPF_MOV, AT, 0);
    try_fetch(w, V6, V6_HEADER + L4_BYTES);
    jump_if(w, BPF_JEQ, BPF_REG_0, 0, &full);
    fetch(w, V6, V6_HEADER, &w->none);
    jump(w, addresses);
    land(w, &full);
    op(w, BPF_MOV, AT, V6_HEADER);
    load(w, BPF_B, PROTO, V6 + 6);
    for (unsigned headers = 0;; headers++) {
        jump_if(w, BPF_JEQ, PROTO, IP_PROTO_TCP, &upper);
        jump_if(w, BPF_JEQ, PROTO, IP_PROTO_UDP, &upper);
        jump_if(w, BPF_JEQ, PROTO, IP_PROTO_ICMPV6, &upper);
        if (headers == STEER_HEADERS_MAX)
            break;
        write_step6(w, addresses);
    }
    jump(w, addresses);
    land(w, &upper);
    by_ports(w, &packet6, &other);
    land(w, &other); /* ICMPv6 */
    load(w, BPF_B, A, L4);
    jump_if(w, BPF_JEQ, A, 0, addresses);
    jump_if(w, BPF_JGT, A, 4, addresses);
    jump(w, &error);
    land(w, addresses);
    sum(w, &packet6, BOTH_ADDRESSES);
    jump(w, &w->out);
    land(w, &error);
    write_error6(w);
}

uint32_t steer_program(const struct steer *key, struct bpf_insn insn[STEER_INSNS_MAX])
{
    struct writer w = { .key = key, .insn = insn };
    struct label full = { .count = 0 }, six = { .count = 0 };
    struct label addresses4 = { .count = 0 }, addresses6 = { .count = 0 };

    op_reg(&w, BPF_MOV, PACKET, BPF_REG_1);
    op(&w, BPF_MOV, AT, 0);
    try_fetch(&w, V4, V4_HEADER + L4_BYTES);
    jump_if(&w, BPF_JEQ, BPF_REG_0, 0, &full);
    fetch(&w, V4, V4_HEADER, &w.none); /* a header and nothing behind it */
    load_version(&w, V4);
    jump_if(&w, BPF_JEQ, A, 4, &addresses4);
    jump(&w, &w.none);
    land(&w, &full);
    load_version(&w, V4);
    jump_if(&w, BPF_JEQ, A, 6, &six);
    jump_if(&w, BPF_JNE, A, 4, &w.none);
    write_v4(&w, &addresses4);
    land(&w, &six);
    write_v6(&w, &addresses6);
    land(&w, &w.out);
    spread(&w);
    land(&w, &w.none);
    op(&w, BPF_MOV, VALUE, 0);
    put(&w, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    return w.count;
}

/* ---- the kernel ------------------------------------------------------------------------------------------------------------ */

int steer_load(const struct steer *key)
{
    struct bpf_insn insn[STEER_INSNS_MAX];
    union bpf_attr load;
    long fd;

    memset(&load, 0, sizeof(load)); /* what the kernel does not know of it must be zero */
    load.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    load.insn_cnt = steer_program(key, insn);
    load.insns = (uintptr_t)insn;
    load.license = (uintptr_t) "MIT";
    memcpy(load.prog_name, "culvert_steer", sizeof("culvert_steer"));
    fd = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load));
    explicit_bzero(insn, sizeof(insn)); /* the key */
    return fd >= 0 ? (int)fd : -errno;
}

static int attach(const struct tun *t, int program)
{
    return ioctl(t->queue[0].fd, TUNSETSTEERINGEBPF, &program) == 0 ? 0 : -errno;
}

static const char *sentence(int r)
{
    switch (-r) {
    case EPERM:
    case EACCES:
        return "off: this process may not load eBPF programs (CAP_BPF)";
    case ENOSYS:
    case EOPNOTSUPP:
        return "off: this kernel has no eBPF";
    case EINVAL:
    case ENOTTY:
        return "off: this kernel or its TUN driver does not take the program";
    }
    return "off: the kernel did not take the program";
}

int tun_steer_again(struct tun *t)
{
    int r = t->steering.program >= 0 ? attach(t, t->steering.program) : 0;

    if (t->steering.program >= 0)
        t->steering.text = r == 0 ? "on" : sentence(r);
    return r;
}

int tun_steer(struct tun *t, const struct hash_key *key)
{
    struct steer k;
    int r;

    assert(t->steering.program < 0);
    if (t->queues == 1) {
        t->steering.text = "off: one queue needs none";
        return 0;
    }
    steer_init(&k, key);
    t->steering.program = r = steer_load(&k);
    explicit_bzero(&k, sizeof(k));
    if (r < 0)
        t->steering.text = sentence(r);
    else
        r = tun_steer_again(t);
    log_info("%s: steering %s", t->name, t->steering.text);
    return r;
}

void tun_steer_end(struct tun *t)
{
    if (t->steering.program < 0)
        return;
    if (!t->made && t->queues > 0)
        (void)attach(t, -1); /* the device goes on without us, and so does its own choice of queues */
    close(t->steering.program);
    t->steering.program = -1;
}

const char *tun_steering(const struct tun *t)
{
    return t->steering.text;
}
