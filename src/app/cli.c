/* cli.c - the command line (config.md section 5), as one table of commands and one of options.
 *
 * Options are "--name VALUE" or "--name=VALUE", with a short letter for some; they may stand before and after FILE. In `exec` the
 * first word that is no option starts COMMAND, and everything behind "--" is COMMAND in any case. */
#include "cli_impl.h"

#include <errno.h>
#include <string.h>

static const struct command commands[] = {
    [CLI_RUN] = { "run", "", "the gateway; needs root, CAP_NET_ADMIN or an adopted descriptor", 0, 0 },
    [CLI_EXEC] = { "exec", "-- COMMAND ...",
                   "run one command, all of its traffic through the gateway; needs no root", 1, -1 },
    [CLI_SERVE] = { "serve", "", "the far end: a SOCKS5 server", 0, 0 },
    [CLI_DEMO] = { "demo", "", "a tour in a private network namespace, with servers of its own", 0, 0 },
    [CLI_CHECK] = { "check", "FILE", "validate a configuration: 0 it is fine, 2 with every mistake listed", 1,
                    1 },
    [CLI_EXPLAIN] = { "explain", "HOST[:PORT]",
                      "which rule takes a flow, why those before it do not, and its exit; asks nobody", 1,
                      1 },
    [CLI_STATUS] = { "status", "", "what the running gateway does, as JSON", 0, 0 },
    [CLI_CLEANUP] = { "cleanup", "", "remove the routes, rules and tables that a killed gateway left behind",
                      0, 0 },
    [CLI_CONNECTIONS] = { "connections", "", "the open flows of the running gateway, one a line", 0, 0 },
    [CLI_RELOAD] = { "reload", "", "the running gateway reads its file again; open flows stay", 0, 0 },
    [CLI_SELECT] = { "select", "GROUP MEMBER",
                     "new flows of this `select` group take this member, after a restart, too", 2, 2 },
    [CLI_DOCTOR] = { "doctor", "", "what of this machine stands in the way, and the command that mends it", 0,
                     0 },
};

static const struct option options[] = {
    { "--config", "FILE", "the configuration", offsetof(struct cli, config),
      ON(CLI_RUN) | ON(CLI_EXEC) | ON(CLI_SERVE) | ON(CLI_EXPLAIN), 'c' },
    { "--proxy", "URL", "instead of a file: everything through socks5://[USER:PASSWORD@]HOST:PORT",
      offsetof(struct cli, proxy), ON(CLI_RUN) | ON(CLI_EXEC), 0 },
    { "--net", "NETWORK", "tcp, udp or icmp; default: tcp", offsetof(struct cli, net), ON(CLI_EXPLAIN), 0 },
    { "--src", "ADDR", "the client's address", offsetof(struct cli, src), ON(CLI_EXPLAIN), 0 },
    { "--uid", "N", "the user that the program runs as", offsetof(struct cli, uid), ON(CLI_EXPLAIN), 0 },
    { "--process", "PATH", "the program", offsetof(struct cli, process), ON(CLI_EXPLAIN), 0 },
    { "--builtin", NULL, "instead of a file: through a SOCKS5 server inside this program",
      offsetof(struct cli, builtin), ON(CLI_EXEC), 0 },
    { "--dns", "ADDR", "the name server that COMMAND's questions go to; default: the host's",
      offsetof(struct cli, dns), ON(CLI_EXEC), 0 },
    { "--tun", "NAME", "name of the interface, whatever the file says", offsetof(struct cli, tun),
      ON(CLI_RUN), 0 },
    { "--dry-run", NULL, "print the routes and rules that would be made, and change nothing",
      offsetof(struct cli, dry_run), ON(CLI_RUN), 0 },
    { "--confirm", "TIME",
      "end and put everything back unless Enter, or signal USR1, says within TIME that all is well",
      offsetof(struct cli, confirm), ON(CLI_RUN), 0 },
    { "--stopped", NULL, "leave what on-exit keeps or blocks: for the stop line of a service",
      offsetof(struct cli, stopped), ON(CLI_CLEANUP), 0 },
    { "--listen", "ADDR:PORT", "where to listen; default: 127.0.0.1:1080", offsetof(struct cli, listen),
      ON(CLI_SERVE), 0 },
    { "--flows", NULL, "with every open flow", offsetof(struct cli, flows), ON(CLI_STATUS), 0 },
    { "--api", "PATH", "the gateway's control socket; default: /run/culvert/api.sock",
      offsetof(struct cli, api), ON(CLI_STATUS) | ON(CLI_CONNECTIONS) | ON(CLI_RELOAD) | ON(CLI_SELECT), 0 },
    { "--ended", NULL, "the last ones that ended, with the reason, instead", offsetof(struct cli, ended),
      ON(CLI_CONNECTIONS), 0 },
    { "--drain", "TIME", "then end the flows whose way out is not in the file any more",
      offsetof(struct cli, drain), ON(CLI_RELOAD), 0 },
    { "--root", "DIR", "look at the machine whose files are there; default: this one",
      offsetof(struct cli, root), ON(CLI_DOCTOR), 0 },
};

