/* test_tcp_crowd.c - faces all of src/stack/tcp_*.c: very many connections, at once and one after the other, each of which must get what
 * every other gets. CULVERT_LONG=1 in the environment: the full numbers (./check --long), else a tenth and a fiftieth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "stack/tcp_impl.h"

#define FIRST_PORT 10000u
#define PORTS      50000u /* of one client; the next has the address behind it */
#define REQUEST    1024u
#define BATCH      32u

struct flow {
    struct tcp_conn *conn;
    uint32_t iss;
    uint32_t up, down, put; /* consumed by the embedder; seen by the client; queued */
    uint32_t answer;        /* bytes to be put for a request */
    bool established, ack_due, closed;
    uint64_t done_us;
};

struct crowd {
    struct lab *lab;
    struct flow *flows;
    uint32_t count, answer;
    uint32_t *due, due_count; /* flows whose client has something to acknowledge */
    uint32_t accepted;        /* the flow whose SYN is being fed */
    unsigned aborted;
};

static bool is_long(void)
{
    return getenv("CULVERT_LONG") != NULL;
}

/* ---- the embedder: answers each request of REQUEST bytes ------------------------------------------------------ */

static void put(struct crowd *c, struct flow *f)
{
    uint8_t *space;
    size_t room;

    (void)c;
    while (f->put < f->answer && (room = tcp_tx_space(f->conn, &space)) > 0) {
        size_t n = f->answer - f->put < room ? f->answer - f->put : room;

        memset(space, (int)n, n);
        tcp_tx_commit(f->conn, n);
        f->put += (uint32_t)n;
    }
}

static struct crowd *the_crowd; /* of the test that runs: callbacks know their flow alone */

static void on_request(void *arg, struct tcp_request *r)
{
    struct crowd *c = arg;
    struct flow *f = &c->flows[c->accepted];

    assert_int_equal(tcp_request_accept(r, f, &f->conn), 0);
}

static void on_gone(void *user, int err)
{
    (void)user;
    (void)err;
}

static void on_open(void *user)
{
    ((struct flow *)user)->established = true;
}

static void on_readable(void *user)
{
    struct flow *f = user;
    size_t n = tcp_readable_bytes(f->conn);

    f->up += (uint32_t)n;
    tcp_consume(f->conn, n);
    f->answer = f->up / REQUEST * the_crowd->answer;
    put(the_crowd, f);
    if (tcp_at_eof(f->conn))
        tcp_shutdown(f->conn);
}

static void on_writable(void *user)
{
    put(the_crowd, user);
}

static void on_closed(void *user, int err)
{
    struct flow *f = user;

    f->conn = NULL;
    f->closed = true;
    the_crowd->aborted += err != 0;
}

/* ---- the clients ------------------------------------------------------------------------------------------------ */

static void seen(struct lab *lab, const struct lab_out *o)
{
    struct crowd *c = lab->hook_arg;
    uint32_t i = (o->client - 0x0a000101) * PORTS + o->port - FIRST_PORT;
    struct flow *f;

    if (i >= c->count || (o->flags & LAB_RST))
        return;
    f = &c->flows[i];
    if (o->flags & LAB_SYN)
        f->iss = o->raw_seq;
    else if (o->len > 0 &&
             o->raw_seq == f->iss + 1 + f->down) /* nothing is lost here, but it may come again */
        f->down += o->len;
    if (o->len > 0 && !f->ack_due) {
        f->ack_due = true;
        c->due[c->due_count++] = i;
    }
}

static void say(struct crowd *c, uint32_t i, struct lab_seg s)
{
    char client[IP_TEXT_MAX];

    snprintf(client, sizeof(client), "10.0.1.%u", 1 + i / PORTS);
    c->lab->opt.client = client;
    c->lab->iss = c->flows[i].iss;
    s.port = (uint16_t)(FIRST_PORT + i % PORTS);
    lab_feed(c->lab, &s);
}

static void open_flow(struct crowd *c, uint32_t i)
{
    c->accepted = i;
    c->flows[i] = (struct flow){ .conn = NULL };
    say(c, i, (struct lab_seg){ .flags = LAB_SYN });
    lab_batch(c->lab);
    c->lab->now_us += 50;
    say(c, i, (struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1 });
    lab_batch(c->lab);
    assert_true(c->flows[i].established);
}

static void ask(struct crowd *c, uint32_t i)
{
    struct flow *f = &c->flows[i];

    say(c, i,
        (struct lab_seg){ .flags = LAB_ACK | LAB_PSH, .seq = 1 + f->up, .ack = 1 + f->down, .len = REQUEST });
}

