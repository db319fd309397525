/* cmd_status.c - `culvert status`, `connections`, `reload` and `select`: one request to the running gateway each. */
#include "commands.h"

#include <string.h>

#include "culvert/api.h"

enum { PATIENCE_MS = 5000, RELOAD_MS = 30000 };

static int ask(const struct cli *cli, const char *method, const char *path, const char *body, int timeout_ms,
               FILE *out)
{
    const char *socket = cli->api != NULL ? cli->api : API_PATH_DEFAULT;
    struct err err = { "" };

    if (api_ask(socket, method, path, body, timeout_ms, out, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    return EXIT_FINE;
}

/* What only says that it worked need not be shown. */
static int ask_quietly(const struct cli *cli, const char *method, const char *path, const char *body,
                       int timeout_ms)
{
    FILE *nowhere = fopen("/dev/null", "we");
    int status;

    if (nowhere == NULL)
        return complain(EXIT_FAILED, "/dev/null cannot be opened");
    status = ask(cli, method, path, body, timeout_ms, nowhere);
    fclose(nowhere);
    return status;
}

int cmd_status(const struct cli *cli)
{
    return ask(cli, "GET", cli->flows ? "/v1/status?flows=1" : "/v1/status", NULL, PATIENCE_MS, stdout);
}

int cmd_connections(const struct cli *cli)
{
    return ask(cli, "GET", cli->ended ? "/v1/flows?ended=1&format=text" : "/v1/flows?format=text", NULL,
               PATIENCE_MS, stdout);
}

int cmd_reload(const struct cli *cli)
{
    char body[48] = "";
    uint32_t ms;

    if (cli->drain != NULL && config_parse_duration(cli->drain, &ms) != 0)
        return complain(EXIT_USAGE, "--drain: \"%.40s\" is no time; 60s, 5m or 500ms would work", cli->drain);
    if (cli->drain != NULL)
        snprintf(body, sizeof(body), "{\"drain-ms\": %u}", ms);
    return ask_quietly(cli, "POST", "/v1/reload", body, RELOAD_MS);
}

/* ---- select ---- */

/* A name as a part of a path (RFC 3986 section 2.1). */
static void put_path(const char *name, struct buf *out)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    char code[4];

    for (; *name != '\0'; name++) {
        if (strchr(plain, *name) != NULL)
            buf_u8(out, (uint8_t)*name);
        else {
            snprintf(code, sizeof(code), "%%%02X", (uint8_t)*name);
            buf_put(out, code, 3);
        }
    }
}

/* A name inside a JSON string (RFC 8259 section 7). */
static void put_json(const char *name, struct buf *out)
{
    char code[8];

    for (; *name != '\0'; name++) {
        if ((uint8_t)*name < 0x20) {
            snprintf(code, sizeof(code), "\\u%04x", (uint8_t)*name);
            buf_put(out, code, 6);
            continue;
        }
        if (*name == '"' || *name == '\\')
            buf_u8(out, '\\');
        buf_u8(out, (uint8_t)*name);
    }
}

int cmd_select(const struct cli *cli)
{
    const char *group = cli->words[0], *member = cli->words[1];
    uint8_t path[512], body[900];
    struct buf p, b;

    if (strlen(group) >= STATUS_NAME_MAX || strlen(member) >= STATUS_NAME_MAX)
        return complain(EXIT_USAGE, "a name has at most %d bytes", STATUS_NAME_MAX - 1);
    buf_init(&p, path, sizeof(path));
    buf_init(&b, body, sizeof(body));
    buf_put(&p, "/v1/groups/", 11);
    put_path(group, &p);
    buf_u8(&p, 0);
    buf_put(&b, "{\"now\": \"", 9);
    put_json(member, &b);
    buf_put(&b, "\"}", 3);
    return ask_quietly(cli, "PUT", (const char *)path, (const char *)body, PATIENCE_MS);
}
