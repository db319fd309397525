/* client.c - the client side of the control socket: one request, one answer, then the connection ends.
 *
 * HTTP/1.1 with "Connection: close" (RFC 9112 section 6.3, rule 8): the body is what follows the head, up to the end, and its
 * length is checked when Content-Length says one. No library is needed for that, so `culvert status` works without WITH_API. */
#include "api_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_MAX = 64 << 20 }; /* 300,000 flows as JSON; more is no answer of ours */

struct answer {
    char *data; /* NUL-terminated, heap */
    size_t len, cap;
};

static uint64_t ms_left(uint64_t deadline_us)
{
    uint64_t now = clock_now_us();

    return now >= deadline_us ? 0 : (deadline_us - now + 999) / 1000;
}

static int wait_for(int fd, short events, uint64_t deadline_us)
{
    struct pollfd p = { .fd = fd, .events = events };
    int r;

    do
        r = poll(&p, 1, (int)ms_left(deadline_us));
    while (r < 0 && errno == EINTR);
    return r > 0 ? 0 : r == 0 ? -ETIMEDOUT : -errno;
}

/* What a failed send or receive means: wait and try again (0), or the end. */
static int may_retry(int fd, int error, short events, uint64_t deadline_us)
{
    if (error == EINTR)
        return 0;
    return error == EAGAIN ? wait_for(fd, events, deadline_us) : -error;
}

static int send_all(int fd, const char *text, uint64_t deadline_us)
{
    size_t len = strlen(text), done = 0;
    int r = 0;

    while (done < len && r == 0) {
        ssize_t n = send(fd, text + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0)
            r = may_retry(fd, errno, POLLOUT, deadline_us);
        else
            done += (size_t)n;
    }
    return r;
}

static int answer_grow(struct answer *a)
{
    size_t cap = a->cap == 0 ? 64 << 10 : a->cap * 2;
    char *data;

    if (cap > ANSWER_MAX)
        return -EMSGSIZE;
    data = realloc(a->data, cap);
    if (data == NULL)
        return -ENOMEM;
    a->data = data;
    a->cap = cap;
    return 0;
}

static int receive_all(int fd, struct answer *a, uint64_t deadline_us)
{
    for (;;) {
        ssize_t n;
        int r = 0;

        if (a->len + 1 >= a->cap && (r = answer_grow(a)) != 0)
            return r;
        n = recv(fd, a->data + a->len, a->cap - a->len - 1, MSG_DONTWAIT);
        if (n == 0)
            break;
        if (n > 0)
            a->len += (size_t)n;
        else if ((r = may_retry(fd, errno, POLLIN, deadline_us)) != 0)
            return r;
    }
    a->data[a->len] = '\0';
    return 0;
}

/* A head line's value, or NULL; names are compared without case (RFC 9110 section 5.1). */
static const char *header_value(const char *head, const char *name)
{
    size_t len = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':')
            return line + len + 1 + strspn(line + len + 1, " \t");
    }
    return NULL;
}

/* {"error": "SENTENCE", ...} as our server writes it: the sentence, cut where it has an escape that a terminal need not see. */
static const char *error_of(char *body)
{
    static const char key[] = "\"error\": \"";
    char *at = strstr(body, key);

    if (at == NULL)
        return "";
    at += sizeof(key) - 1;
    for (char *to = at, *from = at;; from++) {
        if (*from == '\\' && (from[1] == '"' || from[1] == '\\'))
            from++;
        else if (*from == '"' || *from == '\0' || *from == '\\') {
            *to = '\0';
            return at;
        }
        *to++ = *from;
    }
}

static int print_answer(struct answer *a, FILE *out, struct err *err)
{
    char *end = strstr(a->data, "\r\n\r\n");
    const char *length;
    char *body;
    size_t body_len;

    if (end == NULL || strncmp(a->data, "HTTP/1.", 7) != 0 || strlen(a->data) < 12)
        return err_set(err, -EPROTO, "what answers there is not culvert");
    body = end + 4;
    body_len = a->len - (size_t)(body - a->data);
    end[2] = '\0'; /* the head is a string of its own now */
    length = header_value(a->data, "Content-Length");
    if (length != NULL && strtoull(length, NULL, 10) != body_len)
        return err_set(err, -EPROTO, "the answer was cut off");
    if (strncmp(a->data + 8, " 2", 2) != 0) {
        const char *sentence = error_of(body);

        if (*sentence != '\0')
            return err_set(err, -EPROTO, "%.200s", sentence);
        return err_set(err, -EPROTO, "the answer is \"%.100s\"", strtok(a->data + 9, "\r\n"));
    }
    if (fwrite(body, 1, body_len, out) != body_len || fflush(out) != 0)
        return err_set(err, -errno, "the answer cannot be written: %s", strerror(errno));
    return 0;
}

static int request(int fd, const char *method, const char *path, const char *body, uint64_t deadline_us,
                   struct answer *a)
{
    char text[2048];
    int n = snprintf(text, sizeof(text),
                     "%s %s HTTP/1.1\r\nHost: culvert\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                     method, path, body != NULL ? strlen(body) : 0, body != NULL ? body : "");
    int r;

    if (n < 0 || (size_t)n >= sizeof(text))
        return -EINVAL;
    r = send_all(fd, text, deadline_us);
    return r != 0 ? r : receive_all(fd, a, deadline_us);
}

static int connect_error(int r, const char *unix_path, struct err *err)
{
    if (r == -ENOENT || r == -ECONNREFUSED)
        return err_set(err, r, "no culvert listens on %s; is it running, and with this api.unix?", unix_path);
    if (r == -EACCES)
        return err_set(err, r, "%s belongs to another user; ask as the one that runs culvert", unix_path);
    return err_set(err, r, "%s: %s", unix_path, strerror(-r));
}

int api_ask(const char *unix_path, const char *method, const char *path, const char *body, int timeout_ms,
            FILE *out, struct err *err)
{
    uint64_t deadline_us = clock_now_us() + (uint64_t)timeout_ms * 1000;
    struct answer a = { 0 };
    struct sockaddr_un sa;
    int fd, r = api_address(unix_path, &sa, err);

    if (r != 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(err, -errno, "no socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
        r = connect_error(-errno, unix_path, err);
    else if ((r = request(fd, method, path, body, deadline_us, &a)) != 0)
        err_set(err, r, r == -ETIMEDOUT ? "%s: no answer in time" : "%s: the answer failed", unix_path);
    else
        r = print_answer(&a, out, err);
    close(fd);
    free(a.data);
    return r;
}
