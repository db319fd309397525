/* config.h - one YAML file, or one proxy URL, becomes the option structs of all folders.
 * Knows     the schema (which keys exist, what each may say, its default) and libyaml; opens nothing but the files it reads.
 * Threads   [any] no shared state: load and free from where you like. A loaded configuration is immutable.
 * Memory    a loaded configuration owns every string that its structs point to; config_free() wipes and frees them.
 * Errors    never one at a time: all mistakes of a file are in one list, each with line, column and what would work. */
#ifndef CULVERT_CONFIG_H
#define CULVERT_CONFIG_H

#include <stdio.h>

#include "culvert/base.h"
#include "culvert/forward.h"
#include "culvert/resolver.h"
#include "culvert/route.h"
#include "culvert/rules.h"
#include "culvert/serve.h"
#include "culvert/stack.h"
#include "culvert/tun.h"
#include "culvert/upstream.h"

/* ---- what a load says --------------------------------------------------------------------------------------- */

struct config_message {
    uint32_t line, column; /* from 1; 0: about the file as a whole */
    bool warning;
    /* "tun.mtu: 70000 is out of range; 576 to 65535 would work", without the place; no secret is ever in it */
    char *text;
};

/* Zeroed before the first use; the caller's. Sorted by place once a load has returned. */
struct config_messages {
    char *file; /* as it was called in the load */
    struct config_message *list;
    size_t count;            /* errors and warnings in one list */
    size_t errors, warnings; /* found; more than are in the list when left_out > 0 */
    size_t left_out;         /* beyond the first 10,000 */
    char *refused;           /* the first file that there was no permission to read; NULL: none */
};

/** config_print_messages() - one line each: FILE:LINE:COL: path.to[0].key: what is wrong; what would work
 * Warnings read FILE:LINE:COL: warning: ... */
void config_print_messages(FILE *to, const struct config_messages *m);
void config_messages_free(struct config_messages *m); /* leaves it zeroed */

/* ---- what a file says ------------------------------------------------------------------------------------------- */

#define CONFIG_EXCLUDES_MAX 256

struct config_limits {
    uint64_t memory_bytes; /* 0: auto */
    uint32_t tcp, udp;     /* flows of the process; 0: auto */
    uint32_t per_source;   /* flows of one client address; 0: no limit */
};

struct config_route { /* what auto-route and our own sockets need */
    bool auto_route;
    uint32_t mark;           /* on every socket of ours; 0: none */
    char interface_name[16]; /* bind our sockets to it; "": none, or follow the default route */
    bool interface_auto;     /* follow the default route */
    struct ip_prefix exclude[CONFIG_EXCLUDES_MAX]; /* destinations that never enter the TUN */
    size_t excludes;
    bool strict;
    struct route_choice include, leave_out;
    enum route_on_exit on_exit;
    bool system_dns; /* /etc/resolv.conf names us */
};

enum config_provider_type { CONFIG_PROVIDER_FILE, CONFIG_PROVIDER_INLINE, CONFIG_PROVIDER_HTTP };

struct config_provider { /* one of `rule-providers` */
    const char *name;
    enum config_provider_type type;
    enum rule_behavior behavior;
    int format; /* private: of config_provider_parse() */
    struct rule_set
        *set; /* the list as it was at load, which `rules` refer to; owned; empty until it is fetched once */
    const char *url;          /* CONFIG_PROVIDER_HTTP: where the list is, and the rest below */
    const char *path;         /* the copy on disk */
    uint32_t interval_ms;     /* between two fetches; 0: once */
    uint32_t exit;            /* index of `upstreams` */
    uint64_t max_bytes;       /* of the list */
    struct tls_settings *tls; /* of https; NULL: the address is not */
    bool fetched;             /* there was a copy on disk */
};

/* Targets of rules are indices of `upstreams`; the first three are always there. */
enum { CONFIG_TARGET_DIRECT, CONFIG_TARGET_REJECT, CONFIG_TARGET_REJECT_DROP, CONFIG_TARGET_FIRST_PROXY };

/* A file that the configuration names: it is read by each load, or written while the program runs. */
struct config_file {
    const struct config_file *next;
    bool written; /* and made, and replaced: its folder as well */
    char path[];  /* as it would be opened */
};

enum config_sandbox { CONFIG_SANDBOX_ON, CONFIG_SANDBOX_OFF, CONFIG_SANDBOX_REQUIRE };

