/* schema.h - how entries of the schema are written; for schema.c, schema_proxy.c and schema_dns.c only. */
#ifndef CULVERT_CONFIG_SCHEMA_H
#define CULVERT_CONFIG_SCHEMA_H

#include "config_impl.h"

#define AT(member)          .offset = (uint32_t)offsetof(struct config, member)
#define PROXY_AT(member)    .offset = (uint32_t)offsetof(struct cfg_proxy, member)
#define PROVIDER_AT(member) .offset = (uint32_t)offsetof(struct cfg_provider, member)
#define RULE_AT(member)     .offset = (uint32_t)offsetof(struct cfg_rule, member)

#define SECTION(name_, section_)                                                                             \
    {                                                                                                        \
        .name = (name_), .type = &cfg_section_type, .section = &(section_)                                   \
    }
/* of which a reload changes nothing */
#define FIXED_SECTION(name_, section_)                                                                       \
    {                                                                                                        \
        .name = (name_), .type = &cfg_section_type, .section = &(section_), .fixed = true                    \
    }
#define ALIAS(name_, of_)                                                                                    \
    {                                                                                                        \
        .name = (name_), .state = CFG_ALIAS, .alias = (of_)                                                  \
    }
#define END                                                                                                  \
    {                                                                                                        \
        .name = NULL                                                                                         \
    }

extern const struct cfg_section cfg_proxy_section;                    /* schema_proxy.c */
extern const struct cfg_section cfg_serve_section;                    /* schema_serve.c */
extern const struct cfg_section cfg_dns_section, cfg_sniffer_section; /* schema_dns.c */
extern const struct cfg_section cfg_group_section;                    /* schema_group.c */
extern const struct cfg_section cfg_rate_section;                     /* schema_rates.c */

#endif
