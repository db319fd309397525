/* mmdb_writer.h - a small database in MaxMind's format 2.0, since none can be downloaded: prefixes with a country or a network. */
#ifndef CULVERT_TEST_MMDB_WRITER_H
#define CULVERT_TEST_MMDB_WRITER_H

#include "culvert/base.h"

struct mmdb_row {
    const char *prefix;  /* "192.0.2.0/24"; no row may lie inside another */
    const char *country; /* "DE"; NULL: a network */
    uint32_t asn;
};

/** mmdb_write() - the file at @path; @type as "Test-Country" or "Test-ASN". Return: 0 or -errno. */
int mmdb_write(const char *path, const char *type, const struct mmdb_row *rows, size_t n);

#endif
