/* file.c - the bytes of a file, and whether they are text at all.
 *
 * Only regular files are read (faults.md C7): the kind is looked at before the file is opened, since opening a device can
 * set it off, and again afterwards, since the name may have changed hands; opening never waits for a FIFO's writer.
 * The text must be UTF-8 with the characters that YAML 1.2 section 5.1 allows. libyaml would decode UTF-16 by itself and
 * knows no line for a bad byte, so both are looked for here. */
#include "config_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *open_advice(int e)
{
    switch (e) {
    case ENOENT:
        return "there is no such file";
    case EACCES:
    case EPERM:
        return "this user may not read it; change its mode or owner, or run as another user";
    case ELOOP:
        return "its symbolic links lead in a circle";
    case ENOTDIR:
        return "a part of the path is a file, not a folder";
    case ENAMETOOLONG:
        return "the path is too long";
    case EMFILE:
    case ENFILE:
        return "too many files are open";
    default:
        return NULL;
    }
}

static int cannot_open(int e, struct err *err)
{
    const char *advice = open_advice(e);

    if (advice != NULL)
        return err_set(err, -e, "cannot be read: %s", advice);
    return err_set(err, -e, "cannot be read: %s", strerror(e));
}

/* 0, or the reason why a thing of this kind is no configuration. */
static int check_kind(const struct stat *st, size_t max, struct err *err)
{
    if (S_ISDIR(st->st_mode))
        return err_set(err, -EISDIR, "is a folder; give the file in it");
    if (S_ISFIFO(st->st_mode))
        return err_set(err, -EINVAL, "is a pipe; only a regular file can be read");
    if (S_ISSOCK(st->st_mode))
        return err_set(err, -EINVAL, "is a socket; only a regular file can be read");
    if (!S_ISREG(st->st_mode))
        return err_set(err, -EINVAL, "is a device; only a regular file can be read");
    if ((uint64_t)st->st_size > max)
        return err_set(err, -EFBIG, "has %llu bytes; the most that is read is %zu",
                       (unsigned long long)st->st_size, max);
    return 0;
}

static int open_regular(const char *path, size_t max, struct stat *st, struct err *err)
{
    int fd, r;

    if (stat(path, st) != 0)
        return cannot_open(errno, err);
    r = check_kind(st, max, err);
    if (r != 0)
        return r;
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return cannot_open(errno, err);
    r = fstat(fd, st) != 0 ? cannot_open(errno, err) : check_kind(st, max, err);
    if (r != 0) {
        close(fd);
        return r;
    }
    return fd;
}

