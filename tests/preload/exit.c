/* The end of a process: atexit, .fini_array and pthread_exit in the main thread. */

#include <stdatomic.h>

#include "check.h"

static char *held[50];
static pthread_t main_thread;
static pthread_key_t key;
static atomic_int stop;

static void hold(void) {
    for (size_t i = 0; i < 50; i++) {
        held[i] = opaque(malloc(1 + i * i * i));
        paint(held[i], 1 + i * i * i, (unsigned)i);
    }
}

static void let_go(const char *name) {
    for (size_t i = 0; i < 50; i++) {
        CHECK(is_painted(held[i], 1 + i * i * i, (unsigned)i));
        free(held[i]);
    }
    hold();
    use_all_kinds(9);
    printf("%s: %s\n", name, check_failures == 0 ? "ok" : "FAILED");
    fflush(stdout);
}

__attribute__((destructor(101))) static void in_fini_array_last(void) {
    let_go("destructor that runs last");
}

__attribute__((destructor)) static void in_fini_array(void) {
    let_go("destructor");
}

static void at_exit(void) {
    let_go("atexit");
}

static void on_exit_too(int status, void *argument) {
    CHECK(status == 0);
    free(argument);
    let_go("on_exit");
}

static void *allocate_until_stopped(void *argument) {
    while (!atomic_load(&stop)) {
        free(opaque(malloc(100)));
        free(opaque(malloc(50000)));
    }
    return argument;
}

static void destroy_of_main(void *argument) {
    free(argument);
    use_all_kinds(1);
    printf("destructor of a key of the main thread\n");
}

static void *outlive_main(void *argument) {
    CHECK(pthread_join(main_thread, NULL) == 0);
    free(argument);
    use_all_kinds(2);
    let_go("after the main thread");
    atomic_store(&stop, 1);
    exit(end_of_checks());
}

int main(int argc, char **argv) {
    hold();
    atexit(at_exit);
    on_exit(on_exit_too, malloc(77));
    pthread_t others[3];
    for (int i = 0; i < 3; i++) {
        start(&others[i], allocate_until_stopped, NULL);
    }
    if (argc > 1 && strcmp(argv[1], "pthread_exit") == 0) {
        pthread_key_create(&key, destroy_of_main);
        pthread_setspecific(key, malloc(1000));
        main_thread = pthread_self();
        pthread_t thread;
        start(&thread, outlive_main, malloc(123));
        pthread_exit(NULL);
    }
    /* The others run on while the handlers do. */
    return end_of_checks();
}
