/* Everything at once, for some seconds: threads that allocate, resize, free and hand over objects of all
 * kinds, threads that come and go, forks whose children check and go on, trims and looks at the heap, and
 * (with `limits`) phases in which there is little address space. Every byte of every object is checked
 * when the object is resized, handed over or freed, and in each child. There may be no memory at any time:
 * then nothing else may have changed.
 *
 *   stress SECONDS SEED [limits] [no-forks]
 *
 * It allocates nothing itself: what it keeps of objects is in static arrays. The numbers of each thread
 * come from the seed, the number of its place, and how many threads had that place before. */

#include <fcntl.h>
#include <stdatomic.h>
#include <time.h>

#include "check.h"

enum {
    PLACES = 4,                   /* Threads at a time. */
    OBJECTS = 600,                /* Most objects of a thread. */
    EXCHANGE = 64,                /* Objects on their way from thread to thread. */
    THREAD_STEPS = 20000,         /* Most steps of a thread before another one takes its place. */
    CHILD_STEPS = 400,            /* Steps of the child of a fork. */
    CHILD_SECONDS = 120,          /* After which a child that hangs is ended. */
    WATCHDOG_SECONDS = 180,       /* Without a step of one of the places. */
    STEPS_A_SECOND = 10000,       /* At least, however long that takes, if there is a thread. */
};

static const size_t THREAD_BYTES = 48 << 20; /* Most bytes of a thread's objects, nearly. */
static const size_t MIB = 1 << 20;

struct object {
    unsigned char *start;
    size_t size;
    size_t align; /* As asked for; 0 for an object of `malloc`. */
    uint64_t seed;
};

struct place {
    struct object objects[OBJECTS];
    int count;
    size_t bytes;
    uint64_t random;
    uint64_t threads; /* That had this place. */
    pthread_t thread;
    atomic_int has_ended;
    atomic_ulong steps;
    unsigned long steps_seen; /* By the main thread, and when they became so many. */
    double seen_at;
};

enum { EMPTY, BUSY, FULL };

static struct {
    atomic_int state;
    struct object object;
} exchange[EXCHANGE];

static struct place places[PLACES];
static uint64_t main_seed;
static int with_forks = 1;
static atomic_int stop;
static atomic_ulong nulls, forks, threads_started;

/* Of C23, jemalloc and the layer that refuses calls, where they are. */
extern void free_sized(void *object, size_t size) __attribute__((weak));
extern void free_aligned_sized(void *object, size_t align, size_t size) __attribute__((weak));
extern size_t nallocx(size_t size, int flags) __attribute__((weak));
extern unsigned long refused_calls(void) __attribute__((weak));

static void die(const struct place *place, const char *what, const struct object *object) {
    printf("FAILED: %s: object %p of %zu bytes, aligned to %zu (seed %llu, place %d, thread %llu, pid %d)\n",
           what, (void *)object->start, object->size, object->align, (unsigned long long)main_seed,
           (int)(place - places), (unsigned long long)place->threads, (int)getpid());
    fflush(stdout);
    abort();
}

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static size_t below(struct place *place, size_t bound) {
    place->random += 0x9e3779b97f4a7c15u;
    return (size_t)(mix(place->random) % bound);
}

/* Word `index` of the pattern of an object. */
static uint64_t word(uint64_t seed, size_t index) {
    return (seed + index) * 0x9e3779b97f4a7c15u;
}

static void fill(const struct object *object) {
    size_t words = object->size / 8, index;
    for (index = 0; index < words; index++) {
        uint64_t value = word(object->seed, index);
        memcpy(object->start + 8 * index, &value, 8);
    }
    uint64_t last = word(object->seed, index);
    memcpy(object->start + 8 * index, &last, object->size % 8);
}

