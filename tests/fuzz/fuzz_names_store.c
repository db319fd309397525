/* fuzz_names_store.c - a file of fake addresses, and a name server's answer that is handed on: what is taken must be whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool holds)
{
    if (!holds)
        abort();
}

/* The sum is put right, so that the reader behind it is reached; @data are the records. */
static void read_store(const uint8_t *data, size_t size)
{
    struct name_book_options opt = { .shards = 2, .fakes = 64, .reals = 4 };
    struct name_book *b;
    uint8_t *bytes;
    size_t len;

    promise(ip_prefix_parse("198.19.0.0/24", &opt.fake4) == 0 && name_book_new(&opt, &b) == 0);
    name_book_use_fakes(b);
    name_book_decode(b, (struct span){ data, size }, 1);
    promise(name_book_fakes(b) <= 64);
    promise(name_book_encode(b, &bytes, &len) == 0);
    free(bytes);
    name_book_free(b);
}

static void read_relay(const uint8_t *data, size_t size)
{
    struct dns_query q = { .id = 1, .has_question = true, .has_edns = true };
    struct dns_relay relay;
    uint8_t out[4096];
    struct buf b;

    if (size < DNS_HEADER_LEN + 5 || dns_read_query((struct span){ data, size }, &q) == -EBADMSG) {
        q.question.name = (struct dns_name){ 1, "" };
        q.question.type = DNS_A;
        q.question.class = DNS_IN;
    }
    if (size < 2 || dns_read_relay((struct span){ data, size }, get_be16(data), &q.question, &relay) != 0)
        return;
    promise(relay.len <= size);
    if (relay.answer.truncated || relay.len < DNS_HEADER_LEN)
        return;
    buf_init(&b, out, sizeof(out));
    promise(dns_put_relay(&b, &q, (struct span){ data, relay.len }, relay.additionals, 5, false) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1);

    if (copy == NULL)
        return 0;
    memcpy(copy, data, size);
    read_store(copy, size);
    read_relay(copy, size);
    free(copy);
    return 0;
}
