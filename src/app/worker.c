/* worker.c - one thread's share of the gateway, wired together.
 *
 * A turn of its loop (tcp-stack.md 1.5): read one packet, or up to RX_BATCH from a busy queue, into the stack's slots, let
 * sockets and timers speak, take over what other workers handed to us, then one stack_batch_end(): callbacks first, then
 * every ACK and all data.
 * What a packet needs in another shard goes through a ring to that worker, with a doorbell; there is no lock anywhere. */
#include "owner.h"
#include "worker_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RX_BATCH      32
#define HANDOFF_BATCH 256
#define TRIM_US       1000000

struct handoff { /* a ring's record: this, then the packet */
    uint32_t origin;
    uint32_t len;
    struct pkt_meta meta;
};

/* ---- packets ---------------------------------------------------------------------------------------------------- */

static int emit(void *arg, const struct iovec *iov, int iovcnt, const struct pkt_meta *meta)
{
    struct worker *w = arg;

    return tun_write(w->tun, w->index, iov, iovcnt, meta);
}

static bool handoff(void *arg, uint32_t to, uint32_t origin, const void *packet, size_t len,
                    const struct pkt_meta *meta)
{
    struct worker *w = arg;
    struct ring *ring = w->peer[to]->inbox[w->index];
    struct handoff *record = ring_reserve(ring, sizeof(*record) + len);

    if (!record)
        return false;
    *record = (struct handoff){ origin, (uint32_t)len, *meta };
    memcpy(record + 1, packet, len);
    ring_commit(ring);
    w->ring_bell[to] = true;
    return true;
}

static void give_back(void *arg, void *memory, size_t bytes)
{
    (void)arg;
    madvise(memory, bytes, MADV_DONTNEED);
}

/* Memory that no flow has used for a second or two goes back to the system. The timer runs only while packets come, flows'
 * timers fire (what ends for want of packets), or there is more to give. */
static void on_trim(struct loop_timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, trim);
    bool more = stack_trim(w->stack, give_back, NULL);

    more = forward_trim(w->forward) || more;
    more = up_env_trim(w->env) || more;
    more = dns_service_trim(w->dns) || more;
    more = (w->echo && echo_proxy_trim(w->echo)) || more;
    worker_limit_packets(w);
    if (more)
        loop_timer_start(w->loop, &w->trim, loop_now_us(w->loop) + TRIM_US, on_trim);
}

static void trim_soon(struct worker *w)
{
    if (!loop_timer_active(&w->trim))
        loop_timer_start(w->loop, &w->trim, loop_now_us(w->loop) + TRIM_US, on_trim);
}

static void on_tun_readable(struct loop_io *io, unsigned events)
{
    struct worker *w = CONTAINER_OF(io, struct worker, tun_io);
    uint64_t turn = counter_read(&w->cnt.turns);

    /* A queue that had packets in the turn before as well is busy, and is read until it is empty. Otherwise this packet is taken to
     * be alone: that saves the read that would say so, half of all reads when clients wait for answers. */
    int most = w->rx_turn + 1 == turn ? RX_BATCH : 1;

    (void)events;
    w->rx_turn = turn;
    trim_soon(w);
    for (int i = 0; i < most; i++) {
        struct pkt_meta meta;
        ssize_t n = tun_read(w->tun, w->index, stack_rx_slot(w->stack), STACK_SLOT_BYTES, &meta);

        if (n > 0) {
            stack_input(w->stack, loop_now_us(w->loop), (size_t)n, &meta);
        } else if (n == -EBADFD) {
            loop_io_stop(w->loop, io); /* poll would say ERR for ever; main re-creates the device */
            tun_report_gone(w->tun, w->index);
            return;
        } else if (n != -EPROTO) {
            return;
        }
    }
}

static void take_handoffs(struct worker *w)
{
    bool more = false;

    for (uint32_t from = 0; from < w->count; from++) {
        struct ring *ring = w->inbox[from];
        const struct handoff *record;
        size_t len;
        int left = HANDOFF_BATCH;

        if (!ring)
            continue;
        while (left-- > 0 && (record = ring_peek(ring, &len)) != NULL) {
            stack_input_handoff(w->stack, loop_now_us(w->loop), record->origin, record + 1, record->len,
                                &record->meta);
            ring_pop(ring);
            trim_soon(w);
        }
        more = more || left < 0;
    }
    if (more)
        loop_ring_doorbell(w->loop);
}