static int holds(const struct object *object, size_t bytes) {
    size_t words = bytes / 8, index;
    for (index = 0; index < words; index++) {
        uint64_t value;
        memcpy(&value, object->start + 8 * index, 8);
        if (value != word(object->seed, index)) {
            return 0;
        }
    }
    uint64_t last = word(object->seed, index);
    return memcmp(object->start + 8 * index, &last, bytes % 8) == 0;
}

static void verify(struct place *place, const struct object *object) {
    if (!holds(object, object->size)) {
        die(place, "contents", object);
    }
}

/* Most objects are small; one in some hundreds is large, one in some thousands has its own mapping. */
static size_t any_size(struct place *place) {
    size_t kind = below(place, 4000);
    if (kind < 1) {
        return 64 * MIB + below(place, 8 * MIB);
    }
    if (kind < 40) {
        return 100000 + below(place, 4 * MIB);
    }
    if (kind < 300) {
        return 8000 + below(place, 92000);
    }
    if (kind < 700) {
        return below(place, 17);
    }
    size_t power = (size_t)1 << below(place, 13);
    return power + below(place, power);
}

static void keep(struct place *place, struct object object) {
    place->objects[place->count++] = object;
    place->bytes += object.size;
}

static struct object remove_at(struct place *place, int index) {
    struct object object = place->objects[index];
    place->objects[index] = place->objects[--place->count];
    place->bytes -= object.size;
    return object;
}

static struct object remove_any(struct place *place) {
    return remove_at(place, (int)below(place, (size_t)place->count));
}

static void no_memory(struct place *place, int code) {
    struct object none = {0};
    if (code != ENOMEM) {
        die(place, "errno of a null", &none);
    }
    atomic_fetch_add(&nulls, 1);
}

/* The object must be as it is asked for; then it is filled. */
static void begin(struct place *place, struct object object) {
    size_t align = object.align > 16 ? object.align : object.size < 16 ? 8 : 16;
    if (object.size > 0 && !is_aligned(object.start, align)) {
        die(place, "alignment", &object);
    }
    size_t usable = malloc_usable_size(object.start);
    if (usable < object.size) {
        die(place, "usable size", &object);
    }
    object.seed = mix(place->random + (uintptr_t)object.start);
    fill(&object);
    keep(place, object);
}

static void allocate(struct place *place) {
    struct object object = {.size = any_size(place)};
    size_t how = below(place, 12);
    errno = 0;
    if (how < 3) {
        object.start = opaque(calloc(1, object.size));
        if (object.start != NULL && !is_filled(object.start, object.size, 0)) {
            die(place, "zeroed", &object);
        }
    } else if (how < 5) {
        object.align = (size_t)8 << below(place, below(place, 20) == 0 ? 19 : 10);
        void *start = NULL;
        if (how == 3) {
            start = opaque(aligned_alloc(object.align, object.size));
        } else {
            errno = posix_memalign(&start, object.align, object.size);
        }
        object.start = start;
    } else {
        object.start = opaque(malloc(object.size));
    }
    if (object.start == NULL) {
        return no_memory(place, errno);
    }
    begin(place, object);
}

static void release(struct place *place, struct object object) {
    verify(place, &object);
    errno = 4711;
    size_t how = below(place, 8);
    if (how == 0 && object.align == 0 && free_sized != NULL) {
        free_sized(object.start, object.size);
    } else if (how == 1 && object.align != 0 && free_aligned_sized != NULL) {
        free_aligned_sized(object.start, object.align, object.size);
    } else {
        free(object.start);
    }
    if (errno != 4711) {
        die(place, "errno of free", &object);
    }
}

static void resize(struct place *place) {
    struct object object = remove_any(place);
    verify(place, &object);
    /* As glibc's, a size of zero frees. */
    size_t size = 1 + (below(place, 3) == 0 ? object.size + object.size / 2 : any_size(place));
    size = size < 128 * MIB ? size : 1000;
    errno = 0;
    unsigned char *start = opaque(realloc(object.start, size));
    if (start == NULL) {
        no_memory(place, errno);
        verify(place, &object);
        return keep(place, object);
    }
    struct object old = object;
    object.start = start;
    object.align = 0;
    if (!holds(&object, old.size < size ? old.size : size)) {
        die(place, "contents after realloc", &old);
    }
    object.size = size;
    begin(place, object);
}

