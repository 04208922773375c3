/* Registers HANDLERS handlers of fork, which allocate, in a constructor: that may run before the
 * allocator's own, and before anything has been allocated. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

int forks_handler_calls(int kind);

static int calls[3];
static void *made_before;

static void allocate(int kind) {
    static const size_t sizes[] = {10, 500, 9000, 100000, 300000};
    enum { COUNT = 5, EACH = 200 / HANDLERS };
    void *objects[COUNT * EACH];
    for (int i = 0; i < COUNT * EACH; i++) {
        objects[i] = malloc(sizes[i % COUNT]);
        *(volatile char *)objects[i] = 1;
    }
    for (int i = 0; i < COUNT * EACH; i++) {
        free(objects[i]);
    }
    calls[kind]++;
}

static void prepare(void) {
    allocate(0);
    free(made_before);
    made_before = malloc(40000);
}

static void in_parent(void) {
    allocate(1);
    free(made_before);
    made_before = NULL;
}

static void in_child(void) {
    allocate(2);
    free(made_before);
    made_before = NULL;
}

__attribute__((constructor)) static void register_handlers(void) {
    for (int i = 0; i < HANDLERS; i++) {
        pthread_atfork(prepare, in_parent, in_child);
    }
}

int forks_handler_calls(int kind) {
    return calls[kind];
}
