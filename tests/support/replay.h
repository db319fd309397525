/* replay.h - a recorded client talks to the stack once more, packet by packet, at the times of the recording
 * (tcp-stack.md TST-6).
 *
 * A trace is a pcap file of one connection, both directions, Ethernet or raw IP, as tests/traces/record makes
 * them. What the client sent goes into the stack as it was, except that its acknowledgements (and SACK blocks,
 * and echoed timestamps) are moved from the numbers of the server of that time to ours. */
#ifndef CULVERT_TEST_REPLAY_H
#define CULVERT_TEST_REPLAY_H

#include <stdio.h>

#include "lab_script.h"

struct replay_options {
    const char *path;
    uint64_t up_bytes;   /* answer when so many have been read; UINT64_MAX: when the client has said all */
    uint64_t down_bytes; /* of the answer; then our FIN */
    uint64_t after_us;   /* go on so long after the last packet */
    lab_change *change;  /* of the laboratory; may be NULL */
    FILE *log;           /* one line for each packet that the stack emitted; may be NULL */
};

struct replay_result {
    const char *wrong;     /* the trace cannot be replayed: why; NULL */
    unsigned packets;      /* of the client */
    uint64_t client_bytes; /* the highest that it sent */
    uint64_t got;          /* bytes of it that were delivered */
    bool got_wrong, eof;
    uint64_t acked; /* of our answer */
    unsigned closes, resets_out;
    int close_err;
    struct stack_counters counters;
};

struct replay_result replay_run(const struct replay_options *o);

#endif
