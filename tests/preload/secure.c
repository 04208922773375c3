/* Commits crimes that the secure mode ends, as its arguments say: a crime and a size. Tells the address before. */

#include "check.h"
#include <sched.h>

static char *tell(void *address) {
    printf("address: %p\n", address);
    fflush(stdout);
    return opaque(address);
}

/* What one CPU's caches keep, another one does not get. */
static void stay_on_one_cpu(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
}

/* More than wait to be used again, wherever. */
static void allocate_many(size_t size) {
    size_t count = 4000000 / (size < 1000 ? 1000 : size);
    void **objects = malloc(count * sizeof *objects);
    for (size_t i = 0; i < count; i++) {
        objects[i] = opaque(malloc(size));
    }
    for (size_t i = 0; i < count; i++) {
        free(objects[i]);
    }
    for (size_t i = 0; i < 4 * count; i++) {
        opaque(malloc(size));
    }
}

static void fork_with_objects(void) {
    char *objects[500];
    for (int i = 0; i < 500; i++) {
        objects[i] = malloc(i + 1);
        memset(objects[i], i, i + 1);
    }
    pid_t child = fork();
    for (int i = 0; i < 500; i++) {
        CHECK(objects[i][i] == (char)i);
        free(objects[i]);
    }
    use_all_kinds(3);
    if (child == 0) {
        _exit(check_failures != 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void usable_size_is_what_was_asked_for(void) {
    size_t sizes[] = {0, 1, 15, 16, 17, 100, 1000, 5000, 33000, 100000, 100000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *object = malloc(sizes[i]);
        CHECK(malloc_usable_size(object) == sizes[i]);
        CHECK(is_aligned(object, sizes[i] <= 8 ? 8 : 16));
        memset(object, 1, sizes[i]);
        object = realloc(object, sizes[i] + 1);
        CHECK(malloc_usable_size(object) == sizes[i] + 1);
        free(object);
        for (size_t align = 16; align <= 65536; align *= 4) {
            object = aligned_alloc(align, sizes[i]);
            CHECK(is_aligned(object, align) && malloc_usable_size(object) == sizes[i]);
            free(object);
        }
    }
    CHECK(malloc_usable_size(NULL) == 0);
}

int main(int argc, char **argv) {
    const char *crime = argc > 1 ? argv[1] : "";
    size_t size = argc > 2 ? (size_t)atol(argv[2]) : 0;
    if (strcmp(crime, "none") == 0) {
        RUN(usable_size_is_what_was_asked_for);
        RUN(fork_with_objects);
        use_all_kinds(1);
        return end_of_checks();
    }
    stay_on_one_cpu();
    char *object = malloc(size);
    if (strcmp(crime, "overflow") == 0) {
        tell(object)[size] = 0;
        free(object);
    } else if (strcmp(crime, "overflow-realloc") == 0) {
        tell(object)[size] = 'x';
        opaque(realloc(object, size + 1));
    } else if (strcmp(crime, "overflow-aligned") == 0) {
        object = aligned_alloc(256, size);
        tell(object)[size] = 0;
        free(object);
    } else if (strcmp(crime, "overflow-zeroed") == 0) {
        object = calloc(1, size);
        tell(object)[size] = 0;
        free(object);
    } else if (strcmp(crime, "write") == 0) {
        free(object);
        tell(object)[size / 2] = 0;
        allocate_many(size);
    } else if (strcmp(crime, "twice") == 0) {
        free(object);
        for (int i = 0; i < 1000; i++) {
            free(opaque(malloc(i)));
        }
        free(tell(object));
    } else if (strcmp(crime, "inside") == 0) {
        free(tell(object + 16));
    } else if (strcmp(crime, "wrong-size") == 0) {
        void (*free_sized)(void *, size_t) =
            (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized");
        free_sized(tell(object), size + 1);
    } else {
        return 2;
    }
    return 3;
}
