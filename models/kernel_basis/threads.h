// Work that threads share: those of torch where they can be had, else threads made for the call.

#pragma once

#include <dlfcn.h>

#include <atomic>
#include <thread>
#include <vector>

namespace {

// How OpenMP's libraries (GCC's and LLVM's) run a function in `threads` threads: f(data), the caller's among them. Looked
// up in the process, so that no compiler needs OpenMP, and torch's threads, which spin for a while between two of its
// operations, do not stand in the way of others.
using Parallel = void (*)(void (*f)(void*), void* data, unsigned threads, unsigned flags);

inline Parallel parallel_of_torch() {
    static const Parallel found = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
}

// Calls f(k) for k from 0 to count - 1. An idle thread takes the next one, so who does what is not known beforehand.
template <typename F>
void in_threads(long threads, long count, F f) {
    std::atomic<long> next{0};
    auto work = [&] {
        for (long k = next++; k < count; k = next++) f(k);
    };
    if (threads > count) threads = count;
    if (threads < 2) return work();
    if (const Parallel parallel = parallel_of_torch())
        return parallel([](void* data) { (*static_cast<decltype(work)*>(data))(); }, &work, threads, 0);
    std::vector<std::thread> others;
    for (long other = 1; other < threads; ++other) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
}

}  // namespace
