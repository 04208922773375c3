/* A layer between the allocator and the system, preloaded before it: refuses calls at random.
 *
 * The library calls these functions of the C library by its table of relocations, so that those here
 * come first. Only what it calls itself is refused: a call from elsewhere goes through, unless there is no
 * such library, as a program has the allocator inside. Settings come from the environment:
 *
 *   REFUSE_SEED    of the numbers that decide (1)
 *   REFUSE_ONE_IN  refuses one call in so many, if not 0 (0)
 *   REFUSE_AFTER   not before so many calls (0)
 *   REFUSE_FROM    refuses all from this one on, counted from 1 (0: none)
 *   REFUSE_COUNT   but at most so many (1)
 *   REFUSE_CALLS   which, by name; else all but wake (all)
 *
 * The names are mmap munmap madvise mprotect mremap wait wake membarrier thread. `wait` and `wake` are
 * those of futex: a wait that is refused returns early, as it may; that a wake is refused does not
 * happen on Linux, and the library has to end the process, as somebody might sleep for ever.
 *
 * `refused_calls` gives their number, which programs look up by name. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* A system call, without the C library, whose functions are replaced here. */
static long call_kernel(long number, long a, long b, long c, long d, long e, long f) {
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    result = x0;
#else
#error "no system calls are known for this processor"
#endif
    if (result < 0 && result >= -4095) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

static struct {
    uint64_t seed, one_in, after, from, count;
    const char *calls;
    /* The library's code. */
    uintptr_t start, end;
} settings;

static atomic_int settings_state; /* 0, being read, or there. */
static atomic_ulong calls_seen, calls_refused;

unsigned long refused_calls(void) {
    return atomic_load(&calls_refused);
}

/* `getenv` need not work yet when the first call comes; the environment does. */
static const char *look_up(const char *name) {
    extern char **environ;
    size_t length = strlen(name);
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') {
            return *entry + length + 1;
        }
    }
    return NULL;
}

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = look_up(name);
    uint64_t value = 0;
    for (; text != NULL && *text >= '0' && *text <= '9'; text++) {
        value = 10 * value + (uint64_t)(*text - '0');
        otherwise = value;
    }
    return otherwise;
}

static int find_library(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    (void)data;
    const char *name = strrchr(info->dlpi_name, '/');
    if (name == NULL || strcmp(name, "/libspanmalloc.so") != 0) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && part->p_flags & PF_X) {
            settings.start = info->dlpi_addr + part->p_vaddr;
            settings.end = settings.start + part->p_memsz;
        }
    }
    return 1;
}

/* The first call comes before there are threads; a later one must not read half of it all the same. */
static int has_settings(void) {
    int unread = 0;
    if (atomic_compare_exchange_strong(&settings_state, &unread, 1)) {
        settings.seed = number("REFUSE_SEED", 1);
        settings.one_in = number("REFUSE_ONE_IN", 0);
        settings.after = number("REFUSE_AFTER", 0);
        settings.from = number("REFUSE_FROM", 0);
        settings.count = number("REFUSE_COUNT", 1);
        settings.calls = look_up("REFUSE_CALLS");
        dl_iterate_phdr(find_library, NULL);
        atomic_store(&settings_state, 2);
    }
    return atomic_load(&settings_state) == 2;
}

/* Whether `name` is one of the words of a text. */
static int has_word(const char *text, const char *name) {
    size_t length = strlen(name);
    for (const char *word = text; (word = strstr(word, name)) != NULL; word += length) {
        int begins = word == text || word[-1] == ' ';
        if (begins && (word[length] == ' ' || word[length] == 0)) {
            return 1;
        }
    }
    return 0;
}

/* Whether this call, from this place, is refused. */
static int is_refused(const char *name, void *caller) {
    if (!has_settings()) {
        return 0;
    }
    uintptr_t place = (uintptr_t)caller;
    int is_meant = settings.calls != NULL ? has_word(settings.calls, name) : strcmp(name, "wake") != 0;
    int is_ours = settings.end == 0 || (place >= settings.start && place < settings.end);
    if (!is_ours || !is_meant) {
        return 0;
    }
    uint64_t nth = atomic_fetch_add(&calls_seen, 1) + 1;
    int refused = settings.from != 0 && nth >= settings.from && nth - settings.from < settings.count;
    if (settings.one_in != 0 && nth > settings.after) {
        /* By the number of the call, so that no state is shared. */
        uint64_t mixed = (nth + settings.seed * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
        mixed = (mixed ^ mixed >> 31) * 0x94d049bb133111ebu;
        refused |= (mixed >> 32) % settings.one_in == 0;
    }
    atomic_fetch_add(&calls_refused, (unsigned long)refused);
    return refused;
}

#define REFUSE(name, code, result) \
    do { \
        if (is_refused(name, __builtin_return_address(0))) { \
            errno = code; \
            return result; \
        } \
    } while (0)

void *mmap(void *place, size_t bytes, int protection, int flags, int file, off_t offset) {
    REFUSE("mmap", ENOMEM, MAP_FAILED);
    return (void *)call_kernel(SYS_mmap, (long)place, (long)bytes, protection, flags, file, offset);
}

void *mmap64(void *place, size_t bytes, int protection, int flags, int file, off64_t offset) {
    REFUSE("mmap", ENOMEM, MAP_FAILED);
    return (void *)call_kernel(SYS_mmap, (long)place, (long)bytes, protection, flags, file, offset);
}

int munmap(void *place, size_t bytes) {
    REFUSE("munmap", ENOMEM, -1);
    return (int)call_kernel(SYS_munmap, (long)place, (long)bytes, 0, 0, 0, 0);
}

int madvise(void *place, size_t bytes, int advice) {
    REFUSE("madvise", EAGAIN, -1);
    return (int)call_kernel(SYS_madvise, (long)place, (long)bytes, advice, 0, 0, 0);
}

int mprotect(void *place, size_t bytes, int protection) {
    REFUSE("mprotect", ENOMEM, -1);
    return (int)call_kernel(SYS_mprotect, (long)place, (long)bytes, protection, 0, 0, 0);
}

void *mremap(void *place, size_t old_bytes, size_t new_bytes, int flags, ...) {
    va_list list;
    va_start(list, flags);
    void *target = flags & MREMAP_FIXED ? va_arg(list, void *) : NULL;
    va_end(list);
    if (is_refused("mremap", __builtin_return_address(0))) {
        if (flags & MREMAP_FIXED) {
            /* The kernel makes room before it can fail. */
            call_kernel(SYS_munmap, (long)target, (long)new_bytes, 0, 0, 0, 0);
        }
        errno = ENOMEM;
        return MAP_FAILED;
    }
    long new_place = call_kernel(
        SYS_mremap, (long)place, (long)old_bytes, (long)new_bytes, flags, (long)target, 0);
    return (void *)new_place;
}

long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a[6];
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    if (number == SYS_membarrier) {
        REFUSE("membarrier", ENOSYS, -1);
    } else if (number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT) {
        REFUSE("wait", EINTR, -1);
    } else if (number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAKE) {
        REFUSE("wake", EINVAL, -1);
    }
    return call_kernel(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
    if (is_refused("thread", __builtin_return_address(0))) {
        return EAGAIN;
    }
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    return next(thread, attributes, body, argument);
}
