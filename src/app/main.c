/* main.c - the program: a command line, and the command that it names. */

#include "commands.h"
#include "process.h"

int main(int argc, char *argv[])
{
    struct err err = { "" };
    struct cli cli;

    process_fill_stdio();
    if (cli_parse(argc, argv, &cli, &err) != 0) {
        complain(EXIT_USAGE, "%s", err.text);
        cli_print_usage(stderr, cli.topic);
        return EXIT_USAGE;
    }
    switch (cli.command) {
    case CLI_RUN:
        return cmd_run(&cli);
    case CLI_EXEC:
        return cmd_exec(&cli);
    case CLI_SERVE:
        return cmd_serve(&cli);
    case CLI_DEMO:
        return cmd_demo(&cli);
    case CLI_CHECK:
        return cmd_check(&cli);
    case CLI_EXPLAIN:
        return cmd_explain(&cli);
    case CLI_STATUS:
        return cmd_status(&cli);
    case CLI_CLEANUP:
        return cmd_cleanup(&cli);
    case CLI_CONNECTIONS:
        return cmd_connections(&cli);
    case CLI_RELOAD:
        return cmd_reload(&cli);
    case CLI_SELECT:
        return cmd_select(&cli);
    case CLI_DOCTOR:
        return cmd_doctor(&cli);
    case CLI_HELP:
        cli_print_help(stdout, cli.topic);
        return EXIT_FINE;
    case CLI_VERSION:
        puts("culvert " CULVERT_VERSION);
        return EXIT_FINE;
    }
    return EXIT_USAGE;
}
