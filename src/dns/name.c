/* name.c - names of DNS messages: compressed, plain, and as text.
 *
 * What always holds: a struct dns_name ends with the root label and has at most 255 bytes, so a walk over its labels
 * needs no further check. */
#include "wire.h"

#include <errno.h>
#include <string.h>

#define NAME_BYTES_MAX 255 /* RFC 1035 section 2.3.4 */
#define POINTERS_MAX   64 /* in one name; a real one has one or two, and none needs more than it has labels */

int dns_name_from_text(const char *text, struct dns_name *out)
{
    char host[256];
    size_t len, label_at = 0;

    if (host_name_normalise(text, strlen(text), host) != 0)
        return -EINVAL;
    len = strlen(host);
    if (len + 2 > sizeof(out->wire)) /* the first length byte and the root label */
        return -EINVAL;
    memcpy(out->wire + 1, host, len);
    out->wire[len + 1] = 0;
    for (size_t i = 1; i <= len + 1; i++) {
        if (i <= len && out->wire[i] != '.')
            continue;
        out->wire[label_at] = (uint8_t)(i - label_at - 1);
        label_at = i;
    }
    out->wire[len + 1] = 0;
    out->len = (uint8_t)(len + 2);
    return 0;
}

static bool is_host_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static char *put_text_byte(char *to, uint8_t c)
{
    if (is_host_byte(c)) {
        *to++ = (char)c;
        return to;
    }
    *to++ = '\\';
    *to++ = (char)('0' + c / 100);
    *to++ = (char)('0' + c / 10 % 10);
    *to++ = (char)('0' + c % 10);
    return to;
}

const char *dns_name_text(const struct dns_name *n, char out[DNS_NAME_TEXT_MAX])
{
    const uint8_t *label = n->wire;
    char *to = out;

    while (n->len > 0 && *label != 0) {
        if (to != out)
            *to++ = '.';
        for (uint8_t i = 1; i <= *label; i++)
            to = put_text_byte(to, label[i]);
        label += *label + 1;
    }
    if (to == out)
        *to++ = '.';
    *to = '\0';
    return out;
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c - 'A' + 'a') : c;
}

/* Length bytes are below 64 and so are no letters: one loop compares both. */
bool dns_name_equal(const struct dns_name *a, const struct dns_name *b)
{
    if (a->len != b->len)
        return false;
    for (size_t i = 0; i < a->len; i++) {
        if (lower(a->wire[i]) != lower(b->wire[i]))
            return false;
    }
    return true;
}

/* Appends the label at @at of @msg; false when it, or the name, is too long. */
static bool append_label(struct span msg, size_t at, struct dns_name *out)
{
    size_t len = msg.data[at] + (size_t)1;

    if (msg.data[at] > LABEL_MAX || at + len > msg.len || out->len + len > sizeof(out->wire))
        return false;
    memcpy(out->wire + out->len, msg.data + at, len);
    out->len = (uint8_t)(out->len + len);
    return true;
}

bool name_read(struct span msg, size_t *at, struct dns_name *out)
{
    size_t p = *at, lowest = p, target, end = 0;

    out->len = 0;
    for (unsigned pointers = 0; p < msg.len; p = target) {
        while (p < msg.len && msg.data[p] < LABEL_POINTER) {
            if (!append_label(msg, p, out))
                return false;
            if (msg.data[p] == 0) {
                *at = end != 0 ? end : p + 1;
                return true;
            }
            p += msg.data[p] + (size_t)1;
        }
        if (msg.len - p < 2 || ++pointers > POINTERS_MAX)
            return false;
        target = get_be16(msg.data + p) & 0x3fff;
        if (end == 0)
            end = p + 2;
        if (target >= lowest) /* forwards, or to itself: the way of loops */
            return false;
        lowest = target;
    }
    return false;
}

bool name_skip(struct span msg, size_t *at)
{
    size_t p = *at;

    while (p < msg.len && msg.data[p] != 0 && msg.data[p] <= LABEL_MAX)
        p += msg.data[p] + (size_t)1;
    if (p >= msg.len || (msg.data[p] != 0 && msg.data[p] < LABEL_POINTER))
        return false;
    p += msg.data[p] == 0 ? 1 : 2;
    if (p > msg.len || p - *at > NAME_BYTES_MAX + 1) /* the last label as a pointer has one byte more */
        return false;
    *at = p;
    return true;
}
