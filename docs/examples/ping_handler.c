/* ping_handler.c - the stack in a program of your own: a TUN device, and a say in who answers a ping.
 *
 *     ping_handler DEVICE ADDRESS [none | pass | consume | reply]
 *
 * ADDRESS is the stack's own, as in 10.9.0.2/24; give it more than once for both families. The device is made
 * here and yours to configure: ip address add 10.9.0.1/24 dev DEVICE; ip link set DEVICE up. Then ping ADDRESS,
 * which is assigned to the stack, and any other address behind the device, which is not: the stack takes those
 * because it is promiscuous.
 *
 *     handler    assigned address          any other address
 *     none       the stack replies         IPv6: the stack replies; IPv4: silence
 *     pass       asked; the stack replies  asked; IPv6: the stack replies; IPv4: silence
 *     consume    asked; silence            asked; silence
 *     reply      asked; replied once       asked; replied once, from the address that was pinged
 *
 * The end of standard input ends the program; it then says what was counted. Everything it needs is libculvert
 * (src/stack and src/base): the stack has no thread, clock or descriptor of its own, so all of those are here.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "culvert/stack.h"

struct program {
    int tun;
    struct stack *stack;
    const char *mode;
};

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- the handler: this is what the program is about ---------------------------------------------------- */

static enum echo_verdict on_echo(void *arg, struct echo_req *r)
{
    struct program *p = arg;
    char target[IP_TEXT_MAX];

    printf("asked about %s%s, id %u, seq %u\n", ip_text(&r->dst, target),
           r->flags & ECHO_TEMPORARY ? " (not assigned)" : "", r->id, r->seq);
    if (strcmp(p->mode, "reply") == 0) {
        enum echo_result sent = echo_reply(r), again = echo_reply(r);

        printf("%s, and once only: %s\n", sent == EV_SENT ? "replied" : "not replied",
               again == EV_ALREADY ? "yes" : "no");
    }
    return strcmp(p->mode, "pass") == 0 ? ECHO_PASS : ECHO_CONSUMED;
}

/* ---- the rest of an embedder --------------------------------------------------------------------------- */

static int emit(void *arg, const struct iovec *iov, int iovcnt, const struct pkt_meta *meta)
{
    struct program *p = arg;

    (void)meta; /* no offload was promised, so nothing is asked for */
    return writev(p->tun, iov, iovcnt) < 0 ? -errno : 0;
}

/* Who decides nothing about TCP and UDP turns them down. */
static void refuse_tcp(void *arg, struct tcp_request *r)
{
    (void)arg;
    tcp_request_reject(r, REJECT_RST);
}

static void forget_tcp(void *user, int err)
{
    (void)user;
    (void)err;
}

static int open_tun(const char *name)
{
    struct ifreq ifr = { .ifr_flags = IFF_TUN | IFF_NO_PI };
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return -1;
    strncpy(ifr.ifr_name, name, sizeof(ifr.ifr_name) - 1);
    if (ioctl(fd, TUNSETIFF, &ifr) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void read_packets(struct program *p)
{
    const struct pkt_meta none = { 0 };
    ssize_t n;

    while ((n = read(p->tun, stack_rx_slot(p->stack), STACK_SLOT_BYTES)) > 0)
        stack_input(p->stack, now_us(), (size_t)n, &none);
    stack_batch_end(p->stack, now_us());
}

static int timeout_ms(const struct stack *s)
{
    uint64_t deadline = stack_next_deadline(s), now = now_us();

    if (deadline == UINT64_MAX)
        return -1;
    return deadline <= now ? 0 : (int)((deadline - now + 999) / 1000 % 60000);
}

static void run(struct program *p)
{
    struct pollfd fds[] = { { .fd = p->tun, .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };
    char ignored[256];

    while (poll(fds, 2, timeout_ms(p->stack)) >= 0 || errno == EINTR) {
        read_packets(p);
        stack_advance(p->stack, now_us());
        if (fds[1].revents != 0 && read(STDIN_FILENO, ignored, sizeof(ignored)) <= 0)
            return;
    }
}

static void tell(const struct program *p)
{
    const struct stack_counters *c = stack_counters(p->stack);

    printf("IPv4: %llu requests, %llu replies; IPv6: %llu requests, %llu replies\n",
           (unsigned long long)c->icmp4_rx_echo_request, (unsigned long long)c->icmp4_tx_echo_reply,
           (unsigned long long)c->icmp6_rx_echo_request, (unsigned long long)c->icmp6_tx_echo_reply);
}

static int configure(struct stack_config *c, struct program *p, int argc, char **argv)
{
    static const char *const modes[] = { "none", "pass", "consume", "reply" };

    stack_config_defaults(c);
    c->rx_slots = 16;
    c->buffer_cap_bytes = 8 << 20;
    c->max_tcp = c->max_udp = c->max_half_open = c->max_time_wait = 64;
    c->seed = now_us(); /* a server of strangers takes these three from random_bytes() */
    c->secret = (struct hash_key){ now_us(), (uint64_t)getpid() };
    c->steer_key = c->secret;
    p->mode = "none";
    for (int i = 2; i < argc; i++) {
        struct ip_prefix address;
        bool is_mode = false;

        for (size_t k = 0; k < ARRAY_LEN(modes); k++)
            is_mode = is_mode || strcmp(argv[i], modes[k]) == 0;
        if (is_mode) {
            p->mode = argv[i];
        } else if (ip_interface_parse(argv[i], &address) == 0 && c->addresses < ARRAY_LEN(c->address)) {
            c->address[c->addresses] = address.addr;
            c->address_len[c->addresses++] = address.len;
        } else {
            return -1;
        }
    }
    return c->addresses > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct stack_events ev = {
        .emit = emit, .on_tcp_request = refuse_tcp, .on_tcp_request_gone = forget_tcp, .on_echo = on_echo
    };
    struct program p = { .tun = -1 };
    struct stack_config c;
    void *memory;
    size_t bytes;

    if (argc < 3 || configure(&c, &p, argc, argv) != 0) {
        fprintf(stderr, "usage: %s DEVICE ADDRESS/LENGTH... [none | pass | consume | reply]\n", argv[0]);
        return 2;
    }
    if (strcmp(p.mode, "none") == 0)
        ev.on_echo = NULL;
    p.tun = open_tun(argv[1]);
    if (p.tun < 0) {
        fprintf(stderr, "cannot make the TUN device %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    bytes = stack_memory_bytes(&c); /* address space; only what is used becomes memory */
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    p.stack = memory == MAP_FAILED ? NULL : stack_init(memory, &c, &ev, &p, now_us());
    if (p.stack == NULL) {
        fprintf(stderr, "the stack does not take this configuration\n");
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready: %s\n", p.mode);
    run(&p);
    tell(&p);
    stack_fini(p.stack);
    munmap(memory, bytes);
    close(p.tun);
    return 0;
}
