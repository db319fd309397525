/* lab_script.c - see lab_script.h. */
#include "lab_script.h"

#include "stack/stack_impl.h"

struct lab *lab_open(uint64_t rtt_us, lab_change *change)
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    if (change != NULL)
        change(&o);
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += rtt_us;
    lab_ack(lab, 1, 1);
    lab_clear(lab);
    return lab;
}

void lab_no_sack(struct lab_options *o)
{
    o->sack = false;
}

void lab_no_ts(struct lab_options *o)
{
    o->ts = false;
}

void lab_no_tso(struct lab_options *o)
{
    o->config.offload_tso = false;
}

void lab_sack(struct lab *lab, uint32_t ack, uint32_t start, uint32_t end)
{
    struct lab_seg s = { .flags = LAB_ACK, .seq = 1, .ack = ack, .sacks = 1 };

    s.sack[0].start = start;
    s.sack[0].end = end;
    lab_send(lab, &s);
}

void lab_pump(struct lab *lab, uint64_t rtt_us, uint64_t until)
{
    while (lab->to_put > 0 && lab_info(lab).bytes_down < until && lab_info(lab).unacked > 0) {
        lab->now_us += rtt_us;
        stack_advance(lab->stack, lab->now_us);
        lab_ack(lab, 1, (uint32_t)(lab_info(lab).bytes_down + lab_info(lab).unacked + 1));
    }
}

uint64_t lab_payload_out(const struct lab *lab)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < lab->outs; i++)
        sum += lab->out[i].len;
    return sum;
}

void lab_icmp(struct lab *lab, uint32_t quoted_seq, uint8_t type, uint8_t code, uint32_t mtu)
{
    struct flow_key flow;

    tcp_conn_flow(lab->conn, &flow);
    tcp_icmp_error(lab->stack, &flow, quoted_seq + lab->iss, lab->opt.v6, type, code, mtu);
    lab_batch(lab);
}

/* ---- states ------------------------------------------------------------------------------------------ */

const char *lab_where_name(enum lab_where w)
{
    static const char *const names[] = {
        "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSING",
        "TIME-WAIT",    "CLOSE-WAIT",  "LAST-ACK",   "held SYN",   "LISTEN"
    };

    return names[w];
}

void lab_client_fin(struct lab *lab, uint32_t ack)
{
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1 + LAB_UP, .ack = ack });
}

void lab_shut_down(struct lab *lab)
{
    tcp_shutdown(lab->conn);
    lab_batch(lab);
}

static void go_on_from_established(struct lab *lab, enum lab_where w)
{
    switch (w) {
    case LAB_FIN_WAIT_1:
        lab_shut_down(lab);
        break;
    case LAB_FIN_WAIT_2:
        lab_shut_down(lab);
        lab_ack(lab, 1 + LAB_UP, 2);
        break;
    case LAB_CLOSING:
        lab_shut_down(lab);
        lab_client_fin(lab, 1);
        break;
    case LAB_TIME_WAIT:
        lab_shut_down(lab);
        lab_client_fin(lab, 2);
        break;
    case LAB_CLOSE_WAIT:
        lab_client_fin(lab, 1);
        break;
    case LAB_LAST_ACK:
        lab_client_fin(lab, 1);
        lab_shut_down(lab);
        break;
    case LAB_SYN_RECEIVED:
    case LAB_ESTABLISHED:
    case LAB_HELD:
    case LAB_NOTHING:
        break;
    }
}

struct lab *lab_in(enum lab_where w)
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.hold = w == LAB_HELD;
    lab = lab_new(&o);
    if (w == LAB_NOTHING)
        return lab;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    if (w == LAB_SYN_RECEIVED || w == LAB_HELD)
        return lab;
    lab_ack(lab, 1, 1);
    lab_data(lab, 1, 1, LAB_UP);
    go_on_from_established(lab, w);
    lab_clear(lab);
    return lab;
}
