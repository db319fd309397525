/* schema_group.c - the schema of `proxy-groups`. See schema.c. */
#include "schema.h"

#define GROUP_AT(member) .offset = (uint32_t)offsetof(struct cfg_group, member)

static const struct cfg_choice types[] = {
    { "select", GROUP_SELECT, CFG_HERE },
    { "url-test", GROUP_URL_TEST, CFG_HERE },
    { "fallback", GROUP_FALLBACK, CFG_HERE },
    { "load-balance", GROUP_LOAD_BALANCE, CFG_HERE },
    { "relay", 0, CFG_FOREIGN },
    { "smart", 0, CFG_FOREIGN },
    { .text = NULL },
};
static const struct cfg_choice strategies[] = {
    { "consistent-hash", GROUP_CONSISTENT_HASH, CFG_HERE },
    { "round-robin", GROUP_ROUND_ROBIN, CFG_HERE },
    { "sticky", GROUP_STICKY, CFG_HERE },
    { "consistent-hashing", GROUP_CONSISTENT_HASH, CFG_ALIAS },
    { "sticky-sessions", GROUP_STICKY, CFG_ALIAS },
    { .text = NULL },
};

static const struct cfg_key keys[] = {
    { .name = "name", .type = &cfg_group_name, .required = true, .help = "what rules call it; no comma" },
    { .name = "type",
      .type = &cfg_choice,
      .instead = "or, for a chain, each proxy but the first with the one before it as its dialer-proxy",
      GROUP_AT(options.kind),
      .required = true,
      .choices = types,
      .help = "`select`: the one that was picked, the first until then. `url-test`: the fastest. `fallback`: "
              "the first "
              "that is well. `load-balance`: all that are well" },
    { .name = "proxies",
      .type = &cfg_group_members,
      .required = true,
      .help = "its members in order: proxies, groups, `DIRECT`, and in `select` also `REJECT` and "
              "`REJECT-DROP`" },
    { .name = "url",
      .type = &cfg_group_url,
      .shown = "a handshake with the member",
      .help = "what a test fetches through a member; any HTTP status will do" },
    { .name = "interval",
      .type = &cfg_duration,
      GROUP_AT(options.interval_ms),
      .fallback = "300s",
      .min = 1000,
      .max = 7 * 86400 * 1000,
      .help = "`url-test`: between two rounds of tests; a group that nobody uses is not tested" },
    { .name = "timeout",
      .type = &cfg_duration_ms,
      GROUP_AT(options.timeout_ms),
      .fallback = "5s",
      .min = 1,
      .max = 60000,
      .help = "of a test; without a unit, milliseconds" },
    { .name = "tolerance",
      .type = &cfg_duration_ms,
      GROUP_AT(options.tolerance_ms),
      .fallback = "50ms",
      .min = 0,
      .max = 60000,
      .help = "`url-test`: how much faster another member must be; without a unit, milliseconds" },
    { .name = "max-failures",
      .type = &cfg_uint,
      GROUP_AT(options.max_failures),
      .fallback = "3",
      .min = 1,
      .max = 1000,
      .help = "in a row: then a member is down, and new flows leave it out. Not for `select`" },
    { .name = "retry-after",
      .type = &cfg_duration,
      GROUP_AT(options.retry_after_ms),
      .fallback = "30s",
      .min = 1000,
      .max = 86400 * 1000,
      .help = "until a member that is down is tested; doubles each time it goes down again, up to 16-fold" },
    { .name = "strategy",
      .type = &cfg_group_strategy,
      GROUP_AT(options.strategy),
      .fallback = "consistent-hash",
      .choices = strategies,
      .help = "`load-balance`: by the target's address, in turn, or by the client's address" },
    END,
};

const struct cfg_section cfg_group_section = {
    .where = "proxy-groups[]",
    .help = "Several ways out under one name, for rules and other groups. A flow whose member fails before "
            "anything was "
            "sent is tried with the next one; a target that refuses is not.",
    .keys = keys,
};
