/* fuzz_config.c - arbitrary bytes as a configuration file: a result or messages, never a crash, never long. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "culvert/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each message is one line with a place inside the text; a configuration comes out only when none of them is an error. */
static void check(int r, const struct config *c, const struct config_messages *m, size_t size)
{
    if ((r == 0) != (c != NULL) || (r == 0 && m->errors > 0) || (r != 0 && m->errors == 0))
        abort();
    for (size_t i = 0; i < m->count; i++) {
        if (m->list[i].text[0] == '\0' || strchr(m->list[i].text, '\n') != NULL || m->list[i].line > size + 1)
            abort();
    }
    if (c != NULL && (c->rules == NULL || c->upstream_count < CONFIG_TARGET_FIRST_PROXY))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config_messages m = { 0 };
    struct config *c = NULL;
    int r;

    /* A secret may name a file or a device of the machine that fuzzes: relative to nowhere, and no absolute path. */
    if (memmem(data, size, "/", 1) != NULL && memmem(data, size, "file", 4) != NULL)
        return 0;
    r = config_load_text((const char *)data, size, "/nonexistent/fuzz.yaml", &c, &m);
    check(r, c, &m, size);
    config_free(c);
    config_messages_free(&m);
    return 0;
}
