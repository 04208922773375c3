/* Objects that are freed twice. The harm is an object that is handed out twice. */

#include "program.h"

static void free_again(void *object, size_t size) {
    misuse(object);
    free(opaque(object));
    returned();
    work(size);
}

static void after_others(size_t size, size_t others) {
    static void *between[1000];
    void *twice = object(size);
    for (size_t i = 0; i < others; i++) {
        between[i] = object(size);
    }
    free(twice);
    for (size_t i = 0; i < others; i++) {
        free(between[i]);
    }
    free_again(twice, size);
}

static void at_once(size_t size) { after_others(size, 0); }
static void after_1(size_t size) { after_others(size, 1); }
static void after_8(size_t size) { after_others(size, 8); }
static void after_100(size_t size) { after_others(size, 100); }
static void after_1000(size_t size) { after_others(size, 1000); }

static void a_b_a_b(size_t size) {
    void *a = object(size), *b = object(size), *c = object(size);
    free(a);
    free(b);
    free(c);
    misuse(a);
    free(opaque(a));
    free(opaque(b));
    returned();
    work(size);
}

static void allocations_between(size_t size) {
    void *twice = object(size);
    /* It keeps the first one's memory from being joined with more, of which others would be made. */
    protect(object(size), size);
    free(twice);
    for (size_t other = 4 * size; other <= 32 * size; other *= 2) {
        protect(object(other), other);
    }
    free_again(twice, size);
}

static int is_in(void *one, void **objects, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (objects[i] == one) {
            return 1;
        }
    }
    return 0;
}

static void after_reuse(size_t size) {
    void *freed[16], *reused[8];
    for (int i = 0; i < 16; i++) {
        freed[i] = object(size);
    }
    for (int i = 0; i < 16; i++) {
        free(freed[i]);
    }
    for (int i = 0; i < 8; i++) {
        reused[i] = object(size);
        protect(reused[i], size);
    }
    for (int i = 0; i < 16; i++) {
        if (!is_in(freed[i], reused, 8)) {
            free_again(freed[i], size);
            return;
        }
    }
}

static void empty_span(size_t size) { free_again(of_free_span(size), size); }

static void by_realloc(size_t size) {
    void *twice = object(size);
    free(twice);
    misuse(twice);
    void *result = opaque(realloc(opaque(twice), 2 * size));
    returned();
    if (result != NULL) {
        protect(result, 2 * size);
    }
    work(size);
}

static void after_realloc(size_t size) {
    void *before, *object_now = object(size);
    protect(object(size), size);
    size_t larger = size;
    do {
        before = object_now;
        larger *= 4;
        object_now = opaque(realloc(before, larger));
    } while (object_now == before && larger < (1u << 30));
    if (object_now == before || object_now == NULL) {
        absent("the object did not move");
    }
    protect(object_now, larger);
    free_again(before, size);
}

static void *free_it(void *object) {
    free(opaque(object));
    return NULL;
}

static void by_thread_then_main(size_t size) {
    void *twice = object(size);
    in_thread(free_it, twice);
    free_again(twice, size);
}

static void by_main_then_thread(size_t size) {
    void *twice = object(size);
    free(twice);
    misuse(twice);
    in_thread(free_it, twice);
    returned();
    work(size);
}

static void by_two_threads(size_t size) {
    void *twice = object(size);
    in_thread(free_it, twice);
    misuse(twice);
    in_thread(free_it, twice);
    returned();
    work(size);
}

const struct misuse double_frees[] = {
    {"double-free", at_once},
    {"double-free-after-1", after_1},
    {"double-free-after-8", after_8},
    {"double-free-after-100", after_100},
    {"double-free-after-1000", after_1000},
    {"double-free-interleaved", a_b_a_b},
    {"double-free-allocations", allocations_between},
    {"double-free-reused-span", after_reuse},
    {"double-free-empty-span", empty_span},
    {"double-free-realloc", by_realloc},
    {"double-free-moved", after_realloc},
    {"double-free-thread-main", by_thread_then_main},
    {"double-free-main-thread", by_main_then_thread},
    {"double-free-two-threads", by_two_threads},
    {NULL, NULL},
};
