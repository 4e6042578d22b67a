// C = A B for B and C contiguous along their columns (the examples), A with any strides: one register tile serves the
// affine layer's three products and, by a table of row offsets into B, the convolution.
#pragma once
#include "simd.h"

namespace pellucid {
namespace {

constexpr int ROWS = REGISTERS == 32 ? 6 : 4;   // of a register tile
constexpr int VECTORS = REGISTERS == 32 ? 4 : 2;  // across a register tile

// An operand of a product: a float type itself, or a pair of bfloat16 that are neighbours along the summed axis, the first
// in the lower half. A product of pairs is two products, and is summed in float32.
typedef uint32_t Pair;
template <class O> struct Summed { typedef O type; };
template <> struct Summed<Pair> { typedef float type; };
template <class O> using Sum = typename Summed<O>::type;
template <> struct Integer<Pair> { typedef int32_t type; };

template <class O> inline void add_product(V<Sum<O>>& c, V<O> a, V<O> b) { c += a * b; }
#if defined(__AVX512F__)  // chosen at run time, so not by the compiler's own name for it, which takes a flag
template <> inline void add_product<Pair>(V<float>& c, V<Pair> a, V<Pair> b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
}
template <> inline V<Pair> load_some<Pair>(const Pair* p, long n) {
    return (V<Pair>)_mm512_maskz_loadu_epi32((1u << n) - 1, p);
}
template <> inline void store_some<Pair>(Pair* p, V<Pair> v, long n) {
    _mm512_mask_storeu_epi32(p, (1u << n) - 1, (__m512i)v);
}
#endif

constexpr long DEPTH = 384;  // rows of B that are used by all rows of A before the next: they stay in the cache

// Where the last of N vectors lies in the rows of B and of C, from the first: right behind the others, or moved back so that
// it ends where the columns end. What it then overlaps is computed twice.
struct Last {
    long in_B, in_C;
};

// A tile of R rows and N vectors: C = scale (A B + bias), or C += scale A B. Rows of B start at B + offset[k].
template <class O, int R, int N, class T = Sum<O>>
inline void tile(long K, const O* A, long a_row, long a_col, const O* B, const long* offset, Last last, T* C, long c_row,
                 const T* bias, T scale, bool add) {
    constexpr int L = LANES<O>;
    V<T> c[R][N];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) c[i][j] = bias ? splat(bias[i]) : V<T>{};
    for (long k = 0; k < K; ++k) {
        const O* row = B + offset[k];
        const O* a = A + k * a_col;
        V<O> b[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) b[j] = load(row + (j + 1 < N ? j * L : last.in_B));
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
            V<O> w = splat(a[i * a_row]);
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) add_product<O>(c[i][j], w, b[j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
        V<T> before[N];  // all read before any is written: what two vectors have in common is the same in both
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) before[j] = add ? load(C + i * c_row + (j + 1 < N ? j * L : last.in_C)) : V<T>{};
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) store(C + i * c_row + (j + 1 < N ? j * L : last.in_C), before[j] + c[i][j] * scale);
    }
}

template <class O, int N, class T = Sum<O>>
inline void tile_rows(int rows, long K, const O* A, long a_row, long a_col, const O* B, const long* offset, Last last, T* C,
                      long c_row, const T* bias, T scale, bool add) {
    switch (rows) {
        case 1: return tile<O, 1, N>(K, A, a_row, a_col, B, offset, last, C, c_row, bias, scale, add);
        case 2: return tile<O, 2, N>(K, A, a_row, a_col, B, offset, last, C, c_row, bias, scale, add);
        case 3: return tile<O, 3, N>(K, A, a_row, a_col, B, offset, last, C, c_row, bias, scale, add);
        case 4: return tile<O, 4, N>(K, A, a_row, a_col, B, offset, last, C, c_row, bias, scale, add);
        case 5: return tile<O, 5, N>(K, A, a_row, a_col, B, offset, last, C, c_row, bias, scale, add);
        default: return tile<O, ROWS < 6 ? 5 : 6, N>(K, A, a_row, a_col, B, offset, last, C, c_row, bias, scale, add);
    }
}

