// Work that threads share: by OpenMP where the compiler has it, whose threads are those of torch, else by threads made
// for the call.

#pragma once

#ifndef _OPENMP
#include <atomic>
#include <thread>
#include <vector>
#endif

namespace {

// Calls f(k) for k from 0 to count - 1. An idle thread takes the next one, so who does what is not known beforehand.
template <typename F>
void in_threads(long threads, long count, F f) {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (long k = 0; k < count; ++k) f(k);
#else
    std::atomic<long> next{0};
    auto work = [&] {
        for (long k = next++; k < count; k = next++) f(k);
    };
    std::vector<std::thread> others;
    for (long other = 1; other < threads && other < count; ++other) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
#endif
}

}  // namespace
