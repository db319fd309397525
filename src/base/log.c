/* log.c - one line for one event, to a descriptor or a function, from any thread.
 *
 * Whose line it is follows from the thread: each belongs to the process's log or to one of log_sink_new(), so that several gateways in one
 * process have a log each, and no function in between passes one on.
 *
 * How it works: the line is formatted and escaped on the caller's stack, then written with a single write() under a
 * mutex that also guards a change of the sink. A full pipe is asked by poll() first and never waited for; the mode of
 * the descriptor is left alone, since stderr is shared with other programs. A line that cannot be written is counted.
 *
 * Escaping: control bytes (C0, DEL, and C1 in UTF-8) and bytes that are no UTF-8 become \xNN in text and \u00NN in
 * JSON, so that a name on the network can neither forge a line nor move a terminal's cursor. */
#include "culvert/base.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_BYTES 1024 /* of one formatted message; the rest is cut, and shown as cut */
#define LINE_BYTES    4096 /* of one line on the wire; PIPE_BUF, so that a pipe takes it whole or not at all */
#define LINE_TAIL     16   /* kept free for the closing bytes */

struct log_sink {
    pthread_mutex_t lock;         /* guards fd and owned, and keeps lines whole */
    int fd;                       /* where lines go */
    bool owned;                   /* fd was opened here, not inherited */
    _Atomic enum log_level level; /* read without the lock */
    _Atomic enum log_format format;
    _Atomic uint64_t lost;
    log_fn *fn; /* takes the lines instead; NULL: the descriptor does */
    void *arg;
};

/* The one mutable object of this folder: a process has one log of its own, and each thread may have been given another. */
static struct log_sink of_process = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO, .level = LOG_INFO, .format = LOG_TEXT
};
static _Thread_local struct log_sink *of_thread; /* NULL: the process's */

static struct log_sink *sink_now(void)
{
    return of_thread != NULL ? of_thread : &of_process;
}

static int sink_open(const char *output, int *fd, bool *owned)
{
    *owned = false;
    if (output == NULL || strcmp(output, "stderr") == 0)
        *fd = STDERR_FILENO;
    else if (strcmp(output, "stdout") == 0)
        *fd = STDOUT_FILENO;
    else {
        /* Non-blocking: a FIFO without a reader says ENXIO instead of stopping the start. */
        *fd = open(output, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
        *owned = *fd >= 0;
    }
    return *fd >= 0 ? 0 : -errno;
}

int log_init(const struct log_options *opt)
{
    struct log_sink *sink = sink_now();
    int fd, old = -1, r;
    bool owned;

    if (sink->fn == NULL) {
        r = sink_open(opt->output, &fd, &owned);
        if (r != 0)
            return r;
        pthread_mutex_lock(&sink->lock);
        if (sink->owned)
            old = sink->fd;
        sink->fd = fd;
        sink->owned = owned;
        pthread_mutex_unlock(&sink->lock);
    }
    sink->level = opt->level;
    sink->format = opt->format;
    if (old >= 0)
        close(old);
    return 0;
}

int log_sink_new(log_fn *fn, void *arg, struct log_sink **out)
{
    struct log_sink *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return -ENOMEM;
    pthread_mutex_init(&l->lock, NULL);
    l->fd = STDERR_FILENO;
    l->level = LOG_INFO;
    l->format = LOG_TEXT;
    l->fn = fn;
    l->arg = arg;
    *out = l;
    return 0;
}

void log_sink_free(struct log_sink *l)
{
    if (l == NULL)
        return;
    if (l->owned)
        close(l->fd);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

struct log_sink *log_use(struct log_sink *l)
{
    struct log_sink *before = of_thread;

    of_thread = l;
    return before;
}

struct log_sink *log_in_use(void)
{
    return of_thread;
}

bool log_enabled(enum log_level level)
{
    return level <= atomic_load_explicit(&sink_now()->level, memory_order_relaxed);
}

uint64_t log_lines_lost(void)
{
    return sink_now()->lost;
}

static const char *level_text(enum log_level level)
{
    switch (level) {
    case LOG_ERROR:
        return "error";
    case LOG_WARNING:
        return "warning";
    case LOG_INFO:
        return "info";
    case LOG_DEBUG:
        return "debug";
    }
    return "?";
}

/* Bytes of the printable UTF-8 character at @s, 1 to 4; 0 when it must be escaped (RFC 3629 section 4; no C0, C1, DEL). */
static size_t printable_len(const uint8_t *s, size_t len)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

    if (n == 1)
        return s[0] >= 0x20 && s[0] != 0x7f;
    if (n == 0 || n > len)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))
        return 0;
    return n;
}

static void put_text(struct buf *line, const char *text)
{
    buf_put(line, text, strlen(text));
}

static void put_escaped(struct buf *line, const char *text, enum log_format format)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t len = strlen(text), n;
    char code[8];

    for (size_t i = 0; i < len; i += n) {
        if (line->cap - line->len < LINE_TAIL) {
            put_text(line, "...");
            return;
        }
        n = printable_len(s + i, len - i);
        if (n == 0) {
            snprintf(code, sizeof(code), format == LOG_JSON ? "\\u%04x" : "\\x%02x", s[i]);
            put_text(line, code);
            n = 1;
            continue;
        }
        if (format == LOG_JSON && (s[i] == '"' || s[i] == '\\'))
            buf_u8(line, '\\');
        buf_put(line, s + i, n);
    }
}

