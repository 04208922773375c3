// Opened by a program in C: no memory is what the standard says here too.

#include <new>

#include "check.h"

namespace {

int asked;

void gives_up() {
    asked++;
    std::set_new_handler(nullptr);
}

void throws() {
    asked++;
    throw std::bad_alloc();
}

bool is_thrown(std::size_t size) {
    try {
        ::operator delete(opaque(::operator new(size)));
        return false;
    } catch (const std::bad_alloc &) {
        return true;
    }
}

}

extern "C" int library_failures() {
    std::size_t absurd = opaque_size(std::size_t(1) << 62);
    // The nothrow form first, when nothing has been thrown yet.
    CHECK(opaque(::operator new(absurd, std::nothrow)) == nullptr);
    CHECK(opaque(new (std::nothrow) char[absurd]) == nullptr);
    CHECK(is_thrown(absurd));
    std::set_new_handler(gives_up);
    CHECK(is_thrown(absurd) && asked == 1);
    std::set_new_handler(throws);
    CHECK(is_thrown(absurd) && asked == 2);
    CHECK(opaque(::operator new(absurd, std::nothrow)) == nullptr && asked == 3);
    std::set_new_handler(nullptr);
    CHECK(!is_thrown(100));
    return check_failures;
}