static const struct command *command_at(enum cli_command c)
{
    return (size_t)c < ARRAY_LEN(commands) ? &commands[c] : NULL;
}

const struct command *cli_command_at(size_t i)
{
    return i < ARRAY_LEN(commands) ? &commands[i] : NULL;
}

const struct option *cli_option_at(size_t i)
{
    return i < ARRAY_LEN(options) ? &options[i] : NULL;
}

/* ---- help ---- */

void cli_print_synopsis(FILE *to, const struct command *c)
{
    fprintf(to, "culvert %s", c->name);
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        const struct option *o = &options[i];

        if (!(o->commands & ON(c - commands)))
            continue;
        if (o->letter != 0)
            fprintf(to, " [-%c %s]", o->letter, o->value);
        else
            fprintf(to, " [%s%s%s]", o->name, o->value != NULL ? " " : "", o->value != NULL ? o->value : "");
    }
    if (c->words[0] != '\0')
        fprintf(to, " %s", c->words);
}

void cli_print_usage(FILE *to, enum cli_command topic)
{
    fputs("usage: ", to);
    if (command_at(topic) != NULL)
        cli_print_synopsis(to, command_at(topic));
    else {
        fputs("culvert", to);
        for (size_t c = 0; c < ARRAY_LEN(commands); c++)
            fprintf(to, " %s |", commands[c].name);
        fputs(" --version | --help", to);
    }
    putc('\n', to);
}

static void print_options(FILE *to, enum cli_command topic)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        const struct option *o = &options[i];
        char left[32];

        if (!(o->commands & ON(topic)))
            continue;
        if (o->letter != 0)
            snprintf(left, sizeof(left), "-%c, %s %s", o->letter, o->name, o->value);
        else
            snprintf(left, sizeof(left), "%s%s%s", o->name, o->value != NULL ? " " : "",
                     o->value != NULL ? o->value : "");
        fprintf(to, "      %-20s %s\n", left, o->help);
    }
}

static void print_command(FILE *to, enum cli_command topic)
{
    fputs("  ", to);
    cli_print_synopsis(to, command_at(topic));
    fprintf(to, "\n      %s\n", command_at(topic)->help);
    print_options(to, topic);
}

void cli_print_help(FILE *to, enum cli_command topic)
{
    fputs("culvert: every packet of a TUN device through a proxy\n\n", to);
    for (size_t c = 0; c < ARRAY_LEN(commands); c++) {
        if (command_at(topic) == NULL || (size_t)topic == c)
            print_command(to, (enum cli_command)c);
    }
    fputs("  culvert --version\n  culvert --help\n\n"
          "Without -c, --proxy and --builtin: culvert.yaml in the working directory, then "
          "/etc/culvert/culvert.yaml.\n"
          "Exit status: 0 fine, 1 failed while running, 2 wrong usage or configuration; exec: COMMAND's own, "
          "127 when it\n"
          "is not found, 126 when it cannot be run, 128+N when signal N ended it.\n",
          to);
}

/* ---- parsing ---- */

static int parse_command(const char *word, struct cli *out, struct err *err)
{
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0)
        out->command = CLI_HELP;
    else if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
        out->command = CLI_VERSION;
    else {
        for (size_t c = 0; c < ARRAY_LEN(commands); c++) {
            if (strcmp(word, commands[c].name) == 0) {
                out->command = out->topic = (enum cli_command)c;
                return 0;
            }
        }
        return err_set(err, -EINVAL, "%s \"%.60s\"", word[0] == '-' ? "unknown option" : "unknown command",
                       word);
    }
    return 0;
}

