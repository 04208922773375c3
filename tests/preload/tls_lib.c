/* What tls.c opens, several times: each has KIB of thread-local memory. */

#include "check.h"

void use_thread_locals(unsigned seed);

static __thread char zeroed[KIB << 10];
static __thread char filled[1000] = {[0 ... 999] = 5};
static __thread unsigned used_with;

void use_thread_locals(unsigned seed) {
    if (used_with == 0) {
        CHECK(is_filled(opaque(zeroed), sizeof zeroed, 0));
        CHECK(is_filled(opaque(filled), sizeof filled, 5));
    } else {
        CHECK(used_with == seed + 1);
        CHECK(is_painted(opaque(zeroed), sizeof zeroed, seed));
    }
    used_with = seed + 1;
    paint(zeroed, sizeof zeroed, seed);
    if (check_failures != 0) {
        abort();
    }
}