static void ring_bells(struct worker *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        if (!w->ring_bell[i])
            continue;
        w->ring_bell[i] = false;
        loop_ring_doorbell(w->peer[i]->loop);
    }
}

/* ---- time ----------------------------------------------------------------------------------------------------------- */

static void on_timer(struct loop_timer *t)
{
    struct worker *w = CONTAINER_OF(t, struct worker, timer);

    w->timer_us = UINT64_MAX;
    trim_soon(w);
    stack_advance(w->stack, loop_now_us(w->loop));
}

static void set_timer(struct worker *w)
{
    uint64_t next_us = stack_next_deadline(w->stack);

    if (next_us == w->timer_us)
        return;
    w->timer_us = next_us;
    if (next_us == UINT64_MAX)
        loop_timer_stop(w->loop, &w->timer);
    else
        loop_timer_start(w->loop, &w->timer, next_us, on_timer);
}

/* A socket may speak before any packet does: what it brings leaves now, and not when the last packet came. */
static void on_turn_begin(void *arg)
{
    struct worker *w = arg;

    if (w->stack)
        stack_time(w->stack, loop_now_us(w->loop));
}

static void on_turn_end(void *arg)
{
    struct worker *w = arg;

    if (!w->stack)
        return;
    counter_add(&w->cnt.turns, 1);
    take_handoffs(w);
    stack_batch_end(w->stack, loop_now_us(w->loop));
    if (w->count > 1)
        ring_bells(w);
    set_timer(w);
}

/* ---- names ------------------------------------------------------------------------------------------------------------- */

