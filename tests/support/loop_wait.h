/* loop_wait.h - waiting for events on a loop instead of sleeping. */
#ifndef CULVERT_TEST_LOOP_WAIT_H
#define CULVERT_TEST_LOOP_WAIT_H

#include "culvert/loop.h"

/* Runs a loop until something is true. One object a loop, made once, since it takes one of the loop's hooks. */
struct loop_wait {
    struct loop *loop;
    bool (*done)(void *arg);
    void *arg;
    bool ok, waiting;
    struct loop_timer deadline;
};
void loop_wait_init(struct loop_wait *w, struct loop *l);
/* Looks after every turn. Return: whether @done became true within @timeout_ms. */
bool loop_wait_until(struct loop_wait *w, unsigned timeout_ms, bool (*done)(void *arg), void *arg);

#endif
