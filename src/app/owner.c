/* owner.c - who has a client's socket: a thread that asks the kernel, so that no worker does.
 *
 * A worker posts its question; the thread asks NETLINK_SOCK_DIAG for the user and, where a rule wants the program, walks /proc for the
 * process that has the socket (or asks the helper, which may see more), and posts the answer back. Flows from other machines, and
 * programs of users that /proc hides from us, have no answer: such a flow matches no rule of that kind. */
#include "owner.h"

#include "helper.h"
#include "program.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct owners {
    struct loop *loop;
    struct netlink *diag;
    struct helper *helper; /* sees the processes of all users; NULL: we look ourselves */
    struct log_sink *log;  /* of whoever made us */
    pthread_t thread;
    bool started;
};

static void find_program(struct owners *o, const struct nl_owner *owner, char out[FLOW_PROGRAM_MAX])
{
    if (o->helper != NULL)
        helper_program(o->helper, owner->uid, owner->inode, out);
    else
        program_of_socket(owner->uid, owner->inode, out);
}

/* [the thread] */
static void look_up(struct loop_msg *m)
{
    struct flow_owner_ask *ask = CONTAINER_OF(m, struct flow_owner_ask, msg);
    struct owners *o = ask->owners;
    struct nl_owner owner;

    ask->found = netlink_socket_owner(o->diag, &ask->key, &owner) == 0;
    ask->program[0] = '\0';
    if (ask->found) {
        ask->uid = owner.uid;
        if (ask->wants_program)
            find_program(o, &owner, ask->program);
    }
    m->fn = ask->answer;
    loop_post(ask->home, m);
}

static void *run(void *arg)
{
    struct owners *o = arg;

    log_use(o->log);
    loop_run(o->loop);
    return NULL;
}

int owners_new(struct helper *helper, struct netlink *diag, struct owners **out, struct err *err)
{
    struct owners *o = calloc(1, sizeof(*o));
    int r;

    if (o == NULL) {
        netlink_close(diag);
        return err_set(err, -ENOMEM, "out of memory");
    }
    o->diag = diag;
    o->helper = helper;
    o->log = log_in_use();
    r = diag == NULL ? netlink_open_diag(&o->diag, err) : 0;
    if (r == 0 && (r = loop_new(&o->loop)) != 0)
        err_set(err, r, "no event loop for look-ups of programs: %s", strerror(-r));
    if (r != 0) {
        owners_free(o);
        return r;
    }
    *out = o;
    return 0;
}

int owners_start(struct owners *o)
{
    int r = -pthread_create(&o->thread, NULL, run, o);

    o->started = r == 0;
    return r;
}

static void owners_stop(struct owners *o)
{
    if (o == NULL || !o->started)
        return;
    loop_stop(o->loop);
    pthread_join(o->thread, NULL);
    o->started = false;
}

void owners_free(struct owners *o)
{
    if (o == NULL)
        return;
    owners_stop(o);
    if (o->loop != NULL)
        loop_free(o->loop);
    netlink_close(o->diag);
    free(o);
}

void owners_ask(void *arg, struct flow_owner_ask *ask)
{
    struct owners *o = arg;

    ask->owners = o;
    ask->msg.fn = look_up;
    loop_post(o->loop, &ask->msg);
}
