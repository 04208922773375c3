/* Threads that come, go, hand over memory and leave it to destructors. */

#include <stdatomic.h>
#include <sys/time.h>

#include "check.h"

static void *allocate_and_hand_over(void *argument) {
    char *object = opaque(malloc(100 + (size_t)(uintptr_t)argument % 5000));
    CHECK(object != NULL);
    free(opaque(malloc(24)));
    memset(object, 4, 100);
    return object;
}

static void ten_thousand_short_threads(void) {
    enum { AT_ONCE = 8, TURNS = 10000 / AT_ONCE };
    for (uintptr_t turn = 0; turn < TURNS; turn++) {
        pthread_t threads[AT_ONCE];
        for (uintptr_t i = 0; i < AT_ONCE; i++) {
            start(&threads[i], allocate_and_hand_over, (void *)(turn * AT_ONCE + i));
        }
        for (int i = 0; i < AT_ONCE; i++) {
            void *object = NULL;
            pthread_join(threads[i], &object);
            CHECK(is_filled(object, 100, 4));
            free(object);
        }
    }
    /* Each thread that left 20 KiB behind would make 200 MB. */
    CHECK(resident_kib() < 100000);
}

enum { FREED = 20000 };
static char *to_free[FREED];

static void *only_free(void *argument) {
    for (int i = 0; i < FREED; i++) {
        free(to_free[i]);
    }
    return argument;
}

static void a_thread_that_only_frees(void) {
    for (int turn = 0; turn < 20; turn++) {
        for (int i = 0; i < FREED; i++) {
            to_free[i] = opaque(malloc(i % 100 == 0 ? 40000 : 16 + (size_t)i % 1500));
            memset(to_free[i], 1, 16);
            CHECK(to_free[i] != NULL);
        }
        pthread_t thread;
        start(&thread, only_free, NULL);
        pthread_join(thread, NULL);
    }
    /* 24 MB a turn. */
    CHECK(resident_kib() < 200000);
}

enum { KEYS = 100, KEYS_BEFORE = 40, KEY_THREADS = 40 };
static pthread_key_t keys[KEYS];
static atomic_int destructor_calls;

struct value {
    int key;
    int round;
    char *text;
};

static void set_value(int key, int round) {
    struct value *value = opaque(malloc(sizeof *value));
    value->key = key;
    value->round = round;
    value->text = opaque(malloc(300 * (size_t)(key + 1)));
    memset(value->text, key, 300 * (size_t)(key + 1));
    CHECK(pthread_setspecific(keys[key], value) == 0);
}

/* Comes back until the last round that POSIX promises. */
static void destroy_value(void *argument) {
    struct value *value = argument;
    CHECK(is_filled(value->text, 300 * (size_t)(value->key + 1), (unsigned char)value->key));
    atomic_fetch_add(&destructor_calls, 1);
    free(opaque(realloc(value->text, 50)));
    if (value->round < 4) {
        set_value(value->key, value->round + 1);
    }
    free(opaque(calloc(10, 1000)));
    free(value);
}

static void *use_keys(void *argument) {
    for (int key = 0; key < KEYS; key++) {
        set_value(key, 1);
    }
    return argument;
}

/* Threads whose first use of malloc is in a destructor. */
static void allocate_at_last(void *argument) {
    (void)argument;
    use_all_kinds(1);
    atomic_fetch_add(&destructor_calls, 1);
}

static pthread_key_t last_key;

static void *use_the_last_key(void *argument) {
    pthread_setspecific(last_key, argument);
    return NULL;
}

static void make_keys(int from, int to) {
    for (int key = from; key < to; key++) {
        if (pthread_key_create(&keys[key], destroy_value) != 0) {
            abort();
        }
    }
}

static void keys_with_destructors(void) {
    make_keys(KEYS_BEFORE, KEYS);
    for (int turn = 0; turn < KEY_THREADS / 4; turn++) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) {
            start(&threads[i], use_keys, NULL);
        }
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    CHECK(atomic_load(&destructor_calls) == KEY_THREADS * KEYS * 4);

    atomic_store(&destructor_calls, 0);
    CHECK(pthread_key_create(&last_key, allocate_at_last) == 0);
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        start(&thread, use_the_last_key, &last_key);
        pthread_join(thread, NULL);
    }
    CHECK(atomic_load(&destructor_calls) == 50);
}

static atomic_long ticks;

static void tick(int signal) {
    (void)signal;
    int saved = errno;
    errno = 77;
    atomic_fetch_add(&ticks, 1);
    errno = saved;
}

static atomic_int stop;

static void *allocate_until_stopped(void *argument) {
    while (!atomic_load(&stop)) {
        for (unsigned i = 0; i < 100; i++) {
            char *object = opaque(malloc(10 + i * i * 7));
            paint(object, 10, i);
            object = opaque(realloc(object, 20 + i * i * 9));
            CHECK(is_painted(object, 10, i));
            free(object);
        }
    }
    return argument;
}

/* The handler does not allocate. */
static void a_profiling_timer(void) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = 0};
    CHECK(sigaction(SIGPROF, &action, NULL) == 0);
    struct itimerval every_ms = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    pthread_t thread;
    start(&thread, allocate_until_stopped, NULL);
    CHECK(setitimer(ITIMER_PROF, &every_ms, NULL) == 0);
    static char *objects[1000];
    unsigned random = 1;
    while (atomic_load(&ticks) < 60) {
        for (int i = 0; i < 1000; i++) {
            unsigned j = next_random(&random) % 1000;
            free(objects[j]);
            objects[j] = opaque(malloc(next_random(&random) % 60000));
            CHECK(objects[j] != NULL);
        }
        errno = 1234;
        for (int i = 0; i < 1000; i++) {
            free(objects[i]);
            objects[i] = NULL;
        }
        CHECK(errno == 1234);
    }
    CHECK(setitimer(ITIMER_PROF, &never, NULL) == 0);
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
}

int main(void) {
    /* Keys of the lowest numbers, before this thread has allocated anything. */
    make_keys(0, KEYS_BEFORE);
    RUN(keys_with_destructors);
    RUN(ten_thousand_short_threads);
    RUN(a_thread_that_only_frees);
    RUN(a_profiling_timer);
    return end_of_checks();
}
