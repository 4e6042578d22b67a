#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

namespace pellucid {
namespace {

constexpr size_t MOST_HELD = size_t(2) << 30;
constexpr size_t HUGE = size_t(2) << 20;

std::mutex lock;
auto& kept = *new std::unordered_map<size_t, std::vector<void*>>;  // never destroyed: arrays may outlive the module
size_t held_bytes = 0, used_bytes = 0, peak_bytes = 0;

// Sizes are rounded up to one of eight steps between powers of two, so that neighbours share their memory.
size_t rounded(size_t bytes) {
    size_t step = 64;
    while (step * 16 < bytes) step *= 2;
    return (bytes + step - 1) / step * step;
}

}  // namespace

void* take(size_t bytes) {
    size_t size = rounded(bytes ? bytes : 1);
    {
        std::lock_guard<std::mutex> guard(lock);
        used_bytes += size;
        if (used_bytes > peak_bytes) peak_bytes = used_bytes;
        auto& list = kept[size];
        if (!list.empty()) {
            void* memory = list.back();
            list.pop_back();
            held_bytes -= size;
            return memory;
        }
    }
    void* memory = std::aligned_alloc(size >= HUGE ? HUGE : 64, size >= HUGE ? (size + HUGE - 1) / HUGE * HUGE : size);
    if (!memory) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (size >= HUGE) madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

void give(void* memory, size_t bytes) {
    size_t size = rounded(bytes ? bytes : 1);
    std::lock_guard<std::mutex> guard(lock);
    used_bytes -= size;
    if (held_bytes + size > MOST_HELD) {
        std::free(memory);
        return;
    }
    kept[size].push_back(memory);
    held_bytes += size;
}

size_t held() {
    std::lock_guard<std::mutex> guard(lock);
    return held_bytes;
}
size_t peak() {
    std::lock_guard<std::mutex> guard(lock);
    return peak_bytes;
}

void release() {
    std::lock_guard<std::mutex> guard(lock);
    for (auto& [size, list] : kept) {
        for (void* memory : list) std::free(memory);
        list.clear();
    }
    held_bytes = 0;
}

}  // namespace pellucid
