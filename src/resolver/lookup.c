/* lookup.c - addresses of a name for our own dialling, through the configured name servers: A and AAAA as two asks. */
#include "service_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct half {
    struct dns_lookup *lookup;
    struct dns_ask *ask;
    struct dns_question question;
    struct dns_answer answer;
    bool done, good, empty;
};

struct dns_lookup {
    struct half half[2]; /* AAAA, A: in the order of preference (RFC 8305 section 4) */
    up_resolved_fn *fn;
    void *arg;
    bool starting; /* its asks are being made: their replies may come at once */
};

/* Families alternate. */
static size_t merge(const struct dns_lookup *l, struct ip_addr out[RESOLVER_ADDRS_MAX])
{
    size_t n = 0;

    for (size_t i = 0; i < DNS_ADDRS_MAX; i++) {
        for (size_t k = 0; k < 2; k++) {
            if (l->half[k].good && i < l->half[k].answer.n_addrs && n < RESOLVER_ADDRS_MAX)
                out[n++] = l->half[k].answer.addrs[i];
        }
    }
    return n;
}

static void finish(struct dns_lookup *l)
{
    struct ip_addr addrs[RESOLVER_ADDRS_MAX];
    size_t n;
    int err;

    if (l->starting || !l->half[0].done || !l->half[1].done)
        return;
    n = merge(l, addrs);
    err = n > 0 ? 0 : l->half[0].empty && l->half[1].empty ? -ENOENT : -EHOSTUNREACH;
    l->fn(l->arg, err, addrs, n);
    free(l);
}

static void on_reply(void *arg, const uint8_t *message, size_t len)
{
    struct half *h = arg;

    h->done = true;
    h->ask = NULL;
    if (message != NULL && dns_read_answer((struct span){ message, len }, 0, &h->question, &h->answer) == 0) {
        h->good = h->answer.rcode == DNS_NOERROR && h->answer.n_addrs > 0;
        h->empty = !h->good && (h->answer.rcode == DNS_NOERROR || h->answer.rcode == DNS_NXDOMAIN);
    }
    finish(h->lookup);
}

static int half_start(struct dns_service *s, struct dns_lookup *l, size_t k, const char *name)
{
    struct half *h = &l->half[k];
    struct dns_ask *a;
    bool ended = false;

    h->lookup = l;
    h->question = (struct dns_question){ .type = k == 0 ? DNS_AAAA : DNS_A, .class = DNS_IN };
    if (dns_name_from_text(name, &h->question.name) != 0)
        return -EINVAL;
    a = ask_new(s, on_reply, h);
    if (a == NULL)
        return -EAGAIN;
    a->internal = true;
    a->plain = true;
    a->query = (struct dns_query){ .recursion_desired = true, .has_question = true, .question = h->question };
    memcpy(a->name, name, strlen(name) + 1);
    a->ended = &ended;
    ask_start(a);
    if (!ended) {
        a->ended = NULL;
        h->ask = a;
    }
    return 0;
}

int dns_service_lookup(struct dns_service *s, const char *name, up_resolved_fn *fn, void *arg,
                       struct dns_lookup **out)
{
    struct dns_lookup *l = calloc(1, sizeof(*l));
    char plain[256];
    int r;

    if (l == NULL)
        return -ENOMEM;
    l->fn = fn;
    l->arg = arg;
    l->starting = true;
    r = host_name_normalise(name, strlen(name), plain);
    if (r == 0)
        r = half_start(s, l, 0, plain);
    if (r == 0)
        r = half_start(s, l, 1, plain);
    if (r != 0) {
        dns_service_lookup_cancel(l);
        return r;
    }
    l->starting = false;
    *out = l;
    finish(l);
    return 0;
}

void dns_service_lookup_cancel(struct dns_lookup *l)
{
    if (l == NULL)
        return;
    for (size_t k = 0; k < 2; k++)
        dns_service_cancel(l->half[k].ask);
    free(l);
}
