/* fail_alloc.c - an allocator that fails when a test wants it (faults.md R2), for LD_PRELOAD.
 *
 * How it works. FAIL_ALLOC names a file of two 64-bit numbers that the test and the program share in memory: how many
 * allocations there have been, and which one is to fail, counted from 1; 0: none. The test may read and change both at any time.
 * Only that one allocation fails, with ENOMEM: what has to give up one thing must find memory for the next.
 *
 * What two libraries take is let pass, since nothing can be promised when it fails: libseccomp 2.5.4 frees twice when memory is out inside
 * seccomp_load(), and libnftables ends the process by itself.
 *
 * What is counted: malloc, calloc, realloc, aligned_alloc and posix_memalign of all threads, those of libraries included. What the
 * dynamic linker takes before this library is ready is neither counted nor failed. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct shared {
    _Atomic uint64_t count, fail_at;
};

static struct shared *shared; /* NULL: nothing is counted */

/* The C library's own functions under the names that it keeps for this purpose; dlsym() would allocate. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

__attribute__((constructor)) static void open_shared(void)
{
    const char *path = getenv("FAIL_ALLOC");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *at;

    if (fd < 0)
        return;
    at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED)
        shared = at;
}

static bool is_let_pass(const void *caller)
{
    Dl_info info;

    return dladdr(caller, &info) != 0 && info.dli_fname != NULL &&
           strstr(info.dli_fname, "libseccomp") != NULL;
}

static bool must_fail(const void *caller)
{
    if (shared == NULL || is_let_pass(caller))
        return false;
    if (atomic_fetch_add(&shared->count, 1) + 1 != atomic_load(&shared->fail_at))
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return must_fail(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return must_fail(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return must_fail(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return must_fail(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *p = must_fail(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);

    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}