/* Up to the end or @cap bytes, whichever is first: a file may grow while it is read. Return: bytes, or -errno. */
static ssize_t read_whole(int fd, char *to, size_t cap)
{
    size_t len = 0;

    while (len < cap) {
        ssize_t n = read(fd, to + len, cap - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

int cfg_read_file(const char *path, size_t max, char **out, size_t *len, unsigned *mode, struct err *err)
{
    struct stat st;
    size_t cap;
    ssize_t n;
    char *text;
    int fd = open_regular(path, max, &st, err);

    if (fd < 0)
        return fd;
    cap = (size_t)st.st_size + 1; /* files of /proc say 0 and have more */
    if (st.st_size == 0)
        cap = 65536 < max ? 65536 : max + 1;
    text = malloc(cap + 1);
    n = text == NULL ? -ENOMEM : read_whole(fd, text, cap);
    close(fd);
    if (n < 0 || ((size_t)n == cap && cap > 1)) {
        if (text != NULL)
            explicit_bzero(text, cap);
        free(text);
        if (n >= 0)
            return err_set(err, -EAGAIN, "grew while it was read; try again");
        return n == -ENOMEM ? -ENOMEM : cannot_open((int)-n, err);
    }
    text[n] = '\0';
    *out = text;
    *len = (size_t)n;
    *mode = st.st_mode & 07777;
    return 0;
}

void cfg_note_refused(struct config_messages *m, int e, const char *path)
{
    if (e == -EACCES && m->refused == NULL)
        m->refused = strdup(path);
}

void cfg_note_file(struct cfg_read *r, const char *path, bool written)
{
    size_t len = strlen(path) + 1;
    struct config_file *f = cfg_keep(r, sizeof(*f) + len);

    if (f == NULL)
        return;
    f->written = written;
    f->next = r->config->files;
    memcpy(f->path, path, len);
    r->config->files = f;
}

int cfg_read_named(struct cfg_read *r, const char *path, size_t max, char **out, size_t *len, unsigned *mode,
                   struct err *err)
{
    int e;

    cfg_note_file(r, path, false);
    e = cfg_read_file(path, max, out, len, mode, err);
    cfg_note_refused(r->messages, e, path);
    return e;
}

/* ---- is it text? -------------------------------------------------------------------------------------------------- */

/* One character of UTF-8 (RFC 3629 section 4: no overlong form, no surrogate, at most U+10FFFF). Return: its bytes, 0: bad. */
static size_t utf8_char(const unsigned char *s, size_t len, uint32_t *out)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    uint32_t c = n == 1 ? s[0] : s[0] & (0x7fu >> n);

    if (n == 0 || n > len)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *out = c;
    return n;
}

static bool yaml_allows(uint32_t c)
{
    if (c < 0x20)
        return c == '\t' || c == '\n' || c == '\r';
    return c != 0x7f && (c >= 0xa0 || c < 0x80 || c == 0x85) && c != 0xfffe && c != 0xffff;
}

/* Another encoding is told by its mark, or by the NUL that every second byte of plain text in UTF-16 is. */
static const char *other_encoding(const char *text, size_t len)
{
    if (len >= 4 && (memcmp(text, "\0\0\376\377", 4) == 0 || memcmp(text, "\377\376\0\0", 4) == 0))
        return "UTF-32";
    if (len >= 2 && (memcmp(text, "\376\377", 2) == 0 || memcmp(text, "\377\376", 2) == 0))
        return "UTF-16";
    if (len >= 4 && ((text[0] == '\0' && text[2] == '\0') || (text[1] == '\0' && text[3] == '\0')))
        return "UTF-16";
    return NULL;
}

static bool bad_char(size_t n, uint32_t c, unsigned char byte, struct err *err)
{
    if (n == 0)
        err_set(err, 0, "the byte 0x%02x is not UTF-8 here; save the file as UTF-8", byte);
    else if (c == 0)
        err_set(err, 0, "there is a NUL byte; a text file has none");
    else
        err_set(err, 0, "the control character U+%04X is not allowed; remove it", (unsigned)c);
    return false;
}

bool cfg_check_text(const char *text, size_t len, uint32_t *line, uint32_t *column, struct err *err)
{
    const unsigned char *s = (const unsigned char *)text;
    const char *encoding = other_encoding(text, len);
    size_t i = len >= 3 && memcmp(text, "\357\273\277", 3) == 0 ? 3 : 0, n;
    uint32_t c = 0;

    *line = *column = 1;
    if (encoding != NULL) {
        err_set(err, 0, "this is %s; save the file as UTF-8", encoding);
        return false;
    }
    for (; i < len; i += n) {
        n = utf8_char(s + i, len - i, &c);
        if (n == 0 || !yaml_allows(c))
            return bad_char(n, c, s[i], err);
        /* libyaml compares every %TAG with all others: a file full of them would take minutes. */
        if (c == '%' && *column == 1 && len - i >= 4 && memcmp(s + i, "%TAG", 4) == 0) {
            err_set(err, 0, "a %%TAG directive has no meaning here; remove it");
            return false;
        }
        (*column)++;
        if (c == '\n' || (c == '\r' && (i + 1 >= len || s[i + 1] != '\n'))) {
            (*line)++;
            *column = 1;
        }
    }
    return true;
}