/* Everything that clients have to acknowledge, in batches, until nothing more comes. */
static void acknowledge(struct crowd *c)
{
    while (c->due_count > 0) {
        uint32_t n = c->due_count < BATCH ? c->due_count : BATCH, now[BATCH];

        memcpy(now, c->due, n * sizeof(*now));
        c->due_count -= n;
        memmove(c->due, c->due + n, c->due_count * sizeof(*c->due));
        for (uint32_t k = 0; k < n; k++) {
            struct flow *f = &c->flows[now[k]];

            f->ack_due = false;
            say(c, now[k], (struct lab_seg){ .flags = LAB_ACK, .seq = 1 + f->up, .ack = 1 + f->down });
            if (f->down == f->answer && f->done_us == 0)
                f->done_us = c->lab->now_us;
        }
        c->lab->now_us += 20;
        stack_advance(c->lab->stack, c->lab->now_us);
        lab_batch(c->lab);
    }
}

static struct crowd *crowd_new(uint32_t count, uint32_t answer)
{
    static const struct stack_events events = {
        .on_tcp_request = on_request,
        .on_tcp_request_gone = on_gone,
        .on_tcp_open = on_open,
        .on_tcp_readable = on_readable,
        .on_tcp_writable = on_writable,
        .on_tcp_closed = on_closed,
    };
    struct crowd *c = calloc(1, sizeof(*c));
    struct lab_options o;

    lab_options_default(&o);
    stack_config_defaults(&o.config);
    o.config.max_tcp = 131072;
    o.config.offload_csum = o.config.offload_tso = true;
    o.ts = false; /* one clock of the laboratory would have to serve all */
    o.embedder = &events;
    o.embedder_arg = c;
    c->count = count;
    c->answer = answer;
    c->flows = calloc(count, sizeof(*c->flows));
    c->due = calloc(count, sizeof(*c->due));
    c->lab = lab_new(&o);
    c->lab->hook = seen;
    c->lab->hook_arg = c;
    the_crowd = c;
    return c;
}

static void crowd_free(struct crowd *c)
{
    lab_free(c->lab);
    free(c->flows);
    free(c->due);
    free(c);
}

/* ---- what must hold ------------------------------------------------------------------------------------------------ */

static uint64_t percentile(const struct crowd *c, uint64_t from_us, unsigned per_thousand)
{
    static uint32_t histogram[100000]; /* of 100 us */
    uint64_t sum = 0;

    memset(histogram, 0, sizeof(histogram));
    for (uint32_t i = 0; i < c->count; i++) {
        uint64_t slot = (c->flows[i].done_us - from_us) / 100;

        histogram[slot < ARRAY_LEN(histogram) ? slot : ARRAY_LEN(histogram) - 1]++;
    }
    for (uint32_t k = 0; k < ARRAY_LEN(histogram); k++) {
        sum += histogram[k];
        if (sum * 1000 >= (uint64_t)c->count * per_thousand)
            return k * 100ull;
    }
    return UINT64_MAX;
}

/* @again: clients whose request was dropped for want of memory repeat it. Return: those who wait for their answer. */
static uint32_t look_for_undone(struct crowd *c, bool again)
{
    uint32_t undone = 0, fed = 0;

    for (uint32_t i = 0; i < c->count; i++) {
        if (c->flows[i].done_us != 0)
            continue;
        undone++;
        if (!again || c->flows[i].up > 0)
            continue;
        ask(c, i);
        if (++fed % BATCH == 0)
            lab_batch(c->lab);
    }
    lab_batch(c->lab);
    return undone;
}

static void the_cap_of_blocks_moves_between_what_was_set_up_and_a_few_slots(void **state)
{
    struct crowd *c = crowd_new(1, 1);
    struct stack *s = c->lab->stack;
    size_t whole = s->cfg.buffer_cap_bytes;

    (void)state;
    stack_set_buffer_cap(s, whole / 2);
    assert_int_equal(s->cfg.buffer_cap_bytes, whole / 2);
    stack_set_buffer_cap(s, whole + 1); /* the pools have no more */
    assert_int_equal(s->cfg.buffer_cap_bytes, whole);
    stack_set_buffer_cap(s, 0);
    assert_int_equal(s->cfg.buffer_cap_bytes, 4 * (STACK_SLOT_BYTES + BLOCK_HEADROOM));
    crowd_free(c);
}

