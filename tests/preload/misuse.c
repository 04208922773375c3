/* Frees what must not be freed, as its argument says, and tells the address before. */

#include <sys/mman.h>

#include "check.h"

static _Alignas(64) char not_allocated[256] = "in the data segment";
static _Alignas(64) char zeros[1 << 20];

static void *tell(void *address) {
    printf("address: %p\n", address);
    fflush(stdout);
    return opaque(address);
}

static void *mapped(void) {
    return mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void free_twice(size_t size) {
    void *object = opaque(malloc(size));
    memset(object, 1, size);
    tell(object);
    free(object);
    free(opaque(object));
}

/* A pointer that must not be given to any function. The thread keeps a large object meanwhile, and so would the next. */
static void *victim(const char *kind, size_t size, char *on_stack) {
    free(opaque(malloc(50000)));
    if (strcmp(kind, "static") == 0) {
        return not_allocated + 64;
    } else if (strcmp(kind, "zeros") == 0) {
        return zeros + sizeof zeros / 2;
    } else if (strcmp(kind, "literal") == 0) {
        return (void *)(((size_t)"a constant that is not on the heap" + 7) / 8 * 8);
    } else if (strcmp(kind, "stack") == 0) {
        return (void *)(((size_t)on_stack + 63) / 64 * 64);
    } else if (strcmp(kind, "odd") == 0) {
        return (char *)mapped() + 4;
    }
    char *object = opaque(malloc(size));
    if (strcmp(kind, "misaligned") == 0) {
        return object + 1;
    } else if (strcmp(kind, "interior") == 0) {
        return object + (size > 8192 ? size / 2 / 16 * 16 : 16);
    } else if (strcmp(kind, "freed") == 0) {
        char *other = opaque(malloc(size));
        free(object);
        free(other);
    }
    return object;
}

static void give(const char *function, void *object) {
    if (strcmp(function, "free") == 0) {
        free(object);
    } else if (strcmp(function, "realloc") == 0) {
        (void)opaque(realloc(object, 100));
    } else {
        (void)malloc_usable_size(object);
    }
}

static void *give_of_stack(void *function) {
    char on_stack[256];
    give(function, tell(victim("stack", 0, on_stack)));
    return NULL;
}

static void *free_among_others(void *object) {
    free(opaque(malloc(24)));
    free(object);
    return NULL;
}

int main(int argc, char **argv) {
    const char *crime = argc > 1 ? argv[1] : "";
    if (strcmp(crime, "foreign") == 0) {
        errno = 1234;
        free(tell((char *)mapped() + 64));
        CHECK(errno == 1234);
        free(opaque((char *)mapped() + 32));
    } else if (strcmp(crime, "foreign-threads") == 0) {
        void *memory = tell(mapped());
        pthread_t threads[8];
        for (int i = 0; i < 8; i++) {
            start(&threads[i], (void *(*)(void *))(void *)free, memory);
        }
        for (int i = 0; i < 8; i++) {
            pthread_join(threads[i], NULL);
        }
    } else if (strcmp(crime, "foreign-realloc") == 0) {
        char *memory = mapped();
        char *result = opaque(realloc(tell(memory), 1000));
        CHECK(result != memory);
        free(result);
        (void)malloc_usable_size(opaque(memory));
    } else if (strcmp(crime, "give") == 0) {
        char on_stack[256];
        give(argv[2], tell(victim(argv[3], (size_t)atol(argv[4]), on_stack)));
        return 3;
    } else if (strcmp(crime, "give-in-thread") == 0) {
        pthread_t thread;
        start(&thread, give_of_stack, argv[2]);
        pthread_join(thread, NULL);
        return 3;
    } else if (strcmp(crime, "twice-with-others-between") == 0) {
        size_t size = (size_t)atol(argv[2]);
        char *twice = opaque(malloc(size)), *other = opaque(malloc(size));
        tell(twice);
        free(twice);
        free(other);
        for (int i = 0; i < 50; i++) {
            free(opaque(malloc(64 + 40 * (size_t)i)));
        }
        free(twice);
        return 3;
    } else if (strcmp(crime, "twice-with-many-between") == 0) {
        size_t size = (size_t)atol(argv[2]);
        static void *others[200];
        char *twice = opaque(malloc(size));
        for (int i = 0; i < 200; i++) {
            others[i] = opaque(malloc(size));
        }
        tell(twice);
        free(twice);
        for (int i = 0; i < 200; i++) {
            free(others[i]);
        }
        free(twice);
        return 3;
    } else if (strcmp(crime, "twice-by-thread-then-main") == 0) {
        void *object = tell(malloc((size_t)atol(argv[2])));
        pthread_t thread;
        start(&thread, free_among_others, object);
        pthread_join(thread, NULL);
        free(opaque(object));
        return 3;
    } else if (strcmp(crime, "delete") == 0) {
        void (*sized_delete)(void *, size_t) =
            (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "_ZdlPvm");
        sized_delete(tell(malloc((size_t)atol(argv[2]))), (size_t)atol(argv[3]));
        return 3;
    } else if (strcmp(crime, "aligned-delete") == 0) {
        void (*sized_delete)(void *, size_t, size_t) =
            (void (*)(void *, size_t, size_t))dlsym(RTLD_DEFAULT, "_ZdlPvmSt11align_val_t");
        sized_delete(tell(aligned_alloc(64, 640)), 6400, 64);
        return 3;
    } else if (strcmp(crime, "twice-by-threads") == 0) {
        void *object = tell(malloc(24));
        void *alive = opaque(malloc(24));
        pthread_t thread;
        start(&thread, free_among_others, object);
        pthread_join(thread, NULL);
        free(opaque(object));
        return alive == NULL;
    } else if (strcmp(crime, "wrong-class") == 0) {
        size_t size = (size_t)atol(argv[2]);
        void (*sdallocx)(void *, size_t, int) =
            (void (*)(void *, size_t, int))dlsym(RTLD_DEFAULT, "sdallocx");
        sdallocx(tell(malloc(size)), size / 4, 0);
        return 3;
    } else if (strcmp(crime, "none") == 0) {
        use_all_kinds(1);
    } else if (strcmp(crime, "twice") == 0) {
        free_twice((size_t)atol(argv[2]));
    } else if (strcmp(crime, "wrong-size") == 0) {
        size_t size = (size_t)atol(argv[2]);
        void (*free_sized)(void *, size_t) =
            (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized");
        char *object = tell(malloc(size));
        free_sized(object, 2 * malloc_usable_size(object));
    } else if (strcmp(crime, "wrong-aligned-size") == 0) {
        void (*free_aligned_sized)(void *, size_t, size_t) =
            (void (*)(void *, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
        char *object = tell(aligned_alloc(64, 640));
        free_aligned_sized(object, 64, 2 * malloc_usable_size(object));
    } else {
        return 2;
    }
    use_all_kinds(2);
    return end_of_checks();
}
