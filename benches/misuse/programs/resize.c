/* realloc and malloc_usable_size of what is no object. The harm is that memory in use is handed out, or
 * that a size is answered. */

#include "program.h"

static void resize(void *there, size_t size) {
    misuse(there);
    void *result = opaque(realloc(opaque(there), 2 * size));
    returned();
    if (result == there && result != NULL) {
        harm("it was resized");
    }
    work(size);
}

static void ask(void *there) {
    misuse(there);
    size_t size = malloc_usable_size(opaque(there));
    returned();
    if (size != 0) {
        harm("a size was answered");
    }
}

static void realloc_stack(size_t size) {
    _Alignas(64) char local[1024] = {0};
    protect(local, sizeof local);
    resize(local + 64, size);
}

static void usable_stack(size_t size) {
    (void)size;
    _Alignas(64) char local[1024] = {0};
    ask(local + 64);
}

static char *interior(size_t size) {
    char *live = object(size);
    memset(live, 0, size);
    protect(live, size);
    return live + 16;
}

static void realloc_interior(size_t size) { resize(interior(size), size); }
static void usable_interior(size_t size) { ask(interior(size)); }

static void usable_freed(size_t size) {
    void *freed = object(size);
    free(freed);
    ask(freed);
}

const struct misuse resizes[] = {
    {"realloc-stack", realloc_stack},
    {"realloc-interior", realloc_interior},
    {"usable-stack", usable_stack},
    {"usable-interior", usable_interior},
    {"usable-freed", usable_freed},
    {NULL, NULL},
};
