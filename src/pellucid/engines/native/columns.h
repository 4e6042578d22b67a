// Kernels along an axis that is not the last: an array seen as (outer, n, inner), a vector of neighbouring columns at a
// time. Included by kernels.cpp after `split`.
#pragma once

namespace pellucid {
namespace {

// f(start, k) for k neighbouring columns, the first of their n numbers at start and the next one `inner` further on.
template <class T, class F> void columns(long outer, long n, long inner, double operations, F f) {
    constexpr long L = LANES<T>;
    long strips = (inner + L - 1) / L;
    split(outer * strips, operations * outer * n * inner, 1, [=](long begin, long end) {
        for (long each = begin; each < end; ++each) {
            long i = each % strips * L;
            f(each / strips * n * inner + i, std::min(L, inner - i));
        }
    });
}

template <class T> inline V<T> load_part(const T* p, long k) { return k == LANES<T> ? load(p) : load_some(p, k); }
template <class T> inline void store_part(T* p, V<T> v, long k) {
    if (k == LANES<T>) store(p, v);
    else store_some(p, v, k);
}

template <class T> void softmax(long outer, long n, long inner, const T* Z, T* A) {
    columns<T>(outer, n, inner, 20.0, [=](long start, long k) {
        const T* z = Z + start;
        T* a = A + start;
        V<T> top = load_part(z, k), total{};
        for (long c = 1; c < n; ++c) top = max<T>(top, load_part(z + c * inner, k));
        for (long c = 0; c < n; ++c) {
            V<T> e = exp<T>(load_part(z + c * inner, k) - top);
            total += e;
            store_part(a + c * inner, e, k);
        }
        V<T> inverse = 1 / total;
        for (long c = 0; c < n; ++c) store_part(a + c * inner, load_part(a + c * inner, k) * inverse, k);
    });
}

template <class T> void softmax_backward(long outer, long n, long inner, const T* dA, const T* A, T* dZ) {
    columns<T>(outer, n, inner, 4.0, [=](long start, long k) {
        V<T> along{};
        for (long c = 0, at = start; c < n; ++c, at += inner) along += load_part(dA + at, k) * load_part(A + at, k);
        for (long c = 0, at = start; c < n; ++c, at += inner)
            store_part(dZ + at, load_part(A + at, k) * (load_part(dA + at, k) - along), k);
    });
}

template <class T>
void softmax_cross_entropy_backward(long n, long m, const T* P, const int64_t* Y, T smoothing, T* dZ) {
    columns<T>(1, n, m, 2.0, [=](long start, long k) {
        const T share = smoothing / T(n);
        for (long c = 0, at = start; c < n; ++c, at += m) store_part(dZ + at, load_part(P + at, k) - share, k);
        for (long i = start; i < start + k; ++i) dZ[Y[i] * m + i] -= 1 - smoothing;
    });
}

template <class T>
void normalize_columns(long outer, long n, long inner, const T* A, T epsilon, T* A_hat, T* mean, T* variance) {
    columns<T>(outer, n, inner, 6.0, [=](long start, long k) {
        long of = start / (n * inner) * inner + start % inner;
        V<T> mu{}, s{};
        for (long c = 0, at = start; c < n; ++c, at += inner) mu += load_part(A + at, k);
        mu /= T(n);
        for (long c = 0, at = start; c < n; ++c, at += inner) {
            V<T> d = load_part(A + at, k) - mu;
            s += d * d;
            store_part(A_hat + at, d, k);
        }
        s /= T(n);
        V<T> scale = s + epsilon;
        for (int i = 0; i < LANES<T>; ++i) scale[i] = 1 / std::sqrt(scale[i]);
        for (long c = 0, at = start; c < n; ++c, at += inner) store_part(A_hat + at, load_part(A_hat + at, k) * scale, k);
        store_part(mean + of, mu, k);
        store_part(variance + of, s, k);
    });
}

template <class T>
void normalize_columns_backward(long outer, long n, long inner, const T* dA_hat, const T* A_hat, const T* variance,
                                T epsilon, T* dA) {
    columns<T>(outer, n, inner, 6.0, [=](long start, long k) {
        long of = start / (n * inner) * inner + start % inner;
        V<T> s{}, t{}, scale = load_part(variance + of, k) + epsilon;
        for (int i = 0; i < LANES<T>; ++i) scale[i] = 1 / std::sqrt(scale[i]);
        for (long c = 0, at = start; c < n; ++c, at += inner) {
            V<T> d = load_part(dA_hat + at, k);
            s += d;
            t += d * load_part(A_hat + at, k);
        }
        s /= T(n), t /= T(n);
        for (long c = 0, at = start; c < n; ++c, at += inner)
            store_part(dA + at, (load_part(dA_hat + at, k) - s - load_part(A_hat + at, k) * t) * scale, k);
    });
}

// f(start, width) for strips of n rows, so narrow that the rows around one are still in the cache when it is its turn.
template <class T, class F> void strips(long n, long inner, double operations, F f) {
    constexpr long WIDE = 256;
    split(inner, operations * n * inner, LANES<T>, [=](long begin, long end) {
        for (long start = begin; start < end; start += WIDE) f(start, std::min(WIDE, end - start));
    });
}

// Σ over the rows around row c.
template <class T, class F> inline V<T> around(long c, long n, long before, long after, F value) {
    V<T> total{};
    for (long other = std::max(0L, c - before); other <= std::min(n - 1, c + after); ++other) total += value(other);
    return total;
}

// S = k + α Σ A_prev² over the rows around each, A = A_prev S^-β.
template <class T>
void local_response(long n, long inner, long before, long after, T alpha, T beta, T k, const T* A_prev, T* A, T* S) {
    strips<T>(n, inner, 60.0, [=](long start, long width) {
        T* squares = scratch<T, 1>(n * width);
        for (long c = 0; c < n; ++c) {
            auto part = [=](long i, auto... some) {
                V<T> a = load(A_prev + c * inner + start + i, some...);
                store(squares + c * width + i, a * a, some...);
            };
            sweep<T>(width, part, part);
        }
        for (long c = 0; c < n; ++c) {
            auto part = [=](long i, auto... some) {
                long at = c * inner + start + i;
                V<T> s = k + alpha * around<T>(c, n, before, after, [=](long other) { return load(squares + other * width + i, some...); });
                store(S + at, s, some...);
                store(A + at, load(A_prev + at, some...) * exp<T>(-beta * log<T>(s)), some...);
            };
            sweep<T>(width, part, part);
        }
    });
}

// dA_prev = dA S^-β - 2 α β A_prev Σ dA A_prev S^(-β-1) over the rows that each row is around of.
template <class T>
void local_response_backward(long n, long inner, long before, long after, T alpha, T beta, const T* dA, const T* A_prev,
                             const T* S, T* dA_prev) {
    strips<T>(n, inner, 60.0, [=](long start, long width) {
        T* shares = scratch<T, 1>(n * width);
        for (long c = 0; c < n; ++c) {
            auto part = [=](long i, auto... some) {
                long at = c * inner + start + i;
                V<T> s = load(S + at, some...), direct = load(dA + at, some...) * exp<T>(-beta * log<T>(s));
                store(dA_prev + at, direct, some...);
                store(shares + c * width + i, direct * load(A_prev + at, some...) / s, some...);
            };
            sweep<T>(width, part, part);
        }
        for (long c = 0; c < n; ++c) {
            auto part = [=](long i, auto... some) {
                V<T> total = around<T>(c, n, after, before, [=](long other) { return load(shares + other * width + i, some...); });
                long at = c * inner + start + i;
                V<T> own = load(A_prev + at, some...) * (2 * alpha * beta);
                store(dA_prev + at, load(dA_prev + at, some...) - own * total, some...);
            };
            sweep<T>(width, part, part);
        }
    });
}

}  // namespace
}  // namespace pellucid
