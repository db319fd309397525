/* verify.c - is this the server that was asked for? What mbedTLS does not check, and a sentence when it is not.
 *
 * mbedTLS verifies the chain, its times and key sizes, and a host name. Of it we add: addresses (2.28 matches none, and would
 * send the address as a name), pins, and what the certificate says, for the sentence. */
#include "tls_impl.h"

#include <stdio.h>

#include <mbedtls/oid.h>
#include <mbedtls/sha256.h>

#if MBEDTLS_VERSION_MAJOR >= 3
#define sha256_of(data, len, out) mbedtls_sha256(data, len, out, 0)
#else
#define sha256_of(data, len, out) mbedtls_sha256_ret(data, len, out, 0)
#endif

/* GeneralName's tags (RFC 5280 section 4.2.1.6), context specific. */
enum { SAN_DNS = 2, SAN_ADDRESS = 7 };
#define YEAR_2024_S INT64_C(1704067200) /* no clock of a machine that runs this is right before it */

static int san_kind(const mbedtls_x509_sequence *s)
{
    return s->buf.tag & MBEDTLS_ASN1_TAG_VALUE_MASK;
}

static bool san_address(const mbedtls_x509_sequence *s, struct ip_addr *out)
{
    if (san_kind(s) != SAN_ADDRESS || (s->buf.len != 4 && s->buf.len != 16))
        return false;
    *out = s->buf.len == 4 ? ip_from4(s->buf.p) : ip_from6(s->buf.p);
    return true;
}

bool verify_address(const mbedtls_x509_crt *crt, const struct ip_addr *addr)
{
    struct ip_addr a;

    for (const mbedtls_x509_sequence *s = &crt->subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.p != NULL && san_address(s, &a) && ip_equal(&a, addr))
            return true;
    }
    return false;
}

/* ---- what it says ---------------------------------------------------------------------------------------------- */

/* What others write may hold anything; a sentence shows printable ASCII only. */
static size_t put_text(char *out, size_t at, size_t cap, const uint8_t *text, size_t len)
{
    for (size_t i = 0; i < len && at + 1 < cap; i++)
        out[at++] = text[i] >= 0x20 && text[i] < 0x7f ? (char)text[i] : '?';
    out[at] = '\0';
    return at;
}

static size_t put_name(char *out, size_t at, size_t cap, const uint8_t *text, size_t len)
{
    if (at > 0)
        at = put_text(out, at, cap, (const uint8_t *)", ", 2);
    return put_text(out, at, cap, text, len);
}

static void common_name(const mbedtls_x509_name *name, char *out, size_t cap)
{
    out[0] = '\0';
    for (; name != NULL; name = name->next) {
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &name->oid) == 0)
            put_text(out, 0, cap, name->val.p, name->val.len);
    }
}

static void note_names(struct cert_report *r, const mbedtls_x509_crt *crt)
{
    size_t at = 0;

    for (const mbedtls_x509_sequence *s = &crt->subject_alt_names; s != NULL && s->buf.p != NULL;
         s = s->next) {
        char text[IP_TEXT_MAX];
        struct ip_addr a;

        if (san_kind(s) == SAN_DNS) {
            at = put_name(r->names, at, sizeof(r->names), s->buf.p, s->buf.len);
        } else if (san_address(s, &a)) {
            ip_text(&a, text);
            at = put_name(r->names, at, sizeof(r->names), (const uint8_t *)text, strlen(text));
        }
    }
    if (at == 0)
        common_name(&crt->subject, r->names, sizeof(r->names));
    common_name(&crt->issuer, r->issuer, sizeof(r->issuer));
    /* One of an unknown version is passed on empty, and is never trusted. */
    r->self_signed = crt->subject_raw.len > 0 && crt->subject_raw.len == crt->issuer_raw.len &&
                     memcmp(crt->subject_raw.p, crt->issuer_raw.p, crt->subject_raw.len) == 0;
}

static int64_t seconds_of(const mbedtls_x509_time *t)
{
    struct tm tm = { .tm_year = t->year - 1900,
                     .tm_mon = t->mon - 1,
                     .tm_mday = t->day,
                     .tm_hour = t->hour,
                     .tm_min = t->min,
                     .tm_sec = t->sec };

    return (int64_t)timegm(&tm);
}

static bool is_pinned(const struct tls_settings *s, const mbedtls_x509_crt *crt)
{
    uint8_t hash[TLS_PIN_BYTES];

    if (s->pin_count == 0 || crt->pk_raw.len == 0 || sha256_of(crt->pk_raw.p, crt->pk_raw.len, hash) != 0)
        return false;
    for (size_t i = 0; i < s->pin_count; i++) {
        if (memcmp(s->pins[i], hash, sizeof(hash)) == 0)
            return true;
    }
    return false;
}

