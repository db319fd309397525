/* guard.c - who may ask over TCP: Host, Origin and secret (faults.md A1, A2). Pure functions over foreign text. */
#include "api_impl.h"

#include <string.h>
#include <strings.h>

#define BEARER "Bearer "

/* @host without its port goes to @out, brackets included. Return: the port, 80 when there is none; -1: neither form. */
static int split_port(const char *host, char *out, size_t cap)
{
    const char *colon = host[0] == '[' ? strchr(host, ']') : host;
    size_t len;
    int port = 0;

    if (colon == NULL)
        return -1;
    colon = strchr(colon, ':');
    len = colon != NULL ? (size_t)(colon - host) : strlen(host);
    if (len == 0 || len >= cap)
        return -1;
    memcpy(out, host, len);
    out[len] = '\0';
    if (colon == NULL)
        return 80; /* RFC 9110 section 4.2.1 */
    for (colon++; *colon >= '0' && *colon <= '9' && port <= 65535; colon++)
        port = port * 10 + (*colon - '0');
    return *colon == '\0' && port > 0 && port <= 65535 ? port : -1;
}

bool api_host_is_ours(const char *host, const struct ip_port *listen)
{
    static const uint8_t zero4[4] = { 0 };
    bool any = ip_is_none(&listen->addr) ||
               (ip_is4(&listen->addr) && memcmp(listen->addr.b + 12, zero4, sizeof(zero4)) == 0);
    struct ip_addr literal;
    char text[64];
    int port = host != NULL ? split_port(host, text, sizeof(text)) : -1;

    if (port != listen->port)
        return false;
    if (strcasecmp(text, "localhost") == 0)
        return any || ip_is_loopback(&listen->addr);
    return ip_parse(text, &literal) == 0 && (any || ip_equal(&literal, &listen->addr));
}

bool api_origin_is_ours(const char *origin, const struct ip_port *listen)
{
    static const char scheme[] = "http://";

    if (origin == NULL)
        return true;
    return strncmp(origin, scheme, sizeof(scheme) - 1) == 0 &&
           api_host_is_ours(origin + sizeof(scheme) - 1, listen);
}

bool api_secret_is_right(const char *header, const char *secret)
{
    size_t len, want = strlen(secret);
    volatile uint8_t differs = 0; /* no early way out, for the compiler neither */

    if (header == NULL || strncasecmp(header, BEARER, sizeof(BEARER) - 1) != 0)
        return false;
    header += sizeof(BEARER) - 1;
    len = strlen(header);
    for (size_t i = 0; i < len; i++)
        differs |= (uint8_t)(header[i] ^ secret[i < want ? i : 0]);
    return len == want && differs == 0;
}
