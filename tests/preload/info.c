/* What the heap tells about itself, and memory given back. */

#include "check.h"

enum { COUNT = 100000, BYTES = 1000 };
static char *objects[COUNT];

/* Whether this is not the system's heap. */
static int ours;

static void allocate_100_mb(void) {
    for (int i = 0; i < COUNT; i++) {
        objects[i] = opaque(malloc(BYTES));
        memset(objects[i], 1, BYTES);
    }
}

/* All but the newest, which would hide what lies behind it at the top of a heap that grows upwards. */
static void free_100_mb(void) {
    for (int i = 0; i < COUNT - 1; i++) {
        free(objects[i]);
    }
}

static void mallinfo_counts_what_is_live(void) {
    size_t before = mallinfo2().uordblks;
    allocate_100_mb();
    size_t full = mallinfo2().uordblks;
    CHECK(full >= before + (size_t)COUNT * BYTES && full < before + (size_t)COUNT * BYTES * 3 / 2);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    size_t old = (size_t)mallinfo().uordblks;
#pragma GCC diagnostic pop
    CHECK(old + (1 << 20) > full && old < full + (1 << 20));
    free_100_mb();
    free(objects[COUNT - 1]);
    size_t after = mallinfo2().uordblks;
    CHECK(after < before + (20 << 20));
    /* Free memory and memory in use are counted apart. */
    struct mallinfo2 info = mallinfo2();
    CHECK(info.fordblks < ((size_t)1 << 40) && info.uordblks < ((size_t)1 << 40));
    if (ours) {
        CHECK(info.uordblks + info.fordblks == info.arena);
        CHECK(info.keepcost <= info.fordblks && info.fsmblks <= info.fordblks);
    }
    char *huge = opaque(malloc((size_t)100 << 20));
    struct mallinfo2 with = mallinfo2();
    CHECK(with.hblkhd >= info.hblkhd + ((size_t)100 << 20) && with.hblks == info.hblks + 1);
    CHECK(with.uordblks < info.uordblks + (1 << 20));
    free(huge);
    CHECK(mallinfo2().hblkhd == info.hblkhd);
}

static void trim_gives_memory_back(void) {
    allocate_100_mb();
    long full = resident_kib();
    free_100_mb();
    CHECK(malloc_trim(0) == 1);
    long trimmed = resident_kib();
    CHECK(full > 95000 && trimmed < full - 80000);
    int again = malloc_trim(0);
    CHECK(again == 0 || again == 1);
    CHECK(is_filled(objects[COUNT - 1], BYTES, 1));
    free(objects[COUNT - 1]);
}

/* A tree of elements: every tag that opens is closed by its name, and one holds all the others. */
static void check_xml(char *text) {
    enum { DEPTH = 20 };
    char *open[DEPTH];
    int depth = 0, roots = 0, tags = 0;
    for (char *tag = strchr(text, '<'); tag != NULL; tag = strchr(tag, '<')) {
        char *end = strchr(tag, '>');
        CHECK(end != NULL);
        if (end == NULL) {
            return;
        }
        *end = '\0';
        char *name = tag + 1;
        tag = end + 1;
        CHECK(strchr(name, '<') == NULL);
        if (name[0] == '?') {
            continue;
        }
        tags++;
        size_t length = strcspn(name + 1, " /\n") + 1;
        if (name[0] == '/') {
            CHECK(depth > 0 && strcmp(open[depth - 1], name + 1) == 0);
            depth -= depth > 0;
        } else {
            CHECK(depth > 0 || strncmp(name, "malloc ", 7) == 0);
            roots += depth == 0;
            if (end[-1] != '/') {
                CHECK(depth < DEPTH);
                name[length] = '\0';
                open[depth++ % DEPTH] = name;
            }
        }
    }
    CHECK(depth == 0 && roots == 1 && tags >= 3);
}

static void malloc_info_is_xml(void) {
    void *some = opaque(malloc(5000));
    FILE *file = tmpfile();
    CHECK(file != NULL && malloc_info(0, file) == 0);
    long length = ftell(file);
    CHECK(length > 20);
    rewind(file);
    char *text = calloc(1, (size_t)length + 1);
    CHECK(fread(text, 1, (size_t)length, file) == (size_t)length);
    check_xml(text);
    free(text);
    long before = ftell(file);
    /* Its page says -1 and errno, glibc returns the number. */
    errno = 0;
    int refused = malloc_info(1, file);
    CHECK(refused == EINVAL || (refused == -1 && errno == EINVAL));
    CHECK(ftell(file) == before);
    fclose(file);
    free(some);
}

static void mallopt_does_no_harm(void) {
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 1 << 20);
    (void)mallopt(M_ARENA_MAX, 2);
    (void)mallopt(M_MXFAST, 64);
    (void)mallopt(12345, 6);
    use_all_kinds(1);
}

/* With `stats`: only what malloc_stats writes to standard error. With `xml`: what malloc_info writes. */
int main(int argc, char **argv) {
    ours = argc > 1 && strcmp(argv[1], "ours") == 0;
    if (argc > 1 && strcmp(argv[1], "xml") == 0) {
        allocate_100_mb();
        for (int i = 0; i < COUNT; i += 2) {
            free(objects[i]);
        }
        char *huge = opaque(malloc((size_t)100 << 20));
        int done = malloc_info(0, stdout);
        free(huge);
        return done;
    }
    if (argc > 1 && strcmp(argv[1], "stats") == 0) {
        use_all_kinds(1);
        malloc_stats();
        return end_of_checks();
    }
    RUN(mallinfo_counts_what_is_live);
    RUN(trim_gives_memory_back);
    RUN(malloc_info_is_xml);
    RUN(mallopt_does_no_harm);
    return end_of_checks();
}
