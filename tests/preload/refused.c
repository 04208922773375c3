/* What becomes of memory that the system does not take back: huge objects are filled and freed, while
 * `munmap` is refused. */

#include "check.h"

static void memory_that_cannot_be_unmapped_goes_back(void) {
    for (int i = 0; i < 12; i++) {
        const size_t bytes = (size_t)80 << 20;
        char *object = opaque(malloc(bytes));
        CHECK(object != NULL);
        memset(object, 1, bytes);
        object = opaque(realloc(object, bytes / 2));
        CHECK(is_filled(object, bytes / 2, 1));
        free(object);
    }
    CHECK(resident_kib() < 100000);
}

int main(void) {
    unsigned long (*refused)(void);
    *(void **)&refused = dlsym(RTLD_DEFAULT, "refused_calls");
    RUN(memory_that_cannot_be_unmapped_goes_back);
    CHECK(refused != NULL && refused() >= 12);
    return end_of_checks();
}
