/* A program in C that opens a library in C++, whose runtime is then visible to that library alone. */

#include "check.h"

static int (*library)(void);

static void library_in_cpp(void) {
    CHECK(library != NULL && library() == 0);
}

int main(int argc, char **argv) {
    CHECK(argc > 1 && dlsym(RTLD_DEFAULT, "__cxa_throw") == NULL);
    void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        printf("  %s\n", dlerror());
    } else {
        library = (int (*)(void))dlsym(handle, "library_failures");
    }
    RUN(library_in_cpp);
    use_all_kinds(1);
    return end_of_checks();
}
