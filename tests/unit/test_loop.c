/* test_loop.c - faces src/loop/loop.c: order of a turn, descriptors, timers, messages between threads, signals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "culvert/loop.h"

struct lab {
    struct loop *loop;
    int pair[2];
    struct loop_io io;
    struct loop_timer timer;
    char trace[64]; /* one letter for each thing that happened */
    unsigned seen;
};

static int setup(void **state)
{
    struct lab *lab = calloc(1, sizeof(*lab));

    if (lab == NULL || loop_new(&lab->loop) != 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, lab->pair) != 0)
        return -1;
    *state = lab;
    return 0;
}

static int teardown(void **state)
{
    struct lab *lab = *state;

    if (loop_io_active(&lab->io))
        loop_io_stop(lab->loop, &lab->io);
    loop_free(lab->loop);
    close(lab->pair[0]);
    close(lab->pair[1]);
    free(lab);
    return 0;
}

static void note(struct lab *lab, char what)
{
    size_t len = strlen(lab->trace);

    if (len + 1 < sizeof(lab->trace))
        lab->trace[len] = what;
}

static struct lab *lab_of_io(struct loop_io *io)
{
    return CONTAINER_OF(io, struct lab, io);
}

static struct lab *lab_of_timer(struct loop_timer *t)
{
    return CONTAINER_OF(t, struct lab, timer);
}

/* ---- order ---- */

struct letter {
    struct loop_msg msg;
    struct lab *lab;
    char what;
};

static void write_letter(struct loop_msg *m)
{
    struct letter *l = CONTAINER_OF(m, struct letter, msg);

    note(l->lab, l->what);
}

static struct letter letters[3];

static void io_posts_three_messages(struct loop_io *io, unsigned events)
{
    struct lab *lab = lab_of_io(io);

    (void)events;
    note(lab, 'i');
    loop_io_stop(lab->loop, io);
    for (int i = 0; i < 3; i++) {
        letters[i] = (struct letter){ .msg.fn = write_letter, .lab = lab, .what = (char)('1' + i) };
        loop_post(lab->loop, &letters[i].msg);
    }
}

static void hook_ends_after_the_third_message(void *arg)
{
    struct lab *lab = arg;

    note(lab, 'h');
    if (strchr(lab->trace, '3') != NULL)
        loop_stop(lab->loop);
}

static void second_hook(void *arg)
{
    note(arg, 'k');
}

static void begin_hook(void *arg)
{
    note(arg, 'b');
}

static void a_turn_runs_descriptors_then_messages_in_order_between_hooks(void **state)
{
    struct lab *lab = *state;

    loop_on_turn_begin(lab->loop, begin_hook, lab);
    loop_on_turn_end(lab->loop, hook_ends_after_the_third_message, lab);
    loop_on_turn_end(lab->loop, second_hook, lab);
    loop_io_start(lab->loop, &lab->io, lab->pair[0], LOOP_WRITE, io_posts_three_messages);
    assert_int_equal(loop_run(lab->loop), 0);
    /* Hooks before the first sleep; after the descriptor; messages; hooks. The messages wake the loop for a turn of theirs. */
    assert_string_equal(lab->trace, "hkbihkb123hk");
}

/* ---- descriptors ---- */

static void io_reads_then_asks_nothing(struct loop_io *io, unsigned events)
{
    struct lab *lab = lab_of_io(io);

    lab->seen |= events;
    note(lab, 'i');
    loop_io_set(lab->loop, io, 0);
}

static void timer_stops(struct loop_timer *t)
{
    struct lab *lab = lab_of_timer(t);

    note(lab, 't');
    loop_stop(lab->loop);
}

static void interest_zero_is_quiet_even_after_a_hang_up(void **state)
{
    struct lab *lab = *state;

    loop_io_start(lab->loop, &lab->io, lab->pair[0], LOOP_READ, io_reads_then_asks_nothing);
    assert_int_equal(loop_io_fd(&lab->io), lab->pair[0]);
    shutdown(lab->pair[1], SHUT_RDWR);
    loop_timer_start(lab->loop, &lab->timer, clock_now_us() + 5000, timer_stops);
    loop_run(lab->loop);
    assert_string_equal(lab->trace, "it");
    assert_int_equal(lab->seen, LOOP_READ);
    assert_true(loop_io_active(&lab->io));
}

static void io_stops(struct loop_io *io, unsigned events)
{
    lab_of_io(io)->seen |= events;
    loop_stop(lab_of_io(io)->loop);
}

