/* without_masque.c - in place of the MASQUE server in a build without HTTP/2 (WITH_MASQUE=OFF): it cannot be opened, and says why. */
#include <errno.h>

#include "culvert/serve.h"

int masque_open(const struct masque_options *opt, struct up_env *env, struct masque **out, struct err *err)
{
    (void)opt;
    (void)env;
    (void)out;
    return err_set(err, -ENOTSUP, "serve.masque: not built in; configure the build with -DWITH_MASQUE=ON");
}

uint16_t masque_port(const struct masque *m)
{
    (void)m;
    return 0;
}

int masque_set_tls(struct masque *m, struct tls_settings *tls)
{
    (void)m;
    (void)tls;
    return -ENOTSUP;
}

void masque_attach_echo(struct masque *m, struct echo_proxy *echo, const struct ip_addr *exit4,
                        const struct ip_addr *exit6)
{
    (void)m;
    (void)echo;
    (void)exit4;
    (void)exit6;
}

void masque_on_echo_answer(void *masque, uint64_t responder, const struct echo_proxy_answer *a)
{
    (void)masque;
    (void)responder;
    (void)a;
}

void masque_close(struct masque *m)
{
    (void)m;
}

const struct masque_counters *masque_counters(const struct masque *m)
{
    static const struct masque_counters nothing;

    (void)m;
    return &nothing;
}
