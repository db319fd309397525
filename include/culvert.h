/* culvert.h - a whole gateway inside another program: what `culvert run` does, as a library.
 *
 *     struct culvert_options opt = { .size = sizeof(opt), .config_file = "gateway.yaml", .on_log = say };
 *     struct culvert *gateway;
 *     char why[512];
 *
 *     if (culvert_new(&opt, &gateway, why, sizeof(why)) != 0 || culvert_start(gateway, why, sizeof(why)) != 0)
 *         fprintf(stderr, "%s\n", why);
 *     ...
 *     culvert_free(gateway);
 *
 * docs/examples/embed.c is a whole program. Link with `pkg-config --libs libculvert-gateway`; nothing but the functions below can be
 * seen of the library.
 *
 * What it leaves alone. It sets no signal handler, never ends the process, keeps nothing in global variables (any number of gateways
 * may run, at once or one after another), writes nothing to the program's descriptors when there is a log callback, and changes no
 * credential, limit or working directory. Threads of its own have all signals blocked but those of a crash. Routes, rules,
 * resolv.conf and the TUN are touched where the configuration says so (`tun.auto-route`, `tun.system-dns`), and put back at the end.
 * Beneath it libev is one for the process: its allocator is set when the first gateway is made, to one that calls malloc().
 *
 * Threads   any thread may call any function, and several at once, but none uses a gateway while or after culvert_free() runs for it.
 *           Callbacks come from the gateway's own threads; in them culvert_stop() alone may be called, others return -EDEADLK.
 * Errors    0 or -errno, and beside it a sentence for people in the caller's buffer: what is wrong, and what would work. Several
 *           mistakes of a configuration are a line each, FILE:LINE:COLUMN in front; what does not fit the buffer is cut. The buffer
 *           is "" when there is nothing to say; it may be NULL with a size of 0.
 * Linux     5.10 and later. CAP_NET_ADMIN, unless the TUN is handed over and no route is asked for. */
#ifndef CULVERT_H
#define CULVERT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CULVERT_PUBLIC __attribute__((visibility("default")))

struct culvert; /* one gateway */

enum culvert_level { CULVERT_LOG_ERROR, CULVERT_LOG_WARNING, CULVERT_LOG_INFO, CULVERT_LOG_DEBUG };

enum culvert_flags {
    /* The descriptors' TUN belongs to another network namespace, or netlink is not ours to use: touch no link, address or route.
     * Then the MTU is that of the configuration. */
    CULVERT_TUN_ELSEWHERE = 1,
    /* Read and write runtime.state-dir: fake addresses and choices of groups outlive a restart. */
    CULVERT_KEEP_STATE = 2,
    /* Open the control socket (`api` of the configuration), for `culvert status` and its like. */
    CULVERT_CONTROL_SOCKET = 4,
    /* Give up privileges as runtime.user and runtime.sandbox say. For culvert_run() only, in the only thread of the process, since it
     * is the process that changes: user, capabilities, files and system calls, for good. A helper process is forked. Without this
     * flag runtime.user and runtime.sandbox do nothing, and the first of them is worth a warning in the log. */
    CULVERT_DROP_PRIVILEGES = 8,
};

/* Zero is the default of each; all of it is copied by culvert_new(). How it grows: a later version adds members at the end and changes no
 * other, and takes every size that it has had, the rest being zero. A library older than the program's header takes a larger one, as long
 * as nothing is set in it that it does not know. */
struct culvert_options {
    size_t size; /* of this struct, as the program was built with it: at most 4,096 */
    /* The configuration: exactly one of these three. */
    const char *config_file; /* path of a YAML file (docs/config.md); a reload reads it again */
    const char *config_text; /* the same as text; relative paths in it are those of the working directory */
    /* "socks5://192.0.2.10:1080": everything through it, as `culvert run --proxy` does */
    const char *proxy_url;
    /* The device: by default the one that the configuration names, which is made and goes away again. */
    const char *tun_name; /* its name, instead of the configuration's */
    /* Open queues of a TUN device of the program's (IFF_NO_PI; with IFF_VNET_HDR and IFF_MULTI_QUEUE where it has them). The gateway
     * works on duplicates, which culvert_new() makes: the caller's stay open and are the caller's. */
    const int *tun_fds;
    size_t tun_fd_count;
    unsigned flags; /* enum culvert_flags */
    /* Each line of the log up to the configuration's log.level, without time and newline, with control bytes escaped; @line is
     * borrowed. Several threads call it at once, and packets wait meanwhile, so it should not block. NULL: lines go where
     * log.output says, which is stderr. */
    void (*on_log)(void *arg, enum culvert_level level, const char *line);
    /* The gateway has ended: @err is 0 after culvert_stop(), or -errno with a sentence when it could not go on. Called at most once,
     * for a gateway that was running; that may be before culvert_start() has returned. */
    void (*on_end)(void *arg, int err, const char *why);
    void *arg; /* of both */
};

