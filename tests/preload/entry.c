/* malloc, calloc, realloc, free and their errors: what every allocator for C does alike. */

#include "check.h"

static void alignment_is_that_of_all_that_fits(void) {
    for (size_t size = 1; size < 5000; size++) {
        char *object = opaque(malloc(size));
        CHECK(is_aligned(object, size < 9 ? 8 : 16));
        char *zeroed = opaque(calloc(1, size));
        CHECK(is_aligned(zeroed, size < 9 ? 8 : 16));
        object = opaque(realloc(object, size + 1));
        CHECK(is_aligned(object, size < 8 ? 8 : 16));
        free(object);
        free(zeroed);
    }
    for (size_t size = 5000; size < (4 << 20); size += size / 3 + 1) {
        char *object = opaque(malloc(size));
        CHECK(is_aligned(object, 16));
        free(object);
    }
}

static void nothing_is_an_object_of_its_own(void) {
    enum { COUNT = 300 };
    char *objects[COUNT];
    for (int i = 0; i < COUNT; i++) {
        objects[i] = opaque(i % 3 == 0 ? malloc(0) : i % 3 == 1 ? calloc(0, 8) : calloc(8, 0));
        CHECK(objects[i] != NULL);
        for (int j = 0; j < i; j++) {
            CHECK(objects[i] != objects[j]);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        free(objects[i]);
    }
}

static void objects_do_not_overlap(void) {
    enum { COUNT = 3000 };
    static char *objects[COUNT];
    static size_t sizes[COUNT];
    unsigned random = 1;
    for (int turn = 0; turn < 60000; turn++) {
        int i = (int)(next_random(&random) % COUNT);
        if (objects[i] != NULL) {
            CHECK(is_painted(objects[i], sizes[i], (unsigned)i));
            free(objects[i]);
        }
        sizes[i] = next_random(&random) % (turn % 100 == 0 ? 100000 : turn % 7 == 0 ? 5000 : 100);
        objects[i] = opaque(malloc(sizes[i]));
        paint(objects[i], sizes[i], (unsigned)i);
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK(objects[i] == NULL || is_painted(objects[i], sizes[i], (unsigned)i));
        free(objects[i]);
    }
}

static void realloc_of_null_allocates(void) {
    char *object = opaque(realloc(NULL, 100));
    CHECK(object != NULL && malloc_usable_size(object) >= 100);
    paint(object, 100, 1);
    free(object);
    object = opaque(realloc(NULL, opaque_size(0)));
    CHECK(object != NULL);
    free(object);
    free(NULL);
}

static void leaks_nothing(void) {
    /* What leaked here would be twice what is allowed. */
    limit_growth((size_t)1 << 30);
    for (int i = 0; i < 2000; i++) {
        void *object = opaque(malloc(1 << 20));
        CHECK(object != NULL);
        CHECK(opaque(realloc(object, opaque_size(0))) == NULL);
    }
    for (int i = 0; i < 2000000; i++) {
        void *object = opaque(malloc(1000));
        CHECK(object != NULL);
        CHECK(opaque(realloc(object, opaque_size(0))) == NULL);
    }
    for (int i = 0; i < 20; i++) {
        void *object = opaque(malloc(100 << 20));
        CHECK(object != NULL);
        CHECK(opaque(realloc(object, opaque_size(0))) == NULL);
    }
}

static void realloc_to_nothing_frees(void) {
    in_child(leaks_nothing);
}

/* No memory, and errno says so. */
#define REFUSED(call) \
    do { \
        errno = 0; \
        CHECK(opaque(call) == NULL); \
        CHECK(errno == ENOMEM); \
    } while (0)

static void sizes_beyond_ptrdiff_max_are_refused(void) {
    const size_t sizes[] = {
        PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - (64 << 20), SIZE_MAX - 8192,
        SIZE_MAX - 4096, SIZE_MAX - 4095, SIZE_MAX - 16, SIZE_MAX - 15, SIZE_MAX - 1, SIZE_MAX,
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = opaque_size(sizes[i]);
        REFUSED(malloc(size));
        REFUSED(calloc(1, size));
        REFUSED(calloc(size, 1));
        REFUSED(realloc(NULL, size));
        REFUSED(reallocarray(NULL, size, 1));
        REFUSED(aligned_alloc(16, size));
        REFUSED(aligned_alloc(1 << 20, size));
        REFUSED(memalign(8, size));
        REFUSED(memalign(4096, size));
        REFUSED(valloc(size));
        REFUSED(pvalloc(size));
        void *untouched = &random;
        CHECK(posix_memalign(&untouched, 64, size) == ENOMEM);
        CHECK(untouched == &random);
    }
}

static void products_that_overflow_are_refused(void) {
    const size_t factors[][2] = {
        {SIZE_MAX / 2 + 1, 2}, {2, SIZE_MAX / 2 + 1}, {(size_t)1 << 32, (size_t)1 << 32},
        {SIZE_MAX, SIZE_MAX}, {SIZE_MAX / 3 + 1, 3}, {(size_t)1 << 63, 16}, {SIZE_MAX / 8 + 2, 8},
    };
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        size_t count = opaque_size(factors[i][0]), size = opaque_size(factors[i][1]);
        REFUSED(calloc(count, size));
        REFUSED(reallocarray(NULL, count, size));
        char *object = opaque(malloc(100));
        paint(object, 100, 3);
        REFUSED(reallocarray(object, count, size));
        CHECK(is_painted(object, 100, 3));
        free(object);
    }
}

