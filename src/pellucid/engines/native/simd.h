// Vectors of one register's width, written with the compiler's own vector types: the same source for every instruction set.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace pellucid {
namespace {  // every translation unit is built for another instruction set and keeps its own copy

#if defined(__AVX512F__)
constexpr int BYTES = 64;
constexpr int REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int BYTES = 32;
constexpr int REGISTERS = 16;
#else
constexpr int BYTES = 16;
constexpr int REGISTERS = 16;
#endif

template <class T> struct Vector { typedef T type __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias)); };
template <class T> using V = typename Vector<T>::type;
template <class T> constexpr int LANES = BYTES / sizeof(T);

template <class T> struct Integer;
template <> struct Integer<float> { typedef int32_t type; };
template <> struct Integer<double> { typedef int64_t type; };
template <class T> using I = typename Vector<typename Integer<T>::type>::type;

template <class T> inline V<T> load(const T* p) { return *reinterpret_cast<const V<T>*>(p); }
template <class T> inline void store(T* p, V<T> v) { *reinterpret_cast<V<T>*>(p) = v; }
template <class T> inline V<T> splat(T x) { return x - V<T>{}; }

template <class T> inline V<T> load_some(const T* p, long n) {
    V<T> v{};
    std::memcpy(&v, p, n * sizeof(T));
    return v;
}
template <class T> inline void store_some(T* p, V<T> v, long n) { std::memcpy(p, &v, n * sizeof(T)); }
#if defined(__AVX512F__)  // a copy of unknown length is a call; a mask is not
template <> inline V<float> load_some<float>(const float* p, long n) { return _mm512_maskz_loadu_ps((1u << n) - 1, p); }
template <> inline void store_some<float>(float* p, V<float> v, long n) { _mm512_mask_storeu_ps(p, (1u << n) - 1, v); }
#endif

template <class T> inline T sum(V<T> v) {
    T total = 0;
    for (int i = 0; i < LANES<T>; ++i) total += v[i];
    return total;
}

// Where one of the two is nan the second is the answer: the constant comes first, so that a nan of the data stays.
template <class T> inline V<T> max(V<T> a, V<T> b) { return a > b ? a : b; }
template <class T> inline V<T> min(V<T> a, V<T> b) { return a < b ? a : b; }
#if defined(__AVX512F__)  // one instruction each, with the same answers
template <> inline V<float> max<float>(V<float> a, V<float> b) { return _mm512_max_ps(a, b); }
template <> inline V<float> min<float>(V<float> a, V<float> b) { return _mm512_min_ps(a, b); }
#elif defined(__AVX2__)
template <> inline V<float> max<float>(V<float> a, V<float> b) { return _mm256_max_ps(a, b); }
template <> inline V<float> min<float>(V<float> a, V<float> b) { return _mm256_min_ps(a, b); }
#endif
template <class T> inline V<T> abs(V<T> a) { return a < 0 ? -a : a; }

// f(start) for whole vectors, f(start, count) for what is left.
template <class T, class Whole, class Rest> inline void sweep(long n, Whole whole, Rest rest) {
    long i = 0;
    for (; i + LANES<T> <= n; i += LANES<T>) whole(i);
    if (i < n) rest(i, n - i);
}

// The largest errors in float32, against float64: exp 1.01 units in the last place, log 0.81, tanh 2.5, the logistic function
// 2.4. nan stays nan, e^88.73 is infinite, and results of exp below the smallest normal number are 0.

// e^x by 2^k e^r with |r| ≤ ln2/2: a polynomial of e^r.
template <class T> inline V<T> exp(V<T> x);
template <> inline V<float> exp<float>(V<float> x) {
    V<float> given = x;
    x = min<float>(splat(88.72283f), max<float>(splat(-87.33654f), x));
    V<float> shift = splat(12582912.0f);
    V<float> k = x * 1.44269504088896341f + shift;
    I<float> bits = reinterpret_cast<I<float>&>(k);
    k -= shift;
    V<float> r = x - k * 0.693359375f;
    r -= k * -2.12194440e-4f;
    V<float> p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    I<float> scale = ((bits - 0x4B400000) << 23);
    I<float> sum = reinterpret_cast<I<float>&>(p) + scale;
    V<float> result = given < -87.33654f ? V<float>{} : reinterpret_cast<V<float>&>(sum);
    result = given > 88.72283f ? splat(INFINITY) : result;
    return given == given ? result : given;
}
template <> inline V<double> exp<double>(V<double> x) {
    V<double> y;
    for (int i = 0; i < LANES<double>; ++i) y[i] = std::exp(x[i]);
    return y;
}

template <class T> inline V<T> log(V<T> x) {
    V<T> y;
    for (int i = 0; i < LANES<T>; ++i) y[i] = std::log(x[i]);
    return y;
}

// p and scale with e^x = scale (1 + p), |x| ≤ 87: its sum with 1 and its difference from 1 are made of them, each with one
// rounding.
inline V<float> exp_parts(V<float> x, V<float>& scale) {
    V<float> shift = splat(12582912.0f), k = x * 1.44269504088896341f + shift;
    I<float> power = (reinterpret_cast<I<float>&>(k) - 0x4B400000 + 127) << 23;
    scale = reinterpret_cast<V<float>&>(power);
    k -= shift;
    V<float> r = x - k * 0.693359375f;
    r -= k * -2.12194440e-4f;
    V<float> p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * (r * r) + r;
}

// tanh x = t / (t + 2) with t = e^(2x) - 1, without loss of digits near 0.
template <class T> inline V<T> tanh(V<T> x);
template <> inline V<float> tanh<float>(V<float> x) {
    V<float> scale, p = exp_parts(2 * min<float>(splat(10.0f), max<float>(splat(-10.0f), x)), scale);
    V<float> t = scale * p + (scale - 1);
    return t / (t + 2);
}
template <> inline V<double> tanh<double>(V<double> x) {
    V<double> y;
    for (int i = 0; i < LANES<double>; ++i) y[i] = std::tanh(x[i]);
    return y;
}

// 1 / (1 + e^-x); 0 where that is no normal number.
template <class T> inline V<T> sigmoid(V<T> x);
template <> inline V<float> sigmoid<float>(V<float> x) {
    V<float> scale, p = exp_parts(-min<float>(splat(87.0f), max<float>(splat(-87.0f), x)), scale);
    return x < -87.0f ? V<float>{} : 1 / (scale * p + (scale + 1));
}
template <> inline V<double> sigmoid<double>(V<double> x) { return 0.5 * tanh<double>(0.5 * x) + 0.5; }

}  // namespace
}  // namespace pellucid
