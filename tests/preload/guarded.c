/* Does what its argument says with a guarded object, and tells the addresses before. */

#include <setjmp.h>
#include <sys/mman.h>

#include "check.h"

#define NOINLINE __attribute__((noinline, noclone))

NOINLINE char *allocates(size_t size) {
    char *object = malloc(size);
    return opaque(object);
}

NOINLINE void frees(void *object) {
    free(opaque(object));
    __asm__ volatile("");
}

NOINLINE void writes(volatile char *object, long offset) {
    object[offset] = 1;
}

/* A guarded object: its usable size is what was asked for, which is no size of a class. */
static char *guarded(size_t size) {
    for (int i = 0; i < 100000; i++) {
        char *object = allocates(size);
        if (malloc_usable_size(object) == size) {
            return object;
        }
    }
    printf("FAILED: nothing is guarded\n");
    exit(1);
}

/* One that ends where its page does, or begins there. */
static char *guarded_at(size_t size, int end) {
    for (;;) {
        char *object = guarded(size);
        size_t page = (size_t)getpagesize();
        size_t in_page = (uintptr_t)object % page;
        if (end ? in_page + size == page : in_page == 0) {
            return object;
        }
        frees(object);
    }
}

static char *told(char *object, long offset) {
    printf("object: %p\naddress: %p\n", (void *)object, (void *)(object + offset));
    fflush(stdout);
    return object;
}

static sigjmp_buf back;
static volatile int seen;

static void jumps(int number) {
    seen = number;
    siglongjmp(back, 1);
}

static void tells(int number, siginfo_t *info, void *context) {
    (void)context;
    seen = number;
    char text[64];
    int len = snprintf(text, sizeof text, "handler: %p\n", info->si_addr);
    ssize_t written = write(1, text, (size_t)len);
    _exit(written == len ? 44 : 45);
}

static void *touches_freed(void *object) {
    writes(object, 16);
    return NULL;
}

static void handle(void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigaction(SIGSEGV, &action, NULL);
}

static void handlers(const char *when) {
    if (strcmp(when, "before") == 0) {
        struct sigaction action = {.sa_sigaction = tells, .sa_flags = SA_SIGINFO};
        sigaction(SIGSEGV, &action, NULL);
    }
    char *object = guarded(1000);
    if (strcmp(when, "after") == 0) {
        struct sigaction action = {.sa_sigaction = tells, .sa_flags = SA_SIGINFO};
        sigaction(SIGSEGV, &action, NULL);
    }
    frees(object);
    writes(told(object, 16), 16);
}

/* A handler from before that goes on elsewhere is called each time, for other faults as well. */
static void recovers(int flags) {
    handle(jumps, flags);
    char *object = guarded(1000);
    frees(object);
    char *nobodys = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 4; i++) {
        seen = 0;
        if (sigsetjmp(back, 1) == 0) {
            writes(i % 2 ? object : nobodys, 0);
            CHECK(!"the access failed");
        }
        CHECK(seen == SIGSEGV);
    }
    told(object, 0);
    seen = 0;
    if (sigsetjmp(back, 1) == 0) {
        raise(SIGSEGV);
    }
    CHECK(seen == SIGSEGV);
}

/* What is not to be reported is as without the library. */
static void others(const char *how) {
    CHECK(guarded(1000) != NULL);
    if (strcmp(how, "null") == 0) {
        writes(NULL, 8);
    } else if (strcmp(how, "sent") == 0) {
        raise(SIGSEGV);
    }
}

static void correct(void) {
    for (size_t size = 1; size <= 5000; size += size / 7 + 1) {
        for (int i = 0; i < 8; i++) {
            char *object = malloc(size);
            CHECK(((uintptr_t)object & (size <= 8 ? 7 : 15)) == 0);
            CHECK(malloc_usable_size(object) >= size);
            memset(object, 0xff, malloc_usable_size(object));
            char *grown = realloc(object, size + 1);
            CHECK(grown[size - 1] == (char)0xff);
            grown[size] = 1;
            char *shrunk = realloc(grown, size / 3 + 1);
            CHECK(shrunk[size / 3 == size ? 0 : size / 3] == (char)0xff);
            free(shrunk);
            char *zero = calloc(size, 1);
            for (size_t at = 0; at < size; at++) {
                CHECK(zero[at] == 0);
            }
            memset(zero, 1, size);
            free(zero);
            for (size_t align = 32; align <= 8192; align *= 2) {
                char *aligned = aligned_alloc(align, size);
                CHECK(((uintptr_t)aligned & (align - 1)) == 0);
                memset(aligned, 1, size);
                free(aligned);
            }
        }
    }
    char *object = guarded(999);
    errno = 1234;
    frees(object);
    CHECK(errno == 1234);
}