static void realloc_that_fails_leaves_the_object(void) {
    const size_t sizes[] = {1, 24, 1000, 40000, 1 << 20, 80 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *object = opaque(malloc(sizes[i]));
        size_t usable = malloc_usable_size(object);
        paint(object, sizes[i], 5);
        REFUSED(realloc(object, opaque_size(PTRDIFF_MAX)));
        REFUSED(realloc(object, opaque_size(SIZE_MAX)));
        REFUSED(reallocarray(object, opaque_size(SIZE_MAX), 1));
        CHECK(malloc_usable_size(object) == usable);
        CHECK(is_painted(object, sizes[i], 5));
        object = opaque(realloc(object, 2 * sizes[i]));
        CHECK(object != NULL && is_painted(object, sizes[i], 5));
        free(object);
    }
}

static void reallocarray_is_realloc(void) {
    char *object = opaque(reallocarray(NULL, 10, 10));
    CHECK(object != NULL && malloc_usable_size(object) >= 100);
    paint(object, 100, 6);
    object = opaque(reallocarray(object, 1000, 100));
    CHECK(object != NULL && malloc_usable_size(object) >= 100000);
    CHECK(is_painted(object, 100, 6));
    CHECK(opaque(reallocarray(object, opaque_size(0), 8)) == NULL);
}

static void calloc_zeroes_recycled_memory(void) {
    const size_t sizes[] = {1, 2, 4, 8, 24, 100, 1000, 4096, 32768, 40000, 100 << 10, 80 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        enum { COUNT = 64 };
        int count = sizes[i] > (1 << 20) ? 1 : COUNT;
        char *objects[COUNT];
        for (int turn = 0; turn < 3; turn++) {
            for (int j = 0; j < count; j++) {
                objects[j] = opaque(turn == 0 ? malloc(sizes[i]) : calloc(sizes[i], 1));
                CHECK(objects[j] != NULL);
                CHECK(turn == 0 || is_filled(objects[j], sizes[i], 0));
                memset(objects[j], 0xaa, sizes[i]);
            }
            for (int j = 0; j < count; j++) {
                free(objects[j]);
            }
        }
    }
}

