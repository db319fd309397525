/* udp_held.c - datagrams that wait, copied, in order: for an association to open, or for a name (faults.md U7). */
#include "forward_impl.h"

bool udp_walk_next(struct udp_walk *w, struct iovec *out)
{
    const struct iovec *r = &w->row->data[w->range];
    size_t size = w->row->gso_size;

    if (w->range == w->row->ranges)
        return false;
    out->iov_base = (uint8_t *)r->iov_base + w->at;
    out->iov_len = size > 0 && r->iov_len - w->at > size ? size : r->iov_len - w->at;
    w->at += out->iov_len;
    if (w->at == r->iov_len) {
        w->range++;
        w->at = 0;
    }
    return true;
}

bool held_add(struct forward *f, struct held_list *l, const struct udp_datagram *d, const struct iovec *data)
{
    struct held *h;

    if (data->iov_len > HELD_BYTES)
        return false;
    if (l->count == HELD_MAX)
        slab_put(&f->held, held_take(l));
    h = slab_get(&f->held);
    if (!h)
        return false;
    h->next = NULL;
    h->target = d->target;
    h->len = (uint16_t)data->iov_len;
    h->ttl = d->ttl;
    h->tos = d->tos;
    memcpy(h->data, data->iov_base, data->iov_len);
    if (l->first)
        l->last->next = h;
    else
        l->first = h;
    l->last = h;
    l->count++;
    return true;
}

void held_add_row(struct forward *f, struct held_list *l, const struct udp_datagram *d)
{
    struct udp_walk w = { .row = d };
    struct iovec one;

    while (udp_walk_next(&w, &one))
        held_add(f, l, d, &one); /* one that is too long has to be repeated anyway */
}

struct held *held_take(struct held_list *l)
{
    struct held *h = l->first;

    if (h) {
        l->first = h->next;
        l->count--;
    }
    return h;
}

void held_drop(struct forward *f, struct held_list *l)
{
    struct held *h;

    while ((h = held_take(l)) != NULL)
        slab_put(&f->held, h);
}

void held_refuse(struct forward *f, struct held_list *l, struct udp_endpoint *client, enum stack_reject how)
{
    struct held *h;

    while ((h = held_take(l)) != NULL) {
        if (how != REJECT_SILENT)
            udp_endpoint_error(client, &h->target, NULL, how, 0);
        slab_put(&f->held, h);
    }
}
