/* up_rig.h - a loop, a wheel that real time moves, an up_env with a fake resolver; and a server that follows a plan. */
#ifndef CULVERT_TEST_UP_RIG_H
#define CULVERT_TEST_UP_RIG_H

#include "culvert/upstream.h"
#include "loop_wait.h"
#include "netns.h"

/* ---- the surroundings ---- */

enum rig_answer { RIG_NOW, RIG_LATER, RIG_NEVER, RIG_FAILS };

struct rig_name { /* what the fake resolver knows */
    const char *name;
    enum rig_answer answer;
    struct ip_addr addrs[10];
    size_t n;
};

struct up_resolve { /* a question of the fake resolver */
    struct wheel_timer timer;
    struct up_rig *rig;
    const struct rig_name *name;
    up_resolved_fn *fn;
    void *fn_arg;
};

struct up_rig {
    struct loop *loop;
    struct wheel wheel;
    struct loop_timer timer;
    struct loop_wait wait;
    struct up_env *env;
    struct own_flows *own;
    struct up_socket_rules rules;
    struct rig_name names[8];
    struct up_resolve questions[64];
    unsigned asked, cancelled;
};

void rig_init(struct up_rig *rig); /* asserts that it works */
void rig_fini(struct up_rig *rig);
int up_rig_setup(void **state); /* of a test whose state is a rig and no more */
int up_rig_teardown(void **state);
#define RIG_WAIT_MS 10000
/* Runs until @done; a failed assertion after RIG_WAIT_MS, naming what it waited for. */
#define rig_until(rig, done, arg) assert_true(loop_wait_until(&(rig)->wait, RIG_WAIT_MS, done, arg))
void rig_run_ms(struct up_rig *rig, unsigned ms); /* for what must not happen */
struct rig_name *rig_name(struct up_rig *rig, const char *name, enum rig_answer answer);

struct upstream *rig_direct(void);
struct upstream *rig_socks(uint16_t port, const char *username,
                           const char *password); /* "office" at 127.0.0.1 */
struct ip_addr rig_addr(const char *text);
struct host_port rig_to(const char *host, uint16_t port); /* a name, or an address */

/* ---- a server that follows a plan ---- */

enum plan_end { PLAN_HANG, PLAN_CLOSE, PLAN_RESET };
struct plan_step {
    size_t after;     /* once so many bytes have come since the step before ... */
    const char *send; /* ... send these */
    size_t len;
    bool slowly; /* one at a time, each in a segment of its own */
};
struct plan {
    const struct plan_step *steps;
    size_t count;
    enum plan_end end; /* once the last step is done */
    size_t flood;      /* before anything: so many bytes of 'x', as fast as they go */
};
enum { PLAN_CONNS = 8 };
struct plan_conn {
    struct loop_io io;
    struct plan_server *server;
    struct wheel_timer timer;
    size_t step, got, sent, total_in, flooded;
    size_t first_in; /* bytes of the first read */
    bool active, sending;
    uint8_t in[4096]; /* the first bytes that came */
};
struct plan_server {
    struct up_rig *rig;
    struct loop_io listener;
    struct plan plan;
    uint16_t port;
    struct plan_conn conns[PLAN_CONNS];
    /* May be set after plan_open(): what came with a message and is not part of it is thrown away, or ends the connection. */
    bool forgets, strict;
    unsigned accepted, closed; /* closed: by the other side */
    bool saw_reset;            /* one of them was a reset */
};
void plan_open(struct plan_server *p, struct up_rig *rig, const struct plan *plan);
void plan_close(struct plan_server *p);
/* plan_open(), and rig_socks() of it without a login */
struct upstream *plan_socks(struct plan_server *p, struct up_rig *rig, const struct plan *plan);
bool plan_saw_close(void *server); /* the other side ended a connection */

/* A port of 127.0.0.1 where nobody listens: bound, so that nobody takes it meanwhile. Return: the descriptor, to be closed */
int closed_port(uint16_t *port);
/* An address that swallows SYNs: a listener whose queue is full. */
struct silence {
    int listener, fillers[4];
};
void silence_open(struct silence *s, const char *addr, uint16_t port);
void silence_close(struct silence *s);

/* ---- a stream and what it told ---- */

struct stream_log {
    struct up_stream *s;
    bool opened, closed, eof, broke;
    struct up_failure why;
    char *in; /* what was read; heap, grows */
    size_t in_len;
    uint64_t opened_us, closed_us;
    bool read_on_open; /* default of stream_open */
};
void stream_start(struct up_rig *rig, struct stream_log *log, struct upstream *up,
                  const struct host_port *dst, unsigned timeout_ms);
void stream_start_known(struct up_rig *rig, struct stream_log *log, struct upstream *up,
                        const struct host_port *dst, const struct up_known *known, unsigned timeout_ms);
/* stream_start(), and until it is open or has failed */
void stream_settle(struct up_rig *rig, struct stream_log *log, struct upstream *up,
                   const struct host_port *dst, unsigned timeout_ms);
bool stream_is_settled(void *log); /* opened or closed */
bool stream_is_over(void *log);    /* closed, broke or at its end */
void stream_forget(struct stream_log *log);
void stream_send(struct stream_log *log, const void *data, size_t len); /* all of it fits */

/* ---- a probe and what it told ---- */

struct probe_log {
    unsigned calls, wanted;
    int err; /* of the last */
};
void probe_log_on_probe(void *log, int err);
bool probe_log_is_done(void *log); /* as many calls as wanted */

#endif
