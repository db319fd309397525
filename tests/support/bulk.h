/* bulk.h - a server that sends back what comes, and a stream that sends much and wants it back; beside up_rig.h. */
#ifndef CULVERT_TEST_BULK_H
#define CULVERT_TEST_BULK_H

#include "up_rig.h"

enum { BULK_BYTES = 3000000, BULK_PIECE = 20000 };

/* Sends back what comes, each end after the other. */
struct echo_server {
    struct up_rig *rig;
    struct loop_io listener, io;
    uint16_t port;
    bool active;
    size_t len, off;
    uint8_t data[BULK_PIECE];
};
void echo_open(struct echo_server *e, struct up_rig *rig); /* for one connection */
void echo_close(struct echo_server *e);

struct bulk { /* a stream that sends BULK_BYTES, then its end, and wants the same back */
    struct up_stream *s;
    size_t sent, got;
    bool ended, closed, wrong;
};
/** bulk_start() - open it. @deaf: it does not read before up_stream_want() says so */
void bulk_start(struct up_rig *rig, struct bulk *b, struct upstream *up, bool deaf);
bool bulk_over(void *bulk); /* ended, closed or wrong */

#endif
