/* tls.c - `proxies[].tls`: files and texts become the settings of src/tls, with each mistake at its own key (faults.md L16). */
#include "config_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PEM_FILE_MAX ((size_t)4 << 20) /* a system's whole store has a quarter of it */
#define NAME_MAX_    255

/* ---- files ----------------------------------------------------------------------------------------------------------- */

static const char *read_pem_file(struct cfg_read *r, const struct cfg_node *v, const char *path, bool secret)
{
    char quoted[CFG_QUOTED_MAX];
    const char *kept = NULL;
    unsigned mode;
    struct err err;
    char *text;
    size_t len;
    int e = cfg_read_named(r, path, PEM_FILE_MAX, &text, &len, &mode, &err);

    if (e == -ENOMEM) {
        r->no_memory = true;
        return NULL;
    }
    if (e != 0) {
        cfg_error(r, v, "the file %s %s", cfg_quote(path, quoted), err.text);
        return NULL;
    }
    if (secret && (mode & S_IROTH))
        cfg_warning(
            r, v,
            "the file %s holds a private key and every user of the machine can read it; chmod o-r would help",
            cfg_quote(path, quoted));
    if (memchr(text, '\0', len) != NULL)
        cfg_error(r, v, "the file %s is no PEM text: it holds a NUL byte", cfg_quote(path, quoted));
    else
        kept = cfg_keep_text(r, text, len);
    explicit_bzero(text, len);
    free(text);
    return kept;
}

/* The text itself, or a path that is relative to the configuration's folder. */
static const char *pem_of(struct cfg_read *r, const struct cfg_node *v, bool secret)
{
    size_t folder = v->text[0] == '/' ? 0 : strlen(r->folder);
    char *path;

    if (strstr(v->text, "-----BEGIN") != NULL) {
        if (secret && r->secret_inside == NULL)
            r->secret_inside = v;
        return cfg_keep_text(r, v->text, v->count);
    }
    path = cfg_scratch(r, folder + v->count + 1);
    if (path == NULL)
        return NULL;
    memcpy(path, r->folder, folder);
    memcpy(path + folder, v->text, v->count);
    return read_pem_file(r, v, path, secret);
}

static struct cfg_tls *tls_at(const struct cfg_key *k, void *to)
{
    return (struct cfg_tls *)(void *)((char *)to + k->offset);
}

static void say_wrong(struct cfg_read *r, const struct cfg_node *v, int e, const struct err *err)
{
    if (e == -ENOMEM)
        r->no_memory = true;
    else
        cfg_error(r, v, "%s", err->text);
}

static void read_ca(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    const char *pem = pem_of(r, v, false);
    struct cfg_tls *t = tls_at(k, to);
    struct err err;
    int e;

    if (pem == NULL)
        return;
    e = tls_ca_parse(pem, strlen(pem), &t->options.ca, &err);
    if (e != 0)
        say_wrong(r, v, e, &err);
    else
        cfg_hold_ca(r, t->options.ca);
}

static void read_certificate(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    const char *pem = pem_of(r, v, false);
    struct cfg_tls *t = tls_at(k, to);
    struct err err;
    int e = pem != NULL ? tls_check_certificate(pem, &err) : 0;

    if (e != 0)
        say_wrong(r, v, e, &err);
    else
        t->options.certificate = pem;
    t->certificate_at = v;
}

static void read_key(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    const char *pem = v->kind == CFG_SCALAR ? pem_of(r, v, true) : cfg_read_secret(r, v, 65536);
    struct cfg_tls *t = tls_at(k, to);
    struct err err;
    int e = pem != NULL ? tls_check_key(pem, &err) : 0;

    if (e != 0)
        say_wrong(r, v, e, &err);
    else
        t->options.private_key = pem;
    t->key_at = v;
}

/* ---- words --------------------------------------------------------------------------------------------------------------- */

static void read_sni(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    char quoted[CFG_QUOTED_MAX], name[256];
    struct cfg_tls *t = tls_at(k, to);
    struct ip_addr addr;

    if (ip_parse(v->text, &addr) == 0)
        t->sni = cfg_keep_text(r, v->text, v->count);
    else if (host_name_normalise(v->text, v->count, name) == 0)
        t->sni = cfg_keep_text(r, name, strlen(name));
    else
        cfg_error(r, v, "%s is no host name; a name such as proxy.example.net would work",
                  cfg_quote(v->text, quoted));
    t->used = v;
}

