// One small pool of threads shared by all kernels.
#pragma once
#include <functional>

namespace pellucid {

int threads();             // how many a kernel may use, the caller's among them
void set_threads(int n);   // 1 or more; 0 goes back to what environment, affinity and cgroup allow
// f(part) for every part in 0 … parts-1, on as many threads as are free. Nested and concurrent calls run in the caller.
void parallel(long parts, const std::function<void(long)>& f);

}  // namespace pellucid
