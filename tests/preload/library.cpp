// The C++ library at work: containers, strings, threads, exceptions, statics.

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <memory_resource>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "check.h"

namespace {

// Allocates before main and frees after it.
struct Static {
    std::vector<std::string> names;
    Static() {
        for (int i = 0; i < 1000; i++) {
            names.push_back("a name too long for the short string " + std::to_string(i));
        }
    }
    ~Static() {
        std::size_t bytes = 0;
        for (const std::string &name : names) {
            bytes += std::string(name + name).size();
        }
        printf("destructor of a static: %zu names, %zu bytes\n", names.size(), bytes);
        fflush(stdout);
    }
};

Static one, two;

struct OfThread {
    static inline std::atomic<int> destroyed{0};
    std::string text = std::string(200, 'x');
    std::vector<int> numbers = std::vector<int>(5000, 3);
    ~OfThread() {
        std::map<int, std::string> map;
        for (int i = 0; i < 200; i++) {
            map[i] = text + std::to_string(numbers[i]);
        }
        destroyed += map.size() == 200;
    }
};

thread_local OfThread of_thread;

void containers() {
    std::vector<int> numbers;
    for (int i = 0; i < 3000000; i++) {
        numbers.push_back(i);
    }
    long sum = 0;
    for (int number : numbers) {
        sum += number;
    }
    CHECK(sum == 4499998500000);
    numbers.resize(10);
    numbers.shrink_to_fit();
    CHECK(numbers.size() == 10 && numbers[9] == 9);

    std::map<std::string, int> map;
    std::unordered_map<int, std::string> hashed;
    for (int i = 0; i < 50000; i++) {
        map["key number " + std::to_string(i * 7919 % 50000)] = i;
        hashed[i] = std::string(i % 100, 'a');
    }
    CHECK(map.size() == 50000 && map["key number 7919"] == 1);
    std::size_t bytes = 0;
    for (const auto &[key, text] : hashed) {
        bytes += text.size();
    }
    CHECK(bytes == 50000 / 100 * 4950);
}

void shared_pointers_across_threads() {
    auto shared = std::make_shared<std::vector<std::string>>(100, std::string(100, 'y'));
    std::vector<std::thread> threads;
    std::atomic<int> right{0};
    for (int i = 0; i < 8; i++) {
        threads.emplace_back([shared, &right] {
            for (int turn = 0; turn < 2000; turn++) {
                std::shared_ptr<std::vector<std::string>> copy = shared;
                auto other = std::make_shared<std::vector<std::string>>(*copy);
                right += other->back() == copy->front();
            }
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    CHECK(right == 8 * 2000 && shared.use_count() == 1);
    std::future<std::string> later = std::async(std::launch::async, [] { return std::string(5000, 'z'); });
    CHECK(later.get().size() == 5000);
}

void regular_expressions_and_streams() {
    std::regex pattern("(\\w+)@(\\w+)\\.(com|org)");
    std::string text;
    for (int i = 0; i < 50; i++) {
        text += "someone" + std::to_string(i) + "@example.org, ";
    }
    auto begin = std::sregex_iterator(text.begin(), text.end(), pattern);
    CHECK(std::distance(begin, std::sregex_iterator()) == 50);
    CHECK(std::regex_replace(text, pattern, "$2").find("example, example") == 0);
    std::ostringstream stream;
    for (int i = 0; i < 10000; i++) {
        stream << i << ' ' << i * 0.5 << '\n';
    }
    std::istringstream back(stream.str());
    double sum = 0, number;
    while (back >> number) {
        sum += number;
    }
    CHECK(sum == 49995000 * 1.5);
    std::cout << "written by a stream: " << std::string(30, '-') << std::endl;
}

void deepest(const std::string &text) {
    throw std::runtime_error(text + std::string(1000, '!'));
}

int descend(int depth) {
    char frame[40000];
    std::string text(depth * 10, 'd');
    memset(opaque(frame), depth, sizeof frame);
    if (depth == 0) {
        deepest("at the bottom");
    }
    auto held = std::make_unique<std::array<char, 3000>>();
    (*held)[5] = frame[7];
    return descend(depth - 1) + (*held)[5] + static_cast<int>(text.size());
}

void exceptions_through_big_frames() {
    int caught = 0;
    for (int turn = 0; turn < 200; turn++) {
        try {
            descend(100);
        } catch (const std::runtime_error &error) {
            caught += strlen(error.what()) == 1013;
        }
    }
    CHECK(caught == 200);
    std::exception_ptr kept;
    std::thread([&kept] {
        try {
            descend(3);
        } catch (...) {
            kept = std::current_exception();
        }
    }).join();
    bool again = false;
    try {
        std::rethrow_exception(kept);
    } catch (const std::runtime_error &) {
        again = true;
    }
    CHECK(again);
}

void thread_locals_with_destructors() {
    OfThread::destroyed = 0;
    for (int turn = 0; turn < 50; turn++) {
        std::vector<std::thread> threads;
        for (int i = 0; i < 8; i++) {
            threads.emplace_back([] { of_thread.text += "touched"; });
        }
        for (std::thread &thread : threads) {
            thread.join();
        }
    }
    CHECK(OfThread::destroyed == 400);
}

void polymorphic_memory() {
    std::pmr::monotonic_buffer_resource arena;
    std::pmr::unsynchronized_pool_resource pool;
    std::pmr::synchronized_pool_resource shared;
    for (std::pmr::memory_resource *resource : {std::pmr::new_delete_resource(),
                                                static_cast<std::pmr::memory_resource *>(&arena),
                                                static_cast<std::pmr::memory_resource *>(&pool),
                                                static_cast<std::pmr::memory_resource *>(&shared)}) {
        std::pmr::vector<std::pmr::string> strings(resource);
        for (int i = 0; i < 3000; i++) {
            strings.emplace_back(std::string(i % 300, 's'));
        }
        CHECK(strings[299].size() == 299 && strings[2999][0] == 's');
        void *aligned = resource->allocate(500, 256);
        CHECK(is_aligned(aligned, 256));
        resource->deallocate(aligned, 500, 256);
    }
}

void sorting_with_a_temporary_buffer() {
    std::vector<std::pair<int, int>> pairs;
    unsigned random = 5;
    for (int i = 0; i < 300000; i++) {
        pairs.emplace_back(next_random(&random) % 1000, i);
    }
    std::stable_sort(pairs.begin(), pairs.end(), [](auto a, auto b) { return a.first < b.first; });
    CHECK(std::is_sorted(pairs.begin(), pairs.end()));
    std::vector<std::string> strings;
    for (int i = 0; i < 20000; i++) {
        strings.push_back(std::string(next_random(&random) % 50, 'c'));
    }
    std::stable_sort(strings.begin(), strings.end());
    CHECK(std::is_sorted(strings.begin(), strings.end()));
    std::inplace_merge(strings.begin(), strings.begin() + 10000, strings.end());
}

} // namespace

int main() {
    CHECK(one.names.size() == 1000 && two.names[999].size() == 40);
    RUN(containers);
    RUN(shared_pointers_across_threads);
    RUN(regular_expressions_and_streams);
    RUN(exceptions_through_big_frames);
    RUN(thread_locals_with_destructors);
    RUN(polymorphic_memory);
    RUN(sorting_with_a_temporary_buffer);
    return end_of_checks();
}