static void send(struct place *place) {
    size_t index = below(place, EXCHANGE);
    int expected = EMPTY;
    if (atomic_compare_exchange_strong(&exchange[index].state, &expected, BUSY)) {
        exchange[index].object = remove_any(place);
        atomic_store(&exchange[index].state, FULL);
    }
}

static void receive(struct place *place) {
    size_t index = below(place, EXCHANGE);
    int expected = FULL;
    if (atomic_compare_exchange_strong(&exchange[index].state, &expected, BUSY)) {
        struct object object = exchange[index].object;
        atomic_store(&exchange[index].state, EMPTY);
        verify(place, &object);
        keep(place, object);
    }
}

static void verify_all(struct place *place) {
    for (int i = 0; i < place->count; i++) {
        verify(place, &place->objects[i]);
    }
}

/* The heap tells of no more than there is, and no less than this thread has. */
static void look(struct place *place) {
    struct mallinfo2 info = mallinfo2();
    struct object none = {.size = info.uordblks + info.hblkhd};
    if (none.size < place->bytes || info.uordblks > info.arena) {
        die(place, "mallinfo2", &none);
    }
}

static void work(struct place *place, size_t count);

static void *child_thread(void *argument) {
    work(argument, CHILD_STEPS / 4);
    return NULL;
}

/* The child has this thread's objects, and those that were on their way. */
static void child(struct place *place) {
    alarm(CHILD_SECONDS);
    with_forks = 0;
    verify_all(place);
    for (int i = 0; i < EXCHANGE; i++) {
        if (atomic_load(&exchange[i].state) == FULL) {
            verify(place, &exchange[i].object);
        }
    }
    work(place, CHILD_STEPS);
    pthread_t thread;
    if (below(place, 2) == 0 && pthread_create(&thread, NULL, child_thread, place) == 0) {
        pthread_join(thread, NULL);
    }
    while (place->count > 0) {
        release(place, remove_any(place));
    }
    _exit(0);
}

static void fork_one(struct place *place) {
    struct object none = {0};
    pid_t pid = fork();
    if (pid == 0) {
        child(place);
    }
    if (pid < 0) {
        return; /* As there was no memory. */
    }
    atomic_fetch_add(&forks, 1);
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    none.size = (size_t)status;
    if (status != 0) {
        die(place, "a child; its status is the number of bytes", &none);
    }
}

static void step(struct place *place) {
    size_t what = below(place, 1000);
    int is_full = place->count >= OBJECTS - 1 || place->bytes > THREAD_BYTES;
    if (what < 420 && !is_full) {
        allocate(place);
    } else if (what < 480 && !is_full) {
        receive(place);
    } else if (what == 997 && with_forks && below(place, 3) == 0) {
        fork_one(place);
    } else if (what == 998 && below(place, 4) == 0) {
        malloc_trim(0);
    } else if (what == 999) {
        look(place);
    } else if (what == 996) {
        verify_all(place);
    } else if (place->count == 0) {
        return;
    } else if (what < 540) {
        send(place);
    } else if (what < 660) {
        resize(place);
    } else {
        do {
            release(place, remove_any(place));
        } while (place->count > 0 && place->bytes > THREAD_BYTES);
    }
    atomic_fetch_add(&place->steps, 1);
}

static void work(struct place *place, size_t count) {
    while (count-- > 0 && !atomic_load(&stop)) {
        step(place);
    }
}

/* What a thread leaves is the next one's of its place. */
static void *run_thread(void *argument) {
    struct place *place = argument;
    place->random = main_seed * 1000003 + (uint64_t)(place - places) * 7919 + place->threads;
    work(place, 1 + below(place, below(place, 3) == 0 ? 50 : THREAD_STEPS));
    atomic_store(&place->has_ended, 1);
    return NULL;
}