static void an_interest_that_is_set_again_is_served_again(void **state)
{
    struct lab *lab = *state;

    loop_io_start(lab->loop, &lab->io, lab->pair[0], LOOP_READ, io_stops);
    loop_io_set(lab->loop, &lab->io, 0);
    loop_io_set(lab->loop, &lab->io, LOOP_READ);
    assert_int_equal(write(lab->pair[1], "x", 1), 1);
    loop_run(lab->loop);
    assert_int_equal(lab->seen, LOOP_READ);
    loop_io_set(lab->loop, &lab->io, LOOP_READ | LOOP_WRITE);
    loop_run(lab->loop);
    assert_int_equal(lab->seen, LOOP_READ | LOOP_WRITE);
}

static void a_hang_up_wakes_a_writer(void **state)
{
    struct lab *lab = *state;

    close(lab->pair[1]);
    lab->pair[1] = dup(lab->pair[0]); /* teardown closes both */
    loop_io_start(lab->loop, &lab->io, lab->pair[0], LOOP_READ | LOOP_WRITE, io_stops);
    loop_run(lab->loop);
    assert_int_equal(lab->seen, LOOP_READ | LOOP_WRITE);
}

static struct lab *heir;

static void io_hands_over(struct loop_io *io, unsigned events)
{
    struct lab *lab = heir;
    int fd = loop_io_fd(io);
    char byte;

    (void)events;
    note(lab, 'h');
    assert_int_equal(read(fd, &byte, 1), 1);
    loop_io_stop(lab->loop, io);
    loop_io_resume(lab->loop, &lab->io, fd, LOOP_READ, io_stops);
    assert_int_equal(write(lab->pair[1], "y", 1), 1);
}

static void a_descriptor_changes_hands_and_is_watched_on(void **state)
{
    struct lab *lab = *state;
    struct loop_io first;

    memset(&first, 0, sizeof(first));
    heir = lab;
    loop_io_start(lab->loop, &first, lab->pair[0], LOOP_READ, io_hands_over);
    assert_int_equal(write(lab->pair[1], "x", 1), 1);
    loop_run(lab->loop);
    assert_string_equal(lab->trace, "h");
    assert_int_equal(lab->seen, LOOP_READ);
    loop_io_stop(lab->loop,
                 &lab->io); /* what nobody watched before, and other events, are told to the kernel as ever */
    loop_io_resume(lab->loop, &lab->io, lab->pair[1], LOOP_WRITE, io_stops);
    loop_run(lab->loop);
    assert_int_equal(lab->seen, LOOP_READ | LOOP_WRITE);
}

/* ---- timers ---- */

static uint64_t fired_at_us;

static void timer_notes_when(struct loop_timer *t)
{
    fired_at_us = clock_now_us();
    assert_false(loop_timer_active(t));
    loop_stop(lab_of_timer(t)->loop);
}

static void a_timer_never_fires_before_its_deadline(void **state)
{
    struct lab *lab = *state;

    for (uint64_t delay_us = 0; delay_us < 6000; delay_us += 317) {
        uint64_t deadline_us = clock_now_us() + delay_us;

        loop_timer_start(lab->loop, &lab->timer, deadline_us, timer_notes_when);
        assert_true(loop_timer_active(&lab->timer));
        loop_run(lab->loop);
        assert_true(fired_at_us >= deadline_us);
    }
}

static void the_last_start_of_a_timer_counts(void **state)
{
    struct lab *lab = *state;
    uint64_t soon_us = clock_now_us() + 2000;

    loop_timer_start(lab->loop, &lab->timer, soon_us + 3600u * 1000000u, timer_notes_when);
    loop_timer_start(lab->loop, &lab->timer, soon_us, timer_notes_when);
    loop_run(lab->loop);
    assert_true(fired_at_us >= soon_us);
    loop_timer_start(lab->loop, &lab->timer, 0, timer_notes_when); /* long past: at once */
    loop_run(lab->loop);
    loop_timer_start(lab->loop, &lab->timer, soon_us, timer_notes_when);
    loop_timer_stop(lab->loop, &lab->timer);
    assert_false(loop_timer_active(&lab->timer));
}

/* ---- messages from other threads ---- */

enum { SENDERS = 4, EACH = 5000 };

struct parcel {
    struct loop_msg msg;
    struct crowd *crowd;
    unsigned sender, number;
};

struct crowd {
    struct loop *loop;
    unsigned next[SENDERS];
    unsigned arrived, wrong_order, wrong_thread;
    struct parcel parcels[SENDERS][EACH];
};

