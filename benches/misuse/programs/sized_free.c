/* Frees with a size or an alignment that the object does not have. The harm is that its memory is
 * handed out as an object of that size, which is over its neighbours. */

#include "program.h"

enum { WRONG_ALIGN = 1 << 16 };

static void with_size(size_t size, size_t wrong, void (*release)(void *, size_t)) {
    void *wronged = NULL;
    for (int i = 0; i < 16; i++) {
        void *one = object(size);
        if (i >= 8 && wronged == NULL && (uintptr_t)one % WRONG_ALIGN != 0) {
            wronged = one;
        } else {
            protect(one, size);
        }
    }
    misuse(wronged);
    release(opaque(wronged), wrong);
    returned();
    work(wrong);
    work(size);
}

static void larger(size_t size) {
    with_size(size, 4 * size, (void (*)(void *, size_t))function("free_sized"));
}

static void smaller(size_t size) {
    with_size(size, size / 4, (void (*)(void *, size_t))function("free_sized"));
}

static void by_delete(size_t size) {
    dlopen("libstdc++.so.6", RTLD_NOW | RTLD_GLOBAL);
    with_size(size, 4 * size, (void (*)(void *, size_t))function("_ZdlPvm"));
}

static void (*sdallocx)(void *, size_t, int);

static void call_sdallocx(void *object, size_t size) { sdallocx(object, size, 0); }

static void by_sdallocx(size_t size) {
    sdallocx = (void (*)(void *, size_t, int))function("sdallocx");
    with_size(size, 4 * size, call_sdallocx);
}

static void (*free_aligned_sized)(void *, size_t, size_t);
static size_t true_size;

static void free_aligned(void *object, size_t align) { free_aligned_sized(object, align, true_size); }

static void alignment(size_t size) {
    free_aligned_sized = (void (*)(void *, size_t, size_t))function("free_aligned_sized");
    true_size = size;
    with_size(size, WRONG_ALIGN, free_aligned);
}

const struct misuse sized_frees[] = {
    {"sized-larger", larger},
    {"sized-smaller", smaller},
    {"sized-alignment", alignment},
    {"sized-delete", by_delete},
    {"sized-sdallocx", by_sdallocx},
    {NULL, NULL},
};
