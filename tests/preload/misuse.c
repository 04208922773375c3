/* Frees what must not be freed, as its argument says, and tells the address before. */

#include <sys/mman.h>

#include "check.h"

static _Alignas(64) char not_allocated[256];

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

int main(int argc, char **argv) {
    const char *crime = argc > 1 ? argv[1] : "";
    if (strcmp(crime, "foreign") == 0) {
        errno = 1234;
        free(tell((char *)mapped() + 64));
        CHECK(errno == 1234);
        free(opaque(not_allocated));
        free(opaque((char *)mapped() + 32));
    } else if (strcmp(crime, "foreign-static") == 0) {
        free(tell(not_allocated + 64));
        free(opaque(mapped()));
    } else if (strcmp(crime, "foreign-threads") == 0) {
        tell(not_allocated);
        pthread_t threads[8];
        for (int i = 0; i < 8; i++) {
            start(&threads[i], (void *(*)(void *))(void *)free, not_allocated);
        }
        for (int i = 0; i < 8; i++) {
            pthread_join(threads[i], NULL);
        }
    } else if (strcmp(crime, "foreign-realloc") == 0) {
        char *result = opaque(realloc(tell(not_allocated), 1000));
        CHECK(result != not_allocated);
        free(result);
        (void)malloc_usable_size(opaque(not_allocated));
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
