/* While the library installs its handler of faults, by way of this program's own `sigaction`, another thread
 * forks. The child has guarded objects without waiting for who installs the handler, which it does not have. */

#include "check.h"

/* Enough for the slow calls of a start, in which nothing is guarded. */
enum { OBJECTS = 200000, CHILD_SECONDS = 20 };

static int installs;

static void allocate_slowly(void) {
    static void *objects[OBJECTS];
    for (int i = 0; i < OBJECTS; i++) {
        objects[i] = opaque(malloc(100));
        CHECK(objects[i] != NULL);
    }
    for (int i = 0; i < OBJECTS; i++) {
        free(objects[i]);
    }
}

static void *fork_one(void *argument) {
    pid_t child = fork();
    if (child == 0) {
        alarm(CHILD_SECONDS);
        allocate_slowly();
        _exit(check_failures != 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    return argument;
}

int sigaction(int number, const struct sigaction *action, struct sigaction *before) {
    int (*next)(int, const struct sigaction *, struct sigaction *) = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "sigaction");
    if (number == SIGSEGV && installs++ == 0) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, fork_one, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    return next(number, action, before);
}

int main(void) {
    allocate_slowly();
    CHECK(installs == 2); /* A look at what is there, and the handler. */
    return end_of_checks();
}
