/* book.c - names behind addresses: fake ones that stand for a name, real ones that were an answer.
 *
 * How it works. A fake address is an index into one array of entries, base address + 1 + index, the same in both families.
 * At first the entries are dealt to the shards in turn; those that came back from disk belong to the shard of their name. Each
 * shard keeps its entries in a list by age and finds them by name through a hash table of its own. A shard without an unused
 * entry takes the oldest one that no flow uses and that was not handed out within NAME_BOOK_KEEP_US; what is in use is moved to
 * the young end on the way, so that the walk is short the next time.
 * Real addresses stand in one of REAL_WAYS places of a small table in each shard; the least useful one makes room. */
#include "book.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FAKES_DEFAULT 65536
#define REALS_DEFAULT 4096
#define REUSE_STEPS   256  /* entries looked at for one new name */
#define READ_SPINS    1000 /* a write takes well under a microsecond, */
#define READ_YIELDS   1000 /* unless its thread has lost the CPU; then the reader takes it for unknown */

/* ---- one name, written by one and read by many ---- */

static void shared_name_put(struct shared_name *n, const char *name)
{
    char bytes[NAME_WORDS * sizeof(uint64_t)] = { 0 };

    memcpy(bytes, name, strlen(name) + 1);
    for (size_t i = 0; i < NAME_WORDS; i++) {
        uint64_t word;

        memcpy(&word, bytes + i * sizeof(word), sizeof(word));
        atomic_store_explicit(&n->word[i], word, memory_order_release);
    }
}

/* Sequence numbers without fences, which ThreadSanitizer does not know: what is written in between is stored with release and loaded
 * with acquire, so whoever saw any of it sees the odd number, too. Sequentially consistent beside `uses`: see take_oldest(). */
static void write_begin(struct shared_name *n)
{
    atomic_fetch_add_explicit(&n->seq, 1, memory_order_seq_cst);
}

static void write_end(struct shared_name *n)
{
    atomic_store_explicit(&n->seq, atomic_load_explicit(&n->seq, memory_order_relaxed) + 1,
                          memory_order_release);
}

/* The words up to the one with the NUL. */
static void copy_words(const struct shared_name *n, char out[256])
{
    for (size_t i = 0; i < NAME_WORDS; i++) {
        uint64_t word = atomic_load_explicit(&n->word[i], memory_order_acquire);

        memcpy(out + i * sizeof(word), &word, sizeof(word));
        if (memchr(&word, 0, sizeof(word)) != NULL)
            return;
    }
    out[255] = '\0';
}

/* Whether what was read since @seq was whole. */
static bool read_was_whole(const struct shared_name *n, uint32_t seq)
{
    return atomic_load_explicit(&n->seq, memory_order_relaxed) ==
           seq; /* after the acquiring loads before it */
}

bool shared_name_read(const struct shared_name *n, char out[256])
{
    for (int i = 0; i < READ_SPINS + READ_YIELDS; i++) {
        uint32_t seq = atomic_load_explicit(&n->seq, memory_order_seq_cst);

        if (i >= READ_SPINS)
            sched_yield();
        if ((seq & 1) != 0)
            continue;
        copy_words(n, out);
        if (read_was_whole(n, seq))
            return out[0] != '\0';
    }
    return false;
}

/* ---- life ---- */

static size_t power_of_two(size_t n)
{
    size_t p = 1;

    while (p < n)
        p *= 2;
    return p;
}

/* Addresses of a range without its first and its last. */
static uint32_t range_size(const struct ip_prefix *p, uint32_t most)
{
    unsigned bits = 128u - p->len;

    return bits >= 31 || (1u << bits) - 2 > most ? most : (1u << bits) - 2;
}

static int shards_new(struct name_book *b)
{
    b->shards = calloc(b->opt.shards, sizeof(*b->shards));
    if (b->shards == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < b->opt.shards; i++) {
        struct shard *s = &b->shards[i];

        s->oldest = s->newest = NO_ENTRY;
        s->fresh = i;
        s->buckets = malloc(b->bucket_count * sizeof(*s->buckets));
        s->reals = calloc(b->opt.reals, sizeof(*s->reals));
        if (s->buckets == NULL || s->reals == NULL)
            return -ENOMEM;
        memset(s->buckets, 0xff, b->bucket_count * sizeof(*s->buckets));
    }
    return 0;
}