/* UTC with milliseconds (RFC 3339): logs of two machines are compared more often than read over breakfast. */
static void put_time(struct buf *line)
{
    struct timespec now = { 0 };
    struct tm tm = { 0 };
    char text[40];
    size_t n;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + n, sizeof(text) - n, ".%03ldZ", now.tv_nsec / 1000000);
    put_text(line, text);
}

struct line { /* what a line of the log says */
    enum log_level level;
    const char *message;
    const struct log_field *fields; /* JSON only */
    size_t count;
};

/* Return: false: there was no room, and nothing was written. */
static bool put_field(struct buf *line, const struct log_field *f)
{
    char number[24];

    if (line->cap - line->len < strlen(f->name) + sizeof(number) + 8 + LINE_TAIL)
        return false;
    put_text(line, ",\"");
    put_text(line, f->name);
    put_text(line, f->text != NULL ? "\":\"" : "\":");
    if (f->text != NULL) {
        put_escaped(line, f->text, LOG_JSON);
        buf_u8(line, '"');
    } else {
        snprintf(number, sizeof(number), "%" PRIu64, f->number);
        put_text(line, number);
    }
    return true;
}

static void build_json(struct buf *line, const struct line *l)
{
    put_text(line, "{\"time\":\"");
    put_time(line);
    put_text(line, "\",\"level\":\"");
    put_text(line, level_text(l->level));
    put_text(line, "\",\"message\":\"");
    put_escaped(line, l->message, LOG_JSON);
    buf_u8(line, '"');
    for (size_t i = 0; i < l->count && put_field(line, &l->fields[i]); i++)
        ;
    put_text(line, "}\n");
}

static void build_text(struct buf *line, const struct line *l)
{
    put_time(line);
    buf_u8(line, ' ');
    put_text(line, level_text(l->level));
    put_text(line, ": ");
    put_escaped(line, l->message, LOG_TEXT);
    buf_u8(line, '\n');
}

/* One line, whole or counted as lost; half a line stays half (disk full), and is counted as well. */
static void sink_write(struct log_sink *sink, const struct buf *line)
{
    struct pollfd p = { .events = POLLOUT };
    ssize_t n = -1;

    pthread_mutex_lock(&sink->lock);
    p.fd = sink->fd;
    if (poll(&p, 1, 0) == 1 && (p.revents & (POLLOUT | POLLERR)) == POLLOUT) {
        do {
            n = write(sink->fd, line->data, line->len);
        } while (n < 0 && errno == EINTR);
    }
    pthread_mutex_unlock(&sink->lock);
    if (n != (ssize_t)line->len)
        atomic_fetch_add_explicit(&sink->lost, 1, memory_order_relaxed);
}

static void write_line(struct log_sink *sink, const struct line *l)
{
    uint8_t memory[LINE_BYTES];
    struct buf line;

    buf_init(&line, memory, sizeof(memory));
    if (sink->fn != NULL) {
        put_escaped(&line, l->message, LOG_TEXT);
        buf_u8(&line, 0);
        sink->fn(sink->arg, l->level, (const char *)memory);
        return;
    }
    if (sink->format == LOG_JSON)
        build_json(&line, l);
    else
        build_text(&line, l);
    sink_write(sink, &line);
}

static void format_message(char out[MESSAGE_BYTES], const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
static void format_message(char out[MESSAGE_BYTES], const char *fmt, va_list ap)
{
    if (vsnprintf(out, MESSAGE_BYTES, fmt, ap) >= MESSAGE_BYTES)
        memcpy(out + MESSAGE_BYTES - 4, "...", 4);
}

void log_vline(enum log_level level, const char *fmt, va_list ap)
{
    char message[MESSAGE_BYTES];
    int saved = errno;

    if (!log_enabled(level))
        return;
    format_message(message, fmt, ap);
    write_line(sink_now(), &(struct line){ level, message, NULL, 0 });
    errno = saved; /* a caller may log between a failed call and its look at errno */
}

void log_event(enum log_level level, const char *event, const struct log_field *fields, size_t count,
               const char *fmt, ...)
{
    struct log_sink *sink = sink_now();
    char message[MESSAGE_BYTES];
    int saved = errno;
    va_list ap;

    if (!log_enabled(level))
        return;
    va_start(ap, fmt);
    format_message(message, fmt, ap);
    va_end(ap);
    if (sink->fn == NULL && sink->format == LOG_JSON)
        write_line(sink, &(struct line){ level, event, fields, count });
    else
        write_line(sink, &(struct line){ level, message, NULL, 0 });
    errno = saved;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_vline(level, fmt, ap);
    va_end(ap);
}

bool log_limit_pass(struct log_limit *l, uint64_t now_us, uint32_t per_second, uint32_t *held)
{
    if (now_us - l->window_us >= 1000000) {
        l->window_us = now_us;
        l->used = 0;
    }
    if (l->used >= per_second) {
        if (l->held < UINT32_MAX)
            l->held++;
        return false;
    }
    l->used++;
    *held = l->held;
    l->held = 0;
    return true;
}
