/* schema_rates.c - the schema of `rate-limits`. See schema.c. */
#include "schema.h"

#define RATE_AT(member) .offset = (uint32_t)offsetof(struct cfg_rate, member)

static const struct cfg_key keys[] = {
    { .name = "source",
      .type = &cfg_rate_source,
      .shown = "none",
      .help = "clients with these addresses, each by itself; the first entry that fits holds" },
    { .name = "proxy",
      .type = &cfg_rate_proxy,
      .shown = "none",
      .help = "or all that goes through this way out, or by rules that name this group, together" },
    { .name = "up",
      .type = &cfg_rate,
      RATE_AT(limit.bytes_per_s[0]),
      .fallback = "none",
      .min = 1000,
      .max = UINT64_C(125000000000),
      .help = "to the internet, payload" },
    { .name = "down",
      .type = &cfg_rate,
      RATE_AT(limit.bytes_per_s[1]),
      .fallback = "none",
      .min = 1000,
      .max = UINT64_C(125000000000),
      .help = "to the client, payload" },
    END,
};

const struct cfg_section cfg_rate_section = {
    .where = "rate-limits[]",
    .help = "How fast. TCP is slowed down and loses nothing; datagrams beyond the limit are dropped "
            "(`flow.rate_dropped`). Pings, and questions that are answered here, do not count.",
    .keys = keys,
};
