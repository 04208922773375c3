/* Little memory: the arguments say which case, and the limit in MiB. */

#include "process.h"

static size_t limit;

/* A hard limit. */

/* Bytes until malloc fails, as it should before there is more than the limit. */
static size_t fill(struct object **chain, size_t size) {
    size_t bytes = 0;
    for (; bytes <= limit; bytes += size) {
        errno = 0;
        if (!put_object(chain, size, (unsigned)(bytes / size))) {
            CHECK(errno == ENOMEM);
            break;
        }
    }
    return bytes;
}

static void malloc_fails_at_the_limit_and_works_below(void) {
    static const size_t sizes[] = {40, 1000, 20000, 40000, 1 << 20, 3 << 20, 100};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct object *objects = NULL;
        size_t bytes = fill(&objects, sizes[i]);
        CHECK(bytes >= limit / 2 && bytes <= limit);
        CHECK(anonymous_bytes() <= limit + 8 * MIB);
        CHECK(are_whole(objects));
        errno = 0;
        CHECK(opaque(realloc(objects, limit)) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(opaque(calloc(limit, 1)) == NULL && errno == ENOMEM);
        void *aligned = NULL;
        CHECK(posix_memalign(&aligned, 4096, limit) == ENOMEM && aligned == NULL);
        CHECK(are_whole(objects));
        free_objects(&objects);
        void *large = opaque(malloc(limit / 2));
        CHECK(large != NULL);
        free(large);
    }
}

enum { FILLERS = 4, ROUNDS = 3 };

static struct object *filled[FILLERS];
static pthread_barrier_t barrier;

/* All at once to the limit; then each frees what its neighbour has. */
static void *fill_beside_others(void *argument) {
    size_t number = (size_t)argument;
    struct object **next = &filled[(number + 1) % FILLERS];
    for (int round = 0; round < ROUNDS; round++) {
        fill(&filled[number], (size_t)100 << (2 * number));
        pthread_barrier_wait(&barrier);
        CHECK(are_whole(filled[number]));
        pthread_barrier_wait(&barrier);
        free_objects(next);
        pthread_barrier_wait(&barrier);
    }
    return argument;
}

static void threads_meet_the_limit_together(void) {
    pthread_t threads[FILLERS];
    pthread_barrier_init(&barrier, NULL, FILLERS + 1);
    for (size_t i = 0; i < FILLERS; i++) {
        start(&threads[i], fill_beside_others, (void *)i);
    }
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&barrier);
        size_t bytes = 0;
        for (size_t i = 0; i < FILLERS; i++) {
            bytes += bytes_of(filled[i]);
        }
        CHECK(bytes >= limit / 2 && bytes <= limit);
        CHECK(anonymous_bytes() <= limit + 8 * MIB);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
    }
    for (size_t i = 0; i < FILLERS; i++) {
        pthread_join(threads[i], NULL);
    }
    void *large = opaque(malloc(limit / 2));
    CHECK(large != NULL);
    free(large);
}

/* A soft limit. */

static void twice_the_limit_is_had(void) {
    struct object *objects = NULL;
    unsigned random = 1;
    put_objects(&objects, 2 * limit, &random);
    CHECK(bytes_of(objects) >= 2 * limit && anonymous_bytes() >= 2 * limit);
    free_objects(&objects);
}

/* A limit of others: about half of it is ever in use. */

/* A burst in each of many sizes, of which a little stays here and there. */
static void churn_small(void) {
    struct object *kept = NULL;
    unsigned random = 1;
    for (size_t size = 96; size < 32768; size += size / 2) {
        struct object *objects = NULL;
        for (size_t bytes = 0; bytes < limit / 2 - limit / 16; bytes += size) {
            int stays = bytes / 65536 != (bytes + size) / 65536 && size < 1024;
            CHECK(put_object(stays ? &kept : &objects, size, next_random(&random)));
        }
        free_objects(&objects);
    }
    free_objects(&kept);
}

/* One after the other; each then waits, with what it has in its caches. */
static void *churn_once(void *argument) {
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    struct object *objects = NULL;
    unsigned random = (unsigned)(uintptr_t)argument;
    pthread_mutex_lock(&turn);
    put_objects(&objects, limit / 4, &random);
    free_objects(&objects);
    pthread_mutex_unlock(&turn);
    pthread_barrier_wait(&barrier);
    return argument;
}

static void churn_in_threads(void) {
    enum { THREADS = 50 };
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    struct object *live = NULL;
    unsigned random = 1;
    put_objects(&live, limit / 4, &random);
    for (size_t i = 0; i < THREADS; i++) {
        start(&threads[i], churn_once, (void *)i);
    }
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    free_objects(&live);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        return 2;
    }
    const char *mode = argv[1];
    limit = (size_t)atol(argv[2]) << 20;
    if (strcmp(mode, "hard") == 0) {
        RUN(malloc_fails_at_the_limit_and_works_below);
        RUN(threads_meet_the_limit_together);
    } else if (strcmp(mode, "soft") == 0) {
        RUN(twice_the_limit_is_had);
    } else if (strcmp(mode, "small") == 0) {
        RUN(churn_small);
    } else if (strcmp(mode, "threads") == 0) {
        RUN(churn_in_threads);
    } else {
        return 2;
    }
    printf("peak: %zu KiB\n", peak_rss_bytes() >> 10);
    return end_of_checks();
}
