/* Opens the library of its first argument late and calls it by name, beside the program's own malloc. */

#include "check.h"

enum { EARLY = 2, LATE = 4 };

static pthread_barrier_t opened;
static void *(*their_malloc)(size_t);
static void *(*their_calloc)(size_t, size_t);
static void *(*their_realloc)(void *, size_t);
static void (*their_free)(void *);
static size_t (*their_usable_size)(void *);
static char *from_main;

static void work(unsigned seed) {
    unsigned random = seed;
    char *objects[100] = {NULL};
    size_t sizes[100] = {0};
    for (int turn = 0; turn < 20000; turn++) {
        unsigned i = next_random(&random) % 100;
        if (objects[i] != NULL) {
            CHECK(is_painted(objects[i], sizes[i], i));
        }
        size_t size = next_random(&random) % (turn % 100 == 0 ? 100000 : 500) + 1;
        char *object;
        if (turn % 3 == 0) {
            object = their_realloc(objects[i], size);
            CHECK(objects[i] == NULL || is_painted(object, size < sizes[i] ? size : sizes[i], i));
        } else {
            their_free(objects[i]);
            object = turn % 3 == 1 ? their_malloc(size) : their_calloc(1, size);
            CHECK(turn % 3 == 1 || is_filled(object, size, 0));
        }
        CHECK(their_usable_size(object) >= size);
        paint(object, size, i);
        objects[i] = object;
        sizes[i] = size;
        /* The program's own heap is another. */
        free(opaque(malloc(size)));
    }
    for (int i = 0; i < 100; i++) {
        their_free(objects[i]);
    }
}

static void *early(void *argument) {
    free(opaque(malloc(100)));
    pthread_barrier_wait(&opened);
    work((unsigned)(uintptr_t)argument);
    return NULL;
}

static void *late(void *argument) {
    work((unsigned)(uintptr_t)argument);
    return their_malloc(50);
}

static void *only_free(void *argument) {
    their_free(argument);
    return NULL;
}

static void *find(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) {
        printf("no %s\n", name);
        exit(1);
    }
    return found;
}

static void *open_library(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        printf("%s\n", dlerror());
        exit(1);
    }
    their_malloc = (void *(*)(size_t))find(library, "malloc");
    their_calloc = (void *(*)(size_t, size_t))find(library, "calloc");
    their_realloc = (void *(*)(void *, size_t))find(library, "realloc");
    their_free = (void (*)(void *))find(library, "free");
    their_usable_size = (size_t(*)(void *))find(library, "malloc_usable_size");
    return library;
}

static void *use_and_wait(void *argument) {
    their_free(their_malloc(100));
    pthread_barrier_wait(&opened);
    pthread_barrier_wait(&opened);
    return argument;
}

/* Closes the library while a thread is there that has used it, and opens it again. */
static void close_and_open(const char *path) {
    void *library = open_library(path);
    work(3);
    pthread_t thread;
    pthread_barrier_init(&opened, NULL, 2);
    start(&thread, use_and_wait, NULL);
    pthread_barrier_wait(&opened);
    CHECK(dlclose(library) == 0);
    pthread_barrier_wait(&opened);
    pthread_join(thread, NULL);
    open_library(path);
    work(5);
}

int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[2], "close") == 0) {
        close_and_open(argv[1]);
        return end_of_checks();
    }
    pthread_t threads[EARLY + LATE];
    pthread_barrier_init(&opened, NULL, EARLY + 1);
    for (uintptr_t i = 0; i < EARLY; i++) {
        start(&threads[i], early, (void *)i);
    }
    void *library = open_library(argc > 1 ? argv[1] : "");
    CHECK((void *)their_malloc != (void *)malloc);
    pthread_barrier_wait(&opened);
    for (uintptr_t i = EARLY; i < EARLY + LATE; i++) {
        start(&threads[i], late, (void *)i);
    }
    work(99);
    for (int i = 0; i < EARLY + LATE; i++) {
        void *object = NULL;
        CHECK(pthread_join(threads[i], &object) == 0);
        CHECK((i >= EARLY) == (object != NULL));
        their_free(object);
    }
    from_main = their_malloc(70000);
    start(&threads[0], only_free, from_main);
    pthread_join(threads[0], NULL);

    return end_of_checks();
}
