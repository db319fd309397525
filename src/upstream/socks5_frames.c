/* socks5_frames.c - UDP in TCP, as hev-socks5-server and its clients have it: datagrams as frames of a stream.
 *
 * Command 5 of SOCKS5 (RFC 1928 leaves it free) asks for it, with an address that means nothing; after the reply, both sides send
 *     length of the data, 2 bytes | length of the header, 1 byte: all before the data | type, address, port | data
 * with the address in the form of RFC 1928 section 5: whom the datagram goes to, or whom it came from.
 *
 * What always holds. The two lengths keep the frames apart whatever the address says, so a frame with an address that we cannot
 * read is thrown away alone. A header of less than 5 bytes is none. Nothing is kept but one frame that is under way; what does
 * not fit to be sent is lost, as in any full queue. */
#include "culvert/upstream.h"

#include <errno.h>
#include <string.h>

enum { LENGTHS = 3, HEADER_MIN = LENGTHS + 2 };

size_t socks5_frames_room(struct socks5_frames *f, uint8_t **to)
{
    memmove(f->in, f->in + f->in_at, f->in_len - f->in_at);
    f->in_len -= f->in_at;
    f->in_at = 0;
    *to = f->in + f->in_len;
    return sizeof(f->in) - f->in_len;
}

void socks5_frames_received(struct socks5_frames *f, size_t n)
{
    f->in_len += (uint32_t)n;
}

/* What is left of a frame that is thrown away. Return: all of it has come */
static bool skip(struct socks5_frames *f)
{
    uint32_t here = f->in_len - f->in_at, n = f->skip < here ? f->skip : here;

    f->in_at += n;
    f->skip -= n;
    return f->skip == 0;
}

int socks5_frames_next(struct socks5_frames *f, struct socks5_address *a, struct span *data)
{
    while (skip(f)) {
        const uint8_t *frame = f->in + f->in_at;
        struct span header;
        uint32_t len, have = f->in_len - f->in_at;

        if (have < LENGTHS)
            return 0;
        if (frame[2] < HEADER_MIN)
            return -EBADMSG;
        len = (uint32_t)get_be16(frame) + frame[2];
        if (get_be16(frame) > SOCKS5_FRAME_DATA_MAX) {
            f->malformed++;
            f->skip = len;
            continue;
        }
        if (have < len)
            return 0;
        header = (struct span){ frame + LENGTHS, (size_t)frame[2] - LENGTHS };
        *data = (struct span){ frame + frame[2], get_be16(frame) };
        f->in_at += len;
        if (socks5_address_get(&header, a) == 0 && header.len == 0)
            return 1;
        f->malformed++;
    }
    return 0;
}

int socks5_frames_add(struct socks5_frames *f, const struct host_port *a, const void *data, size_t len)
{
    uint8_t header[LENGTHS + SOCKS5_ADDRESS_MAX];
    size_t header_len = LENGTHS + socks5_address_put(header + LENGTHS, a);

    if (len > SOCKS5_FRAME_DATA_MAX || header_len > SOCKS5_FRAME_HEADER_MAX)
        return -EMSGSIZE;
    if (f->out_at > 0) {
        memmove(f->out, f->out + f->out_at, f->out_len - f->out_at);
        f->out_len -= f->out_at;
        f->out_at = 0;
    }
    if (sizeof(f->out) - f->out_len < header_len + len)
        return -ENOBUFS;
    put_be16(header, (uint16_t)len);
    header[2] = (uint8_t)header_len;
    memcpy(f->out + f->out_len, header, header_len);
    if (len > 0)
        memcpy(f->out + f->out_len + header_len, data, len);
    f->out_len += (uint32_t)(header_len + len);
    return 0;
}

struct span socks5_frames_unsent(const struct socks5_frames *f)
{
    return (struct span){ f->out + f->out_at, f->out_len - f->out_at };
}

void socks5_frames_sent(struct socks5_frames *f, size_t n)
{
    f->out_at += (uint32_t)n;
    if (f->out_at == f->out_len)
        f->out_at = f->out_len = 0;
}
