/* dns_message.h - DNS messages put together byte by byte, and read from heap copies of exact size, where
 * AddressSanitizer sees every read past the end. */
#ifndef CULVERT_TEST_DNS_MESSAGE_H
#define CULVERT_TEST_DNS_MESSAGE_H

#include "culvert/dns.h"

#define MESSAGE_ID        0x1234
#define MESSAGE_RESPONSE  0x8180 /* QR, RD, RA */
#define MESSAGE_TRUNCATED 0x0200
#define MESSAGE_OWNER     "\xc0\x0c" /* a pointer to the question's name */

/* A label of 63 bytes, without its length. */
#define LABEL_63 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0"

struct message { /* under construction */
    uint8_t bytes[70000];
    struct buf b;
};

struct dns_question question_of(const char *name, uint16_t type); /* fails the test if it is no name */
void message_begin(struct message *m, uint16_t flags, unsigned questions, unsigned answers,
                   unsigned authorities, unsigned additionals);
void message_question(struct message *m, const struct dns_question *q);
void message_record(struct message *m, const char *owner, size_t owner_len, uint16_t type, uint32_t ttl_s,
                    const void *rdata, size_t rdata_len);
void message_a(struct message *m, const char *owner, size_t owner_len, uint32_t ttl_s,
               uint8_t last); /* 192.0.2.@last */
void message_cname(struct message *m, const struct dns_name *owner, const struct dns_name *target,
                   uint32_t ttl_s);
int message_read_answer(const struct message *m, const struct dns_question *q, struct dns_answer *out);
int message_read_query(const struct message *m, struct dns_query *out);
bool answer_has(const struct dns_answer *a, size_t i, const char *text);

#endif
