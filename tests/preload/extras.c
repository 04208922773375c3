/* What this library exports beyond glibc's family, and glibc's names for its own family. */

#include "check.h"

struct sized {
    void *pointer;
    size_t size;
};

/* The functions are looked up by name, as most are declared nowhere. */
#define FIND(result, name, parameters) result(*find_##name) parameters = (result(*) parameters)find(#name)

static void *find(const char *name) {
    void *found = dlsym(RTLD_DEFAULT, name);
    Dl_info info;
    if (found == NULL || dladdr(found, &info) == 0 || strstr(info.dli_fname, "libspanmalloc") == NULL) {
        printf("%s is not from the library\n", name);
        exit(1);
    }
    return found;
}

static const size_t SIZES[] = {1, 7, 8, 9, 16, 17, 24, 100, 1000, 32768, 40000, 1 << 20, 70 << 20};
enum { SIZE_COUNT = sizeof SIZES / sizeof *SIZES };

static void whole_family_is_ours(void) {
    static const char *const names[] = {
        "malloc", "calloc", "realloc", "free", "posix_memalign", "aligned_alloc", "memalign",
        "malloc_usable_size", "valloc", "pvalloc", "cfree", "reallocarray", "vfree", "malloc_trim",
        "malloc_stats", "mallinfo", "mallinfo2", "malloc_info", "mallopt", "_Znwm", "_ZdlPv",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CHECK(find(names[i]) != NULL);
    }
    CHECK(find("malloc") == (void *)malloc);
}

static void glibc_names_are_the_same_heap(void) {
    FIND(void *, __libc_malloc, (size_t));
    FIND(void *, __libc_calloc, (size_t, size_t));
    FIND(void *, __libc_realloc, (void *, size_t));
    FIND(void, __libc_free, (void *));
    FIND(void, __libc_cfree, (void *));
    FIND(void, cfree, (void *));
    FIND(void *, __libc_memalign, (size_t, size_t));
    FIND(void *, __libc_valloc, (size_t));
    FIND(void *, __libc_pvalloc, (size_t));
    FIND(int, __posix_memalign, (void **, size_t, size_t));
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < SIZE_COUNT; i++) {
        char *object = find___libc_malloc(SIZES[i]);
        CHECK(malloc_usable_size(object) >= SIZES[i]);
        paint(object, SIZES[i], 1);
        object = realloc(object, SIZES[i] + 100);
        CHECK(is_painted(object, SIZES[i], 1));
        free(object);

        object = malloc(SIZES[i]);
        paint(object, SIZES[i], 2);
        object = find___libc_realloc(object, 2 * SIZES[i]);
        CHECK(malloc_usable_size(object) >= 2 * SIZES[i] && is_painted(object, SIZES[i], 2));
        find___libc_free(object);

        object = find___libc_calloc(SIZES[i], 2);
        CHECK(is_filled(object, 2 * SIZES[i], 0));
        find___libc_cfree(object);
        find_cfree(find___libc_malloc(SIZES[i]));

        object = find___libc_memalign(64, SIZES[i]);
        CHECK(is_aligned(object, 64) && malloc_usable_size(object) >= SIZES[i]);
        free(object);
        object = find___libc_valloc(SIZES[i]);
        CHECK(object != NULL && is_aligned(object, page));
        free(object);
        object = find___libc_pvalloc(SIZES[i]);
        CHECK(is_aligned(object, page) && malloc_usable_size(object) >= page);
        free(object);
        void *aligned = NULL;
        CHECK(find___posix_memalign(&aligned, 256, SIZES[i]) == 0 && is_aligned(aligned, 256));
        CHECK(malloc_usable_size(aligned) >= SIZES[i]);
        free(aligned);
    }
    void *untouched = &page;
    CHECK(find___posix_memalign(&untouched, 3, 8) == EINVAL && untouched == &page);
    errno = 0;
    CHECK(find___libc_malloc(SIZE_MAX) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(find___libc_calloc(SIZE_MAX, 2) == NULL && errno == ENOMEM);
    find___libc_free(NULL);
    find___libc_cfree(NULL);
    find_cfree(NULL);
}

