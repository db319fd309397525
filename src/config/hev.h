/* hev.h - what a file of hev-socks5-tunnel says; for hev.c and schema_hev.c only. */
#ifndef CULVERT_CONFIG_HEV_H
#define CULVERT_CONFIG_HEV_H

#include "config_impl.h"

struct cfg_hev { /* NULL: not in the file */
    const struct cfg_node *name, *ipv4, *ipv6;
    uint32_t mtu;
    bool multi_queue;
    int ping;
    const struct cfg_node *server, *udp_address, *username, *password, *mark;
    uint32_t port;
    int udp;
    bool pipeline, fast_open;
    const struct cfg_node *dns_address, *dns_network, *dns_netmask;
    uint32_t dns_port, dns_names;
    uint32_t connect_ms, both_ms, tcp_ms, udp_ms, sessions; /* 0: not in the file */
    const struct cfg_node *log_file;
    int log_level;
};

extern const struct cfg_type cfg_hev_address, cfg_secret_node, cfg_null_node; /* hev.c */
extern const struct cfg_section cfg_hev_tunnel, cfg_hev_socks5, cfg_hev_mapdns,
    cfg_hev_misc; /* schema_hev.c */

#endif
