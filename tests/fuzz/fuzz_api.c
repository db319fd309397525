/* fuzz_api.c - what callers of the control socket send and we read ourselves: JSON bodies, Host, Origin, Authorization.
 * The first byte chooses the reader; HTTP and websocket frames are libmicrohttpd's and wslay's. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/api_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef WITH_API

static void body(const char *text, size_t len)
{
    struct api_body out;
    struct api_fault fault = { "", 0, 0 };
    char *answer;
    int r = api_body_read(text, len, &out, &fault);

    assert(r == 0 || r == -22 || r == -12);
    assert(r != 0 || strlen(out.member) < sizeof(out.member));
    if (r != -22)
        return;
    assert(fault.line > 0 && fault.column > 0 && fault.text[0] != '\0');
    answer = api_json_error(fault.text, fault.line, fault.column);
    assert(answer != NULL);
    free(answer);
}

#else

static void body(const char *text, size_t len)
{
    (void)text;
    (void)len;
}

#endif

/* Only these are ours at 127.0.0.1:9090, whatever else is sent. */
static void host(const char *text)
{
    static const char *const ours[] = { "127.0.0.1:9090", "localhost:9090", "[::ffff:127.0.0.1]:9090" };
    struct ip_port at = { .port = 9090 };
    bool known = false;

    ip_parse("127.0.0.1", &at.addr);
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        known |= strcasecmp(text, ours[i]) == 0;
    if (api_host_is_ours(text, &at) &&
        !known) /* another spelling of the port or the address: 09090, [127.0.0.1] */
        assert(strstr(text, "127.0.0.1") != NULL || strcasestr(text, "localhost") != NULL ||
               strcasestr(text, "7f00:1") != NULL);
    (void)api_origin_is_ours(text, &at);
    ip_parse("::", &at.addr);
    (void)api_host_is_ours(text, &at);
}

static void secret(const char *text)
{
    assert(!api_secret_is_right(text, "s3cret") || strcmp(text + strlen("Bearer "), "s3cret") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text;

    if (size == 0)
        return 0;
    text = malloc(size);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    if (data[0] % 3 == 0)
        body(text, size - 1);
    else if (data[0] % 3 == 1)
        host(text);
    else
        secret(text);
    free(text);
    return 0;
}
