/* capsule.c - capsules as bytes: variable-length integers (RFC 9000 section 16), their heads (RFC 9297 section 3.2), and what
 * RFC 9484 section 4.7 puts into them. No state, no I/O. */
#include "culvert/h2.h"

#include <errno.h>
#include <string.h>

size_t varint_put(uint8_t *to, uint64_t v)
{
    unsigned log = v < 1u << 6 ? 0 : v < 1u << 14 ? 1 : v < 1u << 30 ? 2 : 3;
    size_t n = (size_t)1 << log;

    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)(v >> 8 * (n - 1 - i));
    to[0] = (uint8_t)((to[0] & 0x3f) | log << 6);
    return n;
}

int varint_get(struct span *in, uint64_t *out)
{
    size_t n = in->len > 0 ? (size_t)1 << (in->data[0] >> 6) : 1;
    uint64_t v;

    if (in->len < n)
        return -EAGAIN;
    v = in->data[0] & 0x3f;
    for (size_t i = 1; i < n; i++)
        v = v << 8 | in->data[i];
    span_skip(in, n);
    *out = v;
    return 0;
}

int capsule_head_get(struct span *in, uint64_t *type, uint64_t *len)
{
    struct span at = *in;
    uint64_t t, l;

    if (varint_get(&at, &t) != 0 || varint_get(&at, &l) != 0)
        return -EAGAIN;
    *in = at;
    *type = t;
    *len = l;
    return 0;
}

size_t capsule_head_put(uint8_t *to, uint64_t type, uint64_t len)
{
    size_t n = varint_put(to, type);

    return n + varint_put(to + n, len);
}

/* ---- RFC 9484 section 4.7 ---- */

static bool address_get(struct span *in, uint8_t version, struct ip_addr *out)
{
    const uint8_t *bytes;

    if (!span_bytes(in, version == 4 ? 4 : 16, &bytes))
        return false;
    *out = version == 4 ? ip_from4(bytes) : ip_from6(bytes);
    return true;
}

static void address_put(struct buf *b, const struct ip_addr *a)
{
    if (ip_is4(a))
        buf_put(b, a->b + 12, 4);
    else
        buf_put(b, a->b, 16);
}

int capsule_address_get(struct span *in, struct capsule_address *out)
{
    struct capsule_address a = { 0 };
    uint8_t version, len;

    if (in->len == 0)
        return -ENODATA;
    if (varint_get(in, &a.request_id) != 0 || !span_u8(in, &version) || (version != 4 && version != 6) ||
        !address_get(in, version, &a.prefix.addr) || !span_u8(in, &len) || len > (version == 4 ? 32 : 128))
        return -EBADMSG;
    if (version == 6 && ip_is4(&a.prefix.addr)) /* a mapped address in the other family's clothes */
        return -EBADMSG;
    a.prefix.len = (uint8_t)(version == 4 ? 96 + len : len);
    *out = a;
    return 0;
}

void capsule_address_put(struct buf *b, const struct capsule_address *a)
{
    uint8_t id[VARINT_BYTES_MAX];
    bool v4 = ip_is4(&a->prefix.addr);

    buf_put(b, id, varint_put(id, a->request_id));
    buf_u8(b, v4 ? 4 : 6);
    address_put(b, &a->prefix.addr);
    buf_u8(b, (uint8_t)(v4 ? a->prefix.len - 96 : a->prefix.len));
}

int capsule_route_get(struct span *in, struct capsule_route *out)
{
    struct capsule_route r;
    uint8_t version;

    if (in->len == 0)
        return -ENODATA;
    if (!span_u8(in, &version) || (version != 4 && version != 6) || !address_get(in, version, &r.from) ||
        !address_get(in, version, &r.to) || !span_u8(in, &r.proto))
        return -EBADMSG;
    if (memcmp(r.from.b, r.to.b, sizeof(r.from.b)) > 0)
        return -EBADMSG;
    *out = r;
    return 0;
}

void capsule_route_put(struct buf *b, const struct capsule_route *r)
{
    buf_u8(b, ip_is4(&r->from) ? 4 : 6);
    address_put(b, &r->from);
    address_put(b, &r->to);
    buf_u8(b, r->proto);
}
