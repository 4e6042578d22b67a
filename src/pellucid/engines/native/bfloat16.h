// The products of operands rounded to bfloat16 and summed in float32: operands are copied, rounded, and go through the
// kernels of this file's includer. Included by kernels.cpp after the products.
#pragma once

namespace pellucid {
namespace {

// A matrix that is contiguous along its rows or its columns, packed along its rows; its strides become the copy's.
template <class O> const O* packed(long M, long K, const float* A, long& a_row, long& a_col) {
    if (a_col == 1) return a_row = operands<O>(K), along<O, 7>(M, K, A);
    return across<O, 7>(1, K, M, A);
}

// Means over m examples, from those over what m examples were packed into.
template <class O> void mean_of(long m, long n, float* A) {
    for (long i = 0; EACH<O> > 1 && i < n; ++i) A[i] *= float(operands<O>(m)) / float(m);
}

// A convolution packs its operands itself; those that stay floats are rounded before.
template <class O, int WHICH> const float* same_or_rounded(long n, const float* A) {
    if constexpr (EACH<O> == 1) return along<O, WHICH>(1, n, A);
    else return A;
}

// The table with products of operands O.
template <class O> Kernels<float> rounding(Kernels<float> table) {
    table.matmul = [](long M, long N, long K, const float* A, long a_row, long a_col, const float* B, float* C,
                      const float* bias, float scale) {
        const O* W = packed<O>(M, K, A, a_row, a_col);
        matmul<O>(M, N, operands<O>(K), W, a_row, a_col, across<O, 8>(1, K, N, B), C, bias, scale);
    };
    table.matmul_steps = [](long steps, long M, long N, long K, const float* A, long a_row, long a_col, const float* B,
                            float* C, const float* bias) {
        const O* W = packed<O>(M, K, A, a_row, a_col);
        matmul_steps<O>(steps, M, N, operands<O>(K), W, a_row, a_col, across<O, 8>(steps, K, N, B), C, bias);
    };
    table.affine_dW = [](long n, long n_prev, long m, const float* dZ, const float* A_prev, float* dW) {
        affine_dW<O>(n, n_prev, operands<O>(m), along<O, 7>(n, m, dZ), along<O, 8>(n_prev, m, A_prev), dW, 1 / float(m));
    };
    table.affine_dW_steps = [](long steps, long n, long n_prev, long m, const float* dZ, const float* A_prev, float* dW) {
        const O *D = along<O, 7>(steps * n, m, dZ), *A = along<O, 8>(steps * n_prev, m, A_prev);
        affine_dW_steps<O>(steps, n, n_prev, operands<O>(m), D, A, dW);
        mean_of<O>(m, n * n_prev, dW);
    };
    table.convolution = [](const Geometry& g, long units, long groups, const float* W, const float* A, const float* b,
                           float* Z) {
        const float* filters = same_or_rounded<O, 9>(units * (g.C / groups) * g.kh * g.kw, W);
        convolution<O>(g, units, groups, filters, same_or_rounded<O, 8>(g.C * g.H * g.W * g.m, A), b, Z);
    };
    table.convolution_dW = [](const Geometry& given, long units, long groups, const float* dZ, const float* A, float* dW) {
        if (EACH<O> > 1 && worth_points<O>(given, units, groups, true))
            return convolution_dW_at_points<O>(given, units, groups, dZ, A, dW);
        Geometry g = given;
        g.m = operands<O>(given.m);
        const O* D = along<O, 7>(units * g.out_h * g.out_w, given.m, dZ);
        convolution_dW<O>(g, units, groups, D, along<O, 8>(g.C * g.H * g.W, given.m, A), dW);
        mean_of<O>(given.m, units * (g.C / groups) * g.kh * g.kw, dW);
    };
    table.convolution_dA = [](const Geometry& g, long units, long groups, const float* W, const float* dZ, float* dA) {
        const float* filters = same_or_rounded<O, 9>(units * (g.C / groups) * g.kh * g.kw, W);
        convolution_dA<O>(g, units, groups, filters, same_or_rounded<O, 8>(units * g.out_h * g.out_w * g.m, dZ), dA);
    };
    return table;
}

Kernels<float> rounding(Kernels<float> table) {
#if defined(__AVX512F__)
    if (__builtin_cpu_supports("avx512bf16")) {
        table.name = PELLUCID_ISA_NAME "_bf16";
        return rounding<Pair>(table);
    }
#endif
    return rounding<float>(table);
}

}  // namespace
}  // namespace pellucid
