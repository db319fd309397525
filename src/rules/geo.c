/* geo.c - GEOIP and IP-ASN: which country and which network an address belongs to, by libmaxminddb.
 *
 * The file stays on disk and is mapped; a look-up walks its tree and allocates nothing. Three shapes of records are in use for
 * countries: MaxMind's map (country.iso_code), a bare text, and a list of texts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rules_impl.h"

#ifdef WITH_GEOIP

#include <maxminddb.h>

struct rule_geo {
    atomic_uint refs;
    enum rule_geo_kind kind;
    MMDB_s db;
};

int geo_supported(struct err *err)
{
    (void)err;
    return 0;
}

/* Does the database say of itself what it is to be used for? */
static bool is_of_kind(const MMDB_s *db, enum rule_geo_kind kind)
{
    const char *type = db->metadata.database_type;
    bool asn = type != NULL && (strcasestr(type, "ASN") != NULL || strcasestr(type, "ISP") != NULL);

    return asn == (kind == RULE_GEO_ASN);
}

static int cannot_open(const char *path, int code, struct err *err)
{
    int e = errno != 0 && (code == MMDB_FILE_OPEN_ERROR || code == MMDB_IO_ERROR) ? errno : EINVAL;

    if (e == ENOENT)
        return err_set(err, -ENOENT,
                       "there is no file %.120s; download a database in MaxMind's format (.mmdb), and name "
                       "it here",
                       path);
    if (e != EINVAL)
        return err_set(err, -e, "%.120s cannot be read: %s", path, strerror(e));
    return err_set(err, -EINVAL, "%.120s is no database in MaxMind's format: %s", path, MMDB_strerror(code));
}

int rule_geo_open(const char *path, enum rule_geo_kind kind, struct rule_geo **out, struct err *err)
{
    struct rule_geo *g = calloc(1, sizeof(*g));
    int code;

    if (g == NULL)
        return -ENOMEM;
    atomic_init(&g->refs, 1);
    g->kind = kind;
    errno = 0;
    code = MMDB_open(path, MMDB_MODE_MMAP, &g->db);
    if (code != MMDB_SUCCESS) {
        free(g);
        return code == MMDB_OUT_OF_MEMORY_ERROR ? -ENOMEM : cannot_open(path, code, err);
    }
    if (!is_of_kind(&g->db, kind)) {
        err_set(err, -EINVAL, "%.120s is a database of another kind: %.40s", path,
                g->db.metadata.database_type != NULL ? g->db.metadata.database_type : "unnamed");
        rule_geo_unref(g);
        return -EINVAL;
    }
    *out = g;
    return 0;
}

void rule_geo_unref(struct rule_geo *g)
{
    if (g == NULL || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1)
        return;
    MMDB_close(&g->db);
    free(g);
}

static bool lookup(const struct rule_geo *g, const struct ip_addr *addr, MMDB_entry_s *out)
{
    struct ip_port at = { *addr, 0 };
    struct sockaddr_storage sa;
    MMDB_lookup_result_s found;
    int code = MMDB_SUCCESS;

    ip_to_sockaddr(&at, &sa);
    if (g->db.metadata.ip_version == 4 && sa.ss_family == AF_INET6)
        return false;
    found = MMDB_lookup_sockaddr(&g->db, (struct sockaddr *)&sa, &code);
    *out = found.entry;
    return code == MMDB_SUCCESS && found.found_entry;
}

/* Not MMDB_get_value(), which allocates a list of its arguments. */
static bool get(MMDB_entry_s *e, const char *const *path, MMDB_entry_data_s *out)
{
    return MMDB_aget_value(e, out, path) == MMDB_SUCCESS && out->has_data;
}

static bool value_is(const MMDB_entry_data_s *v, const char *code, size_t len)
{
    return v->type == MMDB_DATA_TYPE_UTF8_STRING && v->data_size == len &&
           strncasecmp(v->utf8_string, code, len) == 0;
}

bool geo_has_country(const struct rule_geo *g, const struct ip_addr *addr, const char *code, size_t len)
{
    static const char *const paths[][3] = { { "country", "iso_code", NULL },
                                            { "registered_country", "iso_code", NULL } };
    static const char *const whole[] = { NULL };
    MMDB_entry_data_s v;
    MMDB_entry_s e;

    if (!lookup(g, addr, &e))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        if (get(&e, paths[i], &v))
            return value_is(&v, code, len);
    if (!get(&e, whole, &v))
        return false;
    if (v.type != MMDB_DATA_TYPE_ARRAY)
        return value_is(&v, code, len);
    for (uint32_t i = 0, n = v.data_size; i < n && i < 64; i++) {
        char index[12];
        const char *const path[] = { index, NULL };

        snprintf(index, sizeof(index), "%u", i);
        if (get(&e, path, &v) && value_is(&v, code, len))
            return true;
    }
    return false;
}

size_t geo_bytes(const struct rule_geo *g)
{
    return (size_t)g->db.file_size;
}

bool geo_asn(const struct rule_geo *g, const struct ip_addr *addr, uint32_t *out)
{
    static const char *const path[] = { "autonomous_system_number", NULL };
    MMDB_entry_data_s v;
    MMDB_entry_s e;

    if (!lookup(g, addr, &e) || !get(&e, path, &v))
        return false;
    if (v.type == MMDB_DATA_TYPE_UINT32)
        *out = v.uint32;
    else if (v.type == MMDB_DATA_TYPE_UINT16)
        *out = v.uint16;
    else
        return false;
    return true;
}

#else

struct rule_geo {
    atomic_uint refs;
};

int geo_supported(struct err *err)
{
    return err_set(err, -ENOTSUP,
                   "GEOIP and IP-ASN are not supported by this program: it was built without libmaxminddb "
                   "(WITH_GEOIP=OFF); use RULE-SET with a list of ranges");
}

int rule_geo_open(const char *path, enum rule_geo_kind kind, struct rule_geo **out, struct err *err)
{
    (void)path;
    (void)kind;
    (void)out;
    return geo_supported(err);
}

void rule_geo_unref(struct rule_geo *g)
{
    (void)g; /* there is none */
}

bool geo_has_country(const struct rule_geo *g, const struct ip_addr *addr, const char *code, size_t len)
{
    (void)g;
    (void)addr;
    (void)code;
    (void)len;
    return false;
}

size_t geo_bytes(const struct rule_geo *g)
{
    (void)g;
    return 0;
}

bool geo_asn(const struct rule_geo *g, const struct ip_addr *addr, uint32_t *out)
{
    (void)g;
    (void)addr;
    (void)out;
    return false;
}

#endif

struct rule_geo *rule_geo_ref(struct rule_geo *g)
{
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}