static void sizes_of_bsd_and_macos(void) {
    FIND(size_t, malloc_size, (const void *));
    FIND(size_t, malloc_good_size, (size_t));
    FIND(void, vfree, (void *));
    CHECK(find_malloc_size(NULL) == 0);
    for (int i = 0; i < SIZE_COUNT; i++) {
        void *object = opaque(malloc(SIZES[i]));
        CHECK(find_malloc_size(object) == malloc_usable_size(object));
        CHECK(find_malloc_good_size(SIZES[i]) == malloc_usable_size(object));
        free(object);
        find_vfree(valloc(SIZES[i]));
    }
    find_vfree(NULL);
}

static void objects_of_up_to_8_bytes_take_8(void) {
    FIND(size_t, malloc_good_size, (size_t));
    FIND(size_t, nallocx, (size_t, int));
    FIND(void *, _Znwm, (size_t));
    FIND(void, _ZdlPvm, (void *, size_t));
    FIND(void, free_sized, (void *, size_t));
    for (size_t size = 1; size <= 40; size++) {
        size_t usable = size <= 8 ? 8 : size <= 16 ? 16 : size <= 32 ? 32 : 48;
        void *objects[] = {
            opaque(malloc(size)), opaque(calloc(size, 1)), opaque(realloc(NULL, size)), find__Znwm(size),
        };
        for (int i = 0; i < 4; i++) {
            CHECK(malloc_usable_size(objects[i]) == usable);
            CHECK(is_aligned(objects[i], usable == 8 ? 8 : 16));
        }
        CHECK(find_malloc_good_size(size) == usable && find_nallocx(size, 0) == usable);
        CHECK(find_nallocx(size, 4) == (size <= 16 ? 16 : usable));
        find_free_sized(objects[0], size);
        find_free_sized(objects[1], size);
        objects[2] = opaque(realloc(objects[2], size + 8));
        CHECK(is_aligned(objects[2], 16) && malloc_usable_size(objects[2]) >= size + 8);
        free(objects[2]);
        find__ZdlPvm(objects[3], size);
        void *aligned = NULL;
        CHECK(posix_memalign(&aligned, 8, size) == 0 && malloc_usable_size(aligned) == usable);
        free(aligned);
        CHECK(is_aligned(aligned = aligned_alloc(16, size), 16));
        free(aligned);
    }
}

static void fails_without_a_leak(void) {
    FIND(void *, reallocf, (void *, size_t));
    limit_growth((size_t)1 << 30);
    for (int i = 0; i < 3000; i++) {
        void *object = opaque(malloc(1 << 20));
        CHECK(object != NULL);
        errno = 0;
        CHECK(find_reallocf(object, SIZE_MAX) == NULL && errno == ENOMEM);
    }
    for (int i = 0; i < 2000000; i++) {
        void *object = opaque(malloc(1000));
        CHECK(object != NULL);
        CHECK(find_reallocf(object, SIZE_MAX) == NULL);
    }
}

static void reallocf_frees_what_it_cannot_resize(void) {
    FIND(void *, reallocf, (void *, size_t));
    char *object = find_reallocf(NULL, 50);
    CHECK(object != NULL);
    paint(object, 50, 1);
    object = find_reallocf(object, 100000);
    CHECK(object != NULL && is_painted(object, 50, 1) && malloc_usable_size(object) >= 100000);
    free(object);
    CHECK(find_reallocf(NULL, SIZE_MAX) == NULL);
    in_child(fails_without_a_leak);
}

static void reallocarr_changes_the_pointer(void) {
    FIND(int, reallocarr, (void *, size_t, size_t));
    char *object = NULL;
    CHECK(find_reallocarr(&object, 10, 10) == 0);
    CHECK(object != NULL && malloc_usable_size(object) >= 100);
    paint(object, 100, 2);
    char *before = object;
    errno = 1234;
    CHECK(find_reallocarr(&object, 1000, 200) == 0);
    CHECK(errno == 1234);
    CHECK(object != before && malloc_usable_size(object) >= 200000 && is_painted(object, 100, 2));
    before = object;
    int error = find_reallocarr(&object, SIZE_MAX / 2, 3);
    CHECK(error == EOVERFLOW || error == ENOMEM);
    error = find_reallocarr(&object, SIZE_MAX, 1);
    CHECK(error == EOVERFLOW || error == ENOMEM);
    CHECK(object == before && is_painted(object, 100, 2));
    free(object);
}

