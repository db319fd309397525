/* confirm.c - a new configuration on a machine far away is put back unless somebody still reaches it. */
#include "confirm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int confirm_parse(const char *text, uint64_t *out_us, struct err *err)
{
    char *unit;
    unsigned long n = strtoul(text, &unit, 10);

    if (text[0] < '0' || text[0] > '9' || n == 0 || n > 86400 || strlen(unit) > 1 ||
        strchr("sm", unit[0]) == NULL)
        return err_set(err, -EINVAL, "--confirm: \"%.40s\" is no time of up to a day; 60s or 5m would work",
                       text);
    *out_us = (uint64_t)n * 1000000 * (unit[0] == 'm' ? 60 : 1);
    return 0;
}

static void confirmed(struct confirm *c)
{
    if (!c->waiting)
        return;
    confirm_end(c);
    log_info("confirmed: the gateway stays");
}

/* A line, whatever it says; the end of input is nobody's word. */
static void on_input(struct loop_io *io, unsigned events)
{
    struct confirm *c = CONTAINER_OF(io, struct confirm, input);
    char text[256];
    ssize_t n = read(STDIN_FILENO, text, sizeof(text));

    (void)events;
    if (n > 0 && memchr(text, '\n', (size_t)n) != NULL)
        confirmed(c);
    else if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        loop_io_stop(c->loop, &c->input);
}

static void on_signal(void *arg, int signo)
{
    (void)signo;
    confirmed(arg);
}

static void on_time(struct loop_timer *t)
{
    struct confirm *c = CONTAINER_OF(t, struct confirm, timer);

    log_error("nobody confirmed: everything is put back");
    confirm_end(c);
    c->on_refused(c->arg);
}

void confirm_start(struct confirm *c, struct loop *l, uint64_t wait_us, void (*on_refused)(void *arg),
                   void *arg)
{
    *c = (struct confirm){ .loop = l, .on_refused = on_refused, .arg = arg, .waiting = true };
    loop_on_signal(l, SIGUSR1, on_signal, c);
    loop_timer_start(l, &c->timer, loop_now_us(l) + wait_us, on_time);
    loop_io_start(l, &c->input, STDIN_FILENO, LOOP_READ, on_input);
    fprintf(stderr,
            "press Enter within %llu seconds (or: kill -USR1 %d) to keep this; else everything is put back\n",
            (unsigned long long)(wait_us / 1000000), (int)getpid());
}

void confirm_end(struct confirm *c)
{
    if (!c->waiting)
        return;
    c->waiting = false;
    if (loop_io_active(&c->input))
        loop_io_stop(c->loop, &c->input);
    loop_timer_stop(c->loop, &c->timer);
}