static void all_wake_up_at_once_and_all_are_served(
    void **state) /* faults.md R9; tcp-stack.md PERF-9, LIM-1 */
{
    struct crowd *c = crowd_new(is_long() ? 100000 : 10000, 6000);
    const struct stack_counters *n = stack_counters(c->lab->stack);
    struct stack *s = c->lab->stack;
    size_t most = 0;
    uint64_t began;
    uint32_t undone = c->count;

    (void)state;
    if (!is_long())
        stack_set_buffer_cap(s, s->cfg.buffer_cap_bytes / 10); /* as short as it is for all of them */
    for (uint32_t i = 0; i < c->count; i++)
        open_flow(c, i);
    lab_run_us(c->lab, 60000000);
    assert_int_equal(stack_tcp_count(s), c->count);
    assert_true(s->block_bytes <= 4 * 65536 + 4096); /* idle ones hold nothing (MEM-1) */
    began = c->lab->now_us;
    for (uint32_t i = 0; i < c->count; i++) {
        ask(c, i);
        if (i % BATCH == BATCH - 1) {
            c->lab->now_us += 20;
            lab_batch(c->lab);
        }
        most = s->block_bytes > most ? s->block_bytes : most;
    }
    lab_batch(c->lab);
    for (int i = 1; i <= 1000 && undone > 0; i++) { /* 10 s: a writer that nobody wakes would be found here */
        acknowledge(c);
        most = s->block_bytes > most ? s->block_bytes : most;
        lab_run_us(c->lab, 10000);
        undone = look_for_undone(c, i % 20 == 0);
    }
    print_message("%u: all served after %.0f ms (half of them after %.0f); at most %zu of %zu KiB; %llu "
                  "times no memory, %llu requests dropped\n",
                  c->count, (double)percentile(c, began, 1000) / 1000,
                  (double)percentile(c, began, 500) / 1000, most / 1024, s->cfg.buffer_cap_bytes / 1024,
                  (unsigned long long)n->tcp_no_memory, (unsigned long long)n->tcp_no_room);
    assert_int_equal(undone, 0);
    assert_int_equal(c->aborted, 0);
    for (uint32_t i = 0; i < c->count; i++)
        assert_true(c->flows[i].up == REQUEST && c->flows[i].down == 6000);
    assert_true(most <= s->cfg.buffer_cap_bytes);
    assert_true(percentile(c, began, 1000) < 10000000);
    lab_run_us(c->lab, 1000000);
    assert_true(s->block_bytes <= 4 * 65536 + 4096);
    crowd_free(c);
}

/* One after the other from a few ports; each third is closed by us first and leaves a TIME-WAIT record in the way of its next use. */
static void one_after_the_other(struct crowd *c, uint32_t n)
{
    struct flow *f = &c->flows[n % c->count];
    uint32_t i = n % c->count;

    c->lab->opt.irs = 1000 + n * 100000;
    open_flow(c, i);
    ask(c, i);
    lab_batch(c->lab);
    acknowledge(c);
    if (n % 3 == 0) {
        tcp_shutdown(f->conn);
        lab_batch(c->lab);
    }
    say(c, i,
        (struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1 + f->up, .ack = 1 + f->down + (n % 3 == 0) });
    lab_batch(c->lab);
    say(c, i, (struct lab_seg){ .flags = LAB_ACK, .seq = 2 + f->up, .ack = 2 + f->down });
    lab_batch(c->lab);
    if (!f->closed || f->up != REQUEST || f->down != REQUEST)
        fail_msg("connection %u: closed %d, %u up, %u down", n, f->closed, f->up, f->down);
    c->lab->now_us += 1000;
    stack_advance(c->lab->stack, c->lab->now_us);
}

static void a_million_connects_in_sequence_leave_nothing(void **state) /* faults.md T20, T15, G4 */
{
    struct crowd *c = crowd_new(97, REQUEST);
    uint32_t total = is_long() ? 1000000 : 20000, tenth = total / 10;
    struct stack_pool_info early[32], late[32];
    size_t pools;

    (void)state;
    for (uint32_t n = 0; n < tenth; n++)
        one_after_the_other(c, n);
    pools = stack_pools(c->lab->stack, early, ARRAY_LEN(early));
    for (uint32_t n = tenth; n < total; n++)
        one_after_the_other(c, n);
    assert_int_equal(stack_pools(c->lab->stack, late, ARRAY_LEN(late)), pools);
    for (size_t i = 0; i < pools; i++) {
        if (late[i].in_use > early[i].in_use || late[i].high_water > early[i].high_water)
            print_error("%s: %u in use and %u at most after a tenth, %u and %u at the end\n", late[i].name,
                        early[i].in_use, early[i].high_water, late[i].in_use, late[i].high_water);
        assert_true(late[i].in_use <= early[i].in_use && late[i].high_water <= early[i].high_water);
    }
    assert_int_equal(stack_counters(c->lab->stack)->tcp_opened, total);
    assert_int_equal(c->aborted, 0);
    assert_int_equal(stack_tcp_count(c->lab->stack), 0);
    lab_run_us(c->lab, 61000000);
    assert_int_equal(lab_in_use(c->lab, "timewait"), 0);
    crowd_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cap_of_blocks_moves_between_what_was_set_up_and_a_few_slots),
        cmocka_unit_test(all_wake_up_at_once_and_all_are_served),
        cmocka_unit_test(a_million_connects_in_sequence_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