static void *works(void *argument) {
    (void)argument;
    for (int round = 0; round < 50; round++) {
        char *objects[100];
        for (int i = 0; i < 100; i++) {
            size_t size = (size_t)(1 + (round * 37 + i * 101) % 4096);
            objects[i] = malloc(size);
            memset(objects[i], i, size);
        }
        for (int i = 0; i < 100; i++) {
            CHECK(objects[i][0] == (char)i);
            free(objects[i]);
        }
    }
    return NULL;
}

static void threads(void) {
    pthread_t workers[16];
    for (int i = 0; i < 16; i++) {
        start(&workers[i], works, NULL);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(workers[i], NULL);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const char *how = argc > 2 ? argv[2] : "";
    if (strcmp(what, "overflow") == 0) {
        char *object = told(guarded_at(1008, 1), 1008);
        writes(object, 1008);
    } else if (strcmp(what, "underflow") == 0) {
        char *object = told(guarded_at(1000, 0), -1);
        writes(object, -1);
    } else if (strcmp(what, "overflow-seen-late") == 0) {
        char *object = told(guarded(1000), 1000);
        writes(object, 1000);
        frees(object);
    } else if (strcmp(what, "underflow-seen-late") == 0) {
        char *object = told(guarded_at(1008, 1), -3);
        writes(object, -3);
        frees(object);
    } else if (strcmp(what, "use-after-free") == 0) {
        char *object = guarded(1000);
        frees(object);
        writes(told(object, 16), 16);
    } else if (strcmp(what, "use-after-free-in-thread") == 0) {
        char *object = guarded(1000);
        frees(object);
        pthread_t thread;
        start(&thread, touches_freed, told(object, 16));
        pthread_join(thread, NULL);
    } else if (strcmp(what, "use-after-free-in-child") == 0) {
        char *object = guarded(1000);
        frees(object);
        told(object, 16);
        pid_t child = fork();
        if (child == 0) {
            writes(object, 16);
            _exit(1);
        }
        int status;
        waitpid(child, &status, 0);
        raise(WTERMSIG(status));
    } else if (strcmp(what, "twice") == 0) {
        char *object = guarded(1000);
        frees(object);
        frees(told(object, 0));
    } else if (strcmp(what, "middle") == 0) {
        char *object = told(guarded(1000), 16);
        frees(object + 16);
    } else if (strcmp(what, "resized") == 0) {
        char *object = guarded(1000);
        frees(object);
        object = realloc(told(object, 0), 2000);
    } else if (strcmp(what, "wrong-size") == 0) {
        void (*free_sized)(void *, size_t) = (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized");
        free_sized(told(guarded(1000), 0), 1001);
    } else if (strcmp(what, "handler") == 0) {
        handlers(how);
    } else if (strcmp(what, "recovers") == 0) {
        recovers(strcmp(how, "nodefer") == 0 ? SA_NODEFER : 0);
    } else if (strcmp(what, "once") == 0) {
        handle(jumps, (int)SA_RESETHAND);
        CHECK(guarded(1000) != NULL);
        if (sigsetjmp(back, 1) == 0) {
            raise(SIGSEGV);
        }
        CHECK(seen == SIGSEGV);
        struct sigaction now;
        sigaction(SIGSEGV, NULL, &now);
        CHECK(now.sa_handler == SIG_DFL);
    } else if (strcmp(what, "ignored") == 0) {
        handle(SIG_IGN, 0);
        CHECK(guarded(1000) != NULL);
        raise(SIGSEGV);
    } else if (strcmp(what, "other") == 0) {
        others(how);
    } else if (strcmp(what, "correct") == 0) {
        correct();
    } else if (strcmp(what, "threads") == 0) {
        threads();
    }
    return end_of_checks();
}
