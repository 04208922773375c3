/* Little address space: allocates until there is no more, frees all, and again, by one size after the
 * other. The argument is the limit in MiB, which whoever starts this has set (`ulimit -v`). */

#include "check.h"

struct link {
    struct link *next;
};

/* Bytes until malloc fails. */
static size_t fill(size_t size, struct link **chain) {
    size_t bytes = 0;
    for (;;) {
        errno = 0;
        struct link *object = opaque(malloc(size));
        if (object == NULL) {
            CHECK(errno == ENOMEM);
            return bytes;
        }
        memset(object, 0x55, size);
        object->next = *chain;
        *chain = object;
        bytes += size;
    }
}

static void empty(struct link **chain) {
    while (*chain != NULL) {
        struct link *next = (*chain)->next;
        free(*chain);
        *chain = next;
    }
}

int main(int argc, char **argv) {
    size_t limit = argc > 1 ? (size_t)atol(argv[1]) << 20 : 0;
    struct rlimit set;
    CHECK(getrlimit(RLIMIT_AS, &set) == 0 && set.rlim_cur == limit);
    const size_t sizes[] = {64, 1000, 20000, 40000, 1 << 20, 16, 3 << 20, 64};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct link *chain = NULL;
        size_t bytes = fill(sizes[i], &chain);
        /* Half of what a roomy limit allows, whatever was there before. Less of objects with headers
         * as large as they are, of those that fit an arena badly, and where the libraries take much. */
        size_t part = limit < 32 << 20 ? 8 : sizes[i] < 32 || sizes[i] > 1 << 20 ? 4 : 2;
        size_t least = limit / part;
        CHECK(bytes >= least);
        if (bytes < least) {
            printf("  %zu bytes in objects of %zu\n", bytes, sizes[i]);
        }
        /* The other functions fail as well, and nothing that is alive suffers. */
        char *kept = (char *)chain;
        struct link *rest = chain->next;
        errno = 0;
        CHECK(opaque(realloc(kept, limit)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(opaque(calloc(limit / 64, 64)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(opaque(aligned_alloc(1 << 20, limit)) == NULL && errno == ENOMEM);
        CHECK(chain->next == rest && is_filled(kept + sizeof *rest, sizes[i] - sizeof *rest, 0x55));
        empty(&chain);
        char *object = opaque(malloc(limit / 8));
        CHECK(object != NULL);
        free(object);
        printf("objects of %zu: %s\n", sizes[i], check_failures == 0 ? "ok" : "FAILED");
    }
    return end_of_checks();
}
