/* crash.h - one line about a crash, before the process dies of it with a core (faults.md X5). [main, before the first thread]
 * Builds with a sanitizer leave that to it. */
#ifndef CULVERT_APP_CRASH_H
#define CULVERT_APP_CRASH_H

/** crash_banner() - from now on SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT say on stderr who, where and what, with the stack where
 * the C library can show it, and then do what they did before */
void crash_banner(void);

#endif
