/* Preloaded with the allocator, before or behind it: allocates in its constructor and destructor. */

#include "check.h"

int boot_library_failures(void);

static char *early_object;

__attribute__((constructor(101))) static void first(void) {
    CHECK(getenv("BOOT_TEST") != NULL);
    early_object = opaque(malloc(300));
    CHECK(early_object != NULL);
    paint(early_object, 300, 3);
    early_object = opaque(realloc(early_object, 3000));
    CHECK(is_painted(early_object, 300, 3));
    CHECK(setenv("BOOT_TEST_TOO", "a value", 1) == 0);
    use_all_kinds(1);
}

__attribute__((destructor(101))) static void last(void) {
    free(early_object);
    use_all_kinds(2);
}

int boot_library_failures(void) {
    CHECK(early_object != NULL && is_painted(early_object, 300, 3));
    CHECK(strcmp(getenv("BOOT_TEST_TOO"), "a value") == 0);
    return check_failures;
}
