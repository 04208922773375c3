/* What the kernel says about this process, read without a call that allocates; and objects in chains. */

#ifndef PROCESS_H
#define PROCESS_H

#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>

#define MIB ((size_t)1 << 20)

/* Looks again and again until the condition holds; whether it did before patience ended. */
#define EVENTUALLY(condition) \
    ({ \
        double until_ = now_seconds() + PATIENCE; \
        int holds_; \
        while (!(holds_ = (condition)) && now_seconds() < until_) { \
            pause_briefly(); \
        } \
        holds_; \
    })

UNUSED static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

UNUSED static void pause_briefly(void) {
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

/* A file of up to 4 KiB as a string, in a static buffer; empty if it can't be read. */
UNUSED static const char *text_of(const char *path) {
    static __thread char text[4096];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0) {
        close(file);
    }
    text[length < 0 ? 0 : length] = '\0';
    return text;
}

/* Memory in the RAM that is not of files: the code of a library is as large as it was built, and not the heap's.
 * Exactly: `statm` leaves out what the kernel counts apart for each CPU. */
UNUSED static size_t anonymous_bytes(void) {
    const char *name = "\nAnonymous:";
    const char *line = strstr(text_of("/proc/self/smaps_rollup"), name);
    return line == NULL ? 0 : strtoul(line + strlen(name), NULL, 10) << 10;
}

UNUSED static size_t peak_rss_bytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (size_t)usage.ru_maxrss << 10;
}

/* A file about a thread of this process. */
UNUSED static const char *text_of_thread(long thread, const char *file) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/%s", thread, file);
    return text_of(path);
}

/* The numbers of the threads that there are; how many. */
UNUSED static int list_threads(long *threads, int most) {
    char names[4096];
    int count = 0;
    int directory = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(directory >= 0);
    for (;;) {
        long bytes = syscall(SYS_getdents64, directory, names, sizeof names);
        if (bytes <= 0) {
            break;
        }
        for (long at = 0; at < bytes;) {
            struct dirent64 *entry = (struct dirent64 *)(names + at);
            at += entry->d_reclen;
            if (entry->d_name[0] != '.' && count < most) {
                threads[count++] = atol(entry->d_name);
            }
        }
    }
    close(directory);
    return count;
}

enum { THREADS_MAX = 512 };

/* How many threads there are; of those called `name`, sets the number of one, or 0. */
UNUSED static int count_threads(const char *name, long *named) {
    long threads[THREADS_MAX];
    int count = list_threads(threads, THREADS_MAX);
    *named = 0;
    for (int i = 0; i < count; i++) {
        const char *comm = text_of_thread(threads[i], "comm");
        size_t length = strlen(name);
        if (strncmp(comm, name, length) == 0 && comm[length] == '\n') {
            *named = threads[i];
        }
    }
    return count;
}

/* What a thread does, as a letter: S if it waits, Z if it has ended and is still there. */
UNUSED static char state_of_thread(long thread) {
    const char *behind_name = strrchr(text_of_thread(thread, "stat"), ')');
    return behind_name == NULL ? '\0' : behind_name[2];
}

/* Whether all threads but the calling one wait. */
UNUSED static int others_wait(void) {
    long threads[THREADS_MAX], own = syscall(SYS_gettid);
    int count = list_threads(threads, THREADS_MAX);
    for (int i = 0; i < count; i++) {
        if (threads[i] != own && state_of_thread(threads[i]) != 'S') {
            return 0;
        }
    }
    return 1;
}

/* Objects of all sizes up to 64 KiB, each with its size and seed, and filled. */
struct object {
    struct object *next;
    size_t size;
    unsigned seed;
};

/* One object in front of the chain; false if there is no memory. */
UNUSED static int put_object(struct object **chain, size_t size, unsigned seed) {
    struct object *object = (struct object *)opaque(malloc(size));
    if (object == NULL) {
        return 0;
    }
    memset(object, (int)(seed & 0xff), size);
    *object = (struct object){*chain, size, seed};
    *chain = object;
    return 1;
}

/* About so many bytes, of each size about as many. */
UNUSED static void put_objects(struct object **chain, size_t bytes, unsigned *random) {
    for (size_t done = 0; done < bytes;) {
        size_t size = (size_t)32 << next_random(random) % 11;
        size += next_random(random) % size;
        for (size_t batch = 0; batch < 32768; batch += size) {
            CHECK(put_object(chain, size, next_random(random)));
            done += size;
        }
    }
}

/* Whether all objects are as they were filled. */
UNUSED static int are_whole(const struct object *chain) {
    for (; chain != NULL; chain = chain->next) {
        const char *rest = (const char *)(chain + 1);
        if (!is_filled(rest, chain->size - sizeof *chain, (unsigned char)chain->seed)) {
            return 0;
        }
    }
    return 1;
}

UNUSED static size_t bytes_of(const struct object *chain) {
    size_t bytes = 0;
    for (; chain != NULL; chain = chain->next) {
        bytes += chain->size;
    }
    return bytes;
}

UNUSED static void free_objects(struct object **chain) {
    CHECK(are_whole(*chain));
    while (*chain != NULL) {
        struct object *next = (*chain)->next;
        free(*chain);
        *chain = next;
    }
}

#endif
