/* masque_lab.h - the MASQUE server in one loop with its client, TLS and HTTP/2 between them, and real sockets behind it. */
#ifndef CULVERT_TEST_MASQUE_LAB_H
#define CULVERT_TEST_MASQUE_LAB_H

#include "culvert/serve.h"
#include "h2_rig.h"
#include "serve/ledger.h"
#include "tls_pair.h"

struct masque_lab {
    struct h2_rig h2; /* its client's side only */
    struct masque *masque;
    struct serve_ledger *ledger;
    struct echo_proxy *echo;
    struct tls_settings *server_tls;
    struct tls_worker *worker;
    struct tls_context *context;
    struct tls *tls;
    struct loop_io io;
    int fd;
    bool open;
};

int masque_lab_setup(void **state); /* a client with its TLS, and no server yet */
int masque_lab_teardown(void **state);
/* Pings on; 127.0.0.0/8, 192.0.2.0/28 and 2001:db8::/64 may be reached. Without tls, which the lab adds. */
struct masque_options masque_lab_options(void);
struct tls_settings *masque_lab_settings(void); /* a server's; the caller's reference */
void masque_lab_serve(struct masque_lab *lab,
                      const struct masque_options *opt); /* its exit: 198.51.100.1, 2001:db8:f::1 */
void masque_lab_connect(struct masque_lab *lab);         /* until the settings of HTTP/2 are here */
void masque_lab_leave(struct masque_lab *lab);           /* the client closes */
void masque_lab_start(struct masque_lab *lab);           /* serve and connect, with those options */
struct stream_side *masque_lab_ask(struct masque_lab *lab, const char *host, uint16_t port); /* answered */

#endif
