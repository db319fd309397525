/* serve_lab.h - our SOCKS5 server, and our client of it, in one loop over loopback. */
#ifndef CULVERT_TEST_SERVE_LAB_H
#define CULVERT_TEST_SERVE_LAB_H

#include "culvert/serve.h"
#include "up_rig.h"

struct serve_lab {
    struct up_rig rig;
    struct serve *serve;
    struct upstream *up; /* through it, without a login */
};

int serve_lab_setup(void **state); /* no server yet */
int serve_lab_teardown(void **state);
struct serve_options serve_lab_options(const char *listen); /* an address, and a port that is free */
void serve_lab_open(struct serve_lab *lab, const struct serve_options *opt);
void serve_lab_close(struct serve_lab *lab); /* the server and @up: another may be opened */

/* A client by hand, on 127.0.0.1, that has sent @data. Return: its descriptor, to be closed */
int serve_lab_client(const struct serve_lab *lab, const void *data, size_t len);
/* What the server says until it ends the connection, or until @want bytes have come. Return: their number, or -errno */
ssize_t serve_lab_read(struct serve_lab *lab, int fd, void *out, size_t want);

#endif
