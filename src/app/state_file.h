/* state_file.h - small files in runtime.state-dir: read whole, replaced at one stroke. [main] */
#ifndef CULVERT_APP_STATE_FILE_H
#define CULVERT_APP_STATE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** state_file_read() - the whole file, NUL-terminated beyond its length
 * @out: malloc'd when the result is above 0. Return: bytes; 0: there is no file, or it is empty; -errno. */
ssize_t state_file_read(const char *dir, const char *name, size_t max, uint8_t **out);
/** state_file_write() - written beside the old one, synced and moved over it: a reader finds the one or the other (faults.md D9)
 * Makes @dir when it is missing. Return: 0 or -errno. */
int state_file_write(const char *dir, const char *name, const void *bytes, size_t len);
/** state_file_replace() - the same for any path: written to @fresh, beside it and with @mode, and moved over it. Return: 0 or -errno */
int state_file_replace(const char *path, const char *fresh, mode_t mode, const void *bytes, size_t len);
/** state_file_folders() - make all folders on the way to the file @path; what cannot be made is for whoever opens it to say */
void state_file_folders(const char *path);

#endif
