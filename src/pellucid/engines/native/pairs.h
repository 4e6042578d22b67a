// Operands rounded to bfloat16, to nearest and ties to even: as pairs of neighbours along the summed axis, and where their
// number is odd a zero; or as floats, where the processor does not multiply pairs. Included by kernels.cpp after `split`.
#pragma once

namespace pellucid {
namespace {

template <class O> constexpr long EACH = 1;  // numbers in an operand
template <> constexpr long EACH<Pair> = 2;
template <class O> constexpr long operands(long n) { return (n + EACH<O> - 1) / EACH<O>; }

inline V<float> rounded(V<float> x) {
    V<uint32_t> bits = (V<uint32_t>)x;
    bits = (bits + (0x7FFF + (bits >> 16 & 1))) & 0xFFFF0000;
    return x != x ? x : (V<float>)bits;
}

// n numbers along a row; where there is an odd one, its neighbour is zero.
template <class O> void pack_along(long n, const float* A, O* to) {
    sweep<float>(n, [=](long i) { store(to + i, rounded(load(A + i))); },
                 [=](long i, long k) { store_some(to + i, rounded(load_some(A + i, k)), k); });
}

// Of two rows, what stands at one place beside each other; without a second row it is zeros.
template <class O> void pack_across(long n, const float* A, const float*, O* to) { pack_along<O>(n, A, to); }

#if defined(__AVX512F__)
inline V<Pair> rounded(V<float> low, V<float> high) {
    V<Pair> both;
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(high), "v"(low));
    return both;
}

template <> void pack_along<Pair>(long n, const float* A, Pair* to) {
    constexpr long L = LANES<float>;
    sweep<uint16_t>(n, [=](long i) { store(to + i / 2, rounded(load(A + i), load(A + i + L))); }, [=](long i, long k) {
        V<float> high = k > L ? load_some(A + i + L, k - L) : V<float>{};
        store_some(to + i / 2, rounded(load_some(A + i, std::min(k, L)), high), operands<Pair>(k));
    });
}

template <> void pack_across<Pair>(long n, const float* A, const float* next, Pair* to) {
    V<uint16_t> order;
    for (int i = 0; i < LANES<uint16_t>; ++i) order[i] = uint16_t(i / 2 + i % 2 * LANES<float>);
    auto pairs = [order](V<float> a, V<float> b) {
        return (V<Pair>)_mm512_permutexvar_epi16((__m512i)order, (__m512i)rounded(a, b));
    };
    V<float> none{};
    sweep<float>(n, [=](long i) { store(to + i, pairs(load(A + i), next ? load(next + i) : none)); }, [=](long i, long k) {
        store_some(to + i, pairs(load_some(A + i, k), next ? load_some(next + i, k) : none), k);
    });
}
#endif

// A (rows, n) packed along its rows.
template <class O, int WHICH> const O* along(long rows, long n, const float* A) {
    long k = operands<O>(n);
    O* to = scratch<O, WHICH>(size_t(rows) * k);
    if (n % EACH<O> == 0)
        elementwise(rows * k, [=](long begin, long end) {
            pack_along<O>((end - begin) * EACH<O>, A + begin * EACH<O>, to + begin);
        });
    else
        split(rows, 4.0 * rows * n, 1, [=](long begin, long end) {
            for (long r = begin; r < end; ++r) pack_along<O>(n, A + r * n, to + r * k);
        });
    return to;
}

// A (blocks, n, columns) packed along the middle axis.
template <class O, int WHICH> const O* across(long blocks, long n, long columns, const float* A) {
    long k = operands<O>(n);
    O* to = scratch<O, WHICH>(size_t(blocks) * k * columns);
    split(blocks * k, 4.0 * blocks * n * columns, 1, [=](long begin, long end) {
        for (long each = begin; each < end; ++each) {
            long row = each % k * EACH<O>;
            const float* first = A + (each / k * n + row) * columns;
            pack_across<O>(columns, first, row + 1 < n ? first + columns : nullptr, to + each * columns);
        }
    });
    return to;
}

// A convolution's filters (rows, n) as its operands.
template <class O> const O* filters_of(long rows, long n, const Sum<O>* W) {
    if constexpr (std::is_same_v<O, Sum<O>>) return W;
    else return along<O, 7>(rows, n, W);
}

}  // namespace
}  // namespace pellucid