static void read_alpn(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_tls *t = tls_at(k, to);

    t->used = v;
    if (v->count == 0 || v->count > NAME_MAX_)
        cfg_error(r, v, "has %u bytes; 1 to %d would work", (unsigned)v->count, NAME_MAX_);
    else if (t->options.alpns == TLS_ALPN_MAX)
        cfg_error(r, v, "more than %d protocols", TLS_ALPN_MAX);
    else
        t->alpn[t->options.alpns++] = cfg_keep_text(r, v->text, v->count);
}

static void read_pin(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_tls *t = tls_at(k, to);
    char quoted[CFG_QUOTED_MAX];

    if (t->options.pin_count == CFG_PINS_MAX)
        cfg_error(r, v, "more than %d hashes", CFG_PINS_MAX);
    else if (tls_parse_pin(v->text, t->pins[t->options.pin_count]) != 0)
        cfg_error(r, v, "%s is no SHA-256 in base64 (44 characters with a final =)",
                  cfg_quote(v->text, quoted));
    else
        t->options.pin_count++;
}

static void read_skip(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_tls *t = tls_at(k, to);

    if (strcmp(v->text, "true") == 0) {
        t->options.skip_verify = true;
        cfg_warning(r, v,
                    "whoever answers at this server's address is trusted; ca or pin-sha256 would be safe");
    } else if (strcmp(v->text, "false") != 0) {
        cfg_error(r, v, "is neither true nor false; write one of these");
    }
    t->used = v;
}

/* `tls: true`, or a map of what is special about it. */
static void read_tls(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_proxy *p = to;

    if (v->kind == CFG_MAP) {
        p->options.secure = true;
        cfg_read_section(r, k->section, v, to);
    } else if (strcmp(v->text, "true") == 0) {
        p->options.secure = true;
    } else if (strcmp(v->text, "false") != 0) {
        cfg_error(r, v, "is neither true nor false nor a map; one of these would work");
    }
}

const struct cfg_type cfg_tls = { .name = "`true`, `false`, map",
                                  .expects = "true, false or a map such as {ca: FILE}",
                                  .kind = CFG_MAP,
                                  .mixed = true,
                                  .read = read_tls };
const struct cfg_type cfg_tls_ca = {
    .name = "path, PEM", .expects = "a file or PEM text", .kind = CFG_SCALAR, .read = read_ca
};
const struct cfg_type cfg_tls_certificate = {
    .name = "path, PEM", .expects = "a file or PEM text", .kind = CFG_SCALAR, .read = read_certificate
};
const struct cfg_type cfg_tls_key = { .name = "path, secret",
                                      .expects =
                                          "a file, PEM text, {file: PATH}, {env: NAME} or {credential: NAME}",
                                      .kind = CFG_SCALAR,
                                      .mixed = true,
                                      .read = read_key };
const struct cfg_type cfg_tls_sni = {
    .name = "text", .expects = "a host name", .kind = CFG_SCALAR, .read = read_sni
};
const struct cfg_type cfg_tls_alpn = { .name = "list of text",
                                       .expects = "a protocol such as http/1.1",
                                       .kind = CFG_SCALAR,
                                       .list = true,
                                       .read = read_alpn };
const struct cfg_type cfg_tls_pin = {
    .name = "list of text", .expects = "SHA-256 in base64", .kind = CFG_SCALAR, .list = true, .read = read_pin
};
const struct cfg_type cfg_tls_skip = {
    .name = "`true`, `false`", .expects = "true or false", .kind = CFG_SCALAR, .read = read_skip
};

/* ---- settings -------------------------------------------------------------------------------------------------------------- */

/* The system's authorities, read once a load. */
static struct tls_ca *system_ca(struct cfg_read *r, const struct cfg_node *at)
{
    struct err err;
    unsigned mode;
    char *text;
    size_t len;
    int e;

    if (r->system_ca != NULL)
        return r->system_ca;
    e = cfg_read_named(r, TLS_SYSTEM_CA_FILE, PEM_FILE_MAX, &text, &len, &mode, &err);
    if (e == 0) {
        e = tls_ca_parse(text, len, &r->system_ca, &err);
        free(text);
    }
    if (e == -ENOMEM)
        r->no_memory = true;
    else if (e != 0)
        cfg_error(r, at,
                  "the system's authorities (" TLS_SYSTEM_CA_FILE
                  ") cannot be used: %s; install ca-certificates, "
                  "or set tls.ca",
                  err.text);
    else
        cfg_hold_ca(r, r->system_ca);
    return e == 0 ? r->system_ca : NULL;
}

