/* fork among locks of others: those of streams, and handlers that allocate. The argument says which. */

#include <stdatomic.h>

#include "check.h"

static atomic_int stop;
static atomic_long lines_read, flushes, turns;

/* The library's count of calls, by the kind of handler: before, in the parent, in the child. */
static int (*handler_calls)(int);

enum { LINE_BYTES = 200000, LINES = 5 };

/* Holds the lock of a stream while it allocates. */
static void *read_long_lines(void *argument) {
    FILE *file = argument;
    while (!atomic_load(&stop)) {
        rewind(file);
        for (int i = 0; i < LINES; i++) {
            char *line = NULL;
            size_t capacity = 0;
            CHECK(getline(&line, &capacity, file) == LINE_BYTES);
            free(line);
            atomic_fetch_add(&lines_read, 1);
        }
    }
    return NULL;
}

/* Holds the lock of the list of streams while it waits for that of each. */
static void *flush_all_streams(void *argument) {
    while (!atomic_load(&stop)) {
        fflush(NULL);
        atomic_fetch_add(&flushes, 1);
    }
    return argument;
}

static void *allocate_all_the_time(void *argument) {
    char *objects[32] = {NULL};
    unsigned random = (unsigned)(uintptr_t)argument;
    while (!atomic_load(&stop)) {
        unsigned i = next_random(&random) % 32;
        free(objects[i]);
        objects[i] = malloc(1 + next_random(&random) % (i % 8 == 0 ? 200000 : 3000));
        *(volatile char *)objects[i] = 1;
        atomic_fetch_add(&turns, 1);
    }
    for (int i = 0; i < 32; i++) {
        free(objects[i]);
    }
    return NULL;
}

static void fork_often(int forks) {
    for (int i = 0; i < forks; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(PATIENCE);
            char *object = malloc(5000);
            int bad = opaque(object) == NULL || (handler_calls != NULL && handler_calls(2) == 0);
            free(object);
            object = malloc(100000);
            bad |= opaque(object) == NULL;
            free(object);
            _exit(bad | (check_failures != 0));
        }
        int status = -1;
        CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    }
}

static void fork_among_streams(void) {
    FILE *file = tmpfile();
    CHECK(file != NULL);
    for (int i = 1; i <= LINES * LINE_BYTES; i++) {
        putc(i % LINE_BYTES == 0 ? '\n' : 'x', file);
    }
    fflush(NULL);
    pthread_t threads[2];
    start(&threads[0], read_long_lines, file);
    start(&threads[1], flush_all_streams, NULL);
    while (atomic_load(&lines_read) == 0 || atomic_load(&flushes) == 0) {
        sched_yield();
    }
    fork_often(200);
    atomic_store(&stop, 1);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    fclose(file);
}

static void fork_with_handlers(void) {
    handler_calls = (int (*)(int))dlsym(RTLD_DEFAULT, "forks_handler_calls");
    CHECK(handler_calls != NULL);
    if (handler_calls == NULL) {
        return;
    }
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        start(&threads[i], allocate_all_the_time, (void *)(uintptr_t)i);
    }
    while (atomic_load(&turns) < 1000) {
        sched_yield();
    }
    fork_often(60);
    atomic_store(&stop, 1);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("  handlers: %d calls before, %d in the parent\n", handler_calls(0), handler_calls(1));
}

/* The C library's list of handlers grows, which allocates under its lock. */
static void register_handlers(void) {
    int failed = 0;
    for (int i = 0; i < 100; i++) {
        failed += pthread_atfork(NULL, NULL, NULL) != 0;
    }
    CHECK(failed == 0);
    fork_often(3);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "streams") == 0) {
        RUN(fork_among_streams);
    } else if (strcmp(mode, "handlers") == 0) {
        RUN(fork_with_handlers);
    } else if (strcmp(mode, "register") == 0) {
        RUN(register_handlers);
    } else {
        return 2;
    }
    return end_of_checks();
}
