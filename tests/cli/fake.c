/* A shared library that has the tool's contract and no allocator: it exports a `malloc`, which is
   the system's, and writes fixed figures to the file that SPANMALLOC_STATS_FILE names. With
   NO_MALLOC it does nothing at all. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef NO_MALLOC

void *malloc(size_t size) {
    static void *(*next)(size_t);
    if (!next) {
        next = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    }
    return next(size);
}

__attribute__((destructor)) static void write_figures(void) {
    const char *stats = getenv("SPANMALLOC_STATS");
    const char *file = getenv("SPANMALLOC_STATS_FILE");
    const char *count = getenv("SPANMALLOC_COUNT");
    const char *mark = file ? strstr(file, "%p") : NULL;
    if (!mark || !stats || strcmp(stats, "exit") != 0) {
        return;
    }
    char path[4096];
    snprintf(path, sizeof path, "%.*s%d%s", (int)(mark - file), file, (int)getpid(), mark + 2);
    FILE *out = fopen(path, "w");
    if (!out) {
        return;
    }
    fprintf(out, "{\"allocations\": %d, \"peak_live_bytes\": 3145728, \"unknown\": 1}\n",
            count && strcmp(count, "1") == 0 ? 1234567 : 0);
    fclose(out);
}

#endif