static void take_parcel(struct loop_msg *m)
{
    struct parcel *p = CONTAINER_OF(m, struct parcel, msg);
    struct crowd *c = p->crowd;

    if (!loop_is_mine(c->loop))
        c->wrong_thread++;
    if (p->number != c->next[p->sender]++)
        c->wrong_order++;
    if (++c->arrived == SENDERS * EACH)
        loop_stop(c->loop);
}

static void *send_parcels(void *arg)
{
    struct parcel *parcels = arg;

    for (unsigned i = 0; i < EACH; i++)
        loop_post(parcels[i].crowd->loop, &parcels[i].msg);
    return NULL;
}

static void messages_of_four_threads_all_arrive_each_threads_in_order(void **state)
{
    struct lab *lab = *state;
    struct crowd *c = calloc(1, sizeof(*c));
    pthread_t threads[SENDERS];

    assert_non_null(c);
    c->loop = lab->loop;
    for (unsigned s = 0; s < SENDERS; s++) {
        for (unsigned i = 0; i < EACH; i++)
            c->parcels[s][i] = (struct parcel){ .msg.fn = take_parcel, .crowd = c, .sender = s, .number = i };
        assert_int_equal(pthread_create(&threads[s], NULL, send_parcels, c->parcels[s]), 0);
    }
    loop_run(lab->loop);
    for (unsigned s = 0; s < SENDERS; s++)
        pthread_join(threads[s], NULL);
    assert_int_equal(c->arrived, SENDERS * EACH);
    assert_int_equal(c->wrong_order, 0);
    assert_int_equal(c->wrong_thread, 0);
    free(c);
}

static void posts_itself_three_times(struct loop_msg *m)
{
    struct letter *l = CONTAINER_OF(m, struct letter, msg);

    note(l->lab, l->what);
    if (strlen(l->lab->trace) < 3)
        loop_post(l->lab->loop, m);
}

static void a_message_to_a_loop_that_has_ended_runs_when_it_is_freed(void **state)
{
    struct lab *lab = *state;
    struct letter again = { .msg.fn = posts_itself_three_times, .lab = lab, .what = 'a' };

    loop_stop(lab->loop);
    loop_run(lab->loop);
    loop_post(lab->loop, &again.msg);
    assert_string_equal(lab->trace, "");
    loop_free(lab->loop);
    assert_string_equal(lab->trace, "aaa");
    assert_int_equal(loop_new(&lab->loop), 0);
}

static void *run_loop(void *arg)
{
    struct lab *lab = arg;

    assert_int_equal(loop_run(lab->loop), 0);
    return NULL;
}

static void stop_from_another_thread_ends_a_sleeping_loop(void **state)
{
    struct lab *lab = *state;
    pthread_t thread;

    for (int i = 0; i < 50; i++) { /* sometimes before it runs, sometimes after it fell asleep */
        assert_int_equal(pthread_create(&thread, NULL, run_loop, lab), 0);
        loop_stop(lab->loop);
        pthread_join(thread, NULL);
    }
}

static void hook_counts_rings(void *arg)
{
    struct lab *lab = arg;

    if (lab->seen++ < 3)
        loop_ring_doorbell(lab->loop);
    else
        loop_stop(lab->loop);
}

static void a_doorbell_brings_another_turn(void **state)
{
    struct lab *lab = *state;

    loop_on_turn_end(lab->loop, hook_counts_rings, lab);
    loop_run(lab->loop);
    assert_true(lab->seen >= 4);
}

/* ---- signals ---- */

static void on_signal(void *arg, int signo)
{
    struct lab *lab = arg;

    lab->seen = (unsigned)signo;
    assert_true(loop_is_mine(lab->loop));
    loop_stop(lab->loop);
}

static void a_signal_is_told_in_a_turn_of_the_loop(void **state)
{
    struct lab *lab = *state;

    loop_on_signal(lab->loop, SIGUSR1, on_signal, lab);
    kill(getpid(), SIGUSR1);
    loop_run(lab->loop);
    assert_int_equal(lab->seen, SIGUSR1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_turn_runs_descriptors_then_messages_in_order_between_hooks, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(interest_zero_is_quiet_even_after_a_hang_up, setup, teardown),
        cmocka_unit_test_setup_teardown(an_interest_that_is_set_again_is_served_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hang_up_wakes_a_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(a_descriptor_changes_hands_and_is_watched_on, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timer_never_fires_before_its_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_start_of_a_timer_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_of_four_threads_all_arrive_each_threads_in_order, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_message_to_a_loop_that_has_ended_runs_when_it_is_freed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(stop_from_another_thread_ends_a_sleeping_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(a_doorbell_brings_another_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(a_signal_is_told_in_a_turn_of_the_loop, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
