// Which table of kernels this processor gets.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace pellucid {

#define PELLUCID_DECLARE(name)         \
    Kernels<float> name(float*, bool); \
    Kernels<double> name(double*, bool);

PELLUCID_DECLARE(table_generic)
#if defined(PELLUCID_X86)
PELLUCID_DECLARE(table_avx2)
PELLUCID_DECLARE(table_avx512)
#endif

// PELLUCID_ISA names a lesser instruction set than the processor's best, to test it.
template <class T> static Kernels<T> chosen(bool bfloat16) {
#if defined(PELLUCID_X86)
    const char* asked = std::getenv("PELLUCID_ISA");
    auto allowed = [&](const char* name) { return !asked || !std::strcmp(asked, name); };
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512 && allowed("avx512")) return table_avx512((T*)nullptr, bfloat16);
    if (avx2 && (allowed("avx2") || allowed("avx512"))) return table_avx2((T*)nullptr, bfloat16);
#endif
    return table_generic((T*)nullptr, bfloat16);
}

template <class T> const Kernels<T>& kernels(bool bfloat16) {
    static const Kernels<T> exact = chosen<T>(false), rounded = chosen<T>(true);
    return bfloat16 ? rounded : exact;
}
template const Kernels<float>& kernels<float>(bool);
template const Kernels<double>& kernels<double>(bool);

}  // namespace pellucid
