#include "memory.h"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/mman.h>
#endif

namespace pellucid {
namespace {

constexpr size_t LARGE = size_t(2) << 20;  // a huge page

std::mutex lock;
auto& kept = *new std::unordered_map<size_t, std::vector<void*>>;  // never destroyed: arrays may outlive the module
size_t held_bytes = 0, used_bytes = 0, peak_bytes = 0;
std::atomic<size_t> threads_keep{0};

#if defined(__unix__) || defined(__APPLE__)
// A fork that came in the middle of a change would leave the child half of it, and a lock that nobody gives back.
const int at_fork = pthread_atfork([] { lock.lock(); }, [] { lock.unlock(); }, [] { lock.unlock(); });
#endif

// Sizes are rounded up to one of eight steps between powers of two, so that neighbours share their memory.
size_t rounded(size_t bytes) {
#if defined(PELLUCID_EXACT_MEMORY)  // a sanitizer sees what lies beyond an array only where nothing does
    return bytes ? bytes : 1;
#else
    size_t step = 64;
    while (step * 16 < bytes) step *= 2;
    return (bytes + step - 1) / step * step;
#endif
}

void* fresh(size_t size) {
#if defined(PELLUCID_EXACT_MEMORY)
    return std::malloc(size);
#else
    if (size < LARGE) return std::aligned_alloc(64, size);
    size = (size + LARGE - 1) / LARGE * LARGE;
    void* memory = std::aligned_alloc(LARGE, size);
#if defined(MADV_HUGEPAGE)
    if (memory) madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
#endif
}

}  // namespace

void* take(size_t bytes) {
    if (bytes > size_t(1) << 60) throw std::bad_alloc();
    size_t size = rounded(bytes ? bytes : 1);
    void* memory = nullptr;
    {
        std::lock_guard<std::mutex> guard(lock);
        if (auto found = kept.find(size); found != kept.end() && !found->second.empty()) {
            memory = found->second.back();
            found->second.pop_back();
            held_bytes -= size;
        }
    }
    if (!memory) memory = fresh(size);
    if (!memory) {  // what is kept for other sizes may be enough
        release();
        memory = fresh(size);
    }
    if (!memory) throw std::bad_alloc();
    std::lock_guard<std::mutex> guard(lock);
    used_bytes += size;
    if (used_bytes > peak_bytes) peak_bytes = used_bytes;
    return memory;
}

void give(void* memory, size_t bytes) noexcept {
    size_t size = rounded(bytes ? bytes : 1);
    {
        std::lock_guard<std::mutex> guard(lock);
        used_bytes -= size;
        if (held_bytes + size <= MOST_HELD) {
            try {
                kept[size].push_back(memory);
                held_bytes += size;
                return;
            } catch (const std::bad_alloc&) {  // not kept, then
            }
        }
    }
    std::free(memory);
}

size_t held() {
    std::lock_guard<std::mutex> guard(lock);
    return held_bytes;
}
size_t used() {
    std::lock_guard<std::mutex> guard(lock);
    return used_bytes;
}
size_t peak() {
    std::lock_guard<std::mutex> guard(lock);
    return peak_bytes;
}
void reset_peak() {
    std::lock_guard<std::mutex> guard(lock);
    peak_bytes = used_bytes;
}

void count_scratch(long bytes) { threads_keep += bytes; }
size_t scratch_bytes() { return threads_keep; }

void release() {
    std::lock_guard<std::mutex> guard(lock);
    for (auto& [size, list] : kept)
        for (void* memory : list) std::free(memory);
    kept.clear();
    held_bytes = 0;
}

}  // namespace pellucid
