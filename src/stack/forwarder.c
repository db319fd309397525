/* forwarder.c - echo messages in the shape that users of gVisor know (icmp.md 3.4): a thin layer over echo.c.
 * The right to reply stays with the one request inside struct forwarder, while its callback runs. */
#include "stack_impl.h"

static enum echo_verdict on_echo(void *arg, struct echo_req *r)
{
    struct forwarder *f = arg;
    bool handled;

    f->current = (struct forwarder_request){ .req = r, .owner = f };
    handled = f->fn(f->arg, &f->current);
    f->current.req = NULL;
    return handled ? ECHO_CONSUMED : ECHO_PASS;
}

bool forwarder_reply(struct forwarder_request *r)
{
    if (r->req == NULL || r != &r->owner->current)
        return false;
    if (!r->replied)
        r->replied = echo_reply(r->req) == EV_SENT;
    return r->replied;
}

void forwarder_init(struct forwarder *f, struct stack *s, forwarder_fn *fn, void *arg)
{
    *f = (struct forwarder){ .fn = fn, .arg = arg };
    stack_set_echo_handler(s, IP_FAMILY_4, ECHO_KIND_REQUEST | ECHO_KIND_REPLY, on_echo, f);
    stack_set_echo_handler(s, IP_FAMILY_6, ECHO_KIND_REQUEST | ECHO_KIND_REPLY, on_echo, f);
}
