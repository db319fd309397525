/* fuzz_resolv_conf.c - the files that the system hands us: resolv.conf and hosts, whatever is in them. */
#include "resolver/resolver_impl.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ip_addr addrs[4];
    struct resolv_conf conf;

    resolv_conf_parse((const char *)data, size, &conf);
    if (conf.n_servers > RESOLVER_SERVERS_MAX || conf.attempts < 1 || conf.attempts > 5 ||
        conf.timeout_ms < 1000)
        abort();
    if (hosts_find((const char *)data, size, "host.example", addrs, ARRAY_LEN(addrs)) > ARRAY_LEN(addrs))
        abort();
    return 0;
}
