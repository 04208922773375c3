#include "program.h"

enum {
    WORK_BYTES = 32 << 20,
    WORK_MIN = 4,
    /* Of the table of what was handed out: a power of two, at least twice WORK_MAX. */
    SLOTS = 1 << 13,
    PROTECTED_MAX = 64,
    /* Seconds after which a program that hangs is ended. */
    TIME = 20,
};

static struct {
    uintptr_t start, end;
} protected[PROTECTED_MAX];
static size_t protected_count;

static void say(const char *text) {
    size_t bytes = strlen(text);
    if (write(1, text, bytes) != (ssize_t)bytes) {
        _exit(3);
    }
}

void *opaque(const void *pointer) {
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return (void *)(uintptr_t)pointer;
}

void *object(size_t size) {
    char *object = opaque(malloc(size));
    if (object == NULL) {
        say("no memory\n");
        _exit(3);
    }
    object[0] = 1;
    return object;
}

void in_thread(void *(*function)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, function, argument) != 0) {
        _exit(3);
    }
    pthread_join(thread, NULL);
}

static void *fill_and_empty_spans(void *argument) {
    size_t size = *(size_t *)argument, count = work_count(size);
    static void *objects[WORK_MAX];
    for (size_t i = 0; i < count; i++) {
        objects[i] = object(size);
    }
    for (size_t i = 0; i < count; i++) {
        free(objects[i]);
    }
    return objects[count / 2];
}

void *of_free_span(size_t size) {
    pthread_t thread;
    void *one;
    if (pthread_create(&thread, NULL, fill_and_empty_spans, &size) != 0) {
        _exit(3);
    }
    pthread_join(thread, &one);
    malloc_trim(0);
    return opaque(one);
}

void *function(const char *name) {
    void *found = dlsym(RTLD_DEFAULT, name);
    if (found == NULL) {
        absent("no such function");
    }
    return found;
}

void misuse(const void *at) {
    char line[64];
    snprintf(line, sizeof line, "misuse %#lx\n", (unsigned long)(uintptr_t)at);
    say(line);
}

void returned(void) { say("returned\n"); }

static void say_what(const char *word, const char *what) {
    char line[128];
    snprintf(line, sizeof line, "%s %s\n", word, what);
    say(line);
}

_Noreturn void harm(const char *what) {
    say_what("harm", what);
    _exit(0);
}

_Noreturn void absent(const char *what) {
    say_what("absent", what);
    _exit(0);
}

void protect(const void *start, size_t bytes) {
    if (protected_count == PROTECTED_MAX) {
        _exit(3);
    }
    protected[protected_count].start = (uintptr_t)start;
    protected[protected_count].end = (uintptr_t)start + bytes;
    protected_count++;
}

size_t work_count(size_t size) {
    size_t count = WORK_BYTES / size;
    return count < WORK_MIN ? WORK_MIN : count > WORK_MAX ? WORK_MAX : count;
}

static void check_free(uintptr_t start, size_t size, uintptr_t *slots) {
    for (size_t i = 0; i < protected_count; i++) {
        if (start < protected[i].end && protected[i].start < start + size) {
            harm("memory in use was handed out");
        }
    }
    size_t slot = (start >> 4) * 0x9e3779b97f4a7c15u >> 51;
    while (slots[slot] != 0) {
        if (slots[slot] == start) {
            harm("one object was handed out twice");
        }
        slot = (slot + 1) % SLOTS;
    }
    slots[slot] = start;
}

void work(size_t size) {
    static void *objects[WORK_MAX];
    static uintptr_t slots[SLOTS];
    memset(slots, 0, sizeof slots);
    size_t count = work_count(size);
    for (size_t i = 0; i < count; i++) {
        char *object = opaque(malloc(size));
        if (object == NULL) {
            harm("no memory was handed out");
        }
        check_free((uintptr_t)object, size, slots);
        object[0] = 1;
        objects[i] = object;
    }
    for (size_t i = 0; i < count; i++) {
        free(objects[i]);
    }
}

/* Nothing wrong: what an allocator must never stop. */
static void innocent(size_t size) {
    misuse(NULL);
    char *kept = object(size);
    memset(kept, 1, size);
    work(size);
    kept = realloc(kept, 2 * size);
    memset(kept, 2, malloc_usable_size(kept));
    free(of_free_span(size) == NULL ? NULL : object(size));
    returned();
    work(size);
    free(kept);
}

static const struct misuse none[] = {{"none", innocent}, {NULL, NULL}};

int main(int argc, char **argv) {
    static const struct misuse *const families[] = {
        double_frees, invalid_frees, sized_frees, resizes, overflows, stale, none,
    };
    const char *name = argc > 1 ? argv[1] : "";
    size_t size = argc > 2 ? (size_t)atol(argv[2]) : 0;
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    alarm(TIME);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        for (const struct misuse *it = families[i]; it->name != NULL; it++) {
            if (strcmp(name, "--list") == 0) {
                puts(it->name);
            } else if (strcmp(name, it->name) == 0 && size > 0) {
                it->commit(size);
                say("end\n");
                return 0;
            }
        }
    }
    return strcmp(name, "--list") == 0 ? 0 : 2;
}
