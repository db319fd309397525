/* crash.c - the banner of a crash. Only functions that a signal handler may call; the stack's symbols come from the C library, which
 * was made to load what it needs for them beforehand. */
#include "crash.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

void crash_banner(void) {}

#else

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <execinfo.h>
#endif

enum { FRAMES_MAX = 32 };

static size_t put_text(char *out, size_t at, size_t cap, const char *text)
{
    for (; *text != '\0' && at < cap; text++)
        out[at++] = *text;
    return at;
}

static size_t put_number(char *out, size_t at, size_t cap, uint64_t n, unsigned base)
{
    char digits[20];
    size_t count = 0;

    do
        digits[count++] = "0123456789abcdef"[n % base];
    while ((n /= base) != 0 && count < sizeof(digits));
    while (count > 0 && at < cap)
        out[at++] = digits[--count];
    return at;
}

static void on_crash(int signo, siginfo_t *info, void *context)
{
    char line[160], thread[17] = "?";
    size_t n;

    (void)context;
    (void)prctl(PR_GET_NAME, thread);
    n = put_text(line, 0, sizeof(line) - 1, "culvert " CULVERT_VERSION " crashed: signal ");
    n = put_number(line, n, sizeof(line) - 1, (uint64_t)signo, 10);
    n = put_text(line, n, sizeof(line) - 1, " in thread ");
    n = put_text(line, n, sizeof(line) - 1, thread);
    if (signo == SIGSEGV || signo == SIGBUS) {
        n = put_text(line, n, sizeof(line) - 1, ", address 0x");
        n = put_number(line, n, sizeof(line) - 1, (uintptr_t)info->si_addr, 16);
    }
    line[n++] = '\n';
    (void)!write(STDERR_FILENO, line, n);
#ifdef __GLIBC__
    {
        void *frame[FRAMES_MAX];

        backtrace_symbols_fd(frame, backtrace(frame, FRAMES_MAX), STDERR_FILENO);
    }
#endif
    raise(signo); /* SA_RESETHAND: the default action, a core, once we return */
}

void crash_banner(void)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
    struct sigaction act = { .sa_sigaction = on_crash,
                             .sa_flags = SA_SIGINFO | (int)SA_RESETHAND | SA_ONSTACK };

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &act, NULL);
#ifdef __GLIBC__
    {
        void *frame[1];

        (void)backtrace(frame, 1); /* loads its library now */
    }
#endif
}

#endif
