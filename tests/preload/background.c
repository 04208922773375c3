/* The allocator's thread beside those of the program: the first argument says which case. */

#include <stdatomic.h>

#include "process.h"

#define NAME "spanmalloc"

static struct object *much;
static const char *own_path;

static void allocate(size_t bytes) {
    unsigned random = 1;
    put_objects(&much, bytes, &random);
}

static void allocate_much(void) {
    allocate(64 * MIB);
}

/* The number of the thread when it has its name; 0 if there is none. */
static long background(void) {
    long thread;
    if (count_threads(NAME, &thread) > 1) {
        EVENTUALLY((count_threads(NAME, &thread), thread != 0));
    }
    return thread;
}

/* Where there is no other thread, there are none but the main one. */
static int threads(void) {
    long thread;
    return count_threads(NAME, &thread);
}

static void large_process_has_a_thread(void) {
    CHECK(threads() == 1);
    allocate_much();
    CHECK(threads() == 2 && background() != 0);
    /* One is enough. */
    allocate_much();
    CHECK(threads() == 2);
    free_objects(&much);
}

static void there_is_no_thread(void) {
    allocate_much();
    free_objects(&much);
    CHECK(threads() == 1);
}

static void small_process_has_no_thread(void) {
    unsigned random = 1;
    struct object *little = NULL;
    for (int round = 0; round < 50; round++) {
        put_objects(&little, MIB, &random);
        free_objects(&little);
    }
    CHECK(threads() == 1);
}

/* Signals. */

static atomic_long handled_by;

static void note_thread(int signal) {
    (void)signal;
    handled_by = syscall(SYS_gettid);
}

/* Those below SIGRTMIN are the C library's own. */
static int can_be_blocked(int signal) {
    return signal != SIGKILL && signal != SIGSTOP && (signal < 32 || signal >= SIGRTMIN);
}

static int is_blocked(int signal) {
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    return sigismember(&set, signal);
}

static void all_signals_are_blocked_in_it(void) {
    allocate_much();
    const char *line = strstr(text_of_thread(background(), "status"), "SigBlk:");
    unsigned long long blocked = 0;
    CHECK(line != NULL && sscanf(line, "SigBlk: %llx", &blocked) == 1);
    for (int signal = 1; signal <= SIGRTMAX; signal++) {
        CHECK(!can_be_blocked(signal) || (blocked >> (signal - 1) & 1));
    }
    /* Sends a signal of the C library's own to each thread, and waits for all. */
    CHECK(setuid(getuid()) == 0);
}

static void starting_it_leaves_mask_and_errno(void) {
    sigset_t mask, before, after;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGRTMIN + 3);
    pthread_sigmask(SIG_SETMASK, &mask, &before);
    CHECK(threads() == 1);
    errno = 1234;
    allocate_much();
    CHECK(errno == 1234);
    CHECK(threads() == 2);
    pthread_sigmask(SIG_SETMASK, &before, &after);
    for (int signal = 1; signal <= SIGRTMAX; signal++) {
        CHECK(sigismember(&mask, signal) == sigismember(&after, signal));
    }
    free_objects(&much);
}

static void *allocate_with_all_blocked(void *argument) {
    sigset_t all, after;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    allocate_much();
    CHECK(threads() == 3);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int signal = 1; signal <= SIGRTMAX; signal++) {
        CHECK(can_be_blocked(signal) == sigismember(&after, signal));
    }
    return argument;
}

static void starting_it_leaves_a_full_mask(void) {
    pthread_t thread;
    start(&thread, allocate_with_all_blocked, NULL);
    pthread_join(thread, NULL);
    CHECK(!is_blocked(SIGUSR1) && !is_blocked(SIGTERM));
    free_objects(&much);
}

static atomic_long taker;
static atomic_int stop;

static void *take_signals(void *argument) {
    taker = syscall(SYS_gettid);
    while (!stop) {
        pause_briefly();
    }
    return argument;
}

static void set_blocked(int how, int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(how, &set, NULL);
}

static int is_pending(int signal) {
    sigset_t set;
    sigpending(&set);
    return sigismember(&set, signal);
}

