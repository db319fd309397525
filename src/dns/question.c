/* question.c - what a question is about: its fate by type and class, and the address that a reverse name stands for. */
#include "culvert/dns.h"

#include <string.h>

enum dns_fate dns_question_fate(const struct dns_question *q, const uint16_t *blocked, size_t n_blocked)
{
    /* RFC 6895 section 3.1: 128 to 255 are for questions and metadata (ANY, AXFR, IXFR, TSIG, ...), OPT is one, too. */
    if (q->class != DNS_IN || q->type == 0 || q->type == DNS_OPT || (q->type >= 128 && q->type <= 255))
        return DNS_NOT_IMPLEMENTED;
    for (size_t i = 0; i < n_blocked; i++) {
        if (blocked[i] == q->type)
            return DNS_EMPTY;
    }
    return DNS_PASS;
}

static bool label_is(const uint8_t *label, const char *text)
{
    size_t len = strlen(text);

    if (*label != len)
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((label[1 + i] | 0x20) != (uint8_t)text[i] && label[1 + i] != (uint8_t)text[i])
            return false;
    }
    return true;
}

/* A decimal number of 0 to 255 without leading zeros, or -1. */
static int octet_of(const uint8_t *label)
{
    int n = 0;

    if (*label == 0 || *label > 3 || (*label > 1 && label[1] == '0'))
        return -1;
    for (uint8_t i = 1; i <= *label; i++) {
        if (label[i] < '0' || label[i] > '9')
            return -1;
        n = n * 10 + label[i] - '0';
    }
    return n <= 255 ? n : -1;
}

static int nibble_of(const uint8_t *label)
{
    uint8_t c = label[1] | 0x20;

    if (*label != 1)
        return -1;
    if (label[1] >= '0' && label[1] <= '9')
        return label[1] - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool dns_ptr_address(const struct dns_name *n, struct ip_addr *out)
{
    const uint8_t *labels[35];
    uint8_t v4[4], v6[16] = { 0 };
    size_t count = 0;

    for (const uint8_t *l = n->wire; n->len > 0 && *l != 0 && count < ARRAY_LEN(labels); l += *l + 1)
        labels[count++] = l;
    if (count < 2 || !label_is(labels[count - 1], "arpa"))
        return false;
    if (count == 6 && label_is(labels[4], "in-addr")) {
        for (size_t i = 0; i < 4; i++) {
            int octet = octet_of(labels[3 - i]);

            if (octet < 0)
                return false;
            v4[i] = (uint8_t)octet;
        }
        *out = ip_from4(v4);
        return true;
    }
    if (count != 34 || !label_is(labels[32], "ip6"))
        return false;
    for (size_t i = 0; i < 32; i++) {
        int nibble = nibble_of(labels[31 - i]);

        if (nibble < 0)
            return false;
        v6[i / 2] |= (uint8_t)(nibble << (i % 2 == 0 ? 4 : 0));
    }
    *out = ip_from6(v6);
    return true;
}
