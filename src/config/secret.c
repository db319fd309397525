/* secret.c - passwords: in the file, in a file of their own, in the environment, or handed over by systemd.
 *
 * What always holds: a secret's bytes are in the stores, which are wiped, and in no message. A secret that others on the
 * machine can read is used all the same, with a warning (config.md section 1, point 4). */
#include "config_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SECRET_FILE_MAX 65536
#define LOGIN_MAX       255 /* RFC 1929 section 2: one byte holds the length */
#define TOKEN_MAX       4096
#define SECRET_FORMS    "text, {file: PATH}, {env: NAME} or {credential: NAME}"

/* One final line end is an editor's, not the password's. */
static size_t without_line_end(const char *text, size_t len)
{
    if (len > 0 && text[len - 1] == '\n')
        len--;
    if (len > 0 && text[len - 1] == '\r')
        len--;
    return len;
}

static const char *take(struct cfg_read *r, const struct cfg_node *v, const char *text, size_t len,
                        size_t max)
{
    if (len == 0 || len > max)
        cfg_error(r, v, "the secret has %zu bytes; 1 to %zu would work", len, max);
    else if (memchr(text, '\0', len) != NULL)
        cfg_error(r, v, "the secret holds a NUL byte; remove it");
    else
        return cfg_keep_text(r, text, len);
    return NULL;
}

static const char *from_file(struct cfg_read *r, const struct cfg_node *v, const char *path, size_t max)
{
    char quoted[CFG_QUOTED_MAX];
    const char *secret;
    unsigned mode;
    struct err err;
    char *text;
    size_t len;
    int e = cfg_read_named(r, path, SECRET_FILE_MAX, &text, &len, &mode, &err);

    if (e == -ENOMEM) {
        r->no_memory = true;
        return NULL;
    }
    if (e != 0) {
        cfg_error(r, v, "the secret's file %s %s", cfg_quote(path, quoted), err.text);
        return NULL;
    }
    if (mode & S_IROTH)
        cfg_warning(
            r, v,
            "the file %s holds a secret and every user of the machine can read it; chmod o-r would help",
            cfg_quote(path, quoted));
    secret = take(r, v, text, without_line_end(text, len), max);
    explicit_bzero(text, len);
    free(text);
    return secret;
}

static const char *from_named_file(struct cfg_read *r, const struct cfg_node *v, size_t max)
{
    size_t folder = v->text[0] == '/' ? 0 : strlen(r->folder);
    char *path = cfg_scratch(r, folder + v->count + 1);

    if (path == NULL)
        return NULL;
    memcpy(path, r->folder, folder);
    memcpy(path + folder, v->text, v->count);
    return from_file(r, v, path, max);
}

static const char *from_environment(struct cfg_read *r, const struct cfg_node *v, size_t max)
{
    const char *text = getenv(v->text);
    char quoted[CFG_QUOTED_MAX];

    if (text != NULL)
        return take(r, v, text, strlen(text), max);
    cfg_error(r, v, "the environment has no variable %s; set it, or use {file: PATH}",
              cfg_quote(v->text, quoted));
    return NULL;
}

/* systemd.exec(5), LoadCredential=: a folder of files that only this service can read. */
static const char *from_credential(struct cfg_read *r, const struct cfg_node *v, size_t max)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    char quoted[CFG_QUOTED_MAX];
    char *path;
    size_t size;

    if (v->count == 0 || strchr(v->text, '/') != NULL || v->text[0] == '.') {
        cfg_error(r, v, "%s is no name of a credential", cfg_quote(v->text, quoted));
        return NULL;
    }
    if (folder == NULL) {
        cfg_error(r, v, "systemd handed over no credentials; the unit needs LoadCredential=%.60s:PATH",
                  v->text);
        return NULL;
    }
    size = strlen(folder) + v->count + 2;
    path = cfg_scratch(r, size);
    if (path == NULL)
        return NULL;
    snprintf(path, size, "%s/%s", folder, v->text);
    return from_file(r, v, path, max);
}

static const char *from_map(struct cfg_read *r, const struct cfg_node *v, size_t max)
{
    static const struct {
        const char *key;
        const char *(*read)(struct cfg_read *r, const struct cfg_node *v, size_t max);
    } forms[] = { { "file", from_named_file },
                  { "env", from_environment },
                  { "credential", from_credential } };
    const struct cfg_pair *p = v->count == 1 ? &v->pairs[0] : NULL;

    for (size_t i = 0; p != NULL && i < ARRAY_LEN(forms); i++) {
        if (strcmp(p->key->text, forms[i].key) == 0) {
            size_t before = cfg_enter_key(r, p->key->text);
            const char *secret =
                cfg_need_text(r, p->value, "one word") ? forms[i].read(r, p->value, max) : NULL;

            cfg_leave(r, before);
            return secret;
        }
    }
    cfg_error(r, v, "is not one of the forms of a secret; %s would work", SECRET_FORMS);
    return NULL;
}

const char *cfg_read_secret(struct cfg_read *r, const struct cfg_node *v, size_t max)
{
    if (v->kind == CFG_MAP)
        return from_map(r, v, max);
    if (!cfg_need_text(r, v, SECRET_FORMS))
        return NULL;
    if (r->secret_inside == NULL)
        r->secret_inside = v;
    return take(r, v, v->text, v->count, max);
}

static void read_password(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    const char *secret = cfg_read_secret(r, v, LOGIN_MAX);

    memcpy((char *)to + k->offset, &secret, sizeof(secret));
}

static void read_token(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    const char *secret = cfg_read_secret(r, v, TOKEN_MAX);

    /* It is a header field's value: what ends one would begin another (RFC 6750 section 2.1 allows even less). */
    for (const char *at = secret; at != NULL && *at != '\0'; at++) {
        if (*at <= ' ' || *at > '~') {
            cfg_error(r, v, "holds a byte that no bearer token may have (RFC 6750)");
            secret = NULL;
            break;
        }
    }
    memcpy((char *)to + k->offset, &secret, sizeof(secret));
}

static void read_user(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    const char *name = NULL;

    if (v->count == 0 || v->count > LOGIN_MAX)
        cfg_error(r, v, "has %u bytes; 1 to %d would work", (unsigned)v->count, LOGIN_MAX);
    else
        name = cfg_keep_text(r, v->text, v->count);
    memcpy((char *)to + k->offset, &name, sizeof(name));
}

const struct cfg_type cfg_user = {
    .name = "text", .expects = "a name of 1 to 255 bytes", .kind = CFG_SCALAR, .read = read_user
};
const struct cfg_type cfg_password = {
    .name = "secret", .expects = SECRET_FORMS, .kind = CFG_SCALAR, .mixed = true, .read = read_password
};
const struct cfg_type cfg_token = {
    .name = "secret", .expects = SECRET_FORMS, .kind = CFG_SCALAR, .mixed = true, .read = read_token
};