static void nallocx_foretells_the_usable_size(void) {
    FIND(size_t, nallocx, (size_t, int));
    FIND(void, sdallocx, (void *, size_t, int));
    for (int i = 0; i < SIZE_COUNT; i++) {
        void *object = opaque(malloc(SIZES[i]));
        CHECK(find_nallocx(SIZES[i], 0) == malloc_usable_size(object));
        find_sdallocx(object, SIZES[i], 0);
        for (int lg_align = 0; lg_align <= 22; lg_align++) {
            object = opaque(aligned_alloc((size_t)1 << lg_align, SIZES[i]));
            CHECK(find_nallocx(SIZES[i], lg_align) == malloc_usable_size(object));
            find_sdallocx(object, SIZES[i], lg_align);
        }
    }
    for (size_t size = 1; size < 70000; size += 1 + size / 50) {
        void *object = opaque(malloc(size));
        CHECK(find_nallocx(size, 0) == malloc_usable_size(object));
        /* Every size from the one asked for to the usable one is the right one. */
        find_sdallocx(object, malloc_usable_size(object), 0);
    }
    CHECK(find_nallocx(SIZE_MAX, 0) == 0);
    find_sdallocx(NULL, 0, 0);
}

static void size_returning_functions_tell_the_usable_size(void) {
    FIND(struct sized, alloc_at_least, (size_t));
    FIND(struct sized, aligned_alloc_at_least, (size_t, size_t));
    for (int i = 0; i < SIZE_COUNT; i++) {
        struct sized object = find_alloc_at_least(SIZES[i]);
        CHECK(object.pointer != NULL && object.size >= SIZES[i]);
        CHECK(object.size == malloc_usable_size(object.pointer));
        memset(object.pointer, 1, object.size);
        free(object.pointer);
        for (size_t align = 1; align <= 1 << 22; align *= 2) {
            object = find_aligned_alloc_at_least(align, SIZES[i]);
            CHECK(object.pointer != NULL && is_aligned(object.pointer, align));
            CHECK(object.size >= SIZES[i] && object.size == malloc_usable_size(object.pointer));
            free(object.pointer);
        }
    }
    errno = 0;
    CHECK(find_alloc_at_least(SIZE_MAX).pointer == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(find_aligned_alloc_at_least(64, SIZE_MAX).pointer == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(find_aligned_alloc_at_least(24, 100).pointer == NULL && errno == EINVAL);
}

static void sized_frees(void) {
    FIND(void, free_sized, (void *, size_t));
    FIND(void, free_aligned_sized, (void *, size_t, size_t));
    FIND(void, sdallocx, (void *, size_t, int));
    size_t before = mallinfo2().uordblks;
    for (int turn = 0; turn < 200; turn++) {
        for (int i = 0; i < SIZE_COUNT; i++) {
            errno = 1234;
            find_free_sized(opaque(malloc(SIZES[i])), SIZES[i]);
            find_free_sized(opaque(calloc(1, SIZES[i])), SIZES[i]);
            find_free_sized(opaque(realloc(malloc(10), SIZES[i])), SIZES[i]);
            find_sdallocx(opaque(malloc(SIZES[i])), SIZES[i], 0);
            find_free_aligned_sized(opaque(aligned_alloc(64, SIZES[i])), 64, SIZES[i]);
            find_free_aligned_sized(opaque(aligned_alloc(8192, SIZES[i])), 8192, SIZES[i]);
            CHECK(errno == 1234);
        }
        find_free_sized(opaque(malloc(0)), 0);
        find_free_aligned_sized(opaque(aligned_alloc(32, 0)), 32, 0);
    }
    find_free_sized(NULL, 10);
    find_free_aligned_sized(NULL, 64, 10);
    /* What leaked would be 70 MiB and more. */
    CHECK(mallinfo2().uordblks < before + (20 << 20));
}

int main(void) {
    RUN(whole_family_is_ours);
    RUN(glibc_names_are_the_same_heap);
    RUN(sizes_of_bsd_and_macos);
    RUN(objects_of_up_to_8_bytes_take_8);
    RUN(reallocf_frees_what_it_cannot_resize);
    RUN(reallocarr_changes_the_pointer);
    RUN(nallocx_foretells_the_usable_size);
    RUN(size_returning_functions_tell_the_usable_size);
    RUN(sized_frees);
    return end_of_checks();
}
