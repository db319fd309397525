/* commands.h - what each command of the command line does, and what they share.
 * Every cmd_* returns the exit status of the program (config.md section 5) and has said on stderr why it is not 0. */
#ifndef CULVERT_APP_COMMANDS_H
#define CULVERT_APP_COMMANDS_H

#include "cli.h"
#include "culvert/config.h"

int cmd_run(const struct cli *cli);
int cmd_exec(const struct cli *cli);
int cmd_serve(const struct cli *cli);
int cmd_demo(const struct cli *cli);
int cmd_check(const struct cli *cli);
int cmd_explain(const struct cli *cli);
int cmd_status(const struct cli *cli);
int cmd_cleanup(const struct cli *cli);
int cmd_connections(const struct cli *cli);
int cmd_reload(const struct cli *cli);
int cmd_select(const struct cli *cli);
int cmd_doctor(const struct cli *cli);

#define API_PATH_DEFAULT "/run/culvert/api.sock"

/** complain() - "culvert: ..." on stderr, one line; returns @status, for "return complain(EXIT_FAILED, ...)" */
int complain(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** load_config() - what -c, --proxy or the default places say, with all messages on stderr
 * Return: EXIT_FINE and *out, the caller's; otherwise the exit status. */
int load_config(const struct cli *cli, struct config **out);
int complain_of_nothing(void); /* there is no configuration; returns EXIT_USAGE */
/* The file that load_config() reads; NULL: --proxy, or there is none. */
const char *load_path(const struct cli *cli);
/** load_file() - the same for one file */
int load_file(const char *path, struct config **out);
/** load_url() - the same for one URL */
int load_url(const char *url, struct config **out);

#endif
