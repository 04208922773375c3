// Templates and most of the standard library's containers; then threads that use them.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <vector>

template <unsigned N> struct Fibonacci {
    static constexpr std::uint64_t value = Fibonacci<N - 1>::value + Fibonacci<N - 2>::value;
};
template <> struct Fibonacci<0> { static constexpr std::uint64_t value = 0; };
template <> struct Fibonacci<1> { static constexpr std::uint64_t value = 1; };

template <std::size_t... I> std::vector<std::uint64_t> table(std::index_sequence<I...>) {
    return {Fibonacci<I>::value...};
}

struct alignas(256) Wide {
    std::uint64_t value[40] = {};
};

struct Numbers {
    std::uint64_t state;
    std::uint64_t below(std::uint64_t bound) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return (state >> 33) % bound;
    }
};

static std::string work(std::uint64_t seed) {
    Numbers numbers{seed};
    std::map<std::string, std::vector<std::uint64_t>> ordered;
    std::unordered_map<std::uint64_t, std::shared_ptr<std::string>> hashed;
    std::multiset<std::tuple<std::uint64_t, std::string>> tuples;
    std::list<std::unique_ptr<Wide>> wides;
    std::uint64_t sum = 0;
    for (int step = 0; step < 20000; step++) {
        auto key = "key" + std::to_string(numbers.below(2000));
        ordered[key].push_back(step);
        auto text = std::make_shared<std::string>(numbers.below(300), 'a' + step % 26);
        hashed[numbers.below(3000)] = text;
        if (step % 3 == 0) tuples.emplace(numbers.below(100), key);
        if (step % 5 == 0) {
            wides.push_back(std::make_unique<Wide>());
            if (reinterpret_cast<std::uintptr_t>(wides.back().get()) % 256 != 0) std::abort();
        }
        if (step % 7 == 0 && !wides.empty()) wides.pop_front();
        if (step % 11 == 0) sum += ordered.erase(key);
        if (auto *few = new (std::nothrow) char[step % 50 + 1]) delete[] few;
    }
    for (auto &[key, list] : ordered) sum += std::accumulate(list.begin(), list.end(), key.size());
    for (std::uint64_t key = 0; key < 3000; key++)
        if (auto found = hashed.find(key); found != hashed.end()) sum = sum * 31 + found->second->size();
    for (auto &[number, key] : tuples) sum = sum * 31 + number + key.size();
    std::ostringstream out;
    out << seed << ' ' << sum << ' ' << wides.size() << ' ' << tuples.size();
    return out.str();
}

int main() {
    for (auto value : table(std::make_index_sequence<60>())) std::cout << value << '\n';
    std::vector<std::string> results(6);
    std::vector<std::thread> threads;
    for (std::size_t index = 0; index < results.size(); index++)
        threads.emplace_back([&results, index] { results[index] = work(index); });
    for (auto &thread : threads) thread.join();
    for (auto &result : results) std::cout << result << '\n';
    std::regex pattern("(\\w+) (\\d+)");
    std::string text = "one 1 two 22 three 333", found;
    for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at)
        std::cout << (*at)[2] << '=' << (*at)[1] << '\n';
    try {
        volatile std::size_t bytes = SIZE_MAX / 2;
        std::unique_ptr<char[]> none(new char[bytes]);
        std::cout << "too much\n";
    } catch (const std::bad_alloc &error) {
        std::cout << "bad_alloc\n";
    }
    std::function<int(int)> twice = [extra = std::string(100, 'x')](int i) { return i * (int)extra.size(); };
    std::cout << twice(2) << std::endl;
}
