/* embed_gateway.c - a whole gateway in a program of your own (include/culvert.h).
 *
 *     embed_gateway FILE.yaml
 *
 * Starts what the file describes, as `culvert run -c FILE.yaml` would, with the log on standard output. A line on standard input is a
 * question: "status", "reload", or the name of a counter, such as tcp.rst_sent. The end of standard input ends the gateway.
 *
 *     cc -o embed_gateway embed_gateway.c $(pkg-config --cflags --libs libculvert-gateway)
 */
#include <stdio.h>
#include <string.h>

#include <culvert.h>

static void on_log(void *arg, enum culvert_level level, const char *line)
{
    (void)arg;
    if (level <= CULVERT_LOG_INFO)
        printf("log: %s\n", line);
}

static void on_end(void *arg, int err, const char *why)
{
    (void)arg;
    if (err != 0)
        printf("the gateway could not go on: %s\n", why);
}

static void show_status(struct culvert *gateway)
{
    struct culvert_status s = { .size = sizeof(s) };

    if (culvert_status(gateway, &s) == 0)
        printf("status: %s, %u workers, %llu TCP and %llu UDP flows, %llu bytes in, %llu out\n", s.tun,
               s.workers, (unsigned long long)s.tcp_flows, (unsigned long long)s.udp_flows,
               (unsigned long long)s.bytes_in, (unsigned long long)s.bytes_out);
}

static void answer(struct culvert *gateway, const char *question)
{
    char why[1024];
    uint64_t value;

    if (strcmp(question, "status") == 0)
        show_status(gateway);
    else if (strcmp(question, "reload") == 0)
        printf("reload: %s\n",
               culvert_reload(gateway, NULL, CULVERT_NO_DRAIN, why, sizeof(why)) == 0 ? "done" : why);
    else if (culvert_counter(gateway, question, &value) == 0)
        printf("%s: %llu\n", question, (unsigned long long)value);
    else
        printf("no counter is called \"%s\"\n", question);
}

int main(int argc, char *argv[])
{
    struct culvert_options opt = { .size = sizeof(opt), .on_log = on_log, .on_end = on_end };
    struct culvert *gateway;
    char why[1024], line[128];

    if (argc != 2) {
        fprintf(stderr, "usage: embed_gateway FILE.yaml\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    opt.config_file = argv[1];
    if (culvert_new(&opt, &gateway, why, sizeof(why)) != 0) {
        fprintf(stderr, "%s\n", why);
        return 2;
    }
    if (culvert_start(gateway, why, sizeof(why)) != 0) {
        fprintf(stderr, "%s\n", why);
        culvert_free(gateway);
        return 1;
    }
    while (fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        answer(gateway, line);
    }
    culvert_free(gateway); /* stops it, and waits until routes and the device are put back */
    return 0;
}
