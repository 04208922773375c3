/* posix_memalign, aligned_alloc, memalign, valloc and pvalloc. */

#include "check.h"

static const size_t SIZES[] = {0, 1, 8, 15, 16, 17, 24, 100, 4096, 40000, 1 << 20};
enum { SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

static void *by_posix_memalign(size_t align, size_t size) {
    void *object = NULL;
    errno = 1234;
    CHECK(posix_memalign(&object, align, size) == 0);
    CHECK(!check_ours || errno == 1234);
    return object;
}

/* Two of each are alive at once, with their whole usable range written. */
static void check_grid(size_t least, void *(*allocate)(size_t, size_t)) {
    for (size_t align = least; align <= 1 << 22; align *= 2) {
        for (int i = 0; i < SIZE_COUNT; i++) {
            void *pair[2];
            size_t usable[2];
            for (unsigned j = 0; j < 2; j++) {
                pair[j] = opaque(allocate(align, SIZES[i]));
                CHECK(pair[j] != NULL && is_aligned(pair[j], align));
                usable[j] = malloc_usable_size(pair[j]);
                CHECK(usable[j] >= SIZES[i]);
                /* All of it where that is no more than was asked for by far. */
                usable[j] = usable[j] > 2 * SIZES[i] + 4096 ? SIZES[i] : usable[j];
                paint(pair[j], usable[j], j);
            }
            CHECK(pair[0] != pair[1]);
            CHECK(is_painted(pair[0], usable[0], 0));
            pair[1] = opaque(realloc(pair[1], usable[1] + 1));
            CHECK(pair[1] != NULL && is_painted(pair[1], usable[1], 1));
            free(pair[0]);
            free(pair[1]);
        }
    }
}

static void posix_memalign_aligns(void) {
    check_grid(sizeof(void *), by_posix_memalign);
}

static void aligned_alloc_aligns(void) {
    check_grid(1, aligned_alloc);
}

static void memalign_aligns(void) {
    check_grid(1, memalign);
}

static void posix_memalign_refuses(void) {
    const size_t aligns[] = {0, 1, 2, 3, 4, 7, 12, 24, 40, 4095, 4104, SIZE_MAX, SIZE_MAX - 7};
    for (size_t i = 0; i < sizeof aligns / sizeof *aligns; i++) {
        for (int j = 0; j < SIZE_COUNT; j++) {
            void *untouched = (void *)SIZES;
            errno = 1234;
            CHECK(posix_memalign(&untouched, opaque_size(aligns[i]), SIZES[j]) == EINVAL);
            CHECK(untouched == SIZES);
            CHECK(errno == 1234);
        }
    }
    const size_t absurd[] = {PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096, SIZE_MAX};
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        for (size_t align = sizeof(void *); align <= 1 << 22; align *= 2) {
            void *untouched = (void *)SIZES;
            errno = 1234;
            CHECK(posix_memalign(&untouched, align, opaque_size(absurd[i])) == ENOMEM);
            CHECK(untouched == SIZES);
            CHECK(!check_ours || errno == 1234);
        }
    }
    for (size_t align = (size_t)1 << 62; align != 0; align *= 2) {
        void *untouched = (void *)SIZES;
        CHECK(posix_memalign(&untouched, opaque_size(align), 100) == ENOMEM);
        CHECK(untouched == SIZES);
    }
}

static void aligned_alloc_refuses(void) {
    if (!check_ours) {
        return;
    }
    const size_t aligns[] = {0, 3, 12, 24, 100, 4095, 4104, SIZE_MAX};
    for (size_t i = 0; i < sizeof aligns / sizeof *aligns; i++) {
        for (int j = 0; j < SIZE_COUNT; j++) {
            errno = 0;
            CHECK(opaque(aligned_alloc(opaque_size(aligns[i]), SIZES[j])) == NULL);
            CHECK(errno == EINVAL);
        }
    }
    for (size_t align = (size_t)1 << 62; align != 0; align *= 2) {
        errno = 0;
        CHECK(opaque(aligned_alloc(opaque_size(align), 100)) == NULL);
        CHECK(errno == ENOMEM);
    }
}

/* The next power of two. */
static void memalign_rounds_the_alignment_up(void) {
    const size_t aligns[][2] = {
        {0, 1}, {3, 4}, {12, 16}, {17, 32}, {24, 32}, {33, 64}, {100, 128}, {4097, 8192}, {100000, 131072},
    };
    for (size_t i = 0; i < sizeof aligns / sizeof *aligns; i++) {
        for (int j = 0; j < SIZE_COUNT; j++) {
            void *pair[2];
            for (int k = 0; k < 2; k++) {
                pair[k] = opaque(memalign(opaque_size(aligns[i][0]), SIZES[j]));
                CHECK(pair[k] != NULL && is_aligned(pair[k], aligns[i][1]));
                memset(pair[k], 1, SIZES[j]);
            }
            free(pair[0]);
            free(pair[1]);
        }
    }
    CHECK(opaque(memalign(opaque_size(SIZE_MAX), 1)) == NULL);
}

static void valloc_and_pvalloc_give_pages(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < SIZE_COUNT; i++) {
        char *object = opaque(valloc(SIZES[i]));
        CHECK(object != NULL && is_aligned(object, page));
        memset(object, 1, SIZES[i]);
        char *pages = opaque(pvalloc(SIZES[i]));
        CHECK(pages != NULL && is_aligned(pages, page));
        size_t whole = (SIZES[i] + page - 1) / page * page;
        CHECK(malloc_usable_size(pages) >= whole);
        memset(pages, 2, whole);
        CHECK(is_filled(object, SIZES[i], 1));
        free(object);
        free(pages);
    }
    for (size_t size = SIZE_MAX - 2 * page; size >= SIZE_MAX - 2 * page; size += page / 2) {
        errno = 0;
        CHECK(opaque(pvalloc(opaque_size(size))) == NULL);
        CHECK(errno == ENOMEM);
    }
}

/* Aligned objects of several MiB, of which each has a mapping of its own with some allocators. */
static void huge_objects_are_aligned(void) {
    for (size_t align = 1 << 12; align <= 256 << 20; align *= 4) {
        char *object = opaque(aligned_alloc(align, (size_t)70 << 20));
        CHECK(object != NULL && is_aligned(object, align));
        object[0] = 1;
        object[(70 << 20) - 1] = 2;
        object = opaque(realloc(object, (size_t)90 << 20));
        CHECK(object != NULL && object[0] == 1 && object[(70 << 20) - 1] == 2);
        free(object);
        object = opaque(aligned_alloc(align, 1));
        CHECK(object != NULL && is_aligned(object, align));
        *object = 1;
        free(object);
    }
}

int main(int argc, char **argv) {
    check_ours = argc > 1 && strcmp(argv[1], "ours") == 0;
    RUN(posix_memalign_aligns);
    RUN(aligned_alloc_aligns);
    RUN(memalign_aligns);
    RUN(posix_memalign_refuses);
    RUN(aligned_alloc_refuses);
    RUN(memalign_rounds_the_alignment_up);
    RUN(valloc_and_pvalloc_give_pages);
    RUN(huge_objects_are_aligned);
    return end_of_checks();
}
