/* test_loop_slice.c - what the scheduler is asked for, and that nothing else changes. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "culvert/loop.h"
#include "skip.h"

struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

static struct attributes now(void)
{
    struct attributes a = { .size = sizeof(a) };

    assert_int_equal(syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0), 0);
    return a;
}

struct seen {
    int policy, nice; /* to begin with */
    struct attributes before, after;
    int r;
};

static void *ask(void *arg)
{
    struct seen *s = arg;
    struct sched_param none = { 0 };

    /* of this thread alone, on Linux */
    if (setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), s->nice) != 0 ||
        syscall(SYS_sched_setscheduler, 0, s->policy, &none) != 0) /* musl has no such function */
        return NULL;
    s->before = now();
    s->r = loop_short_slices();
    s->after = now();
    return s;
}

static void run(struct seen *s)
{
    pthread_t thread;
    void *done;

    assert_int_equal(pthread_create(&thread, NULL, ask, s), 0);
    assert_int_equal(pthread_join(thread, &done), 0);
    assert_non_null(done);
    assert_int_equal(s->r, 0);
    assert_int_equal(s->after.policy, s->before.policy);
    assert_int_equal(s->after.nice, s->before.nice);
}

static void a_thread_gets_short_slices_and_keeps_its_nice_value(void **state)
{
    struct seen s = { .policy = SCHED_OTHER, .nice = 15 };

    (void)state;
    run(&s);
    assert_int_equal(s.after.nice, 15);
    if (s.before.runtime_ns == 0)
        SKIP("this kernel has no slices of a thread's own (Linux 6.12)");
    assert_int_equal(s.after.runtime_ns, 400000);
}

static void a_policy_that_somebody_chose_stays_as_it_is(void **state)
{
    struct seen s = { .policy = SCHED_BATCH, .nice = 15 };

    (void)state;
    run(&s);
    assert_int_equal(s.after.policy, SCHED_BATCH);
    assert_int_equal(s.after.runtime_ns, s.before.runtime_ns);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_gets_short_slices_and_keeps_its_nice_value),
        cmocka_unit_test(a_policy_that_somebody_chose_stays_as_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