struct config {
    uint32_t workers; /* 0: auto, one for each usable core */
    struct config_limits limits;
    struct log_options log;
    bool has_tun;           /* the file has a `tun` section; without one the options below are the defaults */
    struct tun_options tun; /* fd -1 unless `tun.fd` is set */
    struct config_route route;
    /* Defaults, and what `stack` and `tun.mtu` say; shards, keys and limits are the caller's. */
    struct stack_config stack;
    /* `stack` as policy; max_tcp, max_udp and per_source come from config_shares(). */
    struct forward_options forward;
    struct dns_settings dns;     /* `dns` and `hosts`; points into this configuration */
    const char *user;            /* to become; NULL: stay who we are */
    enum config_sandbox sandbox; /* what is given up before the first packet */
    const char *state_dir;       /* folder of what outlives a restart */
    const struct upstream_options *upstreams;
    size_t upstream_count;
    struct config_provider *providers;
    size_t provider_count;
    struct rule_geo *geo[2]; /* by enum rule_geo_kind: owned, NULL: no rule wants it */
    struct rules *rules;     /* owned; an index of `upstreams` is a target */
    bool has_serve;          /* the file has `serve.socks5` */
    struct serve_options serve;
    bool has_masque; /* and `serve.masque` */
    struct masque_options masque;
    struct rate_limit *rates; /* `rate-limits`, in order */
    size_t rate_count;
    const char *api_unix; /* path of the control socket; NULL: none */
    bool api_unix_set;    /* the file names it, so failing to open it is an error */
    struct {
        struct ip_port listen; /* port 0: not over TCP */
        const char *secret;    /* NULL: none; there is one where `listen` is no loopback address */
        const char *metrics;   /* path; NULL: none */
    } api;
    const struct config_file *files; /* all that the file names; NULL: none */
    struct config_fixed *fixed;      /* private: what a reload cannot change */
    struct config_held *held;        /* private: what is counted and given back by config_free() */
    struct config_store *store;      /* private: strings and lists */
};

/** config_load_file() - read and check @path; nothing else is touched, so it serves `check` and `run` alike
 * Regular files only, opened without blocking (faults.md C7). Secrets named by {file: PATH} are read, too; a relative PATH is
 * relative to the folder of @path.
 * @messages: gets errors and warnings; zeroed or freed by the caller before
 * Return: 0 and *out, the caller's; -EINVAL: the file is wrong, *out untouched; -ENOENT, -EACCES, -EISDIR, ... the file could
 * not be read, with one message that says so; -ENOMEM, then perhaps without a message. */
int config_load_file(const char *path, struct config **out, struct config_messages *messages);
/** config_load_text() - the same for @len bytes in memory; @name stands for the file in messages, and its folder is the
 * one of relative paths */
int config_load_text(const char *text, size_t len, const char *name, struct config **out,
                     struct config_messages *messages);
/** config_from_proxy_url() - the configuration that `--proxy URL` is: that upstream, everything through it, auto-route on
 * @url: "socks5://[user:password@]host:port", ...; it never appears in a message */
int config_from_proxy_url(const char *url, struct config **out, struct config_messages *messages);
void config_free(struct config *c); /* NULL is fine */
/** config_fixed_changes() - keys that differ and that only a restart changes: "tun.mtu" (faults.md C11)
 * @out: @cap places, filled with names that belong to @now. Return: how many. */
size_t config_fixed_changes(const struct config *old, const struct config *now, const char **out, size_t cap);
/** config_parse_duration() - "300ms", "60s", "5m", "2h", a bare number is seconds; for `--drain`, too
 * Return: 0, or -EINVAL and @out_ms is untouched. */
int config_parse_duration(const char *text, uint32_t *out_ms);
/** config_parse_listen() - "127.0.0.1:1080" or "[::1]:1080", port 0 to 65535; for `--listen`, too
 * Return: 0, or -EINVAL and @out is untouched. */
int config_parse_listen(const char *text, struct ip_port *out);

/** config_provider_parse() - a list as it was fetched, in the format and behaviour of @p; bad lines are skipped and reported
 * Return: 0 and *out, the caller's; -ENOMEM. */
int config_provider_parse(const struct config_provider *p, const char *data, size_t len,
                          struct rule_set **out, struct rule_list_report *report);

/* ---- shares: what limits mean on this machine --------------------------------------------------------------------- */

struct config_machine {
    uint64_t ram_bytes;
    uint64_t cgroup_bytes;     /* 0: no limit */
    uint64_t descriptor_limit; /* RLIMIT_NOFILE, soft, after it was raised */
    uint32_t workers;          /* that will run; >= 1 */
};

struct config_shares {
    uint64_t memory_bytes;     /* the budget in force, of the process */
    uint64_t worker_bytes;     /* of one worker, without what the process needs at rest */
    uint64_t buffer_cap_bytes; /* of one worker: stack_config.buffer_cap_bytes */
    uint32_t rx_slots;         /* the same: stack_config.rx_slots: at most a quarter of the cap */
    uint32_t half_open;        /* the same: stack_config.max_half_open */
    uint32_t max_tcp, max_udp; /* of the process: forward_options */
    uint32_t per_source;       /* the same; 0: no limit */
};

/** config_shares() - the rules of config.md section 4 as arithmetic: memory `auto` is a quarter of RAM or of the cgroup's limit,
 * at least 16 MiB; what is left after fixed costs, divided by the workers, is the buffer cap; flows `auto` are what memory and
 * descriptors carry. Pure. */
void config_shares(const struct config_limits *limits, const struct config_machine *machine,
                   struct config_shares *out);
/** config_buffer_cap() - what packets of a worker may take when other things of its part take @others bytes: a quarter of the cap may
 * be held and free (docs/standards.md, limits.memory), so four fifths of what is left; between 2 MiB and the cap at rest. Pure. */
uint64_t config_buffer_cap(const struct config_shares *s, uint64_t others);

/* ---- the schema, for people ---------------------------------------------------------------------------------------- */

/** config_print_reference() - docs/config.md, generated from the schema table that the loader obeys
 * Return: 0 or -EIO. */
int config_print_reference(FILE *to);
/** config_print_manual() - the same as the manual page culvert.yaml(5), for scdoc. Return: 0 or -EIO. */
int config_print_manual(FILE *to);

#endif
