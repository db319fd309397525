/* book.h - the inside of a book of names, for book.c and book_store.c. */
#ifndef DNS_BOOK_H
#define DNS_BOOK_H

#include "culvert/dns.h"

#define NAME_WORDS 32 /* 256 bytes: a normalised name and its NUL, rounded up to words */
#define NO_ENTRY   UINT32_MAX
#define REAL_WAYS  4 /* places where an address may stand */

/* Read by everybody, so every word is atomic. */
struct shared_name {
    _Atomic uint32_t seq; /* odd: being written */
    _Atomic uint64_t word[NAME_WORDS];
};

struct fake {
    _Atomic uint32_t uses; /* flows */
    _Atomic uint64_t given_us;
    struct shared_name name; /* empty: never given */
    /* The writer's: */
    uint32_t older, newer; /* of its shard, by age */
    uint32_t chain;        /* of its hash bucket */
    bool linked;
};

struct real {
    _Atomic uint64_t addr[2];
    _Atomic uint64_t learned_us, until_us;
    struct shared_name name;
};

struct shard {
    uint32_t oldest, newest;
    uint32_t
        fresh; /* entries from here on may never have been given: its own are fresh, fresh + shards, ... */
    uint32_t *buckets;
    struct real *reals;
    _Atomic uint64_t changes;
    _Atomic uint32_t in_book;
};

struct name_book {
    struct name_book_options opt;
    struct hash_key key;
    struct fake *fakes; /* opt.fakes; touched on demand */
    size_t fakes_bytes, bucket_count;
    struct shard *shards;
    atomic_bool uses_fakes;
};

bool shared_name_read(const struct shared_name *n,
                      char out[256]); /* false: empty, or written all the while */
/* The entry as the shard's newest, under this name. */
void book_put(struct name_book *b, uint32_t shard, uint32_t index, const char *name, uint64_t now_us);
uint32_t book_lookup(const struct name_book *b, uint32_t shard, const char *name); /* NO_ENTRY */

#endif
