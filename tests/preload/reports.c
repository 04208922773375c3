/* Reports that the program gets while it runs and at its end. Waits for files, with the watchdog's deadline. */

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "check.h"

static volatile sig_atomic_t own_signals;

/* The name of a report: what stands for %p and %n is replaced. */
static const char *name_of(const char *pattern, int number) {
    static char name[4096];
    size_t length = 0;
    for (const char *at = pattern; *at != 0; at++) {
        if (at[0] == '%' && at[1] == 'p') {
            length += (size_t)sprintf(name + length, "%d", (int)getpid());
            at++;
        } else if (at[0] == '%' && at[1] == 'n') {
            length += (size_t)sprintf(name + length, "%d", number);
            at++;
        } else {
            name[length++] = *at;
        }
    }
    name[length] = 0;
    return name;
}

/* Whether a file is there; if it is JSON, whole. */
static int is_there(const char *name) {
    int file = open(name, O_RDONLY);
    if (file < 0) {
        return 0;
    }
    char end[2] = "";
    ssize_t got = lseek(file, -2, SEEK_END) >= 0 ? read(file, end, 2) : 0;
    close(file);
    return strstr(name, ".json") == NULL || (got == 2 && end[0] == '}' && end[1] == '\n');
}

static void wait_for(const char *pattern, int number) {
    while (!is_there(name_of(pattern, number))) {
        usleep(1000);
    }
}

/* So that the library can start its thread. */
static void allocate(void) {
    free(opaque(malloc(50000)));
}

static void own_handler(int number) {
    CHECK(number == SIGUSR2);
    own_signals++;
}

/* Asks by a signal, several times. */
static void by_signal(int number, const char *pattern) {
    allocate();
    for (int i = 1; i <= 3; i++) {
        errno = 77;
        CHECK(raise(number) == 0 && errno == 77);
        wait_for(pattern, i);
    }
    CHECK(!is_there(name_of(pattern, 4)));
}

/* Asks before there is a thread: the signal waits for it. */
static void early(const char *pattern) {
    CHECK(raise(SIGUSR2) == 0);
    allocate();
    wait_for(pattern, 1);
}

/* A system call that a signal interrupts goes on. */
static void restarts(const char *pattern) {
    int ends[2];
    char byte = 0;
    allocate();
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        pid_t parent = getppid();
        kill(parent, SIGUSR2);
        /* The report shows that the signal has come. */
        char name[4096];
        snprintf(name, sizeof name, "%s", pattern);
        while (!is_there(name)) {
            usleep(1000);
        }
        _exit(write(ends[1], "x", 1) != 1);
    }
    CHECK(read(ends[0], &byte, 1) == 1 && byte == 'x');
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* A handler that is installed later takes the library's place. */
static void replaced(const char *pattern) {
    allocate();
    signal(SIGUSR2, own_handler);
    CHECK(raise(SIGUSR2) == 0 && own_signals == 1);
    CHECK(raise(SIGUSR1) == 0);
    wait_for(pattern, 1);
    CHECK(!is_there(name_of(pattern, 2)));
}

/* The child has a thread of its own, and numbers from 1 on. */
static void after_fork(const char *pattern) {
    by_signal(SIGUSR2, pattern);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(PATIENCE);
        check_failures = 0;
        by_signal(SIGUSR2, pattern);
        _exit(check_failures != 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(raise(SIGUSR2) == 0);
    wait_for(pattern, 4);
}

/* A word of the page of figures; zero if it cannot be read. */
static uint64_t word_of(const char *page, int index) {
    uint64_t word = 0;
    int file = open(page, O_RDONLY);
    if (file >= 0) {
        ssize_t got = pread(file, &word, sizeof word, index * (off_t)sizeof word);
        CHECK(got == (ssize_t)sizeof word);
        close(file);
    }
    return word;
}

/* The page changes while the program does nothing, and a child leaves it alone. */
static void publish(const char *page) {
    allocate();
    while (word_of(page, 3) < 6) {
        usleep(1000);
    }
    CHECK(word_of(page, 2) == (uint64_t)getpid());
    CHECK(word_of(page, 4) == 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(PATIENCE);
        check_failures = 0;
        /* Ends by exit, which would publish. */
        allocate();
        exit(check_failures != 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(word_of(page, 2) == (uint64_t)getpid());
    CHECK(word_of(page, 4) == 0);
    /* Another program with this environment. */
    CHECK(system("true") == 0);
    CHECK(word_of(page, 2) == (uint64_t)getpid());
}

static void exit_in_handler(int number) {
    (void)number;
    exit(0);
}

/* Ends by exit in a handler that comes somewhere in the middle of the allocator. */
static void work_until_exit(long delay_us) {
    signal(SIGALRM, SIG_DFL);
    signal(SIGPROF, exit_in_handler);
    struct itimerval timer = {.it_value = {.tv_usec = delay_us}};
    setitimer(ITIMER_PROF, &timer, NULL);
    for (size_t i = 0;; i++) {
        /* Pages from the heap, all under its lock. */
        void *object = opaque(malloc(40000 + i % 100 * 70000));
        free(object);
        free(opaque(malloc((size_t)20 << 20)));
    }
}

static void exit_from_handlers(void) {
    for (int i = 0; i < 30; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            alarm(PATIENCE);
            work_until_exit(3000 + i * 37);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(status == 0);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const char *pattern = argc > 2 ? argv[2] : "";
    if (strcmp(what, "usr1") == 0) {
        by_signal(SIGUSR1, pattern);
    } else if (strcmp(what, "usr2") == 0) {
        by_signal(SIGUSR2, pattern);
    } else if (strcmp(what, "directory") == 0) {
        CHECK(chdir(pattern) == 0);
        by_signal(SIGUSR1, "spanmalloc.%p.%n.pb.gz");
    } else if (strcmp(what, "early") == 0) {
        early(pattern);
    } else if (strcmp(what, "restarts") == 0) {
        restarts(pattern);
    } else if (strcmp(what, "replaced") == 0) {
        replaced(pattern);
    } else if (strcmp(what, "periodic") == 0) {
        allocate();
        wait_for(pattern, 1);
        wait_for(pattern, 2);
    } else if (strcmp(what, "fork") == 0) {
        after_fork(pattern);
    } else if (strcmp(what, "publish") == 0) {
        publish(pattern);
    } else if (strcmp(what, "handler") == 0) {
        exit_from_handlers();
    } else if (strcmp(what, "stderr") == 0) {
        allocate();
        raise(SIGUSR2);
        wait_for(pattern, 1);
    }
    return end_of_checks();
}
