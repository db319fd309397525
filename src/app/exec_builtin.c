/* exec_builtin.c - the SOCKS5 server inside this program. */
#include "exec_builtin.h"

#include <string.h>

#include "commands.h"

static int random_word(char *out, size_t len) /* @len hexadecimal digits */
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[32];
    int r = random_bytes(bytes, len);

    for (size_t i = 0; i < len; i++)
        out[i] = digits[bytes[i] & 15];
    out[len] = '\0';
    return r;
}

int builtin_new(struct builtin *b, struct config **config)
{
    char url[128];
    struct far_end_setup setup = { .socks5 = &b->options, .count = 1 };
    struct err err = { "" };
    int r;

    b->options = (struct serve_options){ .udp = true, .connect_timeout_ms = 10000, .max_streams = 16384 };
    ip_parse("127.0.0.1", &b->options.listen.addr);
    if ((r = random_word(b->name, sizeof(b->name) - 1)) != 0 ||
        (r = random_word(b->password, sizeof(b->password) - 1)) != 0)
        return complain(EXIT_FAILED, "no random numbers from the kernel: %s", strerror(-r));
    b->user = (struct serve_user){ b->name, b->password };
    b->options.users = &b->user;
    b->options.user_count = 1;
    if (far_end_new(&setup, &b->far_end, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    snprintf(url, sizeof(url), "socks5://%s:%s@127.0.0.1:%u", b->name, b->password, far_end_port(b->far_end));
    return load_url(url, config);
}

int builtin_start(struct builtin *b)
{
    struct err err = { "" };

    if (b->far_end != NULL && far_end_start(b->far_end, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    return EXIT_FINE;
}

void builtin_free(struct builtin *b)
{
    far_end_free(b->far_end);
    b->far_end = NULL;
}
