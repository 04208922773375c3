/* A process that does nothing any more: what it freed goes back. */

#include <stdatomic.h>

#include "process.h"

enum { WORKERS = 4, PARTS = 100, KEPT_OF = 20, SLEEPERS = 200, AT_A_TIME = 8 };

static struct object *parts[WORKERS][PARTS];
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opens = PTHREAD_COND_INITIALIZER;
static int is_open;
static atomic_int ready, running;

/* Blocks until the main thread lets all go. */
static void wait_at_the_gate(void) {
    atomic_fetch_add(&ready, 1);
    pthread_mutex_lock(&gate);
    while (!is_open) {
        pthread_cond_wait(&opens, &gate);
    }
    pthread_mutex_unlock(&gate);
}

static void open_the_gate(void) {
    pthread_mutex_lock(&gate);
    is_open = 1;
    pthread_cond_broadcast(&opens);
    pthread_mutex_unlock(&gate);
}

static void falls_to(size_t bound) {
    CHECK(EVENTUALLY(anonymous_bytes() <= bound));
    printf("  %zu of %zu KiB\n", anonymous_bytes() >> 10, bound >> 10);
}

/* Its part of 256 MiB; frees 95 % of it. */
static void *burst(void *argument) {
    struct object **mine = argument;
    unsigned random = (unsigned)(mine - parts[0]) + 1;
    for (int part = 0; part < PARTS; part++) {
        put_objects(&mine[part], 256 * MIB / WORKERS / PARTS, &random);
    }
    CHECK(anonymous_bytes() >= 256 * MIB / WORKERS);
    for (int part = 0; part < PARTS; part++) {
        if (part % KEPT_OF != 0) {
            free_objects(&mine[part]);
        }
    }
    wait_at_the_gate();
    return argument;
}

static void burst_goes_back(void) {
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        start(&threads[i], burst, parts[i]);
    }
    CHECK(EVENTUALLY(ready == WORKERS));
    size_t live = 0;
    for (int i = 0; i < WORKERS; i++) {
        for (int part = 0; part < PARTS; part++) {
            live += bytes_of(parts[i][part]);
        }
    }
    CHECK(live >= 12 * MIB && live <= 16 * MIB);
    falls_to(live + live / 4 + 8 * MIB);
    for (int i = 0; i < WORKERS; i++) {
        for (int part = 0; part < PARTS; part++) {
            free_objects(&parts[i][part]);
        }
    }
    open_the_gate();
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void *allocate_once(void *argument) {
    struct object *objects = NULL;
    unsigned random = (unsigned)(uintptr_t)argument;
    put_objects(&objects, 10 * MIB, &random);
    free_objects(&objects);
    atomic_fetch_sub(&running, 1);
    wait_at_the_gate();
    /* It works as before. */
    put_objects(&objects, 100000, &random);
    free_objects(&objects);
    return argument;
}

static void threads_that_sleep_keep_little(void) {
    static pthread_t threads[SLEEPERS];
    size_t before = anonymous_bytes();
    for (size_t i = 0; i < SLEEPERS; i++) {
        CHECK(EVENTUALLY(running < AT_A_TIME));
        atomic_fetch_add(&running, 1);
        start(&threads[i], allocate_once, (void *)i);
    }
    CHECK(EVENTUALLY(ready == SLEEPERS));
    falls_to(before + SLEEPERS * 65536 + 8 * MIB);
    open_the_gate();
    for (int i = 0; i < SLEEPERS; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* Freed by threads that wait, and by this one. */
static void trim_releases_what_is_free(void) {
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        start(&threads[i], burst, parts[i]);
    }
    CHECK(EVENTUALLY(ready == WORKERS && others_wait()));
    size_t before = anonymous_bytes();
    CHECK(before >= 200 * MIB);
    CHECK(malloc_trim(0) == 1);
    size_t after = anonymous_bytes();
    CHECK(after <= 32 * MIB);
    printf("  %zu KiB, %zu after\n", before >> 10, after >> 10);
    open_the_gate();
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        for (int part = 0; part < PARTS; part++) {
            free_objects(&parts[i][part]);
        }
    }
    CHECK(malloc_trim(0) == 1);
    CHECK(anonymous_bytes() < after - 8 * MIB);
}

/* Small objects that stay, one in 8 KiB, let some of the pages go. */
static void trim_releases_what_is_free_among_objects(void) {
    struct object *kept = NULL, *objects = NULL;
    for (size_t bytes = 0; bytes < 64 * MIB; bytes += 200) {
        CHECK(put_object(bytes % 8192 < 200 ? &kept : &objects, 200, (unsigned)bytes));
    }
    size_t before = anonymous_bytes();
    free_objects(&objects);
    CHECK(malloc_trim(0) == 1);
    size_t after = anonymous_bytes();
    CHECK(before >= 64 * MIB && after <= before - 20 * MIB);
    printf("  %zu KiB, %zu after\n", before >> 10, after >> 10);
    free_objects(&kept);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "burst") == 0) {
        RUN(burst_goes_back);
    } else if (strcmp(mode, "threads") == 0) {
        RUN(threads_that_sleep_keep_little);
    } else if (strcmp(mode, "trim") == 0) {
        RUN(trim_releases_what_is_free);
        RUN(trim_releases_what_is_free_among_objects);
    } else {
        return 2;
    }
    return end_of_checks();
}
