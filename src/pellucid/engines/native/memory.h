// Results come from memory that is kept and used again: fresh pages cost more than many kernels.
#pragma once
#include <cstddef>

namespace pellucid {

void* take(size_t bytes);             // aligned to a cache line
void give(void* memory, size_t bytes);
size_t held();                        // bytes kept for reuse
size_t peak();                        // the most bytes in use at one time
void release();                       // give what is kept back to the system

}  // namespace pellucid
