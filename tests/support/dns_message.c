/* dns_message.c - DNS messages for tests, good and broken. */
#include "dns_message.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct dns_question question_of(const char *name, uint16_t type)
{
    struct dns_question q = { .type = type, .class = DNS_IN };

    assert_int_equal(dns_name_from_text(name, &q.name), 0);
    return q;
}

void message_begin(struct message *m, uint16_t flags, unsigned questions, unsigned answers,
                   unsigned authorities, unsigned additionals)
{
    buf_init(&m->b, m->bytes, sizeof(m->bytes));
    buf_u16(&m->b, MESSAGE_ID);
    buf_u16(&m->b, flags);
    buf_u16(&m->b, (uint16_t)questions);
    buf_u16(&m->b, (uint16_t)answers);
    buf_u16(&m->b, (uint16_t)authorities);
    buf_u16(&m->b, (uint16_t)additionals);
}

void message_question(struct message *m, const struct dns_question *q)
{
    buf_put(&m->b, q->name.wire, q->name.len);
    buf_u16(&m->b, q->type);
    buf_u16(&m->b, q->class);
}

void message_record(struct message *m, const char *owner, size_t owner_len, uint16_t type, uint32_t ttl_s,
                    const void *rdata, size_t rdata_len)
{
    buf_put(&m->b, owner, owner_len);
    buf_u16(&m->b, type);
    buf_u16(&m->b, DNS_IN);
    buf_u32(&m->b, ttl_s);
    buf_u16(&m->b, (uint16_t)rdata_len);
    buf_put(&m->b, rdata, rdata_len);
}

void message_a(struct message *m, const char *owner, size_t owner_len, uint32_t ttl_s, uint8_t last)
{
    message_record(m, owner, owner_len, DNS_A, ttl_s, (const uint8_t[]){ 192, 0, 2, last }, 4);
}

void message_cname(struct message *m, const struct dns_name *owner, const struct dns_name *target,
                   uint32_t ttl_s)
{
    message_record(m, (const char *)owner->wire, owner->len, DNS_CNAME, ttl_s, target->wire, target->len);
}

int message_read_answer(const struct message *m, const struct dns_question *q, struct dns_answer *out)
{
    uint8_t *copy = malloc(m->b.len + 1);
    int r;

    assert_non_null(copy);
    assert_false(m->b.full);
    memcpy(copy + 1, m->bytes, m->b.len);
    r = dns_read_answer((struct span){ copy + 1, m->b.len }, MESSAGE_ID, q, out);
    free(copy);
    return r;
}

int message_read_query(const struct message *m, struct dns_query *out)
{
    uint8_t *copy = malloc(m->b.len + 1);
    int r;

    assert_non_null(copy);
    memcpy(copy + 1, m->bytes, m->b.len);
    r = dns_read_query((struct span){ copy + 1, m->b.len }, out);
    free(copy);
    return r;
}

bool answer_has(const struct dns_answer *a, size_t i, const char *text)
{
    char is[IP_TEXT_MAX];

    return i < a->n_addrs && strcmp(ip_text(&a->addrs[i], is), text) == 0;
}
