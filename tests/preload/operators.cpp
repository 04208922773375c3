// All forms of operator new and operator delete, and what new does when there is no memory.

#include <new>

#include "check.h"

namespace {

const std::size_t SIZES[] = {0, 1, 8, 16, 24, 100, 1000, 40000, 1 << 20};
const std::size_t ALIGNS[] = {1, 8, 16, 64, 4096};

void *used(void *object, std::size_t size, std::size_t align) {
    CHECK(opaque(object) != nullptr && is_aligned(object, align));
    CHECK(malloc_usable_size(object) >= size);
    memset(object, 1, size);
    return opaque(object);
}

void plain_forms() {
    for (std::size_t size : SIZES) {
        std::size_t align = size < 9 ? 8 : 16;
        for (int turn = 0; turn < 100; turn++) {
            ::operator delete(used(::operator new(size), size, align));
            ::operator delete(used(::operator new(size), size, align), size);
            ::operator delete(used(::operator new(size), size, align), std::nothrow);
            ::operator delete[](used(::operator new[](size), size, align));
            ::operator delete[](used(::operator new[](size), size, align), size);
            ::operator delete[](used(::operator new[](size), size, align), std::nothrow);
            ::operator delete(used(::operator new(size, std::nothrow), size, align), size);
            ::operator delete[](used(::operator new[](size, std::nothrow), size, align), size);
        }
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr);
    ::operator delete(nullptr, std::size_t(8));
    ::operator delete[](nullptr, std::size_t(8));
    ::operator delete(nullptr, std::nothrow);
    ::operator delete[](nullptr, std::nothrow);
}

void aligned_forms() {
    for (std::size_t bytes : ALIGNS) {
        std::align_val_t align{bytes};
        for (std::size_t size : SIZES) {
            for (int turn = 0; turn < 20; turn++) {
                ::operator delete(used(::operator new(size, align), size, bytes), align);
                ::operator delete(used(::operator new(size, align), size, bytes), size, align);
                ::operator delete(used(::operator new(size, align), size, bytes), align, std::nothrow);
                ::operator delete[](used(::operator new[](size, align), size, bytes), align);
                ::operator delete[](used(::operator new[](size, align), size, bytes), size, align);
                ::operator delete[](used(::operator new[](size, align), size, bytes), align, std::nothrow);
                ::operator delete(used(::operator new(size, align, std::nothrow), size, bytes), align);
                ::operator delete[](used(::operator new[](size, align, std::nothrow), size, bytes), align);
            }
        }
    }
    std::align_val_t align{64};
    ::operator delete(nullptr, align);
    ::operator delete[](nullptr, align);
    ::operator delete(nullptr, std::size_t(8), align);
    ::operator delete[](nullptr, std::size_t(8), align);
    ::operator delete(nullptr, align, std::nothrow);
    ::operator delete[](nullptr, align, std::nothrow);
}

struct alignas(64) Line {
    char bytes[64];
};
struct alignas(4096) Page {
    char bytes[4096];
};

void expressions_respect_alignment() {
    for (int turn = 0; turn < 100; turn++) {
        Line *line = new Line;
        Line *lines = new Line[5];
        Page *page = new (std::nothrow) Page;
        Page *pages = new Page[3];
        CHECK(is_aligned(opaque(line), 64) && is_aligned(opaque(lines), 64));
        CHECK(is_aligned(opaque(page), 4096) && is_aligned(opaque(pages), 4096));
        delete line;
        delete[] lines;
        delete page;
        delete[] pages;
        char *bytes = new char[24];
        CHECK(is_aligned(opaque(bytes), 16));
        delete[] bytes;
    }
}

// new and malloc share a heap.
void memory_of_new_has_a_usable_size() {
    char *object = static_cast<char *>(opaque(::operator new(100)));
    paint(object, malloc_usable_size(object), 1);
    CHECK(is_painted(object, malloc_usable_size(object), 1));
    ::operator delete(object);
}

int handler_calls = 0;

void uninstalls_itself_at_the_second_call() {
    if (++handler_calls == 2) {
        std::set_new_handler(nullptr);
    }
}

struct OwnFailure : std::bad_alloc {
    int number = 42;
};

void throws_its_own() {
    handler_calls++;
    throw OwnFailure();
}

std::size_t huge() {
    return opaque_size(PTRDIFF_MAX);
}

// The handler is called twice, then std::bad_alloc is thrown.
template <typename Allocate> void check_throws(Allocate allocate) {
    handler_calls = 0;
    std::set_new_handler(uninstalls_itself_at_the_second_call);
    bool caught = false;
    try {
        opaque(allocate());
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught && handler_calls == 2);
    CHECK(std::get_new_handler() == nullptr);

    handler_calls = 0;
    std::set_new_handler(throws_its_own);
    int number = 0;
    try {
        opaque(allocate());
    } catch (const OwnFailure &failure) {
        number = failure.number;
    }
    CHECK(number == 42 && handler_calls == 1);

    std::set_new_handler(nullptr);
    caught = false;
    try {
        opaque(allocate());
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught);
}

void throwing_new_without_memory() {
    check_throws([] { return ::operator new(huge()); });
    check_throws([] { return ::operator new[](huge()); });
    check_throws([] { return ::operator new(huge(), std::align_val_t(64)); });
    check_throws([] { return ::operator new[](huge(), std::align_val_t(4096)); });
    check_throws([] { return static_cast<void *>(new char[huge()]); });
}

// The handler is called as well, and what it throws ends in nullptr.
template <typename Allocate> void check_null(Allocate allocate) {
    handler_calls = 0;
    std::set_new_handler(uninstalls_itself_at_the_second_call);
    CHECK(opaque(allocate()) == nullptr);
    CHECK(handler_calls == 2);
    handler_calls = 0;
    std::set_new_handler(throws_its_own);
    CHECK(opaque(allocate()) == nullptr);
    CHECK(handler_calls == 1);
    std::set_new_handler(nullptr);
    CHECK(opaque(allocate()) == nullptr);
}

void nothrow_new_without_memory() {
    check_null([] { return ::operator new(huge(), std::nothrow); });
    check_null([] { return ::operator new[](huge(), std::nothrow); });
    check_null([] { return ::operator new(huge(), std::align_val_t(64), std::nothrow); });
    check_null([] { return ::operator new[](huge(), std::align_val_t(4096), std::nothrow); });
}

void *reserve = nullptr;

void frees_the_reserve() {
    handler_calls++;
    if (reserve == nullptr) {
        std::set_new_handler(nullptr);
    }
    free(reserve);
    reserve = nullptr;
}

// The limit has room for the reserve or for the object, not for both.
void the_reserve_helps() {
    limit_growth(std::size_t(256) << 20);
    reserve = opaque(malloc(std::size_t(120) << 20));
    CHECK(reserve != nullptr);
    std::set_new_handler(frees_the_reserve);
    char *object = new char[opaque_size(std::size_t(150) << 20)];
    CHECK(opaque(object) != nullptr && handler_calls == 1);
    object[0] = 1;
    delete[] object;
    reserve = opaque(malloc(std::size_t(120) << 20));
    CHECK(reserve != nullptr);
    CHECK(opaque(::operator new(std::size_t(150) << 20, std::nothrow)) != nullptr);
    CHECK(handler_calls == 2);
}

void handler_frees_a_reserve() {
    handler_calls = 0;
    in_child(the_reserve_helps);
}

} // namespace

int main() {
    RUN(plain_forms);
    RUN(aligned_forms);
    RUN(expressions_respect_alignment);
    RUN(memory_of_new_has_a_usable_size);
    RUN(throwing_new_without_memory);
    RUN(nothrow_new_without_memory);
    RUN(handler_frees_a_reserve);
    return end_of_checks();
}
