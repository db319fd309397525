/* culvert_impl.h - the inside of one gateway as culvert.h hands it out, and what `culvert run` sees of it beyond that header.
 * culvert.c makes and ends it, culvert_main.c is its main thread from opening to undoing, culvert_call.c and
 * culvert_control.c what other threads and the control socket ask of that thread. */
#ifndef CULVERT_APP_CULVERT_IMPL_H
#define CULVERT_APP_CULVERT_IMPL_H

#include <pthread.h>

#include "culvert.h"
#include "culvert/api.h"
#include "culvert/config.h"
#include "culvert/loop.h"
#include "gateway.h"
#include "stages.h"

#define CULVERT_API_PATH "/run/culvert/api.sock"

/* What a process adds that is the gateway and nothing else; all of them [main], and each may be NULL. */
struct culvert_hooks {
    /* Lines go to the process's log, a stuck worker ends it, and the service manager hears of it. */
    bool is_process;
    /* Of every load, instead of the sentence. */
    void (*on_messages)(void *arg, const struct config_messages *m);
    void (*on_loop)(void *arg, struct loop *l); /* it is there and does not run yet: for signals */
    void (*on_ready)(void *arg, const char *line);
    void (*on_reload)(void *arg, bool begins);
    void (*on_ending)(void *arg); /* the loop has ended, and nothing is undone yet */
    void *arg;
};

enum culvert_phase { CULVERT_MADE, CULVERT_STARTING, CULVERT_RUNNING, CULVERT_ENDED };

struct culvert_call { /* another thread's question to the main thread; its memory, until `done` */
    struct loop_msg msg;
    struct culvert *c;
    struct culvert_call *next;
    void (*fn)(struct culvert_call *call); /* [main]; ends in culvert_answer(), now or later */
    int result;
    bool done;
};

#define CULVERT_SIZE_MAX 4096 /* of the structs that grow: more is a mistake */

struct culvert {
    struct culvert_options opt; /* strings are ours; no descriptors; config_text may be a later one [main] */
    struct culvert_hooks hooks;
    struct config *loaded;
    struct config config; /* the loaded one with the program's changes; shares its strings */
    int tun_fds[TUN_QUEUES_MAX];
    size_t tun_fd_count;
    struct log_sink *log; /* NULL: the process's */
    /* The main thread's. */
    struct netlink *netlink;
    struct gateway *gateway;
    struct api *api;
    struct stages stages;
    int claim;      /* on our device's name: descriptor, or -errno */
    bool alone;     /* no other culvert has our device, as far as we know */
    struct err why; /* of `result`, once it has ended */
    /* Any thread's, under the lock; nothing is logged or called while it is held. */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* phase, or a call's `done` */
    enum culvert_phase phase;
    struct loop *loop; /* NULL: nobody to be called */
    bool stop;
    int result;
    struct culvert_call *calls; /* not answered yet */
    pthread_t thread;
    bool has_thread;
};

/* ---- culvert.c ---- */
/** culvert_make() - culvert_new(), with hooks; NULL: none */
int culvert_make(const struct culvert_options *opt, const struct culvert_hooks *hooks, struct culvert **out,
                 char *why, size_t why_len);
/** culvert_load() - the configuration as it is now, into *out, the caller's; @text: instead of the options'
 * Return: 0; -errno with what is wrong in @why, unless hooks.on_messages was told. */
int culvert_load(const struct culvert *c, const char *text, struct config **out, char *why, size_t why_len);
void culvert_set_phase(struct culvert *c, enum culvert_phase phase);

/* ---- culvert_main.c ---- */
/** culvert_main() - open, run until culvert_stop(), undo; [main] from here on is the calling thread
 * @err: a sentence when it does not return 0. The phase goes to RUNNING and ENDED. */
int culvert_main(struct culvert *c, struct err *err);

/* ---- culvert_control.c ---- */
/** culvert_open_control() - before anything of the machine is touched; asked by nobody before the loop runs, when the gateway is there
 * Sockets that the file names must work; the default one is used where it can be. Return: 0; -EINVAL, -EALREADY, -ENOMEM with a sentence */
int culvert_open_control(struct culvert *c, struct err *err);

/* ---- culvert_call.c ---- */
/** culvert_reload_now() - culvert_reload() [main] */
int culvert_reload_now(struct culvert *c, const char *text, uint32_t drain_ms, char *why, size_t why_len);
void culvert_answer(struct culvert_call *call, int result);
void culvert_end_calls(struct culvert *c); /* the gateway has ended: who still waits hears -ESRCH */

#endif