static int book_init(struct name_book *b)
{
    int r = random_bytes(&b->key, sizeof(b->key));

    if (r != 0)
        return r;
    b->fakes_bytes = b->opt.fakes * sizeof(*b->fakes);
    if (b->fakes_bytes > 0) {
        b->fakes = mmap(NULL, b->fakes_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (b->fakes == MAP_FAILED) {
            b->fakes = NULL;
            return -ENOMEM;
        }
    }
    return shards_new(b);
}

int name_book_new(const struct name_book_options *opt, struct name_book **out)
{
    struct name_book *b;
    int r;

    if (opt->shards == 0)
        return -EINVAL;
    b = calloc(1, sizeof(*b));
    if (b == NULL)
        return -ENOMEM;
    b->opt = *opt;
    if (b->opt.fakes == 0)
        b->opt.fakes = FAKES_DEFAULT;
    if (opt->fake4.len > 0)
        b->opt.fakes = range_size(&opt->fake4, b->opt.fakes);
    if (opt->fake6.len > 0)
        b->opt.fakes = range_size(&opt->fake6, b->opt.fakes);
    if (opt->fake4.len == 0 && opt->fake6.len == 0)
        b->opt.fakes = 0;
    b->opt.reals = (uint32_t)power_of_two(opt->reals == 0          ? REALS_DEFAULT
                                          : opt->reals < REAL_WAYS ? REAL_WAYS
                                                                   : opt->reals);
    b->bucket_count = power_of_two(b->opt.fakes / b->opt.shards + 64);
    r = book_init(b);
    if (r != 0) {
        name_book_free(b);
        return r;
    }
    *out = b;
    return 0;
}

void name_book_free(struct name_book *b)
{
    if (b == NULL)
        return;
    for (uint32_t i = 0; b->shards != NULL && i < b->opt.shards; i++) {
        free(b->shards[i].buckets);
        free(b->shards[i].reals);
    }
    if (b->fakes != NULL)
        munmap(b->fakes, b->fakes_bytes);
    free(b->shards);
    free(b);
}

size_t name_book_bytes(const struct name_book *b)
{
    size_t shard = sizeof(*b->shards) + b->bucket_count * sizeof(*b->shards->buckets) +
                   b->opt.reals * sizeof(*b->shards->reals);

    return sizeof(*b) + b->opt.shards * shard + name_book_fakes(b) * sizeof(*b->fakes);
}

/* ---- fake addresses ---- */

static uint64_t name_hash(const struct name_book *b, const char *name)
{
    return hash_bytes(&b->key, name, strlen(name));
}

uint32_t name_book_shard(const struct name_book *b, const char *name)
{
    return (uint32_t)((name_hash(b, name) >> 32) % b->opt.shards);
}

static uint32_t *bucket_of(const struct name_book *b, uint32_t shard, const char *name)
{
    return &b->shards[shard].buckets[name_hash(b, name) & (b->bucket_count - 1)];
}

uint32_t book_lookup(const struct name_book *b, uint32_t shard, const char *name)
{
    char other[256];
    uint32_t i = *bucket_of(b, shard, name);

    while (i != NO_ENTRY) {
        copy_words(&b->fakes[i].name, other); /* ours to write, so nobody does meanwhile */
        if (strcmp(other, name) == 0)
            break;
        i = b->fakes[i].chain;
    }
    return i;
}

static void age_unlink(struct name_book *b, struct shard *s, uint32_t i)
{
    struct fake *e = &b->fakes[i];

    if (!e->linked)
        return;
    *(e->older == NO_ENTRY ? &s->oldest : &b->fakes[e->older].newer) = e->newer;
    *(e->newer == NO_ENTRY ? &s->newest : &b->fakes[e->newer].older) = e->older;
    e->linked = false;
}

static void age_renew(struct name_book *b, struct shard *s, uint32_t i, uint64_t now_us)
{
    struct fake *e = &b->fakes[i];

    age_unlink(b, s, i);
    e->older = s->newest;
    e->newer = NO_ENTRY;
    *(s->newest == NO_ENTRY ? &s->oldest : &b->fakes[s->newest].newer) = i;
    s->newest = i;
    e->linked = true;
    atomic_store_explicit(&e->given_us, now_us, memory_order_relaxed);
}

static void bucket_remove(struct name_book *b, uint32_t shard, uint32_t i)
{
    char name[256];
    uint32_t *at;

    copy_words(&b->fakes[i].name, name);
    if (name[0] == '\0')
        return;
    at = bucket_of(b, shard, name);
    while (*at != i)
        at = &b->fakes[*at].chain;
    *at = b->fakes[i].chain;
}

/* Between write_begin() and write_end(). */
static void rename_entry(struct name_book *b, uint32_t shard, uint32_t i, const char *name)
{
    struct shard *s = &b->shards[shard];
    uint32_t *bucket = bucket_of(b, shard, name);

    if (b->fakes[i].linked)
        bucket_remove(b, shard, i);
    else
        atomic_fetch_add_explicit(&s->in_book, 1, memory_order_relaxed);
    b->fakes[i].chain = *bucket;
    *bucket = i;
    shared_name_put(&b->fakes[i].name, name);
    atomic_store_explicit(&s->changes, atomic_load_explicit(&s->changes, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

void book_put(struct name_book *b, uint32_t shard, uint32_t i, const char *name, uint64_t now_us)
{
    write_begin(&b->fakes[i].name);
    rename_entry(b, shard, i, name);
    write_end(&b->fakes[i].name);
    age_renew(b, &b->shards[shard], i, now_us);
}

/* An entry that was never given; those taken by other shards when the book came from disk are passed by. Their shards write `linked`
 * while we look, but never 0 to the time they were given at. */
static uint32_t take_fresh(struct name_book *b, struct shard *s)
{
    while (s->fresh < b->opt.fakes) {
        uint32_t i = s->fresh;

        s->fresh += b->opt.shards;
        if (atomic_load_explicit(&b->fakes[i].given_us, memory_order_relaxed) == 0)
            return i;
    }
    return NO_ENTRY;
}

/* The oldest entry that nobody uses gets another name; what is in use is young from now on. */
static uint32_t take_oldest(struct name_book *b, uint32_t shard, const char *name, uint64_t now_us)
{
    struct shard *s = &b->shards[shard];

    for (int step = 0; step < REUSE_STEPS && s->oldest != NO_ENTRY; step++) {
        uint32_t i = s->oldest;
        struct fake *e = &b->fakes[i];
        bool used;

        if (now_us - atomic_load_explicit(&e->given_us, memory_order_relaxed) < NAME_BOOK_KEEP_US)
            return NO_ENTRY; /* and all others are younger */
        used = atomic_load_explicit(&e->uses, memory_order_relaxed) != 0;
        if (!used) { /* asked again inside: a reader holds first and reads then */
            write_begin(&e->name);
            used = atomic_load_explicit(&e->uses, memory_order_seq_cst) != 0;
            if (!used)
                rename_entry(b, shard, i, name);
            write_end(&e->name);
        }
        age_renew(b, s, i, now_us);
        if (!used)
            return i;
    }
    return NO_ENTRY;
}

static struct ip_addr address_at(const struct ip_prefix *p, uint32_t index)
{
    struct ip_addr a = p->addr;

    if (p->len == 0)
        return (struct ip_addr){ { { 0 } } };
    put_be32(a.b + 12,
             get_be32(a.b + 12) + 1 + index); /* ranges are aligned, and have at most 2^32 addresses in use */
    return a;
}

int name_book_fake(struct name_book *b, uint32_t shard, const char *name, uint64_t now_us,
                   struct ip_addr out[2])
{
    uint32_t i;

    if (b->opt.fakes == 0 || strlen(name) > 255 || name[0] == '\0')
        return -EINVAL;
    i = book_lookup(b, shard, name);
    if (i != NO_ENTRY) {
        age_renew(b, &b->shards[shard], i, now_us);
    } else if ((i = take_fresh(b, &b->shards[shard])) != NO_ENTRY) {
        book_put(b, shard, i, name, now_us);
    } else if ((i = take_oldest(b, shard, name, now_us)) == NO_ENTRY) {
        return -ENOSPC;
    }
    out[0] = address_at(&b->opt.fake4, i);
    out[1] = address_at(&b->opt.fake6, i);
    return 0;
}

static const struct ip_prefix *fake_range(const struct name_book *b, const struct ip_addr *addr)
{
    const struct ip_prefix *p = ip_is4(addr) ? &b->opt.fake4 : &b->opt.fake6;

    return p->len > 0 && ip_in_prefix(addr, p) && atomic_load_explicit(&b->uses_fakes, memory_order_relaxed)
               ? p
               : NULL;
}

void name_book_use_fakes(struct name_book *b)
{
    atomic_store_explicit(&b->uses_fakes, true, memory_order_relaxed);
}

bool name_book_is_fake(const struct name_book *b, const struct ip_addr *addr)
{
    return fake_range(b, addr) != NULL;
}

/* Its index, or NO_ENTRY: no entry stands there. */
static uint32_t index_of(const struct name_book *b, const struct ip_prefix *p, const struct ip_addr *addr)
{
    uint32_t i = get_be32(addr->b + 12) - get_be32(p->addr.b + 12) - 1;

    return memcmp(addr->b, p->addr.b, 12) == 0 && i < b->opt.fakes ? i : NO_ENTRY;
}

static enum name_known find_fake(struct name_book *b, uint32_t i, char name[256], bool hold)
{
    if (i == NO_ENTRY)
        return NAME_FAKE_UNKNOWN;
    if (hold)
        atomic_fetch_add_explicit(&b->fakes[i].uses, 1, memory_order_seq_cst);
    if (shared_name_read(&b->fakes[i].name, name))
        return NAME_FAKE;
    if (hold)
        atomic_fetch_sub_explicit(&b->fakes[i].uses, 1, memory_order_release);
    return NAME_FAKE_UNKNOWN;
}

void name_book_release(struct name_book *b, const struct ip_addr *addr)
{
    uint32_t i = index_of(b, fake_range(b, addr), addr);

    atomic_fetch_sub_explicit(&b->fakes[i].uses, 1, memory_order_release);
}

/* ---- real addresses ---- */

static struct real *real_places(const struct name_book *b, uint32_t shard, const struct ip_addr *addr)
{
    uint64_t hash = hash_bytes(&b->key, addr, sizeof(*addr));

    return b->shards[shard].reals + (hash & (b->opt.reals / REAL_WAYS - 1)) * REAL_WAYS;
}

static bool real_is(const struct real *r, const uint64_t words[2])
{
    return atomic_load_explicit(&r->addr[0], memory_order_acquire) == words[0] &&
           atomic_load_explicit(&r->addr[1], memory_order_acquire) == words[1];
}

void name_book_learn(struct name_book *b, uint32_t shard, const struct ip_addr *addr, const char *name,
                     uint64_t now_us, uint64_t until_us)
{
    struct real *places = real_places(b, shard, addr), *r = places;
    uint64_t words[2];

    memcpy(words, addr, sizeof(words));
    for (size_t i = 0; i < REAL_WAYS; i++) {
        if (real_is(&places[i], words)) {
            r = &places[i];
            break;
        }
        if (atomic_load_explicit(&places[i].until_us, memory_order_relaxed) <
            atomic_load_explicit(&r->until_us, memory_order_relaxed))
            r = &places[i];
    }
    write_begin(&r->name);
    atomic_store_explicit(&r->addr[0], words[0], memory_order_release);
    atomic_store_explicit(&r->addr[1], words[1], memory_order_release);
    atomic_store_explicit(&r->learned_us, now_us, memory_order_release);
    atomic_store_explicit(&r->until_us, until_us, memory_order_release);
    shared_name_put(&r->name, name);
    write_end(&r->name);
}

/* The name of @r if it is @words' and still good and learned after *latest_us, which moves up then. */
static bool read_real(const struct real *r, const uint64_t words[2], uint64_t now_us, uint64_t *latest_us,
                      char name[256])
{
    for (int i = 0; i < READ_SPINS; i++) {
        uint32_t seq = atomic_load_explicit(&r->name.seq, memory_order_acquire);
        uint64_t learned_us = atomic_load_explicit(&r->learned_us, memory_order_acquire);
        bool good = real_is(r, words) && now_us < atomic_load_explicit(&r->until_us, memory_order_acquire) &&
                    learned_us >= *latest_us;
        char read[256];

        if ((seq & 1) != 0)
            continue;
        if (good)
            copy_words(&r->name, read);
        if (!read_was_whole(&r->name, seq))
            continue;
        if (good) {
            memcpy(name, read, strlen(read) + 1);
            *latest_us = learned_us;
        }
        return good;
    }
    return false;
}

enum name_known name_book_find(struct name_book *b, const struct ip_addr *addr, uint64_t now_us,
                               char name[256], bool hold)
{
    const struct ip_prefix *range = fake_range(b, addr);
    uint64_t words[2], latest_us = 0;
    bool found = false;

    if (range != NULL)
        return find_fake(b, index_of(b, range, addr), name, hold);
    memcpy(words, addr, sizeof(words));
    for (uint32_t i = 0; i < b->opt.shards; i++) {
        const struct real *places = real_places(b, i, addr);

        for (size_t k = 0; k < REAL_WAYS; k++)
            found = read_real(&places[k], words, now_us, &latest_us, name) || found;
    }
    return found ? NAME_REAL : NAME_UNKNOWN;
}

uint64_t name_book_changes(const struct name_book *b)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < b->opt.shards; i++)
        n += atomic_load_explicit(&b->shards[i].changes, memory_order_relaxed);
    return n;
}

uint32_t name_book_fakes(const struct name_book *b)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < b->opt.shards; i++)
        n += atomic_load_explicit(&b->shards[i].in_book, memory_order_relaxed);
    return n;
}
