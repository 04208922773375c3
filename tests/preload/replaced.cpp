// A program that replaces two operators alone: by these all other forms must allocate and free.

#include <new>
#include <string>
#include <vector>

#include "check.h"

static long news, deletes;

// In front of each object, so that one that is freed elsewhere is noticed.
static const std::size_t HEADER = 16;

void *operator new(std::size_t size) {
    char *block = static_cast<char *>(malloc(size + HEADER));
    if (block == nullptr) {
        throw std::bad_alloc();
    }
    memcpy(block, "replaced", 8);
    ++news;
    return block + HEADER;
}

void operator delete(void *object) noexcept {
    if (object != nullptr) {
        char *block = static_cast<char *>(object) - HEADER;
        CHECK(memcmp(block, "replaced", 8) == 0);
        ++deletes;
        free(block);
    }
}

namespace {

struct Plain {
    Plain() {}
    int words[4];
};
struct alignas(64) Line {
    char bytes[64];
};

/* Expects that as many calls reached both operators since it was asked the last time. */
void expect(long count) {
    static long before;
    CHECK(news == before + count);
    CHECK(deletes == news);
    printf("  %ld new, %ld delete\n", news, deletes);
    before = news;
}

void expressions() {
    for (int turn = 0; turn < 100; turn++) {
        Plain *one = new Plain;
        Plain *quiet = new (std::nothrow) Plain;
        Plain *array = new Plain[3];
        Plain *quiet_array = new (std::nothrow) Plain[3];
        one->words[0] = quiet->words[0] = array->words[0] = quiet_array->words[0] = 1;
        delete static_cast<Plain *>(opaque(one));
        delete static_cast<Plain *>(opaque(quiet));
        delete[] static_cast<Plain *>(opaque(array));
        delete[] static_cast<Plain *>(opaque(quiet_array));
    }
    expect(400);
}

void functions() {
    for (std::size_t size : {1, 24, 1000, 40000, 1 << 20}) {
        ::operator delete(::operator new(size), size);
        ::operator delete(::operator new(size), std::nothrow);
        ::operator delete(::operator new(size, std::nothrow));
        ::operator delete[](::operator new[](size));
        ::operator delete[](::operator new[](size), size);
        ::operator delete[](::operator new[](size), std::nothrow);
        ::operator delete[](::operator new[](size, std::nothrow));
    }
    expect(5 * 7);
}

/* Also from code in the runtime's library. */
void containers() {
    long before = news;
    {
        std::string text(100, 'a');
        text.reserve(1000);
        std::vector<std::string> texts(50, text);
    }
    CHECK(news > before);
    CHECK(deletes == news);
    expect(news - before);
}

/* These are made of others, which the program has not replaced. */
void aligned_forms_stay_apart() {
    for (int turn = 0; turn < 100; turn++) {
        Line *one = new Line;
        Line *array = new (std::nothrow) Line[3];
        CHECK(is_aligned(opaque(one), 64) && is_aligned(opaque(array), 64));
        delete static_cast<Line *>(opaque(one));
        delete[] static_cast<Line *>(opaque(array));
    }
    expect(0);
}

void no_memory_is_null_or_an_exception() {
    std::size_t absurd = opaque_size(std::size_t(1) << 62);
    CHECK(opaque(::operator new(absurd, std::nothrow)) == nullptr);
    CHECK(opaque(::operator new[](absurd, std::nothrow)) == nullptr);
    bool caught = false;
    try {
        opaque(::operator new[](absurd));
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught);
    expect(0);
}

}

int main() {
    RUN(expressions);
    RUN(functions);
    RUN(containers);
    RUN(aligned_forms_stay_apart);
    RUN(no_memory_is_null_or_an_exception);
    return end_of_checks();
}
