/* fuzz_echo_reply.c - a message that a ping or raw socket read, by whoever knows our id, and what it may be matched to.
 * The first byte says which kind of socket; the rest is the message. What was understood must lie inside it. */
#include <stdlib.h>
#include <string.h>

#include "echo/ping_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool holds)
{
    if (!holds)
        abort();
}

/* Of requests 0 to 99 on the wire, whichever the message names: at most four replies each, none to another. */
static void match(const struct ping_message *m)
{
    static struct ping_seen seen;
    unsigned passed = 0;

    memset(&seen, 0, sizeof(seen));
    for (uint16_t seq = 0; seq < 100; seq++)
        ping_seen_sent(&seen, seq);
    for (int i = 0; i < 8; i++) {
        enum ping_seen_result r = ping_seen_reply(&seen, m->seq);

        passed += r == PING_SEEN_FIRST || r == PING_SEEN_AGAIN;
    }
    promise(passed == (m->seq < 100 ? PING_REPLIES_MAX : 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ping_message m;
    struct span bytes;

    if (size == 0)
        return 0;
    bytes = (struct span){ data + 1, size - 1 };
    if (ping_read_message(bytes, data[0] & 1, data[0] & 2, &m) != PING_READ_REPLY)
        return 0;
    promise(m.payload >= bytes.data + PING_HEADER && m.payload + m.payload_len == bytes.data + bytes.len);
    match(&m);
    return 0;
}
