/* What the programs share: how they tell how far they are, and the ordinary work after a misuse.
 *
 * A program writes a line at each step, by write(2), so that nothing is lost when it is stopped:
 *
 *     misuse 0xADDRESS   the misuse comes next
 *     returned           it was committed, and the program goes on
 *     harm TEXT          what came of it; the program ends at once
 *     end                nothing came of it; the program ends as others do, by exit
 *     absent TEXT        there is nothing to try, as the allocator has no such function
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Objects of the ordinary work, at most. */
enum { WORK_MAX = 2048 };

/* One misuse, of an object of `size` bytes. */
struct misuse {
    const char *name;
    void (*commit)(size_t size);
};

/* The families, each ended by a null name. */
extern const struct misuse double_frees[], invalid_frees[], sized_frees[], resizes[], overflows[],
    stale[];

/* Hides from the compiler where a pointer is from. */
void *opaque(const void *pointer);

/* An object whose first byte is written. */
void *object(size_t size);

/* Runs a function in a thread, to its end. */
void in_thread(void *(*function)(void *), void *argument);

/* Allocates many objects of a size in a thread of its own, which frees them all and ends; then asks
 * for free memory to be given back. Returns one of them. */
void *of_free_span(size_t size);

/* A function that not all allocators have; ends the program if there is none. */
void *function(const char *name);

/* The misuse comes next. */
void misuse(const void *at);
/* It was committed. */
void returned(void);
_Noreturn void harm(const char *what);
_Noreturn void absent(const char *what);

/* Memory that is in use: whatever is handed out may not overlap it. */
void protect(const void *start, size_t bytes);

/* The ordinary work: hands out objects of a size, looks whether each is free to be used, and frees
 * them all. */
void work(size_t size);

/* How many objects the work has. */
size_t work_count(size_t size);
