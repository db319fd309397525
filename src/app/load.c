/* load.c - the configuration that a command line means, and the one way to complain. */
#include "commands.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static const char *const default_places[] = { "culvert.yaml", "/etc/culvert/culvert.yaml" };

int complain(int status, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "culvert: %s\n", text);
    return status;
}

/* All messages at once, then the verdict; a failure that left no message still gets one. */
static int report(int r, const char *what, struct config_messages *m)
{
    config_print_messages(stderr, m);
    if (r != 0 && m->errors == 0)
        complain(EXIT_USAGE, "%s: %s", what, strerror(-r));
    config_messages_free(m);
    if (r == -ENOMEM)
        return EXIT_FAILED; /* the machine's fault, not the file's (faults.md R2) */
    return r == 0 ? EXIT_FINE : EXIT_USAGE;
}

int load_file(const char *path, struct config **out)
{
    struct config_messages m = { 0 };
    int r = config_load_file(path, out, &m);

    return report(r, path, &m);
}

int load_url(const char *url, struct config **out)
{
    struct config_messages m = { 0 };
    int r = config_from_proxy_url(url, out, &m);

    return report(r, "--proxy", &m);
}

/* A file that is there and cannot be read is an error, not a reason to take the next one. */
const char *load_path(const struct cli *cli)
{
    if (cli->proxy != NULL || cli->config != NULL)
        return cli->proxy != NULL ? NULL : cli->config;
    for (size_t i = 0; i < ARRAY_LEN(default_places); i++) {
        if (access(default_places[i], F_OK) == 0)
            return default_places[i];
    }
    return NULL;
}

int load_config(const struct cli *cli, struct config **out)
{
    const char *path = load_path(cli);

    if (cli->proxy != NULL)
        return load_url(cli->proxy, out);
    if (path != NULL)
        return load_file(path, out);
    return complain_of_nothing();
}

int complain_of_nothing(void)
{
    return complain(EXIT_USAGE,
                    "nothing is configured: neither ./%s nor %s exists; give -c FILE or --proxy "
                    "socks5://HOST:PORT",
                    default_places[0], default_places[1]);
}
