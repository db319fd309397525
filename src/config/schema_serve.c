/* schema_serve.c - the schema, the part of the far end. See schema.c. */
#include "schema.h"

#define USER_AT(member)   .offset = (uint32_t)offsetof(struct serve_per_user, member)
#define MASQUE_AT(member) .offset = (uint32_t)offsetof(struct cfg_masque, member)

static const struct cfg_key per_user_keys[] = {
    { .name = "flows",
      .type = &cfg_none_uint,
      USER_AT(flows),
      .fallback = "none",
      .min = 1,
      .max = 1000000,
      .help = "streams and associations at a time, in all threads" },
    { .name = "rate",
      .type = &cfg_rate,
      USER_AT(bytes_per_second),
      .fallback = "none",
      .min = 1000,
      .max = UINT64_C(125000000000),
      .help = "bits a second, each way, of all that a user has open; SOCKS5: its streams" },
    END,
};

static const struct cfg_section per_user = {
    .where = "serve.*.per-user",
    .help = "What one user may take. Without `users` everybody is one user.",
    .keys = per_user_keys,
};

static const struct cfg_key socks5_keys[] = {
    { .name = "listen",
      .type = &cfg_listen,
      AT(serve.listen),
      .fallback = "127.0.0.1:1080",
      .help = "where it listens" },
    { .name = "udp", .type = &cfg_bool, AT(serve.udp), .fallback = "true", .help = "UDP ASSOCIATE" },
    { .name = "users",
      .type = &cfg_users,
      AT(serve),
      .shown = "none: no login",
      .help = "who may use it, and their passwords" },
    { .name = "allow",
      .type = &cfg_allow,
      AT(serve),
      .shown = "all",
      .help = "destinations that it may dial" },
    { .name = "per-user",
      .type = &cfg_per_user,
      AT(serve.per_user),
      .section = &per_user,
      .shown = "no limits",
      .help = "what one user may take" },
    END,
};

static const struct cfg_section socks5 = {
    .where = "serve.socks5",
    .help = "A SOCKS5 server (RFC 1928).",
    .keys = socks5_keys,
};

static const struct cfg_key masque_keys[] = {
    { .name = "listen",
      .type = &cfg_listen,
      MASQUE_AT(options.listen),
      .fallback = "127.0.0.1:443",
      .help = "where it listens" },
    { .name = "certificate",
      .type = &cfg_tls_certificate,
      MASQUE_AT(tls),
      .required = true,
      .help =
          "its certificate, with the chain up to an authority that clients trust; SIGHUP reads it again" },
    { .name = "private-key", .type = &cfg_tls_key, MASQUE_AT(tls), .required = true, .help = "and its key" },
    { .name = "users",
      .type = &cfg_masque_users,
      MASQUE_AT(options.users),
      .shown = "none: on loopback only",
      .help = "who may use it, and their passwords; a password is a bearer token, too" },
    { .name = "echo", .type = &cfg_bool, MASQUE_AT(options.echo), .fallback = "true", .help = "carry pings" },
    { .name = "allow",
      .type = &cfg_masque_allow,
      MASQUE_AT(options.allow),
      .shown = "none",
      .help =
          "private, loopback, link-local and own addresses that it may reach; public ones it may always" },
    { .name = "per-user",
      .type = &cfg_per_user,
      MASQUE_AT(options.per_user),
      .section = &per_user,
      .shown = "no limits",
      .help = "what one user may take" },
    END,
};

static const struct cfg_section masque = {
    .where = "serve.masque",
    .help = "A proxy over TLS (RFC 9298, RFC 9484 for echo); for browsers and curl an HTTPS proxy.",
    .keys = masque_keys,
};

#ifdef WITH_MASQUE
#define MASQUE_STATE CFG_HERE
#else
#define MASQUE_STATE CFG_LEFT_OUT
#endif

static const struct cfg_key serve_keys[] = {
    { .name = "masque",
      .type = &cfg_masque,
      .section = &masque,
      .state = MASQUE_STATE,
      .instead = "this program was built without HTTP/2 (WITH_MASQUE=OFF)" },
    SECTION("socks5", socks5),
    END,
};

const struct cfg_section cfg_serve_section = {
    .where = "serve",
    .help = "The far end, used by `culvert serve` only.",
    .keys = serve_keys,
};