static void signals_go_to_the_programs_threads(void) {
    allocate_much();
    CHECK(background() != 0);
    signal(SIGUSR1, note_thread);
    for (int round = 0; round < 100 && check_failures == 0; round++) {
        handled_by = 0;
        kill(getpid(), SIGUSR1);
        CHECK(EVENTUALLY(handled_by != 0) && handled_by == getpid());
    }
    /* Only one other thread has it not blocked. */
    pthread_t thread;
    start(&thread, take_signals, NULL);
    CHECK(EVENTUALLY(taker != 0));
    set_blocked(SIG_BLOCK, SIGUSR1);
    for (int round = 0; round < 10 && check_failures == 0; round++) {
        handled_by = 0;
        kill(getpid(), SIGUSR1);
        CHECK(EVENTUALLY(handled_by != 0) && handled_by == taker);
    }
    stop = 1;
    pthread_join(thread, NULL);
    /* All have: it waits, also for one that asks. */
    handled_by = 0;
    kill(getpid(), SIGUSR1);
    CHECK(is_pending(SIGUSR1) && handled_by == 0);
    sigset_t set;
    int taken = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(sigwait(&set, &taken) == 0 && taken == SIGUSR1 && handled_by == 0);
    set_blocked(SIG_UNBLOCK, SIGUSR1);
    free_objects(&much);
}

static void *wait_for_signals(void *argument) {
    sigset_t set;
    int taken, *sum = argument;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    while (sigwait(&set, &taken) == 0 && taken != SIGTERM) {
        __atomic_fetch_add(sum, 1, __ATOMIC_SEQ_CST);
    }
    return argument;
}

/* As servers do: blocked everywhere, a thread waits for them. */
static void thread_that_waits_for_signals_gets_them(void) {
    set_blocked(SIG_BLOCK, SIGTERM);
    set_blocked(SIG_BLOCK, SIGINT);
    set_blocked(SIG_BLOCK, SIGCHLD);
    pthread_t thread;
    int taken = 0;
    start(&thread, wait_for_signals, &taken);
    allocate_much();
    CHECK(background() != 0);
    for (int round = 1; round <= 20 && check_failures == 0; round++) {
        kill(getpid(), round % 2 == 0 ? SIGINT : SIGCHLD);
        CHECK(EVENTUALLY(__atomic_load_n(&taken, __ATOMIC_SEQ_CST) == round));
    }
    kill(getpid(), SIGTERM);
    pthread_join(thread, NULL);
    free_objects(&much);
    set_blocked(SIG_UNBLOCK, SIGTERM);
    set_blocked(SIG_UNBLOCK, SIGINT);
    set_blocked(SIG_UNBLOCK, SIGCHLD);
}

/* The end of the program. */
static void sigterm_ends_the_process_when_it_is_let(void) {
    allocate_much();
    CHECK(background() != 0);
    set_blocked(SIG_BLOCK, SIGTERM);
    kill(getpid(), SIGTERM);
    CHECK(is_pending(SIGTERM));
    free_objects(&much);
    end_of_checks();
    set_blocked(SIG_UNBLOCK, SIGTERM);
    printf("still there\n");
}

/* fork. */

/* Frees nearly all, and waits until it has gone back. */
static void shrinks(void) {
    free_objects(&much);
    CHECK(EVENTUALLY(anonymous_bytes() <= 16 * MIB));
    if (check_failures > 0) {
        printf("  %zu KiB\n", anonymous_bytes() >> 10);
    }
}

/* Makes a slow call. */
static int calls(void) {
    struct object *large = NULL;
    int done = put_object(&large, MIB, 1);
    free_objects(&large);
    return done;
}

