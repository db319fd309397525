/* name.c - host names in the one spelling that the program compares and sends (RFC 1123 section 2.1, RFC 1035 section 2.3). */
#include "culvert/base.h"

#include <errno.h>
#include <string.h>

#define NAME_MAX_BYTES  255 /* what one length byte of SOCKS5 carries (RFC 1928 section 5) */
#define LABEL_MAX_BYTES 63  /* RFC 1035 section 2.3.4 */

/* The lower-case form of a byte that a name may hold; 0 for any other. Underscores are in real use (RFC 2782). */
static char name_byte(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_')
        return c;
    return 0;
}

int host_name_normalise(const char *text, size_t len, char out[256])
{
    char name[NAME_MAX_BYTES + 1];
    size_t label = 0;

    if (len > 0 && text[len - 1] == '.')
        len--;
    if (len == 0 || len > NAME_MAX_BYTES)
        return -EINVAL;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '.') {
            if (label == 0)
                return -EINVAL;
            label = 0;
            name[i] = '.';
            continue;
        }
        name[i] = name_byte(text[i]);
        if (name[i] == 0 || ++label > LABEL_MAX_BYTES)
            return -EINVAL;
    }
    if (label == 0)
        return -EINVAL;
    name[len] = '\0';
    memcpy(out, name, len + 1);
    return 0;
}