/** culvert_new() - read and check the configuration; nothing of the machine is touched
 * @out: ended by culvert_free(). Return: 0; -EINVAL: the options or the configuration are wrong; -ENOENT, -EACCES, ... the file
 * cannot be read; -ENOMEM. */
CULVERT_PUBLIC int culvert_new(const struct culvert_options *opt, struct culvert **out, char *why,
                               size_t why_len);

/** culvert_start() - open the TUN, make routes, start the threads; once in the life of a gateway
 * Return: 0: packets are being forwarded; -EALREADY: it was started before; -EINVAL, -EBUSY, -EPERM, ... it cannot be had, and
 * everything is as it was. */
CULVERT_PUBLIC int culvert_start(struct culvert *c, char *why, size_t why_len);

/** culvert_run() - the same in the calling thread, which is the gateway's until it ends
 * Return: 0 after culvert_stop(); -errno with a sentence: it could not start or not go on. */
CULVERT_PUBLIC int culvert_run(struct culvert *c, char *why, size_t why_len);

/** culvert_stop() - let it end: flows are reset, routes put back, the device closed. Returns at once; NULL is fine. It takes
 * a lock, so it is not for signal handlers. Before the start: the start then fails with -ECANCELED. */
CULVERT_PUBLIC void culvert_stop(struct culvert *c);

/** culvert_wait() - until it has ended
 * @timeout_ms: -1 for ever. Return: 0: it has, after culvert_stop(); -ETIMEDOUT: it has not; another -errno with a sentence: it could
 * not go on, or never started (-ESRCH). */
CULVERT_PUBLIC int culvert_wait(struct culvert *c, int timeout_ms, char *why, size_t why_len);

/** culvert_free() - stop, wait, and forget it; NULL is fine */
CULVERT_PUBLIC void culvert_free(struct culvert *c);

#define CULVERT_NO_DRAIN UINT32_MAX
/** culvert_reload() - decide new flows by the configuration as it is now; live ones keep what they have
 * @text: the new configuration; NULL: config_file is read again, or without a file the last text that was taken, or proxy_url
 * @drain_ms: after this time, flows whose way out is not in it any more are ended; CULVERT_NO_DRAIN: never.
 * Return: 0; -EINVAL or another -errno with a sentence, and nothing has changed; -ESRCH: it does not run. */
CULVERT_PUBLIC int culvert_reload(struct culvert *c, const char *text, uint32_t drain_ms, char *why,
                                  size_t why_len);

struct culvert_status {
    size_t
        size; /* set by the caller; grows as culvert_options does, and what the library does not know becomes 0 */
    uint64_t uptime_ms;
    uint32_t workers, mtu;
    uint64_t tcp_flows, udp_flows, half_open;              /* now */
    uint64_t packets_in, bytes_in, packets_out, bytes_out; /* of the TUN since the start; in: read from it */
    uint64_t memory_bytes, memory_budget_bytes; /* of the process; limits.memory as it is in force */
    uint64_t log_lines_lost;
    char tun[16]; /* name of the device */
};
/** culvert_status() - ask all workers, and add up
 * Return: 0; -ESRCH: it does not run; -ENOMEM; -EINVAL: `size` is wrong. */
CULVERT_PUBLIC int culvert_status(struct culvert *c, struct culvert_status *out);
/** culvert_counter() - one of the counters that `culvert status` shows, of all workers together: "tcp.rst_sent"
 * Return: 0; -ENOENT: there is none of this name; or as above. */
CULVERT_PUBLIC int culvert_counter(struct culvert *c, const char *name, uint64_t *out);

CULVERT_PUBLIC const char *culvert_version(void); /* of the library: "0.1.0" */

#ifdef __cplusplus
}
#endif

#endif
