/* tls_pair.h - a client and a server of TLS in one process, joined by two pipes in memory that a test can cut, clog and bend. */
#ifndef CULVERT_TEST_TLS_PAIR_H
#define CULVERT_TEST_TLS_PAIR_H

#include "culvert/tls.h"
#include "pki.h"

struct mem_pipe {
    uint8_t *data;
    size_t len, off;
    size_t room;         /* bytes that may wait in it; 0: any number */
    size_t piece;        /* at most so many bytes a read; 0: all */
    unsigned puts, gets; /* calls */
    bool ended, reset;
};
ssize_t mem_pipe_put(struct mem_pipe *p, const void *data, size_t len);
ssize_t mem_pipe_get(struct mem_pipe *p, void *to, size_t len);

struct tls_side {
    struct tls *tls;
    struct mem_pipe *in, *out;
    unsigned woken;
    enum tls_step step; /* of the last tls_handshake() */
};

struct tls_pair {
    struct tls_side client, server;
    struct mem_pipe up, down;
};

struct tls_lab { /* both ends' settings at work */
    struct tls_worker *worker, *server_worker;
    struct tls_context *client, *server;
};

/* Asserts that it works. @client: ca is filled in when it is NULL. */
void tls_lab_init(struct tls_lab *lab, struct tls_options *client, const char *name,
                  const struct pki_id *server, bool server_resume);
void tls_lab_fini(struct tls_lab *lab);

void tls_pair_open(struct tls_lab *lab, struct tls_pair *p);
void tls_pair_free(struct tls_pair *p);
/* Both handshakes until neither goes on; every call is a turn of its own. Return: whether both are open */
bool tls_pair_handshake(struct tls_pair *p);
struct tls_ca *tls_test_ca(const struct pki_id *id);

#endif
