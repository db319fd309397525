/* mq_relay.h - for mq_server.c: a CONNECT that leads somewhere. */
#ifndef CULVERT_TEST_MQ_RELAY_H
#define CULVERT_TEST_MQ_RELAY_H

#include "mq_server.h"

void mq_relay_start(struct mq_stream *s,
                    uint16_t port);      /* to a port of 127.0.0.1, whatever the client asked for */
void mq_relay_turn(struct mq_stream *s); /* the stream has news */
void mq_relay_end(struct mq_stream *s);  /* none is fine */

#endif
