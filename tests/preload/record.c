/* Calls of every kind, with sizes that nothing else has, for the recorder. Tells what is to be found. */

#include "check.h"

static void told(const char *what, size_t size) {
    printf("%s: %zu\n", what, size);
}

static void *in_thread(void *argument) {
    void *object = opaque(malloc(5557));
    told("alloc", 5557);
    free(object);
    told("free", 0);
    free(argument);
    told("free", 0);
    return opaque(malloc(6007));
}

int main(int argc, char **argv) {
    /* Output allocates; not later. */
    static char buffer[4096];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    (void)argc;
    (void)argv;
    void *small = opaque(malloc(1237));
    told("alloc", 1237);
    void *zeroed = opaque(calloc(7, 191));
    told("zeroed", 7 * 191);
    void *large = opaque(malloc(77777));
    told("alloc", 77777);
    void *zeroed_large = opaque(calloc(3, 44444));
    told("zeroed", 3 * 44444);
    void *huge = opaque(malloc((size_t)100000001));
    told("alloc", 100000001);
    void *aligned = NULL;
    CHECK(posix_memalign(&aligned, 4096, 2003) == 0);
    told("aligned", 2003);
    /* In its place, to another place, of whole pages, that fails, that is none. */
    small = opaque(realloc(small, 1229));
    told("resized", 1229);
    small = opaque(realloc(small, 3011));
    told("resized", 3011);
    large = opaque(realloc(large, 300007));
    told("resized", 300007);
    huge = opaque(realloc(huge, (size_t)150000001));
    told("resized", 150000001);
    CHECK(realloc(small, SIZE_MAX / 2 - 100) == NULL);
    told("failed", 0);
    void *fresh = opaque(realloc(NULL, 4001));
    told("alloc", 4001);
    CHECK(realloc(fresh, 0) == NULL);
    told("free", 0);
    free(NULL);
    free(zeroed);
    told("free", 0);
    free(zeroed_large);
    told("free", 0);
    free(aligned);
    told("free", 0);
    fflush(stdout);

    /* Nothing of a child. */
    pid_t child = fork();
    if (child == 0) {
        free(opaque(malloc(9973)));
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);

    void *of_main = opaque(malloc(4999));
    told("alloc", 4999);
    pthread_t thread;
    void *of_thread = NULL;
    start(&thread, in_thread, of_main);
    CHECK(pthread_join(thread, &of_thread) == 0);
    told("alloc", 6007);
    free(of_thread);
    told("free", 0);
    free(small);
    free(large);
    free(huge);
    end_of_checks();
    /* Nobody is asked to write anything out. */
    _exit(check_failures != 0);
}
