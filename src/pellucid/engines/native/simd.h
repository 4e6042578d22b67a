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

template <class T> inline V<T> load(const T* p, long n) { return load_some(p, n); }
template <class T> inline void store(T* p, V<T> v, long n) { store_some(p, v, n); }

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

// The largest errors in float32, against float64: exp 1.03 units in the last place, log 0.81, log1p 1.4, tanh 2.5, the logistic
// function 2.4, erf 2.5. nan stays nan, e^88.73 is infinite, and results of exp below the smallest normal number are 0.

// e^x = 2^k (1 + p) with |r| ≤ ln2/2 and a polynomial p of r; |x| < 2^21. k comes as the bits that lie above 1.5 · 2^23.
inline V<float> exp_parts(V<float> x, I<float>& k) {
    V<float> shift = splat(12582912.0f), whole = x * 1.44269504088896341f + shift;
    k = reinterpret_cast<I<float>&>(whole) - 0x4B400000;
    whole -= shift;
    V<float> r = x - whole * 0.693359375f;
    r -= whole * -2.12194440e-4f;
    V<float> p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * r * r + r;
}

template <class T> inline V<T> exp(V<T> x);
template <> inline V<float> exp<float>(V<float> x) {
    I<float> k;
    V<float> one = 1 + exp_parts(min<float>(splat(88.72283f), max<float>(splat(-87.33654f), x)), k);
    k = reinterpret_cast<I<float>&>(one) + (k << 23);  // 2^128 is no number, so the power goes to the exponent
    V<float> result = x < -87.33654f ? V<float>{} : reinterpret_cast<V<float>&>(k);
    result = x > 88.72283f ? splat(INFINITY) : result;
    return x == x ? result : x;
}
template <> inline V<double> exp<double>(V<double> x) {
    V<double> y;
    for (int i = 0; i < LANES<double>; ++i) y[i] = std::exp(x[i]);
    return y;
}

// log(2^k (1 + x)) for √½ ≤ 1 + x ≤ √2.
inline V<float> log_parts(V<float> x, V<float> k) {
    V<float> p = splat(7.0376836292e-2f);
    p = p * x - 1.1514610310e-1f;
    p = p * x + 1.1676998740e-1f;
    p = p * x - 1.2420140846e-1f;
    p = p * x + 1.4249322787e-1f;
    p = p * x - 1.6668057665e-1f;
    p = p * x + 2.0000714765e-1f;
    p = p * x - 2.4999993993e-1f;
    p = p * x + 3.3333331174e-1f;
    V<float> square = x * x;
    return k * 0.693359375f + (x + (p * x * square + k * -2.12194440e-4f - 0.5f * square));
}

template <class T> inline V<T> log(V<T> x);
template <> inline V<float> log<float>(V<float> x) {
    V<float> tiny = x < 1.17549435e-38f ? splat(1.0f) : V<float>{}, given = tiny > 0 ? x * 33554432.0f : x;
    I<float> bits = reinterpret_cast<I<float>&>(given), k = (bits - 0x3F3504F3) >> 23;
    bits -= k << 23;
    V<float> result = log_parts(reinterpret_cast<V<float>&>(bits) - 1, __builtin_convertvector(k, V<float>) - 25 * tiny);
    result = x < INFINITY ? result : x;  // nan too
    return x > 0 ? result : x == 0 ? splat(-INFINITY) : x < 0 ? splat(NAN) : x;
}
template <> inline V<double> log<double>(V<double> x) {
    for (int i = 0; i < LANES<double>; ++i) x[i] = std::log(x[i]);
    return x;
}

// log(1 + x) for 0 ≤ x ≤ 1, to all digits where x is small.
template <class T> inline V<T> log1p(V<T> x);
template <> inline V<float> log1p<float>(V<float> x) {
    V<float> k = x > 0.41421356f ? splat(1.0f) : V<float>{};
    return log_parts(k > 0 ? 0.5f * x - 0.5f : x, k);
}
template <> inline V<double> log1p<double>(V<double> x) {
    for (int i = 0; i < LANES<double>; ++i) x[i] = std::log1p(x[i]);
    return x;
}

// p and scale with e^x = scale (1 + p), |x| ≤ 87: its sum with 1 and its difference from 1 are made of them, each with one
// rounding.
inline V<float> exp_scaled(V<float> x, V<float>& scale) {
    I<float> k;
    V<float> p = exp_parts(x, k);
    k = (k + 127) << 23;
    scale = reinterpret_cast<V<float>&>(k);
    return p;
}

// tanh x = t / (t + 2) with t = e^(2x) - 1, without loss of digits near 0.
template <class T> inline V<T> tanh(V<T> x);
template <> inline V<float> tanh<float>(V<float> x) {
    V<float> scale, p = exp_scaled(2 * min<float>(splat(10.0f), max<float>(splat(-10.0f), x)), scale);
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
    V<float> scale, p = exp_scaled(-min<float>(splat(87.0f), max<float>(splat(-87.0f), x)), scale);
    return x < -87.0f ? V<float>{} : 1 / (scale * p + (scale + 1));
}
template <> inline V<double> sigmoid<double>(V<double> x) { return 0.5 * tanh<double>(0.5 * x) + 0.5; }

// erf x for |x| ≤ 1, and the complement 1 - erf x for x ≥ 1 from bell = e^(-x²), to all digits however small it is.
inline V<float> erf_within(V<float> x) {
    V<float> u = x * x, p = splat(7.85385764e-5f);
    p = p * u - 8.01019250e-4f;
    p = p * u + 5.18832756e-3f;
    p = p * u - 2.68538119e-2f;
    p = p * u + 1.12835851e-1f;
    p = p * u - 3.76126258e-1f;
    p = p * u + 1.12837917f;
    return x * p;
}
inline V<float> erf_beyond(V<float> x, V<float> bell) {
    V<float> t = 1 / (1 + 0.5f * x), p = splat(0.0230342894f);
    p = p * t + 0.0305488699f;
    p = p * t - 0.157158858f;
    p = p * t + 0.0442867896f;
    p = p * t + 0.0714208279f;
    p = p * t + 0.177966451f;
    p = p * t + 0.246724912f;
    p = p * t + 0.282097443f;
    p = p * t + 0.282094781f;
    return bell * (t * p);
}

template <class T> inline V<T> erf(V<T> x);
template <> inline V<float> erf<float>(V<float> x) {
    V<float> size = abs<float>(x), beyond = 1 - erf_beyond(size, exp<float>(-x * x));
    return size < 1 ? erf_within(x) : x < 0 ? -beyond : beyond;
}
template <> inline V<double> erf<double>(V<double> x) {
    for (int i = 0; i < LANES<double>; ++i) x[i] = std::erf(x[i]);
    return x;
}

// Φ(z) of the normal distribution, and bell = e^(-z²/2).
template <class T> inline V<T> normal(V<T> z, V<T>& bell);
template <> inline V<float> normal<float>(V<float> z, V<float>& bell) {
    bell = exp<float>(-0.5f * z * z);
    V<float> x = z * 0.70710678f, size = abs<float>(x), beyond = 0.5f * erf_beyond(size, bell);
    return size < 1 ? 0.5f + 0.5f * erf_within(x) : x < 0 ? beyond : 1 - beyond;
}
template <> inline V<double> normal<double>(V<double> z, V<double>& bell) {
    bell = exp<double>(-0.5 * z * z);
    for (int i = 0; i < LANES<double>; ++i) z[i] = 0.5 * std::erfc(-0.70710678118654752 * z[i]);
    return z;
}

}  // namespace
}  // namespace pellucid
