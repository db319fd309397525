/* udp_rig.h - a peer that datagrams are sent to, and an association with what it told; beside up_rig.h. */
#ifndef CULVERT_TEST_UDP_RIG_H
#define CULVERT_TEST_UDP_RIG_H

#include "up_rig.h"

/* ---- a peer ---- */

struct peer {
    struct up_rig *rig;
    struct loop_io io;
    struct ip_port at, last_from;
    bool echo;
    unsigned count;
    size_t bytes;
    int last_ttl;
    struct {
        size_t len;
        uint8_t data[64];
    } got[128]; /* the beginnings of the first ones */
};
void peer_open(struct peer *p, struct up_rig *rig, const char *addr, bool echo);
void peer_send(struct peer *p, const struct ip_port *to, const void *data, size_t len);
void peer_close(struct peer *p);

/* ---- an association ---- */

struct udp_log {
    struct up_udp *u;
    bool opened, closed, close_on_data;
    struct up_failure why;
    unsigned count, errors;
    size_t bytes, last_len;
    uint8_t last[64];
    struct ip_port source, error_target;
    struct ip_addr offender;
    int icmp_type, icmp_code;
    uint32_t mtu;
};
extern const struct up_udp_events udp_log_events;
void udp_start(struct up_rig *rig, struct udp_log *log,
               struct upstream *up); /* returns when it is open or closed */
int udp_rig_send(struct udp_log *log, const struct ip_port *to, const void *data, size_t len, uint16_t gso);
bool udp_is_settled(void *log); /* opened or closed */
bool udp_is_closed(void *log);
bool udp_has_errors(void *log);
void until_count(struct up_rig *rig, const unsigned *count,
                 unsigned n); /* runs until *@count is @n, and asserts no more */

#endif
