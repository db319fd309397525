/* fuzz_dns.c - a message of a stranger, read as a query and as an answer; what was understood must hold together.
 * The answer's question is taken from the message itself, since a fuzzer would rarely guess one. */
#include "culvert/dns.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool holds)
{
    if (!holds)
        abort();
}

/* A query that was read can be answered, and the answer is one to that question. */
static void answer_query(const struct dns_query *query, int rcode)
{
    struct dns_record record = { .type = DNS_A, .ttl_s = 60, .addr.w = { 1, 2, 3, 4 } };
    char text[DNS_NAME_TEXT_MAX];
    uint8_t bytes[DNS_UDP_BYTES];
    struct dns_answer answer;
    struct buf out;
    int r;

    buf_init(&out, bytes, sizeof(bytes));
    promise(dns_put_reply(&out, query, (enum dns_rcode)rcode, &record, rcode == 0) == 0);
    promise(!query->has_question || strlen(dns_name_text(&query->question.name, text)) < sizeof(text));
    if (rcode != 0 || query->question.type != DNS_A)
        return;
    r = dns_read_answer((struct span){ bytes, out.len }, query->id, &query->question, &answer);
    promise(r == 0 && answer.n_addrs == 1);
}

static void read_as_answer(struct span msg)
{
    struct dns_question q = { .type = DNS_A, .class = DNS_IN, .name = { 1, "" } };
    uint8_t *copy = malloc(msg.len > 0 ? msg.len : 1);
    struct dns_answer answer;
    struct dns_query query;

    if (copy == NULL)
        return;
    memcpy(copy, msg.data, msg.len);
    if (msg.len >= 4) {
        copy[2] &= 0x7f; /* as a query it gives its question away ... */
        if (dns_read_query((struct span){ copy, msg.len }, &query) >= 0 && query.has_question)
            q = query.question;
        copy[2] |= 0x80; /* ... and as an answer it is then tried */
    }
    if (dns_read_answer((struct span){ copy, msg.len }, msg.len >= 2 ? get_be16(copy) : 0, &q, &answer) ==
        0) {
        promise(answer.n_addrs <= DNS_ADDRS_MAX && (answer.n_addrs == 0 || !answer.truncated));
        promise(answer.ttl_s >= DNS_TTL_MIN_S && answer.ttl_s <= DNS_TTL_MAX_S);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dns_query query;
    int r = dns_read_query((struct span){ data, size }, &query);

    if (r >= 0)
        answer_query(&query, r);
    read_as_answer((struct span){ data, size });
    return 0;
}
