/* What the programs here share: checks that print what failed, and a watchdog.
 *
 * A program runs cases, each of which prints `name: ok` or `name: FAILED`. With the argument `ours` it
 * also checks what this allocator promises beyond the standards; the lines it prints are the same. */

#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

static int check_failures;
UNUSED static int check_ours;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            check_fail(__FILE__, __LINE__, #condition); \
        } \
    } while (0)

#define RUN(name) run_case(#name, name)

/* Seconds for what has to happen: many times what it takes, since the machine may be busy. */
#define PATIENCE 120

/* A deadlock ends the program. A child of a fork has to set its own alarm. */
__attribute__((constructor)) static void watchdog(void) {
    alarm(3 * PATIENCE);
}

UNUSED static void check_fail(const char *file, int line, const char *condition) {
    /* A loop that fails need not fill the report. */
    if (__atomic_fetch_add(&check_failures, 1, __ATOMIC_RELAXED) < 40) {
        printf("  %s:%d: %s (errno %d)\n", file, line, condition, errno);
        fflush(stdout);
    }
}

UNUSED static void run_case(const char *name, void (*body)(void)) {
    int before = check_failures;
    body();
    printf("%s: %s\n", name, check_failures == before ? "ok" : "FAILED");
    fflush(stdout);
}

/* The last line shows that the program came to its end. */
UNUSED static int end_of_checks(void) {
    printf("end: %d failures\n", check_failures);
    fflush(stdout);
    return check_failures != 0;
}

/* The same pointer; the compiler knows nothing about it any more. */
UNUSED static void *opaque(void *pointer) {
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

UNUSED static size_t opaque_size(size_t size) {
    __asm__ volatile("" : "+r"(size));
    return size;
}

UNUSED static int is_aligned(const void *pointer, size_t align) {
    return (uintptr_t)pointer % align == 0;
}

/* Bytes that depend on their place and on `seed`. */
UNUSED static void paint(void *object, size_t size, unsigned seed) {
    unsigned char *bytes = (unsigned char *)object;
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)(seed + i * 7 + (i >> 8));
    }
}

UNUSED static int is_painted(const void *object, size_t size, unsigned seed) {
    const unsigned char *bytes = (const unsigned char *)object;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != (unsigned char)(seed + i * 7 + (i >> 8))) {
            return 0;
        }
    }
    return 1;
}

UNUSED static int is_filled(const void *object, size_t size, unsigned char byte) {
    const unsigned char *bytes = (const unsigned char *)object;
    return size == 0 || (bytes[0] == byte && memcmp(bytes, bytes + 1, size - 1) == 0);
}

UNUSED static unsigned next_random(unsigned *state) {
    *state = *state * 1103515245u + 12345u;
    return *state >> 8;
}

/* How much of an object is painted where all of it would take too long. */
UNUSED static size_t first_bytes(size_t size) {
    return size < 2000 ? size : 2000;
}

/* Allocates, writes and frees every kind of object. */
UNUSED static void use_all_kinds(unsigned seed) {
    static const size_t sizes[] = {0, 1, 3, 8, 24, 100, 1000, 8000, 32768, 40000, 300000, 3 << 20};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    char *objects[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        objects[i] = (char *)opaque(malloc(sizes[i]));
        CHECK(objects[i] != NULL);
        paint(objects[i], first_bytes(sizes[i]), seed + i);
    }
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(is_painted(objects[i], first_bytes(sizes[i]), seed + i));
        char *grown = (char *)opaque(realloc(objects[i], 2 * sizes[i] + 1));
        CHECK(grown != NULL && is_painted(grown, first_bytes(sizes[i]), seed + i));
        grown[2 * sizes[i]] = 1;
        free(grown);
    }
    void *zeroed = opaque(calloc(3, 333));
    CHECK(zeroed != NULL && is_filled(zeroed, 999, 0));
    free(zeroed);
    void *aligned = NULL;
    CHECK(posix_memalign(&aligned, 4096, 100) == 0 && is_aligned(aligned, 4096));
    free(aligned);
    void *huge = opaque(malloc((size_t)80 << 20));
    CHECK(huge != NULL);
    if (huge != NULL) {
        *(volatile char *)huge = 1;
    }
    free(huge);
}

/* Memory of this process in the RAM, in KiB.*/
UNUSED static long resident_kib(void) {
    char text[4096];
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    long kib = -1;
    while (file != NULL && fgets(text, sizeof text, file) != NULL) {
        if (sscanf(text, "Rss: %ld kB", &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kib;
}

/* Limits the address space to what is mapped, and this much more. */
UNUSED static void limit_growth(size_t bytes) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld", &pages) == 1);
    if (file != NULL) {
        fclose(file);
    }
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + bytes;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* Runs the case in a child, whose limits and memory are its own. */
UNUSED static void in_child(void (*body)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(PATIENCE);
        check_failures = 0;
        body();
        _exit(check_failures != 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

UNUSED static void start(pthread_t *thread, void *(*body)(void *), void *argument) {
    if (pthread_create(thread, NULL, body, argument) != 0) {
        perror("pthread_create");
        exit(2);
    }
}

#endif