struct tls_settings *cfg_tls_client(struct cfg_read *r, struct tls_options *opt, const struct cfg_node *at)
{
    struct tls_settings *made = NULL;
    struct err err;
    int e;

    if (opt->ca == NULL)
        opt->ca = system_ca(r, at);
    if (opt->ca == NULL)
        return NULL;
    e = tls_settings_new(opt, &made, &err);
    if (e != 0) {
        say_wrong(r, at, e, &err);
        return NULL;
    }
    cfg_hold_tls(r, made);
    return made;
}

static void check_udp(struct cfg_read *r, const struct cfg_proxy *p, const struct cfg_node *at)
{
    if (p->options.udp == UPSTREAM_UDP_OVER_TCP && p->options.kind != UPSTREAM_SOCKS5)
        cfg_error(r, at,
                  "udp: over-tcp is a command of SOCKS5; type: socks5, or udp: false or auto would work");
    if (p->options.udp != UPSTREAM_UDP_ON || p->options.kind == UPSTREAM_MASQUE)
        return;
    if (p->options.kind != UPSTREAM_SOCKS5)
        cfg_error(r, at, "udp: true, but this type carries no UDP; false or auto would work");
    else if (p->options.secure)
        cfg_error(r, at,
                  "udp: true with tls would send datagrams in the clear; over-tcp, false or auto would work");
}

void cfg_tls_finish(struct cfg_read *r, struct cfg_proxy *p, const struct cfg_node *at)
{
    struct cfg_tls *t = &p->tls;
    struct err err;
    int e;

    check_udp(r, p, at);
    if (p->options.kind == UPSTREAM_MASQUE) {
        p->options.secure = true;
        if (t->options.alpns == 0) {
            t->alpn[0] = "h2";
            t->options.alpns = 1;
        }
    }
    if (!p->options.secure) {
        if (t->used != NULL)
            cfg_error(r, t->used, "a key of TLS at a proxy without TLS; tls: true beside it would work");
        return;
    }
    if ((t->certificate_at != NULL) != (t->key_at != NULL)) {
        cfg_error(r, t->certificate_at != NULL ? t->certificate_at : t->key_at,
                  "a certificate and its private key belong together; set both certificate and private-key");
        return;
    }
    if (r->messages->errors > 0) /* what is missing was said; a parsed half would only add to it */
        return;
    if (t->options.ca == NULL)
        t->options.ca = system_ca(r, at);
    if (t->options.ca == NULL)
        return;
    t->options.alpn = t->alpn;
    t->options.pins = (const uint8_t(*)[TLS_PIN_BYTES])t->pins;
    t->options.resume = t->no_resume_choice == 0;
    e = tls_settings_new(&t->options, &p->options.tls, &err);
    if (e != 0)
        say_wrong(r, t->key_at != NULL ? t->key_at : at, e, &err);
    else
        cfg_hold_tls(r, p->options.tls);
    p->options.tls_name = t->sni;
    p->options.half_close_delay_ms = t->half_close_delay_ms;
}

struct tls_settings *cfg_tls_usual(struct cfg_read *r, const struct cfg_node *at)
{
    struct tls_options o = { .ca = system_ca(r, at), .min_version = TLS_1_2, .resume = true };
    struct tls_settings *tls = NULL;
    struct err err;
    int e;

    if (o.ca == NULL)
        return NULL;
    e = tls_settings_new(&o, &tls, &err);
    if (e != 0)
        say_wrong(r, at, e, &err);
    else
        cfg_hold_tls(r, tls);
    return tls;
}

/* ---- counted things that a configuration holds ------------------------------------------------------------------------------ */

struct config_held {
    struct config_held *next;
    struct tls_ca *ca;
    struct tls_settings *tls;
};

static void hold(struct cfg_read *r, struct tls_ca *ca, struct tls_settings *tls)
{
    struct config_held *h = cfg_keep(r, sizeof(*h));

    if (h == NULL) {
        tls_ca_unref(ca);
        tls_settings_unref(tls);
        return;
    }
    *h = (struct config_held){ r->config->held, ca, tls };
    r->config->held = h;
}

void cfg_hold_ca(struct cfg_read *r, struct tls_ca *ca)
{
    hold(r, ca, NULL);
}

void cfg_hold_tls(struct cfg_read *r, struct tls_settings *tls)
{
    hold(r, NULL, tls);
}

void cfg_release(struct config *c)
{
    for (struct config_held *h = c->held; h != NULL; h = h->next) {
        tls_ca_unref(h->ca);
        tls_settings_unref(h->tls);
    }
    c->held = NULL;
}
