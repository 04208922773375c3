/* Requests at the edges of what can be served. The argument says which. */

#include <setjmp.h>

#include "check.h"

enum { BIG = 100 << 20 };

/* Objects of no bytes at huge alignments take address space as others do. */
static void nothing_at_huge_alignment(void) {
    enum { COUNT = 8 };
    static const size_t aligns[COUNT] = {1 << 26, 1 << 26, 1 << 27, 1 << 27, 1 << 20, 1 << 20, 1 << 22, 1 << 28};
    for (int turn = 0; turn < 3; turn++) {
        char *objects[COUNT], *big[COUNT];
        for (int i = 0; i < COUNT; i++) {
            if (i % 2 == 0) {
                objects[i] = opaque(aligned_alloc(aligns[i], opaque_size(0)));
            } else {
                objects[i] = NULL;
                CHECK(posix_memalign((void **)&objects[i], aligns[i], opaque_size(0)) == 0);
            }
            CHECK(objects[i] != NULL && is_aligned(objects[i], aligns[i]));
            for (int j = 0; j < i; j++) {
                CHECK(objects[j] != objects[i]);
            }
            big[i] = opaque(malloc(BIG));
            CHECK(big[i] != NULL);
            paint(big[i], 5000, (unsigned)i);
            paint(big[i] + BIG - 5000, 5000, (unsigned)i);
            for (int j = 0; j <= i; j++) {
                CHECK(objects[j] < big[i] || objects[j] >= big[i] + BIG);
            }
        }
        for (int i = 0; i < COUNT; i++) {
            free(objects[i]);
        }
        for (int i = 0; i < COUNT; i++) {
            CHECK(is_painted(big[i], 5000, (unsigned)i));
            CHECK(is_painted(big[i] + BIG - 5000, 5000, (unsigned)i));
            free(big[i]);
        }
    }
}

struct link {
    struct link *next;
};

/* Without memory, what is too large for its contents stays where it is. */
static void shrink_without_memory(void) {
    enum { COUNT = 5 };
    static const size_t sizes[COUNT] = {4000, 20000, 40000, 200000, 5 << 20};
    char *objects[COUNT];
    for (int i = 0; i < COUNT; i++) {
        objects[i] = opaque(malloc(sizes[i]));
        paint(objects[i], 100, (unsigned)i);
    }
    limit_growth(32 << 20);
    static const size_t fillers[] = {1 << 20, 40000, 4000, 2000, 500, 112, 100, 64, 16};
    struct link *chain = NULL;
    for (size_t i = 0; i < sizeof fillers / sizeof *fillers; i++) {
        struct link *object;
        while ((object = opaque(malloc(fillers[i]))) != NULL) {
            object->next = chain;
            chain = object;
        }
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK(opaque(malloc(100)) == NULL);
        char *shrunk = opaque(realloc(objects[i], 100));
        CHECK(shrunk != NULL && is_painted(shrunk, 100, (unsigned)i));
        objects[i] = shrunk != NULL ? shrunk : objects[i];
        /* What that gave back is taken again. */
        struct link *object;
        while ((object = opaque(malloc(100))) != NULL) {
            object->next = chain;
            chain = object;
        }
    }
    while (chain != NULL) {
        struct link *next = chain->next;
        free(chain);
        chain = next;
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK(is_painted(objects[i], 100, (unsigned)i));
        free(objects[i]);
    }
    void *object = opaque(malloc(4 << 20));
    CHECK(object != NULL);
    free(object);
}

static void shrink_in_a_child(void) {
    in_child(shrink_without_memory);
}

/* Before anything else is allocated. It may fail, or not. */
static void first_call(size_t tib) {
    char *object = opaque(malloc(opaque_size(tib << 40)));
    char *second = opaque(malloc(100));
    CHECK(second != NULL);
    memset(second, 1, 100);
    if (object != NULL) {
        *(volatile char *)object = 1;
    }
    free(object);
    free(second);
    use_all_kinds(1);
    printf("first call: %s\n", check_failures == 0 ? "ok" : "FAILED");
}

