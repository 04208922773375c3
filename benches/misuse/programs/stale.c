/* Uses of memory that is free, or was never there. The harm is that the memory is handed out again with
 * what was written to it, or that old data is read. */

#include "program.h"

enum { ROUNDS = 8, SECRET = 0x5a };

/* Allocates and frees until memory at `stale` is handed out again; null if it never is. */
static unsigned char *reuse(unsigned char *stale, size_t size) {
    static unsigned char *objects[WORK_MAX];
    size_t count = work_count(size);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < count; i++) {
            objects[i] = opaque(malloc(size));
            if (objects[i] <= stale && stale < objects[i] + size) {
                return objects[i];
            }
        }
        for (size_t i = 0; i < count; i++) {
            free(objects[i]);
        }
    }
    return NULL;
}

static void write_late(size_t size, size_t others, size_t offset) {
    void *between[100];
    unsigned char *freed = object(size);
    memset(freed, 1, size);
    for (size_t i = 0; i < others; i++) {
        between[i] = object(size);
    }
    free(freed);
    for (size_t i = 0; i < others; i++) {
        free(between[i]);
    }
    volatile uint64_t *late = opaque(freed + offset);
    misuse(freed + offset);
    uint64_t written = *late ^ 0x4141414141414141;
    *late = written;
    returned();
    if (reuse(opaque(freed + offset), size) != NULL && *late == written) {
        harm("an object was handed out with what was written");
    }
}

static void write_at_once(size_t size) { write_late(size, 0, 0); }
static void write_after_100(size_t size) { write_late(size, 100, 0); }
static void write_middle(size_t size) { write_late(size, 0, size / 2 & ~7ul); }

static void read_freed(size_t size) {
    unsigned char *freed = object(size);
    memset(freed, SECRET, size);
    free(freed);
    misuse(freed + size / 2);
    int is_old = *(volatile unsigned char *)opaque(freed + size / 2) == SECRET;
    returned();
    if (is_old) {
        harm("old data was read");
    }
}

static void old_secret(size_t size) {
    unsigned char *freed = object(size);
    memset(freed, SECRET, size);
    free(freed);
    misuse(freed + size / 2);
    unsigned char *stale = opaque(freed + size / 2), *again = reuse(stale, size);
    returned();
    if (again != NULL && *(volatile unsigned char *)stale == SECRET) {
        harm("an object held old data");
    }
}

static void use_of_nothing(size_t size) {
    unsigned char *nothing = opaque(malloc(0));
    misuse(nothing);
    *(volatile unsigned char *)nothing ^= 0x41;
    returned();
    work(size);
}

const struct misuse stale[] = {
    {"write-after-free", write_at_once},
    {"write-after-free-100", write_after_100},
    {"write-after-free-middle", write_middle},
    {"read-after-free", read_freed},
    {"old-data", old_secret},
    {"use-of-malloc-0", use_of_nothing},
    {NULL, NULL},
};
