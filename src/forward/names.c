/* names.c - names of flows: what stands behind the address that a client dials (config.md section 1.6).
 * A fake address is its name and nothing else; what has been an answer of a name server has its name beside it, for rules. */
#include "forward_impl.h"

void flow_name_find(struct forward *f, const struct ip_addr *addr, struct flow_name *out)
{
    out->known = NAME_UNKNOWN;
    if (f->book)
        out->known = name_book_find(f->book, addr, loop_now_us(f->loop), out->text, true);
}

const char *flow_name_shown(struct forward *f, const struct ip_addr *addr, char name[256])
{
    enum name_known known = NAME_UNKNOWN;

    if (f->book)
        known = name_book_find(f->book, addr, loop_now_us(f->loop), name, false);
    if (known != NAME_FAKE && known != NAME_REAL)
        name[0] = 0;
    return name;
}

void flow_name_release(struct forward *f, const struct ip_addr *addr)
{
    name_book_release(f->book, addr);
}

void flow_name_unknown(struct forward *f, const struct flow_key *key)
{
    struct ip_port from = { key->client, key->client_port }, to = { key->target, key->target_port };
    char from_text[IP_PORT_TEXT_MAX], to_text[IP_PORT_TEXT_MAX];
    uint32_t held;

    FCOUNT(f, fakeip_unknown);
    if (log_limit_pass(&f->limits[LOG_FAKE], loop_now_us(f->loop), 1, &held))
        log_info("%s -> %s: fakeip.unknown: a fake address that stands for no name (any more); the client "
                 "asks anew "
                 "(%u more held back)",
                 ip_port_text(&from, from_text), ip_port_text(&to, to_text), held);
}

struct host_port flow_name_target(const struct flow_name *n, const struct ip_port *dst)
{
    switch (n->known) {
    case NAME_FAKE:
        return (struct host_port){ .name = n->text, .port = dst->port };
    case NAME_REAL:
        return (struct host_port){ n->text, dst->addr, dst->port };
    case NAME_UNKNOWN:
    case NAME_FAKE_UNKNOWN:
        break;
    }
    return (struct host_port){ NULL, dst->addr, dst->port };
}
