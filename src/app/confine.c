/* confine.c - which folders stay open to us, and whether a later configuration is content with them. */
#include "confine.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "state_file.h"

/* What libraries and look-ups of the system read: time zones, name servers (of which resolv.conf may be a link into /run), processes,
 * settings of the kernel; credentials of systemd are in /run, too. */
static const char *const of_the_system[] = { "/etc", "/usr", "/lib",      "/proc",
                                             "/sys", "/run", "/dev/null", "/dev/urandom" };

struct confine {
    struct sandbox_path *paths; /* absolute, without links */
    size_t count, room;
    bool files; /* Landlock is in force */
};

/* ---- the list --------------------------------------------------------------------------------------------------------- */

static bool is_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);

    return strncmp(path, folder, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static bool is_listed(const struct confine *c, const char *path, bool written)
{
    for (size_t i = 0; i < c->count; i++)
        if ((c->paths[i].write || !written) && is_below(path, c->paths[i].path))
            return true;
    return false;
}

/* @path: absolute and without links. Return: 0 or -ENOMEM */
static int add(struct confine *c, const char *path, bool write)
{
    struct sandbox_path *last;

    if (is_listed(c, path, write))
        return 0;
    if (c->count == c->room) {
        size_t room = c->room == 0 ? 32 : 2 * c->room;
        struct sandbox_path *more = realloc(c->paths, room * sizeof(*more));

        if (more == NULL)
            return -ENOMEM;
        c->paths = more;
        c->room = room;
    }
    last = &c->paths[c->count];
    *last = (struct sandbox_path){ strdup(path), write };
    if (last->path == NULL)
        return -ENOMEM;
    c->count++;
    return 0;
}

static int add_if_there(struct confine *c, const char *path, bool write)
{
    char real[PATH_MAX];

    return path != NULL && realpath(path, real) != NULL ? add(c, real, write) : 0;
}

/* "." for a name without a folder, "/" for a file right in it. Return: false: too long */
static bool folder_of(const char *path, char out[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);

    if (len >= PATH_MAX)
        return false;
    memcpy(out, slash == NULL ? "." : path, len);
    out[len] = '\0';
    return true;
}

/* Never the whole file system: what lies right in its root is given as a file. */
static int add_folder_of(struct confine *c, const char *path, bool write)
{
    char folder[PATH_MAX], real[PATH_MAX];

    if (!folder_of(path, folder) || realpath(folder, real) == NULL)
        return 0;
    return strcmp(real, "/") == 0 ? add_if_there(c, path, write) : add(c, real, write);
}

/* A link may be changed to lead to another file of either folder. */
static int add_named(struct confine *c, const char *path, bool write)
{
    char real[PATH_MAX];
    int r = add_folder_of(c, path, write);

    if (r == 0 && realpath(path, real) != NULL)
        r = add_folder_of(c, real, write);
    return r;
}

/* ---- what the configuration names --------------------------------------------------------------------------------------- */

/* A file that is rotated is made anew; a device is not. */
static int add_log(struct confine *c, const char *output)
{
    struct stat st;

    if (output == NULL || output[0] != '/')
        return 0;
    return stat(output, &st) == 0 && !S_ISREG(st.st_mode) ? add_if_there(c, output, true)
                                                          : add_folder_of(c, output, true);
}

static int add_config(struct confine *c, const struct config *config)
{
    int r = add_log(c, config->log.output);

    for (const struct config_file *f = config->files; r == 0 && f != NULL; f = f->next) {
        if (f->written)
            state_file_folders(f->path); /* later they could not be made */
        r = add_named(c, f->path, f->written);
    }
    return r;
}

static int fill(struct confine *c, const struct confine_options *o)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_LEN(of_the_system); i++)
        r = add_if_there(c, of_the_system[i], false);
    if (r == 0)
        r = add_named(c, TLS_SYSTEM_CA_FILE, false);
    if (r == 0 && o->state)
        r = add_if_there(c, o->config->state_dir, true);
    if (r == 0 && o->api_path != NULL)
        r = add_folder_of(c, o->api_path, true);
    if (r == 0 && o->config_path != NULL)
        r = add_named(c, o->config_path, false);
    return r == 0 ? add_config(c, o->config) : r;
}

/* ---- in force ------------------------------------------------------------------------------------------------------------- */

/* A kernel that cannot do a part costs that part and one line, unless all is required (faults.md X10). */
static int missing(const struct confine_options *o, int r, const struct err *why, struct err *err)
{
    if (o->config->sandbox == CONFIG_SANDBOX_REQUIRE)
        return err_set(err, r, "runtime.sandbox: require: %s", why->text);
    log_line(o->child ? LOG_INFO : LOG_WARNING, "sandbox: %s; going on without that part", why->text);
    return 0;
}

