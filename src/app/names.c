/* names.c - resolv.conf and nsswitch.conf for a private namespace. */
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "culvert/resolver.h"

static const char BEHIND[] =
    "# culvert: questions go on to "; /* written into our resolv.conf, and found there */

const char *const names_host_paths[] = { "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", NULL };

void names_read_file(const char *path, char *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    size_t len = 0;
    ssize_t n;

    while (fd >= 0 && len < cap - 1 && (n = read(fd, out + len, cap - 1 - len)) > 0)
        len += (size_t)n;
    if (fd >= 0)
        close(fd);
    out[len] = '\0';
}

/* ---- finding ---- */

static int behind_ours(const char *text, struct ip_port *out)
{
    const char *at = strstr(text, BEHIND);
    char word[IP_TEXT_MAX];
    size_t len;

    if (at == NULL)
        return -ENOENT;
    at += sizeof(BEHIND) - 1;
    len = strcspn(at, " \n");
    if (len >= sizeof(word))
        return -ENOENT;
    memcpy(word, at, len);
    word[len] = '\0';
    if (ip_parse(word, &out->addr) != 0)
        return -ENOENT;
    out->port = 53;
    return 0;
}

int names_find_server(const char *const paths[], struct ip_port *out)
{
    struct ip_port servers[8];
    char text[NAMES_FILE_MAX];

    for (; *paths != NULL; paths++) {
        size_t n = resolver_conf_servers(*paths, servers, ARRAY_LEN(servers));

        names_read_file(*paths, text, sizeof(text));
        if (behind_ours(text, out) == 0)
            return 0;
        for (size_t i = 0; i < n; i++) {
            if (ip_is_loopback(&servers[i].addr) || ip_is_link_local(&servers[i].addr))
                continue; /* a link-local one would need the host's interface */
            *out = servers[i];
            return 0;
        }
    }
    return -ENOENT;
}

/* ---- writing ---- */

/* A text that grows by whole pieces: one that does not fit is left out. */
static void append(char *out, const char *piece, size_t len)
{
    size_t used = strlen(out);

    if (used + len >= NAMES_FILE_MAX)
        return;
    memcpy(out + used, piece, len);
    out[used + len] = '\0';
}

static void append_text(char *out, const char *text)
{
    append(out, text, strlen(text));
}

static bool starts_with_word(const char *line, const char *word)
{
    size_t len = strlen(word);

    return strncmp(line, word, len) == 0 && (line[len] == ' ' || line[len] == '\t');
}

static size_t line_length(const char *line) /* with its newline */
{
    size_t len = strcspn(line, "\n");

    return line[len] == '\n' ? len + 1 : len;
}

void names_resolv_conf(const struct ip_addr servers[2], const struct ip_port *behind, const char *host,
                       char out[NAMES_FILE_MAX])
{
    static const char *const kept[] = { "search", "domain", "options", "sortlist" };
    char line[128], addr[IP_TEXT_MAX];

    out[0] = '\0';
    snprintf(line, sizeof(line), "%s%s\n", BEHIND, ip_text(&behind->addr, addr));
    append_text(out, line);
    for (size_t i = 0; i < 2; i++) {
        if (ip_is_none(&servers[i]))
            continue;
        snprintf(line, sizeof(line), "nameserver %s\n", ip_text(&servers[i], addr));
        append_text(out, line);
    }
    for (const char *at = host; *at != '\0'; at += line_length(at)) {
        for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
            if (!starts_with_word(at, kept[i]))
                continue;
            append(out, at, strcspn(at, "\n"));
            append_text(out, "\n");
        }
    }
}

static bool has_word(const char *line, size_t len, const char *word)
{
    size_t n = strlen(word);

    for (size_t i = 0; i + n <= len; i++) {
        bool starts = i == 0 || strchr(" \t:", line[i - 1]) != NULL;
        bool ends = i + n == len || strchr(" \t\n[", line[i + n]) != NULL;

        if (starts && ends && strncmp(line + i, word, n) == 0)
            return true;
    }
    return false;
}

void names_nsswitch(const char *host, char out[NAMES_FILE_MAX])
{
    bool own_name = false;

    out[0] = '\0';
    append_text(out, "# culvert: host names come from files and DNS only\n");
    for (const char *at = host; *at != '\0'; at += line_length(at)) {
        size_t len = strcspn(at, "\n");
        size_t key = strspn(at, " \t");

        if (strncmp(at + key, "hosts:", 6) != 0) {
            append(out, at, len);
            append_text(out, "\n");
        } else {
            own_name = has_word(at, len, "myhostname"); /* asks nobody: this machine's own name */
        }
    }
    append_text(out, own_name ? "hosts: files dns myhostname\n" : "hosts: files dns\n");
}
