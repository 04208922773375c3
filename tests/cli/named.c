/* Tells the addresses of calls, and which files' code lies where. Parts: PROGRAM and FUNCTIONS. */

#include <stdio.h>

void outer(void);

#ifdef FUNCTIONS
__attribute__((noinline)) void tell(void) {
    printf("call %p\n", __builtin_return_address(0));
}

static inline __attribute__((always_inline)) void inner(void) {
    tell(); /* line 13 */
}

__attribute__((noinline)) void outer(void) {
    inner(); /* line 17 */
    /* Not a tail call. */
    __asm__ volatile("");
}
#endif

#ifdef PROGRAM
int main(void) {
    char line[4096];
    outer();
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        fputs(line, stdout);
    return 0;
}
#endif
