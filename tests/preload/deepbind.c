/* Exchanges memory with a library that looks up its functions in its own dependencies first. */

#include "check.h"

int main(int argc, char **argv) {
    void *library = dlopen(argc > 1 ? argv[1] : "", RTLD_NOW | RTLD_DEEPBIND);
    if (library == NULL) {
        printf("%s\n", dlerror());
        return 1;
    }
    void *(*allocate)(size_t) = (void *(*)(size_t))dlsym(library, "allocate");
    void (*release)(void *) = (void (*)(void *))dlsym(library, "release");
    char *(*copy)(const char *) = (char *(*)(const char *))dlsym(library, "copy");

    /* Inside of the C library malloc is the program's. */
    for (int i = 0; i < 1000; i++) {
        char *text = copy("made by strdup");
        CHECK(strcmp(text, "made by strdup") == 0);
        free(opaque(text));
    }
    char *object = allocate(100);
    CHECK(object != NULL);
    printf("address: %p\n", (void *)object);
    paint(object, 100, 1);
    free(opaque(object));
    for (int i = 0; i < 1000; i++) {
        free(opaque(allocate((size_t)i * 100)));
    }
    release(allocate(1000));
    release(NULL);
    use_all_kinds(1);
    return end_of_checks();
}
