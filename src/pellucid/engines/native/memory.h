// Results come from memory that is kept and used again: fresh pages cost more than many kernels.
#pragma once
#include <cstddef>

namespace pellucid {

constexpr size_t MOST_HELD = sizeof(size_t) < 8 ? size_t(1) << 28 : size_t(1) << 31;  // bytes kept for reuse

void* take(size_t bytes);                        // aligned to a cache line
void give(void* memory, size_t bytes) noexcept;  // as many bytes as were taken
size_t held();                                   // bytes kept for reuse
size_t used();                                   // bytes in use now
size_t peak();                                   // the most bytes in use at one time
void reset_peak();                               // the most from now on
void release();                                  // give what is kept back to the system
void count_scratch(long bytes);                  // more, or less, of what threads keep for their next kernels
size_t scratch_bytes();

}  // namespace pellucid
