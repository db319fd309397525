/* cgroup.c - the memory limit of our control group, v1 and v2; a machine may have both, with memory in either. */
#include "cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_LIMIT (UINT64_C(1) << 62) /* v1 says "none" by a number near 2^63; v2 by "max" */

static bool read_limit(const char *path, uint64_t *out)
{
    char text[32] = "";
    FILE *f = fopen(path, "re");
    bool is_there = f && fgets(text, sizeof(text), f);

    if (f)
        fclose(f);
    if (!is_there)
        return false;
    *out = strtoull(text, NULL, 10); /* "max" is 0 */
    if (*out >= NO_LIMIT)
        *out = 0;
    return true;
}

static bool limit_at(const char *root, const char *folder, const char *group, const char *file, uint64_t *out)
{
    char path[640];
    int n = snprintf(path, sizeof(path), "%s%s%s/%s", root, folder, group, file);

    return n > 0 && (size_t)n < sizeof(path) && read_limit(path, out);
}

/* Is `memory` among the controllers "cpu,memory" of a line "4:cpu,memory:/group"? */
static bool has_memory(const char *list, size_t len)
{
    while (len > 0) {
        const char *comma = memchr(list, ',', len);
        size_t n = comma ? (size_t)(comma - list) : len;

        if (n == strlen("memory") && memcmp(list, "memory", n) == 0)
            return true;
        list += comma ? n + 1 : n;
        len -= comma ? n + 1 : n;
    }
    return false;
}

/* One line "ID:CONTROLLERS:GROUP"; v2's has ID 0 and no controllers. Return: is the limit known now? */
static bool ask_line(char *line, const char *root, uint64_t *out)
{
    char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL;
    const char *folder, *file;

    if (!group)
        return false;
    group++;
    group[strcspn(group, "\n")] = '\0';
    if (strncmp(line, "0::", 3) == 0) {
        folder = "";
        file = "memory.max";
    } else if (has_memory(list + 1, (size_t)(group - 1 - (list + 1)))) {
        folder = "/memory";
        file = "memory.limit_in_bytes";
    } else {
        return false;
    }
    return limit_at(root, folder, group, file, out) || limit_at(root, folder, "", file, out);
}

uint64_t cgroup_memory_limit(const char *membership, const char *root)
{
    FILE *f = fopen(membership, "re");
    char line[512];
    uint64_t limit = 0;

    if (!f)
        return 0;
    while (fgets(line, sizeof(line), f))
        if (ask_line(line, root, &limit))
            break;
    fclose(f);
    return limit;
}