static void child_has_its_own(void) {
    pid_t child = fork();
    if (child == 0) {
        alarm(2 * PATIENCE);
        CHECK(threads() == 1);
        struct object *little = NULL;
        CHECK(put_object(&little, 100, 1));
        free_objects(&little);
        allocate_much();
        /* Children that soon exec or exit stay without one. */
        CHECK(threads() == 1);
        CHECK(EVENTUALLY(calls() && background() != 0));
        CHECK(threads() == 2);
        shrinks();
        _exit(check_failures != 0);
    }
    long before = background();
    /* A thread that was joined may still be there for a moment. */
    CHECK(before != 0 && EVENTUALLY(threads() == 2));
    shrinks();
    CHECK(background() == before && threads() == 2);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void *fork_often(void *argument) {
    for (int round = 0; round < 20; round++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(PATIENCE);
            free_objects(&much);
            use_all_kinds(1);
            _exit(check_failures != 0);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    return argument;
}

static void fork_beside_it(void) {
    allocate_much();
    fflush(stdout);
    fork_often(NULL);
    pthread_t thread;
    start(&thread, fork_often, NULL);
    pthread_join(thread, NULL);
    child_has_its_own();
}

/* Ends of processes. */

static pthread_t main_thread;

static long switches(void) {
    const char *name = "\nvoluntary_ctxt_switches:";
    const char *line = strstr(text_of_thread(background(), "status"), name);
    return line == NULL ? -1 : atol(line + strlen(name));
}

/* Whether it has not moved for three of its steps. */
static int is_asleep(void) {
    long before = switches();
    nanosleep(&(struct timespec){.tv_nsec = 800000000}, NULL);
    return switches() == before;
}

static void free_much(void) {
    free_objects(&much);
    use_all_kinds(2);
    printf("function of atexit: %s\n", check_failures == 0 ? "ok" : "FAILED");
    fflush(stdout);
}

static int main_has_ended(void) {
    return state_of_thread(getpid()) == 'Z';
}

/* Ends after the main thread, having allocated or not. */
static void *outlive_main(void *allocates) {
    CHECK(EVENTUALLY(main_has_ended()));
    if (allocates != NULL) {
        use_all_kinds(3);
    }
    return NULL;
}

static void *exit_after_main(void *argument) {
    CHECK(pthread_join(main_thread, NULL) == 0);
    exit(11);
    return argument;
}

static int end(const char *how) {
    if (strcmp(how, "_exit-at-once") == 0) {
        allocate(20 * MIB);
        _exit(10);
    }
    atexit(free_much);
    allocate(20 * MIB);
    free_objects(&much);
    allocate(20 * MIB);
    CHECK(background() != 0);
    if (strstr(how, "-asleep") != NULL) {
        CHECK(EVENTUALLY(is_asleep()));
    }
    pthread_t thread;
    main_thread = pthread_self();
    if (strncmp(how, "exit", 4) == 0) {
        exit(7);
    } else if (strncmp(how, "_exit", 5) == 0) {
        _exit(9);
    } else if (strcmp(how, "abort") == 0) {
        abort();
    } else if (strncmp(how, "alone", 5) == 0) {
        pthread_exit(NULL);
    } else if (strncmp(how, "last-allocates", 14) == 0) {
        start(&thread, outlive_main, (void *)"");
        pthread_exit(NULL);
    } else if (strncmp(how, "last", 4) == 0) {
        start(&thread, outlive_main, NULL);
        pthread_exit(NULL);
    } else if (strcmp(how, "thread-exits") == 0) {
        start(&thread, exit_after_main, NULL);
        pthread_exit(NULL);
    }
    return 8;
}

/* Runs `end` in new processes, all of which must end. */
static void processes_end(void) {
    static const struct {
        const char *how;
        int code, signal;
    } ends[] = {
        {"exit", 7, 0},          {"exit-asleep", 7, 0},    {"_exit", 9, 0},
        {"_exit-at-once", 10, 0}, {"return", 8, 0},         {"abort", 0, SIGABRT},
        {"alone", 0, 0},         {"alone-asleep", 0, 0},   {"last", 0, 0},
        {"last-asleep", 0, 0},   {"last-allocates", 0, 0}, {"last-allocates-asleep", 0, 0},
        {"thread-exits", 11, 0},
    };
    enum { ENDS = sizeof ends / sizeof *ends };
    pid_t children[ENDS];
    fflush(stdout);
    for (int i = 0; i < ENDS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            execl(own_path, own_path, ends[i].how, NULL);
            _exit(99);
        }
    }
    for (int i = 0; i < ENDS; i++) {
        int status = -1;
        if (!EVENTUALLY(waitpid(children[i], &status, WNOHANG) == children[i])) {
            kill(children[i], SIGKILL);
            waitpid(children[i], &status, 0);
            printf("  %s: no end\n", ends[i].how);
        }
        int is_right = ends[i].signal != 0
            ? WIFSIGNALED(status) && WTERMSIG(status) == ends[i].signal
            : WIFEXITED(status) && WEXITSTATUS(status) == ends[i].code;
        CHECK(is_right);
        if (!is_right) {
            printf("  %s: status %x\n", ends[i].how, (unsigned)status);
        }
    }
}

int main(int argc, char **argv) {
    own_path = argv[0];
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "much") == 0) {
        RUN(large_process_has_a_thread);
    } else if (strcmp(mode, "none") == 0) {
        RUN(there_is_no_thread);
    } else if (strcmp(mode, "little") == 0) {
        RUN(small_process_has_no_thread);
    } else if (strcmp(mode, "signals") == 0) {
        RUN(all_signals_are_blocked_in_it);
        RUN(signals_go_to_the_programs_threads);
    } else if (strcmp(mode, "mask") == 0) {
        RUN(starting_it_leaves_mask_and_errno);
    } else if (strcmp(mode, "full-mask") == 0) {
        RUN(starting_it_leaves_a_full_mask);
    } else if (strcmp(mode, "sigwait") == 0) {
        RUN(thread_that_waits_for_signals_gets_them);
    } else if (strcmp(mode, "term") == 0) {
        sigterm_ends_the_process_when_it_is_let();
        return 3;
    } else if (strcmp(mode, "fork") == 0) {
        RUN(fork_beside_it);
    } else if (strcmp(mode, "ends") == 0) {
        RUN(processes_end);
    } else {
        return end(mode);
    }
    return end_of_checks();
}
