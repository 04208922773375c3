/* Allocates before main: in .preinit_array, which runs before all constructors of libraries, and in
 * constructors. */

#include "check.h"

extern int boot_library_failures(void) __attribute__((weak));

static char *early_object;
static int early_failures;

static void preinit(int argc, char **argv, char **environment) {
    /* The C library has no environment yet, and may say so. */
    const char *value = getenv("BOOT_TEST");
    early_failures += value != NULL && strcmp(value, "set") != 0;
    early_failures += argc < 1 || argv[0] == NULL || environment == NULL;
    early_object = opaque(malloc(100));
    early_failures += early_object == NULL;
    paint(early_object, 100, 1);
    early_object = opaque(realloc(early_object, 50000));
    early_failures += early_object == NULL || !is_painted(early_object, 100, 1);
    void *zeroed = opaque(calloc(100, 100));
    early_failures += zeroed == NULL || !is_filled(zeroed, 10000, 0);
    free(zeroed);
    void *aligned = NULL;
    early_failures += posix_memalign(&aligned, 4096, 10) != 0 || !is_aligned(aligned, 4096);
    free(aligned);
    errno = 1234;
    free(opaque(malloc(10)));
    early_failures += errno != 1234;
}

__attribute__((section(".preinit_array"), used)) static void (*const at_preinit)(int, char **, char **) =
    preinit;

__attribute__((constructor(101))) static void first_constructor(void) {
    CHECK(getenv("BOOT_TEST") != NULL);
    CHECK(early_object != NULL && is_painted(early_object, 100, 1));
    use_all_kinds(1);
}

int main(void) {
    printf("preinit: %d failures\n", early_failures);
    CHECK(early_failures == 0);
    CHECK(boot_library_failures != NULL && boot_library_failures() == 0);
    CHECK(is_painted(early_object, 100, 1));
    free(early_object);
    use_all_kinds(2);
    return end_of_checks();
}