static void usable_bytes_are_the_objects_own(void) {
    CHECK(malloc_usable_size(NULL) == 0);
    const size_t sizes[] = {0, 1, 2, 3, 5, 8, 9, 16, 17, 24, 25, 33, 100, 500, 1025, 4000, 10000, 33000, 100000, 5000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        enum { COUNT = 9 };
        char *objects[COUNT];
        size_t usable[COUNT];
        for (unsigned j = 0; j < COUNT; j++) {
            objects[j] = opaque(malloc(sizes[i]));
            usable[j] = malloc_usable_size(objects[j]);
            CHECK(usable[j] >= sizes[i]);
            paint(objects[j], usable[j], j);
        }
        for (unsigned j = 0; j < COUNT; j += 2) {
            free(objects[j]);
        }
        for (unsigned j = 1; j < COUNT; j += 2) {
            CHECK(malloc_usable_size(objects[j]) == usable[j]);
            CHECK(is_painted(objects[j], usable[j], j));
            objects[j] = opaque(realloc(objects[j], usable[j] + 1 + j * 1000));
            CHECK(objects[j] != NULL && is_painted(objects[j], usable[j], j));
            CHECK(malloc_usable_size(objects[j]) > usable[j]);
            free(objects[j]);
        }
    }
}

static void realloc_keeps_the_contents(void) {
    const size_t sizes[] = {
        1, 8, 24, 100, 1000, 5000, 33000, 40000, 100000, 1 << 20, 20 << 20, 70 << 20, 90 << 20,
        66 << 20, 30 << 20, 1 << 20, 50000, 32768, 90 << 20, 1000, 17, 3, 1, 40000, 2,
    };
    char *object = opaque(malloc(1));
    paint(object, 1, 9);
    size_t size = 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        object = opaque(realloc(object, sizes[i]));
        CHECK(object != NULL && malloc_usable_size(object) >= sizes[i]);
        CHECK(is_painted(object, size < sizes[i] ? size : sizes[i], 9));
        size = sizes[i];
        paint(object, size, 9);
    }
    unsigned random = 7;
    for (int turn = 0; turn < 20000; turn++) {
        size_t next = next_random(&random) % (turn % 500 == 0 ? 1000000 : turn % 5 == 0 ? 60000 : 300);
        object = opaque(realloc(object, next + 1));
        CHECK(object != NULL && is_painted(object, size < next + 1 ? size : next + 1, 9));
        size = next + 1;
        paint(object, size, 9);
    }
    free(object);
}

static void free_preserves_errno(void) {
    const size_t sizes[] = {0, 1, 16, 1000, 32768, 100000, 10 << 20, 100 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *object = opaque(malloc(sizes[i]));
        if (sizes[i] != 0) {
            object[sizes[i] - 1] = 1;
        }
        errno = 1234;
        free(object);
        CHECK(errno == 1234);
    }
}

static void success_leaves_errno(void) {
    if (!check_ours) {
        return;
    }
    const size_t sizes[] = {0, 1, 16, 1000, 32768, 100000, 10 << 20, 100 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        errno = 1234;
        char *object = opaque(malloc(sizes[i]));
        CHECK(object != NULL && errno == 1234);
        object = opaque(realloc(object, 2 * sizes[i] + 1));
        CHECK(object != NULL && errno == 1234);
        free(object);
        object = opaque(calloc(1, sizes[i]));
        CHECK(object != NULL && errno == 1234);
        free(object);
        object = opaque(memalign(8192, sizes[i]));
        CHECK(object != NULL && errno == 1234);
        free(object);
        CHECK(errno == 1234);
    }
}

int main(int argc, char **argv) {
    check_ours = argc > 1 && strcmp(argv[1], "ours") == 0;
    RUN(alignment_is_that_of_all_that_fits);
    RUN(nothing_is_an_object_of_its_own);
    RUN(objects_do_not_overlap);
    RUN(realloc_of_null_allocates);
    RUN(realloc_to_nothing_frees);
    RUN(sizes_beyond_ptrdiff_max_are_refused);
    RUN(products_that_overflow_are_refused);
    RUN(realloc_that_fails_leaves_the_object);
    RUN(reallocarray_is_realloc);
    RUN(calloc_zeroes_recycled_memory);
    RUN(usable_bytes_are_the_objects_own);
    RUN(realloc_keeps_the_contents);
    RUN(free_preserves_errno);
    RUN(success_leaves_errno);
    return end_of_checks();
}
