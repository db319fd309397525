/* names.h - how programs of the host find name servers, and what a private namespace is given instead.
 * Knows     resolv.conf(5) and nsswitch.conf(5) as text. Pure, but for names_find_server(), which reads files. */
#ifndef CULVERT_APP_NAMES_H
#define CULVERT_APP_NAMES_H

#include "culvert/base.h"

enum { NAMES_FILE_MAX = 8192 }; /* of a file that we write; what does not fit is left out, whole lines only */

/** names_find_server() - the host's first name server that is not on loopback
 * @paths: resolv.conf first, then what stands behind a stub on loopback (systemd-resolved); ends with NULL
 * A resolv.conf that we wrote ourselves (one exec inside another) names the server behind it, and that one is taken.
 * Return: 0; -ENOENT: there is none. */
int names_find_server(const char *const paths[], struct ip_port *out);
extern const char *const names_host_paths[];

/** names_resolv_conf() - a resolv.conf that names @servers, with search list and options of the host's
 * @host: text of the host's resolv.conf, or ""
 * @behind: where questions end up; kept in a comment for a gateway inside this one */
void names_resolv_conf(const struct ip_addr servers[2], const struct ip_port *behind, const char *host,
                       char out[NAMES_FILE_MAX]);
/** names_nsswitch() - the host's nsswitch.conf, but host names come from files and DNS only (faults.md Q7)
 * "resolve", "mdns" and the like would ask daemons of the host, past the TUN. */
void names_nsswitch(const char *host, char out[NAMES_FILE_MAX]);

/** names_read_file() - up to @cap - 1 bytes of a small text file; a file that cannot be read is "" */
void names_read_file(const char *path, char *out, size_t cap);

#endif