/* The option that @word names ("--name", "--name=..." or "-c"), or NULL. */
static const struct option *option_find(const char *word)
{
    size_t len = strcspn(word, "=");

    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        const struct option *o = &options[i];

        if (strlen(o->name) == len && strncmp(word, o->name, len) == 0)
            return o;
        if (o->letter != 0 && word[1] == o->letter && word[2] == '\0')
            return o;
    }
    return NULL;
}

static int set_switch(const struct option *o, const char *word, struct cli *out, struct err *err)
{
    bool *field = (bool *)(void *)((char *)out + o->field);

    if (strchr(word, '=') != NULL)
        return err_set(err, -EINVAL, "%s takes no value", o->name);
    *field = true;
    return 0;
}

static int set_value(const struct option *o, const char *value, struct cli *out, struct err *err)
{
    const char **field = (const char **)(void *)((char *)out + o->field);

    if (value == NULL || value[0] == '\0')
        return err_set(err, -EINVAL, "%s needs a value: %s", o->name, o->value);
    if (*field != NULL)
        return err_set(err, -EINVAL, "%s is given twice", o->name);
    *field = value;
    return 0;
}

/* argv[*i] is an option; *i moves on to its value if that is the next word. */
static int parse_option(int argc, char *const argv[], int *i, struct cli *out, struct err *err)
{
    const char *word = argv[*i], *equals = strchr(word, '=');
    const struct option *o = option_find(word);

    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        out->command = CLI_HELP;
        return 0;
    }
    if (o == NULL)
        return err_set(err, -EINVAL, "unknown option \"%.60s\"", word);
    if (!(o->commands & ON(out->topic)))
        return err_set(err, -EINVAL, "%s does not belong to \"%s\"", o->name, command_at(out->topic)->name);
    if (o->value == NULL)
        return set_switch(o, word, out, err);
    if (equals != NULL)
        return set_value(o, equals + 1, out, err);
    return set_value(o, *i + 1 < argc ? argv[++*i] : NULL, out, err);
}

static int check_sources(const struct cli *c, struct err *err)
{
    int given = (c->config != NULL) + (c->proxy != NULL) + c->builtin;

    if (given > 1)
        return err_set(err, -EINVAL,
                       "-c, --proxy and --builtin are different ways to say the same; give one of them");
    return 0;
}

static int check_words(const struct command *c, char *const words[], int count, struct err *err)
{
    if (count < c->min_words)
        return err_set(err, -EINVAL, "%s is missing", c->max_words < 0 ? "COMMAND" : c->words);
    if (c->max_words >= 0 && count > c->max_words)
        return err_set(err, -EINVAL, "\"%.60s\" is too much", words[0]);
    return 0;
}

/* Words may stand before, between or behind options, but together; what is left over is one too many. */
static int parse_words(int argc, char *const argv[], struct cli *out, struct err *err)
{
    const struct command *c = command_at(out->topic);
    int first = 0, count = 0, r = 0;
    bool only_words = false;

    for (int i = 2; i < argc && r == 0 && out->command != CLI_HELP; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0)
            only_words = true;
        else if (!only_words && argv[i][0] == '-' && argv[i][1] != '\0')
            r = parse_option(argc, argv, &i, out, err);
        else if (c->max_words < 0) {
            first = i;
            count = argc - i;
            break; /* all that follows is COMMAND's own */
        } else if (count == 0 || (count < c->max_words && i == first + count)) {
            first = count == 0 ? i : first;
            count++;
        } else
            r = err_set(err, -EINVAL, "\"%.60s\" is too much", argv[i]);
    }
    if (r != 0 || out->command == CLI_HELP)
        return r;
    out->words = first > 0 ? argv + first : argv + argc;
    r = check_words(c, out->words, count, err);
    return r != 0 ? r : check_sources(out, err);
}

int cli_parse(int argc, char *const argv[], struct cli *out, struct err *err)
{
    int r;

    *out = (struct cli){ .command = CLI_HELP, .topic = CLI_HELP };
    if (argc < 2)
        return err_set(err, -EINVAL, "no command");
    if ((r = parse_command(argv[1], out, err)) != 0)
        return r;
    if (out->command == CLI_HELP && argc == 3) { /* "culvert help exec" */
        r = parse_command(argv[2], out, err);
        out->command = CLI_HELP;
        return r;
    }
    if (command_at(out->command) == NULL)
        return argc > 2 ? err_set(err, -EINVAL, "\"%.60s\" is too much", argv[2]) : 0;
    return parse_words(argc, argv, out, err);
}
