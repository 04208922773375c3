/* Writes beyond an object. The object is freed, then the harm is that a neighbour was changed. */

#include "program.h"

enum { OBJECTS_MAX = 33, ENDS = 4096, FILL = 0x5a };

/* An object and its neighbours, those before and those after it. */
static unsigned char *objects[OBJECTS_MAX];
static size_t objects_count;

/* What is filled of an object, at its start and at its end. */
static size_t end_bytes(size_t size) { return size < ENDS ? size : ENDS; }

static int is_changed(const unsigned char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != FILL) {
            return 1;
        }
    }
    return 0;
}

/* The object in the midst of its neighbours. */
static unsigned char *surrounded(size_t size) {
    objects_count = size > 1 << 20 ? 3 : OBJECTS_MAX;
    for (size_t i = 0; i < objects_count; i++) {
        objects[i] = object(size);
        memset(objects[i], FILL, end_bytes(size));
        memset(objects[i] + size - end_bytes(size), FILL, end_bytes(size));
    }
    return opaque(objects[objects_count / 2]);
}

/* Changes bytes, so that it is seen whatever was there, and each is a page at most from the last. */
static void overwrite(unsigned char *start, size_t bytes, size_t size) {
    misuse(start);
    size_t step = bytes > 1 << 20 ? 64 : 1;
    for (size_t i = 0; i < bytes; i += step) {
        *(volatile unsigned char *)(start + i) ^= 0x41;
    }
    returned();
    free(objects[objects_count / 2]);
    for (size_t i = 0; i < objects_count; i++) {
        size_t count = end_bytes(size);
        if (i != objects_count / 2 &&
            (is_changed(objects[i], count) || is_changed(objects[i] + size - count, count))) {
            harm("a neighbour was changed");
        }
    }
    work(size);
    for (size_t i = 0; i < objects_count; i++) {
        if (i != objects_count / 2) {
            free(objects[i]);
        }
    }
}

static void over_1(size_t size) { overwrite(surrounded(size) + size, 1, size); }
static void over_8(size_t size) { overwrite(surrounded(size) + size, 8, size); }
static void over_64(size_t size) { overwrite(surrounded(size) + size, 64, size); }
static void over_1m(size_t size) { overwrite(surrounded(size) + size, 1 << 20, size); }
static void over_128m(size_t size) { overwrite(surrounded(size) + size, 128 << 20, size); }
static void under_1(size_t size) { overwrite(surrounded(size) - 1, 1, size); }
static void under_8(size_t size) { overwrite(surrounded(size) - 8, 8, size); }
static void under_16(size_t size) { overwrite(surrounded(size) - 16, 16, size); }

static void over_usable(size_t size) {
    unsigned char *start = surrounded(size);
    overwrite(start + malloc_usable_size(start), 1, size);
}

static void to_page_end(size_t size) {
    unsigned char *end = surrounded(size) + size;
    overwrite(end, 4096 - (uintptr_t)end % 4096, size);
}

const struct misuse overflows[] = {
    {"overflow-1", over_1},
    {"overflow-8", over_8},
    {"overflow-64", over_64},
    {"overflow-usable", over_usable},
    {"overflow-page", to_page_end},
    {"overflow-1-mib", over_1m},
    {"overflow-128-mib", over_128m},
    {"underflow-1", under_1},
    {"underflow-8", under_8},
    {"underflow-16", under_16},
    {NULL, NULL},
};
