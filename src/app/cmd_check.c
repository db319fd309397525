/* cmd_check.c - `culvert check FILE`: every mistake of a configuration in one run, and nothing touched. */
#include "commands.h"

int cmd_check(const struct cli *cli)
{
    struct config *config = NULL;
    int status = load_file(cli->words[0], &config);

    config_free(config);
    if (status == EXIT_FINE)
        printf("%s: fine\n", cli->words[0]);
    return status;
}
