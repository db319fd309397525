/* book_store.c - the fake addresses of a book as bytes for a file, and back.
 *
 *     "culvfake" version:4 len4:1 addr4:16 len6:1 addr6:16 count:4, then count times index:4 length:1 name, then sum:8
 *
 * Numbers are in network order; records go from the oldest to the youngest. The sum is SipHash over all before it, with a
 * key that everybody knows: it is against accidents, a half-written file before all, not against forgers. What does not read
 * back whole is not taken at all. */
#include "book.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC        "culvfake"
#define VERSION      1
#define MAGIC_BYTES  8
#define HEADER_BYTES (MAGIC_BYTES + 4 + 17 + 17 + 4)
#define SUM_BYTES    8
#define RECORD_MIN   (4 + 1 + 1)

static const struct hash_key sum_key = { UINT64_C(0x63756c7665727421), UINT64_C(0x66616b652d697021) };

struct aged {
    uint64_t given_us;
    uint32_t index;
};

static int by_age(const void *a, const void *b)
{
    const struct aged *x = a, *y = b;

    if (x->given_us != y->given_us)
        return x->given_us < y->given_us ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void put_u64(struct buf *out, uint64_t v)
{
    buf_u32(out, (uint32_t)(v >> 32));
    buf_u32(out, (uint32_t)v);
}

static void put_ranges(struct buf *out, const struct name_book *b)
{
    buf_u8(out, b->opt.fake4.len);
    buf_put(out, b->opt.fake4.addr.b, 16);
    buf_u8(out, b->opt.fake6.len);
    buf_put(out, b->opt.fake6.addr.b, 16);
}

/* The entries that have ever been given, by age. */
static size_t gather(const struct name_book *b, struct aged *list)
{
    size_t n = 0;

    for (uint32_t i = 0; i < b->opt.fakes; i++) {
        uint64_t given_us = atomic_load_explicit(&b->fakes[i].given_us, memory_order_relaxed);

        if (given_us != 0)
            list[n++] = (struct aged){ given_us, i };
    }
    qsort(list, n, sizeof(*list), by_age);
    return n;
}

static void put_records(struct buf *out, const struct name_book *b, const struct aged *list, size_t n)
{
    size_t count_at = out->len;
    uint32_t count = 0;
    char name[256];

    buf_u32(out, 0);
    for (size_t i = 0; i < n; i++) {
        size_t len;

        if (!shared_name_read(&b->fakes[list[i].index].name, name))
            continue;
        len = strlen(name);
        buf_u32(out, list[i].index);
        buf_u8(out, (uint8_t)len);
        buf_put(out, name, len);
        count++;
    }
    put_be32(out->data + count_at, count);
}

int name_book_encode(struct name_book *b, uint8_t **out, size_t *len)
{
    size_t most = name_book_fakes(b) + (size_t)1024; /* names that come meanwhile: the next time */
    struct aged *list = calloc(b->opt.fakes + (size_t)1, sizeof(*list));
    size_t n = list != NULL ? gather(b, list) : 0, cap;
    struct buf bytes;
    uint8_t *memory;

    if (n > most)
        n = most;
    cap = HEADER_BYTES + n * (4 + 1 + 255) + SUM_BYTES;
    memory = list != NULL ? malloc(cap) : NULL;
    if (memory == NULL) {
        free(list);
        return -ENOMEM;
    }
    buf_init(&bytes, memory, cap);
    buf_put(&bytes, MAGIC, MAGIC_BYTES);
    buf_u32(&bytes, VERSION);
    put_ranges(&bytes, b);
    put_records(&bytes, b, list, n);
    put_u64(&bytes, hash_bytes(&sum_key, bytes.data, bytes.len));
    free(list);
    *out = memory;
    *len = bytes.len;
    return 0;
}

/* One record; @take: put it into the book, else only look whether it is right. */
static bool read_record(struct name_book *b, struct span *in, bool take, uint64_t now_us)
{
    const uint8_t *text;
    char name[256];
    uint32_t index;
    uint8_t len;

    if (!span_u32(in, &index) || !span_u8(in, &len) || !span_bytes(in, len, &text))
        return false;
    if (host_name_normalise((const char *)text, len, name) != 0 || strlen(name) != len ||
        memcmp(name, text, len) != 0)
        return false;
    if (take && index < b->opt.fakes && !b->fakes[index].linked) { /* fewer may fit than before */
        uint32_t shard = name_book_shard(b, name);

        if (book_lookup(b, shard, name) == NO_ENTRY)
            book_put(b, shard, index, name, now_us);
    }
    return true;
}

static bool read_records(struct name_book *b, struct span in, uint32_t count, bool take, uint64_t now_us)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!read_record(b, &in, take, now_us))
            return false;
    }
    return in.len == 0;
}

int name_book_decode(struct name_book *b, struct span bytes, uint64_t now_us)
{
    uint8_t ranges[34];
    struct buf expect;
    uint32_t count;

    if (bytes.len < HEADER_BYTES + SUM_BYTES || memcmp(bytes.data, MAGIC, MAGIC_BYTES) != 0 ||
        get_be32(bytes.data + MAGIC_BYTES) != VERSION)
        return -EBADMSG;
    bytes.len -= SUM_BYTES;
    if (hash_bytes(&sum_key, bytes.data, bytes.len) !=
        ((uint64_t)get_be32(bytes.data + bytes.len) << 32 | get_be32(bytes.data + bytes.len + 4)))
        return -EBADMSG;
    count = get_be32(bytes.data + HEADER_BYTES - 4);
    buf_init(&expect, ranges, sizeof(ranges));
    put_ranges(&expect, b);
    if (memcmp(bytes.data + MAGIC_BYTES + 4, ranges, sizeof(ranges)) != 0)
        return -ESTALE;
    span_skip(&bytes, HEADER_BYTES);
    if (count > bytes.len / RECORD_MIN || !read_records(b, bytes, count, false, now_us))
        return -EBADMSG;
    read_records(b, bytes, count, true, now_us);
    return 0;
}