/* Called for each certificate of the chain, the leaf last. mbedTLS refuses when any flag is left. */
int verify_callback(void *tls, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
    struct tls *t = tls;
    struct cert_report *r = &t->report;
    const struct tls_context *c = t->context;

    r->seen = true;
    r->pinned = r->pinned || is_pinned(c->settings, crt);
    if (depth == 0 && !ip_is_none(&c->addr) && !verify_address(crt, &c->addr))
        *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    if (c->settings->skip_verify)
        *flags = 0;
    if ((*flags & (MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE)) != 0 || depth == 0) {
        bool bad = (r->flags & (MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE)) != 0;

        if (!bad) {
            r->expired_depth = depth;
            r->from_s = seconds_of(&crt->valid_from);
            r->to_s = seconds_of(&crt->valid_to);
        }
    }
    if (depth == 0) {
        r->leaf_to_s = seconds_of(&crt->valid_to);
        note_names(r, crt);
        if (c->settings->pin_count > 0 && !r->pinned)
            *flags |= MBEDTLS_X509_BADCERT_OTHER;
    }
    r->flags |= *flags;
    return 0;
}

/* ---- the sentence ------------------------------------------------------------------------------------------------------ */

static const char *day_of(int64_t seconds, char out[32])
{
    time_t t = (time_t)seconds;
    struct tm tm;

    if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%d %H:%M UTC", &tm) == 0)
        snprintf(out, 32, "a strange day");
    return out;
}

/* Return: is this machine's clock to blame? */
static bool time_sentence(const struct cert_report *r, int64_t now_s, char *out, size_t cap)
{
    const char *whose = r->expired_depth == 0 ? "a certificate" : "a certificate of an authority";
    bool expired = (r->flags & MBEDTLS_X509_BADCERT_EXPIRED) != 0;
    char day[32];

    if (now_s < YEAR_2024_S)
        snprintf(out, cap, "cannot be verified: this machine's clock says %s; set it", day_of(now_s, day));
    else if (expired)
        snprintf(out, cap, "shows %s that expired on %s", whose, day_of(r->to_s, day));
    else
        snprintf(out, cap, "shows %s that is valid only from %s on", whose, day_of(r->from_s, day));
    return now_s < YEAR_2024_S;
}

bool verify_sentence(const struct cert_report *r, const char *name, int64_t now_s, char *out, size_t cap)
{
    static const struct {
        uint32_t flag;
        const char *text;
    } plain[] = {
        { MBEDTLS_X509_BADCERT_MISSING, "shows no certificate" },
        { MBEDTLS_X509_BADCERT_BAD_KEY,
          "shows a certificate whose key is too weak (RSA below 2048 bits, or an old curve)" },
        { MBEDTLS_X509_BADCERT_BAD_MD,
          "shows a certificate that is signed with a hash that is too weak (MD5 or SHA-1)" },
        { MBEDTLS_X509_BADCERT_BAD_PK, "shows a certificate with a kind of key that is not accepted" },
        { MBEDTLS_X509_BADCERT_EXT_KEY_USAGE, "shows a certificate that is not meant for servers" },
        { MBEDTLS_X509_BADCERT_KEY_USAGE, "shows a certificate whose key is not meant for TLS" },
        { MBEDTLS_X509_BADCERT_NS_CERT_TYPE, "shows a certificate that is not meant for servers" },
        { MBEDTLS_X509_BADCERT_REVOKED, "shows a certificate that was revoked" },
    };

    if ((r->flags & (MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE)) != 0) {
        return time_sentence(r, now_s, out, cap);
    }
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        if ((r->flags & plain[i].flag) != 0) {
            snprintf(out, cap, "%s", plain[i].text);
            return false;
        }
    }
    if ((r->flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) != 0 && r->self_signed)
        snprintf(out, cap, "shows a self-signed certificate (%.50s): name its file as ca", r->names);
    else if ((r->flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) != 0)
        snprintf(out, cap, "shows a certificate by \"%.50s\", which is no trusted authority: set ca",
                 r->issuer);
    else if ((r->flags & MBEDTLS_X509_BADCERT_CN_MISMATCH) != 0)
        snprintf(out, cap, "shows a certificate for %.60s, not for %.50s: set sni",
                 r->names[0] ? r->names : "nobody", name);
    else if ((r->flags & MBEDTLS_X509_BADCERT_OTHER) != 0)
        snprintf(out, cap, "shows a certificate whose key is not among pin-sha256");
    else
        snprintf(out, cap, "shows a certificate that cannot be verified (flags 0x%x)", (unsigned)r->flags);
    return false;
}
