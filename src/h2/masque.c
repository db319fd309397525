/* masque.c - the default paths of CONNECT-UDP (RFC 9298 section 3) and CONNECT-IP (RFC 9484 section 3), written and read. */
#include "culvert/h2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UDP_PREFIX "/.well-known/masque/udp/"
#define IP_PREFIX  "/.well-known/masque/ip/"

/* What is not unreserved (RFC 3986 section 2.3) is percent-encoded, as the expansion of {target_host} does. */
static bool put_encoded(const char *text, char *out, size_t cap)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    size_t n = 0;

    for (; *text; text++) {
        if (n + 4 > cap)
            return false;
        if (strchr(plain, *text))
            out[n++] = *text;
        else
            n += (size_t)snprintf(out + n, 4, "%%%02X", (unsigned char)*text);
    }
    out[n] = '\0';
    return n > 0;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One segment of a path, decoded, up to its '/' and past it. A NUL inside is refused: nobody is called that. */
static bool get_segment(const char **at, char *out, size_t cap)
{
    const char *p = *at;
    size_t n = 0;

    for (; *p && *p != '/'; p++) {
        int c = (unsigned char)*p;

        if (c == '%') {
            int high = hex(p[1]), low = high < 0 ? -1 : hex(p[2]);

            if (low < 0)
                return false;
            c = high * 16 + low;
            p += 2;
        }
        if (c == 0 || n + 1 >= cap)
            return false;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    *at = *p == '/' ? p + 1 : p;
    return n > 0;
}

static bool skip_prefix(const char **at, const char *prefix)
{
    size_t n = strlen(prefix);

    if (strncmp(*at, prefix, n) != 0)
        return false;
    *at += n;
    return true;
}

/* Decimal digits only. Return: -1 when it is no number up to @most. */
static int number(const char *text, int most)
{
    size_t digits = strspn(text, "0123456789");
    int v = digits > 0 && digits <= 5 && text[digits] == '\0' ? atoi(text) : -1;

    return v <= most ? v : -1;
}

int masque_udp_path_put(const struct host_port *target, char out[MASQUE_PATH_MAX])
{
    char text[IP_TEXT_MAX], host[768 + 1];

    if (target->port == 0 ||
        !put_encoded(target->name ? target->name : ip_text(&target->addr, text), host, sizeof(host)))
        return -EINVAL;
    snprintf(out, MASQUE_PATH_MAX, UDP_PREFIX "%s/%u/", host, target->port);
    return 0;
}

int masque_udp_path_get(const char *path, char name[256], struct host_port *out)
{
    struct host_port target = { 0 };
    char host[256], port[8];
    int n;

    if (!skip_prefix(&path, UDP_PREFIX) || !get_segment(&path, host, sizeof(host)) ||
        !get_segment(&path, port, sizeof(port)) || *path != '\0')
        return -EINVAL;
    n = number(port, 65535);
    if (n <= 0 || host[0] == '[') /* section 3: an IPv6 address comes without brackets */
        return -EINVAL;
    target.port = (uint16_t)n;
    if (ip_parse(host, &target.addr) != 0) {
        if (host_name_normalise(host, strlen(host), name) != 0)
            return -EINVAL;
        target.name = name;
    }
    *out = target;
    return 0;
}

void masque_ip_path_put(uint8_t proto, char out[MASQUE_PATH_MAX])
{
    snprintf(out, MASQUE_PATH_MAX, IP_PREFIX "%%2A/%u/", proto);
}

int masque_ip_path_get(const char *path, char target[256], int *proto)
{
    char text[256], last[8];
    int n = -1;

    if (!skip_prefix(&path, IP_PREFIX) || !get_segment(&path, text, sizeof(text)) ||
        !get_segment(&path, last, sizeof(last)) || *path != '\0')
        return -EINVAL;
    if (strcmp(last, "*") != 0 && (n = number(last, 255)) < 0)
        return -EINVAL;
    memcpy(target, text, sizeof(text));
    *proto = n;
    return 0;
}