static int wants_keys;

/* Leaves no key for anyone who comes later. */
static void take_all_keys(int argc, char **argv, char **envp) {
    (void)envp;
    wants_keys = argc > 1 && strcmp(argv[1], "keys") == 0;
    pthread_key_t key;
    while (wants_keys && pthread_key_create(&key, NULL) == 0) {
    }
}

__attribute__((section(".preinit_array"), used)) static void (*const at_preinit)(int, char **, char **) =
    take_all_keys;

static void *short_thread(void *argument) {
    static const size_t sizes[] = {10, 100, 1000, 5000, 20000, 60000};
    char *objects[60];
    for (int i = 0; i < 60; i++) {
        size_t size = sizes[i % 6];
        objects[i] = opaque(malloc(size));
        memset(objects[i], 1, size);
    }
    for (int i = 0; i < 60; i++) {
        free(objects[i]);
    }
    return argument;
}

static void run_short_threads(int count) {
    for (int i = 0; i < count; i++) {
        pthread_t threads[2];
        start(&threads[0], short_thread, NULL);
        start(&threads[1], short_thread, NULL);
        pthread_join(threads[0], NULL);
        pthread_join(threads[1], NULL);
    }
}

/* Nothing tells the allocator that they end, and still they leave nothing behind. */
static void threads_without_a_key(void) {
    pthread_key_t key;
    CHECK(pthread_key_create(&key, NULL) == EAGAIN);
    run_short_threads(50);
    long resident = resident_kib();
    struct mallinfo2 before = mallinfo2();
    run_short_threads(1000);
    struct mallinfo2 after = mallinfo2();
    CHECK(resident_kib() < resident + (8 << 10));
    CHECK(after.uordblks < before.uordblks + (2 << 20));
    CHECK(after.arena + after.hblkhd < before.arena + before.hblkhd + (8 << 20));
}

enum { MANY = 4000 };

static int jumps;
static sigjmp_buf after_abort;

/* Allocates what was freed twice. */
static void when_aborted(int signal) {
    (void)signal;
    void *objects[3000];
    for (int i = 0; i < 3000; i++) {
        objects[i] = opaque(malloc(64));
    }
    for (int i = 0; i < 3000; i++) {
        free(objects[i]);
    }
    if (jumps) {
        siglongjmp(after_abort, 1);
    }
    _exit(43);
}

/* Found when the thread's cache of freed objects is emptied, in the middle of the heap. */
static int free_twice_with_a_handler(void) {
    signal(SIGABRT, when_aborted);
    if (sigsetjmp(after_abort, 1) != 0) {
        void *object = opaque(malloc(1000));
        free(object);
        return 43;
    }
    static void *objects[MANY];
    for (int i = 0; i < MANY; i++) {
        objects[i] = opaque(malloc(64));
    }
    printf("address: %p\n", objects[0]);
    fflush(stdout);
    free(objects[0]);
    free(objects[1]);
    free(opaque(objects[0]));
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 2 * (turn == 0); i < MANY; i++) {
            free(objects[i]);
        }
        for (int i = 0; i < MANY; i++) {
            objects[i] = opaque(malloc(64));
        }
    }
    return 1;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "first") == 0) {
        first_call((size_t)atol(argv[2]));
    } else if (strcmp(mode, "aligned") == 0) {
        RUN(nothing_at_huge_alignment);
    } else if (strcmp(mode, "shrink") == 0) {
        RUN(shrink_in_a_child);
    } else if (strcmp(mode, "keys") == 0) {
        RUN(threads_without_a_key);
    } else if (strcmp(mode, "twice-exit") == 0 || strcmp(mode, "twice-jump") == 0) {
        jumps = strcmp(mode, "twice-jump") == 0;
        return free_twice_with_a_handler();
    } else {
        return 2;
    }
    return end_of_checks();
}