static int files(struct confine *c, const struct confine_options *o, struct err *err)
{
    const char *notify = getenv("NOTIFY_SOCKET");
    struct sandbox_files f = { .abstract_sockets = notify != NULL && notify[0] == '@', .signals = o->child };
    struct err why = { "" };
    int abi;

    if (fill(c, o) != 0)
        return err_set(err, -ENOMEM, "no memory");
    f.path = c->paths;
    f.paths = c->count;
    abi = sandbox_files(&f, SANDBOX_ABI_ASK, &why);
    c->files = abi > 0;
    log_debug("sandbox: Landlock version %d", abi > 0 ? abi : 0);
    return abi < 0 ? missing(o, abi, &why, err) : 0;
}

static int calls(const struct confine_options *o, struct loop *l, struct err *err)
{
    struct err why = { "" };
    int r = sandbox_report(l);

    if (r != 0)
        return err_set(err, r, "no pipe for the sandbox: %s", strerror(-r));
    r = sandbox_calls(o->child ? SANDBOX_PARENT : SANDBOX_GATEWAY, &why);
    return r != 0 ? missing(o, r, &why, err) : 0;
}

int confine_now(const struct confine_options *o, struct loop *l, struct confine **out, struct err *err)
{
    struct confine *c;
    int r;

    *out = NULL;
    if (o->config->sandbox == CONFIG_SANDBOX_OFF)
        return 0;
    if ((c = calloc(1, sizeof(*c))) == NULL)
        return err_set(err, -ENOMEM, "no memory");
    if ((r = files(c, o, err)) != 0 || (r = calls(o, l, err)) != 0) {
        confine_end(c, l);
        return r;
    }
    *out = c;
    return 0;
}

void confine_end(struct confine *c, struct loop *l)
{
    if (c == NULL)
        return;
    sandbox_report_end(l);
    for (size_t i = 0; i < c->count; i++)
        free((void *)(uintptr_t)c->paths[i].path);
    free(c->paths);
    free(c);
}

/* ---- a later configuration -------------------------------------------------------------------------------------------------- */

bool confine_covers(const struct confine *c, const char *path, bool written)
{
    char at[PATH_MAX], real[PATH_MAX];

    if (c == NULL || !c->files)
        return true;
    if (realpath(path, real) != NULL)
        return is_listed(c, real, written);
    if (!folder_of(path, at))
        return false;
    while (realpath(at, real) == NULL) { /* the nearest folder that is there */
        char up[PATH_MAX];

        if (strcmp(at, "/") == 0 || strcmp(at, ".") == 0 || !folder_of(at, up))
            return false;
        memcpy(at, up, sizeof(at));
    }
    return is_listed(c, real, written);
}

static int outside(const char *path, bool written, struct err *err)
{
    return err_set(
        err, -EACCES,
        "%.200s is outside of the folders that the sandbox left %s at the start; restart needed to "
        "take this file",
        path, written ? "writable" : "readable");
}

int confine_take(const struct confine *c, const struct config *now, struct err *err)
{
    const char *log = now->log.output;

    if (log != NULL && log[0] == '/' && !confine_covers(c, log, true))
        return outside(log, true, err);
    for (const struct config_file *f = now->files; f != NULL; f = f->next)
        if (!confine_covers(c, f->path, f->written))
            return outside(f->path, f->written, err);
    return 0;
}

int confine_refused(const struct confine *c, const struct config_messages *m, struct err *err)
{
    return m->refused != NULL && !confine_covers(c, m->refused, false) ? outside(m->refused, false, err) : 0;
}

int confine_load(const struct confine *c, const char *path, struct config **out, struct err *err)
{
    struct config_messages m = { 0 };
    struct config *now = NULL;
    int r = config_load_file(path, &now, &m);

    config_print_messages(stderr, &m);
    if (r != 0 && (r = confine_refused(c, &m, err)) == 0)
        r = err_set(err, -EINVAL, "the file has mistakes; `culvert check` lists them");
    config_messages_free(&m);
    if (r == 0)
        r = confine_take(c, now, err);
    if (r == 0)
        *out = now;
    else
        config_free(now);
    return r;
}

static void warn_unreadable(const char *path)
{
    if (access(path, R_OK) != 0 && errno != ENOENT)
        log_warning("%s cannot be read by this user any more (%s): a reload will fail until it can", path,
                    strerror(errno));
}

void confine_warn_unreadable(const struct config *config, const char *config_path)
{
    if (config_path != NULL)
        warn_unreadable(config_path);
    for (const struct config_file *f = config->files; f != NULL; f = f->next)
        warn_unreadable(f->path);
}
