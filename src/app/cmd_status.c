/* cmd_status.c - `culvert status`: one question to the running gateway, its answer as it comes. */
#include "commands.h"

#include "culvert/api.h"

enum { PATIENCE_MS = 5000 };

int cmd_status(const struct cli *cli)
{
    const char *path = cli->api != NULL ? cli->api : API_PATH_DEFAULT;
    struct err err = { "" };

    if (api_get(path, cli->flows ? "/v1/status?flows=1" : "/v1/status", PATIENCE_MS, stdout, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    return EXIT_FINE;
}