// Rows begin … end - 1 of B, and columns of A.
struct Span {
    long begin, end;
};

// C = scale (A B + bias), M rows over `columns` contiguous columns, at least one vector of them, summed over the spans;
// C += … where `add` says so. The last vector ends where the columns end: nothing is masked. `pack` copies the rows of B
// beside each other first, which pays where they lie far apart and many rows of A use them.
template <class O, class T = Sum<O>>
void block(long M, long columns, const Span* spans, long count, const O* A, long a_row, long a_col, const O* B,
           const long* offset, T* C, long c_row, const Sum<O>* bias, T scale, bool add = false, bool pack = false) {
    constexpr long L = LANES<O>, WIDTH = VECTORS * L;
    alignas(64) thread_local O packed[DEPTH * WIDTH];
    auto panel = [&](long start, long wide, long k, long end, bool first) {
        const long vectors = (wide + L - 1) / L;
        Last last{wide - L, wide - L};
        const O* rows = B + start;
        long turned[DEPTH];
        const long* place = offset + k;
        if (pack) {
            for (long r = 0; r < end - k; ++r) {
                const O* from = B + start + offset[k + r];
                O* to = packed + r * WIDTH;
                turned[r] = r * WIDTH;
                for (long v = 0; v < vectors; ++v) store(to + v * L, load(from + std::min(v * L, wide - L)));
            }
            rows = packed, place = turned, last.in_B = (vectors - 1) * L;
        }
        bool more = add || !first;
        for (long i = 0; i < M; i += ROWS) {
            int high = M - i < ROWS ? int(M - i) : ROWS;
            const O* a = A + i * a_row + k * a_col;
            const T* b = bias && first ? bias + i : nullptr;
            T* c = C + i * c_row + start;
            switch (vectors) {
                case 1: tile_rows<O, 1>(high, end - k, a, a_row, a_col, rows, place, last, c, c_row, b, scale, more); break;
                case 2: tile_rows<O, 2>(high, end - k, a, a_row, a_col, rows, place, last, c, c_row, b, scale, more); break;
#if defined(__AVX512F__)
                case 3: tile_rows<O, 3>(high, end - k, a, a_row, a_col, rows, place, last, c, c_row, b, scale, more); break;
                default: tile_rows<O, 4>(high, end - k, a, a_row, a_col, rows, place, last, c, c_row, b, scale, more); break;
#endif
            }
        }
    };
    auto strip = [&](long start, long wide) {
        bool first = true;
        for (long s = 0; s < count; ++s) {
            // Spans longer than DEPTH are cut into equal parts.
            long length = spans[s].end - spans[s].begin, parts = (length + DEPTH - 1) / DEPTH;
            for (long part = 0; part < parts; ++part, first = false)
                panel(start, wide, spans[s].begin + length * part / parts, spans[s].begin + length * (part + 1) / parts,
                      first);
        }
        if (first) panel(start, wide, 0, 0, true);
    };
    // Strips as wide as tiles are, but no last one of a single vector: it would overlap the strip before, and wait for its own
    // products.
    const long vectors = (columns + L - 1) / L;
    for (long done = 0; done < vectors;) {
        const long left = vectors - done, wide = left == VECTORS + 1 ? VECTORS - 1 : std::min<long>(left, VECTORS);
        strip(done * L, std::min(wide * L, columns - done * L));
        done += wide;
    }
}

template <class O, class T = Sum<O>>
void block(long M, long columns, long K, const O* A, long a_row, long a_col, const O* B, const long* offset, T* C,
           long c_row, const Sum<O>* bias, T scale) {
    Span all{0, K};
    block<O>(M, columns, &all, 1, A, a_row, a_col, B, offset, C, c_row, bias, scale);
}

}  // namespace
}  // namespace pellucid
