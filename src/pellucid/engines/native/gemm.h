// C = A B for B and C contiguous along their columns (the examples), A with any strides: one register tile serves the
// affine layer's three products and, by a table of row offsets into B, the convolution.
#pragma once
#include "simd.h"

namespace pellucid {
namespace {

constexpr int ROWS = REGISTERS == 32 ? 6 : 4;   // of a register tile
constexpr int VECTORS = REGISTERS == 32 ? 4 : 2;  // across a register tile

// A tile of R rows and N vectors: C = scale (A B + bias). Rows of B start at B + offset[k].
template <class T, int R, int N>
inline void tile(long K, const T* A, long a_row, long a_col, const T* B, const long* offset, T* C, long c_row,
                 const T* bias, T scale) {
    constexpr int L = LANES<T>;
    V<T> c[R][N];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) c[i][j] = bias ? splat(bias[i]) : V<T>{};
    for (long k = 0; k < K; ++k) {
        const T* row = B + offset[k];
        const T* a = A + k * a_col;
        V<T> b[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) b[j] = load(row + j * L);
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
            V<T> w = splat(a[i * a_row]);
#pragma GCC unroll 8
            for (int j = 0; j < N; ++j) c[i][j] += w * b[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) store(C + i * c_row + j * L, c[i][j] * scale);
}

template <class T, int N>
inline void tile_rows(int rows, long K, const T* A, long a_row, long a_col, const T* B, const long* offset, T* C,
                      long c_row, const T* bias, T scale) {
    switch (rows) {
        case 1: return tile<T, 1, N>(K, A, a_row, a_col, B, offset, C, c_row, bias, scale);
        case 2: return tile<T, 2, N>(K, A, a_row, a_col, B, offset, C, c_row, bias, scale);
        case 3: return tile<T, 3, N>(K, A, a_row, a_col, B, offset, C, c_row, bias, scale);
        case 4: return tile<T, 4, N>(K, A, a_row, a_col, B, offset, C, c_row, bias, scale);
        case 5: return tile<T, 5, N>(K, A, a_row, a_col, B, offset, C, c_row, bias, scale);
        default: return tile<T, ROWS < 6 ? 5 : 6, N>(K, A, a_row, a_col, B, offset, C, c_row, bias, scale);
    }
}

// M rows of C over `columns` contiguous columns, at least one vector of them. The last tile is moved back to end where
// the columns end: what it overlaps is computed twice, and nothing is masked.
template <class T>
inline void block(long M, long columns, long K, const T* A, long a_row, long a_col, const T* B, const long* offset, T* C,
                  long c_row, const T* bias, T scale) {
    constexpr int L = LANES<T>;
    auto strip = [&](long start, int vectors) {
        for (long i = 0; i < M; i += ROWS) {
            int rows = M - i < ROWS ? int(M - i) : ROWS;
            const T* a = A + i * a_row;
            const T* b = bias ? bias + i : nullptr;
            T* c = C + i * c_row + start;
            switch (vectors) {
                case 1: tile_rows<T, 1>(rows, K, a, a_row, a_col, B + start, offset, c, c_row, b, scale); break;
                case 2: tile_rows<T, 2>(rows, K, a, a_row, a_col, B + start, offset, c, c_row, b, scale); break;
#if defined(__AVX512F__)
                case 3: tile_rows<T, 3>(rows, K, a, a_row, a_col, B + start, offset, c, c_row, b, scale); break;
                default: tile_rows<T, 4>(rows, K, a, a_row, a_col, B + start, offset, c, c_row, b, scale); break;
#endif
            }
        }
    };
    long done = 0;
    for (; done + VECTORS * L <= columns; done += VECTORS * L) strip(done, VECTORS);
    long left = columns - done;
    if (left >= L) {
        strip(done, int(left / L));
        done += left / L * L;
    }
    if (done < columns) strip(columns - L, 1);
}

}  // namespace
}  // namespace pellucid
