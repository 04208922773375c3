/* What deepbind.c opens. */

#include <stdlib.h>
#include <string.h>

void *allocate(size_t size);
void release(void *object);
char *copy(const char *text);

void *allocate(size_t size) {
    return malloc(size);
}

void release(void *object) {
    free(object);
}

char *copy(const char *text) {
    return strdup(text);
}
