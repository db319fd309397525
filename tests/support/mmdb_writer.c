/* mmdb_writer.c - see mmdb_writer.h. A tree of 24-bit records over 128-bit addresses (IPv4 lies at ::/96), then the data, then the
 * metadata. */
#include "mmdb_writer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NODES_MAX 4096
#define DATA_MAX  4096
#define EMPTY     0xffffffffu
#define LEAF      0x80000000u /* with the offset in the data */

struct writer {
    uint32_t node[NODES_MAX][2];
    uint32_t nodes;
    uint8_t data[DATA_MAX];
    struct buf out;
};

static uint32_t node_new(struct writer *w)
{
    w->node[w->nodes][0] = w->node[w->nodes][1] = EMPTY;
    return w->nodes++;
}

static void put_text(struct buf *b, const char *text)
{
    buf_u8(b, (uint8_t)(2 << 5 | strlen(text))); /* type 2: UTF-8, shorter than 29 */
    buf_put(b, text, strlen(text));
}

static void put_map(struct buf *b, uint8_t pairs)
{
    buf_u8(b, (uint8_t)(7 << 5 | pairs));
}

static void put_u32(struct buf *b, uint32_t v)
{
    buf_u8(b, 6 << 5 | 4);
    buf_u32(b, v);
}

static void put_u16(struct buf *b, uint16_t v)
{
    buf_u8(b, 5 << 5 | 2);
    buf_u16(b, v);
}

static void put_record(struct buf *b, const struct mmdb_row *row)
{
    put_map(b, 1);
    if (row->country != NULL) {
        put_text(b, "country");
        put_map(b, 1);
        put_text(b, "iso_code");
        put_text(b, row->country);
    } else {
        put_text(b, "autonomous_system_number");
        put_u32(b, row->asn);
    }
}

/* IPv4 stands at ::a.b.c.d in these files, not at ::ffff:a.b.c.d. */
static void insert(struct writer *w, const struct mmdb_row *row)
{
    struct ip_prefix p;
    uint32_t at = 0;

    ip_prefix_parse(row->prefix, &p);
    if (ip_is4(&p.addr))
        memset(p.addr.b + 10, 0, 2);
    for (unsigned i = 0; i < p.len; i++) {
        unsigned bit = p.addr.b[i / 8] >> (7 - i % 8) & 1;

        if (i + 1 == p.len)
            w->node[at][bit] = LEAF | (uint32_t)w->out.len;
        else if (w->node[at][bit] == EMPTY) {
            uint32_t fresh = node_new(w);

            w->node[at][bit] = fresh;
            at = fresh;
        } else
            at = w->node[at][bit];
    }
    put_record(&w->out, row);
}

static void put_24(FILE *f, uint32_t v)
{
    fputc((int)(v >> 16 & 255), f);
    fputc((int)(v >> 8 & 255), f);
    fputc((int)(v & 255), f);
}

static void put_tree(const struct writer *w, FILE *f)
{
    for (uint32_t i = 0; i < w->nodes; i++)
        for (int bit = 0; bit < 2; bit++) {
            uint32_t v = w->node[i][bit];

            put_24(f, v == EMPTY ? w->nodes : v & LEAF ? w->nodes + 16 + (v & ~LEAF) : v);
        }
}

static void put_metadata(const struct writer *w, const char *type, FILE *f)
{
    static const char mark[] = "\xab\xcd\xefMaxMind.com";
    uint8_t bytes[256];
    struct buf b;

    buf_init(&b, bytes, sizeof(bytes));
    put_map(&b, 9);
    put_text(&b, "node_count");
    put_u32(&b, w->nodes);
    put_text(&b, "record_size");
    put_u16(&b, 24);
    put_text(&b, "ip_version");
    put_u16(&b, 6);
    put_text(&b, "database_type");
    put_text(&b, type);
    put_text(&b, "binary_format_major_version");
    put_u16(&b, 2);
    put_text(&b, "binary_format_minor_version");
    put_u16(&b, 0);
    put_text(&b, "languages");
    buf_u8(&b, 0); /* an extended type: 7 + 4 is an array, of none */
    buf_u8(&b, 4);
    put_text(&b, "description");
    put_map(&b, 0);
    put_text(&b, "build_epoch");
    buf_u8(&b, 4); /* 7 + 2 is a 64-bit number, of 4 bytes */
    buf_u8(&b, 2);
    buf_u32(&b, 1);
    fwrite(mark, 1, sizeof(mark) - 1, f);
    fwrite(bytes, 1, b.len, f);
}

int mmdb_write(const char *path, const char *type, const struct mmdb_row *rows, size_t n)
{
    static const uint8_t between[16];
    struct writer w = { .nodes = 0 };
    FILE *f = fopen(path, "w");

    if (f == NULL)
        return -errno;
    buf_init(&w.out, w.data, sizeof(w.data));
    node_new(&w);
    for (size_t i = 0; i < n; i++)
        insert(&w, &rows[i]);
    put_tree(&w, f);
    fwrite(between, 1, sizeof(between), f);
    fwrite(w.data, 1, w.out.len, f);
    put_metadata(&w, type, f);
    return fclose(f) == 0 ? 0 : -errno;
}