/* Some milliseconds of little address space, then of plenty. */
static void change_limit(struct place *weather) {
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    long pages = 0;
    /* Not by a stream, which takes memory. */
    char text[64] = {0};
    int file = open("/proc/self/statm", O_RDONLY);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) {
            pages = atol(text);
        }
        close(file);
    }
    if (pages > 0 && below(weather, 2) == 0) {
        limit.rlim_cur = (rlim_t)pages * 4096 + below(weather, 16 * MIB);
    }
    setrlimit(RLIMIT_AS, &limit);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* True as well without a layer that refuses. */
static int has_met_a_refusal(void) {
    return refused_calls == NULL || refused_calls() > 0;
}

/* There may be no memory to start a thread. */
static int any_runs(void) {
    for (int i = 0; i < PLACES; i++) {
        if (atomic_load(&places[i].has_ended) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Whether the threads of a place go on. */
static void watch(struct place *place) {
    unsigned long steps = atomic_load(&place->steps);
    if (steps != place->steps_seen) {
        place->steps_seen = steps;
        place->seen_at = now();
    } else if (now() > place->seen_at + WATCHDOG_SECONDS) {
        struct object none = {0};
        die(place, "no thread takes a step any more", &none);
    }
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    main_seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    int with_limits = 0;
    for (int i = 3; i < argc; i++) {
        with_limits |= strcmp(argv[i], "limits") == 0;
        with_forks &= strcmp(argv[i], "no-forks") != 0;
    }
    static struct place weather;
    weather.random = main_seed;
    for (int i = 0; i < PLACES; i++) {
        places[i].has_ended = 2; /* None has begun. */
        places[i].seen_at = now();
    }
    double end = now() + seconds;
    alarm(0); /* The watchdog is in the loop. */
    while (!atomic_load(&stop)) {
        for (int i = 0; i < PLACES; i++) {
            int state = atomic_load(&places[i].has_ended);
            if (state == 0) {
                continue;
            }
            if (state == 1) {
                pthread_join(places[i].thread, NULL);
                places[i].threads++;
            }
            atomic_store(&places[i].has_ended, 0);
            if (pthread_create(&places[i].thread, NULL, run_thread, &places[i]) != 0) {
                atomic_store(&places[i].has_ended, 2);
            } else {
                atomic_fetch_add(&threads_started, 1);
            }
        }
        if (with_limits) {
            change_limit(&weather);
        }
        struct timespec some = {0, 2000000 + (long)below(&weather, 8000000)};
        nanosleep(&some, NULL);
        unsigned long steps = 0;
        for (int i = 0; i < PLACES; i++) {
            watch(&places[i]);
            steps += places[i].steps_seen;
        }
        double wanted = seconds * STEPS_A_SECOND * (has_met_a_refusal() ? 1 : 10);
        int is_enough = (double)steps >= wanted || !any_runs();
        atomic_store(&stop, now() > end && is_enough);
    }
    struct rlimit no_limit = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &no_limit);
    unsigned long steps = 0;
    for (int i = 0; i < PLACES; i++) {
        if (places[i].has_ended != 2) {
            pthread_join(places[i].thread, NULL);
        }
        steps += places[i].steps;
        while (places[i].count > 0) {
            release(&places[i], remove_any(&places[i]));
        }
    }
    for (int i = 0; i < EXCHANGE; i++) {
        if (exchange[i].state == FULL) {
            release(&places[0], exchange[i].object);
        }
    }
    printf("steps: %lu\nnulls: %lu\nforks: %lu\nthreads: %lu\n", steps, nulls, forks, threads_started);
    printf("refused: %lu\n", refused_calls != NULL ? refused_calls() : 0);
    return end_of_checks();
}
