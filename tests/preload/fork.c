/* New processes made while other threads are in the middle of allocations. */

#include <spawn.h>
#include <stdatomic.h>

#include "check.h"

enum { THREADS_MAX = 8 };

extern char **environ;

static const char *own_path;
static atomic_int stop;
static atomic_long turns;

/* Threads of odd numbers use large objects, small ones the others. */
static void *allocate_all_the_time(void *argument) {
    unsigned random = (unsigned)(uintptr_t)argument;
    size_t least = random % 2 == 0 ? 1 : 40000;
    char *objects[64] = {NULL};
    while (!atomic_load(&stop)) {
        unsigned i = next_random(&random) % 64;
        size_t size = least + next_random(&random) % (i == 0 ? 200000 : i < 4 ? 20000 : 500);
        objects[i] = i % 2 == 0 ? (free(objects[i]), malloc(size)) : realloc(objects[i], size);
        objects[i][size - 1] = 1;
        /* Other allocators' locks are left to the one that forks now and then. */
        if (atomic_fetch_add(&turns, 1) % 64 == 0 && !check_ours) {
            sched_yield();
        }
    }
    for (int i = 0; i < 64; i++) {
        free(objects[i]);
    }
    return NULL;
}

/* Runs `body` while the threads are at work. */
static void among_threads(void (*body)(void)) {
    int count = check_ours ? THREADS_MAX : 2;
    pthread_t threads[THREADS_MAX];
    atomic_store(&stop, 0);
    for (int i = 0; i < count; i++) {
        start(&threads[i], allocate_all_the_time, (void *)(uintptr_t)i);
    }
    long before = atomic_load(&turns);
    body();
    /* They went on. */
    while (atomic_load(&turns) < before + 1000) {
        sched_yield();
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void *kinds_in_a_thread(void *argument) {
    use_all_kinds(3);
    return argument;
}

static void allocate_in_a_grandchild(void) {
    use_all_kinds(4);
}

/* With other allocators a fork may wait long for a lock that the threads pass to one another. */
static void fork_often(void) {
    unsigned forks = check_ours ? 200 : 10;
    for (unsigned i = 0; i < forks; i++) {
        char *parents[3] = {malloc(50), malloc(5000), malloc(200000)};
        memset(parents[1], 7, 5000);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(PATIENCE);
            check_failures = 0;
            CHECK(is_filled(parents[1], 5000, 7));
            for (int j = 0; j < 3; j++) {
                free(parents[j]);
            }
            use_all_kinds(i);
            if (i % 10 == 0) {
                pthread_t thread;
                start(&thread, kinds_in_a_thread, NULL);
                pthread_join(thread, NULL);
                in_child(allocate_in_a_grandchild);
            }
            _exit(check_failures != 0);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        for (int j = 0; j < 3; j++) {
            free(parents[j]);
        }
    }
}

static void fork_among_threads(void) {
    among_threads(fork_often);
}

static void expect_success(pid_t child) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void vfork_and_spawn(void) {
    char *const second[] = {(char *)own_path, "second", NULL};
    for (volatile int i = 0; i < (check_ours ? 25 : 3); i++) {
        void *object = opaque(malloc(100));
        pid_t child = vfork();
        if (child == 0) {
            execv(own_path, second);
            _exit(99);
        }
        CHECK(child > 0);
        expect_success(child);
        CHECK(posix_spawn(&child, own_path, NULL, NULL, second, environ) == 0);
        expect_success(child);
        free(object);
    }
    CHECK(system("exit 3") == 3 << 8);
    FILE *pipe = popen("echo from a shell", "r");
    char line[64] = "";
    CHECK(pipe != NULL && fgets(line, sizeof line, pipe) != NULL);
    CHECK(strcmp(line, "from a shell\n") == 0);
    CHECK(pclose(pipe) == 0);
}

static void spawn_among_threads(void) {
    among_threads(vfork_and_spawn);
}

static void *execute(void *argument) {
    char *const second[] = {(char *)own_path, "second", NULL};
    execv(own_path, second);
    return argument;
}

static void exec_in_a_thread(void) {
    fflush(stdout);
    atomic_store(&stop, 0);
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(PATIENCE);
            pthread_t threads[3];
            start(&threads[0], allocate_all_the_time, NULL);
            start(&threads[1], allocate_all_the_time, NULL);
            start(&threads[2], execute, NULL);
            pthread_join(threads[0], NULL);
            _exit(99);
        }
        expect_success(child);
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "second") == 0) {
        use_all_kinds(5);
        return check_failures != 0;
    }
    own_path = argv[0];
    check_ours = argc > 1 && strcmp(argv[1], "ours") == 0;
    RUN(fork_among_threads);
    RUN(spawn_among_threads);
    RUN(exec_in_a_thread);
    return end_of_checks();
}
