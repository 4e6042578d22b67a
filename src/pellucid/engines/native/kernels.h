// The kernels of one float type, built once for every instruction set; `kernels<T>()` is the table for this processor.
// Arrays are contiguous, examples last. Sizes are checked by the caller.
#pragma once
#include <cstdint>

namespace pellucid {

struct Geometry {  // of a convolution or pooling over two axes
    long C, H, W, m;                 // the image, padding not counted
    long kh, kw, sh, sw, dh, dw;     // kernel, stride, dilation
    long top, left, bottom, right;   // padding
    long out_h, out_w;               // places of the window
    long phases = 1;                 // columns of the image lie by their remainder of this, all of one remainder together
};

enum Elementwise { RELU, LEAKY_RELU, SIGMOID, TANH, ELU, SELU, SILU, HARD_SIGMOID, SCALED_TANH, GELU, GELU_TANH,
                   SOFTPLUS, KINDS };
enum Rule { GRADIENT_DESCENT, MOMENTUM, NESTEROV, ADAGRAD, RMSPROP, ADAM, ADAMW, ADADELTA, LION, RULES };
constexpr int SLOTS[RULES] = {0, 1, 1, 1, 1, 2, 2, 2, 1};  // arrays that each rule remembers

enum Cell { TANH_CELL, RELU_CELL, SIGMOID_CELL, LSTM_CELL, GRU_CELL, CELLS };
constexpr int GATES[CELLS] = {1, 1, 1, 4, 3};

// A recurrent cell's T steps; arrays as `recurrence` in base.py has them, those that a cell does not have null. With X,
// which all but the GRU take, those of `recurrent`: Z is made where the cell keeps it, and so are dW, dU and db.
template <class T> struct Sequence {
    int cell;
    long steps, n, m;
    const T *U, *c;
    const uint8_t* mask;
    T *Z, *H, *C, *v;  // the states' first step is given, the others are made
    long n_x = 0;
    const T *X = nullptr, *W = nullptr, *b = nullptr;
};
template <class T> struct SequenceBackward {
    int cell;
    long steps, n, m;
    const T* U;
    const uint8_t* mask;
    const T *Z, *H, *C, *v, *dA;
    T *dZ, *dV;  // one array where the two are equal; null if nobody asks
    T *dh, *dC;  // of the states after the last step, turned into those of the start
    long n_x = 0;
    const T* X = nullptr;
    T *dW = nullptr, *dU = nullptr, *db = nullptr;
    bool to_start = true;  // whether dh and dC are turned
};

template <class T> struct Kernels {
    const char* name;
    // C (M, N) = scale (A (M, K) B (K, N) + bias); A contiguous along its rows or its columns, B and C along their rows.
    void (*matmul)(long M, long N, long K, const T* A, long a_row, long a_col, const T* B, T* C, const T* bias, T scale);
    void (*affine_dW)(long n, long n_prev, long m, const T* dZ, const T* A_prev, T* dW);
    void (*row_means)(long rows, long columns, const T* A, T divisor, T* mean);
    void (*convolution)(const Geometry&, long units, long groups, const T* W, const T* A, const T* b, T* Z);
    void (*convolution_dW)(const Geometry&, long units, long groups, const T* dZ, const T* A, T* dW);
    void (*convolution_dA)(const Geometry&, long units, long groups, const T* W, const T* dZ, T* dA);
    void (*max_pool)(const Geometry&, const T* A_prev, T* A, int32_t* taps);
    void (*max_pool_backward)(const Geometry&, const T* dA, const int32_t* taps, T* dA_prev);
    void (*sum_pool)(const Geometry&, const T* A_prev, T* A);
    void (*sum_pool_backward)(const Geometry&, const T* dA, T* dA_prev);
    void (*activation)(int kind, long n, const T* Z, T* A, T constant);
    void (*activation_backward)(int kind, long n, const T* dA, const T* kept, T* dZ, T constant);
    void (*softmax_cross_entropy)(long n, long m, const T* Z, const int64_t* Y, T smoothing, T* losses, T* P);
    void (*normalize)(long rows, long columns, const T* A, T epsilon, T* A_hat, T* mean, T* variance);
    void (*normalize_backward)(long rows, long columns, const T* dA_hat, const T* A_hat, const T* variance, T epsilon,
                               T* dA);
    void (*dropout)(long n, uint64_t key, T rate, const T* A_prev, T* A, uint8_t* D);
    void (*update)(int rule, long n, T* W, const T* dW, T* const* slots, const double* constants);
    // Along the middle axis of (outer, n, inner).
    void (*softmax)(long outer, long n, long inner, const T* Z, T* A);
    void (*softmax_backward)(long outer, long n, long inner, const T* dA, const T* A, T* dZ);
    void (*softmax_cross_entropy_backward)(long n, long m, const T* P, const int64_t* Y, T smoothing, T* dZ);
    void (*normalize_columns)(long outer, long n, long inner, const T* A, T epsilon, T* A_hat, T* mean, T* variance);
    void (*normalize_columns_backward)(long outer, long n, long inner, const T* dA_hat, const T* A_hat, const T* variance,
                                       T epsilon, T* dA);
    void (*dropout_backward)(long n, const T* dA, const uint8_t* D, T rate, T* dA_prev);
    void (*examples_last)(long m, long n, const int64_t* rows, const T* x, T* X);
    void (*recurrence)(const Sequence<T>&);
    void (*recurrence_backward)(const SequenceBackward<T>&);
    // Of a whole sequence: B and C (steps, ·, N), and for dW the sum over the steps.
    void (*matmul_steps)(long steps, long M, long N, long K, const T* A, long a_row, long a_col, const T* B, T* C, const T* bias);
    void (*affine_dW_steps)(long steps, long n, long n_prev, long m, const T* dZ, const T* A_prev, T* dW);
    void (*embedding)(long steps, long n, long levels, long m, const T* W, const int64_t* ids, T* A);
    void (*embedding_dW)(long steps, long n, long levels, long m, const T* dA, const int64_t* ids, T* dW);
    void (*affine_db)(long steps, long n, long m, const T* dZ, T* db);
    void (*erf)(long n, const T* Z, T* A);
    // Of arrays (steps, n, m) with one number of a, gamma, beta for each of the n rows.
    void (*prelu)(long n, long m, const T* a, const T* Z, T* A);
    void (*prelu_backward)(long n, long m, const T* a, const T* dA, const T* Z, T divisor, T* dZ, T* da);
    void (*scale)(long steps, long n, long m, const T* gamma, const T* A_hat, const T* beta, T* A);
    void (*scale_backward)(long steps, long n, long m, const T* gamma, const T* dA, const T* A_hat, T divisor, T* dA_hat,
                           T* dgamma, T* dbeta);
    // Along the first axis of (n, inner), over so many rows before and after each.
    void (*local_response)(long n, long inner, long before, long after, T alpha, T beta, T k, const T* A_prev, T* A, T* S);
    void (*local_response_backward)(long n, long inner, long before, long after, T alpha, T beta, const T* dA,
                                    const T* A_prev, const T* S, T* dA_prev);
    void (*examples_last_of_bytes)(long m, long n, const int64_t* rows, const uint8_t* x, T* X);
};

// With `bfloat16` the products of float are those of operands rounded to it; those of double are as they were.
template <class T> const Kernels<T>& kernels(bool bfloat16 = false);

}  // namespace pellucid
