/* fuzz_echo_errqueue.c - one record of an error queue: control messages, name and what a router quoted, all of it foreign.
 * Byte 0: flags; 1: length of the control messages, in units of 4; 2: length of the name; then these three, quote last.
 * What a client is told must be within the limits of its family, whatever was quoted. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "echo/ping_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { V6 = 1, KEPT = 2, LONG_HEADER = 4 };

static void promise(bool holds)
{
    if (!holds)
        abort();
}

static void quote(const struct ping_error_record *e, uint8_t flags)
{
    bool v6 = flags & V6;
    static const uint8_t client[16] = { 0xfd, [15] = 7 };
    struct ping_sent sent = { .len = 64, .seq = 5, .checksum = 0x1234, .used = true };
    struct ping_original o = { v6 ? ip_from6(client) : ip_from4(client + 12),
                               v6 ? ip_from6(client) : ip_from4(client + 12),
                               77,
                               5,
                               NULL,
                               e->source };
    uint8_t *out = malloc(PING_QUOTE_MAX);
    uint16_t id, seq, len;
    size_t header = v6 ? 40 : 20;

    if (flags & KEPT) {
        o.sent = &sent;
        sent.header_len = (uint8_t)(v6 ? 40 : flags & LONG_HEADER ? 60 : 20);
        sent.header[0] = (uint8_t)(v6 ? 0x60 : 0x40 | sent.header_len / 4);
        header = sent.header_len;
    }
    if (out && ping_quoted_echo(e->quoted, v6, &id, &seq)) {
        len = ping_quote(&o, e->quoted, out);
        promise(len >= header + PING_HEADER && len <= (v6 ? 1232 : 548));
        promise(get_be16(out + header + 4) == 77 && get_be16(out + header + 6) == 5);
        promise(v6 ? out[7] == 1 : out[8] == 1 && ping_sum(out, header, 0) == 0);
    }
    free(out);
}

static void tell(const struct ping_error_record *e, bool v6)
{
    uint8_t type, code;
    uint32_t info;

    if (ping_error_map(e, v6, 1500, &type, &code, &info) != PING_ERROR_TELL)
        return;
    if (v6) {
        promise(type >= 1 && type <= 4 && (type != 2 || (info >= 1280 && info <= 1500)));
    } else {
        promise(type == 3 || type == 11 || type == 12);
        promise(type != 3 || code != 4 || (info >= 68 && info <= 1500));
        promise(type != 12 || info <= 255);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _Alignas(struct cmsghdr) uint8_t control[1024] = { 0 };
    struct sockaddr_storage name;
    struct msghdr m = { .msg_name = &name, .msg_control = control };
    struct ping_error_record e;
    struct span in = { data, size };
    uint8_t flags, units, name_len;
    const uint8_t *bytes;

    if (!span_u8(&in, &flags) || !span_u8(&in, &units) || !span_u8(&in, &name_len))
        return 0;
    if (!span_bytes(&in, units * 4u, &bytes) || name_len > sizeof(name))
        return 0;
    memcpy(control, bytes, units * 4u);
    m.msg_controllen = units * 4u;
    if (!span_bytes(&in, name_len, &bytes))
        return 0;
    memset(&name, 0, sizeof(name));
    memcpy(&name, bytes, name_len);
    m.msg_namelen = name_len;
    if (!ping_read_error(&m, in, &e))
        return 0;
    tell(&e, flags & V6);
    quote(&e, flags);
    return 0;
}