static int resolver_socket(void *arg, int family, int type, const struct ip_port *dst)
{
    struct worker *w = arg;

    (void)family; /* dst says it */
    return up_socket(w->env, NULL, type, dst);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

static int env_open(struct worker *w, const struct worker_setup *setup)
{
    struct up_env_options opt = {
        .loop = w->loop,
        .wheel = stack_wheel(w->stack),
        .rules = setup->rules_of_sockets,
        .own = setup->own,
        .resolve = worker_resolve,
        .resolve_cancel = worker_resolve_cancel,
        .resolve_arg = w,
        .on_group_tested = worker_on_group_tested,
        .on_group_switch = worker_on_group_switch,
        .on_group_no_udp = worker_on_group_no_udp,
        .group_arg = w,
        .max_streams = setup->max_streams,
        .max_udp = setup->max_udp,
        .seed = setup->seed,
    };

    return up_env_new(&opt, &w->env);
}

static int stack_open(struct worker *w, const struct worker_setup *setup)
{
    struct stack_events ev = { .driver = w, .emit = emit, .handoff = handoff };

    forward_stack_events(&ev);
    w->stack_bytes = stack_memory_bytes(&setup->stack);
    w->stack_memory = mmap(NULL, w->stack_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (w->stack_memory == MAP_FAILED) {
        w->stack_memory = NULL;
        return -ENOMEM;
    }
    w->stack = stack_init(w->stack_memory, &setup->stack, &ev, w->forward, clock_now_us());
    return w->stack ? 0 : -EINVAL;
}

static int inboxes_open(struct worker *w)
{
    for (uint32_t from = 0; from < w->count; from++) {
        void *memory;

        if (from == w->index)
            continue;
        w->inbox[from] = aligned_alloc(CACHE_LINE, sizeof(struct ring));
        if (!w->inbox[from])
            return -ENOMEM;
        memset(w->inbox[from], 0, sizeof(struct ring));
        memory = mmap(NULL, HANDOFF_RING_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
            return -ENOMEM;
        ring_init(w->inbox[from], memory, HANDOFF_RING_BYTES, HANDOFF_RING_PACKETS);
    }
    return 0;
}

static int parts_open(struct worker *w, const struct worker_setup *setup, const struct forward_setup *fs,
                      const struct resolver_options *names)
{
    int r;

    if ((r = inboxes_open(w)) != 0 || (r = forward_new(fs, &w->forward)) != 0 ||
        (r = worker_last_open(w)) != 0 || (r = stack_open(w, setup)) != 0 || (r = env_open(w, setup)) != 0 ||
        (r = worker_echo_open(w, forward_policy_options(setup->policy))) != 0)
        return r;
    r = resolver_new(w->loop, names, &w->resolver);
    return r != 0 ? r : worker_names_open(w, setup);
}

int worker_new(const struct worker_setup *setup, struct worker **out, struct err *err)
{
    struct worker *w = calloc(1, sizeof(*w));
    struct resolver_options names = setup->resolver;
    struct forward_setup fs = {
        .policy = setup->policy,
        .own = setup->own,
        .gateway = { setup->gateway[0], setup->gateway[1] },
        .worker = setup->index,
    };
    int r;

    if (!w)
        return err_set(err, -ENOMEM, "no memory for worker %u", setup->index);
    w->index = setup->index;
    w->count = setup->count;
    w->tun = setup->tun;
    w->timer_us = UINT64_MAX;
    w->echo_guard = setup->echo_guard;
    w->policy = forward_policy_ref(setup->policy);
    w->tun_is_default = setup->tun_is_default;
    w->seed = setup->seed;
    w->shares = setup->shares;
    w->book = setup->book;
    w->log = log_in_use();
    w->socket_rules = setup->rules_of_sockets;
    names.make_socket = resolver_socket;
    names.socket_arg = w;
    if ((r = loop_new(&w->loop)) == 0) {
        fs.loop = w->loop;
        r = parts_open(w, setup, &fs, &names);
    }
    if (r != 0) {
        worker_free(w);
        return err_set(err, r, "worker %u cannot be set up: %s%s", setup->index, strerror(-r),
                       r == -ENOMEM ? " (is address space limited, by ulimit -v or LimitAS=? Then allow more)"
                                    : "");
    }
    forward_attach(w->forward, w->stack, w->env);
    worker_shared_memory(w, setup->policy);
    if (setup->count > 1)
        forward_attach_shares(w->forward, setup->want_share, setup->want_arg);
    if (setup->owners)
        forward_attach_owners(w->forward, owners_ask, setup->owners);
    loop_on_turn_begin(w->loop, on_turn_begin, w);
    loop_on_turn_end(w->loop, on_turn_end, w);
    *out = w;
    return 0;
}

void worker_connect(struct worker *w, struct worker *const *all, uint32_t count)
{
    assert(count == w->count);
    for (uint32_t i = 0; i < count; i++)
        w->peer[i] = all[i];
}

void worker_read_again(struct worker *w)
{
    if (!loop_io_active(&w->tun_io))
        loop_io_start(w->loop, &w->tun_io, tun_queue_fd(w->tun, w->index), LOOP_READ, on_tun_readable);
}

static void *run(void *arg)
{
    struct worker *w = arg;
    char name[16];

    log_use(w->log);
    snprintf(name, sizeof(name), "worker-%u", w->index);
    pthread_setname_np(pthread_self(), name); /* of another thread it would be a write into /proc */
    (void)loop_short_slices();                /* a preference */
    worker_groups_start(w, w->policy);
    forward_policy_unref(w->policy);
    w->policy = NULL;
    worker_read_again(w);
    loop_run(w->loop);
    forward_end_flows(w->forward); /* clients see a reset, not silence */
    stack_batch_end(w->stack, loop_now_us(w->loop));
    return NULL;
}

int worker_start(struct worker *w)
{
    int r = -pthread_create(&w->thread, NULL, run, w);

    w->started = r == 0;
    return r;
}

void worker_stop(struct worker *w)
{
    if (!w->started)
        return;
    loop_stop(w->loop);
    pthread_join(w->thread, NULL);
    w->started = false;
}

/* The reverse of worker_new(). Flows end first, while everything that they use is still there. */
void worker_free(struct worker *w)
{
    if (!w)
        return;
    if (w->loop) {
        loop_io_stop(w->loop, &w->tun_io);
        loop_timer_stop(w->loop, &w->timer);
        loop_timer_stop(w->loop, &w->trim);
    }
    echo_proxy_free(w->echo); /* its timers are in the stack's wheel */
    if (w->stack)
        stack_fini(w->stack);
    w->stack = NULL;
    forward_stop(w->forward);
    worker_names_close(w);
    worker_fetches_end(w);
    if (w->env)
        up_env_free(w->env);
    resolver_free(w->resolver);
    loop_free(w->loop); /* runs what was still posted */
    forward_free(w->forward);
    if (w->stack_memory)
        munmap(w->stack_memory, w->stack_bytes);
    for (uint32_t from = 0; from < w->count; from++) {
        if (!w->inbox[from])
            continue;
        if (w->inbox[from]->data)
            munmap(w->inbox[from]->data, HANDOFF_RING_BYTES);
        free(w->inbox[from]);
    }
    forward_policy_unref(w->policy); /* of a worker that never ran */
    free(w->own_rules);
    free(w->ended);
    free(w->last);
    free(w);
}

struct loop *worker_loop(struct worker *w)
{
    return w->loop;
}
