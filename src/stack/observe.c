/* observe.c - raw observers: whoever wants a look at every datagram that arrives (icmp.md 2.1 step 3).
 * They see a datagram before its addresses and its ICMP checksum are judged, and change nothing. */
#include "ip_impl.h"

int stack_observe(struct stack *s, stack_observer *fn, void *arg)
{
    for (size_t i = 0; i < ARRAY_LEN(s->observer); i++) {
        if (s->observer[i].fn == NULL) {
            s->observer[i] = (struct observer){ fn, arg };
            s->observers++;
            return 0;
        }
    }
    return -ENOBUFS;
}

void stack_unobserve(struct stack *s, stack_observer *fn, void *arg)
{
    for (size_t i = 0; i < ARRAY_LEN(s->observer); i++) {
        if (s->observer[i].fn == fn && s->observer[i].arg == arg) {
            s->observer[i] = (struct observer){ 0 };
            s->observers--;
            return;
        }
    }
}

void observers_show(struct stack *s, const uint8_t *packet, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(s->observer); i++) {
        struct observer o = s->observer[i];

        if (o.fn != NULL)
            o.fn(o.arg, packet, len);
    }
}
