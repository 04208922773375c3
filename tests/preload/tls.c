/* Opens the libraries of its arguments, whose thread-local memory the loader gets by malloc. */

#include "check.h"

enum { LIBRARIES_MAX = 16, THREADS = 12 };

static void (*uses[LIBRARIES_MAX])(unsigned);
static int count;
static pthread_barrier_t opened;

static void *use_all(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    free(opaque(malloc(10)));
    pthread_barrier_wait(&opened);
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < count; i++) {
            uses[i](seed);
        }
        use_all_kinds(seed);
    }
    return NULL;
}

static void run_threads(int started_before, char **paths) {
    pthread_t threads[THREADS];
    pthread_barrier_init(&opened, NULL, THREADS + 1);
    for (uintptr_t i = 0; i < THREADS; i++) {
        start(&threads[i], use_all, (void *)i);
    }
    for (int i = 0; started_before && paths[i] != NULL && i < LIBRARIES_MAX; i++) {
        void *library = dlopen(paths[i], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            printf("%s\n", dlerror());
            exit(1);
        }
        uses[count++] = (void (*)(unsigned))dlsym(library, "use_thread_locals");
    }
    pthread_barrier_wait(&opened);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

int main(int argc, char **argv) {
    run_threads(1, argv + 1);
    CHECK(count == argc - 1 && count > 0);
    for (int turn = 0; turn < 2; turn++) {
        run_threads(0, argv + 1);
    }
    for (int i = 0; i < count; i++) {
        uses[i](7);
    }
    return end_of_checks();
}
