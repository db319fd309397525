/* conf.c - resolv.conf(5) and hosts(5), the way the C library reads them, as far as names of ours need it.
 *
 * Lines that are not understood are skipped, as everywhere else: these files belong to the system, not to us. */
#include "resolver_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX     1048576 /* a mebibyte */
#define CHECK_EVERY_US     1000000
#define TIMEOUT_DEFAULT_MS 1000 /* the C library's 5 s are more than a name may take here altogether */
#define TIMEOUT_MAX_S      30   /* as in resolv.conf(5) */
#define ATTEMPTS_DEFAULT   3
#define ATTEMPTS_MAX       5

struct text {
    const char *at, *end;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

/* The next line without its comment; false at the end. */
static bool next_line(struct text *all, struct text *line)
{
    const char *end;

    if (all->at == all->end)
        return false;
    end = memchr(all->at, '\n', (size_t)(all->end - all->at));
    if (end == NULL)
        end = all->end;
    *line = (struct text){ all->at, end };
    all->at = end < all->end ? end + 1 : end;
    for (const char *p = line->at; p < line->end; p++) {
        if (*p == '#' || *p == ';')
            line->end = p;
    }
    return true;
}

static bool next_word(struct text *line, struct text *word)
{
    while (line->at < line->end && is_blank(*line->at))
        line->at++;
    word->at = line->at;
    while (line->at < line->end && !is_blank(*line->at))
        line->at++;
    word->end = line->at;
    return word->at < word->end;
}

static bool word_is(struct text w, const char *s)
{
    size_t len = (size_t)(w.end - w.at);

    return strlen(s) == len && strncasecmp(w.at, s, len) == 0;
}

static bool word_copy(struct text w, char *out, size_t cap)
{
    size_t len = (size_t)(w.end - w.at);

    if (len >= cap)
        return false;
    memcpy(out, w.at, len);
    out[len] = '\0';
    return true;
}

/* An address, a link-local one with its zone: fe80::1%eth0 (RFC 4007 section 11). */
static bool parse_server(struct text w, struct name_server *out)
{
    char text[IP_TEXT_MAX + IF_NAMESIZE], *zone;
    struct name_server s = { .at.port = DNS_PORT };

    if (!word_copy(w, text, sizeof(text)))
        return false;
    zone = strchr(text, '%');
    if (zone != NULL)
        *zone++ = '\0';
    if (ip_parse(text, &s.at.addr) != 0 || ip_is_none(&s.at.addr))
        return false;
    if (zone != NULL) {
        s.scope_id = if_nametoindex(zone);
        if (s.scope_id == 0)
            s.scope_id = (uint32_t)strtoul(zone, NULL, 10);
        if (s.scope_id == 0 || ip_is4(&s.at.addr))
            return false;
    }
    *out = s;
    return true;
}

/* "timeout:3": the number behind @name, bounded; false if @w is another option. */
static bool parse_option(struct text w, const char *name, uint32_t max, uint32_t *out)
{
    char text[32];
    size_t len = strlen(name);
    unsigned long n;

    if (!word_copy(w, text, sizeof(text)) || strncmp(text, name, len) != 0 || text[len] < '0' ||
        text[len] > '9')
        return false;
    n = strtoul(text + len, NULL, 10);
    *out = n < 1 ? 1 : n > max ? max : (uint32_t)n;
    return true;
}

static void parse_options(struct text *line, struct resolv_conf *out)
{
    struct text word;
    uint32_t n;

    while (next_word(line, &word)) {
        if (parse_option(word, "timeout:", TIMEOUT_MAX_S, &n))
            out->timeout_ms = n * 1000;
        else if (parse_option(word, "attempts:", ATTEMPTS_MAX, &n))
            out->attempts = n;
    }
}

void resolv_conf_parse(const char *text, size_t len, struct resolv_conf *out)
{
    struct text all = { text, text + len }, line, word;

    *out = (struct resolv_conf){ .timeout_ms = TIMEOUT_DEFAULT_MS, .attempts = ATTEMPTS_DEFAULT };
    while (len > 0 && next_line(&all, &line)) {
        if (!next_word(&line, &word))
            continue;
        if (word_is(word, "options"))
            parse_options(&line, out);
        else if (word_is(word, "nameserver") && out->n_servers < RESOLVER_SERVERS_MAX &&
                 next_word(&line, &word) && parse_server(word, &out->servers[out->n_servers]))
            out->n_servers++;
    }
}

/* Is @name one of the words that follow the address? A trailing dot in the file does not matter. */
static bool line_has_name(struct text *line, const char *name)
{
    struct text word;

    while (next_word(line, &word)) {
        if (word.end[-1] == '.')
            word.end--;
        if (word_is(word, name))
            return true;
    }
    return false;
}

size_t hosts_find(const char *text, size_t len, const char *name, struct ip_addr *out, size_t cap)
{
    struct text all = { text, text + len }, line, word;
    char addr[IP_TEXT_MAX];
    size_t n = 0;

    while (len > 0 && n < cap && next_line(&all, &line)) {
        if (next_word(&line, &word) && line_has_name(&line, name) && word_copy(word, addr, sizeof(addr)) &&
            ip_parse(addr, &out[n]) == 0)
            n++;
    }
    return n;
}

/* ---- files ---- */

int watched_file_init(struct watched_file *f, const char *path)
{
    *f = (struct watched_file){ .path = strdup(path) };
    return f->path != NULL ? 0 : -ENOMEM;
}

void watched_file_fini(struct watched_file *f)
{
    free(f->path);
    free(f->text);
    *f = (struct watched_file){ .path = NULL };
}

/* The first FILE_BYTES_MAX of an open file; a cut last line does no harm. NULL: empty, or out of memory. */
static char *read_text(int fd, int64_t size, size_t *len)
{
    size_t cap = size < FILE_BYTES_MAX ? (size_t)size : FILE_BYTES_MAX;
    char *text = cap > 0 ? malloc(cap) : NULL;
    ssize_t n = 1;

    *len = 0;
    while (text != NULL && *len < cap && n > 0) {
        n = read(fd, text + *len, cap - *len);
        if (n > 0)
            *len += (size_t)n;
    }
    return text;
}

static bool same_file(const struct watched_file *f, const struct stat *st)
{
    return f->changed_s == st->st_mtim.tv_sec && f->changed_ns == st->st_mtim.tv_nsec &&
           f->size == st->st_size && f->inode == st->st_ino;
}

bool watched_file_refresh(struct watched_file *f, uint64_t now_us)
{
    struct stat st = { .st_size = 0 };
    int fd;

    if (f->checked_us != 0 && now_us - f->checked_us < CHECK_EVERY_US)
        return false;
    f->checked_us = now_us;
    if ((stat(f->path, &st) != 0 || !S_ISREG(st.st_mode)) && f->inode == 0)
        return false;
    if (same_file(f, &st))
        return false;
    fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        st = (struct stat){ .st_size = 0 };
    free(f->text);
    f->text = read_text(fd, st.st_size, &f->len);
    f->changed_s = st.st_mtim.tv_sec;
    f->changed_ns = st.st_mtim.tv_nsec;
    f->size = st.st_size;
    f->inode = st.st_ino;
    if (fd >= 0)
        close(fd);
    return true;
}

size_t resolver_conf_servers(const char *path, struct ip_port *out, size_t cap)
{
    struct watched_file f;
    struct resolv_conf conf = { .n_servers = 0 };
    size_t n = 0;

    if (watched_file_init(&f, path) != 0)
        return 0;
    if (watched_file_refresh(&f, 1))
        resolv_conf_parse(f.text, f.len, &conf);
    while (n < conf.n_servers && n < cap) {
        out[n] = conf.servers[n].at;
        n++;
    }
    watched_file_fini(&f);
    return n;
}
