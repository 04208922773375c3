/* Frees of what is no object. The harm is that the memory there, which is in use, is handed out. */

#include "program.h"

static void free_there(void *there, size_t size) {
    misuse(there);
    free(opaque(there));
    returned();
    work(size);
}

static void of_stack(size_t size) {
    _Alignas(64) char local[1024] = {0};
    protect(local, sizeof local);
    free_there(local + 64, size);
}

static void of_static(size_t size) {
    static _Alignas(64) char memory[1024];
    protect(memory, sizeof memory);
    free_there(memory + 64, size);
}

static void of_mapping(size_t size) {
    char *mapping = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    protect(mapping, 1 << 20);
    free_there(mapping + 64, size);
}

static void of_integer(size_t size) { free_there((void *)8, size); }

static void at_offset(size_t size, ptrdiff_t offset) {
    protect(object(size), size);
    char *live = object(size);
    memset(live, 0, size);
    protect(live, size);
    protect(object(size), size);
    free_there(live + offset, size);
}

static void interior_1(size_t size) { at_offset(size, 1); }
static void interior_8(size_t size) { at_offset(size, 8); }
static void interior_16(size_t size) { at_offset(size, 16); }
static void interior_middle(size_t size) { at_offset(size, (ptrdiff_t)(size / 2 & ~15ul)); }
static void before(size_t size) { at_offset(size, -16); }

static void into_free_span(size_t size) {
    char *one = of_free_span(size);
    free_there(one + (size / 2 & ~15ul), size);
}

static void into_released_pages(size_t size) {
    char *released = object(size);
    memset(released, 1, size);
    free(released);
    malloc_trim(0);
    free_there(released + 8192, size);
}

const struct misuse invalid_frees[] = {
    {"free-stack", of_stack},
    {"free-static", of_static},
    {"free-mapping", of_mapping},
    {"free-integer", of_integer},
    {"free-interior-1", interior_1},
    {"free-interior-8", interior_8},
    {"free-interior-16", interior_16},
    {"free-interior-middle", interior_middle},
    {"free-before", before},
    {"free-in-free-span", into_free_span},
    {"free-in-released", into_released_pages},
    {NULL, NULL},
};
