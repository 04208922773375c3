/* Objects of no bytes: addresses of their own, which must not be accessed. */

#include <setjmp.h>
#include <signal.h>

#include "check.h"

#define MANY 5000

static sigjmp_buf before;
static char *objects[MANY];

static void on_fault(int signal) {
    (void)signal;
    siglongjmp(before, 1);
}

/* Whether a read of a byte faults. */
static int faults(const char *address) {
    struct sigaction action = {.sa_handler = on_fault}, old;
    sigaction(SIGSEGV, &action, &old);
    int faulted = sigsetjmp(before, 1);
    if (!faulted) {
        (void)*(volatile const char *)address;
    }
    sigaction(SIGSEGV, &old, NULL);
    return faulted;
}

static int by_address(const void *one, const void *other) {
    char *const *a = one, *const *b = other;
    return (*a > *b) - (*a < *b);
}

static void is_zero_object(char *object) {
    CHECK(object != NULL);
    CHECK((size_t)object % 16 == 0);
    CHECK(malloc_usable_size(object) == 0);
    CHECK(faults(object));
}

int main(void) {
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++) {
            objects[i] = opaque(i % 2 ? malloc(0) : calloc(0, 8));
            CHECK(objects[i] != NULL);
        }
        is_zero_object(objects[0]);
        is_zero_object(objects[MANY - 1]);
        qsort(objects, MANY, sizeof *objects, by_address);
        for (int i = 1; i < MANY; i++) {
            CHECK(objects[i - 1] < objects[i]);
        }
        for (int i = 0; i < MANY; i++) {
            if (i % 3 == 0) {
                char *grown = opaque(realloc(objects[i], 100));
                memset(grown, 1, 100);
                free(grown);
            } else {
                free(objects[i]);
            }
        }
    }
    is_zero_object(opaque(realloc(NULL, 0)));
    is_zero_object(opaque(aligned_alloc(16, 0)));
    CHECK(malloc_usable_size(opaque(aligned_alloc(64, 0))) > 0);
    /* Their pages are used again for other objects. */
    char *large = opaque(malloc(1 << 20));
    memset(large, 1, 1 << 20);
    free(large);
    return end_of_checks();
}
