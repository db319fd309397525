/* replay.c - the main() of a fuzz target without libFuzzer: every file of a corpus once, under the sanitizers.
 * Arguments are files or folders; of a folder, the files directly in it. No file at all is a failure: a corpus that is
 * not found must not look like one that passed. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Exactly as many bytes as the file has, on the heap, so that AddressSanitizer sees the first read past the end. */
static int replay_file(const char *path, size_t size)
{
    uint8_t *data = malloc(size > 0 ? size : 1);
    FILE *f = fopen(path, "rb");
    int r = -1;

    if (data != NULL && f != NULL && fread(data, 1, size, f) == size) {
        LLVMFuzzerTestOneInput(data, size);
        r = 0;
    } else {
        fprintf(stderr, "%s: cannot be read: %s\n", path, strerror(errno));
    }
    if (f != NULL)
        fclose(f);
    free(data);
    return r;
}

static int replay_folder(const char *path, unsigned *files)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int r = 0;

    if (d == NULL) {
        fprintf(stderr, "%s: cannot be opened: %s\n", path, strerror(errno));
        return -1;
    }
    while (r == 0 && (e = readdir(d)) != NULL) {
        char file[PATH_MAX];
        struct stat st;

        if (snprintf(file, sizeof(file), "%s/%s", path, e->d_name) >= (int)sizeof(file) ||
            stat(file, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        r = replay_file(file, (size_t)st.st_size);
        (*files)++;
    }
    closedir(d);
    return r;
}

int main(int argc, char **argv)
{
    unsigned files = 0;
    struct stat st;
    int r = 0;

    for (int i = 1; i < argc && r == 0; i++) {
        if (stat(argv[i], &st) != 0) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
            return 1;
        }
        if (S_ISDIR(st.st_mode)) {
            r = replay_folder(argv[i], &files);
        } else {
            r = replay_file(argv[i], (size_t)st.st_size);
            files++;
        }
    }
    if (r != 0)
        return 1;
    if (files == 0) {
        fprintf(stderr, "%s: no file to replay; give the folder of the corpus\n", argv[0]);
        return 1;
    }
    printf("%u files replayed\n", files);
    return 0;
}
